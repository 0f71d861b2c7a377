//! A server that runs short of something under load: descriptors, memory, room for
//! its log, a reader of it. Clients may have to wait; none is lost
//! whom the server could serve, and all is well when the want is over.
#![forbid(unsafe_code)]

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::client::{Client, Errand, Lost};
use crate::dice::Dice;
use crate::harness::process::{Stop, status_field};
use crate::harness::{Place, Server, Setup, ports, root};
use crate::instruments::{self, LogReader, MemoryGroup};
use crate::load::address;
use crate::options::Settings;
use crate::service::{self, Way};

/// How many clients at once.
const AT_ONCE: usize = 40;
/// How long a want lasts, and how long it is over.
const TIME: Duration = Duration::from_secs(4);
/// How many failures are told one by one.
const TOLD: usize = 3;

/// What happened to the clients of a server.
struct Crowd {
    served: u64,
    lost: Vec<String>,
    /// The longest that one waited for all of it.
    longest: Duration,
}

/// Clients come, forty at once, while something is done to the server.
fn crowd(server: &Server, seed: u64, meanwhile: impl FnOnce()) -> Crowd {
    let client = Client::new(None);
    let over = AtomicBool::new(false);
    let (next, served) = (AtomicU64::new(0), AtomicU64::new(0));
    let lost = Mutex::new(Vec::new());
    let longest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        let _stop = Stop(&over);
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let came = Instant::now();
                    match one(server, &client, seed, number) {
                        Ok(()) => {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(why) => {
                            lost.lock().unwrap().push(why.to_string());
                            thread::sleep(Duration::from_millis(50));
                        }
                    }
                    let mut longest = longest.lock().unwrap();
                    *longest = came.elapsed().max(*longest);
                }
            });
        }
        meanwhile();
    });
    Crowd {
        served: served.into_inner(),
        lost: lost.into_inner().unwrap(),
        longest: longest.into_inner().unwrap(),
    }
}

fn one(server: &Server, client: &Client, seed: u64, number: u64) -> Result<(), Lost> {
    let mut dice = Dice::new(seed, number);
    let errand = Errand {
        at: server.at,
        way: Way::AtOnce,
        from: address(number),
        name: "localhost",
        wants_tls: true,
    };
    let served = client.begin(&errand, &mut dice)?;
    served.finish(&mut dice)
}

impl Crowd {
    /// The line of a want in which nobody may be lost.
    fn all_served(&self, title: &str) -> Result<String, String> {
        let line = format!(
            "{title}: {} served, {} lost, the longest wait {} ms",
            self.served,
            self.lost.len(),
            self.longest.as_millis()
        );
        if self.lost.is_empty() {
            return Ok(line);
        }
        let told = self.lost.iter().take(TOLD).cloned().collect::<Vec<_>>();
        Err(format!("{line}: {}", told.join("; ")))
    }
}

pub fn run(_: &Settings, seed: u64) -> Outcome {
    let wants: [fn(u64) -> Result<String, String>; 7] = [
        few_descriptors,
        least_memory,
        little_memory,
        little_memory_for_all,
        full_disk,
        reader_that_hangs,
        reader_that_is_gone,
    ];
    let each = |want: fn(u64) -> Result<String, String>| crate::caught(|| want(seed));
    wants.into_iter().map(each).collect()
}

/// A server for all of the crowd.
fn setup(place: &Place) -> Setup<'_> {
    service::setup(place, Way::AtOnce, AT_ONCE).options("-v")
}

fn few_descriptors(seed: u64) -> Result<String, String> {
    let place = Place::new("soak-descriptors");
    let server = setup(&place)
        .through(instruments::shell("ulimit -n 60"))
        .start();
    let crowd = crowd(&server, seed, || thread::sleep(TIME));
    server.quiet();
    server.stop();
    crowd.all_served("60 descriptors, for some 9 of 40 at once")
}

/// Each process has what doc/limits.md says is the least, as under softlimit -m: that is
/// enough for each of them, however many there are.
fn least_memory(seed: u64) -> Result<String, String> {
    let place = Place::new("soak-softlimit");
    // 15,000,000 bytes in KiB: address space, data and stack.
    let limits = "for kind in v d s; do ulimit -S -$kind 14648 || exit; done";
    let server = setup(&place).through(instruments::shell(limits)).start();
    let crowd = crowd(&server, seed, || thread::sleep(TIME));
    server.quiet();
    server.stop();
    crowd.all_served("15 MB for each process (softlimit -m)")
}

/// Each process may have what the server's first one has, and a little: one that
/// wants more ends, and its connection with it. Everybody is served again once there
/// is more.
fn little_memory(seed: u64) -> Result<String, String> {
    /// In KiB.
    const ROOM: u64 = 160;
    let place = Place::new("soak-memory");
    let server = setup(&place).start();
    let during = crowd(&server, seed, || {
        // The launchers and engines that are forked now have it too. The first one
        // needs some for each of the clients.
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let has = status_field(&status, "VmData");
        let has: u64 = has.trim_end_matches(" kB").parse().unwrap();
        let most = (has + ROOM) * 1024;
        instruments::limit(&server, &format!("--data={most}:"));
        thread::sleep(TIME);
    });
    instruments::limit(&server, "--data=unlimited:");
    let after = crowd(&server, seed, || thread::sleep(TIME));
    server.quiet();
    let log = server.log();
    server.stop();
    let explained = log.lines().filter(|line| line.contains("warning")).count();
    let line = format!(
        "no memory: {} served, {} lost, {explained} warnings",
        during.served,
        during.lost.len()
    );
    if explained == 0 && !during.lost.is_empty() {
        return Err(format!("{line}: none explained"));
    }
    after.all_served(&format!("{line}; and then"))
}

/// All processes together have too little for forty clients. The kernel ends one or
/// the other, the server's first one if it is the largest: what supervises it starts
/// it again. Nobody is served anything wrong, and everybody when there is more.
fn little_memory_for_all(seed: u64) -> Result<String, String> {
    const AGAIN: &str = "soak: again";
    let Some(group) = MemoryGroup::new() else {
        return Ok("memory of all processes: not tried: no control group can be made".to_owned());
    };
    let place = Place::new("soak-memory-of-all");
    // As supervise does it, without its second of rest.
    let script = format!(
        "{}; \"$@\"; while :; do echo {AGAIN} >&2; \"$@\" >/dev/null; done",
        group.join()
    );
    let words = ["/bin/sh", "-c", &script, "sh"].map(str::to_owned);
    let server = setup(&place).through(words).port(ports::free()).start();
    let during = crowd(&server, seed, || {
        group.limit(group.used() + 12_000_000);
        thread::sleep(TIME);
    });
    group.limit(1 << 40);
    // The last that was ended is started again.
    thread::sleep(Duration::from_secs(1));
    let after = crowd(&server, seed, || thread::sleep(TIME));
    let log = server.log();
    drop(server);
    let count = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    // The kernel's KILL, of a program or of an engine.
    let ended = count(" status 9") + count("was killed by signal 9");
    let line = format!(
        "12 MB for all processes: {} served, {} lost; {ended} processes of connections ended by \
         the kernel, and the server {} times",
        during.served,
        during.lost.len(),
        count(AGAIN),
    );
    let wrong = during.lost.iter().find(|why| why.starts_with("WRONG"));
    if let Some(wrong) = wrong {
        return Err(format!("{line}: {wrong}"));
    }
    after.all_served(&format!("{line}; and then"))
}

/// The log on a file system of 64 KiB, which is full at once.
fn full_disk(seed: u64) -> Result<String, String> {
    if !root() {
        return Err("only root can mount".to_owned());
    }
    let place = Place::new("soak-disk");
    let folder = place.text("log");
    fs::create_dir(&folder).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k soak {folder} && exec 2>>{folder}/current && exec \"$@\""
    );
    let words = ["unshare", "-m", "/bin/sh", "-c", &script, "sh"].map(str::to_owned);
    let server = setup(&place).through(words).start();
    let log = format!("/proc/{}/root{folder}/current", server.pid());
    let full = crowd(&server, seed, || thread::sleep(TIME));
    let size = fs::metadata(&log).unwrap().len();
    fs::write(&log, "").unwrap();
    let after = crowd(&server, seed, || thread::sleep(Duration::from_secs(1)));
    let written = fs::read_to_string(&log).unwrap();
    server.quiet();
    server.stop();
    let line = full.all_served(&format!("a full disk (the log ended at {size} bytes)"))?;
    if !written.contains("sslserver: end ") {
        return Err(format!(
            "{line}; nothing was logged when there was room again"
        ));
    }
    after.all_served(&format!("{line}; room again"))
}

fn reader_that_hangs(seed: u64) -> Result<String, String> {
    let place = Place::new("soak-hung-log");
    let (server, pipe) = instruments::piped(&place, setup(&place));
    let reader = LogReader::of(pipe);
    // A pipe holds 64 KiB: for the first seconds it is filled.
    reader.sticks(TIME);
    let crowd = crowd(&server, seed, || thread::sleep(TIME + TIME));
    server.quiet();
    server.stop();
    let lines = reader.all().text.lines().count();
    crowd.all_served(&format!(
        "a log that is not read for {TIME:?} ({lines} lines then)"
    ))
}

fn reader_that_is_gone(seed: u64) -> Result<String, String> {
    let place = Place::new("soak-no-log");
    let (server, reader) = instruments::piped(&place, setup(&place));
    drop(reader);
    let crowd = crowd(&server, seed, || thread::sleep(TIME));
    server.quiet();
    server.stop();
    crowd.all_served("a log without a reader")
}
