//! The public list of attacks on servers that take STARTTLS: no byte that came in
//! the clear is answered or known inside TLS.
#![forbid(unsafe_code)]

use super::played::{ANOTHERS, GO, OURS, Scripted};

/// One attack: what the client sends after the greeting, in segments; each
/// segment is sent when the bytes before it were answered with `answer`.
struct Attack {
    name: &'static str,
    protocol: &'static str,
    greeting: &'static str,
    shown: &'static str,
    segments: &'static [(&'static str, &'static str)],
}

const SMTP_GREETING: (&str, &str) = (r"220 mx\r\n", "220 mx\r\n");
const POP3_GREETING: (&str, &str) = (r"+OK\r\n", "+OK\r\n");
const IMAP_GREETING: (&str, &str) = (r"* OK\r\n", "* OK\r\n");
const SIEVE_GREETING: (&str, &str) = (r"OK\r\n", "\"STARTTLS\"\r\nOK\r\n");

const fn attack(
    name: &'static str,
    protocol: &'static str,
    (greeting, shown): (&'static str, &'static str),
    segments: &'static [(&'static str, &'static str)],
) -> Attack {
    Attack {
        name,
        protocol,
        greeting,
        shown,
        segments,
    }
}

/// Each must end with the connection closed, a line in the log that names the
/// client, no handshake passed on, and no injected word told to the program.
const INJECTIONS: &[Attack] = &[
    attack(
        "CVE-2011-0411: commands behind STARTTLS in one segment",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\nRSET injected\r\n", "")],
    ),
    attack(
        "CVE-2011-1431, CVE-2020-15955: a whole mail behind STARTTLS",
        "smtp",
        SMTP_GREETING,
        &[(
            "STARTTLS\r\nEHLO injected\r\nMAIL FROM:<injected>\r\nRCPT TO:<injected>\r\nDATA\r\n",
            "",
        )],
    ),
    attack(
        "CVE-2021-33515: half a command that the victim's first line completes",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\nRCPT TO:<injected>", "")],
    ),
    attack(
        "CVE-2021-38371: pipelined behind an EHLO",
        "smtp",
        SMTP_GREETING,
        &[("EHLO c\r\nSTARTTLS\r\nNOOP injected\r\n", "")],
    ),
    attack(
        "one byte behind STARTTLS",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\ni", "")],
    ),
    attack(
        "an empty line behind STARTTLS",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\n\r\n", "")],
    ),
    attack(
        "bare LF between STARTTLS and the rest",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\nRSET injected\n", "")],
    ),
    attack(
        "a second segment behind the go-ahead",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\n", GO), ("RSET injected\r\n", "")],
    ),
    attack(
        "half a line behind the go-ahead",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\n", GO), ("R", "")],
    ),
    attack(
        "two STARTTLS at once",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\nSTARTTLS\r\n", "")],
    ),
    attack(
        "STARTTLS twice, the second after the first's answer, in the clear",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\n", GO), ("STARTTLS\r\n", "")],
    ),
    attack(
        "a handshake that does not wait to be told",
        "smtp",
        SMTP_GREETING,
        &[("STARTTLS\r\n\x16\x03\x01", "")],
    ),
    attack(
        "the same over LMTP",
        "lmtp",
        SMTP_GREETING,
        &[("STARTTLS\r\nLHLO injected\r\n", "")],
    ),
    attack(
        "POP3: a login behind STLS",
        "pop3",
        POP3_GREETING,
        &[("STLS\r\nUSER injected\r\nPASS injected\r\n", "")],
    ),
    attack(
        "POP3: half a command behind STLS",
        "pop3",
        POP3_GREETING,
        &[("STLS\r\nUSER injected", "")],
    ),
    attack(
        "POP3: behind the go-ahead",
        "pop3",
        POP3_GREETING,
        &[("STLS\r\n", "+OK Begin TLS\r\n"), ("CAPA\r\n", "")],
    ),
    attack(
        "CVE-2011-1926: IMAP, a login and an APPEND behind STARTTLS",
        "imap",
        IMAP_GREETING,
        &[(
            "a STARTTLS\r\nb LOGIN injected injected\r\nc APPEND INBOX {1000+}\r\n",
            "",
        )],
    ),
    attack(
        "IMAP: an open literal behind STARTTLS swallows the victim's login",
        "imap",
        IMAP_GREETING,
        &[("a STARTTLS\r\nb APPEND INBOX {1000}\r\n", "")],
    ),
    attack(
        "IMAP: behind the go-ahead",
        "imap",
        IMAP_GREETING,
        &[("a STARTTLS\r\n", "a OK Begin TLS\r\n"), ("b NOOP\r\n", "")],
    ),
    attack(
        "ManageSieve: behind STARTTLS",
        "sieve",
        SIEVE_GREETING,
        &[("STARTTLS\r\nNOOP \"injected\"\r\n", "")],
    ),
    attack(
        "ManageSieve: behind the go-ahead",
        "sieve",
        SIEVE_GREETING,
        &[("STARTTLS\r\n", "OK \"Begin TLS\"\r\n"), ("NOOP\r\n", "")],
    ),
];

const ANSWERS: &str = r"EHLO*|LHLO*) printf '250 mx\r\n';; *) printf '250 ok\r\n';;";

#[test]
fn no_injected_byte_survives() {
    for (number, attack) in INJECTIONS.iter().enumerate() {
        for policy in ["", "!"] {
            for server in [OURS, ANOTHERS] {
                let program = Scripted::new(
                    &format!("attack-{number}-{}-{}", policy.len(), server.extension),
                    attack.greeting,
                    ANSWERS,
                );
                let mut session =
                    server.start(&[("UCSPITLS", policy)], &[attack.protocol, &program.path]);
                let id = session.process.id();
                if policy.is_empty() {
                    session.expect(attack.shown);
                } else {
                    let last = if attack.protocol == "sieve" { "OK" } else { "" };
                    while !session.line().starts_with(last) {}
                }
                for (segment, answer) in attack.segments {
                    session.send(segment);
                    session.expect(answer);
                }
                let ended = session.wait();
                let place = format!("{} under {policy:?}: {}", attack.name, ended.log);
                assert_eq!(ended.status.code(), Some(111), "{place}");
                let who = format!(
                    "starttls-handoff: warning: dropping connection, pid {id} from 192.0.2.7: "
                );
                assert!(ended.log.starts_with(&who), "{place}");
                assert!(ended.log.ends_with(": injection\n"), "{place}");
                assert_eq!(ended.command, b"", "{place}");
                let told = program.told();
                assert!(
                    !told.iter().any(|line| line.contains("injected")),
                    "{place} {told:?}"
                );
                assert_eq!(
                    program.starts().len(),
                    usize::from(policy.is_empty()),
                    "{place}"
                );
            }
        }
    }
}

/// Session fixation (NO STARTTLS, section 5): what was said in the clear, and
/// who logged in, must not matter inside TLS.
#[test]
fn nothing_learnt_in_the_clear_is_known_inside_tls() {
    let remembers = r#"EHLO*) name=$line; printf '250 %s\r\n' "$name";;
        WHO) printf '250 %s\r\n' "${name-nobody}";; *) printf '250 ok\r\n';;"#;
    let program = Scripted::new("fixation", r"220 mx\r\n", remembers);
    let mut session = OURS.start(&[], &["smtp", &program.path]);
    session.send("EHLO attacker\r\nWHO\r\nMAIL FROM:<attacker>\r\n");
    session
        .expect("220 mx\r\n250-EHLO attacker\r\n250 STARTTLS\r\n250 EHLO attacker\r\n250 ok\r\n");
    session.start_tls("STARTTLS\r\n", GO);
    session.send("WHO\r\n");
    session.expect("250 nobody\r\n");
    session.finish();
    let starts = program.starts();
    let ids: Vec<&str> = starts
        .iter()
        .filter_map(|start| start.split(' ').next())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1], "another process");

    // A login in the clear, where it is allowed, ends the chance to upgrade;
    // a login that is half done is forgotten.
    let pop3 = r#"USER*) user=$line; printf '+OK\r\n';;
        PASS*) printf '+OK %s\r\n' "${user-nobody}";; *) printf '+OK\r\n';;"#;
    let program = Scripted::new("fixation-pop3", r"+OK\r\n", pop3);
    let mut session = OURS.start(&[], &["-a", "pop3", &program.path]);
    session.send("USER attacker\r\n");
    session.expect("+OK\r\n+OK\r\n");
    session.start_tls("STLS\r\n", "+OK Begin TLS\r\n");
    session.send("PASS x\r\n");
    session.expect("+OK nobody\r\n");
    session.finish();
    let imap = r"a*) printf 'a OK in\r\n';; b*) printf 'b BAD no\r\n';;";
    let program = Scripted::new("fixation-imap", r"* OK\r\n", imap);
    let mut session = OURS.start(&[], &["-a", "imap", &program.path]);
    session.send("a LOGIN attacker x\r\n");
    session.expect("* OK\r\na OK in\r\n");
    session.send("b STARTTLS\r\n");
    session.expect("b BAD no\r\n");
    let ended = session.finish();
    assert_eq!(ended.command, b"");
    // PREAUTH: an upgrade is no more possible.
    let program = Scripted::new("preauth", r"* PREAUTH hi\r\n", imap);
    let mut session = OURS.start(&[], &["imap", &program.path]);
    session.send("b STARTTLS\r\n");
    session.expect("* PREAUTH hi\r\nb BAD Already logged in\r\n");
    session.finish();
}

#[test]
fn a_second_upgrade_is_the_programs_to_refuse() {
    let program = Scripted::smtp("second");
    let mut session = OURS.start(&[], &["smtp", &program.path]);
    session.expect("220 mx\r\n");
    session.start_tls("STARTTLS\r\n", GO);
    session.send("STARTTLS\r\n");
    session.expect("502 no\r\n");
    session.send("QUIT\r\n");
    session.expect("221 bye\r\n");
    assert_eq!(session.finish().status.code(), Some(3));
}
