//! The certificates, keys, ciphers and expectations that a connection is made with.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::plan::{Plan, own_certificate};
use crate::keyholder::{BY_LETTER, BY_LINE_OR_LETTER, OwnKey, Password};
use crate::options::sslclient::{Options, TABLE};
use crate::program;
use crate::report::Fail;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::store::client::{Setup, Store, Trust};
use crate::store::{self, Named};
use crate::trust::{Demand, Expectation, Tolerated};

/// The settings that are taken from the environment.
const OF_TLS: [&str; 4] = ["TLS_MIN", "TLS_MAX", "TLS_GROUPS", "CIPHERSUITES"];

/// The key's password: the first line of a file (`-K`), or what descriptor 3 has
/// (`-3`).
fn password(options: &Options) -> Result<Option<Password>, Fail> {
    if let Some(path) = &options.password_file {
        let shown = store::shown(path);
        let bytes = Secret::new(
            std::fs::read(path).map_err(Fail::unable(format!("read password: -K {shown}")))?,
        );
        let line = bytes.split(|&byte| byte == b'\n').next();
        let line = line.unwrap_or_default();
        return Ok(Some(Password::new(
            line.strip_suffix(b"\r").unwrap_or(line),
        )));
    }
    program::password_descriptor(options.common.password)?
        .as_ref()
        .map(Password::read)
        .transpose()
}

/// The context, with what the options, the policy and the environment say.
pub(super) fn store(options: &Options, plan: &Plan) -> Result<Store, Fail> {
    let settings = Settings::from_environment(&OF_TLS);
    let rule = plan.rule.as_ref();
    let ciphers = rule.and_then(|rule| rule.value.ciphers.as_ref());
    let settings = settings.with_ciphers(ciphers.or(options.ciphers.as_ref()));
    // With its password, which is not to stay.
    let own_line = own_certificate(options)?;
    let own_password = own_line.as_ref().and_then(|own| own.password.as_deref());
    let keys = OwnKey {
        password: match own_password {
            Some(password) => Some(Password::new(password)),
            None => password(options)?,
        },
        given: match &own_line {
            Some(_) => BY_LINE_OR_LETTER,
            None => BY_LETTER,
        },
    };
    let given = given_certificate(options)?;
    let file = options.anchor_file.as_deref().map(|path| ("-a", path));
    let directory = options.anchor_dir.as_deref().map(|path| ("-A", path));
    let trust = match (file, directory) {
        (None, None) => Trust::System,
        _ => Trust::Files(file, directory),
    };
    let setup = match rule {
        Some(rule) => Setup::under(rule, trust),
        None => Setup {
            trust,
            certificate: None,
            depth: None,
            expectation: expectation(options),
            anonymous: false,
            ciphers_from: "-z",
            lines: (None, None),
        },
    };
    let setup = Setup {
        certificate: given,
        depth: setup.depth.or(options.depth),
        ..setup
    };
    Store::load(&settings, &setup.with_own(own_line.as_ref()), &keys)
}

/// The files of `-c` and `-k`.
fn given_certificate(options: &Options) -> Result<Option<(Named<'_>, Named<'_>)>, Fail> {
    fn given(path: Option<&PathBuf>) -> Option<&Path> {
        let path = path.map(PathBuf::as_path);
        path.filter(|path| !path.as_os_str().is_empty())
    }
    match (
        given(options.certificate.as_ref()),
        given(options.key.as_ref()),
    ) {
        (None, Some(_)) => Err(TABLE.usage("-k has no effect without -c")),
        (None, None) => Ok(None),
        (Some(certificate), key) => Ok(Some((
            ("-c", certificate),
            ("-k", key.unwrap_or(certificate)),
        ))),
    }
}

/// What the letters expect of a server.
fn expectation(options: &Options) -> Expectation {
    Expectation {
        demand: match (options.verify, options.match_name) {
            (true, true) => Demand::Name,
            _ => Demand::Chain,
        },
        pins: Vec::new(),
        tolerated: if options.verify {
            Tolerated::Nothing
        } else {
            Tolerated::Unverified
        },
    }
}
