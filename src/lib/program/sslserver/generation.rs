//! One generation of stores: all that a set of files made at one time. A
//! generation is complete or not there.
#![forbid(unsafe_code)]

use super::Setup;
use crate::handshake;
use crate::keyholder::LocalKeys;
use crate::report::{Fail, Report};
use crate::store::server::Store;

/// The stores that serve new connections.
pub(super) struct Generation {
    pub default: Store,
}

impl Generation {
    /// Loads everything that the settings name.
    pub fn load(setup: &Setup, keys: &LocalKeys) -> Result<Generation, Fail> {
        let default = Store::load(&setup.settings, setup.options.ask, keys)?;
        handshake::rehearse(&default.context);
        Ok(Generation { default })
    }

    /// Says what an administrator should know at start and after a reload.
    pub fn warn(&self, report: &Report) {
        for warning in &self.default.warnings {
            report.warning(warning);
        }
    }

    /// Says which certificates are near their end, or past it.
    pub fn warn_of_dates(&self, report: &Report) {
        for certificate in &self.default.certificates {
            if let Some(warning) = certificate.date_warning() {
                report.warning(warning);
            }
        }
    }

    /// Says which certificates differ from those of the generation before.
    pub fn tell_changes(&self, before: &Generation, report: &Report) {
        let old = &before.default.certificates;
        for (at, new) in self.default.certificates.iter().enumerate() {
            match old.get(at) {
                Some(old) if old.leaf.to_der().ok() == new.leaf.to_der().ok() => {}
                Some(old) => report.notice(format_args!(
                    "{} {} changed: from {} to {}",
                    new.variable,
                    new.path,
                    old.description(),
                    new.description()
                )),
                None => report.notice(format_args!(
                    "{} {} added: {}",
                    new.variable,
                    new.path,
                    new.description()
                )),
            }
        }
    }
}
