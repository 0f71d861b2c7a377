//! Becoming the program: descriptors, user, signals, environment, exec.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
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
        // Out of the way of every target first, then into place.
        let highest = self
            .descriptors
            .iter()
            .map(|(_, number)| *number)
            .max()
            .unwrap_or(2);
        for (from, number) in self.descriptors {
            let placed = fd::duplicate_above(&from, highest + 1).and_then(|copy| {
                drop(from);
                fd::place(copy, number)
            });
            if let Err(error) = placed {
                return Fail::unable("set up descriptors")(error);
            }
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
            .envs(self.environment)
            .exec();
        unable_to_run(program, error)
    }
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
    if program.as_bytes().contains(&b'/') {
        return executable(path, identity).map_err(unable);
    }
    let search = environment.get(OsStr::new("PATH"));
    let search = search.map_or(OsStr::new(USUAL), OsString::as_os_str);
    let mut failure = io::Error::from_raw_os_error(libc::ENOENT);
    for folder in std::env::split_paths(search) {
        match executable(&folder.join(path), identity) {
            Ok(()) => return Ok(()),
            // Like execvp(3): a file that may not be run is told, if no other can.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => failure = error,
            Err(_) => {}
        }
    }
    Err(unable(failure))
}

fn executable(path: &Path, identity: Option<&Identity>) -> io::Result<()> {
    let about = fs::metadata(path)?;
    let mode = about.permissions().mode();
    let (user, group) = (
        identity.and_then(|one| one.user).unwrap_or_else(user::own),
        identity
            .and_then(|one| one.group)
            .unwrap_or_else(user::own_group),
    );
    let bits = if user == 0 {
        0o111
    } else if about.uid() == user {
        0o100
    } else if about.gid() == group || identity.is_some_and(|one| one.groups.contains(&about.gid()))
    {
        0o010
    } else {
        0o001
    };
    if about.is_file() && mode & bits != 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EACCES))
    }
}

fn unable_to_run(program: &OsStr, error: io::Error) -> Fail {
    let name = crate::text::excerpt(program.as_bytes(), 200);
    Fail::unable(format_args!("run {name}"))(error)
}
