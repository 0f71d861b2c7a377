//! Whom sslclient trusts, and under which name.
#![forbid(unsafe_code)]

use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::ssl::{SslStream, SslVersion};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use crate::anchors::damaged;
use crate::harness::{
    Authority, Client, Finished, Identity, KeyKind, Leaf, Peer, Place, need, need_root, overlay,
    peer, skip,
};

/// A peer that greets and closes.
fn greeter(identity: &Identity) -> Peer<Result<(), String>> {
    Peer::tls(
        peer::context(identity, |_| ()),
        |tls: Result<SslStream<TcpStream>, String>| {
            let mut tls = tls?;
            // A client that does not like the certificate is gone before this.
            tls.write_all(b"hello\n")
                .map_err(|error| error.to_string())?;
            let _ = tls.shutdown();
            let _ = tls.shutdown();
            Ok(())
        },
    )
}

/// Connects to a peer with that certificate and gives what became of it. The
/// program prints what it gets.
fn meet(client: &Client, host: &str, identity: &Identity) -> Finished {
    let peer = greeter(identity);
    let ended = client.script(host, peer.at.port(), "echo ran; cat <&6");
    let _ = peer.join();
    ended
}

fn accepted(ended: &Finished) {
    assert_eq!(
        (ended.code, ended.text().as_str()),
        (Some(0), "ran\nhello\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr, "");
}

/// Refused in one line that holds every part; the program never ran.
fn refused(ended: &Finished, parts: &[&str]) {
    ended.failed(111, "sslclient: fatal: ");
    for part in parts {
        ended.failed(111, part);
    }
    assert_eq!(ended.text(), "", "the program ran");
}

#[test]
fn a_chain_that_does_not_verify_is_told_with_depth_subject_and_reason() {
    let place = Place::new("bad-chains");
    let client = Client::new(&place);
    accepted(&meet(
        &client,
        "localhost",
        &Identity::localhost(KeyKind::P256),
    ));
    let own = Leaf::localhost().self_signed();
    refused(
        &meet(&client, "localhost", &own),
        &["depth 0, /CN=localhost: self-signed certificate"],
    );
    let late = Leaf::localhost().expired().issue();
    refused(
        &meet(&client, "localhost", &late),
        &["depth 0, /CN=localhost: certificate has expired"],
    );
    let top = Authority::root("Some CA");
    let mut foreign = Leaf::localhost().issue_by(&top);
    refused(
        &meet(&client, "localhost", &foreign),
        &["depth 0, /CN=localhost: unable to get local issuer certificate"],
    );
    foreign.between.push(top.certificate.clone());
    refused(
        &meet(&client, "localhost", &foreign),
        &["depth 1, /CN=Some CA: self-signed certificate in certificate chain"],
    );
    // The intermediate that the server forgot is not looked for elsewhere.
    let mut lone = Identity::localhost(KeyKind::P256);
    lone.between.clear();
    refused(
        &meet(&client, "localhost", &lone),
        &["depth 0", "issuer certificate"],
    );
}

#[test]
fn the_server_learns_why_it_was_refused() {
    let place = Place::new("told-alert");
    let peer = greeter(&Leaf::localhost().self_signed());
    let ended = Client::new(&place).run("localhost", peer.at.port(), &["true"]);
    assert_eq!(ended.code, Some(111));
    let told = peer.join().unwrap_err();
    assert!(told.contains("alert unknown ca"), "{told}");
}

#[test]
fn names_are_matched_as_rfc_9525_says() {
    let place = Place::new("names");
    let client = Client::new(&place);
    let leaf = |names: &[&str]| {
        names
            .iter()
            .fold(Leaf::new("localhost"), |leaf, name| leaf.dns(name))
            .issue()
    };
    for (wanted, names, good) in [
        ("mail.example.com", &["mail.example.com"][..], true),
        ("mail.example.com", &["MAIL.Example.com"], true),
        ("MAIL.example.com", &["mail.example.com"], true),
        (
            "mail.example.com",
            &[
                "a.example",
                "b.example",
                "c.example",
                "mail.example.com",
                "d.example",
            ],
            true,
        ),
        ("mail.example.com", &["*.example.com"], true),
        ("a.b.example.com", &["*.example.com"], false),
        ("example.com", &["*.example.com"], false),
        ("mail.example.com", &["m*.example.com"], false),
        ("mail.example.com", &["*l.example.com"], false),
        ("mail.example.com", &["mail.*.com"], false),
        ("mail.example.com", &["*.*.com"], false),
        ("mail.example.com", &["*"], false),
        // One directly under a top-level domain would be everybody's.
        ("example.com", &["*.com"], false),
        ("mail.example.com", &["example.com"], false),
        (
            "xn--mller-kva.example.com",
            &["XN--MLLER-kva.example.com"],
            true,
        ),
        ("xn--mller-kva.example.com", &["*.example.com"], true),
        (
            "M\u{fc}ller.example.com",
            &["xn--mller-kva.example.com"],
            true,
        ),
        (
            "m\u{f6}ller.example.com",
            &["xn--mller-kva.example.com"],
            false,
        ),
        (
            "mail.example.com",
            &["mail.example.com.evil.example"],
            false,
        ),
        ("mail.example.com", &[], false),
        ("localhost", &[], false),
        ("localhost", &["elsewhere.example.com"], false),
    ] {
        let ended = meet(
            &Client::new(&place).options("-m").option(wanted),
            "127.0.0.1",
            &leaf(names),
        );
        if good {
            accepted(&ended);
        } else {
            refused(&ended, &["depth 0", "name"]);
            if names.is_empty() {
                let why = "it names no host: subjectAltName has none, and a CN does not count\n";
                refused(&ended, &[&format!("wanted {wanted}, {why}")]);
            }
        }
    }
    // The host is what is matched where -m says nothing else.
    accepted(&meet(&client, "localhost", &leaf(&["localhost"])));
    refused(
        &meet(&client, "localhost", &leaf(&["mail.example.com"])),
        &["/CN=localhost"],
    );
}

/// Tags of GeneralName (RFC 5280, 4.2.1.6).
const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;

#[test]
fn entries_of_other_kinds_and_with_nul_name_nobody() {
    let place = Place::new("entries");
    let client = Client::new(&place).options("-m mail.example.com");
    let name = b"mail.example.com";
    let leaf = || Leaf::new("mail.example.com");
    for (identity, good) in [
        (leaf().raw_name(DNS, name), true),
        (
            leaf().raw_name(DNS, b"mail.example.com\0.evil.example"),
            false,
        ),
        (leaf().raw_name(DNS, b"mail.example.com\0"), false),
        (leaf().raw_name(URI, name), false),
        (leaf().raw_name(MAIL, name), false),
        (
            leaf()
                .raw_name(URI, b"imap://other/")
                .raw_name(MAIL, b"a@b")
                .raw_name(0x88, &[42, 3])
                .raw_name(DNS, name),
            true,
        ),
    ] {
        let ended = meet(&client, "127.0.0.1", &identity.issue());
        if good {
            accepted(&ended);
        } else {
            refused(&ended, &["depth 0", "name"]);
        }
    }
}

#[test]
fn a_certificate_for_another_purpose_verifies_nobody() {
    let place = Place::new("purpose");
    let client = Client::new(&place);
    let server_auth = Leaf::localhost().purpose("1.3.6.1.5.5.7.3.1").issue();
    accepted(&meet(&client, "localhost", &server_auth));
    let client_auth = Leaf::localhost().purpose("1.3.6.1.5.5.7.3.2").issue();
    refused(
        &meet(&client, "localhost", &client_auth),
        &["depth 0, /CN=localhost: unsuitable certificate purpose"],
    );
}

#[test]
fn a_key_exchange_of_1024_bits_is_refused_unless_allowed() {
    let place = Place::new("weak-dh");
    let ciphers = "DHE-RSA-AES256-GCM-SHA384";
    let leaf = Leaf::localhost().key(KeyKind::Rsa2048).issue();
    for (prime, level, good) in [
        (BigNum::get_rfc3526_prime_2048().unwrap(), "", true),
        (BigNum::get_rfc2409_prime_1024().unwrap(), "", false),
        (
            BigNum::get_rfc2409_prime_1024().unwrap(),
            ":@SECLEVEL=1",
            true,
        ),
    ] {
        let context = peer::context(&leaf, |context| {
            context.set_security_level(0);
            context
                .set_max_proto_version(Some(SslVersion::TLS1_2))
                .unwrap();
            context.set_cipher_list(ciphers).unwrap();
            let group = Dh::from_pqg(prime, None, BigNum::from_u32(2).unwrap()).unwrap();
            context.set_tmp_dh(&group).unwrap();
        });
        let peer = Peer::tls(context, |tls: Result<SslStream<TcpStream>, String>| {
            tls?.write_all(b"hello\n")
                .map_err(|error| error.to_string())
        });
        let ended = Client::new(&place)
            .options("-z")
            .option(&format!("{ciphers}{level}"))
            .script("localhost", peer.at.port(), "echo ran; head -n 1 <&6");
        let _ = peer.join();
        if good {
            assert_eq!(ended.text(), "ran\nhello\n", "{}", ended.stderr);
        } else {
            refused(&ended, &["dh key too small"]);
        }
    }
}

#[test]
fn addresses_are_matched_against_addresses() {
    let place = Place::new("addresses");
    let client = Client::new(&place);
    let with = |address: &str| Leaf::new("127.0.0.1").address(address).issue();
    // Every entry is tried.
    let many = Leaf::new("x")
        .address("::1")
        .dns("a.example")
        .address("127.0.0.1")
        .address("127.0.0.2");
    accepted(&meet(&client, "127.0.0.1", &many.issue()));
    accepted(&meet(&client, "127.0.0.1", &with("127.0.0.1")));
    refused(
        &meet(&client, "127.0.0.1", &with("127.0.0.2")),
        &["depth 0"],
    );
    // Neither a name that looks like it nor the common name will do.
    refused(
        &meet(
            &client,
            "127.0.0.1",
            &Leaf::new("127.0.0.1").dns("127.0.0.1").issue(),
        ),
        &["depth 0"],
    );
    refused(
        &meet(&client, "127.0.0.1", &Leaf::new("127.0.0.1").issue()),
        &["depth 0"],
    );
    accepted(&meet(
        &Client::new(&place).options("-m 192.0.2.1"),
        "127.0.0.1",
        &with("192.0.2.1"),
    ));
    accepted(&meet(
        &Client::new(&place).options("-m 2001:db8::1"),
        "127.0.0.1",
        &with("2001:db8:0::1"),
    ));
}

#[test]
fn checks_can_be_turned_off_one_by_one() {
    let place = Place::new("checks");
    let wrong_name = Leaf::new("x").dns("elsewhere.example.com").issue();
    let stranger = Leaf::localhost().self_signed();
    accepted(&meet(
        &Client::new(&place).options("-N"),
        "localhost",
        &wrong_name,
    ));
    refused(
        &meet(&Client::new(&place).options("-N"), "localhost", &stranger),
        &["self-signed"],
    );
    refused(
        &meet(
            &Client::new(&place).options("-Nn"),
            "localhost",
            &wrong_name,
        ),
        &["depth 0"],
    );
    accepted(&meet(
        &Client::new(&place).options("-X"),
        "localhost",
        &stranger,
    ));
    refused(
        &meet(&Client::new(&place).options("-Xx"), "localhost", &stranger),
        &["self-signed"],
    );
    // Without any anchor nothing verifies.
    let good = Identity::localhost(KeyKind::P256);
    refused(
        &meet(&Client::bare().options("-a").option(""), "localhost", &good),
        &["issuer certificate"],
    );
    refused(
        &meet(&Client::bare(), "localhost", &good),
        &["issuer certificate"],
    );
}

#[test]
fn anchors_come_from_a_directory_too() {
    let place = Place::new("anchor-directory");
    std::fs::create_dir(place.path("dir")).unwrap();
    let root = place.write("dir/root.pem", Authority::shared_root().pem());
    // As c_rehash names it.
    crate::harness::need!("openssl");
    let hash = crate::harness::run(
        std::process::Command::new("openssl").args(["x509", "-noout", "-hash", "-in", &root]),
        b"",
    )
    .text();
    std::os::unix::fs::symlink(&root, place.path(&format!("dir/{}.0", hash.trim_end()))).unwrap();
    let client = Client::bare().options("-A").option(&place.text("dir"));
    accepted(&meet(
        &client,
        "localhost",
        &Identity::localhost(KeyKind::P256),
    ));
    let other = Leaf::localhost().issue_by(&Authority::root("Other"));
    refused(&meet(&client, "localhost", &other), &["issuer certificate"]);
}

#[test]
fn an_intermediate_alone_is_an_anchor() {
    let place = Place::new("client-intermediate");
    let top = Authority::root("Top");
    let (middle, other) = (top.below("Middle"), top.below("Other"));
    std::fs::create_dir(place.path("dir")).unwrap();
    let anchor = place.write("dir/middle.pem", middle.pem());
    let good = Leaf::localhost().issue_by(&middle);
    let stranger = Leaf::localhost().issue_by(&other);
    let folder = place.text("dir");
    for words in [["-a", &*anchor], ["-A", &*folder]] {
        let client = Client::bare().options(words[0]).option(words[1]);
        accepted(&meet(&client, "localhost", &good));
        let ended = meet(&client, "localhost", &stranger);
        refused(&ended, &["issuer certificate"]);
    }
    // A server's own certificate, which somebody else signed, is none.
    let own = place.write("own.pem", good.certificate.to_pem().unwrap());
    let client = Client::bare().options("-a").option(&own);
    refused(&meet(&client, "localhost", &good), &["issuer certificate"]);
}

#[test]
fn the_system_s_store_is_the_default() {
    let place = Place::new("system-store");
    // The library reads another one where its own variables say so.
    let root = place.write("system.pem", Authority::shared_root().pem());
    let client = Client::bare()
        .env("SSL_CERT_FILE", &root)
        .env("SSL_CERT_DIR", "/nonexistent");
    accepted(&meet(
        &client,
        "localhost",
        &Identity::localhost(KeyKind::P256),
    ));
    // One that does not parse is none, and takes no other with it.
    let bad = [
        damaged(&Authority::root("Bad")),
        Authority::shared_root().pem(),
    ];
    let both = place.write("both.pem", bad.concat());
    let with_bad = Client::bare()
        .env("SSL_CERT_FILE", &both)
        .env("SSL_CERT_DIR", "/nonexistent");
    let good = Identity::localhost(KeyKind::P256);
    accepted(&meet(&with_bad, "localhost", &good));
    // A directory by the hashes of subjects.
    let folder = place.path("hashed");
    fs::create_dir(&folder).unwrap();
    let hash = Authority::shared_root().certificate.subject_name_hash();
    let file = folder.join(format!("{hash:08x}.0"));
    fs::write(file, Authority::shared_root().pem()).unwrap();
    let hashed = Client::bare()
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", &place.text("hashed"));
    accepted(&meet(&hashed, "localhost", &good));
    // A file of one's own replaces it.
    let other = place.write("other.pem", Authority::root("Other").pem());
    let client = client.options("-a").option(&other);
    refused(
        &meet(&client, "localhost", &Identity::localhost(KeyKind::P256)),
        &["issuer certificate"],
    );
}

#[test]
fn the_length_of_the_chain_is_limited() {
    let place = Place::new("chain-length");
    let top = Authority::root("Deep Root");
    let deep = top.below("Deep 1").below("Deep 2").below("Deep 3");
    let mut leaf = Leaf::localhost().issue_by(&deep);
    leaf.between.truncate(3);
    let root = place.write("deep.pem", top.pem());
    let client = |depth: &str| {
        Client::bare()
            .options("-a")
            .option(&root)
            .options("-V")
            .option(depth)
    };
    accepted(&meet(&client("4"), "localhost", &leaf));
    refused(&meet(&client("1"), "localhost", &leaf), &["chain"]);
}

#[test]
fn a_name_with_two_addresses_is_tried_at_both() {
    need_root!();
    let place = Place::new("two-addresses");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    for hosts in [
        "127.0.0.1 two.example\n127.0.0.2 two.example\n",
        "127.0.0.2 two.example\n127.0.0.1 two.example\n",
    ] {
        let peer = greeter(&Leaf::new("two").dns("two.example").issue());
        let client = Client::new(&place).through(overlay::hosts(&place, hosts));
        accepted(&client.script("two.example", peer.at.port(), "echo ran; cat <&6"));
        peer.join().unwrap();
    }
}

#[test]
fn what_x_lets_pass_is_told_to_the_program() {
    need!("openssl");
    let place = Place::new("tolerated-server");
    let (top, evil) = (Authority::root("Top"), Authority::root("Evil Root"));
    let middle = top.below("Middle");
    let mut forged = Leaf::localhost().issue_by(&middle.forged_below(&evil));
    forged.between.push(evil.certificate.clone());
    let list = middle.crl(&place, &[], false);
    let ca = place.write("with-list.pem", [top.pem(), list].concat());
    let said = |identity: &Identity| {
        let peer = greeter(identity);
        let client = Client::bare().options("-vX -a").option(&ca);
        let ended = client.script("localhost", peer.at.port(), "echo $SSL_SERVER_VERIFY");
        let _ = peer.join();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        (ended.text(), ended.stderr)
    };
    for (identity, why) in [
        (forged, "self-signed certificate in certificate chain"),
        (
            Leaf::localhost()
                .purpose("1.3.6.1.5.5.7.3.2")
                .issue_by(&middle),
            "unsuitable certificate purpose",
        ),
        (
            Leaf::localhost().issue_by(&middle).with_a_bad_signature(),
            "certificate signature failure",
        ),
    ] {
        let (text, line) = said(&identity);
        assert!(text.starts_with(&format!("FAILED:{why}")), "{why}: {text}");
        assert!(line.contains(" verify=FAIL "), "{line}");
    }
    let (text, line) = said(&Leaf::localhost().issue_by(&middle));
    assert_eq!(text, "SUCCESS\n");
    assert!(line.contains(" verify=OK "), "{line}");
}
