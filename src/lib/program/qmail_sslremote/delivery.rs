//! The delivery: one server after the other, and which failure is told at last.
#![forbid(unsafe_code)]

use std::net::TcpStream;
use std::time::Duration;

use openssl::ssl::SslRef;

use super::control_files::ControlFiles;
use super::envelope::{self, Envelope};
use super::failure::{Circumstances, EndedSession, Failure, NextStep, NoTls, Obstacle, Stage};
use super::message::Message;
use super::plan::{Plan, Server};
use super::qmtp;
use super::report_text::{Disposition, Report, Say};
use super::reporting::Reporting;
use super::session;
use crate::dane;
use crate::handshake::{self, HandshakeFailure, Session, Side};
use crate::routes::{Origin, Protocol};
use crate::settings::Version;
use crate::tlsdestinations::Check;
use crate::trust;

/// What is sent, and what holds for every server.
pub struct Delivery<'a> {
    /// Our name and our patience.
    pub control: &'a ControlFiles,
    /// From which address, under which name.
    pub origin: &'a Origin,
    /// From whom to whom, quoted for SMTP.
    pub envelope: Envelope<'a>,
    /// The same as it is.
    pub bare: Envelope<'a>,
    /// domaincerts has a certificate for the sender.
    pub has_key: bool,
    /// Where sessions are kept for TLS reports.
    pub reporting: Reporting,
}

/// The failure that is told of a server, unless another one takes the mail.
struct ToldFailure {
    stage: Stage,
    report: Report,
}

impl ToldFailure {
    /// Of two failures of one server the later one counts, unless it came less far.
    fn or(self, earlier: Option<ToldFailure>) -> ToldFailure {
        match earlier {
            Some(earlier) if earlier.stage > self.stage => earlier,
            _ => self,
        }
    }
}

/// A session's protection.
pub struct Secured {
    /// As a report says it.
    pub words: String,
    /// What the certificate is by the domain's policy, where one counts.
    pub by_policy: Option<trust::Verdict>,
}

/// How a try at one server ended.
enum Outcome {
    /// The report stands, whatever it is.
    Done(Report),
    /// No other server is called; the report stands unless one of those whose TLS
    /// failed takes the mail without it.
    Last(Report),
    /// Another server may take it.
    Next(ToldFailure),
    /// Another server may take it, or this one without TLS.
    InPlain(ToldFailure, NoTls),
}

impl Delivery<'_> {
    /// Tries one server after the other, then those whose TLS failed once more
    /// without it, where that is allowed.
    pub fn run(&self, message: &mut Message, servers: &[Server]) -> Report {
        let mut told = Vec::new();
        let mut again = Vec::new();
        let mut standing = None;
        let is_last = |number: usize| !servers[number + 1..].iter().any(|one| one.plan.is_ok());
        for (number, server) in servers.iter().enumerate() {
            told.push(Some(
                match self.attempt(message, server, None, is_last(number)) {
                    Outcome::Done(report) => return report,
                    Outcome::Last(report) => {
                        standing = Some(report);
                        break;
                    }
                    Outcome::Next(one) => one,
                    Outcome::InPlain(one, why) => {
                        again.push((number, server, why));
                        one
                    }
                },
            ));
        }
        for (number, server, why) in again {
            match self.attempt(message, server, Some(&why), true) {
                Outcome::Done(report) => return report,
                Outcome::Last(report) => {
                    standing.get_or_insert(report);
                    break;
                }
                Outcome::Next(one) | Outcome::InPlain(one, _) => {
                    told[number] = Some(one.or(told[number].take()));
                }
            }
        }
        standing.unwrap_or_else(|| told_at_last(told.into_iter().flatten()))
    }

    /// One connection; with `failed`, one without TLS, for that reason. `is_last`: our
    /// certificate is of no use after it.
    fn attempt(
        &self,
        message: &mut Message,
        server: &Server,
        failed: Option<&NoTls>,
        is_last: bool,
    ) -> Outcome {
        let nowhere = Circumstances {
            server,
            demand: None,
            tls_failed: None,
            no_other: false,
        };
        let plan = match &server.plan {
            Ok(plan) => plan,
            Err(excluded) => {
                self.reporting.passed_over(server, excluded);
                return outcome(Failure::Excluded(excluded.clone()).into(), &nowhere);
            }
        };
        let mut session = match session::Session::connect(self, server, plan, failed, is_last) {
            Ok(session) => session,
            Err(failure) => return outcome(failure.into(), &nowhere),
        };
        let sent = self.stages(&mut session, message);
        session.talk.quit();
        let failure = sent.as_ref().err().map(|ended| &ended.failure);
        self.reporting.ended(&session, failure);
        match sent {
            Ok(report) => Outcome::Done(report),
            Err(ended) => outcome(ended, &session.circumstances()),
        }
    }

    /// Greeted, secured, authenticated, sent.
    fn stages(
        &self,
        session: &mut session::Session<'_>,
        message: &mut Message,
    ) -> Result<Report, EndedSession> {
        session.open()?;
        session.authenticate()?;
        match session.server.protocol {
            Protocol::Qmtp => qmtp::transmit(session, &self.bare, message),
            Protocol::Smtp => envelope::transmit(session, &self.envelope, message),
        }
    }

    /// The handshake and every check; what the report will say of it.
    ///
    /// # Errors
    /// One of them fails.
    pub fn secure(
        &self,
        socket: TcpStream,
        server: &Server,
        plan: &Plan,
    ) -> Result<(Session, Secured), NoTls> {
        let setup = |why: String| NoTls::new(Obstacle::Setup, why);
        let store = plan.store.as_ref();
        let store = store.ok_or_else(|| setup("TLS is never tried".to_owned()))?;
        let named = server.host.reference();
        let ssl = dane::connection(store, &named, plan.dane.as_ref(), plan.names.clone());
        let ssl = ssl.and_then(|mut ssl| {
            if let Some(sts) = &plan.sts {
                trust::expect_besides(&mut ssl, sts.expectation(), sts.names())?;
            }
            Ok(ssl)
        });
        let ssl = ssl.map_err(|error| {
            let why = crate::report::tls_reason(&error);
            setup(format!("TLS with it cannot be set up: {why}"))
        })?;
        let side = Side {
            kinds: &[],
            versions: (Version::Tls12, None),
        };
        let limit = self.control.connect.max(Duration::from_secs(1));
        let session =
            handshake::perform(ssl, socket, limit, side).map_err(|failure| match failure {
                HandshakeFailure::Certificate(refusal, _) => {
                    NoTls::new(Obstacle::Certificate(refusal.fault), plan.refused(&refusal))
                }
                other => NoTls::new(
                    Obstacle::Handshake,
                    format!("the handshake failed: {other}"),
                ),
            })?;
        let refused = |refusal: trust::Refusal| {
            NoTls::new(Obstacle::Certificate(refusal.fault), refusal.to_string())
        };
        let verdict = trust::verdict(session.ssl()).map_err(refused)?;
        let by_policy = trust::verdict_besides(session.ssl()).map_err(refused)?;
        let secured = Secured {
            words: words(session.ssl(), plan, &verdict, by_policy.as_ref()),
            by_policy,
        };
        Ok((session, secured))
    }
}

fn outcome(ended: EndedSession, at: &Circumstances<'_>) -> Outcome {
    let (_, then) = ended.failure.fate(at);
    let stage = ended.failure.stage();
    let no_tls = match &ended.failure {
        Failure::Tls(why) if then == NextStep::InPlain => Some(why.clone()),
        _ => None,
    };
    let report = ended.report(at);
    match (then, no_tls) {
        (NextStep::End, _) => Outcome::Done(report),
        (NextStep::Last, _) => Outcome::Last(report),
        (_, Some(why)) => Outcome::InPlain(ToldFailure { stage, report }, why),
        _ => Outcome::Next(ToldFailure { stage, report }),
    }
}

/// Of the failures of all servers the one that came farthest, the last of equal
/// ones. What will never work at one server counts only where it is so at all.
fn told_at_last(told: impl Iterator<Item = ToldFailure>) -> Report {
    let last = told.max_by_key(|one| {
        (
            one.report.message.disposition == Disposition::Later,
            one.stage,
        )
    });
    last.map_or_else(
        || Say::later("Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)").into(),
        |one| one.report,
    )
}

/// `TLSv1.3 TLS_AES_256_GCM_SHA384 verified mx.example`, and `sts` behind it where the
/// domain's policy asks for that.
fn words(
    ssl: &SslRef,
    plan: &Plan,
    verdict: &trust::Verdict,
    by_policy: Option<&trust::Verdict>,
) -> String {
    let cipher = ssl.current_cipher().map_or("", |cipher| cipher.name());
    let listed = plan.sts.as_ref().is_some_and(|sts| sts.listed);
    let verdict = match (verdict, by_policy) {
        (_, Some(verified @ trust::Verdict::Verified(_))) if listed => format!("{verified} sts"),
        (verdict, _) => verdict_words(plan, verdict),
    };
    format!("{} {cipher} {verdict}", ssl.version_str())
}

fn verdict_words(plan: &Plan, verdict: &trust::Verdict) -> String {
    match verdict {
        // Nothing was asked of it, so that its failures are none.
        trust::Verdict::Unverified(_) | trust::Verdict::Verified(_)
            if matches!(plan.rule.check(), Check::Nothing | Check::Certificate) =>
        {
            "unverified".to_owned()
        }
        trust::Verdict::Dane { .. } if plan.dane.as_ref().is_some_and(|dane| dane.from_dns) => {
            format!("{verdict} (name from DNS)")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::tests::{free, reply, server};
    use super::*;
    use crate::dialogue::client::DialogueError;

    fn told(stage: Stage, disposition: Disposition, words: &str) -> ToldFailure {
        ToldFailure {
            stage,
            report: Say::new(disposition, words).into(),
        }
    }

    /// The words of the failure that is told of several.
    fn told_of(failures: &[(Stage, Disposition, &str)]) -> String {
        let failures = failures.iter();
        let failures =
            failures.map(|(stage, disposition, words)| told(*stage, *disposition, words));
        told_at_last(failures).message.text
    }

    #[test]
    fn the_failure_of_the_session_that_came_farthest_is_told() {
        use Disposition::{Later, Never};

        assert_eq!(
            told_of(&[
                (Stage::Connected, Later, "a"),
                (Stage::Greeted, Later, "b"),
                (Stage::Planned, Later, "c"),
            ]),
            "b\n"
        );
        let equal = [(Stage::Greeted, Later, "a"), (Stage::Greeted, Later, "b")];
        assert_eq!(told_of(&equal), "b\n");
        // 5.6.7 counts only where it is so with all of them.
        let never = (Stage::Authenticated, Never, "never");
        let unreachable = (Stage::Planned, Later, "later");
        assert_eq!(told_of(&[never, unreachable]), "later\n");
        assert_eq!(told_of(&[never, never]), "never\n");
        let none = told_at_last(std::iter::empty()).message;
        assert_eq!(none.disposition, Later);
        assert!(none.text.contains("(#4.4.1)"), "{}", none.text);
    }

    /// Without TLS a server may fail earlier than it did with TLS, or later.
    #[test]
    fn of_two_sessions_with_a_server_the_one_that_came_farther_is_told() {
        for (earlier, later, wanted) in [
            (None, Stage::Planned, "later\n"),
            (Some(Stage::Greeted), Stage::Planned, "earlier\n"),
            (Some(Stage::Greeted), Stage::Greeted, "later\n"),
            (Some(Stage::Greeted), Stage::Secured, "later\n"),
        ] {
            let earlier = earlier.map(|stage| told(stage, Disposition::Later, "earlier"));
            let found = told(later, Disposition::Later, "later").or(earlier);
            assert_eq!(found.report.message.text, wanted);
        }
    }

    #[test]
    fn what_becomes_of_a_failure_is_what_the_table_says() {
        let smtp = server(Protocol::Smtp, 25);
        let at = free(&smtp);
        let of = |failure: Failure| outcome(failure.into(), &at);
        let ended = || DialogueError::Ended("here");
        assert!(matches!(
            of(Failure::LostAfterDot(ended())),
            Outcome::Done(report) if report.message.text.contains("Possible duplicate!")
        ));
        assert!(matches!(of(Failure::Lost(ended())), Outcome::Last(_)));
        assert!(matches!(
            of(Failure::Greeting(reply("450 busy"))),
            Outcome::Next(one) if one.stage == Stage::Connected
        ));
        let no_tls = || Failure::Tls(NoTls::new(Obstacle::GoAhead, "it said nothing"));
        assert!(matches!(
            of(no_tls()),
            Outcome::InPlain(one, why)
                if one.stage == Stage::Greeted && why.obstacle == Obstacle::GoAhead
        ));
        let required = Circumstances {
            demand: Some("line 1 requires TLS"),
            ..free(&smtp)
        };
        assert!(matches!(
            outcome(no_tls().into(), &required),
            Outcome::Next(one) if one.stage == Stage::Greeted
        ));
    }
}
