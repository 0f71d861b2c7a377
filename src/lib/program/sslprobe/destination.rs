//! Destinations as they are written: `host`, `host:port`, `[address]:port`.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use crate::options::sslprobe::{Options, Start};
use crate::report::Fail;
use crate::resolve;
use crate::text;
use crate::trust::Reference;

/// Where a probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeDestination {
    /// The host, or the mail domain, as it was given; in ASCII, as DNS has it.
    pub host: String,
    /// The same as SNI and certificates have it.
    pub reference: Reference,
    /// Where it is called.
    pub port: u16,
    /// How TLS is reached.
    pub start: Start,
}

/// Destinations of one host, which are probed one after the other and looked at
/// together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The host, or the mail domain.
    pub host: String,
    /// It is a mail domain.
    pub is_domain: bool,
    /// Its ports.
    pub destinations: Vec<ProbeDestination>,
}

/// Reads a destination.
///
/// # Errors
/// What is wrong with it.
pub fn parse(word: &str, options: &Options) -> Result<ProbeDestination, Fail> {
    let (host, port) = split(word);
    let shown = || text::excerpt(word.as_bytes(), 100);
    let sound = !host.starts_with('-') && !host.contains(['[', ']', '/', '@']);
    if !sound || host.is_empty() {
        return Err(format!("\"{}\" is not host, host:port or [address]:port", shown()).into());
    }
    let reference = Reference::parse(host).map_err(|why| format!("\"{}\": {why}", shown()))?;
    let port = match port {
        None => options.port,
        Some(port) => text::number(port, 1..=65535)
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| format!("\"{}\": the port is not a number from 1 to 65535", shown()))?,
    };
    let host = match &reference {
        Reference::Host(name) if !host.is_ascii() => name.to_string(),
        _ => host.to_owned(),
    };
    Ok(ProbeDestination {
        host,
        reference,
        port,
        start: options.start.unwrap_or_else(|| Start::of_port(port)),
    })
}

/// Host and port; an IPv6 address without brackets has no port.
fn split(word: &str) -> (&str, Option<&str>) {
    if let Some(inner) = word.strip_prefix('[') {
        return match inner.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) => match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => ("", None),
            },
            None => ("", None),
        };
    }
    if word.parse::<IpAddr>().is_ok() || resolve::zoned(word).is_some() {
        return (word, None);
    }
    match word.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => ("", None),
        Some((host, port)) => (host, Some(port)),
        None => (word, None),
    }
}

/// Puts the destinations of one host together, in the order of the first of each.
#[must_use]
pub fn units(destinations: Vec<ProbeDestination>, domains: bool) -> Vec<Unit> {
    let mut places = std::collections::HashMap::new();
    let mut units: Vec<Unit> = Vec::new();
    for one in destinations {
        let place = *places.entry(one.host.clone()).or_insert(units.len());
        if place == units.len() {
            units.push(Unit {
                host: one.host.clone(),
                is_domain: domains,
                destinations: Vec::new(),
            });
        }
        units[place].destinations.push(one);
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_host_with_or_without_a_port() {
        let options = Options::default();
        for (word, host, port) in [
            ("mx.example", "mx.example", 25),
            ("mx.example:587", "mx.example", 587),
            ("127.0.0.1:2525", "127.0.0.1", 2525),
            ("m\u{fc}nchen.example:587", "xn--mnchen-3ya.example", 587),
            ("[::1]:993", "::1", 993),
            ("[::1]", "::1", 25),
            ("::1", "::1", 25),
            ("fe80::1%lo", "fe80::1%lo", 25),
            ("[fe80::1%lo]:993", "fe80::1%lo", 993),
        ] {
            let found = parse(word, &options).expect(word);
            assert_eq!((found.host.as_str(), found.port), (host, port), "{word}");
            assert_eq!(found.start, Start::of_port(port), "{word}");
        }
        for bad in [
            "",
            ":25",
            "a:",
            "a:0",
            "a:65536",
            "a:x",
            "[::1",
            "[::1]x",
            "[fe80::1%l o]",
            "[fe80::1%lo\0]:25",
            "a b",
            "a\nb",
            "::g:1",
            "-x",
            "x.example..",
            "m\u{fc}nchen.example..:25",
            "a..b",
            "user@example.org",
        ] {
            assert!(parse(bad, &options).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ports_of_one_host_are_looked_at_together() {
        let options = Options::default();
        let words = ["a:25", "b:25", "a:587", "a:25"];
        let all = words
            .iter()
            .map(|word| parse(word, &options).expect("sound"))
            .collect();
        let units = units(all, false);
        let hosts: Vec<_> = units.iter().map(|unit| unit.host.as_str()).collect();
        assert_eq!(hosts, ["a", "b"]);
        assert_eq!(units[0].destinations.len(), 3, "each that was given is one");
    }
}
