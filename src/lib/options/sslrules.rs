//! sslrules' command line: as tcprules', but for `-t`.
#![forbid(unsafe_code)]

use super::Letter::Flag;
use super::Table;

/// The options, with their defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `-t`: the text is tlsdestinations, not rules.
    pub destinations: bool,
}

/// Letters and operands of sslrules(1).
pub const TABLE: Table<Options> = Table {
    program: "sslrules",
    operands: "rules.cdb rules.tmp",
    least: 2,
    page: "sslrules(1)",
    letters: &[('t', Flag(|o| o.destinations = true))],
};
