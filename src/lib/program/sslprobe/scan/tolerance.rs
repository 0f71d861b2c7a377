//! What a server must bear with: a hello of two segments, values that mean
//! nothing, no server name and a wrong one.
#![forbid(unsafe_code)]

use super::raw::{HelloAnswer, HelloOffer, Naming};
use super::versions::{all_suites, usual_groups};
use super::{Scan, Stop};
use crate::probe::result::Version;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    if !scan.speaks(Version::Tls13) && scan.highest_old() == Some(Version::Ssl3) {
        // Its ClientHello has no room for any of this.
        return Ok(());
    }
    let both = takes(scan, |ask| {
        ask.large = true;
        ask.grease = true;
    })?;
    scan.result.large_hello = Some(both || takes(scan, |ask| ask.large = true)?);
    scan.result.grease = Some(both || takes(scan, |ask| ask.grease = true)?);
    if scan.target.server_name().is_some() {
        scan.facts.without_name = Some(takes(scan, |ask| ask.naming = Naming::None)?);
        scan.facts.wrong_name = Some(takes(scan, |ask| ask.naming = Naming::Wrong)?);
    }
    Ok(())
}

/// Whether a hello with everything in it is still answered. Silence is how some
/// firewalls refuse.
fn takes(scan: &mut Scan<'_>, change: impl FnOnce(&mut HelloOffer)) -> Result<bool, Stop> {
    let highest = if scan.speaks(Version::Tls13) {
        Version::Tls13
    } else {
        scan.highest_old().unwrap_or(Version::Tls12)
    };
    let mut suites = all_suites(highest);
    let mut older: &'static [Version] = &[];
    if highest == Version::Tls13 {
        suites.extend(all_suites(Version::Tls12));
        older = &[Version::Tls12];
    }
    let mut ask = HelloOffer::new(highest, suites, usual_groups(highest));
    ask.older = older;
    change(&mut ask);
    match scan.ask(&ask) {
        Ok(HelloAnswer::Flight(_)) => Ok(true),
        Ok(HelloAnswer::Refused(_)) | Err(Stop::Connection(_)) => Ok(false),
        Err(other) => Err(other),
    }
}
