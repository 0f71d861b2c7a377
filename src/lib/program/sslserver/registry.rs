//! What the processes of a connection tell the supervisor, over one pipe that
//! all of them share. An entry is written whole or not at all: it is far below
//! PIPE_BUF. Nobody writes here who has read a byte of the client's.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use crate::sys::fd;
use crate::sys::process::ProcessId;

/// Bytes of one entry: the launcher, what it is about, an address.
pub(super) const LENGTH: usize = 24;

/// About one connection, which is known by its launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The client's address, as the PROXY header has it.
    Address(IpAddr),
    /// Its engine.
    Engine(ProcessId),
}

impl Entry {
    /// Tells the supervisor. One that is gone needs to be told nothing: its
    /// connections live on.
    ///
    /// # Errors
    /// As write(2).
    pub fn send(self, registry: BorrowedFd<'_>, launcher: ProcessId) -> std::io::Result<()> {
        match fd::write_all(registry, &self.to_bytes(launcher)) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    fn to_bytes(self, launcher: ProcessId) -> [u8; LENGTH] {
        let (engine, address) = match self {
            // No process has the number 0.
            Entry::Address(IpAddr::V4(v4)) => (0, v4.to_ipv6_mapped()),
            Entry::Address(IpAddr::V6(v6)) => (0, v6),
            Entry::Engine(engine) => (engine, Ipv6Addr::UNSPECIFIED),
        };
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&launcher.to_ne_bytes());
        bytes[4..8].copy_from_slice(&engine.to_ne_bytes());
        bytes[8..].copy_from_slice(&address.octets());
        bytes
    }

    /// The launcher, and what its connection told.
    pub fn from_bytes(bytes: &[u8; LENGTH]) -> (ProcessId, Entry) {
        let [l0, l1, l2, l3, e0, e1, e2, e3, address @ ..] = *bytes;
        let entry = match ProcessId::from_ne_bytes([e0, e1, e2, e3]) {
            0 => Entry::Address(Ipv6Addr::from(address).to_canonical()),
            engine => Entry::Engine(engine),
        };
        (ProcessId::from_ne_bytes([l0, l1, l2, l3]), entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_arrive_as_they_were_sent() {
        for entry in [
            Entry::Engine(4711),
            Entry::Engine(i32::MAX),
            Entry::Address("192.0.2.7".parse().expect("an address")),
            Entry::Address("2001:db8::7".parse().expect("an address")),
            Entry::Address("::".parse().expect("an address")),
        ] {
            assert_eq!(Entry::from_bytes(&entry.to_bytes(42)), (42, entry));
        }
    }
}
