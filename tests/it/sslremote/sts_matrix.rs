//! Lines of tlsdestinations, TLSA records, policies of MTA-STS and what servers do,
//! each with each: none softens what is stronger.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::thread;

use domain::base::Rtype;
use domain::base::iana::Rcode;

use super::dane_delivery::{Fate, NOBODY, SERVERS, STATES, fate, key};
use super::dns::{Forwarder, Signing, Zones, ask};
use super::fake::{Fake, Running};
use super::remote::{Remote, fresh_ip};
use super::rows::anonymous;
use super::web::{Reply, Web, policy};
use crate::harness::{Leaf, Place, need_root, peer, skip};

/// Lines; `D` is the MX host.
const ROWS: [&str; 9] = [
    "", "*:CA", "-:", "=*:CA", "+*:", "-*:", "!D:", "D:", "+*:dane",
];
/// What is to be had at a domain's web server.
const POLICIES: [&str; 5] = ["broken", "none", "testing", "unlisted", "enforce"];

/// The table of qmail-sslremote(8), told once more.
fn wanted(row: &str, state: &str, server: &str, policy: &str) -> Fate {
    let without = fate(row, state, server);
    let above =
        row.contains('D') || row.ends_with(":dane") || matches!(state, "match" | "wrong" | "fail");
    match policy {
        "enforce" if !above && server == "good" => Fate::Tls,
        "enforce" | "unlisted" if !above => Fate::Waits,
        _ => without,
    }
}

fn zone_of(state: &str) -> &'static str {
    if state == "bare" { "bare" } else { "signed" }
}

/// What the one server that is called saw since.
fn seen(running: &Running, before: usize) -> Fate {
    let mut sessions = running.seen().split_off(before).into_iter();
    let sent = sessions.find_map(|one| {
        let clear = one.commands.iter().any(|line| line.starts_with("MAIL"));
        let sent = clear || one.commands.iter().any(|line| line.starts_with("S: MAIL"));
        sent.then_some(if clear { Fate::Clear } else { Fate::Tls })
    });
    sent.unwrap_or(Fate::Waits)
}

#[test]
fn no_line_no_record_and_no_policy_softens_another() {
    need_root!();
    let place = Place::new("sts-all");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let mut sound = Leaf::new("x");
    for state in STATES {
        sound = sound.dns(&format!("mx-{state}-good.{}", zone_of(state)));
    }
    let sound = sound.issue();
    let strange = Leaf::new("x").dns("*.signed").self_signed();
    let (mut signed, mut bare) = (String::new(), String::new());
    let (mut web_leaf, web_ip) = (Leaf::new("web"), fresh_ip());
    for state in STATES {
        let lines = if state == "bare" {
            &mut bare
        } else {
            &mut signed
        };
        for server in SERVERS {
            let identity = if server == "good" { &sound } else { &strange };
            let host = format!("mx-{state}-{server}");
            let record = match state {
                "none" => String::new(),
                "match" => format!("3 1 1 {}", key(&identity.certificate)),
                "odd" => "1 1 1 00".to_owned(),
                _ => format!("3 1 1 {NOBODY}"),
            };
            if !record.is_empty() {
                let _ = writeln!(lines, "_25._tcp.{host} IN TLSA {record}");
            }
            for policy in POLICIES {
                let name = format!("{policy}-{state}-{server}");
                web_leaf = web_leaf.dns(&format!("mta-sts.{name}.{}", zone_of(state)));
                let _ = writeln!(
                    lines,
                    "{name} IN MX 10 {host}\nmta-sts.{name} IN A {web_ip}\n\
                     _mta-sts.{name} IN TXT \"v=STSv1; id=1;\""
                );
            }
        }
    }
    let running = SERVERS.map(|server| {
        let fake = match server {
            "good" => Fake::tls(peer::context(&sound, |_| ())),
            "self" => Fake::tls(peer::context(&strange, |_| ())),
            "anon" => Fake::tls(anonymous()),
            _ => Fake::plain(),
        };
        let ip = fresh_ip();
        for state in STATES {
            let lines = if state == "bare" {
                &mut bare
            } else {
                &mut signed
            };
            let _ = writeln!(lines, "mx-{state}-{server} IN A {ip}");
        }
        fake.at(ip)
    });
    let names = zones
        .zone("signed", Signing::Nsec, &signed)
        .zone("bare", Signing::None, &bare)
        .serve();
    let upstream = names.ip;
    let forwarder = Forwarder::start(move |question| {
        let fails = question.kind == Rtype::TLSA && question.name.contains("-fail-");
        Some(if fails {
            question.failure(Rcode::SERVFAIL)
        } else {
            ask(upstream, question)
        })
    });
    let web = Web::with(web_ip, &web_leaf.issue());
    for state in STATES {
        for server in SERVERS {
            let zone = zone_of(state);
            let host = format!("mx-{state}-{server}.{zone}");
            for kind in POLICIES {
                let reply = match kind {
                    "broken" => continue,
                    "unlisted" => policy("enforce", 86400, &["other.signed"]),
                    mode => policy(mode, 86400, &[&host]),
                };
                let domain = format!("{kind}-{state}-{server}.{zone}");
                web.reply(&domain, Reply::policy(&reply));
            }
        }
    }
    fs::create_dir(place.path("policies")).unwrap();
    // A home for each server, so that they may be tried side by side.
    let (policies, anchors, resolver) = (place.path("policies"), &names.anchors, forwarder.ip);
    thread::scope(|scope| {
        for (server, running) in SERVERS.iter().zip(&running) {
            let policies = &policies;
            scope.spawn(move || {
                let place = Place::new("sts-one");
                symlink(policies, place.path("mta-sts")).unwrap();
                for_each(|row, state, kind| {
                    let zone = zone_of(state);
                    let name = format!("{kind}-{state}-{server}.{zone}");
                    let line = row.replace('D', &format!("mx-{state}-{server}.{zone}"));
                    let before = running.seen().len();
                    let report = Remote::new(&place)
                        .dns(resolver)
                        .control("dnssecanchors", anchors)
                        .env("SSL_CERT_FILE", &place.text("root.pem"))
                        .env("SSL_CERT_DIR", "/nowhere")
                        .policy(&format!("{line}\n"))
                        .send(&name);
                    let what = format!("{line} {name}: {report}");
                    let wanted = wanted(row, state, server, kind);
                    assert_eq!(seen(running, before), wanted, "{what}");
                    let letter = if wanted == Fate::Waits { 'Z' } else { 'K' };
                    assert!(report.starts_with(letter), "{what}");
                });
            });
        }
    });
}

fn for_each(mut check: impl FnMut(&str, &str, &str)) {
    for row in ROWS {
        for state in STATES {
            for kind in POLICIES {
                check(row, state, kind);
            }
        }
    }
}
