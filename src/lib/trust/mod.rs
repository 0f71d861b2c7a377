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
use openssl::hash::{MessageDigest, hash};
use openssl::ssl::{SslContextBuilder, SslRef, SslVerifyMode};
use openssl::x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef};

use crate::tls_ffi::chain::{judge_chains, result_of};
use crate::tls_ffi::{self, ex_data::ExData, names};
use crate::tlsdestinations::Pin;

pub mod dane;
mod expected;
mod verdict;

pub use expected::{Name, Reference};
pub use verdict::{Fault, Naming, Refusal, Verdict};

/// `X509_V_ERR_*` of x509_vfy.h.
mod code {
    pub const UNABLE_TO_GET_CRL: i32 = 3;
    pub const UNABLE_TO_DECRYPT_CRL_SIGNATURE: i32 = 5;
    pub const CRL_SIGNATURE_FAILURE: i32 = 8;
    pub const CRL_NOT_YET_VALID: i32 = 11;
    pub const CRL_HAS_EXPIRED: i32 = 12;
    pub const ERROR_IN_CRL_LAST_UPDATE_FIELD: i32 = 15;
    pub const ERROR_IN_CRL_NEXT_UPDATE_FIELD: i32 = 16;
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

/// What a peer's certificate must do, each more than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// It is not even asked for.
    #[default]
    Unasked,
    /// It may be missing; what it says is noted.
    Nothing,
    /// It must be there; what it says is noted.
    Certificate,
    /// It must lead to an anchor, or be a pinned one.
    Chain,
    /// That, and bear one of the connection's names.
    Name,
    /// It must be a pinned one.
    Pin,
    /// That, and bear one of the connection's names.
    PinAndName,
    /// It must match one of the connection's TLSA records.
    Records,
}

/// Which failures do not end the connection. They stay its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tolerated {
    /// None.
    #[default]
    Nothing,
    /// That there is no certificate, or that it does not verify; but not that it
    /// is revoked, nor that nobody can tell whether a good one is.
    Unverified,
    /// All.
    Everything,
}

/// What is expected of a peer.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// What its certificate must do.
    pub demand: Demand,
    /// Certificates that are accepted whoever signed them.
    pub pins: Vec<Pin>,
    /// What does not end the connection.
    pub tolerated: Tolerated,
}

/// What was wrong with a chain, in the order in which it was found. Nothing can
/// be taken out of it.
#[derive(Default)]
struct Failures(Vec<Refusal>);

impl Failures {
    fn add(&mut self, refusal: Refusal) {
        self.0.push(refusal);
    }
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
    pub host: String,
    /// Further names that count where an authority's record matches (RFC 7672,
    /// 3.2.2).
    pub others: Vec<String>,
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
    if tls_ffi::dane::require(ssl, &host, &others, data)? == 0 {
        return Err(ErrorStack::get());
    }
    let expectation = Expectation {
        demand: Demand::Records,
        ..Expectation::default()
    };
    let hosts = std::iter::once(&host).chain(&others);
    let hosts = hosts.map(|host| Name::new(Reference::new(host))).collect();
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
    let judgement = judgement(ssl).and_then(|judgement| judgement.lock().ok());
    match judgement {
        Some(mut judgement) if judgement.judged.is_none() => {
            judgement.expectation = expectation;
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
    let judgement = judgement(ssl).and_then(|judgement| judgement.lock().ok());
    match judgement {
        Some(mut judgement) if judgement.judged.is_none() => {
            judgement.besides = Some((expectation, names));
            Ok(())
        }
        _ => Err(ErrorStack::get()),
    }
}

/// The verdict on an established session's peer by what was expected besides.
///
/// # Errors
/// What is wrong; the session must not be used.
#[cfg(feature = "remote")]
pub fn verdict_besides(ssl: &SslRef) -> Result<Option<Verdict>, Refusal> {
    let nobody = || Refusal::plain(Fault::Unjudged, "its certificate was not checked");
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
    let nobody = || Refusal::plain(Fault::Unjudged, "its certificate was not checked");
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
    match (failures.0.first(), matched, chain.first()) {
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
        (.., None) => Err(Refusal::plain(
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
                judgement
                    .failures
                    .add(Refusal::plain(Fault::Unjudged, words));
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

impl Expectation {
    /// How libssl is to ask a peer for its certificate.
    #[must_use]
    pub fn mode(&self, server: bool) -> SslVerifyMode {
        match self.demand {
            Demand::Unasked => SslVerifyMode::NONE,
            _ if server && !self.may_be_absent() => {
                SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT
            }
            _ => SslVerifyMode::PEER,
        }
    }

    fn may_be_absent(&self) -> bool {
        self.demand <= Demand::Nothing
            || (self.demand != Demand::Certificate && self.tolerated != Tolerated::Nothing)
    }

    fn judge_absence(&self, server: bool) -> Result<Verdict, Refusal> {
        if self.may_be_absent() {
            return Ok(Verdict::Absent);
        }
        Err(Refusal::plain(
            Fault::Absent,
            if server {
                "the client showed no certificate"
            } else {
                "the server showed no certificate"
            },
        ))
    }

    /// The decision.
    fn judge(
        &self,
        failures: &Failures,
        leaf: Option<&X509Ref>,
        names: &[Name],
    ) -> Result<Verdict, Refusal> {
        // A name that nobody can have forged counts before one that somebody may.
        let borne = names.iter().filter_map(|name| name.borne_by(leaf?));
        let matched = borne.min_by_key(|name| name.from_dns);
        let pinned = leaf.is_some_and(|leaf| self.pins.iter().any(|pin| fits(pin, leaf)));
        let own = match (self.demand, leaf) {
            (Demand::Pin | Demand::PinAndName, Some(leaf)) if !pinned => {
                Some(Refusal::fingerprint(leaf))
            }
            (Demand::Name | Demand::PinAndName, Some(leaf)) if matched.is_none() => {
                Some(Refusal::name(leaf, names))
            }
            _ => None,
        };
        // Beside a pin the chain says nothing, whoever signed it; a list that names
        // one of its certificates does.
        let counts = |failure: &&Refusal| match (pinned, self.demand) {
            (true, _) => failure.code() == code::CERT_REVOKED,
            (false, Demand::Pin | Demand::PinAndName) => false,
            (false, _) => true,
        };
        let mut all = failures.0.iter().filter(counts).chain(&own);
        let mut numbered = all.clone().enumerate();
        if let Some((_, refusal)) = numbered.find(|(at, one)| !self.tolerates(one, *at == 0)) {
            return Err(refusal.clone());
        }
        Ok(match all.next() {
            Some(first) => Verdict::Unverified(first.clone()),
            None if pinned => Verdict::Pinned,
            None if self.demand == Demand::Name => Verdict::Verified(matched),
            None => Verdict::Verified(None),
        })
    }

    /// Whether a failure lets the connection live; `first`: all before it was
    /// good.
    fn tolerates(&self, refusal: &Refusal, first: bool) -> bool {
        if self.demand <= Demand::Certificate {
            return true;
        }
        match self.tolerated {
            Tolerated::Nothing => false,
            Tolerated::Everything => true,
            Tolerated::Unverified => match refusal.code() {
                code::CERT_REVOKED | code::CRL_HAS_EXPIRED | code::CRL_NOT_YET_VALID => false,
                // A stranger's authority has no list of ours.
                code if is_revocation_unknown(code) => !first,
                _ => refusal.fault != Fault::Unjudged,
            },
        }
    }
}

/// Whether an error means that nobody can tell if a certificate is revoked.
fn is_revocation_unknown(code: i32) -> bool {
    matches!(
        code,
        code::UNABLE_TO_GET_CRL
            | code::UNABLE_TO_DECRYPT_CRL_SIGNATURE
            | code::CRL_SIGNATURE_FAILURE
            | code::ERROR_IN_CRL_LAST_UPDATE_FIELD
            | code::ERROR_IN_CRL_NEXT_UPDATE_FIELD
            | code::UNABLE_TO_GET_CRL_ISSUER
            | code::KEYUSAGE_NO_CRL_SIGN
            | code::UNHANDLED_CRITICAL_CRL_EXTENSION
            | code::DIFFERENT_CRL_SCOPE
            | code::CRL_PATH_VALIDATION_ERROR
    )
}

/// Whether a certificate has a fingerprint.
fn fits(pin: &Pin, leaf: &X509Ref) -> bool {
    match pin {
        Pin::Certificate(wanted) => digest_of(wanted.len())
            .and_then(|digest| leaf.digest(digest).ok())
            .is_some_and(|print| *print == **wanted),
        Pin::Key(wanted) => leaf
            .public_key()
            .and_then(|key| key.public_key_to_der())
            .and_then(|der| hash(MessageDigest::sha256(), &der))
            .is_ok_and(|print| *print == *wanted),
    }
}

/// The hash whose fingerprints are so long.
fn digest_of(length: usize) -> Option<MessageDigest> {
    match length {
        20 => Some(MessageDigest::sha1()),
        28 => Some(MessageDigest::sha224()),
        32 => Some(MessageDigest::sha256()),
        64 => Some(MessageDigest::sha512()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::asn1::Asn1Time;
    use openssl::pkey::PKey;
    use openssl::x509::extension::SubjectAlternativeName;
    use openssl::x509::{X509, X509Builder};

    const ISSUER: i32 = 20;

    fn leaf() -> X509 {
        let key = PKey::generate_ed25519().expect("a key");
        let mut builder = X509Builder::new().expect("a builder");
        builder.set_version(2).expect("version 3");
        builder.set_pubkey(&key).expect("a key");
        let now = Asn1Time::days_from_now(0).expect("a time");
        builder.set_not_before(&now).expect("a time");
        builder.set_not_after(&now).expect("a time");
        let names = SubjectAlternativeName::new()
            .dns("a.example")
            .build(&builder.x509v3_context(None, None))
            .expect("names");
        builder.append_extension(names).expect("names");
        builder
            .sign(&key, MessageDigest::null())
            .expect("a signature");
        builder.build()
    }

    fn failures(codes: &[i32]) -> Failures {
        let mut failures = Failures::default();
        for code in codes {
            failures.add(Refusal::plain(Fault::Chain(result_of(*code)), "x"));
        }
        failures
    }

    /// Every expectation, every list of at most three failures.
    fn each(check: impl Fn(&Expectation, &[i32], bool, &Result<Verdict, Refusal>)) {
        let leaf = leaf();
        let pin = Pin::Certificate(fingerprint(&leaf).expect("a fingerprint").to_vec());
        let codes = [
            ISSUER,
            code::UNABLE_TO_GET_CRL,
            code::CRL_HAS_EXPIRED,
            code::CERT_REVOKED,
        ];
        let mut lists: Vec<Vec<i32>> = vec![Vec::new()];
        for length in 0..3 {
            let longer: Vec<Vec<i32>> = lists
                .iter()
                .filter(|list| list.len() == length)
                .flat_map(|list| codes.map(|code| [&list[..], &[code]].concat()))
                .collect();
            lists.extend(longer);
        }
        for demand in [
            Demand::Nothing,
            Demand::Certificate,
            Demand::Chain,
            Demand::Name,
            Demand::Pin,
            Demand::PinAndName,
        ] {
            for tolerated in [
                Tolerated::Nothing,
                Tolerated::Unverified,
                Tolerated::Everything,
            ] {
                for pins in [Vec::new(), vec![pin.clone()]] {
                    for name in ["a.example", "b.example"] {
                        let expectation = Expectation {
                            demand,
                            pins: pins.clone(),
                            tolerated,
                        };
                        let names = [Name::new(Reference::new(name))];
                        for list in &lists {
                            let judged = expectation.judge(&failures(list), Some(&leaf), &names);
                            check(&expectation, list, name == "a.example", &judged);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn who_must_show_a_certificate_is_asked_to() {
        use Demand as D;
        use Tolerated as T;
        let (none, ask) = (SslVerifyMode::NONE, SslVerifyMode::PEER);
        let must = ask | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        for (demand, tolerated, mode) in [
            (D::Unasked, T::Nothing, none),
            (D::Nothing, T::Nothing, ask),
            (D::Certificate, T::Nothing, must),
            (D::Certificate, T::Everything, must),
            (D::Chain, T::Nothing, must),
            (D::Chain, T::Unverified, ask),
            (D::Name, T::Everything, ask),
            (D::Pin, T::Nothing, must),
            (D::Records, T::Nothing, must),
        ] {
            let expectation = Expectation {
                demand,
                pins: Vec::new(),
                tolerated,
            };
            assert_eq!(expectation.mode(true), mode, "{demand:?} {tolerated:?}");
            let to_a_server = if demand == D::Unasked { none } else { ask };
            assert_eq!(expectation.mode(false), to_a_server, "{demand:?}");
        }
    }

    #[test]
    fn a_pin_is_a_digest_of_its_own_length() {
        let (one, other) = (leaf(), leaf());
        for digest in [
            MessageDigest::sha1(),
            MessageDigest::sha224(),
            MessageDigest::sha256(),
            MessageDigest::sha512(),
        ] {
            let pin = Pin::Certificate(one.digest(digest).expect("a digest").to_vec());
            assert!(fits(&pin, &one) && !fits(&pin, &other), "{pin:?}");
        }
        let md5 = one.digest(MessageDigest::md5()).expect("a digest").to_vec();
        assert!(!fits(&Pin::Certificate(md5), &one));
        let key = dane::key_digest(&one).expect("a digest");
        assert!(fits(&Pin::Key(key), &one) && !fits(&Pin::Key(key), &other));
    }

    #[test]
    fn nothing_that_went_wrong_is_ever_called_good() {
        each(|expected, list, named, judged| {
            let what = format!("{expected:?} {list:?} {named}: {judged:?}");
            let pinned = !expected.pins.is_empty();
            let asks_name = matches!(expected.demand, Demand::Name | Demand::PinAndName);
            let asks_pin = matches!(expected.demand, Demand::Pin | Demand::PinAndName);
            match judged {
                Ok(Verdict::Verified(_)) => {
                    assert!(list.is_empty() && !pinned, "{what}");
                    assert!(named || !asks_name, "{what}");
                    assert!(!asks_pin, "{what}");
                }
                Ok(Verdict::Pinned) => {
                    assert!(pinned && !list.contains(&code::CERT_REVOKED), "{what}");
                    assert!(named || !asks_name, "{what}");
                }
                Ok(Verdict::Unverified(refusal)) => {
                    let loose = expected.demand <= Demand::Certificate;
                    let bears = expected.tolerated != Tolerated::Nothing;
                    assert!(loose || bears, "{what}");
                    if !pinned && !asks_pin && !list.is_empty() {
                        assert_eq!(refusal.code(), list[0], "{what}");
                    }
                }
                Ok(other) => panic!("{other:?}: {what}"),
                Err(_) => assert!(expected.demand > Demand::Certificate, "{what}"),
            }
        });
    }

    #[test]
    fn what_is_revoked_passes_only_where_everything_does() {
        each(|expected, list, named, judged| {
            if !list.contains(&code::CERT_REVOKED)
                || expected.demand <= Demand::Certificate
                || expected.tolerated == Tolerated::Everything
                // Nobody looked at the chain.
                || (matches!(expected.demand, Demand::Pin | Demand::PinAndName)
                    && expected.pins.is_empty())
            {
                return;
            }
            assert!(judged.is_err(), "{expected:?} {list:?} {named}: {judged:?}");
        });
    }

    #[test]
    fn a_stranger_s_authority_needs_no_list() {
        let leaf = leaf();
        let expectation = Expectation {
            demand: Demand::Chain,
            tolerated: Tolerated::Unverified,
            ..Expectation::default()
        };
        for (list, passes) in [
            (&[ISSUER, code::UNABLE_TO_GET_CRL][..], true),
            (&[code::UNABLE_TO_GET_CRL], false),
            (&[ISSUER, code::CRL_HAS_EXPIRED], false),
        ] {
            let judged = expectation.judge(&failures(list), Some(&leaf), &[]);
            assert_eq!(judged.is_ok(), passes, "{list:?}");
        }
        // Where libcrypto gave up, nobody knows what it did not look at.
        let mut given_up = failures(&[ISSUER]);
        given_up.add(Refusal::plain(Fault::Unjudged, "x"));
        assert!(expectation.judge(&given_up, Some(&leaf), &[]).is_err());
    }
}
