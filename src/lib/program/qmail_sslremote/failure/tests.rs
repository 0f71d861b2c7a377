//! The table of qmail-sslremote(8), failure by failure, with its words.
#![forbid(unsafe_code)]

use std::io;

use super::super::hosts::Host;
use super::super::reporting::Applied;
use super::*;
use crate::tlsdestinations::Port;

use Disposition::{Later, Never};
use NextStep::{End, InPlain, Last, Next};

pub(in super::super) fn reply(text: &str) -> Reply {
    Reply {
        code: text[..3].parse().expect("a code"),
        text: format!("{text}\r\n").into_bytes(),
    }
}

pub(in super::super) fn server(protocol: Protocol, port: u16) -> Server {
    Server {
        host: Host {
            name: "mx.example".to_owned(),
            ip: IpAddr::from([192, 0, 2, 1]),
            signed: false,
            named: None,
        },
        protocol,
        port: Port::of_number(port),
        applied: Applied::of(&Ok(None), false, None),
        plan: Err(excluded()),
    }
}

fn excluded() -> Excluded {
    Excluded {
        reason: Exclusion::Line,
        say: Say::later("Not called. (#4.7.5)"),
    }
}

/// Nothing is required, nothing went before, and other servers may be called.
pub(in super::super) fn free(server: &Server) -> Circumstances<'_> {
    Circumstances {
        server,
        demand: None,
        tls_failed: None,
        no_other: false,
    }
}

/// A row of the table in qmail-sslremote(8), in its REPORT: a failure; `Z` or `D`
/// and what is done next; the report's text.
type Row = (Failure, (Disposition, NextStep), &'static str);

/// Each row holds, and its failure is one of this stage.
fn hold(at: &Circumstances<'_>, stage: Stage, rows: impl IntoIterator<Item = Row>) {
    for (failure, fate, text) in rows {
        assert_eq!(failure.stage(), stage, "{failure:?}");
        assert_eq!(failure.fate(at), fate, "{failure:?}");
        let said = failure.say(at);
        assert_eq!((said.text.as_str(), said.disposition), (text, fate.0));
    }
}

/// The connection is over, at this place.
fn ended() -> DialogueError {
    DialogueError::Ended("here")
}

/// What came is no reply.
fn nonsense() -> DialogueError {
    DialogueError::Malformed("here", b"x\n".to_vec())
}

#[test]
fn who_cannot_be_called_or_takes_no_name_is_passed_over() {
    let smtp = server(Protocol::Smtp, 25);
    let at = free(&smtp);
    let own = IpAddr::from([192, 0, 2, 9]);
    let place = "domainips line 2".to_owned();
    let unreachable = || Failure::Unreachable("refused".to_owned());
    hold(
        &at,
        Stage::Planned,
        [
            (
                Failure::Excluded(excluded()),
                (Later, Next),
                "Not called. (#4.7.5)\n",
            ),
            (
                Failure::Origin { own, place },
                (Later, Next),
                "Can't bind to local ip address: 192.0.2.9. (#4.3.0)\n\
                 Reason: domainips line 2 asks for it\n",
            ),
            (
                unreachable(),
                (Later, Next),
                "Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\
                 Reason: refused\n",
            ),
        ],
    );
    let qmtp = unreachable().say(&free(&server(Protocol::Qmtp, 209))).text;
    assert!(qmtp.contains(" a QMTP connection. "), "{qmtp}");
    let died = "Connected to 192.0.2.1 but connection died. (#4.4.2)\n\
                Reason: server ended the connection here\n";
    hold(
        &at,
        Stage::Connected,
        [
            (Failure::NoGreeting(ended()), (Later, Next), died),
            (Failure::NoHello(ended()), (Later, Next), died),
            (
                Failure::Greeting(reply("450 busy")),
                (Later, Next),
                "Connected to 192.0.2.1 but greeting failed.\nRemote host said: 450 busy\n",
            ),
            // As qmail-remote: a server that greets with 5xx is the only one that is asked.
            (
                Failure::Greeting(reply("554 no")),
                (Later, Last),
                "Connected to 192.0.2.1 but greeting failed.\nRemote host said: 554 no\n",
            ),
            (
                Failure::Hello(reply("550 who")),
                (Later, Next),
                "Connected to 192.0.2.1 but my name was rejected.\nRemote host said: 550 who\n",
            ),
        ],
    );
}

#[test]
fn tls_that_fails_is_done_without_only_where_nothing_asks_for_it() {
    let (smtp, at_once) = (server(Protocol::Smtp, 25), server(Protocol::Smtp, 465));
    let refused = || {
        Failure::Tls(NoTls {
            reply: Some(b"454 not now\r\n".to_vec()),
            ..NoTls::new(Obstacle::Refused, "it refused STARTTLS")
        })
    };
    let text = "Connected to 192.0.2.1 (mx.example) but it refused STARTTLS. (#4.7.5)\n\
                Remote host said: 454 not now\n";
    hold(
        &free(&smtp),
        Stage::Greeted,
        [(refused(), (Later, InPlain), text)],
    );
    hold(
        &free(&at_once),
        Stage::Greeted,
        [(refused(), (Later, Next), text)],
    );
    let demanded = "Connected to 192.0.2.1 (mx.example) but it refused STARTTLS; line 1 \
                    requires TLS. (#4.7.5)\nRemote host said: 454 not now\n";
    for (no_other, then) in [(false, Next), (true, Last)] {
        let at = Circumstances {
            demand: Some("line 1 requires TLS"),
            no_other,
            ..free(&smtp)
        };
        hold(&at, Stage::Greeted, [(refused(), (Later, then), demanded)]);
    }
}

#[test]
fn a_login_that_fails_is_never_the_sender_s_fault() {
    let smtp = server(Protocol::Smtp, 25);
    let what = || "it refused the login".to_owned();
    hold(
        &free(&smtp),
        Stage::Secured,
        [
            (
                Failure::NoMechanism("it does not offer AUTH".to_owned()),
                (Later, Next),
                "Connected to 192.0.2.1 but it does not offer AUTH. (#4.7.0)\n",
            ),
            (
                Failure::LoginLost(ended()),
                (Later, Next),
                "Connected to 192.0.2.1 but connection died. (#4.4.2)\n\
                 Reason: server ended the connection here\n",
            ),
            (
                Failure::LoginClosing("421".to_owned()),
                (Later, Next),
                "Connected to 192.0.2.1 but it closed in the login. (#4.4.2)\n\
                 Remote host said: 421\n",
            ),
            (
                Failure::Login(what(), "535 5.7.8".to_owned()),
                (Later, End),
                "Connected to 192.0.2.1 but it refused the login. (#4.7.8)\n\
                 Remote host said: 535 5.7.8\n",
            ),
            (
                Failure::LoginStopped(what(), "a challenge too many"),
                (Later, End),
                "Connected to 192.0.2.1 but it refused the login. (#4.7.8)\n\
                 Reason: a challenge too many\n",
            ),
        ],
    );
}

#[test]
fn a_connection_that_ends_says_whether_the_server_may_have_the_message() {
    let smtp = server(Protocol::Smtp, 25);
    let at = free(&smtp);
    let timed_out = io::Error::from(io::ErrorKind::TimedOut);
    hold(
        &at,
        Stage::Authenticated,
        [
            (
                Failure::Lost(ended()),
                (Later, Last),
                "Connected to 192.0.2.1 but connection died. (#4.4.2)\n\
                 Reason: server ended the connection here\n",
            ),
            (
                Failure::LostAfterDot(DialogueError::Io("here", timed_out)),
                (Later, End),
                "Connected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)\n\
                 Reason: timed out here\n",
            ),
            (
                Failure::LostAfterDot(nonsense()),
                (Later, End),
                "Connected to 192.0.2.1 but it does not talk SMTP. Possible duplicate! (#4.5.0)\n\
                 Reason: server's reply here is malformed: x\n",
            ),
            (
                Failure::Unreadable,
                (Later, End),
                "Unable to read message. (#4.3.0)\n",
            ),
            (
                Failure::NoSmtpUtf8,
                (Never, Next),
                "Connected to 192.0.2.1 but it does not offer SMTPUTF8, which an address that \
                 is not ASCII needs. (#5.6.7)\n",
            ),
        ],
    );
    let no_smtp = [
        nonsense(),
        DialogueError::TooLong("here"),
        DialogueError::Injection(1, Vec::new()),
        DialogueError::Unasked(Vec::new()),
    ];
    for (why, protocol, port) in
        no_smtp
            .into_iter()
            .map(|why| (why, "SMTP", 25))
            .chain([(nonsense(), "QMTP", 209)])
    {
        let kind = match protocol {
            "SMTP" => Protocol::Smtp,
            _ => Protocol::Qmtp,
        };
        let said = Failure::Lost(why).say(&free(&server(kind, port))).text;
        let words = format!("but it does not talk {protocol}. (#4.5.0)\n");
        assert!(said.contains(&words), "{said}");
    }
}

/// `Z` for 4xx, `D` for 5xx, and for a reply that belongs to no plan `Z`; once the
/// message was sent no other server is called.
#[test]
fn a_refusal_is_the_server_s_word() {
    let smtp = server(Protocol::Smtp, 25);
    let at = free(&smtp);
    for (text, letter, then) in [
        ("250 why", Later, Last),
        ("451 later", Later, Last),
        ("499 later", Later, Last),
        ("500 no", Never, End),
        ("554 no", Never, End),
        ("530 TLS first", Never, End),
        ("421 closing", Later, Next),
    ] {
        let said = format!("Remote host said: {text}\n");
        let row = |failure: Failure, fate, words: &str| {
            assert_eq!(failure.stage(), Stage::Authenticated);
            assert_eq!(failure.fate(&at), fate, "{failure:?}");
            let full = failure.say(&at);
            assert_eq!(full.text, format!("{words}\n{said}"), "{failure:?}");
            assert_eq!(full.disposition, fate.0, "{failure:?}");
        };
        let sender = "Connected to 192.0.2.1 but sender was rejected.";
        row(Failure::Sender(reply(text)), (letter, then), sender);
        let data = "192.0.2.1 failed on DATA command.";
        row(Failure::Data(reply(text)), (letter, then), data);
        let content = "192.0.2.1 failed while I sent the message.";
        row(Failure::Content(reply(text)), (letter, End), content);
        let message = "192.0.2.1 failed after I sent the message.";
        row(Failure::Message(reply(text)), (letter, End), message);
    }
    let gone = Circumstances {
        no_other: true,
        ..free(&smtp)
    };
    let closing = || reply("421 closing");
    assert_eq!(Failure::Sender(closing()).fate(&gone), (Later, Last));
    assert_eq!(
        Failure::RecipientsClosing(closing()).fate(&gone),
        (Later, Last)
    );
    hold(
        &at,
        Stage::Authenticated,
        [
            (
                Failure::RecipientsClosing(closing()),
                (Later, Next),
                "Giving up on 192.0.2.1.\nRemote host said: 421 closing\n",
            ),
            (
                Failure::Recipients(Some(b"451 later\r\n".to_vec()), Mildest::Later),
                (Never, Last),
                "Giving up on 192.0.2.1.\nRemote host said: 451 later\n",
            ),
            (
                Failure::Recipients(None, Mildest::Never),
                (Never, End),
                "Giving up on 192.0.2.1.\n",
            ),
        ],
    );
}

/// Before the message is sent the next server is tried; the reason is told.
#[test]
fn a_refusal_that_asks_for_tls_which_failed_is_for_now() {
    let smtp = server(Protocol::Smtp, 25);
    let failed = NoTls::new(Obstacle::Handshake, "the handshake failed");
    let at = Circumstances {
        tls_failed: Some(&failed),
        ..free(&smtp)
    };
    let asks = || reply("530 5.7.0 TLS first");
    let recipients = |mildest| Failure::Recipients(None, mildest);
    for (failure, fate) in [
        (Failure::Sender(asks()), (Later, Next)),
        (Failure::Data(asks()), (Later, Next)),
        (Failure::Content(asks()), (Later, End)),
        (Failure::Message(asks()), (Later, End)),
        (recipients(Mildest::WantsTls), (Later, Next)),
        (recipients(Mildest::Later), (Never, Last)),
        (Failure::Sender(reply("550 no")), (Never, End)),
    ] {
        assert_eq!(failure.fate(&at), fate, "{failure:?}");
        let said = failure.say(&at).text;
        let told = said.ends_with("Reason: TLS failed before: the handshake failed\n");
        let about_tls = fate.0 == Later;
        assert_eq!(told, about_tls, "{said}");
    }
}

#[test]
fn replies_that_ask_for_tls() {
    for (reply, asks) in [
        ("530 5.7.0 Must issue a STARTTLS command first\r\n", true),
        ("530 go away\r\n", true),
        ("554 5.7.0 no\r\n", true),
        ("550-5.7.10\r\n550 no\r\n", true),
        ("550-hear\r\n550 5.7.11 no\r\n", true),
        ("550 5.7.1 TLS is needed\r\n", true),
        ("550 5.7.8 please ENCRYPT\r\n", true),
        ("500 5.7.11 no\r\n", true),
        ("550 5.7.1 no\r\n", false),
        ("550 5.1.1 no TLS\r\n", false),
        ("550 TLS\r\n", false),
        ("450 5.7.11 TLS\r\n", false),
        ("499 5.7.0 no\r\n", false),
        ("550\r\n", false),
    ] {
        let code = reply[..3].parse().expect("a code");
        let text = reply.as_bytes().to_vec();
        assert_eq!(asks_for_tls(&Reply { code, text }), asks, "{reply}");
    }
}

#[test]
fn why_there_is_no_tls_is_one_line_with_the_reply() {
    let mut why = NoTls::new(Obstacle::Refused, "STARTTLS was refused");
    assert_eq!(why.in_full(), "STARTTLS was refused");
    why.reply = Some(b"454 not now\r\n".to_vec());
    let full = why.in_full();
    assert!(
        full.starts_with("STARTTLS was refused: 454 not now") && !full.contains('\n'),
        "{full}"
    );
}
