//! Rules in words, and the lines of a file that can never hold.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;

use super::line::{self, Kind, Scope};
use super::{Anchors, Check, Rule, Start, Tls, Value, meaning};
use crate::text;

/// What a rule comes to, in one line.
impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(
                out,
                "line {line} \"{}\" holds: ",
                text::excerpt(self.key.as_bytes(), 200)
            )?,
            None => out.write_str("no line holds: ")?,
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

/// Lines that decide for nobody, with the reason, and lines that are wrong; each
/// with its number.
#[must_use]
pub fn dead_lines(text: &[u8]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // The first line of each key and sender; the sender `None` is everybody.
    let mut first: HashMap<(Vec<u8>, Option<String>), usize> = HashMap::new();
    let lines: Vec<_> = line::lines(text).collect();
    for line in &lines {
        let sender = line.value.ok().and_then(Value::sender_of);
        first
            .entry((line.key.clone(), sender))
            .or_insert(line.number);
    }
    for line in &lines {
        let mut say = |text: String| found.push((line.number, text));
        let form = match (&line.value, str::from_utf8(&line.key)) {
            _ if line.key.is_empty() => {
                say("is wrong: the key is empty: mail to all that comes here is deferred".into());
                continue;
            }
            (Err(wrong), _) => {
                say(format!("is wrong: {wrong}"));
                continue;
            }
            (_, Err(_)) => None,
            (Ok(_), Ok(key)) => meaning(key),
        };
        let Some((kind, scope)) = form else {
            say("can never hold: its key is none of the forms of keys".into());
            continue;
        };
        let value = line.value.unwrap_or_default();
        let sender = Value::sender_of(value);
        let earlier = covering(&line.key, kind, &scope)
            .into_iter()
            .flat_map(|(key, same)| {
                [None, sender.clone()].map(|sender| (key.clone(), sender, same))
            })
            .find_map(|(key, sender, same)| {
                let number = *first.get(&(key, sender))?;
                (!same || number < line.number).then_some(number)
            });
        if let Some(earlier) = earlier {
            say(format!("can never hold: line {earlier} comes before it"));
        } else if let Err(wrong) = Value::parse(value, kind) {
            say(format!("is wrong: {wrong}"));
        }
    }
    found
}

/// The keys that are looked up before this one for every destination that it
/// stands for; last, and marked, the key itself.
fn covering(own: &[u8], kind: Kind, scope: &Scope) -> Vec<(Vec<u8>, bool)> {
    const EVERYBODY: [&str; 8] = ["!*", "", "=*", "~*", "+*", "-*", "*", "-"];
    let suffixes = |name: &str| -> Vec<String> {
        let dots = name.match_indices('.');
        dots.map(|(at, _)| name[at..].to_owned()).collect()
    };
    let mut keys: Vec<String> = Vec::new();
    let (exact, below) = match scope {
        Scope::Host(name) => (Some(name), suffixes(name)),
        Scope::Below(name) => (None, suffixes(name)),
        Scope::All => {
            let before = EVERYBODY.iter().take_while(|key| key.as_bytes() != own);
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
        if *scope == Scope::All || kind <= row {
            continue;
        }
        keys.extend(exact.map(|name| format!("{sign}{name}")));
        if walks {
            keys.extend(below.iter().map(|name| format!("{sign}{name}")));
        }
        if row == Kind::Never {
            keys.push("!*".to_owned());
        }
        if row == Kind::Trusted {
            keys.push(String::new());
        }
    }
    let mut keys: Vec<(Vec<u8>, bool)> = keys
        .into_iter()
        .map(|key| (key.into_bytes(), false))
        .collect();
    keys.push((own.to_vec(), true));
    keys
}
