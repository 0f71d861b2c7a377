//! starttls-handoff: see starttls-handoff(1).
//!
//! In the clear it stands between the client and a program; once TLS is up it
//! becomes a fresh program itself, so that nothing of what went before is left.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::dialogue::{Dialogue, InsideTls, Protocol, Settings};
use crate::environ::Edits;
use crate::log;
use crate::options::starttls_handoff::{
    self as command_line, Line, Options, POLICY, TABLE, TlsUse,
};
use crate::report::{Fail, Report, TEMPORARY};
use crate::settings;
use crate::sys::{fd, process, socket, standard};
use crate::text;

mod client;
mod plaintext;
pub(crate) mod ucspi_tls;

use client::Client;
use plaintext::{Outcome, Phase, Times};
use ucspi_tls::{Answer, Control};

/// How long a client may take to start TLS where it must, and to say its first
/// word where it need not.
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
        edits.remove(POLICY);
        for name in ucspi_tls::NAMES {
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
    fn exec(&self, session: Edits, descriptors: Vec<(OwnedFd, RawFd)>) -> Fail {
        let mut words = vec![self.name.clone()];
        words.extend_from_slice(&self.arguments);
        Child {
            words: &words,
            environment: Program::environment(session).apply(std::env::vars_os()),
            identity: None,
            descriptors,
        }
        .exec()
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(|report| {
        let line = command_line::read(std::env::args_os().skip(1))?;
        let Line {
            options,
            protocol,
            program,
        } = line;
        report.set_verbosity(options.verbosity);
        // -t ends the session, whoever reads what is said of it.
        let _log = log::begin(report.program);
        for misspelt in settings::misspelt_in_environment(&[POLICY]) {
            report.warning(misspelt);
        }
        let tls = TlsUse::of(&std::env::var_os(POLICY).unwrap_or_default())?;
        let mut words = program.into_iter();
        let program = Program {
            name: words.next().unwrap_or_default(),
            arguments: words.collect(),
        };
        Handoff {
            protocol,
            tls,
            program,
            report,
            label: label(),
        }
        .run(&options)
    })
}

/// The connection as log lines name it: `4711 from 192.0.2.7`.
fn label() -> String {
    let address = first_set(&["SSLREMOTEIP", "TCPREMOTEIP"]).unwrap_or("unknown".to_owned());
    format!("{} from {address}", process::own_id())
}

/// The first of these variables that is set and not empty, made printable.
fn first_set(names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty())
        .map(|value| text::printable(value.as_encoded_bytes()))
}

/// What the plaintext phase came to.
enum Upgraded {
    /// The connection is over, with this exit code.
    Not(u8),
    /// TLS is up: its variables, and what is left to do inside it.
    To(Edits, InsideTls),
}

/// One connection.
struct Handoff<'a> {
    protocol: Protocol,
    tls: TlsUse,
    program: Program,
    report: &'a Report,
    /// As log lines name it.
    label: String,
}

impl Handoff<'_> {
    fn run(&self, options: &Options) -> Result<u8, Fail> {
        let settings = Settings {
            protocol: self.protocol,
            allow_clear: options.allow_clear,
            host: host_name(options),
        };
        match self.before_tls(options, &settings) {
            Ok((_, Upgraded::Not(code))) => Ok(self.end(code)),
            Ok((control, Upgraded::To(session, between))) => {
                self.serve(control, session, settings, between)
            }
            // What ended the connection is told before its end.
            Err(fail) => {
                self.report.fatal(&fail);
                Ok(self.end(fail.code()))
            }
        }
    }

    /// All that comes before TLS, or instead of it.
    fn before_tls(
        &self,
        options: &Options,
        settings: &Settings,
    ) -> Result<(Control, Upgraded), Fail> {
        let control = Control::inherit(|name| std::env::var_os(name));
        if self.tls == TlsUse::Off {
            // Taken over, the server's descriptors end with exec.
            let _unused = control;
            return Err(self.program.exec(Edits::new(), Vec::new()));
        }
        let control = control?;
        let upgraded = self.in_plaintext(&control, options, settings)?;
        Ok((control, upgraded))
    }

    fn in_plaintext(
        &self,
        control: &Control,
        options: &Options,
        settings: &Settings,
    ) -> Result<Upgraded, Fail> {
        let client = client()?;
        let required = self.tls == TlsUse::Required;
        let end = Instant::now() + TLS_TIME;
        let times = Times {
            idle: Some(Duration::from_secs(options.idle_seconds.into())),
            first: Some(end),
            end: required.then_some(end),
        };
        let dialogue = if required {
            Dialogue::alone(settings.clone())
        } else {
            Dialogue::new(settings.clone())
        };
        let mut phase = Phase::new(dialogue, client, Some(control), times);
        if !required {
            if let Err(error) = phase.start(&mut self.program.command(Edits::new())) {
                phase.excuse();
                return Err(self.program.unable()(error));
            }
        }
        match phase.run()? {
            Outcome::Ended(code) => {
                if !required && phase.was_mute() {
                    self.report.warning(format_args!(
                        "pid {}: program ended before its greeting, status {code}",
                        self.label
                    ));
                }
                return Ok(Upgraded::Not(code));
            }
            Outcome::Dropped(reason) => return Ok(self.drop_connection(&reason)),
            Outcome::Upgrade => {}
        }
        let end = if required {
            end
        } else {
            Instant::now() + TLS_TIME
        };
        self.upgrade(phase, control, end)
    }

    /// Lets the client begin, and waits for the end of the handshake. The
    /// program that served in the clear ends with that.
    fn upgrade(
        &self,
        mut phase: Phase<'_>,
        control: &Control,
        end: Instant,
    ) -> Result<Upgraded, Fail> {
        let dropped = |reason: &str| Ok(self.drop_connection(reason));
        if let Outcome::Dropped(reason) = phase.go_ahead(end)? {
            return dropped(&reason);
        }
        let replies = self.protocol.greeting_replies();
        let between = InsideTls {
            drops_greeting: replies > 0 && !control.drops_replies,
            lists_capabilities: phase.has_listed_capabilities(),
        };
        let answer = control
            .start(replies)
            .and_then(|()| control.answer(Instant::now() + TLS_TIME));
        // Before the fresh program starts: it must not find a child that it
        // did not make, nor the old one's locks.
        phase.end()?;
        match answer {
            Ok(Answer::Up(session)) => Ok(Upgraded::To(session, between)),
            Ok(Answer::Failed) => dropped("TLS handshake failed"),
            Ok(Answer::Late) => dropped("TLS handshake took too long"),
            Err(fail) => dropped(&fail.to_string()),
        }
    }

    /// Inside TLS: becomes the program, or stays between.
    fn serve(
        &self,
        control: Control,
        session: Edits,
        settings: Settings,
        between: InsideTls,
    ) -> Result<u8, Fail> {
        self.report_tls(&session);
        if between == InsideTls::default() {
            let descriptors = vec![(control.read, 0), (control.write, 1)];
            return Err(self.program.exec(session, descriptors));
        }
        // The socket is the server's now; a copy of it held open here would
        // keep its end from the client.
        fd::detach_standard().map_err(Fail::unable("set up descriptors"))?;
        let client = Client::new(control.read, control.write);
        let dialogue = Dialogue::inside(settings, between);
        // The server ends what is idle for too long.
        let mut phase = Phase::new(dialogue, client, None, Times::default());
        phase
            .start(&mut self.program.command(session))
            .map_err(self.program.unable())?;
        match phase.run()? {
            Outcome::Ended(code) => Ok(code),
            Outcome::Dropped(reason) => {
                self.warn(&reason);
                Ok(TEMPORARY)
            }
            // No command leads there inside TLS.
            Outcome::Upgrade => Ok(TEMPORARY),
        }
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
            self.label,
            shown("SSL_PROTOCOL"),
            shown("SSL_CIPHER")
        ));
    }

    fn end(&self, code: u8) -> u8 {
        self.report.status(format_args!(
            "end {} without TLS, status {code}",
            self.label
        ));
        code
    }

    fn warn(&self, reason: &str) {
        self.report.warning(format_args!(
            "dropping connection, pid {}: {reason}",
            self.label
        ));
    }

    fn drop_connection(&self, reason: &str) -> Upgraded {
        self.warn(reason);
        Upgraded::Not(TEMPORARY)
    }
}

/// The client's socket. A pipe in its place, of a program between the server and
/// us, would swallow what the client says behind the upgrade command, and the
/// server would wait for a handshake in vain.
fn client() -> Result<Client, Fail> {
    let (input, output, _) = standard::three();
    for (number, is_socket) in [(0, socket::is_one(&input)), (1, socket::is_one(&output))] {
        if !is_socket {
            return Err(Fail::temporary(format!(
                "descriptor {number} is not the client's socket: a program such as recordio or \
                 fixcrio belongs behind starttls-handoff, not before it"
            )));
        }
    }
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(Fail::unable("set up descriptors"))
    };
    Ok(Client::new(copy(input.as_fd())?, copy(output.as_fd())?))
}

/// The name of this host in greetings of our own.
fn host_name(options: &Options) -> String {
    options
        .local_name
        .clone()
        .filter(|name| !name.is_empty())
        // That is what `-l 0` of the server leaves: no name.
        .or_else(|| first_set(&["SSLLOCALHOST", "TCPLOCALHOST"]).filter(|name| name != "0"))
        .or_else(socket::host_name)
        .unwrap_or_default()
}
