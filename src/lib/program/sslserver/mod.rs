//! sslserver: see sslserver(1). This file turns the command line into a running
//! supervisor; the other files are its processes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use crate::connection::Naming;
use crate::keyholder::{Alone, Master};
use crate::listener::Listener;
use crate::manager::{self, Notifier};
use crate::options::sslserver::{Ask, Options, TABLE};
use crate::proxy::Networks;
use crate::report::{self, Fail, Report};
use crate::resolve;
use crate::session;
use crate::settings::{self, Filter, Settings};
use crate::store::jail::Jail;
use crate::sys::sandbox::{self, Sandbox};
use crate::sys::user::{self, Identity, Powers};
use crate::sys::{fd, process, signal};
use crate::text;
use crate::watch::Watch;

mod advice;
mod check;
mod connections;
mod engine;
mod generation;
mod launcher;
mod names;
mod proxied;
mod supervisor;
mod voice;

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
    /// Whom engines can become.
    powers: Powers,
    /// Seconds without a byte; `None` for ever.
    idle: Option<Duration>,
    program: Vec<OsString>,
    /// What every program's environment begins with: ours, without what could be
    /// taken for a session's and without the settings.
    environment: BTreeMap<OsString, OsString>,
    /// What engines take on.
    sandbox: Sandbox,
    /// Connections at once: `-c`, or fewer where descriptors are scarce.
    limit: usize,
    /// Those of one address, where no rule says so: `-C` and `MAXCONIP`; 0 for
    /// any number.
    limit_per_address: usize,
    /// Descriptors above 2 that this process was started with, which every
    /// program inherits.
    inherited: Vec<OwnedFd>,
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(run)
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
    // Before there is anything of ours among them.
    let given = given_socket(&options)?;
    let password = super::password_descriptor(options.common.password)?;
    let inherited = inherited(password.as_ref());
    let mut setup = settle(*report, options, operands.collect())?;
    setup.inherited = inherited;
    setup.bound_by_descriptors()?;
    let options = &setup.options;
    let master = Master::start(*report, password, &mut Alone)?;
    let port = resolve::port(&port)?;
    let mut watch = Watch::default();
    if options.check {
        // The service itself may have the port.
        let (family, interface) = (options.common.family, options.common.interface.as_deref());
        resolve::listening_address(&host, port, family, interface)?;
        let generation = Generation::load(&setup, &master, &mut watch, &mut Alone)?;
        return check::run(&setup, &generation);
    }
    let listener = listen(&setup, &host, port, given)?;
    let bound = listener.port()?;
    let generation = Generation::load(&setup, &master, &mut watch, &mut Alone)?;
    generation.warn(None, report);
    setup.tell_missing(&generation);
    if let Some(advice) = advice::on(&setup.program, options.pipes) {
        report.warning(advice);
    }
    signal::ignore_pipe();
    let mask = signal::watch().map_err(Fail::unable("set up signals"))?;
    let notifier = Notifier::from_environment(report);
    let supervisor =
        supervisor::Supervisor::new(&setup, listener, generation, master, mask, notifier)?;
    // From here on nothing is left to be set up.
    if options.port_line {
        let line = format!("{bound}\n");
        fd::write_all(std::io::stdout(), line.as_bytes())
            .map_err(Fail::unable("write the port"))?;
    }
    fd::detach_standard().map_err(Fail::unable("open the null device"))?;
    supervisor.run()
}

/// The socket that a service manager opened for us, if it did.
fn given_socket(options: &Options) -> Result<Option<OwnedFd>, Fail> {
    let given = manager::given_socket()?;
    let Some(socket) = given else {
        return Ok(None);
    };
    if options.common.password {
        return Err(Fail::temporary(
            "unable to use -3: descriptor 3 is the socket of LISTEN_FDS: use a key without a \
             password, or no socket unit",
        ));
    }
    fd::set_close_on_exec(&socket, true).map_err(Fail::unable("use LISTEN_FDS"))?;
    Ok(Some(socket))
}

/// Listens on the socket that was given, whatever the arguments say, or where they
/// do.
fn listen(setup: &Setup, host: &str, port: u16, given: Option<OwnedFd>) -> Result<Listener, Fail> {
    let common = &setup.options.common;
    let (family, interface) = (common.family, common.interface.as_deref());
    let Some(socket) = given else {
        return Listener::open(host, port, family, interface, setup.options.backlog);
    };
    let listener = Listener::adopt(socket)?;
    if let Some(difference) = listener.difference(host, port, family, interface)? {
        setup.report.warning(format_args!(
            "the socket that the service manager opened (LISTEN_FDS) is served: {difference}"
        ));
    }
    Ok(listener)
}

/// Descriptors that a supervisor has besides those of its connections: its own,
/// those of a reload, and what it opens for a moment.
const OWN_DESCRIPTORS: u64 = 40;
/// Descriptors that a connection costs its supervisor.
const PER_CONNECTION: u64 = 2;

impl Setup {
    /// Serves no more connections at once than there are descriptors for: the
    /// others wait in the backlog.
    fn bound_by_descriptors(&mut self) -> Result<(), Fail> {
        let available = process::descriptor_limit().map_err(Fail::unable("get limits"))?;
        let own = OWN_DESCRIPTORS + self.inherited.len() as u64;
        let most = (available.saturating_sub(own) / PER_CONNECTION).max(1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let limit = self.options.limit;
        if most < limit {
            let wanted = own + PER_CONNECTION * limit as u64;
            self.report.warning(format_args!(
                "-c {limit} needs {wanted} descriptors, and the limit is {available} (ulimit -n): \
                 {most} connections at once are served, and further clients wait"
            ));
            self.limit = most;
        }
        Ok(())
    }

    /// Says what this system does not let our processes give up.
    fn tell_missing(&self, generation: &Generation) {
        let mut engine = self.sandbox.missing().to_vec();
        match self.powers {
            Powers::Many => {}
            Powers::Few => {
                engine.push("a user of each one's own (this container has few users)".to_owned());
            }
            Powers::One => engine.push("a user of their own (this container has one)".to_owned()),
            Powers::None => {
                engine.push("chroot and a user of their own (not started as root)".to_owned());
            }
        }
        for (who, missing) in [
            ("TLS processes", &*engine),
            ("the keyholder", generation.keyholder.missing()),
        ] {
            if missing.is_empty() {
                continue;
            }
            let text = format!("{who}: without {}", missing.join(", "));
            // Without root it is more than a detail of this system.
            if self.powers == Powers::Many {
                self.report.status(text);
            } else {
                self.report.notice(text);
            }
        }
    }
}

/// The descriptors above 2 that this process was started with, but for the
/// password's.
fn inherited(password: Option<&OwnedFd>) -> Vec<OwnedFd> {
    let taken = password.map(AsRawFd::as_raw_fd);
    fd::inherited_above_standard()
        .into_iter()
        .filter(|number| Some(*number) != taken)
        .filter_map(fd::inherited)
        .collect()
}

/// Everything that needs no socket and no key.
fn settle(report: Report, options: Options, program: Vec<OsString>) -> Result<Setup, Fail> {
    let senders = options.senders.as_deref().map(Networks::parse);
    let senders = senders
        .transpose()
        .map_err(|wrong| TABLE.usage(format!("-L: {wrong}")))?;
    let mut settings = Settings::from_environment();
    // Of two limits the narrower one holds; 0 is none.
    let asked = settings.take(settings::CONNECTIONS);
    let asked = asked
        .map(|value| settings::connections(&value))
        .transpose()?;
    let per_address = [asked, options.limit_per_address];
    let per_address = per_address.into_iter().flatten().filter(|limit| *limit > 0);
    let limit_per_address = per_address.min().unwrap_or(0);
    let powers = powers()?;
    let root = powers != Powers::None;
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
        let what =
            "not started as root: -u, -g, -U, SSL_CHROOT, SSL_UID and SSL_GID have no effect";
        if settings.filter()? == Filter::Required {
            return Err(Fail::temporary(format!(
                "{what}, and SSL_SANDBOX is \"require\"; start sslserver as root, or unset them"
            )));
        }
        report.warning(what);
    }
    if root && (identity.user.is_some() || identity.group.is_some()) {
        try_program_user(&identity)?;
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
            lookup: common.lookup,
            // A name that a certificate is held against must be more than the
            // client's word.
            paranoid: options.paranoid || options.ask == Ask::Named,
            local_name: common.local_name.clone(),
            ident_seconds: common.ident.then_some(common.ident_seconds),
        },
        senders,
        environment: program_environment(),
        settings,
        identity: (root && wanted).then_some(identity),
        powers,
        idle: (common.idle_seconds > 0).then(|| Duration::from_secs(common.idle_seconds.into())),
        program,
        sandbox: Sandbox::prepare(sandbox::Role::Engine),
        limit: options.limit,
        limit_per_address,
        inherited: Vec::new(),
        options,
    })
}

/// What every program's environment begins with: ours, less what is for this
/// process, or could be taken for a session's.
fn program_environment() -> BTreeMap<OsString, OsString> {
    let mut edits = session::stale();
    for name in manager::VARIABLES {
        edits.remove(name);
    }
    edits.apply(std::env::vars_os())
}

/// Becomes the program's user in a process that ends at once.
fn try_program_user(identity: &Identity) -> Result<(), Fail> {
    process::try_in_child(|| identity.assume()).map_err(|error| {
        let cure = user::cure(&error);
        let reason = report::reason(&error);
        Fail::temporary(format!("unable to use -u and -g: {reason}: {cure}"))
    })
}

/// Whom this process's children can become.
fn powers() -> Result<Powers, Fail> {
    Powers::of_this_process().map_err(|error| {
        let cure = user::cure(&error);
        Fail::temporary(format!(
            "unable to change user: {}: {cure}",
            report::reason(&error)
        ))
    })
}
