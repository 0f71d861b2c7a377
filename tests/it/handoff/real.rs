//! Programs of others that know nothing of TLS.
#![forbid(unsafe_code)]

use super::played::{ANOTHERS, GO, OURS};

use crate::harness::need;

#[test]
fn smtpfront_echo_serves_before_and_inside_tls() {
    let smtpfront = need!("smtpfront-echo");
    let smtpfront = smtpfront.to_str().unwrap();
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["smtp", smtpfront, "accept"]);
        assert!(session.reply()[0].starts_with("220 "));
        session.send("EHLO c\r\n");
        let shown = session.reply();
        assert_eq!(
            shown
                .iter()
                .filter(|line| line.contains("STARTTLS"))
                .count(),
            1
        );
        assert_eq!(shown[1], "250-STARTTLS");
        let mail = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n";
        let text = "Subject: x\r\n\r\nSTARTTLS\r\n.\r\n";
        for inside in [false, true] {
            if inside {
                session.start_tls("STARTTLS\r\n", GO);
                session.send("EHLO c\r\n");
                assert!(!session.reply().iter().any(|line| line.contains("STARTTLS")));
            }
            session.send(mail);
            for code in ["250", "250", "354"] {
                let reply = session.reply();
                assert!(reply[0].starts_with(code), "{reply:?}");
            }
            session.send(text);
            assert!(session.reply()[0].starts_with("250"));
        }
        session.send("QUIT\r\n");
        assert!(session.reply()[0].starts_with("221"));
        let ended = session.finish();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    }
}

#[test]
fn popa3d_serves_before_and_inside_tls() {
    let popa3d = need!("popa3d");
    let popa3d = popa3d.to_str().unwrap();
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["pop3", popa3d]);
        assert!(session.line().starts_with("+OK"));
        // It has no CAPA of its own.
        session.send("CAPA\r\n");
        session.expect("+OK Capabilities follow\r\nSTLS\r\n.\r\n");
        session.send("USER nobody\r\n");
        assert!(session.line().starts_with("-ERR [AUTH]"));
        session.start_tls("STLS\r\n", "+OK Begin TLS\r\n");
        session.send("STLS\r\n");
        assert!(session.line().starts_with("-ERR"));
        // Answered before, it is answered again (RFC 2595, section 4).
        session.send("CAPA\r\n");
        session.expect("+OK Capabilities follow\r\nUSER\r\n.\r\n");
        session.send("USER nobody\r\n");
        assert!(session.line().starts_with("+OK"));
        session.send("PASS wrong\r\n");
        assert!(session.line().starts_with("-ERR"));
        let ended = session.finish();
        assert!(!ended.log.contains("warning"), "{}", ended.log);
    }
}

#[test]
fn exim_serves_before_and_inside_tls() {
    let exim = need!("exim4");
    let exim = exim.to_str().unwrap();
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["smtp", exim, "-bs"]);
        assert!(session.reply()[0].starts_with("220"));
        session.send("EHLO c\r\n");
        assert_eq!(session.reply()[1], "250-STARTTLS");
        session.start_tls("STARTTLS\r\n", GO);
        session.send("EHLO d\r\n");
        assert!(session.reply()[0].starts_with("250-"));
        session.send("MAIL FROM:<>\r\n");
        assert!(session.reply()[0].starts_with("250"));
        session.send("RSET\r\nQUIT\r\n");
        assert!(session.reply()[0].starts_with("250"));
        assert!(session.reply()[0].starts_with("221"));
        let ended = session.finish();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    }
}

#[test]
fn mailutils_imap4d_serves_before_and_inside_tls() {
    let imap4d = need!("imap4d");
    let imap4d = imap4d.to_str().unwrap();
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["imap", imap4d, "--inetd"]);
        assert!(session.line().starts_with("* OK"));
        session.send("a CAPABILITY\r\n");
        let list = session.line();
        assert!(list.ends_with(" STARTTLS LOGINDISABLED"), "{list}");
        assert_eq!(list.matches("STARTTLS").count(), 1);
        assert!(session.line().starts_with("a OK"));
        session.send("b LOGIN {4+}\r\nuser {4+}\r\npass\r\n");
        session.expect("b NO [PRIVACYREQUIRED] STARTTLS comes before a password\r\n");
        session.start_tls("c STARTTLS\r\n", "c OK Begin TLS\r\n");
        session.send("d NOOP\r\n");
        assert!(session.line().starts_with("d OK"));
        session.send("e LOGIN nobody wrong\r\n");
        assert!(session.line().starts_with("e NO"));
        session.send("f LOGOUT\r\n");
        assert!(session.line().starts_with("* BYE"));
        assert!(session.line().starts_with("f OK"));
        session.finish();
    }
}
