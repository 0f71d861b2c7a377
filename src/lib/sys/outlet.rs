//! Descriptor 2, written to without waiting. Others have it too, so that it must not
//! be made one that never waits: where the system lets us, it is opened once more.

use std::io::{self, Stderr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::fd;
use super::poll::{self, Ready};

/// The way to whoever reads descriptor 2.
#[derive(Debug)]
pub struct Outlet {
    standard: Stderr,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// A file: writing to it waits for nobody.
    File,
    /// A pipe or a terminal, opened by us: whoever else writes to it, we don't wait.
    Own(OwnedFd),
    /// What could not be opened again: asked for room before each write. Somebody else
    /// may take that in between.
    Shared,
    Socket,
}

/// This process's, and that of those that it forks.
pub fn outlet() -> &'static Outlet {
    static OUTLET: OnceLock<Outlet> = OnceLock::new();
    OUTLET.get_or_init(|| {
        let standard = io::stderr();
        let way = Way::to(standard.as_fd());
        Outlet { standard, way }
    })
}

impl Way {
    fn to(log: BorrowedFd<'_>) -> Way {
        let kind = fstat(log).map(|about| SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT);
        match kind {
            Ok(SFlag::S_IFSOCK) => Way::Socket,
            Ok(SFlag::S_IFIFO | SFlag::S_IFCHR) => {
                let flags =
                    OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
                let path = format!("/proc/self/fd/{}", log.as_raw_fd());
                open(path.as_str(), flags, Mode::empty()).map_or(Way::Shared, Way::Own)
            }
            _ => Way::File,
        }
    }
}

impl Outlet {
    /// Writes what there is room for: of a line that is no longer than `PIPE_BUF`, to a
    /// pipe, all or nothing.
    ///
    /// # Errors
    /// As write(2) or send(2); `WouldBlock` where there is no room.
    pub fn offer(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.way {
            Way::File => fd::write_some(&self.standard, bytes),
            Way::Own(own) => fd::write_some(own, bytes),
            Way::Shared => {
                let mut wanted = [(self.standard.as_fd(), Ready::WRITE)];
                poll::wait(&mut wanted, Some(Instant::now()))?;
                if wanted[0].1 == Ready::default() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                fd::write_some(&self.standard, bytes)
            }
            Way::Socket => send_some(&self.standard, bytes),
        }
    }

    /// Descriptor 2.
    #[must_use]
    pub fn standard(&self) -> BorrowedFd<'_> {
        self.standard.as_fd()
    }

    /// The descriptor besides number 2 that must stay open, if there is one.
    #[must_use]
    pub fn own(&self) -> Option<BorrowedFd<'_>> {
        match &self.way {
            Way::Own(own) => Some(own.as_fd()),
            Way::File | Way::Shared | Way::Socket => None,
        }
    }
}

impl AsFd for Outlet {
    /// To wait for room.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own().unwrap_or(self.standard.as_fd())
    }
}

fn send_some(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match send(socket.as_fd().as_raw_fd(), bytes, flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_opened_again_and_the_others_keep_theirs() {
        let (reads, writes) = fd::pipe().expect("a pipe");
        let Way::Own(own) = Way::to(writes.as_fd()) else {
            panic!("not opened");
        };
        let line = [b'x'; 1000];
        let full = loop {
            if let Err(error) = fd::write_some(&own, &line) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!fd::is_nonblocking(&writes).expect("flags"));
        assert_eq!(fd::read_some(&reads, &mut [0; 4096]).expect("reads"), 4096);
        assert_eq!(fd::write_some(&own, &line).expect("room"), line.len());
    }

    #[test]
    fn a_socket_has_its_own_way() {
        let (one, other) = fd::stream_pair().expect("sockets");
        assert!(matches!(Way::to(one.as_fd()), Way::Socket));
        let full = loop {
            if let Err(error) = send_some(&one, &[b'x'; 1000]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!fd::is_nonblocking(&one).expect("flags"));
        drop(other);
        let gone = send_some(&one, b"x").expect_err("nobody reads");
        assert_ne!(gone.kind(), io::ErrorKind::WouldBlock);
    }
}
