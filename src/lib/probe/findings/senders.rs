//! Findings of who cannot connect, each with what would let them.
#![forbid(unsafe_code)]

use super::super::result::{HostResult, KeyType, Version};
use super::super::senders::{RSA_ONLY, SENDERS, Sender, WITHOUT_13};
use super::super::suites;
use super::{Facts, Findings, TEXT_LIMIT};

pub(super) fn add(found: &mut Findings, result: &HostResult, facts: &Facts) {
    let lost = result.cannot_reach.as_deref().unwrap_or_default();
    let lost: Vec<&Sender> = SENDERS
        .iter()
        .filter(|one| lost.iter().any(|name| name == one.name))
        .collect();
    for (name, code, who) in [
        (
            RSA_ONLY,
            "rsa-only-senders-refused",
            "Senders that know RSA certificates only",
        ),
        (
            WITHOUT_13,
            "senders-without-tls13-refused",
            "Senders without TLS 1.3",
        ),
    ] {
        if let Some(sender) = lost.iter().find(|one| one.name == name) {
            let cure = cure(result, facts, sender);
            let text = format!("{who} cannot connect: {cure}");
            found.medium(code, text);
        }
    }
    let listed = |current: bool| -> Vec<&Sender> {
        let all = lost.iter().copied().filter(|one| one.current == current);
        all.filter(|one| ![RSA_ONLY, WITHOUT_13].contains(&one.name))
            .collect()
    };
    let current = listed(true);
    if let Some(first) = current.first() {
        let cure = cure(result, facts, first);
        let names = names(&current, TEXT_LIMIT - cure.len() - 20);
        found.medium(
            "senders-refused",
            format!("Cannot connect: {names}; {cure}"),
        );
    }
    let old = listed(false);
    if !old.is_empty() {
        found.note(
            "old-senders-refused",
            format!("Too old to connect: {}", names(&old, TEXT_LIMIT - 20)),
        );
    }
}

/// As many names as fit, and how many there are more.
fn names(senders: &[&Sender], room: usize) -> String {
    let mut out = String::new();
    for (at, sender) in senders.iter().enumerate() {
        let left = senders.len() - at;
        let more = format!(" and {left} more");
        if at > 0 && out.len() + 2 + sender.name.len() + more.len() > room {
            return out + &more;
        }
        if at > 0 {
            out += ", ";
        }
        out += sender.name;
    }
    out
}

/// What would let a sender connect.
fn cure(result: &HostResult, facts: &Facts, sender: &Sender) -> String {
    if facts.intolerant.is_some() && sender.versions.contains(&Version::Tls13) {
        return "answer those that offer TLSv1.3 with TLSv1.2".to_owned();
    }
    if facts.secure_renegotiation == Some(false) && sender.renegotiates_securely {
        return "update the server, for RFC 5746".to_owned();
    }
    let Some(version) = sender.common_version(|one| result.speaks(one)) else {
        // TLS 1.2 is enough for those that speak it: the least that helps.
        let all = sender.versions.iter();
        let modern = all.clone().filter(|one| **one >= Version::Tls12).min();
        let wanted = modern.or(all.max()).unwrap_or(&Version::Tls12);
        // Nobody cures by a setting what the server cannot do itself, such as sign.
        return if facts.broken.contains(wanted) {
            format!("mend the server, which answers {wanted} with alert internal_error (80)")
        } else {
            format!("allow {wanted}")
        };
    };
    let fitting = |one: &&super::super::result::Certificate| sender.takes(one.key, one.bits);
    let certificates = &result.certificates;
    if !certificates.is_empty() && !certificates.iter().any(|one| fitting(&one)) {
        return if certificates.iter().any(|one| one.key == KeyType::Rsa) {
            "offer an RSA key of 2048 bits".to_owned()
        } else if sender.ecdsa {
            "offer an RSA or ECDSA certificate beside the other one".to_owned()
        } else {
            "offer an RSA certificate beside the other one".to_owned()
        };
    }
    let taken = result.suites.as_ref().and_then(|all| all.get(&version));
    let is_taken = |name: &str| taken.is_some_and(|all| all.iter().any(|one| one == name));
    let has_key = |suite: &suites::Suite| {
        certificates
            .iter()
            .filter(fitting)
            .any(|one| match one.key {
                KeyType::Rsa => suite.needs_rsa(),
                KeyType::Ecdsa | KeyType::Ed25519 => suite.needs_ecdsa(),
                KeyType::Unknown => false,
            })
    };
    // A prime may be what is too large or too small for it.
    let wanted = sender.suites.iter().find(|name| {
        let suite = suites::called(name);
        !is_taken(name)
            && suite.is_some_and(|one| one.fits(version) && !one.has_finite_field() && has_key(one))
    });
    match wanted {
        Some(name) => format!("accept {name}, too"),
        None => "accept more suites".to_owned(),
    }
}
