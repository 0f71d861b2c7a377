//! What the log says of clients that can't be served: clients made of bytes,
//! since no library of today offers so little, and OpenSSL's own.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::process::Command;

use openssl::ssl::SslVersion;

use crate::harness::dial::plain;
use crate::harness::{Dial, Identity, KeyKind, Place, Server, Setup, need, run};

const ECDHE_RSA: u16 = 0xc02f;
const ECDHE_ECDSA: u16 = 0xc02b;
const P256: u16 = 0x17;

/// A TLS 1.2 ClientHello in the making.
struct Hello {
    suites: Vec<u16>,
    groups: Option<Vec<u16>>,
    signatures: Option<Vec<u16>>,
}

fn list(numbers: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_be_bytes()).collect();
    prefixed(&bytes)
}

/// Behind its length in two bytes.
fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

impl Hello {
    fn with(suites: &[u16]) -> Hello {
        Hello {
            suites: suites.to_vec(),
            groups: Some(vec![P256]),
            signatures: Some(vec![0x0401, 0x0403]),
        }
    }

    fn groups(mut self, groups: &[u16]) -> Hello {
        self.groups = Some(groups.to_vec());
        self
    }

    fn signatures(mut self, signatures: Option<&[u16]>) -> Hello {
        self.signatures = signatures.map(<[u16]>::to_vec);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        for (number, body) in [(10_u16, &self.groups), (13, &self.signatures)] {
            if let Some(numbers) = body {
                extensions.extend(number.to_be_bytes());
                extensions.extend(prefixed(&list(numbers)));
            }
        }
        let body = [
            &[3, 3][..],
            &[0x11; 32],
            &[0],
            &list(&self.suites),
            &[1, 0],
            &prefixed(&extensions),
        ]
        .concat();
        let message = [&[1, 0][..], &prefixed(&body)].concat();
        [&[22, 3, 1][..], &prefixed(&message)].concat()
    }
}

/// A ClientHello of SSLv2's form.
fn old_form(version: u16, suites: &[[u8; 3]]) -> Vec<u8> {
    let suites = suites.concat();
    let length = u16::try_from(suites.len()).unwrap();
    let body = [
        &[1][..],
        &version.to_be_bytes(),
        &length.to_be_bytes(),
        &[0, 0, 0, 16],
        &suites,
        &[0x22; 16],
    ]
    .concat();
    let length = 0x8000 | u16::try_from(body.len()).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

/// Sends it; the type of the record that comes back, if one does.
fn answer(server: &Server, hello: &[u8]) -> Option<u8> {
    let mut stream = plain(server.at);
    stream.write_all(hello).unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    Some(first[0])
}

/// Why the only client so far was dropped.
fn reason(server: &Server) -> String {
    let line = server.line("dropping TLS connection");
    let (_, reason) = line.split_once("from 127.0.0.1: ").unwrap();
    reason.to_owned()
}

/// What the log says of this hello to a server with this key.
fn told(place: &Place, identity: &Identity, hello: &[u8]) -> String {
    let server = Setup::new(place, &["true"]).identity(identity).start();
    assert_ne!(answer(&server, hello), Some(22), "it is refused");
    reason(&server)
}

#[test]
fn a_client_without_forward_secrecy_is_told_as_such() {
    let place = Place::new("no-forward-secrecy");
    let rsa = Identity::localhost(KeyKind::Rsa2048);
    let why = told(
        &place,
        &rsa,
        &Hello::with(&[0x35, 0x2f, 0x0a, 0x05]).bytes(),
    );
    assert!(
        why.starts_with(
            "no shared cipher: client offers only suites without forward secrecy (AES256-SHA, AES128-SHA, DES-CBC3-SHA, RC4-SHA; TLSv1.2)"
        ),
        "{why}"
    );
    assert!(why.contains("no setting serves it"), "{why}");
    assert!(
        !why.contains("CERTFILE_ALT") && !why.contains("CIPHERS"),
        "{why}"
    );
    // The key is not the cause either where it is of another kind.
    let ecdsa = Identity::localhost(KeyKind::P256);
    let why = told(&place, &ecdsa, &Hello::with(&[0x35]).bytes());
    assert!(why.contains("no setting serves it"), "{why}");
    // Anonymous ones have it, but nothing else.
    let why = told(&place, &rsa, &Hello::with(&[0x3a, 0xc018]).bytes());
    assert!(
        why.contains("without forward secrecy or authentication (ADH-AES256-SHA"),
        "{why}"
    );
    // One good suite that CIPHERS lacks, and the words are others.
    let why = told(&place, &rsa, &Hello::with(&[0x35, 0xc012]).bytes());
    assert!(
        why.contains("ECDHE-RSA-DES-CBC3-SHA") && why.contains("CIPHERS allows none of them"),
        "{why}"
    );
}

#[test]
fn a_client_that_knows_sha_1_alone_is_told_what_serves_it() {
    let place = Place::new("sha-1-alone");
    let rsa = Identity::localhost(KeyKind::Rsa2048);
    for (signatures, words) in [
        (
            None,
            "client names no signature algorithms, which means SHA-1 (",
        ),
        (
            Some(&[0x0201, 0x0203][..]),
            "client accepts only SHA-1 signatures (rsa_pkcs1_sha1, ecdsa_sha1; TLSv1.2)",
        ),
    ] {
        let hello = Hello::with(&[ECDHE_RSA, 0xc014, ECDHE_ECDSA])
            .signatures(signatures)
            .bytes();
        let why = told(&place, &rsa, &hello);
        assert!(why.contains(words), "{why}");
        assert!(
            why.contains("CIPHERS with @SECLEVEL=0, or TLS_MIN below 1.2, would serve it"),
            "{why}"
        );
        assert!(!why.contains("CERTFILE_ALT"), "{why}");
        // And it is true.
        for (name, value) in [("CIPHERS", "ECDHE:@SECLEVEL=0"), ("TLS_MIN", "1.0")] {
            let setup = Setup::new(&place, &["true"]).identity(&rsa);
            let server = setup.env(name, value).start();
            assert_eq!(
                answer(&server, &hello),
                Some(22),
                "{name}: {}",
                server.log()
            );
        }
        // A key that makes no such signature needs help as well.
        let eddsa = Identity::localhost(KeyKind::Ed25519);
        let only_ecdsa = Hello::with(&[ECDHE_ECDSA]).signatures(signatures).bytes();
        let why = told(&place, &eddsa, &only_ecdsa);
        assert!(why.contains("with an RSA or ECDSA certificate"), "{why}");
        let server = Setup::new(&place, &["true"])
            .identity(&rsa)
            .env("SIGALGS", "RSA+SHA256")
            .start();
        answer(&server, &hello);
        let why = reason(&server);
        assert!(why.contains("with SHA-1 in SIGALGS"), "{why}");
    }
}

#[test]
fn signature_algorithms_that_do_not_fit_the_key_are_not_blamed_on_curves() {
    let place = Place::new("other-signatures");
    let hello = Hello::with(&[ECDHE_RSA, ECDHE_ECDSA]).bytes();
    for (kind, name) in [
        (KeyKind::Ed25519, "our certificate is EdDSA"),
        (KeyKind::RsaPss, "our certificate is RSASSA-PSS"),
    ] {
        let identity = Identity::localhost(kind);
        let why = told(&place, &identity, &hello);
        assert!(
            why.starts_with("no shared signature algorithm: client accepts only (rsa_pkcs1_sha256, ecdsa_secp256r1_sha256; TLSv1.2)"),
            "{why}"
        );
        assert!(
            why.contains(name)
                && why.contains("an RSA or ECDSA certificate in CERTFILE_ALT would serve it")
                && !why.contains("TLS_GROUPS"),
            "{why}"
        );
        // And it is true.
        let (certificate, key) = place.identity("alt", &Identity::localhost(KeyKind::P256));
        let server = Setup::new(&place, &["true"])
            .identity(&identity)
            .env("CERTFILE_ALT", certificate)
            .env("KEYFILE_ALT", key)
            .start();
        assert_eq!(answer(&server, &hello), Some(22), "{}", server.log());
        // -k does not promise too much.
        let checked = Setup::new(&place, &["true"])
            .identity(&identity)
            .option("-k")
            .refused();
        let text = checked.text();
        let line = text.lines().find(|line| line.contains("clients served:"));
        assert!(
            line.unwrap()
                .contains("clients served: only those that accept"),
            "{text}"
        );
    }
    // Nothing that could be bought helps here.
    let sha224 = Hello::with(&[ECDHE_RSA])
        .signatures(Some(&[0x0301]))
        .bytes();
    let why = told(&place, &Identity::localhost(KeyKind::Ed25519), &sha224);
    assert!(!why.contains("CERTFILE_ALT"), "{why}");
}

#[test]
fn openssl_s_client_with_signature_algorithms_of_other_keys_is_explained() {
    let openssl = need!("openssl");
    let place = Place::new("s-client-signatures");
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::Ed25519))
        .start();
    let mut command = Command::new(openssl);
    command.args(["s_client", "-tls1_2", "-sigalgs", "RSA+SHA256:ECDSA+SHA256"]);
    command.args(["-connect", &server.at.to_string()]);
    run(&mut command, b"");
    let why = reason(&server);
    assert!(why.starts_with("no shared signature algorithm: "), "{why}");
}

#[test]
fn groups_are_named_and_the_certificate_s_curve_is_told_apart() {
    let place = Place::new("group-names");
    let ecdsa = Identity::localhost(KeyKind::P256);
    let hello = Hello::with(&[ECDHE_ECDSA]).groups(&[0x1d, 0x3a3a]).bytes();
    let why = told(&place, &ecdsa, &hello);
    assert!(
        why.contains("its groups (X25519) lack the certificate's curve, P-256; an RSA certificate"),
        "{why}"
    );
    for identity in [&ecdsa, &Identity::localhost(KeyKind::Rsa2048)] {
        let hello = Hello::with(&[ECDHE_ECDSA, ECDHE_RSA]).groups(&[0x1e, 0x11eb, 0xfe00]);
        let why = told(&place, identity, &hello.bytes());
        assert!(
            why.contains("TLS_GROUPS allows none of its groups (X448, SecP256r1MLKEM768, 0xFE00)"),
            "{why}"
        );
    }
    let server = Setup::new(&place, &["true"])
        .env("TLS_GROUPS", "P-384")
        .start();
    let dial = Dial::to(&server).version(SslVersion::TLS1_3);
    assert!(dial.groups("X25519:P-521").attempt().is_err());
    let why = reason(&server);
    assert!(
        why.starts_with("no shared group: client offers only X25519, P-521; TLS_GROUPS"),
        "{why}"
    );
}

#[test]
fn a_curve_without_a_signature_in_tls_1_3_is_named() {
    let place = Place::new("odd-curves");
    for (kind, curve) in [
        (KeyKind::Secp256k1, "secp256k1"),
        (KeyKind::P224, "secp224r1"),
    ] {
        let identity = Identity::localhost(kind);
        let setup = || Setup::new(&place, &["true"]).identity(&identity);
        let known = format!(
            ": its key is on {curve}, and serves no client of TLS 1.3, and of TLS 1.2 only the few that offer this curve"
        );
        let refused = |version: SslVersion| {
            let server = setup().start();
            server.line(&known);
            assert!(Dial::to(&server).version(version).attempt().is_err());
            reason(&server)
        };
        let why = refused(SslVersion::TLS1_3);
        let said = format!(
            "no shared version: client offers at least TLSv1.3, our certificate is ECDSA on {curve}, for which TLSv1.3 has no signature; an RSA certificate"
        );
        assert!(why.starts_with(&said), "{why}");
        assert!(why.ends_with("; sent alert protocol_version (70)"), "{why}");
        let why = refused(SslVersion::TLS1_2);
        let said = format!("lack the certificate's curve, {curve}; an RSA certificate");
        assert!(why.contains(&said), "{why}");
        // Who has the curve is served.
        let server = setup().start();
        let dial = Dial::to(&server).blindly().version(SslVersion::TLS1_2);
        let list = format!("X25519:{curve}");
        dial.groups(&list).attempt().unwrap().rest();
        let check = setup().options("-k").refused();
        assert_eq!(check.code, Some(0), "{}", check.stderr);
        let text = check.text();
        assert!(text.contains(&known), "{text}");
        assert!(
            text.contains("clients served: only those that have the curve"),
            "{text}"
        );
        let none = setup().env("TLS_MIN", "1.3").refused();
        none.failed(
            111,
            "has no signature, and TLS_MIN is 1.3: no client is served",
        );
    }
    let identity = Identity::localhost(KeyKind::Prime239);
    let none = Setup::new(&place, &["true"]).identity(&identity).refused();
    none.failed(
        111,
        "its key is on prime239v1, which TLS has no number for: no client",
    );
}

#[test]
fn a_setting_that_forbids_what_is_shared_is_the_one_that_is_named() {
    let place = Place::new("named-setting");
    // ecdsa_secp256r1_sha256, and what SIGALGS below allows an RSA key.
    let signatures = Some(&[0x0403, 0x0804][..]);
    let offer = || Hello::with(&[ECDHE_RSA, ECDHE_ECDSA]).signatures(signatures);
    for (settings, cause) in [
        (
            &[("SIGALGS", "RSA-PSS+SHA256")][..],
            "SIGALGS allows no signature of our key that it accepts",
        ),
        (
            &[("TLS_MIN", "1.1"), ("TLS_MAX", "1.1")],
            "TLS_MAX is 1.1, and its suites need TLSv1.2",
        ),
        (
            &[("TLS_GROUPS", "P-256:P-384")],
            "TLS_GROUPS allows none of its groups (X25519)",
        ),
    ] {
        let mut setup = Setup::new(&place, &["true"]).identity(&Identity::localhost(KeyKind::P256));
        for (name, value) in settings {
            setup = setup.env(name, value);
        }
        let mut hello = offer();
        if cause.starts_with("TLS_GROUPS") {
            hello = hello.groups(&[0x1d]);
        }
        let server = setup.start();
        answer(&server, &hello.bytes());
        let why = reason(&server);
        assert!(why.contains(cause), "{cause}: {why}");
    }
}

#[test]
fn a_hello_of_sslv2_s_form_is_told_in_our_own_words() {
    let place = Place::new("sslv2");
    let rsa = Identity::localhost(KeyKind::Rsa2048);
    let why = told(&place, &rsa, &old_form(2, &[[1, 0, 0x80], [7, 0, 0xc0]]));
    assert!(
        why.starts_with("no shared version: client speaks only SSLv2, TLS_MIN is 1.2"),
        "{why}"
    );
    let why = told(&place, &rsa, &old_form(0x0301, &[[0, 0, 0x35]]));
    assert!(
        why.starts_with("no shared version: client offers ") && why.contains("TLSv1"),
        "{why}"
    );
    // Its suites have three bytes each, and those of SSLv2 are nobody's now.
    let why = told(
        &place,
        &rsa,
        &old_form(0x0303, &[[1, 0, 0x80], [0, 0, 0x35], [0, 0, 0x0a]]),
    );
    assert!(
        why.contains("(AES256-SHA, DES-CBC3-SHA; TLSv1.2)") || why.contains("SSLv2's form"),
        "{why}"
    );
}
