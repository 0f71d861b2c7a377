//! A server's certificates, judged: what each says of itself, how the list
//! stands, and whether it verifies with the anchors that count.
#![forbid(unsafe_code)]

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, Public};
use openssl::ssl::{SslContextBuilder, SslMethod};
use openssl::stack::Stack;
use openssl::x509::store::X509Store;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509PurposeId, X509Ref, X509StoreContext};

use super::result::{Certificate, Chain, KeyType};
use crate::calendar;
use crate::report::Fail;
use crate::store::pool::AnchorPool;
use crate::text;
use crate::tls_ffi::{self, names};
use crate::trust::dane::key_digest;
use crate::trust::{self, Name};

/// How many certificates of a list are looked at.
const CHAIN: usize = 100;
/// How long a subject or issuer may be, in bytes.
const NAME_LIMIT: usize = 1000;

/// Who verifies certificates, and with which anchors.
pub struct Verifier {
    anchors: AnchorPool,
    store: X509Store,
}

impl Verifier {
    /// With these anchors.
    ///
    /// # Errors
    /// Libcrypto has no memory.
    pub fn new(anchors: AnchorPool) -> Result<Verifier, ErrorStack> {
        let mut store = anchors.store()?;
        store.set_purpose(X509PurposeId::SSL_SERVER)?;
        // What libssl would refuse does not verify here either.
        let level = SslContextBuilder::new(SslMethod::tls_client())?
            .build()
            .security_level();
        let mut param = X509VerifyParam::new()?;
        param.set_auth_level(i32::try_from(level).unwrap_or(0));
        store.set_param(&param)?;
        Ok(Verifier {
            anchors,
            store: store.build(),
        })
    }

    /// The anchors.
    #[must_use]
    pub fn anchors(&self) -> &AnchorPool {
        &self.anchors
    }

    /// What is to be said of the certificates that a server sent, its own first;
    /// it should bear one of `wanted`, of which the host's own name is the first.
    ///
    /// # Errors
    /// One of them is none: words that end a sentence.
    pub fn certificate(&self, sent: &[Vec<u8>], wanted: &[Name]) -> Result<Certificate, Fail> {
        let unreadable =
            |at: usize| format!("certificate {} of {} does not parse", at + 1, sent.len());
        if sent.len() > CHAIN {
            return Err(format!("it sent {} certificates", sent.len()).into());
        }
        let mut list = Vec::new();
        for (at, bytes) in sent.iter().enumerate() {
            let one = X509::from_der(bytes);
            tls_ffi::forget_errors();
            list.push(one.map_err(|_| unreadable(at))?);
        }
        let leaf = list.first().ok_or("it sent no certificate")?;
        let key = leaf.public_key().map_err(|_| {
            tls_ffi::forget_errors();
            "the key in its certificate does not parse"
        })?;
        let failed = |error: ErrorStack| error.to_string();
        Ok(Certificate {
            key: kind(&key)?,
            modulus: modulus(&key),
            bits: key.bits(),
            subject: shown(leaf.subject_name()),
            issuer: shown(leaf.issuer_name()),
            names: named(leaf),
            signature: crate::store::long_name(leaf.signature_algorithm().object().nid())
                .to_owned(),
            not_before: iso(leaf.not_before()).unwrap_or_default(),
            not_after: iso(leaf.not_after()).unwrap_or_default(),
            sha256: text::hex(&trust::fingerprint(leaf).map_err(failed)?),
            spki: text::hex(&key_digest(leaf).map_err(failed)?),
            chain: self.chain(&list),
            verify: self.verify(leaf, &list),
            name_ok: Some(wanted.iter().any(|name| name.is_in(leaf))),
            names_host: wanted.first().is_some_and(|name| name.is_in(leaf)),
        })
    }

    /// `ok`, or libcrypto's words.
    fn verify(&self, leaf: &X509Ref, list: &[X509]) -> String {
        let verified = || {
            let mut others = Stack::new()?;
            for one in list.iter().skip(1) {
                others.push(one.clone())?;
            }
            X509StoreContext::new()?.init(&self.store, leaf, &others, |context| {
                let good = context.verify_cert()?;
                Ok((!good).then(|| context.error().error_string().to_owned()))
            })
        };
        let why: Result<Option<String>, ErrorStack> = verified();
        tls_ffi::forget_errors();
        match why {
            Ok(None) => "ok".to_owned(),
            Ok(Some(why)) => why,
            Err(_) => "it cannot be verified".to_owned(),
        }
    }

    fn chain(&self, list: &[X509]) -> Chain {
        let [leaf, others @ ..] = list else {
            return Chain::Incomplete;
        };
        if signs(leaf, leaf) {
            return Chain::SelfSigned;
        }
        let in_order = list.windows(2).all(|pair| signs(&pair[1], &pair[0]));
        // From issuer to issuer, wherever it stands in the list.
        let mut last = leaf;
        let mut steps = 0;
        while let Some(issuer) = others.iter().find(|one| signs(one, last)) {
            if signs(issuer, issuer) {
                return if in_order {
                    Chain::Complete
                } else {
                    Chain::Misordered
                };
            }
            last = issuer;
            steps += 1;
            if steps > others.len() {
                break;
            }
        }
        let issuers = self.anchors.of_subject(last.issuer_name());
        let anchored = issuers.iter().any(|anchor| signs(anchor, last));
        match (anchored, in_order) {
            (false, _) => Chain::Incomplete,
            (true, true) => Chain::Complete,
            (true, false) => Chain::Misordered,
        }
    }
}

/// Whether one certificate names the other as its issuer; the signature is the
/// verification's business.
fn signs(issuer: &X509Ref, subject: &X509Ref) -> bool {
    issuer.issued(subject) == openssl::x509::X509VerifyResult::OK
}

fn kind(key: &PKey<Public>) -> Result<KeyType, Fail> {
    match key.id() {
        Id::RSA | Id::RSA_PSS => Ok(KeyType::Rsa),
        Id::EC => Ok(KeyType::Ecdsa),
        Id::ED25519 | Id::ED448 => Ok(KeyType::Ed25519),
        _ => Err("the key in its certificate is neither RSA nor ECDSA nor Ed25519".into()),
    }
}

fn modulus(key: &PKey<Public>) -> Option<String> {
    let rsa = key.rsa();
    tls_ffi::forget_errors();
    Some(text::hex(&rsa.ok()?.n().to_vec()))
}

fn shown(name: &openssl::x509::X509NameRef) -> String {
    text::excerpt(names::slash_form(name).as_bytes(), NAME_LIMIT)
}

fn named(leaf: &X509Ref) -> Vec<String> {
    let all = names::alternative_names(leaf);
    all.iter().map(ToString::to_string).collect()
}

/// `2026-01-31T12:00:00Z`; `None` for what is no time.
fn iso(time: &Asn1TimeRef) -> Option<String> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let since = epoch.diff(time).ok();
    tls_ffi::forget_errors();
    let since = since?;
    let seconds = i64::from(since.days) * 86400 + i64::from(since.secs);
    Some(calendar::at(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_times_are_written_as_iso_8601_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            let time = Asn1Time::from_unix(seconds).expect("a time");
            assert_eq!(iso(&time).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_certificate_is_said_so() {
        let judge = Verifier::new(AnchorPool::default()).expect("a store");
        let said = |sent: &[Vec<u8>]| {
            judge
                .certificate(sent, &[])
                .expect_err("no certificate")
                .to_string()
        };
        assert_eq!(said(&[]), "it sent no certificate");
        assert_eq!(
            said(&[b"junk".to_vec()]),
            "certificate 1 of 1 does not parse"
        );
        assert_eq!(said(&vec![Vec::new(); 101]), "it sent 101 certificates");
    }
}
