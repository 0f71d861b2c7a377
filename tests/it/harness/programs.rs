//! The programs under test, and those of others.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Where the programs are that are tested in place of those that cargo built
/// with the tests: package/rts names the folder of those that get installed.
const FOLDER: &str = "UCSPI_TLS_PROGRAMS";

/// The path of a program or shell tool of ours.
pub fn ours(name: &str) -> String {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/sh")
        .join(name);
    // A tool is its own source.
    let path = if tool.is_file() {
        tool
    } else {
        folder().join(name)
    };
    assert!(path.is_file(), "{}: no such program", path.display());
    path.to_str().unwrap().to_owned()
}

/// The folder of the programs that are tested.
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(built, PathBuf::from)
}

/// Whether they are those that get installed: package/rts has built them.
pub fn are_installed_ones() -> bool {
    std::env::var_os(FOLDER).is_some()
}

/// The path of the program that behaves as an attacker's; nobody installs it.
pub fn taken_over() -> String {
    let path = built().join("taken-over");
    path.to_str().unwrap().to_owned()
}

/// Where cargo puts what it builds with the tests.
fn built() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_taken-over"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Whether a program is found, in PATH or in the folders of daemons.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .chain(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().map(
            // What package/rts fetches into a directory of its own.
            |built| built.join(name).join("bin"),
        ))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
