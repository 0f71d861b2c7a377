//! Whether a peer is who it should be. What is expected of it is an
//! [`Expectation`]; it is judged once, when libssl has the peer's chain, to one
//! [`Verdict`], from which log, environment and report are all derived.
//!
//! Libcrypto's verify callback only collects what is wrong, in a list that
//! nobody can take anything from: a failure that is tolerated stays the verdict,
//! whatever comes out well later. Names belong to a connection; the rest may be
//! shared by a context's connections.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::{SslContextBuilder, SslRef, SslVerifyMode};
use openssl::stack::StackRef;
use openssl::x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef};

#[cfg(feature = "remote")]
use crate::host_name::HostName;
use crate::tls_ffi::chain::{is_root, judge_chains, result_of};
use crate::tls_ffi::{self, ex_data::ExData, names};

pub mod dane;
mod expectation;
mod reference;
mod verdict;

pub use crate::host_name::Reference;
pub use expectation::{Demand, Expectation, Tolerated};
use expectation::{Failures, is_revocation_unknown};
pub use reference::Name;
pub use verdict::{Fault, Naming, Refusal, Verdict};

/// `X509_V_ERR_*` of x509_vfy.h.
mod code {
    pub const UNABLE_TO_GET_ISSUER_CERT: i32 = 2;
    pub const UNABLE_TO_GET_CRL: i32 = 3;
    pub const UNABLE_TO_DECRYPT_CRL_SIGNATURE: i32 = 5;
    pub const CRL_SIGNATURE_FAILURE: i32 = 8;
    pub const CERT_HAS_EXPIRED: i32 = 10;
    pub const CRL_NOT_YET_VALID: i32 = 11;
    pub const CRL_HAS_EXPIRED: i32 = 12;
    pub const ERROR_IN_CRL_LAST_UPDATE_FIELD: i32 = 15;
    pub const ERROR_IN_CRL_NEXT_UPDATE_FIELD: i32 = 16;
    pub const DEPTH_ZERO_SELF_SIGNED_CERT: i32 = 18;
    pub const SELF_SIGNED_CERT_IN_CHAIN: i32 = 19;
    pub const UNABLE_TO_GET_ISSUER_CERT_LOCALLY: i32 = 20;
    pub const UNABLE_TO_VERIFY_LEAF_SIGNATURE: i32 = 21;
    pub const CERT_REVOKED: i32 = 23;
    pub const CERT_REJECTED: i32 = 28;
    pub const UNABLE_TO_GET_CRL_ISSUER: i32 = 33;
    pub const KEYUSAGE_NO_CRL_SIGN: i32 = 35;
    pub const UNHANDLED_CRITICAL_CRL_EXTENSION: i32 = 36;
    pub const DIFFERENT_CRL_SCOPE: i32 = 44;
    pub const CRL_PATH_VALIDATION_ERROR: i32 = 54;
    pub const HOSTNAME_MISMATCH: i32 = 62;
    pub const IP_ADDRESS_MISMATCH: i32 = 64;
    pub const DANE_NO_MATCH: i32 = 65;
}

/// A SHA-256 fingerprint of a whole certificate.
pub type Fingerprint = [u8; 32];

/// The fingerprint of a certificate.
///
/// # Errors
/// Libcrypto fails.
pub fn fingerprint(certificate: &X509Ref) -> Result<Fingerprint, ErrorStack> {
    let digest = certificate.digest(MessageDigest::sha256())?;
    Ok(digest.as_ref().try_into().unwrap_or([0; 32]))
}

/// What a connection keeps.
struct Judgement {
    expectation: Arc<Expectation>,
    names: Vec<Name>,
    records: Vec<dane::Record>,
    /// The names that libssl itself looks for where an authority's record matches.
    hosts: Vec<Name>,
    /// What is expected besides.
    besides: Option<(Expectation, Vec<Name>)>,
    failures: Failures,
    judged: Option<Result<Verdict, Refusal>>,
    judged_besides: Option<Result<Verdict, Refusal>>,
}

static JUDGEMENT: ExData<Mutex<Judgement>> = ExData::new();

/// Has the chains of a context's connections judged here. A connection of which
/// nothing was [`expect`]ed accepts no certificate.
///
/// # Errors
/// Libcrypto has no room for per-connection data.
pub fn judge_in(context: &mut SslContextBuilder, mode: SslVerifyMode) -> Result<(), ErrorStack> {
    JUDGEMENT.index()?;
    context.set_verify_callback(mode, collect);
    judge_chains(context, judge);
    Ok(())
}

/// Says what is expected of a connection's peer, and which names it may bear.
///
/// # Errors
/// Libcrypto has no room for per-connection data.
pub fn expect(
    ssl: &mut SslRef,
    expectation: Arc<Expectation>,
    names: Vec<Name>,
) -> Result<(), ErrorStack> {
    keep(ssl, expectation, names, Vec::new(), Vec::new())
}

/// What a server is compared with by DANE.
#[cfg(feature = "remote")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host whose records they are: the server is told it (SNI).
    pub host: HostName,
    /// Further names that count where an authority's record matches (RFC 7672,
    /// 3.2.2).
    pub others: Vec<HostName>,
    /// The records that can be compared.
    pub records: Vec<dane::Record>,
    /// Names of which the certificate must bear one besides; none: whatever it is.
    pub names: Vec<Name>,
}

/// Says that a server must match one of its TLSA records; nothing that is wrong is
/// tolerated. The context must allow it ([`crate::tls_ffi::dane::allow`]).
///
/// # Errors
/// None of the records is of use to libssl, or it has no memory.
#[cfg(feature = "remote")]
pub fn expect_records(ssl: &mut SslRef, published: Published) -> Result<(), ErrorStack> {
    let Published {
        host,
        others,
        records,
        names,
    } = published;
    let data = records.iter().map(|one| (one.numbers(), &*one.data));
    let further: Vec<&str> = others.iter().map(HostName::as_str).collect();
    if tls_ffi::dane::require(ssl, host.as_str(), &further, data)? == 0 {
        return Err(ErrorStack::get());
    }
    let expectation = Expectation {
        demand: Demand::Records,
        ..Expectation::default()
    };
    let hosts = std::iter::once(&host).chain(&others);
    let hosts = hosts.map(|host| Name::new(Reference::Host(host.clone())));
    let hosts = hosts.collect();
    keep(ssl, Arc::new(expectation), names, records, hosts)
}

fn keep(
    ssl: &mut SslRef,
    expectation: Arc<Expectation>,
    names: Vec<Name>,
    records: Vec<dane::Record>,
    hosts: Vec<Name>,
) -> Result<(), ErrorStack> {
    ssl.set_verify(expectation.mode(ssl.is_server()));
    let judgement = Judgement {
        expectation,
        names,
        records,
        hosts,
        besides: None,
        failures: Failures::default(),
        judged: None,
        judged_besides: None,
    };
    JUDGEMENT.set(ssl, Mutex::new(judgement))
}

/// Expects something else of a connection's peer, before its chain is there: what
/// was expected before is forgotten. The names that it may bear stay.
///
/// # Errors
/// Nothing was expected before, or the chain was judged already.
pub fn replace(ssl: &mut SslRef, expectation: Arc<Expectation>) -> Result<(), ErrorStack> {
    ssl.set_verify(expectation.mode(ssl.is_server()));
    unjudged(ssl, |judgement| {
        judgement.expectation = expectation;
    })
}

/// Changes what is expected, as long as nothing was judged.
fn unjudged(ssl: &SslRef, change: impl FnOnce(&mut Judgement)) -> Result<(), ErrorStack> {
    match judgement(ssl).and_then(|judgement| judgement.lock().ok()) {
        Some(mut judgement) if judgement.judged.is_none() => {
            change(&mut judgement);
            Ok(())
        }
        _ => Err(ErrorStack::get()),
    }
}

/// Expects something more of a connection's peer, with names of its own; the chain is
/// the same. What is wrong by this, and not tolerated, ends the connection too; its
/// verdict is told apart ([`verdict_besides`]).
///
/// # Errors
/// Nothing was expected before, or the chain was judged already.
#[cfg(feature = "remote")]
pub fn expect_besides(
    ssl: &mut SslRef,
    expectation: Expectation,
    names: Vec<Name>,
) -> Result<(), ErrorStack> {
    unjudged(ssl, |judgement| {
        judgement.besides = Some((expectation, names));
    })
}

/// The verdict on an established session's peer by what was expected besides.
///
/// # Errors
/// What is wrong; the session must not be used.
#[cfg(feature = "remote")]
pub fn verdict_besides(ssl: &SslRef) -> Result<Option<Verdict>, Refusal> {
    let nobody = || Refusal::new(Fault::Unjudged, "its certificate was not checked");
    let judgement = judgement(ssl).ok_or_else(nobody)?;
    let judgement = judgement.lock().map_err(|_| nobody())?;
    match (
        &judgement.besides,
        &judgement.judged_besides,
        ssl.peer_certificate(),
    ) {
        (None, ..) => Ok(None),
        (Some(_), Some(judged), _) => judged.clone().map(Some),
        (Some((expectation, _)), None, None) => {
            expectation.judge_absence(ssl.is_server()).map(Some)
        }
        (Some(_), None, Some(_)) => Err(nobody()),
    }
}

/// The verdict on an established session's peer. That of a resumed session was
/// judged by nobody here.
///
/// # Errors
/// What is wrong; the session must not be used.
pub fn verdict(ssl: &SslRef) -> Result<Verdict, Refusal> {
    let nobody = || Refusal::new(Fault::Unjudged, "its certificate was not checked");
    let judgement = judgement(ssl).ok_or_else(nobody)?;
    let judgement = judgement.lock().map_err(|_| nobody())?;
    match (&judgement.judged, ssl.peer_certificate()) {
        _ if judgement.expectation.demand == Demand::Unasked => Ok(Verdict::NotAsked),
        (Some(judged), _) => judged.clone(),
        (None, None) => judgement.expectation.judge_absence(ssl.is_server()),
        (None, Some(_)) => Err(nobody()),
    }
}

/// Why a handshake was ended here, if it was for the peer's certificate.
#[must_use]
pub fn refusal(ssl: &SslRef) -> Option<Refusal> {
    let judgement = judgement(ssl)?.lock().ok()?;
    judgement.judged.clone()?.err()
}

fn judgement(ssl: &SslRef) -> Option<&Mutex<Judgement>> {
    JUDGEMENT.of(ssl)
}

fn judgement_of(context: &X509StoreContextRef) -> Option<&Mutex<Judgement>> {
    judgement(ssl_of(context)?)
}

fn ssl_of(context: &X509StoreContextRef) -> Option<&SslRef> {
    context.ex_data(X509StoreContext::ssl_idx().ok()?)
}

/// The decision where TLSA records are to be matched. Libssl compares; nothing that
/// it minds is tolerated, and without a record that matched there is no verdict.
fn judge_records(
    failures: &Failures,
    records: &[dane::Record],
    names: &[Name],
    chain: &[X509],
    matched: Option<tls_ffi::dane::Numbers>,
) -> Result<Verdict, Refusal> {
    let told = |refusal: Refusal| Refusal {
        reason: format!("{} ({})", refusal.reason, dane::compared(records, chain)),
        ..refusal
    };
    match (failures.first(), matched, chain.first()) {
        (None, Some(_), Some(leaf))
            if !names.is_empty() && !names.iter().any(|one| one.is_in(leaf)) =>
        {
            Err(told(Refusal::name(leaf, names)))
        }
        (None, Some([usage, selector, matching]), Some(_)) => Ok(Verdict::Dane {
            usage,
            selector,
            matching,
        }),
        (Some(refusal), ..) if refusal.code() != code::DANE_NO_MATCH => Err(told(refusal.clone())),
        (.., Some(leaf)) => Err(Refusal::records(leaf, &dane::compared(records, chain))),
        (.., None) => Err(Refusal::new(
            Fault::Absent,
            "the server showed no certificate",
        )),
    }
}

/// OpenSSL's verify callback, see `SSL_CTX_set_verify(3)`: called for each
/// certificate of the chain and for each thing that is wrong. It always goes on,
/// so that all is found; the decision is [`judge`]'s.
fn collect(good: bool, context: &mut X509StoreContextRef) -> bool {
    if good {
        return true;
    }
    let error = context.error();
    let depth = context.error_depth();
    // A list for the issuer of the peer's own certificate there must be; lists
    // for the CAs above it are checked where they are given.
    if error.as_raw() == code::UNABLE_TO_GET_CRL && depth > 0 {
        return true;
    }
    let certificate = context.current_cert();
    // Where an intermediate is the anchor, nobody can tell whether a list is its
    // issuer's; none is needed.
    let is_last = || context.chain().map(StackRef::len) == usize::try_from(depth + 1).ok();
    if depth > 0
        && is_revocation_unknown(error.as_raw())
        && certificate.is_some_and(|one| !is_root(one))
        && is_last()
    {
        return true;
    }
    let of_chain = || Refusal {
        fault: Fault::Chain(error),
        depth,
        subject: certificate.map_or_else(String::new, |one| names::slash_form(one.subject_name())),
        reason: error.error_string().to_owned(),
        naming: None,
    };
    // A failure that could not be kept must not be passed by.
    match judgement_of(context).map(Mutex::lock) {
        Some(Ok(mut judgement)) => {
            let refusal = match certificate {
                Some(leaf) if error.as_raw() == code::HOSTNAME_MISMATCH => {
                    Refusal::name(leaf, &judgement.hosts)
                }
                _ => of_chain(),
            };
            judgement.failures.add(refusal);
            true
        }
        _ => false,
    }
}

/// Verifies a chain and decides, once. Libssl sends the alert that belongs to
/// the error that is set here.
fn judge(context: &mut X509StoreContextRef) -> bool {
    let complete = context.verify_cert().unwrap_or(false);
    // What was tolerated must not be taken for a failure of the next call.
    tls_ffi::forget_errors();
    let failure = context.error();
    let chain: Vec<X509> = context.chain().map_or_else(Vec::new, |chain| {
        chain.iter().map(ToOwned::to_owned).collect()
    });
    let leaf = chain.first();
    let matched = ssl_of(context).and_then(tls_ffi::dane::matched);
    let code = match judgement_of(context).map(Mutex::lock) {
        Some(Ok(mut judgement)) => {
            if !complete || leaf.is_none() {
                // Libcrypto gave up: nobody knows what it did not look at.
                let words = failure.error_string();
                judgement.failures.add(Refusal::new(Fault::Unjudged, words));
            }
            let judgement = &mut *judgement;
            let judged = if judgement.expectation.demand == Demand::Records {
                judge_records(
                    &judgement.failures,
                    &judgement.records,
                    &judgement.names,
                    &chain,
                    matched,
                )
            } else {
                let leaf = leaf.map(|leaf| &**leaf);
                judgement
                    .expectation
                    .judge(&judgement.failures, leaf, &judgement.names)
            };
            let besides = judgement.besides.as_ref().map(|(expectation, names)| {
                let leaf = chain.first().map(|leaf| &**leaf);
                expectation.judge(&judgement.failures, leaf, names)
            });
            let judged = match (judged, &besides) {
                (Ok(_), Some(Err(refusal))) => Err(refusal.clone()),
                (judged, _) => judged,
            };
            let code = judged.as_ref().err().map(Refusal::code);
            judgement.judged = Some(judged);
            judgement.judged_besides = besides;
            code
        }
        _ => Some(code::CERT_REJECTED),
    };
    if let Some(code) = code {
        context.set_error(result_of(code));
    }
    code.is_none()
}

#[cfg(test)]
mod tests;
