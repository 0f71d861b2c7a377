//! A session with one server, stage by stage: connected, greeted, secured,
//! authenticated. Sending is envelope's and qmtp's.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::delivery::{Delivery, Secured};
use super::failure::{Circumstances, Failure, NoTls, Obstacle};
use super::plan::{self, Plan, Server};
use super::talk::{Talk, is_closing};
use crate::dialer::Dialer;
use crate::dialogue::client::sasl::{self, Mechanism};
use crate::dialogue::client::smtp::Reply;
use crate::dialogue::client::{self, DialogueError};
use crate::keyholder::OwnKey;
use crate::report;
use crate::routes::{Login, Protocol};
use crate::text;
use crate::tlsdestinations::{Tls, TlsMode};
use crate::tlsrpt::ResultType;
use crate::transport::Transport;
use crate::trust::Verdict;

/// A session, as far as it came.
pub struct Session<'a> {
    delivery: &'a Delivery<'a>,
    /// Whom it is with.
    pub server: &'a Server,
    plan: &'a Plan,
    /// What is said.
    pub talk: Talk,
    /// What the server offers; nothing before the name was taken.
    pub capabilities: Capabilities,
    protection: Protection,
    /// No other server is left that could ask for our certificate.
    is_last: bool,
    /// Our key was wiped.
    key_is_gone: bool,
    local_ip: Option<IpAddr>,
}

/// What a server offers.
pub enum Capabilities {
    /// The answer to EHLO.
    Listed(Reply),
    /// EHLO was refused in these words, and HELO offers nothing.
    Refused(Reply),
    /// EHLO was not asked yet in this session.
    Unasked,
}

impl Capabilities {
    /// The parameters of a capability.
    #[must_use]
    pub fn capability(&self, word: &str) -> Option<&[u8]> {
        match self {
            Capabilities::Listed(reply) => reply.capability(word),
            Capabilities::Refused(_) | Capabilities::Unasked => None,
        }
    }

    /// What the server said of them.
    fn reply(&self) -> Option<&Reply> {
        match self {
            Capabilities::Listed(reply) | Capabilities::Refused(reply) => Some(reply),
            Capabilities::Unasked => None,
        }
    }
}

/// What protects a session; as a report says it.
enum Protection {
    /// The rule forbids TLS.
    Forbidden,
    /// The server does not offer TLS.
    NotOffered,
    /// QMTP on this port has none.
    NoneInQmtp,
    /// TLS failed on another connection.
    Failed(NoTls),
    /// The server refused STARTTLS.
    Refused(NoTls),
    /// TLS: version, cipher, and what the server showed.
    Tls(Secured),
}

/// What became of TLS in a session.
pub enum Encryption<'a> {
    /// A rule or the protocol does without it.
    Unwanted,
    /// It failed on another connection of this delivery.
    GivenUp,
    /// The server does not offer it.
    NotOffered,
    /// The server refused it.
    Refused(&'a NoTls),
    /// It is on.
    Tls,
}

impl fmt::Display for Protection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protection::Forbidden => out.write_str("no TLS"),
            Protection::NotOffered => out.write_str("no TLS: it was not offered"),
            Protection::NoneInQmtp => out.write_str("no TLS: QMTP has none on this port"),
            Protection::Failed(failed) => {
                let why = crate::text::excerpt(failed.why.as_bytes(), 300);
                write!(out, "no TLS, which failed: {why}")
            }
            Protection::Refused(_) => out.write_str("no TLS: STARTTLS was refused"),
            Protection::Tls(secured) => out.write_str(&secured.words),
        }
    }
}

fn no_tls(obstacle: Obstacle, why: impl Into<String>, reply: Option<&[u8]>) -> Failure {
    Failure::Tls(NoTls {
        reply: reply.map(<[u8]>::to_vec),
        ..NoTls::new(obstacle, why)
    })
}

impl<'a> Session<'a> {
    /// A connection, from the address that domainips gives. With `failed` it does
    /// without TLS, for that reason. `is_last`: no server after it will want our
    /// certificate.
    ///
    /// # Errors
    /// There is none.
    pub fn connect(
        delivery: &'a Delivery<'a>,
        server: &'a Server,
        plan: &'a Plan,
        failed: Option<&NoTls>,
        is_last: bool,
    ) -> Result<Session<'a>, Failure> {
        let socket = call(delivery, server)?;
        let _ = socket.set_nodelay(true);
        let local_ip = socket.local_addr().ok().map(|at| at.ip());
        let protection = match failed {
            Some(failed) => Protection::Failed(failed.clone()),
            None if plan.rule.tls() == Tls::Never => Protection::Forbidden,
            None if server.protocol == Protocol::Qmtp => Protection::NoneInQmtp,
            None => Protection::NotOffered,
        };
        Ok(Session {
            delivery,
            server,
            plan,
            talk: Talk::new(Transport::clear(socket), delivery.control.remote),
            capabilities: Capabilities::Unasked,
            protection,
            is_last,
            key_is_gone: false,
            local_ip,
        })
    }

    /// What a failure is judged by.
    #[must_use]
    pub fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            server: self.server,
            demand: self.plan.demand.as_deref(),
            tls_failed: match &self.protection {
                Protection::Failed(failed) | Protection::Refused(failed) => Some(failed),
                _ => None,
            },
            no_other: self.key_is_gone && !self.is_last && self.delivery.has_key,
        }
    }

    /// Wipes our key, unless another server may ask for our certificate.
    pub fn forget_key_at_last(&mut self) {
        if self.is_last {
            self.forget_key();
        }
    }

    /// Wipes our key before the message is sent. If we have one, this is the last
    /// server.
    pub fn forget_key(&mut self) {
        OwnKey::forget();
        self.key_is_gone = true;
    }

    /// What the report of a success says of TLS: `(TLSv1.3 ...)`, and a second pair of
    /// brackets where the domain's policy is not followed, or could not be had.
    #[must_use]
    pub fn protection(&self) -> String {
        let protection = &self.protection;
        match self.policy_words() {
            Some(words) => format!(
                "({protection}) (sts: {})",
                text::excerpt(words.as_bytes(), 500)
            ),
            None => format!("({protection})"),
        }
    }

    fn policy_words(&self) -> Option<String> {
        let testing = self
            .testing_failure()
            .map(|(_, why)| format!("testing: {why}"));
        testing.or_else(|| self.plan.known.as_ref()?.words())
    }

    /// What a policy in mode `testing` would have refused, and why.
    pub fn testing_failure(&self) -> Option<(ResultType, String)> {
        let sts = self.plan.sts.as_ref().filter(|sts| !sts.is_enforced())?;
        if !sts.listed {
            return Some((ResultType::ValidationFailure, sts.unlisted()));
        }
        let none = ResultType::StarttlsNotSupported;
        let secured = match &self.protection {
            Protection::Tls(secured) => secured,
            other => return Some((none, other.to_string())),
        };
        match &secured.by_policy {
            Some(Verdict::Verified(Some(_))) | None => None,
            Some(Verdict::Unverified(refusal)) => Some((
                ResultType::of_certificate(refusal.fault),
                plan::refused(refusal, None),
            )),
            Some(_) => Some((
                ResultType::CertificateNotTrusted,
                "it showed no certificate".to_owned(),
            )),
        }
    }

    /// What TLS reports say of the domain's policy where TLS itself is as it should be.
    #[must_use]
    pub fn policy_trouble(&self) -> Option<(ResultType, String)> {
        self.testing_failure().or_else(|| {
            let trouble = self.plan.known.as_ref()?.trouble.as_ref()?;
            Some((trouble.kind.into(), trouble.why.clone()))
        })
    }

    /// What became of TLS, once the session is secured.
    #[must_use]
    pub fn encryption(&self) -> Encryption<'_> {
        match &self.protection {
            Protection::Forbidden | Protection::NoneInQmtp => Encryption::Unwanted,
            Protection::Failed(_) => Encryption::GivenUp,
            Protection::NotOffered => Encryption::NotOffered,
            Protection::Refused(no_tls) => Encryption::Refused(no_tls),
            Protection::Tls(_) => Encryption::Tls,
        }
    }

    /// Whether the server has TLSA records, none of which is of use.
    #[must_use]
    pub fn ignores_records(&self) -> bool {
        let dane = self.plan.dane.as_ref();
        dane.is_some_and(|dane| dane.published.is_none())
    }

    /// The address that the server was called from.
    #[must_use]
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.local_ip
    }

    fn wants_tls(&self) -> bool {
        let given_up = matches!(self.protection, Protection::Failed(_));
        self.plan.rule.tls() != Tls::Never && !given_up
    }

    fn at_once(&self) -> bool {
        self.server.port.mode != TlsMode::StartTls
    }

    /// From the connection to a server that has greeted, has taken our name, and is
    /// secured where that is wanted.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn open(&mut self) -> Result<(), Failure> {
        if self.at_once() && self.wants_tls() {
            self.handshake()?;
            if self.server.protocol == Protocol::Qmtp {
                return Ok(());
            }
            self.greeting().map_err(|failure| self.late(failure))?;
            return self.hello();
        }
        if self.server.protocol == Protocol::Qmtp {
            return Ok(());
        }
        self.greeting()?;
        self.hello()?;
        if self.wants_tls() {
            self.secure()
        } else {
            Ok(())
        }
    }

    fn greeting(&mut self) -> Result<(), Failure> {
        let greeting = self.talk.reply("before its greeting");
        let greeting = greeting.map_err(Failure::NoGreeting)?;
        match greeting.code {
            220 => Ok(()),
            _ => Err(Failure::Greeting(greeting)),
        }
    }

    /// EHLO, or HELO where that is refused.
    fn hello(&mut self) -> Result<(), Failure> {
        let reply = self.name_ourselves("EHLO")?;
        if reply.code == 250 {
            self.capabilities = Capabilities::Listed(reply);
            return Ok(());
        }
        if is_closing(&reply) {
            return Err(Failure::Hello(reply));
        }
        self.capabilities = Capabilities::Refused(reply);
        let reply = self.name_ourselves("HELO")?;
        match reply.code {
            250 => Ok(()),
            _ => Err(Failure::Hello(reply)),
        }
    }

    fn name_ourselves(&mut self, verb: &str) -> Result<Reply, Failure> {
        let own = self.delivery.origin.helo_host.as_ref();
        let name = own.unwrap_or(&self.delivery.control.helo_host);
        let reply = self
            .talk
            .ask(format!("{verb} {name}").as_bytes(), "after EHLO");
        reply.map_err(Failure::NoHello)
    }

    /// STARTTLS, the handshake, and the first good answer inside TLS. Where TLS is
    /// not required, a server without it, or one that refuses it in due form, is
    /// gone on with.
    fn secure(&mut self) -> Result<(), Failure> {
        let required = self.plan.demand.is_some();
        if self.capabilities.capability("STARTTLS").is_none() {
            if required {
                let said = self.capabilities.reply().map(|reply| &*reply.text);
                return Err(no_tls(
                    Obstacle::NotOffered,
                    "it does not offer STARTTLS",
                    said,
                ));
            }
            return Ok(());
        }
        match self.talk.start_tls() {
            Ok(()) => {}
            Err(DialogueError::Refused(_, reply)) if !required && goes_on(&reply) => {
                self.protection = Protection::Refused(NoTls {
                    reply: Some(reply),
                    ..NoTls::new(Obstacle::Refused, "it refused STARTTLS")
                });
                return Ok(());
            }
            Err(why) => {
                // After a refusal QUIT is in order; after all else nobody knows what
                // the server waits for.
                if !why.reply().is_some_and(goes_on) {
                    self.talk.end();
                }
                let obstacle = match why {
                    DialogueError::Refused(..) => Obstacle::Refused,
                    _ => Obstacle::GoAhead,
                };
                return Err(no_tls(obstacle, bare(&why), why.reply()));
            }
        }
        self.handshake()?;
        // RFC 3207, 4.2: what was learnt in the clear is forgotten.
        self.capabilities = Capabilities::Unasked;
        // A server that took our name before has no reason to mind EHLO now.
        let reply = self.name_ourselves("EHLO");
        match reply {
            Ok(reply) if reply.code == 250 => {
                self.capabilities = Capabilities::Listed(reply);
                Ok(())
            }
            Ok(reply) => Err(self.late(Failure::Hello(reply))),
            Err(failure) => Err(self.late(failure)),
        }
    }

    fn handshake(&mut self) -> Result<(), Failure> {
        let socket = self.talk.take_socket();
        let made = match socket {
            Some(socket) => self.delivery.secure(socket, self.server, self.plan),
            None => Err(NoTls::new(Obstacle::Setup, "no socket")),
        };
        let (session, secured) = made.map_err(Failure::Tls)?;
        self.talk.resume(session);
        self.protection = Protection::Tls(secured);
        Ok(())
    }

    /// What came in the place of the first good answer inside TLS: in TLS 1.3 a
    /// server that refuses us says so only after our side of the handshake is done.
    fn late(&mut self, failure: Failure) -> Failure {
        if let Some(alert) = self.talk.transport().last_alert() {
            let why = format!("the handshake failed: {alert}");
            return no_tls(Obstacle::Handshake, why, None);
        }
        let (why, reply) = match failure {
            Failure::NoGreeting(why) | Failure::NoHello(why) => {
                (format!("there was no good answer inside TLS: {why}"), None)
            }
            Failure::Greeting(reply) => ("its greeting inside TLS failed".to_owned(), Some(reply)),
            Failure::Hello(reply) => ("it refused EHLO inside TLS".to_owned(), Some(reply)),
            other => return other,
        };
        no_tls(
            Obstacle::Answer,
            why,
            reply.as_ref().map(|reply| &*reply.text),
        )
    }

    /// The same for QMTPS, where the first answer comes behind the message. Once that
    /// was sent to its end the server may have it, unless it says that it refuses our
    /// certificate.
    pub fn unanswered(&mut self, failure: Failure) -> Failure {
        if self.talk.is_clear() {
            return failure;
        }
        match failure {
            // Whoever speaks inside TLS has taken it.
            Failure::Lost(DialogueError::Unasked(_)) => failure,
            Failure::Lost(why) => {
                self.talk.hear_alert();
                self.late(Failure::NoHello(why))
            }
            Failure::LostAfterDot(why) => {
                self.talk.hear_alert();
                if !self.talk.transport().refuses_certificate() {
                    return Failure::LostAfterDot(why);
                }
                self.late(Failure::NoHello(why))
            }
            other => other,
        }
    }

    /// AUTH, where the route has a login. A login that fails is no fault of the
    /// sender's, so it is never a bounce.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn authenticate(&mut self) -> Result<(), Failure> {
        match &self.plan.login {
            Some((login, place)) => self.log_in(login, place),
            None => Ok(()),
        }
    }

    fn log_in(&mut self, login: &Login, place: &str) -> Result<(), Failure> {
        let of = format!("the login of {place}");
        let clear = self.talk.is_clear();
        let listed = match &self.capabilities {
            Capabilities::Listed(reply) if reply.capability("AUTH").is_some() => reply,
            _ => {
                let why = format!("it does not offer AUTH, for {of}");
                return Err(Failure::NoMechanism(why));
            }
        };
        let mechanisms = Mechanism::offered(listed, clear);
        let mut refused = Failure::NoMechanism(if clear {
            format!(
                "it does not offer AUTH CRAM-MD5, for {of}; no other mechanism is used without TLS"
            )
        } else {
            format!("it offers neither AUTH PLAIN nor LOGIN nor CRAM-MD5, for {of}")
        });
        for mechanism in mechanisms {
            let lines = self.talk.lines();
            let Err(why) = sasl::log_in(lines, mechanism, &login.user, &login.password) else {
                return Ok(());
            };
            let another = why.is_of_mechanism();
            refused = self.not_logged_in(why, mechanism.name(), &of);
            if !another {
                break;
            }
        }
        Err(refused)
    }

    fn not_logged_in(&mut self, why: sasl::LoginFailure, mechanism: &str, of: &str) -> Failure {
        match why {
            sasl::LoginFailure::Lost(why) => {
                self.talk.end();
                Failure::LoginLost(why)
            }
            sasl::LoginFailure::Refused(codes) if codes.starts_with("421") => {
                self.talk.end();
                Failure::LoginClosing(codes)
            }
            sasl::LoginFailure::Refused(codes) => {
                Failure::Login(format!("it refused {of} (AUTH {mechanism})"), codes)
            }
            sasl::LoginFailure::Stopped(why) => {
                Failure::LoginStopped(format!("AUTH {mechanism} failed with {of}"), why)
            }
        }
    }
}

fn call(delivery: &Delivery<'_>, server: &Server) -> Result<TcpStream, Failure> {
    let at = SocketAddr::new(server.host.ip, server.port.number);
    let seconds = u32::try_from(delivery.control.connect.as_secs()).unwrap_or(u32::MAX);
    let dialer = Dialer {
        seconds: (seconds, 0),
        local_address: delivery.origin.address_for(at.ip()).ok().flatten(),
        local_port: 0,
    };
    dialer.connect(&[at]).map_err(|failures| {
        let cause = failures.first().map(|failure| &failure.cause);
        if let Some(own) = dialer.local_address {
            if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::AddrNotAvailable) {
                let place = delivery.origin.place.clone();
                return Failure::Origin { own, place };
            }
        }
        Failure::Unreachable(cause.map_or_else(String::new, |cause| {
            format!("{at}: {}", report::reason(cause))
        }))
    })
}

/// 4yz or 5yz, after which the session goes on; 421 ends it, and after another
/// code nobody knows what the server waits for.
fn goes_on(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'4' | b'5')) && !reply.starts_with(b"421")
}

/// A refusal in words that do not repeat the reply.
fn bare(why: &DialogueError) -> String {
    match why {
        DialogueError::Refused(..) => "it refused STARTTLS".to_owned(),
        DialogueError::Injection(count, _) => format!("it sent {}", client::unasked(*count)),
        other => format!("STARTTLS failed: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_refusal_in_due_form_the_session_goes_on() {
        for (reply, on) in [
            (&b"454 4.7.0 not now\r\n"[..], true),
            (b"502 what\r\n", true),
            (b"421 closing\r\n", false),
            (b"220 go\r\n", false),
            (b"334 \r\n", false),
            (b"", false),
        ] {
            assert_eq!(goes_on(reply), on, "{reply:?}");
        }
    }

    #[test]
    fn why_there_is_no_tls_does_not_repeat_the_reply() {
        let reply = || b"454 no\r\n".to_vec();
        for (why, words) in [
            (
                DialogueError::Refused("STARTTLS", reply()),
                "it refused STARTTLS",
            ),
            (
                DialogueError::Injection(3, reply()),
                "it sent 3 bytes in the clear that were not asked for",
            ),
            (
                DialogueError::Ended("after STARTTLS"),
                "STARTTLS failed: server ended the connection after STARTTLS",
            ),
        ] {
            assert_eq!(bare(&why), words);
        }
    }

    #[test]
    fn a_report_says_why_there_is_no_tls() {
        let failed = || NoTls::new(Obstacle::Handshake, "the handshake failed");
        for (protection, words) in [
            (Protection::Forbidden, "no TLS"),
            (Protection::NotOffered, "no TLS: it was not offered"),
            (Protection::NoneInQmtp, "no TLS: QMTP has none on this port"),
            (
                Protection::Failed(failed()),
                "no TLS, which failed: the handshake failed",
            ),
            (
                Protection::Refused(failed()),
                "no TLS: STARTTLS was refused",
            ),
        ] {
            assert_eq!(protection.to_string(), words);
        }
    }

    #[test]
    fn what_a_server_offers_is_what_it_listed_after_ehlo() {
        let reply = || Reply {
            code: 250,
            text: b"250-mx.example\r\n250 SIZE 99\r\n".to_vec(),
        };
        let listed = Capabilities::Listed(reply());
        assert!(listed.capability("SIZE").is_some() && listed.capability("STARTTLS").is_none());
        assert!(listed.reply().is_some());
        let refused = Capabilities::Refused(reply());
        assert!(refused.capability("SIZE").is_none() && refused.reply().is_some());
        let unasked = Capabilities::Unasked;
        assert!(unasked.capability("SIZE").is_none() && unasked.reply().is_none());
    }
}
