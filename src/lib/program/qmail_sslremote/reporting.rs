//! What TLS reports (RFC 8460) will say of a delivery's sessions: the word for each
//! cause, and a line for each session in the file of the day.
//!
//! Trouble with that file is nobody's but sslreport's, which meets it too: the mail
//! goes all the same, and its report says nothing of it.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;

use super::failure::{Excluded, Exclusion, Failure, NoTls, Obstacle, Stage};
use super::plan::Server;
use super::session::{Encryption, Session};
use super::sts::Followed;
use crate::calendar::{self, Day};
use crate::dane;
use crate::dns::name::DomainName;
use crate::mta_sts::PolicyFailureKind;
use crate::resolve;
use crate::routes::Protocol;
use crate::text;
use crate::tlsrpt::journal::{FOLDER, Journal};
use crate::tlsrpt::{self, AppliedPolicy, Place, PolicyType, ResultType};

/// How much of a reason is kept, in bytes.
const REASON_LIMIT: usize = 300;
/// How much of a policy's text is kept, in bytes: the whole of a policy of MTA-STS,
/// while a domain with TLSA records of any size must not fill the disk.
const POLICY_LIMIT: usize = 64 * 1024;

impl Obstacle {
    /// The word for it.
    pub fn result(self) -> ResultType {
        match self {
            Obstacle::NotOffered | Obstacle::Refused => ResultType::StarttlsNotSupported,
            Obstacle::Certificate(fault) => ResultType::of_certificate(fault),
            Obstacle::GoAhead | Obstacle::Setup | Obstacle::Handshake | Obstacle::Answer => {
                ResultType::ValidationFailure
            }
        }
    }
}

impl Exclusion {
    /// The word for it, where the domain's policy is what keeps the server from being
    /// called.
    pub fn result(self) -> Option<ResultType> {
        match self {
            Exclusion::Line => None,
            Exclusion::Lookup => Some(ResultType::DnssecInvalid),
            Exclusion::NoRecords => Some(ResultType::DaneRequired),
            Exclusion::Unusable => Some(ResultType::TlsaInvalid),
            Exclusion::Unlisted => Some(ResultType::ValidationFailure),
        }
    }
}

/// A policy as lines have it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PolicyLines {
    kind: PolicyType,
    text: Vec<String>,
    hosts: Vec<String>,
}

/// The policies that count for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The strongest.
    first: PolicyLines,
    /// That of MTA-STS below TLSA records none of which is of use, which leave the
    /// certificate to it.
    below: Option<PolicyLines>,
}

impl PolicyLines {
    fn nothing(kind: PolicyType) -> PolicyLines {
        PolicyLines {
            kind,
            text: Vec::new(),
            hosts: Vec::new(),
        }
    }

    fn sts(Followed { policy, .. }: &Followed) -> PolicyLines {
        PolicyLines {
            kind: PolicyType::Sts,
            text: bounded(&policy.lines),
            hosts: bounded(&policy.patterns),
        }
    }
}

impl Applied {
    /// From its TLSA records, where they are weighed or asked for, and the domain's
    /// policy, where that is followed.
    pub fn of(found: &dane::TlsaFound, asked: bool, followed: Option<&Followed>) -> Applied {
        let sts = followed.map(PolicyLines::sts);
        let first = match found {
            // Of use or not: that they are not is told.
            Ok(Some(tlsa)) => {
                return Applied {
                    first: PolicyLines {
                        text: bounded(&tlsa.texts),
                        ..PolicyLines::nothing(PolicyType::Tlsa)
                    },
                    below: sts,
                };
            }
            Ok(None) if !asked => sts,
            Ok(None) | Err(_) => Some(PolicyLines::nothing(PolicyType::Tlsa)),
        };
        Applied {
            first: first.unwrap_or_else(|| PolicyLines::nothing(PolicyType::NoPolicyFound)),
            below: None,
        }
    }

    /// The policy that made a certificate, or a host, count for nothing.
    fn of_certificate(&self) -> &PolicyLines {
        self.below.as_ref().unwrap_or(&self.first)
    }
}

/// As many lines as are kept.
fn bounded(lines: &[String]) -> Vec<String> {
    let mut room = POLICY_LIMIT;
    let fits = |line: &&String| {
        room = room.saturating_sub(line.len());
        room > 0
    };
    lines.iter().take_while(fits).cloned().collect()
}

/// Where a delivery's sessions are kept, if they are.
#[derive(Default)]
pub struct Reporting(Option<SessionFile>);

struct SessionFile {
    journal: Journal,
    domain: String,
    /// Hosts that were passed over.
    passed_over: RefCell<Vec<String>>,
}

impl Reporting {
    /// Opens the file of this day in qmail's home. Sessions are kept for a domain or
    /// a relay that can publish where it wants reports.
    pub fn open(next_hop: &str) -> Reporting {
        let is_address = resolve::address_literal(next_hop).is_some();
        let name = DomainName::parse(next_hop.as_bytes());
        let Some(name) = name.ok().filter(|name| !is_address && !name.is_root()) else {
            return Reporting(None);
        };
        let journal = Journal::open(Path::new(FOLDER), Day::of(calendar::now()));
        Reporting(journal.ok().map(|journal| SessionFile {
            journal,
            domain: name.to_string(),
            passed_over: RefCell::default(),
        }))
    }

    /// Whether a file grows.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A server that is not called, if it is for the domain's policy. A host with
    /// several addresses is one.
    pub fn passed_over(&self, server: &Server, excluded: &Excluded) {
        let Some(SessionFile { passed_over, .. }) = &self.0 else {
            return;
        };
        let host = &server.host.name;
        if passed_over.borrow().contains(host) {
            return;
        }
        if let Some(result) = excluded.reason.result() {
            passed_over.borrow_mut().push(host.clone());
            let text = excluded.say.text.lines().collect::<Vec<_>>().join(" ");
            let policy = match excluded.reason {
                Exclusion::Unlisted => server.applied.of_certificate(),
                Exclusion::Line
                | Exclusion::Lookup
                | Exclusion::NoRecords
                | Exclusion::Unusable => &server.applied.first,
            };
            self.keep(server, policy, None, Some((result, text)));
        }
    }

    /// A session that has ended, and what it failed of.
    pub fn ended(&self, session: &Session<'_>, failure: Option<&Failure>) {
        let server = session.server;
        if server.protocol == Protocol::Qmtp {
            return;
        }
        let Some(result) = result(session, failure) else {
            return;
        };
        let policy = match failure {
            Some(Failure::Tls(NoTls {
                obstacle: Obstacle::Certificate(_),
                ..
            })) => server.applied.of_certificate(),
            _ => &server.applied.first,
        };
        let from = session.local_ip();
        self.keep(server, policy, from, result);
        // Each of two policies has its own count in a report; what mode `testing` is for
        // is told, whatever stands above it.
        if let (Some(sts), None) = (&server.applied.below, failure) {
            if let Some(testing) = session.testing_failure() {
                self.keep(server, sts, from, Some(testing));
            }
        }
    }

    fn keep(
        &self,
        server: &Server,
        policy: &PolicyLines,
        from: Option<IpAddr>,
        result: Option<(ResultType, String)>,
    ) {
        let Some(SessionFile {
            journal, domain, ..
        }) = &self.0
        else {
            return;
        };
        let (result, reason) = result.unzip();
        let PolicyLines { kind, text, hosts } = policy.clone();
        let host = server.host.name.as_bytes();
        let session = tlsrpt::Session {
            time: calendar::at(calendar::now()),
            policy: AppliedPolicy {
                kind,
                text,
                domain: domain.clone(),
                hosts,
            },
            place: Place {
                sending_mta_ip: from.map(|ip| ip.to_canonical().to_string()),
                receiving_mx_hostname: text::excerpt(host, 255),
                receiving_ip: server.host.ip.to_string(),
                failure_reason_code: reason
                    .map(|reason| text::excerpt(reason.as_bytes(), REASON_LIMIT)),
            },
            result_type: result,
        };
        let _ = journal.append(&session);
    }
}

impl From<PolicyFailureKind> for ResultType {
    fn from(kind: PolicyFailureKind) -> ResultType {
        match kind {
            PolicyFailureKind::Fetch => ResultType::StsPolicyFetchError,
            PolicyFailureKind::Invalid => ResultType::StsPolicyInvalid,
            PolicyFailureKind::Certificate => ResultType::StsWebpkiInvalid,
        }
    }
}

/// What became of TLS, with the reason where it failed; `None` where the session did
/// not come to that, does without it by our choice, or follows one that is kept.
#[allow(clippy::option_option)] // whether it counts, and what it failed of
fn result(
    session: &Session<'_>,
    failure: Option<&Failure>,
) -> Option<Option<(ResultType, String)>> {
    let failed = |no_tls: &NoTls| Some(Some((no_tls.obstacle.result(), no_tls.why.clone())));
    match (failure, session.encryption()) {
        (Some(Failure::Tls(no_tls)), _) => failed(no_tls),
        (Some(failure), _) if failure.stage() < Stage::Secured => None,
        (_, Encryption::Unwanted | Encryption::GivenUp) => None,
        (_, Encryption::NotOffered) => failed(&NoTls::new(
            Obstacle::NotOffered,
            "it does not offer STARTTLS",
        )),
        (_, Encryption::Refused(no_tls)) => failed(no_tls),
        (_, Encryption::Tls) if session.ignores_records() => Some(Some((
            ResultType::TlsaInvalid,
            "no TLSA record is of use".to_owned(),
        ))),
        // Where there is DANE, a policy is not asked for.
        (_, Encryption::Tls) if session.server.applied.first.kind == PolicyType::Tlsa => Some(None),
        (_, Encryption::Tls) => Some(session.policy_trouble()),
    }
}
