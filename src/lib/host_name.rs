//! A host's name as it leaves this machine: in DNS, in SNI, in certificates and in
//! reports. Names come as people write them, in any script; this is the one place
//! where they are turned.
#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::resolve;
use crate::text;

/// RFC 1035, 2.3.4, in bytes.
pub const LABEL_LIMIT: usize = 63;
/// The same for a whole name as text: 255 on the wire, without the length of its first
/// label and the root's.
const TEXT_LIMIT: usize = 253;

/// A name in lower case and in ASCII, without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a text is no host's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHostName {
    /// A label is empty or too long, or the whole name is.
    Length,
    /// It has letters for which IDNA has no form.
    NoAscii,
    /// A blank, a control character or a backslash is in it.
    Character,
}

/// Words that follow `is no host name:`.
impl fmt::Display for NoHostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NoHostName::Length => "a label is empty or too long",
            NoHostName::NoAscii => "IDNA has no form of it",
            NoHostName::Character => "it has a character that no host name has",
        })
    }
}

impl HostName {
    /// A name as it is written, with one dot at its end or none; IDNA where it is not
    /// ASCII.
    ///
    /// # Errors
    /// No host can have it.
    pub fn parse(text: &str) -> Result<HostName, NoHostName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let mut labels = Vec::new();
        for label in name.split('.') {
            labels.push(if label.is_ascii() {
                label.to_ascii_lowercase()
            } else {
                international(label.as_bytes()).ok_or(NoHostName::NoAscii)?
            });
        }
        let name = labels.join(".");
        // A full stop of another script has become a dot by now.
        let sound = |label: &str| (1..=LABEL_LIMIT).contains(&label.len());
        if name.len() > TEXT_LIMIT || !name.split('.').all(sound) {
            return Err(NoHostName::Length);
        }
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        {
            return Err(NoHostName::Character);
        }
        Ok(HostName(name))
    }

    /// A name in DNS, whatever bytes its labels have: a dot within a label, and what is
    /// not printable, are escaped as in RFC 1035, 5.1.
    #[must_use]
    pub fn of_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> HostName {
        let mut name = String::new();
        for (number, label) in labels.enumerate() {
            if number > 0 {
                name.push('.');
            }
            for byte in label.to_ascii_lowercase() {
                match byte {
                    b'.' | b'\\' => name.extend(['\\', char::from(byte)]),
                    0x21..=0x7e => name.push(char::from(byte)),
                    _ => {
                        let _ = write!(name, "\\{byte:03}");
                    }
                }
            }
        }
        HostName(name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same where it can be sent as SNI: not where it had to be escaped.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        (!self.0.contains('\\')).then_some(&*self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The ASCII form of a label that has bytes over 127 (IDNA). `None`: it has none.
#[must_use]
pub fn international(label: &[u8]) -> Option<String> {
    #[cfg(feature = "remote")]
    if !label.is_ascii() {
        use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
        let allowed = (AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore);
        let ascii = Uts46::new().to_ascii(label, allowed.0, allowed.1, allowed.2);
        return ascii.ok().map(std::borrow::Cow::into_owned);
    }
    let _ = label;
    None
}

/// Whom a certificate must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An address.
    Address(IpAddr),
    /// A domain: any name one label below it will do.
    Below(HostName),
    /// A host.
    Host(HostName),
}

impl Reference {
    /// A host argument as a reference identifier (RFC 9525 section 6.1).
    ///
    /// # Errors
    /// It is neither an address nor a host's name.
    pub fn parse(host: &str) -> Result<Reference, NoHostName> {
        let zoned = || resolve::zoned(host).map(|(address, _)| IpAddr::V6(address));
        let address = resolve::address_literal(host).or_else(zoned);
        match address {
            Some(address) => Ok(Reference::Address(address)),
            None => HostName::parse(host).map(Reference::Host),
        }
    }

    /// The name that DNS gives a host, if it is one.
    #[must_use]
    pub fn host_name(name: &[u8]) -> Option<Reference> {
        let name = std::str::from_utf8(name).ok()?;
        let named = resolve::is_host_name(name.as_bytes()).then(|| HostName::parse(name));
        named?.ok().map(Reference::Host)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &HostName| text::excerpt(name.0.as_bytes(), 255);
        match self {
            Reference::Address(address) => address.fmt(out),
            Reference::Below(domain) => write!(out, ".{}", shown(domain)),
            Reference::Host(name) => out.write_str(&shown(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "remote")]
    #[test]
    fn a_name_leaves_in_ascii_or_not_at_all() {
        for (text, name) in [
            ("MX.Example.", Ok("mx.example")),
            ("m\u{fc}nchen.example", Ok("xn--mnchen-3ya.example")),
            ("M\u{dc}NCHEN.Example.", Ok("xn--mnchen-3ya.example")),
            ("b\u{fc}cher\u{3002}test", Ok("xn--bcher-kva.test")),
            ("under_score.plus+x.test", Ok("under_score.plus+x.test")),
            ("", Err(NoHostName::Length)),
            (".", Err(NoHostName::Length)),
            ("..", Err(NoHostName::Length)),
            (".x.example", Err(NoHostName::Length)),
            ("x..example", Err(NoHostName::Length)),
            ("x.example..", Err(NoHostName::Length)),
            ("m\u{fc}nchen.example..", Err(NoHostName::Length)),
            (
                "m\u{fc}nchen\u{3002}\u{3002}example",
                Err(NoHostName::Length),
            ),
            ("x.example\u{3002}.", Err(NoHostName::Length)),
            ("m\u{fc}nchen.exa\u{378}mple", Err(NoHostName::NoAscii)),
            ("a b.example", Err(NoHostName::Character)),
            ("a\\b.example", Err(NoHostName::Character)),
            ("a\nb.example", Err(NoHostName::Character)),
        ] {
            let found = HostName::parse(text);
            let found = found.as_ref().map(HostName::as_str).map_err(|why| *why);
            assert_eq!(found, name, "{text:?}");
        }
        let label = |length: usize| format!("{}.test", "x".repeat(length));
        assert!(HostName::parse(&label(63)).is_ok());
        assert_eq!(HostName::parse(&label(64)), Err(NoHostName::Length));
        // What counts is the form that is sent: 80 bytes of text are 46 there.
        let wide = |length| label(length).replace('x', "\u{fc}");
        assert_eq!(HostName::parse(&wide(40)).map(|name| name.0.len()), Ok(51));
        assert_eq!(HostName::parse(&wide(100)), Err(NoHostName::Length));
        let long = "a.".repeat(126);
        assert!(HostName::parse(&format!("{long}a")).is_ok());
        assert_eq!(
            HostName::parse(&format!("{long}aa")),
            Err(NoHostName::Length)
        );
    }

    #[cfg(feature = "remote")]
    #[test]
    fn what_had_to_be_escaped_is_never_sent() {
        let name = |label: &'static [u8]| HostName::of_labels([label, b"Test"].into_iter());
        assert_eq!(name(b"MX").server_name(), Some("mx.test"));
        for (label, shown) in [
            (&b"caf\xe9"[..], "caf\\233.test"),
            (b"a.b", "a\\.b.test"),
            (b"a b", "a\\032b.test"),
        ] {
            assert_eq!(name(label).as_str(), shown);
            assert_eq!(name(label).server_name(), None, "{shown}");
        }
    }

    #[test]
    fn references_are_hosts_or_addresses() {
        let named = |name: &str| HostName::parse(name).map(Reference::Host);
        assert_eq!(Reference::parse("MX.example."), named("mx.example"));
        for host in ["::1", "[::1]", "[IPv6:::1]", "[ipv6:::1]", "::1%lo"] {
            let address = Reference::Address("::1".parse().expect("an address"));
            assert_eq!(Reference::parse(host), Ok(address), "{host}");
        }
        assert_eq!(Reference::parse("mx.example.."), Err(NoHostName::Length));
    }

    #[test]
    fn neither_the_root_nor_an_address_is_a_host_s_name() {
        for bad in [&b"."[..], b"127.0.0.1", b"a\xff.example", b"a..example"] {
            assert_eq!(Reference::host_name(bad), None, "{bad:?}");
        }
        let named = HostName::parse("host.example").map(Reference::Host);
        assert_eq!(Reference::host_name(b"Host.Example."), named.ok());
    }
}
