//! The process that probes one unit: it looks everything up, gives up all that it
//! does not need any more, and then reads what servers send.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;

use openssl::asn1::Asn1Time;

use super::destination::Unit;
use super::lookup::{self, Wanted};
use super::scan::{self, Policy, Target, Terms};
use super::turn::Turn;
use crate::probe::findings::{self, Facts};
use crate::probe::partner::{self, Partner};
use crate::probe::result::{HostResult, StartTls};
use crate::report::Fail;
use crate::settings::{Filter, Settings};
use crate::store::client::{self, Store, Trust};
use crate::sys::fd;
use crate::sys::process::Forked;
use crate::sys::sandbox::{self, Confinement, Sandbox};
use crate::sys::user::{self, Identity};
use crate::tlsdestinations::{Destination, Destinations, Way};

/// What all workers start from.
pub(super) struct Setup {
    /// What is the same for all targets.
    pub(super) terms: Terms,
    /// Families of addresses, one result each.
    pub(super) families: Vec<Wanted>,
    /// Rules to compare with.
    pub(super) destinations: Option<Destinations>,
    /// With a filter of system calls.
    pub(super) filter: Filter,
}

/// The whole life of the process; its exit code.
pub(super) fn main(forked: &Forked, setup: &Setup, unit: &Unit, stream: UnixStream) -> u8 {
    let targets = lookup::targets(unit, &setup.families);
    let policies: Vec<Option<Policy>> = targets.iter().map(|one| policy(setup, one)).collect();
    if confine(forked, setup.filter, &stream).is_err() {
        return 1;
    }
    let mut turn = Turn::new(stream);
    let mut done: Vec<(HostResult, Facts)> = Vec::new();
    for (target, policy) in targets.iter().zip(&policies) {
        done.push(scan::run(target, &setup.terms, policy.as_ref(), &mut turn));
    }
    judge_together(&mut done);
    suggest(setup, unit, &mut done);
    for (result, _) in &done {
        if turn.result(result).is_err() {
            return 1;
        }
    }
    0
}

/// The rule that is for a target, with its store.
fn policy(setup: &Setup, target: &Target) -> Option<Policy> {
    let destinations = setup.destinations.as_ref()?;
    let to = match &target.mx_of {
        Some((domain, signed)) => Destination {
            domain,
            way: Way::Exchanger {
                host: &target.host,
                signed: *signed,
            },
        },
        None => Destination::itself(&target.host),
    };
    let rule = match destinations.look_up(&to, None) {
        Ok(rule) => rule,
        Err(unusable) => return Some(Policy::unusable(unusable.to_string())),
    };
    let mut settings = Settings::default();
    if let Some(ciphers) = &rule.value.ciphers {
        settings.overlay([("CIPHERS".to_owned(), ciphers.clone())]);
    }
    let anchors = client::system_anchors();
    let asked = client::Setup::under(&rule, Trust::Loaded(&anchors));
    let store = Store::load(&settings, &asked, &super::NO_KEY).map_err(|fail| fail.to_string());
    Some(Policy {
        names: client::names(&rule, &to),
        rule,
        store,
    })
}

/// Gives up everything that calling servers does not need: nothing is opened
/// after this. As root, the process becomes nobody.
fn confine(forked: &Forked, filter: Filter, stream: &UnixStream) -> Result<(), Fail> {
    let unable = |error| Fail::unable("use a sandbox")(error);
    // Libc reads the time zone when libcrypto first looks at a calendar.
    let _ = Asn1Time::days_from_now(0);
    let sandbox = Sandbox::prepare(sandbox::Role::Remote);
    // A connection must never be descriptor 2, where a bug would be told.
    fd::detach_standard().map_err(unable)?;
    let errors = io::stderr();
    let (input, output) = (io::stdin(), io::stdout());
    let mut keep = vec![
        input.as_fd(),
        output.as_fd(),
        errors.as_fd(),
        stream.as_fd(),
    ];
    keep.extend(sandbox.descriptor());
    forked.close_all_but(&keep);
    if user::is_root() {
        // Where root cannot become anybody else it stays what it is, in its
        // sandbox.
        let _ = Identity::nobody().assume();
    }
    // The next descriptor is a connection's, and there is one at a time.
    let next = fd::duplicate_above(stream, 0).map_err(unable)?;
    let highest = next.as_raw_fd().max(stream.as_raw_fd());
    drop(next);
    let confinement = Confinement {
        filter: filter != Filter::Off,
        highest,
    };
    match sandbox.take_on(confinement) {
        Err(error) if filter == Filter::Required => Err(unable(error)),
        _ => Ok(()),
    }
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
        let reached = reached.map(|(result, facts)| (result, facts.held()));
        let line = partner::line(&partner, &reached.collect::<Vec<_>>());
        for (result, _) in done {
            result.tlsdestinations = line.clone().filter(|_| result.listens);
        }
    } else {
        for (result, facts) in done {
            result.tlsdestinations = partner::line(&partner, &[(result, facts.held())]);
        }
    }
}

impl Policy {
    /// A line that decides and is wrong: mail under it waits.
    fn unusable(why: String) -> Policy {
        Policy {
            rule: crate::tlsdestinations::Rule::none(),
            names: Vec::new(),
            store: Err(why),
        }
    }
}
