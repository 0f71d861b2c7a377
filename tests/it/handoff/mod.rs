//! starttls-handoff: alone under a server that the test plays, and under
//! sslserver.

mod alone;
mod under_sslserver;
