//! A client's store: the context that verifies a server.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslSessionCacheMode, SslVerifyMode,
};
use openssl::x509::X509;

use super::offer::{Offer, Role};
use super::{Certificate, KeyPlace, Named, SignerSource, anchors, queue, unable};
use crate::report::Fail;
use crate::settings::Settings;
use crate::tls_ffi;
use crate::tlsdestinations::{Anchors, Check, Destination, Rule, Tls};
use crate::trust::{self, Demand, Expectation, Name, Reference, Tolerated};

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
        let mut findings = offer.findings;
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        set_anchors(&mut context, request.trust).map_err(&rule)?;
        if let Some(depth) = request.depth {
            context.set_verify_depth(depth);
        }
        trust::judge_in(&mut context, SslVerifyMode::PEER).map_err(|error| internal(&error))?;
        tls_ffi::dane::allow(&mut context).map_err(|error| internal(&error))?;
        let mut own_chain = Vec::new();
        if let Some(named) = request.certificate {
            let certificate = install(&mut context, named, signers)
                .map_err(under("domaincerts", request.lines.1))?;
            findings.extend(certificate.dates());
            own_chain = certificate.intermediates;
        }
        Ok(Store {
            context: context.build(),
            expectation: Arc::new(request.expectation.clone()),
            own_chain,
            warnings: findings
                .iter()
                .filter_map(|finding| finding.warning().map(str::to_owned))
                .collect(),
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

    /// A connection to a host that must match one of its TLSA records, in the place
    /// of what the request expects.
    ///
    /// # Errors
    /// None of them is of use, or libssl refuses the name.
    #[cfg_attr(
        not(feature = "internals"),
        expect(
            dead_code,
            reason = "deliveries do not ask for TLSA records yet; the tests do"
        )
    )]
    #[cfg(feature = "remote")]
    pub fn connection_by_records(
        &self,
        host: &str,
        records: Vec<trust::dane::Record>,
    ) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_connect_state();
        trust::expect_records(&mut ssl, host, records)?;
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
            Check::Name | Check::ExactName if rule.is_pinned() => Demand::PinAndName,
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

/// Why a wildcard of the certificate's did not help: the end of a sentence.
pub const NO_WILDCARD: &str = ", and a wildcard counts under ~ only, not under =";

/// Names for a message.
#[must_use]
pub fn listed(names: &[Name]) -> String {
    let names: Vec<String> = names.iter().map(|one| one.reference.to_string()).collect();
    names.join(" or ")
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
            let store = anchors::anchor_store(loaded).map_err(|error| internal(&error))?;
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
    let mut found = anchors::of_file(file)?;
    let in_folder = anchors::of_folder(directory)?;
    if let (Some((option, path)), []) = (directory, &*in_folder) {
        let why = "no certificate file in it";
        return Err(unable("load CA list", option, path, why));
    }
    found.extend(in_folder);
    let mut store = anchors::anchor_store(&found).map_err(|error| internal(&error))?;
    if let Some((option, path)) = file {
        let fail = |why: &str| unable("load revocation lists", option, path, why);
        let bytes = super::read_file(Path::new(path)).map_err(|why| fail(&why))?;
        if anchors::holds_lists(&bytes) {
            let lists = anchors::lists(&bytes).map_err(|why| fail(&why))?;
            anchors::check_lists(&mut store, &lists).map_err(|error| fail(&queue(&error)))?;
        }
    }
    context.set_cert_store(store.build());
    Ok(())
}

/// All of the system's anchors, for a process that opens no file later.
#[cfg(feature = "remote")]
#[must_use]
pub fn system_anchors() -> Vec<X509> {
    anchors::system_anchors()
}
