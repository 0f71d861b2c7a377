//! sslreport's command line.
#![forbid(unsafe_code)]

use super::Letter::Flag;
use super::Table;

/// The options, with their defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-n`: print what would be sent, and send nothing.
    pub print: bool,
}

/// Letters and operands of sslreport(8).
pub const TABLE: Table<Options> = Table {
    program: "sslreport",
    operands: "[ prog ] [ args ]",
    least: 0,
    page: "sslreport(8)",
    letters: &[('n', Flag(|o| o.print = true))],
};
