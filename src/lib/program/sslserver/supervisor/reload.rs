//! Reloading: changed files are noticed, and the next generation takes the place of
//! the one that serves if all that served before can be served again.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::meanwhile::Serving;
use crate::keyholder::{KeyTable, Keyholder, Loading};
use crate::program::sslserver::generation::Generation;
use crate::report::Fail;
use crate::sys::memory::{Compact, shortage};
use crate::watch::{Changed, Watch};

/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// How long until what could not be loaded is tried again, though no file
/// changed: it may have been a process or memory that was missing. A load that
/// takes long is given more time than it takes.
const RETRY: Duration = Duration::from_secs(5);
const REST: u32 = 10;
/// How long clients may wait for signatures that only make forks cheaper: the new
/// keyholder may be killed or stopped at that very moment.
const REHEARSAL: Duration = Duration::from_millis(250);
/// How often a load that failed is tried again at once, whose files changed
/// under it.
const AGAIN: usize = 2;

impl Supervisor<'_> {
    /// Notices changed files by itself, at a connection, once a second at most.
    pub(super) fn look_at_files(&mut self) {
        let now = Instant::now();
        if self.at_work || now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        let again = self.complained.is_some() && now >= self.try_again;
        self.wants_reload |= again || self.watch.changed() != Changed::No;
    }

    /// The next generation, and a keyholder for it where the one at work does not have
    /// all that it wants, and nothing else.
    fn load_next(
        &mut self,
        anew: bool,
        watch: &mut Watch,
    ) -> Result<(Generation, Option<Keyholder>), Fail> {
        let (setup, master) = (self.setup, Rc::clone(&self.master));
        let before = if anew {
            (Rc::default(), KeyTable::default())
        } else {
            (
                self.generation.loaded(),
                self.keyholders.current.keys().clone(),
            )
        };
        let mut serving = Serving::new(self);
        let keys = Loading::new(&master, before.1, &mut serving);
        let next = Generation::load(setup, &keys, before.0, watch);
        let wanted = keys.wanted();
        drop(serving);
        let next = next?;
        if let Some(why) = next.lost_rule(&self.generation) {
            return Err(why);
        }
        if !anew && wanted.is_held_by(&self.keyholders.current) {
            return Ok((next, None));
        }
        let made = wanted.keyholder(&master, &mut Serving::new(self))?;
        Ok((next, Some(made)))
    }

    /// As [`Supervisor::load_next`], again where files changed under it: a renewal in
    /// between has the certificate of before it, and the key of after.
    fn load_whole(
        &mut self,
        anew: bool,
        watch: &mut Watch,
    ) -> Result<(Generation, Option<Keyholder>), Fail> {
        let mut loaded = shortage::sufficing(|| self.load_next(anew, watch));
        for _ in 0..AGAIN {
            // Another master comes first where this one hangs.
            let vain = self.is_over() || self.master.is_silent();
            if loaded.is_ok() || vain || watch.changed() == Changed::No {
                break;
            }
            *watch = Watch::default();
            loaded = shortage::sufficing(|| self.load_next(anew, watch));
        }
        loaded
    }

    /// Serves with the next generation from now on.
    fn serve_with(&mut self, next: Generation, keyholder: Option<Keyholder>) {
        let report = &self.setup.report;
        next.tell_changes(&self.generation, report);
        next.warn(Some(&self.generation), report);
        self.generation = next;
        if let Some(mut keyholder) = keyholder {
            self.generation.rehearse(&mut keyholder, REHEARSAL);
            self.keyholders.succeed(keyholder);
        }
    }

    /// Loads the next generation beside this one, and swaps it in if all that
    /// served before can be served again.
    pub(super) fn reload(&mut self) {
        let report = &self.setup.report;
        let begun = Instant::now();
        // What is loaded next has the gaps, and what it replaces leaves others.
        self.heap = Compact::default();
        let before = self.generation.watch.anew();
        // HUP has everything read again, changed or not.
        let anew = std::mem::take(&mut self.wants_all);
        let mut watch = Watch::default();
        let loaded = self.load_whole(anew, &mut watch);
        self.end_silent_master();
        if self.is_over() {
            return;
        }
        let failed = loaded
            .map(|(next, keyholder)| self.serve_with(next, keyholder))
            .err();
        self.compact();
        if failed.is_some() {
            // It may have failed before it came to a file that the last
            // generation read: that stays watched.
            watch.extend(before);
        }
        self.watch = watch;
        if let Some(why) = failed.as_ref().filter(|_| failed != self.complained) {
            report.warning(format_args!(
                "unable to reload, the old material keeps serving: {why}"
            ));
        }
        // What was asked for stands until it is done.
        self.wants_all |= anew && failed.is_some();
        self.complained = failed;
        self.try_again = Instant::now() + RETRY.max(begun.elapsed() * REST);
    }
}
