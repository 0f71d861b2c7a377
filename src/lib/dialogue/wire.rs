//! What the grammars of all protocols share: both ways out, how both ways in are
//! read, and what a grammar is asked.
#![forbid(unsafe_code)]

use super::line::{Buffer, Content};
use super::{Event, Farewell, Settings};

/// What a grammar did with a line of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is done with.
    Yes,
    /// It must wait until the program has answered what went before.
    NotYet,
}

/// How the client's next bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As commands.
    Lines,
    /// Not at all before the program has answered.
    Hold,
    /// As message content.
    Content(Content),
    /// As this many bytes of content.
    Pass(u64),
    /// As this many bytes that go nowhere.
    Skip(u64),
    /// As whatever they are: no upgrade is possible any more.
    Open,
    /// Not at all: the client asked for TLS.
    Upgrading,
}

/// How the program's next bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answering {
    Lines,
    /// As a literal with this many bytes to come.
    Pass(u64),
    /// As such a literal that the client is not shown.
    Skip(u64),
    /// As lines of a greeting that the client has had; behind it, as whatever
    /// they are.
    Greeting,
    Open,
}

/// What the grammars share: both ways out, and how both ways in are read.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) settings: Settings,
    /// TLS can be had now.
    pub(super) offer: bool,
    pub(super) to_client: Buffer,
    pub(super) to_program: Buffer,
    pub(super) reading: Reading,
    pub(super) answering: Answering,
    pub(super) event: Option<Event>,
    /// A list of capabilities was answered here in the program's place, and a
    /// client may ask for it again.
    pub(super) listed: bool,
}

impl Wire {
    pub(super) fn tell(&mut self, text: &str) {
        self.to_client.push(text.as_bytes());
        self.to_client.push(b"\r\n");
    }

    pub(super) fn forward(&mut self, line: &[u8]) {
        self.to_program.push(line);
    }

    pub(super) fn relay(&mut self, line: &[u8]) {
        self.to_client.push(line);
    }

    pub(super) fn upgrade(&mut self) {
        self.reading = Reading::Upgrading;
        self.event = Some(Event::Upgrade);
    }

    pub(super) fn open(&mut self) {
        self.reading = Reading::Open;
        self.answering = Answering::Open;
    }

    /// The client's next `size` bytes are a literal or chunk.
    pub(super) fn pass(&mut self, size: u64) {
        self.reading = counted(size, Reading::Pass, Reading::Lines);
    }

    /// As [`Wire::pass`], but the program never sees it.
    pub(super) fn skip(&mut self, size: u64) {
        self.reading = counted(size, Reading::Skip, Reading::Lines);
    }

    pub(super) fn malformed(&mut self) {
        self.event = Some(Event::Malformed);
    }

    pub(super) fn end(&mut self) {
        self.event = Some(Event::Ended);
    }
}

/// One protocol's commands and answers.
pub(super) trait Grammar {
    /// Greets a client that no program serves before TLS.
    fn greet(&mut self, wire: &mut Wire);

    /// A command, while no program runs: TLS is required.
    fn refuse_line(&mut self, wire: &mut Wire, line: &[u8]);

    /// A line of the client's.
    fn client_line(&mut self, wire: &mut Wire, line: &[u8]) -> Taken;

    /// A line of the program's.
    fn program_line(&mut self, wire: &mut Wire, line: &[u8]);

    /// The content that follows a command is over.
    fn content_ended(&mut self, wire: &mut Wire) {
        wire.reading = Reading::Lines;
    }

    /// The answer to the upgrade command, with which the plaintext ends.
    fn go_ahead(&mut self) -> String;

    /// The answer to the upgrade command where TLS cannot be had.
    fn decline(&mut self) -> String;

    /// The last line of a dialogue that is cut off.
    fn farewell(&self, host: &str, why: Farewell) -> String;
}

/// How to read on with `left` bytes of a literal or chunk to come: in its way,
/// or behind the last of them in the other.
pub(super) fn counted<T>(left: u64, within: fn(u64) -> T, behind: T) -> T {
    if left == 0 { behind } else { within(left) }
}
