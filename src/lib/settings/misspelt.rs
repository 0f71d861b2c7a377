//! Names that are no setting's, but look as if one was meant.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

use super::{NAMES, is_setting};
use crate::text;

/// Names that look so and are another's: OpenSSL's own, and those of init scripts.
const OTHERS: [&str; 4] = ["PIDFILE", "PID_FILE", "SSL_CERT_DIR", "SSL_CERT_FILE"];

/// A variable that is no setting, but looks as if one was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    shown: String,
    blank: bool,
    meant: &'static str,
}

impl Misspelt {
    /// Judges a variable's name.
    #[must_use]
    pub fn find(name: &[u8]) -> Option<Misspelt> {
        Misspelt::find_among(NAMES, name)
    }

    /// The same for a program that has these variables only.
    fn find_among(settings: &[&'static str], name: &[u8]) -> Option<Misspelt> {
        let text = std::str::from_utf8(name).ok()?;
        let known = is_setting(text) || settings.contains(&text);
        if known || OTHERS.contains(&text) {
            return None;
        }
        let blank = text.trim() != text;
        let bare = normalized(text);
        let first = |fits: &dyn Fn(&str) -> bool| settings.iter().find(|setting| fits(setting));
        let meant = first(&|setting| blank && setting == text.trim())
            .or_else(|| first(&|setting| normalized(setting) == bare))
            .or_else(|| first(&|setting| differs_in_prefix(&bare, setting)))
            .or_else(|| first(&|setting| is_one_slip(&bare, &normalized(setting))))?;
        Some(Misspelt {
            shown: text::excerpt(name, 60),
            blank,
            meant,
        })
    }
}

/// Names that come again and again, as those of many rules do: each is judged once.
#[derive(Default)]
pub struct Judged<'a>(HashMap<&'a [u8], Option<Misspelt>>);

impl<'a> Judged<'a> {
    /// As [`Misspelt::find`].
    pub fn find(&mut self, name: &'a [u8]) -> Option<&Misspelt> {
        let judged = self.0.entry(name);
        judged.or_insert_with(|| Misspelt::find(name)).as_ref()
    }
}

/// `"CERT_FILE" is no setting: is CERTFILE meant?`
impl fmt::Display for Misspelt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Misspelt {
            shown,
            blank,
            meant,
        } = self;
        let cure = if *blank { ", without a blank" } else { "" };
        write!(out, "\"{shown}\" is not a setting: is {meant} meant{cure}?")
    }
}

/// What in our environment looks like one of these settings and is none: for each
/// variable that is not empty a sentence.
#[must_use]
pub fn misspelt_in_environment(settings: &[&'static str]) -> Vec<String> {
    std::env::vars_os()
        .filter(|(_, value)| !value.is_empty())
        // A session's own variable: we were started by a TLS server.
        .filter(|(name, _)| name != "SSL_ALPN")
        .filter_map(|(name, _)| Misspelt::find_among(settings, name.as_bytes()))
        .map(|misspelt| format!("environment: variable {misspelt}"))
        .collect()
}

/// A name in capitals, without what is easily added or left out.
fn normalized(name: &str) -> String {
    name.chars()
        .filter(|letter| !matches!(letter, '_' | '-' | ' ' | '\t'))
        .map(|letter| letter.to_ascii_uppercase())
        .collect()
}

/// `TLSUID` for `SSL_UID`, `SSLCIPHERS` for `CIPHERS`. Without a prefix of its
/// own a name is another's: `USER`, `UID`.
fn differs_in_prefix(bare: &str, setting: &str) -> bool {
    let strip = |name: &str| -> Option<String> {
        let rest = name.strip_prefix("SSL").or(name.strip_prefix("TLS"))?;
        Some(rest.to_owned())
    };
    let setting = normalized(setting);
    strip(bare)
        .is_some_and(|rest| rest == setting || strip(&setting).is_some_and(|own| own == rest))
}

/// Whether one letter was added, left out or changed, or two were exchanged, in
/// a name that is long enough for that to be a slip.
fn is_one_slip(one: &str, other: &str) -> bool {
    /// Letters below which names differ in one by chance.
    const LONG_ENOUGH: usize = 6;
    if other.len() < LONG_ENOUGH || one.len().abs_diff(other.len()) > 1 {
        return false;
    }
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let head = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[head..], &other[head..]);
    let tail = |from: usize, to: usize| one.get(from..) == other.get(to..);
    tail(1, 0)
        || tail(0, 1)
        || tail(1, 1)
        || matches!((one, other), ([a, b, ..], [c, d, ..]) if a == d && b == c) && tail(2, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_very_many_rules_is_judged_once() {
        let mut judged = Judged::default();
        for _ in 0..1_000_000 {
            assert_eq!(judged.find(b"RELAYCLIENT"), None);
            assert!(judged.find(b"CERT_FILE").is_some());
        }
    }

    #[test]
    fn misspelt_names_are_told_from_those_of_others() {
        let meant = |name: &str| Misspelt::find(name.as_bytes()).map(|found| found.meant);
        for (name, setting) in [
            ("CERT_FILE", "CERTFILE"),
            ("certfile", "CERTFILE"),
            (" CERTFILE", "CERTFILE"),
            ("CERTFILE\t", "CERTFILE"),
            ("CERT_FILE_ALT", "CERTFILE_ALT"),
            ("CERT_CHAIN_FILE", "CERTCHAINFILE"),
            ("TLSMIN", "TLS_MIN"),
            ("SSL_MIN", "TLS_MIN"),
            ("CA_FILE", "CAFILE"),
            ("CAFILES", "CAFILE"),
            ("KEYFLIE", "KEYFILE"),
            ("KEYFIL", "KEYFILE"),
            ("CIPHER", "CIPHERS"),
            ("SSL_CIPHERS", "CIPHERS"),
            ("TLS_UID", "SSL_UID"),
            ("TLS_GROUP", "SSL_GROUP"),
            ("SIGALG", "SIGALGS"),
            ("CCVERIFY", "CCAVERIFY"),
            ("TICKET", "TICKETS"),
        ] {
            assert_eq!(meant(name), Some(setting), "{name}");
        }
        for name in [
            "CERTFILE",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "RELAYCLIENT",
            "USER",
            "UID",
            "GID",
            "GROUPS",
            "SHELL",
            "PATH",
            "SSL_CIPHER",
            "SSL_PROTOCOL",
            "SSLREMOTEIP",
            "PROFILE",
            "LOGFILE",
            "PIDFILE",
            "PID_FILE",
            "",
            "\u{e9}",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
        let told = Misspelt::find(b" CERTFILE").expect("misspelt").to_string();
        assert_eq!(
            told,
            "\" CERTFILE\" is not a setting: is CERTFILE meant, without a blank?"
        );
    }
}
