//! The line dialogues in which a client asks a server for TLS: SMTP, LMTP,
//! POP3, IMAP and `ManageSieve`, as one who stands between client and program;
//! [`client`] is the client's own side.
//!
//! Pure state: bytes in, bytes and events out. No descriptor, no clock, and no
//! buffer grows beyond [`LINE_LIMIT`] and [`HIGH_WATER`] together, whatever
//! either side sends, as long as the caller feeds no more than there is room
//! for. Three promises hold for any bytes:
//! - message content and literals are handed on as they are, and nothing in
//!   them is taken for a command;
//! - without leave, no command that carries a password reaches the program, not
//!   even in content behind what some programs take for its end;
//! - only a program's answer to the command that asks for its capabilities is
//!   edited.
//!
//! To keep them, a command whose answer decides how the next bytes are to be
//! read is sent on alone: what the client pipelined behind it waits.
#![forbid(unsafe_code)]

pub mod client;

mod imap;
mod line;
mod pop3;
mod sieve;
mod smtp;
mod wire;

use line::{Buffer, Found};
use wire::{Answering, Grammar, Reading, Taken, Wire, counted};

/// The longest command, or line of a program's answer, in bytes with its line
/// end.
pub const LINE_LIMIT: usize = 65536;

/// Above this many bytes that wait for one side, nothing more is taken from
/// the other.
pub const HIGH_WATER: usize = 65536;

/// A protocol with an upgrade command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 9051 and 3501.
    Imap,
    /// RFC 2033.
    Lmtp,
    /// RFC 1939 and 2595.
    Pop3,
    /// `ManageSieve`, RFC 5804.
    Sieve,
    /// RFC 5321 and 3207.
    Smtp,
}

impl Protocol {
    /// The protocol of a word on a command line.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Protocol> {
        match name {
            "imap" => Some(Protocol::Imap),
            "lmtp" => Some(Protocol::Lmtp),
            "pop3" => Some(Protocol::Pop3),
            "sieve" => Some(Protocol::Sieve),
            "smtp" => Some(Protocol::Smtp),
            _ => None,
        }
    }

    /// Its upgrade command.
    #[must_use]
    pub fn upgrade_command(self) -> &'static str {
        match self {
            Protocol::Pop3 => "STLS",
            _ => "STARTTLS",
        }
    }

    /// How many replies of a program that starts afresh inside TLS the client
    /// must not see: its greeting, except in `ManageSieve`, where it is the
    /// capability list that RFC 5804 (section 2.2) wants repeated.
    #[must_use]
    pub fn greeting_replies(self) -> usize {
        usize::from(self != Protocol::Sieve)
    }
}

/// What is left to do between client and program inside TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsideTls {
    /// The program's greeting is not for the client, and the server doesn't drop
    /// it.
    pub drops_greeting: bool,
    /// POP3: a program without CAPA has it answered, up to the login.
    pub lists_capabilities: bool,
}

/// What a dialogue is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which dialogue.
    pub protocol: Protocol,
    /// Passwords may pass in the clear: password commands and the capabilities
    /// that invite them are left alone.
    pub allow_clear: bool,
    /// The name of this host in greetings of our own.
    pub host: String,
}

/// What the caller must act on. Nothing more is read from either side until it
/// has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The dialogue is over once the client has what waits for it.
    Ended,
    /// A password command in message content, behind a line that some programs
    /// take for the end of that.
    HiddenPassword,
    /// The client sent this many bytes behind its upgrade command, before it
    /// was told to go ahead.
    Injection(usize),
    /// A command over [`LINE_LIMIT`].
    LineTooLong,
    /// A command that programs disagree about how to read, in a place where it
    /// cannot be refused by itself.
    Malformed,
    /// A line of the program's over [`LINE_LIMIT`].
    ProgramLineTooLong,
    /// The client asked for TLS, and every answer that it is owed waits for it
    /// already. The caller answers [`Dialogue::go_ahead`] or
    /// [`Dialogue::decline`].
    Upgrade,
}

/// Why the client is told that the dialogue is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It, or the program, was silent for too long.
    Idle,
    /// Its line is over [`LINE_LIMIT`].
    LineTooLong,
    /// What it sent cannot be read, or is read differently by different programs.
    Malformed,
    /// There is no program to serve it.
    Unavailable,
}

/// One client's dialogue before TLS.
pub struct Dialogue {
    wire: Wire,
    grammar: Box<dyn Grammar>,
    from_client: Buffer,
    from_program: Buffer,
    client_ended: bool,
    program_ended: bool,
    /// No program runs.
    alone: bool,
}

impl Dialogue {
    /// A dialogue with a program behind it.
    #[must_use]
    pub fn new(settings: Settings) -> Dialogue {
        let grammar: Box<dyn Grammar> = match settings.protocol {
            Protocol::Imap => Box::new(imap::Imap::default()),
            Protocol::Lmtp => Box::new(smtp::Smtp::new(true)),
            Protocol::Pop3 => Box::new(pop3::Pop3::default()),
            Protocol::Sieve => Box::new(sieve::Sieve::default()),
            Protocol::Smtp => Box::new(smtp::Smtp::new(false)),
        };
        Dialogue {
            wire: Wire {
                settings,
                offer: true,
                to_client: Buffer::default(),
                to_program: Buffer::default(),
                // The program speaks first in each of these protocols.
                reading: Reading::Hold,
                answering: Answering::Lines,
                event: None,
                listed: false,
            },
            grammar,
            from_client: Buffer::default(),
            from_program: Buffer::default(),
            client_ended: false,
            program_ended: false,
            alone: false,
        }
    }

    /// A dialogue without a program: it greets, says what it can do, and
    /// refuses everything but the upgrade.
    #[must_use]
    pub fn alone(settings: Settings) -> Dialogue {
        let mut dialogue = Dialogue::new(settings);
        dialogue.alone = true;
        dialogue.wire.reading = Reading::Lines;
        dialogue.grammar.greet(&mut dialogue.wire);
        dialogue
    }

    /// A dialogue inside TLS with a program that is started afresh: everything
    /// passes but what `between` says.
    #[must_use]
    pub fn inside(settings: Settings, between: InsideTls) -> Dialogue {
        let mut dialogue = Dialogue::new(Settings {
            allow_clear: true,
            ..settings
        });
        dialogue.wire.offer = false;
        if between.lists_capabilities {
            // Only POP3 has programs without such a list.
            dialogue.grammar = Box::new(pop3::Pop3::inside(between.drops_greeting));
        } else {
            dialogue.wire.reading = Reading::Open;
            dialogue.wire.answering = if between.drops_greeting {
                Answering::Greeting
            } else {
                Answering::Open
            };
        }
        dialogue
    }

    /// Whether the client was given a list of capabilities that is not the
    /// program's. It may ask for that again inside TLS (RFC 2595, section 4).
    #[must_use]
    pub fn has_listed_capabilities(&self) -> bool {
        self.wire.listed
    }

    /// How many bytes of the client's may be fed now.
    #[must_use]
    pub fn client_room(&self) -> usize {
        if self.client_ended || self.wire.event.is_some() {
            return 0;
        }
        LINE_LIMIT - self.from_client.len().min(LINE_LIMIT)
    }

    /// How many bytes of the program's may be fed now.
    #[must_use]
    pub fn program_room(&self) -> usize {
        if self.alone || self.wire.event.is_some() {
            return 0;
        }
        LINE_LIMIT - self.from_program.len().min(LINE_LIMIT)
    }

    /// Takes bytes that the client sent.
    pub fn feed_client(&mut self, bytes: &[u8]) {
        self.from_client.push(bytes);
        self.advance();
    }

    /// Takes bytes that the program sent.
    pub fn feed_program(&mut self, bytes: &[u8]) {
        self.from_program.push(bytes);
        self.advance();
    }

    /// The client sends nothing more.
    pub fn end_client(&mut self) {
        self.client_ended = true;
    }

    /// The program says nothing more: what it left of a line goes to the client.
    pub fn end_program(&mut self) {
        self.program_ended = true;
        self.advance();
    }

    /// Whether the client has all that the program will ever say to it.
    #[must_use]
    pub fn client_has_all(&self) -> bool {
        self.program_ended && self.from_program.is_empty() && self.wire.to_client.is_empty()
    }

    /// Whether the program has all that the client will ever say to it: its
    /// input can be ended. Half a command of a client that went away is not
    /// handed on.
    #[must_use]
    pub fn program_has_all(&mut self) -> bool {
        let waits = match self.wire.reading {
            Reading::Hold | Reading::Lines => self.from_client.line().is_some(),
            Reading::Content(_) | Reading::Open | Reading::Pass(_) | Reading::Skip(_) => {
                !self.from_client.is_empty()
            }
            Reading::Upgrading => false,
        };
        self.client_ended && !waits && self.wire.to_program.is_empty()
    }

    /// What the client is to get.
    #[must_use]
    pub fn for_client(&self) -> &[u8] {
        self.wire.to_client.front()
    }

    /// The client took so many bytes of it.
    pub fn client_took(&mut self, count: usize) {
        self.wire.to_client.take(count);
        self.advance();
    }

    /// What the program is to get.
    #[must_use]
    pub fn for_program(&self) -> &[u8] {
        self.wire.to_program.front()
    }

    /// The program took so many bytes of it.
    pub fn program_took(&mut self, count: usize) {
        self.wire.to_program.take(count);
        self.advance();
    }

    /// What the caller must act on.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        self.wire.event
    }

    /// TLS can no longer be had: it is not offered any more, and refused.
    pub fn withdraw(&mut self) {
        self.wire.offer = false;
    }

    /// Answers the upgrade: the last bytes in the clear. Everything that was
    /// learnt of the client and everything that the program still said is
    /// forgotten.
    pub fn go_ahead(&mut self) {
        let answer = self.grammar.go_ahead();
        self.wire.tell(&answer);
        self.wire.to_program.clear();
        self.from_program.clear();
    }

    /// Answers the upgrade with a refusal; the dialogue goes on.
    pub fn decline(&mut self) {
        let answer = self.grammar.decline();
        self.wire.tell(&answer);
        self.wire.offer = false;
        self.wire.event = None;
        self.wire.reading = Reading::Lines;
        self.advance();
    }

    /// Tells the client why this is the end.
    pub fn bid_farewell(&mut self, why: Farewell) {
        let answer = self.grammar.farewell(&self.wire.settings.host, why);
        self.wire.tell(&answer);
        self.wire.end();
    }

    /// Reads what can be read now.
    fn advance(&mut self) {
        // An answer may let the client's next line go; a line of the client's
        // never lets an answer go.
        self.read_program();
        self.read_client();
    }

    fn is_full(&self) -> bool {
        self.wire.to_client.len() > HIGH_WATER || self.wire.to_program.len() > HIGH_WATER
    }

    fn read_program(&mut self) {
        while self.wire.event.is_none() && !self.from_program.is_empty() && !self.is_full() {
            let there = self.from_program.len();
            let count = match self.wire.answering {
                Answering::Open => there,
                Answering::Pass(left) | Answering::Skip(left) => {
                    there.min(usize::try_from(left).unwrap_or(usize::MAX))
                }
                Answering::Lines | Answering::Greeting => match self.from_program.line() {
                    Some(length) if length <= LINE_LIMIT => length,
                    None if there < LINE_LIMIT && !self.program_ended => break,
                    None if there < LINE_LIMIT => there,
                    _ => {
                        self.wire.event = Some(Event::ProgramLineTooLong);
                        break;
                    }
                },
            };
            let bytes = &self.from_program.front()[..count];
            match self.wire.answering {
                Answering::Greeting => {
                    // The last line is one whose fourth byte is not a hyphen.
                    if bytes.get(3) != Some(&b'-') {
                        self.wire.open();
                    }
                }
                Answering::Lines if !bytes.ends_with(b"\n") => self.wire.relay(bytes),
                Answering::Lines => self.grammar.program_line(&mut self.wire, bytes),
                Answering::Open => self.wire.relay(bytes),
                Answering::Pass(left) => {
                    self.wire.relay(bytes);
                    self.wire.answering =
                        counted(left - count as u64, Answering::Pass, Answering::Lines);
                }
                Answering::Skip(left) => {
                    self.wire.answering =
                        counted(left - count as u64, Answering::Skip, Answering::Lines);
                }
            }
            self.from_program.take(count);
        }
    }

    fn read_client(&mut self) {
        while self.wire.event.is_none() && !self.from_client.is_empty() && !self.is_full() {
            let there = self.from_client.len();
            let count = match self.wire.reading {
                Reading::Hold | Reading::Upgrading => break,
                Reading::Lines => match self.from_client.line() {
                    Some(length) if length <= LINE_LIMIT => {
                        let line = &self.from_client.front()[..length];
                        if self.alone {
                            self.grammar.refuse_line(&mut self.wire, line);
                        } else if self.grammar.client_line(&mut self.wire, line) == Taken::NotYet {
                            break;
                        }
                        length
                    }
                    None if there < LINE_LIMIT => break,
                    _ => {
                        self.wire.event = Some(Event::LineTooLong);
                        break;
                    }
                },
                Reading::Open => {
                    self.wire.to_program.push(self.from_client.front());
                    there
                }
                Reading::Content(mut content) => {
                    let guarded = !self.wire.settings.allow_clear;
                    let (count, found) = content.scan(self.from_client.front(), guarded);
                    self.wire.reading = Reading::Content(content);
                    self.wire
                        .to_program
                        .push(&self.from_client.front()[..count]);
                    match found {
                        Found::End => self.grammar.content_ended(&mut self.wire),
                        Found::More => {}
                        // The verb went, and what follows it does not.
                        Found::Password => self.wire.event = Some(Event::HiddenPassword),
                    }
                    count
                }
                Reading::Pass(left) => {
                    let count = there.min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.wire
                        .to_program
                        .push(&self.from_client.front()[..count]);
                    self.wire.reading = counted(left - count as u64, Reading::Pass, Reading::Lines);
                    count
                }
                Reading::Skip(left) => {
                    let count = there.min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.wire.reading = counted(left - count as u64, Reading::Skip, Reading::Lines);
                    count
                }
            };
            self.from_client.take(count);
        }
        if self.wire.event == Some(Event::Upgrade) && !self.from_client.is_empty() {
            self.wire.event = Some(Event::Injection(self.from_client.len()));
        }
    }
}

#[cfg(test)]
mod tests;
