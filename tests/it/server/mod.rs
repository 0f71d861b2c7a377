//! sslserver: from its start to its reloads, with peers and programs of others.

mod bytes;
mod check;
mod clients;
mod delayed;
mod diagnosis;
mod ends;
mod environment;
mod hostile;
mod isolation;
mod keys;
mod libraries;
mod load;
mod logging;
mod manager;
mod names;
pub mod peers;
mod privileges;
mod programs;
mod proxy;
mod reload;
mod resumption;
mod scripts;
mod server_names;
mod signals;
pub mod sockets;
mod stores;
mod trust;
