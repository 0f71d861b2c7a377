//! Starting the engine: the channels between it, its launcher and the program, and
//! the process itself.
#![forbid(unsafe_code)]

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::Launcher;
use crate::connection::Connection;
use crate::program::sslserver::delayed;
use crate::program::sslserver::engine::{self, Engine};
use crate::program::sslserver::generation::Material;
use crate::report::{Fail, TEMPORARY};
use crate::sys::channel::{Channel, ProgramSide};
use crate::sys::{fd, poll, process};

/// What a launcher has of an engine that was started.
pub(super) struct Started {
    /// To the engine: see `engine_answer`.
    pub control: OwnedFd,
    /// The program's side of what the engine carries.
    pub program: ProgramSide,
}

/// Starts the engine of a connection.
///
/// # Errors
/// The step, and why it failed.
pub(super) fn start(
    launcher: &Launcher<'_>,
    client: TcpStream,
    link: OwnedFd,
    connection: &Connection,
    material: &Material,
) -> Result<Started, Fail> {
    let options = &launcher.setup.options;
    let (control, engine_control) = fd::stream_pair().map_err(Fail::unable("create socket"))?;
    let (channel, program) = Channel::new(delayed::descriptors(options))
        .map_err(Fail::unable("create the program's descriptors"))?;
    let ends = engine::Ends {
        client,
        control: engine_control,
        program: channel,
        link,
    };
    let engine = Engine {
        setup: launcher.setup,
        generation: launcher.generation,
        material,
        host: connection.remote.name.as_deref(),
        launcher: process::own_id(),
        supervisor: launcher.supervisor,
    };
    let mut place = Some(ends);
    let limit = Duration::from_secs(options.handshake_seconds.into());
    when_there_is_room(Instant::now() + limit, || {
        process::spawn_sibling(|forked| match place.take() {
            Some(ends) => engine.run(&forked, ends),
            None => TEMPORARY,
        })
    })
    .map_err(Fail::unable("fork"))?;
    // The engine's ends are the engine's alone: a socket that stayed open here
    // would keep the client from its end of file.
    drop(place);
    Ok(Started { control, program })
}

/// Does a step again and again while the system is short of processes or memory.
fn when_there_is_room<T>(
    deadline: Instant,
    mut step: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    /// How long until the next try.
    const REST: Duration = Duration::from_millis(200);
    loop {
        match step() {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM))
                    && Instant::now() < deadline =>
            {
                poll::wait(&mut [], Some(Instant::now() + REST))?;
            }
            other => return other,
        }
    }
}
