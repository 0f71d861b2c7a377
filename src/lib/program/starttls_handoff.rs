//! starttls-handoff: see starttls-handoff(1).
//!
//! In the clear it stands between the client and a program; once TLS is up it
//! becomes a fresh program itself, so that nothing of what went before is left.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::dialogue::{Dialogue, Protocol, Settings};
use crate::environ::Edits;
use crate::options::starttls_handoff::{Options, TABLE};
use crate::report::{self, Fail, Report, TEMPORARY};
use crate::sys::{child::Running, fd, process, socket};
use crate::text;

mod control;
mod plaintext;

use control::{Answer, Control};
use plaintext::{Client, Outcome, Phase, Times};

/// How long a client may take to start TLS where it must.
const TLS_TIME: Duration = Duration::from_secs(300);

/// Variables that describe a TLS session. A program in the clear sees none,
/// whatever the server was started with.
const SESSION: [&str; 12] = [
    "SSL_ALPN",
    "SSL_CIPHER",
    "SSL_CLIENT_",
    "SSL_COMPRESS_METHOD",
    "SSL_GROUP",
    "SSL_PEER_",
    "SSL_PROTOCOL",
    "SSL_SECURE_RENEG",
    "SSL_SERVER_",
    "SSL_SESSION_",
    "SSL_TLS_SNI",
    "SSL_VERSION_",
];

/// What `UCSPITLS` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Offered,
    Required,
    Without,
}

impl Policy {
    /// By its first character, as s/qmail reads it.
    fn of(value: Option<OsString>) -> Policy {
        match value.unwrap_or_default().as_encoded_bytes().first() {
            Some(b'!') => Policy::Required,
            Some(b'-') => Policy::Without,
            _ => Policy::Offered,
        }
    }
}

/// The program to run.
struct Program {
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// An environment that tells nothing of the control socket, and of TLS
    /// only what is in `session`.
    fn environment(session: Edits) -> Edits {
        let mut edits = Edits::new();
        edits.remove("UCSPITLS");
        for name in control::NAMES {
            edits.remove(name);
        }
        for prefix in SESSION {
            edits.remove_prefix(prefix);
        }
        edits.extend(session);
        edits
    }

    /// The program as a child.
    fn command(&self, session: Edits) -> Command {
        let mut command = Command::new(&self.name);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(Program::environment(session).apply(std::env::vars_os()));
        command
    }

    fn unable(&self) -> impl FnOnce(io::Error) -> Fail {
        let name = text::excerpt(self.name.as_encoded_bytes(), 200);
        Fail::unable(format!("run {name}"))
    }

    /// Becomes the program, on these descriptors. Returns only with the reason
    /// why not.
    fn become_it(&self, session: Edits, descriptors: Vec<(OwnedFd, RawFd)>) -> Fail {
        let mut words = vec![self.name.clone()];
        words.extend_from_slice(&self.arguments);
        let unable = Child {
            words: &words,
            environment: Program::environment(session).apply(std::env::vars_os()),
            identity: None,
            descriptors,
        }
        .exec();
        Fail::temporary(unable.to_string())
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    report::run(TABLE.program, |report| {
        let (options, operands) = TABLE.parse(std::env::args_os().skip(1))?;
        report.verbosity = options.verbosity;
        let mut operands = operands.into_iter();
        let word = operands.next().unwrap_or_default();
        let protocol = word
            .to_str()
            .and_then(Protocol::from_name)
            .ok_or_else(|| TABLE.usage(format!("unknown protocol {}", word.display())))?;
        let program = Program {
            name: operands.next().unwrap_or_default(),
            arguments: operands.collect(),
        };
        let policy = Policy::of(std::env::var_os("UCSPITLS"));
        if policy == Policy::Without {
            // Taken over, the server's descriptors end with exec.
            let _unused = Control::inherit(|name| std::env::var_os(name));
            return Err(program.become_it(Edits::new(), Vec::new()));
        }
        Session {
            protocol,
            policy,
            program,
            report,
            who: Who::from_environment(),
        }
        .run(&options)
    })
}

/// The client, as log lines name it.
struct Who(String);

impl Who {
    fn from_environment() -> Who {
        let address = first_set(&["SSLREMOTEIP", "TCPREMOTEIP"]).unwrap_or("unknown".to_owned());
        Who(format!("{} from {address}", process::own_id()))
    }
}

/// The first of these variables that is set and not empty, made printable.
fn first_set(names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty())
        .map(|value| text::printable(value.as_encoded_bytes()))
}

/// One connection.
struct Session<'a> {
    protocol: Protocol,
    policy: Policy,
    program: Program,
    report: &'a Report,
    who: Who,
}

impl Session<'_> {
    fn run(&self, options: &Options) -> Result<u8, Fail> {
        let control = Control::inherit(|name| std::env::var_os(name))?;
        let copy = |fd: io::Result<_>| fd.map_err(Fail::unable("set up descriptors"));
        let client = Client {
            input: copy(io::stdin().as_fd().try_clone_to_owned())?,
            output: copy(io::stdout().as_fd().try_clone_to_owned())?,
        };
        let settings = Settings {
            protocol: self.protocol,
            allow_clear: options.allow_clear,
            host: options
                .local_name
                .clone()
                .or_else(|| first_set(&["SSLLOCALHOST", "TCPLOCALHOST"]))
                .or_else(socket::host_name)
                .unwrap_or_default(),
        };
        let idle = Duration::from_secs(options.idle_seconds.into());
        let required = self.policy == Policy::Required;
        let end = Instant::now() + TLS_TIME;
        let times = Times {
            idle,
            end: required.then_some(end),
        };
        let dialogue = if required {
            Dialogue::alone(settings)
        } else {
            Dialogue::new(settings)
        };
        let mut phase = Phase::new(dialogue, &client, &control, times);
        if !required && let Err(error) = phase.start(&mut self.program.command(Edits::new())) {
            phase.excuse();
            return Err(self.program.unable()(error));
        }
        match phase.run()? {
            Outcome::Ended(code) => {
                if !required && !phase.was_greeted() {
                    self.report.warning(format_args!(
                        "pid {}: program ended before its greeting, status {code}",
                        self.who.0
                    ));
                }
                return Ok(self.end(code));
            }
            Outcome::Dropped(reason) => return Ok(self.drop_connection(&reason)),
            Outcome::Upgrade => {}
        }
        let end = if required {
            end
        } else {
            Instant::now() + TLS_TIME
        };
        if let Outcome::Dropped(reason) = phase.go_ahead(end)? {
            return Ok(self.drop_connection(&reason));
        }
        let replies = self.protocol.greeting_replies();
        let answer = control
            .start(replies)
            .and_then(|()| control.answer(Instant::now() + TLS_TIME));
        // Before the fresh program starts: it must not find a child that it
        // did not make, nor the old one's locks.
        phase.end()?;
        let session = match answer {
            Ok(Answer::Up(session)) => session,
            Ok(Answer::Failed) => return Ok(self.drop_connection("TLS handshake failed")),
            Ok(Answer::Late) => return Ok(self.drop_connection("TLS handshake took too long")),
            Err(fail) => return Ok(self.drop_connection(&fail.to_string())),
        };
        self.report_tls(&session);
        drop(client);
        if control.drops_replies || replies == 0 {
            let descriptors = vec![(control.read, 0), (control.write, 1)];
            return Err(self.program.become_it(session, descriptors));
        }
        self.swallow(control, session)
    }

    /// Under a server that drops no greeting: runs the program on the TLS
    /// descriptors, but for its output, of which the first reply is dropped.
    fn swallow(&self, control: Control, session: Edits) -> Result<u8, Fail> {
        // The socket is the server's now; a copy of it held open here would
        // keep its end from the client.
        fd::detach_standard().map_err(Fail::unable("set up descriptors"))?;
        let (output, writes) = fd::pipe().map_err(Fail::unable("create pipe"))?;
        let mut command = self.program.command(session);
        command.stdin(control.read).stdout(Stdio::from(writes));
        let mut running = Running::new(&mut command).map_err(self.program.unable())?;
        drop(command);
        let mut greeting = Greeting::default();
        let mut buffer = vec![0; 65536];
        loop {
            let count = fd::read_some(&output, &mut buffer).map_err(Fail::unable("read"))?;
            let rest = greeting.behind(&buffer[..count]);
            if count == 0 || fd::write_all(&control.write, rest).is_err() {
                break;
            }
        }
        // A client that is gone is told to the program by its next write.
        drop((output, control.write));
        let status = running
            .wait()
            .map_err(Fail::unable("wait for the program"))?;
        Ok(plaintext::shell_code(status))
    }

    fn report_tls(&self, session: &Edits) {
        let set = session.apply([]);
        let shown = |name: &str| {
            let value = set.get(std::ffi::OsStr::new(name));
            let value = value.map_or(&b"unknown"[..], |value| value.as_encoded_bytes());
            text::value(value, 100)
        };
        self.report.status(format_args!(
            "tls {} version={} cipher={}",
            self.who.0,
            shown("SSL_PROTOCOL"),
            shown("SSL_CIPHER")
        ));
    }

    fn end(&self, code: u8) -> u8 {
        self.report.status(format_args!(
            "end {} without TLS, status {code}",
            self.who.0
        ));
        code
    }

    fn drop_connection(&self, reason: &str) -> u8 {
        self.report.warning(format_args!(
            "dropping connection, pid {}: {reason}",
            self.who.0
        ));
        self.end(TEMPORARY)
    }
}

/// The first reply of a program, up to its last line: one whose fourth
/// character is not a hyphen.
#[derive(Debug, Default)]
struct Greeting {
    over: bool,
    /// Characters of the line so far, up to four.
    column: u8,
    continued: bool,
}

impl Greeting {
    /// What of these bytes stands behind the greeting.
    fn behind<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.over {
            return bytes;
        }
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'\n' {
                if !self.continued {
                    self.over = true;
                    return &bytes[at + 1..];
                }
                self.column = 0;
                self.continued = false;
            } else if self.column < 4 {
                self.column += 1;
                self.continued = self.column == 4 && byte == b'-';
            }
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_in_the_first_character() {
        for (value, policy) in [
            (None, Policy::Offered),
            (Some(""), Policy::Offered),
            (Some("1"), Policy::Offered),
            (Some("!"), Policy::Required),
            (Some("-"), Policy::Without),
        ] {
            assert_eq!(Policy::of(value.map(OsString::from)), policy, "{value:?}");
        }
    }

    #[test]
    fn a_greeting_ends_with_its_last_line_whatever_the_pieces() {
        for (output, rest) in [
            ("220 mx\r\n250 x", "250 x"),
            ("220-mx\r\n220-y\r\n220 z\r\n250 x", "250 x"),
            ("22\n250-x\n", "250-x\n"),
            ("\nx", "x"),
            ("* OK - hi\r\n* x", "* x"),
            ("220-no end", ""),
        ] {
            for size in 1..=output.len() {
                let mut greeting = Greeting::default();
                let behind: Vec<u8> = output
                    .as_bytes()
                    .chunks(size)
                    .flat_map(|piece| greeting.behind(piece).to_vec())
                    .collect();
                assert_eq!(String::from_utf8_lossy(&behind), rest, "{output:?} {size}");
            }
        }
    }
}
