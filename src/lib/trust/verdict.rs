//! What a judgement comes to, and its words for log, environment and report.
#![forbid(unsafe_code)]

use std::fmt;

use openssl::x509::{X509Ref, X509VerifyResult};

use super::reference::Name;
use super::{code, fingerprint};
use crate::host_name::Reference;
use crate::text;
use crate::tls_ffi::chain::result_of;
use crate::tls_ffi::names;

/// The kind of what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no certificate.
    Absent,
    /// Libcrypto found it in the chain.
    Chain(X509VerifyResult),
    /// It is none of the pinned ones.
    Fingerprint,
    /// The chain may be good, the name is not; the result that libcrypto has for
    /// this kind of name.
    Name(X509VerifyResult),
    /// It matches none of the TLSA records.
    Records,
    /// It was not looked at, or not to its end.
    Unjudged,
}

/// What was wrong with a peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub fault: Fault,
    /// Place in the chain: 0 is the peer's own.
    pub depth: u32,
    /// Subject of that certificate, in slash form; empty where there is none.
    pub subject: String,
    /// Libcrypto's words, or ours.
    pub reason: String,
    /// Where it is the name: which were wanted, and which it has.
    pub naming: Option<Naming>,
}

/// Why a certificate names another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The names of which it should bear one.
    pub wanted: Vec<Name>,
    /// The names that it holds, printable.
    pub borne: String,
    /// A wildcard among these stands for one that is wanted, and does not count.
    pub wildcard: bool,
}

impl Refusal {
    /// One that is about no certificate.
    pub(super) fn new(fault: Fault, reason: &str) -> Refusal {
        Refusal {
            fault,
            depth: 0,
            subject: String::new(),
            reason: reason.to_owned(),
            naming: None,
        }
    }

    /// The certificate is none of the pinned ones.
    pub(super) fn fingerprint(leaf: &X509Ref) -> Refusal {
        // As it can be put into tlsdestinations.
        let print = text::hex(&fingerprint(leaf).unwrap_or_default());
        Refusal {
            fault: Fault::Fingerprint,
            depth: 0,
            subject: names::slash_form(leaf.subject_name()),
            reason: format!("its fingerprint is none of those in tlsdestinations: it is ={print}"),
            naming: None,
        }
    }

    /// The certificate bears none of the names.
    pub(super) fn name(leaf: &X509Ref, wanted: &[Name]) -> Refusal {
        let address = |name: &Name| matches!(name.reference, Reference::Address(_));
        let result = result_of(if !wanted.is_empty() && wanted.iter().all(address) {
            code::IP_ADDRESS_MISMATCH
        } else {
            code::HOSTNAME_MISMATCH
        });
        Refusal {
            fault: Fault::Name(result),
            depth: 0,
            subject: names::slash_form(leaf.subject_name()),
            reason: result.error_string().to_owned(),
            naming: Some(Naming {
                wanted: wanted.to_vec(),
                borne: names::listed(leaf),
                wildcard: wanted.iter().any(|name| {
                    let wildcards = true;
                    Name {
                        wildcards,
                        ..name.clone()
                    }
                    .is_in(leaf)
                }),
            }),
        }
    }

    /// The chain matches none of the TLSA records.
    pub(super) fn records(leaf: &X509Ref, compared: &str) -> Refusal {
        Refusal {
            fault: Fault::Records,
            depth: 0,
            subject: names::slash_form(leaf.subject_name()),
            reason: format!("it matches no TLSA record: {compared}"),
            naming: None,
        }
    }

    /// Whether its chain leads to no anchor, or is past its date: what a pin would have
    /// excused.
    #[must_use]
    pub fn is_of_a_stranger(&self) -> bool {
        const EXCUSED: [i32; 6] = [
            code::UNABLE_TO_GET_ISSUER_CERT,
            code::CERT_HAS_EXPIRED,
            code::DEPTH_ZERO_SELF_SIGNED_CERT,
            code::SELF_SIGNED_CERT_IN_CHAIN,
            code::UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
            code::UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        ];
        matches!(self.fault, Fault::Chain(result) if EXCUSED.contains(&result.as_raw()))
    }

    /// Libcrypto's number for it, which decides the alert.
    pub(super) fn code(&self) -> i32 {
        match self.fault {
            Fault::Chain(result) | Fault::Name(result) => result.as_raw(),
            Fault::Records => code::DANE_NO_MATCH,
            Fault::Absent | Fault::Fingerprint | Fault::Unjudged => code::CERT_REJECTED,
        }
    }
}

/// `depth 1, /CN=Some CA: certificate has expired`.
impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.fault, Fault::Absent | Fault::Unjudged) {
            return out.write_str(&self.reason);
        }
        // `slash_form` left printable ASCII only.
        let subject = self.subject.get(..300).unwrap_or(&self.subject);
        write!(out, "depth {}, {subject}: {}", self.depth, self.reason)
    }
}

/// What became of a peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was asked for, and there is none.
    Absent,
    /// It was not asked for.
    NotAsked,
    /// It is a pinned one.
    Pinned,
    /// It matches a TLSA record with these numbers.
    Dane {
        /// 2 or 3.
        usage: u8,
        /// 0 or 1.
        selector: u8,
        /// 0, 1 or 2.
        matching: u8,
    },
    /// It did not verify, and was let pass: the first thing that was wrong.
    Unverified(Refusal),
    /// Every check came out well; the name that was found where one was asked
    /// for.
    Verified(Option<Name>),
}

impl Verdict {
    /// The value of `SSL_CLIENT_VERIFY` or `SSL_SERVER_VERIFY`.
    #[must_use]
    pub fn variable(&self) -> String {
        match self {
            Verdict::Absent | Verdict::NotAsked => "NONE".to_owned(),
            Verdict::Pinned => "PINNED".to_owned(),
            Verdict::Unverified(refusal) => format!("FAILED:{}", refusal.reason),
            Verdict::Verified(_) => "SUCCESS".to_owned(),
            Verdict::Dane { .. } => "DANE".to_owned(),
        }
    }

    /// Sendmail's word for the TLS line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Absent => "NO",
            Verdict::NotAsked => "NOT",
            Verdict::Pinned | Verdict::Dane { .. } | Verdict::Verified(_) => "OK",
            Verdict::Unverified(_) => "FAIL",
        }
    }

    /// What was wrong and let pass, if anything was.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Verdict::Unverified(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// As a delivery's report says it: `verified mx.example (name from DNS)`.
impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Absent => out.write_str("anonymous"),
            Verdict::NotAsked => out.write_str("unverified"),
            Verdict::Pinned => out.write_str("pinned"),
            Verdict::Dane {
                usage,
                selector,
                matching,
            } => write!(out, "dane {usage} {selector} {matching}"),
            Verdict::Unverified(refusal) => write!(out, "unverified: {refusal}"),
            Verdict::Verified(None) => out.write_str("verified"),
            Verdict::Verified(Some(name)) => {
                write!(out, "verified {}", name.reference)?;
                if name.from_dns {
                    out.write_str(" (name from DNS)")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_have_their_words_everywhere() {
        let refusal = Refusal {
            subject: "/CN=x".to_owned(),
            depth: 1,
            ..Refusal::new(Fault::Fingerprint, "no good")
        };
        let signed = Name::new(Reference::parse("mx.example").expect("a name"));
        let forged = Name {
            from_dns: true,
            ..signed.clone()
        };
        let dane = Verdict::Dane {
            usage: 3,
            selector: 1,
            matching: 2,
        };
        for (verdict, variable, word, text) in [
            (Verdict::Absent, "NONE", "NO", "anonymous"),
            (Verdict::NotAsked, "NONE", "NOT", "unverified"),
            (Verdict::Pinned, "PINNED", "OK", "pinned"),
            (dane, "DANE", "OK", "dane 3 1 2"),
            (
                Verdict::Unverified(refusal.clone()),
                "FAILED:no good",
                "FAIL",
                "unverified: depth 1, /CN=x: no good",
            ),
            (Verdict::Verified(None), "SUCCESS", "OK", "verified"),
            (
                Verdict::Verified(Some(signed)),
                "SUCCESS",
                "OK",
                "verified mx.example",
            ),
            (
                Verdict::Verified(Some(forged)),
                "SUCCESS",
                "OK",
                "verified mx.example (name from DNS)",
            ),
        ] {
            assert_eq!(verdict.variable(), variable);
            assert_eq!(verdict.word(), word);
            assert_eq!(verdict.to_string(), text);
            let bad = matches!(verdict, Verdict::Unverified(_));
            assert_eq!(verdict.refusal(), bad.then_some(&refusal));
        }
        // Who is not there has no subject.
        let absent = Refusal::new(Fault::Absent, "there is none");
        assert_eq!(absent.to_string(), "there is none");
    }

    /// What a pin would have excused is about the way to an anchor, or the date.
    #[test]
    fn strangers_are_those_whose_chain_alone_is_at_fault() {
        for (result, stranger) in [
            (code::UNABLE_TO_GET_ISSUER_CERT, true),
            (code::CERT_HAS_EXPIRED, true),
            (code::DEPTH_ZERO_SELF_SIGNED_CERT, true),
            (code::SELF_SIGNED_CERT_IN_CHAIN, true),
            (code::UNABLE_TO_GET_ISSUER_CERT_LOCALLY, true),
            (code::UNABLE_TO_VERIFY_LEAF_SIGNATURE, true),
            // X509_V_ERR_CERT_SIGNATURE_FAILURE, X509_V_ERR_CERT_REVOKED.
            (7, false),
            (23, false),
        ] {
            let refusal = Refusal::new(Fault::Chain(result_of(result)), "no good");
            assert_eq!(refusal.is_of_a_stranger(), stranger, "{result}");
            assert_eq!(refusal.code(), result);
        }
        let expired = result_of(code::CERT_HAS_EXPIRED);
        for (fault, number) in [
            (Fault::Name(expired), code::CERT_HAS_EXPIRED),
            (Fault::Records, code::DANE_NO_MATCH),
            (Fault::Absent, code::CERT_REJECTED),
            (Fault::Fingerprint, code::CERT_REJECTED),
            (Fault::Unjudged, code::CERT_REJECTED),
        ] {
            let refusal = Refusal::new(fault, "no good");
            assert!(!refusal.is_of_a_stranger(), "{fault:?}");
            assert_eq!(refusal.code(), number, "{fault:?}");
        }
    }
}
