//! What DANE asks of a server (RFC 7672): whether its TLSA records are looked up, and
//! what they come to.
#![forbid(unsafe_code)]

use super::failure::{Bar, Barred};
use super::hosts::{Host, Resolver};
use super::report_text::Say;
use crate::dns::name::DomainName;
use crate::dns::{self, Tlsa};
use crate::text;
use crate::tlsdestinations::{Destination, Rule, Way};
use crate::trust::{Name, Published};

/// What was found for a server: its records, or that it has none that are signed.
/// `Err`: nobody could tell, and it must not be called.
pub type Found = Result<Option<Tlsa>, String>;

/// DANE where a server has signed records: TLS is required.
pub struct Dane {
    /// The host whose records they are; the server is told it (SNI).
    pub host: String,
    /// What its certificate is compared with; `None`: no record is of use, and what
    /// the rule asks of a certificate is all that counts.
    pub published: Option<Published>,
    /// The server's name is from an answer that nobody signed.
    pub from_dns: bool,
}

/// A server's place in DNS, where DANE applies to it: its addresses are signed.
pub fn place(host: &Host, port: u16) -> Option<dns::Endpoint> {
    let named = host.named.as_ref()?;
    Some(dns::Endpoint {
        host: named.host.clone(),
        end: named.end.clone(),
        secure: named.signed,
        port,
    })
    .filter(|server| server.secure)
}

/// The records of servers, each looked up once; `None`: DANE does not apply.
///
/// # Errors
/// What control files say of the resolver cannot be followed.
pub fn look_up(places: &[Option<dns::Endpoint>], resolver: &Resolver) -> Result<Vec<Found>, Say> {
    let mut asked: Vec<dns::Endpoint> = Vec::new();
    for place in places.iter().flatten() {
        if !asked.contains(place) {
            asked.push(place.clone());
        }
    }
    if asked.is_empty() {
        return Ok(places.iter().map(|_| Ok(None)).collect());
    }
    let answers = resolver.dns()?.tlsa(&asked);
    let answer = |place: &Option<dns::Endpoint>| -> Found {
        let Some(place) = place else {
            return Ok(None);
        };
        let at = asked.iter().position(|one| one == place);
        let answer = at.and_then(|at| answers.get(at)).cloned();
        let answer = answer.map(|found| found.map_err(|trouble| trouble.to_string()));
        answer.unwrap_or_else(|| Err("there is no answer".to_owned()))
    };
    Ok(places.iter().map(answer).collect())
}

/// What is to be made of what was found. `names`: those that the rule asks for
/// besides.
///
/// # Errors
/// The server must not be called: what was found is not what the rule asks for, or
/// nobody could tell.
pub fn weighed(
    host: &Host,
    rule: &Rule,
    to: &Destination<'_>,
    names: Vec<Name>,
    found: &Found,
) -> Result<Option<Dane>, Barred> {
    let name = text::excerpt(host.name.as_bytes(), 255);
    let barred = |bar: Bar, why: &str| {
        let line = rule.line.unwrap_or_default();
        let say = Say::later(format!(
            "{name} is not called: tlsdestinations line {line} requires DANE, and {why}. (#4.7.5)"
        ));
        Barred { bar, say }
    };
    let none = |why: &str| barred(Bar::NoRecords, why);
    if rule.unproved(to).is_some() {
        return Err(none("DNS gave its name without a signature"));
    }
    let tlsa = match found {
        Ok(Some(tlsa)) => tlsa,
        Ok(None) if rule.value.dane => return Err(none(why_none(host))),
        Ok(None) => return Ok(None),
        Err(why) => {
            let sentence = format!(
                "{name} is not called: its TLSA records (DANE) could not be looked up. (#4.7.5)"
            );
            let say = Say::later(sentence).because(why);
            let bar = Bar::Lookup;
            return Err(Barred { bar, say });
        }
    };
    if let (true, true, Some(why)) = (
        rule.value.dane,
        tlsa.usable.is_empty(),
        tlsa.unusable.first(),
    ) {
        let why = format!("no TLSA record is of use: {why}");
        return Err(barred(Bar::Unusable, &why));
    }
    let published = (!tlsa.usable.is_empty()).then(|| Published {
        host: tlsa.host.to_string(),
        others: others(host, to),
        records: tlsa.usable.clone(),
        names: if rule.asks_for_name() && rule.value.dane {
            names
        } else {
            Vec::new()
        },
    });
    Ok(Some(Dane {
        host: tlsa.host.to_string(),
        published,
        from_dns: to.is_from_dns(),
    }))
}

/// Why a host has no TLSA records.
fn why_none(host: &Host) -> &'static str {
    match &host.named {
        Some(named) if named.signed => "it has no signed TLSA records",
        Some(_) => "its address is not signed",
        None => "an address has no TLSA records",
    }
}

/// The names that an authority's record lets a certificate bear beside that of the
/// host whose record it is (RFC 7672, 3.2.2): the domain of the mail or the relay,
/// unless an answer that nobody signed leads from there to the server.
fn others(host: &Host, to: &Destination<'_>) -> Vec<String> {
    let next_hop = match to.way {
        Way::Relay { host, .. } => host,
        Way::Itself | Way::Exchanger { .. } => to.domain,
    };
    if to.is_from_dns() || host.named.is_none() {
        return Vec::new();
    }
    let name = DomainName::parse(next_hop.as_bytes());
    name.map_or_else(|_| Vec::new(), |name| vec![name.to_string()])
}

/// Why nothing is sent without TLS: words that end a sentence.
pub fn demand(dane: &Dane, rule: &Rule) -> String {
    match rule.line {
        Some(line) if rule.value.dane => format!("tlsdestinations line {line} requires DANE"),
        _ => format!("the TLSA records of {} require TLS (DANE)", dane.host),
    }
}
