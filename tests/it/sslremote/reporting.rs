//! What is kept of each session for TLS reports: its policy, and one word for what it
//! failed of.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use serde_json::Value;

use super::dane_delivery::{NOBODY, domain, key, remote, shows};
use super::dns::{Forwarder, Names, Signing, Zones, ask};
use super::fake::{Fake, Fault};
use super::remote::{MESSAGE, Remote, fresh_ip};
use super::web::{Reply, Web, policy};
use crate::harness::{Authority, Leaf, Place, need, need_root, peer, skip};
use domain::base::Rtype;
use domain::base::iana::Rcode;

/// The lines of all days' files so far.
pub fn lines(place: &Place) -> Vec<Value> {
    let folder = fs::read_dir(place.path("tlsrpt")).unwrap();
    let mut names: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let text: String = names
        .iter()
        .map(|name| fs::read_to_string(name).unwrap())
        .collect();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Policy, host and result of each line since the last time.
fn told(place: &Place) -> Vec<String> {
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    let told = lines(place).into_iter().map(|line| {
        ["policy-type", "receiving-mx-hostname", "result-type"]
            .map(|key| word(&line, key))
            .join(" ")
    });
    let told = told.collect();
    for entry in fs::read_dir(place.path("tlsrpt")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    told
}

fn keeps_sessions(place: &Place) {
    fs::create_dir_all(place.path("tlsrpt")).unwrap();
}

#[test]
fn each_session_has_one_line_with_at_most_one_word() {
    need_root!();
    let place = Place::new("reporting-words");
    keeps_sessions(&place);
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let [ip, bare, refusing, late, chain, old, many] = [(); 7].map(|()| fresh_ip());
    let own = Leaf::new("own").dns("x.example").self_signed();
    let root = Authority::root("Reported Root");
    let mut lower = Leaf::new("x").dns("ta.signed").issue_by(&root);
    lower.between = vec![root.certificate.clone()];
    let mut expired = Leaf::new("x")
        .dns("mx.old.signed")
        .expired()
        .issue_by(&root);
    expired.between = vec![root.certificate.clone()];
    let good = format!("3 1 1 {}", key(&own.certificate));
    let anchor = format!("2 1 1 {}", key(&root.certificate));
    let wrong = format!("3 1 1 {NOBODY}");
    let zone = [
        domain("good", ip, &good),
        domain("wrong", ip, &wrong),
        domain("odd", ip, "0 0 1 00"),
        domain("oddbare", bare, "0 0 1 00"),
        domain("stripped", bare, &good),
        domain("none", bare, ""),
        domain("refused", refusing, ""),
        domain("refusedfor", refusing, &good),
        domain("lateness", late, &good),
        domain("ta", chain, &anchor),
        domain("tawrong", chain, &anchor),
        domain("tanone", ip, &anchor),
        domain("old", old, &anchor),
        "two IN MX 10 mx.wrong\ntwo IN MX 20 mx.good\n".to_owned(),
        format!("many IN MX 10 mx.many\nmx.many IN A {many}\nmx.many IN A {bare}\n"),
    ]
    .concat();
    let names = zones.zone("signed", Signing::Nsec, &zone).serve();
    let _servers = [
        shows(&own).at(ip),
        Fake::plain().at(bare),
        shows(&own)
            .reply("STARTTLS", "454 4.7.0 no\r\n")
            .at(refusing),
        shows(&own).reply("S: EHLO", "550 no\r\n").at(late),
        shows(&lower).at(chain),
        shows(&expired).at(old),
        Fake::plain().at(many),
    ];
    let success = |name: &str| format!("tlsa mx.{name}.signed -");
    let failure = |name: &str, word: &str| format!("tlsa mx.{name}.signed {word}");
    let none = |name: &str, word: &str| format!("no-policy-found mx.{name}.signed {word}");
    for (policy, name, letter, wanted) in [
        ("", "good", 'K', vec![success("good")]),
        (
            "",
            "wrong",
            'Z',
            vec![failure("wrong", "validation-failure")],
        ),
        ("", "odd", 'K', vec![failure("odd", "tlsa-invalid")]),
        // The server's own failure says more than the domain's.
        (
            "",
            "oddbare",
            'Z',
            vec![failure("oddbare", "starttls-not-supported")],
        ),
        (
            "",
            "stripped",
            'Z',
            vec![failure("stripped", "starttls-not-supported")],
        ),
        (
            "",
            "none",
            'K',
            vec![none("none", "starttls-not-supported")],
        ),
        (
            "",
            "refused",
            'K',
            vec![none("refused", "starttls-not-supported")],
        ),
        // The same where TLS is required.
        (
            "",
            "refusedfor",
            'Z',
            vec![failure("refusedfor", "starttls-not-supported")],
        ),
        (
            "",
            "lateness",
            'Z',
            vec![failure("lateness", "validation-failure")],
        ),
        ("", "ta", 'K', vec![success("ta")]),
        (
            "",
            "tawrong",
            'Z',
            vec![failure("tawrong", "certificate-host-mismatch")],
        ),
        (
            "",
            "tanone",
            'Z',
            vec![failure("tanone", "validation-failure")],
        ),
        ("", "old", 'Z', vec![failure("old", "certificate-expired")]),
        (
            "",
            "two",
            'K',
            vec![failure("wrong", "validation-failure"), success("good")],
        ),
        (
            "none.signed:dane\n",
            "none",
            'Z',
            vec![failure("none", "dane-required")],
        ),
        (
            "odd.signed:dane\n",
            "odd",
            'Z',
            vec![failure("odd", "tlsa-invalid")],
        ),
        // One host is passed over once, however many addresses it has.
        (
            "many.signed:dane\n",
            "many",
            'Z',
            vec![failure("many", "dane-required")],
        ),
        // The postmaster's own lines stand above DANE.
        ("wrong.signed:\n", "wrong", 'K', vec![none("wrong", "-")]),
        (
            "good.signed:CA\n",
            "good",
            'Z',
            vec![none("good", "certificate-not-trusted")],
        ),
        (
            "~ta.signed:dane\n",
            "tawrong",
            'Z',
            vec![failure("tawrong", "certificate-host-mismatch")],
        ),
        // By our own choice there is no TLS: nothing to tell of.
        ("!good.signed:\n", "good", 'K', vec![]),
        // A wrong line of ours is nothing to tell of, either.
        ("=good.signed:/nowhere\n", "good", 'Z', vec![]),
    ] {
        let report = remote(&place, &names, names.ip)
            .policy(policy)
            .send(&format!("{name}.signed"));
        assert!(report.starts_with(letter), "{policy}{name}: {report}");
        assert_eq!(told(&place), wanted, "{policy}{name}: {report}");
    }
}

#[test]
fn a_server_whose_records_cannot_be_told_has_a_line() {
    need_root!();
    let place = Place::new("reporting-dnssec");
    keeps_sessions(&place);
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let ip = fresh_ip();
    let own = Leaf::new("x").dns("x.example").self_signed();
    let record = format!("3 1 1 {}", key(&own.certificate));
    let names = zones
        .zone("signed", Signing::Nsec, &domain("a", ip, &record))
        .serve();
    let _server = shows(&own).at(ip);
    let upstream = names.ip;
    for about in ["SERVFAIL", "unsigned", "altered"] {
        let server = Forwarder::start(move |question| {
            let mut found = ask(upstream, question);
            match (question.kind, about) {
                (Rtype::TLSA, "SERVFAIL") => return Some(question.failure(Rcode::SERVFAIL)),
                (Rtype::TLSA, "unsigned") => found.answers.truncate(1),
                (Rtype::TLSA, _) => found.answers[0].data[7] ^= 1,
                _ => {}
            }
            Some(found)
        });
        let report = remote(&place, &names, server.ip).send("a.signed");
        assert!(
            report.starts_with("Zmx.a.signed is not called"),
            "{about}: {report}"
        );
        assert_eq!(told(&place), ["tlsa mx.a.signed dnssec-invalid"], "{about}");
    }
}

#[test]
fn what_a_policy_of_mta_sts_asks_for_has_its_words() {
    need_root!();
    need!("nsd");
    let place = Place::new("reporting-sts");
    keeps_sessions(&place);
    fs::create_dir_all(place.path("mta-sts")).unwrap();
    let leaf = |name: &str| Leaf::new("x").dns(&format!("mx.{name}.test"));
    let servers = [
        ("good", shows(&leaf("good").issue())),
        ("old", shows(&leaf("old").expired().issue())),
        ("named", shows(&leaf("other").issue())),
        ("strange", shows(&leaf("strange").self_signed())),
        ("bare", Fake::plain()),
    ];
    let web_ip = fresh_ip();
    let (mut zone, mut running) = (String::new(), Vec::new());
    for (name, server) in servers {
        let ip = fresh_ip();
        let _ = writeln!(zone, "mx.{name} IN A {ip}");
        running.push(server.at(ip));
    }
    // A domain's name: the mode, a hyphen, the server.
    let cases = [
        ("enforce-good", "sts -", 'K'),
        ("enforce-old", "sts certificate-expired", 'Z'),
        ("enforce-named", "sts certificate-host-mismatch", 'Z'),
        ("enforce-strange", "sts certificate-not-trusted", 'Z'),
        ("enforce-bare", "sts starttls-not-supported", 'Z'),
        ("testing-good", "sts -", 'K'),
        ("testing-old", "sts certificate-expired", 'K'),
        ("testing-named", "sts certificate-host-mismatch", 'K'),
        ("testing-strange", "sts certificate-not-trusted", 'K'),
        ("testing-bare", "sts starttls-not-supported", 'K'),
        ("none-old", "no-policy-found -", 'K'),
        // No policy can be had, and the mail goes as if there were none.
        ("absent-good", "no-policy-found sts-policy-fetch-error", 'K'),
        ("junk-good", "no-policy-found sts-policy-invalid", 'K'),
        ("stranger-good", "no-policy-found sts-webpki-invalid", 'K'),
        ("absent-bare", "no-policy-found starttls-not-supported", 'K'),
        // It does not list the host.
        ("enforce-good-elsewhere", "sts validation-failure", 'Z'),
        ("testing-good-elsewhere", "sts validation-failure", 'K'),
    ];
    for (name, ..) in cases {
        let server = name.split('-').nth(1).unwrap();
        let _ = writeln!(
            zone,
            "{name} IN MX 10 mx.{server}\n_mta-sts.{name} IN TXT \"v=STSv1; id=1\"\n\
             mta-sts.{name} IN A {web_ip}"
        );
    }
    let names = Names::serve(&place, &zone);
    let domains: Vec<String> = cases.map(|(name, ..)| format!("{name}.test")).to_vec();
    let known = domains.iter().map(|domain| &**domain);
    let known: Vec<&str> = known.filter(|one| !one.starts_with("stranger")).collect();
    let web = Web::start(web_ip, &known);
    for (domain, (name, wanted, letter)) in domains.iter().zip(cases) {
        let mut words = name.split('-');
        let (mode, server) = (words.next().unwrap(), words.next().unwrap());
        let host = match words.next() {
            Some(_) => "mx.elsewhere.test".to_owned(),
            None => format!("mx.{server}.test"),
        };
        web.reply(
            domain,
            match mode {
                "absent" => Reply::whole("404 Not Found", "", ""),
                "junk" => Reply::policy("nothing\n"),
                "stranger" => Reply::policy(&policy("enforce", 86400, &[&host])),
                mode => Reply::policy(&policy(mode, 86400, &[&host])),
            },
        );
        let sent = Remote::new(&place)
            .dns(names.ip)
            .env("SSL_CERT_FILE", &place.text("root.pem"))
            .send(domain);
        assert!(sent.starts_with(letter), "{domain}: {sent}");
        if wanted == "sts -" {
            let all = lines(&place);
            assert_eq!(all[0]["mx-host"], serde_json::json!([host]), "{domain}");
            let text = policy(mode, 86400, &[&host]);
            let text: Vec<&str> = text.lines().collect();
            assert_eq!(all[0]["policy-string"], serde_json::json!(text), "{domain}");
        }
        let (kind, word) = wanted.split_once(' ').unwrap();
        let wanted = format!("{kind} mx.{server}.test {word}");
        assert_eq!(told(&place), [wanted], "{domain}: {sent}");
    }
}

/// TLSA records of no use leave the certificate and the host to the policy; what its
/// mode `testing` is for is told besides.
#[test]
fn records_of_no_use_and_a_policy_have_their_words_apart() {
    need_root!();
    let place = Place::new("reporting-both");
    keeps_sessions(&place);
    fs::create_dir_all(place.path("mta-sts")).unwrap();
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let [web_ip, good, named, bare] = [(); 4].map(|()| fresh_ip());
    let tlsa = "tlsa tlsa-invalid";
    let mismatch = "sts certificate-host-mismatch";
    let cases = [
        ("testing-good", 'K', vec![tlsa]),
        ("testing-named", 'K', vec![tlsa, mismatch]),
        (
            "testing-good-elsewhere",
            'K',
            vec![tlsa, "sts validation-failure"],
        ),
        ("testing-bare", 'Z', vec!["tlsa starttls-not-supported"]),
        ("enforce-good", 'K', vec![tlsa]),
        ("enforce-named", 'Z', vec![mismatch]),
        (
            "enforce-good-elsewhere",
            'Z',
            vec!["sts validation-failure"],
        ),
        ("enforce-bare", 'Z', vec!["tlsa starttls-not-supported"]),
        ("none-named", 'K', vec![tlsa]),
    ];
    let mut zone = format!("mx.good IN A {good}\nmx.named IN A {named}\nmx.bare IN A {bare}\n");
    for server in ["good", "named", "bare"] {
        let _ = writeln!(zone, "_25._tcp.mx.{server} IN TLSA 0 0 1 00");
    }
    for (name, ..) in &cases {
        let server = name.split('-').nth(1).unwrap();
        let _ = writeln!(
            zone,
            "{name} IN MX 10 mx.{server}\n_mta-sts.{name} IN TXT \"v=STSv1; id=1\"\n\
             mta-sts.{name} IN A {web_ip}"
        );
    }
    let names = zones.zone("signed", Signing::Nsec, &zone).serve();
    let _servers = [
        shows(&Leaf::new("x").dns("mx.good.signed").issue()).at(good),
        shows(&Leaf::new("x").dns("mx.other.signed").issue()).at(named),
        Fake::plain().at(bare),
    ];
    let domains: Vec<String> = cases
        .iter()
        .map(|(name, ..)| format!("{name}.signed"))
        .collect();
    let known: Vec<&str> = domains.iter().map(|domain| &**domain).collect();
    let web = Web::start(web_ip, &known);
    for (domain, (name, letter, wanted)) in domains.iter().zip(cases) {
        let mut words = name.split('-');
        let (mode, server) = (words.next().unwrap(), words.next().unwrap());
        let host = format!("mx.{}.signed", words.next().unwrap_or(server));
        web.policy(domain, mode, 86400, &[&host]);
        let sent = remote(&place, &names, names.ip)
            .env("SSL_CERT_FILE", &place.text("root.pem"))
            .send(domain);
        assert!(sent.starts_with(letter), "{domain}: {sent}");
        for line in lines(&place) {
            let has_policy = line["mx-host"] == serde_json::json!([host]);
            assert_eq!(has_policy, line["policy-type"] == "sts", "{line}");
        }
        let wanted = wanted.iter().map(|words| {
            let (kind, word) = words.split_once(' ').unwrap();
            format!("{kind} mx.{server}.signed {word}")
        });
        let wanted: Vec<String> = wanted.collect();
        assert_eq!(told(&place), wanted, "{domain}: {sent}");
    }
}

/// A domain `a.test` at an address, in an unsigned zone.
fn plain_domain(place: &Place, ip: IpAddr) -> Names {
    Names::serve(place, &format!("a IN MX 10 mx.a\nmx.a IN A {ip}\n"))
}

#[test]
fn without_the_domain_s_policy_there_are_lines_too() {
    need_root!();
    need!("nsd");
    let place = Place::new("reporting-none");
    keeps_sessions(&place);
    let shown = Leaf::new("x").dns("x.example").issue();
    for (about, server, letter, wanted) in [
        (
            "TLS",
            shows(&shown),
            'K',
            &["no-policy-found mx.a.test -"][..],
        ),
        (
            "a handshake that fails, and the mail again without",
            Fake::tls(peer::context(&shown, |_| ())).fault("HANDSHAKE", Fault::Refusal(b"x")),
            'K',
            &["no-policy-found mx.a.test validation-failure"],
        ),
        (
            "a refusal after TLS is none of TLS",
            shows(&shown).reply("S: RCPT", "550 no\r\n"),
            'D',
            &["no-policy-found mx.a.test -"],
        ),
        (
            "an end in the middle of the message is none of TLS",
            shows(&shown).reply("S: DATA", ""),
            'Z',
            &["no-policy-found mx.a.test -"],
        ),
        (
            "no greeting",
            shows(&shown).greeting("554 no\r\n"),
            'Z',
            &[],
        ),
        (
            "no STARTTLS, and a refusal",
            Fake::plain().reply("RCPT", "550 no\r\n"),
            'D',
            &["no-policy-found mx.a.test starttls-not-supported"],
        ),
    ] {
        let ip = fresh_ip();
        let names = plain_domain(&place, ip);
        let _server = server.at(ip);
        let report = Remote::new(&place).dns(names.ip).send("a.test");
        assert!(report.starts_with(letter), "{about}: {report}");
        assert_eq!(told(&place), wanted, "{about}: {report}");
    }
    // Nobody is there.
    let names = plain_domain(&place, fresh_ip());
    let report = Remote::new(&place).dns(names.ip).send("a.test");
    assert!(report.starts_with('Z'), "{report}");
    assert!(told(&place).is_empty());
}

#[test]
fn a_line_says_who_when_and_under_which_policy() {
    need_root!();
    let place = Place::new("reporting-line");
    keeps_sessions(&place);
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let ip = fresh_ip();
    let own = Leaf::new("own").dns("x.example").self_signed();
    let records = format!("3 1 1 {NOBODY}\n_25._tcp.mx.a IN TLSA 9 1 1 00ff");
    let names = zones
        .zone("signed", Signing::Nsec, &domain("a", ip, &records))
        .serve();
    let _server = shows(&own).at(ip);
    let day = || {
        let today = std::process::Command::new("date")
            .args(["-u", "+%F"])
            .output();
        String::from_utf8(today.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    let before = day();
    let sent = remote(&place, &names, names.ip).send("A.Signed.");
    assert!(sent.starts_with('Z'), "{sent}");
    let [line] = &lines(&place)[..] else {
        panic!("{:?}", lines(&place));
    };
    let mut keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "failure-reason-code",
            "policy-domain",
            "policy-string",
            "policy-type",
            "receiving-ip",
            "receiving-mx-hostname",
            "result-type",
            "sending-mta-ip",
            "time",
        ]
    );
    let strings: Vec<&str> = line["policy-string"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    let mut wanted = [format!("3 1 1 {NOBODY}"), "9 1 1 00ff".to_owned()];
    wanted.sort();
    let mut sorted = strings.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, wanted);
    assert_eq!(line["policy-domain"], "a.signed");
    assert_eq!(line["receiving-ip"], ip.to_string().as_str());
    assert!(
        line["sending-mta-ip"]
            .as_str()
            .unwrap()
            .parse::<IpAddr>()
            .is_ok()
    );
    let reason = line["failure-reason-code"].as_str().unwrap();
    assert!(
        reason.contains("it matches no TLSA record: 3 1 1 00112233"),
        "{reason}"
    );
    // The file is the day's, and the time is of that day.
    let days = [before, day()];
    let name = fs::read_dir(place.path("tlsrpt"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let name = name.file_name().into_string().unwrap();
    assert!(
        days.iter().any(|day| name == format!("{day}.sessions")),
        "{name}"
    );
    let time = line["time"].as_str().unwrap();
    assert!(
        days.iter().any(|day| time.starts_with(day.as_str())),
        "{time}"
    );
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
}

#[test]
fn with_a_route_the_relay_s_name_is_the_domain() {
    need_root!();
    need!("nsd");
    let place = Place::new("reporting-route");
    keeps_sessions(&place);
    let ip = fresh_ip();
    let names = plain_domain(&place, ip);
    let _server = shows(&Leaf::new("x").dns("x").issue()).at(ip);
    for (route, domain) in [
        ("b.test:mx.a.test\n".to_owned(), Some("mx.a.test")),
        // Nobody publishes anything for an address.
        (format!("b.test:[{ip}]\n"), None),
    ] {
        let sent = Remote::new(&place)
            .dns(names.ip)
            .control("smtproutes", &route)
            .send("b.test");
        assert!(sent.starts_with('K'), "{sent}");
        let all = lines(&place);
        let domains: Vec<_> = all
            .iter()
            .map(|line| line["policy-domain"].as_str())
            .collect();
        assert_eq!(
            domains,
            domain.map(Some).into_iter().collect::<Vec<_>>(),
            "{route}"
        );
        told(&place);
    }
}

#[test]
fn trouble_with_the_file_never_hurts_the_mail() {
    need_root!();
    need!("nsd");
    let place = Place::new("reporting-trouble");
    let ip = fresh_ip();
    let names = plain_domain(&place, ip);
    let _server = shows(&Leaf::new("x").dns("x").issue()).at(ip);
    let send = || Remote::new(&place).dns(names.ip).send("a.test");
    let usual = send();
    assert!(usual.starts_with('K'), "{usual}");
    assert!(!place.path("tlsrpt").exists());
    // A file in the folder's place.
    place.write("tlsrpt", "");
    assert_eq!(send(), usual);
    fs::remove_file(place.path("tlsrpt")).unwrap();
    keeps_sessions(&place);
    assert_eq!(send(), usual);
    let [name] = &fs::read_dir(place.path("tlsrpt"))
        .unwrap()
        .map(|one| one.unwrap())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one file");
    };
    let file = name.path();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    // At the limit on its size.
    let limited = Remote::new(&place).dns(names.ip);
    let limited = limited.through(["prlimit", "--fsize=0"]);
    assert_eq!(limited.send("a.test"), usual);
    // What is no file: nobody waits for a reader of a pipe.
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(send(), usual);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    assert_eq!(send(), usual);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(send(), usual);
    fs::remove_dir(&file).unwrap();
    fs::set_permissions(place.path("tlsrpt"), fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(send(), usual);
}

#[test]
fn a_file_may_have_grown_long() {
    need_root!();
    need!("nsd");
    let place = Place::new("reporting-long");
    keeps_sessions(&place);
    let ip = fresh_ip();
    let names = plain_domain(&place, ip);
    let _server = shows(&Leaf::new("x").dns("x").issue()).at(ip);
    // The day may end between two.
    for _ in 0..2 {
        for _ in 0..3 {
            let sent = Remote::new(&place).dns(names.ip).send("a.test");
            assert!(sent.starts_with('K'), "{sent}");
        }
    }
    assert_eq!(lines(&place).len(), 6);
}

/// A message that is a TLS report by its header.
const REPORT: &str = "Content-Type: multipart/report; report-type=tlsrpt; boundary=x\n\n--x--\n";

#[test]
fn a_report_goes_whatever_tls_is_wanted_and_is_not_told_of() {
    need_root!();
    let place = Place::new("reporting-reports");
    keeps_sessions(&place);
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let [ip, bare, web_ip] = [fresh_ip(), fresh_ip(), fresh_ip()];
    let own = Leaf::new("own").dns("x.example").self_signed();
    let wrong = format!("3 1 1 {NOBODY}");
    let zone = [
        domain("wrong", ip, &wrong),
        domain("bare", bare, &wrong),
        domain("sts", bare, ""),
        format!("_mta-sts.sts IN TXT \"v=STSv1; id=1\"\nmta-sts.sts IN A {web_ip}\n"),
    ]
    .concat();
    let names = zones.zone("signed", Signing::Nsec, &zone).serve();
    let _servers = [shows(&own).at(ip), Fake::plain().at(bare)];
    let web = Web::start(web_ip, &["sts.signed"]);
    let listed = policy("enforce", 86400, &["mx.sts.signed"]);
    web.reply("sts.signed", Reply::policy(&listed));
    let from = "reports@me.example";
    let send = |remote: Remote<'_>, name: &str, sender: &str, message: &str| {
        let host = format!("{name}.signed");
        let words = [host.as_str(), sender, "r@x.example"];
        let parts = remote.parts(&words, message.as_bytes());
        parts.last().unwrap().clone()
    };
    let reporter = || {
        remote(&place, &names, names.ip)
            .env("SSL_CERT_FILE", &place.text("root.pem"))
            .control("tlsreportfrom", &format!("{from}\n"))
    };
    // Whatever lines say, and even where the file cannot be read.
    for (name, policy, words) in [
        ("wrong", "", " unverified)"),
        ("wrong", "=wrong.signed:CA\n+*:dane\n", " unverified)"),
        ("bare", "bare.signed:dane\n", "(no TLS: it was not offered)"),
        ("bare", ":empty\n", "(no TLS: it was not offered)"),
        ("wrong", "!*:\n", " unverified)"),
    ] {
        let sent = send(reporter().policy(policy), name, from, REPORT);
        assert!(
            sent.starts_with('K') && sent.contains(words),
            "{policy}{name}: {sent}"
        );
    }
    let sent = send(reporter().policy(""), "wrong", &from.to_uppercase(), REPORT);
    assert!(sent.starts_with('K'), "{sent}");
    assert!(told(&place).is_empty());
    // Nobody asks for a policy, and one that is there does not count.
    fs::create_dir_all(place.path("mta-sts")).unwrap();
    let sent = send(reporter().policy(""), "sts", from, REPORT);
    assert!(sent.contains("(no TLS: it was not offered).\n"), "{sent}");
    assert!(web.asked().is_empty());
    assert!(told(&place).is_empty());
    let sent = send(reporter().policy(""), "sts", "a@me.example", REPORT);
    assert!(sent.contains("MTA-STS policy of sts.signed"), "{sent}");
    assert_eq!(web.asked().len(), 1);
    let wanted = ["sts mx.sts.signed starttls-not-supported"];
    assert_eq!(told(&place), wanted);
    let sent = send(reporter().policy(""), "sts", from, REPORT);
    assert!(sent.starts_with('K'), "{sent}");
    // Whoever is not the reporter, and whatever is not a report, is mail.
    let other = "Content-Type: multipart/report; report-type=delivery-status\n\n";
    for (remote, sender, message) in [
        (reporter(), "a@me.example", REPORT),
        (reporter(), "", REPORT),
        (reporter(), from, MESSAGE),
        (reporter(), from, other),
        (reporter().control("tlsreportfrom", ""), "", REPORT),
    ] {
        let sent = send(remote.policy(""), "wrong", sender, message);
        assert!(sent.starts_with('Z'), "{sender} {message}: {sent}");
    }
    fs::remove_file(place.path("control/tlsreportfrom")).unwrap();
    let sent = send(
        remote(&place, &names, names.ip).policy(""),
        "wrong",
        from,
        REPORT,
    );
    assert!(sent.starts_with('Z'), "{sent}");
    assert_eq!(told(&place).len(), 6);
}
