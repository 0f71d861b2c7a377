//! Trust anchors: the blocks of a PEM file, certificates that say what they are
//! trusted for, and a store that asks a function of ours for them. Names in
//! backquotes are the C functions called.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_void};
use std::ptr;
use std::sync::OnceLock;

use foreign_types::{ForeignType as _, ForeignTypeRef as _};
use openssl::error::ErrorStack;
use openssl::x509::store::X509StoreBuilderRef;
use openssl::x509::{X509, X509NameRef};
use openssl_sys as ffi;

/// A block of a PEM file (RFC 7468).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemBlock {
    /// `CERTIFICATE`, say.
    pub label: Vec<u8>,
    /// Whether lines stand before its data (RFC 1421, 4.6), as with what is encrypted.
    pub has_header: bool,
    /// Its data, decoded.
    pub data: Vec<u8>,
}

/// Bytes that are read as a file: `BIO_new_mem_buf`.
struct Bio(*mut ffi::BIO);

impl Drop for Bio {
    fn drop(&mut self) {
        // SAFETY: it is ours alone, and is freed once.
        unsafe { ffi::BIO_free_all(self.0) };
    }
}

/// Memory of libcrypto's.
struct Allocated<T>(*mut T);

impl<T> Drop for Allocated<T> {
    fn drop(&mut self) {
        // SAFETY: libcrypto allocated it and gave it away; null is no matter.
        unsafe { ffi::OPENSSL_free(self.0.cast()) };
    }
}

impl Allocated<c_char> {
    fn text(&self) -> &[u8] {
        if self.0.is_null() {
            return &[];
        }
        // SAFETY: it ends with NUL, and lives as long as the borrow.
        unsafe { CStr::from_ptr(self.0) }.to_bytes()
    }
}

/// All blocks of a PEM file; text around them is passed by: `PEM_read_bio`.
///
/// # Errors
/// A block is damaged.
pub fn pem_blocks(bytes: &[u8]) -> Result<Vec<PemBlock>, ErrorStack> {
    let Ok(length) = c_int::try_from(bytes.len()) else {
        return Err(ErrorStack::get());
    };
    // SAFETY: the bytes outlive what reads them, which does not write.
    let bio = Bio(unsafe { ffi::BIO_new_mem_buf(bytes.as_ptr().cast(), length) });
    if bio.0.is_null() {
        return Err(ErrorStack::get());
    }
    let mut blocks = Vec::new();
    while let Some(block) = next_block(&bio)? {
        blocks.push(block);
    }
    Ok(blocks)
}

/// The next block; `None` at the end.
fn next_block(bio: &Bio) -> Result<Option<PemBlock>, ErrorStack> {
    /// `ERR_LIB_PEM` of err.h, and `PEM_R_NO_START_LINE` of pemerr.h.
    const PEM: c_int = 9;
    const NO_START_LINE: c_int = 108;
    unsafe extern "C" {
        fn PEM_read_bio(
            bio: *mut ffi::BIO,
            label: *mut *mut c_char,
            header: *mut *mut c_char,
            data: *mut *mut c_uchar,
            length: *mut c_long,
        ) -> c_int;
    }
    let (mut label, mut header, mut data) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let mut length = 0;
    // SAFETY: the BIO is valid, and the places are ours. Only a call that succeeds fills
    // them.
    let found = unsafe {
        PEM_read_bio(
            bio.0,
            &raw mut label,
            &raw mut header,
            &raw mut data,
            &raw mut length,
        )
    };
    if found != 1 {
        let why = ErrorStack::get();
        let is_end = why.errors().last().is_some_and(|error| {
            error.library_code() == PEM && error.reason_code() == NO_START_LINE
        });
        return if is_end { Ok(None) } else { Err(why) };
    }
    let (label, header, data) = (Allocated(label), Allocated(header), Allocated(data));
    let length = usize::try_from(length).unwrap_or(0);
    Ok(Some(PemBlock {
        label: label.text().to_vec(),
        has_header: !header.text().is_empty(),
        data: if data.0.is_null() {
            Vec::new()
        } else {
            // SAFETY: so many bytes were given away with the pointer.
            unsafe { std::slice::from_raw_parts(data.0, length) }.to_vec()
        },
    }))
}

/// A certificate in DER form with what it is trusted for behind it, as in a block
/// `TRUSTED CERTIFICATE`: `d2i_X509_AUX`.
///
/// # Errors
/// It is none.
pub fn trusted_from_der(bytes: &[u8]) -> Result<X509, ErrorStack> {
    unsafe extern "C" {
        fn d2i_X509_AUX(
            into: *mut *mut ffi::X509,
            bytes: *mut *const c_uchar,
            length: c_long,
        ) -> *mut ffi::X509;
    }
    let Ok(length) = c_long::try_from(bytes.len()) else {
        return Err(ErrorStack::get());
    };
    let mut at = bytes.as_ptr();
    // SAFETY: the bytes are valid for the call, which copies what it needs and moves
    // our pointer.
    let certificate = unsafe { d2i_X509_AUX(ptr::null_mut(), &raw mut at, length) };
    if certificate.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: it was just made, and nobody else owns it.
    Ok(unsafe { X509::from_ptr(certificate) })
}

/// Gives the certificates that have a name for their subject.
pub type Source = Box<dyn Fn(&X509NameRef) -> Vec<X509> + Send + Sync>;

unsafe extern "C" {
    fn X509_LOOKUP_set_method_data(lookup: *mut ffi::X509_LOOKUP, data: *mut c_void) -> c_int;
    fn X509_LOOKUP_get_method_data(lookup: *const ffi::X509_LOOKUP) -> *mut c_void;
}

/// Has a store ask a source for each subject of which it holds no certificate; what it
/// gives is an anchor from then on. It takes the place of a source that the store had:
/// `X509_STORE_add_lookup`.
///
/// # Errors
/// Libcrypto has no memory.
pub fn set_source(store: &mut X509StoreBuilderRef, source: Source) -> Result<(), ErrorStack> {
    let Some(method) = method() else {
        return Err(ErrorStack::get());
    };
    // SAFETY: the store is valid for the call, and the method for ever. The lookup
    // belongs to the store, which has one for each method.
    let lookup = unsafe { ffi::X509_STORE_add_lookup(store.as_ptr(), method) };
    if lookup.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: the lookup is valid, and what it had of ours is freed once: the next call
    // overwrites it.
    unsafe { free(lookup) };
    let data = Box::into_raw(Box::new(source));
    // SAFETY: the lookup is valid, and owns the source until `free`. The call stores a
    // pointer and cannot fail.
    super::check(unsafe { X509_LOOKUP_set_method_data(lookup, data.cast()) })
}

/// Has a store look in a directory as well, by the hash of a subject: what it holds is
/// read when a chain asks for it: `X509_LOOKUP_hash_dir(3)`.
///
/// # Errors
/// Libcrypto has no memory.
pub fn add_directory(store: &mut X509StoreBuilderRef, path: &CStr) -> Result<(), ErrorStack> {
    // SAFETY: it takes nothing, and gives a method that is never freed.
    let method = unsafe { ffi::X509_LOOKUP_hash_dir() };
    // SAFETY: the store is valid for the call, and owns the lookup.
    let lookup = unsafe { ffi::X509_STORE_add_lookup(store.as_ptr(), method) };
    if lookup.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: the lookup is valid, and the path is copied.
    super::check(unsafe { ffi::X509_LOOKUP_add_dir(lookup, path.as_ptr(), ffi::X509_FILETYPE_PEM) })
}

/// The one method of all stores, which are never without it: `X509_LOOKUP_meth_new`.
fn method() -> Option<*mut ffi::X509_LOOKUP_METHOD> {
    type Call = unsafe extern "C" fn(
        *mut ffi::X509_LOOKUP,
        c_int,
        *const ffi::X509_NAME,
        *mut ffi::X509_OBJECT,
    ) -> c_int;
    unsafe extern "C" {
        fn X509_LOOKUP_meth_new(name: *const c_char) -> *mut ffi::X509_LOOKUP_METHOD;
        fn X509_LOOKUP_meth_set_get_by_subject(
            method: *mut ffi::X509_LOOKUP_METHOD,
            call: Option<Call>,
        ) -> c_int;
        fn X509_LOOKUP_meth_set_free(
            method: *mut ffi::X509_LOOKUP_METHOD,
            call: Option<unsafe extern "C" fn(*mut ffi::X509_LOOKUP)>,
        ) -> c_int;
    }
    /// It is written to before anybody else has it.
    struct Method(*mut ffi::X509_LOOKUP_METHOD);
    // SAFETY: it is only read once it is made.
    unsafe impl Send for Method {}
    // SAFETY: as before.
    unsafe impl Sync for Method {}

    // Where there was no memory for it, it is made later.
    static METHOD: OnceLock<Method> = OnceLock::new();
    if let Some(method) = METHOD.get() {
        return Some(method.0);
    }
    // SAFETY: the name is a static text, which is copied.
    let method = unsafe { X509_LOOKUP_meth_new(c"anchors".as_ptr()) };
    if method.is_null() {
        return None;
    }
    // SAFETY: the method is valid, and the function fits it.
    unsafe { X509_LOOKUP_meth_set_get_by_subject(method, Some(by_subject)) };
    // SAFETY: as before.
    unsafe { X509_LOOKUP_meth_set_free(method, Some(free)) };
    Some(METHOD.get_or_init(|| Method(method)).0)
}

/// Ends a lookup's source.
///
/// # Safety
/// The lookup is valid and made by [`set_source`]; its source is not used afterwards.
unsafe extern "C" fn free(lookup: *mut ffi::X509_LOOKUP) {
    // SAFETY: by contract.
    let data = unsafe { X509_LOOKUP_get_method_data(lookup) };
    if !data.is_null() {
        // SAFETY: it is the source that was boxed for this lookup.
        drop(unsafe { Box::from_raw(data.cast::<Source>()) });
    }
}

/// Gives a store the certificates of a subject, and to `found` the first of them; 1 if
/// there is one.
///
/// # Safety
/// Libcrypto calls it, with a lookup of [`set_source`].
unsafe extern "C" fn by_subject(
    lookup: *mut ffi::X509_LOOKUP,
    kind: c_int,
    name: *const ffi::X509_NAME,
    found: *mut ffi::X509_OBJECT,
) -> c_int {
    /// `X509_LU_X509` of x509_vfy.h.
    const CERTIFICATE: c_int = 1;
    unsafe extern "C" {
        fn X509_LOOKUP_get_store(lookup: *const ffi::X509_LOOKUP) -> *mut ffi::X509_STORE;
        fn X509_OBJECT_set1_X509(object: *mut ffi::X509_OBJECT, x: *mut ffi::X509) -> c_int;
    }
    // SAFETY: the lookup is valid.
    let data = unsafe { X509_LOOKUP_get_method_data(lookup) };
    if kind != CERTIFICATE || data.is_null() || name.is_null() {
        return 0;
    }
    // SAFETY: it is the source that was boxed for this lookup, and lives as long.
    let source = unsafe { &*data.cast::<Source>() };
    // SAFETY: the name is valid for the call.
    let name = unsafe { X509NameRef::from_ptr(name.cast_mut()) };
    // SAFETY: the lookup is valid, and belongs to a store.
    let store = unsafe { X509_LOOKUP_get_store(lookup) };
    let all = source(name);
    for one in &all {
        // SAFETY: both are valid; the store takes a reference of its own. Libcrypto does
        // not hold the store's lock while it asks.
        if unsafe { ffi::X509_STORE_add_cert(store, one.as_ptr()) } != 1 {
            return 0;
        }
    }
    let Some(first) = all.first() else {
        return 0;
    };
    // SAFETY: both are valid; the object takes a reference.
    if unsafe { X509_OBJECT_set1_X509(found, first.as_ptr()) } != 1 {
        return 0;
    }
    // SAFETY: who asks takes a reference of its own and forgets the object's (see
    // X509_LOOKUP_hash_dir's function, which gives none). The store has another.
    unsafe { ffi::X509_free(first.as_ptr()) };
    1
}
