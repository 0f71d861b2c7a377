//! Whether a client may come in, and with what: by the limits on connections and
//! by the rules. A connection ends here, or has a store and its variables.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::{Launcher, Stop};
use crate::connection::Connection;
use crate::environ::Edits;
use crate::program::sslserver::access::{
    Access, RuleLimit, other_variables, rule_limit, rule_settings,
};
use crate::program::sslserver::admission;
use crate::program::sslserver::generation::Material;
use crate::program::sslserver::messages::Message;
use crate::report::{Fail, NEVER, TEMPORARY};
use crate::rules::{Action, Client, Rule};
use crate::settings::Settings;
use crate::sys::process;

/// What a connection that is let in is served with.
pub(super) struct Allowed {
    pub material: Material,
    /// The settings that lead to it; `None`: those of the environment.
    pub settings: Option<Settings>,
    /// Variables of its rules that are no settings.
    pub variables: Edits,
}

/// Why a connection is not let in.
enum Denial {
    /// A rule says so.
    Denied,
    /// What should serve it is not there.
    Unable(Fail),
}

/// What the rules that a connection meets come to.
struct MatchedRules<'a> {
    settings: Cow<'a, Settings>,
    variables: Edits,
    /// How many connections at once its address may have, where a rule says so.
    limit: Option<RuleLimit>,
}

/// What can be said before anybody is asked for a name: the limits, where no rule
/// says them, and the rules of `-y`.
pub(super) fn by_address(launcher: &Launcher<'_>, connection: &Connection) -> Result<(), Stop> {
    let setup = launcher.setup;
    let access = &launcher.generation.access;
    if !launcher.counted && !access.limits() {
        admit(launcher, connection, setup.limits.per_address)?;
    }
    let (id, address) = (process::own_id(), connection.remote_ip());
    setup.report.status(format_args!("pid {id} from {address}"));
    judge_early(access, connection).map_err(|refusal| deny(launcher, connection, refusal))
}

/// What the rules say of a client whose names are known.
pub(super) fn by_rules(launcher: &Launcher<'_>, connection: &Connection) -> Result<Allowed, Stop> {
    let Launcher {
        setup, generation, ..
    } = launcher;
    let deny = |refusal| deny(launcher, connection, refusal);
    let met = judge(&generation.access, &setup.settings, connection).map_err(deny)?;
    let material = match generation.store(&met.settings) {
        Some(Ok(material)) => material,
        Some(Err(why)) => return Err(deny(Denial::Unable(why.clone()))),
        None => {
            let made = make_store(launcher, &met.settings);
            made.map_err(|why| deny(Denial::Unable(why)))?
        }
    };
    if generation.access.limits() {
        let limit = match met.limit {
            None => setup.limits.per_address,
            Some(RuleLimit::Of(limit)) => limit,
            Some(RuleLimit::Unset) => setup.options.limit_per_address.unwrap_or(0),
        };
        admit(launcher, connection, limit)?;
    }
    let (id, fields) = (process::own_id(), connection.status_fields());
    setup.report.status(format_args!("ok {id} {fields}"));
    Ok(Allowed {
        material,
        settings: match met.settings {
            Cow::Borrowed(_) => None,
            Cow::Owned(settings) => Some(settings),
        },
        variables: met.variables,
    })
}

/// Asks the supervisor for a place. Where it refuses, it said why.
fn admit(launcher: &Launcher<'_>, connection: &Connection, limit: usize) -> Result<(), Stop> {
    let address = connection.remote.address.ip();
    let admitted = admission::ask(launcher.supervisor, address, limit);
    if admitted.map_err(Fail::unable("ask for admission"))? {
        return Ok(());
    }
    Err(Stop::Told(TEMPORARY))
}

fn deny(launcher: &Launcher<'_>, connection: &Connection, refusal: Denial) -> Stop {
    let id = process::own_id();
    let fields = connection.status_fields();
    let report = &launcher.setup.report;
    report.status(format_args!("deny {id} {fields}"));
    match refusal {
        Denial::Denied => Stop::Told(NEVER),
        Denial::Unable(why) => {
            let address = connection.remote_ip();
            Stop::Dropped(why.of(format_args!("pid {id} from {address}")))
        }
    }
}

/// The rules of `-y` that a connection meets.
fn early<'a>(access: &'a Access, connection: &Connection) -> Result<Vec<Rule<'a>>, Denial> {
    let Some(rules) = access.usable_early().map_err(Denial::Unable)? else {
        return Ok(Vec::new());
    };
    let client = Client::new(connection.remote.address.ip(), None, None);
    let met = [
        rules.lookup_local(connection.local.address.ip()),
        rules.lookup(&client),
    ];
    Ok(met.into_iter().flatten().collect())
}

fn judge_early(access: &Access, connection: &Connection) -> Result<(), Denial> {
    let denies = |rule: &Rule<'_>| rule.action() == Action::Deny;
    if early(access, connection)?.iter().any(denies) {
        return Err(Denial::Denied);
    }
    Ok(())
}

/// What all rules say: those of `-y`, and over them those of `-x`.
fn judge<'a>(
    access: &Access,
    own: &'a Settings,
    connection: &Connection,
) -> Result<MatchedRules<'a>, Denial> {
    let mut met = early(access, connection)?;
    if let Some(rules) = access.usable_main().map_err(Denial::Unable)? {
        let client = Client::new(
            connection.remote.address.ip(),
            connection.remote.name.as_deref(),
            connection.info.as_deref(),
        );
        met.extend(rules.lookup_local(connection.local.address.ip()));
        met.extend(rules.lookup(&client));
    }
    let mut settings = Cow::Borrowed(own);
    let mut variables = Edits::new();
    let mut limit = None;
    for rule in met {
        if rule.action() == Action::Deny {
            return Err(Denial::Denied);
        }
        let changed = rule_settings(&rule);
        if !changed.is_empty() {
            settings.to_mut().overlay(changed);
        }
        if let Some(own) = rule_limit(&rule) {
            limit = Some(own.map_err(Denial::Unable)?);
        }
        for (name, value) in other_variables(&rule) {
            variables.set(name, value);
        }
    }
    Ok(MatchedRules {
        settings,
        variables,
        limit,
    })
}

/// Has the store made of rules that nobody met together before. The supervisor
/// makes it for those to come, and tells the keyholder what it may sign for it;
/// this process was forked too early to share it.
fn make_store(launcher: &Launcher<'_>, settings: &Settings) -> Result<Material, Fail> {
    let question = Message::Store(settings.clone());
    let asked = launcher.supervisor.ask(&question);
    asked.map_err(Fail::unable("ask for a store"))?;
    // If it cannot be made, the reason comes to light here too.
    let Launcher {
        setup, keyholder, ..
    } = launcher;
    launcher.generation.mixed_store(setup, keyholder, settings)
}
