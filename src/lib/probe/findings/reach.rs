//! Findings on the way to TLS: whether a client gets as far.
#![forbid(unsafe_code)]

use super::{Facts, Findings};
use crate::probe::result::{HostResult, Severity, StartTls};

pub(super) fn add(found: &mut Findings, result: &HostResult, facts: &Facts) {
    let why = result.error.as_deref().unwrap_or_default();
    if !result.listens {
        return found.high("unreachable", format!("Nothing was reached: {why}"));
    }
    if let Some(how) = &facts.intolerant {
        found.high(
            "version-intolerant",
            format!(
                "A client that offers TLSv1.3 is not answered with an older version, as most senders \
                 want: {how}"
            ),
        );
    }
    if let Some(how) = &facts.stripped {
        found.high("stripped", how);
    }
    upgrade(found, result, facts, why);
    handshakes(found, result, facts, why);
    if !result.has_tls() && result.starttls != Some(StartTls::Missing) {
        without_tls(found, result, facts, why);
    }
}

/// The offer of TLS.
fn upgrade(found: &mut Findings, result: &HostResult, facts: &Facts, why: &str) {
    match result.starttls {
        Some(StartTls::Missing) => found.high(
            "starttls-missing",
            format!(
                "{} is not offered: all mail and passwords pass in the clear",
                if result.protocol == "pop3" {
                    "STLS"
                } else {
                    "STARTTLS"
                }
            ),
        ),
        Some(StartTls::Refused) => found.high(
            "refused",
            format!(
                "The server refuses: {}",
                facts.refusal.as_deref().unwrap_or(why)
            ),
        ),
        _ => {}
    }
}

/// Handshakes, and what comes after them.
fn handshakes(found: &mut Findings, result: &HostResult, facts: &Facts, why: &str) {
    if facts.unfinished {
        let (severity, wish) = if facts.wants_certificate {
            (Severity::Medium, " (it wants a certificate of clients)")
        } else {
            (Severity::High, "")
        };
        found.add(
            severity,
            "tls-failed",
            format!("No TLS handshake comes to its end{wish}: {why}"),
        );
    } else if let Some(how) = &facts.inside {
        found.high(
            "no-dialogue",
            format!("Inside TLS the server does not go on: {how}"),
        );
    } else if result.has_tls() && result.error.is_some() {
        found.medium(
            "incomplete",
            format!("The probe ended early and does not know the rest: {why}"),
        );
    }
}

/// Nothing of TLS was seen of a server that did not say that it has none.
fn without_tls(found: &mut Findings, result: &HostResult, facts: &Facts, why: &str) {
    match &facts.handshake {
        Some(how) => found.high("tls-failed", format!("No TLS handshake came about: {how}")),
        None if result.starttls != Some(StartTls::Refused) => found.high(
            "no-dialogue",
            format!("The server did not get as far as TLS: {why}"),
        ),
        None => {}
    }
}
