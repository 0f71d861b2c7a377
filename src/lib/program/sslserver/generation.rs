//! One generation of stores: everything that a set of files made at one time. A
//! generation is complete or not there.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Setup;
use super::names::{self, Names};
use crate::connection::Connection;
use crate::environ::Edits;
use crate::handshake;
use crate::keyholder::{Alone, Keyholder, Loading, Master, Meanwhile};
use crate::report::{self, Fail, Report};
use crate::rules::{Client, Rule, Rules, Scope, Verdict};
use crate::settings::{self, Filter, Misspelt, Settings};
use crate::store::jail::Jail;
use crate::store::server::{Choice, Store};
use crate::store::{Certificate, Finding};
use crate::text;
use crate::watch::Watch;

/// A variable of a rule that is a setting.
pub(super) type Setting = (String, String);

/// The stores that serve new connections.
pub(super) struct Generation {
    /// `None` without `-y`; the reason where the database cannot be used.
    early: Option<Result<Arc<Rules>, String>>,
    /// Likewise of `-x`.
    rules: Option<Result<Arc<Rules>, String>>,
    /// There is no file where the database should be.
    rules_missing: bool,
    limits_by_rule: bool,
    /// How many stores were made when somebody met them.
    met: usize,
    stores: Vec<Served>,
    /// What signs for them.
    pub keyholder: Keyholder,
    /// The store of each combination of settings that a connection can have, or
    /// why there is none.
    by_settings: HashMap<Settings, Result<usize, String>>,
    names: Arc<Names>,
    /// The stores that take over when a server name is asked for.
    mixed: Vec<Served>,
    /// Rules whose store cannot be loaded, with the reason.
    pub broken: BTreeMap<String, String>,
    /// Variables that look like settings and are none.
    pub misspelt: Vec<String>,
    /// Rules that have no effect where they stand.
    pub idle: Vec<String>,
    /// Which variable named a file; keys are left out.
    files: BTreeMap<PathBuf, &'static str>,
    /// The files that all this was read from, as they were before.
    pub watch: Watch,
}

/// A store, and what leads to it.
pub(super) struct Served {
    pub store: Arc<Store>,
    /// The environment alone does.
    pub own: bool,
    /// The rules that do.
    pub addresses: Vec<String>,
}

/// What a connection meets.
pub(super) struct Chosen {
    pub store: Arc<Store>,
    /// Variables of its rules that are no settings.
    pub variables: Edits,
    /// How many connections at once its address may have, where a rule says so;
    /// 0 for any number.
    pub limit: Option<usize>,
}

/// Why a connection is not served.
pub(super) enum Refusal {
    /// A rule says so.
    Denied,
    /// What should serve it is not there.
    Unable(String),
    /// What should serve it was not made yet.
    Unmade(Box<Unmade>),
}

/// What a connection met that has no store yet.
pub(super) struct Unmade {
    pub settings: Settings,
    pub variables: Edits,
    pub limit: Option<usize>,
}

/// How many stores of rules that are met together are made before somebody meets
/// them.
const MOST_AHEAD: usize = 100;
/// How many are kept that were made when somebody met them.
const MOST_MET: usize = 256;

impl Generation {
    /// Loads everything that the settings and the rules name. The paths go to
    /// `watch` before they are read, also where loading fails.
    pub fn load(
        setup: &Setup,
        master: &Master,
        watch: &mut Watch,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Generation, Fail> {
        let mut keyholder = Keyholder::open(master, meanwhile)?;
        let keys = Loading::new(&keyholder, meanwhile);
        let early_file = setup.options.early_rules.as_deref().map(Path::new);
        let rules_file = setup.options.rules.as_deref().map(Path::new);
        let (early, early_missing) = open_rules(early_file, setup, watch);
        let (rules, rules_missing) = open_rules(rules_file, setup, watch);
        let mut loader = Loader::new(setup, &keys, watch);
        let mut names = Arc::default();
        if let Some(Ok(rules)) = &rules {
            names = Arc::new(loader.load_names(rules));
            if !names.is_empty() {
                loader.named = Some((Arc::clone(rules), Arc::clone(&names)));
            }
        }
        let limits_by_rule = loader.check_limits(early.iter().chain(&rules).flatten());
        let own = loader.load(&setup.settings);
        let others = loader.load_rules(early.iter().flatten(), rules.iter().flatten());
        if let Err(why) = own {
            // Rules may bring all the certificates that there are.
            // Where they are lost, denying is better than serving by old ones.
            let unset = setup.settings.either("CERTFILE", "CERTCHAINFILE").is_none();
            let lost = matches!(rules, Some(Err(_))) || matches!(early, Some(Err(_)));
            if !unset || (others == 0 && names.is_empty() && !lost) {
                return Err(Fail::temporary(why));
            }
        }
        let Loader {
            stores,
            by_settings,
            mixed,
            broken,
            mut files,
            watch,
            ..
        } = loader;
        let watch = watch.clone();
        keyholder.seal(master, meanwhile)?;
        keyholder.rehearse(|| {
            for served in stores.iter().take(REHEARSALS) {
                handshake::rehearse(&served.store.context);
            }
        });
        for path in [early_file, rules_file].into_iter().flatten() {
            files.insert(path.to_owned(), "rules");
        }
        Ok(Generation {
            idle: early
                .iter()
                .flatten()
                .flat_map(|rules| never_met(rules))
                .collect(),
            misspelt: misspelt(early.iter().chain(&rules).flatten()),
            early,
            rules,
            rules_missing: early_missing || rules_missing,
            limits_by_rule,
            met: 0,
            stores,
            keyholder,
            by_settings,
            names,
            mixed,
            broken,
            files,
            watch,
        })
    }

    /// What can be said of a connection before anybody is asked for a name: the
    /// rules of `-y`.
    pub fn judge_early(&self, connection: &Connection) -> Result<(), Refusal> {
        let Some(rules) = usable(self.early.as_ref())? else {
            return Ok(());
        };
        let met = [
            rules.lookup_local(connection.local.address.ip()),
            rules.lookup(&by_address(connection)),
        ];
        let denies = |rule: &Rule<'_>| rule.verdict() == Verdict::Deny;
        if met.iter().flatten().any(denies) {
            return Err(Refusal::Denied);
        }
        Ok(())
    }

    /// The store and the variables of a connection.
    pub fn choose(&self, setup: &Setup, connection: &Connection) -> Result<Chosen, Refusal> {
        let (mut settings, mut limit) = (None, None);
        let mut variables = Edits::new();
        let connected_at = connection.local.address.ip();
        let mut met = Vec::new();
        if let Some(rules) = usable(self.early.as_ref())? {
            met.push(rules.lookup_local(connected_at));
            met.push(rules.lookup(&by_address(connection)));
        }
        if let Some(rules) = usable(self.rules.as_ref())? {
            let client = Client::new(
                connection.remote.address.ip(),
                connection.remote.name.as_deref(),
                connection.info.as_deref(),
            );
            met.push(rules.lookup_local(connected_at));
            met.push(rules.lookup(&client));
        }
        for rule in met.into_iter().flatten() {
            if rule.verdict() == Verdict::Deny {
                return Err(Refusal::Denied);
            }
            let changed = rule_settings(&rule);
            if !changed.is_empty() {
                settings
                    .get_or_insert_with(|| setup.settings.clone())
                    .overlay(changed);
            }
            if let Some(own) = rule_limit(&rule) {
                limit = Some(own.map_err(Refusal::Unable)?);
            }
            for (name, value) in other_variables(&rule) {
                variables.set(name, value);
            }
        }
        let settings = settings.as_ref().unwrap_or(&setup.settings);
        match self.by_settings.get(settings) {
            Some(Ok(at)) => Ok(Chosen {
                store: Arc::clone(&self.stores[*at].store),
                variables,
                limit,
            }),
            Some(Err(why)) => Err(Refusal::Unable(why.clone())),
            None => Err(Refusal::Unmade(Box::new(Unmade {
                settings: settings.clone(),
                variables,
                limit,
            }))),
        }
    }

    /// Makes the store of rules that are met together for the first time, and
    /// keeps it for those to come, unless there are many. False where it cannot be
    /// made: whoever asked finds out why.
    pub fn mix(&mut self, setup: &Setup, settings: &Settings) -> bool {
        if self.by_settings.contains_key(settings) {
            return true;
        }
        let mut watch = Watch::default();
        let mut meanwhile = Alone;
        let keys = Loading::new(&self.keyholder, &mut meanwhile);
        let made = self.make(setup, settings, &keys, &mut watch);
        let made = made.map(|served| {
            self.met += 1;
            if self.met <= MOST_MET {
                self.stores.push(served);
                let at = self.stores.len() - 1;
                self.by_settings.insert(settings.clone(), Ok(at));
            }
        });
        self.watch.extend(watch);
        made.is_ok()
    }

    /// The same for one launcher, which has no supervisor's memory any more.
    pub fn mixed_store(&self, setup: &Setup, settings: &Settings) -> Result<Arc<Store>, String> {
        let mut meanwhile = Alone;
        let keys = Loading::apart(&self.keyholder, &mut meanwhile);
        let mut watch = Watch::default();
        let served = self.make(setup, settings, &keys, &mut watch)?;
        Ok(served.store)
    }

    fn make<'l>(
        &self,
        setup: &'l Setup,
        settings: &Settings,
        keys: &'l Loading<'l>,
        watch: &'l mut Watch,
    ) -> Result<Served, String> {
        let rules = self.rules.iter().flatten().next();
        let mut loader = Loader {
            named: rules
                .filter(|_| !self.names.is_empty())
                .map(|rules| (Arc::clone(rules), Arc::clone(&self.names))),
            ..Loader::new(setup, keys, watch)
        };
        loader.make(settings)?;
        loader.stores.pop().ok_or_else(String::new)
    }

    /// Whether rules say how many connections an address may have: then nobody
    /// knows before they have been met.
    pub fn limits_by_rule(&self) -> bool {
        self.limits_by_rule
    }

    /// Variables of the rule that a server name meets.
    pub fn name_variables(&self, name: Option<&[u8]>) -> Edits {
        let mut variables = Edits::new();
        if let (Some(Ok(rules)), Some(name)) = (&self.rules, name)
            && let Some(rule) = rules.lookup_sni(name)
        {
            for (name, value) in other_variables(&rule) {
                variables.set(name, value);
            }
        }
        variables
    }

    /// Why a server name is not served, if a rule is the cause.
    pub fn name_refusal(&self, name: &[u8]) -> Option<String> {
        let Some(Ok(rules)) = &self.rules else {
            return None;
        };
        let rule = rules.lookup_sni(name)?;
        let name_shown = text::value(name, 255);
        let address = shown(&rule);
        if let Some(why) = self.broken.get(&address) {
            return Some(format!("server name {name_shown}: rule {address}: {why}"));
        }
        (rule.verdict() == Verdict::Deny)
            .then(|| format!("server name {name_shown} is denied by rule {address}"))
    }

    /// Every certificate in use.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let own = self
            .stores
            .iter()
            .chain(&self.mixed)
            .flat_map(|served| &served.store.certificates);
        let named = self
            .names
            .common
            .values()
            .filter_map(|choice| match choice {
                Choice::Pairs(pairs) => Some(pairs),
                _ => None,
            });
        own.chain(named.flat_map(|pairs| pairs.iter().map(|pair| &pair.certificate)))
    }

    /// The stores, the environment's own first if there is one.
    pub fn stores(&self) -> &[Served] {
        &self.stores
    }

    /// The stores that take over when a server name is asked for.
    pub fn mixed(&self) -> &[Served] {
        &self.mixed
    }

    /// The rules for server names, by address, with what they choose, but for
    /// those that choose a store.
    pub fn named(&self) -> Vec<(String, &Choice)> {
        let Some(Ok(rules)) = &self.rules else {
            return Vec::new();
        };
        rules
            .iter()
            .filter_map(|rule| Some((shown(&rule), self.names.common.get(rule.key())?)))
            .collect()
    }

    /// The rules that a client meets by its host's name.
    pub fn client_names(&self) -> Vec<String> {
        let Some(Ok(rules)) = &self.rules else {
            return Vec::new();
        };
        rules
            .iter()
            .filter(|rule| rule.scope() == Scope::Client)
            .map(|rule| shown(&rule))
            .filter(|address| address.starts_with('=') || address.contains("@="))
            .collect()
    }

    /// `rule ADDRESS: REASON`, with the rules that have one reason in one line.
    pub fn broken_lines(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (address, why) in &self.broken {
            by_reason.entry(why).or_default().push(address);
        }
        by_reason
            .into_iter()
            .map(|(why, addresses)| format!("rule {}: {why}", listed(&addresses)))
            .collect()
    }

    /// Why the rules cannot be used, if they can't.
    pub fn rules_trouble(&self) -> Option<&str> {
        let databases = self.early.iter().chain(&self.rules);
        databases
            .filter_map(|database| database.as_ref().err())
            .map(String::as_str)
            .next()
    }

    /// What an administrator should know, each thing once.
    pub fn warnings(&self) -> BTreeSet<String> {
        let mut warnings = BTreeSet::new();
        if let Some(why) = self.rules_trouble() {
            warnings.insert(format!("{why}: every client is denied"));
        }
        warnings.extend(self.broken_lines());
        warnings.extend(self.misspelt.iter().chain(&self.idle).cloned());
        let of_stores = self
            .stores
            .iter()
            .chain(&self.mixed)
            .flat_map(|served| served.store.findings.iter().cloned());
        let of_certificates = self.certificates().flat_map(Certificate::findings);
        warnings.extend(
            of_stores
                .chain(of_certificates)
                .filter_map(|finding| finding.warning().map(str::to_owned)),
        );
        warnings
    }

    /// Says it, but for what was said of the generation before.
    pub fn warn(&self, before: Option<&Generation>, report: &Report) {
        let said = before.map(Generation::warnings).unwrap_or_default();
        for warning in self.warnings().difference(&said) {
            report.warning(warning);
        }
    }

    /// Says which certificates are near their end, or past it.
    pub fn warn_of_dates(&self, report: &Report) {
        let findings: BTreeSet<Finding> =
            self.certificates().flat_map(Certificate::dates).collect();
        for warning in findings.iter().filter_map(Finding::warning) {
            report.warning(warning);
        }
    }

    /// Says what differs from the generation before.
    pub fn tell_changes(&self, before: &Generation, report: &Report) {
        let by_place = |generation: &Generation| -> BTreeMap<(&'static str, String), String> {
            generation
                .certificates()
                .map(|certificate| {
                    (
                        (certificate.variable, certificate.path.clone()),
                        certificate.description(),
                    )
                })
                .collect()
        };
        let (old, new) = (by_place(before), by_place(self));
        let mut told = BTreeSet::new();
        for ((variable, path), description) in &new {
            let path_shown = text::excerpt(path.as_bytes(), 200);
            match old.get(&(*variable, path.clone())) {
                Some(same) if same == description => {}
                Some(old) => {
                    told.insert(Path::new(path));
                    report.notice(format_args!(
                        "{variable} {path_shown} changed: from {old} to {description}"
                    ));
                }
                None => {
                    told.insert(Path::new(path));
                    report.notice(format_args!("{variable} {path_shown} added: {description}"));
                }
            }
        }
        // A file that is new here comes with a rule that changed, and the one
        // of a directory with the directory.
        let others: BTreeSet<(&str, &Path)> = self
            .watch
            .changed_since(&before.watch)
            .filter(|path| !told.contains(path))
            .flat_map(|path| [Some(path), path.parent()].into_iter().flatten())
            .filter_map(|path| Some((*self.files.get(path)?, path)))
            .filter(|(_, path)| before.files.contains_key(*path))
            .collect();
        for (variable, path) in others {
            let path_shown = text::excerpt(path.as_os_str().as_encoded_bytes(), 200);
            report.notice(format_args!("{variable} {path_shown} changed"));
        }
    }

    /// Whether a rule's store that could be loaded before cannot be now.
    pub fn lost_rule(&self, before: &Generation) -> Option<String> {
        // A damaged file may be one that is still being written. One that is
        // gone is gone: nobody must be let in by rules that were taken away.
        if let (Some(why), None, false) = (
            self.rules_trouble(),
            before.rules_trouble(),
            self.rules_missing,
        ) {
            return Some(why.to_owned());
        }
        self.broken
            .iter()
            .find(|(address, _)| !before.broken.contains_key(*address))
            .map(|(address, why)| format!("rule {address}: {why}"))
    }
}

/// How many stores make a handshake with themselves before the first fork: what
/// it fills is common to all that use the same algorithms.
const REHEARSALS: usize = 4;

/// The largest rules that are read, in bytes, as of any file.
const RULES_LIMIT: u64 = 16 << 20;

/// The rules, and whether there is no file where they should be. One that cannot
/// be reached, for a loop of links or for want of a right, is not missing.
fn open_rules(
    file: Option<&Path>,
    setup: &Setup,
    watch: &mut Watch,
) -> (Option<Result<Arc<Rules>, String>>, bool) {
    let Some(file) = file else {
        return (None, false);
    };
    watch.add(file);
    let large = std::fs::metadata(file).is_ok_and(|about| about.len() > RULES_LIMIT);
    let opened = if large {
        Err(std::io::Error::other("it is larger than 16 MB"))
    } else if setup.options.missing_rules_allow {
        Rules::open_or_none(file)
    } else {
        Rules::open(file)
    };
    let missing = matches!(&opened, Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    let opened = opened.map(Arc::new).map_err(|error| {
        let path = text::excerpt(file.as_os_str().as_encoded_bytes(), 300);
        format!("unable to read rules {path}: {}", report::reason(&error))
    });
    (Some(opened), missing)
}

/// The rules of a database, if there is one.
fn usable(database: Option<&Result<Arc<Rules>, String>>) -> Result<Option<&Rules>, Refusal> {
    match database {
        None => Ok(None),
        Some(Ok(rules)) => Ok(Some(rules)),
        Some(Err(why)) => Err(Refusal::Unable(why.clone())),
    }
}

/// A connection's client before anybody was asked for a name.
fn by_address(connection: &Connection) -> Client {
    Client::new(connection.remote.address.ip(), None, None)
}

/// The rules of `-y` that nobody meets: those by a name.
fn never_met(rules: &Rules) -> Vec<String> {
    let addresses: Vec<String> = rules
        .iter()
        .filter(|rule| {
            let key = rule.key();
            rule.scope() == Scope::ServerName
                || rule.scope() == Scope::Client && (key.contains(&b'=') || key.contains(&b'@'))
        })
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
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    rule.variables()
        .map(|(name, value)| (text(name), text(value)))
        .filter(|(name, _)| settings::is_setting(name) && name != settings::CONNECTIONS)
        .collect()
}

/// How many connections at once an address may have by this rule, if it says so.
fn rule_limit(rule: &Rule<'_>) -> Option<Result<usize, String>> {
    let (_, value) = rule
        .variables()
        .filter(|(name, _)| *name == settings::CONNECTIONS.as_bytes())
        .last()?;
    let value = String::from_utf8_lossy(value);
    Some(if value.is_empty() {
        Ok(0)
    } else {
        settings::connections(&value).map_err(|fail| fail.to_string())
    })
}

/// The variables of a rule that are the program's.
fn other_variables<'a>(rule: &Rule<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    rule.variables().filter(|(name, _)| {
        let name = std::str::from_utf8(name).unwrap_or_default();
        !settings::is_setting(name)
    })
}

/// What looks like a setting and is none, in our environment and in rules.
fn misspelt<'a>(rules: impl Iterator<Item = &'a Arc<Rules>>) -> Vec<String> {
    let mut found = settings::misspelt_in_environment(settings::NAMES);
    let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in rules.flat_map(|rules| rules.iter()) {
        for (name, _) in rule.variables() {
            if let Some(misspelt) = Misspelt::find(name) {
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

/// A generation in the making.
pub(super) struct Loader<'a> {
    pub setup: &'a Setup,
    pub keys: &'a Loading<'a>,
    watch: &'a mut Watch,
    named: Option<(Arc<Rules>, Arc<Names>)>,
    stores: Vec<Served>,
    by_settings: HashMap<Settings, Result<usize, String>>,
    pub mixed: Vec<Served>,
    /// How many of them lie over another rule's settings.
    pub mixed_with_rules: usize,
    pub mixed_by_settings: HashMap<Settings, Result<usize, String>>,
    pub broken: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, &'static str>,
    /// Where engines would live, and why they can't.
    jails: HashMap<Jail, Result<(), String>>,
}

impl<'a> Loader<'a> {
    fn new(setup: &'a Setup, keys: &'a Loading<'a>, watch: &'a mut Watch) -> Self {
        Loader {
            setup,
            keys,
            watch,
            named: None,
            stores: Vec::new(),
            by_settings: HashMap::new(),
            mixed: Vec::new(),
            mixed_with_rules: 0,
            mixed_by_settings: HashMap::new(),
            broken: BTreeMap::new(),
            files: BTreeMap::new(),
            jails: HashMap::new(),
        }
    }
}

impl Loader<'_> {
    /// Loads the store of these settings, unless it is there.
    fn load(&mut self, settings: &Settings) -> Result<usize, String> {
        if let Some(known) = self.by_settings.get(settings) {
            return known.clone();
        }
        // Loading all of them may take long.
        let made = match self.keys.pause() {
            Ok(()) => self.make(settings),
            Err(error) => Err(report::reason(&error)),
        };
        self.by_settings.insert(settings.clone(), made.clone());
        made
    }

    fn make(&mut self, settings: &Settings) -> Result<usize, String> {
        self.watch_files(settings);
        let ask = self.setup.options.ask;
        let own = names::Own::default();
        let chooser = self
            .named
            .as_ref()
            .map(|(rules, names)| Names::chooser(names, rules, Arc::clone(&own)));
        let store =
            Store::load(settings, ask, self.keys, chooser).map_err(|fail| fail.to_string())?;
        let checked = store.filter.check(&self.setup.sandbox);
        checked.map_err(|fail| fail.to_string())?;
        let jail = &store.jail;
        if !self.jails.contains_key(jail) {
            let tried = jail.try_out(self.setup.powers);
            self.jails
                .insert(jail.clone(), tried.map_err(|fail| fail.to_string()));
        }
        if let Some(Err(why)) = self.jails.get(jail) {
            return Err(why.clone());
        }
        let mut store = store;
        let program = self.setup.identity.as_ref().and_then(|one| one.user);
        if let Some(user) = store.jail.shared_user(self.setup.powers)
            && Some(user) == program
        {
            let what = format!(
                "TLS processes run as user {user}, as -u has the program run: \
                 it could signal them; name another in SSL_UID, or unset it"
            );
            if store.filter == Filter::Required {
                return Err(format!("unable to use SSL_SANDBOX: \"require\": {what}"));
            }
            store.findings.push(Finding::Wrong(what));
        }
        if let Some((_, names)) = self.named.clone() {
            // It was made just now, and nobody has filled it.
            let _ = own.set(self.load_mixed(&names, settings));
        }
        self.stores.push(Served {
            store: Arc::new(store),
            own: *settings == self.setup.settings,
            addresses: Vec::new(),
        });
        Ok(self.stores.len() - 1)
    }

    /// Whether some rule has a limit on connections; those that are no numbers
    /// are broken.
    fn check_limits<'r>(&mut self, rules: impl Iterator<Item = &'r Arc<Rules>>) -> bool {
        let mut some = false;
        for rule in rules.flat_map(|rules| rules.iter()) {
            let limit = rule_limit(&rule);
            some |= limit.is_some();
            if let Some(Err(why)) = limit {
                self.broken.insert(shown(&rule), why);
            }
        }
        some
    }

    pub(super) fn watch_files(&mut self, settings: &Settings) {
        for (variable, path) in settings.paths() {
            let path = Path::new(path);
            if variable == "CADIR" {
                self.watch.add_directory(path);
            } else {
                self.watch.add(path);
            }
            // A key has its certificate to speak for it.
            if !variable.starts_with("KEYFILE") {
                self.files.entry(path.to_owned()).or_insert(variable);
            }
        }
    }

    /// The store of every combination of settings that the rules can make: the
    /// environment's, and over it what connections meet in turn: the `local=` and
    /// the clients' rules of `-y`, then those of `-x`. Returns how many loaded.
    fn load_rules<'r>(
        &mut self,
        early: impl Iterator<Item = &'r Arc<Rules>>,
        rules: impl Iterator<Item = &'r Arc<Rules>>,
    ) -> usize {
        let early = early.map(|rules| (rules, " of -y"));
        let layers: Vec<Vec<Layer>> = early
            .chain(rules.map(|rules| (rules, "")))
            .flat_map(|(rules, of)| {
                [Scope::Local, Scope::Client].map(|scope| Layer::of(rules, scope, of))
            })
            .collect();
        let before = self.stores.len();
        let own = self.setup.settings.clone();
        let alone: usize = layers.iter().map(Vec::len).sum();
        let all = layers
            .iter()
            .fold(1_usize, |all, layer| all.saturating_mul(layer.len() + 1));
        if all - 1 - alone <= MOST_AHEAD {
            self.load_layers(&layers, &own, &mut Vec::new());
        } else {
            // Those of several together are made when somebody meets them.
            for layer in layers.iter().flatten() {
                let mut over = own.clone();
                over.overlay(layer.settings.iter().cloned());
                self.load_met(&over, &[&layer.addresses]);
            }
        }
        self.stores.len() - before
    }

    /// The stores of these settings, `met` having led to them, with each of the
    /// first layer's over it or without.
    fn load_layers<'l>(
        &mut self,
        layers: &'l [Vec<Layer>],
        settings: &Settings,
        met: &mut Vec<&'l [String]>,
    ) {
        let Some((first, others)) = layers.split_first() else {
            self.load_met(settings, met);
            return;
        };
        self.load_layers(others, settings, met);
        for layer in first {
            let mut over = settings.clone();
            over.overlay(layer.settings.iter().cloned());
            met.push(&layer.addresses);
            self.load_layers(others, &over, met);
            met.pop();
        }
    }

    fn load_met(&mut self, settings: &Settings, met: &[&[String]]) {
        let addresses = match met {
            [] => return,
            [addresses] => addresses.to_vec(),
            several => {
                let lists: Vec<String> = several.iter().rev().map(|one| listed(one)).collect();
                vec![lists.join(" with ")]
            }
        };
        match self.load(settings) {
            Ok(at) => self.stores[at].addresses.extend(addresses),
            // One of them was named with what is wrong.
            Err(_)
                if met.len() > 1
                    && met
                        .iter()
                        .filter_map(|one| one.first())
                        .any(|one| self.broken.contains_key(one)) => {}
            Err(why) => {
                let broken = addresses.into_iter().map(|one| (one, why.clone()));
                self.broken.extend(broken);
            }
        }
    }
}

/// Rules with the same settings, which lie over those of other rules.
struct Layer {
    settings: Vec<Setting>,
    addresses: Vec<String>,
}

impl Layer {
    /// Those of a scope that have settings. `of` stands behind each address.
    fn of(rules: &Rules, scope: Scope, of: &str) -> Vec<Layer> {
        let mut places = HashMap::new();
        let mut found: Vec<Layer> = Vec::new();
        for rule in rules
            .iter()
            .filter(|rule| rule.scope() == scope && rule.verdict() == Verdict::Allow)
        {
            let settings = rule_settings(&rule);
            if settings.is_empty() {
                continue;
            }
            let at = *places.entry(settings.clone()).or_insert(found.len());
            if at == found.len() {
                found.push(Layer {
                    settings,
                    addresses: Vec::new(),
                });
            }
            found[at].addresses.push(shown(&rule) + of);
        }
        found
    }
}
