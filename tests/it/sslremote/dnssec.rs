//! DNSSEC, from a root of our own: what is secure, what is not, what is bogus.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ucspi_tls::internals::dns::{Dns, NoAnswer, Trust};
use ucspi_tls::internals::name::DomainName;

use super::dns::{Forwarder, Names, Recursive, Signing, Zones, ask};
use super::fake::Fake;
use super::packet::{Packet, Record, within};
use super::remote::{Remote, fresh_ip};
use crate::harness::{Place, need, need_root, skip};
use domain::base::Rtype;
use domain::base::iana::Rcode;

/// What proves an answer, or that there is none.
const DNSSEC: [Rtype; 5] = [
    Rtype::DS,
    Rtype::RRSIG,
    Rtype::NSEC,
    Rtype::NSEC3,
    Rtype::DNSKEY,
];

/// What our own resolver says of a server's zones.
fn dns(place: &Place, server: IpAddr, anchors: &str) -> Dns {
    place.write("dnssecanchors", anchors);
    let trust = Trust::read(&place.path("")).unwrap();
    Dns::new(&[server], trust).unwrap()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text.as_bytes()).unwrap()
}

fn exchangers(dns: &Dns, domain: &str) -> Result<bool, NoAnswer> {
    dns.exchangers(&name(domain)).map(|answer| answer.secure)
}

fn addresses(dns: &Dns, host: &str) -> Result<bool, NoAnswer> {
    dns.addresses(&name(host)).map(|answer| answer.secure)
}

fn assert_bogus(found: Result<bool, NoAnswer>, name: &str) {
    match found {
        Err(NoAnswer::Bogus(why)) if why.contains("DNSSEC validation of ") => {}
        other => panic!("{name}: {other:?}"),
    }
}

/// Hosts and domains of a zone: `mx` is at `ip`.
fn hosts(ip: IpAddr) -> String {
    format!(
        "d IN MX 10 mx\nmx IN A {ip}\nempty IN TXT x\nbare IN A {ip}\nalias IN CNAME d\n\
         lost IN CNAME nx\nback IN CNAME d.signed.\nloop IN CNAME loop2\nloop2 IN CNAME loop\n\
         *.wild IN MX 10 mx\nhost.wild IN A {ip}\n*.other IN CNAME d\n*.lost IN CNAME nx\n"
    )
}

/// Whether a host's exchangers are proven, or why there are none.
fn yields(dns: &Dns, host: &str, domain: &str, wanted: &Result<bool, NoAnswer>) {
    let name = format!("{host}.{domain}");
    assert_eq!(&exchangers(dns, &name), wanted, "{name}");
}

/// Signed and unsigned zones, and broken ones.
fn world(place: &Place, ip: IpAddr) -> Option<Names> {
    let lines = hosts(ip);
    let zones = Zones::new(place)?
        .zone("child.signed", Signing::Nsec, &lines)
        .zone("loose.signed", Signing::None, &lines)
        .zone(
            "signed",
            Signing::Nsec,
            &format!(
                "{lines}away IN CNAME d.plain.\nmoved IN DNAME child.signed.\n\
                 gone IN DNAME nowhere.signed.\nhalf IN MX 10 mx.plain.\n"
            ),
        )
        .zone("loose.signed3", Signing::None, &lines)
        .zone("signed3", Signing::Nsec3("0"), &lines)
        .zone("loose.rounds", Signing::None, &lines)
        .zone("rounds", Signing::Nsec3("50"), &lines)
        .zone("giddy", Signing::Nsec3("501"), &lines)
        .zone("plain", Signing::None, &lines)
        .zone("corp", Signing::Unknown, &lines)
        .zone("unknown", Signing::Unknown, &lines)
        .zone("expired", Signing::Expired, &lines)
        .zone(
            "altered",
            Signing::Altered("\t10 mx.altered.", "\t10 bare.altered."),
            &lines,
        )
        .zone("stripped", Signing::Stripped, &lines);
    Some(zones.serve())
}

#[test]
fn signed_answers_are_secure_and_unsigned_ones_are_not() {
    need_root!();
    let place = Place::new("dnssec-proofs");
    let Some(names) = world(&place, fresh_ip()) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let dns = dns(&place, names.ip, &names.anchors);
    let none = Err(NoAnswer::NoRecords);
    let nobody = Err(NoAnswer::NoSuchName);
    for domain in ["signed", "signed3", "child.signed"] {
        let wild = ["any.wild", "a.b.wild", "any.other", "a.b.other"];
        for host in ["d", "alias"].into_iter().chain(wild) {
            let name = format!("{host}.{domain}");
            assert_eq!(exchangers(&dns, &name), Ok(true), "{name}");
        }
        let mx = format!("mx.{domain}");
        assert_eq!(addresses(&dns, &mx), Ok(true), "{mx}");
        for (host, found) in [("empty", &none), ("nx", &nobody), ("a.nx", &nobody)] {
            let name = format!("{host}.{domain}");
            assert_eq!(exchangers(&dns, &name), *found, "{name}");
            assert_eq!(addresses(&dns, &name), *found, "{name}");
        }
        for host in ["lost", "any.lost"] {
            let name = format!("{host}.{domain}");
            assert_eq!(exchangers(&dns, &name), nobody, "{name}");
        }
    }
    for domain in ["plain", "loose.signed", "loose.signed3"] {
        for (host, found) in [("d", &Ok(false)), ("empty", &none), ("nx", &nobody)] {
            let name = format!("{host}.{domain}");
            assert_eq!(exchangers(&dns, &name), *found, "{name}");
        }
        let mx = format!("mx.{domain}");
        assert_eq!(addresses(&dns, &mx), Ok(false), "{mx}");
    }
    for domain in ["expired", "stripped"] {
        for host in ["d", "empty", "nx"] {
            let name = format!("{host}.{domain}");
            assert_bogus(exchangers(&dns, &name), &name);
        }
    }
    assert_bogus(exchangers(&dns, "d.altered"), "d.altered");
    let mx = addresses(&dns, "mx.altered");
    assert_eq!(mx, Ok(true), "only the MX was altered");
}

#[test]
fn aliases_rounds_and_domains_that_are_not_there() {
    need_root!();
    let place = Place::new("dnssec-corners");
    let Some(names) = world(&place, fresh_ip()) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let dns = dns(&place, names.ip, &names.anchors);
    let nobody = Err(NoAnswer::NoSuchName);
    // Rounds of NSEC3.
    assert_eq!(exchangers(&dns, "any.wild.rounds"), Ok(true));
    assert_eq!(exchangers(&dns, "nx.rounds"), nobody);
    assert_eq!(exchangers(&dns, "d.loose.rounds"), Ok(false));
    assert_eq!(exchangers(&dns, "d.giddy"), Ok(true));
    // RFC 9276, 3.2: too many to be a proof, and no reason to keep mail.
    assert_eq!(exchangers(&dns, "any.wild.giddy"), Ok(false));
    assert_eq!(exchangers(&dns, "nx.giddy"), nobody);
    // The root proves that neither is there; one is known to be private.
    assert_eq!(exchangers(&dns, "d.corp"), Ok(false));
    assert_eq!(exchangers(&dns, "nx.corp"), nobody);
    assert_bogus(exchangers(&dns, "d.unknown"), "d.unknown");
    assert_eq!(exchangers(&dns, "d.nowhere"), nobody);
    // Aliases: each step counts.
    assert_eq!(exchangers(&dns, "away.signed"), Ok(false));
    assert_eq!(exchangers(&dns, "back.plain"), Ok(false));
    assert_eq!(exchangers(&dns, "back.child.signed"), Ok(true));
    assert_eq!(exchangers(&dns, "d.moved.signed"), Ok(true));
    assert_eq!(exchangers(&dns, "d.gone.signed"), nobody);
    for domain in ["signed", "plain"] {
        let found = exchangers(&dns, &format!("loop.{domain}"));
        assert!(matches!(&found, Err(NoAnswer::Temporary(_))), "{found:?}");
    }
}

#[test]
fn bogus_answers_keep_the_mail() {
    need_root!();
    let place = Place::new("dnssec-delivery");
    let ip = fresh_ip();
    let Some(names) = world(&place, ip) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let server = Fake::plain().at(ip);
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("dnssecanchors", &names.anchors);
    let sent =
        format!("K{ip} accepted message (no TLS: it was not offered).\nRemote host said: 250 ok\n");
    let good = [
        "d.signed",
        "d.signed3",
        "bare.signed",
        "d.child.signed",
        "d.plain",
        "d.loose.signed",
        "half.signed",
        "d.moved.signed",
    ];
    for host in good {
        assert_eq!(remote.send(host), sent, "{host}");
    }
    for host in ["d.altered", "d.expired", "d.stripped", "bare.stripped"] {
        let said = remote.send(host);
        let start = format!(
            "ZDNS lookup of {host} failed temporarily. (#4.4.3)\nReason: DNSSEC validation of {host}. MX failed: "
        );
        assert!(said.starts_with(&start), "{said}");
    }
    for domain in ["signed", "signed3"] {
        let said = remote.send(&format!("nx.{domain}"));
        let want = format!("DSorry, I couldn't find any host named nx.{domain}. (#5.1.2)\n");
        assert_eq!(said, want);
        let said = remote.send(&format!("empty.{domain}"));
        let want = "DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n";
        assert_eq!(said, want);
    }
    assert_eq!(server.messages(), good.len());
    // The postmaster's word.
    let remote = remote.control("dnssecinsecure", "# broken\n.stripped\n");
    assert_eq!(remote.send("d.stripped"), sent);
    assert!(remote.send("d.expired").starts_with("ZDNS "));
    let remote = remote.control("dnssecanchors", "");
    assert_eq!(
        remote.send("d.expired"),
        sent,
        "no anchors: nothing is checked"
    );
    for junk in [
        "x\n",
        "; autotrust trust anchor file\n",
        "signed. IN DNSKEY 257 3 13 AAAA\n",
        ". IN DS 1 13 2 AB\n",
    ] {
        let remote = Remote::new(&place)
            .dns(names.ip)
            .control("dnssecanchors", junk);
        let said = remote.send("d.plain");
        let start = "ZUnable to read control files. (#4.3.0)\nReason: dnssecanchors: ";
        assert!(said.starts_with(start), "{said}");
    }
}

/// softlimit -m makes the limit on the stack that on all memory, and so much a thread
/// took by default.
#[test]
fn the_thread_that_checks_fits_under_softlimit() {
    need_root!();
    let prlimit = need!("prlimit");
    let place = Place::new("dnssec-softlimit");
    let ip = fresh_ip();
    let Some(names) = world(&place, ip) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let _server = Fake::plain().at(ip);
    let words = [
        prlimit.to_str().unwrap(),
        "--as=200000000",
        "--data=200000000",
        "--stack=200000000",
    ];
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("dnssecanchors", &names.anchors)
        .through(words);
    let said = remote.send("d.signed");
    assert!(said.starts_with(&format!("K{ip} accepted")), "{said}");
    // It did check.
    let said = remote.send("d.expired");
    assert!(
        said.contains("DNSSEC validation of d.expired. MX failed"),
        "{said}"
    );
}

#[test]
fn servers_without_dnssec_serve_as_before() {
    need_root!();
    let place = Place::new("dnssec-none");
    let ip = fresh_ip();
    let Some(names) = world(&place, ip) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let real = names.ip;
    // One that knows nothing of EDNS, so that no signature comes through.
    let old = Forwarder::start(move |question| {
        let mut question = question.clone();
        question.edns = None;
        Some(ask(real, &question))
    });
    // One that refuses it.
    let older = Forwarder::start(move |question| {
        if question.edns.is_none() {
            return Some(ask(real, question));
        }
        Some(question.failure(Rcode::FORMERR))
    });
    // One before which something drops every question with EDNS.
    let mute = Forwarder::start(move |question| {
        let plain = question.edns.is_none();
        plain.then(|| ask(real, question))
    });
    // One that refuses the root.
    let rootless = Forwarder::start(move |question| {
        if question.name == "." {
            return Some(question.failure(Rcode::REFUSED));
        }
        Some(ask(real, question))
    });
    for server in [old.ip, older.ip, mute.ip] {
        let dns = dns(&place, server, &names.anchors);
        // What is bogus cannot be told from what is not.
        for domain in ["signed", "plain", "expired", "altered", "stripped"] {
            yields(&dns, "d", domain, &Ok(false));
            let nobody = Err(NoAnswer::NoSuchName);
            yields(&dns, "nx", domain, &nobody);
            let none = Err(NoAnswer::NoRecords);
            yields(&dns, "empty", domain, &none);
        }
        assert_eq!(exchangers(&dns, "alias.signed"), Ok(false));
    }
    // What is signed, and cannot be checked, is not what was never signed.
    let rootless = dns(&place, rootless.ip, &names.anchors);
    for name in ["d.signed", "d.altered", "nx.signed", "empty.signed"] {
        assert_bogus(exchangers(&rootless, name), name);
    }
    assert_eq!(exchangers(&rootless, "d.plain"), Ok(false));
    // Another root's anchors.
    let other = Place::new("dnssec-other");
    let strange = Zones::new(&other).unwrap().serve().anchors.clone();
    let strange = dns(&place, real, &strange);
    for name in ["d.signed", "d.expired", "d.plain"] {
        assert_bogus(exchangers(&strange, name), name);
    }
}

#[test]
fn recursive_servers_between_change_nothing() {
    need_root!();
    let place = Place::new("dnssec-recursive");
    let Some(names) = world(&place, fresh_ip()) else {
        skip!("nsd or ldnsutils is not installed");
    };
    for anchors in [None, Some(names.anchors.as_str())] {
        let Some(server) = Recursive::start(&place, names.ip, anchors) else {
            skip!("unbound is not installed");
        };
        let dns = dns(&place, server.ip, &names.anchors);
        for domain in ["signed", "signed3", "child.signed"] {
            yields(&dns, "d", domain, &Ok(true));
            yields(&dns, "any.wild", domain, &Ok(true));
            let nobody = Err(NoAnswer::NoSuchName);
            yields(&dns, "nx", domain, &nobody);
            yields(&dns, "lost", domain, &nobody);
            let none = Err(NoAnswer::NoRecords);
            yields(&dns, "empty", domain, &none);
        }
        for domain in ["plain", "loose.signed", "loose.signed3"] {
            yields(&dns, "d", domain, &Ok(false));
            assert_eq!(
                addresses(&dns, &format!("mx.{domain}")),
                Ok(false),
                "{domain}"
            );
        }
        assert_eq!(exchangers(&dns, "away.signed"), Ok(false));
        assert_eq!(exchangers(&dns, "d.moved.signed"), Ok(true));
        for name in ["d.expired", "d.altered", "d.stripped", "nx.stripped"] {
            let found = exchangers(&dns, name);
            if anchors.is_none() {
                assert_bogus(found, name);
            } else {
                // Where it says SERVFAIL, that is all that is known.
                assert!(
                    matches!(found, Err(NoAnswer::Temporary(_) | NoAnswer::Bogus(_))),
                    "{name}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn well_signed_records_of_others_prove_nothing() {
    need_root!();
    let place = Place::new("dnssec-foreign");
    let forged = Place::new("dnssec-forged");
    let ip = fresh_ip();
    let Some(zones) = Zones::new(&forged) else {
        skip!("nsd or ldnsutils is not installed");
    };
    // The forger's own root; its victim's zone has keys that the forger made.
    let zones = zones.zone("victim", Signing::Nsec, &hosts(ip));
    // A DS of that key at a name of the forger's, well signed under the real root.
    let ds = zones.ds.replace("victim.", "x.evil.");
    let forger = zones.serve();
    let names = Zones::new(&place)
        .unwrap()
        .zone("victim", Signing::Nsec, &hosts(fresh_ip()))
        .zone("evil", Signing::Nsec, &format!("x IN NS ns\n{ds}\n"))
        .serve();
    let (real, fake) = (names.ip, forger.ip);
    let server = Forwarder::start(move |question| {
        if !within(&question.name, "victim.") {
            return Some(ask(real, question));
        }
        if question.kind != Rtype::DS {
            return Some(ask(fake, question));
        }
        let mut reply = ask(real, question);
        let mut other = question.clone();
        other.name = "x.evil.".to_owned();
        reply.answers.extend(ask(real, &other).answers);
        Some(reply)
    });
    let dns = dns(&place, server.ip, &names.anchors);
    assert_bogus(exchangers(&dns, "d.victim"), "d.victim");
    assert_bogus(addresses(&dns, "mx.victim"), "mx.victim");
    assert_eq!(addresses(&dns, "ns.evil"), Ok(true), "the rest is sound");
    let asked = server.take();
    assert!(asked.contains(&"victim. DS".to_owned()), "{asked:?}");
}

#[test]
fn who_takes_signatures_away_below_a_signed_zone_is_found_out() {
    need_root!();
    let place = Place::new("dnssec-stripped");
    let Some(names) = world(&place, fresh_ip()) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let real = names.ip;
    let zones = [
        "child.signed.",
        "loose.signed.",
        "loose.signed3.",
        "signed3.",
    ];
    let server = Forwarder::start(move |question| {
        let mut reply = ask(real, question);
        if zones.iter().any(|zone| within(&question.name, zone)) {
            let plain = |record: &Record| !DNSSEC.contains(&record.kind);
            reply.answers.retain(plain);
            reply.authorities.retain(plain);
        }
        Some(reply)
    });
    let dns = dns(&place, server.ip, &names.anchors);
    for zone in ["child.signed", "loose.signed", "loose.signed3", "signed3"] {
        for host in ["d", "nx", "alias"] {
            let name = format!("{host}.{zone}");
            assert_bogus(exchangers(&dns, &name), &name);
        }
    }
    assert_eq!(exchangers(&dns, "d.signed"), Ok(true));
    assert_eq!(exchangers(&dns, "d.plain"), Ok(false));
}

/// A server's answer to another question, as if it had been asked for this name.
fn renamed(server: IpAddr, question: &Packet, other: &str) -> Packet {
    let mut asked = question.clone();
    other.clone_into(&mut asked.name);
    let mut reply = ask(server, &asked);
    reply.name.clone_from(&question.name);
    for record in &mut reply.answers {
        if record.name == other {
            record.name.clone_from(&question.name);
        }
    }
    reply
}

#[test]
fn replayed_denials_and_wildcards_prove_nothing() {
    need_root!();
    let place = Place::new("dnssec-replayed");
    let Some(names) = world(&place, fresh_ip()) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let real = names.ip;
    let server = Forwarder::start(move |question| {
        let name = question.name.to_ascii_lowercase();
        let other = match (name.as_str(), question.kind) {
            // What is said of another zone, unsigned or signed.
            ("d.signed.", Rtype::MX) => "nx.plain.",
            ("bare.signed.", Rtype::AAAA | Rtype::A) => "nx.signed3.",
            ("d.signed3.", Rtype::MX) => "nx.signed.",
            // What is said of another name.
            ("d.child.signed.", Rtype::MX) => "nx.child.signed.",
            // A wildcard that does not hold there: the name exists.
            ("host.wild.signed.", Rtype::MX) => "any.wild.signed.",
            ("host.wild.signed3.", Rtype::MX) => "any.wild.signed3.",
            ("a.host.wild.signed3.", Rtype::MX) => "a.any.wild.signed3.",
            _ => return Some(ask(real, question)),
        };
        Some(renamed(real, question, other))
    });
    let straight = dns(&place, real, &names.anchors);
    let dns = dns(&place, server.ip, &names.anchors);
    for name in ["d.signed", "d.signed3", "d.child.signed"] {
        assert_eq!(exchangers(&straight, name), Ok(true), "{name}");
        assert_bogus(exchangers(&dns, name), name);
    }
    assert_eq!(addresses(&straight, "bare.signed"), Ok(true));
    assert_bogus(addresses(&dns, "bare.signed"), "bare.signed");
    for name in [
        "host.wild.signed",
        "host.wild.signed3",
        "a.host.wild.signed3",
    ] {
        let found = exchangers(&straight, name);
        assert!(
            matches!(found, Err(NoAnswer::NoRecords | NoAnswer::NoSuchName)),
            "{found:?}"
        );
        assert_bogus(exchangers(&dns, name), name);
    }
}

#[test]
fn servers_that_leave_questions_open_are_not_waited_for_long() {
    need_root!();
    let place = Place::new("dnssec-silent");
    let Some(names) = world(&place, fresh_ip()) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let real = names.ip;
    let without = move |kind: Rtype| {
        Forwarder::start(move |question| (question.kind != kind).then(|| ask(real, question)))
    };
    let (keyless, chainless) = (without(Rtype::DNSKEY), without(Rtype::DS));
    place.write("dnssecanchors", &names.anchors);
    let trust = Trust::read(&place.path("")).unwrap();
    let other = trust.clone();
    let first = std::thread::spawn(move || {
        let dns = Dns::new(&[keyless.ip], other).unwrap();
        assert_eq!(exchangers(&dns, "d.plain"), Ok(false));
        assert_bogus(exchangers(&dns, "d.signed"), "d.signed");
        let asked = keyless.take();
        let keys = asked.iter().filter(|one| one.ends_with(" DNSKEY"));
        assert!(keys.count() < 10, "{asked:?}");
    });
    let dns = Dns::new(&[chainless.ip], trust).unwrap();
    // Its parent may have said that it is signed.
    assert_bogus(exchangers(&dns, "d.plain"), "d.plain");
    let found = exchangers(&dns, "bare.plain");
    assert!(matches!(&found, Err(NoAnswer::Temporary(_))), "{found:?}");
    first.join().unwrap();
}

#[test]
fn a_check_costs_few_questions_and_none_is_put_twice() {
    need_root!();
    let place = Place::new("dnssec-questions");
    let Some(names) = world(&place, fresh_ip()) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let real = names.ip;
    let server = Forwarder::start(move |question| Some(ask(real, question)));
    let delivery = |domain: &str, anchors: &str| {
        let dns = dns(&place, server.ip, anchors);
        exchangers(&dns, &format!("d.{domain}")).unwrap();
        addresses(&dns, &format!("mx.{domain}")).unwrap();
        let mut asked = server.take();
        asked.sort();
        let all = asked.clone();
        asked.dedup();
        // The root's keys: by us, who look for signatures, and by libunbound.
        let twice = usize::from(!anchors.is_empty());
        assert_eq!(asked.len() + twice, all.len(), "{domain}: {all:?}");
        asked
    };
    let three = ["d.plain. MX", "mx.plain. A", "mx.plain. AAAA"];
    assert_eq!(delivery("plain", ""), three);
    let asked = delivery("plain", &names.anchors);
    let more = [&[". DNSKEY"], &three[..], &["plain. DS"]].concat();
    assert_eq!(asked, more);
    let special = dns(&place, server.ip, &names.anchors);
    let here = special.addresses(&name("localhost")).unwrap().records;
    assert_eq!(
        here,
        ["::1", "127.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    assert_eq!(exchangers(&special, "localhost"), Err(NoAnswer::NoRecords));
    for name in ["x.onion", "x.invalid"] {
        assert_eq!(
            exchangers(&special, name),
            Err(NoAnswer::NoSuchName),
            "{name}"
        );
    }
    assert!(server.take().is_empty());
    let asked = delivery("signed", &names.anchors);
    let three = ["d.signed. MX", "mx.signed. A", "mx.signed. AAAA"];
    let more = [&[". DNSKEY"], &three[..], &["signed. DNSKEY", "signed. DS"]].concat();
    assert_eq!(asked, more);
}
