//! The lines of the log, and what an administrator learns from a failure.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use openssl::ssl::{HandshakeError, SslConnector, SslMethod, SslVersion};

use crate::harness::dial::plain;
use crate::harness::{Authority, Dial, Identity, KeyKind, Leaf, Place, Server, Setup, eventually};

/// The pid in `sslserver: WORD PID ...`.
fn pid_of(line: &str) -> &str {
    line.split(' ').nth(2).unwrap()
}

/// The line about a connection that was dropped, checked for its frame; what is
/// left is the reason.
fn reason(server: &Server) -> String {
    let line = server.line("dropping TLS connection");
    let rest = line
        .strip_prefix("sslserver: warning: dropping TLS connection, pid ")
        .unwrap_or_else(|| panic!("{line}"));
    let (pid, rest) = rest.split_once(' ').unwrap();
    assert!(pid.parse::<u32>().is_ok(), "{line}");
    let reason = rest
        .strip_prefix("from 127.0.0.1: ")
        .unwrap_or_else(|| panic!("{line}"));
    reason.to_owned()
}

#[test]
fn status_lines_are_tcpserver_s() {
    let place = Place::new("status");
    let server = Setup::new(&place, &["cat"])
        .options("-v -c 7 -l own.example.com -h")
        .start();
    let mut client = Dial::to(&server).connect();
    let remote = client.stream.get_ref().local_addr().unwrap().port();
    client.half_close();
    client.text();
    let end = server.line("end ");
    let pid = pid_of(&end).to_owned();
    server.quiet();
    eventually("the count is back at none", || {
        let log = server.log();
        (log.lines()
            .filter(|&line| line == "sslserver: status: 0/7")
            .count()
            >= 2)
            .then_some(())
    });
    let log = server.log();
    let expected = [
        "sslserver: status: 0/7".to_owned(),
        "sslserver: status: 1/7".into(),
        format!("sslserver: pid {pid} from 127.0.0.1"),
        format!(
            "sslserver: ok {pid} own.example.com:127.0.0.1:{} localhost:127.0.0.1::{remote}",
            server.port
        ),
        format!("sslserver: end {pid} status 0"),
    ];
    for line in &expected {
        assert!(log.lines().any(|one| one == line), "{line} in {log}");
    }
    // Nothing else is said about a connection that went well.
    let others: Vec<_> = log
        .lines()
        .filter(|line| !expected.iter().any(|one| one == line))
        .filter(|line| {
            !line.starts_with("sslserver: listening")
                && !line.starts_with("sslserver: cafile")
                && !line.contains(" without ")
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn the_letters_of_verbosity() {
    let place = Place::new("verbosity");
    for (letters, status, tls) in [
        ("", false, false),
        ("-q", false, false),
        ("-vQ", false, false),
        ("-v", true, false),
        ("-V", true, true),
        ("-qV", true, true),
    ] {
        let server = Setup::new(&place, &["true"]).options(letters).start();
        Dial::to(&server).connect().text();
        server.quiet();
        if status {
            server.line("end ");
        }
        let log = server.log();
        assert_eq!(log.contains("sslserver: end "), status, "{letters}: {log}");
        assert_eq!(log.contains("sslserver: tls "), tls, "{letters}: {log}");
        // A failure is told unless -q was given.
        let _ = plain(server.at).write_all(b"EHLO x\r\n");
        if letters == "-q" {
            server.quiet();
            assert_eq!(server.log(), "");
        } else {
            reason(&server);
        }
    }
}

#[test]
fn the_tls_line_describes_the_session() {
    let place = Place::new("tls-line");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = Setup::new(&place, &["true"]).options("-V").start();
    let mut client = Dial::to(&server)
        .version(SslVersion::TLS1_3)
        .groups("X25519")
        .with(|c| c.set_ciphersuites("TLS_AES_256_GCM_SHA384").unwrap())
        .connect();
    client.text();
    let line = server.line("sslserver: tls ");
    let pid = pid_of(&line);
    let wanted = format!(
        "sslserver: tls {pid} version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 bits=256/256 group=X25519 cert=ecdsa sni=localhost resumed=no verify=NOT"
    );
    assert_eq!(line, wanted);
    server.line(&format!("sslserver: end {pid} status 0"));
    let server = Setup::new(&place, &["true"])
        .options("-YV")
        .env("CAFILE", root)
        .env("ALPN", "pop3")
        .identity(&Identity::localhost(KeyKind::Rsa2048))
        .start();
    Dial::to(&server)
        .version(SslVersion::TLS1_2)
        .name(None)
        .connect()
        .text();
    let line = server.line("sslserver: tls ");
    assert!(
        line.contains(" version=TLSv1.2 ")
            && line.contains(" cert=rsa ")
            && line.contains(" verify=NO"),
        "{line}"
    );
    assert!(
        !line.contains("sni=") && !line.contains("alpn=") && !line.contains("peer="),
        "{line}"
    );
    let known = Leaf::new("a b").issue();
    Dial::to(&server).presenting(&known).connect().text();
    let line = &server.lines("sslserver: tls ", 2)[1];
    assert!(
        line.contains(" verify=OK ") && line.contains("a b\""),
        "{line}"
    );
    let stranger = Leaf::new("stranger").self_signed();
    Dial::to(&server).presenting(&stranger).connect().text();
    let line = &server.lines("sslserver: tls ", 3)[2];
    assert!(line.contains(" verify=FAIL"), "{line}");
}

/// The fields of a TLS line as a simple reader sees them, who knows of quotes
/// and of nothing else.
fn fields(line: &str) -> Vec<(String, String)> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(letter),
        }
    }
    assert!(!quoted, "an open quote: {line}");
    words
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn no_name_of_a_client_s_looks_like_a_field() {
    let place = Place::new("forged-fields");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = Setup::new(&place, &["true"])
        .options("-YV")
        .env("CAFILE", root)
        .start();
    let forged = "a\\\" resumed=no verify=OK peer=CN=boss z=\"";
    let long = format!("{} verify=OK", "\"\u{e9}\\".repeat(60));
    let mut count = 0;
    for name in [
        forged,
        &long,
        "x\" peer=\"CN=boss",
        "tab\tand;more",
        "plain.example",
    ] {
        let subject: String = name.chars().take(60).collect();
        let stranger = Leaf::new(&subject).self_signed();
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            count += 1;
            let dial = Dial::to(&server).version(version).blindly();
            dial.name(Some(name)).presenting(&stranger).connect().text();
            let lines = server.lines("sslserver: tls ", count);
            let found = fields(&lines[count - 1]);
            let keys: Vec<&str> = found.iter().map(|(key, _)| &**key).collect();
            let wanted = [
                "version", "cipher", "bits", "group", "cert", "sni", "resumed", "verify", "peer",
            ];
            assert_eq!(keys, wanted, "{name}: {}", lines[count - 1]);
            assert_eq!(found[7].1, "FAIL", "{name}");
            assert_eq!(found[5].1 == name, name == "plain.example", "{found:?}");
        }
    }
    assert!(
        server
            .log()
            .contains(" sni=\"a\\x5C\\x22 resumed=no verify=ok peer=cn=boss z=\\x22\" resumed="),
        "{}",
        server.log()
    );
    assert!(
        server
            .log()
            .contains(" sni=plain.example resumed=no verify=FAIL peer=\"CN=plain.example\"\n")
    );
}

#[test]
fn no_shared_cipher_names_the_key_type_and_the_remedy() {
    let place = Place::new("no-cipher");
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::P256))
        .start();
    let attempt = Dial::to(&server)
        .version(SslVersion::TLS1_2)
        .ciphers("ECDHE-RSA-AES256-GCM-SHA384")
        .attempt();
    assert!(attempt.is_err());
    let why = reason(&server);
    for part in [
        "no shared cipher: client offers only RSA authentication (ECDHE-RSA-AES256-GCM-SHA384",
        "TLSv1.2",
        "our certificate is ECDSA",
        "an RSA certificate in CERTFILE_ALT would serve it",
    ] {
        assert!(why.contains(part), "{part:?} not in {why}");
    }
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::Rsa2048))
        .start();
    let attempt = Dial::to(&server)
        .version(SslVersion::TLS1_2)
        .ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        .attempt();
    assert!(attempt.is_err());
    let why = reason(&server);
    assert!(
        why.contains("offers only ECDSA authentication") && why.contains("our certificate is RSA"),
        "{why}"
    );
    assert!(why.contains("CERTFILE_ALT"), "{why}");
    // The key type is right, and the suites still differ: no remedy is invented.
    let server = Setup::new(&place, &["true"])
        .env("CIPHERS", "ECDHE-ECDSA-AES128-GCM-SHA256")
        .start();
    let attempt = Dial::to(&server)
        .version(SslVersion::TLS1_2)
        .ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        .attempt();
    assert!(attempt.is_err());
    let why = reason(&server);
    assert!(
        why.starts_with("no shared cipher: ") && why.contains("ECDHE-ECDSA-AES256-GCM-SHA384"),
        "{why}"
    );
    assert!(!why.contains("CERTFILE_ALT"), "{why}");
}

#[test]
fn a_tls_1_3_client_that_takes_no_signature_of_ours_is_explained() {
    let place = Place::new("no-signature");
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::P256))
        .start();
    let attempt = Dial::to(&server)
        .version(SslVersion::TLS1_3)
        .signatures("rsa_pss_rsae_sha256")
        .attempt();
    assert!(attempt.is_err());
    let why = reason(&server);
    assert!(
        why.contains("RSA") && why.contains("our certificate is ECDSA"),
        "{why}"
    );
}

#[test]
fn no_shared_version_names_both_sides() {
    let place = Place::new("no-version");
    let server = Setup::new(&place, &["true"]).start();
    assert!(
        Dial::to(&server)
            .version(SslVersion::TLS1_1)
            .attempt()
            .is_err()
    );
    assert!(
        reason(&server)
            .starts_with("no shared version: client offers at most TLSv1.1, TLS_MIN is 1.2"),
        "{}",
        server.log()
    );
    let server = Setup::new(&place, &["true"]).env("TLS_MIN", "1.3").start();
    assert!(
        Dial::to(&server)
            .version(SslVersion::TLS1_2)
            .attempt()
            .is_err()
    );
    assert!(
        reason(&server)
            .starts_with("no shared version: client offers at most TLSv1.2, TLS_MIN is 1.3"),
        "{}",
        server.log()
    );
    let server = Setup::new(&place, &["true"]).env("TLS_MAX", "1.2").start();
    assert!(
        Dial::to(&server)
            .version(SslVersion::TLS1_3)
            .attempt()
            .is_err()
    );
    let why = reason(&server);
    assert!(
        why.starts_with("no shared version: ")
            && why.contains("1.3")
            && why.contains("TLS_MAX is 1.2"),
        "{why}"
    );
    // A client without the extension offers its highest version, takes ours or
    // breaks off. That the lowest one came down with TLS_MAX is said.
    let server = Setup::new(&place, &["true"]).env("TLS_MAX", "1.1").start();
    server.line("warning: TLS_MAX is 1.1 and TLS_MIN is unset: only TLS 1.1 is spoken");
    let dial = Dial::to(&server).version(SslVersion::TLS1_2);
    assert!(dial.attempt().is_err());
    assert_eq!(
        reason(&server),
        "no shared version: client offers TLSv1.2 and does not accept TLSv1.1, TLS_MAX is 1.1"
    );
}

#[test]
fn what_is_not_tls_is_shown() {
    let place = Place::new("not-tls");
    for (sent, shown) in [
        (&b"EHLO x\r\n"[..], "not TLS: client sent \"EHLO x"),
        (
            b"GET / HTTP/1.0\r\n\r\n",
            "not TLS: client sent \"GET / HTTP/1.0",
        ),
        (
            b"\x01\xff\x1b[2Jsslserver: ok\n",
            "not TLS: client sent \"\\x01\\xFF\\x1B[2J",
        ),
    ] {
        let server = Setup::new(&place, &["true"]).start();
        let mut stream = plain(server.at);
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        let why = reason(&server);
        assert!(why.starts_with(shown), "{why}");
        assert!(
            !server
                .log()
                .lines()
                .any(|line| line.starts_with("sslserver: ok")),
            "{why}"
        );
        server.quiet();
    }
    // Somebody who looks and goes.
    let server = Setup::new(&place, &["true"]).start();
    drop(plain(server.at));
    let why = reason(&server);
    assert!(
        why.contains("closed") || why.contains("end of file"),
        "{why}"
    );
}

#[test]
fn alerts_are_told_by_name_number_and_side() {
    let place = Place::new("alerts");
    // The client trusts somebody else.
    let stranger = Authority::root("Stranger");
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let server = Setup::new(&place, &["cat"]).options("-v").start();
        assert!(
            Dial::to(&server)
                .version(version)
                .trusting(&stranger)
                .attempt()
                .is_err()
        );
        let line = server.line("received alert unknown_ca (48)");
        assert!(
            line.starts_with("sslserver: warning: dropping TLS connection, pid "),
            "{line}"
        );
        server.quiet();
    }
    // We refuse: ALPN without a common protocol.
    let server = Setup::new(&place, &["true"]).env("ALPN", "pop3").start();
    assert!(
        Dial::to(&server)
            .with(|c| c.set_alpn_protos(b"\x04imap").unwrap())
            .attempt()
            .is_err()
    );
    let why = reason(&server);
    assert!(
        why.contains("no_application_protocol (120)") && why.contains("sent alert"),
        "{why}"
    );
    // No group in common.
    let server = Setup::new(&place, &["true"])
        .env("TLS_GROUPS", "P-384")
        .start();
    assert!(
        Dial::to(&server)
            .version(SslVersion::TLS1_3)
            .groups("X25519")
            .attempt()
            .is_err()
    );
    let why = reason(&server);
    assert!(why.contains("sent alert handshake_failure (40)"), "{why}");
}

#[test]
fn a_handshake_that_stops_is_told_with_its_state() {
    let place = Place::new("stops");
    let server = Setup::new(&place, &["true"]).options("-T 1").start();
    let mut stream = plain(server.at);
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    let why = reason(&server);
    assert!(
        why.contains("timed out")
            && why.contains("client sent nothing (state before the ClientHello)"),
        "{why}"
    );
    // One that says no more than its ClientHello.
    let client = SslConnector::builder(SslMethod::tls()).unwrap().build();
    let begun = client.connect("localhost", Deaf(plain(server.at)));
    assert!(matches!(begun, Err(HandshakeError::WouldBlock(_))));
    let why = server.lines("dropping TLS connection", 2).pop().unwrap();
    assert!(
        why.ends_with(" bytes (state awaits the Finished of the client)"),
        "{why}"
    );
    server.quiet();
}

/// What a server says never comes.
#[derive(Debug)]
struct Deaf(TcpStream);

impl Read for Deaf {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Deaf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_client_certificate_that_does_not_verify_is_told() {
    let place = Place::new("bad-client");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = |letter: &str| {
        Setup::new(&place, &["true"])
            .options(letter)
            .env("CAFILE", &root)
            .start()
    };
    let refused = |server: &Server, theirs: Option<&Identity>| {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let mut dial = Dial::to(server).version(version);
            if let Some(theirs) = theirs {
                dial = dial.presenting(theirs);
            }
            // Under TLS 1.3 the client learns only later.
            if let Ok(mut client) = dial.attempt() {
                let (bytes, end) = client.rest();
                assert!(
                    bytes.is_empty() && matches!(end, crate::harness::End::Error(_)),
                    "{end:?}"
                );
            }
        }
        server.quiet();
    };
    let one = server("-m");
    refused(&one, Some(&Leaf::new("stranger").self_signed()));
    let why = reason(&one);
    assert!(
        why.contains("depth 0")
            && why.contains("/CN=stranger")
            && why.contains("self-signed certificate"),
        "{why}"
    );
    let one = server("-m");
    refused(&one, Some(&Leaf::new("late").expired().issue()));
    let why = reason(&one);
    assert!(
        why.contains("depth 0")
            && why.contains("/CN=late")
            && why.contains("certificate has expired"),
        "{why}"
    );
    let one = server("-m");
    let other = Authority::root("Other Root").below("Other Intermediate");
    refused(&one, Some(&Leaf::new("foreign").issue_by(&other)));
    let why = reason(&one);
    assert!(
        why.contains("Other ") && why.contains("depth ") && why.contains("issuer certificate"),
        "{why}"
    );
    let one = server("-m");
    refused(&one, None);
    let why = reason(&one);
    assert!(
        why.contains("certificate")
            && (why.contains("did not") || why.contains("no ") || why.contains("without")),
        "{why}"
    );
}

#[test]
fn an_alert_after_the_handshake_is_told() {
    let place = Place::new("late-alert");
    let server = Setup::new(&place, &["cat"]).options("-v").start();
    // A TLS 1.3 client is done before the server has seen its verdict: what it
    // refuses in the server's certificate arrives behind the handshake or in it.
    // A record that cannot be decrypted makes the server send one.
    let mut client = Dial::to(&server).connect();
    client.send("x");
    assert_eq!(client.read_exact(1), b"x");
    client
        .stream
        .get_mut()
        .write_all(&[
            23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ])
        .unwrap();
    let (_, end) = client.rest();
    assert!(matches!(end, crate::harness::End::Error(_)), "{end:?}");
    let line = server.line("bad_record_mac (20)");
    assert!(
        line.contains("sent alert") && line.contains("from 127.0.0.1"),
        "{line}"
    );
    server.quiet();
}

#[test]
fn no_line_is_too_long() {
    let place = Place::new("long-lines");
    let server = Setup::new(&place, &["true"]).options("-V").start();
    let mut stream = plain(server.at);
    stream.write_all(&[b'A'; 5000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    reason(&server);
    let long = format!("{}.example.com", vec!["a".repeat(50); 4].join("."));
    let _ = Dial::to(&server).blindly().name(Some(&long)).attempt();
    server.quiet();
    for line in server.log().lines() {
        assert!(
            line.len() < 1000 && line.starts_with("sslserver: "),
            "{line}"
        );
    }
}
