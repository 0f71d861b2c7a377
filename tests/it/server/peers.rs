//! Clients and programs of others: s_client, gnutls-cli and curl in front,
//! popa3d and mailfront behind.
#![forbid(unsafe_code)]

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use crate::harness::{
    Authority, Finished, Identity, KeyKind, Place, Server, Setup, need, need_root, overlay, run,
    skip, wanted,
};

/// The root's file, for clients.
fn anchors(place: &Place) -> String {
    place.write("root.pem", Authority::shared_root().pem())
}

fn s_client(server: &Server, anchors: &str, more: &[&str], input: &[u8]) -> Finished {
    let at = server.at.to_string();
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &at,
        "-CAfile",
        anchors,
        "-verify_return_error",
    ]);
    command.args(["-verify_hostname", "localhost", "-quiet"]);
    run(command.args(more), input)
}

#[test]
fn s_client_is_served_in_both_versions() {
    need!("openssl");
    let place = Place::new("s-client");
    let anchors = anchors(&place);
    for kind in [
        KeyKind::Rsa2048,
        KeyKind::P256,
        KeyKind::P384,
        KeyKind::Ed25519,
    ] {
        let server = Setup::script(&place, "read line; echo \"$SSL_PROTOCOL $line\"")
            .identity(&Identity::localhost(kind))
            .start();
        for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let ended = s_client(&server, &anchors, &[version], b"hello\n");
            assert_eq!(
                ended.text(),
                format!("{name} hello\n"),
                "{kind:?} {}",
                ended.stderr
            );
        }
        server.quiet();
    }
}

#[test]
fn gnutls_is_served_and_resumes() {
    let gnutls = need!("gnutls-cli");
    let place = Place::new("gnutls");
    let anchors = anchors(&place);
    let server = Setup::script(
        &place,
        "read line; echo \"says $SSL_PROTOCOL $SSL_SESSION_RESUMED $line\"",
    )
    .start();
    let words = |server: &Server, priority: &str| {
        let mut command = Command::new(&gnutls);
        command.args(["--x509cafile", &anchors, "--priority", priority]);
        command.args(["--sni-hostname", "localhost"]);
        command.args(["--verify-hostname", "localhost"]);
        command.args(["--port", &server.port.to_string(), "127.0.0.1"]);
        command
    };
    for (priority, version) in [
        ("NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLSv1.2"),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLSv1.3"),
    ] {
        let ended = run(&mut words(&server, priority), b"hello\n");
        assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
        assert!(
            ended
                .text()
                .contains(&format!("says {version} Initial hello")),
            "{}",
            ended.text()
        );
        assert!(
            !ended.stderr.contains("not properly terminated"),
            "{}",
            ended.stderr
        );
    }
    // It connects twice, the second time with the session of the first.
    let server = Setup::script(
        &place,
        "echo \"says $SSL_SESSION_RESUMED\"; exec cat >/dev/null",
    )
    .start();
    for priority in [
        "NORMAL:-VERS-ALL:+VERS-TLS1.2",
        "NORMAL:-VERS-ALL:+VERS-TLS1.3",
    ] {
        let mut command = words(&server, priority);
        let ended = run(command.args(["--resume", "--waitresumption"]), b"");
        assert!(
            ended.text().contains("This is a resumed session"),
            "{priority}: {}{}",
            ended.text(),
            ended.stderr
        );
    }
    server.quiet();
}

/// Words that run the rest where `tester`, with the password `sesame`, has a
/// mailbox of one letter.
pub fn with_mailbox(place: &Place) -> Vec<String> {
    let mail = place.path("mail");
    std::fs::create_dir(&mail).unwrap();
    let letter = "From a@example.com Sat Jan  1 00:00:00 2022\nFrom: a@example.com\nSubject: one\n\nThe only letter.\n\n";
    let mailbox = place.write("mail/tester", letter);
    chown(&mailbox, Some(4000), Some(4000)).unwrap();
    std::fs::set_permissions(&mailbox, std::fs::Permissions::from_mode(0o600)).unwrap();
    let hash = run(
        Command::new("openssl").args(["passwd", "-6", "sesame"]),
        b"",
    )
    .text();
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap();
    let shadow = place.write(
        "shadow",
        format!("{shadow}tester:{}:19000:0:99999:7:::\n", hash.trim_end()),
    );
    let mut files: Vec<(String, String)> = overlay::tester(place)
        .into_iter()
        .map(|(file, target)| (file, target.to_owned()))
        .collect();
    files.push((shadow, "/etc/shadow".into()));
    files.push((mail.to_str().unwrap().to_owned(), "/var/mail".into()));
    let pairs: Vec<_> = files
        .iter()
        .map(|(file, target)| (file.as_str(), target.as_str()))
        .collect();
    overlay::mounted(&pairs)
}

fn pop3s(place: &Place, popa3d: &Path) -> Server {
    Setup::new(place, &[popa3d.to_str().unwrap()])
        .options("-v")
        .through(with_mailbox(place))
        .start()
}

#[test]
fn popa3d_answers_curl_and_gnutls() {
    need_root!();
    need!("openssl");
    let popa3d = need!("popa3d");
    let curl = need!("curl");
    let place = Place::new("popa3d");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    let anchors = anchors(&place);
    let server = pop3s(&place, &popa3d);
    let url = format!("pop3s://localhost:{}/1", server.port);
    let fetch = |words: &[&str]| {
        let mut command = Command::new(&curl);
        command.args([
            "-sS",
            "--max-time",
            "25",
            "--cacert",
            &anchors,
            "--user",
            "tester:sesame",
        ]);
        command.args(["--resolve", &format!("localhost:{}:127.0.0.1", server.port)]);
        run(command.args(words).arg(&url), b"")
    };
    for words in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let ended = fetch(words);
        assert_eq!(ended.code, Some(0), "{} {}", ended.stderr, server.log());
        assert!(
            ended.text().contains("Subject: one") && ended.text().contains("The only letter."),
            "{}",
            ended.text()
        );
    }
    if let Some(gnutls) = wanted("gnutls-cli") {
        let mut command = Command::new(gnutls);
        let port = server.port.to_string();
        command.args(["--x509cafile", &anchors, "--port", &port, "localhost"]);
        // Its own --crlf garbles lines that come in one piece.
        let ended = run(&mut command, b"USER tester\r\nQUIT\r\n");
        assert_eq!(
            ended.text().matches("+OK").count(),
            3,
            "{}{}",
            ended.text(),
            ended.stderr
        );
    }
    // A wrong password is popa3d's matter.
    let mut command = Command::new(&curl);
    command.args([
        "-sS",
        "--max-time",
        "25",
        "--cacert",
        &anchors,
        "--user",
        "tester:wrong",
        &url,
    ]);
    assert_eq!(run(&mut command, b"").code, Some(67));
    server.quiet();
}

#[test]
fn smtpfront_answers_curl_and_s_client() {
    need!("openssl");
    let smtpfront = need!("smtpfront-echo");
    let curl = need!("curl");
    let place = Place::new("smtpfront");
    let anchors = anchors(&place);
    let server = Setup::new(&place, &[smtpfront.to_str().unwrap()])
        .options("-ve")
        .env("PLUGINS", "accept")
        .start();
    let letter = place.write("letter", "Subject: two\r\n\r\nA letter to be echoed.\r\n");
    let mut command = Command::new(&curl);
    command.args([
        "-sSv",
        "--max-time",
        "25",
        "--cacert",
        &anchors,
        "--mail-from",
        "a@example.com",
        "--mail-rcpt",
        "b@example.com",
    ]);
    command.args([
        "--upload-file",
        &letter,
        &format!("smtps://localhost:{}", server.port),
    ]);
    let ended = run(&mut command, b"");
    assert_eq!(ended.code, Some(0), "{} {}", ended.stderr, server.log());
    assert!(
        ended.stderr.contains("250 2.6.0") || ended.stderr.contains("< 250 "),
        "{}",
        ended.stderr
    );
    let ended = s_client(
        &server,
        &anchors,
        &["-crlf"],
        b"EHLO client.example.com\nNOOP\nQUIT\n",
    );
    let text = ended.text();
    assert!(
        text.contains("ESMTP") && text.contains("PIPELINING") && text.contains("221 "),
        "{text}"
    );
    server.quiet();
}
