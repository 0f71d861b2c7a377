//! The rules in use: the databases of `-y` and `-x`, opened once a generation, and
//! what stands in them. What they decide of a connection is `authorize`'s.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Setup;
use crate::manager;
use crate::options::Common;
use crate::options::sslserver::CertificateRequest;
use crate::report::Fail;
use crate::rules::{Action, Rule, Rules, Scope};
use crate::settings::{self, Emptied, Judged, Setting};
use crate::text;
use crate::watch::Watch;

/// A database, or why it cannot be used.
type Database = Result<Arc<Rules>, Fail>;

/// See the file's head.
pub(super) struct Access {
    /// `None` without `-y`.
    early: Option<Database>,
    /// `None` without `-x`.
    main: Option<Database>,
    /// There is no file where a database should be.
    missing: bool,
    limits: bool,
    mixes: bool,
}

impl Access {
    /// Opens both. The paths go to `watch` before they are read.
    pub fn open(setup: &Setup, watch: &mut Watch) -> Access {
        let [early_file, main_file] = Access::files(setup);
        let (early, early_missing) = open_rules(early_file, setup, watch);
        let (main, main_missing) = open_rules(main_file, setup, watch);
        let mut access = Access {
            early,
            main,
            missing: early_missing || main_missing,
            limits: false,
            mixes: false,
        };
        let limits = access.all().any(|rule| rule_limit(&rule).is_some());
        access.limits = limits;
        access.mixes = access.lookups_with_settings() > 1;
        access
    }

    /// Where they are, as far as they are asked for: of `-y` and of `-x`.
    pub fn files(setup: &Setup) -> [Option<&Path>; 2] {
        let options = &setup.options;
        [&options.early_rules, &options.rules].map(Option::as_deref)
    }

    /// The rules of `-y`, if they are asked for.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn usable_early(&self) -> Result<Option<&Rules>, Fail> {
        usable(self.early.as_ref())
    }

    /// Likewise those of `-x`.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn usable_main(&self) -> Result<Option<&Rules>, Fail> {
        usable(self.main.as_ref())
    }

    /// The rules of `-y`, if there are some.
    pub fn early(&self) -> Option<&Rules> {
        self.usable_early().ok().flatten()
    }

    /// Likewise those of `-x`.
    pub fn main(&self) -> Option<&Rules> {
        self.usable_main().ok().flatten()
    }

    /// Every rule.
    pub fn all(&self) -> impl Iterator<Item = Rule<'_>> {
        let both = self.early().into_iter().chain(self.main());
        both.flat_map(Rules::iter)
    }

    /// Those of `-x`, for whoever keeps them.
    pub fn shared_main(&self) -> Option<Arc<Rules>> {
        self.main.as_ref()?.as_ref().ok().cloned()
    }

    /// Whether rules say how many connections an address may have: then nobody
    /// knows before they have been met.
    pub fn limits(&self) -> bool {
        self.limits
    }

    /// Whether a client may meet rules that choose a store only together.
    pub fn mixes(&self) -> bool {
        self.mixes
    }

    /// How many of the rules that one client meets may have settings: one of the client's
    /// and one of the local address's in each database.
    fn lookups_with_settings(&self) -> usize {
        let databases = [self.early(), self.main()].into_iter().flatten();
        let lookups = databases.flat_map(|rules| [(rules, Scope::Client), (rules, Scope::Local)]);
        let has_settings = |(rules, scope): &(&Rules, Scope)| {
            let mut looked_at = rules.iter().filter(|rule| rule.scope() == *scope);
            looked_at.any(|rule| !rule_settings(&rule).is_empty())
        };
        lookups.filter(has_settings).count()
    }

    /// Whether there is no file where a database should be.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// Why the rules cannot be used, if they can't.
    pub fn trouble(&self) -> Option<&Fail> {
        let mut databases = self.early.iter().chain(&self.main);
        databases.find_map(|database| database.as_ref().err())
    }

    /// The rules that a client meets by its host's name.
    pub fn client_names(&self) -> Vec<String> {
        self.main()
            .into_iter()
            .flat_map(Rules::iter)
            .filter(|rule| rule.scope() == Scope::Client)
            .map(|rule| shown(&rule))
            .filter(|address| address.starts_with('=') || address.contains("@="))
            .collect()
    }

    /// What stands in them and has no effect.
    pub fn without_effect(&self) -> Vec<String> {
        self.early().map(never_met).unwrap_or_default()
    }

    /// The rules that nobody meets, ever or under these options: a warning where one
    /// of them denies, and a note where somebody is only not let in by it, as files
    /// are often used by several servers.
    pub fn unmet(&self, options: &Common) -> Vec<Fail> {
        let of_early = self.early().into_iter().flat_map(Rules::iter);
        // Rules by name have been told of.
        let of_early = of_early.filter(|rule| !is_by_name(rule));
        let mut by_reason: BTreeMap<(Action, String), Vec<String>> = BTreeMap::new();
        for rule in of_early.chain(self.main().into_iter().flat_map(Rules::iter)) {
            if let Some(why) = why_unmet(&rule, options) {
                let addresses = by_reason.entry((rule.action(), why)).or_default();
                addresses.push(shown(&rule));
            }
        }
        let told = by_reason.into_iter().map(|((action, why), addresses)| {
            let text = format!("rule {} is met by no client{why}", listed(&addresses));
            match action {
                Action::Deny => Fail::warning(text),
                Action::Allow => Fail::note(text),
            }
        });
        told.collect()
    }

    /// The rules for server names with variables for the program, which under `-n` runs
    /// before anybody names a server.
    pub fn too_late_for_program(&self) -> Option<Fail> {
        let rules = self.main().into_iter().flat_map(Rules::iter);
        let late = |rule: &Rule<'_>| {
            rule.scope() == Scope::ServerName && other_variables(rule).next().is_some()
        };
        let addresses: Vec<String> = rules.filter(late).map(|rule| shown(&rule)).collect();
        (!addresses.is_empty()).then(|| {
            Fail::note(format!(
                "rule {}: its variables do not reach the program, which under -n runs before a client names a server",
                listed(&addresses)
            ))
        })
    }

    /// Settings that count as unset because they are set to nothing, in our environment
    /// and in rules, where ucspi-ssl would be stricter for them. Neither where an option
    /// asks for as much, nor in rules that may be there to take back another's word.
    pub fn emptied(&self, setup: &Setup) -> Vec<Fail> {
        let required = matches!(
            setup.options.ask,
            CertificateRequest::Named | CertificateRequest::Required
        );
        let matters = |one: &Emptied| !(required && one.name == settings::REQUIRES);
        let own = Emptied::in_environment().filter(matters);
        let mut found: Vec<Fail> = own
            .map(|one| Fail::warning(format!("environment: {one}")))
            .collect();
        let mut by_name: BTreeMap<&str, (Emptied, Vec<String>)> = BTreeMap::new();
        for rule in self.all() {
            let empty = rule.variables().filter(|(_, value)| value.is_empty());
            for one in Emptied::among(empty.map(|(name, _)| name)).filter(matters) {
                let (_, addresses) = by_name.entry(one.name).or_insert((one, Vec::new()));
                addresses.push(shown(&rule));
            }
        }
        let takes_back = |name: &str| {
            let sets = |rule: Rule<'_>| {
                let mut variables = rule.variables();
                variables.any(|(of, value)| of == name.as_bytes() && !value.is_empty())
            };
            setup.settings.has(name) || self.all().any(sets)
        };
        let told = by_name.into_iter().filter(|(name, _)| !takes_back(name));
        found.extend(told.map(|(_, (one, addresses))| {
            Fail::warning(format!("rule {}: {one}", listed(&addresses)))
        }));
        found
    }

    /// What looks like a setting and is none, in our environment and in rules.
    pub fn misspelt(&self) -> Vec<String> {
        let mut found = settings::misspelt_in_environment(settings::NAMES);
        let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // The supervisor does this, while clients wait.
        let mut judged = Judged::default();
        for rule in self.all() {
            for (name, _) in rule.variables() {
                if let Some(misspelt) = judged.find(name) {
                    let addresses = by_text.entry(misspelt.to_string()).or_default();
                    addresses.push(shown(&rule));
                }
            }
        }
        found.extend(
            by_text
                .into_iter()
                .map(|(text, addresses)| format!("rule {}: variable {text}", listed(&addresses))),
        );
        found
    }
}

/// The rules of a database, if there is one.
fn usable(database: Option<&Database>) -> Result<Option<&Rules>, Fail> {
    match database {
        None => Ok(None),
        Some(Ok(rules)) => Ok(Some(rules)),
        Some(Err(why)) => Err(why.clone()),
    }
}

/// The rules, and whether there is no file where they should be. One that cannot
/// be reached, for a loop of links or for want of a right, is not missing.
fn open_rules(file: Option<&Path>, setup: &Setup, watch: &mut Watch) -> (Option<Database>, bool) {
    let Some(file) = file else {
        return (None, false);
    };
    watch.add(file);
    let opened = if setup.options.missing_rules_allow {
        Rules::open_or_none(file)
    } else {
        Rules::open(file)
    };
    let missing = matches!(&opened, Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    let path = text::excerpt(file.as_os_str().as_encoded_bytes(), 300);
    let step = format!("read rules {path}");
    let opened = opened
        .map(Rules::unforked)
        .map(Arc::new)
        .map_err(Fail::unable(step));
    (Some(opened), missing)
}

/// The rules of `-y` that nobody meets: those by a name.
fn never_met(rules: &Rules) -> Vec<String> {
    let addresses: Vec<String> = rules
        .iter()
        .filter(is_by_name)
        .map(|rule| shown(&rule))
        .collect();
    if addresses.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "rule {} of -y has no effect: -y looks up addresses alone; put it into -x",
        listed(&addresses)
    )]
}

/// Whether a rule goes by anything but an address.
fn is_by_name(rule: &Rule<'_>) -> bool {
    let key = rule.key();
    match rule.scope() {
        Scope::ServerName => true,
        Scope::Local => false,
        Scope::Client => key.contains(&b'=') || key.contains(&b'@'),
    }
}

/// Why nobody meets a rule under these options: in parentheses, or behind a colon with
/// the option.
fn why_unmet(rule: &Rule<'_>, options: &Common) -> Option<String> {
    if let Some(unmet) = rule.unmet() {
        return Some(unmet.to_string());
    }
    let key = rule.key();
    if rule.scope() != Scope::Client {
        return None;
    }
    let by_host = key.starts_with(b"=") || key.windows(2).any(|two| two == b"@=");
    if by_host && !options.lookup {
        Some(": -H looks up no host's name: leave it out, or go by addresses".to_owned())
    } else if key.contains(&b'@') && !options.ident {
        Some(": without -r no ident server is asked".to_owned())
    } else {
        None
    }
}

/// A rule's address as messages show it; the one that every client meets has
/// none.
pub(super) fn shown(rule: &Rule<'_>) -> String {
    let address = rule.address();
    if address.is_empty() {
        "(empty)".to_owned()
    } else {
        address
    }
}

/// The variables of a rule that are settings.
pub(super) fn rule_settings(rule: &Rule<'_>) -> Vec<Setting> {
    rule.variables()
        .filter_map(|(name, value)| Some((settings::called(name)?, OsStr::from_bytes(value))))
        .filter(|(name, _)| *name != settings::CONNECTIONS)
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

/// What a rule says of how many connections at once an address may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleLimit {
    /// So many; 0 for any number.
    Of(usize),
    /// The empty value: what the environment or an earlier rule says is unset, and
    /// `-C` alone holds.
    Unset,
}

/// The limit of this rule, if it speaks of one.
pub(super) fn rule_limit(rule: &Rule<'_>) -> Option<Result<RuleLimit, Fail>> {
    let (_, value) = rule
        .variables()
        .filter(|(name, _)| *name == settings::CONNECTIONS.as_bytes())
        .last()?;
    Some(if value.is_empty() {
        Ok(RuleLimit::Unset)
    } else {
        settings::connections(OsStr::from_bytes(value)).map(RuleLimit::Of)
    })
}

/// The variables of a rule that are the program's: neither settings nor the words of a
/// service manager, which are for this server alone.
pub(super) fn other_variables<'a>(rule: &Rule<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    rule.variables()
        .filter(|(name, _)| settings::called(name).is_none())
        .filter(|(name, _)| !manager::VARIABLES.iter().any(|of| of.as_bytes() == *name))
}

/// Addresses of rules as a message names them.
pub(super) fn listed<T: AsRef<str>>(addresses: &[T]) -> String {
    /// How many are named.
    const NAMED: usize = 10;
    let named = &addresses[..addresses.len().min(NAMED)];
    let text = named
        .iter()
        .map(AsRef::as_ref)
        .collect::<Vec<&str>>()
        .join(", ");
    match addresses.len() - named.len() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
