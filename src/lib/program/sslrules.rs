//! sslrules: see sslrules(1).
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use crate::options::sslrules::TABLE;
use crate::report::{Fail, Report};
use crate::settings::{self, Judged};
use crate::sys::standard;
use crate::{rules, rulesdb, text, tlsdestinations};

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(|report| {
        let (options, operands) = TABLE.parse(std::env::args_os().skip(1))?;
        let [cdb, temporary] = operands.as_slice() else {
            // Most likely the text's name without `<`: do not wait for input.
            return Err(TABLE.usage("too many arguments"));
        };
        if cdb == temporary {
            return Err(TABLE.usage("rules.cdb and rules.tmp must be two files"));
        }
        // All of it first: a bad text leaves no temporary file behind.
        let mut input = Vec::new();
        standard::input()
            .and_then(|mut given| given.read_to_end(&mut input))
            .map_err(Fail::unable("read input"))?;
        if options.destinations {
            let records =
                tlsdestinations::compile(&input).map_err(|bad| every_line(report, &bad))?;
            let records = records.iter().map(|(key, data)| (&**key, &**data));
            rulesdb::replace(Path::new(cdb), Path::new(temporary), records)?;
            return Ok(0);
        }
        let compiled = rules::compile(&input).map_err(|bad| every_line(report, &bad))?;
        for remark in &compiled.remarks {
            report.warning(remark);
        }
        for (line, name) in &compiled.by_server_name {
            let name = text::printable(name);
            if settings::is_of_the_process(&name) {
                let why = settings::TOO_LATE;
                return Err(Fail::never(format!("line {line}: {name} {why}")));
            }
        }
        let mut judged = Judged::default();
        for (line, name) in &compiled.names {
            if let Some(misspelt) = judged.find(name) {
                report.warning(format_args!("line {line}: variable {misspelt}"));
            }
        }
        let records = compiled.records.iter();
        let records = records.map(|record| (&*record.key, &*record.data));
        if let Some(what) = rulesdb::too_large(records.clone()) {
            let cdb = text::printable(cdb.as_encoded_bytes());
            return Err(Fail::never(format!(
                "{cdb} would be {what}, and sslserver reads no such rules"
            )));
        }
        rulesdb::replace(Path::new(cdb), Path::new(temporary), records)?;
        Ok(0)
    })
}

/// Names every wrong line; the last one ends the program.
fn every_line(report: &Report, bad: &[impl ToString]) -> Fail {
    let mut lines = bad.iter().map(|line| Fail::never(line.to_string()));
    let last = lines.next_back();
    lines.for_each(|line| report.fatal(&line));
    last.unwrap_or_else(|| Fail::never("every line is wrong"))
}
