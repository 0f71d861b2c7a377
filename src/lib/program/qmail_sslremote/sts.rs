//! MTA-STS (RFC 8461) of a delivery: which domain's policy counts, whether the one
//! that is remembered will do or a new one must be fetched, and what it asks of a
//! host.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::hosts::{Host, Resolver};
use super::report_text::Say;
use crate::dns::name::DomainName;
use crate::dns::{NoAnswer, Texts};
use crate::https;
use crate::mta_sts::cache::{self, Cache, CacheEntry, FOLDER, Remembered, Standing};
use crate::mta_sts::fetch::{Fetched, Fetching};
use crate::mta_sts::policy::Mode;
use crate::mta_sts::{Policy, PolicyDomain, PolicyFailure, PolicyFailureKind, record};
use crate::report::Fail;
use crate::resolve;
use crate::routes::{Protocol, Route};
use crate::trust::{Demand, Expectation, Name, Reference, Tolerated};

/// How long all of it may take, from the first question on.
const ALL_LIMIT: Duration = Duration::from_secs(42);

/// What is known of a domain's policy.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The policy that is in force, and how many seconds ago it was fetched, as far
    /// as the clock can tell.
    pub policy: Option<(Rc<Policy>, Option<u64>)>,
    /// Why there is none, or no new one.
    pub trouble: Option<Rc<PolicyFailure>>,
    /// What an administrator should know besides: words that end a sentence.
    pub remark: Option<String>,
    /// What is wrong with the domain's record, which is none for that.
    pub wrong_record: Option<String>,
}

/// Why no policy is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSearch {
    /// There is no directory of policies.
    NoFolder,
    /// No domain of that name can have one: an address, or bytes that no web server's
    /// name has.
    NoDomain,
    /// Mail by QMTP has none.
    Qmtp,
}

/// Words that end a sentence.
impl fmt::Display for NoSearch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NoSearch::NoFolder => "there is no directory mta-sts",
            NoSearch::NoDomain => "what is called is not a name that can have one",
            NoSearch::Qmtp => "the route leads to QMTP",
        })
    }
}

/// The way to a domain's policy.
pub struct Search {
    /// Where it is remembered, and whose it is.
    place: Result<(Cache, PolicyDomain), NoSearch>,
    begin: Instant,
    known: OnceCell<Known>,
}

/// A policy where it counts for a host, in mode `enforce` or `testing`.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Whose it is.
    pub domain: PolicyDomain,
    /// What it says.
    pub policy: Rc<Policy>,
    /// Whether one of its patterns matches the host.
    pub listed: bool,
    host: Reference,
}

impl Search {
    /// For mail to a destination (RFC 8461, 3.4: by a route the relay counts).
    pub fn of(destination: &[u8], route: &Route) -> Search {
        let next_hop = route
            .relay
            .as_ref()
            .map_or(destination, |one| one.as_bytes());
        let place = || {
            let cache = Cache::open(Path::new(FOLDER)).ok_or(NoSearch::NoFolder)?;
            if route.protocol != Protocol::Smtp {
                return Err(NoSearch::Qmtp);
            }
            let domain = policy_domain(next_hop).ok_or(NoSearch::NoDomain)?;
            Ok((cache, domain))
        };
        Search {
            place: place(),
            begin: Instant::now(),
            known: OnceCell::new(),
        }
    }

    /// Whose policy is looked for.
    ///
    /// # Errors
    /// Why nobody's is.
    pub fn domain(&self) -> Result<&PolicyDomain, NoSearch> {
        let place = self.place.as_ref();
        place.map(|(_, domain)| domain).map_err(|off| *off)
    }

    /// Has the domain's record asked for along with what DNS is asked next.
    ///
    /// # Errors
    /// What control files say of the resolver cannot be followed.
    pub fn ask(&self, resolver: &Resolver) -> Result<(), Say> {
        let Ok((cache, domain)) = &self.place else {
            return Ok(());
        };
        if let (None, Some(name)) = (&cache.unwritable, name(&domain.record_name())) {
            resolver.dns()?.texts_along(&name);
        }
        Ok(())
    }

    /// The policy, from where it is to be had.
    ///
    /// # Errors
    /// What control files say of the resolver cannot be followed.
    pub fn known(&self, resolver: &Resolver) -> Result<&Known, Say> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let known = match &self.place {
            Ok((cache, domain)) => self.find(cache, domain, resolver)?,
            Err(_) => Known::default(),
        };
        Ok(self.known.get_or_init(|| known))
    }

    fn find(
        &self,
        cache: &Cache,
        domain: &PolicyDomain,
        resolver: &Resolver,
    ) -> Result<Known, Say> {
        let (kept, mut known) = remembered(cache, domain);
        if let Some(why) = &cache.unwritable {
            let why = format!("the directory {FOLDER} cannot be written: {why}");
            known.remark = Some(why);
            return Ok(known);
        }
        let id = match resolver.dns()?.texts_that_came() {
            Some(came) => match id(came) {
                Ok(Some(id)) => id,
                Ok(None) => return Ok(known),
                Err(NoId::Wrong(why)) => {
                    known.wrong_record = Some(why.to_string());
                    return Ok(known);
                }
                Err(NoId::Untold(why)) => {
                    let place = domain.record_name();
                    known.remark = Some(format!("the TXT record of {place}: {why}"));
                    return Ok(known);
                }
            },
            // Nothing was to be asked.
            None => return Ok(known),
        };
        let is_new = kept.is_none_or(|(kept, standing)| {
            kept.id != id || !matches!(standing, Standing::Current(_))
        });
        if !is_new {
            return Ok(known);
        }
        match self.fetch(domain, resolver)? {
            Ok(fetched) => {
                let written = cache.write(domain, &id, cache::now(), &fetched.text);
                known.remark = written.err().map(|error| {
                    let why = crate::report::reason(&error);
                    format!("the policy of {domain} cannot be kept in {FOLDER}: {why}")
                });
                known.policy = Some((Rc::new(fetched.policy), Some(0)));
            }
            Err(trouble) => known.trouble = Some(Rc::new(trouble)),
        }
        Ok(known)
    }

    /// A new policy.
    fn fetch(
        &self,
        domain: &PolicyDomain,
        resolver: &Resolver,
    ) -> Result<Result<Fetched, PolicyFailure>, Say> {
        let host = domain.policy_host();
        let failed = |kind: PolicyFailureKind, why: &str| {
            PolicyFailure::new(
                kind,
                match kind {
                    PolicyFailureKind::Invalid => format!("what {host} has is no policy: {why}"),
                    _ => format!("the policy could not be fetched from {host}: {why}"),
                },
            )
        };
        let Some(name) = name(&host) else {
            return Ok(Err(failed(
                PolicyFailureKind::Fetch,
                "it can have no address",
            )));
        };
        let addresses = match resolver.dns()?.addresses(&name) {
            Ok(found) => found.records,
            Err(trouble) => return Ok(Err(failed(PolicyFailureKind::Fetch, &trouble.to_string()))),
        };
        let left = ALL_LIMIT.saturating_sub(self.begin.elapsed());
        let time = https::LIMITS.time.min(left);
        if time < Duration::from_secs(1) {
            let why = "DNS left no time for it";
            return Ok(Err(failed(PolicyFailureKind::Fetch, why)));
        }
        let fetched = Fetching::begin(domain, &addresses, time).and_then(Fetching::end);
        Ok(fetched.map_err(|trouble| failed(trouble.kind, &trouble.why)))
    }

    /// What counts for a host.
    pub fn followed(&self, known: &Known, host: &Host) -> Option<Followed> {
        let (policy, _) = known
            .policy
            .as_ref()
            .filter(|(one, _)| one.mode != Mode::None)?;
        // An address that stands in a name's place matches no pattern.
        let name = host.named.as_ref().map(|named| named.host.to_string());
        Some(Followed {
            domain: self.domain().ok()?.clone(),
            policy: Rc::clone(policy),
            listed: name.as_ref().is_some_and(|name| policy.matches(name)),
            host: host.reference(),
        })
    }
}

/// The domain or relay whose policy counts; `None`: it can have none.
fn policy_domain(next_hop: &[u8]) -> Option<PolicyDomain> {
    let text = std::str::from_utf8(next_hop).ok();
    if text.is_some_and(|text| resolve::address_literal(text).is_some()) {
        return None;
    }
    let name = DomainName::parse(next_hop).ok()?;
    PolicyDomain::new(&name.to_string())
}

fn name(text: &str) -> Option<DomainName> {
    DomainName::parse(text.as_bytes()).ok()
}

/// What is remembered, and what it is good for while there is nothing new.
fn remembered(cache: &Cache, domain: &PolicyDomain) -> (Option<(Remembered, Standing)>, Known) {
    let mut known = Known::default();
    let kept = match cache.read(domain) {
        CacheEntry::Nothing => None,
        CacheEntry::Damaged(why) => {
            let why = format!("the file {FOLDER}/{domain} is of no use: {why}");
            known.remark = Some(why);
            None
        }
        CacheEntry::Policy(kept) => {
            let standing = kept.standing(cache::now());
            known.policy = match standing {
                Standing::Current(age) => Some((Rc::new(kept.policy.clone()), Some(age))),
                Standing::OfTheFuture => Some((Rc::new(kept.policy.clone()), None)),
                Standing::Expired => None,
            };
            Some((kept, standing))
        }
    };
    (kept, known)
}

/// Why nothing is known of the id of a domain's policy.
#[derive(Debug, PartialEq, Eq)]
enum NoId {
    /// Nobody could tell.
    Untold(NoAnswer),
    /// There is a record, and it is wrong.
    Wrong(Fail),
}

/// The id that a domain's record gives its policy; none where there is no record.
fn id(came: Texts) -> Result<Option<String>, NoId> {
    match came {
        Ok(answer) => record::id(&answer.records).map_err(NoId::Wrong),
        Err(NoAnswer::NoRecords | NoAnswer::NoSuchName) => Ok(None),
        Err(trouble) => Err(NoId::Untold(trouble)),
    }
}

impl Known {
    /// What a delivery's report says where all is not well.
    pub fn words(&self) -> Option<String> {
        let trouble = self.trouble.as_ref().map(ToString::to_string);
        trouble.or_else(|| self.remark.clone())
    }
}

impl Followed {
    /// Whether a host that does not do what the policy says gets no mail.
    pub fn is_enforced(&self) -> bool {
        self.policy.mode == Mode::Enforce
    }

    /// Why nothing is sent without TLS: words that end a sentence.
    pub fn demand(&self) -> String {
        format!("the MTA-STS policy of {} requires TLS", self.domain)
    }

    /// That the host must not be called, or should not be.
    pub fn unlisted(&self) -> String {
        format!("the MTA-STS policy of {} does not list it", self.domain)
    }

    /// What is expected of the host's certificate (RFC 8461, 4.2).
    pub fn expectation(&self) -> Expectation {
        Expectation {
            demand: Demand::Name,
            pins: Vec::new(),
            tolerated: if self.is_enforced() {
                Tolerated::Nothing
            } else {
                Tolerated::Everything
            },
        }
    }

    /// The name that the certificate must bear.
    pub fn names(&self) -> Vec<Name> {
        vec![Name::new(self.host.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Answer;

    #[test]
    fn a_next_hop_that_is_an_address_has_no_policy() {
        for (next_hop, domain) in [
            (&b"Partner.Example."[..], Some("partner.example")),
            ("b\u{fc}cher.test".as_bytes(), Some("xn--bcher-kva.test")),
            (b"[192.0.2.1]", None),
            (b"192.0.2.1", None),
            (b"[2001:db8::1]", None),
            (b"a/b.test", None),
            (b"a\\b.test", None),
            (b"plus+x.test", Some("plus+x.test")),
            (b"", None),
        ] {
            let found = policy_domain(next_hop);
            let found = found.as_ref().map(PolicyDomain::name);
            assert_eq!(found, domain, "{next_hop:?}");
        }
    }

    #[test]
    fn a_record_that_is_wrong_is_none_and_one_that_nobody_could_tell_is_not() {
        let came = |records: &[&str]| {
            Ok(Answer {
                records: records.iter().map(|one| one.as_bytes().to_vec()).collect(),
                secure: false,
                name: DomainName::root(),
            })
        };
        let known = "v=STSv1; id=1;";
        assert_eq!(id(came(&[known])), Ok(Some("1".to_owned())));
        for wrong in [&[known, known][..], &["v=STSv1; id=;"]] {
            assert!(matches!(id(came(wrong)), Err(NoId::Wrong(_))), "{wrong:?}");
        }
        assert_eq!(id(Err(NoAnswer::NoSuchName)), Ok(None));
        let late = NoAnswer::Temporary("late".to_owned());
        assert_eq!(id(Err(late.clone())), Err(NoId::Untold(late)));
    }
}
