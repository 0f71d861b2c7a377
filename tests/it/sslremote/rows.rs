//! The table of tlsdestinations(5) as mail meets it: each row of keys against
//! servers of every kind, each field, each length of a fingerprint, and lines
//! that are wrong.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use openssl::hash::{MessageDigest, hash};
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslVersion};

use super::dns::{Names, Signing, Zones};
use super::fake::{Fake, Running};
use super::remote::{Remote, fresh_ip};
use crate::harness::authority::hex;
use crate::harness::{Authority, Identity, Leaf, Place, need, need_root, peer, skip};

/// A server that has no certificate at all.
pub fn anonymous() -> SslContext {
    let mut context = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
    context
        .set_max_proto_version(Some(SslVersion::TLS1_2))
        .unwrap();
    context.set_cipher_list("aNULL:@SECLEVEL=0").unwrap();
    context.build()
}

fn shows(identity: &Identity) -> Fake {
    Fake::tls(peer::context(identity, |_| ()))
}

/// Servers by the domains whose exchanger they are: `mx.NAME.test`.
struct World {
    names: Names,
    servers: Vec<(&'static str, Running)>,
    pin: String,
}

impl World {
    fn new(place: &Place) -> World {
        let good = Leaf::new("good")
            .dns("mx.good.test")
            .dns("good.test")
            .issue();
        let pin = format!("={}", good.fingerprint());
        let kinds = [
            ("good", shows(&good)),
            ("wild", shows(&Leaf::new("x").dns("*.wild.test").issue())),
            ("other", shows(&Leaf::new("x").dns("x.example").issue())),
            (
                "late",
                shows(&Leaf::new("x").dns("mx.late.test").expired().issue()),
            ),
            (
                "strange",
                shows(
                    &Leaf::new("x")
                        .dns("mx.strange.test")
                        .dns("strange.test")
                        .self_signed(),
                ),
            ),
            ("anon", Fake::tls(anonymous())),
            ("bare", Fake::plain()),
        ];
        let mut zone = Vec::new();
        let mut servers = Vec::new();
        for (name, fake) in kinds {
            let ip: IpAddr = fresh_ip();
            zone.push(format!("{name} IN MX 10 mx.{name}\nmx.{name} IN A {ip}\n"));
            servers.push((name, fake.at(ip)));
        }
        World {
            names: Names::serve(place, &zone.join("\n")),
            servers,
            pin,
        }
    }

    /// Sends one mail to `NAME.test` under these lines and gives the report;
    /// checks that what was reported is what came about.
    fn send(&self, place: &Place, lines: &str, name: &str) -> String {
        let (_, server) = self.servers.iter().find(|(one, _)| *one == name).unwrap();
        let before = server.seen().len();
        let lines = lines.replace("PIN", &self.pin);
        let remote = Remote::new(place).dns(self.names.ip).policy(&lines);
        let report = remote.send(&format!("{name}.test"));
        let since = &server.seen()[before..];
        let arrived = since.iter().filter(|one| one.message.is_some()).count();
        assert_eq!(
            arrived == 1,
            report.starts_with('K'),
            "{lines}{name}: {report}"
        );
        for one in since {
            let clear = one.commands.iter().any(|line| line.starts_with("MAIL"));
            let said = report.contains("(no TLS");
            assert_eq!(clear, said, "{lines}{name}: {report}");
        }
        report
    }
}

/// What must be in a report, after its first letter.
enum End {
    /// Delivered, with this verdict.
    Sent(&'static str),
    /// Deferred, with this reason and 4.7.5.
    Kept(&'static str),
}
use End::{Kept, Sent};

#[test]
fn each_row_of_keys_asks_what_it_says() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-rows");
    let world = World::new(&place);
    let none = "it does not offer STARTTLS; tlsdestinations line 1 requires TLS";
    let chain = "its certificate did not verify: depth 0, /CN=x: self-signed certificate";
    let issuer = "its certificate did not verify";
    let name = "its certificate names another host";
    for (lines, host, end) in [
        // 1: by the domain, the domains above it, the exchanger; before all others.
        (
            "!good.test:\n=*:CA\n%good.test:PIN\n",
            "good",
            Sent("(no TLS)"),
        ),
        ("!.test:\n=good.test:CA\n", "good", Sent("(no TLS)")),
        ("!mx.good.test:\n", "good", Sent("(no TLS)")),
        ("!*:\n=good.test:CA\n", "good", Sent("(no TLS)")),
        // 2
        (
            "%good.test:PIN\n=good.test:/none\n",
            "good",
            Sent("pinned)"),
        ),
        ("%mx.good.test:PIN\n", "good", Sent("pinned)")),
        (
            "%other.test:PIN\n",
            "other",
            Kept("its fingerprint is none of those"),
        ),
        ("%anon.test:PIN\n", "anon", Kept("the handshake failed")),
        ("%bare.test:PIN\n", "bare", Kept(none)),
        // In the CA's place, so that the name is to be right all the same.
        ("~good.test:PIN\n", "good", Sent("pinned)")),
        ("=good.test:PIN\n", "good", Sent("pinned)")),
        ("=far.test:PIN\n-*:\n", "good", Sent("unverified)")),
        (
            "~good.test:PIN||||far.test\n",
            "good",
            Kept(
                "its certificate names another host: depth 0, /CN=good: hostname mismatch: wanted \
                  far.test",
            ),
        ),
        (
            "~other.test:PIN\n",
            "other",
            Kept("its fingerprint is none of those"),
        ),
        ("good.test:PIN\n", "good", Sent("pinned)")),
        // 3: the name in the key, exactly.
        (
            "=good.test:CA\n~good.test:/none\n",
            "good",
            Sent("verified good.test)"),
        ),
        (
            "=mx.good.test:CA\n",
            "good",
            Sent("verified mx.good.test (name from DNS))"),
        ),
        ("=mx.wild.test:CA\n", "wild", Kept(name)),
        ("=wild.test:CA\n", "wild", Kept(name)),
        ("=other.test:CA\n", "other", Kept(name)),
        ("=mx.strange.test:CA\n", "strange", Kept(chain)),
        (
            "=mx.late.test:CA\n",
            "late",
            Kept("certificate has expired"),
        ),
        ("=bare.test:CA\n", "bare", Kept(none)),
        ("=anon.test:CA\n", "anon", Kept("the handshake failed")),
        // 4: wildcards; the exchanger's name or the domain.
        (
            "~good.test:CA\ngood.test:/none\n",
            "good",
            Sent("verified mx.good.test)"),
        ),
        ("~wild.test:CA\n", "wild", Sent("verified mx.wild.test)")),
        (
            "~.wild.test:CA\n",
            "wild",
            Sent("verified mx.wild.test (name from DNS))"),
        ),
        ("~.test:CA\n", "good", Sent("verified mx.good.test)")),
        ("~.test:CA\n", "other", Kept(name)),
        ("~mx.strange.test:CA\n", "strange", Kept(chain)),
        ("~bare.test:\n", "bare", Kept(none)),
        // 5: verified where a CA is given.
        (
            "good.test:CA\n-good.test:/none\n",
            "good",
            Sent("verified)"),
        ),
        ("other.test:CA\n", "other", Sent("verified)")),
        (".test:CA\n", "strange", Kept(chain)),
        ("late.test:CA\n", "late", Kept("certificate has expired")),
        ("strange.test:\n", "strange", Sent("unverified)")),
        (".strange.test:\n", "strange", Sent("unverified)")),
        ("anon.test:\n", "anon", Kept("the handshake failed")),
        ("bare.test:\n", "bare", Kept(none)),
        // 6: encrypted, whoever it is.
        ("-strange.test:\n=*:CA\n", "strange", Sent("unverified)")),
        ("-anon.test:\n", "anon", Sent("anonymous)")),
        ("-.anon.test:\n", "anon", Sent("anonymous)")),
        ("-bare.test:\n", "bare", Kept(none)),
        // 7: for everybody.
        // A name that nobody can have forged goes before one from DNS.
        ("=*:CA\n~*:/none\n", "good", Sent("verified good.test)")),
        ("=*:CA\n", "wild", Kept(name)),
        ("=*:CA\n", "bare", Kept(none)),
        (
            "~*:CA\n+*:/none\n",
            "wild",
            Sent("verified mx.wild.test (name from DNS))"),
        ),
        ("~*:CA\n", "other", Kept(name)),
        ("+*:CA\n-*:/none\n", "other", Sent("verified)")),
        ("+*:CA\n", "strange", Kept(issuer)),
        ("+*:\n", "strange", Sent("unverified)")),
        ("+*:\n", "bare", Kept(none)),
        ("-*:\n*:/none\n", "anon", Sent("anonymous)")),
        ("-*:\n", "bare", Kept(none)),
        // 8: used if offered; a failed check is told.
        ("*:CA\n-:/none\n", "good", Sent("verified)")),
        (
            "*:CA\n",
            "strange",
            Sent("unverified: depth 0, /CN=x: self-signed certificate)"),
        ),
        ("*:\n", "strange", Sent("unverified)")),
        ("*:\n", "bare", Sent("(no TLS: it was not offered)")),
        // 9: the same, and no certificate is needed.
        ("-:\n", "anon", Sent("anonymous)")),
        ("-:\n", "strange", Sent("unverified)")),
        ("-:\n", "bare", Sent("(no TLS: it was not offered)")),
        // No line: as `*` without a CA.
        ("", "strange", Sent("unverified)")),
        (
            "=x.example:CA\n",
            "bare",
            Sent("(no TLS: it was not offered)"),
        ),
    ] {
        let report = world.send(&place, lines, host);
        let what = format!("{lines}{host}: {report}");
        match end {
            Sent(verdict) => {
                assert!(report.starts_with('K'), "{what}");
                let told = report.lines().next().unwrap();
                // `verified` is a part of `unverified`.
                assert!(told.ends_with(&format!(" {verdict}.")), "{what}");
            }
            Kept(why) => {
                assert!(report.starts_with("ZConnected to "), "{what}");
                assert!(
                    report.contains(why) && report.contains("(#4.7.5)\n"),
                    "{what}"
                );
            }
        }
    }
}

/// One mail to this server under the line `KEY:VALUE`, in which nothing stands
/// for anything else; without a name server.
fn value(place: &Place, context: SslContext, key: &str, value: &str) -> String {
    let running = Fake::tls(context).listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    let remote = Remote::new(place)
        .control("smtproutes", &route)
        .control("tlsdestinations", &format!("{key}:{value}\n"));
    remote.send("far.example")
}

#[test]
fn each_field_of_a_value_counts() {
    let place = Place::new("remote-fields");
    let good = Leaf::new("x").address("127.0.0.1").issue();
    let context = || peer::context(&good, |_| ());
    let root = place.write("root.pem", Authority::shared_root().pem());
    let own = |text: &str| text.replace("CA", &root);
    let send = |text: &str| value(&place, context(), "=[127.0.0.1]", &own(text));
    let verified =
        "K127.0.0.1 accepted message (TLSv1.3 TLS_AES_256_GCM_SHA384 verified 127.0.0.1).\n";
    let other = place.write("other.pem", Authority::root("Other Root").pem());
    assert!(send("CA").starts_with(verified));
    assert!(
        send(&other).contains("its certificate did not verify"),
        "cafile"
    );
    for (folder, from, works) in [("cas", "root.pem", true), ("others", "other.pem", false)] {
        std::fs::create_dir(place.path(folder)).unwrap();
        std::fs::copy(place.path(from), place.path(folder).join("a.pem")).unwrap();
        let report = send(&format!("{}/", place.text(folder)));
        assert_eq!(report.starts_with(verified), works, "cadir: {report}");
    }
    let old = peer::context(&good, |context| {
        context
            .set_max_proto_version(Some(SslVersion::TLS1_2))
            .unwrap();
    });
    let report = value(
        &place,
        old,
        "=[127.0.0.1]",
        &own("CA|ECDHE-ECDSA-CHACHA20-POLY1305"),
    );
    let said =
        "K127.0.0.1 accepted message (TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305 verified 127.0.0.1).\n";
    assert!(report.starts_with(said), "ciphers: {report}");
    // One intermediate stands between the leaf and the root.
    let report = send("CA||0");
    assert!(
        report.contains("its certificate did not verify"),
        "depth: {report}"
    );
    assert!(send("CA||1").starts_with(verified), "depth");
    // The route's port is the server's, and counts before the rule's.
    assert!(send("CA||;1").starts_with(verified), "port");
    let report = send("CA||1;1|other.example|x.example");
    assert!(
        report.contains("TLSv1.3") && report.contains(" unverified)"),
        "no line of theirs: {report}"
    );
    let report = send("/none|||other.example\n=[127.0.0.1]:CA|||sender.example\n*:/none");
    assert!(report.starts_with(verified), "senderdomain: {report}");
}

#[test]
fn a_route_switches_no_partner_s_rule_off() {
    let leaf = Leaf::new("x").dns("far.example").issue();
    let pin = format!("={}", leaf.fingerprint());
    let bare = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let port = bare.at.port();
    let login = "me@sender.example:[127.0.0.1];";
    for (table, route) in [
        ("smtproutes", format!("far.example:127.0.0.1:{port}\n")),
        ("smtproutes", format!(".example:[127.0.0.1]:{port}\n")),
        ("smtproutes", format!(":[127.0.0.1];{port}\n")),
        ("authsenders", format!("@sender.example:127.0.0.1;{port}\n")),
        (
            "authsenders",
            format!("{login}{port}\n:[127.0.0.1]:{port}\n"),
        ),
    ] {
        let send = |lines: &str| {
            let place = Place::new("remote-route");
            let remote = Remote::new(&place).control(table, &route);
            remote
                .policy(&lines.replace("PIN", &pin))
                .send("far.example")
        };
        for line in [
            "=far.example:CA",
            "~far.example:CA",
            "~.example:CA",
            "%far.example:PIN",
            "far.example:CA",
            ".example:",
            "-far.example:",
            "=*:CA",
            "-*:",
        ] {
            let report = send(&format!("{line}\n*:\n"));
            let why = "it does not offer STARTTLS; tlsdestinations line 1 requires TLS. (#4.7.5)";
            assert!(
                report.starts_with("ZConnected to 127.0.0.1 "),
                "{route}{line}: {report}"
            );
            assert!(report.contains(why), "{route}{line}: {report}");
        }
        for line in [
            "=far.example:/none",
            "far.example:/none",
            "==far.example:CA",
        ] {
            let report = send(&format!("{line}\n*:\n"));
            assert!(
                report.starts_with("ZTLS is not set up: "),
                "{route}{line}: {report}"
            );
            assert!(report.contains("tlsdestinations line 1"), "{report}");
        }
    }
    let arrived = bare.seen();
    assert!(
        arrived.iter().all(|one| one.message.is_none()),
        "nothing went in plain"
    );
}

/// One mail to far.example by a relay at 127.0.0.1 with this certificate.
fn routed(leaf: &Identity, lines: &str, route_end: &str) -> String {
    let place = Place::new("remote-by-relay");
    let running = shows(leaf).listen("127.0.0.1:0".parse().unwrap());
    let port = running.at.port().to_string();
    let route = format!(
        "far.example:127.0.0.1{}\n",
        route_end.replace("PORT", &port)
    );
    let remote = Remote::new(&place).control("smtproutes", &route);
    remote
        .policy(&lines.replace("PORT", &port))
        .send("far.example")
}

#[test]
fn behind_a_route_the_relay_or_the_domain_is_named() {
    let domain = Leaf::new("x").dns("far.example").issue();
    let relay = Leaf::new("x").address("127.0.0.1").issue();
    let other = "its certificate names another host";
    for (leaf, line, verdict) in [
        (&domain, "=far.example:CA", "verified far.example)"),
        (&relay, "=far.example:CA", other),
        (&domain, "~far.example:CA", "verified far.example)"),
        (&relay, "~far.example:CA", "verified 127.0.0.1)"),
        (&relay, "~.example:CA", "verified 127.0.0.1)"),
        (&domain, "=127.0.0.1:CA", other),
        (
            &relay,
            "=127.0.0.1:CA\n!far.example:",
            "verified 127.0.0.1)",
        ),
        // The relay stands in the domain's place.
        (&domain, "~*:CA", other),
        (&relay, "~*:CA", "verified 127.0.0.1)"),
        (&relay, "=*:CA", "verified 127.0.0.1)"),
        (&relay, "!far.example:\n=*:CA", "(no TLS)"),
    ] {
        let report = routed(leaf, &format!("{line}\n-*:\n"), ":PORT");
        assert!(report.contains(verdict), "{line}: {report}");
        assert_eq!(
            report.starts_with('K'),
            verdict != other,
            "{line}: {report}"
        );
    }
    // Who owns the domain is not who may have the password.
    for (leaf, works) in [(&domain, false), (&relay, true)] {
        let report = routed(leaf, "~far.example:CA\n", ":PORT|user|password");
        let refused = report.contains("wanted 127.0.0.1, it names far.example; ");
        // This server takes no login.
        let verified = report.contains("it does not offer AUTH");
        assert_eq!((verified, refused), (works, !works), "{report}");
    }
    // The route's port counts before the line's; without one the line's does.
    let report = routed(&domain, "=far.example:CA||;1\n", ":PORT");
    assert!(report.contains("verified far.example)"), "{report}");
    for line in ["=far.example:CA||;PORT\n", "=far.example:CA||:PORT\n"] {
        let report = routed(&domain, line, "");
        assert!(report.contains("verified far.example)"), "{report}");
    }
}

#[test]
fn a_name_that_dns_gave_counts_where_it_is_signed_or_nobody_else_is_named() {
    need_root!();
    let place = Place::new("remote-hosted");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let ip = fresh_ip();
    let lines = "far IN MX 10 mx.hosted.plain.\n";
    let hosted = format!("{lines}mx.hosted IN A {ip}\nnear IN MX 10 mx.near\nmx.near IN A {ip}\n");
    let names = zones
        .zone("signed", Signing::Nsec, lines)
        .zone("plain", Signing::None, &hosted)
        .serve();
    let leaf = Leaf::new("x")
        .dns("mx.hosted.plain")
        .dns("*.near.plain")
        .issue();
    let _running = shows(&leaf).at(ip);
    let root = place.write("root.pem", Authority::shared_root().pem());
    let send = |line: &str, domain: &str| {
        Remote::new(&place)
            .dns(names.ip)
            .control("dnssecanchors", &names.anchors)
            .env("SSL_CERT_FILE", &root)
            .policy(&format!("{line}\n*:\n"))
            .send(domain)
    };
    let verified = "verified mx.hosted.plain).\n";
    let from_dns = "verified mx.hosted.plain (name from DNS)).\n";
    let other = "its certificate names another host: depth 0, /CN=x: hostname mismatch: wanted \
                 far.plain, it names mx.hosted.plain, *.near.plain; mx.hosted.plain does not \
                 count, since DNS gave it without a signature: if it is the partner's, put it \
                 into the fifth field (names) of tlsdestinations line 1; ";
    for (line, domain, said) in [
        ("~far.plain:", "far.plain", other),
        ("~.plain:", "far.plain", other),
        ("~far.plain:CA", "far.plain", verified),
        ("~far.plain:||||mx.hosted.plain", "far.plain", verified),
        (
            "~far.plain:||||x,.hosted.plain",
            "far.plain",
            "verified mx.hosted.plain)",
        ),
        ("=far.plain:||||mx.hosted.plain", "far.plain", verified),
        ("~far.signed:", "far.signed", verified),
        ("~*:", "far.signed", verified),
        ("~*:", "far.plain", from_dns),
        ("=*:", "far.plain", from_dns),
        ("~mx.hosted.plain:", "far.plain", from_dns),
        ("=mx.hosted.plain:", "far.plain", from_dns),
        ("=mx.hosted.plain:", "far.signed", verified),
        // Below the domain.
        ("~near.plain:", "near.plain", "verified mx.near.plain)"),
        (
            "~near.plain:||||*.near.plain",
            "near.plain",
            "verified *.near.plain)",
        ),
        (
            "=mx.near.plain:",
            "near.plain",
            ", and a wildcard counts under ~ only, not under =; ",
        ),
        (
            "=near.plain:||||.near.plain",
            "near.plain",
            "a wildcard counts under ~ only",
        ),
    ] {
        let report = send(line, domain);
        assert!(report.contains(said), "{line} {domain}: {report}");
        let sent = said.starts_with("verified");
        assert_eq!(report.starts_with('K'), sent, "{line} {domain}: {report}");
    }
}

#[test]
fn fingerprints_of_every_length_decide() {
    let place = Place::new("remote-pins");
    // Nothing else about it is right.
    let leaf = Leaf::new("x").dns("x.example").expired().self_signed();
    let print = |digest| hex(&leaf.certificate.digest(digest).unwrap());
    let key = leaf.key.public_key_to_der().unwrap();
    let spki = hex(&hash(MessageDigest::sha256(), &key).unwrap());
    let sha256 = print(MessageDigest::sha256());
    let pairs: Vec<&str> = (0..32).map(|at| &sha256[2 * at..2 * at + 2]).collect();
    let colons = pairs.join(":").to_uppercase();
    let zeros = "0".repeat(64);
    // The last digit is another.
    let near = |print: String| {
        let (rest, last) = print.split_at(print.len() - 1);
        format!("={rest}{}", if last == "0" { "1" } else { "0" })
    };
    let digests = [
        MessageDigest::sha1(),
        MessageDigest::sha224(),
        MessageDigest::sha256(),
        MessageDigest::sha512(),
    ];
    let mut cases = Vec::new();
    for digest in digests {
        cases.push((format!("={}", print(digest)), true));
        cases.push((near(print(digest)), false));
    }
    cases.extend([
        (format!("={colons}"), true),
        (format!("={zeros},={sha256}"), true),
        (format!("={zeros}, ={}, spki:{spki}", "1".repeat(40)), true),
        (format!("spki:{spki}"), true),
        (format!("SPKI:{}", spki.to_uppercase()), true),
        (format!("spki:{sha256}"), false),
        (format!("={spki}"), false),
        (format!("={zeros},={}", "1".repeat(128)), false),
    ]);
    for (text, works) in cases {
        let context = peer::context(&leaf, |_| ());
        let report = value(&place, context, "%[127.0.0.1]", &text);
        if works {
            let said = "K127.0.0.1 accepted message (TLSv1.3 TLS_AES_256_GCM_SHA384 pinned).\n";
            assert!(report.starts_with(said), "{text}: {report}");
        } else {
            let said = format!("it is ={sha256}; tlsdestinations line 1 requires TLS. (#4.7.5)\n");
            assert!(
                report.starts_with('Z') && report.contains(&said),
                "{text}: {report}"
            );
        }
    }
}

/// A server with a certificate for its address.
fn reached_by_a_route() -> Running {
    let good = Leaf::new("x").address("127.0.0.1").issue();
    shows(&good).listen("127.0.0.1:0".parse().unwrap())
}

/// The report of mail that a route leads to this server, under these rules.
fn far(place: &Place, server: &Running, rules: &str) -> String {
    let route = format!(":[127.0.0.1]:{}\n", server.at.port());
    Remote::new(place)
        .control("smtproutes", &route)
        .policy(rules)
        .send("far.example")
}

#[test]
fn a_wrong_line_defers_those_whom_it_decides_and_is_named() {
    let place = Place::new("remote-wrong");
    let running = reached_by_a_route();
    let remote = |text: &str| far(&place, &running, text);
    place.write("empty.pem", "");
    place.write(
        "junk.pem",
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
    );
    let exact = "tlsdestinations line 2 \"=[127.0.0.1]\": ";
    let pinned = "tlsdestinations line 2 \"%[127.0.0.1]\": a fingerprint is ";
    let load = "under tlsdestinations line 2: unable to load CA list: cafile ";
    for (line, begins, ends) in [
        (":CA", "tlsdestinations line 2 \"\": ", "the key is empty"),
        (
            "*.x:CA",
            "tlsdestinations line 2 \"*.x\": ",
            ".domain, not *.",
        ),
        (
            "==[127.0.0.1]:CA",
            "tlsdestinations line 2 \"==[",
            "two signs",
        ),
        (
            "@far.example:CA",
            "tlsdestinations line 2 \"@far",
            "without @",
        ),
        (
            "[name]:CA",
            "tlsdestinations line 2 \"[name]\": ",
            "address",
        ),
        (
            "far example:CA",
            "tlsdestinations line 2 \"far example",
            "blank",
        ),
        (
            "tls://far.example:CA",
            "tlsdestinations line 2 \"tls\": ",
            "tls://",
        ),
        (
            "smtp:far.example",
            "tlsdestinations line 2 \"smtp\": ",
            "smtp:",
        ),
        ("=[127.0.0.1]", exact, "there is no colon after the key"),
        ("=[127.0.0.1]:CA||x", exact, "the depth is not a number"),
        ("=[127.0.0.1]:CA||;x", exact, "the port is not a number"),
        ("=[127.0.0.1]:CA|||||b", exact, "more than five fields"),
        ("=[127.0.0.1]:=abcdef", exact, "has no known length"),
        ("%[127.0.0.1]:=Z96", pinned, "has no known length"),
        ("%[127.0.0.1]:=Z64,=0", pinned, "has no known length"),
        ("%[127.0.0.1]:=Z64x", pinned, "not hexadecimal"),
        ("%[127.0.0.1]:spki:00", pinned, "has no known length"),
        ("%[127.0.0.1]:CA", "", "% needs a fingerprint"),
        ("=[127.0.0.1]:/none.pem", load, "no such file"),
        ("=[127.0.0.1]:/none/", load, "no such file"),
        // Of no use here, but who wrote it meant something else.
        ("![127.0.0.1]:/none.pem", load, "no such file"),
        (
            "![127.0.0.1]:|NOSUCH",
            "under tlsdestinations line 2: unable to set cipher list: ",
            "ciphers \"NOSUCH\"",
        ),
        ("[127.0.0.1]:HOME/empty.pem", load, "it is empty"),
        ("~[127.0.0.1]:HOME/junk.pem", load, ""),
        (
            "=[127.0.0.1]:CA|NOSUCH",
            "under tlsdestinations line 2: unable to set cipher list: ",
            "ciphers \"NOSUCH\"",
        ),
    ] {
        let line = line
            .replace("HOME/", &place.text(""))
            .replace("Z64", &"0".repeat(64))
            .replace("Z96", &"0".repeat(96));
        let report = remote(&format!("# partners\n{line}\n-*:\n*:\n"));
        let begin = "ZTLS is not set up: ";
        assert!(report.starts_with(begin), "{line}: {report}");
        assert!(report.contains(begins), "{line}: {report}");
        assert!(report.contains(ends), "{line}: {report}");
        assert!(report.ends_with(". (#4.7.5)\n"), "{line}: {report}");
    }
    assert!(running.seen().is_empty(), "nobody was called");
}

#[test]
fn others_are_kept_from_their_mail_by_a_key_that_is_none_before_their_line() {
    let place = Place::new("remote-others");
    let running = reached_by_a_route();
    let remote = |text: &str| far(&place, &running, text);
    let others = "=other.example\n%x.example:=00\n~other.example:/none\n";
    let own = " =[127.0.0.1]. :CA\r\n";
    let report = remote(&format!("{others}==x:\n{own}"));
    assert!(
        report.contains("tlsdestinations line 4 \"==x\""),
        "{report}"
    );
    for line in [own, "*:\n"] {
        let report = remote(&format!("{others}{line}==x:\n"));
        assert!(report.starts_with('K'), "{line}: {report}");
    }
}
