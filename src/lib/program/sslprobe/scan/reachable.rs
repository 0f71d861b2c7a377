//! Which kinds of senders can connect: by what is known, and where that does not
//! tell by a hello like theirs.
#![forbid(unsafe_code)]

use super::raw::{HelloAnswer, HelloOffer};
use super::versions::usual_groups;
use super::{Scan, Stop};
use crate::options::sslprobe::Depth;
use crate::probe::result::{KeyType, Version};
use crate::probe::senders::{SENDERS, Sender};
use crate::probe::suites::{self, Suite};
use crate::probe::wire::hello::{ALL_SIGNATURES, RSA_SIGNATURES};
use crate::probe::wire::message::{KeyExchange, bits};

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let mut lost = Vec::new();
    for sender in SENDERS {
        let known = match by_what_is_known(scan, sender) {
            None if scan.terms.depth != Depth::Quick && scan.left() > 0 => by_hello(scan, sender)?,
            known => known,
        };
        if known == Some(false) {
            lost.push(sender.name.to_owned());
        }
    }
    scan.result.cannot_reach = Some(lost);
    Ok(())
}

/// `None`: nobody knows.
fn by_what_is_known(scan: &Scan<'_>, sender: &Sender) -> Option<bool> {
    let Some(version) = sender.common_version(|one| scan.speaks(one)) else {
        return Some(false);
    };
    let facts = &scan.facts;
    if (facts.intolerant.is_some() && sender.versions.contains(&Version::Tls13))
        || (version < Version::Tls13
            && facts.secure_renegotiation == Some(false)
            && sender.renegotiates_securely)
    {
        return Some(false);
    }
    let certificates = &scan.result.certificates;
    let fits = |key: KeyType, bits: u32| sender.takes(key, bits);
    if !certificates.is_empty() && !certificates.iter().any(|one| fits(one.key, one.bits)) {
        return Some(false);
    }
    if version == Version::Tls13 {
        return Some(true);
    }
    let has = |suite: &Suite| {
        let mut all = certificates.iter().filter(|one| fits(one.key, one.bits));
        // Of certificates that cannot be read nothing is known.
        certificates.is_empty()
            || all.any(|one| match one.key {
                KeyType::Rsa => suite.needs_rsa(),
                KeyType::Ecdsa | KeyType::Ed25519 => suite.needs_ecdsa(),
                KeyType::Unknown => false,
            })
    };
    let offered = sender.suites.iter().filter_map(|name| suites::called(name));
    let taken = |suite: &&Suite| scan.seen.took(version, suite.number) && has(suite);
    let shared: Vec<&Suite> = offered.filter(taken).collect();
    // Which of several the server would choose does not matter where no prime can
    // be too large.
    let finite = |suite: &&Suite| suite.has_finite_field();
    let any_prime = sender.largest_prime.is_none() && sender.smallest_prime == 0;
    let safe = any_prime || !shared.iter().any(finite);
    match shared.is_empty() {
        false if safe => Some(true),
        true if scan.seen.whole.contains(&version) => Some(false),
        _ => None,
    }
}

/// A hello with the sender's suites.
fn by_hello(scan: &mut Scan<'_>, sender: &Sender) -> Result<Option<bool>, Stop> {
    let Some(version) = sender.common_version(|one| scan.speaks(one)) else {
        return Ok(Some(false));
    };
    let known = sender.suites.iter().filter_map(|name| suites::called(name));
    let fitting = known.filter(|suite| suite.fits(version));
    let list: Vec<u16> = fitting.map(|suite| suite.number).collect();
    if list.is_empty() {
        return Ok(Some(false));
    }
    let mut ask = HelloOffer::new(version, list, usual_groups(version));
    ask.signatures = if sender.ecdsa {
        ALL_SIGNATURES
    } else {
        RSA_SIGNATURES
    }
    .to_vec();
    Ok(match scan.ask(&ask)? {
        HelloAnswer::Refused(_) => Some(false),
        HelloAnswer::Flight(flight) => {
            let Some(KeyExchange::FiniteField(prime)) = &flight.exchange else {
                return Ok(Some(true));
            };
            let bits = bits(prime);
            let small_enough = sender.largest_prime.is_none_or(|most| bits <= most);
            Some(small_enough && bits >= sender.smallest_prime)
        }
    })
}
