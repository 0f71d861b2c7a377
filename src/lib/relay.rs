//! A session and a program's channel made into bytes both ways, until both ends
//! are done.
//!
//! Nothing here waits but one poll; buffers are bounded, so a slow side stops
//! the other and not the machine; whatever the program wrote reaches the peer.
#![forbid(unsafe_code)]

use std::io::{self, Read as _};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use openssl::ssl::ErrorCode;

use crate::handshake::{Session, later_failure};
use crate::report::reason;
use crate::sys::channel::{Channel, Moved};
use crate::sys::memory::{self, Pages};
use crate::sys::poll::{self, Ready};
use crate::tls_ffi;

mod first_replies;

use first_replies::FirstReplies;

/// Plaintext that one direction holds: a pipe's capacity.
const BUFFER: usize = 64 * 1024;
/// Where a read brought so many bytes, more are probably on their way.
const STREAM: usize = 4096;
/// The most plaintext in a TLS record, RFC 8446 section 5.1.
const RECORD: usize = 16 * 1024;
/// How long the peer's end of file is waited for after our own.
const PARTING: Duration = Duration::from_secs(2);
/// How often the kernel is asked whether the peer has got all. It tells nobody.
const DELIVERY_CHECK: Duration = Duration::from_millis(100);
/// How often bytes are moved before the clock is looked at again.
const TURN: usize = 64;
/// The most that a peer may send without a byte of content: more than the tickets
/// of a server that puts certificates into them, and far more key updates than
/// anyone needs (RFC 8446 section 5.5).
const OVERHEAD: u64 = 64 * 1024;
/// Quiet after which buffers are given back.
const QUIET: Duration = Duration::from_secs(1);

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides were done.
    Done,
    /// The peer ended without close_notify: somebody may have cut its text.
    Truncated,
    /// No byte of the program's or the peer's moved for this many seconds.
    Idle(u64),
    /// The session broke; an alert, or what libssl says.
    Broken(String),
    /// The peer's host reset the connection, or the network did.
    Lost(String),
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn lost(error: io::Error) -> Ending {
    Ending::Lost(reason(&error))
}

/// Bytes on their way.
struct Flow {
    pages: Pages,
    start: usize,
    end: usize,
}

impl Flow {
    fn new() -> io::Result<Flow> {
        Ok(Flow {
            pages: Pages::new(BUFFER)?,
            start: 0,
            end: 0,
        })
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn waiting(&self) -> &[u8] {
        &self.pages[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }
}

/// What becomes of our last bytes once we have sent our end.
#[derive(Default)]
struct Parting {
    /// How many of them the peer has not acknowledged.
    left: Option<usize>,
    /// When it had all, and nobody read its own any more.
    delivered: Option<Instant>,
}

impl Parting {
    /// Whether the peer took something since the last look.
    fn took_more(&mut self, left: usize) -> bool {
        self.left.replace(left) != Some(left)
    }

    /// Once set, it stays, however much the peer still sends.
    fn delivered(&mut self, now: Instant) -> Instant {
        *self.delivered.get_or_insert(now)
    }
}

/// How bytes have moved.
struct Pace {
    /// When one did last.
    last_move: Instant,
    /// One did since buffers were given back.
    used: bool,
    parting: Parting,
}

impl Pace {
    fn new() -> Pace {
        Pace {
            last_move: Instant::now(),
            used: true,
            parting: Parting::default(),
        }
    }
}

/// Who may have something to read: each is asked once after a wait said so, until
/// it has no more.
struct Sources {
    peer: bool,
    program: bool,
    /// The program's end is behind what it wrote.
    program_over: bool,
}

/// The relay of one connection.
pub struct Relay {
    session: Session,
    program: Channel,
    outbound: Flow,
    inbound: Flow,
    first_replies: FirstReplies,
    /// The peer sends no more: close_notify, or its end of file.
    peer_done: bool,
    truncated: bool,
    /// Our close_notify is among what is to be sent.
    notified: bool,
    /// When we sent close_notify and shut our direction.
    parted: Option<Instant>,
    /// What may have something for us, as far as is known without asking.
    ready: Sources,
    idle: Option<Duration>,
    /// Bytes of content that moved so far: from and to the program, and from the
    /// peer.
    moved: u64,
    /// Where the last content ends in what is to be sent.
    content_end: u64,
}

impl Relay {
    /// A relay between a session and a program. `idle` bounds the time without
    /// a byte.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        mut session: Session,
        program: Channel,
        idle: Option<Duration>,
    ) -> io::Result<Relay> {
        session.get_mut().bound_overhead(OVERHEAD);
        session.get_mut().spare(true);
        // What somebody looked at since the handshake is no failure of the session's.
        tls_ffi::forget_errors();
        Ok(Relay {
            session,
            program,
            outbound: Flow::new()?,
            inbound: Flow::new()?,
            first_replies: FirstReplies::default(),
            peer_done: false,
            truncated: false,
            notified: false,
            parted: None,
            ready: Sources {
                // Libssl may hold more than the handshake.
                peer: true,
                program: false,
                program_over: false,
            },
            idle,
            moved: 0,
            content_end: 0,
        })
    }

    /// Puts text before all that the program writes; at most 64 KiB.
    pub fn begin_with(&mut self, text: &[u8]) {
        let length = text.len().min(BUFFER);
        self.outbound.pages[..length].copy_from_slice(&text[..length]);
        self.outbound.end = length;
    }

    /// Keeps the program's next replies from the peer.
    pub fn drop_replies(&mut self, count: u32) {
        self.first_replies = FirstReplies::new(count);
    }

    /// Puts text before all that the peer says; at most 64 KiB.
    pub fn replay(&mut self, text: &[u8]) {
        let length = text.len().min(BUFFER);
        self.inbound.pages[..length].copy_from_slice(&text[..length]);
        self.inbound.end = length;
    }

    /// Moves bytes until the end.
    pub fn run(&mut self) -> Ending {
        let ending = self.flow().unwrap_or_else(|ending| {
            // After our own end, the peer may vanish as it likes.
            if self.parted.is_some() && self.outbound.is_empty() {
                Ending::Done
            } else {
                ending
            }
        });
        if !matches!(ending, Ending::Lost(_)) && self.parted.is_none() {
            // Whatever the cause: the peer is told that this is the end.
            self.half_close();
        }
        self.program.close();
        ending
    }

    fn flow(&mut self) -> Result<Ending, Ending> {
        let mut pace = Pace::new();
        loop {
            let before = self.progress();
            let mut turns = 0;
            while turns < TURN && self.step()? {
                turns += 1;
            }
            self.push()?;
            let now = Instant::now();
            if self.progress() != before {
                pace.last_move = now;
                pace.used = true;
            }
            let ControlFlow::Continue(parting) = self.await_parting(&mut pace, now) else {
                break;
            };
            let idle = self.idle.map(|idle| pace.last_move + idle);
            if let (Some(idle), Some(end)) = (self.idle, idle) {
                if now >= end {
                    return Err(Ending::Idle(idle.as_secs()));
                }
            }
            let quiet = self.await_quiet(&mut pace, now);
            if turns == TURN {
                // There is more, perhaps in libssl's own buffer.
                continue;
            }
            let limits = [parting, idle, quiet];
            self.wait(limits.into_iter().flatten().min())
                .map_err(lost)?;
        }
        Ok(if self.truncated {
            Ending::Truncated
        } else {
            Ending::Done
        })
    }

    /// Behind our own end: when to look again whether the peer has all, or has ended
    /// too. Breaks where nothing more is to come.
    fn await_parting(&self, pace: &mut Pace, now: Instant) -> ControlFlow<(), Option<Instant>> {
        let Some(parted) = self.parted else {
            return ControlFlow::Continue(None);
        };
        let left = self.session.get_ref().unacknowledged();
        if pace.parting.took_more(left) {
            pace.last_move = now;
        }
        if left > 0 {
            return ControlFlow::Continue(Some(now + DELIVERY_CHECK));
        }
        if self.program.input().is_some() {
            return ControlFlow::Continue(None);
        }
        // Nobody is left to read what the peer still sends.
        let over = pace.parting.delivered(parted.max(pace.last_move)) + PARTING;
        let ended = self.peer_done && self.session.get_ref().has_ended();
        if ended || now >= over {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(Some(over))
    }

    /// Gives buffers back where it has been quiet for long enough, or says when it
    /// will have been.
    fn await_quiet(&mut self, pace: &mut Pace, now: Instant) -> Option<Instant> {
        if !pace.used {
            return None;
        }
        let quiet = pace.last_move + QUIET;
        if now < quiet {
            return Some(quiet);
        }
        self.release();
        pace.used = false;
        None
    }

    /// All bytes of content that moved so far. Key updates, their answers and
    /// empty records are none: they keep no connection alive.
    fn progress(&self) -> u64 {
        let taken = self.session.get_ref().transmitted().min(self.content_end);
        self.moved + taken
    }

    /// Moves what can be moved now; true if something did.
    fn step(&mut self) -> Result<bool, Ending> {
        self.make_room()?;
        let mut moved = self.take_from_program();
        moved |= self.give_to_peer()?;
        moved |= self.take_from_peer()?;
        moved |= self.give_to_program();
        Ok(moved)
    }

    fn take_from_program(&mut self) -> bool {
        if !self.ready.program
            || self.program.output().is_none()
            || !self.outbound.is_empty()
            || !self.session.get_ref().has_room()
        {
            return false;
        }
        match self.program.read(&mut self.outbound.pages) {
            Moved::Bytes(count) => {
                self.ready.program = count >= STREAM || self.ready.program_over;
                self.outbound.end = count;
                self.moved += count as u64;
                let dropped = self.first_replies.length(self.outbound.waiting());
                self.outbound.consume(dropped);
                true
            }
            Moved::Later => {
                self.ready.program = false;
                false
            }
            Moved::Ended => true,
        }
    }

    fn give_to_peer(&mut self) -> Result<bool, Ending> {
        let mut moved = false;
        while !self.outbound.is_empty() {
            let waiting = self.outbound.waiting();
            let record = &waiting[..waiting.len().min(RECORD)];
            match self.session.ssl_write(record) {
                Ok(count) => {
                    self.outbound.consume(count);
                    self.content_end = self.session.get_ref().queued();
                    moved = true;
                }
                Err(error)
                    if matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE) =>
                {
                    break;
                }
                Err(error) => return Err(self.broken(&error)),
            }
        }
        moved |= self.finish_sending()?;
        Ok(moved)
    }

    /// Where the program has written all: tells the peer that no more comes, TLS
    /// first, then TCP, behind what still waits.
    fn finish_sending(&mut self) -> Result<bool, Ending> {
        let has_more = self.program.output().is_some() || !self.outbound.is_empty();
        if has_more || self.parted.is_some() || !self.make_room()? {
            return Ok(false);
        }
        self.notify();
        let sent = self.session.get_mut().push_last();
        let sent = sent.map_err(lost)?;
        if sent {
            self.parted = Some(Instant::now());
        }
        Ok(sent)
    }

    /// Sends where so much waits that no more can be written; whether it can now.
    fn make_room(&mut self) -> Result<bool, Ending> {
        if !self.session.get_ref().has_room() {
            self.push()?;
        }
        Ok(self.session.get_ref().has_room())
    }

    fn push(&mut self) -> Result<(), Ending> {
        let pushed = self.session.get_mut().push();
        pushed.map_err(lost)
    }

    /// Puts close_notify behind all that is to be sent.
    fn notify(&mut self) {
        if !self.notified {
            self.notified = true;
            // One call sends ours; the peer's own comes to `take_from_peer`.
            let _ = self.session.shutdown();
        }
    }

    /// Tells the peer that no more comes, whether or not all of it could be sent.
    fn half_close(&mut self) {
        self.parted = Some(Instant::now());
        self.notify();
        let wire = self.session.get_mut();
        let _ = wire.push();
        wire.shut(Shutdown::Write);
    }

    fn take_from_peer(&mut self) -> Result<bool, Ending> {
        if self.session.get_ref().has_ended() || !self.ready.peer {
            return Ok(false);
        }
        if self.peer_done {
            // Behind close_notify nothing counts; unread, it would make the
            // kernel reset the connection over what we sent.
            return Ok(self.parted.is_some() && self.discard_raw());
        }
        let discard = self.program.input().is_none();
        if discard {
            self.inbound.consume(self.inbound.waiting().len());
        }
        let mut taken = 0;
        let mut moved = false;
        while taken < BUFFER && self.inbound.end < BUFFER {
            let room = &mut self.inbound.pages[self.inbound.end..];
            match self.session.ssl_read(room) {
                Ok(count) => {
                    self.session.get_mut().met_content();
                    moved = true;
                    taken += count;
                    if !discard {
                        self.inbound.end += count;
                        self.moved += count as u64;
                    }
                }
                Err(error) => {
                    match error.code() {
                        ErrorCode::WANT_READ if self.session.get_ref().has_ended() => {
                            self.peer_done = true;
                            self.truncated = true;
                            moved = true;
                        }
                        ErrorCode::WANT_READ => self.ready.peer = false,
                        ErrorCode::WANT_WRITE => {}
                        ErrorCode::ZERO_RETURN => {
                            self.peer_done = true;
                            moved = true;
                        }
                        _ => return Err(self.broken(&error)),
                    }
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// Reads and drops what comes behind the peer's close_notify.
    fn discard_raw(&mut self) -> bool {
        let mut scrap = [0; 4096];
        self.ready.peer = self.session.get_mut().read(&mut scrap).is_ok();
        self.ready.peer
    }

    fn give_to_program(&mut self) -> bool {
        if self.program.input().is_none() {
            return false;
        }
        if !self.inbound.is_empty() {
            return match self.program.write(self.inbound.waiting()) {
                Moved::Bytes(count) => {
                    self.inbound.consume(count);
                    self.moved += count as u64;
                    true
                }
                Moved::Later => false,
                // The program reads no more. It may go on writing.
                Moved::Ended => true,
            };
        }
        if self.peer_done {
            self.program.end_input();
            return true;
        }
        false
    }

    fn broken(&self, error: &openssl::ssl::Error) -> Ending {
        if self.session.get_ref().is_over_limit() {
            let peer = if self.session.ssl().is_server() {
                "client"
            } else {
                "server"
            };
            return Ending::Broken(format!(
                "{peer} sent {} KiB of key updates and the like without any data",
                OVERHEAD / 1024
            ));
        }
        let text = later_failure(self.session.ssl(), error);
        match error.io_error() {
            Some(_) => Ending::Lost(text),
            None => Ending::Broken(text),
        }
    }

    fn release(&mut self) {
        for flow in [&mut self.inbound, &mut self.outbound] {
            if flow.is_empty() {
                flow.pages.release();
            }
        }
        self.session.get_mut().release();
        memory::give_back();
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let wire = self.session.get_mut();
        let reads = !wire.has_ended()
            && if self.peer_done {
                self.parted.is_some()
            } else {
                self.inbound.end < BUFFER
            };
        let (writes, has_room) = (wire.has_waiting(), wire.has_room());
        // A descriptor without anything to wait for is left out where its
        // other side's end would be reported for ever.
        let mut wanted: Vec<(BorrowedFd<'_>, Ready)> = Vec::with_capacity(3);
        if reads || writes {
            let ready = Ready {
                read: reads,
                write: writes,
                gone: false,
            };
            wanted.push((wire.pollable(), ready));
        }
        if let Some(output) = self.program.output() {
            if self.outbound.is_empty() && has_room {
                wanted.push((output, Ready::READ));
            }
        }
        let output_at = usize::from(reads || writes);
        let watched = wanted.len();
        if let Some(input) = self.program.input() {
            let ready = Ready {
                write: !self.inbound.is_empty(),
                ..Ready::default()
            };
            wanted.push((input, ready));
        }
        poll::wait(&mut wanted, deadline)?;
        let came = |at: usize, listed: bool| {
            let one = wanted.get(at).filter(|_| listed);
            one.map_or(Ready::default(), |(_, came)| *came)
        };
        let from_peer = came(0, reads || writes);
        let from_program = came(output_at, watched > output_at);
        let abandoned = came(watched, true).gone;
        self.ready.peer |= from_peer.read || from_peer.gone;
        self.ready.program |= from_program.read || from_program.gone;
        self.ready.program_over |= from_program.gone;
        if from_peer.gone {
            self.session.get_mut().met_end();
        }
        if abandoned {
            // Nobody reads the program's input any more.
            self.program.end_input();
        }
        Ok(())
    }
}
