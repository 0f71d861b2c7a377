//! Trust anchors in memory: for a process that opens no file later, and because those of
//! the system are many. They are kept as the bytes that they are, and parsed when a chain
//! asks for them: OpenSSL 3 takes 0.1 ms for each one's key, and of 140 a chain needs one.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CString;
#[cfg(feature = "remote")]
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Name, X509NameRef};

#[cfg(feature = "remote")]
use super::{Named, internal, unable};
use super::{anchors, pem, read_file};
use crate::report::Fail;
use crate::tls_ffi;
use crate::tls_ffi::anchors::{add_directory, pem_blocks, set_source, trusted_from_der};

/// Trust anchors by their subjects.
#[derive(Clone, Default)]
pub struct AnchorPool(Arc<Vec<Subject>>);

/// The anchors of one subject.
struct Subject {
    name: X509Name,
    anchors: Vec<Anchor>,
}

/// One anchor.
struct Anchor {
    /// In DER form.
    bytes: Vec<u8>,
    /// What it is trusted for stands behind it.
    with_trust: bool,
    /// When it was asked for: `None` is what does not parse, and is no anchor.
    parsed: OnceLock<Option<X509>>,
}

/// The system's anchors.
#[cfg(feature = "remote")]
pub struct SystemAnchors {
    /// All that can be read.
    pub pool: AnchorPool,
    /// What is wrong with the file that `SSL_CERT_FILE` names: none of it counts then.
    pub file: Result<(), Fail>,
}

impl AnchorPool {
    /// These.
    ///
    /// # Errors
    /// Libcrypto has no memory.
    #[cfg(feature = "remote")]
    pub fn of(certificates: Vec<X509>) -> Result<AnchorPool, Fail> {
        let mut found = Collection::default();
        for certificate in certificates {
            let anchor = Anchor {
                bytes: certificate.to_der().map_err(internal)?,
                with_trust: false,
                parsed: OnceLock::from(Some(certificate)),
            };
            found.add(anchor)?;
        }
        Ok(found.pool())
    }

    /// Those of a file that an option names.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or holds none.
    #[cfg(feature = "remote")]
    pub fn of_file(named: Named<'_>) -> Result<AnchorPool, Fail> {
        let mut found = anchors::of_file(Some(named))?;
        anchors::trust_listed(&mut found).map_err(internal)?;
        AnchorPool::of(found)
    }

    /// Whether there is none.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those with a subject, in the order of their files.
    #[must_use]
    pub fn of_subject(&self, name: &X509NameRef) -> Vec<X509> {
        let is = |one: &&Subject| one.name.try_cmp(name).is_ok_and(std::cmp::Ordering::is_eq);
        let anchors = self.0.iter().filter(is).flat_map(|one| &one.anchors);
        anchors.filter_map(Anchor::certificate).cloned().collect()
    }

    /// A store that has them for anchors.
    ///
    /// # Errors
    /// Libcrypto has no memory.
    pub fn store(&self) -> Result<X509StoreBuilder, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        let pool = self.clone();
        set_source(&mut store, Box::new(move |name| pool.of_subject(name)))?;
        Ok(store)
    }
}

/// A store that has the system's anchors, for a process that may open files: what
/// libcrypto's default directories hold is read when a chain asks for it.
///
/// # Errors
/// Libcrypto has no memory.
pub fn system_store() -> Result<X509StoreBuilder, ErrorStack> {
    let (file, directories) = tls_ffi::anchor_places();
    store_of_places(&file, &directories)
}

/// The same of a file and of directories; what cannot be read is passed by.
///
/// # Errors
/// Libcrypto has no memory.
pub fn store_of_places(
    file: &Path,
    directories: &[PathBuf],
) -> Result<X509StoreBuilder, ErrorStack> {
    let mut found = Collection::default();
    let _ = found.add_file(file);
    let mut store = found.pool().store()?;
    for directory in directories {
        // No path of the environment's has a NUL.
        if let Ok(path) = CString::new(directory.as_os_str().as_bytes()) {
            add_directory(&mut store, &path)?;
        }
    }
    Ok(store)
}

/// The system's anchors: those of libcrypto's default file and directories.
#[cfg(feature = "remote")]
#[must_use]
pub fn of_system() -> SystemAnchors {
    let (file, directories) = tls_ffi::anchor_places();
    of_places(&file, &directories)
}

/// The anchors of a file, and of the files in directories whose names libcrypto would
/// look up (`openssl rehash`'s).
#[cfg(feature = "remote")]
#[must_use]
pub fn of_places(file: &Path, directories: &[PathBuf]) -> SystemAnchors {
    let mut found = Collection::default();
    let of_file = found.add_file(file);
    for directory in directories {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let hashed = entries.filter(|entry| is_hashed(&entry.file_name().to_string_lossy()));
        let mut paths: Vec<PathBuf> = hashed.map(|entry| entry.path()).collect();
        // Of several with one subject libcrypto tries the first before the second.
        paths.sort();
        for path in paths {
            // Libcrypto passes it by, too.
            let _ = found.add_file(&path);
        }
    }
    SystemAnchors {
        pool: found.pool(),
        file: of_file.map_err(|why| why.of(unable("load CA list", ("SSL_CERT_FILE", file)))),
    }
}

/// Whether a file's name is a hash of a subject and a number: `0a1b2c3d.0`.
#[cfg(feature = "remote")]
fn is_hashed(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl Anchor {
    /// The certificate, parsed at the first call.
    fn certificate(&self) -> Option<&X509> {
        let parsed = self.parsed.get_or_init(|| {
            let parsed = self.parse().ok();
            tls_ffi::forget_errors();
            parsed
        });
        parsed.as_ref()
    }

    fn parse(&self) -> Result<X509, ErrorStack> {
        if self.with_trust {
            trusted_from_der(&self.bytes)
        } else {
            X509::from_der(&self.bytes)
        }
    }

    /// Its subject, encoded.
    ///
    /// # Errors
    /// It is no certificate.
    fn subject(&self) -> Result<Vec<u8>, Fail> {
        if let Some(found) = subject(&self.bytes) {
            return Ok(found.to_vec());
        }
        // In an encoding that is none of DER's; libcrypto may know it.
        self.parse()
            .and_then(|certificate| certificate.subject_name().to_der())
            .map_err(damaged)
    }
}

fn damaged(why: ErrorStack) -> Fail {
    Fail::from(why).of("its PEM certificate is damaged")
}

/// A pool that is being filled.
#[derive(Default)]
struct Collection {
    subjects: Vec<Subject>,
    /// Where a subject stands, by its encoding.
    places: HashMap<Vec<u8>, usize>,
}

impl Collection {
    /// Adds what a file holds: all of it, or nothing.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or holds none.
    fn add_file(&mut self, path: &Path) -> Result<(), Fail> {
        let bytes = read_file(path)?;
        let anchors = read(&bytes)?;
        if anchors.is_empty() {
            return Err(pem::PemContent::Certificate.missing_in(&bytes).into());
        }
        let subjects: Result<Vec<_>, Fail> = anchors.iter().map(named).collect();
        for ((encoded, name), anchor) in subjects?.into_iter().zip(anchors) {
            self.put(encoded, name, anchor);
        }
        Ok(())
    }

    #[cfg(feature = "remote")]
    fn add(&mut self, anchor: Anchor) -> Result<(), Fail> {
        let (encoded, name) = named(&anchor)?;
        self.put(encoded, name, anchor);
        Ok(())
    }

    fn put(&mut self, encoded: Vec<u8>, name: X509Name, anchor: Anchor) {
        let next = self.subjects.len();
        let at = *self.places.entry(encoded).or_insert(next);
        if at == next {
            let anchors = Vec::new();
            self.subjects.push(Subject { name, anchors });
        }
        let same = |one: &Anchor| one.bytes == anchor.bytes && one.with_trust == anchor.with_trust;
        // One may stand in the file and in the directory.
        if let Some(subject) = self.subjects.get_mut(at) {
            if !subject.anchors.iter().any(same) {
                subject.anchors.push(anchor);
            }
        }
    }

    fn pool(self) -> AnchorPool {
        AnchorPool(Arc::new(self.subjects))
    }
}

/// An anchor's subject, encoded and read.
fn named(anchor: &Anchor) -> Result<(Vec<u8>, X509Name), Fail> {
    let encoded = anchor.subject()?;
    let name = X509Name::from_der(&encoded).map_err(damaged)?;
    Ok((encoded, name))
}

/// The certificates of a PEM file.
///
/// # Errors
/// One is damaged, as far as can be told without parsing it.
fn read(bytes: &[u8]) -> Result<Vec<Anchor>, Fail> {
    let mut found = Vec::new();
    for block in pem_blocks(bytes).map_err(damaged)? {
        let Some(label) = anchors::known(&block.label, anchors::CERTIFICATE) else {
            continue;
        };
        if block.has_header {
            return Err("a PEM certificate in it is encrypted".into());
        }
        found.push(Anchor {
            bytes: block.data,
            with_trust: label == anchors::TRUSTED,
            parsed: OnceLock::new(),
        });
    }
    anchors::whole(bytes, anchors::CERTIFICATE, found.len())?;
    Ok(found)
}

/// The subject of a certificate in DER form, as it is encoded there (RFC 5280, 4.1);
/// what follows the certificate does not matter.
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    let whole = element(certificate, SEQUENCE)?.contents;
    let mut rest = element(whole, SEQUENCE)?.contents;
    if let Some(version) = element(rest, VERSION) {
        rest = version.rest;
    }
    // Serial number, signature algorithm, issuer, validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.rest;
    }
    Some(element(rest, SEQUENCE)?.whole)
}

/// An element of ASN.1 in DER form.
struct Element<'a> {
    whole: &'a [u8],
    contents: &'a [u8],
    rest: &'a [u8],
}

/// The element that bytes begin with, if it has this tag.
fn element(bytes: &[u8], tag: u8) -> Option<Element<'_>> {
    let (first, length) = match bytes {
        [found, length, ..] if *found == tag => (2, *length),
        _ => return None,
    };
    let (head, length) = match length {
        0x80 => return None,
        ..0x80 => (first, usize::from(length)),
        _ => {
            let digits = bytes.get(first..first + usize::from(length & 0x7f))?;
            // More than a file can have.
            let digits = Some(digits).filter(|digits| digits.len() <= 4)?;
            let value = |all: usize, digit: &u8| all << 8 | usize::from(*digit);
            (first + digits.len(), digits.iter().fold(0, value))
        }
    };
    let (whole, rest) = bytes.split_at_checked(head.checked_add(length)?)?;
    let contents = whole.get(head..)?;
    Some(Element {
        whole,
        contents,
        rest,
    })
}
