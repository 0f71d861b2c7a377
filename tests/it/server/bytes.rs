//! Settings and rules whose bytes are no UTF-8: a path works, whatever it holds; a
//! word is refused; and none of them passes for unset.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use ucspi_tls::internals::settings::NAMES;

use super::check::content;
use crate::harness::{
    Authority, Client, Dial, End, Identity, KeyKind, Leaf, Place, Server, Setup, compile,
    eventually, need, ours, run,
};

/// Names the verdict on the client's certificate.
const SCRIPT: &str = "echo \"$SSL_CLIENT_VERIFY ${CRLFILE-unset}\"";

/// A file in a directory whose name is no UTF-8.
fn write(place: &Place, name: &str, bytes: &[u8]) -> PathBuf {
    let folder = place.path("").join(OsString::from_vec(b"d\xe9".to_vec()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// What the program says to a client that shows a certificate, if it has a session.
fn verdict(server: &Server, from: u8, identity: Option<&Identity>) -> Option<String> {
    let mut dial = Dial::to(server).from(([127, 0, 0, from], 0).into());
    if let Some(identity) = identity {
        dial = dial.presenting(identity);
    }
    let (said, end) = dial.attempt().ok()?.rest();
    (end == End::CloseNotify).then(|| String::from_utf8(said).unwrap())
}

/// Lists of both authorities, the certificate being revoked.
fn lists(place: &Place, revoked: &Identity) -> Vec<u8> {
    let upper = Authority::shared_root().crl(place, &[], false);
    let lower = Authority::shared().crl(place, &[revoked.serial()], false);
    [upper, lower].concat()
}

#[test]
fn paths_of_any_bytes_count_in_the_environment() {
    need!("openssl");
    let place = Place::new("bytes-environment");
    let (good, bad) = (Leaf::new("good").issue(), Leaf::new("bad").issue());
    let own = Identity::localhost(KeyKind::P256);
    let setup = || {
        Setup::script(&place, SCRIPT)
            .options("-m")
            .env("CERTFILE", write(&place, "own.pem", &own.chain_pem()))
            .env("KEYFILE", write(&place, "own.key", &own.key_pem()))
            .env(
                "CAFILE",
                write(&place, "ca.pem", &Authority::shared_root().pem()),
            )
            .env("CRLFILE", write(&place, "crl.pem", &lists(&place, &bad)))
    };
    let server = setup().start();
    let said = verdict(&server, 1, Some(&good));
    assert_eq!(said.as_deref(), Some("SUCCESS unset\n"));
    assert_eq!(verdict(&server, 1, Some(&bad)), None);
    server.line("certificate revoked");
    // The way that messages show it.
    let checked = setup().option("-k").refused();
    content(&checked);
    let shown = "/d\\xE9/own.pem\n";
    assert!(checked.text().contains(shown), "{}", checked.text());
    // A file that is changed is noticed there, too.
    write(&place, "crl.pem", &lists(&place, &good));
    eventually("the list that changed counts", || {
        verdict(&server, 1, Some(&good)).is_none().then_some(())
    });
    server.line("/d\\xE9/crl.pem changed");
    // None of them is there.
    for name in ["CERTFILE", "KEYFILE", "CAFILE", "CRLFILE"] {
        let none = place
            .path("")
            .join(OsString::from_vec(b"none\xe9".to_vec()));
        let ended = setup().env(name, none).refused();
        ended.failed(
            111,
            &format!("{name} {}none\\xE9: no such file", place.text("")),
        );
    }
}

#[test]
fn paths_of_any_bytes_count_in_rules() {
    need!("openssl");
    let place = Place::new("bytes-rules");
    let (good, bad) = (Leaf::new("good").issue(), Leaf::new("bad").issue());
    let anchors = place.write("ca.pem", Authority::shared_root().pem());
    let list = write(&place, "crl.pem", &lists(&place, &bad));
    let named = Leaf::new("named").dns("named.test").issue();
    let chain = write(&place, "named.pem", &named.chain_pem());
    let key = write(&place, "named.key", &named.key_pem());
    let text = [
        b"127.0.0.2:allow,CRLFILE=\"" as &[u8],
        list.as_os_str().as_bytes(),
        b"\"\n127.0.0.3:allow,TLS_MIN=\"1.2\xff\"\n127.0.0.4:allow,CCAVERIFY=\"\xff\"\nsni=named.test:allow,CERTFILE=\"",
        chain.as_os_str().as_bytes(),
        b"\",KEYFILE=\"",
        key.as_os_str().as_bytes(),
        b"\"\n:allow\n",
    ]
    .concat();
    let cdb = compile(&place, "rules.cdb", &text);
    let setup = || {
        Setup::script(&place, SCRIPT)
            .options("-Y -x")
            .option(&cdb)
            .env("CAFILE", &anchors)
    };
    let server = setup().start();
    let word = "rule 127.0.0.3: unable to use TLS_MIN: \"1.2\\xFF\": it is not valid UTF-8";
    server.line(word);
    for (last, identity, wanted) in [
        (1, Some(&bad), Some("SUCCESS unset\n")),
        (2, Some(&good), Some("SUCCESS unset\n")),
        (2, Some(&bad), None),
        (3, Some(&good), None),
        (4, Some(&good), Some("SUCCESS unset\n")),
        (4, None, None),
    ] {
        let said = verdict(&server, last, identity);
        assert_eq!(said.as_deref(), wanted, "127.0.0.{last}");
    }
    let dial = Dial::to(&server).blindly().name(Some("named.test"));
    assert_eq!(dial.connect().server_name(), "named");
    let checked = setup().option("-k").refused();
    assert_eq!(checked.code, Some(111), "{}", checked.stderr);
    assert!(
        checked.text().contains(&format!("wrong: {word}")),
        "{}",
        checked.text()
    );
}

/// Every setting there is, each with bytes that no file has and that are no word.
#[test]
fn no_setting_that_is_no_text_passes_for_unset() {
    let place = Place::new("bytes-all");
    let value = || OsString::from_vec(b"/none/\xff".to_vec());
    for name in NAMES {
        let mut setup = Setup::script(&place, SCRIPT).options("-m");
        if *name == "KEYFILE_ALT" {
            let second = Identity::localhost(KeyKind::Rsa2048);
            let (chain, _) = place.identity("second", &second);
            setup = setup.env("CERTFILE_ALT", chain);
        }
        let setup = setup.env(name, value());
        if *name == "CCAVERIFY" {
            // Its being set is all that counts.
            let server = setup.options("-Z").start();
            assert_eq!(verdict(&server, 1, None), None);
            continue;
        }
        let ended = setup.refused();
        assert_eq!(ended.code, Some(111), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(name), "{name}: {}", ended.stderr);
    }
    for name in ["UID", "GID"] {
        let setup = Setup::script(&place, SCRIPT).options("-U");
        let setup = setup.env("UID", "1").env("GID", "1").env(name, value());
        setup
            .refused()
            .failed(111, &format!("unable to use {name}: \"/none/\\xFF\""));
    }
}

#[test]
fn programs_that_call_servers_refuse_them_too() {
    let place = Place::new("bytes-clients");
    let server = Setup::script(&place, "echo hello").start();
    for name in ["TLS_MIN", "TLS_MAX", "TLS_GROUPS", "CIPHERSUITES"] {
        let mut command = Client::new(&place).command("localhost", server.port, &["cat"]);
        let value = OsString::from_vec(b"1.3\xff".to_vec());
        let ended = run(command.env(name, value), b"");
        let why =
            format!("sslclient: fatal: unable to use {name}: \"1.3\\xFF\": it is not valid UTF-8");
        ended.failed(111, &why);
    }
    for name in ["SSL_SANDBOX", "DNSCACHEIP"] {
        let mut command = Command::new(ours("sslprobe"));
        command.arg("localhost").env_clear();
        let value = OsString::from_vec(b"require\xff".to_vec());
        let ended = run(command.env(name, value), b"");
        assert_eq!(ended.code, Some(111), "{name}: {}", ended.stderr);
        let why = format!("unable to use {name}: \"require\\xFF\": it is not valid UTF-8");
        let said = ended.text() + &ended.stderr;
        assert!(said.contains(&why), "{said}");
    }
}

#[test]
fn a_rule_s_variable_may_have_any_name() {
    let place = Place::new("bytes-names");
    let cdb = compile(&place, "rules.cdb", b":allow,FO\xfe=\"b\xe9r\"\n");
    let server = Setup::script(&place, "tr '\\0' '\\n' </proc/self/environ")
        .options("-x")
        .option(&cdb)
        .start();
    let (said, _) = Dial::to(&server).connect().rest();
    let wanted = b"FO\xfe=b\xe9r";
    let has = said.split(|byte| *byte == b'\n').any(|line| line == wanted);
    assert!(has, "{}", String::from_utf8_lossy(&said));
}
