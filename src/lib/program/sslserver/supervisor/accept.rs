//! The first step of a connection: a client is accepted, counted, and served by a
//! process of its own. Where the system lacks something the client waits.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::listener::Accepted;
use crate::options::sslserver::Options;
use crate::program::sslserver::connections::{NewConnection, TlsPart};
use crate::program::sslserver::launcher::{Launcher, Tls};
use crate::program::sslserver::messages::Receiver;
use crate::program::sslserver::{delayed, messages};
use crate::report;
use crate::sys::process::{self, Forked, ProcessId};
use crate::sys::tcp::TcpConnection;
use crate::text;

/// How often the same want of the system or of an option is told, at most.
const MINUTE: Duration = Duration::from_secs(60);
/// How long the names of a client may take.
const NAMES_SECONDS: u32 = 120;
/// Descriptors below this number are those that a launcher may need, where there are more
/// connections than a few: what the supervisor has for each of these is above, where no
/// launcher has to copy and close it.
const LOW: RawFd = 256;
const FEW: usize = 64;

/// Makes a launcher beside so many connections; it takes the client.
fn fork(
    launcher: &Launcher<'_>,
    address: SocketAddr,
    place: &mut Option<(TcpStream, Tls)>,
    beside: usize,
) -> io::Result<ProcessId> {
    let all_low = place.as_ref().is_some_and(|(client, tls)| {
        let needed = launcher.descriptors(client, tls);
        needed.iter().all(|one| one.as_raw_fd() < LOW)
    });
    let run = |forked: Forked| match place.take() {
        Some((client, tls)) => launcher.run(&forked, client, address, tls),
        None => report::TEMPORARY,
    };
    if beside > FEW && all_low {
        process::spawn_below(LOW, run)
    } else {
        process::spawn(run)
    }
}

impl Supervisor<'_> {
    /// Takes a client, if there is one; `Some` when the system can't. The next wait
    /// tells whether there are more, and others have their turn first.
    pub(super) fn accept(&mut self) -> Option<()> {
        let accepted = match self.held.take() {
            Some((client, address)) => Accepted::Client(client, address),
            None => self.listener.accept(),
        };
        match accepted {
            Accepted::Client(client, address) => {
                self.look_at_files();
                if self.wants_reload && !self.at_work {
                    // It is served with what is new, or meanwhile.
                    self.held = Some((client, address));
                    return None;
                }
                if let Err((client, error)) = self.begin(client, address) {
                    self.tell_lack("begin a connection", &error);
                    self.held = Some((client, address));
                    return Some(());
                }
                None
            }
            Accepted::Nobody => None,
            Accepted::Exhausted(error) => {
                self.tell_lack("accept", &error);
                Some(())
            }
        }
    }

    /// Clients in the backlog believe that they are connected, and would be
    /// reset: they are served too, as far as `-c` goes.
    pub(super) fn finish(&mut self) {
        self.listener.finish();
        self.reap();
        while self.has_room() {
            let next = self.held.take().or_else(|| match self.listener.accept() {
                Accepted::Client(client, address) => Some((client, address)),
                Accepted::Nobody | Accepted::Exhausted(_) => None,
            });
            let Some((client, address)) = next else {
                break;
            };
            if self.begin(client, address).is_err() {
                break;
            }
        }
        self.begin_all_engines();
        self.connections.leave_logger();
    }

    /// Serves a client with processes of its own.
    ///
    /// # Errors
    /// The system lacks descriptors, memory or processes: nothing was done.
    fn begin(
        &mut self,
        client: TcpStream,
        address: SocketAddr,
    ) -> Result<(), (TcpStream, std::io::Error)> {
        let counted = !self.counts_late();
        let limit = self.setup.limits.per_address;
        if counted && self.connections.admission.is_full(address.ip(), limit) {
            self.reap_for_room();
        }
        if counted && !self.connections.admission.has_room(address.ip(), limit) {
            return Ok(());
        }
        let (messages, sender) = match messages::pair() {
            Ok(ends) => ends,
            Err(error) => return Err((client, error)),
        };
        let (later, tls) = match self.prepare_tls(&client) {
            Ok(made) => made,
            Err(error) => return Err((client, error)),
        };
        // Before the child can write its own lines, as tcpserver.
        self.tell_count(self.connections.count() + 1);
        let context = Launcher {
            setup: self.setup,
            generation: &self.generation,
            keyholder: &self.keyholders.current,
            supervisor: &sender,
            counted,
        };
        let tcp = TcpConnection::of(&client, address).ok();
        let mut place = Some((client, tls));
        let forked = fork(&context, address, &mut place, self.connections.count());
        match (forked, place) {
            (Ok(launcher), _) => {
                self.connections.begin(NewConnection {
                    launcher,
                    address,
                    counted,
                    later,
                    messages: self.out_of_the_way(messages),
                    tcp,
                });
                self.begin_batch();
                self.tell_full();
                Ok(())
            }
            (Err(error), Some((client, _))) => {
                if let TlsPart::Link(link) = later {
                    self.keyholders.done(link);
                }
                self.tell_count(self.connections.count());
                Err((client, error))
            }
            // Only the child takes it.
            (Err(_), None) => Ok(()),
        }
    }

    /// The same, beside many others, where launchers do not have to copy it.
    fn out_of_the_way(&self, messages: Receiver) -> Receiver {
        if self.connections.count() < FEW {
            messages
        } else {
            messages.moved_above(LOW)
        }
    }

    /// What a connection needs for TLS, now or later: ours, and its launcher's.
    fn prepare_tls(&mut self, client: &TcpStream) -> io::Result<(TlsPart, Tls)> {
        let options = &self.setup.options;
        if options.delayed {
            let (kept, given) = delayed::sides(client, options)?;
            return Ok((TlsPart::Engine(kept), Tls::WhenAsked(given)));
        }
        let (link, end) = self.keyholders.current.link(link_seconds(options))?;
        Ok((TlsPart::Link(link), Tls::AtOnce(end)))
    }

    /// Whether something is to be told again, which was last told then.
    fn due(told: &mut Option<Instant>) -> bool {
        let now = Instant::now();
        let due = told.is_none_or(|at| now.duration_since(at) >= MINUTE);
        if due {
            *told = Some(now);
        }
        due
    }

    /// Says that no further client is let in, and who has the places.
    fn tell_full(&mut self) {
        if !self.has_room() && self.scan_at.is_some() {
            // Whoever has ended unheard of has no place any more.
            self.reap();
        }
        if self.has_room() || !Self::due(&mut self.full_told) {
            return;
        }
        let count = self.setup.limits.at_once;
        let why = if count < self.setup.options.limit {
            "the limit on descriptors"
        } else {
            "-c"
        };
        let most = self
            .connections
            .admission
            .fullest()
            .map(|(address, of_it)| {
                // One place cannot be shared, and where many have a few it is -c that
                // is too low.
                let alone = of_it > 1 && of_it * 2 >= count;
                let advice = if alone { ", which -C would limit" } else { "" };
                format!("; {address} has {of_it} of them{advice}")
            });
        self.setup.report.warning(format_args!(
            "{} at once, as many as {why} allows: further clients wait{}",
            text::count(count, "connection"),
            most.unwrap_or_default()
        ));
    }

    /// Says that the system is short of something, once a minute at most.
    fn tell_lack(&mut self, step: &str, error: &std::io::Error) {
        if Self::due(&mut self.lack_told) {
            let reason = report::reason(error);
            self.setup.report.warning(format_args!(
                "unable to {step}: {reason}: clients wait until there is more"
            ));
        }
    }
}

/// How long a connection may have its signature: to the end of the handshake,
/// the slowest of names included.
fn link_seconds(options: &Options) -> u32 {
    options
        .handshake_seconds
        .saturating_add(options.common.ident_seconds)
        .saturating_add(NAMES_SECONDS)
}
