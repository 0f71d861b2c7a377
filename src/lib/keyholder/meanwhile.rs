//! Waiting for another process of ours, by one that may have others to look
//! after meanwhile.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::sys::poll::{self, Ready};

/// What is done while something is waited for.
pub trait Meanwhile {
    /// Waits until this descriptor has something to read, or until the deadline,
    /// which is no error.
    ///
    /// # Errors
    /// As poll(2); [`io::ErrorKind::Interrupted`] where all that is wanted now is
    /// an end.
    fn wait(&mut self, on: BorrowedFd<'_>, deadline: Instant) -> io::Result<()>;

    /// A good moment to look after others: to be called between long steps.
    ///
    /// # Errors
    /// As [`Meanwhile::wait`].
    fn pause(&mut self) -> io::Result<()>;

    /// How long a process that only forks may take.
    fn patience(&self) -> Duration;
}

/// Nobody else is to be looked after: at the start.
pub struct Alone;

impl Meanwhile for Alone {
    fn wait(&mut self, on: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
        poll::wait(&mut [(on, Ready::READ)], Some(deadline))
    }

    fn pause(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}
