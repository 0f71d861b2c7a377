//! What engines say to the keyholder and what it answers, and what it refuses
//! to sign. Requests are hostile by assumption: everything here is a pure
//! function of bytes.
#![forbid(unsafe_code)]

use std::fmt;

use crate::store::KeyKind;
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

/// Why nothing is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no request.
    Malformed,
    /// No key has this number.
    NoSuchKey,
    /// Not what a TLS server signs in a handshake.
    Shape,
    /// An algorithm that the key or the protocol version has no use for.
    Algorithm,
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
            Refusal::Algorithm => "an algorithm that does not fit the key",
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

/// Whether a key of this kind signs this for a TLS server whose finite-field
/// groups have these primes (high byte first).
///
/// # Errors
/// Why not.
pub fn judge(request: &Request<'_>, kind: KeyKind, primes: &[Vec<u8>]) -> Result<(), Refusal> {
    use Digest::{Md5Sha1, None as Own, Sha1, Sha224, Sha256, Sha384, Sha512};

    let purpose = Purpose::of(request.message, primes).ok_or(Refusal::Shape)?;
    let fits = match (purpose, kind, request.padding) {
        // RFC 8446 section 4.2.3.
        (Purpose::CertificateVerify, KeyKind::Rsa(_), Padding::Pss)
        | (Purpose::CertificateVerify, KeyKind::Ecdsa(_), Padding::None) => {
            matches!(request.digest, Sha256 | Sha384 | Sha512)
        }
        // RFC 5246 section 7.4.3 and RFC 4346's; RSA alone signs finite-field DH.
        (_, KeyKind::Rsa(_), Padding::Pkcs1) => {
            purpose != Purpose::CertificateVerify
                && matches!(
                    request.digest,
                    Md5Sha1 | Sha1 | Sha224 | Sha256 | Sha384 | Sha512
                )
        }
        (_, KeyKind::Rsa(_), Padding::Pss) => matches!(request.digest, Sha256 | Sha384 | Sha512),
        (Purpose::EllipticExchange, KeyKind::Ecdsa(_), Padding::None) => {
            matches!(request.digest, Sha1 | Sha224 | Sha256 | Sha384 | Sha512)
        }
        (Purpose::CertificateVerify | Purpose::EllipticExchange, KeyKind::Eddsa, Padding::None) => {
            request.digest == Own
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(Refusal::Algorithm)
    }
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// TLS 1.3.
    CertificateVerify,
    /// TLS 1.2 and below, ECDHE.
    EllipticExchange,
    /// TLS 1.2 and below, DHE.
    FiniteExchange,
}

impl Purpose {
    fn of(message: &[u8], primes: &[Vec<u8>]) -> Option<Purpose> {
        // RFC 8446 section 4.4.3: spaces, context, zero, transcript hash.
        const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
        let (start, rest) = message.split_at_checked(64)?;
        if start == [0x20; 64]
            && let Some(hash) = rest.strip_prefix(CONTEXT)
        {
            return matches!(hash.len(), 32 | 48).then_some(Purpose::CertificateVerify);
        }
        // RFC 5246 section 7.4.3: both randoms, then the parameters and nothing
        // behind them.
        if is_elliptic(rest) {
            return Some(Purpose::EllipticExchange);
        }
        is_finite(rest, primes).then_some(Purpose::FiniteExchange)
    }
}

/// RFC 8422 section 5.4: a named curve and a point of its size.
fn is_elliptic(params: &[u8]) -> bool {
    let [3, high, low, length, point @ ..] = params else {
        return false;
    };
    if point.len() != usize::from(*length) {
        return false;
    }
    match u16::from_be_bytes([*high, *low]) {
        29 => point.len() == 32, // x25519
        30 => point.len() == 56, // x448
        // SEC 1: uncompressed (RFC 8422 section 5.1.2), two coordinates.
        _ => point.first() == Some(&4) && point.len() % 2 == 1 && point.len() >= 41,
    }
}

/// RFC 5246 section 7.4.3: prime, generator, public value. The prime is one of
/// these: of an engine's own choice, it could be one that gives the secret away.
fn is_finite(params: &[u8], primes: &[Vec<u8>]) -> bool {
    fn number<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, behind) = rest.split_at_checked(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (number, behind) = behind.split_at_checked(length)?;
        *rest = behind;
        Some(number)
    }
    let mut rest = params;
    let numbers = (number(&mut rest), number(&mut rest), number(&mut rest));
    let (Some(prime), Some(generator), Some(public)) = numbers else {
        return false;
    };
    rest.is_empty()
        && primes.iter().any(|known| known == prime)
        && (1..=prime.len()).contains(&generator.len())
        && (1..=prime.len()).contains(&public.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: KeyKind = KeyKind::Ecdsa(256);
    const RSA: KeyKind = KeyKind::Rsa(2048);

    fn ask(message: &[u8], padding: Padding, digest: Digest, kind: KeyKind) -> Result<(), Refusal> {
        let request = Request {
            padding,
            digest,
            key: 3,
            message,
        };
        let bytes = request.to_bytes();
        assert_eq!(Request::parse(&bytes), Ok(request));
        judge(&request, kind, &[vec![0xff; 256], vec![0xfd; 384]])
    }

    fn verify(context: &[u8], hash: usize) -> Vec<u8> {
        [&[0x20; 64], context, &vec![7; hash]].concat()
    }

    const SERVER: &[u8] = b"TLS 1.3, server CertificateVerify\0";

    fn elliptic(group: u16, point: &[u8]) -> Vec<u8> {
        let length = u8::try_from(point.len()).expect("short");
        [&[9; 64], &[3][..], &group.to_be_bytes(), &[length], point].concat()
    }

    fn finite(prime: &[u8], public: &[u8]) -> Vec<u8> {
        let number = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
            [&length[..], bytes].concat()
        };
        [vec![9; 64], number(prime), number(&[2]), number(public)].concat()
    }

    #[test]
    fn a_server_s_handshake_is_signed() {
        for hash in [32, 48] {
            let message = verify(SERVER, hash);
            assert_eq!(ask(&message, Padding::None, Digest::Sha256, EC), Ok(()));
            assert_eq!(ask(&message, Padding::Pss, Digest::Sha384, RSA), Ok(()));
            assert_eq!(
                ask(&message, Padding::None, Digest::None, KeyKind::Eddsa),
                Ok(())
            );
        }
        let point = [&[4][..], &[1; 64]].concat();
        let message = elliptic(23, &point);
        assert_eq!(ask(&message, Padding::None, Digest::Sha256, EC), Ok(()));
        assert_eq!(ask(&message, Padding::Pkcs1, Digest::Md5Sha1, RSA), Ok(()));
        let message = elliptic(29, &[5; 32]);
        assert_eq!(ask(&message, Padding::Pss, Digest::Sha256, RSA), Ok(()));
        for prime in [&[0xff; 256][..], &[0xfd; 384]] {
            let message = finite(prime, &[1; 256]);
            assert_eq!(ask(&message, Padding::Pkcs1, Digest::Sha256, RSA), Ok(()));
        }
    }

    #[test]
    fn nothing_else_is_signed() {
        let refused = |message: &[u8]| {
            assert_eq!(
                ask(message, Padding::Pss, Digest::Sha256, RSA),
                Err(Refusal::Shape),
                "{message:?}"
            );
        };
        refused(b"");
        refused(b"hello");
        refused(&[0x20; 64]);
        refused(&verify(b"TLS 1.3, client CertificateVerify\0", 32));
        refused(&verify(SERVER, 31));
        refused(&verify(SERVER, 33));
        refused(&verify(SERVER, 64));
        // A point that is cut, too long, compressed, or of another curve's size.
        refused(&elliptic(29, &[5; 31]));
        refused(&elliptic(23, &[2; 33]));
        let mut message = elliptic(29, &[5; 32]);
        message.push(0);
        refused(&message);
        // Explicit parameters (RFC 4492), which nobody uses.
        message = elliptic(29, &[5; 32]);
        message[64] = 1;
        refused(&message);
        // A prime that is not the server's.
        refused(&finite(&[0xff; 128], &[1; 128]));
        refused(&finite(&[0xff; 384], &[1; 256]));
        refused(&finite(&[0xfd; 256], &[1; 256]));
        refused(&finite(&[], &[]));
        refused(&finite(&[0xff; 256], &[1; 257]));
        let mut message = finite(&[0xff; 256], &[1; 256]);
        message.push(0);
        refused(&message);
    }

    #[test]
    fn the_algorithm_fits_the_key_and_the_version() {
        let thirteen = verify(SERVER, 32);
        let twelve = elliptic(29, &[5; 32]);
        let finite = finite(&[0xff; 256], &[1; 256]);
        for (message, padding, digest, kind) in [
            (&thirteen, Padding::Pkcs1, Digest::Sha256, RSA),
            (&thirteen, Padding::Pss, Digest::Sha1, RSA),
            (&thirteen, Padding::None, Digest::Sha256, RSA),
            (&thirteen, Padding::None, Digest::Sha1, EC),
            (&thirteen, Padding::None, Digest::None, EC),
            (&thirteen, Padding::None, Digest::Sha256, KeyKind::Eddsa),
            (&thirteen, Padding::None, Digest::None, KeyKind::Other),
            (&twelve, Padding::Pkcs1, Digest::None, RSA),
            (&twelve, Padding::None, Digest::Md5Sha1, EC),
            (&finite, Padding::None, Digest::Sha256, EC),
            (&finite, Padding::None, Digest::None, KeyKind::Eddsa),
        ] {
            assert_eq!(
                ask(message, padding, digest, kind),
                Err(Refusal::Algorithm),
                "{padding:?} {digest:?} {kind:?}"
            );
        }
    }

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
