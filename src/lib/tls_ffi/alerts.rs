//! Which alerts a connection received and sent: `SSL_CTX_set_info_callback`.

use std::ffi::c_int;
use std::fmt;

use foreign_types::ForeignTypeRef as _;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl_sys as ffi;

use super::ex_data::ExData;

/// One alert, RFC 8446 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Sent by us, not received.
    pub sent: bool,
    /// AlertDescription's number.
    pub number: u8,
}

/// `sent alert handshake_failure (40)`.
impl fmt::Display for Alert {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.sent { "sent" } else { "received" };
        write!(out, "{verb} alert {} ({})", name(self.number), self.number)
    }
}

/// `close_notify`: the end of a direction, not a failure.
const CLOSE_NOTIFY: u8 = 0;

static ALERTS: ExData<Vec<Alert>> = ExData::new();

/// Has the connections of a context remember their alerts.
///
/// # Errors
/// Libcrypto has no room for per-connection data.
pub fn record(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    unsafe extern "C" {
        fn SSL_CTX_set_info_callback(
            ctx: *mut ffi::SSL_CTX,
            callback: Option<unsafe extern "C" fn(*const ffi::SSL, c_int, c_int)>,
        );
    }
    ALERTS.index()?;
    // SAFETY: the builder wraps a valid SSL_CTX; the callback is a plain
    // function, valid for ever.
    unsafe { SSL_CTX_set_info_callback(context.as_ptr(), Some(remember)) };
    Ok(())
}

/// Failure alerts of a connection so far, in order; without `close_notify`.
#[must_use]
pub fn seen(ssl: &SslRef) -> &[Alert] {
    ALERTS.of(ssl).map_or(&[], Vec::as_slice)
}

unsafe extern "C" fn remember(ssl: *const ffi::SSL, place: c_int, value: c_int) {
    /// `SSL_CB_ALERT`, `SSL_CB_WRITE` of ssl.h.
    const ALERT: c_int = 0x4000;
    const WRITE: c_int = 0x08;
    let [number, ..] = value.to_le_bytes();
    if place & ALERT == 0 || number == CLOSE_NOTIFY {
        return;
    }
    let Ok(index) = ALERTS.index() else { return };
    // SAFETY: libssl calls with a valid SSL, and nobody else holds a reference
    // into its ex_data during the call: `seen` borrows end before I/O.
    let ssl = unsafe { SslRef::from_ptr_mut(ssl.cast_mut()) };
    let alert = Alert {
        sent: place & WRITE != 0,
        number,
    };
    match ssl.ex_data_mut(index) {
        Some(alerts) => {
            // A peer may send warnings for ever.
            if alerts.len() < 16 {
                alerts.push(alert);
            }
        }
        None => ssl.set_ex_data(index, vec![alert]),
    }
}

/// The name of an alert as RFC 8446 writes it, e.g. `unknown_ca`.
#[must_use]
pub fn name(number: u8) -> &'static str {
    match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "unknown_alert",
    }
}
