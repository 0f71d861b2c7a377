//! The upgrade: the process becomes the program, the greeting is hidden, and each
//! way in which the server can fail.
#![forbid(unsafe_code)]

use std::fs;

use super::played::{ANOTHERS, HELLO, Handshake, OURS, Scripted, Server};

#[test]
fn after_tls_the_process_is_the_program_and_nothing_stands_between() {
    let program = Scripted::smtp("becomes");
    let mut session = OURS.start(&[("UCSPITLS", "")], &["-v", "smtp", &program.path]);
    let id = session.process.id();
    session.expect("220 mx\r\n");
    session.send("EHLO clear\r\n");
    session.expect("250-mx\r\n250-STARTTLS\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
    session.start_tls("STARTTLS\r\n", "220 2.0.0 Ready to start TLS\r\n");
    // The greeting is not seen again, and nothing is edited any more.
    session.send("EHLO tls\r\n");
    session.expect("250-mx\r\n250-AUTH PLAIN\r\n250-CHUNKING\r\n250 PIPELINING\r\n");

    let link = |path: &str| fs::read_link(format!("/proc/{id}/{path}")).unwrap();
    let command_line = fs::read(format!("/proc/{id}/cmdline")).unwrap();
    assert!(
        String::from_utf8_lossy(&command_line).ends_with(&format!("{}\0", program.path)),
        "{command_line:?}"
    );
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // The shell keeps its script open at 10 or above.
        .filter(|name| name.parse::<u32>().unwrap() < 10)
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    for number in 0..2 {
        let file = link(&format!("fd/{number}"));
        assert!(file.to_str().unwrap().starts_with("socket:"), "{file:?}");
    }
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    assert_eq!(children, "", "no process of ours is left beside it");

    session.send("QUIT\r\n");
    session.expect("221 bye\r\n");
    let ended = session.finish();
    assert_eq!(ended.status.code(), Some(3), "the program's own code");
    assert_eq!(ended.command, b"R1:1,Y");
    assert_eq!(
        ended.log,
        format!("starttls-handoff: tls {id} from 192.0.2.7 version=TLSv9 cipher=TEST\n")
    );
    let starts = program.starts();
    assert_eq!(starts.len(), 2);
    assert!(starts[0].contains(" clear   /"), "{starts:?}");
    assert!(
        starts[1].starts_with(&format!("{id} TLSv9 TEST  /usr/sbin:")),
        "the server sets TLS variables and no others: {starts:?}"
    );
    assert_eq!(program.told(), ["EHLO clear", "EHLO tls", "QUIT"]);
}

#[test]
fn under_a_server_without_the_extension_the_greeting_is_dropped_here() {
    for (one_socket, one_for_all) in [(false, false), (true, false), (true, true)] {
        let program = Scripted::smtp(&format!("between-{one_socket}-{one_for_all}"));
        let server = Server {
            one_socket,
            one_for_all,
            ..ANOTHERS
        };
        let mut session = server.start(&[], &["-v", "smtp", &program.path]);
        session.expect("220 mx\r\n");
        session.start_tls("STARTTLS\r\n", "220 2.0.0 Ready to start TLS\r\n");
        session.send("EHLO tls\r\n");
        session.expect("250-mx\r\n250-AUTH PLAIN\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
        // Also here one socket.
        session.send("WHAT\r\n");
        let kinds = session.line();
        let (one, other) = kinds.split_once(' ').unwrap();
        assert!(one.starts_with("socket:") && one == other, "{kinds}");
        session.send("QUIT\r\n");
        session.expect("221 bye\r\n");
        let ended = session.wait();
        assert_eq!(ended.command, b"Y");
        assert_eq!(ended.status.code(), Some(3));
        assert!(ended.log.contains(" version=TLSv9 "), "{}", ended.log);
        assert_eq!(program.told(), ["EHLO tls", "WHAT", "QUIT"]);
    }
}

#[test]
fn each_protocol_upgrades_and_hides_its_greeting_but_sieve() {
    let cases: [(&str, &str, &str, &str, &str, &str, &str); 5] = [
        (
            "smtp",
            r"220-a\r\n220 b\r\n",
            "220-a\r\n220 b\r\n",
            "STARTTLS\r\n",
            "220 2.0.0 Ready to start TLS\r\n",
            "R1:1,Y",
            "",
        ),
        (
            "lmtp",
            r"220 b\r\n",
            "220 b\r\n",
            "starttls\r\n",
            "220 2.0.0 Ready to start TLS\r\n",
            "R1:1,Y",
            "",
        ),
        (
            "pop3",
            r"+OK b\r\n",
            "+OK b\r\n",
            "STLS\r\n",
            "+OK Begin TLS\r\n",
            "R1:1,Y",
            "",
        ),
        (
            "imap",
            r"* OK b\r\n",
            "* OK b\r\n",
            "x.1 StartTLS\r\n",
            "x.1 OK Begin TLS\r\n",
            "R1:1,Y",
            "",
        ),
        (
            "sieve",
            r#""SASL" "PLAIN"\r\nOK\r\n"#,
            "\"SASL\" \"\"\r\n\"STARTTLS\"\r\nOK\r\n",
            "STARTTLS\r\n",
            "OK \"Begin TLS\"\r\n",
            "Y",
            "\"SASL\" \"PLAIN\"\r\nOK\r\n",
        ),
    ];
    for (protocol, greeting, shown, upgrade, answer, command, again) in cases {
        for server in [OURS, ANOTHERS] {
            let program = Scripted::new(
                &format!("each-{protocol}-{}", server.extension),
                greeting,
                r#"STOP) exit 0;; *) printf 'echo %s\r\n' "$line";;"#,
            );
            let mut session = server.start(&[], &[protocol, &program.path]);
            session.expect(shown);
            session.start_tls(upgrade, answer);
            session.expect(again);
            // A second upgrade, and passwords, are the program's business now.
            for line in [upgrade.trim_end(), "USER x", "AUTH PLAIN", "a LOGIN b c"] {
                session.send(format!("{line}\r\n"));
                session.expect(format!("echo {line}\r\n"));
            }
            session.send("STOP\r\n");
            let ended = session.wait();
            assert_eq!(ended.status.code(), Some(0), "{protocol}: {}", ended.log);
            assert_eq!(ended.log, "", "quiet without -v");
            let expected = if server.extension { command } else { "Y" };
            assert_eq!(String::from_utf8_lossy(&ended.command), expected);
        }
    }
}

#[test]
fn without_tls_the_programs_words_and_code_are_the_ends() {
    let program = Scripted::smtp("without");
    let mut session = OURS.start(&[], &["-v", "smtp", &program.path]);
    let id = session.process.id();
    session.send("MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\nSTARTTLS\r\nx\r\n.\r\nQUIT\r\n");
    session.expect("220 mx\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n221 bye\r\n");
    let ended = session.finish();
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!(
        ended.log,
        format!("starttls-handoff: end {id} from 192.0.2.7 without TLS, status 3\n")
    );
    assert_eq!(ended.command, b"");
    assert_eq!(
        program.told(),
        ["MAIL FROM:<a>", "RCPT TO:<b>", "DATA", "QUIT"]
    );
}

#[test]
fn a_failed_handshake_ends_the_connection_and_starts_nothing() {
    let program = Scripted::smtp("failed");
    let server = Server {
        handshake: Handshake::Fails,
        ..OURS
    };
    let mut session = server.start(&[], &["smtp", &program.path]);
    let id = session.process.id();
    session.expect("220 mx\r\n");
    session.send("STARTTLS\r\n");
    session.expect("220 2.0.0 Ready to start TLS\r\n");
    session.send(HELLO);
    let ended = session.wait();
    assert_eq!(ended.status.code(), Some(111));
    assert_eq!(ended.rest(), "");
    assert_eq!(
        ended.log,
        format!(
            "starttls-handoff: warning: dropping connection, pid {id} from 192.0.2.7: \
             TLS handshake failed\n"
        )
    );
    assert_eq!(program.starts().len(), 1);
}

#[test]
fn without_a_living_server_tls_is_not_offered_and_is_refused() {
    let program = Scripted::smtp("gone");
    let server = Server {
        handshake: Handshake::Gone,
        ..OURS
    };
    let mut session = server.start(&[], &["smtp", &program.path]);
    session.expect("220 mx\r\n");
    session.send("EHLO c\r\n");
    session.expect("250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
    session.send("STARTTLS\r\nNOOP\r\n");
    let ended = session.finish();
    // Bytes behind the command are an injection, TLS or not.
    assert_eq!(ended.status.code(), Some(111), "{}", ended.log);
    let mut session = server.start(&[], &["smtp", &program.path]);
    session.expect("220 mx\r\n");
    session.send("STARTTLS\r\n");
    session.expect("454 4.7.0 TLS is not available now\r\n");
    session.send("QUIT\r\n");
    session.expect("221 bye\r\n");
    assert_eq!(session.finish().status.code(), Some(3));
}
