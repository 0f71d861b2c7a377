//! Bytes from a peer made safe for a log line, and numbers read with limits.
//!
//! Nothing here fails on hostile input: every function takes any bytes.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
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

/// Text as a value of a `key=value` line: quoted if it holds a blank or a
/// quote, quotes and backslashes inside escaped.
#[must_use]
pub fn value(text: &str) -> String {
    if !text.is_empty() && !text.contains([' ', '"']) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('"', "\\\""))
}

/// Lowercase hexadecimal digits, two a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
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
    fn a_status_field_holds_no_separator() {
        assert_eq!(status_field(b"a:b%c d\x7f\n\xe9"), "a?b?c?d???");
        assert_eq!(status_field(&[b'x'; 300]).len(), 100);
    }

    #[test]
    fn a_value_with_a_blank_is_quoted() {
        assert_eq!(value("CN=a"), "CN=a");
        assert_eq!(value("CN=a b\""), "\"CN=a b\\\"\"");
        assert_eq!(value(""), "\"\"");
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
