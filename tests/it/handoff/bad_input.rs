//! Clients and programs that are too long, too quick, too slow or silent.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;

use super::played::{Ended, GO, OURS, Scripted, Session};

/// A program that answers every line and notes nothing.
const ECHO: &str = "printf '220 mx\\r\\n'; while read -r line; do printf '250 ok\\r\\n'; done";

#[test]
fn a_line_over_64_kib_is_refused_in_the_protocols_words() {
    for (protocol, greeting, answer) in [
        ("smtp", "220 mx\r\n", "500 5.5.2 Line too long\r\n"),
        ("lmtp", "220 mx\r\n", "500 5.5.2 Line too long\r\n"),
        ("pop3", "+OK\r\n", "-ERR Line too long\r\n"),
        ("imap", "* OK\r\n", "* BYE Line too long\r\n"),
        ("sieve", "OK\r\n", "BYE \"Line too long\"\r\n"),
    ] {
        let script = format!("printf '{}'; cat >/dev/null", greeting.escape_default());
        for (length, fits) in [
            (65535, true),
            (65536, true),
            (65537, false),
            (300_000, false),
        ] {
            let mut session = OURS.start(&[], &[protocol, "/bin/sh", "-c", &script]);
            let id = session.process.id();
            session.line();
            if protocol == "sieve" {
                session.line();
            }
            let mut line = b"a NOOP ".to_vec();
            line.resize(length - 2, b'x');
            line.extend_from_slice(b"\r\n");
            // The answer may come before the flood is over.
            let _ = session.client.write_all(&line);
            let ended = session.finish();
            if fits {
                assert_eq!(
                    ended.status.code(),
                    Some(0),
                    "{protocol} {length} {}",
                    ended.log
                );
                continue;
            }
            assert_eq!(ended.rest(), answer, "{protocol} {length}");
            assert_eq!(ended.status.code(), Some(111));
            assert_eq!(
                ended.log,
                format!(
                    "starttls-handoff: warning: dropping connection, pid {id} from 192.0.2.7: \
                     client sent a line over 65536 bytes\n"
                )
            );
        }
    }
}

#[test]
fn a_line_without_end_is_refused_before_memory_is() {
    let mut session = OURS.start(&[("UCSPITLS", "!")], &["smtp", "/bin/true"]);
    session.expect("220 mx.test ESMTP\r\n");
    let block = [b'x'; 8192];
    while session.client.write_all(&block).is_ok() {}
    let ended = session.finish();
    assert!(
        ended.log.contains("client sent a line over 65536 bytes"),
        "{}",
        ended.log
    );
    assert_eq!(ended.status.code(), Some(111));
}

#[test]
fn odd_bytes_end_nothing_that_need_not_end() {
    for (sent, shown) in [
        (
            "NOOP\0\r\n",
            "500 5.5.2 Control characters are not allowed in a command\r\n",
        ),
        (
            "\0\0\0\n",
            "500 5.5.2 Control characters are not allowed in a command\r\n",
        ),
        (
            "NOOP\rNOOP\r\n",
            "500 5.5.2 Control characters are not allowed in a command\r\n",
        ),
        ("NOOP\n", "250 ok\r\n"),
        ("\r\n", "250 ok\r\n"),
        ("\n", "250 ok\r\n"),
        ("MAIL FROM:<\u{e9}@x>\r\n", "250 ok\r\n"),
    ] {
        let mut session = OURS.start(&[], &["smtp", "/bin/sh", "-c", ECHO]);
        session.expect("220 mx\r\n");
        session.send(sent);
        session.expect(shown);
        session.send([0xff, 0xfe, b'\n']);
        session.expect("250 ok\r\n");
        let ended = session.finish();
        assert_eq!(
            (ended.status.code(), ended.rest()),
            (Some(0), String::new())
        );
    }
}

#[test]
fn a_thousand_commands_in_one_write_are_all_answered_in_order() {
    let script = "printf '220 mx\\r\\n'; n=0; while read -r line; do n=$((n+1)); printf '250 %s\\r\\n' $n; done";
    for (command, policy) in [("NOOP", ""), ("RSET", ""), ("NOOP", "!")] {
        let mut session = OURS.start(&[("UCSPITLS", policy)], &["smtp", "/bin/sh", "-c", script]);
        session.line();
        session.send(format!("{command}\r\n").repeat(1000));
        for number in 1..=1000 {
            let expected = if policy.is_empty() {
                format!("250 {number}")
            } else {
                "250 2.0.0 ok".to_owned()
            };
            assert_eq!(session.line(), expected);
        }
        session.finish();
    }
}

#[test]
fn a_session_byte_by_byte_is_the_same_session() {
    let program = Scripted::smtp("bytes");
    let mut session = OURS.start(&[], &["smtp", &program.path]);
    session.expect("220 mx\r\n");
    for byte in b"EHLO c\r\nMAIL FROM:<a>\r\nDATA\r\nSTARTTLS\r\n.\r\nSTARTTLS\r\n" {
        session.send([*byte]);
    }
    session.expect("250-mx\r\n250-STARTTLS\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
    session.expect("250 ok\r\n354 go\r\n250 queued\r\n");
    session.expect(GO);
    session.handshake();
    session.send("QUIT\r\n");
    session.expect("221 bye\r\n");
    assert_eq!(session.finish().status.code(), Some(3));
}

#[test]
fn a_client_that_says_nothing_is_told_and_dropped() {
    for (policy, greeting) in [("", "220 mx\r\n"), ("!", "220 mx.test ESMTP\r\n")] {
        let mut session = OURS.start(
            &[("UCSPITLS", policy)],
            &["-t", "1", "smtp", "/bin/sh", "-c", ECHO],
        );
        let id = session.process.id();
        session.expect(greeting);
        session.expect("421 4.4.2 mx.test idle for too long\r\n");
        let ended = session.finish();
        assert_eq!(ended.status.code(), Some(111));
        assert_eq!(
            ended.log,
            format!(
                "starttls-handoff: warning: dropping connection, pid {id} from 192.0.2.7: \
                 idle for 1 s\n"
            )
        );
    }
}

#[test]
fn a_program_that_answers_nothing_is_ended() {
    // It reads nothing, says nothing, and does not heed the end of its input.
    let script = "trap '' TERM; while :; do sleep 100; done";
    let mut session = OURS.start(&[], &["-t", "1", "smtp", "/bin/sh", "-c", script]);
    session.send("EHLO c\r\n");
    session.expect("421 4.4.2 mx.test idle for too long\r\n");
    let ended = session.finish();
    assert_eq!(ended.status.code(), Some(111));
    assert!(
        ended.log.contains("from 192.0.2.7: idle for 1 s"),
        "{}",
        ended.log
    );
    // The same at the upgrade: the old program must be gone before the new
    // one starts.
    let script = "printf '220 mx\\r\\n'; trap '' TERM; while :; do sleep 100; done";
    let mut session = OURS.start(
        &[],
        &[
            "smtp",
            "/bin/sh",
            "-c",
            &format!("[ ${{SSL_PROTOCOL-}} ] || {{ {script}; }}; echo x; echo $PPID"),
        ],
    );
    session.expect("220 mx\r\n");
    session.start_tls("STARTTLS\r\n", GO);
    let parent = session.line();
    assert_eq!(parent, std::process::id().to_string());
    session.finish();
}

#[test]
fn a_program_that_dies_at_once_ends_the_connection() {
    for (program, code) in [("/bin/true", 0), ("/bin/false", 1)] {
        let mut session = OURS.start(&[], &["smtp", program]);
        let id = session.process.id();
        let _ = session.client.write_all(b"EHLO c\r\n");
        let ended = session.wait();
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(ended.rest(), "");
        assert_eq!(
            ended.log,
            format!(
                "starttls-handoff: warning: pid {id} from 192.0.2.7: \
                 program ended before its greeting, status {code}\n"
            )
        );
    }
    let session = OURS.start(
        &[],
        &["-v", "smtp", "/bin/sh", "-c", "printf '220 m'; kill -9 $$"],
    );
    let ended = session.wait();
    assert_eq!(ended.rest(), "220 m", "what it said is delivered");
    assert_eq!(ended.status.code(), Some(137));
    assert!(
        ended.log.contains("without TLS, status 137"),
        "{}",
        ended.log
    );
}

#[test]
fn a_program_that_floods_is_held_back_and_ends_with_the_client() {
    // Lines without end.
    let mut session = OURS.start(&[], &["-v", "smtp", "/bin/sh", "-c", "exec yes 250-x"]);
    let mut block = vec![0; 1 << 20];
    session.client.read_exact(&mut block).unwrap();
    let memory = fs::read_to_string(format!("/proc/{}/status", session.process.id())).unwrap();
    let peak: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    assert!(peak < 32 * 1024, "{peak} kB");
    // The client goes away without a word.
    let (status, log) = session.leave();
    assert!(log.contains("from 192.0.2.7 without TLS"), "{log}");
    assert_eq!(status.signal(), None);
    // One line without end.
    let session = OURS.start(&[], &["smtp", "/bin/cat", "/dev/zero"]);
    let ended = session.wait();
    assert_eq!(ended.rest(), "421 4.3.0 mx.test has no service now\r\n");
    assert!(
        ended.log.contains("program sent a line over 65536 bytes"),
        "{}",
        ended.log
    );
    assert_eq!(ended.status.code(), Some(111));
}

#[test]
fn a_slow_client_gets_everything_and_a_deaf_program_stops_it() {
    // Far more than all buffers hold, read only at the end.
    let script = "printf '220 mx\\r\\n'; head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 70";
    let session = OURS.start(&[], &["smtp", "/bin/sh", "-c", script]);
    let ended = session.wait_for_bytes(3_000_000);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    // The program reads nothing: the client's writes must stop.
    let mut session = OURS.start(
        &[],
        &[
            "smtp",
            "/bin/sh",
            "-c",
            "printf '220 mx\\r\\n354 x\\r\\n'; exec sleep 600",
        ],
    );
    session.expect("220 mx\r\n354 x\r\n");
    session.client.set_nonblocking(true).unwrap();
    let block = b"MAIL FROM:<x>\r\n".repeat(1000);
    let mut sent = 0_usize;
    while let Ok(count) = session.client.write(&block) {
        sent += count;
        assert!(sent < 16 << 20, "nothing holds the client back");
    }
    session.client.set_nonblocking(false).unwrap();
    // It goes away; the program, deaf as it is, goes too.
    session.process.kill().unwrap();
    let _ = session.process.wait();
}

impl Session {
    /// Reads to the end and checks how much there was.
    fn wait_for_bytes(self, least: usize) -> Ended {
        let ended = self.wait();
        assert!(
            ended.rest.len() >= least,
            "{} of {least} bytes",
            ended.rest.len()
        );
        ended
    }
}
