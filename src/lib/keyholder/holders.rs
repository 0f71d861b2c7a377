//! The keyholders of a server: that of the generation at work, and those of earlier
//! ones as long as handshakes of theirs go on. All are looked after in the same way.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::holder::{Keyholder, LinkId};
use super::loading::Recipe;
use super::worker::Worker;
use crate::report::{Fail, Report};

/// How many workers of earlier generations are looked after, so that descriptors
/// suffice: beyond it the oldest go on by themselves.
const RETIRED: usize = 8;

/// See the file's head.
pub struct Keyholders {
    /// That of the generation at work.
    pub current: Keyholder,
    /// The oldest first. Each has links.
    retired: Vec<Keyholder>,
}

/// Where a worker is missing.
#[derive(Clone, Copy, Debug)]
pub struct WorkerPlace {
    keyholder: u64,
    at: usize,
}

impl Keyholders {
    /// Those of a server that begins.
    #[must_use]
    pub fn new(current: Keyholder) -> Keyholders {
        Keyholders {
            current,
            retired: Vec::new(),
        }
    }

    /// Another serves new connections from now on.
    pub fn succeed(&mut self, next: Keyholder) {
        let mut old = std::mem::replace(&mut self.current, next);
        old.drop_spares();
        self.retired.push(old);
        self.forget_idle();
        let workers = |retired: &[Keyholder]| retired.iter().map(Keyholder::size).sum::<usize>();
        while workers(&self.retired) > RETIRED {
            self.retired.remove(0);
        }
    }

    fn forget_idle(&mut self) {
        self.retired.retain(Keyholder::has_links);
    }

    /// Nobody uses this link any more.
    pub fn done(&mut self, id: LinkId) {
        if self.current.done(id) || self.retired.is_empty() {
            return;
        }
        for keyholder in &mut self.retired {
            keyholder.done(id);
        }
        self.forget_idle();
    }

    fn all(&self) -> impl Iterator<Item = &Keyholder> {
        std::iter::once(&self.current).chain(&self.retired)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Keyholder> {
        std::iter::once(&mut self.current).chain(&mut self.retired)
    }

    /// What to wait for: something comes when [`Keyholders::attend`] has work.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all().flat_map(Keyholder::descriptors)
    }

    /// When [`Keyholders::attend`] has work anyway.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        self.all().filter_map(Keyholder::wake).min()
    }

    /// When a worker is to be made, if one is missing.
    #[must_use]
    pub fn next_worker(&self) -> Option<Instant> {
        self.all().filter_map(Keyholder::next_worker).min()
    }

    /// As [`Keyholder::renew_tickets`].
    pub fn renew_tickets(&self) {
        self.all().for_each(Keyholder::renew_tickets);
    }

    /// As [`Keyholder::attend`].
    pub fn attend(&mut self, awaited: bool, heard: bool, report: &Report) {
        for keyholder in self.all_mut() {
            keyholder.attend(awaited, heard, report);
        }
    }

    /// Where another worker is wanted now, if anywhere, and how to make it.
    #[must_use]
    pub fn wanting(&self, now: Instant) -> Option<(WorkerPlace, Recipe)> {
        self.all().find_map(|keyholder| {
            let at = keyholder.wanting(now)?;
            let place = WorkerPlace {
                keyholder: keyholder.number(),
                at,
            };
            Some((place, keyholder.recipe()))
        })
    }

    /// The places of all workers of the generation at work.
    pub fn places(&self) -> impl Iterator<Item = WorkerPlace> + use<> {
        let keyholder = self.current.number();
        (0..self.current.size()).map(move |at| WorkerPlace { keyholder, at })
    }

    fn of(&mut self, place: WorkerPlace) -> Option<&mut Keyholder> {
        self.all_mut()
            .find(|keyholder| keyholder.number() == place.keyholder)
    }

    /// Tries no worker in a place before that time.
    pub fn put_off(&mut self, place: WorkerPlace, until: Instant) {
        if let Some(keyholder) = self.of(place) {
            keyholder.put_off(place.at, until);
        }
    }

    /// Puts a worker in its place, or tries again later where there is none. What is left
    /// of an earlier generation whose keys are nowhere any more is given up. True where
    /// those of the one at work are not, so that only a reload helps.
    #[must_use]
    pub fn install(
        &mut self,
        place: WorkerPlace,
        made: Result<Worker, Fail>,
        report: &Report,
    ) -> bool {
        let failed = made.is_err();
        // Its handshakes may have ended meanwhile, and it with them.
        let Some(keyholder) = self.of(place) else {
            return false;
        };
        keyholder.install(place.at, made, report);
        if !failed || !keyholder.keys().have_changed() {
            return false;
        }
        self.retired.retain(|one| one.number() != place.keyholder);
        self.current.number() == place.keyholder
    }
}
