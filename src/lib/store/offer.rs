//! What a context takes and offers in a handshake: cipher suites, groups and
//! signature algorithms, made of the settings' words. Words that OpenSSL would
//! drop in silence, and suites that are never served, are told.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod};

use super::internal;
use crate::hello::FiniteGroup;
use crate::report::Fail;
use crate::settings::{self, Settings, Version};
use crate::sys::memory::shortage;
use crate::text;

/// What no server's list holds: suites without authentication or encryption,
/// and those whose key exchange needs a secret that the process with the session
/// does not have. OpenSSL 3 has no static DH or ECDH any more.
const NEVER_SERVED: &str = "!aNULL:!eNULL:!kRSA:!kPSK:!kRSAPSK:!kDHEPSK:!kECDHEPSK:!SRP:!kGOST";
/// What no client's list holds: an anonymous suite would leave a server without
/// a certificate that could be verified.
const NEVER_OFFERED: &str = "!aNULL:!eNULL:!kPSK:!kRSAPSK:!kDHEPSK:!kECDHEPSK:!SRP";
/// The same where the policy for a server asks for no certificate.
const NEVER_ANONYMOUS: &str = "!eNULL:!kPSK:!kRSAPSK:!kDHEPSK:!kECDHEPSK:!SRP";

/// A server's groups where `TLS_GROUPS` is unset, the post-quantum one where
/// OpenSSL has it. Every client that knows X448, P-521 or RFC 7919 for TLS 1.3
/// knows one of these too.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";
/// The same for OpenSSL 3.5, which then prefers the first even where it takes
/// another round trip, as its own default does.
const GROUPS_35: &str = "X25519MLKEM768/X25519:P-256/P-384";

/// A server's signature algorithms where `SIGALGS` is unset: OpenSSL's own, in
/// its order, without SHA-1, SHA-224 and DSA.
const SIGNATURES: &str = "mldsa65:mldsa87:mldsa44:\
     ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:ed25519:ed448:\
     ecdsa_brainpoolP256r1tls13_sha256:ecdsa_brainpoolP384r1tls13_sha384:\
     ecdsa_brainpoolP512r1tls13_sha512:\
     rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:\
     rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:\
     RSA+SHA256:RSA+SHA384:RSA+SHA512";
/// What level 0 adds: a TLS 1.2 client without signature_algorithms means SHA-1
/// (RFC 5246 section 7.4.1.4.1).
const OLD_SIGNATURES: &str = "ECDSA+SHA1:RSA+SHA1";

/// Whose list is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferedBy {
    /// A client's, which wants a certificate.
    Client,
    /// A client's, which does without.
    ClientWithoutCertificate,
    /// A server's.
    Server,
}

/// What goes into a context.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Lowest and highest version.
    pub versions: (Version, Option<Version>),
    /// The list for TLS 1.2 and below, as `SSL_CTX_set_cipher_list` takes it.
    pub ciphers: String,
    /// The suites of TLS 1.3; `None`: OpenSSL's.
    pub suites: Option<String>,
    /// `None`: OpenSSL's.
    pub groups: Option<String>,
    /// `None`: OpenSSL's.
    pub signatures: Option<String>,
    /// Level 0, where no level is in the list.
    pub level_zero: bool,
    /// The finite-field groups that `TLS_GROUPS` names, smallest first.
    pub finite_groups: Vec<FiniteGroup>,
    /// What an administrator should know.
    pub findings: Vec<Fail>,
}

impl Offer {
    /// Reads the settings. `setting` is the name by which messages call the
    /// cipher list.
    ///
    /// # Errors
    /// The setting of which nothing is left, or that OpenSSL refuses.
    pub fn of(settings: &Settings, setting: &str, by: OfferedBy) -> Result<Offer, Fail> {
        let scratch = Scratch::new()?;
        let (min, max) = settings.versions()?;
        let mut findings = Vec::new();
        findings.extend(lowered(settings, max));
        let mut list = match settings.word("CIPHERS")? {
            Some(list) => CipherWords::read(list, &scratch),
            None => CipherWords::default_for(by, min),
        };
        if let Some(given) = settings.word("CIPHERS")? {
            findings.extend(list.findings(given, setting, by, &scratch));
        }
        let mut suites = settings.word("CIPHERSUITES")?.map(str::to_owned);
        let mut min = min;
        if !list.suites.is_empty() {
            if suites.is_some() {
                findings.push(Fail::warning(format!(
                    "{setting}: the TLS 1.3 suites in it have no effect: CIPHERSUITES is set"
                )));
            }
            suites.get_or_insert_with(|| list.suites.join(":"));
            if list.words.iter().all(|word| is_command(word))
                && max.is_none_or(|max| max >= Version::Tls13)
            {
                let others = match by {
                    OfferedBy::Server => "clients of TLS 1.2 and older are not served",
                    _ => "servers of TLS 1.2 and older are refused",
                };
                findings.push(Fail::note(format!(
                    "{setting} names suites of TLS 1.3 alone: {others}"
                )));
                min = Version::Tls13;
                list.words.insert(0, settings::CIPHERS.to_owned());
            }
        }
        if by == OfferedBy::ClientWithoutCertificate {
            list.allow_anonymous();
        }
        let ciphers = list.finished(setting, by, &scratch)?;
        if let Some(suites) = &suites {
            scratch.check("CIPHERSUITES", suites, SslContextBuilder::set_ciphersuites)?;
            findings.extend(unknown_suites(suites, &scratch));
        }
        let level_zero = min < Version::Tls12 && !ciphers.contains("@SECLEVEL");
        let old = level_zero || ciphers.contains("@SECLEVEL=0");
        let groups = scratch.groups(settings, by, &mut findings)?;
        Ok(Offer {
            versions: (min, max),
            finite_groups: finite_groups(settings.word("TLS_GROUPS")?.and(groups.as_deref())),
            ciphers,
            suites,
            groups,
            signatures: scratch.signatures(settings, by, old, &mut findings)?,
            level_zero,
            findings,
        })
    }

    /// Gives all of it but the versions to a context.
    ///
    /// # Errors
    /// Libcrypto's, where it took the lists before.
    pub fn apply(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        if self.level_zero {
            // Below 1.2 every signature is MD5 with SHA-1, which no higher level
            // allows: without this the floor would be a promise that fails.
            context.set_security_level(0);
        }
        context.set_cipher_list(&self.ciphers)?;
        if let Some(suites) = &self.suites {
            context.set_ciphersuites(suites)?;
        }
        if let Some(groups) = &self.groups {
            context.set_groups_list(groups)?;
        }
        if let Some(signatures) = &self.signatures {
            context.set_sigalgs_list(signatures)?;
        }
        Ok(())
    }
}

/// Tells that a `TLS_MAX` below the default `TLS_MIN` stands for both.
fn lowered(settings: &Settings, max: Option<Version>) -> Option<Fail> {
    let max = max.filter(|max| *max < Version::Tls12 && !settings.has("TLS_MIN"))?;
    Some(Fail::note(format!(
        "TLS_MAX is {max} and TLS_MIN is unset: only TLS {max} is spoken"
    )))
}

/// The words of a cipher list that OpenSSL does not know, and would drop in
/// silence.
///
/// # Errors
/// Libssl has no room for a context.
pub fn unknown_words(list: &str) -> Result<Vec<String>, Fail> {
    Ok(CipherWords::read(list, &Scratch::new()?).unknown)
}

/// The words of a cipher list, with those of TLS 1.3 apart.
struct CipherWords {
    /// For TLS 1.2 and below, commands (`@SECLEVEL=1`) included.
    words: Vec<String>,
    /// Names of TLS 1.3 suites.
    suites: Vec<String>,
    /// Words that OpenSSL drops in silence.
    unknown: Vec<String>,
}

/// `@STRENGTH`, `@SECLEVEL=n`.
fn is_command(word: &str) -> bool {
    word.starts_with('@')
}

impl CipherWords {
    fn read(list: &str, scratch: &Scratch) -> CipherWords {
        let mut found = CipherWords {
            words: Vec::new(),
            suites: Vec::new(),
            unknown: settings::unknown_cipher_words(list, |word| scratch.knows(word)),
        };
        for word in settings::cipher_words(list) {
            if word.starts_with("TLS_") && scratch.with(|c| c.set_ciphersuites(word)).is_ok() {
                found.unknown.retain(|unknown| unknown != word);
                found.suites.push(word.to_owned());
            } else {
                found.words.push(word.to_owned());
            }
        }
        found
    }

    /// The list where none is set. Old versions bring old suites, or the
    /// administrator's leave would be in vain.
    fn default_for(by: OfferedBy, min: Version) -> CipherWords {
        let mut words = vec![settings::CIPHERS.to_owned()];
        if by != OfferedBy::Server || min < Version::Tls12 {
            words.push(settings::OLD_CIPHERS.to_owned());
        }
        CipherWords {
            words,
            suites: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Adds the suites that need no certificate. Libssl allows them at security
    /// level 0 only.
    fn allow_anonymous(&mut self) {
        self.words
            .retain(|word| !matches!(&**word, "!aNULL" | "!ADH" | "!AECDH"));
        self.words.push("aNULL+AES".to_owned());
        if !self.words.iter().any(|word| word.contains("@SECLEVEL")) {
            self.words.push("@SECLEVEL=0".to_owned());
        }
    }

    fn findings(&self, list: &str, setting: &str, by: OfferedBy, scratch: &Scratch) -> Vec<Fail> {
        let quoted = |word: &str| format!("\"{}\"", text::excerpt(word.as_bytes(), 100));
        let mut findings: Vec<Fail> = self
            .unknown
            .iter()
            .map(|word| Fail::warning(format!("{setting}: OpenSSL does not know {}", quoted(word))))
            .collect();
        let late = settings::cipher_words(list).skip(1);
        for word in late.filter(|word| *word == "DEFAULT" || word.starts_with("SUITEB")) {
            let word = quoted(word);
            findings.push(Fail::warning(format!(
                "{setting}: {word} has an effect as the first word only"
            )));
        }
        let asked: Vec<String> = self
            .words
            .iter()
            .filter(|word| !word.starts_with(['!', '-', '+', '@']))
            .filter(|word| scratch.knows(word) && !scratch.knows(&format!("{word}:{}", never(by))))
            .map(|word| quoted(word))
            .collect();
        if !asked.is_empty() {
            findings.push(Fail::note(format!(
                "{setting}: these words ask for suites {}: {}",
                fault(by),
                asked.join(", ")
            )));
        }
        findings
    }

    /// The list with what is never served taken out.
    fn finished(&self, setting: &str, by: OfferedBy, scratch: &Scratch) -> Result<String, Fail> {
        let list = self.words.join(":");
        let finished = format!("{list}:{}", never(by));
        let Err(error) = scratch.with(|context| context.set_cipher_list(&finished)) else {
            return Ok(finished);
        };
        let why = if scratch.knows(&list) {
            format!("it selects only suites {}", fault(by)).into()
        } else {
            Fail::from(error)
        };
        Err(why.of(format_args!(
            "unable to set cipher list: {setting} \"{}\"",
            text::excerpt(list.as_bytes(), 200)
        )))
    }
}

fn never(by: OfferedBy) -> &'static str {
    match by {
        OfferedBy::Client => NEVER_OFFERED,
        OfferedBy::ClientWithoutCertificate => NEVER_ANONYMOUS,
        OfferedBy::Server => NEVER_SERVED,
    }
}

/// What is wrong with those.
fn fault(by: OfferedBy) -> &'static str {
    match by {
        OfferedBy::Server => "without forward secrecy or authentication, which are never served",
        _ => "without authentication or encryption, which are never offered",
    }
}

/// The finite-field groups among these, smallest first.
fn finite_groups(groups: Option<&str>) -> Vec<FiniteGroup> {
    let mut found: Vec<FiniteGroup> = group_words(groups.unwrap_or_default())
        .filter_map(FiniteGroup::called)
        .collect();
    found.sort_unstable();
    found
}

/// The names of a list of groups or signature algorithms, without the marks of
/// OpenSSL 3.5 (`?` may be unknown, `*` sends a share).
fn group_words(list: &str) -> impl Iterator<Item = &str> {
    list.split([':', '/'])
        .map(|word| word.trim().trim_start_matches(['?', '*']))
        .filter(|word| !word.is_empty())
}

/// A context that is never used, to ask OpenSSL what it knows.
struct Scratch(std::cell::RefCell<SslContextBuilder>);

impl Scratch {
    fn new() -> Result<Scratch, Fail> {
        SslContextBuilder::new(SslMethod::tls())
            .map(|context| Scratch(context.into()))
            .map_err(internal)
    }

    fn with(
        &self,
        set: impl FnOnce(&mut SslContextBuilder) -> Result<(), ErrorStack>,
    ) -> Result<(), ErrorStack> {
        set(&mut self.0.borrow_mut())
    }

    /// Whether a cipher list selects anything.
    fn knows(&self, list: &str) -> bool {
        self.with(|context| context.set_cipher_list(list)).is_ok()
    }

    fn check(
        &self,
        setting: &str,
        list: &str,
        set: impl FnOnce(&mut SslContextBuilder, &str) -> Result<(), ErrorStack>,
    ) -> Result<(), Fail> {
        self.with(|context| set(context, list)).map_err(|error| {
            Fail::from(error).of(format_args!(
                "unable to use {setting}: \"{}\"",
                text::excerpt(list.as_bytes(), 200)
            ))
        })
    }

    /// The words of a list that OpenSSL knows, with a warning for each other.
    fn known(
        &self,
        setting: &str,
        list: &str,
        set: fn(&mut SslContextBuilder, &str) -> Result<(), ErrorStack>,
        findings: &mut Vec<Fail>,
    ) -> Result<String, Fail> {
        if self.with(|context| set(context, list)).is_ok() {
            return Ok(list.to_owned());
        }
        let mut known = Vec::new();
        for word in group_words(list) {
            if self.with(|context| set(context, word)).is_ok() {
                known.push(word);
            } else {
                let word = text::excerpt(word.as_bytes(), 100);
                // One run script may serve more than one OpenSSL.
                findings.push(Fail::note(format!(
                    "{setting}: OpenSSL does not know \"{word}\""
                )));
            }
        }
        if known.is_empty() {
            let list = text::excerpt(list.as_bytes(), 200);
            return Err(Fail::temporary(format!(
                "unable to use {setting}: \"{list}\": OpenSSL knows none of these names"
            )));
        }
        let known = known.join(":");
        self.check(setting, &known, set)?;
        Ok(known)
    }

    fn groups(
        &self,
        settings: &Settings,
        by: OfferedBy,
        findings: &mut Vec<Fail>,
    ) -> Result<Option<String>, Fail> {
        static DEFAULT: OnceLock<String> = OnceLock::new();
        let set = SslContextBuilder::set_groups_list;
        match settings.word("TLS_GROUPS")? {
            Some(list) => self.known("TLS_GROUPS", list, set, findings).map(Some),
            None if by != OfferedBy::Server => Ok(None),
            None => {
                if DEFAULT.get().is_none() {
                    // It stays: what memory was short for must not be in it.
                    let known = shortage::sufficing(|| {
                        let list = [GROUPS_35, GROUPS]
                            .into_iter()
                            .find(|list| self.with(|context| set(context, list)).is_ok())
                            .unwrap_or(GROUPS);
                        self.known("TLS_GROUPS", list, set, &mut Vec::new())
                    })?;
                    let _ = DEFAULT.set(known);
                }
                Ok(DEFAULT.get().cloned())
            }
        }
    }

    fn signatures(
        &self,
        settings: &Settings,
        by: OfferedBy,
        old: bool,
        findings: &mut Vec<Fail>,
    ) -> Result<Option<String>, Fail> {
        static DEFAULT: OnceLock<String> = OnceLock::new();
        let set = SslContextBuilder::set_sigalgs_list;
        match settings.word("SIGALGS")? {
            Some(list) => self.known("SIGALGS", list, set, findings).map(Some),
            None if by != OfferedBy::Server => Ok(None),
            None => {
                if DEFAULT.get().is_none() {
                    let known = shortage::sufficing(|| {
                        self.known("SIGALGS", SIGNATURES, set, &mut Vec::new())
                    })?;
                    let _ = DEFAULT.set(known);
                }
                let known = DEFAULT.get().cloned().unwrap_or_default();
                Ok(Some(if old {
                    format!("{known}:{OLD_SIGNATURES}")
                } else {
                    known
                }))
            }
        }
    }
}

/// The words of `CIPHERSUITES` that OpenSSL drops in silence.
fn unknown_suites<'a>(suites: &'a str, scratch: &'a Scratch) -> impl Iterator<Item = Fail> + 'a {
    settings::cipher_words(suites)
        .filter(|word| scratch.with(|c| c.set_ciphersuites(word)).is_err())
        .map(|word| {
            let shown = text::excerpt(word.as_bytes(), 100);
            Fail::warning(format!("CIPHERSUITES: OpenSSL does not know \"{shown}\""))
        })
}
