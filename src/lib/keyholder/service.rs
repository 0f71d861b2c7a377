//! A worker that signs for engines, one link per connection, and gives the keys of
//! their tickets. Nothing that an engine sends can end it.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;

use super::hours::{self, Hours};
use super::keys::Keys;
use super::process::{ORDER_LIMIT, answer, order};
use super::protocol::{Answer, NotSigned, REQUEST_LIMIT, Request};
use crate::log;
use crate::report::Report;
use crate::secret::Secret;
use crate::sys::parcel;
use crate::sys::poll::{self, Ready};
use crate::tls_ffi::tickets::{PER_HANDSHAKE, TicketName, TicketsGiven, TicketsWanted};

/// How many signatures are made before the supervisor is listened to again.
const ROUND: usize = 8;
/// One connection's link.
struct EngineLink {
    socket: OwnedFd,
    /// Signatures that are left.
    left: u8,
    /// Tickets to be made that are left.
    tickets: u8,
    /// The ticket that was shown.
    shown: Option<TicketName>,
    /// The last exchange that was answered: asked again, its answer is on its way.
    answered: u8,
    /// Messages that are left, asked again or not.
    messages: u8,
    end: Option<Instant>,
}

/// Tickets that go with one signature.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const PER_LINK: u8 = PER_HANDSHAKE as u8;
/// How many messages an engine may send for one signature: it asks again every
/// second.
const MESSAGES: u8 = 200;

/// A worker that signs.
pub(super) struct Service {
    /// The supervisor; `None` once it is gone, or has a newer keyholder.
    control: Option<OwnedFd>,
    keys: Keys,
    /// The keys of tickets.
    hours: Hours,
    /// Who makes them; `None` once it is gone.
    master: Option<OwnedFd>,
    /// In the order of their coming.
    links: Vec<EngineLink>,
    report: Report,
}

impl Service {
    pub fn new(
        control: OwnedFd,
        keys: Keys,
        hours: Hours,
        master: OwnedFd,
        report: Report,
    ) -> Service {
        Service {
            control: Some(control),
            keys,
            hours,
            master: Some(master),
            links: Vec::new(),
            report,
        }
    }

    /// Serves until neither supervisor nor engines are left.
    pub fn run(mut self) {
        // Everybody waits for it.
        log::keep();
        while self.serve() {}
        log::finish(log::PATIENCE);
    }

    /// One round: everybody who waits gets a turn. False at the end.
    fn serve(&mut self) -> bool {
        if self.control.is_none() && self.links.is_empty() {
            return false;
        }
        let now = Instant::now();
        self.links
            .retain(|link| link.end.is_none_or(|end| end > now));
        if now >= self.hours.give_up_at() {
            // The master is gone, or asleep. What fails is tried again soon.
            let _ = self.hours.replace();
        }
        let end = self.links.iter().filter_map(|link| link.end);
        let end = end.chain([self.hours.give_up_at()]).min();
        let mut wanted: Vec<(BorrowedFd<'_>, Ready)> = self
            .links
            .iter()
            .map(|link| (link.socket.as_fd(), Ready::READ))
            .chain(
                [&self.master, &self.control]
                    .into_iter()
                    .flatten()
                    .map(|other| (other.as_fd(), Ready::READ)),
            )
            .collect();
        wanted.extend(log::waiting().map(|log| (log, Ready::WRITE)));
        if poll::wait(&mut wanted, end).is_err() {
            return false;
        }
        log::write_on();
        let ready: Vec<bool> = wanted
            .iter()
            .map(|(_, came)| came.read || came.gone)
            .collect();
        let mut others = ready.iter().skip(self.links.len()).copied();
        let mut has_come = |one: &Option<OwnedFd>| one.is_some() && others.next() == Some(true);
        let told = has_come(&self.master);
        let ordered = has_come(&self.control);
        if told {
            self.hear_master();
        }
        let links = std::mem::take(&mut self.links);
        // Before anybody is served: what an engine asks for may rest on a permit that
        // was granted before it was made, and poll(2) looks at the supervisor last.
        if ordered {
            self.obey();
        }
        let new = std::mem::take(&mut self.links);
        // First come, first served; whoever is served is gone from the list.
        let mut served = 0;
        let mut kept = Vec::with_capacity(links.len());
        for (at, mut link) in links.into_iter().enumerate() {
            let wants = ready.get(at) == Some(&true);
            if !wants || served == ROUND {
                kept.push(link);
                continue;
            }
            served += 1;
            if self.sign(&mut link) {
                kept.push(link);
            }
        }
        kept.extend(new);
        self.links = kept;
        true
    }

    /// Takes the keys that the master sent.
    fn hear_master(&mut self) {
        let mut buffer = Secret::new(vec![0; hours::MESSAGE_LIMIT]);
        while let Some(master) = &self.master {
            match parcel::receive(master, &mut buffer) {
                Ok(length @ 1..) => {
                    if let Some(hours) = Hours::parse(&buffer[..length], self.hours.life()) {
                        self.hours = hours;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.master = None,
            }
        }
    }

    /// Takes what the supervisor sent.
    fn obey(&mut self) {
        let mut buffer = [0; ORDER_LIMIT];
        while let Some(control) = &self.control {
            let (length, passed) = match parcel::receive_with(control, &mut buffer) {
                Ok((0, _)) => {
                    self.control = None;
                    return;
                }
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It ended without reading all: what it sent is still to come.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                // Out of descriptors: the supervisor sends it again to the next.
                Err(_) => {
                    self.control = None;
                    return;
                }
            };
            let alive = match (&buffer[..length], passed) {
                ([order::LINK, left, ping, rest @ ..], Some(socket)) => {
                    let seconds = <[u8; 4]>::try_from(rest).map_or(1, u32::from_be_bytes);
                    let end = Duration::from_secs(seconds.into());
                    self.links.push(EngineLink {
                        socket,
                        left: *left,
                        tickets: left.saturating_mul(PER_LINK),
                        shown: None,
                        answered: 0,
                        messages: left.saturating_mul(MESSAGES),
                        end: (seconds > 0).then(|| Instant::now() + end),
                    });
                    *ping != 0
                }
                ([order::PING], _) => true,
                ([order::RENEW], _) => {
                    if self.master.is_none() {
                        if let Ok(hours) = Hours::fresh(self.hours.life()) {
                            self.hours = hours;
                        }
                    }
                    false
                }
                (other, _) => {
                    self.keys.learn(other);
                    false
                }
            };
            if alive {
                if let Some(control) = &self.control {
                    // A supervisor that is gone is found out by the next message.
                    let _ = parcel::send(control, &[answer::ALIVE]);
                }
            }
        }
    }

    /// Serves one link; false when that was its last time.
    fn sign(&mut self, link: &mut EngineLink) -> bool {
        let mut buffer = [0; REQUEST_LIMIT];
        let request = match parcel::receive(&link.socket, &mut buffer) {
            Ok(length @ 1..) => Request::parse(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(NotSigned::Malformed),
            // The engine is done, or gone.
            _ => return false,
        };
        let exchange = request.map_or(0, |request| request.exchange);
        link.messages = link.messages.saturating_sub(1);
        if exchange != 0 && exchange == link.answered && link.messages > 0 {
            return true;
        }
        let answered = request.and_then(|request| self.answer(link, &request));
        if let Err(refusal) = answered {
            let what = match request {
                Ok(Request {
                    signature: None, ..
                }) => "give tickets to",
                _ => "sign for",
            };
            self.report.warning(format_args!(
                "the keyholder refused to {what} a TLS process: {refusal}"
            ));
        }
        let reply = Answer::to_bytes(answered.as_ref().map_err(|refusal| *refusal), exchange);
        // It fits: the engine has had little else to read. One that is gone is no
        // matter.
        let _ = parcel::send(&link.socket, &reply);
        link.answered = exchange;
        let more = answered.is_ok() && link.left > 0;
        if !more {
            // The supervisor has a copy, for whoever takes our place.
            parcel::end(&link.socket);
        }
        more
    }

    /// What one request gets. Nothing is given where something is refused.
    fn answer(
        &mut self,
        link: &mut EngineLink,
        request: &Request<'_>,
    ) -> Result<Answer, NotSigned> {
        if link.messages == 0 {
            return Err(NotSigned::Quota);
        }
        if let Some(wanted) = &request.tickets {
            link.tickets = link
                .tickets
                .checked_sub(wanted.new)
                .ok_or(NotSigned::Quota)?;
            if let Some(name) = wanted.shown {
                if link.shown.replace(name).is_some_and(|known| known != name) {
                    return Err(NotSigned::Quota);
                }
            }
        }
        let signature = request.signature.map(|signing| self.keys.sign(&signing));
        let signature = signature.transpose()?;
        if signature.is_some() {
            link.left = link.left.saturating_sub(1);
        }
        let tickets = request.tickets.map(|wanted| self.give(&wanted));
        Ok(Answer {
            tickets: tickets.transpose().map_err(|_| NotSigned::Failed)?,
            signature,
        })
    }

    fn give(&self, wanted: &TicketsWanted) -> Result<TicketsGiven, ErrorStack> {
        let shown = wanted.shown;
        let shown = shown.map(|name| self.hours.open(&name, &wanted.binding));
        let new = (0..wanted.new).map(|_| self.hours.make(&wanted.binding));
        Ok(TicketsGiven {
            shown: shown.transpose()?,
            new: new.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::pkey::PKey;

    use super::*;
    use crate::keyholder::protocol::Signing;
    use crate::report::Verbosity;
    use crate::store::permit::Permit;
    use crate::tls_ffi::provider::{Digest, Padding};

    /// Both wait when the keyholder looks: a permit, and a signature under it.
    #[test]
    fn a_permit_counts_for_what_is_asked_for_behind_it() {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a group");
        let secret = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let mut keys = Keys::default();
        keys.insert(3, secret);
        let (supervisor, control) = parcel::pair().expect("sockets");
        let (engine, socket) = parcel::pair().expect("sockets");
        let mut service = Service {
            control: Some(control),
            keys,
            hours: Hours::fresh(Duration::from_secs(60)).expect("keys of tickets"),
            master: None,
            links: vec![EngineLink {
                socket,
                left: 1,
                tickets: 0,
                shown: None,
                answered: 0,
                messages: MESSAGES,
                end: None,
            }],
            report: Report {
                program: "test",
                verbosity: Verbosity::Silent,
            },
        };
        let permit = Permit {
            lowest: 0x0303,
            highest: 0x0304,
            marks_downgrades: true,
            groups: vec![23],
            schemes: vec![0x0403],
            finite: None,
        };
        // What TLS 1.3 has signed (RFC 8446 section 4.4.3).
        let begin = b"TLS 1.3, server CertificateVerify\0";
        let message = [&[b' '; 64][..], begin, &[7; 32]].concat();
        let request = Request {
            exchange: 1,
            tickets: None,
            signature: Some(Signing {
                padding: Padding::None,
                digest: Digest::Sha256,
                key: 3,
                message: &message,
            }),
        };
        let order = [&[order::PERMIT][..], &permit.to_bytes()].concat();
        parcel::send(&supervisor, &order).expect("a permit");
        parcel::send(&supervisor, &[order::GRANT, 0, 0, 0, 3]).expect("a grant");
        parcel::send(&engine, &request.to_bytes()).expect("a request");
        assert!(service.serve());
        let mut reply = [0; 1024];
        let length = parcel::receive(&engine, &mut reply).expect("an answer");
        let said = String::from_utf8_lossy(&reply[..length]);
        assert_eq!(reply[..2], [1, 0], "{said}");
    }
}
