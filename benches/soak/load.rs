//! Plain load: many connections, many at once, by each way to TLS. None may be
//! lost, and the supervisor is to be at the end what it was at the beginning.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::client::{Client, Errand, Lost};
use crate::dice::Dice;
use crate::gauge::Gauge;
use crate::harness::{Place, Server};
use crate::journal::Journal;
use crate::options::Settings;
use crate::service::{self, Way};
use crate::{Bad, Outcome};

/// In how many stretches the load comes: the first warms up, then each is as
/// good as another.
const STRETCHES: u64 = 10;

/// A link to the keyholder is kept for a while when nobody has it.
const SPARE: usize = 2;

/// How many failures are told one by one.
const TOLD: usize = 5;

/// What the log says of a connection that a time limit of a program's ended.
const LIMITS: [&str; 2] = ["timed out after", "did not end the handshake in"];

/// An address of its own for each of sixteen million connections.
pub fn address(number: u64) -> Ipv4Addr {
    let [.., a, b, c] = (number % (1 << 22)).to_be_bytes();
    // Below 64: other parts have addresses above.
    Ipv4Addr::new(127, 1 + a, b, c)
}

pub fn run(settings: &Settings, seed: u64) -> Outcome {
    let each = |way| crate::caught(|| one_way(settings, seed, way));
    settings.ways.iter().copied().map(each).collect()
}

fn one_way(settings: &Settings, seed: u64, way: Way) -> Result<String, Bad> {
    let place = Place::new("soak-load");
    // A handshake may take as long as the client waits for a byte: a busy machine
    // is nothing that this part looks for.
    let server = service::setup(&place, way, settings.at_once)
        .options("-T 180")
        .start();
    let client = Client::new(None);
    let begin = Instant::now();
    let stretch = settings.connections.div_ceil(STRETCHES);
    let mut gauges = vec![Gauge::of(&server)];
    for number in 0..STRETCHES {
        let numbers = number * stretch..(number + 1) * stretch;
        stretch_of(&server, &client, way, settings.at_once, seed, numbers)?;
        server.quiet();
        let gauge = Gauge::of(&server);
        eprintln!(
            "soak: {}: {} connections, {:.0} s: memory {} KiB, descriptors {}",
            way.name(),
            (number + 1) * stretch,
            begin.elapsed().as_secs_f64(),
            gauge.memory,
            gauge.descriptors
        );
        gauges.push(gauge);
    }
    let time = begin.elapsed().as_secs_f64();
    let log = server.log();
    server.stop();
    // A keyholder that gets no processor time is not waited for, and nobody is
    // lost by it.
    let (slow, bad): (Vec<&str>, Vec<&str>) = log
        .lines()
        .partition(|line| line.contains("keyholder") && line.contains("; starting another"));
    if !bad.is_empty() {
        let log = begin_of(&bad.join("\n"));
        return Err(Bad::Lost(format!("{}: the log: {log}", way.name())));
    }
    flat(way, &gauges, stretch, time, slow.len()).map_err(Bad::Lost)
}

/// What fits into a line of the summary.
pub fn begin_of(log: &str) -> String {
    log.lines().take(TOLD).collect::<Vec<_>>().join(" / ")
}

/// So many connections at once until all of these numbers had theirs.
fn stretch_of(
    server: &Server,
    client: &Client,
    way: Way,
    at_once: usize,
    seed: u64,
    numbers: std::ops::Range<u64>,
) -> Result<(), Bad> {
    let next = AtomicU64::new(numbers.start);
    let lost = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    if let Err(why) = one(server, client, way, seed, number) {
                        lost.lock().unwrap().push((number, why));
                    }
                }
            });
        }
    });
    let lost = lost.into_inner().unwrap();
    if lost.is_empty() {
        return Ok(());
    }
    Err(told(way, numbers.end - numbers.start, &lost, &server.log()))
}

/// Tells what was lost from what a time limit ended, which the log knows, too.
fn told(way: Way, count: u64, lost: &[(u64, Lost)], log: &str) -> Bad {
    let journal = Journal::read(log);
    let was_late = |number: u64| {
        let said = journal.explanation(address(number)).unwrap_or_default();
        LIMITS.iter().any(|limit| said.contains(limit))
    };
    let (late, lost): (Vec<_>, Vec<_>) = lost
        .iter()
        .partition(|(number, why)| matches!(why, Lost::Late(_)) || was_late(*number));
    let first = if lost.is_empty() { &late } else { &lost };
    let first: Vec<String> = first
        .iter()
        .take(TOLD)
        .map(|(number, why)| format!("{}: {why}", address(*number)))
        .collect();
    let text = format!(
        "{}: of {count} connections {} lost, {} ended by a time limit: {}; the log: {}",
        way.name(),
        lost.len(),
        late.len(),
        first.join("; "),
        begin_of(log)
    );
    if lost.is_empty() {
        Bad::Late(text)
    } else {
        Bad::Lost(text)
    }
}

fn one(server: &Server, client: &Client, way: Way, seed: u64, number: u64) -> Result<(), Lost> {
    let mut dice = Dice::new(seed, number);
    let errand = Errand {
        at: server.at,
        way,
        from: address(number),
        name: "localhost",
        wants_tls: dice.once_in(2),
    };
    let served = client.begin(&errand, &mut dice)?;
    if served.mark != "none" {
        return Err(Lost::Wrong(format!("the mark {}", served.mark)));
    }
    let has_tls = way != Way::Delayed || errand.wants_tls;
    if served.certificate().is_some() != has_tls {
        return Err(Lost::Wrong("TLS, or none".to_owned()));
    }
    served.finish(&mut dice)
}

/// Compares the end with the beginning, once it was warm.
fn flat(
    way: Way,
    gauges: &[Gauge],
    stretch: u64,
    time: f64,
    slow: usize,
) -> Result<String, String> {
    let [_, first, second, .., before, last] = gauges else {
        return Err("too few stretches".to_owned());
    };
    #[allow(clippy::cast_precision_loss, reason = "a figure to read")]
    let each = |from: &Gauge, to: &Gauge| (to.time - from.time) as f64 / stretch as f64 / 1e3;
    let (early, late) = (each(first, second), each(before, last));
    let line = format!(
        "{}: {} connections, none lost, {time:.0} s; supervisor: memory {} -> {} KiB, \
         descriptors {} -> {}, {early:.0} -> {late:.0} us a connection; {slow} keyholders slow and \
         replaced; no process left",
        way.name(),
        stretch * STRETCHES,
        first.memory,
        last.memory,
        first.descriptors,
        last.descriptors,
    );
    // A busy machine takes its share of the time; a leak takes more each time.
    let grew = last.memory > first.memory + first.memory / 8 + 256
        || last.descriptors > first.descriptors + SPARE
        || (late > 2.0 * early && late - early > 200.0);
    if grew {
        return Err(format!("not flat: {line}"));
    }
    Ok(line)
}
