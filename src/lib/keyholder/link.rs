//! An engine's link to the keyholder: one connection, one signature, the tickets
//! of this one client, and nothing once the handshake is over.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::protocol::{Answer, REPLY_LIMIT, Request, Signing};
use crate::report;
use crate::secret::Secret;
use crate::sys::parcel;
use crate::sys::poll::{self, Ready};
use crate::tls_ffi::provider;
use crate::tls_ffi::tickets;

/// When a request is sent again: whoever took it may have died.
const AGAIN: Duration = Duration::from_secs(1);

/// How the context string of a server's CertificateVerify begins behind its
/// spaces (RFC 8446 section 4.4.3).
const TLS13: &[u8] = b"TLS 1.3";

/// Why there was no signature.
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

/// This process's end.
struct Link<S> {
    socket: S,
    deadline: Instant,
    /// Exchanges so far.
    count: u8,
}

/// Has this process's signatures and tickets made over the link, until [`close`]
/// or the deadline.
pub fn open(socket: OwnedFd, deadline: Instant) {
    let link = Arc::new(Mutex::new(Link {
        socket,
        deadline,
        count: 0,
    }));
    let other = Arc::clone(&link);
    provider::sign_with(Some(Box::new(move |wanted| {
        let mut link = link.lock().ok()?;
        let signed = link.sign(wanted);
        signed.map_err(fail).ok()
    })));
    #[cfg(feature = "test-switches")]
    if super::test_switch() == Some("keep-tickets") {
        tickets::keep();
    }
    #[cfg(feature = "test-switches")]
    if super::local_signing() {
        // Without a keyholder there is nobody who could open one again.
        let hours = super::hours::Hours::fresh();
        tickets::ask_with(Some(Box::new(move |wanted| {
            let hours = hours.as_ref().ok()?;
            let new = (0..wanted.new).map(|_| hours.make(&wanted.binding));
            Some(tickets::Given {
                shown: wanted.shown.map(|_| tickets::Shown::Unknown),
                new: new.collect::<Result<_, _>>().ok()?,
            })
        })));
        return;
    }
    tickets::ask_with(Some(Box::new(move |wanted| {
        let mut link = other.lock().ok()?;
        let given = link.exchange(Some(*wanted), None);
        given.map_err(fail).ok()?.tickets
    })));
}

fn fail(why: String) {
    if let Ok(mut place) = FAILURE.lock() {
        *place = Some(why);
    }
}

/// Closes the link: this process has no more signatures, and no key of a ticket.
/// Says why there was no signature, if one was asked for in vain.
pub fn close() -> Option<String> {
    provider::sign_with(None);
    tickets::ask_with(None);
    FAILURE.lock().ok()?.take()
}

/// What a test has an engine ask for, and what it hears.
#[cfg(feature = "test-switches")]
#[must_use]
pub fn attempt(link: &OwnedFd, what: &str) -> String {
    use std::sync::atomic::{AtomicU8, Ordering};

    static COUNT: AtomicU8 = AtomicU8::new(100);
    let mut link = Link {
        socket: link,
        deadline: Instant::now() + AGAIN * 5,
        count: COUNT.fetch_add(1, Ordering::Relaxed),
    };
    if let Some(number) = what.strip_prefix("ticket") {
        // Each number is another ticket; without one, a new one is wanted.
        let wanted = tickets::Wanted {
            binding: [0; 32],
            shown: number.parse().ok().map(|number| [number; 16]),
            new: u8::from(number.is_empty()),
        };
        return match link.exchange(Some(wanted), None) {
            Ok(_) => format!("{what} was answered"),
            Err(why) => format!("{what} was not answered: {why}"),
        };
    }
    let message = attempted(what);
    let signing = Signing {
        key: 0,
        padding: provider::Padding::None,
        digest: match what {
            "sha1" => provider::Digest::Sha1,
            _ => provider::Digest::Sha256,
        },
        message: &message,
    };
    match link.exchange(None, Some(signing)) {
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

impl<S: AsFd> Link<S> {
    /// One signature, and with it the tickets that this connection will send.
    fn sign(&mut self, wanted: &provider::Wanted<'_>) -> Result<Vec<u8>, String> {
        let tls13 = wanted
            .message
            .get(64..)
            .is_some_and(|rest| rest.starts_with(TLS13));
        let signing = Signing {
            padding: wanted.padding,
            digest: wanted.digest,
            key: u16::try_from(wanted.key).unwrap_or(u16::MAX),
            message: wanted.message,
        };
        let answer = self.exchange(tickets::wanted_with_signature(tls13), Some(signing))?;
        if let Some(given) = answer.tickets {
            tickets::supply(given.new);
        }
        answer.signature.ok_or("a malformed answer".to_owned())
    }

    fn exchange(
        &mut self,
        tickets: Option<tickets::Wanted>,
        signature: Option<Signing<'_>>,
    ) -> Result<Answer, String> {
        let lost = |error: io::Error| {
            format!(
                "the keyholder cannot be reached: {}",
                report::reason(&error)
            )
        };
        self.count = self.count.saturating_add(1);
        let request = Request {
            exchange: self.count,
            tickets,
            signature,
        };
        let bytes = request.to_bytes();
        let mut buffer = Secret::new(vec![0; REPLY_LIMIT]);
        while Instant::now() < self.deadline {
            parcel::give(&self.socket, &bytes).map_err(lost)?;
            let until = self.deadline.min(Instant::now() + AGAIN);
            loop {
                let mut wanted = [(self.socket.as_fd(), Ready::READ)];
                poll::wait(&mut wanted, Some(until)).map_err(lost)?;
                let length = match parcel::take(&self.socket, &mut buffer) {
                    Ok(0) => return Err("the keyholder is gone".to_owned()),
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(lost(error)),
                };
                // One to an earlier request, which was asked twice, is let pass.
                if let Some(answer) = Answer::parse(&request, &buffer[..length]) {
                    return answer.map_err(|why| format!("the keyholder refused: {why}"));
                }
            }
        }
        Err("the keyholder did not answer in time".to_owned())
    }
}
