//! What the two processes of one connection tell the supervisor, both ends: whole
//! messages over a pair of sockets that is this connection's own. Its engine has
//! nothing else to speak with, so whoever takes one over can speak of no other.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::delayed::Terms;
use crate::report::{LINE_LIMIT, Verbosity};
use crate::settings::Settings;
use crate::sys::poll::{self, Ready};
use crate::sys::process::ProcessId;
use crate::sys::{fd, parcel};

/// The longest message, in bytes: settings that a launcher asks a store for.
pub(super) const MESSAGE_LIMIT: usize = 16384;

/// Room for one message.
pub(super) type MessageBuffer = [u8; MESSAGE_LIMIT];

/// The answers to a launcher that asked.
const YES: &[u8] = b"y";
const NO: &[u8] = b"n";

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The launcher asks whether its client, whose address this is, may have one
    /// more connection; 0 stands for no limit, and then no answer is waited for.
    Admission(IpAddr, u32),
    /// The launcher's rules are met together for the first time: it is to have a
    /// store of these settings.
    Store(Settings),
    /// Under `-n` the launcher becomes the program: so an engine is to serve the client
    /// when it asks for TLS. Its last message.
    Plaintext(Terms),
    /// A line of the launcher's for the log, as it is to be written: there was no room for
    /// it.
    Said(Vec<u8>),
    /// The launcher's engine has ended without an answer, and has said why if it has said
    /// anything. Its last message.
    Unanswered,
    /// The engine's process number: its first message, where its launcher started it.
    Engine(ProcessId),
    /// The engine begins the handshake: under `-n`, where the program says when.
    Begun,
    /// The handshake is over: from now on it is the bytes that count.
    Over,
    /// A line for the log.
    Line(LineKind, String),
}

/// What kind of a line an engine has for the log. All say which connection they
/// are of, in words of the supervisor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// Why the connection is dropped.
    Dropped,
    /// How it ended, for a status line.
    Ended,
    /// The fields of the TLS line.
    Tls,
}

impl LineKind {
    const ALL: &[(u8, LineKind)] = &[
        (b'D', LineKind::Dropped),
        (b'E', LineKind::Ended),
        (b'T', LineKind::Tls),
    ];

    /// From which verbosity on it is written.
    pub fn level(self) -> Verbosity {
        match self {
            LineKind::Dropped => Verbosity::Errors,
            LineKind::Ended => Verbosity::Status,
            LineKind::Tls => Verbosity::Tls,
        }
    }
}

impl Message {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Message::Admission(address, limit) => {
                let v6 = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => *v6,
                };
                [b"A", &limit.to_ne_bytes()[..], &v6.octets()].concat()
            }
            Message::Store(settings) => [b"S", &settings.to_bytes()[..]].concat(),
            Message::Plaintext(terms) => {
                let host = terms.host.as_deref().unwrap_or_default();
                let settings = terms.settings.as_ref().map(Settings::to_bytes);
                let is_own = [u8::from(settings.is_none())];
                let settings = settings.unwrap_or_default();
                [b"N", &is_own[..], host, b"\0", &settings].concat()
            }
            Message::Said(line) => [b"L", &line[..]].concat(),
            Message::Unanswered => b"U".to_vec(),
            Message::Engine(id) => [b"P", &id.to_ne_bytes()[..]].concat(),
            Message::Begun => b"B".to_vec(),
            Message::Over => b"O".to_vec(),
            Message::Line(kind, text) => {
                let letter = LineKind::ALL.iter().find(|(_, one)| one == kind);
                let text = &text.as_bytes()[..text.len().min(LINE_LIMIT)];
                [&[letter.map_or(0, |(letter, _)| *letter)], text].concat()
            }
        }
    }

    /// `None`: no process of ours sends that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Message> {
        let (letter, rest) = bytes.split_first()?;
        Some(match (letter, rest) {
            (b'A', [l0, l1, l2, l3, address @ ..]) => {
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?);
                let limit = u32::from_ne_bytes([*l0, *l1, *l2, *l3]);
                Message::Admission(address.to_canonical(), limit)
            }
            (b'S', settings) => Message::Store(Settings::from_bytes(settings)),
            (b'N', [is_own, rest @ ..]) => {
                let end = rest.iter().position(|&byte| byte == 0)?;
                let (host, settings) = (&rest[..end], &rest[end + 1..]);
                Message::Plaintext(Terms {
                    settings: (*is_own == 0).then(|| Settings::from_bytes(settings)),
                    host: (!host.is_empty()).then(|| host.to_vec()),
                })
            }
            (b'L', line) => Message::Said(line.to_vec()),
            (b'P', id) => Message::Engine(ProcessId::from_ne_bytes(id.try_into().ok()?)),
            (b'U', []) => Message::Unanswered,
            (b'B', []) => Message::Begun,
            (b'O', []) => Message::Over,
            (letter, text) => {
                let (_, kind) = LineKind::ALL.iter().find(|(one, _)| one == letter)?;
                Message::Line(*kind, String::from_utf8_lossy(text).into_owned())
            }
        })
    }
}

/// The connection's end.
#[derive(Clone, Debug)]
pub(super) struct Sender(Rc<OwnedFd>);

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct Receiver(OwnedFd);

/// Both ends of a connection's channel.
///
/// # Errors
/// As socketpair(2).
pub(super) fn pair() -> io::Result<(Receiver, Sender)> {
    let (one, other) = parcel::pair()?;
    Ok((Receiver(one), Sender(Rc::new(other))))
}

impl Sender {
    /// Tells the supervisor. One that is gone needs to be told nothing: its
    /// connections live on. Few messages are ever sent, so they fit.
    pub fn tell(&self, message: &Message) {
        let _ = self.hands(message);
    }

    /// As [`Sender::tell`]; whether somebody takes it.
    pub fn hands(&self, message: &Message) -> bool {
        parcel::send(&*self.0, &message.to_bytes()).is_ok()
    }

    /// As [`Sender::tell`], for a message that others make long: false where it is longer
    /// than the supervisor takes.
    pub fn tell_long(&self, message: &Message) -> bool {
        let bytes = message.to_bytes();
        if bytes.len() <= MESSAGE_LIMIT {
            let _ = parcel::send(&*self.0, &bytes);
        }
        bytes.len() <= MESSAGE_LIMIT
    }

    /// Asks the supervisor, and waits for the answer. `None` where nobody is left
    /// to answer, or the message is longer than the supervisor takes.
    ///
    /// # Errors
    /// As send(2) and recv(2).
    pub fn ask(&self, message: &Message) -> io::Result<Option<bool>> {
        let bytes = message.to_bytes();
        if bytes.len() > MESSAGE_LIMIT {
            return Ok(None);
        }
        match parcel::send(&*self.0, &bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            other => other?,
        }
        poll::wait(&mut [(self.as_fd(), Ready::READ)], None)?;
        let mut answer = [0; 1];
        match parcel::receive(&*self.0, &mut answer) {
            Ok(count) => Ok(Some(answer[..count] != *NO)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Receiver {
    /// The same with a number from `least` on, if there is one.
    #[must_use]
    pub fn moved_above(self, least: RawFd) -> Receiver {
        fd::duplicate_above(&self.0, least).map_or(self, Receiver)
    }

    /// The next message of a connection; `None` where there is none now.
    ///
    /// # Errors
    /// Nobody is there any more, or what came is no message (`InvalidData`).
    pub fn next(&self, buffer: &mut MessageBuffer) -> io::Result<Option<Message>> {
        match parcel::receive(&self.0, buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => match Message::from_bytes(&buffer[..length]) {
                Some(message) => Ok(Some(message)),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers a launcher that asked.
    pub fn answer(&self, yes: bool) {
        // A launcher that has ended is reaped like any other.
        let _ = parcel::send(&self.0, if yes { YES } else { NO });
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        for message in [
            Message::Admission("192.0.2.7".parse().expect("an address"), 3),
            Message::Admission("2001:db8::7".parse().expect("an address"), 0),
            Message::Engine(4711),
            Message::Store(Settings::from_bytes(b"CERTFILE=/a=b\0TLS_MIN=1.3\0")),
            Message::Plaintext(Terms {
                settings: None,
                host: None,
            }),
            Message::Plaintext(Terms {
                settings: Some(Settings::from_bytes(b"CERTFILE=/a=b\0TLS_MIN=1.3\0")),
                host: Some(b"mail.example.org".to_vec()),
            }),
            Message::Said(b"sslserver: pid 1 from 192.0.2.7\n".to_vec()),
            Message::Unanswered,
            Message::Begun,
            Message::Over,
            Message::Line(LineKind::Dropped, "why".to_owned()),
            Message::Line(LineKind::Tls, String::new()),
        ] {
            assert_eq!(Message::from_bytes(&message.to_bytes()), Some(message));
        }
        for garbage in [&b""[..], b"B1", b"P123", b"A1234", b"x"] {
            assert_eq!(Message::from_bytes(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let (supervisor, connection) = pair().expect("a pair");
        connection.tell(&Message::Line(LineKind::Ended, "x".repeat(5000)));
        let mut buffer = [0; MESSAGE_LIMIT];
        let heard = supervisor.next(&mut buffer).expect("no error");
        assert_eq!(
            heard,
            Some(Message::Line(LineKind::Ended, "x".repeat(LINE_LIMIT)))
        );
        drop(connection);
        assert!(supervisor.next(&mut buffer).is_err());
    }
}
