//! An engine's link to the keyholder: one connection, one signature, and
//! nothing once the handshake is over.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::protocol::{self, REPLY_LIMIT, Request};
use crate::report;
use crate::sys::parcel;
use crate::sys::poll::{self, Ready};
use crate::tls_ffi::provider::{self, Wanted};

/// When a request is sent again: whoever took it may have died.
const AGAIN: Duration = Duration::from_secs(1);

/// Why there was no signature.
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

/// Has this process's signatures made over the link, until [`close`] or the
/// deadline.
pub fn open(link: OwnedFd, deadline: Instant) {
    provider::sign_with(Some(Box::new(move |wanted| {
        match ask(&link, wanted, deadline) {
            Ok(signature) => Some(signature),
            Err(why) => {
                if let Ok(mut place) = FAILURE.lock() {
                    *place = Some(why);
                }
                None
            }
        }
    })));
}

/// Closes the link: this process has no more signatures. Says why there was
/// none, if one was asked for in vain.
pub fn close() -> Option<String> {
    provider::sign_with(None);
    FAILURE.lock().ok()?.take()
}

/// What a test has an engine ask for, and what it hears.
#[cfg(feature = "test-switches")]
#[must_use]
pub fn attempt(link: &OwnedFd, what: &str) -> String {
    let wanted = Wanted {
        key: 0,
        padding: provider::Padding::None,
        digest: match what {
            "sha1" => provider::Digest::Sha1,
            _ => provider::Digest::Sha256,
        },
        message: &attempted(what),
    };
    match ask(link, &wanted, Instant::now() + AGAIN * 5) {
        Ok(_) => format!("{what} was signed"),
        Err(why) => format!("{what} was not signed: {why}"),
    }
}

/// Messages that an engine of the attacker's would like to have signed, and some
/// of an honest one.
#[cfg(feature = "test-switches")]
fn attempted(what: &str) -> Vec<u8> {
    let context: &[u8] = match what {
        "server" => b"TLS 1.3, server CertificateVerify\0",
        "client" => b"TLS 1.3, client CertificateVerify\0",
        _ => b"",
    };
    // ECDHE over X25519, with the base point for a share.
    let mut older = [&[9; 56], &b"DOWNGRD\x01\x03\0\x1d\x20\x09"[..], &[0; 31]].concat();
    match what {
        "certificate" => older[..2].copy_from_slice(&[0x30, 98]),
        "unmarked" => older[63] = 0,
        "twist" => older[68] = 2,
        "group" => older[66] = 26,
        "older" | "sha1" => {}
        _ => return [&[0x20; 64], context, &[7; 32]].concat(),
    }
    older
}

fn ask(link: &OwnedFd, wanted: &Wanted<'_>, deadline: Instant) -> Result<Vec<u8>, String> {
    let lost = |error: io::Error| {
        format!(
            "the keyholder cannot be reached: {}",
            report::reason(&error)
        )
    };
    let request = Request {
        padding: wanted.padding,
        digest: wanted.digest,
        key: u16::try_from(wanted.key).unwrap_or(u16::MAX),
        message: wanted.message,
    };
    let request = request.to_bytes();
    let mut buffer = [0; REPLY_LIMIT];
    while Instant::now() < deadline {
        parcel::give(link, &request).map_err(lost)?;
        let mut wanted = [(link.as_fd(), Ready::READ)];
        let until = deadline.min(Instant::now() + AGAIN);
        poll::wait(&mut wanted, Some(until)).map_err(lost)?;
        match parcel::take(link, &mut buffer) {
            Ok(0) => return Err("the keyholder is gone".to_owned()),
            Ok(length) => {
                return match protocol::answer(&buffer[..length]) {
                    Ok(signature) => Ok(signature.to_vec()),
                    Err(why) => Err(format!("the keyholder refused to sign: {why}")),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(lost(error)),
        }
    }
    Err("the keyholder did not answer in time".to_owned())
}
