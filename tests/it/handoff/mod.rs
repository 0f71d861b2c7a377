//! starttls-handoff: alone under a server that the test plays, and under
//! sslserver.

mod played;

mod attacks;
mod bad_input;
mod departure;
mod policy;
mod real;
mod start;
mod under_sslserver;
mod upgrade;
