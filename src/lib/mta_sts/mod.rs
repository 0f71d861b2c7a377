//! MTA-STS (RFC 8461): what a domain's record and policy say, the directory that
//! remembers policies, and the process that fetches one. Who asks DNS, and what a
//! delivery makes of a policy, is decided elsewhere.
#![forbid(unsafe_code)]

use std::fmt;

pub mod cache;
pub mod fetch;
pub mod policy;
pub mod record;

pub use policy::Policy;

/// What came between a domain's record and its policy, as RFC 8460 (4.3.2.2) sorts
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyFailureKind {
    /// It could not be fetched.
    Fetch,
    /// What was fetched is no policy.
    Invalid,
    /// The web server's certificate did not verify.
    Certificate,
}

/// Why there is no policy where there should be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFailure {
    /// Its kind.
    pub kind: PolicyFailureKind,
    /// Printable words that end a sentence.
    pub why: String,
}

impl PolicyFailure {
    /// Of a kind.
    pub fn new(kind: PolicyFailureKind, why: impl Into<String>) -> PolicyFailure {
        let why = why.into();
        PolicyFailure { kind, why }
    }
}

impl fmt::Display for PolicyFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.why)
    }
}

/// A domain that may have a policy, in the spelling of its files: small letters,
/// digits, dots, and what else can stand in the name of a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDomain(String);

impl PolicyDomain {
    /// A domain as DNS has it, in ASCII. `None`: there can be no web server of that
    /// name.
    #[must_use]
    pub fn new(domain: &str) -> Option<PolicyDomain> {
        let name = domain.to_ascii_lowercase();
        // RFC 3986, 3.2.2: `reg-name`, but for what it would have to encode.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
        let labels = name.split('.').all(|label| !label.is_empty());
        // A last label of digits is an address, to some.
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
        // RFC 1035, 2.3.4, with room for `_mta-sts.`.
        (labels && !numeric && name.len() <= 244 && name.bytes().all(known))
            .then_some(PolicyDomain(name))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Where its record is (RFC 8461, 3.1).
    #[must_use]
    pub fn record_name(&self) -> String {
        format!("_mta-sts.{}", self.0)
    }

    /// Where its policy is (RFC 8461, 3.3).
    #[must_use]
    pub fn policy_host(&self) -> String {
        format!("mta-sts.{}", self.0)
    }
}

impl fmt::Display for PolicyDomain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_s_name_can_be_a_file_s() {
        for (name, is) in [
            ("Example.ORG", true),
            ("xn--bcher-kva.test", true),
            ("a_b.test", true),
            ("plus+x.test", true),
            ("o'brien,~!.test", true),
            ("a:b.test", false),
            ("a%b.test", false),
            ("a b.test", false),
            ("a\0b.test", false),
            ("test", true),
            ("", false),
            (".", false),
            ("..", false),
            (".test", false),
            ("test.", false),
            ("a..b", false),
            ("../x.test", false),
            ("a/b.test", false),
            ("a\\046b.test", false),
            ("192.0.2.1", false),
            ("[192.0.2.1]", false),
            ("b\u{fc}cher.test", false),
        ] {
            let found = PolicyDomain::new(name);
            assert_eq!(found.is_some(), is, "{name}");
            if let Some(found) = found {
                assert_eq!(found.name(), name.to_ascii_lowercase());
            }
        }
        assert!(PolicyDomain::new(&"a.".repeat(122)).is_none());
        let long = format!("{}a", "a.".repeat(121));
        let domain = PolicyDomain::new(&long).expect("a domain");
        assert_eq!(domain.record_name(), format!("_mta-sts.{long}"));
        assert_eq!(domain.policy_host(), format!("mta-sts.{long}"));
    }
}
