//! starttls-handoff's command line.
#![forbid(unsafe_code)]

use super::Letter::{Flag, Value};
use super::{LONGEST, Table, keep, set};
use crate::report::Verbosity;

/// The options, with their defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// `-q -Q -v`.
    pub verbosity: Verbosity,
    /// `-a`: passwords may pass in the clear.
    pub allow_clear: bool,
    /// `-l`: host name for greetings of its own.
    pub local_name: Option<String>,
    /// `-t`: seconds without a byte in the plaintext phase.
    pub idle_seconds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verbosity: Verbosity::default(),
            allow_clear: false,
            local_name: None,
            idle_seconds: 1200,
        }
    }
}

/// Letters of starttls-handoff(1).
pub const TABLE: Table<Options> = Table {
    program: "starttls-handoff",
    operands: "smtp|lmtp|pop3|imap|sieve prog [ args ]",
    least: 2,
    page: "starttls-handoff(1)",
    letters: &[
        ('q', Flag(|o| o.verbosity = Verbosity::Silent)),
        ('Q', Flag(|o| o.verbosity = Verbosity::Errors)),
        ('v', Flag(|o| o.verbosity = Verbosity::Status)),
        ('a', Flag(|o| o.allow_clear = true)),
        ('l', Value("name", |o, v| keep(&mut o.local_name, v))),
        (
            't',
            Value("seconds", |o, v| set(&mut o.idle_seconds, v, 1, LONGEST)),
        ),
    ],
};
