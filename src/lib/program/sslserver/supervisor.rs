//! The supervisor: accepts, counts, reaps, reloads. It never reads a byte of a
//! client's, and nothing that a client sends can end it.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use super::connections::{Beginning, Connections};
use super::generation::Generation;
use super::voice::Voice;
use super::{Setup, launcher};
use crate::keyholder::{Master, Meanwhile, Worker};
use crate::listener::{Accepted, Listener};
use crate::manager::{Notifier, State};
use crate::options::sslserver::Options;
use crate::report::{self, Fail};
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, Change, Ended};
use crate::sys::signal;
use crate::watch::Watch;

/// How many clients are taken before signals are looked at again.
const ROUND: usize = 16;
/// How long accepting rests when the system is out of descriptors, processes or
/// memory.
const REST: Duration = Duration::from_millis(200);
/// How long until another key master is tried, after one that could not start.
const RETRY: Duration = Duration::from_secs(1);
/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// How often dates of certificates are looked at.
const DAY: Duration = Duration::from_secs(86400);
/// How long a key master may take to fork, before another takes its place.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a work may last before others have their turn, and how long then
/// until their next.
const QUICK: Duration = Duration::from_millis(100);
const SLICE: Duration = Duration::from_millis(20);
/// How often the same want of the system or of an option is told, at most.
const MINUTE: Duration = Duration::from_secs(60);

/// How long the names of a client may take.
const NAMES_SECONDS: u32 = 120;

/// See the file's head.
pub(super) struct Supervisor<'a> {
    setup: &'a Setup,
    listener: Listener,
    generation: Generation,
    master: Rc<Master>,
    /// The master has ended: when another is started.
    next_master: Option<Instant>,
    /// TERM came.
    ending: bool,
    /// A file changed, or HUP came.
    wants_reload: bool,
    /// Something longer is at work: nothing else of its kind is begun.
    at_work: bool,
    /// The next round waits for nothing.
    hurried: bool,
    /// Why it cannot go on.
    failed: Option<Fail>,
    /// Until when no client is taken.
    resting: Option<Instant>,
    mask: SigSet,
    connections: Connections<'a>,
    /// A client that was accepted when there was no process for it.
    held: Option<(TcpStream, SocketAddr)>,
    /// When it was last told that `-c` is reached, and what the system lacks.
    full_told: Option<Instant>,
    lack_told: Option<Instant>,
    next_dates: Instant,
    /// When files were last looked at.
    looked: Instant,
    /// What was wrong with the files at the last look: said once.
    complained: Option<String>,
    /// What the last load, good or not, has read.
    watch: Watch,
    /// The service manager, which wants to know of HUP and TERM.
    notifier: Notifier,
    /// It was told that files are read again, and not yet that this is done.
    reload_told: bool,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        setup: &'a Setup,
        listener: Listener,
        generation: Generation,
        master: Rc<Master>,
        mask: SigSet,
        notifier: Notifier,
    ) -> Result<Self, Fail> {
        Ok(Supervisor {
            setup,
            listener,
            watch: generation.watch.clone(),
            generation,
            master,
            next_master: None,
            ending: false,
            wants_reload: false,
            at_work: false,
            hurried: false,
            failed: None,
            resting: None,
            mask,
            connections: Connections::new(setup)?,
            held: None,
            full_told: None,
            lack_told: None,
            next_dates: Instant::now() + DAY,
            looked: Instant::now(),
            complained: None,
            notifier,
            reload_told: false,
        })
    }

    /// Serves until TERM.
    pub fn run(mut self) -> Result<u8, Fail> {
        self.tell_count(self.connections.count());
        self.tell_manager(&State::Ready);
        loop {
            self.turn(None)?;
            if self.ending {
                self.tell_manager(&State::Stopping);
                self.finish();
                return Ok(0);
            }
            self.work();
            if let Some(fail) = self.failed.take() {
                return Err(fail);
            }
        }
    }

    /// One round of all that needs no waiting; waits until there is something to
    /// do, or for the descriptor of a longer work until its time. True where that
    /// is readable.
    fn turn(&mut self, also: Option<(BorrowedFd<'_>, Instant)>) -> Result<bool, Fail> {
        self.heed_signals();
        let now = Instant::now();
        if now >= self.next_dates {
            self.next_dates = now + DAY;
            self.generation.warn_of_dates(&self.setup.report);
        }
        if self.resting.is_some_and(|until| now >= until) {
            self.resting = None;
        }
        self.connections.end_late(now);
        self.notifier.send(&self.setup.report);
        let others = [
            self.resting,
            self.notifier.wake(),
            self.generation.keyholder.wake(),
            self.connections.next_deadline(),
            also.map(|(_, until)| until),
            // What is to be done at once, and not by this round.
            (self.ending || self.hurried || self.wants_reload && !self.at_work).then_some(now),
        ];
        let work = [self.next_master, self.generation.keyholder.next_worker()];
        let work = work.into_iter().filter(|_| !self.at_work);
        let wake = self.next_dates;
        let others = others.into_iter().chain(work);
        let wake = others.flatten().fold(wake, Instant::min);
        let accepting = self.has_room() && self.resting.is_none();
        let time = wake.saturating_duration_since(now);
        let (client, ready) = self.wait(accepting, also.map(|(on, _)| on), time)?;
        let awaited = self.connections.next_deadline().is_some();
        let keyholder = &mut self.generation.keyholder;
        keyholder.attend(awaited, &self.setup.report);
        self.connections.hear();
        while let Some((id, settings)) = self.connections.unmade() {
            let made = self.generation.mix(self.setup, &settings);
            self.connections.made(id, made);
        }
        if accepting && (client || self.held.is_some()) {
            self.resting = self.accept().map(|()| Instant::now() + REST);
        }
        Ok(ready)
    }

    fn heed_signals(&mut self) {
        let seen = signal::seen();
        self.ending |= seen.terminate;
        if seen.child {
            self.reap();
        }
        if seen.hangup {
            self.master.renew_tickets();
            self.generation.keyholder.renew_tickets();
            self.wants_reload = true;
            self.reload_told = true;
            self.tell_manager(&State::Reloading);
        }
    }

    fn tell_manager(&mut self, state: &State<'_>) {
        self.notifier.tell(state, &self.setup.report);
    }

    /// What takes other processes, or long: clients are served meanwhile.
    fn work(&mut self) {
        let now = Instant::now();
        if self.next_master.is_some_and(|at| now >= at) {
            self.restore_master();
        }
        self.replace_workers();
        if std::mem::take(&mut self.wants_reload) {
            let before = self.complained.clone();
            self.reload();
            if self.complained != before {
                let status = self.complained.as_ref();
                let status = status.map(|why| format!("unable to reload: {why}"));
                self.tell_manager(&State::Complaint(status.as_deref().unwrap_or("")));
            }
            // One that came in between has a reload of its own ahead.
            if self.reload_told && !self.wants_reload && !self.ending {
                self.reload_told = false;
                self.tell_manager(&State::Ready);
            }
        }
    }

    fn replace_workers(&mut self) {
        while let Some(at) = self.generation.keyholder.wanting(Instant::now()) {
            if let Some(until) = self.next_master {
                self.generation.keyholder.put_off(at, until);
                continue;
            }
            let made = self.make_worker();
            if self.ending {
                return;
            }
            let report = &self.setup.report;
            self.generation.keyholder.install(at, made, report);
        }
    }

    fn make_worker(&mut self) -> Result<Worker, Fail> {
        let recipe = self.generation.keyholder.recipe();
        let master = Rc::clone(&self.master);
        let made = recipe.make(&master, &mut Serving::new(self));
        self.end_silent_master();
        made
    }

    /// Ends a master that did not do what it was asked for: when it has ended,
    /// another is started.
    fn end_silent_master(&self) {
        if self.master.is_silent() && self.next_master.is_none() && !self.ending {
            let id = self.master.id();
            self.setup.report.warning(format_args!(
                "key master {id} did not answer for {} seconds, and was killed",
                PATIENCE.as_secs()
            ));
            process::kill(id);
        }
    }

    fn has_room(&self) -> bool {
        self.connections.count() < self.setup.limit
    }

    /// Waits for anything to do: whether a client waits, and whether the
    /// descriptor of a longer work is readable.
    fn wait(
        &mut self,
        accepting: bool,
        also: Option<BorrowedFd<'_>>,
        time: Duration,
    ) -> Result<(bool, bool), Fail> {
        let time = if accepting && self.held.is_some() {
            Duration::ZERO
        } else {
            time
        };
        let mut wanted = Vec::with_capacity(4);
        wanted.push((self.connections.as_fd(), Ready::READ));
        if accepting {
            wanted.push((self.listener.as_fd(), Ready::READ));
        }
        wanted.extend(also.map(|on| (on, Ready::READ)));
        let controls = self.generation.keyholder.descriptors();
        wanted.extend(controls.map(|control| (control, Ready::READ)));
        poll::wait_with_signals(&mut wanted, Some(time), self.mask)
            .map_err(Fail::unable("wait for connections"))?;
        let also_at = 1 + usize::from(accepting);
        Ok((
            accepting && wanted[1].1.read,
            also.is_some() && wanted[also_at].1.read,
        ))
    }

    /// Takes clients while there are some; `Some` when the system can't.
    fn accept(&mut self) -> Option<()> {
        for _ in 0..ROUND {
            if !self.has_room() {
                return None;
            }
            let accepted = match self.held.take() {
                Some((client, address)) => Accepted::Client(client, address),
                None => self.listener.accept(),
            };
            match accepted {
                Accepted::Client(client, address) => {
                    self.look_at_files();
                    if self.wants_reload && !self.at_work {
                        // It is served with what is new, or meanwhile.
                        self.held = Some((client, address));
                        return None;
                    }
                    if let Err((client, error)) = self.begin(client, address) {
                        self.tell_lack("begin a connection", &error);
                        self.held = Some((client, address));
                        return Some(());
                    }
                }
                Accepted::Nobody => return None,
                Accepted::Exhausted(error) => {
                    self.tell_lack("accept", &error);
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
        while self.has_room() {
            let next = self.held.take().or_else(|| match self.listener.accept() {
                Accepted::Client(client, address) => Some((client, address)),
                Accepted::Nobody | Accepted::Exhausted(_) => None,
            });
            let Some((client, address)) = next else {
                break;
            };
            if self.begin(client, address).is_err() {
                break;
            }
        }
        self.connections.leave_logger();
    }

    /// Serves a client with processes of its own.
    ///
    /// # Errors
    /// The system lacks descriptors, memory or processes: nothing was done.
    fn begin(
        &mut self,
        client: TcpStream,
        address: SocketAddr,
    ) -> Result<(), (TcpStream, std::io::Error)> {
        let Setup {
            options, senders, ..
        } = self.setup;
        // A sender's address says nothing of the client's, and rules are met by
        // names too.
        let counted = senders.is_none() && !self.generation.limits_by_rule();
        let limit = self.setup.limit_per_address;
        if counted && !self.connections.admits(address.ip(), limit) {
            return Ok(());
        }
        let keyholder = &mut self.generation.keyholder;
        let made =
            Voice::pair().and_then(|ends| Ok((ends, keyholder.link(link_seconds(options))?)));
        let ((ear, other_end), (link, link_end)) = match made {
            Ok(made) => made,
            Err(error) => return Err((client, error)),
        };
        // Before the child can write its own lines, as tcpserver.
        self.tell_count(self.connections.count() + 1);
        let context = launcher::Context {
            setup: self.setup,
            generation: &self.generation,
            voice: &other_end,
            uncounted: !counted,
        };
        let mut place = Some((client, link_end));
        let forked = process::spawn(|| match place.take() {
            Some((client, link)) => launcher::run(&context, client, address, link),
            None => report::TEMPORARY,
        });
        match (forked, place) {
            (Ok(launcher), _) => {
                self.connections.begin(Beginning {
                    launcher,
                    address,
                    counted,
                    link,
                    ear,
                });
                self.tell_full();
                Ok(())
            }
            (Err(error), Some((client, _))) => {
                self.generation.keyholder.done(link);
                self.tell_count(self.connections.count());
                Err((client, error))
            }
            // Only the child takes it.
            (Err(_), None) => Ok(()),
        }
    }

    /// Whether something is to be told again, which was last told then.
    fn due(told: &mut Option<Instant>) -> bool {
        let now = Instant::now();
        let due = told.is_none_or(|at| now.duration_since(at) >= MINUTE);
        if due {
            *told = Some(now);
        }
        due
    }

    /// Says that no further client is let in, and who has the places.
    fn tell_full(&mut self) {
        if self.has_room() || !Self::due(&mut self.full_told) {
            return;
        }
        let count = self.setup.limit;
        let why = if count < self.setup.options.limit {
            "the limit on descriptors"
        } else {
            "-c"
        };
        let most = self.connections.fullest().map(|(address, count)| {
            format!("; {address} has {count} of them, which -C would limit")
        });
        self.setup.report.warning(format_args!(
            "{count} connections at once, as many as {why} allows: further clients wait{}",
            most.unwrap_or_default()
        ));
    }

    /// Says that the system is short of something, once a minute at most.
    fn tell_lack(&mut self, step: &str, error: &std::io::Error) {
        if Self::due(&mut self.lack_told) {
            let reason = report::reason(error);
            self.setup.report.warning(format_args!(
                "unable to {step}: {reason}: clients wait until there is more"
            ));
        }
    }

    fn reap(&mut self) {
        while let Some(change) = process::reap() {
            match change {
                Change::Ended(ended) => self.settle(ended),
                Change::Stopped(id) => self.connections.stopped(id, true),
                Change::Continued(id) => self.connections.stopped(id, false),
            }
        }
    }

    fn settle(&mut self, ended: Ended) {
        let id = ended.id;
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
        if let Some(link) = self.connections.ended(ended) {
            self.generation.keyholder.done(link);
            self.tell_count(self.connections.count());
        }
    }

    fn tell_count(&self, count: usize) {
        let limit = self.setup.limit;
        self.setup
            .report
            .status(format_args!("status: {count}/{limit}"));
    }

    /// Notices changed files by itself, at a connection, once a second at most.
    fn look_at_files(&mut self) {
        let now = Instant::now();
        if self.at_work || now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        self.wants_reload |= self.watch.has_changed();
    }

    /// Puts another master in the place of one that ended. It has no password:
    /// keys that need one stay with the keyholder that has them.
    fn restore_master(&mut self) {
        let report = &self.setup.report;
        let started = Master::start(*report, None, &mut Serving::new(self));
        let master = match started {
            _ if self.ending => return,
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
        match self.move_workers() {
            Ok(()) => report.warning("a new key master was started"),
            Err(_) if self.ending => {}
            Err(fail) => report.warning(format_args!(
                "a new key master was started, but cannot load the keys again: {fail}: \
                 the keyholder in place serves on, but reloads will fail; restart sslserver"
            )),
        }
        // What came in between may have failed for want of a master alone.
        self.wants_reload |= self.complained.is_some();
    }

    /// Puts workers of a new master in the place of those of one that ended,
    /// which nobody could end any more. If the keys cannot be loaded again, those
    /// go on while they live.
    fn move_workers(&mut self) -> Result<(), Fail> {
        for at in 0..self.generation.keyholder.size() {
            let made = self.make_worker()?;
            let report = &self.setup.report;
            self.generation.keyholder.install(at, Ok(made), report);
        }
        Ok(())
    }

    /// Loads the next generation beside this one, and swaps it in if all that
    /// served before can be served again.
    fn reload(&mut self) {
        let report = &self.setup.report;
        let before = self.generation.watch.anew();
        let mut watch = Watch::default();
        let (setup, master) = (self.setup, Rc::clone(&self.master));
        let loaded = Generation::load(setup, &master, &mut watch, &mut Serving::new(self));
        self.end_silent_master();
        if self.ending {
            return;
        }
        let failed = match loaded {
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

/// Serves clients while something longer is at work.
struct Serving<'s, 'a> {
    supervisor: &'s mut Supervisor<'a>,
    begun: Instant,
    last: Instant,
}

impl<'s, 'a> Serving<'s, 'a> {
    fn new(supervisor: &'s mut Supervisor<'a>) -> Self {
        let now = Instant::now();
        supervisor.at_work = true;
        Serving {
            supervisor,
            begun: now,
            last: now,
        }
    }

    fn turn(&mut self, also: Option<(BorrowedFd<'_>, Instant)>) -> io::Result<bool> {
        let served = self.supervisor.turn(also);
        self.last = Instant::now();
        let ready = served.unwrap_or_else(|fail| {
            self.supervisor.failed = Some(fail);
            false
        });
        if self.supervisor.ending || self.supervisor.failed.is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(ready)
    }
}

impl Drop for Serving<'_, '_> {
    fn drop(&mut self) {
        self.supervisor.at_work = false;
    }
}

impl Meanwhile for Serving<'_, '_> {
    fn wait(&mut self, on: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
        // What is quick is done at one go: who comes then is served with what
        // is new.
        let quick = deadline.min(self.begun + QUICK);
        let mut wanted = [(on, Ready::READ)];
        poll::wait(&mut wanted, Some(quick))?;
        if wanted[0].1.read {
            return Ok(());
        }
        while !self.turn(Some((on, deadline)))? && Instant::now() < deadline {}
        Ok(())
    }

    fn pause(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if now.duration_since(self.begun) < QUICK || now.duration_since(self.last) < SLICE {
            return Ok(());
        }
        self.supervisor.hurried = true;
        let turned = self.turn(None);
        self.supervisor.hurried = false;
        turned.map(drop)
    }

    fn patience(&self) -> Duration {
        PATIENCE
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
