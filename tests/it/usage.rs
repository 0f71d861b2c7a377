//! What both programs say, and how they end, where they cannot start.
#![forbid(unsafe_code)]

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use openssl::dh::Dh;

use crate::harness::overlay;
use crate::harness::{
    Authority, Finished, Identity, KeyKind, Leaf, Place, Setup, eventually, need, need_root, ours,
    root, run, skip,
};

fn sslserver(args: &[&str]) -> Finished {
    run(Command::new(ours("sslserver")).args(args), b"")
}

fn sslclient(args: &[&str]) -> Finished {
    run(Command::new(ours("sslclient")).args(args), b"")
}

/// Junk that is no number of any option.
const NO_NUMBERS: [&str; 9] = [
    "",
    "x",
    "5s",
    "5 ",
    " 5",
    "-1",
    "+5",
    "1.5",
    "99999999999999999999",
];

#[test]
fn wrong_usage_of_sslserver_is_100() {
    for args in [
        &[][..],
        &["-v"],
        &["127.0.0.1"],
        &["127.0.0.1", "0"],
        &["-J", "0", "0", "true"],
        &["-c"],
    ] {
        sslserver(args).failed(100, "sslserver: usage: ");
    }
    for letter in ["-c", "-C", "-b", "-t", "-T", "-w"] {
        for value in NO_NUMBERS {
            let ended = sslserver(&[letter, value, "127.0.0.1", "0", "true"]);
            ended.failed(100, "sslserver: usage: ");
        }
    }
    sslserver(&["-c", "0", "127.0.0.1", "0", "true"]).failed(100, "sslserver: usage: ");
    // A name that nobody has is 111; what is a number is a user's or is not.
    for letter in ["-u", "-g"] {
        for value in ["", "-1", "+4294967295", "4294967295", "99999999999"] {
            let ended = sslserver(&[letter, value, "127.0.0.1", "0", "true"]);
            ended.failed(100, &format!("sslserver: usage: {letter}: "));
        }
    }
}

/// What a script's unset variable leaves is no name: above all, `-X` must not let
/// everybody in for it. Where the empty name stands for none, it still does.
#[test]
fn an_empty_name_of_a_file_is_wrong_usage_unless_it_stands_for_none() {
    let why = "no file is named: is a variable of the script not set?; ";
    for letters in [&["-x"][..], &["-X", "-x"], &["-Xx"], &["-y"], &["-Xy"]] {
        let (letter, words) = (
            &letters[letters.len() - 1],
            [letters, &["", "0", "0", "true"]],
        );
        let letter = &letter[letter.len() - 1..];
        sslserver(&words.concat()).failed(100, &format!("sslserver: usage: -{letter}: {why}"));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    for letter in ["-K", "-P", "-G"] {
        let ended = sslclient(&["-T1", letter, "", "127.0.0.1", &port, "true"]);
        ended.failed(100, &format!("sslclient: usage: {letter}: {why}"));
    }
    // As with ucspi-ssl, an empty list of ciphers is the default.
    for letter in ["-a", "-A", "-c", "-C", "-k", "-z"] {
        let ended = sslclient(&["-T1", letter, "", "127.0.0.1", &port, "true"]);
        ended.failed(111, "sslclient: fatal: unable to connect to ");
    }
    for (program, letter) in [("sslprobe", "-a"), ("sslprobe", "-P"), ("sslsurvey", "-o")] {
        let ended = run(
            Command::new(ours(program)).args([letter, "", "x.invalid"]),
            b"",
        );
        ended.failed(100, &format!("{program}: usage: {letter}: {why}"));
    }
}

/// A message that ends in nothing, or has two blanks, leaves its reader to guess.
#[test]
fn an_empty_name_is_shown() {
    let place = Place::new("empty-names");
    let said = |program: &str, words: &[&str], wanted: &str| {
        let ended = run(Command::new(ours(program)).args(words), b":allow\n");
        assert!(
            ended.stderr.contains(wanted),
            "{program} {words:?}: {}",
            ended.stderr
        );
    };
    let file = place.text("file");
    said(
        "sslrules",
        &[&file, ""],
        "unable to create \"\": no such file",
    );
    said("sslrules", &["", &file], "unable to move");
    said("sslrules", &["", &file], " to \"\": no such file");
    said("sslrulescheck", &[""], "unable to read \"\": no such file");
    said("sslsurvey", &[""], "unable to open \"\": no such file");
    said(
        "sslclient",
        &["-I", "", "127.0.0.1", "1", "true"],
        "-I: unknown interface \"\"\n",
    );
    let server = Setup::new(&place, &[""]).start();
    let why = "unable to run \"\": no such file or directory";
    assert!(
        server
            .line(why)
            .starts_with("sslserver: warning: unable to run ")
    );
    let (bytes, _) = crate::harness::Dial::to(&server).connect().rest();
    assert!(bytes.is_empty());
    server.lines(why, 2);
    server.stop();
}

#[test]
fn a_port_that_is_no_number_is_wrong_usage_and_an_unknown_service_is_not() {
    for bad in ["65536", "-1", "25x", "", "0x10", "1 "] {
        let why = format!("usage: port \"{bad}\" is not a number from 0 to 65535; ");
        sslserver(&["127.0.0.1", bad, "true"]).failed(100, &format!("sslserver: {why}"));
        sslclient(&["127.0.0.1", bad, "true"]).failed(100, &format!("sslclient: {why}"));
    }
    let ended = sslserver(&["127.0.0.1", "nosuchservice", "true"]);
    ended.failed(
        111,
        "sslserver: fatal: unable to figure out port number for nosuchservice",
    );
}

/// Nothing is called, whoever would answer there.
#[test]
fn a_name_that_no_host_can_have_is_wrong_usage() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let long = format!("{}.example", "x".repeat(64));
    let label = "a label is empty or too long";
    for (name, why) in [
        ("m\u{fc}nchen.example..", label),
        ("mx.example..", label),
        ("mx..example", label),
        (".mx.example", label),
        (".", label),
        ("m\u{fc}nchen\u{3002}\u{3002}example", label),
        (&long, label),
        ("mx.exa\u{378}mple", "IDNA has no form of it"),
        ("mx example", "it has a character that no host name has"),
    ] {
        let ended = sslclient(&["-T1", name, &port, "true"]);
        ended.failed(100, "sslclient: usage: host \"");
        assert!(
            ended.stderr.contains(&format!("is no host name: {why}; ")),
            "{name}"
        );
        if !name.starts_with('.') {
            let ended = sslclient(&["-m", name, "127.0.0.1", &port, "true"]);
            ended.failed(100, "sslclient: usage: -m \"");
        }
        for option in ["-q", "-M"] {
            let args = ["-T2", "-t1", option, "-p", &port, name];
            let ended = run(Command::new(ours("sslprobe")).args(args), b"");
            ended.failed(100, "sslprobe: ");
            assert!(ended.stderr.contains(why), "{}", ended.stderr);
        }
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody called");
}

#[test]
fn wrong_usage_of_sslclient_is_100() {
    for args in [
        &[][..],
        &["-v"],
        &["127.0.0.1"],
        &["127.0.0.1", "1"],
        &["-J", "127.0.0.1", "1", "true"],
        &["-T"],
    ] {
        sslclient(args).failed(100, "sslclient: usage: ");
    }
    for letter in ["-t", "-w", "-T", "-p", "-V"] {
        for value in NO_NUMBERS {
            sslclient(&[letter, value, "127.0.0.1", "1", "true"]).failed(100, "sslclient: usage: ");
        }
    }
    for (letter, value) in [
        ("-p", "65536"),
        ("-T", "1+"),
        ("-T", "+1"),
        ("-T", "1+2+3"),
        ("-i", "127.0.0.x"),
        // Libcrypto would take it for every name below.
        ("-m", ".example.com"),
        ("-m", "*.example.com"),
    ] {
        sslclient(&[letter, value, "127.0.0.1", "1", "true"]).failed(100, "sslclient: usage: ");
    }
}

#[test]
fn the_usage_line_names_the_letters() {
    let line = sslserver(&[]).stderr;
    for letter in "qQvV134 6cCbBguUoOdDItTwhHpPlrRsSeEzmYZ"
        .chars()
        .filter(|c| *c != ' ')
    {
        assert!(line.contains(letter), "-{letter}: {line}");
    }
    assert!(line.contains("host port prog"), "{line}");
    assert!(sslclient(&[]).stderr.contains("host port prog"));
}

#[test]
fn silence_covers_the_end_too() {
    let place = Place::new("silence");
    let ended = Setup::new(&place, &["true"])
        .options("-q")
        .env("CERTFILE", place.text("missing"))
        .refused();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(111), ""));
}

/// Each variable that names a file, with what else it needs.
const FILES: [&str; 9] = [
    "CERTFILE",
    "KEYFILE",
    "CERTFILE_ALT",
    "KEYFILE_ALT",
    "CAFILE",
    "CCAFILE",
    "CRLFILE",
    "PINFILE",
    "DHFILE",
];

/// A server that is asked for client certificates and whose files are all good,
/// but for the one that a test breaks.
fn complete(place: &Place) -> Setup<'_> {
    let (certificate, key) = place.identity("alt", &Identity::localhost(KeyKind::Rsa2048));
    let root = place.write("ca.pem", Authority::shared_root().pem());
    Setup::new(place, &["true"])
        .options("-m")
        .env("CERTFILE_ALT", certificate)
        .env("KEYFILE_ALT", key)
        .env("CAFILE", &root)
        .env("CCAFILE", root)
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_variable() {
    let place = Place::new("bad-files");
    drop(complete(&place).start());
    let missing = place.text("missing");
    let empty = place.write("empty", "");
    let junk = place.write("junk", "this is not PEM\n");
    let folder = place.text("folder");
    fs::create_dir(&folder).unwrap();
    for variable in FILES {
        for path in [&missing, &empty, &junk, &folder] {
            // A list of pins may hold no pin.
            if variable == "PINFILE" && *path == empty {
                continue;
            }
            let ended = complete(&place).env(variable, path).refused();
            ended.failed(111, variable);
            ended.failed(111, path);
            assert!(
                ended.stderr.starts_with("sslserver: fatal: "),
                "{}",
                ended.stderr
            );
        }
    }
    for (variable, path) in [("CADIR", &missing), ("CADIR", &junk)] {
        let ended = complete(&place)
            .unset("CAFILE")
            .env(variable, path)
            .refused();
        ended.failed(111, variable);
        ended.failed(111, path);
    }
}

#[test]
fn the_system_s_reason_is_given() {
    let place = Place::new("reason");
    let missing = place.text("missing");
    let ended = complete(&place).env("CERTFILE", &missing).refused();
    ended.failed(111, "no such file or directory");
    assert!(!ended.stderr.contains("os error"), "{}", ended.stderr);
}

#[test]
fn an_unreadable_file_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new("unreadable");
    let setup = complete(&place);
    let (_, key) = place.identity("shut", &Identity::localhost(KeyKind::P256));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o0)).unwrap();
    let setup = if root() {
        // Root reads whatever its mode says, so an ordinary user must try.
        need!("setpriv");
        if !overlay::reachable() {
            skip!("the user nobody cannot reach the program");
        }
        setup.through(overlay::AS_NOBODY)
    } else {
        setup
    };
    let ended = setup.env("KEYFILE", &key).refused();
    ended.failed(111, "KEYFILE");
    ended.failed(111, &key);
    ended.failed(111, "permission denied");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let place = Place::new("foreign-key");
    for kind in [KeyKind::P256, KeyKind::Rsa2048] {
        let own = Leaf::localhost().key(kind).issue();
        let other = Leaf::localhost().key(kind).other_key().issue();
        let key = place.write("other.key", other.key_pem());
        let ended = Setup::new(&place, &["true"])
            .identity(&own)
            .env("KEYFILE", &key)
            .refused();
        ended.failed(111, "KEYFILE");
        ended.failed(111, &key);
    }
}

#[test]
fn an_expired_certificate_is_warned_about_and_served() {
    let place = Place::new("expired");
    let expired = Leaf::localhost().expired().issue();
    let server = Setup::new(&place, &["echo", "served"])
        .identity(&expired)
        .start();
    let warning = server.line("sslserver: warning: ");
    assert!(
        warning.contains("CERTFILE") && warning.contains("expired"),
        "{warning}"
    );
    let mut client = crate::harness::Dial::to(&server).blindly().connect();
    assert_eq!(client.text(), "served\n");
}

#[test]
fn a_certificate_is_warned_about_two_weeks_before_its_end() {
    let place = Place::new("near-its-end");
    for (days, warned) in [(13, true), (15, false)] {
        let server = Setup::new(&place, &["echo", "served"])
            .identity(&Leaf::localhost().ending_in(days).issue())
            .start();
        let mut client = crate::harness::Dial::to(&server).connect();
        assert_eq!(client.text(), "served\n");
        let log = server.log();
        let warning = log.lines().any(|line| {
            line.starts_with("sslserver: warning: CERTFILE ") && line.contains("expires at")
        });
        assert_eq!(warning, warned, "{days} days: {log}");
    }
}

#[test]
fn weak_or_wrong_dh_parameters_are_refused() {
    let place = Place::new("weak-dh");
    // RFC 2409's 1024-bit group: well-known, and too short.
    let weak = Dh::from_pqg(
        openssl::bn::BigNum::get_rfc2409_prime_1024().unwrap(),
        None,
        openssl::bn::BigNum::from_u32(2).unwrap(),
    )
    .unwrap();
    let path = place.write("dh.pem", weak.params_to_pem().unwrap());
    let ended = Setup::new(&place, &["true"]).env("DHFILE", &path).refused();
    ended.failed(111, "DHFILE");
    ended.failed(111, &path);
    ended.failed(111, "1024");
}

#[test]
fn a_cipher_word_that_openssl_drops_is_warned_about() {
    let place = Place::new("cipher-word");
    let server = Setup::new(&place, &["echo", "served"])
        .env("CIPHERS", "ECDHE+AESGCM:NOSUCHWORD:!aNULL")
        .start();
    let warning = server.line("NOSUCHWORD");
    assert!(warning.starts_with("sslserver: warning: "), "{warning}");
    assert!(
        warning.contains("CIPHERS") && !warning.contains("ECDHE"),
        "{warning}"
    );
    assert_eq!(
        crate::harness::Dial::to(&server).connect().text(),
        "served\n"
    );
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let place = Place::new("settings");
    let long = "a".repeat(256);
    for (name, value) in [
        ("TLS_MIN", "1.4"),
        ("TLS_MIN", "tls"),
        ("TLS_MAX", "0.9"),
        ("TLS_GROUPS", "nosuchgroup"),
        ("CIPHERS", "NOSUCHWORD"),
        ("CIPHERSUITES", "TLS_NOSUCH_SUITE"),
        ("ALPN", long.as_str()),
        ("VERIFYDEPTH", "x"),
    ] {
        let ended = Setup::new(&place, &["true"]).env(name, value).refused();
        ended.failed(111, name);
    }
    let ended = Setup::new(&place, &["true"])
        .env("TLS_MIN", "1.3")
        .env("TLS_MAX", "1.2")
        .refused();
    ended.failed(111, "TLS_M");
}

#[test]
fn misspelt_variables_are_remarked_on_by_every_program_that_reads_some() {
    let ask = |program: &str, words: &[&str], name: &str| {
        let mut command = Command::new(program);
        run(command.args(words).env(name, "1.2"), b"").stderr
    };
    // Nothing listens on port 0.
    let client = ["-H", "127.0.0.1", "0", "true"];
    let sslclient = &ours("sslclient");
    for (name, meant) in [
        ("TLSMIN", Some("TLS_MIN")),
        ("CIPHER_SUITES", Some("CIPHERSUITES")),
        ("SSL_SANDBX", Some("SSL_SANDBOX")),
        ("CERT_FILE", None),
        ("CERTFILE", None),
        ("TLS_MAX", None),
    ] {
        let said = ask(sslclient, &client, name);
        let warning = meant.map(|meant| {
            format!(
                "sslclient: warning: environment: variable \"{name}\" is not a setting: is {meant} meant?\n"
            )
        });
        match warning {
            Some(warning) => assert!(said.starts_with(&warning), "{said}"),
            None => assert!(!said.contains("warning: environment"), "{said}"),
        }
    }
    let handoff = &ours("starttls-handoff");
    let said = ask(handoff, &["smtp", "true"], "UCSPI_TLS");
    let warning = "starttls-handoff: warning: environment: variable \"UCSPI_TLS\" is not a setting: \
                   is UCSPITLS meant?\n";
    assert!(said.starts_with(warning), "{said}");
    let said = ask(handoff, &["smtp", "true"], "UCSPITLS");
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn no_certificate_is_refused() {
    let place = Place::new("no-certificate");
    let ended = Setup::new(&place, &["true"])
        .unset("CERTFILE")
        .unset("KEYFILE")
        .refused();
    ended.failed(111, "CERTFILE");
}

#[test]
fn users_and_groups_that_are_unknown_are_refused() {
    let place = Place::new("unknown-user");
    for letter in ["-u", "-g"] {
        for name in ["nosuchuser", "12x", ""] {
            let ended = Setup::new(&place, &["true"])
                .options(letter)
                .option(name)
                .refused();
            assert!(
                matches!(ended.code, Some(100 | 111)),
                "{letter} {name}: {}",
                ended.stderr
            );
            assert!(
                ended.stderr.contains(name) && ended.stderr.contains(letter),
                "{}",
                ended.stderr
            );
        }
    }
    need_root!();
    for (name, value) in [
        ("SSL_UID", "nosuchuser"),
        ("SSL_GID", "nosuchgroup"),
        ("SSL_USER", "nosuchuser"),
        ("SSL_GROUP", "nosuchgroup"),
    ] {
        let ended = Setup::new(&place, &["true"]).env(name, value).refused();
        ended.failed(111, value);
        ended.failed(111, name);
    }
    let missing = place.text("missing");
    let ended = Setup::new(&place, &["true"])
        .env("SSL_CHROOT", &missing)
        .refused();
    ended.failed(111, "SSL_CHROOT");
    ended.failed(111, &missing);
    // -U without its variables names the one that is missing.
    let ended = Setup::new(&place, &["true"]).options("-U").refused();
    assert!(matches!(ended.code, Some(100 | 111)), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("UID") || ended.stderr.contains("GID"),
        "{}",
        ended.stderr
    );
}

#[test]
fn hosts_and_ports_that_are_unknown_are_refused() {
    let place = Place::new("unknown-host");
    // A label of 64 letters is refused before any server is asked.
    let host = "a".repeat(64);
    let ended = Setup::new(&place, &["true"]).host(&host).refused();
    ended.failed(111, "aaaa");
    let ended = Setup::new(&place, &["true"])
        .host("127.0.0.1")
        .options("-I nosuchinterface")
        .host("fe80::1")
        .refused();
    ended.failed(111, "nosuchinterface");
    let mut command = Command::new(ours("sslserver"));
    let (certificate, key) = place.identity("port", &Identity::localhost(KeyKind::P256));
    command.env("CERTFILE", certificate).env("KEYFILE", key);
    for (port, code) in [
        ("nosuchservice", 111),
        ("70000", 100),
        ("-5", 100),
        ("25x", 100),
    ] {
        let ended = run(command.args(["-1", "127.0.0.1", port, "true"]), b"");
        assert_eq!(ended.code, Some(code), "{port}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("sslserver: "), "{}", ended.stderr);
        let mut fresh = Command::new(ours("sslserver"));
        for (name, value) in command.get_envs() {
            fresh.env(name, value.unwrap());
        }
        command = fresh;
    }
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    run(command.args(["127.0.0.1", &port, "true"]), b"").failed(111, "unable to bind");
}

#[test]
fn a_program_that_is_not_there_ends_its_connection_alone() {
    let place = Place::new("no-program");
    let server = Setup::new(&place, &["/nosuchprogram"])
        .options("-v")
        .start();
    for _ in 0..2 {
        let (bytes, _) = crate::harness::Dial::to(&server).connect().rest();
        assert!(bytes.is_empty());
    }
    assert!(
        server
            .line("/nosuchprogram")
            .contains("no such file or directory")
    );
    assert!(server.lines("end ", 2)[1].ends_with(" status 28416"));
    server.quiet();
    server.stop();
}

#[test]
fn bad_files_of_sslclient_are_named() {
    let place = Place::new("client-files");
    // Something that accepts, should it connect before it looks at its files.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let (certificate, key) = place.identity("own", &Identity::localhost(KeyKind::P256));
    let other = place.write("other.key", Leaf::localhost().other_key().issue().key_pem());
    let missing = place.text("missing");
    let junk = place.write("junk", "junk\n");
    let empty = place.write("empty", "");
    for args in [
        ["-a", &missing],
        ["-a", &junk],
        ["-a", &empty],
        ["-A", &missing],
        ["-A", &junk],
        ["-c", &missing],
        ["-c", &junk],
        ["-c", &empty],
        ["-C", &missing],
    ] {
        let ended = sslclient(&["-H", args[0], args[1], "127.0.0.1", &port, "true"]);
        ended.failed(111, args[1]);
    }
    for bad in [&missing, &junk, &empty, &other] {
        let ended = sslclient(&[
            "-H",
            "-c",
            &certificate,
            "-k",
            bad,
            "127.0.0.1",
            &port,
            "true",
        ]);
        ended.failed(111, bad);
    }
    // A key is no use without its certificate; alone it must not be dropped in silence.
    let ended = sslclient(&["-H", "-k", &key, "127.0.0.1", &port, "true"]);
    assert!(matches!(ended.code, Some(100 | 111)), "{}", ended.stderr);
    let ended = sslclient(&["-H", "-z", "NOSUCHWORD", "127.0.0.1", &port, "true"]);
    ended.failed(111, "NOSUCHWORD");
}

#[test]
fn the_port_line_is_all_of_descriptor_1() {
    use std::io::Read as _;
    use std::os::unix::process::CommandExt as _;
    let place = Place::new("port-line");
    let (certificate, key) = place.identity("own", &Identity::localhost(KeyKind::P256));
    let mut child = Command::new(ours("sslserver"))
        .args(["-1", "127.0.0.1", "0", "true"])
        .env("CERTFILE", certificate)
        .env("KEYFILE", key)
        .stdout(std::process::Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    // End of file comes while the server lives.
    eventually("descriptor 1 is closed", || {
        reader.is_finished().then_some(())
    });
    let text = reader.join().unwrap();
    let alive = child.try_wait().unwrap().is_none();
    crate::harness::process::kill_group(child.id());
    child.wait().unwrap();
    assert!(alive);
    let port: u16 = text.strip_suffix('\n').expect("one line").parse().unwrap();
    assert!(port > 0);
}

#[test]
fn a_file_that_holds_something_else_is_told_with_its_cure() {
    let place = Place::new("other-files");
    let identity = Identity::localhost(KeyKind::Rsa2048);
    let (certificate, key) = place.identity("own", &identity);
    let (pem, der) = (
        identity.key_pem(),
        identity.key.private_key_to_der().unwrap(),
    );
    let mut bundle = openssl::pkcs12::Pkcs12::builder();
    bundle.pkey(&identity.key).cert(&identity.certificate);
    let bundle = bundle.build2("x").unwrap().to_der().unwrap();
    for (name, bytes, told) in [
        (
            "der",
            der,
            "it is in DER form; openssl pkey -inform DER converts it",
        ),
        (
            "certificate",
            identity.chain_pem(),
            "no PEM private key in it: it holds a certificate",
        ),
        (
            "public",
            identity.key.public_key_to_pem().unwrap(),
            "it holds a public key",
        ),
        ("junk", b"junk\n".to_vec(), "no PEM private key in it"),
        ("empty", Vec::new(), "it is empty"),
        (
            "cut",
            pem[..pem.len() / 2].to_vec(),
            "its PEM private key is damaged",
        ),
        (
            "bundle",
            bundle.clone(),
            "it is in PKCS #12 form; openssl pkcs12 -nodes converts it",
        ),
        (
            "locked",
            identity.locked_key_pem("x"),
            "it is encrypted, and no password was given with -3",
        ),
    ] {
        let path = place.secret(name, bytes);
        let ended = Setup::new(&place, &["true"])
            .pair(&certificate, &path)
            .refused();
        ended.failed(
            111,
            &format!("sslserver: fatal: unable to load key: KEYFILE {path}: "),
        );
        ended.failed(111, told);
    }
    for (name, bytes, told) in [
        (
            "der.crt",
            identity.certificate.to_der().unwrap(),
            "it is in DER form; openssl x509 -inform DER converts it",
        ),
        (
            "key.crt",
            identity.key_pem(),
            "no PEM certificate in it: it holds a private key",
        ),
        ("junk.crt", b"junk\n".to_vec(), "no PEM certificate in it"),
        ("bundle.crt", bundle, "it is in PKCS #12 form"),
        (
            "garbled.crt",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
            "its PEM certificate is damaged: ",
        ),
    ] {
        let path = place.write(name, bytes);
        for variable in ["CERTFILE", "CAFILE"] {
            let ended = Setup::new(&place, &["true"])
                .options("-Y")
                .pair(&certificate, &key)
                .env(variable, &path)
                .refused();
            ended.failed(111, &format!("{variable} {path}: "));
            ended.failed(111, told);
        }
    }
    for (path, told) in [
        (place.text("missing"), "no such file or directory"),
        (place.text(""), "it is not a regular file"),
    ] {
        let ended = Setup::new(&place, &["true"])
            .env("KEYFILE", &path)
            .refused();
        ended.failed(111, &format!("unable to load key: KEYFILE {path}: {told}"));
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_its_port() {
    let place = Place::new("bind");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ended = Setup::new(&place, &["true"]).port(port).refused();
    ended.failed(
        111,
        &format!("sslserver: fatal: unable to bind: 127.0.0.1 port {port}: address already in use"),
    );
    let ended = Setup::new(&place, &["true"])
        .host("0.0.0.0")
        .port(port)
        .refused();
    ended.failed(111, &format!("unable to bind: every address port {port}: "));
    // Of the documentation's network: no machine has it.
    let ended = Setup::new(&place, &["true"]).host("192.0.2.1").refused();
    ended.failed(
        111,
        "unable to bind: 192.0.2.1 port 0: cannot assign requested address",
    );
}

#[test]
fn every_program_says_its_version_and_how_it_is_used() {
    for name in [
        "sslserver",
        "sslclient",
        "sslrules",
        "sslrulescheck",
        "starttls-handoff",
    ] {
        let ask = |word| run(Command::new(ours(name)).arg(word), b"");
        let version = ask("--version");
        assert_eq!((version.code, &*version.stderr), (Some(0), ""), "{name}");
        let wanted = format!("{name} (ucspi-tls) {}, OpenSSL ", env!("CARGO_PKG_VERSION"));
        assert!(version.text().starts_with(&wanted), "{}", version.text());
        let help = ask("--help");
        assert_eq!((help.code, &*help.stderr), (Some(0), ""), "{name}");
        let text = help.text();
        assert!(text.starts_with(&format!("usage: {name} ")), "{text}");
        assert!(text.ends_with(&format!("See {name}(1).\n")), "{text}");
        // The reason comes before all that the synopsis says.
        let wrong = ask("-\u{1}");
        assert_eq!(wrong.code, Some(100));
        let begin = format!("{name}: usage: unknown option -");
        assert!(wrong.stderr.starts_with(&begin), "{}", wrong.stderr);
        assert_eq!(wrong.stderr.lines().count(), 1);
    }
}

/// The database would be written over itself while it is read.
#[test]
fn sslrules_wants_two_files() {
    let place = Place::new("two-files");
    let cdb = place.text("x.cdb");
    let ended = Command::new(ours("sslrules"))
        .args([&cdb, &cdb])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(100), "{said}");
    assert!(
        said.starts_with("sslrules: usage: rules.cdb and rules.tmp must be two files; "),
        "{said}"
    );
    assert!(!place.path("x.cdb").exists());
}
