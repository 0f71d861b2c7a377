//! Finds libunbound, and says whether the programs check DNSSEC themselves: the
//! condition `validator`.
#![forbid(unsafe_code)]

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(validator)");
    for name in ["PKG_CONFIG", "PKG_CONFIG_PATH", "LIBUNBOUND_LIB_DIR"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    // A program without shared libraries has no use for the system's.
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    if env::var_os("CARGO_FEATURE_UNBOUND").is_none() || is_static {
        return;
    }
    if let Ok(folder) = env::var("LIBUNBOUND_LIB_DIR") {
        println!("cargo::rustc-link-search=native={folder}");
    } else if !find() {
        println!(
            "cargo::error=libunbound was not found: please install its development files \
             (libunbound-dev or unbound-devel), or name the library's directory in \
             LIBUNBOUND_LIB_DIR, or build without it: --no-default-features --features remote"
        );
    }
    println!("cargo::rustc-link-lib=unbound");
    println!("cargo::rustc-cfg=validator");
}

/// Asks pkg-config where it is. Without pkg-config the linker has to know.
///
/// The crate pkg-config asks for compiler flags, too, and fails where the headers
/// are missing of libraries that only libunbound itself is built with.
fn find() -> bool {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let asked = Command::new(program)
        .args(["--libs-only-L", "libunbound"])
        .output();
    let Ok(output) = asked else {
        return true;
    };
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    for folder in words
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("-L"))
    {
        println!("cargo::rustc-link-search=native={folder}");
    }
    output.status.success()
}
