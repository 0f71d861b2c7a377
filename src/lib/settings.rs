//! The table of TLS settings: their names, defaults and checking, and how the
//! environment and a rule's variables make up one connection's settings. A value
//! is bytes: paths may hold any, and a word that is no text is refused by whoever
//! asks for it, never taken as unset.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::report::Fail;
use crate::sys::sandbox::Sandbox;
use crate::text;

mod emptied;
mod misspelt;

pub use emptied::{Emptied, REQUIRES};
pub use misspelt::{Judged, misspelt_in_environment};

/// Every variable that sslserver(1) reads. They decide a connection's store and
/// engine, and none reaches the program.
pub const NAMES: &[&str] = &[
    "ALPN",
    "CADIR",
    "CAFILE",
    "CCAFILE",
    "CCAVERIFY",
    "CERTCHAINFILE",
    "CERTFILE",
    "CERTFILE_ALT",
    "CIPHERS",
    "CIPHERSUITES",
    "CRLFILE",
    "DHFILE",
    "KEYFILE",
    "KEYFILE_ALT",
    "MAXCONIP",
    "PINFILE",
    "SIGALGS",
    "SSL_CHROOT",
    "SSL_GID",
    "SSL_GROUP",
    "SSL_SANDBOX",
    "SSL_UID",
    "SSL_USER",
    "TICKETS",
    "TLS_GROUPS",
    "TLS_MAX",
    "TLS_MIN",
    "VERIFYDEPTH",
];

/// The setting that is of connections and of no store: how many at once one
/// address may have.
pub const CONNECTIONS: &str = "MAXCONIP";

/// Reads a value of `MAXCONIP`; 0 stands for no limit.
///
/// # Errors
/// It is no number from 0 to 1000000.
pub fn connections(value: &OsStr) -> Result<usize, Fail> {
    let digits = value.to_str().unwrap_or_default().trim_ascii();
    text::number(digits, 0..=1_000_000)
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| wrong(CONNECTIONS, value, "not a number from 0 to 1000000"))
}

/// Whether a variable is a setting.
#[must_use]
pub fn is_setting(name: &str) -> bool {
    called(name.as_bytes()).is_some()
}

/// The setting of this name, whatever bytes it has.
#[must_use]
pub fn called(name: &[u8]) -> Option<&'static str> {
    let at = NAMES.binary_search_by(|known| known.as_bytes().cmp(name));
    at.ok().map(|at| NAMES[at])
}

/// A setting and its value.
pub type Setting = (&'static str, OsString);

/// A word of our environment that is no setting of this table, such as
/// `DNSCACHEIP`; `None` where it is unset or empty.
///
/// # Errors
/// It is no text: it must not pass for unset.
pub fn word_of_environment(name: &str) -> Result<Option<String>, Fail> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let word = |value: OsString| {
        value
            .into_string()
            .map_err(|value| wrong(name, &value, NO_TEXT))
    };
    value.map(word).transpose()
}

/// What is wrong with a word that is no text.
const NO_TEXT: &str = "it is not valid UTF-8";

/// Settings that count before a client names a server: those of the process that
/// serves it, and the limit that lets it in.
const OF_THE_PROCESS: &[&str] = &[
    "MAXCONIP",
    "SSL_CHROOT",
    "SSL_GID",
    "SSL_GROUP",
    "SSL_SANDBOX",
    "SSL_UID",
    "SSL_USER",
];

/// Whether a rule for a server name comes too late for a setting.
#[must_use]
pub fn is_of_the_process(name: &str) -> bool {
    OF_THE_PROCESS.contains(&name)
}

/// What is said of such a setting, behind its name.
pub const TOO_LATE: &str = "has no effect in a rule for a server name: it counts before the client names one; set it in a rule for local= or for clients";

/// The cipher list for TLS 1.2, before what is never served is taken out: AEAD
/// first (RFC 9325 section 4.2). CBC with ECDHE is last. It serves what still
/// sends mail and knows no better: Exchange on Windows before 2016 (with RSA
/// certificates, and in Microsoft's own hardened list, SHA-2 CBC alone), macOS
/// to 10.10, Java 7, and scanners (SHA-1 CBC alone). No such client needs CBC
/// with DHE, and none at all knows CCM or ARIA but not GCM.
pub const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:!AESCCM";

/// What old versions need beyond it, and old servers: CBC with DHE (Java 6,
/// GnuTLS 2).
pub const OLD_CIPHERS: &str = "DHE+AES:!AESCCM:!aDSS";

/// How long the peer's chain may be, where nothing is said.
pub const VERIFY_DEPTH: u32 = 9;

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    const ALL: [(&'static str, Version); 4] = [
        ("1.0", Version::Tls10),
        ("1.1", Version::Tls11),
        ("1.2", Version::Tls12),
        ("1.3", Version::Tls13),
    ];

    /// The number on the wire, RFC 8446 section 4.1.2.
    #[must_use]
    pub fn wire(self) -> u16 {
        0x0301 + self as u16
    }
}

/// `1.2`.
impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = Version::ALL[*self as usize];
        out.write_str(name)
    }
}

/// What `SSL_SANDBOX` says of the filter of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Unset: where it can be had.
    Wanted,
    /// `0`: none.
    Off,
    /// `require`: nothing is served without.
    Required,
}

impl Filter {
    /// What the environment's `SSL_SANDBOX` says, for a program without rules.
    ///
    /// # Errors
    /// As [`Settings::filter`].
    pub fn of_environment() -> Result<Filter, Fail> {
        Settings::from_environment(&["SSL_SANDBOX"]).filter()
    }

    /// Whether this sandbox will do.
    ///
    /// # Errors
    /// The filter is required and cannot be had here.
    pub fn check(self, sandbox: &Sandbox) -> Result<(), Fail> {
        if self == Filter::Required && !sandbox.has_filter() {
            return Err(Fail::temporary(format!(
                "unable to use SSL_SANDBOX: \"require\": this system lacks {}",
                sandbox.missing().join(", ")
            )));
        }
        Ok(())
    }
}

/// One connection's settings. Equal settings share one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Settings(BTreeMap<&'static str, OsString>);

/// Whether a peer's certificate is asked for by `CCAFILE` and `CCAVERIFY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// As the options say.
    AsOptions,
    /// `CCAFILE=-`: not asked.
    Off,
    /// `CCAVERIFY`: required.
    Required,
}

impl Settings {
    /// Those of these settings that this process was started with.
    #[must_use]
    pub fn from_environment(names: &[&'static str]) -> Settings {
        let mut settings = Settings::default();
        let names = names.iter();
        settings.overlay(names.filter_map(|name| Some((*name, std::env::var_os(name)?))));
        settings
    }

    /// These with a cipher list, where one is given.
    #[must_use]
    pub fn with_ciphers(mut self, list: Option<&String>) -> Settings {
        self.overlay(list.map(|list| ("CIPHERS", list.into())));
        self
    }

    /// Lays settings over these. The empty value unsets.
    pub fn overlay(&mut self, settings: impl IntoIterator<Item = Setting>) {
        for (name, value) in settings {
            if value.is_empty() {
                self.0.remove(name);
            } else {
                self.0.insert(name, value);
            }
        }
    }

    /// These settings as bytes, for another process of ours.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let pairs = self.0.iter();
        pairs
            .flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat())
            .collect()
    }

    /// Reads what [`Settings::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Settings {
        let mut settings = Settings::default();
        settings.overlay(bytes.split(|byte| *byte == 0).filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((
                called(&pair[..at])?,
                OsStr::from_bytes(&pair[at + 1..]).to_owned(),
            ))
        }));
        settings
    }

    /// Takes a setting out.
    pub fn take(&mut self, name: &str) -> Option<OsString> {
        self.0.remove(name)
    }

    /// Whether a setting is set, and not to the empty value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The first of these settings that is set: the others are other names of it.
    #[must_use]
    pub fn first_of(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|name| self.has(name)).copied()
    }

    /// A setting that is a word, a list or a number; `None` where it is unset or
    /// empty.
    ///
    /// # Errors
    /// It is no text.
    pub fn word(&self, name: &str) -> Result<Option<&str>, Fail> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        match value.to_str() {
            None => Err(wrong(name, value, NO_TEXT)),
            word => Ok(word),
        }
    }

    /// A setting that is a path, of whatever bytes; `None` where it is unset or
    /// empty.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(Path::new)
    }

    /// The files that these settings name, by variable; of a directory
    /// (`CADIR`) all files count.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        const PATHS: &[&str] = &[
            "CADIR",
            "CAFILE",
            "CCAFILE",
            "CERTCHAINFILE",
            "CERTFILE",
            "CERTFILE_ALT",
            "CRLFILE",
            "DHFILE",
            "KEYFILE",
            "KEYFILE_ALT",
            "PINFILE",
        ];
        PATHS
            .iter()
            .filter_map(|name| Some((*name, self.path(name)?)))
            .filter(|(_, path)| path.as_os_str() != "-")
    }

    /// A protocol version.
    ///
    /// # Errors
    /// It is none.
    pub fn version(&self, name: &str) -> Result<Option<Version>, Fail> {
        let Some(value) = self.word(name)? else {
            return Ok(None);
        };
        Version::ALL
            .iter()
            .find(|(text, _)| *text == value)
            .map(|(_, version)| Some(*version))
            .ok_or_else(|| wrong(name, value, "not one of 1.0, 1.1, 1.2, 1.3"))
    }

    /// The lowest and the highest version.
    ///
    /// # Errors
    /// One is none, or the lowest is above the highest.
    pub fn versions(&self) -> Result<(Version, Option<Version>), Fail> {
        let max = self.version("TLS_MAX")?;
        let min = match self.version("TLS_MIN")? {
            Some(min) => min,
            // An administrator who allows 1.1 at most wants it to work.
            None => max.unwrap_or(Version::Tls12).min(Version::Tls12),
        };
        if max.is_some_and(|max| max < min) {
            return Err(wrong("TLS_MIN", min.to_string(), "above TLS_MAX"));
        }
        Ok((min, max))
    }

    /// `VERIFYDEPTH`.
    ///
    /// # Errors
    /// It is no number from 0 to 100.
    pub fn verify_depth(&self) -> Result<u32, Fail> {
        match self.word("VERIFYDEPTH")? {
            None => Ok(VERIFY_DEPTH),
            Some(value) => text::number(value, 0..=100)
                .and_then(|number| u32::try_from(number).ok())
                .ok_or_else(|| wrong("VERIFYDEPTH", value, "not a number from 0 to 100")),
        }
    }

    /// `ALPN` as RFC 7301's ProtocolNameList: each name behind its length.
    ///
    /// # Errors
    /// A name is empty, over 255 bytes, or two names that no comma parts.
    pub fn protocols(&self) -> Result<Option<Vec<u8>>, Fail> {
        let Some(value) = self.word("ALPN")? else {
            return Ok(None);
        };
        let mut list = Vec::new();
        for name in value.split(',').map(str::trim) {
            if name.contains(|c: char| c.is_ascii_whitespace()) {
                let why = "a blank in a name: names have commas between them";
                return Err(wrong("ALPN", value, why));
            }
            match u8::try_from(name.len()) {
                Ok(length) if length > 0 => {
                    list.push(length);
                    list.extend_from_slice(name.as_bytes());
                }
                _ => return Err(wrong("ALPN", value, "a name is empty or too long")),
            }
        }
        Ok(Some(list))
    }

    /// `TICKETS`.
    ///
    /// # Errors
    /// Neither 0 nor 1.
    pub fn tickets(&self) -> Result<bool, Fail> {
        match self.word("TICKETS")? {
            None | Some("1") => Ok(true),
            Some("0") => Ok(false),
            Some(value) => Err(wrong("TICKETS", value, "neither 0 nor 1")),
        }
    }

    /// `SSL_SANDBOX`.
    ///
    /// # Errors
    /// Neither 0, 1 nor require.
    pub fn filter(&self) -> Result<Filter, Fail> {
        match self.word("SSL_SANDBOX")? {
            None | Some("1") => Ok(Filter::Wanted),
            Some("0") => Ok(Filter::Off),
            Some("require") => Ok(Filter::Required),
            Some(value) => Err(wrong("SSL_SANDBOX", value, "not one of 0, 1, require")),
        }
    }

    /// What `CCAFILE` and `CCAVERIFY` say of the client's certificate.
    #[must_use]
    pub fn client_certificate(&self) -> ClientCertificate {
        if self.path("CCAFILE") == Some(Path::new("-")) {
            ClientCertificate::Off
        } else if self.has("CCAVERIFY") {
            ClientCertificate::Required
        } else {
            ClientCertificate::AsOptions
        }
    }
}

/// The words of a cipher list.
pub fn cipher_words(list: &str) -> impl Iterator<Item = &str> {
    list.split([':', ',', ' ', ';'])
        .filter(|word| !word.is_empty())
}

/// The words of a cipher list that are not OpenSSL's. It would drop them in
/// silence.
#[must_use]
pub fn unknown_cipher_words(list: &str, accepted: impl Fn(&str) -> bool) -> Vec<String> {
    cipher_words(list)
        .filter(|word| !word.starts_with('@'))
        .filter(|word| {
            let bare = word.trim_start_matches(['!', '+', '-']);
            !accepted(bare)
                && !bare
                    .split('+')
                    .all(|part| CIPHER_KEYWORDS.contains(&part) || accepted(part))
        })
        .map(str::to_owned)
        .collect()
}

/// `unable to use TLS_MIN: "x": not one of ...`.
fn wrong(name: &str, value: impl AsRef<OsStr>, why: &str) -> Fail {
    let value = text::excerpt(value.as_ref().as_bytes(), 100);
    Fail::temporary(format!("unable to use {name}: \"{value}\": {why}"))
}

/// The words of openssl-ciphers(1) that select by property. Some select nothing
/// in a given build, which is no mistake of the administrator's.
const CIPHER_KEYWORDS: &[&str] = &[
    "3DES",
    "ADH",
    "AECDH",
    "AES",
    "AES128",
    "AES256",
    "AESCCM",
    "AESCCM8",
    "AESGCM",
    "ALL",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "CBC",
    "CHACHA20",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "DEFAULT",
    "DES",
    "DH",
    "DHE",
    "DSS",
    "ECDH",
    "ECDHE",
    "ECDSA",
    "EDH",
    "EECDH",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "FIPS",
    "GOST",
    "GOST89MAC",
    "GOST94",
    "HIGH",
    "IDEA",
    "LOW",
    "MD5",
    "MEDIUM",
    "NULL",
    "PSK",
    "RC2",
    "RC4",
    "RSA",
    "SEED",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "SRP",
    "SSLv2",
    "SSLv3",
    "SUITEB128",
    "SUITEB128ONLY",
    "SUITEB192",
    "TLSv1",
    "TLSv1.0",
    "TLSv1.2",
    "aDH",
    "aDSS",
    "aECDH",
    "aECDSA",
    "aGOST",
    "aGOST01",
    "aNULL",
    "aPSK",
    "aRSA",
    "aSRP",
    "eNULL",
    "kDH",
    "kDHE",
    "kDHEPSK",
    "kDHd",
    "kDHr",
    "kECDH",
    "kECDHE",
    "kECDHEPSK",
    "kECDHe",
    "kECDHr",
    "kEDH",
    "kEECDH",
    "kGOST",
    "kPSK",
    "kRSA",
    "kRSAPSK",
    "kSRP",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        settings.overlay(
            pairs
                .iter()
                .map(|(name, value)| (called(name.as_bytes()).expect("known"), (*value).into())),
        );
        settings
    }

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(NAMES.is_sorted());
        assert!(is_setting("KEYFILE"));
        assert!(!is_setting("PATH"));
    }

    #[test]
    fn an_empty_value_unsets() {
        let mut both = settings(&[("CERTFILE", "a"), ("KEYFILE", "b")]);
        both.overlay([("KEYFILE", OsString::new())]);
        assert_eq!(both.path("CERTFILE"), Some(Path::new("a")));
        assert_eq!(both.path("KEYFILE"), None);
        assert!(!both.has("KEYFILE"));
        assert_eq!(called(b"PATH"), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_a_path_and_no_word() {
        let value = OsStr::from_bytes(b"d\xe9/x");
        let mut odd = Settings::default();
        odd.overlay(NAMES.iter().map(|name| (*name, value.to_owned())));
        assert_eq!(odd.path("CRLFILE"), Some(Path::new(value)));
        assert!(odd.paths().all(|(_, path)| path == Path::new(value)));
        assert_eq!(odd.client_certificate(), ClientCertificate::Required);
        let refused = [
            odd.versions().err(),
            odd.verify_depth().err(),
            odd.protocols().err(),
            odd.tickets().err(),
            odd.filter().err(),
            odd.word("CIPHERS").err(),
            connections(value).err(),
        ];
        for fail in refused {
            assert_eq!(fail.expect("refused").code(), 111);
        }
        let why = odd.tickets().expect_err("refused").to_string();
        assert_eq!(
            why,
            "unable to use TICKETS: \"d\\xE9/x\": it is not valid UTF-8"
        );
        assert_eq!(Settings::from_bytes(&odd.to_bytes()), odd);
    }

    #[test]
    fn versions_have_a_floor() {
        assert_eq!(
            settings(&[]).versions().expect("defaults"),
            (Version::Tls12, None)
        );
        let old = settings(&[("TLS_MAX", "1.1")]);
        assert_eq!(
            old.versions().expect("old"),
            (Version::Tls11, Some(Version::Tls11))
        );
        for bad in [
            settings(&[("TLS_MIN", "1.4")]),
            settings(&[("TLS_MIN", "1.3"), ("TLS_MAX", "1.2")]),
        ] {
            assert_eq!(bad.versions().expect_err("refused").code(), 111);
        }
        assert_eq!(Version::Tls12.wire(), 0x0303);
    }

    #[test]
    fn the_filter_is_off_only_where_that_is_said() {
        let filter = |value| settings(&[("SSL_SANDBOX", value)]).filter();
        assert_eq!(filter("").expect("unset"), Filter::Wanted);
        assert_eq!(filter("1").expect("1"), Filter::Wanted);
        assert_eq!(filter("0").expect("0"), Filter::Off);
        assert_eq!(filter("require").expect("require"), Filter::Required);
        assert_eq!(filter("no").expect_err("refused").code(), 111);
    }

    #[test]
    fn protocol_names_stand_behind_their_lengths() {
        let two = settings(&[("ALPN", "imap, pop3")]);
        assert_eq!(
            two.protocols().expect("sound").as_deref(),
            Some(&b"\x04imap\x04pop3"[..])
        );
        for wrong in ["imap,,pop3", "h2 http/1.1", "h2, http 1.1"] {
            assert!(settings(&[("ALPN", wrong)]).protocols().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_unknown_words_are_named() {
        let list = "ECDHE+AESGCM:!aNUL:!RC4:!EXPORT:AES256-GCM:+HIGH:@STRENGTH:X";
        assert_eq!(
            unknown_cipher_words(list, |word| word == "X"),
            ["!aNUL", "AES256-GCM"]
        );
    }
}
