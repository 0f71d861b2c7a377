//! A whole session by libssl: for what is encrypted, for resumption, and for what
//! is said inside TLS.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSessionCacheMode,
    SslVerifyMode, SslVersion,
};
use openssl::x509::X509Ref;

use super::talk::Talk;
use super::{Scan, Stop};
use crate::dialogue::Protocol;
use crate::handshake::{self, Side};
use crate::options::sslprobe::Start;
use crate::probe::groups;
use crate::probe::result::Version;
use crate::probe::suites::{self, Suite};
use crate::probe::wire::reader::CERTIFICATE_LIMIT;
use crate::settings;
use crate::tls_ffi;
use crate::tls_ffi::resume::Resumable;
use crate::transport::Transport;

/// All suites with a certificate that libssl has.
const SUITES: &str = "ALL:!aNULL:!eNULL:!PSK:!SRP:!aDSS";
/// `SSL_OP_LEGACY_SERVER_CONNECT` of ssl.h: servers without RFC 5746 are spoken
/// to.
const LEGACY_SERVER: u64 = 0x4;
/// How long a ticket is waited for where there is nothing to say.
const TICKET: Duration = Duration::from_millis(500);

/// Sessions that can be resumed, by version.
pub(super) type Resumables = BTreeMap<Version, Resumable>;

/// What a session is wanted for.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionLimits<'a> {
    /// Lowest and highest version.
    pub(super) versions: (Version, Version),
    /// Signature algorithms, by libssl's names.
    pub(super) signatures: Option<&'a str>,
}

/// What came of a session.
#[derive(Clone, Debug)]
pub(super) struct Negotiated {
    pub(super) version: Version,
    pub(super) resumed: bool,
}

/// The protocol that a port speaks inside TLS that begins at once.
pub(super) fn inner_protocol(start: Start, port: u16) -> Option<Protocol> {
    match (start, port) {
        (Start::Upgrade(protocol), _) => Some(protocol),
        (Start::AtOnce, 465) => Some(Protocol::Smtp),
        (Start::AtOnce, 993) => Some(Protocol::Imap),
        (Start::AtOnce, 995) => Some(Protocol::Pop3),
        (Start::AtOnce, _) => None,
    }
}

fn version(of: Version) -> SslVersion {
    match of {
        Version::Ssl3 => SslVersion::SSL3,
        Version::Tls10 => SslVersion::TLS1,
        Version::Tls11 => SslVersion::TLS1_1,
        Version::Tls12 => SslVersion::TLS1_2,
        Version::Tls13 => SslVersion::TLS1_3,
    }
}

/// A state for a session that anything may come of: nothing is verified.
pub(super) fn state(want: &SessionLimits<'_>) -> Result<Ssl, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    context.set_security_level(0);
    context.set_cipher_list(SUITES)?;
    context.set_min_proto_version(Some(version(want.versions.0)))?;
    context.set_max_proto_version(Some(version(want.versions.1)))?;
    context.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::from_bits_retain(LEGACY_SERVER));
    context.set_mode(SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
    context.set_session_cache_mode(SslSessionCacheMode::CLIENT);
    context.set_verify(SslVerifyMode::NONE);
    tls_ffi::set_certificate_limit(&mut context, CERTIFICATE_LIMIT);
    tls_ffi::alerts::record(&mut context)?;
    if let Some(list) = want.signatures {
        context.set_sigalgs_list(list)?;
    }
    Ssl::new(&context.build())
}

impl Scan<'_> {
    /// A session on a connection of its own, with a farewell at its end.
    pub(super) fn session(&mut self, want: &SessionLimits<'_>) -> Result<Negotiated, Stop> {
        let ssl = state(want)?;
        let (socket, until) = self.ready(false)?;
        let (transport, negotiated) = self.handshake(ssl, socket, until)?;
        self.leave(transport);
        Ok(negotiated)
    }

    /// A session that takes up an earlier one.
    pub(super) fn resume(&mut self, earlier: &Resumable) -> Result<Negotiated, Stop> {
        let ssl = earlier.ssl()?;
        let (socket, until) = self.ready(false)?;
        let (transport, negotiated) = self.handshake(ssl, socket, until)?;
        self.leave(transport);
        Ok(negotiated)
    }

    /// The handshake on a socket that is ready for it; the transport must be given to
    /// [`Scan::leave`].
    pub(super) fn handshake(
        &mut self,
        mut ssl: Ssl,
        socket: std::net::TcpStream,
        until: Instant,
    ) -> Result<(Transport, Negotiated), Stop> {
        if let Some(name) = self.target.server_name() {
            // A name that libssl refuses is left out.
            let _ = ssl.set_hostname(name);
            tls_ffi::forget_errors();
        }
        ssl.set_connect_state();
        self.result.handshakes += 1;
        let limit = until.saturating_duration_since(Instant::now());
        let session = handshake::perform(ssl, socket, limit, PLAIN_SIDE).map_err(|failure| {
            let why = reason(&failure.to_string());
            self.hang_up(false);
            self.facts.handshake.get_or_insert_with(|| why.clone());
            Stop::Connection(why)
        })?;
        let negotiated = self.learn(session.ssl());
        let mut transport = Transport::tls(session);
        transport.allow(until.saturating_duration_since(Instant::now()));
        Ok((transport, negotiated))
    }

    /// Ends a session with what may be said inside it, and keeps it.
    pub(super) fn leave(&mut self, mut transport: Transport) {
        match inner_protocol(self.target.start, self.target.port) {
            Some(protocol) => {
                let at_once = self.target.start == Start::AtOnce;
                let mut talk = Talk::new(&mut transport, protocol, &self.terms.name);
                let greeted = !at_once || talk.greet().is_ok();
                if greeted && protocol == Protocol::Sieve {
                    let _ = talk.capabilities();
                }
                if greeted {
                    talk.quit();
                }
            }
            None => wait_for_ticket(&mut transport),
        }
        self.keep(&transport);
        transport.close_notify();
        drop(transport);
        self.hang_up(true);
    }

    /// Keeps what a session can be resumed from.
    pub(super) fn keep(&mut self, transport: &Transport) {
        let Some(ssl) = transport.ssl() else { return };
        let version = spoken(ssl);
        if let Some(resumable) = Resumable::of(ssl) {
            self.kept.entry(version).or_insert(resumable);
        }
    }

    /// What a session shows.
    fn learn(&mut self, ssl: &SslRef) -> Negotiated {
        let version = spoken(ssl);
        self.seen.versions.insert(version, true);
        self.seen.sessions.insert(version);
        let suite = ssl
            .current_cipher()
            .and_then(|cipher| suites::called(cipher.name()));
        if let Some(suite) = suite {
            self.seen.suite(version, suite.number);
        }
        let finite = suite.is_some_and(Suite::has_finite_field);
        if let Some(name) = tls_ffi::group_name(ssl).filter(|_| !finite) {
            self.seen.group(groups::from_openssl(&name));
        }
        let resumed = ssl.session_reused();
        if let Some(chain) = ssl.peer_cert_chain().filter(|_| !resumed) {
            let chain: Result<Vec<Vec<u8>>, _> = chain.iter().map(X509Ref::to_der).collect();
            if let Ok(chain) = chain {
                self.note_chain(&chain, true);
            }
        }
        Negotiated { version, resumed }
    }
}

/// Nothing of ours is on offer.
pub(super) const PLAIN_SIDE: Side<'static> = Side {
    kinds: &[],
    versions: (settings::Version::Tls12, None),
};

fn spoken(ssl: &SslRef) -> Version {
    match ssl.version2() {
        Some(SslVersion::TLS1_3) => Version::Tls13,
        Some(SslVersion::TLS1_1) => Version::Tls11,
        Some(SslVersion::TLS1) => Version::Tls10,
        Some(SslVersion::SSL3) => Version::Ssl3,
        _ => Version::Tls12,
    }
}

/// Reads until a ticket has come, or none is to be expected any more.
fn wait_for_ticket(transport: &mut Transport) {
    let has = |transport: &Transport| {
        transport
            .ssl()
            .is_none_or(|ssl| Resumable::of(ssl).is_some())
    };
    if has(transport) {
        return;
    }
    transport.allow(TICKET);
    // A server that speaks first has nothing to say but its greeting.
    let _ = transport.read(&mut [0; 1024]);
}

/// Libssl's words for what its limits keep out, in ours.
fn reason(words: &str) -> String {
    if words.contains("excessive message size") {
        return format!(
            "a message of its handshake, such as its certificates, is longer than the \
             {CERTIFICATE_LIMIT} bytes that are read"
        );
    }
    words.to_owned()
}
