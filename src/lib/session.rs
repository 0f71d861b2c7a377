//! A session told to the program and to the log: the variables of
//! ucspi-tls-environment(7) and the TLS line of sslserver(1).
#![forbid(unsafe_code)]

use openssl::asn1::Asn1Time;
use openssl::nid::Nid;
use openssl::ssl::{NameType, SslRef};
use openssl::x509::{X509, X509NameRef, X509Ref};

use crate::environ::Edits;
use crate::hello::{self, Hello};
use crate::settings;
use crate::store::{KeyKind, long_name};
use crate::text;
use crate::tls_ffi::{self, names};
use crate::trust::{self, Verdict};

/// A set of variables that is larger than this, in bytes, loses its PEM values.
const SET_LIMIT: usize = 64 * 1024;

/// How many bytes stand for one value of the TLS line at most. The longest host
/// name has 253.
const VALUE_LIMIT: usize = 300;

/// Which end we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// sslserver.
    Server,
    /// sslclient.
    Client,
}

/// How the names of a session's variables begin, where one name stands for many.
const PREFIXES: &[&str] = &["SSL_CLIENT_", "SSL_SERVER_", "SSL_CIPHER_"];

/// The names of a session's other variables.
const NAMES: &[&str] = &[
    "SSL_ALPN",
    "SSL_CIPHER",
    "SSL_COMPRESS_METHOD",
    "SSL_GROUP",
    "SSL_PEER_CERT_HASH",
    "SSL_PEER_S_DN",
    "SSL_PROTOCOL",
    "SSL_SECURE_RENEG",
    "SSL_SESSION_ID",
    "SSL_SESSION_RESUMED",
    "SSL_TLS_SNI",
    "SSL_VERSION_INTERFACE",
    "SSL_VERSION_LIBRARY",
];

/// The variables of UCSPI-TLS.
const CONTROL: &[&str] = &["SSLCTLEXT", "SSLCTLFD", "SSLREADFD", "SSLWRITEFD"];

/// Whether a name is that of a variable of a session: no other is taken from an
/// engine, which reads the client's bytes.
#[must_use]
pub fn is_variable(name: &[u8]) -> bool {
    NAMES.iter().any(|known| known.as_bytes() == name)
        || PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Removes every variable that could be taken for one of a session, and the
/// settings, which are no business of a program's.
#[must_use]
pub fn stale() -> Edits {
    let mut edits = Edits::new();
    for prefix in PREFIXES {
        edits.remove_prefix(prefix);
    }
    for name in NAMES.iter().chain(CONTROL).chain(settings::NAMES) {
        edits.remove(name);
    }
    edits
}

/// One established session, seen from our end.
pub struct Account<'a> {
    /// Libssl's view.
    pub ssl: &'a SslRef,
    /// Which end we are.
    pub role: Role,
    /// What became of the peer's certificate.
    pub verdict: Verdict,
    /// The intermediates of our own certificate.
    pub own_chain: &'a [X509],
}

impl Account<'_> {
    /// The short set, and the full one where it is wanted.
    #[must_use]
    pub fn variables(&self, full: bool) -> Edits {
        let mut edits = self.short();
        if full {
            let mut long = Edits::new();
            self.full(&mut long, true);
            if long.to_wire().len() > SET_LIMIT {
                long = Edits::new();
                self.full(&mut long, false);
            }
            edits.extend(long);
        }
        edits
    }

    /// The TLS line behind the program's name; `id` is the process it tells of.
    #[must_use]
    pub fn line(&self, id: i32) -> String {
        let mut line = format!("tls {id}");
        // Together they leave room in a line, however long the peer's names are.
        let mut add = |key: &str, value: &[u8]| {
            line.extend([" ", key, "=", &text::value(value, VALUE_LIMIT)]);
        };
        add("version", self.ssl.version_str().as_bytes());
        if let Some(cipher) = self.ssl.current_cipher() {
            add("cipher", cipher.name().as_bytes());
            let bits = cipher.bits();
            let bits = format!("{}/{}", bits.secret, bits.algorithm);
            add("bits", bits.as_bytes());
        }
        if let Some(group) = tls_ffi::group_name(self.ssl) {
            add("group", group.as_bytes());
        }
        let resumed = self.ssl.session_reused();
        if let Some(kind) = self
            .server_certificate()
            .and_then(|certificate| kind(&certificate))
        {
            if !resumed {
                add("cert", kind.word().as_bytes());
            }
        }
        if let Some(name) = self.server_name() {
            add("sni", &name);
        }
        add("resumed", if resumed { b"yes" } else { b"no" });
        add("verify", self.verdict.word().as_bytes());
        if let Some(peer) = self.ssl.peer_certificate() {
            add("peer", &names::rfc4514_form(peer.subject_name()));
        }
        line
    }

    fn short(&self) -> Edits {
        let ssl = self.ssl;
        let mut edits = Edits::new();
        edits.set("SSL_PROTOCOL", ssl.version_str());
        if let Some(cipher) = ssl.current_cipher() {
            edits.set("SSL_CIPHER", cipher.name());
            let bits = cipher.bits();
            edits.set("SSL_CIPHER_USEKEYSIZE", bits.secret.to_string());
            edits.set("SSL_CIPHER_ALGKEYSIZE", bits.algorithm.to_string());
        }
        edits.set_if("SSL_GROUP", tls_ffi::group_name(ssl));
        let resumed = if ssl.session_reused() {
            "Resumed"
        } else {
            "Initial"
        };
        edits.set("SSL_SESSION_RESUMED", resumed);
        edits.set_if(
            "SSL_TLS_SNI",
            self.server_name().map(|name| text::printable(&name)),
        );
        edits.set_if(
            "SSL_ALPN",
            ssl.selected_alpn_protocol().map(text::printable),
        );
        let name = match self.role {
            Role::Server => "SSL_CLIENT_VERIFY",
            Role::Client => "SSL_SERVER_VERIFY",
        };
        edits.set(name, self.verdict.variable());
        if let Some(peer) = ssl.peer_certificate() {
            let subject = names::rfc4514_form(peer.subject_name());
            edits.set("SSL_PEER_S_DN", text::printable(&subject));
            if let Ok(print) = trust::fingerprint(&peer) {
                edits.set(
                    "SSL_PEER_CERT_HASH",
                    format!("SHA256:{}", text::hex(&print)),
                );
            }
        }
        edits
    }

    fn full(&self, edits: &mut Edits, pem: bool) {
        let ssl = self.ssl;
        // Empty where TLS 1.3 gives no ticket: nothing names the session then.
        if let Some(session) = ssl.session() {
            edits.set("SSL_SESSION_ID", text::hex(session.id()));
        }
        edits.set("SSL_CIPHER_EXPORT", "false");
        edits.set("SSL_COMPRESS_METHOD", "NULL");
        let secure = if tls_ffi::secure_renegotiation(ssl) {
            "true"
        } else {
            "false"
        };
        edits.set("SSL_SECURE_RENEG", secure);
        edits.set(
            "SSL_VERSION_INTERFACE",
            concat!("ucspi-tls/", env!("CARGO_PKG_VERSION")),
        );
        edits.set("SSL_VERSION_LIBRARY", openssl::version::version());
        let peer_chain: Vec<X509> = ssl
            .peer_cert_chain()
            .map(|chain| chain.iter().map(ToOwned::to_owned).collect())
            .unwrap_or_default();
        // At a client's end libssl counts the server's own certificate in.
        let skip = usize::from(self.role == Role::Client).min(peer_chain.len());
        let own = ssl.certificate().map(X509Ref::to_owned);
        let (server, client) = match self.role {
            Role::Server => (
                (own, self.own_chain),
                (ssl.peer_certificate(), &peer_chain[..]),
            ),
            Role::Client => (
                (ssl.peer_certificate(), &peer_chain[skip..]),
                (own, self.own_chain),
            ),
        };
        for (end, (certificate, chain)) in [("SERVER", server), ("CLIENT", client)] {
            if let Some(certificate) = certificate {
                describe(edits, &format!("SSL_{end}"), &certificate, chain, pem);
            }
        }
    }

    fn server_certificate(&self) -> Option<X509> {
        match self.role {
            Role::Server => self.ssl.certificate().map(X509Ref::to_owned),
            Role::Client => self.ssl.peer_certificate(),
        }
    }

    fn server_name(&self) -> Option<Vec<u8>> {
        let name = match self.role {
            // What this client asked for, whatever session it resumes.
            Role::Server => hello::of(self.ssl).and_then(Hello::server_name),
            Role::Client => self.ssl.servername_raw(NameType::HOST_NAME),
        };
        // A host name like the others: in lower case.
        name.map(<[u8]>::to_ascii_lowercase)
    }
}

/// The kind of a certificate's key.
fn kind(certificate: &X509Ref) -> Option<KeyKind> {
    certificate.public_key().ok().map(|key| KeyKind::of(&key))
}

/// mod_ssl's names of a subject's parts.
const PARTS: &[(&str, Nid)] = &[
    ("C", Nid::COUNTRYNAME),
    ("ST", Nid::STATEORPROVINCENAME),
    ("L", Nid::LOCALITYNAME),
    ("O", Nid::ORGANIZATIONNAME),
    ("OU", Nid::ORGANIZATIONALUNITNAME),
    ("CN", Nid::COMMONNAME),
    ("T", Nid::TITLE),
    ("I", Nid::INITIALS),
    ("G", Nid::GIVENNAME),
    ("S", Nid::SURNAME),
    ("D", Nid::DESCRIPTION),
    ("UID", Nid::USERID),
    ("Email", Nid::PKCS9_EMAILADDRESS),
];

/// All that mod_ssl tells of a certificate, under `prefix`; as PEM too, with its chain,
/// where that is wanted.
pub fn describe(edits: &mut Edits, prefix: &str, certificate: &X509Ref, chain: &[X509], pem: bool) {
    edits.set(
        format!("{prefix}_M_VERSION"),
        (i64::from(certificate.version()) + 1).to_string(),
    );
    let serial = certificate
        .serial_number()
        .to_bn()
        .and_then(|number| number.to_dec_str().map(|text| text.to_string()));
    edits.set_if(format!("{prefix}_M_SERIAL"), serial.ok());
    for (letter, name) in [
        ("S", certificate.subject_name()),
        ("I", certificate.issuer_name()),
    ] {
        describe_name(edits, &format!("{prefix}_{letter}_DN"), name);
    }
    let (mut hosts, mut mailboxes, mut addresses) = (0, 0, 0);
    for name in names::alternative_names(certificate) {
        let (kind, count) = match name {
            names::AlternativeName::Dns(_) => ("DNS", &mut hosts),
            names::AlternativeName::Email(_) => ("Email", &mut mailboxes),
            names::AlternativeName::Ip(_) => ("IP", &mut addresses),
        };
        edits.set(format!("{prefix}_SAN_{kind}_{count}"), name.to_string());
        *count += 1;
    }
    edits.set(
        format!("{prefix}_V_START"),
        certificate.not_before().to_string(),
    );
    edits.set(
        format!("{prefix}_V_END"),
        certificate.not_after().to_string(),
    );
    let days = Asn1Time::days_from_now(0).and_then(|now| now.diff(certificate.not_after()));
    edits.set_if(
        format!("{prefix}_V_REMAIN"),
        days.ok().map(|left| left.days.max(0).to_string()),
    );
    let signature = certificate.signature_algorithm().object().nid();
    edits.set(format!("{prefix}_A_SIG"), long_name(signature));
    if let Ok(key) = certificate.public_key() {
        edits.set(
            format!("{prefix}_A_KEY"),
            long_name(Nid::from_raw(key.id().as_raw())),
        );
    }
    if pem {
        edits.set_if(format!("{prefix}_CERT"), certificate.to_pem().ok());
        for (at, above) in chain.iter().enumerate() {
            edits.set_if(format!("{prefix}_CERT_CHAIN_{at}"), above.to_pem().ok());
        }
    }
}

fn describe_name(edits: &mut Edits, prefix: &str, name: &X509NameRef) {
    edits.set(prefix, names::slash_form(name));
    edits.set(
        format!("{prefix}_RFC4514"),
        text::printable(&names::rfc4514_form(name)),
    );
    for (part, nid) in PARTS {
        if let Some(entry) = name.entries_by_nid(*nid).last() {
            edits.set(
                format!("{prefix}_{part}"),
                text::printable(entry.data().as_slice()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Libcrypto reads any number there, and a peer sends what it likes.
    #[test]
    fn a_certificate_s_version_is_any_number() {
        for (version, said) in [(2, "3"), (i32::MAX, "2147483648"), (-1, "0")] {
            let mut builder = X509::builder().expect("a builder");
            builder.set_version(version).expect("set");
            let mut edits = Edits::new();
            describe(&mut edits, "SSL_CLIENT", &builder.build(), &[], false);
            assert_eq!(
                edits.value("SSL_CLIENT_M_VERSION"),
                Some(said.as_bytes()),
                "{version}"
            );
        }
    }
}
