//! What a file holds where a PEM key or certificate was wanted, and what makes
//! one of it: in a few words, none of which are the file's.
#![forbid(unsafe_code)]

use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Crl};

/// What a file is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemContent {
    /// A certificate.
    Certificate,
    /// A private key that can be read.
    Key,
    /// A certificate revocation list.
    List,
}

/// What is told of a file that lacks what it is to have.
struct Told {
    none: &'static str,
    /// By the PEM blocks that it has instead: the first of these.
    blocks: &'static [(&'static [u8], &'static str)],
    /// Whether it is in DER form.
    is_der: fn(&[u8]) -> bool,
    der: &'static str,
}

/// The label of a key that only OpenSSH reads.
const OPENSSH: &[u8] = b"OPENSSH PRIVATE KEY";

impl PemContent {
    fn told(self) -> Told {
        match self {
            PemContent::Certificate => Told {
                none: "no PEM certificate in it",
                blocks: &[
                    (b"PRIVATE KEY", "it holds a private key"),
                    (
                        b"CERTIFICATE REQUEST",
                        "it holds a certificate request, which an authority makes a certificate of",
                    ),
                ],
                is_der: |bytes| X509::from_der(bytes).is_ok(),
                der: "it is in DER form; openssl x509 -inform DER converts it",
            },
            PemContent::Key => Told {
                none: "no PEM private key in it",
                blocks: &[
                    (
                        OPENSSH,
                        "it is a key of OpenSSH's form; a copy is converted by ssh-keygen -p -m PEM -f",
                    ),
                    (b"CERTIFICATE REQUEST", "it holds a certificate request"),
                    (b"CERTIFICATE", "it holds a certificate"),
                    (b"PUBLIC KEY", "it holds a public key"),
                ],
                is_der: |bytes| PKey::private_key_from_der(bytes).is_ok(),
                der: "it is in DER form; openssl pkey -inform DER converts it",
            },
            PemContent::List => Told {
                none: "no PEM revocation list in it",
                blocks: &[
                    (b"PRIVATE KEY", "it holds a private key"),
                    (b"CERTIFICATE", "it holds a certificate"),
                ],
                is_der: |bytes| X509Crl::from_der(bytes).is_ok(),
                der: "it is in DER form; openssl crl -inform DER converts it",
            },
        }
    }

    /// Why a file does not have it.
    #[must_use]
    pub fn missing_in(self, bytes: &[u8]) -> String {
        if bytes.is_empty() {
            return "it is empty".to_owned();
        }
        if self == PemContent::Key && has_key(bytes) && !has_block(bytes, OPENSSH) {
            return "its PEM private key is damaged".to_owned();
        }
        let told = self.told();
        let instead = told
            .blocks
            .iter()
            .find(|(label, _)| has_block(bytes, label));
        let what = match instead {
            Some((_, what)) => Some(*what),
            None if (told.is_der)(bytes) => Some(told.der),
            None => binary(bytes),
        };
        what.map_or(told.none.to_owned(), |what| {
            format!("{}: {what}", told.none)
        })
    }
}

/// Whether a text has a private key, of whatever form.
#[must_use]
pub fn has_key(bytes: &[u8]) -> bool {
    has_block(bytes, b"PRIVATE KEY")
}

/// What is known of a file without PEM blocks.
fn binary(bytes: &[u8]) -> Option<&'static str> {
    if Pkcs12::from_der(bytes).is_ok() {
        return Some("it is in PKCS #12 form; openssl pkcs12 -nodes converts it");
    }
    // PKCS #7 and encrypted PKCS #8 among others: an ASN.1 sequence.
    (bytes.first() == Some(&0x30)).then_some("it is in a binary form, DER perhaps")
}

/// Whether a PEM block begins whose label ends so (RFC 7468 section 2).
fn has_block(bytes: &[u8], label: &[u8]) -> bool {
    bytes.split(|&byte| byte == b'\n').any(|line| {
        line.trim_ascii_end()
            .strip_prefix(b"-----BEGIN ")
            .and_then(|line| line.strip_suffix(b"-----"))
            .is_some_and(|found| found.ends_with(label))
    })
}

#[cfg(test)]
mod tests {
    use super::PemContent::{Certificate, Key, List};
    use super::*;

    #[test]
    fn what_is_there_instead_is_told_by_its_form() {
        let binary = &b"\x30\x82\x01"[..];
        for (wanted, bytes, said) in [
            (Key, &b"junk\n"[..], "no PEM private key in it"),
            (
                Key,
                b"-----BEGIN CERTIFICATE-----\n",
                "no PEM private key in it: it holds a certificate",
            ),
            (
                Key,
                b"-----BEGIN CERTIFICATE REQUEST-----\r\n",
                "no PEM private key in it: it holds a certificate request",
            ),
            (
                Key,
                b"x\n-----BEGIN PUBLIC KEY-----\n",
                "no PEM private key in it: it holds a public key",
            ),
            (
                Key,
                b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n",
                "its PEM private key is damaged",
            ),
            (
                Key,
                binary,
                "no PEM private key in it: it is in a binary form, DER perhaps",
            ),
            (List, b"junk\n", "no PEM revocation list in it"),
            (
                List,
                b"-----BEGIN CERTIFICATE-----\n",
                "no PEM revocation list in it: it holds a certificate",
            ),
            (
                List,
                b"-----BEGIN EC PRIVATE KEY-----\n",
                "no PEM revocation list in it: it holds a private key",
            ),
            (
                List,
                binary,
                "no PEM revocation list in it: it is in a binary form, DER perhaps",
            ),
            (Certificate, b"junk\n", "no PEM certificate in it"),
            (
                Certificate,
                b"-----BEGIN EC PRIVATE KEY-----\n",
                "no PEM certificate in it: it holds a private key",
            ),
            (
                Certificate,
                binary,
                "no PEM certificate in it: it is in a binary form, DER perhaps",
            ),
        ] {
            assert_eq!(wanted.missing_in(bytes), said);
            assert_eq!(wanted.missing_in(b""), "it is empty");
        }
        let openssh = Key.missing_in(b"-----BEGIN OPENSSH PRIVATE KEY-----\n");
        assert!(openssh.contains("ssh-keygen"));
        let der = PKey::generate_ed25519().and_then(|key| key.private_key_to_der());
        assert_eq!(
            Key.missing_in(&der.expect("a key")),
            "no PEM private key in it: it is in DER form; openssl pkey -inform DER converts it"
        );
    }
}
