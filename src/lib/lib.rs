//! ucspi-tls: TLS between the network and programs that know nothing of it.
//!
//! Modules stand in the order of the data's way; a file may use those above its
//! own line, never those below (tests/layers.rs holds them to it). The table of
//! doc/architecture.md says what each owns.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests have threads"))]
#![cfg_attr(test, allow(clippy::incompatible_msrv, reason = "of the programs"))]
#![cfg_attr(test, allow(clippy::too_many_lines, reason = "a table may be long"))]

/// A peer's bytes made safe to show; numbers within limits; hex and base32.
mod text;

/// Days and moments in UTC.
#[cfg(feature = "remote")]
mod calendar;

/// What an attacker does in the place of one of our processes, for tests.
#[cfg(feature = "internals")]
mod taken_over;

/// What went wrong, how it is told, and the exit code.
mod report;

/// qmail's directory and its control files.
#[cfg(feature = "remote")]
mod qmail_home;

/// The operating system's calls, made safe.
mod sys;

/// Descriptor 2 of a server, which waits for no reader of it.
mod log;

/// OpenSSL's calls that the openssl crate lacks, made safe.
mod tls_ffi;

/// Passwords, wiped when they are given up.
mod secret;

/// Ordered edits of a program's environment.
mod environ;

/// The mail protocols up to the start of TLS.
mod dialogue;

/// Command lines: a table for each program.
mod options;

/// Names, asked of the system's resolver.
mod resolve;

/// A host's name as it leaves this machine; whom a certificate must name.
mod host_name;

/// The service manager: its socket, its messages.
mod manager;

/// Bind and listen.
mod listener;

/// Connect, one address after the other.
mod dialer;

/// The PROXY header.
mod proxy;

/// Both ends of a connection: addresses, names, ident.
mod connection;

/// cdb files.
mod rulesdb;

/// Which files have changed.
mod watch;

/// Rules of tcprules, and the one that a client meets.
mod rules;

/// tlsdestinations(5): what outbound mail asks of servers.
mod tlsdestinations;

/// domaincerts: client certificates by sender.
mod domaincerts;

/// smtproutes and its like: where mail goes.
mod routes;

/// The TLS settings: names, defaults, checks.
mod settings;

/// What a ClientHello offers.
mod hello;

/// What is expected of a peer's certificate, and the verdict on it.
mod trust;

/// Questions to DNS servers; DNSSEC.
#[cfg(feature = "remote")]
mod dns;

/// TLS reporting (RFC 8460).
#[cfg(feature = "remote")]
mod tlsrpt;

/// Settings made into certificates, anchors and contexts.
mod store;

/// What DANE asks of a server (RFC 7672).
#[cfg(feature = "remote")]
mod dane;

/// The processes with the private keys.
mod keyholder;

/// A socket and a context made into a session.
mod handshake;

/// What a process gives up that calls servers.
#[cfg(feature = "remote")]
mod confine;

/// One connection to a server, with deadlines.
#[cfg(feature = "remote")]
mod transport;

/// One request to a web server.
#[cfg(feature = "remote")]
mod https;

/// MTA-STS (RFC 8461).
#[cfg(feature = "remote")]
mod mta_sts;

/// A session's variables, and its line in the log.
mod session;

/// Bytes between a session and a program.
mod relay;

/// The server's end of UCSPI-TLS.
mod control;

/// Becoming the program.
mod child;

/// What a server was found to speak.
#[cfg(feature = "remote")]
mod probe;

/// Many results of probes, counted and compared.
#[cfg(feature = "remote")]
mod survey;

/// The programs, a file or folder each.
mod program;

#[cfg(feature = "internals")]
pub mod internals;

/// What `src/bin` calls: a function a program, each of which begins as every process
/// of ours does.
macro_rules! programs {
    ($($(#[$condition:meta])? $name:ident)*) => {
        $(
            /// The whole program: see its man page.
            $(#[$condition])?
            #[must_use]
            pub fn $name() -> std::process::ExitCode {
                sys::signal::begin();
                program::$name::main()
            }
        )*
    };
}

programs! {
    #[cfg(feature = "remote")]
    qmail_sslremote
    sslclient
    #[cfg(feature = "remote")]
    sslprobe
    #[cfg(feature = "remote")]
    sslreport
    sslrules
    sslrulescheck
    sslserver
    sslserver_conf
    #[cfg(feature = "remote")]
    sslsurvey
    starttls_handoff
}
