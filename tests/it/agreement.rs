//! What client and server agree on: the suites, groups and signature algorithms
//! that settings allow, that no setting brings, and that are there by default.
#![forbid(unsafe_code)]

use openssl::nid::Nid;
use openssl::ssl::SslVersion;

use crate::harness::{
    Client, Dial, Identity, KeyKind, Peer, Place, Server, Setup, need, peer, run,
};

fn rsa(place: &Place) -> Setup<'_> {
    Setup::new(place, &["true"]).identity(&Identity::localhost(KeyKind::Rsa2048))
}

/// A TLS 1.2 client's handshake with these suites: the one agreed on.
fn twelve(server: &Server, ciphers: &str) -> Result<&'static str, String> {
    Dial::to(server)
        .blindly()
        .version(SslVersion::TLS1_2)
        .ciphers(ciphers)
        .attempt()
        .map(|client| client.cipher())
}

/// What `-k` prints as the list of suites.
fn checked_ciphers(setup: Setup<'_>) -> Vec<String> {
    let checked = setup.option("-k").refused();
    let text = checked.text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("  ciphers: "));
    let line = line.unwrap_or_else(|| panic!("{text} {}", checked.stderr));
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn no_list_brings_suites_that_are_never_served() {
    let place = Place::new("never-served");
    for list in [
        "HIGH:@STRENGTH",
        "DEFAULT",
        "DEFAULT@SECLEVEL=0",
        "ALL",
        "ALL:COMPLEMENTOFALL:@SECLEVEL=0",
        "kRSA:ECDHE+AESGCM:PSK:SRP",
    ] {
        let server = rsa(&place).env("CIPHERS", list).start();
        // A client that offers a good one too gets the good one.
        let both = "AES256-SHA:ECDHE-RSA-AES128-GCM-SHA256";
        assert_eq!(
            twelve(&server, both).as_deref(),
            Ok("ECDHE-RSA-AES128-GCM-SHA256"),
            "{list}"
        );
        for alone in [
            "AES256-SHA",
            "ADH-AES128-SHA256:@SECLEVEL=0",
            "NULL:@SECLEVEL=0",
        ] {
            assert!(twelve(&server, alone).is_err(), "{list}: {alone}");
        }
        let shown = checked_ciphers(rsa(&place).env("CIPHERS", list));
        assert!(!shown.is_empty());
        for name in shown {
            assert!(
                name.starts_with("TLS_")
                    || (name.contains("DHE-") && !name.contains("PSK") && !name.contains("NULL")),
                "{list}: {name}"
            );
        }
    }
    // Below 1.2 anonymous suites need no level in the list.
    let server = rsa(&place)
        .env("CIPHERS", "ALL")
        .env("TLS_MIN", "1.0")
        .start();
    let old = |ciphers: &str| {
        Dial::to(&server)
            .blindly()
            .version(SslVersion::TLS1)
            .ciphers(&format!("{ciphers}:@SECLEVEL=0"))
            .attempt()
            .map(|client| client.cipher())
    };
    assert!(old("ADH-AES256-SHA").is_err());
    assert!(old("AES256-SHA").is_err());
    assert_eq!(
        old("ECDHE-RSA-AES256-SHA").as_deref(),
        Ok("ECDHE-RSA-AES256-SHA")
    );
}

#[test]
fn a_word_for_suites_that_are_never_served_is_warned_about_by_name() {
    let place = Place::new("asked-by-name");
    let server = rsa(&place)
        .env(
            "CIPHERS",
            "kRSA:ECDHE+AESGCM:AES256-SHA:ADH:!PSK:-SRP:+kRSA",
        )
        .start();
    let log = server.log();
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("CIPHERS"))
        .collect();
    let [warning] = warnings[..] else {
        panic!("{log}")
    };
    assert!(
        warning.starts_with("sslserver: warning: CIPHERS: ")
            && warning.ends_with(": \"kRSA\", \"AES256-SHA\", \"ADH\""),
        "{warning}"
    );
    // A word that brings others too asks for none of them by name.
    let server = rsa(&place).env("CIPHERS", "HIGH:!aNULL").start();
    assert!(!server.log().contains("CIPHERS"), "{}", server.log());
    for list in [
        "kRSA",
        "PSK:SRP",
        "aNULL",
        "eNULL",
        "AES128-SHA256",
        "COMPLEMENTOFALL",
    ] {
        let ended = rsa(&place).env("CIPHERS", list).refused();
        ended.failed(111, "CIPHERS");
        ended.failed(111, "forward secrecy");
        let checked = rsa(&place).env("CIPHERS", list).option("-k").refused();
        assert_eq!(checked.code, Some(111), "{list}");
    }
}

#[test]
fn suites_of_tls_1_3_may_stand_in_the_cipher_list() {
    let place = Place::new("suites-in-list");
    let list = "TLS_CHACHA20_POLY1305_SHA256:ECDHE-RSA-AES128-GCM-SHA256";
    let thirteen = |server: &Server| {
        let dial = Dial::to(server).version(SslVersion::TLS1_3);
        dial.attempt().map(|client| client.cipher())
    };
    let server = rsa(&place).env("CIPHERS", list).start();
    assert_eq!(
        thirteen(&server).as_deref(),
        Ok("TLS_CHACHA20_POLY1305_SHA256")
    );
    assert_eq!(
        twelve(&server, "ECDHE+AESGCM").as_deref(),
        Ok("ECDHE-RSA-AES128-GCM-SHA256")
    );
    assert_eq!(server.log(), "", "nothing to warn of");
    // Where there are no others, older versions have none.
    let server = rsa(&place)
        .env("CIPHERS", "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256")
        .start();
    assert_eq!(thirteen(&server).as_deref(), Ok("TLS_AES_256_GCM_SHA384"));
    assert!(twelve(&server, "ALL").is_err());
    server.line("CIPHERS names suites of TLS 1.3 alone");
    // What is said twice is decided by the variable that is for it.
    let server = rsa(&place)
        .env("CIPHERS", list)
        .env("CIPHERSUITES", "TLS_AES_128_GCM_SHA256")
        .start();
    assert_eq!(thirteen(&server).as_deref(), Ok("TLS_AES_128_GCM_SHA256"));
    server.line("CIPHERSUITES is set");
    // sslclient's list likewise.
    let server = Setup::script(&place, "echo $SSL_CIPHER").start();
    let asked = Client::new(&place)
        .option("-z")
        .option("TLS_CHACHA20_POLY1305_SHA256:ECDHE+AESGCM")
        .read(&server);
    assert_eq!(
        asked.text(),
        "TLS_CHACHA20_POLY1305_SHA256\n",
        "{}",
        asked.stderr
    );
}

#[test]
fn sslclient_offers_no_suite_without_a_certificate() {
    let place = Place::new("anonymous");
    let context = peer::context(&Identity::localhost(KeyKind::P256), |context| {
        context.set_cipher_list("aNULL:@SECLEVEL=0").unwrap();
        context
            .set_max_proto_version(Some(SslVersion::TLS1_2))
            .unwrap();
        let dh = openssl::dh::Dh::get_2048_256().unwrap();
        context.set_tmp_dh(&dh).unwrap();
    });
    let peer = Peer::tls(context, |stream| stream.map(|_| ()));
    let ended = Client::new(&place)
        .option("-z")
        .option("ALL:@SECLEVEL=0")
        .script("localhost", peer.at.port(), "echo reached");
    assert_eq!(ended.code, Some(111), "{} {}", ended.text(), ended.stderr);
    assert!(peer.join().is_err());
}

#[test]
fn groups_that_openssl_does_not_know_are_named_and_passed_over() {
    let place = Place::new("unknown-groups");
    let server = Setup::new(&place, &["true"])
        .env("TLS_GROUPS", "nosuchgroup:?other:P-384")
        .start();
    assert!(Dial::to(&server).groups("P-256").attempt().is_err());
    assert!(Dial::to(&server).groups("P-384").attempt().is_ok());
    server.line("warning: TLS_GROUPS: OpenSSL does not know \"nosuchgroup\"");
    let server = Setup::new(&place, &["true"])
        .env("TLS_GROUPS", "X25519MLKEM768:X25519:P-256")
        .start();
    assert!(Dial::to(&server).groups("X25519").attempt().is_ok());
    let ended = Setup::new(&place, &["true"])
        .env("TLS_GROUPS", "nosuchgroup:other")
        .refused();
    ended.failed(111, "TLS_GROUPS");
    let ended = Setup::new(&place, &["true"])
        .env("SIGALGS", "nosuch")
        .refused();
    ended.failed(111, "SIGALGS");
}

#[test]
fn finite_field_groups_of_tls_groups_bound_dhe_too() {
    let place = Place::new("bounded-dhe");
    let bits = |groups: Option<&str>| {
        let mut setup = rsa(&place);
        if let Some(groups) = groups {
            setup = setup.env("TLS_GROUPS", groups);
        }
        let server = setup.start();
        let client = Dial::to(&server)
            .version(SslVersion::TLS1_2)
            .ciphers("DHE-RSA-AES256-GCM-SHA384")
            .connect();
        client.stream.ssl().peer_tmp_key().unwrap().bits()
    };
    assert_eq!(bits(None), 2048);
    assert_eq!(bits(Some("X25519")), 2048);
    assert_eq!(bits(Some("X25519:ffdhe3072")), 3072);
    assert_eq!(bits(Some("ffdhe4096:X25519:ffdhe3072")), 3072);
    let prime = openssl::bn::BigNum::get_rfc3526_prime_2048().unwrap();
    let base = openssl::bn::BigNum::from_u32(2).unwrap();
    let dh = openssl::dh::Dh::from_pqg(prime, None, base).unwrap();
    let file = place.write("dh.pem", dh.params_to_pem().unwrap());
    let ended = rsa(&place)
        .env("DHFILE", file)
        .env("TLS_GROUPS", "X25519:ffdhe3072")
        .refused();
    ended.failed(111, "DHFILE");
    ended.failed(111, "ffdhe3072");
}

#[test]
fn signature_algorithms_are_bounded() {
    let place = Place::new("sigalgs");
    let agreed = |server: &Server, list: &str| {
        let dial = Dial::to(server)
            .version(SslVersion::TLS1_2)
            .ciphers("ECDHE+AESGCM:@SECLEVEL=0")
            .signatures(list);
        dial.attempt().is_ok()
    };
    let server = rsa(&place).start();
    assert!(agreed(&server, "RSA+SHA256"));
    assert!(agreed(&server, "RSA-PSS+SHA384"));
    assert!(!agreed(&server, "RSA+SHA224"));
    assert!(!agreed(&server, "RSA+SHA1"));
    // Nor by a word that lowers the level without a word of SHA-224.
    let server = rsa(&place)
        .env("CIPHERS", "ECDHE+AESGCM:@SECLEVEL=0")
        .start();
    assert!(!agreed(&server, "RSA+SHA224"));
    assert!(agreed(&server, "RSA+SHA1"), "level 0 is for old clients");
    let server = rsa(&place)
        .env("SIGALGS", "RSA+SHA512:nosuch:RSA+SHA224")
        .start();
    assert!(!agreed(&server, "RSA+SHA256"));
    assert!(agreed(&server, "RSA+SHA512"));
    assert!(agreed(&server, "RSA+SHA224"));
    server.line("warning: SIGALGS: OpenSSL does not know \"nosuch\"");
    // The program does not see it.
    let server = Setup::script(&place, "echo \"${SIGALGS-unset}\"")
        .env("SIGALGS", "ECDSA+SHA256")
        .start();
    assert_eq!(Dial::to(&server).connect().text(), "unset\n");
}

#[test]
fn the_defaults_serve_real_clients_and_nothing_that_serves_nobody() {
    let place = Place::new("defaults");
    let server = rsa(&place).start();
    for served in [
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-SHA384",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-RSA-AES128-SHA",
    ] {
        assert_eq!(twelve(&server, served).as_deref(), Ok(served));
    }
    for refused in [
        "DHE-RSA-AES128-CCM",
        "DHE-RSA-AES256-CCM8",
        "DHE-RSA-AES128-SHA",
        "ARIA",
        "CAMELLIA",
    ] {
        assert!(twelve(&server, refused).is_err(), "{refused}");
    }
    for (group, served) in [
        ("X25519", true),
        ("P-256", true),
        ("P-384", true),
        ("P-521", false),
        ("X448", false),
        ("ffdhe2048", false),
    ] {
        let dial = Dial::to(&server).version(SslVersion::TLS1_3).groups(group);
        assert_eq!(dial.attempt().is_ok(), served, "{group}");
    }
    // A certificate on P-384 is served where the exchange is on another curve.
    let server = Setup::new(&place, &["true"])
        .identity(&Identity::localhost(KeyKind::P384))
        .start();
    let dial = Dial::to(&server).version(SslVersion::TLS1_2);
    let client = dial.groups("X25519:P-384").connect();
    assert_eq!(
        client.stream.ssl().peer_tmp_key().unwrap().id(),
        openssl::pkey::Id::X25519
    );
    let key = client
        .stream
        .ssl()
        .peer_certificate()
        .unwrap()
        .public_key()
        .unwrap();
    assert_eq!(
        key.ec_key().unwrap().group().curve_name(),
        Some(Nid::SECP384R1)
    );
    // Where old versions are allowed, so is what they have.
    let server = rsa(&place).env("TLS_MIN", "1.0").start();
    for old in ["DHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA"] {
        let dial = Dial::to(&server).version(SslVersion::TLS1);
        let dial = dial.ciphers(&format!("{old}:@SECLEVEL=0"));
        assert_eq!(dial.connect().cipher(), old);
    }
}

#[test]
fn openssl_s_client_with_a_good_suite_among_bad_ones_is_served() {
    let openssl = need!("openssl");
    let place = Place::new("s-client");
    let server = Setup::new(&place, &["echo", "served"])
        .identity(&Identity::localhost(KeyKind::Rsa2048))
        .env("CIPHERS", "HIGH:@STRENGTH")
        .start();
    let mut command = std::process::Command::new(openssl);
    command.args(["s_client", "-quiet", "-tls1_2", "-connect"]);
    command.arg(server.at.to_string());
    command.args(["-cipher", "AES256-SHA:ECDHE-RSA-AES128-GCM-SHA256"]);
    let done = run(&mut command, b"");
    assert!(done.text().contains("served"), "{}", done.stderr);
}
