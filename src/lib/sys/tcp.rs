//! What the kernel knows of a TCP connection whose descriptor another process has:
//! asked for by its addresses over sock_diag(7).
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "other systems do not tell")
)]

use std::io;
use std::net::{SocketAddr, TcpStream};

/// A TCP connection, by what tells it from every other of this system. It holds no
/// descriptor.
#[derive(Clone, Copy, Debug)]
pub struct TcpConnection {
    local: SocketAddr,
    remote: SocketAddr,
    /// The socket's: the next connection may have the same addresses.
    inode: u64,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The kernel knows it no more, or both ends have closed it.
    Over,
    /// Bytes that the peer has acknowledged, that it sent, and that wait to be
    /// sent.
    Bytes {
        /// Acknowledged.
        acknowledged: u64,
        /// Received.
        received: u64,
        /// Not acknowledged yet.
        waiting: u32,
    },
}

impl TcpConnection {
    /// The connection of a socket whose peer has the address `remote`.
    ///
    /// # Errors
    /// As getsockname(2) and fstat(2).
    pub fn of(stream: &TcpStream, remote: SocketAddr) -> io::Result<TcpConnection> {
        Ok(TcpConnection {
            local: stream.local_addr()?,
            remote,
            #[allow(
                clippy::useless_conversion,
                reason = "machines of 32 bits have a smaller number"
            )]
            inode: nix::sys::stat::fstat(stream)?.st_ino.into(),
        })
    }

    /// Asks the kernel how far it is. Does not wait.
    ///
    /// # Errors
    /// This system does not tell.
    pub fn progress(&self) -> io::Result<Progress> {
        imp::progress(self)
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::net::IpAddr;
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    };

    use super::{Progress, SocketAddr, TcpConnection, io};

    /// `SOCK_DIAG_BY_FAMILY`, linux/sock_diag.h.
    const BY_FAMILY: u16 = 20;
    /// `NLMSG_ERROR`, linux/netlink.h.
    const ERROR: u16 = 2;
    /// `NLM_F_REQUEST`.
    const REQUEST: u16 = 1;
    /// `INET_DIAG_INFO`, linux/inet_diag.h: the kernel's struct tcp_info.
    const INFO: u16 = 2;
    /// Bytes of struct nlmsghdr.
    const HEADER: usize = 16;
    /// Bytes of struct inet_diag_msg.
    const MESSAGE: usize = 72;
    /// States in which both ends have closed, linux/tcp_states.h: TIME_WAIT,
    /// CLOSE, LAST_ACK, CLOSING.
    const OVER: [u8; 4] = [6, 7, 9, 11];

    pub fn progress(connection: &TcpConnection) -> io::Result<Progress> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(
            socket.as_raw_fd(),
            &request(connection),
            &kernel,
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 4096];
        // The kernel answered while it was asked.
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        let malformed = || io::ErrorKind::InvalidData.into();
        parse(&answer[..length], connection.inode).unwrap_or_else(|| Err(malformed()))
    }

    /// struct nlmsghdr and struct inet_diag_req_v2 for one connection.
    fn request(connection: &TcpConnection) -> Vec<u8> {
        let (local, remote) = (connection.local, connection.remote);
        let (family, scope) = match (local.ip().to_canonical(), local) {
            (IpAddr::V4(_), _) => (libc::AF_INET, 0),
            (IpAddr::V6(_), SocketAddr::V6(v6)) => (libc::AF_INET6, v6.scope_id()),
            (IpAddr::V6(_), SocketAddr::V4(_)) => (libc::AF_INET6, 0),
        };
        let family = u8::try_from(family).unwrap_or_default();
        let protocol = u8::try_from(libc::IPPROTO_TCP).unwrap_or_default();
        let mut body = vec![family, protocol, 1 << (INFO - 1), 0];
        // Whatever state it is in.
        body.extend(u32::MAX.to_ne_bytes());
        body.extend(local.port().to_be_bytes());
        body.extend(remote.port().to_be_bytes());
        for address in [local.ip(), remote.ip()] {
            let mut bytes = [0; 16];
            match address.to_canonical() {
                IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => bytes = v6.octets(),
            }
            body.extend(bytes);
        }
        body.extend(scope.to_ne_bytes());
        // No cookie: INET_DIAG_NOCOOKIE.
        body.extend([0xff; 8]);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(BY_FAMILY.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        message
    }

    fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
    }

    fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
    }

    fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
    }

    /// What the kernel's answer says of the socket with this inode; `None` where it
    /// is no answer.
    pub(super) fn parse(answer: &[u8], inode: u64) -> Option<io::Result<Progress>> {
        let body = answer.get(HEADER..)?;
        match u16_at(answer, 4)? {
            ERROR => {
                let number = i32::from_ne_bytes(u32_at(body, 0)?.to_ne_bytes()).wrapping_neg();
                return Some(if number == libc::ENOENT {
                    Ok(Progress::Over)
                } else {
                    Err(io::Error::from_raw_os_error(number))
                });
            }
            BY_FAMILY => {}
            _ => return None,
        }
        let state = *body.get(1)?;
        let other = u64::from(u32_at(body, MESSAGE - 4)?) != inode & u64::from(u32::MAX);
        if other || OVER.contains(&state) {
            return Some(Ok(Progress::Over));
        }
        let waiting = u32_at(body, MESSAGE - 12)?;
        let mut rest = body.get(MESSAGE..)?;
        while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let attribute = rest.get(4..length.into())?;
            if kind == INFO {
                return Some(Ok(Progress::Bytes {
                    // tcpi_bytes_acked and tcpi_bytes_received of struct tcp_info.
                    acknowledged: u64_at(attribute, 120)?,
                    received: u64_at(attribute, 128)?,
                    waiting,
                }));
            }
            rest = rest.get(usize::from(length).next_multiple_of(4)..)?;
        }
        None
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::{Progress, TcpConnection, io};

    pub fn progress(_connection: &TcpConnection) -> io::Result<Progress> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernel_tells_how_far_a_connection_is() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a listener");
            let at = listener.local_addr().expect("an address");
            let mut peer = TcpStream::connect(at).expect("a connection");
            let (mut stream, remote) = listener.accept().expect("a client");
            let known = TcpConnection::of(&stream, remote).expect("known");
            let first = known.progress().expect("told");
            assert!(matches!(first, Progress::Bytes { received: 0, .. }));
            assert_eq!(known.progress().expect("told"), first, "nothing moved");
            peer.write_all(b"four").expect("sent");
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).expect("received");
            let second = known.progress().expect("told");
            assert!(matches!(second, Progress::Bytes { received: 4, .. }));
            // The next one has the same addresses and is another.
            let other = TcpConnection { inode: 1, ..known };
            assert_eq!(other.progress().expect("told"), Progress::Over);
            // A reset ends it, though we have its descriptor.
            nix::sys::socket::setsockopt(
                &peer,
                nix::sys::socket::sockopt::Linger,
                &libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                },
            )
            .expect("set");
            drop(peer);
            let _ = stream.read(&mut bytes);
            assert_eq!(known.progress().expect("told"), Progress::Over);
        }
    }

    #[test]
    fn a_garbled_answer_is_none() {
        for length in [0, 4, 15, 16, 19, 40, 87, 88] {
            let mut answer = vec![0; length];
            if length > 5 {
                answer[4] = 20;
            }
            assert!(imp::parse(&answer, 0).is_none(), "{length}");
        }
    }
}
