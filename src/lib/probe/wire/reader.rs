//! A server's first flight, put together from its records as the bytes come.
#![forbid(unsafe_code)]

use super::content;
use super::message::{KeyExchange, Malformed, ServerHello, certificates};
use crate::probe::result::Version;
use crate::probe::suites;

/// The longest Certificate message that is read, in bytes.
pub const CERTIFICATE_LIMIT: usize = 200 * 1024;
/// The same of any other message.
const MESSAGE_LIMIT: usize = 64 * 1024;
/// RFC 5246 section 6.2.3: the longest record.
const RECORD_LIMIT: usize = (1 << 14) + 2048;
/// How much of what is no TLS is kept, in bytes.
const OPENING: usize = 64;

/// Handshake types, RFC 8446 appendix B.3.
mod kind {
    pub(super) const HELLO_REQUEST: u8 = 0;
    pub(super) const SERVER_HELLO: u8 = 2;
    pub(super) const CERTIFICATE: u8 = 11;
    pub(super) const SERVER_KEY_EXCHANGE: u8 = 12;
    pub(super) const CERTIFICATE_REQUEST: u8 = 13;
    pub(super) const SERVER_HELLO_DONE: u8 = 14;
    pub(super) const CERTIFICATE_STATUS: u8 = 22;
}

/// What a server said to a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// What it chose.
    pub hello: ServerHello,
    /// Below TLS 1.3: its certificates, its own first.
    pub certificates: Vec<Vec<u8>>,
    /// Below TLS 1.3: its part of an ephemeral key exchange.
    pub exchange: Option<KeyExchange>,
    /// Below TLS 1.3: it asks for a certificate of ours.
    pub wants_certificate: bool,
    /// What is wrong with the bytes behind these.
    pub fault: Option<Malformed>,
}

/// How a flight ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerReply {
    /// All of it came, as far as it can be read.
    Flight(Box<Flight>),
    /// An alert instead; its number.
    Alert(u8),
    /// Something that is no TLS; how it begins.
    Other(Vec<u8>),
}

/// The reader.
#[derive(Debug, Default)]
pub struct Reader {
    raw: Vec<u8>,
    handshake: Vec<u8>,
    flight: Flight,
    seen_hello: bool,
    seen_record: bool,
}

impl Reader {
    /// Takes more bytes; what the server said, once that is known.
    ///
    /// # Errors
    /// What is wrong with them. The reader must not be used any more.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<ServerReply>, Malformed> {
        self.raw.extend_from_slice(bytes);
        loop {
            if let Some(other) = self.no_tls() {
                return Ok(Some(other));
            }
            let Some((head, rest)) = self.raw.split_at_checked(5) else {
                return Ok(None);
            };
            let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
            if length > RECORD_LIMIT {
                return Err(Malformed::Record(format!(
                    "it sent a record of {length} bytes, more than TLS allows"
                )));
            }
            if rest.len() < length {
                return Ok(None);
            }
            let kind = head[0];
            let body: Vec<u8> = self.raw.drain(..5 + length).skip(5).collect();
            self.seen_record = true;
            if let Some(said) = self.record(kind, &body)? {
                return Ok(Some(said));
            }
        }
    }

    /// What the server said so far, where it went away in the middle, or where
    /// something is wrong: a hello without what should come behind it.
    #[must_use]
    pub fn so_far(self, fault: Option<Malformed>) -> Option<Flight> {
        self.seen_hello.then_some(Flight {
            fault,
            ..self.flight
        })
    }

    /// Whether nothing at all has come.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        !self.seen_record && self.raw.is_empty()
    }

    /// What came instead of a first record, as soon as that can be told.
    fn no_tls(&self) -> Option<ServerReply> {
        let is_record = match self.raw.as_slice() {
            _ if self.seen_record => true,
            [] => true,
            [kind] => matches!(*kind, content::ALERT | content::HANDSHAKE),
            [kind, major, ..] => {
                matches!(*kind, content::ALERT | content::HANDSHAKE) && *major == 3
            }
        };
        (!is_record).then(|| ServerReply::Other(self.raw[..self.raw.len().min(OPENING)].to_vec()))
    }

    fn record(&mut self, kind: u8, body: &[u8]) -> Result<Option<ServerReply>, Malformed> {
        match (kind, body) {
            // A warning: unrecognized_name, which RFC 6066 wants to be passed by.
            (content::ALERT, [1, 112]) => Ok(None),
            (content::ALERT, [_, number]) => Ok(Some(ServerReply::Alert(*number))),
            (content::ALERT, _) => Err(Malformed::Record("its alert has no two bytes".to_owned())),
            (content::HANDSHAKE, []) => Err(Malformed::Record(
                "it sent an empty handshake record".to_owned(),
            )),
            (content::HANDSHAKE, body) => {
                self.handshake.extend_from_slice(body);
                self.messages()
            }
            (other, _) => Err(Malformed::Record(format!(
                "it sent a record of type {other} before its handshake was over"
            ))),
        }
    }

    /// Reads the messages that are whole.
    fn messages(&mut self) -> Result<Option<ServerReply>, Malformed> {
        while let Some((head, rest)) = self.handshake.split_at_checked(4) {
            let kind = head[0];
            let length = u32::from_be_bytes([0, head[1], head[2], head[3]]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (name, limit) = match kind {
                kind::CERTIFICATE => ("Certificate", CERTIFICATE_LIMIT),
                kind::SERVER_HELLO => ("ServerHello", MESSAGE_LIMIT),
                kind::SERVER_KEY_EXCHANGE => ("ServerKeyExchange", MESSAGE_LIMIT),
                _ => ("handshake", CERTIFICATE_LIMIT),
            };
            if length > limit {
                return Err(Malformed::TooLong(name, length));
            }
            if rest.len() < length {
                return Ok(None);
            }
            let body: Vec<u8> = self.handshake.drain(..4 + length).skip(4).collect();
            if self.message(kind, &body)? {
                let flight = std::mem::take(&mut self.flight);
                return Ok(Some(ServerReply::Flight(Box::new(flight))));
            }
        }
        Ok(None)
    }

    /// Reads one message; true where nothing comes behind it that can be read.
    fn message(&mut self, kind: u8, body: &[u8]) -> Result<bool, Malformed> {
        match kind {
            kind::HELLO_REQUEST if !self.seen_hello => Ok(false),
            kind::SERVER_HELLO if !self.seen_hello => {
                self.flight.hello = ServerHello::read(body)?;
                self.seen_hello = true;
                // All that follows is encrypted.
                Ok(self.flight.hello.version >= Version::Tls13.number())
            }
            _ if !self.seen_hello => Err(Malformed::Unexpected(kind)),
            kind::CERTIFICATE => {
                self.flight.certificates = certificates(body)?;
                Ok(false)
            }
            kind::SERVER_KEY_EXCHANGE => {
                if let Some(suite) = suites::known(self.flight.hello.suite) {
                    self.flight.exchange = Some(KeyExchange::read(body, suite)?);
                }
                Ok(false)
            }
            kind::CERTIFICATE_REQUEST => {
                self.flight.wants_certificate = true;
                Ok(false)
            }
            kind::CERTIFICATE_STATUS => Ok(false),
            kind::SERVER_HELLO_DONE => Ok(true),
            other => Err(Malformed::Unexpected(other)),
        }
    }
}
