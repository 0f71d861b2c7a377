//! Making, ending and reaping processes.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{ForkResult, fork};

use super::fd;
use super::memory::shortage;
#[cfg(target_os = "linux")]
use super::poll::{self, Ready};
use crate::report;

/// A process number.
pub type ProcessId = i32;

/// This process.
#[must_use]
pub fn own_id() -> ProcessId {
    nix::unistd::getpid().as_raw()
}

/// Has files that are made from now on their modes, but for what the group and others
/// may write: whoever started us may want his own files to be his alone (umask(2)).
#[cfg(feature = "remote")]
pub fn open_modes() {
    use nix::sys::stat::{Mode, umask};
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// A process that [`spawn`] or [`spawn_sibling`] made: proof that what its parent's
/// objects own is closed or left alone here, for none of them is ever dropped. It
/// ends by exec or `_exit`.
#[derive(Debug)]
pub struct Forked(());

#[expect(clippy::unused_self, reason = "to have it is the proof")]
impl Forked {
    /// Closes every descriptor but those of `keep`.
    pub fn close_all_but(&self, keep: &[BorrowedFd<'_>]) {
        // SAFETY: the parent's objects are never dropped here, and what `body` of
        // `spawn` still uses is among `keep`: each caller names all of it.
        unsafe { fd::close_all_but(keep) };
    }

    /// Closes a descriptor of the parent's object, which is not used any more.
    pub(super) fn disown(&self, fd: &OwnedFd) {
        // SAFETY: close takes a number; its owner is never dropped here, and the
        // sandbox that it belongs to was taken on.
        unsafe { libc::close(fd.as_raw_fd()) };
    }
}

/// Runs `body` in a child process, which ends with the code it returns.
///
/// # Errors
/// As fork(2).
///
/// # Panics
/// Never returns in the child: a panic there ends it with SIGABRT.
pub fn spawn(body: impl FnOnce(Forked) -> u8) -> io::Result<ProcessId> {
    // SAFETY: our programs are single-threaded (clippy.toml keeps threads out of
    // the library), so the child finds no lock held by a thread that it lacks; it
    // leaves by `_exit` or exec.
    match unsafe { fork()? } {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => exit_now(contained(body)),
    }
}

/// As [`spawn`], for a parent that has many descriptors of which the child is to have
/// those below `end` alone: where it can be done the others are not even copied, which
/// would take longer than all the rest of a fork, and their closing again.
///
/// # Errors
/// As clone(2).
#[cfg(target_os = "linux")]
pub fn spawn_below(end: RawFd, body: impl FnOnce(Forked) -> u8) -> io::Result<ProcessId> {
    // The parent's table is the child's until that has made its own, of what it keeps.
    let told = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
    if told.as_fd().as_raw_fd() >= end || !fd::can_copy_some() {
        return spawn(body);
    }
    match clone(libc::CLONE_FILES | libc::SIGCHLD)? {
        None => {
            // It may not go on with the parent's, which it would close.
            let own = fd::copy_below(end);
            let _ = told.write(1);
            exit_now(own.map_or(report::TEMPORARY, |()| contained(body)))
        }
        Some(child) => {
            // A child that is late costs a copy of the table and no more.
            let late = Instant::now() + LATE;
            let _ = poll::one(told.as_fd(), Ready::READ, late);
            while !has_own_table() {
                let _ = poll::one(told.as_fd(), Ready::READ, Instant::now() + LATE);
            }
            Ok(child)
        }
    }
}

/// Whether this process shares its descriptors with no other, be it by a copy that is
/// made now.
#[cfg(target_os = "linux")]
fn has_own_table() -> bool {
    // SAFETY: takes flags only, and leaves our descriptors as they are.
    unsafe { libc::unshare(libc::CLONE_FILES) == 0 }
}

/// How long a child may take to make its table.
#[cfg(target_os = "linux")]
const LATE: Duration = Duration::from_millis(2);

/// As [`spawn`]: elsewhere all of them are copied.
///
/// # Errors
/// As fork(2).
#[cfg(not(target_os = "linux"))]
pub fn spawn_below(_: RawFd, body: impl FnOnce(Forked) -> u8) -> io::Result<ProcessId> {
    spawn(body)
}

/// Has a child try what this process cannot undo, and returns what came of it.
///
/// # Errors
/// As `step`, or as fork(2).
pub fn try_in_child(step: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    /// What stands for an error without a number.
    const OTHER: u8 = 255;
    let child = spawn(|_| match step() {
        Ok(()) => 0,
        // The numbers of errors are below 134 (errno(3)).
        Err(error) => error
            .raw_os_error()
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(OTHER),
    })?;
    let ended = wait_for(child).ok_or_else(io::Error::last_os_error)?;
    match (ended.signal(), ended.shell_code()) {
        (None, 0) => Ok(()),
        (None, number) if number != OTHER => Err(io::Error::from_raw_os_error(number.into())),
        _ => Err(io::Error::other("this system refuses it")),
    }
}

/// As [`spawn`], but the new process is a sibling: a child of this process's
/// parent, so that a program which this process becomes finds no child that it
/// didn't make.
///
/// # Errors
/// As clone(2).
#[cfg(target_os = "linux")]
pub fn spawn_sibling(body: impl FnOnce(Forked) -> u8) -> io::Result<ProcessId> {
    match clone(libc::CLONE_PARENT | libc::SIGCHLD)? {
        None => exit_now(contained(body)),
        Some(child) => Ok(child),
    }
}

/// A copy of this process, as fork makes one, but for what the flags say; `None` in the
/// child.
#[cfg(target_os = "linux")]
fn clone(flags: libc::c_int) -> io::Result<Option<ProcessId>> {
    let flags = libc::c_long::from(flags);
    // s390 takes the stack first.
    #[cfg(target_arch = "s390x")]
    let (first, second) = (0, flags);
    #[cfg(not(target_arch = "s390x"))]
    let (first, second) = (flags, 0);
    // SAFETY: without CLONE_VM this is fork: the child gets a copy of everything, the
    // stack included. We are single-threaded, so no lock is held; fork handlers that do
    // not run are not needed, since libcrypto tells a child by its process number. The
    // callers' child leaves by `_exit` or exec.
    match unsafe { libc::syscall(libc::SYS_clone, first, second, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        child => Ok(Some(i32::try_from(child).unwrap_or_default())),
    }
}

/// Elsewhere it is a child like another, which [`adopt_orphans`] makes one of this
/// process's parent when this process ends.
///
/// # Errors
/// As fork(2).
#[cfg(not(target_os = "linux"))]
pub fn spawn_sibling(body: impl FnOnce(Forked) -> u8) -> io::Result<ProcessId> {
    spawn(body)
}

/// Has this process reap what [`spawn_sibling`] makes in its children.
///
/// # Errors
/// As procctl(2), on FreeBSD; on Linux there is nothing to do.
#[cfg_attr(
    target_os = "linux",
    allow(clippy::unnecessary_wraps, reason = "elsewhere it can fail")
)]
pub fn adopt_orphans() -> io::Result<()> {
    #[cfg(target_os = "freebsd")]
    {
        // SAFETY: this command takes no argument; process 0 is this one.
        let done = unsafe {
            libc::procctl(
                libc::P_PID,
                0,
                libc::PROC_REAP_ACQUIRE,
                std::ptr::null_mut(),
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A forked process. A panic must not run on into the parent's code: where it unwinds,
/// as in a build for tests, it aborts here, as it does at once in what is installed.
fn contained(body: impl FnOnce(Forked) -> u8) -> u8 {
    let body = std::panic::AssertUnwindSafe(|| {
        report::forked();
        shortage::forked();
        body(Forked(()))
    });
    std::panic::catch_unwind(body).unwrap_or_else(|_| std::process::abort())
}

/// Ends this process at once: no handler of the parent's runs twice.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit never returns and runs no code of ours.
    unsafe { libc::_exit(i32::from(code)) }
}

/// A child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedChild {
    /// Which.
    pub id: ProcessId,
    /// wait(2)'s status word: 256 for exit code 1, 9 for signal KILL.
    pub status: i32,
}

impl EndedChild {
    /// Whether a filter of system calls ended it.
    #[must_use]
    pub fn broke_filter(self) -> bool {
        libc::WIFSIGNALED(self.status) && libc::WTERMSIG(self.status) == libc::SIGSYS
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        libc::WIFSIGNALED(self.status).then(|| libc::WTERMSIG(self.status))
    }

    /// As [`shell_code`].
    #[must_use]
    pub fn shell_code(self) -> u8 {
        shell_code(self.status)
    }
}

/// The exit code of a status word as a shell gives it: 128+n where signal n ended
/// the process.
#[must_use]
pub fn shell_code(status: i32) -> u8 {
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended.
    Ended(EndedChild),
    /// A signal stopped it.
    Stopped(ProcessId),
    /// It goes on.
    Continued(ProcessId),
}

/// A child that something became of, if there is one; does not wait. The kernel
/// looks through all children for it, each time.
#[must_use]
pub fn reap() -> Option<Change> {
    reap_of(-1)
}

/// What became of this child, if something did; does not wait.
#[must_use]
pub fn reap_one(id: ProcessId) -> Option<Change> {
    reap_of(id)
}

fn reap_of(which: ProcessId) -> Option<Change> {
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    let EndedChild { id, status } = wait_raw(which, flags)?;
    Some(if libc::WIFSTOPPED(status) {
        Change::Stopped(id)
    } else if libc::WIFCONTINUED(status) {
        Change::Continued(id)
    } else {
        Change::Ended(EndedChild { id, status })
    })
}

/// Waits for the end of one child.
#[must_use]
pub fn wait_for(id: ProcessId) -> Option<EndedChild> {
    wait_raw(id, 0)
}

fn wait_raw(id: ProcessId, flags: i32) -> Option<EndedChild> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int through the pointer, which is valid
        // for the call.
        let id = unsafe { libc::waitpid(id, &raw mut status, flags) };
        if id > 0 {
            return Some(EndedChild { id, status });
        }
        if id == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Ends a child that has not been reaped by KILL.
pub fn kill(id: ProcessId) {
    // SAFETY: takes numbers only. A number of ours that was not reaped is
    // nobody else's.
    unsafe { libc::kill(id, libc::SIGKILL) };
}

/// How many descriptors this process may have (`RLIMIT_NOFILE`).
///
/// # Errors
/// As getrlimit(2).
pub fn descriptor_limit() -> io::Result<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_fallible_conversions,
        reason = "machines of 32 bits have a smaller number, FreeBSD one with a sign"
    )]
    Ok(soft.try_into().unwrap_or(u64::MAX))
}

/// Gives this process the name that ps(1) shows beside its command line, on Linux.
pub fn name(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
