//! How long a large run may take, told beforehand, and how far it is, shown on a
//! terminal.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use super::destination::Unit;
use crate::options::sslprobe::Options;
use crate::report::Report;

/// From so many destinations on, how long it may take is said beforehand.
const MANY: usize = 10;

/// Says before a large run how long it may take. Under `-4 -6` each destination
/// is probed `families` times.
pub(super) fn announce(report: &Report, options: &Options, units: &[Unit], families: usize) {
    let hosts = destinations(units);
    if hosts < MANY {
        return;
    }
    report.notice(format_args!(
        "{hosts} destinations, at most {} handshakes each, {} at once: this takes up to {}, longer \
         where servers are slow",
        handshakes(options, families),
        options.limit,
        duration(expected(options, units, families))
    ));
}

/// How many destinations there are.
pub(super) fn destinations(units: &[Unit]) -> usize {
    units.iter().map(|unit| unit.destinations.len()).sum()
}

/// The most handshakes for one destination.
fn handshakes(options: &Options, families: usize) -> u32 {
    options.depth.handshakes().saturating_mul(number(families))
}

/// How long the pauses of `-i` and the rate of `-r` make a run at most; a second
/// at least.
fn expected(options: &Options, units: &[Unit], families: usize) -> Duration {
    let all = number(destinations(units)).saturating_mul(handshakes(options, families));
    let at_once = number(options.limit.min(units.len()).max(1));
    let by_pauses = options.interval.saturating_mul(all.div_ceil(at_once));
    let by_rate = Duration::from_secs(u64::from(all.div_ceil(options.rate.max(1))));
    by_pauses.max(by_rate).max(Duration::from_secs(1))
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// `2 h 27 min`, `3 min 10 s`, `5 s`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The line that shows how far a run is: on a terminal, with several destinations.
pub(super) struct Progress<'a> {
    report: &'a Report,
    is_shown: bool,
    all: usize,
    done: usize,
    begin: Instant,
}

impl<'a> Progress<'a> {
    /// Nothing of `all` destinations is done yet.
    pub(super) fn new(report: &'a Report, all: usize) -> Progress<'a> {
        let progress = Progress {
            report,
            is_shown: all > 1 && io::stderr().is_terminal(),
            all,
            done: 0,
            begin: Instant::now(),
        };
        progress.show(0);
        progress
    }

    /// So many destinations more are done; `found` results have findings.
    pub(super) fn advance(&mut self, count: usize, found: usize) {
        self.done += count;
        self.show(found);
    }

    /// Takes the line away, for what is to stand in its place.
    pub(super) fn clear(&self) {
        if self.is_shown {
            self.report.progress("");
        }
    }

    fn show(&self, found: usize) {
        if !self.is_shown || self.done >= self.all {
            return;
        }
        let time = match number(self.done) {
            0 => String::new(),
            done => {
                let each = self.begin.elapsed() / done;
                let left = each.saturating_mul(number(self.all - self.done));
                format!(", {} left", duration(left))
            }
        };
        self.report.progress(&format!(
            "{}/{} done, {found} with findings{time}",
            self.done, self.all
        ));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::destination;
    use super::*;
    use crate::options::sslprobe::Depth;

    fn units(words: &[String], options: &Options) -> Vec<Unit> {
        let all = words.iter().map(|word| destination::parse(word, options));
        let all = all.collect::<Result<Vec<_>, _>>().expect("sound");
        destination::units(all, false)
    }

    #[test]
    fn the_slower_of_pauses_and_rate_tells_how_long_a_run_takes() {
        let hosts: Vec<String> = (0..20).map(|at| format!("mx{at}.example")).collect();
        let ports: Vec<String> = (1..=20).map(|port| format!("mx.example:{port}")).collect();
        for (words, limit, interval, rate, families, seconds) in [
            (&hosts, 1, 1.0, 10, 1, 20 * 24),
            (&hosts, 4, 1.0, 10, 1, 5 * 24),
            (&hosts, 20, 1.0, 10, 1, 48),
            (&hosts, 4, 1.0, 10, 2, 5 * 48),
            (&hosts, 4, 0.0, 10, 1, 48),
            // More at once than there are do not make it faster,
            (&hosts, 100, 2.0, 1000, 1, 48),
            // and one host's ports are probed one after the other.
            (&ports, 20, 1.0, 1000, 1, 20 * 24),
            (&hosts, 20, 0.0, 100_000, 1, 1),
        ] {
            let options = Options {
                limit,
                interval: Duration::from_secs_f64(interval),
                rate,
                ..Options::default()
            };
            let found = expected(&options, &units(words, &options), families);
            assert_eq!(found.as_secs(), seconds, "{limit} {interval} {rate}");
        }
        let options = Options {
            depth: Depth::Quick,
            ..Options::default()
        };
        assert_eq!(
            expected(&options, &units(&hosts, &options), 1).as_secs(),
            160
        );
    }

    #[test]
    fn times_are_told_as_people_say_them() {
        for (seconds, text) in [(5, "5 s"), (190, "3 min 10 s"), (8820, "2 h 27 min")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
