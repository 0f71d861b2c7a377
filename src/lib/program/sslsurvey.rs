//! sslsurvey: see sslsurvey(1).
#![forbid(unsafe_code)]

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use serde::Serialize;

use crate::options::sslsurvey::{Format, Options, TABLE};
use crate::probe::result::HostResult;
use crate::report::{Fail, Report};
use crate::survey::changes::{self, Run};
use crate::survey::factors::{self, Moduli, Pair};
use crate::survey::table::{self, Layout};
use crate::survey::{Collector, Survey, chart, reader};
use crate::sys::standard;
use crate::text;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(|report| {
        let (options, files) = TABLE.parse(env::args_os().skip(1))?;
        if options.factors && !factors::AVAILABLE {
            let why = "-k: this build has no libgmp, which finds common factors";
            return Err(Fail::temporary(why));
        }
        let (answer, survey) = match files.as_slice() {
            [] => sum_up(report, &options, OsStr::new("-"))?,
            [results] => sum_up(report, &options, results)?,
            [old, new] => compare(report, &options, old, new)?,
            _ => return Err(TABLE.usage("too many arguments")),
        };
        if let Some(path) = &options.chart {
            let step = format!(
                "write {}",
                text::printable(path.as_os_str().as_encoded_bytes())
            );
            fs::write(path, chart::svg(&survey.tally)).map_err(Fail::unable(step))?;
        }
        standard::write(answer.as_bytes()).map_err(Fail::unable("write output"))?;
        Ok(0)
    })
}

/// The tables of one run.
fn sum_up(report: &Report, options: &Options, path: &OsStr) -> Result<(String, Survey), Fail> {
    let mut study = Study::new(options);
    read(report, path, |result| study.add(result))?;
    let survey = study.finish(report);
    let answer = match options.format {
        Format::Json => json(&survey)?,
        Format::Markdown => table::survey(&survey, Layout::Markdown),
        Format::Plain => table::survey(&survey, Layout::Plain),
    };
    Ok((answer, survey))
}

/// What the later run has that the earlier one had not, and the other way round. The
/// chart, and the moduli of `-k`, are the later one's.
fn compare(
    report: &Report,
    options: &Options,
    old: &OsString,
    new: &OsString,
) -> Result<(String, Survey), Fail> {
    let (mut then, mut now) = (Run::default(), Run::default());
    read(report, old, |result| then.add(result))?;
    let mut study = Study::new(options);
    read(report, new, |result| {
        now.add(result);
        study.add(result);
    })?;
    let survey = study.finish(report);
    let changes = changes::compare(&then, &now);
    let pairs = survey.common_factors.as_deref();
    let answer = match options.format {
        Format::Json => json(&Comparison {
            changes: &changes,
            common_factors: pairs,
        })?,
        Format::Markdown => table::changes(&changes, pairs, Layout::Markdown),
        Format::Plain => table::changes(&changes, pairs, Layout::Plain),
    };
    Ok((answer, survey))
}

/// A comparison as JSON.
#[derive(Serialize)]
struct Comparison<'a> {
    #[serde(flatten)]
    changes: &'a changes::Changes,
    #[serde(skip_serializing_if = "Option::is_none")]
    common_factors: Option<&'a [Pair]>,
}

/// One run that is summed up.
struct Study {
    collector: Collector,
    /// Under `-k`.
    moduli: Option<Moduli>,
}

impl Study {
    fn new(options: &Options) -> Study {
        Study {
            collector: Collector::default(),
            moduli: options.factors.then(Moduli::default),
        }
    }

    fn add(&mut self, result: &HostResult) {
        self.collector.add(result);
        if let Some(moduli) = &mut self.moduli {
            moduli.add(result);
        }
    }

    fn finish(self, report: &Report) -> Survey {
        let compared = self.moduli.map(Moduli::compared);
        if let Some(part) = compared.as_ref().filter(|all| !all.is_whole) {
            report.warning(format_args!(
                "-k: {} keys have a prime in common with others, too many to compare each two of \
                 them: {} pairs are named",
                part.weak,
                part.pairs.len()
            ));
        }
        self.collector.finish(compared.map(|all| all.pairs))
    }
}

/// Reads the results of a file, or of standard input where its name is `-`. A bad
/// line is told and skipped.
fn read(report: &Report, path: &OsStr, mut take: impl FnMut(&HostResult)) -> Result<(), Fail> {
    let name = match path.as_bytes() {
        b"-" => "standard input".to_owned(),
        path => text::name(path, 300),
    };
    let input: Box<dyn BufRead> = if path == "-" {
        let given = standard::input().map_err(Fail::unable(format!("read {name}")))?;
        Box::new(given.lock())
    } else {
        let file = File::open(path).map_err(Fail::unable(format!("open {name}")))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let mut count = 0_u64;
    reader::read(
        input,
        |result| {
            count += 1;
            take(&result);
        },
        |number, why| {
            let why = text::excerpt(why.as_bytes(), 200);
            report.warning(format_args!("{name}: line {number} is skipped: {why}"));
        },
    )
    .map_err(Fail::unable(format!("read {name}")))?;
    if count == 0 {
        return Err(Fail::temporary(format!(
            "{name}: no result of sslprobe -j in it"
        )));
    }
    Ok(())
}

/// One line of JSON.
fn json(answer: &impl Serialize) -> Result<String, Fail> {
    let line = serde_json::to_string(answer);
    let line = line.map_err(|error| Fail::from(error.to_string()).of("unable to write JSON"))?;
    Ok(line + "\n")
}
