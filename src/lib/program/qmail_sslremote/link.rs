//! One connection to a server, in plain or in TLS, whose reads and writes end
//! with a deadline that is set before each.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use openssl::ssl::ErrorCode;

use crate::dialer::Clear;
use crate::handshake::{Session, later_failure};
use crate::sys::poll::{self, Ready};

/// A connection.
pub struct Link {
    inner: Inner,
    deadline: Instant,
}

enum Inner {
    Clear(TcpStream),
    Tls(Session),
}

impl Link {
    /// In plain.
    #[must_use]
    pub fn clear(socket: TcpStream) -> Link {
        Link {
            inner: Inner::Clear(socket),
            deadline: Instant::now(),
        }
    }

    /// In TLS.
    #[must_use]
    pub fn tls(session: Session) -> Link {
        Link {
            inner: Inner::Tls(session),
            deadline: Instant::now(),
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

    /// The socket, for a handshake. Of TLS nothing is left.
    #[must_use]
    pub fn into_socket(self) -> Option<TcpStream> {
        match self.inner {
            Inner::Clear(socket) => Some(socket),
            Inner::Tls(_) => None,
        }
    }

    /// Ends TLS as it should be ended; waits for nothing.
    pub fn part(&mut self) {
        if let Inner::Tls(session) = &mut self.inner {
            let _ = session.shutdown();
            let _ = session.get_mut().push();
        }
    }
}

fn wait(session: &Session, ready: Ready, deadline: Instant) -> io::Result<()> {
    let mut wanted = [(session.get_ref().socket().as_fd(), ready)];
    poll::wait(&mut wanted, Some(deadline))?;
    if wanted[0].1 == Ready::default() || Instant::now() >= deadline {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// Sends what libssl wrote.
fn push(session: &mut Session, deadline: Instant) -> io::Result<()> {
    loop {
        session.get_mut().push()?;
        if !session.get_ref().has_waiting() {
            return Ok(());
        }
        wait(session, Ready::WRITE, deadline)?;
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = self.deadline;
        let session = match &mut self.inner {
            Inner::Clear(socket) => return Clear { socket, deadline }.read(buffer),
            Inner::Tls(session) => session,
        };
        loop {
            match session.ssl_read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => match error.code() {
                    ErrorCode::ZERO_RETURN => return Ok(0),
                    ErrorCode::WANT_READ if session.get_ref().has_ended() => return Ok(0),
                    ErrorCode::WANT_READ => {
                        push(session, deadline)?;
                        wait(session, Ready::READ, deadline)?;
                    }
                    ErrorCode::WANT_WRITE => push(session, deadline)?,
                    _ => return Err(io::Error::other(later_failure(session.ssl(), &error))),
                },
            }
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let deadline = self.deadline;
        let session = match &mut self.inner {
            Inner::Clear(socket) => return Clear { socket, deadline }.write(bytes),
            Inner::Tls(session) => session,
        };
        loop {
            match session.ssl_write(bytes) {
                Ok(count) => return Ok(count),
                Err(error) => match error.code() {
                    ErrorCode::WANT_WRITE => push(session, deadline)?,
                    ErrorCode::WANT_READ if !session.get_ref().has_ended() => {
                        wait(session, Ready::READ, deadline)?;
                    }
                    _ => return Err(io::Error::other(later_failure(session.ssl(), &error))),
                },
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let deadline = self.deadline;
        match &mut self.inner {
            Inner::Clear(_) => Ok(()),
            Inner::Tls(session) => push(session, deadline),
        }
    }
}
