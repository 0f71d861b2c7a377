//! What qmail-sslremote reads from DNS.

use ucspi_tls::internals::dane::{Record, Unusable};
use ucspi_tls::internals::dns::message::{self, Rtype, Said};
use ucspi_tls::internals::dns::servers::listed;
use ucspi_tls::internals::dns::trust::anchors;
use ucspi_tls::internals::name::DomainName;

/// `d.test`, as it stands behind the head of a message.
const NAME: &[u8] = b"\x01d\x04test\0";

/// Answers with an MX, behind an alias, and with none.
pub fn message_seeds() -> Vec<Vec<u8>> {
    let head = |answers: u8, authorities: u8, rcode: u8| {
        [
            0,
            1,
            0x81,
            0x80 | rcode,
            0,
            1,
            0,
            answers,
            0,
            authorities,
            0,
            0,
        ]
    };
    let question = [NAME, b"\0\x0f\0\x01"].concat();
    let mx = b"\xc0\x0c\0\x0f\0\x01\0\0\0\x3c\0\x07\0\x0a\x02mx\xc0\x0e";
    let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0e";
    let loop_ = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c";
    let other = b"\xc0\x0e\0\x0f\0\x01\0\0\0\x3c\0\x05\0\x0a\x01x\0";
    let tlsa = b"\xc0\x0c\0\x34\0\x01\0\0\0\x3c\0\x04\x03\x01\x01\x07";
    vec![
        [&head(1, 0, 0)[..], &question, mx].concat(),
        [&head(2, 0, 0)[..], &question, alias, other].concat(),
        [&head(1, 0, 0)[..], &question, loop_].concat(),
        [&head(1, 0, 0)[..], &question, tlsa].concat(),
        [&head(0, 0, 3)[..], &question].concat(),
        [
            &head(0, 1, 0)[..],
            &question,
            b"\xc0\x0e\0\x06\0\x01\0\0\0\x3c\0\0",
        ]
        .concat(),
    ]
}

/// Any bytes as a DNS message: reading ends, finds no more records than there is
/// room for, and names that can be shown.
pub fn dns_message(bytes: &[u8]) {
    let Some(whole) = message::taken(bytes.to_vec()) else {
        return;
    };
    let name = DomainName::from_wire(NAME).expect("a name");
    for kind in [Rtype::MX, Rtype::A, Rtype::AAAA, Rtype::TLSA, Rtype::TXT] {
        let said = message::said_of(&whole, &name, kind);
        let shown = match &said {
            Said::Records(bearer, records) => {
                assert!(!records.is_empty() && records.len() <= bytes.len() / 10);
                bearer.to_string()
            }
            Said::Alias(target) => target.to_string(),
            Said::Nothing(why) => why.clone(),
            Said::NoRecords | Said::NoSuchName => String::new(),
        };
        assert!(
            shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{shown}"
        );
        let _ = message::is_about(&whole, &name, kind);
    }
    let _ = message::has_signatures(&whole);
}

/// Records of use, and of none.
pub fn tlsa_seeds() -> Vec<Vec<u8>> {
    vec![
        [&[3, 1, 1][..], &[7; 32]].concat(),
        [&[2, 0, 2][..], &[7; 64]].concat(),
        // An Ed25519 key.
        [
            &[
                3, 1, 0, 0x30, 0x2a, 0x30, 0x05, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0,
            ][..],
            &[9; 32],
        ]
        .concat(),
        vec![3, 0, 0, 0x30, 0x82, 1, 0],
        vec![1, 1, 1],
    ]
}

/// Any bytes as the data of a TLSA record: one that is of use is what was given,
/// with the length that its numbers ask for.
pub fn tlsa(bytes: &[u8]) {
    match Record::parse(bytes) {
        Ok(record) => {
            let numbers = [record.usage, record.selector, record.matching];
            assert_eq!([&numbers[..], &record.data].concat(), bytes);
            let length = record.data.len();
            match numbers {
                [2 | 3, 0 | 1, 0] => assert!(length > 0),
                [2 | 3, 0 | 1, 1] => assert_eq!(length, 32),
                [2 | 3, 0 | 1, 2] => assert_eq!(length, 64),
                other => panic!("{other:?}"),
            }
            assert!(record.to_string().len() <= 14);
        }
        Err(why) => {
            assert_eq!(
                why == Unusable::Short,
                bytes.len() < 4 && !other_fault(bytes)
            );
            assert!(!why.to_string().is_empty());
        }
    }
}

/// A number that is unknown is the fault that is named, however short the rest is.
fn other_fault(bytes: &[u8]) -> bool {
    matches!(bytes, [usage, selector, matching, ..]
        if !(2..=3).contains(usage) || *selector > 1 || *matching > 2)
}

/// Addresses' domains, and names as they are sent.
pub fn name_seeds() -> Vec<Vec<u8>> {
    [
        &b"dom_ain.test."[..],
        b"t..test",
        b"\x01a\x04test\0",
        b"\x03a.b\x04test\0",
        "b\u{fc}cher.\u{3002}x".as_bytes(),
        b"caf\xe9.xn--a",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as the domain of an address, and as a name in an answer: what is a name
/// keeps within RFC 1035's limits, can be shown, and is the same when it is read again.
pub fn names(bytes: &[u8]) {
    let made = [DomainName::parse(bytes).ok(), DomainName::from_wire(bytes)];
    for name in made.into_iter().flatten() {
        assert!(name.wire().len() <= 255);
        assert!(name.labels().all(|label| (1..=63).contains(&label.len())));
        assert!(
            name.to_string()
                .bytes()
                .all(|byte| (0x21..0x7f).contains(&byte))
        );
        assert_eq!(DomainName::from_wire(name.wire()), Some(name));
    }
}

/// A file of resolv.conf(5), as DHCP clients write it too.
pub fn resolver_seeds() -> Vec<Vec<u8>> {
    let text: &[u8] = b"# x\nsearch a.example\nnameserver 192.0.2.1 # first\n nameserver\t::1\r\n\
        nameserver junk\nnameserver\nnameservers 192.0.2.9\nnameserver fe80::1%1\n\
        nameserver fe80::1%lo\nnameserver ::ffff:192.0.2.3\noptions edns0\n";
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    lines.map(<[u8]>::to_vec).chain([text.to_vec()]).collect()
}

/// Any bytes as resolv.conf: at most three servers, each of a line of its own that names
/// it, in their order.
pub fn resolvers(bytes: &[u8]) {
    let found = listed(bytes);
    assert!(found.len() <= 3);
    let text = String::from_utf8_lossy(bytes);
    let mut named = text.split('\n').filter_map(|line| {
        let rest = line.trim_ascii().strip_prefix("nameserver")?;
        let word = rest.split_ascii_whitespace().next()?;
        rest.starts_with(|c: char| c.is_ascii_whitespace())
            .then(|| word.split('%').next()?.parse::<std::net::IpAddr>().ok())?
    });
    for server in &found {
        assert_eq!(server.port(), 53);
        assert!(named.any(|ip| ip == server.ip()), "{server}");
    }
    if !text.contains('%') && found.len() < 3 {
        assert_eq!(named.next(), None);
    }
}

/// The root's keys as IANA and programs write them.
pub fn anchor_seeds() -> Vec<Vec<u8>> {
    [
        ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n",
        "; two\n. 172800 IN DNSKEY 257 3 8 AwEAAaz/tAm8yTn4 Mfeh5eyI96WSVexT ;{id = 1}\n\
         . dnskey 257 3 13 (\n AwEA ; half\n AQ== )\n",
        ".\tds 1 13 1 0123456789012345678901234567890123456789\r\n. IN DS 1 13 2 AB\n",
        ". IN DNSKEY 257 3 8 AAAA-\nsigned. IN DNSKEY 257 3 13 AAAA\n. IN DNSKEY 65536 3 8 (AAAA",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Any text as `dnssecanchors`: what is read are whole records of the root, each with
/// the words of a record that stands there, and the same when they are read again.
pub fn trust_anchors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(found) = anchors(text) else {
        return;
    };
    let bare: Vec<&str> = text
        .lines()
        .map(|line| line.split(';').next().unwrap_or(""))
        .collect();
    let bare = bare.join(" ").replace(['(', ')'], " ");
    // A line of blanks of another script says nothing.
    let said = bare.split_ascii_whitespace();
    let mut said = said.filter(|word| !word.trim().is_empty()).peekable();
    for record in &found {
        let words: Vec<&str> = record.split(' ').collect();
        let [".", "IN", kind, first, second, third, data] = words[..] else {
            panic!("{record}");
        };
        assert_eq!(said.next(), Some("."));
        while said
            .next_if(|word| !word.eq_ignore_ascii_case(kind))
            .is_some()
        {}
        assert!(said.next().is_some());
        assert!(
            [first, second, third]
                .into_iter()
                .all(|number| said.next() == Some(number))
        );
        let mut rest = data;
        while !rest.is_empty() {
            rest = said
                .next()
                .and_then(|word| rest.strip_prefix(word))
                .expect("its words");
        }
        let at_most =
            |number: &str, most: u32| number.parse::<u32>().is_ok_and(|number| number <= most);
        assert!(at_most(first, 65535), "{record}");
        if kind == "DS" {
            let digits = match third {
                "1" => 40,
                "2" => 64,
                "4" => 96,
                _ => panic!("{record}"),
            };
            assert!(at_most(second, 255) && data.len() == digits, "{record}");
            assert!(
                data.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{record}"
            );
        } else {
            assert_eq!((kind, second), ("DNSKEY", "3"));
            assert!(at_most(third, 255), "{record}");
            // RFC 4648, 4.
            let digits = data.trim_end_matches('=');
            let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            assert!(digits.bytes().all(digit) && !digits.is_empty(), "{record}");
            assert!(
                data.len() % 4 == 0 && data.len() - digits.len() < 3,
                "{record}"
            );
        }
    }
    assert_eq!(said.next(), None);
    let again = anchors(&found.join("\n")).expect("their own form");
    assert_eq!(again, found);
}
