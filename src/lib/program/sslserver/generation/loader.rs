//! The stores of a generation in the making: one for each combination of settings
//! that the rules can bring about, each of them made once.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::names::Names;
use super::{Loaded, Served};
use crate::keyholder::KeySource;
use crate::program::sslserver::Setup;
use crate::program::sslserver::access::{Access, listed, rule_limit, rule_settings, shown};
use crate::report::Fail;
use crate::rules::{Action, Rules, Scope};
use crate::settings::{Filter, Setting, Settings};
use crate::store::jail::Jail;
use crate::store::server::{self, Pair, Store};
use crate::watch::{Changed, Watch};

/// How many stores of rules that are met together are made before somebody meets
/// them.
const MOST_AHEAD: usize = 100;

/// A generation in the making.
pub(super) struct Loader<'a> {
    pub setup: &'a Setup,
    pub keys: &'a dyn KeySource,
    /// What was loaded for the generation before.
    before: Rc<Loaded>,
    /// What is loaded for this one.
    pub loaded: Loaded,
    pub watch: &'a mut Watch,
    pub names: Arc<Names>,
    pub stores: Vec<Served>,
    pub by_settings: HashMap<Settings, Result<usize, Fail>>,
    pub mixed: Vec<Served>,
    /// How many of them lie over another rule's settings.
    pub mixed_with_rules: usize,
    pub mixed_by_settings: HashMap<Settings, Result<usize, Fail>>,
    pub broken: BTreeMap<String, Fail>,
    pub files: BTreeMap<PathBuf, &'static str>,
    /// Where engines would live, and why they can't.
    jails: HashMap<Jail, Result<(), Fail>>,
}

impl<'a> Loader<'a> {
    pub fn new(
        setup: &'a Setup,
        keys: &'a dyn KeySource,
        before: Rc<Loaded>,
        watch: &'a mut Watch,
    ) -> Self {
        Loader {
            setup,
            keys,
            before,
            loaded: Loaded::default(),
            watch,
            names: Arc::default(),
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
    /// Loads the stores of the environment and of all rules. Returns what the rules
    /// for server names choose, and why nobody can be served, if so.
    pub fn load_all(&mut self, access: &Access) -> (Arc<Names>, Option<Fail>) {
        let names = access.main().map(|rules| self.load_names(rules));
        let names = Arc::new(names.unwrap_or_default());
        self.names = Arc::clone(&names);
        self.check_limits(access);
        let own = self.load(&self.setup.settings);
        let others = self.load_rules(access);
        let trouble = own.err().filter(|_| {
            // Rules may bring all the certificates that there are.
            // Where they are lost, denying is better than serving by old ones.
            let settings = &self.setup.settings;
            let unset = settings.first_of(&["CERTFILE", "CERTCHAINFILE"]).is_none();
            let lost = access.trouble().is_some();
            !unset || (others == 0 && names.is_empty() && !lost)
        });
        (names, trouble)
    }

    /// Loads the store of these settings, unless it is there.
    fn load(&mut self, settings: &Settings) -> Result<usize, Fail> {
        if let Some(known) = self.by_settings.get(settings) {
            return known.clone();
        }
        // Loading all of them may take long.
        let made = match self.keys.pause() {
            Ok(()) => self.make(settings),
            Err(error) => Err(error.into()),
        };
        self.by_settings.insert(settings.clone(), made.clone());
        made
    }

    pub fn make(&mut self, settings: &Settings) -> Result<usize, Fail> {
        let store = self.store(settings)?;
        store.filter.check(&self.setup.sandbox)?;
        let jail = &store.jail;
        if !self.jails.contains_key(jail) {
            let tried = jail.try_out(self.setup.powers);
            self.jails.insert(jail.clone(), tried);
        }
        if let Some(Err(why)) = self.jails.get(jail) {
            return Err(why.clone());
        }
        if store.filter == Filter::Required {
            if let Some(what) = self.shared_user(&store) {
                return Err(format!("unable to use SSL_SANDBOX: \"require\": {what}").into());
            }
        }
        let names = Arc::clone(&self.names);
        let choices = Arc::new(self.load_mixed(&names, settings));
        self.stores.push(Served {
            store,
            choices,
            own: *settings == self.setup.settings,
            addresses: Vec::new(),
        });
        Ok(self.stores.len() - 1)
    }

    /// The store of these settings, from before if nothing changed.
    pub fn store(&mut self, settings: &Settings) -> Result<Arc<Store>, Fail> {
        let files = self.watch_files(settings);
        let before = Rc::clone(&self.before);
        let same = before
            .stores
            .get(settings)
            .filter(|(store, files)| files.changed() == Changed::No && self.keys.keep(&store.keys));
        let (store, files) = if let Some((store, files)) = same {
            (Arc::clone(store), files.clone())
        } else {
            let ask = self.setup.options.ask;
            let mut store = Store::load(settings, ask, self.keys.signers())?;
            let warning = self.shared_user(&store).map(Fail::warning);
            store.findings.extend(warning);
            if *settings == self.setup.settings {
                store.findings.extend(server::contradiction(settings, ask));
            }
            (Arc::new(store), files)
        };
        self.keys.permit(&store.keys, &store.permit)?;
        let kept = (Arc::clone(&store), files);
        self.loaded.stores.insert(settings.clone(), kept);
        Ok(store)
    }

    /// The certificates of these settings, likewise.
    pub fn pairs(&mut self, settings: &Settings) -> Result<Arc<Vec<Pair>>, Fail> {
        let files = self.watch_files(settings);
        let before = Rc::clone(&self.before);
        let same = before.pairs.get(settings).filter(|(pairs, files)| {
            let keys: Vec<_> = pairs.iter().map(|pair| pair.key.clone()).collect();
            files.changed() == Changed::No && self.keys.keep(&keys)
        });
        let (pairs, files) = match same {
            Some((pairs, files)) => (Arc::clone(pairs), files.clone()),
            None => (
                Arc::new(server::pairs(settings, self.keys.signers())?),
                files,
            ),
        };
        let kept = (Arc::clone(&pairs), files);
        self.loaded.pairs.insert(settings.clone(), kept);
        Ok(pairs)
    }

    /// What is to be said of a program that runs as its engines do.
    fn shared_user(&self, store: &Store) -> Option<String> {
        let program = self.setup.program.identity.as_ref()?.user?;
        let user = store.jail.shared_user(self.setup.powers)?;
        (user == program).then(|| {
            format!(
                "TLS processes run as user {user}, as -u has the program run: it could signal them; name another in SSL_UID, or unset it"
            )
        })
    }

    /// Limits on connections that are no numbers break their rules.
    fn check_limits(&mut self, access: &Access) {
        for rule in access.all() {
            if let Some(Err(why)) = rule_limit(&rule) {
                self.broken.insert(shown(&rule), why);
            }
        }
    }

    /// Watches the files of these settings from now on. Returns them, as they are.
    fn watch_files(&mut self, settings: &Settings) -> Watch {
        let mut files = Watch::default();
        for (variable, path) in settings.paths() {
            if variable == "CADIR" {
                files.add_directory(path);
            } else {
                files.add(path);
            }
            // A key has its certificate to speak for it.
            if !variable.starts_with("KEYFILE") {
                self.files.entry(path.to_owned()).or_insert(variable);
            }
        }
        self.watch.extend(files.clone());
        files
    }

    /// The store of every combination of settings that the rules can make: the
    /// environment's, and over it what connections meet in turn: the `local=` and
    /// the clients' rules of `-y`, then those of `-x`. Returns how many loaded.
    fn load_rules(&mut self, access: &Access) -> usize {
        let early = access.early().map(|rules| (rules, " of -y"));
        let main = access.main().map(|rules| (rules, ""));
        let layers: Vec<Vec<Layer>> = early
            .into_iter()
            .chain(main)
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
            Ok(at) => self.stores[at].lead(addresses, self.setup),
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
            .filter(|rule| rule.scope() == scope && rule.action() == Action::Allow)
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
