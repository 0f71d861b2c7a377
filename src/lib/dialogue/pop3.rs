//! POP3 as a server sees it: RFC 1939, 2449 (CAPA), 2595 (STLS), 5034 (AUTH).
#![forbid(unsafe_code)]

use super::Farewell;
use super::line::{body, is_ambiguous, is_one_of, verb, word};
use super::wire::{Grammar, Reading, Taken, Wire};

/// The response that the program owes. Commands are sent on one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owed {
    #[default]
    Greeting,
    Nothing,
    /// One line.
    Single,
    /// A line, and if it is positive, lines to a dot.
    Listing,
    /// As a listing: the capabilities.
    Capabilities,
    /// One line, or a challenge; the client is logged in if it is positive.
    Login,
}

/// The state of one dialogue.
#[derive(Debug, Default)]
pub(super) struct Pop3 {
    owed: Owed,
    /// Within the lines that end with a dot.
    listing: bool,
    /// The client's next line answers a challenge.
    sasl: bool,
    /// Inside TLS, everything is the program's but a CAPA that it doesn't know.
    inside: bool,
    /// The client has had the greeting.
    drops_greeting: bool,
}

impl Pop3 {
    /// Inside TLS, up to the login, for a client that was given CAPA before.
    pub(super) fn inside(drops_greeting: bool) -> Pop3 {
        Pop3 {
            inside: true,
            drops_greeting,
            ..Pop3::default()
        }
    }

    fn ask(&mut self, wire: &mut Wire, line: &[u8], owed: Owed) {
        wire.forward(line);
        wire.reading = Reading::Hold;
        self.owed = owed;
    }

    fn answered(&mut self, wire: &mut Wire) {
        self.owed = Owed::Nothing;
        self.listing = false;
        if wire.reading == Reading::Hold {
            wire.reading = Reading::Lines;
        }
    }

    fn capability(&mut self, wire: &mut Wire, line: &[u8]) {
        let (keyword, _) = word(line);
        let dropped = keyword.eq_ignore_ascii_case(b"STLS")
            || (!wire.settings.allow_clear && is_one_of(keyword, &["USER", "SASL", "APOP"]));
        if body(line) == b"." {
            if wire.offer {
                wire.tell("STLS");
            }
            wire.relay(line);
            self.answered(wire);
        } else if !dropped {
            wire.relay(line);
        }
    }
}

impl Grammar for Pop3 {
    fn greet(&mut self, wire: &mut Wire) {
        let text = format!("+OK {} POP3", wire.settings.host);
        wire.tell(&text);
    }

    fn refuse_line(&mut self, wire: &mut Wire, line: &[u8]) {
        let (verb, arguments) = verb(line);
        if is_ambiguous(line) {
            wire.tell(AMBIGUOUS);
        } else if verb.eq_ignore_ascii_case(b"STLS") {
            start(wire, arguments);
        } else if verb.eq_ignore_ascii_case(b"CAPA") {
            own_capabilities(wire);
        } else if verb.eq_ignore_ascii_case(b"NOOP") {
            wire.tell("+OK");
        } else if verb.eq_ignore_ascii_case(b"QUIT") {
            wire.tell("+OK bye");
            wire.end();
        } else {
            wire.tell(TLS_FIRST);
        }
    }

    fn client_line(&mut self, wire: &mut Wire, line: &[u8]) -> Taken {
        if self.sasl {
            self.sasl = false;
            if is_ambiguous(line) && !self.inside {
                wire.malformed();
                return Taken::Yes;
            }
            self.ask(wire, line, Owed::Login);
            return Taken::Yes;
        }
        let (verb, arguments) = verb(line);
        let login = is_one_of(verb, &["USER", "PASS", "APOP", "AUTH"]);
        if is_ambiguous(line) && !self.inside {
            wire.tell(AMBIGUOUS);
        } else if verb.eq_ignore_ascii_case(b"STLS") && !self.inside {
            start(wire, arguments);
        } else if login && !wire.settings.allow_clear {
            wire.tell(TLS_FIRST);
        } else if verb.eq_ignore_ascii_case(b"CAPA") {
            self.ask(wire, line, Owed::Capabilities);
        } else if login && !verb.eq_ignore_ascii_case(b"USER") && !arguments.is_empty() {
            self.ask(wire, line, Owed::Login);
        } else if is_one_of(verb, &["RETR", "TOP"])
            // Of these the bare form lists; a bare AUTH lists mechanisms.
            || (arguments.is_empty() && is_one_of(verb, &["LIST", "UIDL", "AUTH"]))
        {
            self.ask(wire, line, Owed::Listing);
        } else {
            self.ask(wire, line, Owed::Single);
        }
        Taken::Yes
    }

    fn program_line(&mut self, wire: &mut Wire, line: &[u8]) {
        let positive = line.get(..3).is_some_and(|start| start == b"+OK");
        let negative = line.get(..4).is_some_and(|start| start == b"-ERR");
        match self.owed {
            Owed::Greeting if self.drops_greeting => {
                if positive || negative {
                    self.answered(wire);
                }
            }
            Owed::Capabilities if self.listing && !self.inside => self.capability(wire, line),
            Owed::Capabilities | Owed::Listing if self.listing => {
                wire.relay(line);
                if body(line) == b"." {
                    self.answered(wire);
                }
            }
            Owed::Capabilities if negative => {
                // The program knows nothing of CAPA, and a client could not
                // learn of STLS.
                own_capabilities(wire);
                self.answered(wire);
            }
            Owed::Capabilities | Owed::Listing if positive => {
                wire.relay(line);
                self.listing = true;
            }
            Owed::Login if positive => {
                // RFC 2595, section 4: no STLS after this, so nothing more to
                // look for.
                wire.relay(line);
                wire.open();
            }
            Owed::Login if line.first() == Some(&b'+') => {
                wire.relay(line);
                self.sasl = true;
                self.answered(wire);
            }
            // The answer to it would be refused here, and inside TLS another
            // process of the program compares it with a timestamp of its own.
            Owed::Greeting if positive && !self.inside && !wire.settings.allow_clear => {
                wire.relay(&without_timestamp(line));
                self.answered(wire);
            }
            Owed::Nothing => wire.relay(line),
            // A response begins with one of two words; what does not is left
            // over from an answer of unknown form.
            _ => {
                wire.relay(line);
                if positive || negative {
                    self.answered(wire);
                }
            }
        }
    }

    fn go_ahead(&mut self) -> String {
        "+OK Begin TLS".to_owned()
    }

    fn decline(&mut self) -> String {
        "-ERR [SYS/TEMP] TLS is not available now".to_owned()
    }

    fn farewell(&self, _: &str, why: Farewell) -> String {
        match why {
            Farewell::Idle => "-ERR [SYS/TEMP] Idle for too long".to_owned(),
            Farewell::LineTooLong => "-ERR Line too long".to_owned(),
            Farewell::Malformed => AMBIGUOUS.to_owned(),
            Farewell::Unavailable => "-ERR [SYS/TEMP] No service now".to_owned(),
        }
    }
}

const AMBIGUOUS: &str = "-ERR Control characters are not allowed in a command";
const TLS_FIRST: &str = "-ERR [AUTH] Must issue a STLS command first";

fn start(wire: &mut Wire, arguments: &[u8]) {
    if arguments.is_empty() {
        wire.upgrade();
    } else {
        wire.tell("-ERR STLS takes no argument");
    }
}

/// A greeting that offers no APOP: without the timestamp, a message identifier
/// in angle brackets (RFC 1939, section 7), and the blanks before it.
fn without_timestamp(greeting: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(greeting.len());
    let mut rest = greeting;
    while let Some(start) = rest.iter().position(|&byte| byte == b'<') {
        let Some(length) = rest[start..].iter().position(|&byte| byte == b'>') else {
            break;
        };
        kept.extend_from_slice(rest[..start].trim_ascii_end());
        rest = &rest[start + length + 1..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// The capability list where there is none of a program's.
fn own_capabilities(wire: &mut Wire) {
    wire.listed = true;
    wire.tell("+OK Capabilities follow");
    if wire.settings.allow_clear {
        wire.tell("USER");
    }
    if wire.offer {
        wire.tell("STLS");
    }
    wire.tell(".");
}
