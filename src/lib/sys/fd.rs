//! Descriptors: pipes, flags, and closing what a process must not have.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::{pipe2, read, write};

/// A pipe, close-on-exec: (read end, write end).
///
/// # Errors
/// As pipe(2).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// Two connected stream sockets, close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Lets calls on a descriptor return at once, or wait.
///
/// # Errors
/// As fcntl(2).
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Whether calls on a descriptor return at once.
///
/// # Errors
/// As fcntl(2).
#[cfg(test)]
pub fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    Ok(flags.contains(OFlag::O_NONBLOCK))
}

/// Whether a descriptor survives exec.
///
/// # Errors
/// As fcntl(2).
pub fn set_close_on_exec(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flag = if on {
        FdFlag::FD_CLOEXEC
    } else {
        FdFlag::empty()
    };
    fcntl(&fd, FcntlArg::F_SETFD(flag))?;
    Ok(())
}

/// A copy of a descriptor at `least` or above, close-on-exec.
///
/// # Errors
/// As fcntl(2), and `EMFILE` where the limit is below `least`, too.
pub fn duplicate_above(fd: impl AsFd, least: RawFd) -> io::Result<OwnedFd> {
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(least)) {
        Ok(copy) => Ok(owned(copy)),
        // fcntl(2): a number that the limit does not allow. "Invalid argument" helps
        // nobody.
        Err(Errno::EINVAL) => Err(Errno::EMFILE.into()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until nobody else holds the lock of this file, and takes it. It is
/// given back when the last copy of the descriptor is closed.
///
/// # Errors
/// As flock(2).
pub fn lock(fd: impl AsFd) -> io::Result<()> {
    flock(fd, libc::LOCK_EX)
}

/// Takes the lock of this file, unless somebody else holds it: then false.
///
/// # Errors
/// As flock(2).
#[cfg(feature = "remote")]
pub fn try_lock(fd: impl AsFd) -> io::Result<bool> {
    match flock(fd, libc::LOCK_EX | libc::LOCK_NB) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        other => other.map(|()| true),
    }
}

fn flock(fd: impl AsFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: flock takes two numbers and touches no memory of ours; the borrow
    // keeps the descriptor open for the whole call.
    if unsafe { libc::flock(fd.as_fd().as_raw_fd(), how) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes `target` a copy of `fd` that survives exec. Whoever owned `target`
/// finds the new file behind the same number.
///
/// # Errors
/// As dup2(2), but for `EMFILE` where the limit is not above `target`.
pub fn place(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    let fd = fd.as_fd();
    if fd.as_raw_fd() == target {
        return set_close_on_exec(fd, false);
    }
    // SAFETY: dup2 takes two numbers and touches no memory of ours. The number
    // `target` is one that the caller gives away by contract.
    if unsafe { libc::dup2(fd.as_raw_fd(), target) } >= 0 {
        return Ok(());
    }
    match Errno::last() {
        // `fd` is open: it is the other number that the limit does not allow.
        Errno::EBADF => Err(Errno::EMFILE.into()),
        error => Err(error.into()),
    }
}

/// Takes ownership of a descriptor that this process was started with, if there is
/// one of this number.
///
/// All that we open ourselves is close-on-exec, and so is what was taken: nobody's
/// descriptor is taken from him, and none twice.
#[must_use]
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    if !survives_exec(number) {
        return None;
    }
    let taken = owned(number);
    set_close_on_exec(&taken, true).ok()?;
    Some(taken)
}

/// Closes all that this process was started with but descriptors 0 to 2.
#[cfg(feature = "remote")]
pub fn close_inherited() {
    /// Where the numbers end if nobody says which are open.
    const USUAL_LIMIT: RawFd = 1024;
    let open = inherited_above_standard().unwrap_or_else(|_| (3..USUAL_LIMIT).collect());
    open.into_iter().filter_map(inherited).for_each(drop);
}

/// Whether a number is that of a descriptor that is not close-on-exec.
fn survives_exec(number: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of a number; a number that is not open
    // yields EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Points descriptors 0 and 1 at the null device. Closed instead, the next
/// accepted socket would become descriptor 0. In a chroot without that device they
/// are ends of pipes without other ends: nothing can be read or written there,
/// either.
///
/// # Errors
/// As open(2), pipe2(2) and dup2(2).
pub fn detach_standard() -> io::Result<()> {
    match open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(null) => {
            place(&null, 0)?;
            place(&null, 1)
        }
        Err(Errno::ENOENT) => {
            let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
            place(&output, 0)?;
            place(&input, 1)
        }
        Err(error) => Err(error.into()),
    }
}

/// Closes every descriptor of this process but those of `keep`.
///
/// # Safety
/// No object that owns one of the others is used or dropped in this process.
pub(super) unsafe fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut numbers: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    numbers.sort_unstable();
    numbers.push(u32::MAX);
    let mut from = 0;
    for number in numbers {
        if number > from {
            close_range(from, number - 1);
        }
        from = number.saturating_add(1);
    }
}

/// Closes the descriptors `first..=last`.
fn close_range(first: u32, last: u32) {
    #[cfg(target_os = "linux")]
    // SAFETY: close_range touches no memory of ours.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    #[cfg(not(target_os = "linux"))]
    let done = {
        unsafe extern "C" {
            /// Of FreeBSD's C library; not every C library of Linux has it.
            fn close_range(first: libc::c_uint, last: libc::c_uint, flags: libc::c_int) -> i32;
        }
        // SAFETY: close_range touches no memory of ours.
        unsafe { close_range(first, last, 0) }
    };
    if done == 0 {
        return;
    }
    // Linux before 5.9: ask which are open.
    let open = open_numbers().unwrap_or_default().into_iter();
    for number in open.filter(|&at| u32::try_from(at).is_ok_and(|at| (first..=last).contains(&at)))
    {
        // SAFETY: close takes a number; one that is no longer open is EBADF.
        unsafe { libc::close(number) };
    }
}

/// Whether [`copy_below`] can be had: Linux 5.9.
#[cfg(target_os = "linux")]
pub(super) fn can_copy_some() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    // A number that no table is large enough for; the table is this process's own.
    *CAN.get_or_init(|| unshare_from(u32::MAX).is_ok())
}

/// Gives this process a table of its own with the descriptors below `end` of the one that
/// it shares.
///
/// # Errors
/// As close_range(2): then it still shares it.
#[cfg(target_os = "linux")]
pub(super) fn copy_below(end: RawFd) -> io::Result<()> {
    unshare_from(u32::try_from(end).unwrap_or(u32::MAX))
}

#[cfg(target_os = "linux")]
fn unshare_from(first: u32) -> io::Result<()> {
    let flag = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: close_range touches no memory of ours, and closes nothing in a table that
    // another process has, too.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flag) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The numbers of all descriptors above 2 that this process has and that
/// survive exec.
///
/// # Errors
/// `/proc` is not there.
pub fn inherited_above_standard() -> io::Result<Vec<RawFd>> {
    let mut open = open_numbers()?;
    open.retain(|&number| number > 2 && survives_exec(number));
    Ok(open)
}

/// The numbers of all descriptors that this process has.
#[cfg(target_os = "linux")]
fn open_numbers() -> io::Result<Vec<RawFd>> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// All numbers that a descriptor may have: not every system has a list.
#[cfg(not(target_os = "linux"))]
fn open_numbers() -> io::Result<Vec<RawFd>> {
    let limit = super::process::descriptor_limit()?;
    Ok((0..RawFd::try_from(limit).unwrap_or(RawFd::MAX)).collect())
}

/// read(2), again where a signal interrupted it.
///
/// # Errors
/// As read(2).
pub fn read_some(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match read(&fd, buffer) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// write(2), again where a signal interrupted it.
///
/// # Errors
/// As write(2).
pub fn write_some(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match write(&fd, bytes) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Writes all of it to a descriptor that waits.
///
/// # Errors
/// As write(2).
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let wrote = write_some(&fd, bytes)?;
        bytes = &bytes[wrote..];
    }
    Ok(())
}

/// A number that the kernel just gave us.
fn owned(number: RawFd) -> OwnedFd {
    // SAFETY: the callers got the number from a call that opened it, or took
    // it over from the process that started us; nobody else owns it.
    unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_above_the_limit_is_told_as_the_limit() {
        let (own, _other) = pipe().unwrap();
        for failed in [
            duplicate_above(&own, RawFd::MAX).err(),
            place(&own, RawFd::MAX).err(),
        ] {
            assert_eq!(
                failed.and_then(|error| error.raw_os_error()),
                Some(libc::EMFILE)
            );
        }
    }

    #[test]
    fn a_descriptor_is_inherited_once_and_never_taken_from_its_owner() {
        let (own, given) = pipe().unwrap();
        assert!(inherited(own.as_raw_fd()).is_none(), "it is ours");
        // As a parent leaves one: nobody here owns it.
        let number = std::os::fd::IntoRawFd::into_raw_fd(given);
        assert!(inherited(number).is_none());
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }, 0);
        let taken = inherited(number).expect("as if from a parent");
        assert!(inherited(number).is_none(), "twice");
        drop(taken);
        assert_eq!(read_some(&own, &mut [0]).unwrap(), 0, "it was closed");
    }
}
