//! starttls-handoff under a UCSPI-TLS server that is played by the test: what
//! goes to whom in the clear, what survives the upgrade (nothing), and how each
//! bad client and bad program ends. Real programs where they are installed.
//!
//! The server here makes no TLS: a fixed byte string stands for the handshake,
//! so that a test sees every byte. Its descriptors, commands and variables are
//! those of ucspi-tls(7). Every wait has a deadline.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ucspi_tls::internals::fd;

use crate::harness::process::with_own_descriptors;

/// What a busy machine may need for one step.
const DEADLINE: Duration = Duration::from_secs(15);

/// The client's part of the handshake: it begins as a TLS record does.
const HELLO: &[u8] = b"\x16\x03\x01hello";
/// The server's part.
const DONE: &[u8] = b"\x16done";

/// How the server behaves.
#[derive(Clone, Copy)]
struct Server {
    /// It knows `R`.
    extension: bool,
    /// `SSLREADFD` and `SSLWRITEFD` are one socket.
    one_socket: bool,
    /// `SSLCTLFD` is that socket too.
    one_for_all: bool,
    handshake: Handshake,
}

#[derive(Clone, Copy, PartialEq)]
enum Handshake {
    Fails,
    Works,
    /// The server is gone before anybody asks.
    Gone,
}

const OURS: Server = Server {
    extension: true,
    one_socket: true,
    one_for_all: false,
    handshake: Handshake::Works,
};

const ANOTHERS: Server = Server {
    extension: false,
    one_socket: true,
    one_for_all: true,
    handshake: Handshake::Works,
};

/// A connection to starttls-handoff.
struct Session {
    client: UnixStream,
    process: Child,
    log: Receiver<String>,
    /// Ends with the command that the server was sent.
    server: JoinHandle<Vec<u8>>,
    /// Kept so that the server's end of the control socket can outlive it.
    _control: Option<UnixStream>,
}

struct Ended {
    status: ExitStatus,
    log: String,
    /// What was written to the control socket.
    command: Vec<u8>,
    /// What the client still got.
    rest: Vec<u8>,
}

impl Server {
    fn start(self, environment: &[(&str, &str)], arguments: &[&str]) -> Session {
        let (client, socket) = UnixStream::pair().unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.set_write_timeout(Some(DEADLINE)).unwrap();
        let (mut control, mut child_control) = fd::stream_pair().unwrap();
        let (child_reads, to_program, from_program, child_writes): (OwnedFd, File, File, OwnedFd) =
            if self.one_socket {
                let (ours, childs) = fd::stream_pair().unwrap();
                let copy = ours.try_clone().unwrap();
                let same = childs.try_clone().unwrap();
                (childs, ours.into(), copy.into(), same)
            } else {
                let (child_reads, to_program) = fd::pipe().unwrap();
                let (from_program, child_writes) = fd::pipe().unwrap();
                (
                    child_reads,
                    to_program.into(),
                    from_program.into(),
                    child_writes,
                )
            };
        if self.one_for_all {
            control = to_program.try_clone().unwrap().into();
            child_control = child_reads.try_clone().unwrap();
        }
        let control_number = if self.one_for_all {
            child_reads.as_raw_fd()
        } else {
            child_control.as_raw_fd()
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_starttls-handoff"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SSLREMOTEIP", "192.0.2.7")
            .env("SSLLOCALHOST", "mx.test")
            .env("SSLCTLFD", control_number.to_string())
            .env("SSLREADFD", child_reads.as_raw_fd().to_string())
            .stdin(OwnedFd::from(socket.try_clone().unwrap()))
            .stdout(OwnedFd::from(socket.try_clone().unwrap()));
        let write_number = if self.one_socket {
            child_reads.as_raw_fd()
        } else {
            child_writes.as_raw_fd()
        };
        command.env("SSLWRITEFD", write_number.to_string());
        if self.extension {
            command.env("SSLCTLEXT", "reply");
        }
        command.envs(environment.iter().copied());
        let (stderr, said) = fd::pipe().unwrap();
        command.stderr(said);
        let process = with_own_descriptors(|| {
            // Those whose numbers the program is told, and no copies.
            fd::set_close_on_exec(&child_reads, false).unwrap();
            fd::set_close_on_exec(&child_control, self.one_for_all).unwrap();
            fd::set_close_on_exec(&child_writes, self.one_socket).unwrap();
            command.spawn().unwrap()
        });
        drop((command, child_control, child_reads, child_writes));
        // The log ends when the last process that could write to it has.
        let mut stderr = File::from(stderr);
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            sender.send(text)
        });
        let mut control = UnixStream::from(control);
        let kept = if self.handshake == Handshake::Gone {
            control.shutdown(Shutdown::Both).unwrap();
            Some(control.try_clone().unwrap())
        } else {
            None
        };
        let server =
            thread::spawn(move || self.serve(&mut control, &socket, to_program, from_program));
        Session {
            client,
            process,
            log,
            server,
            _control: kept,
        }
    }

    /// Plays the server's part until the end of the connection.
    fn serve(
        self,
        control: &mut UnixStream,
        socket: &UnixStream,
        to_program: File,
        from_program: File,
    ) -> Vec<u8> {
        let mut command = Vec::new();
        let mut byte = [0];
        while command.last() != Some(&b'Y') {
            match control.read(&mut byte) {
                Ok(1) => command.push(byte[0]),
                // Nobody wants TLS.
                _ => return command,
            }
        }
        let mut socket = socket;
        let mut hello = vec![0; HELLO.len()];
        let read = socket.read_exact(&mut hello);
        if self.handshake == Handshake::Fails || read.is_err() || hello != HELLO {
            let _ = control.shutdown(Shutdown::Both);
            let _ = socket.shutdown(Shutdown::Both);
            return command;
        }
        socket.write_all(DONE).unwrap();
        let variables = b"SSL_PROTOCOL=TLSv9\0SSL_CIPHER=TEST\0PATH=/nowhere\0\0";
        for piece in variables.chunks(7) {
            control.write_all(piece).unwrap();
        }
        // What the program says goes out from another thread, without the
        // replies that are to be dropped.
        let mut drop_lines = usize::from(command.starts_with(b"R1:1,"));
        let mut out = socket.try_clone().unwrap();
        let writer = thread::spawn(move || {
            let mut from_program = from_program;
            let mut byte = [0];
            let mut line = Vec::new();
            while let Ok(1) = from_program.read(&mut byte) {
                line.push(byte[0]);
                if drop_lines > 0 {
                    if byte[0] == b'\n' {
                        drop_lines -= usize::from(line.get(3) != Some(&b'-'));
                        line.clear();
                    }
                    continue;
                }
                if out.write_all(&byte).is_err() {
                    break;
                }
            }
            let _ = out.shutdown(Shutdown::Write);
        });
        let mut to_program = to_program;
        // Not io::copy: splice(2) to a pipe holds back what is less than a page.
        let mut piece = [0; 4096];
        while let Ok(count) = socket.read(&mut piece)
            && count > 0
            && to_program.write_all(&piece[..count]).is_ok()
        {}
        if self.one_socket {
            let _ = UnixStream::from(OwnedFd::from(to_program)).shutdown(Shutdown::Write);
        } else {
            drop(to_program);
        }
        writer.join().unwrap();
        command
    }
}

impl Session {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).unwrap();
    }

    /// The next bytes must be these.
    #[track_caller]
    fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let mut got = vec![0; expected.len()];
        let mut there = 0;
        while there < got.len() {
            match self.client.read(&mut got[there..]) {
                Ok(count) if count > 0 => there += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => panic!(
                    "{other:?} after {:?}, expected {:?}",
                    String::from_utf8_lossy(&got[..there]),
                    String::from_utf8_lossy(expected)
                ),
            }
            assert_eq!(
                String::from_utf8_lossy(&got[..there]),
                String::from_utf8_lossy(&expected[..there])
            );
        }
    }

    /// One line, without its end.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            match self.client.read(&mut byte) {
                Ok(1) => line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&line)),
            }
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// An SMTP reply: all its lines.
    #[track_caller]
    fn reply(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            let last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if last {
                return lines;
            }
        }
    }

    /// Upgrades: from here on everything is said inside TLS.
    #[track_caller]
    fn start_tls(&mut self, command: &str, answer: &str) {
        self.send(command);
        self.expect(answer);
        self.handshake();
    }

    #[track_caller]
    fn handshake(&mut self) {
        self.send(HELLO);
        self.expect(DONE);
    }

    fn finish(self) -> Ended {
        let _ = self.client.shutdown(Shutdown::Write);
        self.wait()
    }

    fn wait(mut self) -> Ended {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.client.read_to_end(&mut rest);
        let log = self
            .log
            .recv_timeout(DEADLINE)
            .expect("every process of the connection ends: nobody holds descriptor 2 any more");
        let status = self.process.wait().unwrap();
        drop(self.client);
        let command = self.server.join().unwrap();
        assert_ne!(status.code(), Some(101), "a panic: {log}");
        Ended {
            status,
            log,
            command,
            rest,
        }
    }
}

impl Ended {
    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("handoff-{name}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// A program of the test's: it greets, then answers by line. It notes what it
/// is told, with its process number and whether TLS is up.
struct Scripted {
    path: String,
    notes: PathBuf,
}

impl Scripted {
    fn new(name: &str, greeting: &str, answers: &str) -> Scripted {
        let directory = scratch(name);
        let notes = directory.join("notes");
        let path = directory.join("program");
        let text = format!(
            "#!/bin/sh\n\
             note() {{ printf '%s\\n' \"$1\" >>{}; }}\n\
             note \"start $$ ${{SSL_PROTOCOL-clear}} ${{SSL_CIPHER-}} ${{UCSPITLS-}}${{SSLCTLFD-}} $PATH\"\n\
             printf '{greeting}'\n\
             while read -r line; do\n\
             line=$(printf %s \"$line\" | tr -d '\\r'); note \"> $line\"\n\
             case $line in\n{answers}\nesac\ndone\nnote end\n",
            notes.display()
        );
        fs::write(&path, text).unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(&path, permissions).unwrap();
        Scripted {
            path: path.to_str().unwrap().to_owned(),
            notes,
        }
    }

    fn smtp(name: &str) -> Scripted {
        Scripted::new(
            name,
            r"220 mx\r\n",
            r"EHLO*) printf '250-mx\r\n250-AUTH PLAIN\r\n250-CHUNKING\r\n250 PIPELINING\r\n';;
            QUIT*) printf '221 bye\r\n'; note end; exit 3;;
            DATA*) printf '354 go\r\n'; while read -r l; do note '. content'; [ x$l = x.$(printf '\r') ] && break; done; printf '250 queued\r\n';;
            AUTH*|STARTTLS*) printf '502 no\r\n';;
            WHAT*) echo $(readlink /proc/$$/fd/0 /proc/$$/fd/1);;
            *) printf '250 ok\r\n';;",
        )
    }

    /// The notes without the lines that start a program.
    fn told(&self) -> Vec<String> {
        let notes = fs::read_to_string(&self.notes).unwrap_or_default();
        notes
            .lines()
            .filter(|line| line.starts_with('>'))
            .map(|line| line[2..].to_owned())
            .collect()
    }

    fn starts(&self) -> Vec<String> {
        let notes = fs::read_to_string(&self.notes).unwrap_or_default();
        notes
            .lines()
            .filter_map(|line| line.strip_prefix("start "))
            .map(str::to_owned)
            .collect()
    }
}

// ---- The upgrade ----

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

// ---- Policy ----

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
    assert_eq!(program.starts().len(), 1);
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

// ---- The public list of attacks on servers ----

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

const GO: &str = "220 2.0.0 Ready to start TLS\r\n";

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

// ---- Bad input ----

/// A program that answers every line and notes nothing.
const ECHO: &str = "printf '220 mx\\r\\n'; while read -r line; do printf '250 ok\\r\\n'; done";

#[test]
fn a_line_over_64_kib_is_refused_in_the_protocols_words() {
    for (protocol, greeting, answer) in [
        ("smtp", "220 mx\r\n", "500 5.5.2 Line too long\r\n"),
        ("lmtp", "220 mx\r\n", "500 5.5.2 Line too long\r\n"),
        ("pop3", "+OK\r\n", "-ERR Line too long\r\n"),
        ("imap", "* OK\r\n", "* BYE Line too long\r\n"),
        ("sieve", "OK\r\n", "BYE \"Line too long\"\r\n"),
    ] {
        let script = format!("printf '{}'; cat >/dev/null", greeting.escape_default());
        for (length, fits) in [
            (65535, true),
            (65536, true),
            (65537, false),
            (300_000, false),
        ] {
            let mut session = OURS.start(&[], &[protocol, "/bin/sh", "-c", &script]);
            let id = session.process.id();
            session.line();
            if protocol == "sieve" {
                session.line();
            }
            let mut line = b"a NOOP ".to_vec();
            line.resize(length - 2, b'x');
            line.extend_from_slice(b"\r\n");
            // The answer may come before the flood is over.
            let _ = session.client.write_all(&line);
            let ended = session.finish();
            if fits {
                assert_eq!(
                    ended.status.code(),
                    Some(0),
                    "{protocol} {length} {}",
                    ended.log
                );
                continue;
            }
            assert_eq!(ended.rest(), answer, "{protocol} {length}");
            assert_eq!(ended.status.code(), Some(111));
            assert_eq!(
                ended.log,
                format!(
                    "starttls-handoff: warning: dropping connection, pid {id} from 192.0.2.7: \
                     client sent a line over 65536 bytes\n"
                )
            );
        }
    }
}

#[test]
fn a_line_without_end_is_refused_before_memory_is() {
    let mut session = OURS.start(&[("UCSPITLS", "!")], &["smtp", "/bin/true"]);
    session.expect("220 mx.test ESMTP\r\n");
    let block = [b'x'; 8192];
    while session.client.write_all(&block).is_ok() {}
    let ended = session.finish();
    assert!(
        ended.log.contains("client sent a line over 65536 bytes"),
        "{}",
        ended.log
    );
    assert_eq!(ended.status.code(), Some(111));
}

#[test]
fn odd_bytes_end_nothing_that_need_not_end() {
    for (sent, shown) in [
        (
            "NOOP\0\r\n",
            "500 5.5.2 Control characters are not allowed in a command\r\n",
        ),
        (
            "\0\0\0\n",
            "500 5.5.2 Control characters are not allowed in a command\r\n",
        ),
        (
            "NOOP\rNOOP\r\n",
            "500 5.5.2 Control characters are not allowed in a command\r\n",
        ),
        ("NOOP\n", "250 ok\r\n"),
        ("\r\n", "250 ok\r\n"),
        ("\n", "250 ok\r\n"),
        ("MAIL FROM:<\u{e9}@x>\r\n", "250 ok\r\n"),
    ] {
        let mut session = OURS.start(&[], &["smtp", "/bin/sh", "-c", ECHO]);
        session.expect("220 mx\r\n");
        session.send(sent);
        session.expect(shown);
        session.send([0xff, 0xfe, b'\n']);
        session.expect("250 ok\r\n");
        let ended = session.finish();
        assert_eq!(
            (ended.status.code(), ended.rest()),
            (Some(0), String::new())
        );
    }
}

#[test]
fn a_thousand_commands_in_one_write_are_all_answered_in_order() {
    let script = "printf '220 mx\\r\\n'; n=0; while read -r line; do n=$((n+1)); printf '250 %s\\r\\n' $n; done";
    for (command, policy) in [("NOOP", ""), ("RSET", ""), ("NOOP", "!")] {
        let mut session = OURS.start(&[("UCSPITLS", policy)], &["smtp", "/bin/sh", "-c", script]);
        session.line();
        session.send(format!("{command}\r\n").repeat(1000));
        for number in 1..=1000 {
            let expected = if policy.is_empty() {
                format!("250 {number}")
            } else {
                "250 2.0.0 ok".to_owned()
            };
            assert_eq!(session.line(), expected);
        }
        session.finish();
    }
}

#[test]
fn a_session_byte_by_byte_is_the_same_session() {
    let program = Scripted::smtp("bytes");
    let mut session = OURS.start(&[], &["smtp", &program.path]);
    session.expect("220 mx\r\n");
    for byte in b"EHLO c\r\nMAIL FROM:<a>\r\nDATA\r\nSTARTTLS\r\n.\r\nSTARTTLS\r\n" {
        session.send([*byte]);
    }
    session.expect("250-mx\r\n250-STARTTLS\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
    session.expect("250 ok\r\n354 go\r\n250 queued\r\n");
    session.expect(GO);
    session.handshake();
    session.send("QUIT\r\n");
    session.expect("221 bye\r\n");
    assert_eq!(session.finish().status.code(), Some(3));
}

#[test]
fn a_client_that_says_nothing_is_told_and_dropped() {
    for (policy, greeting) in [("", "220 mx\r\n"), ("!", "220 mx.test ESMTP\r\n")] {
        let mut session = OURS.start(
            &[("UCSPITLS", policy)],
            &["-t", "1", "smtp", "/bin/sh", "-c", ECHO],
        );
        let id = session.process.id();
        session.expect(greeting);
        session.expect("421 4.4.2 mx.test idle for too long\r\n");
        let ended = session.finish();
        assert_eq!(ended.status.code(), Some(111));
        assert_eq!(
            ended.log,
            format!(
                "starttls-handoff: warning: dropping connection, pid {id} from 192.0.2.7: \
                 idle for 1 s\n"
            )
        );
    }
}

#[test]
fn a_program_that_answers_nothing_is_ended() {
    // It reads nothing, says nothing, and does not heed the end of its input.
    let script = "trap '' TERM; while :; do sleep 100; done";
    let mut session = OURS.start(&[], &["-t", "1", "smtp", "/bin/sh", "-c", script]);
    session.send("EHLO c\r\n");
    session.expect("421 4.4.2 mx.test idle for too long\r\n");
    let ended = session.finish();
    assert_eq!(ended.status.code(), Some(111));
    assert!(
        ended.log.contains("from 192.0.2.7: idle for 1 s"),
        "{}",
        ended.log
    );
    // The same at the upgrade: the old program must be gone before the new
    // one starts.
    let script = "printf '220 mx\\r\\n'; trap '' TERM; while :; do sleep 100; done";
    let mut session = OURS.start(
        &[],
        &[
            "smtp",
            "/bin/sh",
            "-c",
            &format!("[ ${{SSL_PROTOCOL-}} ] || {{ {script}; }}; echo x; echo $PPID"),
        ],
    );
    session.expect("220 mx\r\n");
    session.start_tls("STARTTLS\r\n", GO);
    let parent = session.line();
    assert_eq!(parent, std::process::id().to_string());
    session.finish();
}

#[test]
fn a_program_that_dies_at_once_ends_the_connection() {
    for (program, code) in [("/bin/true", 0), ("/bin/false", 1)] {
        let mut session = OURS.start(&[], &["smtp", program]);
        let id = session.process.id();
        let _ = session.client.write_all(b"EHLO c\r\n");
        let ended = session.wait();
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(ended.rest(), "");
        assert_eq!(
            ended.log,
            format!(
                "starttls-handoff: warning: pid {id} from 192.0.2.7: \
                 program ended before its greeting, status {code}\n"
            )
        );
    }
    let session = OURS.start(
        &[],
        &["-v", "smtp", "/bin/sh", "-c", "printf '220 m'; kill -9 $$"],
    );
    let ended = session.wait();
    assert_eq!(ended.rest(), "220 m", "what it said is delivered");
    assert_eq!(ended.status.code(), Some(137));
    assert!(
        ended.log.contains("without TLS, status 137"),
        "{}",
        ended.log
    );
}

#[test]
fn a_program_that_floods_is_held_back_and_ends_with_the_client() {
    // Lines without end.
    let mut session = OURS.start(&[], &["-v", "smtp", "/bin/sh", "-c", "exec yes 250-x"]);
    let mut block = vec![0; 1 << 20];
    session.client.read_exact(&mut block).unwrap();
    let memory = fs::read_to_string(format!("/proc/{}/status", session.process.id())).unwrap();
    let peak: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    assert!(peak < 32 * 1024, "{peak} kB");
    // The client goes away without a word.
    let Session {
        client,
        process,
        log,
        server,
        ..
    } = session;
    drop(client);
    let log = log.recv_timeout(DEADLINE).unwrap();
    let mut process = process;
    let status = process.wait().unwrap();
    server.join().unwrap();
    assert!(log.contains("from 192.0.2.7 without TLS"), "{log}");
    assert_eq!(status.signal(), None);
    // One line without end.
    let session = OURS.start(&[], &["smtp", "/bin/cat", "/dev/zero"]);
    let ended = session.wait();
    assert_eq!(ended.rest(), "421 4.3.0 mx.test has no service now\r\n");
    assert!(
        ended.log.contains("program sent a line over 65536 bytes"),
        "{}",
        ended.log
    );
    assert_eq!(ended.status.code(), Some(111));
}

#[test]
fn a_slow_client_gets_everything_and_a_deaf_program_stops_it() {
    // Far more than all buffers hold, read only at the end.
    let script = "printf '220 mx\\r\\n'; head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 70";
    let session = OURS.start(&[], &["smtp", "/bin/sh", "-c", script]);
    let ended = session.wait_for_bytes(3_000_000);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    // The program reads nothing: the client's writes must stop.
    let mut session = OURS.start(
        &[],
        &[
            "smtp",
            "/bin/sh",
            "-c",
            "printf '220 mx\\r\\n354 x\\r\\n'; exec sleep 600",
        ],
    );
    session.expect("220 mx\r\n354 x\r\n");
    session.client.set_nonblocking(true).unwrap();
    let block = b"MAIL FROM:<x>\r\n".repeat(1000);
    let mut sent = 0_usize;
    while let Ok(count) = session.client.write(&block) {
        sent += count;
        assert!(sent < 16 << 20, "nothing holds the client back");
    }
    session.client.set_nonblocking(false).unwrap();
    // It goes away; the program, deaf as it is, goes too.
    session.process.kill().unwrap();
    let _ = session.process.wait();
}

impl Session {
    /// Reads to the end and checks how much there was.
    fn wait_for_bytes(self, least: usize) -> Ended {
        let ended = self.wait();
        assert!(
            ended.rest.len() >= least,
            "{} of {least} bytes",
            ended.rest.len()
        );
        ended
    }
}

// ---- Command line and start ----

#[test]
fn wrong_usage_is_100_and_no_server_is_111() {
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_starttls-handoff"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for arguments in [
        &[][..],
        &["smtp"],
        &["http", "/bin/true"],
        &["-J", "smtp", "/bin/true"],
        &["-t", "0", "smtp", "/bin/true"],
        &["-t", "1x", "smtp", "/bin/true"],
        &["-l"],
    ] {
        let (code, text) = run(arguments, &[]);
        assert_eq!(code, 100, "{arguments:?}");
        assert!(
            text.starts_with("starttls-handoff: usage: ")
                && text.contains("; starttls-handoff [ -qQva ]"),
            "{text}"
        );
    }
    let (code, text) = run(&["smtp", "/bin/true"], &[]);
    assert_eq!(code, 111);
    assert_eq!(
        text,
        "starttls-handoff: fatal: no UCSPI-TLS server above: SSLCTLFD is not set\n"
    );
    let (code, text) = run(&["-q", "smtp", "/bin/true"], &[]);
    assert_eq!((code, text.as_str()), (111, ""));
    // Without TLS no server is needed.
    let (code, _) = run(&["smtp", "/bin/sh", "-c", "exit 9"], &[("UCSPITLS", "-")]);
    assert_eq!(code, 9);
    let (code, text) = run(&["smtp", "/no/such"], &[("UCSPITLS", "-")]);
    assert_eq!(code, 111);
    assert_eq!(
        text,
        "starttls-handoff: fatal: unable to run /no/such: no such file or directory\n"
    );
}

#[test]
fn a_descriptor_that_is_no_socket_is_refused_with_the_cure() {
    for (number, redirection) in [(0, "</dev/null"), (1, "| cat")] {
        let script = format!(
            "{} smtp /bin/cat {redirection}",
            env!("CARGO_BIN_EXE_starttls-handoff")
        );
        let (ours, control) = fd::stream_pair().unwrap();
        let output = with_own_descriptors(|| {
            fd::set_close_on_exec(&control, false).unwrap();
            let number = control.as_raw_fd().to_string();
            Command::new("/bin/sh")
                .args(["-c", &script])
                .envs(["SSLCTLFD", "SSLREADFD", "SSLWRITEFD"].map(|name| (name, &number)))
                .stdin(Stdio::from(ours.try_clone().unwrap()))
                .stdout(Stdio::from(ours))
                .output()
                .unwrap()
        });
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            text,
            format!(
                "starttls-handoff: fatal: descriptor {number} is not the client's socket: a \
                 program such as recordio or fixcrio belongs behind starttls-handoff, not \
                 before it\n"
            )
        );
        if number == 0 {
            assert_eq!(output.status.code(), Some(111));
        }
    }
}

#[test]
fn a_program_that_cannot_run_is_111_before_and_after_tls() {
    let mut session = OURS.start(&[], &["smtp", "/no/such"]);
    session.expect("421 4.3.0 mx.test has no service now\r\n");
    let ended = session.finish();
    assert_eq!(ended.status.code(), Some(111));
    assert!(
        ended.log.contains("unable to run /no/such: no such file"),
        "{}",
        ended.log
    );
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[("UCSPITLS", "!")], &["smtp", "/no/such"]);
        session.expect("220 mx.test ESMTP\r\n");
        session.start_tls("STARTTLS\r\n", GO);
        let ended = session.finish();
        assert_eq!(ended.status.code(), Some(111));
        assert!(
            ended.log.contains("unable to run /no/such: no such file"),
            "{}",
            ended.log
        );
    }
}

// ---- Real programs ----

/// The path of a program, in PATH or in the folders of daemons.
fn installed(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: {name} is not installed");
    }
    Some(found?.to_str()?.to_owned())
}

#[test]
fn smtpfront_echo_serves_before_and_inside_tls() {
    let Some(smtpfront) = installed("smtpfront-echo") else {
        return;
    };
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["smtp", &smtpfront, "accept"]);
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
    let Some(popa3d) = installed("popa3d") else {
        return;
    };
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["pop3", &popa3d]);
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
    let Some(exim) = installed("exim4") else {
        return;
    };
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["smtp", &exim, "-bs"]);
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
    let Some(imap4d) = installed("imap4d") else {
        return;
    };
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[], &["imap", &imap4d, "--inetd"]);
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
