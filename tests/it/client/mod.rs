//! sslclient: what it does for its program, and whom it trusts.

mod run;
mod verify;
