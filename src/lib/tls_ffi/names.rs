//! Names in certificates as bytes: nothing is lost, nothing is trusted. Callers
//! make them printable.

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::fmt;
use std::net::IpAddr;
use std::ptr;

use foreign_types::ForeignTypeRef as _;
use openssl::x509::{X509NameRef, X509Ref};
use openssl_sys as ffi;

use super::string_bytes;
use crate::text;

/// An entry of subjectAltName.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// dNSName.
    Dns(Vec<u8>),
    /// rfc822Name.
    Email(Vec<u8>),
    /// iPAddress: 4 or 16 bytes in a sound certificate.
    Ip(Vec<u8>),
}

/// The entries of subjectAltName that are host names, addresses or mailboxes,
/// in order.
#[must_use]
pub fn alternative_names(certificate: &X509Ref) -> Vec<AlternativeName> {
    let Some(names) = certificate.subject_alt_names() else {
        // Garbled ones leave errors, which libssl would take for its own next.
        super::forget_errors();
        return Vec::new();
    };
    names
        .iter()
        .filter_map(|name| {
            // SAFETY: the name is a valid GENERAL_NAME for as long as the stack
            // lives.
            let name = unsafe { &*name.as_ptr() };
            let kind = match name.type_ {
                ffi::GEN_DNS => AlternativeName::Dns,
                ffi::GEN_EMAIL => AlternativeName::Email,
                ffi::GEN_IPADD => AlternativeName::Ip,
                _ => return None,
            };
            // SAFETY: for these three types the union holds an ASN1_STRING; the
            // bytes are copied at once.
            Some(kind(unsafe { string_bytes(name.d.cast()) }.to_vec()))
        })
        .collect()
}

/// The names of subjectAltName for a message, a few of them, made printable. Where
/// there is none, most often somebody thought that the subject's CN is one.
#[must_use]
pub fn listed(certificate: &X509Ref) -> String {
    const SHOWN: usize = 8;
    let names = alternative_names(certificate);
    let mut texts: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(AlternativeName::to_string)
        .collect();
    if names.len() > SHOWN {
        texts.push("...".to_owned());
    }
    if texts.is_empty() {
        return "no host: subjectAltName has none, and a CN does not count".to_owned();
    }
    texts.join(", ")
}

/// The name, printable; an address as people write it.
impl fmt::Display for AlternativeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AlternativeName::Dns(name) | AlternativeName::Email(name) => {
                out.write_str(&text::printable(name))
            }
            AlternativeName::Ip(bytes) => {
                if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
                    return IpAddr::from(v4).fmt(out);
                }
                match <[u8; 16]>::try_from(bytes.as_slice()) {
                    Ok(v6) => IpAddr::from(v6).fmt(out),
                    Err(_) => out.write_str(&text::hex(bytes)),
                }
            }
        }
    }
}

/// A name in slash form, `/C=US/CN=a`: `X509_NAME_oneline`, which writes
/// unprintable bytes as `\xHH` itself.
#[must_use]
pub fn slash_form(name: &X509NameRef) -> String {
    unsafe extern "C" {
        fn X509_NAME_oneline(
            name: *const ffi::X509_NAME,
            buffer: *mut c_char,
            size: c_int,
        ) -> *mut c_char;
    }
    // SAFETY: the name is valid for the whole call; with a null buffer the
    // result is a new string.
    let line = unsafe { X509_NAME_oneline(name.as_ptr(), ptr::null_mut(), 0) };
    if line.is_null() {
        return String::new();
    }
    // SAFETY: the string ends with NUL, and is copied at once.
    let text = unsafe { CStr::from_ptr(line) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: nobody else has the string.
    unsafe { ffi::OPENSSL_free(line.cast::<c_void>()) };
    text
}

/// A BIO of memory.
struct Memory(*mut ffi::BIO);

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is ours alone; null is let through.
        unsafe { ffi::BIO_free_all(self.0) };
    }
}

/// A name in RFC 4514 form, `CN=a,C=US`, in UTF-8 with the RFC's escapes for
/// special characters only; control characters and bytes over 126 are as they
/// are: `X509_NAME_print_ex`.
#[must_use]
pub fn rfc4514_form(name: &X509NameRef) -> Vec<u8> {
    /// `XN_FLAG_RFC2253` without `ASN1_STRFLGS_ESC_CTRL` (2) and
    /// `ASN1_STRFLGS_ESC_MSB` (4), of asn1.h and x509.h.
    const FLAGS: c_ulong = 0x0111_0317 & !0x6;
    unsafe extern "C" {
        fn X509_NAME_print_ex(
            out: *mut ffi::BIO,
            name: *const ffi::X509_NAME,
            indent: c_int,
            flags: c_ulong,
        ) -> c_int;
    }
    // SAFETY: takes nothing.
    let method = unsafe { ffi::BIO_s_mem() };
    // SAFETY: the method is one of libcrypto's own.
    let memory = Memory(unsafe { ffi::BIO_new(method) });
    if memory.0.is_null() {
        return Vec::new();
    }
    // SAFETY: both objects are valid for the whole call.
    unsafe { X509_NAME_print_ex(memory.0, name.as_ptr(), 0, FLAGS) };
    super::forget_errors();
    let mut data = ptr::null_mut();
    // SAFETY: the BIO is valid, and of memory.
    let length = unsafe { ffi::BIO_get_mem_data(memory.0, &raw mut data) };
    if data.is_null() {
        return Vec::new();
    }
    let length = usize::try_from(length).unwrap_or(0);
    // SAFETY: the bytes are the BIO's, which lives, and are copied at once.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) }.to_vec()
}
