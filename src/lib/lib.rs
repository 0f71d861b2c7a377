//! ucspi-tls: TLS between the network and programs that know nothing of it.
//!
//! Modules stand in the order of the data's way; a file may use those above its
//! own line, never those below (tests/layers.rs holds them to it). The table of
//! doc/architecture.md says what each owns.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests have threads"))]
#![cfg_attr(test, allow(clippy::incompatible_msrv, reason = "of the programs"))]

mod text;

#[cfg(feature = "remote")]
mod calendar;

#[cfg(feature = "internals")]
mod taken_over;

mod report;

#[cfg(feature = "remote")]
mod qmail_home;

mod sys;

mod tls_ffi;

mod secret;

mod environ;

mod dialogue;

mod options;

mod resolve;

mod manager;

mod listener;

mod dialer;

mod proxy;

mod connection;

mod rulesdb;

mod watch;

mod rules;

mod tlsdestinations;

mod domaincerts;

mod routes;

mod settings;

mod hello;

mod trust;

#[cfg(feature = "remote")]
mod dns;

#[cfg(feature = "remote")]
mod tlsrpt;

mod store;

mod keyholder;

mod handshake;

#[cfg(feature = "remote")]
mod confine;

#[cfg(feature = "remote")]
mod link;

#[cfg(feature = "remote")]
#[allow(dead_code, reason = "reports will be posted")]
mod https;

#[cfg(feature = "remote")]
#[allow(dead_code, reason = "its users come next")]
mod mta_sts;

mod session;

mod relay;

mod control;

mod child;

#[cfg(feature = "remote")]
mod probe;

#[cfg(feature = "remote")]
mod survey;

mod program;

#[cfg(feature = "internals")]
pub mod internals;

#[cfg(feature = "remote")]
pub use program::qmail_sslremote::main as qmail_sslremote;
pub use program::sslclient::main as sslclient;
#[cfg(feature = "remote")]
pub use program::sslprobe::main as sslprobe;
#[cfg(feature = "remote")]
pub use program::sslreport::main as sslreport;
pub use program::sslrules::main as sslrules;
pub use program::sslrulescheck::main as sslrulescheck;
pub use program::sslserver::main as sslserver;
pub use program::sslserver_conf::main as sslserver_conf;
#[cfg(feature = "remote")]
pub use program::sslsurvey::main as sslsurvey;
pub use program::starttls_handoff::main as starttls_handoff;
