//! domaincerts: which certificate of ours a sender's mail is sent with.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;

use crate::report::Fail;
use crate::secret::Secret;
use crate::text;
use crate::tlsdestinations::key;
use crate::tlsdestinations::line::{self, Line, Wrong};
use crate::tlsdestinations::read_optional;

/// A line of domaincerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The line's number.
    pub line: usize,
    /// PEM file: certificate, then its intermediates.
    pub certificate: String,
    /// PEM file: key; that of the certificate where the field is empty.
    pub key: String,
    /// The key's password.
    pub password: Option<Secret>,
}

/// The line of a file, as [`look_up`]; no file is an empty one.
///
/// # Errors
/// The file cannot be read, or the line that decides is wrong.
pub fn read(path: &Path, sender: Option<&str>) -> Result<Option<OwnCertificate>, Fail> {
    let text = Secret::new(read_optional(path)?);
    look_up(&text, sender)
}

/// The line for a sender's domain: its own, then those of the domains above it
/// from long to short (`.example.com`), then `*`.
///
/// # Errors
/// The line that decides is wrong, or has no certificate; or none does that stands
/// before the first line whose key is none, which may be the one that was meant to.
pub fn look_up(text: &[u8], sender: Option<&str>) -> Result<Option<OwnCertificate>, Fail> {
    let mut keys = Vec::new();
    if let Some(domain) = sender {
        keys.push(domain.to_ascii_lowercase());
        let dots = domain.match_indices('.').filter(|(at, _)| *at > 0);
        keys.extend(dots.map(|(at, _)| domain[at..].to_ascii_lowercase()));
    }
    keys.push(EVERYBODY.to_owned());
    let mut found = None;
    let mut keyless = None;
    for line in line::lines(text) {
        match domain_of(line.written) {
            Ok(domain) => {
                let rank = keys.iter().position(|key| *key == domain);
                let better = rank.filter(|rank| found.is_none_or(|(best, _)| *rank < best));
                found = better.map(|rank| (rank, line)).or(found);
            }
            Err(why) => keyless = keyless.or(Some((line, why))),
        }
    }
    let found = found.map(|(_, line)| line);
    let wrong = |line: &Line<'_>, why: &dyn fmt::Display| Fail::temporary(at(line, why));
    if let Some((line, why)) = keyless {
        if found.is_none_or(|found| found.number > line.number) {
            return Err(wrong(&line, &why));
        }
    }
    let Some(line) = found else {
        return Ok(None);
    };
    let value = line.value.map_err(|why| wrong(&line, &why))?;
    let mut fields = value.splitn(3, '|');
    let certificate = fields.next().unwrap_or_default().trim();
    let key = fields.next().unwrap_or_default().trim();
    let password = fields.next().filter(|password| !password.is_empty());
    if certificate.is_empty() {
        return Err(wrong(&line, &NO_CERTIFICATE));
    }
    Ok(Some(OwnCertificate {
        line: line.number,
        certificate: certificate.to_owned(),
        key: if key.is_empty() { certificate } else { key }.to_owned(),
        password: password.map(|password| Secret::new(password.into())),
    }))
}

const NO_CERTIFICATE: &str = "no certificate";

/// What is wrong with a line.
fn at(line: &Line<'_>, why: &dyn fmt::Display) -> String {
    let key = text::excerpt(line.written, 200);
    format!("domaincerts line {} \"{key}\": {why}", line.number)
}

/// Every line that is wrong, whosever it is.
#[must_use]
pub fn wrong_lines(text: &[u8]) -> Vec<String> {
    let wrong = |line: Line<'_>| {
        let value = domain_of(line.written).and(line.value);
        match value {
            Err(why) => Some(at(&line, &why)),
            Ok(value) => {
                let certificate = value.split('|').next().unwrap_or_default().trim();
                certificate.is_empty().then(|| at(&line, &NO_CERTIFICATE))
            }
        }
    };
    line::lines(text).filter_map(wrong).collect()
}

/// The key of everybody's line.
const EVERYBODY: &str = "*";

/// A key as senders' domains are spelt: `a.example`, `.example`, `*`.
fn domain_of(written: &[u8]) -> Result<String, Wrong> {
    let key = std::str::from_utf8(written).map_err(|_| Wrong::NotText)?;
    match key.strip_prefix('.') {
        _ if key.is_empty() => Err(Wrong::EmptyKey),
        _ if key == EVERYBODY => Ok(key.to_owned()),
        Some(above) => Ok(format!(".{}", key::host_name(above)?)),
        None => key::host_name(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_suffix_of_a_sender_s_domain_wins() {
        let text =
            b"*:all.pem\n.example:e.pem|e.key|se|cret\nA.example:a.pem\n.b.example:\nc.example\n";
        let find = |sender| look_up(text, sender);
        let some = |sender| find(Some(sender)).expect("sound").expect("a line");
        assert_eq!(some("a.example").certificate, "a.pem");
        assert_eq!(some("a.example").key, "a.pem");
        assert_eq!(some("x.a.example").certificate, "e.pem");
        assert_eq!(some("x.a.example").key, "e.key");
        assert_eq!(
            some("x.a.example").password.as_deref(),
            Some(&b"se|cret"[..])
        );
        assert_eq!(some("other.test").certificate, "all.pem");
        assert_eq!(find(None).expect("sound").expect("all").line, 1);
        assert!(
            find(Some("x.b.example"))
                .expect_err("empty")
                .to_string()
                .contains("line 4")
        );
        assert!(
            find(Some("c.example"))
                .expect_err("no colon")
                .to_string()
                .contains("no colon")
        );
        let text = b"\xef\xbb\xbf A.example. :a.pem\n@b.example:b.pem\n*:all.pem\n";
        let cleaned = look_up(text, Some("a.example"));
        assert_eq!(
            cleaned.expect("sound").expect("a line").certificate,
            "a.pem"
        );
        for sender in [Some("b.example"), None] {
            let fail = look_up(text, sender).expect_err("no key").to_string();
            assert!(
                fail.starts_with("domaincerts line 2 \"@b.example\": "),
                "{fail}"
            );
        }
        let behind = look_up(b"*:all.pem\n@b.example:b.pem\n", None);
        assert_eq!(behind.expect("sound").expect("before it").line, 1);
        let own = look_up(b"*:all.pem\n@b:b.pem\na.test:a.pem\n", Some("a.test"));
        let fail = own.expect_err("behind it").to_string();
        assert!(fail.starts_with("domaincerts line 2 \"@b\": "), "{fail}");
        assert_eq!(look_up(b"a.example:x\n", None), Ok(None));
        assert!(!format!("{:?}", some("x.a.example")).contains("cret"));
    }
}
