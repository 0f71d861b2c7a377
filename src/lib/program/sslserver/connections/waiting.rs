//! Connections in plaintext whose programs may ask for TLS (`-n`): they have no engine
//! yet, and what it will be made of waits here.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use super::{AT_ONCE, Connection, ConnectionId, Connections, Part, Phase};
use crate::keyholder::LinkId;
use crate::program::sslserver::delayed::{EngineEnds, Terms};
use crate::program::sslserver::messages::{LineKind, Receiver};
use crate::sys::poll_set::PollSet;
use crate::sys::process::ProcessId;

/// How long until an engine that could not be started is tried again.
const REST: Duration = Duration::from_millis(200);

/// What an engine will be made of.
pub(in crate::program::sslserver) struct Waiting {
    pub kept: EngineEnds,
    /// `None` until the launcher has told.
    pub terms: Option<Terms>,
    /// What comes from the control socket is heard.
    heard: bool,
    /// Since when an engine is wanted that could not be started.
    pub asked: Option<Instant>,
}

impl Waiting {
    pub(super) fn new(kept: EngineEnds, controls: &PollSet, id: ConnectionId) -> Waiting {
        // Where that fails it is tried again when the launcher has told.
        let heard = controls.add(kept.control(), id).is_ok();
        Waiting {
            heard,
            ..Waiting::unheard(kept, None, None)
        }
    }

    /// One whose control socket nobody listens to.
    pub fn unheard(kept: EngineEnds, terms: Option<Terms>, asked: Option<Instant>) -> Waiting {
        Waiting {
            kept,
            terms,
            heard: false,
            asked,
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }
}

/// An engine that was started.
pub(in crate::program::sslserver) struct Begun {
    pub process: ProcessId,
    pub link: LinkId,
    pub messages: Receiver,
}

impl Connections<'_> {
    /// The launcher becomes the program, and sends nothing more.
    pub(super) fn wait_for_program(&mut self, id: ConnectionId, terms: Terms) {
        self.set_deadline(id, None);
        self.close_channel(id);
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        connection.phase = Phase::InPlaintext;
        if let Some(waiting) = &mut connection.waiting {
            waiting.terms = Some(terms);
            if waiting.heard {
                return;
            }
            waiting.heard = self.controls.add(waiting.kept.control(), id).is_ok();
            if !waiting.heard {
                // Nobody would hear it ask.
                waiting.asked = Some(Instant::now());
                self.asking.push(id);
            }
        }
    }

    /// Hears of control sockets: a program asks for TLS or has ended; or a launcher, which
    /// is heard of by its end. What the launcher has told comes first.
    pub fn hear_controls(&mut self) {
        for id in self.controls.ready() {
            self.hear_one(id, AT_ONCE);
            let Some(connection) = self.all.get_mut(&id) else {
                continue;
            };
            if connection.phase == Phase::Settling {
                if let Some(waiting) = &mut connection.waiting {
                    self.controls.remove(waiting.kept.control());
                    waiting.heard = false;
                }
            } else {
                self.asking.push(id);
            }
        }
    }

    /// What to wait for: something comes when [`Connections::hear_controls`] has work.
    pub fn controls(&self) -> BorrowedFd<'_> {
        self.controls.as_fd()
    }

    /// A connection whose program may have asked for TLS, and whose it is. It waits no
    /// more, unless it is [put back](Connections::put_back).
    pub fn asking(&mut self) -> Option<(ConnectionId, Waiting)> {
        while let Some(id) = self.asking.pop() {
            if let Some(waiting) = self.take_waiting(id) {
                return Some((id, waiting));
            }
        }
        None
    }

    /// Those that wait, whatever their programs do.
    pub fn all_waiting(&self) -> Vec<ConnectionId> {
        let waiting = self.all.iter().filter(|(_, one)| one.waiting.is_some());
        waiting.map(|(id, _)| *id).collect()
    }

    /// As [`Connections::asking`], for one of them.
    pub fn take_waiting(&mut self, id: ConnectionId) -> Option<Waiting> {
        let mut waiting = self.all.get_mut(&id)?.waiting.take()?;
        if std::mem::take(&mut waiting.heard) {
            self.controls.remove(waiting.kept.control());
        }
        Some(waiting)
    }

    /// It waits on: its program has said nothing.
    pub fn put_back(&mut self, id: ConnectionId, mut waiting: Waiting) {
        // It was there a moment ago: where it cannot enter now, the end of its program
        // is heard.
        waiting.heard = self.controls.add(waiting.kept.control(), id).is_ok();
        self.keep(id, waiting);
    }

    /// Its engine could not be started, and is tried again.
    pub fn put_off(&mut self, id: ConnectionId, waiting: Waiting) {
        self.keep(id, waiting);
        self.set_deadline(id, Some(Instant::now() + REST));
    }

    fn keep(&mut self, id: ConnectionId, waiting: Waiting) {
        if let Some(connection) = self.all.get_mut(&id) {
            connection.waiting = Some(waiting);
        }
    }

    /// Its program wants no TLS, or is gone: no engine is needed.
    pub fn stay_in_plaintext(&mut self, id: ConnectionId) {
        drop(self.take_waiting(id));
        // The lack of TLS must not look like TLS.
        self.log(
            id,
            LineKind::Ended,
            "in plaintext: the program did not ask for TLS",
        );
        self.end_if_over(id);
    }

    /// Its client cannot be served with the TLS that the program asked for.
    pub fn refuse(&mut self, id: ConnectionId, why: &str) {
        self.log(id, LineKind::Dropped, why);
        self.set_deadline(id, None);
        self.end_if_over(id);
    }

    /// The engine was started.
    pub fn engine_begun(&mut self, id: ConnectionId, begun: Begun) {
        self.close_channel(id);
        self.set_deadline(id, None);
        // As where a connection begins.
        let _ = self.poll_set.add(&begun.messages, id);
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        connection.phase = Phase::InPlaintext;
        connection.engine = Some(begun.process);
        connection.link = Some(begun.link);
        connection.messages = Some(begun.messages);
        self.processes.insert(begun.process, (id, Part::Engine));
        self.bound_engine(id);
    }

    /// The process that a connection's log is of, and its messages.
    pub fn launcher(&self, id: ConnectionId) -> Option<(ProcessId, Option<&Receiver>)> {
        let Connection {
            launcher, messages, ..
        } = self.all.get(&id)?;
        Some((*launcher, messages.as_ref()))
    }
}
