//! What the two processes of one connection tell the supervisor: whole messages
//! over a pair of sockets that is this connection's own. Its engine has nothing
//! else to speak with, so whoever takes one over can speak of no other.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::report::{LINE_LIMIT, Verbosity};
use crate::settings::Settings;
use crate::sys::parcel;
use crate::sys::poll::{self, Ready};
use crate::sys::process::ProcessId;

/// The longest message, in bytes: a kind, and a line that would be cut anyway.
pub(super) const LIMIT: usize = LINE_LIMIT + 1;

/// The longest settings that a launcher can ask a store for, in bytes.
const SETTINGS_LIMIT: usize = 16384;

/// What a launcher that asked for admission hears: it may go on.
const ADMITTED: &[u8] = b"y";
/// Its client has its share already.
const DENIED: &[u8] = b"n";

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The launcher asks whether its client, whose address this is, may have one
    /// more connection; 0 stands for no limit, and then no answer is waited for.
    Admission(IpAddr, u32),
    /// The launcher's rules are met together for the first time: it is to have a
    /// store of these settings.
    Store(Settings),
    /// The engine's process number: its first message.
    Engine(ProcessId),
    /// The engine begins the handshake: under `-n`, where the program says when.
    Begun,
    /// The handshake is over: from now on it is the bytes that count.
    Over,
    /// A line for the log.
    Line(Kind, String),
}

/// What kind of a line an engine has for the log. All say which connection they
/// are of, in words of the supervisor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Why the connection is dropped.
    Dropped,
    /// How it ended, for a status line.
    Ended,
    /// The fields of the TLS line.
    Tls,
    /// What a test had it try.
    #[cfg(feature = "test-switches")]
    Tried,
}

impl Kind {
    const ALL: &[(u8, Kind)] = &[
        (b'D', Kind::Dropped),
        (b'E', Kind::Ended),
        (b'T', Kind::Tls),
        #[cfg(feature = "test-switches")]
        (b'?', Kind::Tried),
    ];

    /// From which verbosity on it is written.
    pub fn level(self) -> Verbosity {
        match self {
            Kind::Dropped => Verbosity::Errors,
            Kind::Ended => Verbosity::Status,
            Kind::Tls => Verbosity::Tls,
            #[cfg(feature = "test-switches")]
            Kind::Tried => Verbosity::Errors,
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
            Message::Engine(id) => [b"P", &id.to_ne_bytes()[..]].concat(),
            Message::Begun => b"B".to_vec(),
            Message::Over => b"O".to_vec(),
            Message::Line(kind, text) => {
                let letter = Kind::ALL.iter().find(|(_, one)| one == kind);
                let text = &text.as_bytes()[..text.len().min(LIMIT - 1)];
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
            (b'P', id) => Message::Engine(ProcessId::from_ne_bytes(id.try_into().ok()?)),
            (b'B', []) => Message::Begun,
            (b'O', []) => Message::Over,
            (letter, text) => {
                let (_, kind) = Kind::ALL.iter().find(|(one, _)| one == letter)?;
                Message::Line(*kind, String::from_utf8_lossy(text).into_owned())
            }
        })
    }
}

/// The connection's end.
#[derive(Debug)]
pub(super) struct Voice(OwnedFd);

impl Voice {
    /// Both ends: the supervisor's and the connection's.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn pair() -> io::Result<(OwnedFd, Voice)> {
        let (one, other) = parcel::pair()?;
        Ok((one, Voice(other)))
    }

    /// Tells the supervisor. One that is gone needs to be told nothing: its
    /// connections live on. Few messages are ever sent, so they fit.
    pub fn tell(&self, message: &Message) {
        let _ = parcel::give(&self.0, &message.to_bytes());
    }

    /// Asks whether the client may come in. A supervisor that has ended counts no
    /// more.
    ///
    /// # Errors
    /// As send(2) and recv(2).
    pub fn admits(&self, address: IpAddr, limit: usize) -> io::Result<bool> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        match parcel::give(&self.0, &Message::Admission(address, limit).to_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
            other => other?,
        }
        if limit == 0 {
            return Ok(true);
        }
        self.answer()
    }

    /// Asks for a store of these settings. False where there can be none, or
    /// where nobody is left to ask.
    ///
    /// # Errors
    /// As send(2) and recv(2).
    pub fn asks_for_store(&self, settings: &Settings) -> io::Result<bool> {
        let message = Message::Store(settings.clone()).to_bytes();
        if message.len() > SETTINGS_LIMIT {
            return Ok(false);
        }
        match parcel::give(&self.0, &message) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            other => other?,
        }
        self.answer()
    }

    fn answer(&self) -> io::Result<bool> {
        poll::wait(&mut [(self.as_fd(), Ready::READ)], None)?;
        let mut answer = [0; 1];
        match parcel::take(&self.0, &mut answer) {
            Ok(count) => Ok(answer[..count] != *DENIED),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Voice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The next message of a connection; `None` where there is none now.
///
/// # Errors
/// Nobody is there any more, or what came is no message (`InvalidData`).
pub(super) fn hear(end: &OwnedFd) -> io::Result<Option<Message>> {
    let mut buffer = [0; SETTINGS_LIMIT];
    match parcel::take(end, &mut buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) => match Message::from_bytes(&buffer[..length]) {
            Some(message) => Ok(Some(message)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers a launcher that asked for admission.
pub(super) fn answer(end: &OwnedFd, admitted: bool) {
    // A launcher that has ended is reaped like any other.
    let _ = parcel::give(end, if admitted { ADMITTED } else { DENIED });
}

/// How long after its time a process of ours is believed to be at its end by
/// itself.
pub(super) const GRACE: Duration = Duration::from_secs(5);

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
            Message::Begun,
            Message::Over,
            Message::Line(Kind::Dropped, "why".to_owned()),
            Message::Line(Kind::Tls, String::new()),
        ] {
            assert_eq!(Message::from_bytes(&message.to_bytes()), Some(message));
        }
        for garbage in [&b""[..], b"B1", b"P123", b"A1234", b"x"] {
            assert_eq!(Message::from_bytes(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let (supervisor, connection) = Voice::pair().expect("a pair");
        connection.tell(&Message::Line(Kind::Ended, "x".repeat(5000)));
        let heard = hear(&supervisor).expect("no error");
        assert_eq!(
            heard,
            Some(Message::Line(Kind::Ended, "x".repeat(LIMIT - 1)))
        );
        drop(connection);
        assert!(hear(&supervisor).is_err());
    }
}
