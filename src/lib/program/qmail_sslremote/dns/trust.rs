//! What DNSSEC starts from: the root's keys, and the domains that it is not asked
//! about.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::rr::{IntoName as _, Name};
use hickory_resolver::proto::serialize::txt::trust_anchor::{Entry, Parser};

use crate::report;

/// Domains of private networks, which the root does not have: no signature of its
/// can lead to them. From RFC 6761, 6762 and 8375, and ICANN's list of names that
/// will never be delegated.
const PRIVATE: [&str; 9] = [
    "corp",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "lan",
    "local",
    "private",
    "test",
];

/// Whom to believe.
#[derive(Clone)]
pub struct Trust {
    anchors: Arc<TrustAnchors>,
    excepted: Vec<Name>,
}

fn text(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(report::reason(&error)),
    }
}

impl Trust {
    /// Reads `dnssecanchors`, DNSKEY records of the root zone in the place of the
    /// known ones, and `dnssecinsecure`, domains a line.
    ///
    /// # Errors
    /// A file cannot be read, or something else stands there.
    pub fn read(folder: &Path) -> Result<Trust, String> {
        let anchors = match text(&folder.join("dnssecanchors"))
            .map_err(|why| format!("dnssecanchors: {why}"))?
        {
            Some(text) => anchors(&text).map_err(|why| format!("dnssecanchors: {why}"))?,
            None => TrustAnchors::default(),
        };
        let own = text(&folder.join("dnssecinsecure"))
            .map_err(|why| format!("dnssecinsecure: {why}"))?
            .unwrap_or_default();
        let lines = own.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let excepted = PRIVATE
            .into_iter()
            .chain(lines)
            .map(|line| {
                let name = format!("{}.", line.trim_matches('.'));
                let wrong = |_| format!("dnssecinsecure: no domain: {line}");
                name.into_name().map_err(wrong)
            })
            .collect::<Result<_, _>>()?;
        Ok(Trust {
            anchors: Arc::new(anchors),
            excepted,
        })
    }

    /// The root's keys.
    #[must_use]
    pub fn anchors(&self) -> Arc<TrustAnchors> {
        Arc::clone(&self.anchors)
    }

    /// Whether no signatures are asked for there.
    #[must_use]
    pub fn excepts(&self, name: &Name) -> bool {
        self.anchors.is_empty() || self.excepted.iter().any(|domain| domain.zone_of(name))
    }
}

fn anchors(text: &str) -> Result<TrustAnchors, String> {
    let entries = Parser::new(text)
        .parse()
        .map_err(|error| error.to_string())?;
    for entry in entries {
        // An island below an unsigned root would need more than a key.
        if let Entry::DNSKEY(record) = entry
            && !record.name().is_root()
        {
            return Err(format!("{} is not the root zone", record.name()));
        }
    }
    text.parse()
        .map_err(|error: hickory_resolver::proto::serialize::txt::ParseError| error.to_string())
}
