//! Findings of certificates and of what a domain publishes of them.
#![forbid(unsafe_code)]

use super::super::result::{Agreement, Certificate, Chain, HostResult, KeyType, Severity};
use super::{Facts, Findings};
use crate::text;

pub(super) fn add(found: &mut Findings, result: &HostResult, facts: &Facts) {
    if let Some(why) = &facts.unreadable {
        found.high(
            "bad-certificate",
            format!("A certificate cannot be read: {why}"),
        );
    }
    for one in &result.certificates {
        dates(found, one, facts);
        chain(found, one, facts);
        name(found, one, result);
        key(found, one);
    }
    for key in [KeyType::Rsa, KeyType::Ecdsa, KeyType::Ed25519] {
        let more = facts.others.iter().filter(|one| one.key == key).count();
        if more > 0 {
            found.low(
                "certificates-vary",
                format!(
                    "The server shows now one {key} certificate, now another ({} seen): is there a \
                     machine that still has an old one?",
                    more + 1
                ),
            );
        }
    }
    agreement(found, result, facts);
}

fn dates(found: &mut Findings, one: &Certificate, facts: &Facts) {
    let end = one.not_after.get(..10).unwrap_or_default();
    let which = one.key;
    if !one.not_after.is_empty() && one.not_after < facts.now {
        found.high(
            "expired",
            format!("The {which} certificate expired on {end}: renew it"),
        );
    } else if one.not_before > facts.now {
        let begin = one.not_before.get(..10).unwrap_or_default();
        found.high(
            "not-yet-valid",
            format!("The {which} certificate is valid only from {begin} on: is a clock wrong?"),
        );
    } else if one.not_after < facts.soon {
        found.medium(
            "expires-soon",
            format!("The {which} certificate ends on {end}, within 14 days: renew it"),
        );
    }
}

fn chain(found: &mut Findings, one: &Certificate, facts: &Facts) {
    let which = one.key;
    match one.chain {
        Chain::Complete | Chain::Unknown => {}
        Chain::Incomplete => found.medium(
            "chain-incomplete",
            format!(
                "The {which} chain is incomplete: issuer {} is neither sent nor trusted; send the \
                 missing intermediate certificate",
                text::excerpt(one.issuer.as_bytes(), 40)
            ),
        ),
        Chain::Misordered => found.low(
            "chain-misordered",
            format!("The {which} chain is out of order: the server's own certificate first, then its issuers"),
        ),
        Chain::SelfSigned => found.medium(
            "self-signed",
            format!("The {which} certificate is self-signed: partners can pin it, not verify it"),
        ),
    }
    let out_of_date = one.not_after < facts.now || one.not_before > facts.now;
    let is_told = out_of_date || matches!(one.chain, Chain::Incomplete | Chain::SelfSigned);
    if one.fails() && !is_told {
        let cure = if one.verify.contains("in certificate chain") {
            "; partners can pin it, or it must come from a public CA"
        } else if one.verify.contains("expired") {
            " (an intermediate); send its successor"
        } else {
            ""
        };
        found.medium(
            "unverified",
            format!(
                "The {which} certificate does not verify: {}{cure}",
                one.verify
            ),
        );
    }
}

fn name(found: &mut Findings, one: &Certificate, result: &HostResult) {
    if one.name_ok != Some(false) {
        return;
    }
    let wanted = text::excerpt(result.host.as_bytes(), 60);
    let named = match one.names.as_slice() {
        [] => "no name in subjectAltName, and a CN does not count".to_owned(),
        [only] => text::excerpt(only.as_bytes(), 40),
        [first, ..] => format!(
            "{} and {} more",
            text::excerpt(first.as_bytes(), 30),
            one.names.len() - 1
        ),
    };
    found.medium(
        "name-mismatch",
        format!(
            "The {} certificate does not name {wanted}: it has {named}",
            one.key
        ),
    );
}

fn key(found: &mut Findings, one: &Certificate) {
    let small = one.key == KeyType::Rsa && one.bits < 2048;
    if small {
        let severity = if one.bits < 1024 {
            Severity::High
        } else {
            Severity::Medium
        };
        found.add(
            severity,
            "small-key",
            format!(
                "The RSA key has {} bits only: current senders want 2048",
                one.bits
            ),
        );
    }
    let weak = ["md5", "md2", "sha1With", "ecdsa-with-SHA1"];
    if one.chain != Chain::SelfSigned && weak.iter().any(|word| one.signature.contains(word)) {
        found.medium(
            "weak-signature",
            format!(
                "The {} certificate is signed with {}",
                one.key, one.signature
            ),
        );
    }
}

fn agreement(found: &mut Findings, result: &HostResult, facts: &Facts) {
    match result.dane {
        Some(Agreement::Mismatch) => found.high(
            "dane-mismatch",
            format!(
                "Senders with DANE keep their mail: {}",
                facts
                    .records_refused
                    .as_deref()
                    .unwrap_or("the certificate matches no TLSA record of the host")
            ),
        ),
        Some(Agreement::Bogus) => found.high(
            "dane-bogus",
            "The TLSA records do not validate under DNSSEC: senders with DANE keep their mail",
        ),
        Some(Agreement::Ok) => found.note(
            "dane",
            "The certificate matches the host's TLSA records: mail needs no line in tlsdestinations",
        ),
        Some(Agreement::None) => match &facts.unusable_records {
            Some(why) => found.low(
                "dane-unusable",
                format!("No TLSA record is of use, so that they prove nothing: {why}"),
            ),
            None => found.note("no-dane", "No TLSA records (DANE)"),
        },
        None => {}
    }
    match result.sts {
        Some(Agreement::Mismatch) if facts.tests_policy => found.medium(
            "sts-mismatch",
            "The server does not agree with the domain's MTA-STS policy, whose mode is testing: \
             mail is delivered, and senders report it",
        ),
        Some(Agreement::Mismatch) => found.high(
            "sts-mismatch",
            "The server does not agree with the domain's MTA-STS policy: senders keep their mail",
        ),
        _ => {}
    }
}
