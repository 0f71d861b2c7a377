//! Certificates made for the tests: a root, an intermediate, leaves of every key
//! type, and what is wrong with some of them.
//!
//! Keys are made once per key type and process: RSA keys cost time.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use openssl::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use openssl::x509::{X509, X509Extension, X509Name, X509NameBuilder, X509NameRef};

use super::{Place, run};

/// Which key a certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    Ed25519,
    P256,
    P384,
    /// Curves that TLS 1.3 has no signature for; the last has no number at all.
    Secp256k1,
    P224,
    Prime239,
    Rsa2048,
    Rsa3072,
    RsaPss,
}

static SERIAL: AtomicU32 = AtomicU32::new(1000);

fn make_key(kind: KeyKind) -> PKey<Private> {
    let curve = |nid| {
        let group = EcGroup::from_curve_name(nid).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    match kind {
        KeyKind::Ed25519 => PKey::generate_ed25519().unwrap(),
        KeyKind::P256 => curve(Nid::X9_62_PRIME256V1),
        KeyKind::P384 => curve(Nid::SECP384R1),
        KeyKind::Secp256k1 => curve(Nid::SECP256K1),
        KeyKind::P224 => curve(Nid::SECP224R1),
        KeyKind::Prime239 => curve(Nid::X9_62_PRIME239V1),
        KeyKind::Rsa2048 => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        KeyKind::Rsa3072 => PKey::from_rsa(Rsa::generate(3072).unwrap()).unwrap(),
        KeyKind::RsaPss => {
            let mut context = PkeyCtx::new_id(Id::RSA_PSS).unwrap();
            context.keygen_init().unwrap();
            context.set_rsa_keygen_bits(2048).unwrap();
            context.keygen().unwrap()
        }
    }
}

/// The key of that type and role; made at the first call.
fn key(kind: KeyKind, role: &'static str) -> PKey<Private> {
    type Keys = HashMap<(KeyKind, &'static str), PKey<Private>>;
    static KEYS: OnceLock<Mutex<Keys>> = OnceLock::new();
    let mut keys = KEYS.get_or_init(Mutex::default).lock().unwrap();
    keys.entry((kind, role))
        .or_insert_with(|| make_key(kind))
        .clone()
}

/// One who signs.
pub struct Authority {
    pub certificate: X509,
    pub key: PKey<Private>,
    /// The certificates between a leaf and the root, this one's first.
    between: Vec<X509>,
}

/// A distinguished name from its common name.
fn common_name(text: &str) -> X509Name {
    name(&[(Nid::COMMONNAME, text)])
}

/// A distinguished name.
pub fn name(parts: &[(Nid, &str)]) -> X509Name {
    let mut builder = X509NameBuilder::new().unwrap();
    for (nid, text) in parts {
        builder.append_entry_by_nid(*nid, text).unwrap();
    }
    builder.build()
}

fn digest(key: &PKeyRef<Private>) -> MessageDigest {
    if key.id() == Id::ED25519 {
        MessageDigest::null()
    } else {
        MessageDigest::sha256()
    }
}

fn begin(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    days: (i64, i64),
) -> openssl::x509::X509Builder {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .cast_signed();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(SERIAL.fetch_add(1, Ordering::Relaxed)).unwrap();
    builder
        .set_serial_number(&Asn1Integer::from_bn(&serial).unwrap())
        .unwrap();
    builder.set_subject_name(subject).unwrap();
    builder.set_issuer_name(issuer).unwrap();
    let time = |days: i64| Asn1Time::from_unix(now + days * 86400).unwrap();
    builder.set_not_before(&time(days.0)).unwrap();
    builder.set_not_after(&time(days.1)).unwrap();
    builder
}

impl Authority {
    /// A self-signed root with a key of its own.
    pub fn root(common: &str) -> Authority {
        let key = make_key(KeyKind::P256);
        Authority::sign(&common_name(common), key, None)
    }

    /// An authority below this one.
    pub fn below(&self, common: &str) -> Authority {
        let key = make_key(KeyKind::P256);
        Authority::sign(&common_name(common), key, Some(self))
    }

    /// One that calls itself as this one does, with a key of its own, below
    /// another.
    pub fn forged_below(&self, above: &Authority) -> Authority {
        let key = make_key(KeyKind::P256);
        Authority::sign(self.certificate.subject_name(), key, Some(above))
    }

    /// A root that calls itself as this one does, with a key of its own.
    pub fn forged_root(&self) -> Authority {
        let key = make_key(KeyKind::P256);
        Authority::sign(self.certificate.subject_name(), key, None)
    }

    /// A certificate for this one's name and key by another.
    pub fn cross_signed_by(&self, above: &Authority) -> Authority {
        Authority::sign(
            self.certificate.subject_name(),
            self.key.clone(),
            Some(above),
        )
    }

    /// This root with other dates: from so many days from now to so many.
    pub fn dated(&self, days: (i64, i64)) -> Authority {
        let name = self.certificate.subject_name();
        Authority::sign_for(days, name, self.key.clone(), None)
    }

    /// A root with this one's key and another name.
    pub fn called(&self, name: &X509NameRef) -> Authority {
        Authority::sign(name, self.key.clone(), None)
    }

    fn sign(subject: &X509NameRef, key: PKey<Private>, above: Option<&Authority>) -> Authority {
        Authority::sign_for((-1, 3650), subject, key, above)
    }

    fn sign_for(
        days: (i64, i64),
        subject: &X509NameRef,
        key: PKey<Private>,
        above: Option<&Authority>,
    ) -> Authority {
        let issuer = above.map_or(subject, |above| above.certificate.subject_name());
        let mut builder = begin(subject, issuer, days);
        builder.set_pubkey(&key).unwrap();
        let limits = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(limits).unwrap();
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()
            .unwrap();
        builder.append_extension(usage).unwrap();
        let signer = above.map_or(&key, |above| &above.key);
        builder.sign(signer, digest(signer)).unwrap();
        let certificate = builder.build();
        let mut between = Vec::new();
        if let Some(above) = above {
            between.push(certificate.clone());
            between.extend(above.between.iter().cloned());
        }
        Authority {
            certificate,
            key,
            between,
        }
    }

    /// The root of the certificates that tests use where nothing else is said.
    pub fn shared_root() -> &'static Authority {
        static ROOT: OnceLock<Authority> = OnceLock::new();
        ROOT.get_or_init(|| Authority::root("Test Root"))
    }

    /// The intermediate below [`Authority::shared_root`].
    pub fn shared() -> &'static Authority {
        static BETWEEN: OnceLock<Authority> = OnceLock::new();
        BETWEEN.get_or_init(|| Authority::shared_root().below("Test Intermediate"))
    }

    pub fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// A revocation list of this authority: the serial numbers (hex), and
    /// whether the list itself is out of date.
    pub fn crl(&self, place: &Place, revoked: &[String], expired: bool) -> Vec<u8> {
        let old = ["20200101000000Z", "20200102000000Z"].map(str::to_owned);
        self.crl_with(place, revoked, expired.then_some(old))
    }

    /// Without any serial number, made and due so many days from now.
    pub fn crl_for(&self, place: &Place, days: [i64; 2]) -> Vec<u8> {
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let date = |days: i64| {
            let mut date = Command::new("date");
            let at = format!("@{}", now + days * 86_400);
            let text = run(date.args(["-u", "+%Y%m%d%H%M%SZ", "-d", &at]), b"").text();
            text.trim().to_owned()
        };
        self.crl_with(place, &[], Some(days.map(date)))
    }

    fn crl_with(&self, place: &Place, revoked: &[String], dates: Option<[String; 2]>) -> Vec<u8> {
        let at = |name: &str| place.text(name);
        let index = revoked.iter().fold(String::new(), |mut text, serial| {
            let _ = writeln!(
                text,
                "R\t491231235959Z\t240101000000Z\t{serial}\tunknown\t/CN=x"
            );
            text
        });
        place.write("crl.index", index);
        place.write("crl.index.attr", "unique_subject = no\n");
        place.write("crl.ca.pem", self.pem());
        place.write("crl.ca.key", self.key.private_key_to_pem_pkcs8().unwrap());
        let config = place.write(
            "crl.cnf",
            format!(
                "[ca]\ndefault_ca=own\n[own]\ndatabase={}\ndefault_md=sha256\ndefault_crl_days=30\n",
                at("crl.index")
            ),
        );
        let mut command = Command::new("openssl");
        command.args(["ca", "-gencrl", "-config", &config]);
        command.args(["-keyfile", &at("crl.ca.key"), "-cert", &at("crl.ca.pem")]);
        if let Some([last, next]) = dates {
            command.args(["-crl_lastupdate", &last, "-crl_nextupdate", &next]);
        }
        let made = run(&mut command, b"");
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        made.stdout
    }
}

/// A certificate with its key and what a server sends with it.
#[derive(Clone)]
pub struct Identity {
    pub certificate: X509,
    pub key: PKey<Private>,
    pub between: Vec<X509>,
}

impl Identity {
    /// For localhost, 127.0.0.1 and ::1, below [`Authority::shared`].
    pub fn localhost(kind: KeyKind) -> Identity {
        Leaf::localhost().key(kind).issue()
    }

    /// The leaf, then the intermediates.
    pub fn chain_pem(&self) -> Vec<u8> {
        std::iter::once(&self.certificate)
            .chain(&self.between)
            .flat_map(|one| one.to_pem().unwrap())
            .collect()
    }

    pub fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().unwrap()
    }

    pub fn locked_key_pem(&self, password: &str) -> Vec<u8> {
        self.key
            .private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), password.as_bytes())
            .unwrap()
    }

    /// The same with a signature that is wrong.
    pub fn with_a_bad_signature(mut self) -> Identity {
        let mut der = self.certificate.to_der().unwrap();
        // Its last bytes are those of the signature's second number.
        *der.last_mut().unwrap() ^= 1;
        self.certificate = X509::from_der(&der).unwrap();
        self
    }

    /// SHA-256 of the certificate, in lower-case hex.
    pub fn fingerprint(&self) -> String {
        hex(&self.certificate.digest(MessageDigest::sha256()).unwrap())
    }

    /// The serial number, in hex.
    pub fn serial(&self) -> String {
        let number = self.certificate.serial_number().to_bn().unwrap();
        number.to_hex_str().unwrap().to_string()
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a leaf is to hold.
pub struct Leaf {
    subject: X509Name,
    dns: Vec<String>,
    addresses: Vec<String>,
    emails: Vec<String>,
    days: (i64, i64),
    kind: KeyKind,
    role: &'static str,
    purpose: Option<&'static str>,
    usage: Option<&'static str>,
    raw_names: Vec<Vec<u8>>,
}

impl Leaf {
    pub fn new(common: &str) -> Leaf {
        Leaf::named(common_name(common))
    }

    pub fn named(subject: X509Name) -> Leaf {
        Leaf {
            subject,
            dns: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            days: (-1, 365),
            kind: KeyKind::P256,
            role: "leaf",
            purpose: None,
            usage: None,
            raw_names: Vec::new(),
        }
    }

    pub fn localhost() -> Leaf {
        Leaf::new("localhost")
            .dns("localhost")
            .address("127.0.0.1")
            .address("::1")
    }

    pub fn dns(mut self, name: &str) -> Leaf {
        self.dns.push(name.to_owned());
        self
    }

    pub fn address(mut self, ip: &str) -> Leaf {
        self.addresses.push(ip.to_owned());
        self
    }

    pub fn email(mut self, mail: &str) -> Leaf {
        self.emails.push(mail.to_owned());
        self
    }

    pub fn key(mut self, kind: KeyKind) -> Leaf {
        self.kind = kind;
        self
    }

    /// With an extended key usage, by its object identifier; without one a
    /// certificate is good for everything.
    pub fn purpose(mut self, oid: &'static str) -> Leaf {
        self.purpose = Some(oid);
        self
    }

    /// With a key usage, in OpenSSL's words; without one the key is good for
    /// everything.
    pub fn usage(mut self, words: &'static str) -> Leaf {
        self.usage = Some(words);
        self
    }

    /// A GeneralName as its bytes (tag, value shorter than 128 bytes), in place
    /// of all other names.
    pub fn raw_name(mut self, tag: u8, value: &[u8]) -> Leaf {
        let length = u8::try_from(value.len()).unwrap();
        self.raw_names.push([&[tag, length], value].concat());
        self
    }

    /// With a subjectAltName that ends within a name.
    pub fn garbled_names(mut self) -> Leaf {
        self.raw_names.push(vec![0x82, 0x20, b'a']);
        self
    }

    /// Another key of the same type than the usual one.
    pub fn other_key(mut self) -> Leaf {
        self.role = "other";
        self
    }

    /// Valid until yesterday.
    pub fn expired(mut self) -> Leaf {
        self.days = (-30, -1);
        self
    }

    /// Valid for so many days from now.
    pub fn ending_in(mut self, days: i64) -> Leaf {
        self.days = (-30, days);
        self
    }

    /// Below the usual intermediate.
    pub fn issue(self) -> Identity {
        self.issue_by(Authority::shared())
    }

    pub fn issue_by(self, authority: &Authority) -> Identity {
        self.make(Some(authority))
    }

    pub fn self_signed(self) -> Identity {
        self.make(None)
    }

    fn make(self, authority: Option<&Authority>) -> Identity {
        let key = key(self.kind, self.role);
        let issuer = authority.map_or(&*self.subject, |one| one.certificate.subject_name());
        let mut builder = begin(&self.subject, issuer, self.days);
        builder.set_pubkey(&key).unwrap();
        let limits = BasicConstraints::new().critical().build().unwrap();
        builder.append_extension(limits).unwrap();
        if !(self.dns.is_empty() && self.addresses.is_empty() && self.emails.is_empty()) {
            let mut names = SubjectAlternativeName::new();
            for one in &self.dns {
                names.dns(one);
            }
            for one in &self.addresses {
                names.ip(one);
            }
            for one in &self.emails {
                names.email(one);
            }
            let issuer = authority.map(|one| &*one.certificate);
            let names = names.build(&builder.x509v3_context(issuer, None)).unwrap();
            builder.append_extension(names).unwrap();
        }
        if !self.raw_names.is_empty() {
            let names = self.raw_names.concat();
            let length = u8::try_from(names.len()).unwrap();
            assert!(length < 128, "the short form");
            let sequence = [&[0x30, length], &*names].concat();
            let value = openssl::asn1::Asn1OctetString::new_from_bytes(&sequence).unwrap();
            let oid = openssl::asn1::Asn1Object::from_str("2.5.29.17").unwrap();
            let names = X509Extension::new_from_der(&oid, false, &value).unwrap();
            builder.append_extension2(&names).unwrap();
        }
        if let Some(words) = self.usage {
            let mut usage = KeyUsage::new();
            for word in words.split(',') {
                match word {
                    "digitalSignature" => usage.digital_signature(),
                    "keyEncipherment" => usage.key_encipherment(),
                    other => panic!("no key usage of the tests: {other}"),
                };
            }
            builder.append_extension(usage.build().unwrap()).unwrap();
        }
        if let Some(oid) = self.purpose {
            let usage = ExtendedKeyUsage::new().other(oid).build().unwrap();
            builder.append_extension(usage).unwrap();
        }
        let signer = authority.map_or(&key, |one| &one.key);
        builder.sign(signer, digest(signer)).unwrap();
        Identity {
            certificate: builder.build(),
            key,
            between: authority.map(|one| one.between.clone()).unwrap_or_default(),
        }
    }
}
