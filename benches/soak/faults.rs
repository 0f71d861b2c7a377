//! Faults rain on a server under load: its processes are killed and stopped at
//! random, its clock jumps, it runs out of descriptors, nobody reads its log, and
//! all that it has loaded is replaced every second. A connection may fail where its
//! own process was hit, and the log says so; nobody is ever served anything that is
//! not for him.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Outcome;
use crate::client::{Client, Errand, Lost};
use crate::dice::Dice;
use crate::harness::process::{Process, Stop, descriptors, group};
use crate::harness::{Authority, Identity, KeyKind, Leaf, Place, Server};
use crate::instruments::{self, Clock, Log, LogReader, Missing};
use crate::journal::Journal;
use crate::load::address;
use crate::options::Settings;
use crate::service::{self, Way};
use crate::truth::{DENIED, OTHER, Truth};

/// How many failures are told one by one.
const TOLD: usize = 5;
/// For how long nobody at all may be served: a second for the server, and the
/// rest for a machine that does other things.
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// The same while the key master is stopped: it is killed after 5 s.
const LONGEST_HUNG: Duration = Duration::from_secs(15);

/// What befalls a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Hup,
    Kill(&'static str),
    /// For so many milliseconds.
    Stop(&'static str, u64),
    /// Half a day ahead or behind, or anything between.
    Clock,
    /// Hardly one more may be opened, for so many milliseconds.
    Descriptors(u64),
    /// Nobody reads the log, for so many milliseconds.
    Reader(u64),
}

const FAULTS: [Fault; 15] = [
    Fault::Clock,
    Fault::Descriptors(2000),
    Fault::Hup,
    Fault::Kill("engine"),
    Fault::Kill("engine"),
    Fault::Kill("keyholder"),
    Fault::Kill("keymaster"),
    Fault::Kill("launcher"),
    Fault::Kill("launcher"),
    Fault::Reader(3000),
    Fault::Stop("engine", 2000),
    Fault::Stop("keyholder", 1500),
    Fault::Stop("keymaster", 1500),
    Fault::Stop("keymaster", 6000),
    Fault::Stop("launcher", 2000),
];

/// Whose connection a killed process was.
enum Hit {
    Client(Ipv4Addr),
    /// A key process, and when.
    Keyholder(i32, Instant),
    /// A launcher, whom the log names, but for one that had no time to say whose it
    /// was.
    Launcher(i32, Option<Ipv4Addr>),
}

/// What a run has seen so far.
#[derive(Default)]
struct Seen {
    hits: Mutex<Vec<Hit>>,
    lost: Mutex<Vec<Loss>>,
    /// Since when each renewal brings another key.
    new_keys: Mutex<Option<Instant>>,
    /// When somebody was served to his end.
    served: Mutex<Vec<Instant>>,
    /// From when to when a key master was stopped, or nothing could be opened.
    hung: Mutex<Vec<(Instant, Instant)>>,
    refused: AtomicU64,
    faults: Mutex<Vec<(Instant, Fault)>>,
}

/// A connection that was not served as it must be.
struct Loss {
    client: Ipv4Addr,
    why: Lost,
    at: Instant,
}

/// A server in the rain, and who is served by it.
struct Storm<'a> {
    server: &'a Server,
    clock: &'a Clock,
    reader: &'a LogReader,
    clients: &'a Clients,
    truth: &'a Truth<'a>,
    seen: &'a Seen,
    way: Way,
    seed: u64,
}

/// Clients of each kind.
struct Clients {
    ordinary: Client,
    /// With a certificate that the server's anchors know, and one of another root.
    known: Client,
    unknown: Client,
}

pub fn run(settings: &Settings, seed: u64) -> Outcome {
    let clients = Clients {
        ordinary: Client::new(None),
        known: Client::new(Some(&Identity::localhost(KeyKind::P256))),
        unknown: Client::new(Some(
            &Leaf::new("stranger").issue_by(&Authority::root("Another Root")),
        )),
    };
    settings
        .ways
        .iter()
        .copied()
        .map(|way| crate::caught(|| one_way(settings, seed, way, &clients)))
        .collect()
}

fn one_way(settings: &Settings, seed: u64, way: Way, clients: &Clients) -> Result<String, String> {
    let place = Place::new("soak-faults");
    let truth = Truth::new(&place);
    let setup = service::setup(&place, way, settings.at_once)
        .options("-v -x")
        .option(&truth.rules_file())
        .env("CERTFILE", truth.own_file())
        .unset("KEYFILE");
    let (clock, setup) = Clock::under(&place, setup);
    let (server, pipe) = instruments::piped(&place, setup);
    let reader = LogReader::of(pipe);
    let seen = Seen::default();
    let storm = Storm {
        server: &server,
        clock: &clock,
        reader: &reader,
        clients,
        truth: &truth,
        seen: &seen,
        way,
        seed,
    };
    let over = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let _stop = Stop(&over);
        for _ in 0..settings.at_once.div_ceil(5) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    storm.serve(number);
                }
            });
        }
        scope.spawn(|| renew(&truth, &seen, settings.rain, &over));
        storm.rain(settings.rain);
    });
    server.quiet();
    server.stop();
    let log = reader.all();
    verdict(way, &seen, &truth, &log, next.load(Ordering::Relaxed))
}

/// Every second something else; in the second half with another key each time.
fn renew(truth: &Truth<'_>, seen: &Seen, rain: Duration, over: &AtomicBool) {
    let begin = Instant::now();
    let mut round = 1;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_secs(1));
        let new_keys = begin.elapsed() > rain / 2;
        if new_keys {
            seen.new_keys.lock().unwrap().get_or_insert(Instant::now());
        }
        truth.renew_certificates(new_keys && round % 2 == 0);
        truth.replace_rules(round);
        round += 1;
    }
}

impl Storm<'_> {
    /// Who comes as this number, and whether he is to be served.
    fn errand(&self, number: u64, dice: &mut Dice) -> (Errand, &Client, bool) {
        let [_, a, b, c] = address(number).octets();
        let from = |second| Ipv4Addr::new(127, second, b, c);
        let kind = dice.below(20);
        let errand = Errand {
            at: self.server.at,
            way: self.way,
            from: match kind {
                0 => from(200),
                2..=4 => from(201),
                _ => from(a),
            },
            name: match kind {
                1 => DENIED,
                _ => dice.pick::<&str>(&["localhost", "localhost", OTHER]),
            },
            wants_tls: matches!(kind, 1..=4) || dice.once_in(2),
        };
        let (client, is_welcome) = match kind {
            0 | 1 | 4 => (&self.clients.ordinary, false),
            2 => (&self.clients.known, true),
            3 => (&self.clients.unknown, false),
            _ => (&self.clients.ordinary, true),
        };
        (errand, client, is_welcome)
    }

    /// One connection, and whether it came as it must.
    fn serve(&self, number: u64) {
        let seen = self.seen;
        let mut dice = Dice::new(self.seed, number);
        let (errand, client, is_welcome) = self.errand(number, &mut dice);
        let came = Instant::now();
        let ended = client.begin(&errand, &mut dice).and_then(|served| {
            if !is_welcome {
                return Err(Lost::Wrong("who must not be was served".to_owned()));
            }
            let certificate = served.certificate();
            self.truth
                .judge(errand.name, &served.mark, certificate.as_deref(), came)?;
            served.finish(&mut dice)
        });
        match ended {
            Ok(()) => seen.served.lock().unwrap().push(Instant::now()),
            Err(Lost::Ended(..)) if !is_welcome => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(why) => seen.lost.lock().unwrap().push(Loss {
                client: errand.from,
                why,
                at: Instant::now(),
            }),
        }
    }

    /// For so long a fault every few hundred milliseconds, each of which is over at
    /// the end.
    fn rain(&self, length: Duration) {
        let mut dice = Dice::new(self.seed, u64::MAX);
        let end = Instant::now() + length;
        let mut lasting: Vec<(Instant, Lasting)> = Vec::new();
        while Instant::now() < end || !lasting.is_empty() {
            let now = Instant::now();
            lasting.retain(|(until, what)| {
                let over = *until <= now;
                if over {
                    self.end(what);
                }
                !over
            });
            thread::sleep(Duration::from_millis(20 + dice.next() % 300));
            if now < end {
                lasting.extend(self.strike(&mut dice));
            }
        }
        self.clock.set(0);
    }

    fn end(&self, what: &Lasting) {
        match what {
            Lasting::Stopped(pid) => {
                // It may have been replaced, and be gone.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
            }
            Lasting::FewDescriptors => {
                let (usual, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                instruments::limit(self.server, &format!("--nofile={usual}:"));
            }
        }
    }

    /// One fault; what lasts of it until when, if it does.
    fn strike(&self, dice: &mut Dice) -> Option<(Instant, Lasting)> {
        let fault = *dice.pick(&FAULTS);
        let mut lasting = None;
        let now = Instant::now();
        let mut until = |most| now + Duration::from_millis(100 + dice.next() % most);
        match fault {
            Fault::Clock => {
                let half_a_day = 12 * 3600;
                let ahead = dice.below(2 * half_a_day);
                let ahead = i64::try_from(ahead).unwrap() - i64::try_from(half_a_day).unwrap();
                self.clock.set(ahead);
            }
            Fault::Descriptors(most) => {
                let until = until(most);
                let few = descriptors(self.server.pid()) + dice.below(10);
                instruments::limit(self.server, &format!("--nofile={few}:"));
                self.seen.hung.lock().unwrap().push((now, until));
                lasting = Some((until, Lasting::FewDescriptors));
            }
            Fault::Hup => self.server.signal(Signal::SIGHUP),
            Fault::Kill(role) => {
                let (pid, hit) = hold(self.server, dice, role)?;
                self.seen.hits.lock().unwrap().extend(hit);
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            Fault::Reader(most) => self.reader.sticks(until(most) - now),
            Fault::Stop(role, most) => {
                let until = until(most);
                let (pid, _) = hold(self.server, dice, role)?;
                if role == "keymaster" {
                    self.seen.hung.lock().unwrap().push((now, until));
                }
                lasting = Some((until, Lasting::Stopped(pid)));
            }
        }
        self.seen.faults.lock().unwrap().push((now, fault));
        lasting
    }
}

/// What of a fault has to be ended.
enum Lasting {
    /// A process.
    Stopped(i32),
    FewDescriptors,
}

/// Stops a process with this name, and says whose it is.
fn hold(server: &Server, dice: &mut Dice, role: &str) -> Option<(i32, Option<Hit>)> {
    let is = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == role)
    };
    let all: Vec<Process> = group(server.pid())
        .into_iter()
        .filter(|one| one.state != 'Z' && is(one.pid))
        .collect();
    if all.is_empty() {
        return None;
    }
    let pid = match role {
        // A reload's: those before it serve whoever is still theirs, and nobody
        // takes their place.
        "keyholder" => all.iter().max_by_key(|one| began(one.pid))?.pid,
        _ => dice.pick(&all).pid,
    };
    kill(Pid::from_raw(pid), Signal::SIGSTOP).ok()?;
    // A launcher may have become the program, which is none of ours to hit.
    if !is(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        return None;
    }
    match role {
        "engine" => {
            let client = client_of(pid);
            if client.is_none() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
            }
            client.map(|client| (pid, Some(Hit::Client(client))))
        }
        "launcher" => Some((pid, Some(Hit::Launcher(pid, client_of(pid))))),
        "keyholder" => Some((pid, Some(Hit::Keyholder(pid, Instant::now())))),
        _ => Some((pid, None)),
    }
}

/// When a process was forked, in ticks of the kernel's.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// The address at the other end of a process's connection, if it has one alone: under
/// `-n` an engine that has only just been forked has those of other clients still, and
/// the listening socket.
fn client_of(pid: i32) -> Option<Ipv4Addr> {
    let sockets: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let mut clients = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !sockets.contains(*fields.get(9)?) {
            return None;
        }
        let (address, _) = fields.get(2)?.split_once(':')?;
        // As the machine has it in memory.
        let number = u32::from_str_radix(address, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    });
    clients.next().filter(|_| clients.next().is_none())
}

/// A time in which nobody was served to his end.
#[derive(Clone, Copy)]
struct Gap {
    from: Instant,
    until: Instant,
}

impl Gap {
    fn length(&self) -> Duration {
        self.until - self.from
    }

    /// What befell the server then, or shortly before.
    fn faults(&self, all: &[(Instant, Fault)]) -> String {
        const BEFORE: Duration = Duration::from_secs(1);
        let told = all.iter().filter_map(|(at, fault)| {
            let then = *at + BEFORE >= self.from && *at <= self.until;
            let after = at.saturating_duration_since(self.from).as_millis();
            then.then(|| format!("{fault:?} at {after}"))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// The longest times without anybody served, that in which a key master was stopped
/// last.
fn gaps(served: &[Instant], hung: &[(Instant, Instant)]) -> Option<(Gap, Gap)> {
    let longest = |of_hung: bool| {
        let all = served.windows(2).map(|two| Gap {
            from: two[0],
            until: two[1],
        });
        let of_kind = all.filter(|gap| {
            let meets = |&(from, to): &(Instant, Instant)| {
                from < gap.until && gap.from < to + Duration::from_secs(1)
            };
            hung.iter().any(meets) == of_hung
        });
        of_kind.max_by_key(Gap::length)
    };
    let any = served.first().map(|&at| Gap {
        from: at,
        until: at,
    })?;
    Some((longest(false).unwrap_or(any), longest(true).unwrap_or(any)))
}

/// What of the losses has a cause and an explanation, and what has none.
struct Losses {
    /// Whose own process was killed.
    hit: usize,
    /// Whose key process was, when the key was on no disk any more.
    with_key: usize,
    /// Whose key process was that of before a reload: nobody takes its place.
    retired: usize,
    /// Whose line may be among those that the log lost at that time, as it says, and
    /// of whom there are no more than lines.
    unlogged: usize,
    bad: Vec<String>,
}

fn losses(seen: &Seen, log: &Log) -> Losses {
    let journal = Journal::read(&log.text);
    let mut missing = log.missing();
    // Those of whose launcher there is its end alone.
    let mut ended = BTreeSet::new();
    let mut hit = BTreeSet::new();
    let mut retired = Vec::new();
    for one in seen.hits.lock().unwrap().iter() {
        match one {
            Hit::Client(client) => {
                hit.insert(*client);
            }
            Hit::Keyholder(pid, at) => {
                // Of one that serves the log tells the end.
                if !log.text.contains(&format!("keyholder {pid} ")) {
                    retired.push(*at);
                }
            }
            Hit::Launcher(pid, client) => {
                hit.extend(journal.clients_of(*pid));
                match client {
                    Some(client) if journal.ended_badly(*pid) => {
                        hit.insert(*client);
                        ended.insert(*client);
                    }
                    // It was an engine before its first word, which has the name of its
                    // launcher: the log has to say something.
                    Some(client) if journal.clients_of(*pid).is_empty() => {
                        hit.insert(*client);
                    }
                    _ => {}
                }
            }
        }
    }
    let new_keys = *seen.new_keys.lock().unwrap();
    let mut losses = Losses {
        hit: 0,
        with_key: 0,
        retired: 0,
        unlogged: 0,
        bad: Vec::new(),
    };
    for Loss { client, why, at } in seen.lost.lock().unwrap().iter() {
        let said = journal.explanation(*client);
        let gone = said.is_some_and(|lines| lines.contains("the keyholder is gone"));
        let lost_key = gone && new_keys.is_some_and(|since| *at > since);
        let was_retired =
            |killed: &Instant| *at > *killed && at.duration_since(*killed) < Duration::from_secs(5);
        let lost_retired = gone && retired.iter().any(was_retired);
        let fault = match why {
            Lost::Wrong(_) => "",
            Lost::Late(_) => ", which is the soak's own time limit",
            Lost::Ended(..) if lost_key => {
                losses.with_key += 1;
                continue;
            }
            Lost::Ended(..) if lost_retired => {
                losses.retired += 1;
                continue;
            }
            Lost::Ended(..)
                if said.is_none()
                    && !ended.contains(client)
                    // Where not even its beginning is in the log, its lines are among the lost.
                    && is_missing(&mut missing, |one| {
                        one.meets(*at) || !journal.knows(*client)
                    }) =>
            {
                losses.unlogged += 1;
                continue;
            }
            Lost::Ended(..) if !hit.contains(client) => " though no process of its was hit",
            Lost::Ended(..) if said.is_none() && !ended.contains(client) => {
                ", which the log does not explain"
            }
            Lost::Ended(..) => {
                losses.hit += 1;
                continue;
            }
        };
        let said = said.unwrap_or_default().trim_end().replace('\n', " / ");
        losses.bad.push(format!("{client}: {why}{fault} ({said})"));
    }
    losses
}

/// Takes one of the lines that are missing where they may be those, if there is one left.
fn is_missing(missing: &mut [Missing], may_be: impl Fn(&Missing) -> bool) -> bool {
    let one = missing.iter_mut().find(|one| one.lines > 0 && may_be(one));
    one.map(|one| one.lines -= 1).is_some()
}

fn verdict(
    way: Way,
    seen: &Seen,
    truth: &Truth<'_>,
    log: &Log,
    number: u64,
) -> Result<String, String> {
    let Losses {
        hit,
        with_key,
        retired,
        unlogged,
        bad,
    } = losses(seen, log);
    let served = seen.served.lock().unwrap();
    let faults = seen.faults.lock().unwrap();
    let Some((gap, hung)) = gaps(&served, &seen.hung.lock().unwrap()) else {
        return Err(format!("{}: nobody was served", way.name()));
    };
    let line = format!(
        "{}: {} faults on {number} connections: {} served, {} refused as they must be, {hit} lost \
         whose process was killed, {with_key} whose key was, \
         {retired} whose key process was that of before a reload, {unlogged} without a word in the \
         log while it lost lines; longest time without anybody served \
         {} ms ({} ms where the key master hung or nothing could be opened: {}), oldest thing served {} ms after it was \
         replaced; no process left",
        way.name(),
        faults.len(),
        served.len(),
        seen.refused.load(Ordering::Relaxed),
        gap.length().as_millis(),
        hung.length().as_millis(),
        hung.faults(&faults),
        truth.oldest().as_millis(),
    );
    if !bad.is_empty() {
        let told = bad.iter().take(TOLD).cloned().collect::<Vec<_>>();
        return Err(format!(
            "{line}; {} wrong: {}; the whole log: {}",
            bad.len(),
            told.join("; "),
            kept(way, log)
        ));
    }
    if gap.length() >= LONGEST_GAP || hung.length() >= LONGEST_HUNG {
        let ordinary = gap.faults(&faults);
        return Err(format!(
            "nobody was served for too long: {line}; without the key master: {ordinary}; the whole \
             log: {}",
            kept(way, log)
        ));
    }
    Ok(line)
}

/// Where the log of a run is from now on, or why it is nowhere.
fn kept(way: Way, log: &Log) -> String {
    let name = format!("soak-{}-{}.log", std::process::id(), way.word());
    let kept = std::env::temp_dir().join(name);
    fs::write(&kept, &log.text)
        .map_or_else(|error| error.to_string(), |()| kept.display().to_string())
}
