//! Keys read from files: by a worker of the keyholder, and by a client for its
//! own one connection.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, PKeyRef, Private, Public};
use openssl::rsa;
use openssl::sign::RsaPssSaltlen;

use crate::report::{self, Fail};
use crate::secret::Secret;
use crate::store::{self, KeyPlace, Signer, SignerSource, pem};
use crate::sys::fd;
use crate::tls_ffi::freed;
use crate::tls_ffi::provider::{self, Digest, Padding};

/// The longest password of a key, libcrypto's `PEM_BUFSIZE`.
pub const PASSWORD_LIMIT: usize = 1024;

/// A key's password.
pub struct Password(Secret);

impl Password {
    /// A copy of a secret text; what is behind [`PASSWORD_LIMIT`] bytes of it is
    /// left out, as libcrypto would.
    #[must_use]
    pub fn new(text: &[u8]) -> Password {
        let text = &text[..text.len().min(PASSWORD_LIMIT)];
        Password(Secret::new(text.into()))
    }

    /// Reads a password up to a NUL or the end of file.
    ///
    /// # Errors
    /// It cannot be read, or is longer than [`PASSWORD_LIMIT`].
    pub fn read(from: &OwnedFd) -> Result<Password, Fail> {
        let mut bytes = Secret::new(vec![0; PASSWORD_LIMIT + 1]);
        let mut length = 0;
        while length < bytes.len() {
            let count =
                fd::read_some(from, &mut bytes[length..]).map_err(Fail::unable("read password"))?;
            let new = &bytes[length..length + count];
            let end = new.iter().position(|&byte| byte == 0);
            length += end.unwrap_or(count);
            if count == 0 || end.is_some() {
                bytes.truncate(length);
                return Ok(Password(bytes));
            }
        }
        Err(Fail::temporary("unable to read password: too long"))
    }
}

/// The key of one client connection. It is in this process, but libssl never
/// has it: [`OwnKey::forget`] ends it, and nothing of it is left where
/// [`freed::take_over`] was called in time.
pub struct OwnKey {
    /// The key's password, if one was given.
    pub password: Option<Password>,
    /// Where one is given, for whoever has given none: words behind `no password`.
    pub given: &'static str,
}

impl SignerSource for OwnKey {
    fn signer(&self, place: &KeyPlace, public: &PKeyRef<Public>) -> Result<Signer, Fail> {
        let failed = |why: Fail| why.of(format_args!("unable to load key: {place}"));
        freed::wipe_freed(true);
        let key = read(&place.path, self.password.as_ref(), self.given).map_err(failed)?;
        if !key.public_eq(public) {
            return Err(place.unfit());
        }
        provider::sign_with(Some(Box::new(move |wanted| {
            sign(&key, wanted.padding, wanted.digest, wanted.message).ok()
        })));
        provider::key(public, 0).map_err(|error| failed(error.into()))
    }
}

impl OwnKey {
    /// Of a connection that shows no certificate.
    pub const NONE: OwnKey = OwnKey {
        password: None,
        given: BY_LETTER,
    };

    /// Ends the key: nobody needs it once the handshake is over.
    pub fn forget() {
        super::link::close();
        freed::wipe_freed(false);
    }
}

/// Makes a signature.
///
/// # Errors
/// The key cannot sign so.
pub(super) fn sign(
    key: &PKeyRef<Private>,
    padding: Padding,
    digest: Digest,
    message: &[u8],
) -> Result<Vec<u8>, ErrorStack> {
    let digest = match digest {
        Digest::None => None,
        Digest::Md5Sha1 => MessageDigest::from_nid(Nid::MD5_SHA1),
        Digest::Sha1 => Some(MessageDigest::sha1()),
        Digest::Sha224 => Some(MessageDigest::sha224()),
        Digest::Sha256 => Some(MessageDigest::sha256()),
        Digest::Sha384 => Some(MessageDigest::sha384()),
        Digest::Sha512 => Some(MessageDigest::sha512()),
    };
    let mut signer = match digest {
        Some(digest) => openssl::sign::Signer::new(digest, key)?,
        None => openssl::sign::Signer::new_without_digest(key)?,
    };
    match padding {
        Padding::None => {}
        Padding::Pkcs1 => signer.set_rsa_padding(rsa::Padding::PKCS1)?,
        Padding::Pss => {
            signer.set_rsa_padding(rsa::Padding::PKCS1_PSS)?;
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
        }
    }
    signer.sign_oneshot_to_vec(message)
}

/// Where a program with letters is given a key's password: see [`OwnKey::given`].
pub const BY_LETTER: &str = "with -3";
/// Where domaincerts has it.
#[cfg(feature = "remote")]
pub const BY_LINE: &str = "in the third field of its line";
/// Where sslclient finds the one of a key of domaincerts.
pub const BY_LINE_OR_LETTER: &str = "in the third field of its line or with -3";

/// Reads a PEM key, whose password is `given` there. The file's bytes do not stay
/// in memory.
///
/// # Errors
/// Why there is no key, without the path.
pub(super) fn read(
    path: &Path,
    password: Option<&Password>,
    given: &str,
) -> Result<PKey<Private>, Fail> {
    let bytes = Secret::new(store::read_file(path)?);
    // Libcrypto's reader of PEM leaves lines of it in memory that it gave back.
    if let Some(der) = decoded(&bytes) {
        if let Ok(key) = PKey::private_key_from_der(&der) {
            return Ok(key);
        }
    }
    let mut wanted_password = false;
    let key = PKey::private_key_from_pem_callback(&bytes, |buffer| {
        wanted_password = true;
        let password = password.map_or(&[][..], |password| &*password.0);
        let length = password.len().min(buffer.len());
        buffer[..length].copy_from_slice(&password[..length]);
        Ok(length)
    });
    key.map_err(|error| match (wanted_password, password.is_some()) {
        (true, false) => format!("it is encrypted, and no password was given {given}").into(),
        (true, true) => format!("its password is wrong ({})", report::tls_reason(&error)).into(),
        (false, _) => pem::PemContent::Key.missing_in(&bytes).into(),
    })
}

/// The bytes of the first private key of a PEM text (RFC 7468), if it is there
/// and not encrypted with headers.
fn decoded(text: &[u8]) -> Option<Secret> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const LABEL: &[u8] = b"PRIVATE KEY-----";
    let mut lines = text.split(|&byte| byte == b'\n');
    lines.by_ref().find(|line| {
        let line = line.trim_ascii_end();
        line.starts_with(BEGIN) && line.ends_with(LABEL)
    })?;
    // Of its final size at once: a vector that grows leaves copies behind.
    let mut digits = Vec::with_capacity(text.len());
    for line in lines {
        if line.starts_with(b"-") {
            break;
        }
        digits.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
    }
    let digits = Secret::new(digits);
    let der = openssl::base64::decode_block(std::str::from_utf8(&digits).ok()?);
    der.ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_keys_are_decoded_and_others_are_left_to_libcrypto() {
        let key = PKey::generate_ed25519().expect("a key");
        let pem = key.private_key_to_pem_pkcs8().expect("PEM");
        let der = key.private_key_to_pkcs8().expect("DER");
        assert_eq!(decoded(&pem).as_deref(), Some(&*der));
        let behind = [b"-----BEGIN X-----\nAAAA\n-----END X-----\n", &*pem].concat();
        assert_eq!(decoded(&behind).as_deref(), Some(&*der));
        let windows = String::from_utf8(pem.clone())
            .expect("text")
            .replace('\n', "\r\n");
        assert_eq!(decoded(windows.as_bytes()).as_deref(), Some(&*der));
        let headers = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END";
        assert_eq!(decoded(headers), None);
        assert_eq!(decoded(b""), None);
    }
}
