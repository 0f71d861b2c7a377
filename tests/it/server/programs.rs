//! Real programs of other people's behind sslserver: what they ask of their
//! descriptors, and whom they believe.
#![forbid(unsafe_code)]

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use crate::harness::{Dial, Place, Server, Setup, need, need_root, run};

const HANDOFF: &str = env!("CARGO_BIN_EXE_starttls-handoff");

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn rsync_serves_its_client_and_listens_nowhere() {
    let (rsync, openssl) = (need!("rsync"), need!("openssl"));
    let place = Place::new("rsync");
    place.write("letter", "the letter");
    // With a pipe for descriptor 0 it would put itself into the background and
    // listen here, in the clear.
    let port = free_port();
    let config = place.write(
        "rsyncd.conf",
        format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\n\
             pid file = {0}\nlog file = {1}\n[files]\npath = {2}\n",
            place.text("pid"),
            place.text("rsync.log"),
            place.path(".").display()
        ),
    );
    let daemon = [rsync.to_str().unwrap(), "--daemon", "--config", &config];
    let server = Setup::new(&place, &daemon).options("-v").start();
    let reach = format!(
        "{} s_client -quiet -verify_quiet -connect {}",
        openssl.display(),
        server.at
    );
    let done = run(
        Command::new(&rsync)
            .args(["rsync://localhost/files/letter", &place.text("copy")])
            .env("RSYNC_CONNECT_PROG", reach),
        b"",
    );
    assert_eq!(done.code, Some(0), "{}{}", done.stderr, server.log());
    assert_eq!(place.read("copy"), b"the letter");
    assert!(
        server.line("end ").ends_with("status 0"),
        "{}",
        server.log()
    );
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!place.path("pid").exists(), "no daemon of its own");
    server.quiet();
}

/// A program that speaks UCSPI-TLS by itself, and knows none of our extensions.
#[test]
fn mailfront_asks_for_tls_by_itself() {
    let mailfront = need!("smtpfront-echo");
    let openssl = need!("openssl");
    let place = Place::new("mailfront");
    for options in ["-nv", "-nvf"] {
        let server = Setup::new(&place, &[mailfront.to_str().unwrap(), "accept"])
            .options(options)
            .env("PLUGINS", "+starttls-ucspi")
            .env("UCSPITLS", "1")
            .start();
        let mut command = Command::new(&openssl);
        command.args(["s_client", "-quiet", "-verify_quiet", "-starttls", "smtp"]);
        command.args(["-connect", &server.at.to_string()]);
        let talk = "EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n\
                    Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n";
        let text = run(&mut command, talk.as_bytes()).text();
        for reply in ["354 ", "250 Received", "221 "] {
            assert!(
                text.contains(reply),
                "{options} {reply}: {text}{}",
                server.log()
            );
        }
        assert!(!text.contains("250-STARTTLS"), "not again: {text}");
        server.line("sslserver: end ");
        server.quiet();
        assert!(!server.log().contains("in plaintext"), "{}", server.log());
    }
}

/// What man page and guides say of exim.
const EXIM: &str = "exec exim4 -bs -oMa \"$SSLREMOTEIP\"";

/// An outsider, for exim: of this machine it trusts 127.0.0.1 alone.
const OUTSIDER: &str = "127.0.0.9:0";

/// An outsider's attempt to have mail relayed: the answer to RCPT.
fn relaying(server: &Server, upgrade: bool) -> String {
    let mut talk = "EHLO x\r\nMAIL FROM:<a@evil.test>\r\nRCPT TO:<b@elsewhere.test>\r\nQUIT\r\n";
    let said = if upgrade {
        let openssl = crate::harness::program("openssl").unwrap();
        let mut command = Command::new(openssl);
        command.args(["s_client", "-quiet", "-verify_quiet", "-starttls", "smtp"]);
        command.args(["-connect", &server.at.to_string(), "-bind", OUTSIDER]);
        run(&mut command, talk.as_bytes()).text()
    } else {
        let outsider = OUTSIDER.parse().unwrap();
        let mut client = Dial::to(server).from(outsider).connect();
        let mut said = client.line();
        // One by one: exim drops a client that talks before it is greeted.
        while let Some((line, rest)) = talk.split_once("\r\n") {
            client.send(format!("{line}\r\n"));
            talk = rest;
            loop {
                let line = client.line();
                said += &line;
                if line.as_bytes().get(3) != Some(&b'-') {
                    break;
                }
            }
        }
        said
    };
    let mut replies = said
        .lines()
        .filter(|line| line.as_bytes().get(3) == Some(&b' '));
    replies.by_ref().find(|line| line.starts_with("250 OK"));
    replies.next().unwrap_or(&said).to_owned()
}

/// With Debian's stock configuration, where local users may send anywhere.
#[test]
fn an_outsider_relays_through_exim_only_where_it_was_not_told_the_address() {
    need_root!();
    let exim = need!("exim4");
    need!("openssl");
    let refused = "550 relay not permitted";
    let place = Place::new("exim");
    let exim = exim.to_str().unwrap();
    // The danger, and its warning.
    let server = Setup::new(&place, &[exim, "-bs"]).start();
    assert!(relaying(&server, false).starts_with("250 "), "it trusts");
    let warning = "exim4 -bs takes every client for a user of this machine and relays its mail";
    server.line(&format!("sslserver: warning: {warning}"));
    let check = Setup::new(&place, &[exim, "-bs"]).options("-k").refused();
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    assert!(check.text().contains(&format!("warning: {warning}")));
    // What the documents say.
    for options in ["-v", "-vf", "-v -u Debian-exim -g Debian-exim"] {
        let script = ["/bin/sh", "-c", EXIM];
        let server = Setup::new(&place, &script).options(options).start();
        assert_eq!(relaying(&server, false), refused, "{options}");
        assert!(!server.log().contains("warning"), "{}", server.log());
        server.quiet();
        let words = [&[HANDOFF, "smtp"], &script[..]].concat();
        let server = Setup::new(&place, &words)
            .options(options)
            .options("-n")
            .start();
        assert_eq!(relaying(&server, true), refused, "{options}");
    }
}

#[test]
fn exim_s_own_starttls_can_be_switched_off() {
    need_root!();
    let exim = need!("exim4");
    let stock = "/var/lib/exim4/config.autogenerated";
    let Ok(text) = std::fs::read_to_string(stock) else {
        crate::harness::skip!("no {stock}");
    };
    let place = Place::new("exim-own");
    for (more, shown) in [("", true), ("tls_advertise_hosts =\n", false)] {
        let config = place.write("exim.conf", format!("{more}{text}"));
        let words = [
            exim.to_str().unwrap(),
            "-C",
            &config,
            "-bs",
            "-oMa",
            "192.0.2.7",
        ];
        let server = Setup::new(&place, &words).start();
        let mut client = Dial::to(&server).connect();
        client.line();
        client.send("EHLO x\r\nQUIT\r\n");
        let said = client.text();
        assert_eq!(said.contains("STARTTLS"), shown, "{said}");
    }
}
