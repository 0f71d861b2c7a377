//! Descriptors 0 to 2 as this process was started with them.
//!
//! Where one is closed, std's runtime opens the null device in its place before
//! `main`: what was never given would read as empty, and swallow what is written.
//! So it is looked at before that.

use std::hint;
use std::io::{self, Stderr, Stdin, Stdout};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};

use super::fd;

/// A bit for each of the three that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// What the loader calls before the runtime begins (System V ABI, "Initialization
/// and Termination Functions").
// SAFETY: the section holds addresses of functions, which are called one by one;
// ours ignores the arguments and needs nothing that the runtime sets up.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    for number in 0..3 {
        // SAFETY: F_GETFD reads a flag of a number; one that is not open yields EBADF.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags < 0 {
            CLOSED.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

fn given(number: RawFd) -> io::Result<()> {
    // The linker keeps what is used.
    hint::black_box(&LOOK);
    if CLOSED.load(Ordering::Relaxed) & 1 << number == 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!("descriptor {number} is closed")))
    }
}

/// Standard input.
///
/// # Errors
/// It was closed when this process began.
pub fn input() -> io::Result<Stdin> {
    given(0).map(|()| three().0)
}

/// Writes all of it to standard output.
///
/// # Errors
/// It was closed when this process began, or as write(2).
pub fn write(bytes: &[u8]) -> io::Result<()> {
    has_output().and_then(|()| fd::write_all(three().1, bytes))
}

/// Whether there is somebody to write to.
///
/// # Errors
/// Standard output was closed when this process began.
pub fn has_output() -> io::Result<()> {
    given(1)
}

/// Descriptors 0 to 2, for those who ask what they are or keep them open.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "all others ask whether they were given"
)]
pub fn three() -> (Stdin, Stdout, Stderr) {
    (io::stdin(), io::stdout(), io::stderr())
}
