//! What a test can't show here, and why: each says so on a line of one form, which
//! package/rts gathers from the log.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::path::PathBuf;
use std::thread;

use super::programs::program;

/// Writes the line: `skipped` or `skipped in part`, the test's name, the reason.
pub fn say(what: &str, reason: impl Display) {
    let thread = thread::current();
    println!("{what}: {}: {reason}", thread.name().unwrap_or_default());
}

/// Whether this process may change users, mount and bind low ports.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The path of a program that a part of a test needs; where there is none, says
/// that the part is skipped.
pub fn wanted(name: &str) -> Option<PathBuf> {
    let found = program(name);
    if found.is_none() {
        skip_part!("{name} is not installed");
    }
    found
}

/// Ends a test that cannot run here, and says why.
macro_rules! skip {
    ($($reason:tt)*) => {{
        crate::harness::skip::say("skipped", format_args!($($reason)*));
        return;
    }};
}
pub(crate) use skip;

/// Says which part of a test is left out, and why.
macro_rules! skip_part {
    ($($reason:tt)*) => {
        crate::harness::skip::say("skipped in part", format_args!($($reason)*))
    };
}
pub(crate) use skip_part;

/// The path of a program, or the end of the test.
macro_rules! need {
    ($name:expr) => {
        match crate::harness::program($name) {
            Some(path) => path,
            None => crate::harness::skip!("{} is not installed", $name),
        }
    };
}
pub(crate) use need;

/// Ends a test that only root can run.
macro_rules! need_root {
    () => {
        if !crate::harness::root() {
            crate::harness::skip!("only root can do this");
        }
    };
}
pub(crate) use need_root;
