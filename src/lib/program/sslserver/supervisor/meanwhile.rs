//! Serving clients while something longer is at work: the supervisor waits for
//! nothing but its poll.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::keyholder::Meanwhile;
use crate::sys::poll::{self, Ready};

/// How long a key master may take to fork, before another takes its place.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a work may last before others have their turn, and how long then
/// until their next.
const QUICK: Duration = Duration::from_millis(100);
const SLICE: Duration = Duration::from_millis(20);

/// Serves clients while something longer is at work.
pub(super) struct Serving<'s, 'a> {
    supervisor: &'s mut Supervisor<'a>,
    begun: Instant,
    last: Instant,
}

impl<'s, 'a> Serving<'s, 'a> {
    pub fn new(supervisor: &'s mut Supervisor<'a>) -> Self {
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
        if self.supervisor.is_over() {
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
        if poll::one(on, Ready::READ, quick)?.read {
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
