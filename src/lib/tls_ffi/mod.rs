//! The libssl and libcrypto calls that the openssl crate lacks, each behind a
//! safe function. Names in backquotes are the C functions called.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uchar, c_uint, c_void};
use std::ptr;

use foreign_types::{ForeignType as _, ForeignTypeRef as _};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Params};
use openssl::ssl::{SslCipher, SslContextBuilder, SslRef};
use openssl::stack::StackRef;
use openssl_sys as ffi;

pub mod alerts;
pub mod anchors;
pub mod chain;
pub mod dane;
pub mod ex_data;
pub mod freed;
pub mod names;
pub mod provider;
#[cfg(any(feature = "remote", feature = "internals"))]
pub mod resume;
pub mod tickets;

/// Fails with what libcrypto queued if a call did not return one.
fn check(result: c_int) -> Result<(), ErrorStack> {
    if result == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// Empties libcrypto's queue of errors: `ERR_get_error`. What is left in it by a
/// failure that was no matter, libssl takes for the failure of its next call.
pub fn forget_errors() {
    drop(ErrorStack::get());
}

/// Forgets the texts, too, that libcrypto keeps of errors which were forgotten, to use
/// their memory again: for a process that forks. Each child would write to all of them
/// whenever it empties the queue.
pub fn forget_error_texts() {
    /// `ERR_NUM_ERRORS` and `ERR_TXT_STRING` of err.h.
    const QUEUE: usize = 16;
    const TEXT: c_int = 2;
    for _ in 0..QUEUE {
        // SAFETY: takes nothing; the next place of the queue is begun.
        unsafe { ffi::ERR_new() };
        // SAFETY: the text is a constant, and without ERR_TXT_MALLOCED libcrypto
        // neither writes to it nor frees it. What the place had before is freed.
        unsafe { ffi::ERR_set_error_data(c"".as_ptr().cast_mut(), TEXT) };
    }
    // SAFETY: takes nothing.
    unsafe { ffi::ERR_clear_error() };
}

unsafe extern "C" {
    fn OPENSSL_cleanse(start: *mut c_void, length: usize);
}

/// Overwrites a secret: `OPENSSL_cleanse`. A plain assignment before a value's
/// end could be removed by the compiler.
pub fn wipe(secret: &mut [u8]) {
    // SAFETY: the slice is exclusively borrowed and the call writes exactly its
    // length.
    unsafe { OPENSSL_cleanse(secret.as_mut_ptr().cast(), secret.len()) };
}

/// How long a session may be resumed, in seconds: `SSL_CTX_set_timeout`.
pub fn set_session_seconds(context: &mut SslContextBuilder, seconds: u32) {
    unsafe extern "C" {
        fn SSL_CTX_set_timeout(ctx: *mut ffi::SSL_CTX, seconds: c_long) -> c_long;
    }
    #[allow(
        clippy::unnecessary_fallible_conversions,
        reason = "machines of 32 bits have a smaller number"
    )]
    let seconds = c_long::try_from(seconds).unwrap_or(c_long::MAX);
    // SAFETY: the builder wraps a valid SSL_CTX for the whole call, which
    // stores a number and keeps no pointer.
    unsafe { SSL_CTX_set_timeout(context.as_ptr(), seconds) };
}

/// Asks the peer of a TLS 1.3 session for new keys with the next flight, and
/// announces our own: `SSL_key_update`. Only tests do that.
///
/// # Errors
/// The session is none of TLS 1.3, or another update is under way.
#[cfg(feature = "internals")]
pub fn update_keys(ssl: &SslRef) -> Result<(), ErrorStack> {
    /// `SSL_KEY_UPDATE_REQUESTED` of ssl.h.
    const REQUESTED: c_int = 1;
    unsafe extern "C" {
        fn SSL_key_update(ssl: *mut ffi::SSL, kind: c_int) -> c_int;
    }
    // SAFETY: the reference is to a valid SSL; the call notes a wish in it, does
    // no I/O and keeps no pointer.
    check(unsafe { SSL_key_update(ssl.as_ptr(), REQUESTED) })
}

/// How long a peer's Certificate message may be, in bytes:
/// `SSL_CTX_set_max_cert_list`.
#[cfg(feature = "remote")]
pub fn set_certificate_limit(context: &mut SslContextBuilder, length: usize) {
    /// `SSL_CTRL_SET_MAX_CERT_LIST` of ssl.h.
    const SET_MAX_CERT_LIST: c_int = 51;
    let length = c_long::try_from(length).unwrap_or(c_long::MAX);
    // SAFETY: the builder wraps a valid SSL_CTX for the whole call; the control
    // stores the number and takes no pointer.
    unsafe { ffi::SSL_CTX_ctrl(context.as_ptr(), SET_MAX_CERT_LIST, length, ptr::null_mut()) };
}

/// How much libssl reads at once, in bytes: `SSL_CTX_set_default_read_buffer_len`.
/// With read-ahead on, several records come with one system call.
pub fn set_read_buffer(context: &mut SslContextBuilder, length: usize) {
    unsafe extern "C" {
        fn SSL_CTX_set_default_read_buffer_len(ctx: *mut ffi::SSL_CTX, len: usize);
    }
    // SAFETY: the builder wraps a valid SSL_CTX for the whole call, which
    // stores a number and keeps no pointer.
    unsafe { SSL_CTX_set_default_read_buffer_len(context.as_ptr(), length) };
}

/// A ClientHello extension's body; only inside a client-hello callback:
/// `SSL_client_hello_get0_ext`.
#[must_use]
pub fn hello_extension(ssl: &SslRef, number: u16) -> Option<&[u8]> {
    let mut body = ptr::null();
    let mut length = 0;
    // SAFETY: the SslRef wraps a valid SSL for the whole call. The function
    // sets both places on success only. Outside the callback it returns 0.
    let found = unsafe {
        ffi::SSL_client_hello_get0_ext(
            ssl.as_ptr(),
            c_uint::from(number),
            &raw mut body,
            &raw mut length,
        )
    };
    if found != 1 || body.is_null() {
        return None;
    }
    // SAFETY: the bytes belong to the SSL, which the result borrows.
    Some(unsafe { std::slice::from_raw_parts(body, length) })
}

/// The key-exchange group of a session: `SSL_get_negotiated_group` and
/// `SSL_group_to_name`. `None` where no group was used (RFC 5246 DHE).
#[must_use]
pub fn group_name(ssl: &SslRef) -> Option<String> {
    /// `SSL_CTRL_GET_NEGOTIATED_GROUP` of ssl.h, the same number since 3.0.
    const GET_NEGOTIATED_GROUP: c_int = 134;
    unsafe extern "C" {
        fn SSL_group_to_name(ssl: *mut ffi::SSL, id: c_int) -> *const c_char;
    }
    // SAFETY: the SslRef wraps a valid SSL for the call, which takes no pointer.
    let id = unsafe { ffi::SSL_ctrl(ssl.as_ptr(), GET_NEGOTIATED_GROUP, 0, ptr::null_mut()) };
    let id = c_int::try_from(id).ok().filter(|id| *id != 0)?;
    // SAFETY: the SslRef wraps a valid SSL for the call.
    let name = unsafe { SSL_group_to_name(ssl.as_ptr(), id) };
    if name.is_null() {
        return None;
    }
    // SAFETY: it is a static string of libssl.
    let name = unsafe { CStr::from_ptr(name) };
    // 3.0 says x25519 where later versions and the RFCs say X25519.
    let name = name.to_str().ok()?;
    Some(if name.starts_with('x') {
        name.to_uppercase()
    } else {
        name.to_owned()
    })
}

/// How many tickets a connection gives; with none it takes none either:
/// `SSL_set_options`, `SSL_clear_options`, `SSL_set_num_tickets`.
///
/// # Errors
/// Libssl refuses the number.
pub fn set_tickets(ssl: &mut SslRef, count: usize) -> Result<(), ErrorStack> {
    /// `SSL_OP_NO_TICKET` of ssl.h.
    const NO_TICKET: u64 = 1 << 14;
    unsafe extern "C" {
        fn SSL_set_options(ssl: *mut ffi::SSL, options: u64) -> u64;
        fn SSL_clear_options(ssl: *mut ffi::SSL, options: u64) -> u64;
    }
    let change = if count == 0 {
        SSL_set_options
    } else {
        SSL_clear_options
    };
    // SAFETY: the SslRef wraps a valid SSL, exclusively borrowed for the call,
    // which stores a number.
    unsafe { change(ssl.as_ptr(), NO_TICKET) };
    ssl.set_num_tickets(count)
}

/// Has a connection agree on these groups: `SSL_set1_groups_list`.
///
/// # Errors
/// Libssl knows none of them.
pub fn set_groups(ssl: &mut SslRef, list: &str) -> Result<(), ErrorStack> {
    /// `SSL_CTRL_SET_GROUPS_LIST` of ssl.h.
    const SET_GROUPS_LIST: c_int = 92;
    let Ok(list) = CString::new(list) else {
        return Err(ErrorStack::get());
    };
    // SAFETY: the SslRef wraps a valid SSL, exclusively borrowed for the call,
    // which reads the NUL-terminated text and keeps no pointer to it.
    let done = unsafe {
        ffi::SSL_ctrl(
            ssl.as_ptr(),
            SET_GROUPS_LIST,
            0,
            list.as_ptr().cast_mut().cast(),
        )
    };
    check(c_int::from(done == 1))
}

/// Whether the peer supports secure renegotiation (RFC 5746):
/// `SSL_get_secure_renegotiation_support`.
#[must_use]
pub fn secure_renegotiation(ssl: &SslRef) -> bool {
    /// `SSL_CTRL_GET_RI_SUPPORT` of ssl.h.
    const GET_RI_SUPPORT: c_int = 76;
    // SAFETY: the SslRef wraps a valid SSL for the whole call; the control
    // takes no pointer.
    unsafe { ffi::SSL_ctrl(ssl.as_ptr(), GET_RI_SUPPORT, 0, ptr::null_mut()) == 1 }
}

/// Uses a finite-field group of RFC 7919 (`ffdhe2048`, ...) for DHE below TLS
/// 1.3: `EVP_PKEY_fromdata`, `SSL_CTX_set0_tmp_dh_pkey`. Returns its prime, high
/// byte first: `EVP_PKEY_get_bn_param`.
///
/// # Errors
/// Libcrypto knows no such group.
pub fn set_dh_group(context: &mut SslContextBuilder, group: &str) -> Result<Vec<u8>, ErrorStack> {
    /// `OSSL_PARAM_UTF8_STRING` of core.h.
    const UTF8_STRING: c_uint = 4;
    /// `EVP_PKEY_KEY_PARAMETERS` of evp.h.
    const KEY_PARAMETERS: c_int = 0x84;
    let Ok(name) = CString::new(group) else {
        return Err(ErrorStack::get());
    };
    // SAFETY: takes nothing.
    let end = unsafe { ffi::OSSL_PARAM_construct_end() };
    let mut params = [
        ffi::OSSL_PARAM {
            key: c"group".as_ptr(),
            data_type: UTF8_STRING,
            data: name.as_ptr().cast_mut().cast::<c_void>(),
            data_size: group.len(),
            return_size: usize::MAX,
        },
        end,
    ];
    // SAFETY: null is libcrypto's own context; the list ends with the empty entry,
    // and its name lives as long.
    let key: PKey<Params> = unsafe {
        key_of(
            ptr::null_mut(),
            c"DH",
            None,
            KEY_PARAMETERS,
            params.as_mut_ptr(),
        )
    }?;
    let mut prime = ptr::null_mut();
    // SAFETY: the key is valid for the call, and the name a static string.
    check(unsafe { ffi::EVP_PKEY_get_bn_param(key.as_ptr(), c"p".as_ptr(), &raw mut prime) })?;
    // SAFETY: the number was just made, and nobody else owns it.
    let prime = unsafe { BigNum::from_ptr(prime) };
    // SAFETY: both objects are valid for the call, which takes the key over where it
    // succeeds.
    check(unsafe { ffi::SSL_CTX_set0_tmp_dh_pkey(context.as_ptr(), key.as_ptr()) })?;
    std::mem::forget(key);
    Ok(prime.to_vec())
}

/// A context that makes keys.
struct KeyMaker(*mut ffi::EVP_PKEY_CTX);

impl Drop for KeyMaker {
    fn drop(&mut self) {
        // SAFETY: the context is ours alone, and is freed once.
        unsafe { ffi::EVP_PKEY_CTX_free(self.0) };
    }
}

/// A key made of parameters: `EVP_PKEY_fromdata`.
///
/// # Safety
/// `library` is null or a library context. `params` leads to a list that ends with
/// the empty entry, all of it valid for the call, which copies what it needs.
unsafe fn key_of<T>(
    library: *mut ffi::OSSL_LIB_CTX,
    kind: &CStr,
    property: Option<&CStr>,
    selection: c_int,
    params: *mut ffi::OSSL_PARAM,
) -> Result<PKey<T>, ErrorStack> {
    let property = property.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: by contract; the names end with NUL.
    let maker = unsafe { ffi::EVP_PKEY_CTX_new_from_name(library, kind.as_ptr(), property) };
    if maker.is_null() {
        return Err(ErrorStack::get());
    }
    let maker = KeyMaker(maker);
    // SAFETY: the context is valid.
    check(unsafe { ffi::EVP_PKEY_fromdata_init(maker.0) })?;
    let mut key = ptr::null_mut();
    // SAFETY: the context is valid and ready for this, the list by contract.
    check(unsafe { ffi::EVP_PKEY_fromdata(maker.0, &raw mut key, selection, params) })?;
    // SAFETY: the key was just made, and nobody else owns it.
    Ok(unsafe { PKey::from_ptr(key) })
}

/// Adds an intermediate to the chain of the certificate that was set last,
/// unlike the openssl crate's call, which gives it to all certificates:
/// `SSL_CTX_add1_chain_cert`.
///
/// # Errors
/// Libssl refuses the certificate.
pub fn add_chain_certificate(
    context: &mut SslContextBuilder,
    certificate: &openssl::x509::X509Ref,
) -> Result<(), ErrorStack> {
    /// `SSL_CTRL_CHAIN_CERT` of ssl.h; 1: take a reference.
    const CHAIN_CERT: c_int = 89;
    // SAFETY: both objects are valid for the whole call, which takes a
    // reference of its own to the certificate.
    let done =
        unsafe { ffi::SSL_CTX_ctrl(context.as_ptr(), CHAIN_CERT, 1, certificate.as_ptr().cast()) };
    check(c_int::from(done == 1))
}

/// The ciphers of a context, in its order: `SSL_CTX_get_ciphers`.
#[must_use]
pub fn ciphers(context: &openssl::ssl::SslContextRef) -> Vec<&openssl::ssl::SslCipherRef> {
    unsafe extern "C" {
        fn SSL_CTX_get_ciphers(ctx: *const ffi::SSL_CTX) -> *mut ffi::stack_st_SSL_CIPHER;
    }
    // SAFETY: the context is valid for the whole call.
    let stack = unsafe { SSL_CTX_get_ciphers(context.as_ptr()) };
    if stack.is_null() {
        return Vec::new();
    }
    // SAFETY: the stack belongs to the context and lives as long as the borrow,
    // unchanged, since a built context's list is never set again.
    let stack = unsafe { StackRef::<SslCipher>::from_ptr(stack) };
    stack.iter().collect()
}

/// Forgets the certificates that a connection took over from its context:
/// `SSL_certs_clear`.
pub fn forget_certificates(ssl: &mut SslRef) {
    unsafe extern "C" {
        fn SSL_certs_clear(ssl: *mut ffi::SSL);
    }
    // SAFETY: the SslRef wraps a valid SSL, exclusively borrowed for the call.
    unsafe { SSL_certs_clear(ssl.as_ptr()) };
}

/// Completes the chain of the certificate that was set last from the context's
/// anchors, the root left out, as far as it can be: `SSL_CTX_build_cert_chain`.
pub fn complete_chain(context: &mut SslContextBuilder) {
    /// `SSL_CTRL_BUILD_CERT_CHAIN` of ssl.h, and `SSL_BUILD_CHAIN_FLAG_NO_ROOT`,
    /// `_IGNORE_ERROR`, `_CLEAR_ERROR`.
    const BUILD_CERT_CHAIN: c_int = 105;
    const FLAGS: c_long = 0x2 | 0x8 | 0x10;
    // SAFETY: the builder wraps a valid SSL_CTX for the whole call; the control
    // takes no pointer.
    unsafe { ffi::SSL_CTX_ctrl(context.as_ptr(), BUILD_CERT_CHAIN, FLAGS, ptr::null_mut()) };
}

/// Whether a certificate names a host in its subjectAltName, by RFC 9525's
/// rules: `X509_check_host` without the subject and without partial wildcards.
#[must_use]
pub fn names_host(certificate: &openssl::x509::X509Ref, host: &str) -> bool {
    // Of no length is, to libcrypto, a string that ends with a NUL somewhere.
    if host.is_empty() {
        return false;
    }
    let flags =
        ffi::X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | ffi::X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
    // SAFETY: the certificate is valid for the whole call; the name is passed with
    // its length, which is not 0, and not kept; no matched name is asked for.
    let result = unsafe {
        ffi::X509_check_host(
            certificate.as_ptr(),
            host.as_ptr().cast(),
            host.len(),
            flags,
            ptr::null_mut(),
        )
    };
    forget_errors();
    // With a dot in front libcrypto matches all that lies below the name.
    result == 1 && !host.starts_with('.')
}

/// The file and the directories in which libcrypto looks for the system's
/// anchors, as `SSL_CERT_FILE` and `SSL_CERT_DIR` say or as it was built.
#[must_use]
pub fn anchor_places() -> (std::path::PathBuf, Vec<std::path::PathBuf>) {
    use std::env;
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt as _;

    /// Libcrypto's constant texts.
    fn text(pointer: *const c_char) -> OsString {
        // SAFETY: these functions return NUL-terminated texts of libcrypto's own,
        // which are never freed.
        let text = unsafe { CStr::from_ptr(pointer) };
        OsStr::from_bytes(text.to_bytes()).to_owned()
    }
    // SAFETY: it takes nothing.
    let file_name = text(unsafe { ffi::X509_get_default_cert_file_env() });
    // SAFETY: it takes nothing.
    let file = text(unsafe { ffi::X509_get_default_cert_file() });
    // SAFETY: it takes nothing.
    let directory_name = text(unsafe { ffi::X509_get_default_cert_dir_env() });
    // SAFETY: it takes nothing.
    let directory = text(unsafe { ffi::X509_get_default_cert_dir() });
    let file = env::var_os(file_name).unwrap_or(file);
    let directories = env::var_os(directory_name).unwrap_or(directory);
    (file.into(), env::split_paths(&directories).collect())
}

/// Bytes of an ASN.1 string: `ASN1_STRING_get0_data`.
///
/// # Safety
/// `string` must be valid for as long as the result is used.
unsafe fn string_bytes<'a>(string: *const ffi::ASN1_STRING) -> &'a [u8] {
    // SAFETY: by contract the string is valid.
    let data: *const c_uchar = unsafe { ffi::ASN1_STRING_get0_data(string) };
    // SAFETY: as before.
    let length = unsafe { ffi::ASN1_STRING_length(string) };
    if data.is_null() {
        return &[];
    }
    // SAFETY: libcrypto keeps data and length together.
    unsafe { std::slice::from_raw_parts(data, usize::try_from(length).unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_an_error_is_kept_and_later_ones_have_theirs() {
        let failure = || openssl::x509::X509::from_pem(b"none").expect_err("no certificate");
        for _ in 0..40 {
            for error in failure().errors() {
                error.put();
            }
        }
        forget_error_texts();
        assert!(ErrorStack::get().errors().is_empty());
        let errors = failure();
        assert!(!errors.errors().is_empty());
        forget_error_texts();
    }

    #[test]
    fn a_certificate_names_a_host_and_never_none() {
        let mut builder = openssl::x509::X509Builder::new().expect("a builder");
        builder.set_version(2).expect("version 3");
        let names = openssl::x509::extension::SubjectAlternativeName::new()
            .dns("mx.a.example")
            .dns("*.b.example")
            .build(&builder.x509v3_context(None, None));
        builder
            .append_extension(names.expect("names"))
            .expect("names");
        let leaf = builder.build();
        for (host, named) in [
            ("mx.a.example", true),
            ("MX.A.example", true),
            ("x.b.example", true),
            ("x.y.b.example", false),
            (".a.example", false),
            ("a.example", false),
            // Whatever stands behind a string of no length.
            (&"mx.a.example\0"[..0], false),
        ] {
            assert_eq!(names_host(&leaf, host), named, "{host:?}");
        }
    }
}
