//! One connection to a server, in plain or in TLS, whose reads and writes end
//! with a deadline that is set before each.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, ShutdownState, SslRef};

use crate::dialer::DeadlineSocket;
use crate::dialogue::client::lines::Stream;
use crate::handshake::{self, Session, later_failure};
use crate::sys::poll::{self, Ready};

/// A connection.
pub struct Transport {
    inner: Inner,
    deadline: Instant,
    watched: bool,
}

enum Inner {
    Clear(TcpStream),
    /// The socket was taken.
    Ended,
    Tls(Session),
}

impl Transport {
    /// In plain.
    #[must_use]
    pub fn clear(socket: TcpStream) -> Transport {
        Transport {
            inner: Inner::Clear(socket),
            deadline: Instant::now(),
            watched: false,
        }
    }

    /// In TLS.
    #[must_use]
    pub fn tls(session: Session) -> Transport {
        Transport {
            inner: Inner::Tls(session),
            deadline: Instant::now(),
            watched: false,
        }
    }

    /// Whether it is in plain.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        matches!(self.inner, Inner::Clear(_))
    }

    /// Whatever comes now has this much time.
    pub fn allow(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
    }

    /// While it is watched, writing fails with [`io::ErrorKind::WouldBlock`] as soon
    /// as the server speaks or ends; what was written before counts.
    pub fn watch(&mut self, on: bool) {
        self.watched = on;
    }

    /// The socket, for a handshake, where it is not in TLS yet. After that there
    /// is no connection here.
    pub fn take_socket(&mut self) -> Option<TcpStream> {
        match std::mem::replace(&mut self.inner, Inner::Ended) {
            Inner::Clear(socket) => Some(socket),
            Inner::Ended | Inner::Tls(_) => None,
        }
    }

    /// The alert by which the server has refused the session, with what it probably
    /// means.
    #[must_use]
    pub fn last_alert(&self) -> Option<String> {
        match &self.inner {
            Inner::Tls(session) => handshake::last_alert(session.ssl()),
            Inner::Clear(_) | Inner::Ended => None,
        }
    }

    /// Whether that alert is about our certificate, or that we have none.
    #[must_use]
    pub fn refuses_certificate(&self) -> bool {
        match &self.inner {
            Inner::Tls(session) => handshake::refuses_certificate(session.ssl()),
            Inner::Clear(_) | Inner::Ended => false,
        }
    }

    /// The TLS of the connection, where there is any.
    #[must_use]
    pub fn ssl(&self) -> Option<&SslRef> {
        match &self.inner {
            Inner::Tls(session) => Some(session.ssl()),
            Inner::Clear(_) | Inner::Ended => None,
        }
    }

    /// Whether the server has ended TLS as it should be ended: what came before is
    /// whole.
    #[must_use]
    pub fn was_closed(&mut self) -> bool {
        match &mut self.inner {
            Inner::Tls(session) => session.get_shutdown().contains(ShutdownState::RECEIVED),
            Inner::Clear(_) | Inner::Ended => false,
        }
    }

    /// Ends TLS as it should be ended; waits for nothing.
    pub fn close_notify(&mut self) {
        if let Inner::Tls(session) = &mut self.inner {
            let _ = session.shutdown();
            let _ = session.get_mut().push();
        }
    }
}

fn wait(session: &mut Session, ready: Ready, deadline: Instant) -> io::Result<()> {
    let came = poll::one(session.get_mut().pollable(), ready, deadline)?;
    if came.is_nothing() || Instant::now() >= deadline {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// Waits until there is room, or the server has said something; which it is.
fn speaks(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    poll::one(socket, BOTH, deadline).map(|came| came.read)
}

const BOTH: Ready = Ready {
    read: true,
    write: true,
    gone: false,
};

/// Sends what libssl wrote.
fn push(session: &mut Session, deadline: Instant, watched: bool) -> io::Result<()> {
    loop {
        session.get_mut().push()?;
        if !session.get_ref().has_waiting() {
            return Ok(());
        }
        if !watched {
            wait(session, Ready::WRITE, deadline)?;
        } else if speaks(session.get_mut().pollable(), deadline)? && has_said(session) {
            return Err(io::ErrorKind::WouldBlock.into());
        } else if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Whether what came is for us, or the end, and not for libssl alone.
fn has_said(session: &mut Session) -> bool {
    match session.ssl_peek(&mut [0]) {
        Err(error) if error.code() == ErrorCode::WANT_READ => session.get_ref().has_ended(),
        Err(error) => error.code() != ErrorCode::WANT_WRITE,
        Ok(_) => true,
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = self.deadline;
        let session = match &mut self.inner {
            Inner::Clear(socket) => return DeadlineSocket { socket, deadline }.read(buffer),
            Inner::Ended => return Err(io::ErrorKind::NotConnected.into()),
            Inner::Tls(session) => session,
        };
        loop {
            match session.ssl_read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => match error.code() {
                    ErrorCode::ZERO_RETURN => return Ok(0),
                    ErrorCode::WANT_READ if session.get_ref().has_ended() => return Ok(0),
                    ErrorCode::WANT_READ => {
                        push(session, deadline, false)?;
                        wait(session, Ready::READ, deadline)?;
                    }
                    ErrorCode::WANT_WRITE => push(session, deadline, false)?,
                    _ => return Err(io::Error::other(later_failure(session.ssl(), &error))),
                },
            }
        }
    }
}

impl Stream for Transport {
    fn has_spoken(&mut self) -> io::Result<bool> {
        let deadline = self.deadline;
        let session = match &mut self.inner {
            Inner::Clear(socket) => return DeadlineSocket { socket, deadline }.has_spoken(),
            Inner::Ended => return Err(io::ErrorKind::NotConnected.into()),
            Inner::Tls(session) => session,
        };
        match session.ssl_peek(&mut [0]) {
            Ok(count) => Ok(count > 0),
            Err(error) => match error.code() {
                ErrorCode::WANT_READ | ErrorCode::WANT_WRITE | ErrorCode::ZERO_RETURN => Ok(false),
                // libssl tells of it once.
                _ => Err(io::Error::other(later_failure(session.ssl(), &error))),
            },
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (deadline, watched) = (self.deadline, self.watched);
        let session = match &mut self.inner {
            Inner::Clear(socket) if watched && speaks(socket.as_fd(), deadline)? => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Inner::Clear(socket) => return DeadlineSocket { socket, deadline }.write(bytes),
            Inner::Ended => return Err(io::ErrorKind::NotConnected.into()),
            Inner::Tls(session) => session,
        };
        loop {
            match session.ssl_write(bytes) {
                Ok(count) => return Ok(count),
                Err(error) => match error.code() {
                    ErrorCode::WANT_WRITE => push(session, deadline, watched)?,
                    ErrorCode::WANT_READ if !session.get_ref().has_ended() => {
                        wait(session, Ready::READ, deadline)?;
                    }
                    _ => return Err(io::Error::other(later_failure(session.ssl(), &error))),
                },
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let (deadline, watched) = (self.deadline, self.watched);
        match &mut self.inner {
            Inner::Clear(_) | Inner::Ended => Ok(()),
            Inner::Tls(session) => push(session, deadline, watched),
        }
    }
}
