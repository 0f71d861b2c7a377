//! Rules that a running server obeys: who may connect, and which certificates,
//! anchors and limits serve whom.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use openssl::pkey::Id;
use openssl::ssl::SslVersion;

use crate::harness::dial::plain;
use crate::harness::process::status_field;
use crate::harness::{
    Authority, Dial, End, Finished, Identity, KeyKind, Leaf, Place, Server, Setup, compile,
    compile_with, eventually, need, need_root, ours, overlay, run, skip,
};

/// A certificate with this common name that is good for localhost.
pub fn called(common: &str) -> Leaf {
    Leaf::new(common).dns("localhost")
}

/// Writes a certificate called NAME with its key, and gives the instructions of
/// a rule that they serve.
fn pair(place: &Place, name: &str) -> String {
    let (certificate, key) = place.identity(name, &called(name).issue());
    format!("CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"")
}

/// From 127.0.0.N.
fn from(server: &Server, last: u8) -> Dial {
    Dial::at(SocketAddr::from(([127, 0, 0, 1], server.port)))
        .from(SocketAddr::from(([127, 0, 0, last], 0)))
}

/// What the program says to a client from 127.0.0.N; none where there is no TLS.
fn said(server: &Server, last: u8) -> Option<String> {
    let mut client = from(server, last).attempt().ok()?;
    Some(client.text())
}

/// Asks for this name, whatever the certificate's names are, and gives the
/// certificate's own.
fn shown_for(server: &Server, name: Option<&str>) -> String {
    let dial = Dial::to(server).blindly().name(name);
    dial.connect().server_name()
}

#[test]
fn databases_of_both_compilers_decide() {
    need!("tcprules");
    let place = Place::new("compilers");
    let own = pair(&place, "own");
    let text = format!(
        "# who may come\n\
         127.0.0.1:allow,GREETING=\"single\"\n\
         127.0.0.2:deny\n\
         127.0.0.10-20:allow,GREETING=/range/,RELAYCLIENT=\"\" \t\n\
         127.0.0.3:allow,{own}\n\
         \n\
         127.0.:allow,GREETING=\"class\"\n\
         :deny\n"
    );
    for program in [&*ours("sslrules"), "tcprules"] {
        let cdb = compile_with(program, &place, "rules.cdb", &text);
        let script = "echo \"${GREETING-unset} ${RELAYCLIENT-unset}\"";
        let server = Setup::script(&place, script)
            .option("-x")
            .option(&cdb)
            .start();
        assert_eq!(said(&server, 1).as_deref(), Some("single unset\n"));
        assert_eq!(said(&server, 2), None, "{program}");
        assert_eq!(said(&server, 10).as_deref(), Some("range \n"));
        assert_eq!(said(&server, 20).as_deref(), Some("range \n"));
        assert_eq!(said(&server, 21).as_deref(), Some("class unset\n"));
        assert_eq!(from(&server, 3).connect().server_name(), "own");
        assert_eq!(from(&server, 4).connect().server_name(), "localhost");
        let far = SocketAddr::from(([127, 1, 0, 1], 0));
        assert!(Dial::to(&server).from(far).attempt().is_err(), "{program}");
        server.quiet();
    }
}

/// Answers every ident query at this address with `alice`.
fn ident_server(ip: &str) -> Option<()> {
    // The protocol's port is fixed, so the address is the test's own.
    let listener = TcpListener::bind((ip, 113)).ok()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut stream = BufReader::new(stream);
            if stream.read_line(&mut line).is_ok() {
                let answer = format!("{} : USERID : UNIX : alice\r\n", line.trim_end());
                let _ = stream.get_mut().write_all(answer.as_bytes());
            }
        }
    });
    Some(())
}

#[test]
fn the_first_rule_in_the_order_of_tcprules_wins() {
    need_root!();
    need!("unshare");
    let place = Place::new("precedence");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    if ident_server("127.0.0.81").is_none() {
        skip!("port 113 of 127.0.0.81 cannot be had");
    }
    let words = overlay::hosts(
        &place,
        "127.0.0.1 localhost\n127.0.0.81 host.sub.example.test\n",
    );
    let order = [
        "alice@127.0.0.81",
        "alice@=host.sub.example.test",
        "127.0.0.81",
        "=host.sub.example.test",
        "127.0.0.",
        "127.0.",
        "127.",
        "127.0.0.80/29",
        "127.0.0.0/24",
        "127.0.0.0/8",
        "=.sub.example.test",
        "=.example.test",
        "=.test",
        "=",
        "",
    ];
    let rule = |address: &str| format!("{address}:allow,RULE=\"<{address}>\"\n");
    for (at, wanted) in order.iter().enumerate() {
        // Backwards, since the text's order must not count.
        let text: String = order[at..].iter().rev().map(|one| rule(one)).collect();
        let cdb = compile(&place, "rules.cdb", &text);
        let server = Setup::script(&place, "echo \"$RULE\"")
            .options("-hr -t 20")
            .rules(&cdb)
            .through(words.clone())
            .start();
        assert_eq!(said(&server, 81), Some(format!("<{wanted}>\n")));
    }
    // A rule that denies ends the search as well.
    let cdb = compile(&place, "rules.cdb", "alice@127.0.0.81:deny\n:allow\n");
    let server = Setup::new(&place, &["echo", "served"])
        .options("-hr -t 20")
        .rules(&cdb)
        .through(words)
        .start();
    assert_eq!(said(&server, 81), None);
    assert_eq!(said(&server, 1).as_deref(), Some("served\n"));
}

#[test]
fn an_ipv6_client_meets_its_rules_however_they_are_written() {
    if TcpListener::bind("[::1]:0").is_err() {
        skip!("no IPv6 here");
    }
    let place = Place::new("six");
    for (text, wanted) in [
        ("0:0:0::0001:allow,RULE=\"single\"\n:deny\n", "single"),
        ("::/16:allow,RULE=\"network\"\n:deny\n", "network"),
        ("local=0::1:allow,RULE=\"local\"\n", "local"),
        // An IPv4 client of the same listener is one of IPv4.
        ("127.0.0.0/8:deny\n:allow,RULE=\"other\"\n", "other"),
    ] {
        let cdb = compile(&place, "rules.cdb", text);
        let server = Setup::script(&place, "echo $RULE")
            .host("0")
            .option("-x")
            .option(&cdb)
            .start();
        let six = SocketAddr::new("::1".parse().unwrap(), server.port);
        assert_eq!(Dial::at(six).connect().text(), format!("{wanted}\n"));
        let four = said(&server, 1);
        assert_eq!(
            four.is_some(),
            text.starts_with("local="),
            "{text}: {four:?}"
        );
    }
}

#[test]
fn a_denied_client_is_closed_and_told_in_the_log() {
    let place = Place::new("deny");
    let cdb = compile(
        &place,
        "rules.cdb",
        "127.0.0.1:deny,GREETING=\"x\"\n:allow\n",
    );
    let server = Setup::new(&place, &["echo", "served"])
        .options("-v")
        .rules(&cdb)
        .start();
    let mut client = plain(server.at);
    let own = client.local_addr().unwrap().port();
    assert_eq!(client.read(&mut [0; 100]).unwrap(), 0, "not a byte");
    let deny = server.line("sslserver: deny ");
    let pid = deny.split(' ').nth(2).unwrap();
    let fields = format!("localhost:127.0.0.1:{} :127.0.0.1::{own}", server.port);
    assert_eq!(deny, format!("sslserver: deny {pid} {fields}"));
    // Exit code 100.
    server.line(&format!("sslserver: end {pid} status 25600"));
    assert!(!server.log().contains("warning"), "{}", server.log());
    assert_eq!(said(&server, 2).as_deref(), Some("served\n"));
    server.quiet();
}

#[test]
fn variables_of_rules_are_the_program_s_and_settings_are_not() {
    let place = Place::new("variables");
    let own = pair(&place, "own");
    let text = format!(
        "127.0.0.1:allow,{own},RELAYCLIENT=\"\",GREETING=/hello, \"world\"/,HOME=\"/rules\",\
         TLS_MIN=\"1.2\",TICKETS=\"0\",VERIFYDEPTH=\"3\",SSL_SANDBOX=\"0\",LOCALVAR=\"client's\"\n\
         local=127.0.0.1:allow,LOCALVAR=\"local\",BOTH=\"b\"\n\
         sni=named.example:allow,NAMEVAR=\"named\",KEYFILE=\"\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::new(&place, &["env"])
        .option("-x")
        .option(&cdb)
        .env("HOME", "/before")
        .env("SSL_GROUP", "nogroup")
        .env("CIPHERS", "ECDHE+AESGCM")
        .start();
    let dial = || from(&server, 1).blindly().groups("X25519");
    let environment = dial().name(None).connect().text();
    let has = |line: &str| environment.lines().any(|one| one == line);
    for line in [
        "RELAYCLIENT=",
        "GREETING=hello, \"world\"",
        "HOME=/rules",
        "LOCALVAR=client's",
        "BOTH=b",
    ] {
        assert!(has(line), "{line} not in {environment}");
    }
    // The session's group has the name of a setting.
    assert!(has("SSL_GROUP=X25519"), "{environment}");
    let settings = ucspi_tls::internals::settings::NAMES.iter();
    for name in settings.filter(|name| **name != "SSL_GROUP") {
        let begin = format!("{name}=");
        assert!(
            !environment.lines().any(|line| line.starts_with(&begin)),
            "{environment}"
        );
    }
    assert!(!environment.contains("NAMEVAR"), "{environment}");
    let environment = dial().name(Some("named.example")).connect().text();
    assert!(environment.contains("NAMEVAR=named\n"), "{environment}");
    server.quiet();
}

#[test]
fn rules_that_cannot_be_read_deny_and_say_why() {
    let place = Place::new("unreadable");
    let whole = fs::read(compile(&place, "whole.cdb", "127.0.0.1:allow\n:allow\n")).unwrap();
    let flipped = {
        let mut bytes = whole.clone();
        bytes[2048] ^= 0xff;
        bytes
    };
    for (name, bytes, reason) in [
        ("missing", None, "no such file"),
        ("empty", Some(Vec::new()), "not a cdb"),
        (
            "cut",
            Some(whole[..whole.len() - 1].to_vec()),
            "damaged or not a cdb",
        ),
        ("header", Some(whole[..2048].to_vec()), "not a cdb"),
        ("flipped", Some(flipped), "damaged or not a cdb"),
        ("junk", Some(vec![b'x'; 5000]), "damaged or not a cdb"),
        // What it held was asked for: -X is for a file that nobody made.
        ("dangling", None, "no such file or directory"),
        ("link/in-it", None, "no such file or directory"),
        (
            "text",
            Some(b"127.0.0.1:allow\n".to_vec()),
            "damaged or not a cdb",
        ),
    ] {
        let cdb = bytes.map_or_else(|| place.text(name), |bytes| place.write(name, bytes));
        if name == "dangling" {
            std::os::unix::fs::symlink("nowhere", &cdb).unwrap();
        } else if name == "link/in-it" {
            std::os::unix::fs::symlink("nowhere", place.path("link")).unwrap();
        }
        for letters in ["-v -x", "-v -X -x"] {
            let server = Setup::new(&place, &["echo", "served"])
                .options(letters)
                .option(&cdb)
                .start();
            let served = said(&server, 1);
            if name == "missing" && letters.contains('X') {
                assert_eq!(served.as_deref(), Some("served\n"));
                assert!(!server.log().contains("warning"), "{}", server.log());
                continue;
            }
            assert_eq!(served, None, "{name} {letters}");
            let lines = server.lines(&format!("unable to read rules {cdb}: "), 2);
            assert!(lines[0].ends_with(": every client is denied"), "{lines:?}");
            for line in &lines {
                assert!(
                    line.starts_with("sslserver: warning: ") && line.contains(reason),
                    "{line}"
                );
            }
            assert!(
                lines[1].starts_with("sslserver: warning: dropping connection, "),
                "{lines:?}"
            );
            server.line("sslserver: deny ");
        }
    }
}

#[test]
fn a_rule_brings_certificates_of_its_own() {
    let place = Place::new("own-pair");
    let rsa = called("own rsa").key(KeyKind::Rsa2048).issue();
    let (alt, alt_key) = place.identity("alt", &rsa);
    let both = called("in one file").issue();
    let combined = place.write("both.pem", [both.chain_pem(), both.key_pem()].concat());
    let own = pair(&place, "own");
    let text = format!(
        "127.0.0.2:allow,{own}\n\
         127.0.0.3:allow,{own},CERTFILE_ALT=\"{alt}\",KEYFILE_ALT=\"{alt_key}\"\n\
         127.0.0.4:allow,CERTFILE=\"{combined}\",KEYFILE=\"\"\n\
         127.0.0.5:allow,GREETING=\"x\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::new(&place, &["true"])
        .option("-x")
        .option(&cdb)
        .start();
    for (last, name) in [
        (1, "localhost"),
        (2, "own"),
        (3, "own"),
        (4, "in one file"),
        (5, "localhost"),
    ] {
        assert_eq!(from(&server, last).connect().server_name(), name, "{last}");
    }
    let old = |last| {
        from(&server, last)
            .version(SslVersion::TLS1_2)
            .ciphers("aRSA+ECDHE+AESGCM")
            .attempt()
    };
    let client = old(3).unwrap();
    assert_eq!(
        (client.server_name().as_str(), client.server_key()),
        ("own rsa", Id::RSA)
    );
    assert!(old(2).is_err() && old(1).is_err());
    server.quiet();
}

#[test]
fn a_rule_sets_the_protocol() {
    let place = Place::new("own-protocol");
    let text = "127.0.0.2:allow,CIPHERS=\"ECDHE+CHACHA20\"\n\
                127.0.0.3:allow,CIPHERSUITES=\"TLS_CHACHA20_POLY1305_SHA256\"\n\
                127.0.0.4:allow,TLS_MAX=\"1.2\"\n\
                127.0.0.5:allow,TLS_MIN=\"1.3\"\n\
                127.0.0.6:allow,TLS_GROUPS=\"P-384\"\n\
                127.0.0.7:allow,ALPN=\"imap\"\n\
                127.0.0.8:allow,CIPHERS=\"\"\n";
    let cdb = compile(&place, "rules.cdb", text);
    let server = Setup::new(&place, &["true"])
        .option("-x")
        .option(&cdb)
        .env("CIPHERS", "ECDHE-ECDSA-AES128-GCM-SHA256")
        .start();
    let (old, new) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    let cipher = |last, version| from(&server, last).version(version).connect().cipher();
    assert_eq!(cipher(1, old), "ECDHE-ECDSA-AES128-GCM-SHA256");
    assert_eq!(cipher(2, old), "ECDHE-ECDSA-CHACHA20-POLY1305");
    assert_eq!(
        cipher(8, old),
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "empty: unset"
    );
    assert_eq!(cipher(1, new), "TLS_AES_256_GCM_SHA384");
    assert_eq!(cipher(3, new), "TLS_CHACHA20_POLY1305_SHA256");
    assert_eq!(from(&server, 4).connect().version(), "TLSv1.2");
    assert!(from(&server, 4).version(new).attempt().is_err());
    assert_eq!(from(&server, 5).connect().version(), "TLSv1.3");
    assert!(from(&server, 5).version(old).attempt().is_err());
    assert!(from(&server, 1).groups("X25519").attempt().is_ok());
    assert!(from(&server, 6).groups("X25519").attempt().is_err());
    assert!(from(&server, 6).groups("P-384").attempt().is_ok());
    let agreed = |last| {
        let offering = from(&server, last).with(|c| c.set_alpn_protos(b"\x04imap").unwrap());
        let client = offering.connect();
        let name = client.stream.ssl().selected_alpn_protocol();
        name.map(<[u8]>::to_vec)
    };
    assert_eq!(agreed(1), None);
    assert_eq!(agreed(7).as_deref(), Some(&b"imap"[..]));
    server.quiet();
}

/// One connection of s_client from 127.0.0.N.
fn s_client(server: &Server, last: u8, words: &[&str]) -> Finished {
    let (at, own) = (server.at.to_string(), format!("127.0.0.{last}"));
    let mut command = Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-connect", &at, "-bind", &own]);
    run(command.args(words), b"")
}

#[test]
fn a_rule_sets_tickets_and_a_session_stays_with_its_rule() {
    need!("openssl");
    let place = Place::new("own-tickets");
    let own = pair(&place, "own");
    let text = format!("127.0.0.2:allow,TICKETS=\"0\"\n127.0.0.3:allow,{own}\n");
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::script(&place, "echo \"says $SSL_SESSION_RESUMED\"")
        .option("-x")
        .option(&cdb)
        .start();
    for version in ["-tls1_2", "-tls1_3"] {
        let file = place.text(&format!("session{version}"));
        let offers = |last, words: &[&str]| {
            let ended = s_client(&server, last, &[words, &[version]].concat());
            let text = ended.text();
            assert!(text.contains("says "), "{text}{}", ended.stderr);
            (
                text.contains("says Resumed"),
                text.contains("TLS session ticket:"),
            )
        };
        assert_eq!(offers(2, &[]), (false, false));
        assert_eq!(offers(1, &["-sess_out", &file]), (false, true));
        assert!(offers(1, &["-sess_in", &file]).0);
        // The other rule has another certificate: its clients begin anew.
        assert!(!offers(3, &["-sess_in", &file]).0);
        assert!(!offers(2, &["-sess_in", &file]).0);
    }
}

/// What the program says to a client with this certificate; none where it is
/// refused.
pub fn presenting(dial: Dial, theirs: Option<&Identity>) -> Option<String> {
    let dial = match theirs {
        Some(theirs) => dial.presenting(theirs),
        None => dial,
    };
    // Under TLS 1.3 the client learns only later.
    let (bytes, end) = dial.attempt().ok()?.rest();
    match end {
        End::CloseNotify => Some(String::from_utf8(bytes).unwrap()),
        End::Error(_) | End::Truncated => {
            assert!(bytes.is_empty(), "refused after {bytes:?}");
            None
        }
    }
}

#[test]
fn a_rule_says_which_client_certificates_count() {
    let place = Place::new("own-anchors");
    let (ours, other) = (Authority::root("Our Clients"), Authority::root("Others"));
    let good = Leaf::new("good").issue_by(&ours);
    let bad = Leaf::new("bad").issue_by(&ours);
    let stranger = Leaf::new("stranger").issue_by(&other);
    let ca = place.write("ca.pem", ours.pem());
    fs::create_dir(place.path("anchors")).unwrap();
    place.write("anchors/one.pem", other.pem());
    let directory = place.text("anchors");
    let crl = place.write("crl.pem", ours.crl(&place, &[bad.serial()], false));
    let pins = place.write(
        "pins",
        format!("# ours\n{} # stranger\n", stranger.fingerprint()),
    );
    let text = format!(
        "127.0.0.2:allow,CAFILE=\"{ca}\",CCAVERIFY=\"1\"\n\
         127.0.0.3:allow,CAFILE=\"{ca}\",CCAVERIFY=\"1\",CRLFILE=\"{crl}\"\n\
         127.0.0.4:allow,CAFILE=\"{ca}\",CCAVERIFY=\"1\",PINFILE=\"{pins}\"\n\
         127.0.0.5:allow,CADIR=\"{directory}\",CCAVERIFY=\"1\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::script(&place, "echo $SSL_CLIENT_VERIFY")
        .option("-x")
        .option(&cdb)
        .start();
    let all = [None, Some(&good), Some(&bad), Some(&stranger)];
    for (last, wanted) in [
        (1, [Some("NONE"); 4]),
        (2, [None, Some("SUCCESS"), Some("SUCCESS"), None]),
        (3, [None, Some("SUCCESS"), None, None]),
        (4, [None, Some("SUCCESS"), Some("SUCCESS"), Some("PINNED")]),
        (5, [None, None, None, Some("SUCCESS")]),
    ] {
        for (theirs, wanted) in all.into_iter().zip(wanted) {
            for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
                let got = presenting(from(&server, last).version(version), theirs);
                let got = got.as_deref().map(str::trim_end);
                assert_eq!(got, wanted, "127.0.0.{last}: {}", server.log());
            }
        }
    }
    server.quiet();
}

#[test]
fn a_rule_names_authorities_to_the_client_or_asks_for_nothing() {
    need!("openssl");
    let place = Place::new("own-names");
    let ours = Authority::root("Names Shown");
    let ca = place.write("ca.pem", ours.pem());
    let text = format!(
        "127.0.0.2:allow,CCAFILE=\"{ca}\"\n\
         127.0.0.3:allow,CCAFILE=\"-\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::script(&place, "echo \"says $SSL_CLIENT_VERIFY\"")
        .options("-m")
        .rules(&cdb)
        .env("CAFILE", &ca)
        .start();
    let mine = Leaf::new("mine").issue_by(&ours);
    let (certificate, key) = place.identity("mine", &mine);
    let words = ["-cert", &certificate, "-key", &key];
    let default = s_client(&server, 1, &words).text();
    assert!(default.contains("No client certificate CA names sent"));
    assert!(default.contains("says SUCCESS"), "{default}");
    let named = s_client(&server, 2, &words).text();
    assert!(
        named.contains("Acceptable client certificate CA names\nCN = Names Shown\n")
            || named.contains("Acceptable client certificate CA names\nCN=Names Shown\n"),
        "{named}"
    );
    let off = s_client(&server, 3, &words).text();
    // As with -Z: it was not asked.
    assert!(off.contains("says NONE"), "{off}");
}

#[test]
fn a_rule_says_where_the_engine_lives() {
    need_root!();
    let place = Place::new("own-jail");
    fs::create_dir(place.path("jail")).unwrap();
    let jail = fs::canonicalize(place.path("jail")).unwrap();
    let text = format!(
        "127.0.0.2:allow,SSL_CHROOT=\"{}\",SSL_UID=\"4721\",SSL_GID=\"4722\"\n\
         127.0.0.3:allow,SSL_UID=\"0\"\n",
        jail.to_str().unwrap()
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .rules(&cdb)
        .start();
    let mut client = from(&server, 2).connect();
    client.send("x");
    assert_eq!(client.read_exact(1), b"x");
    let ok = server.line("sslserver: ok ");
    let program: i32 = ok.split(' ').nth(2).unwrap().parse().unwrap();
    let engine = eventually("an engine", || {
        let pids = server.busy().into_iter().map(|one| one.pid);
        pids.into_iter().find(|pid| *pid != program)
    });
    let text = fs::read_to_string(format!("/proc/{engine}/status")).unwrap();
    assert_eq!(status_field(&text, "Uid"), "4721 4721 4721 4721");
    assert_eq!(status_field(&text, "Gid"), "4722 4722 4722 4722");
    assert_eq!(status_field(&text, "CapEff"), "0000000000000000");
    let root = fs::read_link(format!("/proc/{engine}/root")).unwrap();
    assert_eq!(root, jail);
    client.half_close();
    assert_eq!(client.text(), "");
    // No engine is root, and who asks for it is told at start.
    assert_eq!(said(&server, 3), None);
    let why = server.line("warning: rule 127.0.0.3: ");
    assert!(
        why.contains("SSL_UID") && why.contains("never runs as root"),
        "{why}"
    );
}

#[test]
fn a_local_address_has_a_store_below_the_client_s() {
    let place = Place::new("local");
    let (second, third) = (pair(&place, "second"), pair(&place, "third"));
    let own = pair(&place, "client's");
    let text = format!(
        "local=127.0.0.2:allow,{second},TLS_MAX=\"1.2\",WHERE=\"second\"\n\
         local=127.0.0.3:allow,{third}\n\
         local=127.0.0.4:deny\n\
         127.0.0.50:allow,{own}\n\
         127.0.0.51:allow,TLS_MAX=\"\",WHERE=\"client's\"\n\
         127.0.0.52:deny\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    for host in ["0", "0.0.0.0"] {
        let server = Setup::script(&place, "echo ${WHERE-nowhere}")
            .options("-v")
            .rules(&cdb)
            .host(host)
            .start();
        let meet = |local: u8, client: u8| {
            let dial = Dial::at(SocketAddr::from(([127, 0, 0, local], server.port)))
                .from(SocketAddr::from(([127, 0, 0, client], 0)));
            let mut tls = dial.attempt().ok()?;
            let text = tls.text();
            Some(format!(
                "{} {} {}",
                tls.server_name(),
                tls.version(),
                text.trim_end()
            ))
        };
        for (local, client, wanted) in [
            (1, 1, Some("localhost TLSv1.3 nowhere")),
            (2, 1, Some("second TLSv1.2 second")),
            (3, 1, Some("third TLSv1.3 nowhere")),
            (4, 1, None),
            (4, 50, None),
            (1, 50, Some("client's TLSv1.3 nowhere")),
            (2, 50, Some("client's TLSv1.2 second")),
            (2, 51, Some("second TLSv1.3 client's")),
            (2, 52, None),
        ] {
            assert_eq!(meet(local, client).as_deref(), wanted, "{local} {client}");
        }
        let denied = server.lines("sslserver: deny ", 3);
        assert!(denied[0].contains(":127.0.0.4:"), "{denied:?}");
        server.quiet();
    }
}

#[test]
fn a_server_name_chooses_the_certificate() {
    let place = Place::new("sni");
    let own = pair(&place, "client's");
    let text = format!(
        "sni=mail.example.com:allow,{}\n\
         sni=*.example.com:allow,{}\n\
         sni=UPPER.example.com:allow,{}\n\
         sni=denied.example.com:deny\n\
         sni=*.denied.example.org:deny\n\
         sni=plain.example.com:allow,WHERE=\"x\"\n\
         127.0.0.9:allow,{own},TLS_MAX=\"1.2\"\n",
        pair(&place, "exact"),
        pair(&place, "wild"),
        pair(&place, "upper")
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::new(&place, &["true"]).rules(&cdb).start();
    let long = format!("{}.example.com", ["a"; 120].join("."));
    for (name, wanted) in [
        ("mail.example.com", "exact"),
        ("MAIL.Example.COM", "exact"),
        ("mail.example.com.", "exact"),
        ("other.example.com", "wild"),
        ("OTHER.example.com.", "wild"),
        ("upper.example.com", "upper"),
        // A rule without a pair is no reason for the wildcard's.
        ("plain.example.com", "localhost"),
        // One label, neither none nor two.
        ("example.com", "localhost"),
        (".example.com", "localhost"),
        ("a.other.example.com", "localhost"),
        ("denied.example.org", "localhost"),
        ("unknown.test", "localhost"),
        // What is no host name is a name without a rule.
        ("../../../etc/passwd", "localhost"),
        ("/etc/passwd", "localhost"),
        ("..", "localhost"),
        (".", "localhost"),
        ("*", "localhost"),
        ("a/b.example.com", "localhost"),
        ("a\\b.example.com", "localhost"),
        ("a:b.example.com", "localhost"),
        ("a b.example.com", "localhost"),
        ("a\nsslserver: fatal: b", "localhost"),
        ("sni=mail.example.com", "localhost"),
        ("\u{1b}[2J.example.com", "localhost"),
        ("\u{fc}.example.com", "localhost"),
        ("127.0.0.1", "localhost"),
        (long.as_str(), "localhost"),
    ] {
        assert_eq!(shown_for(&server, Some(name)), wanted, "{name:?}");
    }
    assert_eq!(shown_for(&server, None), "localhost");
    for name in [
        "denied.example.com",
        "Denied.Example.com.",
        "x.denied.example.org",
    ] {
        let why = Dial::to(&server).name(Some(name)).attempt().err().unwrap();
        assert!(why.contains("unrecognized name"), "{name}: {why}");
        let line = server.line(&format!("server name {name} is denied by rule sni="));
        assert!(
            line.contains("sent alert unrecognized_name (112)"),
            "{line}"
        );
    }
    // The name's certificate goes with the client's settings.
    let named = |name| {
        let client = from(&server, 9).blindly().name(name).connect();
        format!("{} {}", client.server_name(), client.version())
    };
    assert_eq!(named(None), "client's TLSv1.2");
    assert_eq!(named(Some("mail.example.com")), "exact TLSv1.2");
    for line in server.log().lines() {
        assert!(line.starts_with("sslserver: warning: "), "{line}");
        assert!(line.chars().all(|c| (' '..='~').contains(&c)), "{line:?}");
    }
    server.quiet();
}

#[test]
fn clients_of_others_get_the_certificate_of_the_name_they_ask_for() {
    let gnutls = need!("gnutls-cli");
    let curl = need!("curl");
    need!("openssl");
    let place = Place::new("sni-peers");
    let one = Leaf::new("one").dns("one.example.com").issue();
    let (certificate, key) = place.identity("one", &one);
    let text = format!(
        "sni=one.example.com:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"\n\
         sni=denied.example.com:deny\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let answer = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nsays %s\\n' \"$SSL_TLS_SNI\"";
    let server = Setup::script(&place, &format!("read line; {answer}"))
        .rules(&cdb)
        .start();
    let root = place.write("root.pem", Authority::shared_root().pem());
    let port = server.port.to_string();
    for (name, served) in [
        ("one.example.com", true),
        ("localhost", true),
        ("denied.example.com", false),
    ] {
        let says = format!("says {name}\n");
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &server.at.to_string()]);
        command.args(["-servername", name, "-verify_hostname", name]);
        command.args(["-verify_return_error", "-CAfile", &root]);
        let openssl = run(&mut command, b"hello\n");

        let mut command = Command::new(&gnutls);
        command.args(["--x509cafile", &root, "--port", &port]);
        command.args(["--sni-hostname", name, "--verify-hostname", name]);
        let gnutls = run(command.arg("127.0.0.1"), b"hello\n");

        let mut command = Command::new(&curl);
        command.args(["-sS", "--max-time", "25", "--http1.0", "--cacert", &root]);
        command.args(["--noproxy", "*"]);
        command.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
        let curl = run(command.arg(format!("https://{name}:{port}/")), b"");

        for (peer, ended) in [("openssl", openssl), ("gnutls", gnutls), ("curl", curl)] {
            let got = ended.text().contains(&says);
            let text = format!("{peer} {name}: {}{}", ended.text(), ended.stderr);
            assert_eq!(got, served, "{text}");
            if !served {
                assert_ne!(ended.code, Some(0), "{text}");
                let lower = text.to_lowercase().replace('_', " ");
                assert!(
                    lower.contains("unrecognized name")
                        || lower.contains("sni name was not recognized")
                        || lower.contains("server name"),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn a_name_s_second_pair_serves_the_other_kind_of_client() {
    let place = Place::new("sni-alt");
    let ecdsa = pair(&place, "first");
    let rsa = called("second").key(KeyKind::Rsa2048).issue();
    let (alt, alt_key) = place.identity("second", &rsa);
    let text = format!(
        "sni=both.example.com:allow,{ecdsa},CERTFILE_ALT=\"{alt}\",KEYFILE_ALT=\"{alt_key}\"\n\
         sni=ecdsa.example.com:allow,{ecdsa}\n\
         sni=rsa.example.com:allow,CERTFILE=\"{alt}\",KEYFILE=\"{alt_key}\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    for default in [KeyKind::P256, KeyKind::Rsa2048] {
        let server = Setup::new(&place, &["true"])
            .identity(&Identity::localhost(default))
            .rules(&cdb)
            .start();
        let old = |name: &str, list: &str| {
            let dial = Dial::to(&server).blindly().name(Some(name));
            let dial = dial.version(SslVersion::TLS1_2).ciphers(list);
            dial.attempt().map(|client| client.server_name())
        };
        let (rsa, ecdsa) = ("aRSA+ECDHE+AESGCM", "aECDSA+ECDHE+AESGCM");
        assert_eq!(old("both.example.com", rsa).unwrap(), "second");
        assert_eq!(old("both.example.com", ecdsa).unwrap(), "first");
        assert_eq!(old("ecdsa.example.com", ecdsa).unwrap(), "first");
        assert_eq!(old("rsa.example.com", rsa).unwrap(), "second");
        // The explanation speaks of the name's key, not of the default one.
        assert!(old("ecdsa.example.com", rsa).is_err());
        let line = server.line("no shared cipher");
        assert!(
            line.contains("client offers only RSA authentication")
                && line.contains("our certificate is ECDSA")
                && line.contains("an RSA certificate in CERTFILE_ALT would serve it"),
            "{line}"
        );
        assert!(old("rsa.example.com", ecdsa).is_err());
        let line = &server.lines("no shared cipher", 2)[1];
        assert!(line.contains("our certificate is RSA"), "{line}");
        server.quiet();
    }
}

#[test]
fn a_store_that_cannot_be_loaded_refuses_only_its_own() {
    let place = Place::new("broken");
    let (good, _) = place.identity("good", &called("good").issue());
    let other = called("other").key(KeyKind::P384).issue();
    let (_, unfitting) = place.identity("other", &other);
    let missing = place.text("missing.pem");
    let own = pair(&place, "own");
    let text = format!(
        "127.0.0.2:allow,CERTFILE=\"{missing}\"\n\
         127.0.0.3:allow,CERTFILE=\"{good}\",KEYFILE=\"{unfitting}\"\n\
         127.0.0.4:allow,CIPHERS=\"NONSENSE\"\n\
         127.0.0.5:allow,TLS_MIN=\"1.4\"\n\
         127.0.0.6:allow,CAFILE=\"{missing}\",CCAVERIFY=\"1\"\n\
         127.0.0.7:allow,{own}\n\
         local=127.0.0.8:allow,CERTFILE=\"{missing}\"\n\
         sni=broken.example.com:allow,CERTFILE=\"{missing}\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let server = Setup::new(&place, &["echo", "served"])
        .options("-v")
        .rules(&cdb)
        .host("0.0.0.0")
        .start();
    let log = server.log();
    let reasons = [
        ("127.0.0.2", "unable to load certificate: CERTFILE "),
        ("127.0.0.3", "key does not match certificate: KEYFILE "),
        ("127.0.0.4", "unable to set cipher list: "),
        ("127.0.0.5", "unable to use TLS_MIN: \"1.4\""),
        ("127.0.0.6", "unable to load CA list: CAFILE "),
        ("local=127.0.0.8", "unable to load certificate: CERTFILE "),
        (
            "sni=broken.example.com",
            "unable to load certificate: CERTFILE ",
        ),
    ];
    for (address, reason) in reasons {
        // Rules with one reason share a line.
        let named = log.lines().filter(|line| {
            let list = line
                .strip_prefix("sslserver: warning: rule ")
                .and_then(|line| line.split_once(": "));
            list.is_some_and(|(list, why)| {
                list.split(", ").any(|one| one == address) && why.starts_with(reason)
            })
        });
        assert_eq!(named.count(), 1, "{address} {reason}: {log}");
    }
    assert!(!log.contains("rule 127.0.0.7"), "{log}");
    for last in 2..=6 {
        assert_eq!(said(&server, last), None, "127.0.0.{last}");
    }
    let local: IpAddr = "127.0.0.8".parse().unwrap();
    let at = SocketAddr::new(local, server.port);
    assert!(Dial::at(at).attempt().is_err());
    let lines = server.lines(": unable to load", 3);
    assert!(lines[0].contains(&missing), "{lines:?}");
    assert_eq!(from(&server, 7).connect().server_name(), "own");
    assert_eq!(said(&server, 1).as_deref(), Some("served\n"));
    let why = Dial::to(&server)
        .name(Some("broken.example.com"))
        .attempt()
        .err()
        .unwrap();
    assert!(!why.contains("unrecognized"), "{why}");
    let line = server.line("server name broken.example.com: rule sni=broken.example.com: ");
    assert!(line.contains("unable to load certificate"), "{line}");
    server.quiet();
}

#[test]
fn every_rule_of_a_broken_store_is_named() {
    let place = Place::new("broken-shared");
    let missing = place.text("missing.pem");
    let text = format!(
        "127.0.0.2:allow,CERTFILE=\"{missing}\"\n\
         127.0.0.3:allow,X=\"y\",CERTFILE=\"{missing}\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let setup = Setup::new(&place, &["true"]).option("-x").option(&cdb);
    let server = setup.start();
    for address in ["127.0.0.2", "127.0.0.3"] {
        let log = server.log();
        let named = log
            .lines()
            .any(|line| line.starts_with("sslserver: warning: rule ") && line.contains(address));
        assert!(named, "{address} not in {log}");
    }
    let checked = setup.option("-k").refused();
    assert_eq!(checked.code, Some(111));
    let text = checked.text();
    for address in ["127.0.0.2", "127.0.0.3"] {
        let named = text
            .lines()
            .any(|line| line.starts_with("wrong: rule ") && line.contains(address));
        assert!(named, "{address} not in {text}");
    }
}

#[test]
fn rules_may_bring_all_the_certificates_that_there_are() {
    let place = Place::new("no-default");
    let own = pair(&place, "own");
    let setup = |rules: &str| {
        Setup::new(&place, &["true"])
            .unset("CERTFILE")
            .unset("KEYFILE")
            .option("-x")
            .option(&compile(&place, "rules.cdb", rules))
    };
    let server = setup(&format!("127.0.0.2:allow,{own}\n")).start();
    assert_eq!(from(&server, 2).connect().server_name(), "own");
    assert_eq!(said(&server, 1), None);
    let line = server.line("dropping connection");
    assert!(line.contains("CERTFILE is not set"), "{line}");
    let refused = setup(":allow,RELAYCLIENT=\"\"\n").refused();
    let why = "fatal: unable to load certificate: CERTFILE is not set";
    refused.failed(111, why);
}

#[test]
fn k_says_what_would_be_served() {
    let place = Place::new("check");
    let own = pair(&place, "own");
    let rsa = Leaf::new("both")
        .dns("both.example.com")
        .key(KeyKind::Rsa2048)
        .issue();
    let (alt, alt_key) = place.identity("alt", &rsa);
    let text = format!(
        "127.0.0.2:allow,{own},TLS_MAX=\"1.2\",CIPHERS=\"ECDHE+CHACHA20\",CCAVERIFY=\"1\",PINFILE=\"{pins}\"\n\
         local=127.0.0.3:allow,CERTFILE_ALT=\"{alt}\",KEYFILE_ALT=\"{alt_key}\"\n\
         sni=*.example.com:allow,CERTFILE=\"{alt}\",KEYFILE=\"{alt_key}\"\n\
         sni=denied.example.com:deny\n\
         :allow\n",
        pins = place.write("pins", "")
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let setup = || {
        Setup::new(&place, &["true"])
            .options("-k")
            .rules(&cdb)
            .identity(&called("the default").issue())
    };
    let ended = setup().refused();
    assert_eq!(ended.code, Some(111), "a pin file without pins serves none");
    place.write("pins", rsa.fingerprint());
    let ended = setup().refused();
    let text = ended.text();
    assert_eq!(ended.code, Some(0), "{text}{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    let part = |head: &str| -> String {
        let lines = text.lines().skip_while(|line| *line != head);
        let body = lines.skip(1).take_while(|line| line.starts_with(' '));
        let body: Vec<&str> = body.collect();
        assert!(!body.is_empty(), "no {head:?} in {text}");
        body.join("\n") + "\n"
    };
    let default = part("environment:");
    for wanted in [
        "subject: CN=the default\n",
        "names: localhost\n",
        "key: ECDSA 256 bits\n",
        "not after: ",
        "chain: incomplete, unless clients trust CN=Test Root itself (1 intermediate)\n",
        "clients served: not RSA-only senders",
        "versions: TLS 1.2 to 1.3\n",
        "TLS_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "client certificate: not asked for\n",
    ] {
        assert!(default.contains(wanted), "{wanted} not in {default}");
    }
    let client = part("rule 127.0.0.2:");
    for wanted in [
        "subject: CN=own\n",
        "versions: TLS 1.2 to 1.2\n",
        "ciphers: ECDHE-ECDSA-CHACHA20-POLY1305\n",
        "client certificate: required\n",
    ] {
        assert!(client.contains(wanted), "{wanted} not in {client}");
    }
    let local = part("rule local=127.0.0.3:");
    assert!(local.contains("clients served: all kinds\n"), "{local}");
    assert!(local.contains("key: RSA 2048 bits\n"), "{local}");
    let name = part("rule sni=*.example.com:");
    assert!(name.contains("subject: CN=both\n"), "{name}");
    assert!(name.contains("all but those that accept ECDSA only"));
    let denied = part("rule sni=denied.example.com:");
    assert!(denied.contains("unrecognized_name"), "{denied}");
}

#[test]
fn k_says_what_is_wrong() {
    let place = Place::new("check-wrong");
    let setup = || {
        Setup::new(&place, &["true"])
            .options("-k -x")
            .option(&place.text("rules.cdb"))
    };
    let (old, old_key) = place.identity("old", &called("old").expired().issue());
    let missing = place.text("missing.pem");
    for (text, wanted) in [
        (
            format!("sni=a.example:allow,CERTFILE=\"{missing}\"\n"),
            "rule sni=a.example: unable to load certificate",
        ),
        (
            format!("127.0.0.2:allow,CERTFILE=\"{missing}\"\n"),
            "rule 127.0.0.2: unable to load certificate",
        ),
        (
            format!("127.0.0.2:allow,CERTFILE=\"{old}\",KEYFILE=\"{old_key}\"\n"),
            "certificate expired at",
        ),
        (
            "127.0.0.2:allow,CIPHERS=\"ECDHE+AESGCM:NONSENSE\"\n".to_owned(),
            "OpenSSL does not know \"NONSENSE\"",
        ),
    ] {
        compile(&place, "rules.cdb", &text);
        let ended = setup().refused();
        assert_eq!(ended.code, Some(111), "{text}");
        let wrong = ended.text();
        let named = wrong
            .lines()
            .any(|line| line.starts_with("wrong: ") && line.contains(wanted));
        assert!(named, "{wanted} not in {wrong}");
    }
    place.write("rules.cdb", "junk");
    let ended = setup().refused();
    assert_eq!(ended.code, Some(111));
    assert!(ended.text().contains("wrong: unable to read rules "));
    // The environment's own store is what no server starts without. The rest is told
    // all the same.
    let (good, good_key) = place.identity("good", &called("good").issue());
    let text = format!(
        "sni=a.example:allow,CERTFILE=\"{good}\",KEYFILE=\"{good_key}\"\n\
         127.0.0.2:allow,CERTFILE=\"{missing}\"\n"
    );
    compile(&place, "rules.cdb", &text);
    let ended = setup().env("CERTFILE", place.text("none.pem")).refused();
    ended.failed(111, "fatal: unable to load certificate: CERTFILE ");
    let told = ended.text();
    assert!(told.contains("subject: CN=good\n"), "{told}");
    assert!(
        told.contains("wrong: rule 127.0.0.2: unable to load certificate"),
        "{told}"
    );
}

#[test]
fn k_warns_of_rules_by_names_that_nobody_proved() {
    let place = Place::new("check-names");
    let cdb = compile(
        &place,
        "rules.cdb",
        "=.example.com:allow\nroot@=host.example.net:allow\n127.0.0.1:allow\n:deny\n",
    );
    for (letters, warned) in [("-h", true), ("-hp", false), ("-hpP", true), ("-hz", false)] {
        let ended = Setup::new(&place, &["true"])
            .options(letters)
            .options("-k")
            .rules(&cdb)
            .env(
                "CAFILE",
                place.write("ca.pem", Authority::shared_root().pem()),
            )
            .refused();
        let text = ended.text();
        assert_eq!(ended.code, Some(0), "{text}");
        let line = "warning: rule =.example.com, root@=host.example.net: without -p ";
        assert_eq!(text.contains(line), warned, "{letters}: {text}");
    }
}

#[test]
fn empty_values_that_ucspi_ssl_obeys_are_told_of() {
    let place = Place::new("emptied");
    let cdb = compile(
        &place,
        "rules.cdb",
        "127.0.0.2:allow,CCAVERIFY=\"\",RELAYCLIENT=\"\"\n127.0.0.3-4:allow,CCAVERIFY=\"\"\n",
    );
    let ask = "is empty, which counts as unset: no client needs a certificate; set it to 1, or leave it out";
    let own = [
        format!("environment: CCAVERIFY {ask}"),
        "environment: SSL_CHROOT is empty, which counts as unset: there is no chroot; name a \
         directory, or leave it out"
            .to_owned(),
        "environment: VERIFYDEPTH is empty, which counts as unset: a client's chain may be as long \
         as by default; set it to a number, or leave it out"
            .to_owned(),
    ];
    let of_rules = format!("rule 127.0.0.2, 127.0.0.3, 127.0.0.4: CCAVERIFY {ask}");
    let setup = |names: &[&'static str]| {
        let mut setup = Setup::new(&place, &["true"]).option("-x").option(&cdb);
        for name in names {
            setup = setup.env(name, "");
        }
        setup
    };
    let all = [
        "CCAVERIFY",
        "SSL_CHROOT",
        "VERIFYDEPTH",
        "CAFILE",
        "CIPHERS",
    ];
    let log = setup(&all).start().log();
    let checked = setup(&all).option("-k").refused();
    assert_eq!(checked.code, Some(111), "{}", checked.text());
    for line in own.iter().chain([&of_rules]) {
        let (at_start, under_k) = (
            format!("sslserver: warning: {line}\n"),
            format!("wrong: {line}\n"),
        );
        assert!(log.contains(&at_start), "{line}: {log}");
        assert!(
            checked.text().contains(&under_k),
            "{line}: {}",
            checked.text()
        );
    }
    assert_eq!(log.matches("counts as unset").count(), 4, "{log}");
    // Where an option requires as much, and where there is something to take back.
    let (ca, _) = place.identity("ca", &Leaf::localhost().self_signed());
    for (silent, about) in [
        (setup(&["CCAVERIFY"]).option("-m"), "-m"),
        (setup(&[]).env("CCAVERIFY", "1"), "CCAVERIFY=1"),
    ] {
        let checked = silent.env("CAFILE", &ca).option("-k").refused();
        let text = checked.text();
        assert!(!text.contains("counts as unset"), "{about}: {text}");
    }
}

#[test]
fn misspelt_settings_are_named_at_start_and_in_k() {
    let place = Place::new("misspelt");
    let own = pair(&place, "own");
    let text = format!(
        "127.0.0.2:allow, CERTFILE=\"/x\",RELAYCLIENT=\"\"\n\
         127.0.0.3-4:allow,{own},CA_FILE=\"/x\"\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let setup = || {
        let setup = Setup::new(&place, &["true"]).option("-x").option(&cdb);
        setup
            .env("TLSMIN", "1.3")
            .env("KEY_FILE", "")
            .env("SSL_CERT_FILE", "/x")
            // As a TLS server's program has it.
            .env("SSL_ALPN", "pop3")
    };
    let wanted = [
        "environment: variable \"TLSMIN\" is not a setting: is TLS_MIN meant?",
        "rule 127.0.0.2: variable \" CERTFILE\" is not a setting: is CERTFILE meant, without a blank?",
        "rule 127.0.0.3, 127.0.0.4: variable \"CA_FILE\" is not a setting: is CAFILE meant?",
    ];
    let server = setup().start();
    let log = server.log();
    for line in wanted {
        assert!(
            log.contains(&format!("sslserver: warning: {line}\n")),
            "{log}"
        );
    }
    assert_eq!(log.matches("is not a setting").count(), 3, "{log}");
    let checked = setup().option("-k").refused();
    assert_eq!(checked.code, Some(111), "{}", checked.text());
    for line in wanted {
        assert!(
            checked.text().contains(&format!("wrong: {line}\n")),
            "{}",
            checked.text()
        );
    }
}

#[test]
fn k_needs_no_port() {
    let place = Place::new("check-port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (certificate, key) = place.identity("own", &called("own").issue());
    let mut command = Command::new(ours("sslserver"));
    command.args(["-k", "127.0.0.1", &port, "true"]).env_clear();
    command.env("CERTFILE", certificate).env("KEYFILE", key);
    let ended = run(&mut command, b"");
    // Beside the running service, that is.
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.text().contains("subject: CN=own\n"));
}

#[test]
fn rules_that_are_met_together_have_their_store_when_they_are() {
    let place = Place::new("mixed");
    let mut rules = String::new();
    for at in 1..=100 {
        let pair = if at == 7 {
            format!(",{}", pair(&place, "local"))
        } else {
            String::new()
        };
        let _ = writeln!(rules, "local=127.0.1.{at}:allow,ALPN=\"l{at}\"{pair}");
        let _ = writeln!(rules, "127.0.0.{at}:allow,VERIFYDEPTH=\"{at}\"");
    }
    rules.push_str("127.0.0.105:allow,TLS_MAX=\"1.2\",WHO=\"old\"\n");
    rules.push_str("127.0.0.106:allow,TLS_MIN=\"1.3\",TLS_MAX=\"1.2\"\n:allow\n");
    let cdb = compile(&place, "rules.cdb", &rules);
    let server = Setup::script(&place, "echo $SSL_PROTOCOL $WHO")
        .host("0")
        .options("-v")
        .rules(&cdb)
        .start();
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status_field(&status, "VmHWM");
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(peak() < 100 << 10, "{} kB", peak());
    let dial = |local: u8, remote: u8| {
        Dial::at(SocketAddr::from(([127, 0, 1, local], server.port)))
            .from(SocketAddr::from(([127, 0, 0, remote], 0)))
    };
    // Met for the first time, and again; both rules hold.
    for _ in 0..3 {
        let mut client = dial(7, 105).connect();
        assert_eq!(client.server_name(), "local");
        assert_eq!(client.text(), "TLSv1.2 old\n");
    }
    for _ in 0..3 {
        let mut client = dial(8, 105).connect();
        assert_eq!(client.text(), "TLSv1.2 old\n");
    }
    // More of them than are kept.
    for (local, remote) in (1..=16).flat_map(|l| (1..=17).map(move |r| (l, r))) {
        assert_eq!(dial(local, remote).connect().text(), "TLSv1.3\n");
    }
    assert!(peak() < 100 << 10, "{} kB", peak());
    // What cannot be made is told, with why.
    assert!(dial(9, 106).attempt().is_err());
    server.line(" from 127.0.0.106: unable to use TLS_MIN: \"1.3\": above TLS_MAX");
    server.quiet();
}
