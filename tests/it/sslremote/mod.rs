//! qmail-sslremote under a stand-in for qmail-rspawn: real DNS, real and
//! scripted servers, reports compared and messages compared byte by byte.

pub mod dns;
mod fake;
pub mod packet;
pub mod postfix;
pub mod remote;
pub mod tree;

mod certificates;
mod confinement;
mod dane;
#[cfg(validator)]
mod dane_delivery;
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
#[cfg(validator)]
mod preview;
mod qmail_remote;
mod qmtp;
mod real;
#[cfg(validator)]
mod reporting;
mod resolvers;
mod rows;
#[cfg(validator)]
mod second_opinion;
mod stages;
mod sts;
#[cfg(validator)]
mod sts_matrix;
#[cfg(validator)]
mod tlsa;
mod verify;
pub mod web;
