//! The process that schedules: it starts a process for each host, lets each of
//! them connect when its turn has come, and hands on what they found.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::destination::Unit;
use super::pacing::Pacing;
use super::turn::ProbeMessage;
use super::worker::{self, Setup};
use crate::options::sslprobe::Options;
use crate::probe::result::{Finding, HostResult, Severity};
use crate::report::{self, Fail};
use crate::sys::poll::{self, Ready};
use crate::sys::process::{self, ProcessId};
use crate::text;

/// The longest line that a probe may say, in bytes.
const LINE_LIMIT: usize = 4 << 20;

/// What a probe waits for.
#[derive(Clone, Copy, Debug)]
enum Request {
    Begin(IpAddr),
    Connect,
}

/// What there is to hand on.
pub(super) enum Event {
    /// What was found of a host and port.
    Result(Box<HostResult>),
    /// So many destinations are done.
    Over(usize),
}

/// A probe under way.
struct Worker {
    id: ProcessId,
    number: usize,
    stream: UnixStream,
    buffer: Vec<u8>,
    unit: Unit,
    address: Option<IpAddr>,
    request: Option<Request>,
    /// When its host must have been looked up, until it has said so.
    looks_until: Option<Instant>,
    /// Since when it waits.
    since: Instant,
    results: usize,
}

/// All probes, at work and waiting.
pub(super) struct Scheduler<'a> {
    setup: &'a Setup,
    limit: usize,
    pacing: Pacing,
    waiting: VecDeque<Unit>,
    workers: Vec<Worker>,
    started: usize,
}

impl<'a> Scheduler<'a> {
    pub(super) fn new(setup: &'a Setup, options: &Options, units: Vec<Unit>) -> Scheduler<'a> {
        Scheduler {
            setup,
            limit: options.limit,
            pacing: Pacing::new(options.interval, options.rate),
            waiting: units.into(),
            workers: Vec::new(),
            started: 0,
        }
    }

    /// Probes everything; each result is handed on as soon as it is there, and
    /// when those of a destination are all there.
    ///
    /// # Errors
    /// No process can be made, or as `take`.
    pub(super) fn run(
        mut self,
        mut take: impl FnMut(Event) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let outcome = self.work(&mut take);
        for worker in &self.workers {
            // Where this ends early: nobody else is there to end them.
            process::kill(worker.id);
            let _ = process::wait_for(worker.id);
        }
        outcome
    }

    fn work(&mut self, take: &mut impl FnMut(Event) -> Result<(), Fail>) -> Result<(), Fail> {
        loop {
            while self.workers.len() < self.limit {
                let Some(unit) = self.waiting.pop_front() else {
                    break;
                };
                self.start(unit)?;
            }
            if self.workers.is_empty() {
                return Ok(());
            }
            let wake = self.grant();
            self.wait(wake)?;
            for event in self.listen() {
                take(event)?;
            }
        }
    }

    /// How long a probe may take: `-T` for each of its destinations.
    fn time_of(&self, unit: &Unit) -> Duration {
        let destinations = u32::try_from(unit.destinations.len()).unwrap_or(u32::MAX);
        self.setup.terms.host.saturating_mul(destinations)
    }

    fn start(&mut self, unit: Unit) -> Result<(), Fail> {
        let unable = |step: &'static str| Fail::unable(step);
        let (ours, theirs) = UnixStream::pair().map_err(unable("create pipe"))?;
        ours.set_nonblocking(true).map_err(unable("create pipe"))?;
        let setup = self.setup;
        let mut theirs = Some(theirs);
        let id = process::spawn(|forked| match theirs.take() {
            Some(theirs) => worker::main(&forked, setup, &unit, theirs),
            None => 1,
        })
        .map_err(unable("fork"))?;
        drop(theirs);
        self.started += 1;
        let looks_until = Instant::now().checked_add(self.time_of(&unit));
        self.workers.push(Worker {
            id,
            number: self.started,
            stream: ours,
            buffer: Vec::new(),
            unit,
            address: None,
            request: None,
            looks_until,
            since: Instant::now(),
            results: 0,
        });
        Ok(())
    }

    /// Grants what may be granted now, first to whom waits longest; when there may
    /// be more.
    fn grant(&mut self) -> Option<Instant> {
        let mut wake: Option<Instant> = None;
        let mut waiting: Vec<&mut Worker> = self.workers.iter_mut().collect();
        waiting.sort_by_key(|worker| worker.since);
        for worker in waiting {
            let granted = match worker.request {
                None => false,
                Some(Request::Begin(address)) => {
                    let free = self.pacing.begin(worker.number, address);
                    if free {
                        worker.address = Some(address);
                    }
                    free
                }
                Some(Request::Connect) => {
                    let now = Instant::now();
                    let address = worker.address;
                    match address.map(|address| self.pacing.connect(address, now)) {
                        Some(Err(from)) => {
                            wake = Some(wake.map_or(from, |wake| wake.min(from)));
                            false
                        }
                        _ => true,
                    }
                }
            };
            if granted {
                worker.request = None;
                // One that is gone is found out when it is listened to.
                let _ = (&worker.stream).write_all(b"+");
            }
        }
        wake
    }

    fn wait(&self, wake: Option<Instant>) -> Result<(), Fail> {
        let mut wanted: Vec<_> = self
            .workers
            .iter()
            .map(|worker| (worker.stream.as_fd(), Ready::READ))
            .collect();
        // An address may have become free without a word.
        let often = Instant::now() + Duration::from_secs(1);
        let wake = wake.map_or(often, |wake| wake.min(often));
        poll::wait(&mut wanted, Some(wake)).map_err(Fail::unable("wait"))
    }

    /// What the probes have said; those that ended are gone afterwards.
    fn listen(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut at = 0;
        while at < self.workers.len() {
            let worker = &mut self.workers[at];
            let open = worker.read();
            let sound = worker.lines(&mut self.pacing, &mut events);
            let late = worker
                .looks_until
                .is_some_and(|until| until <= Instant::now());
            if open && sound && !late {
                at += 1;
                continue;
            }
            let worker = self.workers.swap_remove(at);
            self.pacing.end(worker.number);
            if !sound || late {
                process::kill(worker.id);
            }
            let ended = process::wait_for(worker.id);
            if worker.results == 0 {
                let why = if late {
                    let seconds = text::count(self.setup.terms.host.as_secs(), "second");
                    format!("out of time: DNS took more than {seconds} (-T)")
                } else {
                    premature(ended)
                };
                let results = worker.instead(&why).into_iter();
                events.extend(results.map(|one| Event::Result(Box::new(one))));
            }
            events.push(Event::Over(worker.unit.destinations.len()));
        }
        events
    }
}

impl Worker {
    /// Reads what is there; false at the end.
    fn read(&mut self) -> bool {
        let mut piece = [0; 8192];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if self.buffer.len() > LINE_LIMIT {
                return true;
            }
        }
    }

    fn wants(&mut self, request: Request) {
        self.request = Some(request);
        self.since = Instant::now();
    }

    /// Acts on the lines that are whole; false where one is none.
    fn lines(&mut self, pacing: &mut Pacing, events: &mut Vec<Event>) -> bool {
        while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.looks_until = None;
            let said = std::str::from_utf8(&line[..end])
                .ok()
                .and_then(ProbeMessage::parse);
            match said {
                Some(ProbeMessage::Begin(address)) => self.wants(Request::Begin(address)),
                Some(ProbeMessage::Connect) => self.wants(Request::Connect),
                Some(ProbeMessage::Closed) => {
                    if let Some(address) = self.address {
                        pacing.closed(address, Instant::now());
                    }
                }
                Some(ProbeMessage::Result(result)) => {
                    self.results += 1;
                    events.push(Event::Result(result));
                }
                None => return false,
            }
        }
        self.buffer.len() <= LINE_LIMIT
    }

    /// Results in the place of those that a process did not live to give.
    fn instead(&self, why: &str) -> Vec<HostResult> {
        let destinations = self.unit.destinations.iter();
        destinations
            .map(|one| HostResult {
                host: one.host.clone(),
                port: one.port,
                protocol: one.start.name().to_owned(),
                mx_of: self.unit.is_domain.then(|| one.host.clone()),
                error: Some(why.to_owned()),
                findings: vec![Finding {
                    severity: Severity::High,
                    code: "unreachable".to_owned(),
                    text: format!("Nothing was found out: {why}"),
                }],
                ..HostResult::default()
            })
            .collect()
    }
}

/// Why a process gave no result.
fn premature(ended: Option<process::EndedChild>) -> String {
    match ended.and_then(process::EndedChild::signal) {
        Some(signal) => format!("the process for this host was ended by signal {signal}"),
        None => "the process for this host ended without a result".to_owned(),
    }
}

/// The reason of a failed write to descriptor 1.
pub(super) fn unwritable(error: &io::Error) -> Fail {
    Fail::temporary(format!("unable to write output: {}", report::reason(error)))
}
