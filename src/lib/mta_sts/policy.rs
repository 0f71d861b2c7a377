//! The text of a policy (RFC 8461, 3.2), and which hosts its patterns match (4.1).
#![forbid(unsafe_code)]

use std::fmt;

use crate::report::Fail;

/// RFC 8461, 3.2: about a year. What is longer counts as this.
pub const MAX_AGE_LIMIT: u64 = 31_557_600;
/// The most digits of a number, and the longest name of a field.
const DIGITS: usize = 10;
const NAME_LIMIT: usize = 32;

/// What is to be done with a host that does not do what the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It gets no mail.
    Enforce,
    /// It is reported.
    Testing,
    /// The domain has no policy any more.
    None,
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        })
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is to be done.
    pub mode: Mode,
    /// For how many seconds from its fetching it counts.
    pub max_age: u64,
    /// The hosts that may get the mail, as they are written.
    pub patterns: Vec<String>,
    /// The whole text by its lines: printable ASCII, or UTF-8 without controls.
    pub lines: Vec<String>,
}

impl Policy {
    /// Reads a policy. Fields that are not known are passed by; of one that stands
    /// there twice, but for `mx`, the first counts.
    ///
    /// # Errors
    /// It is none: printable words that end a sentence.
    pub fn parse(text: &[u8]) -> Result<Policy, Fail> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not in UTF-8")?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let (mut patterns, mut lines) = (Vec::new(), Vec::new());
        for (number, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let line = line.trim_end_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let (name, value) =
                field(line).ok_or_else(|| format!("its line {} is malformed", number + 1))?;
            match name {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" => patterns.push(value.to_owned()),
                _ => {}
            }
            lines.push(line.to_owned());
        }
        match version {
            Some("STSv1") => {}
            Some(_) => return Err("its version is not STSv1".into()),
            None => return Err("it has no version".into()),
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            Some(_) => return Err("its mode is not enforce, testing or none".into()),
            None => return Err("it has no mode".into()),
        };
        let max_age = seconds(max_age.ok_or("it has no max_age")?)
            .ok_or("its max_age is not a number of seconds")?;
        if patterns.is_empty() && mode != Mode::None {
            return Err("it has no mx".into());
        }
        Ok(Policy {
            mode,
            max_age,
            patterns,
            lines,
        })
    }

    /// Whether a host may get the mail: its name as DNS has it, in ASCII.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, host))
    }
}

/// A field's name and value, without blanks around the value.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let good_name = name.len() <= NAME_LIMIT
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(known);
    let value = value.trim_matches([' ', '\t']);
    let good_value = !value.chars().any(char::is_control);
    (good_name && good_value).then_some((name, value))
}

/// 1 to 10 digits.
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = text
        .parse()
        .ok()
        .filter(|_| digits && text.len() <= DIGITS)?;
    Some(number.min(MAX_AGE_LIMIT))
}

/// RFC 8461, 4.1: the host itself, or for `*.domain` a host that is one label below
/// the domain. What is no such pattern matches nothing.
fn matches(pattern: &str, host: &str) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (pattern, host) = (bare(pattern), bare(host));
    match pattern.strip_prefix("*.") {
        Some(domain) => {
            let below = host.split_once('.');
            is_host(domain) && is_host(&host) && below.is_some_and(|(_, rest)| rest == domain)
        }
        None => is_host(&pattern) && pattern == host,
    }
}

/// Whether it is a name of a host, with no sign that stands for others.
fn is_host(name: &str) -> bool {
    name.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version: STSv1\nmode: enforce\nmx: mail.example.com\n\
                        mx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n";

    fn why(text: &str) -> String {
        Policy::parse(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn the_policy_of_rfc_8461() {
        let wanted = Policy {
            mode: Mode::Enforce,
            max_age: 604_800,
            patterns: ["mail.example.com", "*.example.net", "backupmx.example.com"]
                .map(str::to_owned)
                .into(),
            lines: GOOD.lines().map(str::to_owned).collect(),
        };
        for text in [
            GOOD.to_owned(),
            GOOD.replace('\n', "\r\n"),
            GOOD.trim_end().to_owned(),
            GOOD.replace('\n', "\n\n"),
            GOOD.replace('\n', " \t\r\n"),
        ] {
            assert_eq!(Policy::parse(text.as_bytes()), Ok(wanted.clone()), "{text}");
        }
        for text in [
            GOOD.replace(": ", ":"),
            GOOD.replace(": ", ": \t "),
            format!("future.Field_1-x: a: b\n{GOOD}"),
            format!("{GOOD}x: \u{e9}\nempty:\n"),
            format!("{GOOD}mode: none\nmax_age: 1\nversion: STSv2\n"),
        ] {
            let found = Policy::parse(text.as_bytes()).expect(&text);
            assert_eq!(
                (found.mode, found.max_age),
                (Mode::Enforce, 604_800),
                "{text}"
            );
            assert_eq!(found.patterns, wanted.patterns, "{text}");
        }
        let reversed: Vec<&str> = GOOD.lines().rev().collect();
        let found = Policy::parse(reversed.join("\n").as_bytes()).expect("in any order");
        assert_eq!(found.mode, Mode::Enforce);
    }

    #[test]
    fn modes_and_ages() {
        let of = |text: &str| Policy::parse(text.as_bytes());
        let testing = of(&GOOD.replace("enforce", "testing")).expect("a policy");
        assert_eq!(testing.mode, Mode::Testing);
        let none = of("version: STSv1\nmode: none\nmax_age: 0\n").expect("a policy");
        assert_eq!((none.mode, none.max_age), (Mode::None, 0));
        assert!(!none.matches("mail.example.com"));
        for (age, counts) in [
            ("1", 1),
            ("31557600", MAX_AGE_LIMIT),
            ("31557601", MAX_AGE_LIMIT),
            ("9999999999", MAX_AGE_LIMIT),
            ("0000000010", 10),
        ] {
            let found = of(&GOOD.replace("604800", age)).expect(age);
            assert_eq!(found.max_age, counts, "{age}");
        }
    }

    #[test]
    fn what_is_no_policy() {
        for (text, said) in [
            (String::new(), "no version"),
            ("\n\n".to_owned(), "no version"),
            (GOOD.replace("version: STSv1\n", ""), "no version"),
            (GOOD.replace("STSv1", "STSv2"), "not STSv1"),
            (GOOD.replace("STSv1", "stsv1"), "not STSv1"),
            (GOOD.replace("mode: enforce\n", ""), "no mode"),
            (GOOD.replace("mode:", "Mode:"), "no mode"),
            (GOOD.replace("enforce", "strict"), "its mode"),
            (GOOD.replace("enforce", ""), "its mode"),
            (GOOD.replace("max_age: 604800\n", ""), "no max_age"),
            (GOOD.replace("604800", ""), "its max_age"),
            (GOOD.replace("604800", "-1"), "its max_age"),
            (GOOD.replace("604800", "+1"), "its max_age"),
            (GOOD.replace("604800", "1d"), "its max_age"),
            (GOOD.replace("604800", "1.5"), "its max_age"),
            (GOOD.replace("604800", "00000000001"), "its max_age"),
            (GOOD.replace("mx:", "my:"), "no mx"),
            (GOOD.replace("mode: ", "mode "), "line 2 is malformed"),
            (GOOD.replace("mode:", "mode :"), "line 2 is malformed"),
            (GOOD.replace("mode:", " mode:"), "line 2 is malformed"),
            (GOOD.replace("mode:", ":"), "line 2 is malformed"),
            (GOOD.replace("enforce", "enforce\0"), "line 2 is malformed"),
            (GOOD.replace("enforce", "en\rforce"), "line 2 is malformed"),
            (GOOD.replace('\n', "\r"), "line 1 is malformed"),
            (format!("\u{feff}{GOOD}"), "line 1 is malformed"),
            (
                format!("{}: x\n{GOOD}", "a".repeat(33)),
                "line 1 is malformed",
            ),
            ("<!DOCTYPE html>\n<html>".to_owned(), "line 1 is malformed"),
        ] {
            let found = why(&text);
            assert!(found.contains(said), "{text:?}: {found}");
        }
        assert!(Policy::parse(b"version: STSv1\xff").is_err());
    }

    #[test]
    fn a_pattern_stands_for_one_label_at_most() {
        for (pattern, host, is) in [
            ("mail.example.com", "mail.example.com", true),
            ("Mail.Example.com", "mail.EXAMPLE.com.", true),
            ("mail.example.com.", "mail.example.com", true),
            ("mail.example.com", "xmail.example.com", false),
            ("mail.example.com", "a.mail.example.com", false),
            ("mail.example.com", "example.com", false),
            ("*.example.com", "mail.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "a.mail.example.com", false),
            ("*.example.com", "*.example.com", false),
            ("*.example.com", "mail.example.net", false),
            ("*.com", "example.com", true),
            ("m*.example.com", "mail.example.com", false),
            ("*l.example.com", "mail.example.com", false),
            ("mail.*.com", "mail.example.com", false),
            ("*.*.com", "mail.example.com", false),
            ("*.mail.*", "a.mail.com", false),
            (".example.com", "mail.example.com", false),
            (".example.com", ".example.com", false),
            ("*", "com", false),
            ("*", "mail.example.com", false),
            ("*.", "com", false),
            ("*..", "a..", false),
            ("", "", false),
            (".", ".", false),
            ("[192.0.2.1]", "[192.0.2.1]", false),
            ("mail example.com", "mail example.com", false),
            ("mx:25", "mx:25", false),
        ] {
            assert_eq!(matches(pattern, host), is, "{pattern} {host}");
        }
    }
}
