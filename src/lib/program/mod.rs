//! One file per program: it joins the steps of the modules above.

pub mod sslclient;
pub mod sslrules;
pub mod sslrulescheck;
pub mod sslserver;
