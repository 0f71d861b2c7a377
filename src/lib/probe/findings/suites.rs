//! Findings of versions, suites and key exchange.
#![forbid(unsafe_code)]

use super::super::groups;
use super::super::result::{HostResult, Severity, Version};
use super::super::suites::{self, Weakness};
use super::{Facts, Findings};

pub(super) fn add(found: &mut Findings, result: &HostResult, facts: &Facts) {
    versions(found, result);
    weak(found, result);
    exchange(found, result, facts);
    let resumed = result.resumption.as_ref();
    if resumed.is_some_and(|all| !all.is_empty() && all.values().all(|resumed| !resumed)) {
        found.note(
            "no-resumption",
            "No session is resumed: each connection costs a full handshake",
        );
    }
    if result.server_order == Some(false) {
        found.note(
            "client-order",
            "The suite is chosen by the client's order, not the server's",
        );
    }
}

fn versions(found: &mut Findings, result: &HostResult) {
    let old: Vec<String> = [Version::Ssl3, Version::Tls10, Version::Tls11]
        .into_iter()
        .filter(|version| result.speaks(*version))
        .map(|version| version.to_string())
        .collect();
    let modern = result.speaks(Version::Tls12) || result.speaks(Version::Tls13);
    let severity = match (result.speaks(Version::Ssl3), modern) {
        (_, false) => Severity::High,
        (true, true) => Severity::Medium,
        (false, true) => Severity::Low,
    };
    if !old.is_empty() {
        let old = old.join(", ");
        let text = if modern {
            format!("Old versions are spoken: {old}; TLSv1.2 and TLSv1.3 suffice")
        } else {
            format!(
                "Only old versions are spoken ({old}): current senders refuse them; allow TLSv1.2"
            )
        };
        found.add(severity, "old-version", text);
    }
    if modern && result.refuses(Version::Tls13) {
        found.note("no-tls13", "TLSv1.3 is not spoken");
    }
}

fn weak(found: &mut Findings, result: &HostResult) {
    let names = result.weak.as_deref().unwrap_or_default();
    let mut worst: Vec<(Weakness, &str)> = names
        .iter()
        .filter_map(|name| Some((suites::called(name)?.weakness()?, name.as_str())))
        .collect();
    worst.sort();
    let Some((weakness, _)) = worst.first() else {
        return;
    };
    let severity = match weakness {
        Weakness::Export | Weakness::Null | Weakness::Rc4 | Weakness::Des => Severity::High,
        Weakness::TripleDes => Severity::Medium,
        Weakness::Anonymous | Weakness::NoForwardSecrecy => Severity::Low,
    };
    let mut kinds: Vec<&str> = worst.iter().map(|(weakness, _)| weakness.word()).collect();
    kinds.dedup();
    let example = worst.first().map(|(_, name)| *name).unwrap_or_default();
    found.add(
        severity,
        "weak-suite",
        format!(
            "The server accepts weak suites ({}), such as {example}: switch them off",
            kinds.join(", ")
        ),
    );
}

fn exchange(found: &mut Findings, result: &HostResult, facts: &Facts) {
    if let Some(bits) = result.dh_bits.filter(|bits| *bits < 2048) {
        let prime = result.dh_prime.as_deref().unwrap_or("unknown");
        let shared = match prime {
            "unknown" => String::new(),
            known => format!(", and many servers share it ({known})"),
        };
        let severity = if bits < 1024 {
            Severity::High
        } else {
            Severity::Medium
        };
        found.add(
            severity,
            "small-dh",
            format!("The DHE prime has {bits} bits only{shared}: use ffdhe2048 or larger"),
        );
    }
    let listed = result.groups.as_deref();
    if facts.hybrids_asked
        && result.speaks(Version::Tls13)
        && listed.is_some_and(|all| !all.iter().any(|one| groups::is_hybrid(one)))
    {
        found.note(
            "no-hybrid",
            "No hybrid group with ML-KEM: what is recorded now may be decrypted in years",
        );
    }
}
