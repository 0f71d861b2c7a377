//! Many connections, many bytes, and limits on how many there may be.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::thread;

use openssl::ssl::SslVersion;

use crate::harness::dial::{Noise, plain};
use crate::harness::{Dial, End, Identity, KeyKind, Place, Setup, eventually};

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
