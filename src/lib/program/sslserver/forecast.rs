//! What options, rules and program make of each other, as far as it can be told before
//! there is a client: said at start, with new rules, and under `-k`.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use super::access::Access;
use super::generation::Served;
use super::{Setup, upgrade};
use crate::child;
use crate::options::sslserver::CertificateRequest;
use crate::report::Fail;

/// All of it. `stores` are those that serve.
pub(super) fn of<'a>(
    setup: &Setup,
    access: &Access,
    mut stores: impl Iterator<Item = &'a Served>,
) -> Vec<Fail> {
    let mut found = access.unmet(&setup.options.common);
    found.extend(
        upgrade::trouble(setup, access)
            .into_iter()
            .map(Fail::warning),
    );
    found.extend(unable_to_run(setup).map(|why| Fail::warning(why.to_string())));
    let by_name = |served: &Served| served.store.ask == CertificateRequest::Named;
    if !setup.naming.lookup && stores.any(by_name) {
        found.push(Fail::warning(
            "-z holds a certificate against the client's host name, and -H looks none up: every client is refused: leave out -H, or use -m",
        ));
    }
    found
}

/// Why the programs that a connection runs cannot be run: the one of the command line,
/// and the one that starttls-handoff would start.
fn unable_to_run(setup: &Setup) -> impl Iterator<Item = Fail> {
    let program = &setup.program;
    let own = program.words.first().cloned().unwrap_or_else(OsString::new);
    let named = std::iter::once(own).chain(upgrade::program_behind(&program.words));
    named.filter_map(|name| {
        child::look_up(&name, &program.environment, program.identity.as_ref()).err()
    })
}
