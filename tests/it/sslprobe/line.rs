//! The line for tlsdestinations: it holds, it refuses an impostor, and `-P` says
//! whether a line that is there would let mail through.
#![forbid(unsafe_code)]

use std::process::Command;

use openssl::ssl::NameType;

use super::server::{OpenSsl, Scripted, tls};
use super::{has, result, text};
use crate::harness::peer::context;
use crate::harness::ports::Closed;
use crate::harness::{Authority, Identity, KeyKind, Leaf, Place, ours, run};

fn port(at: &str) -> &str {
    at.rsplit(':').next().expect("a port")
}

/// sslclient under the line; whether it gets a session.
fn connects(place: &Place, line: &str, host: &str, port: &str) -> Result<(), String> {
    let file = place.write("tlsdestinations", format!("{line}\n"));
    let mut command = Command::new(ours("sslclient"));
    command.args(["-P", &file, "-H", "-l", "0", host, port, "true"]);
    let ended = run(&mut command, b"");
    match ended.code {
        Some(0) => Ok(()),
        _ => Err(ended.stderr),
    }
}

fn sound(place: &Place, line: &str, host: &str, port: &str) {
    let file = place.write("tlsdestinations", format!("{line}\n"));
    let mut command = Command::new(ours("sslclient"));
    command.args(["-W", "-P", &file, host, port]);
    let ended = run(&mut command, b"");
    assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &ended.stderr;
    assert!(said.contains("line 1"), "{line}: {said}");
}

#[test]
fn the_suggested_line_connects_and_refuses_an_impostor() {
    let impostor = Leaf::new("x")
        .dns("x.example")
        .key(KeyKind::Rsa2048)
        .other_key()
        .self_signed();
    let cases: [(&str, Identity, bool, &str); 4] = [
        ("verified", Identity::localhost(KeyKind::Rsa2048), true, "~"),
        ("private", Identity::localhost(KeyKind::Rsa2048), false, "%"),
        (
            "own",
            Leaf::localhost().key(KeyKind::Rsa2048).self_signed(),
            false,
            "%",
        ),
        (
            "unnamed",
            Leaf::new("o").dns("o.example").key(KeyKind::P256).issue(),
            true,
            "%",
        ),
    ];
    for (name, identity, trusted, sign) in cases {
        let place = Place::new(&format!("probe-line-{name}"));
        let root = place.write("root.pem", Authority::shared_root().pem());
        let server = OpenSsl::start(&place, &[&identity], &[]);
        for host in ["localhost", "127.0.0.1"] {
            let at = format!("{host}:{}", port(&server.at));
            let words: &[&str] = if trusted { &["-a", &root, &at] } else { &[&at] };
            let (found, _) = result(words);
            let line = found["tlsdestinations"].as_str().expect("a line");
            assert!(
                line.starts_with(&format!("{sign}{host}:")),
                "{name}: {line}"
            );
            sound(&place, line, host, port(&server.at));
            connects(&place, line, host, port(&server.at)).expect(line);
            // The same line, another server.
            let other = OpenSsl::start(&place, &[&impostor], &[]);
            let moved = line.replace(port(&server.at), port(&other.at));
            let refused = connects(&place, &moved, host, port(&other.at));
            assert!(
                refused.expect_err(&moved).contains("certificate"),
                "{name}: {moved}"
            );
        }
    }
}

#[test]
fn two_keys_are_both_pinned_and_a_small_one_connects() {
    let place = Place::new("probe-line-two");
    let (rsa, ecdsa) = (
        Leaf::localhost().key(KeyKind::Rsa2048).self_signed(),
        Leaf::localhost().key(KeyKind::P256).self_signed(),
    );
    let server = OpenSsl::start(&place, &[&rsa, &ecdsa], &[]);
    let (found, _) = result(&[&server.at]);
    let line = found["tlsdestinations"].as_str().expect("a line");
    assert_eq!(line.matches("spki:").count(), 2, "{line}");
    for one in found["certificates"].as_array().expect("a list") {
        assert!(
            line.contains(one["spki"].as_str().expect("a text")),
            "{line}"
        );
    }
    connects(&place, line, "127.0.0.1", port(&server.at)).expect(line);
}

/// A balancer before machines with keys of their own.
#[test]
fn each_certificate_that_a_balancer_shows_is_told_and_pinned() {
    let leaf = || Leaf::localhost().key(KeyKind::P256);
    let machines = [leaf().self_signed(), leaf().other_key().self_signed()];
    let contexts = machines.each_ref().map(|one| context(one, |_| ()));
    let server = Scripted::start(move |stream, number, _| {
        drop(tls(stream, &contexts[number % 2]));
    });
    let at = server.at.to_string();
    let (found, code) = result(&[&at]);
    assert_eq!(code, 1, "{found:#}");
    assert!(
        text(&found, "certificates-vary").contains("one ecdsa certificate, now another (2 seen)"),
        "{found:#}"
    );
    assert_eq!(found["certificates"].as_array().map(Vec::len), Some(1));
    let line = found["tlsdestinations"].as_str().expect("a line");
    assert_eq!(line.matches("spki:").count(), 2, "{line}");
    let place = Place::new("probe-line-balancer");
    for _ in 0..2 {
        connects(&place, line, "127.0.0.1", port(&at)).expect(line);
    }
}

/// Another certificate for another name is what SNI is for.
#[test]
fn a_certificate_for_another_name_is_no_balancer_s() {
    let own = Leaf::localhost().key(KeyKind::P256).self_signed();
    let other = Leaf::new("default").key(KeyKind::P256).other_key();
    let own = context(&own, |_| ());
    let other = context(&other.self_signed(), move |builder| {
        builder.set_servername_callback(move |ssl, _| {
            if ssl.servername(NameType::HOST_NAME) == Some("localhost") {
                ssl.set_ssl_context(&own).expect("set");
            }
            Ok(())
        });
    });
    let server = Scripted::start(move |stream, _, _| drop(tls(stream, &other)));
    let (found, _) = result(&[&format!("localhost:{}", server.at.port())]);
    assert!(!has(&found, "certificates-vary"), "{found:#}");
    assert_eq!(found["certificates"][0]["subject"], "/CN=localhost");
}

#[test]
fn a_line_is_given_only_where_a_handshake_under_it_succeeds() {
    let place = Place::new("probe-line-holds");
    let identity = Leaf::localhost().key(KeyKind::Rsa2048).self_signed();
    let small = context(&identity, |builder| {
        let highest = Some(openssl::ssl::SslVersion::TLS1_2);
        builder.set_max_proto_version(highest).expect("set");
        builder.set_security_level(0);
        builder.set_cipher_list("DHE").expect("ciphers");
        let prime = openssl::dh::Dh::get_1024_160().expect("RFC 5114");
        builder.set_tmp_dh(&prime).expect("set");
    });
    let small = Scripted::start(move |stream, _, _| drop(tls(stream, &small)));
    let plain = ["-cipher", "kRSA:@SECLEVEL=0", "-tls1_2"];
    let plain = OpenSsl::start(&place, &[&identity], &plain);
    for at in [small.at.to_string(), plain.at.clone()] {
        for depth in ["-q", "-4"] {
            let (found, _) = result(&[depth, &at]);
            let line = found["tlsdestinations"].as_str().expect("a line");
            assert!(line.contains("|DEFAULT:@SECLEVEL=0|"), "{line}");
            assert!(has(&found, "line-lowered"), "{found:#}");
            sound(&place, line, "127.0.0.1", port(&at));
            connects(&place, line, "127.0.0.1", port(&at)).expect(line);
        }
    }
    // Nothing of ours takes a suite without encryption, whatever the level.
    let null = ["-cipher", "eNULL:@SECLEVEL=0", "-tls1_2"];
    let server = OpenSsl::start(&place, &[&identity], &null);
    let (found, code) = result(&[&server.at]);
    assert_eq!(code, 1);
    assert!(found["tlsdestinations"].is_null(), "{found:#}");
    assert!(
        text(&found, "no-line").contains("handshake_failure"),
        "{found:#}"
    );
    let report = super::probe(&[&server.at]);
    let report = String::from_utf8(report.stdout).expect("UTF-8");
    assert!(
        report.ends_with("no line for tlsdestinations would hold today\n"),
        "{report}"
    );
    // The senders that are like us cannot connect to the first one either.
    let (found, _) = result(&[&small.at.to_string()]);
    let lost = super::list(&found["cannot_reach"]);
    assert!(lost.contains(&"OpenSSL 3 (Debian 12, RHEL 9)"), "{found:#}");
}

#[test]
fn a_key_of_1024_bits_is_told_and_its_line_connects() {
    let place = Place::new("probe-line-small");
    let (key, certificate) = (place.text("small.key"), place.text("small.pem"));
    let mut made = Command::new("openssl");
    made.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-subj",
        "/CN=small",
    ]);
    made.args(["-keyout", &key, "-out", &certificate]);
    assert_eq!(run(&mut made, b"").code, Some(0));
    let words = [
        "-cert",
        &certificate,
        "-key",
        &key,
        "-cipher",
        "DEFAULT@SECLEVEL=0",
    ];
    let server = OpenSsl::start(&place, &[], &words);
    let (found, _) = result(&[&server.at]);
    assert!(has(&found, "small-key"), "{found:#}");
    assert_eq!(found["certificates"][0]["bits"], 1024);
    let line = found["tlsdestinations"].as_str().expect("a line");
    sound(&place, line, "127.0.0.1", port(&server.at));
    connects(&place, line, "127.0.0.1", port(&server.at)).expect(line);
}

#[test]
fn a_rule_for_another_port_is_not_judged_by_this_one() {
    let place = Place::new("probe-policy-port");
    let server = OpenSsl::start(&place, &[&Identity::localhost(KeyKind::Rsa2048)], &[]);
    let own = port(&server.at);
    for (value, judged) in [
        (format!(";s{own}"), true),
        (format!(";{own}"), false),
        (";465".to_owned(), false),
        (";s9".to_owned(), false),
        (";26".to_owned(), false),
    ] {
        let rules = place.write("rules", format!("-127.0.0.1:{value}\n"));
        let (found, code) = result(&["-q", "-P", &rules, &server.at]);
        let words = text(&found, "policy");
        assert_eq!(words.contains("would get through"), judged, "{words}");
        assert_eq!(words.contains("not probed"), !judged, "{words}");
        let all = super::findings(&found);
        let severity = if judged { "note" } else { "medium" };
        assert!(
            all.contains(&("policy".to_owned(), severity.to_owned())),
            "{found:#}"
        );
        assert_eq!(code, 1, "s_server is no good server");
    }
    // The port that the rule names may not even be open.
    let closed = Closed::new();
    let rules = place.write("rules", "-127.0.0.1:;465\n");
    let at = format!("127.0.0.1:{}", closed.at.port());
    let (found, _) = result(&["-P", &rules, &at]);
    assert!(text(&found, "policy").contains("port 465"), "{found:#}");
}

#[test]
fn a_rule_that_is_there_is_compared_by_a_handshake() {
    let place = Place::new("probe-policy");
    let root = place.write("root.pem", Authority::shared_root().pem());
    let server = OpenSsl::start(&place, &[&Identity::localhost(KeyKind::Rsa2048)], &[]);
    let at = format!("localhost:{}", port(&server.at));
    for (line, key, through) in [
        (format!("~localhost:{root}"), "~localhost", true),
        ("~localhost:".to_owned(), "~localhost", false),
        (
            format!("%localhost:spki:{}", "11".repeat(32)),
            "%localhost",
            false,
        ),
        (format!("={}:{root}", "localhost"), "=localhost", true),
        ("-localhost:".to_owned(), "-localhost", true),
        ("!localhost:".to_owned(), "!localhost", true),
        // Mail under a wrong line waits.
        ("~localhost:/no/such/file".to_owned(), "~localhost", false),
        ("%localhost:spki:11".to_owned(), "%localhost", false),
    ] {
        let file = place.write("rules", format!("# a comment\n{line}\n"));
        let (found, code) = result(&["-P", &file, "-a", &root, &at]);
        let words = text(&found, "policy");
        assert!(words.contains(key) && words.contains("line 2"), "{words}");
        assert_eq!(!words.contains("would not get through"), through, "{words}");
        let high = found["findings"][0]["severity"] == "high";
        assert_eq!(high, !through, "{found:#}");
        assert_eq!(code, 1, "s_server takes suites without forward secrecy");
        assert!(found["handshakes"].as_u64() <= Some(24));
        let (quick, _) = result(&["-q", "-P", &file, "-a", &root, &at]);
        assert!(quick["handshakes"].as_u64() <= Some(8), "{quick:#}");
        assert!(has(&quick, "policy"));
    }
}
