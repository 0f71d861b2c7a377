//! What sslprobe reads from servers: a first flight, and certificates.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};
use ucspi_tls::internals::anchor_pool::AnchorPool;
use ucspi_tls::internals::options::sslprobe::{Options, Start};
use ucspi_tls::internals::probe::{
    HostResult, Reader, ServerReply, Verifier, certificates, parse, units,
};
use ucspi_tls::internals::survey::{Collector, Layout, Run, changes, compare, reader, survey};
use ucspi_tls::internals::trust::Reference;

/// The most of a flight that is kept, in bytes.
const LIMIT: usize = 300 * 1024;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u16).to_be_bytes();
    [&[22, 3, 3], &length[..], bytes].concat()
}

fn hello(version: [u8; 2], suite: u16, extensions: &[u8]) -> Vec<u8> {
    let mut body = [&version[..], &[7; 32], &[0]].concat();
    body.extend(suite.to_be_bytes());
    body.push(0);
    if !extensions.is_empty() {
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
    }
    message(2, &body)
}

/// Flights of old and new servers.
pub fn flight_seeds() -> Vec<Vec<u8>> {
    let list = message(11, &[0, 0, 8, 0, 0, 5, b'f', b'i', b'r', b's', b't']);
    let curve = message(
        12,
        &[&[3, 0, 0x17, 3][..], b"key", &[4, 1, 0, 1, 9]].concat(),
    );
    let prime = [&[0, 64][..], &[0xff; 64], &[0, 1, 2, 0, 1, 9]].concat();
    let done = message(14, &[]);
    let flight = |parts: &[&[u8]]| record(&parts.concat());
    vec![
        flight(&[&hello([3, 0], 0x0004, &[]), &list, &done]),
        flight(&[
            &hello([3, 3], 0xc02f, &[]),
            &list,
            &curve,
            &message(13, &[]),
            &done,
        ]),
        flight(&[
            &hello([3, 1], 0x0014, &[]),
            &list,
            &message(12, &prime),
            &done,
        ]),
        flight(&[&hello(
            [3, 3],
            0x1301,
            &[0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0x11, 0xec],
        )]),
        vec![21, 3, 1, 0, 2, 2, 40],
        [
            &[21, 3, 3, 0, 2, 1, 112][..],
            &record(&hello([3, 3], 0x009c, &[])),
        ]
        .concat(),
        b"220 mx.example ESMTP\r\n".to_vec(),
    ]
}

/// Any bytes as a server's first flight: it says the same in one piece and byte by
/// byte, and nothing is kept beyond the limits.
pub fn first_flight(bytes: &[u8]) {
    let mut whole = Reader::default();
    let at_once = whole.take(bytes);
    let mut reader = Reader::default();
    let mut piecewise = Ok(None);
    for byte in bytes {
        piecewise = reader.take(&[*byte]);
        if !matches!(piecewise, Ok(None)) {
            break;
        }
    }
    match (&at_once, &piecewise) {
        // How much of what is no TLS is shown depends on how much has come.
        (Ok(Some(ServerReply::Other(all))), Ok(Some(ServerReply::Other(part)))) => {
            assert!(all.starts_with(part))
        }
        _ => assert_eq!(at_once, piecewise),
    }
    if let Ok(Some(ServerReply::Flight(flight))) = at_once {
        let kept: usize = flight.certificates.iter().map(Vec::len).sum();
        assert!(kept <= LIMIT);
    }
}

fn certificate() -> Vec<u8> {
    let key = PKey::generate_ed25519().expect("a key");
    let made = certificate_of(&key, MessageDigest::null(), 2);
    made.to_der().expect("DER")
}

/// A key's own certificate, of this version.
pub(crate) fn certificate_of(key: &PKey<Private>, digest: MessageDigest, version: i32) -> X509 {
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "mx.example")
        .expect("an entry");
    let name = name.build();
    let mut made = X509::builder().expect("a certificate");
    made.set_version(version).expect("set");
    made.set_serial_number(
        &BigNum::from_u32(7)
            .expect("7")
            .to_asn1_integer()
            .expect("7"),
    )
    .expect("set");
    made.set_subject_name(&name).expect("set");
    made.set_issuer_name(&name).expect("set");
    made.set_pubkey(key).expect("set");
    made.set_not_before(&Asn1Time::from_unix(0).expect("a time"))
        .expect("set");
    made.set_not_after(&Asn1Time::from_unix(1 << 31).expect("a time"))
        .expect("set");
    let names = SubjectAlternativeName::new()
        .dns("mx.example")
        .ip("192.0.2.1")
        .build(&made.x509v3_context(None, None))
        .expect("names");
    made.append_extension(names).expect("set");
    made.sign(key, digest).expect("signed");
    made.build()
}

/// Bodies of Certificate messages.
pub fn certificate_seeds() -> Vec<Vec<u8>> {
    let der = certificate();
    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[1..], bytes].concat();
    let one = sized(&der);
    vec![
        sized(&one),
        sized(&[&one[..], &one].concat()),
        sized(&sized(b"no certificate")),
    ]
}

thread_local! {
    static JUDGE: Verifier = Verifier::new(AnchorPool::default()).expect("a store");
}

/// Any bytes as a Certificate message: what is said of it is printable and comes
/// back out of JSON as it was.
pub fn certificate_list(bytes: &[u8]) {
    let Ok(list) = certificates(bytes) else {
        return;
    };
    match JUDGE.with(|judge| judge.certificate(&list, &[])) {
        Err(why) => {
            let why = why.to_string();
            assert!(!why.is_empty() && why.is_ascii());
        }
        Ok(one) => {
            let texts = [&one.subject, &one.issuer, &one.verify]
                .into_iter()
                .chain(&one.names);
            for text in texts {
                assert!(
                    text.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                    "{text:?}"
                );
            }
            let result = HostResult {
                host: "x".to_owned(),
                certificates: vec![one],
                ..HostResult::default()
            };
            let again = HostResult::from_json(&result.to_json().expect("JSON"));
            assert_eq!(again, Ok(result));
        }
    }
}

/// Lines of sslprobe's.
pub fn survey_seeds() -> Vec<Vec<u8>> {
    let certificate = r#"{"key":"rsa","bits":2048,"modulus":"c5","subject":"/CN=|a","sha256":"aa","spki":"bb","chain":"complete","verify":"ok","name_ok":true,"names":["a"]}"#;
    let line = |host: &str, address: &str| {
        format!(
            r#"{{"host":"{host}","port":25,"address":"{address}","listens":true,"versions":{{"TLSv1.2":true,"TLSv1.3":false}},"suites":{{"TLSv1.2":["X"]}},"certificates":[{certificate}],"findings":[{{"severity":"high","code":"expired","text":"x"}}]}}"#
        )
    };
    vec![
        line("a", "192.0.2.1").into_bytes(),
        [
            line("a", "192.0.2.1"),
            line("a|b", "2001:db8::1"),
            "{}".to_owned(),
        ]
        .join("\n")
        .into_bytes(),
        b"\xef\xbb\xbf{\"host\":\"a\"}\n[1]\n\xff\n".to_vec(),
    ]
}

/// Any bytes as results: each line that is no blank is one or is skipped; a result comes
/// out of JSON again as it was; its run differs from itself in nothing; and what is
/// shown of it all are lines that can be shown.
pub fn survey_lines(bytes: &[u8]) {
    let (mut results, mut skipped) = (Vec::new(), 0);
    let read = reader::read(
        bytes,
        |result| results.push(result),
        |number, why| {
            skipped += 1;
            assert!(number > 0 && !why.contains('\n'));
        },
    );
    read.expect("no error of memory's");
    let lines = bytes.split(|&byte| byte == b'\n').count();
    assert!(results.len() + skipped <= lines);
    let (mut collector, mut run) = (Collector::default(), Run::default());
    for result in &results {
        let again = HostResult::from_json(&result.to_json().expect("JSON"));
        assert_eq!(again.as_ref(), Ok(result));
        collector.add(result);
        run.add(result);
    }
    let same = compare(&run, &run);
    let all = [&same.better, &same.worse, &same.new, &same.gone];
    assert!(all.into_iter().all(Vec::is_empty));
    assert!(same.unchanged <= results.len() as u64);
    let found = collector.finish(None);
    let differences = compare(&Run::default(), &run);
    for layout in [Layout::Plain, Layout::Markdown] {
        for text in [survey(&found, layout), changes(&differences, None, layout)] {
            let mut bytes = text.bytes();
            assert!(
                bytes.all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)),
                "{text:?}"
            );
        }
    }
}

/// Destinations of sslprobe's, a line each.
pub fn destination_seeds() -> Vec<Vec<u8>> {
    let text = "mx.example\nmx.example:587\n127.0.0.1:2525\nm\u{fc}nchen.example:587\n[::1]:993\n\
        [::1]\n::1\n[fe80::1%lo]:25\nmx.example:25\n:25\na:65536\n[::1]x\n-x\nuser@a\na..b.\n";
    let lines = text
        .split_inclusive('\n')
        .map(|line| line.as_bytes().to_vec());
    lines.chain([text.as_bytes().to_vec()]).collect()
}

/// Any lines as destinations: what is read of one is written down again as the same, in
/// both forms of a port; what is refused is told in one line; and of those of one host
/// none is lost, or another's.
pub fn destinations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let options = Options::default();
    let mut found = Vec::new();
    for word in text.split('\n') {
        let one = match parse(word, &options) {
            Ok(one) => one,
            Err(why) => {
                let why = why.to_string();
                assert!(why.len() < 600 && why.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                continue;
            }
        };
        let (host, port) = (&one.host, one.port);
        assert_eq!(one.start, Start::of_port(port));
        assert!(
            host.is_ascii() && port > 0 && !host.starts_with('-'),
            "{word:?}"
        );
        assert!(!host.contains(['[', ']', '/', '@', ' ', '\0']), "{word:?}");
        let address = host
            .split('%')
            .next()
            .and_then(|host| host.parse::<IpAddr>().ok());
        // Behind the bracket, or the one colon of what is no address.
        let behind = word.rfind(']').map_or(word, |at| &word[at + 1..]);
        // Only addresses of IPv6 have zones.
        let is_bare = match word.split_once('%') {
            Some((address, _)) => address.parse::<Ipv6Addr>().is_ok(),
            None => word.parse::<IpAddr>().is_ok(),
        };
        let wanted = match behind.rsplit_once(':') {
            Some((_, digits)) if !is_bare => digits.parse().ok(),
            _ => Some(25),
        };
        assert_eq!(Some(port), wanted, "{word:?}");
        if let (Some(address), Reference::Address(read)) = (address, &one.reference) {
            assert_eq!(address.to_canonical(), read.to_canonical());
        }
        let mut forms = vec![format!("[{host}]:{port}")];
        if !host.contains(':') {
            forms.push(format!("{host}:{port}"));
        }
        for form in forms {
            assert_eq!(parse(&form, &options).as_ref(), Ok(&one), "{form}");
        }
        found.push(one);
    }
    let all = units(found.clone(), false);
    let hosts: BTreeSet<&str> = all.iter().map(|unit| &*unit.host).collect();
    assert_eq!(hosts.len(), all.len());
    for unit in &all {
        let own = found.iter().filter(|one| one.host == unit.host);
        assert!(found.len() > 1000 || own.eq(&unit.destinations));
    }
    let kept: usize = all.iter().map(|unit| unit.destinations.len()).sum();
    assert_eq!(kept, found.len());
}
