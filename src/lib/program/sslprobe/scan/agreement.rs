//! Whether mail would get through under the rule in tlsdestinations, and whether
//! the certificate matches the host's TLSA records: by handshakes as
//! qmail-sslremote makes them.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::time::Instant;

use openssl::ssl::Ssl;

use super::session::PLAIN_SIDE;
use super::{DomainPolicy, Published, Scan, Stop, TargetRule};
use crate::handshake::{self, Failure};
use crate::link::Link;
use crate::probe::result::Agreement;
use crate::text;
use crate::tlsdestinations::{Rule, Tls};
use crate::trust::{self, Name, Reference};

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    records(scan)?;
    domain_policy(scan)?;
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

/// What holds where no TLS was reached.
pub(super) fn without_tls(rule: &Rule, why: &str) -> (bool, String) {
    let place = place(rule);
    match rule.tls() {
        Tls::Required => (false, format!("{place}: mail would not get through: {why}")),
        Tls::Never | Tls::Offered => (true, format!("{place}: mail would go in the clear")),
    }
}

/// A handshake under the rule.
fn under(scan: &mut Scan<'_>, of_target: &TargetRule) -> Result<(bool, String), Stop> {
    let rule = &of_target.rule;
    let place = place(rule);
    let through = format!("{place}: mail would get through");
    if rule.tls() == Tls::Never {
        return Ok((
            true,
            format!("{place}: TLS is never tried, mail would go in the clear"),
        ));
    }
    let no = |why: &dyn Display| (false, format!("{place}: mail would not get through: {why}"));
    let store = match &of_target.store {
        Ok(store) => store,
        // It is a wrong line that decides, and names itself.
        Err(why) if rule.line.is_none() => {
            return Ok((false, format!("Mail would not get through: {why}")));
        }
        Err(why) => return Ok(no(why)),
    };
    let reference = Reference::new(&scan.target.host);
    let ssl = store.connection(&reference, of_target.names.clone())?;
    Ok(match verified(scan, ssl)? {
        Ok(()) => (true, through),
        Err(failure) if rule.tls() == Tls::Offered => (
            true,
            format!("{place}: mail would go in the clear: {failure}"),
        ),
        Err(failure) => no(&failure),
    })
}

/// A handshake that verifies, by itself.
pub(super) fn verified(scan: &mut Scan<'_>, ssl: Ssl) -> Result<Result<(), Failure>, Stop> {
    let (socket, until) = scan.ready(false)?;
    scan.result.handshakes += 1;
    let limit = until.saturating_duration_since(Instant::now());
    let session = match handshake::perform(ssl, socket, limit, PLAIN_SIDE) {
        Ok(session) => session,
        Err(failure) => {
            // It is the server's certificate that is at fault.
            scan.hang_up(matches!(failure, Failure::Certificate(_)));
            return Ok(Err(failure));
        }
    };
    let judged = trust::verdict(session.ssl());
    let mut link = Link::tls(session);
    link.allow(until.saturating_duration_since(Instant::now()));
    scan.leave(link);
    Ok(judged.map(drop).map_err(Failure::Certificate))
}

/// TLSA records.
fn records(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let published = match &scan.target.published {
        Published::Unknown => return Ok(()),
        Published::Nothing => {
            scan.result.dane = Some(Agreement::None);
            return Ok(());
        }
        Published::Unusable(why) => {
            scan.result.dane = Some(Agreement::None);
            scan.facts.unusable_records = Some(why.clone());
            return Ok(());
        }
        Published::Bogus => {
            scan.result.dane = Some(Agreement::Bogus);
            return Ok(());
        }
        Published::Records(host, records) => trust::Published {
            host: host.clone(),
            others: Vec::new(),
            records: records.clone(),
            names: Vec::new(),
        },
    };
    let ssl = scan.terms.records.connection_by_records(published)?;
    match verified(scan, ssl)? {
        Ok(()) => scan.result.dane = Some(Agreement::Ok),
        Err(Failure::Certificate(refusal)) => {
            scan.result.dane = Some(Agreement::Mismatch);
            scan.facts.records_refused = Some(refusal.reason);
        }
        Err(_) => {}
    }
    Ok(())
}

/// The mail domain's policy of MTA-STS.
fn domain_policy(scan: &mut Scan<'_>) -> Result<(), Stop> {
    if lists(scan) {
        let reference = Reference::new(&scan.target.host);
        let names = vec![Name::new(reference.clone())];
        let ssl = scan.terms.policies.connection(&reference, names)?;
        match verified(scan, ssl)? {
            Ok(()) => scan.result.sts = Some(Agreement::Ok),
            Err(Failure::Certificate(_)) => scan.result.sts = Some(Agreement::Mismatch),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Whether the domain's policy lists the host; where it does not, or there is none, that
/// is all there is to it.
fn lists(scan: &mut Scan<'_>) -> bool {
    scan.result.sts = match &scan.target.policy {
        DomainPolicy::Unknown => None,
        DomainPolicy::Nothing => Some(Agreement::None),
        DomainPolicy::Policy(policy) if policy.matches(&scan.target.host) => return true,
        DomainPolicy::Policy(_) => Some(Agreement::Mismatch),
    };
    false
}

/// The same where no TLS was reached.
pub(super) fn policy_without_tls(scan: &mut Scan<'_>) {
    if lists(scan) {
        scan.result.sts = Some(Agreement::Mismatch);
    }
}
