//! `mutate TARGET SECONDS [SEED]` runs a target on mutated seeds, with any
//! toolchain. It follows no coverage, so it finds less than libFuzzer; but it
//! needs nothing, and says how many inputs it tried. An input that breaks a
//! promise is left in the file `broken-input`.
//!
//! `mutate TARGET seeds DIRECTORY` writes the seeds, a corpus for libFuzzer.
//!
//! `mutate TARGET long` runs the target on inputs of 200,000 bytes, each a seed in which
//! one piece is repeated, and says how long the slowest took: what looks at each byte
//! again for each byte takes minutes.
#![forbid(unsafe_code)]

use std::panic;
use std::time::{Duration, Instant};

use ucspi_tls_fuzz::{TARGETS, Target};

/// Xorshift (Marsaglia 2003): the same inputs for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or_default()
    }
}

const WORDS: &[&[u8]] = &[
    b":",
    b",",
    b"=",
    b"@",
    b"-",
    b"/",
    b".",
    b"#",
    b"\n",
    b"\"",
    b"allow",
    b"deny",
    b"local=",
    b"sni=",
    b"*.",
    b"::",
    b"::ffff:",
    b"0",
    b"255",
    b"D\0",
    b"+A=\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\0\x08\0\0",
    b"\r\n",
    b"\r",
    b" ",
    b".\r\n",
    b"AUTH ",
    b"DATA\r\n",
    b"EHLO x\r\n",
    b"STARTTLS\r\n",
    b"{3}\r\n",
    b"{3+}\r\n",
    b"a LOGIN ",
];

fn mutate(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[dice.below(seeds.len())].clone();
    if dice.below(256) == 0 && !input.is_empty() {
        let from = dice.below(input.len());
        let to = (from + 1 + dice.below(40)).min(input.len());
        input = stretched(&input, from, to);
    }
    for _ in 0..=dice.below(6) {
        let at = dice.below(input.len() + 1);
        let end = (at + dice.below(9)).min(input.len());
        match dice.below(6) {
            0 => drop(input.splice(at..at, WORDS[dice.below(WORDS.len())].iter().copied())),
            1 => drop(input.splice(at..end, WORDS[dice.below(WORDS.len())].iter().copied())),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(40)).min(other.len());
                drop(input.splice(at..at, other[from..to].iter().copied()));
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = u8::try_from(dice.below(256)).unwrap_or_default();
                }
            }
        }
    }
    input
}

/// How long inputs get. Files and replies are read up to more; ten times as long
/// in a hundred times the time is seen here.
const LONG: usize = 200_000;

/// A seed in which a piece is repeated until the whole is long.
fn stretched(seed: &[u8], from: usize, to: usize) -> Vec<u8> {
    let (piece, behind) = (&seed[from..to], &seed[to..]);
    let count = LONG.saturating_sub(seed.len()) / piece.len().max(1);
    [&seed[..to], &piece.repeat(count), behind].concat()
}

/// The pieces of a seed that are repeated: each line, each word, each byte that is new.
fn pieces(seed: &[u8]) -> Vec<(usize, usize)> {
    let mut found = vec![(0, seed.len())];
    for end in [&b"\n"[..], b" ", b",", b".", b";", b"\0"] {
        let mut from = 0;
        let parts = seed.split_inclusive(|byte| end.contains(byte));
        found.extend(parts.map(|part| {
            from += part.len();
            (from - part.len(), from)
        }));
    }
    let bytes = (0..seed.len()).filter(|&at| !seed[..at].contains(&seed[at]));
    found.extend(bytes.map(|at| (at, at + 1)));
    found.sort_unstable();
    found.dedup_by_key(|(from, to)| seed[*from..*to].to_vec());
    found.retain(|(from, to)| from < to);
    found
}

/// The slowest of a target's long inputs.
fn long(target: &Target) {
    let mut slowest = (Duration::ZERO, Vec::new());
    let mut runs = 0;
    for seed in (target.seeds)() {
        for (from, to) in pieces(&seed) {
            let input = stretched(&seed, from, to);
            let start = Instant::now();
            attempt(target, &input, runs);
            slowest = slowest.max((start.elapsed(), seed[from..to].to_vec()));
            runs += 1;
        }
    }
    let (time, piece) = slowest;
    let piece = &piece[..piece.len().min(40)];
    println!(
        "{}: {runs} long inputs, the slowest of \"{}\" in {} ms",
        target.name,
        piece.escape_ascii(),
        time.as_millis()
    );
}

/// Runs an input; where it breaks a promise it is kept, and that was all.
fn attempt(target: &Target, input: &[u8], runs: u64) {
    if panic::catch_unwind(|| (target.run)(input)).is_err() {
        if let Err(error) = std::fs::write("broken-input", input) {
            eprintln!("mutate: unable to write broken-input: {error}");
        }
        eprintln!(
            "mutate: {} broke after {runs} inputs; see broken-input",
            target.name
        );
        std::process::exit(111);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    let target = TARGETS
        .iter()
        .find(|target| arguments.first().is_some_and(|name| name == target.name));
    if let (Some(target), [_, word]) = (target, &*arguments) {
        if word == "long" {
            return long(target);
        }
    }
    if let (Some(target), [_, word, directory]) = (target, &*arguments) {
        if word == "seeds" {
            for (at, seed) in (target.seeds)().iter().enumerate() {
                if let Err(error) = std::fs::write(format!("{directory}/seed{at}"), seed) {
                    eprintln!("mutate: unable to write to {directory}: {error}");
                    std::process::exit(111);
                }
            }
            return;
        }
    }
    let (Some(target), Some(seconds)) = (target, number(1)) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("mutate: usage: mutate {} seconds [ seed ]", names.join("|"));
        std::process::exit(100);
    };
    let mut dice = Dice(number(2).unwrap_or(1).max(1));
    let seeds = (target.seeds)();
    for seed in &seeds {
        (target.run)(seed);
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs: u64 = 0;
    while Instant::now() < end {
        for _ in 0..256 {
            let input = mutate(&mut dice, &seeds);
            attempt(target, &input, runs);
            runs += 1;
        }
    }
    println!("{}: {runs} inputs in {seconds} s", target.name);
}
