//! Whether mail would get through under the rule in tlsdestinations, and whether
//! the certificate matches the host's TLSA records: by handshakes as
//! qmail-sslremote makes them.
#![forbid(unsafe_code)]

use std::time::Instant;

use openssl::ssl::Ssl;

use super::session::PLAIN_SIDE;
use super::{DomainPolicy, Scan, Stop, TargetRule};
use crate::dane::{self, Dane, Lack};
use crate::dns::NoAnswer;
use crate::handshake::{self, HandshakeFailure};
use crate::mta_sts::policy::Mode;
use crate::probe::findings::MailOutcome;
use crate::probe::result::Agreement;
use crate::store::client::Store;
use crate::text;
use crate::tlsdestinations::{Port, Rule, Tls, TlsMode};
use crate::transport::Transport;
use crate::trust::{self, Fault, Name};

/// What the domain publishes.
pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    records(scan)?;
    domain_policy(scan)
}

/// The rule that is compared, before handshakes run out.
pub(super) fn rule(scan: &mut Scan<'_>) -> Result<(), Stop> {
    if let Some(rule) = scan.rule {
        scan.facts.policy = Some(under(scan, rule)?);
    }
    Ok(())
}

/// How a rule is named in a sentence.
fn place(rule: &Rule) -> String {
    let key = text::excerpt(rule.key.as_bytes(), 60);
    match rule.line {
        Some(line) => format!("tlsdestinations line {line} \"{key}\""),
        None => "tlsdestinations has no line for it".to_owned(),
    }
}

/// What holds where no handshake was made under the rule.
pub(super) fn without_handshake(scan: &Scan<'_>, of_target: &TargetRule) -> (MailOutcome, String) {
    let place = place(&of_target.rule);
    match (of_target.ready(&scan.target.host), &scan.result.error) {
        (Err(fate), _) => fate,
        (Ok(_), Some(why)) => not_by_tls(scan, of_target, why),
        (Ok(_), None) => {
            let why = "the probe had no handshake left for it";
            let sentence = format!("{place}: whether mail would get through is not known: {why}");
            (MailOutcome::Unknown, sentence)
        }
    }
}

/// What becomes of mail where TLS comes to nothing.
fn not_by_tls(scan: &Scan<'_>, of_target: &TargetRule, why: &str) -> (MailOutcome, String) {
    let place = place(&of_target.rule);
    if of_target.requires_tls() || !scan.facts.talks {
        return not_through(&place, why);
    }
    (
        MailOutcome::Through,
        format!("{place}: mail would go in the clear: {why}"),
    )
}

fn not_through(place: &str, why: &str) -> (MailOutcome, String) {
    let sentence = format!("{place}: mail would not get through: {why}");
    (MailOutcome::Kept, sentence)
}

impl TargetRule {
    /// What a handshake under it needs.
    ///
    /// # Errors
    /// None is to be made: what becomes of mail.
    fn ready(&self, host: &str) -> Result<(&Store, Option<&Dane>), (MailOutcome, String)> {
        let place = place(&self.rule);
        let store = self.store.as_ref();
        let store = store.map_err(|why| not_through(&place, &why.to_string()))?;
        if let Some(Port { number, mode }) = self.elsewhere {
            let way = match mode {
                TlsMode::StartTls => "STARTTLS",
                TlsMode::Implicit | TlsMode::Qmtps => "TLS at once",
            };
            let host = text::excerpt(host.as_bytes(), 30);
            let sentence = format!(
                "{place}: mail goes to port {number} ({way}), which was not probed: probe \
                 {host}:{number}"
            );
            return Err((MailOutcome::Unknown, sentence));
        }
        let dane = self.dane.as_ref().map_err(|lack| {
            let why = match lack {
                Lack::NoRecords(why) => format!("DANE is required, and {why}"),
                Lack::Unusable(why) => format!("DANE is required, and {why}"),
                Lack::Lookup(why) => {
                    format!("its TLSA records (DANE) could not be looked up: {why}")
                }
            };
            not_through(&place, &why)
        })?;
        Ok((store, dane.as_ref()))
    }
}

/// Why no session comes about, as short as a line of the report wants it.
fn failed(failure: &HandshakeFailure) -> String {
    match failure {
        HandshakeFailure::Certificate(refusal, _) if refusal.fault == Fault::Records => {
            format!("DANE: {}", refusal.reason)
        }
        other => other.to_string(),
    }
}

/// A handshake under the rule.
fn under(scan: &mut Scan<'_>, of_target: &TargetRule) -> Result<(MailOutcome, String), Stop> {
    let rule = &of_target.rule;
    let place = place(rule);
    let (store, dane) = match of_target.ready(&scan.target.host) {
        Ok(ready) => ready,
        Err(fate) => return Ok(fate),
    };
    if rule.tls() == Tls::Never {
        let sentence = format!("{place}: TLS is never tried, mail would go in the clear");
        return Ok((MailOutcome::Through, sentence));
    }
    let ssl = dane::connection(store, &scan.target.reference, dane, of_target.names.clone())?;
    let published = dane.and_then(|dane| dane.published.as_ref());
    // The names that a line wants besides are none of the domain's business.
    let by_records_alone = published.is_some_and(|published| published.names.is_empty());
    let outcome = verified(scan, ssl)?;
    if by_records_alone {
        note_agreement(scan, &outcome);
    }
    Ok(match (outcome, &scan.facts.inside) {
        (Ok(()), None) => (
            MailOutcome::Through,
            format!("{place}: mail would get through"),
        ),
        (Ok(()), Some(how)) => not_by_tls(scan, of_target, &format!("inside TLS: {how}")),
        (Err(failure), _) => not_by_tls(scan, of_target, &failed(&failure)),
    })
}

/// What a handshake with TLSA records says of them.
fn note_agreement(scan: &mut Scan<'_>, outcome: &Result<(), HandshakeFailure>) {
    match outcome {
        Ok(()) => scan.result.dane = Some(Agreement::Ok),
        Err(HandshakeFailure::Certificate(refusal, _)) => {
            scan.result.dane = Some(Agreement::Mismatch);
            scan.facts.records_refused = Some(refusal.reason.clone());
        }
        Err(_) => {}
    }
}

/// A handshake that verifies, by itself.
pub(super) fn verified(
    scan: &mut Scan<'_>,
    ssl: Ssl,
) -> Result<Result<(), HandshakeFailure>, Stop> {
    let (socket, until) = scan.ready(false)?;
    scan.result.handshakes += 1;
    let limit = until.saturating_duration_since(Instant::now());
    let session = match handshake::perform(ssl, socket, limit, PLAIN_SIDE) {
        Ok(session) => session,
        Err(failure) => {
            // It is the server's certificate that is at fault.
            scan.hang_up(matches!(failure, HandshakeFailure::Certificate(..)));
            return Ok(Err(failure));
        }
    };
    let judged = trust::verdict(session.ssl());
    let mut transport = Transport::tls(session);
    transport.allow(until.saturating_duration_since(Instant::now()));
    scan.leave(transport);
    Ok(judged
        .map(drop)
        .map_err(|refusal| HandshakeFailure::Certificate(refusal, None)))
}

/// TLSA records.
fn records(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let Some(known) = &scan.target.published else {
        return Ok(());
    };
    if scan.result.dane.is_some() {
        return Ok(());
    }
    if let Err(trouble) = &known.tlsa {
        let bogus = matches!(trouble, NoAnswer::Bogus(_));
        scan.result.dane = bogus.then_some(Agreement::Bogus);
        return Ok(());
    }
    // As they count where no line does.
    let dane = scan.target.dane(&Rule::none(), Vec::new());
    let Some(published) = dane.ok().flatten().and_then(|dane| dane.published) else {
        scan.result.dane = Some(Agreement::None);
        if let Ok(Some(tlsa)) = &known.tlsa {
            scan.facts.unusable_records = tlsa.unusable.first().map(ToString::to_string);
        }
        return Ok(());
    };
    let ssl = scan.terms.records.connection_by_records(published)?;
    let outcome = verified(scan, ssl)?;
    note_agreement(scan, &outcome);
    Ok(())
}

/// The mail domain's policy of MTA-STS.
fn domain_policy(scan: &mut Scan<'_>) -> Result<(), Stop> {
    if lists(scan) {
        let reference = scan.target.reference.clone();
        let names = vec![Name::new(reference.clone())];
        let ssl = scan.terms.policies.connection(&reference, names)?;
        match verified(scan, ssl)? {
            Ok(()) => scan.result.sts = Some(Agreement::Ok),
            Err(HandshakeFailure::Certificate(..)) => scan.result.sts = Some(Agreement::Mismatch),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Whether the domain's policy lists the host; where it does not, or there is none, that
/// is all there is to it.
fn lists(scan: &mut Scan<'_>) -> bool {
    scan.facts.tests_policy = matches!(
        &scan.target.policy,
        DomainPolicy::Policy(policy) if policy.mode == Mode::Testing
    );
    scan.result.sts = match &scan.target.policy {
        DomainPolicy::Unknown => None,
        DomainPolicy::Nothing => Some(Agreement::None),
        DomainPolicy::Policy(policy) if policy.matches(&scan.target.host) => return true,
        DomainPolicy::Policy(_) => Some(Agreement::Mismatch),
    };
    false
}

/// The domain's policy, where it is enforced and stands above the rule, as in a
/// delivery from a host that follows policies.
pub(super) fn weigh_policy(scan: &mut Scan<'_>) {
    let (Some(of_target), DomainPolicy::Policy(policy)) = (scan.rule, &scan.target.policy) else {
        return;
    };
    let rule = &of_target.rule;
    let has_records = matches!(&of_target.dane, Ok(Some(dane)) if dane.published.is_some());
    let counts = of_target.follows_policies
        && policy.mode == Mode::Enforce
        && rule.weighs_policy()
        && !rule.value.dane
        && !has_records;
    let through = matches!(scan.facts.policy, Some((MailOutcome::Through, _)));
    if counts && through && scan.result.sts == Some(Agreement::Mismatch) {
        let why = "the domain enforces its MTA-STS policy, and the server does not agree";
        scan.facts.policy = Some(not_through(&place(rule), why));
    }
}

/// The same where no TLS was reached.
pub(super) fn policy_without_tls(scan: &mut Scan<'_>) {
    if lists(scan) {
        scan.result.sts = Some(Agreement::Mismatch);
    }
}
