//! Where private keys live: processes of their own, which read the key files,
//! give up everything else, and sign what a TLS server signs and give the keys of
//! single tickets.
//!
//! A [`Master`] is forked at start, before anything else is. It alone keeps the
//! password, makes the keys of tickets ([`hours`]), and forks a keyholder's
//! workers whenever stores are loaded or a worker died; these, the [`process`]es with
//! the private keys, sign what the [`judge`] lets pass. A [`Keyholder`] is the
//! supervisor's end of the workers of one generation of stores, each a [`Worker`], and
//! [`Keyholders`] are all that it has; [`link`] is the engine's end of one connection's link.
#![forbid(unsafe_code)]

mod holder;
mod holders;
pub mod hours;
pub mod judge;
mod keys;
pub mod link;
mod loading;
mod local;
mod master;
mod meanwhile;
mod permits;
mod process;
pub mod protocol;
mod service;
mod worker;

pub use holder::{Keyholder, LinkId};
pub use holders::Keyholders;
pub use loading::{KeySource, KeyTable, Loading, Recipe};
#[cfg(feature = "remote")]
pub use local::BY_LINE;
pub use local::{BY_LETTER, BY_LINE_OR_LETTER, OwnKey, Password};
pub use master::Master;
pub use meanwhile::{Alone, Meanwhile};
pub use worker::Worker;
