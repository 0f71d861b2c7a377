//! Programs that may have little memory (`ulimit -v`): each says so and nothing else,
//! or does all that it is there for.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use crate::harness::{Client, Finished, Identity, KeyKind, Place, Setup, need, ours};
use crate::sslremote::remote::Remote;

/// How far apart the limits are, in KiB: less than what one step of a program takes.
const STEP: u64 = 16;
/// How often in a row it has enough before that is believed.
const ENOUGH: usize = 8;

/// Words that run a program with so many KiB of address space.
fn limited(prlimit: &Path, limit: u64) -> [String; 2] {
    let prlimit = prlimit.to_str().unwrap().to_owned();
    [prlimit, format!("--as={}", limit * 1024)]
}

/// Whether the system, and Rust's runtime, can begin a program at all. The runtime says
/// in its own words where it cannot.
fn begins(prlimit: &Path, limit: u64, program: &str) -> bool {
    let [prlimit, limit] = limited(prlimit, limit);
    let mut command = Command::new(prlimit);
    command.args([&limit, program, "--version"]);
    command.output().expect("prlimit").status.success()
}

/// Tries a program with more and more, from what it begins with to where it does, again
/// and again, what it is there for: `tried` says whether it did.
fn climb(prlimit: &Path, program: &str, tried: impl Fn([String; 2]) -> bool) {
    let program = ours(program);
    let (mut least, mut most) = (1024, 1024 * 1024);
    assert!(begins(prlimit, most, &program));
    while most - least > STEP {
        let middle = least.midpoint(most);
        if begins(prlimit, middle, &program) {
            most = middle;
        } else {
            least = middle;
        }
    }
    let (mut limit, mut short, mut enough) = (most + 2 * STEP, 0, 0);
    while enough < ENOUGH {
        assert!(limit < 2 * most, "more is never enough");
        if tried(limited(prlimit, limit)) {
            enough += 1;
        } else {
            (short, enough) = (short + 1, 0);
        }
        limit += STEP;
    }
    assert!(short > 0, "{most} KiB are enough: nothing was tried");
}

/// Fails unless it ended well, or said first that there is no memory. True where it
/// ended well.
fn well(ended: &Finished) -> bool {
    let told = format!("{ended:?}");
    let mut lines = ended.stderr.lines();
    match ended.code {
        Some(0) => true,
        Some(111) => {
            let first = lines.next().unwrap_or_default();
            assert!(first.ends_with(": out of memory"), "{told}");
            assert!(lines.all(|line| line.contains(": fatal: ")), "{told}");
            false
        }
        _ => panic!("{told}"),
    }
}

#[test]
fn a_server_without_memory_finds_nothing_wrong_with_its_settings() {
    let prlimit = need!("prlimit");
    let place = Place::new("server-memory");
    let identity = Identity::localhost(KeyKind::P256);
    let both = [identity.chain_pem(), identity.key_pem()].concat();
    let both = place.secret("both.pem", both);
    climb(&prlimit, "sslserver", |limit| {
        let setup = Setup::new(&place, &["true"]).through(limit);
        let setup = setup.env("CERTFILE", &both).unset("KEYFILE");
        well(&setup.option("-k").refused())
    });
}

#[test]
fn a_client_without_memory_finds_nothing_wrong_with_a_server() {
    let prlimit = need!("prlimit");
    let place = Place::new("client-memory");
    let server = Setup::new(&place, &["/bin/echo", "served"]).start();
    climb(&prlimit, "sslclient", |limit| {
        let client = Client::new(&place).through(limit);
        let ended = client.read(&server);
        well(&ended) && {
            assert_eq!(ended.text(), "served\n");
            true
        }
    });
}

#[test]
fn a_delivery_without_memory_is_tried_later() {
    let prlimit = need!("prlimit");
    let place = Place::new("remote-memory");
    let refused = "ZSorry, I wasn't able to establish an SMTP connection.";
    climb(&prlimit, "qmail-sslremote", |limit| {
        let route = ":[127.0.0.1]:1\n";
        let remote = Remote::new(&place).control("smtproutes", route);
        let remote = remote.policy("=[127.0.0.1]:CA\n");
        let words = ["far.example", "a@me.example", "b@far.example"];
        let limit = limit.each_ref().map(String::as_str);
        let report = remote.through(limit).report(&words, b"x\n");
        let report = String::from_utf8(report).unwrap();
        assert!(report.starts_with('Z'), "{report}");
        let is_short = report.to_lowercase().contains("out of memory");
        assert!(is_short || report.starts_with(refused), "{report}");
        !is_short
    });
}
