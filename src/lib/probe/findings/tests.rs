//! Each finding where it belongs, and none where all is well.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::super::result::{Agreement, Certificate, Chain, Injection, KeyType, StartTls, Version};
use super::super::senders::SENDERS;
use super::*;

fn facts() -> Facts {
    Facts {
        now: "2026-06-01T00:00:00Z".to_owned(),
        soon: "2026-06-15T00:00:00Z".to_owned(),
        ..Facts::default()
    }
}

fn certificate(key: KeyType) -> Certificate {
    Certificate {
        key,
        modulus: None,
        bits: 2048,
        subject: "/CN=mx.example".to_owned(),
        issuer: "/CN=CA".to_owned(),
        names: vec!["mx.example".to_owned()],
        signature: "sha256WithRSAEncryption".to_owned(),
        not_before: "2026-01-01T00:00:00Z".to_owned(),
        not_after: "2027-01-01T00:00:00Z".to_owned(),
        sha256: "00".repeat(32),
        spki: "11".repeat(32),
        chain: Chain::Complete,
        verify: "ok".to_owned(),
        name_ok: Some(true),
        names_host: true,
    }
}

/// A server of which nothing is to be said but notes.
fn well() -> HostResult {
    let versions = Version::ALL.map(|version| (version, Some(version >= Version::Tls12)));
    HostResult {
        host: "mx.example".to_owned(),
        port: 25,
        protocol: "smtp".to_owned(),
        listens: true,
        starttls: Some(StartTls::Offered),
        versions: Some(BTreeMap::from(versions)),
        weak: Some(Vec::new()),
        groups: Some(vec!["X25519".to_owned()]),
        dane: Some(Agreement::None),
        cannot_reach: Some(vec!["Java 7".to_owned()]),
        certificates: vec![certificate(KeyType::Rsa), certificate(KeyType::Ecdsa)],
        ..HostResult::default()
    }
}

/// The text of a finding.
fn text(change: impl FnOnce(&mut HostResult, &mut Facts), code: &str) -> String {
    let (mut result, mut facts) = (well(), facts());
    change(&mut result, &mut facts);
    let all = of(&result, &facts);
    let one = all.into_iter().find(|one| one.code == code);
    one.map(|one| one.text).expect(code)
}

#[test]
fn a_certificate_with_a_cn_alone_is_told_as_that() {
    let said = text(
        |result, _| {
            result.certificates[0].names.clear();
            result.certificates[0].name_ok = Some(false);
        },
        "name-mismatch",
    );
    let why = "it has no name in subjectAltName, and a CN does not count";
    assert!(said.ends_with(why), "{said}");
}

#[test]
fn tlsa_records_are_told_with_what_was_compared() {
    let refused = "it matches no TLSA record: 3 1 1 00112233 is published, and its own key is 44";
    let said = text(
        |result, facts| {
            result.dane = Some(Agreement::Mismatch);
            facts.records_refused = Some(refused.to_owned());
        },
        "dane-mismatch",
    );
    assert_eq!(
        said,
        format!("Senders with DANE keep their mail: {refused}")
    );
    let said = text(
        |_, facts| facts.unusable_records = Some("its usage 1 is neither 2 nor 3".to_owned()),
        "dane-unusable",
    );
    assert!(said.ends_with(": its usage 1 is neither 2 nor 3"), "{said}");
}

#[test]
fn what_is_good_to_know_is_a_note() {
    let noted = |change: fn(&mut HostResult, &mut Facts)| {
        let before = found(|_, _| ());
        let mut all = found(change);
        all.retain(|one| !before.contains(one));
        all
    };
    let note = |code: &str| vec![(Severity::Note, code.to_owned())];
    assert_eq!(
        noted(|_, facts| facts.wants_certificate = true),
        note("client-certificate-asked")
    );
    assert_eq!(
        noted(|result, _| result.server_order = Some(false)),
        note("client-order")
    );
    assert_eq!(noted(|result, _| result.server_order = Some(true)), []);
    let resumed = |all| Some(BTreeMap::from(all));
    assert_eq!(
        noted(|result, _| {
            result.resumption = Some(BTreeMap::from([(Version::Tls12, false)]));
        }),
        note("no-resumption")
    );
    let one = resumed([(Version::Tls12, true), (Version::Tls13, false)]);
    assert_eq!(
        found(|result, _| result.resumption = one),
        found(|_, _| ()),
        "one of them is resumed"
    );
    assert_eq!(
        noted(|result, _| {
            let versions = result.versions.as_mut().expect("spoken");
            versions.insert(Version::Tls13, Some(false));
        }),
        note("no-tls13")
    );
}

#[test]
fn a_second_certificate_of_one_kind_is_told() {
    let vary = |others: Vec<Certificate>| {
        let found = found(|_, facts| facts.others = others);
        let mut found = found.into_iter();
        found.find(|(_, code)| code == "certificates-vary")
    };
    assert_eq!(vary(Vec::new()), None);
    let other = certificate(KeyType::Rsa);
    let wanted = (Severity::Low, "certificates-vary".to_owned());
    assert_eq!(vary(vec![other.clone(), other]), Some(wanted));
}

#[test]
fn what_is_to_be_known_of_a_line_is_a_note_at_the_end() {
    let codes = |line: Option<&str>, signed: Option<bool>| {
        let mut result = HostResult {
            tlsdestinations: line.map(str::to_owned),
            ..well()
        };
        result.findings = of(&result, &facts());
        let before = result.findings.len();
        of_line(&mut result, signed);
        let new = result.findings.split_off(before).into_iter();
        let notes = new.inspect(|one| assert_eq!(one.severity, Severity::Note));
        notes.map(|one| one.code).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(codes(None, Some(false)), none);
    assert_eq!(codes(Some("~a.example:"), None), none);
    assert_eq!(codes(Some("~a.example:||||mx.b.example"), Some(true)), none);
    assert_eq!(codes(Some("%a.example:spki:00"), Some(false)), none);
    assert_eq!(
        codes(Some("~a.example:||||mx.b.example"), Some(false)),
        ["line-names-from-dns"]
    );
    assert_eq!(
        codes(Some("%a.example:spki:00|DEFAULT:@SECLEVEL=0"), None),
        ["line-lowered"]
    );
}

fn found(change: impl FnOnce(&mut HostResult, &mut Facts)) -> Vec<(Severity, String)> {
    let (mut result, mut facts) = (well(), facts());
    change(&mut result, &mut facts);
    let all = of(&result, &facts);
    for one in &all {
        assert!(one.text.len() <= TEXT_LIMIT, "{}", one.text);
        assert!(!one.text.ends_with("..."), "cut short: {}", one.text);
    }
    all.into_iter()
        .map(|one| (one.severity, one.code))
        .collect()
}

#[test]
fn where_all_is_well_there_are_notes_only() {
    let all = found(|_, _| {});
    assert!(
        all.iter().all(|(severity, _)| *severity == Severity::Note),
        "{all:?}"
    );
    assert!(all.iter().any(|(_, code)| code == "old-senders-refused"));
}

type Change = fn(&mut HostResult, &mut Facts);

/// Faults, each with its weight and word.
const FAULTS: &[(Severity, &str, Change)] = &[
    (Severity::High, "expired", |result, _| {
        result.certificates[0].not_after = "2026-05-31T23:59:59Z".to_owned();
    }),
    (Severity::High, "not-yet-valid", |result, _| {
        result.certificates[1].not_before = "2026-06-02T00:00:00Z".to_owned();
    }),
    (Severity::Medium, "expires-soon", |result, _| {
        result.certificates[0].not_after = "2026-06-14T00:00:00Z".to_owned();
    }),
    (Severity::Medium, "chain-incomplete", |result, _| {
        result.certificates[0].chain = Chain::Incomplete;
    }),
    (Severity::Low, "chain-misordered", |result, _| {
        result.certificates[0].chain = Chain::Misordered;
    }),
    (Severity::Medium, "self-signed", |result, _| {
        result.certificates[0].chain = Chain::SelfSigned;
        result.certificates[0].verify = "self-signed certificate".to_owned();
    }),
    (Severity::Medium, "unverified", |result, _| {
        result.certificates[0].verify = "unsuitable certificate purpose".to_owned();
    }),
    (Severity::Medium, "name-mismatch", |result, _| {
        result.certificates[0].name_ok = Some(false);
    }),
    (Severity::Medium, "small-key", |result, _| {
        result.certificates[0].bits = 1024;
    }),
    (Severity::Medium, "weak-signature", |result, _| {
        result.certificates[0].signature = "sha1WithRSAEncryption".to_owned();
    }),
    (Severity::High, "bad-certificate", |_, facts| {
        facts.unreadable = Some("certificate 1 of 1 does not parse".to_owned());
    }),
    (Severity::High, "dane-mismatch", |result, _| {
        result.dane = Some(Agreement::Mismatch);
    }),
    (Severity::High, "dane-bogus", |result, _| {
        result.dane = Some(Agreement::Bogus);
    }),
    (Severity::Low, "old-version", |result, _| {
        result
            .versions
            .as_mut()
            .expect("some")
            .insert(Version::Tls10, Some(true));
    }),
    (Severity::Medium, "old-version", |result, _| {
        result
            .versions
            .as_mut()
            .expect("some")
            .insert(Version::Ssl3, Some(true));
    }),
    (Severity::High, "weak-suite", |result, _| {
        result.weak = Some(vec!["AES128-SHA".to_owned(), "EXP-RC4-MD5".to_owned()]);
    }),
    (Severity::Medium, "weak-suite", |result, _| {
        result.weak = Some(vec!["DES-CBC3-SHA".to_owned()]);
    }),
    (Severity::Low, "weak-suite", |result, _| {
        result.weak = Some(vec!["AES128-SHA".to_owned()]);
    }),
    (Severity::High, "small-dh", |result, _| {
        result.dh_bits = Some(512);
        result.dh_prime = Some("postfix-512".to_owned());
    }),
    (Severity::High, "auth-in-clear", |result, _| {
        result.auth_before_tls = Some(vec!["PLAIN".to_owned(), "CRAM-MD5".to_owned()]);
    }),
    (Severity::Low, "auth-in-clear", |result, _| {
        result.auth_before_tls = Some(vec!["SCRAM-SHA-256".to_owned()]);
    }),
    (Severity::High, "injection", |result, _| {
        result.injection = Some(Injection::Answered);
    }),
    (Severity::Medium, "sts-mismatch", |result, facts| {
        result.sts = Some(Agreement::Mismatch);
        facts.tests_policy = true;
    }),
    (Severity::Medium, "large-hello-refused", |result, _| {
        result.large_hello = Some(false);
    }),
    (Severity::Medium, "grease-refused", |result, _| {
        result.grease = Some(false);
    }),
    (Severity::Medium, "no-sni-refused", |_, facts| {
        facts.without_name = Some(false);
    }),
    (Severity::Low, "wrong-sni-refused", |_, facts| {
        facts.wrong_name = Some(false);
    }),
    (Severity::Medium, "no-secure-renegotiation", |_, facts| {
        facts.secure_renegotiation = Some(false);
    }),
    (
        Severity::Medium,
        "no-extended-master-secret",
        |result, facts| {
            facts.extended_master_secret = Some(false);
            let versions = result.versions.get_or_insert_default();
            versions.insert(Version::Tls13, Some(false));
        },
    ),
    (Severity::Note, "no-extended-master-secret", |_, facts| {
        facts.extended_master_secret = Some(false);
    }),
    (Severity::Medium, "rsa-only-senders-refused", |result, _| {
        result.cannot_reach = Some(vec!["RSA-only senders".to_owned()]);
    }),
    (
        Severity::Medium,
        "senders-without-tls13-refused",
        |result, _| {
            result.cannot_reach = Some(vec!["senders without TLS 1.3".to_owned()]);
        },
    ),
    (Severity::Medium, "senders-refused", |result, _| {
        result.cannot_reach = Some(vec!["Gmail".to_owned(), "Java 8".to_owned()]);
    }),
    (Severity::High, "starttls-missing", |result, _| {
        result.starttls = Some(StartTls::Missing);
        result.versions = None;
    }),
    (Severity::High, "stripped", |_, facts| {
        facts.stripped = Some("Something on the way rewrote the greeting".to_owned());
    }),
    (Severity::High, "refused", |result, facts| {
        result.starttls = Some(StartTls::Refused);
        result.versions = None;
        facts.refusal = Some("554 go away".to_owned());
    }),
    (Severity::High, "tls-failed", |result, facts| {
        result.versions = None;
        facts.handshake = Some("the server closed the connection".to_owned());
    }),
    (Severity::High, "unreachable", |result, _| {
        result.listens = false;
        result.error = Some("connection refused".to_owned());
    }),
    (Severity::Medium, "unverified", |result, _| {
        // An intermediate's end is not the certificate's.
        result.certificates[0].verify = "certificate has expired".to_owned();
    }),
    (Severity::Medium, "no-line", |_, facts| {
        facts.hold = Some(Hold::Not("dh key too small".to_owned()));
    }),
    (Severity::High, "no-dialogue", |_, facts| {
        facts.inside = Some("timed out after its greeting".to_owned());
    }),
    (Severity::High, "version-intolerant", |_, facts| {
        facts.intolerant = Some("the server closed the connection".to_owned());
    }),
    (Severity::Medium, "policy", |_, facts| {
        facts.policy = Some((MailOutcome::Unknown, "no handshake is left".to_owned()));
    }),
    (Severity::High, "policy", |_, facts| {
        facts.policy = Some((MailOutcome::Kept, "mail would not get through".to_owned()));
    }),
];

#[test]
fn each_fault_has_its_word_and_weight() {
    for (severity, code, change) in FAULTS {
        let all = found(*change);
        assert!(
            all.contains(&(*severity, (*code).to_owned())),
            "{code}: {all:?}"
        );
        let order: Vec<_> = all.iter().map(|(severity, _)| *severity).collect();
        assert!(order.is_sorted(), "{all:?}");
    }
}

#[test]
fn a_list_of_senders_is_cut_at_a_name_and_says_what_would_help() {
    let all = SENDERS.iter().map(|one| one.name.to_owned());
    let mut result = HostResult {
        cannot_reach: Some(all.collect()),
        ..well()
    };
    let text = |result: &HostResult, code: &str| {
        let all = of(result, &facts()).into_iter();
        all.filter(|one| one.code == code)
            .map(|one| one.text)
            .collect::<String>()
    };
    result.certificates = vec![certificate(KeyType::Ed25519)];
    assert_eq!(
        text(&result, "senders-refused"),
        "Cannot connect: Exchange Online, Gmail, OpenSSL 3 (Debian 12, RHEL 9) and 4 more; offer an RSA or ECDSA certificate \
         beside the other one"
    );
    result.certificates = vec![Certificate {
        bits: 512,
        ..certificate(KeyType::Rsa)
    }];
    assert!(text(&result, "senders-refused").ends_with("; offer an RSA key of 2048 bits"));
    let only = [(Version::Tls13, Some(true))];
    result.versions = Some(BTreeMap::from(only));
    assert!(text(&result, "senders-without-tls13-refused").ends_with(": allow TLSv1.2"));
    // A server that fails by itself allows the version already.
    let broken = Facts {
        broken: vec![Version::Tls12],
        ..facts()
    };
    let all = of(&result, &broken).into_iter();
    let said: Vec<String> = all
        .filter(|one| one.code == "senders-without-tls13-refused")
        .map(|one| one.text)
        .collect();
    assert!(
        said.iter().all(|one| one.contains(": mend the server")) && said.len() == 1,
        "{said:?}"
    );
    // One cure for both findings of a server that speaks old versions alone.
    result.versions = Some(BTreeMap::from([(Version::Tls10, Some(true))]));
    assert!(text(&result, "old-version").ends_with("; allow TLSv1.2"));
    assert!(text(&result, "senders-refused").ends_with("; allow TLSv1.2"));
}

#[test]
fn a_word_stands_once_by_its_worst() {
    let all = found(|result, _| {
        for one in &mut result.certificates {
            one.not_after = "2026-01-02T00:00:00Z".to_owned();
            one.name_ok = Some(false);
        }
    });
    for code in ["expired", "name-mismatch"] {
        assert_eq!(
            all.iter().filter(|(_, own)| own == code).count(),
            1,
            "{all:?}"
        );
    }
}

#[test]
fn sentences_fit_their_line_and_pass_no_control_characters() {
    let mut facts = facts();
    facts.refusal = Some(format!("554 \x1b[31m{}", "x".repeat(500)));
    let mut result = well();
    result.starttls = Some(StartTls::Refused);
    let all = of(&result, &facts);
    let refused = all
        .iter()
        .find(|one| one.code == "refused")
        .expect("refused");
    assert!(refused.text.len() <= TEXT_LIMIT && refused.text.ends_with("..."));
    assert!(refused.text.contains("\\x1B"), "{}", refused.text);
}
