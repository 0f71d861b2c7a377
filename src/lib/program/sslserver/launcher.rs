//! The launcher: settles who the client is and whether it may come in, starts the
//! engine, waits for its answer and becomes the program. It never sees the client's
//! bytes. Each of its steps is a file of its own; this one joins them.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use self::hand_over::ProgramStart;
use super::Setup;
use super::delayed::{ProgramEnds, Terms};
use super::generation::Generation;
use super::messages::{Message, Sender};
use crate::connection::Connection;
use crate::keyholder::Keyholder;
use crate::log;
use crate::report::{Fail, TEMPORARY};
use crate::sys::process::{self, Forked};
use crate::sys::{signal, socket, standard};

mod authorize;
mod hand_over;
mod identify;
mod start_engine;

/// What a launcher knows.
pub(super) struct Launcher<'a> {
    pub setup: &'a Setup,
    pub generation: &'a Generation,
    pub keyholder: &'a Keyholder,
    pub supervisor: &'a Sender,
    /// The supervisor knew whom to count, and let the client in.
    pub counted: bool,
}

/// When TLS begins, and what the launcher has for it.
pub(super) enum Tls {
    /// At once: the link to the keyholder.
    AtOnce(OwnedFd),
    /// When the program asks: what it is given.
    WhenAsked(ProgramEnds),
}

impl Tls {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Tls::AtOnce(link) => vec![link.as_fd()],
            Tls::WhenAsked(ProgramEnds { control, program }) => {
                vec![
                    control.as_fd(),
                    program.reads.as_fd(),
                    program.writes.as_fd(),
                ]
            }
        }
    }
}

/// Why a connection ends without its program.
enum Stop {
    /// Whoever is to know does: the exit code.
    Told(u8),
    /// What is wrong, for the log.
    Dropped(Fail),
}

impl From<Fail> for Stop {
    fn from(why: Fail) -> Stop {
        Stop::Dropped(why)
    }
}

impl Launcher<'_> {
    /// The descriptors that it needs beside 0 to 2.
    pub fn descriptors<'d>(&'d self, client: &'d TcpStream, tls: &'d Tls) -> Vec<BorrowedFd<'d>> {
        let mut needed = vec![client.as_fd(), self.supervisor.as_fd()];
        needed.extend(log::descriptors());
        needed.extend(tls.descriptors());
        needed.extend(self.setup.sandbox.descriptor());
        needed.extend(self.setup.program.inherited.iter().map(AsFd::as_fd));
        needed
    }

    /// The whole process: serves one client. Returns its exit code, unless it
    /// becomes the program.
    pub fn run(&self, forked: &Forked, client: TcpStream, address: SocketAddr, tls: Tls) -> u8 {
        let standard = standard::three();
        // What the supervisor has besides is its own.
        let mut kept = self.descriptors(&client, &tls);
        kept.extend([standard.0.as_fd(), standard.1.as_fd()]);
        forked.close_all_but(&kept);
        signal::ignore_others();
        process::name("launcher");
        let supervisor = self.supervisor.clone();
        log::give(move |line| supervisor.hands(&Message::Said(line.to_vec())));
        match self.serve(client, address, tls) {
            Stop::Told(code) => code,
            Stop::Dropped(why) => {
                let report = &self.setup.report;
                report.warning(format_args!("dropping connection, {why}"));
                TEMPORARY
            }
        }
    }

    fn serve(&self, client: TcpStream, address: SocketAddr, tls: Tls) -> Stop {
        tune(self.setup, &client);
        let steps = || {
            let (local, remote) = identify::addresses(self.setup, &client, address)?;
            let mut connection = Connection::new(local, remote);
            connection.name_local(&self.setup.naming);
            authorize::by_address(self, &connection)?;
            connection.look_up(&self.setup.naming);
            let allowed = authorize::by_rules(self, &connection)?;
            Ok((connection, allowed))
        };
        let (connection, allowed) = match steps() {
            Ok(settled) => settled,
            Err(stop) => return stop,
        };
        // From here on the supervisor hears an engine.
        log::wait();
        let beginning = match tls {
            Tls::AtOnce(link) => {
                let started =
                    start_engine::start(self, client, link, &connection, &allowed.material);
                match started {
                    Ok(started) => ProgramStart::Session(started),
                    Err(why) => return Stop::Dropped(why),
                }
            }
            Tls::WhenAsked(given) => {
                let terms = Terms {
                    settings: allowed.settings,
                    host: connection.remote.name.clone(),
                };
                ProgramStart::Plaintext(client, given, terms)
            }
        };
        hand_over::hand_over(self, beginning, &connection, allowed.variables)
    }
}

/// Sets the client's socket as the options say.
fn tune(setup: &Setup, client: &TcpStream) {
    if !setup.options.keep_source_route {
        socket::kill_ip_options(client);
    }
    if !setup.options.common.nagle {
        // A client that is gone by now is found out soon enough.
        let _ = client.set_nodelay(true);
    }
}
