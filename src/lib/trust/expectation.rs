//! What a peer's certificate must do, and the decision whether it does.
#![forbid(unsafe_code)]

use openssl::hash::{MessageDigest, hash};
use openssl::ssl::SslVerifyMode;
use openssl::x509::X509Ref;

use super::code;
use super::reference::Name;
use super::verdict::{Fault, Refusal, Verdict};
use crate::tlsdestinations::Pin;

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
pub(super) struct Failures(Vec<Refusal>);

impl Failures {
    pub(super) fn add(&mut self, refusal: Refusal) {
        self.0.push(refusal);
    }

    pub(super) fn first(&self) -> Option<&Refusal> {
        self.0.first()
    }
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

    pub(super) fn judge_absence(&self, server: bool) -> Result<Verdict, Refusal> {
        if self.may_be_absent() {
            return Ok(Verdict::Absent);
        }
        Err(Refusal::new(
            Fault::Absent,
            if server {
                "the client showed no certificate"
            } else {
                "the server showed no certificate"
            },
        ))
    }

    /// The decision.
    pub(super) fn judge(
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
pub(super) fn is_revocation_unknown(code: i32) -> bool {
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
    use crate::tls_ffi::chain::result_of;
    use crate::trust::{Reference, dane, fingerprint};
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
            failures.add(Refusal::new(Fault::Chain(result_of(*code)), "x"));
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
                        let names = [Name::new(Reference::parse(name).expect("a name"))];
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
            // The same where libssl let the peer by without one.
            for (server, who) in [(true, "the client"), (false, "the server")] {
                let absence = expectation.judge_absence(server);
                let what = format!("{demand:?} {tolerated:?}: {absence:?}");
                match absence {
                    Ok(verdict) => assert!(verdict == Verdict::Absent && mode != must, "{what}"),
                    Err(why) => assert!(why.reason.starts_with(who) && mode == must, "{what}"),
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_let_in_whoever_signed_a_pinned_one() {
        each(|expected, list, named, judged| {
            use Demand as D;

            let pinned = !expected.pins.is_empty();
            let good = match expected.demand {
                D::Chain => list.is_empty(),
                D::Name => list.is_empty() && named,
                D::Pin => pinned,
                D::PinAndName => pinned && named,
                _ => return,
            };
            let verdict = match expected.demand {
                _ if pinned => Verdict::Pinned,
                D::Name => {
                    Verdict::Verified(Some(Name::new(Reference::parse("a.example").expect("it"))))
                }
                _ => Verdict::Verified(None),
            };
            if good && !list.contains(&code::CERT_REVOKED) {
                assert_eq!(judged, &Ok(verdict), "{expected:?} {list:?} {named}");
            }
        });
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
        given_up.add(Refusal::new(Fault::Unjudged, "x"));
        assert!(expectation.judge(&given_up, Some(&leaf), &[]).is_err());
    }
}
