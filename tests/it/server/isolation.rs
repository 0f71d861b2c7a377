//! Where keys are and where they are not: the memory of every process is read
//! and searched. What engines and keyholders cannot do, and what becomes of
//! connections when a keyholder dies.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Signer;
use openssl::ssl::SslVersion;
use openssl::symm::{Cipher, decrypt};
use ucspi_tls::internals::hours;

use crate::harness::memory::{Needles, behind};
use crate::harness::process::{Process, descriptors, group, status_field};
use crate::harness::{
    Client, Dial, Identity, KeyKind, Leaf, Place, Server, Setup, Tls, dial, eventually, need,
    need_root, run, skip,
};

const PASSWORD: &str = "correct horse battery staple";

/// What a process is.
fn role(one: &Process, server: &Server) -> &'static str {
    let name = fs::read_to_string(format!("/proc/{}/comm", one.pid)).unwrap_or_default();
    match name.trim_end() {
        "keyholder" => "keyholder",
        "keymaster" => "master",
        "sslserver" | "taken-over" if one.pid == server.pid().cast_signed() => "supervisor",
        "engine" => "engine",
        "launcher" => "launcher",
        "logger" => "logger",
        _ => "program",
    }
}

/// What each process of a server has of the needles, by its role.
fn search(server: &Server, needles: &Needles) -> Vec<(&'static str, BTreeSet<String>)> {
    let mut roles = Vec::new();
    for one in group(server.pid()) {
        if one.state != 'Z' {
            roles.push((role(&one, server), needles.found_in(one.pid)));
        }
    }
    roles
}

/// Fails unless the needles are in the keyholder and nowhere else.
fn in_the_keyholder_alone(server: &Server, needles: &Needles, when: &str) {
    let roles = search(server, needles);
    for wanted in ["supervisor", "master", "keyholder", "engine", "program"] {
        assert!(
            roles.iter().any(|(role, _)| *role == wanted),
            "{when}: no {wanted} in {roles:?}"
        );
    }
    for (role, found) in &roles {
        if *role == "keyholder" {
            assert!(!found.is_empty(), "{when}: the search finds nothing at all");
        } else {
            assert!(found.is_empty(), "{when}: the {role} has {found:?}");
        }
    }
}

/// The keyholders of a server.
pub fn keyholders(server: &Server) -> Vec<i32> {
    group(server.pid())
        .iter()
        .filter(|one| one.state != 'Z' && role(one, server) == "keyholder")
        .map(|one| one.pid)
        .collect()
}

fn engines(server: &Server) -> Vec<i32> {
    group(server.pid())
        .iter()
        .filter(|one| role(one, server) == "engine")
        .map(|one| one.pid)
        .collect()
}

fn engine(server: &Server) -> i32 {
    *engines(server).first().expect("an engine")
}

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];
const KINDS: [KeyKind; 4] = [
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::Rsa2048,
    KeyKind::Ed25519,
];

fn live(server: &Server, version: SslVersion) -> Tls {
    let mut client = Dial::to(server).version(version).connect();
    client.send("there");
    assert_eq!(client.read_exact(5), b"there");
    client
}

#[test]
fn a_key_is_in_the_keyholder_and_nowhere_else() {
    need_root!();
    for kind in KINDS {
        let place = Place::new("key-memory");
        let identity = Identity::localhost(kind);
        let needles = Needles::secrets(&identity.key);
        let server = Setup::new(&place, &["cat"]).identity(&identity).start();
        for version in VERSIONS {
            let _client = live(&server, version);
            in_the_keyholder_alone(&server, &needles, &format!("{kind:?}, {version:?}"));
        }
        let old = keyholders(&server);
        server.signal(Signal::SIGHUP);
        eventually("another keyholder serves", || {
            let _client = live(&server, SslVersion::TLS1_3);
            let now = keyholders(&server);
            (!now.is_empty() && now.iter().all(|one| !old.contains(one))).then_some(())
        });
        server.quiet();
        let _client = live(&server, SslVersion::TLS1_3);
        in_the_keyholder_alone(&server, &needles, &format!("{kind:?}, after a reload"));
    }
}

/// An `openssl s_client` that stays.
struct Resumer(Child);

impl Resumer {
    fn start(server: &Server, words: &[&str]) -> (Resumer, String) {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &server.at.to_string()])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (Resumer(child), line)
    }
}

impl Drop for Resumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection that stays, and the file with its session.
fn kept_session(server: &Server, place: &Place, version: &str) -> (Resumer, String) {
    let file = place.fresh("session").to_str().unwrap().to_owned();
    let (first, said) = Resumer::start(server, &[version, "-sess_out", &file]);
    assert_eq!(said, "Initial\n");
    // s_client writes the file when the ticket comes.
    eventually("a session is kept", || {
        fs::read_to_string(&file)
            .is_ok_and(|text| text.contains("END SSL SESSION"))
            .then_some(())
    });
    (first, file)
}

#[test]
fn a_resumed_session_brings_no_key_into_an_engine() {
    need_root!();
    need!("openssl");
    let place = Place::new("key-resumed");
    for kind in KINDS {
        let identity = Identity::localhost(kind);
        let needles = Needles::secrets(&identity.key);
        let server = Setup::script(&place, "echo $SSL_SESSION_RESUMED; exec cat")
            .identity(&identity)
            .start();
        for version in ["-tls1_2", "-tls1_3"] {
            let (_first, file) = kept_session(&server, &place, version);
            let (_second, said) = Resumer::start(&server, &[version, "-sess_in", &file]);
            assert_eq!(said, "Resumed\n");
            let when = format!("{kind:?}, resumed, {version}");
            in_the_keyholder_alone(&server, &needles, &when);
        }
    }
}

/// The ticket of a session that s_client keeps.
fn ticket(file: &str) -> Vec<u8> {
    let shown = Command::new("openssl")
        .args(["sess_id", "-noout", "-text", "-in", file])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let dump = text.split_once("TLS session ticket:").expect("a ticket").1;
    let lines = dump.lines().skip(1).map(str::trim);
    lines
        .map_while(|line| line.split_once(" - "))
        .flat_map(|(_, line)| {
            // Sixteen bytes, then the same as text.
            let hex: String = line.chars().take(47).collect();
            hex.split([' ', '-'])
                .filter(|pair| !pair.is_empty())
                .map(|pair| u8::from_str_radix(pair, 16).unwrap())
                .collect::<Vec<u8>>()
        })
        .collect()
}

/// Whether a ticket was made with this key (RFC 5077, section 4).
fn opens(ticket: &[u8], key: &[u8]) -> bool {
    let (cipher, mac_key) = key.split_at(32);
    let (signed, mac) = ticket.split_at(ticket.len() - 32);
    let hmac = PKey::hmac(mac_key).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &hmac).unwrap();
    let (vector, state) = signed[16..].split_at(16);
    signer.sign_oneshot_to_vec(signed).unwrap() == mac
        // An SSL_SESSION is an ASN.1 sequence.
        && decrypt(Cipher::aes_256_cbc(), cipher, Some(vector), state)
            .is_ok_and(|plain| plain.starts_with(&[0x30]))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

/// The key of the hour in which a ticket was made, and the ticket's own, as they
/// stand in the memory of those who may have them: proved by the ticket, which
/// they open. None where the hour is over.
fn keys_of(server: &Server, ticket: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    // An hour's key stands behind its mark, with which its tickets' names begin.
    let mut hours = behind(master(server), &ticket[..4], 32);
    for keyholder in keyholders(server) {
        let theirs = behind(keyholder, &ticket[..4], 32);
        hours.retain(|hour| theirs.contains(hour));
    }
    // Tickets belong to a store by its session context: 32 bytes behind their number
    // in an SSL_CTX. These clients name no server.
    let contexts = behind(server.pid().cast_signed(), &32u64.to_ne_bytes(), 32);
    let name: [u8; 16] = ticket[..16].try_into().unwrap();
    hours.into_iter().find_map(|hour| {
        contexts.iter().find_map(|context| {
            let key = hours::derive(&hour, &name, &sha256(context)).unwrap();
            opens(ticket, key.bytes()).then(|| (hour.clone(), key.bytes().to_vec()))
        })
    })
}

fn hour_needles(hour: &[u8]) -> Needles {
    let mut needles = Needles::default();
    needles.number("the hour's key", hour);
    needles
}

fn ticket_needles(key: &[u8]) -> Needles {
    let mut needles = Needles::default();
    needles.number("the key of the cipher", &key[..32]);
    needles.number("the key of the MAC", &key[32..]);
    needles
}

#[test]
fn no_key_that_opens_another_client_s_ticket_is_in_an_engine() {
    need_root!();
    need!("openssl");
    let place = Place::new("ticket-keys");
    // Launcher and engine of a client that says nothing: for as long as this takes.
    let server = Setup::script(&place, "echo $SSL_SESSION_RESUMED; exec cat")
        .options("-T 600")
        .start();
    let _silent = dial::plain(server.at);
    eventually("both are there", || {
        let all = group(server.pid());
        let there = |wanted| all.iter().any(|one| role(one, &server) == wanted);
        (there("engine") && there("launcher")).then_some(())
    });
    for version in ["-tls1_2", "-tls1_3"] {
        let (_first, file) = kept_session(&server, &place, version);
        let (_second, said) = Resumer::start(&server, &[version, "-sess_in", &file]);
        assert_eq!(said, "Resumed\n");
        let (hour, key) = keys_of(&server, &ticket(&file)).expect("the keys of the ticket");
        let roles = search(&server, &hour_needles(&hour));
        for wanted in ["supervisor", "engine", "launcher", "master", "keyholder"] {
            assert!(roles.iter().any(|(role, _)| *role == wanted), "{wanted}");
        }
        for (role, found) in roles {
            let may = matches!(role, "master" | "keyholder");
            assert_eq!(!found.is_empty(), may, "{version}: {role}: {found:?}");
        }
        for (role, found) in search(&server, &ticket_needles(&key)) {
            assert!(found.is_empty(), "{version}: {role}: {found:?}");
        }
    }
}

/// The control: the same search, where an engine keeps what it was given.
#[test]
fn the_search_finds_a_ticket_s_key_in_an_engine_that_keeps_it() {
    need_root!();
    let place = Place::new("ticket-keys-control");
    let server = Setup::new(&place, &["cat"])
        .options("-T 600")
        .taken_over("keep-ticket")
        .start();
    // One in the middle of its connection, and one whose client says nothing. (A
    // third ticket is one more than a connection of TLS 1.3 has.)
    let _client = live(&server, SslVersion::TLS1_2);
    let _silent = dial::plain(server.at);
    let keys = server.lines(": kept ", 2).into_iter().map(|line| {
        let key = unhex(line.rsplit_once(' ').unwrap().1);
        assert_eq!(key.len(), 64, "{line}");
        key
    });
    let keys: Vec<_> = keys.collect();
    // Either engine says so before it has put it away, and in no order.
    eventually("each engine has one of the keys, and nobody else", || {
        let mut keepers = Vec::new();
        for key in &keys {
            let needles = ticket_needles(key);
            for one in group(server.pid()) {
                let found = needles.found_in(one.pid);
                if !found.is_empty() {
                    // The keyholder wipes what it gives.
                    assert_eq!(role(&one, &server), "engine", "{found:?}");
                    keepers.push(one.pid);
                }
            }
        }
        keepers.sort_unstable();
        let mut all = engines(&server);
        all.sort_unstable();
        (all.len() == 2 && keepers == all).then_some(())
    });
}

#[test]
fn ticket_keys_are_replaced_in_time() {
    need_root!();
    need!("openssl");
    let place = Place::new("ticket-keys-in-time");
    // By the key master, and by the keyholder where that sleeps.
    for asleep in [false, true] {
        let server = Setup::script(&place, "echo $SSL_SESSION_RESUMED; exec cat")
            .taken_over("short-hours")
            .start();
        // Such an hour may be over before its key is found.
        let hour = eventually("the key of an hour is found", || {
            let (_first, file) = kept_session(&server, &place, "-tls1_3");
            keys_of(&server, &ticket(&file))
        });
        let hour = hour_needles(&hour.0);
        let master = Pid::from_raw(master(&server));
        if asleep {
            kill(master, Signal::SIGSTOP).unwrap();
        }
        eventually("nobody has the key of the hour before the last", || {
            let all = group(server.pid());
            let mut all = all
                .iter()
                .filter(|one| one.state != 'Z' && !(asleep && one.pid == master.as_raw()));
            (!all.any(|one| !hour.found_in(one.pid).is_empty())).then_some(())
        });
        kill(master, Signal::SIGCONT).unwrap();
    }
}

#[test]
fn retired_ticket_keys_are_nowhere() {
    need_root!();
    need!("openssl");
    let place = Place::new("ticket-keys-retired");
    let server = Setup::script(&place, "echo $SSL_SESSION_RESUMED; exec cat").start();
    let hour = || {
        let (_client, file) = kept_session(&server, &place, "-tls1_3");
        let (hour, _) = keys_of(&server, &ticket(&file)).expect("the keys of the ticket");
        hour_needles(&hour)
    };
    let first = hour();
    let (old, old_keyholders) = (master(&server), keyholders(&server));
    let has = |pid: i32| !first.found_in(pid).is_empty();
    assert!(has(old) && old_keyholders.iter().all(|pid| has(*pid)));
    server.signal(Signal::SIGHUP);
    // No connection is needed for that.
    eventually("nobody has the key of before", || {
        let all = group(server.pid());
        let mut all = all.iter().filter(|one| one.state != 'Z');
        (!all.any(|one| has(one.pid))).then_some(())
    });
    // A key master that takes another's place has none of its keys.
    let second = hour();
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    server.line("a new key master was started");
    assert!(second.found_in(master(&server)).is_empty());
    eventually("nobody has the key of before", || {
        let all = group(server.pid());
        let mut all = all.iter().filter(|one| one.state != 'Z');
        (!all.any(|one| !second.found_in(one.pid).is_empty())).then_some(())
    });
}

/// A server whose key has a password.
fn with_password(place: &Place, identity: &Identity) -> Server {
    let (certificate, _) = place.identity("own", identity);
    let key = place.write("locked.key", identity.locked_key_pem(PASSWORD));
    let file = place.write("password", PASSWORD);
    Setup::new(place, &["cat"])
        .options("-3")
        .pair(&certificate, &key)
        .through([
            "/bin/sh".to_owned(),
            "-c".into(),
            format!("exec 3<{file}; exec \"$@\""),
            "sh".into(),
        ])
        .start()
}

#[test]
fn the_password_stays_with_the_master() {
    need_root!();
    let place = Place::new("key-password");
    let identity = Identity::localhost(KeyKind::P256);
    let secrets = Needles::secrets(&identity.key);
    let mut password = Needles::default();
    password.add("the password", PASSWORD.as_bytes());
    let server = with_password(&place, &identity);
    for round in 0..2 {
        let _client = live(&server, SslVersion::TLS1_3);
        in_the_keyholder_alone(&server, &secrets, &format!("round {round}"));
        for (role, found) in search(&server, &password) {
            assert_eq!(
                !found.is_empty(),
                role == "master",
                "round {round}: the password in the {role}"
            );
        }
        // The password must open the key again.
        let old = keyholders(&server);
        server.signal(Signal::SIGHUP);
        eventually("another keyholder serves", || {
            let _client = live(&server, SslVersion::TLS1_3);
            let now = keyholders(&server);
            (!now.is_empty() && now.iter().all(|one| !old.contains(one))).then_some(())
        });
    }
}

/// The control: the same search, where engines hold the key.
#[test]
fn the_search_finds_a_key_in_an_engine_that_has_it() {
    need_root!();
    for kind in KINDS {
        let place = Place::new("key-control");
        let identity = Identity::localhost(kind);
        let needles = Needles::secrets(&identity.key);
        let (certificate, key) = place.identity("own", &identity);
        let server = Setup::new(&place, &["cat"])
            .pair(certificate, &key)
            .taken_over("hold")
            .env("HELD", &key)
            .start();
        for version in VERSIONS {
            let _client = live(&server, version);
            let roles = search(&server, &needles);
            let found = roles.iter().find(|(role, _)| *role == "engine").unwrap();
            assert!(!found.1.is_empty(), "{kind:?} {version:?}: {roles:?}");
        }
    }
}

#[test]
fn a_client_s_key_is_gone_when_the_program_runs() {
    need_root!();
    for kind in KINDS {
        let place = Place::new("client-key");
        let identity = Leaf::new("client").key(kind).issue();
        let (certificate, key) = place.identity("client", &identity);
        let locked = place.write("locked.key", identity.locked_key_pem(PASSWORD));
        let table = format!("*:{certificate}|{locked}|{PASSWORD}\n");
        let table = place.write("domaincerts", table);
        let mut needles = Needles::secrets(&identity.key);
        needles.add("the password", PASSWORD.as_bytes());
        let anchors = place.write("ca.pem", crate::harness::Authority::shared_root().pem());
        let server = Setup::new(&place, &["cat"])
            .options("-m")
            .env("CAFILE", anchors)
            .start();
        for version in ["1.2", "1.3"] {
            for (keep, locked) in [(false, false), (true, false), (false, true)] {
                let client = Client::new(&place);
                let client = if locked {
                    client.options("-G").option(&table)
                } else {
                    let client = client.options("-c").option(&certificate);
                    client.options("-k").option(&key)
                };
                let client = if keep {
                    client.taken_over("hold").env("HELD", &key)
                } else {
                    client
                };
                let mut child = client
                    .env("TLS_MAX", version)
                    .command("localhost", server.port, &["/bin/sh", "-c", "echo up; cat"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut line = String::new();
                BufReader::new(child.stdout.take().unwrap())
                    .read_line(&mut line)
                    .unwrap();
                assert_eq!(line, "up\n");
                let found = needles.found_in(child.id().cast_signed());
                let _ = child.kill();
                let _ = child.wait();
                // The same search finds what was kept on purpose.
                assert_eq!(!found.is_empty(), keep, "{kind:?} {version}: {found:?}");
            }
        }
    }
}

#[test]
fn what_the_sandbox_forbids_ends_the_engine() {
    let place = Place::new("sandbox");
    for what in ["open", "socket", "execve", "kill", "ptrace"] {
        let setup = |sandbox: &str| {
            Setup::new(&place, &["cat"])
                .taken_over(&format!("try-{what}"))
                .env("SSL_SANDBOX", sandbox)
                .start()
        };
        let server = setup("");
        assert!(Dial::to(&server).attempt().is_err(), "{what}");
        server.line("made a system call that its sandbox forbids");
        server.quiet();
        let told = server.log().contains(&format!(": {what} "));
        assert!(!told, "{}", server.log());
        // Without the filter the engine lives to tell how it went.
        let server = setup("0");
        if what != "execve" {
            live(&server, SslVersion::TLS1_3);
            server.line(&format!(": {what} "));
        }
    }
}

#[test]
fn links_that_were_made_ahead_are_in_no_other_process() {
    need_root!();
    let place = Place::new("spares");
    let server = Setup::new(&place, &["true"]).start();
    let ours = |one: &Process| matches!(role(one, &server), "engine" | "launcher");
    // The descriptors of launcher and engine while a client sends nothing; one or
    // two more or less, since both may still be at work.
    let count = || {
        eventually("no connection is left", || {
            (!group(server.pid()).iter().any(ours)).then_some(())
        });
        let _client = dial::plain(server.at);
        eventually("launcher and engine are there", || {
            let both: Vec<i32> = group(server.pid())
                .into_iter()
                .filter(|one| ours(one) && one.state == 'S')
                .map(|one| one.pid)
                .collect();
            let count = |pid| Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count());
            let counts: Vec<usize> = both.into_iter().filter_map(count).collect();
            (counts.len() == 2).then(|| counts.into_iter().max())?
        })
    };
    let alone = count();
    // Quick enough for links to be made ahead, eight at last: two descriptors each.
    let most = (0..24).map(|_| count()).max();
    assert!(most < Some(alone + 6), "{alone} at first, then {most:?}");
}

/// doc/limits.md says so; the rest, links that were made ahead too, is given back.
#[test]
fn a_connection_costs_the_supervisor_one_descriptor() {
    const CONNECTIONS: usize = 12;
    let place = Place::new("descriptors");
    let server = Setup::new(&place, &["cat"]).start();
    let count = || descriptors(server.pid());
    // Both the start and a handshake have descriptors for a moment: what is left is
    // what stays the same for long, links made ahead being kept for a second.
    let _first = live(&server, SslVersion::TLS1_3);
    let (mut before, mut since) = (count(), Instant::now());
    eventually("the supervisor's descriptors stay", || {
        let now = count();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let clients: Vec<Tls> = (0..CONNECTIONS)
        .map(|_| live(&server, SslVersion::TLS1_3))
        .collect();
    eventually("one descriptor for each connection", || {
        (count() == before + CONNECTIONS).then_some(())
    });
    drop(clients);
    eventually("none", || (count() == before).then_some(()));
}

#[test]
fn an_engine_opens_nothing() {
    need!("strace");
    let place = Place::new("no-open");
    let trace = place.text("trace");
    let identity = Identity::localhost(KeyKind::Rsa2048);
    let server = Setup::new(&place, &["cat"])
        .identity(&identity)
        .through(["strace", "-f", "-qq", "-o", &trace])
        .start();
    for version in VERSIONS {
        let mut client = live(&server, version);
        client.half_close();
        client.text();
    }
    let mut engines = BTreeMap::new();
    eventually("two engines have ended", || {
        engines.clear();
        for line in fs::read_to_string(&trace).unwrap().lines() {
            let Some((pid, call)) = line.split_once(' ') else {
                continue;
            };
            let call = call.trim_start();
            // The first byte of the client's is asked for behind all that is
            // given up.
            if call.starts_with("seccomp(SECCOMP_SET_MODE_FILTER") {
                engines.insert(pid.to_owned(), Vec::new());
            } else if let Some(calls) = engines.get_mut(pid) {
                calls.push(call.to_owned());
            }
        }
        // Others have a filter too, but no client.
        engines.retain(|_, calls| {
            let any = |name: &str| calls.iter().any(|call| call.starts_with(name));
            any("shutdown(") && !any("recvmsg(")
        });
        let over = |calls: &Vec<String>| calls.iter().any(|call| call.starts_with("exit_group"));
        (engines.len() == 2 && engines.values().all(over)).then_some(())
    });
    for calls in engines.values() {
        assert!(calls.iter().any(|call| call.starts_with("recvfrom(")));
        for call in calls {
            assert!(!call.starts_with("open"), "{call}");
            assert!(!call.contains("ENOSYS"), "{call}");
        }
    }
}

#[test]
fn engines_and_keyholders_have_given_everything_up() {
    need_root!();
    let place = Place::new("given-up");
    let server = Setup::new(&place, &["cat"]).start();
    let _client = live(&server, SslVersion::TLS1_3);
    let read = |pid: i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let users = |pid: i32| status_field(&read(pid, "status"), "Uid");
    let (engine, keyholder) = (engine(&server), keyholders(&server)[0]);
    for pid in [engine, keyholder] {
        let status = read(pid, "status");
        for (field, value) in [
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("Groups", ""),
        ] {
            assert_eq!(status_field(&status, field), value, "{field} of {pid}");
        }
        let limits = read(pid, "limits");
        for limit in ["Max core file size", "Max processes"] {
            let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
            assert_eq!(line[limit.len()..].split_whitespace().next(), Some("0"));
        }
    }
    // An engine may neither read nor signal the keyholder.
    assert_ne!(users(engine), users(keyholder));
    assert!(!users(keyholder).split(' ').any(|user| user == "0"));
    assert_eq!(
        status_field(&read(keyholder, "status"), "CapBnd"),
        "0000000000000000"
    );
    let root = fs::read_link(format!("/proc/{keyholder}/root")).unwrap();
    assert!(root.to_string_lossy().contains("(deleted)"), "{root:?}");
    // Two keyholders are not each other's user either.
    let other = Setup::new(&place, &["cat"]).start();
    assert_ne!(users(keyholders(&other)[0]), users(keyholder));
}

#[test]
fn the_keyholder_signs_one_server_s_handshake_and_no_more() {
    let place = Place::new("refused");
    let ask = |what: &str| {
        Setup::new(&place, &["cat"])
            .taken_over(&format!("ask-{what}"))
            .start()
    };
    // The engine has used its signature up before the client came.
    let server = ask("server-server");
    assert!(Dial::to(&server).attempt().is_err());
    server.line("server was signed");
    server.line("server was not signed: ");
    server.quiet();
    // The control of what follows: this is signed where nothing is wrong with it.
    let server = ask("older");
    let _ = Dial::to(&server).attempt();
    server.line("older was signed");
    server.quiet();
    for (what, why) in [
        ("client", "a message that is not of a TLS server"),
        ("hello", "a message that is not of a TLS server"),
        ("certificate", "a message that could pass for a certificate"),
        ("unmarked", "an old TLS version without the mark"),
        ("twist", "a key share that is not a point"),
        (
            "group",
            "a key share of a group that the settings do not allow",
        ),
        (
            "sha1",
            "a signature algorithm that the settings do not allow",
        ),
    ] {
        let server = ask(what);
        assert!(Dial::to(&server).attempt().is_err(), "{what}");
        server.line(&format!("{what} was not signed: the keyholder refused"));
        server.line(&format!("refused to sign for a TLS process: {why}"));
        server.quiet();
    }
}

/// A self-signed pair of a key that `openssl req` makes.
fn unusual(place: &Place, name: &str, words: &[&str]) -> (String, String) {
    let (certificate, key) = (
        place.text(&format!("{name}.pem")),
        place.text(&format!("{name}.key")),
    );
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-newkey",
        ])
        .args(words)
        .args(["-out", &certificate, "-keyout", &key])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}

/// What the keyholder refuses must not be what an honest engine asks for: old
/// versions, odd curves, and settings that part what a server can from what it
/// does.
#[test]
fn every_handshake_that_the_settings_allow_is_signed() {
    need!("openssl");
    let place = Place::new("allowed");
    let curve = |name: &str| {
        let parameter = format!("ec_paramgen_curve:{name}");
        unusual(&place, name, &["ec", "-pkeyopt", &parameter])
    };
    let rsa = unusual(&place, "rsa", &["rsa:2048"]);
    let (p256, p521) = (curve("P-256"), curve("P-521"));
    let brainpool = curve("brainpoolP256r1");
    let ed448 = unusual(&place, "ed448", &["ed448"]);
    let level = "ALL:@SECLEVEL=0";
    for (pair, settings, words, said) in [
        (
            &rsa,
            "TLS_MIN=1.0",
            &["-tls1", "-cipher", level][..],
            "TLSv1",
        ),
        (
            &rsa,
            "TLS_MIN=1.0",
            &["-tls1_1", "-cipher", "DHE:@SECLEVEL=0"],
            "TLSv1.1",
        ),
        (&p256, "TLS_MIN=1.0", &["-tls1", "-cipher", level], "TLSv1"),
        (
            &p256,
            "TLS_MIN=1.0",
            &["-tls1_2", "-cipher", level],
            "TLSv1.2",
        ),
        (
            &rsa,
            "TLS_MAX=1.1",
            &["-tls1_1", "-cipher", level],
            "TLSv1.1",
        ),
        (&rsa, "TLS_MAX=1.2", &[], "TLSv1.2"),
        (&rsa, "TLS_MIN=1.3", &[], "TLSv1.3"),
        (&rsa, "", &["-tls1_2", "-cipher", "DHE"], "TLSv1.2"),
        (
            &rsa,
            "TLS_GROUPS=X448:P-521",
            &["-tls1_2", "-curves", "X448"],
            "TLSv1.2",
        ),
        (
            &rsa,
            "TLS_GROUPS=X448:P-521",
            &["-tls1_2", "-curves", "P-521"],
            "TLSv1.2",
        ),
        // Where its only certificate keeps it from TLS 1.3, it marks no downgrade.
        (
            &brainpool,
            "",
            &["-tls1_2", "-curves", "brainpoolP256r1:X25519"],
            "TLSv1.2",
        ),
        (&p521, "SIGALGS=ECDSA+SHA256", &[], "TLSv1.2"),
        (&p521, "", &[], "TLSv1.3"),
        (&ed448, "", &["-tls1_2"], "TLSv1.2"),
        (
            &rsa,
            "CIPHERS=ALL:@SECLEVEL=0",
            &["-tls1_2", "-sigalgs", "RSA+SHA1", "-cipher", level],
            "TLSv1.2",
        ),
    ] {
        let (name, value) = settings.split_once('=').unwrap_or(("PLAIN", ""));
        let server = Setup::script(&place, "echo \"says $SSL_PROTOCOL.\"")
            .pair(&pair.0, &pair.1)
            .env(name, value)
            .start();
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-connect", &server.at.to_string()]);
        let ended = run(client.args(words), b"");
        let text = ended.text();
        assert!(
            text.contains(&format!("says {said}.")),
            "{pair:?} {settings} {words:?}: {text}{}{}",
            ended.stderr,
            server.log()
        );
    }
}

#[test]
fn an_engine_gets_one_ticket_opened_and_two_made() {
    let place = Place::new("tickets-refused");
    for (asked, answered, refused) in [
        ("ticket7-ticket7-ticket8", "ticket7", "ticket8"),
        ("ticket-ticket-ticket", "ticket", "ticket"),
    ] {
        let server = Setup::new(&place, &["cat"])
            .taken_over(&format!("ask-{asked}"))
            .start();
        assert!(Dial::to(&server).attempt().is_err(), "{asked}");
        server.lines(&format!("{answered} was answered"), 2);
        server.line(&format!(
            "{refused} was not answered: the keyholder refused"
        ));
        server.line("refused to give tickets to a TLS process: a second signature, or more");
        server.quiet();
    }
}

#[test]
fn the_keyholder_signs_only_what_the_settings_allow() {
    let place = Place::new("permitted");
    for (variable, value, what, why) in [
        (
            "TLS_MIN",
            "1.3",
            "older",
            "a TLS version that the settings do not allow",
        ),
        (
            "TLS_MAX",
            "1.2",
            "server",
            "a TLS version that the settings do not allow",
        ),
        ("TLS_GROUPS", "P-256", "older", "a key share of a group"),
    ] {
        let server = Setup::new(&place, &["cat"])
            .taken_over(&format!("ask-{what}"))
            .env(variable, value)
            .start();
        assert!(Dial::to(&server).attempt().is_err(), "{what}");
        server.line(&format!("{what} was not signed: the keyholder refused"));
        server.line(&format!("refused to sign for a TLS process: {why}"));
        server.quiet();
    }
}

/// Waits until so many clients have their engines.
pub fn await_engines(server: &Server, least: usize) {
    eventually("its engine is there", || {
        let all = group(server.pid());
        let engines = all.iter().filter(|one| role(one, server) == "engine");
        (engines.count() >= least).then_some(())
    });
}

/// Each gets back what it sends.
fn still_served<'a>(clients: impl IntoIterator<Item = &'a mut Tls>) {
    for client in clients {
        client.send("still here");
        assert_eq!(client.read_exact(10), b"still here");
    }
}

#[test]
fn a_keyholder_that_dies_or_hangs_is_replaced() {
    need_root!();
    let place = Place::new("replaced");
    for (signal, said) in [
        (Signal::SIGKILL, "ended; starting another"),
        (Signal::SIGSTOP, "did not answer for"),
    ] {
        let server = Setup::new(&place, &["cat"]).start();
        let mut before = live(&server, SslVersion::TLS1_3);
        // Connected, and silent until the keyholder is gone.
        let waiting = dial::plain(server.at);
        await_engines(&server, 2);
        let old = keyholders(&server);
        kill(Pid::from_raw(old[0]), signal).unwrap();
        // Those who come now wait and are served, and so is who was there.
        let mut during = live(&server, SslVersion::TLS1_2);
        let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
        server.line(said);
        still_served([&mut before, &mut during, &mut waited]);
        let now = keyholders(&server);
        assert!(now.len() == 1 && now != old, "{old:?} {now:?}");
        drop((before, during, waited));
        server.quiet();
    }
}

pub fn master(server: &Server) -> i32 {
    let all = group(server.pid());
    let mut masters = all
        .iter()
        .filter(|one| one.state != 'Z' && role(one, server) == "master");
    masters.next().expect("a key master").pid
}

#[test]
fn a_key_master_that_dies_is_replaced_and_nobody_notices() {
    need_root!();
    let place = Place::new("new-master");
    let identity = Identity::localhost(KeyKind::P256);
    let needles = Needles::secrets(&identity.key);
    let server = Setup::new(&place, &["cat"]).identity(&identity).start();
    let mut before = live(&server, SslVersion::TLS1_3);
    for round in 1..=2 {
        // In the middle of its handshake, as far as we know.
        let waiting = dial::plain(server.at);
        let (old, old_keyholders) = (master(&server), keyholders(&server));
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        // Nothing happens but that: the supervisor sees it by itself.
        server.lines("warning: key master ", round);
        server.lines("warning: a new key master was started", round);
        assert!(!server.log().contains("cannot"), "{}", server.log());
        assert_ne!(master(&server), old);
        let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
        eventually("the old keyholder has ended", || {
            let now = keyholders(&server);
            (now.len() == 1 && now != old_keyholders).then_some(())
        });
        let mut during = live(&server, SslVersion::TLS1_2);
        still_served([&mut before, &mut during, &mut waited]);
        in_the_keyholder_alone(&server, &needles, &format!("master {round}"));
        // The new one does all that the first did.
        let old = keyholders(&server);
        if round == 1 {
            kill(Pid::from_raw(old[0]), Signal::SIGKILL).unwrap();
            server.line("ended; starting another");
        } else {
            server.signal(Signal::SIGHUP);
        }
        eventually("another keyholder serves", || {
            let _client = live(&server, SslVersion::TLS1_3);
            let now = keyholders(&server);
            (!now.is_empty() && now.iter().all(|one| !old.contains(one))).then_some(())
        });
    }
    assert!(!server.log().contains("unable"), "{}", server.log());
    drop(before);
    server.quiet();
}

#[test]
fn a_key_master_and_its_keyholder_may_die_together() {
    need_root!();
    let place = Place::new("both-die");
    let server = Setup::new(&place, &["cat"]).start();
    let waiting = dial::plain(server.at);
    await_engines(&server, 1);
    for pid in [master(&server), keyholders(&server)[0]] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
    waited.send("served");
    assert_eq!(waited.read_exact(6), b"served");
    live(&server, SslVersion::TLS1_2);
    server.line("a new key master was started");
    drop(waited);
    server.quiet();
}

#[test]
fn a_key_process_that_dies_after_a_renewal_brings_the_new_key_at_once() {
    need_root!();
    let place = Place::new("renewed-then-died");
    for victim in [master, |server: &Server| keyholders(server)[0]] {
        let file = place.text("pair.pem");
        let put = |identity: &Identity| {
            let new = place.secret(
                "pair.new",
                [identity.chain_pem(), identity.key_pem()].concat(),
            );
            fs::rename(new, &file).unwrap();
        };
        put(&Leaf::localhost().issue());
        let server = Setup::new(&place, &["cat"])
            .env("CERTFILE", &file)
            .unset("KEYFILE")
            .start();
        let mut before = live(&server, SslVersion::TLS1_3);
        let renewed = Leaf::localhost().other_key().issue();
        put(&renewed);
        kill(Pid::from_raw(victim(&server)), Signal::SIGKILL).unwrap();
        // No client comes that would have the files looked at.
        let line = server.line("changed: from ");
        assert!(line.contains(&renewed.fingerprint()), "{line}");
        let mut after = live(&server, SslVersion::TLS1_2);
        let shown = after.stream.ssl().peer_certificate().unwrap();
        assert_eq!(
            shown.to_der().unwrap(),
            renewed.certificate.to_der().unwrap()
        );
        for client in [&mut before, &mut after] {
            client.send("still here");
            assert_eq!(client.read_exact(10), b"still here");
        }
        let log = server.log();
        assert!(!log.contains("restart"), "{log}");
        drop((before, after));
        server.quiet();
    }
}

#[test]
fn keys_whose_password_died_with_the_key_master_stay_in_their_keyholder() {
    need_root!();
    let place = Place::new("password-lost");
    let identity = Identity::localhost(KeyKind::P256);
    let server = with_password(&place, &identity);
    let mut before = live(&server, SslVersion::TLS1_3);
    let old = keyholders(&server);
    kill(Pid::from_raw(master(&server)), Signal::SIGKILL).unwrap();
    server.line("ended, and the password of -3 with it");
    let line = server.line("a new key master was started, but cannot load the keys again: ");
    assert!(line.contains("unable to load key: "), "{line}");
    assert!(line.ends_with("restart sslserver"), "{line}");
    // It serves on, also after a reload that fails, and says so.
    server.signal(Signal::SIGHUP);
    server.line("unable to reload, the old material keeps serving: unable to load key: ");
    // Those that could not load the key are gone.
    eventually("the old keyholder alone is there", || {
        (keyholders(&server) == old).then_some(())
    });
    let mut after = live(&server, SslVersion::TLS1_2);
    still_served([&mut before, &mut after]);
    drop((before, after));
    server.quiet();
}

#[test]
fn a_reload_keeps_the_old_keyholder_for_who_is_in_a_handshake() {
    need_root!();
    let place = Place::new("old-keyholder");
    let server = Setup::new(&place, &["cat"]).start();
    let waiting = dial::plain(server.at);
    await_engines(&server, 1);
    let old = keyholders(&server);
    server.signal(Signal::SIGHUP);
    eventually("both keyholders are there", || {
        (keyholders(&server).len() == 2).then_some(())
    });
    let mut client = Dial::to(&server).over(waiting).expect("a handshake");
    client.send("x");
    assert_eq!(client.read_exact(1), b"x");
    eventually("the old one has ended", || {
        let now = keyholders(&server);
        (now.len() == 1 && now != old).then_some(())
    });
}

#[test]
fn a_new_keyholder_knows_the_groups_of_the_server() {
    need_root!();
    let place = Place::new("dh-replaced");
    let identity = Identity::localhost(KeyKind::Rsa2048);
    let server = Setup::new(&place, &["cat"]).identity(&identity).start();
    let finite = || {
        let mut client = Dial::to(&server)
            .version(SslVersion::TLS1_2)
            .ciphers("DHE-RSA-AES256-GCM-SHA384")
            .connect();
        client.send("x");
        assert_eq!(client.read_exact(1), b"x");
    };
    finite();
    for signal in [Signal::SIGKILL, Signal::SIGHUP] {
        let old = keyholders(&server)[0];
        if signal == Signal::SIGHUP {
            server.signal(signal);
        } else {
            kill(Pid::from_raw(old), signal).unwrap();
        }
        eventually("another keyholder serves", || {
            finite();
            (keyholders(&server).first() != Some(&old)).then_some(())
        });
        finite();
    }
    server.quiet();
}

#[test]
fn many_clients_are_served_while_keyholders_die() {
    need_root!();
    let place = Place::new("dying");
    let server = Setup::new(&place, &["cat"]).start();
    let end = Instant::now() + Duration::from_secs(3);
    let mut served = 0;
    while Instant::now() < end {
        for pid in keyholders(&server) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for _ in 0..5 {
            live(&server, SslVersion::TLS1_3);
            served += 1;
        }
    }
    assert!(served > 5);
    server.quiet();
}

#[test]
fn an_unprivileged_server_says_what_it_lacks() {
    need_root!();
    need!("setpriv");
    let place = Place::new("unprivileged-keys");
    let identity = Identity::localhost(KeyKind::P256);
    let (_, key) = place.identity("open", &identity);
    if fs::metadata(&key).is_err() {
        skip!("no key");
    }
    let words = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    // Without being asked to say more.
    let server = Setup::new(&place, &["cat"]).through(words).start();
    live(&server, SslVersion::TLS1_3);
    for who in ["TLS processes run", "the keyholder runs"] {
        let line = server.line(&format!("sslserver: {who} without "));
        assert!(line.contains("not started as root"), "{line}");
    }
    // The same user, but nobody can look into it.
    let keyholder = keyholders(&server)[0];
    let status = fs::read_to_string(format!("/proc/{keyholder}/status")).unwrap();
    assert_eq!(status_field(&status, "Seccomp"), "2");
    let looked = Command::new(words[0])
        .args(&words[1..])
        .args(["head", "-c1", &format!("/proc/{keyholder}/maps")])
        .output()
        .unwrap();
    assert!(!looked.status.success(), "{looked:?}");
    std::io::stdout().flush().unwrap();
}

/// Stops a process, and waits until it is.
fn stop(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    eventually("it is stopped", || {
        (crate::harness::process::process(pid)?.state == 'T').then_some(())
    });
}

#[test]
fn a_key_master_that_hangs_is_replaced_and_clients_wait_for_seconds() {
    need_root!();
    let place = Place::new("hung-master");
    let server = Setup::new(&place, &["cat"]).start();
    let mut before = live(&server, SslVersion::TLS1_3);
    let waiting = dial::plain(server.at);
    let (old, keyholder) = (master(&server), keyholders(&server)[0]);
    stop(old);
    kill(Pid::from_raw(keyholder), Signal::SIGKILL).unwrap();
    server.line("ended; starting another");
    // Nobody is held up but by the want of a signature.
    still_served([&mut before]);
    let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
    let mut during = live(&server, SslVersion::TLS1_2);
    for client in [&mut waited, &mut during] {
        client.send("served");
        assert_eq!(client.read_exact(6), b"served");
    }
    server.line(&format!(
        "key master {old} did not answer for 5 seconds, and was killed"
    ));
    server.line("a new key master was started");
    assert_ne!(master(&server), old);
    drop((before, waited, during));
    server.quiet();
}

#[test]
fn a_program_in_plaintext_waits_for_no_key_process() {
    need_root!();
    let place = Place::new("hung-master-plain");
    let server = Setup::new(&place, &["cat"]).options("-n").start();
    let old = master(&server);
    stop(old);
    kill(Pid::from_raw(keyholders(&server)[0]), Signal::SIGKILL).unwrap();
    server.line("ended; starting another");
    for _ in 0..3 {
        let mut client = dial::plain(server.at);
        client.write_all(b"plain").unwrap();
        let mut bytes = [0; 5];
        std::io::Read::read_exact(&mut client, &mut bytes).unwrap();
        assert_eq!(&bytes, b"plain");
    }
    // All of that while the master still hangs.
    assert!(!server.log().contains("did not answer"), "{}", server.log());
    server.line("a new key master was started");
    server.quiet();
}

#[test]
fn a_key_master_and_its_keyholder_may_hang_together() {
    need_root!();
    let place = Place::new("both-hang");
    let server = Setup::new(&place, &["cat"]).start();
    let waiting = dial::plain(server.at);
    let keyholder = keyholders(&server)[0];
    stop(master(&server));
    stop(keyholder);
    let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
    waited.send("served");
    assert_eq!(waited.read_exact(6), b"served");
    server.line("did not answer for");
    server.line("a new key master was started");
    // The one that hung has no keys any more.
    eventually("the old keyholder is gone", || {
        (!keyholders(&server).contains(&keyholder)).then_some(())
    });
    live(&server, SslVersion::TLS1_2);
    drop(waited);
    server.quiet();
}

/// Where a control group is out of memory the kernel ends the largest process: that is
/// not the one without which nobody is served.
#[test]
fn the_first_process_is_smaller_than_any_engine() {
    need_root!();
    let place = Place::new("smallest");
    let (certificate, key) = place.identity("own", &Identity::localhost(KeyKind::P256));
    let server = Setup::new(&place, &["cat"])
        .pair(certificate, &key)
        .options("-v")
        .start();
    let smaller = |when: &str| {
        let mut clients: Vec<Tls> = (0..4).map(|_| live(&server, SslVersion::TLS1_3)).collect();
        still_served(&mut clients);
        let first = resident(server.pid().cast_signed());
        for engine in engines(&server) {
            let its = resident(engine);
            assert!(first < its, "{when}: {first} KiB, an engine {its} KiB");
        }
        drop(clients);
        server.quiet();
    };
    smaller("after the start");
    let next = Identity::localhost(KeyKind::Rsa2048);
    place.identity("own", &next);
    server.signal(Signal::SIGHUP);
    server.line(" changed: ");
    smaller("after a reload");
    server.stop();
}

/// Most pages that a handshake writes to hold the same afterwards, and are those of the
/// first process again while nothing flows. Where there may be no file for them they
/// stay copies, and nothing else differs.
#[test]
fn pages_that_are_as_they_were_are_no_memory_of_an_idle_engine() {
    need_root!();
    if !cfg!(target_env = "gnu") {
        skip!("pages are shared again with glibc's allocator only");
    }
    let place = Place::new("idle-pages");
    let limited = Setup::new(&place, &["cat"])
        .through(["/bin/sh", "-c", "ulimit -f 64; exec \"$0\" \"$@\""])
        .start();
    let mut copies = live(&limited, SslVersion::TLS1_3);
    let server = Setup::new(&place, &["cat"]).start();
    let mut shares = live(&server, SslVersion::TLS1_3);
    let heap = |server: &Server| {
        let maps = fs::read_to_string(format!("/proc/{}/maps", engine(server))).unwrap();
        let files = maps.lines().filter(|line| line.contains("/memfd:heap"));
        files.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(heap(&limited), [""; 0], "no file may be so large");
    let kept = heap(&server);
    let private = |line: &String| line.split(' ').nth(1).unwrap().ends_with('p');
    assert!(!kept.is_empty() && kept.iter().all(private), "{kept:?}");
    eventually("pages are shared again", || {
        let own = |server| memory(engine(server), "Private_Dirty");
        (own(&server) + 32 <= own(&limited)).then_some(())
    });
    still_served([&mut copies, &mut shares]);
    drop((copies, shares));
    server.quiet();
    limited.quiet();
}

/// What a process has in memory, in KiB.
fn resident(pid: i32) -> u64 {
    memory(pid, "Rss")
}

/// A sum of all mappings of a process, in KiB.
fn memory(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    status_field(&text, field)
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
