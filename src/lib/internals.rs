//! The one door to what is private: all that tests, benches and fuzz targets
//! reach beside the programs themselves. Only the feature `internals` opens it.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "each item is documented where it is written")]

#[cfg(feature = "remote")]
pub use crate::dialogue::client;
#[cfg(feature = "remote")]
pub use crate::dns::name;
pub use crate::keyholder::{OwnKey, hours, judge, link, protocol};
#[cfg(feature = "remote")]
pub use crate::store::pool as anchor_pool;
pub use crate::store::{client as client_store, permit};
pub use crate::sys::{fd, socket};
pub use crate::tls_ffi::{provider, resume, tickets, update_keys};
pub use crate::trust::dane;

/// sslserver with keys that make tickets for so long.
#[must_use]
pub fn sslserver_with_ticket_life(life: std::time::Duration) -> std::process::ExitCode {
    crate::sys::signal::begin();
    crate::program::sslserver::serve(life)
}

pub mod control {
    pub use crate::control::{TlsCommand, command_in};
}
pub mod dialogue {
    pub use crate::dialogue::{Dialogue, Event, HIGH_WATER, LINE_LIMIT, Protocol, Settings};
}
#[cfg(feature = "remote")]
pub mod dns {
    pub use crate::dns::*;
}
pub mod domaincerts {
    pub use crate::domaincerts::look_up;
}
pub mod environ {
    pub use crate::environ::Edits;
}
pub mod handoff {
    pub use crate::program::starttls_handoff::ucspi_tls::Variables;
}
pub mod handshake {
    pub use crate::handshake::{HandshakeFailure, Side, perform};
}
pub mod hello {
    pub use crate::hello::{FiniteField, FiniteGroup, Terms, record};
    pub use crate::store::KeyKind;
}
#[cfg(feature = "remote")]
pub mod https {
    pub use crate::https::reply::{NoReply, read};
    pub use crate::https::{
        Client, End, FailureKind, LIMITS, Limits, Method, NoResponse, Request, Response,
    };
}
pub mod ident {
    pub use crate::connection::ident_user;
}
pub mod manager {
    pub use crate::manager::VARIABLES;
}
#[cfg(feature = "remote")]
pub mod mta_sts {
    pub use crate::mta_sts::PolicyDomain;
    pub use crate::mta_sts::cache::{Cache, now, parsed, written};
    pub use crate::mta_sts::policy::{Mode, Policy};
    pub use crate::mta_sts::record::id;
}
pub mod options {
    pub use crate::options::{
        Letter, Table, sslclient, sslrules, sslrulescheck, sslserver, sslserver_conf,
        starttls_handoff,
    };
    #[cfg(feature = "remote")]
    pub use crate::options::{sslprobe, sslreport, sslsurvey};
}
#[cfg(feature = "remote")]
pub mod probe {
    pub use crate::probe::certificate::Verifier;
    pub use crate::probe::result::HostResult;
    pub use crate::probe::wire::message::{KeyExchange, ServerHello, certificates};
    pub use crate::probe::wire::reader::{Reader, ServerReply};
    pub use crate::program::sslprobe::destination::{parse, units};
}
pub mod proxy {
    pub use crate::proxy::{Header, Malformed, Networks, Reader};
}
pub mod report {
    pub use crate::report::{NEVER, TEMPORARY};
}
#[cfg(feature = "remote")]
pub mod routes {
    pub use crate::routes::{Origin, Routes, Table};
}
pub mod rules {
    pub use crate::rules::{Action, Client, Rules, Scope, compile};
}
pub mod rulesdb {
    pub use crate::rulesdb::{Database, replace};
}
pub mod session {
    pub use crate::session::{describe, is_variable};
}
pub mod settings {
    pub use crate::settings::{
        ClientCertificate, Filter, Judged, NAMES, Settings, Version, called, connections,
        is_setting, unknown_cipher_words,
    };
    pub use crate::store::client_certificates::pins_in;
}
#[cfg(feature = "remote")]
pub mod survey {
    pub use crate::survey::changes::{Run, compare};
    pub use crate::survey::table::{Layout, changes, survey};
    pub use crate::survey::{Collector, reader};
}
pub mod tlsdestinations {
    pub use crate::tlsdestinations::{Destination, Destinations, Tls, compile, remarks};
}
#[cfg(feature = "remote")]
pub mod tlsrpt {
    pub use crate::program::sslreport::ledger;
    pub use crate::tlsrpt::*;
}
pub mod trust {
    #[cfg(feature = "remote")]
    pub use crate::host_name::HostName;
    #[cfg(feature = "remote")]
    pub use crate::trust::Published;
    pub use crate::trust::{Expectation, Fault, Name, Reference, Refusal, verdict};
}
pub mod taken_over {
    pub use crate::taken_over::{Deed, Moment, Reach, by};
}
