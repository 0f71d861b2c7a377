//! starttls-handoff's command line and its policy, for the program itself and for
//! the server that looks beforehand whether it would serve.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Letter::{Flag, Value};
use super::{LONGEST, Table, keep, set};
use crate::dialogue::Protocol;
use crate::report::{Fail, Verbosity};
use crate::text;

/// The variable that says whether TLS is offered or required.
pub const POLICY: &str = "UCSPITLS";

/// What the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsUse {
    /// Unset or empty: plaintext is allowed, too.
    Offered,
    /// `!`.
    Required,
    /// `-`: there is none.
    Off,
}

impl TlsUse {
    /// Reads the policy. A word that only another program knows is refused: who wrote
    /// it may have meant that nothing passes in the clear. s/qmail's `?` and `@`
    /// require TLS, and `1` offers it there.
    ///
    /// # Errors
    /// It is none of the values.
    pub fn of(value: &OsStr) -> Result<TlsUse, Fail> {
        match value.as_bytes() {
            b"" => Ok(TlsUse::Offered),
            b"!" => Ok(TlsUse::Required),
            b"-" => Ok(TlsUse::Off),
            other => Err(Fail::never(format!(
                "unable to use {POLICY}: \"{}\": \"!\" requires TLS, \"-\" switches it off, and \
                 empty or unset offers it",
                text::excerpt(other, 100)
            ))),
        }
    }
}

/// Whether these words run this program.
#[must_use]
pub fn is_run_by(words: &[OsString]) -> bool {
    let name = words.first().map(Path::new).and_then(Path::file_name);
    name == Some(OsStr::new(TABLE.program))
}

/// What a command line asks for.
#[derive(Debug)]
pub struct Line {
    /// The options.
    pub options: Options,
    /// What the client speaks.
    pub protocol: Protocol,
    /// The program and its arguments; never empty.
    pub program: Vec<OsString>,
}

/// Reads a command line without its first word.
///
/// # Errors
/// [`Fail::usage`], with the reason.
pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Line, Fail> {
    let (options, mut program) = TABLE.parse(args)?;
    let word = program.remove(0);
    let protocol = word
        .to_str()
        .and_then(Protocol::from_name)
        .ok_or_else(|| TABLE.usage(format!("unknown protocol {}", word.to_string_lossy())))?;
    Ok(Line {
        options,
        protocol,
        program,
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_one_of_three_and_nothing_else_is_taken_for_one() {
        for (value, tls) in [
            ("", TlsUse::Offered),
            ("!", TlsUse::Required),
            ("-", TlsUse::Off),
        ] {
            assert_eq!(TlsUse::of(OsStr::new(value)), Ok(tls), "{value}");
        }
        for value in ["require", "yes", "1", "0", "?", "@", "!!", "--", "! ", " "] {
            let fail = TlsUse::of(OsStr::new(value)).expect_err(value);
            assert_eq!(fail.code(), 100, "{value}");
            let said = fail.to_string();
            let begin = format!("unable to use UCSPITLS: \"{value}\": ");
            assert!(said.starts_with(&begin), "{said}");
        }
    }

    #[test]
    fn the_program_is_known_by_its_name_wherever_it_is() {
        for (words, is) in [
            (&["starttls-handoff", "smtp", "x"][..], true),
            (&["/usr/bin/starttls-handoff"], true),
            (&["sh", "starttls-handoff"], false),
            (&[], false),
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(is_run_by(&words), is, "{words:?}");
        }
    }
}
