//! What mail to a partner is sent with: tlsdestinations, in s/qmail's format,
//! looked up and explained. See tlsdestinations(5): rows are those of its list of
//! keys, from 1: `!`, `%`, `=`, `~`, no sign, `-`, the same four for everybody, `*`,
//! and `-` alone.
//!
//! A look-up is a pure function of the file's bytes, the destination and the
//! sender. A line that decides and is wrong is an error, never passed over.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::report::{self, Fail, is_absent};
use crate::rulesdb::Database;
use crate::text;

mod compile;
mod destination;
mod explain;
pub(crate) mod key;
pub(crate) mod line;
mod remarks;
mod value;

pub use compile::compile;
pub use destination::{Destination, FoundBy, Way};
pub use key::{RuleForm, Scope};
pub use line::Wrong;
pub use remarks::{Remark, remarks, rules};
pub use value::{Anchors, Pin, Port, TlsMode, Value};

use key::canonical;
use line::{Line, SourceLine};

/// Whether TLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It is not even tried.
    Never,
    /// If the server offers it.
    Offered,
    /// Or nothing is sent.
    Required,
}

/// What a server's certificate must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It may be missing.
    Nothing,
    /// It must be there, whatever it says.
    Certificate,
    /// It must lead to an anchor.
    Chain,
    /// That, or have one of the fingerprints where these stand in the CA's place;
    /// and name the host, wildcards allowed.
    Name,
    /// That, and name the host letter by letter.
    ExactName,
    /// It must have one of the fingerprints, whoever signed it.
    Pin,
    /// It must match a signed TLSA record of the host (DANE).
    Records,
}

/// What holds for a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands; `None`: no line holds.
    pub line: Option<usize>,
    /// Through which name it was found.
    pub by: FoundBy,
    /// The line's key.
    pub key: String,
    /// By the key.
    pub form: RuleForm,
    /// Whom the key stands for.
    pub scope: Scope,
    /// The fields.
    pub value: Value,
}

impl Rule {
    /// What holds where no line does: as `*` without a CA.
    #[must_use]
    pub fn none() -> Rule {
        Rule {
            line: None,
            by: FoundBy::Everybody,
            key: "*".to_owned(),
            form: RuleForm::Opportunistic,
            scope: Scope::All,
            value: Value::default(),
        }
    }

    /// Whether TLS is used.
    #[must_use]
    pub fn tls(&self) -> Tls {
        match self.form {
            RuleForm::Never => Tls::Never,
            RuleForm::Opportunistic | RuleForm::OpportunisticUnverified => Tls::Offered,
            _ => Tls::Required,
        }
    }

    /// What the certificate must do. Under [`Tls::Offered`] a failure is a line
    /// in the log only.
    #[must_use]
    pub fn check(&self) -> Check {
        let anchors = self.value.anchors.is_some();
        match self.form {
            RuleForm::Never => Check::Nothing,
            _ if self.value.dane => Check::Records,
            RuleForm::Exact => Check::ExactName,
            RuleForm::Named => Check::Name,
            // s/qmail takes a fingerprint under any key.
            _ if self.is_pinned() => Check::Pin,
            RuleForm::Pinned => Check::Pin,
            RuleForm::Trusted | RuleForm::Opportunistic if !self.value.names.is_empty() => {
                Check::Name
            }
            RuleForm::Trusted | RuleForm::Opportunistic if anchors => Check::Chain,
            RuleForm::Trusted => Check::Certificate,
            RuleForm::Opportunistic | RuleForm::Unverified | RuleForm::OpportunisticUnverified => {
                Check::Nothing
            }
        }
    }

    /// Whether fingerprints stand in the CA's place.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        !self.value.pins.is_empty()
    }

    /// Whether the certificate must lead to an anchor.
    #[must_use]
    pub fn verifies(&self) -> bool {
        let checked = matches!(self.check(), Check::Chain | Check::Name | Check::ExactName);
        checked && !self.is_pinned()
    }

    /// Whether what a host publishes of itself is weighed: under the rows for everybody
    /// alone. Those above are the postmaster's own word, unless that word is `dane`.
    #[must_use]
    pub fn weighs_records(&self) -> bool {
        self.value.dane || (self.form != RuleForm::Never && self.scope == Scope::All)
    }

    /// Whether the domain's policy (MTA-STS) is weighed: under the rows for everybody
    /// alone, and not where TLS is never used.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn weighs_policy(&self) -> bool {
        self.form != RuleForm::Never && self.scope == Scope::All
    }

    /// Whether the certificate must bear a name, whatever else it must do.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn asks_for_name(&self) -> bool {
        matches!(self.form, RuleForm::Exact | RuleForm::Named)
    }

    /// Whether ciphers without a certificate may be offered.
    #[must_use]
    pub fn allows_anonymous(&self) -> bool {
        matches!(
            self.form,
            RuleForm::Unverified | RuleForm::OpportunisticUnverified
        ) && !self.is_pinned()
            && !self.value.dane
    }
}

/// A line that decides for a destination, and is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The line's number.
    pub line: usize,
    /// What is wrong.
    pub wrong: Wrong,
    /// Its key as it is written.
    pub key: Vec<u8>,
}

/// `tlsdestinations line 3 "=mx.example": the depth is ...`; in a compiled form
/// that is damaged nobody knows the line.
impl fmt::Display for Unusable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unusable { line, wrong, key } = self;
        let key = text::excerpt(key, 200);
        match line {
            0 => write!(out, "tlsdestinations.cdb \"{key}\": {wrong}"),
            _ => write!(out, "tlsdestinations line {line} \"{key}\": {wrong}"),
        }
    }
}

/// Whose mail it is: the domain of an envelope sender in the spelling of keys;
/// `None` for a bounce.
#[must_use]
pub fn sender_domain(sender: &str) -> Option<String> {
    let domain = sender.rsplit_once('@').map_or(sender, |(_, domain)| domain);
    let domain = canonical(domain);
    (!domain.is_empty()).then_some(domain)
}

/// A file of rules, or its compiled form.
pub struct Destinations(Source);

enum Source {
    Missing,
    Text(Lines),
    Compiled(Database),
}

/// The lines of a text, in their order.
#[derive(Default)]
struct Lines {
    /// Those of each key.
    of: HashMap<String, Vec<SourceLine>>,
    /// Those whose key is none: nobody knows whom they were meant for.
    keyless: Vec<SourceLine>,
}

impl Destinations {
    /// The rules of a text.
    #[must_use]
    pub fn from_text(text: impl AsRef<[u8]>) -> Destinations {
        let mut lines = Lines::default();
        for line in line::lines(text.as_ref()) {
            let place = match line.key() {
                Ok(key) => lines.of.entry(key.to_string()).or_default(),
                Err(Wrong::EmptyKey) => lines.of.entry(String::new()).or_default(),
                Err(_) => &mut lines.keyless,
            };
            place.push(SourceLine::of(line));
        }
        Destinations(Source::Text(lines))
    }

    /// The rules of a database that [`compile`] filled.
    #[must_use]
    pub fn from_database(database: Database) -> Destinations {
        Destinations(Source::Compiled(database))
    }

    /// Reads a file, or the `.cdb` beside it that is not older.
    ///
    /// # Errors
    /// One of them is there and cannot be read. No file is no error: then no
    /// line holds.
    pub fn open(path: &Path) -> Result<Destinations, Fail> {
        let mut compiled = path.as_os_str().to_owned();
        compiled.push(".cdb");
        let compiled = Path::new(&compiled);
        let shown = |path: &Path| text::excerpt(path.as_os_str().as_encoded_bytes(), 300);
        let time = |path: &Path| match fs::metadata(path).and_then(|about| about.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(error) if is_absent(path, &error) => Ok(None),
            Err(error) => Err(Fail::unable(format!("read {}", shown(path)))(error)),
        };
        let (text, database) = (time(path)?, time(compiled)?);
        if database.is_some() && database >= text {
            let database = Database::open(compiled)
                .map_err(Fail::unable(format!("read {}", shown(compiled))))?;
            return Ok(Destinations::from_database(database));
        }
        if text.is_none() {
            return Ok(Destinations(Source::Missing));
        }
        fs::read(path)
            .map(Destinations::from_text)
            .map_err(Fail::unable(format!("read {}", shown(path))))
    }

    /// Whether there is no file at all.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.0, Source::Missing)
    }

    /// What holds for mail of `sender`'s domain to a destination: the rows
    /// above those for everybody, for each of its names in turn, then these.
    ///
    /// # Errors
    /// The line that decides is wrong; or none does that stands before the first
    /// line whose key is none, which may be the one that was meant to.
    pub fn look_up(&self, to: &Destination<'_>, sender: Option<&str>) -> Result<Rule, Unusable> {
        let mut keys = Vec::new();
        for (by, host) in to.hosts() {
            keys.extend(named_keys(&host).into_iter().map(|key| (by, key)));
        }
        keys.extend(EVERYBODY.map(|key| (FoundBy::Everybody, key.to_owned())));
        let found = self.first(&keys, sender);
        if let Some(wrong) = self.keyless(sender) {
            let line = match &found {
                Some(Ok(rule)) => rule.line,
                Some(Err(unusable)) => Some(unusable.line),
                None => None,
            };
            if line.is_none_or(|line| line > wrong.line) {
                return Err(wrong);
            }
        }
        found.unwrap_or_else(|| Ok(Rule::none()))
    }

    /// The first line whose key is none and that is not for other senders alone.
    fn keyless(&self, sender: Option<&str>) -> Option<Unusable> {
        let Source::Text(lines) = &self.0 else {
            return None;
        };
        let mut lines = lines.keyless.iter();
        lines.find_map(|kept| decide(kept.line(), FoundBy::Everybody, sender)?.err())
    }

    /// The rule of the first key that has a line for this sender.
    fn first(
        &self,
        keys: &[(FoundBy, String)],
        sender: Option<&str>,
    ) -> Option<Result<Rule, Unusable>> {
        let mut keys = keys.iter();
        match &self.0 {
            Source::Missing => None,
            Source::Text(lines) => keys.find_map(|(by, key)| {
                let mut lines = lines.of.get(key)?.iter();
                lines.find_map(|kept| decide(kept.line(), *by, sender))
            }),
            Source::Compiled(database) => keys.find_map(|(by, key)| {
                let written = key.as_bytes();
                let line = |(number, value)| Line {
                    number,
                    written,
                    value,
                };
                let (_, data) = database.find(written)?;
                compile::entries(data)
                    .map(line)
                    .find_map(|line| decide(line, *by, sender))
            }),
        }
    }

    /// Whether this is a compiled form, and of another text than this one.
    #[must_use]
    pub fn is_compiled_from_other(&self, text: &[u8]) -> bool {
        let Source::Compiled(database) = &self.0 else {
            return false;
        };
        compile(text).is_ok_and(|records| {
            let records = records.iter().map(|(key, data)| (&**key, &**data));
            !database.records().eq(records)
        })
    }
}

/// What a line says to a sender; `None` where it is for others.
fn decide(line: Line<'_>, by: FoundBy, sender: Option<&str>) -> Option<Result<Rule, Unusable>> {
    let wanted = line.value.and_then(Value::sender_of);
    if let Ok(Some(wanted)) = &wanted {
        if sender != Some(wanted) {
            return None;
        }
    }
    Some(rule_of(line, by).map_err(|wrong| Unusable {
        line: line.number,
        wrong,
        key: line.written.to_vec(),
    }))
}

/// The rule of a line that was found through one of a destination's names.
fn rule_of(line: Line<'_>, by: FoundBy) -> Result<Rule, Wrong> {
    let key = line.key()?;
    Ok(Rule {
        line: Some(line.number),
        by,
        key: key.to_string(),
        form: key.form,
        value: Value::parse(line.value?, key.form)?,
        scope: key.scope,
    })
}

/// Keys for everybody, in their order.
const EVERYBODY: [&str; 6] = ["=*", "~*", "+*", "-*", "*", "-"];

/// The keys above those for everybody that a name meets, in their order. The empty
/// key, which s/qmail's walk ends with, is an error where it is reached.
fn named_keys(host: &str) -> Vec<String> {
    let mut below = Vec::new();
    if host.is_empty() {
        // No name meets no host's key: `-` alone is everybody's.
        return vec!["!*".to_owned(), String::new()];
    }
    if !host.starts_with('[') {
        let dots = host.match_indices('.');
        below = dots.map(|(at, _)| &host[at..]).collect();
    }
    let walk = |sign: &str| -> Vec<String> {
        let names = std::iter::once(host).chain(below.iter().copied());
        names.map(|name| format!("{sign}{name}")).collect()
    };
    let mut keys = walk("!");
    keys.push("!*".to_owned());
    keys.push(format!("%{host}"));
    keys.push(format!("={host}"));
    keys.extend(walk("~"));
    keys.extend(walk(""));
    keys.push(String::new());
    keys.extend(walk("-"));
    keys
}

/// A file's text for a policy that must not be guessed: a missing file is an
/// empty one, any other failure an error.
pub(crate) fn read_optional(path: &Path) -> Result<Vec<u8>, Fail> {
    match fs::read(path) {
        Err(error) if is_absent(path, &error) => Ok(Vec::new()),
        Err(error) => {
            let shown = text::excerpt(path.as_os_str().as_encoded_bytes(), 300);
            let why = report::reason(&error);
            Err(Fail::temporary(format!("unable to read {shown}: {why}")))
        }
        Ok(text) => Ok(text),
    }
}

#[cfg(test)]
mod tests;
