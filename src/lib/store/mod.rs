//! Settings made into what a handshake needs: certificates, trust anchors,
//! revocation lists, contexts. Everything is read here, once; a connection reads
//! no file.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Private, Public};
use openssl::ssl::{SslContextBuilder, SslMode, SslOptions, SslVersion};
use openssl::stack::Stack;
use openssl::x509::store::X509Store;
use openssl::x509::{X509, X509Ref, X509StoreContext};

pub use self::certificate::Certificate;
use self::offer::Offer;
use crate::hello;
use crate::report::Fail;
use crate::settings::Version;
use crate::sys::memory::shortage;
use crate::text;
use crate::tls_ffi;

mod anchors;
pub mod certificate;
pub mod client;
pub mod client_certificates;
mod fit;
pub mod jail;
mod judges;
mod offer;
pub mod pem;
pub mod permit;
pub mod pool;
mod revocation;
pub mod server;

pub use offer::unknown_words as unknown_cipher_words;

/// How much libssl reads from a socket at once, in bytes: about what the kernel
/// has ready when a peer sends at full speed.
const READ_BUFFER: usize = 64 * 1024;

/// A path, behind the option, variable or file that names it.
pub type Named<'a> = (&'static str, &'a Path);

/// Where a secret key is, and which variable says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// Variable or option.
    pub variable: &'static str,
    /// File.
    pub path: PathBuf,
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.variable, shown(&self.path))
    }
}

impl KeyPlace {
    /// That the key found here is another one's.
    #[must_use]
    pub fn unfit(&self) -> Fail {
        Fail::temporary(format!("key does not match certificate: {self}"))
    }

    /// What to set where the certificate's file is the key's only for want of another.
    fn unset(&self) -> Option<&'static str> {
        match self.variable {
            "CERTFILE" | "CERTCHAINFILE" => Some("KEYFILE is not set"),
            "CERTFILE_ALT" => Some("KEYFILE_ALT is not set"),
            "-c" | "-C" => Some("-k is not given"),
            _ => None,
        }
    }
}

/// Of a key that does not serve its certificate: which certificate it is, and whether
/// it was named at all. Either file may be the wrong one.
fn about_both(fail: Fail, certificate: &Certificate, place: &KeyPlace) -> Fail {
    if place.path != certificate.path {
        if fail == place.unfit() {
            let Certificate { variable, path, .. } = certificate;
            let path = shown(path);
            return Fail::temporary(format!("{fail}: it is not the key of {variable} {path}"));
        }
        return fail;
    }
    let without_key = || read_file(&place.path).is_ok_and(|bytes| !pem::has_key(&bytes));
    match place.unset() {
        Some(unset) if without_key() => Fail::temporary(format!("{fail}; {unset}")),
        _ => fail,
    }
}

/// What signs for a certificate. Libssl takes it for a private key; whether it
/// holds one is the source's secret.
pub type Signer = PKey<Private>;

/// Gives signers for keys.
pub trait SignerSource {
    /// The signer of the key at `place`, which must fit `public`.
    ///
    /// # Errors
    /// The key cannot be read or is another one.
    fn signer(&self, place: &KeyPlace, public: &PKeyRef<Public>) -> Result<Signer, Fail>;
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, with its bits.
    Rsa(u32),
    /// RSA for RSASSA-PSS alone (RFC 4055), with its bits.
    RsaPss(u32),
    /// ECDSA on a curve of NIST's that TLS 1.3 has (RFC 8446 section 4.2.3), with its
    /// bits.
    Ecdsa(u32),
    /// ECDSA on another curve.
    EcdsaOn(OddCurve),
    /// Ed25519 or Ed448.
    Eddsa,
    /// Anything else.
    Other,
}

/// A curve that few clients have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddCurve {
    /// OpenSSL's name for it.
    pub name: &'static str,
    /// Its number in the list of groups, which a client of TLS 1.2 must name it in
    /// (RFC 8422 section 5.1).
    pub group: Option<u16>,
    /// Its signature scheme in TLS 1.3.
    pub scheme: Option<u16>,
}

impl OddCurve {
    fn of(curve: Option<Nid>) -> OddCurve {
        let name = curve.and_then(|curve| curve.short_name().ok());
        OddCurve {
            name: name.unwrap_or("a curve without a name"),
            group: name.and_then(hello::group_of_curve),
            scheme: curve.and_then(hello::scheme_of_curve).filter(|_| {
                // Brainpool's, which OpenSSL has from 3.2 on.
                openssl::version::number() >= 0x3020_0000
            }),
        }
    }
}

impl KeyKind {
    /// Whether TLS 1.3 has a signature for it.
    #[must_use]
    pub fn serves_tls13(self) -> bool {
        !matches!(self, KeyKind::EcdsaOn(OddCurve { scheme: None, .. }))
    }

    /// The kind of a key.
    #[must_use]
    pub fn of(key: &PKeyRef<Public>) -> KeyKind {
        match key.id() {
            Id::RSA => KeyKind::Rsa(key.bits()),
            Id::RSA_PSS => KeyKind::RsaPss(key.bits()),
            Id::EC => {
                let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
                match curve {
                    Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1 | Nid::SECP521R1) => {
                        KeyKind::Ecdsa(key.bits())
                    }
                    other => KeyKind::EcdsaOn(OddCurve::of(other)),
                }
            }
            Id::ED25519 | Id::ED448 => KeyKind::Eddsa,
            _ => KeyKind::Other,
        }
    }

    /// `rsa`, as the TLS line shows it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            KeyKind::Rsa(_) => "rsa",
            KeyKind::RsaPss(_) => "rsa-pss",
            KeyKind::Ecdsa(_) | KeyKind::EcdsaOn(_) => "ecdsa",
            KeyKind::Eddsa => "eddsa",
            KeyKind::Other => "other",
        }
    }
}

/// `ECDSA`, as sentences show it.
impl fmt::Display for KeyKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            KeyKind::EcdsaOn(curve) => return write!(out, "ECDSA on {}", curve.name),
            KeyKind::Rsa(_) => "RSA",
            KeyKind::RsaPss(_) => "RSASSA-PSS",
            KeyKind::Ecdsa(_) => "ECDSA",
            KeyKind::Eddsa => "EdDSA",
            KeyKind::Other => "of another kind",
        })
    }
}

/// `unable to STEP: VARIABLE PATH`, before the reason.
fn unable(step: &str, (variable, path): Named<'_>) -> String {
    format!("unable to {step}: {variable} {}", shown(path))
}

/// OpenSSL could not make what it always can.
fn internal(error: ErrorStack) -> Fail {
    Fail::unable("create SSL context")(error)
}

/// A path in a message.
pub fn shown(path: &Path) -> String {
    text::name(path.as_os_str().as_bytes(), 300)
}

/// The largest file that is read, in bytes: some ten thousand certificates.
const FILE_LIMIT: u64 = 16 << 20;
/// The most files of a directory that are read; together they hold
/// [`FILE_LIMIT`] bytes at most.
const FILES_LIMIT: usize = 20_000;

/// A file's bytes, 16 MB at most; a directory or a device is no file. It never
/// waits for another process, and what it reads is bounded whatever the file's
/// length is said to be.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Fail> {
    read_bounded(path, FILE_LIMIT)
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Fail> {
    let sound = |about: fs::Metadata| match about.len() {
        _ if !about.is_file() => Err(Fail::from("it is not a regular file")),
        length if length > limit => Err("it is larger than 16 MB".into()),
        length => Ok(length),
    };
    // A device may act on being opened, and a fifo wait for its writer.
    sound(fs::metadata(path)?)?;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let length = sound(file.metadata()?)?;
    // All at once: a key's bytes must not stay behind in memory that was too
    // small for them.
    let mut bytes = shortage::room_for_file(usize::try_from(length).unwrap_or(0) + 1)?;
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err("it is larger than 16 MB".into());
    }
    Ok(bytes)
}

/// Whether a certificate can be told to be self-signed by its names.
#[must_use]
pub fn is_self_issued(certificate: &X509Ref) -> bool {
    let (subject, issuer) = (certificate.subject_name(), certificate.issuer_name());
    subject.try_cmp(issuer).is_ok_and(std::cmp::Ordering::is_eq)
}

/// How long the system's anchors are kept that were read to look an issuer up: many
/// certificates are looked at in a row, and reading them takes longer than all else.
const SYSTEM_ANCHORS: Duration = Duration::from_secs(10);

thread_local! {
    static SYSTEM: RefCell<Option<(Instant, X509Store)>> = const { RefCell::new(None) };
}

/// Whether the system's anchors hold the issuer of a certificate.
#[must_use]
pub fn system_knows_issuer(certificate: &X509Ref) -> bool {
    let verified = SYSTEM.with_borrow_mut(|kept| {
        let store = match kept.take() {
            Some((read, store)) if read.elapsed() < SYSTEM_ANCHORS => &kept.insert((read, store)).1,
            _ => {
                let store = pool::system_store()?.build();
                &kept.insert((Instant::now(), store)).1
            }
        };
        let untrusted = Stack::<X509>::new()?;
        let mut context = X509StoreContext::new()?;
        context.init(store, certificate, &untrusted, |context| {
            context.verify_cert()
        })
    });
    verified.unwrap_or(false)
}

/// What server and client contexts have in common: versions, ciphers, groups,
/// and how libssl uses memory.
///
/// # Errors
/// Libcrypto's, where memory is short.
fn apply_common(context: &mut SslContextBuilder, offer: &Offer) -> Result<(), ErrorStack> {
    let (min, max) = offer.versions;
    context.set_min_proto_version(Some(protocol(min)))?;
    context.set_max_proto_version(max.map(protocol))?;
    tls_ffi::alerts::record(context)?;
    context.set_options(SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION);
    context.set_mode(
        SslMode::RELEASE_BUFFERS
            | SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::NO_AUTO_CHAIN,
    );
    context.set_read_ahead(true);
    tls_ffi::set_read_buffer(context, READ_BUFFER);
    offer.apply(context)
}

fn protocol(version: Version) -> SslVersion {
    match version {
        Version::Tls10 => SslVersion::TLS1,
        Version::Tls11 => SslVersion::TLS1_1,
        Version::Tls12 => SslVersion::TLS1_2,
        Version::Tls13 => SslVersion::TLS1_3,
    }
}

/// The long name of a signature algorithm or key type.
#[must_use]
pub fn long_name(nid: Nid) -> &'static str {
    nid.long_name().unwrap_or("unknown")
}
