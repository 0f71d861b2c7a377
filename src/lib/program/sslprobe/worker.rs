//! The process that probes one unit: it looks everything up, gives up all that it
//! does not need any more, and then reads what servers send.
#![forbid(unsafe_code)]

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use super::destination::Unit;
use super::lookup::{self, IpFamily};
use super::scan::{self, Target, TargetRule, Terms};
use super::turn::Turn;
use crate::confine;
use crate::mta_sts::cache::{Cache, FOLDER};
use crate::probe::findings::{self, Facts};
use crate::probe::partner::{self, Partner, PartnerHost};
use crate::probe::result::{HostResult, StartTls};
use crate::qmail_home;
use crate::report::Fail;
use crate::store::pool::AnchorPool;
use crate::sys::fd;
use crate::sys::process::Forked;
use crate::sys::sandbox::Process;
use crate::sys::standard;
use crate::sys::user::{self, Identity};
use crate::tlsdestinations::Destinations;

/// What all workers start from.
pub(super) struct Setup {
    /// What is the same for all targets.
    pub(super) terms: Terms,
    /// Families of addresses, one result each.
    pub(super) families: Vec<IpFamily>,
    /// Rules to compare with.
    pub(super) compared: Option<Compared>,
}

/// What mail would be sent under.
pub(super) struct Compared {
    /// The rules.
    pub(super) destinations: Destinations,
    /// Who is trusted where they name nobody.
    pub(super) anchors: AnchorPool,
}

/// The whole life of the process; its exit code.
pub(super) fn main(forked: &Forked, setup: &Setup, unit: &Unit, stream: UnixStream) -> u8 {
    let targets = lookup::targets(unit, &setup.families);
    let rules: Vec<Option<TargetRule>> = targets.iter().map(|one| rule(setup, one)).collect();
    if give_up(forked, &stream).is_err() {
        return 1;
    }
    let mut turn = Turn::new(stream);
    let mut done: Vec<(HostResult, Facts)> = Vec::new();
    for (target, rule) in targets.iter().zip(&rules) {
        done.push(scan::run(target, &setup.terms, rule.as_ref(), &mut turn));
    }
    judge_together(&mut done);
    suggest(setup, unit, &mut done);
    for ((result, _), target) in done.iter_mut().zip(&targets) {
        findings::of_line(result, target.mx_of.as_ref().map(|(_, signed)| *signed));
    }
    for (result, _) in &done {
        if turn.result(result).is_err() {
            return 1;
        }
    }
    0
}

/// The rule that is for a target.
fn rule(setup: &Setup, target: &Target) -> Option<TargetRule> {
    let compared = setup.compared.as_ref()?;
    let found = compared
        .destinations
        .look_up(&target.as_destination(), None);
    Some(match found {
        Ok(rule) => {
            let mut rule = TargetRule::new(rule, target, &compared.anchors);
            let folder = qmail_home::folder().join(FOLDER);
            rule.follows_policies = Cache::open(&folder).is_some();
            rule
        }
        Err(unusable) => TargetRule::unusable(&unusable),
    })
}

/// Gives up everything that calling servers does not need: nothing is opened
/// after this. As root, the process becomes nobody.
fn give_up(forked: &Forked, stream: &UnixStream) -> Result<(), Fail> {
    // A connection must never be descriptor 2, where a bug would be told.
    fd::detach_standard().map_err(Fail::unable("use a sandbox"))?;
    let (input, output, errors) = standard::three();
    forked.close_all_but(&[
        input.as_fd(),
        output.as_fd(),
        errors.as_fd(),
        stream.as_fd(),
    ]);
    if user::is_root() {
        // Where root cannot become anybody else it stays what it is, in its
        // sandbox.
        let _ = Identity::nobody().assume();
    }
    confine::take_on(Process::Remote, false, stream)
}

/// What shows only beside another port of the same host: STARTTLS that is offered
/// on 587, and not on 25, was taken away on the way.
fn judge_together(done: &mut [(HostResult, Facts)]) {
    let offers = |result: &HostResult| result.starttls == Some(StartTls::Offered);
    let submission: Vec<String> = done
        .iter()
        .filter(|(result, _)| result.port == 587 && offers(result))
        .map(|(result, _)| result.host.clone())
        .collect();
    for (result, facts) in done {
        let missing = result.port == 25 && result.starttls == Some(StartTls::Missing);
        if missing && facts.stripped.is_none() && submission.contains(&result.host) {
            facts.stripped = Some(
                "Something on the way took STARTTLS away: the same host offers it on port 587"
                    .to_owned(),
            );
            result.findings = findings::of(result, facts);
        }
    }
}

/// The line for tlsdestinations: one for a mail domain, one for each port of a
/// host.
fn suggest(setup: &Setup, unit: &Unit, done: &mut [(HostResult, Facts)]) {
    let partner = Partner {
        destination: &unit.host,
        is_domain: unit.is_domain,
        anchor_file: setup.terms.anchor_file.as_deref(),
    };
    if unit.is_domain {
        let reached = done.iter().filter(|(result, _)| result.listens);
        let reached = reached.map(|(result, facts)| held(result, facts));
        let line = partner::line(&partner, &reached.collect::<Vec<_>>());
        for (result, _) in done {
            result.tlsdestinations = line.clone().filter(|_| result.listens);
        }
    } else {
        for (result, facts) in done {
            result.tlsdestinations = partner::line(&partner, &[held(result, facts)]);
        }
    }
}

fn held<'a>(result: &'a HostResult, facts: &'a Facts) -> PartnerHost<'a> {
    PartnerHost {
        result,
        others: &facts.others,
        hold: facts.held(),
    }
}
