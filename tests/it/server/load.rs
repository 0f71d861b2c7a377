//! Many connections, many bytes, and limits on how many there may be.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use nix::sys::signal::Signal;
use openssl::ssl::SslVersion;

use super::sockets::strace;
use crate::harness::dial::{Noise, plain};
use crate::harness::{
    Dial, End, Identity, KeyKind, Place, Setup, compile, eventually, need, process, skip,
};

/// One connection to a server whose program is `cat`: every byte comes back.
fn echo(dial: Dial, seed: u64, size: usize) {
    let bytes = Noise::new(seed).bytes(size);
    let mut client = dial.connect();
    client.send(&bytes);
    client.half_close();
    let (back, end) = client.rest();
    assert_eq!(end, End::CloseNotify, "connection {seed}");
    assert!(
        back == bytes,
        "connection {seed}: {} of {size} bytes",
        back.len()
    );
}

#[test]
fn two_thousand_connections_in_a_row() {
    let place = Place::new("in-a-row");
    let server = Setup::new(&place, &["cat"]).start();
    for count in 0..2000 {
        echo(
            Dial::to(&server),
            count,
            100 + usize::try_from(count).unwrap(),
        );
        if count % 500 == 0 {
            server.quiet();
        }
    }
    server.quiet();
    assert_eq!(server.log(), "");
    server.stop();
}

#[test]
fn a_hundred_connections_at_once() {
    let place = Place::new("at-once");
    let server = Setup::new(&place, &["cat"])
        .options("-v -c 100 -b 100")
        .start();
    // All of them are up before any of them ends.
    let mut clients: Vec<_> = (0..100).map(|_| Dial::to(&server).connect()).collect();
    server.line("sslserver: status: 100/100");
    let threads: Vec<_> = clients
        .drain(..)
        .enumerate()
        .map(|(seed, mut client)| {
            thread::spawn(move || {
                let bytes = Noise::new(seed as u64).bytes(100_000);
                let mut back = Vec::new();
                for piece in bytes.chunks(10_000) {
                    client.send(piece);
                    back.extend(client.read_exact(piece.len()));
                }
                client.half_close();
                assert_eq!(client.text(), "");
                assert!(back == bytes, "connection {seed}");
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    server.lines("sslserver: end ", 100);
    server.quiet();
    server.stop();
}

/// The kernel tells of one child where several end at once: none is forgotten for
/// that, and each end is told once.
#[test]
fn every_end_is_noticed_beside_many_open_connections() {
    const OPEN: usize = 40;
    const SHORT: usize = 24;
    let place = Place::new("ends-in-a-crowd");
    let server = Setup::new(&place, &["cat"]).options("-v -c 200").start();
    let open: Vec<_> = (0..OPEN).map(|_| Dial::to(&server).connect()).collect();
    server.line(&format!("sslserver: status: {OPEN}/200"));
    thread::scope(|all| {
        for seed in 0..SHORT {
            let dial = Dial::to(&server);
            all.spawn(move || echo(dial, seed as u64, 100));
        }
    });
    let left = |count: usize| {
        let last = format!("sslserver: status: {count}/200");
        eventually("the count is right", || {
            let log = server.log();
            let mut lines = log.lines().filter(|line| line.contains(": status: "));
            (lines.next_back() == Some(&*last)).then_some(())
        });
    };
    left(OPEN);
    drop(open);
    left(0);
    let ends = server.log().matches("sslserver: end ").count();
    assert_eq!(ends, OPEN + SHORT, "{}", server.log());
}

/// How many of the supervisor's descriptors have numbers that no launcher copies.
fn high(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let numbers = numbers.map(|number| number.parse::<i32>().unwrap());
    numbers.filter(|number| *number >= 256).count()
}

/// Opens more connections than those that are few: each has a program with the same
/// descriptors, and its own bytes. Gives what the supervisor had beside them.
fn open_a_crowd(setup: Setup) -> (Vec<i32>, usize) {
    const OPEN: usize = 80;
    let server = setup.options("-c 200").start();
    let (mut open, mut lists) = (Vec::new(), Vec::new());
    for _ in 0..OPEN {
        let mut client = Dial::to(&server).connect();
        let lines = std::iter::from_fn(|| Some(client.line()).filter(|line| line != ".\n"));
        let names = lines.filter_map(|line| {
            let (name, _) = line.rsplit_once(" -> ")?;
            name.rsplit(' ').next()?.parse::<i32>().ok()
        });
        lists.push(names.collect::<Vec<i32>>());
        open.push(client);
    }
    assert!(lists.iter().all(|list| *list == lists[0]), "{lists:?}");
    let high = high(server.pid());
    for (number, client) in open.iter_mut().enumerate() {
        let word = format!("{number:5}");
        client.send(&word);
        assert_eq!(client.read_exact(5), word.as_bytes());
    }
    drop(open);
    server.quiet();
    (lists.remove(0), high)
}

/// A program that lists its descriptors.
const LISTING: &str = "ls -l /proc/$$/fd; echo .; exec cat";
/// Of so many connections the supervisor has descriptors with high numbers: those beyond
/// what is few, each at least one.
const HIGH: usize = 15;

/// Beside many connections launchers begin without the descriptors of others, unless what
/// all programs are to have lies among them.
#[test]
fn beside_many_connections_a_program_has_its_own_descriptors_alone() {
    need!("bash");
    for number in [8, 300] {
        let place = Place::new("descriptors-in-a-crowd");
        let file = place.write("extra", "inherited");
        let opening = format!("exec {number}<{file}; exec \"$@\"");
        let setup = Setup::script(&place, LISTING).through(["bash", "-c", &opening, "bash"]);
        let (list, high) = open_a_crowd(setup);
        assert!(list.contains(&number), "{list:?}");
        assert!(high >= HIGH, "{high}");
    }
}

/// A launcher that is late with its table, and a kernel that makes none, cost time alone.
#[test]
fn beside_many_connections_a_late_launcher_has_its_descriptors_too() {
    let Some(strace) = strace() else {
        skip!("strace is not installed, or may not trace");
    };
    for fault in ["delay_enter=5000", "error=ENOSYS"] {
        let place = Place::new("late-in-a-crowd");
        let inject = format!("inject=close_range:{fault}");
        let words = [
            strace.to_str().unwrap(),
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &inject,
        ];
        // A traced process cannot have more system calls filtered than strace knows.
        let setup = Setup::script(&place, LISTING).env("SSL_SANDBOX", "0");
        open_a_crowd(setup.through(words));
    }
}

#[test]
fn sixty_four_mebibytes_both_ways_at_once() {
    let place = Place::new("both-ways");
    let server = Setup::new(&place, &["cat"]).start();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut client = Dial::to(&server).version(version).connect();
        let (sent, got) = client.both_ways(64 << 20, &mut Noise::new(64));
        assert_eq!(sent, got, "{version:?}");
        client.half_close();
        assert_eq!(client.text(), "");
    }
    server.quiet();
}

#[test]
fn independent_streams_both_ways_at_once() {
    let place = Place::new("two-streams");
    let source = place.write("source", Noise::new(7).bytes(16 << 20));
    let sink = place.text("sink");
    // The program reads and writes at once, each at its own pace.
    let script = format!("exec 3<&0; cat <&3 >{sink} & cat {source}; wait");
    let server = Setup::script(&place, &script).start();
    let mut client = Dial::to(&server).connect();
    let (sent, got) = client.both_ways(16 << 20, &mut Noise::new(8));
    client.half_close();
    assert_eq!(client.text(), "");
    server.quiet();
    assert!(openssl::sha::sha256(&place.read("source")) == got);
    assert!(openssl::sha::sha256(&place.read("sink")) == sent);
}

#[test]
fn a_slow_client_stops_the_program_not_memory() {
    let place = Place::new("back-pressure");
    let server = Setup::new(&place, &["cat", "/dev/zero"])
        .options("-v")
        .start();
    let mut client = Dial::to(&server).receive_buffer(4096).connect();
    client.read_exact(1000);
    let ok = server.line("sslserver: ok ");
    let program = ok.split(' ').nth(2).unwrap().to_owned();
    // It is stuck when it writes no more: two looks at its count of bytes agree,
    // and go on agreeing for a while.
    let written = || {
        let text = std::fs::read_to_string(format!("/proc/{program}/io")).unwrap();
        crate::harness::process::status_field(&text, "wchar")
            .parse::<u64>()
            .unwrap()
    };
    let (mut last, mut same) = (written(), 0);
    eventually("the program is held back", || {
        let now = written();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same > 50).then_some(())
    });
    assert!(
        last < 32 << 20,
        "{last} bytes taken for a client that does not read"
    );
    drop(client);
    server.line("sslserver: end ");
    server.quiet();
}

#[test]
fn connections_beyond_c_wait_for_their_turn() {
    let place = Place::new("limit");
    let server = Setup::new(&place, &["cat"]).options("-v -c 2").start();
    let mut first = Dial::to(&server).connect();
    let _second = Dial::to(&server).connect();
    server.line("sslserver: status: 2/2");
    // The kernel has taken it; the server must not.
    let third = plain(server.at);
    let waiting = thread::spawn({
        let dial = Dial::to(&server);
        move || {
            let mut client = dial.over(third).unwrap();
            client.send("third");
            assert_eq!(client.read_exact(5), b"third");
        }
    });
    first.half_close();
    assert_eq!(first.text(), "");
    waiting.join().unwrap();
    let log = server.log();
    assert!(!log.contains("status: 3/2"), "{log}");
    let end = log.find("sslserver: end ").expect("the first ended");
    let third = log
        .match_indices("sslserver: pid ")
        .nth(2)
        .expect("the third came")
        .0;
    assert!(end < third, "{log}");
}

#[test]
fn connections_beyond_capital_c_are_closed_at_once() {
    let place = Place::new("address-limit");
    let server = Setup::new(&place, &["cat"]).options("-v -C 2").start();
    let mut first = Dial::to(&server).connect();
    let _second = Dial::to(&server).connect();
    // No byte of TLS is spoken with the third.
    assert!(Dial::to(&server).attempt().is_err());
    let line = server.line("-C");
    assert!(
        line.starts_with("sslserver: ") && line.contains("127.0.0.1"),
        "{line}"
    );
    // Another address has its own count.
    let other: SocketAddr = "127.0.0.9:0".parse().unwrap();
    let mut elsewhere = Dial::to(&server).from(other).connect();
    elsewhere.send("x");
    assert_eq!(elsewhere.read_exact(1), b"x");
    // And when one ends there is room again.
    first.half_close();
    assert_eq!(first.text(), "");
    drop(first);
    let mut again = eventually("room again", || Dial::to(&server).attempt().ok());
    again.send("y");
    assert_eq!(again.read_exact(1), b"y");
}

#[test]
fn many_small_writes_arrive_as_they_are_made() {
    let place = Place::new("small-writes");
    let server = Setup::new(&place, &["cat"])
        .identity(&Identity::localhost(KeyKind::Ed25519))
        .start();
    let mut client = Dial::to(&server).connect();
    for byte in 0..=255 {
        client.send([byte]);
        assert_eq!(client.read_exact(1), [byte]);
    }
    client.half_close();
    assert_eq!(client.text(), "");
}

/// A connection that is up, or none where it was refused.
fn up(dial: Dial) -> Option<crate::harness::Tls> {
    let mut client = dial.attempt().ok()?;
    client.send("x");
    (client.read_exact(1) == b"x").then_some(client)
}

#[test]
fn maxconip_is_the_limit_of_an_address() {
    let place = Place::new("maxconip");
    // The narrower of the two; 0 is none, and so is nothing at all.
    for (letters, variable, wanted) in [
        ("", "2", Some(2)),
        ("-C 3", "2", Some(2)),
        ("-C 2", "3", Some(2)),
        ("-C 2", "0", Some(2)),
        ("-C 0", "2", Some(2)),
        ("-C 0", "", None),
        ("", "0", None),
        ("", "", None),
    ] {
        let server = Setup::new(&place, &["cat"])
            .options(letters)
            .env("MAXCONIP", variable)
            .start();
        let clients: Vec<_> = (0..5).filter_map(|_| up(Dial::to(&server))).collect();
        assert_eq!(clients.len(), wanted.unwrap_or(5), "{letters} {variable}");
        if let Some(wanted) = wanted {
            let word = if letters == "-C 2" { "-C" } else { "MAXCONIP" };
            let said = format!("from 127.0.0.1: it is at its limit of {wanted} ({word})");
            assert!(server.line("dropping").contains(&said), "{}", server.log());
        }
        let elsewhere = Dial::to(&server).from("127.0.0.9:0".parse().unwrap());
        assert!(up(elsewhere).is_some());
    }
    for junk in ["few", "-1", "2x", "1000001"] {
        for letters in ["", "-k"] {
            let said =
                format!("sslserver: fatal: unable to use MAXCONIP: \"{junk}\": not a number");
            Setup::new(&place, &["cat"])
                .options(letters)
                .env("MAXCONIP", junk)
                .refused()
                .failed(111, &said);
        }
    }
    // The program is not told.
    let server = Setup::script(&place, "echo ${MAXCONIP-unset}")
        .env("MAXCONIP", "7")
        .start();
    assert_eq!(Dial::to(&server).connect().text(), "unset\n");
}

#[test]
fn a_rule_s_maxconip_counts_for_its_clients() {
    let place = Place::new("maxconip-rule");
    let rules = "127.0.0.2:allow,MAXCONIP=\"1\"\n127.0.0.3:allow,MAXCONIP=\"0\"\n\
                 127.0.0.4:allow,MAXCONIP=\"4\"\n127.0.0.5:allow,MAXCONIP=\"many\"\n\
                 127.0.0.7:allow,MAXCONIP=\"\"\n127.0.0.8:allow,MAXCONIP=\"9\",MAXCONIP=\"\"\n:allow\n";
    let cdb = compile(&place, "limits.cdb", rules);
    let server = Setup::new(&place, &["cat"])
        .options("-C 2")
        .rules(&cdb)
        .start();
    let warning = server.line("MAXCONIP");
    assert!(
        warning.contains("rule 127.0.0.5: unable to use MAXCONIP: \"many\": not a number"),
        "{warning}"
    );
    // The empty value is as none at all.
    for (last, wanted) in [(2, 1), (3, 6), (4, 4), (5, 0), (6, 2), (7, 2), (8, 2)] {
        let from = SocketAddr::from(([127, 0, 0, last], 0));
        let clients: Vec<_> = (0..6)
            .filter_map(|_| up(Dial::to(&server).from(from)))
            .collect();
        assert_eq!(clients.len(), wanted, "127.0.0.{last}");
    }
    // And when they end there is room again.
    server.quiet();
    assert!(up(Dial::to(&server).from("127.0.0.2:0".parse().unwrap())).is_some());
    drop(server);
    let ended = Setup::new(&place, &["cat"])
        .options("-k")
        .rules(&cdb)
        .refused();
    assert_eq!(ended.code, Some(111), "{}", ended.text());
    assert!(
        ended
            .text()
            .contains("rule 127.0.0.5: unable to use MAXCONIP")
    );
}

#[test]
fn a_network_of_64_bits_is_one_address() {
    let place = Place::new("household");
    let server = Setup::new(&place, &["cat"])
        .options("-L 127.0.0.0/8")
        .env("MAXCONIP", "2")
        .start();
    let from = |address: &str| {
        let header = format!("PROXY TCP6 {address} 2001:db8::25 4711 465\r\n");
        let mut stream = plain(server.at);
        std::io::Write::write_all(&mut stream, header.as_bytes()).unwrap();
        let mut client = Dial::to(&server).over(stream).ok()?;
        client.send("x");
        (client.read_exact(1) == b"x").then_some(client)
    };
    let first = from("2001:db8::1");
    let second = from("2001:db8::ffff:0:0:1");
    assert!(first.is_some() && second.is_some());
    assert!(from("2001:db8::2").is_none());
    assert!(from("2001:db8:0:1::2").is_some());
    let line = server.line("dropping connection from ");
    assert!(
        line.contains("2001:db8::2: it is at its limit of 2"),
        "{line}"
    );
}

#[test]
fn reaching_c_is_said_once_with_who_has_the_places() {
    let place = Place::new("full");
    let server = Setup::new(&place, &["cat"]).options("-c 4").start();
    for _ in 0..3 {
        let elsewhere = Dial::to(&server).from("127.0.0.9:0".parse().unwrap());
        let mut clients = vec![up(elsewhere)];
        clients.extend((0..3).map(|_| up(Dial::to(&server))));
        assert!(clients.iter().all(Option::is_some));
        drop(clients);
        server.quiet();
    }
    assert_eq!(
        server.log(),
        "sslserver: warning: 4 connections at once, as many as -c allows: further clients wait; \
         127.0.0.1 has 3 of them, which -C would limit\n"
    );
}

/// Beside many connections the server does not look for the end of each at once. Of
/// children that end together the kernel names one.
#[test]
fn connections_that_ended_unheard_of_have_no_place() {
    let place = Place::new("ended-unheard-of");
    let server = Setup::new(&place, &["cat"])
        .options("-n -c 60 -b 60")
        .start();
    let up = |mut client: TcpStream| {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        client
    };
    let mut clients: Vec<_> = (0..55).map(|_| up(plain(server.at))).collect();
    let pid = server.pid();
    let stopped = || process::process(pid.cast_signed()).filter(|one| one.state == 'T');
    server.signal(Signal::SIGSTOP);
    eventually("the server stopped", stopped);
    clients.truncate(30);
    eventually("the ends of 25 programs", || {
        let of_it = process::group(pid).into_iter();
        let ended = of_it.filter(|one| one.parent == pid.cast_signed() && one.state == 'Z');
        (ended.count() >= 25).then_some(())
    });
    // 59 in all, which is one fewer than it may have.
    let more: Vec<_> = (0..29).map(|_| plain(server.at)).collect();
    server.signal(Signal::SIGCONT);
    clients.extend(more.into_iter().map(up));
    drop(clients);
    server.quiet();
    assert_eq!(server.log(), "");
}

#[test]
fn a_limit_per_address_is_advised_only_where_it_would_help() {
    let place = Place::new("full-of-many");
    let server = Setup::new(&place, &["cat"]).options("-c 1").start();
    let client = up(Dial::to(&server));
    let line = server.line("further clients wait");
    assert!(line.ends_with("; 127.0.0.1 has 1 of them"), "{line}");
    drop(client);
    let server = Setup::new(&place, &["cat"]).options("-c 3").start();
    let from = |last: u8| up(Dial::to(&server).from(([127, 0, 0, last], 0).into()));
    let clients = [from(7), from(8), from(9)];
    let line = server.line("further clients wait");
    assert!(line.ends_with(" has 1 of them"), "{line}");
    drop(clients);
}

#[test]
fn connections_past_the_limit_on_descriptors_wait() {
    let place = Place::new("descriptors");
    let words = ["/bin/sh", "-c", "ulimit -n 48; exec \"$@\"", "sh"];
    let server = Setup::new(&place, &["cat"])
        .options("-v -c 200 -b 100")
        .through(words)
        .start();
    // Descriptors of whoever started the tests count too.
    let line = server.line("descriptors");
    let said = "and the limit is 48 (ulimit -n): ";
    assert!(
        line.starts_with("sslserver: warning: -c 200 needs 4"),
        "{line}"
    );
    assert!(line.contains(said), "{line}");
    let served = line
        .strip_suffix(" connections at once are served, and further clients wait")
        .and_then(|line| line.rsplit(' ').next())
        .unwrap_or_else(|| panic!("{line}"));
    let most: usize = served.parse().unwrap();
    let threads: Vec<_> = (0..40)
        .map(|count| {
            let dial = Dial::to(&server);
            thread::spawn(move || echo(dial, count, 1000))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    server.quiet();
    let log = server.log();
    assert!(!log.contains("dropping"), "{log}");
    let status = log
        .lines()
        .filter_map(|line| line.strip_prefix("sslserver: status: "));
    let counts: Vec<_> = status.filter_map(|line| line.split_once('/')).collect();
    assert!(counts.len() > 40, "{log}");
    for (now, limit) in counts {
        assert_eq!(limit, served, "{log}");
        assert!(now.parse::<usize>().unwrap() <= most, "{log}");
    }
    // Enough for all: nothing is said.
    let words = ["/bin/sh", "-c", "ulimit -n 480; exec \"$@\"", "sh"];
    let server = Setup::new(&place, &["cat"])
        .options("-c 200")
        .through(words)
        .start();
    echo(Dial::to(&server), 1, 1000);
    server.quiet();
    assert_eq!(server.log(), "");
}

#[test]
fn a_limit_on_descriptors_serves_somebody_or_is_refused() {
    need!("bash");
    let place = Place::new("few-descriptors");
    for letters in ["", "-n"] {
        let mut served = 0;
        for limit in [8, 12, 14, 16, 17, 18, 19, 20, 21, 22, 24, 60] {
            let script = format!(
                "for fd in /proc/self/fd/*; do fd=${{fd##*/}}; [ $fd -le 2 ] || eval \"exec $fd>&-\"; done; ulimit -n {limit}; \
                 exec \"$@\""
            );
            let through = || ["/bin/bash", "-c", &script, "sh"].map(str::to_owned);
            let setup = |letters: &str| {
                Setup::new(&place, &["echo", "hi"])
                    .options(letters)
                    .through(through())
            };
            let check = setup(&format!("-c 1000 -k {letters}")).refused();
            let said = format!("descriptors, and the limit is {limit} (ulimit -n)\n");
            if check.stderr.ends_with(&said) {
                assert_eq!(check.code, Some(111));
                continue;
            }
            served += 1;
            let server = setup(letters).start();
            let text = if letters == "-n" {
                let mut text = Vec::new();
                plain(server.at).read_to_end(&mut text).unwrap();
                text
            } else {
                Dial::to(&server).connect().rest().0
            };
            assert_eq!(text, b"hi\n", "{limit} {}", server.log());
        }
        // 8 is too few and 60 is enough.
        assert!((1..12).contains(&served), "{letters} {served}");
    }
}

#[test]
fn connections_past_the_limit_on_processes_wait() {
    if !crate::harness::root() || !crate::harness::overlay::reachable() {
        crate::harness::skip!("only root can be another user, who must reach the program");
    }
    crate::harness::need!("prlimit");
    let place = Place::new("processes");
    // The supervisor, two key processes, and six of three connections; then one for a
    // launcher that finds none for its engine.
    for processes in [9, 10] {
        let mut words = crate::harness::as_user_of_its_own();
        let limit = format!("--nproc={processes}:{processes}");
        words.extend(["prlimit".to_owned(), limit]);
        let server = Setup::new(&place, &["cat"]).through(words).start();
        let mut clients: Vec<_> = (0..3).map(|_| up(Dial::to(&server)).unwrap()).collect();
        let fourth = plain(server.at);
        let waiting = thread::spawn({
            let dial = Dial::to(&server);
            move || {
                let mut client = dial.over(fourth).unwrap();
                client.send("fourth");
                assert_eq!(client.read_exact(6), b"fourth");
            }
        });
        if processes == 9 {
            server.line(
                "warning: unable to begin a connection: try again: \
                 clients wait until there is more",
            );
        }
        let mut first = clients.remove(0);
        first.half_close();
        assert_eq!(first.text(), "");
        waiting.join().unwrap();
        drop(clients);
        server.quiet();
        let log = server.log();
        assert!(!log.contains("dropping"), "{log}");
    }
}
