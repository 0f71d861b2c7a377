//! Real servers: our own, Exim, Dovecot, Postfix, stunnel, GnuTLS's and NSS's.
#![forbid(unsafe_code)]

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{has, list, result};
use crate::harness::daemons::{Dovecot, Exim};
use crate::harness::process::kill_group;
use crate::harness::{
    Authority, Identity, KeyKind, Leaf, Place, Setup, eventually, need, ours, ports,
};

fn root(place: &Place) -> String {
    place.write("root.pem", Authority::shared_root().pem())
}

fn rsa() -> Identity {
    Identity::localhost(KeyKind::Rsa2048)
}

/// What every sound server comes to.
fn sound(found: &Value, versions: &[&str]) {
    for version in versions {
        assert_eq!(found["versions"][*version], true, "{found:#}");
        assert!(found["preferred"][*version].is_string(), "{found:#}");
    }
    let certificates = found["certificates"].as_array().expect("a list");
    assert!(!certificates.is_empty(), "{found:#}");
    for one in certificates {
        assert_eq!(
            (&one["verify"], &one["name_ok"]),
            (&"ok".into(), &true.into()),
            "{found:#}"
        );
    }
    assert_eq!(found["error"], Value::Null, "{found:#}");
    assert_eq!(
        (&found["large_hello"], &found["grease"]),
        (&true.into(), &true.into())
    );
    assert_ne!(found["injection"], "answered");
    let number = |key: &str| found[key].as_u64().expect("a number");
    assert!(number("handshakes") <= 24 && number("connections") <= number("handshakes") + 2);
}

/// A server on a port of its own, which `command` gets as its last word, or in the
/// place of `PORT`.
struct Foreign {
    child: Child,
    at: String,
}

impl Foreign {
    fn start(place: &Place, port: u16, command: &mut Command) -> Foreign {
        let log = File::create(place.path("foreign.log")).expect("made");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("copy"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("started");
        let at = format!("127.0.0.1:{port}");
        eventually("it listens", || TcpStream::connect(&at).ok());
        Foreign { child, at }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        kill_group(self.child.id());
        let _ = self.child.wait();
    }
}

/// An SMTP server in the shell.
const SHELL_SMTP: &str = r"printf '220 sh ESMTP\r\n'
while read -r line; do
  case $line in
    EHLO*) printf '250-sh\r\n250 SIZE 1000\r\n' ;;
    QUIT*) printf '221 bye\r\n'; exit ;;
    *) printf '250 ok\r\n' ;;
  esac
done";

#[test]
fn our_own_server_is_all_well_at_once_and_behind_starttls() {
    let place = Place::new("probe-ours");
    let root = root(&place);
    let identity = rsa();
    let server = Setup::script(&place, "cat").identity(&identity).start();
    let (found, code) = result(&["-a", &root, &server.at.to_string()]);
    sound(&found, &["TLSv1.2", "TLSv1.3"]);
    assert_eq!(code, 0, "{found:#}");
    let handoff = ours("starttls-handoff");
    let prog = [handoff.as_str(), "smtp", "/bin/sh", "-c", SHELL_SMTP];
    let server = Setup::new(&place, &prog)
        .options("-n")
        .identity(&identity)
        .start();
    let (found, code) = result(&["-y", "smtp", "-a", &root, &server.at.to_string()]);
    sound(&found, &["TLSv1.2", "TLSv1.3"]);
    assert_eq!(
        (&found["starttls"], &found["injection"]),
        (&"offered".into(), &"refused".into())
    );
    assert_eq!(code, 0, "{found:#}");
}

#[test]
fn exim_is_probed() {
    let place = Place::new("probe-exim");
    let Some(exim) = Exim::start(&place, &rsa(), &[]) else {
        crate::harness::skip!("exim4 is not installed")
    };
    let root = root(&place);
    let (found, _) = result(&["-y", "smtp", "-a", &root, &exim.at.to_string()]);
    sound(&found, &["TLSv1.2", "TLSv1.3"]);
    assert!(
        found["greeting"]
            .as_str()
            .is_some_and(|text| text.starts_with("220")),
        "{found:#}"
    );
    assert!(found["auth_after_tls"].is_array());
}

#[test]
fn dovecot_is_probed_in_each_protocol() {
    let place = Place::new("probe-dovecot");
    let Some(dovecot) = Dovecot::start(&place, &rsa()) else {
        crate::harness::skip!("dovecot is not installed")
    };
    let root = root(&place);
    for (protocol, port) in [
        ("imap", dovecot.imap),
        ("pop3", dovecot.pop3),
        ("sieve", dovecot.sieve),
        ("lmtp", dovecot.lmtp),
    ] {
        if port == 0 {
            continue;
        }
        let at = format!("127.0.0.1:{port}");
        let (found, _) = result(&["-y", protocol, "-a", &root, &at]);
        if protocol == "lmtp" && found["starttls"] == "missing" {
            // Dovecot's LMTP offers none unless it is told to.
            continue;
        }
        sound(&found, &["TLSv1.2", "TLSv1.3"]);
        let after = list(&found["auth_after_tls"]);
        assert!(
            protocol == "lmtp" || after.contains(&"PLAIN"),
            "{protocol}: {found:#}"
        );
        assert_eq!(found["injection"], "refused", "{protocol}");
    }
}

#[test]
fn gnutls_is_probed() {
    let gnutls = need!("gnutls-serv");
    let place = Place::new("probe-gnutls");
    let root = root(&place);
    let port = ports::free();
    let mut command = Command::new(gnutls);
    command.args(["--echo", "--quiet", "--port", &port.to_string()]);
    for identity in [rsa(), Identity::localhost(KeyKind::P256)] {
        let name = format!("{:?}", identity.key.id());
        let (_, key) = place.identity(&name, &identity);
        let chain = place.write(&format!("{name}.chain"), identity.chain_pem());
        command.args(["--x509certfile", &chain, "--x509keyfile", &key]);
    }
    let server = Foreign::start(&place, port, &mut command);
    let (found, _) = result(&["-a", &root, &server.at]);
    sound(&found, &["TLSv1.2", "TLSv1.3"]);
    assert_eq!(
        found["certificates"].as_array().map(Vec::len),
        Some(2),
        "{found:#}"
    );
    assert_eq!(found["resumption"]["TLSv1.3"], true, "{found:#}");
}

#[test]
fn nss_is_probed() {
    let selfserv = need!("selfserv");
    let (certutil, pk12util) = (need!("certutil"), need!("pk12util"));
    let place = Place::new("probe-nss");
    let identity = Leaf::localhost().key(KeyKind::Rsa2048).self_signed();
    let (certificate, key) = place.identity("nss", &identity);
    let (folder, bundle) = (format!("sql:{}", place.text("")), place.text("nss.p12"));
    let steps: [(&std::path::Path, Vec<&str>); 3] = [
        (&certutil, vec!["-N", "-d", &folder, "--empty-password"]),
        (
            std::path::Path::new("openssl"),
            vec![
                "pkcs12",
                "-export",
                "-in",
                &certificate,
                "-inkey",
                &key,
                "-out",
                &bundle,
                "-name",
                "own",
                "-passout",
                "pass:",
            ],
        ),
        (&pk12util, vec!["-i", &bundle, "-d", &folder, "-W", ""]),
    ];
    for (program, words) in steps {
        let made = crate::harness::run(Command::new(program).args(&words), b"");
        assert_eq!(made.code, Some(0), "{words:?}: {made:?}");
    }
    let port = ports::free();
    let mut command = Command::new(selfserv);
    command.args(["-d", &folder, "-n", "own", "-p", &port.to_string()]);
    command.args(["-V", "tls1.2:tls1.3"]);
    let server = Foreign::start(&place, port, &mut command);
    let (found, _) = result(&[&server.at]);
    assert_eq!(found["versions"]["TLSv1.3"], true, "{found:#}");
    assert_eq!(found["versions"]["TLSv1.2"], true, "{found:#}");
    assert!(has(&found, "self-signed"));
    assert_eq!(found["certificates"][0]["bits"], 2048);
}

#[test]
fn stunnel_is_probed() {
    let stunnel = need!("stunnel4");
    let place = Place::new("probe-stunnel");
    let root = root(&place);
    let identity = rsa();
    let (_, key) = place.identity("stunnel", &identity);
    let chain = place.write("stunnel.chain", identity.chain_pem());
    let port = ports::free();
    let config = place.write(
        "stunnel.conf",
        format!(
            "foreground = yes\npid =\n[echo]\naccept = 127.0.0.1:{port}\ncert = {chain}\nkey = {key}\n\
             options = CIPHER_SERVER_PREFERENCE\nexec = /bin/cat\nexecArgs = cat\n"
        ),
    );
    let server = Foreign::start(&place, port, Command::new(stunnel).arg(config));
    let (found, _) = result(&["-a", &root, &server.at]);
    sound(&found, &["TLSv1.2", "TLSv1.3"]);
    assert_eq!(found["server_order"], true, "{found:#}");
}

#[test]
fn postfix_is_probed() {
    crate::harness::need_root!();
    let place = Place::new("probe-postfix");
    let identity = Leaf::localhost().key(KeyKind::Rsa2048).issue();
    let Some(postfix) = crate::sslremote::postfix::Postfix::start(&place, &identity) else {
        crate::harness::skip!("postfix is not there")
    };
    let root = root(&place);
    let at = format!("{}:25", postfix.ip);
    let (found, _) = result(&["-a", &root, &at]);
    assert_eq!(found["starttls"], "offered", "{found:#}");
    assert_eq!(found["versions"]["TLSv1.3"], true, "{found:#}");
    assert_eq!(found["certificates"][0]["verify"], "ok", "{found:#}");
    assert_eq!(
        (&found["error"], &found["injection"]),
        (&Value::Null, &"refused".into())
    );
}
