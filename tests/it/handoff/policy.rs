//! Whether TLS is required, offered or off, and what may pass in the clear.
#![forbid(unsafe_code)]

use super::played::{OURS, Scripted};

#[test]
fn where_tls_is_required_the_program_starts_only_inside_it() {
    let program = Scripted::smtp("required");
    let mut session = OURS.start(&[("UCSPITLS", "!")], &["-v", "smtp", &program.path]);
    session.expect("220 mx.test ESMTP\r\n");
    for (command, answer) in [
        ("HELO c", "530 5.7.0 Must issue a STARTTLS command first"),
        (
            "EHLO c",
            "250-mx.test\r\n250-STARTTLS\r\n250 ENHANCEDSTATUSCODES",
        ),
        (
            "MAIL FROM:<a>",
            "530 5.7.0 Must issue a STARTTLS command first",
        ),
        ("RSET", "530 5.7.0 Must issue a STARTTLS command first"),
        (
            "AUTH PLAIN AGEAYg==",
            "530 5.7.0 Must issue a STARTTLS command first",
        ),
        ("NOOP", "250 2.0.0 ok"),
        ("STARTTLS x", "501 5.5.4 STARTTLS takes no argument"),
    ] {
        session.send(format!("{command}\r\n"));
        session.expect(format!("{answer}\r\n"));
    }
    assert!(program.starts().is_empty());
    session.start_tls("STARTTLS\r\n", "220 2.0.0 Ready to start TLS\r\n");
    session.send("EHLO tls\r\n");
    session.expect("250-mx\r\n250-AUTH PLAIN\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
    session.send("QUIT\r\n");
    session.expect("221 bye\r\n");
    let ended = session.finish();
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!(program.starts().len(), 1);
    assert_eq!(program.told(), ["EHLO tls", "QUIT"]);

    let mut session = OURS.start(
        &[("UCSPITLS", "!")],
        &["-v", "-l", "other.test", "smtp", &program.path],
    );
    let id = session.process.id();
    session.expect("220 other.test ESMTP\r\n");
    session.send("QUIT\r\n");
    session.expect("221 2.0.0 other.test\r\n");
    let ended = session.wait();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(
        ended.log,
        format!("starttls-handoff: end {id} from 192.0.2.7 without TLS, status 0\n")
    );
    // A script's unset variable names nobody.
    let mut session = OURS.start(
        &[("UCSPITLS", "!"), ("SSLLOCALHOST", "named.test")],
        &["-l", "", "smtp", &program.path],
    );
    session.expect("220 named.test ESMTP\r\n");
    session.send("QUIT\r\n");
    session.expect("221 2.0.0 named.test\r\n");
    session.wait();
    assert_eq!(program.starts().len(), 1);
}

/// `require` for `!`, or `?` of s/qmail, which requires TLS there: whoever set it
/// must not find mail in the clear.
#[test]
fn a_policy_that_is_none_lets_nothing_pass() {
    for value in ["require", "yes", "1", "?", "@", "!!", "-x"] {
        let program = Scripted::smtp("no-policy");
        let session = OURS.start(&[("UCSPITLS", value)], &["smtp", &program.path]);
        let ended = session.wait();
        assert_eq!(ended.status.code(), Some(100), "{value}");
        assert_eq!(
            ended.log,
            format!(
                "starttls-handoff: fatal: unable to use UCSPITLS: \"{value}\": \"!\" requires TLS, \
                 \"-\" switches it off, and empty or unset offers it\n"
            )
        );
        assert!(program.starts().is_empty(), "{value}");
    }
}

#[test]
fn where_tls_is_off_the_program_runs_at_once_on_the_bare_socket() {
    let program = Scripted::smtp("off");
    let mut session = OURS.start(&[("UCSPITLS", "-")], &["-v", "smtp", &program.path]);
    let id = session.process.id();
    session.expect("220 mx\r\n");
    session.send("EHLO c\r\n");
    session.expect("250-mx\r\n250-AUTH PLAIN\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
    session.send("STARTTLS\r\n");
    session.expect("502 no\r\n");
    session.send("QUIT\r\n");
    session.expect("221 bye\r\n");
    let ended = session.finish();
    assert_eq!((ended.status.code(), ended.log.as_str()), (Some(3), ""));
    assert_eq!(ended.command, b"", "the server sees the end of its socket");
    let starts = program.starts();
    assert!(starts[0].starts_with(&format!("{id} clear")), "{starts:?}");
}

#[test]
fn passwords_pass_in_the_clear_only_with_leave() {
    let pop3 = r"PASS*) printf '+OK in\r\n';; *) printf '+OK\r\n';;";
    let program = Scripted::new("leave", r"+OK\r\n", pop3);
    let mut session = OURS.start(&[], &["pop3", &program.path]);
    session.send("USER a\r\nPASS secret\r\n");
    session.expect(
        "+OK\r\n-ERR [AUTH] Must issue a STLS command first\r\n\
         -ERR [AUTH] Must issue a STLS command first\r\n",
    );
    session.finish();
    assert!(program.told().is_empty());
    let mut session = OURS.start(&[], &["-a", "pop3", &program.path]);
    session.send("USER a\r\nPASS secret\r\nSTLS\r\n");
    session.expect("+OK\r\n+OK\r\n+OK in\r\n+OK\r\n");
    let ended = session.finish();
    assert_eq!(program.told(), ["USER a", "PASS secret", "STLS"]);
    assert_eq!(ended.command, b"");
}
