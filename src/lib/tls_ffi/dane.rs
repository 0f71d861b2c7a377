//! TLSA records compared with a server's chain by libssl (RFC 7671), as
//! `SSL_CTX_dane_enable(3)` describes it.

use std::ffi::{c_int, c_uchar};
use std::ptr;

use foreign_types::ForeignTypeRef as _;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl_sys as ffi;

/// A record's numbers: usage, selector, matching type.
pub type Numbers = [u8; 3];

/// `DANE_FLAG_NO_DANE_EE_NAMECHECKS` of ssl.h.
#[cfg(feature = "remote")]
const NO_NAMES_FOR_END_ENTITIES: std::ffi::c_ulong = 1;

unsafe extern "C" {
    fn SSL_CTX_dane_enable(ctx: *mut ffi::SSL_CTX) -> c_int;
    #[cfg(feature = "remote")]
    fn SSL_dane_enable(ssl: *mut ffi::SSL, host: *const std::ffi::c_char) -> c_int;
    #[cfg(feature = "remote")]
    fn SSL_add1_host(ssl: *mut ffi::SSL, host: *const std::ffi::c_char) -> c_int;
    #[cfg(feature = "remote")]
    fn SSL_dane_set_flags(ssl: *mut ffi::SSL, flags: std::ffi::c_ulong) -> std::ffi::c_ulong;
    #[cfg(feature = "remote")]
    fn SSL_dane_tlsa_add(
        ssl: *mut ffi::SSL,
        usage: u8,
        selector: u8,
        matching: u8,
        data: *const c_uchar,
        length: usize,
    ) -> c_int;
    fn SSL_get0_dane_tlsa(
        ssl: *mut ffi::SSL,
        usage: *mut u8,
        selector: *mut u8,
        matching: *mut u8,
        data: *mut *const c_uchar,
        length: *mut usize,
    ) -> c_int;
}

/// Lets a context's connections have records: `SSL_CTX_dane_enable`.
///
/// # Errors
/// Libcrypto has no memory.
pub fn allow(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // SAFETY: the builder wraps a valid SSL_CTX, which nobody else has yet.
    super::check(unsafe { SSL_CTX_dane_enable(context.as_ptr()) })
}

/// Has a connection's chain compared with records, and says how many of them libssl
/// can use. The server is asked for by this host's name (SNI), which the certificate
/// must bear, or one of the others, in subjectAltName, where an authority's record
/// matches; where one of the server's own does, neither names nor dates count: RFC
/// 7671, 5.1.
///
/// # Errors
/// The context does not [`allow`] it, or a name is none.
#[cfg(feature = "remote")]
pub fn require<'a>(
    ssl: &mut SslRef,
    host: &str,
    others: &[&str],
    records: impl Iterator<Item = (Numbers, &'a [u8])>,
) -> Result<usize, ErrorStack> {
    use openssl::x509::verify::X509CheckFlags;

    let name = std::ffi::CString::new(host).map_err(|_| ErrorStack::get())?;
    // SAFETY: the connection is valid, and libssl copies the name.
    super::check(unsafe { SSL_dane_enable(ssl.as_ptr(), name.as_ptr()) })?;
    // SAFETY: the connection is valid; takes numbers only.
    unsafe { SSL_dane_set_flags(ssl.as_ptr(), NO_NAMES_FOR_END_ENTITIES) };
    let flags = X509CheckFlags::NEVER_CHECK_SUBJECT | X509CheckFlags::NO_PARTIAL_WILDCARDS;
    ssl.param_mut().set_hostflags(flags);
    for other in others {
        let other = std::ffi::CString::new(*other).map_err(|_| ErrorStack::get())?;
        // SAFETY: the connection is valid, and libssl copies the name.
        super::check(unsafe { SSL_add1_host(ssl.as_ptr(), other.as_ptr()) })?;
    }
    let mut usable = 0;
    for ([usage, selector, matching], data) in records {
        // SAFETY: the connection is valid, the slice is as long as is said, and
        // libssl copies it.
        let added = unsafe {
            SSL_dane_tlsa_add(
                ssl.as_ptr(),
                usage,
                selector,
                matching,
                data.as_ptr(),
                data.len(),
            )
        };
        if added > 0 {
            usable += 1;
        }
    }
    // What libssl minds in a record is no failure of its next caller's.
    drop(ErrorStack::get());
    Ok(usable)
}

/// The record that matched the chain, if one did: `SSL_get0_dane_tlsa`.
#[must_use]
pub fn matched(ssl: &SslRef) -> Option<Numbers> {
    let [mut usage, mut selector, mut matching] = [0; 3];
    // SAFETY: the connection is valid, and the call does not change it; the numbers
    // are ours, and libssl writes no more than them.
    let depth = unsafe {
        SSL_get0_dane_tlsa(
            ssl.as_ptr(),
            &raw mut usage,
            &raw mut selector,
            &raw mut matching,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    (depth >= 0).then_some([usage, selector, matching])
}
