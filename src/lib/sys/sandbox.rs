//! What a process that reads a peer's bytes gives up.

use std::io;
use std::path::Path;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{chdir, chroot};

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

/// Gives up new privileges, new processes and core dumps for good, and keeps
/// other processes of the same user out of this one's memory. Call it after the
/// last change of user, which would make the process dumpable again.
///
/// # Errors
/// As prctl(2) and setrlimit(2).
pub fn confine() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    Ok(())
}
