//! sslrulescheck's command line: as tcprulescheck's, it has an operand only.
#![forbid(unsafe_code)]

use super::Table;

/// No options.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options;

/// Operands of sslrulescheck(1).
pub const TABLE: Table<Options> = Table {
    program: "sslrulescheck",
    operands: "rules.cdb",
    least: 1,
    page: "sslrulescheck(1)",
    letters: &[],
};
