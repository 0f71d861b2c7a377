//! The supervisor's end of a keyholder: the source of one generation's signers,
//! and the watch over its workers. A worker that dies or hangs is replaced, and
//! whoever waits for a signature gets it from the next.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openssl::pkey::{PKey, PKeyRef, Public};

use super::link;
use super::master::{Master, PATIENCE, receive};
use super::meanwhile::Meanwhile;
use super::worker::{answer, order};
use crate::report::{self, Fail, Report};
use crate::store::permit::Permit;
use crate::store::{KeyKind, KeyPlace, Signer, SignerSource};
use crate::sys::parcel;
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, ProcessId};
use crate::tls_ffi::provider;

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
/// RSA keys longer than this are slow enough for more than one worker.
const QUICK_BITS: u32 = 2048;
/// The most workers of one keyholder.
const WORKERS: usize = 4;
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
    keys: RefCell<Vec<Loaded>>,
    /// Places in the list, by path.
    places: RefCell<HashMap<String, usize>>,
    /// What may be signed; every worker knows it.
    permits: RefCell<Permits>,
    workers: RefCell<Vec<Worker>>,
    /// Copies of the workers' ends, for whoever takes a dead worker's place.
    links: HashMap<LinkId, Held>,
    spares: Spares,
    sweep_at: usize,
    /// Handshakes go on that may want a signature.
    awaited: bool,
    /// What the workers could not give up.
    missing: Vec<String>,
}

/// A key that every worker has, under its place in the list.
#[derive(Clone)]
struct Loaded {
    path: String,
    public: PKey<Public>,
}

/// What may be signed with which key, by number.
#[derive(Default)]
struct Permits {
    /// Those that differ, with their keys.
    all: Vec<(Permit, BTreeSet<u16>)>,
    /// Keys that a server name chooses, in whatever store.
    for_names: BTreeSet<u16>,
}

/// How many keys go into one order.
const GRANTED: usize = 1000;

impl Permits {
    /// Puts keys under a permit. Returns the orders that tell a worker.
    fn grant(&mut self, permit: &Permit, keys: &BTreeSet<u16>) -> Vec<Vec<u8>> {
        let known = self.all.iter().position(|(one, _)| one == permit);
        let mut orders = Vec::new();
        let at = known.unwrap_or_else(|| {
            orders.push([&[order::PERMIT], &permit.to_bytes()[..]].concat());
            self.all.push((permit.clone(), BTreeSet::new()));
            self.all.len() - 1
        });
        let granted = &mut self.all[at].1;
        let new: Vec<u16> = keys.difference(granted).copied().collect();
        granted.extend(&new);
        orders.extend(Permits::grants(at, &new));
        orders
    }

    fn grants(at: usize, keys: &[u16]) -> impl Iterator<Item = Vec<u8>> {
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        keys.chunks(GRANTED).map(move |keys| {
            let numbers = std::iter::once(&at).chain(keys);
            let numbers = numbers.flat_map(|number| number.to_be_bytes());
            std::iter::once(order::GRANT).chain(numbers).collect()
        })
    }

    /// The orders that tell a new worker everything.
    fn orders(&self) -> impl Iterator<Item = Vec<u8>> {
        self.all
            .iter()
            .enumerate()
            .flat_map(|(at, (permit, keys))| {
                let keys: Vec<u16> = keys.iter().copied().collect();
                let permit = [&[order::PERMIT], &permit.to_bytes()[..]].concat();
                std::iter::once(permit).chain(Permits::grants(at, &keys).collect::<Vec<_>>())
            })
    }
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

/// How to make a worker that takes another's place.
pub struct Recipe {
    keys: Vec<Loaded>,
    permits: Vec<Vec<u8>>,
}

impl Recipe {
    /// Makes one.
    ///
    /// # Errors
    /// Out of processes, or a key cannot be loaded again.
    pub fn make(&self, master: &Master, meanwhile: &mut dyn Meanwhile) -> Result<Worker, Fail> {
        let mut worker = Worker::fork(master, meanwhile)?;
        let taught = self.teach(&mut worker, meanwhile);
        if taught.is_err() {
            worker.end();
        }
        taught.map(|()| worker)
    }

    fn teach(&self, worker: &mut Worker, meanwhile: &mut dyn Meanwhile) -> Result<(), Fail> {
        for key in &self.keys {
            let shown = crate::text::excerpt(key.path.as_bytes(), 300);
            let public = worker
                .load(&key.path, meanwhile)?
                .map_err(|why| Fail::temporary(format!("unable to load key: {shown}: {why}")))?;
            if !public.public_eq(&key.public) {
                return Err(Fail::temporary(format!(
                    "the key has changed since it was loaded: {shown}"
                )));
            }
        }
        for order in &self.permits {
            worker.tell(order, meanwhile)?;
        }
        worker.seal(meanwhile)?;
        Ok(())
    }
}

/// One process of a keyholder.
pub struct Worker {
    id: ProcessId,
    /// `None` while there is no process.
    control: Option<OwnedFd>,
    /// It signs, and answers no order.
    sealed: bool,
    /// When it was asked whether it lives, and has not answered.
    asked: Option<Instant>,
    last_asked: Instant,
    /// It got links that no question came with.
    unasked: bool,
    silence: Duration,
    retry: Instant,
    /// The failure to replace it was told.
    told: bool,
}

impl Worker {
    fn fork(master: &Master, meanwhile: &mut dyn Meanwhile) -> Result<Worker, Fail> {
        let (id, control) = master
            .fork(meanwhile)
            .map_err(Fail::unable("start a keyholder"))?;
        let now = Instant::now();
        Ok(Worker {
            id,
            control: Some(control),
            sealed: false,
            asked: None,
            last_asked: now,
            unasked: false,
            silence: SILENCE,
            retry: now,
            told: false,
        })
    }

    /// One order and its answer. The inner failure is the worker's own.
    fn ask(
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

    fn load(
        &self,
        path: &str,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Result<PKey<Public>, String>, Fail> {
        let public = self.ask(order::LOAD, path.as_bytes(), meanwhile)?;
        Ok(public.and_then(|der| {
            PKey::public_key_from_der(&der).map_err(|error| report::tls_reason(&error))
        }))
    }

    /// Tells it of a permit or a grant. One that signs already is only told.
    fn tell(&self, order: &[u8], meanwhile: &mut dyn Meanwhile) -> Result<(), Fail> {
        let [kind, rest @ ..] = order else {
            return Ok(());
        };
        if self.sealed {
            let unable = Fail::unable("talk to the keyholder");
            return match &self.control {
                Some(control) => parcel::give(control, order).map_err(unable),
                // Who takes its place hears everything.
                None => Ok(()),
            };
        }
        self.ask(*kind, rest, meanwhile)?.map_err(Fail::temporary)?;
        Ok(())
    }

    /// Returns what it could not give up.
    fn seal(&mut self, meanwhile: &mut dyn Meanwhile) -> Result<Vec<String>, Fail> {
        let missing = self.ask(order::SEAL, b"", meanwhile)?;
        let missing = missing.map_err(Fail::temporary)?;
        self.sealed = true;
        Ok(String::from_utf8_lossy(&missing)
            .lines()
            .map(str::to_owned)
            .collect())
    }
}

/// A keyholder while stores are loaded with its keys.
pub struct Loading<'a> {
    keyholder: &'a Keyholder,
    meanwhile: RefCell<&'a mut dyn Meanwhile>,
    told: bool,
}

impl<'a> Loading<'a> {
    /// Looks after others while it waits for the keyholder.
    pub fn new(keyholder: &'a Keyholder, meanwhile: &'a mut dyn Meanwhile) -> Loading<'a> {
        Loading {
            keyholder,
            meanwhile: RefCell::new(meanwhile),
            told: false,
        }
    }

    /// In a process that has no keyholder to talk to: the supervisor told it all.
    pub fn apart(keyholder: &'a Keyholder, meanwhile: &'a mut dyn Meanwhile) -> Loading<'a> {
        Loading {
            told: true,
            ..Loading::new(keyholder, meanwhile)
        }
    }

    /// As [`Meanwhile::pause`].
    ///
    /// # Errors
    /// As there.
    pub fn pause(&self) -> io::Result<()> {
        self.meanwhile.borrow_mut().pause()
    }

    /// Hears of keys that a server name chooses: they sign for every store that
    /// is made from now on.
    pub fn serve_names(&self, keys: &[KeyPlace]) {
        let numbers = self.keyholder.numbers(keys);
        self.keyholder
            .permits
            .borrow_mut()
            .for_names
            .extend(numbers);
    }
}

impl SignerSource for Loading<'_> {
    fn signer(&self, place: &KeyPlace, public: &PKeyRef<Public>) -> Result<Signer, Fail> {
        let meanwhile = &mut **self.meanwhile.borrow_mut();
        self.keyholder.signer(place, public, meanwhile)
    }

    fn permit(&self, keys: &[KeyPlace], permit: &Permit) -> Result<(), Fail> {
        if self.told {
            return Ok(());
        }
        let meanwhile = &mut **self.meanwhile.borrow_mut();
        self.keyholder.permit(keys, permit, meanwhile)
    }
}

impl Keyholder {
    fn signer(
        &self,
        place: &KeyPlace,
        public: &PKeyRef<Public>,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Signer, Fail> {
        let mut keys = self.keys.borrow_mut();
        let known = self.places.borrow().get(&place.path).copied();
        let number = if let Some(number) = known {
            number
        } else {
            let workers = self.workers.borrow();
            let worker = workers
                .first()
                .filter(|worker| !worker.sealed)
                .ok_or_else(|| {
                    let why = "no rule alone names this key";
                    Fail::temporary(format!("unable to load key: {place}: {why}"))
                })?;
            let key = worker
                .load(&place.path, meanwhile)?
                .map_err(|why| Fail::temporary(format!("unable to load key: {place}: {why}")))?;
            keys.push(Loaded {
                path: place.path.clone(),
                public: key,
            });
            let number = keys.len() - 1;
            let mut places = self.places.borrow_mut();
            places.insert(place.path.clone(), number);
            number
        };
        // A signer is made from the certificate's key, so libssl's own
        // comparison of the two would always hold.
        if !keys[number].public.public_eq(public) {
            return Err(Fail::temporary(format!(
                "key does not match certificate: {place}"
            )));
        }
        let number =
            u32::from(u16::try_from(number).map_err(|_| {
                Fail::temporary(format!("unable to load key: {place}: too many keys"))
            })?);
        provider::key(public, number).map_err(|error| {
            Fail::temporary(format!(
                "unable to load key: {place}: {}",
                report::tls_reason(&error)
            ))
        })
    }

    fn permit(
        &self,
        keys: &[KeyPlace],
        permit: &Permit,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<(), Fail> {
        let mut permits = self.permits.borrow_mut();
        let mut numbers = self.numbers(keys);
        numbers.extend(&permits.for_names);
        for order in permits.grant(permit, &numbers) {
            for worker in self.workers.borrow().iter() {
                worker.tell(&order, meanwhile)?;
            }
        }
        Ok(())
    }

    /// A keyholder that can load keys, and does not sign yet.
    ///
    /// # Errors
    /// Out of processes, memory or descriptors.
    pub fn open(master: &Master, meanwhile: &mut dyn Meanwhile) -> Result<Keyholder, Fail> {
        Ok(Keyholder {
            workers: RefCell::new(vec![Worker::fork(master, meanwhile)?]),
            keys: RefCell::default(),
            places: RefCell::default(),
            permits: RefCell::default(),
            links: HashMap::new(),
            spares: Spares::default(),
            sweep_at: SWEEP,
            awaited: false,
            missing: Vec::new(),
        })
    }

    fn numbers(&self, keys: &[KeyPlace]) -> BTreeSet<u16> {
        let places = self.places.borrow();
        keys.iter()
            .filter_map(|place| u16::try_from(*places.get(&place.path)?).ok())
            .collect()
    }

    /// Ends the loading: the workers give up their rights and sign.
    ///
    /// # Errors
    /// They cannot.
    pub fn seal(&mut self, master: &Master, meanwhile: &mut dyn Meanwhile) -> Result<(), Fail> {
        let slow =
            self.keys.get_mut().iter().any(
                |key| matches!(KeyKind::of(&key.public), KeyKind::Rsa(bits) | KeyKind::RsaPss(bits) if bits > QUICK_BITS),
            );
        let wanted = if slow {
            std::thread::available_parallelism().map_or(1, |count| count.get().min(WORKERS))
        } else {
            1
        };
        for worker in self.workers.get_mut() {
            self.missing = worker.seal(meanwhile)?;
        }
        while self.workers.get_mut().len() < wanted {
            let worker = self.recipe().make(master, meanwhile)?;
            self.workers.get_mut().push(worker);
        }
        Ok(())
    }

    /// What its workers could not give up here, for an administrator.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// How to make a worker with the same keys as the first had.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        Recipe {
            keys: self.keys.borrow().clone(),
            permits: self.permits.borrow().orders().collect(),
        }
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
        let workers = self.workers.get_mut();
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
    pub fn descriptors(&mut self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.workers
            .get_mut()
            .iter()
            .filter_map(|worker| worker.control.as_ref().map(|control| control.as_fd()))
    }

    /// When a worker is to be made, if one is missing.
    #[must_use]
    pub fn next_worker(&self) -> Option<Instant> {
        let workers = self.workers.borrow();
        let missing = workers.iter().filter(|worker| worker.control.is_none());
        missing.map(|worker| worker.retry).min()
    }

    /// When [`Keyholder::attend`] has work anyway.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let unsent = self.links.values().any(|held| !held.sent);
        let workers = self.workers.borrow();
        workers
            .iter()
            .filter_map(|worker| match (&worker.control, worker.asked) {
                (None, _) => None,
                (_, Some(asked)) => Some(asked + worker.silence),
                (_, None) => worker.next_question(self.awaited),
            })
            .chain(unsent.then(|| Instant::now() + FULL))
            .chain(self.spares.end())
            .min()
    }

    /// Has workers that outlived their master make new keys for tickets; the
    /// others hear from it.
    pub fn renew_tickets(&self) {
        for worker in self.workers.borrow().iter() {
            if let Some(control) = &worker.control {
                // One that does not take it is replaced, or ends.
                let _ = parcel::give(control, &[order::RENEW]);
            }
        }
    }

    /// Which worker another is to be made for now, if any.
    #[must_use]
    pub fn wanting(&self, now: Instant) -> Option<usize> {
        let workers = self.workers.borrow();
        workers
            .iter()
            .position(|worker| worker.control.is_none() && worker.retry <= now)
    }

    /// How many workers it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.workers.borrow().len()
    }

    /// Tries no worker in the place of one before that time.
    pub fn put_off(&mut self, at: usize, until: Instant) {
        if let Some(worker) = self.workers.get_mut().get_mut(at) {
            worker.retry = until;
        }
    }

    /// Puts a worker in another's place, or tries again later where there is
    /// none.
    pub fn install(&mut self, at: usize, made: Result<Worker, Fail>, report: &Report) {
        let Some(worker) = self.workers.get_mut().get_mut(at) else {
            return;
        };
        match made {
            Ok(mut new) => {
                // One that lives is of a master that has ended: nobody else
                // could end it, and its links go to the new one.
                worker.end();
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

    /// Looks after the workers; `awaited` tells whether handshakes go on. Returns
    /// at once; call it often. What it cannot
    /// do at once is asked for with [`Keyholder::wanting`].
    pub fn attend(&mut self, awaited: bool, report: &Report) {
        let now = Instant::now();
        self.awaited = awaited;
        self.drop_old_spares(now);
        for at in 0..self.workers.get_mut().len() {
            let worker = &mut self.workers.get_mut()[at];
            let silence = worker.silence;
            let verdict = worker.look(now, awaited);
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
            self.resend(at, now);
        }
    }

    /// A worker has none of its links any more.
    fn take_back(&mut self, at: usize) {
        for held in self.links.values_mut().filter(|held| held.worker == at) {
            held.sent = false;
        }
    }

    /// Links that the worker does not have.
    fn resend(&mut self, at: usize, now: Instant) {
        let worker = &mut self.workers.get_mut()[at];
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
    /// Hears it and asks it, as far as that needs no waiting.
    fn look(&mut self, now: Instant, awaited: bool) -> Health {
        let Some(control) = &self.control else {
            return Health::Absent;
        };
        let mut buffer = [0; 16];
        loop {
            match parcel::take(control, &mut buffer) {
                Ok(1..) => self.asked = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => {
                    self.control = None;
                    return Health::Ended;
                }
            }
        }
        if self.asked.is_some_and(|asked| now >= asked + self.silence) {
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
    fn end(&mut self) {
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
