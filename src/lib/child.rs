//! Becoming the program: descriptors, user, signals, environment, exec.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::report::Fail;
use crate::sys::user::{self, Identity};
use crate::sys::{fd, signal};

/// A program about to be run in place of this process.
pub struct Child<'a> {
    /// The program and its arguments.
    pub words: &'a [OsString],
    /// Its environment, whole.
    pub environment: BTreeMap<OsString, OsString>,
    /// Whom it runs as; `None` leaves that as it is.
    pub identity: Option<&'a Identity>,
    /// Descriptors, and the numbers under which the program finds them. No
    /// number may be that of another descriptor of the list.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
}

impl Child<'_> {
    /// Becomes the program. Returns only with the reason why not.
    #[must_use]
    pub fn exec(self) -> Fail {
        if let Err(error) = arrange(self.descriptors) {
            return Fail::unable("set up descriptors")(error);
        }
        if let Some(identity) = self.identity {
            if let Err(error) = identity.assume() {
                return Fail::unable("change user")(error);
            }
        }
        signal::reset();
        let Some((program, arguments)) = self.words.split_first() else {
            return unable_to_run(OsStr::new(""), io::ErrorKind::NotFound.into());
        };
        let error = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .exec();
        let of_the_interpreter = error.kind() == io::ErrorKind::NotFound;
        look_up(program, &self.environment, None)
            .err()
            .filter(|_| of_the_interpreter)
            .unwrap_or_else(|| unable_to_run(program, error))
    }
}

/// Puts each descriptor at its number. All of them get out of the way of all numbers
/// first: one may be at the number of another.
///
/// # Errors
/// As fcntl(2) and dup2(2).
fn arrange(descriptors: Vec<(OwnedFd, RawFd)>) -> io::Result<()> {
    let highest = descriptors.iter().map(|(_, number)| *number).max();
    let above = highest.unwrap_or(2) + 1;
    let clear: io::Result<Vec<(OwnedFd, RawFd)>> = descriptors
        .into_iter()
        .map(|(from, number)| {
            if from.as_raw_fd() >= above {
                return Ok((from, number));
            }
            Ok((fd::duplicate_above(from, above)?, number))
        })
        .collect();
    for (from, number) in clear? {
        fd::place(from, number)?;
    }
    Ok(())
}

/// Whether a program could be run, as far as its file tells: found in the
/// environment's `PATH`, and executable for the user that it will run as.
///
/// # Errors
/// As [`Child::exec`]'s.
pub fn look_up(
    program: &OsStr,
    environment: &BTreeMap<OsString, OsString>,
    identity: Option<&Identity>,
) -> Result<(), Fail> {
    /// Where execvp(3) looks without `PATH`.
    const USUAL: &str = "/bin:/usr/bin";
    let unable = |error| unable_to_run(program, error);
    let path = Path::new(program);
    if program.is_empty() {
        // Behind each folder of PATH it would be the folder itself.
        return Err(unable(io::Error::from_raw_os_error(libc::ENOENT)));
    }
    if program.as_bytes().contains(&b'/') {
        executable(path, identity).map_err(unable)?;
        return interpreted(path, program, identity);
    }
    let search = environment.get(OsStr::new("PATH"));
    let search = search.map_or(OsStr::new(USUAL), OsString::as_os_str);
    let mut failure = io::Error::from_raw_os_error(libc::ENOENT);
    for folder in std::env::split_paths(search) {
        let file = folder.join(path);
        match executable(&file, identity) {
            Ok(()) => return interpreted(&file, program, identity),
            // Like execvp(3): a file that may not be run is told, if no other can.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => failure = error,
            Err(_) => {}
        }
    }
    Err(unable(failure))
}

/// Whether what runs a script is there, if the file is a script that we can read: the
/// kernel says of the script itself that there is none.
fn interpreted(file: &Path, program: &OsStr, identity: Option<&Identity>) -> Result<(), Fail> {
    /// What the kernel reads of it: execve(2).
    const FIRST: u64 = 255;
    let mut begin = Vec::new();
    let read = fs::File::open(file).and_then(|file| file.take(FIRST).read_to_end(&mut begin));
    let (Ok(_), Some(line)) = (read, begin.strip_prefix(b"#!")) else {
        return Ok(());
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or(line);
    let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let Some(interpreter) = words.into_iter().find(|word| !word.is_empty()) else {
        return Ok(());
    };
    executable(Path::new(OsStr::from_bytes(interpreter)), identity).map_err(|error| {
        let interpreter = crate::text::excerpt(interpreter, 200);
        let program = crate::text::excerpt(program.as_bytes(), 200);
        Fail::unable(format_args!(
            "run {program}: its interpreter, {interpreter}"
        ))(error)
    })
}

fn executable(path: &Path, identity: Option<&Identity>) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    match identity {
        Some(identity) if user::is_root() => user::may_execute_as(identity, path),
        _ => user::may_execute(path),
    }
}

fn unable_to_run(program: &OsStr, error: io::Error) -> Fail {
    let name = crate::text::name(program.as_bytes(), 200);
    Fail::unable(format_args!("run {name}"))(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    /// Numbers that nothing else of the tests has.
    const FIRST: RawFd = 700;

    /// What a copy of this number reads, once nobody writes any more.
    fn text_at(number: RawFd) -> String {
        let copy = fd::inherited(number).expect("is open, and survives exec");
        let mut text = String::new();
        fs::File::from(copy)
            .read_to_string(&mut text)
            .expect("reads");
        text
    }

    #[test]
    fn descriptors_that_are_at_each_other_s_numbers_change_places() {
        let holding = |text: &str, number| {
            let (reads, mut writes) = UnixStream::pair().expect("a pair");
            writes.write_all(text.as_bytes()).expect("written");
            fd::duplicate_above(OwnedFd::from(reads), number).expect("is free")
        };
        let all = ["one", "two", "three"].map(|text| holding(text, FIRST));
        let numbers: Vec<RawFd> = all.iter().map(OwnedFd::as_raw_fd).collect();
        assert_eq!(numbers, [FIRST, FIRST + 1, FIRST + 2]);
        // Each where the next one is, as where a server that was started with a
        // descriptor of theirs gives its program the numbers behind it.
        let [one, two, three] = all;
        arrange(vec![(one, FIRST + 1), (two, FIRST + 2), (three, FIRST)]).expect("arranged");
        assert_eq!(text_at(FIRST + 1), "one");
        assert_eq!(text_at(FIRST + 2), "two");
        assert_eq!(text_at(FIRST), "three");
    }
}
