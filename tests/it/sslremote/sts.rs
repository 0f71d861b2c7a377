//! Mail to domains with a policy of MTA-STS: what leaves, and what waits; when a
//! policy is fetched, and what counts while it cannot be.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::dns::{Forwarder, Names, ask};
use super::fake::{Fake, Running};
use super::remote::{MESSAGE, Remote, fresh_ip};
use super::rows::anonymous;
use super::web::{Reply, Web, policy};
use crate::harness::authority::hex;
use crate::harness::process::{eventually, kill_group, run_within};
use crate::harness::{Authority, Identity, Leaf, Place, need, need_root, peer};

fn shows(identity: &Identity) -> Fake {
    Fake::tls(peer::context(identity, |_| ()))
}

/// A home with the directory of policies.
fn remote<'a>(place: &'a Place, names: &Names) -> Remote<'a> {
    fs::create_dir_all(place.path("mta-sts")).unwrap();
    let remote = Remote::new(place).dns(names.ip);
    remote.env("SSL_CERT_FILE", &place.text("root.pem"))
}

/// A domain's record, with this id, its web server and its MX host.
fn lines(domain: &str, id: &str, web: IpAddr, mx: IpAddr) -> String {
    format!(
        "_mta-sts.{domain} IN TXT \"v=STSv1; id={id};\"\nmta-sts.{domain} IN A {web}\n\
         {domain} IN MX 10 mx.{domain}\nmx.{domain} IN A {mx}\n"
    )
}

/// `a.test` with its record, its web server and this MX host.
fn a_domain(place: &Place, server: Fake) -> (Names, Web, Running) {
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let names = Names::serve(place, &lines("a", "1", web_ip, ip));
    (names, Web::start(web_ip, &["a.test"]), server.at(ip))
}

/// What is in the directory of policies.
fn kept(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path("mta-sts")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Mail that came outside TLS.
fn in_clear(server: &Running) -> usize {
    let seen = server.seen().into_iter();
    seen.filter(|one| one.commands.iter().any(|line| line.starts_with("MAIL")))
        .count()
}

/// A certificate for the MX host of a kind.
fn leaf(kind: &str) -> Leaf {
    let host = format!("mx.{kind}.test");
    Leaf::new(&host).dns(&host)
}

#[test]
fn a_policy_decides_by_its_mode_who_gets_the_mail() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-modes");
    // What an MX host is, and why it does not do as the policy says.
    let kinds: Vec<(&str, Fake, &str)> = vec![
        ("good", shows(&leaf("good").issue()), ""),
        (
            "wild",
            shows(&Leaf::new("w").dns("*.wild.test").issue()),
            "",
        ),
        ("stripped", Fake::plain(), "it does not offer STARTTLS"),
        (
            "refused",
            shows(&leaf("refused").issue()).reply("STARTTLS", "454 not now\r\n"),
            "it refused STARTTLS",
        ),
        ("named", shows(&leaf("other").issue()), "hostname mismatch"),
        (
            "strange",
            shows(&leaf("strange").self_signed()),
            "self-signed certificate",
        ),
        (
            "expired",
            shows(&leaf("expired").expired().issue()),
            "certificate has expired",
        ),
        ("anonymous", Fake::tls(anonymous()), "the handshake failed"),
    ];
    let (web_ip, modes) = (fresh_ip(), ["enforce", "testing", "none"]);
    let (mut zone, mut domains, mut servers) = (String::new(), Vec::new(), Vec::new());
    for (kind, fake, why) in kinds {
        let ip = fresh_ip();
        let _ = writeln!(zone, "mx.{kind} IN A {ip}");
        let at = servers.len();
        servers.push(fake.at(ip));
        for mode in modes {
            let _ = writeln!(
                zone,
                "{mode}-{kind} IN MX 10 mx.{kind}\nmta-sts.{mode}-{kind} IN A {web_ip}\n\
                 _mta-sts.{mode}-{kind} IN TXT \"v=STSv1; id=1\""
            );
            domains.push((format!("{mode}-{kind}.test"), mode, kind, at, why));
        }
    }
    let names = Names::serve(&place, &zone);
    let every: Vec<&str> = domains.iter().map(|(domain, ..)| &**domain).collect();
    let web = Web::start(web_ip, &every);
    let remote = remote(&place, &names);
    for (domain, mode, kind, at, why) in &domains {
        let host = format!("mx.{kind}.test");
        web.policy(domain, mode, 86400, &[&host]);
        let server = &servers[*at];
        let (messages, clear) = (server.messages(), in_clear(server));
        let said = remote.send(domain);
        let what = format!("{domain}: {said}");
        let waits = *mode == "enforce" && !why.is_empty();
        assert_eq!(said.starts_with('Z'), waits, "{what}");
        assert_eq!(server.messages(), messages + usize::from(!waits), "{what}");
        if waits {
            let demand = format!("; the MTA-STS policy of {domain} requires TLS. (#4.7.5)\n");
            assert!(said.contains(why) && said.contains(&demand), "{what}");
            assert_eq!(in_clear(server), clear, "{what}");
            continue;
        }
        let verified = format!(" verified {host} sts).\n");
        let testing = said.contains(" (sts: testing: ");
        match (*mode, why.is_empty()) {
            ("none", _) => assert!(!said.contains("sts"), "{what}"),
            (_, true) => assert!(said.contains(&verified) && !testing, "{what}"),
            (_, false) => assert!(testing, "{what}"),
        }
        if testing && *kind == "named" {
            let names = "names another host: depth 0, /CN=mx.other.test: hostname mismatch: \
                         wanted mx.named.test, it names mx.other.test).";
            assert!(said.contains(names), "{what}");
        }
    }
    let requests = web.asked();
    assert_eq!(requests.len(), domains.len(), "{requests:?}");
    let first = "GET /.well-known/mta-sts.txt HTTP/1.1 mta-sts.enforce-good.test";
    assert_eq!(requests[0], first);
    let wanted = Some("mx.good.test".to_owned());
    assert!(servers[0].seen().iter().all(|one| one.wanted == wanted));
}

#[test]
fn hosts_that_the_policy_does_not_list_are_passed_over() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-hosts");
    let [web_ip, bad, good] = [fresh_ip(), fresh_ip(), fresh_ip()];
    let mut zone = String::new();
    let domains = [
        "both", "none", "testing", "aside", "wide", "deep", "address", "bare", "odd",
    ];
    for domain in domains {
        let _ = writeln!(
            zone,
            "_mta-sts.{domain} IN TXT \"v=STSv1; \" \"id=1\"\nmta-sts.{domain} IN A {web_ip}"
        );
    }
    let _ = write!(
        zone,
        "bad.mx IN A {bad}\ngood.mx IN A {good}\ndeep.good.mx IN A {good}\n\
         both IN MX 10 bad.mx\nboth IN MX 20 good.mx\nnone IN MX 10 bad.mx\n\
         testing IN MX 10 bad.mx\naside IN MX 10 good.mx\nwide IN MX 10 good.mx\ndeep IN MX 10 deep.good.mx\n\
         address IN MX 10 {bad}.\nbare IN A {good}\nodd IN MX 10 good.mx\n"
    );
    let names = Names::serve(&place, &zone);
    let web = Web::start(
        web_ip,
        &domains
            .map(|domain| format!("{domain}.test"))
            .each_ref()
            .map(|one| &**one),
    );
    let identity = Leaf::new("mx")
        .dns("good.mx.test")
        .dns("deep.good.mx.test")
        .dns("bare.test")
        .issue();
    let [bad_server, good_server] =
        [(bad, &identity), (good, &identity)].map(|(ip, one)| shows(one).at(ip));
    let remote = remote(&place, &names);
    let barred = |host: &str, domain: &str| {
        format!(
            "Z{host} is not called: the MTA-STS policy of {domain}.test does not list it. (#4.7.5)\n"
        )
    };
    for (domain, mode, patterns, said) in [
        (
            "both",
            "enforce",
            &["good.mx.test"][..],
            " verified good.mx.test sts).\n".to_owned(),
        ),
        (
            "none",
            "enforce",
            &["good.mx.test"],
            barred("bad.mx.test", "none"),
        ),
        (
            "testing",
            "testing",
            &["good.mx.test"],
            "(sts: testing: the MTA-STS policy of testing.test does not list it).\n".to_owned(),
        ),
        // A certificate that the policy would take makes no listed host of it.
        (
            "aside",
            "testing",
            &["bad.mx.test"],
            " unverified) (sts: testing: the MTA-STS policy of aside.test does not list it).\n"
                .to_owned(),
        ),
        (
            "wide",
            "enforce",
            &["*.mx.test"],
            " verified good.mx.test sts).\n".to_owned(),
        ),
        (
            "deep",
            "enforce",
            &["*.mx.test"],
            barred("deep.good.mx.test", "deep"),
        ),
        (
            "address",
            "enforce",
            &["*.mx.test"],
            barred(&bad.to_string(), "address"),
        ),
        (
            "bare",
            "enforce",
            &["bare.test"],
            " verified bare.test sts).\n".to_owned(),
        ),
        (
            "odd",
            "enforce",
            &["g*.mx.test", "good.*.test", ".mx.test", "*"],
            barred("good.mx.test", "odd"),
        ),
    ] {
        let name = format!("{domain}.test");
        web.policy(&name, mode, 86400, patterns);
        let report = remote.send(&name);
        assert!(report.contains(&said), "{domain}: {report}");
    }
    assert_eq!(bad_server.seen().len(), 1, "of the one in mode testing");
    assert_eq!(good_server.messages(), 4);
}

#[test]
fn a_policy_is_fetched_once_and_again_when_its_id_changes_or_it_is_damaged() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-cache");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let zone = |id: &str| lines("a", id, web_ip, ip);
    let (first, second) = (
        Names::serve(&place, &zone("1")),
        Names::serve(&place, &zone("2")),
    );
    let none = format!("a IN MX 10 mx.a\nmx.a IN A {ip}\n");
    let doubled = format!("{}_mta-sts.a IN TXT \"v=STSv1; id=3\"\n", zone("2"));
    let gone = Names::serve(&place, &none);
    let doubled = Names::serve(&place, &doubled);
    let bad = Names::serve(&place, &zone("x-y"));
    let web = Web::start(web_ip, &["a.test"]);
    let server = shows(&leaf("a").issue()).at(ip);
    let enforced = |names: &Names, what: &str| {
        let said = remote(&place, names).send("a.test");
        assert!(said.contains(" verified mx.a.test sts)"), "{what}: {said}");
        assert_eq!(kept(&place), ["a.test"], "{what}");
        web.asked().len()
    };
    web.policy("a.test", "enforce", 86400, &["mx.a.test"]);
    assert_eq!(enforced(&first, "a new one"), 1);
    assert_eq!(enforced(&first, "the same"), 0);
    let before = web.connections();
    for (names, what) in [(&gone, "gone"), (&doubled, "doubled"), (&bad, "wrong")] {
        assert_eq!(enforced(names, what), 0);
    }
    assert_eq!(web.connections(), before, "no connection more");
    assert_eq!(enforced(&second, "another id"), 1);
    assert_eq!(enforced(&second, "that id"), 0);
    // A fetch that fails leaves it in force, and is tried again.
    web.reply("a.test", Reply::whole("500 Broken", "", ""));
    for _ in 0..2 {
        let said = remote(&place, &first).send("a.test");
        let both = said.contains(
            " verified mx.a.test sts) (sts: the policy could not be fetched \
                                  from mta-sts.a.test: its status is 500).",
        );
        assert!(both, "{said}");
        assert_eq!(web.asked().len(), 1);
    }
    web.policy("a.test", "enforce", 86400, &["mx.a.test"]);
    let path = place.path("mta-sts/a.test");
    let whole = fs::read(&path).unwrap();
    for damaged in [
        &b""[..],
        &whole[..whole.len() - 1],
        b"\0\xff",
        &[&whole[..], b"x"].concat(),
    ] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(enforced(&second, "damaged"), 1);
    }
    // Damaged, and not to be had: it is as if there were none, and that is told.
    fs::write(&path, "").unwrap();
    web.reply("a.test", Reply::whole("500 Broken", "", ""));
    let said = remote(&place, &second).send("a.test");
    assert!(
        said.contains(" unverified) (sts: the policy could not be fetched"),
        "{said}"
    );
    assert_eq!(server.messages(), 14);
}

/// Names go to DNS as the bytes that they are; so they do to web servers.
#[test]
fn a_domain_of_unusual_bytes_has_its_policy() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-bytes");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let domains = ["plus+x", "under_score", "o'b"];
    let mut zone = format!("mx IN A {ip}\n");
    for domain in domains {
        let _ = writeln!(
            zone,
            "{domain} IN MX 10 mx\nmta-sts.{domain} IN A {web_ip}\n\
             _mta-sts.{domain} IN TXT \"v=STSv1; id=1\""
        );
    }
    let names = Names::serve(&place, &zone);
    let known = domains.map(|domain| format!("{domain}.test"));
    let web = Web::start(web_ip, &known.each_ref().map(|one| &**one));
    let server = Fake::plain().at(ip);
    for domain in &known {
        web.policy(domain, "enforce", 86400, &["mx.test"]);
        for _ in 0..2 {
            let said = remote(&place, &names).send(domain);
            let demand = format!("the MTA-STS policy of {domain} requires TLS. (#4.7.5)");
            assert!(said.contains(&demand), "{domain}: {said}");
        }
        assert_eq!(web.asked().len(), 1, "{domain}");
    }
    assert_eq!((kept(&place).len(), in_clear(&server)), (3, 0));
}

/// Whoever starts a delivery may have given it an umask, signals that are ignored and
/// limits of his own.
#[test]
fn what_a_delivery_was_started_with_is_no_matter_for_a_policy() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-started");
    let (names, web, _server) = a_domain(&place, shows(&leaf("a").issue()));
    web.policy("a.test", "enforce", 86400, &["mx.a.test"]);
    for (words, stays) in [
        (&["sh", "-c", "umask 077; exec \"$@\"", "sh"][..], true),
        (&["env", "--ignore-signal=CHLD"], true),
        (&["prlimit", "--fsize=0"], false),
    ] {
        let said = remote(&place, &names)
            .through(words.iter().copied())
            .send("a.test");
        assert!(
            said.contains(" verified mx.a.test sts)"),
            "{words:?}: {said}"
        );
        assert_eq!(kept(&place), ["a.test"][..usize::from(stays)], "{words:?}");
        if stays {
            let file = place.path("mta-sts/a.test");
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o644, "{words:?}");
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn what_web_servers_give_in_the_place_of_a_policy() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-web");
    let [good, expired, strange, named, http2, dead, ip] = [(); 7].map(|()| fresh_ip());
    let text = policy("enforce", 86400, &["mx.other.test"]);
    let length = text.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    let raw = |rest: String| Reply::Raw(format!("{head}{rest}").into_bytes());
    let mut chunked = String::new();
    for piece in text.as_bytes().chunks(7) {
        let length = piece.len();
        let _ = write!(
            chunked,
            "{length:x};x=y\r\n{}\r\n",
            String::from_utf8_lossy(piece)
        );
    }
    let chunks = "Transfer-Encoding: chunked\r\n\r\n";
    let moved = "Location: https://mta-sts.whole.test/.well-known/mta-sts.txt\r\n";
    let long = format!("{text}x: {}\n", "y".repeat(70_000));
    // A policy: the mail waits, for it does not list the host.
    let policies: Vec<(&str, Reply)> = vec![
        ("whole", Reply::policy(&text)),
        ("crlf", Reply::policy(&text.replace('\n', "\r\n"))),
        (
            "chunked",
            raw(format!("{chunks}{chunked}0\r\nTrailer: x\r\n\r\n")),
        ),
        ("lengthless", raw(format!("\r\n{text}"))),
        (
            "torn",
            Reply::Torn(format!("{head}\r\n{text}").into_bytes()),
        ),
        (
            "http10",
            Reply::Raw(format!("HTTP/1.0 200 OK\r\n\r\n{text}").into_bytes()),
        ),
        (
            "typed",
            Reply::whole(
                "200 OK",
                "content-type: TEXT/plain;charset=utf-8\r\n",
                &text,
            ),
        ),
        (
            "early",
            Reply::Raw(
                format!("HTTP/1.1 103 x\r\n\r\n{head}Content-Length: {length}\r\n\r\n{text}")
                    .into(),
            ),
        ),
        (
            "future",
            Reply::policy(&format!("{text}future: x\nmx: a.*\nmode: none\n")),
        ),
    ];
    // None: the mail goes, and its report says why.
    let none: Vec<(&str, Reply, &str)> = vec![
        (
            "missing",
            Reply::whole("404 Not Found", "", &text),
            "its status is 404",
        ),
        (
            "empty",
            Reply::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
            "its status is 204",
        ),
        (
            "moved",
            Reply::whole("301 Moved", moved, ""),
            "its status is 301",
        ),
        (
            "found",
            Reply::whole("302 Found", moved, &text),
            "its status is 302",
        ),
        (
            "page",
            Reply::whole("200 OK", "Content-Type: text/html\r\n", &text),
            "its type is not text/plain: text/html",
        ),
        (
            "cut",
            raw(format!("Content-Length: {}\r\n\r\n{text}", length + 1)),
            "its reply was cut",
        ),
        (
            "cutchunk",
            raw(format!("{chunks}{chunked}")),
            "before its reply was whole",
        ),
        (
            "torncut",
            Reply::Torn(format!("{head}\r\n{}", text.trim_end()).into()),
            "the connection ended before the policy",
        ),
        (
            "lengths",
            raw(format!(
                "Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{text}"
            )),
            "the length of its body twice",
        ),
        (
            "both",
            raw(format!(
                "Content-Length: {length}\r\n{chunks}{chunked}0\r\n\r\n"
            )),
            "the length of its body twice",
        ),
        ("long", Reply::policy(&long), "longer than 65536 bytes"),
        (
            "endless",
            Reply::Endless(format!("{head}\r\n{text}").into()),
            "longer than 65536 bytes",
        ),
        (
            "fields",
            Reply::Endless(b"HTTP/1.1 200 OK\r\nX: ".to_vec()),
            "its head is longer than 16384 bytes",
        ),
        (
            "garbage",
            Reply::Raw(b"\x00\x00\x12\x04\x00".to_vec()),
            "it does not speak HTTP/1.1",
        ),
        ("gone", Reply::Raw(Vec::new()), "before its reply was whole"),
        (
            "nothing",
            Reply::policy(""),
            "is no policy: it has no version",
        ),
        (
            "mode",
            Reply::policy(&text.replace("enforce", "strict")),
            "is no policy: its mode is not enforce, testing or none",
        ),
        (
            "nul",
            Reply::policy(&text.replace("enforce", "enforce\0")),
            "is no policy: its line 2 is malformed",
        ),
        (
            "html",
            Reply::policy("<html>\n"),
            "is no policy: its line 1 is malformed",
        ),
        (
            "nomx",
            Reply::policy(&policy("enforce", 1, &[])),
            "is no policy: it has no mx",
        ),
    ];
    let elsewhere = [
        ("expired", expired, "certificate has expired"),
        ("strange", strange, "self-signed certificate"),
        ("named", named, "hostname mismatch: it names web.test"),
        ("http2", http2, "no_application_protocol"),
        ("dead", dead, "connection refused"),
    ];
    let ours: Vec<String> = policies
        .iter()
        .map(|(name, _)| *name)
        .chain(none.iter().map(|(name, ..)| *name))
        .map(|name| format!("{name}.test"))
        .collect();
    let mut zone: String = format!(
        "noaddress IN MX 10 mx.all\n_mta-sts.noaddress IN TXT \"v=STSv1; id=1\"\nmx.all IN A {ip}\n"
    );
    let places = ours
        .iter()
        .map(|name| (name.strip_suffix(".test").unwrap(), good));
    for (name, web) in places.chain(elsewhere.map(|(name, web, _)| (name, web))) {
        let _ = writeln!(
            zone,
            "{name} IN MX 10 mx.all\nmta-sts.{name} IN A {web}\n_mta-sts.{name} IN TXT \"v=STSv1; id=1\""
        );
    }
    let names = Names::serve(&place, &zone);
    let names_of_ours: Vec<&str> = ours.iter().map(|name| &**name).collect();
    let web = Web::start(good, &names_of_ours);
    let host = |name: &str| Leaf::new("web").dns(&format!("mta-sts.{name}.test"));
    let others = [
        Web::with(expired, &host("expired").expired().issue()),
        Web::with(strange, &host("strange").self_signed()),
        Web::with(named, &Leaf::new("web.test").dns("web.test").issue()),
        Web::http2(http2, &host("http2").issue()),
    ];
    let server = Fake::plain().at(ip);
    let remote = remote(&place, &names);
    for (name, reply) in &policies {
        web.reply(&format!("{name}.test"), reply.clone());
        let said = remote.send(&format!("{name}.test"));
        let waits = format!(
            "Zmx.all.test is not called: the MTA-STS policy of {name}.test does not list it."
        );
        assert!(said.starts_with(&waits), "{name}: {said}");
    }
    assert_eq!(
        (kept(&place).len(), server.seen().len()),
        (policies.len(), 0)
    );
    let goes = |name: &str, why: &str| {
        let said = remote.send(&format!("{name}.test"));
        let told = said.contains(" accepted message (no TLS: it was not offered) (sts: ");
        assert!(told && said.contains(why), "{name}: {said}");
        let host = format!("mta-sts.{name}.test");
        assert!(said.contains(&host), "{name}: {said}");
    };
    for (name, reply, why) in &none {
        web.reply(&format!("{name}.test"), reply.clone());
        goes(name, why);
    }
    for (name, _, why) in elsewhere {
        goes(name, why);
    }
    goes("noaddress", "there is no such name");
    assert_eq!(kept(&place).len(), policies.len());
    let asked = web.asked();
    assert_eq!(
        asked.len(),
        policies.len() + none.len(),
        "nothing is followed: {asked:?}"
    );
    assert!(others.iter().all(|web| web.asked().is_empty()));
}

#[test]
fn a_web_server_that_drips_or_is_silent_ends_in_time() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-slow");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let zone = format!(
        "{}{}",
        lines("drip", "1", web_ip, ip),
        lines("mute", "1", web_ip, ip)
    );
    let names = Names::serve(&place, &zone);
    let web = Web::start(web_ip, &["drip.test", "mute.test"]);
    web.reply("drip.test", Reply::Drip(b"HTTP/1.1 200 OK\r\nX: ".to_vec()));
    web.reply("mute.test", Reply::Silence);
    let server = Fake::plain().at(ip);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for name in ["drip.test", "mute.test"] {
            let remote = remote(&place, &names);
            scope.spawn(move || {
                let said = remote.send(name);
                let why = "it was not done within 30 seconds";
                assert!(said.starts_with('K') && said.contains(why), "{said}");
            });
        }
    });
    assert!(
        begin.elapsed() < Duration::from_secs(45),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(server.messages(), 2);
    assert!(kept(&place).is_empty());
}

#[test]
fn seconds_of_age_count_and_a_clock_that_was_set_back_does_no_harm() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-age");
    let (names, web, server) = a_domain(&place, Fake::plain());
    let send = || remote(&place, &names).send("a.test");
    let text = |age| Reply::policy(&policy("enforce", age, &["mx.a.test"]));
    web.reply("a.test", text(2));
    assert!(send().starts_with('Z'));
    let fetched = Instant::now();
    web.reply("a.test", Reply::whole("500 Broken", "", ""));
    eventually("the policy expires", || {
        let said = send();
        let in_time = fetched.elapsed() > Duration::from_millis(900);
        assert!(said.starts_with('Z') || in_time, "{said}");
        said.contains("(sts: the policy could not be fetched")
            .then_some(())
    });
    assert_eq!(in_clear(&server), 1);
    // Fetched a day from now, as a clock says that is a day late since.
    web.asked();
    web.reply("a.test", text(86400));
    assert!(send().starts_with('Z'));
    let file = place.path("mta-sts/a.test");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let later = now + 86_400;
    fs::write(&file, with_time(&fs::read(&file).unwrap(), later)).unwrap();
    web.reply("a.test", Reply::whole("500 Broken", "", ""));
    web.asked();
    assert!(send().starts_with('Z'), "it counts");
    assert_eq!(web.asked().len(), 1, "and a new one is asked for");
    web.reply("a.test", text(86400));
    assert!(send().starts_with('Z'));
    assert!(send().starts_with('Z'));
    assert_eq!(web.asked().len(), 1);
}

/// The file of a policy, fetched at another time.
fn with_time(file: &[u8], time: u64) -> Vec<u8> {
    let text = String::from_utf8(file.to_vec()).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    let (id, rest) = rest.split_once('\n').unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let rest = format!("{id}\nfetched: {time}\n{rest}");
    let digest = openssl::hash::hash(openssl::hash::MessageDigest::sha256(), rest.as_bytes());
    format!("ucspi-tls mta-sts 1 {}\n{rest}", hex(&digest.unwrap())).into_bytes()
}

#[test]
fn a_directory_that_cannot_be_written_keeps_its_policies_in_force() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-readonly");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let zone = |id| {
        format!(
            "{}{}",
            lines("a", id, web_ip, ip),
            lines("b", id, web_ip, ip)
        )
    };
    let (names, changed) = (
        Names::serve(&place, &zone("1")),
        Names::serve(&place, &zone("2")),
    );
    let web = Web::start(web_ip, &["a.test", "b.test"]);
    for (domain, host) in [("a.test", "mx.a.test"), ("b.test", "mx.b.test")] {
        web.policy(domain, "enforce", 86400, &[host]);
    }
    let server = Fake::plain().at(ip);
    // The user that delivers, who may read the home and no more.
    let user = 4321;
    let send = |names: &Names, domain: &str| {
        let remote = remote(&place, names);
        let mut command = remote.command(&[domain, "a@sender.example", "b@x.example"]);
        command.uid(user).gid(user);
        let ended = run_within(&mut command, MESSAGE.as_bytes(), Duration::from_secs(60));
        String::from_utf8(ended.stdout).unwrap()
    };
    let folder = place.path("mta-sts");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(user), Some(user)).unwrap();
    assert!(send(&names, "a.test").starts_with('Z'));
    assert_eq!(
        (kept(&place), web.asked().len()),
        (vec!["a.test".to_owned()], 1)
    );
    // Owned by another, who lets it be read.
    chown(&folder, Some(0), Some(0)).unwrap();
    for names in [&names, &changed] {
        assert!(
            send(names, "a.test").starts_with('Z'),
            "it is still in force"
        );
    }
    let said = send(&names, "b.test");
    let why = "(no TLS: it was not offered) (sts: the directory mta-sts cannot be written: permission denied)";
    assert!(said.contains(why), "{said}");
    assert!(web.asked().is_empty());
    // A file that somebody else put there says nothing.
    chown(&folder, Some(user), Some(user)).unwrap();
    let file = place.path("mta-sts/a.test");
    chown(&file, Some(user + 1), None).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    web.policy("a.test", "none", 86400, &[]);
    assert!(send(&names, "a.test").contains('K'));
    assert_eq!(web.asked().len(), 1);
    assert_eq!(in_clear(&server), 2);
}

#[test]
fn a_full_directory_loses_no_policy_that_was_fetched() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-full");
    let (names, web, server) = a_domain(&place, shows(&leaf("a").issue()));
    web.policy("a.test", "enforce", 86400, &["mx.a.test"]);
    let remote = remote(&place, &names);
    // No file can grow: as on a file system without room.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" a.test a@sender.example b@a.test";
    let command = remote.command(&[]);
    let program = command.get_program();
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", script]).arg(program).env_clear();
    limited.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let ended = run_within(&mut limited, MESSAGE.as_bytes(), Duration::from_secs(60));
    let said = String::from_utf8(ended.stdout).unwrap();
    let kept_not = " verified mx.a.test sts) (sts: the policy of a.test cannot be kept in mta-sts: file too large).";
    assert!(said.contains(kept_not), "{said}");
    assert!(kept(&place).is_empty(), "{:?}", kept(&place));
    assert_eq!(server.messages(), 1);
}

#[test]
fn what_fetches_a_policy_can_do_nothing_else() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-sandbox");
    let (names, web, server) = a_domain(&place, shows(&leaf("a").issue()));
    web.policy("a.test", "enforce", 86400, &["mx.a.test"]);
    for what in ["open", "socket", "execve", "kill", "ptrace"] {
        let deed = format!("fetch-{what}");
        let said = remote(&place, &names).taken_over(&deed).send("a.test");
        let ended = " unverified) (sts: the policy could not be fetched from mta-sts.a.test: the \
                     process that fetches ended: signal: 31 (SIGSYS)";
        assert!(said.contains(ended), "{what}: {said}");
    }
    assert!(web.asked().is_empty() && kept(&place).is_empty());
    // Another port than 443 is a matter of Landlock, which gives an error.
    let said = remote(&place, &names)
        .taken_over("fetch-connect")
        .send("a.test");
    assert!(said.contains(" verified mx.a.test sts)."), "{said}");
    assert_eq!(server.messages(), 6);
}

#[test]
fn what_it_answers_is_read_as_a_web_server_s() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-forged");
    let (names, _web, _server) = a_domain(&place, Fake::plain());
    let failed = "the policy could not be fetched from mta-sts.a.test: ";
    for (answer, said) in [
        (
            "",
            format!("{failed}the process that fetches gave no answer"),
        ),
        (
            "X",
            format!("{failed}the process that fetches gave no answer"),
        ),
        ("Fno\x1b[2J", format!("{failed}no\\x1B[2J)")),
        ("Cbad", format!("{failed}bad)")),
        (
            "P",
            "what mta-sts.a.test has is no policy: it has no version)".to_owned(),
        ),
        (
            "Pversion: STSv1",
            "what mta-sts.a.test has is no policy: it has no mode)".to_owned(),
        ),
    ] {
        let deed = format!("fetch-say-{answer}");
        let report = remote(&place, &names).taken_over(&deed).send("a.test");
        assert!(
            report.contains(&format!("(sts: {said}")),
            "{answer}: {report}"
        );
    }
    let long = format!("fetch-say-P{}", "x".repeat(70_000));
    let report = remote(&place, &names).taken_over(&long).send("a.test");
    assert!(
        report.contains(&format!("(sts: {failed}the process that fetches failed")),
        "{report}"
    );
    assert!(kept(&place).is_empty());
}

#[test]
fn lines_and_routes_stand_above_a_policy() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-above");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let zone = format!(
        "{}{}relay.a IN A {ip}\n",
        lines("a", "1", web_ip, ip),
        lines("mx.a", "1", web_ip, ip)
    );
    let names = Names::serve(&place, &zone);
    let web = Web::start(web_ip, &["a.test", "mx.a.test"]);
    web.policy("a.test", "enforce", 86400, &["mx.a.test"]);
    web.policy("mx.a.test", "enforce", 86400, &["other.test"]);
    let server = shows(&leaf("strange").self_signed()).at(ip);
    let send = |lines: &str, routes: &str| {
        remote(&place, &names)
            .policy(lines)
            .control("smtproutes", routes)
            .send("a.test")
    };
    let enforced = "; the MTA-STS policy of a.test requires TLS. (#4.7.5)";
    for (lines, goes) in [
        ("!a.test:\n", " accepted message (no TLS)."),
        ("!*:\n", " accepted message (no TLS)."),
        ("-a.test:\n", " unverified)."),
        ("mx.a.test:\n", " unverified)."),
        (".test:\n", " unverified)."),
        (
            "=a.test:CA\n",
            "; tlsdestinations line 1 requires TLS. (#4.7.5)",
        ),
        ("a.test:dane\n", "tlsdestinations line 1 requires DANE"),
        ("*:\n", enforced),
        ("-:\n", enforced),
        ("*:CA\n", enforced),
        ("-*:\n", enforced),
        ("+*:\n", enforced),
        ("~*:\n", enforced),
        ("=*:CA\n", enforced),
        ("", enforced),
    ] {
        let said = send(lines, "");
        assert!(said.contains(goes), "{lines}{said}");
    }
    // A route has the relay's policy, if any; an address has none.
    for (route, said) in [
        ("a.test:relay.a.test\n".to_owned(), " unverified)."),
        (format!("a.test:[{ip}]\n"), " unverified)."),
        (
            "a.test:mx.a.test\n".to_owned(),
            "Zmx.a.test is not called: the MTA-STS policy of mx.a.test does not list it.",
        ),
    ] {
        let report = send("", &route);
        assert!(report.contains(said), "{route}{report}");
    }
    assert_eq!(server.messages(), 7);
    // Where a line is above it, none is fetched.
    assert_eq!(web.asked().len(), 2);
}

#[test]
fn row_7_stays_what_it_is_under_a_policy() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-row7");
    let [web_ip, wild, exact] = [fresh_ip(), fresh_ip(), fresh_ip()];
    let zone = format!(
        "{}{}",
        lines("wild", "1", web_ip, wild),
        lines("exact", "1", web_ip, exact)
    );
    let names = Names::serve(&place, &zone);
    let web = Web::start(web_ip, &["wild.test", "exact.test"]);
    let private = Authority::root("private");
    place.write("private.pem", private.pem());
    for domain in ["wild", "exact"] {
        let text = policy("enforce", 86400, &[&format!("mx.{domain}.test")]);
        web.reply(&format!("{domain}.test"), Reply::policy(&text));
    }
    let _servers = [
        shows(&Leaf::new("wild").dns("*.wild.test").issue()).at(wild),
        shows(&leaf("exact").issue()).at(exact),
    ];
    let own = place.text("private.pem");
    for (line, domain, goes) in [
        ("~*:\n".to_owned(), "wild", true),
        ("=*:\n".to_owned(), "wild", false),
        ("=*:\n".to_owned(), "exact", true),
        ("+*:\n".to_owned(), "wild", true),
        // A CA of its own is the one that counts; under row 8 it keeps nothing back.
        (format!("~*:{own}\n"), "exact", false),
        (format!("*:{own}\n"), "exact", true),
        // Names of its own come on top.
        ("~*:||||other.test\n".to_owned(), "exact", false),
        ("~*:||||mx.exact.test\n".to_owned(), "exact", true),
    ] {
        let said = remote(&place, &names)
            .policy(&line)
            .send(&format!("{domain}.test"));
        let verified = said.contains(&format!(" verified mx.{domain}.test sts)."));
        assert_eq!(
            (verified, said.starts_with('Z')),
            (goes, !goes),
            "{line}{said}"
        );
    }
}

#[test]
fn the_preview_shows_the_policy_its_age_and_what_it_asks() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-preview");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let mut zone = "plain IN MX 10 mx.a\ndouble IN MX 10 mx.a\n\
         _mta-sts.double IN TXT \"v=STSv1; id=1\"\n_mta-sts.double IN TXT \"v=STSv1; id=2\"\n"
        .to_owned();
    for domain in ["a", "t", "n", "e", "u"] {
        zone += &lines(domain, "1", web_ip, ip);
    }
    let names = Names::serve(&place, &zone);
    let domains = ["a.test", "t.test", "n.test", "e.test", "u.test"];
    let web = Web::start(web_ip, &domains);
    web.policy("a.test", "enforce", 86400, &["mx.a.test", "*.b.test"]);
    web.policy("t.test", "testing", 3600, &["other.test"]);
    web.policy("n.test", "none", 3600, &[]);
    web.policy("u.test", "enforce", 3600, &["other.test"]);
    let server = Fake::plain().at(ip);
    let told = |lines: &str, domain: &str| {
        let remote = remote(&place, &names).policy(lines);
        let ended = run_within(
            &mut remote.command(&["-P", domain]),
            b"",
            Duration::from_secs(60),
        );
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        ended.text()
    };
    for (lines, domain, said) in [
        (
            "",
            "a.test",
            "a.test: MTA-STS policy of a.test: enforce, mx mx.a.test *.b.test; 0 s old, of 86400 s\n",
        ),
        (
            "",
            "a.test",
            "a.test: mx.a.test: a delivery now requires TLS and a certificate that verifies and \
             names the host: the MTA-STS policy of a.test requires TLS\n",
        ),
        (
            "a.test:\n",
            "a.test",
            "mx.a.test: line 1 stands above MTA-STS: the policy does not count\n",
        ),
        (
            "",
            "t.test",
            "t.test: MTA-STS policy of t.test: testing, mx other.test; ",
        ),
        (
            "",
            "t.test",
            "mx.t.test: the MTA-STS policy of t.test does not list it\n",
        ),
        (
            "",
            "t.test",
            "mx.t.test: a delivery now uses TLS if it is offered, and else goes without\n",
        ),
        ("", "n.test", "n.test: MTA-STS policy of n.test: none; "),
        (
            "",
            "u.test",
            "u.test: mx.u.test is not called: the MTA-STS policy of u.test does not list it. (#4.7.5)\n",
        ),
        (
            "",
            "e.test",
            "e.test: MTA-STS: the policy could not be fetched from mta-sts.e.test: its status is 404\n",
        ),
        ("", "plain.test", "plain.test: no MTA-STS policy\n"),
        (
            "",
            "double.test",
            "double.test: MTA-STS: _mta-sts.double.test counts for nothing: there are 2 TXT records of MTA-STS\n",
        ),
    ] {
        let text = told(lines, domain);
        assert!(text.contains(said), "{lines}{domain}: {text}");
    }
    assert!(server.seen().is_empty(), "no mail server is called");
    assert_eq!(kept(&place), ["a.test", "n.test", "t.test", "u.test"]);
}

#[test]
fn a_domain_without_a_policy_costs_one_question_more() {
    need_root!();
    need!("nsd");
    let place = Place::new("sts-questions");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let zone = format!("{}b IN MX 10 mx.a\n", lines("a", "1", web_ip, ip));
    let names = Names::serve(&place, &zone);
    let web = Web::start(web_ip, &["a.test"]);
    web.policy("a.test", "enforce", 86400, &["mx.a.test"]);
    let _server = shows(&leaf("a").issue()).at(ip);
    let server = names.ip;
    let forwarder = Forwarder::start(move |question| Some(ask(server, question)));
    let send = |domain: &str, on: bool| {
        fs::create_dir_all(place.path("mta-sts")).unwrap();
        let remote = remote(&place, &names).dns(forwarder.ip);
        if !on {
            fs::remove_dir_all(place.path("mta-sts")).unwrap();
        }
        let said = remote.send(domain);
        assert!(said.starts_with('K'), "{said}");
        let mut asked = forwarder.take();
        asked.sort();
        asked
    };
    let (off, on) = (send("b.test", false), send("b.test", true));
    let more: Vec<&String> = on.iter().filter(|one| !off.contains(one)).collect();
    assert_eq!(
        (more, on.len()),
        (vec![&"_mta-sts.b.test. TXT".to_owned()], off.len() + 1)
    );
    send("a.test", true);
    let (before, asked) = (web.connections(), send("a.test", true));
    assert_eq!((web.connections(), asked.len()), (before, on.len()));
}

/// Nginx on port 443 of an address; ends with its value.
struct Nginx(Child);

impl Nginx {
    fn start(place: &Place, binary: &Path, ip: IpAddr, domain: &str, text: &str) -> Nginx {
        let identity = Leaf::new("nginx").dns(&format!("*.{domain}")).issue();
        let (certificate, key) = place.identity("nginx", &identity);
        fs::create_dir_all(place.path("html/.well-known")).unwrap();
        place.write("html/.well-known/mta-sts.txt", text);
        let home = place.text("");
        let config = place.write(
            "nginx.conf",
            format!(
                "daemon off;\nmaster_process off;\npid {home}/nginx.pid;\nerror_log {home}/nginx.log;\n\
                 events {{}}\nhttp {{\n access_log {home}/access.log;\n types {{ text/plain txt; }}\n \
                 client_body_temp_path {home}/t1;\n proxy_temp_path {home}/t2;\n \
                 fastcgi_temp_path {home}/t3;\n uwsgi_temp_path {home}/t4;\n scgi_temp_path {home}/t5;\n \
                 server {{\n  listen {ip}:443 ssl http2;\n  server_name mta-sts.{domain};\n  \
                 ssl_certificate {certificate};\n  ssl_certificate_key {key};\n  root {home}/html;\n }}\n}}\n"
            ),
        );
        let child = Command::new(binary)
            .args(["-c", &config, "-e", &place.text("nginx.log")])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let nginx = Nginx(child);
        eventually("nginx listens", || TcpStream::connect((ip, 443)).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        kill_group(self.0.id());
        let _ = self.0.wait();
    }
}

#[test]
fn nginx_gives_a_policy_and_the_stripping_proxy_loses() {
    need_root!();
    need!("nsd");
    let binary = need!("nginx");
    let place = Place::new("sts-nginx");
    let [web_ip, ip] = [fresh_ip(), fresh_ip()];
    let zone = lines("a", "20261126T000000", web_ip, ip);
    let names = Names::serve(&place, &zone);
    let text = policy("enforce", 604_800, &["mx.a.test"]).replace('\n', "\r\n");
    let _nginx = Nginx::start(&place, &binary, web_ip, "a.test", &text);
    // What stands on the way to the real one, and takes STARTTLS out of its reply.
    let proxy = Fake::plain().at(ip);
    for _ in 0..2 {
        let said = remote(&place, &names).send("a.test");
        let stripped = "(mx.a.test) but it does not offer STARTTLS; the MTA-STS policy of a.test \
                        requires TLS. (#4.7.5)\n";
        assert!(said.starts_with('Z') && said.contains(stripped), "{said}");
    }
    assert_eq!((proxy.seen().len(), in_clear(&proxy)), (2, 0));
    let log = String::from_utf8(place.read("access.log")).unwrap();
    let request = "\"GET /.well-known/mta-sts.txt HTTP/1.1\" 200 ";
    assert_eq!(
        (log.lines().count(), log.contains(request)),
        (1, true),
        "{log}"
    );
    // The same without the directory: mail leaves in plaintext.
    fs::remove_dir_all(place.path("mta-sts")).unwrap();
    let plain = Remote::new(&place).dns(names.ip).send("a.test");
    assert!(plain.contains("(no TLS: it was not offered).\n"), "{plain}");
}
