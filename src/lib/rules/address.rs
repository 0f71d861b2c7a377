//! The addresses of rules: from their text to the key of a record, and back.
//!
//! Keys are those of ucspi-tcp and ucspi-tcp6. New here are `local=` and `sni=`:
//! their key is their text in one canonical form. No look-up for a client forms
//! such a key: it holds no `@`, as keys with an ident answer do, and begins with
//! neither `=`, a digit nor a bit string's mark. Nor does a look-up for a local
//! address or a server name form a key with an `@`.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::text;

/// What stands for a 1 bit at each position of an IPv4 network.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz123456";

/// Begins the key of a local address.
pub(super) const LOCAL: &[u8] = b"local=";
/// Begins the key of a server name.
pub(super) const SERVER_NAME: &[u8] = b"sni=";

/// The longest server name in bytes (RFC 1035, section 2.3.4, without the dot
/// of the root).
const NAME_LIMIT: usize = 253;
/// The longest label in bytes.
const LABEL_LIMIT: usize = 63;

/// Which connections an address speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of some clients.
    Client,
    /// Those that came in on a local address.
    Local,
    /// Those that ask for a server name.
    ServerName,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Address,
    /// A server name that is not as DNS has it.
    Unicode,
    Prefix,
}

/// The scope of a key. One with an `@` is always a client's: ident answers and
/// names are the client's own choice, and may well begin with `local=`.
pub(super) fn scope(key: &[u8]) -> Scope {
    if key.contains(&b'@') {
        Scope::Client
    } else if key.starts_with(LOCAL) {
        Scope::Local
    } else if key.starts_with(SERVER_NAME) {
        Scope::ServerName
    } else {
        Scope::Client
    }
}

/// The key of an address without a range. What is no address of this page is
/// taken as it stands, as tcprules does.
pub(super) fn key(address: &[u8]) -> Result<Vec<u8>, Wrong> {
    if let Some(at) = address.iter().rposition(|&byte| byte == b'@') {
        let (info, ip) = address.split_at(at + 1);
        if ip.contains(&b':') && !ip.starts_with(b"=") {
            return Ok([info, &single(parse(ip).ok_or(Wrong::Address)?)].concat());
        }
        return Ok(address.to_vec());
    }
    if let Some(ip) = address.strip_prefix(LOCAL) {
        return Ok(local_key(parse(ip).ok_or(Wrong::Address)?));
    }
    if let Some(name) = address.strip_prefix(SERVER_NAME) {
        let (star, rest) = match name.strip_prefix(b"*.") {
            Some(rest) => (&b"*."[..], rest),
            None => (&b""[..], name),
        };
        let wrong = if rest.is_ascii() {
            Wrong::Address
        } else {
            Wrong::Unicode
        };
        let name = server_name(rest).ok_or(wrong)?;
        return Ok([SERVER_NAME, star, &name].concat());
    }
    // A name holds no colon, and tcprules would have cut the address there.
    if address.contains(&b'=') && !address.contains(&b':') {
        return Ok(address.to_vec());
    }
    if let Some(slash) = address.iter().position(|&byte| byte == b'/') {
        return network(&address[..slash], &address[slash + 1..]);
    }
    if address.contains(&b':') {
        return Ok(single(parse(address).ok_or(Wrong::Address)?));
    }
    Ok(address.to_vec())
}

/// An IP address; an IPv4-mapped one as IPv4.
pub(super) fn parse(ip: &[u8]) -> Option<IpAddr> {
    let ip: IpAddr = std::str::from_utf8(ip).ok()?.parse().ok()?;
    Some(ip.to_canonical())
}

/// The key of one address: dotted decimal, or eight groups of four lowercase
/// digits.
pub(super) fn single(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string().into_bytes(),
        IpAddr::V6(ip) => ip
            .segments()
            .map(|group| format!("{group:04x}"))
            .join(":")
            .into_bytes(),
    }
}

/// The key of a local address.
pub(super) fn local_key(ip: IpAddr) -> Vec<u8> {
    [LOCAL, &single(ip)].concat()
}

/// A server name in lower case without the root's dot; `None` if it is no host
/// name. So it can hold neither `*`, `@`, `/` nor a NUL.
pub(super) fn server_name(name: &[u8]) -> Option<Vec<u8>> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let legal = |label: &[u8]| {
        (1..=LABEL_LIMIT).contains(&label.len())
            && label
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (name.len() <= NAME_LIMIT && name.split(|&byte| byte == b'.').all(legal))
        .then(|| name.to_ascii_lowercase())
}

/// The bits of an address as the key of the network of that one address.
/// Cut to 1 + n bytes it is the key of the network of n bits.
pub(super) fn bits(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => {
            let bits = u32::from(ip);
            let letter = |(at, &letter): (usize, &u8)| match bits << at >> 31 {
                0 => b'0',
                _ => letter,
            };
            std::iter::once(b'_')
                .chain(LETTERS.iter().enumerate().map(letter))
                .collect()
        }
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            let mut one = b'`';
            let mut key = vec![b'^'];
            for at in 0..128 {
                if bits << at >> 127 == 0 {
                    key.push(b'0');
                } else {
                    key.push(one);
                    // 96 + 127 at most: it does not wrap.
                    one = one.wrapping_add(1);
                }
            }
            key
        }
    }
}

/// The key of a network. Bits behind the prefix are of no account.
fn network(ip: &[u8], prefix: &[u8]) -> Result<Vec<u8>, Wrong> {
    let ip: IpAddr = if ip.ends_with(b".") {
        // ucspi-tcp6 knows `127./8`.
        let given = ip.split(|&byte| byte == b'.').count() - 1;
        let rest = ["0.0.0", "0.0", "0"].get(given - 1).ok_or(Wrong::Address)?;
        parse(&[ip, rest.as_bytes()].concat()).ok_or(Wrong::Address)?
    } else {
        let text = std::str::from_utf8(ip).map_err(|_| Wrong::Address)?;
        text.parse().map_err(|_| Wrong::Address)?
    };
    let digits = std::str::from_utf8(prefix).map_err(|_| Wrong::Address)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Address);
    }
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix: usize = digits
        .parse()
        .ok()
        .filter(|&prefix| prefix <= most)
        .ok_or(Wrong::Prefix)?;
    // Mapped clients are looked up as IPv4, so their networks are IPv4's. No prefix
    // of an IPv4 address is as long.
    let (ip, prefix) = match (ip.to_canonical(), prefix.checked_sub(96)) {
        (mapped @ IpAddr::V4(_), Some(prefix)) => (mapped, prefix),
        _ => (ip, prefix),
    };
    let mut key = bits(ip);
    key.truncate(1 + prefix);
    Ok(key)
}

/// The network of a key that [`bits`] could have made.
fn decode(key: &[u8]) -> Option<(IpAddr, usize)> {
    let (mark, found) = key.split_first()?;
    let mut ones = [0_u8; 16];
    for (at, &byte) in found.iter().enumerate() {
        if byte != b'0' {
            *ones.get_mut(at / 8)? |= 0x80 >> (at % 8);
        }
    }
    let ip = match mark {
        b'_' => {
            let [a, b, c, d, ..] = ones;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        b'^' => IpAddr::V6(Ipv6Addr::from(ones)),
        _ => return None,
    };
    bits(ip).starts_with(key).then_some((ip, found.len()))
}

/// The address of a key as a rule text has it; printable.
pub(super) fn describe(key: &[u8]) -> String {
    match decode(key) {
        Some((ip, prefix)) => format!("{ip}/{prefix}"),
        None => text::printable(key),
    }
}

/// Why nobody meets a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unmet {
    /// No client's address, nor its beginning.
    Address,
    /// A name that is not in lower case.
    Capitals,
    /// `local=` or `sni=` that is not in lower case.
    CapitalHeading,
    /// A name with a dot at its end.
    Dot,
    /// A name that is not as DNS has it.
    Unicode,
    /// A name with a star.
    Star,
    /// A blank before the address.
    Indented,
    /// A byte order mark before the address.
    Mark,
    /// An IP address in the place of a server name: RFC 6066 section 3.
    ServerAddress,
}

/// The reason in parentheses, behind a blank; nothing where there is none to name.
impl fmt::Display for Unmet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Unmet::Address => "",
            Unmet::Capitals => " (names are looked up in small letters)",
            Unmet::CapitalHeading => " (local= and sni= are written in small letters)",
            Unmet::Dot => " (names are looked up without a dot at the end)",
            Unmet::Unicode => " (names in DNS are ASCII: write it as xn--...)",
            Unmet::Star => {
                " (* stands for nothing here: all names below example.com are =.example.com)"
            }
            Unmet::Indented => " (a blank before it)",
            Unmet::Mark => " (a byte order mark before it: save the text without one)",
            Unmet::ServerAddress => " (an IP address is never sent as server name)",
        })
    }
}

/// Why a key can't be met at all, if so.
pub(super) fn unmet(key: &[u8]) -> Option<Unmet> {
    if let (Scope::ServerName, Some(name)) = (scope(key), key.strip_prefix(SERVER_NAME)) {
        return parse(name).map(|_| Unmet::ServerAddress);
    }
    if is_reachable(key) {
        return None;
    }
    Some(match key {
        [0xef, 0xbb, 0xbf, ..] => Unmet::Mark,
        [b' ' | b'\t', ..] => Unmet::Indented,
        _ if has_heading(&key.to_ascii_lowercase()) => Unmet::CapitalHeading,
        _ => host(key).and_then(unmet_name).unwrap_or(Unmet::Address),
    })
}

/// The name in the key of a host: behind `=`, or behind an ident answer, which may hold
/// anything.
fn host(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(b"=").or_else(|| {
        let at = key.windows(2).position(|pair| pair == b"@=")?;
        key.get(at + 2..)
    })
}

/// Why no host has a name, if so: names are looked up in lower case and without the
/// root's dot, and none has a star or, as DNS tells it, a letter of another script.
fn unmet_name(name: &[u8]) -> Option<Unmet> {
    if name.contains(&b'*') {
        Some(Unmet::Star)
    } else if name.ends_with(b".") {
        Some(Unmet::Dot)
    } else if !name.is_ascii() {
        Some(Unmet::Unicode)
    } else if name.iter().any(u8::is_ascii_uppercase) {
        Some(Unmet::Capitals)
    } else {
        None
    }
}

fn has_heading(key: &[u8]) -> bool {
    !key.contains(&b'@') && (key.starts_with(LOCAL) || key.starts_with(SERVER_NAME))
}

fn is_reachable(key: &[u8]) -> bool {
    if key.is_empty() || scope(key) != Scope::Client || decode(key).is_some() {
        return true;
    }
    let name = |name: &[u8]| unmet_name(name).is_none();
    if key.strip_prefix(b"=").is_some_and(name) {
        return true;
    }
    // ucspi-tcp6 writes the digits of an IPv6 address in upper case.
    let one = |ip: &[u8]| {
        let single = parse(ip).map(single);
        single.is_some_and(|single| single == ip || single.to_ascii_uppercase() == ip)
    };
    let mut ats = key.iter().enumerate().filter(|(_, byte)| **byte == b'@');
    if ats.any(|(at, _)| match &key[at + 1..] {
        [b'=', host @ ..] => name(host),
        ip => one(ip),
    }) {
        return true;
    }
    let class = |prefix: &[u8]| {
        let labels = prefix.split(|&byte| byte == b'.').count();
        labels <= 4 && one(&[prefix, &b"0.0.0.0"[2 * (labels - 1)..]].concat())
    };
    one(key) || (key.ends_with(b".") && class(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(address: &str) -> String {
        String::from_utf8_lossy(&key(address.as_bytes()).expect(address)).into_owned()
    }

    #[test]
    fn networks_have_the_keys_of_ucspi_tcp6() {
        for (address, expected) in [
            ("10.0.0.0/8", "_0000e0g0"),
            ("10.255.1.2/8", "_0000e0g0"),
            ("127./8", "_0bcdefgh"),
            ("192.168./16", "_ab000000i0k0m000"),
            ("0.0.0.0/0", "_"),
            ("255.255.255.255/32", "_abcdefghijklmnopqrstuvwxyz123456"),
            ("::/0", "^"),
            // 2001 = 0010000000000001, db8 = 0000110110111000.
            ("2001:db8::/32", "^00`000000000000a0000bc0de0fgh000"),
            ("::ffff:10.0.0.0/104", "_0000e0g0"),
            ("::ffff:0:0/96", "_"),
        ] {
            assert_eq!(text(address), expected, "{address}");
        }
        // Longer than the mapped addresses' own network: it stays IPv6.
        assert_eq!(text("::ffff:0:0/95").len(), 1 + 95);
        let ones = key(b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128").expect("parses");
        assert_eq!(ones[0], b'^');
        assert!(ones[1..].iter().copied().eq(96..=223));
    }

    #[test]
    fn single_addresses_have_one_key_however_written() {
        let full = "2001:0db8:0000:0000:0000:0000:0000:0001";
        for same in ["2001:db8::1", "2001:DB8:0::0:1", full] {
            assert_eq!(text(same), full);
            assert_eq!(text(&format!("joe@{same}")), format!("joe@{full}"));
            assert_eq!(text(&format!("local={same}")), format!("local={full}"));
        }
        assert_eq!(text("::ffff:1.2.3.4"), "1.2.3.4");
        assert_eq!(text("a@b@::ffff:1.2.3.4"), "a@b@1.2.3.4");
        assert_eq!(text("local=::ffff:1.2.3.4"), "local=1.2.3.4");
    }

    #[test]
    fn server_names_are_lowercase_without_the_roots_dot() {
        assert_eq!(text("sni=Mail.Example.COM."), "sni=mail.example.com");
        assert_eq!(text("sni=*.Example.com"), "sni=*.example.com");
        for bad in [
            "sni=",
            "sni=.",
            "sni=*",
            "sni=a..b",
            "sni=a*.b",
            "sni=*.*.b",
            "sni=a/b",
            "sni=../a",
            "sni=*.",
            "sni=a:b",
        ] {
            assert_eq!(key(bad.as_bytes()), Err(Wrong::Address), "{bad}");
        }
        assert_eq!(
            key(format!("sni={}.a", "x".repeat(64)).as_bytes()),
            Err(Wrong::Address)
        );
        for unicode in ["sni=\u{e4}.de", "sni=*.\u{e4}.de"] {
            assert_eq!(key(unicode.as_bytes()), Err(Wrong::Unicode), "{unicode}");
        }
    }

    #[test]
    fn what_holds_an_at_sign_is_never_a_store_rule() {
        for client in ["local=x@1.2.3.4", "sni=a@=host", "local=@1.2.3.4"] {
            assert_eq!(text(client), client);
            assert_eq!(scope(client.as_bytes()), Scope::Client);
        }
    }

    #[test]
    fn bad_addresses_and_prefixes_are_told_apart() {
        for bad in [
            "10.0.0.0/",
            "10.0.0/8",
            "10/8",
            "a/8",
            "10.0.0.0/x",
            "10.0.0.0/+8",
            "1.2.3.256/8",
            "1.2.3.4./8",
            "010.0.0.0/8",
            "/8",
            "2001:db8::/3x",
            "1:2",
            "::1%lo",
            "[::1]",
            "::g",
            "1:2:3:4:5:6:7:8:9",
            "joe@1:2",
            "local=",
            "local=host",
            "local=1.2.3.0/24",
            "local=1.2.",
            "=a:b",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(key(bad.as_bytes()), Err(Wrong::Address), "{bad}");
        }
        for long in [
            "10.0.0.0/33",
            "::/129",
            "::/99999999999999999999",
            "::ffff:0:0/200",
        ] {
            assert_eq!(key(long.as_bytes()), Err(Wrong::Prefix), "{long}");
        }
    }

    #[test]
    fn keys_are_described_as_a_rule_has_them() {
        for address in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::/0",
            "1.2.",
            "=a",
            "",
            "sni=a",
        ] {
            assert_eq!(describe(&key(address.as_bytes()).expect(address)), address);
        }
        assert_eq!(describe(b"_0b0"), "64.0.0.0/3");
        // The second letter of the alphabet cannot stand first.
        assert_eq!(describe(b"_b"), "_b");
        assert_eq!(describe(b"a\n"), "a\\x0A");
        assert_eq!(describe(&[b'_'; 40]), "_".repeat(40));
    }

    #[test]
    fn unreachable_keys_are_seen() {
        for good in [
            "",
            "=",
            "=a.b",
            "=.a",
            "1.2.3.4",
            "1.",
            "1.2.",
            "1.2.3.",
            "192.168.",
            "joe@1.2.3.4",
            "j@k@1.2.3.4",
            "joe@=a",
            "joe@=x@y",
            "10.0.0.0/8",
            "::1",
            "sni=a",
            "local=::1",
            "@1.2.3.4",
            "Joe@::1",
            "=X@1.2.3.4",
            "LOCAL=x@1.2.3.4",
            "2001:db8::a",
            "joe@2001:db8::a",
        ] {
            assert!(is_reachable(&key(good.as_bytes()).expect(good)), "{good}");
        }
        for bad in [
            "foo",
            "1.2.3",
            "1.2.3.4.",
            "256.",
            "1..",
            ".",
            " 1.2.3.4",
            "=A",
            "=*.a",
            "joe@=*.a",
            "joe@=A",
            "joe@1.2.3.0/24",
            "joe@1.2.",
            "a=b",
            "1.2.3.256",
            "01.2.3.4",
        ] {
            assert!(!is_reachable(&key(bad.as_bytes()).expect(bad)), "{bad}");
        }
    }

    #[test]
    fn the_digits_of_a_key_are_small_or_capital_but_not_both() {
        for (key, met) in [
            ("2001:0DB8:0000:0000:0000:0000:0000:000A", true),
            ("joe@2001:0DB8:0000:0000:0000:0000:0000:000A", true),
            ("2001:0db8:0000:0000:0000:0000:0000:000A", false),
            ("2001:db8::a", false),
        ] {
            assert_eq!(is_reachable(key.as_bytes()), met, "{key}");
        }
    }

    #[test]
    fn why_nobody_meets_a_key_is_told() {
        for (key, why) in [
            ("", None),
            ("=a", None),
            ("local=::1", None),
            ("sni=a", None),
            ("sni=1.2.3.4", Some(Unmet::ServerAddress)),
            ("\u{feff}=a", Some(Unmet::Mark)),
            (" =a", Some(Unmet::Indented)),
            ("\t1.2.3.4", Some(Unmet::Indented)),
            ("Local=1.2.3.4", Some(Unmet::CapitalHeading)),
            ("SNI=*.a", Some(Unmet::CapitalHeading)),
            ("=*.A", Some(Unmet::Star)),
            ("joe@=A.", Some(Unmet::Dot)),
            ("=\u{e4}.A", Some(Unmet::Unicode)),
            ("joe@=A", Some(Unmet::Capitals)),
            ("x.*@=A", Some(Unmet::Capitals)),
            // Only of names is it told what is wrong with them, and an ident answer is none.
            ("LOCAL=x@1.2.3", Some(Unmet::Address)),
            ("x=y@1.2.", Some(Unmet::Address)),
            ("\u{e4}=*@1.2.3.4.", Some(Unmet::Address)),
            ("A=b", Some(Unmet::Address)),
            ("A*.", Some(Unmet::Address)),
            ("\u{e4}", Some(Unmet::Address)),
            ("a=b", Some(Unmet::Address)),
        ] {
            assert_eq!(unmet(key.as_bytes()), why, "{key}");
        }
    }
}
