//! The connections in progress: which processes are whose, what they tell, and
//! how long each may take. A process of ours that is past its time is ended from
//! here, whatever keeps it: what it should have done itself it may not be able to.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::Setup;
use super::admission::Admission;
use super::delayed::EngineEnds;
use super::messages::{LineKind, MESSAGE_LIMIT, Message, MessageBuffer, Receiver};
use crate::connection::shown;
use crate::keyholder::LinkId;
use crate::report::{self, Fail, TEMPORARY, reason};
use crate::settings::Settings;
use crate::sys::poll_set::PollSet;
use crate::sys::process::{self, EndedChild, ProcessId};
use crate::sys::tcp::{Progress, TcpConnection};
use crate::text;

mod logger;
mod waiting;

pub(super) use self::waiting::{Begun, Waiting};

/// How long after its time a process of ours is believed to be at its end by
/// itself.
const GRACE: Duration = Duration::from_secs(5);
/// How long the names of a client may take.
const NAMES: Duration = Duration::from_secs(120);
/// How often an engine is looked after whose program has ended.
const LINGERING: Duration = Duration::from_secs(10);
/// How long a stopped engine may stay where nobody needs it any more.
const STOPPED: Duration = Duration::from_secs(10);
/// How long one may stay where `-w` knows no end.
const LONGEST_STOPPED: Duration = Duration::from_secs(3600);
/// How many lines an engine may have for the log: honest ones have a few.
const LINES: u32 = 32;
/// How many messages of one connection are heard before others: as many as an honest one
/// has in its handshake.
const AT_ONCE: usize = 4;
/// How often all are heard for the message of an engine that has ended or was stopped.
const MANY: usize = 64;

/// Names a connection; no number is used twice.
pub(super) type ConnectionId = u64;

/// Which process of a connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Launcher,
    Engine,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its launcher looks names up.
    Settling,
    /// Under `-n`: its program has not asked for TLS.
    InPlaintext,
    /// In the handshake.
    Handshake,
    /// The handshake is over.
    Open,
}

/// A connection in progress: it ends when both of its processes have.
struct Connection {
    /// The process that the log tells of.
    launcher: ProcessId,
    launcher_ended: bool,
    engine: Option<ProcessId>,
    /// The client's; under `-L` it is the sender's until the launcher has read
    /// the header.
    address: IpAddr,
    /// Admission counts it.
    counted: bool,
    /// Its engine's link to the keyholder; `None` before there is an engine, under `-n`.
    link: Option<LinkId>,
    /// Under `-n`: what its program may ask for.
    waiting: Option<Waiting>,
    /// `None` once nobody can send any more.
    messages: Option<Receiver>,
    lines: u32,
    phase: Phase,
    deadline: Option<Instant>,
    stopped: bool,
    /// The client's socket, as the kernel knows it.
    tcp: Option<TcpConnection>,
    /// How far that was at the last look after the program's end, and since when.
    progress: Option<(Progress, Instant)>,
    /// It was ended by us, which was told.
    doomed: bool,
}

/// What a connection has for its TLS.
pub(super) enum TlsPart {
    /// The link of the engine that its launcher starts.
    Link(LinkId),
    /// Under `-n`: the descriptors of an engine that its program may ask for.
    Engine(EngineEnds),
}

/// What a new connection begins with.
pub(super) struct NewConnection {
    pub launcher: ProcessId,
    pub address: SocketAddr,
    /// Whether it counts from now on.
    pub counted: bool,
    pub later: TlsPart,
    pub messages: Receiver,
    /// The client's socket, as the kernel knows it.
    pub tcp: Option<TcpConnection>,
}

/// See the file's head.
pub(super) struct Connections<'a> {
    setup: &'a Setup,
    next: ConnectionId,
    all: HashMap<ConnectionId, Connection>,
    processes: HashMap<ProcessId, (ConnectionId, Part)>,
    pub admission: Admission<'a>,
    poll_set: PollSet,
    /// Control sockets of programs that may ask for TLS.
    controls: PollSet,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    /// Launchers that wait for a store.
    unmade: Vec<(ConnectionId, Settings)>,
    /// Links whose handshakes are over.
    unneeded: Vec<LinkId>,
    /// Those whose programs may have asked for TLS.
    asking: Vec<ConnectionId>,
    /// Processes whose end is near or past, since that of their connection's other process
    /// was noticed, or that of its channel.
    ending: Vec<ProcessId>,
    /// Some have ended since the count was told.
    fewer: bool,
    /// For the next message.
    buffer: Box<MessageBuffer>,
    /// This is the process that logs on, and nobody's parent.
    retired: bool,
}

impl<'a> Connections<'a> {
    pub fn new(setup: &'a Setup) -> Result<Self, Fail> {
        process::adopt_orphans().map_err(Fail::unable("wait for processes"))?;
        let poll_set = || PollSet::new().map_err(Fail::unable("wait for processes"));
        Ok(Connections {
            setup,
            next: 0,
            all: HashMap::new(),
            processes: HashMap::new(),
            admission: Admission::new(setup),
            poll_set: poll_set()?,
            controls: poll_set()?,
            deadlines: BTreeSet::new(),
            unmade: Vec::new(),
            unneeded: Vec::new(),
            asking: Vec::new(),
            ending: Vec::new(),
            fewer: false,
            buffer: Box::new([0; MESSAGE_LIMIT]),
            retired: false,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// When [`Connections::end_late`] has work.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// One more.
    pub fn begin(&mut self, beginning: NewConnection) {
        let NewConnection {
            launcher,
            address,
            counted,
            later,
            messages,
            tcp,
        } = beginning;
        let id = self.next;
        self.next += 1;
        let (link, waiting) = match later {
            TlsPart::Link(link) => (Some(link), None),
            TlsPart::Engine(kept) => (None, Some(Waiting::new(kept, &self.controls, id))),
        };
        if counted {
            self.admission.enter(address.ip());
        }
        // Where that fails it is heard when one of its processes ends.
        let _ = self.poll_set.add(&messages, id);
        self.processes.insert(launcher, (id, Part::Launcher));
        self.all.insert(
            id,
            Connection {
                launcher,
                launcher_ended: false,
                engine: None,
                address: address.ip(),
                counted,
                link,
                waiting,
                messages: Some(messages),
                lines: 0,
                phase: Phase::Settling,
                deadline: None,
                stopped: false,
                tcp,
                progress: None,
                doomed: false,
            },
        );
        let ident = u64::from(self.setup.options.common.ident_seconds);
        let limit = NAMES + Duration::from_secs(ident) + GRACE;
        self.set_deadline(id, Some(Instant::now() + limit));
    }

    fn set_deadline(&mut self, id: ConnectionId, deadline: Option<Instant>) {
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut connection.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.extend(deadline.map(|at| (at, id)));
    }

    /// Hears those that have something to tell, a few messages of each: of further
    /// ones the next wait tells.
    pub fn hear(&mut self) {
        for id in self.poll_set.ready() {
            self.hear_one(id, AT_ONCE);
        }
    }

    fn hear_one(&mut self, id: ConnectionId, most: usize) {
        for _ in 0..most {
            let Some(connection) = self.all.get(&id) else {
                return;
            };
            let Some(messages) = &connection.messages else {
                return;
            };
            match messages.next(&mut self.buffer) {
                Ok(Some(message)) => self.take(id, message),
                Ok(None) => return,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    self.doom(id, "sent a record that no TLS process sends");
                    self.close_channel(id);
                }
                // A denied launcher did not hear why: what it sent is still there.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                Err(_) => {
                    self.close_channel(id);
                    self.look_for_end(id);
                }
            }
        }
    }

    fn close_channel(&mut self, id: ConnectionId) {
        if let Some(connection) = self.all.get_mut(&id) {
            if let Some(messages) = connection.messages.take() {
                self.poll_set.remove(messages);
            }
        }
    }

    fn take(&mut self, id: ConnectionId, message: Message) {
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        match (message, connection.phase) {
            // Its launcher's words come before its engine is there, and never
            // after: an engine may be somebody else's by then.
            (Message::Admission(address, limit), Phase::Settling) if !connection.counted => {
                connection.address = address;
                self.admit(id, limit);
            }
            (Message::Said(line), Phase::Settling) => report::pass_on(&line),
            (Message::Store(settings), Phase::Settling) => self.unmade.push((id, settings)),
            (Message::Plaintext(terms), Phase::Settling) if connection.waiting.is_some() => {
                self.wait_for_program(id, terms);
            }
            (Message::Engine(engine), Phase::Settling) if connection.waiting.is_none() => {
                connection.engine = Some(engine);
                self.processes.insert(engine, (id, Part::Engine));
                self.begin_handshake(id);
            }
            (Message::Unanswered, Phase::Settling) => self.setup.report.warning(format_args!(
                "the TLS process of pid {} ended as it began",
                connection.launcher
            )),
            // The engine said who it is: of its end its status tells.
            (Message::Unanswered, Phase::Handshake | Phase::Open) => {
                self.may_speak(id);
            }
            (Message::Begun, Phase::InPlaintext) => self.begin_handshake(id),
            (Message::Over, Phase::Handshake) => {
                connection.phase = Phase::Open;
                self.unneeded.extend(connection.link);
                self.bound_engine(id);
            }
            (Message::Line(kind, text), Phase::InPlaintext | Phase::Handshake | Phase::Open) => {
                self.log(id, kind, &text);
            }
            _ => self.doom(id, "sent a record that no TLS process sends"),
        }
    }

    /// A store that a launcher waits for, if one does.
    pub fn unmade(&mut self) -> Option<(ConnectionId, Settings)> {
        self.unmade.pop()
    }

    /// Links that nobody uses any more, though their connections go on.
    pub fn unneeded(&mut self) -> impl Iterator<Item = LinkId> {
        self.unneeded.drain(..)
    }

    /// Answers a launcher that waits for a store.
    pub fn made(&self, id: ConnectionId, made: bool) {
        let connection = self.all.get(&id);
        if let Some(messages) = connection.and_then(|one| one.messages.as_ref()) {
            messages.answer(made);
        }
    }

    fn admit(&mut self, id: ConnectionId, limit: u32) {
        let Some(address) = self.all.get(&id).map(|connection| connection.address) else {
            return;
        };
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        // Behind the supervisor's end nobody counts.
        let admitted = self.retired || self.admission.has_room(address, most);
        if let Some(connection) = self.all.get_mut(&id) {
            if admitted {
                connection.counted = true;
                self.admission.enter(address);
            }
            if let (Some(messages), 1..) = (&connection.messages, limit) {
                messages.answer(admitted);
            }
        }
    }

    fn begin_handshake(&mut self, id: ConnectionId) {
        if let Some(connection) = self.all.get_mut(&id) {
            connection.phase = Phase::Handshake;
        }
        let seconds = self.setup.options.handshake_seconds;
        let limit = Duration::from_secs(seconds.into()) + GRACE;
        self.set_deadline(id, Some(Instant::now() + limit));
    }

    /// Counts a message; whether there were not too many.
    fn may_speak(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.all.get_mut(&id) else {
            return false;
        };
        connection.lines += 1;
        let many = connection.lines > LINES;
        if many {
            self.doom(id, "sent too many log messages");
        }
        !many
    }

    /// Writes an engine's line, in words that say whose it is.
    fn log(&mut self, id: ConnectionId, kind: LineKind, text: &str) {
        if !self.may_speak(id) {
            return;
        }
        let Some(connection) = self.all.get(&id) else {
            return;
        };
        let (launcher, address) = (connection.launcher, connection.address);
        let (report, address) = (&self.setup.report, shown(address));
        match kind {
            LineKind::Dropped => report.warning(format_args!(
                "dropping TLS connection, pid {launcher} from {address}: {text}"
            )),
            LineKind::Ended => report.status(format_args!("pid {launcher} from {address}: {text}")),
            LineKind::Tls => report.tls(format_args!("tls {launcher} {text}")),
        }
    }

    /// Ends the process that a connection waits for, and says why.
    fn doom(&mut self, id: ConnectionId, why: &str) {
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut connection.doomed, true) {
            return;
        }
        let (launcher, address) = (connection.launcher, connection.address);
        let victim = match (connection.engine, connection.phase) {
            (Some(engine), _) => Some((engine, "its TLS process")),
            // It is not the program yet.
            (None, Phase::Settling) if !connection.launcher_ended => {
                Some((launcher, "its process"))
            }
            _ => None,
        };
        if let Some((process, what)) = victim {
            if !self.retired {
                process::kill(process);
                let address = shown(address);
                self.setup.report.warning(format_args!(
                "dropping connection, pid {launcher} from {address}: {what} {why}, and was killed"
            ));
            }
        }
    }

    /// Ends processes that are past their time.
    pub fn end_late(&mut self, now: Instant) {
        let first_late = |deadlines: &BTreeSet<(Instant, ConnectionId)>| {
            deadlines.first().copied().filter(|(at, _)| *at <= now)
        };
        while let Some((at, id)) = first_late(&self.deadlines) {
            // The message may be there, unheard.
            self.hear_one(id, usize::MAX);
            let Some(connection) = self.all.get(&id) else {
                self.deadlines.remove(&(at, id));
                continue;
            };
            if connection.deadline != Some(at) {
                continue;
            }
            if connection.waiting.as_ref().is_some_and(Waiting::is_asked) {
                self.set_deadline(id, None);
                self.asking.push(id);
                continue;
            }
            let waits = connection.waiting.is_some() && connection.phase == Phase::InPlaintext;
            let Some(why) = self.why_late(id, now) else {
                self.bound_engine(id);
                continue;
            };
            self.set_deadline(id, None);
            if waits {
                self.stay_in_plaintext(id);
                continue;
            }
            self.doom(id, &why);
        }
    }

    /// What is to be said of the process that a connection's deadline is for; `None`
    /// where it may go on.
    fn why_late(&mut self, id: ConnectionId, now: Instant) -> Option<String> {
        let connection = self.all.get(&id)?;
        let seconds = text::count(self.setup.options.handshake_seconds, "second");
        match (connection.phase, connection.stopped) {
            (_, true) => Some("was stopped by a signal and not continued".to_owned()),
            (Phase::Settling, _) => Some("did not finish looking up the client's names".to_owned()),
            (Phase::Handshake, _) => Some(format!("did not end the handshake in {seconds}")),
            (Phase::InPlaintext | Phase::Open, _) => self.lingers(id, now),
        }
    }

    /// A signal stopped a process, or let it go on.
    pub fn stopped(&mut self, process: ProcessId, stopped: bool) {
        if let Some((id, Part::Engine)) = self.whose(process) {
            if let Some(connection) = self.all.get_mut(&id) {
                connection.stopped = stopped;
                self.bound_engine(id);
            }
        }
    }

    /// Gives an engine the time that it has when it is stopped, or until it is
    /// looked after again when its program has ended. In the handshake it has no
    /// other than that.
    fn bound_engine(&mut self, id: ConnectionId) {
        let Some(connection) = self.all.get(&id) else {
            return;
        };
        if connection.phase == Phase::Handshake {
            return;
        }
        let limit = match (connection.stopped, connection.launcher_ended) {
            (true, true) => Some(STOPPED),
            (true, false) => Some(self.setup.idle.unwrap_or(LONGEST_STOPPED)),
            (false, true) => Some(LINGERING),
            (false, false) => None,
        };
        self.set_deadline(id, limit.map(|limit| Instant::now() + limit));
    }

    /// Why an engine is no longer needed whose program has ended: an honest one ends
    /// when its client is gone, and when no byte moves for as long as `-w` says.
    fn lingers(&mut self, id: ConnectionId, now: Instant) -> Option<String> {
        let idle = self.setup.idle;
        let connection = self.all.get_mut(&id)?;
        let progress = match connection.tcp?.progress() {
            Ok(progress) => progress,
            Err(error) => {
                let reason = reason(&error);
                self.setup.report.status(format_args!(
                    "pid {} ended before its TLS process, and this system does not tell whether the client is gone: {reason}",
                    connection.launcher
                ));
                // It cannot be told from one that serves a slow client.
                connection.tcp = None;
                return None;
            }
        };
        let since = match connection.progress {
            Some((same, since)) if same == progress => since,
            _ => {
                connection.progress = Some((progress, now));
                return None;
            }
        };
        match (progress, idle) {
            (Progress::Over, _) => Some("outlived its program and its client".to_owned()),
            (Progress::Bytes { .. }, Some(idle)) if now.duration_since(since) >= idle + GRACE => {
                let seconds = text::count(idle.as_secs(), "second");
                Some(format!(
                    "outlived its program, and moved no byte for {seconds}"
                ))
            }
            (Progress::Bytes { .. }, _) => None,
        }
    }

    /// Which connection a process belongs to, and as what. An engine says so before it
    /// does anything that could end or stop it.
    fn whose(&mut self, process: ProcessId) -> Option<(ConnectionId, Part)> {
        for _ in 0..MANY {
            if self.processes.contains_key(&process) {
                break;
            }
            self.hear();
        }
        self.processes.get(&process).copied()
    }

    /// A process ended, and perhaps its connection with it.
    pub fn ended(&mut self, ended: EndedChild) {
        let Some((id, part)) = self.whose(ended.id) else {
            return;
        };
        self.processes.remove(&ended.id);
        // What a process has said comes before its end.
        self.hear_one(id, usize::MAX);
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        match part {
            Part::Engine => {
                connection.engine = None;
                self.set_deadline(id, None);
                self.tell_unusual(id, ended);
            }
            Part::Launcher => {
                connection.launcher_ended = true;
                if connection.phase == Phase::Settling {
                    drop(self.take_waiting(id));
                    self.set_deadline(id, None);
                } else if connection.engine.is_some() {
                    self.bound_engine(id);
                } else if connection.waiting.is_some() {
                    self.bound_engine(id);
                    // It has closed its control socket with its end, unless it left it
                    // to another.
                    self.asking.push(id);
                }
                let report = &self.setup.report;
                report.status(format_args!("end {} status {}", ended.id, ended.status));
            }
        }
        self.look_for_end(id);
        self.end_if_over(id);
    }

    /// Has the processes of a connection that are left waited for.
    fn look_for_end(&mut self, id: ConnectionId) {
        if let Some(one) = self.all.get(&id) {
            let launcher = (!one.launcher_ended).then_some(one.launcher);
            self.ending.extend(launcher.into_iter().chain(one.engine));
        }
    }

    /// Whether [`Connections::ending`] has some.
    pub fn has_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Processes that may have ended unheard of, each once.
    pub fn ending(&mut self) -> Vec<ProcessId> {
        let mut ending = std::mem::take(&mut self.ending);
        ending.retain(|process| self.processes.contains_key(process));
        ending
    }

    /// Forgets a connection that nobody serves any more, nor is to serve.
    fn end_if_over(&mut self, id: ConnectionId) {
        let is_over =
            |one: &Connection| one.launcher_ended && one.engine.is_none() && one.waiting.is_none();
        if !self.all.get(&id).is_some_and(is_over) {
            return;
        }
        self.close_channel(id);
        self.set_deadline(id, None);
        let Some(connection) = self.all.remove(&id) else {
            return;
        };
        if connection.counted {
            self.admission.leave(connection.address);
        }
        self.unneeded.extend(connection.link);
        self.fewer = true;
    }

    /// Whether some have ended since the last call.
    pub fn has_fewer(&mut self) -> bool {
        std::mem::take(&mut self.fewer)
    }

    /// Says how an engine ended, where it should not have ended so.
    fn tell_unusual(&self, id: ConnectionId, ended: EndedChild) {
        let Some(connection) = self.all.get(&id) else {
            return;
        };
        let (report, launcher) = (&self.setup.report, connection.launcher);
        let code = ended.signal().is_none().then(|| ended.shell_code());
        if ended.broke_filter() {
            report.warning(format_args!(
                "the TLS process of pid {launcher} was killed: it made a system call that its sandbox forbids"
            ));
        } else if let Some(number) = ended.signal().filter(|_| !connection.doomed) {
            report.warning(format_args!(
                "the TLS process of pid {launcher} was killed by signal {number}"
            ));
        } else if code == Some(report::NO_MEMORY) {
            report.warning(format_args!(
                "dropping TLS connection, pid {launcher} from {}: {}",
                shown(connection.address),
                report::OUT_OF_MEMORY
            ));
        } else if let Some(code) = code.filter(|code| !matches!(code, &0 | &TEMPORARY)) {
            report.warning(format_args!(
                "the TLS process of pid {launcher} ended with exit code {code}"
            ));
        }
    }
}

impl AsFd for Connections<'_> {
    /// What to wait for: something comes when [`Connections::hear`] has work.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll_set.as_fd()
    }
}
