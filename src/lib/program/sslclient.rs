//! sslclient: see sslclient(1).
#![forbid(unsafe_code)]

use std::net::{IpAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Naming, shown};
use crate::dialer::{DeadlineSocket, Dialer};
use crate::dialogue;
use crate::handshake::{self, HandshakeFailure, Session, Side};
use crate::keyholder::OwnKey;
use crate::log;
use crate::options::sslclient::{Options, TABLE};
use crate::report::{Fail, Report, tls_reason};
use crate::resolve;
use crate::session::{self, Account, Role};
use crate::settings;
use crate::store::client::{self, Store};
use crate::sys::process;
use crate::text;
use crate::tls_ffi;
use crate::trust::{self, Reference, Refusal};

mod gate;
mod material;
mod plan;
mod serve;

use plan::Plan;

/// The settings that this program reads from its environment.
const SETTINGS: [&str; 5] = [
    "CIPHERSUITES",
    "SSL_SANDBOX",
    "TLS_GROUPS",
    "TLS_MAX",
    "TLS_MIN",
];

/// What ucspi tools take for a host on this machine.
const THIS_HOST: &str = "127.0.0.1";

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    tls_ffi::freed::take_over();
    TABLE.run(run)
}

fn run(report: &mut Report) -> Result<u8, Fail> {
    let (mut options, operands) = TABLE.parse(std::env::args_os().skip(1))?;
    let common = &options.common;
    report.set_verbosity(common.verbosity);
    let report = *report;
    // -w ends the session, whoever reads what is said of it.
    let _log = log::begin(report.program);
    let (host, port, program) = TABLE.host_port_program(operands)?;
    let host = if matches!(host.as_str(), "0" | "") {
        THIS_HOST
    } else {
        &host
    };
    let called = Called::read(host, options.name.as_deref())?;
    if options.explain {
        return gate::explain(&options, host);
    }
    if program.is_empty() {
        return Err(TABLE.usage("too few arguments"));
    }
    let Called {
        host,
        name,
        reference,
    } = called;
    options.name = name;
    for misspelt in settings::misspelt_in_environment(&SETTINGS) {
        report.warning(misspelt);
    }
    let port = resolve::port(&port).map_err(|wrong| TABLE.misused(wrong))?;
    let plan = Plan::make(&options, &host, &reference, port)?;
    let store = material::store(&options, &plan)?;
    for finding in &store.findings {
        report.finding(finding);
    }
    let stream = connect(&report, &options, &host, plan.port)?;
    let connection = describe(&options, &stream)?;
    let (first, second) = options.connect_seconds;
    // Whatever comes before the program is run has this much time in all.
    let limit = Duration::from_secs(u64::from(first) + u64::from(second));
    let begun = Instant::now();
    let greeting = upgrade(&plan, &connection, &stream, begun + limit)?;
    let limit = limit.saturating_sub(begun.elapsed());
    let session = secure(&plan, &store, &reference, stream, limit);
    OwnKey::forget();
    let session = session?;
    let verdict = trust::verdict(session.ssl()).map_err(|refusal| untrusted(&refusal, &plan))?;
    if let Some(passed) = plan.let_pass(&verdict) {
        report.warning(passed);
    }
    let account = Account {
        ssl: session.ssl(),
        role: Role::Client,
        verdict,
        own_chain: &store.own_chain,
    };
    report.tls(account.line(process::own_id()));
    let mut edits = session::stale();
    edits.extend(connection.variables(common.family, common.tcp_names));
    edits.extend(account.variables(common.full));
    serve::serve(&report, &options, session, &greeting, &program, &edits)
}

/// Who is called, in ASCII.
struct Called {
    /// As the system's resolver takes it.
    host: String,
    /// The same of `-m`.
    name: Option<String>,
    /// Whom the certificate must name, and what SNI says.
    reference: Reference,
}

impl Called {
    fn read(host: &str, name: Option<&str>) -> Result<Called, Fail> {
        let (host, own) = named("host", host)?;
        let other = name.map(|name| named("-m", name)).transpose()?;
        let (name, other) = other.unzip();
        Ok(Called {
            host,
            name,
            reference: other.unwrap_or(own),
        })
    }
}

/// A host as the system's resolver takes it, and as SNI and certificates have it.
fn named(what: &str, host: &str) -> Result<(String, Reference), Fail> {
    let reference = Reference::parse(host).map_err(|why| {
        let shown = text::excerpt(host.as_bytes(), 100);
        TABLE.usage(format!("{what} \"{shown}\" is no host name: {why}"))
    })?;
    let text = match &reference {
        Reference::Host(name) if !host.is_ascii() => name.to_string(),
        _ => host.to_owned(),
    };
    Ok((text, reference))
}

/// A connection to the first address that answers.
fn connect(report: &Report, options: &Options, host: &str, port: u16) -> Result<TcpStream, Fail> {
    let common = &options.common;
    let mut addresses = resolve::addresses(host, port, common.family, common.interface.as_deref())?;
    if let Some(local) = options.local_address {
        // From an address of one family none of the other can be reached.
        addresses.retain(|address| address.is_ipv4() == local.is_ipv4());
    }
    let dialer = Dialer {
        seconds: options.connect_seconds,
        local_address: options.local_address,
        local_port: options.local_port,
    };
    let stream = dialer.connect(&addresses).map_err(|mut failed| {
        let sentence = |address: std::net::SocketAddr| {
            format!("connect to {} port {}", shown(address.ip()), address.port())
        };
        let last = failed.pop();
        for failure in failed {
            report.warning(Fail::unable(sentence(failure.address))(failure.cause));
        }
        match last {
            Some(failure) => Fail::unable(sentence(failure.address))(failure.cause),
            // Resolving found some: none of them can be called from there.
            None => Fail::temporary(match options.local_address {
                Some(local) => {
                    format!("{host} has no address of the family of -i {local}")
                }
                None => format!("no IP address for {host}"),
            }),
        }
    })?;
    if !common.nagle {
        // A server that is gone by now is found out soon enough.
        let _ = stream.set_nodelay(true);
    }
    Ok(stream)
}

/// Both ends with their names.
fn describe(options: &Options, stream: &TcpStream) -> Result<Connection, Fail> {
    let common = &options.common;
    let local = stream
        .local_addr()
        .map_err(Fail::unable("get local address"))?;
    let remote = stream
        .peer_addr()
        .map_err(Fail::unable("get remote address"))?;
    let mut connection = Connection::new(local, remote);
    connection.look_up(&Naming {
        lookup: common.lookup,
        paranoid: false,
        local_name: common.local_name.clone(),
        ident_seconds: common.ident.then_some(common.ident_seconds),
    });
    Ok(connection)
}

/// The dialogue that ends with the server's leave to start TLS, where there is one; its
/// greeting.
fn upgrade(
    plan: &Plan,
    connection: &Connection,
    stream: &TcpStream,
    deadline: Instant,
) -> Result<Vec<u8>, Fail> {
    let Some(protocol) = plan.upgrade else {
        return Ok(Vec::new());
    };
    let name = hello_name(connection);
    let mut stream = DeadlineSocket {
        socket: stream,
        deadline,
    };
    dialogue::client::upgrade(&mut stream, protocol, &name).map_err(|refusal| {
        let fail = Fail::temporary(format!(
            "unable to start TLS with {}: {refusal}",
            protocol.upgrade_command()
        ));
        plan::never_in_plaintext(fail, plan.rule.as_ref())
    })
}

/// What EHLO calls this host: its name, or its address (RFC 5321 section 4.1.3).
fn hello_name(connection: &Connection) -> String {
    let local = &connection.local;
    let name = local.name.as_deref().map(text::printable);
    let name =
        name.filter(|name| !matches!(name.as_str(), "" | "0") && !name.contains([' ', '\\']));
    name.unwrap_or_else(|| match local.address.ip() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    })
}

/// The handshake, and every check that was asked for.
fn secure(
    plan: &Plan,
    store: &Store,
    reference: &Reference,
    stream: TcpStream,
    limit: Duration,
) -> Result<Session, Fail> {
    let ssl = store
        .connection(reference, plan.names.clone())
        .map_err(|error| {
            Fail::temporary(format!(
                "unable to create SSL instance: {}",
                tls_reason(&error)
            ))
        })?;
    let side = Side {
        kinds: &[],
        versions: (crate::settings::Version::Tls12, None),
    };
    handshake::perform(ssl, stream, limit, side).map_err(|failure| match failure {
        HandshakeFailure::Certificate(refusal, _) => untrusted(&refusal, plan),
        other => Fail::temporary(format!("unable to SSL connect: {other}")),
    })
}

/// A server that is not who it should be.
fn untrusted(refusal: &Refusal, plan: &Plan) -> Fail {
    let mut why = format!("unable to verify server certificate: {refusal}");
    if let Some(mismatch) = client::mismatch(refusal, plan.cure.as_deref()) {
        why.extend([": server name does not match certificate: ", &mismatch]);
    }
    Fail::temporary(why)
}
