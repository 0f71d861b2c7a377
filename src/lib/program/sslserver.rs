//! sslserver: see sslserver(1).
#![forbid(unsafe_code)]

use std::process::ExitCode;

use crate::options::sslserver::TABLE;
use crate::report;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    report::run(TABLE.program, |report| {
        let (options, _operands) = TABLE.parse(std::env::args_os().skip(1))?;
        report.verbosity = options.common.verbosity;
        Err(report::Fail::temporary("not built yet"))
    })
}
