//! A context and a socket made into a session within a deadline, and the reason
//! in an administrator's words where that fails.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, NameType, Ssl, SslRef, SslStream};

use crate::hello::{self, Authentication};
use crate::settings::Version;
use crate::store::{KeyKind, server};
use crate::sys::poll::{self, Ready};
use crate::sys::socket;
use crate::text;
use crate::tls_ffi::{self, alerts};
use crate::trust;

/// How many of the first bytes of a peer are kept to say what came instead of TLS.
const OPENING: usize = 64;
/// How much waits for one send: several full records.
const GATHER: usize = 96 * 1024;
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
    transmitted: u64,
    ended: bool,
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
            transmitted: 0,
            ended: false,
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

    /// Bytes moved so far, both ways: unchanged means that nothing flows.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.received + self.transmitted
    }

    /// Sends what waits, as far as the kernel takes it.
    ///
    /// # Errors
    /// As send(2); a full socket is no error.
    pub fn push(&mut self) -> io::Result<()> {
        while self.has_waiting() {
            match socket::transmit(&self.socket, &self.waiting[self.sent..]) {
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
        self.received += count as u64;
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
        Ok(bytes.len())
    }

    /// Libssl flushes at the end of each flight of a handshake.
    fn flush(&mut self) -> io::Result<()> {
        self.push()
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
    let broken = |error: openssl::error::ErrorStack| Failure::Refused(crate::store::queue(&error));
    let mut stream = SslStream::new(ssl, Wire::new(socket)).map_err(broken)?;
    let deadline = Instant::now() + limit;
    loop {
        let error = match stream.do_handshake() {
            Ok(()) => return Ok(stream),
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
        if stream.get_ref().has_ended() && ready.read {
            return Err(gone(&stream));
        }
        if Instant::now() >= deadline || !wait(&stream, ready, deadline) {
            let failure = Failure::Late(lateness(&stream, limit));
            return Err(failure);
        }
        if stream.get_ref().has_waiting()
            && let Err(error) = stream.get_mut().push()
        {
            return Err(Failure::Gone(crate::report::reason(&error)));
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
    let seconds = limit.as_secs();
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

/// `SSL_R_*` of sslerr.h.
mod reason {
    /// What libssl says when the server-name callback refuses.
    pub const CALLBACK_FAILED: i32 = 234;
    pub const NO_PROTOCOLS_AVAILABLE: i32 = 191;
    pub const NO_SHARED_CIPHER: i32 = 193;
    pub const NO_SUITABLE_KEY_SHARE: i32 = 101;
    pub const NO_SUITABLE_GROUPS: i32 = 295;
    pub const NO_SUITABLE_SIGNATURE_ALGORITHM: i32 = 118;
    pub const NO_SHARED_GROUPS: i32 = 410;
    pub const NO_SHARED_SIGNATURE_ALGORITHMS: i32 = 376;
    pub const PEER_DID_NOT_RETURN_A_CERTIFICATE: i32 = 199;
    pub const UNSUPPORTED_PROTOCOL: i32 = 258;
    pub const VERSION_TOO_HIGH: i32 = 166;
    pub const VERSION_TOO_LOW: i32 = 396;
}

/// What failed.
fn explain(stream: &Session, error: &openssl::ssl::Error, side: Side<'_>) -> Failure {
    let ssl = stream.ssl();
    let wire = stream.get_ref();
    let side = Side {
        kinds: server::chosen_kinds(ssl).unwrap_or(side.kinds),
        ..side
    };
    if let Some(refusal) = trust::refusal(ssl)
        && error.ssl_error().is_some()
        && !alerts::seen(ssl).iter().any(|alert| !alert.sent)
    {
        return Failure::Certificate(refusal);
    }
    let alert = alert_text(ssl);
    if let Some(received) = alerts::seen(ssl).iter().rfind(|alert| !alert.sent) {
        return Failure::Refused(format!(
            "received alert {} ({}){}",
            alerts::name(received.number),
            received.number,
            received_hint(received.number, ssl, side)
        ));
    }
    let Some(stack) = error.ssl_error() else {
        let who = peer(ssl);
        return match error.io_error() {
            Some(cause) => {
                let why = crate::report::reason(cause);
                Failure::Gone(format!("{who} went away in the handshake: {why}"))
            }
            None => gone(stream),
        };
    };
    if stack
        .errors()
        .iter()
        .any(|error| error.reason_code() == reason::CALLBACK_FAILED)
        && let Some(name) = ssl.servername_raw(NameType::HOST_NAME)
        && let Some(alert) = &alert
    {
        return Failure::Name(name.to_vec(), alert.clone());
    }
    let first = stack.errors().first();
    let code = first.map_or(0, openssl::error::Error::reason_code);
    let own = explain_reason(ssl, wire, code, side).unwrap_or_else(|| crate::store::queue(stack));
    Failure::Refused(match alert {
        Some(alert) => format!("{own}; {alert}"),
        None => own,
    })
}

/// The peer ended the connection before there was a session.
fn gone(stream: &Session) -> Failure {
    let wire = stream.get_ref();
    let who = peer(stream.ssl());
    if wire.received == 0 {
        return Failure::Gone(format!("{who} closed the connection without a byte"));
    }
    Failure::Gone(not_tls(wire, who).unwrap_or_else(|| {
        let state = stream.ssl().state_string_long();
        format!("{who} closed the connection in the handshake (state {state})")
    }))
}

/// `sent alert handshake_failure (40)`.
fn alert_text(ssl: &SslRef) -> Option<String> {
    let alert = alerts::seen(ssl).last()?;
    let verb = if alert.sent { "sent" } else { "received" };
    Some(format!(
        "{verb} alert {} ({})",
        alerts::name(alert.number),
        alert.number
    ))
}

/// What an alert of the peer's probably means for an administrator.
fn received_hint(number: u8, ssl: &SslRef, side: Side<'_>) -> &'static str {
    match (number, ssl.is_server(), side.kinds.is_empty()) {
        (48, true, _) => ": the client does not trust our certificate's issuer",
        (42 | 46, true, _) => ": the client does not accept our certificate",
        (45, true, _) => ": the client takes our certificate for expired",
        (48, false, _) => ": the server does not trust our certificate's issuer",
        (116, false, _) => ": the server wants a client certificate",
        (112, false, _) => ": the server does not serve this name",
        _ => "",
    }
}

/// Our own sentence for libssl's reason, where we know better.
fn explain_reason(ssl: &SslRef, wire: &Wire, code: i32, side: Side<'_>) -> Option<String> {
    match code {
        reason::NO_SHARED_CIPHER => Some(no_shared_cipher(ssl, side)),
        reason::NO_SUITABLE_SIGNATURE_ALGORITHM | reason::NO_SHARED_SIGNATURE_ALGORITHMS => {
            Some(no_shared_signature(ssl, side))
        }
        reason::NO_SUITABLE_KEY_SHARE | reason::NO_SUITABLE_GROUPS | reason::NO_SHARED_GROUPS => {
            let offered: Vec<String> = hello::of(ssl)?
                .groups()
                .iter()
                .map(|group| format!("0x{group:04X}"))
                .collect();
            Some(format!(
                "no shared group: client offers only {}; TLS_GROUPS allows none of them",
                listed(&offered)
            ))
        }
        reason::UNSUPPORTED_PROTOCOL
        | reason::VERSION_TOO_LOW
        | reason::VERSION_TOO_HIGH
        | reason::NO_PROTOCOLS_AVAILABLE
            if ssl.is_server() =>
        {
            no_shared_version(ssl, side).or_else(|| not_tls(wire, peer(ssl)))
        }
        reason::PEER_DID_NOT_RETURN_A_CERTIFICATE => Some("client gave no certificate".to_owned()),
        _ => not_tls(wire, peer(ssl)),
    }
}

/// `not TLS: client sent "EHLO x"`, if what came first is no handshake record
/// (RFC 8446 section 5.1) and no SSLv2 ClientHello.
fn not_tls(wire: &Wire, who: &str) -> Option<String> {
    let first = *wire.opening.first()?;
    let plausible = match wire.opening.get(1) {
        Some(second) => (first == 22 || first == 21) && *second == 3,
        None => first == 22 || first == 21,
    };
    let v2_hello = first & 0x80 != 0 && wire.opening.get(2) == Some(&1);
    if plausible || v2_hello {
        return None;
    }
    // From 3.2 on, libssl reads no more than a record's head to see that it is
    // none; the rest of the line has come with it.
    let mut opening = wire.opening.clone();
    let mut more = [0; OPENING];
    let room = OPENING.saturating_sub(opening.len());
    let count = socket::peek(&wire.socket, &mut more[..room]).unwrap_or(0);
    opening.extend_from_slice(&more[..count]);
    let line = opening
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .next()
        .unwrap_or_default();
    let shown = if line.is_empty() { &opening } else { line };
    let shown = text::quoted(shown, 4 * OPENING);
    Some(format!("not TLS: {who} sent {shown}"))
}

/// `no shared version: client offers at most TLSv1.1, TLS_MIN is 1.2`.
fn no_shared_version(ssl: &SslRef, side: Side<'_>) -> Option<String> {
    let offered = hello::of(ssl)?.versions();
    let (min, max) = side.versions;
    let highest = *offered.iter().max()?;
    if highest < min.wire() {
        return Some(format!(
            "no shared version: client offers at most {}, TLS_MIN is {min}",
            hello::version_name(highest)
        ));
    }
    let lowest = *offered.iter().min()?;
    let max = max.filter(|max| lowest > max.wire())?;
    Some(format!(
        "no shared version: client offers at least {}, TLS_MAX is {max}",
        hello::version_name(lowest)
    ))
}

/// What the client offered, whether the kind of our key is the cause, and what
/// would help.
fn no_shared_cipher(ssl: &SslRef, side: Side<'_>) -> String {
    let Some(hello) = hello::of(ssl) else {
        return "no shared cipher".to_owned();
    };
    let ciphers = hello.ciphers(ssl);
    let names: Vec<String> = ciphers.iter().map(|cipher| cipher.name.clone()).collect();
    let offer = offer(hello, &names);
    // TLS 1.3 suites say nothing of the key, and play no part below 1.3.
    let suites = ciphers.iter().map(|cipher| cipher.authentication);
    if let Some(verdict) = key_verdict(suites, side.kinds, &offer) {
        return format!("no shared cipher: client offers only {verdict}");
    }
    // The suites may fit while no signature does (RFC 5246 section 7.4.1.4.1).
    let signatures = hello.signatures().into_iter().map(|(_, need)| need);
    if let Some(verdict) = key_verdict(signatures, side.kinds, &offer) {
        return format!("no shared cipher: client accepts only {verdict}");
    }
    // A suite in common is of no use where no curve is: that of the exchange, or
    // of an ECDSA certificate (RFC 8422 section 5.1).
    let allowed = tls_ffi::ciphers(ssl.ssl_context());
    let suite = allowed.iter().any(|cipher| {
        cipher.name().contains('-') && names.iter().any(|name| name == cipher.name())
    });
    let cause = if suite {
        "it takes no curve of TLS_GROUPS, or not the certificate's"
    } else {
        "CIPHERS allows none of them"
    };
    format!(
        "no shared cipher: client offers {offer}, our certificate is {}; {cause}",
        kinds_text(side.kinds)
    )
}

/// The same for TLS 1.3, where the signature algorithms decide.
fn no_shared_signature(ssl: &SslRef, side: Side<'_>) -> String {
    let Some(hello) = hello::of(ssl) else {
        return "no shared signature algorithm".to_owned();
    };
    let schemes = hello.signatures();
    let names: Vec<String> = schemes
        .iter()
        .map(|(scheme, _)| hello::signature_name(*scheme))
        .collect();
    let offer = offer(hello, &names);
    let needs = schemes.into_iter().map(|(_, need)| need);
    if let Some(verdict) = key_verdict(needs, side.kinds, &offer) {
        return format!("no shared signature algorithm: client accepts only {verdict}");
    }
    format!(
        "no shared signature algorithm: client accepts only {offer}, our certificate is {}",
        kinds_text(side.kinds)
    )
}

/// What a client offers: the first few names, and its highest version.
fn offer(hello: &hello::Hello, names: &[String]) -> String {
    let highest = hello.versions().into_iter().max();
    let version = highest.map_or("", hello::version_name);
    format!("({}; {version})", listed(names))
}

/// Says so if the kind of our key is the cause: all that the client offers needs
/// one kind, and we have none of it.
fn key_verdict(
    needs: impl Iterator<Item = Authentication>,
    kinds: &[KeyKind],
    offer: &str,
) -> Option<String> {
    let mut needs: Vec<Authentication> = needs
        .filter(|need| matches!(need, Authentication::Rsa | Authentication::Ecdsa))
        .collect();
    needs.sort_unstable();
    needs.dedup();
    let [need] = needs[..] else { return None };
    let has_rsa = kinds.iter().any(|kind| matches!(kind, KeyKind::Rsa(_)));
    let has_other = kinds.iter().any(|kind| !matches!(kind, KeyKind::Rsa(_)));
    let wanted = match need {
        Authentication::Rsa if !has_rsa => "RSA",
        Authentication::Ecdsa if !has_other => "ECDSA",
        _ => return None,
    };
    let ours = kinds_text(kinds);
    Some(format!(
        "{wanted} authentication {offer}, our certificate is {ours}; an {wanted} certificate in CERTFILE_ALT would serve it"
    ))
}

fn kinds_text(kinds: &[KeyKind]) -> String {
    let words: Vec<String> = kinds.iter().map(KeyKind::to_string).collect();
    words.join(" and ")
}

/// The first few of a list.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}

/// The alert by which a server has refused a session that the handshake had made:
/// in TLS 1.3 it judges our certificate only then.
#[must_use]
pub fn refusal(ssl: &SslRef) -> Option<String> {
    let received = alerts::seen(ssl).iter().rfind(|alert| !alert.sent)?;
    let side = Side {
        kinds: &[],
        versions: (Version::Tls12, None),
    };
    let (name, number) = (alerts::name(received.number), received.number);
    let hint = received_hint(number, ssl, side);
    Some(format!("received alert {name} ({number}){hint}"))
}

/// The reason of a failed read or write after the handshake: the alert, if that
/// was it.
#[must_use]
pub fn later_failure(ssl: &SslRef, error: &openssl::ssl::Error) -> String {
    if let Some(alert) = alert_text(ssl) {
        return alert;
    }
    match (error.io_error(), error.ssl_error()) {
        (Some(cause), _) => crate::report::reason(cause),
        (None, Some(stack)) => crate::store::queue(stack),
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
