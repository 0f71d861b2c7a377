//! Signals of a supervisor: remembered by handlers, let in only while it waits.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::c_int;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

static TERMINATE: AtomicBool = AtomicBool::new(false);
static HANGUP: AtomicBool = AtomicBool::new(false);
static CHILD: AtomicBool = AtomicBool::new(false);

/// Signals that came since the last look.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// TERM: end.
    pub terminate: bool,
    /// HUP: reload.
    pub hangup: bool,
    /// CHLD: a child ended.
    pub child: bool,
}

extern "C" fn remember(signal: c_int) {
    match signal {
        libc::SIGTERM => TERMINATE.store(true, Ordering::Relaxed),
        libc::SIGHUP => HANGUP.store(true, Ordering::Relaxed),
        libc::SIGCHLD => CHILD.store(true, Ordering::Relaxed),
        _ => {}
    }
}

const WATCHED: [Signal; 3] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD];

/// Blocks TERM, HUP and CHLD and has them remembered. Returns the mask to wait
/// with: nothing blocked.
///
/// # Errors
/// As sigaction(2).
pub fn watch() -> io::Result<SigSet> {
    let mut watched = SigSet::empty();
    for signal in WATCHED {
        watched.add(signal);
        let action = SigAction::new(
            SigHandler::Handler(remember),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler only stores into atomics, which is allowed in a
        // signal handler, and stays valid: it is a plain function.
        unsafe { sigaction(signal, &action)? };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None)?;
    Ok(SigSet::empty())
}

/// Undoes [`watch`], in a forked process that goes on without.
pub fn unwatch() {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in WATCHED {
        // SAFETY: no handler is installed.
        let _ = unsafe { sigaction(signal, &action) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// What came since the last call. Signals that wait are let in first: a wait
/// that finds a descriptor ready does not do that, so under load they would wait
/// for a quiet moment.
#[must_use]
pub fn seen() -> Seen {
    let mut watched = SigSet::empty();
    let _ = sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        Some(&mut watched),
    );
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None);
    Seen {
        terminate: TERMINATE.swap(false, Ordering::Relaxed),
        hangup: HANGUP.swap(false, Ordering::Relaxed),
        child: CHILD.swap(false, Ordering::Relaxed),
    }
}

/// Ignores PIPE: a write to a peer that is gone is an error, not an end.
pub fn ignore_pipe() {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &action) };
}

/// Gives every signal its default handling and empties the mask: what a program
/// that is executed next expects.
pub fn reset() {
    // Bare numbers: nix knows no real-time signals.
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: sets the default handling; KILL, STOP and the numbers that
        // libc keeps for itself are refused with EINVAL, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}
