//! The dialogues of STARTTLS in front of programs that are played here, each
//! with a reader of its own for what it is given. A target panics where such a
//! program finds a command that it must never see, where the same bytes in
//! other pieces come out otherwise, where a buffer grows too large, or where a
//! command is held for ever.
//!
//! Input: a byte of flags, a byte that chooses the program's answers, and what
//! the client sends.

#![forbid(unsafe_code)]

use ucspi_tls::internals::dialogue::{Dialogue, Event, HIGH_WATER, LINE_LIMIT, Protocol, Settings};

/// What a program is given and what it answers.
struct Program {
    protocol: Protocol,
    allow_clear: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    state: State,
    dice: u8,
    /// Takes a dot between any two line ends for the end of a message, and a CR
    /// for the end of a line.
    lax: bool,
    /// EHLO was answered with CHUNKING.
    chunking: bool,
    recipients: usize,
    /// So much of the inbox was searched for the end of content.
    searched: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Commands,
    /// To the dot.
    Content,
    /// So many bytes of a chunk, the last or not.
    Chunk(usize, bool),
    /// So many bytes of a literal; then the command of this tag and verb goes
    /// on.
    Literal(usize, Vec<u8>, Vec<u8>),
    /// The rest of a command behind a literal: tag and verb.
    Rest(Vec<u8>, Vec<u8>),
    /// An answer to a challenge, of this tag.
    Sasl(Vec<u8>),
    /// Logged in: anything may come.
    Open,
}

impl Program {
    fn new(protocol: Protocol, allow_clear: bool, dice: u8) -> Program {
        let greeting: &[u8] = match protocol {
            Protocol::Smtp | Protocol::Lmtp => b"220-STARTTLS\r\n220 AUTH\r\n",
            Protocol::Pop3 => b"+OK STLS\r\n",
            Protocol::Imap => b"* OK [CAPABILITY AUTH=X] STARTTLS\r\n",
            Protocol::Sieve => b"\"SASL\" {2}\r\nOK\r\n\"STARTTLS\"\r\nOK\r\n",
        };
        Program {
            protocol,
            allow_clear,
            inbox: Vec::new(),
            outbox: greeting.to_vec(),
            state: State::Commands,
            dice,
            lax: matches!(protocol, Protocol::Smtp | Protocol::Lmtp) && dice & 0x80 != 0,
            chunking: false,
            recipients: 0,
            searched: 0,
        }
    }

    /// The next choice among `of`.
    fn choose(&mut self, of: u8) -> u8 {
        self.dice = self.dice.wrapping_mul(141).wrapping_add(3);
        (self.dice >> 3) % of
    }

    fn say(&mut self, text: impl AsRef<[u8]>) {
        self.outbox.extend_from_slice(text.as_ref());
        self.outbox.extend_from_slice(b"\r\n");
    }

    /// The end of content, which begins behind `before`, where so many bytes are one;
    /// nothing is searched twice.
    fn content_end(
        &mut self,
        before: &[u8],
        width: usize,
        is_end: impl Fn(&[u8]) -> bool,
    ) -> Option<usize> {
        let from = self.searched.saturating_sub(width);
        let before = if from == 0 { before } else { b"" };
        let text = [before, &self.inbox[from..]].concat();
        self.searched = self.inbox.len();
        let at = text.windows(width).position(is_end)?;
        self.searched = 0;
        Some(from + at + width - before.len())
    }

    /// Reads what it was given as far as it goes.
    fn read(&mut self) {
        loop {
            match self.state.clone() {
                State::Open => return self.inbox.clear(),
                State::Content => {
                    let is_end = |byte| matches!(byte, b'\r' | b'\n');
                    let end = if self.lax {
                        self.content_end(b"\n", 3, |three| {
                            is_end(three[0]) && three[1] == b'.' && is_end(three[2])
                        })
                    } else {
                        self.content_end(b"\r\n", 5, |five| five == b"\r\n.\r\n")
                    };
                    let Some(end) = end else {
                        return;
                    };
                    self.inbox.drain(..end);
                    self.delivered();
                }
                State::Chunk(size, last) => {
                    if self.inbox.len() < size {
                        return;
                    }
                    self.inbox.drain(..size);
                    if last {
                        self.delivered();
                    } else {
                        self.say("250 chunk");
                        self.state = State::Commands;
                    }
                }
                State::Literal(size, tag, verb) => {
                    if self.inbox.len() < size {
                        return;
                    }
                    self.inbox.drain(..size);
                    self.state = State::Rest(tag, verb);
                }
                State::Commands | State::Rest(..) | State::Sasl(_) => {
                    let ends = |&byte: &u8| byte == b'\n' || (self.lax && byte == b'\r');
                    let Some(end) = self.inbox.iter().position(ends) else {
                        return;
                    };
                    // A CR and the LF behind it are one line end for it too.
                    let end = match &self.inbox[end..] {
                        [b'\r'] => return,
                        [b'\r', b'\n', ..] => end + 1,
                        _ => end,
                    };
                    let line: Vec<u8> = self.inbox.drain(..=end).collect();
                    let line = line.strip_suffix(b"\n").unwrap_or(&line);
                    let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                    let control = line.iter().any(|&byte| byte < b' ' && byte != b'\t');
                    // A lax program reads commands in what is content for others.
                    assert!(!control || self.lax, "{line:?}");
                    if self.lax && line.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    match self.protocol {
                        Protocol::Smtp | Protocol::Lmtp => self.smtp(&line),
                        Protocol::Pop3 => self.pop3(&line),
                        Protocol::Imap => self.imap(&line),
                        Protocol::Sieve => self.sieve(&line),
                    }
                }
            }
        }
    }

    fn delivered(&mut self) {
        let replies = match self.protocol {
            Protocol::Lmtp => self.recipients.max(1),
            _ => 1,
        };
        for _ in 0..replies {
            self.say("250-AUTH\r\n250 STARTTLS");
        }
        self.recipients = 0;
        self.state = State::Commands;
    }

    fn forbid(&self, verb: &[u8], passwords: &[&str], upgrade: &str) {
        assert!(verb != upgrade.as_bytes() || self.lax);
        let password = passwords.iter().any(|name| name.as_bytes() == verb);
        assert!(!password || self.allow_clear, "{verb:?}");
    }

    fn smtp(&mut self, line: &[u8]) {
        let (verb, rest) = split(line);
        if matches!(self.state, State::Sasl(_)) {
            return self.auth();
        }
        self.forbid(&verb, &["AUTH"], "STARTTLS");
        let hello = if self.protocol == Protocol::Lmtp {
            "LHLO"
        } else {
            "EHLO"
        };
        match &*verb {
            b"AUTH" => self.auth(),
            b"TURN" | b"ATRN" if !self.lax => panic!("it would change places"),
            b"EHLO" | b"LHLO" if verb == hello.as_bytes() => match self.choose(4) {
                0 => self.say("502 no"),
                choice => {
                    self.chunking = choice > 1;
                    self.recipients = 0;
                    self.say("250-m\r\n250-STARTTLS\r\n250-AUTH X");
                    self.say(if self.chunking {
                        "250 CHUNKING"
                    } else {
                        "250 auth=x"
                    });
                }
            },
            b"MAIL" | b"RSET" => match self.choose(4) {
                0 => self.say("550 no"),
                _ => {
                    self.recipients = 0;
                    self.say("250 ok");
                }
            },
            b"RCPT" => match self.choose(3) {
                0 => self.say("550-AUTH\r\n550 no"),
                _ => {
                    self.recipients += 1;
                    self.say("250 ok");
                }
            },
            b"BDAT" => {
                if self.lax && !self.chunking {
                    return self.say("502 no");
                }
                assert!(self.chunking, "not offered");
                let mut words = rest
                    .split(u8::is_ascii_whitespace)
                    .filter(|word| !word.is_empty());
                let size = words.next().and_then(|word| std::str::from_utf8(word).ok());
                let size = size.and_then(|text| text.parse().ok());
                let Some(size) = size else {
                    assert!(self.lax, "a size");
                    return self.say("501 no");
                };
                self.state = State::Chunk(size, words.next().is_some());
            }
            b"DATA" => match self.choose(3) {
                0 => self.say("503 no"),
                _ => {
                    self.say("354-AUTH\r\n354 go");
                    self.state = State::Content;
                }
            },
            _ => match self.choose(16) {
                0 => {
                    self.say("354 go");
                    self.state = State::Content;
                }
                1 => self.say("250-AUTH\r\n250 STARTTLS"),
                _ => self.say("500 what"),
            },
        }
    }

    fn auth(&mut self) {
        self.state = State::Commands;
        match self.choose(3) {
            0 => {
                self.say("334 x");
                self.state = State::Sasl(Vec::new());
            }
            1 => self.say("235 ok"),
            _ => self.say("535 no"),
        }
    }

    fn pop3(&mut self, line: &[u8]) {
        let (verb, rest) = split(line);
        let bare = rest.trim_ascii().is_empty();
        let sasl = matches!(self.state, State::Sasl(_));
        if !sasl {
            self.forbid(&verb, &["USER", "PASS", "APOP", "AUTH"], "STLS");
        }
        self.state = State::Commands;
        let choice = self.choose(3);
        let login = [&b"PASS"[..], b"APOP", b"AUTH"].contains(&&*verb) && !bare;
        if sasl || login {
            match choice {
                0 => {
                    self.say("+OK in");
                    self.state = State::Open;
                }
                1 if sasl || verb == b"AUTH" => {
                    self.say("+ x");
                    self.state = State::Sasl(Vec::new());
                }
                _ => self.say("-ERR no"),
            }
            return;
        }
        let lists = [&b"CAPA"[..], b"RETR", b"TOP"].contains(&&*verb)
            || (bare && [&b"LIST"[..], b"UIDL", b"AUTH"].contains(&&*verb));
        match choice {
            0 => self.say("-ERR no"),
            _ if lists => self.say("+OK\r\n+OK\r\nUSER\r\nSTLS\r\nSASL X\r\n..\r\n."),
            _ => self.say("+OK"),
        }
    }

    fn imap(&mut self, line: &[u8]) {
        let (tag, verb) = match &self.state {
            State::Rest(tag, verb) => (tag.clone(), verb.clone()),
            State::Sasl(tag) => (tag.clone(), b"AUTHENTICATE".to_vec()),
            _ => {
                let line = line.trim_ascii_start();
                let end = line
                    .iter()
                    .position(|&byte| byte <= b' ')
                    .unwrap_or(line.len());
                let verb = split(&line[end..]).0;
                self.forbid(&verb, &["LOGIN", "AUTHENTICATE"], "STARTTLS");
                (line[..end].to_vec(), verb)
            }
        };
        let sasl = matches!(self.state, State::Sasl(_));
        self.state = State::Commands;
        let tagged = |text: &str| [&*tag, b" ", text.as_bytes()].concat();
        let login = verb == b"LOGIN" || verb == b"AUTHENTICATE";
        if !sasl {
            if let Some((size, follows)) = literal(line) {
                assert!(!follows, "it need not know this form");
                match self.choose(3) {
                    0 => self.say(tagged("BAD no")),
                    _ => {
                        self.say("+ go");
                        self.state = State::Literal(size, tag, verb);
                    }
                }
                return;
            }
        }
        match self.choose(4) {
            0 => self.say(tagged("NO no")),
            1 if verb == b"AUTHENTICATE" => {
                self.say("+ x");
                self.state = State::Sasl(tag);
            }
            2 => {
                self.say("* ID (\"x\" {21}\r\n\r\n* CAPABILITY AUTH=X)");
                self.say(tagged("NO no"));
            }
            _ => {
                self.say("* CAPABILITY AUTH=X STARTTLS");
                self.say(tagged("OK done"));
                if login {
                    self.state = State::Open;
                }
            }
        }
    }

    fn sieve(&mut self, line: &[u8]) {
        let verb = match &self.state {
            State::Rest(_, verb) => verb.clone(),
            State::Sasl(_) => b"AUTHENTICATE".to_vec(),
            _ => {
                let verb = split(line).0;
                self.forbid(&verb, &["AUTHENTICATE"], "STARTTLS");
                verb
            }
        };
        self.state = State::Commands;
        if let Some((size, follows)) = literal(line) {
            assert!(follows, "a client has no other form");
            self.state = State::Literal(size, Vec::new(), verb);
            return;
        }
        match self.choose(4) {
            0 => self.say("NO {2}\r\nOK\r\n"),
            1 if verb == b"AUTHENTICATE" => {
                self.say("{2}\r\nOK\r\n");
                self.state = State::Sasl(Vec::new());
            }
            _ => {
                if verb == b"CAPABILITY" {
                    self.say("\"SASL\" \"X\"\r\n\"STARTTLS\"\r\n\"SIEVE\" {2}\r\nNO\r\n");
                }
                self.say("OK (X) \"done\"");
                if verb == b"AUTHENTICATE" {
                    self.state = State::Open;
                }
            }
        }
    }
}

/// The letters of a command in upper case, and what follows.
fn split(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let line = line.trim_ascii_start();
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_alphabetic())
        .unwrap_or(line.len());
    (line[..end].to_ascii_uppercase(), &line[end..])
}

/// The size of a literal that ends a line, and whether it follows unasked.
fn literal(line: &[u8]) -> Option<(usize, bool)> {
    let open = line.iter().rposition(|&byte| byte == b'{')?;
    let inside = std::str::from_utf8(line[open + 1..].strip_suffix(b"}")?).ok()?;
    if !inside.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    match inside.strip_suffix('+') {
        Some(digits) => Some((digits.parse().ok()?, true)),
        None => Some((inside.parse().ok()?, false)),
    }
}

/// How a dialogue went.
#[derive(Debug, PartialEq)]
struct Course {
    given: Vec<u8>,
    shown: Vec<u8>,
    upgraded: bool,
    ended: bool,
}

/// Plays a dialogue with the client's bytes in pieces of a size.
fn play(protocol: Protocol, flags: u8, dice: u8, client: &[u8], piece: usize) -> Course {
    let settings = Settings {
        protocol,
        allow_clear: flags & 2 != 0,
        host: "h".to_owned(),
    };
    let alone = flags & 4 != 0;
    let mut program = Program::new(protocol, settings.allow_clear, dice);
    let mut dialogue = if alone {
        Dialogue::alone(settings)
    } else {
        Dialogue::new(settings)
    };
    if flags & 8 != 0 {
        dialogue.withdraw();
    }
    let mut course = Course {
        given: Vec::new(),
        shown: Vec::new(),
        upgraded: false,
        ended: false,
    };
    let mut rest = client;
    loop {
        // Everything that can move without the client.
        loop {
            let shown = dialogue.for_client().len();
            assert!(shown <= HIGH_WATER + 2 * LINE_LIMIT);
            course.shown.extend_from_slice(dialogue.for_client());
            dialogue.client_took(shown);
            let given = dialogue.for_program().to_vec();
            assert!(given.len() <= HIGH_WATER + 2 * LINE_LIMIT);
            assert!(!alone || given.is_empty());
            course.given.extend_from_slice(&given);
            program.inbox.extend_from_slice(&given);
            dialogue.program_took(given.len());
            program.read();
            let answer = dialogue.program_room().min(program.outbox.len());
            let answer: Vec<u8> = program.outbox.drain(..answer).collect();
            dialogue.feed_program(&answer);
            if shown == 0 && given.is_empty() && answer.is_empty() {
                break;
            }
        }
        let room = dialogue.client_room().min(rest.len()).min(piece);
        if room == 0 {
            break;
        }
        let (now, later) = rest.split_at(room);
        rest = later;
        dialogue.feed_client(now);
    }
    match dialogue.event() {
        // In one piece what follows is there at once; in several it is not.
        Some(Event::Upgrade | Event::Injection(_)) => course.upgraded = true,
        Some(Event::ProgramLineTooLong) => panic!("no such line was sent"),
        Some(_) => course.ended = true,
        None => {
            assert!(
                rest.is_empty() || program.lax,
                "the client is held for ever"
            );
            dialogue.end_client();
            assert!(
                alone || program.lax || dialogue.program_has_all(),
                "a command is held for ever: {:?} behind {:?}",
                String::from_utf8_lossy(&course.given),
                String::from_utf8_lossy(&course.shown)
            );
        }
    }
    course
}

/// A dialogue of one protocol: whatever the pieces, the same.
fn check(protocol: Protocol, bytes: &[u8]) {
    let [flags, dice, client @ ..] = bytes else {
        return;
    };
    let whole = play(protocol, *flags, *dice, client, usize::MAX);
    let piece = 1 + usize::from(*flags >> 4);
    let pieces = play(protocol, *flags, *dice, client, piece);
    // When a lax program answers depends on what it has.
    if !Program::new(protocol, false, *dice).lax {
        assert_eq!(pieces, whole);
    }
}

/// SMTP, and LMTP where the first bit is set.
pub fn dialogue_smtp(bytes: &[u8]) {
    let lmtp = bytes.first().is_some_and(|flags| flags & 1 != 0);
    check(if lmtp { Protocol::Lmtp } else { Protocol::Smtp }, bytes);
}

/// POP3.
pub fn dialogue_pop3(bytes: &[u8]) {
    check(Protocol::Pop3, bytes);
}

/// IMAP.
pub fn dialogue_imap(bytes: &[u8]) {
    check(Protocol::Imap, bytes);
}

/// `ManageSieve`.
pub fn dialogue_sieve(bytes: &[u8]) {
    check(Protocol::Sieve, bytes);
}

/// Any bytes from both sides: pieces with a byte before them, of which the
/// lowest bit says who sends it and the rest how long it is.
pub fn dialogue_any(bytes: &[u8]) {
    let Some((kind, mut rest)) = bytes.split_first() else {
        return;
    };
    let settings = Settings {
        protocol: [
            Protocol::Smtp,
            Protocol::Lmtp,
            Protocol::Pop3,
            Protocol::Imap,
            Protocol::Sieve,
        ][usize::from(kind % 5)],
        allow_clear: kind & 0x80 != 0,
        host: "h".to_owned(),
    };
    let mut dialogue = Dialogue::new(settings);
    while let Some((head, tail)) = rest.split_first() {
        let length = usize::from(head >> 1).min(tail.len());
        let (piece, later) = tail.split_at(length);
        rest = later;
        if head & 1 == 0 && dialogue.client_room() >= length {
            dialogue.feed_client(piece);
        } else if dialogue.program_room() >= length {
            dialogue.feed_program(piece);
        }
        let (shown, given) = (dialogue.for_client().len(), dialogue.for_program().len());
        assert!(shown <= HIGH_WATER + 2 * LINE_LIMIT && given <= HIGH_WATER + 2 * LINE_LIMIT);
        if head & 2 == 0 {
            dialogue.client_took(shown);
            dialogue.program_took(given);
        }
        if dialogue.event() == Some(Event::Upgrade) {
            dialogue.decline();
        }
    }
    dialogue.end_client();
    dialogue.end_program();
    // Each turn lets go of what was held up behind the one before.
    loop {
        let (shown, given) = (dialogue.for_client().len(), dialogue.for_program().len());
        dialogue.client_took(shown);
        dialogue.program_took(given);
        if shown + given == 0 {
            break;
        }
    }
    assert!(dialogue.event().is_some() || dialogue.client_has_all());
}

fn with_flags(dialogues: &[&str]) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, text) in dialogues.iter().enumerate() {
        for flags in [0, 1, 2, 3, 4, 0x30, 0x72, 0x0a] {
            let dice = u8::try_from(number * 37 % 256).unwrap_or_default();
            seeds.push([&[flags, dice], text.as_bytes()].concat());
        }
    }
    seeds
}

/// Seeds of [`dialogue_smtp`].
pub fn smtp_seeds() -> Vec<Vec<u8>> {
    with_flags(&[
        "EHLO a\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nRCPT TO:<c>\r\nDATA\r\nAUTH x\r\n.\r\nSTARTTLS\r\n",
        "LHLO a\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 10\r\nSTARTTLS\r\nBDAT 6 LAST\r\nAUTH\r\nNOOP\r\n",
        "EHLO a\r\nAUTH LOGIN\r\nSTARTTLS\r\nAUTH\r\nSTARTTLS x\r\n AUTH PLAIN\r\nQUIT\r\n",
        "DATA\r\n..\r\n\n.\n\r.\r\n.\r\r\n.\r\nHELP\nTURN\nNOOP\0\r\nRSET\rAUTH\r\n",
        "EHLO a\r\nEHLO a\r\nBDAT 0\r\nBDAT 3 LAST\r\nab\nBDAT x\r\nDATA\r\n.\r\nDATA\r\n.\r\n",
    ])
}

/// Seeds of [`dialogue_pop3`].
pub fn pop3_seeds() -> Vec<Vec<u8>> {
    with_flags(&[
        "CAPA\r\nUSER a\r\nPASS b\r\nSTLS x\r\nSTLS\r\n",
        "LIST\r\nLIST 1\r\nUIDL\r\nRETR 1\r\nTOP 1 1\r\nNOOP\r\nQUIT\r\n",
        "AUTH\r\nAUTH PLAIN\r\nSTLS\r\nAPOP a b\r\nPASS x\rSTLS\r\n\0\n",
    ])
}

/// Seeds of [`dialogue_imap`].
pub fn imap_seeds() -> Vec<Vec<u8>> {
    with_flags(&[
        "a CAPABILITY\r\nb NOOP\r\nc LOGIN u p\r\nd STARTTLS\r\n",
        "a ID (\"x\" {12}\r\nz STARTTLS\r\n {0}\r\n)\r\nb NOOP {9+}\r\nb LOGIN x\r\nc NOOP\r\n",
        "d LOGIN {4+}\r\nuser {14+}\r\nx LOGIN a b\r\n\r\ne NOOP\r\n* LOGIN u p\r\n+ x\r\nf\r\n",
        "g AUTHENTICATE PLAIN\r\nh STARTTLS\r\ni LOGIN {3}\r\nabc {3}\r\nabc\r\nj STARTTLS x\r\n",
        "a NOOP {99999999999}\r\na X {5x}\r\na LOGIN {65537+}\r\na NOOP\rb LOGIN\r\n",
    ])
}

/// Seeds of [`dialogue_sieve`].
pub fn sieve_seeds() -> Vec<Vec<u8>> {
    with_flags(&[
        "CAPABILITY\r\nNOOP\r\nAUTHENTICATE \"X\"\r\n\"abc\"\r\nSTARTTLS\r\n",
        "PUTSCRIPT \"x\" {10+}\r\nSTARTTLS\r\n\r\nAUTHENTICATE \"X\" {6+}\r\nNOOP\r\n\r\nLOGOUT\r\n",
        "NOOP {5}\r\nNOOP {99999999999+}\r\nSTARTTLS x\r\nNOOP\rSTARTTLS\r\n",
    ])
}

/// Seeds of [`dialogue_any`].
pub fn any_seeds() -> Vec<Vec<u8>> {
    let pieces: [(u8, &[(u8, &str)]); 5] = [
        (
            0,
            &[
                (1, "220 m\r\n"),
                (0, "EHLO a\r\nDATA\r\n"),
                (1, "250-m\r\n250 AUTH\r\n354 go\r\n"),
                (0, ".\r\nSTARTTLS\r\n"),
            ],
        ),
        (
            1,
            &[
                (1, "220 m\r\n"),
                (0, "LHLO a\r\nRCPT\r\nBDAT 1 LAST\r\nx"),
                (1, "250 m\r\n250 x\r\n"),
            ],
        ),
        (
            2,
            &[
                (1, "+OK\r\n"),
                (0, "CAPA\r\nSTLS\r\n"),
                (1, "+OK\r\nUSER\r\n.\r\n"),
            ],
        ),
        (
            3,
            &[
                (1, "* OK [CAPABILITY X]\r\n"),
                (0, "a ID {3+}\r\nabc\r\n"),
                (1, "+ go\r\na OK\r\n"),
            ],
        ),
        (
            4,
            &[
                (1, "\"SASL\" {1}\r\nX\r\nOK\r\n"),
                (0, "NOOP {1+}\r\nx\r\n"),
                (1, "OK\r\n"),
            ],
        ),
    ];
    let mut seeds = Vec::new();
    for (kind, steps) in pieces {
        for leave in [0, 0x80] {
            let mut seed = vec![kind | leave];
            for (who, text) in steps {
                seed.push(u8::try_from(text.len() << 1).unwrap_or(0xfe) | who);
                seed.extend_from_slice(text.as_bytes());
            }
            seeds.push(seed);
        }
    }
    seeds
}
