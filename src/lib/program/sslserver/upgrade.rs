//! The program is starttls-handoff: what it would refuse of its command line and its
//! policy once clients are there, said before there are any.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::access::{Access, listed, shown};
use super::{Setup, wrappers};
use crate::options::starttls_handoff::{self, POLICY, TlsUse};
use crate::report::Fail;

/// Why clients, all or those of some rules, would be dropped.
pub(super) fn trouble(setup: &Setup, access: &Access) -> Vec<String> {
    let (runs, _) = wrappers::runs(&setup.program);
    let Some(run) = runs
        .iter()
        .find(|run| starttls_handoff::is_run_by(&run.words))
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let everybody = |why: &str| format!("starttls-handoff: {why}: every client is dropped");
    if let Err(wrong) = starttls_handoff::read(run.words.iter().skip(1).cloned()) {
        found.push(everybody(&wrong.to_string()));
    }
    let policy = run.environment.get(OsStr::new(POLICY));
    let policy = TlsUse::of(policy.map_or(OsStr::new(""), OsString::as_os_str));
    if !setup.options.delayed && policy != Ok(TlsUse::Off) {
        found.push(everybody("it needs -n, which is not given"));
    }
    found.extend(policy.err().map(|why| everybody(&why.to_string())));
    found.extend(of_rules(access));
    found
}

/// Likewise the policies of rules, those with one reason in one line.
fn of_rules(access: &Access) -> Vec<String> {
    let mut by_reason: Vec<(Fail, Vec<String>)> = Vec::new();
    for rule in access.all() {
        let policies = rule
            .variables()
            .filter(|(name, _)| *name == POLICY.as_bytes());
        let Some((_, value)) = policies.last() else {
            continue;
        };
        let Err(why) = TlsUse::of(OsStr::from_bytes(value)) else {
            continue;
        };
        match by_reason.iter_mut().find(|(known, _)| *known == why) {
            Some((_, addresses)) => addresses.push(shown(&rule)),
            None => by_reason.push((why, vec![shown(&rule)])),
        }
    }
    by_reason
        .into_iter()
        .map(|(why, addresses)| {
            let addresses = listed(&addresses);
            format!("rule {addresses}: starttls-handoff: {why}: its clients are dropped")
        })
        .collect()
}
