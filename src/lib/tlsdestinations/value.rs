//! A line's value: its fields, and what they mean under a form of key.
#![forbid(unsafe_code)]

use std::fmt;

use super::key::{self, RuleForm};
use super::line::Wrong;
use crate::text;

/// A fingerprint that a certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Of the whole certificate: SHA-1, SHA-224, SHA-256 or SHA-512, by length.
    Certificate(Vec<u8>),
    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    Key([u8; 32]),
}

/// As it is written.
impl fmt::Display for Pin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::Certificate(print) => out.write_str(&text::hex(print)),
            Pin::Key(print) => write!(out, "spki:{}", text::hex(print)),
        }
    }
}

/// Where trust anchors are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Anchors {
    /// A PEM file.
    File(String),
    /// A directory of such files.
    Directory(String),
}

/// How TLS begins on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// At once.
    Implicit,
    /// At once, and QMTP inside.
    Qmtps,
    /// By STARTTLS.
    StartTls,
}

/// A port, and how TLS begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// How.
    pub mode: TlsMode,
}

impl Port {
    /// A port by its number: 465 and 6209 begin with TLS.
    #[must_use]
    pub fn of_number(number: u16) -> Port {
        let mode = match number {
            465 => TlsMode::Implicit,
            6209 => TlsMode::Qmtps,
            _ => TlsMode::StartTls,
        };
        Port { number, mode }
    }

    /// `25`, `465`, `s4465`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Port> {
        let (digits, at_once) = match word.strip_prefix(['s', 'S']) {
            Some(digits) => (digits, true),
            None => (word, false),
        };
        let number = text::number(digits, 1..=65535)?;
        let mut port = Port::of_number(u16::try_from(number).ok()?);
        if at_once && port.mode == TlsMode::StartTls {
            port.mode = TlsMode::Implicit;
        }
        Some(port)
    }
}

/// A value's fields; those that are empty or left out are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// CA file or directory.
    pub anchors: Option<Anchors>,
    /// Fingerprints in place of it.
    pub pins: Vec<Pin>,
    /// `dane` in place of it: signed TLSA records.
    pub dane: bool,
    /// Cipher list.
    pub ciphers: Option<String>,
    /// How long the chain may be.
    pub depth: Option<u32>,
    /// Port.
    pub port: Option<Port>,
    /// For this sender's mail only; in lower case.
    pub sender: Option<String>,
    /// Names of which the certificate must bear one, in place of the row's; with
    /// a dot before it a domain, for the names one label below it.
    pub names: Vec<String>,
}

impl Value {
    /// The sender that a value is for, read before all else: what is wrong with
    /// a line matters only to those whom it is for.
    ///
    /// # Errors
    /// The field is there and is no domain: the line is for nobody knows whom.
    pub fn sender_of(value: &str) -> Result<Option<String>, Wrong> {
        let Some(sender) = value.split('|').nth(3) else {
            return Ok(None);
        };
        let sender = sender.trim();
        let sender = sender.strip_prefix('@').unwrap_or(sender);
        if sender.is_empty() {
            return Ok(None);
        }
        let domain = key::host_name(sender).map_err(|_| Wrong::Sender)?;
        Ok(Some(domain))
    }

    /// Reads a value under a key of this form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &str, form: RuleForm) -> Result<Value, Wrong> {
        let fields: Vec<&str> = value.split('|').map(str::trim).collect();
        if fields.len() > 5 {
            return Err(Wrong::Fields);
        }
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        // `;port` alone, or behind the file: `cafile;port`.
        let (first, lone_port) = match field(0).split_once(';') {
            Some((first, port)) if first.is_empty() || fields.len() == 1 => (first.trim(), port),
            _ => match field(0).strip_prefix(':') {
                Some(port) => ("", port),
                None => (field(0), ""),
            },
        };
        let (depth, port) = field(2).split_once([';', ':']).unwrap_or((field(2), ""));
        let depth = match depth.trim() {
            "" => None,
            depth => Some(text::number(depth, 0..=100).ok_or(Wrong::Depth)?),
        };
        let port = match (lone_port.trim(), port.trim()) {
            ("", "") => None,
            ("", port) | (port, "") => Some(Port::parse(port).ok_or(Wrong::Port)?),
            _ => return Err(Wrong::Port),
        };
        let mut parsed = Value {
            ciphers: (!field(1).is_empty()).then(|| field(1).to_owned()),
            depth: depth.and_then(|depth| u32::try_from(depth).ok()),
            port,
            sender: Value::sender_of(value)?,
            names: names(field(4))?,
            ..Value::default()
        };
        parsed.take_first(first, form)?;
        let verified = match form {
            RuleForm::Exact | RuleForm::Named => true,
            RuleForm::Trusted | RuleForm::Opportunistic => parsed.anchors.is_some(),
            _ => false,
        };
        if !parsed.names.is_empty() && !verified {
            return Err(Wrong::NamesForNothing);
        }
        Ok(parsed)
    }

    /// The first field, without a port: a CA, or what stands in its place.
    fn take_first(&mut self, first: &str, form: RuleForm) -> Result<(), Wrong> {
        if first.starts_with('=') || is_key_pin(first) {
            self.pins = first
                .split(',')
                .map(|item| pin(item.trim()).ok_or(Wrong::Fingerprint))
                .collect::<Result<_, _>>()?;
        } else if form == RuleForm::Pinned {
            return Err(Wrong::NoFingerprint);
        } else if first.eq_ignore_ascii_case("dane") {
            let optional = [
                RuleForm::Never,
                RuleForm::Opportunistic,
                RuleForm::OpportunisticUnverified,
            ];
            if optional.contains(&form) {
                return Err(Wrong::Dane);
            }
            self.dane = true;
        } else if let Some(path) = first.strip_suffix('/') {
            let path = if path.is_empty() { "/" } else { path };
            self.anchors = Some(Anchors::Directory(path.to_owned()));
        } else if !first.is_empty() {
            self.anchors = Some(Anchors::File(first.to_owned()));
        }
        Ok(())
    }
}

/// The fifth field: `host,.domain,*.domain`.
fn names(field: &str) -> Result<Vec<String>, Wrong> {
    let field = field.trim();
    if field.is_empty() {
        return Ok(Vec::new());
    }
    let one = |name: &str| {
        let name = name.trim();
        let below = name.strip_prefix('*').unwrap_or(name).strip_prefix('.');
        match below {
            Some(domain) => key::host_name(domain).map(|domain| format!(".{domain}")),
            None => key::host(name),
        }
        .map_err(|_| Wrong::Names)
    };
    field.split(',').map(one).collect()
}

fn is_key_pin(item: &str) -> bool {
    let head = item.get(..5);
    head.is_some_and(|head| head.eq_ignore_ascii_case("spki:"))
}

/// `=hex` or `spki:hex`, colons and case ignored.
fn pin(item: &str) -> Option<Pin> {
    let item = item.strip_prefix('=').unwrap_or(item);
    if is_key_pin(item) {
        return Some(Pin::Key(
            text::bytes(&item[5..].replace(':', ""))?.try_into().ok()?,
        ));
    }
    let print = text::bytes(&item.replace(':', ""))?;
    matches!(print.len(), 20 | 28 | 32 | 64).then_some(Pin::Certificate(print))
}
