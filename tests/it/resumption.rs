//! Sessions resumed across the processes of one listener, and what a ticket is
//! not good for.
#![forbid(unsafe_code)]

use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{
    Authority, Finished, Identity, Leaf, Place, Server, Setup, eventually, need, run,
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
