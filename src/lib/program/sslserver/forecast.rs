//! What options, rules and program make of each other, as far as it can be told before
//! there is a client: said at start, with new rules, and under `-k`.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};

use super::access::Access;
use super::generation::Served;
use super::{Setup, upgrade, wrappers};
use crate::child;
use crate::options::sslserver::CertificateRequest;
use crate::proxy::Networks;
use crate::report::Fail;

/// All of it. `stores` are those that serve.
pub(super) fn of<'a>(
    setup: &Setup,
    access: &Access,
    mut stores: impl Iterator<Item = &'a Served>,
) -> Vec<Fail> {
    let mut found = access.unmet(&setup.options.common);
    found.extend(access.emptied(setup));
    if setup.options.delayed {
        found.extend(access.too_late_for_program());
    }
    found.extend(
        upgrade::trouble(setup, access)
            .into_iter()
            .map(Fail::warning),
    );
    found.extend(
        unable_to_run(setup)
            .into_iter()
            .map(|why| Fail::warning(why.to_string())),
    );
    let by_name = |served: &Served| served.store.ask == CertificateRequest::Named;
    if !setup.naming.lookup && stores.any(by_name) {
        found.push(Fail::warning(
            "-z holds a certificate against the client's host name, and -H looks none up: every client is refused: leave out -H, or use -m",
        ));
    }
    if setup.senders.as_ref().is_some_and(Networks::hold_everybody) {
        found.push(Fail::warning(
            "-L names every address: whoever connects may claim to be any client: name the networks of the proxies",
        ));
    }
    found
}

/// Why the programs that a connection runs cannot be run: the one of the command line,
/// and those that it would start in its turn.
fn unable_to_run(setup: &Setup) -> Vec<Fail> {
    let (runs, end) = wrappers::runs(&setup.program);
    let found = runs.iter().filter_map(|run| {
        let name = run
            .words
            .first()
            .map_or(OsStr::new(""), OsString::as_os_str);
        child::look_up(name, &run.environment, run.identity.as_ref()).err()
    });
    found.chain(end).collect()
}
