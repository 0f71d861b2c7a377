//! The service manager's two protocols, spoken by a test in its place: messages of
//! readiness, and a listening socket that it opened.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::harness::process::{PATIENCE, pids, process};
use crate::harness::{Dial, Identity, KeyKind, Place, Setup, dial, eventually};

/// The manager's end, with a deadline on every read.
fn waiting(socket: UnixDatagram) -> UnixDatagram {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a message");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn nothing_more(socket: &UnixDatagram) {
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv(&mut [0; 4096]).expect_err("nothing more");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

/// Microseconds of the clock that managers compare with.
fn now() -> u64 {
    let now = ClockId::CLOCK_MONOTONIC.now().unwrap();
    u64::try_from(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000).unwrap()
}

#[test]
fn the_manager_is_told_of_readiness_reloads_and_the_end() {
    let place = Place::new("notify");
    let manager = waiting(UnixDatagram::bind(place.path("notify")).unwrap());
    let server = Setup::script(&place, "echo \"${NOTIFY_SOCKET-unset}\"; cat")
        .env("NOTIFY_SOCKET", place.text("notify"))
        .start();
    assert_eq!(message(&manager), "READY=1");
    // Whoever was told so is served.
    let mut client = Dial::to(&server).connect();
    assert_eq!(client.line(), "unset\n");
    for _ in 0..2 {
        let before = now();
        server.signal(Signal::SIGHUP);
        let reloading = message(&manager);
        let time = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap_or_else(|| panic!("{reloading}"));
        let time: u64 = time.parse().unwrap();
        // systemd takes an answer from before its signal for none.
        assert!((before..=now()).contains(&time), "{before} {time}");
        assert_eq!(message(&manager), "READY=1");
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(message(&manager), "STOPPING=1");
    client.send("lives on");
    assert_eq!(client.read_exact(8), b"lives on");
    drop(client);
    server.over();
    nothing_more(&manager);
    server.stop();
}

#[test]
fn a_reload_that_fails_ends_too_and_says_why() {
    let place = Place::new("notify-failure");
    let name = format!("ucspi-tls-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = waiting(UnixDatagram::bind_addr(&address).unwrap());
    let (certificate, _) = place.identity("own", &Identity::localhost(KeyKind::P256));
    let good = fs::read(&certificate).unwrap();
    let server = Setup::script(&place, "echo served")
        .pair(&certificate, place.text("own.key"))
        .env("NOTIFY_SOCKET", format!("@{name}"))
        .start();
    assert_eq!(message(&manager), "READY=1");
    let reload = || {
        server.signal(Signal::SIGHUP);
        let told = message(&manager);
        assert!(told.starts_with("RELOADING=1\n"), "{told}");
    };
    fs::write(&certificate, "no certificate").unwrap();
    reload();
    let status = message(&manager);
    assert!(
        status.starts_with("STATUS=unable to reload: ") && status.contains("own"),
        "{status}"
    );
    assert_eq!(message(&manager), "READY=1", "the old material serves");
    assert_eq!(Dial::to(&server).connect().text(), "served\n");
    fs::write(&certificate, good).unwrap();
    reload();
    assert_eq!(message(&manager), "STATUS=", "nothing is wrong any more");
    assert_eq!(message(&manager), "READY=1");
    nothing_more(&manager);
    server.stop();
}

#[test]
fn a_change_that_is_noticed_is_none_of_the_manager_s() {
    let place = Place::new("notify-noticed");
    let manager = waiting(UnixDatagram::bind(place.path("notify")).unwrap());
    let (certificate, _) = place.identity("own", &Identity::localhost(KeyKind::P256));
    let server = Setup::script(&place, "echo served")
        .options("-v")
        .pair(&certificate, place.text("own.key"))
        .env("NOTIFY_SOCKET", place.text("notify"))
        .start();
    assert_eq!(message(&manager), "READY=1");
    // A renewal, beside its place and moved there, the key first.
    let (renewed, key) = place.identity("new", &Identity::localhost(KeyKind::P256));
    fs::rename(key, place.path("own.key")).unwrap();
    fs::rename(renewed, &certificate).unwrap();
    eventually("the change is noticed", || {
        assert_eq!(Dial::to(&server).connect().text(), "served\n");
        server.log().contains(" changed: from ").then_some(())
    });
    // Nobody asked for a reload, so nobody waits for its end.
    assert_eq!(Dial::to(&server).connect().text(), "served\n");
    nothing_more(&manager);
    server.stop();
}

#[test]
fn a_manager_that_has_no_room_is_told_later() {
    let place = Place::new("notify-full");
    let manager = waiting(UnixDatagram::bind(place.path("notify")).unwrap());
    // As at a busy boot: its queue is full.
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    let mut queued = 0;
    while other.send_to(b"another's", place.path("notify")).is_ok() {
        queued += 1;
    }
    let server = Setup::script(&place, "echo served")
        .env("NOTIFY_SOCKET", place.text("notify"))
        .start();
    // It serves all the same.
    assert_eq!(Dial::to(&server).connect().text(), "served\n");
    for _ in 0..queued {
        assert_eq!(message(&manager), "another's");
    }
    assert_eq!(message(&manager), "READY=1");
    assert_eq!(server.log(), "");
    server.stop();
}

#[test]
fn a_manager_that_is_not_there_is_named_and_nothing_else_fails() {
    let place = Place::new("notify-nobody");
    for (name, part) in [
        (
            place.text("nobody"),
            "unable to tell the service manager (NOTIFY_SOCKET): no such file",
        ),
        (
            "vsock:2:1".to_owned(),
            "unable to use NOTIFY_SOCKET vsock:2:1: neither a path nor @ and a name",
        ),
    ] {
        let server = Setup::script(&place, "echo served")
            .env("NOTIFY_SOCKET", &name)
            .start();
        let warning = server.line("warning");
        assert!(warning.contains(part), "{warning}");
        server.signal(Signal::SIGHUP);
        assert_eq!(Dial::to(&server).connect().text(), "served\n");
        assert_eq!(server.log().lines().count(), 1, "{}", server.log());
        server.stop();
    }
}

/// What systemd does between fork and exec: the socket becomes descriptor 3, and
/// `LISTEN_PID` is the process itself.
const HANDED: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";

/// What a program sees of a socket that was handed over.
const SHOWN: &str = "echo ${LISTEN_FDS-u}${LISTEN_PID-u}
    readlink /proc/self/fd/3 || echo none; exec cat";

/// A server on a socket that it is given.
fn handed<'a>(place: &'a Place, script: &str, socket: &TcpListener) -> Setup<'a> {
    Setup::script(place, script)
        .through(["/bin/sh", "-c", HANDED, "manager"])
        .stdin(socket.try_clone().unwrap())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "pop3s.socket")
}

fn socket() -> (TcpListener, u16) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[test]
fn a_restart_on_a_given_socket_closes_no_port_and_refuses_nobody() {
    let place = Place::new("given");
    let (socket, port) = socket();
    let script = format!("echo ${{LISTEN_FDNAMES-u}}; {SHOWN}");
    let first = handed(&place, &script, &socket).start();
    assert_eq!(first.port, port, "what -1 prints");
    let mut before = Dial::to(&first).connect();
    assert_eq!(before.line(), "u\n");
    assert_eq!(before.line(), "uu\n");
    assert_eq!(before.line(), "none\n", "no socket of the manager's");
    first.retire();
    // The kernel takes clients as before; whoever comes now waits for the next.
    let between = dial::plain(first.at);
    let second = handed(&place, "echo second", &socket).start();
    let mut between = Dial::to(&second).over(between).expect("a handshake");
    assert_eq!(between.text(), "second\n");
    before.send("lives on");
    assert_eq!(before.read_exact(8), b"lives on");
    second.stop();
    // Neither server nor connection keeps the port: it is the manager's alone.
    drop(socket);
    eventually("the port is closed", || {
        TcpStream::connect(("127.0.0.1", port)).err()
    });
    before.half_close();
    assert_eq!(before.text(), "");
    first.over();
    assert_eq!(first.log(), "");
    first.stop();
}

#[test]
fn clients_in_the_backlog_of_a_given_socket_are_the_next_server_s() {
    let place = Place::new("given-backlog");
    let (socket, port) = socket();
    let waiting = dial::plain(([127, 0, 0, 1], port).into());
    let first = handed(&place, "echo first; cat", &socket)
        .options("-c 1")
        .start();
    let mut served = Dial::to(&first).over(waiting).expect("a handshake");
    assert_eq!(served.line(), "first\n");
    // -c keeps it waiting; a server with a socket of its own would take it along.
    let waiting = dial::plain(first.at);
    drop(served);
    first.retire();
    let next = handed(&place, "echo next", &socket).start();
    let answered = Dial::to(&next).over(waiting).expect("a handshake").line();
    // It may have had its turn before TERM.
    assert!(
        ["first\n", "next\n"].contains(&answered.as_str()),
        "{answered}"
    );
    next.stop();
    first.over();
    first.stop();
}

#[test]
fn arguments_that_say_something_else_are_named() {
    let place = Place::new("given-other");
    let (socket, port) = socket();
    for (host, asked, wanted) in [
        ("127.0.0.1", 0, None),
        ("127.0.0.1", port, None),
        ("0", 995, Some("every address, port 995")),
        ("0.0.0.0", port, Some("every IPv4 address")),
        ("::1", port, Some("::1 port")),
    ] {
        let server = handed(&place, "echo served", &socket)
            .host(host)
            .port(asked)
            .start();
        let mut client = Dial::at(([127, 0, 0, 1], port).into()).connect();
        assert_eq!(client.text(), "served\n", "{host} {asked}");
        let log = server.log();
        match wanted {
            None => assert_eq!(log, "", "{host} {asked}"),
            Some(wanted) => {
                let begin = format!(
                    "sslserver: warning: the socket that the service manager opened (LISTEN_FDS) \
                     is served: 127.0.0.1 port {port}, and not {wanted}"
                );
                assert!(log.starts_with(&begin), "{log}");
                assert_eq!(log.lines().count(), 1, "{log}");
            }
        }
        server.stop();
    }
    // IPv4 clients where only IPv6 was asked for would be more than that.
    let every = TcpListener::bind("[::]:0").unwrap();
    let port = every.local_addr().unwrap().port();
    let server = handed(&place, "true", &every).host("::").port(port).start();
    let warning = server.line("warning");
    let end = format!("every address, port {port}, and not every IPv6 address, port {port}");
    assert!(warning.ends_with(&end), "{warning}");
    server.stop();
}

#[test]
fn a_socket_that_is_another_process_s_is_left_alone() {
    let place = Place::new("given-other-process");
    let (socket, port) = socket();
    for pid in ["1", "", "x"] {
        let server = Setup::script(&place, SHOWN)
            .through([
                "/bin/sh",
                "-c",
                "exec 3<&0 </dev/null; exec \"$@\"",
                "parent",
            ])
            .stdin(socket.try_clone().unwrap())
            .env("LISTEN_FDS", "1")
            .env("LISTEN_PID", pid)
            .start();
        assert_ne!(server.port, port);
        let mut client = Dial::to(&server).connect();
        // Like every descriptor above 2 it is the program's.
        let inode = inode_of(port);
        assert_eq!(client.line(), "uu\n");
        assert_eq!(client.line(), format!("socket:[{inode}]\n"));
        drop(client);
        server.stop();
    }
}

#[test]
fn what_is_no_listening_socket_is_refused_in_one_line() {
    let place = Place::new("given-wrong");
    let (socket, _) = socket();
    let connected = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    let no_listener = "unable to use LISTEN_FDS: descriptor 3 is not a listening TCP socket";
    let file = fs::File::open(place.write("file", "")).unwrap();
    for setup in [
        handed(&place, "true", &socket).stdin(connected),
        handed(&place, "true", &socket).stdin(file),
    ] {
        setup.refused().failed(111, no_listener);
    }
    for (count, part) in [
        (
            "2",
            "unable to use LISTEN_FDS: 2 sockets, and one server listens on one",
        ),
        ("x", "unable to use LISTEN_FDS: not a number: \"x\""),
        ("-1", "unable to use LISTEN_FDS: not a number: \"-1\""),
    ] {
        let setup = handed(&place, "true", &socket).env("LISTEN_FDS", count);
        setup.refused().failed(111, part);
    }
    let closed = "exec </dev/null; LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";
    Setup::script(&place, "true")
        .through(["/bin/sh", "-c", closed, "manager"])
        .env("LISTEN_FDS", "1")
        .refused()
        .failed(111, "unable to use LISTEN_FDS: descriptor 3 is not open");
    handed(&place, "true", &socket)
        .options("-3")
        .refused()
        .failed(
            111,
            "unable to use -3: descriptor 3 is the socket of LISTEN_FDS",
        );
}

/// Nobody but the supervisor has the socket: an engine that somebody took over could
/// answer in its place.
#[test]
fn no_other_process_has_the_given_socket() {
    let place = Place::new("given-processes");
    let (socket, port) = socket();
    let server = handed(&place, "cat", &socket).start();
    let mut client = Dial::to(&server).connect();
    client.send("here");
    assert_eq!(client.read_exact(4), b"here");
    let inode = inode_of(port);
    let holders: Vec<i32> = pids(server.pid())
        .into_iter()
        .filter(|pid| {
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
                return false;
            };
            entries
                .flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|link| link.to_string_lossy() == format!("socket:[{inode}]"))
        })
        .collect();
    let supervisor = server.pid().cast_signed();
    assert_eq!(holders, [supervisor], "{:?}", process(supervisor));
    assert!(kill(Pid::from_raw(supervisor), None).is_ok());
}

/// The listening socket of a loopback port, as /proc/net/tcp has it.
fn inode_of(port: u16) -> String {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(1) == Some(&&*local) && fields.get(3) == Some(&"0A"))
        .map(|fields| fields[9].to_owned())
        .expect("the socket")
}
