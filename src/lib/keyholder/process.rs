//! A keyholder's process, a worker. It loads what the supervisor names, gives up all
//! rights, and then signs for engines, one link per connection. Nothing that an
//! engine sends can end it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};

use super::hours::{self, Hours};
use super::judge::{Judge, KeyType};
use super::local::{self, Password};
use super::protocol::{Answer, REQUEST_LIMIT, Refusal, Request, Signing};
use crate::report::{self, Fail, Report};
use crate::secret::Secret;
use crate::store::permit::Permit;
use crate::sys::poll::{self, Ready};
use crate::sys::process::Forked;
use crate::sys::sandbox::{self, Sandbox};
use crate::sys::user::Identity;
use crate::sys::{memory, parcel, user};
use crate::tls_ffi::provider::{Digest, Padding};
use crate::tls_ffi::tickets::{Given, Name, PER_HANDSHAKE, Wanted};

/// The longest message of the supervisor: a path, a permit, or a list of keys.
pub(super) const ORDER_LIMIT: usize = 8192;
/// The longest answer to one: a public key, or a reason.
pub(super) const ANSWER_LIMIT: usize = 16384;
/// How many signatures are made before the supervisor is listened to again.
const ROUND: usize = 8;
/// What the supervisor says; the rest of the message follows the first byte.
pub(super) mod order {
    /// Load a key: its number, two bytes, and its file.
    pub const LOAD: u8 = b'L';
    /// A permit; it gets the next number, from 0 on.
    pub const PERMIT: u8 = b'D';
    /// Keys that sign under a permit: its number, then theirs, two bytes each.
    pub const GRANT: u8 = b'G';
    /// Give up all rights and begin to sign.
    pub const SEAL: u8 = b'S';
    /// A link: how many signatures, whether to say that it came, and for how
    /// many seconds (four bytes, high byte first; 0 for ever). The descriptor
    /// comes along.
    pub const LINK: u8 = b'N';
    /// Say that you live.
    pub const PING: u8 = b'P';
    /// Make new keys for tickets, unless the master does.
    pub const RENEW: u8 = b'R';
}

/// What it hears.
pub(super) mod answer {
    /// The key's SubjectPublicKeyInfo.
    pub const KEY: u8 = b'K';
    /// Why it was not done.
    pub const ERROR: u8 = b'E';
    /// The permit or grant is known.
    pub const KNOWN: u8 = b'D';
    /// Done: what rights it could not give up, a line each.
    pub const SEALED: u8 = b'S';
    /// I live.
    pub const ALIVE: u8 = b'A';

    pub fn error(why: &crate::report::Fail) -> Vec<u8> {
        [&[ERROR], why.to_string().as_bytes()].concat()
    }
}

/// What a worker has from the master.
pub(super) struct Inherited<'a> {
    pub control: OwnedFd,
    pub password: Option<Password>,
    /// The keys of tickets, and the master's word when they change.
    pub hours: Hours,
    pub master: OwnedFd,
    pub sandbox: &'a Sandbox,
    pub forked: &'a Forked,
    pub report: Report,
}

/// A key, and what it can sign.
struct Key {
    secret: PKey<Private>,
    kind: KeyType,
    /// Numbers of the permits that it signs under.
    permits: Vec<u16>,
}

/// The keys, and what is signed with them.
#[derive(Default)]
struct Keys {
    by_number: HashMap<u16, Key>,
    permits: Vec<Permit>,
    judge: Judge,
}

/// One connection's link.
struct Link {
    socket: OwnedFd,
    /// Signatures that are left.
    left: u8,
    /// Tickets to be made that are left.
    tickets: u8,
    /// The ticket that was shown.
    shown: Option<Name>,
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

/// The whole process. Returns its exit code.
pub(super) fn run(inherited: Inherited<'_>) -> u8 {
    let Inherited {
        control,
        password,
        hours,
        master,
        sandbox,
        forked,
        report,
    } = inherited;
    let loader = Loader {
        control,
        password,
        sandbox,
        forked,
        keys: Keys::default(),
    };
    match loader.load() {
        Some((control, keys)) => {
            let mut service = Service {
                control: Some(control),
                keys,
                hours,
                master: Some(master),
                links: Vec::new(),
                report,
            };
            while service.serve() {}
            0
        }
        // The supervisor is gone, or could not use what it heard.
        None => 0,
    }
}

/// The time before any engine is near.
struct Loader<'a> {
    control: OwnedFd,
    password: Option<Password>,
    sandbox: &'a Sandbox,
    forked: &'a Forked,
    keys: Keys,
}

impl Loader<'_> {
    /// Loads until told to seal; `None` if that never comes.
    fn load(mut self) -> Option<(OwnedFd, Keys)> {
        let mut buffer = vec![0; ORDER_LIMIT];
        loop {
            poll::wait(&mut [(self.control.as_fd(), Ready::READ)], None).ok()?;
            let length = parcel::take(&self.control, &mut buffer).ok()?;
            match buffer[..length].split_first()? {
                (&order::LOAD, [high, low, path @ ..]) => {
                    let number = u16::from_be_bytes([*high, *low]);
                    let path = String::from_utf8_lossy(path).into_owned();
                    let reply = match self.load_key(number, &path) {
                        Ok(public) => [&[answer::KEY], &public[..]].concat(),
                        Err(why) => answer::error(&why),
                    };
                    parcel::give(&self.control, &reply).ok()?;
                }
                (&(order::PERMIT | order::GRANT), _) => {
                    self.keys.learn(&buffer[..length]);
                    parcel::give(&self.control, &[answer::KNOWN]).ok()?;
                }
                (&order::SEAL, _) => break,
                _ => return None,
            }
        }
        // From here on nobody needs the password.
        drop(self.password.take());
        for key in self.keys.by_number.values() {
            key.warm_up();
        }
        let _ = hours::derive(&[0; 32], &[0; 16], &[0; 32]);
        let reply = match give_up_rights(self.sandbox, self.forked) {
            Ok(missing) => [&[answer::SEALED], missing.join("\n").as_bytes()].concat(),
            Err(why) => answer::error(&why),
        };
        parcel::give(&self.control, &reply).ok()?;
        (reply[0] == answer::SEALED).then_some((self.control, self.keys))
    }

    /// Reads one key. Its public half goes to the supervisor.
    fn load_key(&mut self, number: u16, path: &str) -> Result<Vec<u8>, Fail> {
        let secret = local::read(path, self.password.as_ref(), local::BY_LETTER)?;
        let public = secret.public_key_to_der()?;
        let key = Key {
            kind: KeyType::of(&secret),
            secret,
            permits: Vec::new(),
        };
        self.keys.by_number.insert(number, key);
        Ok(public)
    }
}

/// Locks memory, leaves the file system and the user, and takes the sandbox on.
/// Returns what could not be had.
fn give_up_rights(sandbox: &Sandbox, forked: &Forked) -> Result<Vec<String>, Fail> {
    let mut missing = sandbox.missing().to_vec();
    let root = user::is_root();
    if let Err(error) = memory::lock(root) {
        missing.push(format!("locked memory ({})", report::reason(&error)));
    }
    if root {
        if let Err(error) = sandbox::enter_nowhere() {
            missing.push(format!("chroot ({})", report::reason(&error)));
        }
        sandbox::drop_bounds();
        let own = Identity::of_this_process(user::Holder::Keyholder);
        if let Err(error) = own.assume() {
            // A container may map few users. Without capabilities, root is one
            // more user that engines are not.
            missing.push(format!("a user of its own ({})", report::reason(&error)));
            sandbox::drop_capabilities().map_err(Fail::unable("give up capabilities"))?;
        }
    } else {
        missing.push("chroot and a user of its own (not started as root)".to_owned());
    }
    sandbox
        .take_on_with_descriptors(forked)
        .map_err(Fail::unable("confine the keyholder"))?;
    Ok(missing)
}

/// The time of engines.
struct Service {
    /// The supervisor; `None` once it is gone, or has a newer keyholder.
    control: Option<OwnedFd>,
    keys: Keys,
    /// The keys of tickets.
    hours: Hours,
    /// Who makes them; `None` once it is gone.
    master: Option<OwnedFd>,
    /// In the order of their coming.
    links: Vec<Link>,
    report: Report,
}

impl Service {
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
        if poll::wait(&mut wanted, end).is_err() {
            return false;
        }
        let ready: Vec<bool> = wanted
            .iter()
            .map(|(_, came)| came.read || came.gone)
            .collect();
        let ordered = self.control.is_some() && ready.last() == Some(&true);
        if self.master.is_some() && ready.get(self.links.len()) == Some(&true) {
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
            match parcel::take(master, &mut buffer) {
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
            let (length, passed) = match parcel::take_with(control, &mut buffer) {
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
                    self.links.push(Link {
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
                    let _ = parcel::give(control, &[answer::ALIVE]);
                }
            }
        }
    }

    /// Serves one link; false when that was its last time.
    fn sign(&mut self, link: &mut Link) -> bool {
        let mut buffer = [0; REQUEST_LIMIT];
        let request = match parcel::take(&link.socket, &mut buffer) {
            Ok(length @ 1..) => Request::parse(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Refusal::Malformed),
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
        let _ = parcel::give(&link.socket, &reply);
        link.answered = exchange;
        let more = answered.is_ok() && link.left > 0;
        if !more {
            // The supervisor has a copy, for whoever takes our place.
            parcel::end(&link.socket);
        }
        more
    }

    /// What one request gets. Nothing is given where something is refused.
    fn answer(&mut self, link: &mut Link, request: &Request<'_>) -> Result<Answer, Refusal> {
        if link.messages == 0 {
            return Err(Refusal::Quota);
        }
        if let Some(wanted) = &request.tickets {
            link.tickets = link.tickets.checked_sub(wanted.new).ok_or(Refusal::Quota)?;
            if let Some(name) = wanted.shown {
                if link.shown.replace(name).is_some_and(|known| known != name) {
                    return Err(Refusal::Quota);
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
            tickets: tickets.transpose().map_err(|_| Refusal::Failed)?,
            signature,
        })
    }

    fn give(&self, wanted: &Wanted) -> Result<Given, ErrorStack> {
        let shown = wanted.shown;
        let shown = shown.map(|name| self.hours.open(&name, &wanted.binding));
        let new = (0..wanted.new).map(|_| self.hours.make(&wanted.binding));
        Ok(Given {
            shown: shown.transpose()?,
            new: new.collect::<Result<_, _>>()?,
        })
    }
}

impl Keys {
    /// Takes a permit or a grant; anything else is nothing.
    fn learn(&mut self, order: &[u8]) {
        match order {
            // One that cannot be read must not shift the numbers of the others.
            [order::PERMIT, permit @ ..] => self
                .permits
                .push(Permit::parse(permit).unwrap_or_else(Permit::nothing)),
            [order::GRANT, high, low, keys @ ..] => {
                let permit = u16::from_be_bytes([*high, *low]);
                for key in keys.chunks_exact(2) {
                    let number = u16::from_be_bytes([key[0], key[1]]);
                    if let Some(key) = self.by_number.get_mut(&number) {
                        key.permits.push(permit);
                    }
                }
            }
            _ => {}
        }
    }

    /// One signature.
    fn sign(&mut self, signing: &Signing<'_>) -> Result<Vec<u8>, Refusal> {
        let key = self.by_number.get(&signing.key).ok_or(Refusal::NoSuchKey)?;
        let permits = key
            .permits
            .iter()
            .filter_map(|permit| self.permits.get(usize::from(*permit)));
        self.judge.judge(signing, key.kind, permits)?;
        local::sign(
            &key.secret,
            signing.padding,
            signing.digest,
            signing.message,
        )
        .map_err(|_| Refusal::Failed)
    }
}

impl Key {
    /// Signs for nobody: what libcrypto makes at the first use of a key and of
    /// an algorithm is made before the doors close.
    fn warm_up(&self) {
        let tries: &[(Padding, Digest)] = match self.kind {
            KeyType::Rsa | KeyType::RsaPss => &[
                (Padding::Pss, Digest::Sha256),
                (Padding::Pss, Digest::Sha384),
                (Padding::Pss, Digest::Sha512),
                (Padding::Pkcs1, Digest::Sha256),
                (Padding::Pkcs1, Digest::Sha1),
            ],
            KeyType::Ecdsa(_) => &[
                (Padding::None, Digest::Sha256),
                (Padding::None, Digest::Sha384),
                (Padding::None, Digest::Sha512),
            ],
            KeyType::Ed25519 | KeyType::Ed448 | KeyType::Other => &[(Padding::None, Digest::None)],
        };
        for (padding, digest) in tries {
            // A key may not do all of them (RSASSA-PSS keys name theirs).
            let _ = local::sign(&self.secret, *padding, *digest, b"");
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;

    use super::*;
    use crate::report::Verbosity;

    /// Both wait when the keyholder looks: a permit, and a signature under it.
    #[test]
    fn a_permit_counts_for_what_is_asked_for_behind_it() {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a group");
        let secret = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let key = Key {
            kind: KeyType::of(&secret),
            secret,
            permits: Vec::new(),
        };
        let (supervisor, control) = parcel::pair().expect("sockets");
        let (engine, socket) = parcel::pair().expect("sockets");
        let mut service = Service {
            control: Some(control),
            keys: Keys {
                by_number: HashMap::from([(3, key)]),
                ..Keys::default()
            },
            hours: Hours::fresh(Duration::from_secs(60)).expect("keys of tickets"),
            master: None,
            links: vec![Link {
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
        parcel::give(&supervisor, &order).expect("a permit");
        parcel::give(&supervisor, &[order::GRANT, 0, 0, 0, 3]).expect("a grant");
        parcel::give(&engine, &request.to_bytes()).expect("a request");
        assert!(service.serve());
        let mut reply = [0; 1024];
        let length = parcel::take(&engine, &mut reply).expect("an answer");
        let said = String::from_utf8_lossy(&reply[..length]);
        assert_eq!(reply[..2], [1, 0], "{said}");
    }
}
