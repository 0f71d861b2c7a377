//! One line of tlsdestinations: where its key ends, and its value's fields.
#![forbid(unsafe_code)]

use std::fmt;

use super::key::{self, RuleKey};

/// What can be wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A record of the compiled form cannot be read.
    Damaged,
    /// The depth is no number from 0 to 100.
    Depth,
    /// The key is empty.
    EmptyKey,
    /// `dane` under a key that requires no TLS.
    Dane,
    /// More than five fields.
    Fields,
    /// A fingerprint is not hexadecimal or has no known length.
    Fingerprint,
    /// The key is none of the forms, for this reason.
    Key(&'static str),
    /// One of the names is none.
    Names,
    /// Names under a key that asks for none.
    NamesForNothing,
    /// No colon ends the key.
    NoColon,
    /// `%` without a fingerprint.
    NoFingerprint,
    /// Bytes that are no UTF-8.
    NotText,
    /// The port is none.
    Port,
    /// The sender's domain is none.
    Sender,
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Wrong::Damaged => "the file is damaged",
            Wrong::Depth => "the depth is not a number from 0 to 100",
            Wrong::EmptyKey => "the key is empty",
            Wrong::Dane => {
                "dane needs a key under which TLS is required: a host, or +* for everybody"
            }
            Wrong::Fields => "more than five fields",
            Wrong::Fingerprint => "a fingerprint is not hexadecimal or has no known length",
            Wrong::Key(why) => return write!(out, "the key is not valid: {why}"),
            Wrong::Names => "a name of the fifth field is not host, .domain or *.domain",
            Wrong::NamesForNothing => {
                "names in the fifth field need a certificate that verifies: \
                 begin the key with ~ or =, or name a CA"
            }
            Wrong::NoColon => "there is no colon after the key",
            Wrong::NoFingerprint => "% needs a fingerprint (=hex)",
            Wrong::NotText => "it is not UTF-8",
            Wrong::Port => "the port is not a number from 1 to 65535, with s before it or not",
            Wrong::Sender => "the sender's field is not a domain",
        })
    }
}

/// A line that says something. It borrows: a value may hold a password.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: usize,
    /// The key as it is written, without the blanks around it.
    pub(crate) written: &'a [u8],
    /// What is behind the colon.
    pub(crate) value: Result<&'a str, Wrong>,
}

impl Line<'_> {
    /// The key's meaning.
    pub(crate) fn key(&self) -> Result<RuleKey, Wrong> {
        let rest = self.value.unwrap_or_default();
        match key::cut_short(self.written, rest.as_bytes()) {
            Some(wrong) => Err(wrong),
            None => RuleKey::parse(self.written),
        }
    }
}

/// A line that is kept.
pub(crate) struct SourceLine {
    number: usize,
    written: Vec<u8>,
    value: Result<String, Wrong>,
}

impl SourceLine {
    pub(crate) fn of(line: Line<'_>) -> SourceLine {
        SourceLine {
            number: line.number,
            written: line.written.to_vec(),
            value: line.value.map(str::to_owned),
        }
    }

    pub(crate) fn line(&self) -> Line<'_> {
        Line {
            number: self.number,
            written: &self.written,
            value: self.value.as_deref().map_err(|wrong| *wrong),
        }
    }
}

/// The lines of a file that say something. Blanks around a line, and a byte
/// order mark before the first, do not count.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|&byte| byte == b'\n');
    lines.enumerate().filter_map(|(at, line)| {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return None;
        }
        let (key, value) = match key_end(line) {
            Some(end) => (
                &line[..end],
                std::str::from_utf8(&line[end + 1..]).map_err(|_| Wrong::NotText),
            ),
            None => (line, Err(Wrong::NoColon)),
        };
        Some(Line {
            number: at + 1,
            written: key.trim_ascii_end(),
            value,
        })
    })
}

/// The colon that ends the key; those of an IPv6 address in brackets do not.
fn key_end(line: &[u8]) -> Option<usize> {
    let open = line.iter().take(2).position(|&byte| byte == b'[');
    let from = match open {
        Some(open) => open + line[open..].iter().position(|&byte| byte == b']')?,
        None => 0,
    };
    line[from..]
        .iter()
        .position(|&byte| byte == b':')
        .map(|at| from + at)
}
