//! Whether the suites and signature algorithms of a store are of use with its
//! keys: a list that fits none of them serves nobody.
#![forbid(unsafe_code)]

use openssl::ssl::SslContextRef;

use super::permit::Permit;
use super::server::Pair;
use super::{KeyKind, unable};
use crate::report::Fail;
use crate::settings::{Settings, Version};
use crate::tls_ffi;

impl KeyKind {
    /// Whether such a key makes signatures of a scheme, RFC 8446 section 4.2.3.
    /// Below TLS 1.3 a scheme says nothing of the curve, and RSA has PKCS #1 too.
    /// SHA-1 and SHA-224 are not counted.
    #[must_use]
    pub fn makes(self, scheme: u16, thirteen: bool) -> bool {
        match self {
            KeyKind::Rsa(_) => {
                matches!(scheme, 0x0804..=0x0806)
                    || !thirteen && matches!(scheme, 0x0401 | 0x0501 | 0x0601)
            }
            KeyKind::RsaPss(_) => matches!(scheme, 0x0809..=0x080b),
            KeyKind::Ecdsa(bits) => match scheme {
                0x0403 => !thirteen || bits == 256,
                0x0503 => !thirteen || bits == 384,
                0x0603 => !thirteen || bits == 521,
                _ => false,
            },
            KeyKind::EcdsaOn(curve) if thirteen => curve.scheme == Some(scheme),
            KeyKind::EcdsaOn(_) => matches!(scheme, 0x0403 | 0x0503 | 0x0603),
            KeyKind::Eddsa => matches!(scheme, 0x0807 | 0x0808),
            KeyKind::Other => false,
        }
    }

    /// The same for old clients, with SHA-1 and SHA-224 (RFC 5246 section
    /// 7.4.1.4.1: the hash, then 1 for RSA and 3 for ECDSA).
    fn made_once(self, scheme: u16) -> bool {
        let old = matches!(scheme >> 8, 2 | 3);
        match self {
            KeyKind::Rsa(_) => old && scheme & 0xff == 1,
            KeyKind::Ecdsa(_) | KeyKind::EcdsaOn(_) => old && scheme & 0xff == 3,
            _ => false,
        }
    }
}

/// Whether one of these groups is a curve that TLS 1.2 knows: neither a
/// finite-field group nor a hybrid.
fn has_a_curve(groups: &[u16]) -> bool {
    groups.iter().any(|group| (1..=30).contains(group))
}

/// The suites of a context that can be agreed on with these keys, groups and
/// versions.
pub(super) fn usable_ciphers(
    context: &SslContextRef,
    kinds: &[KeyKind],
    groups: &[u16],
    (min, max): (Version, Option<Version>),
) -> Vec<String> {
    let is_rsa = |kind: &KeyKind| matches!(kind, KeyKind::Rsa(_) | KeyKind::RsaPss(_));
    let rsa = kinds.iter().any(is_rsa);
    let other = !kinds.iter().all(is_rsa);
    tls_ffi::ciphers(context)
        .into_iter()
        .filter(|cipher| {
            let description = cipher.description();
            let has = |word: &str| {
                description
                    .split_ascii_whitespace()
                    .any(|part| part == word)
            };
            if cipher.version() == "TLSv1.3" {
                return max.is_none_or(|max| max >= Version::Tls13)
                    && kinds.iter().any(|kind| kind.serves_tls13());
            }
            let exchange = !has("Kx=ECDH") || has_a_curve(groups);
            min < Version::Tls13 && exchange && (has("Au=RSA") && rsa || has("Au=ECDSA") && other)
        })
        .map(|cipher| cipher.name().to_owned())
        .collect()
}

/// That certificates serve nobody: TLS 1.3 alone may be spoken, and has no signature
/// for any of their keys.
pub(super) fn useless(pairs: &[Pair], lowest: Version) -> Option<Fail> {
    let certificate = &pairs.first()?.certificate;
    let serves = |pair: &Pair| pair.certificate.kind.serves_tls13();
    if lowest < Version::Tls13 || pairs.iter().any(serves) {
        return None;
    }
    let why = format!(
        "its key is {}, for which TLS 1.3 has no signature, and TLS_MIN is {lowest}: no client is served",
        certificate.kind
    );
    let place = (certificate.variable, &*certificate.path);
    Some(Fail::from(why).of(unable("load certificate", place)))
}

/// What is wrong with the suites that are left, and with the administrator's
/// signature algorithms (`schemes`).
pub(super) fn findings(
    settings: &Settings,
    suites: &[String],
    permit: &Permit,
    kinds: &[KeyKind],
    (min, max): (Version, Option<Version>),
) -> Vec<Fail> {
    let schemes = &permit.schemes;
    let keys: Vec<String> = kinds.iter().map(KeyKind::to_string).collect();
    let keys = keys.join(" and ");
    let mut found = Vec::new();
    let chosen = settings.has("SIGALGS");
    let fit = |thirteen| {
        kinds.iter().any(|kind| {
            schemes
                .iter()
                .any(|scheme| kind.makes(*scheme, thirteen) || !thirteen && kind.made_once(*scheme))
        })
    };
    // Where there is no such algorithm for the curve, SIGALGS is not to blame.
    let new =
        max.is_none_or(|max| max >= Version::Tls13) && kinds.iter().any(|kind| kind.serves_tls13());
    // In TLS 1.2 alone the schemes count: before, there were none to choose.
    let old = min <= Version::Tls12 && max.is_none_or(|max| max >= Version::Tls12);
    let unsigned = chosen && old && !fit(false);
    // Names of TLS 1.3 suites have no hyphen. Without a signature TLS 1.2 has none of
    // them, and that is said below.
    if !unsigned && min < Version::Tls13 && !suites.iter().any(|name| name.contains('-')) {
        let served = if suites.is_empty() {
            "no client is served"
        } else {
            "only TLS 1.3 is served"
        };
        let why = if has_a_curve(&permit.groups) {
            format!("CIPHERS: none of its suites fits the key ({keys})")
        } else {
            format!("TLS_GROUPS: no curve, which TLS 1.2 needs with this key ({keys})")
        };
        found.push(Fail::warning(format!("{why}: {served}")));
    }
    for (version, missing) in [
        ("TLS 1.3", chosen && new && !fit(true)),
        ("TLS 1.2", unsigned),
    ] {
        if missing {
            found.push(Fail::warning(format!(
                "SIGALGS: none of its algorithms fits the key ({keys}) in {version}: no client of {version} is served"
            )));
        }
    }
    found
}
