//! Which TLSA records count for a server, and when a server must not be called.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use domain::base::Rtype;
use domain::base::iana::Rcode;
use ucspi_tls::internals::dns::{Dns, Endpoint, NoAnswer, Tlsa, Trust};
use ucspi_tls::internals::name::DomainName;

use super::dns::Forwarder;
use super::packet::{Packet, wire};
use super::tree::{Denial, Tree, Zone, at, somewhere};
use crate::harness::{Place, need_root, program, skip};

fn name(text: &str) -> DomainName {
    DomainName::parse(text.as_bytes()).unwrap()
}

/// 3 1 1 with a digest of one number.
fn digest(number: u8) -> Vec<u8> {
    [&[3, 1, 1][..], &[number; 32]].concat()
}

fn with_servers(zone: Zone, secure: &str) -> Zone {
    let name = zone.name.clone();
    let to = |host: &str| wire(&at(host, &name));
    zone.with("mx", Rtype::A, somewhere())
        .with("_25._tcp.mx", Rtype::TLSA, digest(1))
        .with("_465._tcp.mx", Rtype::TLSA, digest(2))
        .with("bare", Rtype::A, somewhere())
        .with("odd", Rtype::A, somewhere())
        .with("_25._tcp.odd", Rtype::TLSA, vec![3, 1])
        .with(
            "_25._tcp.odd",
            Rtype::TLSA,
            [&[1, 1, 1][..], &[0; 32]].concat(),
        )
        .with("_25._tcp.odd", Rtype::TLSA, digest(3))
        .with("alias", Rtype::CNAME, to("mx"))
        .with("both", Rtype::CNAME, to("mx"))
        .with("_25._tcp.both", Rtype::TLSA, digest(4))
        .with("own", Rtype::CNAME, to("bare"))
        .with("_25._tcp.own", Rtype::TLSA, digest(5))
        .with("out", Rtype::CNAME, wire("mx.plain."))
        .with("_25._tcp.out", Rtype::TLSA, digest(6))
        .with("in", Rtype::CNAME, wire(&at("mx", secure)))
        .with("far", Rtype::A, somewhere())
        .with("_25._tcp.far", Rtype::CNAME, to("records"))
        .with("records", Rtype::TLSA, digest(7))
        .with("loose", Rtype::A, somewhere())
        .with("_25._tcp.loose", Rtype::CNAME, wire("_25._tcp.mx.plain."))
        .with("*.wild", Rtype::A, somewhere())
        .with("*._tcp.wild", Rtype::TLSA, digest(8))
}

fn world() -> Tree {
    let hashed = Denial::Nsec3 {
        rounds: 0,
        opt_out: false,
    };
    Tree::new(vec![
        with_servers(Zone::signed("nsec.", Denial::Nsec), "nsec."),
        with_servers(Zone::signed("hash.", hashed), "nsec."),
        with_servers(Zone::unsigned("plain."), "nsec."),
    ])
}

/// What is found for a host's port, as a delivery asks.
fn found(place: &Place, server: IpAddr, host: &str, port: u16) -> Result<Option<Tlsa>, NoAnswer> {
    let trust = Trust::read(&place.path("")).unwrap();
    let dns = Dns::new(&[server], trust).unwrap();
    let addresses = dns.addresses(&name(host)).unwrap();
    let server = Endpoint {
        host: name(host),
        end: addresses.name,
        secure: addresses.secure,
        port,
    };
    dns.tlsa(&[server]).pop().unwrap()
}

/// The host and the first byte of each digest.
fn seen(found: &Tlsa) -> (String, Vec<u8>) {
    let numbers = found.usable.iter().map(|one| one.data[0]);
    (found.host.to_string(), numbers.collect())
}

#[test]
fn records_count_where_address_and_records_are_signed() {
    need_root!();
    let place = Place::new("tlsa-honest");
    let tree = world();
    place.write("dnssecanchors", tree.anchors());
    let server = Forwarder::start(move |question| Some(tree.answer(question)));
    for zone in ["nsec", "hash"] {
        for (host, port, bearer, number) in [
            ("mx", 25, "mx", 1),
            ("mx", 465, "mx", 2),
            ("alias", 25, "mx", 1),
            // The end of the aliases counts first, then the alias itself.
            ("both", 25, "mx", 1),
            ("own", 25, "own", 5),
            ("far", 25, "far", 7),
        ] {
            let host = format!("{host}.{zone}");
            let found = found(&place, server.ip, &host, port).unwrap().unwrap();
            let wanted = (format!("{bearer}.{zone}"), vec![number]);
            assert_eq!(seen(&found), wanted, "{host} {port}");
            assert!(found.unusable.is_empty());
        }
        // No records, or none that are signed; or it is not known that the address
        // is the host's.
        for (host, port) in [("mx", 26), ("bare", 25), ("loose", 25), ("out", 25)] {
            let host = format!("{host}.{zone}");
            assert_eq!(found(&place, server.ip, &host, port), Ok(None), "{host}");
        }
        let odd = found(&place, server.ip, &format!("odd.{zone}"), 25);
        let odd = odd.unwrap().unwrap();
        assert_eq!((seen(&odd).1, odd.unusable.len()), (vec![3], 2));
    }
    for host in ["mx.plain", "own.plain", "in.plain"] {
        assert_eq!(found(&place, server.ip, host, 25), Ok(None), "{host}");
    }
    // Nothing is asked where the address is not signed.
    let asked = server.take();
    let in_vain = |one: &&String| one.contains("TLSA") && one.contains(".plain.");
    let in_vain: Vec<_> = asked.iter().filter(in_vain).collect();
    // But for an alias that leads there from a signed zone.
    assert!(
        in_vain
            .iter()
            .all(|one| one.starts_with("_25._tcp.mx.plain.")),
        "{in_vain:?}"
    );
    assert!(
        !asked
            .iter()
            .any(|one| one.starts_with("_25._tcp.own.plain.")),
        "{asked:?}"
    );
}

/// What becomes of the question for TLSA.
type Forge = fn(&Tree, &Packet) -> Option<Packet>;

#[test]
fn a_server_whose_records_cannot_be_told_is_not_called() {
    need_root!();
    let place = Place::new("tlsa-forged");
    let tree = Arc::new(world());
    place.write("dnssecanchors", tree.anchors());
    let forgeries: [(&str, Forge); 9] = [
        ("altered", |tree, question| {
            let mut found = tree.answer(question);
            found.answers[0].data[5] ^= 1;
            Some(found)
        }),
        ("without a signature", |tree, question| {
            let mut found = tree.answer(question);
            found.answers.truncate(1);
            Some(found)
        }),
        ("denied without a proof", |_, question| {
            Some(question.failure(Rcode::NOERROR))
        }),
        ("no such name, without a proof", |_, question| {
            Some(question.failure(Rcode::NXDOMAIN))
        }),
        ("denied with another name's proof", |tree, question| {
            let mut found = tree.ask("_25._tcp.bare.nsec.", Rtype::TLSA);
            found.name.clone_from(&question.name);
            Some(found)
        }),
        ("SERVFAIL", |_, question| {
            Some(question.failure(Rcode::SERVFAIL))
        }),
        ("REFUSED", |_, question| {
            Some(question.failure(Rcode::REFUSED))
        }),
        ("NOTIMP", |_, question| {
            Some(question.failure(Rcode::NOTIMP))
        }),
        ("silence", |_, _| None),
    ];
    for (about, forge) in forgeries {
        let tree = Arc::clone(&tree);
        let server = Forwarder::start(move |question| match question.kind {
            Rtype::TLSA => forge(&tree, question),
            _ => Some(tree.answer(question)),
        });
        let found = found(&place, server.ip, "mx.nsec", 25);
        assert!(found.is_err(), "{about}: {found:?}");
    }
}

#[test]
fn unbound_says_the_same_of_tlsa_records() {
    need_root!();
    if program("unbound-host").is_none() {
        skip!("unbound-host is not installed");
    }
    let place = Place::new("tlsa-judged");
    let tree = world();
    place.write("dnssecanchors", tree.anchors());
    let server = Forwarder::start(move |question| Some(tree.answer(question)));
    let config = place.write(
        "judge.conf",
        format!(
            "server:\n do-not-query-localhost: no\n trust-anchor-file: \"{}\"\n\
             forward-zone:\n name: \".\"\n forward-addr: {}\n",
            place.text("dnssecanchors"),
            server.ip
        ),
    );
    for (host, secure) in [
        ("mx.nsec", true),
        ("mx.hash", true),
        ("far.hash", true),
        ("loose.nsec", false),
        ("mx.plain", false),
    ] {
        let words = [
            "-v",
            "-C",
            &config,
            "-t",
            "TLSA",
            &format!("_25._tcp.{host}"),
        ];
        let output = Command::new(program("unbound-host").unwrap())
            .args(words)
            .output();
        let said = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        assert!(
            said.contains(if secure { "(secure)" } else { "(insecure)" }),
            "{said}"
        );
        let found = found(&place, server.ip, host, 25).unwrap();
        assert_eq!(found.is_some(), secure, "{host}");
    }
}
