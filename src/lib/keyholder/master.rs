//! The process that forks keyholders. It is forked first of all, keeps the
//! rights that reading key files takes, the password, and the keys of tickets,
//! reads no key itself, and hears nobody but the supervisor. If it dies, the
//! supervisor forks another, which has no password and other keys for tickets.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use super::hours::Hours;
use super::local::Password;
use super::meanwhile::Meanwhile;
use super::process as keyholder;
use crate::log;
use crate::report::{self, Fail, Report};
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, Change, Forked, ProcessId};
use crate::sys::sandbox::{self, Process, Sandbox};
use crate::sys::{fd, memory, parcel, signal};

/// How long a process of ours may take to do what is asked of it at start.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What the supervisor says.
mod order {
    /// Fork a worker whose control socket comes along.
    pub const FORK: u8 = b'F';
    /// Make new keys for tickets, and forget the old ones.
    pub const RENEW: u8 = b'R';
}

/// The supervisor's end.
pub struct Master {
    socket: OwnedFd,
    id: ProcessId,
    /// It did not answer in its time.
    silent: Cell<bool>,
    ticket_life: Duration,
}

impl Master {
    /// Forks the master. `password` is the descriptor that the password is read
    /// from; this process never reads it. A key makes tickets for `ticket_life`.
    ///
    /// # Errors
    /// The password cannot be read, or out of processes or descriptors.
    pub fn start(
        report: Report,
        password: Option<OwnedFd>,
        ticket_life: Duration,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Rc<Master>, Fail> {
        let (socket, other) = parcel::pair().map_err(Fail::unable("create socket"))?;
        let id = process::spawn(move |forked| run(&forked, &other, password, ticket_life, report))
            .map_err(Fail::unable("fork the key master"))?;
        let master = Master {
            socket,
            id,
            silent: Cell::new(false),
            ticket_life,
        };
        let answer = receive(&master.socket, PATIENCE, meanwhile);
        if answer.is_err() {
            process::kill(id);
        }
        match &*answer.map_err(Fail::unable("start the key master"))? {
            [] => Err(Fail::temporary("unable to start the key master")),
            [0, ..] => Ok(Rc::new(master)),
            [_, why @ ..] => Err(Fail::temporary(String::from_utf8_lossy(why))),
        }
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// How long a key makes tickets.
    #[must_use]
    pub fn ticket_life(&self) -> Duration {
        self.ticket_life
    }

    /// Forks a worker: its process number and its control socket.
    pub(super) fn fork(&self, meanwhile: &mut dyn Meanwhile) -> io::Result<(ProcessId, OwnedFd)> {
        let (control, other) = parcel::pair()?;
        parcel::send_with(&self.socket, &[order::FORK], other.as_fd())?;
        drop(other);
        let patience = meanwhile.patience();
        let answer = receive(&self.socket, patience, meanwhile);
        let late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        // Its next answer would be taken for another's.
        self.silent.set(answer.as_ref().is_err_and(late));
        let answer = answer?;
        match <[u8; 4]>::try_from(&*answer).map(i32::from_ne_bytes) {
            Ok(id @ 1..) => Ok((id, control)),
            Ok(error) => Err(io::Error::from_raw_os_error(-error)),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether it did not do in time what it was asked for: then it is to be
    /// ended.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent.get()
    }

    /// Has it make new keys for tickets: no old ticket is taken any more.
    pub fn renew_tickets(&self) {
        // Those of a master that is gone went with it.
        let _ = parcel::send(&self.socket, &[order::RENEW]);
    }
}

/// The next message of a process of ours, within its patience; empty at its end.
pub(super) fn receive(
    socket: &OwnedFd,
    patience: Duration,
    meanwhile: &mut dyn Meanwhile,
) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; keyholder::ANSWER_LIMIT];
    meanwhile.wait(socket.as_fd(), Instant::now() + patience)?;
    let length = match parcel::receive(socket, &mut buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        other => other?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

/// The whole process. Returns its exit code.
fn run(
    forked: &Forked,
    socket: &OwnedFd,
    password: Option<OwnedFd>,
    ticket_life: Duration,
    report: Report,
) -> u8 {
    process::name("keymaster");
    signal::ignore_others();
    let (secret, hours, mask) = match prepare(forked, socket, password, ticket_life) {
        Ok(prepared) => prepared,
        Err(fail) => {
            let text = fail.to_string();
            let _ = parcel::send(socket, &[&[1], text.as_bytes()].concat());
            return report::TEMPORARY;
        }
    };
    // Where that is not allowed, the keyholder says so for both.
    let _ = memory::lock(false);
    let mut master = Forker {
        socket,
        secret,
        hours: Some(hours),
        sandbox: Sandbox::prepare(Process::Keyholder),
        report,
        workers: HashMap::new(),
    };
    if parcel::send(socket, &[0]).is_err() {
        return report::TEMPORARY;
    }
    loop {
        let mut wanted = [(socket.as_fd(), Ready::READ)];
        let time = master.replace_hour();
        if poll::wait_with_signals(&mut wanted, time, mask).is_err() {
            return report::TEMPORARY;
        }
        while let Some(change) = process::reap() {
            if let Change::Ended(ended) = change {
                master.workers.remove(&ended.id);
            }
        }
        if !master.obey() {
            return 0;
        }
    }
}

/// Gives up what the master does not need. Returns what it keeps: the password, and
/// the first keys of tickets; and the mask to wait with.
fn prepare(
    forked: &Forked,
    socket: &OwnedFd,
    password: Option<OwnedFd>,
    ticket_life: Duration,
) -> Result<(Option<Password>, Hours, SigSet), Fail> {
    // The supervisor's standard output must not stay open here.
    let mut kept = vec![socket.as_fd()];
    kept.extend(log::descriptors());
    kept.extend(password.as_ref().map(|descriptor| descriptor.as_fd()));
    forked.close_all_but(&kept);
    fd::detach_standard().map_err(Fail::unable("open the null device"))?;
    let password = password.map(|from| Password::read(&from)).transpose()?;
    sandbox::seal().map_err(Fail::unable("confine the key master"))?;
    let mask = signal::watch_children().map_err(Fail::unable("set up signals"))?;
    let hours = Hours::fresh(ticket_life).map_err(Fail::unable("make ticket keys"))?;
    Ok((password, hours, mask))
}

/// The master at work.
struct Forker<'a> {
    socket: &'a OwnedFd,
    secret: Option<Password>,
    /// The keys of tickets. Always there.
    hours: Option<Hours>,
    sandbox: Sandbox,
    report: Report,
    /// Children that have not been reaped: their numbers are theirs. Over the
    /// socket each hears of new keys for tickets.
    workers: HashMap<ProcessId, OwnedFd>,
}

impl Forker<'_> {
    /// Does what was asked for; false at the supervisor's end.
    fn obey(&mut self) -> bool {
        let mut buffer = [0; 16];
        let (length, passed) = match parcel::receive_with(self.socket, &mut buffer) {
            Ok((0, _)) => return false,
            Ok(taken) => taken,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        match (&buffer[..length], passed) {
            ([order::FORK], Some(control)) => {
                let answer = match self.fork(control) {
                    Ok(id) => id,
                    Err(error) => -error.raw_os_error().unwrap_or(libc::EAGAIN),
                };
                let _ = parcel::send(self.socket, &answer.to_ne_bytes());
            }
            ([order::RENEW], _) => {
                if let Some(Ok(hours)) = self.hours.as_ref().map(|old| Hours::fresh(old.life())) {
                    self.hours = Some(hours);
                    self.tell_hours();
                }
            }
            _ => {}
        }
        true
    }

    /// Replaces the key of an hour that is over. Returns when to look again.
    fn replace_hour(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if let Some(hours) = &mut self.hours {
            if hours.replace_at() <= now && hours.replace().is_ok() {
                self.tell_hours();
            }
        }
        let hours = self.hours.as_ref()?;
        Some(hours.replace_at().saturating_duration_since(now))
    }

    /// Tells every worker the keys. One that does not listen makes its own.
    fn tell_hours(&self) {
        if let Some(hours) = &self.hours {
            let message = hours.to_bytes();
            for worker in self.workers.values() {
                let _ = parcel::send(worker, &message);
            }
        }
    }

    fn fork(&mut self, control: OwnedFd) -> io::Result<ProcessId> {
        let (socket, other) = parcel::pair()?;
        // The child's copies of secrets are the child's to wipe.
        let mut secret = self.secret.take();
        let mut hours = self.hours.take();
        let (sandbox, report) = (&self.sandbox, self.report);
        let places = (&mut secret, &mut hours);
        let id = process::spawn(|forked| {
            let mut kept = vec![control.as_fd(), other.as_fd()];
            kept.extend(log::descriptors());
            kept.extend(sandbox.descriptor());
            forked.close_all_but(&kept);
            signal::ignore_others();
            process::name("keyholder");
            let Some(hours) = places.1.take() else {
                return report::TEMPORARY;
            };
            keyholder::run(keyholder::Inherited {
                control,
                password: places.0.take(),
                hours,
                master: other,
                sandbox,
                forked: &forked,
                report,
            })
        });
        self.secret = secret;
        self.hours = hours;
        let id = id?;
        self.workers.insert(id, socket);
        Ok(id)
    }
}
