//! Mail exchangers and addresses, asked of a DNS server directly: /etc/hosts and
//! search lists are no business of mail's.
//!
//! Answers are checked here with DNSSEC, whatever the server says of them. An
//! answer is secure where signatures lead from the root's keys to it, insecure
//! where they show that its zone is not signed, and else bogus, which is trouble.
//!
//! Where the server cannot show the root's keys with a good signature, nothing
//! can be told, and every answer counts as insecure: servers and forwarders that
//! know no DNSSEC are common, and mail must get through. Who controls the path to
//! the server can thus take the signatures of all answers away, and lead mail
//! astray as if there were no DNSSEC; but nobody can make an answer secure, and
//! what builds on secure answers has to ask for them.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinDecodable as _;

mod expansion;
mod questions;
mod trust;

use super::name::DomainName;
use questions::Questions;
pub use trust::Trust;

/// How long one question waits for its answer, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 3;
/// How long the root's keys may take; all that it takes to check one answer, which
/// is more than one question that stays open; and all checks together.
const ROOT_LIMIT: Duration = Duration::from_secs(10);
const CHECK_LIMIT: Duration = Duration::from_secs(25);
const ALL_CHECKS_LIMIT: Duration = Duration::from_secs(60);
/// The most rounds of NSEC3's hash; of more a proof is none. RFC 9276, 3.2, allows
/// fewer, but then hickory-net 0.26.3 takes unsigned zones below for bogus.
const MOST_ROUNDS: u16 = 500;
/// The most CNAMEs and DNAMEs in a row.
const MOST_ALIASES: usize = 10;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The name exists and has no such record.
    NoRecords,
    /// The name does not exist.
    NoSuchName,
    /// Nobody could tell, or what was told is bogus.
    Temporary(String),
}

/// Records, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub records: Vec<T>,
    /// Signatures prove the records, and each alias on the way to them. `false`
    /// where their zone is not signed, or where nothing can be told.
    pub secure: bool,
}

/// A resolver.
pub struct Dns {
    runtime: tokio::runtime::Runtime,
    questions: Questions,
    checked: DnssecDnsHandle<Questions>,
    trust: Trust,
    root_is_signed: OnceCell<bool>,
    time_left: Cell<Duration>,
}

/// Where one answer leads.
enum Step {
    Records(Vec<RData>),
    Alias(Name),
}

impl Dns {
    /// Asks `server`, as `$DNSCACHEIP` names it, else those of resolv.conf.
    ///
    /// # Errors
    /// There is no server to ask.
    pub fn new(server: Option<IpAddr>, trust: Trust) -> Result<Dns, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let questions =
            Questions::new(server, TIMEOUT, ATTEMPTS).map_err(|error| error.to_string())?;
        let checked = DnssecDnsHandle::with_trust_anchor(questions.clone(), trust.anchors())
            .nsec3_iteration_limits(Some(MOST_ROUNDS), Some(MOST_ROUNDS));
        Ok(Dns {
            runtime,
            questions,
            checked,
            trust,
            root_is_signed: OnceCell::new(),
            time_left: Cell::new(ALL_CHECKS_LIMIT),
        })
    }

    /// Whether the server shows the root's keys, signed as the anchors want it.
    fn root_is_signed(&self) -> bool {
        *self.root_is_signed.get_or_init(|| {
            let query = Query::query(Name::root(), RecordType::DNSKEY);
            let found = self.check(query, ROOT_LIMIT);
            // Keys that are anchors are secure of themselves; what counts is that
            // this server passes signatures on.
            found.is_ok_and(|(message, _)| {
                let signatures = of_type(&message, RecordType::RRSIG);
                signatures.iter().any(|one| one.proof == Proof::Secure)
            })
        })
    }

    /// An answer whose records have their proofs, and the proof that there is no
    /// other where that is what it says.
    fn check(&self, query: Query, limit: Duration) -> Result<(Message, Proof), String> {
        let options = questions::options();
        let start = Instant::now();
        let limit = limit.min(self.time_left.get());
        let found = self.runtime.block_on(async {
            let asked = self.checked.lookup(query, options).first_answer();
            tokio::time::timeout(limit, asked).await
        });
        let left = self.time_left.get().saturating_sub(start.elapsed());
        self.time_left.set(left);
        match found {
            Ok(Ok(response)) => Ok((response.into_message(), Proof::Secure)),
            Ok(Err(NetError::Dns(DnsError::Nsec {
                response, proof, ..
            }))) => Ok((response.into_message(), proof)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it took too long".to_owned()),
        }
    }

    /// One answer and whether it is secure.
    fn step(&self, name: &Name, kind: RecordType) -> Result<(Step, bool), Trouble> {
        let query = Query::query(name.clone(), kind);
        // First without a check, which has to be for nothing where nobody answers.
        let asked = self.runtime.block_on(self.questions.put(query.clone()));
        let unchecked = asked.map_err(|error| Trouble::Temporary(error.to_string()))?;
        if self.trust.excepts(name) || !self.root_is_signed() {
            return Ok((read(&unchecked, name, kind)?, false));
        }
        let bogus = |why: &str| {
            let what = format!("DNSSEC validation of {name} {kind} failed");
            Trouble::Temporary(match self.questions.failure() {
                Some(failed) => format!("{what}: {why} ({failed})"),
                None => format!("{what}: {why}"),
            })
        };
        self.questions.forget_failure();
        let (message, denial) = self.check(query, CHECK_LIMIT).map_err(|why| bogus(&why))?;
        if let Some(target) = redirected(&message, name) {
            return Ok((Step::Alias(target), true));
        }
        let used = match of_type(&message, kind) {
            some if !some.is_empty() => some,
            _ => of_type(&message, RecordType::CNAME),
        };
        // What comes beside records concerns an alias's target, or a wildcard. The
        // validator's word on that is not taken: hickory-net 0.26.3 finds fault
        // with wildcards right above a name.
        let (proof, missing) = match worst(&used) {
            None => (denial, "nothing proves that there is no such record"),
            Some(Proof::Secure) if !expansion::holds(&message, name) => {
                (Proof::Bogus, "nothing proves that the wildcard holds")
            }
            Some(proof) => (proof, "no good signature leads from the root to it"),
        };
        match proof {
            Proof::Secure | Proof::Insecure => {
                Ok((read(&message, name, kind)?, proof == Proof::Secure))
            }
            Proof::Bogus | Proof::Indeterminate => Err(bogus(missing)),
        }
    }

    fn ask<T>(
        &self,
        name: &DomainName,
        kind: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, Trouble> {
        let mut name = Name::from_labels(name.labels())
            .map_err(|error| Trouble::Temporary(error.to_string()))?;
        name.set_fqdn(true);
        let mut secure = true;
        for _ in 0..=MOST_ALIASES {
            if let Some(known) = special(&name, kind) {
                let records: Vec<T> = known?.iter().filter_map(&take).collect();
                let secure = false;
                return Ok(Answer { records, secure });
            }
            let (step, this) = self.step(&name, kind)?;
            secure &= this;
            match step {
                Step::Records(found) => {
                    let records: Vec<T> = found.iter().filter_map(&take).collect();
                    if records.is_empty() {
                        return Err(Trouble::NoRecords);
                    }
                    return Ok(Answer { records, secure });
                }
                Step::Alias(target) => name = target,
            }
        }
        Err(Trouble::Temporary(format!("too many aliases, at {name}")))
    }

    /// The mail exchangers of a domain, with their preferences; the name of a
    /// null MX (RFC 7505) is the root.
    ///
    /// # Errors
    /// There are none, or nobody could tell.
    pub fn exchangers(&self, domain: &DomainName) -> Result<Answer<(u16, DomainName)>, Trouble> {
        self.ask(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => Some((mx.preference, named(&mx.exchange)?)),
            _ => None,
        })
    }

    /// The addresses of a host, IPv6 first.
    ///
    /// # Errors
    /// It has none, or nobody could tell.
    pub fn addresses(&self, host: &DomainName) -> Result<Answer<IpAddr>, Trouble> {
        let six = self.ask(host, RecordType::AAAA, |data| match data {
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        });
        let four = self.ask(host, RecordType::A, |data| match data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            _ => None,
        });
        match (six, four) {
            (Ok(mut six), Ok(four)) => {
                six.records.extend(four.records);
                six.secure &= four.secure;
                Ok(six)
            }
            (Ok(some), _) | (_, Ok(some)) => Ok(some),
            // One that could not be told may be there.
            (Err(Trouble::Temporary(why)), _) | (_, Err(Trouble::Temporary(why))) => {
                Err(Trouble::Temporary(why))
            }
            (_, Err(trouble)) => Err(trouble),
        }
    }
}

fn named(name: &Name) -> Option<DomainName> {
    let labels = name.iter().map(|label| {
        let length = u8::try_from(label.len()).ok()?;
        Some([&[length], label].concat())
    });
    let mut wire = labels.collect::<Option<Vec<_>>>()?.concat();
    wire.push(0);
    DomainName::from_wire(&wire)
}

/// What no server is asked about: RFC 6761 and 7686.
fn special(name: &Name, kind: RecordType) -> Option<Result<Vec<RData>, Trouble>> {
    let last = name.iter().next_back()?;
    if last.eq_ignore_ascii_case(b"localhost") {
        return Some(match kind {
            RecordType::A => Ok(vec![RData::A(Ipv4Addr::LOCALHOST.into())]),
            RecordType::AAAA => Ok(vec![RData::AAAA(Ipv6Addr::LOCALHOST.into())]),
            _ => Err(Trouble::NoRecords),
        });
    }
    let never = [&b"invalid"[..], b"onion"];
    let never = never.iter().any(|word| last.eq_ignore_ascii_case(word));
    never.then_some(Err(Trouble::NoSuchName))
}

/// The answer's records of a type. [`Questions`] left none of another name.
fn of_type(message: &Message, kind: RecordType) -> Vec<&Record> {
    let records = message.answers.iter();
    records.filter(|one| one.record_type() == kind).collect()
}

/// The least of the proofs; `None` where there are no records.
fn worst(records: &[&Record]) -> Option<Proof> {
    // The order of their numbers has Insecure above Bogus, as it should be.
    records.iter().map(|record| record.proof).min()
}

/// What an answer says, its proofs aside.
fn read(message: &Message, name: &Name, kind: RecordType) -> Result<Step, Trouble> {
    let found = of_type(message, kind);
    if !found.is_empty() {
        let data = found.into_iter().map(|record| record.data.clone());
        return Ok(Step::Records(data.collect()));
    }
    for record in &message.answers {
        if let RData::CNAME(target) = &record.data
            && record.name == *name
        {
            return Ok(Step::Alias(target.0.clone()));
        }
    }
    match message.metadata.response_code {
        ResponseCode::NXDomain => Err(Trouble::NoSuchName),
        ResponseCode::NoError => Err(Trouble::NoRecords),
        other => Err(Trouble::Temporary(other.to_string())),
    }
}

/// Where a secure DNAME leads a name: the CNAME that says so has no signature.
fn redirected(message: &Message, name: &Name) -> Option<Name> {
    let found = of_type(message, RecordType::DNAME);
    let record = found
        .iter()
        .find(|record| record.proof == Proof::Secure && record.name != *name)?;
    let RData::Unknown { rdata, .. } = &record.data else {
        return None;
    };
    let target = Name::from_bytes(&rdata.anything).ok()?;
    let kept = usize::from(name.num_labels()).checked_sub(record.name.num_labels().into())?;
    let labels = Name::from_labels(name.iter().take(kept)).ok()?;
    labels.append_domain(&target).ok()
}
