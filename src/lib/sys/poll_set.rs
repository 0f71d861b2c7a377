//! Many descriptors that are waited for as one, however many they are: what is
//! waited for is the set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

#[cfg(target_os = "linux")]
use epoll as queue;
#[cfg(not(target_os = "linux"))]
use kqueue as queue;

/// A set. It belongs to the process that made it: not every system lets a forked
/// one have it.
#[derive(Debug)]
pub struct PollSet(queue::Queue);

impl PollSet {
    /// An empty one.
    ///
    /// # Errors
    /// As epoll_create1(2) or kqueue(2).
    pub fn new() -> io::Result<PollSet> {
        Ok(PollSet(queue::new()?))
    }

    /// Waits for bytes on this one too, which is `key` to the caller.
    ///
    /// # Errors
    /// As epoll_ctl(2) or kevent(2).
    pub fn add(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        queue::add(&self.0, fd.as_fd(), key)
    }

    /// Waits for it no more. To be called before the descriptor is closed:
    /// another process may still have a copy.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = queue::remove(&self.0, fd.as_fd());
    }

    /// The keys of those that have bytes, or whose other side is gone: some of
    /// them, if they are many. Does not wait.
    #[must_use]
    pub fn ready(&self) -> Vec<u64> {
        queue::ready(&self.0).unwrap_or_default()
    }
}

impl AsFd for PollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        queue::descriptor(&self.0)
    }
}

/// epoll(7).
#[cfg(target_os = "linux")]
mod epoll {
    use std::io;
    use std::os::fd::{AsFd as _, BorrowedFd};

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

    pub type Queue = Epoll;

    pub fn new() -> io::Result<Queue> {
        Ok(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?)
    }

    pub fn add(queue: &Queue, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        Ok(queue.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
    }

    pub fn remove(queue: &Queue, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(queue.delete(fd)?)
    }

    pub fn ready(queue: &Queue) -> io::Result<Vec<u64>> {
        let mut events = [EpollEvent::empty(); 64];
        let count = queue.wait(&mut events, EpollTimeout::ZERO)?;
        Ok(events[..count].iter().map(EpollEvent::data).collect())
    }

    pub fn descriptor(queue: &Queue) -> BorrowedFd<'_> {
        queue.0.as_fd()
    }
}

/// FreeBSD's kqueue(2).
#[cfg(not(target_os = "linux"))]
mod kqueue {
    use std::io;
    use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

    pub type Queue = Kqueue;

    pub fn new() -> io::Result<Queue> {
        Ok(Kqueue::new()?)
    }

    fn change(queue: &Queue, fd: BorrowedFd<'_>, key: u64, flags: EvFlags) -> io::Result<()> {
        let number = usize::try_from(fd.as_raw_fd()).unwrap_or_default();
        let key = isize::try_from(key).map_err(io::Error::other)?;
        let filter = EventFilter::EVFILT_READ;
        let event = KEvent::new(number, filter, flags, FilterFlag::empty(), 0, key);
        queue.kevent(&[event], &mut [], None)?;
        Ok(())
    }

    pub fn add(queue: &Queue, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        change(queue, fd, key, EvFlags::EV_ADD)
    }

    pub fn remove(queue: &Queue, fd: BorrowedFd<'_>) -> io::Result<()> {
        change(queue, fd, 0, EvFlags::EV_DELETE)
    }

    pub fn ready(queue: &Queue) -> io::Result<Vec<u64>> {
        let nothing = KEvent::new(
            0,
            EventFilter::EVFILT_READ,
            EvFlags::empty(),
            FilterFlag::empty(),
            0,
            0,
        );
        let mut events = [nothing; 64];
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let count = queue.kevent(&[], &mut events, Some(at_once))?;
        let keys = events[..count].iter().map(KEvent::udata);
        Ok(keys.filter_map(|key| u64::try_from(key).ok()).collect())
    }

    pub fn descriptor(queue: &Queue) -> BorrowedFd<'_> {
        queue.as_fd()
    }
}
