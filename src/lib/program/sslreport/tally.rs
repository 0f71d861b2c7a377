//! A day's sessions summed up: for each domain and policy how many sessions were as
//! the policy wants it, and how often it failed where and of what.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::tlsrpt::{AppliedPolicy, Place, ResultType, Session, record};

/// A kind of failure.
pub type Failed = (ResultType, Place);

/// The sessions under one policy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Without a failure.
    pub good: u64,
    /// How often each failure was met.
    pub failed: BTreeMap<Failed, u64>,
}

/// The sessions of a domain, by policy.
pub type Policies = BTreeMap<AppliedPolicy, Sessions>;

/// The most kinds of failures of a domain that are told one by one: a report must
/// stay one that can be mailed.
const MOST_FAILURES: usize = 2000;

/// All domains.
#[derive(Debug, Default)]
pub struct Tally(pub BTreeMap<String, Policies>);

impl Tally {
    /// Counts one. Gives `false` where its domain is none that can publish where it
    /// wants reports.
    pub fn add(&mut self, session: Session) -> bool {
        let Session {
            policy,
            place,
            result_type,
            ..
        } = session;
        if record::host_name(&policy.domain).as_ref() != Some(&policy.domain) {
            return false;
        }
        let policies = self.0.entry(policy.domain.clone()).or_default();
        let kinds: usize = policies.values().map(|one| one.failed.len()).sum();
        let sessions = policies.entry(policy).or_default();
        let Some(result) = result_type else {
            sessions.good += 1;
            return true;
        };
        let mut kind = (result, place);
        if kinds >= MOST_FAILURES && !sessions.failed.contains_key(&kind) {
            kind.1 = Place::default();
        }
        *sessions.failed.entry(kind).or_default() += 1;
        true
    }
}
