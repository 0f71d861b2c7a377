//! Each stage of a session and what its failure leads to: the next server, this
//! one again without TLS, a delay, a bounce.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use openssl::ssl::{SslContextBuilder, SslVerifyMode, SslVersion};

use super::dns::Names;
use super::fake::{Fake, Fault, Running};
use super::remote::{MESSAGE, Remote, fresh_ip};
use crate::harness::process::kill_group;
use crate::harness::{Authority, Leaf, Place, need, need_root, peer, program, skip};

const OFFERED: &str = "*:\n";
const REQUIRED: &str = "~*:CA\n";

/// A server with a good certificate for `one.test` and `127.0.0.1`.
fn tls(set: impl FnOnce(&mut SslContextBuilder)) -> Fake {
    let leaf = Leaf::new("x").dns("one.test").dns("two.test");
    Fake::tls(peer::context(&leaf.address("127.0.0.1").issue(), set))
}

fn good() -> Fake {
    tls(|_| ())
}

/// One that wants a certificate of a client, and has none of ours.
fn demanding(version: SslVersion) -> Fake {
    tls(|context| {
        context.set_max_proto_version(Some(version)).unwrap();
        let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        context.set_verify(mode);
    })
}

/// A home whose mail goes to one server.
fn to_one<'a>(place: &'a Place, running: &Running, policy: &str) -> Remote<'a> {
    Remote::new(place)
        .control(
            "smtproutes",
            &format!(":[127.0.0.1]:{}\n", running.at.port()),
        )
        .control("timeoutconnect", "3\n")
        .control("timeoutremote", "3\n")
        .policy(policy)
}

fn alone(place: &Place, fake: Fake, policy: &str) -> (String, Running) {
    let running = fake.listen("127.0.0.1:0".parse().unwrap());
    let report = to_one(place, &running, policy).send("far.example");
    (report, running)
}

/// Two exchangers of `d.test`: `one.test` is preferred to `two.test`.
struct Two {
    names: Names,
    better: Running,
    other: Running,
}

impl Two {
    fn serve(place: &Place, one: Fake, two: Fake, port: u16) -> Two {
        let (first, second) = (fresh_ip(), fresh_ip());
        let zone = format!("d IN MX 10 one\nd IN MX 20 two\none IN A {first}\ntwo IN A {second}\n");
        Two {
            names: Names::serve(place, &zone),
            better: one.listen((first, port).into()),
            other: two.listen((second, port).into()),
        }
    }

    fn send(&self, place: &Place, policy: &str) -> String {
        let remote = Remote::new(place).dns(self.names.ip);
        let remote = remote
            .control("timeoutconnect", "3\n")
            .control("smtproutes", "");
        remote
            .control("timeoutremote", "3\n")
            .policy(policy)
            .send("d.test")
    }

    /// The report is of the second server, which has the mail now.
    fn assert_at_two(&self, report: &str, what: &str) {
        let said = format!("K{} accepted message (", self.other.at.ip());
        assert!(report.starts_with(&said), "{what}: {report}");
        assert_eq!(
            (self.better.messages(), self.other.messages()),
            (0, 1),
            "{what}"
        );
    }
}

/// Servers that refuse us after the handshake, with the words of the report.
fn late() -> Vec<(Fake, &'static str)> {
    vec![
        (
            demanding(SslVersion::TLS1_3),
            "the handshake failed: received alert certificate_required (116): the server wants a client certificate",
        ),
        (
            good().reply("S: EHLO", ""),
            "there was no good answer inside TLS: server ended the connection after EHLO",
        ),
        (
            good().fault("S: EHLO", Fault::Silence),
            "there was no good answer inside TLS: timed out after EHLO",
        ),
        (
            good().reply("S: EHLO", "what\r\n"),
            "there was no good answer inside TLS: server's reply after EHLO is malformed",
        ),
        (
            good().reply("S: EHLO", "421 busy\r\n"),
            "it refused EHLO inside TLS",
        ),
        (
            good().reply("S: EHLO", "503 bad sequence\r\n"),
            "it refused EHLO inside TLS",
        ),
        (
            good().reply("S: EHLO", "451 later\r\n"),
            "it refused EHLO inside TLS",
        ),
    ]
}

#[test]
fn without_a_good_answer_inside_tls_the_handshake_has_failed() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-late");
    for (fake, why) in late() {
        // Required: the next server, at last a delay.
        let (report, running) = alone(&place, fake.clone(), REQUIRED);
        assert!(report.starts_with("ZConnected to 127.0.0.1"), "{report}");
        assert!(report.contains(&format!(" but {why}")), "{why}: {report}");
        assert!(report.contains("(#4.7.5)\n"), "{why}: {report}");
        assert_eq!((running.seen().len(), running.messages()), (1, 0), "{why}");
        // Used if offered: the next server, at last in plain.
        let (report, running) = alone(&place, fake.clone(), OFFERED);
        let said = format!("K127.0.0.1 accepted message (no TLS, which failed: {why}");
        assert!(report.starts_with(&said), "{why}: {report}");
        assert_eq!((running.seen().len(), running.messages()), (2, 1), "{why}");
        for policy in [REQUIRED, OFFERED] {
            let two = Two::serve(&place, fake.clone(), good(), 25);
            let report = two.send(&place, policy);
            two.assert_at_two(&report, why);
            assert!(report.contains("(TLSv1.3 "), "{why}: {report}");
        }
    }
}

#[test]
fn the_refusal_of_our_certificate_is_told_whatever_comes_behind_it() {
    let place = Place::new("remote-own-refused");
    let own = Leaf::new("us").self_signed();
    place.write("us.pem", [own.chain_pem(), own.key_pem()].concat());
    let line = format!("*:{}\n", place.text("us.pem"));
    for (version, fake) in [
        ("TLSv1.3", demanding(SslVersion::TLS1_3)),
        ("TLSv1.2", demanding(SslVersion::TLS1_2)),
    ] {
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        // The server's end may overtake its alert, or not.
        for _ in 0..10 {
            let remote = to_one(&place, &running, "-*:\n").control("domaincerts", &line);
            let report = remote.send("far.example");
            let said = "but the handshake failed: received alert unknown_ca (48): the server does not trust our certificate's issuer; tlsdestinations line 1 requires TLS. (#4.7.5)\n";
            assert!(report.starts_with('Z'), "{version}: {report}");
            assert!(report.contains(said), "{version}: {report}");
        }
        let remote = to_one(&place, &running, OFFERED).control("domaincerts", &line);
        let report = remote.send("far.example");
        let said = "K127.0.0.1 accepted message (no TLS, which failed: the handshake failed: received alert unknown_ca (48)";
        assert!(report.starts_with(said), "{version}: {report}");
    }
}

#[test]
fn a_bad_greeting_inside_tls_leads_to_the_next_server_and_never_to_plain() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-late-at-once");
    let bad = |fake: Fake| fake.at_once();
    for (fake, why) in [
        (
            bad(demanding(SslVersion::TLS1_3)),
            "received alert certificate_required (116)",
        ),
        (
            bad(good().reply("S: GREETING", "")),
            "server ended the connection before its greeting",
        ),
        (
            bad(good().fault("S: GREETING", Fault::Silence)),
            "timed out before its greeting",
        ),
        (
            bad(good().reply("S: GREETING", "421 busy\r\n")),
            "its greeting inside TLS failed",
        ),
        (
            bad(good().reply("S: GREETING", "554 no\r\n")),
            "its greeting inside TLS failed",
        ),
    ] {
        for policy in ["~*:CA||;465\n", "*:CA||;465\n"] {
            let two = Two::serve(&place, fake.clone(), good().at_once(), 465);
            let report = two.send(&place, policy);
            two.assert_at_two(&report, why);
            assert_eq!(two.better.seen().len(), 1, "{why}");
            // Nobody else: a delay, with the reason.
            let running = fake.clone().listen("127.0.0.1:0".parse().unwrap());
            let policy = policy.replace(";465", &format!(";s{}", running.at.port()));
            let remote = to_one(&place, &running, &policy);
            let report = remote.control("smtproutes", ":[127.0.0.1]\n").send("x");
            assert!(report.starts_with('Z') && report.contains(why), "{report}");
            assert!(report.contains("(#4.7.5)\n"), "{why}: {report}");
            assert_eq!(running.messages(), 0, "{why}");
        }
    }
}

/// Ways in which TLS fails, and what the report says of it.
fn tls_fails() -> Vec<(Fake, &'static str)> {
    vec![
        (
            good().reply("STARTTLS", "454 4.7.0 TLS not available\r\n"),
            "Reason: TLS failed before: it refused STARTTLS: 454 4.7.0 TLS not available\n",
        ),
        (
            Fake {
                context: None,
                ..good()
            },
            "Reason: TLS failed before: the handshake failed: ",
        ),
        (
            good().fault("HANDSHAKE", Fault::Silence),
            "Reason: TLS failed before: the handshake failed: handshake timed out after 3 seconds",
        ),
        (
            demanding(SslVersion::TLS1_3),
            "Reason: TLS failed before: the handshake failed: received alert certificate_required (116)",
        ),
    ]
}

#[test]
fn a_server_that_insists_on_tls_that_failed_gets_the_mail_later() {
    let place = Place::new("remote-insists");
    for (fake, why) in tls_fails() {
        for (verb, reply) in [
            ("MAIL", "530 5.7.0 Must issue a STARTTLS command first\r\n"),
            ("MAIL", "530 no\r\n"),
            ("MAIL", "550-5.7.1 sorry\r\n550 5.7.1 use STARTTLS\r\n"),
            ("RCPT", "550 5.7.10 no\r\n"),
            ("RCPT", "550 5.7.0 no\r\n"),
            ("DATA", "554 5.7.11 no\r\n"),
            ("DATA", "554 5.7.8 Encryption wanted\r\n"),
            ("DOT", "550 5.7.1 not without tls\r\n"),
        ] {
            let running = fake.clone().reply(verb, reply);
            let running = running.listen("127.0.0.1:0".parse().unwrap());
            let remote = to_one(&place, &running, OFFERED);
            let parts = remote.parts(&["x", "a@b", "c@x"], MESSAGE.as_bytes());
            let last = parts.last().unwrap();
            assert!(last.starts_with('Z'), "{verb} {reply}: {parts:?}");
            assert!(last.contains(why), "{verb} {reply}: {parts:?}");
            assert!(last.contains(reply.trim_end().rsplit('\n').next().unwrap()));
            match verb {
                "MAIL" => assert_eq!(parts.len(), 1, "{parts:?}"),
                "RCPT" => {
                    assert!(parts[0].starts_with('s'), "{parts:?}");
                    assert!(parts[0].contains(why), "{parts:?}");
                }
                _ => assert_eq!(parts[0], "r", "{parts:?}"),
            }
        }
    }
}

#[test]
fn other_refusals_and_sessions_that_never_had_tls_bounce_as_ever() {
    let place = Place::new("remote-insists-not");
    let refused = |reply| {
        good()
            .reply("STARTTLS", "454 later\r\n")
            .reply("MAIL", reply)
    };
    for (fake, policy) in [
        (refused("550 5.7.1 relaying denied\r\n"), OFFERED),
        (
            refused("550 5.1.1 use TLS, and nobody is here\r\n"),
            OFFERED,
        ),
        (refused("550 TLS\r\n"), OFFERED),
        (refused("550 5.7.100 no\r\n"), OFFERED),
        // TLS has not failed here.
        (
            Fake::plain().reply("MAIL", "530 5.7.0 STARTTLS first\r\n"),
            OFFERED,
        ),
        (
            good().reply("MAIL", "530 5.7.0 STARTTLS first\r\n"),
            OFFERED,
        ),
        (
            good().reply("MAIL", "530 5.7.0 STARTTLS first\r\n"),
            "!*:\n",
        ),
    ] {
        let (report, _) = alone(&place, fake, policy);
        let said = "DConnected to 127.0.0.1 but sender was rejected.\nRemote host said: 5";
        assert!(report.starts_with(said), "{report}");
        assert!(!report.contains("Reason"), "{report}");
    }
    // Of several recipients each has its own.
    let fake = good().reply("STARTTLS", "454 later\r\n");
    let fake = fake.reply("RCPT TO:<no@x>", "550 5.1.1 nobody\r\n");
    let fake = fake.reply("RCPT TO:<tls@x>", "550 5.7.10 encrypt\r\n");
    let running = fake.listen("127.0.0.1:0".parse().unwrap());
    let remote = to_one(&place, &running, OFFERED);
    let parts = remote.parts(&["x", "a@b", "no@x", "tls@x", "yes@x"], MESSAGE.as_bytes());
    let letters: Vec<&str> = parts.iter().map(|part| &part[..1]).collect();
    assert_eq!(letters, ["h", "s", "r", "K"], "{parts:?}");
    let parts = remote.parts(&["x", "a@b", "tls@x", "no@x"], MESSAGE.as_bytes());
    let letters: Vec<&str> = parts.iter().map(|part| &part[..1]).collect();
    assert_eq!(letters, ["s", "h", "Z"], "{parts:?}");
}

#[test]
fn refusals_of_our_name_and_421_lead_to_the_next_server() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-names-refused");
    let both = |reply| Fake::plain().reply("EHLO", reply).reply("HELO", reply);
    for (fake, verbs, said) in [
        (
            both("550 no\r\n"),
            "EHLO HELO QUIT",
            "but my name was rejected.\nRemote host said: 550 no\n",
        ),
        (
            both("450 no\r\n"),
            "EHLO HELO QUIT",
            "but my name was rejected.\nRemote host said: 450 no\n",
        ),
        (
            Fake::plain().reply("EHLO", "421 busy\r\n"),
            "EHLO",
            "but my name was rejected.\nRemote host said: 421 busy\n",
        ),
        (
            both("500 no\r\n").reply("HELO", "421 busy\r\n"),
            "EHLO HELO",
            "but my name was rejected.\nRemote host said: 421 busy\n",
        ),
        (
            Fake::plain().greeting("421 busy\r\n"),
            "",
            "but greeting failed.\nRemote host said: 421 busy\n",
        ),
        (
            Fake::plain().reply("MAIL", "421 busy\r\n"),
            "EHLO MAIL",
            "but sender was rejected.\nRemote host said: 421 busy\n",
        ),
        (
            Fake::plain().reply("RCPT", "421 busy\r\n"),
            "EHLO MAIL RCPT",
            "Giving up on ONE.\nRemote host said: 421 busy\n",
        ),
        (
            Fake::plain().reply("DATA", "421 busy\r\n"),
            "EHLO MAIL RCPT DATA",
            "ONE failed on DATA command.\nRemote host said: 421 busy\n",
        ),
        (
            Fake::plain().reply("EHLO", ""),
            "EHLO",
            "but connection died. (#4.4.2)\nReason: server ended the connection after EHLO\n",
        ),
    ] {
        let two = Two::serve(&place, fake.clone(), Fake::plain(), 25);
        let report = two.send(&place, OFFERED);
        two.assert_at_two(&report, said);
        let heard = two.better.ended().commands;
        let heard: Vec<&str> = heard
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(heard.join(" "), verbs, "{said}");
        // None left: its words, though another server could not even be called.
        let two = Two::serve(&place, fake, Fake::plain(), 25);
        let (one, away) = (two.better.at.ip(), fresh_ip());
        let zone = format!("d IN MX 10 one\nd IN MX 20 away\none IN A {one}\naway IN A {away}\n");
        let names = Names::serve(&place, &zone);
        let remote = Remote::new(&place).dns(names.ip).policy(OFFERED);
        let report = remote.send("d.test");
        let said = said.replace("ONE", &one.to_string());
        assert!(
            report.starts_with('Z') && report.ends_with(&said),
            "{said}: {report}"
        );
    }
}

#[test]
fn a_421_among_recipients_is_the_answer_of_the_rest() {
    let place = Place::new("remote-closing");
    for pipelining in ["250 HELP\r\n", "250 PIPELINING\r\n"] {
        let fake = Fake::plain()
            .offers(&format!("250-fake\r\n{pipelining}"))
            .reply("RCPT TO:<two@x>", "421 bye\r\n");
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        let remote = to_one(&place, &running, OFFERED);
        let parts = remote.parts(
            &["x", "a@b", "one@x", "two@x", "three@x"],
            MESSAGE.as_bytes(),
        );
        let closing = "s127.0.0.1 does not like recipient.\nRemote host said: 421 bye\n";
        let end = "ZGiving up on 127.0.0.1.\nRemote host said: 421 bye\n";
        assert_eq!(parts, ["r", closing, closing, end]);
        let heard = running.only().commands;
        assert!(
            !heard.iter().any(|line| line == "DATA" || line == "QUIT"),
            "{heard:?}"
        );
    }
}

#[test]
fn smtputf8_is_for_addresses_and_never_for_the_message() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-utf8");
    let offer = |list: &str| Fake::plain().offers(&format!("250-fake\r\n{list}250 8BITMIME\r\n"));
    let (with, without) = (offer("250-SMTPUTF8\r\n"), offer(""));
    let mail = |running: &Running, at: usize| running.seen()[at].commands[1].clone();
    let latin = b"Subject: caf\xe9\n\nna\xefve\n";
    let running = with.clone().listen("127.0.0.1:0".parse().unwrap());
    let remote = to_one(&place, &running, OFFERED);
    let parts = remote.parts(&["x", "a@b", "c@x"], latin);
    assert!(parts[1].starts_with('K'), "{parts:?}");
    assert_eq!(mail(&running, 0), "MAIL FROM:<a@b> BODY=8BITMIME");
    for (sender, recipient) in [
        ("\u{e4}@b", "c@x"),
        ("a@b", "c@\u{e4}"),
        ("a@b", "\u{e4}@x"),
    ] {
        let parts = remote.parts(&["x", sender, recipient], MESSAGE.as_bytes());
        assert!(parts[1].starts_with('K'), "{parts:?}");
    }
    assert!((1..4).all(|at| mail(&running, at).ends_with("> SMTPUTF8")));
    // Not offered: nothing is sent.
    let running = without.clone().listen("127.0.0.1:0".parse().unwrap());
    let remote = to_one(&place, &running, OFFERED);
    let parts = remote.parts(&["x", "a@b", "\u{e4}@x"], MESSAGE.as_bytes());
    let said = "DConnected to 127.0.0.1 but it does not offer SMTPUTF8, which an address that is not ASCII needs. (#5.6.7)\n";
    assert_eq!(parts, [said]);
    assert_eq!(running.ended().commands.last().unwrap(), "QUIT");
    let parts = remote.parts(&["x", "a@b", "c@x"], latin);
    assert!(parts[1].starts_with('K'), "{parts:?}");
    let words = ["d.test", "a@b", "\u{e4}@d.test"];
    let two = Two::serve(&place, without.clone(), with, 25);
    let remote = Remote::new(&place).dns(two.names.ip).policy(OFFERED);
    let remote = remote.control("smtproutes", "");
    let parts = remote.parts(&words, MESSAGE.as_bytes());
    two.assert_at_two(parts.last().unwrap(), "the other has it");
    // Where one server has not been asked, nobody knows.
    let busy = Fake::plain().greeting("421 busy\r\n");
    for (one, two) in [(without.clone(), busy.clone()), (busy, without)] {
        let two = Two::serve(&place, one, two, 25);
        let remote = Remote::new(&place).dns(two.names.ip).policy(OFFERED);
        let parts = remote.parts(&words, MESSAGE.as_bytes());
        assert!(
            parts[0].starts_with('Z') && parts[0].contains("421 busy"),
            "{parts:?}"
        );
    }
}

#[test]
fn a_refusal_within_the_message_is_read_and_told() {
    let place = Place::new("remote-within");
    let long: Vec<u8> = b"Subject: x\n\n"
        .iter()
        .copied()
        .chain(std::iter::repeat_n(*b"0123456789\n", 2_000_000).flatten())
        .collect();
    for (reply, letter) in [("552 5.3.4 too much\r\n", 'D'), ("452 4.3.1 full\r\n", 'Z')] {
        let bytes: &'static [u8] = reply.as_bytes();
        for (fake, policy) in [(Fake::plain(), OFFERED), (good(), "-*:\n")] {
            for fault in [Fault::Refusal(bytes), Fault::Deaf(bytes)] {
                let running = fake.clone().fault("CONTENT", fault);
                let running = running.listen("127.0.0.1:0".parse().unwrap());
                let remote = to_one(&place, &running, policy);
                let parts = remote.parts(&["x", "a@b", "c@x"], &long);
                let said = format!(
                    "{letter}127.0.0.1 failed while I sent the message.\nRemote host said: {}\n",
                    reply.trim_end()
                );
                assert_eq!(parts, ["r", &said], "{fault:?}");
                assert_eq!(running.messages(), 0);
            }
        }
    }
    // Without words it is a connection that died, and no duplicate.
    for fake in [Fake::plain(), good()] {
        let running = fake.fault("CONTENT", Fault::Refusal(b""));
        let running = running.listen("127.0.0.1:0".parse().unwrap());
        let parts = to_one(&place, &running, "-:\n").parts(&["x", "a@b", "c@x"], &long);
        let said = "ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n";
        assert!(parts[1].starts_with(said), "{parts:?}");
    }
}

#[test]
fn a_bare_cr_is_no_way_to_end_a_message() {
    let place = Place::new("remote-bare-cr");
    let running = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let message = b"Subject: x\r\n\r\na\r.\rMAIL FROM:<evil@x>\r\nb\r.\r\n.\nc\r\r\n";
    let remote = to_one(&place, &running, OFFERED);
    let parts = remote.parts(&["x", "a@b", "c@x"], message);
    assert!(parts[1].starts_with('K'), "{parts:?}");
    let wire = running.only().message.unwrap();
    assert_eq!(
        wire,
        b"Subject: x\r\n\r\na\r\n..\r\nMAIL FROM:<evil@x>\r\nb\r\n..\r\n..\r\nc\r\n\r\n"
    );
    let size = format!("MAIL FROM:<a@b> SIZE={}", wire.len());
    assert_eq!(running.only().commands[1], size);
    let parts = remote.parts(&["x", "a@b", "c@x"], b"a\n\r");
    let said = "DSMTP cannot transfer messages with partial final lines. (#5.6.2)\n";
    assert_eq!(parts, [said]);
}

/// Two servers of QMTPS, both addresses of relay.test, that demand our certificate.
fn demanding_relay(place: &Place) -> (Names, [Running; 2]) {
    let (first, second) = (fresh_ip(), fresh_ip());
    let zone = format!("relay IN A {first}\nrelay IN A {second}\n");
    let fake = demanding(SslVersion::TLS1_3).at_once();
    let all = [first, second].map(|ip| fake.clone().listen((ip, 6209).into()));
    (Names::serve(place, &zone), all)
}

#[test]
fn a_refusal_of_our_certificate_in_qmtps_is_no_duplicate_and_leads_to_the_next_server() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-late-qmtps");
    let (names, all) = demanding_relay(&place);
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("qmtproutes", ":relay.test;6209\n")
        .policy("-*:\n");
    for size in [1, 300_000] {
        let message = [b"Subject: x\n\n", &b"0123456789\n".repeat(size)[..]].concat();
        let parts = remote.parts(&["x", "a@b", "c@x"], &message);
        let [report] = &parts[..] else {
            panic!("{parts:?}");
        };
        let said = "but the handshake failed: received alert certificate_required (116): the server wants a client certificate; tlsdestinations line 1 requires TLS. (#4.7.5)\n";
        assert!(report.starts_with('Z') && report.contains(said), "{report}");
        assert!(!report.contains("duplicate"), "{report}");
    }
    for one in &all {
        assert_eq!(one.seen().len(), 2);
    }
}

/// A server that was to be shown a certificate cannot be, once the key was wiped for the
/// message: it is not called.
#[test]
fn a_refusal_of_our_certificate_in_qmtps_leads_to_nobody_without_our_key() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-late-qmtps-key");
    let stranger = Leaf::new("client").self_signed();
    let (certificate, key) = place.identity("client", &stranger);
    let (names, all) = demanding_relay(&place);
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("qmtproutes", ":relay.test;6209\n")
        .control("domaincerts", &format!("*:{certificate}|{key}\n"))
        .policy("-*:\n");
    let report = remote.send("x");
    assert!(report.starts_with('Z'), "{report}");
    assert!(report.contains("but the handshake failed: "), "{report}");
    let called: usize = all.iter().map(|one| one.seen().len()).sum();
    assert_eq!(called, 1, "{report}");
}

/// Python's server, whose TLS is another program's than ours: 1.3 only, and with
/// the alert as the last that comes before a reset.
#[test]
fn python_that_demands_a_certificate_and_resets() {
    let place = Place::new("remote-python");
    let Some(python) = program("python3") else {
        skip!("python3 is not installed");
    };
    let identity = Leaf::new("x").address("127.0.0.1").issue();
    let (certificate, key) = place.identity("python", &identity);
    let root = place.write("python-root.pem", Authority::shared_root().pem());
    let script = place.write("server.py", PYTHON);
    let mut child = Command::new(python)
        .args([&script, &certificate, &key, &root])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let route = format!(":[127.0.0.1]:{}\n", line.trim());
    let send = |policy: &str| {
        let remote = Remote::new(&place).control("smtproutes", &route);
        remote.policy(policy).send("far.example")
    };
    let reports: Vec<String> = (0..10).map(|_| send(REQUIRED)).collect();
    let plain = send(OFFERED);
    kill_group(child.id());
    let _ = child.wait();
    for report in reports {
        let said = "ZConnected to 127.0.0.1 ([127.0.0.1]) but the handshake failed: received alert certificate_required (116)";
        assert!(report.starts_with(said), "{report}");
    }
    let said = "K127.0.0.1 accepted message (no TLS, which failed: the handshake failed: received alert certificate_required (116)";
    assert!(plain.starts_with(said), "{plain}");
}

const PYTHON: &str = r"
import socket, ssl, struct, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.load_verify_locations(sys.argv[3])
context.verify_mode = ssl.CERT_REQUIRED
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
def serve(one):
    def say(text): one.sendall(text + b'\r\n')
    lines = one.makefile('rb')
    say(b'220 python')
    for line in lines:
        verb = line.split()[0].upper()
        if verb == b'EHLO': say(b'250-python'); say(b'250 STARTTLS')
        elif verb == b'STARTTLS':
            say(b'220 go')
            try: context.wrap_socket(one, server_side=True).recv(1)
            except (ssl.SSLError, OSError): pass
            return
        elif verb == b'DATA':
            say(b'354 go')
            while lines.readline() != b'.\r\n': pass
            say(b'250 ok')
        elif verb == b'QUIT': return
        else: say(b'250 ok')
while True:
    one, _ = listener.accept()
    # The end is a reset.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    threading.Thread(target=serve, args=(one,), daemon=True).start()
";

#[test]
fn a_delay_at_another_server_keeps_no_mail_from_one_whose_tls_failed() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-delayed");
    for (other, plain) in [
        // A backup that takes nothing while the better one is up.
        (Fake::plain().reply("MAIL", "450 use the other\r\n"), true),
        (Fake::plain().reply("RCPT", "450 use the other\r\n"), true),
        (Fake::plain().reply("DATA", "451 use the other\r\n"), true),
        (Fake::plain().greeting("554 no\r\n"), true),
        (Fake::plain().reply("RCPT", ""), true),
        (Fake::plain().reply("MAIL", "550 no\r\n"), false),
        (Fake::plain().reply("RCPT", "550 no\r\n"), false),
        (Fake::plain().reply("DOT", "451 later\r\n"), false),
        (Fake::plain().reply("DOT", ""), false),
    ] {
        let better = demanding(SslVersion::TLS1_3);
        let two = Two::serve(&place, better, other, 25);
        let report = two.send(&place, OFFERED);
        let taken = format!("K{} accepted", two.better.at.ip());
        assert_eq!(report.starts_with(&taken), plain, "{report}");
        let calls = (two.better.seen().len(), two.better.messages());
        assert_eq!(calls, if plain { (2, 1) } else { (1, 0) }, "{report}");
    }
    // If none takes it, the report of the one that spoke last stands.
    let better = demanding(SslVersion::TLS1_3).reply("MAIL", "451 me neither\r\n");
    let other = Fake::plain().reply("RCPT", "450 use the other\r\n");
    let two = Two::serve(&place, better, other, 25);
    let remote = Remote::new(&place).dns(two.names.ip).policy(OFFERED);
    let parts = remote.parts(&["d.test", "a@b", "c@d.test"], MESSAGE.as_bytes());
    let ip = two.other.at.ip();
    let said = format!("s{ip} does not like recipient.\nRemote host said: 450 use the other\n");
    assert_eq!(parts[0], said, "{parts:?}");
    assert_eq!((parts.len(), two.better.seen().len()), (2, 2), "{parts:?}");
}
