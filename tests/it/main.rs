//! The programs from outside: real processes, real peers. A folder a program,
//! a file a subject; what all of them stand on is in [`harness`].
//!
//! Every server listens on a port that the kernel chose, every read has a
//! deadline, and a server that leaves a process behind fails its test.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "tests have threads")]
#![allow(clippy::too_many_lines, reason = "a table may be long")]
#![allow(
    clippy::incompatible_msrv,
    reason = "rust-version is that of the programs"
)]
// The lints' exceptions for tests do not cover the functions around them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
// Half of the words in these comments name a program or a protocol.
#![allow(clippy::doc_markdown)]
// A panic is what a test is for.
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, missing_docs)]
// A build without one of the programs leaves helpers without work.
#![cfg_attr(
    not(all(feature = "remote", validator)),
    allow(dead_code, unused_imports)
)]

mod harness;

mod agreement;
#[cfg(feature = "remote")]
mod anchors;
mod client;
mod closed;
mod conf;
#[path = "../guides/mod.rs"]
mod guides;
mod handoff;
mod messages;
mod outbound;
#[path = "../packages/mod.rs"]
mod packages;
mod pages;
mod rules;
mod server;
#[path = "../services/mod.rs"]
mod services;
mod shell;
#[cfg(feature = "remote")]
mod short_of_memory;
#[cfg(feature = "remote")]
mod sslprobe;
#[cfg(feature = "remote")]
mod sslremote;
#[cfg(feature = "remote")]
mod sslreport;
#[cfg(feature = "remote")]
mod sslsurvey;
mod usage;
