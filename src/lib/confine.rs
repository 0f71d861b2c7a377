//! What a process gives up that calls servers by itself: everything that this does
//! not need. It opens nothing after this but one connection after the other.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd as _;

use openssl::asn1::Asn1Time;

use crate::report::Fail;
use crate::settings::Filter;
use crate::sys::fd;
use crate::sys::sandbox::{Confinement, Role, Sandbox};

/// Takes a role's sandbox on, for good; a file that it has may grow, where `writes`
/// says so.
///
/// # Errors
/// It is required, and cannot be had.
pub fn take_on(role: Role, writes: bool) -> Result<(), Fail> {
    let filter = Filter::of_environment()?;
    let unable = Fail::unable("use a sandbox");
    // Libc reads the time zone when libcrypto first looks at a calendar.
    let _ = Asn1Time::days_from_now(0);
    // The next descriptor is the connection's, and there is one at a time.
    let next = match fd::duplicate_above(io::stdout(), 0) {
        Ok(next) => next,
        Err(error) => return Err(unable(error)),
    };
    let highest = next.as_raw_fd();
    drop(next);
    let mut sandbox = Sandbox::prepare(role);
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
        Err(error) if filter == Filter::Required => Err(unable(error)),
        _ => Ok(()),
    }
}
