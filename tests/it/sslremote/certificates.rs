//! domaincerts: which certificate of ours a server is shown, and that a key's
//! password stays with us.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::mpsc;

use openssl::ssl::{SslContextBuilder, SslVerifyMode};

use super::dns::Names;
use super::fake::{Fake, Fault};
use super::postfix::Postfix;
use super::remote::{MESSAGE, Remote, fresh_ip};
use crate::harness::daemons::Exim;
use crate::harness::memory::Needles;
use crate::harness::process::PATIENCE;
use crate::harness::{
    Identity, KeyKind, Leaf, Peer, Place, eventually, need, need_root, peer, skip, skip_part,
};

const SECRET: &str = "hunter2|colon:blank end";

/// A server that asks for a certificate and takes any.
fn asking() -> Fake {
    let leaf = Leaf::new("x").address("127.0.0.1").issue();
    Fake::tls(peer::context(&leaf, |context: &mut SslContextBuilder| {
        context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    }))
}

/// Certificates under these names, each with a locked key and an open one.
fn make(place: &Place, names: &[&str]) {
    for name in names {
        let identity: Identity = Leaf::new(name).issue();
        place.write(&format!("{name}.pem"), identity.chain_pem());
        place.write(&format!("{name}.key"), identity.locked_key_pem(SECRET));
        place.write(&format!("{name}.open"), identity.key_pem());
        let both = [identity.chain_pem(), identity.key_pem()].concat();
        place.write(&format!("{name}.both"), both);
    }
}

#[test]
fn our_certificate_goes_by_the_longest_suffix_of_the_sender() {
    let place = Place::new("remote-own");
    make(&place, &["all", "test", "host", "sub", "both"]);
    let line = |key: &str, name: &str| format!("{key}:NAME/{name}.pem|NAME/{name}.key|{SECRET}\n");
    // The order of the lines is of no account.
    let text = [
        line("*", "all"),
        line(".test", "test"),
        line(".a.test", "sub"),
        line("a.test", "host"),
        "both.example:NAME/both.both\n".to_owned(),
    ]
    .concat();
    let home = place.text("");
    let text = text.replace("NAME", home.trim_end_matches('/'));
    let running = asking().listen("127.0.0.1:0".parse().unwrap());
    let remote = Remote::new(&place)
        .control(
            "smtproutes",
            &format!(":[127.0.0.1]:{}\n", running.at.port()),
        )
        .policy("=[127.0.0.1]:CA\n")
        .control("domaincerts", &text);
    for (sender, shown) in [
        ("x@a.test", "host"),
        ("x@A.Test", "host"),
        ("x@b.a.test", "sub"),
        ("x@c.b.a.test", "sub"),
        ("x@b.test", "test"),
        ("x@test", "all"),
        ("x@both.example", "both"),
        ("x@example", "all"),
        ("", "all"),
        ("#@[]", "all"),
    ] {
        let parts = remote.parts(&["x", sender, "c@x"], MESSAGE.as_bytes());
        assert!(
            parts[1].starts_with("K127.0.0.1 accepted"),
            "{sender}: {parts:?}"
        );
        let seen = running.seen();
        assert_eq!(
            seen.last().unwrap().shown.as_deref(),
            Some(shown),
            "{sender}"
        );
    }
    // Nobody's line is nobody's certificate.
    let remote = remote.control(
        "domaincerts",
        &line("a.test", "host").replace("NAME/", &home),
    );
    let parts = remote.parts(&["x", "x@b.test", "c@x"], MESSAGE.as_bytes());
    assert!(parts[1].starts_with("K127.0.0.1 accepted"), "{parts:?}");
    assert_eq!(running.seen().last().unwrap().shown, None);
}

#[test]
fn a_certificate_that_cannot_be_shown_defers_and_names_its_line() {
    let place = Place::new("remote-own-wrong");
    make(&place, &["one"]);
    let two = Leaf::new("two").other_key().issue();
    place.write("two.key", two.locked_key_pem(SECRET));
    place.write("empty.pem", "");
    let running = asking().listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    let at = |name: &str| place.text(name);
    let (pem, key) = (at("one.pem"), at("one.key"));
    for (value, said) in [
        (
            format!("{pem}|{key}|wrong{SECRET}"),
            "unable to load key: domaincerts ",
        ),
        (format!("{pem}|{key}"), "unable to load key: domaincerts "),
        (
            format!("{pem}|{key}|"),
            "it is encrypted, and no password was given in the third field of its line",
        ),
        (
            format!("{pem}|{}|{SECRET}", at("none.key")),
            "no such file or directory",
        ),
        (
            format!("{}|{key}|{SECRET}", at("none.pem")),
            "unable to load certificate: domaincerts ",
        ),
        (format!("{}|{key}|{SECRET}", at("empty.pem")), "it is empty"),
        (
            format!("{pem}|{}|{SECRET}", at("two.key")),
            "key does not match certificate",
        ),
        (
            format!("{pem}||{SECRET}"),
            "unable to load key: domaincerts ",
        ),
        (format!("|{key}|{SECRET}"), "\"a.test\": no certificate"),
    ] {
        for policy in ["=[127.0.0.1]:CA\n", "*:\n"] {
            let remote = Remote::new(&place)
                .control("smtproutes", &route)
                .policy(policy)
                .control("domaincerts", &format!("# ours\n*:/none\na.test:{value}\n"));
            let parts = remote.parts(&["x", "x@a.test", "c@x"], MESSAGE.as_bytes());
            let report = parts.concat();
            assert!(report.starts_with('Z'), "{value}: {report}");
            assert!(report.contains("domaincerts line 3"), "{value}: {report}");
            assert!(report.contains(said), "{value}: {report}");
            assert!(
                !report.contains("tlsdestinations line"),
                "{value}: {report}"
            );
            assert!(
                !report.contains("hunter2"),
                "the password is told: {report}"
            );
        }
    }
    assert!(running.seen().is_empty(), "nobody was called");
}

#[test]
fn postfix_and_exim_see_whose_certificate_it_is() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-own-real");
    make(&place, &["sender.example"]);
    let home = place.text("");
    let certs =
        format!("sender.example:{home}sender.example.pem|{home}sender.example.key|{SECRET}\n");
    let mx = Leaf::new("mx").dns("mx.test").dns("relay.test").issue();
    let words = ["postfix.test", "a@sender.example", "b@postfix.test"];
    if let Some(postfix) = Postfix::start(&place, &mx) {
        let zone = format!("postfix IN MX 10 mx\nmx IN A {}", postfix.ip);
        let names = Names::serve(&place, &zone);
        for (count, policy) in [(1, "=mx.test:CA\n"), (2, "=mx.test:CA||;465\n")] {
            let remote = Remote::new(&place).dns(names.ip).policy(policy);
            let parts = remote
                .control("domaincerts", &certs)
                .parts(&words, MESSAGE.as_bytes());
            assert!(parts[1].contains("(TLSv1.3 "), "{parts:?}");
            for mail in postfix.mail(count) {
                let text = String::from_utf8(mail).unwrap();
                // Folded over lines.
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                let said =
                    "(Client CN \"sender.example\", Issuer \"Test Intermediate\" (verified OK))";
                assert!(text.contains(said), "{text}");
            }
        }
    } else {
        skip_part!("postfix is not installed");
    }
    for (options, sign) in [(&[][..], ""), (&["-tls-on-connect"], "s")] {
        let place = Place::new("remote-own-exim");
        let Some(exim) = Exim::start(&place, &mx, options) else {
            skip!("exim4 is not installed");
        };
        let names = Names::serve(&place, "relay IN A 127.0.0.1");
        let remote = Remote::new(&place)
            .dns(names.ip)
            .control("smtproutes", ":relay.test\n")
            .control("domaincerts", &certs)
            .policy(&format!("=relay.test:CA||;{sign}{}\n", exim.at.port()));
        let parts = remote.parts(&words, MESSAGE.as_bytes());
        assert!(parts[1].contains("(TLSv1.3 "), "{parts:?}");
        let log = eventually("exim has logged the message", || {
            let log = exim.log();
            log.contains(" <= ").then_some(log)
        });
        let line = log.lines().find(|line| line.contains(" <= ")).unwrap();
        assert!(
            line.contains(" CV=yes ") && line.contains("DN=\"CN=sender.example\""),
            "{log}"
        );
    }
}

#[test]
fn our_key_and_its_password_are_gone_when_the_sender_is_named() {
    need_root!();
    for kind in [KeyKind::Rsa2048, KeyKind::P256, KeyKind::Ed25519] {
        let place = Place::new("remote-key");
        let identity = Leaf::new("client").key(kind).issue();
        place.write("client.pem", identity.chain_pem());
        place.write("client.key", identity.locked_key_pem(SECRET));
        let mut needles = Needles::secrets(&identity.key);
        needles.add("the password", SECRET.as_bytes());
        for keep in [false, true] {
            let (asks, asked) = mpsc::channel();
            let (go, gone) = mpsc::channel::<()>();
            let leaf = Leaf::new("x").address("127.0.0.1").issue();
            let context = peer::context(&leaf, |context| {
                context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
            });
            let server = Peer::tls(context, move |stream| {
                let mut stream = BufReader::new(stream.unwrap());
                stream.get_mut().write_all(b"220 x\r\n").unwrap();
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                stream.get_mut().write_all(b"250 x\r\n").unwrap();
                stream.read_line(&mut line).unwrap();
                asks.send(line).unwrap();
                let _ = gone.recv();
            });
            let file = |name: &str| place.text(name);
            let own = format!("*:{}|{}|{SECRET}\n", file("client.pem"), file("client.key"));
            let route = format!(":[127.0.0.1]:s{}\n", server.at.port());
            let remote = Remote::new(&place)
                .control("smtproutes", &route)
                .policy("=[127.0.0.1]:CA\n")
                .control("domaincerts", &own);
            let remote = if keep {
                place.write("held.key", identity.key_pem());
                remote.taken_over("hold").env("HELD", &file("held.key"))
            } else {
                remote
            };
            let mut child = remote
                .command(&["x", "a@b", "c@x"])
                .stdin(fs::File::open(place.write("message", MESSAGE)).unwrap())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let heard = asked.recv_timeout(PATIENCE).unwrap();
            let found = needles.found_in(child.id().cast_signed());
            let _ = child.kill();
            let _ = child.wait();
            go.send(()).unwrap();
            server.join();
            assert!(heard.ends_with("MAIL FROM:<a@b>\r\n"), "{heard}");
            // The same search finds what was kept on purpose.
            assert_eq!(!found.is_empty(), keep, "{kind:?}: {found:?}");
        }
    }
}

/// A domain with two servers, the better one first.
fn two_servers(place: &Place) -> (Names, IpAddr, IpAddr) {
    let (first, second) = (fresh_ip(), fresh_ip());
    let zone = format!("d IN MX 10 one\nd IN MX 20 two\none IN A {first}\ntwo IN A {second}\n");
    (Names::serve(place, &zone), first, second)
}

/// RFC 5321, 4.2.1: such an answer is no other server's.
#[test]
fn a_421_leads_to_the_next_server_with_our_certificate() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-own-next");
    make(&place, &["all"]);
    let file = |name: &str| place.text(name);
    let own = format!("*:{}|{}\n", file("all.pem"), file("all.open"));
    for verb in ["S: MAIL", "S: RCPT", "S: DATA"] {
        let (names, first, second) = two_servers(&place);
        let remote = Remote::new(&place)
            .dns(names.ip)
            .policy("-d.test:\n")
            .control("domaincerts", &own);
        let two = asking().at(second);
        let one = asking().reply(verb, "421 busy\r\n").at(first);
        let report = remote.send("d.test");
        assert!(
            report.starts_with(&format!("K{second} ")),
            "{verb}: {report}"
        );
        assert_eq!(one.only().shown.as_deref(), Some("all"), "{verb}");
        assert_eq!(two.only().shown.as_deref(), Some("all"), "{verb}");
    }
}

#[test]
fn our_key_is_gone_when_the_message_is_sent_though_other_servers_are_left() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-key-next");
    let identity = Leaf::new("client").key(KeyKind::P256).issue();
    place.write("client.pem", identity.chain_pem());
    place.write("client.key", identity.locked_key_pem(SECRET));
    let mut needles = Needles::secrets(&identity.key);
    needles.add("the password", SECRET.as_bytes());
    let file = |name: &str| place.text(name);
    let own = format!("*:{}|{}|{SECRET}\n", file("client.pem"), file("client.key"));
    // MAIL has its answer, the message has none.
    for (verb, there) in [("S: RCPT", true), ("DOT", false)] {
        let (names, first, _) = two_servers(&place);
        let server = asking().fault(verb, Fault::Silence).at(first);
        let remote = Remote::new(&place)
            .dns(names.ip)
            .policy("-d.test:\n")
            .control("domaincerts", &own);
        let mut child = remote
            .command(&["d.test", "a@b", "c@x"])
            .stdin(fs::File::open(place.write("message", MESSAGE)).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the server is silent", || {
            let seen = server.seen().pop()?;
            let asked = seen.commands.last()?.contains("RCPT");
            (if there { asked } else { seen.message.is_some() }).then_some(())
        });
        let found = needles.found_in(child.id().cast_signed());
        let _ = child.kill();
        let _ = child.wait();
        // The same search finds what is still there.
        assert_eq!(!found.is_empty(), there, "{verb}: {found:?}");
    }
}
