//! The variables that a program sees.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use openssl::nid::Nid;
use openssl::ssl::SslVersion;

use crate::harness::authority::{hex, name};
use crate::harness::overlay;
use crate::harness::{
    Authority, Dial, Identity, KeyKind, Leaf, Place, Server, Setup, Tls, compile, need, need_root,
};

/// What `env -0` printed.
fn variables(client: &mut Tls) -> BTreeMap<String, String> {
    let text = client.text();
    text.split_terminator('\0')
        .map(|pair| pair.split_once('=').unwrap_or_else(|| panic!("{pair:?}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A server whose program prints its environment.
fn env(place: &Place) -> Setup<'_> {
    Setup::new(place, &["env", "-0"])
}

fn seen(server: &Server) -> BTreeMap<String, String> {
    seen_from(server).0
}

/// The same, and the client's port.
fn seen_from(server: &Server) -> (BTreeMap<String, String>, String) {
    let mut client = Dial::to(server).connect();
    let port = client.stream.get_ref().local_addr().unwrap().port();
    (variables(&mut client), port.to_string())
}

/// Fails unless each variable has its value; an empty expectation is an unset one.
fn expect(found: &BTreeMap<String, String>, wanted: &[(&str, &str)]) {
    for (name, value) in wanted {
        let got = found.get(*name).map_or("", String::as_str);
        assert_eq!(got, *value, "{name} in {found:?}");
    }
}

/// What the server was started with and no program must see.
const JUNK: [&str; 32] = [
    "PROTO",
    "SSLLOCALIP",
    "SSLREMOTEHOST",
    "SSLREMOTEINFO",
    "SSLREMOTEPORT",
    "TCPLOCALIP",
    "TCPREMOTEIP",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
    "TCP6REMOTEIP",
    "TCP6INTERFACE",
    "SSL_PROTOCOL",
    "SSL_CIPHER",
    "SSL_CLIENT_VERIFY",
    "SSL_SERVER_VERIFY",
    "SSL_CLIENT_S_DN",
    "SSL_CLIENT_S_DN_CN",
    "SSL_CLIENT_CERT",
    "SSL_CLIENT_CERT_CHAIN_0",
    "SSL_CLIENT_CERT_CHAIN_17",
    "SSL_CLIENT_SAN_DNS_0",
    "SSL_CLIENT_SAN_IP_23",
    "SSL_SERVER_CERT",
    "SSL_PEER_S_DN",
    "SSL_PEER_CERT_HASH",
    "SSL_TLS_SNI",
    "SSL_ALPN",
    "SSL_SESSION_ID",
    "SSL_SERVER_I_DN_Email",
    "SSLCTLFD",
    "SSLREADFD",
    "SSLWRITEFD",
];

#[test]
fn the_short_set_describes_the_connection() {
    let place = Place::new("short-set");
    let server = env(&place).env("ALPN", "pop3,smtp").start();
    let mut client = Dial::to(&server)
        .version(SslVersion::TLS1_3)
        .groups("X25519")
        .with(|context| context.set_alpn_protos(b"\x04smtp").unwrap())
        .connect();
    let own = client.stream.get_ref().local_addr().unwrap();
    let found = variables(&mut client);
    let port = server.port.to_string();
    let remote = own.port().to_string();
    expect(
        &found,
        &[
            ("PROTO", "SSL"),
            ("SSLLOCALIP", "127.0.0.1"),
            ("SSLLOCALPORT", &port),
            ("SSLLOCALHOST", "localhost"),
            ("SSLREMOTEIP", "127.0.0.1"),
            ("SSLREMOTEPORT", &remote),
            ("SSLREMOTEHOST", ""),
            ("SSLREMOTEINFO", ""),
            ("TCPREMOTEIP", ""),
            ("SSL_PROTOCOL", "TLSv1.3"),
            ("SSL_CIPHER", client.cipher()),
            ("SSL_CIPHER_USEKEYSIZE", "256"),
            ("SSL_CIPHER_ALGKEYSIZE", "256"),
            ("SSL_GROUP", "X25519"),
            ("SSL_SESSION_RESUMED", "Initial"),
            ("SSL_TLS_SNI", "localhost"),
            ("SSL_ALPN", "smtp"),
            ("SSL_CLIENT_VERIFY", "NONE"),
            ("SSL_SERVER_VERIFY", ""),
            ("SSL_PEER_S_DN", ""),
            ("SSL_PEER_CERT_HASH", ""),
            ("SSL_SERVER_S_DN", ""),
            ("SSL_SERVER_CERT", ""),
        ],
    );
    for absent in ["SSLREMOTEHOST", "SSLREMOTEINFO", "SSL_PEER_S_DN"] {
        assert!(!found.contains_key(absent), "unset, not empty: {absent}");
    }
    let mut client = Dial::to(&server)
        .version(SslVersion::TLS1_2)
        .name(None)
        .ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        .groups("P-256")
        .connect();
    let found = variables(&mut client);
    expect(
        &found,
        &[
            ("SSL_PROTOCOL", "TLSv1.2"),
            ("SSL_CIPHER", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            ("SSL_CIPHER_USEKEYSIZE", "128"),
            ("SSL_CIPHER_ALGKEYSIZE", "128"),
        ],
    );
    assert!(
        !found.contains_key("SSL_TLS_SNI") && !found.contains_key("SSL_ALPN"),
        "{found:?}"
    );
    let group = found["SSL_GROUP"].to_lowercase();
    assert!(
        ["secp256r1", "prime256v1", "p-256"].contains(&group.as_str()),
        "{group}"
    );
}

#[test]
fn what_the_server_inherited_is_removed() {
    let place = Place::new("junk");
    let mut setup = env(&place).env("KEPT", "yes").env("SSLX", "kept too");
    for name in JUNK {
        setup = setup.env(name, "forged");
    }
    let found = seen(&setup.start());
    for (name, value) in &found {
        assert_ne!(value, "forged", "{name}");
    }
    expect(&found, &[("KEPT", "yes"), ("SSLX", "kept too")]);
    // A full set with a client that shows nothing leaves no forged certificate.
    let found = seen(&setup.options("-se").start());
    assert!(found.values().all(|value| value != "forged"), "{found:?}");
}

#[test]
fn a_rule_says_nothing_of_a_session() {
    let place = Place::new("rule-junk");
    let line = [
        "SSL_PEER_S_DN",
        "SSL_CLIENT_VERIFY",
        "SSL_CLIENT_S_DN",
        "SSLCTLFD",
    ]
    .map(|name| format!(",{name}=\"forged\""))
    .concat();
    let cdb = compile(&place, "rules.cdb", &format!(":allow,OWN=\"kept\"{line}\n"));
    for words in ["", "-Y", "-s"] {
        let found = seen(&env(&place).options(words).rules(&cdb).start());
        expect(&found, &[("OWN", "kept")]);
        assert!(found.values().all(|value| value != "forged"), "{found:?}");
    }
}

#[test]
fn the_words_of_a_service_manager_in_a_rule_do_not_reach_the_program() {
    let place = Place::new("manager-variables");
    let text = ":allow,NOTIFY_SOCKET=\"/x\",LISTEN_FDS=\"1\",LISTEN_PID=\"1\",OWN=\"kept\"\n";
    let cdb = compile(&place, "rules.cdb", text);
    let found = seen(&env(&place).rules(&cdb).start());
    expect(&found, &[("OWN", "kept")]);
    for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"] {
        assert!(!found.contains_key(name), "{name}: {found:?}");
    }
}

#[test]
fn store_variables_do_not_reach_the_program() {
    let place = Place::new("store-variables");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let (certificate, key) = place.identity("alt", &Identity::localhost(KeyKind::Rsa2048));
    let pins = place.write("pins", "# none\n");
    let mut setup = env(&place)
        .options("-Y")
        .env("CERTFILE_ALT", certificate)
        .env("KEYFILE_ALT", key)
        .env("CAFILE", &root)
        .env("CCAFILE", &root)
        .env("PINFILE", pins)
        .env("UID", "12")
        .env("GID", "13");
    for (name, value) in [
        ("CIPHERS", "ECDHE"),
        ("CIPHERSUITES", "TLS_AES_128_GCM_SHA256"),
        ("TLS_MIN", "1.2"),
        ("TLS_MAX", "1.3"),
        ("TLS_GROUPS", "X25519:P-256"),
        ("SIGALGS", "ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256"),
        ("ALPN", "x"),
        ("TICKETS", "0"),
        ("VERIFYDEPTH", "3"),
        ("SSL_SANDBOX", "0"),
    ] {
        setup = setup.env(name, value);
    }
    if crate::harness::root() {
        std::fs::create_dir(place.path("jail")).unwrap();
        setup = setup
            .env("SSL_CHROOT", place.path("jail"))
            .env("SSL_UID", "65534")
            .env("SSL_GID", "65534");
    }
    let found = seen(&setup.start());
    for name in [
        "CERTFILE",
        "KEYFILE",
        "CERTFILE_ALT",
        "KEYFILE_ALT",
        "CERTCHAINFILE",
        "CAFILE",
        "CADIR",
        "CCAFILE",
        "CCAVERIFY",
        "CRLFILE",
        "PINFILE",
        "VERIFYDEPTH",
        "CIPHERS",
        "CIPHERSUITES",
        "TLS_MIN",
        "TLS_MAX",
        "TLS_GROUPS",
        "SIGALGS",
        "DHFILE",
        "ALPN",
        "TICKETS",
        "SSL_SANDBOX",
        "SSL_CHROOT",
        "SSL_UID",
        "SSL_GID",
        "SSL_USER",
    ] {
        assert!(!found.contains_key(name), "{name}: {found:?}");
    }
}

#[test]
fn the_names_of_tcpserver_come_with_e() {
    let place = Place::new("tcp-names");
    let server = env(&place).options("-e").start();
    let (found, remote) = seen_from(&server);
    let port = server.port.to_string();
    expect(
        &found,
        &[
            ("PROTO", "TCP"),
            ("TCPLOCALIP", "127.0.0.1"),
            ("TCPLOCALPORT", &port),
            ("TCPLOCALHOST", "localhost"),
            ("TCPREMOTEIP", "127.0.0.1"),
            ("TCPREMOTEPORT", &remote),
            ("TCPREMOTEHOST", ""),
            ("TCPREMOTEINFO", ""),
            ("TCP6REMOTEIP", ""),
            ("SSLLOCALIP", "127.0.0.1"),
            ("SSLREMOTEIP", "127.0.0.1"),
            ("SSLREMOTEPORT", &remote),
        ],
    );
    // The later of -e and -E wins.
    let found = seen(&env(&place).options("-eE").start());
    expect(&found, &[("PROTO", "SSL"), ("TCPREMOTEIP", "")]);
    let server = env(&place).host("::1").options("-e").start();
    let (found, remote) = seen_from(&server);
    let port = server.port.to_string();
    expect(
        &found,
        &[
            ("PROTO", "TCP6"),
            ("TCPLOCALIP", "::1"),
            ("TCPREMOTEIP", "::1"),
            ("TCPREMOTEPORT", &remote),
            ("TCP6LOCALIP", "::1"),
            ("TCP6LOCALPORT", &port),
            ("TCP6LOCALHOST", "localhost"),
            ("TCP6REMOTEIP", "::1"),
            ("TCP6REMOTEPORT", &remote),
            ("TCP6INTERFACE", ""),
            ("SSLREMOTEIP", "::1"),
        ],
    );
}

#[test]
fn addresses_of_both_protocols_are_named_as_they_are() {
    let place = Place::new("addresses");
    // One dual-stack listener.
    let server = env(&place).host("0").start();
    let port = server.port.to_string();
    expect(
        &seen(&server),
        &[
            ("PROTO", "SSL"),
            ("SSLREMOTEIP", "127.0.0.1"),
            ("SSLLOCALIP", "127.0.0.1"),
            ("SSLLOCALPORT", &port),
        ],
    );
    let six: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let found = variables(&mut Dial::at(six).connect());
    expect(&found, &[("SSLREMOTEIP", "::1"), ("SSLLOCALIP", "::1")]);
    // IPv6 naming.
    let found = seen(&env(&place).host("::1").options("-6").start());
    expect(
        &found,
        &[
            ("PROTO", "SSL6"),
            ("SSLREMOTEIP", "::1"),
            ("SSLLOCALIP", "::1"),
        ],
    );
    // An IPv4 client's addresses stay dotted, or no block list knows them.
    let server = env(&place).host("0").options("-6v").start();
    expect(
        &seen(&server),
        &[
            ("PROTO", "SSL6"),
            ("SSLREMOTEIP", "127.0.0.1"),
            ("SSLLOCALIP", "127.0.0.1"),
        ],
    );
    assert!(!server.log().contains("ffff"), "{}", server.log());
    let found = seen(&env(&place).host("0").options("-6e").start());
    expect(
        &found,
        &[
            ("PROTO", "TCP"),
            ("TCPREMOTEIP", "127.0.0.1"),
            ("SSLREMOTEIP", "127.0.0.1"),
        ],
    );
    assert!(!found.contains_key("TCP6REMOTEIP"), "{found:?}");
    // IPv4 only, by letter and by address.
    for (host, letters) in [("0", "-4"), ("0.0.0.0", "")] {
        let server = env(&place).host(host).options(letters).start();
        expect(&seen(&server), &[("SSLREMOTEIP", "127.0.0.1")]);
        let six: SocketAddr = format!("[::1]:{}", server.port).parse().unwrap();
        assert!(
            std::net::TcpStream::connect(six).is_err(),
            "{host} {letters} is IPv4 only"
        );
    }
    // IPv6 only.
    let server = env(&place).host("::").start();
    let four: SocketAddr = format!("127.0.0.1:{}", server.port).parse().unwrap();
    assert!(std::net::TcpStream::connect(four).is_err());
    expect(&seen(&server), &[("SSLREMOTEIP", "::1")]);
    // An empty host is every address.
    for host in ["", ":0"] {
        let server = env(&place).host(host).start();
        expect(&seen(&server), &[("SSLREMOTEIP", "127.0.0.1")]);
    }
}

#[test]
fn names_come_from_l_and_h() {
    let place = Place::new("names");
    let found = seen(&env(&place).options("-l mail.example.com -h").start());
    expect(
        &found,
        &[
            ("SSLLOCALHOST", "mail.example.com"),
            ("SSLREMOTEHOST", "localhost"),
        ],
    );
    let found = seen(&env(&place).options("-hp").start());
    expect(&found, &[("SSLREMOTEHOST", "localhost")]);
    let found = seen(&env(&place).options("-hH").start());
    assert!(!found.contains_key("SSLREMOTEHOST"), "{found:?}");
}

#[test]
fn host_names_are_lower_case() {
    need_root!();
    need!("unshare");
    let place = Place::new("lower-case");
    if !overlay::possible(&place) {
        crate::harness::skip!("no mount namespace can be made");
    }
    let hosts = overlay::hosts(&place, "127.0.0.1 MiXed.Example.COM\n");
    let found = seen(&env(&place).options("-h").through(hosts).start());
    expect(&found, &[("SSLREMOTEHOST", "mixed.example.com")]);
}

#[test]
fn the_full_set_names_both_certificates() {
    let place = Place::new("full-set");
    let subject = name(&[
        (Nid::COUNTRYNAME, "US"),
        (Nid::ORGANIZATIONNAME, "Example, Inc"),
        (Nid::ORGANIZATIONALUNITNAME, "first"),
        (Nid::ORGANIZATIONALUNITNAME, "last"),
        (Nid::COMMONNAME, "client.example.com"),
        (Nid::PKCS9_EMAILADDRESS, "a@example.com"),
    ]);
    let theirs = Leaf::named(subject)
        .dns("one.example.com")
        .dns("two.example.com")
        .address("192.0.2.1")
        .address("2001:db8::1")
        .email("b@example.com")
        .key(KeyKind::Rsa2048)
        .issue();
    let own = Identity::localhost(KeyKind::P256);
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = env(&place)
        .options("-sm")
        .env("CAFILE", root)
        .identity(&own)
        .start();
    let mut client = Dial::to(&server).presenting(&theirs).connect();
    let found = variables(&mut client);
    let serial = theirs
        .certificate
        .serial_number()
        .to_bn()
        .unwrap()
        .to_dec_str()
        .unwrap()
        .to_string();
    let pem = |one: &openssl::x509::X509Ref| String::from_utf8(one.to_pem().unwrap()).unwrap();
    let start = theirs.certificate.not_before().to_string();
    let end = theirs.certificate.not_after().to_string();
    expect(
        &found,
        &[
            ("SSL_CLIENT_VERIFY", "SUCCESS"),
            (
                "SSL_PEER_CERT_HASH",
                &format!("SHA256:{}", theirs.fingerprint()),
            ),
            ("SSL_CIPHER_EXPORT", "false"),
            ("SSL_COMPRESS_METHOD", "NULL"),
            ("SSL_CLIENT_M_VERSION", "3"),
            ("SSL_CLIENT_M_SERIAL", &serial),
            (
                "SSL_CLIENT_S_DN",
                "/C=US/O=Example, Inc/OU=first/OU=last/CN=client.example.com/emailAddress=a@example.com",
            ),
            ("SSL_CLIENT_I_DN", "/CN=Test Intermediate"),
            ("SSL_CLIENT_S_DN_C", "US"),
            ("SSL_CLIENT_S_DN_O", "Example, Inc"),
            ("SSL_CLIENT_S_DN_OU", "last"),
            ("SSL_CLIENT_S_DN_CN", "client.example.com"),
            ("SSL_CLIENT_S_DN_Email", "a@example.com"),
            ("SSL_CLIENT_S_DN_ST", ""),
            ("SSL_CLIENT_I_DN_CN", "Test Intermediate"),
            ("SSL_CLIENT_I_DN_RFC4514", "CN=Test Intermediate"),
            ("SSL_CLIENT_SAN_DNS_0", "one.example.com"),
            ("SSL_CLIENT_SAN_DNS_1", "two.example.com"),
            ("SSL_CLIENT_SAN_DNS_2", ""),
            ("SSL_CLIENT_SAN_Email_0", "b@example.com"),
            ("SSL_CLIENT_SAN_IP_0", "192.0.2.1"),
            ("SSL_CLIENT_SAN_IP_1", "2001:db8::1"),
            ("SSL_CLIENT_V_START", &start),
            ("SSL_CLIENT_V_END", &end),
            ("SSL_CLIENT_A_SIG", "ecdsa-with-SHA256"),
            ("SSL_CLIENT_A_KEY", "rsaEncryption"),
            ("SSL_CLIENT_CERT", &pem(&theirs.certificate)),
            ("SSL_SERVER_S_DN", "/CN=localhost"),
            ("SSL_SERVER_S_DN_CN", "localhost"),
            ("SSL_SERVER_SAN_DNS_0", "localhost"),
            ("SSL_SERVER_A_KEY", "id-ecPublicKey"),
            ("SSL_SERVER_CERT", &pem(&own.certificate)),
        ],
    );
    let dn = &found["SSL_PEER_S_DN"];
    assert_eq!(dn, &found["SSL_CLIENT_S_DN_RFC4514"]);
    assert!(
        dn.contains("CN=client.example.com,OU=last,OU=first,O=Example\\, Inc,C=US"),
        "{dn}"
    );
    let days: i64 = found["SSL_CLIENT_V_REMAIN"].parse().unwrap();
    assert!((364..=365).contains(&days), "{days}");
    assert!(
        found["SSL_CLIENT_CERT_CHAIN_0"].starts_with("-----BEGIN CERTIFICATE-----"),
        "{found:?}"
    );
    assert!(
        found["SSL_VERSION_INTERFACE"].starts_with("ucspi-tls/"),
        "{found:?}"
    );
    assert!(
        found["SSL_VERSION_LIBRARY"].starts_with("OpenSSL"),
        "{found:?}"
    );
    assert!(found.contains_key("SSL_SECURE_RENEG"));
    if let Some(id) = found.get("SSL_SESSION_ID") {
        assert!(id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    }
    // -S takes it back.
    let found = seen(&env(&place).options("-sS").start());
    assert!(!found.contains_key("SSL_SERVER_S_DN"), "{found:?}");
}

#[test]
fn a_certificate_cannot_forge_a_variable_or_a_line() {
    let place = Place::new("forged-names");
    let subject = name(&[
        (Nid::ORGANIZATIONNAME, "a\nSSL_CLIENT_VERIFY=SUCCESS"),
        (Nid::ORGANIZATIONALUNITNAME, "b\0c"),
        (Nid::LOCALITYNAME, "d\u{e9}\u{1b}[2J\x7f"),
        (Nid::COMMONNAME, "sslserver: ok\r\nsslserver: end"),
    ]);
    let theirs = Leaf::named(subject).issue();
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = env(&place).options("-smV").env("CAFILE", root).start();
    let found = variables(&mut Dial::to(&server).presenting(&theirs).connect());
    for (name, value) in &found {
        if name.starts_with("SSL_") && !name.contains("_CERT") {
            let clean = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            assert!(clean, "{name}={value:?}");
        }
    }
    expect(
        &found,
        &[
            ("SSL_CLIENT_S_DN_O", "a\\x0ASSL_CLIENT_VERIFY=SUCCESS"),
            ("SSL_CLIENT_S_DN_OU", "b\\x00c"),
            ("SSL_CLIENT_S_DN_L", "d\\xC3\\xA9\\x1B[2J\\x7F"),
        ],
    );
    assert!(found["SSL_CLIENT_S_DN"].contains("\\x0A"), "{found:?}");
    server.line("sslserver: end ");
    for line in server.log().lines() {
        assert!(line.starts_with("sslserver: "), "{line}");
        assert!(
            line.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{line}"
        );
        assert!(line.len() < 1000, "{line}");
    }
    assert_eq!(
        server.lines("end ", 1).len(),
        server
            .log()
            .lines()
            .filter(|l| l.starts_with("sslserver: end "))
            .count()
    );
}

#[test]
fn a_huge_certificate_loses_its_pem_first() {
    let place = Place::new("huge");
    let mut leaf = Leaf::new("huge");
    for count in 0..600 {
        leaf = leaf.dns(&format!("host-{count}.a-rather-long-name.example.com"));
    }
    let theirs = leaf.issue();
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = env(&place).options("-sm").env("CAFILE", root).start();
    let found = variables(&mut Dial::to(&server).presenting(&theirs).connect());
    expect(
        &found,
        &[
            ("SSL_CLIENT_S_DN", "/CN=huge"),
            ("SSL_CLIENT_CERT", ""),
            ("SSL_CLIENT_VERIFY", "SUCCESS"),
        ],
    );
    let size: usize = found
        .iter()
        .filter(|(name, _)| name.starts_with("SSL_"))
        .map(|(n, v)| n.len() + v.len() + 2)
        .sum();
    assert!(size <= 65536 + 4096, "{size}");
    let hash = hex(&openssl::sha::sha256(&theirs.certificate.to_der().unwrap()));
    expect(&found, &[("SSL_PEER_CERT_HASH", &format!("SHA256:{hash}"))]);
}
