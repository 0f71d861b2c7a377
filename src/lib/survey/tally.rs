//! The counts of a survey, by port.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};

use super::printable;
use crate::probe::result::{Certificate, Chain, HostResult, Severity, StartTls, Version};
use crate::probe::suites;

/// How many hosts have something.
pub type Counts<T> = BTreeMap<T, u64>;

/// All ports.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// Results that were read: one a host, port and address family.
    pub results: u64,
    /// By port; 0: it is not known which.
    #[serde(serialize_with = "by_name")]
    pub ports: BTreeMap<u16, Port>,
}

/// A port's name.
#[must_use]
pub fn port_name(number: u16) -> String {
    match number {
        0 => "unknown".to_owned(),
        number => number.to_string(),
    }
}

fn by_name<S: Serializer>(ports: &BTreeMap<u16, Port>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        ports
            .iter()
            .map(|(number, port)| (port_name(*number), port)),
    )
}

/// What the servers on one port speak. All but [`Keys`] counts results; a `host`
/// here is one of these.
#[derive(Debug, Default, Serialize)]
pub struct Port {
    /// Hosts that were probed.
    pub hosts: u64,
    /// Those that accept connections.
    pub listening: u64,
    /// Those with which TLS was reached.
    pub tls: u64,
    /// What became of STARTTLS: `offered`, `missing`, `refused`.
    pub starttls: Counts<&'static str>,
    /// Hosts that speak a version.
    pub versions: Counts<Version>,
    /// Hosts of which it is not known whether they speak a version.
    pub versions_unknown: Counts<Version>,
    /// Hosts that prefer a suite, by version.
    pub preferred: BTreeMap<Version, Counts<String>>,
    /// Hosts that take a key exchange below TLS 1.3: `ECDHE`, `DHE`, `RSA`.
    pub key_exchange: Counts<&'static str>,
    /// The smallest primes of DHE, in bits.
    pub dh_bits: Counts<u32>,
    /// The primes by name.
    pub dh_primes: Counts<String>,
    /// Hosts that take a group.
    pub groups: Counts<String>,
    /// Hosts that take a weak suite.
    pub weak: u64,
    /// Hosts with certificates, and what is to be said of these.
    pub certificates: Certificates,
    /// Certificates by key: `rsa 2048`.
    pub keys: Counts<String>,
    /// Certificates by signature.
    pub signatures: Counts<String>,
    /// Hosts that offer to log in before TLS.
    pub auth_before_tls: AuthBeforeTls,
    /// Hosts with a finding that is more than a note, by its word.
    pub findings: Counts<String>,
}

/// Hosts by their certificates. A host with two certificates counts where one of
/// them is so, but `verified` where all are.
#[derive(Debug, Default, Serialize)]
pub struct Certificates {
    /// Any at all.
    pub hosts: u64,
    /// All verify, and name the host.
    pub verified: u64,
    /// One does not verify.
    pub unverified: u64,
    /// One is its own issuer.
    pub self_signed: u64,
    /// One has expired.
    pub expired: u64,
    /// One does not name the host.
    pub misnamed: u64,
    /// One comes without its intermediate certificates.
    pub incomplete: u64,
}

/// Hosts that let a client send its password in the clear.
#[derive(Debug, Default, Serialize)]
pub struct AuthBeforeTls {
    /// TLS is to be had, too.
    pub with_starttls: u64,
    /// It is not.
    pub without_starttls: u64,
}

impl Tally {
    /// Counts one result.
    pub fn add(&mut self, result: &HostResult) {
        self.results += 1;
        self.ports.entry(result.port).or_default().add(result);
    }
}

/// What was counted, the most frequent first.
pub fn most_first<T: Ord>(counts: &Counts<T>) -> Vec<(&T, u64)> {
    let mut all: Vec<(&T, u64)> = counts
        .iter()
        .map(|(thing, count)| (thing, *count))
        .collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all
}

/// One more of a thing.
fn one_more<T: Ord>(counts: &mut Counts<T>, thing: T) {
    *counts.entry(thing).or_default() += 1;
}

impl Port {
    fn add(&mut self, result: &HostResult) {
        self.hosts += 1;
        self.listening += u64::from(result.listens);
        self.tls += u64::from(result.has_tls());
        let starttls = match result.starttls {
            Some(StartTls::Offered) => Some("offered"),
            Some(StartTls::Missing) => Some("missing"),
            Some(StartTls::Refused) => Some("refused"),
            Some(StartTls::NotApplicable) | None => None,
        };
        if let Some(word) = starttls {
            one_more(&mut self.starttls, word);
        }
        let auth = result.auth_before_tls.as_deref().unwrap_or_default();
        // Where TLS begins at once nothing is offered before it.
        if !auth.is_empty() && result.starttls != Some(StartTls::NotApplicable) {
            if result.has_tls() {
                self.auth_before_tls.with_starttls += 1;
            } else {
                self.auth_before_tls.without_starttls += 1;
            }
        }
        self.add_offers(result);
        self.add_certificates(result);
        let findings = result.findings.iter();
        for finding in findings.filter(|one| one.severity < Severity::Note) {
            one_more(&mut self.findings, printable(&finding.code));
        }
    }

    /// Versions, suites, groups and primes.
    fn add_offers(&mut self, result: &HostResult) {
        for version in Version::ALL {
            match result.knows(version) {
                Some(true) => one_more(&mut self.versions, version),
                None if result.has_tls() => one_more(&mut self.versions_unknown, version),
                Some(false) | None => {}
            }
        }
        for (version, suite) in result.preferred.iter().flatten() {
            let of_version = self.preferred.entry(*version).or_default();
            one_more(of_version, printable(suite));
        }
        let taken = result.suites.iter().flatten();
        let older = taken.filter(|(version, _)| **version < Version::Tls13);
        let names = older.flat_map(|(_, names)| names);
        let exchanges: BTreeSet<&str> = names.map(|name| key_exchange(name)).collect();
        for exchange in exchanges {
            one_more(&mut self.key_exchange, exchange);
        }
        if let Some(bits) = result.dh_bits {
            one_more(&mut self.dh_bits, bits);
        }
        if let Some(prime) = &result.dh_prime {
            one_more(&mut self.dh_primes, printable(prime));
        }
        let groups: BTreeSet<&String> = result.groups.iter().flatten().collect();
        for group in groups {
            one_more(&mut self.groups, printable(group));
        }
        let weak = result.weak.as_ref().is_some_and(|weak| !weak.is_empty());
        self.weak += u64::from(weak);
    }

    fn add_certificates(&mut self, result: &HostResult) {
        let all = &result.certificates;
        if all.is_empty() {
            return;
        }
        let any = |is: fn(&Certificate) -> bool| u64::from(all.iter().any(is));
        let sums = &mut self.certificates;
        sums.hosts += 1;
        sums.verified += u64::from(
            all.iter()
                .all(|one| one.verifies() && one.name_ok == Some(true)),
        );
        sums.unverified += any(Certificate::fails);
        sums.self_signed += any(|one| one.chain == Chain::SelfSigned);
        sums.misnamed += any(|one| one.name_ok == Some(false));
        sums.incomplete += any(|one| one.chain == Chain::Incomplete);
        sums.expired += u64::from(
            result.findings.iter().any(|one| one.code == "expired")
                || all.iter().any(|one| one.verify.contains("expired")),
        );
        for one in all {
            let bits = match one.bits {
                0 => "of unknown size".to_owned(),
                bits => bits.to_string(),
            };
            one_more(&mut self.keys, format!("{} {bits}", one.key));
            let signature = match &*one.signature {
                "" => "unknown".to_owned(),
                name => printable(name),
            };
            one_more(&mut self.signatures, signature);
        }
    }
}

/// The key exchange of a suite below TLS 1.3, by OpenSSL's name for it.
fn key_exchange(name: &str) -> &'static str {
    match suites::called(name) {
        Some(suite) if suite.is_anonymous() => "anonymous",
        Some(suite) if suite.has_finite_field() => "DHE",
        Some(suite) if suite.is_ephemeral() => "ECDHE",
        Some(_) => "RSA",
        None => "other",
    }
}
