//! The supervisor's end of a keyholder: the source of one generation's signers,
//! and the watch over its workers. A worker that dies or hangs is replaced, and
//! whoever waits for a signature gets it from the next.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::link;
use super::loading::{KeyTable, Recipe};
use super::permits::Permits;
use super::process::order;
use super::worker::{Health, LONGEST_SILENCE, Worker, WorkerLink};
use crate::report::{Fail, Report};
use crate::store::KeyPlace;
use crate::store::permit::Permit;
use crate::sys::parcel;
use crate::sys::poll::{self, Ready};

/// How long until a replacement that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long until a full socket is tried again.
const FULL: Duration = Duration::from_millis(10);
/// Links that are kept before those that nobody uses any more are looked for.
const SWEEP: usize = 64;
/// The most links that are made ahead: under load, so that the keyholder wakes
/// for a batch of them and not for each.
const AHEAD: usize = 8;
/// How long a link that was made ahead may wait for its connection.
const SPARE_SECONDS: u32 = 1;

/// Names one connection's link; no two keyholders of a process give the same.
pub type LinkId = u64;

/// Numbers of links and of keyholders.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// One generation's keyholder.
pub struct Keyholder {
    /// No other of this process has it.
    number: u64,
    keys: KeyTable,
    /// What may be signed; every worker knows it.
    permits: Permits,
    workers: Vec<Worker>,
    /// Copies of the workers' ends, for whoever takes a dead worker's place.
    links: HashMap<LinkId, WorkerLink>,
    spares: Spares,
    sweep_at: usize,
    /// Some of the links may not have been sent.
    unsent: bool,
    /// Handshakes go on that may want a signature.
    awaited: bool,
    /// What the workers could not give up.
    missing: Vec<String>,
}

/// Links that were made ahead, with their engines' ends.
#[derive(Default)]
struct Spares {
    links: Vec<(LinkId, OwnedFd)>,
    /// When, and how many links at once.
    made: Option<(Instant, usize)>,
    /// How long each holds, beside [`SPARE_SECONDS`].
    seconds: u32,
}

impl Spares {
    fn end(&self) -> Option<Instant> {
        let (made, _) = self.made?;
        Some(made + Duration::from_secs(SPARE_SECONDS.into()))
    }
}

impl Keyholder {
    /// That of workers which sign.
    pub(super) fn of(
        workers: Vec<Worker>,
        keys: KeyTable,
        permits: Permits,
        missing: Vec<String>,
    ) -> Keyholder {
        Keyholder {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            workers,
            keys,
            permits,
            links: HashMap::new(),
            spares: Spares::default(),
            sweep_at: SWEEP,
            unsent: false,
            awaited: false,
            missing,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its keys, for whoever loads the next generation.
    #[must_use]
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    pub(super) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Lets keys sign under a permit from now on.
    ///
    /// # Errors
    /// A worker cannot be told.
    pub fn permit(&mut self, keys: &[KeyPlace], permit: &Permit) -> Result<(), Fail> {
        self.permits.grant(permit, &self.keys.numbers(keys));
        for worker in &mut self.workers {
            worker.catch_up(self.permits.orders())?;
        }
        Ok(())
    }

    /// How to make a worker with the same keys as the others have.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        Recipe::new(&self.keys, &self.permits)
    }

    /// What its workers could not give up here, for an administrator.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Lets `rehearsal` have a few signatures in this process, which waits so long for
    /// them and does nothing else meanwhile.
    pub fn rehearse(&mut self, patience: Duration, rehearsal: impl FnOnce()) {
        let seconds = u32::try_from(patience.as_secs()).unwrap_or(u32::MAX);
        let Ok((id, socket)) = self.link_for(seconds.max(1), 16) else {
            return;
        };
        // Where the worker is gone nothing tells: we have its end of the link, too.
        link::open(socket, Instant::now() + patience);
        rehearsal();
        // It was only to fill caches.
        let _ = link::close();
        self.done(id);
    }

    /// A link for one signature within so many seconds (0: for ever): its name,
    /// and the engine's end.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn link(&mut self, seconds: u32) -> io::Result<(LinkId, OwnedFd)> {
        let now = Instant::now();
        self.drop_old_spares(now);
        let recent = self.spares.made.filter(|_| self.spares.seconds == seconds);
        if recent.is_none() {
            self.drop_spares();
        }
        if let Some(spare) = self.spares.links.pop() {
            return Ok(spare);
        }
        let held_seconds = if seconds == 0 {
            0
        } else {
            seconds.saturating_add(SPARE_SECONDS)
        };
        let link = self.link_for(held_seconds, 1)?;
        // Those of the last batch were used up at once: twice as many may be.
        let count = recent.map_or(1, |(_, count)| AHEAD.min(2 * count));
        for _ in 1..count {
            let Ok(spare) = self.link_for(held_seconds, 1) else {
                break;
            };
            self.spares.links.push(spare);
        }
        self.spares.made = Some((now, count));
        self.spares.seconds = seconds;
        Ok(link)
    }

    fn drop_old_spares(&mut self, now: Instant) {
        if self.spares.end().is_some_and(|end| end <= now) {
            self.drop_spares();
        }
    }

    pub(super) fn drop_spares(&mut self) {
        for (id, _) in std::mem::take(&mut self.spares).links {
            self.done(id);
        }
    }

    fn link_for(&mut self, seconds: u32, signatures: u8) -> io::Result<(LinkId, OwnedFd)> {
        if self.links.len() >= self.sweep_at {
            self.sweep();
        }
        let (socket, engine) = parcel::pair()?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let workers = &mut self.workers;
        let now = Instant::now();
        let turn = usize::try_from(id).unwrap_or(0);
        // In turn, past those that are being replaced.
        let worker = (0..workers.len())
            .map(|step| turn.wrapping_add(step) % workers.len())
            .find(|&at| workers[at].control.is_some())
            .unwrap_or(0);
        let mut held = WorkerLink {
            socket,
            worker,
            end: (seconds > 0).then(|| now + Duration::from_secs(seconds.into())),
            sent: false,
        };
        if let Some(worker) = workers.get_mut(worker) {
            worker.send(&mut held, signatures, now);
        }
        self.unsent |= !held.sent;
        self.links.insert(id, held);
        Ok((id, engine))
    }

    /// Nobody uses this link any more. Whether it was one of its.
    pub(super) fn done(&mut self, id: LinkId) -> bool {
        self.links.remove(&id).is_some()
    }

    /// Whether somebody may still want a signature.
    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Forgets links whose engine has closed its end.
    fn sweep(&mut self) {
        let mut wanted: Vec<(BorrowedFd<'_>, Ready)> = self
            .links
            .values()
            .map(|held| (held.socket.as_fd(), Ready::default()))
            .collect();
        if poll::wait(&mut wanted, Some(Instant::now())).is_ok() {
            let gone: Vec<bool> = wanted.iter().map(|(_, came)| came.gone).collect();
            let mut gone = gone.into_iter();
            self.links.retain(|_, _| !gone.next().unwrap_or(false));
        }
        self.sweep_at = SWEEP.max(2 * self.links.len());
    }

    /// What to wait for: something comes when [`Keyholder::attend`] has work.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.workers
            .iter()
            .filter_map(|worker| worker.control.as_ref().map(|control| control.as_fd()))
    }

    /// When a worker is to be made, if one is missing.
    pub(super) fn next_worker(&self) -> Option<Instant> {
        let workers = &self.workers;
        let missing = workers.iter().filter(|worker| worker.control.is_none());
        missing.map(|worker| worker.retry).min()
    }

    /// When [`Keyholder::attend`] has work anyway.
    pub(super) fn wake(&self) -> Option<Instant> {
        let workers = &self.workers;
        workers
            .iter()
            .filter_map(|worker| match (&worker.control, worker.asked) {
                (None, _) => None,
                (_, Some(asked)) => Some(asked + worker.silence),
                (_, None) => worker.next_question(self.awaited),
            })
            .chain(self.unsent.then(|| Instant::now() + FULL))
            .chain(self.spares.end())
            .min()
    }

    /// Has workers that outlived their master make new keys for tickets; the
    /// others hear from it.
    pub(super) fn renew_tickets(&self) {
        for worker in &self.workers {
            if let Some(control) = &worker.control {
                // One that does not take it is replaced, or ends.
                let _ = parcel::send(control, &[order::RENEW]);
            }
        }
    }

    /// Which worker another is to be made for now, if any.
    pub(super) fn wanting(&self, now: Instant) -> Option<usize> {
        let workers = &self.workers;
        workers
            .iter()
            .position(|worker| worker.control.is_none() && worker.retry <= now)
    }

    /// How many workers it has.
    pub(super) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Tries no worker in the place of one before that time.
    pub(super) fn put_off(&mut self, at: usize, until: Instant) {
        if let Some(worker) = self.workers.get_mut(at) {
            worker.retry = until;
        }
    }

    /// Puts a worker in another's place, or tries again later where there is
    /// none.
    pub(super) fn install(&mut self, at: usize, made: Result<Worker, Fail>, report: &Report) {
        let Some(worker) = self.workers.get_mut(at) else {
            return;
        };
        match made {
            Ok(mut new) => {
                // One that lives is of a master that has ended: nobody else
                // could end it, and its links go to the new one.
                worker.end();
                // What was permitted while it was made. One that cannot hear it is
                // found out at the next look.
                let _ = new.catch_up(self.permits.orders());
                new.silence = (worker.silence * 2).min(LONGEST_SILENCE);
                *worker = new;
                self.take_back(at);
                self.resend(at, Instant::now());
            }
            Err(fail) => {
                if !worker.told {
                    report.warning(format_args!("unable to replace the keyholder: {fail}"));
                }
                worker.told = true;
                worker.retry = Instant::now() + RETRY;
            }
        }
    }

    /// Looks after the workers; `awaited` tells whether handshakes go on, `heard`
    /// whether any of [`Keyholder::descriptors`] is readable. Returns at once; call
    /// it often. What it cannot do at once is asked for with
    /// [`Keyholder::wanting`].
    pub(super) fn attend(&mut self, awaited: bool, heard: bool, report: &Report) {
        let now = Instant::now();
        self.awaited = awaited;
        self.drop_old_spares(now);
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            let silence = worker.silence;
            let verdict = worker.look(now, awaited, heard);
            let id = worker.id;
            match verdict {
                Health::Sound | Health::Absent => {}
                Health::Ended => {
                    worker.retry = now;
                    report.warning(format_args!("keyholder {id} ended; starting another"));
                    self.take_back(at);
                }
                Health::Silent => {
                    worker.end();
                    worker.retry = now;
                    report.warning(format_args!(
                        "keyholder {id} did not answer for {} ms; starting another",
                        silence.as_millis()
                    ));
                    self.take_back(at);
                }
            }
            if self.unsent {
                self.resend(at, now);
            }
        }
        if self.unsent {
            self.unsent = self.links.values().any(|held| !held.sent);
        }
    }

    /// A worker has none of its links any more.
    fn take_back(&mut self, at: usize) {
        for held in self.links.values_mut().filter(|held| held.worker == at) {
            held.sent = false;
        }
        self.unsent = true;
    }

    /// Links that the worker does not have.
    fn resend(&mut self, at: usize, now: Instant) {
        let worker = &mut self.workers[at];
        for held in self.links.values_mut() {
            if !held.sent && held.worker == at {
                worker.send(held, 1, now);
            }
        }
    }
}
