//! SMTP and LMTP as a server sees them: RFC 5321, 2033, 2920 (pipelining), 3030
//! (BDAT), 3207 (STARTTLS), 4954 (AUTH).
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::Farewell;
use super::line::{Content, body, is_ambiguous, is_one_of, size, verb, word};
use super::wire::{Grammar, Reading, Taken, Wire};

/// How many pipelined commands may be unanswered.
const PIPELINE: usize = 100;

/// A reply that the program owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Greeting,
    /// To EHLO or LHLO: capabilities.
    Hello,
    /// To MAIL, RSET and whatever else begins a new list of recipients.
    Reset,
    Recipient,
    /// To AUTH and to each of its continuations.
    Auth,
    /// To the whole message; LMTP: one for each recipient.
    Message {
        left: Option<usize>,
    },
    /// To any other command, of which a 354 asks for content.
    Other,
    /// To a chunk that is not the last.
    Chunk,
}

/// A capability reply that is being edited: each line is sent on when it is
/// known whether another follows.
#[derive(Debug, Default)]
struct Edit {
    held: Option<Vec<u8>>,
}

/// The state of one dialogue.
#[derive(Debug)]
pub(super) struct Smtp {
    lmtp: bool,
    owed: VecDeque<Owed>,
    /// `None` while no reply is begun or it is not to be edited.
    edit: Option<Edit>,
    /// Within a reply of several lines.
    continued: bool,
    /// The program takes BDAT.
    chunking: bool,
    /// Recipients accepted for the message at hand.
    recipients: usize,
    /// The client's next line answers a 334.
    sasl: bool,
}

impl Smtp {
    pub(super) fn new(lmtp: bool) -> Smtp {
        Smtp {
            lmtp,
            owed: VecDeque::from([Owed::Greeting]),
            edit: None,
            continued: false,
            chunking: false,
            recipients: 0,
            sasl: false,
        }
    }

    /// Sends a command on; the program owes a reply.
    fn ask(&mut self, wire: &mut Wire, line: &[u8], owed: Owed) -> Taken {
        wire.forward(line);
        self.owed.push_back(owed);
        Taken::Yes
    }

    /// As [`Smtp::ask`], and nothing more is read before the reply.
    fn ask_and_hold(&mut self, wire: &mut Wire, line: &[u8], owed: Owed) -> Taken {
        wire.reading = Reading::Hold;
        self.ask(wire, line, owed)
    }

    /// BDAT. Only a chunk that the program expects is sent on: another one it
    /// might take for commands. So each waits for the answers before it.
    fn chunk(&mut self, wire: &mut Wire, line: &[u8], arguments: &[u8]) -> Taken {
        let Some((size, last)) = chunk_size(arguments) else {
            wire.tell("501 5.5.4 BDAT takes a size, and LAST for the last chunk");
            return Taken::Yes;
        };
        if !self.chunking || self.recipients == 0 {
            wire.tell(if self.chunking {
                "503 5.5.1 BDAT needs a recipient first"
            } else {
                "503 5.5.1 BDAT is not offered"
            });
            wire.skip(size);
            return Taken::Yes;
        }
        wire.pass(size);
        let owed = if last {
            Owed::Message { left: None }
        } else {
            Owed::Chunk
        };
        self.ask(wire, line, owed)
    }

    /// One line of the reply to EHLO: passwords out, STARTTLS in, once.
    fn edit_line(&mut self, wire: &mut Wire, line: &[u8], last: bool) {
        let (keyword, _) = word(line.get(4..).unwrap_or_default());
        let Some(edit) = &mut self.edit else {
            // The first line names the host, whatever it looks like. Clients
            // look for `250-STARTTLS`, so it comes next and not last.
            let held = if wire.offer {
                relay_with(wire, line, b'-');
                b"250 STARTTLS\r\n".to_vec()
            } else {
                line.to_vec()
            };
            self.edit = Some(Edit { held: Some(held) });
            self.chunking = false;
            if last {
                self.end_edit(wire);
            }
            return;
        };
        self.chunking |= keyword.eq_ignore_ascii_case(b"CHUNKING");
        if !is_dropped(keyword, wire.settings.allow_clear) {
            if let Some(line) = edit.held.replace(line.to_vec()) {
                relay_with(wire, &line, b'-');
            }
        }
        if last {
            self.end_edit(wire);
        }
    }

    fn end_edit(&mut self, wire: &mut Wire) {
        if let Some(line) = self.edit.take().and_then(|edit| edit.held) {
            relay_with(wire, &line, b' ');
        }
    }

    /// The reply to the oldest command is complete.
    fn answered(&mut self, wire: &mut Wire, code: &[u8]) {
        let accepted = code.first() == Some(&b'2');
        let Some(owed) = self.owed.pop_front() else {
            return;
        };
        match owed {
            Owed::Hello | Owed::Reset if accepted => self.recipients = 0,
            Owed::Recipient if accepted => self.recipients += 1,
            Owed::Auth => self.sasl = code == b"334",
            Owed::Chunk if !accepted => self.recipients = 0,
            Owed::Message { left } => {
                if let Reading::Content(content) = &mut wire.reading {
                    content.answered();
                }
                let left = left.unwrap_or(if self.lmtp { self.recipients } else { 1 });
                if left > 1 {
                    self.owed.push_front(Owed::Message {
                        left: Some(left - 1),
                    });
                } else {
                    self.recipients = 0;
                }
            }
            Owed::Hello | Owed::Other if code == b"354" => {
                wire.reading = Reading::Content(Content::default());
                self.owed.push_back(Owed::Message { left: None });
                return;
            }
            Owed::Chunk
            | Owed::Greeting
            | Owed::Hello
            | Owed::Other
            | Owed::Recipient
            | Owed::Reset => {}
        }
        if wire.reading == Reading::Hold && self.owed.is_empty() {
            wire.reading = Reading::Lines;
        }
    }
}

impl Grammar for Smtp {
    fn greet(&mut self, wire: &mut Wire) {
        let protocol = if self.lmtp { "LMTP" } else { "ESMTP" };
        let text = format!("220 {} {protocol}", wire.settings.host);
        wire.tell(&text);
    }

    fn refuse_line(&mut self, wire: &mut Wire, line: &[u8]) {
        let (verb, arguments) = verb(line);
        let hello = if self.lmtp { "LHLO" } else { "EHLO" };
        if is_ambiguous(line) {
            wire.tell(AMBIGUOUS);
        } else if verb.eq_ignore_ascii_case(b"STARTTLS") {
            start(wire, arguments);
        } else if verb.eq_ignore_ascii_case(hello.as_bytes()) {
            let host = format!("250-{}", wire.settings.host);
            wire.tell(&host);
            wire.tell(if wire.offer {
                "250-STARTTLS\r\n250 ENHANCEDSTATUSCODES"
            } else {
                "250 ENHANCEDSTATUSCODES"
            });
        } else if verb.eq_ignore_ascii_case(b"NOOP") {
            wire.tell("250 2.0.0 ok");
        } else if verb.eq_ignore_ascii_case(b"QUIT") {
            let text = format!("221 2.0.0 {}", wire.settings.host);
            wire.tell(&text);
            wire.end();
        } else {
            wire.tell("530 5.7.0 Must issue a STARTTLS command first");
            if verb.eq_ignore_ascii_case(b"BDAT") {
                if let Some((size, _)) = chunk_size(arguments) {
                    wire.skip(size);
                }
            }
        }
    }

    fn client_line(&mut self, wire: &mut Wire, line: &[u8]) -> Taken {
        if self.sasl {
            if is_ambiguous(line) {
                wire.malformed();
                return Taken::Yes;
            }
            return self.ask_and_hold(wire, line, Owed::Auth);
        }
        let (verb, arguments) = verb(line);
        let ambiguous = is_ambiguous(line);
        // RFC 2920, section 3.1: these may stand within a pipelined group.
        if !ambiguous && is_one_of(verb, &["MAIL", "RCPT", "RSET"]) {
            if self.owed.len() >= PIPELINE {
                return Taken::NotYet;
            }
            let owed = if verb.eq_ignore_ascii_case(b"RCPT") {
                Owed::Recipient
            } else {
                Owed::Reset
            };
            return self.ask(wire, line, owed);
        }
        // Everything else decides how to go on, or is answered here and must
        // not overtake an answer of the program's.
        if !self.owed.is_empty() {
            return Taken::NotYet;
        }
        if ambiguous {
            wire.tell(AMBIGUOUS);
        } else if verb.eq_ignore_ascii_case(b"STARTTLS") {
            start(wire, arguments);
        } else if verb.eq_ignore_ascii_case(b"BDAT") {
            return self.chunk(wire, line, arguments);
        } else if verb.eq_ignore_ascii_case(b"AUTH") && !wire.settings.allow_clear {
            wire.tell("538 5.7.11 Encryption required for requested authentication mechanism");
        } else if is_one_of(verb, &["TURN", "ATRN"]) {
            // Client and program would change places.
            wire.tell("502 5.5.1 Not before STARTTLS");
        } else if verb.eq_ignore_ascii_case(b"AUTH") {
            return self.ask_and_hold(wire, line, Owed::Auth);
        } else if is_one_of(verb, &["EHLO", "LHLO"]) {
            return self.ask_and_hold(wire, line, Owed::Hello);
        } else {
            return self.ask_and_hold(wire, line, Owed::Other);
        }
        Taken::Yes
    }

    fn program_line(&mut self, wire: &mut Wire, line: &[u8]) {
        let last = line.get(3) != Some(&b'-');
        let code = line.get(..3).unwrap_or_default();
        let first = !std::mem::replace(&mut self.continued, !last);
        let hello = self.owed.front() == Some(&Owed::Hello);
        if hello && (self.edit.is_some() || (first && code == b"250")) {
            self.edit_line(wire, line, last);
        } else {
            wire.relay(line);
        }
        if last {
            self.answered(wire, code);
        }
    }

    fn content_ended(&mut self, wire: &mut Wire) {
        // A program may have refused the message before its end.
        wire.reading = if self.owed.is_empty() {
            Reading::Lines
        } else {
            Reading::Hold
        };
    }

    fn go_ahead(&mut self) -> String {
        "220 2.0.0 Ready to start TLS".to_owned()
    }

    fn decline(&mut self) -> String {
        "454 4.7.0 TLS is not available now".to_owned()
    }

    fn farewell(&self, host: &str, why: Farewell) -> String {
        match why {
            Farewell::Idle => format!("421 4.4.2 {host} idle for too long"),
            Farewell::LineTooLong => "500 5.5.2 Line too long".to_owned(),
            Farewell::Malformed => "500 5.5.2 Cannot be read unambiguously".to_owned(),
            Farewell::Unavailable => format!("421 4.3.0 {host} has no service now"),
        }
    }
}

const AMBIGUOUS: &str = "500 5.5.2 Control characters are not allowed in a command";

/// The upgrade command; every earlier one is answered.
fn start(wire: &mut Wire, arguments: &[u8]) {
    if arguments.is_empty() {
        wire.upgrade();
    } else {
        wire.tell("501 5.5.4 STARTTLS takes no argument");
    }
}

/// The arguments of BDAT: size, and whether the chunk is the last.
fn chunk_size(arguments: &[u8]) -> Option<(u64, bool)> {
    let (digits, rest) = word(arguments);
    let last = match rest.trim_ascii() {
        b"" => false,
        last if last.eq_ignore_ascii_case(b"LAST") => true,
        _ => return None,
    };
    Some((size(digits)?, last))
}

/// Whether a capability is not for the client's eyes. `AUTH=` is an old form
/// that some programs list beside `AUTH`.
fn is_dropped(keyword: &[u8], allow_clear: bool) -> bool {
    let invites = keyword.eq_ignore_ascii_case(b"AUTH")
        || keyword
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH="));
    keyword.eq_ignore_ascii_case(b"STARTTLS") || (invites && !allow_clear)
}

/// Relays a line of a reply as its last one or not.
fn relay_with(wire: &mut Wire, line: &[u8], mark: u8) {
    wire.relay(line.get(..3).unwrap_or_default());
    wire.relay(&[mark]);
    // Of a bare code nothing but the line end is left.
    let rest = if body(line).len() > 3 { 4 } else { 3 };
    wire.relay(line.get(rest..).unwrap_or(b"\r\n"));
}
