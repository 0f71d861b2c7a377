//! The anchors that clients are judged by, kept for their dates: a client whose
//! authority has expired is refused, however new its own certificate is.
#![forbid(unsafe_code)]

use std::cmp::Ordering;

use openssl::asn1::Asn1Time;
use openssl::x509::{X509, X509Ref};

use super::certificate;
use crate::report::{Fail, Severity};
use crate::{text, tls_ffi};

/// See the file's head.
pub(super) struct Judges {
    /// Files and directories that they came from, as messages name them.
    places: String,
    anchors: Vec<X509>,
}

impl Judges {
    pub(super) fn new(places: String, anchors: Vec<X509>) -> Judges {
        Judges { places, anchors }
    }

    /// What an administrator should know of their dates. An authority whose certificate
    /// was renewed under its old key is there twice: the newer one counts.
    pub(super) fn dates(&self) -> Vec<Fail> {
        let none_left = !self.anchors.iter().any(|one| is_current(one));
        let renewed = |one: &X509| {
            let mut others = self.anchors.iter();
            others.any(|other| is_renewal(other, one))
        };
        let judged = self.anchors.iter().filter(|one| !renewed(one));
        let told = judged.filter_map(|one| {
            let subject = tls_ffi::names::rfc4514_form(one.subject_name());
            let subject = text::excerpt(&subject, 200);
            let which = format!("{}: authority {subject}", self.places);
            let found = certificate::date(&which, one)?;
            Some(match found.severity {
                Severity::Note => found,
                _ if none_left => Fail::warning(format!(
                    "{found}: no client certificate can verify: put a current one there"
                )),
                // Bundles of public authorities hold some that are past their date.
                _ => Fail::note(format!("{found}: certificates that it issued are refused")),
            })
        });
        told.collect()
    }
}

fn is_current(one: &X509Ref) -> bool {
    Asn1Time::days_from_now(0)
        .is_ok_and(|now| *one.not_before() <= *now && *one.not_after() >= *now)
}

/// Whether a certificate is current and lasts longer than another of its authority, under
/// the same key.
fn is_renewal(newer: &X509, older: &X509) -> bool {
    let names = newer.subject_name().try_cmp(older.subject_name());
    let keys = newer
        .public_key()
        .and_then(|newer| Ok(newer.public_eq(&*older.public_key()?)));
    names.is_ok_and(Ordering::is_eq)
        && is_current(newer)
        && *newer.not_after() > *older.not_after()
        && keys.unwrap_or(false)
}
