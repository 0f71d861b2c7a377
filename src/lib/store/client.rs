//! A client's store: the context that verifies a server.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslSessionCacheMode, SslVerifyMode,
};
use openssl::x509::X509;
use openssl::x509::store::X509Lookup;
use openssl::x509::verify::X509VerifyFlags;

use super::offer::{Offer, Role};
use super::{Certificate, KeyPlace, SignerSource, anchor_store, anchors, queue, unable};
use crate::policy::{Anchors, Check, Destination, Rule, Tls};
use crate::report::Fail;
use crate::settings::Settings;
use crate::tls_ffi;
use crate::trust::{self, Demand, Expectation, Name, Reference, Tolerated};

/// A path, behind the option or file that names it.
pub type Named<'a> = (&'static str, &'a str);

/// Trust anchors.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those of a file and of a directory, which take the place of the system's;
    /// an empty name stands for none.
    Files(Option<Named<'a>>, Option<Named<'a>>),
    /// These.
    Loaded(&'a [X509]),
    /// The system's; libcrypto opens its files when it needs one.
    System,
}

/// What a client verifies, and with what.
pub struct Request<'a> {
    /// Whose word counts.
    pub trust: Trust<'a>,
    /// Client certificate and key.
    pub certificate: Option<(Named<'a>, Named<'a>)>,
    /// How long the server's chain may be; libcrypto's own limit.
    pub depth: Option<u32>,
    /// What a server must show.
    pub expectation: Expectation,
    /// Ciphers without a certificate are offered.
    pub anonymous: bool,
    /// The option or field that the cipher list is from.
    pub ciphers_from: &'static str,
    /// The lines of tlsdestinations and of domaincerts that all this is from,
    /// for what is wrong with it.
    pub lines: (Option<usize>, Option<usize>),
}

/// A failure with the line of a file that brought it about.
fn under(file: &str, line: Option<usize>) -> impl Fn(Fail) -> Fail {
    move |fail| match line {
        Some(line) => Fail::temporary(format!("under {file} line {line}: {fail}")),
        None => fail,
    }
}

/// Everything that connections to servers need.
pub struct Store {
    /// The context.
    pub context: SslContext,
    expectation: Arc<Expectation>,
    /// The intermediates of our own certificate.
    pub own_chain: Vec<X509>,
    /// What an administrator should know.
    pub warnings: Vec<String>,
}

impl Store {
    /// Reads and checks all that a request names.
    ///
    /// # Errors
    /// The first thing that is wrong: option, path, reason.
    pub fn load(
        settings: &Settings,
        request: &Request<'_>,
        signers: &dyn SignerSource,
    ) -> Result<Store, Fail> {
        let mut context =
            SslContextBuilder::new(SslMethod::tls_client()).map_err(|error| internal(&error))?;
        let role = if request.anonymous {
            Role::ClientWithoutCertificate
        } else {
            Role::Client
        };
        let rule = under("tlsdestinations", request.lines.0);
        let offer = Offer::of(settings, request.ciphers_from, role).map_err(&rule)?;
        super::apply_common(&mut context, &offer).map_err(|error| internal(&error))?;
        let mut warnings = offer.warnings;
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        set_anchors(&mut context, request.trust).map_err(&rule)?;
        if let Some(depth) = request.depth {
            context.set_verify_depth(depth);
        }
        trust::judge_in(&mut context, SslVerifyMode::PEER).map_err(|error| internal(&error))?;
        let mut own_chain = Vec::new();
        if let Some(named) = request.certificate {
            let certificate = install(&mut context, named, signers)
                .map_err(under("domaincerts", request.lines.1))?;
            warnings.extend(certificate.date_warning());
            own_chain = certificate.intermediates;
        }
        Ok(Store {
            context: context.build(),
            expectation: Arc::new(request.expectation.clone()),
            own_chain,
            warnings,
        })
    }

    /// A connection to `server`, which it asks for by name where it has one (RFC
    /// 6066 section 3), and whose certificate may bear one of `names`.
    ///
    /// # Errors
    /// Libssl refuses the name.
    pub fn connection(&self, server: &Reference, names: Vec<Name>) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if let Reference::Host(name) = server {
            ssl.set_hostname(name)?;
        }
        ssl.set_connect_state();
        trust::expect(&mut ssl, Arc::clone(&self.expectation), names)?;
        Ok(ssl)
    }
}

/// Gives our certificate and its key to a context.
fn install(
    context: &mut SslContextBuilder,
    ((variable, path), (key_variable, key_path)): (Named<'_>, Named<'_>),
    signers: &dyn SignerSource,
) -> Result<Certificate, Fail> {
    let certificate = Certificate::read(variable, path)?;
    let place = KeyPlace {
        variable: if path == key_path {
            variable
        } else {
            key_variable
        },
        path: key_path.to_owned(),
    };
    let public = certificate
        .leaf
        .public_key()
        .map_err(|error| internal(&error))?;
    certificate.install(context, &signers.signer(&place, &public)?)?;
    Ok(certificate)
}

/// What a rule of tlsdestinations expects of a server.
#[must_use]
pub fn expectation(rule: &Rule) -> Expectation {
    Expectation {
        demand: match rule.check() {
            Check::Nothing => Demand::Nothing,
            Check::Certificate => Demand::Certificate,
            Check::Chain => Demand::Chain,
            Check::Name | Check::ExactName => Demand::Name,
            Check::Pin => Demand::Pin,
        },
        pins: rule.value.pins.clone(),
        tolerated: match rule.tls() {
            Tls::Required => Tolerated::Nothing,
            Tls::Never | Tls::Offered => Tolerated::Everything,
        },
    }
}

/// The names of which the certificate of a destination's server must bear one
/// under a rule.
#[must_use]
pub fn names(rule: &Rule, to: &Destination<'_>) -> Vec<Name> {
    let names = rule.names(to).into_iter();
    names
        .map(|wanted| Name {
            reference: match wanted.name.strip_prefix('.') {
                Some(domain) => Reference::Below(domain.to_owned()),
                None => Reference::new(&wanted.name),
            },
            wildcards: wanted.wildcards,
            from_dns: wanted.from_dns,
        })
        .collect()
}

/// The trust anchors that a rule names; a file or a directory.
#[must_use]
pub fn rule_anchors(rule: &Rule) -> Option<Trust<'_>> {
    Some(match rule.value.anchors.as_ref()? {
        Anchors::File(path) => Trust::Files(Some(("cafile", path)), None),
        Anchors::Directory(path) => Trust::Files(None, Some(("cafile", path))),
    })
}

fn internal(error: &ErrorStack) -> Fail {
    Fail::temporary(format!("unable to create SSL context: {}", queue(error)))
}

fn set_anchors(context: &mut SslContextBuilder, trust: Trust<'_>) -> Result<(), Fail> {
    let (file, directory) = match trust {
        Trust::Files(file, directory) => (file, directory),
        Trust::Loaded(loaded) => {
            let store = anchor_store(loaded).map_err(|error| internal(&error))?;
            context.set_cert_store(store.build());
            return Ok(());
        }
        Trust::System => {
            return context
                .set_default_verify_paths()
                .map_err(|error| internal(&error));
        }
    };
    let file = file.filter(|(_, path)| !path.is_empty());
    let directory = directory.filter(|(_, path)| !path.is_empty());
    let found = anchors(file, directory)?;
    let mut store = anchor_store(&found).map_err(|error| internal(&error))?;
    if let Some((option, path)) = file
        && holds_lists(path)
    {
        store
            .add_lookup(X509Lookup::file())
            .and_then(|lookup| lookup.load_crl_file(path, SslFiletype::PEM).map(|_| ()))
            .and_then(|()| {
                store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)
            })
            .map_err(|error| unable("load revocation lists", option, path, &queue(&error)))?;
    }
    context.set_cert_store(store.build());
    Ok(())
}

/// All of the system's anchors, for a process that opens no file later: those
/// of libcrypto's default file, and of the files in its default directories
/// whose names libcrypto would look up (`openssl rehash`'s).
#[must_use]
pub fn system_anchors() -> Vec<X509> {
    let (file, directories) = tls_ffi::anchor_places();
    let mut found = super::read_certificates(&file).unwrap_or_default();
    for directory in directories {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if is_hashed(&entry.file_name().to_string_lossy()) {
                found.extend(super::read_certificates(&entry.path()).unwrap_or_default());
            }
        }
    }
    found
}

/// Whether a file's name is a hash of a subject and a number: `0a1b2c3d.0`.
fn is_hashed(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether a file of anchors has revocation lists in it too.
fn holds_lists(path: &str) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN X509 CRL-----";
    super::read_file(Path::new(path))
        .is_ok_and(|bytes| bytes.windows(BEGIN.len()).any(|window| window == BEGIN))
}
