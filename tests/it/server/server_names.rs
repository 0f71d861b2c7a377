//! What a rule for a server name changes in the connections that ask for it:
//! everything that TLS still leaves open when the name is there.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use openssl::ssl::SslVersion;

use super::stores::{called, presenting};
use crate::harness::dial::plain;
use crate::harness::{
    Authority, Dial, Identity, Leaf, Place, Server, Setup, compile, eventually, need, ours, run,
};

const BOTH: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];
const SCRIPT: &str = "echo \"$SSL_TLS_SNI $SSL_CLIENT_VERIFY\"";

/// A server under these rules that prints for which name it served whom.
fn server(place: &Place, letters: &str, rules: &str, settings: &[(&str, &str)]) -> Server {
    let cdb = compile(place, "rules.cdb", rules);
    let mut setup = Setup::script(place, SCRIPT)
        .options(letters)
        .option("-x")
        .option(&cdb);
    for (name, value) in settings {
        setup = setup.env(name, *value);
    }
    setup.start()
}

/// What the program says to a client that asks for this name; the same in both
/// versions.
fn says(server: &Server, name: Option<&str>, theirs: Option<&Identity>) -> Option<String> {
    let [twelve, thirteen] = BOTH.map(|version| {
        let dial = Dial::to(server).version(version).name(name).blindly();
        presenting(dial, theirs)
    });
    assert_eq!(twelve, thirteen, "{name:?}: {}", server.log());
    twelve.map(|text| text.trim().to_owned())
}

#[test]
fn a_name_s_rule_requires_a_certificate_and_says_whose() {
    need!("openssl");
    let place = Place::new("named-verification");
    let (staff, other) = (Authority::root("Staff"), Authority::root("Other"));
    let (good, bad) = (
        Leaf::new("good").issue_by(&staff),
        Leaf::new("bad").issue_by(&staff),
    );
    let stranger = Leaf::new("stranger").issue_by(&other);
    let deep = Leaf::new("deep").issue_by(&staff.below("Middle"));
    let ca = place.write("staff.pem", staff.pem());
    let others = place.write("others.pem", other.pem());
    let crl = place.write("crl.pem", staff.crl(&place, &[bad.serial()], false));
    let pins = place.write("pins", stranger.fingerprint());
    let rules = format!(
        "sni=staff.test:allow,CAFILE=\"{ca}\",CCAVERIFY=\"1\"\n\
         sni=*.staff.test:allow,CAFILE=\"{ca}\",CCAVERIFY=\"1\",CRLFILE=\"{crl}\"\n\
         sni=pinned.test:allow,CCAVERIFY=\"1\",PINFILE=\"{pins}\"\n\
         sni=short.test:allow,CAFILE=\"{ca}\",CCAVERIFY=\"1\",VERIFYDEPTH=\"0\"\n\
         sni=env.test:allow,CCAVERIFY=\"1\"\n\
         sni=own.test:allow,FOO=\"bar\"\n\
         :allow\n"
    );
    let server = server(&place, "-Z", &rules, &[("CAFILE", &others)]);
    let all = [None, Some(&good), Some(&bad), Some(&stranger), Some(&deep)];
    for (name, wanted) in [
        (None, [Some("NONE"); 5]),
        (Some("elsewhere.test"), [Some("NONE"); 5]),
        (Some("own.test"), [Some("NONE"); 5]),
        (
            Some("STAFF.test"),
            [
                None,
                Some("SUCCESS"),
                Some("SUCCESS"),
                None,
                Some("SUCCESS"),
            ],
        ),
        (
            Some("a.staff.test"),
            [None, Some("SUCCESS"), None, None, None],
        ),
        (Some("a.b.staff.test"), [Some("NONE"); 5]),
        (
            Some("pinned.test"),
            [None, None, None, Some("PINNED"), None],
        ),
        (
            Some("short.test"),
            [None, Some("SUCCESS"), Some("SUCCESS"), None, None],
        ),
        // What the rule leaves unsaid is the connection's.
        (Some("env.test"), [None, None, None, Some("SUCCESS"), None]),
    ] {
        for (theirs, wanted) in all.into_iter().zip(wanted) {
            let wanted = wanted.map(|verdict| {
                // In lower case, however the client wrote it.
                let name = name.unwrap_or_default().to_ascii_lowercase();
                format!("{name} {verdict}").trim().to_owned()
            });
            assert_eq!(says(&server, name, theirs), wanted, "{name:?}");
        }
    }
    let line = server.line("certificate revoked");
    assert!(line.contains("depth 0, /CN=bad"), "{line}");
    server.quiet();
}

#[test]
fn a_name_s_rule_lies_over_the_client_s_and_may_ask_for_nothing() {
    let place = Place::new("named-over-client");
    let (staff, other) = (Authority::root("Staff"), Authority::root("Other"));
    let good = Leaf::new("good").issue_by(&staff);
    let ca = place.write("staff.pem", staff.pem());
    let others = place.write("others.pem", other.pem());
    let rules = format!(
        "127.0.0.2:allow,CAFILE=\"{ca}\"\n\
         sni=open.test:allow,CCAFILE=\"-\"\n\
         sni=strict.test:allow,CCAVERIFY=\"1\"\n\
         :allow\n"
    );
    let server = server(&place, "-m", &rules, &[("CAFILE", &others)]);
    for (last, name, theirs, wanted) in [
        (1, "plain.test", None, None),
        (1, "plain.test", Some(&good), None),
        (1, "open.test", None, Some("open.test NONE")),
        (1, "open.test", Some(&good), Some("open.test NONE")),
        (1, "strict.test", Some(&good), None),
        (2, "strict.test", Some(&good), Some("strict.test SUCCESS")),
        (2, "strict.test", None, None),
        (2, "open.test", None, Some("open.test NONE")),
    ] {
        for version in BOTH {
            let dial = Dial::to(&server)
                .version(version)
                .name(Some(name))
                .blindly();
            let dial = dial.from(std::net::SocketAddr::from(([127, 0, 0, last], 0)));
            let got = presenting(dial, theirs);
            let got = got.as_deref().map(str::trim);
            assert_eq!(got, wanted, "{last} {name}: {}", server.log());
        }
    }
}

#[test]
fn a_name_s_rule_bounds_versions_suites_groups_and_protocols() {
    let place = Place::new("named-bounds");
    let (certificate, key) = place.identity("other", &called("other").issue());
    // Its key lies in it: the server's own KEYFILE does not go with it.
    let one = called("one").other_key().issue();
    let one_file = place.write("one.pem", [one.chain_pem(), one.key_pem()].concat());
    let rules = format!(
        "sni=new.test:allow,TLS_MIN=\"1.3\"\n\
         sni=old.test:allow,TLS_MAX=\"1.2\",CIPHERS=\"ECDHE+CHACHA20\"\n\
         sni=suite.test:allow,CIPHERSUITES=\"TLS_CHACHA20_POLY1305_SHA256\"\n\
         sni=group.test:allow,TLS_GROUPS=\"P-384\"\n\
         sni=alpn.test:allow,ALPN=\"imap\",CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"\n\
         sni=one.test:allow,ALPN=\"imap\",CERTFILE=\"{one_file}\"\n\
         :allow\n"
    );
    let server = server(&place, "-Z", &rules, &[("TLS_GROUPS", "X25519:P-256")]);
    let dial = |name: &str| Dial::to(&server).name(Some(name)).blindly();
    let [twelve, thirteen] = BOTH;
    assert!(dial("new.test").version(twelve).attempt().is_err());
    assert_eq!(
        dial("new.test").version(thirteen).connect().version(),
        "TLSv1.3"
    );
    let line = server.line("no shared version");
    assert!(line.contains("TLS_MIN is 1.3"), "{line}");
    assert!(dial("old.test").version(thirteen).attempt().is_err());
    let old = dial("old.test").connect();
    assert_eq!(
        (old.version(), old.cipher()),
        ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305")
    );
    let few = dial("old.test").ciphers("ECDHE-ECDSA-AES256-GCM-SHA384");
    assert!(few.version(twelve).attempt().is_err());
    let suite = dial("suite.test").version(thirteen).connect();
    assert_eq!(suite.cipher(), "TLS_CHACHA20_POLY1305_SHA256");
    let offering = |name: &str, groups: &str| dial(name).version(thirteen).groups(groups);
    assert!(offering("group.test", "X25519:P-256").attempt().is_err());
    assert!(offering("plain.test", "P-384").attempt().is_err());
    // The client's first share is of another group: a HelloRetryRequest.
    let mut again = offering("group.test", "X25519:P-256:P-384").connect();
    assert_eq!(again.text(), "group.test NONE\n");
    for (version, name, shown) in BOTH.into_iter().flat_map(|version| {
        [("alpn.test", "other"), ("one.test", "one")].map(|(name, shown)| (version, name, shown))
    }) {
        let alpn = dial(name)
            .version(version)
            .with(|context| context.set_alpn_protos(b"\x04imap\x04pop3").unwrap())
            .connect();
        let chosen = alpn.stream.ssl().selected_alpn_protocol();
        assert_eq!(chosen, Some(&b"imap"[..]));
        assert_eq!(alpn.server_name(), shown);
    }
}

#[test]
fn a_ticket_of_another_name_brings_nobody_past_a_name_s_rule() {
    need!("openssl");
    let place = Place::new("named-tickets");
    let staff = Authority::root("Staff");
    let ca = place.write("staff.pem", staff.pem());
    let rules = format!(
        "sni=staff.test:allow,CAFILE=\"{ca}\",CCAVERIFY=\"1\"\n\
         sni=denied.test:deny\n\
         :allow\n"
    );
    let server = server(&place, "-Z", &rules, &[]);
    let ask = |name: &str, words: &[&str]| {
        let at = server.at.to_string();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &at, "-servername", name]);
        run(command.args(words), b"").text()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let file = place.text(&format!("session{version}"));
        let text = ask("open.test", &[version, "-sess_out", &file]);
        assert!(text.contains("open.test NONE"), "{text}");
        for name in ["staff.test", "denied.test"] {
            let text = ask(name, &[version, "-sess_in", &file]);
            let served = text.contains(&format!("{name} NONE"));
            assert!(!served, "{name}: {text}");
        }
    }
}

#[test]
fn a_name_s_rule_gives_tickets_or_none() {
    need!("openssl");
    let place = Place::new("named-ticket-setting");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let rules = "sni=none.test:allow,TICKETS=\"0\"\nsni=open.test:allow,CCAFILE=\"-\"\n:allow\n";
    let cdb = compile(&place, "rules.cdb", rules);
    let script = "echo \"says $SSL_SESSION_RESUMED $SSL_TLS_SNI $SSL_CLIENT_VERIFY\"";
    for (letter, name, resumed) in [
        ("-Z", "plain.test", true),
        ("-Z", "none.test", false),
        ("-Y", "plain.test", false),
        // It asks for nothing, where all others are asked.
        ("-Y", "open.test", true),
    ] {
        let server = Setup::script(&place, script)
            .options(letter)
            .option("-x")
            .option(&cdb)
            .env("CAFILE", &root)
            .start();
        let at = server.at.to_string();
        for version in ["-tls1_2", "-tls1_3"] {
            let file = place.text(&format!("session{letter}{name}{version}"));
            let ask = |words: &[&str]| {
                let mut command = Command::new("openssl");
                command.args(["s_client", "-ign_eof", "-connect", &at]);
                run(
                    command.args(["-servername", name, version]).args(words),
                    b"",
                )
                .text()
            };
            let text = ask(&["-sess_out", &file]);
            assert!(
                text.contains(&format!("says Initial {name} NONE")),
                "{text}"
            );
            if std::fs::exists(&file).unwrap() {
                let text = ask(&["-sess_in", &file]);
                let word = if resumed { "Resumed" } else { "Initial" };
                assert!(text.contains(&format!("says {word} {name} NONE")), "{text}");
            } else {
                assert!(!resumed, "{letter} {name} {version}: no session to keep");
            }
        }
    }
}

#[test]
fn what_comes_too_late_for_a_name_is_refused_by_name() {
    let place = Place::new("named-too-late");
    let place_text = place.text("late.cdb");
    for setting in [
        "SSL_CHROOT",
        "SSL_UID",
        "SSL_GID",
        "SSL_USER",
        "SSL_SANDBOX",
        "MAXCONIP",
    ] {
        let line = format!("sni=late.test:allow,{setting}=\"0\"\n");
        let words = format!("{setting} has no effect in a rule for a server name");
        let mut command = Command::new(ours("sslrules"));
        command.args([&place_text, &place.text("late.tmp")]);
        let refused = run(&mut command, format!(":allow\n{line}").as_bytes());
        refused.failed(100, &format!("fatal: line 2: {words}"));
    }
    assert!(!std::fs::exists(&place_text).unwrap());
    // As tcprules would have made it.
    let cdb = place.text("rules.cdb");
    let made = run(
        Command::new("python3").args(["-c", TCPRULES, &cdb]),
        b"sni=late.test\n+SSL_UID=65534\nsni=a.test\n+TLS_MIN=1.3\n\
          sni=first.test\n+FOO=bar\nsni=first.test\nD\n\
          sni=met.test\n+VERIFYDEPTH=3\nsni=met.test\n+CCAVERIFY=1\n\n",
    );
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let setup = || Setup::script(&place, SCRIPT).option("-x").option(&cdb);
    let words = "rule sni=late.test: SSL_UID has no effect in a rule for a server name";
    let checked = setup().options("-k").refused();
    assert_eq!(checked.code, Some(111), "{}", checked.text());
    assert!(checked.text().contains(&format!("wrong: {words}")));
    let server = setup().start();
    server.line(&format!("sslserver: warning: {words}"));
    let refused = Dial::to(&server)
        .name(Some("late.test"))
        .blindly()
        .attempt();
    assert!(refused.is_err());
    server.line(&format!("server name late.test: {words}"));
    // Of two records with one key the first counts.
    for name in ["b.test", "first.test", "met.test"] {
        let said = says(&server, Some(name), None);
        assert_eq!(said, Some(format!("{name} NONE")));
    }
}

/// Writes records from descriptor 0, a key and its data by turns, into a cdb.
const TCPRULES: &str = r#"
import struct, sys
def hashed(key):
    h = 5381
    for byte in key:
        h = ((h << 5) + h ^ byte) & 0xffffffff
    return h
lines = sys.stdin.buffer.read().split(b"\n")
records = [(lines[n], lines[n + 1] + b"\0" if lines[n + 1] else b"") for n in range(0, len(lines) - 1, 2)]
body, tables = b"", [[] for _ in range(256)]
for key, data in records:
    h = hashed(key)
    tables[h & 255].append((h, 2048 + len(body)))
    body += struct.pack("<LL", len(key), len(data)) + key + data
head, at = b"", 2048 + len(body)
for table in tables:
    size = 2 * len(table)
    head += struct.pack("<LL", at, size)
    slots = [(0, 0)] * size
    for h, where in table:
        slot = (h >> 8) % size
        while slots[slot][1]:
            slot = (slot + 1) % size
        slots[slot] = (h, where)
    for slot in slots:
        body += struct.pack("<LL", *slot)
    at += 8 * size
open(sys.argv[1], "wb").write(head + body)
"#;

#[test]
fn k_shows_what_a_name_s_rule_makes() {
    let place = Place::new("named-check");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let missing = place.text("missing.pem");
    let rules = format!(
        "sni=a.test:allow,CAFILE=\"{root}\",CCAVERIFY=\"1\",TLS_MIN=\"1.3\"\n\
         sni=b.test:allow,CAFILE=\"{root}\",CCAVERIFY=\"1\",TLS_MIN=\"1.3\"\n\
         127.0.0.2:allow,TLS_MAX=\"1.3\"\n127.0.0.3:allow,TLS_MIN=\"1.2\"\n:allow\n"
    );
    let cdb = compile(&place, "rules.cdb", &rules);
    let setup = || Setup::script(&place, SCRIPT).options("-k").rules(&cdb);
    let ended = setup().refused();
    let text = ended.text();
    assert_eq!(ended.code, Some(0), "{text}{}", ended.stderr);
    // Each once, though over two clients' settings they make the same.
    let part = text.split("rule sni=a.test, sni=b.test:\n").nth(1).unwrap();
    let part: String = part
        .lines()
        .take_while(|line| line.starts_with(' '))
        .collect();
    assert!(part.contains("versions: TLS 1.3 to 1.3"), "{text}");
    assert!(part.contains("client certificate: required"), "{text}");
    let rules = format!("sni=a.test:allow,CAFILE=\"{missing}\",CCAVERIFY=\"1\"\n:allow\n");
    compile(&place, "rules.cdb", &rules);
    let ended = setup().refused();
    assert_eq!(ended.code, Some(111), "{}", ended.text());
    let line = format!("wrong: rule sni=a.test: unable to load CA list: CAFILE {missing}: ");
    assert!(ended.text().contains(&line), "{}", ended.text());
    // At start that name alone is refused.
    let server = Setup::script(&place, SCRIPT)
        .option("-x")
        .option(&cdb)
        .start();
    assert_eq!(says(&server, Some("a.test"), None), None);
    assert_eq!(
        says(&server, Some("b.test"), None).as_deref(),
        Some("b.test NONE")
    );
    server.line("server name a.test: rule sni=a.test: unable to load CA list");
}

/// A stream that writes another name of the same length from the second time on.
struct Renaming {
    stream: TcpStream,
    names: [&'static [u8]; 2],
    seen: bool,
}

impl Read for Renaming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Renaming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut bytes = bytes.to_vec();
        let [old, new] = self.names;
        let found = bytes.windows(old.len()).position(|part| part == old);
        if let Some(at) = found {
            if self.seen {
                bytes[at..at + new.len()].copy_from_slice(new);
            }
            self.seen = true;
        }
        self.stream.write_all(&bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn a_client_names_one_server_and_no_other_later() {
    let place = Place::new("named-twice");
    let rules = "sni=strict.test:allow,CCAVERIFY=\"1\",TLS_GROUPS=\"P-384\"\n:allow\n";
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let settings = [("TLS_GROUPS", "P-384"), ("CAFILE", &*root)];
    let server = server(&place, "-Z", rules, &settings);
    for names in [
        [&b"polite.test"[..], b"strict.test"],
        [b"strict.test", b"polite.test"],
    ] {
        let ssl = Dial::to(&server)
            .name(Some(std::str::from_utf8(names[0]).unwrap()))
            .blindly()
            .groups("X25519:P-384")
            .ssl();
        let stream = Renaming {
            stream: plain(server.at),
            names,
            seen: false,
        };
        assert!(ssl.connect(stream).is_err());
    }
    let lines = server.lines("dropping TLS connection", 2);
    for line in lines {
        assert!(line.contains("illegal_parameter (47)"), "{line}");
    }
}

#[test]
fn what_a_name_s_rule_names_is_read_again_when_it_changes() {
    let place = Place::new("named-reload");
    let (first, second) = (
        Leaf::new("first").self_signed(),
        Leaf::new("second").self_signed(),
    );
    let pins = place.write("pins", first.fingerprint());
    let rules = format!("sni=a.test:allow,CCAVERIFY=\"1\",PINFILE=\"{pins}\"\n:allow\n");
    let server = server(&place, "-Z", &rules, &[]);
    // One connection: the change may come between two.
    let ask = |identity| {
        let dial = Dial::to(&server).name(Some("a.test")).blindly();
        presenting(dial, Some(identity))
    };
    assert_eq!(ask(&first).as_deref(), Some("a.test PINNED\n"));
    assert_eq!(ask(&second), None);
    place.write("pins", second.fingerprint());
    eventually("the new pins hold", || {
        (ask(&second).as_deref() == Some("a.test PINNED\n")).then_some(())
    });
    assert_eq!(ask(&first), None);
    server.line(&format!("PINFILE {pins} changed"));
}

#[test]
fn rules_that_multiply_have_a_bound() {
    let place = Place::new("named-many");
    let pair = |number| {
        format!(
            "127.0.1.{number}:allow,ALPN=\"a{number}\"\n\
             sni=n{number}.test:allow,VERIFYDEPTH=\"{number}\"\n"
        )
    };
    // 289 stores where 256 may be. What is shared counts once.
    let same = "sni=same.test:allow,VERIFYDEPTH=\"0\"\n:allow\n".to_owned();
    let rules: String = (0..17).map(pair).chain([same]).collect();
    let cdb = compile(&place, "rules.cdb", &rules);
    let server = Setup::script(&place, SCRIPT)
        .options("-Zx")
        .option(&cdb)
        .patience(Duration::from_secs(300))
        .start();
    let line = server.line("make more than 256 stores");
    let all = "rule sni=n0.test, sni=n1.test, sni=n10.test, ";
    assert!(
        line.contains(all) && line.contains(" and 8 more: "),
        "{line}"
    );
    for number in 0..3 {
        let name = format!("n{number}.test");
        let said = says(&server, Some(&name), None);
        assert_eq!(said, Some(format!("{name} NONE")), "over the environment's");
    }
    let ask = |last, name| {
        let from = std::net::SocketAddr::from(([127, 0, 1, last], 0));
        let dial = Dial::to(&server).from(from).name(Some(name)).blindly();
        presenting(dial, None)
    };
    assert!(ask(0, "n2.test").is_some(), "among the first");
    assert!(ask(15, "n0.test").is_some(), "the last of 256");
    assert_eq!(ask(15, "n1.test"), None, "beyond the bound");
    assert_eq!(ask(16, "n16.test"), None, "beyond the bound");
    assert!(ask(16, "other.test").is_some(), "it has no such name");
    server.line("server name n16.test: rule sni=n16.test: rules for server names");
}
