//! The verification of a peer's chain: what is let pass, and what is remembered
//! of the first thing that was wrong.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Mutex, OnceLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::hash::MessageDigest;
use openssl::ssl::{Ssl, SslRef};
use openssl::x509::{X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult};

use crate::tls_ffi::names;

/// `X509_V_ERR_*` of x509_vfy.h.
const UNABLE_TO_GET_CRL: i32 = 3;
const CRL_NOT_YET_VALID: i32 = 11;
const CRL_HAS_EXPIRED: i32 = 12;
const CERT_REVOKED: i32 = 23;
const HOSTNAME_MISMATCH: i32 = 62;
const IP_ADDRESS_MISMATCH: i32 = 64;

/// A SHA-256 fingerprint of a whole certificate.
pub type Fingerprint = [u8; 32];

/// What was wrong with a peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Place in the chain: 0 is the peer's own.
    pub depth: u32,
    /// Subject of that certificate, in slash form.
    pub subject: String,
    /// Libcrypto's words.
    pub reason: String,
    /// The chain is good, the name is not: the names that the certificate holds.
    pub names: Option<String>,
}

/// `depth 1, /CN=Some CA: certificate has expired`.
impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `slash_form` left printable ASCII only.
        let subject = self.subject.get(..300).unwrap_or(&self.subject);
        write!(out, "depth {}, {subject}: {}", self.depth, self.reason)
    }
}

/// What a failed check comes to.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Go on with a chain that does not verify; the result stays known. A
    /// revoked certificate and an outdated list are refused all the same.
    pub tolerant: bool,
    /// Certificates accepted whoever signed them.
    pub pins: Vec<Fingerprint>,
}

type RefusalIndex = Index<Ssl, Mutex<Option<Refusal>>>;

fn index() -> Result<RefusalIndex, ErrorStack> {
    static INDEX: OnceLock<RefusalIndex> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

/// Prepares a connection for [`Policy::judge`].
///
/// # Errors
/// Libcrypto has no room for per-connection data.
pub fn watch(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    ssl.set_ex_data(index()?, Mutex::new(None));
    Ok(())
}

/// The first thing that was wrong, if anything was.
#[must_use]
pub fn refusal(ssl: &SslRef) -> Option<Refusal> {
    ssl.ex_data(index().ok()?)?.lock().ok()?.clone()
}

/// The fingerprint of a certificate.
///
/// # Errors
/// Libcrypto fails.
pub fn fingerprint(certificate: &X509Ref) -> Result<Fingerprint, ErrorStack> {
    let digest = certificate.digest(MessageDigest::sha256())?;
    Ok(digest.as_ref().try_into().unwrap_or([0; 32]))
}

impl Policy {
    /// Whether a certificate is one of the pinned ones.
    #[must_use]
    pub fn pinned(&self, certificate: &X509Ref) -> bool {
        !self.pins.is_empty()
            && fingerprint(certificate).is_ok_and(|print| self.pins.contains(&print))
    }

    /// OpenSSL's verify callback, see `SSL_CTX_set_verify(3)`: called for each
    /// certificate of the chain and for each thing that is wrong.
    pub fn judge(&self, good: bool, context: &mut X509StoreContextRef) -> bool {
        if good {
            return true;
        }
        let error = context.error();
        let code = error.as_raw();
        let revoked = code == CERT_REVOKED;
        let leaf_pinned = !revoked
            && context
                .chain()
                .and_then(|chain| chain.iter().next())
                .is_some_and(|leaf| self.pinned(leaf));
        // A list for the issuer of the peer's own certificate there must be;
        // lists for the CAs above it are checked where they are given.
        let no_list_above = code == UNABLE_TO_GET_CRL && context.error_depth() > 0;
        if leaf_pinned || no_list_above {
            context.set_error(X509VerifyResult::OK);
            return true;
        }
        let other_name = matches!(code, HOSTNAME_MISMATCH | IP_ADDRESS_MISMATCH);
        let refusal = Refusal {
            depth: context.error_depth(),
            subject: context
                .current_cert()
                .map(|certificate| names::slash_form(certificate.subject_name()))
                .unwrap_or_default(),
            reason: error.error_string().to_owned(),
            names: other_name.then(|| {
                context
                    .current_cert()
                    .map(names::listed)
                    .unwrap_or_default()
            }),
        };
        remember(context, refusal);
        self.tolerant
            && !matches!(
                code,
                CERT_REVOKED | CRL_HAS_EXPIRED | CRL_NOT_YET_VALID | UNABLE_TO_GET_CRL
            )
    }
}

/// Keeps the first refusal of a connection.
pub(crate) fn remember(context: &X509StoreContextRef, refusal: Refusal) {
    let place = X509StoreContext::ssl_idx()
        .ok()
        .and_then(|index| context.ex_data(index))
        .and_then(|ssl| ssl.ex_data(index().ok()?));
    if let Some(place) = place
        && let Ok(mut first) = place.lock()
    {
        first.get_or_insert(refusal);
    }
}
