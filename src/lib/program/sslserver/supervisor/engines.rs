//! Engines of connections in plaintext (`-n`): started when their programs ask for TLS.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::keyholder::Keyholder;
use crate::program::sslserver::Setup;
use crate::program::sslserver::connections::{Begun, ConnectionId, Waiting};
use crate::program::sslserver::delayed::{ControlUse, EngineEnds, Terms};
use crate::program::sslserver::engine::Engine;
use crate::program::sslserver::generation::{Generation, Material};
use crate::program::sslserver::messages::{
    self, LineKind, MESSAGE_LIMIT, Message, Receiver, Sender,
};
use crate::report::{Fail, TEMPORARY};
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, Forked, ProcessId};
use crate::sys::signal;

/// An engine to be, as its process finds it.
struct EngineStart<'a> {
    setup: &'a Setup,
    generation: &'a Generation,
    keyholder: &'a Keyholder,
    supervisor: &'a Sender,
    launcher: ProcessId,
    /// What the launcher told; or where it will.
    terms: Option<&'a Terms>,
    messages: Option<&'a Receiver>,
}

impl Supervisor<'_> {
    /// Starts the engines that programs ask for.
    pub(super) fn begin_engines(&mut self) {
        let mut open = Vec::new();
        while let Some((id, waiting)) = self.connections.asking() {
            match waiting.kept.control_use() {
                ControlUse::Open if waiting.asked.is_none() => open.push((id, waiting)),
                ControlUse::Plaintext => {
                    drop(waiting);
                    self.connections.stay_in_plaintext(id);
                }
                ControlUse::Open | ControlUse::Tls => {
                    let limit = self.setup.options.handshake_seconds;
                    self.begin_engine(id, waiting, limit);
                }
            }
        }
        for (id, waiting) in open {
            self.connections.put_back(id, waiting);
        }
    }

    /// Starts all of them: nobody will be there when their programs ask.
    pub(super) fn begin_all_engines(&mut self) {
        for id in self.connections.all_waiting() {
            if let Some(waiting) = self.connections.take_waiting(id) {
                self.begin_engine(id, waiting, 0);
            }
        }
    }

    /// Starts one, which may have its signature for so many seconds (0: for ever); tries
    /// again later where the system lacks something.
    fn begin_engine(&mut self, id: ConnectionId, waiting: Waiting, seconds: u32) {
        let Waiting {
            kept, terms, asked, ..
        } = waiting;
        let again = |kept, terms| Waiting::unheard(kept, terms, asked);
        if let Some(settings) = terms.as_ref().and_then(|terms| terms.settings.as_ref()) {
            // Where that fails, the engine finds out why.
            let _ = self
                .generation
                .mix(self.setup, &mut self.keyholders.current, settings);
        }
        let made =
            messages::pair().and_then(|ends| Ok((ends, self.keyholders.current.link(seconds)?)));
        let ((messages, sender), (link, link_end)) = match made {
            Ok(made) => made,
            Err(error) => return self.put_off(id, again(kept, terms), error),
        };
        let Some((launcher, told)) = self.connections.launcher(id) else {
            return self.keyholders.done(link);
        };
        let engine = EngineStart {
            setup: self.setup,
            generation: &self.generation,
            keyholder: &self.keyholders.current,
            supervisor: &sender,
            launcher,
            terms: terms.as_ref(),
            messages: told,
        };
        let mut place = Some((kept, link_end));
        let forked = process::spawn(|forked| match place.take() {
            Some((kept, link)) => engine.run(&forked, kept, link),
            None => TEMPORARY,
        });
        match (forked, place) {
            (Ok(process), _) => self.connections.engine_begun(
                id,
                Begun {
                    process,
                    link,
                    messages,
                },
            ),
            (Err(error), Some((kept, _))) => {
                self.keyholders.done(link);
                self.put_off(id, again(kept, terms), error);
            }
            // Only the child takes it.
            (Err(_), None) => self.keyholders.done(link),
        }
    }

    fn put_off(&mut self, id: ConnectionId, mut waiting: Waiting, error: io::Error) {
        let now = Instant::now();
        let since = waiting.asked.unwrap_or(now);
        let limit = Duration::from_secs(self.setup.options.handshake_seconds.into());
        if self.ending || now.duration_since(since) >= limit {
            waiting.kept.hang_up();
            let why = Fail::unable("fork")(error);
            return self.connections.refuse(id, &why.to_string());
        }
        waiting.asked = Some(since);
        self.connections.put_off(id, waiting);
    }
}

impl EngineStart<'_> {
    /// The whole process.
    fn run(&self, forked: &Forked, kept: EngineEnds, link: OwnedFd) -> u8 {
        signal::ignore_others();
        let told = match self.terms {
            Some(_) => None,
            None => self.await_terms(),
        };
        let Some(terms) = self.terms.or(told.as_ref()) else {
            // The launcher ended, and said why.
            return 0;
        };
        let material = match self.material(terms) {
            Ok(material) => material,
            Err(why) => {
                let why = why.to_string();
                self.supervisor.tell(&Message::Line(LineKind::Dropped, why));
                kept.hang_up();
                return TEMPORARY;
            }
        };
        let engine = Engine {
            setup: self.setup,
            generation: self.generation,
            material: &material,
            host: terms.host.as_deref(),
            launcher: self.launcher,
            supervisor: self.supervisor,
        };
        engine.run(forked, kept.ends(link))
    }

    /// What the launcher tells a supervisor that has ended meanwhile.
    fn await_terms(&self) -> Option<Terms> {
        let messages = self.messages?;
        let mut buffer = Box::new([0; MESSAGE_LIMIT]);
        loop {
            poll::wait(&mut [(messages.as_fd(), Ready::READ)], None).ok()?;
            match messages.next(&mut buffer).ok()? {
                Some(Message::Plaintext(terms)) => return Some(terms),
                // Behind the supervisor's end nobody counts.
                Some(Message::Admission(_, limit)) if limit > 0 => messages.answer(true),
                Some(Message::Store(_)) => messages.answer(false),
                Some(Message::Admission(..)) | None => {}
                Some(_) => return None,
            }
        }
    }

    fn material(&self, terms: &Terms) -> Result<Material, Fail> {
        let settings = terms.settings.as_ref().unwrap_or(&self.setup.settings);
        match self.generation.store(settings) {
            Some(found) => found.map_err(Fail::clone),
            None => self
                .generation
                .mixed_store(self.setup, self.keyholder, settings),
        }
    }
}
