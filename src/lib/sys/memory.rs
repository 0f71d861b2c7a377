//! Buffers that give their memory back to the system while nothing flows, and
//! memory that never reaches a disk.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod kept;
pub mod shortage;

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

/// Bytes that nobody changes any more.
#[derive(Clone)]
pub struct Bytes(Place);

/// Where they are.
#[derive(Clone)]
enum Place {
    Heap(Arc<Vec<u8>>),
    #[cfg(target_os = "linux")]
    File(Arc<file::Mapping>),
}

impl Bytes {
    /// The same where fork copies no page tables of them: in a file without a name,
    /// which nobody can write to. Where they are few, or the system has no such file,
    /// they stay where they are.
    #[must_use]
    pub fn unforked(self) -> Bytes {
        #[cfg(target_os = "linux")]
        if self.len() >= file::WORTH {
            if let Ok(mapping) = file::Mapping::of(&self) {
                return Bytes(Place::File(Arc::new(mapping)));
            }
        }
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(Place::Heap(Arc::new(bytes)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Heap(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Place::File(mapping) => mapping,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{} bytes", self.len())
    }
}

/// memfd_create(2): a file in memory. A private mapping of it that nobody has written
/// to has no pages of its own, so fork leaves it to the child to find the file's.
#[cfg(target_os = "linux")]
mod file {
    use std::ffi::CStr;
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::num::NonZeroUsize;
    use std::ops::Deref;
    use std::os::fd::FromRawFd as _;
    use std::ptr::NonNull;

    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::libc::c_void;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

    /// From how many bytes on: fewer are copied sooner than they are found again.
    pub(super) const WORTH: usize = 64 * 1024;

    /// A file without a name, sealed, and all of it mapped to be read.
    pub(super) struct Mapping {
        start: NonNull<c_void>,
        length: usize,
    }

    // SAFETY: nobody ever writes to what it shows, and only Drop changes it.
    unsafe impl Send for Mapping {}
    // SAFETY: as above.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        pub(super) fn of(bytes: &[u8]) -> io::Result<Mapping> {
            let length = NonZeroUsize::new(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
            let mut file = nameless(c"unforked")?;
            file.write_all(bytes)?;
            let sealed = SealFlag::F_SEAL_WRITE
                | SealFlag::F_SEAL_SHRINK
                | SealFlag::F_SEAL_GROW
                | SealFlag::F_SEAL_SEAL;
            fcntl(&file, FcntlArg::F_ADD_SEALS(sealed))?;
            // SAFETY: a new mapping at an address of the kernel's choice aliases nothing,
            // and the seals keep everybody from changing or cutting what it shows.
            let start = unsafe {
                mmap(
                    None,
                    length,
                    ProtFlags::PROT_READ,
                    MapFlags::MAP_PRIVATE,
                    &file,
                    0,
                )?
            };
            let length = length.get();
            Ok(Mapping { start, length })
        }
    }

    /// A file in memory, called so in /proc alone, that no other process can open.
    ///
    /// # Errors
    /// As memfd_create(2).
    pub(super) fn nameless(called: &CStr) -> io::Result<File> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        let create = |flags| {
            // SAFETY: takes a string, which ends with NUL, and flags.
            unsafe { libc::memfd_create(called.as_ptr(), flags) }
        };
        // Linux before 6.3 does not know the first; some later ones insist on it.
        let number = match create(flags | libc::MFD_NOEXEC_SEAL) {
            -1 => create(flags),
            number => number,
        };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(unsafe { File::from_raw_fd(number) })
    }

    impl Deref for Mapping {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            // SAFETY: the mapping is readable, `length` bytes long, is never written to,
            // and lives as long as `self`.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping was made by `of` with this length, and no slice of it
            // outlives `self`.
            let _ = unsafe { munmap(self.start, self.length) };
        }
    }
}

/// The heap with its gaps filled: what is allocated from now on lies side by side
/// behind all the rest. A forked process would else find its memory in gaps all over
/// the heap, and have the kernel copy a page for each. Dropping this gives the gaps
/// back, to be used.
#[derive(Default)]
pub struct Compact(#[expect(dead_code, reason = "held until it is dropped")] Vec<Vec<u8>>);

impl Compact {
    /// Fills them, as far as they are not whole pages: these go back to the system,
    /// and no fork copies them. Where the C library is not glibc this does nothing,
    /// and where memory is short, in which the gaps may be all that is left.
    #[must_use]
    pub fn heap() -> Compact {
        heap::let_go();
        heap::give_back();
        let compact = Compact::filled().unwrap_or_default();
        heap::keep();
        compact
    }

    fn filled() -> Option<Compact> {
        let mut fillers = Vec::new();
        shortage::attempt(|| fillers.try_reserve_exact(4096)).ok()?;
        let end = heap::end()?;
        // From the largest gap to the smallest. What comes from behind the end is no
        // gap any more.
        let mut size = heap::LARGEST;
        while size > 0 {
            let filler = piece(size)?;
            if (filler.as_ptr() as usize) < end {
                shortage::attempt(|| fillers.try_reserve(1)).ok()?;
                fillers.push(filler);
            } else {
                size = heap::next_smaller(size);
            }
        }
        Some(Compact(fillers))
    }
}

/// So much of the heap, if there is so much: what only makes forks cheaper ends
/// nobody who is short of memory.
fn piece(size: usize) -> Option<Vec<u8>> {
    let mut piece = Vec::new();
    let made = shortage::attempt(|| piece.try_reserve_exact(size));
    made.ok().map(|()| piece)
}

/// Has the kernel give this process, newly forked, the pages that its next `length`
/// bytes of heap take, all at once and not at the first touch of each. Where that
/// cannot be done they come one by one.
pub fn populate_heap(length: usize) {
    heap::populate(length);
}

/// Gives back to the system what was freed of the heap, as far as it makes whole pages,
/// and what lies below the end of the stack; and shares again with the process that this
/// one was forked from what is as it was.
pub fn give_back() {
    heap::give_back();
    heap::share_again();
    give_back_stack();
}

/// Gives back what calls that have returned left on the stack.
#[cfg(target_os = "linux")]
#[inline(never)]
fn give_back_stack() {
    /// Whole pages of any size: what a handshake takes of it, and more.
    const LENGTH: usize = 64 * 1024;
    /// What this call itself needs, and more.
    const NEEDED: usize = 2048;
    /// How far below its beginning the first thread's stack ends, at most, where this is
    /// called; the stacks of other threads are farther away.
    const DEEPEST: usize = 128 * 1024;

    let mark = 0_u8;
    let here = std::hint::black_box(&raw const mark) as usize;
    // SAFETY: asks for a number: where the kernel put bytes above the first stack.
    let above = unsafe { libc::getauxval(libc::AT_RANDOM) };
    let is_first =
        usize::try_from(above).is_ok_and(|above| (here..here + DEEPEST).contains(&above));
    if is_first {
        let end = (here - NEEDED) / page_size() * page_size();
        drop_pages(&(end - LENGTH..end));
    }
}

#[cfg(not(target_os = "linux"))]
fn give_back_stack() {}

/// The system's unit of memory, in bytes.
#[cfg(target_os = "linux")]
fn page_size() -> usize {
    // SAFETY: asks for a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Gives up this process's copies of pages, for a caller that needs none of what is in
/// them, or finds the same there afterwards. A failure keeps them.
#[cfg(target_os = "linux")]
fn drop_pages(range: &std::ops::Range<usize>) {
    if !range.is_empty() {
        let start = range.start as *mut c_void;
        // SAFETY: of pages that the caller has no use for, or that are a file's.
        unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) };
    }
}

/// What is to be known of glibc's heap (malloc(3)).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod heap {
    /// The largest piece: larger ones have mappings of their own.
    pub(super) const LARGEST: usize = 64 * 1024;
    /// Up to here each size, in steps of [`STEP`], has a list of its own.
    const SMALL: usize = 1040;
    const STEP: usize = 16;
    /// How much the heap has ready, and grows at once: more than a connection takes.
    const READY: usize = 256 * 1024;

    pub(super) fn next_smaller(size: usize) -> usize {
        if size > SMALL {
            size / 8 * 7
        } else {
            size.saturating_sub(STEP)
        }
    }

    /// Where the unused rest of the heap begins, which is as large as a connection
    /// needs; none where there is not so much.
    pub(super) fn end() -> Option<usize> {
        for (number, value) in [
            (libc::M_TOP_PAD, READY),
            (libc::M_TRIM_THRESHOLD, 2 * READY),
        ] {
            let value = libc::c_int::try_from(value).unwrap_or(0);
            // SAFETY: sets a number of the allocator's.
            unsafe { libc::mallopt(number, value) };
        }
        let mut grown: Vec<Vec<u8>> = Vec::new();
        while rest() < READY && grown.len() < 64 {
            grown.push(super::piece(LARGEST)?);
        }
        drop(grown);
        Some(rest_begin())
    }

    /// Bytes that were never allocated, or have been given back, at the heap's end.
    fn rest() -> usize {
        // SAFETY: only reads the allocator's books.
        usize::try_from(unsafe { libc::mallinfo() }.keepcost).unwrap_or(0)
    }

    fn rest_begin() -> usize {
        // SAFETY: only tells where the heap ends.
        let end = unsafe { libc::sbrk(0) } as usize;
        end.saturating_sub(rest())
    }

    pub(super) fn give_back() {
        // SAFETY: touches free memory of the allocator's only.
        unsafe { libc::malloc_trim(0) };
    }

    pub(super) fn keep() {
        super::kept::keep(rest_begin());
    }

    pub(super) use super::kept::{let_go, share_again};

    pub(super) fn populate(length: usize) {
        /// Those of x86-64; elsewhere pages may be larger.
        const PAGE: usize = 4096;
        let length = length.min(rest().saturating_sub(PAGE)) / PAGE * PAGE;
        let start = rest_begin().next_multiple_of(PAGE);
        // SAFETY: the range is of the heap, and no byte of it changes: it is made
        // writable, which it is.
        unsafe {
            libc::madvise(
                start as *mut libc::c_void,
                length,
                libc::MADV_POPULATE_WRITE,
            )
        };
    }
}

/// Other allocators do not mix what is old and new.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod heap {
    pub(super) const LARGEST: usize = 0;

    pub(super) fn next_smaller(_: usize) -> usize {
        0
    }

    pub(super) fn end() -> Option<usize> {
        Some(0)
    }

    pub(super) fn populate(_: usize) {}

    pub(super) fn give_back() {}

    pub(super) fn keep() {}

    pub(super) fn let_go() {}

    pub(super) fn share_again() {}
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
    use std::ops::Range;

    use super::*;

    #[test]
    fn gaps_are_filled_and_given_back() {
        let sizes =
            std::iter::successors(Some(heap::LARGEST), |size| Some(heap::next_smaller(*size)));
        assert!(sizes.take(1000).any(|size| size == 0), "it comes to an end");
        for _ in 0..3 {
            drop(Compact::heap());
        }
    }

    #[test]
    fn bytes_stay_the_same_wherever_they_are() {
        for length in [0, 10, 64 * 1024 + 1, 300_000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let moved = Bytes::from(bytes.clone()).unforked();
            assert!(*moved == *bytes, "{length}");
            let copy = moved.clone();
            drop(moved);
            assert!(*copy == *bytes, "{length}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn bytes_for_no_fork_are_in_a_file_that_nobody_can_write_to() {
        use std::fs::OpenOptions;

        let bytes = Bytes::from(vec![7; 100_000]).unforked();
        let at = bytes.as_ptr() as usize;
        let all = super::super::mappings::all();
        let found = all.iter().find(|one| one.range.contains(&at));
        let found = found.expect("a mapping");
        assert!(found.name.starts_with("/memfd:"), "{found:?}");
        assert_eq!(found.rights, "r--p");
        let Range { start, end } = found.range;
        let link = format!("/proc/self/map_files/{start:x}-{end:x}");
        match OpenOptions::new().write(true).open(link) {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, b"x").expect_err("it is sealed");
            }
            // It takes rights that a test may lack.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert!(bytes.iter().all(|&byte| byte == 7));
    }

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
