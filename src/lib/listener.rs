//! The listening socket of a server, and how many connections it lets in: in
//! all, and from one address.
#![forbid(unsafe_code)]

use std::collections::HashMap;
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
                "unable to use LISTEN_FDS: descriptor 3 is no listening TCP socket: in the socket \
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
        ip => format!("{} port {port}", resolve::plain(ip)),
    }
}

/// Connections in progress by client address; an IPv6 /64 counts as one.
#[derive(Debug, Default)]
pub struct Census(HashMap<IpAddr, usize>);

impl Census {
    /// How many connections an address has.
    #[must_use]
    pub fn count(&self, address: IpAddr) -> usize {
        self.0.get(&household(address)).copied().unwrap_or(0)
    }

    /// The one that has most, and how many.
    #[must_use]
    pub fn fullest(&self) -> Option<(IpAddr, usize)> {
        let most = self.0.iter().max_by_key(|(_, count)| **count)?;
        Some((*most.0, *most.1))
    }

    /// One more.
    pub fn enter(&mut self, address: IpAddr) {
        *self.0.entry(household(address)).or_default() += 1;
    }

    /// One less.
    pub fn leave(&mut self, address: IpAddr) {
        let key = household(address);
        if let Some(count) = self.0.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address.
fn household(address: IpAddr) -> IpAddr {
    match resolve::plain(address) {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_counts_as_one_client() {
        let mut census = Census::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        census.enter(address("2001:db8::1"));
        census.enter(address("2001:db8::2"));
        census.enter(address("::ffff:192.0.2.1"));
        assert_eq!(census.count(address("2001:db8::ffff:0:0:1")), 2);
        assert_eq!(census.count(address("2001:db8:0:1::1")), 0);
        assert_eq!(census.count(address("192.0.2.1")), 1);
        assert_eq!(census.count(address("192.0.2.2")), 0);
        census.leave(address("192.0.2.1"));
        assert_eq!(census.count(address("192.0.2.1")), 0);
        assert_eq!(census.0.len(), 1);
    }
}
