//! What a ClientHello offers (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2),
//! kept as raw bytes while the handshake may succeed and read when it failed.
#![forbid(unsafe_code)]

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ssl::{SslAlert, SslContextBuilder, SslRef, SslVersion};

use crate::tls_ffi::{self, ex_data::ExData};

mod names;

pub use names::{group_name, signature_name, version_name};

/// Extension numbers, IANA's "TLS ExtensionType Values".
const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const SESSION_TICKET: u16 = 35;
const SUPPORTED_VERSIONS: u16 = 43;

/// The offers of one client, as they stood on the wire.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    server_name: Option<Vec<u8>>,
    legacy_version: u16,
    ciphers: Vec<u8>,
    versions: Option<Vec<u8>>,
    groups: Option<Vec<u8>>,
    signatures: Option<Vec<u8>>,
    /// It came in SSLv2's form, whose suites have three bytes.
    old_form: bool,
    signatures_are_bounded: bool,
    shares_a_group: bool,
}

/// Which key a certificate needs for a cipher or signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Authentication {
    /// An RSA key.
    Rsa,
    /// An ECDSA or `EdDSA` key.
    Ecdsa,
    /// Any certificate: TLS 1.3 suites.
    Any,
    /// Something that we never have (DSS, PSK, anonymous).
    Other,
}

/// A cipher that a client offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cipher {
    /// OpenSSL's name, or the number where OpenSSL has none.
    pub name: String,
    /// What it needs.
    pub authentication: Authentication,
    /// Its key exchange is ephemeral.
    pub forward_secret: bool,
}

static HELLO: ExData<Hello> = ExData::new();

/// The ClientHello of a connection whose context [`record`]s, if one came.
#[must_use]
pub fn of(ssl: &SslRef) -> Option<&Hello> {
    HELLO.of(ssl)
}

/// A finite-field group of RFC 7919, by the bits of its prime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FiniteGroup(u32);

impl FiniteGroup {
    const BITS: [u32; 5] = [2048, 3072, 4096, 6144, 8192];

    /// The smallest with at least so many bits, or the largest of all.
    #[must_use]
    pub fn of_strength(bits: u32) -> FiniteGroup {
        let fitting = Self::BITS.into_iter().find(|own| *own >= bits);
        FiniteGroup(fitting.unwrap_or(8192))
    }

    /// The one of this name, `ffdhe2048`.
    #[must_use]
    pub fn called(name: &str) -> Option<FiniteGroup> {
        let lower = name.to_ascii_lowercase();
        let bits = lower.strip_prefix("ffdhe")?.parse().ok()?;
        Self::BITS.contains(&bits).then_some(FiniteGroup(bits))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        format!("ffdhe{}", self.0)
    }

    /// The bits of its prime.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Its number, IANA's "TLS Supported Groups".
    #[must_use]
    pub fn number(self) -> u16 {
        let at = Self::BITS.iter().position(|bits| *bits == self.0);
        0x0100 + u16::try_from(at.unwrap_or(0)).unwrap_or(0)
    }
}

/// What a context's DHE suites use below TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FiniteField {
    /// There are none: no certificate of the context can sign for them.
    Unused,
    /// A group of RFC 7919.
    Group(FiniteGroup),
    /// Parameters of the administrator's own.
    Own,
}

/// What a context says of itself to those who look at a ClientHello.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Its cipher list.
    pub ciphers: String,
    /// What its DHE suites use.
    pub finite_field: FiniteField,
    /// The administrator's own `SIGALGS` bound it.
    pub signatures_are_bounded: bool,
    /// Its groups, by number.
    pub groups: Vec<u16>,
    /// What all of its tickets hold for; `None` where it has none.
    pub tickets: Option<[u8; 32]>,
}

impl Terms {
    /// Those of a context that is made to read hellos and to serve nobody.
    #[must_use]
    pub fn any() -> Terms {
        Terms {
            ciphers: "DEFAULT".to_owned(),
            finite_field: FiniteField::Unused,
            signatures_are_bounded: false,
            groups: Vec::new(),
            tickets: None,
        }
    }
}

/// Serves a connection as its server name wants it. Returns the terms of the
/// context that takes over, if one does; or the alert that refuses it.
pub type Chooser =
    Arc<dyn Fn(&mut SslRef, &[u8]) -> Result<Option<Arc<Terms>>, SslAlert> + Send + Sync>;

static CHOOSER: ExData<Chooser> = ExData::new();

/// Lets the server name of this connection choose, before anything else is
/// decided: before a session is resumed, a version or a suite agreed on, a
/// certificate asked for. Its context must [`record`].
///
/// # Errors
/// Libcrypto has no room for per-connection data.
pub fn choose_by(ssl: &mut SslRef, chooser: Chooser) -> Result<(), ErrorStack> {
    CHOOSER.set(ssl, chooser)
}

/// Has the connections of a context keep their ClientHello, and lets a name in it
/// choose ([`choose_by`]). A client that knows groups of RFC 7919, but not the one
/// in use, must not be given DHE (RFC 7919 section 4).
///
/// # Errors
/// Libcrypto has no room for per-connection data.
pub fn record(context: &mut SslContextBuilder, terms: Arc<Terms>) -> Result<(), ErrorStack> {
    HELLO.index()?;
    CHOOSER.index()?;
    context.set_client_hello_callback(move |ssl, alert| {
        let mut hello = Hello::read(ssl);
        // RFC 8446 section 4.1.2: after a HelloRetryRequest it is the first one
        // with changes that are none of these.
        if of(ssl).is_some_and(|first| first.server_name != hello.server_name) {
            *alert = SslAlert::ILLEGAL_PARAMETER;
            return Err(ErrorStack::get());
        }
        // What the first one chose holds on.
        let chooser = CHOOSER.of(ssl).filter(|_| of(ssl).is_none());
        let chosen = match (chooser.cloned(), hello.server_name()) {
            (Some(chooser), Some(name)) => chooser(ssl, name),
            _ => Ok(None),
        };
        let terms = match &chosen {
            Ok(chosen) => chosen.as_ref().unwrap_or(&terms),
            Err(refusal) => {
                *alert = *refusal;
                // The log names it.
                HELLO.set(ssl, hello)?;
                return Err(ErrorStack::get());
            }
        };
        hello.signatures_are_bounded = terms.signatures_are_bounded;
        hello.shares_a_group = hello
            .groups()
            .iter()
            .any(|group| terms.groups.contains(group));
        if let Some(context) = &terms.tickets {
            let taken = tls_ffi::hello_extension(ssl, SESSION_TICKET).is_some();
            tls_ffi::tickets::begin(context, hello.server_name(), taken);
        }
        if !hello.accepts(terms.finite_field) {
            ssl.set_cipher_list(&format!("{}:!kDHE", terms.ciphers))?;
        }
        HELLO.set(ssl, hello)?;
        Ok(openssl::ssl::ClientHelloResponse::SUCCESS)
    });
    Ok(())
}

impl Hello {
    fn read(ssl: &SslRef) -> Hello {
        let own = |number| tls_ffi::hello_extension(ssl, number).map(<[u8]>::to_vec);
        Hello {
            server_name: tls_ffi::hello_extension(ssl, SERVER_NAME)
                .and_then(host_name)
                .map(<[u8]>::to_vec),
            legacy_version: match ssl.client_hello_legacy_version() {
                Some(SslVersion::SSL3) => 0x0300,
                Some(SslVersion::TLS1) => 0x0301,
                Some(SslVersion::TLS1_1) => 0x0302,
                _ => 0x0303,
            },
            ciphers: ssl.client_hello_ciphers().unwrap_or_default().to_vec(),
            versions: own(SUPPORTED_VERSIONS),
            groups: own(SUPPORTED_GROUPS),
            signatures: own(SIGNATURE_ALGORITHMS),
            old_form: ssl.client_hello_isv2(),
            signatures_are_bounded: false,
            shares_a_group: false,
        }
    }

    /// Whether one of its groups is one of the server's that it came to.
    #[must_use]
    pub fn shares_a_group(&self) -> bool {
        self.shares_a_group
    }

    /// Whether the server that it came to has signature algorithms set.
    #[must_use]
    pub fn signatures_are_bounded(&self) -> bool {
        self.signatures_are_bounded
    }

    /// The highest version on offer; 0 for none that is known.
    #[must_use]
    pub fn highest_version(&self) -> u16 {
        self.versions().into_iter().max().unwrap_or(0)
    }

    /// Whether DHE with this would surprise the client: false if it lists groups
    /// of RFC 7919 (0x0100 to 0x01ff) and this is not among them.
    fn accepts(&self, finite_field: FiniteField) -> bool {
        if finite_field == FiniteField::Unused {
            return true;
        }
        let groups = self.groups();
        let mut finite = groups
            .into_iter()
            .filter(|group| group >> 8 == 1)
            .peekable();
        finite.peek().is_none()
            || finite.any(
                |number| matches!(finite_field, FiniteField::Group(own) if own.number() == number),
            )
    }

    /// The server name that this client asked for, resumed or not: libssl has
    /// another's below TLS 1.3, that of the session.
    #[must_use]
    pub fn server_name(&self) -> Option<&[u8]> {
        self.server_name.as_deref()
    }

    /// Protocol versions on offer, GREASE and drafts left out.
    #[must_use]
    pub fn versions(&self) -> Vec<u16> {
        match &self.versions {
            Some(list) => pairs(list.get(1..).unwrap_or_default())
                .filter(|version| (0x0300..=0x0304).contains(version))
                .collect(),
            None => vec![self.legacy_version],
        }
    }

    /// Groups for key exchange, GREASE left out.
    #[must_use]
    pub fn groups(&self) -> Vec<u16> {
        let list = self.groups.as_deref().unwrap_or_default();
        pairs(list.get(2..).unwrap_or_default())
            .filter(|group| !is_grease(*group))
            .collect()
    }

    /// Signature schemes, with what each needs; `None` where the client says
    /// nothing of them.
    #[must_use]
    pub fn signatures(&self) -> Option<Vec<(u16, Authentication)>> {
        let list = self.signatures.as_deref()?;
        Some(
            pairs(list.get(2..).unwrap_or_default())
                .map(|scheme| (scheme, signature_needs(scheme)))
                .collect(),
        )
    }

    /// The ciphers on offer, signalling values, GREASE and SSLv2's own left out.
    #[must_use]
    pub fn ciphers(&self, ssl: &SslRef) -> Vec<Cipher> {
        let numbers: Vec<u16> = if self.old_form {
            let triples = self.ciphers.chunks_exact(3);
            triples
                .filter(|triple| triple[0] == 0)
                .map(|triple| u16::from_be_bytes([triple[1], triple[2]]))
                .collect()
        } else {
            pairs(&self.ciphers).collect()
        };
        numbers
            .into_iter()
            .filter(|number| !matches!(number, 0x00ff | 0x5600) && !is_grease(*number))
            .map(|number| Cipher::known(ssl, number).unwrap_or_else(|| Cipher::forgotten(number)))
            .collect()
    }
}

/// The first name of a server_name extension (RFC 6066 section 3), if it is a
/// host's. Libssl refuses one that is malformed.
fn host_name(body: &[u8]) -> Option<&[u8]> {
    let [_, _, 0, high, low, rest @ ..] = body else {
        return None;
    };
    rest.get(..usize::from(u16::from_be_bytes([*high, *low])))
}

impl Cipher {
    /// As OpenSSL has it.
    fn known(ssl: &SslRef, number: u16) -> Option<Cipher> {
        let lists = ssl
            .bytes_to_cipher_list(&number.to_be_bytes(), false)
            .ok()?;
        let cipher = lists.suites.iter().next()?;
        let description = cipher.description();
        let exchange = field(&description, "Kx=");
        Some(Cipher {
            name: cipher.name().to_owned(),
            authentication: match field(&description, "Au=") {
                Some("RSA") => Authentication::Rsa,
                Some("ECDSA") => Authentication::Ecdsa,
                Some("any") => Authentication::Any,
                _ => Authentication::Other,
            },
            forward_secret: matches!(exchange, Some("DH" | "ECDH" | "any")),
        })
    }

    /// One that OpenSSL was built without: the suites of old printers and mail
    /// servers by the names that they had.
    fn forgotten(number: u16) -> Cipher {
        let (name, authentication, forward_secret) = match number {
            0x0003 => ("EXP-RC4-MD5", Authentication::Rsa, false),
            0x0004 => ("RC4-MD5", Authentication::Rsa, false),
            0x0005 => ("RC4-SHA", Authentication::Rsa, false),
            0x0006 => ("EXP-RC2-CBC-MD5", Authentication::Rsa, false),
            0x0007 => ("IDEA-CBC-SHA", Authentication::Rsa, false),
            0x0008 => ("EXP-DES-CBC-SHA", Authentication::Rsa, false),
            0x0009 => ("DES-CBC-SHA", Authentication::Rsa, false),
            0x000a => ("DES-CBC3-SHA", Authentication::Rsa, false),
            0x0012 => ("DHE-DSS-DES-CBC-SHA", Authentication::Other, true),
            0x0013 => ("DHE-DSS-DES-CBC3-SHA", Authentication::Other, true),
            0x0015 => ("DHE-RSA-DES-CBC-SHA", Authentication::Rsa, true),
            0x0016 => ("DHE-RSA-DES-CBC3-SHA", Authentication::Rsa, true),
            0x0096 => ("SEED-SHA", Authentication::Rsa, false),
            0xc007 => ("ECDHE-ECDSA-RC4-SHA", Authentication::Ecdsa, true),
            0xc008 => ("ECDHE-ECDSA-DES-CBC3-SHA", Authentication::Ecdsa, true),
            0xc011 => ("ECDHE-RSA-RC4-SHA", Authentication::Rsa, true),
            0xc012 => ("ECDHE-RSA-DES-CBC3-SHA", Authentication::Rsa, true),
            _ => ("", Authentication::Other, false),
        };
        Cipher {
            name: if name.is_empty() {
                format!("0x{number:04X}")
            } else {
                name.to_owned()
            },
            authentication,
            forward_secret,
        }
    }
}

/// A word of `SSL_CIPHER_description`.
fn field<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    description
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(name))
}

/// RFC 8701's values, which mean nothing.
fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

/// What a SignatureScheme (RFC 8446 section 4.2.3) needs.
fn signature_needs(scheme: u16) -> Authentication {
    match scheme {
        0x0804..=0x0806 | 0x0809..=0x080b => Authentication::Rsa,
        0x0807 | 0x0808 => Authentication::Ecdsa,
        // TLS 1.2's pairs: hash 1 to 6, then the signature.
        _ if (1..=6).contains(&(scheme >> 8)) => match scheme & 0xff {
            1 => Authentication::Rsa,
            3 => Authentication::Ecdsa,
            _ => Authentication::Other,
        },
        _ => Authentication::Other,
    }
}

/// The one SignatureScheme by which TLS 1.3 signs with an ECDSA key on this curve.
#[must_use]
pub fn scheme_of_curve(curve: Nid) -> Option<u16> {
    match curve {
        Nid::X9_62_PRIME256V1 => Some(0x0403),
        Nid::SECP384R1 => Some(0x0503),
        Nid::SECP521R1 => Some(0x0603),
        // RFC 8734.
        Nid::BRAINPOOL_P256R1 => Some(0x081a),
        Nid::BRAINPOOL_P384R1 => Some(0x081b),
        Nid::BRAINPOOL_P512R1 => Some(0x081c),
        _ => None,
    }
}

/// A curve's number among the groups (RFC 8422 section 5.1.1, RFC 7027), by OpenSSL's
/// short name for it.
#[must_use]
pub fn group_of_curve(name: &str) -> Option<u16> {
    /// From 1 on.
    const CURVES: [&str; 28] = [
        "sect163k1",
        "sect163r1",
        "sect163r2",
        "sect193r1",
        "sect193r2",
        "sect233k1",
        "sect233r1",
        "sect239k1",
        "sect283k1",
        "sect283r1",
        "sect409k1",
        "sect409r1",
        "sect571k1",
        "sect571r1",
        "secp160k1",
        "secp160r1",
        "secp160r2",
        "secp192k1",
        "prime192v1",
        "secp224k1",
        "secp224r1",
        "secp256k1",
        "prime256v1",
        "secp384r1",
        "secp521r1",
        "brainpoolP256r1",
        "brainpoolP384r1",
        "brainpoolP512r1",
    ];
    (1..)
        .zip(CURVES)
        .find_map(|(number, curve)| (curve == name).then_some(number))
}

/// 16-bit numbers; an odd byte at the end is dropped.
fn pairs(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_extensions_are_read_as_far_as_they_go() {
        for length in 0..5 {
            let bytes = vec![0x03; length];
            let hello = Hello {
                versions: Some(bytes.clone()),
                groups: Some(bytes.clone()),
                signatures: Some(bytes),
                ..Hello::default()
            };
            assert!(hello.versions().len() <= 2);
            assert!(hello.groups().len() <= 1);
            assert!(hello.signatures().is_some_and(|list| list.len() <= 1));
        }
    }

    #[test]
    fn dhe_is_kept_from_clients_that_know_other_groups() {
        let with = |list: &[u8]| Hello {
            groups: Some(list.to_vec()),
            ..Hello::default()
        };
        let ours = FiniteField::Group(FiniteGroup::of_strength(2048));
        assert!(with(&[0, 2, 0, 23]).accepts(ours));
        assert!(with(&[0, 4, 0, 23, 1, 0]).accepts(ours));
        assert!(!with(&[0, 4, 0, 23, 1, 4]).accepts(ours));
        assert!(!with(&[0, 4, 0, 23, 1, 4]).accepts(FiniteField::Own));
        assert!(with(&[0, 4, 0, 23, 1, 4]).accepts(FiniteField::Unused));
        assert!(Hello::default().accepts(FiniteField::Own));
    }

    #[test]
    fn a_host_name_is_the_first_of_its_list() {
        assert_eq!(host_name(b"\0\x04\0\0\x01a"), Some(&b"a"[..]));
        assert_eq!(host_name(b"\0\x04\x01\0\x01a"), None);
        assert_eq!(host_name(b"\0\x04\0\0\x02a"), None);
        assert_eq!(host_name(b""), None);
    }

    #[test]
    fn signature_schemes_tell_their_key() {
        assert_eq!(signature_needs(0x0804), Authentication::Rsa);
        assert_eq!(signature_needs(0x0401), Authentication::Rsa);
        assert_eq!(signature_needs(0x0403), Authentication::Ecdsa);
        assert_eq!(signature_needs(0x0807), Authentication::Ecdsa);
        assert_eq!(signature_needs(0x0402), Authentication::Other);
        assert_eq!(signature_needs(0xfafa), Authentication::Other);
    }

    #[test]
    fn grease_is_known() {
        assert!(is_grease(0x3a3a) && !is_grease(0x3a4a) && !is_grease(0x1a2a));
    }
}
