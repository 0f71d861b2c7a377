//! TLS that is begun when the program asks for it (`-n`): what there is of it until
//! then. The supervisor keeps what an engine will need, and starts none before: a
//! client that never asks costs no more than under a server without TLS.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::engine;
use crate::options::sslserver::Options;
use crate::settings::Settings;
use crate::sys::channel::{Channel, Descriptors, ProgramSide};
use crate::sys::{fd, socket};

/// The program's side: the control socket, and what it uses from TLS on.
pub(super) struct ProgramEnds {
    pub control: OwnedFd,
    pub program: ProgramSide,
}

/// The engine's side.
pub(super) struct EngineEnds {
    client: TcpStream,
    control: OwnedFd,
    program: Channel,
}

/// How an engine is to serve a client; its launcher knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// The settings that the client's rules make; `None`: those of the environment.
    pub settings: Option<Settings>,
    /// The name of the client's host.
    pub host: Option<Vec<u8>>,
}

/// What a program does with its control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ControlUse {
    /// Nothing so far.
    Open,
    /// It asks for TLS, or sends what is no command.
    Tls,
    /// It has closed it, by its end at the latest.
    Plaintext,
}

/// Both sides for one client.
///
/// # Errors
/// Out of descriptors or memory.
pub(super) fn sides(
    client: &TcpStream,
    options: &Options,
) -> io::Result<(EngineEnds, ProgramEnds)> {
    let (given, control) = fd::stream_pair()?;
    let (channel, program) = Channel::new(descriptors(options))?;
    let kept = EngineEnds {
        client: client.try_clone()?,
        control,
        program: channel,
    };
    let given = ProgramEnds {
        control: given,
        program,
    };
    Ok((kept, given))
}

/// What the program finds behind its descriptors.
pub(super) fn descriptors(options: &Options) -> Descriptors {
    if options.pipes {
        Descriptors::Pipes
    } else {
        Descriptors::Socket
    }
}

impl EngineEnds {
    /// To wait for [`EngineEnds::control_use`].
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// What the program wishes. Its words are the engine's to read.
    pub fn control_use(&self) -> ControlUse {
        match socket::peek(&self.control, &mut [0]) {
            Ok(0) => ControlUse::Plaintext,
            Ok(_) => ControlUse::Tls,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ControlUse::Open,
            // It ended and left something unread.
            Err(_) => ControlUse::Plaintext,
        }
    }

    /// Ends the connection of a client that cannot be served.
    pub fn hang_up(self) {
        // The program has the socket, too. A client that is gone has ended it.
        let _ = self.client.shutdown(Shutdown::Both);
    }

    /// The engine's descriptors.
    pub fn ends(self, link: OwnedFd) -> engine::Ends {
        engine::Ends {
            client: self.client,
            control: self.control,
            program: self.program,
            link,
        }
    }
}
