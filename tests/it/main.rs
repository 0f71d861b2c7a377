//! sslserver and sslclient from outside: real processes, real peers.
//!
//! Every server listens on a port that the kernel chose, every read has a
//! deadline, and a server that leaves a process behind fails its test.
#![forbid(unsafe_code)]
// The lints' exceptions for tests do not cover the functions around them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
// Of the harness each topic uses a part; a panic is what a test is for.
// Half of the words in these comments name a program or a protocol.
#![allow(clippy::doc_markdown)]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, missing_docs)]

mod harness;

mod agreement;
mod check;
mod client_run;
mod client_verify;
mod clients;
mod diagnosis;
mod ends;
mod environment;
mod handoff;
mod hostile;
mod isolation;
mod keys;
mod load;
mod logging;
mod names;
mod peers;
mod privileges;
mod programs;
mod proxy;
mod reload;
mod resumption;
mod scripts;
mod server_names;
mod signals;
mod sockets;
mod stores;
mod trust;
mod usage;
