//! What a peer's certificate says of itself: its names, compared with those that it
//! should bear, and all that a program is told of it.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Extension};
use ucspi_tls::internals::environ::Edits;
use ucspi_tls::internals::session::{describe, is_variable};
use ucspi_tls::internals::trust::{HostName, Name, Reference};

/// A byte (1: wildcards may stand for the name; 2: what follows is the extension
/// itself), the name that is looked for, and a line for each that the certificate has,
/// behind a letter for its kind.
pub fn name_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x01mx.a.example\ndother.example\ndmx.a.example\ni\xc0\0\x02\x01\nea@a.example"[..],
        b"\x01mx.a.example\nd*.a.example\nd*.example",
        b"\x00mx.a.example\nd*.a.example\ndMX.A.example.",
        b"\x01.a.example\nd*.a.example\ndx.y.a.example",
        b"\x00.a.example\ndx.a.example.\nd.a.example\ndx*.a.example",
        b"\x01a.example\nda.example\0.b.example\nd*\nd*.",
        b"\x01192.0.2.1\ni\xc0\0\x02\x01\nd192.0.2.1",
        b"\x01::1\ni\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
        b"\x03a.example\n\x30\x0b\x82\x09a.example",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// A value of DER, of no more than 65535 bytes.
fn der(tag: u8, bytes: &[u8]) -> Vec<u8> {
    // Libcrypto refuses some that are longer than they need to be.
    let [high, low] = (bytes.len() as u16).to_be_bytes();
    let length = match bytes.len() {
        ..0x80 => vec![low],
        0x80..0x100 => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag], &length[..], bytes].concat()
}

/// A certificate with this extension for its names.
fn bearing(names: &[u8]) -> X509 {
    let mut builder = X509::builder().expect("a builder");
    builder.set_version(2).expect("version 3");
    let kind = Asn1Object::from_str("2.5.29.17").expect("subjectAltName");
    let value = Asn1OctetString::new_from_bytes(names).expect("bytes");
    let names = X509Extension::new_from_der(&kind, false, &value).expect("an extension");
    builder.append_extension(names).expect("room");
    builder.build()
}

/// Any bytes as a name and the names of a certificate: it bears that name where a
/// second opinion says so.
pub fn names(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else {
        return;
    };
    let mut lines = rest.splitn(2, |&byte| byte == b'\n');
    let wanted = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(wanted), Some(rest)) = (wanted, lines.next()) else {
        return;
    };
    let reference = match wanted.strip_prefix('.') {
        Some(domain) => HostName::parse(domain).map(Reference::Below),
        None => Reference::parse(wanted),
    };
    let Ok(reference) = reference else {
        return;
    };
    let rest = &rest[..rest.len().min(8192)];
    let name = Name {
        wildcards: mode & 1 != 0,
        ..Name::new(reference)
    };
    let (mut hosts, mut addresses, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for line in rest.split(|&byte| byte == b'\n') {
        match line.split_first() {
            Some((b'd', host)) => {
                hosts.push(host.to_ascii_lowercase());
                entries.extend(der(0x82, host));
            }
            Some((b'i', address)) => {
                addresses.push(address);
                entries.extend(der(0x87, address));
            }
            Some((_, mailbox)) => entries.extend(der(0x81, mailbox)),
            None => {}
        }
    }
    let leaf = if mode & 2 == 0 {
        bearing(&der(0x30, &entries[..]))
    } else {
        bearing(rest)
    };
    let borne = name.borne_by(&leaf);
    assert_eq!(name.is_in(&leaf), borne.is_some());
    if let Some(borne) = &borne {
        let shown = borne.reference.to_string();
        assert!(shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert!(!matches!(borne.reference, Reference::Below(_)));
    }
    if mode & 2 == 0 && entries.len() < 65536 {
        judge(&name, borne.is_some(), &hosts, &addresses);
    }
}

/// RFC 9525, 6.3 to 6.5: a wildcard is the whole first label, and stands for one.
fn judge(name: &Name, found: bool, hosts: &[Vec<u8>], addresses: &[&[u8]]) {
    let undotted = |host: &[u8]| host.strip_suffix(b".").unwrap_or(host).to_vec();
    let any = |good: &dyn Fn(&[u8]) -> bool| hosts.iter().any(|host| good(&undotted(host)));
    match &name.reference {
        Reference::Address(address) => {
            let wanted = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            assert_eq!(found, addresses.iter().any(|bytes| *bytes == wanted));
        }
        Reference::Below(domain) => {
            let below = [b".", domain.as_str().as_bytes()].concat();
            let one = |host: &[u8]| {
                host.strip_suffix(&*below).is_some_and(|label| {
                    let plain = !label.contains(&b'*') || (name.wildcards && label == b"*");
                    !label.is_empty() && !label.contains(&b'.') && plain
                })
            };
            assert_eq!(found, any(&one), "{name:?}");
        }
        Reference::Host(host) => {
            let host = host.as_str().as_bytes();
            let (label, above) = host.split_at(host.iter().position(|&b| b == b'.').unwrap_or(0));
            let itself = |one: &[u8]| one == host;
            let wildcard = |one: &[u8]| !label.is_empty() && one == [b"*", above].concat();
            if !name.wildcards {
                assert_eq!(found, any(&itself), "{name:?}");
            } else if found {
                assert!(any(&itself) || any(&wildcard), "{name:?}");
            } else {
                // Libcrypto wants two labels above a wildcard, of letters and digits.
                assert!(!hosts.iter().any(|one| one == host), "{name:?}");
                let plain = host.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'.');
                let deep = above.iter().filter(|&&b| b == b'.').count() > 1;
                let stands = hosts.iter().any(|one| wildcard(one));
                assert!(!(plain && deep && stands), "{name:?}");
            }
        }
    }
}

/// Certificates.
pub fn variable_seeds() -> Vec<Vec<u8>> {
    let key = PKey::generate_ed25519().expect("a key");
    let made = |version| crate::probe::certificate_of(&key, MessageDigest::null(), version);
    [2, i32::MAX, 0]
        .map(|version| made(version).to_der().expect("DER"))
        .into()
}

/// Any bytes as a peer's certificate: what a program is told of it are variables of a
/// session, in a form that it gets whole, and nothing but PEM has more than one line.
pub fn variables(bytes: &[u8]) {
    let Ok(certificate) = X509::from_der(bytes) else {
        return;
    };
    let mut edits = Edits::new();
    describe(&mut edits, "SSL_CLIENT", &certificate, &[], true);
    let again = Edits::from_wire(&edits.to_wire()).expect("our own form");
    assert_eq!(again.to_wire(), edits.to_wire());
    for (name, value) in edits.apply([]) {
        let name = name.to_str().expect("ASCII");
        let value = value.to_str().expect("ASCII");
        assert!(
            is_variable(name.as_bytes()) && !name.contains('='),
            "{name}"
        );
        let shown = |byte: u8| (0x20..0x7f).contains(&byte);
        assert!(
            name == "SSL_CLIENT_CERT" || value.bytes().all(shown),
            "{name} {value:?}"
        );
    }
}
