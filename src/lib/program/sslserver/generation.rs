//! One generation of stores: everything that a set of files made at one time. A
//! generation is complete or not there.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::loader::Loader;
use self::names::{Choices, Names};
use super::access::{Access, other_variables, shown};
use super::{Setup, forecast};
use crate::environ::Edits;
use crate::handshake;
use crate::keyholder::{KeySource, Keyholder};
use crate::report::Fail;
use crate::rules::{Action, Rules};
use crate::settings::Settings;
use crate::store::Certificate;
use crate::store::server::{Choice, Chooser, Pair, Store};
use crate::sys::memory::shortage;
use crate::text;
use crate::watch::Watch;

mod changes;
mod loader;
mod names;

/// The stores that serve new connections.
pub(super) struct Generation {
    pub access: Access,
    /// How many stores were made when somebody met them.
    met: usize,
    stores: Vec<Served>,
    loaded: Rc<Loaded>,
    /// The store of each combination of settings that a connection can have, or
    /// why there is none.
    by_settings: HashMap<Settings, Result<usize, Fail>>,
    names: Arc<Names>,
    /// The stores that take over when a server name is asked for.
    mixed: Vec<Served>,
    /// Rules whose store cannot be loaded, with the reason.
    pub broken: BTreeMap<String, Fail>,
    /// Under -k: why no server would start.
    pub trouble: Option<Fail>,
    /// What clients will meet beside the stores.
    pub forecast: Vec<Fail>,
    /// Which variable named a file; keys are left out.
    files: BTreeMap<PathBuf, &'static str>,
    /// The files that all this was read from, as they were before.
    pub watch: Watch,
}

/// What was made of files, with these as they were before.
#[derive(Default)]
pub(super) struct Loaded {
    stores: HashMap<Settings, (Arc<Store>, Watch)>,
    /// The certificates of rules for server names that bring nothing else.
    pairs: HashMap<Settings, (Arc<Vec<Pair>>, Watch)>,
}

/// What serves a connection: its store, and what the rules for server names choose
/// over that alone.
#[derive(Clone)]
pub(super) struct Material {
    pub store: Arc<Store>,
    choices: Arc<Choices>,
}

/// A store, and what leads to it.
pub(super) struct Served {
    pub store: Arc<Store>,
    choices: Arc<Choices>,
    /// The environment alone does.
    pub own: bool,
    /// The rules that do; under -k, which prints them, and where something is to be said of
    /// the store.
    pub addresses: Vec<String>,
}

impl Served {
    /// These rules lead to it, too. They may be many thousands, whose names every fork
    /// would copy the page tables of: they stay only where somebody names them.
    fn lead(&mut self, addresses: Vec<String>, setup: &Setup) {
        if setup.options.check || !self.store.findings.is_empty() {
            self.addresses.extend(addresses);
        }
    }

    fn material(&self) -> Material {
        Material {
            store: Arc::clone(&self.store),
            choices: Arc::clone(&self.choices),
        }
    }
}

/// How many are kept that were made when somebody met them.
const MOST_MET: usize = 256;

impl Generation {
    /// Loads everything that the settings and the rules name. The paths go to
    /// `watch` before they are read, also where loading fails. What was loaded before
    /// from files that have not changed since is taken as it is.
    ///
    /// # Errors
    /// Why nobody can be served; under -k the generation has it, beside the rest.
    pub fn load(
        setup: &Setup,
        keys: &dyn KeySource,
        before: Rc<Loaded>,
        watch: &mut Watch,
    ) -> Result<Generation, Fail> {
        let access = Access::open(setup, watch);
        let mut loader = Loader::new(setup, keys, before, watch);
        let (names, trouble) = loader.load_all(&access);
        if let Some(why) = trouble.as_ref().filter(|_| !setup.options.check) {
            return Err(why.clone());
        }
        let Loader {
            stores,
            by_settings,
            mixed,
            broken,
            mut files,
            loaded,
            watch,
            ..
        } = loader;
        let watch = watch.clone();
        for path in Access::files(setup).into_iter().flatten() {
            files.insert(path.to_owned(), "rules");
        }
        Ok(Generation {
            forecast: forecast::of(setup, &access, stores.iter().chain(&mixed)),
            access,
            trouble,
            met: 0,
            stores,
            loaded: Rc::new(loaded),
            by_settings,
            names,
            mixed,
            broken,
            files,
            watch,
        })
    }

    /// Makes the store of rules that are met together for the first time, and
    /// keeps it for those to come, unless there are many. False where it cannot be
    /// made: whoever asked finds out why.
    pub fn mix(&mut self, setup: &Setup, keyholder: &mut Keyholder, settings: &Settings) -> bool {
        if self.by_settings.contains_key(settings) {
            return true;
        }
        let mut watch = Watch::default();
        let made = self.make(setup, keyholder, settings, &mut watch);
        let made = made.and_then(|served| {
            let store = &served.store;
            keyholder.permit(&store.keys, &store.permit)?;
            self.met += 1;
            if self.met <= MOST_MET {
                self.stores.push(served);
                let at = self.stores.len() - 1;
                self.by_settings.insert(settings.clone(), Ok(at));
            }
            Ok(())
        });
        self.watch.extend(watch);
        made.is_ok()
    }

    /// The same for one launcher, which has no supervisor's memory any more.
    pub fn mixed_store(
        &self,
        setup: &Setup,
        keyholder: &Keyholder,
        settings: &Settings,
    ) -> Result<Material, Fail> {
        let served = self.make(setup, keyholder, settings, &mut Watch::default())?;
        Ok(served.material())
    }

    fn make(
        &self,
        setup: &Setup,
        keyholder: &Keyholder,
        settings: &Settings,
        watch: &mut Watch,
    ) -> Result<Served, Fail> {
        let keys = keyholder.keys();
        let mut loader = Loader::new(setup, keys, Rc::clone(&self.loaded), watch);
        loader.names = Arc::clone(&self.names);
        shortage::sufficing(|| loader.make(settings))?;
        loader.stores.pop().ok_or_else(|| Fail::from(""))
    }

    /// The store of these settings, or why there is none; `None` where they are met
    /// for the first time.
    pub fn store(&self, settings: &Settings) -> Option<Result<Material, &Fail>> {
        let found = self.by_settings.get(settings)?.as_ref();
        Some(found.map(|at| self.stores[*at].material()))
    }

    /// Chooses by server name for a connection that is served with this; `None` where
    /// no rule does.
    pub fn chooser(&self, material: &Material) -> Option<Chooser> {
        if self.names.is_empty() {
            return None;
        }
        let rules = self.access.shared_main()?;
        Some(names::chooser(&self.names, rules, &material.choices))
    }

    /// What was loaded for it, for the next one.
    pub fn loaded(&self) -> Rc<Loaded> {
        Rc::clone(&self.loaded)
    }

    /// Has a new keyholder sign for a few of the stores, before the first fork: what
    /// it fills is common to all that use the same algorithms. It takes no longer than
    /// that, whatever becomes of the keyholder.
    pub fn rehearse(&self, keyholder: &mut Keyholder, patience: Duration) {
        keyholder.rehearse(patience, || {
            for served in self.stores.iter().take(REHEARSALS) {
                handshake::rehearse(&served.store.context);
            }
        });
    }

    /// Variables of the rule that a server name meets.
    pub fn name_variables(&self, name: Option<&[u8]>) -> Edits {
        let mut variables = Edits::new();
        if let (Some(rules), Some(name)) = (self.access.main(), name) {
            if let Some(rule) = rules.lookup_sni(name) {
                for (name, value) in other_variables(&rule) {
                    variables.set(name, value);
                }
            }
        }
        variables
    }

    /// Why a server name is not served, if a rule is the cause.
    pub fn name_refusal(&self, name: &[u8]) -> Option<String> {
        let rule = self.access.main()?.lookup_sni(name)?;
        let name_shown = text::value(name, 255);
        let address = shown(&rule);
        if let Some(why) = self.broken.get(&address) {
            return Some(format!("server name {name_shown}: rule {address}: {why}"));
        }
        (rule.action() == Action::Deny)
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
        let rules = self.access.main().into_iter().flat_map(Rules::iter);
        rules
            .filter_map(|rule| Some((shown(&rule), self.names.common.get(rule.key())?)))
            .collect()
    }
}

/// How many stores make a handshake with themselves.
const REHEARSALS: usize = 4;
