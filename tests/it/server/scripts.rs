//! Run scripts written for ucspi-ssl 0.70 to 0.13: every letter that they use is
//! taken and means what it meant.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use crate::harness::{
    Authority, Client, Dial, Identity, KeyKind, Leaf, Place, Server, Setup, compile,
};

/// What the program says to a client from 127.0.0.N; none where there is no TLS.
fn said(server: &Server, last: u8) -> Option<String> {
    let from = SocketAddr::from(([127, 0, 0, last], 0));
    let mut client = Dial::to(server).from(from).attempt().ok()?;
    Some(client.text())
}

#[test]
fn rules_of_y_come_first_and_go_by_the_address_alone() {
    let place = Place::new("early-rules");
    let early = compile(
        &place,
        "early.cdb",
        "127.0.0.2:deny\n127.0.0.3-4:allow,A=\"early\",B=\"early\"\n127.0.0.5:allow,TLS_MAX=\"1.2\"\n",
    );
    let late = compile(
        &place,
        "late.cdb",
        "127.0.0.2:allow\n127.0.0.4:allow,B=\"late\"\n127.0.0.5:allow,TLS_MIN=\"1.2\"\n127.0.0.6:deny\n",
    );
    let script = "echo \"${A-unset} ${B-unset} $SSL_PROTOCOL\"";
    let setup = || Setup::script(&place, script).option("-y").option(&early);
    let server = setup().options("-v").rules(&late).start();
    assert_eq!(said(&server, 2), None);
    server.line("deny ");
    server.line("status 25600");
    let text = |last| said(&server, last);
    assert_eq!(text(1).as_deref(), Some("unset unset TLSv1.3\n"));
    assert_eq!(text(3).as_deref(), Some("early early TLSv1.3\n"));
    assert_eq!(text(4).as_deref(), Some("early late TLSv1.3\n"));
    assert_eq!(text(5).as_deref(), Some("unset unset TLSv1.2\n"));
    assert_eq!(text(6), None);
    // Alone, attached, and in a cluster.
    for letters in [format!("-y{early}"), format!("-RHy{early}")] {
        let server = Setup::script(&place, script).option(&letters).start();
        assert_eq!(said(&server, 2), None);
        assert_eq!(said(&server, 3).as_deref(), Some("early early TLSv1.3\n"));
        assert_eq!(said(&server, 6).as_deref(), Some("unset unset TLSv1.3\n"));
    }
    // A missing one denies, as one of -x does, and -X allows.
    let missing = place.text("missing.cdb");
    let setup = || Setup::script(&place, script).option("-y").option(&missing);
    assert_eq!(said(&setup().start(), 1), None);
    assert_eq!(
        said(&setup().options("-X").start(), 1).as_deref(),
        Some("unset unset TLSv1.3\n")
    );
}

#[test]
fn nobody_is_asked_for_the_name_of_a_client_that_y_denies() {
    let place = Place::new("early-names");
    let early = compile(&place, "early.cdb", "127.0.0.2:deny\n");
    // No name is known before that, and a rule by one is never met.
    let server = Setup::new(&place, &["echo", "served"])
        .options("-v -hr -y")
        .option(&early)
        .start();
    assert_eq!(said(&server, 2), None);
    let line = server.line("deny ");
    assert!(line.contains(" :127.0.0.2::"), "{line}");
    // The server's own name, which was given, is known.
    assert!(line.contains(" localhost:127.0.0.1:"), "{line}");
    let named = compile(
        &place,
        "named.cdb",
        "=localhost:deny\nme@127.0.0.1:deny\nsni=localhost:deny\n127.0.0.9:deny\n",
    );
    let setup = || {
        Setup::new(&place, &["echo", "served"])
            .options("-h -y")
            .option(&named)
    };
    let server = setup().start();
    assert_eq!(said(&server, 1).as_deref(), Some("served\n"));
    let idle = "rule =localhost, me@127.0.0.1, sni=localhost of -y has no effect";
    server.line(idle);
    let checked = setup().option("-k").refused();
    assert_eq!(checked.code, Some(111));
    assert!(checked.text().contains(idle), "{}", checked.text());
}

#[test]
fn a_changed_file_of_y_is_noticed() {
    let place = Place::new("early-reload");
    let early = compile(&place, "early.cdb", ":allow\n");
    let server = Setup::new(&place, &["echo", "served"])
        .option("-y")
        .option(&early)
        .start();
    assert_eq!(said(&server, 1).as_deref(), Some("served\n"));
    compile(&place, "early.cdb", "127.0.0.1:deny\n:allow\n");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.line("rules ");
    assert_eq!(said(&server, 1), None);
    // A damaged one leaves the old in force.
    place.write("early.cdb", "junk");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.line("unable to reload");
    assert_eq!(said(&server, 2).as_deref(), Some("served\n"));
    assert_eq!(said(&server, 1), None);
}

#[test]
fn the_option_sets_of_the_public_test_scripts_are_taken() {
    // As the scripts of both public versions start their servers; ports, paths
    // and addresses apart.
    let place = Place::new("public-scripts");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let password = place.write("password", "sesame");
    let identity = Identity::localhost(KeyKind::Rsa2048);
    let (certificate, _) = place.identity("own", &identity);
    let key = place.secret("own.key", identity.locked_key_pem("sesame"));
    let script = "echo $SSL_PROTOCOL $TCPREMOTEIP ${SSL_SERVER_S_DN:+full} $PROTO";
    let missing = place.text("rules.cdb");
    for (letters, proto) in [
        (
            "-s -e -c 1 -Bbanner: -vo -D -3 -X -Rt5 -hp -l Localserver -b 2 -w 2",
            "TCP",
        ),
        (
            "-s -e -c 1 -Bbanner: -vo -D -3 -X -Rt5 -Hp -l Localserver -b 2 -w 2 -6",
            "TCP",
        ),
        ("-secB 1 banner: -3X -Rt5 -Hpl Localserver -b2 -4", "TCP"),
        (
            "-q -c1 -Bbanner: -dD -3X -rRhHpPoO -zmYZ -nN -sSs -eEe -vVqQ -T10 -l0 -b2",
            "TCP",
        ),
    ] {
        // The last of these has its values in the cluster's words.
        let letters = letters.replace("-secB 1 banner:", "-sec1 -Bbanner:");
        let server = Setup::script(&place, script)
            .through(["/bin/sh", "-c", &format!("exec \"$@\" 3<{password}"), "sh"])
            .options(&letters)
            .option("-x")
            .option(&missing)
            .pair(&certificate, &key)
            .env("CAFILE", &root)
            .env("CIPHERS", "DEFAULT")
            .start();
        let mut client = Dial::to(&server).connect();
        assert_eq!(
            client.text(),
            format!("banner:TLSv1.3 127.0.0.1 full {proto}\n"),
            "{letters}: {}",
            server.log()
        );
    }
    // -z of the same scripts: the client needs a certificate for its host.
    let server = Setup::script(&place, script)
        .options("-s -e -c 1 -v -hpz -l Localserver -b 2")
        .env("CAFILE", &root)
        .start();
    let mut bare = Dial::to(&server).attempt();
    let refused = bare.as_mut().is_ok_and(|client| client.rest().0.is_empty());
    assert!(bare.is_err() || refused, "{}", server.log());
    let known = Leaf::localhost().issue();
    let mut client = Dial::to(&server).presenting(&known).connect();
    assert!(client.text().contains("full TCP"), "{}", server.log());
    // Their clients.
    let server = Setup::script(&place, script).options("-e").start();
    for letters in [
        "-R -N -H -T 10 -l Local",
        "-ND -hrt1 -l Local -z DEFAULT",
        "-e -R -N -H -l Local",
        "-s -R -N -H -l Local",
        "-v -R -N -H -l Local",
        "-T 5+5 -w 10 -q4",
    ] {
        let ended = Client::new(&place).options(letters).read(&server);
        assert_eq!(ended.code, Some(0), "{letters}: {}", ended.stderr);
        assert!(ended.text().contains("127.0.0.1"), "{letters}");
    }
}

#[test]
fn of_two_opposite_letters_the_later_one_wins() {
    let place = Place::new("opposites");
    let script = "echo ${TCPREMOTEIP-no} ${SSL_SERVER_S_DN:+full} ${SSLREMOTEHOST-none}";
    let said = |letters: &str| {
        let server = Setup::script(&place, script).options(letters).start();
        let text = Dial::to(&server).connect().text();
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (letters, wanted) in [
        ("-esH", "127.0.0.1 full none"),
        ("-eEsSH", "no none"),
        ("-EeSsH", "127.0.0.1 full none"),
        ("-hH", "no none"),
        ("-Hh", "no localhost"),
        ("-E -e -H", "127.0.0.1 none"),
        ("-Zm -mZ -H", "no none"),
    ] {
        assert_eq!(said(letters), wanted, "{letters}");
    }
}

#[test]
fn a_chain_whose_host_s_certificate_is_not_first_says_which_fits() {
    let place = Place::new("root-first");
    let root = Authority::root("Chain Root");
    let between = root.below("Chain Between");
    let identity = Leaf::localhost().issue_by(&between);
    let key = place.secret("own.key", identity.key_pem());
    let pem = |all: &[&openssl::x509::X509]| -> Vec<u8> {
        all.iter().flat_map(|one| one.to_pem().unwrap()).collect()
    };
    let chain = place.write(
        "chain.pem",
        pem(&[
            &root.certificate,
            &between.certificate,
            &identity.certificate,
        ]),
    );
    for variable in ["CERTCHAINFILE", "CERTFILE"] {
        let ended = Setup::new(&place, &["true"])
            .unset("CERTFILE")
            .env(variable, &chain)
            .env("KEYFILE", &key)
            .refused();
        ended.failed(111, "key does not match certificate: KEYFILE ");
        ended.failed(
            111,
            &format!("it fits certificate 3 of {variable} {chain} (CN=localhost), which must be the first"),
        );
    }
    // Where it fits none, nothing is invented.
    let other = place.secret(
        "other.key",
        Leaf::new("other").key(KeyKind::P384).issue().key_pem(),
    );
    let ended = Setup::new(&place, &["true"]).pair(&chain, &other).refused();
    ended.failed(111, "key does not match certificate");
    assert!(!ended.stderr.contains("it fits"), "{}", ended.stderr);
}
