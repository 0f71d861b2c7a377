//! What is said of a generation: what is wrong with it, and what differs from the
//! one before.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Generation;
use crate::program::sslserver::access::listed;
use crate::report::{Fail, Report, Severity};
use crate::store::Certificate;
use crate::text;

impl Generation {
    /// `rule ADDRESS: REASON`, with the rules that have one reason in one line.
    pub fn broken_lines(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (address, why) in &self.broken {
            by_reason.entry(why.to_string()).or_default().push(address);
        }
        by_reason
            .into_iter()
            .map(|(why, addresses)| format!("rule {}: {why}", listed(&addresses)))
            .collect()
    }

    /// What an administrator should know, each thing once.
    pub fn warnings(&self) -> BTreeSet<String> {
        let mut warnings = BTreeSet::new();
        if let Some(why) = self.access.trouble() {
            warnings.insert(format!("{why}: every client is denied"));
        }
        warnings.extend(self.broken_lines());
        warnings.extend(self.access.misspelt());
        warnings.extend(self.access.without_effect());
        let of_certificates = self.certificates().flat_map(Certificate::findings);
        warnings.extend(
            self.of_stores()
                .into_iter()
                .chain(of_certificates)
                .chain(self.dates_of_judges())
                .chain(self.forecast.iter().cloned())
                .filter(|finding| finding.severity > Severity::Doubt)
                .map(|finding| finding.to_string()),
        );
        warnings
    }

    /// What is to be said of the stores: each thing once, and with the rules that lead
    /// to it, unless the environment's own store has it too.
    pub fn of_stores(&self) -> Vec<Fail> {
        let mut found: BTreeMap<&Fail, (bool, Vec<&String>)> = BTreeMap::new();
        for served in self.stores.iter().chain(&self.mixed) {
            for finding in &served.store.findings {
                let (own, addresses) = found.entry(finding).or_default();
                *own |= served.own;
                addresses.extend(&served.addresses);
            }
        }
        let told = found.into_iter().map(|(finding, (own, addresses))| {
            if own || addresses.is_empty() {
                return finding.clone();
            }
            let rules = format!("rule {}", listed(&addresses));
            finding.clone().of(rules)
        });
        told.collect()
    }

    /// Says it, but for what was said of the generation before.
    pub fn warn(&self, before: Option<&Generation>, report: &Report) {
        let said = before.map(Generation::warnings).unwrap_or_default();
        for warning in self.warnings().difference(&said) {
            report.warning(warning);
        }
    }

    /// Likewise of the dates of what clients are judged by.
    fn dates_of_judges(&self) -> impl Iterator<Item = Fail> {
        let served = self.stores.iter().chain(&self.mixed);
        served.flat_map(|served| served.store.dates())
    }

    /// Says which certificates, authorities and revocation lists are near their end, or past it.
    pub fn warn_of_dates(&self, report: &Report) {
        let of_certificates = self.certificates().flat_map(Certificate::dates);
        let findings: BTreeSet<Fail> = of_certificates.chain(self.dates_of_judges()).collect();
        for finding in &findings {
            report.finding(finding);
        }
    }

    /// Says what differs from the generation before.
    pub fn tell_changes(&self, before: &Generation, report: &Report) {
        let by_place = |generation: &Generation| -> BTreeMap<(&'static str, PathBuf), String> {
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
            let path_shown = text::excerpt(path.as_os_str().as_encoded_bytes(), 200);
            match old.get(&(*variable, path.clone())) {
                Some(same) if same == description => {}
                Some(old) => {
                    told.insert(path.as_path());
                    report.notice(format_args!(
                        "{variable} {path_shown} changed: from {old} to {description}"
                    ));
                }
                None => {
                    told.insert(path.as_path());
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
    pub fn lost_rule(&self, before: &Generation) -> Option<Fail> {
        // A damaged file may be one that is still being written. One that is
        // gone is gone: nobody must be let in by rules that were taken away.
        if let (Some(why), None, false) = (
            self.access.trouble(),
            before.access.trouble(),
            self.access.is_missing(),
        ) {
            return Some(why.clone());
        }
        self.broken
            .iter()
            .find(|(address, _)| !before.broken.contains_key(*address))
            .map(|(address, why)| why.clone().of(format_args!("rule {address}")))
    }
}
