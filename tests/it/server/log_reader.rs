//! Whoever reads the log may be slow, stopped, or gone: clients are served, and what
//! could not be written is written later, or counted.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use openssl::pkey::Id;

use crate::harness::process::{self, PATIENCE};
use crate::harness::{
    Client, Dial, Identity, KeyKind, Place, Server, Setup, as_user_of_its_own, dial, eventually,
    ours, overlay, program, root, skip_part,
};

/// What the log is full of.
const FILLER: &str = "filler\n";

/// Both ends of a log that nobody reads yet.
struct Log {
    reader: Box<dyn Read + Send>,
    writer: OwnedFd,
}

impl Log {
    fn pipe() -> Log {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        Log {
            reader: Box::new(File::from(reader)),
            writer,
        }
    }

    fn socket() -> Log {
        let (reader, writer) = UnixStream::pair().unwrap();
        Log {
            reader: Box::new(reader),
            writer: writer.into(),
        }
    }

    /// Reads until the log ends with the end of a connection.
    fn read_on(&mut self) {
        let mut text = String::new();
        let mut piece = [0; 4096];
        while !(text.contains("sslserver: end ") && text.ends_with("status: 0/40\n")) {
            let count = self.reader.read(&mut piece).unwrap();
            assert!(count > 0, "{text}");
            text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
    }

    /// Leaves no room for a byte. Nobody else writes meanwhile, so that the flag, which
    /// all have in common, is nobody else's.
    fn fill(&self) {
        let flags = OFlag::from_bits_retain(fcntl(&self.writer, FcntlArg::F_GETFL).unwrap());
        let set = |flags| fcntl(&self.writer, FcntlArg::F_SETFL(flags)).unwrap();
        set(flags | OFlag::O_NONBLOCK);
        let mut writer = File::from(self.writer.try_clone().unwrap());
        while writer.write_all(FILLER.as_bytes()).is_ok() {}
        while writer.write_all(b"\n").is_ok() {}
        set(flags);
    }

    /// The lines from now on, until nobody has the log open any more.
    fn wake(self) -> Receiver<String> {
        let Log { mut reader, writer } = self;
        drop(writer);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut rest = Vec::new();
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                rest.extend_from_slice(&piece[..count]);
                while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                    let line = rest.drain(..=end).collect();
                    let _ = sender.send(String::from_utf8(line).unwrap());
                }
            }
            assert!(rest.is_empty(), "half a line: {rest:?}");
        });
        receiver
    }
}

fn next(lines: &Receiver<String>) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).expect("another line");
        if !FILLER.contains(&line) {
            return line.trim_end().to_owned();
        }
    }
}

/// One connection from its beginning to its end.
pub(super) fn serve(server: &Server) {
    let mut client = Dial::to(server).connect();
    client.send("hello");
    assert_eq!(client.read_exact(5), b"hello");
    client.half_close();
    assert_eq!(client.text(), "");
    server.quiet();
}

/// HUP, and another certificate.
fn renew(place: &Place, server: &Server) {
    let (_, key) = place.identity("own", &Identity::localhost(KeyKind::Rsa2048));
    // It may be another user's server.
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    server.signal(Signal::SIGHUP);
    eventually("the new certificate is served", || {
        let client = Dial::to(server).connect();
        (client.server_key() == Id::RSA).then_some(())
    });
}

/// What a connection's lines begin with under `-V`, by their order.
pub(super) const STEPS: [&str; 6] = [
    "status: 1/40",
    "pid ",
    "ok ",
    "tls ",
    "end ",
    "status: 0/40",
];

fn is_step(line: &str) -> bool {
    let text = line.strip_prefix("sslserver: ");
    let text = text.unwrap_or_else(|| panic!("no whole line: {line:?}"));
    STEPS.iter().any(|step| text.starts_with(step))
}

/// The step of a line, and whose it is.
pub(super) fn step(line: &str) -> (usize, Option<u32>) {
    let text = line.trim_start_matches("sslserver: ");
    let at = STEPS.iter().position(|step| text.starts_with(step));
    (
        at.unwrap(),
        text.split(' ').nth(1).and_then(|pid| pid.parse().ok()),
    )
}

/// The next line that is a connection's.
fn step_of(lines: &Receiver<String>) -> String {
    loop {
        let line = next(lines);
        if is_step(&line) {
            return line;
        }
    }
}

/// How many lines this one says were lost.
fn lost_lines(line: &str) -> Option<usize> {
    let line = line.strip_prefix("sslserver: warning: ")?;
    let count = line.strip_suffix(" log lines were lost: the log's reader was too slow")?;
    Some(count.parse().unwrap())
}

/// The ways to a log: a pipe that the server can open again, one that it cannot, a
/// socket as of the journal; and what stands before the server.
fn ways() -> Vec<(Log, Vec<String>)> {
    let mut ways = vec![(Log::pipe(), Vec::new()), (Log::socket(), Vec::new())];
    if root() && overlay::reachable() && program("setpriv").is_some() {
        ways.push((Log::pipe(), as_user_of_its_own()));
    } else {
        skip_part!("only root can be another user, who must reach the program");
    }
    ways
}

#[test]
fn a_log_that_nobody_reads_stops_no_client() {
    let place = Place::new("stuck-log");
    for (mut log, words) in ways() {
        let (certificate, key) = place.identity("own", &Identity::localhost(KeyKind::P256));
        let server = Setup::new(&place, &["cat"])
            .through(words)
            .options("-V")
            .pair(certificate, key)
            .stderr(log.writer.try_clone().unwrap())
            .start();
        serve(&server);
        log.read_on();
        log.fill();
        for _ in 0..20 {
            serve(&server);
        }
        // What HUP says has a place, too.
        renew(&place, &server);
        server.quiet();
        let lines = log.wake();
        for count in 0..20 * STEPS.len() {
            let line = step_of(&lines);
            assert_eq!(step(&line).0, count % STEPS.len(), "{line}");
        }
        while !next(&lines).contains("CERTFILE") {}
        server.stop();
    }
}

/// What is kept has a bound. The log is told of what is lost, in its place.
#[test]
fn lines_beyond_what_is_kept_are_counted() {
    // Each has thirty lines of a kilobyte more than the five of every connection.
    const MANY: usize = 4;
    const LINES: usize = 35;
    let place = Place::new("lost-lines");
    let mut log = Log::pipe();
    let server = Setup::new(&place, &["cat"])
        .taken_over("say-long")
        .options("-v")
        .stderr(log.writer.try_clone().unwrap())
        .start();
    serve(&server);
    log.read_on();
    log.fill();
    for _ in 0..MANY {
        serve(&server);
    }
    let lines = log.wake();
    let place_of = |line: &str| match line.split_once("from 127.0.0.1: ") {
        Some((_, text)) => Some(3 + text.split_once(' ').unwrap().0.parse::<usize>().unwrap()),
        None => is_step(line).then(|| match step(line).0 {
            at @ 0..=2 => at,
            at => LINES - STEPS.len() + at,
        }),
    };
    let (mut got, mut lost) = (0, 0);
    while lost == 0 {
        let line = next(&lines);
        if let Some(count) = lost_lines(&line) {
            lost = count;
        } else if let Some(at) = place_of(&line) {
            // In order, and none left out.
            assert_eq!(at, got % LINES, "{line}");
            got += 1;
        }
    }
    // A busy machine has other lines among them, a keyholder's that was slow.
    let all = MANY * LINES;
    assert!((all..all + MANY).contains(&(got + lost)), "{got}, {lost}");
    assert!(got > LINES, "{got}");
    serve(&server);
    for wanted in 0..LINES {
        let line = next(&lines);
        assert_eq!(place_of(&line), Some(wanted), "{line}");
    }
    server.stop();
}

/// Its end waits for no reader, and what is left of its connections is told.
#[test]
fn a_server_ends_though_nobody_reads_its_log() {
    let place = Place::new("stuck-end");
    for (mut log, words) in ways() {
        let server = Setup::new(&place, &["cat"])
            .through(words)
            .options("-V")
            .stderr(log.writer.try_clone().unwrap())
            .start();
        serve(&server);
        log.read_on();
        log.fill();
        serve(&server);
        let client = Dial::to(&server).connect();
        server.retire();
        let lines = log.wake();
        for wanted in (0..STEPS.len()).chain(0..4) {
            let line = step_of(&lines);
            assert_eq!(step(&line).0, wanted, "{line}");
        }
        drop(client);
        while !next(&lines).contains(" from 127.0.0.1: ") {}
        server.over();
        // What has no connection any more is not lost either, when its reader is slow.
        let mut log = Log::pipe();
        let server = Setup::new(&place, &["cat"])
            .options("-V")
            .stderr(log.writer.try_clone().unwrap())
            .start();
        serve(&server);
        log.read_on();
        log.fill();
        serve(&server);
        server.retire();
        let lines = log.wake();
        for wanted in 0..STEPS.len() {
            let line = step_of(&lines);
            assert_eq!(step(&line).0, wanted, "{line}");
        }
        server.over();
    }
}

/// What it has to say when it starts it does not wait for long, either.
#[test]
fn a_server_starts_though_nobody_reads_its_log() {
    let place = Place::new("stuck-start");
    let log = Log::pipe();
    log.fill();
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .env("CIPHERS", "ECDHE-ECDSA-AES128-GCM-SHA256:NO-SUCH-SUITE")
        .stderr(log.writer.try_clone().unwrap())
        .start();
    serve(&server);
    let lines = log.wake();
    let line = next(&lines);
    assert!(line.contains("NO-SUCH-SUITE"), "{line}");
    server.stop();
}

/// Nobody reads, and nobody will: each line is lost, and nothing else.
#[test]
fn a_log_that_cannot_be_written_ends_no_server() {
    let place = Place::new("no-log");
    let closed = Log::pipe().writer;
    let (gone, _) = UnixStream::pair().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    for log in [closed, gone.into(), full.into()] {
        let (certificate, key) = place.identity("own", &Identity::localhost(KeyKind::P256));
        let server = Setup::new(&place, &["cat"])
            .options("-V")
            .pair(certificate, key)
            .stderr(log)
            .start();
        serve(&server);
        renew(&place, &server);
        for _ in 0..5 {
            serve(&server);
        }
        server.stop();
    }
}

/// Everybody waits for the keyholder: it must not wait for a reader, whatever engines
/// make it say.
#[test]
fn the_keyholder_signs_on_though_nobody_reads_its_log() {
    const MANY: usize = 20;
    let place = Place::new("stuck-refusals");
    let log = Log::pipe();
    let server = Setup::new(&place, &["cat"])
        .taken_over("ask-client")
        .stderr(log.writer.try_clone().unwrap())
        .start();
    log.fill();
    for _ in 0..MANY {
        assert!(Dial::to(&server).attempt().is_err());
        server.quiet();
    }
    let lines = log.wake();
    let (mut told, mut refused, mut hung) = (0, 0, 0);
    while told < MANY || refused == 0 {
        let line = next(&lines);
        told += usize::from(line.contains("client was not signed: the keyholder refused"));
        refused += usize::from(line.contains("refused to sign for a TLS process"));
        hung += usize::from(line.contains("did not answer"));
    }
    // One that hung at what it says would have done so each time; a busy machine has
    // one now and then.
    assert!(hung < MANY / 2, "{hung}");
    server.stop();
}

/// A session inside TLS does not stand still for a line about it.
#[test]
fn starttls_handoff_waits_for_no_reader() {
    let place = Place::new("stuck-handoff");
    let log = Log::pipe();
    let handoff = ours("starttls-handoff");
    let words = [
        &*handoff,
        "-v",
        "pop3",
        "/bin/sh",
        "-c",
        "printf '+OK\\r\\n'; cat",
    ];
    let server = Setup::new(&place, &words)
        .options("-nV")
        .stderr(log.writer.try_clone().unwrap())
        .start();
    log.fill();
    let mut client = dial::plain(server.at);
    for said in ["", "STLS\r\n"] {
        client.write_all(said.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(&client).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("+OK"), "{answer}");
    }
    let mut client = Dial::to(&server).over(client).unwrap();
    client.send("NOOP\r\n");
    assert_eq!(client.read_exact(6), b"NOOP\r\n");
    client.half_close();
    assert_eq!(client.text(), "");
    server.quiet();
    server.stop();
}

/// -w ends a session whose log nobody reads.
#[test]
fn sslclient_ends_in_its_time_though_nobody_reads_its_log() {
    let place = Place::new("stuck-client");
    let server = Setup::script(&place, "sleep 60 >&- 2>&-").start();
    let log = Log::pipe();
    log.fill();
    let mut client = Client::new(&place)
        .options("-vw1")
        .command("localhost", server.port, &["/bin/sh", "-c", "cat <&6"])
        .stderr(log.writer.try_clone().unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    process::wait(&mut client, PATIENCE);
}
