//! A server's store: one context with its certificates, and what goes with it.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, SslAlert, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef,
    SslSessionCacheMode,
};
use openssl::x509::{X509, X509VerifyResult};

pub use super::client_certificates::contradiction;
use super::client_certificates::{Authorities, asked, expectation, pins, set_client_verification};
use super::jail::Jail;
use super::judges::Judges;
use super::offer::{Offer, OfferedBy};
use super::permit::{Finite, Permit};
use super::revocation::RevocationList;
use super::{
    Certificate, KeyKind, KeyPlace, Signer, SignerSource, anchors, fit, internal, is_self_issued,
    unable,
};
use crate::hello::{self, FiniteField, FiniteGroup, Terms};
use crate::options::sslserver::CertificateRequest;
use crate::report::Fail;
use crate::settings::{Filter, Settings, Version};
use crate::text;
use crate::tls_ffi::{self, ex_data::ExData, tickets};
use crate::trust::{self, Demand, Expectation};

/// Bits below which a DH prime is refused (RFC 9325 section 4.5).
const DH_BITS: i32 = 2048;
/// Bits above which a longer RSA key brings no longer DH prime: it would cost
/// much and add nothing that a peer can tell.
const DH_FITTING: u32 = 4096;
/// How long a session may be resumed; its ticket may end sooner.
const SESSION_SECONDS: u32 = 3600;

/// A certificate with its signer.
pub struct Pair {
    /// Certificate and chain.
    pub certificate: Certificate,
    /// What signs for it.
    pub signer: Signer,
    /// Where the key is.
    pub key: KeyPlace,
}

/// What a client that names a server is served.
#[derive(Clone)]
pub enum Choice {
    /// The connection's own store.
    Own,
    /// These certificates; all else stays the store's.
    Pairs(Arc<Vec<Pair>>),
    /// Another store in place of the connection's.
    Store(Arc<Store>),
    /// Nothing: unrecognized_name (RFC 6066 section 3).
    Denied,
    /// Nothing, since what should serve it could not be loaded.
    Broken,
}

/// Chooses by server name, as the client wrote it.
pub type Chooser = Arc<dyn Fn(&[u8]) -> Choice + Send + Sync>;

/// Lets the server name of this connection choose.
///
/// # Errors
/// Libcrypto has no room for it.
pub fn choose_by(ssl: &mut SslRef, choose: Chooser) -> Result<(), ErrorStack> {
    let chooser: hello::Chooser = Arc::new(move |ssl, name| match choose(name) {
        Choice::Own => Ok(None),
        Choice::Pairs(pairs) => {
            serve_name(ssl, &pairs).map_err(|_| SslAlert::INTERNAL_ERROR)?;
            Ok(None)
        }
        Choice::Store(store) => {
            store.take_over(ssl).map_err(|_| SslAlert::INTERNAL_ERROR)?;
            Ok(Some(Arc::clone(&store.terms)))
        }
        Choice::Denied => Err(SslAlert::UNRECOGNIZED_NAME),
        Choice::Broken => Err(SslAlert::INTERNAL_ERROR),
    });
    hello::choose_by(ssl, chooser)
}

/// The certificates that the settings name, with their signers.
///
/// # Errors
/// The first thing that is wrong: variable, path, reason.
pub fn pairs(settings: &Settings, signers: &dyn SignerSource) -> Result<Vec<Pair>, Fail> {
    certificates(settings)?
        .into_iter()
        .map(|(certificate, place)| {
            let public = certificate.leaf.public_key().map_err(internal)?;
            let signer = signers.signer(&place, &public).map_err(|fail| {
                misplaced(&certificate, &place, signers)
                    .unwrap_or_else(|| super::about_both(fail, &certificate, &place))
            })?;
            Ok(Pair {
                certificate,
                signer,
                key: place,
            })
        })
        .collect()
}

/// A key that does not fit the first certificate of the file, but a later one:
/// the administrator is told which.
fn misplaced(
    certificate: &Certificate,
    place: &KeyPlace,
    signers: &dyn SignerSource,
) -> Option<Fail> {
    let fits = |other: &X509| {
        let public = other.public_key();
        public.is_ok_and(|public| signers.signer(place, &public).is_ok())
    };
    let at = certificate.intermediates.iter().position(fits)?;
    let subject = certificate.intermediates[at].subject_name();
    Some(Fail::temporary(format!(
        "key does not match certificate: {place}: it fits certificate {} of {} {} ({}), which must be the first",
        at + 2,
        certificate.variable,
        super::shown(&certificate.path),
        text::excerpt(&tls_ffi::names::rfc4514_form(subject), 100)
    )))
}

/// What serves a connection whose server name chose something.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The kinds of its keys.
    pub kinds: Vec<KeyKind>,
    /// Lowest and highest version, where they are others than the connection's.
    pub versions: Option<(Version, Option<Version>)>,
}

/// What a connection's server name chose, if it chose anything.
#[must_use]
pub fn chosen(ssl: &SslRef) -> Option<&Chosen> {
    CHOSEN.of(ssl)
}

static CHOSEN: ExData<Chosen> = ExData::new();

/// Gives a connection the certificates of its server name.
fn serve_name(ssl: &mut SslRef, pairs: &[Pair]) -> Result<(), ErrorStack> {
    tls_ffi::forget_certificates(ssl);
    for Pair {
        certificate,
        signer,
        ..
    } in pairs
    {
        ssl.set_certificate(&certificate.leaf)?;
        for intermediate in &certificate.intermediates {
            ssl.add_chain_cert(intermediate.clone())?;
        }
        ssl.set_private_key(signer)?;
    }
    let kinds = pairs.iter().map(|pair| pair.certificate.kind).collect();
    let versions = None;
    CHOSEN.set(ssl, Chosen { kinds, versions })
}

/// Everything that serves connections of one kind.
pub struct Store {
    /// Context that engines inherit.
    pub context: SslContext,
    /// One or two certificates with different kinds of keys.
    pub certificates: Vec<Certificate>,
    /// Whether a client certificate is asked for.
    pub ask: CertificateRequest,
    /// What a client's certificate must do.
    pub expectation: Arc<Expectation>,
    /// The suites that can be agreed on.
    pub suites: Vec<String>,
    /// Lowest and highest version.
    pub versions: (Version, Option<Version>),
    /// Where its engines live.
    pub jail: Jail,
    /// Whether their system calls are filtered.
    pub filter: Filter,
    /// What an administrator should know, beside what is to be said of the
    /// certificates.
    pub findings: Vec<Fail>,
    /// Where the keys of its certificates are.
    pub keys: Vec<KeyPlace>,
    /// What its handshakes can be.
    pub permit: Permit,
    /// The revocation lists of `CRLFILE`.
    pub lists: Vec<RevocationList>,
    /// The anchors that clients are judged by.
    judges: Judges,
    terms: Arc<Terms>,
    tickets: bool,
    groups: Option<String>,
    depth: u32,
}

impl Store {
    /// What an administrator should know of the dates of its anchors and revocation
    /// lists, where clients are judged by them.
    #[must_use]
    pub fn dates(&self) -> Vec<Fail> {
        if self.expectation.demand == Demand::Unasked {
            return Vec::new();
        }
        let replaced = |list: &RevocationList| {
            let mut others = self.lists.iter();
            others.any(|other| other.takes_the_place_of(list))
        };
        let lists = self.lists.iter().filter(|list| !replaced(list));
        let of_lists = lists.filter_map(RevocationList::date);
        self.judges.dates().into_iter().chain(of_lists).collect()
    }

    /// Has this store serve a connection that began under another, in the
    /// ClientHello callback: by the context, and by what a connection copies from
    /// its context when it is made.
    fn take_over(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        // First what may refuse a certificate, so that no failure below lets one
        // pass that was not judged.
        trust::replace(ssl, Arc::clone(&self.expectation))?;
        ssl.set_ssl_context(&self.context)?;
        let (min, max) = self.versions;
        ssl.set_min_proto_version(Some(super::protocol(min)))?;
        ssl.set_max_proto_version(max.map(super::protocol))?;
        if let Some(groups) = &self.groups {
            tls_ffi::set_groups(ssl, groups)?;
        }
        let depth = i32::try_from(self.depth).unwrap_or(i32::MAX);
        ssl.param_mut().set_depth(depth);
        let tickets = if self.tickets {
            tickets::PER_HANDSHAKE
        } else {
            0
        };
        tls_ffi::set_tickets(ssl, tickets)?;
        let certificates = self.certificates.iter();
        let chosen = Chosen {
            kinds: certificates.map(|certificate| certificate.kind).collect(),
            versions: Some(self.versions),
        };
        CHOSEN.set(ssl, chosen)
    }

    /// Reads and checks all that the settings name.
    ///
    /// # Errors
    /// The first thing that is wrong: variable, path, reason.
    pub fn load(
        settings: &Settings,
        ask: CertificateRequest,
        signers: &dyn SignerSource,
    ) -> Result<Store, Fail> {
        let offer = Offer::of(settings, "CIPHERS", OfferedBy::Server)?;
        let mut findings = offer.findings.clone();
        findings.extend(open_files(settings));
        let pairs = checked_pairs(settings, signers, &mut findings)?;
        let certificates = pairs.iter().map(|pair| &pair.certificate);
        if let Some(why) = fit::useless(&pairs, offer.versions.0) {
            return Err(why);
        }
        let ask = asked(settings, ask);
        let mut context = SslContextBuilder::new(SslMethod::tls_server()).map_err(internal)?;
        super::apply_common(&mut context, &offer).map_err(internal)?;
        context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        let (finite_field, finite) = set_dh(&mut context, settings, &offer, certificates.clone())?;
        let keys: Vec<KeyPlace> = pairs.iter().map(|pair| pair.key.clone()).collect();
        let permit = permit(&offer, certificates, finite)?;
        let expectation = Arc::new(expectation(ask, pins(settings)?));
        let (session_context, judges, lists) =
            set_client_verification(&mut context, settings, &expectation, &mut findings)?;
        for pair in &pairs {
            pair.certificate.install(&mut context, &pair.signer)?;
        }
        let tickets = settings.tickets()? && expectation.demand == Demand::Unasked;
        set_sessions(&mut context, tickets, &session_context)?;
        let terms = Arc::new(Terms {
            ciphers: offer.ciphers,
            finite_field,
            groups: permit.groups.clone(),
            signatures_are_bounded: settings.has("SIGALGS"),
            tickets: tickets.then_some(session_context),
        });
        hello::record(&mut context, Arc::clone(&terms)).map_err(internal)?;
        set_protocols(&mut context, settings)?;
        let context = context.build();
        let kinds: Vec<KeyKind> = pairs.iter().map(|pair| pair.certificate.kind).collect();
        let versions = offer.versions;
        let suites = fit::usable_ciphers(&context, &kinds, &permit.groups, versions);
        let unfit = fit::findings(settings, &suites, &permit, &kinds, versions);
        findings.extend(unfit);
        Ok(Store {
            terms,
            tickets,
            groups: offer.groups,
            depth: settings.verify_depth()?,
            context,
            certificates: pairs.into_iter().map(|pair| pair.certificate).collect(),
            ask,
            expectation,
            suites,
            versions,
            jail: Jail::from_settings(settings)?,
            filter: settings.filter()?,
            findings,
            keys,
            permit,
            lists,
            judges,
        })
    }
}

/// The keys with their certificates, and what there is to say of them.
fn checked_pairs(
    settings: &Settings,
    signers: &dyn SignerSource,
    findings: &mut Vec<Fail>,
) -> Result<Vec<Pair>, Fail> {
    if settings.has("KEYFILE_ALT") && !settings.has("CERTFILE_ALT") {
        let why = "KEYFILE_ALT has no effect: CERTFILE_ALT is not set";
        findings.push(Fail::warning(why));
    }
    let mut pairs = pairs(settings, signers)?;
    complete(&mut pairs, settings);
    findings.extend(pairs.iter().filter_map(|pair| open_key(&pair.key)));
    Ok(pairs)
}

/// Tells the certificates that stand alone whether their issuer's is at hand.
fn complete(pairs: &mut [Pair], settings: &Settings) {
    let alone = |certificate: &Certificate| {
        certificate.intermediates.is_empty() && !is_self_issued(&certificate.leaf)
    };
    if !pairs.iter().any(|pair| alone(&pair.certificate)) {
        return;
    }
    let authorities = Authorities::of(settings);
    // What is wrong with these files is told by who needs them.
    let mut found = anchors::of_file(authorities.file).unwrap_or_default();
    found.extend(anchors::of_folder(authorities.folder).unwrap_or_default());
    for Pair { certificate, .. } in pairs {
        certificate.issuer_at_hand = alone(certificate)
            && found
                .iter()
                .any(|anchor| anchor.issued(&certificate.leaf) == X509VerifyResult::OK);
    }
}

/// Whether everybody may read or write a key's file.
#[must_use]
pub fn open_key(key: &KeyPlace) -> Option<Fail> {
    let what = match mode(&key.path)? {
        mode if mode & 0o002 != 0 => "write",
        mode if mode & 0o004 != 0 => "read",
        _ => return None,
    };
    Some(Fail::doubt(format!(
        "{key}: everybody may {what} this private key: chmod 600"
    )))
}

/// Whether everybody may write a file.
#[must_use]
pub fn open_file(variable: &str, path: &Path) -> Option<Fail> {
    if mode(path)? & 0o002 == 0 {
        return None;
    }
    let path = super::shown(path);
    Some(Fail::doubt(format!(
        "{variable} {path}: everybody may write it: chmod o-w"
    )))
}

/// The files of these settings that everybody may write, but for keys.
fn open_files(settings: &Settings) -> impl Iterator<Item = Fail> {
    settings
        .paths()
        .filter(|(variable, _)| !variable.starts_with("KEYFILE"))
        .filter_map(|(variable, path)| open_file(variable, path))
}

fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;

    Some(std::fs::metadata(path).ok()?.permissions().mode())
}

/// What is signed for a store of this offer.
fn permit<'a>(
    offer: &Offer,
    certificates: impl Iterator<Item = &'a Certificate>,
    finite: Option<Finite>,
) -> Result<Permit, Fail> {
    let certificates: Vec<&Certificate> = certificates.collect();
    SslContextBuilder::new(SslMethod::tls_client())
        .and_then(|mut client| {
            super::apply_common(&mut client, offer)?;
            Permit::learn(client, offer.versions, &certificates, finite)
        })
        .map_err(internal)
}

/// The pairs of the settings.
fn certificates(settings: &Settings) -> Result<Vec<(Certificate, KeyPlace)>, Fail> {
    let (variable, path) = settings
        .first_of(&["CERTCHAINFILE", "CERTFILE"])
        .and_then(|variable| Some((variable, settings.path(variable)?)))
        .ok_or_else(|| Fail::temporary("unable to load certificate: CERTFILE is not set"))?;
    let mut pairs = vec![pair(settings, variable, path, "KEYFILE")?];
    if let Some(path) = settings.path("CERTFILE_ALT") {
        let second = pair(settings, "CERTFILE_ALT", path, "KEYFILE_ALT")?;
        let same = |one: KeyKind, other: KeyKind| one.word() == other.word();
        if same(second.0.kind, pairs[0].0.kind) {
            let why = format!(
                "its key is {}, as that of {variable}: it would never serve",
                second.0.kind
            );
            return Err(Fail::from(why).of(unable("load certificate", ("CERTFILE_ALT", path))));
        }
        pairs.push(second);
    }
    Ok(pairs)
}

fn pair(
    settings: &Settings,
    variable: &'static str,
    path: &Path,
    key_variable: &'static str,
) -> Result<(Certificate, KeyPlace), Fail> {
    let certificate = Certificate::read(variable, path)?;
    if let Some(why) = certificate.serves_nobody() {
        return Err(why.of(unable("load certificate", (variable, path))));
    }
    // Unset or empty, the key is in the certificate's file.
    let place = match settings.path(key_variable) {
        Some(path) => KeyPlace {
            variable: key_variable,
            path: path.to_owned(),
        },
        None => KeyPlace {
            variable,
            path: path.to_owned(),
        },
    };
    Ok((certificate, place))
}

/// Finite-field DH below TLS 1.3: the file's parameters, or the group of RFC
/// 7919 that fits the RSA key, of those that `TLS_GROUPS` names if it names any.
fn set_dh<'a>(
    context: &mut SslContextBuilder,
    settings: &Settings,
    offer: &Offer,
    mut certificates: impl Iterator<Item = &'a Certificate>,
) -> Result<(FiniteField, Option<Finite>), Fail> {
    let asked = &offer.finite_groups;
    if let Some(path) = settings.path("DHFILE") {
        let finite = own_dh(context, path, asked.first())
            .map_err(|why| why.of(unable("set cipher parameters", ("DHFILE", path))))?;
        return Ok((FiniteField::Own, Some(finite)));
    }
    let rsa_bits = certificates.find_map(|certificate| match certificate.kind {
        KeyKind::Rsa(bits) | KeyKind::RsaPss(bits) => Some(bits),
        _ => None,
    });
    // DHE suites are signed by RSA keys only.
    let Some(rsa_bits) = rsa_bits else {
        return Ok((FiniteField::Unused, None));
    };
    let fitting = FiniteGroup::of_strength(rsa_bits.min(DH_FITTING));
    let group = if asked.is_empty() {
        fitting
    } else {
        let strong = asked.iter().find(|group| **group >= fitting);
        *strong.or(asked.last()).unwrap_or(&fitting)
    };
    let prime = tls_ffi::set_dh_group(context, &group.name()).map_err(internal)?;
    let finite = Finite {
        prime,
        // RFC 7919 appendix A: that of every group.
        generator: vec![2],
    };
    Ok((FiniteField::Group(group), Some(finite)))
}

/// Takes the parameters of a file.
fn own_dh(
    context: &mut SslContextBuilder,
    path: &Path,
    least: Option<&FiniteGroup>,
) -> Result<Finite, Fail> {
    let bytes = super::read_file(path)?;
    let dh = Dh::params_from_pem(&bytes).map_err(|_| Fail::from("no PEM DH parameters in it"))?;
    let bits = dh.prime_p().num_bits();
    if bits < DH_BITS {
        return Err(format!("{bits} bits, fewer than {DH_BITS}").into());
    }
    if let Some(least) = least {
        if bits.unsigned_abs() < least.bits() {
            let least = least.name();
            return Err(format!("{bits} bits, fewer than {least} of TLS_GROUPS").into());
        }
    }
    context.set_tmp_dh(&dh)?;
    Ok(Finite {
        prime: dh.prime_p().to_vec(),
        generator: dh.generator().to_vec(),
    })
}

/// Sessions live in tickets only: every connection is a process of its own. Where
/// a client is asked for a certificate there are none: each is judged anew.
fn set_sessions(
    context: &mut SslContextBuilder,
    wanted: bool,
    session_context: &[u8; 32],
) -> Result<(), Fail> {
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context
        .set_session_id_context(session_context)
        .map_err(internal)?;
    // A store that takes a connection over may have them where this one has none,
    // and libssl asks this one for the keys.
    tickets::use_in(context);
    tls_ffi::set_session_seconds(context, SESSION_SECONDS);
    if wanted {
        context
            .set_num_tickets(tickets::PER_HANDSHAKE)
            .map_err(internal)?;
    } else {
        context.set_options(SslOptions::NO_TICKET);
        context.set_num_tickets(0).map_err(internal)?;
    }
    Ok(())
}

/// Agrees on one of the protocols that the settings name.
fn set_protocols(context: &mut SslContextBuilder, settings: &Settings) -> Result<(), Fail> {
    if let Some(protocols) = settings.protocols()? {
        context.set_alpn_select_callback(move |_, offered| {
            // Configured here and nothing in common: RFC 7301 section 3.2.
            common_protocol(&protocols, offered).ok_or(AlpnError::ALERT_FATAL)
        });
    }
    Ok(())
}

/// The first of our protocols that the client offers, as a slice of its list.
fn common_protocol<'a>(ours: &[u8], offered: &'a [u8]) -> Option<&'a [u8]> {
    protocols(ours).find_map(|own| protocols(offered).find(|name| *name == own))
}

/// The names of a ProtocolNameList (RFC 7301 section 3.1); a cut one ends it.
fn protocols(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = list.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        list = rest;
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_order_of_protocols_decides() {
        assert_eq!(
            common_protocol(b"\x01a\x01b", b"\x01b\x01a"),
            Some(&b"a"[..])
        );
        assert_eq!(common_protocol(b"\x01a", b"\x01b"), None);
        assert_eq!(common_protocol(b"\x01a", b"\x05a"), None);
        assert_eq!(common_protocol(b"\x01a", b""), None);
    }
}
