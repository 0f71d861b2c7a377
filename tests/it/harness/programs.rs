//! The programs under test, and those of others.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Where the programs are that are tested in place of those that cargo built
/// with the tests: package/rts names the folder of those that get installed.
const FOLDER: &str = "UCSPI_TLS_PROGRAMS";

/// The path of a program or shell tool of ours.
pub fn ours(name: &str) -> String {
    let path = std::env::var_os(FOLDER)
        .map_or_else(|| built(name), |folder| PathBuf::from(folder).join(name));
    assert!(path.is_file(), "{}: no such program", path.display());
    path.to_str().unwrap().to_owned()
}

/// What cargo built with the tests. The shell tools are their own source.
fn built(name: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/sh")
        .join(name);
    if tool.is_file() {
        return tool;
    }
    Path::new(env!("CARGO_BIN_EXE_sslserver")).with_file_name(name)
}

/// Whether a program is found, in PATH or in the folders of daemons.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
