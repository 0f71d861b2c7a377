//! Whether sessions are resumed.
#![forbid(unsafe_code)]

use super::{Scan, Stop};
use crate::probe::result::Version;

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    for version in [Version::Tls13, Version::Tls12] {
        if !scan.seen.sessions.contains(&version) {
            continue;
        }
        let resumed = match scan.kept.remove(&version) {
            None => false,
            Some(earlier) => match scan.resume(&earlier) {
                Ok(negotiated) => negotiated.resumed && negotiated.version == version,
                Err(Stop::Connection(_)) => false,
                Err(other) => return Err(other),
            },
        };
        let all = scan.result.resumption.get_or_insert_default();
        all.insert(version, resumed);
    }
    Ok(())
}
