//! What a DNS message says of a question: records, with the aliases on the way to
//! them, or that there are none.
#![forbid(unsafe_code)]

use std::net::IpAddr;

pub use domain::base::Rtype;
use domain::base::iana::{Class, Rcode};
use domain::base::name::ToName;
use domain::base::rdata::UnknownRecordData;
use domain::base::wire::ParseError;
use domain::base::{Message as WireMessage, ParseRecordData, ParsedName, ParsedRecord};
use domain::rdata::{A, Aaaa, Cname, Mx, Rrsig};

use crate::dns::name::DomainName;

/// The most aliases in a row.
const MOST_ALIASES: usize = 12;

/// A message, not yet looked at.
pub type Message = WireMessage<Vec<u8>>;

/// The data of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Of an A or AAAA.
    Address(IpAddr),
    /// Of an MX: its preference and host.
    Exchanger(u16, DomainName),
    /// Of any other type, in which no names are packed.
    Bytes(Vec<u8>),
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The records of the type that was asked for, at least one, and the name at
    /// the end of the aliases, which bears them.
    Records(DomainName, Vec<Data>),
    /// There is no such record, at the end of the aliases.
    NoRecords,
    /// There is no such name, at the end of the aliases.
    NoSuchName,
    /// It ends with an alias, and says nothing of what that leads to.
    Alias(DomainName),
    /// It is no answer: words that end a sentence.
    Nothing(String),
}

/// A message as it came; `None` where not even its head is whole.
#[must_use]
pub fn taken(bytes: Vec<u8>) -> Option<Message> {
    Message::from_octets(bytes).ok()
}

/// Whether a message is about this question, and no other.
#[must_use]
pub fn is_about(message: &Message, name: &DomainName, kind: Rtype) -> bool {
    let asked = message.sole_question();
    asked.is_ok_and(|asked| is(asked.qname(), name) && asked.qtype() == kind)
}

/// What a message says of a question. A record that does not belong to the question
/// does not count.
#[must_use]
pub fn said_of(message: &Message, name: &DomainName, kind: Rtype) -> Said {
    let rcode = message.header().rcode();
    if !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
        return Said::Nothing(format!("the server's answer was {rcode}"));
    }
    let mut at = name.clone();
    for _ in 0..MOST_ALIASES {
        let Ok(found) = records_of(message, &at, kind) else {
            return Said::Nothing("the answer is malformed".to_owned());
        };
        if !found.is_empty() {
            return Said::Records(at, found);
        }
        match alias_of(message, &at) {
            Some(target) => at = target,
            None if rcode == Rcode::NXDOMAIN => return Said::NoSuchName,
            // What denies the end has a SOA, or comes without any alias.
            None if at == *name || denies(message) => return Said::NoRecords,
            None => return Said::Alias(at),
        }
    }
    Said::Nothing(format!("there are too many aliases, at {at}"))
}

/// Whether there are signatures among the records that answer.
#[must_use]
pub fn has_signatures(message: &Message) -> bool {
    let Ok(mut section) = message.answer() else {
        return false;
    };
    loop {
        let signed = section
            .limit_to::<Rrsig<_, ParsedName<_>>>()
            .any(|record| record.is_ok());
        if signed {
            return true;
        }
        // Denials have theirs in the section behind.
        match section.next_section() {
            Ok(Some(next)) => section = next,
            _ => return false,
        }
    }
}

/// The strings of a TXT record (RFC 1035, 3.3.14), joined; `None` where a length says
/// more than there is.
#[must_use]
pub fn joined_strings(mut data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(data.len());
    while let Some((length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*length))?;
        text.extend_from_slice(string);
        data = rest;
    }
    Some(text)
}

/// A name out of a message.
fn own(name: &impl ToName) -> Option<DomainName> {
    DomainName::from_wire(name.to_vec().as_slice())
}

fn is(name: &impl ToName, other: &DomainName) -> bool {
    own(name).as_ref() == Some(other)
}

fn denies(message: &Message) -> bool {
    let Ok(section) = message.authority() else {
        return false;
    };
    let mut records = section.filter_map(Result::ok);
    records.any(|record| record.rtype() == Rtype::SOA)
}

fn alias_of(message: &Message, name: &DomainName) -> Option<DomainName> {
    let aliases = message.answer().ok()?.limit_to_in::<Cname<ParsedName<_>>>();
    let mut aliases = aliases.filter_map(Result::ok);
    aliases
        .find(|alias| is(alias.owner(), name))
        .and_then(|alias| own(alias.data().cname()))
}

/// The data of a name's records of a type.
fn records_of(message: &Message, name: &DomainName, kind: Rtype) -> Result<Vec<Data>, ParseError> {
    let mut found = Vec::new();
    for record in message.answer()? {
        let record = record?;
        if record.rtype() == kind && record.class() == Class::IN && is(&record.owner(), name) {
            found.push(data(&record)?);
        }
    }
    Ok(found)
}

fn data(record: &ParsedRecord<'_, Vec<u8>>) -> Result<Data, ParseError> {
    Ok(match record.rtype() {
        Rtype::A => Data::Address(IpAddr::V4(parsed::<A>(record)?.addr())),
        Rtype::AAAA => Data::Address(IpAddr::V6(parsed::<Aaaa>(record)?.addr())),
        Rtype::MX => {
            let mx: Mx<ParsedName<&[u8]>> = parsed(record)?;
            let host = own(mx.exchange()).ok_or_else(|| ParseError::form_error("no name"))?;
            Data::Exchanger(mx.preference(), host)
        }
        _ => Data::Bytes(parsed::<UnknownRecordData<&[u8]>>(record)?.data().to_vec()),
    })
}

fn parsed<'a, D: ParseRecordData<'a, Vec<u8>>>(
    record: &ParsedRecord<'a, Vec<u8>>,
) -> Result<D, ParseError> {
    let whole = record.to_record()?.map(domain::base::Record::into_data);
    whole.ok_or_else(|| ParseError::form_error("another type"))
}
