//! Real senders of mail, by what their ClientHello offers, to tell who cannot
//! talk to a server. Written from public documentation: the release notes and
//! default cipher lists of OpenSSL and GnuTLS, Microsoft's "TLS Cipher Suites in
//! Windows" and "Technical reference details about encryption" (Office 365), the
//! JSSE reference guides of Java 7 and 8, BoringSSL's defaults.
#![forbid(unsafe_code)]

use super::result::KeyType;
use super::result::Version::{self, Ssl3, Tls10, Tls11, Tls12, Tls13};

/// What a sender can work with.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// The kind, as it is listed.
    pub name: &'static str,
    /// It is in use by many and kept up: a server that refuses it loses mail.
    pub current: bool,
    /// Its versions.
    pub versions: &'static [Version],
    /// Its suites below TLS 1.3, in its order, by OpenSSL's names.
    pub suites: &'static [&'static str],
    /// It takes ECDSA certificates.
    pub ecdsa: bool,
    /// It takes Ed25519 certificates.
    pub ed25519: bool,
    /// The largest prime that it takes for DHE, in bits.
    pub largest_prime: Option<u32>,
    /// The smallest one, in bits.
    pub smallest_prime: u32,
    /// It refuses servers without RFC 5746 below TLS 1.3.
    pub renegotiates_securely: bool,
    /// The smallest RSA key that it takes, in bits.
    pub smallest_key: u32,
}

impl Sender {
    /// Whether it takes a certificate with such a key.
    #[must_use]
    pub fn takes(&self, key: KeyType, bits: u32) -> bool {
        match key {
            KeyType::Rsa => bits >= self.smallest_key,
            KeyType::Ecdsa => self.ecdsa,
            KeyType::Ed25519 => self.ed25519,
            KeyType::Unknown => false,
        }
    }

    /// The highest version that it shares with a server.
    #[must_use]
    pub fn common_version(&self, spoken: impl Fn(Version) -> bool) -> Option<Version> {
        self.versions
            .iter()
            .copied()
            .filter(|one| spoken(*one))
            .max()
    }
}

/// Who takes RSA certificates alone: many gateways and appliances.
pub const RSA_ONLY: &str = "RSA-only senders";
/// Whose library is older than 2018, or is not allowed it.
pub const WITHOUT_13: &str = "senders without TLS 1.3";

/// What Microsoft lists under "TLS cipher suites supported by Office 365", and
/// their kin for ECDSA, which Windows has beside them.
const EXCHANGE_ONLINE: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// OpenSSL's DEFAULT since 1.1.0.
const OPENSSL: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
    "DHE-RSA-AES256-SHA256",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "DHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "DHE-RSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "DHE-RSA-AES128-SHA",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
    "AES256-SHA256",
    "AES128-SHA256",
    "AES256-SHA",
    "AES128-SHA",
];

/// Those of it that need RSA.
const RSA: &[&str] = &[
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "DHE-RSA-AES256-SHA",
    "DHE-RSA-AES128-SHA",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
    "AES256-SHA256",
    "AES128-SHA256",
    "AES256-SHA",
    "AES128-SHA",
    "DES-CBC3-SHA",
];

/// Windows Server 2012 R2, by Microsoft's list.
const WINDOWS_2012: &[&str] = &[
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "DHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
    "AES256-SHA256",
    "AES128-SHA256",
    "AES256-SHA",
    "AES128-SHA",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "DES-CBC3-SHA",
    "RC4-SHA",
];

/// OpenSSL 0.9.8's DEFAULT, as RHEL 5 and SLES 11 had it.
const OPENSSL_098: &[&str] = &[
    "DHE-RSA-AES256-SHA",
    "AES256-SHA",
    "DHE-RSA-DES-CBC3-SHA",
    "DES-CBC3-SHA",
    "DHE-RSA-AES128-SHA",
    "AES128-SHA",
    "RC4-SHA",
    "RC4-MD5",
];

/// SunJSSE of Java 7, which has AES-256 only with another policy file.
const JAVA_7: &[&str] = &[
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "AES128-SHA",
    "DHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-RC4-SHA",
    "ECDHE-RSA-RC4-SHA",
    "RC4-SHA",
    "ECDHE-ECDSA-DES-CBC3-SHA",
    "ECDHE-RSA-DES-CBC3-SHA",
    "DES-CBC3-SHA",
    "DHE-RSA-DES-CBC3-SHA",
    "RC4-MD5",
];

/// Java 8 before its update 161: no AES-256 either.
const JAVA_8: &[&str] = &[
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "AES128-SHA256",
    "DHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "AES128-SHA",
    "DHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES128-GCM-SHA256",
    "DHE-RSA-AES128-GCM-SHA256",
];

/// The smallest RSA key that Windows takes since 2012: Microsoft Security Advisory
/// 2661254.
const WINDOWS_KEY: u32 = 1024;

const MODERN: Sender = Sender {
    name: "",
    current: true,
    versions: &[Tls12, Tls13],
    suites: OPENSSL,
    ecdsa: true,
    ed25519: false,
    largest_prime: None,
    smallest_prime: 0,
    renegotiates_securely: false,
    smallest_key: 0,
};

const OLD: Sender = Sender {
    current: false,
    versions: &[Tls10],
    ..MODERN
};

/// All that are compared, those first whose loss is felt most.
pub const SENDERS: &[Sender] = &[
    Sender {
        name: RSA_ONLY,
        versions: &[Tls10, Tls11, Tls12, Tls13],
        suites: RSA,
        ecdsa: false,
        ..MODERN
    },
    Sender {
        name: WITHOUT_13,
        versions: &[Tls10, Tls11, Tls12],
        ..MODERN
    },
    Sender {
        name: "Exchange Online",
        suites: EXCHANGE_ONLINE,
        smallest_key: WINDOWS_KEY,
        ..MODERN
    },
    Sender {
        name: "Gmail",
        versions: &[Tls10, Tls11, Tls12, Tls13],
        ..MODERN
    },
    Sender {
        // Both set security level 2 (SSL_CTX_set_security_level(3)).
        smallest_prime: 2048,
        renegotiates_securely: true,
        name: "OpenSSL 3 (Debian 12, RHEL 9)",
        ed25519: true,
        smallest_key: 2048,
        ..MODERN
    },
    Sender {
        name: "OpenSSL 1.0.2 (RHEL 7)",
        versions: &[Tls10, Tls11, Tls12],
        ..MODERN
    },
    Sender {
        // Ed25519 since its 3.6.
        name: "GnuTLS 3 (Exim on Debian)",
        ed25519: true,
        versions: &[Tls10, Tls11, Tls12, Tls13],
        ..MODERN
    },
    Sender {
        name: "Exchange 2013 (Windows Server 2012 R2)",
        versions: &[Tls10, Tls11, Tls12],
        suites: WINDOWS_2012,
        smallest_key: WINDOWS_KEY,
        ..MODERN
    },
    Sender {
        name: "Java 8",
        versions: &[Tls10, Tls11, Tls12],
        suites: JAVA_8,
        largest_prime: Some(2048),
        ..MODERN
    },
    Sender {
        name: "Java 7",
        suites: JAVA_7,
        largest_prime: Some(1024),
        ..OLD
    },
    Sender {
        name: "OpenSSL 0.9.8 (RHEL 5, SLES 11)",
        versions: &[Ssl3, Tls10],
        suites: OPENSSL_098,
        ecdsa: false,
        ..OLD
    },
    Sender {
        name: "Exchange 2003 (Windows Server 2003)",
        versions: &[Ssl3, Tls10],
        suites: &["RC4-MD5", "RC4-SHA", "DES-CBC3-SHA"],
        ecdsa: false,
        ..OLD
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::suites;

    #[test]
    fn every_sender_offers_suites_that_are_known_and_fit_its_versions() {
        for sender in SENDERS {
            assert!(!sender.name.is_empty() && !sender.versions.is_empty());
            for name in sender.suites {
                let suite = suites::called(name).expect(name);
                assert!(
                    sender.versions.iter().any(|version| suite.fits(*version)),
                    "{}: {name}",
                    sender.name
                );
                assert!(
                    sender.ecdsa || !suite.needs_ecdsa(),
                    "{}: {name}",
                    sender.name
                );
            }
        }
        let names: Vec<_> = SENDERS.iter().map(|one| one.name).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
    }

    #[test]
    fn the_highest_common_version_counts() {
        let sender = SENDERS
            .iter()
            .find(|one| one.name == "Java 8")
            .expect("listed");
        assert_eq!(sender.common_version(|one| one != Tls12), Some(Tls11));
        assert_eq!(sender.common_version(|one| one == Tls13), None);
    }
}
