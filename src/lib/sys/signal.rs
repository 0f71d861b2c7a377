//! Signals of a supervisor: remembered by handlers, let in only while it waits.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::libc::c_int;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

use super::process::ProcessId;

static TERMINATE: AtomicBool = AtomicBool::new(false);
static HANGUP: AtomicBool = AtomicBool::new(false);
static CHILD: AtomicBool = AtomicBool::new(false);
/// The processes that CHLD told of; 0 is an empty place.
static CHILDREN: [AtomicI32; 16] = [const { AtomicI32::new(0) }; 16];

/// Signals that came since the last look.
#[derive(Clone, Debug)]
pub struct Signals {
    /// TERM or INT: end.
    pub terminate: bool,
    /// HUP: reload.
    pub hangup: bool,
    /// CHLD: a child ended.
    pub child: bool,
    /// Whose CHLD came: not all, where two came at once.
    pub children: Vec<ProcessId>,
}

extern "C" fn remember(signal: c_int) {
    match signal {
        libc::SIGTERM | libc::SIGINT => TERMINATE.store(true, Ordering::Relaxed),
        libc::SIGHUP => HANGUP.store(true, Ordering::Relaxed),
        libc::SIGCHLD => CHILD.store(true, Ordering::Relaxed),
        _ => {}
    }
}

extern "C" fn remember_child(_: c_int, about: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CHILD.store(true, Ordering::Relaxed);
    // SAFETY: the kernel passes what it says of this CHLD, valid until we return.
    let id = unsafe { (*about).si_pid() };
    for place in &CHILDREN {
        let taken = place.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed);
        if taken.is_ok() {
            return;
        }
    }
}

const WATCHED: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGCHLD,
];

/// What a service manager, a terminal or killall(1) sends to all of a service's
/// processes, and which means the supervisor alone.
const OTHERS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

fn set(signal: Signal, handler: SigHandler) -> nix::Result<SigAction> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers of ours only store into atomics, which is allowed in a
    // signal handler, and stay valid: they are plain functions.
    unsafe { sigaction(signal, &action) }
}

/// Blocks TERM, INT, HUP and CHLD and has them remembered. Returns the mask to
/// wait with: nothing blocked. An INT that is ignored stays ignored: so a shell
/// starts what runs in the background.
///
/// # Errors
/// As sigaction(2).
pub fn watch() -> io::Result<SigSet> {
    let mut watched = SigSet::empty();
    for signal in WATCHED {
        let handler = match signal {
            Signal::SIGCHLD => SigHandler::SigAction(remember_child),
            _ => SigHandler::Handler(remember),
        };
        let before = set(signal, handler)?;
        let ignored = matches!(before.handler(), SigHandler::SigIgn);
        if signal == Signal::SIGINT && ignored {
            set(signal, SigHandler::SigIgn)?;
        }
        watched.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None)?;
    Ok(SigSet::empty())
}

/// Has CHLD remembered and let in, in a process that ends with its supervisor
/// and by no signal that the supervisor gets too.
///
/// # Errors
/// As sigaction(2).
pub fn watch_children() -> io::Result<SigSet> {
    ignore_others();
    set(Signal::SIGCHLD, SigHandler::Handler(remember))?;
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None)?;
    Ok(SigSet::empty())
}

/// Ignores HUP, INT and TERM, undoes the rest of [`watch`], and empties the
/// mask: for a forked process of ours whose end is another's.
pub fn ignore_others() {
    for signal in OTHERS {
        let _ = set(signal, SigHandler::SigIgn);
    }
    let _ = set(Signal::SIGCHLD, SigHandler::SigDfl);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Lets signals in that wait: a wait that finds a descriptor ready does not do
/// that, so under load they would wait for a quiet moment.
pub fn let_in() {
    let mut watched = SigSet::empty();
    let _ = sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        Some(&mut watched),
    );
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None);
}

/// What came since the last call.
#[must_use]
pub fn seen() -> Signals {
    let child = CHILD.swap(false, Ordering::Relaxed);
    let told = CHILDREN.iter().filter(|_| child);
    let told = told.map(|place| place.swap(0, Ordering::Relaxed));
    Signals {
        children: told.filter(|id| *id != 0).collect(),
        child,
        terminate: TERMINATE.swap(false, Ordering::Relaxed),
        hangup: HANGUP.swap(false, Ordering::Relaxed),
    }
}

/// What a program of ours begins with. CHLD has its default handling: where a parent
/// ignores it, nobody would learn how our own children ended (wait(2)). XFSZ and PIPE
/// are ignored: a write to a file that has reached its limit (setrlimit(2)), or to a
/// peer that is gone, is an error, not an end.
pub fn begin() {
    let _ = set(Signal::SIGCHLD, SigHandler::SigDfl);
    for signal in [Signal::SIGXFSZ, Signal::SIGPIPE] {
        let _ = set(signal, SigHandler::SigIgn);
    }
}

/// The signals that this process was started with as ignored, and PIPE, which the
/// run-time ignores: exec would leave them so. What is caught it resets by itself.
fn inherited() -> &'static [c_int] {
    static INHERITED: OnceLock<Vec<c_int>> = OnceLock::new();
    INHERITED.get_or_init(|| {
        let is_ignored = |signal: &c_int| {
            let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: writes what is set for a signal through the pointer, which is
            // valid for the call, and changes nothing.
            let done = unsafe { libc::sigaction(*signal, std::ptr::null(), action.as_mut_ptr()) };
            // SAFETY: zeros are a valid value, too.
            let action = unsafe { action.assume_init() };
            done == 0 && action.sa_sigaction == libc::SIG_IGN
        };
        #[cfg(target_os = "linux")]
        let last = libc::SIGRTMAX();
        // _SIG_MAXSIG of sys/_sigset.h.
        #[cfg(not(target_os = "linux"))]
        let last = 128;
        // Bare numbers: nix knows no real-time signals.
        (1..=last).filter(is_ignored).collect()
    })
}

/// Gives every signal its default handling and empties the mask: what a program
/// that is executed next expects. A process that forks many that do so should have
/// called [`know_inherited`].
pub fn reset() {
    let ours = WATCHED
        .into_iter()
        .chain([Signal::SIGPIPE, Signal::SIGXFSZ]);
    for signal in ours
        .map(|signal| signal as c_int)
        .chain(inherited().iter().copied())
    {
        // SAFETY: sets the default handling of a number.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Finds out once what [`reset`] needs to know.
pub fn know_inherited() {
    let _ = inherited();
}
