//! Postfix's posttls-finger(1) asked of the same servers and records: who is called, and
//! what its certificate is worth by DANE.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use openssl::hash::{MessageDigest, hash};

use super::dane_delivery::{NOBODY, domain, key, remote, shows};
use super::dns::{Recursive, Signing, Zones};
use super::fake::Fake;
use super::postfix;
use super::remote::fresh_ip;
use crate::harness::authority::hex;
use crate::harness::process::run_within;
use crate::harness::{Authority, Leaf, Place, need_root, overlay, skip};

/// What becomes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opinion {
    /// Its certificate matches a record.
    Matches,
    /// It matches none, or does not name the host where an authority's record does.
    Mismatch,
    /// TLS, with whatever certificate.
    Tls,
    /// It does not offer TLS.
    Bare,
    /// It is not called: nobody can tell its records.
    NotCalled,
    /// Nobody can tell who it is.
    Nobody,
}

use Opinion::{Bare, Matches, Mismatch, Nobody, NotCalled, Tls};

/// By a delivery's report.
fn ours(report: &str) -> Opinion {
    for (words, opinion) in [
        (" dane ", Matches),
        ("it matches no TLSA record: ", Mismatch),
        ("hostname mismatch", Mismatch),
        ("certificate has expired", Mismatch),
        (" unverified).\n", Tls),
        ("it does not offer STARTTLS; the TLSA records of ", Bare),
        ("(no TLS: it was not offered)", Bare),
        ("its TLSA records (DANE) could not be looked up", NotCalled),
        ("ZDNS lookup of ", Nobody),
    ] {
        if report.contains(words) {
            return opinion;
        }
    }
    panic!("{report}");
}

/// By what posttls-finger says. It says nothing of a server that offers no TLS, whether
/// that is required or not.
fn theirs(words: &str) -> Opinion {
    for (part, opinion) in [
        ("Verified TLS connection established", Matches),
        // Where nobody signed the MX answer it does not call that verified.
        ("Trusted TLS connection established", Matches),
        ("server certificate verification failed", Mismatch),
        ("Untrusted TLS connection established", Tls),
        ("TLSA lookup error for ", NotCalled),
        ("Destination address lookup failed", Nobody),
    ] {
        if words.contains(part) {
            return opinion;
        }
    }
    let silent = words
        .lines()
        .all(|line| line.contains("unsupported TLSA certificate usage"));
    assert!(silent, "{words}");
    Bare
}

#[test]
fn postfix_judges_servers_and_their_records_as_we_do() {
    need_root!();
    let place = Place::new("dane-postfix");
    if !overlay::possible(&place) {
        skip!("no file can be mounted over another here");
    }
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let Some(finger) = postfix::finger(&place, "smtp_tls_security_level = dane\n") else {
        skip!("Postfix is not there: package/rts fetches it");
    };
    let [ip, bare, of_root, old] = [(); 4].map(|()| fresh_ip());
    let own = Leaf::new("strange")
        .dns("x.example")
        .expired()
        .self_signed();
    let root = Authority::root("DANE Root");
    let below_root = |leaf: Leaf| {
        let mut identity = leaf.issue_by(&root);
        identity.between = vec![root.certificate.clone()];
        identity
    };
    let lower = below_root(Leaf::new("x").dns("mx.ta.signed").dns("tadomain.signed"));
    let expired = below_root(Leaf::new("x").dns("mx.taold.signed").expired());
    let good = format!("3 1 1 {}", key(&own.certificate));
    let whole = own.certificate.to_der().unwrap();
    let digest = |kind| hex(&hash(kind, &whole).unwrap());
    let anchor = format!("2 1 1 {}", key(&root.certificate));
    let wrong = format!("3 1 1 {NOBODY}");
    let two = |name: &str, other: &str| format!("{other}\n_25._tcp.mx.{name} IN TLSA {good}");
    let lines = [
        domain("good", ip, &good),
        domain(
            "full",
            ip,
            &format!("3 0 1 {}", digest(MessageDigest::sha256())),
        ),
        domain(
            "long",
            ip,
            &format!("3 0 2 {}", digest(MessageDigest::sha512())),
        ),
        domain("bytes", ip, &format!("3 0 0 {}", hex(&whole))),
        domain("wrong", ip, &wrong),
        domain("odd", ip, "0 0 1 00"),
        domain("oddbare", bare, "1 1 1 00"),
        domain("stripped", bare, &good),
        domain("none", ip, ""),
        domain("nonebare", bare, ""),
        domain("ta", of_root, &anchor),
        domain("tadomain", of_root, &anchor),
        domain("tawrong", of_root, &anchor),
        domain("taelse", of_root, &format!("2 1 1 {NOBODY}")),
        domain("taold", old, &anchor),
        domain("both", ip, &two("both", &wrong)),
        domain("oddboth", ip, &two("oddboth", "1 1 1 00")),
        domain(
            "agile",
            ip,
            &two("agile", &format!("3 1 2 {NOBODY}{NOBODY}")),
        ),
        "alias IN MX 10 mx.alias\nmx.alias IN CNAME mx.good\n".to_owned(),
        format!(
            "own IN MX 10 mx.own\nmx.own IN CNAME host.own\nhost.own IN A {ip}\n\
             _25._tcp.mx.own IN TLSA {good}\n"
        ),
        "two IN MX 10 mx.wrong\ntwo IN MX 20 mx.good\n".to_owned(),
        format!("here IN A {ip}\n_25._tcp.here IN TLSA {good}\n"),
    ]
    .concat();
    let plain = format!(
        "hosted IN MX 10 mx.good.signed.\nodd IN MX 10 mx.wrong.signed.\n{}",
        domain("own", ip, &wrong)
    );
    let third = [domain("good", ip, &good), domain("none", ip, "")].concat();
    let bogus = domain("d", ip, &wrong);
    let names = zones
        .zone("signed", Signing::Nsec, &lines)
        .zone("signed3", Signing::Nsec3("1"), &third)
        .zone("plain", Signing::None, &plain)
        .zone("expired", Signing::Expired, &bogus)
        .zone("altered", Signing::Altered("00112233", "00112244"), &bogus)
        .serve();
    let Some(resolver) = Recursive::start(&place, names.ip, Some(&names.anchors)) else {
        skip!("unbound is not installed");
    };
    let _servers = [
        shows(&own).at(ip),
        Fake::plain().at(bare),
        shows(&lower).at(of_root),
        shows(&expired).at(old),
    ];
    let conf = format!(
        "nameserver {}\noptions trust-ad timeout:20 attempts:3\n",
        resolver.ip
    );
    let conf = place.write("resolv.conf", conf);
    let words = overlay::mounted(&[(&conf, "/etc/resolv.conf")]);
    for (name, wanted) in [
        ("good.signed", Matches),
        ("full.signed", Matches),
        ("long.signed", Matches),
        ("bytes.signed", Matches),
        ("wrong.signed", Mismatch),
        ("odd.signed", Tls),
        ("oddbare.signed", Bare),
        ("stripped.signed", Bare),
        ("none.signed", Tls),
        ("nonebare.signed", Bare),
        ("ta.signed", Matches),
        // RFC 7672, 3.2.2: the domain of the mail counts beside the host.
        ("tadomain.signed", Matches),
        ("tawrong.signed", Mismatch),
        ("taelse.signed", Mismatch),
        ("taold.signed", Mismatch),
        ("both.signed", Matches),
        ("oddboth.signed", Matches),
        ("agile.signed", Mismatch),
        ("alias.signed", Matches),
        ("own.signed", Matches),
        ("two.signed", Matches),
        ("here.signed", Matches),
        ("good.signed3", Matches),
        ("none.signed3", Tls),
        ("hosted.plain", Matches),
        ("odd.plain", Mismatch),
        ("own.plain", Tls),
        ("d.expired", Nobody),
        ("d.altered", NotCalled),
    ] {
        let report = remote(&place, &names, names.ip).send(name);
        assert_eq!(ours(&report), wanted, "{name}: {report}");
        let mut command = Command::new(&words[0]);
        command
            .args(words[1..].iter().chain(&finger))
            .args(["-c", "-l", "dane", "-L", "summary", name]);
        let ended = run_within(&mut command, b"", Duration::from_secs(60));
        let said = format!("{}{}", ended.text(), ended.stderr);
        assert_eq!(ended.code, Some(0), "{name}: {said}");
        // It calls one host and is content with that, while a delivery goes on.
        let wanted = if name == "two.signed" {
            Mismatch
        } else {
            wanted
        };
        assert_eq!(theirs(&said), wanted, "{name}: {said}");
    }
}
