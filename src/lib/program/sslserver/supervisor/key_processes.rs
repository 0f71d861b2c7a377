//! The care of key master and keyholders: those that ended or do not answer are
//! replaced, while clients are served.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::meanwhile::{PATIENCE, Serving};
use crate::keyholder::{Master, Recipe, Worker};
use crate::report::Fail;
use crate::sys::process;

/// How long until another key master is tried, after one that could not start.
const RETRY: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    pub(super) fn replace_workers(&mut self) {
        while let Some((place, recipe)) = self.keyholders.wanting(Instant::now()) {
            if let Some(until) = self.next_master {
                self.keyholders.put_off(place, until);
                continue;
            }
            let made = self.make_worker(&recipe);
            if self.is_over() {
                return;
            }
            let report = &self.setup.report;
            // Where its key is nowhere any more, who comes now is served with the next,
            // and waits for no connection that would have it noticed.
            self.wants_reload |= self.keyholders.install(place, made, report);
        }
    }

    fn make_worker(&mut self, recipe: &Recipe) -> Result<Worker, Fail> {
        let master = Rc::clone(&self.master);
        let made = recipe.make(&master, &mut Serving::new(self));
        self.end_silent_master();
        made
    }

    /// Ends a master that did not do what it was asked for: when it has ended,
    /// another is started.
    pub(super) fn end_silent_master(&self) {
        if self.master.is_silent() && self.next_master.is_none() && !self.is_over() {
            let id = self.master.id();
            self.setup.report.warning(format_args!(
                "key master {id} did not answer for {} seconds, and was killed",
                PATIENCE.as_secs()
            ));
            process::kill(id);
        }
    }

    /// Puts another master in the place of one that ended. It has no password:
    /// keys that need one stay with the keyholder that has them.
    pub(super) fn restore_master(&mut self) {
        let report = &self.setup.report;
        let started = Master::start(
            *report,
            None,
            self.master.ticket_life(),
            &mut Serving::new(self),
        );
        let master = match started {
            _ if self.is_over() => return,
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
            Err(_) if self.is_over() => {}
            // A reload brings the keys that are there now, or says why not.
            Err(_) if self.keyholders.current.keys().have_changed() => {
                report.warning("a new key master was started");
                self.wants_reload = true;
            }
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
        for place in self.keyholders.places() {
            let made = self.make_worker(&self.keyholders.current.recipe())?;
            let report = &self.setup.report;
            self.wants_reload |= self.keyholders.install(place, Ok(made), report);
        }
        Ok(())
    }
}
