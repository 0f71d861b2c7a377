//! What sslprobe found out of many servers, summed up: counts by port, keys that
//! several hosts share, RSA moduli with a common factor, and what has changed
//! since an earlier run. Nothing here opens a file.
#![forbid(unsafe_code)]

pub mod changes;
pub mod chart;
pub mod factors;
pub mod reader;
pub mod shared;
pub mod table;
pub mod tally;

use serde::Serialize;

use crate::probe::result::HostResult;
use crate::text;

use factors::Pair;
use shared::{Shared, Sharing};
use tally::Tally;

/// All that is told of one run.
#[derive(Debug, Serialize)]
pub struct Survey {
    /// The counts.
    #[serde(flatten)]
    pub tally: Tally,
    /// Keys (SHA-256 of SubjectPublicKeyInfo) of more than one host.
    pub shared_keys: Vec<Shared>,
    /// Certificates of more than one host.
    pub shared_certificates: Vec<Shared>,
    /// RSA moduli with a common factor, where it was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_factors: Option<Vec<Pair>>,
}

/// A survey in the making.
#[derive(Default)]
pub struct Collector {
    tally: Tally,
    keys: Sharing,
    certificates: Sharing,
}

impl Collector {
    /// Counts one result.
    pub fn add(&mut self, result: &HostResult) {
        self.tally.add(result);
        let host = printable(&result.host);
        for certificate in &result.certificates {
            self.keys.add(&certificate.spki, &host);
            self.certificates.add(&certificate.sha256, &host);
        }
    }

    /// The survey, with the pairs that `-k` found.
    #[must_use]
    pub fn finish(self, common_factors: Option<Vec<Pair>>) -> Survey {
        Survey {
            tally: self.tally,
            shared_keys: self.keys.finish(),
            shared_certificates: self.certificates.finish(),
            common_factors,
        }
    }
}

/// A text of a result, which may come from anybody.
fn printable(text: &str) -> String {
    text::printable(text.as_bytes())
}
