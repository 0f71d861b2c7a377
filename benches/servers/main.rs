//! What sslserver costs beside other servers: processor time per connection and
//! per GiB, memory per idle connection; and what a delivery of qmail-sslremote
//! costs beside other clients. Medians over rounds in which all take turns. `package/bench`
//! runs it; every figure is the kernel's accounting of whole processes, but for
//! the wall time that is told beside a delivery's.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "tests have threads")]
#![allow(clippy::too_many_lines, reason = "a table may be long")]
#![allow(
    clippy::incompatible_msrv,
    reason = "rust-version is that of the programs"
)]
// What the harness makes fails as a test does, and ends the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::doc_markdown, missing_docs)]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate)]

use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use ucspi_tls::internals::resume::Resumable;

#[path = "../../tests/it/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the tests use the rest of it"
)]
mod harness;

mod account;
mod client;
mod credentials;
mod outbound;
mod probe;
mod server;
mod table;

use account::Accounting;
use client::{Client, Connection, Version};
use credentials::{Credentials, Key};
use server::{Contender, Ground, Kind, Program, Rules, Server};
use table::{Figures, Results};

/// A result whose failure is a sentence for the reader of the table.
pub type Outcome<T> = Result<T, String>;

/// Says which step failed, for `map_err`.
pub fn because<E: Display>(step: impl Display) -> impl FnOnce(E) -> String {
    move |cause| format!("unable to {step}: {cause}")
}

/// What a client does in one round.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Connections in a row, each with a handshake of its own.
    Connections { number: u32, resumed: bool },
    /// The same beside so many that are open and say nothing, where the contender
    /// has them.
    Crowd { number: u32, open: u32 },
    /// One connection that receives so many bytes from the program.
    From(u64),
    /// So many connections at once that say nothing.
    Idle(u32),
    /// SMTP sessions in a row, most of which ask for TLS on the way.
    Mail(u32),
    /// One connection that sends the program so many bytes.
    To(u64),
}

/// One row group of the table.
#[derive(Clone, Debug)]
struct Case {
    title: String,
    unit: &'static str,
    key: Key,
    version: Version,
    load: Load,
    contest: Contest,
}

/// Between whom a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contest {
    /// Ways to STARTTLS, all with this project's sslserver.
    Mailers,
    /// sslserver with none and many connections open.
    Crowd,
    /// Clients that deliver mail.
    Outbound,
    /// Servers whose program stays in the clear: sslserver -n, and tcpserver.
    Plaintext,
    /// qmail-sslremote that asks DNS, with MTA-STS off and on.
    Names,
    /// qmail-sslremote with few rules and many.
    Policies,
    /// Programs that ask a server what TLS it speaks.
    Probes,
    /// sslserver and the servers of others.
    Servers,
    /// sslserver without rules, and as clients of its stores see it.
    Stores,
}

impl Contest {
    /// What is compared, as the table heads it.
    fn side(self) -> &'static str {
        match self {
            Contest::Crowd
            | Contest::Mailers
            | Contest::Plaintext
            | Contest::Servers
            | Contest::Stores => "server",
            Contest::Outbound => "client",
            Contest::Names => "MTA-STS",
            Contest::Policies => "tlsdestinations",
            Contest::Probes => "probe",
        }
    }
}

/// How many connections a server has in a row: so few that what disturbs the machine
/// for a while disturbs all servers alike.
const IN_A_ROW: u32 = 10;

impl Load {
    /// What a server does in each of its turns of a round, and the share of that in the
    /// round's figure.
    fn turns(self) -> Vec<(Load, f64)> {
        let (Load::Connections { number, .. } | Load::Mail(number)) = self else {
            return vec![(self, 1.0)];
        };
        let parts = (0..number).step_by(IN_A_ROW as usize);
        let parts = parts.map(|done| IN_A_ROW.min(number - done));
        parts
            .map(|part| {
                let load = match self {
                    Load::Connections { resumed, .. } => Load::Connections {
                        number: part,
                        resumed,
                    },
                    _ => Load::Mail(part),
                };
                (load, f64::from(part) / f64::from(number))
            })
            .collect()
    }

    /// Whether no other server may run meanwhile.
    fn is_alone(self) -> bool {
        matches!(self, Load::Idle(_) | Load::Crowd { .. })
    }
}

impl Settings {
    fn contenders(&self, case: &Case) -> &[Contender] {
        match case.contest {
            Contest::Crowd => &self.crowd,
            Contest::Mailers => &self.mailers,
            Contest::Plaintext => &self.plaintext,
            Contest::Servers => &self.contenders,
            Contest::Stores => &self.stores,
            // They have a bench of their own.
            Contest::Outbound | Contest::Names | Contest::Policies | Contest::Probes => &[],
        }
    }
}

struct Settings {
    rounds: u32,
    connections: u32,
    bytes: u64,
    idle: u32,
    open: u32,
    only: Vec<String>,
    json: bool,
    contenders: Vec<Contender>,
    /// Of [`Contest::Stores`].
    stores: Vec<Contender>,
    /// Of [`Contest::Mailers`].
    mailers: Vec<Contender>,
    /// Of [`Contest::Plaintext`].
    plaintext: Vec<Contender>,
    /// Of [`Contest::Crowd`].
    crowd: Vec<Contender>,
    also: Option<PathBuf>,
    accounting: Accounting,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let settings = match settings(&words) {
        Ok(Some(settings)) => settings,
        Ok(None) => return say(&usage()).map_or(ExitCode::from(111), |()| ExitCode::SUCCESS),
        Err(why) => {
            complain(&format!("usage: {why}\n{}", usage()));
            return ExitCode::from(100);
        }
    };
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&format!("fatal: {why}"));
            ExitCode::from(111)
        }
    }
}

fn say(text: &str) -> Outcome<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(because("write"))
}

/// Progress and failures; if descriptor 2 is gone there is nobody to tell.
fn complain(text: &str) {
    let _ = io::stderr().write_all(format!("bench: {text}\n").as_bytes());
}

fn letters() -> getopts::Options {
    let mut letters = getopts::Options::new();
    letters
        .optopt("", "rounds", "rounds per case (7)", "N")
        .optopt("", "connections", "connections per round (100)", "N")
        .optopt("", "mebibytes", "MiB per transfer (256)", "N")
        .optopt("", "idle", "idle connections at once (100)", "N")
        .optopt("", "open", "connections open beside one more (2500)", "N")
        .optflag(
            "",
            "quick",
            "3 rounds of 20 connections, 32 MiB, 20 idle and 100 open connections",
        )
        .optmulti(
            "",
            "only",
            "only cases whose titles contain this; may be repeated",
            "TEXT",
        )
        .optflag(
            "",
            "json",
            "after the table one line of JSON with every round",
        )
        .optopt(
            "",
            "sslserver",
            "the sslserver to measure (this checkout's)",
            "PATH",
        )
        .optopt("", "also", "a second sslserver, to compare with", "PATH")
        .optopt(
            "",
            "accounting",
            "cpuacct, unified or waited (the first that can be had)",
            "KIND",
        )
        .optflag("h", "help", "print this")
        // Cargo says that this is a benchmark run.
        .optflag("", "bench", "ignored");
    letters
}

fn usage() -> String {
    let brief = "package/bench [options]\n\n\
        Other servers are found through PATH, or through the environment: TCPSERVER,\n\
        STUNNEL, SOCAT, UCSPI_SSL_SSLSERVER, S6_TLSSERVER hold paths; and so are other\n\
        clients, with SWAKS and MSMTP, and other probes, with SSLYZE, TESTSSL and SSLSCAN.\n\
        `--only outbound` measures deliveries alone, `--only probe` probes.";
    letters().usage(brief)
}

/// `None` when only the usage was asked for.
fn settings(words: &[String]) -> Outcome<Option<Settings>> {
    let found = letters().parse(words).map_err(|why| why.to_string())?;
    if found.opt_present("help") {
        return Ok(None);
    }
    if let Some(word) = found.free.first() {
        return Err(format!("{word}: no such option"));
    }
    let quick = found.opt_present("quick");
    let number = |name: &str, full: u32, quickly: u32| match found.opt_str(name) {
        None => Ok(if quick { quickly } else { full }),
        Some(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("--{name} {text}: not a number from 1")),
        },
    };
    let path = |name: &str| match found.opt_str(name).map(PathBuf::from) {
        Some(path) if !path.is_file() => Err(format!("--{name} {}: no such file", path.display())),
        path => Ok(path),
    };
    let ours = path("sslserver")?.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sslserver")));
    let also = path("also")?;
    let kind = found.opt_str("accounting");
    let accounting = Accounting::detect(kind.as_deref()).ok_or_else(|| {
        format!(
            "--accounting {}: not to be had here",
            kind.unwrap_or_default()
        )
    })?;
    let store = |label, rules| Contender::sslserver(label, ours.clone()).with_rules(rules);
    let stores = vec![
        Contender::sslserver(NO_RULES, ours.clone()),
        store(DEFAULT_STORE, Rules::ForOthers),
        store("store of a rule", Rules::ForUs),
    ];
    let mut contenders = vec![
        Contender::sslserver("sslserver", ours.clone()),
        Contender::found(TCPSERVER, Kind::Tcpserver, "TCPSERVER", &["tcpserver"]),
        Contender::found(
            "stunnel",
            Kind::Stunnel,
            "STUNNEL",
            &["stunnel4", "stunnel"],
        ),
        Contender::found("socat", Kind::Socat, "SOCAT", &["socat"]),
        Contender::found(
            "ucspi-ssl sslserver",
            Kind::UcspiSsl,
            "UCSPI_SSL_SSLSERVER",
            &[
                "/package/host/superscript.com/net/ucspi-ssl/command/sslserver",
                "/package/host/fehcom.de/net/ucspi-ssl/command/sslserver",
            ],
        ),
        Contender::found("s6-tlsserver", Kind::S6, "S6_TLSSERVER", &["s6-tlsserver"]),
    ];
    let mailers = [
        ("starttls-handoff", Kind::Handoff),
        (OWN, Kind::Mailfront),
        ("TLS at once", Kind::Sslserver),
    ];
    let mailers = mailers
        .map(|(label, kind)| Contender::around_mailfront(label, kind, &ours))
        .into();
    let mut plaintext = vec![
        Contender::delayed("sslserver -n", &ours),
        Contender::found(TCPSERVER, Kind::Tcpserver, "TCPSERVER", &["tcpserver"]),
    ];
    let mut crowd = vec![
        Contender::sslserver(NONE_OPEN, ours.clone()),
        Contender::sslserver("sslserver, crowded", ours.clone()).with_crowd(),
    ];
    if let Some(path) = &also {
        contenders.insert(1, Contender::sslserver(ALSO, path.clone()));
        plaintext.insert(1, Contender::delayed(ALSO, path));
        crowd.push(Contender::sslserver("also, none open", path.clone()));
        crowd.push(Contender::sslserver("also, crowded", path.clone()).with_crowd());
    }
    Ok(Some(Settings {
        rounds: number("rounds", 7, 3)?,
        connections: number("connections", 100, 20)?,
        bytes: u64::from(number("mebibytes", 256, 32)?) << 20,
        idle: number("idle", 100, 20)?,
        open: number("open", 2500, 100)?,
        only: found.opt_strs("only"),
        json: found.opt_present("json"),
        contenders,
        stores,
        mailers,
        plaintext,
        crowd,
        also,
        accounting,
    }))
}

/// The labels that a rule's store is compared with.
const DEFAULT_STORE: &str = "default store";
const NO_RULES: &str = "no rules";

/// The label of the server that another is compared with which has connections open.
const NONE_OPEN: &str = "sslserver, none open";

/// The label of the server without TLS.
const TCPSERVER: &str = "tcpserver";

/// The label of the program that knows STARTTLS itself.
const OWN: &str = "mailfront";

/// The label of the server that `--also` names.
const ALSO: &str = "also";

/// Everything that is measured, in the order of the table.
fn cases(settings: &Settings) -> Vec<Case> {
    let wanted = |case: &Case| {
        settings.only.is_empty() || settings.only.iter().any(|text| case.title.contains(text))
    };
    let mut cases = handshakes(settings);
    cases.extend(others(settings));
    cases.retain(wanted);
    cases
}

/// Every kind of a handshake.
fn handshakes(settings: &Settings) -> Vec<Case> {
    let mut cases = Vec::new();
    for key in [Key::Ecdsa, Key::Rsa] {
        for (version, resumed) in [
            (Version::Tls12, false),
            (Version::Tls13, false),
            (Version::Tls12, true),
            (Version::Tls13, true),
        ] {
            let how = if resumed { "resumed" } else { "full handshake" };
            cases.push(Case {
                title: format!(
                    "CPU per connection, {}, {}, {how}",
                    key.name(),
                    version.name()
                ),
                unit: "ms",
                key,
                version,
                load: Load::Connections {
                    number: settings.connections,
                    resumed,
                },
                contest: Contest::Servers,
            });
        }
    }
    cases
}

/// What is measured with one kind of a handshake.
fn others(settings: &Settings) -> Vec<Case> {
    let (key, version) = (Key::Ecdsa, Version::Tls13);
    let how = format!("{}, {}", key.name(), version.name());
    let case = |title: String, unit, load, contest| Case {
        title,
        unit,
        key,
        version,
        load,
        contest,
    };
    let number = settings.connections;
    let full = Load::Connections {
        number,
        resumed: false,
    };
    let open = settings.open;
    vec![
        case(
            "CPU per connection whose program stays in the clear".to_owned(),
            "ms",
            full,
            Contest::Plaintext,
        ),
        case(
            format!("CPU per connection beside {open} open ones, {how}, full handshake"),
            "ms",
            Load::Crowd { number, open },
            Contest::Crowd,
        ),
        case(
            format!("CPU per connection with 10000 stores, {how}, full handshake"),
            "ms",
            full,
            Contest::Stores,
        ),
        case(
            format!("CPU per STARTTLS session of SMTP, {how}"),
            "ms",
            Load::Mail(number),
            Contest::Mailers,
        ),
        case(
            format!("CPU per GiB to the program, {how}"),
            "s",
            Load::To(settings.bytes),
            Contest::Servers,
        ),
        case(
            format!("CPU per GiB from the program, {how}"),
            "s",
            Load::From(settings.bytes),
            Contest::Servers,
        ),
        case(
            format!("Memory per idle connection, {how}"),
            "KiB of proportional set size",
            Load::Idle(settings.idle),
            Contest::Servers,
        ),
    ]
}

fn run(settings: &Settings) -> Outcome<()> {
    let cases = cases(settings);
    let others = outbound::is_wanted(settings) || probe::is_wanted(settings);
    if cases.is_empty() && !others {
        return Err("no case has such a title".to_owned());
    }
    let directory = std::env::temp_dir().join(format!("ucspi-tls-bench.{}", std::process::id()));
    fs::create_dir(&directory).map_err(because(format!("make {}", directory.display())))?;
    clean_on_signals(&settings.accounting, &directory)?;
    raise_descriptors().map_err(because("raise the limit on descriptors"))?;
    let measured = Credentials::make(&directory).and_then(|credentials| {
        let ground = Ground {
            accounting: settings.accounting.clone(),
            credentials,
            directory: directory.clone(),
        };
        let mut results = measure_all(settings, &cases, &ground);
        results.extend(outbound::measure_all(settings, &ground)?);
        results.extend(probe::measure_all(settings, &ground)?);
        Ok(results)
    });
    // It holds nothing that anybody else needs.
    let _ = fs::remove_dir_all(&directory);
    let results = measured?;
    report(settings, &results)?;
    let ours = results.iter().filter_map(|results| results.figures.first());
    let failures: u32 = ours.map(|figures| figures.failures).sum();
    match failures {
        0 => Ok(()),
        _ => Err(format!("{failures} rounds with our programs failed")),
    }
}

/// A crowd takes many, here and in the servers, which inherit the limit.
fn raise_descriptors() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Ends servers and removes what was made when the bench itself is ended. The
/// signals are blocked in this thread, and so in all, and one thread waits;
/// programs that are started get an empty mask from the standard library.
fn clean_on_signals(accounting: &Accounting, directory: &Path) -> Outcome<()> {
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]
        .into_iter()
        .collect();
    signals.thread_block().map_err(because("block signals"))?;
    let (accounting, directory) = (accounting.clone(), directory.to_owned());
    thread::spawn(move || {
        if signals.wait().is_ok() {
            server::kill_all();
            accounting.sweep();
            let _ = fs::remove_dir_all(directory);
            std::process::exit(111);
        }
    });
    Ok(())
}

fn measure_all(settings: &Settings, cases: &[Case], ground: &Ground) -> Vec<Results> {
    let begin = |case: &Case| Results {
        title: case.title.clone(),
        unit: case.unit,
        contest: case.contest,
        figures: settings
            .contenders(case)
            .iter()
            .map(|contender| Figures {
                server: contender.label.clone(),
                rounds: Vec::new(),
                failures: 0,
                absent: contender
                    .binary
                    .is_none()
                    .then(|| "not installed".to_owned()),
            })
            .collect(),
    };
    let mut results: Vec<Results> = cases.iter().map(begin).collect();
    // Other servers' processes would share pages with those whose memory is
    // measured, and a crowd would slow others down: those rounds come last and
    // alone.
    for alone in [false, true] {
        for round in 0..settings.rounds {
            // Where a process happens to have its memory makes a difference of 2%, which
            // stays as long as it runs.
            let mut running = HashMap::new();
            for (case, results) in cases.iter().zip(&mut results) {
                if case.load.is_alone() != alone {
                    continue;
                }
                complain(&format!(
                    "round {} of {}: {}",
                    round + 1,
                    settings.rounds,
                    case.title
                ));
                let contenders = settings.contenders(case);
                let mut spent = vec![Spent::default(); contenders.len()];
                for (turn, (load, share)) in (0..).zip(case.load.turns()) {
                    let case = Case {
                        load,
                        ..case.clone()
                    };
                    let turn = turn + round as usize;
                    for index in order(turn, contenders.len()) {
                        let (contender, spent) = (&contenders[index], &mut spent[index]);
                        let figures = &mut results.figures[index];
                        // Some servers lose an answer now and then; that is told, and
                        // is no reason to give them up.
                        for attempt in 1..=ATTEMPTS {
                            if figures.absent.is_some() {
                                break;
                            }
                            let session = &mut spent.session;
                            match measure(contender, &case, ground, &mut running, session) {
                                Ok(figure) => {
                                    spent.figure += figure * share;
                                    break;
                                }
                                Err(why) => {
                                    *session = None;
                                    complain(&format!("{}: {why}", contender.label));
                                    figures.failures += 1;
                                    if attempt == ATTEMPTS {
                                        figures.absent = Some(why);
                                    }
                                }
                            }
                        }
                    }
                }
                for (figures, spent) in results.figures.iter_mut().zip(spent) {
                    if figures.absent.is_none() {
                        figures.rounds.push(spent.figure);
                    }
                }
            }
        }
    }
    results
}

/// What a server has taken in a round so far.
#[derive(Clone, Default)]
struct Spent {
    /// As the table has it.
    figure: f64,
    /// What its next client may resume.
    session: Option<Resumable>,
}

/// In which order servers have their turn. Over many turns each comes as often behind
/// each other: what the one before has left in the caches is paid for by the next.
fn order(turn: usize, servers: usize) -> impl Iterator<Item = usize> {
    let steps: Vec<usize> = (1..servers.max(2))
        .filter(|&step| is_coprime(step, servers))
        .collect();
    let step = steps[turn / servers.max(1) % steps.len()];
    (0..servers).map(move |at| (turn + at * step) % servers)
}

/// Whether steps of that length come to each server.
fn is_coprime(step: usize, servers: usize) -> bool {
    let (mut one, mut other) = (step, servers);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one == 1
}

/// How often a turn is tried.
const ATTEMPTS: u32 = 3;

/// What tells two running servers apart: who, which key, which program.
type Running = HashMap<(String, &'static str, Program), Server>;

/// One turn of one case for one server.
fn measure(
    contender: &Contender,
    case: &Case,
    ground: &Ground,
    running: &mut Running,
    session: &mut Option<Resumable>,
) -> Outcome<f64> {
    let client = if contender.encrypts() {
        Client::tls(case.version, &ground.credentials.ca)?.upgrading(contender.upgrades())
    } else {
        Client::plain()
    };
    let program = match case.load {
        Load::Connections { .. } => Program::Echo,
        Load::From(bytes) => Program::Source(bytes),
        Load::Idle(_) | Load::Crowd { .. } => Program::Cat,
        Load::Mail(_) => Program::Smtp,
        Load::To(bytes) => Program::Sink(bytes),
    };
    if let Load::Idle(number) = case.load {
        let mut server = Server::start(contender, ground, case.key, program)?;
        return idle(&mut server, &client, number).map_err(|why| server.explain(&why));
    }
    if let Load::Crowd { open, .. } = case.load {
        let mut server = Server::start(contender, ground, case.key, program)?;
        let open = if contender.crowded { open } else { 0 };
        return beside(&mut server, &client, case.load, open).map_err(|why| server.explain(&why));
    }
    let name = (contender.label.clone(), case.key.name(), program);
    if !running.contains_key(&name) {
        let mut server = Server::start(contender, ground, case.key, program)?;
        warm(&server, &client, case.load).map_err(|why| server.explain(&why))?;
        server.rest();
        running.insert(name.clone(), server);
    }
    let server = running.get(&name).ok_or("no server")?;
    busy(server, &client, case.load, session).map_err(|why| server.explain(&why))
}

/// First connections, which fault in pages and fill caches.
fn warm(server: &Server, client: &Client, load: Load) -> Outcome<()> {
    let times = match load {
        Load::Connections { .. } | Load::Crowd { .. } | Load::Mail(_) => 10,
        _ => 1,
    };
    for _ in 0..times {
        exchange(client, &mut client.connect(server.port)?, load)?;
    }
    Ok(())
}

/// Processor time of one turn: milliseconds per connection, or seconds per GiB.
fn busy(
    server: &Server,
    client: &Client,
    load: Load,
    session: &mut Option<Resumable>,
) -> Outcome<f64> {
    let resumes = matches!(load, Load::Connections { resumed: true, .. });
    if resumes && client.encrypts() && session.is_none() {
        let mut first = client.connect(server.port)?;
        exchange(client, &mut first, load)?;
        *session = Some(first.resumable().ok_or("no session to resume")?);
    }
    let before = server.cpu()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a round moves far less than 2^52 bytes"
    )]
    let per_second = match load {
        Load::Connections { number, .. }
        | Load::Crowd { number, .. }
        | Load::Idle(number)
        | Load::Mail(number) => {
            for _ in 0..number {
                one_connection(client, server.port, load, session)?;
            }
            1e3 / f64::from(number)
        }
        Load::From(bytes) | Load::To(bytes) => {
            exchange(client, &mut client.connect(server.port)?, load)?;
            f64::from(1 << 30) / bytes as f64
        }
    };
    Ok(server.cpu()?.saturating_sub(before).as_secs_f64() * per_second)
}

/// A connection that takes up `session`, if there is one, and leaves the newest
/// one there: some servers let a TLS 1.3 ticket be used once only.
fn one_connection(
    client: &Client,
    port: u16,
    load: Load,
    session: &mut Option<Resumable>,
) -> Outcome<()> {
    let Some(earlier) = session else {
        return exchange(client, &mut client.connect(port)?, load);
    };
    let mut connection = Client::resume(port, earlier)?;
    exchange(client, &mut connection, load)?;
    if !connection.was_resumed() {
        return Err("does not resume".to_owned());
    }
    if let Some(newer) = connection.resumable() {
        *session = Some(newer);
    }
    Ok(())
}

/// The whole life of a connection after its handshake, with its answer checked.
fn exchange(client: &Client, connection: &mut Connection, load: Load) -> Outcome<()> {
    match load {
        Load::Connections { .. } => connection.expect(b"ok\n"),
        Load::From(bytes) => connection.drain(bytes),
        Load::Crowd { .. } => {
            exchange(client, connection, Load::Idle(1))?;
            connection.close();
            Ok(())
        }
        Load::Idle(_) => {
            // Once a line has come back, the program runs and relays work.
            let mut answer = [0; 3];
            connection.write_all(b"hi\n").map_err(because("write"))?;
            connection.read_exact(&mut answer).map_err(because("read"))
        }
        Load::Mail(_) => connection.mail(client.is_greeted()),
        Load::To(bytes) => {
            connection.pour(bytes)?;
            connection.expect(b"done\n")
        }
    }
}

/// How long connections say nothing before their memory counts: servers may
/// give buffers back after a while.
const SILENCE: Duration = Duration::from_secs(2);

/// Memory that each of `number` idle connections adds.
fn idle(server: &mut Server, client: &Client, number: u32) -> Outcome<f64> {
    exchange(client, &mut client.connect(server.port)?, Load::Idle(1))?;
    server.rest();
    let before = server.memory()?;
    let mut open = Vec::new();
    for _ in 0..number {
        let mut connection = client.connect(server.port)?;
        exchange(client, &mut connection, Load::Idle(number))?;
        open.push(connection);
    }
    thread::sleep(SILENCE);
    let after = server.memory()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "kilobytes of one machine's memory"
    )]
    Ok((after as f64 - before as f64) / f64::from(number))
}

/// Processor time of a connection beside others that are open.
fn beside(server: &mut Server, client: &Client, load: Load, open: u32) -> Outcome<f64> {
    warm(server, client, load)?;
    let mut crowd = Vec::new();
    for _ in 0..open {
        let mut connection = client.connect(server.port)?;
        exchange(client, &mut connection, Load::Idle(open))?;
        crowd.push(connection);
    }
    // What they give back after a while is not this connection's.
    thread::sleep(SILENCE);
    server.rest();
    busy(server, client, load, &mut None)
}

fn report(settings: &Settings, results: &[Results]) -> Outcome<()> {
    let mut yardsticks = vec![TCPSERVER, "stunnel"];
    let mut head = format!(
        "Medians of {} rounds of {} connections (child: echo ok), in turns of {IN_A_ROW}, {} MiB, {} idle connections (child: cat).\n\
         Accounting: {}.\n",
        settings.rounds,
        settings.connections,
        settings.bytes >> 20,
        settings.idle,
        settings.accounting.describe()
    );
    if let Some(path) = &settings.also {
        yardsticks.push(ALSO);
        let _ = writeln!(head, "{ALSO}: {}", path.display());
    }
    say(&head)?;
    for results in results {
        let table = match results.contest {
            Contest::Crowd => results.table(&[NONE_OPEN]),
            Contest::Mailers => results.table(&[OWN]),
            Contest::Plaintext => results.table(&[TCPSERVER]),
            Contest::Servers => results.table(&yardsticks),
            Contest::Outbound => results.table(&[outbound::PLAIN, "swaks", "msmtp"]),
            Contest::Names => results.table(&[outbound::STS_OFF]),
            Contest::Policies => results.table(&[outbound::ONE_LINE]),
            Contest::Probes => results.table(&probe::OTHERS),
            Contest::Stores => results.table(&[NO_RULES, DEFAULT_STORE]),
        };
        say(&format!("\n{table}"))?;
    }
    if settings.json {
        let cases: Vec<String> = results.iter().map(Results::json).collect();
        let accounting = table::quoted(&settings.accounting.describe());
        say(&format!(
            "\n{{\"accounting\":{accounting},\"cases\":[{}]}}\n",
            cases.join(",")
        ))?;
    }
    Ok(())
}
