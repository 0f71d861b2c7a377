//! The program beside the relay, which gives up all that it has no need of.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use crate::child::Child;
use crate::environ::Edits;
use crate::handshake::Session;
use crate::options::sslclient::Options;
use crate::relay::{Ending, Relay};
use crate::report::{Fail, Report, TEMPORARY};
use crate::settings::Filter;
use crate::sys::channel::{Channel, Descriptors};
use crate::sys::process;
use crate::sys::sandbox::{self, Confinement, Sandbox};
use crate::text;

/// What the relay is to give up, made ready before anything is started that
/// would have to be stopped.
fn sandbox(report: &Report) -> Result<(Sandbox, Filter), Fail> {
    let filter = Filter::of_environment()?;
    let sandbox = Sandbox::prepare(sandbox::Process::Client);
    filter.check(&sandbox)?;
    if !sandbox.missing().is_empty() {
        let list = sandbox.missing().join(", ");
        report.status(format_args!("the TLS process runs without {list}"));
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
    let socket = session.get_ref().as_raw_fd();
    let confinement = Confinement {
        filter: filter != Filter::Off,
        highest: descriptors.max().unwrap_or(2).max(socket),
    };
    sandbox
        .take_on(confinement)
        .map_err(Fail::unable("confine the TLS process"))
}

/// Runs the program beside the relay. Returns the program's exit code.
pub(super) fn serve(
    report: &Report,
    options: &Options,
    session: Session,
    greeting: &[u8],
    program: &[OsString],
    edits: &Edits,
) -> Result<u8, Fail> {
    let (sandbox, filter) = sandbox(report)?;
    let (channel, side) = Channel::new(Descriptors::Pipes).map_err(Fail::unable("create pipe"))?;
    let mut place = Some(side);
    let child = process::spawn(|_| {
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
        report.fatal(&failure);
        TEMPORARY
    })
    .map_err(Fail::unable("fork"))?;
    drop(place);
    confine(sandbox, filter, &session, &channel)?;
    let idle = options.common.idle_seconds;
    let idle = (idle > 0).then(|| Duration::from_secs(idle.into()));
    let mut relay = Relay::new(session, channel, idle).map_err(Fail::unable("start the relay"))?;
    relay.replay(greeting);
    let ending = relay.run();
    tell(report, options, &ending);
    // Its pipes close with the relay: the program learns of the end.
    drop(relay);
    let code = process::wait_for(child).map_or(TEMPORARY, process::EndedChild::shell_code);
    let cut = options.whole && !matches!(ending, Ending::Done);
    Ok(if cut && code == 0 { TEMPORARY } else { code })
}

/// Says how the connection ended, where that was no good end.
fn tell(report: &Report, options: &Options, ending: &Ending) {
    match ending {
        Ending::Done => {}
        Ending::Truncated => {
            let text = "truncated: the server ended the connection without close_notify";
            // Many servers do, and whoever asked whether all came wants to know.
            if options.whole {
                report.warning(text);
            } else {
                report.status(text);
            }
        }
        Ending::Lost(why) => report.warning(format_args!("connection lost: {why}")),
        Ending::Idle(seconds) => {
            report.warning(format_args!(
                "no data in either direction for {}",
                text::count(*seconds, "second")
            ));
        }
        Ending::Broken(why) => report.warning(format_args!("connection broken: {why}")),
    }
}
