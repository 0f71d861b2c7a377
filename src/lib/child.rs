//! Becoming the program: descriptors, user, signals, environment, exec.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::sys::user::Identity;
use crate::sys::{fd, signal};

/// A program about to be run in place of this process.
pub struct Child<'a> {
    /// The program and its arguments.
    pub words: &'a [OsString],
    /// Its environment, whole.
    pub environment: BTreeMap<OsString, OsString>,
    /// Whom it runs as; `None` leaves that as it is.
    pub identity: Option<&'a Identity>,
    /// Descriptors, and the numbers under which the program finds them. No
    /// number may be that of another descriptor of the list.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
}

impl Child<'_> {
    /// Becomes the program. Returns only with the reason why not.
    #[must_use]
    pub fn exec(self) -> Unable {
        // Out of the way of every target first, then into place.
        let highest = self
            .descriptors
            .iter()
            .map(|(_, number)| *number)
            .max()
            .unwrap_or(2);
        for (from, number) in self.descriptors {
            let placed = fd::duplicate_above(&from, highest + 1).and_then(|copy| {
                drop(from);
                fd::place(copy, number)
            });
            if let Err(error) = placed {
                return Unable::Prepare("set up descriptors", error);
            }
        }
        if let Some(identity) = self.identity
            && let Err(error) = identity.assume()
        {
            return Unable::Prepare("change user", error);
        }
        signal::reset();
        let Some((program, arguments)) = self.words.split_first() else {
            return Unable::Run(String::new(), io::ErrorKind::NotFound.into());
        };
        let error = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.environment)
            .exec();
        let name = crate::text::excerpt(program.as_encoded_bytes(), 200);
        Unable::Run(name, error)
    }
}

/// Why this process did not become the program.
#[derive(Debug)]
pub enum Unable {
    /// A step before.
    Prepare(&'static str, io::Error),
    /// The program itself.
    Run(String, io::Error),
}

/// `unable to run prog: no such file or directory`.
impl std::fmt::Display for Unable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unable::Prepare(step, error) => {
                write!(out, "unable to {step}: {}", crate::report::reason(error))
            }
            Unable::Run(name, error) => write!(
                out,
                "unable to run {name}: {}",
                crate::report::reason(error)
            ),
        }
    }
}
