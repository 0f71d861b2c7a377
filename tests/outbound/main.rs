//! sslclient's ways out: STARTTLS dialogues and per-partner policy, against
//! scripted servers and those of others.
#![forbid(unsafe_code)]
// The lints' exceptions for tests do not cover the functions around them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
// Of the harness each topic uses a part; a panic is what a test is for.
#![allow(dead_code, unused_imports, unused_macros)]
#![allow(clippy::doc_markdown)]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, missing_docs)]

#[path = "../it/harness/mod.rs"]
mod harness;

mod daemons;
mod gate;
mod hostile;
mod policy;
mod upgrade;
