//! Users, groups and roots: who runs the program and who reads the network.
#![forbid(unsafe_code)]

use std::process::Command;

use crate::harness::{program, run};

/// Words that run the rest as an ordinary user.
pub const AS_NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// Whether an ordinary user can run the programs where they were built.
pub fn reachable() -> bool {
    program("setpriv").is_some() && {
        let mut test = Command::new(AS_NOBODY[0]);
        test.args(&AS_NOBODY[1..]).args([
            "test",
            "-x",
            env!("CARGO_BIN_EXE_sslserver"),
            "-a",
            "-r",
            env!("CARGO_TARGET_TMPDIR"),
        ]);
        run(&mut test, b"").code == Some(0)
    }
}
