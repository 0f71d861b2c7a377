//! One poll loop between the client, a dialogue and the program. In the clear it
//! ends with an upgrade that is clean, or with the connection; where something
//! is left to do inside TLS, with the connection.
//!
//! Nothing waits but poll; a side that is slow holds back the other, and the
//! dialogue's limits are the only memory.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::dialogue::{Dialogue, Event, Farewell, LINE_LIMIT};
use crate::report::{self, Fail};
use crate::sys::channel::{Channel, Descriptors, Moved};
use crate::sys::child::Running;
use crate::sys::poll::{self, Ready};
use crate::sys::process;
use crate::text;

use super::client::Client;
use super::ucspi_tls::Control;

/// How long a program may take to end that has nothing more to do.
const GRACE: Duration = Duration::from_millis(500);

/// How long the last line for a client that is dropped may take.
const PARTING: Duration = Duration::from_secs(2);

/// Bytes per read.
const PIECE: usize = 16384;

/// The program, on a socket.
struct Program {
    running: Running,
    channel: Channel,
}

/// How the phase ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With the client or the program. The program's exit code.
    Ended(u8),
    /// The connection is to be closed, for this reason.
    Dropped(String),
    /// The client waits for the go-ahead, and has sent nothing behind its
    /// command.
    Upgrade,
}

/// Limits on time; `None` for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// Without a byte from either side.
    pub(super) idle: Option<Duration>,
    /// For the client's first byte.
    pub(super) first: Option<Instant>,
    /// For all of the phase.
    pub(super) end: Option<Instant>,
}

/// What ran out.
#[derive(Clone, Copy, Debug)]
enum Late {
    Idle(Duration),
    Silent,
    Without,
}

impl Times {
    /// The next limit, and which it is.
    fn next(&self, last_byte: Instant, heard: bool) -> Option<(Instant, Late)> {
        let idle = self.idle.map(|idle| (last_byte + idle, Late::Idle(idle)));
        let first = self.first.filter(|_| !heard).map(|at| (at, Late::Silent));
        let end = self.end.map(|at| (at, Late::Without));
        let limits = [end, idle, first];
        limits.into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

impl fmt::Display for Late {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Late::Idle(limit) => write!(out, "idle for {} s", limit.as_secs()),
            Late::Silent => out.write_str("client sent nothing"),
            Late::Without => out.write_str("no TLS within the time allowed"),
        }
    }
}

/// The phase.
pub(super) struct Phase<'a> {
    dialogue: Dialogue,
    client: Client,
    /// In the clear: the server, which can still start TLS.
    control: Option<&'a Control>,
    program: Option<Program>,
    times: Times,
    /// Anything came from the client.
    heard: bool,
    /// The client's end of file came.
    client_ended: bool,
    /// Nobody hears what the client is told: reading from it or writing to it
    /// failed, or its socket has hung up.
    client_gone: bool,
    /// TLS was found to be out of reach.
    withdrawn: bool,
    /// Anything came from the program.
    greeted: bool,
}

impl<'a> Phase<'a> {
    /// A phase in front of a program that is not started.
    pub(super) fn new(
        dialogue: Dialogue,
        client: Client,
        control: Option<&'a Control>,
        times: Times,
    ) -> Self {
        Phase {
            dialogue,
            client,
            control,
            program: None,
            times,
            heard: false,
            client_ended: false,
            client_gone: false,
            withdrawn: false,
            greeted: false,
        }
    }

    /// Starts the program.
    pub(super) fn start(&mut self, command: &mut Command) -> io::Result<()> {
        let (channel, side) = Channel::new(Descriptors::Socket)?;
        command
            .stdin(Stdio::from(side.reads))
            .stdout(Stdio::from(side.writes));
        self.program = Some(Program {
            running: Running::new(command)?,
            channel,
        });
        Ok(())
    }

    /// Tells the client that there is nothing to serve it.
    pub(super) fn excuse(&mut self) {
        self.close_with(Farewell::Unavailable);
    }

    /// Relays until the client may begin TLS, or the end.
    pub(super) fn run(&mut self) -> Result<Outcome, Fail> {
        let mut last_byte = Instant::now();
        loop {
            if let Some(outcome) = self.settle()? {
                return Ok(outcome);
            }
            let limit = self.times.next(last_byte, self.heard);
            if self.transfer(limit.map(|(at, _)| at))? {
                last_byte = Instant::now();
            } else if let Some((_, late)) = limit.filter(|(at, _)| Instant::now() >= *at) {
                self.close_with(Farewell::Idle);
                return self.dropped(late.to_string());
            }
        }
    }

    /// Answers the upgrade command and waits for the first byte of the
    /// handshake, so that a client which sent on in the clear is caught here.
    /// The program's channel is closed before.
    pub(super) fn go_ahead(&mut self, deadline: Instant) -> Result<Outcome, Fail> {
        if let Some(program) = &mut self.program {
            program.channel.close();
        }
        self.dialogue.go_ahead();
        if !self.flush(deadline)? {
            return self.dropped("client did not read the reply to its upgrade command".to_owned());
        }
        loop {
            match self.client.look() {
                Ok(None) => return self.dropped("client sent no handshake".to_owned()),
                // A handshake record begins with 22, that of old clients with
                // a high bit; anything else is text.
                Ok(Some(byte)) if byte != 22 && byte < 0x80 => {
                    return self.dropped("client went on in the clear: injection".to_owned());
                }
                Ok(_) => return Ok(Outcome::Upgrade),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return self.dropped(report::reason(&error)),
            }
            let came = poll::one(self.client.input.as_fd(), Ready::READ, deadline);
            if came.map_err(Fail::unable("wait"))?.is_nothing() {
                return self.dropped("client sent no handshake in time".to_owned());
            }
        }
    }

    /// Ends the program that served in the clear, if there is one.
    pub(super) fn end(mut self) -> Result<(), Fail> {
        self.end_program(Some(GRACE)).map(|_| ())
    }

    /// Acts on what the last bytes brought. `None`: there is more to come.
    fn settle(&mut self) -> Result<Option<Outcome>, Fail> {
        loop {
            if self.client_gone {
                self.tell_nobody();
            }
            let told = self.dialogue.for_client().is_empty();
            match self.dialogue.event() {
                Some(Event::Ended) if told => return self.finished().map(Some),
                Some(Event::Injection(count)) => {
                    let bytes = text::count(count, "byte");
                    let reason = format!(
                        "client sent {bytes} in the clear behind its upgrade command: injection"
                    );
                    return self.dropped(reason).map(Some);
                }
                Some(Event::LineTooLong) => {
                    self.close_with(Farewell::LineTooLong);
                    let reason = format!("client sent a line over {LINE_LIMIT} bytes");
                    return self.dropped(reason).map(Some);
                }
                Some(Event::Malformed) => {
                    self.close_with(Farewell::Malformed);
                    let reason = "client sent an ambiguous command".to_owned();
                    return self.dropped(reason).map(Some);
                }
                Some(Event::HiddenPassword) => {
                    self.close_with(Farewell::Malformed);
                    let reason = "client sent a password command after an ambiguous end of message"
                        .to_owned();
                    return self.dropped(reason).map(Some);
                }
                Some(Event::ProgramLineTooLong) => {
                    self.close_with(Farewell::Unavailable);
                    let reason = format!("program sent a line over {LINE_LIMIT} bytes");
                    return self.dropped(reason).map(Some);
                }
                Some(Event::Upgrade) if told && !self.control.is_some_and(Control::is_alive) => {
                    self.dialogue.decline();
                    continue;
                }
                Some(Event::Upgrade) if told => match self.look_behind() {
                    Some(true) => return Ok(Some(Outcome::Upgrade)),
                    Some(false) => continue,
                    None => {}
                },
                _ => {}
            }
            let over = match self.program {
                Some(_) => self.dialogue.client_has_all(),
                None => self.client_ended && told,
            };
            if over || self.has_left() {
                return self.finished().map(Some);
            }
            if self.dialogue.program_has_all() {
                if let Some(program) = &mut self.program {
                    program.channel.end_input();
                }
            }
            return Ok(None);
        }
    }

    /// The client is gone: what waits for it is dropped, and the program's next
    /// word is refused, as the kernel would refuse it on the client's own socket.
    fn tell_nobody(&mut self) {
        self.dialogue.client_took(self.dialogue.for_client().len());
        if let Some(program) = &mut self.program {
            program.channel.refuse_output();
        }
    }

    /// Whether the client is gone and the program has all of it that it can get. A
    /// command that waits for the answer to another is not among that: the answer
    /// that would let it go may never come.
    fn has_left(&self) -> bool {
        let input = self.program.as_ref().map(|program| program.channel.input());
        let takes_more = input.is_some_and(|input| input.is_some());
        self.client_gone
            && !self.hears_client()
            && (self.dialogue.for_program().is_empty() || !takes_more)
    }

    /// Whether the client's next bytes are to be read now.
    fn hears_client(&self) -> bool {
        let upgrading = self.dialogue.event() == Some(Event::Upgrade);
        !self.client_ended && (upgrading || self.dialogue.client_room() > 0)
    }

    /// Whether anything came behind the upgrade command: true if nothing did,
    /// `None` if the client is gone.
    fn look_behind(&mut self) -> Option<bool> {
        let mut buffer = [0; PIECE];
        match self.client.receive(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(true),
            Ok(0) | Err(_) => {
                self.client_left();
                None
            }
            Ok(count) => {
                self.dialogue.feed_client(&buffer[..count]);
                Some(false)
            }
        }
    }

    /// Waits, and moves what can be moved. False if nothing could.
    fn transfer(&mut self, deadline: Option<Instant>) -> Result<bool, Fail> {
        let hears_client = self.hears_client();
        if !hears_client {
            self.client.watch();
        }
        let program = self.program.as_ref();
        let client = self.client.output.as_ref().map(OwnedFd::as_fd);
        let places: [(Side, bool, Option<BorrowedFd<'_>>); 6] = [
            (
                Side::FromClient,
                hears_client,
                Some(self.client.input.as_fd()),
            ),
            (
                // Where it is not read, its end would not be seen.
                Side::Departure,
                !hears_client && !self.client_gone,
                client,
            ),
            (
                Side::ToClient,
                !self.dialogue.for_client().is_empty(),
                client,
            ),
            (
                Side::FromProgram,
                self.dialogue.program_room() > 0,
                program.and_then(|program| program.channel.output()),
            ),
            (
                Side::ToProgram,
                !self.dialogue.for_program().is_empty(),
                program.and_then(|program| program.channel.input()),
            ),
            (
                Side::Control,
                !self.withdrawn,
                self.control.map(Control::as_borrowed),
            ),
        ];
        let mut sides = Vec::with_capacity(places.len());
        let mut wanted = Vec::with_capacity(places.len());
        for (side, is_wanted, fd) in places {
            if let (true, Some(fd)) = (is_wanted, fd) {
                sides.push(side);
                wanted.push((fd, side.interest()));
            }
        }
        poll::wait(&mut wanted, deadline).map_err(Fail::unable("wait"))?;
        let ready: Vec<Side> = sides
            .into_iter()
            .zip(&wanted)
            .filter(|(_, (_, ready))| *ready != Ready::default())
            .map(|(side, _)| side)
            .collect();
        let mut moved = false;
        for side in ready {
            moved |= self.move_bytes(side);
        }
        Ok(moved)
    }

    /// Moves bytes on one side that is ready; false if there was none.
    fn move_bytes(&mut self, side: Side) -> bool {
        let mut buffer = [0; PIECE];
        match side {
            Side::FromClient => self.hear_client(&mut buffer),
            Side::ToClient => match self.client.transmit(self.dialogue.for_client()) {
                Ok(count) => {
                    self.dialogue.client_took(count);
                    count > 0
                }
                Err(error) => self.client_failed(&error),
            },
            Side::FromProgram => self.hear_program(&mut buffer),
            Side::ToProgram => {
                let Some(program) = &mut self.program else {
                    return false;
                };
                match program.channel.write(self.dialogue.for_program()) {
                    Moved::Bytes(count) => self.dialogue.program_took(count),
                    // It reads no more, but may still have something to say.
                    Moved::Ended => {}
                    Moved::Later => return false,
                }
                true
            }
            Side::Control => {
                self.withdrawn = true;
                self.dialogue.withdraw();
                false
            }
            Side::Departure => {
                self.client_gone = true;
                false
            }
        }
    }

    fn hear_client(&mut self, buffer: &mut [u8; PIECE]) -> bool {
        let room = match self.dialogue.client_room() {
            // Behind the upgrade command any byte is one too many.
            0 => PIECE,
            room => room.min(PIECE),
        };
        match self.client.receive(&mut buffer[..room]) {
            Ok(0) => {
                self.client_ended = true;
                // Where it waits for the answer to its upgrade, it is given up once it has
                // those before it.
                self.dialogue.end_client();
                true
            }
            Ok(count) => {
                self.heard = true;
                self.dialogue.feed_client(&buffer[..count]);
                true
            }
            Err(error) => self.client_failed(&error),
        }
    }

    fn hear_program(&mut self, buffer: &mut [u8; PIECE]) -> bool {
        let room = self.dialogue.program_room().min(PIECE);
        let Some(program) = &mut self.program else {
            return false;
        };
        match program.channel.read(&mut buffer[..room]) {
            Moved::Bytes(count) => {
                self.greeted = true;
                self.dialogue.feed_program(&buffer[..count]);
            }
            Moved::Ended => self.dialogue.end_program(),
            Moved::Later => return false,
        }
        true
    }

    fn client_failed(&mut self, error: &io::Error) -> bool {
        let failed = error.kind() != io::ErrorKind::WouldBlock;
        if failed {
            self.client_left();
        }
        failed
    }

    /// Neither way to the client works.
    fn client_left(&mut self) {
        self.client_ended = true;
        self.client_gone = true;
    }

    /// The client or the program is done: the program may take its time.
    fn finished(&mut self) -> Result<Outcome, Fail> {
        self.client.end_output();
        self.end_program(self.times.idle).map(Outcome::Ended)
    }

    fn dropped(&mut self, reason: String) -> Result<Outcome, Fail> {
        self.end_program(Some(GRACE))?;
        Ok(Outcome::Dropped(reason))
    }

    /// `patience`: how long it may take by itself; `None` for ever.
    fn end_program(&mut self, patience: Option<Duration>) -> Result<u8, Fail> {
        let Some(mut program) = self.program.take() else {
            return Ok(0);
        };
        program.channel.close();
        let status = match patience {
            Some(patience) => program.running.end_by(Instant::now() + patience),
            None => program.running.wait(),
        };
        let status = status.map_err(Fail::unable("wait for the program"))?;
        Ok(process::shell_code(status.into_raw()))
    }

    /// As [`Dialogue::has_listed_capabilities`].
    pub(super) fn has_listed_capabilities(&self) -> bool {
        self.dialogue.has_listed_capabilities()
    }

    /// Whether the program ended before it said a word, while the client was
    /// there to hear one.
    pub(super) fn was_mute(&self) -> bool {
        !self.greeted && !self.client_gone && !self.client_ended
    }

    /// Sends a last line. The client may be in the middle of a flood: what it
    /// still sends is read for a while, or the reset of a socket with unread
    /// bytes would overtake the line.
    fn close_with(&mut self, why: Farewell) {
        let deadline = Instant::now() + PARTING;
        self.dialogue.bid_farewell(why);
        if !self.flush(deadline).unwrap_or(false) {
            return;
        }
        self.client.end_output();
        let mut buffer = [0; PIECE];
        while Instant::now() < deadline {
            if poll::one(self.client.input.as_fd(), Ready::READ, deadline).is_err() {
                return;
            }
            match self.client.receive(&mut buffer) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }

    /// Writes everything that waits for the client; false if it would not take
    /// it in time.
    fn flush(&mut self, deadline: Instant) -> Result<bool, Fail> {
        while !self.dialogue.for_client().is_empty() {
            let Some(output) = &self.client.output else {
                return Ok(false);
            };
            let came = poll::one(output.as_fd(), Ready::WRITE, deadline);
            if came.map_err(Fail::unable("wait"))?.is_nothing() {
                return Ok(false);
            }
            self.move_bytes(Side::ToClient);
            if self.client_gone {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The ends of the four ways, the server above, and the client's departure.
#[derive(Clone, Copy, Debug)]
enum Side {
    Control,
    Departure,
    FromClient,
    FromProgram,
    ToClient,
    ToProgram,
}

impl Side {
    fn interest(self) -> Ready {
        match self {
            Side::Control | Side::FromClient | Side::FromProgram => Ready::READ,
            // That a socket has hung up comes unasked.
            Side::Departure => Ready::default(),
            Side::ToClient | Side::ToProgram => Ready::WRITE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::{Protocol, Settings};
    use crate::sys::fd;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    /// Runs a phase without a program against a client that says `talk` and
    /// then listens to the end: the outcome, and what it heard.
    fn phase_with(times: Times, talk: &'static [u8]) -> (Outcome, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let client = Client::new(ours.try_clone().unwrap().into(), ours.into());
        let (control, _server) = fd::stream_pair().unwrap();
        let (read, write) = fd::pipe().unwrap();
        let control = Control::of(control, read, write);
        let dialogue = Dialogue::alone(Settings {
            protocol: Protocol::Smtp,
            allow_clear: false,
            host: "mx.test".to_owned(),
        });
        theirs.write_all(talk).unwrap();
        let listener = std::thread::spawn(move || {
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).unwrap();
            heard
        });
        let mut phase = Phase::new(dialogue, client, Some(&control), times);
        let outcome = phase.run().unwrap();
        drop(phase);
        (outcome, listener.join().unwrap())
    }

    #[test]
    fn a_client_that_takes_too_long_is_told_and_dropped() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let later = now + hour;
        for (idle, first, end, reason) in [
            (hour, None, Some(now), "no TLS within the time allowed"),
            (Duration::ZERO, None, Some(later), "idle for 0 s"),
            (Duration::ZERO, Some(later), None, "idle for 0 s"),
            (hour, Some(now), None, "client sent nothing"),
            (hour, Some(now), Some(later), "client sent nothing"),
        ] {
            let idle = Some(idle);
            let (outcome, heard) = phase_with(Times { idle, first, end }, b"");
            assert_eq!(outcome, Outcome::Dropped(reason.to_owned()));
            assert_eq!(
                heard,
                "220 mx.test ESMTP\r\n421 4.4.2 mx.test idle for too long\r\n"
            );
        }
    }

    #[test]
    fn a_clean_upgrade_is_told_from_an_injection() {
        let times = Times::default();
        assert_eq!(phase_with(times, b"STARTTLS\r\n").0, Outcome::Upgrade);
        assert_eq!(
            phase_with(times, b"STARTTLS\r\nRSET\r\n").0,
            Outcome::Dropped(
                "client sent 6 bytes in the clear behind its upgrade command: injection".to_owned()
            )
        );
        assert_eq!(phase_with(times, b"NOOP\r\nQUIT\r\n").0, Outcome::Ended(0));
        // A word in time lifts the limit on silence, and no other.
        let now = Instant::now();
        let limits = Times {
            first: Some(now),
            end: Some(now + Duration::from_secs(60)),
            idle: None,
        };
        let next = |heard| limits.next(now, heard).map(|(at, _)| at);
        assert_eq!(next(false), limits.first);
        assert_eq!(next(true), limits.end);
    }
}
