//! The control socket of UCSPI-TLS, the server's end: see ucspi-tls(7).
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use crate::report::Fail;
use crate::sys::{fd, socket};
use crate::text;

/// The extensions that `SSLCTLEXT` announces.
pub const EXTENSIONS: &str = "reply";

/// No program greets more often.
const REPLIES_LIMIT: u32 = 1000;

/// A program's command that starts TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsCommand {
    /// The variables are to be sent back (`Y`).
    pub answer: bool,
    /// How many replies of the program the client must not see (`R`).
    pub drop_replies: u32,
}

/// What the bytes so far come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A command may follow.
    Idle,
    /// Inside `R`: the length of its netstring.
    Length(usize),
    /// Inside `R`: so many digits left, the number so far.
    Digits(usize, u32),
    /// Inside `R`: its comma.
    Comma(u32),
}

/// Reads commands byte by byte, however they are cut.
#[derive(Debug)]
struct Parser {
    state: State,
    drop_replies: u32,
}

impl Parser {
    fn new() -> Parser {
        Parser {
            state: State::Idle,
            drop_replies: 0,
        }
    }

    /// Takes one byte.
    fn feed(&mut self, byte: u8) -> Result<Option<TlsCommand>, Fail> {
        let digit = u32::from(byte.wrapping_sub(b'0'));
        self.state = match (self.state, byte) {
            (State::Idle, b'y' | b'Y') => {
                return Ok(Some(TlsCommand {
                    answer: byte == b'Y',
                    drop_replies: self.drop_replies,
                }));
            }
            (State::Idle, b'R') => State::Length(0),
            (State::Length(length @ 1..=4), b':') => State::Digits(length, 0),
            (State::Length(0), b'1'..=b'4') => State::Length(digit as usize),
            (State::Digits(left, number), b'0'..=b'9') => {
                let number = number * 10 + digit;
                if left == 1 {
                    State::Comma(number)
                } else {
                    State::Digits(left - 1, number)
                }
            }
            (State::Comma(number @ ..=REPLIES_LIMIT), b',') => {
                self.drop_replies = number;
                State::Idle
            }
            _ => {
                let byte = text::quoted(&[byte], 4);
                return Err(format!("the program sent an unknown command: {byte}").into());
            }
        };
        Ok(None)
    }
}

/// Waits until the program asks for TLS. `None`: it has closed the socket, by
/// its end at the latest, and wants none.
///
/// # Errors
/// As read(2), or a command that is none.
pub fn wait_for_start(control: impl AsFd) -> Result<Option<TlsCommand>, Fail> {
    let mut byte = [0];
    command_in(|| match fd::read_some(&control, &mut byte) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(byte[0])),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error.into()),
    })
}

/// The command in bytes that are asked for one by one: nothing behind it is ours.
/// `None`: they end before it.
///
/// # Errors
/// As `next`, or a command that is none.
pub fn command_in(
    mut next: impl FnMut() -> Result<Option<u8>, Fail>,
) -> Result<Option<TlsCommand>, Fail> {
    let mut parser = Parser::new();
    while let Some(byte) = next()? {
        if let Some(start) = parser.feed(byte)? {
            return Ok(Some(start));
        }
    }
    Ok(None)
}

/// Ends the socket in good order: what the program sent and nobody read, by now or
/// from now on, would make its end of file a reset.
pub fn end(control: impl AsFd) {
    if socket::refuse(&control).is_ok() {
        let mut scrap = [0; 512];
        while matches!(socket::receive(&control, &mut scrap), Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<TlsCommand>, Fail> {
        let mut parser = Parser::new();
        for &byte in bytes {
            if let Some(start) = parser.feed(byte)? {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }

    #[test]
    fn commands_are_understood() {
        let start = |answer, drop_replies| {
            Ok(Some(TlsCommand {
                answer,
                drop_replies,
            }))
        };
        assert_eq!(read(b"y"), start(false, 0));
        assert_eq!(read(b"Y"), start(true, 0));
        assert_eq!(read(b"R1:1,Y"), start(true, 1));
        assert_eq!(read(b"R2:12,y"), start(false, 12));
        assert_eq!(read(b"R4:1000,y"), start(false, 1000));
        assert_eq!(read(b"R1:1"), Ok(None));
    }

    #[test]
    fn junk_is_refused() {
        for bad in [
            &b"x"[..],
            b"R:,",
            b"R0:,",
            b"R5:10000,",
            b"R4:1001,",
            b"R1:x,",
            b"R1:1;",
            b"R11:",
            b"R04:1000,",
            b"R5",
            b"\0",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
