//! What a session can fail of, stage by stage; what then becomes of the delivery
//! ([`Failure::fate`], the table of qmail-sslremote(8)); and the words for it.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::plan::Server;
use super::report_text::{Disposition, Report, Say};
use super::talk::is_closing;
use crate::dialogue::client::smtp::Reply;
use crate::dialogue::client::{DialogueError, shown};
use crate::routes::Protocol;
use crate::text;
use crate::tlsdestinations::TlsMode;
use crate::trust;

/// How far a session came, in a session's order. Of two failures the later one
/// says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The server is known, and what it is asked for.
    Planned,
    /// There is a connection.
    Connected,
    /// The server has greeted and taken our name.
    Greeted,
    /// The first good answer inside TLS is there, or TLS is not wanted.
    Secured,
    /// The server knows who we are, or does not ask.
    Authenticated,
}

/// The kind of what stood in the way of TLS. TLS reports have a word for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The server does not offer it.
    NotOffered,
    /// The server refused STARTTLS.
    Refused,
    /// Something else came than the go-ahead alone, or nothing.
    GoAhead,
    /// There can be none from our side.
    Setup,
    /// The handshake failed.
    Handshake,
    /// The server's certificate was refused.
    Certificate(trust::Fault),
    /// There was no good answer inside TLS.
    Answer,
}

/// Why there is no TLS where there should have been.
#[derive(Clone, Debug)]
pub struct NoTls {
    /// Its kind.
    pub obstacle: Obstacle,
    /// Words that follow "Connected to ... but".
    pub why: String,
    /// The reply that says so, if it was one.
    pub reply: Option<Vec<u8>>,
}

impl NoTls {
    /// Of this kind, for this reason, without a reply.
    pub fn new(obstacle: Obstacle, why: impl Into<String>) -> NoTls {
        NoTls {
            obstacle,
            why: why.into(),
            reply: None,
        }
    }

    /// On one line, with the reply.
    fn in_full(&self) -> String {
        let reply = self.reply.as_ref().map(|reply| shown(reply));
        let reply = reply.map_or_else(String::new, |reply| format!(": {reply}"));
        text::excerpt(format!("{}{reply}", self.why).as_bytes(), 500)
    }
}

/// Why a server must not be called: the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// A line is wrong, or rule and route contradict each other.
    Line,
    /// Nobody could tell what its TLSA records are.
    Lookup,
    /// A line requires DANE, which does not apply to it.
    NoRecords,
    /// A line requires DANE, and none of its TLSA records is of use.
    Unusable,
    /// The domain's policy (MTA-STS) does not list it.
    Unlisted,
}

/// Why a server must not be called.
#[derive(Clone, Debug)]
pub struct Excluded {
    /// The kind.
    pub reason: Exclusion,
    /// What the report says.
    pub say: Say,
}

/// What a session failed of.
#[derive(Debug)]
pub enum Failure {
    // Planned.
    /// It must not be called.
    Excluded(Excluded),
    /// The address that a line of domainips gives is none of this host's.
    Origin { own: IpAddr, place: String },
    /// No connection.
    Unreachable(String),

    // Connected.
    /// No greeting.
    NoGreeting(DialogueError),
    /// Another greeting than 220.
    Greeting(Reply),
    /// No reply to EHLO or HELO.
    NoHello(DialogueError),
    /// A refusal of both.
    Hello(Reply),

    // Greeted.
    /// No TLS, or not with whom it should be.
    Tls(NoTls),

    // Secured.
    /// No way to log in.
    NoMechanism(String),
    /// The connection ended in the login.
    LoginLost(DialogueError),
    /// The login was refused: what happened, and codes.
    Login(String, String),
    /// The login cannot be ended: what happened, and why.
    LoginStopped(String, &'static str),
    /// The server closes instead of an answer to the login; codes.
    LoginClosing(String),

    // Authenticated.
    /// An address is not ASCII, and the server takes no such address.
    NoSmtpUtf8,
    /// No reply, or none to the message before its end was sent.
    Lost(DialogueError),
    /// No reply after the end of the message.
    LostAfterDot(DialogueError),
    /// The message's file cannot be read any more.
    Unreadable,
    /// A refusal of MAIL.
    Sender(Reply),
    /// No recipient was accepted; the last refusal, and the mildest.
    Recipients(Option<Vec<u8>>, Mildest),
    /// The server closes before all recipients had their answer.
    RecipientsClosing(Reply),
    /// A refusal of DATA.
    Data(Reply),
    /// A refusal within the message.
    Content(Reply),
    /// A refusal after the message.
    Message(Reply),
}

/// The mildest refusal of several recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mildest {
    /// Each will never be accepted.
    Never,
    /// One may be accepted later.
    Later,
    /// One was refused for want of TLS, which failed.
    WantsTls,
}

/// What is done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// The report stands.
    End,
    /// The next server; after all of them, this one without TLS.
    InPlain,
    /// No other server; those whose TLS failed are called without it, and if none
    /// of them takes the mail, the report stands.
    Last,
    /// The next server.
    Next,
}

/// What a failure has to be judged by, and told with.
pub struct Circumstances<'a> {
    /// The server.
    pub server: &'a Server,
    /// Why nothing is sent without TLS; words that end a sentence.
    pub demand: Option<&'a str>,
    /// Why TLS failed in this delivery, where the session is in plain for that.
    pub tls_failed: Option<&'a NoTls>,
    /// No other server can be called any more: one that asks for our certificate
    /// would not get it.
    pub no_other: bool,
}

impl Circumstances<'_> {
    fn ip(&self) -> String {
        self.server.host.ip.to_string()
    }

    /// Whether a session without TLS may take the place of one whose TLS failed.
    fn may_do_without_tls(&self) -> bool {
        self.demand.is_none() && self.server.port.mode == TlsMode::StartTls
    }

    /// Whether a refusal asks for TLS that failed: it may be there next time.
    #[must_use]
    pub fn wants_tls(&self, reply: &Reply) -> bool {
        self.tls_failed.is_some() && asks_for_tls(reply)
    }

    /// What a refusal after the login decides.
    pub fn disposition(&self, reply: &Reply) -> Disposition {
        match reply.code {
            // What is neither 4yz nor 5yz belongs to no plan.
            500.. if !self.wants_tls(reply) => Disposition::Never,
            _ => Disposition::Later,
        }
    }

    /// With the reply, and with the reason why TLS failed where it asks for TLS.
    pub fn refused(&self, say: Say, reply: &Reply) -> Say {
        self.reason(say.said(Some(&reply.text)), self.wants_tls(reply))
    }

    fn reason(&self, say: Say, wants_tls: bool) -> Say {
        match self.tls_failed {
            Some(failed) if wants_tls => {
                say.because(format!("TLS failed before: {}", failed.in_full()))
            }
            _ => say,
        }
    }

    fn next(&self) -> NextStep {
        if self.no_other {
            NextStep::Last
        } else {
            NextStep::Next
        }
    }

    fn refusal(&self, reply: &Reply) -> (Disposition, NextStep) {
        let then = if is_closing(reply) || self.wants_tls(reply) {
            self.next()
        } else if self.disposition(reply) == Disposition::Later {
            NextStep::Last
        } else {
            NextStep::End
        };
        (self.disposition(reply), then)
    }
}

impl Failure {
    /// The stage that was reached before it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Failure::Excluded(_) | Failure::Origin { .. } | Failure::Unreachable(_) => {
                Stage::Planned
            }
            Failure::NoGreeting(_)
            | Failure::Greeting(_)
            | Failure::NoHello(_)
            | Failure::Hello(_) => Stage::Connected,
            Failure::Tls(_) => Stage::Greeted,
            Failure::NoMechanism(_)
            | Failure::LoginLost(_)
            | Failure::Login(..)
            | Failure::LoginStopped(..)
            | Failure::LoginClosing(_) => Stage::Secured,
            _ => Stage::Authenticated,
        }
    }

    /// The table: what the report says of the mail, and what is done next. TLS that
    /// fails is never a reason to send mail back, nor is a wrong line, nor a login.
    #[must_use]
    #[allow(clippy::match_same_arms)] // a table, in the order of the stages
    pub fn fate(&self, at: &Circumstances<'_>) -> (Disposition, NextStep) {
        use Disposition::{Later, Never};
        use NextStep::{End, InPlain, Last, Next};
        match self {
            Failure::Excluded(_) | Failure::Origin { .. } | Failure::Unreachable(_) => {
                (Later, Next)
            }

            Failure::Greeting(reply) if !reply.is_temporary() => (Later, Last),
            Failure::NoGreeting(_)
            | Failure::Greeting(_)
            | Failure::NoHello(_)
            | Failure::Hello(_) => (Later, Next),

            Failure::Tls(_) if at.may_do_without_tls() => (Later, InPlain),
            Failure::Tls(_) => (Later, at.next()),

            Failure::NoMechanism(_) | Failure::LoginLost(_) | Failure::LoginClosing(_) => {
                (Later, Next)
            }
            // Servers count failures: it is not repeated with the next address.
            Failure::Login(..) | Failure::LoginStopped(..) => (Later, End),

            Failure::NoSmtpUtf8 => (Never, Next),
            Failure::Lost(_) => (Later, Last),
            Failure::LostAfterDot(_) | Failure::Unreadable => (Later, End),
            Failure::Recipients(_, Mildest::WantsTls) | Failure::RecipientsClosing(_) => {
                (Later, at.next())
            }
            // Each of them has its own word; so it is with qmail-remote.
            Failure::Recipients(_, Mildest::Later) => (Never, Last),
            Failure::Recipients(_, Mildest::Never) => (Never, End),
            Failure::Sender(reply) | Failure::Data(reply) => at.refusal(reply),
            // Other servers may get what this one read a part of, but not twice.
            Failure::Content(reply) | Failure::Message(reply) => (at.disposition(reply), End),
        }
    }

    /// The words for it.
    #[must_use]
    pub fn say(&self, at: &Circumstances<'_>) -> Say {
        let ip = at.ip();
        let (disposition, _) = self.fate(at);
        let say = |sentence: String| Say::new(disposition, sentence);
        let connected = |but: &str| say(format!("Connected to {ip} but {but}"));
        match self {
            Failure::Excluded(excluded) => excluded.say.clone(),
            Failure::Origin { own, place } => {
                say(format!("Can't bind to local ip address: {own}. (#4.3.0)"))
                    .because(format!("{place} asks for it"))
            }
            Failure::Unreachable(why) => {
                let protocol = match at.server.protocol {
                    Protocol::Qmtp => "a QMTP",
                    Protocol::Smtp => "an SMTP",
                };
                let sentence = "Sorry, I wasn't able to establish";
                say(format!("{sentence} {protocol} connection. (#4.4.1)")).because(why)
            }
            Failure::NoGreeting(why)
            | Failure::NoHello(why)
            | Failure::LoginLost(why)
            | Failure::Lost(why) => connected(&lost(at, why, "")).because(why.to_string()),
            Failure::LostAfterDot(why) => {
                connected(&lost(at, why, "Possible duplicate! ")).because(why.to_string())
            }
            Failure::Greeting(reply) => connected("greeting failed.").said(Some(&reply.text)),
            Failure::Hello(reply) => connected("my name was rejected.").said(Some(&reply.text)),
            Failure::Tls(NoTls { why, reply, .. }) => {
                let host = &at.server.host.name;
                let demand = at.demand.map_or_else(String::new, |why| format!("; {why}"));
                say(format!(
                    "Connected to {ip} ({host}) but {why}{demand}. (#4.7.5)"
                ))
                .said(reply.as_deref())
            }
            Failure::NoMechanism(why) => connected(&format!("{why}. (#4.7.0)")),
            Failure::LoginClosing(codes) => {
                connected("it closed in the login. (#4.4.2)").said(Some(codes.as_bytes()))
            }
            Failure::Login(what, codes) => {
                connected(&format!("{what}. (#4.7.8)")).said(Some(codes.as_bytes()))
            }
            Failure::LoginStopped(what, why) => {
                connected(&format!("{what}. (#4.7.8)")).because(why)
            }
            other => other.say_of_sending(at, disposition),
        }
    }

    /// The same of the last stage.
    fn say_of_sending(&self, at: &Circumstances<'_>, disposition: Disposition) -> Say {
        let ip = at.ip();
        let say = |sentence: String| Say::new(disposition, sentence);
        match self {
            Failure::NoSmtpUtf8 => say(format!(
                "Connected to {ip} but it does not offer SMTPUTF8, \
                 which an address that is not ASCII needs. (#5.6.7)"
            )),
            Failure::Sender(reply) => {
                let sentence = format!("Connected to {ip} but sender was rejected.");
                at.refused(say(sentence), reply)
            }
            Failure::Recipients(last, mildest) => {
                let said = say(format!("Giving up on {ip}.")).said(last.as_deref());
                at.reason(said, *mildest == Mildest::WantsTls)
            }
            Failure::RecipientsClosing(reply) => {
                say(format!("Giving up on {ip}.")).said(Some(&reply.text))
            }
            Failure::Data(reply) => at.refused(say(format!("{ip} failed on DATA command.")), reply),
            Failure::Content(reply) => {
                at.refused(say(format!("{ip} failed while I sent the message.")), reply)
            }
            Failure::Message(reply) => {
                at.refused(say(format!("{ip} failed after I sent the message.")), reply)
            }
            _ => say("Unable to read message. (#4.3.0)".to_owned()),
        }
    }
}

/// Whether a server wants TLS: 530 (RFC 3207, 4), 5.7.10 and 5.7.11 (IANA's
/// registry), 5.7.0 as Postfix has it, and 5.7.1 or another with the words.
fn asks_for_tls(reply: &Reply) -> bool {
    if reply.code < 500 {
        return false;
    }
    let mut lines = reply.text.split(|&byte| byte == b'\n');
    reply.code == 530 || lines.any(|line| line_asks_for_tls(line.get(4..).unwrap_or_default()))
}

fn line_asks_for_tls(line: &[u8]) -> bool {
    let (code, words) = match line.iter().position(u8::is_ascii_whitespace) {
        Some(at) => line.split_at(at),
        None => (line, &[][..]),
    };
    let words = words.to_ascii_lowercase();
    let says = |word: &[u8]| words.windows(word.len()).any(|some| some == word);
    match code {
        b"5.7.0" | b"5.7.10" | b"5.7.11" => true,
        _ if code.starts_with(b"5.7.") => says(b"tls") || says(b"encrypt"),
        _ => false,
    }
}

/// The end of a connection: with the warning of qmail-remote once the last dot may
/// have been read.
fn lost(at: &Circumstances<'_>, why: &DialogueError, warning: &str) -> String {
    let protocol = match at.server.protocol {
        Protocol::Qmtp => "QMTP",
        Protocol::Smtp => "SMTP",
    };
    match why {
        DialogueError::Injection(..)
        | DialogueError::Malformed(..)
        | DialogueError::TooLong(_)
        | DialogueError::Unasked(_) => {
            format!("it does not talk {protocol}. {warning}(#4.5.0)")
        }
        _ => format!("connection died. {warning}(#4.4.2)"),
    }
}

/// A session that came to nothing, with the answers that some recipients had.
pub struct EndedSession {
    /// Of what.
    pub failure: Failure,
    /// The answers.
    pub recipients: Vec<Say>,
}

impl From<Failure> for EndedSession {
    fn from(failure: Failure) -> Self {
        EndedSession {
            failure,
            recipients: Vec::new(),
        }
    }
}

impl EndedSession {
    /// The report, if it stands.
    #[must_use]
    pub fn report(self, at: &Circumstances<'_>) -> Report {
        Report {
            message: self.failure.say(at),
            recipients: self.recipients,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
