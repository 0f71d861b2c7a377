//! Host names that the resolver tells, honest ones and others: a name server of
//! the test's own, behind a resolv.conf of its own.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;

use openssl::ssl::SslVersion;

use crate::harness::{Authority, Dial, Leaf, Place, Setup, need, need_root, overlay, run, skip};

/// What it knows, as (name, type, data). Types: 1 A, 12 PTR.
const ZONE: [(&str, u16, &str); 9] = [
    ("5.0.0.127.in-addr.arpa", 12, "honest.example"),
    ("honest.example", 1, "127.0.0.5"),
    ("6.0.0.127.in-addr.arpa", 12, "liar.example"),
    ("liar.example", 1, "127.0.0.7"),
    ("7.0.0.127.in-addr.arpa", 12, "MiXed.Example"),
    ("mixed.example", 1, "127.0.0.7"),
    // These lead back to themselves, or to everybody.
    ("9.0.0.127.in-addr.arpa", 12, "127.0.0.9"),
    ("10.0.0.127.in-addr.arpa", 12, "2130706442"),
    ("11.0.0.127.in-addr.arpa", 12, "."),
];

/// A name in the form of RFC 1035, section 3.1.
fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// The answer to one query; none to what is no query.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut name = Vec::new();
    while *query.get(at)? != 0 {
        let length = usize::from(query[at]);
        name.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let name = name.join(".");
    let end = at + 5;
    let wanted = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let known = ZONE.iter().any(|(one, ..)| *one == name);
    let found = ZONE
        .iter()
        .find(|(one, kind, _)| *one == name && *kind == wanted);
    let mut reply = query[..2].to_vec();
    // A response, authoritative, recursion available; NXDOMAIN where it is due.
    reply.extend([0x85, if known { 0x80 } else { 0x83 }]);
    reply.extend([0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]);
    reply.extend(query.get(12..end)?);
    if let Some((_, kind, data)) = found {
        let data = if *kind == 1 {
            data.split('.').map(|part| part.parse().unwrap()).collect()
        } else {
            labels(data)
        };
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0]);
        reply.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

/// Words that run the rest with the name server above as the only one.
fn resolver(place: &Place) -> Option<Vec<String>> {
    // The port is fixed, so each server has an address of its own.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let mut addresses = (79..99).map(|second| IpAddr::from([127, second, high, low]));
    let socket = addresses.find_map(|address| UdpSocket::bind((address, 53)).ok())?;
    let name_server = socket.local_addr().ok()?.ip();
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            if let Some(reply) = answer(&query[..length]) {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    let text = format!("nameserver {name_server}\noptions timeout:5\n");
    let resolv = place.write("resolv.conf", text);
    let hosts = place.write("hosts", "127.0.0.1 localhost\n");
    // It may be a link into a place that is not there.
    let real = std::fs::canonicalize("/etc/resolv.conf").ok()?;
    let words = overlay::mounted(&[(&resolv, real.to_str()?), (&hosts, "/etc/hosts")]);
    let mut command = std::process::Command::new(&words[0]);
    let trial = run(
        command
            .args(&words[1..])
            .args(["getent", "hosts", "127.0.0.5"]),
        b"",
    );
    trial.text().contains("honest.example").then_some(words)
}

#[test]
fn paranoia_drops_a_name_that_does_not_lead_back() {
    need_root!();
    need!("unshare");
    let place = Place::new("paranoid");
    let Some(words) = resolver(&place) else {
        skip!("no name server of our own can be put before the resolver");
    };
    let name = |letters: &str, from: &str| {
        let server = Setup::script(&place, "echo \"${SSLREMOTEHOST-unset}\"")
            .options(letters)
            .through(words.clone())
            .start();
        let from: SocketAddr = from.parse().unwrap();
        Dial::to(&server).from(from).connect().text()
    };
    assert_eq!(name("-h", "127.0.0.5:0"), "honest.example\n");
    assert_eq!(name("-hp", "127.0.0.5:0"), "honest.example\n");
    assert_eq!(name("-h", "127.0.0.6:0"), "liar.example\n");
    assert_eq!(name("-hp", "127.0.0.6:0"), "unset\n");
    assert_eq!(name("-hpP", "127.0.0.6:0"), "liar.example\n");
    assert_eq!(
        name("-hp", "127.0.0.7:0"),
        "mixed.example\n",
        "in lower case"
    );
    assert_eq!(
        name("-h", "127.0.0.8:0"),
        "unset\n",
        "a client without a name"
    );
    assert_eq!(name("-H", "127.0.0.5:0"), "unset\n");
    for last in [9, 10, 11] {
        for letters in ["-h", "-hp"] {
            let from = format!("127.0.0.{last}:0");
            assert_eq!(name(letters, &from), "unset\n", "{letters} {from}");
        }
    }
}

#[test]
fn z_takes_no_client_s_own_word_for_its_name() {
    need_root!();
    need!("unshare");
    let place = Place::new("named-and-proven");
    let Some(words) = resolver(&place) else {
        skip!("no name server of our own can be put before the resolver");
    };
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = Setup::script(&place, "echo \"$SSL_CLIENT_VERIFY $SSLREMOTEHOST\"")
        .options("-hzP")
        .env("CAFILE", root)
        .through(words)
        .start();
    let everything = Leaf::new("x")
        .dns("honest.example")
        .dns("liar.example")
        .dns("127.0.0.9")
        .dns("2130706442")
        .address("127.0.0.9")
        .issue();
    let mut refused = 0;
    for (last, said) in [
        (5, Some("SUCCESS honest.example\n")),
        (6, None),
        (7, None),
        (9, None),
        (10, None),
        (11, None),
    ] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let from: SocketAddr = format!("127.0.0.{last}:0").parse().unwrap();
            let dial = Dial::to(&server).from(from).version(version);
            let text = dial.presenting(&everything).attempt().ok().map(|mut tls| {
                let (bytes, _) = tls.rest();
                String::from_utf8(bytes).unwrap()
            });
            let text = text.filter(|text| !text.is_empty());
            assert_eq!(text.as_deref(), said, "{last} {version:?}");
            if said.is_none() {
                refused += 1;
                let lines = server.lines("client certificate did not verify", refused);
                let why = if last == 7 {
                    "it does not name mixed.example"
                } else {
                    "the client's host has no name to match"
                };
                let line = &lines[refused - 1];
                assert!(line.contains(&format!("depth 0, /CN=x: {why}")), "{line}");
            }
        }
    }
}
