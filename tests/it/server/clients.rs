//! Client certificates: asked for or not, required, verified, pinned, revoked.
#![forbid(unsafe_code)]

use openssl::ssl::SslVersion;

use crate::harness::overlay;
use crate::harness::{
    Authority, Dial, End, Identity, Leaf, Place, Server, Setup, need, need_root, skip,
};

const BOTH: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// What the program of these tests prints.
const SCRIPT: &str = "echo \"$SSL_CLIENT_VERIFY $SSL_PEER_S_DN\"";

/// A server that trusts the shared root for its clients.
fn asking<'a>(place: &'a Place, letters: &str) -> Setup<'a> {
    let root = place.write("ca.pem", Authority::shared_root().pem());
    Setup::script(place, SCRIPT)
        .options(letters)
        .env("CAFILE", root)
}

/// The program's line, or none where the server refused.
fn line(server: &Server, identity: Option<&Identity>, version: SslVersion) -> Option<String> {
    let mut dial = Dial::to(server).version(version);
    if let Some(identity) = identity {
        dial = dial.presenting(identity);
    }
    let mut client = dial.attempt().ok()?;
    let (bytes, end) = client.rest();
    if end == End::CloseNotify {
        return Some(String::from_utf8(bytes).unwrap().trim_end().to_owned());
    }
    assert!(bytes.is_empty(), "refused after {bytes:?}");
    None
}

/// The same result in both versions of TLS.
fn both(server: &Server, identity: Option<&Identity>) -> Option<String> {
    let [twelve, thirteen] = BOTH.map(|version| line(server, identity, version));
    assert_eq!(twelve, thirteen, "log: {}", server.log());
    twelve
}

#[test]
fn each_letter_asks_in_its_own_way() {
    let place = Place::new("asking");
    let known = Leaf::new("known").issue();
    let stranger = Leaf::new("stranger").self_signed();
    // Nobody is asked.
    let server = asking(&place, "-Z").start();
    assert_eq!(both(&server, Some(&known)).as_deref(), Some("NONE"));
    assert_eq!(both(&server, None).as_deref(), Some("NONE"));
    // Asked, and let in whatever comes.
    let server = asking(&place, "-Y").start();
    assert_eq!(
        both(&server, Some(&known)).as_deref(),
        Some("SUCCESS CN=known")
    );
    assert_eq!(both(&server, None).as_deref(), Some("NONE"));
    let failed = both(&server, Some(&stranger)).unwrap();
    assert!(
        failed.starts_with("FAILED:self-signed certificate"),
        "{failed}"
    );
    assert!(failed.ends_with(" CN=stranger"), "{failed}");
    // Required.
    let server = asking(&place, "-m").start();
    assert_eq!(
        both(&server, Some(&known)).as_deref(),
        Some("SUCCESS CN=known")
    );
    assert_eq!(both(&server, None), None);
    assert_eq!(both(&server, Some(&stranger)), None);
    // The last letter wins.
    let server = asking(&place, "-mY").start();
    assert_eq!(both(&server, None).as_deref(), Some("NONE"));
}

#[test]
fn z_wants_the_client_s_host_name() {
    let place = Place::new("named");
    let server = asking(&place, "-hz").start();
    let right = Leaf::new("right").dns("localhost").issue();
    let wrong = Leaf::new("localhost").dns("elsewhere.example.com").issue();
    assert_eq!(
        both(&server, Some(&right)).as_deref(),
        Some("SUCCESS CN=right")
    );
    assert_eq!(both(&server, Some(&wrong)), None);
    assert_eq!(both(&server, None), None);
    let told = server.line("client certificate did not verify");
    assert!(
        told.contains("depth 0, /CN=localhost: ") && told.contains("name"),
        "{told}"
    );
    // A client whose name is unknown matches nothing.
    let server = asking(&place, "-Hz").start();
    assert_eq!(both(&server, Some(&right)), None);
}

#[test]
fn z_is_strict_about_names() {
    need_root!();
    need!("unshare");
    let place = Place::new("named-strictly");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    let hosts = overlay::hosts(&place, "127.0.0.1 mail.example.com\n");
    let server = asking(&place, "-hz").through(hosts).start();
    for (names, good) in [
        (&["mail.example.com"][..], true),
        (&["MAIL.Example.COM"], true),
        (&["*.example.com"], true),
        (
            &["a.example.net", "b.example.net", "mail.example.com"],
            true,
        ),
        (&["m*.example.com"], false),
        (&["*.com"], false),
        (&["*.*.com"], false),
        (&["example.com"], false),
    ] {
        let mut leaf = Leaf::new("mail.example.com");
        for name in names {
            leaf = leaf.dns(name);
        }
        let got = line(&server, Some(&leaf.issue()), SslVersion::TLS1_3);
        assert_eq!(got.is_some(), good, "{names:?}");
    }
    // The common name alone is no name.
    assert_eq!(
        line(
            &server,
            Some(&Leaf::new("mail.example.com").issue()),
            SslVersion::TLS1_3
        ),
        None
    );
}

#[test]
fn anchors_come_from_a_file_or_from_every_file_of_a_directory() {
    let place = Place::new("anchors");
    let other = Authority::root("Other Root");
    let known = Leaf::new("known").issue();
    let theirs = Leaf::new("theirs").issue_by(&other);
    std::fs::create_dir(place.path("dir")).unwrap();
    // Names without hashes, and one that is no certificate's.
    place.write("dir/first.crt", Authority::shared_root().pem());
    place.write("dir/second.pem", other.pem());
    let server = Setup::script(&place, SCRIPT)
        .options("-m")
        .env("CADIR", place.path("dir"))
        .start();
    assert_eq!(
        both(&server, Some(&known)).as_deref(),
        Some("SUCCESS CN=known")
    );
    assert_eq!(
        both(&server, Some(&theirs)).as_deref(),
        Some("SUCCESS CN=theirs")
    );
    // A file with two roots.
    let two = place.write(
        "two.pem",
        [Authority::shared_root().pem(), other.pem()].concat(),
    );
    let server = Setup::script(&place, SCRIPT)
        .options("-m")
        .env("CAFILE", two)
        .start();
    assert_eq!(
        both(&server, Some(&theirs)).as_deref(),
        Some("SUCCESS CN=theirs")
    );
    let server = asking(&place, "-m").start();
    assert_eq!(both(&server, Some(&theirs)), None);
}

#[test]
fn no_anchors_means_that_nobody_verifies() {
    let place = Place::new("no-anchors");
    let known = Leaf::new("known").issue();
    let setup = Setup::script(&place, SCRIPT).options("-m");
    // Either it is refused at start, or every client is: the system's store, which
    // was not asked for, must never decide.
    let empty = place.write("pins", "# nobody yet\n");
    for server in [setup.start(), setup.env("PINFILE", empty).start()] {
        assert_eq!(both(&server, Some(&known)), None);
        let line = server.line("every client is refused");
        assert!(line.contains("PINFILE is unset or empty"), "{line}");
    }
}

#[test]
fn the_names_of_cas_are_sent() {
    need!("openssl");
    let place = Place::new("ca-names");
    let names = |server: &Server| {
        let mut command = std::process::Command::new("openssl");
        command.args(["s_client", "-connect", &server.at.to_string(), "-tls1_2"]);
        crate::harness::run(&mut command, b"").text()
    };
    let other = place.write("other.pem", Authority::root("Named Root").pem());
    let server = asking(&place, "-Y").env("CCAFILE", other).start();
    let text = names(&server);
    assert!(
        text.contains("Acceptable client certificate CA names\nCN = Named Root"),
        "{text}"
    );
    // A dash turns the request off.
    let server = asking(&place, "-Y").env("CCAFILE", "-").start();
    let text = names(&server);
    assert!(
        text.contains("No client certificate CA names sent"),
        "{text}"
    );
    let known = Leaf::new("known").issue();
    assert_eq!(both(&server, Some(&known)).as_deref(), Some("NONE"));
}

#[test]
fn ccaverify_requires_a_certificate() {
    let place = Place::new("ccaverify");
    let known = Leaf::new("known").issue();
    let server = asking(&place, "").env("CCAVERIFY", "1").start();
    assert_eq!(both(&server, None), None);
    assert_eq!(
        both(&server, Some(&known)).as_deref(),
        Some("SUCCESS CN=known")
    );
    // Empty is unset.
    let server = asking(&place, "").env("CCAVERIFY", "").start();
    assert_eq!(both(&server, None).as_deref(), Some("NONE"));
}

#[test]
fn revoked_certificates_are_refused() {
    need!("openssl");
    let place = Place::new("revoked");
    let good = Leaf::new("good").issue();
    let bad = Leaf::new("bad").issue();
    // Every certificate of the chain is checked, so each issuer has its list.
    let upper = Authority::shared_root().crl(&place, &[], false);
    let lower = Authority::shared().crl(&place, &[bad.serial()], false);
    let file = place.write("crl.pem", [upper.clone(), lower].concat());
    let server = asking(&place, "-m").env("CRLFILE", file).start();
    assert_eq!(
        both(&server, Some(&good)).as_deref(),
        Some("SUCCESS CN=good")
    );
    assert_eq!(both(&server, Some(&bad)), None);
    let told = server.line("revoked");
    assert!(
        told.contains("/CN=bad") && told.contains("depth 0"),
        "{told}"
    );
    // A list out of date refuses, and says so.
    let lower = Authority::shared().crl(&place, &[], true);
    let file = place.write("old.pem", [upper, lower].concat());
    let server = asking(&place, "-m").env("CRLFILE", file).start();
    assert_eq!(both(&server, Some(&good)), None);
    assert!(
        server
            .line("dropping TLS connection")
            .contains("CRL has expired"),
        "{}",
        server.log()
    );
}

#[test]
fn a_revoked_intermediate_is_refused() {
    need!("openssl");
    let place = Place::new("revoked-above");
    let top = Authority::root("Own Root");
    let middle = top.below("Own Intermediate");
    let leaf = Leaf::new("below").issue_by(&middle);
    let root = place.write("own.pem", top.pem());
    let serial = middle
        .certificate
        .serial_number()
        .to_bn()
        .unwrap()
        .to_hex_str()
        .unwrap()
        .to_string();
    let file = place.write(
        "crl.pem",
        [
            top.crl(&place, &[serial], false),
            middle.crl(&place, &[], false),
        ]
        .concat(),
    );
    let setup = Setup::script(&place, SCRIPT)
        .options("-m")
        .env("CAFILE", root);
    let server = setup.start();
    assert_eq!(
        both(&server, Some(&leaf)).as_deref(),
        Some("SUCCESS CN=below")
    );
    let server = setup.env("CRLFILE", file).start();
    assert_eq!(both(&server, Some(&leaf)), None);
    let told = server.line("revoked");
    assert!(
        told.contains("Own Intermediate") && told.contains("depth 1"),
        "{told}"
    );
}

#[test]
fn a_pinned_certificate_is_accepted_whoever_signed_it() {
    let place = Place::new("pins");
    let pinned = Leaf::new("pinned").self_signed();
    let late = Leaf::new("late").expired().self_signed();
    let stranger = Leaf::new("stranger").self_signed();
    let known = Leaf::new("known").issue();
    let upper = late.fingerprint().to_uppercase();
    // As `openssl x509 -fingerprint -sha256` prints it: with colons and a name.
    let pairs: Vec<&str> = upper
        .as_bytes()
        .chunks(2)
        .map(|pair| str::from_utf8(pair).unwrap())
        .collect();
    let printed = format!("sha256 Fingerprint={}", pairs.join(":"));
    let text = format!(
        "# friends\n\nsha256:{}\n{printed}  # an old one\n",
        pinned.fingerprint()
    );
    let pins = place.write("pins", text);
    for letter in ["-m", "-Y"] {
        let server = asking(&place, letter).env("PINFILE", &pins).start();
        assert_eq!(
            both(&server, Some(&pinned)).as_deref(),
            Some("PINNED CN=pinned")
        );
        assert_eq!(
            both(&server, Some(&late)).as_deref(),
            Some("PINNED CN=late")
        );
        let other = both(&server, Some(&stranger));
        assert_eq!(other.is_some(), letter == "-Y", "{other:?}");
        if letter == "-m" {
            server.line(": self-signed certificate; its fingerprint is not in PINFILE; sent alert");
        }
        assert_eq!(
            both(&server, Some(&known)).as_deref(),
            Some("SUCCESS CN=known")
        );
    }
}

#[test]
fn the_depth_of_the_chain_is_limited() {
    let place = Place::new("depth");
    let top = Authority::root("Deep Root");
    let deep = top.below("Deep 1").below("Deep 2").below("Deep 3");
    let leaf = Leaf::new("leaf").issue_by(&deep);
    let root = place.write("deep.pem", top.pem());
    for (limit, good) in [("5", true), ("4", true), ("1", false)] {
        let server = Setup::script(&place, SCRIPT)
            .options("-m")
            .env("CAFILE", &root)
            .env("VERIFYDEPTH", limit)
            .start();
        assert_eq!(both(&server, Some(&leaf)).is_some(), good, "{limit}");
    }
}

#[test]
fn a_client_that_is_refused_never_starts_the_program() {
    let place = Place::new("never-runs");
    let marker = place.text("ran");
    let root_file = place.write("ca.pem", Authority::shared_root().pem());
    let server = Setup::script(&place, &format!(": >{marker}"))
        .options("-mv")
        .env("CAFILE", root_file)
        .start();
    for version in BOTH {
        let _ = Dial::to(&server)
            .version(version)
            .attempt()
            .map(|mut client| client.rest());
    }
    server.lines("end ", 2);
    server.quiet();
    assert!(!std::fs::exists(&marker).unwrap());
}
