//! Whom qmail-sslremote believes to be whom: names, addresses, chains, purposes
//! and weak keys, as RFC 9525, 5280 and 9325 want it.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::ssl::{SslContext, SslContextBuilder, SslVersion};

use super::dns::Names;
use super::fake::{Fake, Running};
use super::remote::Remote;
use crate::harness::{Authority, Identity, Leaf, Place, need, need_root, peer};

/// Extended key usages (RFC 5280, 4.2.1.12).
const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";

/// Tags of GeneralName (RFC 5280, 4.2.1.6).
const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

const VERIFIED: &str = " accepted message (TLSv1.3 TLS_AES_256_GCM_SHA384 verified";
const OTHER_NAME: &str = "its certificate names another host";

fn serve(context: SslContext, at: &str) -> Running {
    Fake::tls(context).listen(at.parse::<SocketAddr>().unwrap())
}

/// Mail to a host in brackets, whose server has this certificate.
fn to_address(
    place: &Place,
    host: &str,
    at: &str,
    key: &str,
    identity: &Identity,
) -> (String, Running) {
    let running = serve(peer::context(identity, |_| ()), at);
    let remote = Remote::new(place).policy(&format!("{key}:CA||;{}\n", running.at.port()));
    (remote.send(host), running)
}

#[test]
fn an_address_is_matched_as_an_address_and_is_no_server_name() {
    let place = Place::new("remote-addresses");
    let four = Leaf::new("x").address("127.0.0.1").issue();
    let next = Leaf::new("x").address("127.0.0.2").issue();
    let six = Leaf::new("x").address("::1").issue();
    let text = Leaf::new("127.0.0.1").dns("127.0.0.1").issue();
    let common = Leaf::new("127.0.0.1").issue();
    let raw = Leaf::new("x").raw_name(ADDRESS, &[127, 0, 0, 1, 0]).issue();
    let (v4, v6) = ("127.0.0.1:0", "[::1]:0");
    for (host, at, key, identity, works) in [
        ("[127.0.0.1]", v4, "=[127.0.0.1]", &four, true),
        ("[127.0.0.1]", v4, "=127.0.0.1", &four, true),
        ("[127.0.0.1]", v4, "~[127.0.0.1]", &four, true),
        ("[127.0.0.1]", v4, "=*", &four, true),
        ("[127.0.0.1]", v4, "~*", &next, false),
        ("[127.0.0.1]", v4, "=[127.0.0.1]", &text, false),
        ("[127.0.0.1]", v4, "~*", &text, false),
        ("[127.0.0.1]", v4, "~*", &common, false),
        ("[127.0.0.1]", v4, "~*", &raw, false),
        ("[::1]", v6, "=[::1]", &six, true),
        ("[::1]", v6, "~*", &four, false),
        ("[IPv6:::1]", v6, "=[::1]", &six, true),
        ("[IPv6:::1]", v6, "=[IPv6:::1]", &six, true),
        ("[IPv6:::1]", v6, "~*", &six, true),
        ("[IPv6:::1]", v6, "~*", &next, false),
    ] {
        let (report, running) = to_address(&place, host, at, key, identity);
        let what = format!("{host} {key}: {report}");
        if works {
            assert!(
                report.starts_with('K') && report.contains(VERIFIED),
                "{what}"
            );
            assert_eq!(running.only().wanted, None, "no server name: {what}");
        } else {
            assert!(
                report.starts_with('Z') && report.contains(OTHER_NAME),
                "{what}"
            );
            assert!(report.contains("(#4.7.5)\n"), "{what}");
            assert_eq!(running.messages(), 0);
        }
    }
}

#[test]
fn names_are_matched_by_every_entry_of_subject_alt_name_and_by_nothing_else() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-names");
    let zone = "mx.a IN A 127.0.0.1\nb.mx.a IN A 127.0.0.1\na IN A 127.0.0.1\nxn--mller-kva.a IN A 127.0.0.1\n";
    let names = Names::serve(&place, zone);
    let some = |list: &[&str]| {
        list.iter()
            .fold(Leaf::new("x"), |leaf, name| leaf.dns(name))
            .issue()
    };
    let (mx, b, a) = ("mx.a.test", "b.mx.a.test", "a.test");
    let raw = |tag, value: &[u8]| Leaf::new("mx.a.test").raw_name(tag, value);
    let mut cases = vec![
        // CN is never asked, with and without other names.
        (mx, Leaf::new("mx.a.test").issue(), false, false),
        (
            mx,
            Leaf::new("mx.a.test").dns("x.example").issue(),
            false,
            false,
        ),
        // A star is a whole leftmost label, and stands for one label.
        (mx, some(&["*.a.test"]), false, true),
        (b, some(&["*.a.test"]), false, false),
        (a, some(&["*.a.test"]), false, false),
        (mx, some(&["m*.a.test"]), false, false),
        (mx, some(&["*x.a.test"]), false, false),
        (mx, some(&["mx.*.test"]), false, false),
        (b, some(&["*.*.a.test"]), false, false),
        (mx, some(&["*"]), false, false),
        // One directly under a top-level domain would be everybody's.
        (a, some(&["*.test"]), false, false),
        // Case and a dot at the end are of no account; A-labels are compared.
        (mx, some(&["MX.a.TEST"]), true, true),
        (mx, raw(DNS, b"mx.a.test.").issue(), true, false),
        (
            "xn--mller-kva.a.test",
            some(&["XN--mller-KVA.a.test"]),
            true,
            true,
        ),
        (
            "xn--mller-kva.a.test",
            raw(DNS, "m\u{fc}ller.a.test".as_bytes()).issue(),
            false,
            false,
        ),
        // A NUL ends no name.
        (
            mx,
            raw(DNS, b"mx.a.test\0.evil.example").issue(),
            false,
            false,
        ),
        (mx, raw(DNS, b"mx.a.test\0").issue(), false, false),
        (mx, some(&["mx.a.test.evil.example"]), false, false),
        // Names of other kinds neither help nor hurt.
        (mx, raw(URI, b"mx.a.test").issue(), false, false),
        (mx, raw(MAIL, b"mx.a.test").issue(), false, false),
        (
            mx,
            raw(URI, b"smtp://other/")
                .raw_name(MAIL, b"a@b")
                .raw_name(DNS, b"mx.a.test")
                .issue(),
            true,
            true,
        ),
        (
            mx,
            raw(DNS, b"mx.a.test").raw_name(0x88, &[42, 3]).issue(),
            true,
            true,
        ),
    ];
    // Every entry is tried.
    for at in 0..5 {
        let mut list = vec!["a.example", "b.example", "c.example", "d.example"];
        list.insert(at, mx);
        cases.push((mx, some(&list), true, true));
    }
    for (host, identity, exactly, wildcard) in cases {
        for (sign, works) in [("=", exactly), ("~", wildcard)] {
            for key in [format!("{sign}{host}"), format!("{sign}*")] {
                let running = serve(peer::context(&identity, |_| ()), "127.0.0.1:0");
                let remote = Remote::new(&place)
                    .dns(names.ip)
                    .control("smtproutes", &format!(":{host}:{}\n", running.at.port()))
                    .policy(&format!("{key}:CA\n"));
                let report = remote.send("far.example");
                let listed = String::from_utf8(identity.certificate.to_text().unwrap()).unwrap();
                let what = format!("{key} {host}: {report}{listed}");
                assert_eq!(
                    report.contains(&format!("{VERIFIED} {host}).\n")),
                    works,
                    "{what}"
                );
                assert_eq!(report.contains(OTHER_NAME), !works, "{what}");
                assert_eq!(running.messages(), usize::from(works), "{what}");
                if works {
                    assert_eq!(running.only().wanted.as_deref(), Some(host), "{what}");
                }
            }
        }
    }
}

/// A delivery to [127.0.0.1] under this line.
fn one(place: &Place, context: SslContext, line: &str) -> String {
    let running = serve(context, "127.0.0.1:0");
    let remote = Remote::new(place)
        .control(
            "smtproutes",
            &format!(":[127.0.0.1]:{}\n", running.at.port()),
        )
        .policy(line);
    let report = remote.send("far.example");
    assert_eq!(running.messages(), usize::from(report.starts_with('K')));
    report
}

#[test]
fn a_certificate_for_another_purpose_verifies_nobody_but_may_be_pinned() {
    let place = Place::new("remote-purpose");
    let leaf = |oid| Leaf::new("x").address("127.0.0.1").purpose(oid).issue();
    let (server, client) = (leaf(SERVER_AUTH), leaf(CLIENT_AUTH));
    for (line, works) in [("=[127.0.0.1]:CA\n", false), ("[127.0.0.1]:CA\n", false)] {
        let report = one(&place, peer::context(&server, |_| ()), line);
        assert!(report.contains(VERIFIED), "{line}{report}");
        let report = one(&place, peer::context(&client, |_| ()), line);
        assert_eq!(report.contains(VERIFIED), works, "{line}{report}");
        let said = "its certificate did not verify: depth 0, /CN=x: unsuitable certificate purpose";
        assert!(report.contains(said), "{line}{report}");
    }
    let pin = format!("%[127.0.0.1]:={}\n", client.fingerprint());
    let report = one(&place, peer::context(&client, |_| ()), &pin);
    assert!(report.contains(" pinned)"), "{report}");
}

#[test]
fn a_ca_of_a_line_takes_the_place_of_the_system_s() {
    let place = Place::new("remote-roots");
    let own = Authority::root("Private Root");
    place.write("own.pem", own.pem());
    place.write("public.pem", Authority::shared_root().pem());
    let public = Leaf::new("x").address("127.0.0.1").issue();
    let private = Leaf::new("x").address("127.0.0.1").issue_by(&own);
    for (line, identity, works) in [
        ("=[127.0.0.1]:\n", &public, true),
        ("=[127.0.0.1]:\n", &private, false),
        ("=[127.0.0.1]:OWN\n", &public, false),
        ("=[127.0.0.1]:OWN\n", &private, true),
    ] {
        let running = serve(peer::context(identity, |_| ()), "127.0.0.1:0");
        let remote = Remote::new(&place)
            // What libcrypto takes for the system's store.
            .env("SSL_CERT_FILE", &place.text("public.pem"))
            .env("SSL_CERT_DIR", "/nonexistent")
            .control(
                "smtproutes",
                &format!(":[127.0.0.1]:{}\n", running.at.port()),
            )
            .policy(&line.replace("OWN", &place.text("own.pem")));
        let report = remote.send("far.example");
        assert_eq!(report.contains(VERIFIED), works, "{line}{report}");
        assert_eq!(report.contains("did not verify"), !works, "{line}{report}");
    }
}

#[test]
fn the_depth_counts_the_authorities_between_leaf_and_root() {
    let place = Place::new("remote-depth");
    let top = Authority::root("Deep Root");
    let root = place.write("deep.pem", top.pem());
    let deep = top.below("Deep 1").below("Deep 2").below("Deep 3");
    let mut leaf = Leaf::new("x").address("127.0.0.1").issue_by(&deep);
    leaf.between.truncate(3);
    for (depth, works) in [("2", false), ("3", true), ("", true), ("100", true)] {
        let line = format!("=[127.0.0.1]:{root}||{depth}\n");
        let report = one(&place, peer::context(&leaf, |_| ()), &line);
        assert_eq!(report.contains(VERIFIED), works, "{depth}: {report}");
        assert_eq!(
            report.contains("certificate chain too long"),
            !works,
            "{depth}: {report}"
        );
    }
}

/// A server with a key exchange of so many bits and nothing better.
fn finite_field(prime: BigNum) -> SslContext {
    let leaf = Leaf::new("x")
        .address("127.0.0.1")
        .key(crate::harness::KeyKind::Rsa2048)
        .issue();
    peer::context(&leaf, |context: &mut SslContextBuilder| {
        context.set_security_level(0);
        context
            .set_max_proto_version(Some(SslVersion::TLS1_2))
            .unwrap();
        context
            .set_cipher_list("DHE-RSA-AES256-GCM-SHA384")
            .unwrap();
        let group = Dh::from_pqg(prime, None, BigNum::from_u32(2).unwrap()).unwrap();
        context.set_tmp_dh(&group).unwrap();
    })
}

// Below 1024 bits OpenSSL takes part at neither end.
#[test]
fn weak_keys_of_a_server_are_refused_unless_a_line_allows_them() {
    let place = Place::new("remote-weak");
    let ciphers = "DHE-RSA-AES256-GCM-SHA384";
    let small = || finite_field(BigNum::get_rfc2409_prime_1024().unwrap());
    let large = || finite_field(BigNum::get_rfc3526_prime_2048().unwrap());
    for (context, list, works) in [
        (large(), ciphers.to_owned(), true),
        (small(), ciphers.to_owned(), false),
        (small(), format!("{ciphers}:@SECLEVEL=1"), true),
    ] {
        let report = one(&place, context, &format!("=[127.0.0.1]:CA|{list}\n"));
        let said = format!("(TLSv1.2 {ciphers} verified 127.0.0.1)");
        assert_eq!(report.contains(&said), works, "{list}: {report}");
        let refused = report.starts_with('Z')
            && report.contains("dh key too small")
            && report.contains("(#4.7.5)");
        assert_eq!(refused, !works, "{list}: {report}");
    }
    // Where no chain is asked for, the chain is not what is told.
    for line in ["[127.0.0.1]:", "+*:"] {
        let report = one(&place, small(), &format!("{line}|{ciphers}\n"));
        assert!(
            report.starts_with("ZConnected to 127.0.0.1 ([127.0.0.1]) but the handshake failed: ")
                && report.contains("dh key too small")
                && !report.contains("verify"),
            "{line}: {report}"
        );
    }
}

#[test]
fn old_versions_are_refused() {
    let place = Place::new("remote-versions");
    let leaf = Leaf::new("x").address("127.0.0.1").issue();
    for (version, works) in [
        (SslVersion::TLS1_1, false),
        (SslVersion::TLS1_2, true),
        (SslVersion::TLS1_3, true),
    ] {
        let context = || {
            peer::context(&leaf, |context| {
                context.set_security_level(0);
                context
                    .set_min_proto_version(Some(SslVersion::TLS1))
                    .unwrap();
                context.set_max_proto_version(Some(version)).unwrap();
                context.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
            })
        };
        let report = one(&place, context(), "=[127.0.0.1]:CA\n");
        assert_eq!(
            report.contains(" verified 127.0.0.1)"),
            works,
            "{version:?}: {report}"
        );
        assert_eq!(
            report.contains("the handshake failed"),
            !works,
            "{version:?}: {report}"
        );
        // Where TLS need not be, none is better than a broken one.
        let report = one(&place, context(), "*:\n");
        assert_eq!(
            report.contains("(no TLS, which failed: "),
            !works,
            "{version:?}: {report}"
        );
    }
}

#[test]
fn a_list_of_the_revoked_beside_a_partner_s_ca_counts() {
    crate::harness::need!("openssl");
    let place = Place::new("remote-crl");
    let root = Authority::shared_root();
    let leaf = || Leaf::new("x").address("127.0.0.1").issue_by(root);
    let (good, bad) = (leaf(), leaf());
    let list = root.crl(&place, &[bad.serial()], false);
    let stale = root.crl(&place, &[], true);
    let ca = place.write("with-list.pem", [root.pem(), list].concat());
    let old = place.write("with-stale.pem", [root.pem(), stale].concat());
    for (file, identity, said) in [
        (&ca, &good, " verified 127.0.0.1)"),
        (&ca, &bad, "certificate revoked"),
        (&old, &good, "CRL has expired"),
    ] {
        let line = format!("=[127.0.0.1]:{file}\n");
        let report = one(&place, peer::context(identity, |_| ()), &line);
        assert!(report.contains(said), "{said}: {report}");
    }
}

/// What was wrong once stays wrong, whatever comes out well later: under a line
/// that lets everything pass too.
#[test]
fn the_first_thing_that_was_wrong_is_told_where_all_is_let_pass() {
    crate::harness::need!("openssl");
    let place = Place::new("remote-lenient");
    let (top, evil) = (Authority::root("Top"), Authority::root("Evil Root"));
    let middle = top.below("Middle");
    let leaf = || Leaf::new("x").address("127.0.0.1");
    let mut forged = leaf().issue_by(&middle.forged_below(&evil));
    forged.between.push(evil.certificate.clone());
    let list = middle.crl(&place, &[], false);
    let ca = place.write("with-list.pem", [top.pem(), list].concat());
    let bare = place.write("bare.pem", top.pem());
    for (identity, why) in [
        (&forged, "self-signed certificate in certificate chain"),
        (
            &leaf().purpose(CLIENT_AUTH).issue_by(&middle),
            "unsuitable certificate purpose",
        ),
        (
            &leaf().issue_by(&middle).with_a_bad_signature(),
            "certificate signature failure",
        ),
        (
            &leaf().expired().purpose(CLIENT_AUTH).issue_by(&evil),
            "unable to get local issuer certificate",
        ),
    ] {
        for file in [&ca, &bare] {
            for (lines, let_pass) in [("*", true), ("[127.0.0.1]", false), ("=*", false)] {
                let line = format!("{lines}:{file}\n");
                let report = one(&place, peer::context(identity, |_| ()), &line);
                let begin = if let_pass {
                    "K127.0.0.1 "
                } else {
                    "ZConnected"
                };
                assert!(report.starts_with(begin), "{line}{why}: {report}");
                let told = report.contains("(TLSv1.3 TLS_AES_256_GCM_SHA384 unverified: depth ")
                    || report.contains("its certificate did not verify: depth ");
                assert!(told && report.contains(why), "{line}{why}: {report}");
            }
        }
    }
    // A good one is good, with the list and without.
    let good = leaf().issue_by(&middle);
    for file in [&ca, &bare] {
        let report = one(&place, peer::context(&good, |_| ()), &format!("*:{file}\n"));
        assert!(report.contains("SHA384 verified)"), "{report}");
    }
}
