//! Whose order counts, weak suites, and the prime of DHE: a few hellos, each with
//! the suites of one kind.
#![forbid(unsafe_code)]

use super::raw::{HelloAnswer, HelloOffer};
use super::versions::{all_suites, usual_groups};
use super::{Scan, Stop};
use crate::probe::result::Version;
use crate::probe::suites::{self, Suite, Weakness};

/// How many weak suites are looked for by name.
const WEAK: usize = 3;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let Some(version) = scan.highest_old() else {
        return order(scan, Version::Tls13);
    };
    order(scan, version)?;
    finite_field(scan, version)?;
    let broken = |suite: &Suite| {
        let weakness = suite.weakness();
        weakness.is_some_and(|weakness| weakness < Weakness::Anonymous)
    };
    kind(scan, version, broken, WEAK)?;
    kind(
        scan,
        version,
        |suite| suite.weakness() == Some(Weakness::Anonymous),
        1,
    )?;
    // Where the oldest version has an order of its own.
    let oldest = Version::ALL.into_iter().find(|one| scan.speaks(*one));
    if let Some(oldest) = oldest.filter(|oldest| *oldest != version) {
        kind(scan, oldest, broken, 1)?;
    }
    scan.seen.weak_asked = true;
    let plain = |suite: &Suite| suite.weakness() == Some(Weakness::NoForwardSecrecy);
    kind(scan, version, plain, 1)
}

/// The suite that the server prefers stands last: who takes it all the same goes
/// by an order of its own, or has no other.
pub(super) fn order(scan: &mut Scan<'_>, version: Version) -> Result<(), Stop> {
    let Some(first) = scan.seen.preferred.get(&version).copied() else {
        return Ok(());
    };
    let mut list = all_suites(version);
    list.retain(|number| *number != first);
    list.push(first);
    let ask = HelloOffer::new(version, list, usual_groups(version));
    if let HelloAnswer::Flight(flight) = scan.ask(&ask)? {
        scan.result.server_order = Some(flight.hello.suite == first);
    }
    Ok(())
}

/// The prime of DHE, where there is any.
pub(super) fn finite_field(scan: &mut Scan<'_>, version: Version) -> Result<(), Stop> {
    if !scan.seen.primes.is_empty() {
        return Ok(());
    }
    let sound = |suite: &Suite| suite.has_finite_field() && suite.weakness().is_none();
    kind(scan, version, sound, 1)
}

/// Offers the suites of a kind alone, and again without those that were taken, at
/// most so many times.
pub(super) fn kind(
    scan: &mut Scan<'_>,
    version: Version,
    wanted: impl Fn(&Suite) -> bool,
    most: usize,
) -> Result<(), Stop> {
    let of_kind = suites::of_version(version).filter(|suite| wanted(suite));
    let mut list: Vec<u16> = of_kind.map(|suite| suite.number).collect();
    list.retain(|number| !scan.seen.took(version, *number));
    for _ in 0..most {
        if list.is_empty() {
            break;
        }
        let ask = HelloOffer::new(version, list.clone(), usual_groups(version));
        let HelloAnswer::Flight(flight) = scan.ask(&ask)? else {
            break;
        };
        let before = list.len();
        list.retain(|number| *number != flight.hello.suite);
        if list.len() == before {
            // It chose what was not offered: it would do so for ever.
            break;
        }
    }
    Ok(())
}
