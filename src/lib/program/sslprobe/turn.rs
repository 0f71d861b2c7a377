//! A probe's side of the pipe to the process that keeps order: it asks for an
//! address and for each connection, and hands its results over.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::probe::result::HostResult;
use crate::sys::poll::{self, Ready};
use crate::sys::process;

/// What a probe says, a line each.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// It wants an address for itself; the number of the wish.
    Begin(u8, IpAddr),
    /// The connection is closed.
    Closed,
    /// It wants to connect; the number of the wish.
    Connect(u8),
    /// A result.
    Result(Box<HostResult>),
}

impl Said {
    /// Reads a line.
    pub(super) fn parse(line: &str) -> Option<Said> {
        let (word, rest) = line.split_at_checked(1)?;
        Some(match word {
            "B" => {
                let (number, address) = rest.split_once(' ')?;
                Said::Begin(number.parse().ok()?, address.parse().ok()?)
            }
            "C" => Said::Connect(rest.parse().ok()?),
            "D" if rest.is_empty() => Said::Closed,
            "{" => Said::Result(Box::new(HostResult::from_json(line).ok()?)),
            _ => return None,
        })
    }
}

/// The probe's end of the pipe.
pub(super) struct Turn {
    stream: UnixStream,
    wishes: u8,
}

impl Turn {
    pub(super) fn new(stream: UnixStream) -> Turn {
        Turn { stream, wishes: 0 }
    }

    /// Waits for an address, for as long as another probe has it.
    pub(super) fn begin(&mut self, address: IpAddr) {
        self.wishes = self.wishes.wrapping_add(1);
        self.say(&format!("B{} {address}\n", self.wishes));
        self.wait(None);
    }

    /// Waits until a connection may be made; false where the deadline comes first.
    pub(super) fn connect(&mut self, deadline: Instant) -> bool {
        self.wishes = self.wishes.wrapping_add(1);
        self.say(&format!("C{}\n", self.wishes));
        self.wait(Some(deadline)) && Instant::now() < deadline
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
            process::end(0);
        }
    }

    /// Waits until the last wish is granted: its number comes. One that was given
    /// up before may be granted, too.
    fn wait(&mut self, deadline: Option<Instant>) -> bool {
        let mut granted = [0];
        loop {
            let mut wanted = [(self.stream.as_fd(), Ready::READ)];
            let waited = poll::wait(&mut wanted, deadline);
            if waited.is_ok() && wanted[0].1 == Ready::default() {
                return false;
            }
            if waited.is_err() || self.stream.read_exact(&mut granted).is_err() {
                process::end(0);
            }
            if granted[0] == self.wishes {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_none_says_nothing() {
        let address = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(Said::parse("B7 127.0.0.1"), Some(Said::Begin(7, address)));
        assert_eq!(Said::parse("C255"), Some(Said::Connect(255)));
        assert_eq!(Said::parse("D"), Some(Said::Closed));
        assert!(matches!(
            Said::parse(r#"{"host":"a"}"#),
            Some(Said::Result(_))
        ));
        for bad in [
            "", "B", "B::1", "B1 x", "C", "C256", "DD", "X", "{", "{}", "\u{e9}",
        ] {
            assert_eq!(Said::parse(bad), None, "{bad:?}");
        }
    }
}
