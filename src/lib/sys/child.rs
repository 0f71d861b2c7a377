//! One child process: run it, wait for its end within a time, end it.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::poll::{Ready, wait};

/// How long a child that was sent TERM may take before it is sent KILL.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a kernel without process descriptors is asked.
const STEP: Duration = Duration::from_millis(20);

/// A child in a process group of its own.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Readable once the child has ended; absent before Linux 5.3, and elsewhere.
    end: Option<OwnedFd>,
}

impl Running {
    /// Runs a command. `Command` gives the child an empty signal mask and
    /// default signals, whatever this process has.
    ///
    /// # Errors
    /// As fork(2) and execve(2).
    pub fn new(command: &mut Command) -> io::Result<Running> {
        let child = command.process_group(0).spawn()?;
        let end = descriptor(&child);
        Ok(Running { child, end })
    }

    /// The child's end, if it comes before the deadline.
    ///
    /// # Errors
    /// As waitpid(2) and poll(2).
    pub fn wait_until(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            match &self.end {
                Some(end) => wait(&mut [(end.as_fd(), Ready::READ)], Some(deadline))?,
                None => wait(&mut [], Some(deadline.min(now + STEP)))?,
            }
        }
    }

    /// Waits for the child's end.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Waits for the child's end until the deadline; behind it, ends the child
    /// and the others of its group.
    ///
    /// # Errors
    /// As [`Running::wait_until`].
    pub fn end_by(mut self, deadline: Instant) -> io::Result<ExitStatus> {
        if let Some(status) = self.wait_until(deadline)? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM);
        let status = self.wait_until(Instant::now() + PATIENCE)?;
        // What the child started and left may not know of TERM.
        self.signal(Signal::SIGKILL);
        match status {
            Some(status) => Ok(status),
            None => self.child.wait(),
        }
    }

    fn signal(&self, signal: Signal) {
        // An empty group is what was wanted.
        let _ = killpg(
            Pid::from_raw(self.child.id().try_into().unwrap_or_default()),
            signal,
        );
    }
}

/// A descriptor that is readable once the child has ended, where there is such.
#[cfg(target_os = "linux")]
fn descriptor(child: &Child) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours;
    // the child is not reaped yet, so the number is its own.
    let end = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let end = i32::try_from(end).ok().filter(|&end| end >= 0)?;
    // SAFETY: the kernel just opened this number (close-on-exec), and
    // nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(end) })
}

#[cfg(not(target_os = "linux"))]
fn descriptor(_: &Child) -> Option<OwnedFd> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Stdio;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        Running::new(&mut command).expect("runs")
    }

    #[test]
    fn the_end_of_a_child_is_seen() {
        let mut child = shell("exit 7");
        let far = Instant::now() + Duration::from_secs(60);
        let status = child.wait_until(far).expect("waits").expect("ended");
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn a_child_that_will_not_go_is_made_to() {
        let child = shell("trap '' TERM; while :; do sleep 60; done");
        let status = child.end_by(Instant::now()).expect("ends");
        assert!(matches!(status.signal(), Some(9 | 15)), "{status:?}");
    }
}
