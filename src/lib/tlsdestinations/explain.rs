//! Rules in words, and the lines of a file that are wrong or never apply.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;

use super::key::{RuleForm, RuleKey, Scope};
use super::line::{self, Wrong};
use super::{Anchors, By, Check, Destination, Port, Rule, Tls, TlsMode, Value, Way};
use crate::text;

impl Rule {
    /// What the rule comes to for a destination, in one line.
    #[must_use]
    pub fn in_words(&self, to: &Destination<'_>) -> String {
        let begin = match self.line {
            Some(line) => {
                let key = text::excerpt(self.key.as_bytes(), 200);
                format!("line {line} \"{key}\" applies: ")
            }
            None => "no line applies: ".to_owned(),
        };
        let tls = match self.tls() {
            Tls::Never => return begin + "TLS is never tried",
            Tls::Offered => "TLS is used if offered",
            Tls::Required => "TLS is required",
        };
        let lenient = self.tls() == Tls::Offered && self.check() != Check::Nothing;
        let logged = if lenient {
            " (a failure is logged only)"
        } else {
            ""
        };
        let asked = self.asked_of_certificate(to);
        format!("{begin}{tls}; {asked}{logged}{}", self.value)
    }

    fn asked_of_certificate(&self, to: &Destination<'_>) -> String {
        let printable = |path: &String| text::printable(path.as_bytes());
        let anchors = match &self.value.anchors {
            Some(Anchors::File(path)) => format!("the CAs in {}", printable(path)),
            Some(Anchors::Directory(path)) => format!("the CAs in {}/", printable(path)),
            None => "the system's CAs".to_owned(),
        };
        let pins: Vec<String> = self.value.pins.iter().map(ToString::to_string).collect();
        let pinned = format!(
            "the certificate must have the fingerprint {}",
            pins.join(" or ")
        );
        let verify = if self.is_pinned() {
            pinned.clone()
        } else {
            format!("the certificate must verify with {anchors}")
        };
        match self.check() {
            Check::Nothing => "no certificate is needed".to_owned(),
            Check::Certificate => "any certificate will do".to_owned(),
            Check::Chain => verify,
            Check::Name => format!("{verify} and name {}, wildcards allowed", self.names_of(to)),
            Check::ExactName => format!("{verify} and name {} exactly", self.names_of(to)),
            Check::Pin => pinned,
        }
    }

    fn names_of(&self, to: &Destination<'_>) -> String {
        let names = self.names(to).into_iter();
        let names: Vec<String> = names
            .map(|one| text::excerpt(one.name.trim_matches(['[', ']']).as_bytes(), 255))
            .collect();
        let names = names.join(" or ");
        let written = !self.value.names.is_empty()
            || self.check() == Check::ExactName && matches!(self.scope, Scope::Host(_));
        match to.way {
            Way::Itself if written => names,
            Way::Itself if self.by == By::Everybody || self.value.anchors.is_some() => {
                format!("{names} or its MX host")
            }
            Way::Itself => format!(
                "{names} or its MX host (where DNSSEC signs the MX, or the host lies below {names})"
            ),
            Way::Relay { .. } | Way::Exchanger { .. } => names,
        }
    }
}

/// The fields that are not about the certificate, each behind `; `.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ciphers) = &self.ciphers {
            write!(out, "; ciphers {}", text::printable(ciphers.as_bytes()))?;
        }
        if let Some(depth) = self.depth {
            write!(out, "; depth {depth}")?;
        }
        if let Some(port) = self.port {
            write!(out, "; port {port}")?;
        }
        if let Some(sender) = &self.sender {
            write!(out, "; for mail of {}", text::printable(sender.as_bytes()))?;
        }
        Ok(())
    }
}

/// `465, TLS at once`.
impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            TlsMode::Implicit => "TLS at once",
            TlsMode::Qmtps => "QMTPS",
            TlsMode::StartTls => "STARTTLS",
        };
        write!(out, "{}, {mode}", self.number)
    }
}

/// The rules of all lines that are sound, whomever they are for.
pub fn rules(text: &[u8]) -> impl Iterator<Item = Rule> {
    line::lines(text).filter_map(|line| super::rule_of(line, By::Everybody).ok())
}

/// What is to be said of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Its number.
    pub line: usize,
    /// It is wrong; else it decides for nobody.
    pub wrong: bool,
    /// A sentence that begins with `line N`.
    pub text: String,
}

/// The lines that are wrong, and those that decide for nobody, with the reason.
#[must_use]
pub fn remarks(text: &[u8]) -> Vec<Remark> {
    let mut found = Vec::new();
    // The first line of each key and sender; the sender `None` is everybody.
    let mut first: HashMap<(String, Option<String>), usize> = HashMap::new();
    let mut sound = Vec::new();
    let none_is_tried = everybody_never(text);
    for line in line::lines(text) {
        let read = line.key().and_then(|key| {
            let value = line.value?;
            Ok((key, Value::sender_of(value)?, value))
        });
        let wrong = match read {
            Ok((key, sender, value)) => {
                first
                    .entry((key.to_string(), sender.clone()))
                    .or_insert(line.number);
                let wrong = Value::parse(value, key.form).err();
                sound.push((line.number, key, sender));
                wrong
            }
            Err(wrong) => Some(wrong),
        };
        if let Some(wrong) = wrong {
            let (number, key) = (line.number, text::excerpt(line.written, 200));
            let all = match (line.key(), none_is_tried) {
                (Ok(_), _) => String::new(),
                (Err(_), Some(never)) => {
                    format!("; it defers no mail, since line {never} \"!*\" decides before it")
                }
                (Err(Wrong::EmptyKey), None) => {
                    "; all mail that no line for a host without - decides is deferred".to_owned()
                }
                (Err(_), None) => {
                    "; all mail that no line for a host decides is deferred".to_owned()
                }
            };
            found.push(Remark {
                line: number,
                wrong: true,
                text: format!("line {number} \"{key}\" is wrong: {wrong}{all}"),
            });
        }
    }
    for (number, key, sender) in sound {
        let earlier = covering(&key)
            .into_iter()
            .flat_map(|(key, same)| {
                [None, sender.clone()].map(|sender| (key.clone(), sender, same))
            })
            .find_map(|(key, sender, same)| {
                let earlier = *first.get(&(key, sender))?;
                (!same || earlier < number).then_some(earlier)
            });
        if let Some(earlier) = earlier
            && !found.iter().any(|one| one.line == number)
        {
            found.push(Remark {
                line: number,
                wrong: false,
                text: format!(
                    "line {number} \"{key}\" never applies: line {earlier} comes before it"
                ),
            });
        }
    }
    found.sort_by_key(|one| one.line);
    found
}

/// The line by which TLS is never tried with anybody, whoever sends: a key that is
/// none comes behind it.
fn everybody_never(text: &[u8]) -> Option<usize> {
    rules(text)
        .find(|rule| {
            let everybody = rule.form == RuleForm::Never && rule.scope == Scope::All;
            everybody && rule.value.sender.is_none()
        })
        .and_then(|rule| rule.line)
}

/// The keys that are looked up before this one for every destination that it
/// stands for; last, and marked, the key itself.
fn covering(own: &RuleKey) -> Vec<(String, bool)> {
    const EVERYBODY: [&str; 7] = ["!*", "=*", "~*", "+*", "-*", "*", "-"];
    let suffixes = |name: &str| -> Vec<String> {
        let dots = name.match_indices('.');
        dots.map(|(at, _)| name[at..].to_owned()).collect()
    };
    let RuleKey { form, scope } = own;
    let spelt = own.to_string();
    let mut keys: Vec<String> = Vec::new();
    let (exact, below) = match scope {
        Scope::Host(name) if name.starts_with('[') => (Some(name), Vec::new()),
        Scope::Host(name) => (Some(name), suffixes(name)),
        Scope::Below(name) => (None, suffixes(name)),
        Scope::All => {
            let before = EVERYBODY.iter().take_while(|key| **key != spelt);
            keys.extend(before.map(|key| (*key).to_owned()));
            (None, Vec::new())
        }
    };
    // Within a row the own name comes before those above it, so only the rows
    // before this key's can cover it.
    for (row, sign, walks) in [
        (RuleForm::Never, "!", true),
        (RuleForm::Pinned, "%", false),
        (RuleForm::Exact, "=", false),
        (RuleForm::Named, "~", true),
        (RuleForm::Trusted, "", true),
    ] {
        if *scope == Scope::All || *form <= row {
            continue;
        }
        keys.extend(exact.map(|name| format!("{sign}{name}")));
        if walks {
            keys.extend(below.iter().map(|name| format!("{sign}{name}")));
        }
        if row == RuleForm::Never {
            keys.push("!*".to_owned());
        }
    }
    let mut keys: Vec<(String, bool)> = keys.into_iter().map(|key| (key, false)).collect();
    keys.push((spelt, true));
    keys
}
