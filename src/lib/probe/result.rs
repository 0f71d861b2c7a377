//! The result for one host and port, as the JSON object of sslprobe(1): what
//! sslprobe writes and sslsurvey reads. Keys are only ever added.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::report::Fail;

/// A protocol version, old ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// RFC 6101.
    #[serde(rename = "SSLv3")]
    Ssl3,
    /// RFC 2246.
    #[serde(rename = "TLSv1.0")]
    Tls10,
    /// RFC 4346.
    #[serde(rename = "TLSv1.1")]
    Tls11,
    /// RFC 5246.
    #[serde(rename = "TLSv1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "TLSv1.3")]
    Tls13,
}

impl Version {
    /// All, old ones first.
    pub const ALL: [Version; 5] = [
        Version::Ssl3,
        Version::Tls10,
        Version::Tls11,
        Version::Tls12,
        Version::Tls13,
    ];

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Version::Ssl3 => 0x0300,
            Version::Tls10 => 0x0301,
            Version::Tls11 => 0x0302,
            Version::Tls12 => 0x0303,
            Version::Tls13 => 0x0304,
        }
    }

    /// The one with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Version> {
        Version::ALL.into_iter().find(|one| one.number() == number)
    }
}

/// As it is written in JSON.
impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Version::Ssl3 => "SSLv3",
            Version::Tls10 => "TLSv1.0",
            Version::Tls11 => "TLSv1.1",
            Version::Tls12 => "TLSv1.2",
            Version::Tls13 => "TLSv1.3",
        })
    }
}

/// What became of the wish for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartTls {
    /// The server's capabilities list it, and it went ahead.
    #[serde(rename = "offered")]
    Offered,
    /// Its capabilities do not list it.
    #[serde(rename = "missing")]
    Missing,
    /// It was listed and refused, or the server refused to talk at all.
    #[serde(rename = "refused")]
    Refused,
    /// TLS begins at once on this port.
    #[serde(rename = "n/a")]
    NotApplicable,
}

/// How bad a finding is, the worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Mail is lost, or anyone on the way can read it.
    High,
    /// Some partners fail, or will.
    Medium,
    /// Should be mended when somebody is at it.
    Low,
    /// Good to know; nothing is wrong.
    #[default]
    Note,
}

/// As it is written in JSON.
impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Severity::High => "high",
            Severity::Medium => "medium",
            Severity::Low => "low",
            Severity::Note => "note",
        })
    }
}

/// One thing that somebody should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// How bad it is.
    #[serde(deserialize_with = "or_default")]
    pub severity: Severity,
    /// A stable word.
    #[serde(deserialize_with = "or_default")]
    pub code: String,
    /// One sentence, printable, that fits on a line of the report.
    #[serde(deserialize_with = "or_default")]
    pub text: String,
}

/// The kind of a certificate's key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// RSA, RSA-PSS included.
    Rsa,
    /// An elliptic curve of NIST's or another.
    Ecdsa,
    /// Ed25519 and Ed448.
    Ed25519,
    /// Nobody says; no probe writes it.
    #[default]
    Unknown,
}

/// As it is written in JSON.
impl fmt::Display for KeyType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            KeyType::Rsa => "rsa",
            KeyType::Ecdsa => "ecdsa",
            KeyType::Ed25519 => "ed25519",
            KeyType::Unknown => "unknown",
        })
    }
}

/// How a server's list of certificates stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chain {
    /// It leads to a root that it holds or that is trusted.
    Complete,
    /// A certificate between the server's own and a root is not sent.
    Incomplete,
    /// All are there, in another order than RFC 5246 wants, or with others.
    Misordered,
    /// The server's own certificate is its own issuer.
    SelfSigned,
    /// Nobody says; no probe writes it.
    #[default]
    Unknown,
}

/// A certificate that a server shows, with what is to be said of its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// The kind of its key.
    #[serde(deserialize_with = "or_default")]
    pub key: KeyType,
    /// RSA's modulus, lowercase hex without leading zeros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modulus: Option<String>,
    /// The size of its key; 0: not known.
    #[serde(deserialize_with = "or_default")]
    pub bits: u32,
    /// Whose it is, in slash form.
    #[serde(deserialize_with = "or_default")]
    pub subject: String,
    /// Who signed it, in slash form.
    #[serde(deserialize_with = "or_default")]
    pub issuer: String,
    /// The names and addresses in subjectAltName.
    #[serde(deserialize_with = "or_default")]
    pub names: Vec<String>,
    /// The signature's algorithm, as OpenSSL calls it.
    #[serde(deserialize_with = "or_default")]
    pub signature: String,
    /// `2026-01-31T12:00:00Z`.
    #[serde(deserialize_with = "or_default")]
    pub not_before: String,
    /// The same.
    #[serde(deserialize_with = "or_default")]
    pub not_after: String,
    /// SHA-256 of the certificate, lowercase hex.
    #[serde(deserialize_with = "or_default")]
    pub sha256: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), lowercase hex.
    #[serde(deserialize_with = "or_default")]
    pub spki: String,
    /// How the chain stands.
    #[serde(deserialize_with = "or_default")]
    pub chain: Chain,
    /// `ok`, or why it does not verify; empty: not known.
    #[serde(deserialize_with = "or_default")]
    pub verify: String,
    /// It names the host, or under `-M` the mail domain.
    pub name_ok: Option<bool>,
    /// It names the host. For the probe itself: no key of JSON.
    #[serde(skip)]
    pub names_host: bool,
}

impl Certificate {
    /// Whether it verifies.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.verify == "ok"
    }

    /// Whether it is known not to verify.
    #[must_use]
    pub fn fails(&self) -> bool {
        !self.verify.is_empty() && !self.verifies()
    }
}

/// What came of bytes that were injected behind STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Injection {
    /// The server took no notice of them, or ended the connection.
    Refused,
    /// It answered them inside TLS.
    Answered,
}

/// How certificates stand to what a domain publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    /// Nothing is published.
    None,
    /// They agree.
    Ok,
    /// They do not.
    Mismatch,
    /// What is published does not validate.
    Bogus,
}

/// All that was found out of a host and port. What was not looked at is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostResult {
    /// As it was given, or as MX names it.
    #[serde(deserialize_with = "or_default")]
    pub host: String,
    /// The port.
    #[serde(deserialize_with = "or_default")]
    pub port: u16,
    /// The address that was probed.
    pub address: Option<String>,
    /// `smtp lmtp pop3 imap sieve`, `tls` where it begins at once.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// The mail domain whose MX it is, under `-M`.
    pub mx_of: Option<String>,
    /// Something accepts connections.
    #[serde(deserialize_with = "or_default")]
    pub listens: bool,
    /// The first line that the server said, made printable.
    pub greeting: Option<String>,
    /// Whether TLS was to be had.
    #[serde(deserialize_with = "word")]
    pub starttls: Option<StartTls>,
    /// Why nothing more was found out.
    pub error: Option<String>,
    /// Which versions it speaks: all five, once it has spoken TLS, with `None` for
    /// those that nobody asked about.
    #[serde(deserialize_with = "asked_by_version")]
    pub versions: Option<BTreeMap<Version, Option<bool>>>,
    /// The suites that it takes, as far as it was asked.
    #[serde(deserialize_with = "by_version")]
    pub suites: Option<BTreeMap<Version, Vec<String>>>,
    /// What it chooses of all that there are.
    #[serde(deserialize_with = "by_version")]
    pub preferred: Option<BTreeMap<Version, String>>,
    /// It goes by its own order, and not by the client's.
    pub server_order: Option<bool>,
    /// Those that are weak.
    pub weak: Option<Vec<String>>,
    /// The groups that it takes, as far as it was asked.
    pub groups: Option<Vec<String>>,
    /// `suites` and `groups` are all that it takes (`-F`), and no samples.
    pub listed_all: Option<bool>,
    /// The smallest prime of finite-field Diffie-Hellman that was seen, in bits.
    pub dh_bits: Option<u32>,
    /// Which one it is.
    pub dh_prime: Option<String>,
    /// Which versions resume a session.
    #[serde(deserialize_with = "by_version")]
    pub resumption: Option<BTreeMap<Version, bool>>,
    /// It takes a ClientHello of two segments.
    pub large_hello: Option<bool>,
    /// It takes values that mean nothing (RFC 8701).
    pub grease: Option<bool>,
    /// One for each kind of key.
    #[serde(deserialize_with = "certificates")]
    pub certificates: Vec<Certificate>,
    /// What it offers to log in with before TLS.
    pub auth_before_tls: Option<Vec<String>>,
    /// The same after it.
    pub auth_after_tls: Option<Vec<String>>,
    /// The capability list inside TLS is not the one before it.
    pub capabilities_fresh: Option<bool>,
    /// What came of injected bytes.
    #[serde(deserialize_with = "word")]
    pub injection: Option<Injection>,
    /// How TLSA records agree.
    #[serde(deserialize_with = "word")]
    pub dane: Option<Agreement>,
    /// How the domain's MTA-STS policy agrees.
    #[serde(deserialize_with = "word")]
    pub sts: Option<Agreement>,
    /// Kinds of clients that cannot connect.
    pub cannot_reach: Option<Vec<String>>,
    /// The worst first, each code once.
    #[serde(deserialize_with = "findings")]
    pub findings: Vec<Finding>,
    /// A line that would hold today.
    pub tlsdestinations: Option<String>,
    /// Connections that were made.
    #[serde(deserialize_with = "or_default")]
    pub connections: u32,
    /// Those on which a ClientHello was sent.
    #[serde(deserialize_with = "or_default")]
    pub handshakes: u32,
    /// How long it took, waiting for its turn left out.
    #[serde(deserialize_with = "or_default")]
    pub seconds: f64,
}

/// Whether a later version of this program knows a word that this one does not.
fn is_news<T: DeserializeOwned>(word: Option<&Value>) -> bool {
    word.is_some_and(|word| word.is_string() && T::deserialize(word).is_err())
}

/// A word, or nothing where it is none of those that are known here.
fn word<'a, D: Deserializer<'a>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let word = Value::deserialize(from)?;
    if is_news::<T>(Some(&word)) {
        return Ok(None);
    }
    Option::deserialize(word).map_err(D::Error::custom)
}

/// What is null says as much as what is left out.
fn or_default<'a, D: Deserializer<'a>, T>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'a> + Default,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// What is told by version, of those that are known here; `None` where it is null.
fn asked_by_version<'a, D, T>(from: D) -> Result<Option<BTreeMap<Version, Option<T>>>, D::Error>
where
    D: Deserializer<'a>,
    T: Deserialize<'a>,
{
    let told = Option::<BTreeMap<String, Option<T>>>::deserialize(from)?;
    let known = |name: &str| Version::ALL.into_iter().find(|one| one.to_string() == name);
    Ok(told.map(|told| {
        let told = told.into_iter();
        told.filter_map(|(name, what)| Some((known(&name)?, what)))
            .collect()
    }))
}

/// The same without what is null.
fn by_version<'a, D, T>(from: D) -> Result<Option<BTreeMap<Version, T>>, D::Error>
where
    D: Deserializer<'a>,
    T: Deserialize<'a>,
{
    let told = asked_by_version(from)?;
    Ok(told.map(|told| {
        let told = told.into_iter();
        told.filter_map(|(version, what)| Some((version, what?)))
            .collect()
    }))
}

/// Those things of a list of which `is_news` knows all words.
fn known<'a, D, T>(from: D, is_news: fn(&Value) -> bool) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'a>,
    T: DeserializeOwned,
{
    let all = Option::<Vec<Value>>::deserialize(from)?.unwrap_or_default();
    let all = all.into_iter().filter(|one| !is_news(one));
    all.map(|one| T::deserialize(one).map_err(D::Error::custom))
        .collect()
}

fn certificates<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<Certificate>, D::Error> {
    known(from, |one| {
        is_news::<KeyType>(one.get("key")) || is_news::<Chain>(one.get("chain"))
    })
}

fn findings<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<Finding>, D::Error> {
    known(from, |one| is_news::<Severity>(one.get("severity")))
}

impl HostResult {
    /// Whether it speaks a version, where that is known.
    #[must_use]
    pub fn knows(&self, version: Version) -> Option<bool> {
        self.versions.as_ref()?.get(&version).copied().flatten()
    }

    /// Whether it is known to speak a version.
    #[must_use]
    pub fn speaks(&self, version: Version) -> bool {
        self.knows(version) == Some(true)
    }

    /// Whether it is known not to speak a version.
    #[must_use]
    pub fn refuses(&self, version: Version) -> bool {
        self.knows(version) == Some(false)
    }

    /// Whether TLS was reached at all.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.versions.is_some()
    }

    /// One line of JSON, without its line feed.
    ///
    /// # Errors
    /// Serde's, which nothing here provokes.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads what [`HostResult::to_json`] wrote, of this version or a later one.
    ///
    /// # Errors
    /// It is no such object: words that end a sentence.
    pub fn from_json(line: &str) -> Result<HostResult, Fail> {
        // Serde would take a list for an object, field by field.
        if !line.trim_start().starts_with('{') {
            return Err("it is no JSON object".into());
        }
        let result: HostResult = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if result.host.is_empty() {
            return Err("it names no host".into());
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_json_and_keys_of_later_versions() {
        let result = HostResult {
            host: "mx.example".to_owned(),
            port: 25,
            starttls: Some(StartTls::NotApplicable),
            versions: Some(BTreeMap::from([
                (Version::Tls10, Some(false)),
                (Version::Tls13, Some(true)),
            ])),
            findings: vec![Finding {
                severity: Severity::High,
                code: "expired".to_owned(),
                text: "a\u{1b}b".to_owned(),
            }],
            ..HostResult::default()
        };
        let line = result.to_json().expect("JSON");
        assert!(
            line.contains(r#""versions":{"TLSv1.0":false,"TLSv1.3":true}"#),
            "{line}"
        );
        assert!(line.contains(r#""starttls":"n/a""#) && line.contains(r#""severity":"high""#));
        assert!(!line.contains('\u{1b}'), "control characters are escaped");
        let later = line.replacen('{', r#"{"added_later":[1,{"x":null}],"#, 1);
        assert_eq!(HostResult::from_json(&later).expect("read"), result);
        assert!(result.speaks(Version::Tls13) && !result.speaks(Version::Tls12));
    }

    #[test]
    fn words_of_later_versions_are_passed_by_and_the_rest_is_read() {
        let certificate = |key: &str, chain: &str| {
            format!(
                r#"{{"key":"{key}","bits":1,"subject":"","issuer":"","not_before":"","not_after":"",
                "sha256":"{key}","spki":"","chain":"{chain}","verify":"ok","name_ok":true}}"#
            )
        };
        let line = format!(
            r#"{{"host":"a","starttls":"perhaps","injection":"queued","dane":"half","sts":null,
            "versions":{{"TLSv1.3":true,"TLSv1.4":true}},"suites":{{"TLSv1.4":["X"]}},
            "preferred":{{"TLSv1.4":"X"}},"resumption":{{"QUIC":true}},
            "certificates":[{},{},{}],"findings":[
            {{"severity":"grave","code":"x","text":""}},{{"severity":"low","code":"y","text":""}}]}}"#,
            certificate("mldsa", "complete"),
            certificate("rsa", "complete"),
            certificate("ecdsa", "woven"),
        );
        let result = HostResult::from_json(&line).expect("read");
        assert_eq!(
            (result.starttls, result.injection, result.dane),
            (None, None, None)
        );
        assert!(result.speaks(Version::Tls13));
        assert_eq!(result.versions.map(|all| all.len()), Some(1));
        assert_eq!(result.certificates.len(), 1);
        assert_eq!(result.certificates[0].sha256, "rsa");
        assert_eq!(result.findings.len(), 1);
        let nothing = r#"{"host":"a","certificates":null,"findings":null}"#;
        assert!(HostResult::from_json(nothing).is_ok());
        for bad in [
            r#"{"host":"a","starttls":5}"#,
            r#"{"host":"a","versions":{"TLSv1.3":5}}"#,
            r#"{"host":"a","certificates":[{"key":5}]}"#,
            r#"{"host":"a","findings":["x"]}"#,
        ] {
            assert!(HostResult::from_json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_null_is_not_known() {
        let line = r#"{"host":"a","port":null,"protocol":null,"listens":null,"starttls":null,
            "versions":{"SSLv3":null,"TLSv1.2":true},"resumption":{"TLSv1.2":null},"dane":null,
            "preferred":{"TLSv1.3":null,"TLSv1.2":"Y"},"findings":[{"severity":null,"code":"c"}],
            "connections":null,"handshakes":null,"seconds":null,
            "certificates":[{"key":null,"bits":null,"chain":null,"name_ok":null},{}]}"#;
        let result = HostResult::from_json(line).expect("read");
        assert_eq!((result.dane, result.listens), (None, false));
        let versions = Version::ALL.map(|version| result.knows(version));
        assert_eq!(versions, [None, None, None, Some(true), None]);
        // Null is a key all the same.
        let keys = result
            .versions
            .map(|all| all.into_keys().collect::<Vec<_>>());
        assert_eq!(keys, Some(vec![Version::Ssl3, Version::Tls12]));
        assert_eq!(result.preferred.map(|all| all.len()), Some(1));
        assert_eq!(result.resumption, Some(BTreeMap::new()));
        assert_eq!(result.findings[0].severity, Severity::Note);
        assert_eq!(result.certificates.len(), 2);
        for one in &result.certificates {
            assert_eq!((one.key, one.chain), (KeyType::Unknown, Chain::Unknown));
            assert!(!one.verifies() && !one.fails() && one.name_ok.is_none());
        }
        // What was not asked is told as such.
        let asked = HostResult {
            versions: Some(BTreeMap::from([(Version::Tls13, None)])),
            ..HostResult::default()
        };
        let line = asked.to_json().expect("JSON");
        assert!(line.contains(r#""versions":{"TLSv1.3":null}"#), "{line}");
    }

    #[test]
    fn what_is_no_result_is_an_error() {
        for line in ["", "[]", "{}", "{\"port\":70000}", "{\"host\":1}", "{"] {
            assert!(HostResult::from_json(line).is_err(), "{line}");
        }
    }
}
