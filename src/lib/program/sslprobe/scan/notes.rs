//! What was seen so far, however it was seen, and what it comes to in the result.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::Scan;
use crate::hello::group_name;
use crate::probe::result::{Certificate, Version};
use crate::probe::wire::message::{KeyExchange, bits};
use crate::probe::wire::reader::Flight;
use crate::probe::{primes, suites};

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Versions that were asked for.
    pub(super) versions: BTreeMap<Version, bool>,
    /// The suite that was chosen of all.
    pub(super) preferred: BTreeMap<Version, u16>,
    /// Suites that were taken, in the order in which they were found.
    pub(super) suites: BTreeMap<Version, Vec<u16>>,
    /// The versions of which all suites are known.
    pub(super) whole: BTreeSet<Version>,
    /// The versions in which a session was completed.
    pub(super) sessions: BTreeSet<Version>,
    /// Groups that were taken, in the order in which they were found.
    pub(super) groups: Vec<String>,
    /// Primes that were used, with their bits.
    pub(super) primes: Vec<(u32, Vec<u8>)>,
    /// Weak suites were asked for.
    pub(super) weak_asked: bool,
    /// Lists of certificates that were shown.
    pub(super) chains: Vec<Vec<Vec<u8>>>,
}

impl Seen {
    /// A suite that the server took.
    pub(super) fn suite(&mut self, version: Version, number: u16) {
        let list = self.suites.entry(version).or_default();
        if !list.contains(&number) {
            list.push(number);
        }
    }

    /// A group that the server took.
    pub(super) fn group(&mut self, name: String) {
        if !self.groups.contains(&name) {
            self.groups.push(name);
        }
    }

    /// Whether the server took a suite.
    pub(super) fn took(&self, version: Version, number: u16) -> bool {
        self.suites
            .get(&version)
            .is_some_and(|all| all.contains(&number))
    }
}

impl Scan<'_> {
    /// Keeps what a first flight shows; `by_name`: to who called the server by its name.
    pub(super) fn note(&mut self, flight: &Flight, by_name: bool) {
        let Some(version) = Version::from_number(flight.hello.version) else {
            return;
        };
        self.seen.versions.insert(version, true);
        self.seen.suite(version, flight.hello.suite);
        if let Some(group) = flight.hello.group {
            self.seen.group(group_name(group));
        }
        match &flight.exchange {
            Some(KeyExchange::Curve(curve)) => self.seen.group(group_name(*curve)),
            Some(KeyExchange::FiniteField(prime)) => {
                self.seen.primes.push((bits(prime), prime.clone()));
            }
            _ => {}
        }
        self.facts.wants_certificate |= flight.wants_certificate;
        if version < Version::Tls13 {
            let known = self.facts.secure_renegotiation.unwrap_or_default();
            let secure = known || flight.hello.renegotiates_securely();
            self.facts.secure_renegotiation = Some(secure);
        }
        if version == Version::Tls12 {
            let known = self.facts.extended_master_secret.unwrap_or_default();
            let extended = known || flight.hello.extends_master_secret();
            self.facts.extended_master_secret = Some(extended);
        }
        if let Some(fault) = &flight.fault {
            // It knows more of it than libssl, which says only that it failed.
            self.facts.handshake = Some(fault.to_string());
        }
        if !flight.certificates.is_empty() {
            self.note_chain(&flight.certificates, by_name);
        }
    }

    /// Keeps the certificates of a kind of key that was not seen before, and what is
    /// shown in their place to who called the server by its name.
    pub(super) fn note_chain(&mut self, chain: &[Vec<u8>], by_name: bool) {
        if self.seen.chains.iter().any(|known| known == chain) {
            return;
        }
        self.seen.chains.push(chain.to_vec());
        match self.terms.judge.certificate(chain, &self.target.names()) {
            Ok(one) => {
                let mut known = self.result.certificates.iter();
                let same = |own: &&Certificate| own.key == one.key;
                match known.find(same) {
                    None => self.result.certificates.push(one),
                    // With another chain, it is still the same.
                    Some(own) if own.sha256 == one.sha256 => {}
                    Some(_) if !by_name => {}
                    Some(_) => {
                        let others = &mut self.facts.others;
                        if !others.iter().any(|other| other.sha256 == one.sha256) {
                            others.push(one);
                        }
                    }
                }
            }
            Err(why) => {
                self.facts.unreadable.get_or_insert(why.to_string());
            }
        }
    }

    /// Puts all that was seen into the result.
    pub(super) fn write_down(&mut self) {
        let seen = &mut self.seen;
        if !seen.versions.values().any(|spoken| *spoken) {
            return;
        }
        let versions = Version::ALL.map(|one| (one, seen.versions.get(&one).copied()));
        let named = |all: &[u16]| all.iter().map(|one| suites::name(*one)).collect::<Vec<_>>();
        self.result.versions = Some(BTreeMap::from(versions));
        self.result.preferred = Some(
            seen.preferred
                .iter()
                .map(|(version, number)| (*version, suites::name(*number)))
                .collect(),
        );
        let weak =
            |number: &u16| suites::known(*number).is_some_and(|one| one.weakness().is_some());
        let mut weak: Vec<u16> = seen
            .suites
            .values()
            .flatten()
            .copied()
            .filter(weak)
            .collect();
        weak.sort_unstable_by_key(|number| {
            (
                suites::known(*number).and_then(suites::Suite::weakness),
                *number,
            )
        });
        weak.dedup();
        self.result.weak = (seen.weak_asked || !weak.is_empty()).then(|| named(&weak));
        self.result.suites = Some(
            seen.suites
                .iter()
                .map(|(version, all)| (*version, named(all)))
                .collect(),
        );
        self.result.groups = Some(std::mem::take(&mut seen.groups));
        if let Some((bits, prime)) = seen.primes.iter().min() {
            self.result.dh_bits = Some(*bits);
            self.result.dh_prime = Some(primes::name(prime).to_owned());
        }
        self.result.certificates.sort_by_key(|one| one.key);
    }
}
