//! The listening socket of a server: bound here, or given by a service manager.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::options::Family;
use crate::report::{Fail, reason};
use crate::resolve;
use crate::sys::{fd, socket};

/// A bound and listening socket that never waits.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Whether others have the socket too, and will listen on.
    shared: bool,
    /// [`Listener::finish`] was called.
    finished: bool,
}

/// What an accept came to.
#[derive(Debug)]
pub enum Accepted {
    /// A client.
    Client(TcpStream, SocketAddr),
    /// Nobody there (any more).
    Nobody,
    /// The system is out of descriptors or memory: the client waits in the
    /// backlog, and so should we.
    Exhausted(io::Error),
}

impl Listener {
    /// Binds and listens. Without IPv6 in the kernel, "every address" is every
    /// IPv4 address.
    ///
    /// # Errors
    /// Names and addresses as `resolve` says; `unable to bind: ADDRESS port PORT:
    /// REASON`, `unable to listen: ...`.
    pub fn open(
        host: &str,
        port: u16,
        family: Family,
        interface: Option<&str>,
        backlog: i32,
    ) -> Result<Listener, Fail> {
        let (address, only_v6) = resolve::listening_address(host, port, family, interface)?;
        let tried = socket::listen_on(address, only_v6, backlog);
        let tried = match tried {
            Err((_, error))
                if !only_v6
                    && matches!(
                        error.raw_os_error(),
                        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                    ) =>
            {
                let every = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port);
                socket::listen_on(every, true, backlog)
            }
            other => other,
        };
        let listener = |socket| Listener {
            socket,
            shared: false,
            finished: false,
        };
        tried.map(listener).map_err(|(step, error)| {
            let ip = match address.ip() {
                ip if ip.is_unspecified() => "every address".to_owned(),
                ip => ip.to_string(),
            };
            Fail::temporary(format!(
                "unable to {step}: {ip} port {port}: {}",
                reason(&error)
            ))
        })
    }

    /// Listens on a socket that the service manager opened, and keeps when this
    /// server ends.
    ///
    /// # Errors
    /// It is no listening TCP socket.
    pub fn adopt(socket: OwnedFd) -> Result<Listener, Fail> {
        if !socket::listens(&socket) {
            return Err(Fail::temporary(
                "unable to use LISTEN_FDS: descriptor 3 is not a listening TCP socket: in the socket \
                 unit write ListenStream= with a port, and Accept=no",
            ));
        }
        fd::set_nonblocking(&socket, true).map_err(Fail::unable("use LISTEN_FDS"))?;
        Ok(Listener {
            socket: TcpListener::from(socket),
            shared: true,
            finished: false,
        })
    }

    /// How this socket differs from what `host` and `port` ask for, if it does. Port
    /// 0 asks for nothing.
    ///
    /// # Errors
    /// Names and addresses as `resolve` says; `unable to get local address`.
    pub fn difference(
        &self,
        host: &str,
        port: u16,
        family: Family,
        interface: Option<&str>,
    ) -> Result<Option<String>, Fail> {
        if port == 0 {
            return Ok(None);
        }
        let (address, only_v6) = resolve::listening_address(host, port, family, interface)?;
        let wanted = reach(address, only_v6);
        let bound = self.address()?;
        let is = reach(bound, socket::is_only_v6(&self.socket));
        Ok((is != wanted).then(|| format!("{is}, and not {wanted}")))
    }

    /// The port that was bound.
    ///
    /// # Errors
    /// `unable to get local address`.
    pub fn port(&self) -> Result<u16, Fail> {
        Ok(self.address()?.port())
    }

    fn address(&self) -> Result<SocketAddr, Fail> {
        let address = self.socket.local_addr();
        address.map_err(Fail::unable("get local address"))
    }

    /// Begins no more connections: those that [`Listener::accept`] still gives
    /// are the last. A socket that others share gives none: its clients wait for
    /// the next server.
    pub fn finish(&mut self) {
        self.finished = true;
        if !self.shared {
            // Where it fails, a client that comes between the last accept and the
            // close is reset, as everywhere else.
            let _ = socket::end_listening(&self.socket);
        }
    }

    /// The next client, if one waits.
    #[must_use]
    pub fn accept(&self) -> Accepted {
        if self.shared && self.finished {
            return Accepted::Nobody;
        }
        match self.socket.accept() {
            Ok((client, address)) => Accepted::Client(client, address),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) =>
            {
                Accepted::Exhausted(error)
            }
            // The client went away, or the network did: the next one may do.
            Err(_) => Accepted::Nobody,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whom a listening socket serves, for a person to read.
fn reach(address: SocketAddr, only_v6: bool) -> String {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => format!("every IPv4 address, port {port}"),
        IpAddr::V6(ip) if ip.is_unspecified() && only_v6 => {
            format!("every IPv6 address, port {port}")
        }
        ip if ip.is_unspecified() => format!("every address, port {port}"),
        ip => format!("{} port {port}", ip.to_canonical()),
    }
}
