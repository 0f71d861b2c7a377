//! Bytes from a peer made safe for a log line, and numbers read with limits.
//!
//! Nothing here fails on hostile input: every function takes any bytes.
#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;

/// How much of a peer's text a status line shows, in bytes, as tcpserver's.
const STATUS_LIMIT: usize = 100;

/// Peer text for a sentence or a variable: control characters and bytes over
/// 126 as `\xHH`, all else as it is.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if (0x20..0x7f).contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
    out
}

/// [`printable`], cut at `limit` bytes of input with `...` behind the cut.
#[must_use]
pub fn excerpt(bytes: &[u8], limit: usize) -> String {
    let cut = bytes.len().min(limit);
    let mut out = printable(&bytes[..cut]);
    if cut < bytes.len() {
        out.push_str("...");
    }
    out
}

/// A name that was given, for a sentence: [`excerpt`], and `""` where it is empty.
#[must_use]
pub fn name(bytes: &[u8], limit: usize) -> String {
    match bytes {
        b"" => "\"\"".to_owned(),
        bytes => excerpt(bytes, limit),
    }
}

/// So many of something: `1 byte`, `2 bytes`.
#[must_use]
pub fn count<N: Copy + fmt::Display + From<u8> + PartialEq>(number: N, one: &str) -> String {
    format!("{number} {one}{}", form(number, "", "s"))
}

/// The form of a word that goes with so many: `is`, `are`.
#[must_use]
pub fn form<N: Copy + From<u8> + PartialEq>(
    number: N,
    one: &'static str,
    many: &'static str,
) -> &'static str {
    if number == N::from(1) { one } else { many }
}

/// Peer text for a field of a status line, as tcpserver's `safecats` makes it:
/// blanks, controls, bytes over 126, `%` and `:` become `?`; cut at 100 bytes.
#[must_use]
pub fn status_field(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(STATUS_LIMIT)];
    shown
        .iter()
        .map(|&byte| match byte {
            b'%' | b':' => '?',
            0x21..=0x7e => char::from(byte),
            _ => '?',
        })
        .collect()
}

/// A value of a `key=value` line: as it is where it is made of letters, digits
/// and `.:/@_+-*,` alone, else [`quoted`]. At most `limit` bytes stand for it.
#[must_use]
pub fn value(bytes: &[u8], limit: usize) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".:/@_+-*,".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if (1..=limit).contains(&bytes.len()) && bytes.iter().all(plain) => {
            text.to_owned()
        }
        _ => quoted(bytes, limit),
    }
}

/// Peer text in double quotes; in it quotes, backslashes and what is no printable
/// ASCII are `\xHH`, so that no reader, however simple, sees its end too early. At
/// most `limit` bytes stand for it, then `...` where there is more.
#[must_use]
pub fn quoted(bytes: &[u8], limit: usize) -> String {
    let mut out = String::from("\"");
    for &byte in bytes {
        let held = out.len() - 1;
        let plain = (0x20..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\\');
        if held + if plain { 1 } else { 4 } > limit {
            out.push_str("...");
            break;
        }
        if plain {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
    out.push('"');
    out
}

/// Lowercase hexadecimal digits, two a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The bytes of [`hex`], in either case; `None` where it is none.
#[must_use]
pub fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.chars().map(|c| c.to_digit(16));
    let digits: Vec<u32> = digits.collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
        .collect()
}

/// A decimal number within `limits`; `None` for an empty text, a sign, a blank,
/// trailing text or a number out of range.
#[must_use]
pub fn number(text: &str, limits: RangeInclusive<u64>) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| limits.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_forges_no_line() {
        assert_eq!(printable(b"a b\n\x00\xff\\"), "a b\\x0A\\x00\\xFF\\");
        assert_eq!(excerpt(b"abcdef", 3), "abc...");
        assert_eq!(excerpt(b"abc", 3), "abc");
    }

    #[test]
    fn an_empty_name_is_seen_and_one_of_a_thing_is_no_plural() {
        assert_eq!(name(b"", 3), "\"\"");
        assert_eq!(name(b"abcdef", 3), "abc...");
        for (number, text) in [(0_u64, "0 bytes"), (1, "1 byte"), (2, "2 bytes")] {
            assert_eq!(count(number, "byte"), text);
        }
        assert_eq!(
            [0_u32, 1, 2].map(|n| form(n, "is", "are")),
            ["are", "is", "are"]
        );
    }

    #[test]
    fn a_status_field_holds_no_separator() {
        assert_eq!(status_field(b"a:b%c d\x7f\n\xe9"), "a?b?c?d???");
        assert_eq!(status_field(&[b'x'; 300]).len(), 100);
    }

    #[test]
    fn a_value_shows_no_field_that_is_not_one() {
        for plain in ["mail.example.com", "256/256", "a:/@_+-*,9"] {
            assert_eq!(value(plain.as_bytes(), 255), plain);
        }
        for (bytes, shown) in [
            (&b""[..], r#""""#),
            (b"CN=a", r#""CN=a""#),
            (b"a b", r#""a b""#),
            (b"a;b", r#""a;b""#),
            (br#"a\" verify=OK z=""#, r#""a\x5C\x22 verify=OK z=\x22""#),
            (b"\xc3\xa9\n\x7f", r#""\xC3\xA9\x0A\x7F""#),
        ] {
            assert_eq!(value(bytes, 255), shown);
        }
        assert_eq!(value(b"abcd", 3), "\"abc...\"");
        assert_eq!(quoted(b"ab\"c", 5), "\"ab...\"");
        assert_eq!(quoted(b"ab\"", 6), "\"ab\\x22\"");
    }

    #[test]
    fn hexadecimal_digits_and_bytes() {
        assert_eq!(hex(b"\x00\xaf"), "00af");
        assert_eq!(bytes("00aF"), Some(vec![0, 0xaf]));
        assert_eq!(bytes(""), Some(Vec::new()));
        for bad in ["0", "0g", "+1", "0x00", "a\u{e9}b"] {
            assert_eq!(bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_take_no_sign_blank_or_tail() {
        assert_eq!(number("40", 1..=100), Some(40));
        for bad in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1x",
            "0x1",
            "101",
            "0",
            "99999999999999999999",
        ] {
            assert_eq!(number(bad, 1..=100), None, "{bad:?}");
        }
    }
}
