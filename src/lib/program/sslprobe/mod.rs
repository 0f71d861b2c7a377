//! sslprobe: see sslprobe(1).
//!
//! One process keeps order and prints; a process for each host connects and reads
//! what servers send, in a sandbox, as nobody.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::confine;
use crate::keyholder::OwnKey;
use crate::mta_sts::fetch;
use crate::options::sslprobe::{Options, TABLE};
use crate::probe::certificate::Verifier;
use crate::probe::report_text;
use crate::probe::result::{HostResult, Severity};
use crate::report::{Fail, Report, TEMPORARY};
use crate::settings::Settings;
use crate::store;
use crate::store::client::{self, Store, Trust};
use crate::store::pool::{self, AnchorPool};
use crate::sys::sandbox::Process;
use crate::sys::{socket, standard};
use crate::text;
use crate::tls_ffi;
use crate::tlsdestinations::Destinations;
use crate::trust::{Demand, Expectation};

pub mod destination;
mod lookup;
mod pacing;
mod progress;
mod scan;
mod scheduler;
mod turn;
mod worker;

use destination::{ProbeDestination, Unit};
use lookup::IpFamily;
use progress::{Progress, destinations};
use scan::Terms;
use scheduler::{Event, Scheduler};
use worker::{Compared, Setup};

/// The exit code where something was found that should be mended.
const FOUND: u8 = 1;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    tls_ffi::freed::take_over();
    // What fetches a policy is this program once more.
    if env::args_os().skip(1).eq([OsString::from(fetch::WORD)]) {
        return fetch::main();
    }
    TABLE.run(|report| {
        let (options, operands) = TABLE.parse(env::args_os().skip(1))?;
        let units = units(&options, &operands)?;
        lookup::check(&units)?;
        let setup = setup(report, &options)?;
        progress::announce(report, &options, &units, setup.families.len());
        let mut output = Output::new(&options, Progress::new(report, destinations(&units)));
        Scheduler::new(&setup, &options, units).run(|event| output.take(event))?;
        Ok(output.code())
    })
}

/// The destinations of the command line and of standard input.
fn units(options: &Options, operands: &[OsString]) -> Result<Vec<Unit>, Fail> {
    let mut destinations: Vec<ProbeDestination> = Vec::new();
    let mut add = |word: &str, place: &str| -> Result<(), Fail> {
        let one = destination::parse(word, options);
        destinations.push(one.map_err(|why| TABLE.usage(format!("{place}{why}")))?);
        Ok(())
    };
    for word in operands {
        if word == "-" {
            let mut text = String::new();
            standard::input()
                .and_then(|mut given| given.read_to_string(&mut text))
                .map_err(Fail::unable("read standard input"))?;
            for (at, line) in text.lines().enumerate() {
                let line = line.trim();
                if !line.is_empty() {
                    add(line, &format!("line {}: ", at + 1))?;
                }
            }
        } else {
            // What is no text is refused, in words that can be shown.
            let shown = || text::printable(word.as_bytes());
            add(&word.to_str().map_or_else(shown, str::to_owned), "")?;
        }
    }
    if destinations.is_empty() {
        return Err(TABLE.usage("no destination"));
    }
    Ok(destination::units(destinations, options.domains))
}

/// Everything that is read before the first process is made.
fn setup(report: &Report, options: &Options) -> Result<Setup, Fail> {
    confine::check(Process::Remote)?;
    let internal = |error: openssl::error::ErrorStack| {
        Fail::temporary(format!(
            "unable to create SSL context: {}",
            crate::report::tls_reason(&error)
        ))
    };
    let anchors = match &options.anchor_file {
        Some(path) => AnchorPool::of_file(("-a", path))?,
        None => system_anchors(report),
    };
    let compared = options.destinations.as_deref().map(|path| {
        Ok::<_, Fail>(Compared {
            destinations: compared(path)?,
            // Whatever -a says: a delivery knows nothing of it.
            anchors: match options.anchor_file {
                Some(_) => pool::of_system().pool,
                None => anchors.clone(),
            },
        })
    });
    let compared = compared.transpose()?;
    Ok(Setup {
        terms: Terms {
            depth: options.depth,
            name: options
                .name
                .clone()
                .or_else(socket::host_name)
                .unwrap_or_else(unnamed),
            connection: Duration::from_secs(options.connection_seconds.into()),
            host: Duration::from_secs(options.host_seconds.into()),
            interval: options.interval,
            anchor_file: options.anchor_file.as_deref().map(whole_path),
            policies: Store::load(&Settings::default(), &policies(&anchors), &NO_KEY)?,
            judge: Verifier::new(anchors).map_err(internal)?,
            records: Store::load(&Settings::default(), &records(), &NO_KEY)?,
        },
        families: match (options.four, options.six) {
            (false, false) => vec![IpFamily::Any],
            (true, false) => vec![IpFamily::Four],
            (false, true) => vec![IpFamily::Six],
            (true, true) => vec![IpFamily::Four, IpFamily::Six],
        },
        compared,
    })
}

/// The system's CAs, with a word where that is not what was meant: each partner would be
/// told that a certificate does not verify.
fn system_anchors(report: &Report) -> AnchorPool {
    let found = pool::of_system();
    let is_named = env::var_os("SSL_CERT_FILE").is_some_and(|path| !path.is_empty());
    if let (true, Err(fail)) = (is_named, found.file) {
        report.warning(format_args!("{fail}"));
    }
    if found.pool.is_empty() {
        report.warning(
            "no CA is known, so that no certificate will verify; install ca-certificates, or \
             name a file with -a",
        );
    }
    found.pool
}

fn unnamed() -> String {
    "localhost".to_owned()
}

/// The rules that `-P` names.
fn compared(path: &Path) -> Result<Destinations, Fail> {
    let destinations = Destinations::open(path)?;
    if destinations.is_missing() {
        let shown = store::shown(path);
        return Err(Fail::temporary(format!(
            "unable to read {shown}: there is no such file"
        )));
    }
    Ok(destinations)
}

/// A path that means the same in any directory.
fn whole_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A probe shows no certificate of its own.
const NO_KEY: OwnKey = OwnKey::NONE;

/// What is verified where a policy of MTA-STS asks for it.
fn policies(anchors: &AnchorPool) -> client::Setup<'_> {
    client::Setup {
        trust: Trust::Pool(anchors),
        expectation: Expectation {
            demand: Demand::Name,
            ..Expectation::default()
        },
        ..records()
    }
}

/// What is verified where TLSA records take the place of anchors.
fn records() -> client::Setup<'static> {
    client::Setup {
        trust: Trust::Nobody,
        certificate: None,
        depth: None,
        expectation: Expectation::default(),
        anonymous: false,
        ciphers_from: "ciphers",
        lines: (None, None),
    }
}

/// What comes out, and what it comes to.
struct Output<'a> {
    json: bool,
    colour: bool,
    progress: Progress<'a>,
    printed: usize,
    found: usize,
    reached: bool,
}

impl<'a> Output<'a> {
    fn new(options: &Options, progress: Progress<'a>) -> Output<'a> {
        let dumb = env::var_os("TERM").is_some_and(|word| word == "dumb");
        let plain = dumb || env::var_os("NO_COLOR").is_some_and(|word| !word.is_empty());
        Output {
            json: options.json,
            colour: !plain && standard::three().1.is_terminal(),
            progress,
            printed: 0,
            found: 0,
            reached: false,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Fail> {
        match event {
            Event::Result(result) => self.print(&result),
            Event::Over(count) => {
                self.progress.advance(count, self.found);
                Ok(())
            }
        }
    }

    /// Prints a result.
    fn print(&mut self, result: &HostResult) -> Result<(), Fail> {
        self.reached |= result.listens;
        self.found += usize::from(
            result
                .findings
                .iter()
                .any(|one| one.severity < Severity::Note),
        );
        let text = if self.json {
            let line = result.to_json();
            line.map_err(|error| Fail::temporary(format!("unable to write JSON: {error}")))? + "\n"
        } else if self.printed > 0 {
            format!("\n{}", report_text::report(result, self.colour))
        } else {
            report_text::report(result, self.colour)
        };
        self.printed += 1;
        self.progress.clear();
        standard::write(text.as_bytes()).map_err(|error| scheduler::unwritable(&error))
    }

    /// 0: all well; 1: findings; 111: nothing was reached.
    fn code(&self) -> u8 {
        match (self.reached, self.found) {
            (false, _) => TEMPORARY,
            (true, 0) => 0,
            (true, _) => FOUND,
        }
    }
}
