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
pub mod process;
pub mod server;

pub use authority::{Authority, Identity, KeyKind, Leaf};
pub use client::Client;
pub use dial::{Dial, End, Tls};
pub use peer::Peer;
pub use place::Place;
pub use process::{Finished, eventually, run};
pub use server::{Server, Setup};

/// Whether this process may change users, mount and bind low ports.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a program is found, in PATH or in the folders of daemons.
pub fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Ends a test that cannot run here, and says why.
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("skipped: {}", format_args!($($reason)*));
        return;
    }};
}
pub(crate) use skip;

/// The path of a program, or the end of the test.
macro_rules! need {
    ($name:expr) => {
        match crate::harness::program($name) {
            Some(path) => path,
            None => crate::harness::skip!("{} is not installed", $name),
        }
    };
}
pub(crate) use need;

/// Ends a test that only root can run.
macro_rules! need_root {
    () => {
        if !crate::harness::root() {
            crate::harness::skip!("only root can do this");
        }
    };
}
pub(crate) use need_root;
