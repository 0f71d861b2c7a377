//! What is found of `openssl s_server` in many settings.
#![forbid(unsafe_code)]

use std::process::Command;

use super::server::OpenSsl;
use super::{command, findings, has, list, probe, result, text};
use crate::harness::{Authority, Identity, KeyKind, Leaf, Place, run};

fn rsa() -> Identity {
    Leaf::localhost().key(KeyKind::Rsa2048).issue()
}

fn ecdsa() -> Identity {
    Leaf::localhost().key(KeyKind::P256).issue()
}

/// A server that has nothing to be mended.
const SOUND: &[&str] = &[
    "-cipher",
    "ECDHE+AESGCM:DHE+AESGCM",
    "-serverpref",
    "-no_tls1",
    "-no_tls1_1",
];

#[test]
fn a_sound_server_has_notes_only() {
    let place = Place::new("probe-sound");
    let server = OpenSsl::start(&place, &[&rsa(), &ecdsa()], SOUND);
    let root = place.write("root.pem", Authority::shared_root().pem());
    let (found, code) = result(&["-a", &root, &server.at]);
    assert_eq!(code, 0, "{found:#}");
    assert!(
        findings(&found)
            .iter()
            .all(|(_, severity)| severity == "note")
    );
    let versions = found["versions"].as_object().expect("an object");
    let spoken: Vec<_> = versions
        .iter()
        .filter(|(_, spoken)| **spoken == true)
        .collect();
    assert_eq!(versions.len(), 5);
    assert_eq!(spoken.len(), 2, "{versions:?}");
    assert_eq!(found["starttls"], "n/a");
    assert_eq!(
        found["preferred"]["TLSv1.2"],
        "ECDHE-ECDSA-AES256-GCM-SHA384"
    );
    assert_eq!(found["server_order"], true);
    assert_eq!(list(&found["weak"]), Vec::<&str>::new());
    assert!(found["dh_bits"].as_u64() >= Some(2048), "{found:#}");
    assert_eq!(found["resumption"]["TLSv1.2"], true);
    assert_eq!(found["resumption"]["TLSv1.3"], true);
    assert_eq!(
        (&found["large_hello"], &found["grease"]),
        (&true.into(), &true.into())
    );
    let certificates = found["certificates"].as_array().expect("a list");
    let kinds: Vec<_> = certificates.iter().map(|one| one["key"].as_str()).collect();
    assert_eq!(kinds, [Some("rsa"), Some("ecdsa")]);
    for one in certificates {
        assert_eq!(one["chain"], "complete");
        assert_eq!(one["verify"], "ok");
        assert_eq!(one["name_ok"], true);
    }
    assert_eq!(certificates[0]["modulus"].as_str().map(str::len), Some(512));
    assert_eq!(certificates[1].get("modulus"), None);
    let handshakes = found["handshakes"].as_u64().expect("a number");
    assert!(handshakes <= 24, "{handshakes}");
}

#[test]
fn the_quick_probe_keeps_to_eight_handshakes_and_still_gets_both_certificates() {
    let place = Place::new("probe-quick");
    let server = OpenSsl::start(&place, &[&rsa(), &ecdsa()], SOUND);
    let (found, _) = result(&["-q", &server.at]);
    assert_eq!(
        found["certificates"].as_array().map(Vec::len),
        Some(2),
        "{found:#}"
    );
    assert!(found["handshakes"].as_u64() <= Some(8), "{found:#}");
    assert_eq!(found["resumption"]["TLSv1.3"], true);
    assert_eq!(found["resumption"]["TLSv1.2"], true);
    assert_eq!(
        found["preferred"].as_object().map(serde_json::Map::len),
        Some(2)
    );
}

#[test]
fn the_full_probe_names_every_suite_and_group_in_the_server_s_order() {
    let place = Place::new("probe-full");
    let suites = [
        "AES128-SHA",
        "ECDHE-RSA-AES256-SHA",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "AES256-SHA256",
    ];
    let cipher = suites.join(":");
    let words = [
        "-cipher",
        &cipher,
        "-serverpref",
        "-groups",
        "P-384:X25519:P-256",
    ];
    let server = OpenSsl::start(&place, &[&rsa()], &words);
    let (found, _) = result(&["-F", &server.at]);
    assert_eq!(list(&found["suites"]["TLSv1.2"]), suites);
    assert_eq!(
        list(&found["suites"]["TLSv1.3"]),
        [
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_AES_128_GCM_SHA256"
        ]
    );
    let mut groups = list(&found["groups"]);
    groups.sort_unstable();
    assert_eq!(groups, ["P-256", "P-384", "X25519"]);
    assert!(!has(&found, "not-all-listed"));
    assert_eq!(list(&found["weak"]), ["AES128-SHA", "AES256-SHA256"]);
    assert!(found["handshakes"].as_u64() <= Some(60), "{found:#}");
}

#[test]
fn the_full_probe_names_every_group_where_the_suites_are_few() {
    let place = Place::new("probe-full-groups");
    let ecdhe = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256";
    let all = ["P-256", "P-384", "P-521", "X25519", "X448"];
    for (identity, versions, more, wanted) in [
        (rsa(), "-tls1_2", "", &all[..]),
        (rsa(), "-tls1_2", ":AES128-SHA", &all),
        // The client's order decides, and the key's own curve has to be listed.
        (ecdsa(), "-tls1_2", "", &all),
        (rsa(), "-no_tls1_3", "", &["P-521", "X448"]),
    ] {
        let cipher = format!("{ecdhe}{more}");
        let mut words = vec!["-cipher", &cipher, versions];
        let groups = wanted.join(":");
        words.extend(["-groups", &groups]);
        let server = OpenSsl::start(&place, &[&identity], &words);
        let (found, _) = result(&["-F", &server.at]);
        let mut groups = list(&found["groups"]);
        groups.sort_unstable();
        assert_eq!(groups, wanted, "{found:#}");
        assert!(!has(&found, "not-all-listed"), "{found:#}");
        assert!(found["handshakes"].as_u64() <= Some(60), "{found:#}");
    }
}

/// What libssl says of the words in a cipher list, best first.
fn suites_of(words: &str) -> Vec<String> {
    let ciphers = |option: &str| {
        let mut command = Command::new("openssl");
        let ended = run(command.args(["ciphers", "-s", option, words]), b"");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let text = String::from_utf8(ended.stdout).expect("UTF-8");
        text.trim()
            .split(':')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let newer = ciphers("-tls1_3");
    let all = ciphers("-tls1_2").into_iter();
    all.filter(|one| !newer.contains(one)).collect()
}

#[test]
fn the_full_probe_is_exact_with_forty_suites_and_old_versions() {
    let place = Place::new("probe-forty");
    let words = "ALL:!PSK:!SRP:!aECDSA:!aDSS:!aNULL:!ARIA:!CCM8:@SECLEVEL=0";
    let truth = suites_of(words);
    assert!((35..=45).contains(&truth.len()), "{truth:?}");
    let settings = [
        "-cipher",
        words,
        "-serverpref",
        "-min_protocol",
        "TLSv1",
        "-groups",
        "P-384:X25519:P-256",
    ];
    let server = OpenSsl::start(&place, &[&rsa()], &settings);
    // A name costs more handshakes: with a wrong one, and without.
    let at = server.at.replace("127.0.0.1", "localhost");
    let (found, _) = result(&["-F", "-4", &at]);
    assert_eq!(list(&found["suites"]["TLSv1.2"]), truth);
    assert_eq!(list(&found["suites"]["TLSv1.3"]).len(), 3, "{found:#}");
    // Those that need no newer version, in the same order.
    let older = |name: &&String| name.ends_with("-SHA");
    let older: Vec<_> = truth.iter().filter(older).cloned().collect();
    for version in ["TLSv1.0", "TLSv1.1"] {
        assert_eq!(list(&found["suites"][version]), older, "{version}");
    }
    let mut groups = list(&found["groups"]);
    groups.sort_unstable();
    assert_eq!(groups, ["P-256", "P-384", "X25519"]);
    assert_eq!(found["server_order"], true);
    assert!(!has(&found, "not-all-listed"), "{found:#}");
    assert!(found["handshakes"].as_u64() <= Some(60), "{found:#}");
}

#[test]
fn a_full_probe_of_a_server_that_takes_everything_keeps_to_sixty() {
    let place = Place::new("probe-all");
    let words = [
        "-cipher",
        "ALL:COMPLEMENTOFALL@SECLEVEL=0",
        "-min_protocol",
        "TLSv1",
    ];
    let server = OpenSsl::start(&place, &[&rsa(), &ecdsa()], &words);
    let (found, _) = result(&["-F", &server.at]);
    assert!(has(&found, "not-all-listed"), "{found:#}");
    // What is worst is found all the same.
    assert_eq!(findings(&found)[0], ("weak-suite".into(), "high".into()));
    let weak = text(&found, "weak-suite");
    assert!(
        weak.contains("NULL") && weak.contains("anonymous"),
        "{weak}"
    );
    assert!(found["server_order"].is_boolean(), "{found:#}");
    assert!(found["handshakes"].as_u64() <= Some(60), "{found:#}");
    assert!(list(&found["suites"]["TLSv1.2"]).len() > 20, "{found:#}");
}

#[test]
fn old_versions_and_weak_suites_are_found() {
    let place = Place::new("probe-old");
    let words = [
        "-cipher",
        "ALL:COMPLEMENTOFALL@SECLEVEL=0",
        "-min_protocol",
        "TLSv1",
    ];
    let server = OpenSsl::start(&place, &[&rsa()], &words);
    let (found, code) = result(&[&server.at]);
    assert_eq!(code, 1);
    assert!(!has(&found, "no-secure-renegotiation"));
    for version in ["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"] {
        assert_eq!(found["versions"][version], true, "{found:#}");
        assert!(found["preferred"][version].is_string());
    }
    assert!(has(&found, "old-version") && has(&found, "weak-suite"));
    let weak = list(&found["weak"]);
    assert!(weak.iter().any(|one| one.contains("NULL")), "{weak:?}");
    assert!(weak.iter().any(|one| one.starts_with("AES")), "{weak:?}");
    assert!(has(&found, "weak-suite") && text(&found, "weak-suite").contains("NULL"));
    assert!(
        !list(&found["cannot_reach"]).contains(&"Java 7"),
        "{found:#}"
    );
}

#[test]
fn an_ecdsa_certificate_alone_shuts_out_senders_that_know_rsa_only() {
    let place = Place::new("probe-ecdsa");
    let server = OpenSsl::start(&place, &[&ecdsa()], SOUND);
    let (found, code) = result(&[&server.at]);
    assert!(
        list(&found["cannot_reach"]).contains(&"RSA-only senders"),
        "{found:#}"
    );
    assert!(has(&found, "rsa-only-senders-refused"));
    assert_eq!(code, 1);
}

#[test]
fn tls_13_alone_shuts_out_senders_without_it() {
    let place = Place::new("probe-13");
    let server = OpenSsl::start(&place, &[&rsa(), &ecdsa()], &["-tls1_3"]);
    let (found, _) = result(&[&server.at]);
    assert!(
        list(&found["cannot_reach"]).contains(&"senders without TLS 1.3"),
        "{found:#}"
    );
    assert_eq!(
        found["certificates"].as_array().map(Vec::len),
        Some(2),
        "{found:#}"
    );
    assert_eq!(found["versions"]["TLSv1.2"], false);
    assert!(found["handshakes"].as_u64() <= Some(24));
}

#[test]
fn an_ed25519_certificate_alone_shuts_out_those_that_do_not_know_it() {
    let place = Place::new("probe-ed25519");
    let ed25519 = Leaf::localhost().key(KeyKind::Ed25519).issue();
    let server = OpenSsl::start(&place, &[&ed25519], &["-no_tls1", "-no_tls1_1"]);
    let (found, _) = result(&[&server.at]);
    let lost = list(&found["cannot_reach"]);
    for name in ["OpenSSL 3 (Debian 12, RHEL 9)", "GnuTLS 3 (Exim on Debian)"] {
        assert!(!lost.contains(&name), "{lost:?}");
    }
    assert!(
        lost.contains(&"senders without TLS 1.3") && lost.contains(&"Gmail"),
        "{lost:?}"
    );
    for code in ["senders-without-tls13-refused", "senders-refused"] {
        let cure = "offer an RSA or ECDSA certificate beside the other one";
        assert!(text(&found, code).ends_with(cure), "{found:#}");
    }
}

#[test]
fn senders_that_lack_a_suite_are_told_with_one_that_would_serve_them() {
    let place = Place::new("probe-cure");
    let words = ["-cipher", "ECDHE+AESGCM", "-no_tls1", "-no_tls1_1"];
    let server = OpenSsl::start(&place, &[&rsa()], &words);
    let (found, _) = result(&[&server.at]);
    assert_eq!(
        text(&found, "senders-refused"),
        "Cannot connect: Exchange 2013 (Windows Server 2012 R2); accept ECDHE-RSA-AES256-SHA384, too"
    );
    // What is said to help does.
    let words = [
        "-cipher",
        "ECDHE+AESGCM:ECDHE-RSA-AES256-SHA384",
        "-no_tls1",
        "-no_tls1_1",
    ];
    let server = OpenSsl::start(&place, &[&rsa()], &words);
    let (found, _) = result(&[&server.at]);
    assert!(!has(&found, "senders-refused"), "{found:#}");
}

#[test]
fn cas_that_cannot_be_read_are_told_before_every_partner_is() {
    let place = Place::new("probe-no-cas");
    let empty = place.path("empty");
    std::fs::create_dir(&empty).expect("made");
    let server = OpenSsl::start(&place, &[&ecdsa()], &[]);
    for (file, said) in [
        (
            "/nonexistent",
            "warning: unable to load CA list: SSL_CERT_FILE /nonexistent: ",
        ),
        (
            "",
            "warning: no CA is known, so that no certificate will verify; ",
        ),
    ] {
        let mut command = command(&["-q", &server.at]);
        command
            .env("SSL_CERT_FILE", file)
            .env("SSL_CERT_DIR", &empty);
        if file.is_empty() {
            // The default is the directory's only where there is no file.
            command.env("SSL_CERT_FILE", place.write("none.pem", ""));
        }
        let ended = run(&mut command, b"");
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let root = place.write("root.pem", crate::harness::Authority::shared_root().pem());
    let mut command = command(&["-q", "-a", &root, &server.at]);
    let ended = run(command.env("SSL_CERT_FILE", "/nonexistent"), b"");
    assert_eq!(ended.stderr, "", "-a names the CAs");
}

#[test]
fn a_private_root_that_is_sent_is_unverified() {
    let place = Place::new("probe-private");
    let root = place.write("root.pem", Authority::shared_root().pem());
    let stranger = Authority::root("Private CA");
    let own = Leaf::localhost().key(KeyKind::Rsa2048).issue_by(&stranger);
    let whole = Identity {
        between: vec![stranger.certificate.clone()],
        ..own
    };
    let server = OpenSsl::start(&place, &[&whole], SOUND);
    let (found, code) = result(&["-a", &root, &server.at]);
    assert_eq!(code, 1, "{found:#}");
    assert!(
        text(&found, "unverified").contains("partners can pin it"),
        "{found:#}"
    );
}

#[test]
fn certificates_are_judged_each_by_its_fault() {
    let faults: [(&str, Identity, &str); 6] = [
        (
            "expired",
            Leaf::localhost().key(KeyKind::Rsa2048).expired().issue(),
            "complete",
        ),
        (
            "expires-soon",
            Leaf::localhost().key(KeyKind::Rsa2048).ending_in(9).issue(),
            "complete",
        ),
        (
            "self-signed",
            Leaf::localhost().key(KeyKind::Rsa2048).self_signed(),
            "self-signed",
        ),
        (
            "name-mismatch",
            Leaf::new("other")
                .dns("other.example")
                .key(KeyKind::Rsa2048)
                .issue(),
            "complete",
        ),
        (
            "chain-incomplete",
            Identity {
                between: Vec::new(),
                ..rsa()
            },
            "incomplete",
        ),
        (
            "chain-misordered",
            Identity {
                between: vec![
                    Authority::shared_root().below("Stranger").certificate,
                    rsa().between[0].clone(),
                ],
                ..rsa()
            },
            "misordered",
        ),
    ];
    for (code, identity, chain) in faults {
        let place = Place::new(&format!("probe-{code}"));
        let root = place.write("root.pem", Authority::shared_root().pem());
        let server = OpenSsl::start(&place, &[&identity], SOUND);
        let (found, exit) = result(&["-a", &root, &server.at]);
        assert!(has(&found, code), "{code}: {found:#}");
        assert_eq!(found["certificates"][0]["chain"], chain, "{code}");
        assert_eq!(exit, 1, "{code}");
        let ok = found["certificates"][0]["verify"] == "ok";
        let fine = ["expires-soon", "name-mismatch", "chain-misordered"].contains(&code);
        assert_eq!(ok, fine, "{code}: {found:#}");
    }
}

#[test]
fn the_report_for_a_person_has_every_sentence_of_the_json() {
    let place = Place::new("probe-person");
    let words = [
        "-cipher",
        "ALL:COMPLEMENTOFALL@SECLEVEL=0",
        "-min_protocol",
        "TLSv1",
    ];
    let identity = Leaf::new("other")
        .dns("other.example")
        .key(KeyKind::Rsa2048)
        .expired();
    let server = OpenSsl::start(&place, &[&identity.self_signed()], &words);
    let (found, _) = result(&[&server.at]);
    let ended = probe(&[&server.at]);
    let report = String::from_utf8(ended.stdout).expect("UTF-8");
    assert!(report.lines().count() <= 40, "{report}");
    assert!(report.lines().all(|line| line.len() <= 160), "{report}");
    for one in found["findings"].as_array().expect("a list") {
        let sentence = one["text"].as_str().expect("a text");
        assert!(report.contains(sentence), "{sentence:?} not in {report}");
    }
    let line = found["tlsdestinations"].as_str().expect("a line");
    assert!(
        report.contains(&format!("\n{line}\n")),
        "{line} not in {report}"
    );
    assert!(!report.contains('\u{1b}'), "no colors but on a terminal");
}
