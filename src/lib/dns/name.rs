//! A name in DNS as what it is: labels of bytes. It is made once, from an address
//! or a file or an answer, and never read again from its text.
#![forbid(unsafe_code)]

use std::fmt;

use crate::host_name::{HostName, LABEL_LIMIT, international};

/// RFC 1035, 2.3.4, in bytes, of a whole name as it is sent, with the lengths of its labels.
const NAME_LIMIT: usize = 255;

/// A name, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName {
    /// RFC 1035, 3.1, with the root's empty label at the end.
    wire: Vec<u8>,
}

/// A label is empty or too long, or the whole name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAName;

impl DomainName {
    /// A name as it is written in an address; with a dot at its end, or without.
    /// Its bytes are taken as they are: which of them a host's name should have
    /// (RFC 1123, 2.1) is the business of who made it. A label that is not ASCII
    /// becomes what IDNA makes of it, and where IDNA has nothing for it, stays.
    ///
    /// # Errors
    /// No such name can exist.
    pub fn parse(text: &[u8]) -> Result<DomainName, NotAName> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split(|&byte| byte == b'.') {
            match international(label) {
                // A full stop of another script is one, too.
                Some(ascii) => {
                    for part in ascii.as_bytes().split(|&byte| byte == b'.') {
                        push(&mut wire, part)?;
                    }
                }
                None => push(&mut wire, label)?,
            }
        }
        wire.push(0);
        if wire.len() > NAME_LIMIT {
            return Err(NotAName);
        }
        Ok(DomainName { wire })
    }

    /// A whole name as it is in an answer, without compression. `None` where it is
    /// none, or where bytes are left.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<DomainName> {
        let mut rest = wire;
        loop {
            let (length, after) = rest.split_first()?;
            match usize::from(*length) {
                0 if after.is_empty() && wire.len() <= NAME_LIMIT => break,
                length @ 1..=LABEL_LIMIT => rest = after.get(length..)?,
                _ => return None,
            }
        }
        // A length is never a letter: the longest is 63.
        let wire = wire.to_ascii_lowercase();
        Some(DomainName { wire })
    }

    /// As it is sent.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The root, which is what a null MX names (RFC 7505).
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.wire == [0]
    }

    /// The root, above all names.
    #[must_use]
    pub fn root() -> DomainName {
        DomainName { wire: vec![0] }
    }

    /// Whether it is the other name, or below it.
    #[must_use]
    pub fn is_within(&self, other: &DomainName) -> bool {
        let mut rest = &*self.wire;
        while rest.len() > other.wire.len() {
            let length = rest.first().copied().map_or(0, usize::from);
            rest = rest.get(1 + length..).unwrap_or_default();
        }
        rest == other.wire
    }

    /// The name of the host.
    #[must_use]
    pub fn host_name(&self) -> HostName {
        HostName::of_labels(self.labels())
    }

    /// The form of zone files, complete with the dot at its end.
    #[must_use]
    pub fn in_zone_form(&self) -> String {
        format!("{self}.")
    }

    /// The label right below the root.
    #[must_use]
    pub fn top(&self) -> Option<&[u8]> {
        self.labels().last()
    }

    /// The name of a service of this host: `_25._tcp` before it (RFC 6698, 3).
    ///
    /// # Errors
    /// That is longer than a name can be.
    pub fn service(&self, port: u16) -> Result<DomainName, NotAName> {
        let mut wire = Vec::new();
        push(&mut wire, format!("_{port}").as_bytes())?;
        push(&mut wire, b"_tcp")?;
        wire.extend(&self.wire);
        DomainName::from_wire(&wire).ok_or(NotAName)
    }

    /// The labels, from the left.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.wire;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            (!label.is_empty()).then_some(label)
        })
    }
}

/// The name for people and for rules, as [`HostName`] has it.
impl fmt::Display for DomainName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host_name().fmt(out)
    }
}

fn push(wire: &mut Vec<u8>, label: &[u8]) -> Result<(), NotAName> {
    let length = u8::try_from(label.len()).map_err(|_| NotAName)?;
    if label.is_empty() || label.len() > LABEL_LIMIT {
        return Err(NotAName);
    }
    wire.push(length);
    wire.extend(label.to_ascii_lowercase());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_what_they_are() {
        for (text, shown) in [
            (&b"dom_ain.test"[..], "dom_ain.test"),
            (b"Mail+X.TEST.", "mail+x.test"),
            (b"-lead.trail-.test", "-lead.trail-.test"),
            (b"xn--a.test", "xn--a.test"),
            (b"192.0.2.1", "192.0.2.1"),
            (b"a b\\.test", "a\\032b\\\\.test"),
            ("b\u{fc}cher.Test".as_bytes(), "xn--bcher-kva.test"),
            ("\u{fc}_x.a\u{3002}b".as_bytes(), "xn--_x-wka.a.b"),
            (b"caf\xe9.test", "caf\\233.test"),
        ] {
            let name = DomainName::parse(text).expect("a name");
            assert_eq!(name.to_string(), shown, "{text:?}");
            let again = DomainName::from_wire(name.wire());
            assert_eq!(again, Some(name), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_exist_is_no_name() {
        let long = |length: usize| [&vec![b'x'; length][..], b".test"].concat();
        assert!(DomainName::parse(&long(63)).is_ok());
        let whole = |last: usize| [&[b'a', b'.'].repeat(120)[..], &vec![b'x'; last]].concat();
        // 120 labels of two bytes, the last one with its length, and the root.
        assert!(DomainName::parse(&whole(13)).is_ok());
        for text in [
            &b""[..],
            b".",
            b"t..test",
            b".test",
            b"test..",
            &long(64),
            &whole(14),
            "\u{3002}x".as_bytes(),
        ] {
            assert_eq!(DomainName::parse(text), Err(NotAName), "{text:?}");
        }
    }

    #[test]
    fn a_name_knows_what_it_is_below() {
        let name = |text: &str| DomainName::parse(text.as_bytes()).expect("a name");
        assert!(name("a.Corp").is_within(&name("corp")));
        assert!(name("corp").is_within(&name("corp")));
        assert!(name("corp").is_within(&DomainName::root()));
        assert!(DomainName::root().is_within(&DomainName::root()));
        for other in ["xcorp", "corp.x", "cor", "p"] {
            assert!(!name("a.corp").is_within(&name(other)), "{other}");
        }
        // A label whose bytes look like another's length and text.
        let odd = DomainName::from_wire(b"\x06a\x04corp\0").expect("a name");
        assert!(!odd.is_within(&name("corp")));
        assert_eq!(name("a.b.ONION").top(), Some(&b"onion"[..]));
        assert_eq!(DomainName::root().top(), None);
        let service = name("mx.test").service(25).map(|name| name.to_string());
        assert_eq!(service.as_deref(), Ok("_25._tcp.mx.test"));
        let long = name(&"a.".repeat(125)).service(65535);
        assert_eq!(long, Err(NotAName));
        assert_eq!(name("a_b.c").in_zone_form(), "a_b.c.");
        assert_eq!(DomainName::root().in_zone_form(), ".");
    }

    #[test]
    fn a_label_with_a_dot_is_one_label() {
        let name = DomainName::from_wire(b"\x03A.b\x04test\0").expect("a name");
        assert_eq!(name.to_string(), "a\\.b.test");
        assert_eq!(name.labels().count(), 2);
        let root = DomainName::from_wire(b"\0").expect("the root");
        assert!(root.is_root() && root.to_string().is_empty());
        for wire in [
            &b""[..],
            b"\x01a",
            b"\x01a\0\0",
            b"\x05a\0",
            b"\xc0\x0c",
            b"\0a",
        ] {
            assert_eq!(DomainName::from_wire(wire), None, "{wire:?}");
        }
    }
}
