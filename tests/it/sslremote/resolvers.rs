//! Which DNS servers are asked, and what their word counts.
#![forbid(unsafe_code)]

use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use ucspi_tls::internals::dns::{Dns, NoAnswer, Trust};
use ucspi_tls::internals::name::DomainName;

use super::dns::{Forwarder, Names, Recursive, Signing, Zones, ask};
use super::fake::Fake;
use super::packet::Packet;
use super::remote::{MESSAGE, Remote, fresh_ip};
use crate::harness::process::run_within;
use crate::harness::{Place, need, need_root, skip};
use domain::base::Rtype;
use domain::base::iana::Rcode;

fn name(text: &str) -> DomainName {
    DomainName::parse(text.as_bytes()).unwrap()
}

fn exchangers(dns: &Dns, domain: &str) -> Result<bool, NoAnswer> {
    dns.exchangers(&name(domain)).map(|answer| answer.secure)
}

/// A signed zone, one that is not, and one whose signatures are old.
fn world(place: &Place, lines: &str) -> Option<Names> {
    let zones = Zones::new(place)?
        .zone("signed", Signing::Nsec, lines)
        .zone("plain", Signing::None, lines)
        .zone("expired", Signing::Expired, lines);
    Some(zones.serve())
}

#[test]
fn a_trusted_resolver_s_word_counts() {
    need_root!();
    let place = Place::new("dns-trust");
    let lines = "d IN MX 10 mx\nmx IN A 127.0.0.1\nalias IN CNAME d\naway IN CNAME d.plain.\n";
    let Some(names) = world(&place, lines) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let Some(checking) = Recursive::start(&place, names.ip, Some(&names.anchors)) else {
        skip!("unbound is not installed");
    };
    let careless = Recursive::start(&place, names.ip, None).unwrap();
    let resolver = |server: &Recursive| {
        place.write("dnssectrust", format!("# ours\n{}\n", server.ip));
        let trust = Trust::read(&place.path("")).unwrap();
        // The root's real keys are of no use in this world: it is the resolver
        // that checks. Nobody asks the other server.
        Dns::new(&["127.0.0.2".parse().unwrap()], trust).unwrap()
    };
    let dns = resolver(&checking);
    for domain in ["d.signed", "alias.signed"] {
        assert_eq!(exchangers(&dns, domain), Ok(true), "{domain}");
    }
    for domain in ["d.plain", "away.signed"] {
        assert_eq!(exchangers(&dns, domain), Ok(false), "{domain}");
    }
    assert_eq!(exchangers(&dns, "nx.signed"), Err(NoAnswer::NoSuchName));
    assert_eq!(exchangers(&dns, "mx.signed"), Err(NoAnswer::NoRecords));
    let failed = exchangers(&dns, "d.expired");
    let servfail = |why: &str| why.contains("SERVFAIL");
    assert!(
        matches!(&failed, Err(NoAnswer::Temporary(why)) if servfail(why)),
        "{failed:?}"
    );
    // What it does not vouch for is not secure.
    let dns = resolver(&careless);
    for domain in ["d.signed", "d.plain", "d.expired"] {
        assert_eq!(exchangers(&dns, domain), Ok(false), "{domain}");
    }
    place.write("dnssecinsecure", "signed\n");
    let dns = resolver(&checking);
    assert_eq!(exchangers(&dns, "d.signed"), Ok(false));
}

#[test]
fn only_a_resolver_of_this_host_is_trusted() {
    let place = Place::new("dns-trust-words");
    for (file, text, why) in [
        (
            "dnssectrust",
            "192.0.2.1\n",
            "192.0.2.1 is not on this host",
        ),
        ("dnssectrust", "here\n", "\"here\" is not an IP address"),
        ("dnssec", "requires\n", "\"requires\" is not \"require\""),
    ] {
        let remote = Remote::new(&place).dns(fresh_ip()).control(file, text);
        let said = remote.send("d.signed");
        let start = format!("ZUnable to read control files. (#4.3.0)\nReason: {file}: {why}");
        assert!(said.starts_with(&start), "{said}");
        remote.control(file, "");
    }
}

/// A program without shared libraries has no validator: what is signed is to it as
/// what is not, and what it cannot do is not asked of it in vain.
#[cfg(not(validator))]
#[test]
fn without_a_validator_signed_domains_get_their_mail() {
    need_root!();
    let place = Place::new("dns-no-validator");
    let ip = fresh_ip();
    let Some(names) = world(&place, &format!("d IN MX 10 mx\nmx IN A {ip}\n")) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let _server = Fake::plain().at(ip);
    for domain in ["d.signed", "d.plain", "d.expired"] {
        let said = Remote::new(&place).dns(names.ip).send(domain);
        assert!(said.starts_with('K'), "{domain}: {said}");
    }
    let strict = Remote::new(&place)
        .dns(names.ip)
        .control("dnssec", "require\n");
    let said = strict.send("d.plain");
    assert!(
        said.contains("nothing can be validated: this program was built without"),
        "{said}"
    );
    let anchored = strict
        .control("dnssecanchors", &names.anchors)
        .control("dnssec", "");
    let said = anchored.send("d.plain");
    let start =
        "ZUnable to read control files. (#4.3.0)\nReason: dnssecanchors: this program was built";
    assert!(said.starts_with(start), "{said}");
}

#[cfg(validator)]
#[test]
fn mail_waits_where_dnssec_is_required_and_cannot_be_had() {
    need_root!();
    let place = Place::new("dns-require");
    let ip = fresh_ip();
    let Some(names) = world(&place, &format!("d IN MX 10 mx\nmx IN A {ip}\n")) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let server = Fake::plain().at(ip);
    let real = names.ip;
    let old = Forwarder::start(move |question| {
        let mut question = question.clone();
        question.edns = None;
        Some(ask(real, &question))
    });
    let remote = |server| {
        Remote::new(&place)
            .dns(server)
            .control("dnssecanchors", &names.anchors)
            .control("dnssec", "require\n")
    };
    for domain in ["d.signed", "d.plain"] {
        assert!(remote(real).send(domain).starts_with('K'), "{domain}");
        let said = remote(old.ip).send(domain);
        let start = format!(
            "ZDNS lookup of {domain} failed temporarily. (#4.4.3)\nReason: control/dnssec requires \
             DNSSEC, and nothing can be validated: {} returned no signature of the root's keys",
            old.ip
        );
        assert!(said.starts_with(&start), "{said}");
        assert!(
            remote(old.ip)
                .control("dnssec", "")
                .send(domain)
                .starts_with('K')
        );
    }
    assert_eq!(server.messages(), 4);
    let off = remote(real).control("dnssecanchors", "");
    let said = off.send("d.plain");
    let want = "nothing can be validated: dnssecanchors is empty";
    assert!(said.starts_with("ZDNS ") && said.contains(want), "{said}");
}

#[cfg(validator)]
#[test]
fn silent_servers_are_passed_over() {
    need_root!();
    let place = Place::new("dns-silent");
    let ip = fresh_ip();
    let Some(names) = world(&place, &format!("d IN MX 10 mx\nmx IN A {ip}\n")) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let server = Fake::plain().at(ip);
    let real = names.ip;
    // It takes questions, and says nothing; at the other address nobody listens.
    let silent = Forwarder::start(|_| None);
    let closed = fresh_ip();
    let broken = Forwarder::start(|question| Some(question.failure(Rcode::SERVFAIL)));
    let remote = |list: String| {
        Remote::new(&place)
            .control("dnssecanchors", &names.anchors)
            .env("DNSCACHEIP", &list)
    };
    for list in [
        format!("{} {real}", silent.ip),
        format!("{}.{real}", silent.ip),
        format!("{closed} {} {real}", silent.ip),
        format!("{} {real}", broken.ip),
    ] {
        let said = remote(list.clone()).send("d.signed");
        assert!(said.starts_with('K'), "{list}: {said}");
    }
    assert_eq!(server.messages(), 4);
    let said = remote(silent.ip.to_string()).send("d.signed");
    let want = format!("no answer from {} within ", silent.ip);
    assert!(said.starts_with("ZDNS ") && said.contains(&want), "{said}");
    let said = remote(closed.to_string()).send("d.signed");
    let want = format!("{closed}: connection refused");
    assert!(said.starts_with("ZDNS ") && said.contains(&want), "{said}");
    let said = remote("192.0.2.1.9".to_owned()).send("d.signed");
    assert!(said.contains("DNSCACHEIP is not an IP address"), "{said}");
}

/// A server, or a firewall before it, may swallow one kind of question and answer all
/// others: what was not answered is missing, and nothing else.
#[cfg(validator)]
#[test]
fn a_question_without_an_answer_costs_no_other() {
    need_root!();
    let place = Place::new("dns-swallows");
    let [ip, first] = [fresh_ip(), fresh_ip()];
    let lines = format!(
        "d IN MX 10 mx\ntwo IN MX 10 one\ntwo IN MX 20 mx\nmx IN A {ip}\none IN A {first}\n"
    );
    let Some(names) = world(&place, &lines) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let server = Fake::plain().at(ip);
    let real = names.ip;
    let cases = [
        ("d", Rtype::TXT, "_mta-sts."),
        ("d", Rtype::AAAA, ""),
        ("two", Rtype::A, "one."),
    ];
    let zones = ["signed", "plain"];
    let cases = cases.map(|(name, kind, begins)| zones.map(|zone| (name, zone, kind, begins)));
    let cases = cases.concat();
    thread::scope(|scope| {
        for &(name, zone, kind, begins) in &cases {
            let anchors = &names.anchors;
            scope.spawn(move || {
                let swallowing = Forwarder::start(move |question| {
                    let lost = question.kind == kind && question.name.starts_with(begins);
                    (!lost).then(|| ask(real, question))
                });
                let home = Place::new("dns-swallows-home");
                std::fs::create_dir(home.path("mta-sts")).unwrap();
                let remote = Remote::new(&home)
                    .dns(swallowing.ip)
                    .control("dnssecanchors", anchors);
                let said = remote.send(&format!("{name}.{zone}"));
                let asked = swallowing.take();
                assert!(
                    said.starts_with('K'),
                    "{name}.{zone} {kind}: {said} {asked:?}"
                );
                assert!(asked.iter().any(|one| one.ends_with(&format!(" {kind}"))));
            });
        }
    });
    assert_eq!(server.messages(), cases.len());
}

#[cfg(validator)]
#[test]
fn what_one_server_leaves_without_an_answer_another_is_asked() {
    need_root!();
    let place = Place::new("dns-second");
    let ip = fresh_ip();
    let Some(names) = world(&place, &format!("d IN MX 10 mx\nmx IN A {ip}\n")) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let server = Fake::plain().at(ip);
    let real = names.ip;
    let kinds = [Rtype::MX, Rtype::A, Rtype::TXT];
    thread::scope(|scope| {
        for kind in kinds {
            let anchors = &names.anchors;
            scope.spawn(move || {
                let first = Forwarder::start(move |question| {
                    (question.kind != kind).then(|| ask(real, question))
                });
                let second = Forwarder::start(move |question| Some(ask(real, question)));
                let home = Place::new("dns-second-home");
                std::fs::create_dir(home.path("mta-sts")).unwrap();
                let remote = Remote::new(&home)
                    .env("DNSCACHEIP", &format!("{} {}", first.ip, second.ip))
                    .control("dnssecanchors", anchors);
                let said = remote.send("d.signed");
                let asked = second.take();
                assert!(said.starts_with('K'), "{kind}: {said} {asked:?}");
                let wanted = format!(" {kind}");
                assert!(asked.iter().any(|one| one.ends_with(&wanted)), "{asked:?}");
            });
        }
    });
    assert_eq!(server.messages(), kinds.len());
}

#[cfg(validator)]
#[test]
fn without_a_thread_for_the_check_mail_waits_and_nothing_hangs() {
    need_root!();
    let (prlimit, setpriv) = (need!("prlimit"), need!("setpriv"));
    let place = Place::new("dns-thread");
    let ip = fresh_ip();
    let Some(names) = world(&place, &format!("d IN MX 10 mx\nmx IN A {ip}\n")) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let _server = Fake::plain().at(ip);
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("dnssecanchors", &names.anchors);
    // Nobody else is this user, so that its threads can be counted: root's are not.
    let deliver = |most: &str| {
        let plain = remote.command(&["d.signed", "a@b.example", "c@d.signed"]);
        let mut command = Command::new(&prlimit);
        command
            .arg(most)
            .arg(&setpriv)
            .args(["--reuid=64123", "--regid=64123", "--clear-groups"])
            .arg(plain.get_program())
            .args(plain.get_args())
            .env_clear();
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let ended = run_within(&mut command, MESSAGE.as_bytes(), Duration::from_secs(120));
        String::from_utf8_lossy(&ended.stdout).into_owned()
    };
    let said = deliver("--nproc=2");
    assert!(said.contains('K'), "{said}");
    let said = deliver("--nproc=1");
    assert!(
        said.starts_with("ZDNS ") && said.contains("unable to start libunbound: "),
        "{said}"
    );
}

#[test]
fn what_is_no_answer_to_the_question_is_not_taken() {
    need_root!();
    let place = Place::new("dns-strangers");
    let Some(names) = world(&place, "d IN MX 10 mx\nevil IN MX 10 evil\n") else {
        skip!("nsd or ldnsutils is not installed");
    };
    let real = names.ip;
    place.write("dnssecanchors", "");
    let trust = Trust::read(&place.path("")).unwrap();
    let other = move |question: &Packet| {
        let mut asked = question.clone();
        asked.name = "evil.plain.".to_owned();
        ask(real, &asked)
    };
    // The answer to another question; and one whose record belongs to another name.
    let renamed = Forwarder::start(move |question| Some(other(question)));
    let slipped = Forwarder::start(move |question| {
        let mut reply = other(question);
        reply.name.clone_from(&question.name);
        Some(reply)
    });
    let dns = Dns::new(&[renamed.ip, real], trust.clone()).unwrap();
    let found = dns.exchangers(&name("d.plain")).unwrap();
    assert_eq!(found.records, [(10, name("mx.plain"))]);
    let dns = Dns::new(&[slipped.ip], trust).unwrap();
    assert_eq!(exchangers(&dns, "d.plain"), Err(NoAnswer::NoRecords));
}

#[cfg(validator)]
#[test]
fn an_answer_too_long_for_udp_comes_by_tcp() {
    need_root!();
    let place = Place::new("dns-tcp");
    let hosts =
        (0..80).map(|number| format!("many IN MX 10 a-rather-long-name-of-a-host-{number}\n"));
    let hosts = hosts.collect::<Vec<_>>().concat();
    let Some(names) = world(&place, &hosts) else {
        skip!("nsd or ldnsutils is not installed");
    };
    for anchors in ["", names.anchors.as_str()] {
        place.write("dnssecanchors", anchors);
        let trust = Trust::read(&place.path("")).unwrap();
        let dns = Dns::new(&[names.ip], trust).unwrap();
        let found = dns.exchangers(&name("many.signed")).unwrap();
        assert_eq!(
            (found.records.len(), found.secure),
            (80, !anchors.is_empty())
        );
    }
    // The server's UDP answers are short indeed.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let question = Packet::question("many.signed.", Rtype::MX);
    socket.send_to(&question.to_vec(), (names.ip, 53)).unwrap();
    let mut bytes = vec![0; 65535];
    let count = socket.recv(&mut bytes).unwrap();
    assert!(count <= 4096 && bytes[2] & 2 != 0, "{count} bytes, not cut");
}
