//! The line for tlsdestinations(5) that would hold for a partner today.
#![forbid(unsafe_code)]

use std::path::Path;

use super::result::{Certificate, HostResult, KeyType, StartTls, Version};
use crate::tlsdestinations::{Anchors, RuleForm, Value};

/// Whom a line is for.
#[derive(Clone, Debug)]
pub struct Partner<'a> {
    /// The host as it was given, or the mail domain.
    pub destination: &'a str,
    /// It is a mail domain, whose MX hosts the results are of.
    pub is_domain: bool,
    /// The file of trust anchors that was given.
    pub anchor_file: Option<&'a Path>,
}

/// What a line has in the place of ciphers where it lowers libssl's security level.
pub const LOWERED: &str = "DEFAULT:@SECLEVEL=0";

/// A host that a line is for.
#[derive(Clone, Copy, Debug)]
pub struct PartnerHost<'a> {
    /// What was found of it.
    pub result: &'a HostResult,
    /// Certificates that it shows beside those of the result.
    pub others: &'a [Certificate],
    /// How the line holds.
    pub hold: &'a Hold,
}

impl<'a> PartnerHost<'a> {
    /// All certificates that it shows.
    fn certificates(&self) -> impl Iterator<Item = &'a Certificate> {
        self.result.certificates.iter().chain(self.others)
    }
}

/// How the line for a host holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// As it is.
    Plain,
    /// With a lower security level.
    Lowered,
    /// Not at all: why.
    Not(String),
}

/// A file of trust anchors as a line can name it; `None`: a separator in it, or bytes that
/// are no text, would make another field of it.
fn as_field(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    let read = Value::parse(text, RuleForm::Named).ok()?;
    let same = read.anchors == Some(Anchors::File(text.to_owned()));
    (same && !text.contains(['\n', '\r'])).then_some(text)
}

/// The line under which mail to these servers gets through today and an impostor
/// gets none: verified by name where they all can be, else pinned by key. `None`
/// where there is no TLS that our own programs speak.
#[must_use]
pub fn line(partner: &Partner<'_>, hosts: &[PartnerHost<'_>]) -> Option<String> {
    let usable = |one: &PartnerHost<'_>| {
        !one.result.certificates.is_empty()
            && (one.result.speaks(Version::Tls12) || one.result.speaks(Version::Tls13))
            && !matches!(one.hold, Hold::Not(_))
    };
    if hosts.is_empty() || !hosts.iter().all(usable) {
        return None;
    }
    let all = || hosts.iter().flat_map(PartnerHost::certificates);
    let verified = all().all(|one| one.verifies() && one.name_ok == Some(true));
    let anchors = match partner.anchor_file {
        Some(path) => as_field(path),
        None => Some(""),
    };
    let (sign, first) = if let Some(anchors) = anchors.filter(|_| verified) {
        ("~", anchors.to_owned())
    } else {
        let mut pins: Vec<String> = all().map(|one| format!("spki:{}", one.spki)).collect();
        pins.sort();
        pins.dedup();
        ("%", pins.join(","))
    };
    // Libssl's level 2, which distributions have, wants 2048 bits.
    let small = all().any(|one| one.key == KeyType::Rsa && one.bits < 2048);
    let lowered = small || hosts.iter().any(|one| *one.hold == Hold::Lowered);
    let ciphers = if lowered { LOWERED } else { "" };
    let port = hosts.first().map(|one| port(one.result))?;
    let names = if verified && partner.is_domain {
        names(partner, hosts)
    } else {
        String::new()
    };
    let port = if port.is_empty() {
        port
    } else {
        format!(";{port}")
    };
    let value = match (ciphers, names.as_str()) {
        ("", "") => format!("{first}{port}"),
        (ciphers, "") => format!("{first}|{ciphers}|{port}"),
        (ciphers, names) => format!("{first}|{ciphers}|{port}||{names}"),
    };
    let value = value.trim_end_matches('|');
    Some(format!("{sign}{}:{value}", key(partner.destination)))
}

/// The names that the certificates of a domain's hosts bear: each host's own, and the
/// domain where one names only that. Where all do, the field is empty.
fn names(partner: &Partner<'_>, hosts: &[PartnerHost<'_>]) -> String {
    let named = |one: &&PartnerHost<'_>| one.certificates().all(|one| one.names_host);
    let (hosts, others): (Vec<&PartnerHost<'_>>, Vec<&PartnerHost<'_>>) =
        hosts.iter().partition(named);
    if hosts.is_empty() {
        return String::new();
    }
    let mut names: Vec<&str> = hosts.iter().map(|one| one.result.host.as_str()).collect();
    if !others.is_empty() {
        names.push(partner.destination);
    }
    names.dedup();
    names.join(",")
}

/// A host as a key: an IPv6 address stands in brackets.
fn key(destination: &str) -> String {
    if destination.contains(':') && !destination.starts_with('[') {
        return format!("[{destination}]");
    }
    destination.to_owned()
}

/// The port as the line has it; nothing for STARTTLS on 25.
fn port(result: &HostResult) -> String {
    let at_once = result.starttls == Some(StartTls::NotApplicable);
    match (result.port, at_once) {
        (25, false) => String::new(),
        (465, true) => "465".to_owned(),
        (number, true) => format!("s{number}"),
        (number, false) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::result::Chain;
    use super::*;
    use crate::tlsdestinations::{Destination, Destinations};

    fn result(host: &str, port: u16, verify: &str, spki: &str) -> HostResult {
        HostResult {
            host: host.to_owned(),
            port,
            listens: true,
            starttls: Some(StartTls::Offered),
            versions: Some(BTreeMap::from([(Version::Tls12, Some(true))])),
            certificates: vec![Certificate {
                key: KeyType::Rsa,
                bits: 2048,
                spki: spki.repeat(32),
                chain: Chain::Complete,
                verify: verify.to_owned(),
                name_ok: Some(true),
                names_host: true,
                ..Certificate::default()
            }],
            ..HostResult::default()
        }
    }

    fn host<'a>(destination: &'a str, anchor_file: Option<&'a str>) -> Partner<'a> {
        let anchor_file = anchor_file.map(Path::new);
        Partner {
            destination,
            is_domain: false,
            anchor_file,
        }
    }

    fn held<'a>(result: &'a HostResult, hold: &'a Hold) -> PartnerHost<'a> {
        PartnerHost {
            result,
            others: &[],
            hold,
        }
    }

    /// The line, which must be one that is read again.
    fn written(partner: &Partner<'_>, results: &[&HostResult]) -> String {
        let results = results.iter();
        let held: Vec<_> = results.map(|one| held(one, &Hold::Plain)).collect();
        let line = line(partner, &held).expect("a line");
        let rule = Destinations::from_text(&line)
            .look_up(&Destination::itself(partner.destination), None)
            .expect(&line);
        assert_eq!(rule.line, Some(1), "{line}");
        line
    }

    #[test]
    fn what_verifies_is_named_and_the_rest_pinned() {
        let good = result("mx.example", 25, "ok", "11");
        assert_eq!(written(&host("mx.example", None), &[&good]), "~mx.example:");
        // A file that no line can name.
        for odd in ["/a|b.pem", "/a;b.pem", "/a\nb.pem", "/a ", "dane"] {
            let pinned = written(&host("mx.example", Some(odd)), &[&good]);
            assert!(pinned.starts_with("%mx.example:spki:11"), "{odd}: {pinned}");
        }
        assert_eq!(
            written(&host("mx.example", Some("/etc/ca.pem")), &[&good]),
            "~mx.example:/etc/ca.pem"
        );
        let bad = result("mx.example", 25, "self-signed certificate", "22");
        let pin = format!("spki:{}", "22".repeat(32));
        assert_eq!(
            written(&host("mx.example", Some("/ca")), &[&bad]),
            format!("%mx.example:{pin}")
        );
        let mut unnamed = good.clone();
        unnamed.certificates[0].name_ok = Some(false);
        assert!(written(&host("mx.example", None), &[&unnamed]).starts_with("%mx.example:spki:11"));
    }

    #[test]
    fn ports_small_keys_and_addresses_have_their_places() {
        let mut one = result("::1", 465, "ok", "11");
        one.starttls = Some(StartTls::NotApplicable);
        assert_eq!(written(&host("::1", None), &[&one]), "~[::1]:;465");
        one.port = 4433;
        assert_eq!(
            written(&host("127.0.0.1", None), &[&one]),
            "~127.0.0.1:;s4433"
        );
        one.starttls = Some(StartTls::Offered);
        one.certificates[0].bits = 1024;
        assert_eq!(
            written(&host("a.example", None), &[&one]),
            "~a.example:|DEFAULT:@SECLEVEL=0|;4433"
        );
        let ports = Destinations::from_text(
            line(&host("a.example", None), &[held(&one, &Hold::Plain)]).expect("a line"),
        );
        let rule = ports
            .look_up(&Destination::itself("a.example"), None)
            .expect("sound");
        assert_eq!(rule.value.port.map(|port| port.number), Some(4433));
    }

    #[test]
    fn a_domain_s_line_names_its_hosts_or_pins_them_all() {
        let partner = Partner {
            destination: "partner.example",
            is_domain: true,
            anchor_file: None,
        };
        let (a, b) = (
            result("mx1.example", 25, "ok", "11"),
            result("mx2.example", 25, "ok", "22"),
        );
        assert_eq!(
            written(&partner, &[&a, &b]),
            "~partner.example:||||mx1.example,mx2.example"
        );
        // One names only the domain; then both do.
        let mut domain_only = b.clone();
        domain_only.certificates[0].names_host = false;
        assert_eq!(
            written(&partner, &[&a, &domain_only]),
            "~partner.example:||||mx1.example,partner.example"
        );
        assert_eq!(written(&partner, &[&domain_only]), "~partner.example:");
        let bad = result("mx2.example", 25, "certificate has expired", "22");
        assert_eq!(
            written(&partner, &[&bad, &a]),
            format!(
                "%partner.example:spki:{},spki:{}",
                "11".repeat(32),
                "22".repeat(32)
            )
        );
    }

    /// A balancer has several machines, each with a key of its own.
    #[test]
    fn all_certificates_that_a_host_shows_are_pinned() {
        let bad = result("mx.example", 25, "self-signed certificate", "11");
        let other = result("mx.example", 25, "ok", "22").certificates;
        let held = PartnerHost {
            others: &other,
            ..held(&bad, &Hold::Plain)
        };
        let line = line(&host("mx.example", None), &[held]);
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        assert_eq!(line, Some(format!("%mx.example:spki:{one},spki:{two}")));
    }

    #[test]
    fn without_tls_that_we_speak_there_is_no_line() {
        let mut old = result("mx.example", 25, "ok", "11");
        old.versions = Some(BTreeMap::from([(Version::Tls10, Some(true))]));
        assert_eq!(
            line(&host("mx.example", None), &[held(&old, &Hold::Plain)]),
            None
        );
        old.versions = None;
        assert_eq!(
            line(&host("mx.example", None), &[held(&old, &Hold::Plain)]),
            None
        );
        assert_eq!(line(&host("mx.example", None), &[]), None);
        let good = result("mx.example", 25, "ok", "11");
        let not = Hold::Not("dh key too small".to_owned());
        assert_eq!(line(&host("mx.example", None), &[held(&good, &not)]), None);
        assert_eq!(
            line(&host("mx.example", None), &[held(&good, &Hold::Lowered)]).as_deref(),
            Some("~mx.example:|DEFAULT:@SECLEVEL=0")
        );
    }
}
