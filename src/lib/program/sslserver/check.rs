//! `-k`: everything that would be served, printed for a person to read, and
//! whether anything is wrong with it.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt::Write as _;

use super::access::listed;
use super::generation::{Generation, Served};
use super::{Setup, advice};
use crate::report::{Fail, Severity, TEMPORARY};
use crate::settings::Version;
use crate::store::certificate::Chain;
use crate::store::server::{self, Choice, Pair};
use crate::store::{self, Certificate, KeyKind};
use crate::sys::standard;
use crate::text;
use crate::tls_ffi::{names, names_host};
use crate::trust::dane;

/// Prints all of a generation. Returns 0, or 111 where something is wrong.
pub(super) fn run(setup: &Setup, generation: &Generation) -> Result<u8, Fail> {
    let mut out = String::new();
    let mut wrong: Vec<String> = Vec::new();
    for served in generation.stores() {
        describe_store(&mut out, served, &mut wrong);
    }
    for served in generation.mixed() {
        describe_store(&mut out, served, &mut wrong);
        for address in &served.addresses {
            note_unnamed(&mut out, address, served.store.certificates.iter());
        }
    }
    let of_stores = generation.of_stores().into_iter();
    let of_stores = of_stores.filter(|one| !is_note(one));
    wrong.extend(of_stores.map(|one| one.to_string()));
    describe_names(&mut out, generation, &mut wrong);
    let named = generation.access.client_names();
    if setup.naming.lookup && !setup.naming.paranoid && !named.is_empty() {
        let named = listed(&named);
        let _ = writeln!(
            out,
            "warning: rule {named}: without -p a client gets this rule by whatever name its own DNS gives its address"
        );
    }
    if let Some(advice) = advice::on(&setup.program.words, setup.options.pipes) {
        let _ = writeln!(out, "warning: {advice}");
    }
    if let Some(why) = generation.access.trouble() {
        wrong.push(format!("{why}: every client is denied"));
    }
    wrong.extend(generation.broken_lines());
    wrong.extend(generation.access.misspelt());
    wrong.extend(generation.access.without_effect());
    for path in [&setup.options.early_rules, &setup.options.rules]
        .into_iter()
        .flatten()
    {
        let open = server::open_file("rules", path);
        tell(&mut out, &mut wrong, open.into_iter());
    }
    tell(&mut out, &mut wrong, generation.forecast.iter().cloned());
    let mut said = HashSet::new();
    for why in wrong.iter().filter(|why| said.insert(*why)) {
        let _ = writeln!(out, "wrong: {why}");
    }
    standard::write(out.as_bytes()).map_err(Fail::unable("write the report"))?;
    if let Some(why) = &generation.trouble {
        return Err(why.clone());
    }
    Ok(if wrong.is_empty() { 0 } else { TEMPORARY })
}

fn describe_store(out: &mut String, served: &Served, wrong: &mut Vec<String>) {
    let Served {
        store,
        own,
        addresses,
        ..
    } = served;
    let rules = (!addresses.is_empty()).then(|| format!("rule {}", listed(addresses)));
    let own = own.then(|| "environment".to_owned());
    let led: Vec<String> = own.into_iter().chain(rules).collect();
    let _ = writeln!(out, "{}:", led.join(", "));
    let kinds: Vec<KeyKind> = store
        .certificates
        .iter()
        .map(|certificate| certificate.kind)
        .collect();
    for certificate in &store.certificates {
        describe_certificate(out, certificate);
    }
    describe_clients(out, &kinds);
    let (min, max) = store.versions;
    let max = max.unwrap_or(Version::Tls13);
    let _ = writeln!(out, "  versions: TLS {min} to {max}");
    let _ = writeln!(out, "  ciphers: {}", store.suites.join(" "));
    let asked = match store.ask {
        crate::options::sslserver::CertificateRequest::No => "not asked for",
        crate::options::sslserver::CertificateRequest::Optional => "asked for, not required",
        crate::options::sslserver::CertificateRequest::Required => "required",
        crate::options::sslserver::CertificateRequest::Named => {
            "required, and must name the client's host"
        }
    };
    let _ = writeln!(out, "  client certificate: {asked}");
    for list in &store.lists {
        let place = list.place();
        let _ = match list.next_update() {
            Some(next) => writeln!(out, "  {place}, next update {next}"),
            None => writeln!(out, "  {place}, without a next update"),
        };
    }
    tell(out, wrong, store.dates().into_iter());
    // What is wrong is told of all stores together.
    let notes = store.findings.iter().filter(|one| is_note(one));
    tell(out, wrong, notes.cloned());
    let of_certificates = store.certificates.iter().flat_map(Certificate::findings);
    tell(out, wrong, of_certificates);
}

fn describe_pairs(out: &mut String, pairs: &[Pair], wrong: &mut Vec<String>) {
    for pair in pairs {
        describe_certificate(out, &pair.certificate);
        tell(
            out,
            wrong,
            pair.certificate
                .findings()
                .chain(server::open_key(&pair.key)),
        );
    }
    let kinds: Vec<KeyKind> = pairs.iter().map(|pair| pair.certificate.kind).collect();
    describe_clients(out, &kinds);
}

/// The rules for server names that choose no store of their own.
fn describe_names(out: &mut String, generation: &Generation, wrong: &mut Vec<String>) {
    let stores = || generation.stores().iter();
    for (address, choice) in generation.named() {
        let _ = writeln!(out, "rule {address}:");
        match choice {
            Choice::Own | Choice::Store(_) => {
                out.push_str("  the connection's own store\n");
                let any = stores().flat_map(|served| &served.store.certificates);
                note_unnamed(out, &address, any);
            }
            Choice::Denied => out.push_str("  denied with the alert unrecognized_name\n"),
            Choice::Broken => out.push_str("  cannot be loaded, see below\n"),
            Choice::Pairs(pairs) => {
                describe_pairs(out, pairs, wrong);
                let own = pairs.iter().map(|pair| &pair.certificate);
                note_unnamed(out, &address, own);
            }
        }
    }
}

/// Notes that none of the certificates that may serve a rule's server name names it.
fn note_unnamed<'a>(
    out: &mut String,
    address: &str,
    mut certificates: impl Iterator<Item = &'a Certificate>,
) {
    let Some(name) = address.strip_prefix("sni=") else {
        return;
    };
    // Any name that the rule is for will do.
    let one = match name.strip_prefix("*.") {
        Some(domain) => format!("name.{domain}"),
        None => name.to_owned(),
    };
    if !certificates.any(|certificate| names_host(&certificate.leaf, &one)) {
        let _ = writeln!(
            out,
            "  note: no certificate here names {name}: clients that check names refuse it"
        );
    }
}

fn is_note(finding: &Fail) -> bool {
    finding.severity == Severity::Note
}

/// Prints what is only worth a word; keeps what is wrong.
fn tell(out: &mut String, wrong: &mut Vec<String>, findings: impl Iterator<Item = Fail>) {
    for finding in findings {
        if is_note(&finding) {
            let _ = writeln!(out, "  note: {finding}");
        } else {
            wrong.push(finding.to_string());
        }
    }
}

fn describe_certificate(out: &mut String, certificate: &Certificate) {
    let Certificate {
        variable,
        path,
        leaf,
        kind,
        ..
    } = certificate;
    let subject = text::excerpt(&names::rfc4514_form(leaf.subject_name()), 300);
    let _ = writeln!(out, "  {variable} {}", store::shown(path));
    let _ = writeln!(out, "    subject: {subject}");
    let listed: Vec<String> = names::alternative_names(leaf)
        .iter()
        .map(names::AlternativeName::to_string)
        .collect();
    if listed.is_empty() {
        out.push_str("    names: none in subjectAltName: clients that check names refuse it\n");
    } else {
        let _ = writeln!(out, "    names: {}", listed.join(" "));
    }
    let bits = leaf.public_key().map_or(0, |key| key.bits());
    let _ = writeln!(out, "    key: {kind} {bits} bits");
    let _ = writeln!(out, "    not after: {}", leaf.not_after());
    let _ = writeln!(out, "    chain: {}", chain_state(certificate));
    describe_records(out, certificate);
}

/// The TLSA records to publish for a mail server with this certificate. A wildcard
/// stands for a host that is yet to be named.
fn describe_records(out: &mut String, certificate: &Certificate) {
    let Ok(records) = dane::to_publish(&certificate.leaf, &certificate.intermediates) else {
        return;
    };
    for name in names::alternative_names(&certificate.leaf) {
        let names::AlternativeName::Dns(name) = name else {
            continue;
        };
        let name = text::printable(&name);
        let name = name.strip_suffix('.').unwrap_or(&name);
        let host = match name.strip_prefix("*.") {
            Some(domain) => format!("HOST.{domain}"),
            None => name.to_owned(),
        };
        for record in &records {
            let _ = writeln!(out, "    _25._tcp.{host}. IN TLSA {record}");
        }
    }
}

/// Whether a client that knows the root alone can build the chain.
fn chain_state(certificate: &Certificate) -> String {
    let length = certificate.intermediates.len();
    match certificate.chain() {
        Chain::Alone { issuer, .. } => format!("incomplete: no certificate of {issuer}"),
        Chain::Broken { at, .. } => {
            format!("broken: certificate {at} of the file did not issue the one before it")
        }
        Chain::ToSystem(issuer) => {
            let intermediates = intermediates(length);
            format!("complete ({intermediates}; the root is among the system's: {issuer})")
        }
        Chain::ToUnknown(issuer) => {
            let intermediates = intermediates(length);
            format!("incomplete, unless clients trust {issuer} itself ({intermediates})")
        }
        Chain::WithRoot if length == 0 => "self-signed".to_owned(),
        Chain::WithRoot if length == 1 => "complete (the certificate and its root)".to_owned(),
        Chain::WithRoot => {
            format!("complete, with its root ({})", intermediates(length - 1))
        }
    }
}

fn intermediates(count: usize) -> String {
    text::count(count, "intermediate")
}

fn describe_clients(out: &mut String, kinds: &[KeyKind]) {
    let rsa = kinds.iter().any(|kind| matches!(kind, KeyKind::Rsa(_)));
    let ecdsa = kinds.iter().any(|kind| matches!(kind, KeyKind::Ecdsa(_)));
    let pss = kinds.iter().any(|kind| matches!(kind, KeyKind::RsaPss(_)));
    let odd = kinds.iter().any(|kind| matches!(kind, KeyKind::EcdsaOn(_)));
    let line = match (rsa, ecdsa) {
        (false, false) if odd => {
            "only those that have the curve of the key, hardly any: an RSA certificate in CERTFILE_ALT would serve the others"
        }
        (true, true) => "all kinds",
        (true, false) => "all but those that accept ECDSA only (rare)",
        (false, true) => {
            "not RSA-only senders (old mail servers): an RSA certificate in CERTFILE_ALT would serve them"
        }
        (false, false) if pss => {
            "only those that accept RSASSA-PSS keys, hardly any of TLS 1.2: an RSA or ECDSA certificate in CERTFILE_ALT would serve the others"
        }
        (false, false) => {
            "only those that accept EdDSA keys, neither most mail servers nor browsers: an RSA or ECDSA certificate in CERTFILE_ALT would serve the others"
        }
    };
    let _ = writeln!(out, "  clients served: {line}");
}
