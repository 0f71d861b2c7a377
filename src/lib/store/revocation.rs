//! The revocation lists of a file: given to a store, described, and judged by their
//! dates and by who made them.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use openssl::asn1::{Asn1Time, Asn1TimeRef, TimeDiff};
use openssl::error::ErrorStack;
use openssl::x509::{X509, X509Crl, X509CrlRef};

use super::{certificate, shown};
use crate::report::Fail;
use crate::{text, tls_ffi};

/// Which part of a list's time is its last, in which whoever fetches it should have
/// fetched the next one: a quarter, as authorities make lists for a day or for a year.
const LAST_PART: i64 = 4;

/// A list by which clients are judged.
pub struct RevocationList {
    /// File it came from.
    path: PathBuf,
    list: X509Crl,
}

impl RevocationList {
    pub(super) fn new(path: &Path, list: X509Crl) -> RevocationList {
        RevocationList {
            path: path.to_owned(),
            list,
        }
    }

    /// `CRLFILE path: list of CN=Example CA`.
    #[must_use]
    pub fn place(&self) -> String {
        let issuer = tls_ffi::names::rfc4514_form(self.list.issuer_name());
        let path = shown(&self.path);
        format!("CRLFILE {path}: list of {}", text::excerpt(&issuer, 200))
    }

    /// Until when it is current, if it says so.
    #[must_use]
    pub fn next_update(&self) -> Option<&Asn1TimeRef> {
        self.list.next_update()
    }

    /// What an administrator should know of its dates.
    #[must_use]
    pub fn date(&self) -> Option<Fail> {
        /// What becomes of clients whose certificates the list is for.
        const REFUSED: &str = "clients of that authority are refused: put a current list there";
        let place = self.place();
        let now = Asn1Time::days_from_now(0).ok()?;
        let begin = self.list.last_update();
        if *begin > *now {
            return Some(Fail::warning(format!(
                "{place} is not valid before {begin}: {REFUSED}"
            )));
        }
        let next = self.next_update()?;
        if *next < *now {
            return Some(Fail::warning(format!(
                "{place} expired at {next}: {REFUSED}"
            )));
        }
        // Nobody need act on it as long as it would be fetched again anyway.
        let soon = Asn1Time::days_from_now(certificate::WARNING_DAYS).ok()?;
        let (left, whole) = (now.diff(next).ok()?, begin.diff(next).ok()?);
        let seconds = |time: TimeDiff| i64::from(time.days) * 86_400 + i64::from(time.secs);
        (next.compare(&soon).ok()? == Ordering::Less && seconds(left) < seconds(whole) / LAST_PART)
            .then(|| Fail::note(format!("{place} expires at {next}")))
    }

    /// Whether one of these certificates is its issuer's: by name and signature.
    fn is_by_one_of(&self, anchors: &[X509]) -> bool {
        let by = |anchor: &X509, list: &X509CrlRef| -> Result<bool, ErrorStack> {
            let names = anchor.subject_name().try_cmp(list.issuer_name())?;
            Ok(names == Ordering::Equal && list.verify(&*anchor.public_key()?)?)
        };
        anchors
            .iter()
            .any(|anchor| by(anchor, &self.list).unwrap_or(false))
    }
}

/// Says that no list is one of an authority that clients are judged by. Those of an
/// authority below it, whose certificate clients send, may be all that is needed.
pub(super) fn of_strangers(lists: &[RevocationList], anchors: &[X509]) -> Option<Fail> {
    let first = lists.first()?;
    let none = !anchors.is_empty() && !lists.iter().any(|list| list.is_by_one_of(anchors));
    none.then(|| {
        Fail::doubt(format!(
            "{}: its signer is not among CAFILE and CADIR: put that authority's certificate there, \
             or the list of those into CRLFILE, without which their clients are refused",
            first.place()
        ))
    })
}
