//! Every suite and group: what is offered shrinks by what was taken, until the
//! server refuses the rest at one stroke.
#![forbid(unsafe_code)]

use super::groups::among;
use super::raw::{Answer, Ask};
use super::versions::{all_suites, usual_groups};
use super::{Scan, Stop, suites};
use crate::probe::result::Version;
use crate::probe::{groups, suites as table};

/// Handshakes that are kept for what comes behind.
const RESERVE: u32 = 1;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let listed = everything(scan);
    scan.facts.unlisted = matches!(listed, Err(Stop::Budget));
    listed
}

fn everything(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let spoken: Vec<Version> = Version::ALL
        .into_iter()
        .rev()
        .filter(|one| scan.speaks(*one))
        .collect();
    for version in spoken.iter().copied().filter(|one| *one >= Version::Tls12) {
        every_suite(scan, version)?;
    }
    if scan.speaks(Version::Tls13) {
        every_group(scan)?;
    }
    if let Some(version) = scan.highest_old() {
        suites::order(scan, version)?;
    }
    for version in spoken.into_iter().filter(|one| *one < Version::Tls12) {
        older(scan, version)?;
    }
    Ok(())
}

/// All suites of a version, in the server's order where it has one.
fn every_suite(scan: &mut Scan<'_>, version: Version) -> Result<(), Stop> {
    let mut list = all_suites(version);
    let mut found = Vec::new();
    while !list.is_empty() {
        let ask = Ask::new(version, list.clone(), usual_groups(version));
        let Answer::Flight(flight) = scan.ask(&ask)? else {
            break;
        };
        let taken = flight.hello.suite;
        let chosen = flight.hello.version == version.number() && list.contains(&taken);
        if !chosen {
            break;
        }
        list.retain(|number| *number != taken);
        found.push(taken);
    }
    scan.seen.suites.insert(version, found);
    scan.seen.whole.insert(version);
    Ok(())
}

/// All groups of TLS 1.3.
fn every_group(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let mut list: Vec<u16> = groups::numbers(groups::HYBRIDS)
        .chain(groups::numbers(groups::GROUPS))
        .collect();
    let mut found = Vec::new();
    while !list.is_empty() {
        let Some(taken) = among(scan, list.clone())? else {
            break;
        };
        if !list.contains(&taken) {
            break;
        }
        list.retain(|number| *number != taken);
        found.push(groups::name(taken));
    }
    // Those of older versions stand behind.
    found.extend(std::mem::take(&mut scan.seen.groups));
    for name in found {
        scan.seen.group(name);
    }
    Ok(())
}

/// The suites of an older version: one by one where the handshakes suffice, else
/// as the newer version has them, checked by the rest, which must be refused.
fn older(scan: &mut Scan<'_>, version: Version) -> Result<(), Stop> {
    let above = scan.highest_old().filter(|highest| *highest > version);
    let known: Vec<u16> = above
        .and_then(|above| scan.seen.suites.get(&above))
        .map(|all| {
            all.iter()
                .copied()
                .filter(|number| fits(*number, version))
                .collect()
        })
        .unwrap_or_default();
    let needed = u32::try_from(known.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1 + RESERVE);
    if known.is_empty() || scan.left() >= needed {
        return every_suite(scan, version);
    }
    let mut rest = all_suites(version);
    rest.retain(|number| !known.contains(number));
    let ask = Ask::new(version, rest, usual_groups(version));
    let refused = matches!(scan.ask(&ask)?, Answer::Refused(_));
    for number in known {
        scan.seen.suite(version, number);
    }
    if refused {
        scan.seen.whole.insert(version);
    }
    Ok(())
}

fn fits(number: u16, version: Version) -> bool {
    table::known(number).is_some_and(|suite| suite.fits(version))
}
