//! Forged, broken and half-good certificates of clients: what was wrong once
//! stays wrong, whatever comes out well later.
#![forbid(unsafe_code)]

use openssl::ssl::SslVersion;

use crate::harness::{Authority, Dial, End, Identity, Leaf, Place, Server, Setup, need};

const BOTH: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];
/// Extended key usages.
const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
/// Answers a line, so that the session is seen to carry bytes both ways.
const SCRIPT: &str = "read word; echo \"$word $SSL_CLIENT_VERIFY $SSL_PEER_S_DN\"";

/// The ways to require a certificate: letters, `CCAVERIFY`.
const REQUIRED: [(&str, &str); 2] = [("-m", ""), ("-Z", "1")];

fn server(place: &Place, letters: &str, settings: &[(&str, &str)]) -> Server {
    let mut setup = Setup::script(place, SCRIPT)
        .options("-V")
        .options(letters)
        .env("PATH", "/usr/bin:/bin");
    for (name, value) in settings {
        setup = setup.env(name, *value);
    }
    setup.start()
}

/// What the program said, or nothing where the client was refused.
fn says(server: &Server, identity: &Identity, version: SslVersion) -> Option<String> {
    let dial = Dial::to(server).version(version).presenting(identity);
    let mut client = dial.attempt().ok()?;
    client.send("hello\n");
    let (bytes, end) = client.rest();
    if end != End::CloseNotify {
        assert!(bytes.is_empty(), "refused after {bytes:?}");
        return None;
    }
    let text = String::from_utf8(bytes).unwrap();
    Some(text.strip_prefix("hello ").unwrap().trim_end().to_owned())
}

/// The same in both versions.
fn both(server: &Server, identity: &Identity) -> Option<String> {
    let [twelve, thirteen] = BOTH.map(|version| says(server, identity, version));
    assert_eq!(twelve, thirteen, "log: {}", server.log());
    twelve
}

/// Refused where a certificate is required; let in under `-Y`, with this reason
/// in every word that is said of it.
fn tolerated(place: &Place, settings: &[(&str, &str)], identity: &Identity, reason: &str) {
    for (letter, value) in REQUIRED {
        let settings = [settings, &[("CCAVERIFY", value)]].concat();
        let strict = server(place, letter, &settings);
        assert_eq!(both(&strict, identity), None, "{letter}");
        let line = strict.line("did not verify");
        assert!(line.contains(reason), "{line}");
        // What the client was told.
        let (_, alert) = line.split_once("; sent alert ").expect(&line);
        assert!(alert.ends_with(')'), "{line}");
    }
    let open = server(place, "-Y", settings);
    let said = both(&open, identity).unwrap_or_else(|| panic!("refused: {}", open.log()));
    assert!(
        said.starts_with(&format!("FAILED:{reason}")),
        "{said} is not {reason}"
    );
    for line in open.lines("sslserver: tls ", 2) {
        assert!(line.contains(" verify=FAIL "), "{line}");
    }
    assert!(!open.log().contains("warning"), "{}", open.log());
}

#[test]
fn a_forged_authority_makes_no_client_s_certificate_good() {
    need!("openssl");
    let place = Place::new("forged-authority");
    let (top, evil) = (Authority::root("Top"), Authority::root("Evil Root"));
    let real = top.below("Real CA");
    let mut forged = Leaf::new("postmaster").issue_by(&real.forged_below(&evil));
    forged.between.push(evil.certificate.clone());
    let lists = [real.crl(&place, &[], false), top.crl(&place, &[], false)].concat();
    let lists = place.write("lists.pem", lists);
    // Only the root is an anchor, or the real authority stands beside it.
    let root = place.write("root.pem", top.pem());
    let settings = [("CAFILE", &*root), ("CRLFILE", &*lists)];
    tolerated(&place, &settings, &forged, "self-signed certificate in");
    let two = place.write("two.pem", [top.pem(), real.pem()].concat());
    let settings = [("CAFILE", &*two), ("CRLFILE", &*lists)];
    tolerated(&place, &settings, &forged, "certificate signature failure");
    tolerated(&place, &settings[..1], &forged, "certificate signature");
    // The anchor's own name, on a root and below one.
    for (number, authority) in [top.forged_root(), top.forged_below(&evil)]
        .iter()
        .enumerate()
    {
        let mut forged = Leaf::new("postmaster").issue_by(authority);
        forged.between.push(evil.certificate.clone());
        let list = place.write(&format!("list{number}"), top.crl(&place, &[], false));
        let settings = [("CAFILE", &*root), ("CRLFILE", &*list)];
        tolerated(&place, &settings, &forged, "certificate signature failure");
    }
    // The real one's clients are let in.
    let good = Leaf::new("good").issue_by(&real);
    let settings = [("CAFILE", &*root), ("CRLFILE", &*lists)];
    for letter in ["-Y", "-m"] {
        let said = both(&server(&place, letter, &settings), &good);
        assert_eq!(said.as_deref(), Some("SUCCESS CN=good"));
    }
}

#[test]
fn an_intermediate_alone_is_an_anchor() {
    need!("openssl");
    let place = Place::new("intermediate-anchor");
    let top = Authority::root("Top");
    let (middle, other) = (top.below("Middle"), top.below("Other"));
    let good = Leaf::new("good").issue_by(&middle);
    let below = Leaf::new("below").issue_by(&middle.below("Low"));
    let bad = Leaf::new("bad").issue_by(&middle);
    let stranger = Leaf::new("stranger").issue_by(&other);
    let anchor = place.write("middle.pem", middle.pem());
    let folder = place.path("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("middle.pem"), middle.pem()).unwrap();
    let folder = place.text("folder");
    let settings = [("CAFILE", &*anchor)];
    for settings in [settings, [("CADIR", &*folder)]] {
        for letters in ["-m", "-Y"] {
            let server = server(&place, letters, &settings);
            assert_eq!(both(&server, &good).as_deref(), Some("SUCCESS CN=good"));
            assert_eq!(both(&server, &below).as_deref(), Some("SUCCESS CN=below"));
            assert!(!server.log().contains("warning"), "{}", server.log());
        }
        tolerated(&place, &settings, &stranger, "unable to get");
    }
    // Its own name is not enough, on a root's certificate or below another.
    let evil = Authority::root("Evil Root");
    for authority in [middle.forged_root(), middle.forged_below(&evil)] {
        let mut forged = Leaf::new("postmaster").issue_by(&authority);
        forged.between.push(evil.certificate.clone());
        tolerated(&place, &settings, &forged, "certificate signature failure");
    }
    // Intermediates are counted from it.
    let short = [("CAFILE", &*anchor), ("VERIFYDEPTH", "0")];
    let server_of_few = server(&place, "-m", &short);
    assert!(both(&server_of_few, &good).is_some());
    assert_eq!(both(&server_of_few, &below), None);
    // Its own list is needed, and none of its issuer's, who is not trusted.
    let list = middle.crl(&place, &[bad.serial()], false);
    let above = top.crl(&place, &[], false);
    for lists in [list.clone(), [list, above.clone()].concat()] {
        let lists = place.write("lists.pem", lists);
        let settings = [("CAFILE", &*anchor), ("CRLFILE", &*lists)];
        for letters in ["-m", "-Y"] {
            let server = server(&place, letters, &settings);
            let said = both(&server, &good);
            assert_eq!(said.as_deref(), Some("SUCCESS CN=good"), "{}", server.log());
            assert_eq!(both(&server, &bad), None);
            server.line("certificate revoked");
        }
    }
    let above = place.write("above.pem", above);
    let settings = [("CAFILE", &*anchor), ("CRLFILE", &*above)];
    let server = server(&place, "-m", &settings);
    assert_eq!(both(&server, &good), None);
    server.line("unable to get certificate CRL");
}

#[test]
fn a_listed_leaf_is_an_anchor_only_where_it_signed_itself() {
    let place = Place::new("leaf-anchor");
    let middle = Authority::root("Top").below("Middle");
    let leaf = Leaf::new("leaf").issue_by(&middle);
    let anchor = place.write("leaf.pem", leaf.certificate.to_pem().unwrap());
    let server_of_leaf = server(&place, "-m", &[("CAFILE", &anchor)]);
    assert_eq!(both(&server_of_leaf, &leaf), None);
    server_of_leaf.line("no certificate of an authority in it (CN=leaf is none)");
    // Nor beside an intermediate that is one.
    let other = Authority::root("Other").below("Other Middle");
    let pem = [leaf.certificate.to_pem().unwrap(), other.pem()].concat();
    let anchors = place.write("two.pem", pem);
    tolerated(&place, &[("CAFILE", &anchors)], &leaf, "unable to get");
    let own = Leaf::new("own").self_signed();
    let anchor = place.write("own.pem", own.certificate.to_pem().unwrap());
    let server_of_own = server(&place, "-m", &[("CAFILE", &anchor)]);
    let said = both(&server_of_own, &own);
    assert_eq!(said.as_deref(), Some("SUCCESS CN=own"));
}

#[test]
fn a_chain_goes_on_to_the_root_where_that_is_listed_too() {
    need!("openssl");
    let place = Place::new("intermediate-and-root");
    let top = Authority::root("Top");
    let middle = top.below("Middle");
    let good = Leaf::new("good").issue_by(&middle);
    let serial = middle.certificate.serial_number().to_bn().unwrap();
    let serial = serial.to_hex_str().unwrap().to_string();
    let own = middle.crl(&place, &[], false);
    // An intermediate of somebody else's, whose root is not there, changes nothing.
    let other = Authority::root("Other").below("Other Middle");
    for pem in [
        [top.pem(), middle.pem()].concat(),
        [middle.pem(), other.pem(), top.pem()].concat(),
    ] {
        let anchors = place.write("anchors.pem", pem);
        for (revoked, said) in [
            (vec![], Some("SUCCESS CN=good")),
            (vec![serial.clone()], None),
        ] {
            let lists = [own.clone(), top.crl(&place, &revoked, false)].concat();
            let lists = place.write("lists.pem", lists);
            let settings = [("CAFILE", &*anchors), ("CRLFILE", &*lists)];
            let server = server(&place, "-m", &settings);
            assert_eq!(both(&server, &good).as_deref(), said, "{}", server.log());
        }
    }
}

#[test]
fn a_cross_signed_authority_is_an_anchor_without_its_signer() {
    let place = Place::new("cross-signed");
    let (one, two) = (Authority::root("One"), Authority::root("Two"));
    let (one_by_two, two_by_one) = (one.cross_signed_by(&two), two.cross_signed_by(&one));
    let leaves = [&one, &two].map(|authority| Leaf::new("good").issue_by(authority));
    for (pem, accepted) in [
        (one_by_two.pem(), [true, false]),
        // Each leads to the other, and neither to a root.
        ([one_by_two.pem(), two_by_one.pem()].concat(), [true, true]),
        ([one_by_two.pem(), one.pem()].concat(), [true, false]),
        ([one_by_two.pem(), two.pem()].concat(), [true, true]),
    ] {
        let anchors = place.write("anchors.pem", pem);
        let server = server(&place, "-m", &[("CAFILE", &anchors)]);
        for (leaf, accepted) in leaves.iter().zip(accepted) {
            assert_eq!(both(&server, leaf).is_some(), accepted, "{}", server.log());
        }
    }
}

#[test]
fn a_certificate_for_servers_makes_no_good_client() {
    need!("openssl");
    let place = Place::new("client-purpose");
    let top = Authority::root("Top");
    let middle = top.below("Middle");
    let root = place.write("root.pem", top.pem());
    // Without a list of the root's: it is not asked for.
    let list = place.write("list.pem", middle.crl(&place, &[], false));
    let wrong = Leaf::new("server").purpose(SERVER_AUTH).issue_by(&middle);
    let right = Leaf::new("client").purpose(CLIENT_AUTH).issue_by(&middle);
    for settings in [
        &[("CAFILE", &*root)][..],
        &[("CAFILE", &*root), ("CRLFILE", &*list)],
    ] {
        tolerated(&place, settings, &wrong, "unsuitable certificate purpose");
        let said = both(&server(&place, "-m", settings), &right);
        assert_eq!(said.as_deref(), Some("SUCCESS CN=client"));
    }
}

#[test]
fn an_authority_with_a_list_and_no_trust_vouches_for_nobody() {
    need!("openssl");
    let place = Place::new("list-without-trust");
    let (top, other) = (Authority::root("Top"), Authority::root("Other"));
    let root = place.write("root.pem", top.pem());
    let lists = [top.crl(&place, &[], false), other.crl(&place, &[], false)].concat();
    let lists = place.write("lists.pem", lists);
    let settings = [("CAFILE", &*root), ("CRLFILE", &*lists)];
    let stranger = Leaf::new("stranger").issue_by(&other);
    let why = "unable to get local issuer certificate";
    tolerated(&place, &settings, &stranger, why);
    let mut whole = stranger;
    whole.between.push(other.certificate.clone());
    tolerated(&place, &settings, &whole, "self-signed certificate in");
    let below = Leaf::new("leaf").issue_by(&other.below("Below"));
    tolerated(&place, &settings, &below, why);
}

#[test]
fn a_bad_signature_is_let_in_as_failed_and_served() {
    let place = Place::new("bad-signature");
    let root = place.write("root.pem", Authority::shared_root().pem());
    let bad = Leaf::new("bad").issue().with_a_bad_signature();
    let why = "certificate signature failure";
    tolerated(&place, &[("CAFILE", &*root)], &bad, why);
    // A root that did not sign itself is no better.
    let own = Leaf::new("own").self_signed().with_a_bad_signature();
    tolerated(
        &place,
        &[("CAFILE", &*root)],
        &own,
        "self-signed certificate",
    );
}

#[test]
fn names_that_cannot_be_read_cost_nobody_the_session() {
    let place = Place::new("garbled-names");
    let root = place.write("root.pem", Authority::shared_root().pem());
    let garbled = Leaf::new("garbled").garbled_names().issue();
    // Under -z there must be a name that can be read.
    let stranger = Leaf::new("garbled").garbled_names().self_signed();
    let pins = place.write("pins", stranger.fingerprint());
    let settings = [("CAFILE", &*root)];
    // Looked at for the environment too.
    for letters in ["-Y", "-sY"] {
        let server = server(&place, letters, &settings);
        for identity in [&garbled, &stranger] {
            let said = both(&server, identity);
            let said = said.unwrap_or_else(|| panic!("{}", server.log()));
            assert!(said.starts_with("FAILED:"), "{said}");
        }
    }
    let settings = [("CAFILE", &*root), ("PINFILE", &*pins)];
    for (letters, said) in [
        ("-m", Some("PINNED CN=garbled")),
        ("-sm", Some("PINNED CN=garbled")),
        ("-hsz", None),
    ] {
        let server = server(&place, letters, &settings);
        assert_eq!(both(&server, &stranger).as_deref(), said, "{letters}");
        assert_eq!(both(&server, &garbled), None);
    }
}

#[test]
fn the_first_thing_that_was_wrong_is_the_one_that_is_told() {
    let place = Place::new("first-reason");
    let root = place.write("root.pem", Authority::shared_root().pem());
    let settings = [("CAFILE", &*root)];
    // Expired too, and for another purpose: the issuer comes first.
    let worst = Leaf::new("worst").expired().purpose(SERVER_AUTH);
    let worst = worst.issue_by(&Authority::root("Nobody"));
    let why = "unable to get local issuer certificate";
    tolerated(&place, &settings, &worst, why);
    let late = Leaf::new("late").expired().purpose(SERVER_AUTH).issue();
    tolerated(&place, &settings, &late, "unsuitable certificate purpose");
    let late = Leaf::new("late").expired().issue();
    tolerated(&place, &settings, &late, "certificate has expired");
}

#[test]
fn revocation_decides_under_every_letter() {
    need!("openssl");
    let place = Place::new("revocation-letters");
    let top = Authority::root("Top");
    let middle = top.below("Middle");
    let (good, bad) = (
        Leaf::new("good").issue_by(&middle),
        Leaf::new("bad").issue_by(&middle),
    );
    let root = place.write("root.pem", top.pem());
    let fresh = place.write("fresh.pem", middle.crl(&place, &[bad.serial()], false));
    let stale = place.write("stale.pem", middle.crl(&place, &[], true));
    let above = place.write("above.pem", top.crl(&place, &[], false));
    let pins = place.write("pins", format!("{}\n", bad.fingerprint()));
    for (list, identity, why) in [
        (&fresh, &bad, "certificate revoked"),
        (&stale, &good, "CRL has expired"),
        // A list for the issuer of the client's own there must be.
        (&above, &good, "unable to get certificate CRL"),
    ] {
        for (letter, value) in [("-Y", ""), ("-m", ""), ("-Z", "1"), ("-hz", "")] {
            let settings = [
                ("CAFILE", &*root),
                ("CRLFILE", &**list),
                ("CCAVERIFY", value),
                ("PINFILE", if list == &fresh { &*pins } else { "" }),
            ];
            let refusing = server(&place, letter, &settings);
            assert_eq!(both(&refusing, identity), None, "{letter} {why}");
            let line = refusing.line("did not verify");
            assert!(line.contains(why), "{line}");
        }
    }
    // A stranger's authority has no list of ours, which is no news.
    let settings = [("CAFILE", &*root), ("CRLFILE", &*fresh)];
    let stranger = Leaf::new("stranger").self_signed();
    tolerated(&place, &settings, &stranger, "self-signed certificate");
    // None is asked for above the issuer.
    for letter in ["-Y", "-m"] {
        let said = both(&server(&place, letter, &settings), &good);
        assert_eq!(said.as_deref(), Some("SUCCESS CN=good"));
    }
}

#[test]
fn a_pin_stands_in_the_chain_s_place_and_not_in_the_name_s() {
    let place = Place::new("pin-and-chain");
    let root = place.write("root.pem", Authority::shared_root().pem());
    let evil = Authority::root("Evil Root");
    let pinned = Leaf::new("friend").dns("localhost").purpose(SERVER_AUTH);
    let pinned = pinned.issue_by(&evil);
    let twin = Leaf::new("friend").issue_by(&evil);
    let pins = place.write("pins", format!("{}\n", pinned.fingerprint()));
    let settings = [("CAFILE", &*root), ("PINFILE", &*pins)];
    for letter in ["-Y", "-m", "-hz"] {
        let said = both(&server(&place, letter, &settings), &pinned);
        assert_eq!(said.as_deref(), Some("PINNED CN=friend"), "{letter}");
    }
    // What -z asks for beside the chain is asked for still.
    let nameless = Leaf::new("friend").issue_by(&evil);
    let both_pins = format!("{}\n{}\n", pinned.fingerprint(), nameless.fingerprint());
    let both_pins = place.write("both-pins", both_pins);
    let named = server(
        &place,
        "-hz",
        &[("CAFILE", &*root), ("PINFILE", &both_pins)],
    );
    assert_eq!(both(&named, &nameless), None);
    named.line("it does not name localhost");
    assert!(both(&named, &pinned).is_some());
    // The same names and the same key are not the same certificate.
    let why = "unable to get local issuer certificate";
    tolerated(&place, &settings, &twin, why);
}

/// A directory of the server's with this beside a good certificate file.
fn folder(place: &Place, name: &str, bytes: &[u8]) -> String {
    let path = place.fresh("folder");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("good.pem"), Authority::shared_root().pem()).unwrap();
    std::fs::write(path.join(name), bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_damaged_file_among_the_anchors_is_named() {
    need!("openssl");
    let place = Place::new("damaged-anchors");
    let top = Authority::root("Top");
    let pem = String::from_utf8(top.pem()).unwrap();
    let middle = pem.len() / 2;
    let known = Leaf::new("known").issue();
    // Passed by: no PEM block, or a whole one of another kind.
    let der = top.certificate.to_der().unwrap();
    let list = top.crl(&place, &[], false);
    for other in [&b""[..], b"Read me.\n", &der, &list, b"-----\n"] {
        let folder = folder(&place, "other", other);
        let server = server(&place, "-m", &[("CADIR", &*folder)]);
        let said = both(&server, &known);
        assert_eq!(said.as_deref(), Some("SUCCESS CN=known"), "{other:?}");
    }
    let bodies = |text: &str| text.replace("-----BEGIN CERTIFICATE-----", "");
    for (what, damaged) in [
        ("cut", pem[..middle].to_owned()),
        ("cut behind a whole one", pem.clone() + &pem[..middle]),
        (
            "without its end",
            pem.replace("-----END CERTIFICATE-----", ""),
        ),
        ("without its begin", bodies(&pem)),
        ("one of two without its begin", pem.clone() + &bodies(&pem)),
        ("a bad byte", {
            let mut text = pem.clone();
            text.replace_range(middle..=middle, "!");
            text
        }),
        (
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        ),
        ("short of a dash", pem.replacen("-----", "----", 1)),
    ] {
        let folder = folder(&place, "bad.pem", damaged.as_bytes());
        let setup = Setup::script(&place, SCRIPT);
        for letters in ["-m", "-k -Z"] {
            let setup = Setup::script(&place, SCRIPT).options(letters);
            let ended = setup.env("CADIR", &folder).refused();
            let line = format!("unable to load CA list: CADIR {folder}/bad.pem: ");
            ended.failed(111, &line);
        }
        let file = place.write("bad-file.pem", damaged);
        let ended = setup.options("-m").env("CAFILE", &file).refused();
        assert_eq!(ended.code, Some(111), "{what}: {}", ended.stderr);
        ended.failed(111, &format!("unable to load CA list: CAFILE {file}: "));
    }
    // A link that leads nowhere is a file that cannot be read.
    let folder = folder(&place, "other", b"");
    std::os::unix::fs::symlink("nowhere", format!("{folder}/link.pem")).unwrap();
    let setup = Setup::script(&place, SCRIPT).options("-m");
    let ended = setup.env("CADIR", &folder).refused();
    ended.failed(111, &format!("CADIR {folder}/link.pem: no such file"));
}

#[test]
fn a_damaged_list_is_named() {
    need!("openssl");
    let place = Place::new("damaged-lists");
    let root = place.write("root.pem", Authority::shared_root().pem());
    let list = Authority::shared_root().crl(&place, &[], false);
    let list = String::from_utf8(list).unwrap();
    for damaged in [
        list.clone() + &list[..list.len() / 2],
        list.clone() + &list.replacen("-----BEGIN", "----BEGIN", 1),
        list.replacen("-----END X509 CRL-----", "", 1) + &list,
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned(),
    ] {
        let garbled = damaged.contains("AAAA\n-----END");
        let file = place.write("list.pem", damaged);
        let setup = Setup::script(&place, SCRIPT).options("-m");
        let ended = setup.env("CAFILE", &root).env("CRLFILE", &file).refused();
        let line = format!("unable to load revocation lists: CRLFILE {file}: ");
        ended.failed(111, &line);
        assert!(
            !garbled
                || ended
                    .stderr
                    .contains("its PEM revocation list is damaged: "),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn anchors_that_nobody_needs_may_be_missing() {
    let place = Place::new("missing-anchors");
    let none = place.text("none");
    let known = Leaf::new("known").issue();
    let empty = place.fresh("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    for (variable, path, why) in [
        ("CAFILE", &*none, "no such file or directory"),
        ("CADIR", &none, "no such file or directory"),
        ("CCAFILE", &none, "no such file or directory"),
        ("CADIR", empty, "no certificate file in it"),
    ] {
        let server = Setup::script(&place, SCRIPT).env(variable, path).start();
        assert_eq!(both(&server, &known).as_deref(), Some("NONE"));
        server.line(&format!("sslserver: warning: {variable} {path}: {why}; "));
        let checked = Setup::script(&place, SCRIPT).options("-k");
        let ended = checked.env(variable, path).refused();
        assert_eq!(ended.code, Some(0), "{}", ended.text());
        let note = format!("note: {variable} {path}: {why}; ");
        assert!(ended.text().contains(&note), "{}", ended.text());
        // Where somebody needs them, nobody is served without.
        for letters in ["-Y", "-m", "-z"] {
            let setup = Setup::script(&place, SCRIPT).options(letters);
            let ended = setup.env(variable, path).refused();
            ended.failed(111, &format!("unable to load CA list: {variable} {path}: "));
        }
        let setup = Setup::script(&place, SCRIPT).env("CCAVERIFY", "1");
        let ended = setup.env(variable, path).refused();
        assert_eq!(ended.code, Some(111), "{}", ended.stderr);
    }
}
