//! Why a client and our server agree on nothing: what the client offers, which
//! of our keys and settings is the cause, and what would help.
#![forbid(unsafe_code)]

use openssl::ssl::SslRef;

use super::Side;
use super::failure::peer;
use super::wire::{OPENING, Wire};
use crate::hello::{self, Authentication, Cipher, Hello};
use crate::settings::Version;
use crate::store::KeyKind;
use crate::sys::socket;
use crate::text;
use crate::tls_ffi;

/// `SSL_R_*` of sslerr.h.
mod reason {
    pub const NO_PROTOCOLS_AVAILABLE: i32 = 191;
    pub const NO_SHARED_CIPHER: i32 = 193;
    pub const NO_SHARED_GROUPS: i32 = 410;
    pub const NO_SHARED_SIGNATURE_ALGORITHMS: i32 = 376;
    pub const NO_SUITABLE_GROUPS: i32 = 295;
    pub const NO_SUITABLE_KEY_SHARE: i32 = 101;
    pub const NO_SUITABLE_SIGNATURE_ALGORITHM: i32 = 118;
    pub const PEER_DID_NOT_RETURN_A_CERTIFICATE: i32 = 199;
    pub const UNKNOWN_PROTOCOL: i32 = 252;
    pub const UNSUPPORTED_PROTOCOL: i32 = 258;
    pub const VERSION_TOO_HIGH: i32 = 166;
    pub const VERSION_TOO_LOW: i32 = 396;
    pub const WRONG_SIGNATURE_TYPE: i32 = 370;
    pub const WRONG_VERSION_NUMBER: i32 = 267;
}

/// What libssl says when the server-name callback refuses: `SSL_R_CALLBACK_FAILED`.
pub(super) const CALLBACK_FAILED: i32 = 234;

/// What serves a client that knows SHA-1 alone.
const SHA1_REMEDY: &str = "CIPHERS with @SECLEVEL=0, or TLS_MIN below 1.2, would serve it";

/// Our own sentence for libssl's reason, where we know better.
pub(super) fn sentence(ssl: &SslRef, wire: &Wire, code: i32, side: Side<'_>) -> Option<String> {
    match code {
        reason::NO_SHARED_CIPHER => Some(no_shared_cipher(ssl, side)),
        reason::NO_SUITABLE_SIGNATURE_ALGORITHM
        | reason::NO_SHARED_SIGNATURE_ALGORITHMS
        | reason::WRONG_SIGNATURE_TYPE
            if ssl.is_server() =>
        {
            Some(no_shared_signature(ssl, side))
        }
        reason::NO_SUITABLE_KEY_SHARE | reason::NO_SUITABLE_GROUPS | reason::NO_SHARED_GROUPS => {
            let offered = group_names(hello::of(ssl)?);
            Some(format!(
                "no shared group: client offers only {}; TLS_GROUPS allows none of them",
                listed(&offered)
            ))
        }
        reason::UNKNOWN_PROTOCOL
        | reason::UNSUPPORTED_PROTOCOL
        | reason::VERSION_TOO_LOW
        | reason::VERSION_TOO_HIGH
        | reason::NO_PROTOCOLS_AVAILABLE
            if ssl.is_server() =>
        {
            no_shared_version(ssl, side)
                .or_else(|| old_hello(wire, side))
                .or_else(|| not_tls(wire, peer(ssl)))
        }
        reason::WRONG_VERSION_NUMBER if ssl.is_server() && hello::of(ssl).is_some() => {
            too_old(ssl, side)
        }
        reason::PEER_DID_NOT_RETURN_A_CERTIFICATE => Some("client gave no certificate".to_owned()),
        _ => old_hello(wire, side)
            .filter(|_| ssl.is_server() && hello::of(ssl).is_none())
            .or_else(|| not_tls(wire, peer(ssl))),
    }
}

/// `not TLS: client sent "EHLO x"`, if what came first is no handshake record
/// (RFC 8446 section 5.1) and no SSLv2 ClientHello.
pub(super) fn not_tls(wire: &Wire, who: &str) -> Option<String> {
    let first = *wire.opening().first()?;
    let plausible = match wire.opening().get(1) {
        Some(second) => (first == 22 || first == 21) && *second == 3,
        None => first == 22 || first == 21,
    };
    if plausible || old_hello_version(wire).is_some() {
        return None;
    }
    // From 3.2 on, libssl reads no more than a record's head to see that it is
    // none; the rest of the line has come with it.
    let mut opening = wire.opening().to_vec();
    let mut more = [0; OPENING];
    let room = OPENING.saturating_sub(opening.len());
    let count = socket::peek(wire.socket(), &mut more[..room]).unwrap_or(0);
    opening.extend_from_slice(&more[..count]);
    let line = opening
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .next()
        .unwrap_or_default();
    let shown = if line.is_empty() { &opening } else { line };
    let shown = text::quoted(shown, 4 * OPENING);
    Some(format!("not TLS: {who} sent {shown}"))
}

/// The version in a ClientHello of SSLv2's form (RFC 5246 appendix E.2), if that
/// came.
fn old_hello_version(wire: &Wire) -> Option<u16> {
    match *wire.opening() {
        [first, _, 1, high, low, ..] if first & 0x80 != 0 => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// What to say of such a hello where libssl did not even read it.
fn old_hello(wire: &Wire, side: Side<'_>) -> Option<String> {
    let (min, _) = side.versions;
    Some(match old_hello_version(wire)? {
        2 => format!("no shared version: client speaks only SSLv2, TLS_MIN is {min}"),
        version => format!(
            "no shared version: client offers {} in an SSLv2-format hello, which is not accepted",
            hello::version_name(version)
        ),
    })
}

/// `no shared version: client offers at most TLSv1.1, TLS_MIN is 1.2`.
fn no_shared_version(ssl: &SslRef, side: Side<'_>) -> Option<String> {
    let offered = hello::of(ssl)?.versions();
    let (min, max) = side.versions;
    let highest = *offered.iter().max()?;
    if highest < min.wire() {
        return Some(format!(
            "no shared version: client offers at most {}, TLS_MIN is {min}",
            hello::version_name(highest)
        ));
    }
    let lowest = *offered.iter().min()?;
    // It is not spoken with a key that it has no signature for.
    if lowest >= Version::Tls13.wire()
        && !side.kinds.is_empty()
        && !side.kinds.iter().any(|kind| kind.serves_tls13())
    {
        let lowest = hello::version_name(lowest);
        return Some(format!(
            "no shared version: client offers at least {lowest}, our certificate is {}, for which TLSv1.3 has no signature; an RSA certificate in CERTFILE_ALT, or one on P-256, would serve it",
            kinds_text(side.kinds)
        ));
    }
    let max = max.filter(|max| lowest > max.wire())?;
    Some(format!(
        "no shared version: client offers at least {}, TLS_MAX is {max}",
        hello::version_name(lowest)
    ))
}

/// A client that names no versions takes ours or breaks off, in a record of its
/// own version.
fn too_old(ssl: &SslRef, side: Side<'_>) -> Option<String> {
    let highest = hello::of(ssl)?.highest_version();
    let max = side.versions.1.filter(|max| max.wire() < highest)?;
    Some(format!(
        "no shared version: client offers {} and does not accept {}, TLS_MAX is {max}",
        hello::version_name(highest),
        ssl.version_str()
    ))
}

/// What the client offered, whether the kind of our key is the cause, and what
/// would help.
fn no_shared_cipher(ssl: &SslRef, side: Side<'_>) -> String {
    let Some(hello) = hello::of(ssl) else {
        return "no shared cipher".to_owned();
    };
    let mut suites = hello.ciphers(ssl);
    // Suites of TLS 1.3 play no part below it.
    if suites
        .iter()
        .any(|suite| suite.authentication != Authentication::Any)
    {
        suites.retain(|suite| suite.authentication != Authentication::Any);
    }
    let names: Vec<String> = suites.iter().map(|suite| suite.name.clone()).collect();
    let offer = offer(hello, &names);
    if let Some(fault) = never_served(&suites) {
        return format!(
            "no shared cipher: client offers only suites without {fault} {offer}, which are never served; no setting serves it"
        );
    }
    let needs = suites.iter().filter(|suite| suite.forward_secret);
    let needs = needs.map(|suite| suite.authentication);
    if let Some(verdict) = key_verdict(needs, side.kinds, &offer) {
        return format!("no shared cipher: client offers only {verdict}");
    }
    // The suites may fit while no signature does (RFC 5246 section 7.4.1.4.1).
    if hello.highest_version() >= Version::Tls12.wire() {
        if let Some(why) = signature_verdict(hello, &names, side.kinds, false) {
            return format!("no shared signature algorithm: {why}");
        }
    }
    let allowed = tls_ffi::ciphers(ssl.ssl_context());
    let mut shared = allowed
        .iter()
        .filter(|cipher| {
            cipher.name().contains('-') && names.iter().any(|name| name == cipher.name())
        })
        .peekable();
    let cause = if shared.peek().is_some() {
        // AEAD and SHA-2 suites (RFC 5246 section 1.2).
        let modern = shared.all(|cipher| cipher.version() == "TLSv1.2");
        let old = side.versions.1.filter(|max| *max < Version::Tls12);
        match old {
            Some(max) if modern => format!("TLS_MAX is {max}, and its suites need TLSv1.2"),
            _ => curve_verdict(hello, side.kinds),
        }
    } else if names.iter().all(|name| name.starts_with("TLS_")) {
        "CIPHERSUITES allows none of them".to_owned()
    } else {
        "CIPHERS allows none of them".to_owned()
    };
    format!(
        "no shared cipher: client offers {offer}, our certificate is {}; {cause}",
        kinds_text(side.kinds)
    )
}

/// What all of a client's suites lack, if they do: a TLS process without the key
/// could not serve them, and no list holds them.
fn never_served(suites: &[Cipher]) -> Option<&'static str> {
    let served = |suite: &Cipher| {
        suite.forward_secret && suite.authentication != Authentication::Other
            || suite.authentication == Authentication::Any
    };
    if suites.is_empty() || suites.iter().any(served) {
        return None;
    }
    Some(if suites.iter().any(|suite| suite.forward_secret) {
        "forward secrecy or authentication"
    } else {
        "forward secrecy"
    })
}

/// A suite in common is of no use where no curve is: that of the exchange, or of
/// an ECDSA certificate (RFC 8422 section 5.1). Where these are, no signature is.
fn curve_verdict(hello: &Hello, kinds: &[KeyKind]) -> String {
    let groups = hello.groups();
    if groups.is_empty() {
        return "it names no groups, and no suite without one is shared".to_owned();
    }
    let names = listed(&group_names(hello));
    let curves = kinds.iter().map(|kind| match kind {
        KeyKind::Ecdsa(256) => Some(("P-256", 0x17)),
        KeyKind::Ecdsa(384) => Some(("P-384", 0x18)),
        KeyKind::Ecdsa(521) => Some(("P-521", 0x19)),
        KeyKind::EcdsaOn(curve) => Some((curve.name, curve.group?)),
        _ => None,
    });
    if !hello.shares_a_group() {
        return format!("TLS_GROUPS allows none of its groups ({names})");
    }
    match curves.collect::<Option<Vec<(&str, u16)>>>() {
        Some(curves) if !curves.iter().any(|(_, number)| groups.contains(number)) => {
            let curves: Vec<&str> = curves.into_iter().map(|(curve, _)| curve).collect();
            format!(
                "its groups ({names}) lack the certificate's curve, {}; an RSA certificate in CERTFILE_ALT would serve it",
                curves.join(" and ")
            )
        }
        _ => "SIGALGS allows no signature of our key that it accepts".to_owned(),
    }
}

/// Libssl found no signature algorithm.
fn no_shared_signature(ssl: &SslRef, side: Side<'_>) -> String {
    let Some(hello) = hello::of(ssl) else {
        return "no shared signature algorithm".to_owned();
    };
    let thirteen = ssl.version_str() == "TLSv1.3";
    let suites = hello.ciphers(ssl);
    let suites: Vec<String> = suites.into_iter().map(|suite| suite.name).collect();
    let why = signature_verdict(hello, &suites, side.kinds, thirteen).unwrap_or_else(|| {
        format!(
            "client accepts only {}, our certificate is {}; SIGALGS allows none that fits",
            offer(hello, &signature_names(hello)),
            kinds_text(side.kinds)
        )
    });
    format!("no shared signature algorithm: {why}")
}

/// Why none of our keys makes a signature that the client accepts; `None` where
/// one does, if the settings let it.
fn signature_verdict(
    hello: &Hello,
    suites: &[String],
    kinds: &[KeyKind],
    thirteen: bool,
) -> Option<String> {
    let Some(schemes) = hello.signatures() else {
        // RFC 5246 section 7.4.1.4.1.
        let offer = offer(hello, suites);
        return Some(sha1_verdict(
            "names no signature algorithms, which means SHA-1",
            &offer,
            kinds,
            hello,
        ));
    };
    let offer = offer(hello, &signature_names(hello));
    if schemes.iter().all(|(scheme, _)| scheme >> 8 == 2) {
        return Some(sha1_verdict(
            "accepts only SHA-1 signatures",
            &offer,
            kinds,
            hello,
        ));
    }
    let accepts = |kind: KeyKind| {
        schemes
            .iter()
            .any(|(scheme, _)| kind.makes(*scheme, thirteen))
    };
    if kinds.iter().any(|kind| accepts(*kind)) {
        return None;
    }
    let needs = schemes.iter().map(|(_, need)| *need);
    let helpers = (accepts(KeyKind::Rsa(2048)), accepts(KeyKind::Ecdsa(256)));
    if helpers.0 != helpers.1 {
        if let Some(verdict) = key_verdict(needs, kinds, &offer) {
            return Some(format!("client accepts only {verdict}"));
        }
    }
    let remedy = match helpers {
        (true, true) => "an RSA or ECDSA certificate in CERTFILE_ALT would serve it",
        (true, false) => "an RSA certificate in CERTFILE_ALT would serve it",
        (false, true) => "an ECDSA certificate on P-256 in CERTFILE_ALT would serve it",
        (false, false) => "SIGALGS allows none of them",
    };
    let ours = kinds_text(kinds);
    Some(format!(
        "client accepts only {offer}, our certificate is {ours}; {remedy}"
    ))
}

/// What a client that knows SHA-1 alone needs: a second certificate is no help.
fn sha1_verdict(what: &str, offer: &str, kinds: &[KeyKind], hello: &Hello) -> String {
    let able = kinds.iter().any(|kind| {
        matches!(
            kind,
            KeyKind::Rsa(_) | KeyKind::Ecdsa(_) | KeyKind::EcdsaOn(_)
        )
    });
    let also = match (able, hello.signatures_are_bounded()) {
        (_, true) => ", with SHA-1 in SIGALGS",
        (true, false) => "",
        (false, false) => ", with an RSA or ECDSA certificate",
    };
    format!("client {what} {offer}; {SHA1_REMEDY}{also}")
}

/// What a client offers: the first few names, and its highest version.
fn offer(hello: &Hello, names: &[String]) -> String {
    let version = hello::version_name(hello.highest_version());
    if names.is_empty() {
        return format!("({version})");
    }
    format!("({}; {version})", listed(names))
}

/// Says so if the kind of our key is the cause: all that the client offers needs
/// one kind, and we have none of it.
fn key_verdict(
    needs: impl Iterator<Item = Authentication>,
    kinds: &[KeyKind],
    offer: &str,
) -> Option<String> {
    let mut needs: Vec<Authentication> = needs
        .filter(|need| matches!(need, Authentication::Rsa | Authentication::Ecdsa))
        .collect();
    needs.sort_unstable();
    needs.dedup();
    let [need] = needs[..] else { return None };
    let is_rsa = |kind: &KeyKind| matches!(kind, KeyKind::Rsa(_) | KeyKind::RsaPss(_));
    let wanted = match need {
        Authentication::Rsa if !kinds.iter().any(is_rsa) => "RSA",
        Authentication::Ecdsa if kinds.iter().all(is_rsa) => "ECDSA",
        _ => return None,
    };
    let ours = kinds_text(kinds);
    Some(format!(
        "{wanted} authentication {offer}, our certificate is {ours}; an {wanted} certificate in CERTFILE_ALT would serve it"
    ))
}

fn kinds_text(kinds: &[KeyKind]) -> String {
    let words: Vec<String> = kinds.iter().map(KeyKind::to_string).collect();
    words.join(" and ")
}

fn group_names(hello: &Hello) -> Vec<String> {
    hello.groups().into_iter().map(hello::group_name).collect()
}

fn signature_names(hello: &Hello) -> Vec<String> {
    let schemes = hello.signatures().unwrap_or_default();
    schemes
        .into_iter()
        .map(|(scheme, _)| hello::signature_name(scheme))
        .collect()
}

/// The first few of a list.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}
