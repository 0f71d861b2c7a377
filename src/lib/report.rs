//! Failures that end a program, exit codes, verbosity, and the only code that
//! writes to descriptor 2: one line, one write, at most [`LINE_LIMIT`] bytes.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::text;

/// Exit code for wrong usage, a bad rules line and a denied client.
pub const NEVER: u8 = 100;
/// Exit code for every other failure: it may work later.
pub const TEMPORARY: u8 = 111;

/// The longest line that is written, newline included.
pub const LINE_LIMIT: usize = 1000;

/// Why a program ends.
#[derive(Debug)]
pub enum Fail {
    /// Input that can never work, such as a bad rules line.
    Never(String),
    /// A step failed and may work later. The cause, if the system gave one,
    /// ends the line.
    Temporary {
        /// What could not be done, without a colon at its end.
        text: String,
        /// Why, as the system says.
        cause: Option<io::Error>,
    },
    /// The command line is wrong.
    Usage {
        /// What is wrong with it.
        reason: String,
        /// Program, options and arguments.
        synopsis: String,
    },
}

impl Fail {
    /// `map_err(Fail::unable("bind"))` ends as `unable to bind: REASON`.
    pub fn unable(step: impl fmt::Display) -> impl FnOnce(io::Error) -> Fail {
        move |cause| Fail::Temporary {
            text: format!("unable to {step}"),
            cause: Some(cause),
        }
    }

    /// A failure whose text is complete.
    pub fn temporary(text: impl Into<String>) -> Fail {
        Fail::Temporary {
            text: text.into(),
            cause: None,
        }
    }

    /// The exit code: 100 for what can never work, else 111.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Fail::Never(_) | Fail::Usage { .. } => NEVER,
            Fail::Temporary { .. } => TEMPORARY,
        }
    }
}

/// The sentence without its class (`fatal: `, `warning: `).
impl fmt::Display for Fail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fail::Temporary {
                text,
                cause: Some(cause),
            } => write!(out, "{text}: {}", reason(cause)),
            Fail::Temporary { text, cause: None } | Fail::Never(text) => out.write_str(text),
            // Who reads the line wants the reason, and the synopsis is long.
            Fail::Usage { reason, synopsis } => write!(out, "{reason}; {synopsis}"),
        }
    }
}

/// The bare errno text in lower case: `io::Error` would add a number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// How much is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// `-q`: nothing.
    Silent,
    /// `-Q`: errors and warnings.
    #[default]
    Errors,
    /// `-v`: status lines too.
    Status,
    /// `-V` of sslserver, `-v` of sslclient: one TLS line per connection too.
    Tls,
}

/// The writer of one program's messages.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The name that begins each line.
    pub program: &'static str,
    /// What is written.
    pub verbosity: Verbosity,
}

impl Report {
    /// The end of the program.
    pub fn fatal(&self, fail: &Fail) {
        if self.verbosity >= Verbosity::Errors {
            let class = if matches!(fail, Fail::Usage { .. }) {
                "usage"
            } else {
                "fatal"
            };
            self.line(&format!("{class}: {fail}"));
        }
    }

    /// Something an administrator should act on; the program goes on.
    pub fn warning(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Errors {
            self.line(&format!("warning: {text}"));
        }
    }

    /// Something that an administrator wants to find in the log later.
    pub fn notice(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Errors {
            self.line(&text.to_string());
        }
    }

    /// A status line.
    pub fn status(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Status {
            self.line(&text.to_string());
        }
    }

    /// The line that describes one connection's TLS.
    pub fn tls(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Tls {
            self.line(&text.to_string());
        }
    }

    fn line(&self, text: &str) {
        // If descriptor 2 is gone there is nobody left to tell.
        let _ = io::stderr().write_all(compose(self.program, text).as_bytes());
    }
}

/// `program: text` and a newline, with what could forge or break a line escaped
/// whoever wrote it, and cut where it is too long.
fn compose(program: &str, text: &str) -> String {
    let mut line = format!("{program}: {}", text::printable(text.as_bytes()));
    if line.len() >= LINE_LIMIT {
        line.truncate(LINE_LIMIT - 4);
        line.push_str("...");
    }
    line.push('\n');
    line
}

/// Runs a program's body and turns its end into an exit code.
pub fn run(program: &'static str, body: impl FnOnce(&mut Report) -> Result<u8, Fail>) -> ExitCode {
    let mut report = Report {
        program,
        verbosity: Verbosity::default(),
    };
    ExitCode::from(body(&mut report).unwrap_or_else(|fail| {
        report.fatal(&fail);
        fail.code()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_ends_with_the_bare_reason() {
        let fail = Fail::unable("bind")(io::Error::from_raw_os_error(libc::EADDRINUSE));
        assert_eq!(fail.to_string(), "unable to bind: address already in use");
        assert_eq!(fail.code(), 111);
    }

    #[test]
    fn a_line_is_one_line_and_never_too_long() {
        assert_eq!(
            compose("p", "a\nb\\x0A\u{e9}"),
            "p: a\\x0Ab\\x0A\\xC3\\xA9\n"
        );
        let long = compose("p", &"x".repeat(5000));
        assert_eq!(long.len(), LINE_LIMIT);
        assert!(long.ends_with("...\n"));
    }
}
