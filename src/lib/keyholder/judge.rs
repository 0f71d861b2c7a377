//! What the keyholder signs: only what a TLS server of these settings signs in a
//! handshake, and nothing that means something elsewhere, such as a certificate.
#![forbid(unsafe_code)]

mod structure;

use std::collections::HashMap;

use openssl::bn::{BigNum, BigNumContext, BigNumRef};
use openssl::ec::{EcGroup, EcPoint};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKeyRef};

use super::protocol::{NotSigned, Signing};
use crate::hello;
use crate::store::permit::Permit;
use crate::tls_ffi::provider::{Digest, Padding};

const TLS_1_1: u16 = 0x0302;
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

/// What a key is, as far as its signatures differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// RSA of the general kind.
    Rsa,
    /// RSA for PSS alone.
    RsaPss,
    /// ECDSA on this curve.
    Ecdsa(Nid),
    /// Ed25519.
    Ed25519,
    /// Ed448.
    Ed448,
    /// Anything else, which signs nothing.
    Other,
}

impl KeyType {
    /// The type of a key.
    #[must_use]
    pub fn of<T: HasPublic>(key: &PKeyRef<T>) -> KeyType {
        match key.id() {
            Id::RSA => KeyType::Rsa,
            Id::RSA_PSS => KeyType::RsaPss,
            Id::EC => key
                .ec_key()
                .ok()
                .and_then(|key| key.group().curve_name())
                .map_or(KeyType::Other, KeyType::Ecdsa),
            Id::ED25519 => KeyType::Ed25519,
            Id::ED448 => KeyType::Ed448,
            _ => KeyType::Other,
        }
    }
}

/// What a message is for.
enum Purpose<'a> {
    /// TLS 1.3.
    CertificateVerify,
    /// TLS 1.2 and below: the end of the server's random, and the parameters.
    Exchange(&'a [u8; 8], Params<'a>),
}

/// The parameters of a key exchange.
enum Params<'a> {
    /// ECDHE: group and public point.
    Elliptic(u16, &'a [u8]),
    /// DHE: prime, generator, public value.
    Finite([&'a [u8]; 3]),
}

impl<'a> Purpose<'a> {
    fn of(message: &'a [u8]) -> Option<Purpose<'a>> {
        // RFC 8446 section 4.4.3: spaces, context, zero, transcript hash.
        const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
        let (randoms, params) = message.split_first_chunk::<64>()?;
        if *randoms == [0x20; 64] {
            if let Some(hash) = params.strip_prefix(CONTEXT) {
                return matches!(hash.len(), 32 | 48).then_some(Purpose::CertificateVerify);
            }
        }
        // RFC 5246 section 7.4.3: both randoms, then the parameters and nothing
        // behind them.
        let params = Params::elliptic(params).or_else(|| Params::finite(params))?;
        Some(Purpose::Exchange(randoms.last_chunk()?, params))
    }
}

impl<'a> Params<'a> {
    /// RFC 8422 section 5.4: a named curve and a point.
    fn elliptic(bytes: &'a [u8]) -> Option<Params<'a>> {
        let [3, high, low, length, point @ ..] = bytes else {
            return None;
        };
        (point.len() == usize::from(*length))
            .then(|| Params::Elliptic(u16::from_be_bytes([*high, *low]), point))
    }

    /// RFC 5246 section 7.4.3: prime, generator, public value.
    fn finite(bytes: &'a [u8]) -> Option<Params<'a>> {
        let mut rest = bytes;
        let mut number = || -> Option<&'a [u8]> {
            let (length, behind) = rest.split_first_chunk()?;
            let (number, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = behind;
            Some(number)
        };
        let numbers = [number()?, number()?, number()?];
        rest.is_empty().then_some(Params::Finite(numbers))
    }
}

/// How a version names what signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// A SignatureScheme of TLS 1.2 and 1.3.
    Number(u16),
    /// What TLS 1.1 and below have for RSA: MD5 with SHA-1.
    Md5Sha1,
}

/// RFC 8446 section 4.2.3; the pairs of TLS 1.2 are hash, then signature.
fn scheme(key: KeyType, padding: Padding, digest: Digest) -> Option<Scheme> {
    let hash: u16 = match digest {
        Digest::None => 0,
        Digest::Md5Sha1 => {
            return (key == KeyType::Rsa && padding == Padding::Pkcs1).then_some(Scheme::Md5Sha1);
        }
        Digest::Sha1 => 2,
        Digest::Sha224 => 3,
        Digest::Sha256 => 4,
        Digest::Sha384 => 5,
        Digest::Sha512 => 6,
    };
    let number = match (key, padding) {
        (KeyType::Rsa, Padding::Pkcs1) if hash >= 2 => hash << 8 | 1,
        (KeyType::Rsa, Padding::Pss) if hash >= 4 => 0x0800 + hash,
        (KeyType::RsaPss, Padding::Pss) if hash >= 4 => 0x0805 + hash,
        (KeyType::Ecdsa(_), Padding::None) if hash >= 2 => hash << 8 | 3,
        (KeyType::Ed25519, Padding::None) if hash == 0 => 0x0807,
        (KeyType::Ed448, Padding::None) if hash == 0 => 0x0808,
        _ => return None,
    };
    Some(Scheme::Number(number))
}

/// RFC 8446 section 4.4.3: neither PKCS #1 nor SHA-1, and an ECDSA key signs by
/// the one scheme of its curve.
fn scheme_of_13(key: KeyType, scheme: Scheme) -> Option<u16> {
    let Scheme::Number(number) = scheme else {
        return None;
    };
    match key {
        KeyType::Rsa if number >> 8 != 8 => None,
        KeyType::Ecdsa(curve) => {
            let own = hello::scheme_of_curve(curve)?;
            let hash = match own >> 8 {
                // RFC 8734 numbers SHA-256 and on from 0x081a.
                8 => (own - 0x081a + 4) << 8 | 3,
                _ => own,
            };
            (hash == number).then_some(own)
        }
        _ => Some(number),
    }
}

/// Judges for one process; keeps what is costly to make.
#[derive(Default)]
pub struct Judge {
    curves: HashMap<u16, Curve>,
}

impl Judge {
    /// Whether a key of this type signs this for a server of one of these
    /// permits.
    ///
    /// # Errors
    /// Why not.
    pub fn judge<'p>(
        &mut self,
        signing: &Signing<'_>,
        key: KeyType,
        permits: impl IntoIterator<Item = &'p Permit>,
    ) -> Result<(), NotSigned> {
        if means_something_else(signing.message) {
            return Err(NotSigned::Elsewhere);
        }
        self.judge_handshake(signing, key, permits)
    }

    /// All of it but [`means_something_else`].
    fn judge_handshake<'p>(
        &mut self,
        signing: &Signing<'_>,
        key: KeyType,
        permits: impl IntoIterator<Item = &'p Permit>,
    ) -> Result<(), NotSigned> {
        let purpose = Purpose::of(signing.message).ok_or(NotSigned::Shape)?;
        let scheme = scheme(key, signing.padding, signing.digest).ok_or(NotSigned::Algorithm)?;
        // Of several reasons, the one that came closest to a signature.
        let mut refusal = NotSigned::Version;
        for permit in permits {
            match fits(&purpose, key, scheme, permit) {
                Ok(()) => return self.check_numbers(&purpose),
                Err(why) => refusal = refusal.max(why),
            }
        }
        Err(refusal)
    }

    /// What takes arithmetic, and does not depend on settings.
    fn check_numbers(&mut self, purpose: &Purpose<'_>) -> Result<(), NotSigned> {
        let sound = match purpose {
            Purpose::CertificateVerify | Purpose::Exchange(_, Params::Finite(_)) => return Ok(()),
            Purpose::Exchange(_, Params::Elliptic(group, point)) => self.holds(*group, point),
        };
        match sound {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotSigned::Point),
            Err(_) => Err(NotSigned::Failed),
        }
    }

    fn holds(&mut self, group: u16, point: &[u8]) -> Result<bool, ErrorStack> {
        use std::collections::hash_map::Entry;

        let curve = match self.curves.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match Curve::of(group)? {
                Some(curve) => place.insert(curve),
                None => return Ok(false),
            },
        };
        curve.holds(point)
    }
}

/// Whether settings allow this, numbers aside.
fn fits(
    purpose: &Purpose<'_>,
    key: KeyType,
    scheme: Scheme,
    permit: &Permit,
) -> Result<(), NotSigned> {
    let (random_end, params) = match purpose {
        Purpose::CertificateVerify => {
            if permit.highest < TLS_1_3 {
                return Err(NotSigned::Version);
            }
            let number = scheme_of_13(key, scheme).ok_or(NotSigned::Algorithm)?;
            return listed(permit, number);
        }
        Purpose::Exchange(random_end, params) => (*random_end, params),
    };
    // Which of the older versions it is for can be told in part by what signs.
    let oldest = permit.lowest <= TLS_1_1;
    let middle = permit.lowest <= TLS_1_2 && permit.highest >= TLS_1_2;
    if !oldest && !middle {
        return Err(NotSigned::Version);
    }
    let old_scheme = match key {
        KeyType::Ecdsa(_) => scheme == Scheme::Number(0x0203),
        _ => scheme == Scheme::Md5Sha1,
    };
    // RFC 8446 section 4.1.3: what the server's random must end with.
    let old_marked = permit.highest < TLS_1_2 || random_end == b"DOWNGRD\0";
    let marked = !permit.marks_downgrades || random_end == b"DOWNGRD\x01";
    if !(oldest && old_scheme && old_marked) {
        let Scheme::Number(number) = scheme else {
            let version = if oldest {
                NotSigned::Downgrade
            } else {
                NotSigned::Version
            };
            return Err(version);
        };
        if !middle {
            return Err(NotSigned::Algorithm);
        }
        listed(permit, number)?;
        if !marked {
            return Err(NotSigned::Downgrade);
        }
    }
    match params {
        Params::Elliptic(group, _) if permit.groups.contains(group) => Ok(()),
        Params::Elliptic(..) => Err(NotSigned::Group),
        Params::Finite(numbers) => is_own(numbers, key, permit),
    }
}

fn listed(permit: &Permit, scheme: u16) -> Result<(), NotSigned> {
    if permit.schemes.contains(&scheme) {
        Ok(())
    } else {
        Err(NotSigned::Algorithm)
    }
}

/// Whether DHE parameters are those of the settings, with a public value between
/// 1 and the prime less 1 that is as long as the prime, as libssl writes it. A
/// prime of an engine's own choice could be one that gives the secret away.
fn is_own(
    [prime, generator, public]: &[&[u8]; 3],
    key: KeyType,
    permit: &Permit,
) -> Result<(), NotSigned> {
    // Elliptic keys sign for no suite with DHE.
    if !matches!(key, KeyType::Rsa | KeyType::RsaPss) {
        return Err(NotSigned::Algorithm);
    }
    match &permit.finite {
        Some(own) if own.prime == *prime && own.generator == *generator => {}
        _ => return Err(NotSigned::Prime),
    }
    let (Some((last, above)), Some((public_last, public_above))) =
        (prime.split_last(), public.split_last())
    else {
        return Err(NotSigned::Prime);
    };
    let is_one_or_less = public_above.iter().all(|byte| *byte == 0) && *public_last <= 1;
    // Numbers of one length compare as their bytes; the prime is odd.
    let is_too_large = (public_above, *public_last) >= (above, last - 1);
    if public.len() != prime.len() || is_one_or_less || is_too_large {
        return Err(NotSigned::Public);
    }
    Ok(())
}

/// Whether a message has a meaning in another protocol. A handshake begins like
/// that by chance once in 2^28 at most, or if its client wants to be refused.
fn means_something_else(message: &[u8]) -> bool {
    // OpenSSH's PROTOCOL.sshsig; COSE (RFC 9052 section 4.4).
    const WORDS: [&[u8]; 3] = [b"SSHSIG", b"\x84\x6aSignature1", b"\x85\x69Signature"];
    // What a client signs below TLS 1.3 begins with a ClientHello (RFC 5246
    // section 7.4.8): our key is not to pass for a client's either.
    let tls_client = matches!(message, [1, 0, _, _, 3, 0..=3, ..]);
    // What an end of IKEv2 signs begins with the header of an IKE_SA_INIT message
    // (RFC 7296 sections 2.15 and 3.1): version, kind, number.
    let ike = message.get(17..19) == Some(&[0x20, 34]) && message.get(20..24) == Some(&[0; 4]);
    tls_client
        || ike
        || structure::is_one(message)
        || WORDS.iter().any(|word| message.starts_with(word))
}

/// A group of ECDHE, and how its points are checked.
enum Curve {
    /// Points of two coordinates (RFC 8422 section 5.4.1).
    Two(EcGroup),
    /// RFC 7748: one coordinate, low byte first.
    One(Montgomery),
}

/// v^2 = u^3 + A u^2 + u modulo a prime.
struct Montgomery {
    prime: BigNum,
    a: u32,
    /// Of a coordinate, in bytes.
    length: usize,
}

impl Curve {
    /// The group of this number (RFC 8422 section 5.1.1); `None` if its points
    /// have no such form.
    fn of(group: u16) -> Result<Option<Curve>, ErrorStack> {
        const NAMED: [Nid; 28] = [
            Nid::SECT163K1,
            Nid::SECT163R1,
            Nid::SECT163R2,
            Nid::SECT193R1,
            Nid::SECT193R2,
            Nid::SECT233K1,
            Nid::SECT233R1,
            Nid::SECT239K1,
            Nid::SECT283K1,
            Nid::SECT283R1,
            Nid::SECT409K1,
            Nid::SECT409R1,
            Nid::SECT571K1,
            Nid::SECT571R1,
            Nid::SECP160K1,
            Nid::SECP160R1,
            Nid::SECP160R2,
            Nid::SECP192K1,
            Nid::X9_62_PRIME192V1,
            Nid::SECP224K1,
            Nid::SECP224R1,
            Nid::SECP256K1,
            Nid::X9_62_PRIME256V1,
            Nid::SECP384R1,
            Nid::SECP521R1,
            Nid::BRAINPOOL_P256R1,
            Nid::BRAINPOOL_P384R1,
            Nid::BRAINPOOL_P512R1,
        ];
        let (bits, a, length) = match group {
            29 => (255, 486_662, 32),
            30 => (448, 156_326, 56),
            1..=28 => {
                let group = EcGroup::from_curve_name(NAMED[usize::from(group) - 1])?;
                return Ok(Some(Curve::Two(group)));
            }
            _ => return Ok(None),
        };
        // 2^255 - 19, and 2^448 - 2^224 - 1.
        let mut prime = BigNum::new()?;
        prime.set_bit(bits)?;
        if bits == 255 {
            prime.sub_word(19)?;
        } else {
            let mut middle = BigNum::new()?;
            middle.set_bit(224)?;
            middle.add_word(1)?;
            let mut less = BigNum::new()?;
            less.checked_sub(&prime, &middle)?;
            prime = less;
        }
        Ok(Some(Curve::One(Montgomery { prime, a, length })))
    }

    /// Whether these bytes are a point that a server can have made.
    fn holds(&self, point: &[u8]) -> Result<bool, ErrorStack> {
        match self {
            Curve::Two(group) => {
                let coordinate = usize::try_from(group.degree()).unwrap_or(0).div_ceil(8);
                // Uncompressed (RFC 8422 section 5.1.2).
                if point.first() != Some(&4) || point.len() != 1 + 2 * coordinate {
                    return Ok(false);
                }
                let mut context = BigNumContext::new()?;
                Ok(EcPoint::from_bytes(group, point, &mut context).is_ok())
            }
            Curve::One(curve) if point.len() == curve.length => curve.holds(point),
            Curve::One(_) => Ok(false),
        }
    }
}

impl Montgomery {
    /// A multiple of the base point is on the curve and not on its twist, and
    /// its coordinate is reduced.
    fn holds(&self, point: &[u8]) -> Result<bool, ErrorStack> {
        let reversed: Vec<u8> = point.iter().rev().copied().collect();
        let u = BigNum::from_slice(&reversed)?;
        if u.num_bits() == 0 || *u >= *self.prime {
            return Ok(false);
        }
        let prime: &BigNumRef = &self.prime;
        let mut context = BigNumContext::new()?;
        // ((u + A) u + 1) u
        let mut sum = BigNum::new()?;
        let a = BigNum::from_u32(self.a)?;
        sum.mod_add(&u, &a, prime, &mut context)?;
        let mut product = BigNum::new()?;
        product.mod_mul(&sum, &u, prime, &mut context)?;
        product.add_word(1)?;
        let mut square = BigNum::new()?;
        square.mod_mul(&product, &u, prime, &mut context)?;
        if square.num_bits() == 0 {
            return Ok(false);
        }
        // Euler's criterion.
        let mut half = BigNum::new()?;
        half.rshift1(prime)?;
        let mut residue = BigNum::new()?;
        residue.mod_exp(&square, &half, prime, &mut context)?;
        Ok(*residue == *BigNum::from_u32(1)?)
    }
}

#[cfg(test)]
mod tests;
