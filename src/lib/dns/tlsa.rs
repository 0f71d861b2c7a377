//! The TLSA records of servers (RFC 7672, 2.2): where they are looked up, and which
//! count.
#![forbid(unsafe_code)]

use domain::base::Rtype;

use super::message::Data;
use super::{Answer, Dns, NoAnswer};
use crate::dns::name::DomainName;
use crate::text;
use crate::trust::dane::{Record, Unusable};

impl Dns {
    /// What DANE has for hosts (RFC 7672, 2.2), whose questions are put at the same
    /// time. Where the addresses are not signed nothing is asked, and `None` comes:
    /// as where there are no records, or none that are signed.
    ///
    /// # Errors
    /// Of a host: its records are bogus, or nobody could tell. It must not be
    /// called.
    pub fn tlsa(&self, servers: &[Endpoint]) -> Vec<Result<Option<Tlsa>, NoAnswer>> {
        let all = || servers.iter().flat_map(Endpoint::bearers);
        let questions: Vec<_> = all().map(|(_, name)| (name, Rtype::TLSA)).collect();
        let mut found = self.ask_all(&questions).into_iter();
        let mut answered = |server: &Endpoint| {
            let bearers = server.bearers().into_iter();
            let next = |(host, _)| (host, found.next().unwrap_or(Err(NoAnswer::NoRecords)));
            first_signed(bearers.map(next).collect())
        };
        servers.iter().map(&mut answered).collect()
    }
}

/// A server of a host that may have TLSA records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host as MX or a route names it.
    pub host: DomainName,
    /// The name at the end of its aliases, which bears its addresses.
    pub end: DomainName,
    /// Signatures prove the addresses.
    pub secure: bool,
    /// Where it is called.
    pub port: u16,
}

impl Endpoint {
    /// The hosts that may have its records, with the records' name, in the order in
    /// which they count: the end of the aliases first (RFC 7672, 2.2.2).
    fn bearers(&self) -> Vec<(&DomainName, DomainName)> {
        let hosts: &[&DomainName] = match (self.secure, self.end == self.host) {
            (false, _) => &[],
            (true, true) => &[&self.host],
            (true, false) => &[&self.end, &self.host],
        };
        // A name that is too long to exist has no records.
        let named = hosts
            .iter()
            .map(|host| Some((*host, host.service(self.port).ok()?)));
        named.flatten().collect()
    }
}

/// The TLSA records of a server, at least one, of use or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// The host whose records they are: what the certificate of an authority's must
    /// name, and what the server is told (SNI).
    pub host: DomainName,
    /// Those that a certificate can be compared with.
    pub usable: Vec<Record>,
    /// Why the others cannot be.
    pub unusable: Vec<Unusable>,
    /// All of them as zone files have them.
    pub texts: Vec<String>,
}

/// The data of a record as zone files have it: RFC 6698, 2.2, or where it is too short
/// for that, RFC 3597, 5.
fn zone_form(data: &[u8]) -> String {
    match data {
        [usage, selector, matching, rest @ ..] if !rest.is_empty() => {
            format!("{usage} {selector} {matching} {}", text::hex(rest))
        }
        data => format!("\\# {} {}", data.len(), text::hex(data)),
    }
}

/// The records of the first name that has signed ones.
fn first_signed(
    answers: Vec<(&DomainName, Result<Answer<Data>, NoAnswer>)>,
) -> Result<Option<Tlsa>, NoAnswer> {
    for (host, answer) in answers {
        match answer {
            Ok(answer) if answer.secure => {
                let bytes = answer.records.iter().filter_map(|data| match data {
                    Data::Bytes(bytes) => Some(&**bytes),
                    _ => None,
                });
                let parsed = bytes.clone().map(Record::parse);
                let (usable, unusable): (Vec<_>, Vec<_>) = parsed.partition(Result::is_ok);
                return Ok(Some(Tlsa {
                    host: host.clone(),
                    usable: usable.into_iter().filter_map(Result::ok).collect(),
                    unusable: unusable.into_iter().filter_map(Result::err).collect(),
                    texts: bytes.map(zone_form).collect(),
                }));
            }
            Ok(_) | Err(NoAnswer::NoRecords | NoAnswer::NoSuchName) => {}
            Err(trouble @ (NoAnswer::Temporary(_) | NoAnswer::Bogus(_))) => return Err(trouble),
        }
    }
    Ok(None)
}
