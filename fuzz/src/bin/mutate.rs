//! `mutate TARGET SECONDS [SEED]` runs a target on mutated seeds, with any
//! toolchain. It follows no coverage, so it finds less than libFuzzer; but it
//! needs nothing, and says how many inputs it tried. An input that breaks a
//! promise is left in the file `broken`.
//!
//! `mutate TARGET seeds DIRECTORY` writes the seeds, a corpus for libFuzzer.
#![forbid(unsafe_code)]

use std::panic;
use std::time::{Duration, Instant};

use ucspi_tls_fuzz::TARGETS;

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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    let target = TARGETS
        .iter()
        .find(|target| arguments.first().is_some_and(|name| name == target.name));
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
            if panic::catch_unwind(|| (target.run)(&input)).is_err() {
                if let Err(error) = std::fs::write("broken", &input) {
                    eprintln!("mutate: unable to write broken: {error}");
                }
                eprintln!(
                    "mutate: {} broke after {runs} inputs; see broken",
                    target.name
                );
                std::process::exit(111);
            }
            runs += 1;
        }
    }
    println!("{}: {runs} inputs in {seconds} s", target.name);
}
