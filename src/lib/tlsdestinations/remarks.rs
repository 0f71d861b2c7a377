//! The lines of a file that are wrong, and those that decide for nobody.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use super::key::{RuleForm, RuleKey, Scope};
use super::line::{self, Line, Wrong};
use super::{FoundBy, Rule, Value};
use crate::text;

/// The rules of all lines that are sound, whomever they are for.
pub fn rules(text: &[u8]) -> impl Iterator<Item = Rule> {
    line::lines(text).filter_map(|line| super::rule_of(line, FoundBy::Everybody).ok())
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
        found.extend(wrong.map(|wrong| of_wrong(line, wrong, none_is_tried)));
    }
    let wrong: HashSet<usize> = found.iter().map(|one| one.line).collect();
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
        if let Some(earlier) = earlier {
            if !wrong.contains(&number) {
                found.push(Remark {
                    line: number,
                    wrong: false,
                    text: format!(
                        "line {number} \"{key}\" never applies: line {earlier} comes before it"
                    ),
                });
            }
        }
    }
    found.sort_by_key(|one| one.line);
    found
}

/// What is said of a wrong line; where its key is wrong, also whose mail waits. With
/// `never` there is a line by which TLS is never tried, which the empty key comes
/// behind.
fn of_wrong(line: Line<'_>, wrong: Wrong, never: Option<usize>) -> Remark {
    let (number, key) = (line.number, text::excerpt(line.written, 200));
    let waits = match (line.key(), never) {
        (Ok(_), _) => String::new(),
        (Err(Wrong::EmptyKey), Some(never)) => {
            format!("; it defers no mail, since line {never} \"!*\" decides before it")
        }
        (Err(Wrong::EmptyKey), None) => {
            "; all mail that no line for a host without - decides is deferred".to_owned()
        }
        (Err(_), _) => "; all mail that no line before it decides is deferred".to_owned(),
    };
    Remark {
        line: number,
        wrong: true,
        text: format!("line {number} \"{key}\" is wrong: {wrong}{waits}"),
    }
}

/// The line by which TLS is never tried with anybody, whoever sends.
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
