//! A home of qmail's and names for it, which are the tests' own.
#![forbid(unsafe_code)]

#[path = "../../tests/it/sslremote/dns.rs"]
pub mod dns;
#[path = "../../tests/it/sslremote/packet.rs"]
pub mod packet;
#[path = "../../tests/it/sslremote/remote.rs"]
pub mod remote;
