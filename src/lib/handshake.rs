//! A context and a socket made into a session within a deadline, and the reason
//! in an administrator's words where that fails.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, Ssl, SslStream};

use crate::report::tls_reason;
use crate::settings::Version;
use crate::store::KeyKind;
use crate::sys::poll::{self, Ready};
use crate::sys::socket;

mod diagnosis;
mod failure;
mod wire;

pub use failure::{HandshakeFailure, later_failure};
use failure::{explain, gone, lateness, lost};
#[cfg(feature = "remote")]
pub use failure::{last_alert, refuses_certificate};
pub use wire::Wire;

/// How long a failed handshake waits for its alert to be read.
const PARTING: Duration = Duration::from_secs(2);

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
) -> Result<Session, HandshakeFailure> {
    let broken = |error: openssl::error::ErrorStack| HandshakeFailure::Refused(tls_reason(&error));
    let mut stream = SslStream::new(ssl, Wire::new(socket)).map_err(broken)?;
    let deadline = Instant::now() + limit;
    stream.get_mut().gather(true);
    stream.get_mut().spare(true);
    loop {
        let done = stream.do_handshake();
        // A whole flight goes out at once, and the tickets behind the handshake.
        let pushed = stream.get_mut().push();
        let error = match done {
            Ok(()) => {
                pushed.map_err(|error| lost(&stream, &error))?;
                stream.get_mut().gather(false);
                stream.get_mut().spare(false);
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
                linger(&mut stream);
                return Err(failure);
            }
        };
        pushed.map_err(|error| lost(&stream, &error))?;
        if stream.get_ref().has_ended() && ready.read {
            return Err(gone(&stream));
        }
        if Instant::now() >= deadline || !wait(&mut stream, ready, deadline) {
            let failure = HandshakeFailure::Late(lateness(&stream, limit));
            return Err(failure);
        }
    }
}

/// Waits; false when the time is over.
fn wait(stream: &mut Session, ready: Ready, deadline: Instant) -> bool {
    poll::one(stream.get_mut().pollable(), ready, deadline).is_ok_and(|came| !came.is_nothing())
}

/// Ends a connection so that the peer can read our alert: bytes of its that are
/// left unread would make the kernel throw away what we sent.
fn linger(stream: &mut Session) {
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
                let came = poll::one(wire.socket().as_fd(), Ready::READ, deadline);
                if came.map_or(true, Ready::is_nothing) {
                    return;
                }
            }
            _ => return,
        }
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
