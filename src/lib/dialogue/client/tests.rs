//! Servers of every kind against the client's side, whole and in one-byte
//! pieces.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use super::lines::{LINE_LIMIT, Lines, REPLY_LIMIT, Stream};
use super::smtp::Reply;
use super::{DialogueError, Protocol, shown, upgrade};

/// A server that says its next part after each command that it expects.
struct Script {
    parts: Vec<(&'static str, Vec<u8>)>,
    ready: Vec<u8>,
    heard: Vec<u8>,
    piece: usize,
}

impl Script {
    fn new(greeting: &[u8], parts: &[(&'static str, &[u8])], piece: usize) -> Script {
        let mut parts: Vec<_> = parts
            .iter()
            .map(|(command, answer)| (*command, answer.to_vec()))
            .collect();
        parts.reverse();
        Script {
            parts,
            ready: greeting.to_vec(),
            heard: Vec::new(),
            piece,
        }
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.ready.len().min(self.piece).min(buffer.len());
        buffer[..count].copy_from_slice(&self.ready[..count]);
        self.ready.drain(..count);
        Ok(count)
    }
}

impl Stream for Script {
    fn has_spoken(&mut self) -> io::Result<bool> {
        Ok(!self.ready.is_empty())
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.extend_from_slice(bytes);
        if self.heard.ends_with(b"\r\n") {
            if let Some((command, answer)) = self.parts.pop() {
                assert_eq!(String::from_utf8_lossy(&self.heard).trim_end(), command);
                self.heard.clear();
                self.ready.extend_from_slice(&answer);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Parts<'a> = &'a [(&'static str, &'a [u8])];

/// The outcome, which must be the same however the bytes are cut.
fn run(protocol: Protocol, greeting: &[u8], parts: Parts<'_>) -> Result<Vec<u8>, String> {
    let whole = upgrade(
        &mut Script::new(greeting, parts, 9999),
        protocol,
        "me.example",
    );
    whole.map_err(|refusal| refusal.to_string())
}

/// The same, in one-byte pieces.
fn drip(protocol: Protocol, greeting: &[u8], parts: Parts<'_>) -> Result<Vec<u8>, String> {
    let drip = upgrade(&mut Script::new(greeting, parts, 1), protocol, "me.example");
    drip.map_err(|refusal| refusal.to_string())
}

const EHLO: &str = "EHLO me.example";

#[test]
fn each_protocol_comes_to_its_go_ahead() {
    type Case<'a> = (Protocol, &'a [u8], Parts<'a>, &'a [u8]);
    let cases: &[Case<'_>] = &[
        (
            Protocol::Smtp,
            b"220-two\r\n220 mx.example ESMTP\r\n",
            &[
                (EHLO, b"250-mx.example\r\n250-SIZE 1\r\n250 starttls\r\n"),
                ("STARTTLS", b"220 2.0.0 go\r\n"),
            ],
            b"220-two\r\n220 mx.example ESMTP\r\n",
        ),
        (
            Protocol::Lmtp,
            b"220 l\r\n",
            &[
                ("LHLO me.example", b"250-l\r\n250 STARTTLS\r\n"),
                ("STARTTLS", b"220 go\r\n"),
            ],
            b"220 l\r\n",
        ),
        (
            Protocol::Pop3,
            b"+OK ready <1@x>\r\n",
            &[
                ("CAPA", b"+OK\r\nUIDL\r\nSTLS\r\n.\r\n"),
                ("STLS", b"+OK go\r\n"),
            ],
            b"+OK ready <1@x>\r\n",
        ),
        (
            Protocol::Pop3,
            b"+OK old\r\n",
            &[("CAPA", b"-ERR what\r\n"), ("STLS", b"+OK go\r\n")],
            b"+OK old\r\n",
        ),
        (
            Protocol::Imap,
            b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hello\r\n",
            &[
                (
                    "a1 CAPABILITY",
                    b"* CAPABILITY IMAP4rev1 STARTTLS\r\n* OK [ALERT] x\r\na1 OK done\r\n",
                ),
                ("a2 STARTTLS", b"* 3 EXISTS\r\na2 OK go\r\n"),
            ],
            b"* OK hello\r\n",
        ),
        (
            Protocol::Sieve,
            b"\"IMPLEMENTATION\" {5}\r\nx\r\ny\n\r\n\"StartTLS\"\r\nOK (TAG {1+}\r\nx) \"hi\"\r\n",
            &[("STARTTLS", b"OK \"go\"\r\n")],
            b"",
        ),
    ];
    for (protocol, greeting, parts, replayed) in cases {
        let expected = Ok(replayed.to_vec());
        assert_eq!(run(*protocol, greeting, parts), expected, "{protocol:?}");
        assert_eq!(drip(*protocol, greeting, parts), expected, "{protocol:?}");
    }
}

#[test]
fn bytes_behind_the_go_ahead_end_the_dialogue() {
    for (protocol, greeting, parts) in [
        (
            Protocol::Smtp,
            &b"220 x\r\n"[..],
            &[
                (EHLO, &b"250-x\r\n250 STARTTLS\r\n"[..]),
                ("STARTTLS", b"220 go\r\n250 injected\r\n"),
            ][..],
        ),
        (
            Protocol::Pop3,
            b"+OK\r\n",
            &[("CAPA", b"+OK\r\nSTLS\r\n.\r\n"), ("STLS", b"+OK go\r\n+")],
        ),
        (
            Protocol::Imap,
            b"* OK x\r\n",
            &[
                ("a1 CAPABILITY", b"* CAPABILITY STARTTLS\r\na1 OK x\r\n"),
                ("a2 STARTTLS", b"a2 OK go\r\n* CAPABILITY AUTH=PLAIN\r\n"),
            ],
        ),
        (
            Protocol::Sieve,
            b"\"STARTTLS\"\r\nOK\r\n",
            &[("STARTTLS", b"OK\r\n\"SASL\" \"PLAIN\"\r\n")],
        ),
    ] {
        let said = run(protocol, greeting, parts).expect_err("refused");
        assert!(said.contains("not asked for"), "{said}");
    }
}

#[test]
fn an_answer_before_its_command_is_no_answer() {
    for (protocol, greeting, parts) in [
        (
            Protocol::Smtp,
            &b"220 x\r\n250-x\r\n250 STARTTLS\r\n"[..],
            &[][..],
        ),
        (Protocol::Lmtp, b"220 x\r\n250 x\r\n", &[]),
        (Protocol::Pop3, b"+OK\r\n+OK\r\n", &[]),
        (Protocol::Imap, b"* OK x\r\na1 OK x\r\n", &[]),
        (Protocol::Sieve, b"\"STARTTLS\"\r\nOK\r\nOK\r\n", &[]),
        (
            Protocol::Smtp,
            b"220 x\r\n",
            &[(EHLO, &b"250-x\r\n250 STARTTLS\r\n220 go\r\n"[..])],
        ),
    ] {
        for said in [
            run(protocol, greeting, parts),
            // It is there, and not read yet.
            drip(protocol, greeting, parts),
        ] {
            let said = said.expect_err("refused");
            assert!(said.contains("not asked for"), "{protocol:?} {said}");
        }
    }
}

#[test]
fn a_refusal_shows_the_reply() {
    for (protocol, greeting, parts, wanted) in [
        (
            Protocol::Smtp,
            &b"554-no\r\n554 way\x1b\r\n"[..],
            &[][..],
            "server refused the connection: 554-no / 554 way\\x1B",
        ),
        (
            Protocol::Smtp,
            b"220 x\r\n",
            &[(
                EHLO,
                &b"250-starttls.example\r\n250-XSTARTTLS\r\n250 STARTTLSX\r\n"[..],
            )],
            "server does not offer STARTTLS: 250-starttls.example / 250-XSTARTTLS / 250 STARTTLSX",
        ),
        (
            Protocol::Smtp,
            b"220 x\r\n",
            &[(EHLO, b"250 STARTTLS\r\n")],
            "server does not offer STARTTLS: 250 STARTTLS",
        ),
        (
            Protocol::Smtp,
            b"220 x\r\n",
            &[(EHLO, b"502 what\r\n")],
            "server does not offer STARTTLS: 502 what",
        ),
        (
            Protocol::Smtp,
            b"220 x\r\n",
            &[
                (EHLO, b"250-x\r\n250 STARTTLS\r\n"),
                ("STARTTLS", b"454 4.7.0 not now\r\n"),
            ],
            "server refused STARTTLS: 454 4.7.0 not now",
        ),
        (
            Protocol::Smtp,
            b"220 x\r\n",
            &[
                (EHLO, b"250-x\r\n250 STARTTLS\r\n"),
                ("STARTTLS", b"250 fine\r\n"),
            ],
            "server refused STARTTLS: 250 fine",
        ),
        (
            Protocol::Pop3,
            b"+OK\r\n",
            &[("CAPA", b"+OK\r\nUIDL\r\nXSTLS\r\n.\r\n")],
            "server does not offer STLS: +OK / UIDL / XSTLS",
        ),
        (
            Protocol::Pop3,
            b"+OK\r\n",
            &[("CAPA", b"-ERR\r\n"), ("STLS", b"-ERR no\r\n")],
            "server refused STLS: -ERR no",
        ),
        (
            Protocol::Imap,
            b"* PREAUTH welcome\r\n",
            &[],
            "server's greeting is PREAUTH, which leaves no room for STARTTLS: * PREAUTH welcome",
        ),
        (
            Protocol::Imap,
            b"* BYE full\r\n",
            &[],
            "server refused the connection: * BYE full",
        ),
        (
            Protocol::Imap,
            b"* OK x\r\n",
            &[("a1 CAPABILITY", b"* CAPABILITY IMAP4\r\na1 OK x\r\n")],
            "server does not offer STARTTLS: * CAPABILITY IMAP4",
        ),
        (
            Protocol::Imap,
            b"* OK x\r\n",
            &[
                ("a1 CAPABILITY", b"* CAPABILITY STARTTLS\r\na1 OK x\r\n"),
                ("a2 STARTTLS", b"a2 NO later\r\n"),
            ],
            "server refused STARTTLS: a2 NO later",
        ),
        (
            Protocol::Sieve,
            b"\"SIEVE\" \"fileinto\"\r\nOK\r\n",
            &[],
            "server does not offer STARTTLS: \"SIEVE\" \"fileinto\" / OK",
        ),
        (
            Protocol::Sieve,
            b"\"STARTTLS\"\r\nOK\r\n",
            &[("STARTTLS", b"NO \"later\"\r\n")],
            "server refused STARTTLS: NO \"later\"",
        ),
    ] {
        assert_eq!(run(protocol, greeting, parts), Err(wanted.to_owned()));
        assert_eq!(drip(protocol, greeting, parts), Err(wanted.to_owned()));
    }
}

#[test]
fn junk_and_silence_end_the_dialogue() {
    let long = [b"220 ", &vec![b'x'; LINE_LIMIT][..], b"\r\n"].concat();
    let endless = b"250-x\r\n".repeat(REPLY_LIMIT / 7 + 2);
    for (protocol, greeting, parts, wanted) in [
        (
            Protocol::Smtp,
            &b""[..],
            &[][..],
            "ended the connection before its greeting",
        ),
        (
            Protocol::Smtp,
            b"220 half",
            &[],
            "ended the connection before its greeting",
        ),
        (
            Protocol::Smtp,
            b"HTTP/1.1 400\r\n",
            &[],
            "malformed: HTTP/1.1 400",
        ),
        (Protocol::Smtp, b"220\0x\r\n", &[], "malformed: 220\\x00x"),
        (
            Protocol::Smtp,
            b"220-a\r\n221 b\r\n",
            &[],
            "malformed: 220-a / 221 b",
        ),
        (Protocol::Smtp, b"920 a\r\n", &[], "malformed: 920 a"),
        (Protocol::Smtp, &long, &[], "is too long"),
        (
            Protocol::Smtp,
            b"220 x\r\n",
            &[(EHLO, &endless[..])],
            "is too long",
        ),
        (Protocol::Pop3, b"* OK\r\n", &[], "malformed: * OK"),
        (Protocol::Imap, b"+OK\r\n", &[], "malformed: +OK"),
        (
            Protocol::Imap,
            b"* OK\r\n",
            &[("a1 CAPABILITY", b"* CAPABILITY {3}\r\n")],
            "malformed: * CAPABILITY {3}",
        ),
        (
            Protocol::Imap,
            b"* OK\r\n",
            &[("a1 CAPABILITY", b"a9 OK\r\n")],
            "malformed: a9 OK",
        ),
        (Protocol::Sieve, b"\"x\" {99999999}\r\n", &[], "is too long"),
        (Protocol::Sieve, b"HELLO\r\n", &[], "malformed: HELLO"),
    ] {
        for result in [
            run(protocol, greeting, parts),
            drip(protocol, greeting, parts),
        ] {
            let said = result.expect_err("refused");
            assert!(said.contains(wanted), "{said}");
        }
    }
}

#[test]
fn replies_have_codes_and_capabilities() {
    let text = b"250-mx STARTTLS\r\n250-SIZE 100 \r\n250-AUTH=PLAIN\r\n250 8bitmime\r\n";
    let mut script = Script::new(text, &[], 3);
    let reply = Reply::read(&mut Lines::new(&mut script), "now").expect("a reply");
    assert_eq!((reply.code, reply.is_good()), (250, true));
    assert_eq!(reply.capability("SIZE"), Some(&b"100"[..]));
    assert_eq!(reply.capability("8BITMIME"), Some(&b""[..]));
    assert_eq!(reply.capability("AUTH"), Some(&b"=PLAIN"[..]));
    assert_eq!(
        reply.capability("STARTTLS"),
        None,
        "the greeting is no offer"
    );
    assert_eq!(reply.capability("8BIT"), None);
}

#[test]
fn a_time_out_names_the_place() {
    let timeout = DialogueError::Io("after EHLO", io::ErrorKind::TimedOut.into());
    assert_eq!(timeout.to_string(), "timed out after EHLO");
    assert_eq!(shown(&[b'x'; 999]).len(), 403);
}

#[test]
fn no_capability_of_a_greeting_is_handed_on() {
    let parts: Parts<'_> = &[
        ("a1 CAPABILITY", b"* CAPABILITY STARTTLS\r\na1 OK\r\n"),
        ("a2 STARTTLS", b"a2 OK\r\n"),
    ];
    for (greeting, replayed) in [
        (&b"* OK hi\r\n"[..], &b"* OK hi\r\n"[..]),
        (b"* OK\r\n", b"* OK\r\n"),
        (b"* OK [ALERT] x\r\n", b"* OK [ALERT] x\r\n"),
        (b"* ok [capability a] x\r\n", b"* OK x\r\n"),
        (b"* OK  [CAPABILITY a]\r\n", b"* OK ready\r\n"),
        (b"* OK [CAPABILITY a] [CAPABILITY b] x\r\n", b"* OK x\r\n"),
        (b"* OK [CAPABILITY a\r\n", b"* OK ready\r\n"),
    ] {
        let seen = run(Protocol::Imap, greeting, parts).expect("upgraded");
        assert_eq!(seen, replayed, "{}", String::from_utf8_lossy(greeting));
    }
}
