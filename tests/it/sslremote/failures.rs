//! The table of qmail-sslremote(8): what each failure becomes, a case a row.
#![forbid(unsafe_code)]

use openssl::ssl::SslContext;

use super::fake::{Fake, Running};
use super::remote::{MESSAGE, Remote};
use crate::harness::{Leaf, Place, peer, run};

fn good() -> SslContext {
    peer::context(&Leaf::new("x").address("127.0.0.1").issue(), |_| ())
}

/// A delivery by a route to this server, under this policy.
fn deliver(place: &Place, fake: Fake, policy: &str) -> (String, Running) {
    let running = fake.listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    let remote = Remote::new(place)
        .control("smtproutes", &route)
        .policy(policy);
    (remote.send("far.example"), running)
}

/// A rule that requires TLS, and one that does not.
const REQUIRED: &str = "=[127.0.0.1]:CA\n";
const OFFERED: &str = "*:\n";

#[test]
fn replies_become_what_qmail_remote_makes_of_them() {
    let place = Place::new("remote-replies");
    for (verb, reply, said) in [
        (
            "MAIL",
            "451 x\r\n",
            "ZConnected to 127.0.0.1 but sender was rejected.\nRemote host said: 451 x\n",
        ),
        (
            "MAIL",
            "550 x\r\n",
            "DConnected to 127.0.0.1 but sender was rejected.\nRemote host said: 550 x\n",
        ),
        (
            "RCPT",
            "450 x\r\n",
            "DGiving up on 127.0.0.1.\nRemote host said: 450 x\n",
        ),
        (
            "RCPT",
            "550 x\r\n",
            "DGiving up on 127.0.0.1.\nRemote host said: 550 x\n",
        ),
        (
            "DATA",
            "451 x\r\n",
            "Z127.0.0.1 failed on DATA command.\nRemote host said: 451 x\n",
        ),
        (
            "DATA",
            "554 x\r\n",
            "D127.0.0.1 failed on DATA command.\nRemote host said: 554 x\n",
        ),
        (
            "DATA",
            "250 x\r\n",
            "Z127.0.0.1 failed on DATA command.\nRemote host said: 250 x\n",
        ),
        (
            "DOT",
            "452 x\r\n",
            "Z127.0.0.1 failed after I sent the message.\nRemote host said: 452 x\n",
        ),
        (
            "DOT",
            "554 a\x1b\r\n",
            "D127.0.0.1 failed after I sent the message.\nRemote host said: 554 a\\x1B\n",
        ),
        (
            "DOT",
            "250-a\r\n250 b\r\n",
            "K127.0.0.1 accepted message (no TLS: it was not offered).\nRemote host said: 250-a\n250 b\n",
        ),
        (
            "EHLO",
            "421 x\r\n",
            "ZConnected to 127.0.0.1 but my name was rejected.\nRemote host said: 421 x\n",
        ),
        ("EHLO", "500 x\r\n", "K127.0.0.1 accepted"),
    ] {
        let (report, _) = deliver(&place, Fake::plain().reply(verb, reply), OFFERED);
        assert!(report.starts_with(said), "{verb} {reply}: {report}");
    }
    // Whoever refuses EHLO offers nothing, and that refusal is why.
    let old = Fake::plain().reply("EHLO", "502 what\r\n");
    let old = old.reply("HELO", "250-old.example\r\n250 STARTTLS\r\n");
    let (report, _) = deliver(&place, old, REQUIRED);
    let said = "but it does not offer STARTTLS; tlsdestinations line 1 requires TLS. (#4.7.5)\nRemote \
                host said: 502 what\n";
    assert!(report.ends_with(said), "{report}");
    for code in ["550", "450"] {
        let no = format!("{code} no\r\n");
        for policy in [OFFERED, REQUIRED] {
            let fake = Fake::plain().reply("EHLO", &no).reply("HELO", &no);
            let (report, _) = deliver(&place, fake, policy);
            let said = format!(
                "ZConnected to 127.0.0.1 but my name was rejected.\nRemote host said: {code} no\n"
            );
            assert_eq!(report, said);
        }
    }
}

#[test]
fn each_recipient_has_an_answer_of_its_own() {
    let place = Place::new("remote-recipients");
    for pipelining in ["250 HELP\r\n", "250 PIPELINING\r\n"] {
        let fake = Fake::plain().offers(&format!("250-fake\r\n{pipelining}"));
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        let route = format!(":[127.0.0.1]:{}\n", running.at.port());
        let remote = Remote::new(&place).control("smtproutes", &route);
        let words = ["x", "a@b", "one@x", "a b@x", "three@x"];
        let parts = remote.parts(&words, MESSAGE.as_bytes());
        assert_eq!(parts[..3], ["r", "r", "r"]);
        let commands = running.ended().commands;
        assert_eq!(commands[2], "RCPT TO:<one@x>");
        assert_eq!(commands[3], "RCPT TO:<\"a b\"@x>");
        assert_eq!(commands[5..], ["DATA", "QUIT"]);
    }
}

#[test]
fn refused_recipients_are_told_one_by_one() {
    let place = Place::new("remote-mixed");
    for offered in ["250 HELP\r\n", "250 PIPELINING\r\n"] {
        let fake = Fake::plain()
            .offers(&format!("250-fake\r\n{offered}"))
            .reply("RCPT TO:<no@x>", "550 no\x07\r\n")
            .reply("RCPT TO:<later@x>", "450-a\r\n450 later\r\n");
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        let route = format!(":[127.0.0.1]:{}\n", running.at.port());
        let remote = Remote::new(&place).control("smtproutes", &route);
        let send = |recipients: &[&str]| {
            remote.parts(&[&["x", "a@b"], recipients].concat(), MESSAGE.as_bytes())
        };
        let no = "h127.0.0.1 does not like recipient.\nRemote host said: 550 no\\x07\n";
        let later = "s127.0.0.1 does not like recipient.\nRemote host said: 450-a\n450 later\n";
        let parts = send(&["no@x", "yes@x", "later@x"]);
        assert_eq!(parts[..3], [no, "r", later]);
        assert!(parts[3].starts_with("K127.0.0.1 accepted"), "{parts:?}");
        assert_eq!((parts.len(), running.messages()), (4, 1));
        // Nobody is left: no DATA.
        let parts = send(&["later@x", "no@x"]);
        let end = "DGiving up on 127.0.0.1.\nRemote host said: 550 no\\x07\n";
        assert_eq!(parts, [later, no, end]);
        assert_eq!(running.messages(), 1);
        assert!(!running.seen()[1].commands.contains(&"DATA".to_owned()));
        // More than one group of commands.
        let many: Vec<String> = (0..120).map(|n| format!("n{n}@x")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many.insert(77, "no@x");
        let parts = send(&many);
        assert_eq!(parts.len(), 122);
        for (at, part) in parts[..121].iter().enumerate() {
            assert_eq!(part, if at == 77 { no } else { "r" }, "{at}");
        }
    }
}

#[test]
fn a_connection_that_ends_is_a_duplicate_only_after_the_dot() {
    let place = Place::new("remote-cut");
    for verb in ["MAIL", "RCPT", "DATA"] {
        let (report, running) = deliver(&place, Fake::plain().reply(verb, ""), OFFERED);
        assert!(
            report.starts_with("ZConnected to 127.0.0.1 but connection died. (#4.4.2)\nReason: "),
            "{verb}: {report}"
        );
        assert_eq!(running.messages(), 0);
    }
    for (reply, said) in [
        (
            "",
            "ZConnected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\n",
        ),
        (
            "250-half\r\n",
            "ZConnected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\n",
        ),
        (
            "whatever\r\n",
            "ZConnected to 127.0.0.1 but it does not talk SMTP. Possible duplicate! (#4.5.0)\n",
        ),
    ] {
        for tls in [false, true] {
            let fake = if tls {
                Fake::tls(good())
            } else {
                Fake::plain()
            };
            let policy = if tls { REQUIRED } else { OFFERED };
            let (report, running) = deliver(&place, fake.reply("DOT", reply), policy);
            assert!(report.starts_with(said), "{report}");
            assert_eq!(running.messages(), 1);
        }
    }
    for (greeting, said) in [
        (
            "554 no\r\n",
            "ZConnected to 127.0.0.1 but greeting failed.\nRemote host said: 554 no\n",
        ),
        (
            "421 no\r\n",
            "ZConnected to 127.0.0.1 but greeting failed.\nRemote host said: 421 no\n",
        ),
        (
            "HTTP/1.1 400 x\r\n",
            "ZConnected to 127.0.0.1 but it does not talk SMTP. (#4.5.0)\n",
        ),
    ] {
        let (report, _) = deliver(&place, Fake::plain().greeting(greeting), OFFERED);
        assert!(report.starts_with(said), "{report}");
    }
    let remote = Remote::new(&place).control("smtproutes", ":[127.0.0.1]:1\n");
    assert_eq!(
        remote.send("x"),
        "ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\nReason: 127.0.0.1:1: connection refused\n"
    );
}

#[test]
fn a_required_rule_never_delivers_otherwise_and_never_bounces() {
    let place = Place::new("remote-required");
    let other = || peer::context(&Leaf::new("x").dns("other.example").issue(), |_| ());
    let unknown = || peer::context(&Leaf::new("x").address("127.0.0.1").self_signed(), |_| ());
    let none = Fake::plain();
    let refuse = |text: &str| Fake::tls(good()).reply("STARTTLS", text);
    let pin = "%[127.0.0.1]:=0123456789abcdef0123456789abcdef01234567\n";
    for (fake, policy, said) in [
        (none.clone(), REQUIRED, "it does not offer STARTTLS"),
        (none.clone(), "-*:\n", "it does not offer STARTTLS"),
        (none.clone(), "+*:\n", "it does not offer STARTTLS"),
        (
            none.clone().reply("EHLO", "502 x\r\n"),
            REQUIRED,
            "it does not offer STARTTLS",
        ),
        (refuse("454 later\r\n"), REQUIRED, "it refused STARTTLS"),
        (refuse("554 never\r\n"), REQUIRED, "it refused STARTTLS"),
        (refuse("421 bye\r\n"), REQUIRED, "it refused STARTTLS"),
        (refuse("250 what\r\n"), REQUIRED, "it refused STARTTLS"),
        (
            refuse("220 go\r\n250 injected\r\n"),
            REQUIRED,
            "in the clear that were not asked for",
        ),
        (
            refuse("garbage\r\n"),
            REQUIRED,
            "STARTTLS failed: server's reply after STARTTLS is malformed",
        ),
        (
            refuse(""),
            REQUIRED,
            "STARTTLS failed: server ended the connection",
        ),
        (
            Fake {
                context: None,
                ..refuse("220 go\r\n")
            },
            REQUIRED,
            "the handshake failed",
        ),
        (
            Fake::tls(other()),
            REQUIRED,
            "its certificate names another host",
        ),
        (
            Fake::tls(unknown()),
            REQUIRED,
            "its certificate did not verify: depth 0, /CN=x: self-signed certificate",
        ),
        (
            Fake::tls(unknown()),
            "[127.0.0.1]:CA\n",
            "its certificate did not verify",
        ),
        (
            Fake::tls(unknown()),
            "~*:CA\n",
            "its certificate did not verify",
        ),
        (Fake::tls(good()), pin, "its fingerprint is none of those"),
        (
            Fake::tls(good()),
            "=[127.0.0.1]:/nonexistent\n",
            "under tlsdestinations line 1: unable to load CA list",
        ),
        (
            Fake::tls(good()),
            "%[127.0.0.1]:=ab\n",
            "tlsdestinations line 1",
        ),
        (Fake::tls(good()), ":x\n", "the key is empty"),
    ] {
        let (report, running) = deliver(&place, fake, policy);
        assert!(report.starts_with('Z'), "{policy}{said}: {report}");
        assert!(report.contains(said), "{policy}{said}: {report}");
        assert!(report.contains("(#4.7.5)\n"), "{policy}{said}: {report}");
        for seen in running.seen() {
            let commands = seen.commands.join("\n");
            assert!(!commands.contains("MAIL"), "{policy}{said}: {commands}");
        }
    }
    // The session goes on after 4yz and 5yz, so it is ended in due form; after all
    // else nothing more is sent in the clear.
    for (reply, heard) in [
        ("454 later\r\n", "EHLO STARTTLS QUIT"),
        ("554 never\r\n", "EHLO STARTTLS QUIT"),
        ("421 bye\r\n", "EHLO STARTTLS"),
        ("250 what\r\n", "EHLO STARTTLS"),
    ] {
        let (_, running) = deliver(&place, refuse(reply), REQUIRED);
        let verbs: Vec<String> = (running.ended().commands.iter())
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        assert_eq!(verbs.join(" "), heard, "{reply}");
    }
    for (policy, name) in [
        (REQUIRED, " 127.0.0.1"),
        ("~[127.0.0.1]:CA\n", " 127.0.0.1"),
        ("=*:CA\n", " 127.0.0.1"),
        ("~*:CA\n", " 127.0.0.1"),
        ("[127.0.0.1]:CA\n", ""),
    ] {
        let (report, running) = deliver(&place, Fake::tls(good()), policy);
        assert_eq!(
            report,
            format!(
                "K127.0.0.1 accepted message (TLSv1.3 TLS_AES_256_GCM_SHA384 verified{name}).\nRemote host said: 250 ok\n"
            )
        );
        let seen = running.only();
        let sent = seen
            .commands
            .iter()
            .find(|line| line.contains("MAIL"))
            .unwrap();
        assert!(sent.starts_with("S: "), "{sent}");
        assert_eq!(
            seen.commands[2], "S: EHLO me.example",
            "forgotten and asked again"
        );
    }
}

#[test]
fn what_is_used_if_offered_falls_back_and_says_so() {
    let place = Place::new("remote-offered");
    let unknown = peer::context(&Leaf::new("x").self_signed(), |_| ());
    for (fake, policy, said, connections) in [
        (Fake::plain(), "", "(no TLS: it was not offered)", 1),
        (Fake::plain(), "-:\n", "(no TLS: it was not offered)", 1),
        (
            Fake::tls(good()).reply("STARTTLS", "454 x\r\n"),
            OFFERED,
            "(no TLS: STARTTLS was refused)",
            1,
        ),
        (
            Fake::tls(good()).reply("STARTTLS", "554 x\r\n"),
            OFFERED,
            "(no TLS: STARTTLS was refused)",
            1,
        ),
        (
            Fake::tls(good()).reply("STARTTLS", "421 x\r\n"),
            OFFERED,
            "(no TLS, which failed: it refused STARTTLS)",
            2,
        ),
        (
            Fake {
                context: None,
                ..Fake::tls(good())
            },
            OFFERED,
            "(no TLS, which failed: the handshake failed",
            2,
        ),
        (
            Fake::tls(good()).reply("STARTTLS", "220 go\r\n250 x\r\n"),
            OFFERED,
            "(no TLS, which failed: it sent",
            2,
        ),
        (
            Fake::tls(unknown.clone()),
            OFFERED,
            "(TLSv1.3 TLS_AES_256_GCM_SHA384 unverified)",
            1,
        ),
        (
            Fake::tls(unknown.clone()),
            "*:CA\n",
            "unverified: depth 0, /CN=x: self-signed certificate)",
            1,
        ),
        (Fake::tls(unknown.clone()), "!*:\n", "(no TLS)", 1),
        (
            Fake::tls(good()),
            "*:CA\n",
            "(TLSv1.3 TLS_AES_256_GCM_SHA384 verified)",
            1,
        ),
    ] {
        let (report, running) = deliver(&place, fake, policy);
        assert!(
            report.starts_with("K127.0.0.1 accepted message ("),
            "{said}: {report}"
        );
        assert!(report.contains(said), "{said}: {report}");
        assert_eq!(running.seen().len(), connections, "{said}");
        assert_eq!(running.messages(), 1, "{said}");
    }
}

#[test]
fn tls_at_once_is_never_given_up() {
    let place = Place::new("remote-smtps");
    let server = |fake: Fake, key: &str| {
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        let remote = Remote::new(&place)
            .control("smtproutes", ":[127.0.0.1]\n")
            .policy(&format!("{key}:CA||;s{}\n", running.at.port()));
        (remote.send("x"), running)
    };
    let (report, running) = server(Fake::tls(good()).at_once(), "=[127.0.0.1]");
    assert!(
        report.starts_with("K127.0.0.1 accepted message (TLSv1.3"),
        "{report}"
    );
    assert!(
        running
            .only()
            .commands
            .iter()
            .all(|line| line.starts_with("S: "))
    );
    for key in ["=[127.0.0.1]", "*"] {
        let (report, running) = server(
            Fake {
                context: None,
                ..Fake::plain()
            }
            .at_once(),
            key,
        );
        assert!(
            report.starts_with('Z') && report.contains("(#4.7.5)"),
            "{report}"
        );
        assert_eq!(running.messages(), 0);
    }
}

#[test]
fn what_cannot_be_sent_is_said_before_anybody_is_called() {
    let place = Place::new("remote-usage");
    let remote = Remote::new(&place).control("smtproutes", ":[127.0.0.1]:1\n");
    for (words, message, said) in [
        (
            &["x"][..],
            MESSAGE,
            "DI (qmail-remote) was invoked improperly. (#5.3.5)\n",
        ),
        (
            &["x", "a@b"],
            MESSAGE,
            "DI (qmail-remote) was invoked improperly. (#5.3.5)\n",
        ),
        (
            &["x", "a@b", "c@x"],
            "no newline",
            "DSMTP cannot transfer messages with partial final lines. (#5.6.2)\n",
        ),
        (
            &["x", "a\nb@b", "c@x"],
            MESSAGE,
            "DThe sender's address cannot be sent by SMTP. (#5.1.7)\n",
        ),
        (
            &["x", "a@b", "c\r\nDATA@x"],
            MESSAGE,
            "DA recipient's address cannot be sent by SMTP. (#5.1.3)\n",
        ),
    ] {
        assert_eq!(remote.parts(words, message.as_bytes()), [said]);
    }
    let said = |remote: &Remote<'_>, why: &str| {
        let wanted = format!("ZUnable to read control files. (#4.3.0)\nReason: {why}\n");
        assert_eq!(remote.send("x"), wanted);
    };
    let bare = Place::new("remote-bare");
    let remote = Remote::new(&bare);
    std::fs::remove_file(bare.path("control/me")).unwrap();
    said(&remote, "there is no control/me");
    // EHLO without a name is refused everywhere, in words that say nothing of it.
    for text in ["", "\n", " \t\r\n", "\nme.example\n"] {
        bare.write("control/me", text);
        said(&remote, "control/me is empty");
    }
    bare.write("control/me", "me.example\n");
    for text in ["", "\n"] {
        bare.write("control/helohost", text);
        said(&remote, "control/helohost is empty");
    }
    std::fs::remove_file(bare.path("control/helohost")).unwrap();
    std::fs::create_dir(bare.path("control/smtproutes")).unwrap();
    said(&remote, "unable to read control/smtproutes: is a directory");
    std::fs::remove_dir_all(bare.path("control")).unwrap();
    said(&remote, "there is no control/me");
    let remote = remote.env("QMAILHOME", "/nonexistent/home");
    let wanted = "ZUnable to switch to home directory. (#4.3.0)\nReason: /nonexistent/home \
                  (QMAILHOME): no such file or directory\n";
    assert_eq!(remote.send("x"), wanted);
}

/// What such a file asked for cannot be known; without one, less would be asked.
#[test]
fn a_policy_file_that_is_a_link_to_nowhere_is_not_an_absent_one() {
    let place = Place::new("remote-links");
    let running = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    let remote = Remote::new(&place).control("smtproutes", &route);
    assert!(remote.send("a.example").starts_with('K'));
    for name in [
        "tlsdestinations",
        "tlsdestinations.cdb",
        "domaincerts",
        "qmtproutes",
        "authsenders",
        "domainips",
        "helohost",
        "tlsreportfrom",
    ] {
        let link = place.path(&format!("control/{name}"));
        std::os::unix::fs::symlink("/nonexistent/file", &link).unwrap();
        let report = remote.send("a.example");
        std::fs::remove_file(link).unwrap();
        assert!(
            report.starts_with('Z') && report.contains(name) && report.contains("no such file"),
            "{name}: {report}"
        );
    }
    assert!(remote.send("a.example").starts_with('K'));
}

#[test]
fn control_files_of_qmail_remote_stop_no_mail() {
    let place = Place::new("remote-control");
    let running = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    for (connect, remote) in [("60 seconds\n", "abc\n"), ("", "-1\n"), ("5\n", " 5\n")] {
        let remote = Remote::new(&place)
            .control("smtproutes", &route)
            .control("timeoutconnect", connect)
            .control("timeoutremote", remote);
        let report = remote.send("far.example");
        assert!(report.starts_with('K'), "{connect:?}: {report}");
        let ended = run(&mut remote.command(&["-P", "far.example"]), b"");
        let said = "control/timeoutremote: \"";
        assert!(ended.text().contains(said), "{}", ended.text());
    }
    // Whom helohost names needs no file me.
    let remote = Remote::new(&place)
        .control("smtproutes", &route)
        .control("helohost", "other.example\n");
    std::fs::remove_file(place.path("control/me")).unwrap();
    let report = remote.send("far.example");
    assert!(report.starts_with('K'), "{report}");
    let seen = running.seen();
    let last = seen.last().expect("called");
    assert!(format!("{last:?}").contains("other.example"), "{last:?}");
}
