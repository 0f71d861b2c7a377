//! Rules in words, and the lines of a file that are wrong or never apply.
#![forbid(unsafe_code)]

use std::fmt;

use super::key::{RuleForm, Scope};

use super::{Anchors, Check, Destination, FoundBy, Port, Rule, Tls, TlsMode, Value, Way};
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
            Check::Records => {
                let records = "the certificate must match a signed TLSA record of its host (DANE)";
                match self.form {
                    RuleForm::Named => {
                        format!(
                            "{records} and name {}, wildcards allowed",
                            self.names_of(to)
                        )
                    }
                    RuleForm::Exact => format!("{records} and name {} exactly", self.names_of(to)),
                    _ => records.to_owned(),
                }
            }
        }
    }

    fn names_of(&self, to: &Destination<'_>) -> String {
        let names = self.names(to).into_iter();
        let names: Vec<String> = names.map(|one| one.name.to_string()).collect();
        let names = names.join(" or ");
        let written = !self.value.names.is_empty()
            || self.form == RuleForm::Exact && matches!(self.scope, Scope::Host(_));
        match to.way {
            Way::Itself if written => names,
            Way::Itself if self.by == FoundBy::Everybody || self.value.anchors.is_some() => {
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
