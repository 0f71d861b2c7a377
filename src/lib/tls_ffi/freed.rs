//! Libcrypto's memory, overwritten when it is given back. Libcrypto does that
//! with the secrets that it knows as such; some of its readers of keys leave the
//! numbers of a key behind all the same (`d2i_ECPrivateKey` in 3.0).

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ptr, slice};

use super::wipe;

/// Whether it is done now.
static WIPING: AtomicBool = AtomicBool::new(false);

type Malloc = unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void, *const c_char, c_int);

unsafe extern "C" {
    /// crypto.h.
    fn CRYPTO_set_mem_functions(malloc: Malloc, realloc: Realloc, free: Free) -> c_int;
}

unsafe extern "C" fn take(size: usize, _: *const c_char, _: c_int) -> *mut c_void {
    // SAFETY: malloc takes any number.
    unsafe { libc::malloc(size) }
}

unsafe extern "C" fn retake(
    old: *mut c_void,
    size: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    // SAFETY: by libcrypto's contract `old` is null or came from [`take`] or from
    // here, and is not used after this. What is copied is in both blocks.
    unsafe {
        if old.is_null() || !WIPING.load(Ordering::Relaxed) {
            return libc::realloc(old, size);
        }
        let new = libc::malloc(size);
        if !new.is_null() {
            let both = libc::malloc_usable_size(old).min(size);
            ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast(), both);
            give_back(old, file, line);
        }
        new
    }
}

unsafe extern "C" fn give_back(block: *mut c_void, _: *const c_char, _: c_int) {
    // SAFETY: as in [`retake`]; a null pointer has no size, and the whole of a
    // block is ours until it is freed.
    unsafe {
        if WIPING.load(Ordering::Relaxed) && !block.is_null() {
            let size = libc::malloc_usable_size(block);
            wipe(slice::from_raw_parts_mut(block.cast(), size));
        }
        libc::free(block);
    }
}

/// Takes libcrypto's memory over: `CRYPTO_set_mem_functions`. For the start of a
/// program, before libcrypto has any; else nothing is changed.
pub fn take_over() {
    // SAFETY: the functions are plain ones that live for ever and keep malloc's
    // promises; libcrypto itself refuses a change that comes too late.
    unsafe { CRYPTO_set_mem_functions(take, retake, give_back) };
}

/// Begins to overwrite what is given back, or ends it.
pub fn wipe_freed(on: bool) {
    WIPING.store(on, Ordering::Relaxed);
}
