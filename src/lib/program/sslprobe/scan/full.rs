//! Every suite and group: what is offered shrinks by what was taken, until the
//! server refuses the rest at one stroke.
#![forbid(unsafe_code)]

use super::groups::among;
use super::raw::{HelloAnswer, HelloOffer};
use super::versions::{all_suites, usual_groups};
use super::{Scan, Stop, suites};
use crate::hello::group_name;
use crate::probe::groups;
use crate::probe::result::{KeyType, Version};
use crate::probe::suites::{self as table, Suite};
use crate::probe::wire::message::KeyExchange;

/// Handshakes that are kept for what comes behind.
const RESERVE: u32 = 1;
/// Those that are kept for the usual questions about order, DHE and weak suites,
/// as long as it is not known that all suites can be listed.
const QUESTIONS: u32 = 6;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let listed = everything(scan);
    scan.facts.unlisted = matches!(listed, Err(Stop::Budget));
    scan.result.listed_all = Some(listed.is_ok());
    let highest = scan.highest_old();
    if scan.facts.unlisted && highest.is_some_and(|one| !scan.seen.whole.contains(&one)) {
        // What is worst must not be what is missing.
        suites::run(scan)?;
    }
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
    for version in spoken.into_iter().filter(|one| *one < Version::Tls12) {
        older(scan, version)?;
    }
    if let (Some(version), None) = (scan.highest_old(), scan.result.server_order) {
        suites::order(scan, version)?;
    }
    if scan.speaks(Version::Tls13) {
        every_group(scan)?;
    }
    match scan.highest_old() {
        Some(version) => other_curves(scan, version),
        None => Ok(()),
    }
}

/// The curves that were not seen yet, by the suites of an older version that use them.
fn other_curves(scan: &mut Scan<'_>, version: Version) -> Result<(), Stop> {
    let taken = scan.seen.suites.get(&version).into_iter().flatten();
    let by_curve = |number: &u16| {
        let suite = table::known(*number);
        suite.is_some_and(|one| one.is_ephemeral() && !one.has_finite_field())
    };
    let suites: Vec<u16> = taken.copied().filter(by_curve).collect();
    let needs_ecdsa = |number: &u16| table::known(*number).is_some_and(Suite::needs_ecdsa);
    let (with_ecdsa, others): (Vec<u16>, Vec<u16>) = suites.into_iter().partition(needs_ecdsa);
    // Below TLS 1.3 the key of an ECDSA certificate wants its curve listed, too.
    let (suites, kept) = if others.is_empty() {
        (with_ecdsa, own_curves(scan))
    } else {
        (others, Vec::new())
    };
    if suites.is_empty() {
        return Ok(());
    }
    let mut list = groups::curves();
    list.retain(|number| !scan.seen.groups.contains(&group_name(*number)));
    while !list.is_empty() {
        let offered = [&*list, &*kept].concat();
        let answer = scan.ask(&HelloOffer::new(version, suites.clone(), offered))?;
        let taken = match answer.flight().and_then(|flight| flight.exchange) {
            Some(KeyExchange::Curve(taken)) if list.contains(&taken) => taken,
            _ => break,
        };
        list.retain(|number| *number != taken);
    }
    Ok(())
}

/// The curves that the keys of its ECDSA certificates are on.
fn own_curves(scan: &Scan<'_>) -> Vec<u16> {
    let all = scan.result.certificates.iter();
    let ecdsa = all.filter(|one| one.key == KeyType::Ecdsa);
    let name = |bits: u32| format!("P-{bits}");
    let numbers = groups::curves().into_iter();
    let names: Vec<String> = ecdsa.map(|one| name(one.bits)).collect();
    numbers
        .filter(|number| names.contains(&group_name(*number)))
        .collect()
}

/// The groups that a hello of this version names, those first that were not seen
/// yet: what is asked about suites then tells of groups, too.
fn unseen_first(scan: &Scan<'_>, version: Version) -> Vec<u16> {
    let mut list = usual_groups(version);
    list.sort_by_key(|number| scan.seen.groups.contains(&group_name(*number)));
    list
}

/// All suites of a version, in the server's order where it has one.
fn every_suite(scan: &mut Scan<'_>, version: Version) -> Result<(), Stop> {
    let mut list = all_suites(version);
    let mut found = Vec::new();
    let questions = scan.highest_old() == Some(version);
    while !list.is_empty() {
        if questions && scan.left() <= QUESTIONS {
            return Err(Stop::Budget);
        }
        let mut ask = HelloOffer::new(version, list.clone(), unseen_first(scan, version));
        // A server that has to ask for a share names the group.
        ask.share = false;
        let HelloAnswer::Flight(flight) = scan.ask(&ask)? else {
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
    let by_ours = all_suites(version);
    let place = |number: &u16| by_ours.iter().position(|own| own == number);
    if scan.highest_old() == Some(version) && !found.is_sorted_by_key(place) {
        scan.result.server_order = Some(true);
    }
    scan.seen.suites.insert(version, found);
    scan.seen.whole.insert(version);
    scan.seen.weak_asked |= scan.highest_old().is_none_or(|highest| highest == version);
    Ok(())
}

/// All groups of TLS 1.3, in the server's order where the handshakes suffice for
/// that; else those that were not seen yet.
fn every_group(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let mut list = [groups::HYBRIDS, groups::GROUPS].concat();
    scan.facts.hybrids_asked = true;
    let seen = std::mem::take(&mut scan.seen.groups);
    let enough = usize::try_from(scan.left()).is_ok_and(|left| left > list.len());
    if !enough {
        list.retain(|number| !seen.contains(&group_name(*number)));
        scan.seen.groups.clone_from(&seen);
    }
    let listed = groups_among(scan, list);
    for name in seen {
        scan.seen.group(name);
    }
    listed
}

/// What the server takes of these groups: each is seen as it is taken.
fn groups_among(scan: &mut Scan<'_>, mut list: Vec<u16>) -> Result<(), Stop> {
    while !list.is_empty() {
        let Some(taken) = among(scan, list.clone())? else {
            break;
        };
        if !list.contains(&taken) {
            break;
        }
        list.retain(|number| *number != taken);
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
    let ask = HelloOffer::new(version, rest, usual_groups(version));
    let refused = matches!(scan.ask(&ask)?, HelloAnswer::Refused(_));
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
