//! What package/ makes, installed and removed on machines that are thrown away:
//! each test is a part of package/test-packages, with the programs that package/rts
//! has built. What this machine cannot have done is skipped, with the reason.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{need_root, programs, skip};

/// package/test-packages: the part cannot be had here.
const CANNOT: i32 = 99;

/// How long a part may take that compiles nothing, in seconds.
const DEADLINE: &str = "1200";

/// Does a part, or says why it cannot be done.
///
/// # Panics
///
/// When it fails, with all that was said.
fn perform(part: &str) {
    if !programs::are_installed_ones() {
        skip!("only package/rts builds what gets installed");
    }
    need_root!();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("package/test-packages");
    let ended = Command::new("timeout")
        .args(["--signal=TERM", "--kill-after=60", DEADLINE])
        .arg(script)
        .args(["--built", part])
        .stdin(Stdio::null())
        .output()
        .expect("timeout");
    let said = String::from_utf8_lossy(&ended.stderr);
    if ended.status.code() == Some(CANNOT) {
        skip!("{}", said.lines().last().unwrap_or("no reason was given"));
    }
    assert!(ended.status.success(), "{}\n{said}", ended.status);
    println!("{said}");
}

#[test]
fn what_is_installed_can_be_replaced_and_removed() {
    perform("install");
}

#[test]
fn the_debian_package_goes_into_a_fresh_debian_and_out_again() {
    perform("deb");
}

#[test]
fn a_newcomer_gets_from_readme_to_two_services_in_a_fresh_debian() {
    perform("walk");
}
