//! The groups of TLS 1.3: a hybrid one, and the one that the server asks for.
#![forbid(unsafe_code)]

use super::raw::HelloOffer;
use super::versions::all_suites;
use super::{Scan, Stop};
use crate::probe::groups;
use crate::probe::result::Version;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    if !scan.speaks(Version::Tls13) {
        return Ok(());
    }
    scan.facts.hybrids_asked = true;
    if !scan.seen.groups.iter().any(|name| groups::is_hybrid(name)) {
        among(scan, groups::HYBRIDS.to_vec())?;
    }
    among(scan, groups::GROUPS.to_vec())?;
    Ok(())
}

/// The group that the server asks for among these, by its HelloRetryRequest.
pub(super) fn among(scan: &mut Scan<'_>, list: Vec<u16>) -> Result<Option<u16>, Stop> {
    let mut ask = HelloOffer::new(Version::Tls13, all_suites(Version::Tls13), list);
    ask.share = false;
    let flight = scan.ask(&ask)?.flight();
    Ok(flight.and_then(|flight| flight.hello.group))
}
