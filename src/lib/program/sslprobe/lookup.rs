//! From destinations to addresses, MX hosts and TLSA records. Hosts are looked up
//! as sslclient looks them up; with DNSCACHEIP, and under `-M`, DNS is asked
//! directly, as qmail-sslremote does.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::destination::{ProbeDestination, Unit};
use super::scan::{DomainPolicy, HostRecords, Target};
use crate::dns::name::DomainName;
use crate::dns::{self, Answer, Dns, Endpoint, NoAnswer};
use crate::https;
use crate::mta_sts::fetch::Fetching;
use crate::mta_sts::policy::Mode;
use crate::mta_sts::{PolicyDomain, record};
use crate::options::Family;
use crate::qmail_home;
use crate::report::Fail;
use crate::resolve;
use crate::text;
use crate::trust::Reference;

/// The most MX hosts of a domain that are probed.
const MOST_HOSTS: usize = 20;

/// Which families of addresses are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpFamily {
    Any,
    Four,
    Six,
}

impl IpFamily {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            IpFamily::Any => true,
            IpFamily::Four => ip.is_ipv4(),
            IpFamily::Six => ip.is_ipv6(),
        }
    }
}

/// Whether hosts are looked up in DNS directly.
fn is_direct() -> bool {
    env::var_os("DNSCACHEIP").is_some_and(|word| !word.is_empty())
}

/// Whether the servers can be asked that `DNSCACHEIP` names, if anything is to be looked
/// up: what is wrong with it is wrong for all destinations.
///
/// # Errors
/// It names something else.
pub(super) fn check(units: &[Unit]) -> Result<(), Fail> {
    let is_name = |one: &ProbeDestination| one.host.parse::<IpAddr>().is_err();
    if units
        .iter()
        .any(|unit| unit.destinations.iter().any(is_name))
    {
        dns::named_servers()?;
    }
    Ok(())
}

/// The targets of a unit: one for each destination and family, under `-M` one for
/// each MX host.
pub(super) fn targets(unit: &Unit, families: &[IpFamily]) -> Vec<Target> {
    let dns = Dns::configured(&qmail_home::folder().join(qmail_home::CONTROL));
    let mut found = Vec::new();
    for destination in &unit.destinations {
        let begin = Instant::now();
        let mut targets = if unit.is_domain {
            exchangers(destination, dns.as_ref(), families)
        } else {
            host(destination, dns.as_ref(), families)
        };
        let looked_up_in = begin.elapsed();
        for target in &mut targets {
            target.looked_up_in = looked_up_in;
        }
        found.extend(targets);
    }
    found
}

/// Targets that differ in their families only.
fn by_family(
    target: &Target,
    addresses: Result<&[IpAddr], &Fail>,
    families: &[IpFamily],
) -> Vec<Target> {
    let of = |family: &IpFamily| {
        let wanted = addresses.map_err(Fail::clone).and_then(|all| {
            let wanted: Vec<IpAddr> = all.iter().copied().filter(|ip| family.has(*ip)).collect();
            if wanted.is_empty() {
                let shown = text::excerpt(target.host.as_bytes(), 100);
                return Err(format!("no IP address of that family for {shown}").into());
            }
            Ok(wanted)
        });
        Target {
            addresses: wanted,
            ..target.clone()
        }
    };
    families.iter().map(of).collect()
}

fn target_of(destination: &ProbeDestination) -> Target {
    Target {
        host: destination.host.clone(),
        reference: destination.reference.clone(),
        port: destination.port,
        start: destination.start,
        addresses: Ok(Vec::new()),
        mx_of: None,
        published: None,
        policy: DomainPolicy::Unknown,
        looked_up_in: Duration::ZERO,
    }
}

/// A host by its name or address.
fn host(
    destination: &ProbeDestination,
    dns: Result<&Dns, &Fail>,
    families: &[IpFamily],
) -> Vec<Target> {
    let mut target = target_of(destination);
    if let Ok(ip) = destination.host.parse::<IpAddr>() {
        return by_family(&target, Ok(&[ip]), families);
    }
    let name = DomainName::parse(destination.host.as_bytes());
    let elsewhere = !is_direct() && is_in_hosts_file(&destination.host);
    let by_dns = match (dns, &name) {
        // DNS has no say in it, and may not even be there.
        _ if elsewhere => None,
        (Ok(dns), Ok(name)) => Some((dns, name, dns.addresses(name))),
        _ => None,
    };
    if let Some((dns, name, Ok(answer))) = &by_dns {
        target.published = Some(published(dns, name, answer, destination.port));
    }
    let found = match (is_direct(), dns, by_dns) {
        (true, Err(why), _) => Err(why.clone()),
        (true, _, None) => Err("it is not a valid name".into()),
        (true, _, Some((.., answer))) => answer.map(|answer| answer.records).map_err(said),
        (false, ..) => resolve::addresses(&destination.host, destination.port, Family::Any, None)
            .map(|all| all.iter().map(SocketAddr::ip).collect::<Vec<_>>()),
    };
    let found = found.map(|mut all| {
        all.dedup();
        all
    });
    by_family(&target, found.as_deref(), families)
}

/// Whether hosts(5) gives a name.
fn is_in_hosts_file(name: &str) -> bool {
    let text = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut names = lines.flat_map(|line| line.split_ascii_whitespace().skip(1));
    names.any(|own| own.eq_ignore_ascii_case(name))
}

/// Why there is no answer.
fn said(trouble: NoAnswer) -> Fail {
    match trouble {
        NoAnswer::NoRecords => "it has no address".into(),
        NoAnswer::NoSuchName => "there is no such name".into(),
        NoAnswer::Temporary(why) | NoAnswer::Bogus(why) => Fail::from(why).of("DNS lookup failed"),
    }
}

/// The MX hosts of a mail domain, or the domain itself where it has none.
fn exchangers(
    destination: &ProbeDestination,
    dns: Result<&Dns, &Fail>,
    families: &[IpFamily],
) -> Vec<Target> {
    let domain = &destination.host;
    let failed = |why: Fail| {
        let mut target = target_of(destination);
        target.mx_of = Some((domain.clone(), false));
        target.addresses = Err(why);
        vec![target]
    };
    let dns = match dns {
        Ok(dns) => dns,
        Err(why) => return failed(why.clone()),
    };
    let Ok(name) = DomainName::parse(domain.as_bytes()) else {
        return failed("it is not a valid name".into());
    };
    let (hosts, signed) = match dns.exchangers(&name) {
        Ok(mut answer) => {
            answer.records.sort();
            let mut hosts: Vec<DomainName> = Vec::new();
            for (_, host) in answer.records {
                // One host may stand there at two preferences.
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
            (hosts, answer.secure)
        }
        Err(NoAnswer::NoRecords) => (vec![name], true),
        Err(trouble) => return failed(said(trouble)),
    };
    if hosts.iter().any(DomainName::is_root) {
        return failed("it takes no mail (null MX)".into());
    }
    let mut found = Vec::new();
    let policy = domain_policy(dns, domain);
    let looked_up = dns.addresses_of(&hosts[..hosts.len().min(MOST_HOSTS)]);
    for (host, answer) in hosts.iter().zip(looked_up) {
        let name = host.host_name();
        let mut target = Target {
            host: name.to_string(),
            reference: Reference::Host(name),
            ..target_of(destination)
        };
        target.mx_of = Some((domain.clone(), signed));
        target.policy = policy.clone();
        if let Ok(answer) = &answer {
            target.published = Some(published(dns, host, answer, destination.port));
        }
        let addresses = answer.map(|answer| answer.records).map_err(said);
        found.extend(by_family(&target, addresses.as_deref(), families));
    }
    found
}

/// The TLSA records of a host.
fn published(dns: &Dns, host: &DomainName, answer: &Answer<IpAddr>, port: u16) -> HostRecords {
    let place = Endpoint {
        host: host.clone(),
        end: answer.name.clone(),
        secure: answer.secure,
        port,
    };
    let tlsa = dns.tlsa(std::slice::from_ref(&place)).pop();
    HostRecords {
        place,
        tlsa: tlsa.unwrap_or(Ok(None)),
    }
}

/// A mail domain's policy of MTA-STS, fetched as a delivery fetches it; none is
/// remembered.
fn domain_policy(dns: &Dns, domain: &str) -> DomainPolicy {
    let place = |name: String| DomainName::parse(name.as_bytes()).ok();
    let ascii = DomainName::parse(domain.as_bytes()).ok();
    let Some(domain) = ascii.and_then(|name| PolicyDomain::new(&name.to_string())) else {
        return DomainPolicy::Nothing;
    };
    let record = match place(domain.record_name()).map(|name| dns.texts(&name)) {
        Some(Ok(answer)) => record::id(&answer.records),
        Some(Err(NoAnswer::Temporary(_) | NoAnswer::Bogus(_))) => return DomainPolicy::Unknown,
        Some(Err(NoAnswer::NoRecords | NoAnswer::NoSuchName)) | None => Ok(None),
    };
    if !matches!(record, Ok(Some(_))) {
        return DomainPolicy::Nothing;
    }
    let addresses = place(domain.policy_host()).and_then(|name| dns.addresses(&name).ok());
    let fetched = addresses.and_then(|answer| {
        let fetching = Fetching::begin(&domain, &answer.records, https::LIMITS.time);
        fetching.and_then(Fetching::end).ok()
    });
    match fetched {
        Some(fetched) if fetched.policy.mode == Mode::None => DomainPolicy::Nothing,
        Some(fetched) => DomainPolicy::Policy(Rc::new(fetched.policy)),
        None => DomainPolicy::Unknown,
    }
}
