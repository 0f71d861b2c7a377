//! sslsurvey's command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::Letter::{Bytes, Flag};
use super::{Table, keep_path};

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `-j`: one JSON object.
    Json,
    /// `-m`: Markdown.
    Markdown,
    /// Aligned columns.
    #[default]
    Plain,
}

/// The options, with their defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-j -m`.
    pub format: Format,
    /// `-k`: look for moduli with common factors.
    pub factors: bool,
    /// `-o`: where the chart goes.
    pub chart: Option<PathBuf>,
}

/// Letters and operands of sslsurvey(1).
pub const TABLE: Table<Options> = Table {
    program: "sslsurvey",
    operands: "[ results.json ] [ later.json ]",
    least: 0,
    page: "sslsurvey(1)",
    letters: &[
        ('j', Flag(|o| o.format = Format::Json)),
        ('k', Flag(|o| o.factors = true)),
        ('m', Flag(|o| o.format = Format::Markdown)),
        ('o', Bytes("file", |o, v| keep_path(&mut o.chart, v))),
    ],
};
