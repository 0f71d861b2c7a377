//! The place where a program of the tests behaves as a process of ours would that a
//! peer has taken over, once it has given up its rights. Only the feature
//! `internals` has it, so no program that is installed.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

/// What such a process can reach beside its peer and its program.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// An engine's link to the keyholder.
    pub keyholder: BorrowedFd<'a>,
    /// An engine's channel to the supervisor.
    pub supervisor: BorrowedFd<'a>,
}

/// When it does something.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// An engine begins, and nobody has heard of it.
    Begun,
    /// It has given up its rights. A delivery has none of an engine's descriptors.
    Confined(Option<Reach<'a>>),
    /// The process that fetches a policy has given up its rights.
    Fetching,
    /// An engine's work is done.
    Done,
}

/// What it does then.
pub type Deed = fn(Moment<'_>);

static DEED: OnceLock<Deed> = OnceLock::new();

/// Has every engine and every delivery of this program do that.
pub fn by(deed: Deed) {
    let _ = DEED.set(deed);
}

/// Does it.
pub(crate) fn act(moment: Moment<'_>) {
    if let Some(deed) = DEED.get() {
        deed(moment);
    }
}
