//! A certificate with its chain: read, described, judged, and given to a context.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::Id;
use openssl::ssl::SslContextBuilder;
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::{KeyKind, OddCurve, Signer, anchors, is_self_issued, pem, shown, unable};
use crate::report::{self, Fail};
use crate::text;
use crate::tls_ffi;

/// Days before its end from which a certificate is warned about.
pub(super) const WARNING_DAYS: u32 = 14;

/// What a chain is to a client that knows its root alone. Places are counted
/// from 1, the certificate itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// No certificate of the issuer is in the file, nor known to us.
    Alone {
        /// The issuer's name.
        issuer: String,
        /// The certificate says where the issuer's can be had: as a rule that is
        /// an intermediate.
        elsewhere: bool,
    },
    /// A certificate did not issue the one before it.
    Broken {
        /// Its place.
        at: usize,
        /// The place of the one that did.
        issuer: Option<usize>,
    },
    /// It ends below a root of the system's.
    ToSystem(String),
    /// It ends below an authority that the system does not know.
    ToUnknown(String),
    /// It ends in its root.
    WithRoot,
}

/// Why there is no certificate in a file.
fn none_in(path: &Path) -> Fail {
    super::read_file(path).map_or_else(
        |why| why,
        |bytes| pem::PemContent::Certificate.missing_in(&bytes).into(),
    )
}

/// Whether one certificate issued another: names, and the signature.
pub(super) fn issued(issuer: &X509Ref, subject: &X509Ref) -> bool {
    issuer.issued(subject) == X509VerifyResult::OK
        && issuer
            .public_key()
            .and_then(|key| subject.verify(&key))
            .unwrap_or(false)
}

/// What an administrator should know of a certificate's dates. `which` begins the
/// sentence.
pub(super) fn date(which: &str, one: &X509Ref) -> Option<Fail> {
    let now = Asn1Time::days_from_now(0).ok()?;
    let soon = Asn1Time::days_from_now(WARNING_DAYS).ok()?;
    let (begin, end) = (one.not_before(), one.not_after());
    if *end < *now {
        Some(Fail::warning(format!("{which} expired at {end}")))
    } else if *begin > *now {
        Some(Fail::warning(format!(
            "{which} is not valid before {begin}"
        )))
    } else if *end < *soon {
        Some(Fail::note(format!("{which} expires at {end}")))
    } else {
        None
    }
}

/// Whether a certificate has a caIssuers URL, RFC 5280 section 4.2.2.1.
fn names_issuer_s_place(certificate: &X509Ref) -> bool {
    certificate.authority_info().is_some_and(|access| {
        access
            .iter()
            .any(|one| one.method().nid() == Nid::AD_CA_ISSUERS)
    })
}

/// A certificate with its intermediates.
pub struct Certificate {
    /// Variable or option that named it.
    pub variable: &'static str,
    /// File it came from.
    pub path: PathBuf,
    /// The certificate itself.
    pub leaf: X509,
    /// What its chain holds beyond it.
    pub intermediates: Vec<X509>,
    /// Its key.
    pub kind: KeyKind,
    /// Its issuer's certificate is among the store's anchors, from which the
    /// chain is completed.
    pub issuer_at_hand: bool,
}

impl Certificate {
    /// Reads a PEM file: the certificate first, its intermediates behind it.
    ///
    /// # Errors
    /// `unable to load certificate: VARIABLE PATH: REASON`.
    pub fn read(variable: &'static str, path: &Path) -> Result<Certificate, Fail> {
        let read = || -> Result<Certificate, Fail> {
            let mut all = anchors::read_certificates(path)?.into_iter();
            let leaf = all.next().ok_or_else(|| none_in(path))?;
            Ok(Certificate {
                variable,
                path: path.to_owned(),
                kind: KeyKind::of(&*leaf.public_key()?),
                leaf,
                intermediates: all.collect(),
                issuer_at_hand: false,
            })
        };
        read().map_err(|why| why.of(unable("load certificate", (variable, path))))
    }

    /// Who it is and until when: `"CN=a" ecdsa SHA256:... spki:... until ...`, with
    /// the digest of the key alone as TLSA records and tlsdestinations have it.
    #[must_use]
    pub fn description(&self) -> String {
        let subject = tls_ffi::names::rfc4514_form(self.leaf.subject_name());
        let print = crate::trust::fingerprint(&self.leaf).unwrap_or_default();
        let key = crate::trust::dane::key_digest(&self.leaf).unwrap_or_default();
        format!(
            "\"{}\" {} SHA256:{} spki:{} until {}",
            text::excerpt(&subject, 200),
            self.kind.word(),
            text::hex(&print),
            text::hex(&key),
            self.leaf.not_after()
        )
    }

    /// `CERTFILE path`.
    fn place(&self) -> String {
        format!("{} {}", self.variable, shown(&self.path))
    }

    /// The certificate and all that follow it in the file.
    fn all(&self) -> impl Iterator<Item = &X509> {
        std::iter::once(&self.leaf).chain(&self.intermediates)
    }

    /// What an administrator should know of its dates, those of the chain too.
    #[must_use]
    pub fn dates(&self) -> Vec<Fail> {
        let judge = |(at, one): (usize, &X509)| {
            let place = self.place();
            date(
                &match at {
                    0 => format!("{place}: certificate"),
                    at => format!("{place}: certificate {} of the file", at + 1),
                },
                one,
            )
        };
        self.all().enumerate().filter_map(judge).collect()
    }

    /// Whether a client that knows the root alone can follow the chain.
    #[must_use]
    pub fn chain(&self) -> Chain {
        let mut last = &self.leaf;
        for (at, next) in self.intermediates.iter().enumerate() {
            if !issued(next, last) {
                return Chain::Broken {
                    at: at + 2,
                    issuer: self
                        .all()
                        .position(|one| issued(one, last))
                        .map(|at| at + 1),
                };
            }
            last = next;
        }
        if is_self_issued(last) {
            return Chain::WithRoot;
        }
        let issuer = text::excerpt(&tls_ffi::names::rfc4514_form(last.issuer_name()), 200);
        if super::system_knows_issuer(last) {
            Chain::ToSystem(issuer)
        } else if self.intermediates.is_empty() && !self.issuer_at_hand {
            Chain::Alone {
                issuer,
                elsewhere: names_issuer_s_place(last),
            }
        } else {
            Chain::ToUnknown(issuer)
        }
    }

    /// What is wrong with its chain.
    #[must_use]
    pub fn chain_finding(&self) -> Option<Fail> {
        let place = self.place();
        match self.chain() {
            Chain::Broken { at, issuer } => {
                let cure = match issuer {
                    Some(issuer) => format!(": wrong order, certificate {issuer} did"),
                    None => String::new(),
                };
                Some(Fail::warning(format!(
                    "{place}: broken chain: certificate {at} of the file did not issue the one before it{cure}"
                )))
            }
            Chain::Alone { issuer, elsewhere } => {
                let text = format!(
                    "{place}: no intermediate: the file holds no certificate of the issuer, {issuer}, and many clients will not find one"
                );
                // A private root issues like this, and its clients know it.
                Some(if elsewhere {
                    Fail::warning(text)
                } else {
                    Fail::doubt(text)
                })
            }
            Chain::ToSystem(_) | Chain::ToUnknown(_) | Chain::WithRoot => None,
        }
    }

    /// Why no client of any version can be served with its key.
    pub(super) fn serves_nobody(&self) -> Option<Fail> {
        const CURE: &str = "no client can be served: make one with ECDSA on P-256, or with RSA";
        match self.kind {
            KeyKind::EcdsaOn(OddCurve {
                name,
                group: None,
                scheme: None,
            }) => Some(format!("its key is on {name}, which TLS has no number for: {CURE}").into()),
            KeyKind::Other if self.leaf.public_key().is_ok_and(|key| key.id() == Id::DSA) => {
                Some(format!("its key is DSA, which none of our suites takes: {CURE}").into())
            }
            _ => None,
        }
    }

    /// Whom a key on a curve that few clients have does not serve.
    fn curve_finding(&self) -> Option<Fail> {
        let KeyKind::EcdsaOn(curve) = self.kind else {
            return None;
        };
        let whom = if curve.scheme.is_some() {
            "only the few clients that have this curve"
        } else {
            "no client of TLS 1.3, and of TLS 1.2 only the few that offer this curve"
        };
        Some(Fail::note(format!(
            "{}: its key is on {}, and serves {whom}: make one on P-256",
            self.place(),
            curve.name
        )))
    }

    /// That clients take it for no server's, or its key for one that does not sign.
    fn purpose_findings(&self) -> impl Iterator<Item = Fail> {
        let purpose = (!tls_ffi::chain::is_for_servers(&self.leaf))
            .then_some("its extended key usage has no serverAuth, and clients refuse it");
        let usage = (!tls_ffi::chain::may_sign(&self.leaf))
            .then_some("its key usage has no digitalSignature, and many clients refuse it");
        purpose.into_iter().chain(usage).map(|why| {
            let place = self.place();
            Fail::warning(format!("{place}: {why}: get a certificate for servers"))
        })
    }

    /// All of that.
    pub fn findings(&self) -> impl Iterator<Item = Fail> {
        let lasting = self
            .chain_finding()
            .into_iter()
            .chain(self.curve_finding())
            .chain(self.purpose_findings());
        self.dates().into_iter().chain(lasting)
    }

    /// Gives the certificate, its chain and its signer to a context. A second
    /// one with another kind of key is added beside the first.
    pub(super) fn install(
        &self,
        context: &mut SslContextBuilder,
        signer: &Signer,
    ) -> Result<(), Fail> {
        self.give(context, signer).map_err(|error| {
            let why = match &*report::tls_reason(&error) {
                // What libssl's security level says, in its own short words.
                "ee key too small" => "its key is too short for OpenSSL's security level: make one with RSA of 2048 bits or more, or with ECDSA".into(),
                "ca key too small" => "the key of one of its intermediates is too short for OpenSSL's security level: get a certificate of another authority".into(),
                "ca md too weak" => "it or one of its intermediates is signed with a digest that is too weak for OpenSSL's security level, such as SHA-1: get another certificate".into(),
                _ => Fail::from(error),
            };
            why.of(unable("load certificate", (self.variable, &self.path)))
        })
    }

    fn give(&self, context: &mut SslContextBuilder, signer: &Signer) -> Result<(), ErrorStack> {
        context.set_certificate(&self.leaf)?;
        if self.intermediates.is_empty() && !is_self_issued(&self.leaf) {
            // ucspi-ssl took intermediates from CAFILE too.
            tls_ffi::complete_chain(context);
        }
        for intermediate in &self.intermediates {
            tls_ffi::add_chain_certificate(context, intermediate)?;
        }
        context.set_private_key(signer)
    }
}
