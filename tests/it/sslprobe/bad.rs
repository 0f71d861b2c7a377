//! Servers that are none, or bad ones: each is a line that says so, and nothing
//! takes longer than it may.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{SslVerifyMode, SslVersion};

use super::server::{OpenSsl, Scripted, smtp, smtp_inside, tls};
use super::{has, list, result, text};
use crate::harness::peer::context;
use crate::harness::{Identity, KeyKind, Leaf, Place};

/// Reads one ClientHello.
fn hello(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 5];
    if stream.read_exact(&mut head).is_err() {
        return Vec::new();
    }
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    let _ = stream.read_exact(&mut body);
    body
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn records(version: [u8; 2], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in bytes.chunks(16384) {
        let length = u16::try_from(piece.len()).expect("short").to_be_bytes();
        out.extend([&[22], &version[..], &length, piece].concat());
    }
    out
}

/// A ServerHello below TLS 1.3.
fn server_hello(version: [u8; 2], suite: u16) -> Vec<u8> {
    let suite = suite.to_be_bytes();
    message(2, &[&version[..], &[7; 32], &[0], &suite, &[0]].concat())
}

fn certificate(list: &[Vec<u8>]) -> Vec<u8> {
    let sized = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
        [&length[1..], bytes].concat()
    };
    let inner: Vec<u8> = list.iter().flat_map(|one| sized(one)).collect();
    message(11, &sized(&inner))
}

fn der() -> Vec<u8> {
    let identity = Identity::localhost(KeyKind::Rsa2048);
    identity.certificate.to_der().expect("DER")
}

/// Whether the ClientHello that comes next offers TLS 1.3, in supported_versions.
fn offers_tls_13(stream: &TcpStream) -> bool {
    let mut hello = [0; 4096];
    let length = stream.peek(&mut hello).unwrap_or(0);
    hello[..length]
        .windows(7)
        .any(|bytes| bytes[..3] == [0, 43, 0] && bytes[5..] == [3, 4])
}

/// Which suites a ClientHello offers, and its version.
fn offered(hello: &[u8]) -> ([u8; 2], Vec<u16>) {
    let session = usize::from(hello[38]);
    let at = 39 + session;
    let length = usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    let suites = hello[at + 2..at + 2 + length].chunks(2);
    let suites = suites.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    ([hello[4], hello[5]], suites.collect())
}

/// A server of 1997: SSL 3.0, EXPORT, RC4 and 3DES.
fn ancient() -> Scripted {
    let der = der();
    Scripted::start(move |stream, _, seen| {
        let hello = hello(stream);
        if hello.is_empty() {
            return;
        }
        seen.hello = true;
        let (_, suites) = offered(&hello);
        let own = [0x0004, 0x0003, 0x000a, 0x0014];
        let Some(suite) = own.into_iter().find(|suite| suites.contains(suite)) else {
            let _ = stream.write_all(&[21, 3, 0, 0, 2, 2, 40]);
            return;
        };
        let mut flight = server_hello([3, 0], suite);
        flight.extend(certificate(std::slice::from_ref(&der)));
        match suite {
            0x0003 => {
                let key = [&[0, 64][..], &[0x90; 64], &[0, 1, 3], &[0, 4, 1, 2, 3, 4]].concat();
                flight.extend(message(12, &key));
            }
            0x0014 => {
                let key = [
                    &[0, 64][..],
                    &[0xf0; 64],
                    &[0, 1, 2],
                    &[0, 1, 9],
                    &[0, 1, 1],
                ]
                .concat();
                flight.extend(message(12, &key));
            }
            _ => {}
        }
        flight.extend(message(14, &[]));
        let _ = stream.write_all(&records([3, 0], &flight));
        let _ = stream.read(&mut [0; 64]);
    })
}

#[test]
fn ssl_3_export_and_rc4_are_found_without_openssl_s_help() {
    let server = ancient();
    let (found, code) = result(&[&server.at.to_string()]);
    assert_eq!(code, 1);
    assert_eq!(found["versions"]["SSLv3"], true, "{found:#}");
    assert_eq!(found["versions"]["TLSv1.2"], false);
    assert_eq!(found["preferred"]["SSLv3"], "RC4-MD5");
    let weak = list(&found["weak"]);
    for suite in ["RC4-MD5", "EXP-RC4-MD5", "DES-CBC3-SHA"] {
        assert!(weak.contains(&suite), "{suite}: {weak:?}");
    }
    assert!(text(&found, "weak-suite").contains("EXPORT"));
    assert!(has(&found, "old-version"));
    assert!(has(&found, "no-secure-renegotiation"));
    let certificate = &found["certificates"][0];
    assert_eq!(
        (&certificate["key"], &certificate["bits"]),
        (&"rsa".into(), &2048.into())
    );
    assert_eq!(found["tlsdestinations"], serde_json::Value::Null);
    let (full, _) = result(&["-F", &server.at.to_string()]);
    let suites = list(&full["suites"]["SSLv3"]);
    assert_eq!(
        suites,
        [
            "RC4-MD5",
            "EXP-RC4-MD5",
            "DES-CBC3-SHA",
            "EXP-EDH-RSA-DES-CBC-SHA"
        ]
    );
    assert_eq!(full["dh_bits"], 512, "{full:#}");
    assert!(has(&full, "small-dh"));
}

#[test]
fn a_hybrid_group_is_found_by_the_group_that_the_server_asks_for() {
    // It asks for X25519MLKEM768 wherever that is on offer, else for P-256.
    let server = Scripted::start(|stream, _, _| {
        let hello = hello(stream);
        let thirteen = hello.windows(2).any(|pair| pair == [3, 4]);
        if hello.is_empty() || !thirteen {
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 70]);
            return;
        }
        let offered = |group: [u8; 2]| hello.windows(2).any(|pair| pair == group);
        let group = if offered([0x11, 0xec]) {
            [0x11, 0xec]
        } else {
            [0, 0x17]
        };
        let retry = [
            0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65,
            0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2,
            0xc8, 0xa8, 0x33, 0x9c,
        ];
        let extensions = [&[0, 43, 0, 2, 3, 4, 0, 51, 0, 2][..], &group].concat();
        let session = &hello[38..71];
        let body = [
            &[3, 3][..],
            &retry,
            session,
            &[0x13, 1, 0, 0, 12],
            &extensions,
        ]
        .concat();
        let _ = stream.write_all(&records([3, 3], &message(2, &body)));
        let _ = stream.read(&mut [0; 64]);
    });
    let (found, _) = result(&[&server.at.to_string()]);
    assert_eq!(found["versions"]["TLSv1.3"], true, "{found:#}");
    let groups = list(&found["groups"]);
    assert!(
        groups.contains(&"X25519MLKEM768") && groups.contains(&"P-256"),
        "{groups:?}"
    );
    assert!(!has(&found, "no-hybrid"));
    let (full, _) = result(&["-F", &server.at.to_string()]);
    assert_eq!(list(&full["groups"]), ["X25519MLKEM768", "P-256"]);
}

#[test]
fn what_is_no_tls_is_named() {
    let server = Scripted::start(|stream, _, _| {
        let _ = hello(stream);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad \x1b Request\r\n\r\n");
    });
    let (found, code) = result(&[&server.at.to_string()]);
    assert_eq!((&found["listens"], code), (&true.into(), 1));
    assert!(has(&found, "tls-failed"), "{found:#}");
    assert!(found["error"].is_string() && found["versions"].is_null());
    assert!(!found.to_string().contains("\\u001b"), "{found}");
}

#[test]
fn a_tarpit_takes_no_longer_than_it_may() {
    // A byte every tenth of a second, for ever.
    let server = Scripted::start(|stream, _, _| {
        while stream.write_all(b"2").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let begin = Instant::now();
    let (found, _) = result(&["-y", "smtp", "-t", "1", &server.at.to_string()]);
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert!(
        found["error"].as_str().expect("why").contains("time"),
        "{found:#}"
    );
    let server = Scripted::start(|stream, _, _| {
        while stream.write_all(&[22]).is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let begin = Instant::now();
    let (found, _) = result(&["-t", "2", "-T", "3", &server.at.to_string()]);
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert!(found["error"].is_string(), "{found:#}");
}

#[test]
fn a_server_that_resets_in_each_phase_is_a_line() {
    for phase in 0..4 {
        let server = Scripted::start(move |stream, _, seen| {
            let socket = socket2_linger(stream);
            if phase > 0 {
                let _ = stream.write_all(b"220 mx\r\n");
                let _ = super::server::line(stream);
            }
            if phase > 1 {
                let _ = stream.write_all(b"250-mx\r\n250 STARTTLS\r\n");
                let _ = super::server::line(stream);
            }
            if phase > 2 {
                let _ = stream.write_all(b"220 go\r\n");
                seen.hello = !hello(stream).is_empty();
            }
            drop(socket);
        });
        let (found, code) = result(&["-y", "smtp", &server.at.to_string()]);
        assert_eq!(code, 1, "{phase}");
        assert!(
            found["error"].is_string() && found["versions"].is_null(),
            "{phase}: {found:#}"
        );
        let (all, hellos) = (&found["connections"], &found["handshakes"]);
        assert!(
            all.as_u64() <= hellos.as_u64().map(|hellos| hellos + 2),
            "{phase}: {found:#}"
        );
    }
}

/// Has the connection end with a reset.
fn socket2_linger(stream: &TcpStream) -> TcpStream {
    use std::os::fd::AsFd as _;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream.as_fd(), nix::sys::socket::sockopt::Linger, &linger)
        .expect("set");
    stream.try_clone().expect("copy")
}

/// A server of TLS 1.2 that says this to every ClientHello.
fn says(flight: Vec<u8>) -> Scripted {
    Scripted::start(move |stream, _, _| {
        let hello = hello(stream);
        if hello.is_empty() {
            return;
        }
        let (_, suites) = offered(&hello);
        if suites.contains(&0x009c) {
            let _ = stream.write_all(&records([3, 3], &flight));
            let _ = stream.read(&mut [0; 64]);
        } else {
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]);
        }
    })
}

#[test]
fn certificates_that_do_not_parse_are_said_so() {
    let flight = [
        server_hello([3, 3], 0x009c),
        certificate(&[b"no certificate".to_vec()]),
        message(14, &[]),
    ];
    let (found, _) = result(&[&says(flight.concat()).at.to_string()]);
    assert!(has(&found, "bad-certificate"), "{found:#}");
    assert!(text(&found, "bad-certificate").contains("does not parse"));
    assert_eq!(found["versions"]["TLSv1.2"], true);
}

#[test]
fn a_certificate_message_over_200_kb_is_named() {
    let flight = [
        server_hello([3, 3], 0x009c),
        certificate(&vec![der(); 600]),
        message(14, &[]),
    ];
    let (found, _) = result(&[&says(flight.concat()).at.to_string()]);
    assert!(
        found["error"].as_str().expect("why").contains("204800"),
        "{found:#}"
    );
    let flight = [
        server_hello([3, 3], 0x009c),
        certificate(&vec![der(); 90]),
        message(14, &[]),
    ];
    let (found, _) = result(&[&says(flight.concat()).at.to_string()]);
    assert_eq!(
        found["certificates"].as_array().map(Vec::len),
        Some(1),
        "{found:#}"
    );
    assert_eq!(found["certificates"][0]["key"], "rsa");
}

#[test]
fn a_real_server_s_chain_over_200_kb_is_named_in_tls_12_and_13() {
    let place = Place::new("probe-long-chain");
    let one = Leaf::localhost().key(KeyKind::Rsa2048).issue();
    let size = one.certificate.to_der().expect("DER").len();
    let long = Identity {
        between: vec![one.certificate.clone(); 250_000 / size],
        ..one
    };
    let server = OpenSsl::start(&place, &[&long], &[]);
    for depth in ["-q", "-F"] {
        let (found, code) = result(&[depth, &server.at]);
        assert_eq!(code, 1, "{found:#}");
        let why = found["error"].as_str().expect("why");
        assert!(
            why.contains("certificates") || why.contains("Certificate"),
            "{why}"
        );
        assert!(why.contains("204800"), "{why}");
        for version in ["TLSv1.2", "TLSv1.3"] {
            assert_eq!(found["versions"][version], true, "{found:#}");
        }
        assert!(has(&found, "tls-failed"), "{found:#}");
        assert!(!has(&found, "senders-without-tls13-refused"), "{found:#}");
    }
}

#[test]
fn certificates_of_up_to_200_kb_are_read_in_every_handshake() {
    let place = Place::new("probe-large-certificates");
    let mut leaf = Leaf::localhost().key(KeyKind::Rsa2048);
    for at in 0..2000 {
        leaf = leaf.dns(&format!("n{at}.{}.example", "x".repeat(50)));
    }
    let long = leaf.issue();
    // Libssl's own limit is 100 KiB.
    let size = long.certificate.to_der().expect("DER").len();
    assert!((120_000..200_000).contains(&size), "{size}");
    for version in ["-tls1_2", "-tls1_3"] {
        let server = OpenSsl::start(&place, &[&long], &[version]);
        for depth in ["-q", "-4"] {
            let (found, _) = result(&[depth, &server.at]);
            assert!(found["error"].is_null(), "{depth} {version}: {found:#}");
            assert_eq!(found["certificates"][0]["key"], "rsa", "{found:#}");
            assert!(!has(&found, "tls-failed"), "{found:#}");
            // But not by what sends mail.
            assert!(found["tlsdestinations"].is_null(), "{found:#}");
            assert!(has(&found, "no-line"), "{found:#}");
        }
    }
}

#[test]
fn every_name_of_a_certificate_is_listed() {
    let place = Place::new("probe-names");
    let mut leaf = Leaf::localhost().key(KeyKind::Rsa2048);
    let names: Vec<String> = (0..3000).map(|at| format!("n{at}.example")).collect();
    for name in &names {
        leaf = leaf.dns(name);
    }
    let server = OpenSsl::start(&place, &[&leaf.issue()], &[]);
    let (found, _) = result(&["-q", &server.at]);
    let listed = list(&found["certificates"][0]["names"]);
    assert!(listed.len() >= names.len(), "{}", listed.len());
    assert!(listed.contains(&"n2999.example"));
}

#[test]
fn a_server_that_begins_handshakes_and_ends_none_fails() {
    let server = Scripted::start(|stream, _, _| {
        if !hello(stream).is_empty() {
            let begun = records([3, 3], &server_hello([3, 3], 0x009c));
            let _ = stream.write_all(&begun);
        }
    });
    let (found, code) = result(&[&server.at.to_string()]);
    assert_eq!(code, 1, "{found:#}");
    assert_eq!(found["versions"]["TLSv1.2"], true, "{found:#}");
    assert!(found["error"].is_string(), "{found:#}");
    assert!(text(&found, "tls-failed").starts_with("No TLS handshake comes to its end: "));
    assert_eq!(super::findings(&found)[0].1, "high", "{found:#}");
    // The words for a length that is wrong do not speak of certificates.
    let mut wrong = server_hello([3, 3], 0x009c);
    wrong[1..4].copy_from_slice(&[0xff; 3]);
    let (found, _) = result(&[&says(wrong).at.to_string()]);
    let why = found["error"].as_str().expect("why");
    assert!(!why.contains("its certificates are"), "{why}");
}

#[test]
fn a_server_that_drops_who_offers_tls_13_is_found_out() {
    let context = context(&Identity::localhost(KeyKind::Rsa2048), |builder| {
        let highest = Some(openssl::ssl::SslVersion::TLS1_2);
        builder.set_max_proto_version(highest).expect("set");
    });
    let server = Scripted::start(move |stream, _, _| {
        if !offers_tls_13(stream) {
            drop(tls(stream, &context));
        }
    });
    for depth in ["-q", "-4", "-F"] {
        let (found, code) = result(&[depth, &server.at.to_string()]);
        assert_eq!(code, 1);
        assert_eq!(
            super::findings(&found)[0].0,
            "version-intolerant",
            "{found:#}"
        );
        assert_eq!(found["versions"]["TLSv1.2"], true, "{found:#}");
        let lost = list(&found["cannot_reach"]);
        assert!(
            lost.contains(&"Gmail") && !lost.contains(&"Java 8"),
            "{lost:?}"
        );
        assert!(found["tlsdestinations"].is_null(), "{depth}: {found:#}");
        assert!(has(&found, "no-line"), "{found:#}");
    }
}

/// OpenSMTPD 6.8 cannot sign with an RSA key on OpenSSL 3: in TLS 1.2 the alert is all
/// that comes.
#[test]
fn a_server_that_cannot_sign_is_not_told_to_allow_a_version() {
    let context = context(&Identity::localhost(KeyKind::Rsa2048), |_| {});
    let server = Scripted::start(move |stream, _, _| {
        if offers_tls_13(stream) {
            drop(tls(stream, &context));
        } else {
            let mut read = [0; 4096];
            let _ = stream.read(&mut read);
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 80]);
        }
    });
    let (found, code) = result(&[&server.at.to_string()]);
    assert_eq!(code, 1, "{found:#}");
    let said = text(&found, "senders-without-tls13-refused");
    assert!(
        said.ends_with(": mend the server, which answers TLSv1.2 with alert internal_error (80)"),
        "{said}"
    );
}

#[test]
fn a_server_that_is_of_no_use_inside_tls_is_not_all_well() {
    let context = Arc::new(context(&Identity::localhost(KeyKind::Rsa2048), |_| {}));
    for (answer, said, most) in [
        // It may show as an end or as a reset.
        (None, "connection", 1),
        (Some("421 4.3.2 going down\r\n"), "going down", 1),
        (Some("502 5.5.1 what\r\n"), "server refused EHLO: 502", 24),
    ] {
        let context = Arc::clone(&context);
        let server = Scripted::start(move |stream, _, seen| {
            if !smtp(stream, &["STARTTLS"], seen) {
                return;
            }
            let Some(mut inside) = tls(stream, &context) else {
                return;
            };
            if let Some(answer) = answer {
                let _ = inside.read(&mut [0; 512]);
                let _ = inside.write_all(answer.as_bytes());
                let _ = inside.read(&mut [0; 512]);
            }
        });
        let (found, code) = result(&["-y", "smtp", &server.at.to_string()]);
        assert_eq!(code, 1, "{found:#}");
        let words = text(&found, "no-dialogue");
        assert!(
            words.starts_with("Inside TLS") && words.contains(said),
            "{words}"
        );
        assert!(found["connections"].as_u64() <= Some(most), "{found:#}");
        // Mail would not get through under any line, and nobody asked for the rest.
        assert!(found["tlsdestinations"].is_null(), "{found:#}");
        assert!(text(&found, "no-line").contains(said), "{found:#}");
        let asked = found["versions"]["TLSv1.2"].is_boolean();
        assert_eq!(asked, most > 1, "{found:#}");
    }
}

#[test]
fn a_server_that_wants_a_certificate_of_clients_has_no_line() {
    let identity = Identity::localhost(KeyKind::Rsa2048);
    for highest in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let context = Arc::new(context(&identity, |builder| {
            builder.set_max_proto_version(Some(highest)).expect("set");
            let required = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
            builder.set_verify(required);
        }));
        let server = Scripted::start(move |stream, _, seen| {
            if smtp(stream, &["STARTTLS"], seen) {
                if let Some(mut inside) = tls(stream, &context) {
                    smtp_inside(&mut inside, &[], "");
                }
            }
        });
        let place = Place::new("probe-client-certificate");
        let rules = place.write("rules", "-127.0.0.1:\n*:\n");
        for depth in ["-q", "-4", "-F"] {
            let at = server.at.to_string();
            let (found, _) = result(&[depth, "-y", "smtp", "-P", &rules, &at]);
            assert!(found["tlsdestinations"].is_null(), "{depth}: {found:#}");
            assert!(has(&found, "no-line"), "{depth}: {found:#}");
            let words = text(&found, "policy");
            assert!(words.contains("would not get through"), "{words}");
        }
    }
}

#[test]
fn a_greeting_of_another_service_is_called_a_greeting() {
    let server = Scripted::start(|stream, _, _| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let (found, _) = result(&["-y", "smtp", &server.at.to_string()]);
    let why = found["error"].as_str().expect("why");
    assert_eq!(
        why,
        "server's greeting is malformed: SSH-2.0-OpenSSH_9.2p1 Debian-2"
    );
}

#[test]
fn wrong_lengths_in_every_message_are_survived() {
    let good = [
        server_hello([3, 3], 0x009c),
        certificate(&[der()]),
        message(14, &[]),
    ]
    .concat();
    // Every byte that is a length, and some that are not.
    for at in [1, 2, 3, 4, 38, 41, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52] {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let (found, code) = result(&["-t", "2", "-T", "6", &says(bad).at.to_string()]);
        assert_eq!((&found["listens"], code), (&true.into(), 1), "{at}");
    }
}
