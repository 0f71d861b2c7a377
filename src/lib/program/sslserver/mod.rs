//! sslserver: see sslserver(1). This file turns the command line into a running
//! supervisor; the other files are its processes.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use crate::keyholder::{Alone, KeyTable, Keyholder, Loading, Master, hours};
use crate::listener::Listener;
use crate::log;
use crate::manager::{self, Notifier};
use crate::options::sslserver::{Options, TABLE};
use crate::report::{Fail, Report};
use crate::resolve;
#[cfg(target_os = "linux")]
use crate::sys::large_pages;
use crate::sys::memory::shortage;
use crate::sys::{fd, signal, standard};
use crate::tls_ffi;
use crate::watch::Watch;

mod access;
mod admission;
mod advice;
mod check;
mod connections;
mod delayed;
mod engine;
mod engine_answer;
mod forecast;
mod generation;
mod launcher;
mod messages;
mod setup;
mod supervisor;
mod upgrade;
mod wrappers;

use self::generation::Generation;
use self::setup::Setup;

/// How long signatures of the start may take that only make forks cheaper: nobody is
/// served yet.
const REHEARSAL: Duration = Duration::from_secs(10);

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    serve(hours::LIFE)
}

/// The whole program, with keys that make tickets for so long.
#[must_use]
pub fn serve(ticket_life: Duration) -> ExitCode {
    tls_ffi::freed::take_over();
    TABLE.run(|report| run(report, ticket_life))
}

fn run(report: &mut Report, ticket_life: Duration) -> Result<u8, Fail> {
    let (options, operands) = TABLE.parse(std::env::args_os().skip(1))?;
    report.set_verbosity(options.common.verbosity);
    let (host, port, program) = TABLE.host_port_program(operands)?;
    let port = resolve::port(&port).map_err(|wrong| TABLE.misused(wrong))?;
    // Before there is anything of ours among them.
    let given = given_socket(&options)?;
    let password = super::password_descriptor(options.common.password)?;
    let inherited = inherited(password.as_ref());
    let _log = log::begin(report.program);
    let mut setup = setup::settle(*report, options, program, inherited)?;
    setup.bound_by_descriptors()?;
    let options = &setup.options;
    let master = Master::start(*report, password, ticket_life, &mut Alone)?;
    if options.check {
        // The service itself may have the port.
        let (family, interface) = (options.common.family, options.common.interface.as_deref());
        resolve::listening_address(&host, port, family, interface)?;
        let (generation, _) = load(&setup, &master)?;
        return check::run(&setup, &generation);
    }
    let listener = listen(&setup, &host, port, given)?;
    let bound = listener.port()?;
    let (generation, keyholder) = load(&setup, &master)?;
    generation.warn(None, report);
    setup.tell_missing(&keyholder);
    if let Some(advice) = advice::on(&setup.program.words, options.pipes) {
        report.warning(advice);
    }
    #[cfg(target_os = "linux")]
    large_pages::take_text();
    signal::know_inherited();
    let mask = signal::watch().map_err(Fail::unable("set up signals"))?;
    let notifier = Notifier::from_environment(report);
    let supervisor = supervisor::Supervisor::new(
        &setup,
        listener,
        (generation, keyholder),
        master,
        mask,
        notifier,
    )?;
    // From here on nothing is left to be set up.
    if options.port_line {
        let line = format!("{bound}\n");
        standard::write(line.as_bytes()).map_err(Fail::unable("write the port"))?;
    }
    fd::detach_standard().map_err(Fail::unable("open the null device"))?;
    log::keep();
    // A reload that there is no memory for is no reason to serve nobody.
    shortage::survive();
    supervisor.run()
}

/// The first generation, and what signs for it.
fn load(setup: &Setup, master: &Master) -> Result<(Generation, Keyholder), Fail> {
    let mut alone = Alone;
    let keys = Loading::new(master, KeyTable::default(), &mut alone);
    let generation = Generation::load(setup, &keys, Rc::default(), &mut Watch::default())?;
    let mut keyholder = keys.wanted().keyholder(master, &mut Alone)?;
    generation.rehearse(&mut keyholder, REHEARSAL);
    Ok((generation, keyholder))
}

/// The socket that a service manager opened for us, if it did.
fn given_socket(options: &Options) -> Result<Option<OwnedFd>, Fail> {
    let given = manager::given_socket()?;
    let Some(socket) = given else {
        return Ok(None);
    };
    if options.common.password {
        return Err(Fail::temporary(
            "unable to use -3: descriptor 3 is the socket of LISTEN_FDS: use a key without a \
             password, or no socket unit",
        ));
    }
    fd::set_close_on_exec(&socket, true).map_err(Fail::unable("use LISTEN_FDS"))?;
    Ok(Some(socket))
}

/// Listens on the socket that was given, whatever the arguments say, or where they
/// do.
fn listen(setup: &Setup, host: &str, port: u16, given: Option<OwnedFd>) -> Result<Listener, Fail> {
    let common = &setup.options.common;
    let (family, interface) = (common.family, common.interface.as_deref());
    let Some(socket) = given else {
        return Listener::open(host, port, family, interface, setup.options.backlog);
    };
    let listener = Listener::adopt(socket)?;
    if let Some(difference) = listener.difference(host, port, family, interface)? {
        setup.report.warning(format_args!(
            "the socket that the service manager opened (LISTEN_FDS) is served: {difference}"
        ));
    }
    Ok(listener)
}

/// The descriptors above 2 that this process was started with, but for the
/// password's: every program has them, too.
fn inherited(password: Option<&OwnedFd>) -> Vec<OwnedFd> {
    let taken = password.map(AsRawFd::as_raw_fd);
    fd::inherited_above_standard()
        .unwrap_or_default()
        .into_iter()
        .filter(|number| Some(*number) != taken)
        .filter_map(fd::inherited)
        .inspect(|descriptor| {
            // Of a descriptor that is open this cannot fail.
            let _ = fd::set_close_on_exec(descriptor, false);
        })
        .collect()
}
