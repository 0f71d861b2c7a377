//! Buffers that give their memory back to the system while nothing flows, and
//! memory that never reaches a disk.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// A private mapping of a fixed length, zeroed at first use. Unlike a `Vec` it
/// can drop its pages and stay usable, whatever the allocator does.
pub struct Pages {
    start: NonNull<c_void>,
    length: usize,
}

impl Pages {
    /// Reserves `length` bytes; none of them costs memory until it is touched.
    ///
    /// # Errors
    /// As mmap(2); a length of zero is invalid.
    pub fn new(length: usize) -> io::Result<Pages> {
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice
        // aliases nothing; it is unmapped by Drop alone.
        let start = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE,
            )?
        };
        Ok(Pages { start, length })
    }

    /// Gives the pages back. The contents become zeros.
    pub fn release(&mut self) {
        // SAFETY: the range is our own private anonymous mapping and the
        // exclusive borrow shows that no slice of it lives; after the call it
        // reads as zeros, which is valid for bytes. A failure keeps the pages.
        let _ = unsafe { madvise(self.start, self.length, MmapAdvise::MADV_DONTNEED) };
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `length` bytes long, initialised
        // (zeroed by the kernel), and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the exclusive borrow makes it the only
        // slice of these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no slice
        // of it outlives `self`.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

/// Keeps what this process can write to out of swap: the pages in use now, and
/// with `later` those that come. Program text and tables are left out, which
/// would only cost memory.
///
/// # Errors
/// As mlock2(2); an unprivileged process may lock little.
#[cfg(target_os = "linux")]
pub fn lock(mut later: bool) -> io::Result<()> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

    if later {
        // What may be locked must not shrink with the user. Where that is not
        // allowed, what comes later may stay unlocked.
        let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        later = raised.is_ok();
    }
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            continue;
        };
        if !rights.starts_with("rw") {
            continue;
        }
        let mut ends = range
            .split('-')
            .filter_map(|end| usize::from_str_radix(end, 16).ok());
        let (Some(start), Some(end)) = (ends.next(), ends.next()) else {
            continue;
        };
        // SAFETY: locking changes no byte; MLOCK_ONFAULT touches no page that is
        // not in use. The kernel checks the range.
        let done =
            unsafe { libc::syscall(libc::SYS_mlock2, start, end - start, libc::MLOCK_ONFAULT) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if later {
        // SAFETY: takes flags only.
        if unsafe { libc::mlockall(libc::MCL_FUTURE | MCL_ONFAULT) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Elsewhere all of this process's memory is kept out of swap.
///
/// # Errors
/// As mlockall(2).
#[cfg(not(target_os = "linux"))]
pub fn lock(later: bool) -> io::Result<()> {
    use nix::sys::mman::{MlockAllFlags, mlockall};

    let mut flags = MlockAllFlags::MCL_CURRENT;
    flags.set(MlockAllFlags::MCL_FUTURE, later);
    Ok(mlockall(flags)?)
}

/// linux/mman.h; libc has it for some architectures only.
#[cfg(target_os = "linux")]
const MCL_ONFAULT: libc::c_int = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_read_as_zeros_and_can_be_used_again() {
        let mut pages = Pages::new(10_000).expect("memory");
        pages[9_999] = 7;
        assert_eq!(pages[9_999], 7);
        pages.release();
        assert!(pages.iter().all(|&byte| byte == 0));
        pages[0] = 1;
        assert_eq!(pages[0], 1);
    }
}
