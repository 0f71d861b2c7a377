//! Real programs of other people's behind sslserver: what they ask of their
//! descriptors, and whom they believe.
#![forbid(unsafe_code)]

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::process::pids;
use crate::harness::{
    Dial, Place, Server, Setup, need, need_root, ours, overlay, ports, program, run, skip,
    skip_part,
};

#[test]
fn rsync_serves_its_client_and_listens_nowhere() {
    let (rsync, openssl) = (need!("rsync"), need!("openssl"));
    let place = Place::new("rsync");
    place.write("letter", "the letter");
    // With a pipe for descriptor 0 it would put itself into the background and
    // listen here, in the clear.
    let port = ports::free();
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

/// A program of Debian's, installed or unpacked by `package/rts`.
fn debian(name: &str, package: &str) -> Option<String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let unpacked = target.join(package).join("usr/sbin").join(name);
    let found = program(name).or_else(|| unpacked.is_file().then_some(unpacked))?;
    found.to_str().map(str::to_owned)
}

/// What an inetd would run says to a client that says this, and the exit status
/// of the program. Fails where it leaves a process behind.
fn inetd(place: &Place, words: &[&str], through: Vec<String>, input: &str) -> (String, String) {
    let mark = place.text("mark");
    let server = Setup::new(place, words)
        .options("-v")
        .through(through)
        .env("MARK", &mark)
        .start();
    let mut client = Dial::to(&server).connect();
    client.send(input);
    client.half_close();
    let (said, _) = client.rest();
    let end = server.line("sslserver: end ");
    server.quiet();
    let strays = marked(&mark, server.pid());
    for stray in &strays {
        let _ = kill(Pid::from_raw(*stray), Signal::SIGKILL);
    }
    assert!(strays.is_empty(), "it left {strays:?}: {}", server.log());
    let (_, status) = end.rsplit_once(' ').unwrap();
    (
        String::from_utf8_lossy(&said).into_owned(),
        status.to_owned(),
    )
}

/// Processes outside the server's group that were begun below it.
fn marked(mark: &str, group: u32) -> Vec<i32> {
    let known = pids(group);
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !known.contains(pid))
        .filter(|pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ"));
            let wanted = format!("MARK={mark}");
            environ.is_ok_and(|text| {
                text.split(|&byte| byte == 0)
                    .any(|one| one == wanted.as_bytes())
            })
        })
        .collect()
}

#[test]
fn fingerd_and_efingerd_answer() {
    need_root!();
    let place = Place::new("finger");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    match (debian("in.fingerd", "fingerd"), program("finger")) {
        (Some(fingerd), Some(_)) => {
            let through = overlay::with_tester(&place);
            let (said, status) = inetd(&place, &[&fingerd], through, "tester\r\n");
            assert!(
                said.contains("Login: tester") && said.contains("Name: a test"),
                "{said:?}"
            );
            assert_eq!(status, "0");
        }
        _ => skip_part!("no fingerd"),
    }
    let Some(efingerd) = debian("efingerd", "efingerd") else {
        skip!("no efingerd");
    };
    // Its answer is a user's script, which gets the client's address. It asks the
    // kernel for that, and finds none.
    std::fs::create_dir(place.path("home")).unwrap();
    place.write("home/.efingerd", "#!/bin/sh\necho \"to $2 about $3\"\n");
    let script = place.path("home/.efingerd");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let through = overlay::mounted(&[(&place.text("home"), "/root")]);
    let (said, _) = inetd(&place, &[&efingerd], through, "root\r\n");
    assert!(said.contains("to 0.0.0.0 about root\n"), "{said:?}");
}

#[test]
fn ident2_answers_and_listens_nowhere() {
    let Some(ident2) = debian("ident2", "ident2") else {
        skip!("no ident2");
    };
    let place = Place::new("ident2");
    let (said, _) = inetd(&place, &[&ident2, "-s"], Vec::new(), "1,2\r\n");
    // It answers the end of input, too, and more than once.
    assert!(said.starts_with("1 , 2 : ERROR : NO-USER\r\n"), "{said:?}");
}

#[test]
fn bitlbee_lets_its_client_in_and_out() {
    let Some(bitlbee) = debian("bitlbee", "bitlbee") else {
        skip!("no bitlbee");
    };
    let place = Place::new("bitlbee");
    let config = place.write(
        "bitlbee.conf",
        "[settings]\nRunMode = Inetd\nAuthMode = Open\n[defaults]\n",
    );
    let words = [&*bitlbee, "-I", "-c", &config, "-d", &place.text(".")];
    let talk = "NICK tester\r\nUSER a a a :a\r\nQUIT\r\n";
    let (said, status) = inetd(&place, &words, Vec::new(), talk);
    assert!(
        said.contains(" 001 tester :Welcome") && said.contains("Closing link"),
        "{said:?}"
    );
    assert_eq!(status, "0");
}

/// It believes an Internet socket alone, and without one it puts itself into the
/// background: in a network of its own it is seen to listen.
#[test]
fn solid_pop3d_is_warned_of() {
    need_root!();
    let Some(solid) = debian("solid-pop3d", "solid-pop3d") else {
        skip!("no solid-pop3d");
    };
    let place = Place::new("solid-pop3d");
    let why = "solid-pop3d goes into the background and listens in the clear: run another program";
    for options in ["", "-f"] {
        let server = Setup::new(&place, &[&solid]).options(options).start();
        server.line(&format!("sslserver: warning: {why}"));
    }
    // The danger is real: a socket like ours for descriptor 0, and the port.
    let script = "ip link set lo up 2>/dev/null; \
                  python3 -c 'import os, socket, subprocess, sys; one, two = socket.socketpair(); \
                  subprocess.run(sys.argv[1:], stdin=two, stdout=two)' \"$0\"; \
                  grep -c ':006E .* 0A ' /proc/net/tcp6";
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        script,
        &solid,
    ]);
    let done = run(&mut command, b"");
    if program("python3").is_none() || done.stderr.contains("unshare") {
        skip!("no python3, or no namespace: {}", done.stderr);
    }
    assert_eq!(done.text().trim_end(), "1", "{}", done.stderr);
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
        let handoff = ours("starttls-handoff");
        let words = [&[&*handoff, "smtp"], &script[..]].concat();
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
