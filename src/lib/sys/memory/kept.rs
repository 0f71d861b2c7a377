//! The heap as a process keeps it for those that it forks: what one of them has
//! written to and is again as it was needs no memory of its own.
//!
//! A lock that was taken and let go, a counter that went up and down: most pages that a
//! handshake writes to hold the same bytes afterwards. The kernel made a copy of each.
//! The heap becomes a private mapping of a file in memory, and such a copy, given up,
//! is the file's page again. Nobody can write to the file: its descriptor is closed,
//! and no mapping of it is shared.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::c_void;
use nix::sys::resource::{Resource, getrlimit, rlim_t};

use super::shortage;
use crate::sys::mappings;

/// A heap of more bytes is not kept: a forked process looks through all of it.
const MOST: usize = 4 * 1024 * 1024;
/// pagemap(5): a page that is there, or swapped out. Others were never touched, or were
/// given back.
const IN_USE: u64 = 3 << 62;

/// The part of the heap that is kept, and where what it was can be read.
struct Kept {
    heap: Range<usize>,
    /// A mapping of the same file, as long as that.
    file: usize,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the heap up to that address. Where that cannot be done, forked processes have
/// copies of their own as ever; so they have where this process has other threads.
pub(super) fn keep(end: usize) {
    if !is_alone() {
        return;
    }
    let page = super::page_size();
    let all = mappings::all();
    let Some(start) = all.iter().find(|one| one.name == "[heap]") else {
        return;
    };
    let heap = start.range.start..end / page * page;
    if heap.is_empty() || heap.len() > MOST {
        return;
    }
    let Ok(used) = used_pages(&heap, page) else {
        return;
    };
    let mut kept = lock();
    // From here on nothing is allocated or freed.
    *kept = move_to_file(&heap, &used, page).ok();
}

/// Whether no other thread can write to the heap while it is moved.
fn is_alone() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Which pages of it hold something.
fn used_pages(heap: &Range<usize>, page: usize) -> io::Result<Vec<bool>> {
    const ENTRY: usize = size_of::<u64>();
    let mut entries = Vec::new();
    // A reload where memory is short is not to end by this.
    shortage::attempt(|| entries.try_reserve_exact(heap.len() / page * ENTRY))?;
    entries.resize(heap.len() / page * ENTRY, 0);
    let at = (heap.start / page * ENTRY) as u64;
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, at)?;
    let entries = entries.chunks_exact(ENTRY);
    let entries = entries.filter_map(|entry| entry.try_into().ok().map(u64::from_ne_bytes));
    Ok(entries.map(|entry| entry & IN_USE != 0).collect())
}

fn move_to_file(heap: &Range<usize>, used: &[bool], page: usize) -> io::Result<Kept> {
    let length = heap.len();
    // A longer file would end this process by SIGXFSZ.
    let (longest, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if longest < rlim_t::try_from(length).unwrap_or(rlim_t::MAX) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let file = super::file::nameless(c"heap")?;
    file.set_len(length as u64)?;
    for offset in (0..length).step_by(page) {
        if used[offset / page] {
            write(&file, heap.start + offset, page, offset)?;
        }
    }
    let before = map(0, length, libc::PROT_READ, 0, file.as_raw_fd())?;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let placed = map(
        heap.start,
        length,
        rights,
        libc::MAP_FIXED,
        file.as_raw_fd(),
    );
    if let Err(error) = placed {
        unmap(before, length);
        return Err(error);
    }
    for (at, _) in used.iter().enumerate().filter(|(_, used)| **used) {
        let address = (heap.start + at * page) as *const u8;
        // SAFETY: a byte of the mapping that was made above. Forked processes find the
        // page where they would else ask for it.
        let _ = unsafe { address.read_volatile() };
    }
    Ok(Kept {
        heap: heap.clone(),
        file: before,
    })
}

fn write(file: &File, from: usize, length: usize, offset: usize) -> io::Result<()> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let from = from as *const c_void;
    // SAFETY: the kernel reads memory of the heap; what it cannot read is an error.
    let count = unsafe { libc::pwrite(file.as_raw_fd(), from, length, offset) };
    match usize::try_from(count) {
        Ok(count) if count == length => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// A private mapping of a file, or of nothing with -1.
fn map(at: usize, length: usize, rights: i32, flags: i32, file: i32) -> io::Result<usize> {
    let flags = flags | libc::MAP_PRIVATE | if file < 0 { libc::MAP_ANONYMOUS } else { 0 };
    // SAFETY: either at an address of the kernel's choice, where it aliases nothing, or in
    // the place of a part of the heap, whose bytes it has.
    let mapped = unsafe { libc::mmap(at as *mut c_void, length, rights, flags, file, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(mapped as usize)
}

fn unmap(at: usize, length: usize) {
    // SAFETY: the mapping is one that `map` made, and nobody reads it any more.
    unsafe { libc::munmap(at as *mut c_void, length) };
}

/// Makes it memory like any other again: what is freed of it can be given back.
pub(super) fn let_go() {
    let mut kept = lock();
    let Some(Kept { heap, file }) = kept.take() else {
        return;
    };
    unmap(file, heap.len());
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let Ok(copy) = map(0, heap.len(), rights, 0, -1) else {
        return;
    };
    // SAFETY: both are mapped, that long, and two; the copy is written to by nobody else.
    unsafe {
        std::ptr::copy_nonoverlapping(heap.start as *const u8, copy as *mut u8, heap.len());
    };
    // SAFETY: the heap has the same bytes and rights in its copy.
    unsafe {
        libc::mremap(
            copy as *mut c_void,
            heap.len(),
            heap.len(),
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            heap.start as *mut c_void,
        )
    };
}

/// Gives up copies of pages that are as they were.
pub(super) fn share_again() {
    let kept = lock();
    let Some(Kept { heap, file }) = &*kept else {
        return;
    };
    let page = super::page_size();
    let mut same = heap.start..heap.start;
    for (own, before) in heap.clone().zip(*file..).step_by(page) {
        // SAFETY: both are pages of mappings that can be read, and compared as bytes.
        let differs = unsafe { libc::memcmp(own as *const c_void, before as *const c_void, page) };
        if differs == 0 {
            same.end = own + page;
            continue;
        }
        super::drop_pages(&same);
        same = own + page..own + page;
    }
    super::drop_pages(&same);
    super::drop_pages(&(*file..*file + heap.len()));
    // All at once, and not at the first use of each. What is shared counts as this
    // process's memory where the kernel looks for the largest one to end.
    // SAFETY: no byte changes.
    unsafe {
        libc::madvise(
            heap.start as *mut c_void,
            heap.len(),
            libc::MADV_POPULATE_READ,
        )
    };
}
