//! sslserver: see sslserver(1). This file turns the command line into a running
//! supervisor; the other files are its processes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::connection::Naming;
use crate::keyholder::Master;
use crate::listener::Listener;
use crate::options::sslserver::{Ask, Options, TABLE};
use crate::proxy::Networks;
use crate::report::{self, Fail, Report};
use crate::resolve;
use crate::session;
use crate::settings::Settings;
use crate::store::server::Jail;
use crate::sys::sandbox::{self, Sandbox};
use crate::sys::user::{self, Identity};
use crate::sys::{fd, signal};
use crate::text;
use crate::tls_ffi::tickets;
use crate::watch::Watch;

mod check;
mod engine;
mod generation;
mod launcher;
mod proxied;
mod registry;
mod supervisor;

use self::generation::Generation;

/// What every process of one sslserver knows, settled at start.
struct Setup {
    report: Report,
    options: Options,
    naming: Naming,
    /// `-L`: whose PROXY header is believed; `None`: there is none.
    senders: Option<Networks>,
    settings: Settings,
    /// Whom the program runs as; `None`: as this process does.
    identity: Option<Identity>,
    /// Whether engines can be jailed.
    root: bool,
    /// Seconds without a byte; `None` for ever.
    idle: Option<Duration>,
    program: Vec<OsString>,
    /// What every program's environment begins with: ours, without what could be
    /// taken for a session's and without the settings.
    environment: BTreeMap<OsString, OsString>,
    /// What engines take on.
    sandbox: Sandbox,
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    report::run(TABLE.program, run)
}

fn run(report: &mut Report) -> Result<u8, Fail> {
    let (options, operands) = TABLE.parse(std::env::args_os().skip(1))?;
    report.verbosity = options.common.verbosity;
    let mut operands = operands.into_iter();
    let mut word = |name: &str| {
        let word = operands.next().unwrap_or_default();
        word.into_string()
            .map_err(|_| TABLE.usage(format!("{name} is not UTF-8")))
    };
    let (host, port) = (word("host")?, word("port")?);
    let setup = settle(*report, options, operands.collect())?;
    let options = &setup.options;
    // Before there is anything that it could inherit.
    let password = super::password_descriptor(options.common.password)?;
    let master = Master::start(*report, password)?;
    let port = resolve::port(&port)?;
    let mut watch = Watch::default();
    if options.check {
        // The service itself may have the port.
        let generation = Generation::load(&setup, &master, &mut watch)?;
        return check::run(&generation, setup.naming.paranoid);
    }
    let listener = Listener::open(
        &host,
        port,
        options.common.family,
        options.common.interface.as_deref(),
        options.backlog,
    )?;
    let bound = listener.port()?;
    #[cfg(feature = "test-switches")]
    if crate::keyholder::test_switch() == Some("short-tickets") {
        tickets::shorten();
    }
    tickets::renew()
        .map_err(|error| Fail::temporary(format!("unable to make ticket keys: {error}")))?;
    let generation = Generation::load(&setup, &master, &mut watch)?;
    generation.warn(None, report);
    setup.tell_missing(&generation);
    signal::ignore_pipe();
    let mask = signal::watch().map_err(Fail::unable("set up signals"))?;
    let supervisor = supervisor::Supervisor::new(&setup, listener, generation, master, mask)?;
    // From here on nothing is left to be set up.
    if options.port_line {
        let line = format!("{bound}\n");
        fd::write_all(std::io::stdout(), line.as_bytes())
            .map_err(Fail::unable("write the port"))?;
    }
    fd::detach_standard().map_err(Fail::unable("open the null device"))?;
    supervisor.run()
}

impl Setup {
    /// Says what this system does not let our processes give up.
    fn tell_missing(&self, generation: &Generation) {
        let mut engine = self.sandbox.missing().to_vec();
        if !self.root {
            engine.push("chroot and a user of their own (not started as root)".to_owned());
        }
        for (who, missing) in [
            ("TLS processes", &*engine),
            ("the keyholder", generation.keyholder.missing()),
        ] {
            if !missing.is_empty() {
                let list = missing.join(", ");
                self.report.status(format_args!("{who}: without {list}"));
            }
        }
    }
}

/// Everything that needs no socket and no key.
fn settle(report: Report, options: Options, program: Vec<OsString>) -> Result<Setup, Fail> {
    let senders = options.senders.as_deref().map(Networks::parse);
    let senders = senders
        .transpose()
        .map_err(|wrong| TABLE.usage(format!("-L: {wrong}")))?;
    let settings = Settings::from_environment();
    let root = user::is_root();
    let (user, group) = if options.user_from_environment {
        let number = |name: &str| {
            let value = std::env::var(name).unwrap_or_default();
            match text::number(&value, 0..=u64::from(u32::MAX - 1)) {
                Some(_) => Ok(value),
                None => Err(Fail::temporary(format!(
                    "unable to use -U: ${name} is not a number: \"{}\"",
                    text::excerpt(value.as_bytes(), 100)
                ))),
            }
        };
        (Some(number("UID")?), Some(number("GID")?))
    } else {
        (options.user.clone(), options.group.clone())
    };
    let identity = user::identity(user.as_deref(), group.as_deref()).map_err(|unknown| {
        let letter = match unknown {
            user::Unknown::User(_) => "-u",
            user::Unknown::Group(_) => "-g",
        };
        Fail::temporary(format!("unable to use {letter}: {unknown}"))
    })?;
    let asked = identity.user.is_some_and(|user| user != user::own())
        || identity
            .group
            .is_some_and(|group| group != user::own_group());
    if !root && (asked || Jail::was_asked_for(&settings)) {
        report.warning(
            "not started as root: -u, -g, -U, SSL_CHROOT, SSL_UID and SSL_GID have no effect",
        );
    }
    if root && identity.user.is_some_and(|user| user != 0) && identity.group.is_none() {
        report.warning(
            "-u is a number that no user has, and -g is not given: the program keeps group 0",
        );
    }
    let wanted = identity.user.is_some() || identity.group.is_some();
    let common = &options.common;
    Ok(Setup {
        report,
        naming: Naming {
            family: common.family,
            lookup: common.lookup,
            // A name that a certificate is held against must be more than the
            // client's word.
            paranoid: options.paranoid || options.ask == Ask::Named,
            local_name: common.local_name.clone(),
            ident_seconds: common.ident.then_some(common.ident_seconds),
        },
        senders,
        environment: session::stale().apply(std::env::vars_os()),
        settings,
        identity: (root && wanted).then_some(identity),
        root,
        idle: (common.idle_seconds > 0).then(|| Duration::from_secs(common.idle_seconds.into())),
        program,
        sandbox: Sandbox::prepare(sandbox::Role::Engine),
        options,
    })
}
