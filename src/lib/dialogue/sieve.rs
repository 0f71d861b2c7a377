//! `ManageSieve` as a server sees it before login: RFC 5804.
#![forbid(unsafe_code)]

use super::line::{Literal, is_ambiguous, is_one_of, literal, verb};
use super::wire::{Answering, Grammar, Reading, Taken, Wire, counted};
use super::{Farewell, LINE_LIMIT};

/// The response that the program owes. Commands are sent on one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owed {
    /// The greeting, which is a list of capabilities.
    #[default]
    Greeting,
    Nothing,
    Capabilities,
    /// The client is logged in if it is OK; any string before is a challenge.
    Login,
    Other,
}

/// What the client's next line is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Command,
    /// The rest of a command, behind a literal.
    Rest,
    /// The rest of a command that is not sent on, behind which comes this.
    Refused(&'static str),
    /// The answer to a challenge.
    Sasl,
}

/// The state of one dialogue.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    owed: Owed,
    next: Next,
    /// Within a line of the program's, behind a literal; whether that line ends
    /// the response, and how.
    continued: Option<Beginning>,
}

/// A line of the program's, by its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    Data,
    Dropped,
    Ok,
    Refusal,
}

impl Sieve {
    /// Sends a line on; behind a literal it goes on.
    fn ask(&mut self, wire: &mut Wire, line: &[u8]) {
        wire.forward(line);
        self.next = Next::Command;
        wire.reading = Reading::Hold;
        if let Some(Literal::Follows(size)) = literal(line) {
            wire.pass(size);
            self.next = Next::Rest;
        }
    }

    /// Answers a command here, behind its literals.
    fn refuse(&mut self, wire: &mut Wire, line: &[u8], answer: &'static str) {
        if let Some(Literal::Follows(size)) = literal(line) {
            if size > LINE_LIMIT as u64 {
                wire.malformed();
            }
            wire.skip(size);
            self.next = Next::Refused(answer);
        } else {
            wire.tell(answer);
            self.next = Next::Command;
        }
    }

    /// Answers NOOP, which gives its argument back (RFC 5804 section 2.13).
    fn noop(&mut self, wire: &mut Wire, line: &[u8]) {
        let (_, tag) = verb(line);
        if literal(line).is_some() {
            return self.refuse(wire, line, "NO \"Give NOOP a quoted string\"");
        }
        match std::str::from_utf8(tag) {
            Ok("") => wire.tell("OK \"done\""),
            Ok(tag) if is_quoted(tag) => wire.tell(&format!("OK (TAG {tag}) \"done\"")),
            _ => wire.tell("NO \"NOOP takes a string\""),
        }
    }

    /// The part that a dialogue with a program and one without have in common.
    /// `None`: the line is for the program.
    fn answer_here(&mut self, wire: &mut Wire, line: &[u8]) -> Option<()> {
        if matches!(literal(line), Some(Literal::Waits(_) | Literal::Bad)) {
            // A client has no such form (section 4), and programs disagree
            // about what follows it.
            wire.malformed();
            return Some(());
        }
        let (verb, arguments) = verb(line);
        match self.next {
            Next::Refused(answer) => self.refuse(wire, line, answer),
            Next::Rest | Next::Sasl if is_ambiguous(line) => wire.malformed(),
            Next::Command if is_ambiguous(line) => {
                self.refuse(
                    wire,
                    line,
                    "NO \"Control characters are not allowed in a command\"",
                );
            }
            Next::Command if verb.eq_ignore_ascii_case(b"STARTTLS") => {
                if arguments.is_empty() {
                    wire.upgrade();
                } else {
                    self.refuse(wire, line, "NO \"STARTTLS takes no argument\"");
                }
            }
            Next::Command
                if verb.eq_ignore_ascii_case(b"AUTHENTICATE") && !wire.settings.allow_clear =>
            {
                self.refuse(wire, line, TLS_FIRST);
            }
            Next::Command | Next::Rest | Next::Sasl => return None,
        }
        Some(())
    }

    fn answered(&mut self, wire: &mut Wire, positive: bool) {
        let owed = std::mem::replace(&mut self.owed, Owed::Nothing);
        if owed == Owed::Login && positive {
            wire.open();
        } else if wire.reading == Reading::Hold {
            self.next = Next::Command;
            wire.reading = Reading::Lines;
        }
    }
}

impl Grammar for Sieve {
    fn greet(&mut self, wire: &mut Wire) {
        own_capabilities(wire);
    }

    fn refuse_line(&mut self, wire: &mut Wire, line: &[u8]) {
        if self.answer_here(wire, line).is_some() {
            return;
        }
        let (verb, _) = verb(line);
        if verb.eq_ignore_ascii_case(b"CAPABILITY") {
            own_capabilities(wire);
        } else if verb.eq_ignore_ascii_case(b"NOOP") {
            self.noop(wire, line);
        } else if verb.eq_ignore_ascii_case(b"LOGOUT") {
            wire.tell("OK \"bye\"");
            wire.end();
        } else {
            self.refuse(wire, line, TLS_FIRST);
        }
    }

    fn client_line(&mut self, wire: &mut Wire, line: &[u8]) -> Taken {
        if self.answer_here(wire, line).is_some() {
            return Taken::Yes;
        }
        if self.next == Next::Command {
            if literal(line).is_some() && !wire.settings.allow_clear {
                // A program is not asked for a literal. One that refuses the
                // command at its first line would take what follows for
                // commands, and nothing that needs a literal is of use before a
                // login.
                let answer = "NO (ENCRYPT-NEEDED) \"Literals come after STARTTLS\"";
                self.refuse(wire, line, answer);
                return Taken::Yes;
            }
            let (verb, _) = verb(line);
            self.owed = if verb.eq_ignore_ascii_case(b"CAPABILITY") {
                Owed::Capabilities
            } else if verb.eq_ignore_ascii_case(b"AUTHENTICATE") {
                Owed::Login
            } else {
                Owed::Other
            };
        }
        self.ask(wire, line);
        // The program may have answered before the end of the command.
        if self.owed == Owed::Nothing && wire.reading == Reading::Hold {
            wire.reading = Reading::Lines;
        }
        Taken::Yes
    }

    fn program_line(&mut self, wire: &mut Wire, line: &[u8]) {
        let kind = match self.continued.take() {
            Some(kind) => kind,
            None => self.kind(wire, line),
        };
        let lists = matches!(self.owed, Owed::Greeting | Owed::Capabilities);
        if kind == Beginning::Ok && lists && wire.offer {
            wire.tell("\"STARTTLS\"");
        }
        if kind != Beginning::Dropped {
            wire.relay(line);
        }
        if let Some(Literal::Waits(size) | Literal::Follows(size)) = literal(line) {
            self.continued = Some(kind);
            wire.answering = if kind == Beginning::Dropped {
                counted(size, Answering::Skip, Answering::Lines)
            } else {
                counted(size, Answering::Pass, Answering::Lines)
            };
            return;
        }
        match kind {
            Beginning::Ok => self.answered(wire, true),
            Beginning::Refusal => self.answered(wire, false),
            Beginning::Data if self.owed == Owed::Login => {
                self.next = Next::Sasl;
                wire.reading = Reading::Lines;
            }
            Beginning::Data | Beginning::Dropped => {}
        }
    }

    fn go_ahead(&mut self) -> String {
        "OK \"Begin TLS\"".to_owned()
    }

    fn decline(&mut self) -> String {
        "NO (TRYLATER) \"TLS is not available now\"".to_owned()
    }

    fn farewell(&self, _: &str, why: Farewell) -> String {
        match why {
            Farewell::Idle => "BYE \"Idle for too long\"".to_owned(),
            Farewell::LineTooLong => "BYE \"Line too long\"".to_owned(),
            Farewell::Malformed => "BYE \"Cannot be read unambiguously\"".to_owned(),
            Farewell::Unavailable => "BYE (TRYLATER) \"No service now\"".to_owned(),
        }
    }
}

impl Sieve {
    fn kind(&self, wire: &mut Wire, line: &[u8]) -> Beginning {
        let (word, _) = verb(line);
        if word.eq_ignore_ascii_case(b"OK") {
            return Beginning::Ok;
        }
        if is_one_of(word, &["NO", "BYE"]) {
            return Beginning::Refusal;
        }
        if matches!(self.owed, Owed::Greeting | Owed::Capabilities) {
            if is_capability(line, "STARTTLS") {
                return Beginning::Dropped;
            }
            if is_capability(line, "SASL") && !wire.settings.allow_clear {
                // Section 1.7: an empty list says that STARTTLS comes first.
                wire.tell("\"SASL\" \"\"");
                return Beginning::Dropped;
            }
        }
        Beginning::Data
    }
}

const TLS_FIRST: &str = "NO (ENCRYPT-NEEDED) \"STARTTLS comes first\"";

/// Whether a line begins with this capability's name, a quoted string.
fn is_capability(line: &[u8], name: &str) -> bool {
    let Some(rest) = line.trim_ascii_start().strip_prefix(b"\"") else {
        return false;
    };
    let end = rest.iter().position(|&byte| byte == b'"');
    end.is_some_and(|end| rest[..end].eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether this is one quoted string of section 4 and nothing else.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    else {
        return false;
    };
    let mut escaped = false;
    for character in inner.chars() {
        match character {
            '"' | '\\' if escaped => escaped = false,
            _ if escaped => return false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped
}

/// The capability list where no program runs. What scripts may use is not
/// known before TLS.
fn own_capabilities(wire: &mut Wire) {
    wire.tell("\"IMPLEMENTATION\" \"ucspi-tls\"");
    wire.tell("\"SASL\" \"\"");
    wire.tell("\"SIEVE\" \"\"");
    if wire.offer {
        wire.tell("\"STARTTLS\"");
    }
    wire.tell("\"VERSION\" \"1.0\"");
    // Some clients wait for more than the bare word.
    let text = format!(
        "OK \"{} ready\"",
        wire.settings.host.replace(['"', '\\'], "?")
    );
    wire.tell(&text);
}
