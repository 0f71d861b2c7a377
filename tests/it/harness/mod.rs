//! What every test stands on: certificates, a directory, child processes with
//! deadlines, servers that leave nothing behind, and TLS peers.

pub mod authority;
pub mod client;
pub mod daemons;
pub mod dial;
pub mod memory;
pub mod overlay;
pub mod peer;
pub mod place;
pub mod ports;
pub mod process;
pub mod programs;
pub mod rules;
pub mod server;
pub mod skip;

pub use authority::{Authority, Identity, KeyKind, Leaf};
pub use client::Client;
pub use dial::{Dial, End, Tls};
pub use peer::Peer;
pub use place::Place;
pub use process::{Finished, as_user_of_its_own, eventually, run};
pub use programs::{ours, program};
pub use rules::{compile, compile_destinations, compile_with};
pub use server::{Server, Setup};
pub(crate) use skip::{need, need_root, root, skip, skip_part, wanted};
