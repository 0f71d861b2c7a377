//! The end of a process that is out of memory. It says so and ends: whatever it went
//! on to say, or to take for true, could be wrong for want of it. Libcrypto's refusals
//! look like those of an allocation that failed, and `Vec` would end it in other words.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::process;
use crate::report::{self, Fail};

/// How long the last words wait for room, in milliseconds.
const PATIENCE: libc::c_int = 2000;

/// What libcrypto and files take may be missing: see [`survive`].
static SURVIVES: AtomicBool = AtomicBool::new(false);

thread_local! {
    static ATTEMPTS: Cell<bool> = const { Cell::new(false) };
    /// How often what may be missing was.
    static SHORTAGES: Cell<usize> = const { Cell::new(0) };
}

/// Everything that is written in Rust. A program has one such allocator, and unit
/// tests are linked with the library that has it.
#[cfg(not(test))]
mod allocator {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    use super::{ATTEMPTS, end};

    /// What is no more than this is not asked for in vain: who may fail to get it says so
    /// with [`super::attempt`]. More than that may be a file which std reads at once.
    const LARGE: usize = 1 << 20;

    /// Malloc, for everything that is written in Rust.
    struct Allocator;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    /// What malloc gave; nothing is given to those alone who can do without.
    fn given(block: *mut u8, size: usize) -> *mut u8 {
        // In a thread that ends, nobody attempts anything.
        if block.is_null() && size <= LARGE && !ATTEMPTS.try_with(Cell::get).unwrap_or(false) {
            end();
        }
        block
    }

    // SAFETY: all is System's, which keeps the promises; a call that ends the process does
    // not return.
    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as the caller promises.
            given(unsafe { System.alloc(layout) }, layout.size())
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as the caller promises.
            given(unsafe { System.alloc_zeroed(layout) }, layout.size())
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: as the caller promises.
            given(unsafe { System.realloc(block, layout, size) }, size)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(block, layout) };
        }
    }
}

/// Does what may fail for want of memory, and says so: `try_reserve` and its kind.
pub fn attempt<T>(step: impl FnOnce() -> T) -> T {
    let before = ATTEMPTS.replace(true);
    let done = step();
    ATTEMPTS.set(before);
    done
}

/// Libcrypto, or who reads a file, gets nothing.
pub fn refuse() {
    if !SURVIVES.load(Ordering::Relaxed) {
        end();
    }
    SHORTAGES.set(SHORTAGES.get() + 1);
}

/// So much room for what is in a file, however large that is.
///
/// # Errors
/// There is none, and this process [survives](survive).
pub fn room_for_file(length: usize) -> io::Result<Vec<u8>> {
    let mut room = Vec::new();
    if let Err(error) = attempt(|| room.try_reserve_exact(length)) {
        refuse();
        return Err(error.into());
    }
    Ok(room)
}

/// From now on this process lives on where there is no memory for libcrypto or for a
/// file, and has to ask [`sufficing`] whether what it found out is true. Those that it
/// forks end all the same.
pub fn survive() {
    SURVIVES.store(true, Ordering::Relaxed);
}

/// This process was forked.
pub(in crate::sys) fn forked() {
    SURVIVES.store(false, Ordering::Relaxed);
}

/// Does what asks libcrypto or reads files. What came of it while memory was short is forgotten.
///
/// # Errors
/// Those of `step`, and that memory was short.
pub fn sufficing<T>(step: impl FnOnce() -> Result<T, Fail>) -> Result<T, Fail> {
    let before = SHORTAGES.get();
    let done = step();
    if SHORTAGES.get() == before {
        done
    } else {
        Err(report::OUT_OF_MEMORY.into())
    }
}

/// Says it, and ends this process. Nothing is allocated here. Also for one that cannot
/// go on because another is out of memory, to which it gave some of its work.
#[cold]
pub fn end() -> ! {
    let code = report::last_words(|descriptor, line| {
        let mut room = libc::pollfd {
            fd: descriptor,
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one place, which lives as long as the call.
        if unsafe { libc::poll(&raw mut room, 1, PATIENCE) } == 1 {
            // SAFETY: the bytes are the slice's. Where nobody reads it, nobody is told.
            unsafe { libc::write(descriptor, line.as_ptr().cast(), line.len()) };
        }
    });
    process::exit_now(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_while_memory_was_short_is_not_believed() {
        survive();
        assert_eq!(sufficing(|| Ok(1)), Ok(1));
        let found = sufficing(|| {
            refuse();
            Ok(1)
        });
        assert_eq!(
            found.map_err(|why| why.to_string()),
            Err("out of memory".to_owned())
        );
        assert_eq!(sufficing(|| Ok(1)), Ok(1));
    }

    #[test]
    fn where_there_is_no_room_for_a_file_that_is_a_shortage() {
        survive();
        assert!(sufficing(|| Ok(room_for_file(9)?.capacity() >= 9)).is_ok_and(|all| all));
        let found = sufficing(|| Ok(room_for_file(usize::MAX / 2).map_err(|_| ())));
        let why = found.map_err(|why| why.to_string());
        assert_eq!(why, Err("out of memory".to_owned()));
    }

    #[test]
    fn an_attempt_may_fail() {
        let mut none: Vec<u8> = Vec::new();
        assert!(attempt(|| none.try_reserve_exact(usize::MAX / 2)).is_err());
    }
}
