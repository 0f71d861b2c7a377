//! The rules for server names: what each of them chooses when a ClientHello asks
//! for its name. A rule that brings certificates alone chooses them whatever else
//! holds for the connection. One with other settings chooses a store, made of
//! these over the settings that the connection has without it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use super::Served;
use super::loader::Loader;
use crate::program::sslserver::access::{rule_settings, shown};
use crate::report::Fail;
use crate::rules::{Action, Rule, Rules, Scope};
use crate::settings::{self, Setting, Settings};
use crate::store::server::{Choice, Chooser, Store};

/// The settings of a certificate. They take over together: a rule's certificate
/// has nothing to do with the key of another.
const CERTIFICATE: &[&str] = &[
    "CERTCHAINFILE",
    "CERTFILE",
    "CERTFILE_ALT",
    "KEYFILE",
    "KEYFILE_ALT",
];

/// How many stores rules for server names may make together with other rules:
/// the one kind multiplies with the other.
const MOST_MIXED: usize = 256;

/// What the rules for server names choose, by the key of each.
#[derive(Default)]
pub(super) struct Names {
    /// Those that choose the same for every connection.
    pub common: Choices,
    mixed: Vec<Mixed>,
}

/// A rule whose settings are laid over the connection's.
struct Mixed {
    key: Vec<u8>,
    address: String,
    settings: Vec<Setting>,
}

/// What rules choose, by the key of each.
pub(super) type Choices = HashMap<Vec<u8>, Choice>;

impl Names {
    pub fn is_empty(&self) -> bool {
        self.common.is_empty() && self.mixed.is_empty()
    }
}

/// Chooses for the connections of one store; `own` is what the mixed rules choose for
/// these.
pub(super) fn chooser(names: &Arc<Names>, rules: Arc<Rules>, own: &Arc<Choices>) -> Chooser {
    let (names, own) = (Arc::clone(names), Arc::clone(own));
    Arc::new(move |name| {
        let Some(rule) = rules.lookup_sni(name) else {
            return Choice::Own;
        };
        // A rule that is in neither was not understood.
        let found = own.get(rule.key());
        let found = found.or_else(|| names.common.get(rule.key()));
        found.cloned().unwrap_or(Choice::Broken)
    })
}

impl Loader<'_> {
    /// What every `sni=` rule chooses, as far as it can be told without the
    /// connection.
    pub(super) fn load_names(&mut self, rules: &Rules) -> Names {
        let mut shared: HashMap<Settings, Choice> = HashMap::new();
        let mut names = Names::default();
        for rule in rules
            .iter()
            .filter(|rule| rule.scope() == Scope::ServerName)
        {
            let key = rule.key().to_vec();
            // Where two records have one key, the first is the one that is met.
            if names.common.contains_key(&key) || names.mixed.iter().any(|one| one.key == key) {
                continue;
            }
            let mut own = rule_settings(&rule);
            let is_certificate = |name: &str| CERTIFICATE.contains(&name);
            if !own
                .iter()
                .any(|(name, path)| is_certificate(name) && !path.is_empty())
            {
                // To unset parts of it is no certificate.
                own.retain(|(name, _)| !is_certificate(name));
            }
            let late = rule
                .variables()
                .filter_map(|(name, _)| settings::called(name))
                .find(|name| settings::is_of_the_process(name));
            let choice = if rule.action() == Action::Deny {
                Choice::Denied
            } else if let Some(name) = late {
                let why = format!("{name} {}", settings::TOO_LATE);
                self.broken.insert(shown(&rule), why.into());
                Choice::Broken
            } else if own.is_empty() {
                Choice::Own
            } else if own.iter().any(|(name, _)| !is_certificate(name)) {
                let (address, settings) = (shown(&rule), own);
                names.mixed.push(Mixed {
                    key,
                    address,
                    settings,
                });
                continue;
            } else {
                self.certificate_choice(&rule, own, &mut shared)
            };
            names.common.insert(key, choice);
        }
        names
    }

    /// What a rule that brings certificates alone chooses; equal ones share it.
    fn certificate_choice(
        &mut self,
        rule: &Rule<'_>,
        own: Vec<Setting>,
        shared: &mut HashMap<Settings, Choice>,
    ) -> Choice {
        let mut settings = Settings::default();
        settings.overlay(own);
        if let Some(known) = shared.get(&settings) {
            return known.clone();
        }
        let choice = match self.pairs(&settings) {
            Ok(pairs) => {
                let keys: Vec<_> = pairs.iter().map(|pair| pair.key.clone()).collect();
                self.keys.serve_names(&keys);
                Choice::Pairs(pairs)
            }
            Err(fail) => {
                self.broken.insert(shown(rule), fail);
                Choice::Broken
            }
        };
        shared.insert(settings, choice.clone());
        choice
    }

    /// What the mixed rules choose for connections with these settings.
    pub(super) fn load_mixed(&mut self, names: &Names, base: &Settings) -> Choices {
        let mut choices = Choices::new();
        let of_rules = *base != self.setup.settings;
        for rule in &names.mixed {
            if of_rules && self.mixed_with_rules >= MOST_MIXED {
                self.refuse_mixed(&names.mixed);
                break;
            }
            let before = self.mixed.len();
            let mut settings = base.clone();
            let certificate = |name: &str| CERTIFICATE.contains(&name);
            if rule.settings.iter().any(|(name, _)| certificate(name)) {
                let unset = CERTIFICATE.iter();
                settings.overlay(unset.map(|name| (*name, OsString::new())));
            }
            settings.overlay(rule.settings.iter().cloned());
            let choice = match self.mixed_store(&settings, &rule.address) {
                Ok(store) => Choice::Store(store),
                Err(why) => {
                    self.broken.entry(rule.address.clone()).or_insert(why);
                    Choice::Broken
                }
            };
            choices.insert(rule.key.clone(), choice);
            if of_rules {
                self.mixed_with_rules += self.mixed.len() - before;
            }
        }
        choices
    }

    /// Names the rules whose stores are too many. What no store was made for is
    /// refused.
    fn refuse_mixed(&mut self, rules: &[Mixed]) {
        let known = |rule: &Mixed| self.broken.contains_key(&rule.address);
        if rules.first().is_none_or(known) {
            return;
        }
        for rule in rules {
            let why = format!(
                "rules for server names and other rules with settings make more than {MOST_MIXED} stores; connections that lack one are refused"
            );
            let place = self.broken.entry(rule.address.clone());
            place.or_insert(why.into());
        }
    }

    fn mixed_store(&mut self, settings: &Settings, address: &str) -> Result<Arc<Store>, Fail> {
        let known = self.mixed_by_settings.get(settings).cloned();
        let made = known.unwrap_or_else(|| {
            let made = self.make_mixed(settings);
            self.mixed_by_settings
                .insert(settings.clone(), made.clone());
            made
        });
        let at = made?;
        let served = &mut self.mixed[at];
        if !served.addresses.iter().any(|known| known == address) {
            served.lead(vec![address.to_owned()], self.setup);
        }
        Ok(Arc::clone(&served.store))
    }

    fn make_mixed(&mut self, settings: &Settings) -> Result<usize, Fail> {
        self.keys.pause()?;
        let store = self.store(settings)?;
        self.mixed.push(Served {
            store,
            choices: Arc::default(),
            own: false,
            addresses: Vec::new(),
        });
        Ok(self.mixed.len() - 1)
    }
}
