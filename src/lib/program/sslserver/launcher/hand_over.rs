//! The last step of a launcher: the engine's answer, and the program in its place.
#![forbid(unsafe_code)]

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::start_engine::Started;
use super::{Launcher, Stop};
use crate::child::Child;
use crate::connection::Connection;
use crate::control;
use crate::environ::Edits;
use crate::program::sslserver::delayed::{ProgramEnds, Terms};
use crate::program::sslserver::messages::Message;
use crate::program::sslserver::{Setup, engine_answer};
use crate::report::{Fail, TEMPORARY};
use crate::session;
use crate::sys::{fd, process};

/// What the program begins with.
pub(super) enum ProgramStart {
    /// A session in TLS.
    Session(Started),
    /// The client's own socket (`-n`), and what it needs to ask for TLS.
    Plaintext(TcpStream, ProgramEnds, Terms),
}

/// Waits for the engine (without `-n`), and becomes the program. Returns only with
/// the reason why not.
pub(super) fn hand_over(
    launcher: &Launcher<'_>,
    beginning: ProgramStart,
    connection: &Connection,
    of_rules: Edits,
) -> Stop {
    let setup = launcher.setup;
    let common = &setup.options.common;
    let mut edits = Edits::new();
    edits.extend(connection.variables(common.family, common.tcp_names));
    if !of_rules.is_empty() {
        edits.extend(of_rules);
        // What a rule calls so could be taken for what a client has shown.
        edits.extend(session::stale());
    }
    let descriptors = match beginning {
        ProgramStart::Plaintext(client, given, terms) => {
            // A program may ask as soon as it runs.
            if !launcher.supervisor.tell_long(&Message::Plaintext(terms)) {
                return Fail::from("the settings of its rules are too long").into();
            }
            start_in_plaintext(setup, &mut edits, client.into(), given)
        }
        ProgramStart::Session(Started { control, program }) => {
            let Some(tls) = engine_answer::wait(&control) else {
                // The engine said why, unless it could not say a word.
                launcher.supervisor.tell(&Message::Unanswered);
                return Stop::Told(TEMPORARY);
            };
            edits.extend(launcher.generation.name_variables(tls.value("SSL_TLS_SNI")));
            edits.extend(tls);
            Ok(vec![(program.reads, 0), (program.writes, 1)])
        }
    };
    let descriptors = match descriptors.map_err(Fail::unable("set up descriptors")) {
        Ok(descriptors) => descriptors,
        Err(why) => return why.into(),
    };
    let failure = Child {
        words: &setup.program.words,
        environment: edits.apply(setup.program.environment.clone()),
        identity: setup.program.identity.as_ref(),
        descriptors,
    }
    .exec();
    let (id, address) = (process::own_id(), connection.remote_ip());
    failure.of(format_args!("pid {id} from {address}")).into()
}

/// Descriptors and variables of a program that asks for TLS itself: it gets the
/// bare socket, and at the first numbers at which we were started with nothing the
/// control socket and the channel that it is to use from then on.
fn start_in_plaintext(
    setup: &Setup,
    edits: &mut Edits,
    plain: OwnedFd,
    given: ProgramEnds,
) -> io::Result<Vec<(OwnedFd, RawFd)>> {
    let ProgramEnds { control, program } = given;
    fd::write_all(&plain, setup.options.banner.as_encoded_bytes())?;
    let inherited: Vec<RawFd> = setup
        .program
        .inherited
        .iter()
        .map(AsRawFd::as_raw_fd)
        .collect();
    // Low ones: a limit may be set while the server runs (prlimit(1)), below a number
    // that it was started with.
    let free = (3..).filter(|number| !inherited.contains(number));
    let mut descriptors = vec![(plain.try_clone()?, 0), (plain, 1)];
    for ((name, number), descriptor) in ["SSLCTLFD", "SSLREADFD", "SSLWRITEFD"]
        .iter()
        .zip(free)
        .zip([control, program.reads, program.writes])
    {
        edits.set(name, number.to_string());
        descriptors.push((descriptor, number));
    }
    edits.set("SSLCTLEXT", control::EXTENSIONS);
    Ok(descriptors)
}
