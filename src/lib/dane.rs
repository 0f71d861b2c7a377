//! What DANE asks of a server (RFC 7672), from the line of tlsdestinations that decides
//! for it and the TLSA records that it has: for a delivery, and for who foretells one.
#![forbid(unsafe_code)]

use openssl::error::ErrorStack;
use openssl::ssl::Ssl;

use crate::dns::name::DomainName;
use crate::dns::{NoAnswer, Tlsa};
use crate::host_name::HostName;
use crate::store::client::Store;
use crate::tlsdestinations::{Destination, Rule, Way};
use crate::trust::{Name, Published, Reference};

/// What was found for a server: its records, or that it has none that are signed.
/// `Err`: nobody could tell, and it must not be called.
pub type TlsaFound = Result<Option<Tlsa>, NoAnswer>;

/// How a server's address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFrom {
    /// DNSSEC proves it, and each alias on the way to it.
    SignedDns,
    /// DNS says so.
    Dns,
    /// It stands in the name's place.
    Given,
}

/// DANE where a server has signed records: TLS is required.
pub struct Dane {
    /// The host whose records they are; the server is told it (SNI).
    pub host: HostName,
    /// What its certificate is compared with; `None`: no record is of use, and what
    /// the rule asks of a certificate is all that counts.
    pub published: Option<Published>,
    /// The server's name is from an answer that nobody signed.
    pub from_dns: bool,
}

/// Why a server must not be called: words that end a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The rule asks for DANE, and the server has none.
    NoRecords(&'static str),
    /// The rule asks for DANE, and no record is of use.
    Unusable(String),
    /// Nobody could tell what it has.
    Lookup(String),
}

/// What is to be made of what was found. `names`: those that the rule asks for
/// besides.
///
/// # Errors
/// The server must not be called: what was found is not what the rule asks for, or
/// nobody could tell.
pub fn weighed(
    address: AddressFrom,
    rule: &Rule,
    to: &Destination<'_>,
    names: Vec<Name>,
    found: &TlsaFound,
) -> Result<Option<Dane>, Lack> {
    if rule.unproved(to).is_some() {
        return Err(Lack::NoRecords("DNS gave its name without a signature"));
    }
    let tlsa = match found {
        Ok(Some(tlsa)) => tlsa,
        Ok(None) if rule.value.dane => return Err(Lack::NoRecords(why_none(address))),
        Ok(None) => return Ok(None),
        Err(why) => return Err(Lack::Lookup(why.to_string())),
    };
    if let (true, true, Some(why)) = (
        rule.value.dane,
        tlsa.usable.is_empty(),
        tlsa.unusable.first(),
    ) {
        return Err(Lack::Unusable(format!("no TLSA record is of use: {why}")));
    }
    let published = (!tlsa.usable.is_empty()).then(|| Published {
        host: tlsa.host.host_name(),
        others: others(address, to),
        records: tlsa.usable.clone(),
        names: if rule.asks_for_name() && rule.value.dane {
            names
        } else {
            Vec::new()
        },
    });
    Ok(Some(Dane {
        host: tlsa.host.host_name(),
        published,
        from_dns: to.is_from_dns(),
    }))
}

/// Why a host has no TLSA records.
fn why_none(address: AddressFrom) -> &'static str {
    match address {
        AddressFrom::SignedDns => "it has no signed TLSA records",
        AddressFrom::Dns => "its address is not signed",
        AddressFrom::Given => "an address has no TLSA records",
    }
}

/// The names that an authority's record lets a certificate bear beside that of the
/// host whose record it is (RFC 7672, 3.2.2): the domain of the mail or the relay,
/// unless an answer that nobody signed leads from there to the server.
fn others(address: AddressFrom, to: &Destination<'_>) -> Vec<HostName> {
    let next_hop = match to.way {
        Way::Relay { host, .. } => host,
        Way::Itself | Way::Exchanger { .. } => to.domain,
    };
    if to.is_from_dns() || address == AddressFrom::Given {
        return Vec::new();
    }
    let name = DomainName::parse(next_hop.as_bytes());
    name.map_or_else(|_| Vec::new(), |name| vec![name.host_name()])
}

/// A connection to a server with what its records ask, and else what its rule does.
///
/// # Errors
/// Libssl refuses the name, or none of the records is of use to it.
pub fn connection(
    store: &Store,
    server: &Reference,
    dane: Option<&Dane>,
    names: Vec<Name>,
) -> Result<Ssl, ErrorStack> {
    match dane {
        Some(Dane {
            published: Some(published),
            ..
        }) => store.connection_by_records(published.clone()),
        Some(dane) => store.connection(&Reference::Host(dane.host.clone()), names),
        None => store.connection(server, names),
    }
}

/// Why nothing is sent without TLS: words that end a sentence.
#[must_use]
pub fn demand(dane: &Dane, rule: &Rule) -> String {
    match rule.line {
        Some(line) if rule.value.dane => format!("tlsdestinations line {line} requires DANE"),
        _ => format!("the TLSA records of {} require TLS (DANE)", dane.host),
    }
}
