//! Reloading: changed files are noticed, and the next generation takes the place of
//! the one that serves if all that served before can be served again.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::meanwhile::Serving;
use crate::program::sslserver::generation::Generation;
use crate::watch::Watch;

/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// Notices changed files by itself, at a connection, once a second at most.
    pub(super) fn look_at_files(&mut self) {
        let now = Instant::now();
        if self.at_work || now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        self.wants_reload |= self.watch.has_changed();
    }

    /// Loads the next generation beside this one, and swaps it in if all that
    /// served before can be served again.
    pub(super) fn reload(&mut self) {
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
