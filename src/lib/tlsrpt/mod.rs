//! TLS reporting (RFC 8460): the words for what became of a session, the lines in
//! which sessions are kept, and what a domain publishes of where its reports go.
#![forbid(unsafe_code)]

use openssl::x509::X509VerifyResult;
use serde::{Deserialize, Serialize};

use crate::trust;

pub mod header;
pub mod journal;
pub mod record;

/// What TLS failed of: RFC 8460, 4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultType {
    /// The server offered no TLS, or refused it.
    StarttlsNotSupported,
    /// The certificate is another host's.
    CertificateHostMismatch,
    /// It has expired, or does not hold yet.
    CertificateExpired,
    /// It leads to no authority that is trusted, or not soundly.
    CertificateNotTrusted,
    /// Anything else.
    ValidationFailure,
    /// No TLSA record is of use.
    TlsaInvalid,
    /// The TLSA records do not validate, or nobody could tell.
    DnssecInvalid,
    /// DANE was required here, and does not apply.
    DaneRequired,
    /// The policy of MTA-STS could not be fetched.
    StsPolicyFetchError,
    /// What was fetched is no policy.
    StsPolicyInvalid,
    /// The host of the policy has no certificate that verifies.
    StsWebpkiInvalid,
}

impl ResultType {
    /// The word for a certificate that was refused.
    #[must_use]
    pub fn of_certificate(fault: trust::Fault) -> ResultType {
        match fault {
            trust::Fault::Chain(result) => ResultType::of_chain(result),
            trust::Fault::Name(_) => ResultType::CertificateHostMismatch,
            trust::Fault::Fingerprint => ResultType::CertificateNotTrusted,
            trust::Fault::Records | trust::Fault::Absent | trust::Fault::Unjudged => {
                ResultType::ValidationFailure
            }
        }
    }

    /// The word for what libcrypto found wrong with a chain. `certificate-not-trusted`
    /// covers all that has no word of its own, constraints of names included.
    fn of_chain(result: X509VerifyResult) -> ResultType {
        /// `X509_V_ERR_*` of x509_vfy.h.
        mod code {
            pub const CERT_NOT_YET_VALID: i32 = 9;
            pub const CERT_HAS_EXPIRED: i32 = 10;
            pub const OUT_OF_MEM: i32 = 17;
            pub const HOSTNAME_MISMATCH: i32 = 62;
            pub const IP_ADDRESS_MISMATCH: i32 = 64;
            pub const DANE_NO_MATCH: i32 = 65;
        }
        match result.as_raw() {
            code::CERT_NOT_YET_VALID | code::CERT_HAS_EXPIRED => ResultType::CertificateExpired,
            code::HOSTNAME_MISMATCH | code::IP_ADDRESS_MISMATCH => {
                ResultType::CertificateHostMismatch
            }
            code::DANE_NO_MATCH | code::OUT_OF_MEM => ResultType::ValidationFailure,
            _ => ResultType::CertificateNotTrusted,
        }
    }
}

/// Whose policy a session was under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyType {
    /// DANE's.
    Tlsa,
    /// MTA-STS's.
    Sts,
    /// None of the domain's.
    NoPolicyFound,
}

/// The policy that a session was held to: RFC 8460, 4.4.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppliedPolicy {
    /// Whose.
    #[serde(rename = "policy-type")]
    pub kind: PolicyType,
    /// Its text: the data of TLSA records, or the lines of a policy.
    #[serde(
        rename = "policy-string",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub text: Vec<String>,
    /// The recipient's domain, or the relay.
    #[serde(rename = "policy-domain")]
    pub domain: String,
    /// The patterns that hosts must match, under MTA-STS.
    #[serde(rename = "mx-host", default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// Where a session was, and what it failed of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Place {
    /// From where it was tried; none where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_mta_ip: Option<String>,
    /// The host's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receiving_mx_hostname: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receiving_ip: String,
    /// The reason in words, of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason_code: Option<String>,
}

/// One session with a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Session {
    /// When it ended: ISO 8601.
    pub time: String,
    /// Under which policy.
    #[serde(flatten)]
    pub policy: AppliedPolicy,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What it failed of; none where TLS was as the policy wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_type: Option<ResultType>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_word_of_the_rfc() {
        use ResultType as R;
        for (result, word) in [
            (R::StarttlsNotSupported, "starttls-not-supported"),
            (R::CertificateHostMismatch, "certificate-host-mismatch"),
            (R::CertificateExpired, "certificate-expired"),
            (R::CertificateNotTrusted, "certificate-not-trusted"),
            (R::ValidationFailure, "validation-failure"),
            (R::TlsaInvalid, "tlsa-invalid"),
            (R::DnssecInvalid, "dnssec-invalid"),
            (R::DaneRequired, "dane-required"),
            (R::StsPolicyFetchError, "sts-policy-fetch-error"),
            (R::StsPolicyInvalid, "sts-policy-invalid"),
            (R::StsWebpkiInvalid, "sts-webpki-invalid"),
        ] {
            let json = serde_json::to_string(&result).expect("JSON");
            assert_eq!(json, format!("\"{word}\""));
        }
        for (policy, word) in [
            (PolicyType::Tlsa, "tlsa"),
            (PolicyType::Sts, "sts"),
            (PolicyType::NoPolicyFound, "no-policy-found"),
        ] {
            let json = serde_json::to_string(&policy).expect("JSON");
            assert_eq!(json, format!("\"{word}\""));
        }
    }
}
