//! Which versions the server speaks.
#![forbid(unsafe_code)]

use super::raw::{HelloAnswer, HelloOffer, alert};
use super::session::SessionLimits;
use super::{Scan, Stop};
use crate::probe::result::Version::{self, Ssl3, Tls10, Tls11, Tls12, Tls13};
use crate::probe::{groups, suites};

/// The alert of a server that has a fault of its own (RFC 8446 section 6.2).
const INTERNAL_ERROR: u8 = 80;

/// Every suite of a version.
pub(super) fn all_suites(version: Version) -> Vec<u16> {
    suites::of_version(version)
        .map(|suite| suite.number)
        .collect()
}

/// The groups that a hello of this version names: below TLS 1.3 curves alone, so
/// that DHE keeps the server's own prime (RFC 7919 section 4).
pub(super) fn usual_groups(version: Version) -> Vec<u16> {
    match version {
        Tls13 => groups::GROUPS.to_vec(),
        _ => groups::curves(),
    }
}

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let refused = match scan.seen.versions.keys().max().copied() {
        Some(highest) => {
            above(scan, highest);
            None
        }
        None => anything(scan)?,
    };
    let unknown = !scan.seen.versions.contains_key(&Tls12);
    if unknown && (scan.speaks(Tls13) || refused.is_some()) {
        twelve(scan)?;
    }
    for version in [Tls12, Tls11, Tls10, Ssl3] {
        if !scan.seen.versions.contains_key(&version) {
            older(scan, version)?;
        }
    }
    // Twice a suite was among those offered, and was taken only without TLS 1.3.
    let offered = all_suites(Tls12);
    let taken = |version| {
        let seen: Option<&Vec<u16>> = scan.seen.suites.get(&version);
        seen.is_some_and(|all| all.iter().any(|one| offered.contains(one)))
    };
    let older = [Tls12, Tls11, Tls10].into_iter().any(taken);
    scan.facts.intolerant = refused.filter(|_| older && !scan.speaks(Tls13));
    if !scan.seen.versions.values().any(|spoken| *spoken) {
        let why = scan.facts.handshake.clone();
        return Err(Stop::Host(
            why.unwrap_or_else(|| "no handshake came about".to_owned()),
        ));
    }
    Ok(())
}

/// A server takes the highest version that it shares with a client.
fn above(scan: &mut Scan<'_>, highest: Version) {
    for version in Version::ALL.into_iter().filter(|one| *one > highest) {
        scan.seen.versions.insert(version, false);
    }
}

/// Where libssl came to nothing: all that there is, from TLS 1.3 down. How it was
/// refused.
fn anything(scan: &mut Scan<'_>) -> Result<Option<String>, Stop> {
    let mut suites = all_suites(Tls13);
    suites.extend(all_suites(Tls12));
    let mut ask = HelloOffer::new(Tls13, suites, usual_groups(Tls13));
    ask.older = &[Tls12, Tls11, Tls10];
    match scan.ask(&ask) {
        Ok(HelloAnswer::Flight(flight)) => {
            if let Some(version) = Version::from_number(flight.hello.version) {
                above(scan, version);
                scan.seen
                    .preferred
                    .entry(version)
                    .or_insert(flight.hello.suite);
            }
        }
        Ok(HelloAnswer::Refused(why)) | Err(Stop::Connection(why)) => {
            scan.facts.handshake.get_or_insert(why.clone());
            return Ok(Some(why));
        }
        Err(other) => return Err(other),
    }
    Ok(None)
}

/// TLS 1.2 by a whole session, which may be resumed later.
fn twelve(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let want = SessionLimits {
        versions: (Tls12, Tls12),
        signatures: None,
    };
    match scan.session(&want) {
        Ok(_) => {
            let first = scan
                .seen
                .suites
                .get(&Tls12)
                .and_then(|all| all.first().copied());
            scan.seen
                .preferred
                .extend(first.map(|suite| (Tls12, suite)));
            Ok(())
        }
        Err(Stop::Connection(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// An older version by a hello of our own.
fn older(scan: &mut Scan<'_>, version: Version) -> Result<(), Stop> {
    let ask = HelloOffer::new(version, all_suites(version), usual_groups(version));
    match scan.ask(&ask) {
        Ok(HelloAnswer::Flight(flight)) => {
            let found = Version::from_number(flight.hello.version);
            if found != Some(version) {
                scan.seen.versions.insert(version, false);
            }
            if let Some(found) = found {
                scan.seen
                    .preferred
                    .entry(found)
                    .or_insert(flight.hello.suite);
            }
        }
        Ok(HelloAnswer::Refused(why)) | Err(Stop::Connection(why)) => {
            if why == alert(INTERNAL_ERROR) {
                scan.facts.broken.push(version);
            }
            scan.facts.handshake.get_or_insert(why);
            scan.seen.versions.insert(version, false);
        }
        Err(other) => return Err(other),
    }
    Ok(())
}
