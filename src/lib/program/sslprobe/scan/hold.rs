//! Whether the line for tlsdestinations that will be suggested holds: by a
//! handshake under it, as qmail-sslremote makes them.
#![forbid(unsafe_code)]

use super::agreement::verified;
use super::{Scan, Stop, TargetRule};
use crate::options::sslprobe::Depth;
use crate::probe::partner::{self, Hold, Partner, PartnerHost};
use crate::probe::result::{HostResult, Version};
use crate::report::Fail;
use crate::tlsdestinations::Destinations;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    if scan.of_no_use().is_some() {
        // Handshakes that fail in a row would end the probe.
        return Ok(());
    }
    if scan.terms.depth != Depth::Usual && scan.speaks(Version::Tls13) {
        // There is hardly a handshake for this, and TLS 1.3 has no weak suites.
        return Ok(());
    }
    let result = HostResult {
        versions: Some(Version::ALL.map(|one| (one, Some(scan.speaks(one)))).into()),
        ..scan.result.clone()
    };
    let mut tried = String::new();
    let mut why = String::new();
    for hold in [Hold::Plain, Hold::Lowered] {
        let partner = partner(scan);
        let held = PartnerHost {
            result: &result,
            others: &scan.facts.others,
            hold: &hold,
        };
        let Some(line) = partner::line(&partner, &[held]) else {
            return Ok(());
        };
        if line == tried {
            break;
        }
        match holds(scan, &line)? {
            Ok(()) => {
                scan.facts.hold = Some(hold);
                return Ok(());
            }
            Err(fail) => why = fail.to_string(),
        }
        tried = line;
    }
    scan.facts.hold = Some(Hold::Not(why));
    Ok(())
}

/// This host alone.
fn partner<'a>(scan: &Scan<'a>) -> Partner<'a> {
    let domain = scan.target.mx_of.as_ref().map(|(domain, _)| domain);
    Partner {
        destination: domain.unwrap_or(&scan.target.host),
        is_domain: domain.is_some(),
        anchor_file: scan.terms.anchor_file.as_deref(),
    }
}

/// Whether a handshake under a line comes to a good end; why not.
fn holds(scan: &mut Scan<'_>, line: &str) -> Result<Result<(), Fail>, Stop> {
    let target = scan.target;
    let mut rule = match Destinations::from_text(line).look_up(&target.as_destination(), None) {
        Ok(rule) => rule,
        Err(unusable) => return Ok(Err(unusable.to_string().into())),
    };
    // No file can be read any more; the judge's are those of the line.
    rule.value.anchors = None;
    let rule = TargetRule::new(rule, target, scan.terms.judge.anchors());
    Ok(match rule.store {
        Ok(store) => {
            let ssl = store.connection(&target.reference, rule.names)?;
            verified(scan, ssl)?.map_err(|failure| failure.to_string().into())
        }
        Err(why) => Err(why),
    })
}
