//! Libcrypto's memory. Where there is none, that is noticed, for libcrypto's own words
//! would be others. It is overwritten when it is given back: libcrypto does that with
//! the secrets that it knows as such; some of its readers of keys leave the numbers of
//! a key behind all the same (`d2i_ECPrivateKey` in 3.0).

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::OPENSSL_cleanse;
use crate::sys::memory::shortage;

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
    given(unsafe { libc::malloc(size) }, size)
}

/// What malloc gave. Where that is nothing, libcrypto would say of whatever it was
/// asked that it is wrong or unknown.
fn given(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() && size > 0 {
        shortage::refuse();
    }
    block
}

unsafe extern "C" fn retake(
    old: *mut c_void,
    size: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    if old.is_null() || !WIPING.load(Ordering::Relaxed) {
        // SAFETY: by libcrypto's contract `old` is null or came from [`take`] or from
        // here, and is not used after this.
        return given(unsafe { libc::realloc(old, size) }, size);
    }
    // SAFETY: malloc takes any number.
    let new = given(unsafe { libc::malloc(size) }, size);
    if !new.is_null() {
        // SAFETY: `old` is a block of malloc's, by the same contract.
        let both = unsafe { libc::malloc_usable_size(old) }.min(size);
        // SAFETY: that many bytes are in both blocks, which are two; bytes that were
        // never written are copied as they are.
        unsafe { ptr::copy_nonoverlapping(old.cast::<MaybeUninit<u8>>(), new.cast(), both) };
        // SAFETY: nobody uses the old block after this.
        unsafe { give_back(old, file, line) };
    }
    new
}

unsafe extern "C" fn give_back(block: *mut c_void, _: *const c_char, _: c_int) {
    if WIPING.load(Ordering::Relaxed) && !block.is_null() {
        // SAFETY: as in [`retake`].
        let size = unsafe { libc::malloc_usable_size(block) };
        // SAFETY: the whole of a block is ours until it is freed. No slice of it is
        // made: not every byte need have been written.
        unsafe { OPENSSL_cleanse(block, size) };
    }
    // SAFETY: as in [`retake`]; a null pointer is nothing to free.
    unsafe { libc::free(block) };
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
