//! Cipher suites by number and name, and what is to be said of each.
#![forbid(unsafe_code)]

use super::result::Version;

mod table;

/// From which version on a suite is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Any below TLS 1.3.
    Any,
    /// TLS 1.2 only.
    Twelve,
    /// TLS 1.3 only.
    Thirteen,
}

/// A cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// IANA's number.
    pub number: u16,
    /// OpenSSL's name.
    pub name: &'static str,
    /// Where it is used.
    pub since: Since,
}

/// What is wrong with a suite, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weakness {
    /// A key of 40 or 56 bits, by the law of the 1990s.
    Export,
    /// Nothing is encrypted.
    Null,
    /// RFC 7465.
    Rc4,
    /// DES and RC2: 56 bits.
    Des,
    /// 64-bit blocks (CVE-2016-2183).
    TripleDes,
    /// Nobody shows a certificate.
    Anonymous,
    /// Who has the key later reads what was recorded.
    NoForwardSecrecy,
}

impl Weakness {
    /// The word for it in a sentence.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Weakness::Export => "EXPORT",
            Weakness::Null => "NULL",
            Weakness::Rc4 => "RC4",
            Weakness::Des => "DES",
            Weakness::TripleDes => "3DES",
            Weakness::Anonymous => "anonymous",
            Weakness::NoForwardSecrecy => "without forward secrecy",
        }
    }
}

impl Suite {
    /// Whether it can be agreed on under a version.
    #[must_use]
    pub fn fits(&self, version: Version) -> bool {
        match self.since {
            // What needs ECDHE needs extensions, which SSL 3.0 lacks.
            Since::Any if version == Version::Ssl3 => !self.name.contains("ECDH"),
            Since::Any => version < Version::Tls13,
            Since::Twelve => version == Version::Tls12,
            Since::Thirteen => version == Version::Tls13,
        }
    }

    /// What is wrong with it, if something is.
    #[must_use]
    pub fn weakness(&self) -> Option<Weakness> {
        let has = |word: &str| self.name.contains(word);
        if self.since == Since::Thirteen {
            return None;
        }
        Some(if has("EXP") {
            Weakness::Export
        } else if has("NULL") {
            Weakness::Null
        } else if has("RC4") {
            Weakness::Rc4
        } else if has("DES-CBC3") {
            Weakness::TripleDes
        } else if has("DES-CBC-") || has("RC2") {
            Weakness::Des
        } else if has("ADH") || has("AECDH") {
            Weakness::Anonymous
        } else if !self.is_ephemeral() {
            Weakness::NoForwardSecrecy
        } else {
            return None;
        })
    }

    /// Whether the key exchange is one of (elliptic-curve) Diffie-Hellman.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.since == Since::Thirteen || self.has_finite_field() || self.name.contains("ECDH")
    }

    /// Whether it is Diffie-Hellman with a prime of the server's choice.
    #[must_use]
    pub fn has_finite_field(&self) -> bool {
        let exchange = ["DHE-", "EDH-", "ADH-"];
        let begins = |name: &str| exchange.iter().any(|one| name.starts_with(one));
        let name = self.name.split_once('-');
        begins(self.name)
            || self.name.starts_with("EXP") && name.is_some_and(|(_, rest)| begins(rest))
    }

    /// Whether the server shows an RSA certificate for it; TLS 1.3 leaves that
    /// open.
    #[must_use]
    pub fn needs_rsa(&self) -> bool {
        self.since != Since::Thirteen
            && !self.needs_ecdsa()
            && !self.is_anonymous()
            && !self.needs_dss()
    }

    /// Whether the server shows an ECDSA (or EdDSA) certificate for it.
    #[must_use]
    pub fn needs_ecdsa(&self) -> bool {
        self.name.contains("-ECDSA-")
    }

    fn needs_dss(&self) -> bool {
        self.name.contains("DSS-")
    }

    /// Whether the server shows no certificate for it.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.name.contains("ADH-") || self.name.contains("AECDH-")
    }
}

/// The suites that can be agreed on under a version, in the order in which they
/// are offered: the best first.
pub fn of_version(version: Version) -> impl Iterator<Item = &'static Suite> {
    table::SUITES
        .iter()
        .filter(move |suite| suite.fits(version))
}

/// The suite with a number.
#[must_use]
pub fn known(number: u16) -> Option<&'static Suite> {
    table::SUITES.iter().find(|suite| suite.number == number)
}

/// The suite that OpenSSL calls so.
#[must_use]
pub fn called(name: &str) -> Option<&'static Suite> {
    table::SUITES.iter().find(|suite| suite.name == name)
}

/// OpenSSL's name, or the number where there is none.
#[must_use]
pub fn name(number: u16) -> String {
    known(number).map_or_else(|| format!("0x{number:04X}"), |suite| suite.name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suite_stands_once_and_the_weak_come_last() {
        let all = table::SUITES;
        for (at, suite) in all.iter().enumerate() {
            let again = all[at + 1..].iter();
            assert!(
                again
                    .clone()
                    .all(|one| one.number != suite.number && one.name != suite.name),
                "{suite:?}"
            );
        }
        let of = |version| of_version(version).map(Suite::weakness).collect::<Vec<_>>();
        let list = of(Version::Tls12);
        let first_weak = list.iter().position(Option::is_some).expect("some are");
        assert!(list[first_weak..].iter().all(Option::is_some));
    }

    #[test]
    fn weaknesses_and_key_exchanges_are_those_of_the_names() {
        use Weakness::*;
        for (name, weakness, ephemeral, finite, rsa) in [
            ("EXP-RC4-MD5", Some(Export), false, false, true),
            ("EXP-EDH-RSA-DES-CBC-SHA", Some(Export), true, true, true),
            ("EXP-ADH-RC4-MD5", Some(Export), true, true, false),
            ("NULL-SHA", Some(Null), false, false, true),
            ("RC4-SHA", Some(Rc4), false, false, true),
            ("DES-CBC-SHA", Some(Des), false, false, true),
            ("DES-CBC3-SHA", Some(TripleDes), false, false, true),
            ("DHE-RSA-DES-CBC3-SHA", Some(TripleDes), true, true, true),
            ("ADH-AES128-SHA", Some(Anonymous), true, true, false),
            ("AECDH-AES128-SHA", Some(Anonymous), true, false, false),
            ("AES128-SHA", Some(NoForwardSecrecy), false, false, true),
            ("ECDHE-RSA-AES128-GCM-SHA256", None, true, false, true),
            ("ECDHE-ECDSA-AES128-SHA", None, true, false, false),
            ("DHE-RSA-AES256-SHA", None, true, true, true),
            ("TLS_AES_128_GCM_SHA256", None, true, false, false),
        ] {
            let suite = called(name).expect(name);
            assert_eq!(suite.weakness(), weakness, "{name}");
            assert_eq!(suite.is_ephemeral(), ephemeral, "{name}");
            assert_eq!(suite.has_finite_field(), finite, "{name}");
            assert_eq!(suite.needs_rsa(), rsa, "{name}");
        }
        assert_eq!(name(0xfefe), "0xFEFE");
        assert!(
            !called("ECDHE-RSA-AES128-SHA")
                .expect("known")
                .fits(Version::Ssl3)
        );
    }
}
