//! From a destination or a relay to the addresses that are tried, in their order.
#![forbid(unsafe_code)]

use std::env;
use std::net::IpAddr;
use std::path::Path;

use super::dns::{Dns, Trouble, Trust};
use super::report_text::Say;
use super::routes::Origin;
use super::temporary_control;
use crate::sys::socket;
use crate::text;

/// The most addresses that are tried.
const MOST_CANDIDATES: usize = 100;

/// A server's name and one of its addresses.
#[derive(Clone, Debug)]
pub struct Target {
    /// As MX or a route names it.
    pub host: String,
    /// Where it is called.
    pub ip: IpAddr,
}

/// An address in brackets, or as it is.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let bare = bare.map(|bare| bare.strip_prefix("ipv6:").unwrap_or(bare));
    bare.unwrap_or(host).parse().ok()
}

fn resolver() -> Result<Dns, Say> {
    let server = match env::var("DNSCACHEIP") {
        Ok(ip) if !ip.is_empty() => Some(
            ip.parse()
                .map_err(|_| temporary_control("DNSCACHEIP is not an IP address"))?,
        ),
        _ => None,
    };
    let trust = Trust::read(Path::new("control")).map_err(|why| temporary_control(&why))?;
    Dns::new(server, trust).map_err(|why| no_dns("a name", &why))
}

fn no_dns(name: &str, why: &str) -> Say {
    let name = text::excerpt(name.as_bytes(), 255);
    Say::new(
        'Z',
        format!("DNS lookup of {name} failed temporarily. (#4.4.3)"),
    )
    .because(why)
}

fn no_host(name: &str) -> Say {
    let name = text::excerpt(name.as_bytes(), 255);
    Say::new(
        'D',
        format!("Sorry, I couldn't find any host named {name}. (#5.1.2)"),
    )
}

fn no_exchanger() -> Say {
    Say::new(
        'D',
        "Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)",
    )
}

/// The addresses of a relay. That it may be ourselves is the postmaster's
/// business.
///
/// # Errors
/// There are none, or nobody could tell.
pub fn relay_targets(relay: &str, place: &str) -> Result<Vec<Target>, Say> {
    let target = |ip| Target {
        host: relay.to_owned(),
        ip,
    };
    if let Some(ip) = literal(relay) {
        return Ok(vec![target(ip)]);
    }
    match resolver()?.addresses(relay) {
        Ok(found) => Ok(found.records.into_iter().map(target).collect()),
        Err(Trouble::Temporary(why)) => Err(no_dns(relay, &why)),
        // A name that an administrator wrote may be there tomorrow.
        Err(_) => Err(no_dns(
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
pub fn of_family(mut targets: Vec<Target>, origin: &Origin) -> Result<Vec<Target>, Say> {
    targets.retain(|target| origin.address_for(target.ip).is_ok());
    if targets.is_empty() {
        let place = &origin.place;
        let why = format!("no server has an address of the family that {place} gives");
        return Err(temporary_control(&why));
    }
    Ok(targets)
}

/// The addresses of a domain's mail exchangers, in the order in which they are
/// to be tried, up to the first that is this host.
///
/// # Errors
/// There are none, or nobody could tell, or the best is this host.
pub fn mail_targets(domain: &str) -> Result<Vec<Target>, Say> {
    if let Some(ip) = literal(domain) {
        return Ok(vec![Target {
            host: domain.to_owned(),
            ip,
        }]);
    }
    let dns = resolver()?;
    let mut exchangers = match dns.exchangers(domain) {
        Ok(found) => found.records,
        // RFC 5321, 5.1: the domain itself.
        Err(Trouble::NoRecords) => vec![(0, domain.to_owned())],
        Err(Trouble::NoSuchName) => return Err(no_host(domain)),
        Err(Trouble::Temporary(why)) => return Err(no_dns(domain, &why)),
    };
    if exchangers.iter().any(|(_, name)| name.is_empty()) {
        if exchangers.len() == 1 {
            let name = text::excerpt(domain.as_bytes(), 255);
            let sentence = format!("Sorry, {name} accepts no mail: its MX is null. (#5.1.10)");
            return Err(Say::new('D', sentence));
        }
        exchangers.retain(|(_, name)| !name.is_empty());
    }
    shuffle(&mut exchangers);
    exchangers.sort_by_key(|(preference, _)| *preference);
    let own = socket::own_addresses().unwrap_or_default();
    let mut targets = Vec::new();
    let mut trouble = None;
    let mut our_preference = u32::MAX;
    for (preference, host) in exchangers {
        match dns.addresses(&host) {
            Ok(found) => {
                for ip in found.records {
                    if own.contains(&ip) || ip.is_unspecified() {
                        our_preference = our_preference.min(preference.into());
                    }
                    let host = host.clone();
                    targets.push((u32::from(preference), Target { host, ip }));
                }
            }
            Err(Trouble::Temporary(why)) => trouble = Some((host, why)),
            Err(_) => {}
        }
    }
    if targets.is_empty() {
        return Err(match trouble {
            Some((host, why)) => no_dns(&host, &why),
            None => no_exchanger(),
        });
    }
    targets.retain(|(preference, _)| *preference < our_preference);
    if targets.is_empty() {
        return Err(match trouble {
            // A better one may be there, which could not be told.
            Some((host, why)) => no_dns(&host, &why),
            None => Say {
                letter: 'D',
                text: "Sorry. Although I'm listed as a best-preference MX or A for that host,\n\
                       it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n"
                    .to_owned(),
            },
        });
    }
    targets.truncate(MOST_CANDIDATES);
    Ok(targets.into_iter().map(|(_, target)| target).collect())
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
