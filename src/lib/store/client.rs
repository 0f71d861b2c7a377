//! A client's store: the context that verifies a server.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslSessionCacheMode, SslVerifyMode,
};
use openssl::x509::X509;

use super::offer::{Offer, OfferedBy};
use super::pool;
#[cfg(feature = "remote")]
use super::pool::AnchorPool;
use super::{Certificate, KeyPlace, Named, SignerSource, anchors, internal, unable};
use crate::domaincerts::OwnCertificate;
use crate::report::Fail;
use crate::settings::Settings;
use crate::tls_ffi;
use crate::tlsdestinations::{Anchors, Check, Destination, Rule, Tls};
use crate::trust::{self, Demand, Expectation, Name, Naming, Reference, Refusal, Tolerated};

/// Trust anchors.
#[derive(Clone, Copy)]
pub enum Trust<'a> {
    /// Those of a file and of a directory, which take the place of the system's;
    /// an empty name stands for none.
    Files(Option<Named<'a>>, Option<Named<'a>>),
    /// Nobody's.
    Nobody,
    /// These.
    #[cfg(feature = "remote")]
    Pool(&'a AnchorPool),
    /// The system's; the files of a directory are opened when a chain asks for one.
    System,
}

/// What a client verifies, and with what.
pub struct Setup<'a> {
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

impl<'a> Setup<'a> {
    /// What a rule of tlsdestinations asks for, with these anchors where it names
    /// none.
    #[must_use]
    pub fn under(rule: &'a Rule, anchors: Trust<'a>) -> Setup<'a> {
        let trust = match &rule.value.anchors {
            Some(Anchors::File(path)) => Trust::Files(Some(("cafile", Path::new(path))), None),
            Some(Anchors::Directory(path)) => Trust::Files(None, Some(("cafile", Path::new(path)))),
            None => anchors,
        };
        Setup {
            trust,
            certificate: None,
            depth: rule.value.depth,
            expectation: expectation(rule),
            anonymous: rule.allows_anonymous(),
            ciphers_from: "ciphers",
            lines: (rule.line, None),
        }
    }

    /// The same with the certificate of a line of domaincerts, where there is one.
    #[must_use]
    pub fn with_own(mut self, own: Option<&'a OwnCertificate>) -> Setup<'a> {
        if let Some(own) = own {
            let file = "domaincerts";
            self.certificate = Some((
                (file, Path::new(&own.certificate)),
                (file, Path::new(&own.key)),
            ));
            self.lines.1 = Some(own.line);
        }
        self
    }
}

/// A failure with the line of a file that brought it about.
fn under(file: &str, line: Option<usize>) -> impl Fn(Fail) -> Fail {
    move |fail| match line {
        Some(line) => fail.of(format_args!("under {file} line {line}")),
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
    pub findings: Vec<Fail>,
}

impl Store {
    /// Reads and checks all that a setup names.
    ///
    /// # Errors
    /// The first thing that is wrong: option, path, reason.
    pub fn load(
        settings: &Settings,
        setup: &Setup<'_>,
        signers: &dyn SignerSource,
    ) -> Result<Store, Fail> {
        let mut context = SslContextBuilder::new(SslMethod::tls_client()).map_err(internal)?;
        let role = if setup.anonymous {
            OfferedBy::ClientWithoutCertificate
        } else {
            OfferedBy::Client
        };
        let rule = under("tlsdestinations", setup.lines.0);
        let offer = Offer::of(settings, setup.ciphers_from, role).map_err(&rule)?;
        super::apply_common(&mut context, &offer).map_err(internal)?;
        let mut findings = offer.findings;
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        set_anchors(&mut context, setup.trust).map_err(&rule)?;
        if let Some(depth) = setup.depth {
            context.set_verify_depth(depth);
        }
        trust::judge_in(&mut context, SslVerifyMode::PEER).map_err(internal)?;
        tls_ffi::dane::allow(&mut context).map_err(internal)?;
        let mut own_chain = Vec::new();
        if let Some(named) = setup.certificate {
            let certificate = install(&mut context, named, signers)
                .map_err(under("domaincerts", setup.lines.1))?;
            findings.extend(certificate.dates());
            own_chain = certificate.intermediates;
        }
        Ok(Store {
            context: context.build(),
            expectation: Arc::new(setup.expectation.clone()),
            own_chain,
            findings,
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
            if let Some(name) = name.server_name() {
                ssl.set_hostname(name)?;
            }
        }
        ssl.set_connect_state();
        trust::expect(&mut ssl, Arc::clone(&self.expectation), names)?;
        Ok(ssl)
    }

    /// A connection to a server that must match one of its TLSA records, in the place
    /// of what the setup expects.
    ///
    /// # Errors
    /// None of them is of use to libssl, or it refuses the name.
    #[cfg(feature = "remote")]
    pub fn connection_by_records(&self, published: trust::Published) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_connect_state();
        trust::expect_records(&mut ssl, published)?;
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
    let public = certificate.leaf.public_key().map_err(internal)?;
    let signer = signers
        .signer(&place, &public)
        .map_err(|fail| super::about_both(fail, &certificate, &place))?;
    certificate.install(context, &signer)?;
    Ok(certificate)
}

/// What a rule of tlsdestinations expects of a server.
fn expectation(rule: &Rule) -> Expectation {
    Expectation {
        demand: match rule.check() {
            Check::Nothing => Demand::Nothing,
            Check::Certificate => Demand::Certificate,
            Check::Chain => Demand::Chain,
            Check::Name | Check::ExactName if rule.is_pinned() => Demand::PinAndName,
            Check::Name | Check::ExactName => Demand::Name,
            Check::Pin => Demand::Pin,
            Check::Records => Demand::Records,
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
            reference: wanted.name,
            wildcards: wanted.wildcards,
            from_dns: wanted.from_dns,
        })
        .collect()
}

/// Where a certificate was refused for its names: which were wanted, which it bears,
/// and the cure. Words that end a sentence.
#[must_use]
pub fn mismatch(refusal: &Refusal, cure: Option<&str>) -> Option<String> {
    let Naming {
        wanted,
        borne,
        wildcard,
    } = refusal.naming.as_ref()?;
    let mut names: Vec<String> = wanted.iter().map(|one| one.reference.to_string()).collect();
    names.dedup();
    let mut words = format!("wanted {}, it names {borne}", names.join(" or "));
    if *wildcard {
        words.push_str(", and a wildcard counts under ~ only, not under =");
    }
    if let Some(cure) = cure {
        words.extend(["; ", cure]);
    }
    Some(words)
}

fn set_anchors(context: &mut SslContextBuilder, trust: Trust<'_>) -> Result<(), Fail> {
    let (file, directory) = match trust {
        Trust::Files(file, directory) => (file, directory),
        Trust::Nobody => (None, None),
        #[cfg(feature = "remote")]
        Trust::Pool(pool) => {
            let store = pool.store().map_err(internal)?;
            context.set_cert_store(store.build());
            return Ok(());
        }
        Trust::System => {
            let store = pool::system_store().map_err(internal)?;
            context.set_cert_store(store.build());
            return Ok(());
        }
    };
    let file = file.filter(|(_, path)| !path.as_os_str().is_empty());
    let directory = directory.filter(|(_, path)| !path.as_os_str().is_empty());
    let mut found = anchors::of_file(file)?;
    let in_folder = anchors::of_folder(directory)?;
    if let (Some((option, path)), []) = (directory, &*in_folder) {
        let what = unable("load CA list", (option, path));
        return Err(Fail::from("no certificate file in it").of(what));
    }
    found.extend(in_folder);
    anchors::trust_listed(&mut found).map_err(internal)?;
    let mut store = anchors::anchor_store(&found).map_err(internal)?;
    if let Some(named) = file {
        super::read_file(named.1)
            .and_then(|bytes| {
                if anchors::holds_lists(&bytes) {
                    anchors::check_lists(&mut store, &bytes)?;
                }
                Ok(())
            })
            .map_err(|why| why.of(unable("load revocation lists", named)))?;
    }
    context.set_cert_store(store.build());
    Ok(())
}
