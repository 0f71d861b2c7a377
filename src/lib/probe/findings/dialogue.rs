//! Findings of what is offered in the clear.
#![forbid(unsafe_code)]

use super::super::result::{HostResult, Injection, Severity, StartTls};
use super::Findings;

/// Mechanisms that hand the password itself to who listens.
const PLAIN: [&str; 3] = ["PLAIN", "LOGIN", "USER"];

pub(super) fn add(found: &mut Findings, result: &HostResult) {
    let before = result.auth_before_tls.as_deref().unwrap_or_default();
    let in_clear = result
        .starttls
        .is_some_and(|starttls| starttls != StartTls::NotApplicable);
    if in_clear && !before.is_empty() {
        let plain = before.iter().any(|one| PLAIN.contains(&one.as_str()));
        let (severity, danger) = if plain {
            (Severity::High, "passwords can be read on the way")
        } else {
            (Severity::Low, "who listens can guess passwords at leisure")
        };
        found.add(
            severity,
            "auth-in-clear",
            format!(
                "Logins are offered before TLS ({}): {danger}; offer them inside TLS only",
                before.join(" ")
            ),
        );
    }
    if result.injection == Some(Injection::Answered) {
        found.high(
            "injection",
            "Commands injected behind STARTTLS are answered inside TLS (CVE-2011-0411): update the \
             server",
        );
    }
    if result.capabilities_fresh == Some(false) {
        found.note(
            "same-capabilities",
            "The capability list inside TLS still offers the upgrade to TLS",
        );
    }
}
