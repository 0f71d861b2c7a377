//! `-n`: no process for TLS before the program asks for it, whatever happens until
//! then.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use openssl::pkey::Id;

use super::sockets::strace;
use crate::harness::{
    Dial, Identity, KeyKind, Place, Server, Setup, Tls, as_user_of_its_own, compile, dial,
    eventually, need, overlay, process, root, skip,
};

/// Says that it is there, and asks for TLS behind a line.
const ASKING: &str = "echo ready; read word || exit; printf y >&$SSLCTLFD; \
                      exec cat <&$SSLREADFD >&$SSLWRITEFD";

/// A server whose program is a script for bash: other shells know no descriptor of two
/// digits.
fn asking<'a>(place: &'a Place, script: &str) -> Setup<'a> {
    // Where its descriptor 0 is a socket it reads the startup file of rshd's users, unless told not to.
    Setup::new(place, &["bash", "--norc", "-c", script])
}

/// A client whose program has said that it is there.
fn ready(server: &Server) -> TcpStream {
    let mut client = dial::plain(server.at);
    is_ready(&mut client);
    client
}

fn is_ready(client: &mut TcpStream) {
    let mut word = [0; 6];
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ready\n");
}

/// Has its program ask.
fn secured(server: &Server, mut client: TcpStream) -> Tls {
    client.write_all(b"tls\n").unwrap();
    let mut client = Dial::to(server).over(client).expect("a handshake");
    client.send("inside");
    assert_eq!(client.read_exact(6), b"inside");
    client
}

fn ends(mut client: Tls) {
    client.half_close();
    assert_eq!(client.text(), "");
}

/// How many of its processes have this name.
fn count(server: &Server, name: &str) -> usize {
    let all = process::group(server.pid());
    let named = all.iter().filter(|one| {
        fs::read_to_string(format!("/proc/{}/comm", one.pid))
            .is_ok_and(|comm| comm.trim_end() == name)
    });
    named.count()
}

#[test]
fn there_is_no_engine_before_one_is_asked_for() {
    need!("bash");
    let place = Place::new("no-engine");
    for options in ["-nv", "-nvf"] {
        let server = asking(&place, ASKING).options(options).start();
        let (silent, asking) = (ready(&server), ready(&server));
        assert_eq!(count(&server, "engine"), 0, "{options}");
        let asking = secured(&server, asking);
        assert_eq!(count(&server, "engine"), 1, "{options}");
        silent.shutdown(Shutdown::Write).unwrap();
        server.line("in plaintext: the program did not ask for TLS");
        assert_eq!(count(&server, "engine"), 1, "{options}");
        ends(asking);
        server.quiet();
    }
}

#[test]
fn a_program_that_never_asks_ends_its_connection_by_its_end() {
    need!("bash");
    let place = Place::new("never-asks");
    let server = Setup::script(&place, "echo ready; read word")
        .options("-nv")
        .start();
    for number in 1..=3 {
        let mut client = ready(&server);
        client.write_all(b"no\n").unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
        let said = "in plaintext: the program did not ask for TLS";
        assert_eq!(server.lines(said, number).len(), number);
        server.lines("status: 0/40", number + 1);
    }
    server.quiet();
}

#[test]
fn a_program_may_leave_its_wish_to_another() {
    need!("bash");
    let place = Place::new("wish-left");
    let script = "echo ready; (read word; printf y >&$SSLCTLFD; \
                  exec cat <&$SSLREADFD >&$SSLWRITEFD) <&0 & exit 0";
    let server = asking(&place, script).options("-nv").start();
    let client = ready(&server);
    server.line("end ");
    ends(secured(&server, client));
    assert!(!server.log().contains("in plaintext"), "{}", server.log());
    server.quiet();
}

#[test]
fn a_session_in_plaintext_outlives_its_server_and_has_tls_then() {
    need!("bash");
    let place = Place::new("outlives-plain");
    let server = asking(&place, ASKING).options("-nv").start();
    let (client, silent) = (ready(&server), ready(&server));
    server.retire();
    ends(secured(&server, client));
    drop(silent);
    server.line("in plaintext: the program did not ask for TLS");
    server.over();
}

/// The system refuses what it should not: the server ends, and nothing else.
#[test]
fn sessions_outlive_a_server_that_cannot_go_on() {
    need!("bash");
    let Some(strace) = strace() else {
        skip!("strace is not installed, or may not trace");
    };
    let place = Place::new("outlives-failure");
    let mut server = asking(&place, ASKING).options("-nv").start();
    let (client, silent) = (ready(&server), ready(&server));
    let inside = secured(&server, ready(&server));
    server.fail(&strace);
    ends(secured(&server, client));
    drop(silent);
    server.line("in plaintext: the program did not ask for TLS");
    ends(inside);
    server.over();
}

#[test]
fn a_client_that_is_not_settled_when_its_server_ends_has_tls_too() {
    need!("bash");
    let place = Place::new("unsettled");
    for limit in ["", " -C 5"] {
        let server = asking(&place, ASKING)
            .options(&format!("-nv -L 127.0.0.1{limit}"))
            .start();
        let (mut client, denied) = (dial::plain(server.at), dial::plain(server.at));
        eventually("their launchers are there", || {
            (count(&server, "launcher") == 2).then_some(())
        });
        server.retire();
        client
            .write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            .unwrap();
        is_ready(&mut client);
        ends(secured(&server, client));
        drop(denied);
        server.over();
    }
}

#[test]
fn rules_say_with_what_a_program_that_asks_is_served() {
    need!("bash");
    let place = Place::new("delayed-rules");
    let other = Identity::localhost(KeyKind::Rsa2048);
    let (certificate, key) = place.identity("other", &other);
    let text = format!("127.0.0.1:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"\n:deny\n");
    let cdb = compile(&place, "rules.cdb", &text);
    let server = asking(&place, ASKING)
        .options("-nv -x")
        .option(&cdb)
        .start();
    let client = secured(&server, ready(&server));
    assert_eq!(client.server_key(), Id::RSA);
    ends(client);
    server.quiet();
}

/// It ends before it can become a program, and its control socket with it.
#[test]
fn a_client_that_is_denied_was_in_plaintext_never() {
    let place = Place::new("delayed-denied");
    let cdb = compile(&place, "rules.cdb", ":deny\n");
    let server = asking(&place, ASKING)
        .options("-nv -x")
        .option(&cdb)
        .start();
    for number in 1..=3 {
        let mut client = dial::plain(server.at);
        // It is reset, or sees an end.
        let mut nothing = [0];
        assert!(matches!(client.read(&mut nothing), Ok(0) | Err(_)));
        server.lines("status: 0/40", number + 1);
    }
    assert!(!server.log().contains("in plaintext"), "{}", server.log());
    server.quiet();
}

#[test]
fn what_was_renewed_before_a_program_asked_is_what_serves_its_client() {
    need!("bash");
    let place = Place::new("delayed-renewal");
    let (certificate, key) = place.identity("own", &Identity::localhost(KeyKind::P256));
    let server = asking(&place, ASKING)
        .options("-nv")
        .env("CERTFILE", certificate)
        .env("KEYFILE", key)
        .start();
    let before = ready(&server);
    place.identity("own", &Identity::localhost(KeyKind::Rsa2048));
    server.signal(Signal::SIGHUP);
    eventually("the new certificate is served", || {
        let new = secured(&server, ready(&server));
        let kind = new.server_key();
        ends(new);
        (kind == Id::RSA).then_some(())
    });
    let before = secured(&server, before);
    assert_eq!(before.server_key(), Id::RSA);
    ends(before);
    server.quiet();
}

/// The program's descriptors are at none of the numbers that the server was started
/// with, and may be at those of what the server has for the connection.
#[test]
fn a_program_has_its_descriptors_wherever_the_server_has_them() {
    need!("bash");
    let place = Place::new("placed");
    // The last is one that the limit no longer allows.
    for opened in ["", "3", "4", "5", "3 5", "3 4 5 6 7 8", "251"] {
        let server = asking(&place, &format!("{}{ASKING}", still_open(opened)))
            .through(with_descriptors(opened, "ulimit -n 100"))
            .options("-n")
            .start();
        let clients: Vec<TcpStream> = (0..4).map(|_| ready(&server)).collect();
        for client in clients {
            ends(secured(&server, client));
        }
        server.quiet();
    }
}

/// Words that run the rest with these descriptors above 2 alone, and then something
/// more done by the shell: what the tests themselves were started with is closed.
fn with_descriptors(opened: &str, then: &str) -> [String; 4] {
    let script = format!(
        "for open in /proc/$$/fd/*; do open=${{open##*/}}; [ $open -le 2 ] || \
         eval \"exec $open>&-\"; done; for number in {opened}; do \
         eval \"exec $number</dev/null\"; done; {then}; exec \"$@\""
    );
    ["bash", "-c", &script, "bash"].map(str::to_owned)
}

/// What a program begins with that has to have these descriptors.
fn still_open(opened: &str) -> String {
    format!("for number in {opened}; do [ /proc/$$/fd/$number -ef /dev/null ] || exit; done; ")
}

/// The limit may be lowered while the server runs, below a number that it was started
/// with.
#[test]
fn a_limit_below_an_inherited_descriptor_does_not_stop_programs() {
    need!("bash");
    let prlimit = need!("prlimit");
    let place = Place::new("lowered");
    let server = asking(&place, &format!("{}{ASKING}", still_open("251")))
        .through(with_descriptors("251", ":"))
        .options("-n")
        .start();
    ends(secured(&server, ready(&server)));
    let pid = server.pid().to_string();
    let mut command = Command::new(prlimit);
    let set = process::run(command.args(["--pid", &pid, "--nofile=100:"]), b"");
    assert_eq!(set.code, Some(0), "{}", set.stderr);
    ends(secured(&server, ready(&server)));
    server.quiet();
}

/// An engine is made of a supervisor that has no descriptor left, and has room itself.
#[test]
fn a_program_has_tls_from_a_server_that_may_open_nothing_more() {
    need!("bash");
    let prlimit = need!("prlimit");
    let place = Place::new("full");
    let server = asking(&place, ASKING).options("-n").start();
    let client = ready(&server);
    let folder = format!("/proc/{}/fd", server.pid());
    let taken: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|one| one.unwrap().file_name().into_string().unwrap())
        .collect();
    // Four are for the engine: its channel to the keyholder, and one to its maker.
    let is_free = |number: &usize| !taken.contains(&number.to_string());
    let last = (0..).filter(is_free).nth(3).unwrap();
    let pid = server.pid().to_string();
    let limit = format!("--nofile={}:", last + 1);
    let mut command = Command::new(prlimit);
    let set = process::run(command.args(["--pid", &pid, &limit]), b"");
    assert_eq!(set.code, Some(0), "{}", set.stderr);
    ends(secured(&server, client));
    server.quiet();
}

/// Whatever the program writes to its control socket, it reads an end of file there,
/// and no error.
#[test]
fn the_control_socket_ends_in_good_order() {
    need!("bash");
    let place = Place::new("control-end");
    for (command, is_one) in [("xyz", false), ("R9:", false), ("yy", true), ("y\\n", true)] {
        let script = format!(
            "echo ready; read word; printf '{command}' >&$SSLCTLFD; cat <&$SSLCTLFD; \
             echo ended $? >&2; exec cat <&$SSLREADFD >&$SSLWRITEFD"
        );
        let server = asking(&place, &script).options("-nv").start();
        let mut client = ready(&server);
        if is_one {
            ends(secured(&server, client));
            // A handshake that fails ends it, too.
            client = ready(&server);
            client.write_all(b"tls\nno handshake").unwrap();
        } else {
            client.write_all(b"tls\n").unwrap();
            server.line("the program sent an unknown command: ");
        }
        let _ = client.read_to_end(&mut Vec::new());
        server.lines("ended 0", 1 + usize::from(is_one));
        server.quiet();
        assert!(!server.log().contains("reset"), "{}", server.log());
    }
}

/// Words that run the rest as a user who may have so many processes.
fn with_processes(most: u32) -> Vec<String> {
    let limit = format!("--nproc={most}:{most}");
    let mut words = as_user_of_its_own();
    words.extend(["prlimit".to_owned(), limit]);
    words
}

/// Where the system has no process for it, an engine is tried again, but no longer than
/// -T says.
#[test]
fn a_program_waits_for_an_engine_that_no_process_is_there_for() {
    if !root() || !overlay::reachable() {
        skip!("only root can be another user, who must reach the program");
    }
    need!("bash");
    need!("prlimit");
    let place = Place::new("no-process");
    // The supervisor, two key processes, and the programs of two clients.
    let start = |options| {
        let server = asking(&place, ASKING)
            .options(options)
            .through(with_processes(5))
            .start();
        let (other, mut client) = (ready(&server), ready(&server));
        client.write_all(b"tls\n").unwrap();
        eventually("the program has asked", || {
            (count(&server, "cat") == 1).then_some(())
        });
        (server, other, client)
    };
    let (server, other, client) = start("-nv");
    let tls = thread::spawn({
        let dial = Dial::to(&server);
        move || dial.over(client).expect("a handshake")
    });
    // It waits as long as both have their programs: no claim about time, but for that.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(count(&server, "engine"), 0);
    assert!(!tls.is_finished());
    drop(other);
    let mut client = tls.join().unwrap();
    client.send("inside");
    assert_eq!(client.read_exact(6), b"inside");
    ends(client);
    server.quiet();
    assert!(!server.log().contains("dropping"), "{}", server.log());
    // The next one is the same user's.
    server.stop();
    let (server, other, mut client) = start("-nvT1");
    server.line(" from 127.0.0.1: unable to fork: try again");
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    drop(other);
    server.quiet();
}
