//! Mail to domains that publish TLSA records: what leaves, under which name and
//! check, and what waits. Zones are signed by ldns and served by NSD.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use domain::base::Rtype;
use domain::base::iana::Rcode;
use openssl::hash::{MessageDigest, hash};
use openssl::x509::X509;

use super::dns::{Forwarder, Names, Recursive, Signing, Zones, ask};
use super::fake::{Fake, Fault, Running};
use super::remote::{Remote, fresh_ip};
use super::rows::anonymous;
use crate::harness::authority::hex;
use crate::harness::{Authority, Identity, Leaf, Place, need_root, peer, skip};

pub fn shows(identity: &Identity) -> Fake {
    Fake::tls(peer::context(identity, |_| ()))
}

/// SHA-256 of a certificate's key, in hex.
pub fn key(certificate: &X509) -> String {
    let key = certificate.public_key().unwrap();
    let key = key.public_key_to_der().unwrap();
    hex(&hash(MessageDigest::sha256(), &key).unwrap())
}

/// Digits of a key that nobody has.
pub const NOBODY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A domain's MX, and its host with an address and this TLSA record.
pub fn domain(name: &str, ip: IpAddr, record: &str) -> String {
    let mut lines = format!("{name} IN MX 10 mx.{name}\nmx.{name} IN A {ip}\n");
    if !record.is_empty() {
        let _ = writeln!(lines, "_25._tcp.mx.{name} IN TLSA {record}");
    }
    lines
}

pub fn remote<'a>(place: &'a Place, names: &Names, server: IpAddr) -> Remote<'a> {
    Remote::new(place)
        .dns(server)
        .control("dnssecanchors", &names.anchors)
}

/// Mail that came outside TLS.
fn in_clear(servers: &[&Running]) -> usize {
    let seen = servers.iter().flat_map(|server| server.seen());
    seen.filter(|one| one.commands.iter().any(|line| line.starts_with("MAIL")))
        .count()
}

#[test]
fn signed_records_decide_and_the_report_says_how() {
    need_root!();
    let place = Place::new("dane-signed");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let [ip, bare, of_root] = [fresh_ip(), fresh_ip(), fresh_ip()];
    // Nothing about it is right but its key.
    let own = Leaf::new("strange")
        .dns("x.example")
        .expired()
        .self_signed();
    let root = Authority::root("DANE Root");
    let mut lower = Leaf::new("x").dns("ta.signed").issue_by(&root);
    lower.between = vec![root.certificate.clone()];
    let own_key = key(&own.certificate);
    let good = format!("3 1 1 {own_key}");
    let anchor = format!("2 1 1 {}", key(&root.certificate));
    let wrong = format!("3 1 1 {NOBODY}");
    let lines = [
        domain("good", ip, &good),
        domain("wrong", ip, &wrong),
        domain("odd", ip, "0 0 1 00"),
        domain("stripped", bare, &good),
        domain("oddbare", bare, "1 1 1 00"),
        domain("none", bare, ""),
        domain("ta", of_root, &anchor),
        domain("tawrong", of_root, &anchor),
        domain("tanone", ip, &format!("2 1 1 {NOBODY}")),
        // Both keys of a renewal.
        domain(
            "both",
            ip,
            &format!("{wrong}\n_25._tcp.mx.both IN TLSA {good}"),
        ),
        // The stronger of two digests counts: RFC 7671, 9.
        domain(
            "agile",
            ip,
            &format!("{good}\n_25._tcp.mx.agile IN TLSA 3 1 2 {NOBODY}{NOBODY}"),
        ),
        "alias IN MX 10 mx.alias\nmx.alias IN CNAME mx.good\n".to_owned(),
        format!(
            "own IN MX 10 mx.own\nmx.own IN CNAME host.own\nhost.own IN A {ip}\n\
             _25._tcp.mx.own IN TLSA {good}\n"
        ),
        "two IN MX 10 mx.wrong\ntwo IN MX 20 mx.good\n".to_owned(),
        "away IN MX 10 mx.stripped\naway IN MX 20 mx.none\n".to_owned(),
        format!("here IN A {ip}\n_25._tcp.here IN TLSA {wrong}\n"),
    ]
    .concat();
    let plain = format!(
        "hosted IN MX 10 mx.good.signed.\n{}",
        domain("own", ip, &wrong)
    );
    let names = zones
        .zone("signed", Signing::Nsec, &lines)
        .zone("plain", Signing::None, &plain)
        .serve();
    let tls = shows(&own).at(ip);
    let clear = Fake::plain().at(bare);
    let chain = shows(&lower).at(of_root);
    let send = |lines: &str, name: &str| remote(&place, &names, names.ip).policy(lines).send(name);
    let mismatch = format!(
        "(mx.wrong.signed) but its certificate did not verify: depth 0, /CN=strange: it matches \
         no TLSA record: 3 1 1 {} is published, and its own key is {}; the TLSA records of \
         mx.wrong.signed require TLS (DANE). (#4.7.5)\n",
        &NOBODY[..8],
        &own_key[..8]
    );
    let stripped = "(mx.stripped.signed) but it does not offer STARTTLS; the TLSA records of \
                    mx.stripped.signed require TLS (DANE). (#4.7.5)\n";
    let matched = " dane 3 1 1).\n";
    let root_key = &key(&root.certificate)[..8];
    let by_authority = format!(
        "its certificate names another host: depth 0, /CN=x: hostname mismatch (2 1 1 {root_key} is \
         published, and its last issuer's key is {root_key}): wanted mx.tawrong.signed or \
         tawrong.signed, it names ta.signed; the TLSA records of mx.tawrong.signed require TLS"
    );
    for (lines, name, letter, said) in [
        ("", "good.signed", 'K', matched),
        ("", "both.signed", 'K', matched),
        ("", "wrong.signed", 'Z', &mismatch),
        ("", "here.signed", 'Z', "it matches no TLSA record: 3 1 1 "),
        (
            "",
            "agile.signed",
            'Z',
            "it matches no TLSA record: 3 1 2 00112233 is published, and its own key is ",
        ),
        ("", "stripped.signed", 'Z', stripped),
        ("", "ta.signed", 'K', " dane 2 1 1).\n"),
        ("", "tawrong.signed", 'Z', &by_authority),
        (
            "",
            "tanone.signed",
            'Z',
            "2 1 1 00112233 is published, and its own key is ",
        ),
        ("", "alias.signed", 'K', matched),
        ("", "own.signed", 'K', matched),
        ("", "two.signed", 'K', matched),
        // No records of use: TLS all the same, and what the rule asks for on top.
        ("", "odd.signed", 'K', " unverified).\n"),
        (
            "~*:CA\n",
            "odd.signed",
            'Z',
            "its certificate did not verify",
        ),
        ("-*:\n", "odd.signed", 'K', " unverified).\n"),
        (
            "",
            "oddbare.signed",
            'Z',
            "it does not offer STARTTLS; the TLSA",
        ),
        // Neither records nor STARTTLS.
        ("", "none.signed", 'K', "(no TLS: it was not offered).\n"),
        ("", "away.signed", 'K', "(no TLS: it was not offered).\n"),
        // Who names the host signed nothing, but the host's own zone did.
        ("", "hosted.plain", 'K', " dane 3 1 1 (name from DNS)).\n"),
        // Records that nobody signed are none.
        ("", "own.plain", 'K', " unverified).\n"),
        // The rows for everybody ask for less, and those above are the postmaster's word.
        ("-*:\n", "wrong.signed", 'Z', &mismatch),
        ("*:\n", "wrong.signed", 'Z', &mismatch),
        ("=*:CA\n", "good.signed", 'K', matched),
        ("wrong.signed:\n", "wrong.signed", 'K', " unverified).\n"),
        ("mx.wrong.signed:\n", "wrong.signed", 'K', " unverified).\n"),
        ("!wrong.signed:\n", "wrong.signed", 'K', "(no TLS).\n"),
        ("!*:\n", "stripped.signed", 'K', "(no TLS).\n"),
        (
            "~good.signed:CA\n",
            "good.signed",
            'Z',
            "its certificate did not verify",
        ),
        // `dane` in a line.
        ("good.signed:dane\n", "good.signed", 'K', matched),
        (".signed:DANE\n", "good.signed", 'K', matched),
        ("+*:dane\n", "good.signed", 'K', matched),
        (
            "none.signed:dane\n",
            "none.signed",
            'Z',
            "Zmx.none.signed is not called: tlsdestinations line 1 requires DANE, and it has no \
             signed TLSA records. (#4.7.5)\n",
        ),
        (
            "+*:dane\n",
            "none.signed",
            'Z',
            "it has no signed TLSA records",
        ),
        (
            "odd.signed:dane\n",
            "odd.signed",
            'Z',
            "no TLSA record is of use: its usage 0 is neither 2 nor 3",
        ),
        (
            "own.plain:dane\n",
            "own.plain",
            'Z',
            "its address is not signed",
        ),
        (
            "hosted.plain:dane\n",
            "hosted.plain",
            'Z',
            "DNS gave its name without a signature",
        ),
        (
            "mx.good.signed:dane\n",
            "hosted.plain",
            'K',
            " dane 3 1 1 (name from DNS)).\n",
        ),
        (
            "stripped.signed:dane\n",
            "stripped.signed",
            'Z',
            "it does not offer STARTTLS; tlsdestinations line 1 requires DANE. (#4.7.5)\n",
        ),
        (
            "away.signed:dane\n",
            "away.signed",
            'Z',
            "it does not offer STARTTLS",
        ),
        (
            "~good.signed:dane\n",
            "good.signed",
            'Z',
            "names another host",
        ),
        ("~ta.signed:dane\n", "ta.signed", 'K', " dane 2 1 1).\n"),
        ("=ta.signed:dane\n", "ta.signed", 'K', " dane 2 1 1).\n"),
        (
            "=mx.ta.signed:dane\n",
            "ta.signed",
            'Z',
            "names another host",
        ),
        (
            "!good.signed:dane\n",
            "good.signed",
            'Z',
            "dane needs a key under which TLS is required",
        ),
        ("*:dane\n", "good.signed", 'Z', "dane needs a key"),
        (
            "%good.signed:dane\n",
            "good.signed",
            'Z',
            "% needs a fingerprint",
        ),
    ] {
        let report = send(lines, name);
        assert!(report.contains(said), "{lines}{name}: {report}");
        assert!(report.starts_with(letter), "{lines}{name}: {report}");
        let waits = letter == 'Z';
        assert_eq!(
            report.contains("(#4.7.5)\n"),
            waits,
            "{lines}{name}: {report}"
        );
    }
    // Three by a line with `!`, two where there are no records.
    assert_eq!(in_clear(&[&tls, &clear, &chain]), 4);
    let wanted: Vec<String> = tls
        .seen()
        .into_iter()
        .filter_map(|one| one.wanted)
        .collect();
    for host in ["mx.good.signed", "mx.own.signed", "mx.odd.signed"] {
        assert!(wanted.iter().any(|one| one == host), "{host}: {wanted:?}");
    }
    for host in ["mx.alias.signed", "host.own.signed"] {
        assert!(!wanted.iter().any(|one| one == host), "{host}: {wanted:?}");
    }
}

#[test]
fn a_server_whose_records_cannot_be_told_is_passed_over() {
    need_root!();
    let place = Place::new("dane-unknown");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let [ip, other] = [fresh_ip(), fresh_ip()];
    let own = Leaf::new("x").dns("x.example").self_signed();
    let record = format!("3 1 1 {}", key(&own.certificate));
    let lines = [
        domain("fails", ip, &record),
        domain("sound", other, &record),
        "first IN MX 10 mx.fails\nfirst IN MX 20 mx.sound\n".to_owned(),
    ]
    .concat();
    let names = zones.zone("signed", Signing::Nsec3("1"), &lines).serve();
    let upstream = names.ip;
    let fails = shows(&own).at(ip);
    let sound = shows(&own).at(other);
    for (number, about) in ["SERVFAIL", "unsigned", "denied", "altered", "REFUSED"]
        .into_iter()
        .enumerate()
    {
        let server = Forwarder::start(move |question| {
            let found = ask(upstream, question);
            let hit = question.kind == Rtype::TLSA && question.name.contains("fails");
            if !hit {
                return Some(found);
            }
            let mut found = found;
            match about {
                "SERVFAIL" => return Some(question.failure(Rcode::SERVFAIL)),
                "REFUSED" => return Some(question.failure(Rcode::REFUSED)),
                "denied" => return Some(question.failure(Rcode::NXDOMAIN)),
                "unsigned" => found.answers.truncate(1),
                _ => found.answers[0].data[7] ^= 1,
            }
            Some(found)
        });
        let send =
            |lines: &str, name: &str| remote(&place, &names, server.ip).policy(lines).send(name);
        let report = send("", "fails.signed");
        let begin = "Zmx.fails.signed is not called: its TLSA records (DANE) could not be looked \
                     up. (#4.7.5)\nReason: ";
        assert!(report.starts_with(begin), "{about}: {report}");
        let report = send("", "first.signed");
        assert!(
            report.ends_with("Remote host said: 250 ok\n"),
            "{about}: {report}"
        );
        assert!(report.contains(" dane 3 1 1)"), "{about}: {report}");
        assert_eq!(fails.seen().len(), number, "{about}: it was called");
        assert_eq!(sound.messages(), number + 1, "{about}");
        // The postmaster's own word: nothing is looked up.
        let report = send("fails.signed:\n", "fails.signed");
        assert!(report.contains(" unverified)"), "{about}: {report}");
    }
}

#[test]
fn records_that_never_come_keep_the_mail_and_no_time() {
    need_root!();
    let place = Place::new("dane-silent");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let ip = fresh_ip();
    let own = Leaf::new("x").dns("x.example").self_signed();
    let record = format!("3 1 1 {}", key(&own.certificate));
    let mut lines = String::new();
    for host in ["a", "b", "c", "d"] {
        let _ = writeln!(lines, "many IN MX 10 {host}\n{host} IN A {ip}");
        let _ = writeln!(lines, "_25._tcp.{host} IN TLSA {record}");
    }
    let names = zones.zone("signed", Signing::Nsec, &lines).serve();
    let upstream = names.ip;
    let server = Forwarder::start(move |question| {
        (question.kind != Rtype::TLSA).then(|| ask(upstream, question))
    });
    let running = shows(&own).at(ip);
    let begun = Instant::now();
    let report = remote(&place, &names, server.ip).send("many.signed");
    let took = begun.elapsed();
    assert!(
        report.contains("could not be looked up. (#4.7.5)"),
        "{report}"
    );
    assert!(running.seen().is_empty());
    assert!(took < Duration::from_secs(50), "{took:?}");
}

#[test]
fn resolvers_between_change_nothing() {
    need_root!();
    let place = Place::new("dane-resolvers");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let [ip, bare] = [fresh_ip(), fresh_ip()];
    let own = Leaf::new("x").dns("x.example").self_signed();
    let record = format!("3 1 1 {}", key(&own.certificate));
    let lines = [
        domain("good", ip, &record),
        domain("wrong", ip, &format!("3 1 1 {NOBODY}")),
        domain("stripped", bare, &record),
    ]
    .concat();
    let names = zones.zone("signed", Signing::Nsec3("1"), &lines).serve();
    let (Some(checks), Some(passes_on)) = (
        Recursive::start(&place, names.ip, Some(&names.anchors)),
        Recursive::start(&place, names.ip, None),
    ) else {
        skip!("unbound is not installed");
    };
    let _tls = shows(&own).at(ip);
    let clear = Fake::plain().at(bare);
    let here = |server| remote(&place, &names, server);
    let trusted = |server: IpAddr| {
        let place = Place::new("dane-trusted");
        Remote::new(&place).control("dnssectrust", &format!("{server}\n"));
        place
    };
    let trusting = trusted(checks.ip);
    // One whose word counts, and that checks nothing: it proves nothing.
    let unproved = trusted(passes_on.ip);
    for (name, letter, said) in [
        ("good.signed", 'K', " dane 3 1 1)"),
        ("wrong.signed", 'Z', "it matches no TLSA record: 3 1 1 "),
        (
            "stripped.signed",
            'Z',
            "it does not offer STARTTLS; the TLSA",
        ),
    ] {
        for remote in [here(checks.ip), here(passes_on.ip), Remote::new(&trusting)] {
            let report = remote.send(name);
            assert!(report.starts_with(letter), "{name}: {report}");
            assert!(report.contains(said), "{name}: {report}");
        }
    }
    assert!(in_clear(&[&clear]) == 0);
    let report = Remote::new(&unproved).send("wrong.signed");
    assert!(report.contains(" unverified)"), "{report}");
}

#[test]
fn records_count_for_relays_and_ports() {
    need_root!();
    let place = Place::new("dane-routes");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let ip = fresh_ip();
    let own = Leaf::new("x").dns("x.example").self_signed();
    let record = format!("3 1 1 {}", key(&own.certificate));
    let lines = format!(
        "relay IN A {ip}\n_465._tcp.relay IN TLSA {record}\n_25._tcp.relay IN TLSA 3 1 1 {NOBODY}\n\
         _209._tcp.relay IN TLSA {record}\n"
    );
    let names = zones.zone("signed", Signing::Nsec, &lines).serve();
    let tls = shows(&own).at(ip);
    let at_once = shows(&own).at_once().listen((ip, 465).into());
    let send = |file: &str, route: &str, lines: &str| {
        let place = Place::new("dane-routed");
        remote(&place, &names, names.ip)
            .control(file, route)
            .policy(lines)
            .send("far.example")
    };
    for (file, route, lines, said) in [
        ("smtproutes", ":relay.signed:465\n", "", "K dane 3 1 1).\n"),
        (
            "smtproutes",
            ":relay.signed\n",
            "",
            "Zrequire TLS (DANE). (#4.7.5)\n",
        ),
        (
            "smtproutes",
            "far.example:relay.signed:465\n",
            "far.example:dane\n",
            "K dane 3 1 1).\n",
        ),
        (
            "smtproutes",
            &format!(":[{ip}]\n"),
            "far.example:dane\n",
            "Zan address has no TLSA records. (#4.7.5)\n",
        ),
        // An address in brackets has nothing to go by.
        ("smtproutes", &format!(":[{ip}]\n"), "", "K unverified).\n"),
        (
            "qmtproutes",
            ":relay.signed\n",
            "",
            "Z(DANE), which QMTP on port 209 does not have. (#4.7.5)\n",
        ),
    ] {
        let report = send(file, route, lines);
        let (letter, said) = said.split_at(1);
        assert!(report.starts_with(letter), "{route}{lines}: {report}");
        assert!(report.contains(said), "{route}{lines}: {report}");
    }
    assert_eq!(in_clear(&[&tls, &at_once]), 0);
}

#[test]
fn tls_that_fails_is_never_done_without_where_there_are_records() {
    need_root!();
    let place = Place::new("dane-failing");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let own = Leaf::new("x").dns("x.example").self_signed();
    let record = format!("3 1 1 {}", key(&own.certificate));
    let faults = [
        shows(&own).reply("STARTTLS", "454 4.7.0 not now\r\n"),
        shows(&own).reply("STARTTLS", "500 5.5.1 what?\r\n"),
        shows(&own).reply("EHLO", "502 5.5.1 what?\r\n"),
        shows(&own).fault("HANDSHAKE", Fault::Refusal(b"\x15\x03\x03\x00\x02\x02\x28")),
        shows(&own).reply("S: EHLO", "421 4.3.0 later\r\n"),
        Fake::plain().reply("MAIL", "530 5.7.0 Must issue a STARTTLS command first\r\n"),
    ];
    let mut lines = String::new();
    let mut running = Vec::new();
    for (number, fake) in faults.into_iter().enumerate() {
        let ip = fresh_ip();
        lines += &domain(&format!("d{number}"), ip, &record);
        running.push(fake.at(ip));
    }
    let names = zones.zone("signed", Signing::Nsec, &lines).serve();
    for (number, server) in running.iter().enumerate() {
        let report = remote(&place, &names, names.ip).send(&format!("d{number}.signed"));
        assert!(report.starts_with('Z'), "{number}: {report}");
        assert!(report.contains("DANE"), "{number}: {report}");
        assert!(report.contains("(#4.7.5)\n"), "{number}: {report}");
        assert_eq!(in_clear(&[server]), 0, "{number}: {report}");
        assert_eq!(server.messages(), 0, "{number}: {report}");
    }
}

/// What a domain publishes.
pub const STATES: [&str; 6] = ["none", "match", "wrong", "odd", "fail", "bare"];
/// What its server does.
pub const SERVERS: [&str; 4] = ["good", "self", "anon", "clear"];

/// What becomes of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Clear,
    Tls,
    Waits,
}

/// What the page says, told once more: `row` is a line's sign and value.
pub fn fate(row: &str, state: &str, server: &str) -> Fate {
    use Fate::{Clear, Tls, Waits};
    let tls = !matches!(server, "clear" | "anon");
    let sound = server == "good";
    let by_row = match row {
        "!D:" | "!*:" => return Clear,
        "~D:CA" | "=*:CA" | "~*:CA" | "D:CA" | "+*:CA" => {
            if sound {
                Tls
            } else {
                Waits
            }
        }
        "-D:" | "-*:" | "-:" if server == "anon" => Tls,
        "-D:" | "-*:" | "D:" | "+*:" => {
            if tls {
                Tls
            } else {
                Waits
            }
        }
        "" | "*:" | "*:CA" | "-:" => {
            if tls {
                Tls
            } else {
                Clear
            }
        }
        "D:dane" | "+*:dane" => Waits,
        other => panic!("{other}"),
    };
    let weighed = !row.contains('D') || row.ends_with(":dane");
    let required = row.ends_with(":dane");
    match state {
        _ if !weighed => by_row,
        "none" | "bare" => by_row,
        "match" if tls => Tls,
        "odd" if tls && !required => by_row,
        _ => Waits,
    }
}

#[test]
fn nothing_softens_what_is_stronger() {
    need_root!();
    let place = Place::new("dane-all");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let mut sound = Leaf::new("x");
    for state in STATES {
        for zone in ["signed", "bare"] {
            sound = sound.dns(&format!("mx-{state}-good.{zone}"));
        }
    }
    let sound = sound.issue();
    let strange = Leaf::new("x").dns("*.signed").self_signed();
    let mut signed = String::new();
    let mut bare = String::new();
    let mut running = Vec::new();
    for server in SERVERS {
        let ip = fresh_ip();
        let (fake, identity) = match server {
            "good" => (shows(&sound), &sound),
            "self" => (shows(&strange), &strange),
            "anon" => (Fake::tls(anonymous()), &strange),
            _ => (Fake::plain(), &strange),
        };
        running.push(fake.at(ip));
        for state in STATES {
            let record = match state {
                "none" => String::new(),
                "match" => format!("3 1 1 {}", key(&identity.certificate)),
                "odd" => "1 1 1 00".to_owned(),
                _ => format!("3 1 1 {NOBODY}"),
            };
            let name = format!("{state}-{server}");
            let host = format!("mx-{name}");
            let mut lines = format!("{name} IN MX 10 {host}\n{host} IN A {ip}\n");
            if !record.is_empty() {
                let _ = writeln!(lines, "_25._tcp.{host} IN TLSA {record}");
            }
            if state == "bare" {
                bare += &lines;
            } else {
                signed += &lines;
            }
        }
    }
    let names = zones
        .zone("signed", Signing::Nsec, &signed)
        .zone("bare", Signing::None, &bare)
        .serve();
    let upstream = names.ip;
    let server = Forwarder::start(move |question| {
        let fails = question.kind == Rtype::TLSA && question.name.contains("fail-");
        Some(if fails {
            question.failure(Rcode::SERVFAIL)
        } else {
            ask(upstream, question)
        })
    });
    for row in [
        "", "*:", "*:CA", "-:", "=*:CA", "~*:CA", "+*:CA", "+*:", "-*:", "+*:dane", "!*:", "!D:",
        "~D:CA", "D:CA", "D:", "-D:", "D:dane",
    ] {
        for state in STATES {
            for (kind, running) in SERVERS.iter().zip(&running) {
                let zone = if state == "bare" { "bare" } else { "signed" };
                let name = format!("{state}-{kind}.{zone}");
                let line = row.replace('D', &format!("mx-{name}"));
                let before = running.seen().len();
                let report = remote(&place, &names, server.ip)
                    .policy(&format!("{line}\n"))
                    .send(&name);
                let what = format!("{line} {name}: {report}");
                let mut fates = running.seen().split_off(before).into_iter();
                let sent = fates.find_map(|one| {
                    let clear = one.commands.iter().any(|line| line.starts_with("MAIL"));
                    let sent = clear || one.commands.iter().any(|line| line.starts_with("S: MAIL"));
                    sent.then_some(if clear { Fate::Clear } else { Fate::Tls })
                });
                let wanted = fate(row, state, kind);
                assert_eq!(sent.unwrap_or(Fate::Waits), wanted, "{what}");
                let letter = if wanted == Fate::Waits { 'Z' } else { 'K' };
                assert!(report.starts_with(letter), "{what}");
            }
        }
    }
}
