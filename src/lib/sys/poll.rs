//! Waiting for descriptors, with deadlines on the monotonic clock.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll, ppoll};
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;

/// What to wait for on one descriptor, and after the wait what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Bytes (or an end of file) can be read.
    pub read: bool,
    /// Bytes can be written.
    pub write: bool,
    /// Came only: the other side is gone, or the descriptor has an error.
    pub gone: bool,
}

impl Ready {
    /// Wait for bytes.
    pub const READ: Ready = Ready {
        read: true,
        write: false,
        gone: false,
    };
    /// Wait for room.
    pub const WRITE: Ready = Ready {
        read: false,
        write: true,
        gone: false,
    };

    /// Nothing came: the time is over.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Ready::default()
    }

    fn flags(self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.read);
        flags.set(PollFlags::POLLOUT, self.write);
        flags
    }

    fn came(flags: PollFlags) -> Ready {
        Ready {
            // POLLHUP without POLLIN is an end of file to be read.
            read: flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP),
            write: flags.contains(PollFlags::POLLOUT),
            gone: flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL),
        }
    }
}

/// What comes of one descriptor before the deadline.
///
/// # Errors
/// As [`wait`].
pub fn one(fd: BorrowedFd<'_>, ready: Ready, deadline: Instant) -> io::Result<Ready> {
    let mut wanted = [(fd, ready)];
    wait(&mut wanted, Some(deadline))?;
    Ok(wanted[0].1)
}

/// Waits until one of the descriptors is ready or the deadline has passed
/// (`None`: for ever). A descriptor that is listed with nothing to wait for
/// still reports `gone`.
///
/// # Errors
/// As poll(2); an interrupted wait goes on.
pub fn wait(wanted: &mut [(BorrowedFd<'_>, Ready)], deadline: Option<Instant>) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = wanted
        .iter()
        .map(|(fd, ready)| PollFd::new(*fd, ready.flags()))
        .collect();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(&mut fds, timeout(left)) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            // A long wait is cut at poll's limit.
            Ok(0) if left.is_none_or(|left| left > Duration::from_millis(i32::MAX as u64)) => {}
            Ok(_) => break,
        }
    }
    for ((_, ready), fd) in wanted.iter_mut().zip(&fds) {
        *ready = Ready::came(fd.revents().unwrap_or(PollFlags::empty()));
    }
    Ok(())
}

/// poll's milliseconds, rounded up so that a deadline is never met early.
fn timeout(left: Option<Duration>) -> nix::poll::PollTimeout {
    match left {
        None => nix::poll::PollTimeout::NONE,
        Some(left) => {
            let millis = left.as_nanos().div_ceil(1_000_000);
            nix::poll::PollTimeout::try_from(millis.min(i32::MAX as u128))
                .unwrap_or(nix::poll::PollTimeout::MAX)
        }
    }
}

/// Longer waits are cut: every system takes this one.
const LONGEST: Duration = Duration::from_secs(1_000_000);

/// Waits for descriptors or a signal of those that `mask` lets through; true
/// when a descriptor is ready.
///
/// # Errors
/// As ppoll(2), but an interruption or the end of `time` is `false`.
pub fn wait_with_signals(
    wanted: &mut [(BorrowedFd<'_>, Ready)],
    time: Option<Duration>,
    mask: SigSet,
) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = wanted
        .iter()
        .map(|(fd, ready)| PollFd::new(*fd, ready.flags()))
        .collect();
    // To the nanosecond: one that ends early is a turn for nothing, and then another.
    let time = time.map(|time| TimeSpec::from(time.min(LONGEST)));
    let count = match ppoll(&mut fds, time, Some(mask)) {
        Err(Errno::EINTR) => 0,
        other => other?,
    };
    for ((_, ready), fd) in wanted.iter_mut().zip(&fds) {
        *ready = if count == 0 {
            Ready::default()
        } else {
            Ready::came(fd.revents().unwrap_or(PollFlags::empty()))
        };
    }
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_a_part_of_a_millisecond_is_waited_out() {
        let time = Duration::from_micros(1900);
        let began = Instant::now();
        let mask = SigSet::thread_get_mask().expect("this thread's");
        let any = wait_with_signals(&mut [], Some(time), mask).expect("a wait");
        assert!(!any && began.elapsed() >= time);
    }
}
