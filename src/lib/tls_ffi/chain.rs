//! A peer's chain verified by a function of ours, and against lists that were
//! read already. Names in backquotes are the C functions called.

use std::ffi::{c_int, c_void};

use foreign_types::ForeignTypeRef as _;
use openssl::asn1::Asn1Object;
use openssl::error::ErrorStack;
use openssl::ssl::SslContextBuilder;
use openssl::x509::store::X509StoreBuilderRef;
use openssl::x509::{X509, X509CrlRef, X509Ref, X509StoreContextRef, X509VerifyResult};
use openssl_sys as ffi;

/// Verifies a chain; false ends the handshake with the alert that libssl has for
/// the error that was set.
pub type VerifyCallback = fn(&mut X509StoreContextRef) -> bool;

/// Has the chains that a context's connections receive verified by `judge`:
/// `SSL_CTX_set_cert_verify_callback`.
pub fn judge_chains(context: &mut SslContextBuilder, judge: VerifyCallback) {
    unsafe extern "C" {
        fn SSL_CTX_set_cert_verify_callback(
            ctx: *mut ffi::SSL_CTX,
            callback: Option<unsafe extern "C" fn(*mut ffi::X509_STORE_CTX, *mut c_void) -> c_int>,
            argument: *mut c_void,
        );
    }
    // SAFETY: the builder wraps a valid SSL_CTX; callback and argument are plain
    // functions, valid for ever, and the one gets the other back as it was.
    unsafe {
        SSL_CTX_set_cert_verify_callback(context.as_ptr(), Some(call), judge as *mut c_void);
    }
}

/// Returns 1 for a chain that is accepted.
unsafe extern "C" fn call(context: *mut ffi::X509_STORE_CTX, argument: *mut c_void) -> c_int {
    // SAFETY: libssl calls with a valid X509_STORE_CTX, which nobody else uses
    // during the call; the argument is the VerifyCallback that was given with this
    // callback, and a function pointer has the size of any other.
    let (judge, context) = unsafe {
        (
            std::mem::transmute::<*mut c_void, VerifyCallback>(argument),
            X509StoreContextRef::from_ptr_mut(context),
        )
    };
    c_int::from(judge(context))
}

/// Gives a revocation list to a store of anchors: `X509_STORE_add_crl`.
///
/// # Errors
/// Libcrypto has no memory.
pub fn add_list(store: &mut X509StoreBuilderRef, list: &X509CrlRef) -> Result<(), ErrorStack> {
    unsafe extern "C" {
        fn X509_STORE_add_crl(store: *mut ffi::X509_STORE, list: *mut ffi::X509_CRL) -> c_int;
    }
    // SAFETY: both are valid for the whole call, which takes a reference of its
    // own to the list.
    super::check(unsafe { X509_STORE_add_crl(store.as_ptr(), list.as_ptr()) })
}

/// Whether a certificate is an authority's by its basic constraints (RFC 5280 section
/// 4.2.1.9): `X509_get_extension_flags`.
#[must_use]
pub fn is_authority(certificate: &X509Ref) -> bool {
    /// `EXFLAG_CA` of x509v3.h.
    const AUTHORITY: u32 = 0x10;
    flags(certificate) & AUTHORITY != 0
}

/// Whether a chain ends with a certificate, by its names and key identifiers:
/// `X509_get_extension_flags`.
#[must_use]
pub fn is_root(certificate: &X509Ref) -> bool {
    /// `EXFLAG_SS` of x509v3.h.
    const SELF_SIGNED: u32 = 0x2000;
    flags(certificate) & SELF_SIGNED != 0
}

/// Whether a certificate may be a server's by its extended key usage (RFC 5280 section
/// 4.2.1.12), which it need not have: `X509_get_extended_key_usage`.
#[must_use]
pub fn is_for_servers(certificate: &X509Ref) -> bool {
    /// `XKU_SSL_SERVER` and `XKU_ANYEKU` of x509v3.h; where there is no such
    /// extension, all bits are set.
    const SERVER_OR_ANY: u32 = 0x101;
    // SAFETY: as in `flags`.
    let usage = unsafe { ffi::X509_get_extended_key_usage(certificate.as_ptr()) };
    usage & SERVER_OR_ANY != 0
}

/// Whether a certificate's key may sign, as it does in each handshake that is served
/// here, by its key usage (RFC 5280 section 4.2.1.3), which it need not have:
/// `X509_get_key_usage`.
#[must_use]
pub fn may_sign(certificate: &X509Ref) -> bool {
    /// `KU_DIGITAL_SIGNATURE` of x509v3.h; where there is no such extension, all bits
    /// are set.
    const SIGNATURE: u32 = 0x80;
    // SAFETY: as in `flags`.
    let usage = unsafe { ffi::X509_get_key_usage(certificate.as_ptr()) };
    usage & SIGNATURE != 0
}

fn flags(certificate: &X509Ref) -> u32 {
    // SAFETY: the certificate is valid for the whole call, which only fills in what it
    // keeps of its own extensions.
    unsafe { ffi::X509_get_extension_flags(certificate.as_ptr()) }
}

/// A copy of a certificate that ends chains though it is no root, in every store that
/// holds it: `X509_add1_trust_object` with anyExtendedKeyUsage. It alone is marked, as
/// `openssl x509 -addtrust` marks one; `X509_V_FLAG_PARTIAL_CHAIN` would have all that
/// a store holds end chains, leaves too.
///
/// # Errors
/// Libcrypto has no memory.
pub fn trusted(certificate: &X509Ref) -> Result<X509, ErrorStack> {
    unsafe extern "C" {
        fn X509_add1_trust_object(
            certificate: *mut ffi::X509,
            purpose: *const ffi::ASN1_OBJECT,
        ) -> c_int;
    }
    // anyExtendedKeyUsage, RFC 5280 section 4.2.1.12.
    let any = Asn1Object::from_str("2.5.29.37.0")?;
    let copy = X509::from_der(&certificate.to_der()?)?;
    // SAFETY: both are valid for the whole call, which takes a copy of the object; the
    // certificate was made above, so nobody else uses it.
    super::check(unsafe { X509_add1_trust_object(copy.as_ptr(), any.as_ptr()) })?;
    Ok(copy)
}

/// A result of verification by its number, `X509_V_ERR_*`.
#[must_use]
pub fn result_of(code: c_int) -> X509VerifyResult {
    // SAFETY: the type holds any number; libcrypto has words for those that it
    // does not know.
    unsafe { X509VerifyResult::from_raw(code) }
}
