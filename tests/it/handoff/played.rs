//! A UCSPI-TLS server that the test plays, and a program that notes what it is
//! told: what goes to whom in the clear is seen here, byte by byte.
//!
//! The server makes no TLS: a fixed byte string stands for the handshake,
//! so that a test sees every byte. Its descriptors, commands and variables are
//! those of ucspi-tls(7). Every wait has a deadline.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use ucspi_tls::internals::fd;

use crate::harness::process::{PATIENCE, no_panic, panicked, with_own_descriptors};

use crate::harness::{Place, ours};

/// The client's part of the handshake: it begins as a TLS record does.
pub const HELLO: &[u8] = b"\x16\x03\x01hello";
/// The answer to STARTTLS.
pub const GO: &str = "220 2.0.0 Ready to start TLS\r\n";

/// The server's part.
pub const DONE: &[u8] = b"\x16done";

/// How the server behaves.
#[derive(Clone, Copy)]
pub struct Server {
    /// It knows `R`.
    pub extension: bool,
    /// `SSLREADFD` and `SSLWRITEFD` are one socket.
    pub one_socket: bool,
    /// `SSLCTLFD` is that socket too.
    pub one_for_all: bool,
    pub handshake: Handshake,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Handshake {
    Fails,
    Works,
    /// The server is gone before anybody asks.
    Gone,
}

pub const OURS: Server = Server {
    extension: true,
    one_socket: true,
    one_for_all: false,
    handshake: Handshake::Works,
};

pub const ANOTHERS: Server = Server {
    extension: false,
    one_socket: true,
    one_for_all: true,
    handshake: Handshake::Works,
};

/// A connection to starttls-handoff.
pub struct Session {
    pub client: UnixStream,
    pub process: Child,
    pub log: Receiver<String>,
    /// Ends with the command that the server was sent.
    pub server: JoinHandle<Vec<u8>>,
    /// Kept so that the server's end of the control socket can outlive it.
    _control: Option<UnixStream>,
}

pub struct Ended {
    pub status: ExitStatus,
    pub log: String,
    /// What was written to the control socket.
    pub command: Vec<u8>,
    /// What the client still got.
    pub rest: Vec<u8>,
}

impl Server {
    pub fn start(self, environment: &[(&str, &str)], arguments: &[&str]) -> Session {
        self.start_on(UnixStream::pair().unwrap(), environment, arguments)
    }

    /// The same on a connection that is made: the client's side, and the server's.
    pub fn start_on(
        self,
        (client, socket): (UnixStream, UnixStream),
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Session {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
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
        let mut command = Command::new(ours("starttls-handoff"));
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
    pub fn serve(
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
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).unwrap();
    }

    /// The next bytes must be these.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
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
    pub fn line(&mut self) -> String {
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
    pub fn reply(&mut self) -> Vec<String> {
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
    pub fn start_tls(&mut self, command: &str, answer: &str) {
        self.send(command);
        self.expect(answer);
        self.handshake();
    }

    #[track_caller]
    pub fn handshake(&mut self) {
        self.send(HELLO);
        self.expect(DONE);
    }

    pub fn finish(self) -> Ended {
        let _ = self.client.shutdown(Shutdown::Write);
        self.wait()
    }

    /// The client closes its socket. How that ended, and the log.
    pub fn leave(mut self) -> (ExitStatus, String) {
        drop(self.client);
        let log = self.log.recv_timeout(PATIENCE);
        let log = log.expect("the connection ends with the client");
        let status = self.process.wait().unwrap();
        self.server.join().unwrap();
        no_panic(&log);
        assert!(!panicked(status), "a panic: {log}");
        (status, log)
    }

    pub fn wait(mut self) -> Ended {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.client.read_to_end(&mut rest);
        let log = self
            .log
            .recv_timeout(PATIENCE)
            .expect("every process of the connection ends: nobody holds descriptor 2 any more");
        let status = self.process.wait().unwrap();
        drop(self.client);
        let command = self.server.join().unwrap();
        no_panic(&log);
        assert!(!panicked(status), "a panic: {log}");
        Ended {
            status,
            log,
            command,
            rest,
        }
    }
}

impl Ended {
    pub fn rest(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

/// A program of the test's: it greets, then answers by line. It notes what it
/// is told, with its process number and whether TLS is up.
pub struct Scripted {
    pub path: String,
    pub notes: PathBuf,
    _place: Place,
}

impl Scripted {
    pub fn new(name: &str, greeting: &str, answers: &str) -> Scripted {
        let place = Place::new(&format!("handoff-{name}"));
        let notes = place.path("notes");
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
        Scripted {
            path: place.script("program", &text),
            notes,
            _place: place,
        }
    }

    pub fn smtp(name: &str) -> Scripted {
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
    pub fn told(&self) -> Vec<String> {
        let notes = fs::read_to_string(&self.notes).unwrap_or_default();
        notes
            .lines()
            .filter(|line| line.starts_with('>'))
            .map(|line| line[2..].to_owned())
            .collect()
    }

    pub fn starts(&self) -> Vec<String> {
        let notes = fs::read_to_string(&self.notes).unwrap_or_default();
        notes
            .lines()
            .filter_map(|line| line.strip_prefix("start "))
            .map(str::to_owned)
            .collect()
    }
}
