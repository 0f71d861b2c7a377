//! What each fuzz target does with its bytes, and the seeds it starts from.
//! A target panics where a promise of the library is broken.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod control;
pub mod dialogue;
pub mod dns;
pub mod handshake;
pub mod keyholder;
pub mod mta_sts;
pub mod probe;
pub mod remote;
pub mod reports;
pub mod settings;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use ucspi_tls::internals::client::lines::{LINE_LIMIT, REPLY_LIMIT, Stream};
use ucspi_tls::internals::client::upgrade;
use ucspi_tls::internals::dialogue::Protocol;
use ucspi_tls::internals::domaincerts;
use ucspi_tls::internals::proxy::{Header, Malformed, Networks, Reader};
use ucspi_tls::internals::rules::{Action, Client, Rules, Scope, compile};
use ucspi_tls::internals::rulesdb::Database;
use ucspi_tls::internals::tlsdestinations::{self, Destination, Destinations, Tls};

/// A target: its name, what it does, and its seeds.
pub struct Target {
    /// As on the command line.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs that reach far.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "destinations",
        run: probe::destinations,
        seeds: probe::destination_seeds,
    },
    Target {
        name: "pins",
        run: settings::pins,
        seeds: settings::pin_seeds,
    },
    Target {
        name: "report_ledger",
        run: reports::report_ledger,
        seeds: reports::ledger_seeds,
    },
    Target {
        name: "settings",
        run: settings::settings,
        seeds: settings::seeds,
    },
    Target {
        name: "trust_anchors",
        run: dns::trust_anchors,
        seeds: dns::anchor_seeds,
    },
    Target {
        name: "certificate_list",
        run: probe::certificate_list,
        seeds: probe::certificate_seeds,
    },
    Target {
        name: "certificate_names",
        run: certificates::names,
        seeds: certificates::name_seeds,
    },
    Target {
        name: "certificate_variables",
        run: certificates::variables,
        seeds: certificates::variable_seeds,
    },
    Target {
        name: "resolvers",
        run: dns::resolvers,
        seeds: dns::resolver_seeds,
    },
    Target {
        name: "first_flight",
        run: probe::first_flight,
        seeds: probe::flight_seeds,
    },
    Target {
        name: "control",
        run: control::control,
        seeds: control::seeds,
    },
    Target {
        name: "dns_message",
        run: dns::dns_message,
        seeds: dns::message_seeds,
    },
    Target {
        name: "names",
        run: dns::names,
        seeds: dns::name_seeds,
    },
    Target {
        name: "mta_sts_policy",
        run: mta_sts::policy,
        seeds: mta_sts::policy_seeds,
    },
    Target {
        name: "mta_sts_record",
        run: mta_sts::record,
        seeds: mta_sts::record_seeds,
    },
    Target {
        name: "https_reply",
        run: mta_sts::reply,
        seeds: mta_sts::reply_seeds,
    },
    Target {
        name: "report_header",
        run: reports::report_header,
        seeds: reports::header_seeds,
    },
    Target {
        name: "report_record",
        run: reports::report_record,
        seeds: reports::record_seeds,
    },
    Target {
        name: "report_sessions",
        run: reports::report_sessions,
        seeds: reports::sessions_seeds,
    },
    Target {
        name: "tlsa",
        run: dns::tlsa,
        seeds: dns::tlsa_seeds,
    },
    Target {
        name: "keyholder",
        run: keyholder::keyholder,
        seeds: keyholder::seeds,
    },
    Target {
        name: "keyholder_messages",
        run: keyholder::keyholder_messages,
        seeds: keyholder::message_seeds,
    },
    Target {
        name: "proxy",
        run: proxy,
        seeds: proxy_seeds,
    },
    Target {
        name: "dialogue_any",
        run: dialogue::dialogue_any,
        seeds: dialogue::any_seeds,
    },
    Target {
        name: "dialogue_imap",
        run: dialogue::dialogue_imap,
        seeds: dialogue::imap_seeds,
    },
    Target {
        name: "dialogue_pop3",
        run: dialogue::dialogue_pop3,
        seeds: dialogue::pop3_seeds,
    },
    Target {
        name: "dialogue_sieve",
        run: dialogue::dialogue_sieve,
        seeds: dialogue::sieve_seeds,
    },
    Target {
        name: "dialogue_smtp",
        run: dialogue::dialogue_smtp,
        seeds: dialogue::smtp_seeds,
    },
    Target {
        name: "logins",
        run: remote::logins,
        seeds: remote::login_seeds,
    },
    Target {
        name: "responses",
        run: remote::responses,
        seeds: remote::response_seeds,
    },
    Target {
        name: "replies",
        run: replies,
        seeds: reply_seeds,
    },
    Target {
        name: "rules_cdb",
        run: rules_cdb,
        seeds: cdb_seeds,
    },
    Target {
        name: "rules_text",
        run: rules_text,
        seeds: text_seeds,
    },
    Target {
        name: "tlsdestinations",
        run: tlsdestinations,
        seeds: destination_seeds,
    },
    Target {
        name: "client_hello",
        run: handshake::client_hello,
        seeds: handshake::seeds,
    },
    Target {
        name: "handoff",
        run: control::handoff,
        seeds: control::handoff_seeds,
    },
    Target {
        name: "ident",
        run: remote::ident,
        seeds: remote::ident_seeds,
    },
    Target {
        name: "policy_cache",
        run: mta_sts::cache,
        seeds: mta_sts::cache_seeds,
    },
    Target {
        name: "routes",
        run: remote::routes,
        seeds: remote::route_seeds,
    },
    Target {
        name: "smtp_replies",
        run: remote::smtp_replies,
        seeds: remote::smtp_seeds,
    },
    Target {
        name: "survey",
        run: probe::survey_lines,
        seeds: probe::survey_seeds,
    },
];

/// Denies some and allows everyone else: who loses a rule gets in.
const DENY: &[u8] = b"1.2.3.4:deny,A=\"1\"\n1.2.3.5:allow,CERTFILE=\"/x\"\n10.0.0.0/8:deny\n\
    =a.b:deny\nj@1.2.3.5:deny\n2001:db8::1:deny\nsni=a.b:deny\nlocal=127.0.0.1:deny\n:allow\n";

fn text_seeds() -> Vec<Vec<u8>> {
    let accepted: &[u8] = b"# c\n\n2001:db8::1:deny\n2001:db8::/33:allow\nj@::1:deny\n\
        ::ffff:1.2.3.4:deny\n::ffff:0:0/97:deny\n127./8:allow\n1.2-3.4-5:allow,X=/\"/\n\
        a,b@1.2.3.4:allow\nsni=*.A.b.:allow\nlocal=::1:deny\n1.2.3.9-1:deny\n_0b0:deny\n";
    let mut seeds = vec![DENY.to_vec(), accepted.to_vec()];
    seeds.extend(
        accepted
            .split_inclusive(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec),
    );
    seeds
}

/// The first byte says what the rest is: 0 an image, else a change to [`DENY`]'s,
/// two bytes for where and one for what.
fn cdb_seeds() -> Vec<Vec<u8>> {
    let image = image(DENY).unwrap_or_default();
    let whole = [&[0], &*image].concat();
    let empty = [&[0], &*vec![0; 2048]].concat();
    vec![whole, empty, vec![1], vec![1, 0, 8, 1]]
}

/// A database without the library's writer: no file, and a second opinion on
/// the format.
fn image(text: &[u8]) -> Option<Vec<u8>> {
    let mut image = vec![0; 2048];
    let mut tables = vec![Vec::new(); 256];
    for record in compile(text).ok()?.records {
        let hash = record.key.iter().fold(5381_u32, |hash, &byte| {
            (hash << 5).wrapping_add(hash) ^ u32::from(byte)
        });
        tables[hash as usize % 256].push((hash, u32::try_from(image.len()).ok()?));
        for length in [record.key.len(), record.data.len()] {
            image.extend(u32::try_from(length).ok()?.to_le_bytes());
        }
        image.extend(&record.key);
        image.extend(&*record.data);
    }
    for (number, entries) in tables.iter().enumerate() {
        let slots = entries.len() * 2;
        let at = u32::try_from(image.len()).ok()?.to_le_bytes();
        image[number * 8..number * 8 + 4].copy_from_slice(&at);
        let count = u32::try_from(slots).ok()?.to_le_bytes();
        image[number * 8 + 4..number * 8 + 8].copy_from_slice(&count);
        let mut table = vec![(0, 0); slots];
        for &(hash, position) in entries {
            let mut slot = (hash >> 8) as usize % slots;
            while table[slot].1 != 0 {
                slot = (slot + 1) % slots;
            }
            table[slot] = (hash, position);
        }
        for (hash, position) in table {
            image.extend(hash.to_le_bytes());
            image.extend(position.to_le_bytes());
        }
    }
    Some(image)
}

thread_local! {
    static DENY_IMAGE: Vec<u8> = image(DENY).expect("it compiles");
}

/// Any bytes as a database: it is refused, or every record of it can be found.
/// And [`DENY`]'s database with one byte changed: nobody whom it denies gets in.
pub fn rules_cdb(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else {
        return;
    };
    if mode == 0 {
        let Ok(database) = Database::from_image(rest.to_vec()) else {
            return;
        };
        for (key, _) in database.records() {
            assert!(database.find(key).is_some_and(|(found, _)| found == key));
        }
        if let Ok(rules) = Rules::new(database) {
            look_up(&rules);
        }
        return;
    }
    let mut image = DENY_IMAGE.with(Vec::clone);
    let [low, high, new, ..] = *rest else {
        return;
    };
    let at = usize::from(u16::from_le_bytes([low, high])) % image.len();
    image[at] = new;
    let Ok(rules) = Database::from_image(image).and_then(Rules::new) else {
        return;
    };
    look_up(&rules);
    // One new byte can make another value or name, but neither another address
    // nor another verdict. Two could: the format has no checksum.
    for (ip, name, info) in [
        ("1.2.3.4", None, None),
        ("10.1.1.1", None, None),
        ("1.2.3.6", Some(&b"a.b"[..]), None),
        ("1.2.3.5", None, Some(&b"j"[..])),
        ("2001:db8::1", None, None),
    ] {
        let client = Client::new(ip.parse().expect("an address"), name, info);
        let action = rules.lookup(&client).map(|rule| rule.action());
        assert_eq!(action, Some(Action::Deny), "{ip} {name:?} {info:?}");
    }
}

fn look_up(rules: &Rules) {
    for ip in ["1.2.3.4", "2001:db8::1"] {
        let ip = ip.parse().expect("an address");
        let rule = rules.lookup(&Client::new(ip, Some(b"a.b"), Some(b"j")));
        assert!(rule.is_none_or(|rule| rule.scope() == Scope::Client));
        let _ = rules.lookup_local(ip);
    }
    let _ = rules.lookup_sni(b"a.b");
    for rule in rules.iter() {
        let _ = rule.address();
        assert!(rule.variables().count() <= rule.key().len() + 1_000_000);
    }
}

/// Any bytes as a text: refused with a line that exists, or compiled into
/// records that a reader understands, whose keys mean themselves.
pub fn rules_text(bytes: &[u8]) {
    let compiled = match compile(bytes) {
        Ok(compiled) => compiled,
        Err(bad) => {
            let lines = bytes.split(|&byte| byte == b'\n').count();
            for bad in &bad {
                assert!((1..=lines).contains(&bad.line), "{bad}");
            }
            return;
        }
    };
    for record in &compiled.records {
        assert!(!record.key.contains(&0) && !record.key.contains(&b'\n'));
        let data = record.data.strip_prefix(b"D\0").unwrap_or(&record.data);
        for item in data.split_inclusive(|&byte| byte == 0) {
            assert!(item.starts_with(b"+") && item.contains(&b'=') && item.ends_with(b"\0"));
        }
        if record.key.contains(&b'-') || record.key.contains(&b',') || record.key.starts_with(b"#")
        {
            continue;
        }
        let again = compile(&[&record.key, &b":allow"[..]].concat()).expect("a key is an address");
        assert_eq!(again.records.len(), 1);
        assert_eq!(again.records[0].key, record.key);
    }
    if compiled.records.len() < 1000 {
        if let Some(image) = image(bytes) {
            let rules = Database::from_image(image)
                .and_then(Rules::new)
                .expect("sound");
            assert_eq!(rules.iter().count(), compiled.records.len());
            look_up(&rules);
            // No client reaches a store's rule by what it chooses itself.
            // Neither its name nor its ident answer is ever longer.
            let said = &bytes[..bytes.len().min(1000)];
            let client = Client::literal(said, Some(said), Some(said));
            let rule = rules.lookup(&client);
            assert!(rule.is_none_or(|rule| rule.scope() == Scope::Client));
            if let Some(rule) = rules.lookup_sni(said) {
                assert_eq!(rule.scope(), Scope::ServerName);
            }
        }
    }
}

fn proxy_seeds() -> Vec<Vec<u8>> {
    let block = |rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", rest].concat();
    let mut tlvs = block(b"\x21\x11\0\x1b\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02");
    tlvs.extend(b"\x04\0\x01x\x20\0\x05\x01\0\0\0\0");
    let checked = block(
        b"\x21\x11\0\x17\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02\x03\0\x04\0\0\0\0\x04\0\x01x",
    );
    vec![
        b"PROXY TCP4 1.2.3.4 5.6.7.8 9 65535\r\n\x16\x03".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 0 1\r\n".to_vec(),
        b"PROXY UNKNOWN ff \r\n".to_vec(),
        block(b"\x20\0\0\0\x16"),
        block(&[&b"\x21\x21\0\x24"[..], &[1; 36]].concat()),
        block(&[&b"\x21\x31\0\xd8"[..], &[b'/'; 216]].concat()),
        block(b"\x21\x11\0\x13\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02\x03\0\x04\0\0\0\0"),
        tlvs,
        checked,
        format!(
            "PROXY TCP6 {0} {0} {1:0>5} 6\r\n",
            ["ffff"; 8].join(":"),
            65535
        )
        .into_bytes(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(91)).into_bytes(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).into_bytes(),
        b"10.1.2.0/24".to_vec(),
        b"127.0.0.0/8,2001:db8::/32,::ffff:1.2.3.4/100,1.2.3.4".to_vec(),
    ]
}

/// The header in pieces of this size, as far as it goes: bytes taken, and what
/// came of it.
fn read_header(bytes: &[u8], size: usize) -> (usize, Result<Option<Header>, Malformed>) {
    let mut reader = Reader::new();
    for piece in bytes.chunks(size) {
        let before = reader.taken();
        match reader.push(piece) {
            Ok((taken, header)) => {
                assert!(taken <= piece.len() && reader.taken() == before + taken);
                assert!(header.is_some() || taken == piece.len());
                if header.is_some() {
                    return (reader.taken(), Ok(header));
                }
            }
            Err(wrong) => return (reader.taken(), Err(wrong)),
        }
    }
    (reader.taken(), Ok(None))
}

/// A second opinion on the ends that a header names, and on all that stands behind them.
fn stands_there(header: &[u8], client: SocketAddr, server: SocketAddr) {
    if let Some(line) = header.strip_prefix(b"PROXY ") {
        assert!(header.len() <= 107);
        let line = std::str::from_utf8(line).expect("ASCII").trim_end();
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let ends = [client, server].map(|end| (end.ip().to_string(), end.port().to_string()));
        assert_eq!(
            [words[0].parse(), words[1].parse()],
            [Ok(client.ip()), Ok(server.ip())]
        );
        assert_eq!(words[2..], [&*ends[0].1, &*ends[1].1]);
        return;
    }
    let mut wanted = Vec::new();
    for ip in [client.ip(), server.ip()] {
        match ip {
            IpAddr::V4(ip) => wanted.extend(ip.octets()),
            IpAddr::V6(ip) => wanted.extend(ip.octets()),
        }
    }
    wanted.extend(
        [client.port(), server.port()]
            .map(u16::to_be_bytes)
            .as_flattened(),
    );
    let mut rest = header[16..].strip_prefix(&*wanted).expect("the addresses");
    while !rest.is_empty() {
        let [kind, high, low, behind @ ..] = rest else {
            panic!("half an extension");
        };
        let (value, later) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if *kind == 3 {
            let mut blank = header.to_vec();
            let at = header.len() - later.len() - 4;
            blank[at..at + 4].fill(0);
            // CRC32c, bit by bit.
            let sum = blank.iter().fold(!0_u32, |sum, byte| {
                (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                    if sum & 1 == 0 {
                        sum >> 1
                    } else {
                        (sum >> 1) ^ 0x82f6_3b78
                    }
                })
            });
            assert_eq!(value, (!sum).to_be_bytes());
        }
        rest = later;
    }
}

/// Any bytes as a header: however they are cut up the same comes of them, and
/// the same bytes are taken; what follows is of no account; addresses survive
/// being written down. And any bytes as a list of networks.
pub fn proxy(bytes: &[u8]) {
    let (taken, whole) = read_header(bytes, bytes.len().max(1));
    for size in [1, 2, 7, 100] {
        assert_eq!(read_header(bytes, size), (taken, whole), "{size}");
    }
    if let Ok(Some(header)) = whole {
        assert!((15..=16 + 65535).contains(&taken));
        assert!(taken <= 107 || !bytes.starts_with(b"PROXY"));
        assert_eq!(read_header(&bytes[..taken], 4096).1, whole);
        assert_eq!(read_header(&bytes[..taken - 1], 4096).1, Ok(None));
        if let Header::Proxied { client, server } = header {
            assert_eq!(client.is_ipv4(), server.is_ipv4());
            stands_there(&bytes[..taken], client, server);
            let line = format!(
                "PROXY TCP{} {} {} {} {}\r\n",
                if client.is_ipv4() { 4 } else { 6 },
                client.ip(),
                server.ip(),
                client.port(),
                server.port()
            );
            assert_eq!(read_header(line.as_bytes(), 107), (line.len(), whole));
        }
    }
    let Ok(list) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(networks) = Networks::parse(list) {
        for item in list.split(',') {
            let address = item.split('/').next().and_then(|text| text.parse().ok());
            let address: IpAddr = address.expect("an address");
            // Mapped ones are IPv4, which no network of IPv6 holds.
            let mapped = address.to_canonical() != address;
            assert!(mapped || networks.contain(address), "{item}");
            let prefix = item
                .split('/')
                .nth(1)
                .and_then(|text| text.parse::<u32>().ok());
            if let (IpAddr::V4(inside), 1..=32, false) =
                (address, prefix.unwrap_or(32), list.contains(','))
            {
                let last = 1 << (32 - prefix.unwrap_or(32));
                let outside = std::net::Ipv4Addr::from_bits(inside.to_bits() ^ last);
                assert!(!networks.contain(outside.into()), "{item} {outside}");
            }
        }
    }
}

fn reply_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x00\x05220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n"[..],
        b"\x01\x01220-x\r\n220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n",
        b"\x02\x09+OK\r\n+OK\r\nSTLS\r\n.\r\n+OK\r\n",
        b"\x03\x04* OK [CAPABILITY X] y\r\n* CAPABILITY STARTTLS\r\na1 OK\r\na2 OK\r\n",
        b"\x04\xff\"STARTTLS\" {3}\r\nabc\r\nOK\r\nOK \"x\"\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// A server whose answers are these bytes, in pieces that end with lines so that
/// an honest order of things comes about.
struct Server<'a> {
    bytes: &'a [u8],
    piece: usize,
    heard: Vec<u8>,
    given: usize,
}

impl Read for Server<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // No further than that: a long input would be searched again for each piece.
        let most = self.piece.min(buffer.len()).min(self.bytes.len());
        let line = self.bytes[..most].iter().position(|&byte| byte == b'\n');
        let count = line.map_or(most, |at| at + 1);
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        self.given += count;
        Ok(count)
    }
}

impl Stream for Server<'_> {
    fn has_spoken(&mut self) -> io::Result<bool> {
        // A line is there when it is read, no sooner.
        Ok(false)
    }
}

impl Write for Server<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Any bytes as a server's side of the dialogue before TLS: it ends, within its
/// limits; a refusal is one printable line; no go-ahead comes without the
/// upgrade having been asked for.
pub fn replies(bytes: &[u8]) {
    let [protocol, piece, bytes @ ..] = bytes else {
        return;
    };
    let all = [
        Protocol::Smtp,
        Protocol::Lmtp,
        Protocol::Pop3,
        Protocol::Imap,
        Protocol::Sieve,
    ];
    let protocol = all[usize::from(*protocol) % all.len()];
    let mut server = Server {
        bytes,
        piece: usize::from(*piece).max(1),
        heard: Vec::new(),
        given: 0,
    };
    match upgrade(&mut server, protocol, "me.example") {
        Ok(greeting) => {
            let command = format!("{}\r\n", protocol.upgrade_command());
            assert!(server.heard.ends_with(command.as_bytes()));
            assert!(greeting.len() <= REPLY_LIMIT + LINE_LIMIT);
            let text = greeting.get(4..).unwrap_or_default().trim_ascii();
            let head = text.get(..11).unwrap_or_default();
            let listed = head.eq_ignore_ascii_case(b"[CAPABILITY");
            assert!(protocol != Protocol::Imap || !listed);
        }
        Err(refusal) => {
            let said = refusal.to_string();
            assert!(said.len() < 4000 && said.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        }
    }
    assert!(server.given <= 5 * (REPLY_LIMIT + 2 * LINE_LIMIT));
}

fn destination_seeds() -> Vec<Vec<u8>> {
    let text: &[u8] =
        b"!a.example:\n%mx.a.example:=0123456789abcdef0123456789abcdef01234567,spki:00\n\
        =mx.a.example:/ca|HIGH|3;s465|one.example\n~.a.example:/ca/\n.example:\n-b.example:;6209\n\
        =*:\n~*:\n+*:\n-*:\n*:\n-:\n[::1]:x\n:\nno colon\n";
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let mut seeds: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
    seeds.push(text.to_vec());
    seeds
}

/// Any bytes as tlsdestinations: what is looked up is the line that says so, a
/// line that is called dead decides for nobody, and no line after it makes a
/// rule that requires TLS weaker.
pub fn tlsdestinations(bytes: &[u8]) {
    let rules = Destinations::from_text(bytes);
    let lines = bytes.split(|&byte| byte == b'\n').count();
    let dead: Vec<usize> = tlsdestinations::remarks(bytes)
        .into_iter()
        .filter(|remark| !remark.wrong)
        .map(|remark| remark.line)
        .collect();
    let weaker = Destinations::from_text([bytes, b"\n*:\n-:\n-*:\n"].concat());
    for host in [
        "mx.a.example",
        "a.example",
        "b.example",
        "[::1]",
        "192.0.2.1",
        "",
    ] {
        for sender in [None, Some("one.example")] {
            match rules.look_up(&Destination::itself(host), sender) {
                Ok(rule) => {
                    let line = rule.line.unwrap_or(0);
                    assert!(line <= lines && !dead.contains(&line), "line {line}");
                    assert!(!rule.in_words(&Destination::itself(host)).contains('\n'));
                    if rule.tls() == Tls::Required && rule.line.is_some() {
                        let again = weaker
                            .look_up(&Destination::itself(host), sender)
                            .expect("still sound");
                        // `-*` comes before nothing that requires more.
                        assert_eq!(again.line, rule.line);
                    }
                }
                Err(wrong) => assert!((1..=lines).contains(&wrong.line), "{wrong}"),
            }
        }
    }
    match tlsdestinations::compile(bytes) {
        Ok(records) => assert!(records.iter().all(|(key, _)| !key.is_empty())),
        Err(bad) => {
            assert!(!bad.is_empty());
            assert!(bad.iter().all(|bad| (1..=lines).contains(&bad.line)));
        }
    }
    let _ = domaincerts::look_up(bytes, Some("mx.a.example"));
}
