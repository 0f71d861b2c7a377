//! A context and a socket made into a session within a deadline, and the reason
//! in an administrator's words where that fails.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, Ssl, SslRef, SslStream};

use crate::hello::{self, Hello};
use crate::report::{reason, tls_reason};
use crate::settings::Version;
use crate::store::{KeyKind, server};
use crate::sys::poll::{self, Ready};
use crate::sys::socket;
use crate::tls_ffi::alerts::{self, Alert};
use crate::trust;

mod diagnosis;

/// How many of the first bytes of a peer are kept to say what came instead of TLS.
const OPENING: usize = 64;
/// How much waits for one send: several full records.
const GATHER: usize = 64 * 1024;
/// How long a failed handshake waits for its alert to be read.
const PARTING: Duration = Duration::from_secs(2);

/// The socket as libssl sees it: it never waits, and what is written is
/// gathered until somebody pushes.
pub struct Wire {
    socket: TcpStream,
    waiting: Vec<u8>,
    sent: usize,
    opening: Vec<u8>,
    received: u64,
    /// Bytes that were ever to be sent, and those that were.
    queued: u64,
    transmitted: u64,
    ended: bool,
    /// The kernel had less than was asked for: it has no more now, unless the peer
    /// has ended, and is not asked again before somebody waited.
    drained: bool,
    /// See [`Wire::met_end`].
    ends: bool,
    /// Our end follows what waits.
    last: bool,
    /// What is flushed waits for [`Wire::push`], with what comes behind it.
    gathering: bool,
    /// Bytes received since the last that were content.
    overhead: u64,
    /// Most of those; `None` in the handshake, which has its deadline.
    overhead_limit: Option<u64>,
}

impl Wire {
    /// Takes a connected socket over.
    #[must_use]
    pub fn new(socket: TcpStream) -> Wire {
        Wire {
            socket,
            waiting: Vec::new(),
            sent: 0,
            opening: Vec::new(),
            received: 0,
            queued: 0,
            transmitted: 0,
            ended: false,
            drained: false,
            ends: false,
            last: false,
            gathering: false,
            overhead: 0,
            overhead_limit: None,
        }
    }

    /// The socket, to wait for.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether bytes wait to be sent.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.sent < self.waiting.len()
    }

    /// Whether more can be written now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < GATHER
    }

    /// Whether the peer's end of file came.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes that were ever to be sent.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes that the kernel took.
    #[must_use]
    pub fn transmitted(&self) -> u64 {
        self.transmitted
    }

    /// From now on no more than so many bytes are received between two of
    /// content ([`Wire::met_content`]). A peer could otherwise have us answer key
    /// updates, and renegotiations refused, for as long as it likes.
    pub fn bound_overhead(&mut self, limit: u64) {
        self.overhead_limit = Some(limit);
        self.overhead = 0;
    }

    /// What was received held content.
    pub fn met_content(&mut self) {
        self.overhead = 0;
    }

    /// Whether the limit on bytes without content ended the connection.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.overhead_limit
            .is_some_and(|limit| self.overhead > limit)
    }

    /// Sends what waits, as far as the kernel takes it.
    ///
    /// # Errors
    /// As send(2); a full socket is no error.
    pub fn push(&mut self) -> io::Result<()> {
        while self.has_waiting() {
            let transmit = if self.last {
                socket::transmit_with_more
            } else {
                socket::transmit
            };
            match transmit(&self.socket, &self.waiting[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.transmitted += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.waiting.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends what waits and then our end, in one segment where both fit: false if
    /// the kernel did not take all, which keeps the end back.
    ///
    /// # Errors
    /// As [`Wire::push`].
    pub fn push_last(&mut self) -> io::Result<bool> {
        self.last = true;
        self.push()?;
        if !self.has_waiting() {
            self.shut(Shutdown::Write);
        }
        Ok(!self.has_waiting())
    }

    /// Poll told that both directions are over, or that there is an error: what
    /// can still be read is read to its end.
    pub fn met_end(&mut self) {
        self.ends = true;
        self.drained = false;
    }

    /// Gives the buffer back while nothing waits.
    pub fn release(&mut self) {
        if !self.has_waiting() {
            self.waiting = Vec::new();
            self.sent = 0;
        }
    }

    /// Ends our direction, or both. A peer that is gone has ended both itself.
    pub fn shut(&self, how: Shutdown) {
        let _ = self.socket.shutdown(how);
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over_limit() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if std::mem::take(&mut self.drained) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = match socket::receive(&self.socket, buffer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.ended = true;
                return Err(error);
            }
            other => other?,
        };
        if count == 0 && !buffer.is_empty() {
            // Told of it, libssl would end both directions: an end of file
            // without close_notify must not keep us from writing.
            self.ended = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.drained = count < buffer.len() && !self.ends;
        self.received += count as u64;
        self.overhead += count as u64;
        let room = OPENING - self.opening.len();
        self.opening.extend_from_slice(&buffer[..count.min(room)]);
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.has_room() {
            self.push()?;
            if !self.has_room() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        self.waiting.extend_from_slice(bytes);
        self.queued += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Libssl flushes at the end of each flight of a handshake, and behind each
    /// ticket.
    fn flush(&mut self) -> io::Result<()> {
        if self.gathering { Ok(()) } else { self.push() }
    }
}

/// A session: libssl over a socket.
pub type Session = SslStream<Wire>;

/// What a failed handshake's reason is drawn from, beyond the session itself.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Kinds of our certificates' keys; empty at a client's side.
    pub kinds: &'a [KeyKind],
    /// Lowest and highest version that we speak.
    pub versions: (Version, Option<Version>),
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The time ran out.
    Late(String),
    /// The peer went away.
    Gone(String),
    /// Anything else, in full.
    Refused(String),
    /// The peer's certificate does not verify.
    Certificate(trust::Refusal),
    /// The server name that the client asked for is not served; the alert.
    Name(Vec<u8>, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Late(text)
            | Failure::Gone(text)
            | Failure::Refused(text)
            | Failure::Name(_, text) => out.write_str(text),
            Failure::Certificate(refusal) => write!(out, "certificate did not verify: {refusal}"),
        }
    }
}

/// Makes the handshake, as client or server as the state of `ssl` says. The
/// deadline holds however the peer's bytes drip.
///
/// # Errors
/// Why there is no session. The alert has been sent and the socket closed.
pub fn perform(
    ssl: Ssl,
    socket: TcpStream,
    limit: Duration,
    side: Side<'_>,
) -> Result<Session, Failure> {
    let broken = |error: openssl::error::ErrorStack| Failure::Refused(tls_reason(&error));
    let mut stream = SslStream::new(ssl, Wire::new(socket)).map_err(broken)?;
    let deadline = Instant::now() + limit;
    stream.get_mut().gathering = true;
    loop {
        let done = stream.do_handshake();
        // A whole flight goes out at once, and the tickets behind the handshake.
        let pushed = stream.get_mut().push();
        let error = match done {
            Ok(()) => {
                pushed.map_err(|error| lost(&stream, &error))?;
                stream.get_mut().gathering = false;
                return Ok(stream);
            }
            Err(error) => error,
        };
        let ready = match error.code() {
            ErrorCode::WANT_READ => Ready {
                read: true,
                write: stream.get_ref().has_waiting(),
                gone: false,
            },
            ErrorCode::WANT_WRITE => Ready::WRITE,
            _ => {
                let failure = explain(&stream, &error, side);
                part(&mut stream);
                return Err(failure);
            }
        };
        pushed.map_err(|error| lost(&stream, &error))?;
        if stream.get_ref().has_ended() && ready.read {
            return Err(gone(&stream));
        }
        if Instant::now() >= deadline || !wait(&stream, ready, deadline) {
            let failure = Failure::Late(lateness(&stream, limit));
            return Err(failure);
        }
    }
}

/// Waits; false when the time is over.
fn wait(stream: &Session, ready: Ready, deadline: Instant) -> bool {
    let mut wanted = [(stream.get_ref().socket().as_fd(), ready)];
    poll::wait(&mut wanted, Some(deadline)).is_ok() && wanted[0].1 != Ready::default()
}

/// Ends a connection so that the peer can read our alert: bytes of its that are
/// left unread would make the kernel throw away what we sent.
fn part(stream: &mut Session) {
    let deadline = Instant::now() + PARTING;
    let wire = stream.get_mut();
    let _ = wire.push();
    wire.shut(Shutdown::Write);
    let mut rest = [0; 4096];
    loop {
        match socket::receive(wire.socket(), &mut rest) {
            Ok(0) => return,
            Ok(_) if Instant::now() < deadline => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut wanted = [(wire.socket().as_fd(), Ready::READ)];
                if poll::wait(&mut wanted, Some(deadline)).is_err()
                    || wanted[0].1 == Ready::default()
                {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Where a handshake stood when its time was over.
fn lateness(stream: &Session, limit: Duration) -> String {
    let wire = stream.get_ref();
    // What is left of the time that somebody gave: a moment of it went before.
    let seconds = (limit + Duration::from_millis(500)).as_secs();
    let side = peer(stream.ssl());
    let state = stream.ssl().state_string_long();
    if wire.received == 0 && stream.ssl().is_server() {
        return format!(
            "handshake timed out after {seconds} seconds: {side} sent nothing (state {state})"
        );
    }
    format!(
        "handshake timed out after {seconds} seconds: {side} sent {} bytes (state {state})",
        wire.received
    )
}

fn peer(ssl: &SslRef) -> &'static str {
    if ssl.is_server() { "client" } else { "server" }
}

/// What failed.
fn explain(stream: &Session, error: &openssl::ssl::Error, side: Side<'_>) -> Failure {
    let ssl = stream.ssl();
    let wire = stream.get_ref();
    let side = Side {
        kinds: server::chosen(ssl).map_or(side.kinds, |chosen| &chosen.kinds),
        versions: server::chosen(ssl)
            .and_then(|chosen| chosen.versions)
            .unwrap_or(side.versions),
    };
    if let Some(refusal) = trust::refusal(ssl) {
        if error.ssl_error().is_some() && !alerts::seen(ssl).iter().any(|alert| !alert.sent) {
            return Failure::Certificate(refusal);
        }
    }
    let alert = alert_text(ssl);
    if let Some(received) = refusal(ssl) {
        return Failure::Refused(received);
    }
    let Some(stack) = error.ssl_error() else {
        return match error.io_error() {
            Some(cause) => lost(stream, cause),
            None => gone(stream),
        };
    };
    if stack
        .errors()
        .iter()
        .any(|error| error.reason_code() == diagnosis::CALLBACK_FAILED)
    {
        if let Some(name) = hello::of(ssl).and_then(Hello::server_name) {
            if let Some(alert) = &alert {
                return Failure::Name(name.to_vec(), alert.clone());
            }
        }
    }
    let first = stack.errors().first();
    let code = first.map_or(0, openssl::error::Error::reason_code);
    let own = diagnosis::sentence(ssl, wire, code, side).unwrap_or_else(|| tls_reason(stack));
    Failure::Refused(match alert {
        Some(alert) => format!("{own}; {alert}"),
        None => own,
    })
}

/// The connection broke before there was a session.
fn lost(stream: &Session, cause: &io::Error) -> Failure {
    let (who, why) = (peer(stream.ssl()), reason(cause));
    Failure::Gone(format!("{who} was lost during the handshake: {why}"))
}

/// The peer ended the connection before there was a session.
fn gone(stream: &Session) -> Failure {
    let wire = stream.get_ref();
    let who = peer(stream.ssl());
    if wire.received == 0 {
        return Failure::Gone(format!(
            "{who} closed the connection without sending anything"
        ));
    }
    Failure::Gone(diagnosis::not_tls(wire, who).unwrap_or_else(|| {
        let state = stream.ssl().state_string_long();
        format!("{who} closed the connection during the handshake (state {state})")
    }))
}

/// The last alert: `sent alert handshake_failure (40)`.
fn alert_text(ssl: &SslRef) -> Option<String> {
    alerts::seen(ssl).last().map(|alert| shown(*alert, ssl))
}

fn shown(alert: Alert, ssl: &SslRef) -> String {
    let (verb, hint) = if alert.sent {
        ("sent", "")
    } else {
        ("received", received_hint(alert.number, ssl.is_server()))
    };
    let name = alerts::name(alert.number);
    format!("{verb} alert {name} ({}){hint}", alert.number)
}

/// What an alert of the peer's probably means for an administrator.
fn received_hint(number: u8, by_client: bool) -> &'static str {
    match (number, by_client) {
        (42 | 43 | 46, true) => ": the client does not accept our certificate",
        (44, true) => ": the client considers our certificate revoked",
        (45, true) => ": the client considers our certificate expired",
        (48, true) => ": the client does not trust our certificate's issuer",
        (42 | 43 | 46, false) => ": the server does not accept our certificate",
        (44, false) => ": the server considers our certificate revoked",
        (45, false) => ": the server considers our certificate expired",
        (48, false) => ": the server does not trust our certificate's issuer",
        (112, false) => ": the server does not serve this name",
        (116, false) => ": the server wants a client certificate",
        _ => "",
    }
}

/// The peer's last alert. A server may send one after the handshake: in TLS 1.3 it
/// judges our certificate only then.
#[must_use]
pub fn refusal(ssl: &SslRef) -> Option<String> {
    let received = alerts::seen(ssl).iter().rfind(|alert| !alert.sent);
    received.map(|alert| shown(*alert, ssl))
}

/// Whether the peer has refused our certificate, or that there was none.
#[cfg(feature = "remote")]
#[must_use]
pub fn refuses_certificate(ssl: &SslRef) -> bool {
    // RFC 8446, 6.2: from bad_certificate to access_denied, but for
    // illegal_parameter; certificate_required.
    let is_one = |number: u8| matches!(number, 42..=46 | 48 | 49 | 116);
    let mut alerts = alerts::seen(ssl).iter();
    alerts.any(|alert| !alert.sent && is_one(alert.number))
}

/// The reason of a failed read or write after the handshake: the alert, if that
/// was it.
#[must_use]
pub fn later_failure(ssl: &SslRef, error: &openssl::ssl::Error) -> String {
    if let Some(alert) = alert_text(ssl) {
        return alert;
    }
    match (error.io_error(), error.ssl_error()) {
        (Some(cause), _) => reason(cause),
        (None, Some(stack)) => tls_reason(stack),
        (None, None) => "connection lost".to_owned(),
    }
}

/// Makes a throw-away handshake with ourselves. Libcrypto fills caches at its
/// first use of each algorithm; filled before a fork, every engine has them.
/// Nothing depends on its success.
pub fn rehearse(context: &openssl::ssl::SslContextRef) {
    use openssl::ssl::{SslContext, SslMethod, SslVersion};

    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let pair = std::os::unix::net::UnixStream::pair().and_then(|(one, other)| {
            one.set_nonblocking(true)?;
            other.set_nonblocking(true)?;
            Ok((one, other))
        });
        let Ok((one, other)) = pair else { return };
        let client = SslContext::builder(SslMethod::tls_client()).and_then(|mut builder| {
            builder.set_max_proto_version(Some(version))?;
            SslStream::new(Ssl::new(&builder.build())?, one)
        });
        let server = Ssl::new(context).and_then(|ssl| SslStream::new(ssl, other));
        let (Ok(mut client), Ok(mut server)) = (client, server) else {
            return;
        };
        // Each side's flight is in the socket before the other looks: three
        // turns are a whole handshake.
        for _ in 0..4 {
            let _ = client.connect();
            let _ = server.accept();
        }
    }
}
