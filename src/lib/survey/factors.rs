//! RSA moduli with a common factor, and who has them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::printable;
use crate::probe::result::HostResult;
use crate::text;

#[cfg(gmp)]
mod batch;
#[cfg(not(gmp))]
mod batch {
    pub(super) fn pairs(_: &[Vec<u8>]) -> super::Places {
        super::Places::default()
    }
}

/// Whether this build can look for common factors: without libgmp it cannot.
pub const AVAILABLE: bool = cfg!(gmp);

/// Which of a list of numbers have a common factor.
#[cfg_attr(not(gmp), derive(Default))]
struct Places {
    /// The places of each two.
    pairs: Vec<(usize, usize)>,
    /// How many numbers have one with another.
    weak: usize,
    /// All such pairs are there.
    is_whole: bool,
}

/// What came of comparing all moduli.
pub struct Compared {
    /// Those with a common factor.
    pub pairs: Vec<Pair>,
    /// How many moduli have one with another.
    pub weak: usize,
    /// All pairs are named.
    pub is_whole: bool,
}

/// The longest modulus that counts, in bytes: 16,384 bits, as OpenSSL's own limit.
const MODULUS_LIMIT: usize = 2048;

/// How many hex digits of a certificate's SHA-256 name it.
const FINGERPRINT: usize = 16;

/// A host and the certificate that it shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// The host.
    pub host: String,
    /// The first 16 hex digits of the certificate's SHA-256.
    pub certificate: String,
}

/// Two moduli with a common factor: whoever computes it has both private keys.
/// The factor itself is never told.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Who has the first modulus.
    pub one: Vec<Holder>,
    /// Who has the second.
    pub other: Vec<Holder>,
}

/// All moduli of a run, each once.
#[derive(Default)]
pub struct Moduli(BTreeMap<Vec<u8>, Vec<Holder>>);

impl Moduli {
    /// Notes the moduli of a result. What is no modulus is ignored.
    pub fn add(&mut self, result: &HostResult) {
        for certificate in &result.certificates {
            let Some(modulus) = certificate.modulus.as_deref().and_then(modulus) else {
                continue;
            };
            let fingerprint = certificate.sha256.get(..FINGERPRINT);
            let holder = Holder {
                host: printable(&result.host),
                certificate: printable(fingerprint.unwrap_or(&certificate.sha256)),
            };
            let holders = self.0.entry(modulus).or_default();
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }

    /// The pairs with a common factor, where [`AVAILABLE`].
    #[must_use]
    pub fn compared(self) -> Compared {
        let (moduli, mut holders): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        for holders in &mut holders {
            holders.sort();
        }
        let places = batch::pairs(&moduli);
        let pairs = places.pairs.into_iter().map(|(one, other)| Pair {
            one: holders[one].clone(),
            other: holders[other].clone(),
        });
        Compared {
            pairs: pairs.collect(),
            weak: places.weak,
            is_whole: places.is_whole,
        }
    }
}

/// A modulus from hex digits, without leading zeros. 0 and 1 are none.
fn modulus(hex: &str) -> Option<Vec<u8>> {
    let hex = hex.trim_start_matches('0');
    if hex.len() > 2 * MODULUS_LIMIT {
        return None;
    }
    let even = if hex.len() % 2 == 0 { "" } else { "0" };
    let bytes = text::bytes(&format!("{even}{hex}"))?;
    (!matches!(*bytes, [] | [1])).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::result::{Certificate, Chain, KeyType};

    fn shows(host: &str, modulus: u64, certificate: &str) -> HostResult {
        HostResult {
            host: host.to_owned(),
            certificates: vec![Certificate {
                key: KeyType::Rsa,
                modulus: Some(format!("{modulus:x}")),
                bits: 64,
                sha256: certificate.repeat(32),
                chain: Chain::Complete,
                verify: "ok".to_owned(),
                name_ok: Some(true),
                names_host: true,
                ..Certificate::default()
            }],
            ..HostResult::default()
        }
    }

    fn pairs(all: &[HostResult]) -> Vec<(String, String)> {
        let mut moduli = Moduli::default();
        for one in all {
            moduli.add(one);
        }
        let names = |holders: &[Holder]| {
            let names: Vec<&str> = holders.iter().map(|one| &*one.host).collect();
            names.join("+")
        };
        let mut pairs: Vec<_> = moduli
            .compared()
            .pairs
            .iter()
            .map(|pair| (names(&pair.one), names(&pair.other)))
            .collect();
        pairs.sort();
        pairs
    }

    #[cfg(gmp)]
    #[test]
    fn each_pair_with_a_common_factor_is_found_and_no_other() {
        // Primes: 65521 65519 65497 65479 65449 65447 65437 65423 65419.
        let all = [
            shows("a", 65521 * 65519, "aa"),
            shows("b", 65521 * 65497, "bb"),
            shows("c", 65479 * 65449, "cc"),
            shows("d", 65447 * 65437, "dd"),
            // Both of its factors are others'.
            shows("e", 65519 * 65497, "ee"),
            // One key on two hosts is no pair.
            shows("f", 65479 * 65449, "cc"),
            shows("g", 65447 * 65423, "99"),
        ];
        let expected = [("a", "e"), ("a", "b"), ("b", "e"), ("d", "g")];
        let mut found = pairs(&all);
        for pair in &mut found {
            if pair.0 > pair.1 {
                *pair = (pair.1.clone(), pair.0.clone());
            }
        }
        found.sort();
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(one, other)| ((*one).to_owned(), (*other).to_owned()))
            .collect();
        expected.sort();
        assert_eq!(found, expected);
        assert!(pairs(&all[..1]).is_empty() && pairs(&[]).is_empty());
    }

    #[test]
    fn what_is_no_modulus_is_ignored() {
        for hex in ["", "0", "01", "xyz", &"f".repeat(4097)] {
            assert_eq!(modulus(hex), None, "{hex:.9}");
        }
        assert_eq!(modulus("000c1"), Some(vec![0xc1]));
        assert_eq!(
            modulus(&"f".repeat(4096)).map(|bytes| bytes.len()),
            Some(2048)
        );
    }
}
