//! Rules in words, and the lines of a file that are wrong or never apply.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;

use super::key::{Key, Kind, Scope};
use super::line;
use super::{Anchors, Check, Rule, Start, Tls, Value};
use crate::text;

/// What a rule comes to, in one line.
impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(
                out,
                "line {line} \"{}\" applies: ",
                text::excerpt(self.key.as_bytes(), 200)
            )?,
            None => out.write_str("no line applies: ")?,
        }
        let anchors = match &self.value.anchors {
            Some(Anchors::File(path)) => format!("the CAs in {}", text::printable(path.as_bytes())),
            Some(Anchors::Directory(path)) => {
                format!("the CAs in {}/", text::printable(path.as_bytes()))
            }
            None => "the system's CAs".to_owned(),
        };
        let tls = match self.tls() {
            Tls::Never => return out.write_str("TLS is never tried"),
            Tls::Offered => "TLS is used if offered",
            Tls::Required => "TLS is required",
        };
        let name = match &self.scope {
            Scope::Host(key) if self.kind == Kind::Exact => key.as_str(),
            _ => "the host",
        };
        write!(out, "{tls}; ")?;
        match self.check() {
            Check::Nothing => out.write_str("no certificate is needed"),
            Check::Certificate => out.write_str("any certificate will do"),
            Check::Chain => write!(out, "the certificate must verify with {anchors}"),
            Check::Name => write!(
                out,
                "the certificate must verify with {anchors} and name {name}, wildcards allowed"
            ),
            Check::ExactName => write!(
                out,
                "the certificate must verify with {anchors} and name {name} exactly"
            ),
            Check::Pin => {
                let pins: Vec<String> = self.value.pins.iter().map(ToString::to_string).collect();
                write!(
                    out,
                    "the certificate must have the fingerprint {}",
                    pins.join(" or ")
                )
            }
        }?;
        if self.tls() == Tls::Offered && !matches!(self.check(), Check::Nothing) {
            out.write_str(" (a failure is logged only)")?;
        }
        let Value {
            ciphers,
            depth,
            port,
            sender,
            ..
        } = &self.value;
        if let Some(ciphers) = ciphers {
            write!(out, "; ciphers {}", text::printable(ciphers.as_bytes()))?;
        }
        if let Some(depth) = depth {
            write!(out, "; depth {depth}")?;
        }
        if let Some(port) = port {
            let start = match port.start {
                Start::AtOnce => "TLS at once",
                Start::Qmtps => "QMTPS",
                Start::StartTls => "STARTTLS",
            };
            write!(out, "; port {}, {start}", port.number)?;
        }
        if let Some(sender) = sender {
            write!(out, "; for mail of {}", text::printable(sender.as_bytes()))?;
        }
        Ok(())
    }
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
                let wrong = Value::parse(value, key.kind).err();
                sound.push((line.number, key, sender));
                wrong
            }
            Err(wrong) => Some(wrong),
        };
        if let Some(wrong) = wrong {
            let (number, key) = (line.number, text::excerpt(line.written, 200));
            let all = match line.key() {
                Ok(_) => "",
                Err(_) => "; mail to everybody whom no line for a host decides is deferred",
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

/// The keys that are looked up before this one for every destination that it
/// stands for; last, and marked, the key itself.
fn covering(own: &Key) -> Vec<(String, bool)> {
    const EVERYBODY: [&str; 7] = ["!*", "=*", "~*", "+*", "-*", "*", "-"];
    let suffixes = |name: &str| -> Vec<String> {
        let dots = name.match_indices('.');
        dots.map(|(at, _)| name[at..].to_owned()).collect()
    };
    let Key { kind, scope } = own;
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
        (Kind::Never, "!", true),
        (Kind::Pinned, "%", false),
        (Kind::Exact, "=", false),
        (Kind::Named, "~", true),
        (Kind::Trusted, "", true),
    ] {
        if *scope == Scope::All || *kind <= row {
            continue;
        }
        keys.extend(exact.map(|name| format!("{sign}{name}")));
        if walks {
            keys.extend(below.iter().map(|name| format!("{sign}{name}")));
        }
        if row == Kind::Never {
            keys.push("!*".to_owned());
        }
    }
    let mut keys: Vec<(String, bool)> = keys.into_iter().map(|key| (key, false)).collect();
    keys.push((spelt, true));
    keys
}
