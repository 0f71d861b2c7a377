//! The last step of a launcher: the engine's answer, and the program in its place.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::start_engine::Started;
use super::{Launcher, Stop};
use crate::child::Child;
use crate::connection::Connection;
use crate::control;
use crate::environ::Edits;
use crate::program::sslserver::{Setup, engine_answer};
use crate::report::{Fail, TEMPORARY};
use crate::sys::channel::ProgramSide;
use crate::sys::fd;

/// Waits for the engine (without `-n`), and becomes the program. Returns only with
/// the reason why not.
pub(super) fn hand_over(
    launcher: &Launcher<'_>,
    engine: Started,
    connection: &Connection,
    of_rules: Edits,
) -> Stop {
    let setup = launcher.setup;
    let Started {
        control,
        program,
        plain,
    } = engine;
    let common = &setup.options.common;
    let mut edits = Edits::new();
    edits.extend(connection.variables(common.family, common.tcp_names));
    edits.extend(of_rules);
    let descriptors = if let Some(plain) = plain {
        start_in_plaintext(setup, &mut edits, plain, control, program)
    } else {
        let Some(tls) = engine_answer::wait(&control) else {
            // The engine said why.
            return Stop::Told(TEMPORARY);
        };
        edits.extend(launcher.generation.name_variables(tls.value("SSL_TLS_SNI")));
        edits.extend(tls);
        Ok(vec![(program.reads, 0), (program.writes, 1)])
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
    failure.into()
}

/// Descriptors and variables of a program that asks for TLS itself: it gets the
/// bare socket, and behind the descriptors that we were started with the control
/// socket and the channel that it is to use from then on.
fn start_in_plaintext(
    setup: &Setup,
    edits: &mut Edits,
    plain: OwnedFd,
    control: OwnedFd,
    side: ProgramSide,
) -> io::Result<Vec<(OwnedFd, RawFd)>> {
    engine_answer::wait_until_known(&control)?;
    fd::write_all(&plain, setup.options.banner.as_bytes())?;
    let inherited = setup.program.inherited.iter().map(AsRawFd::as_raw_fd);
    let first = inherited.max().unwrap_or(2) + 1;
    let mut descriptors = vec![(plain.try_clone()?, 0), (plain, 1)];
    for ((name, number), descriptor) in ["SSLCTLFD", "SSLREADFD", "SSLWRITEFD"]
        .iter()
        .zip(first..)
        .zip([control, side.reads, side.writes])
    {
        edits.set(name, number.to_string());
        descriptors.push((descriptor, number));
    }
    edits.set("SSLCTLEXT", control::EXTENSIONS);
    Ok(descriptors)
}
