//! The client's side of an upgrade: greeting, capabilities, the upgrade command
//! and its answer.
//!
//! What a server says in the clear decides nothing but whether there is an
//! upgrade. It ends with the go-ahead: a byte behind it ends the dialogue, and
//! nothing that was learnt before it is handed on but the greeting.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};

use super::Protocol;
use crate::text;

pub mod imap;
pub mod lines;
pub mod pop3;
pub mod qmtp;
pub mod sasl;
pub mod sieve;
pub mod smtp;

use lines::Lines;

/// How much of a server's reply a message shows, in bytes.
const SHOWN: usize = 400;

/// Why a dialogue ended without the upgrade.
#[derive(Debug)]
pub enum Refusal {
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
}

impl Refusal {
    /// The server's reply, where it is one that decided.
    #[must_use]
    pub fn reply(&self) -> Option<&[u8]> {
        match self {
            Refusal::Ended(_) | Refusal::Io(..) | Refusal::TooLong(_) => None,
            Refusal::Injection(_, reply)
            | Refusal::Malformed(_, reply)
            | Refusal::NotOffered(_, reply)
            | Refusal::PreAuthenticated(reply)
            | Refusal::Refused(_, reply) => Some(reply),
        }
    }
}

/// One line, with the server's reply made safe.
impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Ended(place) => write!(out, "server ended the connection {place}"),
            Refusal::Injection(count, _) => write!(
                out,
                "server sent {count} bytes in the clear that were not asked for"
            ),
            Refusal::Io(place, error) if error.kind() == io::ErrorKind::TimedOut => {
                write!(out, "timed out {place}")
            }
            Refusal::Io(place, error) => {
                write!(
                    out,
                    "connection lost {place}: {}",
                    crate::report::reason(error)
                )
            }
            Refusal::TooLong(place) => write!(out, "server's reply {place} is too long"),
            Refusal::Malformed(place, _) => write!(out, "server's reply {place} is malformed"),
            Refusal::NotOffered(command, _) => write!(out, "server does not offer {command}"),
            Refusal::PreAuthenticated(_) => {
                out.write_str("server's greeting is PREAUTH, which leaves no room for STARTTLS")
            }
            Refusal::Refused(what, _) => write!(out, "server refused {what}"),
        }?;
        match self.reply() {
            Some(reply) if !reply.is_empty() => write!(out, ": {}", shown(reply)),
            _ => Ok(()),
        }
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
    stream: &mut (impl Read + Write),
    protocol: Protocol,
    name: &str,
) -> Result<Vec<u8>, Refusal> {
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
