//! One request to a web server over TLS, and its reply within limits: for policies
//! of MTA-STS and reports by POST. Nothing is followed, kept open or remembered.
//! Once a client is made, no file is opened.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::dialer::Dialer;
use crate::handshake::{self, HandshakeFailure, Side};
use crate::host_name::HostName;
use crate::keyholder::OwnKey;
use crate::report::{self, Fail};
use crate::settings::{Settings, Version};
use crate::store::client::{Setup, Store, Trust};
use crate::store::pool;
use crate::text;
use crate::transport::Transport;
use crate::trust::{self, Demand, Expectation, Name, Reference, Tolerated};

pub mod reply;

pub use reply::{End, Response};

/// How long a connection to one address may take, where there are others.
const ONE_ADDRESS: Duration = Duration::from_secs(10);
/// The protocol by name (RFC 7301): of newer ones nothing is known here.
const ALPN: &[u8] = b"\x08http/1.1";

/// What is asked of a resource (RFC 9110, 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// Its content.
    Get,
    /// It is given something.
    Post {
        /// The media type of what it is given.
        media_type: &'a str,
        /// What it is given.
        body: &'a [u8],
    },
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// In lower case, without a dot at its end. The certificate must name it.
    pub host: &'a HostName,
    /// The port; 443 is everybody's.
    pub port: u16,
    /// From the `/` on.
    pub path: &'a str,
    /// What is asked.
    pub method: Method<'a>,
}

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first connection to the last byte.
    pub time: Duration,
    /// Bytes of the reply's body.
    pub body: usize,
}

/// Where nothing else is said.
pub const LIMITS: Limits = Limits {
    time: Duration::from_secs(30),
    body: 64 * 1024,
};

/// What a request failed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// There is no connection.
    Unreachable,
    /// The server's certificate does not verify, or does not name the host.
    Certificate,
    /// There is no TLS, for another reason.
    Handshake,
    /// The time was over.
    Late,
    /// What came is no reply within the limits.
    Reply,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoResponse {
    /// The kind of what went wrong.
    pub kind: FailureKind,
    /// Printable words that end a sentence.
    pub why: String,
}

impl NoResponse {
    fn new(kind: FailureKind, why: impl Into<String>) -> NoResponse {
        let why = text::excerpt(why.into().as_bytes(), 400);
        NoResponse { kind, why }
    }

    fn late(limits: Limits) -> NoResponse {
        let seconds = limits.time.as_secs();
        NoResponse::new(
            FailureKind::Late,
            format!("it was not done within {seconds} seconds"),
        )
    }
}

impl fmt::Display for NoResponse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.why)
    }
}

/// What speaks HTTPS: it trusts whom the system trusts, or whom `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name.
pub struct Client {
    store: Store,
}

impl Client {
    /// Reads all anchors.
    ///
    /// # Errors
    /// Libssl cannot be set up.
    pub fn new() -> Result<Client, Fail> {
        let anchors = pool::of_system().pool;
        let setup = Setup {
            trust: Trust::Pool(&anchors),
            certificate: None,
            depth: None,
            expectation: Expectation {
                demand: Demand::Name,
                pins: Vec::new(),
                tolerated: Tolerated::Nothing,
            },
            anonymous: false,
            ciphers_from: "CIPHERS",
            lines: (None, None),
        };
        let no_key = OwnKey::NONE;
        let store = Store::load(&Settings::default(), &setup, &no_key)?;
        Ok(Client { store })
    }

    /// Sends a request to the first of a host's addresses that can be had, and
    /// reads the reply, whatever its status.
    ///
    /// # Errors
    /// There is no reply, or none within the limits.
    pub fn exchange(
        &self,
        addresses: &[IpAddr],
        request: &Request<'_>,
        limits: Limits,
    ) -> Result<Response, NoResponse> {
        let deadline = Instant::now() + limits.time;
        let mut transport = self.connect(addresses, request, limits, deadline)?;
        transport.allow(left(deadline));
        let sent = transport
            .write_all(&head(request))
            .and_then(|()| match request.method {
                Method::Get => Ok(()),
                Method::Post { body, .. } => transport.write_all(body),
            })
            .and_then(|()| transport.flush());
        // A server that has answered and left before all was read has answered.
        if let Err(error) = sent {
            if error.kind() == io::ErrorKind::TimedOut {
                return Err(NoResponse::late(limits));
            }
        }
        let read = reply::read(&mut transport, limits.body);
        let mut response = read.map_err(|trouble| match trouble {
            reply::NoReply::Late => NoResponse::late(limits),
            reply::NoReply::Bad(why) => NoResponse::new(FailureKind::Reply, why),
        })?;
        // RFC 9112, 9.8: without close_notify nobody knows whether it is whole.
        if response.end == End::Closed && !transport.was_closed() {
            response.end = End::Torn;
        }
        transport.close_notify();
        Ok(response)
    }

    /// TLS with the first address that will have it.
    fn connect(
        &self,
        addresses: &[IpAddr],
        request: &Request<'_>,
        limits: Limits,
        deadline: Instant,
    ) -> Result<Transport, NoResponse> {
        let mut last = NoResponse::new(FailureKind::Unreachable, "it has no address");
        for (number, ip) in addresses.iter().enumerate() {
            let mut time = left(deadline);
            if time.is_zero() {
                return Err(NoResponse::late(limits));
            }
            if number + 1 < addresses.len() {
                time = time.min(ONE_ADDRESS);
            }
            let at = SocketAddr::new(*ip, request.port);
            match self.connect_to(at, request, time) {
                Ok(transport) => return Ok(transport),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn connect_to(
        &self,
        at: SocketAddr,
        request: &Request<'_>,
        time: Duration,
    ) -> Result<Transport, NoResponse> {
        let deadline = Instant::now() + time;
        let ip = at.ip();
        // In whole seconds, of which the handshake has what is left.
        let seconds = u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX);
        let dialer = Dialer {
            seconds: (seconds, 0),
            local_address: None,
            local_port: 0,
        };
        let socket = dialer.connect(&[at]).map_err(|failed| {
            let why = failed.first().map(|failed| report::reason(&failed.cause));
            let why = format!("{at}: {}", why.unwrap_or_default());
            NoResponse::new(FailureKind::Unreachable, why)
        })?;
        let _ = socket.set_nodelay(true);
        let reference = Reference::Host(request.host.clone());
        let ssl = self
            .store
            .connection(&reference, vec![Name::new(reference.clone())])
            .and_then(|mut ssl| ssl.set_alpn_protos(ALPN).map(|()| ssl))
            .map_err(|error| NoResponse::new(FailureKind::Handshake, report::tls_reason(&error)))?;
        let side = Side {
            kinds: &[],
            versions: (Version::Tls12, None),
        };
        let session =
            handshake::perform(ssl, socket, left(deadline), side).map_err(|why| match why {
                HandshakeFailure::Certificate(refusal, _) => {
                    let names = refusal.naming.as_ref().map(|naming| &naming.borne);
                    let names =
                        names.map_or_else(String::new, |names| format!(": it names {names}"));
                    NoResponse::new(
                        FailureKind::Certificate,
                        format!("{ip}: its certificate did not verify: {refusal}{names}"),
                    )
                }
                HandshakeFailure::Late(why) => {
                    NoResponse::new(FailureKind::Late, format!("{ip}: {why}"))
                }
                other => NoResponse::new(FailureKind::Handshake, format!("{ip}: {other}")),
            })?;
        match trust::verdict(session.ssl()) {
            Ok(trust::Verdict::Verified(Some(_))) => Ok(Transport::tls(session)),
            _ => Err(NoResponse::new(
                FailureKind::Certificate,
                format!("{ip}: its certificate was not checked"),
            )),
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The head of a request (RFC 9112, 3).
fn head(request: &Request<'_>) -> Vec<u8> {
    let Request {
        host, port, path, ..
    } = request;
    let at = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let (verb, given) = match request.method {
        Method::Get => ("GET", String::new()),
        Method::Post { media_type, body } => (
            "POST",
            format!(
                "Content-Type: {media_type}\r\nContent-Length: {}\r\n",
                body.len()
            ),
        ),
    };
    format!(
        "{verb} {path} HTTP/1.1\r\nHost: {host}{at}\r\nUser-Agent: ucspi-tls/{}\r\n\
         Accept: */*\r\nConnection: close\r\n{given}\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_rfc_9112_says() {
        let host = HostName::parse("mta-sts.a.example").expect("a name");
        let get = Request {
            host: &host,
            port: 443,
            path: "/.well-known/mta-sts.txt",
            method: Method::Get,
        };
        let text = String::from_utf8(head(&get)).expect("ASCII");
        assert!(text.starts_with(
            "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.a.example\r\nUser-Agent: "
        ));
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"));
        let post = Request {
            port: 8443,
            method: Method::Post {
                media_type: "application/tlsrpt+gzip",
                body: b"12345",
            },
            ..get
        };
        let text = String::from_utf8(head(&post)).expect("ASCII");
        assert!(text.contains("\r\nHost: mta-sts.a.example:8443\r\n"));
        assert!(
            text.ends_with(
                "\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Length: 5\r\n\r\n"
            )
        );
    }
}
