//! The supervisor's end of a keyholder: the source of one generation's signers,
//! and the watch over its workers. A worker that dies or hangs is replaced, and
//! whoever waits for a signature gets it from the next.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openssl::pkey::{PKey, Public};

use super::link;
use super::loading::{KeyTable, Recipe};
use super::master::{Master, PATIENCE, receive};
use super::meanwhile::Meanwhile;
use super::permits::Permits;
use super::worker::{answer, order};
use crate::report::{self, Fail, Report};
use crate::store::KeyPlace;
use crate::store::permit::Permit;
use crate::sys::parcel;
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, ProcessId};

/// How often a worker that gets links is asked whether it lives.
const QUESTION: Duration = Duration::from_millis(250);
/// How often one is asked that gets none, but has handshakes to finish.
const AWAITED: Duration = Duration::from_secs(1);
/// How long it may take to answer, at first; a machine that is slower than that
/// gets twice the time after each replacement, up to the last.
const SILENCE: Duration = Duration::from_millis(500);
const LONGEST_SILENCE: Duration = Duration::from_secs(8);
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

static NEXT_LINK: AtomicU64 = AtomicU64::new(0);

/// One generation's keyholder.
pub struct Keyholder {
    keys: KeyTable,
    /// What may be signed; every worker knows it.
    permits: Permits,
    workers: Vec<Worker>,
    /// Copies of the workers' ends, for whoever takes a dead worker's place.
    links: HashMap<LinkId, Held>,
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

struct Held {
    socket: OwnedFd,
    worker: usize,
    end: Option<Instant>,
    sent: bool,
}

/// One process of a keyholder.
pub struct Worker {
    id: ProcessId,
    /// `None` while there is no process.
    control: Option<OwnedFd>,
    /// When it was asked whether it lives, and has not answered.
    asked: Option<Instant>,
    last_asked: Instant,
    /// It got links that no question came with.
    unasked: bool,
    silence: Duration,
    retry: Instant,
    /// The failure to replace it was told.
    told: bool,
    /// How many of the orders that say what may be signed it was told.
    learned: usize,
}

impl Worker {
    pub(super) fn fork(master: &Master, meanwhile: &mut dyn Meanwhile) -> Result<Worker, Fail> {
        let (id, control) = master
            .fork(meanwhile)
            .map_err(Fail::unable("start a keyholder"))?;
        let now = Instant::now();
        Ok(Worker {
            id,
            control: Some(control),
            asked: None,
            last_asked: now,
            unasked: false,
            silence: SILENCE,
            retry: now,
            told: false,
            learned: 0,
        })
    }

    /// One order and its answer. The inner failure is the worker's own.
    pub(super) fn ask(
        &self,
        order: u8,
        text: &[u8],
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Result<Vec<u8>, String>, Fail> {
        let unable = || Fail::unable("talk to the keyholder");
        let control = self
            .control
            .as_ref()
            .ok_or_else(|| unable()(io::ErrorKind::NotConnected.into()))?;
        parcel::give(control, &[&[order], text].concat()).map_err(unable())?;
        let reply = receive(control, PATIENCE, meanwhile).map_err(unable())?;
        match reply.split_first() {
            Some((&answer::ERROR, why)) => Ok(Err(String::from_utf8_lossy(why).into_owned())),
            Some((_, rest)) => Ok(Ok(rest.to_vec())),
            None => Err(Fail::temporary("the keyholder ended while it was started")),
        }
    }

    /// Has it load a key under a number.
    pub(super) fn load(
        &self,
        number: u16,
        path: &str,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Result<PKey<Public>, String>, Fail> {
        let order = [&number.to_be_bytes(), path.as_bytes()].concat();
        let public = self.ask(order::LOAD, &order, meanwhile)?;
        Ok(public.and_then(|der| {
            PKey::public_key_from_der(&der).map_err(|error| report::tls_reason(&error))
        }))
    }

    /// Has it learn what may be signed.
    pub(super) fn learn(
        &mut self,
        orders: &[Vec<u8>],
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<(), Fail> {
        for order in orders {
            if let [kind, rest @ ..] = &**order {
                self.ask(*kind, rest, meanwhile)?.map_err(Fail::temporary)?;
            }
        }
        self.learned = orders.len();
        Ok(())
    }

    /// Tells one that signs already what it does not know of these orders.
    fn catch_up(&mut self, orders: &[Vec<u8>]) -> Result<(), Fail> {
        // Who takes the place of one that is gone hears everything.
        let Some(control) = &self.control else {
            return Ok(());
        };
        for order in &orders[self.learned.min(orders.len())..] {
            parcel::give(control, order).map_err(Fail::unable("talk to the keyholder"))?;
            self.learned += 1;
        }
        Ok(())
    }

    /// Returns what it could not give up.
    pub(super) fn seal(&self, meanwhile: &mut dyn Meanwhile) -> Result<Vec<String>, Fail> {
        let missing = self.ask(order::SEAL, b"", meanwhile)?;
        let missing = missing.map_err(Fail::temporary)?;
        Ok(String::from_utf8_lossy(&missing)
            .lines()
            .map(str::to_owned)
            .collect())
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

    /// Lets `rehearsal` have a few signatures in this process.
    pub fn rehearse(&mut self, rehearsal: impl FnOnce()) {
        const SECONDS: u32 = 10;
        let Ok((id, socket)) = self.link_for(SECONDS, 16) else {
            return;
        };
        link::open(socket, Instant::now() + Duration::from_secs(SECONDS.into()));
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

    fn drop_spares(&mut self) {
        for (id, _) in std::mem::take(&mut self.spares).links {
            self.done(id);
        }
    }

    fn link_for(&mut self, seconds: u32, signatures: u8) -> io::Result<(LinkId, OwnedFd)> {
        if self.links.len() >= self.sweep_at {
            self.sweep();
        }
        let (socket, engine) = parcel::pair()?;
        let id = NEXT_LINK.fetch_add(1, Ordering::Relaxed);
        let workers = &mut self.workers;
        let now = Instant::now();
        let turn = usize::try_from(id).unwrap_or(0);
        // In turn, past those that are being replaced.
        let worker = (0..workers.len())
            .map(|step| turn.wrapping_add(step) % workers.len())
            .find(|&at| workers[at].control.is_some())
            .unwrap_or(0);
        let mut held = Held {
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

    /// Nobody uses this link any more.
    pub fn done(&mut self, id: LinkId) {
        self.links.remove(&id);
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
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.workers
            .iter()
            .filter_map(|worker| worker.control.as_ref().map(|control| control.as_fd()))
    }

    /// When a worker is to be made, if one is missing.
    #[must_use]
    pub fn next_worker(&self) -> Option<Instant> {
        let workers = &self.workers;
        let missing = workers.iter().filter(|worker| worker.control.is_none());
        missing.map(|worker| worker.retry).min()
    }

    /// When [`Keyholder::attend`] has work anyway.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
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
    pub fn renew_tickets(&self) {
        for worker in &self.workers {
            if let Some(control) = &worker.control {
                // One that does not take it is replaced, or ends.
                let _ = parcel::give(control, &[order::RENEW]);
            }
        }
    }

    /// Which worker another is to be made for now, if any.
    #[must_use]
    pub fn wanting(&self, now: Instant) -> Option<usize> {
        let workers = &self.workers;
        workers
            .iter()
            .position(|worker| worker.control.is_none() && worker.retry <= now)
    }

    /// How many workers it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.workers.len()
    }

    /// Tries no worker in the place of one before that time.
    pub fn put_off(&mut self, at: usize, until: Instant) {
        if let Some(worker) = self.workers.get_mut(at) {
            worker.retry = until;
        }
    }

    /// Puts a worker in another's place, or tries again later where there is
    /// none.
    pub fn install(&mut self, at: usize, made: Result<Worker, Fail>, report: &Report) {
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
    pub fn attend(&mut self, awaited: bool, heard: bool, report: &Report) {
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

/// How a worker is.
enum Health {
    Sound,
    Ended,
    Silent,
    Absent,
}

impl Worker {
    /// Hears it, where it may have something to tell, and asks it, as far as that
    /// needs no waiting.
    fn look(&mut self, now: Instant, awaited: bool, heard: bool) -> Health {
        let Some(control) = &self.control else {
            return Health::Absent;
        };
        let overdue = |asked: Option<Instant>, silence| asked.is_some_and(|at| now >= at + silence);
        let mut buffer = [0; 16];
        // Its answer may have come since the wait.
        while heard || overdue(self.asked, self.silence) {
            match parcel::take(control, &mut buffer) {
                Ok(1..) => self.asked = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => {
                    self.control = None;
                    return Health::Ended;
                }
            }
        }
        if overdue(self.asked, self.silence) {
            return Health::Silent;
        }
        let due = self.next_question(awaited).is_some_and(|at| now >= at);
        if due && self.asked.is_none() {
            // A full socket is silence too.
            let _ = parcel::give(control, &[order::PING]);
            self.ask_now(now);
        }
        Health::Sound
    }

    /// Kills it, unless it has ended: while its end of the socket is open, its
    /// number is nobody else's.
    pub(super) fn end(&mut self) {
        if let Some(control) = self.control.take() {
            if !parcel::has_ended(&control) {
                process::kill(self.id);
            }
        }
    }

    /// When it is to be asked whether it lives: soon where it got links, less
    /// often where somebody may still wait for it.
    fn next_question(&self, awaited: bool) -> Option<Instant> {
        if self.unasked {
            Some(self.last_asked + QUESTION)
        } else {
            awaited.then(|| self.last_asked + AWAITED)
        }
    }

    fn ask_now(&mut self, now: Instant) {
        self.asked = Some(now);
        self.last_asked = now;
        self.unasked = false;
    }

    /// Gives it a link; one that it cannot take now waits.
    fn send(&mut self, held: &mut Held, signatures: u8, now: Instant) {
        let Some(control) = &self.control else {
            return;
        };
        let seconds = match held.end {
            None => 0,
            Some(end) => {
                let left = end.saturating_duration_since(now).as_secs();
                u32::try_from(left).unwrap_or(u32::MAX).max(1)
            }
        };
        let question = self.asked.is_none() && now >= self.last_asked + QUESTION;
        let mut message = vec![order::LINK, signatures, u8::from(question)];
        message.extend(seconds.to_be_bytes());
        if let Err(error) = parcel::give_with(control, &message, held.socket.as_fd()) {
            // Whatever it is: it is tried again, and a worker that is gone is
            // found out at the next look.
            let _ = report::reason(&error);
            return;
        }
        held.sent = true;
        if question {
            self.ask_now(now);
        } else {
            self.unasked = true;
        }
    }
}
