//! What somebody should know of a result: each thing with a stable word, how bad
//! it is, and one sentence fit to be sent to whoever can mend it.
#![forbid(unsafe_code)]

use super::partner::{Hold, LOWERED};
use super::result::{Certificate, Finding, HostResult, Severity, Version};
use crate::text;

mod certificates;
mod dialogue;
mod reach;
mod senders;
mod suites;

/// The longest sentence, in bytes: with what stands before it in the report it
/// keeps to 160 columns.
pub const TEXT_LIMIT: usize = 146;

/// What would become of mail under a rule of tlsdestinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailOutcome {
    /// It would get through.
    Through,
    /// It would not.
    Kept,
    /// The probe did not get so far.
    Unknown,
}

/// What a probe learnt that is no key of the result.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Something on the way took STARTTLS away: how that shows.
    pub stripped: Option<String>,
    /// It said in the clear what it can do: it talks without TLS, too.
    pub talks: bool,
    /// The words with which the server refused to talk, or refused TLS.
    pub refusal: Option<String>,
    /// Why a handshake came to nothing.
    pub handshake: Option<String>,
    /// It begins handshakes, and none of libssl's came to its end.
    pub unfinished: bool,
    /// A handshake under the suggested line, where one was made.
    pub hold: Option<Hold>,
    /// Certificates of a kind of key of which the result has another one: the server
    /// shows now this one, now that.
    pub others: Vec<Certificate>,
    /// Why the TLSA records are of no use, where none is.
    pub unusable_records: Option<String>,
    /// The domain's policy (MTA-STS) is in mode testing: mail is delivered all the same.
    pub tests_policy: bool,
    /// What was compared with the TLSA records that do not match.
    pub records_refused: Option<String>,
    /// A ClientHello that offers TLS 1.3 came to nothing where one that does not was
    /// answered: how.
    pub intolerant: Option<String>,
    /// Versions that the server answered with internal_error: a fault of its own, which
    /// says nothing of what it allows.
    pub broken: Vec<Version>,
    /// What was wrong with the server's answers inside TLS.
    pub inside: Option<String>,
    /// Hybrid groups were asked for.
    pub hybrids_asked: bool,
    /// It serves a client that sends no server name.
    pub without_name: Option<bool>,
    /// It serves a client that sends a name it has never heard of.
    pub wrong_name: Option<bool>,
    /// What is wrong with a certificate that cannot be read.
    pub unreadable: Option<String>,
    /// Below TLS 1.3: it knows RFC 5746.
    pub secure_renegotiation: Option<bool>,
    /// In TLS 1.2: it knows RFC 7627.
    pub extended_master_secret: Option<bool>,
    /// `-F` had no handshakes left before it knew all suites and groups.
    pub unlisted: bool,
    /// It asks clients for a certificate.
    pub wants_certificate: bool,
    /// What would become of mail under the rule in tlsdestinations; the sentence.
    pub policy: Option<(MailOutcome, String)>,
    /// The time now, as results have it.
    pub now: String,
    /// The same in 14 days.
    pub soon: String,
}

impl Facts {
    /// Whether the suggested line holds; taken for granted where nobody tried.
    #[must_use]
    pub fn held(&self) -> &Hold {
        self.hold.as_ref().unwrap_or(&Hold::Plain)
    }
}

/// What is to be known of the suggested line before it is used: behind all other
/// findings, for nothing is wrong. `signed`: the answer that names the MX hosts was, if
/// there was one.
pub fn of_line(result: &mut HostResult, signed: Option<bool>) {
    let Some(line) = &result.tlsdestinations else {
        return;
    };
    let mut found = Findings(Vec::new());
    if line.contains(LOWERED) {
        found.note(
            "line-lowered",
            "The suggested line lowers OpenSSL's security level for this partner (@SECLEVEL=0): \
             without that there is no connection",
        );
    }
    // By name, with hosts that DNS gave.
    if line.starts_with('~') && signed == Some(false) {
        found.note(
            "line-names-from-dns",
            "The suggested line has MX names that DNS gave without a signature: ask the partner \
             whether they are right",
        );
    }
    result.findings.append(&mut found.0);
}

/// The list in the making.
struct Findings(Vec<Finding>);

impl Findings {
    fn high(&mut self, code: &str, text: impl AsRef<str>) {
        self.add(Severity::High, code, text);
    }

    fn medium(&mut self, code: &str, text: impl AsRef<str>) {
        self.add(Severity::Medium, code, text);
    }

    fn low(&mut self, code: &str, text: impl AsRef<str>) {
        self.add(Severity::Low, code, text);
    }

    fn note(&mut self, code: &str, text: impl AsRef<str>) {
        self.add(Severity::Note, code, text);
    }

    fn add(&mut self, severity: Severity, code: &str, text: impl AsRef<str>) {
        self.0.push(Finding {
            severity,
            code: code.to_owned(),
            text: clipped(text.as_ref()),
        });
    }
}

/// A sentence that fits its line.
fn clipped(text: &str) -> String {
    let text = text::printable(text.as_bytes());
    if text.len() <= TEXT_LIMIT {
        return text;
    }
    let cut = &text[..TEXT_LIMIT - 3];
    // At a word, unless that is a very long one.
    let end = cut.rfind(' ').filter(|end| *end > TEXT_LIMIT / 2);
    format!("{}...", &cut[..end.unwrap_or(cut.len())])
}

/// All findings, the worst first, each word once.
#[must_use]
pub fn of(result: &HostResult, facts: &Facts) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    reach::add(&mut found, result, facts);
    if let Some((fate, sentence)) = &facts.policy {
        let severity = match fate {
            MailOutcome::Through => Severity::Note,
            MailOutcome::Kept => Severity::High,
            MailOutcome::Unknown => Severity::Medium,
        };
        found.add(severity, "policy", sentence);
    }
    if let Some(Hold::Not(why)) = &facts.hold {
        found.medium(
            "no-line",
            format!("TLS cannot be required of it, as qmail-sslremote would: {why}"),
        );
    }
    dialogue::add(&mut found, result);
    if result.has_tls() {
        certificates::add(&mut found, result, facts);
        suites::add(&mut found, result, facts);
        tolerance(&mut found, result, facts);
        senders::add(&mut found, result, facts);
    }
    let mut all = found.0;
    all.sort_by_key(|one| one.severity);
    let mut seen: Vec<String> = Vec::new();
    all.retain(|one| {
        let new = !seen.contains(&one.code);
        seen.push(one.code.clone());
        new
    });
    all
}

/// What a server should bear with.
fn tolerance(found: &mut Findings, result: &HostResult, facts: &Facts) {
    if result.large_hello == Some(false) {
        found.medium(
            "large-hello-refused",
            "A large ClientHello (two TCP segments, as with ML-KEM) fails: a server or firewall \
             reads only its first segment",
        );
    }
    if result.grease == Some(false) {
        found.medium(
            "grease-refused",
            "A ClientHello with unknown values (GREASE, RFC 8701) is refused: new clients will fail",
        );
    }
    if facts.without_name == Some(false) {
        found.medium(
            "no-sni-refused",
            "A client that sends no SNI is refused: many mail senders send none; serve them a default \
             certificate",
        );
    }
    if facts.wrong_name == Some(false) {
        found.low(
            "wrong-sni-refused",
            "A client whose SNI is another name is refused: serve it a default certificate",
        );
    }
    if facts.secure_renegotiation == Some(false) {
        found.medium(
            "no-secure-renegotiation",
            "Secure renegotiation (RFC 5746) is missing below TLS 1.3: OpenSSL 3 and others refuse \
             to connect; update the server",
        );
    }
    extended_master_secret(found, result, facts);
    if facts.unlisted {
        found.note(
            "not-all-listed",
            "The server accepts more suites or groups than 60 handshakes can list",
        );
    }
    if facts.wants_certificate {
        found.note(
            "client-certificate-asked",
            "The server asks clients for a certificate",
        );
    }
}

/// RFC 7627, without which FIPS 140-3 has no TLS 1.2 (NIST's Implementation
/// Guidance D.Q, in force since May 2023).
fn extended_master_secret(found: &mut Findings, result: &HostResult, facts: &Facts) {
    if facts.extended_master_secret != Some(false) {
        return;
    }
    let (severity, who) = if result.speaks(Version::Tls13) {
        (Severity::Note, "partners without TLSv1.3")
    } else {
        (Severity::Medium, "partners")
    };
    found.add(
        severity,
        "no-extended-master-secret",
        format!(
            "Extended master secret (RFC 7627) is missing in TLSv1.2: {who} in FIPS mode (RHEL 9.2) \
             can't connect; update the server"
        ),
    );
}

#[cfg(test)]
mod tests;
