//! ucspi-tls: TLS between the network and programs that know nothing of it.
//!
//! Modules stand in the order of the data's way; a file may use those above its
//! own line, never those below (tests/layers.rs holds them to it).

pub mod text;

pub mod report;

pub mod sys;

pub mod tls_ffi;

pub mod secret;

pub mod environ;

pub mod dialogue;

pub mod options;

pub mod resolve;

pub mod manager;

pub mod listener;

pub mod dialer;

pub mod proxy;

pub mod connection;

pub mod rulesdb;

pub mod watch;

pub mod rules;

pub mod tlsdestinations;

pub mod domaincerts;

pub mod routes;

pub mod settings;

pub mod hello;

pub mod trust;

pub mod store;

pub mod keyholder;

pub mod handshake;

pub mod session;

pub mod relay;

pub mod control;

pub mod child;

pub mod probe;

pub mod program;
