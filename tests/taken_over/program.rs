//! A program of ours in the hands of an attacker: all of it is the library's but
//! for what the variable TAKEN_OVER has it do, as `PROGRAM:DEED`.
//!
//! `hold` keeps the private key of the file `$HELD` in memory, so in each of its
//! processes; `short-hours` makes a ticket key last a second. The rest is what an
//! engine or a delivery does when it has given up its rights: `try-CALL`,
//! `ask-MESSAGE...`, `say-WHAT`, `keep-ticket`, and of what fetches a policy
//! `fetch-CALL` and `fetch-say-ANSWER`; `stay`, where an engine's work is done;
//! and `vanish`, where it begins.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "no program that is installed")]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::poll::poll;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;
use openssl::pkey::{PKey, Private};
use ucspi_tls::internals::link::Link;
use ucspi_tls::internals::protocol::Signing;
use ucspi_tls::internals::provider::{Digest, Padding};
use ucspi_tls::internals::sslserver_with_ticket_life;
use ucspi_tls::internals::taken_over::{self, Moment};
use ucspi_tls::internals::tickets::{NewTicket, TicketsWanted};

/// What is done.
static DEED: OnceLock<String> = OnceLock::new();

fn main() -> ExitCode {
    let words = std::env::var_os("TAKEN_OVER").unwrap_or_default();
    let words = words.to_string_lossy();
    let Some((program, deed)) = words.split_once(':') else {
        return ExitCode::from(100);
    };
    if deed == "hold" && hold().is_none() {
        return ExitCode::from(111);
    }
    let _ = DEED.set(deed.to_owned());
    taken_over::by(misbehave);
    match (program, deed) {
        ("sslserver", "short-hours") => sslserver_with_ticket_life(Duration::from_secs(1)),
        ("sslserver", _) => ucspi_tls::sslserver(),
        ("sslclient", _) => ucspi_tls::sslclient(),
        #[cfg(feature = "remote")]
        ("qmail-sslremote", _) => ucspi_tls::qmail_sslremote(),
        _ => ExitCode::from(100),
    }
}

fn hold() -> Option<()> {
    static HELD: OnceLock<PKey<Private>> = OnceLock::new();
    let pem = std::fs::read(std::env::var_os("HELD")?).ok()?;
    HELD.set(PKey::private_key_from_pem(&pem).ok()?).ok()
}

fn misbehave(moment: Moment<'_>) {
    let deed = DEED.get().map_or("", String::as_str);
    let reach = match moment {
        Moment::Confined(reach) => reach,
        Moment::Fetching => {
            if let Some(what) = deed.strip_prefix("fetch-") {
                fetch(what);
            }
            return;
        }
        Moment::Begun if deed == "vanish" => std::process::abort(),
        Moment::Done if deed == "stay" => loop {
            let _ = poll(&mut [], 1000u16);
        },
        Moment::Begun | Moment::Done => return,
    };
    let Some((how, what)) = deed.split_once('-') else {
        return;
    };
    let tell = |line: &str| {
        if let Some(reach) = &reach {
            say(reach.supervisor, &[b"D", line.as_bytes()].concat());
        }
    };
    match (how, reach) {
        ("try", _) => tell(&attempt(what)),
        ("ask", Some(reach)) => {
            for (number, what) in (100..).zip(what.split('-')) {
                tell(&ask(reach.keyholder, number, what));
            }
        }
        ("keep", Some(reach)) => tell(&keep_ticket(reach.keyholder)),
        ("say", Some(reach)) => match what {
            "forged" => tell("x\nsslserver: ok 1 forged"),
            "long" => (0..30).for_each(|at| tell(&format!("{at} {}", "x".repeat(900)))),
            "much" => (0..1000).for_each(|_| tell("much")),
            // Another process in the place of its own.
            _ => say(reach.supervisor, &[b"P", &1i32.to_ne_bytes()[..]].concat()),
        },
        _ => {}
    }
}

/// What a process that fetches a policy does in its place: a system call, or this
/// answer, whatever the web server has.
fn fetch(what: &str) {
    match what.strip_prefix("say-") {
        Some(answer) => {
            let _ = io::stdout().write_all(answer.as_bytes());
            std::process::exit(0);
        }
        None => drop(attempt(what)),
    }
}

/// One message to the supervisor, which may have no room for it.
fn say(supervisor: BorrowedFd<'_>, message: &[u8]) {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let _ = send(supervisor.as_raw_fd(), message, flags);
}

/// A system call that no such process needs.
fn attempt(what: &str) -> String {
    let outcome: io::Result<()> = match what {
        "open" => File::open("/dev/null").map(drop),
        "connect" => std::net::TcpStream::connect(("127.0.0.1", 25)).map(drop),
        "socket" => UnixDatagram::unbound().map(drop),
        "execve" => Err(Command::new("/bin/true").exec()),
        "kill" => nix::sys::signal::kill(Pid::from_raw(1), None).map_err(Into::into),
        "ptrace" => nix::sys::ptrace::traceme().map_err(Into::into),
        _ => return format!("{what}: no such attempt"),
    };
    match outcome {
        Ok(()) => format!("{what} succeeded"),
        Err(error) => format!("{what} failed: {error}"),
    }
}

/// Asks the keyholder for a signature or a ticket, and says what came of it.
fn ask(keyholder: BorrowedFd<'_>, number: u8, what: &str) -> String {
    let mut link = Link::new(keyholder, Instant::now() + Duration::from_secs(5), number);
    if let Some(ticket) = what.strip_prefix("ticket") {
        // Each number is another ticket; without one, a new one is wanted.
        let wanted = TicketsWanted {
            binding: [0; 32],
            shown: ticket.parse().ok().map(|number| [number; 16]),
            new: u8::from(ticket.is_empty()),
        };
        return match link.exchange(Some(wanted), None) {
            Ok(_) => format!("{what} was answered"),
            Err(why) => format!("{what} was not answered: {why}"),
        };
    }
    let message = message(what);
    let signing = Signing {
        key: 0,
        padding: Padding::None,
        digest: match what {
            "sha1" => Digest::Sha1,
            _ => Digest::Sha256,
        },
        message: &message,
    };
    match link.exchange(None, Some(signing)) {
        Ok(_) => format!("{what} was signed"),
        Err(why) => format!("{what} was not signed: {why}"),
    }
}

/// What an attacker would like to have signed, and some of what is honest.
fn message(what: &str) -> Vec<u8> {
    let context: &[u8] = match what {
        "server" => b"TLS 1.3, server CertificateVerify\0",
        "client" => b"TLS 1.3, client CertificateVerify\0",
        _ => b"",
    };
    // ECDHE over X25519, with the base point for a share.
    let mut older = [&[9; 56], &b"DOWNGRD\x01\x03\0\x1d\x20\x09"[..], &[0; 31]].concat();
    match what {
        "certificate" => older[..7].copy_from_slice(&[0x30, 98, 2, 1, 1, 6, 93]),
        "unmarked" => older[63] = 0,
        "twist" => older[68] = 2,
        "group" => older[66] = 26,
        "older" | "sha1" => {}
        _ => return [&[0x20; 64], context, &[7; 32]].concat(),
    }
    older
}

/// Keeps the key of a new ticket for good, and says which bytes it is.
fn keep_ticket(keyholder: BorrowedFd<'_>) -> String {
    static KEPT: OnceLock<Vec<NewTicket>> = OnceLock::new();
    let wanted = TicketsWanted {
        binding: [0; 32],
        shown: None,
        new: 1,
    };
    let mut link = Link::new(keyholder, Instant::now() + Duration::from_secs(5), 100);
    match link.exchange(Some(wanted), None) {
        Ok(answer) => {
            let new = answer.tickets.map(|given| given.new).unwrap_or_default();
            let hex =
                new.iter()
                    .flat_map(|new| new.key.bytes())
                    .fold(String::new(), |mut text, byte| {
                        let _ = write!(text, "{byte:02x}");
                        text
                    });
            let _ = KEPT.set(new);
            format!("kept {hex}")
        }
        Err(why) => format!("kept nothing: {why}"),
    }
}
