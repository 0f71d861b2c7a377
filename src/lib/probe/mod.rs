//! What a server was found to speak: the bytes by which it is asked, the tables
//! by which its answers are named, the result as JSON and in words. Nothing here
//! opens a connection; the probing itself is the program's.
#![forbid(unsafe_code)]

pub mod groups;
pub mod primes;
pub mod result;
pub mod suites;
pub mod wire;
