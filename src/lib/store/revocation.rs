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
    /// Which of the anchors signed it, if one of them did.
    signer: Option<usize>,
}

impl RevocationList {
    pub(super) fn new(path: &Path, list: X509Crl, anchors: &[X509]) -> RevocationList {
        RevocationList {
            path: path.to_owned(),
            signer: anchors.iter().position(|anchor| signed(anchor, &list)),
            list,
        }
    }

    /// Whether clients are judged by this list and not by another, which has less time
    /// left or none: both are of one authority, under one key.
    #[must_use]
    pub fn takes_the_place_of(&self, other: &RevocationList) -> bool {
        let (ours, theirs) = (self.list.issuer_name(), other.list.issuer_name());
        let one_authority = ours.try_cmp(theirs).is_ok_and(Ordering::is_eq);
        let outlives = match (self.next_update(), other.next_update()) {
            (Some(ours), Some(theirs)) => ours > theirs,
            (ours, theirs) => ours.is_none() && theirs.is_some(),
        };
        let current = self.is_current();
        one_authority && self.signer == other.signer && current && (outlives || !other.is_current())
    }

    fn is_current(&self) -> bool {
        Asn1Time::days_from_now(0).is_ok_and(|now| {
            *self.list.last_update() <= *now && self.next_update().is_none_or(|next| *next >= *now)
        })
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
}

/// Whether a certificate is that of a list's issuer: by name and signature.
fn signed(anchor: &X509, list: &X509CrlRef) -> bool {
    let by = || -> Result<bool, ErrorStack> {
        let names = anchor.subject_name().try_cmp(list.issuer_name())?;
        Ok(names == Ordering::Equal && list.verify(&*anchor.public_key()?)?)
    };
    by().unwrap_or(false)
}

/// Says that no list is one of an authority that clients are judged by. Those of an
/// authority below it, whose certificate clients send, may be all that is needed.
pub(super) fn of_strangers(lists: &[RevocationList], anchors: &[X509]) -> Option<Fail> {
    let first = lists.first()?;
    let none = !anchors.is_empty() && lists.iter().all(|list| list.signer.is_none());
    none.then(|| {
        Fail::doubt(format!(
            "{}: its signer is not among CAFILE and CADIR: put that authority's certificate there, \
             or the list of those into CRLFILE, without which their clients are refused",
            first.place()
        ))
    })
}
