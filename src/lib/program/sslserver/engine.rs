//! The engine: the only process that reads the client's bytes. It gives up all
//! that it can, makes the handshake, and relays until the connection ends.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::ssl::Ssl;

use super::generation::{Generation, Material};
use super::messages::{LineKind, Message, Sender};
use super::{Setup, engine_answer};
use crate::control::{self, TlsCommand};
use crate::handshake::{self, Session, Side};
use crate::keyholder;
use crate::relay::{Ending, Relay};
use crate::report::{self, Fail, NO_MEMORY, TEMPORARY};
use crate::session::{Account, Role};
use crate::settings::Filter;
use crate::store::KeyKind;
use crate::store::server;
use crate::sys::channel::Channel;
use crate::sys::memory;
use crate::sys::process::{self, Forked, ProcessId};
use crate::sys::sandbox::Confinement;
#[cfg(feature = "internals")]
use crate::taken_over;
use crate::text;
use crate::trust::{self, Fault, Name, Reference, Refusal};

/// How much heap a handshake takes, in bytes.
const HEAP: usize = 96 * 1024;

/// The descriptors of an engine.
pub(super) struct Ends {
    pub client: TcpStream,
    pub control: OwnedFd,
    pub program: Channel,
    /// To the keyholder.
    pub link: OwnedFd,
}

/// What an engine knows.
pub(super) struct Engine<'a> {
    pub setup: &'a Setup,
    pub generation: &'a Generation,
    pub material: &'a Material,
    /// The name of the client's host.
    pub host: Option<&'a [u8]>,
    /// The process that becomes the program, and that the log tells of.
    pub launcher: ProcessId,
    pub supervisor: &'a Sender,
}

impl Engine<'_> {
    /// The whole process: serves one client. Returns its exit code.
    pub fn run(&self, forked: &Forked, ends: Ends) -> u8 {
        let delayed = self.setup.options.delayed;
        #[cfg(feature = "internals")]
        taken_over::act(taken_over::Moment::Begun);
        if !delayed {
            // Before anything that could end it.
            self.supervisor.tell(&Message::Engine(process::own_id()));
        }
        report::prepare_last_code(NO_MEMORY);
        memory::populate_heap(HEAP);
        process::name("engine");
        // The log is not among them: whoever holds a descriptor of it could write
        // lines of others'.
        let mut kept = vec![
            ends.client.as_fd(),
            ends.control.as_fd(),
            ends.link.as_fd(),
            self.supervisor.as_fd(),
        ];
        kept.extend(ends.program.descriptors());
        kept.extend(self.setup.sandbox.descriptor());
        forked.close_all_but(&kept);
        // Under `-n` the program has the socket too: closing ours would not end the
        // connection. A supervisor that may open nothing more leaves room only now.
        let plain = delayed.then(|| ends.client.try_clone()).transpose();
        if let Ok(Some(plain)) = &plain {
            kept.push(plain.as_fd());
        }
        let highest = kept.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(2);
        let confined = self.give_up_rights(forked, highest);
        #[cfg(feature = "internals")]
        if confined.is_ok() {
            let reach = taken_over::Reach {
                keyholder: ends.link.as_fd(),
                supervisor: self.supervisor.as_fd(),
            };
            taken_over::act(taken_over::Moment::Confined(Some(reach)));
        }
        let Ends {
            client,
            control,
            program,
            link,
        } = ends;
        let mut control = Some(control);
        let served = confined
            .and_then(|()| plain.map_err(Fail::unable("set up descriptors")))
            .and_then(|plain| {
                let Some(command) = self.wait_for_start(control.as_ref())? else {
                    self.tell_plaintext();
                    return Ok(());
                };
                self.serve((client, link), program, plain, command, &mut control)
            });
        let code = match served {
            Ok(()) => 0,
            Err(failure) => {
                self.drop_connection(failure);
                TEMPORARY
            }
        };
        // Its other side ends with it, which is told behind why.
        control.iter().for_each(control::end);
        code
    }

    /// Has the supervisor write a line, where it would be written at all.
    fn log(&self, kind: LineKind, text: impl fmt::Display) {
        if self.setup.report.verbosity >= kind.level() {
            self.supervisor.tell(&Message::Line(kind, text.to_string()));
        }
    }

    fn drop_connection(&self, why: impl fmt::Display) {
        self.log(LineKind::Dropped, why);
    }

    /// `highest` is the number of the last descriptor.
    fn give_up_rights(&self, forked: &Forked, highest: RawFd) -> Result<(), Fail> {
        let jail = &self.material.store.jail;
        jail.enter(self.setup.powers)?;
        let confinement = Confinement {
            filter: self.material.store.filter != Filter::Off,
            highest,
        };
        let sandbox = &self.setup.sandbox;
        sandbox
            .take_on_in(forked, confinement)
            .map_err(Fail::unable("confine the TLS process"))
    }

    /// Under `-n`, sleeps until the program asks.
    fn wait_for_start(&self, control: Option<&OwnedFd>) -> Result<Option<TlsCommand>, Fail> {
        let Some(control) = control.filter(|_| self.setup.options.delayed) else {
            return Ok(Some(TlsCommand {
                answer: true,
                drop_replies: 0,
            }));
        };
        let command = control::wait_for_start(control)?;
        if command.is_some() {
            self.supervisor.tell(&Message::Begun);
        }
        Ok(command)
    }

    /// `control` is taken where TLS has begun.
    fn serve(
        &self,
        (client, link): (TcpStream, OwnedFd),
        program: Channel,
        plain: Option<TcpStream>,
        command: TlsCommand,
        control: &mut Option<OwnedFd>,
    ) -> Result<(), Fail> {
        let session = self.handshake(client, link).inspect_err(|_| {
            if let Some(plain) = &plain {
                let _ = plain.shutdown(Shutdown::Both);
            }
        })?;
        let full = self.setup.options.common.full;
        let account = Account {
            ssl: session.ssl(),
            role: Role::Server,
            verdict: trust::verdict(session.ssl()).map_err(|refusal| self.untrusted(&refusal))?,
            own_chain: if full { self.own_chain(&session) } else { &[] },
        };
        if self.setup.report.verbosity >= LineKind::Tls.level() {
            let line = account.line(self.launcher);
            let (_, fields) = line.split_once(" version=").unwrap_or_default();
            self.log(LineKind::Tls, format_args!("version={fields}"));
        }
        self.supervisor.tell(&Message::Over);
        let variables = account.variables(full);
        if let Some(control) = control.take() {
            if command.answer {
                engine_answer::tell(&control, &variables);
            }
            control::end(&control);
        }
        let mut relay = Relay::new(session, program, self.setup.idle)
            .map_err(Fail::unable("start the relay"))?;
        if !self.setup.options.delayed {
            relay.begin_with(self.setup.options.banner.as_encoded_bytes());
        }
        relay.drop_replies(command.drop_replies);
        self.tell(&relay.run());
        #[cfg(feature = "internals")]
        taken_over::act(taken_over::Moment::Done);
        // The process ends now: taking the session apart would be for nothing.
        std::mem::forget(relay);
        if let Some(plain) = plain {
            let _ = plain.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    fn handshake(&self, client: TcpStream, link: OwnedFd) -> Result<Session, Fail> {
        let mut ssl = Ssl::new(&self.material.store.context)?;
        ssl.set_accept_state();
        let expectation = Arc::clone(&self.material.store.expectation);
        let names = self.host().map(Name::new).into_iter().collect();
        trust::expect(&mut ssl, expectation, names)?;
        if let Some(chooser) = self.generation.chooser(self.material) {
            server::choose_by(&mut ssl, chooser)?;
        }
        let kinds: Vec<KeyKind> = self
            .material
            .store
            .certificates
            .iter()
            .map(|certificate| certificate.kind)
            .collect();
        let side = Side {
            kinds: &kinds,
            versions: self.material.store.versions,
        };
        let limit = Duration::from_secs(self.setup.options.handshake_seconds.into());
        keyholder::link::open(link, Instant::now() + limit);
        let session = handshake::perform(ssl, client, limit, side);
        let unsigned = keyholder::link::close();
        session.map_err(|failure| match (unsigned, failure) {
            (Some(why), _) => why,
            (None, handshake::HandshakeFailure::Certificate(refusal, alert)) => {
                let why = self.untrusted(&refusal);
                match alert {
                    Some(alert) => format!("{why}; {alert}").into(),
                    None => why,
                }
            }
            (None, handshake::HandshakeFailure::Name(name, alert)) => {
                match self.generation.name_refusal(&name) {
                    Some(why) => format!("{why}; {alert}").into(),
                    None => alert.into(),
                }
            }
            (None, other) => other.to_string().into(),
        })
    }

    /// The client's host, as `-z` looks for it in the certificate.
    fn host(&self) -> Option<Reference> {
        Reference::host_name(self.host?)
    }

    /// Why a client's certificate will not do.
    fn untrusted(&self, refusal: &Refusal) -> Fail {
        let told = match (refusal.fault, self.host()) {
            (Fault::Name(_), Some(host)) => Refusal {
                reason: format!("it does not name {host}"),
                ..refusal.clone()
            },
            (Fault::Name(_), None) => Refusal {
                reason: "the client's host has no name to match".to_owned(),
                ..refusal.clone()
            },
            _ => refusal.clone(),
        };
        // Which of several stores judged it is not known any more.
        let alone = self.generation.mixed().is_empty();
        let pins = &self.material.store.expectation.pins;
        let pinned = if alone && !pins.is_empty() && refusal.is_of_a_stranger() {
            "; its fingerprint is not in PINFILE"
        } else {
            ""
        };
        format!("client certificate did not verify: {told}{pinned}").into()
    }

    /// The intermediates that go with the certificate of this session.
    fn own_chain(&self, session: &Session) -> &[openssl::x509::X509] {
        let used = session
            .ssl()
            .certificate()
            .and_then(|certificate| trust::fingerprint(certificate).ok());
        self.generation
            .certificates()
            .find(|certificate| trust::fingerprint(&certificate.leaf).ok() == used)
            .map_or(&[], |certificate| &certificate.intermediates)
    }

    /// Under `-n`, the lack of TLS must not look like TLS.
    fn tell_plaintext(&self) {
        self.log(
            LineKind::Ended,
            "in plaintext: the program did not ask for TLS",
        );
    }

    /// How it ended, where somebody may want to know.
    fn tell(&self, ending: &Ending) {
        match ending {
            Ending::Done => {}
            Ending::Truncated => self.log(
                LineKind::Ended,
                "truncated: the client ended the connection without close_notify",
            ),
            Ending::Lost(why) => self.log(LineKind::Ended, format_args!("connection lost: {why}")),
            Ending::Idle(seconds) => {
                self.drop_connection(format_args!(
                    "no data in either direction for {}",
                    text::count(*seconds, "second")
                ));
            }
            Ending::Broken(why) => self.drop_connection(why),
        }
    }
}
