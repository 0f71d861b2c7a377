//! A client's store: the context that verifies a server.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslRef, SslSessionCacheMode,
    SslVerifyMode,
};
use openssl::x509::store::X509Lookup;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use openssl::x509::{X509, X509Ref, X509StoreContextRef, X509VerifyResult};

use super::offer::{Offer, Role};
use super::{Certificate, KeyPlace, SignerSource, anchor_store, anchors, queue, unable};
use crate::policy::{Anchors, Check, Pin, Rule, Tls};
use crate::report::Fail;
use crate::settings::Settings;
use crate::tls_ffi::{self, names};
use crate::verify::{self, Policy, Refusal};

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
    /// Go on with a server that does not verify.
    pub tolerant: bool,
    /// What a partner's server must show, in place of the caller's name check.
    pub partner: Option<Partner>,
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

/// What the policy for a partner asks of its server.
#[derive(Clone, Debug)]
pub struct Partner {
    /// What the certificate must do.
    pub check: Check,
    /// The names of which it must have one, for the checks that ask for a name.
    pub names: Vec<Reference>,
    /// The fingerprints of which it must have one, for [`Check::Pin`].
    pub pins: Vec<Pin>,
    /// A failure is remembered, and the connection goes on.
    pub lenient: bool,
    /// Ciphers without a certificate are offered.
    pub anonymous: bool,
}

/// Everything that connections to servers need.
pub struct Store {
    /// The context.
    pub context: SslContext,
    /// What becomes of a certificate that does not verify.
    pub policy: Policy,
    partner: Option<Arc<Partner>>,
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
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        // RFC 5321, 4.1.3: `[IPv6:2001:db8::1]`.
        let bare = bare.map(|bare| match bare.split_at_checked(5) {
            Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6:") => address,
            _ => bare,
        });
        match bare.unwrap_or(host).parse() {
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
        let mut context =
            SslContextBuilder::new(SslMethod::tls_client()).map_err(|error| internal(&error))?;
        let partner = request.partner.clone().map(Arc::new);
        let role = match &partner {
            Some(partner) if partner.anonymous => Role::ClientWithoutCertificate,
            _ => Role::Client,
        };
        let setting = if partner.is_some() { "ciphers" } else { "-z" };
        let rule = under("tlsdestinations", request.lines.0);
        let offer = Offer::of(settings, setting, role).map_err(&rule)?;
        super::apply_common(&mut context, &offer).map_err(|error| internal(&error))?;
        let mut warnings = offer.warnings;
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        set_anchors(&mut context, request.trust).map_err(&rule)?;
        if let Some(depth) = request.depth {
            context.set_verify_depth(depth);
        }
        let policy = Policy {
            tolerant: request.tolerant,
            pins: Vec::new(),
        };
        let judge = policy.clone();
        let asked = partner.clone();
        context.set_verify_callback(SslVerifyMode::PEER, move |good, chain| match &asked {
            Some(partner) => partner.judge(&judge, good, chain),
            None => judge.judge(good, chain),
        });
        let mut own_chain = Vec::new();
        if let Some(named) = request.certificate {
            let certificate = install(&mut context, named, signers)
                .map_err(under("domaincerts", request.lines.1))?;
            warnings.extend(certificate.date_warning());
            own_chain = certificate.intermediates;
        }
        Ok(Store {
            context: context.build(),
            policy,
            partner,
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

    /// Whether a session's server has shown what its policy asks, which the
    /// handshake alone does not prove: a cipher may do without a certificate.
    ///
    /// # Errors
    /// What is missing.
    pub fn approve(&self, ssl: &SslRef) -> Result<(), Refusal> {
        let Some(partner) = self.partner.as_ref().filter(|partner| !partner.lenient) else {
            return Ok(());
        };
        let bad = |reason: &str| {
            Err(Refusal {
                depth: 0,
                subject: String::new(),
                reason: reason.to_owned(),
                names: None,
            })
        };
        let leaf = ssl.peer_certificate();
        match (partner.check, leaf) {
            (Check::Nothing, _) | (Check::Certificate, Some(_)) => Ok(()),
            (_, None) => bad("the server showed no certificate"),
            (Check::Pin, Some(leaf)) if partner.pinned(&leaf) => Ok(()),
            (Check::Pin, Some(_)) => bad(OTHER_FINGERPRINT),
            (_, Some(_)) if ssl.verify_result() != X509VerifyResult::OK => {
                bad(ssl.verify_result().error_string())
            }
            (Check::Chain, Some(_)) => Ok(()),
            (Check::Name | Check::ExactName, Some(leaf)) if partner.named(&leaf) => Ok(()),
            (Check::Name | Check::ExactName, Some(_)) => bad(OTHER_NAME),
        }
    }

    /// Whether the session's certificate is one of a partner's pinned ones.
    #[must_use]
    pub fn pinned(&self, ssl: &SslRef) -> bool {
        self.partner.as_ref().is_some_and(|partner| {
            partner.check == Check::Pin
                && ssl
                    .peer_certificate()
                    .is_some_and(|leaf| partner.pinned(&leaf))
        })
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

/// The reasons that are ours, not libcrypto's.
const OTHER_FINGERPRINT: &str = "its fingerprint is none of those in tlsdestinations";
const OTHER_NAME: &str = "hostname mismatch";

impl Partner {
    /// What a rule asks of a server reached as `host` for mail to `domain`.
    #[must_use]
    pub fn of(rule: &Rule, host: &str, domain: &str) -> Partner {
        let names = rule.names(host, domain);
        Partner {
            check: rule.check(),
            names: names.into_iter().map(Reference::new).collect(),
            pins: rule.value.pins.clone(),
            lenient: rule.tls() != Tls::Required,
            anonymous: rule.allows_anonymous(),
        }
    }

    /// The trust anchors that a rule names; a file or a directory.
    #[must_use]
    pub fn trust(rule: &Rule) -> Option<Trust<'_>> {
        Some(match rule.value.anchors.as_ref()? {
            Anchors::File(path) => Trust::Files(Some(("cafile", path)), None),
            Anchors::Directory(path) => Trust::Files(None, Some(("cafile", path))),
        })
    }

    /// The verify callback under a policy, as [`Policy::judge`].
    fn judge(&self, strict: &Policy, good: bool, context: &mut X509StoreContextRef) -> bool {
        let leaf = context
            .chain()
            .and_then(|chain| chain.iter().next())
            .map(ToOwned::to_owned);
        match self.check {
            Check::Pin => {
                let Some(leaf) = leaf else {
                    return false;
                };
                if self.pinned(&leaf) {
                    context.set_error(X509VerifyResult::OK);
                    return true;
                }
                let reason = format!("{OTHER_FINGERPRINT}: it is {}", print_of(&leaf));
                self.refuse(context, &leaf, reason, false)
            }
            // What is wrong is kept for the log.
            Check::Nothing | Check::Certificate => {
                strict.judge(good, context);
                true
            }
            Check::Chain | Check::Name | Check::ExactName if !good => {
                strict.judge(good, context) || self.lenient
            }
            Check::Name | Check::ExactName if context.error_depth() == 0 => match leaf {
                Some(leaf) if !self.named(&leaf) => {
                    self.refuse(context, &leaf, OTHER_NAME.to_owned(), true)
                }
                _ => true,
            },
            Check::Chain | Check::Name | Check::ExactName => true,
        }
    }

    fn refuse(
        &self,
        context: &mut X509StoreContextRef,
        leaf: &X509Ref,
        reason: String,
        name: bool,
    ) -> bool {
        context.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
        let refusal = Refusal {
            depth: 0,
            subject: names::slash_form(leaf.subject_name()),
            reason,
            names: name.then(|| names::listed(leaf)),
        };
        verify::remember(context, refusal);
        self.lenient
    }

    fn pinned(&self, leaf: &X509Ref) -> bool {
        self.pins.iter().any(|pin| match pin {
            Pin::Certificate(wanted) => digest_of(wanted.len())
                .and_then(|digest| leaf.digest(digest).ok())
                .is_some_and(|print| *print == **wanted),
            Pin::Key(wanted) => leaf
                .public_key()
                .and_then(|key| key.public_key_to_der())
                .and_then(|der| hash(MessageDigest::sha256(), &der))
                .is_ok_and(|print| *print == *wanted),
        })
    }

    /// RFC 9525: only subjectAltName counts, and every entry of it.
    fn named(&self, leaf: &X509Ref) -> bool {
        self.names.iter().any(|name| match name {
            Reference::Host(host) if self.check == Check::ExactName => {
                let entries = names::alternative_names(leaf);
                entries.iter().any(|entry| match entry {
                    names::AlternativeName::Dns(entry) => {
                        let entry = entry.strip_suffix(b".").unwrap_or(entry);
                        entry.eq_ignore_ascii_case(host.as_bytes())
                    }
                    _ => false,
                })
            }
            Reference::Host(host) => tls_ffi::names_host(leaf, host),
            Reference::Address(address) => {
                let bytes = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                names::alternative_names(leaf).contains(&names::AlternativeName::Ip(bytes))
            }
        })
    }
}

/// The hash whose fingerprints are so long.
fn digest_of(length: usize) -> Option<MessageDigest> {
    match length {
        20 => Some(MessageDigest::sha1()),
        28 => Some(MessageDigest::sha224()),
        32 => Some(MessageDigest::sha256()),
        64 => Some(MessageDigest::sha512()),
        _ => None,
    }
}

/// A certificate's SHA-256, as it can be put into tlsdestinations.
fn print_of(leaf: &X509Ref) -> String {
    let print = verify::fingerprint(leaf).unwrap_or_default();
    format!("={}", crate::text::hex(&print))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_hosts_or_addresses() {
        assert_eq!(
            Reference::new("MX.example."),
            Reference::Host("mx.example".into())
        );
        for host in ["::1", "[::1]", "[IPv6:::1]", "[ipv6:::1]"] {
            let address = Reference::Address("::1".parse().expect("an address"));
            assert_eq!(Reference::new(host), address, "{host}");
        }
    }
}
