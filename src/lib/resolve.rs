//! Names and addresses, host and service, asked of the system's resolver.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use crate::options::Family;
use crate::report::Fail;
use crate::sys::socket;
use crate::text;

/// A port: a number, or the name of a TCP service.
///
/// # Errors
/// A number that is no port: 100. No such service: 111, as in the originals.
pub fn port(word: &str) -> Result<u16, Fail> {
    if let Some(number) = text::number(word, 0..=65535) {
        return Ok(u16::try_from(number).unwrap_or_default());
    }
    if let Some(known) = service_port(word) {
        return Ok(known);
    }
    let shown = text::excerpt(word.as_bytes(), 100);
    // Some services begin with a digit; what is neither was meant as a number.
    if word.is_empty()
        || word.starts_with(|first: char| first.is_ascii_digit() || "+-".contains(first))
    {
        return Err(Fail::never(format!(
            "port \"{shown}\" is not a number from 0 to 65535"
        )));
    }
    Err(Fail::temporary(format!(
        "unable to figure out port number for {shown}"
    )))
}

/// The TCP port that services(5) gives a name or an alias.
fn service_port(name: &str) -> Option<u16> {
    let services = std::fs::read_to_string("/etc/services").ok()?;
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let official = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?.parse().ok()?;
        std::iter::once(official)
            .chain(words)
            .any(|word| word == name)
            .then_some(port)
    })
}

/// The addresses of a host in the resolver's order: at least one. A numeric
/// address is itself, with `interface` where it is link-local.
///
/// # Errors
/// The host is unknown, or has no address of the family.
pub fn addresses(
    host: &str,
    port: u16,
    family: Family,
    interface: Option<&str>,
) -> Result<Vec<SocketAddr>, Fail> {
    let shown = || text::excerpt(host.as_bytes(), 100);
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address.to_canonical(), port)],
        Err(_) => (host, port)
            .to_socket_addrs()
            .map_err(|error| {
                Fail::from(resolver_reason(&error)).of(format_args!(
                    "temporarily unable to figure out IP address for {}",
                    shown()
                ))
            })?
            .collect(),
    };
    let mut wanted: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| family != Family::Four || address.is_ipv4())
        .collect();
    if wanted.is_empty() {
        let kind = if family == Family::Four { "IPv4" } else { "IP" };
        return Err(Fail::temporary(format!(
            "no {kind} address for {}",
            shown()
        )));
    }
    if let Some(name) = interface {
        let index = socket::interface_index(name).ok_or_else(|| {
            Fail::temporary(format!(
                "-I: unknown interface {}",
                text::name(name.as_bytes(), 100)
            ))
        })?;
        for address in &mut wanted {
            if let SocketAddr::V6(v6) = address {
                if socket::is_link_local(IpAddr::V6(*v6.ip())) {
                    v6.set_scope_id(index);
                }
            }
        }
    }
    Ok(wanted)
}

/// The resolver's own words, without std's prefix.
fn resolver_reason(error: &io::Error) -> io::Error {
    let text = error.to_string();
    let bare = text
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(&text);
    io::Error::other(bare.to_lowercase())
}

/// The name that reverse lookup gives an address, in lower case; what is no
/// [`is_host_name`] is none.
#[must_use]
pub fn name_of(address: IpAddr) -> Option<Vec<u8>> {
    let name = socket::name_of(address)?.to_ascii_lowercase();
    is_host_name(&name).then_some(name)
}

/// Whether what stands in a PTR record can be a host's name: the root cannot, nor
/// an address in any form that inet_aton(3) or inet_pton(3) read, which would
/// lead back to itself (a last label that is a number; a colon).
#[must_use]
pub fn is_host_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let last = name.rsplit(|&byte| byte == b'.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix(b"0x").or(last.strip_prefix(b"0X"));
    let number = match hexadecimal {
        Some(digits) => digits.iter().all(u8::is_ascii_hexdigit),
        None => last.iter().all(u8::is_ascii_digit),
    };
    !number && !name.contains(&b':')
}

/// Whether a name resolves to an address, as `-p` wants.
#[must_use]
pub fn resolves_to(name: &[u8], address: IpAddr) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    (name, 0)
        .to_socket_addrs()
        .is_ok_and(|mut found| found.any(|found| found.ip().to_canonical() == address))
}

/// The address a server binds for the words of its `host` argument, and whether
/// IPv6 alone is meant: `0`, `:0` and the empty word stand for every address,
/// `::` for every IPv6 address.
///
/// # Errors
/// As [`addresses`].
pub fn listening_address(
    host: &str,
    port: u16,
    family: Family,
    interface: Option<&str>,
) -> Result<(SocketAddr, bool), Fail> {
    let every = matches!(host, "0" | ":0" | "");
    match family {
        Family::Four if every => Ok((SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), true)),
        _ if every => Ok((SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), false)),
        _ => {
            let first = addresses(host, port, family, interface)?;
            Ok((first[0], true))
        }
    }
}

/// An address, bare or in brackets, there with the tag of RFC 5321 section 4.1.3
/// (`[IPv6:2001:db8::1]`) or without.
#[must_use]
pub fn address_literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.and_then(|bare| bare.split_at_checked(5)) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("ipv6:") => {
            rest.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => bare.unwrap_or(host).parse().ok(),
    }
}

/// An address with its zone, the name or number of an interface, as in `fe80::1%eth0`
/// (RFC 4007 section 11).
#[must_use]
pub fn zoned(host: &str) -> Option<(Ipv6Addr, &str)> {
    let (address, zone) = host.split_once('%')?;
    let is_sound = (1..libc::IFNAMSIZ).contains(&zone.len())
        && zone.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    is_sound.then_some((address.parse().ok()?, zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_the_name_of_an_interface() {
        let local = "fe80::1".parse().expect("an address");
        for zone in ["lo", "7", "br-0f.12", "fifteen-letters"] {
            assert_eq!(zoned(&format!("fe80::1%{zone}")), Some((local, zone)));
        }
        for none in [
            "",
            "a b",
            "lo\0x",
            "a/b",
            "\u{e4}",
            "\x1b",
            "sixteen-letters-",
        ] {
            assert_eq!(zoned(&format!("fe80::1%{none}")), None, "{none:?}");
        }
        for none in ["fe80::1", "127.0.0.1%lo", "%lo", "a%lo"] {
            assert_eq!(zoned(none), None, "{none}");
        }
    }

    #[test]
    fn ports_are_numbers_or_services() {
        assert_eq!(port("0").expect("a number"), 0);
        assert_eq!(port("65535").expect("a number"), 65535);
        for bad in ["65536", "-1", "25x", "", "1 "] {
            let fail = port(bad).expect_err(bad);
            assert_eq!(fail.code(), 100);
            let wanted = format!("port \"{bad}\" is not a number from 0 to 65535");
            assert_eq!(fail.to_string(), wanted);
        }
        let fail = port("no-such-service").expect_err("no service");
        assert_eq!(fail.code(), 111);
        assert_eq!(
            fail.to_string(),
            "unable to figure out port number for no-such-service"
        );
    }

    #[test]
    fn addresses_stand_alone_or_in_brackets() {
        let six = Some("2001:db8::1".parse().expect("an address"));
        let four = Some("192.0.2.1".parse().expect("an address"));
        for (text, address) in [
            ("2001:db8::1", six),
            ("[2001:db8::1]", six),
            ("[IPv6:2001:db8::1]", six),
            ("[ipv6:2001:db8::1]", six),
            ("192.0.2.1", four),
            ("[192.0.2.1]", four),
            ("[IPv6:192.0.2.1]", None),
            ("IPv6:2001:db8::1", None),
            ("[192.0.2.1", None),
            ("[]", None),
            ("mx.example", None),
        ] {
            assert_eq!(address_literal(text), address, "{text}");
        }
    }

    #[test]
    fn neither_the_root_nor_an_address_is_a_host_s_name() {
        for bad in [
            "",
            ".",
            "a..",
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "017700000001",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1%lo",
            "a.0x",
        ] {
            assert!(!is_host_name(bad.as_bytes()), "{bad:?}");
        }
        for good in [
            "a",
            "a.example.",
            "1.example",
            "127.0.0.1.example",
            "0xa.b",
            "xn--p1ai",
        ] {
            assert!(is_host_name(good.as_bytes()), "{good:?}");
        }
    }

    #[test]
    fn every_address_has_three_names() {
        for host in ["0", ":0", ""] {
            let (address, only_v6) =
                listening_address(host, 25, Family::Any, None).expect("no lookup");
            assert_eq!((address.to_string().as_str(), only_v6), ("[::]:25", false));
            let (address, _) = listening_address(host, 25, Family::Four, None).expect("no lookup");
            assert_eq!(address.to_string(), "0.0.0.0:25");
        }
        let (address, only_v6) = listening_address("::", 25, Family::Any, None).expect("numeric");
        assert_eq!((address.to_string().as_str(), only_v6), ("[::]:25", true));
        assert!(listening_address("::1", 25, Family::Four, None).is_err());
        // A socket for IPv6 alone could not be bound to it.
        for family in [Family::Any, Family::Four] {
            let mapped = listening_address("::ffff:127.0.0.1", 25, family, None);
            assert_eq!(mapped.expect("numeric").0.to_string(), "127.0.0.1:25");
        }
    }
}
