//! The service manager that started this program: the socket that it opened for us
//! (sd_listen_fds(3)), and the messages that it waits for (sd_notify(3)). Whoever
//! speaks these two protocols is one; systemd is the best known.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::report::{Fail, Report, reason};
use crate::sys::{clock, fd, process, socket};
use crate::text;

/// The variables of both protocols, which are for one process and none of its
/// children.
pub const VARIABLES: &[&str] = &[
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
];

/// The first descriptor that a service manager hands over.
const FIRST: i32 = 3;

/// How long until a message that the manager had no room for is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// The listening socket that the manager opened for this process, if it did.
///
/// # Errors
/// `LISTEN_FDS` is no number, or of more than one socket, or descriptor 3 is not
/// open.
pub fn given_socket() -> Result<Option<OwnedFd>, Fail> {
    let value = |name| std::env::var_os(name).unwrap_or_default();
    // A parent's, and not for us: so says sd_listen_fds(3).
    if text::number(&value("LISTEN_PID").to_string_lossy(), 1..=u64::MAX)
        != u64::try_from(process::own_id()).ok()
    {
        return Ok(None);
    }
    let count = value("LISTEN_FDS");
    match text::number(&count.to_string_lossy(), 0..=u64::from(u32::MAX)) {
        Some(0) => Ok(None),
        Some(1) => fd::inherited(FIRST)
            .map(Some)
            .ok_or_else(|| Fail::temporary("unable to use LISTEN_FDS: descriptor 3 is not open")),
        Some(count) => Err(Fail::temporary(format!(
            "unable to use LISTEN_FDS: {count} sockets, and one server listens on one: leave one \
             ListenStream= in the socket unit (a port alone serves IPv4 and IPv6)"
        ))),
        None if count.is_empty() => Ok(None),
        None => Err(Fail::temporary(format!(
            "unable to use LISTEN_FDS: not a number: \"{}\"",
            text::excerpt(count.as_bytes(), 100)
        ))),
    }
}

/// What the manager is told.
#[derive(Debug)]
pub enum State<'a> {
    /// What is wrong, for a person to read; empty where nothing is any more.
    Complaint(&'a str),
    /// The server serves, with the files that it last could read.
    Ready,
    /// It was asked to read its files again.
    Reloading,
    /// It is about to end.
    Stopping,
}

impl State<'_> {
    /// As sd_notify(3) has it: assignments, a line each.
    fn message(&self) -> String {
        match self {
            State::Complaint(why) => format!("STATUS={}", text::printable(why.as_bytes())),
            State::Ready => "READY=1".to_owned(),
            // By the time the manager tells this answer from an earlier one.
            State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_usec()),
            State::Stopping => "STOPPING=1".to_owned(),
        }
    }
}

/// The way to the manager. Nothing here waits.
#[derive(Debug)]
pub struct Notifier {
    /// `None`: nobody wants to be told, or can be.
    way: Option<(UnixDatagram, SocketAddr)>,
    /// Messages that the manager had no room for.
    waiting: VecDeque<String>,
    again: Instant,
}

impl Notifier {
    /// To whom `NOTIFY_SOCKET` names. One that cannot be used is warned about: the
    /// manager's own time limit decides what becomes of the service then.
    #[must_use]
    pub fn from_environment(report: &Report) -> Notifier {
        let name = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        let way = open(&name).unwrap_or_else(|error| {
            report.warning(format_args!(
                "unable to use NOTIFY_SOCKET {}: {}: the service manager is not told when this \
                 server is ready",
                text::excerpt(name.as_bytes(), 200),
                reason(&error)
            ));
            None
        });
        Notifier {
            way,
            waiting: VecDeque::new(),
            again: Instant::now(),
        }
    }

    /// Tells it, now or as soon as it has room.
    pub fn tell(&mut self, state: &State<'_>, report: &Report) {
        if self.way.is_some() {
            self.waiting.push_back(state.message());
            self.send(report);
        }
    }

    /// When [`Notifier::send`] should be called next.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.again)
    }

    /// Sends what waits, as far as there is room. A manager that is gone is warned
    /// about once.
    pub fn send(&mut self, report: &Report) {
        let Some((socket, manager)) = &self.way else {
            return;
        };
        while let Some(message) = self.waiting.front() {
            match socket.send_to_addr(message.as_bytes(), manager) {
                Ok(_) => {
                    self.waiting.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.again = Instant::now() + AGAIN;
                    return;
                }
                Err(error) => {
                    report.warning(format_args!(
                        "unable to tell the service manager (NOTIFY_SOCKET): {}",
                        reason(&error)
                    ));
                    self.way = None;
                    self.waiting.clear();
                    return;
                }
            }
        }
    }
}

/// A socket of our own and the manager's address: a path, or behind `@` a name of
/// Linux's abstract namespace.
fn open(name: &OsStr) -> io::Result<Option<(UnixDatagram, SocketAddr)>> {
    let address = match name.as_bytes() {
        [] => return Ok(None),
        [b'@', name @ ..] => socket::abstract_address(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither a path nor @ and a name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(Some((socket, address)))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;

    use super::*;

    #[test]
    fn messages_are_lines_of_assignments() {
        assert_eq!(
            State::Complaint("a\nSTOPPING=1").message(),
            "STATUS=a\\x0ASTOPPING=1"
        );
        assert_eq!(State::Ready.message(), "READY=1");
        let reloading = State::Reloading.message();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(time.is_some_and(|time| time.parse::<u64>().is_ok_and(|time| time > 0)));
        assert_eq!(State::Stopping.message(), "STOPPING=1");
    }

    #[test]
    fn an_address_is_a_path_or_an_abstract_name() {
        assert!(open(OsStr::new("")).expect("none").is_none());
        let (_, path) = open(OsStr::new("/run/notify"))
            .expect("opens")
            .expect("one");
        assert_eq!(path.as_pathname(), Some("/run/notify".as_ref()));
        let (_, name) = open(OsStr::new("@notify")).expect("opens").expect("one");
        assert_eq!(name.as_abstract_name(), Some(&b"notify"[..]));
        for wrong in ["vsock:2:1234", "notify", &format!("/{}", "x".repeat(200))] {
            assert!(open(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }
}
