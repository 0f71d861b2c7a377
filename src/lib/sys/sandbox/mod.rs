//! What a process that reads a peer's bytes, or that holds keys, gives up: the
//! file system, new privileges, new processes, and every system call but those
//! of the list in `filter`, each of which stands there with its reason.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::unistd::{chdir, chroot};

use super::process::{self, Forked};
use super::standard;
use crate::report::{Fail, reason};

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod rights;

#[cfg(not(target_os = "linux"))]
use elsewhere::{filter, landlock, rights};
use filter::{Filter, filter, install, is_known};
pub use rights::{drop_bounds, drop_capabilities};

/// Whose sandbox it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The process between a client's socket and a program's pipes.
    Engine,
    /// The same of a client, which waits for its program besides.
    Client,
    /// The process with the keys.
    Keyholder,
    /// A delivery: it calls one server after the other, and its message and its
    /// report may be files.
    Remote,
    /// What asks a web server for a policy, and answers into a pipe.
    Fetcher,
}

impl Process {
    /// Where it may connect to.
    fn connects(self) -> Connects {
        match self {
            Process::Engine | Process::Client | Process::Keyholder => Connects::Nowhere,
            Process::Remote => Connects::Anywhere,
            Process::Fetcher => Connects::Port(443),
        }
    }
}

/// Where a process may connect to by TCP, as far as the kernel can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connects {
    Nowhere,
    Anywhere,
    /// To this port of any host.
    Port(u16),
}

/// What can be had of a sandbox here, made ready once and taken on by every
/// process that is forked afterwards.
pub struct Sandbox {
    filter: Option<Filter>,
    landlock: Option<OwnedFd>,
    grows_a_file: bool,
    missing: Vec<String>,
}

/// How a sandbox is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// With its filter of system calls.
    pub filter: bool,
    /// The highest number of a descriptor that the process has.
    pub highest: i32,
}

impl Sandbox {
    /// Makes it ready. A server tries it in a process that ends at once; a client
    /// asks the kernel, which is quicker and nearly as sure.
    #[must_use]
    pub fn prepare(process: Process) -> Sandbox {
        let mut missing = Vec::new();
        let mut sandbox = Sandbox {
            filter: None,
            landlock: None,
            grows_a_file: grows_a_file(process),
            missing: Vec::new(),
        };
        match landlock::ruleset(process.connects()) {
            Ok(ruleset) => sandbox.landlock = Some(ruleset),
            Err(error) => missing.push(format!("Landlock ({})", reason(&error))),
        }
        match filter(process) {
            Ok(program) => {
                sandbox.filter = Some(program);
                let tried = match process {
                    Process::Client | Process::Remote | Process::Fetcher => {
                        is_known().map_err(Fail::from)
                    }
                    Process::Engine | Process::Keyholder => sandbox.try_out(),
                };
                if let Err(why) = tried {
                    sandbox.filter = None;
                    missing.push(format!("the filter of system calls ({why})"));
                }
            }
            Err(why) => missing.push(format!("the filter of system calls ({why})")),
        }
        sandbox.missing = missing;
        sandbox
    }

    /// A regular file that is open stays one to be written to.
    #[cfg(feature = "remote")]
    pub fn let_files_grow(&mut self) {
        self.grows_a_file = true;
    }

    /// Whether system calls are filtered.
    #[must_use]
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// What cannot be had here, and why, for an administrator.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The descriptor that must stay open until [`Sandbox::take_on`].
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.landlock.as_ref().map(AsFd::as_fd)
    }

    /// Gives up everything, for good. Call it after the last change of user,
    /// which would make the process dumpable again.
    ///
    /// # Errors
    /// As prctl(2), setrlimit(2), seccomp(2).
    pub fn take_on(mut self, confinement: Confinement) -> io::Result<()> {
        self.limit(confinement)?;
        drop(self.landlock.take());
        self.filter_calls(confinement)
    }

    /// The same in a forked process, which closes what its parent keeps.
    ///
    /// # Errors
    /// As [`Sandbox::take_on`].
    pub fn take_on_in(&self, forked: &Forked, confinement: Confinement) -> io::Result<()> {
        self.limit(confinement)?;
        self.disown(forked);
        self.filter_calls(confinement)
    }

    fn limit(&self, confinement: Confinement) -> io::Result<()> {
        confine()?;
        let highest = rlim_t::try_from(confinement.highest).unwrap_or(0) + 1;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(
            Resource::RLIMIT_NOFILE,
            highest.min(hard),
            highest.min(hard),
        )?;
        self.close_in()
    }

    fn filter_calls(&self, confinement: Confinement) -> io::Result<()> {
        match &self.filter {
            Some(filter) if confinement.filter => install(filter),
            _ => Ok(()),
        }
    }

    fn disown(&self, forked: &Forked) {
        if let Some(ruleset) = &self.landlock {
            forked.disown(ruleset);
        }
    }

    /// As [`Sandbox::take_on_in`], for the process with the keys, which goes on
    /// taking descriptors.
    ///
    /// # Errors
    /// As there.
    pub fn take_on_with_descriptors(&self, forked: &Forked) -> io::Result<()> {
        confine()?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        self.close_in()?;
        self.disown(forked);
        match &self.filter {
            Some(filter) => install(filter),
            None => Ok(()),
        }
    }

    /// Limits and Landlock.
    fn close_in(&self) -> io::Result<()> {
        if !self.grows_a_file {
            setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
        }
        if let Some(ruleset) = &self.landlock {
            landlock::restrict(ruleset)?;
        }
        Ok(())
    }

    /// Takes it on in a child, which must live to say so.
    fn try_out(&self) -> Result<(), Fail> {
        let child = process::spawn(|forked| {
            let confinement = Confinement {
                filter: true,
                highest: 2,
            };
            u8::from(self.take_on_in(&forked, confinement).is_err())
        })?;
        match process::wait_for(child) {
            Some(process::EndedChild { status: 0, .. }) => Ok(()),
            _ => Err("this system refuses it".into()),
        }
    }
}

/// Whether the log, or the report of a delivery, is a regular file: a limit on
/// file size would end us at the first line. An engine has neither.
fn grows_a_file(process: Process) -> bool {
    let regular = |about: FileStat| {
        SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
    };
    process != Process::Engine && fstat(io::stderr()).is_ok_and(regular)
        || process == Process::Remote && fstat(standard::three().1).is_ok_and(regular)
}

/// Makes `directory` the root and the working directory. Needs root.
///
/// # Errors
/// As chdir(2) and chroot(2).
pub fn enter(directory: &Path) -> io::Result<()> {
    chdir(directory)?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

/// Makes a directory without a name the root: nothing is in it, and nothing can
/// be made in it. Needs root.
///
/// # Errors
/// No directory can be made, or as chroot(2).
pub fn enter_nowhere() -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for parent in ["/run", "/tmp", "/var/tmp", "/dev/shm"] {
        let template = PathBuf::from(parent).join("ucspi-tls.XXXXXX");
        let made = match nix::unistd::mkdtemp(&template) {
            Ok(made) => made,
            Err(error) => {
                last = error.into();
                continue;
            }
        };
        let entered = chdir(&made);
        let removed = std::fs::remove_dir(&made);
        entered?;
        removed?;
        chroot(".")?;
        // Not "/": the directory has no name any more, and we are in it.
        return Ok(());
    }
    Err(last)
}

/// Gives up new privileges, new processes and core dumps for good, and keeps
/// other processes of the same user out of this one's memory. Call it after the
/// last change of user, which would make the process dumpable again.
///
/// # Errors
/// As prctl(2) and setrlimit(2).
pub fn confine() -> io::Result<()> {
    seal()?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    Ok(())
}

/// As [`confine`], for a process that must still fork.
///
/// # Errors
/// As prctl(2) and setrlimit(2).
pub fn seal() -> io::Result<()> {
    rights::stay_within()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}
