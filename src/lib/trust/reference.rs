//! The names that a peer's certificate may bear, and whether it bears one (RFC
//! 9525: only subjectAltName counts, and every entry of it).
#![forbid(unsafe_code)]

use std::net::IpAddr;

use openssl::x509::X509Ref;

use crate::host_name::{HostName, Reference};
use crate::tls_ffi::{self, names};

/// One of the names of which a certificate must bear one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub reference: Reference,
    /// Whether a wildcard of the certificate's may stand for it.
    pub wildcards: bool,
    /// It comes from a DNS answer that was not signed: who forges DNS chooses it.
    pub from_dns: bool,
}

impl Name {
    /// A name that is known for certain, wildcards allowed.
    #[must_use]
    pub fn new(reference: Reference) -> Name {
        Name {
            reference,
            wildcards: true,
            from_dns: false,
        }
    }

    /// What a certificate bears for it: for a domain the name that was found below.
    #[must_use]
    pub fn borne_by(&self, leaf: &X509Ref) -> Option<Name> {
        let Reference::Below(domain) = &self.reference else {
            return self.is_in(leaf).then(|| self.clone());
        };
        let found = dns_entries(leaf).find(|entry| self.is_one_below(domain.as_str(), entry))?;
        let found = HostName::of_labels(found.split(|&byte| byte == b'.'));
        Some(Name {
            reference: Reference::Host(found),
            ..self.clone()
        })
    }

    fn is_one_below(&self, domain: &str, entry: &[u8]) -> bool {
        let dot = entry.iter().position(|&byte| byte == b'.');
        let (label, above) = entry.split_at(dot.unwrap_or(entry.len()));
        let whole = !label.is_empty() && !label.contains(&b'*');
        (whole || self.wildcards && label == b"*")
            && above
                .get(1..)
                .is_some_and(|above| above.eq_ignore_ascii_case(domain.as_bytes()))
    }

    /// Whether a certificate bears it.
    #[must_use]
    pub fn is_in(&self, leaf: &X509Ref) -> bool {
        match &self.reference {
            Reference::Host(host) if self.wildcards => tls_ffi::names_host(leaf, host.as_str()),
            Reference::Host(host) => {
                dns_entries(leaf).any(|entry| entry.eq_ignore_ascii_case(host.as_str().as_bytes()))
            }
            Reference::Below(domain) => {
                dns_entries(leaf).any(|entry| self.is_one_below(domain.as_str(), &entry))
            }
            Reference::Address(address) => {
                let bytes = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                names::alternative_names(leaf).contains(&names::AlternativeName::Ip(bytes))
            }
        }
    }
}

/// The host names of a certificate, without a dot at their end.
fn dns_entries(leaf: &X509Ref) -> impl Iterator<Item = Vec<u8>> {
    let entries = names::alternative_names(leaf).into_iter();
    entries.filter_map(|entry| match entry {
        names::AlternativeName::Dns(mut name) => {
            if name.ends_with(b".") {
                name.pop();
            }
            Some(name)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).expect("a name")
    }

    fn bearing(names: &[&str]) -> openssl::x509::X509 {
        let mut builder = openssl::x509::X509Builder::new().expect("a builder");
        builder.set_version(2).expect("version 3");
        let mut entries = openssl::x509::extension::SubjectAlternativeName::new();
        for name in names {
            entries.dns(name);
        }
        let entries = entries.build(&builder.x509v3_context(None, None));
        builder
            .append_extension(entries.expect("names"))
            .expect("names");
        builder.build()
    }

    #[test]
    fn a_domain_stands_for_one_label_below_it() {
        let name = |wildcards| Name {
            wildcards,
            ..Name::new(Reference::Below(host("a.example")))
        };
        for (entry, with, without) in [
            ("x.a.example", true, true),
            ("X.A.Example", true, true),
            ("x.a.example.", true, true),
            ("*.a.example", true, false),
            ("x*.a.example", false, false),
            ("a.example", false, false),
            (".a.example", false, false),
            ("x.y.a.example", false, false),
            ("x.b.example", false, false),
            ("xa.example", false, false),
        ] {
            let leaf = bearing(&["other.example", entry]);
            assert_eq!(name(true).is_in(&leaf), with, "{entry}");
            assert_eq!(name(false).is_in(&leaf), without, "{entry}");
            let borne = name(true).borne_by(&leaf).map(|name| name.reference);
            let found = entry.trim_end_matches('.').to_ascii_lowercase();
            assert_eq!(
                borne,
                with.then(|| Reference::Host(host(&found))),
                "{entry}"
            );
        }
        let exact = |wildcards| Name {
            wildcards,
            ..Name::new(Reference::Host(host("x.a.example")))
        };
        for (entry, with, without) in [
            ("x.a.example", true, true),
            ("X.a.example.", true, true),
            ("*.a.example", true, false),
            ("y.a.example", false, false),
        ] {
            let leaf = bearing(&[entry]);
            assert_eq!(exact(false).is_in(&leaf), without, "{entry}");
            if !entry.ends_with('.') {
                assert_eq!(exact(true).is_in(&leaf), with, "{entry}");
            }
        }
    }

    #[test]
    fn what_is_borne_keeps_where_it_comes_from() {
        let leaf = bearing(&["x.a.example"]);
        let name = Name {
            from_dns: true,
            ..Name::new(Reference::Below(host("a.example")))
        };
        let borne = name.borne_by(&leaf).expect("it is");
        assert!(borne.from_dns);
        assert_eq!(borne.reference.to_string(), "x.a.example");
        let other = Name::new(Reference::Host(host("y.a.example")));
        assert_eq!(other.borne_by(&leaf), None);
    }
}
