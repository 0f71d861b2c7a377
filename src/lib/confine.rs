//! What a process gives up that calls servers by itself: everything that this does
//! not need. It opens nothing after this but one connection after the other.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd as _};

use openssl::asn1::Asn1Time;

use crate::report::Fail;
use crate::settings::Filter;
use crate::sys::fd;
use crate::sys::sandbox::{Confinement, Process, Sandbox};

/// Whether a process may be made that will take the sandbox of its kind on.
///
/// # Errors
/// As [`take_on`].
pub fn check(process: Process) -> Result<(), Fail> {
    Filter::of_environment()?.check(&Sandbox::prepare(process))
}

/// Takes the sandbox on, for good; a file that it has may grow, where `writes`
/// says so. `last` has the highest number of the descriptors that stay.
///
/// # Errors
/// It is required, and cannot be had.
pub fn take_on(process: Process, writes: bool, last: impl AsFd) -> Result<(), Fail> {
    let filter = Filter::of_environment()?;
    // Libc reads the time zone when libcrypto first looks at a calendar.
    let _ = Asn1Time::days_from_now(0);
    // The next descriptor is the connection's, and there is one at a time.
    let next = fd::duplicate_above(&last, 0).map_err(Fail::unable("use a sandbox"))?;
    let highest = next.as_raw_fd().max(last.as_fd().as_raw_fd());
    drop(next);
    let mut sandbox = Sandbox::prepare(process);
    if writes {
        sandbox.let_files_grow();
    }
    filter.check(&sandbox)?;
    let confinement = Confinement {
        filter: filter != Filter::Off,
        highest,
    };
    match sandbox.take_on(confinement) {
        // A kernel that refuses is no reason to keep the mail.
        Err(error) if filter == Filter::Required => Err(Fail::unable("use a sandbox")(error)),
        _ => Ok(()),
    }
}
