//! Whether the line for tlsdestinations that will be suggested holds: by a
//! handshake under it, as qmail-sslremote makes them.
#![forbid(unsafe_code)]

use super::agreement::verified;
use super::{Scan, Stop};
use crate::options::sslprobe::Depth;
use crate::probe::partner::{self, Hold, Partner};
use crate::probe::result::{HostResult, Version};
use crate::settings::Settings;
use crate::store::client::{self, Setup, Store, Trust};
use crate::tlsdestinations::{Destination, Destinations, Way};
use crate::trust::Reference;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    if scan.terms.depth != Depth::Usual && scan.speaks(Version::Tls13) {
        // There is hardly a handshake for this, and TLS 1.3 has no weak suites.
        return Ok(());
    }
    let result = HostResult {
        versions: Some(Version::ALL.map(|one| (one, scan.speaks(one))).into()),
        ..scan.result.clone()
    };
    let mut tried = String::new();
    let mut why = String::new();
    for hold in [Hold::Plain, Hold::Lowered] {
        let partner = partner(scan);
        let Some(line) = partner::line(&partner, &[(&result, &hold)]) else {
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
            Err(failure) => why = failure,
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
fn holds(scan: &mut Scan<'_>, line: &str) -> Result<Result<(), String>, Stop> {
    let target = scan.target;
    let to = match &target.mx_of {
        Some((domain, signed)) => Destination {
            domain,
            way: Way::Exchanger {
                host: &target.host,
                signed: *signed,
            },
        },
        None => Destination::itself(&target.host),
    };
    let rule = match Destinations::from_text(line).look_up(&to, None) {
        Ok(rule) => rule,
        Err(unusable) => return Ok(Err(unusable.to_string())),
    };
    let mut settings = Settings::default();
    if let Some(ciphers) = &rule.value.ciphers {
        settings.overlay([("CIPHERS".to_owned(), ciphers.clone())]);
    }
    let asked = Setup {
        // No file can be read any more; these are those of the line.
        trust: Trust::Loaded(scan.terms.judge.anchors()),
        ..Setup::under(&rule, Trust::System)
    };
    let store = match Store::load(&settings, &asked, &super::super::NO_KEY) {
        Ok(store) => store,
        Err(fail) => return Ok(Err(fail.to_string())),
    };
    let reference = Reference::new(&target.host);
    let ssl = store.connection(&reference, client::names(&rule, &to));
    let ssl = ssl.map_err(|error| Stop::Connection(crate::report::tls_reason(&error)))?;
    Ok(verified(scan, ssl)?.map_err(|failure| failure.to_string()))
}
