//! Sessions resumed across the processes of one listener, and what a ticket is
//! not good for.
#![forbid(unsafe_code)]

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::isolation::keyholders;
use crate::harness::{
    Authority, Finished, Identity, KeyKind, Leaf, Place, Server, Setup, compile, eventually, need,
    run,
};

const SCRIPT: &str = "echo \"says $SSL_SESSION_RESUMED $SSL_CLIENT_VERIFY $SSL_PEER_S_DN\"";

/// One connection of s_client, which reads and writes sessions in files.
fn s_client(server: &Server, words: &[&str]) -> Finished {
    let at = server.at.to_string();
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-ign_eof",
        "-connect",
        &at,
        "-servername",
        "localhost",
    ]);
    run(command.args(words), b"")
}

/// The same, for this server name or for none.
fn named(server: &Server, name: Option<&str>, words: &[&str]) -> Finished {
    let at = server.at.to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-connect", &at]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    run(command.args(words), b"")
}

/// The program's line.
fn says(ended: &Finished) -> String {
    let text = ended.text();
    let line = text.lines().find_map(|line| line.strip_prefix("says "));
    line.unwrap_or_else(|| panic!("{text}\n{}", ended.stderr))
        .trim_end()
        .to_owned()
}

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[test]
fn sessions_are_resumed_in_both_versions() {
    need!("openssl");
    let place = Place::new("resumption");
    let server = Setup::script(&place, SCRIPT).options("-V").start();
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        assert_eq!(
            says(&s_client(&server, &[version, "-sess_out", &file])),
            "Initial NONE"
        );
        for _ in 0..2 {
            assert_eq!(
                says(&s_client(&server, &[version, "-sess_in", &file])),
                "Resumed NONE"
            );
        }
    }
    let lines = server.lines("sslserver: tls ", 6);
    let resumed: Vec<_> = lines
        .iter()
        .map(|line| line.contains(" resumed=yes "))
        .collect();
    assert_eq!(resumed, [false, true, true, false, true, true], "{lines:?}");
}

#[test]
fn tickets_can_be_turned_off() {
    need!("openssl");
    let place = Place::new("no-tickets");
    let server = Setup::script(&place, SCRIPT).env("TICKETS", "0").start();
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        assert_eq!(
            says(&s_client(&server, &[version, "-sess_out", &file])),
            "Initial NONE"
        );
        // Without a ticket there may be no session to keep at all.
        if std::fs::exists(&file).unwrap() {
            assert_eq!(
                says(&s_client(&server, &[version, "-sess_in", &file])),
                "Initial NONE"
            );
        }
    }
}

#[test]
fn new_ticket_keys_come_with_hup() {
    need!("openssl");
    let place = Place::new("ticket-keys");
    let server = Setup::script(&place, SCRIPT).start();
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        s_client(&server, &[version, "-sess_out", &file]);
        assert_eq!(
            says(&s_client(&server, &[version, "-sess_in", &file])),
            "Resumed NONE"
        );
        server.signal(Signal::SIGHUP);
        eventually("old tickets are worth nothing", || {
            (says(&s_client(&server, &[version, "-sess_in", &file])) == "Initial NONE")
                .then_some(())
        });
    }
}

#[test]
fn hup_ends_old_tickets_though_the_new_material_does_not_load() {
    need!("openssl");
    let place = Place::new("ticket-keys-broken");
    let (certificate, key) = place.identity("own", &Identity::localhost(KeyKind::P256));
    let server = Setup::script(&place, SCRIPT)
        .pair(&certificate, &key)
        .start();
    let mut files = Vec::new();
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        s_client(&server, &[version, "-sess_out", &file]);
        let said = says(&s_client(&server, &[version, "-sess_in", &file]));
        assert_eq!(said, "Resumed NONE");
        files.push((version, file));
    }
    let old = keyholders(&server);
    place.write("own.pem", "nonsense\n");
    server.signal(Signal::SIGHUP);
    server.line("unable to reload, the old material keeps serving");
    for (version, file) in files {
        eventually("old tickets are worth nothing", || {
            let said = says(&s_client(&server, &[version, "-sess_in", &file]));
            (said == "Initial NONE").then_some(())
        });
        // The same keyholder makes new ones.
        s_client(&server, &[version, "-sess_out", &file]);
        let said = says(&s_client(&server, &[version, "-sess_in", &file]));
        assert_eq!(said, "Resumed NONE");
    }
    assert_eq!(keyholders(&server), old);
}

fn presenting<'a>(files: &'a (String, String), more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec![
        "-cert",
        files.0.as_str(),
        "-cert_chain",
        &files.0,
        "-key",
        &files.1,
    ];
    words.extend(more);
    words
}

#[test]
fn where_a_certificate_is_asked_for_every_client_is_judged_anew() {
    need!("openssl");
    let place = Place::new("resumed-client");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let known = place.identity("known", &Leaf::new("known").issue());
    let stranger = place.identity("stranger", &Leaf::new("stranger").self_signed());
    for (letter, who, verdict) in [
        ("-m", &known, "SUCCESS CN=known"),
        ("-Y", &known, "SUCCESS CN=known"),
        (
            "-Y",
            &stranger,
            "FAILED:self-signed certificate CN=stranger",
        ),
    ] {
        let server = Setup::script(&place, SCRIPT)
            .options(letter)
            .env("CAFILE", &root)
            .start();
        for version in VERSIONS {
            let file = place.text(&format!("session{letter}{version}"));
            let _ = std::fs::remove_file(&file);
            let words = presenting(who, &[version, "-sess_out", &file]);
            let first = s_client(&server, &words);
            assert_eq!(says(&first), format!("Initial {verdict}"));
            assert!(
                !first.text().contains("TLS session ticket:"),
                "{}",
                first.text()
            );
            // Without a ticket there may be no session to keep at all.
            if std::fs::exists(&file).unwrap() {
                let words = presenting(who, &[version, "-sess_in", &file]);
                let again = says(&s_client(&server, &words));
                assert_eq!(again, format!("Initial {verdict}"), "{letter} {version}");
            }
        }
    }
}

#[test]
fn a_ticket_holds_for_one_listener_and_one_policy() {
    need!("openssl");
    let place = Place::new("other-policy");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let own = Identity::localhost(crate::harness::KeyKind::P256);
    let setup = |letter: &str| {
        Setup::script(&place, SCRIPT)
            .options(letter)
            .env("CAFILE", &root)
            .identity(&own)
            .start()
    };
    let open = setup("-Z");
    let again = setup("-Z");
    let required = setup("-m");
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        assert_eq!(
            says(&s_client(&open, &[version, "-sess_out", &file])),
            "Initial NONE"
        );
        let refused = s_client(&required, &[version, "-sess_in", &file]);
        assert!(!refused.text().contains("says "), "{}", refused.text());
        // Another listener of the same policy starts afresh.
        assert_eq!(
            says(&s_client(&again, &[version, "-sess_in", &file])),
            "Initial NONE"
        );
        assert_eq!(
            says(&s_client(&open, &[version, "-sess_in", &file])),
            "Resumed NONE"
        );
    }
}

const NAMES: &str = "echo \"says $SSL_SESSION_RESUMED ${SSL_TLS_SNI-none}\"";

#[test]
fn a_ticket_holds_for_one_server_name() {
    need!("openssl");
    let place = Place::new("other-name");
    let server = Setup::script(&place, NAMES).options("-V").start();
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        let takes = |name| says(&named(&server, name, &[version, "-sess_out", &file]));
        let shows = |name| says(&named(&server, name, &[version, "-sess_in", &file]));
        let (one, other) = (Some("one.example"), Some("other.example"));
        assert_eq!(takes(one), "Initial one.example");
        assert_eq!(shows(one), "Resumed one.example");
        // Names are the same however they are written (RFC 4343).
        assert_eq!(shows(Some("ONE.example")), "Resumed one.example");
        assert_eq!(shows(other), "Initial other.example");
        assert_eq!(shows(None), "Initial none");
        assert_eq!(takes(None), "Initial none");
        assert_eq!(shows(None), "Resumed none");
        assert_eq!(shows(one), "Initial one.example");
    }
    // The log tells the name of this connection too.
    for line in server.lines(" resumed=yes ", 6) {
        let named = line.contains(" sni=one.example ") && line.matches("sni=").count() == 1;
        assert!(named || !line.contains("sni="), "{line}");
    }
    let with_name = |part: &str| {
        let log = server.log();
        log.lines().filter(|line| line.contains(part)).count()
    };
    assert_eq!(with_name("sni=one.example resumed=yes"), 4);
}

#[test]
fn a_denied_server_name_is_denied_to_who_resumes() {
    need!("openssl");
    let place = Place::new("denied-name");
    let cdb = compile(&place, "rules.cdb", "sni=deny.test:deny\n:allow\n");
    let server = Setup::script(&place, NAMES)
        .option("-x")
        .option(&cdb)
        .start();
    let mut files = Vec::new();
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        let shows = |name| named(&server, name, &[version, "-sess_in", &file]).text();
        for taken in [Some("fine.test"), None] {
            let first = named(&server, taken, &[version, "-sess_out", &file]);
            assert!(says(&first).starts_with("Initial "));
            assert!(shows(taken).contains("says Resumed "));
            let denied = shows(Some("deny.test"));
            assert!(!denied.contains("says "), "{version} {taken:?}: {denied}");
        }
        let taken = named(&server, Some("fine.test"), &[version, "-sess_out", &file]);
        assert_eq!(says(&taken), "Initial fine.test");
        files.push((version, file));
    }
    // Nor has a session a right that its name has lost since. (No HUP: that ends
    // all tickets.)
    compile(&place, "rules.cdb", "sni=fine.test:deny\n:allow\n");
    eventually("the rules are noticed", || {
        let ended = named(&server, Some("fine.test"), &[]);
        (!ended.text().contains("says ")).then_some(())
    });
    for (version, file) in &files {
        let ended = named(&server, Some("fine.test"), &[version, "-sess_in", file]);
        assert!(!ended.text().contains("says "), "{}", ended.text());
    }
}

/// The NewSessionTicket messages that a client of TLS 1.3 gets.
fn tickets(server: &Server, words: &[&str]) -> usize {
    let ended = s_client(server, &[&["-tls1_3", "-msg"], words].concat());
    let text = ended.text();
    assert!(text.contains("says "), "{text}{}", ended.stderr);
    text.matches(", NewSessionTicket").count()
}

#[test]
fn tls_1_3_gives_two_tickets_and_one_more_after_each_resumption() {
    need!("openssl");
    let place = Place::new("two-tickets");
    let server = Setup::script(&place, SCRIPT).options("-V").start();
    let (first, second) = (place.text("first"), place.text("second"));
    assert_eq!(tickets(&server, &["-sess_out", &first]), 2);
    // A client that uses each once can go on for ever.
    let (mut old, mut new) = (&first, &second);
    for _ in 0..3 {
        let words = ["-sess_in", old, "-sess_out", new];
        assert_eq!(tickets(&server, &words), 1);
        std::mem::swap(&mut old, &mut new);
    }
    let lines = server.lines("sslserver: tls ", 4);
    let resumed = |line: &String| line.contains(" resumed=yes");
    assert_eq!(lines.iter().filter(|line| resumed(line)).count(), 3);
}

#[test]
fn tickets_outlive_the_keyholder_that_made_them() {
    need!("openssl");
    let place = Place::new("other-keyholder");
    // One with several processes.
    let identity = Leaf::new("localhost").key(KeyKind::Rsa3072).issue();
    let (certificate, key) = place.identity("own", &identity);
    let server = Setup::script(&place, SCRIPT)
        .pair(&certificate, &key)
        .start();
    for version in VERSIONS {
        let file = place.text(&format!("session{version}"));
        let first = says(&s_client(&server, &[version, "-sess_out", &file]));
        assert_eq!(first, "Initial NONE");
        let resumes = |when: &str| {
            for _ in 0..3 {
                let said = says(&s_client(&server, &[version, "-sess_in", &file]));
                assert_eq!(said, "Resumed NONE", "{version}: {when}");
            }
        };
        resumes("by any of its processes");
        let old = keyholders(&server);
        for pid in &old {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
        }
        eventually("others take their places", || {
            let now = keyholders(&server);
            (now.len() == old.len() && now.iter().all(|pid| !old.contains(pid))).then_some(())
        });
        resumes("by those that were started since");
        // Another generation, without HUP; its key was written anew, so that its
        // keyholder is another too.
        let old = keyholders(&server);
        let text = std::fs::read_to_string(&certificate).unwrap();
        std::fs::write(&certificate, text + "\n").unwrap();
        std::fs::write(&key, identity.key_pem()).unwrap();
        eventually("another generation serves", || {
            let said = says(&s_client(&server, &[version, "-sess_in", &file]));
            assert_eq!(said, "Resumed NONE", "{version}: across a reload");
            let now = keyholders(&server);
            now.iter().all(|pid| !old.contains(pid)).then_some(())
        });
        resumes("by the next generation");
    }
}

#[test]
fn anchors_that_are_taken_away_end_old_sessions() {
    need!("openssl");
    let place = Place::new("policy-change");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let known = place.identity("known", &Leaf::new("known").issue());
    let server = Setup::script(&place, SCRIPT)
        .options("-m")
        .env("CAFILE", &root)
        .start();
    let file = place.text("session");
    let words = presenting(&known, &["-tls1_3", "-sess_out", &file]);
    assert_eq!(says(&s_client(&server, &words)), "Initial SUCCESS CN=known");
    place.write("ca.pem", Authority::root("Another Root").pem());
    server.signal(Signal::SIGHUP);
    eventually("the old certificate is refused, resumed or not", || {
        let ended = s_client(
            &server,
            &presenting(&known, &["-tls1_3", "-sess_in", &file]),
        );
        (!ended.text().contains("says ")).then_some(())
    });
}
