//! One generation of stores: everything that a set of files made at one time. A
//! generation is complete or not there.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use self::loader::Loader;
use self::names::Names;
use super::Setup;
use super::access::{Access, other_variables, shown};
use crate::environ::Edits;
use crate::handshake;
use crate::keyholder::{Alone, Keyholder, Loading, Master, Meanwhile};
use crate::report::Fail;
use crate::rules::{Rules, Verdict};
use crate::settings::Settings;
use crate::store::Certificate;
use crate::store::server::{Choice, Store};
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
        let access = Access::open(setup, watch);
        let mut loader = Loader::new(setup, &keys, watch);
        let names = loader.load_all(&access)?;
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
        for path in Access::files(setup).into_iter().flatten() {
            files.insert(path.to_owned(), "rules");
        }
        Ok(Generation {
            access,
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
        let mut loader = Loader::new(setup, keys, watch);
        loader.name_by(&self.access, &self.names);
        loader.make(settings)?;
        loader.stores.pop().ok_or_else(String::new)
    }

    /// The store of these settings, or why there is none; `None` where they are met
    /// for the first time.
    pub fn store(&self, settings: &Settings) -> Option<Result<&Arc<Store>, &str>> {
        let found = self.by_settings.get(settings)?.as_ref();
        Some(
            found
                .map(|at| &self.stores[*at].store)
                .map_err(|why| &**why),
        )
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
        let rules = self.access.main().into_iter().flat_map(Rules::iter);
        rules
            .filter_map(|rule| Some((shown(&rule), self.names.common.get(rule.key())?)))
            .collect()
    }
}

/// How many stores make a handshake with themselves before the first fork: what
/// it fills is common to all that use the same algorithms.
const REHEARSALS: usize = 4;
