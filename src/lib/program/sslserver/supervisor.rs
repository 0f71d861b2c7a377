//! The supervisor: accepts, counts, reaps, reloads. It never reads a byte of a
//! client's, and nothing that a client sends can end it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use super::generation::Generation;
use super::registry::{self, Entry};
use super::{Setup, launcher, proxied};
use crate::connection::shown;
use crate::keyholder::{LinkId, Master};
use crate::listener::{Accepted, Census, Listener};
use crate::options::sslserver::Options;
use crate::report::{self, Fail};
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, Ended, ProcessId};
use crate::sys::{fd, signal};
use crate::tls_ffi::tickets;
use crate::watch::Watch;

/// How many clients are taken before signals are looked at again.
const ROUND: usize = 16;
/// How long accepting rests when the system is out of descriptors or memory.
const REST: Duration = Duration::from_millis(200);
/// How long until another key master is tried, after one that could not start.
const RETRY: Duration = Duration::from_secs(1);
/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// How often dates of certificates are looked at.
const DAY: Duration = Duration::from_secs(86400);

/// How long the names of a client may take.
const NAMES_SECONDS: u32 = 120;

/// A connection in progress: it ends when both of its processes have.
struct Slot {
    /// Whom the census counts it for; under `-L` it is known later.
    address: Option<IpAddr>,
    launcher_ended: bool,
    engine: Option<ProcessId>,
    link: LinkId,
}

/// See the file's head.
pub(super) struct Supervisor<'a> {
    setup: &'a Setup,
    listener: Listener,
    generation: Generation,
    master: Rc<Master>,
    /// The master has ended: when another is started.
    next_master: Option<Instant>,
    mask: SigSet,
    /// By launcher, which is the process that the log tells of.
    slots: HashMap<ProcessId, Slot>,
    /// Launcher by engine.
    engines: HashMap<ProcessId, ProcessId>,
    census: Census,
    /// Engines say here whose they are, before they look at the network.
    registry: (OwnedFd, OwnedFd),
    /// By launcher: those that wait to hear whether `-C` lets their client in.
    waiting: HashMap<ProcessId, OwnedFd>,
    next_dates: Instant,
    /// When files were last looked at.
    looked: Instant,
    /// What was wrong with the files at the last look: said once.
    complained: Option<String>,
    /// What the last load, good or not, has read.
    watch: Watch,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        setup: &'a Setup,
        listener: Listener,
        generation: Generation,
        master: Rc<Master>,
        mask: SigSet,
    ) -> Result<Self, Fail> {
        let registry = fd::pipe()
            .and_then(|(read, write)| {
                fd::set_nonblocking(&read, true)?;
                Ok((read, write))
            })
            .map_err(Fail::unable("create pipe"))?;
        Ok(Supervisor {
            setup,
            listener,
            watch: generation.watch.clone(),
            generation,
            master,
            next_master: None,
            mask,
            slots: HashMap::new(),
            engines: HashMap::new(),
            census: Census::default(),
            registry,
            waiting: HashMap::new(),
            next_dates: Instant::now() + DAY,
            looked: Instant::now(),
            complained: None,
        })
    }

    /// Serves until TERM.
    pub fn run(mut self) -> Result<u8, Fail> {
        self.tell_count(self.slots.len());
        let mut resting = None;
        loop {
            let next_keys = tickets::rotate().unwrap_or_else(|_| Instant::now() + DAY);
            let seen = signal::seen();
            if seen.terminate {
                self.finish();
                return Ok(0);
            }
            if seen.child {
                self.reap();
            }
            if seen.hangup {
                self.reload();
                if let Err(error) = tickets::renew() {
                    self.setup
                        .report
                        .warning(format_args!("unable to make ticket keys: {error}"));
                }
            }
            let now = Instant::now();
            if self.next_master.is_some_and(|at| now >= at) {
                self.restore_master();
            }
            if now >= self.next_dates {
                self.next_dates = now + DAY;
                self.generation.warn_of_dates(&self.setup.report);
            }
            if resting.is_some_and(|until| now >= until) {
                resting = None;
            }
            let wake = next_keys.min(self.next_dates);
            let wake = resting.map_or(wake, |until: Instant| wake.min(until));
            let others = [self.generation.keyholder.wake(), self.next_master];
            let wake = others.into_iter().flatten().fold(wake, Instant::min);
            let accepting = self.slots.len() < self.setup.options.limit && resting.is_none();
            let ready = {
                let mut wanted = Vec::with_capacity(2);
                if accepting {
                    wanted.push((self.listener.as_fd(), Ready::READ));
                }
                // Engines are looked up when a child ends; only a launcher that
                // waits for an answer is worth waking up for.
                if !self.waiting.is_empty() {
                    wanted.push((self.registry.0.as_fd(), Ready::READ));
                }
                let controls = self.generation.keyholder.descriptors();
                wanted.extend(controls.map(|control| (control, Ready::READ)));
                poll::wait_with_signals(
                    &mut wanted,
                    Some(wake.saturating_duration_since(now)),
                    self.mask,
                )
                .map_err(Fail::unable("wait for connections"))?;
                accepting && wanted.first().is_some_and(|(_, came)| came.read)
            };
            self.generation.keyholder.attend(&self.setup.report);
            self.register();
            if ready {
                resting = self.accept().map(|()| Instant::now() + REST);
            }
        }
    }

    /// Takes clients while there are some; `Some` when the system can't.
    fn accept(&mut self) -> Option<()> {
        for _ in 0..ROUND {
            if self.slots.len() >= self.setup.options.limit {
                return None;
            }
            match self.listener.accept() {
                Accepted::Client(client, address) => {
                    self.look_at_files();
                    self.begin(client, address);
                }
                Accepted::Nobody => return None,
                Accepted::Exhausted(error) => {
                    let reason = report::reason(&error);
                    self.setup
                        .report
                        .warning(format_args!("unable to accept: {reason}"));
                    return Some(());
                }
            }
        }
        None
    }

    /// Clients in the backlog believe that they are connected, and would be
    /// reset: they are served too, as far as `-c` goes.
    fn finish(&mut self) {
        self.listener.finish();
        self.reap();
        while self.slots.len() < self.setup.options.limit
            && let Accepted::Client(client, address) = self.listener.accept()
        {
            self.begin(client, address);
        }
    }

    fn begin(&mut self, client: TcpStream, address: SocketAddr) {
        let Setup {
            report,
            options,
            senders,
            ..
        } = self.setup;
        // A sender's address says nothing of the client's.
        let known = senders.is_none().then_some(address.ip());
        if known.is_some_and(|address| !self.admits(address)) {
            return;
        }
        let asks = known.is_none() && options.limit_per_address.is_some();
        let answer = match asks.then(fd::pipe).transpose() {
            Ok(answer) => answer,
            Err(error) => {
                let reason = report::reason(&error);
                report.warning(format_args!(
                    "dropping connection, unable to create pipe: {reason}"
                ));
                return;
            }
        };
        let (link, link_end) = match self.generation.keyholder.link(link_seconds(options)) {
            Ok(made) => made,
            Err(error) => {
                let reason = report::reason(&error);
                report.warning(format_args!(
                    "dropping connection, unable to create socket: {reason}"
                ));
                return;
            }
        };
        let context = launcher::Context {
            setup: self.setup,
            generation: &self.generation,
            registry: self.registry.1.as_fd(),
            answer: answer.as_ref().map(|(read, _)| read),
        };
        let (listener, registry) = (&self.listener, &self.registry.0);
        let spare_ends = self.generation.keyholder.spare_ends();
        let answers = answer.iter().map(|(_, write)| write);
        let answers = answers.chain(self.waiting.values());
        // Before the child can write its own lines, as tcpserver.
        self.tell_count(self.slots.len() + 1);
        let forked = process::spawn(|| {
            fd::disown(listener);
            fd::disown(registry);
            // Left open, these would keep others from the end of file that an
            // ended supervisor leaves them.
            answers.for_each(fd::disown);
            spare_ends.for_each(fd::disown);
            launcher::run(&context, client, address, link_end)
        });
        match forked {
            Ok(launcher) => {
                if let Some(address) = known {
                    self.census.enter(address);
                }
                if let Some((_, answer)) = answer {
                    self.waiting.insert(launcher, answer);
                }
                self.slots.insert(
                    launcher,
                    Slot {
                        address: known,
                        launcher_ended: false,
                        engine: None,
                        link,
                    },
                );
            }
            Err(error) => {
                self.generation.keyholder.done(link);
                report.warning(format_args!(
                    "dropping connection, unable to fork: {}",
                    report::reason(&error)
                ));
                self.tell_count(self.slots.len());
            }
        }
    }

    /// Learns which engines belong to which launchers, and clients' addresses.
    fn register(&mut self) {
        let mut message = [0; 128 * registry::LENGTH];
        while let Ok(count @ 1..) = fd::read_some(&self.registry.0, &mut message) {
            for entry in message[..count].as_chunks().0 {
                match Entry::from_bytes(entry) {
                    (launcher, Entry::Address(address)) => self.answer(launcher, address),
                    (launcher, Entry::Engine(engine)) => {
                        if let Some(slot) = self.slots.get_mut(&launcher) {
                            slot.engine = Some(engine);
                            self.engines.insert(engine, launcher);
                        }
                    }
                }
            }
        }
    }

    /// Tells a launcher whether `-C` lets its client in.
    fn answer(&mut self, launcher: ProcessId, address: IpAddr) {
        let Some(answer) = self.waiting.remove(&launcher) else {
            return;
        };
        let word = if self.admits(address) {
            if let Some(slot) = self.slots.get_mut(&launcher) {
                slot.address = Some(address);
                self.census.enter(address);
            }
            proxied::ADMITTED
        } else {
            proxied::DENIED
        };
        // A launcher that has ended is reaped like any other.
        let _ = fd::write_all(&answer, word);
    }

    /// Whether `-C` lets one more in from there; says so where it doesn't.
    fn admits(&self, address: IpAddr) -> bool {
        let Setup {
            report, options, ..
        } = self.setup;
        match options.limit_per_address {
            Some(limit) if self.census.count(address) >= limit => {
                report.warning(format_args!(
                    "dropping connection from {}: it has {limit} already (-C)",
                    shown(address, options.common.family)
                ));
                false
            }
            _ => true,
        }
    }

    fn reap(&mut self) {
        while let Some(ended) = process::reap() {
            // An engine registers before it does anything that could end it.
            self.register();
            self.settle(ended);
        }
    }

    fn settle(&mut self, ended: Ended) {
        let Ended { id, status } = ended;
        if id == self.master.id() && self.next_master.is_none() {
            let password = if self.setup.options.common.password {
                ", and the password of -3 with it"
            } else {
                ""
            };
            self.setup
                .report
                .warning(format_args!("key master {id} ended{password}"));
            self.next_master = Some(Instant::now());
            return;
        }
        let engine_of = self.engines.remove(&id);
        let launcher = engine_of.unwrap_or(id);
        let Some(slot) = self.slots.get_mut(&launcher) else {
            return;
        };
        if engine_of.is_some() {
            slot.engine = None;
            if ended.broke_filter() {
                self.setup.report.warning(format_args!(
                    "the TLS process of pid {launcher} was killed: it made a system call that its sandbox forbids"
                ));
            }
        } else {
            slot.launcher_ended = true;
            self.waiting.remove(&id);
            self.setup
                .report
                .status(format_args!("end {id} status {status}"));
        }
        let over = |slot: &Slot| slot.launcher_ended && slot.engine.is_none();
        if self.slots.get(&launcher).is_some_and(over)
            && let Some(slot) = self.slots.remove(&launcher)
        {
            self.generation.keyholder.done(slot.link);
            if let Some(address) = slot.address {
                self.census.leave(address);
            }
            self.tell_count(self.slots.len());
        }
    }

    fn tell_count(&self, count: usize) {
        let limit = self.setup.options.limit;
        self.setup
            .report
            .status(format_args!("status: {count}/{limit}"));
    }

    /// Notices changed files by itself, at a connection, once a second at most.
    fn look_at_files(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        if self.watch.has_changed() {
            self.reload();
        }
    }

    /// Puts another master in the place of one that ended. It has no password:
    /// keys that need one stay with the keyholder that has them.
    fn restore_master(&mut self) {
        let report = &self.setup.report;
        let master = match Master::start(*report, None) {
            Ok(master) => master,
            Err(fail) => {
                report.warning(format_args!(
                    "no new keyholder can be started until there is a key master: {fail}"
                ));
                self.next_master = Some(Instant::now() + RETRY);
                return;
            }
        };
        self.next_master = None;
        self.master = master;
        match self.generation.keyholder.move_to(&self.master) {
            Ok(()) => report.warning("another key master takes its place"),
            Err(fail) => report.warning(format_args!(
                "another key master takes its place, but cannot load the keys again: {fail}: \
                 the keyholder serves as long as it lives, and reloads fail; restart sslserver"
            )),
        }
        // What came in between may have failed for want of a master alone.
        if self.complained.is_some() {
            self.reload();
        }
    }

    /// Loads the next generation beside this one, and swaps it in if all that
    /// served before can be served again.
    fn reload(&mut self) {
        let report = &self.setup.report;
        let before = self.generation.watch.anew();
        let mut watch = Watch::default();
        let failed = match Generation::load(self.setup, &self.master, &mut watch) {
            Ok(next) => match next.lost_rule(&self.generation) {
                None => {
                    next.tell_changes(&self.generation, report);
                    next.warn(Some(&self.generation), report);
                    self.generation = next;
                    None
                }
                Some(why) => Some(why),
            },
            Err(fail) => Some(fail.to_string()),
        };
        if failed.is_some() {
            // It may have failed before it came to a file that the last
            // generation read: that stays watched.
            watch.extend(before);
        }
        self.watch = watch;
        if failed.is_some() && failed != self.complained {
            let why = failed.as_deref().unwrap_or_default();
            report.warning(format_args!(
                "unable to reload, the old material keeps serving: {why}"
            ));
        }
        self.complained = failed;
    }
}

/// How long a connection may have its signature: to the end of the handshake,
/// the slowest of names included. Under `-n` its program decides when that is.
fn link_seconds(options: &Options) -> u32 {
    if options.delayed {
        return 0;
    }
    options
        .handshake_seconds
        .saturating_add(options.common.ident_seconds)
        .saturating_add(NAMES_SECONDS)
}
