//! Programs that run another one, which their command line names: what a connection
//! would run one after the other, as far as it can be told. An option that is not known
//! here ends the telling, since what follows it may be its value.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use super::setup::Program;
use crate::options::starttls_handoff;
use crate::report::Fail;
use crate::sys::user::{self, Identity};
use crate::text;

/// One program of the row.
#[derive(Clone)]
pub(super) struct Run {
    /// It and its arguments.
    pub words: Vec<OsString>,
    /// Its environment, but for what is known of a connection only.
    pub environment: BTreeMap<OsString, OsString>,
    /// Whom it runs as; `None`: as this process does, or nobody can tell.
    pub identity: Option<Identity>,
}

/// What a program takes before the one that it runs.
struct Shape {
    name: &'static str,
    /// Letters that stand alone.
    flags: &'static str,
    /// Letters with a value.
    valued: &'static str,
    /// Words before the program.
    operands: usize,
}

const fn shape(
    name: &'static str,
    flags: &'static str,
    valued: &'static str,
    operands: usize,
) -> Shape {
    Shape {
        name,
        flags,
        valued,
        operands,
    }
}

const SHAPES: &[Shape] = &[
    shape("checkpassword", "", "", 0),
    shape("envdir", "", "", 1),
    shape("envuidgid", "", "", 1),
    shape("fixcrio", "", "", 0),
    shape("nice", "", "n", 0),
    shape("nohup", "", "", 0),
    shape("pgrphack", "", "", 0),
    shape("qmail-popup", "", "", 1),
    shape("rblsmtpd", "bBcC", "art", 0),
    shape("recordio", "", "", 0),
    shape("s6-envdir", "", "", 1),
    shape("s6-setuidgid", "", "", 1),
    shape("setlock", "nNxX", "", 1),
    shape("setuidgid", "", "", 1),
    shape("softlimit", "", "acdflmoprst", 0),
];

/// The row, and why it ends early, if that can be told.
pub(super) fn runs(program: &Program) -> (Vec<Run>, Option<Fail>) {
    /// No longer row is meant.
    const MOST: usize = 20;
    let mut row = vec![Run {
        words: program.words.clone(),
        environment: program.environment.clone(),
        identity: program.identity.clone(),
    }];
    while row.len() < MOST {
        match row.last().map(next) {
            Some(Ok(Some(run))) => row.push(run),
            Some(Err(why)) => return (row, Some(why)),
            Some(Ok(None)) | None => break,
        }
    }
    (row, None)
}

/// What a program runs in its turn; `None` where that cannot be told.
fn next(run: &Run) -> Result<Option<Run>, Fail> {
    if starttls_handoff::is_run_by(&run.words) {
        let line = starttls_handoff::read(run.words.iter().skip(1).cloned());
        // What is wrong with the line is told by `upgrade`.
        return Ok(line.ok().map(|line| Run {
            words: line.program,
            ..run.clone()
        }));
    }
    let name = run.words.first().map(Path::new).and_then(Path::file_name);
    let name = name.and_then(OsStr::to_str).unwrap_or_default();
    if name == "env" {
        return Ok(behind_env(run));
    }
    let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) else {
        return Ok(None);
    };
    let Some((operands, words)) = shape.split(&run.words) else {
        return Ok(None);
    };
    let mut next = Run {
        words,
        ..run.clone()
    };
    let operand = operands.first();
    match (name, operand) {
        ("setuidgid" | "s6-setuidgid" | "envuidgid", Some(account)) => {
            let Some(account) = account.to_str().filter(|one| is_name(one)) else {
                return Ok(None);
            };
            let unknown = |why| Fail::from(format!("{why}: every client is dropped")).of(name);
            let identity = user::identity(Some(account), None).map_err(unknown)?;
            if name != "envuidgid" {
                next.identity = Some(identity);
            }
        }
        ("envdir" | "s6-envdir", Some(folder)) => {
            let shown = text::excerpt(folder.as_bytes(), 200);
            overlay(&mut next.environment, Path::new(folder)).map_err(|error| {
                let why = crate::report::reason(&error);
                Fail::from(format!("{why}: every client is dropped")).of(format!("{name} {shown}"))
            })?;
        }
        // Who logs in is not known.
        ("checkpassword", _) => next.identity = None,
        _ => {}
    }
    Ok(Some(next))
}

/// Whether a word is an account's name, and no number, pair or option.
fn is_name(account: &str) -> bool {
    account.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && !account.contains(':')
}

impl Shape {
    /// The words before the program, and those that begin with it.
    fn split(&self, words: &[OsString]) -> Option<(Vec<OsString>, Vec<OsString>)> {
        let mut rest = words.get(1..)?;
        while let Some((word, others)) = rest.split_first() {
            let Some(letters) = word.as_bytes().strip_prefix(b"-") else {
                break;
            };
            rest = others;
            if letters == b"-" {
                break;
            }
            let (first, behind) = letters.split_first()?;
            if self.valued.as_bytes().contains(first) {
                if behind.is_empty() {
                    rest = rest.get(1..)?;
                }
            } else if !letters
                .iter()
                .all(|letter| self.flags.as_bytes().contains(letter))
            {
                return None;
            }
        }
        let (operands, program) = rest.split_at_checked(self.operands)?;
        (!program.is_empty()).then(|| (operands.to_vec(), program.to_vec()))
    }
}

/// env(1), as far as its common options go.
fn behind_env(run: &Run) -> Option<Run> {
    let mut environment = run.environment.clone();
    let mut words = run.words.iter().skip(1);
    let mut options = true;
    loop {
        let word = words.next()?;
        let bytes = word.as_bytes();
        if options && bytes.starts_with(b"-") {
            match bytes {
                b"-" | b"-i" | b"--ignore-environment" => environment.clear(),
                b"-u" => {
                    environment.remove(words.next()?);
                }
                b"--" => options = false,
                _ => return None,
            }
            continue;
        }
        options = false;
        let Some(equals) = bytes.iter().position(|byte| *byte == b'=') else {
            let program = std::iter::once(word).chain(words).cloned().collect();
            return Some(Run {
                words: program,
                environment,
                ..run.clone()
            });
        };
        let (name, value) = (&bytes[..equals], &bytes[equals + 1..]);
        environment.insert(
            OsString::from_vec(name.to_vec()),
            OsString::from_vec(value.to_vec()),
        );
    }
}

/// envdir(8): a file is a variable, its first line the value; an empty one unsets it.
fn overlay(environment: &mut BTreeMap<OsString, OsString>, folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        // What cannot be read is for envdir to say.
        let Ok(bytes) = fs::read(entry.path()) else {
            continue;
        };
        if bytes.is_empty() {
            environment.remove(&name);
            continue;
        }
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&bytes);
        let blanks = line
            .iter()
            .rev()
            .take_while(|byte| matches!(byte, b' ' | b'\t'));
        let end = line.len() - blanks.count();
        environment.insert(name, OsString::from_vec(line[..end].to_vec()));
    }
    Ok(())
}
