//! What a server was found to speak: the bytes by which it is asked, the tables
//! by which its answers are named, the result as JSON and in words. Nothing here
//! opens a connection; the probing itself is the program's.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod findings;
pub mod groups;
pub mod partner;
pub mod primes;
pub mod report_text;
pub mod result;
pub mod senders;
pub mod suites;
pub mod wire;
