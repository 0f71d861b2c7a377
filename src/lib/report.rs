//! Failures that end a program, exit codes, verbosity, and the only code that
//! writes to descriptor 2: one line, one write, at most [`LINE_LIMIT`] bytes.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};

use openssl::error::ErrorStack;

use crate::text;

/// Exit code for wrong usage, a bad rules line and a denied client.
pub const NEVER: u8 = 100;
/// Exit code for every other failure: it may work later.
pub const TEMPORARY: u8 = 111;

/// The longest line that is written, newline included.
pub const LINE_LIMIT: usize = 1000;

/// The exit code of a process of ours that is out of memory, and whose parent alone
/// can say so.
pub const NO_MEMORY: u8 = 112;

/// Why something could not be done, where there was no memory for it.
pub const OUT_OF_MEMORY: &str = "out of memory";

/// How much something that went wrong matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A check calls it wrong; it may be meant as it is, so nothing else says it.
    Doubt,
    /// Worth a word, and nothing wrong.
    Note,
    /// It weakens or refuses connections; the program goes on.
    Warning,
    /// A step failed and may work later: exit code 111.
    Temporary,
    /// It can never work, such as a bad rules line: exit code 100.
    Never,
}

/// What is behind a failure, as far as anybody decides by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The text says all.
    Stated,
    /// A call of the system failed.
    System(io::ErrorKind, String),
    /// OpenSSL refused something.
    Tls(String),
    /// The command line is wrong; program, options and arguments.
    Usage(String),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Cause {
        Cause::System(error.kind(), reason(&error))
    }
}

impl From<ErrorStack> for Cause {
    fn from(error: ErrorStack) -> Cause {
        Cause::Tls(tls_reason(&error))
    }
}

/// What went wrong: a sentence, how much it matters, and what is behind it.
///
/// A function that knows only why, not of what, gives the end of a sentence; its
/// caller puts the beginning before it with [`Fail::of`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fail {
    /// How much it matters.
    pub severity: Severity,
    /// What is behind it. A reason ends the sentence.
    pub cause: Cause,
    /// Without a colon at its end; empty where there is only a cause.
    text: String,
}

impl Fail {
    fn new(severity: Severity, text: impl Into<String>) -> Fail {
        Fail {
            severity,
            cause: Cause::Stated,
            text: text.into(),
        }
    }

    /// What only a check says.
    pub fn doubt(text: impl Into<String>) -> Fail {
        Fail::new(Severity::Doubt, text)
    }

    /// What is worth a word.
    pub fn note(text: impl Into<String>) -> Fail {
        Fail::new(Severity::Note, text)
    }

    /// What an administrator should act on.
    pub fn warning(text: impl Into<String>) -> Fail {
        Fail::new(Severity::Warning, text)
    }

    /// What may work later.
    pub fn temporary(text: impl Into<String>) -> Fail {
        Fail::new(Severity::Temporary, text)
    }

    /// What can never work.
    pub fn never(text: impl Into<String>) -> Fail {
        Fail::new(Severity::Never, text)
    }

    /// A wrong command line; `synopsis` is program, options and arguments.
    pub fn usage(reason: impl Into<String>, synopsis: String) -> Fail {
        Fail {
            cause: Cause::Usage(synopsis),
            ..Fail::never(reason)
        }
    }

    /// `map_err(Fail::unable("bind"))` ends as `unable to bind: REASON`.
    pub fn unable<C: Into<Cause>>(step: impl fmt::Display) -> impl FnOnce(C) -> Fail {
        move |cause| Fail {
            cause: cause.into(),
            ..Fail::temporary(format!("unable to {step}"))
        }
    }

    /// What failed, before why: `WHAT: WHY`.
    #[must_use]
    pub fn of(mut self, what: impl fmt::Display) -> Fail {
        self.text = match &*self.text {
            "" => what.to_string(),
            text => format!("{what}: {text}"),
        };
        self
    }

    /// The exit code: 100 for what can never work, else 111.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self.severity {
            Severity::Never => NEVER,
            _ => TEMPORARY,
        }
    }
}

// The ends of sentences that [`Fail::of`] begins.

impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Fail {
        Fail {
            cause: error.into(),
            ..Fail::temporary("")
        }
    }
}

impl From<ErrorStack> for Fail {
    fn from(error: ErrorStack) -> Fail {
        Fail {
            cause: error.into(),
            ..Fail::temporary("")
        }
    }
}

impl From<&str> for Fail {
    fn from(why: &str) -> Fail {
        Fail::temporary(why)
    }
}

impl From<String> for Fail {
    fn from(why: String) -> Fail {
        Fail::temporary(why)
    }
}

/// The sentence without its class (`fatal: `, `warning: `).
impl fmt::Display for Fail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)?;
        match &self.cause {
            Cause::Stated => Ok(()),
            // Who reads the line wants the reason, and the synopsis is long.
            Cause::Usage(synopsis) => write!(out, "; {synopsis}"),
            Cause::System(_, reason) | Cause::Tls(reason) if self.text.is_empty() => {
                out.write_str(reason)
            }
            Cause::System(_, reason) | Cause::Tls(reason) => write!(out, ": {reason}"),
        }
    }
}

/// Whether reading a file failed because there is none. A link that leads nowhere, be it
/// in the place of a directory on the way, is not that: what it held was asked for, and
/// must not be taken for never said.
#[must_use]
pub fn is_absent(path: &Path, error: &io::Error) -> bool {
    let is_there = |one: &&Path| fs::symlink_metadata(one).is_ok();
    error.kind() == io::ErrorKind::NotFound
        && !is_there(&path)
        && path
            .ancestors()
            .find(is_there)
            .is_none_or(|last| fs::metadata(last).is_ok())
}

/// The bare errno text in lower case: `io::Error` would add a number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// The first reason that OpenSSL gives, in its own words.
#[must_use]
pub fn tls_reason(error: &ErrorStack) -> String {
    let first = error.errors().first();
    let reason = first
        .and_then(openssl::error::Error::reason)
        .unwrap_or("unknown reason");
    match first.and_then(openssl::error::Error::data) {
        Some(data) => format!("{reason} ({})", text::excerpt(data.as_bytes(), 200)),
        None => reason.to_owned(),
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
    /// From now on so much is written.
    pub fn set_verbosity(&mut self, verbosity: Verbosity) {
        self.verbosity = verbosity;
        if verbosity < Verbosity::Errors {
            prepare_last_code(TEMPORARY);
        }
    }

    /// The end of the program.
    pub fn fatal(&self, fail: &Fail) {
        if self.verbosity >= Verbosity::Errors {
            let class = match fail.cause {
                Cause::Usage(_) => "usage",
                _ => "fatal",
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

    /// What was found of files and settings, by how much it matters.
    pub fn finding(&self, finding: &Fail) {
        if finding.severity > Severity::Doubt {
            self.warning(finding);
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

    /// A line on a terminal that the next one takes the place of; an empty text
    /// clears it.
    #[cfg(feature = "remote")]
    pub fn progress(&self, text: &str) {
        let text = match text {
            "" => String::new(),
            text => format!("{}: {}", self.program, text::printable(text.as_bytes())),
        };
        // If descriptor 2 is gone there is nobody left to tell.
        let _ = io::stderr().write_all(format!("\r\x1b[K{text}").as_bytes());
    }

    fn line(&self, text: &str) {
        pass_on(compose(self.program, text).as_bytes());
    }
}

/// What a process says that has no memory to say anything with, and how it ends.
#[derive(Debug)]
pub struct LastWords {
    /// Where.
    pub descriptor: i32,
    /// A whole line; empty where nothing is to be said.
    pub line: Cow<'static, [u8]>,
    /// The exit code.
    pub code: u8,
}

/// Until there are better ones.
static LAST_WORDS: Mutex<LastWords> = Mutex::new(LastWords {
    descriptor: 2,
    line: Cow::Borrowed(b"fatal: out of memory\n"),
    code: TEMPORARY,
});

/// Makes them, for as long as there is memory.
pub fn prepare_last_words(words: LastWords) {
    *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = words;
}

/// For a process that has nowhere to say it: it ends with this code.
pub fn prepare_last_code(code: u8) {
    prepare_last_words(LastWords {
        descriptor: 2,
        line: Cow::Borrowed(b""),
        code,
    });
}

/// Has them said, and returns the exit code. Allocates nothing.
pub fn last_words(say: impl FnOnce(i32, &[u8])) -> u8 {
    let Ok(words) = LAST_WORDS.try_lock() else {
        return TEMPORARY;
    };
    if !words.line.is_empty() {
        say(words.descriptor, &words.line);
    }
    words.code
}

/// Who takes lines in place of descriptor 2.
#[derive(Debug)]
pub struct Sink {
    /// Takes a whole line, its newline included.
    pub line: fn(&[u8]),
    /// This process was forked: what was taken before is its parent's to write.
    pub forked: fn(),
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// From now on this one takes lines. It stays.
pub fn write_to(sink: Sink) {
    let _ = SINK.set(sink);
}

/// What every process that was forked begins with.
pub fn forked() {
    if let Some(sink) = SINK.get() {
        (sink.forked)();
    }
    let last = LAST_WORDS.try_lock().map(|words| words.descriptor);
    if last.is_ok_and(|descriptor| descriptor != 2) {
        // A delivery's report is not for another process to write, nor its exit code.
        prepare_last_code(NO_MEMORY);
    }
}

/// Writes a line that a process of ours composed.
pub fn pass_on(line: &[u8]) {
    match SINK.get() {
        Some(sink) => (sink.line)(line),
        // If descriptor 2 is gone there is nobody left to tell.
        None => drop(io::stderr().write_all(line)),
    }
}

/// `program: text` and a newline, with what could forge or break a line escaped
/// whoever wrote it, and cut where it is too long.
pub fn compose(program: &str, text: &str) -> String {
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
    let line = compose(program, &format!("fatal: {OUT_OF_MEMORY}"));
    prepare_last_words(LastWords {
        descriptor: 2,
        line: line.into_bytes().into(),
        code: TEMPORARY,
    });
    ExitCode::from(body(&mut report).unwrap_or_else(|fail| {
        report.fatal(&fail);
        fail.code()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_to_nowhere_hides_is_not_absent() {
        let folder = std::env::temp_dir().join(format!("absent-{}", std::process::id()));
        fs::create_dir(&folder).expect("makes");
        std::os::unix::fs::symlink("nowhere", folder.join("dangling")).expect("links");
        std::os::unix::fs::symlink(".", folder.join("here")).expect("links");
        let absent = |name: &str| {
            let path = folder.join(name);
            is_absent(&path, &fs::read(&path).expect_err("nothing to read"))
        };
        let found = [
            ("file", true),
            ("folder/file", true),
            ("here/file", true),
            ("here/folder/file", true),
            // It is there, and no file.
            ("here", false),
            ("dangling", false),
            ("dangling/file", false),
            ("here/dangling/folder/file", false),
        ]
        .map(|(name, wanted)| (name, wanted, absent(name)));
        let none = Path::new("no-such-file");
        let relative = is_absent(none, &fs::read(none).expect_err("nothing to read"));
        fs::remove_dir_all(&folder).expect("removes");
        for (name, wanted, found) in found {
            assert_eq!(found, wanted, "{name}");
        }
        assert!(relative);
    }

    #[test]
    fn a_failed_step_ends_with_the_bare_reason() {
        let busy = || io::Error::from_raw_os_error(libc::EADDRINUSE);
        let fail = Fail::unable("bind")(busy());
        assert_eq!(fail.to_string(), "unable to bind: address already in use");
        assert_eq!(fail.code(), 111);
        let fail = Fail::from(busy());
        assert_eq!(fail.to_string(), "address already in use");
        let fail = fail.of("x").of("unable to bind");
        assert_eq!(
            fail.to_string(),
            "unable to bind: x: address already in use"
        );
        assert_eq!(Fail::never("why").of("what").to_string(), "what: why");
    }

    #[test]
    fn the_report_of_a_delivery_is_not_for_another_process_to_write() {
        for (descriptor, said, code) in [(2, Some(2), 0), (1, None, NO_MEMORY)] {
            prepare_last_words(LastWords {
                descriptor,
                line: Cow::Borrowed(b"x"),
                code: 0,
            });
            forked();
            let mut where_to = None;
            let ends = last_words(|descriptor, _| where_to = Some(descriptor));
            assert_eq!((where_to, ends), (said, code));
        }
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
