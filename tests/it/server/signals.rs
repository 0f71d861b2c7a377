//! What signals do to a server and its connections, and what becomes of a
//! process of ours that is past its time or says what it should not.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::harness::process::{group, status_field};
use crate::harness::{Client, Dial, Place, Server, Setup, Tls, dial, eventually, need_root};

/// The processes of a server that have this name, as ps(1) and killall(1) know
/// them.
fn named(server: &Server, name: &str) -> Vec<i32> {
    group(server.pid())
        .iter()
        .filter(|one| one.state != 'Z')
        .map(|one| one.pid)
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim_end() == name)
        })
        .collect()
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Its only engine, once it is there.
fn engine(server: &Server) -> i32 {
    eventually("an engine is there", || {
        let engines = named(server, "engine");
        (engines.len() == 1).then(|| engines[0])
    })
}

fn echoes(client: &mut Tls) {
    client.send("still here");
    assert_eq!(client.read_exact(10), b"still here");
}

/// A program that only we could end by signals.
const DEAF: &str = "trap '' HUP INT TERM; exec cat";

#[test]
fn a_signal_to_every_process_costs_no_connection() {
    let place = Place::new("all-signals");
    for last in [Signal::SIGTERM, Signal::SIGINT] {
        // Whoever runs the tests in the background has them ignore INT.
        let words = ["env", "--default-signal=HUP,INT,TERM"];
        let server = Setup::script(&place, DEAF).through(words).start();
        let group_of_it = Pid::from_raw(server.pid().cast_signed());
        let mut before = Dial::to(&server).connect();
        echoes(&mut before);
        let waiting = dial::plain(server.at);
        eventually("its engine is there", || {
            (named(&server, "engine").len() == 2).then_some(())
        });
        // As `killall -HUP sslserver` would at its worst.
        killpg(group_of_it, Signal::SIGHUP).unwrap();
        echoes(&mut before);
        let mut between = Dial::to(&server).connect();
        echoes(&mut between);
        // As ^C, or a service manager that signals all of a service.
        killpg(group_of_it, last).unwrap();
        eventually("the supervisor ends", || {
            named(&server, "sslserver").is_empty().then_some(())
        });
        let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
        for client in [&mut before, &mut between, &mut waited] {
            echoes(client);
            client.half_close();
            assert_eq!(client.text(), "");
        }
        server.over();
        assert_eq!(server.log(), "");
        server.stop();
    }
}

#[test]
fn only_the_supervisor_has_the_server_s_name() {
    let place = Place::new("comm");
    let server = Setup::new(&place, &["cat"]).start();
    let mut client = Dial::to(&server).connect();
    echoes(&mut client);
    let _silent = dial::plain(server.at);
    eventually("a launcher and two engines are there", || {
        let count = |name| named(&server, name).len();
        ((count("launcher"), count("engine")) == (1, 2)).then_some(())
    });
    assert_eq!(
        named(&server, "sslserver"),
        [server.pid().cast_signed()],
        "what killall meets"
    );
    // What means the supervisor is nothing to the others.
    for name in ["keymaster", "keyholder", "launcher", "engine"] {
        for pid in named(&server, name) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let ignored = u64::from_str_radix(&status_field(&status, "SigIgn"), 16).unwrap();
            for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
                let bit = 1 << (signal as u32 - 1);
                assert_ne!(ignored & bit, 0, "{name} and {signal}: {status}");
            }
        }
    }
}

#[test]
fn a_background_job_of_a_script_does_not_end_by_int() {
    let place = Place::new("background");
    let words = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"];
    let server = Setup::new(&place, &["cat"]).through(words).start();
    server.signal(Signal::SIGINT);
    // One that ends serves who waits already, and nobody after.
    for _ in 0..3 {
        echoes(&mut Dial::to(&server).connect());
    }
    server.stop();
}

/// Some parents ignore CHLD, and what they start inherits that.
#[test]
fn a_parent_that_ignores_chld_loses_no_exit_code() {
    let place = Place::new("no-chld");
    let words = || ["env", "--ignore-signal=CHLD"];
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .through(words())
        .start();
    let client = Client::new(&place).through(words().map(str::to_owned));
    let ended = client.script("localhost", server.port, "exit 7");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(7), ""));
    server.line("status 0");
    server.stop();
}

#[test]
fn an_engine_that_is_stopped_in_the_handshake_gives_its_place_back() {
    let place = Place::new("stopped-early");
    let server = Setup::new(&place, &["cat"]).options("-c 1 -T 1").start();
    let silent = dial::plain(server.at);
    send(engine(&server), Signal::SIGSTOP);
    drop(silent);
    let mut next = Dial::to(&server).connect();
    echoes(&mut next);
    let line = server.line("and was killed");
    assert!(line.starts_with("sslserver: warning: dropping connection, pid "));
    assert!(line.contains("its TLS process was stopped by a signal and not continued"));
}

#[test]
fn an_engine_that_is_stopped_later_gives_its_place_back() {
    let place = Place::new("stopped-late");
    // Its program waits for the client; then the program is gone too.
    for (options, orphaned) in [("-c 1 -w 2", false), ("-c 1 -w 3600", true)] {
        let server = Setup::new(&place, &["cat"]).options(options).start();
        let mut client = Dial::to(&server).connect();
        echoes(&mut client);
        send(engine(&server), Signal::SIGSTOP);
        if orphaned {
            send(named(&server, "cat")[0], Signal::SIGKILL);
        }
        drop(client);
        let mut next = Dial::to(&server).connect();
        echoes(&mut next);
        server.line("its TLS process was stopped by a signal and not continued");
    }
}

#[test]
fn an_engine_that_goes_on_is_left_alone() {
    let place = Place::new("continued");
    let server = Setup::new(&place, &["cat"]).options("-w 3").start();
    let mut client = Dial::to(&server).connect();
    echoes(&mut client);
    let engine = engine(&server);
    for _ in 0..4 {
        send(engine, Signal::SIGSTOP);
        eventually("it is stopped", || {
            (crate::harness::process::process(engine)?.state == 'T').then_some(())
        });
        send(engine, Signal::SIGCONT);
        echoes(&mut client);
    }
    // Longer than it might have stayed stopped.
    let continued = std::time::Instant::now();
    while continued.elapsed().as_secs() < 5 {
        echoes(&mut client);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // Idle is another matter, and the engine's own.
    assert_eq!(client.text(), "");
    server.line("dropping TLS connection, pid ");
    assert!(!server.log().contains("killed"), "{}", server.log());
    server.quiet();
}

#[test]
fn a_launcher_is_no_program_yet_and_cannot_stay_for_ever() {
    need_root!();
    let place = Place::new("stopped-launcher");
    let server = Setup::new(&place, &["cat"]).options("-c 1 -T 1").start();
    let _silent = dial::plain(server.at);
    engine(&server);
    send(named(&server, "launcher")[0], Signal::SIGSTOP);
    // It has its engine, which ends by itself; the launcher is continued.
    server.line("handshake timed out");
    send(named(&server, "launcher")[0], Signal::SIGCONT);
    let mut next = Dial::to(&server).connect();
    echoes(&mut next);
}

#[test]
fn what_engines_of_a_server_that_has_ended_say_is_logged() {
    let place = Place::new("logged-on");
    let server = Setup::new(&place, &["cat"]).options("-v -w 2").start();
    let mut client = Dial::to(&server).connect();
    echoes(&mut client);
    let waiting = dial::plain(server.at);
    eventually("its engine is there", || {
        (named(&server, "engine").len() == 2).then_some(())
    });
    server.retire();
    let line = server.line("no data in either direction for 2 seconds");
    assert!(line.starts_with("sslserver: warning: dropping TLS connection, pid "));
    drop(waiting);
    server.line("dropping TLS connection, pid ");
    assert_eq!(client.text(), "");
    server.over();
}

#[test]
fn an_engine_cannot_write_to_the_log() {
    let place = Place::new("no-log");
    let server = Setup::new(&place, &["cat"]).options("-V").start();
    let mut client = Dial::to(&server).connect();
    echoes(&mut client);
    let pid = engine(&server);
    let log = fs::metadata(format!("/proc/{}/fd/2", server.pid())).unwrap();
    let mut open = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let about = fs::metadata(entry.unwrap().path()).unwrap();
        assert_ne!((about.dev(), about.ino()), (log.dev(), log.ino()));
        open += 1;
    }
    assert!(open > 2);
    // And yet its line is there.
    server.line("sslserver: tls ");
}

/// Whoever kills it, and when.
#[test]
fn an_engine_that_ends_before_its_first_word_is_told_of() {
    let place = Place::new("vanish");
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .taken_over("vanish")
        .start();
    assert!(Dial::to(&server).attempt().is_err());
    let line = server.line("the TLS process of pid ");
    let launcher = server.line("sslserver: pid ");
    let launcher = launcher.split(' ').nth(2).unwrap();
    assert_eq!(
        line,
        format!("sslserver: warning: the TLS process of pid {launcher} ended as it began")
    );
    server.line(&format!("sslserver: end {launcher} status 28416"));
    server.quiet();
}

#[test]
fn a_taken_over_engine_speaks_of_its_own_connection_alone() {
    let place = Place::new("say");
    let with = |what: &str| {
        Setup::new(&place, &["cat"])
            .options("-v")
            .taken_over(what)
            .start()
    };
    let server = with("say-forged");
    echoes(&mut Dial::to(&server).connect());
    let line = server.line("forged");
    assert!(line.starts_with("sslserver: warning: dropping TLS connection, pid "));
    assert!(
        line.ends_with(" from 127.0.0.1: x\\x0Asslserver: ok 1 forged"),
        "{line}"
    );
    // It cannot bury the log, nor give another process out for itself.
    for (what, said) in [
        (
            "say-much",
            "its TLS process sent too many log messages, and was killed",
        ),
        (
            "say-other",
            "its TLS process sent a record that no TLS process sends, and was killed",
        ),
    ] {
        let server = with(what);
        // It is killed in its handshake or soon after: the supervisor is another process.
        if let Ok(mut client) = Dial::to(&server).attempt() {
            client.rest();
        }
        server.line(said);
        server.quiet();
        let log = server.log();
        assert!(log.lines().count() < 60, "{log}");
        // It is written once the process has been reaped.
        server.line("sslserver: end ");
    }
}

/// A server of one place whose engines stay when their work is done, and a client
/// whose program has ended.
fn outlived(place: &Place, options: &str) -> (Server, Tls) {
    let server = Setup::new(place, &["sh", "-c", "echo done"])
        .options(options)
        .taken_over("stay")
        .start();
    let mut client = Dial::to(&server).connect();
    assert_eq!(client.line(), "done\n");
    server.line("sslserver: end ");
    (server, client)
}

#[test]
fn a_taken_over_engine_does_not_outlive_its_program_and_its_client() {
    let place = Place::new("outlived-client");
    let (server, client) = outlived(&place, "-v -c 1");
    dial::linger_zero(client.stream.get_ref());
    drop(client);
    let line = server.line("its TLS process outlived its program and its client, and was killed");
    assert!(line.starts_with("sslserver: warning: dropping connection, pid "));
    assert_eq!(Dial::to(&server).connect().line(), "done\n");
}

#[test]
fn a_taken_over_engine_stays_no_longer_than_w_without_a_byte() {
    let place = Place::new("outlived-program");
    let (server, _silent) = outlived(&place, "-v -c 1 -w 1");
    server.line("its TLS process outlived its program, and moved no byte for 1 second");
    assert_eq!(Dial::to(&server).connect().line(), "done\n");
}

#[test]
fn an_engine_with_a_slow_client_may_outlive_its_program() {
    const SIZE: usize = 3 << 20;
    let place = Place::new("outlived-slowly");
    let script = format!("head -c {SIZE} /dev/zero");
    let server = Setup::new(&place, &["sh", "-c", &script])
        .options("-v")
        .start();
    let mut client = Dial::to(&server).receive_buffer(4096).connect();
    // More than the kernel and the engine hold, so that the program's last bytes
    // wait for these.
    let mut taken = client.read_exact(SIZE / 2).len();
    server.line("sslserver: end ");
    let engine = engine(&server);
    // It is looked after, and left alone.
    let looked = std::time::Instant::now();
    while looked.elapsed() < std::time::Duration::from_secs(25) {
        taken += client.read_exact(1000).len();
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    assert_eq!(named(&server, "engine"), [engine]);
    assert_eq!(taken + client.rest().0.len(), SIZE);
    server.quiet();
}
