//! Whole dialogues, told as transcripts: each is played at once, byte by byte
//! and in odd pieces, and must come out the same.
#![forbid(unsafe_code)]

use super::*;

/// One step of a transcript.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client sends this.
    Client(&'static str),
    /// The program sends this.
    Program(&'static str),
    /// The client must have got exactly this since the last look.
    Shown(&'static str),
    /// The program must have got exactly this since the last look.
    Given(&'static str),
    /// This must have come up.
    Event(Event),
    /// Nothing may have come up.
    Quiet,
    /// The caller tells the client to go ahead.
    GoAhead,
    /// The caller has no TLS to give.
    Decline,
}
use Step::{Client, Decline, Event as Came, Given, GoAhead, Program, Quiet, Shown};

fn settings(protocol: Protocol, allow_clear: bool) -> Settings {
    Settings {
        protocol,
        allow_clear,
        host: "mx.test".to_owned(),
    }
}

fn play(mut dialogue: Dialogue, steps: &[Step], piece: usize) {
    for (number, step) in steps.iter().enumerate() {
        let place = format!("step {number} {step:?}, pieces of {piece}");
        match step {
            Client(text) => {
                for part in text.as_bytes().chunks(piece) {
                    dialogue.feed_client(part);
                }
            }
            Program(text) => {
                for part in text.as_bytes().chunks(piece) {
                    dialogue.feed_program(part);
                }
            }
            Shown(text) => {
                let shown = String::from_utf8_lossy(dialogue.for_client()).into_owned();
                assert_eq!(shown, *text, "{place}");
                dialogue.client_took(shown.len());
            }
            Given(text) => {
                let given = String::from_utf8_lossy(dialogue.for_program()).into_owned();
                assert_eq!(given, *text, "{place}");
                dialogue.program_took(given.len());
            }
            Came(event) => assert_eq!(dialogue.event(), Some(*event), "{place}"),
            Quiet => assert_eq!(dialogue.event(), None, "{place}"),
            GoAhead => dialogue.go_ahead(),
            Decline => dialogue.decline(),
        }
    }
}

/// Plays a transcript in pieces of every size that matters.
fn all(make: impl Fn() -> Dialogue, steps: &[Step]) {
    for piece in [usize::MAX, 1, 2, 3, 7] {
        play(make(), steps, piece);
    }
}

fn served(protocol: Protocol, steps: &[Step]) {
    all(|| Dialogue::new(settings(protocol, false)), steps);
}

fn trusting(protocol: Protocol, steps: &[Step]) {
    all(|| Dialogue::new(settings(protocol, true)), steps);
}

fn alone(protocol: Protocol, steps: &[Step]) {
    all(|| Dialogue::alone(settings(protocol, false)), steps);
}

const HELLO: [Step; 6] = [
    Program("220 mx ESMTP\r\n"),
    Shown("220 mx ESMTP\r\n"),
    Client("EHLO c\r\n"),
    Given("EHLO c\r\n"),
    Program(
        "250-mx\r\n250-PIPELINING\r\n250-AUTH PLAIN LOGIN\r\n250-CHUNKING\r\n250 AUTH=LOGIN\r\n",
    ),
    Shown("250-mx\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 CHUNKING\r\n"),
];

fn after_hello(steps: &[Step]) -> Vec<Step> {
    HELLO.iter().chain(steps).copied().collect()
}

#[test]
fn smtp_offers_tls_once_and_hides_passwords() {
    served(Protocol::Smtp, &HELLO);
    for (reply, shown) in [
        ("250 mx\r\n", "250-mx\r\n250 STARTTLS\r\n"),
        ("250\r\n", "250-\r\n250 STARTTLS\r\n"),
        (
            "250-STARTTLS\r\n250-starttls\r\n250-XSTARTTLS\r\n250 AUTHX\r\n",
            "250-STARTTLS\r\n250-STARTTLS\r\n250-XSTARTTLS\r\n250 AUTHX\r\n",
        ),
        ("250-mx\n250 auth=PLAIN\n", "250-mx\n250 STARTTLS\r\n"),
        ("502 no\r\n", "502 no\r\n"),
        (
            "550-STARTTLS\r\n550 AUTH\r\n",
            "550-STARTTLS\r\n550 AUTH\r\n",
        ),
    ] {
        served(
            Protocol::Smtp,
            &[
                Program("220-AUTH\r\n220 STARTTLS\r\n"),
                Shown("220-AUTH\r\n220 STARTTLS\r\n"),
                Client("ehlo c\r\n"),
                Given("ehlo c\r\n"),
                Program(reply),
                Shown(shown),
                // Only that reply is edited.
                Client("HELP\r\n"),
                Given("HELP\r\n"),
                Program("250-AUTH\r\n250 STARTTLS\r\n"),
                Shown("250-AUTH\r\n250 STARTTLS\r\n"),
                Client("HELO c\r\n"),
                Given("HELO c\r\n"),
                Program("250-AUTH\r\n250 STARTTLS\r\n"),
                Shown("250-AUTH\r\n250 STARTTLS\r\n"),
            ],
        );
    }
    trusting(
        Protocol::Smtp,
        &[
            Program("220 mx\r\n"),
            Client("EHLO c\r\n"),
            Program("250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"),
            Shown("220 mx\r\n250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"),
        ],
    );
}

#[test]
fn smtp_lets_no_password_through() {
    for command in [
        "AUTH PLAIN AGEAYg==\r\n",
        "auth LOGIN\r\n",
        "AUTH\tPLAIN AGEAYg==\r\n",
        "  AUTH PLAIN AGEAYg==\r\n",
        "AUTH=PLAIN AGEAYg==\n",
    ] {
        served(
            Protocol::Smtp,
            &after_hello(&[
                Client(command),
                Shown("538 5.7.11 Encryption required for requested authentication mechanism\r\n"),
                Given(""),
            ]),
        );
    }
    // A line that some program would cut in two.
    for command in ["NOOP\rAUTH PLAIN AGEAYg==\r\n", "NOOP\0\r\n", "QUIT\r\r\n"] {
        served(
            Protocol::Smtp,
            &after_hello(&[
                Client(command),
                Shown("500 5.5.2 Control characters are not allowed in a command\r\n"),
                Given(""),
            ]),
        );
    }
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("NOOP\nAUTH PLAIN AGEAYg==\nNOOP\n"),
            Given("NOOP\n"),
            Program("250 ok\r\n"),
            Shown(
                "250 ok\r\n538 5.7.11 Encryption required for requested authentication mechanism\r\n",
            ),
            Given("NOOP\n"),
        ]),
    );
}

#[test]
fn smtp_with_leave_passes_the_whole_exchange() {
    trusting(
        Protocol::Smtp,
        &[
            Program("220 mx\r\n"),
            Shown("220 mx\r\n"),
            Client("AUTH LOGIN\r\nSTARTTLS\r\nAUTH\r\nNOOP\r\n"),
            Given("AUTH LOGIN\r\n"),
            Program("334 VXNlcm5hbWU6\r\n"),
            // Not a command: the answer to the challenge.
            Given("STARTTLS\r\n"),
            Program("334 UGFzc3dvcmQ6\r\n"),
            Given("AUTH\r\n"),
            Program("235 ok\r\n"),
            Given("NOOP\r\n"),
            Shown("334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 ok\r\n"),
        ],
    );
}

#[test]
fn smtp_content_is_never_a_command() {
    let content = "From: a\r\n\r\nSTARTTLS\r\nAUTH PLAIN x\r\n..\r\n.x\r\n\n.\n\r.\r\0\r\n";
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n"),
            Given("MAIL FROM:<a>\r\nRCPT TO:<b>\r\n"),
            Program("250 a\r\n250 b\r\n"),
            Given("DATA\r\n"),
            Client(content),
            Client(".\r\nSTARTTLS\r\n"),
            Program("354 go\r\n"),
            Given("From: a\r\n\r\nSTARTTLS\r\nAUTH PLAIN x\r\n..\r\n.x\r\n\n.\n\r.\r\0\r\n.\r\n"),
            Shown("250 a\r\n250 b\r\n354 go\r\n"),
            Quiet,
            Program("250 queued\r\n"),
            Shown("250 queued\r\n"),
            Came(Event::Upgrade),
        ]),
    );
    // The same bytes behind a refusal are commands.
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("DATA\r\nAUTH PLAIN x\r\n.\r\n"),
            Given("DATA\r\n"),
            Program("503 no\r\n"),
            Shown(
                "503 no\r\n538 5.7.11 Encryption required for requested authentication mechanism\r\n",
            ),
            Given(".\r\n"),
        ]),
    );
    // A program that refuses the message early owes nothing at its end.
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("DATA\r\n"),
            Program("354 go\r\n"),
            Client("x\r\n"),
            Program("552 too much\r\n"),
            Client("STARTTLS\r\n.\r\nNOOP\r\n"),
            Given("DATA\r\nx\r\nSTARTTLS\r\n.\r\nNOOP\r\n"),
        ]),
    );
}

#[test]
fn smtp_content_ends_where_any_program_could_end_it() {
    let started = |steps: &[Step]| {
        let mut all = after_hello(&[
            Client("DATA\r\n"),
            Given("DATA\r\n"),
            Program("354 go\r\n"),
            Shown("354 go\r\n"),
        ]);
        all.extend_from_slice(steps);
        all
    };
    // A program that ends the message there reads a command.
    served(
        Protocol::Smtp,
        &started(&[
            Client("a\n.\nAUTH PLAIN AGEAYg==\r\n"),
            Came(Event::HiddenPassword),
        ]),
    );
    trusting(
        Protocol::Smtp,
        &[
            Program("220 mx\r\n354 go\r\n"),
            Client("DATA\r\n"),
            Program("354 go\r\n"),
            Client("a\n.\nAUTH PLAIN AGEAYg==\r\n"),
            Quiet,
        ],
    );
    // It says so, and the dialogue goes on as a dialogue.
    served(
        Protocol::Smtp,
        &started(&[
            Client("a\n.\n"),
            Given("a\n.\n"),
            Program("250 queued\r\n"),
            Shown("250 queued\r\n"),
            Client("AUTH PLAIN x\n"),
            Shown("538 5.7.11 Encryption required for requested authentication mechanism\r\n"),
            Client("EHLO c\n"),
            Given("EHLO c\n"),
            Program("250-mx\r\n250 AUTH\r\n"),
            Shown("250-mx\r\n250 STARTTLS\r\n"),
            Client("STARTTLS\n"),
            Came(Event::Upgrade),
        ]),
    );
    // For one that reads on, all of it is content.
    served(
        Protocol::Smtp,
        &started(&[
            Client("a\n.\nSTARTTLS\nMAIL FROM:<x>\r.\r\n\r\n.\r\nNOOP\r\n"),
            Given("a\n.\nSTARTTLS\nMAIL FROM:<x>\r.\r\n\r\n.\r\n"),
            Program("250 queued\r\n"),
            Given("NOOP\r\n"),
        ]),
    );
    // One that refused the message may read on or not.
    served(
        Protocol::Smtp,
        &started(&[
            Client("a\r\n"),
            Program("552 too much\r\n"),
            Client("AUTH PLAIN x\r\n"),
            Came(Event::HiddenPassword),
        ]),
    );
}

#[test]
fn smtp_chunks_are_never_commands() {
    let transaction = |steps: &[Step]| {
        let mut all = after_hello(&[
            Client("MAIL FROM:<a>\r\nRCPT TO:<b>\r\n"),
            Program("250 a\r\n250 b\r\n"),
            Given("MAIL FROM:<a>\r\nRCPT TO:<b>\r\n"),
            Shown("250 a\r\n250 b\r\n"),
        ]);
        all.extend_from_slice(steps);
        all
    };
    served(
        Protocol::Smtp,
        &transaction(&[
            Client("BDAT 10\r\nSTARTTLS\r\nBDAT 6 last\r\nAUTH\r\nNOOP\r\n"),
            Given("BDAT 10\r\nSTARTTLS\r\n"),
            Program("250 1\r\n"),
            Given("BDAT 6 last\r\nAUTH\r\n"),
            Program("250 2\r\n"),
            Given("NOOP\r\n"),
            Program("250 ok\r\n"),
            Shown("250 1\r\n250 2\r\n250 ok\r\n"),
        ]),
    );
    // A program may take a chunk that it doesn't expect for commands.
    served(
        Protocol::Smtp,
        &transaction(&[
            Client("BDAT 3\r\nabcBDAT 14\r\nAUTH PLAIN x\r\nBDAT 0 LAST\r\nNOOP\r\n"),
            Given("BDAT 3\r\nabc"),
            Program("552 too much\r\n"),
            Shown(
                "552 too much\r\n503 5.5.1 BDAT needs a recipient first\r\n\
                 503 5.5.1 BDAT needs a recipient first\r\n",
            ),
            Given("NOOP\r\n"),
        ]),
    );
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("RCPT TO:<b>\r\nBDAT 14\r\nAUTH PLAIN x\r\n"),
            Program("503 no\r\n"),
            Given("RCPT TO:<b>\r\n"),
            Shown("503 no\r\n503 5.5.1 BDAT needs a recipient first\r\n"),
        ]),
    );
    for size in ["5x", "", "2147483648", "5 FIRST", "5 LAST x", "-5", "05"] {
        let line: &'static str = format!("BDAT {size}\r\n").leak();
        served(
            Protocol::Smtp,
            &after_hello(&[
                Client(line),
                Given(""),
                Shown("501 5.5.4 BDAT takes a size, and LAST for the last chunk\r\n"),
            ]),
        );
    }
    // An answer of our own does not overtake the program's.
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("RSET\r\nBDAT x\r\n"),
            Given("RSET\r\n"),
            Shown(""),
            Program("250 ok\r\n"),
            Shown("250 ok\r\n501 5.5.4 BDAT takes a size, and LAST for the last chunk\r\n"),
        ]),
    );
    // A program without CHUNKING would take the chunk for commands.
    served(
        Protocol::Smtp,
        &[
            Program("220 mx\r\n"),
            Shown("220 mx\r\n"),
            Client("BDAT 14\r\nAUTH PLAIN x\r\nNOOP\r\n"),
            Given("NOOP\r\n"),
            Shown("503 5.5.1 BDAT is not offered\r\n"),
        ],
    );
}

#[test]
fn smtp_commands_that_decide_are_sent_on_alone() {
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("RSET\r\nMAIL FROM:<a>\r\nEHLO d\r\nNOOP\r\n"),
            Given("RSET\r\nMAIL FROM:<a>\r\n"),
            Program("250-AUTH\r\n250 ok\r\n250 ok\r\n"),
            Shown("250-AUTH\r\n250 ok\r\n250 ok\r\n"),
            Given("EHLO d\r\n"),
            Program("250-mx\r\n250 AUTH\r\n"),
            Shown("250-mx\r\n250 STARTTLS\r\n"),
            Given("NOOP\r\n"),
        ]),
    );
    // What comes unasked is shown as it is.
    served(
        Protocol::Smtp,
        &after_hello(&[
            Program("421-AUTH\r\n421 STARTTLS\r\n"),
            Shown("421-AUTH\r\n421 STARTTLS\r\n"),
            Client("TURN\r\n"),
            Given(""),
            Shown("502 5.5.1 Not before STARTTLS\r\n"),
        ]),
    );
}

#[test]
fn lmtp_owes_a_reply_for_each_recipient() {
    served(
        Protocol::Lmtp,
        &[
            Program("220 mx LMTP\r\n"),
            Client("LHLO c\r\n"),
            Program("250-mx\r\n250 CHUNKING\r\n"),
            Shown("220 mx LMTP\r\n250-mx\r\n250-STARTTLS\r\n250 CHUNKING\r\n"),
            Client("MAIL FROM:<a>\r\nRCPT TO:<b>\r\nRCPT TO:<x>\r\nRCPT TO:<c>\r\nDATA\r\n"),
            Program("250 a\r\n250 b\r\n550 x\r\n250 c\r\n"),
            Program("354 go\r\n"),
            Client("m\r\n.\r\nSTARTTLS\r\n"),
            Program("250 b\r\n"),
            Quiet,
            Program("452 c\r\n"),
            Came(Event::Upgrade),
            Shown("250 a\r\n250 b\r\n550 x\r\n250 c\r\n354 go\r\n250 b\r\n452 c\r\n"),
        ],
    );
    served(
        Protocol::Lmtp,
        &[
            Program("220 mx LMTP\r\n"),
            Client("LHLO c\r\n"),
            Program("250-mx\r\n250 CHUNKING\r\n"),
            Client("MAIL FROM:<a>\r\nRCPT TO:<b>\r\nRCPT TO:<c>\r\nBDAT 3 LAST\r\nxyzSTARTTLS\r\n"),
            Program("250 a\r\n250 b\r\n250 c\r\n"),
            Program("250 b\r\n"),
            Quiet,
            Program("250 c\r\n"),
            Came(Event::Upgrade),
        ],
    );
}

#[test]
fn the_upgrade_waits_for_earlier_answers_and_takes_no_argument() {
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("MAIL FROM:<a>\r\nRSET\r\nSTARTTLS \r\n"),
            Quiet,
            Program("250 a\r\n250 r\r\n"),
            Came(Event::Upgrade),
            Shown("250 a\r\n250 r\r\n"),
            GoAhead,
            Shown("220 2.0.0 Ready to start TLS\r\n"),
            // What the program had not taken yet is forgotten.
            Given(""),
        ]),
    );
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("STARTTLS now\r\nNOOP\r\n"),
            Shown("501 5.5.4 STARTTLS takes no argument\r\n"),
            Given("NOOP\r\n"),
        ]),
    );
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("STARTTLS\r\n"),
            Came(Event::Upgrade),
            Decline,
            Shown("454 4.7.0 TLS is not available now\r\n"),
            Client("EHLO c\r\n"),
            Given("EHLO c\r\n"),
            Program("250-mx\r\n250-AUTH PLAIN\r\n250 SIZE\r\n"),
            Shown("250-mx\r\n250 SIZE\r\n"),
        ]),
    );
}

#[test]
fn bytes_behind_the_upgrade_are_an_injection() {
    let greeted: [(Protocol, &str, &str); 5] = [
        (Protocol::Smtp, "220 mx\r\n", "STARTTLS\r\n"),
        (Protocol::Lmtp, "220 mx\r\n", "STARTTLS\r\n"),
        (Protocol::Pop3, "+OK mx\r\n", "STLS\r\n"),
        (Protocol::Imap, "* OK mx\r\n", "a STARTTLS\r\n"),
        (Protocol::Sieve, "OK\r\n", "STARTTLS\r\n"),
    ];
    for (protocol, greeting, command) in greeted {
        for behind in [&b"N"[..], b"NOOP\r\n", b"\r\n", b"\x16\x03\x01", b"\0"] {
            for together in [true, false] {
                let mut dialogue = Dialogue::new(settings(protocol, false));
                dialogue.feed_program(greeting.as_bytes());
                let mut bytes = command.as_bytes().to_vec();
                if together {
                    bytes.extend_from_slice(behind);
                    dialogue.feed_client(&bytes);
                } else {
                    dialogue.feed_client(&bytes);
                    assert_eq!(dialogue.event(), Some(Event::Upgrade));
                    dialogue.feed_client(behind);
                }
                assert_eq!(dialogue.event(), Some(Event::Injection(behind.len())));
                assert!(dialogue.for_program().is_empty());
            }
        }
    }
}

#[test]
fn a_pop3_greeting_offers_apop_only_where_it_can_succeed() {
    let greetings = [
        ("+OK <1.2@mx>\r\n", "+OK\r\n"),
        ("+OK ready <1.2@mx> now\r\n", "+OK ready now\r\n"),
        ("+OK <a> <1.2@mx>\n", "+OK\n"),
        ("+OK a < b\r\n", "+OK a < b\r\n"),
        ("+OK a > b\r\n", "+OK a > b\r\n"),
        ("-ERR <1.2@mx>\r\n", "-ERR <1.2@mx>\r\n"),
    ];
    for (greeting, shown) in greetings {
        served(Protocol::Pop3, &[Program(greeting), Shown(shown)]);
        // Passwords may pass in the clear, and this program has the timestamp.
        all(
            || Dialogue::new(settings(Protocol::Pop3, true)),
            &[Program(greeting), Shown(greeting)],
        );
        // Nothing was said before: the client gets the one that counts.
        let between = InsideTls {
            drops_greeting: false,
            lists_capabilities: true,
        };
        inside(
            Protocol::Pop3,
            between,
            &[Program(greeting), Shown(greeting)],
        );
    }
}

#[test]
fn pop3_offers_tls_and_hides_passwords() {
    served(
        Protocol::Pop3,
        &[
            Client("CAPA\r\nUSER a\r\nPASS b\r\n"),
            Given(""),
            Program("+OK ready <1.2@mx>\r\n"),
            Given("CAPA\r\n"),
            Program("+OK list\r\nUSER\r\nTOP\r\nSASL PLAIN\r\nstls\r\nUIDL\r\n"),
            Program(".\r\n"),
            Shown(
                "+OK ready\r\n+OK list\r\nTOP\r\nUIDL\r\nSTLS\r\n.\r\n\
                 -ERR [AUTH] Must issue a STLS command first\r\n\
                 -ERR [AUTH] Must issue a STLS command first\r\n",
            ),
            Client("apop a b\r\n AUTH PLAIN x\r\nSTLS x\r\nNOOP\rPASS x\r\n"),
            Given(""),
            Shown(
                "-ERR [AUTH] Must issue a STLS command first\r\n\
                 -ERR [AUTH] Must issue a STLS command first\r\n\
                 -ERR STLS takes no argument\r\n\
                 -ERR Control characters are not allowed in a command\r\n",
            ),
            Client("stls\r\n"),
            Came(Event::Upgrade),
            GoAhead,
            Shown("+OK Begin TLS\r\n"),
        ],
    );
    // A program that has no CAPA.
    served(
        Protocol::Pop3,
        &[
            Program("+OK\r\n"),
            Client("CAPA\r\n"),
            Program("-ERR what\r\n"),
            Shown("+OK\r\n+OK Capabilities follow\r\nSTLS\r\n.\r\n"),
            Client("QUIT\r\n"),
            Given("CAPA\r\nQUIT\r\n"),
            Program("+OK\r\n"),
            Shown("+OK\r\n"),
        ],
    );
}

fn inside(protocol: Protocol, between: InsideTls, steps: &[Step]) {
    all(
        || Dialogue::inside(settings(protocol, false), between),
        steps,
    );
}

#[test]
fn inside_tls_pop3_answers_capa_again_where_the_program_has_none() {
    for drops_greeting in [true, false] {
        let between = InsideTls {
            drops_greeting,
            lists_capabilities: true,
        };
        let greeting = if drops_greeting { "" } else { "+OK ready\r\n" };
        inside(
            Protocol::Pop3,
            between,
            &[
                Client("CAPA\r\n"),
                Given(""),
                Program("+OK ready\r\n"),
                Shown(greeting),
                Given("CAPA\r\n"),
                Program("-ERR what\r\n"),
                Shown("+OK Capabilities follow\r\nUSER\r\n.\r\n"),
                // All else is the program's word.
                Client("STLS\r\nUSER a\r\nPASS \x01b\r\n"),
                Program("-ERR no\r\n"),
                Program("+OK\r\n"),
                Given("STLS\r\nUSER a\r\nPASS \x01b\r\n"),
                Program("-ERR wrong\r\n"),
                Client("CAPA\r\nPASS c\r\n"),
                Program("-ERR what\r\n"),
                Program("+OK in\r\n"),
                Given("CAPA\r\nPASS c\r\n"),
                Shown(
                    "-ERR no\r\n+OK\r\n-ERR wrong\r\n\
                     +OK Capabilities follow\r\nUSER\r\n.\r\n+OK in\r\n",
                ),
                // Up to the login, not behind it.
                Client("CAPA\r\n"),
                Given("CAPA\r\n"),
                Program("-ERR what\r\n"),
                Shown("-ERR what\r\n"),
                Quiet,
            ],
        );
    }
    // A program that has one keeps it as it is.
    let between = InsideTls {
        drops_greeting: false,
        lists_capabilities: true,
    };
    inside(
        Protocol::Pop3,
        between,
        &[
            Program("+OK\r\n"),
            Client("CAPA\r\n"),
            Program("+OK\r\nSASL PLAIN\r\nSTLS\r\n.\r\n"),
            Shown("+OK\r\n+OK\r\nSASL PLAIN\r\nSTLS\r\n.\r\n"),
        ],
    );
}

#[test]
fn inside_tls_a_greeting_is_dropped_whole_and_nothing_else() {
    let between = InsideTls {
        drops_greeting: true,
        lists_capabilities: false,
    };
    for (said, left) in [
        ("220 mx\r\n250 x", "250 x"),
        ("220-mx\r\n220-y\r\n220 z\r\n250 x", "250 x"),
        ("22\n250-x\n", "250-x\n"),
        ("\nx", "x"),
        ("* OK - hi\r\n* x", "* x"),
        ("220-no end", ""),
    ] {
        inside(
            Protocol::Smtp,
            between,
            &[
                Client("EHLO c\r\n\0AUTH"),
                Given("EHLO c\r\n\0AUTH"),
                Program(said),
                Shown(left),
            ],
        );
    }
}

#[test]
fn pop3_lists_are_not_capabilities_and_logins_end_the_watch() {
    trusting(
        Protocol::Pop3,
        &[
            Program("+OK\r\n"),
            Client("LIST\r\nLIST 1\r\nCAPA\r\n"),
            Given("LIST\r\n"),
            Program("+OK\r\nUSER\r\nSTLS\r\n.\r\n"),
            Given("LIST 1\r\n"),
            Program("+OK 1 100\r\n"),
            Given("CAPA\r\n"),
            Program("+OK\r\nUSER\r\n.\r\n"),
            Shown("+OK\r\n+OK\r\nUSER\r\nSTLS\r\n.\r\n+OK 1 100\r\n+OK\r\nUSER\r\nSTLS\r\n.\r\n"),
            Client("USER a\r\nPASS b c\r\n"),
            Program("+OK\r\n"),
            Program("-ERR\r\n"),
            Given("USER a\r\nPASS b c\r\n"),
            Client("AUTH PLAIN\r\n"),
            Program("+ \r\n"),
            Client("STLS\r\nSTLS\r\n"),
            Given("AUTH PLAIN\r\nSTLS\r\n"),
            Program("+OK in\r\n"),
            Given("STLS\r\n"),
            Quiet,
            Program("-ERR no\r\nCAPA\r\n"),
            Shown("+OK\r\n-ERR\r\n+ \r\n+OK in\r\n-ERR no\r\nCAPA\r\n"),
        ],
    );
}

#[test]
fn imap_capabilities_are_edited_wherever_they_stand() {
    served(
        Protocol::Imap,
        &[
            Program("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN ID] hi AUTH=PLAIN\r\n"),
            Shown("* OK [CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED] hi AUTH=PLAIN\r\n"),
            Client("a1 CAPABILITY\r\na2 noop\r\n"),
            Given("a1 CAPABILITY\r\n"),
            Program("* capability IMAP4rev1 starttls LOGINDISABLED auth=LOGIN\r\n"),
            Given(""),
            Program("a1 OK [CAPABILITY X] done\r\n"),
            Shown(
                "* capability IMAP4rev1 STARTTLS LOGINDISABLED\r\n\
                 a1 OK [CAPABILITY X STARTTLS LOGINDISABLED] done\r\n",
            ),
            Given("a2 noop\r\n"),
            // A literal of the program's is not a line.
            Program("* ID (\"x\" {25}\r\n\r\n* CAPABILITY AUTH=X\r\nab)\r\na2 OK done\r\n"),
            Shown("* ID (\"x\" {25}\r\n\r\n* CAPABILITY AUTH=X\r\nab)\r\na2 OK done\r\n"),
            Client("a3 STARTTLS\r\n"),
            Came(Event::Upgrade),
            GoAhead,
            Shown("a3 OK Begin TLS\r\n"),
        ],
    );
}

#[test]
fn imap_lets_no_password_through() {
    served(
        Protocol::Imap,
        &[
            Program("* OK hi\r\n"),
            Shown("* OK hi\r\n"),
            Client("a LOGIN u p\r\nb authenticate PLAIN AGEAYg==\r\n"),
            Client("c login {4}\r\n"),
            Client("d LOGIN {4+}\r\nuser {14+}\r\nx LOGIN a b\r\n\r\ne NOOP\r\n"),
            Given("e NOOP\r\n"),
            Shown(
                "a NO [PRIVACYREQUIRED] STARTTLS comes before a password\r\n\
                 b NO [PRIVACYREQUIRED] STARTTLS comes before a password\r\n\
                 c NO [PRIVACYREQUIRED] STARTTLS comes before a password\r\n\
                 d NO [PRIVACYREQUIRED] STARTTLS comes before a password\r\n",
            ),
            Program("e OK\r\n"),
            Client("* LOGIN u p\r\n+ LOGIN u p\r\n\r\nf\r\n"),
            Given("f\r\n"),
            Program("f BAD\r\n"),
            Client("g NOOP\rh LOGIN u p\r\nh STARTTLS x\r\n"),
            Given(""),
            Shown(
                "e OK\r\n* BAD A command begins with a tag\r\n* BAD A command begins with a tag\r\n\
                 * BAD A command begins with a tag\r\nf BAD\r\n\
                 g BAD Control characters are not allowed in a command\r\nh BAD STARTTLS takes no argument\r\n",
            ),
        ],
    );
}

#[test]
fn imap_literals_are_never_commands() {
    served(
        Protocol::Imap,
        &[
            Program("* OK hi\r\n"),
            Shown("* OK hi\r\n"),
            // One that waits.
            Client("a ID (\"x\" {12}\r\n"),
            Given("a ID (\"x\" {12}\r\n"),
            Client("z STARTTLS\r\n {0}\r\n)\r\n"),
            Given(""),
            Program("+ go\r\n"),
            Given("z STARTTLS\r\n {0}\r\n"),
            Program("+ go\r\n"),
            Given(")\r\n"),
            Quiet,
            Program("a OK\r\n"),
            Shown("+ go\r\n+ go\r\na OK\r\n"),
            // One that does not: the program is asked all the same.
            Client("b ID (\"x\" {12+}\r\nz STARTTLS\r\n)\r\nc NOOP\r\n"),
            Given("b ID (\"x\" {12}\r\n"),
            Program("+ go\r\n"),
            Given("z STARTTLS\r\n)\r\n"),
            Program("b OK\r\n"),
            Given("c NOOP\r\n"),
            Program("c OK\r\n"),
            Shown("b OK\r\nc OK\r\n"),
            // Refused by the program, it is still no command.
            Client("d NOOP {12+}\r\nz STARTTLS\r\n {3+}\r\nabc\r\ne NOOP\r\n"),
            Given("d NOOP {12}\r\n"),
            Program("d BAD no\r\n"),
            Given("e NOOP\r\n"),
            Quiet,
            Program("e OK\r\n"),
            Shown("d BAD no\r\ne OK\r\n"),
            Client("f ID {12}\r\n"),
            Given("f ID {12}\r\n"),
            Program("f BAD no\r\n"),
            Client("g NOOP\r\n"),
            Given("g NOOP\r\n"),
        ],
    );
    for line in [
        "a X {99999999999}\r\n",
        "a LOGIN {65537+}\r\n",
        "a X {5z}\r\n",
    ] {
        served(
            Protocol::Imap,
            &[
                Program("* OK\r\n"),
                Client(line),
                Given(""),
                Came(Event::Malformed),
            ],
        );
    }
}

#[test]
fn imap_with_leave_logs_in_and_is_open_after_that() {
    trusting(
        Protocol::Imap,
        &[
            Program("* OK [CAPABILITY AUTH=PLAIN]\r\n"),
            Shown("* OK [CAPABILITY AUTH=PLAIN STARTTLS]\r\n"),
            Client("a AUTHENTICATE PLAIN\r\nb STARTTLS\r\n"),
            Given("a AUTHENTICATE PLAIN\r\n"),
            Program("+ \r\n"),
            Given("b STARTTLS\r\n"),
            Program("a NO no\r\n"),
            Client("c LOGIN u {3}\r\n"),
            Program("+ \r\n"),
            Client("pwd\r\n"),
            Given("c LOGIN u {3}\r\npwd\r\n"),
            Program("c OK [CAPABILITY AUTH=X] in\r\n"),
            Client("d STARTTLS\r\n"),
            Given("d STARTTLS\r\n"),
            Quiet,
            Shown("+ \r\na NO no\r\n+ \r\nc OK [CAPABILITY AUTH=X] in\r\n"),
        ],
    );
    // Logged in from the start: no upgrade, and no password either.
    served(
        Protocol::Imap,
        &[
            Program("* PREAUTH [CAPABILITY X]\r\n"),
            Client("a STARTTLS\r\nb LOGIN u p\r\n"),
            Given(""),
            Shown(
                "* PREAUTH [CAPABILITY X]\r\na BAD Already logged in\r\n\
                 b NO [PRIVACYREQUIRED] STARTTLS comes before a password\r\n",
            ),
        ],
    );
}

#[test]
fn sieve_offers_tls_and_hides_passwords() {
    served(
        Protocol::Sieve,
        &[
            Program("\"IMPLEMENTATION\" \"x\"\r\n\"SASL\" {5}\r\nPLAIN\r\n\"starttls\"\r\n"),
            Program("\"SIEVE\" {8}\r\nOK\r\n\"ab\"\r\nOK \"hi\"\r\n"),
            Shown(
                "\"IMPLEMENTATION\" \"x\"\r\n\"SASL\" \"\"\r\n\
                 \"SIEVE\" {8}\r\nOK\r\n\"ab\"\r\n\"STARTTLS\"\r\nOK \"hi\"\r\n",
            ),
            Client("AUTHENTICATE \"PLAIN\" {10+}\r\nSTARTTLS\r\n\r\nAUTHENTICATE \"PLAIN\"\r\n"),
            Given(""),
            Shown(
                "NO (ENCRYPT-NEEDED) \"STARTTLS comes first\"\r\n\
                 NO (ENCRYPT-NEEDED) \"STARTTLS comes first\"\r\n",
            ),
            // A literal is never a command, whatever the program thinks of the
            // line before it.
            Client("PUTSCRIPT \"x\" {19+}\r\nAUTHENTICATE {3+}\r\n\r\nNOOP\r\n"),
            Shown("NO (ENCRYPT-NEEDED) \"Literals come after STARTTLS\"\r\n"),
            Given("NOOP\r\n"),
            Program("NO {4}\r\nOK\r\n\r\n"),
            Shown("NO {4}\r\nOK\r\n\r\n"),
            Client("CAPABILITY\r\n"),
            Program("\"SASL\" \"PLAIN\"\r\nOK\r\n"),
            Shown("\"SASL\" \"\"\r\n\"STARTTLS\"\r\nOK\r\n"),
            Client("STARTTLS x\r\nSTARTTLS\r\n"),
            Came(Event::Upgrade),
            GoAhead,
            Shown("NO \"STARTTLS takes no argument\"\r\nOK \"Begin TLS\"\r\n"),
        ],
    );
    for line in [
        "NOOP {5}\r\n",
        "NOOP {99999999999+}\r\n",
        "AUTHENTICATE {65537+}\r\n",
    ] {
        served(
            Protocol::Sieve,
            &[
                Program("OK\r\n"),
                Client(line),
                Given(""),
                Came(Event::Malformed),
            ],
        );
    }
}

#[test]
fn sieve_with_leave_logs_in_and_is_open_after_that() {
    trusting(
        Protocol::Sieve,
        &[
            Program("\"SASL\" \"PLAIN\"\r\nOK\r\n"),
            Shown("\"SASL\" \"PLAIN\"\r\n\"STARTTLS\"\r\nOK\r\n"),
            Client("AUTHENTICATE \"LOGIN\"\r\n\"STARTTLS\"\r\n{8+}\r\nSTARTTLS\r\nSTARTTLS\r\n"),
            Given("AUTHENTICATE \"LOGIN\"\r\n"),
            Program("\"VXNlcm5hbWU6\"\r\n"),
            Given("\"STARTTLS\"\r\n"),
            Program("{4}\r\nOK\r\n\r\n"),
            Given("{8+}\r\nSTARTTLS\r\n"),
            Program("OK\r\n"),
            Given("STARTTLS\r\n"),
            Quiet,
        ],
    );
}

#[test]
fn alone_sieve_gives_the_argument_of_noop_back() {
    alone(
        Protocol::Sieve,
        &[
            Shown(
                "\"IMPLEMENTATION\" \"ucspi-tls\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n\
                 \"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\nOK \"mx.test ready\"\r\n",
            ),
            Client("NOOP\r\nnoop \"SYNC \\\\ 42\\\"\"\r\n"),
            Shown("OK \"done\"\r\nOK (TAG \"SYNC \\\\ 42\\\"\") \"done\"\r\n"),
            Client("NOOP x\r\nNOOP \"a\" b\"\r\nNOOP \"a\\\"\r\nNOOP \"\\n\"\r\nNOOP \"\r\n"),
            Shown(
                "NO \"NOOP takes a string\"\r\nNO \"NOOP takes a string\"\r\n\
                 NO \"NOOP takes a string\"\r\nNO \"NOOP takes a string\"\r\n\
                 NO \"NOOP takes a string\"\r\n",
            ),
            Client("NOOP {8+}\r\nSTARTTLS\r\n"),
            Shown("NO \"Give NOOP a quoted string\"\r\n"),
        ],
    );
}

#[test]
fn alone_it_greets_and_refuses_everything_but_the_upgrade() {
    alone(
        Protocol::Smtp,
        &[
            Shown("220 mx.test ESMTP\r\n"),
            Client(
                "HELO c\r\nehlo c\r\nNOOP\r\nMAIL FROM:<a>\r\nRSET\r\nBDAT 9\r\nSTARTTLS\nAUTH PLAIN x\r\n",
            ),
            Client("LHLO x\r\nVRFY x\r\nHELP\r\nDATA\r\n\r\nSTARTTLS x\r\n"),
            Shown(
                "530 5.7.0 Must issue a STARTTLS command first\r\n\
                 250-mx.test\r\n250-STARTTLS\r\n250 ENHANCEDSTATUSCODES\r\n\
                 250 2.0.0 ok\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n\
                 501 5.5.4 STARTTLS takes no argument\r\n",
            ),
            Client("STARTTLS\r\n"),
            Came(Event::Upgrade),
        ],
    );
    alone(
        Protocol::Smtp,
        &[
            Client("QUIT\r\nSTARTTLS\r\n"),
            Shown("220 mx.test ESMTP\r\n221 2.0.0 mx.test\r\n"),
            Came(Event::Ended),
        ],
    );
    alone(
        Protocol::Lmtp,
        &[
            Shown("220 mx.test LMTP\r\n"),
            Client("EHLO c\r\nLHLO c\r\n"),
            Shown(
                "530 5.7.0 Must issue a STARTTLS command first\r\n\
                 250-mx.test\r\n250-STARTTLS\r\n250 ENHANCEDSTATUSCODES\r\n",
            ),
        ],
    );
    alone(
        Protocol::Pop3,
        &[
            Shown("+OK mx.test POP3\r\n"),
            Client("CAPA\r\nUSER a\r\nNOOP\r\nSTAT\r\nQUIT\r\n"),
            Shown(
                "+OK Capabilities follow\r\nSTLS\r\n.\r\n\
                 -ERR [AUTH] Must issue a STLS command first\r\n+OK\r\n\
                 -ERR [AUTH] Must issue a STLS command first\r\n+OK bye\r\n",
            ),
            Came(Event::Ended),
        ],
    );
    alone(
        Protocol::Imap,
        &[
            Shown("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] mx.test\r\n"),
            Client("a CAPABILITY\r\nb NOOP\r\nc LOGIN u p\r\nd SELECT x\r\n"),
            Client("e ID {12+}\r\nx STARTTLS\r\n\r\nf ID {12}\r\nx\r\ng LOGOUT\r\n"),
            Shown(
                "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na OK done\r\nb OK done\r\n\
                 c NO [PRIVACYREQUIRED] STARTTLS comes before a password\r\n\
                 d BAD Must issue a STARTTLS command first\r\n\
                 e BAD Must issue a STARTTLS command first\r\n\
                 f BAD Must issue a STARTTLS command first\r\n\
                 x BAD Must issue a STARTTLS command first\r\n\
                 * BYE bye\r\ng OK done\r\n",
            ),
            Came(Event::Ended),
        ],
    );
    alone(
        Protocol::Sieve,
        &[
            Shown(
                "\"IMPLEMENTATION\" \"ucspi-tls\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n\
                 \"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\n\
                 OK \"mx.test ready\"\r\n",
            ),
            Client("NOOP\r\nPUTSCRIPT \"x\" {10+}\r\nSTARTTLS\r\n\r\nLOGOUT\r\n"),
            Shown("OK \"done\"\r\nNO (ENCRYPT-NEEDED) \"STARTTLS comes first\"\r\nOK \"bye\"\r\n"),
            Came(Event::Ended),
        ],
    );
}

const ALL: [(Protocol, &str); 5] = [
    (Protocol::Smtp, "220 mx\r\n"),
    (Protocol::Lmtp, "220 mx\r\n"),
    (Protocol::Pop3, "+OK mx\r\n"),
    (Protocol::Imap, "* OK mx\r\n"),
    (Protocol::Sieve, "OK\r\n"),
];

#[test]
fn a_line_may_be_64_kib_long_and_no_longer() {
    for (protocol, greeting) in ALL {
        for (length, event) in [
            (LINE_LIMIT - 1, None),
            (LINE_LIMIT, None),
            (LINE_LIMIT + 1, Some(Event::LineTooLong)),
        ] {
            let mut line = b"a NOOP ".to_vec();
            line.resize(length - 2, b'x');
            line.extend_from_slice(b"\r\n");
            for piece in [usize::MAX, 1000] {
                let mut dialogue = Dialogue::new(settings(protocol, false));
                dialogue.feed_program(greeting.as_bytes());
                for part in line.chunks(piece) {
                    dialogue.feed_client(part);
                }
                assert_eq!(dialogue.event(), event, "{protocol:?} {length}");
                assert_eq!(
                    dialogue.for_program().len(),
                    if event.is_none() { length } else { 0 }
                );
                let mut dialogue = Dialogue::alone(settings(protocol, false));
                for part in line.chunks(piece) {
                    dialogue.feed_client(part);
                }
                assert_eq!(dialogue.event(), event, "{protocol:?} {length} alone");
            }
        }
        let mut dialogue = Dialogue::new(settings(protocol, false));
        dialogue.feed_program(&vec![b'x'; LINE_LIMIT]);
        assert_eq!(dialogue.event(), Some(Event::ProgramLineTooLong));
    }
}

#[test]
fn buffers_are_bounded_whatever_comes() {
    for (protocol, greeting) in ALL {
        for flood in [
            &b"a NOOP\r\n"[..],
            b"MAIL\r\n",
            b"x\0\r\n",
            b"\n",
            b"250-x\r\n",
        ] {
            let mut dialogue = Dialogue::new(settings(protocol, false));
            dialogue.feed_program(greeting.as_bytes());
            for _ in 0..4 * LINE_LIMIT / flood.len() {
                if dialogue.client_room() >= flood.len() {
                    dialogue.feed_client(flood);
                }
                if dialogue.program_room() >= flood.len() {
                    dialogue.feed_program(flood);
                }
                assert!(dialogue.for_client().len() <= HIGH_WATER + LINE_LIMIT);
                assert!(dialogue.for_program().len() <= HIGH_WATER + LINE_LIMIT);
            }
            assert!(
                dialogue.program_room() < flood.len(),
                "a flood is held back"
            );
        }
    }
}

#[test]
fn half_a_command_of_a_client_that_left_is_not_handed_on() {
    let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
    dialogue.feed_client(b"NOOP\r\nQUIT\r\nDAT");
    dialogue.end_client();
    assert!(!dialogue.program_has_all(), "held commands come first");
    dialogue.feed_program(b"220 mx\r\n");
    dialogue.program_took(6);
    assert!(!dialogue.program_has_all());
    dialogue.feed_program(b"250 ok\r\n");
    assert_eq!(dialogue.for_program(), b"QUIT\r\n");
    assert!(!dialogue.program_has_all());
    dialogue.program_took(6);
    assert!(dialogue.program_has_all());
    dialogue.feed_program(b"221 b");
    assert!(!dialogue.client_has_all());
    dialogue.end_program();
    let shown = dialogue.for_client().to_vec();
    assert_eq!(shown, b"220 mx\r\n250 ok\r\n221 b");
    dialogue.client_took(shown.len());
    assert!(dialogue.client_has_all());
}

#[test]
fn commands_behind_a_refused_chunk_wait_for_a_client_that_reads_slowly() {
    let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
    let mut greeting = b"220 ".to_vec();
    greeting.resize(HIGH_WATER - 2, b'x');
    greeting.extend_from_slice(b"\r\n");
    dialogue.feed_program(&greeting);
    dialogue.feed_client(b"BDAT 5\r\nhelloQUIT\r\n");
    dialogue.end_client();
    assert!(dialogue.for_client().len() > HIGH_WATER);
    assert!(!dialogue.program_has_all(), "there is a command yet");
    dialogue.client_took(dialogue.for_client().len());
    assert_eq!(dialogue.for_program(), b"QUIT\r\n");
}

#[test]
fn each_protocol_says_why_it_ends() {
    for (protocol, why, text) in [
        (
            Protocol::Smtp,
            Farewell::Idle,
            "421 4.4.2 mx.test idle for too long\r\n",
        ),
        (
            Protocol::Lmtp,
            Farewell::LineTooLong,
            "500 5.5.2 Line too long\r\n",
        ),
        (
            Protocol::Pop3,
            Farewell::LineTooLong,
            "-ERR Line too long\r\n",
        ),
        (
            Protocol::Imap,
            Farewell::LineTooLong,
            "* BYE Line too long\r\n",
        ),
        (
            Protocol::Sieve,
            Farewell::LineTooLong,
            "BYE \"Line too long\"\r\n",
        ),
        (
            Protocol::Imap,
            Farewell::Unavailable,
            "* BYE [UNAVAILABLE] No service now\r\n",
        ),
    ] {
        let mut dialogue = Dialogue::new(settings(protocol, false));
        dialogue.bid_farewell(why);
        assert_eq!(String::from_utf8_lossy(dialogue.for_client()), text);
        assert_eq!(dialogue.event(), Some(Event::Ended));
    }
}

#[test]
fn a_protocol_is_known_by_its_name_and_its_command() {
    for (name, protocol, command, dropped) in [
        ("imap", Protocol::Imap, "STARTTLS", 1),
        ("lmtp", Protocol::Lmtp, "STARTTLS", 1),
        ("pop3", Protocol::Pop3, "STLS", 1),
        ("sieve", Protocol::Sieve, "STARTTLS", 0),
        ("smtp", Protocol::Smtp, "STARTTLS", 1),
    ] {
        assert_eq!(Protocol::from_name(name), Some(protocol));
        assert_eq!(protocol.upgrade_command(), command, "{name}");
        assert_eq!(protocol.greeting_replies(), dropped, "{name}");
    }
    for name in ["", "SMTP", "smtps"] {
        assert_eq!(Protocol::from_name(name), None, "{name}");
    }
}

#[test]
fn there_is_room_for_a_line_and_for_nothing_once_something_came_up() {
    let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
    dialogue.feed_program(b"22");
    dialogue.feed_client(b"NO");
    assert_eq!(dialogue.program_room(), LINE_LIMIT - 2);
    assert_eq!(dialogue.client_room(), LINE_LIMIT - 2);
    dialogue.feed_program(b"0 mx\r\n");
    dialogue.feed_client(b"OP\r\nSTARTTLS\r\n");
    assert_eq!(dialogue.program_room(), LINE_LIMIT);
    assert_eq!(dialogue.client_room(), LINE_LIMIT - 10);
    dialogue.feed_program(b"250 ok\r\n");
    assert_eq!(dialogue.event(), Some(Event::Upgrade));
    assert_eq!((dialogue.client_room(), dialogue.program_room()), (0, 0));
    dialogue.decline();
    assert_eq!(dialogue.client_room(), LINE_LIMIT);
    dialogue.end_client();
    assert_eq!(dialogue.client_room(), 0);
    assert_eq!(dialogue.program_room(), LINE_LIMIT);
    let dialogue = Dialogue::alone(settings(Protocol::Smtp, false));
    assert_eq!(dialogue.client_room(), LINE_LIMIT);
    assert_eq!(dialogue.program_room(), 0);
}

#[test]
fn content_waits_for_a_program_that_reads_slowly() {
    let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
    dialogue.feed_program(b"220 mx\r\n");
    dialogue.feed_client(b"DATA\r\n");
    dialogue.program_took(6);
    dialogue.feed_program(b"354 go\r\n");
    dialogue.feed_client(&vec![b'x'; HIGH_WATER]);
    for (more, left) in [(10, LINE_LIMIT), (20, LINE_LIMIT - 20)] {
        dialogue.feed_client(&vec![b'x'; more]);
        assert_eq!(dialogue.client_room(), left, "{more}");
    }
    assert_eq!(dialogue.for_program().len(), HIGH_WATER + 10);
    dialogue.program_took(HIGH_WATER + 10);
    assert_eq!(dialogue.for_program().len(), 20);
    assert_eq!(dialogue.client_room(), LINE_LIMIT);
}

#[test]
fn a_line_without_an_end_or_more_than_was_asked_for_is_too_long() {
    for (protocol, greeting) in ALL {
        let mut dialogue = Dialogue::new(settings(protocol, false));
        dialogue.feed_program(greeting.as_bytes());
        dialogue.feed_client(&vec![b'x'; LINE_LIMIT]);
        assert_eq!(dialogue.event(), Some(Event::LineTooLong), "{protocol:?}");
        let mut dialogue = Dialogue::new(settings(protocol, false));
        let mut line = vec![b'x'; LINE_LIMIT];
        line.push(b'\n');
        dialogue.feed_program(&line);
        let event = dialogue.event();
        assert_eq!(event, Some(Event::ProgramLineTooLong), "{protocol:?}");
    }
}

#[test]
fn what_a_program_left_of_a_line_is_no_answer() {
    let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
    assert!(!dialogue.client_has_all(), "it has not said anything yet");
    dialogue.feed_program(b"220 mx\r\n");
    dialogue.feed_client(b"EHLO c\r\n");
    dialogue.feed_program(b"250-mx\r\n250-SIZ");
    dialogue.end_program();
    let shown = String::from_utf8_lossy(dialogue.for_client()).into_owned();
    assert_eq!(shown, "220 mx\r\n250-mx\r\n250-SIZ");
}

#[test]
fn what_a_program_left_of_a_line_outlives_a_refused_upgrade_alone() {
    for accepted in [true, false] {
        let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
        dialogue.feed_program(b"220 mx\r\n421 by");
        dialogue.client_took(8);
        dialogue.feed_client(b"STARTTLS\r\n");
        dialogue.end_program();
        let shown = if accepted {
            dialogue.go_ahead();
            "220 2.0.0 Ready to start TLS\r\n"
        } else {
            dialogue.decline();
            "454 4.7.0 TLS is not available now\r\n421 by"
        };
        assert_eq!(String::from_utf8_lossy(dialogue.for_client()), shown);
        dialogue.client_took(shown.len());
        assert!(dialogue.client_has_all());
    }
}

#[test]
fn tls_that_is_withdrawn_is_not_offered() {
    let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
    dialogue.withdraw();
    dialogue.feed_program(b"220 mx\r\n");
    dialogue.feed_client(b"EHLO c\r\n");
    dialogue.feed_program(b"250-mx\r\n250 SIZE\r\n");
    let shown = String::from_utf8_lossy(dialogue.for_client()).into_owned();
    assert_eq!(shown, "220 mx\r\n250-mx\r\n250 SIZE\r\n");
    let mut dialogue = Dialogue::alone(settings(Protocol::Smtp, false));
    dialogue.withdraw();
    dialogue.feed_client(b"EHLO c\r\n");
    let shown = String::from_utf8_lossy(dialogue.for_client()).into_owned();
    assert_eq!(
        shown,
        "220 mx.test ESMTP\r\n250-mx.test\r\n250 ENHANCEDSTATUSCODES\r\n"
    );
}

#[test]
fn a_list_of_our_own_is_remembered() {
    let mut dialogue = Dialogue::new(settings(Protocol::Pop3, false));
    dialogue.feed_program(b"+OK mx\r\n");
    dialogue.feed_client(b"CAPA\r\n");
    assert!(!dialogue.has_listed_capabilities());
    dialogue.feed_program(b"-ERR what\r\n");
    assert!(dialogue.has_listed_capabilities());
}

#[test]
fn inside_tls_everything_passes_where_nothing_is_between() {
    inside(
        Protocol::Smtp,
        InsideTls::default(),
        &[
            Client("EHLO c\r\n"),
            Given("EHLO c\r\n"),
            Program("220 mx\r\n250 AUTH\r\n"),
            Shown("220 mx\r\n250 AUTH\r\n"),
        ],
    );
}

#[test]
fn smtp_recipients_are_those_of_the_message_at_hand() {
    let begun = [
        Client("MAIL FROM:<a>\r\nRCPT TO:<b>\r\nRCPT TO:<c>\r\n"),
        Program("250 a\r\n250 b\r\n250 c\r\n"),
        Given("MAIL FROM:<a>\r\nRCPT TO:<b>\r\nRCPT TO:<c>\r\n"),
        Shown("250 a\r\n250 b\r\n250 c\r\n"),
    ];
    let refused = "503 5.5.1 BDAT needs a recipient first\r\n";
    let played = |steps: &[Step]| served(Protocol::Smtp, &after_hello(&[&begun, steps].concat()));
    // A reset that is refused resets nothing.
    played(&[
        Client("RSET\r\n"),
        Program("500 what\r\n"),
        Shown("500 what\r\n"),
        Client("BDAT 1\r\nx"),
        Given("RSET\r\nBDAT 1\r\nx"),
    ]);
    for command in ["RSET\r\n", "MAIL FROM:<d>\r\n", "EHLO d\r\n"] {
        played(&[
            Client(command),
            Program("250-CHUNKING\r\n250 CHUNKING\r\n"),
            Given(command),
            Client("BDAT 14\r\nAUTH PLAIN x\r\nNOOP\r\n"),
            Given("NOOP\r\n"),
        ]);
    }
    // Of all recipients there is one answer, and behind that there are none.
    played(&[
        Client("BDAT 1 LAST\r\nx"),
        Given("BDAT 1 LAST\r\nx"),
        Program("250 queued\r\n"),
        Shown("250 queued\r\n"),
        Client("BDAT 14\r\nAUTH PLAIN x\r\n"),
        Shown(refused),
        Given(""),
        Client("STARTTLS\r\n"),
        Came(Event::Upgrade),
    ]);
}

#[test]
fn smtp_takes_chunks_where_the_last_list_of_capabilities_names_them() {
    for (reply, shown) in [
        // Twice is not never.
        (
            "250-mx\r\n250-CHUNKING\r\n250 CHUNKING\r\n",
            "503 5.5.1 BDAT needs a recipient first\r\n",
        ),
        (
            "250-mx\r\n250 SIZE\r\n",
            "503 5.5.1 BDAT is not offered\r\n",
        ),
    ] {
        let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
        dialogue.feed_program(b"220 mx\r\n");
        dialogue.feed_client(b"EHLO c\r\nEHLO c\r\n");
        dialogue.feed_program(b"250-mx\r\n250 CHUNKING\r\n");
        dialogue.feed_program(reply.as_bytes());
        dialogue.client_took(dialogue.for_client().len());
        dialogue.feed_client(b"BDAT 1\r\nx");
        assert_eq!(String::from_utf8_lossy(dialogue.for_client()), shown);
    }
}

/// How many commands the program may owe an answer to.
const PIPELINED: usize = 100;

#[test]
fn smtp_groups_end_before_a_command_that_decides_and_before_a_message_s_answer() {
    served(
        Protocol::Smtp,
        &after_hello(&[
            Client("DATA\r\nMAIL FROM:<a>\r\n.\r\nRSET\r\n"),
            Given("DATA\r\n"),
            Program("354 go\r\n"),
            Given("MAIL FROM:<a>\r\n.\r\n"),
            Program("250 queued\r\n"),
            Given("RSET\r\n"),
        ]),
    );
    let mut dialogue = Dialogue::new(settings(Protocol::Smtp, false));
    dialogue.feed_program(b"220 mx\r\n");
    for count in [PIPELINED, PIPELINED + 1] {
        dialogue.feed_client(b"RSET\r\n".repeat(count).as_slice());
        assert_eq!(dialogue.for_program().len(), 6 * PIPELINED);
    }
    dialogue.program_took(6 * PIPELINED);
    dialogue.feed_program(b"250 ok\r\n250 ok\r\n");
    assert_eq!(dialogue.for_program(), b"RSET\r\nRSET\r\n");
}

#[test]
fn smtp_refuses_control_characters_wherever_it_reads_a_line() {
    alone(
        Protocol::Smtp,
        &[
            Shown("220 mx.test ESMTP\r\n"),
            // A number behind any other verb is no size.
            Client("NOOP\0\r\nVRFY 7\r\nNOOP\r\n"),
            Shown(
                "500 5.5.2 Control characters are not allowed in a command\r\n\
                 530 5.7.0 Must issue a STARTTLS command first\r\n250 2.0.0 ok\r\n",
            ),
        ],
    );
    trusting(
        Protocol::Smtp,
        &[
            Program("220 mx\r\n"),
            Client("AUTH LOGIN\r\n"),
            Program("334 VXNlcm5hbWU6\r\n"),
            Given("AUTH LOGIN\r\n"),
            Client("eA==\rNOOP\r\n"),
            Given(""),
            Came(Event::Malformed),
        ],
    );
}
