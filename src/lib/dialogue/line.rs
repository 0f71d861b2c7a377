//! Bytes on their way through a dialogue, and how lines are cut and read.
//!
//! Nothing here fails on hostile input, and nothing looks at a byte twice.
#![forbid(unsafe_code)]

/// Bytes that wait: pushed behind, taken from the front.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    /// Up to here (from `start`) no line feed was found yet.
    searched: usize,
}

impl Buffer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn front(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops up to `count` bytes from the front.
    pub(super) fn take(&mut self, count: usize) {
        let count = count.min(self.len());
        self.start += count;
        self.searched = self.searched.saturating_sub(count);
        // Moving the rest costs no more than the bytes that were taken.
        if self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Buffer::default();
    }

    /// The length of the first line, its line feed included.
    pub(super) fn line(&mut self) -> Option<usize> {
        let found = self.front()[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map(|at| self.searched + at);
        // A line that is found may be asked for again; it is found at once.
        self.searched = found.unwrap_or(self.len());
        found.map(|at| at + 1)
    }
}

/// A line without its line feed and the carriage return before that.
pub(super) fn body(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a command holds a byte that programs disagree about: a NUL or a bare
/// carriage return ends a line for some, any control is a blank for others.
pub(super) fn is_ambiguous(line: &[u8]) -> bool {
    body(line).iter().any(|&byte| byte < b' ' && byte != b'\t')
}

/// The letters that a command begins with, and what follows them, trimmed.
/// Blanks and controls before them are skipped, and any other byte ends them:
/// there is a program for every such reading, and a password command must be
/// found whichever one runs.
pub(super) fn verb(line: &[u8]) -> (&[u8], &[u8]) {
    let start = line
        .iter()
        .position(|&byte| byte > b' ')
        .unwrap_or(line.len());
    let line = &line[start..];
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_alphabetic())
        .unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii())
}

/// The next word and what is behind it; any run of blanks and controls parts
/// words.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text
        .iter()
        .position(|&byte| byte <= b' ')
        .unwrap_or(text.len());
    (&text[..end], &text[end..])
}

/// Whether a word is one of these, in any case.
pub(super) fn is_one_of(word: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
}

/// A decimal number of 1 to 10 digits, no larger than 2^31-1 and without zeros
/// in front: of others programs disagree about what they read.
pub(super) fn size(digits: &[u8]) -> Option<u64> {
    let octal = digits.len() > 1 && digits.starts_with(b"0");
    let long = digits.len() > 10;
    if digits.is_empty() || long || octal || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    (size <= 0x7fff_ffff).then_some(size)
}

/// What stands in the braces that end a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    /// `{n}`: the sender waits to be asked for the n bytes.
    Waits(u64),
    /// `{n+}`: the n bytes follow at once.
    Follows(u64),
    /// Braces that hold no number, or one that is too large.
    Bad,
}

/// The literal that a line announces, if it ends with a closing brace behind
/// a digit or a plus sign.
pub(super) fn literal(line: &[u8]) -> Option<Literal> {
    let inside = body(line).strip_suffix(b"}")?;
    let open = inside.iter().rposition(|&byte| byte == b'{')?;
    let inside = &inside[open + 1..];
    let (digits, follows) = match inside.strip_suffix(b"+") {
        Some(digits) => (digits, true),
        None => (inside, false),
    };
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    Some(match (size(digits), follows) {
        (Some(size), true) => Literal::Follows(size),
        (Some(size), false) => Literal::Waits(size),
        (None, _) => Literal::Bad,
    })
}

/// Progress towards the line of a single dot that ends message content. Only
/// CR LF ends a line here (RFC 5321, section 4.1.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Dot {
    /// At the start of a line.
    #[default]
    Start,
    /// Within a line.
    Inside,
    /// Behind a CR within a line.
    Return,
    /// Behind a dot at the start of a line.
    Seen,
    /// Behind that dot and a CR.
    SeenReturn,
    /// Behind that line.
    Over,
}

impl Dot {
    fn next(self, byte: u8) -> Dot {
        match (self, byte) {
            (Dot::SeenReturn, b'\n') => Dot::Over,
            (Dot::Seen, b'\r') => Dot::SeenReturn,
            (Dot::Start, b'.') => Dot::Seen,
            (Dot::Return, b'\n') => Dot::Start,
            (_, b'\r') => Dot::Return,
            _ => Dot::Inside,
        }
    }
}

/// The place in a line for a program that takes any CR or LF for its end, and
/// strips blanks and controls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing but blanks and controls so far.
    #[default]
    Start,
    /// A dot, and nothing else but those.
    Dot,
    /// So many letters of `AUTH`.
    Verb(usize),
    Inside,
}

/// A verb that carries a password, in message content that may be none.
const PASSWORD: &[u8] = b"AUTH";

/// What a scan of content found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The end: what follows is a command.
    End,
    /// All of it is content.
    More,
    /// A password command, where a program may read commands again.
    Password,
}

/// Message content: its end, and what some programs take for its end.
///
/// Only CR LF . CR LF ends it. There are programs for which LF . LF does, or a
/// CR alone, or a dot with a NUL beside it; what follows is a command for them
/// and content for all others. It is handed on untouched, but no password
/// command passes behind such a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    dot: Dot,
    place: Place,
    /// A line was seen that some programs take for the end.
    loose_end: bool,
    /// The program answered behind such a line: it is one of those.
    settled: bool,
    /// The program answered before any end.
    refused: bool,
}

impl Content {
    /// The program answered the message. The next scan tells whether it takes
    /// commands again.
    pub(super) fn answered(&mut self) {
        self.settled |= self.loose_end;
        self.refused |= !self.loose_end;
    }

    /// Half a line of content is never handed on as half a command, nor is half
    /// a line end. `next` is the byte that follows, if there is one.
    fn is_over(self, next: Option<u8>) -> bool {
        let cut = match (self.dot, next) {
            (Dot::Return | Dot::SeenReturn, Some(byte)) => byte == b'\n',
            (Dot::Return | Dot::SeenReturn, None) => true,
            _ => false,
        };
        self.dot == Dot::Over || (self.settled && self.place == Place::Start && !cut)
    }

    /// How many of the bytes belong to the content, its last line included, and
    /// what ended the scan. `guarded`: no password command may pass.
    pub(super) fn scan(&mut self, bytes: &[u8], guarded: bool) -> (usize, Found) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.is_over(Some(byte)) {
                return (at, Found::End);
            }
            let (dot, place) = (self.dot, self.place);
            let ends_line = matches!(byte, b'\r' | b'\n');
            self.dot = dot.next(byte);
            self.place = place.next(byte);
            self.loose_end |= (dot == Dot::SeenReturn && self.dot != Dot::Over)
                || (place == Place::Dot && ends_line && self.dot != Dot::SeenReturn);
            let doubtful = guarded && (self.loose_end || self.refused);
            if doubtful && place == Place::Verb(PASSWORD.len()) && !byte.is_ascii_alphabetic() {
                return (at, Found::Password);
            }
            at += 1;
            if self.place == Place::Inside {
                // Most bytes are here: nothing before the next line end matters.
                let rest = &bytes[at..];
                let next = rest.iter().position(|&byte| matches!(byte, b'\r' | b'\n'));
                at += next.unwrap_or(rest.len());
                if next != Some(0) && !rest.is_empty() {
                    self.dot = Dot::Inside;
                }
            }
        }
        let found = if self.is_over(None) {
            Found::End
        } else {
            Found::More
        };
        (at, found)
    }
}

impl Place {
    fn next(self, byte: u8) -> Place {
        let is_blank = byte <= b' ' || byte == 0x7f;
        match (self, byte) {
            (_, b'\r' | b'\n') => Place::Start,
            (Place::Start | Place::Dot, _) if is_blank => self,
            (Place::Start, b'.') => Place::Dot,
            (Place::Start, _) if byte.eq_ignore_ascii_case(&PASSWORD[0]) => Place::Verb(1),
            (Place::Verb(count), _)
                if PASSWORD
                    .get(count)
                    .is_some_and(|letter| byte.eq_ignore_ascii_case(letter)) =>
            {
                Place::Verb(count + 1)
            }
            _ => Place::Inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_gives_back_what_it_got() {
        let mut buffer = Buffer::default();
        let mut expected = Vec::new();
        let mut given = Vec::new();
        for round in 0..200_usize {
            let piece: Vec<u8> = (0..round % 17)
                .map(|at| u8::try_from(at * round % 256).unwrap())
                .collect();
            expected.extend_from_slice(&piece);
            buffer.push(&piece);
            let count = (round % 11).min(buffer.len());
            given.extend_from_slice(&buffer.front()[..count]);
            buffer.take(count);
            // What was taken is not kept for ever.
            assert!(buffer.start <= buffer.len());
        }
        given.extend_from_slice(buffer.front());
        assert_eq!(given, expected);
    }

    #[test]
    fn lines_are_found_whatever_the_pieces() {
        let mut buffer = Buffer::default();
        let mut lines = Vec::new();
        for piece in [&b"a"[..], b"\r", b"\nbb\n", b"\n", b"c\r\nd"] {
            buffer.push(piece);
            while let Some(length) = buffer.line() {
                assert_eq!(buffer.line(), Some(length), "asked again");
                lines.push(buffer.front()[..length].to_vec());
                buffer.take(length);
            }
        }
        assert_eq!(lines, [&b"a\r\n"[..], b"bb\n", b"\n", b"c\r\n"]);
        assert_eq!(buffer.front(), b"d");
    }

    #[test]
    fn verbs_are_found_in_every_disguise() {
        for line in [
            &b"AUTH PLAIN x\r\n"[..],
            b"auth\tPLAIN x\r\n",
            b" \t AUTH",
            b"AUTH\n",
            b"AuTh=x\r\n",
            b"\x01AUTH: x",
        ] {
            assert!(is_one_of(verb(line).0, &["AUTH"]), "{line:?}");
        }
        assert_eq!(verb(b"STARTTLS \t\r\n"), (&b"STARTTLS"[..], &b""[..]));
        assert_eq!(verb(b"EHLO a b \r\n"), (&b"EHLO"[..], &b"a b"[..]));
        assert_eq!(verb(b"\r\n"), (&b""[..], &b""[..]));
        assert!(!is_one_of(verb(b"XAUTH\r\n").0, &["AUTH"]));
    }

    #[test]
    fn literals_and_their_limits() {
        for (line, expected) in [
            (&b"a LOGIN {5}\r\n"[..], Some(Literal::Waits(5))),
            (b"a LOGIN {5+}\n", Some(Literal::Follows(5))),
            (b"a X ~{0}\r\n", Some(Literal::Waits(0))),
            (
                b"a X {2147483647+}\r\n",
                Some(Literal::Follows(2_147_483_647)),
            ),
            (b"a X {2147483648+}\r\n", Some(Literal::Bad)),
            (b"a X {99999999999999999999}\r\n", Some(Literal::Bad)),
            (b"a X {5x}\r\n", Some(Literal::Bad)),
            (b"a X {x}\r\n", None),
            (b"a X {}\r\n", None),
            (b"a X \"{5}\"\r\n", None),
            (b"a X {5} \r\n", None),
            (b"5}\r\n", None),
        ] {
            assert_eq!(literal(line), expected, "{line:?}");
        }
    }

    /// Scans at once and cut in two anywhere: always the same.
    #[track_caller]
    fn scanned(content: &[u8], start: Content) -> (usize, Found) {
        let mut whole = start;
        let expected = whole.scan(content, true);
        for cut in 0..=content.len() {
            let mut scan = start;
            let (first, found) = scan.scan(&content[..cut], true);
            let got = if found == Found::More {
                assert_eq!(first, cut);
                let (more, found) = scan.scan(&content[cut..], true);
                (cut + more, found)
            } else {
                (first, found)
            };
            assert_eq!(got, expected, "{content:?} cut at {cut}");
        }
        expected
    }

    #[test]
    fn only_a_dot_between_two_crlf_ends_content() {
        for (content, length) in [
            (&b".\r\n"[..], Some(3)),
            (b"a\r\n.\r\nQUIT\r\n", Some(6)),
            (b"a\r\n..\r\n.\r\n", Some(10)),
            (b"a\n.\nb\n.\r\nc\r\n\r.\r\n.\r\n", Some(19)),
            (b"a\r\n.\r\r\n.\r\n", Some(10)),
            (b"\r\r\n.\r\n", Some(6)),
            (b"a.\r\n", None),
            (b"a\r.\r\n", None),
        ] {
            let (count, found) = scanned(content, Content::default());
            assert_eq!(
                (found == Found::End).then_some(count),
                length,
                "{content:?}"
            );
        }
    }

    #[test]
    fn no_password_command_passes_behind_what_some_take_for_the_end() {
        let ends = [
            "a\n.\n",
            "a\r\n.\n",
            "a\n.\r\n",
            "a\r.\r",
            "a\r\n.\r",
            "a\r.\r\n",
            "a\r\n\0.\r\n",
            "a\r\n.\0\r\n",
            "a\r\n. \r\n",
            ".\n",
            "\n.\nx\nMAIL FROM:<a>\n",
            // Two of them are no less doubtful than one.
            "a\n.\nb\n.\n",
        ];
        let commands = [
            "AUTH PLAIN x",
            "auth\tx",
            " \x01AuTh=x",
            "AUTH\n",
            "\r\nAUTH\r",
        ];
        for end in ends {
            for command in commands {
                let content = format!("{end}{command}");
                let (count, found) = scanned(content.as_bytes(), Content::default());
                assert_eq!(found, Found::Password, "{content:?}");
                // Nothing behind the verb was handed on.
                let verb = content.to_ascii_uppercase().find("AUTH").unwrap() + 4;
                assert_eq!(count, verb, "{content:?}");
            }
            for text in [
                "AUTHOR: x\r\n",
                "x AUTH PLAIN\n",
                ".AUTH x\n",
                "AUT H\n",
                "XAUTH\n",
                "BUTH x\n",
                "ABCD x\n",
            ] {
                let content = format!("{end}{text}\r\n.\r\n");
                let (count, found) = scanned(content.as_bytes(), Content::default());
                assert_eq!((count, found), (content.len(), Found::End), "{content:?}");
            }
        }
        // Where nobody could see an end, it is text like any other.
        for content in [&b"AUTH PLAIN x\r\n"[..], b"a\nAUTH x\n", b"..\nAUTH x\n"] {
            assert_eq!(scanned(content, Content::default()).1, Found::More);
        }
    }

    #[test]
    fn the_answer_tells_how_the_program_reads() {
        // It took LF . LF for the end: what follows is a command.
        let mut content = Content::default();
        assert_eq!(content.scan(b"a\n.\n", true), (4, Found::More));
        content.answered();
        assert_eq!(scanned(b"MAIL", content), (0, Found::End));
        // The answer came while a line was on its way: it passes whole.
        let mut content = Content::default();
        assert_eq!(content.scan(b"a\n.\nMA", true), (6, Found::More));
        // A second answer takes nothing back, here and below.
        content.answered();
        content.answered();
        assert_eq!(scanned(b"IL\r\nRCPT", content), (4, Found::End));
        // A CR may be half a line end.
        let mut content = Content::default();
        assert_eq!(content.scan(b"a\r.\r", true), (4, Found::More));
        content.answered();
        assert_eq!(scanned(b"MAIL", content), (0, Found::End));
        assert_eq!(scanned(b"\nMAIL", content), (1, Found::End));
        // No end in sight: the message is refused, and goes on or not.
        let mut content = Content::default();
        assert_eq!(content.scan(b"a\r\n", true), (3, Found::More));
        content.answered();
        content.answered();
        assert_eq!(scanned(b"b\r\n.\r\n", content), (6, Found::End));
        assert_eq!(scanned(b"b\r\nAUTH x", content), (7, Found::Password));
    }
}
