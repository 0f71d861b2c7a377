//! What a server asks of its clients' certificates, and by which authorities they
//! are judged.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

use openssl::sha::Sha256;
use openssl::ssl::SslContextBuilder;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Name};

use super::judges::Judges;
use super::revocation::{self, RevocationList};
use super::{Named, anchors, internal, is_self_issued, read_file, shown, unable};
use crate::options::sslserver::CertificateRequest;
use crate::report::Fail;
use crate::settings::{ClientCertificate, Settings};
use crate::tlsdestinations::Pin;
use crate::trust::{self, Demand, Expectation, Fingerprint, Tolerated};
use crate::{text, tls_ffi};

/// The certificate request's list of names, RFC 8446 section 4.2.4.
const NAMES_LIMIT: usize = 0xffff;

/// What a line of `PINFILE` has behind the ways to name the digest: `SHA256:`, and
/// `sha256 Fingerprint=` as `openssl x509 -fingerprint -sha256` prints it.
fn pinned_digits(line: &str) -> String {
    let names = ["SHA256:", "SHA256 Fingerprint="];
    let named = names.iter().find_map(|name| {
        let (begin, rest) = line.split_at_checked(name.len())?;
        begin.eq_ignore_ascii_case(name).then_some(rest)
    });
    named.unwrap_or(line).trim().replace(':', "")
}

/// The fingerprints of `PINFILE`, a line each.
pub(super) fn pins(settings: &Settings) -> Result<Vec<Fingerprint>, Fail> {
    let Some(path) = settings.path("PINFILE") else {
        return Ok(Vec::new());
    };
    let unable = || unable("load pins", ("PINFILE", path));
    let bytes = read_file(path).map_err(|why| why.of(unable()))?;
    pins_in(&bytes).map_err(|why| why.of(unable()))
}

/// The fingerprints that a text holds, a line each.
///
/// # Errors
/// A line is none.
pub fn pins_in(text: &[u8]) -> Result<Vec<Fingerprint>, Fail> {
    let mut pins = Vec::new();
    for (at, line) in String::from_utf8_lossy(text).lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let pin = fingerprint(&pinned_digits(line)).ok_or_else(|| {
            Fail::from("not a SHA-256 fingerprint").of(format_args!("line {}", at + 1))
        })?;
        pins.push(pin);
    }
    Ok(pins)
}

fn fingerprint(digits: &str) -> Option<Fingerprint> {
    text::bytes(digits)?.try_into().ok()
}

/// Whether a client is asked for a certificate, by the option and the settings.
pub(super) fn asked(settings: &Settings, ask: CertificateRequest) -> CertificateRequest {
    match settings.client_certificate() {
        ClientCertificate::Off => CertificateRequest::No,
        ClientCertificate::Required if ask != CertificateRequest::Named => {
            CertificateRequest::Required
        }
        _ => ask,
    }
}

/// Says that the environment asks nobody for a certificate that it requires. In a rule
/// that is what `CCAFILE=-` is for.
pub fn contradiction(environment: &Settings, ask: CertificateRequest) -> Option<Fail> {
    let by = match ask {
        CertificateRequest::Required => "-m",
        CertificateRequest::Named => "-z",
        _ if environment.has("CCAVERIFY") => "CCAVERIFY",
        CertificateRequest::No | CertificateRequest::Optional => return None,
    };
    (environment.client_certificate() == ClientCertificate::Off).then(|| {
        Fail::warning(format!(
            "CCAFILE is \"-\": no client is asked for a certificate, and {by} has no effect: unset it, or set it in the rules that it is for"
        ))
    })
}

/// What is expected of a client's certificate.
pub(super) fn expectation(ask: CertificateRequest, pins: Vec<Fingerprint>) -> Expectation {
    Expectation {
        demand: match ask {
            CertificateRequest::No => Demand::Unasked,
            CertificateRequest::Optional | CertificateRequest::Required => Demand::Chain,
            CertificateRequest::Named => Demand::Name,
        },
        pins: pins
            .into_iter()
            .map(|print| Pin::Certificate(print.to_vec()))
            .collect(),
        tolerated: match ask {
            CertificateRequest::Optional => Tolerated::Unverified,
            CertificateRequest::No | CertificateRequest::Required | CertificateRequest::Named => {
                Tolerated::Nothing
            }
        },
    }
}

/// Ends a warning of anchors that are not there.
const UNNEEDED: &str = "it would be needed if a client certificate were asked for";

/// The anchors and the names of authorities that the settings give.
pub(super) struct Authorities<'a> {
    pub(super) file: Option<Named<'a>>,
    pub(super) folder: Option<Named<'a>>,
    shown: Option<Named<'a>>,
}

impl<'a> Authorities<'a> {
    pub(super) fn of(settings: &'a Settings) -> Authorities<'a> {
        let named = |variable: &'static str| settings.path(variable).map(|path| (variable, path));
        Authorities {
            file: named("CAFILE"),
            folder: named("CADIR"),
            shown: named("CCAFILE").filter(|(_, path)| path.as_os_str() != "-"),
        }
    }

    /// Where the anchors are: `CAFILE path, CADIR path`.
    fn places(&self) -> String {
        let named: Vec<String> = [self.file, self.folder]
            .into_iter()
            .flatten()
            .map(|(variable, path)| format!("{variable} {}", shown(path)))
            .collect();
        named.join(", ")
    }

    /// Says that none of the anchors could have issued a client's certificate, nor be
    /// one: the server's own certificate is easily taken for its authority's.
    fn powerless(&self, anchors: &[X509]) -> Option<Fail> {
        let vouches = |one: &X509| tls_ffi::chain::is_authority(one) || is_self_issued(one);
        let first = anchors.first()?;
        if anchors.iter().any(vouches) {
            return None;
        }
        let subject = tls_ffi::names::rfc4514_form(first.subject_name());
        Some(Fail::warning(format!(
            "{}: no certificate of an authority in it ({} is none): no client certificate can verify",
            self.places(),
            text::excerpt(&subject, 100)
        )))
    }

    /// Takes out what is missing, where nobody needs it: run scripts for
    /// ucspi-ssl name files that it never opened. Returns a warning for each.
    fn without_missing(&mut self) -> Vec<Fail> {
        let places = [&mut self.file, &mut self.folder, &mut self.shown];
        let missing = places.into_iter().filter_map(|place| {
            let (_, path) = place.as_ref()?;
            let error = fs::metadata(path).err()?;
            let (variable, path) = place.take_if(|_| error.kind() == io::ErrorKind::NotFound)?;
            let path = shown(path);
            Some(Fail::note(format!(
                "{variable} {path}: no such file or directory; {UNNEEDED}"
            )))
        });
        missing.collect()
    }
}

/// Asks for client certificates as told. Returns what tells one client-certificate
/// policy from another (sessions of one are not resumed under another), the anchors and
/// the revocation lists.
pub(super) fn set_client_verification(
    context: &mut SslContextBuilder,
    settings: &Settings,
    expectation: &Expectation,
    findings: &mut Vec<Fail>,
) -> Result<([u8; 32], Judges, Vec<RevocationList>), Fail> {
    let mut print = Sha256::new();
    let depth = settings.verify_depth()?;
    // Another cipher list or version floor is another right, too.
    print.update(format!("{expectation:?} {settings:?}").as_bytes());
    let mut authorities = Authorities::of(settings);
    if expectation.demand == Demand::Unasked {
        findings.extend(authorities.without_missing());
    }
    let mut found = anchors::of_file(authorities.file)?;
    let in_folder = anchors::of_folder(authorities.folder)?;
    if let (Some((variable, path)), []) = (authorities.folder, &*in_folder) {
        let why = "no certificate file in it";
        if expectation.demand != Demand::Unasked {
            return Err(Fail::from(why).of(unable("load CA list", (variable, path))));
        }
        let path = shown(path);
        findings.push(Fail::note(format!("{variable} {path}: {why}; {UNNEEDED}")));
    }
    found.extend(in_folder);
    for anchor in &found {
        print.update(&anchor.to_der().unwrap_or_default());
    }
    anchors::trust_listed(&mut found).map_err(internal)?;
    let mut store = anchors::anchor_store(&found).map_err(internal)?;
    let lists = set_lists(&mut store, settings, &found, &mut print)?;
    context.set_cert_store(store.build());
    context.set_verify_depth(depth);
    let required =
        expectation.demand >= Demand::Chain && expectation.tolerated == Tolerated::Nothing;
    let nobody = expectation.pins.is_empty() && found.is_empty();
    if required && nobody {
        findings.push(Fail::warning(
            "a client certificate is required, but CAFILE and CADIR are not set, and PINFILE is unset or empty: every client is refused",
        ));
    }
    if expectation.demand != Demand::Unasked {
        findings.extend(authorities.powerless(&found));
        findings.extend(revocation::of_strangers(&lists, &found));
    }
    if let Some((variable, path)) = authorities.shown {
        let names = anchors::of_file(Some((variable, path)))?;
        context.set_client_ca_list(ca_names(path, &names)?);
    }
    trust::judge_in(context, expectation.mode(true)).map_err(internal)?;
    if expectation.demand == Demand::Unasked {
        found.clear();
    }
    let judges = Judges::new(authorities.places(), found);
    Ok((print.finish(), judges, lists))
}

/// Has clients judged by the lists of `CRLFILE` too. Returns them.
fn set_lists(
    store: &mut X509StoreBuilder,
    settings: &Settings,
    signers: &[X509],
    print: &mut Sha256,
) -> Result<Vec<RevocationList>, Fail> {
    let Some(path) = settings.path("CRLFILE") else {
        return Ok(Vec::new());
    };
    let lists = read_file(path).and_then(|bytes| {
        print.update(&bytes);
        anchors::check_lists(store, &bytes)
    });
    let lists = lists.map_err(|why| why.of(unable("load revocation lists", ("CRLFILE", path))))?;
    let known = lists.into_iter();
    Ok(known
        .map(|list| RevocationList::new(path, list, signers))
        .collect())
}

/// The subjects of certificates as the list that a certificate request carries.
fn ca_names(path: &Path, certificates: &[X509]) -> Result<Stack<X509Name>, Fail> {
    let mut names = Stack::new().map_err(internal)?;
    let mut length = 0;
    for certificate in certificates {
        let name = certificate
            .subject_name()
            .to_der()
            .and_then(|der| {
                length += der.len() + 2;
                X509Name::from_der(&der)
            })
            .map_err(internal)?;
        names.push(name).map_err(internal)?;
    }
    if length > NAMES_LIMIT {
        let why =
            format!("its names take {length} bytes, more than a certificate request can hold");
        return Err(Fail::from(why).of(unable("load client CA list", ("CCAFILE", path))));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_has_64_digits() {
        assert_eq!(fingerprint(&"ab".repeat(32)), Some([0xab; 32]));
        assert_eq!(fingerprint(&"ab".repeat(31)), None);
        assert_eq!(fingerprint(&"+b".repeat(32)), None);
    }
}
