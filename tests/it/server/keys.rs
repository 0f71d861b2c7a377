//! Certificates and keys of every type, and the settings of the handshake.
#![forbid(unsafe_code)]

use nix::sys::signal::Signal;
use openssl::pkey::Id;
use openssl::ssl::SslVersion;

use crate::harness::{
    Authority, Dial, Identity, KeyKind, Leaf, Place, Setup, eventually, need, run,
};

const BOTH: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

#[test]
fn every_key_type_is_served_in_both_versions() {
    let place = Place::new("key-types");
    for (kind, id, word) in [
        (KeyKind::Rsa2048, Id::RSA, "rsa"),
        (KeyKind::P256, Id::EC, "ecdsa"),
        (KeyKind::P384, Id::EC, "ecdsa"),
        (KeyKind::Ed25519, Id::ED25519, "eddsa"),
    ] {
        let server = Setup::new(&place, &["echo", "served"])
            .options("-V")
            .identity(&Identity::localhost(kind))
            .start();
        for version in BOTH {
            let mut client = Dial::to(&server).version(version).connect();
            assert_eq!(
                (client.text().as_str(), client.server_key()),
                ("served\n", id),
                "{kind:?}"
            );
        }
        let line = server.line("sslserver: tls ");
        assert!(line.contains(&format!(" cert={word} ")), "{line}");
    }
}

#[test]
fn certificate_and_key_may_share_a_file_and_have_an_old_name() {
    let place = Place::new("one-file");
    let own = Leaf::new("combined").dns("localhost").issue();
    let both = [own.chain_pem(), own.key_pem()].concat();
    let file = place.write("both.pem", both);
    for key in [None, Some("")] {
        let mut setup = Setup::new(&place, &["true"])
            .unset("KEYFILE")
            .env("CERTFILE", &file);
        if let Some(key) = key {
            setup = setup.env("KEYFILE", key);
        }
        assert_eq!(Dial::to(&setup.start()).connect().server_name(), "combined");
    }
    // CERTCHAINFILE wins where it is set.
    let (chain, key) = place.identity("old", &Leaf::new("old name").dns("localhost").issue());
    let server = Setup::new(&place, &["true"])
        .env("CERTFILE", &file)
        .env("CERTCHAINFILE", chain)
        .env("KEYFILE", key)
        .start();
    assert_eq!(Dial::to(&server).connect().server_name(), "old name");
}

#[test]
fn two_pairs_serve_clients_of_either_kind_with_and_without_a_name() {
    let place = Place::new("two-pairs");
    for (first, second) in [
        (KeyKind::Rsa2048, KeyKind::P256),
        (KeyKind::P256, KeyKind::Rsa2048),
        (KeyKind::Ed25519, KeyKind::Rsa2048),
    ] {
        let (certificate, key) = place.identity("alt", &Identity::localhost(second));
        let server = Setup::new(&place, &["echo", "served"])
            .identity(&Identity::localhost(first))
            .env("CERTFILE_ALT", certificate)
            .env("KEYFILE_ALT", key)
            .start();
        for name in [Some("localhost"), None] {
            let mut rsa = Dial::to(&server)
                .name(name)
                .version(SslVersion::TLS1_2)
                .ciphers("aRSA+ECDHE+AESGCM")
                .connect();
            assert_eq!(
                (rsa.text().as_str(), rsa.server_key()),
                ("served\n", Id::RSA)
            );
            let mut rsa = Dial::to(&server)
                .name(name)
                .version(SslVersion::TLS1_3)
                .signatures("rsa_pss_rsae_sha256:rsa_pkcs1_sha256:ecdsa_secp521r1_sha512")
                .connect();
            assert_eq!(
                (rsa.text().as_str(), rsa.server_key()),
                ("served\n", Id::RSA)
            );
            let other = if first == KeyKind::Ed25519 {
                Id::ED25519
            } else {
                Id::EC
            };
            let algorithm = if other == Id::EC {
                "ecdsa_secp256r1_sha256"
            } else {
                "ed25519"
            };
            for version in BOTH {
                // It takes both kinds and would rather have the small one.
                let mut client = Dial::to(&server)
                    .name(name)
                    .version(version)
                    .ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
                    .signatures(&format!(
                        "{algorithm}:ecdsa_secp384r1_sha384:rsa_pss_rsae_sha256:rsa_pkcs1_sha256"
                    ))
                    .connect();
                assert_eq!(
                    (client.text().as_str(), client.server_key()),
                    ("served\n", other),
                    "{first:?} {version:?}"
                );
            }
        }
    }
}

#[test]
fn an_encrypted_key_is_opened_with_the_password_of_descriptor_3() {
    let place = Place::new("encrypted");
    let own = Identity::localhost(KeyKind::P256);
    let (certificate, _) = place.identity("own", &own);
    let key = place.write("locked.key", own.locked_key_pem("open sesame"));
    let through = |password: &[u8]| {
        let file = place.write("password", password);
        let script = format!("exec 3<{file}; exec \"$@\"");
        ["/bin/sh".to_owned(), "-c".into(), script, "sh".into()]
    };
    let setup = |password: &[u8]| {
        Setup::new(&place, &["/bin/ls", "-l", "/proc/self/fd"])
            .options("-3")
            .pair(&certificate, &key)
            .through(through(password))
    };
    for password in [&b"open sesame"[..], b"open sesame\0trailing bytes"] {
        let server = setup(password).start();
        let text = Dial::to(&server).connect().text();
        assert!(
            !text.contains("password"),
            "the program cannot reach it: {text}"
        );
    }
    let ended = setup(b"mistaken").refused();
    ended.failed(111, "KEYFILE");
    ended.failed(111, &key);
    assert!(!ended.stderr.contains("mistaken"), "{}", ended.stderr);
    // Without -3 there is no password, and nobody is asked on a terminal.
    let ended = Setup::new(&place, &["true"])
        .pair(&certificate, &key)
        .refused();
    ended.failed(111, &key);
}

#[test]
fn versions_keep_to_their_limits() {
    let place = Place::new("versions");
    let works = |min: &str, max: &str, version| {
        let mut setup = Setup::new(&place, &["true"]);
        if !min.is_empty() {
            setup = setup
                .env("TLS_MIN", min)
                .env("CIPHERS", "DEFAULT:@SECLEVEL=0");
        }
        if !max.is_empty() {
            setup = setup.env("TLS_MAX", max);
        }
        let server = setup.start();
        Dial::to(&server)
            .version(version)
            .attempt()
            .map(|client| client.version())
    };
    assert!(works("", "", SslVersion::TLS1_1).is_err());
    assert_eq!(works("", "", SslVersion::TLS1_2).as_deref(), Ok("TLSv1.2"));
    assert_eq!(works("", "", SslVersion::TLS1_3).as_deref(), Ok("TLSv1.3"));
    assert_eq!(works("1.0", "", SslVersion::TLS1).as_deref(), Ok("TLSv1"));
    assert_eq!(
        works("1.1", "", SslVersion::TLS1_1).as_deref(),
        Ok("TLSv1.1")
    );
    assert!(works("1.1", "", SslVersion::TLS1).is_err());
    assert!(works("1.3", "", SslVersion::TLS1_2).is_err());
    assert!(works("", "1.2", SslVersion::TLS1_3).is_err());
    assert_eq!(
        works("", "1.2", SslVersion::TLS1_2).as_deref(),
        Ok("TLSv1.2")
    );
}

#[test]
fn ciphers_suites_and_groups_are_chosen() {
    let place = Place::new("ciphers");
    let server = Setup::new(&place, &["true"])
        .env(
            "CIPHERS",
            "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384",
        )
        .env("CIPHERSUITES", "TLS_CHACHA20_POLY1305_SHA256")
        .env("TLS_GROUPS", "P-384:X25519")
        .start();
    let twelve = Dial::to(&server)
        .version(SslVersion::TLS1_2)
        .ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305")
        .connect();
    assert_eq!(
        twelve.cipher(),
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "the server's order counts"
    );
    assert_eq!(
        Dial::to(&server)
            .version(SslVersion::TLS1_3)
            .connect()
            .cipher(),
        "TLS_CHACHA20_POLY1305_SHA256"
    );
    // An RSA certificate, whose use no group forbids.
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::Rsa2048))
        .env("TLS_GROUPS", "P-384:X25519")
        .start();
    for version in BOTH {
        let dial = || Dial::to(&server).version(version).ciphers("ECDHE+AESGCM");
        assert!(dial().groups("P-256").attempt().is_err(), "{version:?}");
        let client = dial().groups("P-384").connect();
        assert_eq!(client.stream.ssl().peer_tmp_key().unwrap().bits(), 384);
    }
}

#[test]
fn what_lacks_forward_secrecy_is_not_served() {
    let place = Place::new("forward-secrecy");
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::Rsa2048))
        .start();
    for list in [
        "kRSA",
        "NULL-SHA256:@SECLEVEL=0",
        "AECDH:@SECLEVEL=0",
        "AES256-GCM-SHA384",
    ] {
        assert!(
            Dial::to(&server)
                .version(SslVersion::TLS1_2)
                .ciphers(list)
                .attempt()
                .is_err(),
            "{list}"
        );
    }
    assert!(
        Dial::to(&server)
            .version(SslVersion::TLS1_2)
            .ciphers("DHE-RSA-AES256-GCM-SHA384")
            .attempt()
            .is_ok(),
        "RFC 7919 groups without a file"
    );
}

#[test]
fn dh_parameters_come_from_the_file() {
    let place = Place::new("dh");
    let dh = |prime: openssl::bn::BigNum| {
        let base = openssl::bn::BigNum::from_u32(2).unwrap();
        openssl::dh::Dh::from_pqg(prime, None, base)
            .unwrap()
            .params_to_pem()
            .unwrap()
    };
    let file = place.write(
        "dh.pem",
        dh(openssl::bn::BigNum::get_rfc3526_prime_3072().unwrap()),
    );
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::Rsa2048))
        .env("DHFILE", file)
        .start();
    let client = Dial::to(&server)
        .version(SslVersion::TLS1_2)
        .ciphers("DHE-RSA-AES256-GCM-SHA384")
        .connect();
    assert_eq!(client.stream.ssl().peer_tmp_key().unwrap().bits(), 3072);
}

#[test]
fn renegotiation_by_the_client_is_refused() {
    need!("openssl");
    let place = Place::new("renegotiation");
    let server = Setup::new(&place, &["cat"]).start();
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-connect", &server.at.to_string(), "-tls1_2"]);
    let ended = run(&mut command, b"R\n");
    let said = format!("{}{}", ended.text(), ended.stderr);
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(
        said.contains("no renegotiation") || said.contains("alert"),
        "{said}"
    );
    server.quiet();
}

#[test]
fn alpn_is_agreed_on_in_the_server_s_order() {
    let place = Place::new("alpn");
    let server = Setup::new(&place, &["true"])
        .env("ALPN", "smtp,pop3")
        .start();
    let agreed = |offer: &[u8]| {
        let client = Dial::to(&server)
            .with(|c| c.set_alpn_protos(offer).unwrap())
            .connect();
        client
            .stream
            .ssl()
            .selected_alpn_protocol()
            .map(<[u8]>::to_vec)
    };
    assert_eq!(agreed(b"\x04pop3").as_deref(), Some(&b"pop3"[..]));
    assert_eq!(agreed(b"\x04pop3\x04smtp").as_deref(), Some(&b"smtp"[..]));
    // A client that does not speak of it is served.
    assert!(
        Dial::to(&server)
            .connect()
            .stream
            .ssl()
            .selected_alpn_protocol()
            .is_none()
    );
    // A server without it ignores the client's offer.
    let server = Setup::new(&place, &["true"]).start();
    let client = Dial::to(&server)
        .with(|c| c.set_alpn_protos(b"\x04pop3").unwrap())
        .connect();
    assert!(client.stream.ssl().selected_alpn_protocol().is_none());
}

#[test]
fn hup_brings_a_new_certificate_and_a_bad_one_changes_nothing() {
    let place = Place::new("hup");
    let first = Leaf::new("first").dns("localhost").issue();
    let second = Leaf::new("second")
        .dns("localhost")
        .key(KeyKind::Rsa2048)
        .issue();
    let (certificate, key) = place.identity("live", &first);
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .pair(&certificate, &key)
        .start();
    assert_eq!(Dial::to(&server).connect().server_name(), "first");
    let mut before = Dial::to(&server).connect();
    place.write("live.pem", second.chain_pem());
    place.write("live.key", second.key_pem());
    server.signal(Signal::SIGHUP);
    eventually("the second certificate is served", || {
        (Dial::to(&server).connect().server_name() == "second").then_some(())
    });
    before.send("still here");
    assert_eq!(before.read_exact(10), b"still here");
    before.half_close();
    assert_eq!(before.text(), "");
    // The key alone is broken now: it is told, and the old pair serves on.
    place.write("live.key", "junk");
    server.signal(Signal::SIGHUP);
    let line = server.line(&key);
    assert!(
        line.starts_with("sslserver: warning: ") && line.contains("KEYFILE"),
        "{line}"
    );
    for _ in 0..3 {
        assert_eq!(Dial::to(&server).connect().server_name(), "second");
    }
}

#[test]
fn intermediates_are_sent_and_the_root_s_name_is_enough() {
    let place = Place::new("chain");
    let server = Setup::new(&place, &["true"]).start();
    let client = Dial::to(&server)
        .trusting(Authority::shared_root())
        .connect();
    assert_eq!(client.stream.ssl().peer_cert_chain().unwrap().len(), 2);
}
