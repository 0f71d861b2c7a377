//! From a destination or a relay to the addresses that are tried, in their order.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::rc::Rc;

use super::report_text::{Disposition, Say};
use super::temporary_control;
use crate::dns::name::DomainName;
use crate::dns::{Answer, Dns, NoAnswer};
use crate::resolve;
use crate::routes::Origin;
use crate::sys::socket;
use crate::text;
use crate::trust::Reference;

/// The port of mail.
pub const SMTP: u16 = 25;
/// The most addresses that are tried.
const MOST_HOSTS: usize = 100;

/// A host that may be called: its name and one of its addresses.
#[derive(Clone, Debug)]
pub struct Host {
    /// As MX or a route names it, and as DNS has it.
    pub name: String,
    /// Where it is called.
    pub ip: IpAddr,
    /// DNSSEC proves that MX names it.
    pub signed: bool,
    /// The names that were looked up; `None`: it is an address.
    pub named: Option<Rc<Named>>,
}

/// The names of a host that has addresses in DNS.
#[derive(Debug)]
pub struct Named {
    /// As MX or a route names it.
    pub host: DomainName,
    /// At the end of its aliases.
    pub end: DomainName,
    /// DNSSEC proves the addresses, and each alias on the way to them.
    pub signed: bool,
}

impl Host {
    /// An address that stands in a name's place.
    fn literal(name: String, ip: IpAddr, signed: bool) -> Host {
        Host {
            name,
            ip,
            signed,
            named: None,
        }
    }

    /// Whom its certificate should name, and what SNI says.
    pub fn reference(&self) -> Reference {
        match &self.named {
            Some(named) => Reference::Host(named.host.host_name()),
            None => Reference::Address(self.ip),
        }
    }

    /// The addresses of a name.
    fn all(host: DomainName, signed: bool, found: Answer<IpAddr>) -> Vec<Host> {
        let name = host.to_string();
        let named = Rc::new(Named {
            host,
            end: found.name,
            signed: found.secure,
        });
        let host = |ip| Host {
            name: name.clone(),
            ip,
            signed,
            named: Some(Rc::clone(&named)),
        };
        found.records.into_iter().map(host).collect()
    }
}

/// The resolver of a delivery, made when the first name is to be looked up.
#[derive(Default)]
pub struct Resolver(OnceCell<Dns>);

impl Resolver {
    /// The resolver.
    ///
    /// # Errors
    /// What control files say of it cannot be had or followed.
    pub fn dns(&self) -> Result<&Dns, Say> {
        if let Some(dns) = self.0.get() {
            return Ok(dns);
        }
        let dns = resolver()?;
        Ok(self.0.get_or_init(|| dns))
    }
}

/// An address in brackets, or as it is: what qmail-remote calls without asking DNS.
fn literal(host: &[u8]) -> Option<IpAddr> {
    resolve::address_literal(std::str::from_utf8(host).ok()?)
}

/// Whether DNS is not asked, since it is an address.
pub fn is_literal(host: &[u8]) -> bool {
    literal(host).is_some()
}

/// This host's addresses, and those that lead nowhere else on any host.
struct OwnAddresses(Vec<IpAddr>);

impl OwnAddresses {
    fn find() -> OwnAddresses {
        OwnAddresses(socket::own_addresses().unwrap_or_default())
    }

    fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let always = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::LOCALHOST.into(),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ];
        always.contains(&ip) || self.0.contains(&ip)
    }
}

fn resolver() -> Result<Dns, Say> {
    Dns::configured(Path::new("control")).map_err(temporary_control)
}

fn no_dns(name: &str, why: &str) -> Say {
    let name = text::excerpt(name.as_bytes(), 255);
    Say::later(format!("DNS lookup of {name} failed temporarily. (#4.4.3)")).because(why)
}

fn no_host(name: &[u8]) -> Say {
    let name = text::excerpt(name, 255);
    Say::never(format!(
        "Sorry, I couldn't find any host named {name}. (#5.1.2)"
    ))
}

/// qmail-remote's words for mail that would come back to this host.
fn ourselves() -> Say {
    Say {
        disposition: Disposition::Never,
        text: "Sorry. Although I'm listed as a best-preference MX or A for that host,\n\
               it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n"
            .to_owned(),
    }
}

fn no_exchanger() -> Say {
    Say::never("Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)")
}

/// The addresses of a relay. That it may be ourselves is the postmaster's
/// business.
///
/// # Errors
/// There are none, or nobody could tell.
pub fn of_relay(resolver: &Resolver, relay: &str, place: &str) -> Result<Vec<Host>, Say> {
    if let Some(ip) = literal(relay.as_bytes()) {
        return Ok(vec![Host::literal(relay.to_owned(), ip, false)]);
    }
    // A name that an administrator wrote may be mended, or there, tomorrow.
    let cannot_exist = |_| no_dns(relay, &format!("the relay of {place} is not a valid name"));
    let name = DomainName::parse(relay.as_bytes()).map_err(cannot_exist)?;
    match resolver.dns()?.addresses(&name) {
        Ok(found) => Ok(Host::all(name, false, found)),
        Err(NoAnswer::Temporary(why) | NoAnswer::Bogus(why)) => Err(no_dns(relay, &why)),
        Err(NoAnswer::NoRecords | NoAnswer::NoSuchName) => Err(no_dns(
            relay,
            &format!("the relay of {place} has no address"),
        )),
    }
}

/// Those that can be called from the addresses that domainips gives: one of the
/// other family would be called from an address that it does not name.
///
/// # Errors
/// That leaves none.
pub fn of_family(mut hosts: Vec<Host>, origin: &Origin) -> Result<Vec<Host>, Say> {
    hosts.retain(|host| origin.address_for(host.ip).is_ok());
    if hosts.is_empty() {
        let place = &origin.place;
        let why = format!("no server has an address of the family that {place} gives");
        return Err(temporary_control(why));
    }
    Ok(hosts)
}

/// Refuses an address in the recipient's place that is this host's own: the mail
/// would come back. On another port than that of mail, which a rule gives, somebody
/// else may listen.
///
/// # Errors
/// It is one.
pub fn not_ourselves(ip: IpAddr, port: u16) -> Result<(), Say> {
    if port == SMTP && OwnAddresses::find().has(ip) {
        return Err(ourselves());
    }
    Ok(())
}

/// An address of an exchanger, and what its MX prefers it by.
type Preferred = (u16, Host);

/// The addresses of a domain's mail exchangers, in the order in which they are
/// to be tried, up to the first that is this host.
///
/// # Errors
/// There are none, or nobody could tell, or the best is this host.
pub fn of_domain(resolver: &Resolver, host: &[u8]) -> Result<Vec<Host>, Say> {
    let whole = host;
    let host = host.strip_suffix(b".").unwrap_or(host);
    if let Some(ip) = literal(host) {
        let host = String::from_utf8_lossy(host).to_ascii_lowercase();
        return Ok(vec![Host::literal(host, ip, false)]);
    }
    let domain = DomainName::parse(whole).map_err(|_| no_host(host))?;
    let dns = resolver.dns()?;
    let (exchangers, signed) = match dns.exchangers(&domain) {
        Ok(found) => (found.records, found.secure),
        // RFC 5321, 5.1: the domain itself.
        Err(NoAnswer::NoRecords) => (vec![(0, domain)], false),
        Err(NoAnswer::NoSuchName) => return Err(no_host(host)),
        Err(NoAnswer::Temporary(why) | NoAnswer::Bogus(why)) => {
            return Err(no_dns(&domain.to_string(), &why));
        }
    };
    let (found, trouble) = called(dns, in_order(exchangers, host)?, signed);
    // A better one may be there, which could not be told.
    let because = |other: Say| match &trouble {
        Some((name, why)) => no_dns(name, why),
        None => other,
    };
    if found.is_empty() {
        return Err(because(no_exchanger()));
    }
    let own = OwnAddresses::find();
    let ours = found.iter().filter(|(_, host)| own.has(host.ip));
    let our_preference = ours.map(|(preference, _)| *preference).min();
    let better = found
        .into_iter()
        .filter(|(preference, _)| our_preference.is_none_or(|ours| *preference < ours));
    let hosts: Vec<Host> = better.map(|(_, host)| host).take(MOST_HOSTS).collect();
    if hosts.is_empty() {
        return Err(because(ourselves()));
    }
    Ok(hosts)
}

/// Exchangers by preference, equal ones in random order, without a null MX.
fn in_order(
    mut exchangers: Vec<(u16, DomainName)>,
    domain: &[u8],
) -> Result<Vec<(u16, DomainName)>, Say> {
    exchangers.retain(|(_, name)| !name.is_root());
    if exchangers.is_empty() {
        let name = text::excerpt(domain, 255);
        let sentence = format!("Sorry, {name} accepts no mail: its MX is null. (#5.1.10)");
        return Err(Say::never(sentence));
    }
    shuffle(&mut exchangers);
    exchangers.sort_by_key(|(preference, _)| *preference);
    Ok(exchangers)
}

/// Where exchangers are called, and the last name of which nobody could tell, with
/// the reason.
fn called(
    dns: &Dns,
    exchangers: Vec<(u16, DomainName)>,
    signed: bool,
) -> (Vec<Preferred>, Option<(String, String)>) {
    let mut found = Vec::new();
    let mut trouble = None;
    let names: Vec<DomainName> = exchangers
        .iter()
        .map(|(_, name)| name.clone())
        .filter(|name| literal(name.to_string().as_bytes()).is_none())
        .take(MOST_HOSTS)
        .collect();
    let mut answers = dns.addresses_of(&names).into_iter();
    for (preference, name) in exchangers {
        let host = name.to_string();
        // An MX should name a host; one that is an address means that address.
        if let Some(ip) = literal(host.as_bytes()) {
            found.push((preference, Host::literal(host, ip, signed)));
            continue;
        }
        match answers.next() {
            Some(Ok(answer)) => {
                let hosts = Host::all(name, signed, answer).into_iter();
                found.extend(hosts.map(|host| (preference, host)));
            }
            Some(Err(NoAnswer::Temporary(why) | NoAnswer::Bogus(why))) => {
                trouble = Some((host, why));
            }
            Some(Err(NoAnswer::NoRecords | NoAnswer::NoSuchName)) | None => {}
        }
    }
    (found, trouble)
}

/// A random order; where there is no randomness, the one that DNS gave.
fn shuffle<T>(list: &mut [T]) {
    for end in (1..list.len()).rev() {
        let mut bytes = [0; 4];
        if openssl::rand::rand_bytes(&mut bytes).is_ok() {
            list.swap(end, u32::from_le_bytes(bytes) as usize % (end + 1));
        }
    }
}
