//! The probe of one host and port: what it knows, how many handshakes it may
//! still make, and the steps that it goes through.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openssl::error::ErrorStack;

use crate::calendar;
use crate::dane::{self, AddressFrom, Dane, Lack};
use crate::dns::{Endpoint, NoAnswer, Tlsa};
use crate::mta_sts;
use crate::options::sslprobe::{Depth, Start};
use crate::probe::certificate::Verifier;
use crate::probe::findings::{self, Facts};
use crate::probe::partner::Hold;
use crate::probe::result::{HostResult, Version};
use crate::report::{self, Fail};
use crate::settings::Settings;
use crate::store::client::{self, Setup, Store, Trust};
use crate::store::pool::AnchorPool;
use crate::text;
use crate::tlsdestinations::{Destination, Port, Rule, Tls, TlsMode, Unusable, Way};
use crate::trust::{Name, Reference};

use super::turn::Turn;

mod agreement;
mod certificates;
mod connection;
mod first;
mod full;
mod groups;
mod hold;
mod injection;
mod notes;
mod raw;
mod reachable;
mod resumption;
mod session;
mod suites;
mod talk;
mod tolerance;
mod versions;

use notes::Seen;
use session::Resumables;

/// What DNS has of a host: where its TLSA records are, and what was found there.
#[derive(Clone, Debug)]
pub(super) struct HostRecords {
    /// Its place.
    pub(super) place: Endpoint,
    /// Its TLSA records; none, too, where its addresses are not signed.
    pub(super) tlsa: Result<Option<Tlsa>, NoAnswer>,
}

/// What a mail domain publishes by MTA-STS.
#[derive(Clone, Debug)]
pub(super) enum DomainPolicy {
    /// Nobody looked, or it is not to be had.
    Unknown,
    /// Nothing, or that it has no policy any more.
    Nothing,
    /// This.
    Policy(Rc<mta_sts::Policy>),
}

/// One host and port.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// As it was given, or as MX names it.
    pub(super) host: String,
    /// The same as SNI and certificates have it.
    pub(super) reference: Reference,
    /// Where it is called.
    pub(super) port: u16,
    /// How TLS is reached.
    pub(super) start: Start,
    /// The addresses, in the order in which they are tried; or why there are
    /// none.
    pub(super) addresses: Result<Vec<IpAddr>, Fail>,
    /// The mail domain under `-M`, and whether the MX answer was signed.
    pub(super) mx_of: Option<(String, bool)>,
    /// What DNS has of it; `None`: it was not asked.
    pub(super) published: Option<HostRecords>,
    /// The mail domain's policy.
    pub(super) policy: DomainPolicy,
    /// How long all that was asked for, which is a part of its time.
    pub(super) looked_up_in: Duration,
}

impl Target {
    /// How tlsdestinations knows it.
    pub(super) fn as_destination(&self) -> Destination<'_> {
        match &self.mx_of {
            Some((domain, signed)) => Destination {
                domain,
                way: Way::Exchanger {
                    host: &self.host,
                    signed: *signed,
                },
            },
            None => Destination::itself(&self.host),
        }
    }

    /// Whether a rule's port is the one that is probed, and TLS begins there as it does
    /// under the rule.
    fn is_at(&self, port: Port) -> bool {
        let at_once = port.mode != TlsMode::StartTls;
        port.number == self.port && at_once == (self.start == Start::AtOnce)
    }

    /// How its address is known.
    fn address_from(&self) -> AddressFrom {
        match &self.published {
            Some(published) if published.place.secure => AddressFrom::SignedDns,
            Some(_) => AddressFrom::Dns,
            None => AddressFrom::Given,
        }
    }

    /// What its TLSA records ask under a rule that wants these names.
    ///
    /// # Errors
    /// It would not be called.
    fn dane(&self, rule: &Rule, names: Vec<Name>) -> Result<Option<Dane>, Lack> {
        let published = self.published.as_ref().filter(|_| rule.weighs_records());
        let is_address = matches!(self.reference, Reference::Address(_));
        let found = match published {
            Some(published) => published.tlsa.clone(),
            None if rule.value.dane && !is_address => {
                return Err(Lack::Lookup("its address is not from DNS".to_owned()));
            }
            None => Ok(None),
        };
        let to = self.as_destination();
        dane::weighed(self.address_from(), rule, &to, names, &found)
    }

    /// What SNI says: the name of the host, if it has one.
    fn server_name(&self) -> Option<&str> {
        match &self.reference {
            Reference::Host(name) => name.server_name(),
            _ => None,
        }
    }

    /// The names of which its certificate should bear one.
    fn names(&self) -> Vec<Name> {
        let domain = self.mx_of.iter();
        let domain = domain.filter_map(|(domain, _)| Reference::parse(domain).ok());
        std::iter::once(self.reference.clone())
            .chain(domain)
            .map(Name::new)
            .collect()
    }
}

/// A rule of tlsdestinations that is for a target, made ready.
pub(super) struct TargetRule {
    rule: Rule,
    /// The names that it wants.
    names: Vec<Name>,
    /// Deliveries from this host follow domains' policies (MTA-STS).
    pub(super) follows_policies: bool,
    /// Where mail under it goes, if that is not what is probed.
    elsewhere: Option<Port>,
    /// What its TLSA records ask, where they count; why it would not be called.
    dane: Result<Option<Dane>, Lack>,
    /// Why there is none.
    store: Result<Store, Fail>,
}

impl TargetRule {
    /// With these anchors where the rule names none.
    pub(super) fn new(rule: Rule, target: &Target, anchors: &AnchorPool) -> TargetRule {
        let settings = Settings::default().with_ciphers(rule.value.ciphers.as_ref());
        let names = client::names(&rule, &target.as_destination());
        let dane = target.dane(&rule, names.clone());
        let mut setup = Setup::under(&rule, Trust::Pool(anchors));
        // RFC 7672, 8.2: what has no certificate matches no record.
        setup.anonymous &= !matches!(dane, Ok(Some(_)));
        TargetRule {
            store: Store::load(&settings, &setup, &super::NO_KEY),
            names,
            follows_policies: false,
            elsewhere: rule.value.port.filter(|port| !target.is_at(*port)),
            dane,
            rule,
        }
    }

    /// A line that decides and is wrong: mail under it waits.
    pub(super) fn unusable(line: &Unusable) -> TargetRule {
        TargetRule {
            rule: Rule {
                line: Some(line.line),
                key: text::printable(&line.key),
                ..Rule::none()
            },
            names: Vec::new(),
            follows_policies: false,
            elsewhere: None,
            dane: Ok(None),
            store: Err(line.wrong.to_string().into()),
        }
    }

    /// Whether mail goes with TLS or not at all.
    fn requires_tls(&self) -> bool {
        self.rule.tls() == Tls::Required || !matches!(self.dane, Ok(None))
    }
}

/// What is the same for all targets.
pub(super) struct Terms {
    /// How much is asked.
    pub(super) depth: Depth,
    /// What EHLO calls this host.
    pub(super) name: String,
    /// For one connection.
    pub(super) connection: Duration,
    /// For one host.
    pub(super) host: Duration,
    /// Between two connections to one address.
    pub(super) interval: Duration,
    /// The file of trust anchors, as a line of tlsdestinations names it.
    pub(super) anchor_file: Option<PathBuf>,
    /// Who verifies certificates.
    pub(super) judge: Verifier,
    /// For TLSA records.
    pub(super) records: Store,
    /// For policies of MTA-STS.
    pub(super) policies: Store,
}

/// Why a step ends before its time.
pub(super) enum Stop {
    /// No handshake is left.
    Budget,
    /// This connection came to nothing.
    Connection(String),
    /// The host is to be left alone.
    Host(String),
}

impl From<ErrorStack> for Stop {
    fn from(error: ErrorStack) -> Stop {
        Stop::Connection(report::tls_reason(&error))
    }
}

/// The most connections that may come to nothing before a ClientHello is sent.
const SPARE: u32 = 2;
/// As many failures in a row end the probe.
const FAILURES: u32 = 3;

/// How long a Certificate message may be that deliveries read, in bytes:
/// `SSL_MAX_CERT_LIST_DEFAULT` of ssl.h.
const DELIVERY_LIMIT: usize = 102_400;

/// A probe under way.
pub(super) struct Scan<'a> {
    target: &'a Target,
    terms: &'a Terms,
    rule: Option<&'a TargetRule>,
    turn: &'a mut Turn,
    address: IpAddr,
    begin: Instant,
    deadline: Instant,
    /// When its last connection ended.
    closed: Option<Instant>,
    failures: u32,
    result: HostResult,
    facts: Facts,
    seen: Seen,
    kept: Resumables,
}

type Step = fn(&mut Scan<'_>) -> Result<(), Stop>;

/// The steps of the usual depth, those first that matter most.
const USUAL: &[Step] = &[
    versions::run,
    agreement::rule,
    certificates::run,
    agreement::run,
    hold::run,
    suites::run,
    groups::run,
    tolerance::run,
    injection::run,
    resumption::run,
    reachable::run,
];

/// Those of the quick one.
const QUICK: &[Step] = &[
    versions::run,
    agreement::rule,
    certificates::run,
    agreement::run,
    resumption::run,
    hold::run,
    reachable::run,
];

/// Those of the full one.
const FULL: &[Step] = &[
    versions::run,
    agreement::rule,
    certificates::run,
    agreement::run,
    injection::run,
    resumption::run,
    tolerance::run,
    full::run,
    hold::run,
    reachable::run,
];

/// Probes a target, with what was learnt besides the result.
pub(super) fn run(
    target: &Target,
    terms: &Terms,
    rule: Option<&TargetRule>,
    turn: &mut Turn,
) -> (HostResult, Facts) {
    let mut failed = String::new();
    let addresses = match &target.addresses {
        Ok(addresses) => addresses.as_slice(),
        Err(why) => {
            failed = why.to_string();
            &[]
        }
    };
    let mut connections = 0;
    for (at, address) in addresses.iter().enumerate() {
        turn.begin(*address);
        let mut scan = Scan::new(target, terms, rule, turn, *address);
        let (result, facts) = scan.whole();
        connections += result.connections;
        if result.listens || at + 1 == addresses.len() {
            return (
                HostResult {
                    connections,
                    ..result
                },
                facts,
            );
        }
    }
    let facts = time_facts();
    let mut result = empty_result(target);
    result.error = Some(failed);
    result.findings = findings::of(&result, &facts);
    (result, facts)
}

/// A result that says nothing yet.
fn empty_result(target: &Target) -> HostResult {
    HostResult {
        host: target.host.clone(),
        port: target.port,
        protocol: target.start.name().to_owned(),
        mx_of: target.mx_of.as_ref().map(|(domain, _)| domain.clone()),
        ..HostResult::default()
    }
}

/// Facts with the time in them.
fn time_facts() -> Facts {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(0);
    Facts {
        now: calendar::at(now),
        soon: calendar::at(now + 14 * 86400),
        ..Facts::default()
    }
}

impl<'a> Scan<'a> {
    fn new(
        target: &'a Target,
        terms: &'a Terms,
        rule: Option<&'a TargetRule>,
        turn: &'a mut Turn,
        address: IpAddr,
    ) -> Scan<'a> {
        let begin = Instant::now();
        let mut result = empty_result(target);
        result.address = Some(address.to_string());
        Scan {
            target,
            terms,
            rule,
            turn,
            address,
            begin,
            deadline: begin + terms.host.saturating_sub(target.looked_up_in),
            closed: None,
            failures: 0,
            result,
            facts: time_facts(),
            seen: Seen::default(),
            kept: Resumables::default(),
        }
    }

    /// All steps, and what they come to.
    fn whole(&mut self) -> (HostResult, Facts) {
        let steps = match self.terms.depth {
            Depth::Full => FULL,
            Depth::Quick => QUICK,
            Depth::Usual => USUAL,
        };
        if self.step(first::run) {
            // A step that comes to nothing keeps the next from nothing.
            let _ = steps.iter().all(|step| self.step(*step));
        }
        self.write_down();
        let unfinished = self.seen.sessions.is_empty();
        if let Some(why) = self.facts.handshake.as_ref().filter(|_| unfinished) {
            self.result.error = Some(why.clone());
            self.facts.unfinished = self.result.has_tls();
        }
        if let Some(why) = self.of_no_use() {
            self.facts.hold = Some(Hold::Not(why));
        }
        if let (Some(rule), None) = (self.rule, &self.facts.policy) {
            self.facts.policy = Some(agreement::without_handshake(self, rule));
        }
        if self.result.listens && !self.result.has_tls() {
            agreement::policy_without_tls(self);
        }
        agreement::weigh_policy(self);
        self.result.seconds = (self.begin.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.result.findings = findings::of(&self.result, &self.facts);
        (
            std::mem::take(&mut self.result),
            std::mem::take(&mut self.facts),
        )
    }

    /// Why no mail gets through it with TLS, whatever line there is.
    fn of_no_use(&self) -> Option<String> {
        let facts = &self.facts;
        if let Some(how) = &facts.inside {
            return Some(format!("inside TLS: {how}"));
        }
        if let Some(how) = &facts.intolerant {
            return Some(format!(
                "a client that offers TLSv1.3 is not answered: {how}"
            ));
        }
        let size = |chain: &Vec<Vec<u8>>| chain.iter().map(|one| one.len() + 5).sum::<usize>();
        let longest = self.seen.chains.iter().map(size).max();
        if longest.is_some_and(|longest| longest > DELIVERY_LIMIT) {
            return Some(format!(
                "its certificates are longer than the {DELIVERY_LIMIT} bytes that a delivery reads"
            ));
        }
        facts.handshake.clone().filter(|_| facts.unfinished)
    }

    /// One step; whether there is to be another.
    fn step(&mut self, step: Step) -> bool {
        match step(self) {
            Ok(()) | Err(Stop::Budget) => true,
            Err(Stop::Connection(why)) => {
                if !self.result.has_tls() && self.seen.versions.is_empty() {
                    self.result.error.get_or_insert(why);
                    return false;
                }
                true
            }
            Err(Stop::Host(why)) => {
                self.result.error = Some(why);
                false
            }
        }
    }

    /// How many handshakes may still be made.
    fn left(&self) -> u32 {
        let most = self.terms.depth.handshakes();
        most.saturating_sub(self.result.handshakes)
    }

    /// Whether the server speaks a version, as far as is known.
    fn speaks(&self, version: Version) -> bool {
        self.seen.versions.get(&version) == Some(&true)
    }

    /// The highest version below TLS 1.3 that the server speaks.
    fn highest_old(&self) -> Option<Version> {
        let old = Version::ALL.into_iter().rev().skip(1);
        old.into_iter().find(|version| self.speaks(*version))
    }
}
