//! What engines say to the keyholder and what it answers. Requests are hostile
//! by assumption: everything here is a pure function of bytes.
#![forbid(unsafe_code)]

use std::fmt;

use crate::tls_ffi::provider::{Digest, Padding};

/// The longest request, in bytes. The parameters of finite-field DH are the
/// longest that is ever signed: two numbers of 8192 bits at most.
pub const REQUEST_LIMIT: usize = 4096;
/// The longest answer, in bytes: a signature under RSA with 16384 bits.
pub const REPLY_LIMIT: usize = 2049;

/// `paddings[n]` is `n` on the wire.
const PADDINGS: [Padding; 3] = [Padding::None, Padding::Pkcs1, Padding::Pss];
/// `digests[n]` is `n` on the wire.
const DIGESTS: [Digest; 7] = [
    Digest::None,
    Digest::Md5Sha1,
    Digest::Sha1,
    Digest::Sha224,
    Digest::Sha256,
    Digest::Sha384,
    Digest::Sha512,
];

/// One request: padding, digest, number of the key (two bytes, high byte
/// first), message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// How the signature is padded.
    pub padding: Padding,
    /// What is applied to the message.
    pub digest: Digest,
    /// The key's number.
    pub key: u16,
    /// The whole message.
    pub message: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Request<'a>, Refusal> {
        let [padding, digest, high, low, message @ ..] = bytes else {
            return Err(Refusal::Malformed);
        };
        let padding = PADDINGS.get(usize::from(*padding));
        let digest = DIGESTS.get(usize::from(*digest));
        match (padding, digest) {
            (Some(padding), Some(digest)) if bytes.len() <= REQUEST_LIMIT => Ok(Request {
                padding: *padding,
                digest: *digest,
                key: u16::from_be_bytes([*high, *low]),
                message,
            }),
            _ => Err(Refusal::Malformed),
        }
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let number = |at: Option<usize>| at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX);
        let padding = number(PADDINGS.iter().position(|one| *one == self.padding));
        let digest = number(DIGESTS.iter().position(|one| *one == self.digest));
        let [high, low] = self.key.to_be_bytes();
        let mut bytes = Vec::with_capacity(4 + self.message.len());
        bytes.extend([padding, digest, high, low]);
        bytes.extend(self.message);
        bytes
    }
}

/// Why nothing is signed. Of several reasons the last one here is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The bytes are no request.
    Malformed,
    /// No key has this number.
    NoSuchKey,
    /// Not what a TLS server signs in a handshake.
    Shape,
    /// A message that has a meaning elsewhere, as that of a certificate.
    Structure,
    /// Of a TLS version that the settings do not allow.
    Version,
    /// An algorithm that the settings do not allow, or that does not fit the key
    /// or the version.
    Algorithm,
    /// An old handshake without the mark that it carries where the server
    /// speaks newer ones.
    Downgrade,
    /// A key share of a group that the settings do not allow.
    Group,
    /// A key share that is no point of its group.
    Point,
    /// DHE parameters that are not the settings'.
    Prime,
    /// A public value of DHE that no server makes.
    Public,
    /// The connection has had its signature.
    Quota,
    /// Libcrypto could not sign.
    Failed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Refusal::Malformed => "a malformed request",
            Refusal::NoSuchKey => "a key that does not exist",
            Refusal::Shape => "a message that is not of a TLS server's handshake",
            Refusal::Structure => {
                "a message that could pass for a certificate or another signed structure"
            }
            Refusal::Version => "a TLS version that the settings do not allow",
            Refusal::Algorithm => {
                "a signature algorithm that the settings do not allow or the key does not have"
            }
            Refusal::Downgrade => "an old TLS version without the mark against downgrades",
            Refusal::Group => "a key share of a group that the settings do not allow",
            Refusal::Point => "a key share that is not a point of its group",
            Refusal::Prime => "Diffie-Hellman parameters that are not the server's",
            Refusal::Public => "a Diffie-Hellman public value that is out of range",
            Refusal::Quota => "a second signature",
            Refusal::Failed => "libcrypto failed",
        })
    }
}

/// Reads an answer: the signature, or why there is none.
///
/// # Errors
/// The keyholder's reason; the answer is none.
pub fn answer(bytes: &[u8]) -> Result<&[u8], String> {
    match bytes {
        [0, signature @ ..] if !signature.is_empty() => Ok(signature),
        [1, why @ ..] => Err(crate::text::excerpt(why, 100)),
        _ => Err("a malformed answer".to_owned()),
    }
}

/// Writes an answer.
#[must_use]
pub fn reply(signed: Result<&[u8], Refusal>) -> Vec<u8> {
    match signed {
        Ok(signature) => [&[0], signature].concat(),
        Err(refusal) => [&[1], refusal.to_string().as_bytes()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_that_are_none() {
        for bytes in [&b""[..], b"\0", b"\0\0\0", b"\x03\0\0\0m", b"\0\x07\0\0m"] {
            assert_eq!(Request::parse(bytes), Err(Refusal::Malformed), "{bytes:?}");
        }
        assert!(Request::parse(&[0; REQUEST_LIMIT]).is_ok());
        assert!(Request::parse(&[0; REQUEST_LIMIT + 1]).is_err());
        assert_eq!(answer(&reply(Ok(b"sig"))), Ok(&b"sig"[..]));
        assert!(answer(&reply(Err(Refusal::Shape))).is_err());
        for bytes in [&b""[..], b"\0", b"\x02x"] {
            assert!(answer(bytes).is_err(), "{bytes:?}");
        }
    }
}
