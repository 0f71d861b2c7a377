//! The certificates for clients that know one kind of key only.
#![forbid(unsafe_code)]

use super::raw::HelloOffer;
use super::session::SessionLimits;
use super::versions::usual_groups;
use super::{Scan, Stop};
use crate::options::sslprobe::Depth;
use crate::probe::result::{KeyType, Version};
use crate::probe::suites::{self, Suite};
use crate::probe::wire::hello::{ECDSA_SIGNATURES, EDWARDS_SIGNATURES, RSA_SIGNATURES};

/// Libssl's names for the signatures of each kind of key.
const RSA_NAMES: &str = "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:rsa_pss_pss_sha256:\
                         RSA+SHA256:RSA+SHA384:RSA+SHA512:RSA+SHA1";
const OTHER_NAMES: &str = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:ed448";

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let has = |scan: &Scan<'_>, key| scan.result.certificates.iter().any(|one| one.key == key);
    if !has(scan, KeyType::Rsa) {
        one(scan, KeyType::Rsa)?;
    }
    if !has(scan, KeyType::Ecdsa) {
        one(scan, KeyType::Ecdsa)?;
    }
    let full = scan.terms.depth == Depth::Full;
    if full && has(scan, KeyType::Ecdsa) && !has(scan, KeyType::Ed25519) {
        one(scan, KeyType::Ed25519)?;
    }
    Ok(())
}

/// Asks as a client would that knows this kind of key only; one that knows ECDSA
/// knows Ed25519, too.
fn one(scan: &mut Scan<'_>, key: KeyType) -> Result<(), Stop> {
    let Some(version) = scan.highest_old() else {
        return thirteen(scan, key);
    };
    let fits: fn(&Suite) -> bool = match key {
        KeyType::Rsa => Suite::needs_rsa,
        KeyType::Ecdsa | KeyType::Ed25519 | KeyType::Unknown => Suite::needs_ecdsa,
    };
    let list = suites::of_version(version).filter(|suite| fits(suite));
    let list: Vec<u16> = list.map(|suite| suite.number).collect();
    if list.is_empty() {
        return Ok(());
    }
    let mut ask = HelloOffer::new(version, list, usual_groups(version));
    ask.signatures = match key {
        KeyType::Rsa => RSA_SIGNATURES.to_vec(),
        KeyType::Ecdsa | KeyType::Unknown => [ECDSA_SIGNATURES, EDWARDS_SIGNATURES].concat(),
        KeyType::Ed25519 => EDWARDS_SIGNATURES.to_vec(),
    };
    let before = scan.result.certificates.len();
    scan.ask(&ask)?;
    // A server may have such a key for TLS 1.3 only.
    if key == KeyType::Rsa
        && scan.result.certificates.len() == before
        && scan.speaks(Version::Tls13)
    {
        return thirteen(scan, key);
    }
    Ok(())
}

/// The same in TLS 1.3, where certificates are encrypted.
fn thirteen(scan: &mut Scan<'_>, key: KeyType) -> Result<(), Stop> {
    let want = SessionLimits {
        versions: (Version::Tls13, Version::Tls13),
        signatures: Some(match key {
            KeyType::Rsa => RSA_NAMES,
            KeyType::Ecdsa | KeyType::Unknown => OTHER_NAMES,
            KeyType::Ed25519 => "ed25519:ed448",
        }),
    };
    match scan.session(&want) {
        Ok(_) | Err(Stop::Connection(_)) => Ok(()),
        Err(other) => Err(other),
    }
}
