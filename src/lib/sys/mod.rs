//! Every call of the operating system, of libunbound and libgmp, and nearly all unsafe
//! code: each file turns one family of calls into safe functions that return
//! `io::Result`.

pub mod channel;
pub mod child;
pub mod clock;
pub mod fd;
#[cfg(gmp)]
pub mod gmp;
#[cfg(target_os = "linux")]
pub mod large_pages;
#[cfg(target_os = "linux")]
pub mod mappings;
pub mod memory;
pub mod outlet;
pub mod parcel;
pub mod poll;
pub mod poll_set;
pub mod process;
pub mod sandbox;
pub mod signal;
pub mod socket;
pub mod standard;
pub mod tcp;
#[cfg(validator)]
pub mod unbound;
pub mod user;
