//! What the letters about sockets and ident do, seen from outside: through the
//! ident protocol, ss(8) and strace(1).
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::harness::{Dial, Place, Setup, need, peer, run, skip};

#[test]
fn ident_answers_are_passed_on() {
    // RFC 1413 has one port only: a loopback address of its own keeps it apart.
    let Ok(listener) = TcpListener::bind("127.0.0.77:113") else {
        skip!("port 113 cannot be had");
    };
    let place = Place::new("ident");
    let server = Setup::script(&place, "echo \"$SSLREMOTEINFO\"; echo \"$TCPREMOTEINFO\"")
        .options("-revt 20")
        .start();
    let asked = thread::spawn(move || {
        let stream = peer::accept(&listener);
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let ports = line.trim_end().to_owned();
        write!(&stream, "{ports} : USERID : UNIX : some body\r\n").unwrap();
        ports
    });
    let from: SocketAddr = "127.0.0.77:0".parse().unwrap();
    let mut client = Dial::to(&server).from(from).connect();
    let own = client.stream.get_ref().local_addr().unwrap().port();
    let text = client.text();
    let name = text.lines().next().unwrap();
    assert!(
        name.contains("some") && text == format!("{name}\n{name}\n"),
        "{text}"
    );
    let ports: Vec<u16> = asked
        .join()
        .unwrap()
        .split(',')
        .map(|port| port.trim().parse().unwrap())
        .collect();
    assert_eq!(ports, [own, server.port], "the client's port first");
    let ok = server.line("sslserver: ok ");
    assert!(
        ok.ends_with(&format!(":127.0.0.77:some?body:{own}")) || ok.contains(":127.0.0.77:some"),
        "{ok}"
    );
    // -R, the default, asks nobody.
    let server = Setup::script(&place, "echo \"${SSLREMOTEINFO-unset}\"")
        .options("-rR")
        .start();
    assert_eq!(Dial::to(&server).from(from).connect().text(), "unset\n");
}

#[test]
fn a_silent_ident_server_holds_nobody_up_for_long() {
    let Ok(_listener) = TcpListener::bind("127.0.0.78:113") else {
        skip!("port 113 cannot be had");
    };
    let place = Place::new("silent-ident");
    // It accepts, by the kernel's hand, and never answers.
    let server = Setup::script(&place, "echo \"${SSLREMOTEINFO-unset}\"")
        .options("-r -t 1")
        .start();
    let from: SocketAddr = "127.0.0.78:0".parse().unwrap();
    assert_eq!(Dial::to(&server).from(from).connect().text(), "unset\n");
    server.quiet();
}

#[test]
fn the_backlog_is_what_b_says() {
    let ss = need!("ss");
    let place = Place::new("backlog");
    for (letters, wanted) in [("", "20"), ("-b 7", "7")] {
        let server = Setup::new(&place, &["true"]).options(letters).start();
        let filter = format!("sport = :{}", server.port);
        let text = run(
            std::process::Command::new(&ss).args(["-Hltn", &filter]),
            b"",
        )
        .text();
        let shown = text.split_whitespace().nth(2);
        assert_eq!(shown, Some(wanted), "{text}");
    }
}

/// strace, where it is there and may trace.
pub fn strace() -> Option<std::path::PathBuf> {
    let strace = crate::harness::program("strace")?;
    let mut trial = std::process::Command::new(&strace);
    let trial = run(trial.args(["-f", "-o", "/dev/null", "true"]), b"");
    (trial.code == Some(0)).then_some(strace)
}

/// The calls of setsockopt(2) during one connection.
fn socket_options(place: &Place, letters: &str) -> Option<String> {
    let strace = strace()?;
    let file = place.fresh("trace");
    let file = file.to_str().unwrap();
    let words = [
        strace.to_str().unwrap(),
        "-f",
        "-e",
        "trace=setsockopt",
        "-o",
        file,
    ];
    // A traced process cannot have more system calls filtered than strace knows.
    let server = Setup::new(place, &["true"])
        .options(letters)
        .env("SSL_SANDBOX", "0")
        .through(words)
        .start();
    Dial::to(&server).connect().text();
    server.quiet();
    drop(server);
    Some(std::fs::read_to_string(file).unwrap())
}

#[test]
fn nagle_and_source_routes_follow_their_letters() {
    let place = Place::new("socket-options");
    let Some(calls) = socket_options(&place, "") else {
        skip!("strace is not installed or may not trace");
    };
    assert!(calls.contains("TCP_NODELAY, [1]"), "{calls}");
    assert!(calls.contains("IP_OPTIONS"), "{calls}");
    let calls = socket_options(&place, "-d").unwrap();
    assert!(!calls.contains("TCP_NODELAY, [1]"), "{calls}");
    let calls = socket_options(&place, "-o").unwrap();
    assert!(!calls.contains("IP_OPTIONS"), "{calls}");
    let calls = socket_options(&place, "-oOdD").unwrap();
    assert!(
        calls.contains("IP_OPTIONS") && calls.contains("TCP_NODELAY, [1]"),
        "{calls}"
    );
}
