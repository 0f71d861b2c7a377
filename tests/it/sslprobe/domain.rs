//! Mail domains: their MX hosts, the TLSA records of these, and what is said where
//! DNS has nothing.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;

use domain::base::Rtype;
use openssl::sha::sha256;
use serde_json::Value;

use super::server::{Scripted, smtp, smtp_inside, tls};
use super::{command, has, objects, text};
use crate::harness::peer::context;
use crate::harness::{Authority, Identity, Leaf, Place, need_root, run};
use crate::sslremote::dns::Forwarder;
use crate::sslremote::packet::wire;
use crate::sslremote::remote::fresh_ip;
use crate::sslremote::tree::{Denial, Tree, Zone, a, mx};
use crate::sslremote::web::{Reply, Web, policy};

/// An SMTP server on 127.0.0.1 with a certificate for `mx.sig`.
fn server(identity: &Identity) -> Scripted {
    let context = Arc::new(context(identity, |_| {}));
    Scripted::start(move |stream, _, seen| {
        if smtp(stream, &["STARTTLS"], seen) {
            if let Some(mut inside) = tls(stream, &context) {
                smtp_inside(&mut inside, &[], "");
            }
        }
    })
}

fn identity() -> Identity {
    Leaf::new("mx.sig").dns("mx.sig").issue()
}

/// A signed domain whose MX has this TLSA record on a port.
fn world(port: u16, record: Vec<u8>) -> Tree {
    let here = || a(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let service = format!("_{port}._tcp.mx");
    Tree::new(vec![
        Zone::signed("sig.", Denial::Nsec)
            .with("@", Rtype::MX, mx(10, "mx.sig."))
            .with("@", Rtype::MX, mx(20, "closed.sig."))
            .with("mx", Rtype::A, here())
            .with("closed", Rtype::A, a(IpAddr::from([127, 0, 0, 3])))
            .with(&service, Rtype::TLSA, record)
            .with("null", Rtype::MX, [&[0, 0][..], &wire(".")].concat())
            .with("bare", Rtype::A, here()),
    ])
}

/// 3 1 1 of a certificate.
fn record(identity: &Identity) -> Vec<u8> {
    let key = identity.certificate.public_key().expect("key");
    let key = key.public_key_to_der().expect("DER");
    [&[3, 1, 1][..], &sha256(&key)].concat()
}

/// sslprobe -M with this DNS; the object of each host.
fn probe(place: &Place, dns: &Forwarder, port: u16, words: &[&str]) -> Vec<Value> {
    let port = port.to_string();
    let root = place.write("root.pem", Authority::shared_root().pem());
    let mut command: Command = command(&["-j", "-p", &port, "-y", "smtp", "-a", &root]);
    command.args(words);
    command.env("DNSCACHEIP", dns.ip.to_string());
    command.env("QMAILHOME", place.path(""));
    let ended = run(&mut command, b"");
    let all = objects(&ended);
    assert!(!all.is_empty(), "{ended:?}");
    all
}

fn home(name: &str, tree: &Tree) -> Place {
    let place = Place::new(name);
    std::fs::create_dir_all(place.path("control")).expect("made");
    place.write("control/dnssecanchors", tree.anchors());
    place
}

#[test]
fn tlsa_records_of_mx_hosts_are_compared_with_their_certificates() {
    need_root!();
    let identity = identity();
    let server = server(&identity);
    let port = server.at.port();
    let good = world(port, record(&identity));
    let place = home("probe-dane", &good);
    let other = Leaf::new("x").other_key().issue();
    let bad = world(port, record(&other));
    // Records that another tree signed: their signatures are wrong.
    let (forged, honest) = (
        world(port, record(&identity)),
        world(port, record(&identity)),
    );
    let anchors = honest.anchors();
    for (tree, forged, wanted) in [
        (good, None, "ok"),
        (bad, None, "mismatch"),
        (honest, Some(forged), "bogus"),
    ] {
        let anchors = if wanted == "bogus" {
            anchors.clone()
        } else {
            tree.anchors()
        };
        place.write("control/dnssecanchors", anchors);
        let dns = Forwarder::start(move |question| {
            let tree = match &forged {
                Some(forged) if question.kind == Rtype::TLSA => forged,
                _ => &tree,
            };
            Some(tree.answer(question))
        });
        let all = probe(&place, &dns, port, &["-M", "sig"]);
        assert_eq!(all.len(), 2, "a line each MX host: {all:#?}");
        let found = all
            .iter()
            .find(|one| one["host"] == "mx.sig")
            .expect("mx.sig");
        assert_eq!(
            (&found["mx_of"], &found["dane"]),
            (&"sig".into(), &wanted.into()),
            "{found:#}"
        );
        assert_eq!(found["certificates"][0]["name_ok"], true);
        if wanted == "mismatch" {
            let said = text(found, "dane-mismatch");
            assert!(
                said.contains(": 3 1 1 ") && said.contains("its own key is"),
                "{said}"
            );
        }
        // Nobody can put another host into a signed answer.
        assert!(!has(found, "line-names-from-dns"), "{found:#}");
        let code = format!("dane-{wanted}");
        assert_eq!(has(found, &code), wanted != "ok", "{found:#}");
        let line = found["tlsdestinations"].as_str().expect("a line");
        assert!(
            line.starts_with("~sig:") && line.ends_with("mx.sig"),
            "{line}"
        );
        let closed = all
            .iter()
            .find(|one| one["host"] == "closed.sig")
            .expect("listed");
        assert_eq!(
            (&closed["listens"], &closed["mx_of"]),
            (&false.into(), &"sig".into())
        );
        assert!(closed["error"].as_str().expect("why").contains("refused"));
    }
}

/// Under each line: whether mail would get through, and words of the reason.
type Lines<'a> = &'a [(&'a str, &'a str, Option<&'a str>)];

#[test]
fn mail_under_a_rule_gets_through_where_a_delivery_with_dane_would() {
    need_root!();
    let identity = identity();
    let server = server(&identity);
    let port = server.at.port();
    let other = record(&Leaf::new("x").other_key().issue());
    let own = record(&identity);
    let unusable = [&[1, 1, 1][..], &own[3..]].concat();
    let none = Some("DANE is required, and it has no signed TLSA records");
    let useless = Some("DANE is required, and no TLSA record is of use");
    let mismatch = Some("DANE: it matches no TLSA record: 3 1 1 ");
    let bogus = Some("TLSA records (DANE) could not be looked up");
    let matching: Lines<'_> = &[
        ("sig:dane", "sig", None),
        ("~sig:dane", "sig", None),
        ("*:", "sig", None),
        ("bare.sig:dane", "bare.sig", none),
        ("*:", "bare.sig", None),
    ];
    let different: Lines<'_> = &[
        ("sig:dane", "sig", mismatch),
        ("*:", "sig", mismatch),
        ("-:", "sig", mismatch),
        ("-*:", "sig", mismatch),
        // The postmaster's own word stands above DANE.
        ("-sig:", "sig", None),
        ("!sig:", "sig", None),
    ];
    let no_use: Lines<'_> = &[("sig:dane", "sig", useless), ("*:", "sig", None)];
    let forged: Lines<'_> = &[("*:", "sig", bogus), ("-sig:", "sig", None)];
    for (record, is_forged, lines) in [
        (&own, false, matching),
        (&other, false, different),
        (&unusable, false, no_use),
        (&own, true, forged),
    ] {
        let tree = world(port, record.clone());
        let place = home("probe-rule-dane", &tree);
        let foreign = is_forged.then(|| world(port, record.clone()));
        let dns = Forwarder::start(move |question| {
            let tree = match &foreign {
                Some(foreign) if question.kind == Rtype::TLSA => foreign,
                _ => &tree,
            };
            Some(tree.answer(question))
        });
        for (line, domain, why) in lines {
            let rules = place.write("rules", format!("{line}\n"));
            let all = probe(&place, &dns, port, &["-q", "-M", "-P", &rules, domain]);
            let found = all.iter().find(|one| one["listens"] == true);
            let found = found.expect("the server");
            let words = text(found, "policy");
            assert!(words.starts_with("tlsdestinations line 1 "), "{words}");
            let refused = words.contains("would not get through");
            assert_eq!(refused, why.is_some(), "{line}: {words}");
            assert!(words.contains(why.unwrap_or_default()), "{line}: {words}");
        }
    }
}

#[test]
fn records_of_no_use_are_not_called_none() {
    need_root!();
    let identity = identity();
    let server = server(&identity);
    let port = server.at.port();
    let tree = world(port, [&[1, 1, 1][..], &[0; 32]].concat());
    let place = home("probe-dane-odd", &tree);
    let dns = Forwarder::start(move |question| Some(tree.answer(question)));
    let all = probe(&place, &dns, port, &["mx.sig"]);
    assert_eq!(all[0]["dane"], "none");
    assert!(!has(&all[0], "no-dane"), "{:#}", all[0]);
    let said = text(&all[0], "dane-unusable");
    assert!(said.ends_with(": its usage 1 is neither 2 nor 3"), "{said}");
}

#[test]
fn dns_that_is_silent_takes_no_longer_than_a_host_may() {
    need_root!();
    let place = Place::new("probe-dns-silent");
    let dns = Forwarder::start(|_| None);
    for words in [
        &["silent.example", "silent.example:587"][..],
        &["-M", "silent.example"],
    ] {
        let mut command = command(&["-j", "-q"]);
        command.args(["-T", "1"]).args(words);
        command.env("DNSCACHEIP", dns.ip.to_string());
        command.env("QMAILHOME", place.path(""));
        let ended = run(&mut command, b"");
        assert_eq!(ended.code, Some(111));
        let all = objects(&ended);
        assert_eq!(
            all.len(),
            words.iter().filter(|one| !one.starts_with('-')).count()
        );
        for one in all {
            let why = one["error"].as_str().expect("why");
            assert_eq!(
                why, "out of time: DNS took more than 1 second (-T)",
                "{one:#}"
            );
        }
    }
}

#[test]
fn a_host_without_records_and_a_domain_without_mx_are_said_so() {
    need_root!();
    let identity = identity();
    let server = server(&identity);
    let port = server.at.port();
    let tree = world(port, record(&identity));
    let place = home("probe-domains", &tree);
    let dns = Forwarder::start(move |question| Some(tree.answer(question)));
    let all = probe(&place, &dns, port, &["bare.sig"]);
    assert_eq!(
        (&all[0]["dane"], &all[0]["address"]),
        (&"none".into(), &"127.0.0.1".into())
    );
    assert!(text(&all[0], "no-dane").contains("TLSA"));
    // The address stands in for MX; a null MX takes no mail.
    let bare = probe(&place, &dns, port, &["-M", "bare.sig"]);
    assert_eq!(
        (&bare[0]["host"], &bare[0]["listens"]),
        (&"bare.sig".into(), &true.into())
    );
    for (domain, why) in [("null.sig", "null MX"), ("nowhere.sig", "no such name")] {
        let all = probe(&place, &dns, port, &["-M", domain]);
        assert_eq!(all.len(), 1);
        assert_eq!(
            (&all[0]["listens"], &all[0]["mx_of"]),
            (&false.into(), &domain.into())
        );
        assert!(
            all[0]["error"].as_str().expect("why").contains(why),
            "{}",
            all[0]
        );
    }
}

#[test]
fn a_domain_s_policy_is_compared_with_its_mx_hosts() {
    need_root!();
    let place = Place::new("probe-sts");
    std::fs::create_dir_all(place.path("control")).expect("made");
    std::fs::create_dir_all(place.path("mta-sts")).expect("made");
    let root = place.write("cas.pem", Authority::shared_root().pem());
    let web_ip = fresh_ip();
    let web = Web::start(web_ip, &["sig"]);
    let other = Leaf::new("x").dns("x.sig").issue();
    let servers = [server(&identity()), server(&other)];
    let listed = |mode: &str| Reply::policy(&policy(mode, 86400, &["mx.sig"]));
    let enforced = || listed("enforce");
    for (which, record, reply, wanted) in [
        (0, "v=STSv1; id=1", enforced(), Value::from("ok")),
        (0, "v=STSv1; id=1", listed("testing"), "ok".into()),
        (1, "v=STSv1; id=1", enforced(), "mismatch".into()),
        (
            0,
            "v=STSv1; id=1",
            Reply::policy(&policy("enforce", 1, &["x.sig"])),
            "mismatch".into(),
        ),
        (
            0,
            "v=STSv1; id=1",
            Reply::policy(&policy("none", 1, &[])),
            "none".into(),
        ),
        (0, "v=spf1 -all", enforced(), "none".into()),
        (
            0,
            "v=STSv1; id=1",
            Reply::whole("404 Not Found", "", ""),
            Value::Null,
        ),
    ] {
        web.reply("sig", reply);
        let port = servers[which].at.port();
        let text = [
            &[u8::try_from(record.len()).expect("short")],
            record.as_bytes(),
        ]
        .concat();
        let tree = Tree::new(vec![
            Zone::unsigned("sig.")
                .with("@", Rtype::MX, mx(10, "mx.sig."))
                .with("mx", Rtype::A, a(IpAddr::V4(Ipv4Addr::LOCALHOST)))
                .with("mta-sts", Rtype::A, a(web_ip))
                .with("_mta-sts", Rtype::TXT, text),
        ]);
        place.write("control/dnssecanchors", tree.anchors());
        let dns = Forwarder::start(move |question| Some(tree.answer(question)));
        let mut command: Command =
            command(&["-j", "-p", &port.to_string(), "-y", "smtp", "-a", &root]);
        let rules = place.write("rules", "*:\n");
        command
            .args(["-M", "-P", &rules, "sig"])
            .env("DNSCACHEIP", dns.ip.to_string());
        command
            .env("QMAILHOME", place.path(""))
            .env("SSL_CERT_FILE", &root);
        let all = objects(&run(&mut command, b""));
        assert_eq!(all[0]["sts"], wanted, "{record}: {:#}", all[0]);
        // Who forges DNS chooses the names of an unsigned answer.
        let by_name = which == 0;
        assert_eq!(has(&all[0], "line-names-from-dns"), by_name, "{:#}", all[0]);
        assert_eq!(has(&all[0], "sts-mismatch"), wanted == "mismatch");
        // A policy that is enforced stands above the rows for everybody.
        let kept = self::text(&all[0], "policy").contains("would not get through");
        assert_eq!(kept, wanted == "mismatch", "{:#}", all[0]);
    }
}
