//! Clients that leave, or that only say no more, while the program owes them an
//! answer and commands wait for that.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::played::{OURS, Session};
use crate::harness::Place;
use crate::harness::process::{PATIENCE, eventually};

/// Reads all and answers nothing.
const SILENT: &str = "exec cat >/dev/null";

/// Each protocol with a greeting, a command, and an answer to that.
const PROTOCOLS: [(&str, &str, &str, &str); 5] = [
    ("smtp", "220 mx\r\n", "NOOP\r\n", "250 ok\r\n"),
    ("lmtp", "220 mx\r\n", "NOOP\r\n", "250 ok\r\n"),
    ("pop3", "+OK\r\n", "NOOP\r\n", "+OK\r\n"),
    ("imap", "* OK\r\n", "a NOOP\r\n", "a OK\r\n"),
    ("sieve", "OK\r\n", "NOOP\r\n", "OK\r\n"),
];

/// A shell's words that print this.
fn print(text: &str) -> String {
    format!("printf '{}'", text.escape_default())
}

/// A program in the shell.
fn start(protocol: &str, script: &str) -> Session {
    OURS.start(&[], &[protocol, "/bin/sh", "-c", script])
}

/// The program's greeting comes. `ManageSieve`'s is its list of capabilities, which
/// gets one more.
fn await_greeting(session: &mut Session, protocol: &str, greeting: &str) {
    if (protocol, greeting.is_empty()) == ("sieve", false) {
        assert_eq!(session.line(), "\"STARTTLS\"");
    }
    session.expect(greeting);
}

/// The same over TCP: with it, a copy of the client's side, and of the server's.
fn start_over_tcp(protocol: &str, script: &str) -> (Session, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let copies = (client.try_clone().unwrap(), socket.try_clone().unwrap());
    // What is done with it asks for no family.
    let pair = [client, socket].map(|side| UnixStream::from(OwnedFd::from(side)));
    let session = OURS.start_on(pair.into(), &[], &[protocol, "/bin/sh", "-c", script]);
    (session, copies.0, copies.1)
}

/// The end of what the client says was read, and what it said waits.
fn await_end_of_client(socket: &TcpStream) {
    eventually("the client is probed", || {
        getsockopt(socket, sockopt::KeepAlive)
            .unwrap()
            .then_some(())
    });
}

#[test]
fn a_client_that_leaves_is_noticed_while_its_commands_wait() {
    let mut cases = Vec::new();
    for (protocol, greeting, command, _) in PROTOCOLS {
        cases.push((protocol, "", command.to_owned()));
        cases.push((protocol, greeting, command.repeat(2)));
        // More than is read: its end is not seen.
        cases.push((protocol, greeting, command.repeat(30_000)));
    }
    let literal = "a APPEND x {5+}\r\nhello\r\nb NOOP\r\n";
    cases.push(("imap", "* OK\r\n", literal.to_owned()));
    let message = "DATA\r\nhello\r\n.\r\nQUIT\r\n";
    cases.push(("smtp", "220 mx\r\n", message.to_owned()));
    for (protocol, greeting, sent) in cases {
        let mut session = start(protocol, &format!("{}; {SILENT}", print(greeting)));
        await_greeting(&mut session, protocol, greeting);
        session.client.set_nonblocking(true).unwrap();
        // As much as there is room for.
        let _ = session.client.write_all(sent.as_bytes());
        let (status, log) = session.leave();
        let what = format!("{protocol} {sent:.40?}");
        assert_eq!((status.code(), log.as_str()), (Some(0), ""), "{what}");
    }
}

#[test]
fn a_reset_is_noticed_behind_the_end_of_what_a_client_says() {
    let place = Place::new("handoff-reset");
    for (protocol, greeting, command, _) in PROTOCOLS {
        let given = place.text(protocol);
        let script = format!("{}; exec cat >{given}", print(greeting));
        let (mut session, client, socket) = start_over_tcp(protocol, &script);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.peek(&mut [0]).unwrap();
        session.send(command.repeat(3));
        client.shutdown(Shutdown::Write).unwrap();
        await_end_of_client(&socket);
        // The greeting is unread: this resets.
        drop((client, socket));
        let (status, log) = session.leave();
        assert_eq!((status.code(), log.as_str()), (Some(0), ""), "{protocol}");
        let given = fs::read_to_string(&given).unwrap();
        assert_eq!(given, command, "what waits for an answer goes to nobody");
    }
}

#[test]
fn a_client_that_says_no_more_gets_every_answer() {
    let place = Place::new("handoff-half");
    let gate = place.text("gate");
    nix::unistd::mkfifo(gate.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (protocol, greeting, command, answer) in PROTOCOLS {
        let (greet, reply) = (print(greeting), print(answer));
        let script = format!(
            "{greet}; read -r x; read -r y <{gate}; {reply}; while read -r x; do {reply}; done; exit 7"
        );
        let (mut session, client, socket) = start_over_tcp(protocol, &script);
        await_greeting(&mut session, protocol, greeting);
        session.send(command.repeat(4));
        client.shutdown(Shutdown::Write).unwrap();
        // Only then is the first command answered.
        await_end_of_client(&socket);
        assert!(getsockopt(&socket, sockopt::TcpKeepIdle).unwrap() <= 60);
        drop((client, socket));
        fs::write(&gate, "go\n").unwrap();
        let ended = session.wait();
        assert_eq!(ended.rest(), answer.repeat(4), "{protocol}");
        assert_eq!(ended.status.code(), Some(7), "{protocol}");
    }
}

#[test]
fn an_answer_before_the_upgrade_comes_whole_to_a_client_that_says_no_more() {
    let (client, socket) = UnixStream::pair().unwrap();
    // The answer waits for the client while the end of what that says is read.
    setsockopt(&socket, sockopt::SndBuf, &4096).unwrap();
    let answer = format!("250 {}\r\n", "x".repeat(40_000));
    let reply = "printf '250 '; head -c 40000 /dev/zero | tr '\\0' x; printf '\\r\\n'";
    let script = format!("{}; read -r x; {reply}; {SILENT}", print("220 mx\r\n"));
    let words = ["smtp", "/bin/sh", "-c", &script];
    let mut session = OURS.start_on((client, socket), &[], &words);
    session.expect("220 mx\r\n");
    session.send("NOOP\r\nSTARTTLS\r\n");
    // It is one line: all of it was read, and the upgrade waits for nothing else.
    session.expect(&answer[..1]);
    let ended = session.finish();
    assert!(ended.rest() == answer[1..], "{} bytes", ended.rest.len());
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_program_gets_all_that_waits_for_no_answer_from_a_client_that_left() {
    let place = Place::new("handoff-slow");
    let (gate, given) = (place.text("gate"), place.text("given"));
    nix::unistd::mkfifo(gate.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "{}; read -r x; {}; read -r y <{gate}; exec cat >{given}",
        print("220 mx\r\n"),
        print("354 go\r\n")
    );
    let mut session = start("smtp", &script);
    session.expect("220 mx\r\n");
    session.send("DATA\r\n");
    session.expect("354 go\r\n");
    // The program has not begun to read: this fills all that is between.
    session.client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(count) = session.client.write(&[b'x'; 10_000]) {
        sent += count;
    }
    let mut open = File::options();
    let gate = move || open.write(true).open(&gate).unwrap().write_all(b"go\n");
    let opener = std::thread::spawn(gate);
    let (status, _) = session.leave();
    opener.join().unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(fs::read(&given).unwrap().len(), sent);
}
