//! A client's store: the context that verifies a server.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslSessionCacheMode, SslVerifyMode,
};
use openssl::x509::X509;
use openssl::x509::verify::X509CheckFlags;

use super::{Certificate, KeyPlace, SignerSource, anchor_store, anchors, queue};
use crate::report::Fail;
use crate::settings::Settings;
use crate::verify::{self, Policy};

/// What a client verifies, and with what.
pub struct Request<'a> {
    /// File and directory of trust anchors, with the option or field that names
    /// them; both unset: the system's.
    pub anchors: (Option<&'a str>, Option<&'a str>),
    /// Client certificate and key.
    pub certificate: Option<(&'a str, &'a str)>,
    /// How long the server's chain may be; libcrypto's own limit.
    pub depth: Option<u32>,
    /// Go on with a server that does not verify.
    pub tolerant: bool,
}

/// Everything that connections to servers need.
pub struct Store {
    /// The context.
    pub context: SslContext,
    /// What becomes of a certificate that does not verify.
    pub policy: Policy,
    /// The intermediates of our own certificate.
    pub own_chain: Vec<X509>,
    /// What an administrator should know.
    pub warnings: Vec<String>,
}

/// Whom the server's certificate must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A host name, without a dot at its end.
    Host(String),
    /// An address.
    Address(IpAddr),
}

impl Reference {
    /// A host argument as a reference identifier (RFC 9525 section 6.1).
    #[must_use]
    pub fn new(host: &str) -> Reference {
        match host.parse() {
            Ok(address) => Reference::Address(address),
            Err(_) => Reference::Host(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()),
        }
    }
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
        let mut warnings = super::cipher_warnings(settings);
        let mut context =
            SslContextBuilder::new(SslMethod::tls_client()).map_err(|error| internal(&error))?;
        super::apply_common(&mut context, settings, ("-z", super::cipher_list(settings)))?;
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        set_anchors(&mut context, request.anchors)?;
        if let Some(depth) = request.depth {
            context.set_verify_depth(depth);
        }
        let policy = Policy {
            tolerant: request.tolerant,
            pins: Vec::new(),
        };
        let judge = policy.clone();
        context.set_verify_callback(SslVerifyMode::PEER, move |good, chain| {
            judge.judge(good, chain)
        });
        let mut own_chain = Vec::new();
        if let Some((path, key_path)) = request.certificate {
            let certificate = Certificate::read("-c", path)?;
            warnings.extend(certificate.date_warning());
            let place = KeyPlace {
                variable: if path == key_path { "-c" } else { "-k" },
                path: key_path.to_owned(),
            };
            let public = certificate
                .leaf
                .public_key()
                .map_err(|error| internal(&error))?;
            certificate.install(&mut context, &signers.signer(&place, &public)?)?;
            own_chain = certificate.intermediates;
        }
        Ok(Store {
            context: context.build(),
            policy,
            own_chain,
            warnings,
        })
    }

    /// A connection that will verify `reference` (if its name counts), and asks
    /// for it by name where it has one (RFC 6066 section 3).
    ///
    /// # Errors
    /// Libssl refuses the name.
    pub fn connection(&self, reference: &Reference, match_name: bool) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        verify::watch(&mut ssl)?;
        if let Reference::Host(name) = reference {
            ssl.set_hostname(name)?;
        }
        if match_name {
            let param = ssl.param_mut();
            param.set_hostflags(
                X509CheckFlags::NO_PARTIAL_WILDCARDS | X509CheckFlags::NEVER_CHECK_SUBJECT,
            );
            match reference {
                Reference::Host(name) => param.set_host(name)?,
                Reference::Address(address) => param.set_ip(*address)?,
            }
        }
        ssl.set_connect_state();
        Ok(ssl)
    }
}

fn internal(error: &ErrorStack) -> Fail {
    Fail::temporary(format!("unable to create SSL context: {}", queue(error)))
}

/// A file or a directory that is given takes the place of the system's anchors;
/// the empty name stands for none.
fn set_anchors(
    context: &mut SslContextBuilder,
    (file, directory): (Option<&str>, Option<&str>),
) -> Result<(), Fail> {
    if file.is_none() && directory.is_none() {
        return context
            .set_default_verify_paths()
            .map_err(|error| internal(&error));
    }
    let file = file
        .filter(|path| !path.is_empty())
        .map(|path| ("-a", path));
    let directory = directory
        .filter(|path| !path.is_empty())
        .map(|path| ("-A", path));
    let found = anchors(file, directory)?;
    context.set_cert_store(
        anchor_store(&found)
            .map_err(|error| internal(&error))?
            .build(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_hosts_or_addresses() {
        assert_eq!(
            Reference::new("MX.example."),
            Reference::Host("mx.example".into())
        );
        assert_eq!(
            Reference::new("::1"),
            Reference::Address("::1".parse().expect("an address"))
        );
    }
}
