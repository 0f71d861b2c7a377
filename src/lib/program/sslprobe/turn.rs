//! A probe's side of the pipe to the process that schedules: it asks for an
//! address and for each connection, and hands its results over.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;

use crate::probe::result::HostResult;
use crate::sys::process;

/// What a probe says, a line each.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ProbeMessage {
    /// It wants an address for itself.
    Begin(IpAddr),
    /// The connection is closed.
    Closed,
    /// It wants to connect.
    Connect,
    /// A result.
    Result(Box<HostResult>),
}

impl ProbeMessage {
    /// Reads a line.
    pub(super) fn parse(line: &str) -> Option<ProbeMessage> {
        let (word, rest) = line.split_at_checked(1)?;
        Some(match word {
            "B" => ProbeMessage::Begin(rest.parse().ok()?),
            "C" if rest.is_empty() => ProbeMessage::Connect,
            "D" if rest.is_empty() => ProbeMessage::Closed,
            "{" => ProbeMessage::Result(Box::new(HostResult::from_json(line).ok()?)),
            _ => return None,
        })
    }
}

/// The probe's end of the pipe.
pub(super) struct Turn {
    stream: UnixStream,
}

impl Turn {
    pub(super) fn new(stream: UnixStream) -> Turn {
        Turn { stream }
    }

    /// Waits for an address, for as long as another probe has it.
    pub(super) fn begin(&mut self, address: IpAddr) {
        self.say(&format!("B{address}\n"));
        self.wait();
    }

    /// Waits until a connection may be made.
    pub(super) fn connect(&mut self) {
        self.say("C\n");
        self.wait();
    }

    /// A connection is closed.
    pub(super) fn closed(&mut self) {
        self.say("D\n");
    }

    /// Hands a result over.
    pub(super) fn result(&mut self, result: &HostResult) -> io::Result<()> {
        let line = result.to_json().map_err(io::Error::other)?;
        self.stream.write_all(line.as_bytes())?;
        self.stream.write_all(b"\n")
    }

    fn say(&mut self, line: &str) {
        if self.stream.write_all(line.as_bytes()).is_err() {
            // Nobody wants the result any more.
            process::exit_now(0);
        }
    }

    /// Waits until the request is granted: a byte comes.
    fn wait(&mut self) {
        if self.stream.read_exact(&mut [0]).is_err() {
            process::exit_now(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_none_says_nothing() {
        let address = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(
            ProbeMessage::parse("B127.0.0.1"),
            Some(ProbeMessage::Begin(address))
        );
        assert_eq!(ProbeMessage::parse("C"), Some(ProbeMessage::Connect));
        assert_eq!(ProbeMessage::parse("D"), Some(ProbeMessage::Closed));
        assert!(matches!(
            ProbeMessage::parse(r#"{"host":"a"}"#),
            Some(ProbeMessage::Result(_))
        ));
        for bad in [
            "", "B", "B::g", "B1 x", "CC", "DD", "X", "{", "{}", "\u{e9}",
        ] {
            assert_eq!(ProbeMessage::parse(bad), None, "{bad:?}");
        }
    }
}
