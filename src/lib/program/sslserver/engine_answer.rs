//! What an engine tells its launcher over the control socket, both ends: the session's
//! variables, when the handshake is over. End of file instead is failure, and the program
//! is never started.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, OwnedFd};

use crate::environ::Edits;
use crate::session;
use crate::sys::fd;

/// An engine that writes more variables than this is not one of ours.
const VARIABLES_LIMIT: usize = 1024 * 1024;

/// Says that the handshake is over.
pub(super) fn tell(control: &OwnedFd, variables: &Edits) {
    // A launcher that is gone takes the connection with it: its side of the
    // channel is closed too.
    let _ = fd::write_all(control, &variables.to_wire());
}

/// Waits for the variables; `None` where the engine failed, which said why.
pub(super) fn wait(control: &OwnedFd) -> Option<Edits> {
    let mut wire = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match fd::read_some(control.as_fd(), &mut buffer) {
            Ok(0) => {
                let mut edits = Edits::from_wire(&wire)?;
                edits.restrict(session::is_variable);
                return Some(edits);
            }
            Ok(count) if wire.len() < VARIABLES_LIMIT => wire.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}
