//! What a file holds where a PEM key or certificate was wanted, and what makes
//! one of it: in a few words, none of which are the file's.
#![forbid(unsafe_code)]

use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Crl};

/// Why a file has no private key that could be read.
#[must_use]
pub fn instead_of_key(bytes: &[u8]) -> String {
    const NONE: &str = "no PEM private key in it";
    let what = if bytes.is_empty() {
        return "it is empty".to_owned();
    } else if has_block(bytes, b"OPENSSH PRIVATE KEY") {
        "it is a key of OpenSSH's form; a copy is converted by ssh-keygen -p -m PEM -f"
    } else if has_block(bytes, b"PRIVATE KEY") {
        return "its PEM private key is damaged".to_owned();
    } else if has_block(bytes, b"CERTIFICATE REQUEST") {
        "it holds a certificate request"
    } else if has_block(bytes, b"CERTIFICATE") {
        "it holds a certificate"
    } else if has_block(bytes, b"PUBLIC KEY") {
        "it holds a public key"
    } else if PKey::private_key_from_der(bytes).is_ok() {
        "it is in DER form; openssl pkey -inform DER converts it"
    } else if let Some(other) = binary(bytes) {
        other
    } else {
        return NONE.to_owned();
    };
    format!("{NONE}: {what}")
}

/// Why a file has no certificate.
#[must_use]
pub fn instead_of_certificate(bytes: &[u8]) -> String {
    const NONE: &str = "no PEM certificate in it";
    let what = if bytes.is_empty() {
        return "it is empty".to_owned();
    } else if has_block(bytes, b"PRIVATE KEY") {
        "it holds a private key"
    } else if has_block(bytes, b"CERTIFICATE REQUEST") {
        "it holds a certificate request, which an authority makes a certificate of"
    } else if X509::from_der(bytes).is_ok() {
        "it is in DER form; openssl x509 -inform DER converts it"
    } else if let Some(other) = binary(bytes) {
        other
    } else {
        return NONE.to_owned();
    };
    format!("{NONE}: {what}")
}

/// Why a file has no revocation list.
#[must_use]
pub fn instead_of_list(bytes: &[u8]) -> String {
    const NONE: &str = "no PEM revocation list in it";
    let what = if bytes.is_empty() {
        return "it is empty".to_owned();
    } else if has_block(bytes, b"PRIVATE KEY") {
        "it holds a private key"
    } else if has_block(bytes, b"CERTIFICATE") {
        "it holds a certificate"
    } else if X509Crl::from_der(bytes).is_ok() {
        "it is in DER form; openssl crl -inform DER converts it"
    } else if let Some(other) = binary(bytes) {
        other
    } else {
        return NONE.to_owned();
    };
    format!("{NONE}: {what}")
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
    use super::*;

    #[test]
    fn what_is_no_key_is_told_by_its_form() {
        for (bytes, said) in [
            (&b""[..], "it is empty"),
            (b"junk\n", "no PEM private key in it"),
            (
                b"-----BEGIN CERTIFICATE-----\n",
                "no PEM private key in it: it holds a certificate",
            ),
            (
                b"-----BEGIN CERTIFICATE REQUEST-----\r\n",
                "no PEM private key in it: it holds a certificate request",
            ),
            (
                b"x\n-----BEGIN PUBLIC KEY-----\n",
                "no PEM private key in it: it holds a public key",
            ),
            (
                b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n",
                "its PEM private key is damaged",
            ),
            (
                b"\x30\x82\x01",
                "no PEM private key in it: it is in a binary form, DER perhaps",
            ),
        ] {
            assert_eq!(instead_of_key(bytes), said);
        }
        assert!(instead_of_key(b"-----BEGIN OPENSSH PRIVATE KEY-----\n").contains("ssh-keygen"));
        let der = PKey::generate_ed25519().and_then(|key| key.private_key_to_der());
        assert_eq!(
            instead_of_key(&der.expect("a key")),
            "no PEM private key in it: it is in DER form; openssl pkey -inform DER converts it"
        );
    }

    #[test]
    fn what_is_no_list_is_told_by_its_form() {
        for (bytes, said) in [
            (&b""[..], "it is empty"),
            (b"junk\n", "no PEM revocation list in it"),
            (
                b"-----BEGIN CERTIFICATE-----\n",
                "no PEM revocation list in it: it holds a certificate",
            ),
            (
                b"-----BEGIN EC PRIVATE KEY-----\n",
                "no PEM revocation list in it: it holds a private key",
            ),
            (
                b"\x30\x82\x01",
                "no PEM revocation list in it: it is in a binary form, DER perhaps",
            ),
        ] {
            assert_eq!(instead_of_list(bytes), said);
        }
    }

    #[test]
    fn what_is_no_certificate_is_told_by_its_form() {
        for (bytes, said) in [
            (&b""[..], "it is empty"),
            (b"junk\n", "no PEM certificate in it"),
            (
                b"-----BEGIN EC PRIVATE KEY-----\n",
                "no PEM certificate in it: it holds a private key",
            ),
            (
                b"\x30\x82\x01",
                "no PEM certificate in it: it is in a binary form, DER perhaps",
            ),
        ] {
            assert_eq!(instead_of_certificate(bytes), said);
        }
    }
}
