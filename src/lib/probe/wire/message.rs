//! The messages of a server's first flight: ServerHello and HelloRetryRequest,
//! Certificate, ServerKeyExchange (RFC 8446 section 4.1.3, RFC 5246 section 7.4).
#![forbid(unsafe_code)]

use std::fmt;

use super::extension;

/// What is wrong with a server's bytes: words that end a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A message does not have the form of its type.
    Message(&'static str),
    /// A record is longer than one may be, or has another version than TLS.
    Record(String),
    /// A message is longer than is read, in bytes.
    TooLong(&'static str, usize),
    /// A message that does not belong there.
    Unexpected(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Message(name) => write!(out, "its {name} message is malformed"),
            Malformed::Record(why) => out.write_str(why),
            Malformed::TooLong(name, length) => write!(
                out,
                "its {name} message has {length} bytes, more than the {} that are read",
                super::reader::CERTIFICATE_LIMIT
            ),
            Malformed::Unexpected(kind) => {
                write!(
                    out,
                    "it sent a handshake message of type {kind} out of place"
                )
            }
        }
    }
}

/// Bytes that are read from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn long(&mut self) -> Option<usize> {
        let bytes = self.take(3)?;
        let number = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        usize::try_from(number).ok()
    }

    /// Bytes behind their length in 16 bits.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let count = self.short()?;
        self.take(usize::from(count))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The random of a ServerHello that is a HelloRetryRequest (RFC 8446 section
/// 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a server chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// The version's number.
    pub version: u16,
    /// The suite's number.
    pub suite: u16,
    /// TLS 1.3: the group that it took or asks for.
    pub group: Option<u16>,
    /// It is a HelloRetryRequest.
    pub retry: bool,
    /// The numbers of its extensions.
    pub extensions: Vec<u16>,
}

impl ServerHello {
    /// Whether the server knows RFC 5746, which our signalling value asks for.
    #[must_use]
    pub fn renegotiates_securely(&self) -> bool {
        self.extensions.contains(&extension::RENEGOTIATION_INFO)
    }

    /// Whether the server knows RFC 7627, which we offer from TLS 1.0 on.
    #[must_use]
    pub fn extends_master_secret(&self) -> bool {
        self.extensions.contains(&extension::EXTENDED_MASTER_SECRET)
    }

    /// Reads a message's body.
    ///
    /// # Errors
    /// It is none.
    pub fn read(body: &[u8]) -> Result<ServerHello, Malformed> {
        read_hello(body).ok_or(Malformed::Message("ServerHello"))
    }
}

fn read_hello(body: &[u8]) -> Option<ServerHello> {
    let mut input = Input(body);
    let version = input.short()?;
    let random = input.take(32)?;
    let session = usize::from(input.byte()?);
    if session > 32 {
        return None;
    }
    input.take(session)?;
    let mut hello = ServerHello {
        version,
        suite: input.short()?,
        retry: random == RETRY,
        ..ServerHello::default()
    };
    // Compression.
    input.byte()?;
    if input.is_empty() {
        return Some(hello);
    }
    let mut extensions = Input(input.sized()?);
    if !input.is_empty() {
        return None;
    }
    while !extensions.is_empty() {
        let number = extensions.short()?;
        let data = extensions.sized()?;
        match number {
            extension::SUPPORTED_VERSIONS => hello.version = Input(data).short()?,
            extension::KEY_SHARE => hello.group = Some(Input(data).short()?),
            _ => {}
        }
        hello.extensions.push(number);
    }
    Some(hello)
}

/// The certificates of a Certificate message below TLS 1.3, as they came.
///
/// # Errors
/// A length is wrong.
pub fn certificates(body: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    read_certificates(body).ok_or(Malformed::Message("Certificate"))
}

fn read_certificates(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut input = Input(body);
    let length = input.long()?;
    let mut list = Input(input.take(length)?);
    if !input.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    while !list.is_empty() {
        let length = list.long()?;
        found.push(list.take(length)?.to_vec());
    }
    Some(found)
}

/// The public half of an ephemeral key exchange below TLS 1.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// On a named curve.
    Curve(u16),
    /// With a prime, high byte first, no zeros in front.
    FiniteField(Vec<u8>),
    /// An RSA key of its own: EXPORT; the bits of its modulus.
    TemporaryRsa(u32),
}

impl KeyExchange {
    /// Reads a ServerKeyExchange's parameters; what signs them is left alone.
    ///
    /// # Errors
    /// They do not have the form that the suite wants.
    pub fn read(
        body: &[u8],
        suite: &crate::probe::suites::Suite,
    ) -> Result<KeyExchange, Malformed> {
        let read = if suite.has_finite_field() {
            finite_field(body)
        } else if suite.is_ephemeral() {
            curve(body)
        } else {
            temporary_rsa(body)
        };
        read.ok_or(Malformed::Message("ServerKeyExchange"))
    }
}

/// RFC 8422 section 5.4: a named curve (3), its number, a point.
fn curve(body: &[u8]) -> Option<KeyExchange> {
    let mut input = Input(body);
    if input.byte()? != 3 {
        return None;
    }
    let group = input.short()?;
    let length = usize::from(input.byte()?);
    input.take(length)?;
    Some(KeyExchange::Curve(group))
}

fn finite_field(body: &[u8]) -> Option<KeyExchange> {
    let mut input = Input(body);
    let prime = without_zeros(input.sized()?);
    let _generator = input.sized()?;
    let _public = input.sized()?;
    (!prime.is_empty()).then(|| KeyExchange::FiniteField(prime.to_vec()))
}

fn temporary_rsa(body: &[u8]) -> Option<KeyExchange> {
    let mut input = Input(body);
    let modulus = without_zeros(input.sized()?);
    let _exponent = input.sized()?;
    (!modulus.is_empty()).then(|| KeyExchange::TemporaryRsa(bits(modulus)))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0);
    &number[first.unwrap_or(number.len())..]
}

/// The bits of a number, high byte first.
#[must_use]
pub fn bits(number: &[u8]) -> u32 {
    let number = without_zeros(number);
    let Some(first) = number.first() else {
        return 0;
    };
    u32::try_from(number.len() * 8).unwrap_or(u32::MAX) - first.leading_zeros()
}

#[cfg(test)]
mod tests;
