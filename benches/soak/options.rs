//! The command line: which parts run, and for how long.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::service::Way;

/// A part of the soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Deliveries,
    Faults,
    Load,
    Slow,
    Straits,
}

impl Part {
    /// In the order in which they run.
    pub const ALL: [Part; 5] = [
        Part::Load,
        Part::Faults,
        Part::Straits,
        Part::Deliveries,
        Part::Slow,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Deliveries => "deliveries",
            Part::Faults => "faults",
            Part::Load => "load",
            Part::Slow => "slow",
            Part::Straits => "straits",
        }
    }
}

/// How much of everything.
pub struct Settings {
    /// None: all of them.
    pub parts: Vec<Part>,
    /// Ways to TLS of the load and of the faults.
    pub ways: Vec<Way>,
    /// Connections of the plain load, by each way to TLS.
    pub connections: u64,
    /// How many of them there are at one time.
    pub at_once: usize,
    /// How many mails are delivered.
    pub mails: u64,
    /// How long faults rain, for each way.
    pub rain: Duration,
    pub seed: Option<u64>,
}

/// Options with a word, and whether they may be repeated. What they mean stands at
/// the head of package/soak.
const WORDS: [(&str, bool); 7] = [
    ("only", true),
    ("way", true),
    ("connections", false),
    ("at-once", false),
    ("mails", false),
    ("rain", false),
    ("seed", false),
];

fn letters() -> getopts::Options {
    let mut letters = getopts::Options::new();
    for (name, many) in WORDS {
        let described = format!("\n#   --{name} ");
        assert!(SCRIPT.contains(&described), "package/soak has no --{name}");
        if many {
            letters.optmulti("", name, "", "");
        } else {
            letters.optopt("", name, "", "");
        }
    }
    letters
        .optflag("h", "help", "")
        // Cargo says that this is a benchmark run.
        .optflag("", "bench", "");
    letters
}

const SCRIPT: &str = include_str!("../../package/soak");

/// The head of the script.
pub fn usage() -> String {
    let lines = SCRIPT.lines().skip(1);
    let lines = lines.map_while(|line| line.strip_prefix('#'));
    lines
        .flat_map(|line| [line.strip_prefix(' ').unwrap_or(line), "\n"])
        .collect()
}

/// `None` where only the usage was asked for.
pub fn settings(words: &[String]) -> Result<Option<Settings>, String> {
    let found = letters().parse(words).map_err(|why| why.to_string())?;
    if found.opt_present("help") {
        return Ok(None);
    }
    if let Some(word) = found.free.first() {
        return Err(format!("{word}: no such option"));
    }
    let number = |name: &str, usual: u64| match found.opt_str(name) {
        None => Ok(usual),
        Some(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("--{name} {text}: not a number from 1")),
        },
    };
    let parts: Result<Vec<Part>, String> = found
        .opt_strs("only")
        .iter()
        .map(|word| {
            let part = Part::ALL.into_iter().find(|part| part.name() == word);
            part.ok_or_else(|| format!("--only {word}: no such part"))
        })
        .collect();
    let ways: Result<Vec<Way>, String> = found
        .opt_strs("way")
        .iter()
        .map(|word| {
            let way = Way::ALL.into_iter().find(|way| way.word() == word);
            way.ok_or_else(|| format!("--way {word}: no such way"))
        })
        .collect();
    let ways = match ways? {
        none if none.is_empty() => Way::ALL.to_vec(),
        some => some,
    };
    let seed = found.opt_present("seed").then(|| number("seed", 1));
    Ok(Some(Settings {
        parts: parts?,
        ways,
        connections: number("connections", 5000)?,
        at_once: usize::try_from(number("at-once", 100)?).map_err(|why| why.to_string())?,
        mails: number("mails", 300)?,
        rain: Duration::from_secs(number("rain", 30)?),
        seed: seed.transpose()?,
    }))
}
