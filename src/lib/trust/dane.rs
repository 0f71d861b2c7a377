//! TLSA records (RFC 6698, 7671): what a domain publishes of its servers' keys.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::fmt;

use openssl::error::ErrorStack;
use openssl::sha::{sha256, sha512};
use openssl::x509::{X509, X509Ref};

use crate::text;

/// Certificate usages that mail servers have: RFC 7672, 3.1.
const ANCHOR: u8 = 2;
const END_ENTITY: u8 = 3;
/// How many hexadecimal digits of a record are shown.
const SHOWN: usize = 8;

/// A record that a certificate can be compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 2: the authority that the chain must lead to; 3: the server's own.
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: all of it; 1: its SHA-256; 2: its SHA-512.
    pub matching: u8,
    /// What is compared.
    pub data: Vec<u8>,
}

/// Why a record is of no use: words that end a sentence.
#[cfg(feature = "remote")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It has less than its three numbers and something to compare.
    Short,
    /// For mail only 2 and 3 mean anything.
    Usage(u8),
    /// RFC 7218 has no such number.
    Selector(u8),
    /// The same.
    Matching(u8),
    /// A digest has another length, in bytes.
    Length(usize),
    /// It is no certificate, or no key.
    Encoding,
}

impl Record {
    /// Usage, selector, matching type.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn numbers(&self) -> [u8; 3] {
        [self.usage, self.selector, self.matching]
    }

    /// The beginning of what a certificate has to compare with this record.
    fn of(&self, certificate: &X509Ref) -> Result<String, ErrorStack> {
        let whole = match self.selector {
            0 => certificate.to_der()?,
            _ => certificate.public_key()?.public_key_to_der()?,
        };
        Ok(match self.matching {
            0 => beginning(&whole),
            1 => beginning(&sha256(&whole)),
            _ => beginning(&sha512(&whole)),
        })
    }

    /// The data of a TLSA record.
    ///
    /// # Errors
    /// No certificate can be compared with it.
    #[cfg(feature = "remote")]
    pub fn parse(data: &[u8]) -> Result<Record, Unusable> {
        let [usage, selector, matching, data @ ..] = data else {
            return Err(Unusable::Short);
        };
        let length = match (usage, selector, matching) {
            (usage, ..) if ![ANCHOR, END_ENTITY].contains(usage) => {
                return Err(Unusable::Usage(*usage));
            }
            (_, selector, _) if *selector > 1 => return Err(Unusable::Selector(*selector)),
            (_, _, 0) => data.len(),
            (_, _, 1) => 32,
            (_, _, 2) => 64,
            (.., matching) => return Err(Unusable::Matching(*matching)),
        };
        if data.is_empty() {
            return Err(Unusable::Short);
        }
        if data.len() != length {
            return Err(Unusable::Length(data.len()));
        }
        if *matching == 0 && !is_encoded(*selector, data) {
            return Err(Unusable::Encoding);
        }
        Ok(Record {
            usage: *usage,
            selector: *selector,
            matching: *matching,
            data: data.to_vec(),
        })
    }
}

/// How many records are named in a refusal.
const NAMED: usize = 4;

/// What was compared with what: each record with what the chain has in its place,
/// its own certificate or the last one of it. A server that sends its own alone, which
/// another one issued, has nothing in an authority's place.
#[must_use]
pub fn compared(records: &[Record], chain: &[X509]) -> String {
    let one = |record: &Record| {
        let (whose, certificate) = match (record.usage, chain) {
            (END_ENTITY, _) | (_, [_] | []) => ("its own", chain.first()),
            (_, [.., last]) => ("its last issuer's", Some(last)),
        };
        let alone = match (record.usage, chain) {
            (ANCHOR, [own]) if !is_its_own_issuer(own) => ", without the certificate of its issuer",
            _ => "",
        };
        let what = if record.selector == 0 {
            "certificate"
        } else {
            "key"
        };
        let has = certificate.and_then(|certificate| record.of(certificate).ok());
        let has = has.unwrap_or_default();
        format!("{record} is published, and {whose} {what} is {has}{alone}")
    };
    // Of digests the strongest alone counts: RFC 7671, 9.
    let counts = |record: &&Record| {
        record.matching == 0
            || !records.iter().any(|other| {
                let same = (other.usage, other.selector) == (record.usage, record.selector);
                same && other.matching > record.matching
            })
    };
    let records: Vec<&Record> = records.iter().filter(counts).collect();
    let mut all: Vec<String> = records.iter().copied().take(NAMED).map(one).collect();
    if records.len() > NAMED {
        all.push(format!("and {} more", records.len() - NAMED));
    }
    all.join("; ")
}

fn is_its_own_issuer(certificate: &X509Ref) -> bool {
    let (issuer, subject) = (certificate.issuer_name(), certificate.subject_name());
    issuer.try_cmp(subject).is_ok_and(Ordering::is_eq)
}

/// The SHA-256 of a certificate's public key, which lives as long as the key,
/// whatever certificate it is in.
///
/// # Errors
/// Libcrypto cannot read the key.
pub fn key_digest(certificate: &X509Ref) -> Result<[u8; 32], ErrorStack> {
    let key = certificate.public_key()?.public_key_to_der()?;
    Ok(sha256(&key))
}

/// What to publish for a server that shows a certificate of its own (`3 1 1`), and
/// for each authority's behind it (`2 1 1`): the data of records in the form of zone
/// files, as RFC 7671, 5.1 and 5.2, advises.
///
/// # Errors
/// Libcrypto cannot read a key.
pub fn to_publish(leaf: &X509Ref, authorities: &[X509]) -> Result<Vec<String>, ErrorStack> {
    let mut records = vec![format!(
        "{END_ENTITY} 1 1 {}",
        text::hex(&key_digest(leaf)?)
    )];
    for authority in authorities {
        records.push(format!(
            "{ANCHOR} 1 1 {}",
            text::hex(&key_digest(authority)?)
        ));
    }
    Ok(records)
}

fn beginning(data: &[u8]) -> String {
    let mut hex = text::hex(data);
    hex.truncate(SHOWN);
    hex
}

/// Whether a whole certificate or key is one, and nothing more.
#[cfg(feature = "remote")]
fn is_encoded(selector: u8, data: &[u8]) -> bool {
    let again = if selector == 0 {
        X509::from_der(data).and_then(|certificate| certificate.to_der())
    } else {
        openssl::pkey::PKey::public_key_from_der(data).and_then(|key| key.public_key_to_der())
    };
    // What libcrypto found wrong is of no interest to its next caller.
    drop(ErrorStack::get());
    again.is_ok_and(|again| again == data)
}

/// Its three numbers, and the beginning of what is compared.
impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = beginning(&self.data);
        let Record {
            usage,
            selector,
            matching,
            ..
        } = self;
        write!(out, "{usage} {selector} {matching} {hex}")
    }
}

#[cfg(feature = "remote")]
impl fmt::Display for Unusable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Short => write!(out, "it is too short"),
            Unusable::Usage(number) => write!(out, "its usage {number} is neither 2 nor 3"),
            Unusable::Selector(number) => write!(out, "its selector {number} is neither 0 nor 1"),
            Unusable::Matching(number) => {
                write!(out, "its matching type {number} is none of 0, 1, 2")
            }
            Unusable::Length(bytes) => {
                write!(out, "its digest of {bytes} bytes has a wrong length")
            }
            Unusable::Encoding => write!(out, "it holds no certificate or key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;

    use super::*;

    fn certificate() -> X509 {
        issued_by("")
    }

    fn issued_by(issuer: &str) -> X509 {
        let key = PKey::generate_ed25519().expect("a key");
        let mut builder = X509::builder().expect("a builder");
        builder.set_pubkey(&key).expect("a certificate with a key");
        let now = openssl::asn1::Asn1Time::days_from_now(0).expect("today");
        builder.set_not_before(&now).expect("a beginning");
        builder.set_not_after(&now).expect("an end");
        if !issuer.is_empty() {
            let mut name = openssl::x509::X509Name::builder().expect("a builder");
            name.append_entry_by_text("CN", issuer).expect("an entry");
            builder.set_issuer_name(&name.build()).expect("an issuer");
        }
        builder
            .sign(&key, openssl::hash::MessageDigest::null())
            .expect("a signature");
        builder.build()
    }

    #[test]
    fn records_that_can_be_compared() {
        let whole = certificate();
        let der = whole.to_der().expect("DER");
        let key = whole.public_key().expect("a key");
        let key = key.public_key_to_der().expect("DER");
        for (numbers, data) in [
            ([2, 0, 0], &*der),
            ([3, 1, 0], &key),
            ([3, 1, 1], &[7; 32]),
            ([2, 0, 1], &[7; 32]),
            ([3, 0, 2], &[7; 64]),
        ] {
            let record = Record::parse(&[&numbers, data].concat()).expect("a record");
            let [usage, selector, matching] = numbers;
            assert_eq!(
                (record.usage, record.selector, record.matching),
                (usage, selector, matching)
            );
            assert_eq!(record.data, data);
        }
        let record = Record::parse(&[&[3, 1, 1][..], &[0xab; 32]].concat());
        assert_eq!(
            record.map(|one| one.to_string()),
            Ok("3 1 1 abababab".to_owned())
        );
    }

    #[test]
    fn a_refusal_names_what_was_compared() {
        let (own, issuer) = (certificate(), certificate());
        let chain = [own.clone(), issuer.clone()];
        let record = |usage, selector, matching| Record {
            usage,
            selector,
            matching,
            data: vec![0xab; 32],
        };
        let has = |text: &str, data: &[u8]| {
            assert!(
                text.ends_with(&format!(" is {}", beginning(data))),
                "{text}"
            );
        };
        let key = |one: &X509| one.public_key().and_then(|key| key.public_key_to_der());
        let (own_key, issuer_key) = (key(&own).expect("a key"), key(&issuer).expect("a key"));
        let one = |record| compared(&[record], &chain);
        let text = one(record(3, 1, 1));
        assert!(text.starts_with("3 1 1 abababab is published, and its own key is "));
        has(&text, &sha256(&own_key));
        has(&one(record(3, 1, 0)), &own_key);
        has(&one(record(3, 1, 2)), &sha512(&own_key));
        let text = one(record(2, 0, 1));
        assert!(
            text.contains(" its last issuer's certificate is "),
            "{text}"
        );
        has(&text, &sha256(&issuer.to_der().expect("DER")));
        has(&one(record(2, 1, 1)), &sha256(&issuer_key));
        // Of a chain of one, an authority's record meets no authority.
        let alone = compared(&[record(2, 1, 1)], &[issued_by("CA")]);
        assert!(
            alone.contains(" its own key is ")
                && alone.ends_with(", without the certificate of its issuer"),
            "{alone}"
        );
        let itself = compared(&[record(2, 1, 1)], &chain[..1]);
        assert!(itself.contains(" its own key is "), "{itself}");
        has(&itself, &sha256(&own_key));
        // The strongest digest of a kind, whole ones, and four at most.
        let count = |records: &[Record]| compared(records, &chain).matches("published").count();
        assert_eq!(count(&[record(3, 1, 1), record(3, 1, 2)]), 1);
        assert_eq!(count(&[record(3, 1, 1), record(2, 1, 2)]), 2);
        assert_eq!(count(&[record(3, 1, 1), record(3, 0, 2)]), 2);
        assert_eq!(count(&[record(3, 1, 0), record(3, 1, 2)]), 2);
        assert_eq!(count(&[record(3, 1, 1), record(3, 1, 1)]), 2);
        let many = compared(&[[3, 1, 1]; 6].map(|[a, b, c]| record(a, b, c)), &chain);
        assert!(many.ends_with("; and 2 more"), "{many}");
        let four = compared(&[[3, 1, 1]; 4].map(|[a, b, c]| record(a, b, c)), &chain);
        assert!(!four.contains("more"), "{four}");
    }

    #[test]
    fn what_is_published_is_the_digest_of_the_key() {
        let (own, issuer) = (certificate(), certificate());
        let digest = |one: &X509| {
            let key = one.public_key().and_then(|key| key.public_key_to_der());
            text::hex(&sha256(&key.expect("a key")))
        };
        let records = to_publish(&own, std::slice::from_ref(&issuer)).expect("records");
        let wanted = [
            format!("3 1 1 {}", digest(&own)),
            format!("2 1 1 {}", digest(&issuer)),
        ];
        assert_eq!(records, wanted);
        let record = Record::parse(&[&[3, 1, 1][..], &[7; 32]].concat()).expect("a record");
        assert_eq!(record.numbers(), [3, 1, 1]);
    }

    #[test]
    fn records_that_cannot() {
        let der = certificate().to_der().expect("DER");
        let long = [&der[..], &[0]].concat();
        for (numbers, data, why) in [
            (&[0, 0, 1][..], &[7; 32][..], Unusable::Usage(0)),
            (&[1, 1, 1], &[7; 32], Unusable::Usage(1)),
            (&[4, 1, 1], &[7; 32], Unusable::Usage(4)),
            (&[255, 1, 1], &[7; 32], Unusable::Usage(255)),
            (&[3, 2, 1], &[7; 32], Unusable::Selector(2)),
            (&[3, 1, 3], &[7; 32], Unusable::Matching(3)),
            (&[3, 1, 1], &[7; 31], Unusable::Length(31)),
            (&[3, 1, 1], &[7; 33], Unusable::Length(33)),
            (&[3, 1, 2], &[7; 32], Unusable::Length(32)),
            (&[3, 1, 1], &[], Unusable::Short),
            (&[3, 1, 0], &[], Unusable::Short),
            (&[3, 1], &[], Unusable::Short),
            (&[], &[], Unusable::Short),
            (&[3, 1, 0], &[7; 32], Unusable::Encoding),
            (&[3, 0, 0], &long, Unusable::Encoding),
            (&[3, 1, 0], &der, Unusable::Encoding),
        ] {
            let found = Record::parse(&[numbers, data].concat());
            assert_eq!(found, Err(why), "{numbers:?}");
        }
        for (why, words) in [
            (Unusable::Short, "it is too short"),
            (Unusable::Usage(1), "its usage 1 is neither 2 nor 3"),
            (Unusable::Selector(2), "its selector 2 is neither 0 nor 1"),
            (
                Unusable::Matching(3),
                "its matching type 3 is none of 0, 1, 2",
            ),
            (
                Unusable::Length(31),
                "its digest of 31 bytes has a wrong length",
            ),
            (Unusable::Encoding, "it holds no certificate or key"),
        ] {
            assert_eq!(why.to_string(), words);
        }
    }
}
