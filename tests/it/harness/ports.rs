//! Ports for programs that cannot be told to take any, and one that refuses: no
//! other test's socket comes between.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

/// The least port that is no number of a well-known service here.
const LEAST: u16 = 10_000;

/// A port that nothing listens on. It is below those that the kernel gives to who
/// asks for any, and no other caller in this process gets it.
pub fn free() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux");
    let given_out = range.split_whitespace().next().expect("two numbers");
    let end: u16 = given_out.parse().expect("a number");
    assert!(end > LEAST + 1000, "the kernel gives out ports from {end}");
    let width = end - LEAST;
    // Each run of the tests begins elsewhere.
    let begin =
        || AtomicU16::new(u16::try_from(std::process::id() * 97 % u32::from(width)).unwrap());
    let next = NEXT.get_or_init(begin);
    for _ in 0..width {
        let port = LEAST + next.fetch_add(1, Ordering::Relaxed) % width;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A port of 127.0.0.1 that refuses connections for as long as this is kept: its
/// socket is bound and does not listen.
pub struct Closed {
    pub at: SocketAddr,
    _socket: OwnedFd,
}

impl Closed {
    pub fn new() -> Closed {
        let kept = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("a socket");
        bind(kept.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bound");
        let at: SockaddrIn = getsockname(kept.as_raw_fd()).expect("an address");
        Closed {
            at: SocketAddrV4::from(at).into(),
            _socket: kept,
        }
    }
}
