//! TCP sockets: what the standard library cannot ask of them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddress;

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect,
    getsockname, getsockopt, listen, recv, send, setsockopt, socket, sockopt,
};

/// A listening socket, nonblocking and close-on-exec. On an IPv6 address
/// `only_v6` decides whether IPv4 clients are served too.
///
/// # Errors
/// The step that failed, and why.
pub fn listen_on(
    address: SocketAddr,
    only_v6: bool,
    backlog: i32,
) -> Result<TcpListener, (&'static str, io::Error)> {
    let fd = stream_socket(address).map_err(|error| ("create socket", error))?;
    let bound = setsockopt(&fd, sockopt::ReuseAddr, &true)
        .and_then(|()| match address {
            SocketAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6V6Only, &only_v6),
            SocketAddr::V4(_) => Ok(()),
        })
        .and_then(|()| bind(fd.as_raw_fd(), &SockaddrStorage::from(address)));
    bound.map_err(|error| ("bind", error.into()))?;
    let backlog = Backlog::new(backlog).unwrap_or(Backlog::MAXCONN);
    listen(&fd, backlog).map_err(|error| ("listen", error.into()))?;
    Ok(TcpListener::from(fd))
}

/// Lets a listening socket begin no more connections; those that are complete
/// can still be accepted, and the ones under way become so. A client that comes
/// now tries again, and is refused once the socket is closed.
///
/// # Errors
/// As setsockopt(2).
#[cfg(target_os = "linux")]
pub fn end_listening(listener: impl AsFd) -> io::Result<()> {
    let step = |code: u32, if_not: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: if_not,
        k,
    };
    // A TCP socket's filter sees the TCP header: drop what has SYN set. Sockets
    // that are accepted inherit it, and see no SYN.
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 13),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 1, 2),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program and its four steps live until the call returns; the
    // kernel copies them, and calls nothing back.
    let done = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of_val(&program)).unwrap_or_default(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Elsewhere there is no such filter: a client that comes too late is reset.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn end_listening(_: impl AsFd) -> io::Result<()> {
    Ok(())
}

/// A TCP socket of the address's family, nonblocking and close-on-exec.
///
/// # Errors
/// As socket(2).
pub fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    Ok(socket(
        family,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?)
}

/// Binds a socket to a local address before it connects.
///
/// # Errors
/// As bind(2).
pub fn bind_local(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    setsockopt(fd, sockopt::ReuseAddr, &true)?;
    Ok(bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?)
}

/// Begins to connect a nonblocking socket: true if it is done already.
///
/// # Errors
/// As connect(2).
pub fn begin_connect(fd: &OwnedFd, address: SocketAddr) -> io::Result<bool> {
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => Ok(true),
        Err(Errno::EINPROGRESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// How a begun connect ended.
///
/// # Errors
/// Why it failed.
pub fn end_connect(fd: OwnedFd) -> io::Result<TcpStream> {
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(TcpStream::from(fd)),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(target_os = "linux")]
use libc::{IP_OPTIONS, TIOCOUTQ as UNSENT};

/// netinet/in.h.
#[cfg(not(target_os = "linux"))]
const IP_OPTIONS: libc::c_int = 1;
#[cfg(not(target_os = "linux"))]
use libc::FIONWRITE as UNSENT;

/// Removes the IP options that a client's packets set on an IPv4 connection:
/// a source route would carry our answers to whomever it names.
pub fn kill_ip_options(socket: &TcpStream) {
    // SAFETY: a null pointer with length zero clears the options; the call
    // keeps nothing. On an IPv6 socket it fails, which is fine: IPv6 has none
    // that routes answers.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_OPTIONS,
            std::ptr::null(),
            0,
        );
    }
}

/// Bytes that the peer has not acknowledged yet, those not yet sent included;
/// none where the connection is no more, for then nobody ever will.
#[must_use]
pub fn unacknowledged(socket: impl AsFd) -> usize {
    if is_closed(&socket) {
        return 0;
    }
    let mut count: libc::c_int = 0;
    // SAFETY: this request writes one int through the pointer, which is valid for
    // the call.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), UNSENT, &raw mut count) };
    if done < 0 {
        return 0;
    }
    usize::try_from(count).unwrap_or(0)
}

/// Whether the kernel has given the connection up: a reset came, or it was
/// tried long enough. The queue keeps its bytes then, and no poll tells of it
/// once both directions are shut.
#[cfg(target_os = "linux")]
fn is_closed(socket: impl AsFd) -> bool {
    // TCP_CLOSE of the kernel's tcp_states.h.
    const CLOSED: u8 = 7;
    let mut state: u8 = 0;
    let mut length: libc::socklen_t = 1;
    // SAFETY: TCP_INFO begins with the state, one byte; the kernel writes no
    // more than `length` bytes through the pointer, which is valid for the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    done == 0 && state == CLOSED
}

/// Elsewhere the queue is asked alone.
#[cfg(not(target_os = "linux"))]
fn is_closed(_: impl AsFd) -> bool {
    false
}

/// Whether a descriptor is a TCP socket that listens.
#[must_use]
pub fn listens(fd: impl AsFd) -> bool {
    let family = || {
        let address = getsockname::<SockaddrStorage>(fd.as_fd().as_raw_fd()).ok()?;
        nix::sys::socket::SockaddrLike::family(&address)
    };
    getsockopt(&fd, sockopt::AcceptConn) == Ok(true)
        && getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream)
        && matches!(family(), Some(AddressFamily::Inet | AddressFamily::Inet6))
}

/// Whether an IPv6 socket serves no IPv4 clients.
#[must_use]
pub fn is_only_v6(fd: impl AsFd) -> bool {
    getsockopt(&fd, sockopt::Ipv6V6Only) == Ok(true)
}

/// Whether a descriptor is a socket.
#[must_use]
pub fn is_one(fd: impl AsFd) -> bool {
    getsockopt(&fd, sockopt::SockType).is_ok()
}

/// Receives without waiting.
///
/// # Errors
/// As recv(2); an interruption is tried again.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Looks at what [`receive`] would give, and leaves it there.
///
/// # Errors
/// As recv(2); an interruption is tried again.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    loop {
        match recv(socket.as_fd().as_raw_fd(), buffer, flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Sends without waiting and without a PIPE signal.
///
/// # Errors
/// As send(2); an interruption is tried again.
pub fn transmit(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    transmit_with(socket, bytes, MsgFlags::empty())
}

/// The same, and more comes at once: [`finish`], or further bytes, in whose segment
/// the last of these go.
///
/// # Errors
/// As [`transmit`].
pub fn transmit_with_more(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    let more = MsgFlags::from_bits_retain(libc::MSG_MORE);
    #[cfg(not(target_os = "linux"))]
    let more = MsgFlags::empty();
    transmit_with(socket, bytes, more)
}

fn transmit_with(socket: impl AsFd, bytes: &[u8], how: MsgFlags) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | how;
    loop {
        match send(socket.as_fd().as_raw_fd(), bytes, flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// How many seconds of silence come before a probe, and how many of these stay
/// unanswered before the peer is given up. The system of a peer that closed the
/// connection answers until it has forgotten that: a minute or two, and short of
/// that no probe can tell.
#[cfg(any(target_os = "freebsd", target_os = "linux"))]
const PROBE: (u32, u32) = (30, 10);

/// Has the kernel ask the peer of a TCP socket, again and again, whether it still
/// knows the connection: one that has only ended its output does. One that doesn't,
/// or is silent for minutes, is a hang-up for poll(2).
///
/// # Errors
/// As setsockopt(2): other sockets have no such thing.
pub fn probe(socket: impl AsFd) -> io::Result<()> {
    #[cfg(any(target_os = "freebsd", target_os = "linux"))]
    {
        setsockopt(&socket, sockopt::TcpKeepIdle, &PROBE.0)?;
        setsockopt(&socket, sockopt::TcpKeepInterval, &PROBE.0)?;
        setsockopt(&socket, sockopt::TcpKeepCount, &PROBE.1)?;
    }
    Ok(setsockopt(&socket, sockopt::KeepAlive, &true)?)
}

/// Tells the other side that nothing more will come.
///
/// # Errors
/// As shutdown(2).
pub fn end_output(socket: impl AsFd) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    Ok(nix::sys::socket::shutdown(
        fd,
        nix::sys::socket::Shutdown::Write,
    )?)
}

/// Tells the other side that nothing more will be read: what it sends from now
/// on fails. What it sent before can still be read, and then an end of file.
///
/// # Errors
/// As shutdown(2).
pub fn refuse(socket: impl AsFd) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    Ok(nix::sys::socket::shutdown(
        fd,
        nix::sys::socket::Shutdown::Read,
    )?)
}

/// An address in the namespace of unix(7) that has no files.
///
/// # Errors
/// The name is too long.
#[cfg(target_os = "linux")]
pub fn abstract_address(name: &[u8]) -> io::Result<UnixAddress> {
    use std::os::linux::net::SocketAddrExt as _;
    UnixAddress::from_abstract_name(name)
}

/// Elsewhere there is no such namespace.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn abstract_address(_: &[u8]) -> io::Result<UnixAddress> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The name of this host, as the system knows it.
#[must_use]
pub fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// The number of a network interface.
#[must_use]
pub fn interface_index(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

/// The name of a network interface.
#[must_use]
pub fn interface_name(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

/// The addresses of this machine's interfaces.
///
/// # Errors
/// As getifaddrs(3).
#[cfg(feature = "remote")]
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.collect())
}

/// Whether an IPv6 address needs an interface.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => address.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    }
}

/// The name that the system's resolver gives an address; `None` where it has
/// none or does not answer.
#[must_use]
pub fn name_of(address: IpAddr) -> Option<Vec<u8>> {
    let address = SockaddrStorage::from(SocketAddr::new(address, 0));
    let mut host = [0u8; 1025]; // NI_MAXHOST
    // SAFETY: the address is valid with its own length; getnameinfo writes at
    // most `host.len()` bytes, NUL included, and keeps no pointer.
    let code = unsafe {
        libc::getnameinfo(
            nix::sys::socket::SockaddrLike::as_ptr(&address),
            nix::sys::socket::SockaddrLike::len(&address),
            host.as_mut_ptr().cast(),
            host.len().try_into().unwrap_or(0),
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return None;
    }
    let end = host.iter().position(|&byte| byte == 0)?;
    Some(host[..end].to_vec())
}
