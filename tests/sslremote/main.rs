//! qmail-sslremote under a stand-in for qmail-rspawn: real DNS, real and
//! scripted servers, reports compared and messages compared byte by byte.
#![forbid(unsafe_code)]
#![cfg(feature = "remote")]
// The lints' exceptions for tests do not cover the functions around them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
// Of the harness each topic uses a part; a panic is what a test is for.
#![allow(dead_code, unused_imports, unused_macros)]
#![allow(clippy::doc_markdown)]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, missing_docs)]

#[path = "../it/harness/mod.rs"]
mod harness;

#[path = "../outbound/daemons.rs"]
mod daemons;
mod dns;
mod fake;
mod packet;
mod postfix;
mod remote;
mod tree;

mod certificates;
mod confinement;
mod dane;
#[cfg(validator)]
mod dnssec;
mod failures;
mod hostile;
mod login;
#[cfg(validator)]
mod matrix;
mod names;
mod origin;
mod passing_over;
mod qmail_remote;
mod qmtp;
mod real;
mod resolvers;
mod rows;
mod stages;
#[cfg(validator)]
mod tlsa;
mod verify;
