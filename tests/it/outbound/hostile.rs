//! `sslclient -y` and servers that mean no good: silence, drips and floods in
//! each phase of each protocol. No program runs, and every one ends.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use openssl::ssl::Ssl;

use crate::harness::{Client, Finished, Identity, KeyKind, Peer, Place, peer};

/// What each server of a protocol says, first unasked, then to each line.
const DIALOGUES: [(&str, &[&str]); 5] = [
    (
        "smtp",
        &["220 x\r\n", "250-x\r\n250 STARTTLS\r\n", "220 go\r\n"],
    ),
    (
        "lmtp",
        &["220 x\r\n", "250-x\r\n250 STARTTLS\r\n", "220 go\r\n"],
    ),
    ("pop3", &["+OK x\r\n", "+OK\r\nSTLS\r\n.\r\n", "+OK go\r\n"]),
    (
        "imap",
        &[
            "* OK x\r\n",
            "* CAPABILITY IMAP4rev1 STARTTLS\r\na1 OK x\r\n",
            "a2 OK go\r\n",
        ],
    ),
    (
        "sieve",
        &["\"SIEVE\" \"\"\r\n\"STARTTLS\"\r\nOK\r\n", "OK go\r\n"],
    ),
];

/// What a server does in place of one of its replies.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Silence,
    Drip(&'static [u8]),
    Flood(&'static [u8]),
}

/// Fails in place of reply `phase`; that behind the last is the handshake.
fn serve(stream: &TcpStream, replies: &[&str], phase: usize, fault: Fault) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut to = stream;
    for (at, reply) in replies.iter().enumerate() {
        if at > 0 && lines.read_line(&mut String::new()).unwrap_or(0) == 0 {
            return;
        }
        if at == phase {
            break;
        }
        to.write_all(reply.as_bytes()).unwrap();
    }
    match fault {
        Fault::Silence => {
            let _ = lines.read_to_end(&mut Vec::new());
        }
        Fault::Drip(bytes) => {
            for byte in bytes.iter().cycle() {
                if to.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        Fault::Flood(bytes) => {
            let many = bytes.repeat(65536 / bytes.len());
            while to.write_all(&many).is_ok() {}
        }
    }
}

const SCRIPT: &str = "echo ran; cat <&6";

fn ask(place: &Place, protocol: &str, port: u16) -> Finished {
    Client::new(place)
        .options("-T 1+1 -y")
        .option(protocol)
        .script("localhost", port, SCRIPT)
}

/// Each protocol, each phase: what sslclient makes of the fault.
fn everywhere(name: &str, fault: Fault, check: fn(&str, usize, &Finished)) {
    thread::scope(|scope| {
        for (protocol, replies) in DIALOGUES {
            scope.spawn(move || {
                let place = Place::new(name);
                for phase in 0..=replies.len() {
                    let peer = Peer::plain(move |stream| serve(&stream, replies, phase, fault));
                    let ended = ask(&place, protocol, peer.at.port());
                    assert_eq!(ended.text(), "", "{protocol} {phase}: the program ran");
                    check(protocol, phase, &ended);
                    peer.join();
                }
            });
        }
    });
}

#[test]
fn silence_ends_with_the_time_limit_in_each_phase_of_each_protocol() {
    everywhere("silence", Fault::Silence, |protocol, phase, ended| {
        let last = DIALOGUES.iter().find(|(one, _)| *one == protocol).unwrap();
        // The handshake is the phase behind all replies.
        if phase == last.1.len() {
            ended.failed(111, "timed out");
        } else {
            ended.failed(111, "unable to start TLS with ST");
            ended.failed(111, "timed out ");
        }
    });
}

#[test]
fn drips_end_with_the_time_limit_in_each_phase_of_each_protocol() {
    let check = |protocol: &str, phase: usize, ended: &Finished| {
        let what = format!("{protocol} {phase}: {}", ended.stderr);
        assert_eq!(ended.code, Some(111), "{what}");
        assert_eq!(ended.stderr.lines().count(), 1, "{what}");
    };
    // They wait more than they work: all at once.
    thread::scope(|scope| {
        for bytes in [&b"2"[..], b"250-x\r\n", b"UIDL\r\n", b"* OK x\r\n"] {
            scope.spawn(move || everywhere("drips", Fault::Drip(bytes), check));
        }
    });
}

#[test]
fn floods_end_in_each_phase_of_each_protocol() {
    for bytes in [
        &b"2"[..],
        b"\0",
        b"220-x\r\n",
        b"250-x\r\n",
        b"+OK x\r\n",
        b"UIDL\r\n",
        b"* OK x\r\n",
        b"* CAPABILITY x\r\n",
        b"\"X\" \"y\"\r\n",
        b"{65000}\r\n",
        b"{99999999999999999999}\r\n",
    ] {
        everywhere("floods", Fault::Flood(bytes), |protocol, phase, ended| {
            let what = format!("{protocol} {phase}: {}", ended.stderr);
            assert_eq!(ended.code, Some(111), "{what}");
            assert_eq!(ended.stderr.lines().count(), 1, "{what}");
            assert!(ended.stderr.len() < 2000, "{what}");
        });
    }
}

#[test]
fn replies_byte_by_byte_are_whole_replies() {
    let context = peer::context(&Identity::localhost(KeyKind::P256), |_| ());
    for (protocol, replies) in DIALOGUES {
        let place = Place::new("bytewise");
        let context = context.clone();
        let peer = Peer::plain(move |stream| {
            stream.set_nodelay(true).unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            for (at, reply) in replies.iter().enumerate() {
                if at > 0 {
                    lines.read_line(&mut String::new()).unwrap();
                }
                for byte in reply.as_bytes() {
                    (&stream).write_all(&[*byte]).unwrap();
                }
            }
            let mut tls = Ssl::new(&context).unwrap().accept(stream).unwrap();
            tls.write_all(b"inside\r\n").unwrap();
            let _ = tls.shutdown();
        });
        let ended = Client::new(&place).options("-y").option(protocol).script(
            "localhost",
            peer.at.port(),
            SCRIPT,
        );
        let text = ended.text();
        assert!(text.starts_with("ran\n"), "{protocol}: {}", ended.stderr);
        assert!(text.ends_with("inside\r\n"), "{protocol}: {text}");
        peer.join();
    }
}

#[test]
fn ten_mebibytes_of_capabilities_are_refused() {
    for (protocol, phase, line, end) in [
        ("smtp", 1, "250-AUTH x\r\n", "250 STARTTLS\r\n"),
        ("lmtp", 1, "250-AUTH x\r\n", "250 STARTTLS\r\n"),
        ("pop3", 1, "SASL PLAIN\r\n", "STLS\r\n.\r\n"),
        ("imap", 1, "* CAPABILITY x\r\n", "a1 OK x\r\n"),
        ("sieve", 0, "\"X\" \"y\"\r\n", "\"STARTTLS\"\r\nOK\r\n"),
    ] {
        let place = Place::new("large");
        let replies = DIALOGUES
            .iter()
            .find(|(one, _)| *one == protocol)
            .unwrap()
            .1;
        let start = if protocol == "pop3" { "+OK\r\n" } else { "" };
        let large = format!("{start}{}{end}", line.repeat((10 << 20) / line.len()));
        let peer = Peer::plain(move |stream| {
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            if phase == 1 {
                (&stream).write_all(replies[0].as_bytes()).unwrap();
                lines.read_line(&mut String::new()).unwrap();
            }
            // It may be gone before all of it was sent.
            let _ = (&stream).write_all(large.as_bytes());
        });
        let ended = Client::new(&place)
            .options("-T 10+10 -y")
            .option(protocol)
            .script("localhost", peer.at.port(), SCRIPT);
        ended.failed(111, "is too long");
        assert_eq!(ended.text(), "");
        peer.join();
    }
}
