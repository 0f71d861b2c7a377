//! The supervisor's end of one process of a keyholder: what it is told, and whether
//! it lives.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use openssl::pkey::{PKey, Public};

use super::master::{Master, PATIENCE, receive};
use super::meanwhile::Meanwhile;
use super::process::{answer, order};
use crate::report::Fail;
use crate::sys::parcel;
use crate::sys::process::{self, ProcessId};

/// How often a worker that gets links is asked whether it lives.
const QUESTION: Duration = Duration::from_millis(250);
/// How often one is asked that gets none, but has handshakes to finish.
const AWAITED: Duration = Duration::from_secs(1);
/// How long it may take to answer, at first; a machine that is slower than that
/// gets twice the time after each replacement, up to the last.
const SILENCE: Duration = Duration::from_millis(500);
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(8);

/// A connection's link, as a worker gets it.
pub(super) struct WorkerLink {
    pub(super) socket: OwnedFd,
    pub(super) worker: usize,
    pub(super) end: Option<Instant>,
    pub(super) sent: bool,
}

/// Why an order was not carried out.
pub(super) enum NotDone {
    /// The process could not.
    Unable(Fail),
    /// There was no talking to it.
    Lost(Fail),
}

impl From<NotDone> for Fail {
    fn from(why: NotDone) -> Fail {
        match why {
            NotDone::Unable(why) | NotDone::Lost(why) => why,
        }
    }
}

/// One process of a keyholder.
pub struct Worker {
    pub(super) id: ProcessId,
    /// `None` while there is no process.
    pub(super) control: Option<OwnedFd>,
    /// When it was asked whether it lives, and has not answered.
    pub(super) asked: Option<Instant>,
    pub(super) last_asked: Instant,
    /// It got links that no question came with.
    pub(super) unasked: bool,
    pub(super) silence: Duration,
    pub(super) retry: Instant,
    /// The failure to replace it was told.
    pub(super) told: bool,
    /// How many of the orders that say what may be signed it was told.
    pub(super) learned: usize,
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

    /// One order and its answer.
    fn ask(
        &self,
        order: u8,
        text: &[u8],
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Vec<u8>, NotDone> {
        let exchange = |control| {
            parcel::send(control, &[&[order], text].concat())?;
            receive(control, PATIENCE, meanwhile)
        };
        let control = self.control.as_ref();
        let reply = control
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
            .and_then(exchange)
            .map_err(|why| NotDone::Lost(Fail::unable("talk to the keyholder")(why)))?;
        match reply.split_first() {
            Some((&answer::ERROR, why)) => Err(NotDone::Unable(
                String::from_utf8_lossy(why).into_owned().into(),
            )),
            Some((_, rest)) => Ok(rest.to_vec()),
            None => Err(NotDone::Lost(Fail::temporary(
                "the keyholder ended while it was started",
            ))),
        }
    }

    /// Has it load a key under a number.
    pub(super) fn load(
        &self,
        number: u16,
        path: &Path,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<PKey<Public>, NotDone> {
        let order = [&number.to_be_bytes(), path.as_os_str().as_bytes()].concat();
        let public = self.ask(order::LOAD, &order, meanwhile)?;
        PKey::public_key_from_der(&public).map_err(|why| NotDone::Unable(why.into()))
    }

    /// Has it learn what may be signed.
    pub(super) fn learn(
        &mut self,
        orders: &[Vec<u8>],
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<(), Fail> {
        for order in orders {
            if let [kind, rest @ ..] = &**order {
                self.ask(*kind, rest, meanwhile)?;
            }
        }
        self.learned = orders.len();
        Ok(())
    }

    /// Tells one that signs already what it does not know of these orders.
    pub(super) fn catch_up(&mut self, orders: &[Vec<u8>]) -> Result<(), Fail> {
        // Who takes the place of one that is gone hears everything.
        let Some(control) = &self.control else {
            return Ok(());
        };
        for order in &orders[self.learned.min(orders.len())..] {
            parcel::send(control, order).map_err(Fail::unable("talk to the keyholder"))?;
            self.learned += 1;
        }
        Ok(())
    }

    /// Returns what it could not give up.
    pub(super) fn seal(&self, meanwhile: &mut dyn Meanwhile) -> Result<Vec<String>, Fail> {
        let missing = self.ask(order::SEAL, b"", meanwhile)?;
        Ok(String::from_utf8_lossy(&missing)
            .lines()
            .map(str::to_owned)
            .collect())
    }
}

/// How a worker is.
pub(super) enum Health {
    Sound,
    Ended,
    Silent,
    Absent,
}

impl Worker {
    /// Hears it, where it may have something to tell, and asks it, as far as that
    /// needs no waiting.
    pub(super) fn look(&mut self, now: Instant, awaited: bool, heard: bool) -> Health {
        let Some(control) = &self.control else {
            return Health::Absent;
        };
        let overdue = |asked: Option<Instant>, silence| asked.is_some_and(|at| now >= at + silence);
        let mut buffer = [0; 16];
        // Its answer may have come since the wait.
        while heard || overdue(self.asked, self.silence) {
            match parcel::receive(control, &mut buffer) {
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
            let _ = parcel::send(control, &[order::PING]);
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
    pub(super) fn next_question(&self, awaited: bool) -> Option<Instant> {
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
    pub(super) fn send(&mut self, held: &mut WorkerLink, signatures: u8, now: Instant) {
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
        if parcel::send_with(control, &message, held.socket.as_fd()).is_err() {
            // Whatever it is: it is tried again, and a worker that is gone is
            // found out at the next look.
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
