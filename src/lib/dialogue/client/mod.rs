//! The client's side of an upgrade: greeting, capabilities, the upgrade command
//! and its answer.
//!
//! What a server says in the clear decides nothing but whether there is an
//! upgrade. It ends with the go-ahead: a byte behind it ends the dialogue, and
//! nothing that was learnt before it is handed on but the greeting.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use super::Protocol;
use crate::text;

pub mod imap;
pub mod lines;
pub mod pop3;
#[cfg(feature = "remote")]
pub mod qmtp;
#[cfg(feature = "remote")]
pub mod sasl;
pub mod sieve;
pub mod smtp;

use lines::{Lines, Stream};

/// How much of a server's reply a message shows, in bytes.
const SHOWN: usize = 400;

/// Why a dialogue ended without the upgrade.
#[derive(Debug)]
pub enum DialogueError {
    /// The server ended the connection.
    Ended(&'static str),
    /// So many bytes came behind the go-ahead, or before they were asked for.
    Injection(usize, Vec<u8>),
    /// Reading or writing failed, or the time is over.
    Io(&'static str, io::Error),
    /// A line or a reply that is longer than any server has need of.
    TooLong(&'static str),
    /// Not the protocol's form.
    Malformed(&'static str, Vec<u8>),
    /// The server's capabilities do not list the upgrade.
    NotOffered(&'static str, Vec<u8>),
    /// IMAP's PREAUTH: there is no upgrade any more (RFC 9051 section 7.1.4).
    PreAuthenticated(Vec<u8>),
    /// The server answered something with a refusal.
    Refused(&'static str, Vec<u8>),
    /// A reply was there before a command was sent to its end: it answers nothing.
    #[cfg(feature = "remote")]
    Unasked(Vec<u8>),
}

impl DialogueError {
    /// The server's reply, where it is one that decided.
    #[must_use]
    pub fn reply(&self) -> Option<&[u8]> {
        match self {
            DialogueError::Ended(_) | DialogueError::Io(..) | DialogueError::TooLong(_) => None,
            DialogueError::Injection(_, reply)
            | DialogueError::Malformed(_, reply)
            | DialogueError::NotOffered(_, reply)
            | DialogueError::PreAuthenticated(reply)
            | DialogueError::Refused(_, reply) => Some(reply),
            #[cfg(feature = "remote")]
            DialogueError::Unasked(reply) => Some(reply),
        }
    }
}

/// So many bytes of a server's that stand before TLS and behind its go-ahead.
#[must_use]
pub fn unasked(count: usize) -> String {
    let were = text::form(count, "was", "were");
    let bytes = text::count(count, "byte");
    format!("{bytes} in the clear that {were} not asked for")
}

/// One line, with the server's reply made safe.
impl fmt::Display for DialogueError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialogueError::Ended(place) => write!(out, "server ended the connection {place}"),
            DialogueError::Injection(count, _) => write!(out, "server sent {}", unasked(*count)),
            DialogueError::Io(place, error) if error.kind() == io::ErrorKind::TimedOut => {
                write!(out, "timed out {place}")
            }
            DialogueError::Io(place, error) => {
                write!(
                    out,
                    "connection lost {place}: {}",
                    crate::report::reason(error)
                )
            }
            DialogueError::TooLong(place) => write!(out, "server's {} is too long", said(place)),
            DialogueError::Malformed(place, _) => {
                write!(out, "server's {} is malformed", said(place))
            }
            DialogueError::NotOffered(command, _) => write!(out, "server does not offer {command}"),
            DialogueError::PreAuthenticated(_) => {
                out.write_str("server's greeting is PREAUTH, which leaves no room for STARTTLS")
            }
            DialogueError::Refused(what, _) => write!(out, "server refused {what}"),
            #[cfg(feature = "remote")]
            DialogueError::Unasked(_) => {
                out.write_str("server sent a reply that was not asked for")
            }
        }?;
        match self.reply() {
            Some(reply) if !reply.is_empty() => write!(out, ": {}", shown(reply)),
            _ => Ok(()),
        }
    }
}

/// What the server said at a place: before its greeting comes nothing but that.
fn said(place: &str) -> String {
    match place {
        "before its greeting" => "greeting".to_owned(),
        place => format!("reply {place}"),
    }
}

/// A reply on one line, its own lines parted by ` / `.
#[must_use]
pub fn shown(reply: &[u8]) -> String {
    let lines: Vec<String> = reply
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .map(text::printable)
        .collect();
    text::excerpt(lines.join(" / ").as_bytes(), SHOWN)
}

/// Does the protocol's dialogue up to the go-ahead. `name` is what this host is
/// called in EHLO and LHLO. Gives the greeting that the program is to see in
/// front of what comes inside TLS.
///
/// # Errors
/// Why there is no upgrade; the connection is of no use any more.
pub fn upgrade(
    stream: &mut impl Stream,
    protocol: Protocol,
    name: &str,
) -> Result<Vec<u8>, DialogueError> {
    let mut lines = Lines::new(stream);
    match protocol {
        Protocol::Imap => imap::upgrade(&mut lines),
        Protocol::Lmtp => smtp::upgrade(&mut lines, "LHLO", name),
        Protocol::Pop3 => pop3::upgrade(&mut lines),
        Protocol::Sieve => sieve::upgrade(&mut lines),
        Protocol::Smtp => smtp::upgrade(&mut lines, "EHLO", name),
    }
}

#[cfg(test)]
mod tests;
