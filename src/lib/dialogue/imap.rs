//! IMAP as a server sees it before login: RFC 9051 and 3501, 2595 (STARTTLS,
//! LOGINDISABLED), 5530 (PRIVACYREQUIRED), 7888 (literals that follow at once).
#![forbid(unsafe_code)]

use super::line::{Literal, body, is_ambiguous, is_one_of, literal, verb, word};
use super::wire::{Answering, Grammar, Reading, Taken, Wire, counted};
use super::{Farewell, LINE_LIMIT};

/// Where the client's command stands. Commands are sent on one at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// The program has not greeted.
    #[default]
    Greeting,
    /// Between commands.
    Idle,
    /// The program owes the tagged answer.
    Command,
    /// As `Command`, and a `+` asks the client for one more line.
    Login,
    /// The client's next line answers such a `+`.
    Sasl,
    /// A line that ends with a literal of so many bytes was sent on.
    Announced {
        size: u64,
        /// The client sends them unasked.
        follows: bool,
    },
    /// The literal was asked for; behind it the command goes on.
    Rest {
        /// The tagged answer came already.
        answered: bool,
    },
    /// The rest of the command is not wanted; behind it comes this answer.
    Refused(Option<String>),
}

/// The state of one dialogue.
#[derive(Debug, Default)]
pub(super) struct Imap {
    state: State,
    /// Of the command at hand.
    tag: Vec<u8>,
    /// That command would log the client in.
    login: bool,
    /// The client is logged in: no upgrade any more.
    authenticated: bool,
    /// Within an answer of the program's, behind a literal.
    continued: bool,
}

impl Imap {
    /// Sends a line of a command on, and waits for what comes of it.
    fn ask(&mut self, wire: &mut Wire, line: &[u8]) {
        wire.reading = Reading::Hold;
        self.state = match literal(line) {
            Some(Literal::Waits(size)) => State::Announced {
                size,
                follows: false,
            },
            Some(Literal::Follows(size)) => {
                // Whether or not the program knows this form: it is asked with
                // the other, and never takes the literal for commands.
                let (start, end) = line.split_at(body(line).len());
                wire.forward(start.strip_suffix(b"+}").unwrap_or(start));
                wire.forward(b"}");
                wire.forward(end);
                self.state = State::Announced {
                    size,
                    follows: true,
                };
                return;
            }
            Some(Literal::Bad) => {
                wire.malformed();
                return;
            }
            None if self.login => State::Login,
            None => State::Command,
        };
        wire.forward(line);
    }

    /// Answers a command here, behind the literals that it comes with.
    fn refuse(&mut self, wire: &mut Wire, line: &[u8], answer: Option<String>) {
        match literal(line) {
            Some(Literal::Follows(size)) if size <= LINE_LIMIT as u64 => {
                wire.skip(size);
                self.state = State::Refused(answer);
            }
            Some(Literal::Follows(_) | Literal::Bad) => wire.malformed(),
            // A client that waits to be asked is answered instead.
            Some(Literal::Waits(_)) | None => {
                if let Some(answer) = answer {
                    wire.tell(&answer);
                }
                self.state = State::Idle;
                wire.reading = Reading::Lines;
            }
        }
    }

    /// The part that a dialogue with a program and one without have in common:
    /// what is answered here. `None`: the line is for the program.
    fn answer_here(&mut self, wire: &mut Wire, line: &[u8]) -> Option<()> {
        if let State::Refused(answer) = &mut self.state {
            let answer = answer.take();
            self.refuse(wire, line, answer);
            return Some(());
        }
        let (tag, rest) = word(line);
        let (verb, arguments) = verb(rest);
        if tag.is_empty() || tag.iter().any(|&byte| !is_tag(byte)) {
            let answer = "* BAD A command begins with a tag".to_owned();
            self.refuse(wire, line, Some(answer));
            return Some(());
        }
        let tagged = |text: &str| format!("{} {text}", String::from_utf8_lossy(tag));
        let privacy = is_one_of(verb, &["LOGIN", "AUTHENTICATE"]) && !wire.settings.allow_clear;
        let answer = if is_ambiguous(line) {
            tagged("BAD Control characters are not allowed in a command")
        } else if verb.eq_ignore_ascii_case(b"STARTTLS") {
            if !arguments.is_empty() {
                tagged("BAD STARTTLS takes no argument")
            } else if self.authenticated {
                tagged("BAD Already logged in")
            } else {
                self.tag = tag.to_vec();
                wire.upgrade();
                return Some(());
            }
        } else if privacy {
            tagged("NO [PRIVACYREQUIRED] STARTTLS comes before a password")
        } else {
            self.tag = tag.to_vec();
            return None;
        };
        self.refuse(wire, line, Some(answer));
        Some(())
    }

    /// The tagged answer is complete.
    fn answered(&mut self, wire: &mut Wire, positive: bool) {
        match &mut self.state {
            State::Announced { size, follows } if *follows => {
                // The literal is on its way all the same.
                wire.skip(*size);
                self.state = State::Refused(None);
            }
            State::Rest { answered } => *answered = true,
            State::Login if positive => {
                self.authenticated = true;
                wire.open();
            }
            _ => {
                self.state = State::Idle;
                wire.reading = Reading::Lines;
            }
        }
    }
}

impl Grammar for Imap {
    fn greet(&mut self, wire: &mut Wire) {
        self.state = State::Idle;
        let text = format!(
            "* OK [CAPABILITY {}] {}",
            own_capabilities(wire),
            wire.settings.host
        );
        wire.tell(&text);
    }

    fn refuse_line(&mut self, wire: &mut Wire, line: &[u8]) {
        if self.answer_here(wire, line).is_some() {
            return;
        }
        let (_, rest) = word(line);
        let (verb, _) = verb(rest);
        let tag = String::from_utf8_lossy(&self.tag).into_owned();
        let answer = if verb.eq_ignore_ascii_case(b"CAPABILITY") {
            let list = format!("* CAPABILITY {}", own_capabilities(wire));
            wire.tell(&list);
            format!("{tag} OK done")
        } else if verb.eq_ignore_ascii_case(b"NOOP") {
            format!("{tag} OK done")
        } else if verb.eq_ignore_ascii_case(b"LOGOUT") {
            wire.tell("* BYE bye");
            wire.tell(&format!("{tag} OK done"));
            wire.end();
            return;
        } else if is_one_of(verb, &["LOGIN", "AUTHENTICATE"]) {
            format!("{tag} NO [PRIVACYREQUIRED] STARTTLS comes before a password")
        } else {
            format!("{tag} BAD Must issue a STARTTLS command first")
        };
        self.refuse(wire, line, Some(answer));
    }

    fn client_line(&mut self, wire: &mut Wire, line: &[u8]) -> Taken {
        match self.state {
            State::Sasl | State::Rest { .. } if is_ambiguous(line) => wire.malformed(),
            State::Sasl => {
                wire.forward(line);
                wire.reading = Reading::Hold;
                self.state = State::Login;
            }
            State::Rest { answered: false } => self.ask(wire, line),
            State::Rest { answered: true } => {
                wire.forward(line);
                self.state = State::Idle;
            }
            _ => {
                if self.answer_here(wire, line).is_none() {
                    let (_, rest) = word(line);
                    self.login = is_one_of(verb(rest).0, &["LOGIN", "AUTHENTICATE"]);
                    self.ask(wire, line);
                }
            }
        }
        Taken::Yes
    }

    fn program_line(&mut self, wire: &mut Wire, line: &[u8]) {
        let (tag, rest) = word(line);
        let (status, _) = verb(rest);
        // Free text may end with anything; only data holds literals.
        let text = tag == b"+" || is_one_of(status, &["OK", "NO", "BAD", "BYE", "PREAUTH"]);
        let continued = std::mem::take(&mut self.continued);
        if continued || !text {
            if let Some(Literal::Waits(size) | Literal::Follows(size)) = literal(line) {
                self.continued = true;
                wire.answering = counted(size, Answering::Pass, Answering::Lines);
            }
        }
        if continued {
            wire.relay(line);
        } else if self.state == State::Greeting {
            self.authenticated = status.eq_ignore_ascii_case(b"PREAUTH");
            self.relay_edited(wire, line);
            self.state = State::Idle;
            wire.reading = Reading::Lines;
        } else if tag == b"+" {
            self.asked_for_more(wire, line);
        } else if tag == b"*" {
            self.relay_edited(wire, line);
        } else if tag == self.tag && self.state != State::Idle {
            let positive = status.eq_ignore_ascii_case(b"OK");
            // What a login's answer lists is the state behind it.
            if positive && self.state == State::Login {
                wire.relay(line);
            } else {
                self.relay_edited(wire, line);
            }
            self.answered(wire, positive);
        } else {
            wire.relay(line);
        }
    }

    fn go_ahead(&mut self) -> String {
        self.tagged("OK Begin TLS")
    }

    fn decline(&mut self) -> String {
        self.tagged("NO [UNAVAILABLE] TLS is not available now")
    }

    fn farewell(&self, _: &str, why: Farewell) -> String {
        match why {
            Farewell::Idle => "* BYE Idle for too long".to_owned(),
            Farewell::LineTooLong => "* BYE Line too long".to_owned(),
            Farewell::Malformed => "* BYE Cannot be read unambiguously".to_owned(),
            Farewell::Unavailable => "* BYE [UNAVAILABLE] No service now".to_owned(),
        }
    }
}

impl Imap {
    fn tagged(&self, text: &str) -> String {
        format!("{} {text}", String::from_utf8_lossy(&self.tag))
    }

    /// The program asks the client to go on.
    fn asked_for_more(&mut self, wire: &mut Wire, line: &[u8]) {
        match self.state {
            State::Announced { size, follows } => {
                // A client that does not wait would take the `+` for something
                // else.
                if !follows {
                    wire.relay(line);
                }
                wire.pass(size);
                self.state = State::Rest { answered: false };
            }
            State::Login => {
                wire.relay(line);
                wire.reading = Reading::Lines;
                self.state = State::Sasl;
            }
            _ => wire.relay(line),
        }
    }

    /// Relays a line with its list of capabilities edited, if it has one:
    /// `* CAPABILITY ...`, or `[CAPABILITY ...]` behind a status.
    fn relay_edited(&self, wire: &mut Wire, line: &[u8]) {
        let Some((start, end)) = capability_list(line).filter(|_| !self.authenticated) else {
            wire.relay(line);
            return;
        };
        let allow_clear = wire.settings.allow_clear;
        let mut list: Vec<u8> = line[..start].to_vec();
        let kept = line[start..end]
            .split(|&byte| byte == b' ')
            .filter(|name| !name.is_empty() && !is_dropped(name, allow_clear));
        for name in kept {
            list.push(b' ');
            list.extend_from_slice(name);
        }
        if wire.offer {
            list.extend_from_slice(b" STARTTLS");
        }
        if !allow_clear {
            list.extend_from_slice(b" LOGINDISABLED");
        }
        wire.relay(&list);
        wire.relay(&line[end..]);
    }
}

/// Where the capabilities of a line stand, behind the word itself.
fn capability_list(line: &[u8]) -> Option<(usize, usize)> {
    const WORD: &[u8] = b"CAPABILITY";
    let (_, rest) = word(line);
    let (first, behind) = word(rest);
    if first.eq_ignore_ascii_case(WORD) {
        return Some((line.len() - behind.len(), body(line).len()));
    }
    let (code, _) = word(behind);
    if !is_one_of(first, &["OK", "NO", "BAD", "BYE", "PREAUTH"])
        || !code.strip_prefix(b"[")?.eq_ignore_ascii_case(WORD)
    {
        return None;
    }
    let behind = &behind.trim_ascii_start()[1 + WORD.len()..];
    let close = behind.iter().position(|&byte| byte == b']')?;
    let start = line.len() - behind.len();
    Some((start, start + close))
}

/// What this adds itself, and what would invite a password.
fn is_dropped(name: &[u8], allow_clear: bool) -> bool {
    let auth = name
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH="));
    is_one_of(name, &["STARTTLS"])
        || (!allow_clear && (auth || is_one_of(name, &["LOGINDISABLED"])))
}

fn own_capabilities(wire: &Wire) -> &'static str {
    if wire.offer {
        "IMAP4rev1 STARTTLS LOGINDISABLED"
    } else {
        "IMAP4rev1 LOGINDISABLED"
    }
}

/// RFC 9051's `tag`: an ASTRING-CHAR, but no plus sign.
fn is_tag(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"(){%*\"\\+".contains(&byte)
}
