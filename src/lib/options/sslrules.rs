//! sslrules' command line: as tcprules', it has operands only.
#![forbid(unsafe_code)]

use super::Table;

/// No options.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options;

/// Operands of sslrules(1).
pub const TABLE: Table<Options> = Table {
    program: "sslrules",
    operands: "rules.cdb rules.tmp",
    least: 2,
    letters: &[],
};
