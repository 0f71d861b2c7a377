//! Servers that mean no good: silence, drips and floods in every phase, replies
//! that are none. Each ends within its time limit with a report, and a mail is
//! said to be doubled exactly where the server may have it.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};

use super::fake::{Fake, Fault, Running};
use super::remote::{MESSAGE, Remote};
use crate::harness::{Leaf, Place, peer};

const REQUIRED: &str = "=[127.0.0.1]:CA\n";

fn tls() -> Fake {
    let leaf = Leaf::new("x").address("127.0.0.1").issue();
    Fake::tls(peer::context(&leaf, |_| ()))
}

/// A home whose mail goes to this server, with short time limits; a busy machine gets
/// as far as a fault within them.
fn remote<'a>(place: &'a Place, at: SocketAddr, policy: &str) -> Remote<'a> {
    // A rule's port counts where the route has none.
    let route = if policy.contains("||;") {
        ":[127.0.0.1]\n".to_owned()
    } else {
        format!(":[127.0.0.1]:{}\n", at.port())
    };
    Remote::new(place)
        .control("smtproutes", &route)
        .control("timeoutconnect", "5\n")
        .control("timeoutremote", "5\n")
        .policy(policy)
}

/// Delivers to each of these servers at the same time; the reports.
fn deliver(cases: &[(Fake, &str)], message: &[u8]) -> Vec<(Vec<String>, Running)> {
    thread::scope(|scope| {
        let one = |(fake, policy): &(Fake, &str)| {
            let running = fake.clone().listen("127.0.0.1:0".parse().unwrap());
            let policy = (*policy).to_owned();
            scope.spawn(move || {
                let place = Place::new("remote-hostile");
                let remote = remote(&place, running.at, &policy);
                (remote.parts(&["x", "a@b.example", "c@x"], message), running)
            })
        };
        let threads: Vec<_> = cases.iter().map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Every place in a session where a server can fail, in plain and in TLS; `true`
/// where the server may have the message.
fn phases() -> Vec<(&'static str, bool, bool)> {
    let mut all = vec![
        ("GREETING", false, false),
        ("EHLO", false, false),
        ("STARTTLS", true, false),
        ("HANDSHAKE", true, false),
        ("S: EHLO", true, false),
    ];
    for verb in ["MAIL", "RCPT", "DATA", "CONTENT"] {
        all.extend([(verb, false, false), (verb, true, false)]);
    }
    all.extend([("DOT", false, true), ("DOT", true, true)]);
    all
}

/// Checks the report of a server that failed in one place.
fn check(phase: &str, critical: bool, (parts, running): &(Vec<String>, Running), codes: &[&str]) {
    let report = parts.last().unwrap();
    let what = format!("{phase}: {parts:?}");
    assert!(report.starts_with("ZConnected to 127.0.0.1"), "{what}");
    let code = |code: &&str| report.contains(&format!("(#{code})\n"));
    assert!(codes.iter().any(code), "{what}");
    let duplicate = report.contains("Possible duplicate! ");
    assert_eq!(duplicate, critical, "{what}");
    assert_eq!(running.messages(), usize::from(critical), "{what}");
    assert_eq!(running.seen().len(), 1, "{what}");
    // Each recipient's answer is told where there was one.
    let answered = matches!(phase, "DATA" | "CONTENT" | "DOT");
    assert_eq!(parts.len(), 1 + usize::from(answered), "{what}");
}

/// What the end of STARTTLS or of a handshake is called, or of something later.
fn codes<'a>(phase: &str, usual: &'a str) -> &'a [&'a str] {
    match (phase, usual) {
        // The last one is where the first good answer inside TLS is missing.
        ("STARTTLS" | "HANDSHAKE" | "S: EHLO", _) => &["4.7.5"],
        (_, "4.5.0") => &["4.5.0"],
        _ => &["4.4.2"],
    }
}

#[test]
fn silence_ends_with_the_time_limit_in_every_phase() {
    let long: Vec<u8> = b"Subject: x\n\n"
        .iter()
        .copied()
        .chain(std::iter::repeat_n(*b"0123456789\n", 2_000_000).flatten())
        .collect();
    for (fault, message) in [
        (Fault::Silence, MESSAGE.as_bytes()),
        // A byte each tenth of a second is no reply either.
        (Fault::Drip(b"250-x\r\n"), MESSAGE.as_bytes()),
        // More than any buffer holds: the server reads no more of it.
        (Fault::Silence, &long),
    ] {
        let only_content = message.len() > 1000;
        let phases: Vec<_> = phases()
            .into_iter()
            // With a short message nothing is left to be sent there.
            .filter(|(phase, ..)| (*phase == "CONTENT") == only_content)
            .filter(|(phase, ..)| matches!(fault, Fault::Silence) || *phase != "HANDSHAKE")
            .collect();
        let cases: Vec<_> = phases
            .iter()
            .map(|&(phase, in_tls, _)| {
                if in_tls {
                    (tls().fault(phase, fault), REQUIRED)
                } else {
                    (Fake::plain().fault(phase, fault), "-:\n")
                }
            })
            .collect();
        for ((phase, _, critical), ended) in phases.iter().zip(deliver(&cases, message)) {
            check(phase, *critical, &ended, codes(phase, "4.4.2"));
            let report = ended.0.last().unwrap();
            assert!(
                report.contains("timed out") || report.contains("not done within"),
                "{phase}: {report}"
            );
        }
    }
}

#[test]
fn floods_end_in_every_phase() {
    for flood in [&b"2"[..], b"250-x\r\n", b"\0"] {
        let phases: Vec<_> = phases()
            .into_iter()
            .filter(|(phase, ..)| *phase != "CONTENT")
            .collect();
        let cases: Vec<_> = phases
            .iter()
            .map(|&(phase, in_tls, _)| {
                if in_tls {
                    (tls().fault(phase, Fault::Endless(flood)), REQUIRED)
                } else {
                    (Fake::plain().fault(phase, Fault::Endless(flood)), "-:\n")
                }
            })
            .collect();
        for ((phase, _, critical), ended) in phases.iter().zip(deliver(&cases, MESSAGE.as_bytes()))
        {
            check(phase, *critical, &ended, codes(phase, "4.5.0"));
            assert!(!ended.0.concat().contains('\0'), "{phase}");
            let long = ended.0.concat().len() > 8000;
            assert!(!long, "{phase}: {:?}", ended.0);
        }
    }
}

#[test]
fn what_is_no_reply_is_never_taken_for_one() {
    for reply in [
        "\r\n",
        "2\r\n",
        "25\r\n",
        "25x ok\r\n",
        "2500 ok\r\n",
        "250_ok\r\n",
        " 250 ok\r\n",
        "199 ok\r\n",
        "600 ok\r\n",
        "000 ok\r\n",
        "999 ok\r\n",
        "\x00250 ok\r\n",
        "250\0ok\r\n",
        "250-a\r\n354 b\r\n",
        "250-a\r\n550 b\r\n",
        "250-a\r\n\r\n250 b\r\n",
        "ok\r\n",
        "HTTP/1.1 200 OK\r\n",
        "+250 ok\r\n",
        "-50 ok\r\n",
        "\u{2002}250 ok\r\n",
        "350 250\r\n",
    ] {
        let mut cases = Vec::new();
        let verbs = ["EHLO", "MAIL", "RCPT", "DATA", "DOT"];
        for verb in verbs {
            let mut fake = Fake::plain().reply(verb, reply);
            if verb == "EHLO" {
                fake = fake.reply("HELO", reply);
            }
            cases.push((fake, "-:\n"));
        }
        for (verb, (parts, running)) in verbs.iter().zip(deliver(&cases, MESSAGE.as_bytes())) {
            let report = parts.last().unwrap();
            let what = format!("{verb} {reply:?}: {report:?}");
            // 3yz has the form of a reply, but is an answer to nothing here.
            let formed = reply.starts_with("350");
            let critical = *verb == "DOT";
            if formed {
                assert!(
                    report.starts_with('Z') || (*verb == "RCPT" && report.starts_with('D')),
                    "{what}"
                );
            } else {
                let said = "ZConnected to 127.0.0.1 but it does not talk SMTP. ";
                assert!(report.starts_with(said), "{what}");
                assert_eq!(
                    report.contains("Possible duplicate! (#4.5.0)"),
                    critical,
                    "{what}"
                );
            }
            assert_eq!(running.messages(), usize::from(critical), "{what}");
            assert!(!report.contains('\0') && report.is_ascii(), "{what}");
        }
    }
}

#[test]
fn replies_in_pieces_of_one_byte_are_whole_replies() {
    let slow = tls().bytewise();
    let at_once = slow.clone().at_once();
    let plain = Fake::plain().bytewise();
    let port = |running: &Running| running.at.port();
    let place = Place::new("remote-bytewise");
    for (fake, policy, said) in [
        (
            slow,
            REQUIRED,
            "(TLSv1.3 TLS_AES_256_GCM_SHA384 verified 127.0.0.1)",
        ),
        (plain, "-:\n", "(no TLS: it was not offered)"),
        (
            at_once,
            "=[127.0.0.1]:CA||;sPORT\n",
            "(TLSv1.3 TLS_AES_256_GCM_SHA384 verified 127.0.0.1)",
        ),
    ] {
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        let policy = policy.replace("PORT", &port(&running).to_string());
        let remote = remote(&place, running.at, &policy).control("timeoutremote", "20\n");
        let report = remote.send("x");
        assert!(
            report.starts_with(&format!("K127.0.0.1 accepted message {said}.\n")),
            "{report}"
        );
        assert_eq!(running.messages(), 1);
    }
}

#[test]
fn ten_mebibytes_of_capabilities_are_refused_in_tls_too() {
    let large = format!("250-x\r\n{}250 HELP\r\n", "250-AUTH x\r\n".repeat(900_000));
    let at_once = Fake {
        capabilities: large.clone(),
        ..tls()
    }
    .at_once();
    let running = at_once.listen("127.0.0.1:0".parse().unwrap());
    let place = Place::new("remote-large");
    let policy = format!("=[127.0.0.1]:CA||;s{}\n", running.at.port());
    let report = remote(&place, running.at, &policy).send("x");
    let said = "ZConnected to 127.0.0.1 but it does not talk SMTP. (#4.5.0)\nReason: server's reply after EHLO is too long";
    assert!(report.starts_with(said), "{report}");
    assert_eq!(running.messages(), 0);
    // In the clear, under a rule that requires TLS.
    let clear = Fake {
        capabilities: large,
        ..tls()
    };
    for (parts, running) in deliver(&[(clear, REQUIRED)], MESSAGE.as_bytes()) {
        assert!(
            parts[0].starts_with('Z') && parts[0].contains("too long"),
            "{parts:?}"
        );
        assert_eq!(running.messages(), 0);
    }
}

#[test]
fn a_server_that_says_more_than_it_was_asked_doubles_nothing() {
    // Behind the answer to the message: it is the answer that counts.
    for (reply, letter) in [
        ("250 ok\r\n550 no\r\n", 'K'),
        ("550 no\r\n250 ok\r\n", 'D'),
        ("250 ok\r\n\0\0\0", 'K'),
    ] {
        let cases = [
            (Fake::plain().reply("DOT", reply), "-:\n"),
            (tls().reply("DOT", reply), REQUIRED),
        ];
        for (parts, running) in deliver(&cases, MESSAGE.as_bytes()) {
            assert!(parts[1].starts_with(letter), "{reply:?}: {parts:?}");
            assert!(
                !parts.concat().contains("duplicate"),
                "{reply:?}: {parts:?}"
            );
            assert_eq!((running.messages(), running.seen().len()), (1, 1));
        }
    }
}

/// What was there before a question answers nothing: mail that is refused in the end
/// would be reported as accepted.
#[test]
fn a_reply_before_its_question_is_no_answer() {
    for offered in ["PIPELINING", "HELP"] {
        let clear = || Fake::plain().offers(&format!("250-fake\r\n250 {offered}\r\n"));
        let safe = || tls().offers(&format!("250-fake\r\n250-STARTTLS\r\n250 {offered}\r\n"));
        let refusing = |fake: Fake| fake.reply("DOT", "552 5.3.4 no\r\n");
        let greeting = Fake::plain().greeting("220 a\r\n250 early\r\n");
        let mut cases = vec![(refusing(greeting), "-:\n")];
        let mut wanted = vec!["250 early"];
        for (verb, inside, reply, shown) in [
            ("EHLO", "S: EHLO", "250 fake\r\n250 early\r\n", "250 early"),
            ("MAIL", "MAIL", "250 ok\r\n250 early\r\n", "250 early"),
            ("MAIL", "MAIL", "250 ok\r\n550 early\r\n", "550 early"),
            (
                "RCPT",
                "RCPT",
                "250 ok\r\n354 go\r\n250 early\r\n",
                "354 go / 250 early",
            ),
            ("RCPT", "RCPT", "250 ok\r\n2", "2"),
            ("DATA", "DATA", "354 go\r\n250 early\r\n", "250 early"),
        ] {
            // Within a group of commands nobody can tell when a reply was sent.
            if offered == "PIPELINING" && verb == "MAIL" {
                continue;
            }
            cases.push((refusing(clear()).reply(verb, reply), "-:\n"));
            cases.push((refusing(safe()).reply(inside, reply), REQUIRED));
            wanted.extend([shown; 2]);
        }
        for (shown, (parts, running)) in wanted.iter().zip(deliver(&cases, MESSAGE.as_bytes())) {
            let said = format!(
                "ZConnected to 127.0.0.1 but it does not talk SMTP. (#4.5.0)\nReason: server sent a \
                 reply that was not asked for: {shown}\n"
            );
            assert_eq!(parts.last(), Some(&said), "{offered}");
            assert_eq!(running.messages(), 0, "{offered} {shown}");
        }
    }
}

#[test]
fn a_word_in_the_middle_of_the_message_is_no_answer_to_it() {
    let long = [
        b"Subject: x\n\n".to_vec(),
        b"0123456789\n".repeat(2_000_000),
    ]
    .concat();
    let early = Fault::Early(b"250 early\r\n");
    let refusing = |fake: Fake| fake.reply("DOT", "552 no\r\n").fault("CONTENT", early);
    let cases = [
        (refusing(Fake::plain()), "-:\n"),
        (refusing(tls()), REQUIRED),
    ];
    for (parts, running) in deliver(&cases, &long) {
        let said = "ZConnected to 127.0.0.1 but it does not talk SMTP. (#4.5.0)\nReason: server \
                    sent a reply that was not asked for: 250 early\n";
        assert_eq!(parts, ["r", said]);
        assert_eq!(running.messages(), 0);
    }
}

/// A server may close at any time, and says so with 421.
#[test]
fn a_server_that_closes_is_believed_before_it_is_asked() {
    for (verb, reply) in [
        ("EHLO", "250 fake\r\n421 closing\r\n"),
        ("MAIL", "250 ok\r\n421 closing\r\n"),
        ("RCPT", "250 ok\r\n421 closing\r\n"),
    ] {
        let cases = [(Fake::plain().reply(verb, reply), "-:\n")];
        for (parts, running) in deliver(&cases, MESSAGE.as_bytes()) {
            let report = parts.last().unwrap();
            let said = "Remote host said: 421 closing\n";
            assert!(
                report.starts_with('Z') && report.ends_with(said),
                "{parts:?}"
            );
            assert_eq!(
                running.only().commands.last().map(|last| &last[..4]),
                Some(verb)
            );
        }
    }
}

#[test]
fn a_cut_in_the_message_is_no_duplicate() {
    // The connection ends, or is reset, with the message under way.
    let long = [
        b"Subject: x\n\n".to_vec(),
        b"0123456789\n".repeat(2_000_000),
    ]
    .concat();
    for reset in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"220 x\r\n").unwrap();
            let mut piece = [0; 4096];
            for reply in ["250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"] {
                assert!(stream.read(&mut piece).unwrap() > 0);
                stream.write_all(reply.as_bytes()).unwrap();
            }
            // With bytes unread the kernel sends a reset.
            let mut left = if reset { 1 } else { 1_000_000 };
            while left > 0 {
                left -= stream.read(&mut piece).unwrap().min(left);
            }
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let place = Place::new("remote-cut-message");
        let parts = remote(&place, at, "-:\n").parts(&["x", "a@b", "c@x"], &long);
        server.join().unwrap();
        assert_eq!(parts[0], "r");
        let said = "ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n";
        assert!(parts[1].starts_with(said), "{parts:?}");
    }
}

#[test]
fn a_host_that_answers_no_connection_is_given_up() {
    let flags = SockFlag::SOCK_CLOEXEC;
    let deaf = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(deaf.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&deaf, Backlog::new(0).unwrap()).unwrap();
    let own: SockaddrIn = getsockname(deaf.as_raw_fd()).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], own.port()));
    // Its queue has room for one; whoever comes now is not answered at all.
    let mut held = Vec::new();
    let second = std::time::Duration::from_secs(1);
    while let Ok(stream) = TcpStream::connect_timeout(&at, second) {
        held.push(stream);
        assert!(held.len() < 100, "the queue has no end");
    }
    let place = Place::new("remote-deaf");
    let report = remote(&place, at, "-:\n").send("x");
    let said = format!(
        "ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\nReason: {at}: connection timed out\n"
    );
    assert_eq!(report, said);
}
