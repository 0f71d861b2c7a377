//! One connection: its turn, its time, and the way up to where a ClientHello may
//! be sent.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::talk::Talk;
use super::{FAILURES, SPARE, Scan, Stop};
use crate::dialer::{Dialer, Unreachable};
use crate::dialogue::client::DialogueError;
use crate::options::sslprobe::Start;
use crate::report;
use crate::text;
use crate::transport::Transport;

impl Scan<'_> {
    /// A connection, when its turn has come; its deadline. [`Scan::hang_up`] must
    /// follow.
    pub(super) fn connect(&mut self) -> Result<(Transport, Instant), Stop> {
        if self.failures >= FAILURES {
            return Err(Stop::Host(
                "too many connections came to nothing in a row".to_owned(),
            ));
        }
        if self.result.connections >= self.result.handshakes + SPARE {
            return Err(Stop::Host(
                "the server does not let a client get as far as TLS".to_owned(),
            ));
        }
        self.wait_for_turn()?;
        let now = Instant::now();
        let until = self.deadline.min(now + self.terms.connection);
        let dialer = Dialer {
            seconds: (whole_seconds(until - now), 0),
            local_address: None,
            local_port: 0,
        };
        let address = SocketAddr::new(self.address, self.target.port);
        match dialer.connect(&[address]) {
            Ok(socket) => {
                self.result.listens = true;
                self.result.connections += 1;
                // A server that is gone by now is found out soon enough.
                let _ = socket.set_nodelay(true);
                let mut transport = Transport::clear(socket);
                transport.allow(until.saturating_duration_since(Instant::now()));
                Ok((transport, until))
            }
            Err(failed) => {
                self.turn.closed();
                let reset = |one: &Unreachable| one.cause.kind() == io::ErrorKind::ConnectionReset;
                if failed.iter().any(reset) {
                    // Somebody accepted it, and ended it at once.
                    self.result.listens = true;
                    self.result.connections += 1;
                }
                let cause = failed.last().map(|one| report::reason(&one.cause));
                let cause = cause.unwrap_or_default();
                Err(Stop::Host(format!("unable to connect: {cause}")))
            }
        }
    }

    /// Waits until this host may be connected to. The pause between two connections
    /// to it counts as its time; waiting for other hosts' probes does not.
    fn wait_for_turn(&mut self) -> Result<(), Stop> {
        let asked = Instant::now();
        let own = self
            .closed
            .map_or(asked, |closed| asked.max(closed + self.terms.interval));
        if own < self.deadline {
            self.turn.connect();
            let others = Instant::now().saturating_duration_since(own);
            self.begin += others;
            self.deadline += others;
            return Ok(());
        }
        let seconds = text::count(self.terms.host.as_secs(), "second");
        Err(Stop::Host(format!("out of time: {seconds} (-T)")))
    }

    /// The connection is closed by now.
    pub(super) fn hang_up(&mut self, good: bool) {
        self.turn.closed();
        self.closed = Some(Instant::now());
        self.failures = if good { 0 } else { self.failures + 1 };
    }

    /// A socket on which the ClientHello is what comes next, its deadline.
    /// [`Scan::hang_up`] must follow.
    pub(super) fn ready(&mut self, injected: bool) -> Result<(TcpStream, Instant), Stop> {
        if self.left() == 0 {
            return Err(Stop::Budget);
        }
        let (mut transport, until) = self.connect()?;
        if let Start::Upgrade(protocol) = self.target.start {
            let mut talk = Talk::new(&mut transport, protocol, &self.terms.name);
            let upgraded = talk
                .greet()
                .and_then(|_| talk.capabilities())
                .and_then(|_| talk.start_tls(injected));
            if let Err(error) = upgraded {
                talk.quit_after(&error);
                drop(transport);
                self.hang_up(false);
                return Err(stop(&error));
            }
        }
        let socket = transport.take_socket();
        let lost = || Stop::Connection("the connection is gone".to_owned());
        Ok((socket.ok_or_else(lost)?, until))
    }
}

/// What a dialogue that failed means for the rest of the probe: a server that
/// says 4xx is asked no more.
pub(super) fn stop(error: &DialogueError) -> Stop {
    let text = error.to_string();
    match error {
        DialogueError::Refused(_, _) | DialogueError::PreAuthenticated(_) => Stop::Host(text),
        _ => Stop::Connection(text),
    }
}

/// Seconds, a begun one for whole.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_millis().div_ceil(1000).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
