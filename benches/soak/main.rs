//! Load that goes on: does the server lose a connection, a byte or memory, and
//! is anything wrong ever served? `package/soak` runs it, for minutes or for
//! hours; it says what it counted, and fails where something was lost.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "tests have threads")]
#![allow(clippy::too_many_lines, reason = "a table may be long")]
#![allow(
    clippy::incompatible_msrv,
    reason = "rust-version is that of the programs"
)]
// What the harness makes fails as a test does, and ends the part that it is in.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::doc_markdown)]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, missing_docs)]

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

#[path = "../../tests/it/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the tests use the rest of it"
)]
mod harness;

mod client;
mod deliveries;
mod dice;
mod faults;
mod gauge;
mod instruments;
mod journal;
mod load;
mod mood;
mod options;
mod service;
mod slow;
#[allow(dead_code, reason = "the tests use the rest of it")]
mod sslremote;
mod straits;
mod truth;

use options::{Part, Settings};

/// What a part found, by way or kind: figures, or what was lost.
pub type Outcome = Vec<Result<String, Bad>>;

/// What must not be.
#[derive(Debug)]
pub enum Bad {
    /// Something was lost, or wrong.
    Lost(String),
    /// Nothing was lost but by a time limit, the soak's own or a server's: on a
    /// machine that is too busy that says nothing of the programs.
    Late(String),
}

impl From<String> for Bad {
    fn from(what: String) -> Bad {
        Bad::Lost(what)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let settings = match options::settings(&words) {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            print!("{}", options::usage());
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("soak: usage: {why}\n{}", options::usage());
            return ExitCode::from(100);
        }
    };
    let seed = settings.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |time| u64::from(time.subsec_nanos()) + time.as_secs())
    });
    eprintln!("soak: --seed {seed}");
    let begin = Instant::now();
    let mut lines = Vec::new();
    let (mut lost, mut late) = (0, 0);
    for part in Part::ALL {
        if !settings.parts.is_empty() && !settings.parts.contains(&part) {
            continue;
        }
        eprintln!("soak: {} ...", part.name());
        for found in run(part, &settings, seed) {
            let (word, text) = match &found {
                Ok(figures) => ("ok  ", figures),
                Err(Bad::Late(why)) => ("LATE", why),
                Err(Bad::Lost(why)) => ("LOST", why),
            };
            lost += u32::from(matches!(found, Err(Bad::Lost(_))));
            late += u32::from(matches!(found, Err(Bad::Late(_))));
            let line = format!("{word}  {}: {text}", part.name());
            eprintln!("soak: {line}");
            lines.push(line);
        }
    }
    for line in &lines {
        println!("{line}");
    }
    let verdict = match (lost, late) {
        (0, 0) => "ok",
        (0, _) => "late",
        _ => "lost",
    };
    println!(
        "soak: {verdict}: {lost} of {} lost something, {late} met a time limit alone; {} s, --seed {seed}",
        lines.len(),
        begin.elapsed().as_secs()
    );
    ExitCode::from(u8::from(lost + late > 0))
}

fn run(part: Part, settings: &Settings, seed: u64) -> Outcome {
    match part {
        Part::Deliveries => deliveries::run(settings, seed),
        Part::Faults => faults::run(settings, seed),
        Part::Load => load::run(settings, seed),
        Part::Slow => slow::run(settings, seed),
        Part::Straits => straits::run(settings, seed),
    }
}

/// What a run found.
///
/// # Errors
/// What it found wrong, or panicked with where the harness did.
pub fn caught<E: Into<Bad>>(body: impl FnOnce() -> Result<String, E>) -> Result<String, Bad> {
    let done = panic::catch_unwind(AssertUnwindSafe(|| body().map_err(E::into)));
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(Bad::Lost(text.unwrap_or_else(|| "a panic".to_owned())))
    })
}
