//! TLS handshakes as bytes, from SSL 3.0 on: a ClientHello written, the server's
//! first flight read. Nothing is encrypted here and nothing completed, so that a
//! server can be asked for what OpenSSL no longer speaks.
//!
//! The readers take any bytes: a length is checked before it is believed, nothing
//! is kept beyond [`reader::CERTIFICATE_LIMIT`], and none of them panics.
#![forbid(unsafe_code)]

pub mod hello;
pub mod message;
pub mod reader;

/// Content types, RFC 8446 appendix B.1.
pub(crate) mod content {
    pub(crate) const ALERT: u8 = 21;
    pub(crate) const HANDSHAKE: u8 = 22;
}

/// Extension numbers, IANA's "TLS ExtensionType Values".
pub(crate) mod extension {
    pub(crate) const SERVER_NAME: u16 = 0;
    pub(crate) const SUPPORTED_GROUPS: u16 = 10;
    pub(crate) const POINT_FORMATS: u16 = 11;
    pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(crate) const PADDING: u16 = 21;
    pub(crate) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(crate) const SUPPORTED_VERSIONS: u16 = 43;
    pub(crate) const PSK_MODES: u16 = 45;
    pub(crate) const KEY_SHARE: u16 = 51;
    pub(crate) const RENEGOTIATION_INFO: u16 = 0xff01;
}

/// Alerts that say farewell, RFC 8446 section 6.1: `user_canceled`, then
/// `close_notify`, each in a record of `version`.
#[must_use]
pub fn farewell(version: u16) -> Vec<u8> {
    let [high, low] = version.to_be_bytes();
    let alert = |number| [content::ALERT, high, low, 0, 2, 1, number];
    [alert(90), alert(0)].concat()
}
