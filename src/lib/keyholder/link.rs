//! An engine's link to the keyholder: one connection, one signature, the tickets
//! of this one client, and nothing once the handshake is over.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::protocol::{Answer, MALFORMED, REPLY_LIMIT, Request, Signing};
use crate::report::Fail;
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
static FAILURE: Mutex<Option<Fail>> = Mutex::new(None);

/// This process's end.
pub struct Link<S> {
    socket: S,
    deadline: Instant,
    /// Exchanges so far.
    count: u8,
}

/// Has this process's signatures and tickets made over the link, until [`close`]
/// or the deadline.
pub fn open(socket: OwnedFd, deadline: Instant) {
    let link = Arc::new(Mutex::new(Link::new(socket, deadline, 0)));
    let other = Arc::clone(&link);
    provider::sign_with(Some(Box::new(move |wanted| {
        let mut link = link.lock().ok()?;
        let signed = link.sign(wanted);
        signed.map_err(fail).ok()
    })));
    tickets::ask_with(Some(Box::new(move |wanted| {
        let mut link = other.lock().ok()?;
        let given = link.exchange(Some(*wanted), None);
        given.map_err(fail).ok()?.tickets
    })));
}

fn fail(why: Fail) {
    if let Ok(mut place) = FAILURE.lock() {
        *place = Some(why);
    }
}

/// Closes the link: this process has no more signatures, and no key of a ticket.
/// Says why there was no signature, if one was asked for in vain.
pub fn close() -> Option<Fail> {
    provider::sign_with(None);
    tickets::ask_with(None);
    FAILURE.lock().ok()?.take()
}

/// Whether the other side has ended the link, or nobody has it any more and a
/// question that was asked again was not read. What it answered before is still
/// to come.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};

    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

impl<S: AsFd> Link<S> {
    /// Over the socket, until the deadline; so many exchanges have been.
    pub fn new(socket: S, deadline: Instant, count: u8) -> Link<S> {
        Link {
            socket,
            deadline,
            count,
        }
    }

    /// One signature, and with it the tickets that this connection will send.
    fn sign(&mut self, wanted: &provider::ToSign<'_>) -> Result<Vec<u8>, Fail> {
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
        answer.signature.ok_or(Fail::from(MALFORMED))
    }

    /// Asks the keyholder, and waits for its answer.
    ///
    /// # Errors
    /// It refuses, is gone, or does not answer before the deadline.
    pub fn exchange(
        &mut self,
        tickets: Option<tickets::TicketsWanted>,
        signature: Option<Signing<'_>>,
    ) -> Result<Answer, Fail> {
        let lost = |error: io::Error| Fail::from(error).of("the keyholder cannot be reached");
        self.count = self.count.saturating_add(1);
        let request = Request {
            exchange: self.count,
            tickets,
            signature,
        };
        let bytes = request.to_bytes();
        let mut buffer = Secret::new(vec![0; REPLY_LIMIT]);
        while Instant::now() < self.deadline {
            match parcel::send(&self.socket, &bytes) {
                Err(error) if is_end(&error) => {}
                other => other.map_err(lost)?,
            }
            let until = self.deadline.min(Instant::now() + AGAIN);
            loop {
                let mut wanted = [(self.socket.as_fd(), Ready::READ)];
                poll::wait(&mut wanted, Some(until)).map_err(lost)?;
                let length = match parcel::receive(&self.socket, &mut buffer) {
                    Ok(0) => return Err("the keyholder is gone".into()),
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_end(&error) => continue,
                    Err(error) => return Err(lost(error)),
                };
                // One to an earlier request, which was asked twice, is let pass.
                if let Some(answer) = Answer::parse(&request, &buffer[..length]) {
                    return answer.map_err(|why| why.of("the keyholder refused"));
                }
            }
        }
        Err("the keyholder did not answer in time".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls_ffi::provider::{Digest, Padding};

    const SIGNING: Signing<'_> = Signing {
        padding: Padding::None,
        digest: Digest::Sha256,
        key: 0,
        message: b"a message",
    };

    fn answered() -> Secret {
        let answer = Answer {
            tickets: None,
            signature: Some(b"signed".to_vec()),
        };
        Answer::to_bytes(Ok(&answer), 1)
    }

    fn link(socket: OwnedFd) -> Link<OwnedFd> {
        Link::new(socket, Instant::now() + Duration::from_secs(30), 0)
    }

    #[test]
    fn an_answer_counts_that_came_before_a_question_was_asked_again() {
        let (engine, keyholder) = parcel::pair().expect("a pair");
        parcel::send(&keyholder, &answered()).expect("sent");
        parcel::end(&keyholder);
        let answer = link(engine).exchange(None, Some(SIGNING));
        let signature = answer.map(|answer| answer.signature);
        assert_eq!(signature, Ok(Some(b"signed".to_vec())));
    }

    #[test]
    fn an_answer_counts_whose_sender_has_not_read_all() {
        let (engine, keyholder) = parcel::pair().expect("a pair");
        parcel::send(&engine, b"asked again").expect("sent");
        parcel::send(&keyholder, &answered()).expect("sent");
        drop(keyholder);
        let answer = link(engine).exchange(None, Some(SIGNING));
        let signature = answer.map(|answer| answer.signature);
        assert_eq!(signature, Ok(Some(b"signed".to_vec())));
    }

    #[test]
    fn a_link_that_ended_without_an_answer_is_an_error() {
        let (engine, keyholder) = parcel::pair().expect("a pair");
        parcel::end(&keyholder);
        let answer = link(engine).exchange(None, Some(SIGNING));
        let signature = answer.map(|answer| answer.signature);
        assert_eq!(signature, Err("the keyholder is gone".into()));
    }
}
