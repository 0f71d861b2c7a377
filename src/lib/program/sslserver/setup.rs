//! What every process of one sslserver knows, settled at start from command line,
//! environment and system.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::connection::Naming;
use crate::keyholder::Keyholder;
use crate::manager;
use crate::options::sslserver::{Account, CertificateRequest, Options, TABLE};
use crate::proxy::Networks;
use crate::report::{self, Fail, Report};
use crate::session;
use crate::settings::{self, Filter, Settings};
use crate::store::jail::Jail;
use crate::sys::process;
use crate::sys::sandbox::{self, Sandbox};
use crate::sys::user::{self, Identity, Powers};
use crate::text;

/// See the file's head.
pub(super) struct Setup {
    pub report: Report,
    pub options: Options,
    pub naming: Naming,
    /// `-L`: whose PROXY header is believed; `None`: there is none.
    pub senders: Option<Networks>,
    pub settings: Settings,
    /// Seconds without a byte; `None` for ever.
    pub idle: Option<Duration>,
    pub limits: Limits,
    pub program: Program,
    /// Whom engines can become.
    pub powers: Powers,
    /// What engines take on.
    pub sandbox: Sandbox,
}

/// How many connections there may be.
pub(super) struct Limits {
    /// At once: `-c`, or fewer where descriptors are scarce.
    pub at_once: usize,
    /// Of one address, where no rule says so: `-C` and `MAXCONIP`; 0 for any
    /// number.
    pub per_address: usize,
}

/// The program, and what it is run with.
pub(super) struct Program {
    pub words: Vec<OsString>,
    /// What its environment begins with: ours, without what could be taken for a
    /// session's and without the settings.
    pub environment: BTreeMap<OsString, OsString>,
    /// Whom it runs as; `None`: as this process does.
    pub identity: Option<Identity>,
    /// Descriptors above 2 that this process was started with, which it inherits.
    pub inherited: Vec<OwnedFd>,
}

/// Descriptors that a supervisor has besides those of its connections: its own,
/// those of a reload, and what it opens for a moment.
const OWN_DESCRIPTORS: u64 = 40;
/// Those without which it cannot begin: what it opens for long, and three more.
const LEAST_DESCRIPTORS: u64 = 16;
/// Descriptors that a connection costs its supervisor, at most: its messages, and a
/// link to the keyholder; under `-n` its messages, and those of an engine to be.
const PER_CONNECTION: u64 = 2;
const PER_DELAYED: u64 = 5;

impl Setup {
    /// Serves no more connections at once than there are descriptors for: the
    /// others wait in the backlog.
    ///
    /// # Errors
    /// There are not enough for one.
    pub fn bound_by_descriptors(&mut self) -> Result<(), Fail> {
        let available = process::descriptor_limit().map_err(Fail::unable("get limits"))?;
        let inherited = &self.program.inherited;
        let own = OWN_DESCRIPTORS + inherited.len() as u64;
        let each = if self.options.delayed {
            PER_DELAYED
        } else {
            PER_CONNECTION
        };
        let least = LEAST_DESCRIPTORS + inherited.len() as u64 + each;
        if available < least {
            return Err(Fail::temporary(format!(
                "one connection needs {least} descriptors, and the limit is {available} (ulimit -n)"
            )));
        }
        let most = (available.saturating_sub(own) / each).max(1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let limit = self.options.limit;
        if most < limit {
            let wanted = own + each * limit as u64;
            self.report.warning(format_args!(
                "-c {limit} needs {wanted} descriptors, and the limit is {available} (ulimit -n): \
                 {} at once {} served, and further clients wait",
                text::count(most, "connection"),
                text::form(most, "is", "are")
            ));
            self.limits.at_once = most;
        }
        Ok(())
    }

    /// Says what this system does not let our processes give up.
    pub fn tell_missing(&self, keyholder: &Keyholder) {
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
            ("TLS processes run", &*engine),
            ("the keyholder runs", keyholder.missing()),
        ] {
            if missing.is_empty() {
                continue;
            }
            let text = format!("{who} without {}", missing.join(", "));
            // Without root it is more than a detail of this system.
            if self.powers == Powers::Many {
                self.report.status(text);
            } else {
                self.report.notice(text);
            }
        }
    }
}

/// Settles everything that needs no socket and no key.
pub(super) fn settle(
    report: Report,
    options: Options,
    words: Vec<OsString>,
    inherited: Vec<OwnedFd>,
) -> Result<Setup, Fail> {
    let senders = options.senders.as_deref().map(Networks::parse);
    let senders = senders
        .transpose()
        .map_err(|wrong| TABLE.usage(format!("-L: {wrong}")))?;
    let mut settings = Settings::from_environment(settings::NAMES);
    let limits = limits(&options, &mut settings)?;
    let powers = powers()?;
    let identity = identity(report, &options, &settings, powers)?;
    let common = &options.common;
    Ok(Setup {
        report,
        naming: Naming {
            lookup: common.lookup,
            // A name that a certificate is held against must be more than the
            // client's word.
            paranoid: options.paranoid || options.ask == CertificateRequest::Named,
            local_name: common.local_name.clone(),
            ident_seconds: common.ident.then_some(common.ident_seconds),
        },
        senders,
        settings,
        idle: (common.idle_seconds > 0).then(|| Duration::from_secs(common.idle_seconds.into())),
        limits,
        program: Program {
            words,
            environment: program_environment(),
            identity,
            inherited,
        },
        powers,
        sandbox: Sandbox::prepare(sandbox::Process::Engine),
        options,
    })
}

/// Of two limits on connections of one address the narrower one holds; 0 is none.
fn limits(options: &Options, settings: &mut Settings) -> Result<Limits, Fail> {
    let asked = settings.take(settings::CONNECTIONS);
    let asked = asked
        .map(|value| settings::connections(&value))
        .transpose()?;
    let per_address = [asked, options.limit_per_address];
    let per_address = per_address.into_iter().flatten().filter(|limit| *limit > 0);
    Ok(Limits {
        at_once: options.limit,
        per_address: per_address.min().unwrap_or(0),
    })
}

/// Whom the program is to run as, checked as far as that can be before there is a
/// client. `None`: as this process does.
fn identity(
    report: Report,
    options: &Options,
    settings: &Settings,
    powers: Powers,
) -> Result<Option<Identity>, Fail> {
    let root = powers != Powers::None;
    let user = account(options.user.as_ref(), "UID")?;
    let group = account(options.group.as_ref(), "GID")?;
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
    if !root && (asked || Jail::was_asked_for(settings)) {
        let what =
            "not started as root: -u, -g, -U, SSL_CHROOT, SSL_UID and SSL_GID have no effect";
        if settings.filter()? == Filter::Required {
            return Err(Fail::temporary(format!(
                "{what}, and SSL_SANDBOX is \"require\"; start sslserver as root, or unset them"
            )));
        }
        report.warning(what);
    }
    let wanted = identity.user.is_some() || identity.group.is_some();
    if !root || !wanted {
        return Ok(None);
    }
    try_program_user(&identity)?;
    if identity.user.is_some_and(|user| user != 0) && identity.group.is_none() {
        report.warning(
            "-u is a number that no user has, and -g is not given: the program keeps group 0",
        );
    }
    Ok(Some(identity))
}

/// What an account's option says; `name` is the variable that -U takes.
fn account(option: Option<&Account>, name: &str) -> Result<Option<String>, Fail> {
    let value = match option {
        Some(Account::Variable) => settings::word_of_environment(name)?.unwrap_or_default(),
        Some(Account::Given(account)) => return Ok(Some(account.clone())),
        None => return Ok(None),
    };
    match text::number(&value, 0..=u64::from(u32::MAX - 1)) {
        Some(_) => Ok(Some(value)),
        None => Err(Fail::temporary(format!(
            "unable to use -U: ${name} is not a number: \"{}\"",
            text::excerpt(value.as_bytes(), 100)
        ))),
    }
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
