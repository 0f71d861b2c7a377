//! DANE of a delivery: whether a server's TLSA records are looked up, and what is said
//! where it must not be called for them.
#![forbid(unsafe_code)]

use super::failure::{Excluded, Exclusion};
use super::hosts::{Host, Resolver};
use super::report_text::Say;
use crate::dane::{self, AddressFrom, Dane, Lack, TlsaFound};
use crate::dns::{self, NoAnswer};
use crate::text;
use crate::tlsdestinations::{Destination, Rule};
use crate::trust::Name;

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
pub fn look_up(
    places: &[Option<dns::Endpoint>],
    resolver: &Resolver,
) -> Result<Vec<TlsaFound>, Say> {
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
    let answer = |place: &Option<dns::Endpoint>| -> TlsaFound {
        let Some(place) = place else {
            return Ok(None);
        };
        let at = asked.iter().position(|one| one == place);
        let answer = at.and_then(|at| answers.get(at)).cloned();
        answer.unwrap_or_else(|| Err(NoAnswer::Temporary("there is no answer".to_owned())))
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
    found: &TlsaFound,
) -> Result<Option<Dane>, Excluded> {
    let address = match &host.named {
        Some(named) if named.signed => AddressFrom::SignedDns,
        Some(_) => AddressFrom::Dns,
        None => AddressFrom::Given,
    };
    dane::weighed(address, rule, to, names, found).map_err(|lack| excluded(host, rule, &lack))
}

/// What the delivery says of it.
fn excluded(host: &Host, rule: &Rule, lack: &Lack) -> Excluded {
    let name = text::excerpt(host.name.as_bytes(), 255);
    let required = |why: &str| {
        let line = rule.line.unwrap_or_default();
        Say::later(format!(
            "{name} is not called: tlsdestinations line {line} requires DANE, and {why}. (#4.7.5)"
        ))
    };
    let (reason, say) = match lack {
        Lack::NoRecords(why) => (Exclusion::NoRecords, required(why)),
        Lack::Unusable(why) => (Exclusion::Unusable, required(why)),
        Lack::Lookup(why) => {
            let sentence = format!(
                "{name} is not called: its TLSA records (DANE) could not be looked up. (#4.7.5)"
            );
            (Exclusion::Lookup, Say::later(sentence).because(why))
        }
    };
    Excluded { reason, say }
}
