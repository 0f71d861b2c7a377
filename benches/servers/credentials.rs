//! The bench's own CA and certificates, made afresh for each run.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef};

use crate::{Outcome, because};

/// The key a server certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Ecdsa,
    Rsa,
}

impl Key {
    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Key::Ecdsa => "ECDSA P-256",
            Key::Rsa => "RSA-2048",
        }
    }
}

/// Where the files of a run are.
#[derive(Debug)]
pub struct Credentials {
    pub ca: PathBuf,
    directory: PathBuf,
}

impl Credentials {
    /// Makes one CA and a certificate for 127.0.0.1 per kind of key.
    pub fn make(directory: &Path) -> Outcome<Self> {
        let credentials = Credentials {
            ca: directory.join("ca.pem"),
            directory: directory.to_owned(),
        };
        let (root, root_key) = authority().map_err(because("make a CA"))?;
        write(
            &credentials.ca,
            &root.to_pem().map_err(because("encode the CA"))?,
        )?;
        for key in [Key::Ecdsa, Key::Rsa] {
            let (certificate, secret) =
                leaf(key, &root, &root_key).map_err(because("make a certificate"))?;
            write(
                &credentials.certificate(key),
                &certificate
                    .to_pem()
                    .map_err(because("encode a certificate"))?,
            )?;
            write(
                &credentials.key(key),
                &secret
                    .private_key_to_pem_pkcs8()
                    .map_err(because("encode a key"))?,
            )?;
        }
        Ok(credentials)
    }

    /// The PEM file with this key's certificate.
    pub fn certificate(&self, key: Key) -> PathBuf {
        self.directory.join(format!("{key:?}.pem"))
    }

    /// The PEM file with this key.
    pub fn key(&self, key: Key) -> PathBuf {
        self.directory.join(format!("{key:?}.key"))
    }
}

fn write(path: &Path, content: &[u8]) -> Outcome<()> {
    fs::write(path, content).map_err(because(format!("write {}", path.display())))?;
    // stunnel complains about keys that others can read.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(because("set permissions"))
}

fn p256() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn name(text: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, text)?;
    Ok(name.build())
}

fn begin(
    serial: u32,
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKey<Private>,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = BigNum::from_u32(serial)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    let (from, to) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(30)?);
    builder.set_not_before(&from)?;
    builder.set_not_after(&to)?;
    Ok(builder)
}

fn authority() -> Result<(X509, PKey<Private>), ErrorStack> {
    let (key, subject) = (p256()?, name("ucspi-tls bench CA")?);
    let mut builder = begin(1, &subject, &subject, &key)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build(), key))
}

fn leaf(
    kind: Key,
    root: &X509,
    root_key: &PKey<Private>,
) -> Result<(X509, PKey<Private>), ErrorStack> {
    let key = match kind {
        Key::Ecdsa => p256()?,
        Key::Rsa => PKey::from_rsa(Rsa::generate(2048)?)?,
    };
    let subject = name("127.0.0.1")?;
    let mut builder = begin(2 + kind as u32, &subject, root.subject_name(), &key)?;
    let names = SubjectAlternativeName::new()
        .ip("127.0.0.1")
        .build(&builder.x509v3_context(Some(root), None))?;
    builder.append_extension(names)?;
    builder.sign(root_key, MessageDigest::sha256())?;
    Ok((builder.build(), key))
}
