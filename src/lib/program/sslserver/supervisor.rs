//! The supervisor: accepts, counts, reaps, reloads. It never reads a byte of a
//! client's, and nothing that a client sends can end it.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use super::Setup;
use super::connections::Connections;
use super::generation::Generation;
use crate::keyholder::{Keyholder, Keyholders, Master};
use crate::listener::Listener;
use crate::log;
use crate::manager::{Notifier, State};
use crate::report::Fail;
#[cfg(target_os = "linux")]
use crate::sys::mappings;
use crate::sys::memory::Compact;
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, Change, EndedChild};
use crate::sys::signal;
use crate::tls_ffi;
use crate::watch::Watch;

mod accept;
mod engines;
mod key_processes;
mod meanwhile;
mod reload;

/// How long accepting rests when the system is out of descriptors, processes or
/// memory.
const REST: Duration = Duration::from_millis(200);
/// How many rounds may find something to do at once before signals are let in,
/// which come by themselves where a round has to wait.
const BUSY: u32 = 8;
/// How many connections make so many children that not all are looked through for
/// each that ends.
const MANY: usize = 32;
/// Of two ends at once one is not heard of. How soon those are waited for that are near
/// their end, and how soon all are looked through. A client that
/// has as many connections as it may waits for the first alone.
const SOON: Duration = Duration::from_millis(50);
const SCAN: Duration = Duration::from_secs(1);
/// How long those that need no answer wait to be heard, all together: most are heard by
/// then, at the end of a process of theirs.
const BATCH: Duration = Duration::from_millis(50);
/// How often dates of certificates are looked at.
const DAY: Duration = Duration::from_secs(86400);

/// What a wait was for.
struct Woken {
    /// A connection's process has something to tell.
    connections: bool,
    /// A program asks for TLS, or has ended.
    controls: bool,
    /// A client waits.
    client: bool,
    /// The descriptor of a longer work is readable.
    also: bool,
    /// There is room for what the log has not taken yet.
    log: bool,
    /// A keyholder has something to tell, or is gone.
    keyholder: bool,
}

/// See the file's head.
pub(super) struct Supervisor<'a> {
    setup: &'a Setup,
    listener: Listener,
    generation: Generation,
    /// What signs for its stores, and for those before it.
    keyholders: Keyholders,
    master: Rc<Master>,
    /// The master has ended: when another is started.
    next_master: Option<Instant>,
    /// TERM came.
    ending: bool,
    /// A file changed, or HUP came.
    wants_reload: bool,
    /// HUP came: the next reload reads all files, changed or not.
    wants_all: bool,
    /// Something longer is at work: nothing else of its kind is begun.
    at_work: bool,
    /// The next round waits for nothing.
    hurried: bool,
    /// Why it cannot go on.
    failed: Option<Fail>,
    /// Until when no client is taken.
    resting: Option<Instant>,
    mask: SigSet,
    /// Rounds in a row that had something to do at once.
    busy: u32,
    /// When all children are looked through, and when they were.
    scan_at: Option<Instant>,
    scanned: Instant,
    /// When those are waited for that are near their end.
    look_at: Option<Instant>,
    connections: Connections<'a>,
    /// Until when nothing that connections tell ends a wait.
    batch_until: Option<Instant>,
    /// A client that was accepted when there was no process for it.
    held: Option<(TcpStream, SocketAddr)>,
    /// When it was last told that `-c` is reached, and what the system lacks.
    full_told: Option<Instant>,
    lack_told: Option<Instant>,
    next_dates: Instant,
    /// When files were last looked at.
    looked: Instant,
    /// What was wrong with the files at the last look: said once.
    complained: Option<Fail>,
    /// When that is tried again, though no file changed.
    try_again: Instant,
    /// What the last load, good or not, has read.
    watch: Watch,
    /// The service manager, which wants to know of HUP and TERM.
    notifier: Notifier,
    /// It was told that files are read again, and not yet that this is done.
    reload_told: bool,
    /// Connections find their memory in one piece.
    heap: Compact,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        setup: &'a Setup,
        listener: Listener,
        (generation, keyholder): (Generation, Keyholder),
        master: Rc<Master>,
        mask: SigSet,
        notifier: Notifier,
    ) -> Result<Self, Fail> {
        Ok(Supervisor {
            setup,
            listener,
            watch: generation.watch.clone(),
            generation,
            keyholders: Keyholders::new(keyholder),
            master,
            next_master: None,
            ending: false,
            wants_reload: false,
            wants_all: false,
            at_work: false,
            hurried: false,
            failed: None,
            resting: None,
            mask,
            busy: 0,
            scan_at: None,
            scanned: Instant::now(),
            look_at: None,
            connections: Connections::new(setup)?,
            batch_until: None,
            held: None,
            full_told: None,
            lack_told: None,
            next_dates: Instant::now() + DAY,
            looked: Instant::now(),
            complained: None,
            try_again: Instant::now(),
            notifier,
            reload_told: false,
            heap: Compact::default(),
        })
    }

    /// Serves until TERM. Connections in progress go on, whatever ends it.
    pub fn run(mut self) -> Result<u8, Fail> {
        self.tell_count(self.connections.count());
        self.tell_manager(&State::Ready);
        self.compact();
        let ended = self.serve();
        if ended.is_ok() {
            self.tell_manager(&State::Stopping);
        }
        self.ending = true;
        self.finish();
        ended.map(|()| 0)
    }

    /// Serves until TERM came, or it cannot go on.
    fn serve(&mut self) -> Result<(), Fail> {
        loop {
            self.turn(None)?;
            if self.ending {
                return Ok(());
            }
            self.work();
            if let Some(fail) = self.failed.take() {
                return Err(fail);
            }
        }
    }

    /// Whether it ends, for whatever reason: nothing longer is to be done or told.
    fn is_over(&self) -> bool {
        self.ending || self.failed.is_some()
    }

    /// Has connections find their memory in one piece, and keeps none for what a start or
    /// a reload takes: where a control group is out of memory, the kernel ends the largest
    /// process, and that is to be one of a connection's.
    fn compact(&mut self) {
        tls_ffi::forget_error_texts();
        self.heap = Compact::heap();
        #[cfg(target_os = "linux")]
        mappings::give_back_text();
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
        self.look_for_ends(now);
        self.connections.end_late(now);
        self.begin_engines();
        self.tidy();
        self.notifier.send(&self.setup.report);
        self.batch_until = self.batch_until.filter(|until| now < *until);
        let others = [
            self.resting,
            self.batch_until,
            self.scan_at,
            self.look_at,
            self.notifier.wake(),
            self.keyholders.wake(),
            self.connections.next_deadline(),
            also.map(|(_, until)| until),
            // What is to be done at once, and not by this round.
            (self.ending || self.hurried || self.wants_reload && !self.at_work).then_some(now),
        ];
        let work = [self.next_master, self.keyholders.next_worker()];
        let work = work.into_iter().filter(|_| !self.at_work);
        let wake = self.next_dates;
        let others = others.into_iter().chain(work);
        let wake = others.flatten().fold(wake, Instant::min);
        let accepting = self.has_room() && self.resting.is_none();
        let time = wake.saturating_duration_since(now);
        let came = self.wait(accepting, also.map(|(on, _)| on), time)?;
        if came.log {
            log::write_on();
        }
        let awaited = self.connections.next_deadline().is_some();
        let keyholders = &mut self.keyholders;
        keyholders.attend(awaited, came.keyholder, &self.setup.report);
        if came.connections {
            self.connections.hear();
            self.begin_batch();
        }
        if came.controls {
            self.connections.hear_controls();
        }
        self.begin_engines();
        self.tidy();
        while let Some((id, settings)) = self.connections.unmade() {
            let made = self
                .generation
                .mix(self.setup, &mut self.keyholders.current, &settings);
            self.connections.made(id, made);
        }
        if accepting && (came.client || self.held.is_some()) {
            self.resting = self.accept().map(|()| Instant::now() + REST);
        }
        Ok(came.also)
    }

    /// Has what connections tell from now on wait for a while, unless one may wait for
    /// an answer.
    fn begin_batch(&mut self) {
        let asks = self.counts_late() || self.generation.access.mixes();
        if !asks {
            self.batch_until
                .get_or_insert_with(|| Instant::now() + BATCH);
        }
    }

    /// Whether only its launcher knows whom a connection counts for: a sender's address
    /// says nothing of the client's, and rules are met by names too.
    fn counts_late(&self) -> bool {
        self.setup.senders.is_some() || self.generation.access.limits()
    }

    fn heed_signals(&mut self) {
        if self.busy >= BUSY {
            self.busy = 0;
            signal::let_in();
        }
        let seen = signal::seen();
        self.ending |= seen.terminate;
        if seen.child && (self.connections.count() <= MANY || !self.has_room()) {
            self.reap();
        } else if seen.child {
            for id in seen.children {
                self.heed(|| process::reap_one(id));
            }
            // Only its launcher is told whether an address has room.
            let soon = if self.counts_late() { SOON } else { SCAN };
            let soon = Instant::now() + soon;
            self.scan_at.get_or_insert(soon);
        }
        if seen.hangup {
            self.master.renew_tickets();
            self.keyholders.renew_tickets();
            self.wants_reload = true;
            self.wants_all = true;
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

    fn has_room(&self) -> bool {
        self.connections.count() < self.setup.limits.at_once
    }

    /// Waits for anything to do.
    fn wait(
        &mut self,
        accepting: bool,
        also: Option<BorrowedFd<'_>>,
        time: Duration,
    ) -> Result<Woken, Fail> {
        let time = if accepting && self.held.is_some() {
            Duration::ZERO
        } else {
            time
        };
        let mut wanted = Vec::with_capacity(5);
        let listening = self.batch_until.is_none();
        if listening {
            wanted.push((self.connections.as_fd(), Ready::READ));
        }
        let delayed = self.setup.options.delayed;
        if delayed {
            wanted.push((self.connections.controls(), Ready::READ));
        }
        if accepting {
            wanted.push((self.listener.as_fd(), Ready::READ));
        }
        wanted.extend(also.map(|on| (on, Ready::READ)));
        let log = log::waiting();
        wanted.extend(log.map(|log| (log, Ready::WRITE)));
        let controls = self.keyholders.descriptors();
        wanted.extend(controls.map(|control| (control, Ready::READ)));
        let any = poll::wait_with_signals(&mut wanted, Some(time), self.mask)
            .map_err(Fail::unable("wait for connections"))?;
        self.busy = if any { self.busy + 1 } else { 0 };
        let mut came = wanted.into_iter().map(|(_, came)| came != Ready::default());
        let mut next = || came.next().unwrap_or(false);
        Ok(Woken {
            connections: listening && next(),
            controls: delayed && next(),
            client: accepting && next(),
            also: also.is_some() && next(),
            log: log.is_some() && next(),
            keyholder: came.any(|came| came),
        })
    }

    /// Looks through all children.
    fn reap(&mut self) {
        self.scan_at = None;
        self.scanned = Instant::now();
        self.heed(process::reap);
        // Those were among them.
        self.connections.ending();
    }

    /// The same for a client who else would not be let in, where somebody may have ended
    /// unheard of.
    fn reap_for_room(&mut self) {
        if self.scan_at.is_some() && self.scanned.elapsed() >= SOON {
            self.reap();
        }
    }

    /// Looks through all children, or waits for those that are near their end, once it is
    /// time.
    fn look_for_ends(&mut self, now: Instant) {
        if self.scan_at.is_some_and(|at| now >= at) {
            self.reap();
        }
        if self.look_at.is_some_and(|at| now >= at) {
            self.look_at = None;
            for id in self.connections.ending() {
                self.heed(|| process::reap_one(id));
            }
        }
        if self.connections.has_ending() {
            self.look_at.get_or_insert(now + SOON);
        }
    }

    /// Takes note of what became of children, while there is something.
    fn heed(&mut self, next: impl Fn() -> Option<Change>) {
        while let Some(change) = next() {
            match change {
                Change::Ended(ended) => self.settle(ended),
                Change::Stopped(id) => self.connections.stopped(id, true),
                Change::Continued(id) => self.connections.stopped(id, false),
            }
        }
    }

    fn settle(&mut self, ended: EndedChild) {
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
        self.connections.ended(ended);
        self.tidy();
    }

    /// What is left to do for connections that have ended, or go on without a keyholder.
    fn tidy(&mut self) {
        for link in self.connections.unneeded() {
            self.keyholders.done(link);
        }
        if self.connections.has_fewer() {
            self.tell_count(self.connections.count());
        }
    }

    fn tell_count(&self, count: usize) {
        let limit = self.setup.limits.at_once;
        self.setup
            .report
            .status(format_args!("status: {count}/{limit}"));
    }
}
