//! Connecting to a server: each of its addresses, with a short first try and a
//! longer second one, as tcpclient's `-T x+y`.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::dialogue::client::lines::Stream;
use crate::sys::poll::{self, Ready};
use crate::sys::socket;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub struct Dialer {
    /// Seconds for the first and the second try of each address.
    pub seconds: (u32, u32),
    /// Local address.
    pub local_address: Option<IpAddr>,
    /// Local port; 0 leaves the choice to the kernel.
    pub local_port: u16,
}

/// An address that could not be reached.
#[derive(Debug)]
pub struct Unreachable {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    pub cause: io::Error,
}

impl Dialer {
    /// The first connection that succeeds; those addresses that timed out are
    /// tried again after all others failed.
    ///
    /// # Errors
    /// Every address, with its last failure.
    pub fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Vec<Unreachable>> {
        let (first, second) = self.seconds;
        let mut failed = Vec::new();
        let mut slow = Vec::new();
        for &address in addresses {
            match self.attempt(address, first) {
                Ok(stream) => return Ok(stream),
                Err(cause) if cause.kind() == io::ErrorKind::TimedOut && second > 0 => {
                    slow.push(address);
                }
                Err(cause) => failed.push(Unreachable { address, cause }),
            }
        }
        for address in slow {
            match self.attempt(address, second) {
                Ok(stream) => return Ok(stream),
                Err(cause) => failed.push(Unreachable { address, cause }),
            }
        }
        Err(failed)
    }

    fn attempt(&self, address: SocketAddr, seconds: u32) -> io::Result<TcpStream> {
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let fd = socket::stream_socket(address)?;
        if self.local_address.is_some() || self.local_port != 0 {
            let any = match address {
                SocketAddr::V4(_) => IpAddr::from([0; 4]),
                SocketAddr::V6(_) => IpAddr::from([0u16; 8]),
            };
            let local = SocketAddr::new(self.local_address.unwrap_or(any), self.local_port);
            socket::bind_local(&fd, local)?;
        }
        if !socket::begin_connect(&fd, address)? {
            let came = poll::one(fd.as_fd(), Ready::WRITE, deadline)?;
            if !came.write && !came.gone {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
        }
        socket::end_connect(fd)
    }
}

/// A connected socket whose reads and writes wait no longer than a deadline,
/// however the peer's bytes drip.
pub struct DeadlineSocket<'a> {
    /// The socket; whether it waits by itself makes no difference.
    pub socket: &'a TcpStream,
    /// When reading and writing fail with [`io::ErrorKind::TimedOut`].
    pub deadline: Instant,
}

impl DeadlineSocket<'_> {
    fn wait(&self, ready: Ready) -> io::Result<()> {
        let came = poll::one(self.socket.as_fd(), ready, self.deadline)?;
        if came.is_nothing() || Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Read for DeadlineSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(Ready::READ)?;
            match socket::receive(self.socket, buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

impl Stream for DeadlineSocket<'_> {
    fn has_spoken(&mut self) -> io::Result<bool> {
        // Reading tells of a failure, too.
        Ok(socket::peek(self.socket, &mut [0]).is_ok_and(|count| count > 0))
    }
}

impl Write for DeadlineSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(Ready::WRITE)?;
            match socket::transmit(self.socket, bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
