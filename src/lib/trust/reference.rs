//! The names that a peer's certificate may bear, and whether it bears one (RFC
//! 9525: only subjectAltName counts, and every entry of it).
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;

use openssl::x509::X509Ref;

use crate::resolve;
use crate::text;
use crate::tls_ffi::{self, names};

/// Whom a certificate must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An address.
    Address(IpAddr),
    /// A domain in lower case, without a dot at its end: any name one label below
    /// it will do.
    Below(String),
    /// A host name in lower case, without a dot at its end.
    Host(String),
}

impl Reference {
    /// A host argument as a reference identifier (RFC 9525 section 6.1).
    #[must_use]
    pub fn new(host: &str) -> Reference {
        match resolve::address_literal(host) {
            Some(address) => Reference::Address(address),
            None => Reference::Host(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()),
        }
    }

    /// The name that DNS gives a host, if it is one.
    #[must_use]
    pub fn host_name(name: &[u8]) -> Option<Reference> {
        let name = std::str::from_utf8(name).ok()?;
        let bare = name.strip_suffix('.').unwrap_or(name);
        resolve::is_host_name(name.as_bytes()).then(|| Reference::Host(bare.to_ascii_lowercase()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Address(address) => address.fmt(out),
            Reference::Below(domain) => {
                write!(out, ".{}", text::excerpt(domain.as_bytes(), 255))
            }
            Reference::Host(name) => out.write_str(&text::excerpt(name.as_bytes(), 255)),
        }
    }
}

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
        let found = dns_entries(leaf).find(|entry| self.is_one_below(domain, entry))?;
        let found = String::from_utf8_lossy(&found).to_ascii_lowercase();
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
            Reference::Host(host) if self.wildcards => tls_ffi::names_host(leaf, host),
            Reference::Host(host) => {
                dns_entries(leaf).any(|entry| entry.eq_ignore_ascii_case(host.as_bytes()))
            }
            Reference::Below(domain) => {
                dns_entries(leaf).any(|entry| self.is_one_below(domain, &entry))
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
            ..Name::new(Reference::Below("a.example".to_owned()))
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
            assert_eq!(borne, with.then_some(Reference::Host(found)), "{entry}");
        }
        let host = |wildcards| Name {
            wildcards,
            ..Name::new(Reference::Host("x.a.example".to_owned()))
        };
        for (entry, with, without) in [
            ("x.a.example", true, true),
            ("X.a.example.", true, true),
            ("*.a.example", true, false),
            ("y.a.example", false, false),
        ] {
            let leaf = bearing(&[entry]);
            assert_eq!(host(false).is_in(&leaf), without, "{entry}");
            if !entry.ends_with('.') {
                assert_eq!(host(true).is_in(&leaf), with, "{entry}");
            }
        }
    }

    #[test]
    fn what_is_borne_keeps_where_it_comes_from() {
        let leaf = bearing(&["x.a.example"]);
        let name = Name {
            from_dns: true,
            ..Name::new(Reference::Below("a.example".to_owned()))
        };
        let borne = name.borne_by(&leaf).expect("it is");
        assert!(borne.from_dns);
        assert_eq!(borne.reference.to_string(), "x.a.example");
        let other = Name::new(Reference::Host("y.a.example".to_owned()));
        assert_eq!(other.borne_by(&leaf), None);
    }

    #[test]
    fn references_are_hosts_or_addresses() {
        assert_eq!(
            Reference::new("MX.example."),
            Reference::Host("mx.example".into())
        );
        for host in ["::1", "[::1]", "[IPv6:::1]", "[ipv6:::1]"] {
            let address = Reference::Address("::1".parse().expect("an address"));
            assert_eq!(Reference::new(host), address, "{host}");
        }
    }

    #[test]
    fn neither_the_root_nor_an_address_is_a_host_s_name() {
        for bad in [&b"."[..], b"127.0.0.1", b"a\xff.example"] {
            assert_eq!(Reference::host_name(bad), None, "{bad:?}");
        }
        assert_eq!(
            Reference::host_name(b"Host.Example."),
            Some(Reference::Host("host.example".into()))
        );
    }
}
