//! What is found around TLS: STARTTLS that is missing, stripped or refused, logins
//! in the clear, and injected bytes.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::sync::Arc;

use super::server::{Scripted, hello_comes, line, smtp, smtp_inside, tls};
use super::{has, list, result, text};
use crate::harness::peer::context;
use crate::harness::{Identity, KeyKind, Place};

fn identity() -> Identity {
    Identity::localhost(KeyKind::Rsa2048)
}

/// An SMTP server with TLS, `answers` commands that were injected or not.
fn mail(before: &'static [&str], after: &'static [&str], answers: bool) -> Scripted {
    let context = Arc::new(context(&identity(), |_| {}));
    Scripted::start(move |stream, _, seen| {
        if !smtp(stream, before, seen) {
            return;
        }
        // What stands behind STARTTLS in the same segment.
        let mut injected = "";
        stream.set_nonblocking(true).expect("set");
        let mut first = [0];
        if matches!(stream.peek(&mut first), Ok(1)) && first[0] == b'N' {
            stream.set_nonblocking(false).expect("set");
            let _ = line(stream);
            injected = if answers { "250 2.0.0 ok\r\n" } else { "" };
        }
        stream.set_nonblocking(false).expect("set");
        seen.hello = hello_comes(stream);
        if let Some(mut inside) = tls(stream, &context) {
            smtp_inside(&mut inside, after, injected);
        }
    })
}

fn smtp_result(server: &Scripted) -> serde_json::Value {
    result(&["-y", "smtp", &server.at.to_string()]).0
}

#[test]
fn logins_before_and_inside_tls_are_told_apart() {
    let server = mail(
        &["STARTTLS", "AUTH CRAM-MD5 PLAIN"],
        &["AUTH PLAIN LOGIN"],
        false,
    );
    let found = smtp_result(&server);
    assert_eq!(found["starttls"], "offered", "{found:#}");
    assert_eq!(found["greeting"], "220 mx.example ESMTP");
    assert_eq!(list(&found["auth_before_tls"]), ["CRAM-MD5", "PLAIN"]);
    assert_eq!(list(&found["auth_after_tls"]), ["PLAIN", "LOGIN"]);
    assert!(has(&found, "auth-in-clear"));
    assert_eq!(found["capabilities_fresh"], true);
    assert_eq!(found["injection"], "refused");
    assert!(super::text(&found, "auth-in-clear").contains("passwords can be read"));
    let hashed = smtp_result(&mail(&["STARTTLS", "AUTH CRAM-MD5"], &[], false));
    let told = super::text(&hashed, "auth-in-clear");
    assert!(
        !told.contains("be read") && told.contains("guess"),
        "{told}"
    );
    let clean = mail(&["STARTTLS"], &["STARTTLS"], false);
    let found = smtp_result(&clean);
    assert!(
        !has(&found, "auth-in-clear") && has(&found, "same-capabilities"),
        "{found:#}"
    );
}

#[test]
fn injected_commands_that_are_answered_inside_tls_are_found() {
    let found = smtp_result(&mail(&["STARTTLS"], &[], true));
    assert_eq!(found["injection"], "answered", "{found:#}");
    assert!(has(&found, "injection"));
}

#[test]
fn no_command_logs_in_or_sends_mail() {
    let server = mail(&["STARTTLS", "AUTH PLAIN"], &["AUTH PLAIN"], false);
    let found = smtp_result(&server);
    let seen = server.connections(
        usize::try_from(found["connections"].as_u64().expect("a number")).expect("few"),
    );
    for one in &seen {
        assert_eq!(
            one.lines.first().map(String::as_str),
            Some("EHLO probe.example")
        );
        for line in &one.lines {
            assert!(["EHLO", "STAR", "QUIT"].contains(&&line[..4]), "{line}");
        }
    }
}

#[test]
fn a_server_without_starttls_is_left_after_one_connection_and_a_quit() {
    let server = Scripted::start(|stream, _, seen| {
        smtp(stream, &["AUTH LOGIN"], seen);
    });
    let (found, code) = result(&["-y", "smtp", &server.at.to_string()]);
    assert_eq!(
        (&found["starttls"], code),
        (&"missing".into(), 1),
        "{found:#}"
    );
    assert!(has(&found, "starttls-missing") && has(&found, "auth-in-clear"));
    assert_eq!(
        (&found["connections"], &found["handshakes"]),
        (&1.into(), &0.into())
    );
    let seen = server.connections(1);
    assert_eq!(seen.len(), 1);
    assert_eq!(found["tlsdestinations"], serde_json::Value::Null);
}

#[test]
fn a_firewall_that_rewrites_is_called_that() {
    let overwritten = Scripted::start(|stream, _, seen| {
        smtp(stream, &["XXXXXXXX"], seen);
    });
    let found = smtp_result(&overwritten);
    assert!(has(&found, "stripped"), "{found:#}");
    assert!(text(&found, "stripped").contains("on the way"));
    let stars = Scripted::start(|stream, _, _| {
        let _ = stream.write_all(b"220 ****************0*****2****\r\n");
        let _ = line(stream);
        let _ = stream.write_all(b"250 mx\r\n");
        let _ = line(stream);
    });
    let found = smtp_result(&stars);
    assert!(text(&found, "stripped").contains("on the way"), "{found:#}");
    assert!(found["greeting"].as_str().expect("a text").contains("***"));
}

#[test]
fn a_refusal_is_told_in_the_server_s_words() {
    let server = Scripted::start(|stream, _, _| {
        let _ = stream.write_all(b"554 5.7.1 your \x1b[31m network is not wanted\r\n");
        let _ = line(stream);
    });
    let found = smtp_result(&server);
    assert_eq!(found["starttls"], "refused", "{found:#}");
    let words = text(&found, "refused");
    assert!(
        words.contains("network is not wanted") && words.contains("\\x1B"),
        "{words}"
    );
    assert!(server.seen().len() <= 2);
}

#[test]
fn a_refusal_of_ehlo_is_told_in_the_server_s_words() {
    let server = |reply: &'static str| {
        Scripted::start(move |stream, _, _| {
            let _ = stream.write_all(b"220 mx ESMTP\r\n");
            while line(stream).is_some_and(|line| line.starts_with("EHLO")) {
                let _ = stream.write_all(reply.as_bytes());
            }
        })
    };
    let closed = server("550 5.7.1 not from there\r\n");
    let found = smtp_result(&closed);
    assert_eq!(found["starttls"], "refused", "{found:#}");
    let words = text(&found, "refused");
    assert!(words.contains("550 5.7.1 not from there"), "{words}");
    assert!(!has(&found, "starttls-missing"), "{found:#}");
    assert!(closed.seen().len() <= 2);
    let place = Place::new("probe-ehlo");
    let rules = place.write("rules", "*:\n");
    let at = closed.at.to_string();
    let (found, _) = result(&["-y", "smtp", "-P", &rules, &at]);
    let words = text(&found, "policy");
    assert!(words.contains("would not get through"), "{words}");
    // One that has only HELO takes mail in the clear.
    let found = smtp_result(&server("502 5.5.1 what is that\r\n"));
    assert_eq!(found["starttls"], "missing", "{found:#}");
    let why = found["error"].as_str().expect("why");
    assert!(why.ends_with("502 5.5.1 what is that"), "{why}");
}

#[test]
fn each_protocol_is_spoken() {
    for (protocol, greeting, list, go, inside) in [
        (
            "pop3",
            "+OK hi\r\n",
            "+OK\r\nSTLS\r\nUSER\r\n.\r\n",
            "+OK go\r\n",
            "USER",
        ),
        (
            "imap",
            "* OK hi\r\n",
            "* CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN\r\np1 OK\r\n",
            "p2 OK go\r\n",
            "PLAIN",
        ),
        (
            "lmtp",
            "220 hi\r\n",
            "250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
            "220 go\r\n",
            "PLAIN",
        ),
    ] {
        let context = Arc::new(context(&identity(), |_| {}));
        let server = Scripted::start(move |stream, _, seen| {
            let _ = stream.write_all(greeting.as_bytes());
            seen.lines.extend(line(stream));
            let _ = stream.write_all(list.as_bytes());
            seen.lines.extend(line(stream));
            let _ = stream.write_all(go.as_bytes());
            seen.hello = hello_comes(stream);
            drop(tls(stream, &context));
        });
        let (found, _) = result(&["-y", protocol, &server.at.to_string()]);
        assert_eq!(found["starttls"], "offered", "{found:#}");
        assert_eq!(found["protocol"], protocol);
        assert!(
            super::list(&found["auth_before_tls"]).contains(&inside),
            "{found:#}"
        );
        assert_eq!(found["versions"]["TLSv1.3"], true, "{found:#}");
    }
}
