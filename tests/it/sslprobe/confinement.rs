//! What the process that reads a server's bytes has given up by then.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use super::command;
use super::server::{Scripted, line};
use crate::harness::process::{group, kill_group, status_field, without_filters};
use crate::harness::{eventually, root, run};

#[test]
fn the_process_that_reads_is_nobody_and_may_do_little() {
    // It greets, and never answers EHLO.
    let server = Scripted::start(|stream, _, seen| {
        let _ = std::io::Write::write_all(stream, b"220 mx\r\n");
        seen.lines.extend(line(stream));
        let _ = line(stream);
    });
    let at = server.at.to_string();
    let mut probe = command(&["-y", "smtp", &at]);
    let probe = probe.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = probe.process_group(0).spawn().expect("started");
    server.connections(1);
    let status = eventually("a process that waits for a server", || {
        let own = child.id().cast_signed();
        let reader = group(child.id()).into_iter().find(|one| one.pid != own)?;
        let status = fs::read_to_string(format!("/proc/{}/status", reader.pid)).ok()?;
        (status_field(&status, "Seccomp") == "2").then_some(status)
    });
    assert_eq!(status_field(&status, "NoNewPrivs"), "1");
    if root() {
        assert_eq!(status_field(&status, "Uid"), "65534 65534 65534 65534");
        assert_eq!(status_field(&status, "Gid"), "65534 65534 65534 65534");
        assert_eq!(status_field(&status, "CapEff"), "0000000000000000");
    }
    kill_group(child.id());
    child.wait().expect("ended");
}

#[test]
fn a_probe_told_to_require_the_filter_calls_nobody_without() {
    let server = Scripted::start(|stream, _, _| {
        let _ = std::io::Write::write_all(stream, b"220 mx\r\n");
    });
    let at = server.at.to_string();
    let probe = |value: &str| {
        let mut probe = command(&["-y", "smtp", &at]);
        run(probe.env("SSL_SANDBOX", value), b"")
    };
    for (value, said) in [
        ("require", "this system lacks the filter of system calls ("),
        ("required", "not one of 0, 1, require"),
    ] {
        let fatal = format!("sslprobe: fatal: unable to use SSL_SANDBOX: \"{value}\": {said}");
        without_filters(|| probe(value)).failed(111, &fatal);
    }
    assert_eq!(server.seen().len(), 0);
    assert_eq!(without_filters(|| probe("1")).code, Some(1));
}
