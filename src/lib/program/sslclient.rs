//! sslclient: see sslclient(1).
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::connection::{Connection, Naming, shown};
use crate::dialer::{Clear, Dialer};
use crate::dialogue::{self, Protocol};
use crate::domaincerts::{self, OwnCertificate};
use crate::environ::Edits;
use crate::handshake::{self, Failure, Session, Side};
use crate::keyholder::{OwnKey, Password};
use crate::options::sslclient::{Options, TABLE};
use crate::relay::{Ending, Relay};
use crate::report::{Fail, Report, TEMPORARY};
use crate::resolve;
use crate::secret::Secret;
use crate::session::{self, Account, Role};
use crate::settings::{self, Filter, Settings};
use crate::store::client::{self, Setup, Store, Trust};
use crate::sys::channel::{Channel, Form};
use crate::sys::sandbox::{self, Confinement, Sandbox};
use crate::sys::{process, signal};
use crate::text;
use crate::tls_ffi;
use crate::tlsdestinations::{self, By, Destination, Destinations, Rule, Tls, TlsMode, Way};
use crate::trust::{self, Demand, Expectation, Name, Reference, Refusal, Tolerated};

mod gate;

/// The settings that are taken from the environment for the context, and all that
/// this program reads.
const OF_TLS: [&str; 4] = ["TLS_MIN", "TLS_MAX", "TLS_GROUPS", "CIPHERSUITES"];
const SETTINGS: [&str; 5] = [
    "TLS_MIN",
    "TLS_MAX",
    "TLS_GROUPS",
    "CIPHERSUITES",
    "SSL_SANDBOX",
];

/// What ucspi tools take for a host on this machine.
const THIS_HOST: &str = "127.0.0.1";

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(run)
}

fn run(report: &mut Report) -> Result<u8, Fail> {
    let (options, operands) = TABLE.parse(std::env::args_os().skip(1))?;
    let common = &options.common;
    report.verbosity = common.verbosity;
    let report = *report;
    signal::ignore_pipe();
    tls_ffi::freed::take_over();
    let (host, port, program) = TABLE.host_port_program(operands)?;
    let host = if matches!(host.as_str(), "0" | "") {
        THIS_HOST
    } else {
        &host
    };
    if options.explain {
        return gate::explain(&options, host);
    }
    if program.is_empty() {
        return Err(TABLE.usage("too few arguments"));
    }
    for misspelt in settings::misspelt_in_environment(&SETTINGS) {
        report.warning(misspelt);
    }
    let port = resolve::port(&port)?;
    let plan = Plan::make(&options, host, port)?;
    let store = store(&options, &plan)?;
    for warning in &store.warnings {
        report.warning(warning);
    }
    let reference = Reference::new(options.name.as_deref().unwrap_or(host));
    let stream = connect(&report, &options, host, plan.port)?;
    let connection = describe(&options, &stream)?;
    let (first, second) = options.connect_seconds;
    // Whatever comes before the program is run has this much time in all.
    let limit = Duration::from_secs(u64::from(first) + u64::from(second));
    let begun = Instant::now();
    let greeting = match plan.upgrade {
        Some(protocol) => upgrade(protocol, &connection, &stream, begun + limit)
            .map_err(|fail| never_in_plaintext(fail, plan.rule.as_ref()))?,
        None => Vec::new(),
    };
    let limit = limit.saturating_sub(begun.elapsed());
    let session = secure(&plan, &store, &reference, stream, limit);
    OwnKey::forget();
    let session = session?;
    let verdict = trust::verdict(session.ssl()).map_err(|refusal| untrusted(&refusal, &plan))?;
    if let Some(rule) = &plan.rule
        && rule.tls() != Tls::Required
        && rule.check() != tlsdestinations::Check::Nothing
        && let Some(refusal) = verdict.refusal()
    {
        report.warning(format_args!(
            "server certificate did not verify; {} allows that: {refusal}",
            place(rule)
        ));
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
    serve(&report, &options, session, &greeting, &program, &edits)
}

/// What the options and the policy of `-P` come to.
struct Plan {
    rule: Option<Rule>,
    /// The names of which the server's certificate must bear one.
    names: Vec<Name>,
    /// What makes a name count that does not.
    cure: Option<String>,
    port: u16,
    upgrade: Option<Protocol>,
}

impl Plan {
    fn make(options: &Options, host: &str, port: u16) -> Result<Plan, Fail> {
        let named = options.name.as_deref().unwrap_or(host);
        let Some(path) = &options.destinations else {
            return Ok(Plan {
                rule: None,
                names: vec![Name::new(Reference::new(named))],
                cure: None,
                port,
                upgrade: options.upgrade,
            });
        };
        let destinations = Destinations::open(Path::new(path))?;
        if destinations.is_missing() {
            return Err(no_file(path));
        }
        let to = destination(options, host);
        let rule = rule(&destinations, options, &to)?;
        if rule.tls() == Tls::Never {
            return Err(Fail::temporary(format!(
                "unable to use TLS: {} says that it is never tried with {}; no program is run in plaintext",
                place(&rule),
                text::excerpt(host.as_bytes(), 255)
            )));
        }
        let port = rule
            .value
            .port
            .unwrap_or(tlsdestinations::Port::plain(port));
        let upgrade = match port.mode {
            TlsMode::Implicit | TlsMode::Qmtps => None,
            TlsMode::StartTls => Some(options.upgrade.unwrap_or(Protocol::Smtp)),
        };
        // Whoever gives a name wants that one, unless the line is the domain's.
        let to = match rule.by {
            By::Domain => to,
            _ => Destination::itself(named),
        };
        Ok(Plan {
            names: client::names(&rule, &to),
            cure: rule.cure(&to),
            rule: Some(rule),
            port: port.number,
            upgrade,
        })
    }
}

/// A file that was named and is not there: nobody knows what it would ask for.
fn no_file(path: &str) -> Fail {
    let shown = text::excerpt(path.as_bytes(), 300);
    Fail::temporary(format!(
        "unable to read {shown}: there is no such file; leave -P out to go by the options alone"
    ))
}

/// A refusal of TLS under a rule that would let mail go on without it.
fn never_in_plaintext(fail: Fail, rule: Option<&Rule>) -> Fail {
    match rule {
        Some(rule) if rule.tls() == Tls::Offered => Fail::temporary(format!(
            "{fail}; {} allows plaintext for mail, but no program is run in it here",
            place(rule)
        )),
        _ => fail,
    }
}

/// Where a rule stands.
fn place(rule: &Rule) -> String {
    match rule.line {
        Some(line) => format!("tlsdestinations line {line}"),
        None => "tlsdestinations, which has no line for the host,".to_owned(),
    }
}

/// Whom a rule is looked up for: `host`, or with `-m` the domain of that name,
/// whose server `host` is.
fn destination<'a>(options: &'a Options, host: &'a str) -> Destination<'a> {
    match options.name.as_deref() {
        Some(domain) => Destination {
            domain,
            way: Way::Exchanger {
                host,
                signed: false,
            },
        },
        None => Destination::itself(host),
    }
}

fn rule(
    destinations: &Destinations,
    options: &Options,
    to: &Destination<'_>,
) -> Result<Rule, Fail> {
    let sender = options
        .sender
        .as_deref()
        .and_then(tlsdestinations::sender_domain);
    destinations
        .look_up(to, sender.as_deref())
        .map_err(|unusable| Fail::temporary(unusable.to_string()))
}

fn own_certificate(options: &Options) -> Result<Option<OwnCertificate>, Fail> {
    let Some(path) = &options.own_certificates else {
        return Ok(None);
    };
    let sender = options
        .sender
        .as_deref()
        .and_then(tlsdestinations::sender_domain);
    if !Path::new(path).exists() {
        let shown = text::excerpt(path.as_bytes(), 300);
        let why = format!("unable to read {shown}: there is no such file, which -G names");
        return Err(Fail::temporary(why));
    }
    domaincerts::read(Path::new(path), sender.as_deref())
}

/// The key's password: the first line of a file (`-K`), or what descriptor 3 has
/// (`-3`).
fn password(options: &Options) -> Result<Option<Password>, Fail> {
    if let Some(path) = &options.password_file {
        let shown = text::excerpt(path.as_bytes(), 300);
        let bytes = Secret::new(
            std::fs::read(path).map_err(Fail::unable(format!("read password: -K {shown}")))?,
        );
        let line = bytes.split(|&byte| byte == b'\n').next();
        let line = line.unwrap_or_default();
        return Ok(Some(Password::new(
            line.strip_suffix(b"\r").unwrap_or(line),
        )));
    }
    super::password_descriptor(options.common.password)?
        .as_ref()
        .map(Password::read)
        .transpose()
}

/// The context, with what the options, the policy and the environment say.
fn store(options: &Options, plan: &Plan) -> Result<Store, Fail> {
    let mut settings = Settings::default();
    settings.overlay(
        OF_TLS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))),
    );
    let rule = plan.rule.as_ref();
    let ciphers = rule.and_then(|rule| rule.value.ciphers.as_ref());
    if let Some(ciphers) = ciphers.or(options.ciphers.as_ref()) {
        settings.overlay([("CIPHERS".to_owned(), ciphers.clone())]);
    }
    // With its password, which is not to stay.
    let own_line = own_certificate(options)?;
    let own_password = own_line.as_ref().and_then(|own| own.password.as_deref());
    let keys = OwnKey {
        password: match own_password {
            Some(password) => Some(Password::new(password)),
            None => password(options)?,
        },
    };
    let certificate = options
        .certificate
        .as_deref()
        .filter(|path| !path.is_empty());
    let key = options.key.as_deref().filter(|path| !path.is_empty());
    if key.is_some() && certificate.is_none() {
        return Err(TABLE.usage("-k is of no use without -c"));
    }
    let given = certificate.map(|path| (("-c", path), ("-k", key.unwrap_or(path))));
    let file = options.anchor_file.as_deref().map(|path| ("-a", path));
    let directory = options.anchor_dir.as_deref().map(|path| ("-A", path));
    let trust = match (file, directory) {
        (None, None) => Trust::System,
        _ => Trust::Files(file, directory),
    };
    let setup = match rule {
        Some(rule) => Setup::under(rule, trust),
        None => Setup {
            trust,
            certificate: None,
            depth: None,
            expectation: expectation(options),
            anonymous: false,
            ciphers_from: "-z",
            lines: (None, None),
        },
    };
    let setup = Setup {
        certificate: given,
        depth: setup.depth.or(options.depth),
        ..setup
    };
    Store::load(&settings, &setup.with_own(own_line.as_ref()), &keys)
}

/// What the letters expect of a server.
fn expectation(options: &Options) -> Expectation {
    Expectation {
        demand: match (options.verify, options.match_name) {
            (true, true) => Demand::Name,
            _ => Demand::Chain,
        },
        pins: Vec::new(),
        tolerated: if options.verify {
            Tolerated::Nothing
        } else {
            Tolerated::Unverified
        },
    }
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
            None => Fail::temporary(format!("no IP address for {host}")),
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

/// The dialogue that ends with the server's leave to start TLS; its greeting.
fn upgrade(
    protocol: Protocol,
    connection: &Connection,
    stream: &TcpStream,
    deadline: Instant,
) -> Result<Vec<u8>, Fail> {
    let name = hello_name(connection);
    let mut stream = Clear {
        socket: stream,
        deadline,
    };
    dialogue::client::upgrade(&mut stream, protocol, &name).map_err(|refusal| {
        Fail::temporary(format!(
            "unable to start TLS with {}: {refusal}",
            protocol.upgrade_command()
        ))
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
                crate::store::queue(&error)
            ))
        })?;
    let side = Side {
        kinds: &[],
        versions: (crate::settings::Version::Tls12, None),
    };
    handshake::perform(ssl, stream, limit, side).map_err(|failure| match failure {
        Failure::Certificate(refusal) => untrusted(&refusal, plan),
        other => Fail::temporary(format!("unable to SSL connect: {other}")),
    })
}

/// A server that is not who it should be.
fn untrusted(refusal: &Refusal, plan: &Plan) -> Fail {
    let mut why = format!("unable to verify server certificate: {refusal}");
    if let Some(mismatch) = client::mismatch(refusal, &plan.names, plan.cure.as_deref()) {
        why.extend([": server name does not match certificate: ", &mismatch]);
    }
    Fail::temporary(why)
}

/// What the relay is to give up, made ready before anything is started that
/// would have to be stopped.
fn sandbox(report: &Report) -> Result<(Sandbox, Filter), Fail> {
    let filter = Filter::of_environment()?;
    let sandbox = Sandbox::prepare(sandbox::Role::Client);
    filter.check(&sandbox)?;
    if !sandbox.missing().is_empty() {
        let list = sandbox.missing().join(", ");
        report.status(format_args!("TLS process: without {list}"));
    }
    Ok((sandbox, filter))
}

/// Gives up everything that the relay does not need.
fn confine(
    sandbox: Sandbox,
    filter: Filter,
    session: &Session,
    program: &Channel,
) -> Result<(), Fail> {
    let descriptors = program.descriptors().map(|fd| fd.as_raw_fd());
    let socket = session.get_ref().socket().as_raw_fd();
    let confinement = Confinement {
        filter: filter != Filter::Off,
        highest: descriptors.max().unwrap_or(2).max(socket),
    };
    sandbox
        .take_on(confinement)
        .map_err(Fail::unable("confine the TLS process"))?;
    // Its descriptors are closed.
    std::mem::forget(sandbox);
    Ok(())
}

/// Runs the program beside the relay. Returns the program's exit code.
fn serve(
    report: &Report,
    options: &Options,
    session: Session,
    greeting: &[u8],
    program: &[OsString],
    edits: &Edits,
) -> Result<u8, Fail> {
    let (sandbox, filter) = sandbox(report)?;
    let (channel, side) = Channel::new(Form::Pipes).map_err(Fail::unable("create pipe"))?;
    let mut place = Some(side);
    let child = process::spawn(|| {
        let Some(side) = place.take() else {
            return TEMPORARY;
        };
        let failure = Child {
            words: program,
            environment: edits.apply(std::env::vars_os()),
            identity: None,
            descriptors: vec![(side.reads, 6), (side.writes, 7)],
        }
        .exec();
        report.fatal(&Fail::temporary(failure.to_string()));
        TEMPORARY
    })
    .map_err(Fail::unable("fork"))?;
    drop(place);
    confine(sandbox, filter, &session, &channel)?;
    let idle = options.common.idle_seconds;
    let idle = (idle > 0).then(|| Duration::from_secs(idle.into()));
    let mut relay = Relay::new(session, channel, idle).map_err(Fail::unable("start the relay"))?;
    relay.replay(greeting);
    match relay.run() {
        Ending::Done => {}
        Ending::Truncated => {
            report.status("truncated: the server ended the connection without close_notify");
        }
        Ending::Lost(why) => report.warning(format_args!("connection lost: {why}")),
        Ending::Idle(seconds) => {
            report.warning(format_args!(
                "no data in either direction for {seconds} seconds"
            ));
        }
        Ending::Broken(why) => report.warning(format_args!("connection broken: {why}")),
    }
    // Its pipes close with the relay: the program learns of the end.
    drop(relay);
    Ok(process::wait_for(child).map_or(TEMPORARY, process::Ended::shell_code))
}
