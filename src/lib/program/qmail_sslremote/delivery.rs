//! The delivery: one server after the other, in plain or in TLS as its plan says.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use openssl::ssl::SslRef;

use super::control::Control;
use super::envelope::{self, Envelope, Talk};
use super::link::Link;
use super::message::Message;
use super::plan::{Candidate, Plan};
use super::qmtp;
use super::report_text::{Report, Say};
use super::routes::{Login, Origin, Protocol};
use super::targets::Target;
use crate::dialer::Dialer;
use crate::dialogue::client::Refusal;
use crate::dialogue::client::sasl::{self, Mechanism};
use crate::dialogue::client::smtp::Reply;
use crate::handshake::{self, Failure, Side};
use crate::keyholder::OwnKey;
use crate::policy::{Check, Rule, Start, Tls};
use crate::report;
use crate::settings::Version;
use crate::text;
use crate::trust::{self, Cause, Reference, Verdict};

/// One message on its way.
pub struct Delivery<'a> {
    /// Our name and our patience.
    pub control: &'a Control,
    /// From which address, under which name.
    pub origin: &'a Origin,
    /// From whom to whom, quoted for SMTP.
    pub envelope: Envelope<'a>,
    /// The same as it is.
    pub bare: Envelope<'a>,
    /// What.
    pub message: Message,
}

/// How a try at one server ended.
enum Outcome {
    /// The report stands, whatever it is.
    Done(Report),
    /// Another server may take it; else this is the report.
    Next(Say),
    /// TLS was tried and failed where it need not be used: another server, else
    /// this one without it.
    WithoutTls(Say, String),
}

impl Delivery<'_> {
    /// Tries one server after the other.
    pub fn run(&mut self, candidates: &[Candidate]) -> Report {
        let mut last = Say::new(
            'Z',
            "Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)",
        );
        let mut again = Vec::new();
        for candidate in candidates {
            match self.attempt(candidate, None) {
                Outcome::Done(report) => return report,
                Outcome::Next(say) => last = say,
                Outcome::WithoutTls(say, why) => {
                    last = say;
                    again.push((candidate, why));
                }
            }
        }
        for (candidate, why) in again {
            match self.attempt(candidate, Some(&why)) {
                Outcome::Done(report) => return report,
                Outcome::Next(say) | Outcome::WithoutTls(say, _) => last = say,
            }
        }
        last.into()
    }

    /// One connection; with `failed`, one without TLS, for that reason.
    fn attempt(&mut self, candidate: &Candidate, failed: Option<&str>) -> Outcome {
        let plan = match &candidate.plan {
            Ok(plan) => plan,
            Err(say) => return Outcome::Next(say.clone()),
        };
        let socket = match self.connect(candidate) {
            Ok(socket) => socket,
            Err(say) => return Outcome::Next(say),
        };
        let _ = socket.set_nodelay(true);
        let required = plan.demand.is_some();
        let use_tls = plan.rule.tls() != Tls::Never && failed.is_none();
        let mut link = Link::clear(socket);
        let mut how = match failed {
            Some(why) => format!("no TLS, which failed: {why}"),
            None if plan.rule.tls() != Tls::Never && candidate.protocol == Protocol::Qmtp => {
                "no TLS: QMTP has none on this port".to_owned()
            }
            None => "no TLS".to_owned(),
        };
        let at_once = candidate.port.start != Start::StartTls;
        if at_once && use_tls {
            match self.secure(link, candidate, plan) {
                Ok((secured, words)) => (link, how) = (secured, words),
                Err(failure) => return tls_failed(candidate, plan, at_once, &failure, None),
            }
        }
        // Where TLS is required, nothing that is said before it is a reason to
        // send the mail back.
        let bounce = !required || at_once;
        let ip = candidate.target.ip.to_string();
        let mut talk = Talk::new(&mut link, self.control.remote);
        if candidate.protocol == Protocol::Qmtp {
            OwnKey::forget();
            let ends = (&*ip, &*how);
            let report = qmtp::transmit(&mut talk, &self.bare, &mut self.message, ends);
            return Outcome::Done(report);
        }
        let mut capabilities = match self.greet(&mut talk, &ip, bounce) {
            Ok(reply) => reply,
            Err(outcome) => return outcome,
        };
        if use_tls && !at_once {
            if capabilities.capability("STARTTLS").is_some() {
                match talk.start_tls() {
                    Ok(()) => {
                        drop(talk);
                        match self.secure(link, candidate, plan) {
                            Ok((secured, words)) => (link, how) = (secured, words),
                            Err(why) => {
                                return tls_failed(candidate, plan, at_once, &why, None);
                            }
                        }
                        talk = Talk::new(&mut link, self.control.remote);
                        // RFC 3207, 4.2: what was learnt in the clear is forgotten.
                        capabilities = match self.hello(&mut talk, &ip, true) {
                            Ok(reply) => reply,
                            Err(outcome) => return outcome,
                        };
                    }
                    Err(Refusal::Refused(_, reply)) if !required && is_refusal(&reply) => {
                        how = String::from("no TLS: STARTTLS was refused");
                    }
                    Err(why) => {
                        let reply = why.reply().map(<[u8]>::to_vec);
                        let said = reply.as_deref();
                        return tls_failed(candidate, plan, at_once, &bare(&why), said);
                    }
                }
            } else if required {
                talk.quit();
                let why = "it does not offer STARTTLS";
                let said = Some(capabilities.text.as_slice());
                return tls_failed(candidate, plan, at_once, why, said);
            } else {
                how = String::from("no TLS: it was not offered");
            }
        }
        if let Some((login, place)) = &plan.login {
            let clear = talk.link().is_clear();
            let offer = (&capabilities, clear);
            if let Err(outcome) = log_in(&mut talk, offer, login, place, &ip) {
                return outcome;
            }
        }
        // No other server is tried after this: nobody needs our key.
        OwnKey::forget();
        let report = envelope::transmit(
            &mut talk,
            &capabilities,
            &self.envelope,
            &mut self.message,
            (&ip, &how),
        );
        Outcome::Done(report)
    }

    /// A connection, from the address that domainips gives.
    fn connect(&self, candidate: &Candidate) -> Result<TcpStream, Say> {
        let at = SocketAddr::new(candidate.target.ip, candidate.port.number);
        let seconds = u32::try_from(self.control.connect.as_secs()).unwrap_or(u32::MAX);
        let dialer = Dialer {
            seconds: (seconds, 0),
            local_address: self.origin.address_for(at.ip()).ok().flatten(),
            local_port: 0,
        };
        dialer.connect(&[at]).map_err(|failures| {
            let cause = failures.first().map(|failure| &failure.cause);
            if let Some(own) = dialer.local_address
                && cause.is_some_and(|cause| cause.kind() == io::ErrorKind::AddrNotAvailable)
            {
                let place = &self.origin.place;
                let sentence = format!("Can't bind to local ip address: {own}. (#4.3.0)");
                return Say::new('Z', sentence).because(format!("{place} asks for it"));
            }
            let protocol = match candidate.protocol {
                Protocol::Qmtp => "a QMTP",
                Protocol::Smtp => "an SMTP",
            };
            let sentence =
                format!("Sorry, I wasn't able to establish {protocol} connection. (#4.4.1)");
            let why = cause.map_or_else(String::new, |cause| {
                format!("{at}: {}", report::reason(cause))
            });
            Say::new('Z', sentence).because(why)
        })
    }

    /// The greeting and EHLO.
    fn greet(&self, talk: &mut Talk<'_>, ip: &str, bounce: bool) -> Result<Reply, Outcome> {
        let greeting = talk
            .reply("before its greeting")
            .map_err(|why| Outcome::Next(envelope::dropped(ip, &why, false)))?;
        if greeting.code != 220 {
            let sentence = format!("Connected to {ip} but greeting failed.");
            let say = Say::new('Z', sentence).said(Some(&greeting.text));
            talk.quit();
            return Err(if greeting.is_temporary() {
                Outcome::Next(say)
            } else {
                Outcome::Done(say.into())
            });
        }
        self.hello(talk, ip, bounce)
    }

    /// EHLO, or HELO where that is refused; `bounce` where the refusal counts.
    fn hello(&self, talk: &mut Talk<'_>, ip: &str, bounce: bool) -> Result<Reply, Outcome> {
        let died = |why: Refusal| Outcome::Done(envelope::dropped(ip, &why, false).into());
        let own = self.origin.helo_host.as_ref();
        let name = own.unwrap_or(&self.control.helo_host);
        let mut ask = |verb: &str| {
            talk.send(format!("{verb} {name}").as_bytes(), "at EHLO")?;
            talk.reply("after EHLO")
        };
        let reply = ask("EHLO").map_err(died)?;
        if reply.code == 250 {
            return Ok(reply);
        }
        let mut reply = ask("HELO").map_err(died)?;
        if reply.code == 250 {
            // Its lines list nothing.
            reply.text = b"250 \r\n".to_vec();
            return Ok(reply);
        }
        talk.quit();
        let letter = if bounce && reply.code >= 500 {
            'D'
        } else {
            'Z'
        };
        let sentence = format!("Connected to {ip} but my name was rejected.");
        let say = Say::new(letter, sentence).said(Some(&reply.text));
        Err(Outcome::Done(say.into()))
    }

    /// The handshake and every check; what the report will say of it.
    fn secure(
        &self,
        link: Link,
        candidate: &Candidate,
        plan: &Plan,
    ) -> Result<(Link, String), String> {
        let socket = link.into_socket().ok_or("no socket")?;
        let store = plan.store.as_ref().ok_or("TLS is never tried")?;
        let reference = Reference::new(&candidate.target.host);
        let ssl = store
            .connection(&reference, plan.names.clone())
            .map_err(|error| crate::store::queue(&error))?;
        let side = Side {
            kinds: &[],
            versions: (Version::Tls12, None),
        };
        let limit = self.control.connect.max(Duration::from_secs(1));
        let session =
            handshake::perform(ssl, socket, limit, side).map_err(|failure| match failure {
                Failure::Certificate(refusal) if matches!(refusal.cause, Cause::Name(_)) => {
                    format!("its certificate names another host: {refusal}")
                }
                Failure::Certificate(refusal) => {
                    format!("its certificate did not verify: {refusal}")
                }
                other => format!("the handshake failed: {other}"),
            })?;
        let verdict = trust::verdict(session.ssl()).map_err(|refusal| refusal.to_string())?;
        let words = words(session.ssl(), &plan.rule, &verdict);
        Ok((Link::tls(session), words))
    }
}

/// AUTH. A login that fails is no fault of the sender's, so it is never a
/// bounce; and it is not repeated with the relay's next address, since servers
/// count failures.
fn log_in(
    talk: &mut Talk<'_>,
    (capabilities, clear): (&Reply, bool),
    login: &Login,
    place: &str,
    ip: &str,
) -> Result<(), Outcome> {
    let of = format!("the login of {place}");
    let next = |what: &str| {
        let say = Say::new('Z', format!("Connected to {ip} but {what}. (#4.7.0)"));
        Err(Outcome::Next(say))
    };
    if capabilities.capability("AUTH").is_none() {
        talk.quit();
        return next(&format!("it does not offer AUTH, for {of}"));
    }
    let Some(mechanism) = Mechanism::choose(capabilities, clear) else {
        talk.quit();
        return next(&if clear {
            format!("it does not offer AUTH CRAM-MD5, for {of}, and there is no TLS for another")
        } else {
            format!("it offers neither AUTH PLAIN nor LOGIN nor CRAM-MD5, for {of}")
        });
    };
    let name = mechanism.name();
    let failed = sasl::log_in(talk.lines(), mechanism, &login.user, &login.password);
    let say = match failed {
        Ok(()) => return Ok(()),
        Err(sasl::Failure::Lost(why)) => {
            return Err(Outcome::Next(envelope::dropped(ip, &why, false)));
        }
        Err(sasl::Failure::Refused(codes)) => {
            let sentence = format!("Connected to {ip} but it refused {of} (AUTH {name}). (#4.7.8)");
            Say::new('Z', sentence).said(Some(codes.as_bytes()))
        }
        Err(sasl::Failure::Stopped(why)) => {
            let sentence = format!("Connected to {ip} but AUTH {name} failed with {of}. (#4.7.8)");
            Say::new('Z', sentence).because(why)
        }
    };
    talk.quit();
    Err(Outcome::Done(say.into()))
}

/// What becomes of a try whose TLS failed: never a bounce.
fn tls_failed(
    candidate: &Candidate,
    plan: &Plan,
    at_once: bool,
    why: &str,
    reply: Option<&[u8]>,
) -> Outcome {
    let Target { host, ip } = &candidate.target;
    let required = plan.demand.is_some();
    let demand = plan.demand.as_ref();
    let demand = demand.map_or_else(String::new, |why| format!("; {why}"));
    let sentence = format!("Connected to {ip} ({host}) but {why}{demand}. (#4.7.5)");
    let say = Say::new('Z', sentence).said(reply);
    if required || at_once {
        return Outcome::Next(say);
    }
    Outcome::WithoutTls(say, text::excerpt(why.as_bytes(), 300))
}

/// 4yz or 5yz, after which the session goes on; 421 ends it, and after another
/// code nobody knows what the server waits for.
fn is_refusal(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'4' | b'5')) && !reply.starts_with(b"421")
}

/// A refusal in words that do not repeat the reply.
fn bare(why: &Refusal) -> String {
    match why {
        Refusal::Refused(..) => "it refused STARTTLS".to_owned(),
        Refusal::Injection(count, _) => {
            format!("it sent {count} bytes in the clear that were not asked for")
        }
        other => format!("STARTTLS failed: {other}"),
    }
}

/// `TLSv1.3 TLS_AES_256_GCM_SHA384 verified mx.example`.
fn words(ssl: &SslRef, rule: &Rule, verdict: &Verdict) -> String {
    let cipher = ssl.current_cipher().map_or("", |cipher| cipher.name());
    let verdict = match verdict {
        // Nothing was asked of it, so that its failures are none.
        Verdict::Unverified(_) | Verdict::Verified(_)
            if matches!(rule.check(), Check::Nothing | Check::Certificate) =>
        {
            "unverified".to_owned()
        }
        other => other.to_string(),
    };
    format!("{} {cipher} {verdict}", ssl.version_str())
}
