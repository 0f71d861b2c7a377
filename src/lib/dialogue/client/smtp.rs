//! SMTP and LMTP: replies (RFC 5321 section 4.2), capabilities, STARTTLS (RFC
//! 3207).
#![forbid(unsafe_code)]

use super::DialogueError;
use super::lines::{Lines, REPLY_LIMIT, Stream};

/// A reply of one or more lines with one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// All of it, as it came.
    pub text: Vec<u8>,
}

impl Reply {
    /// Reads a reply.
    ///
    /// # Errors
    /// [`DialogueError::Malformed`] where a line has no code or another one than the
    /// first; limits and failures of [`Lines`].
    pub fn read<S: Stream>(
        lines: &mut Lines<S>,
        place: &'static str,
    ) -> Result<Reply, DialogueError> {
        let mut text = Vec::new();
        let mut first = None;
        loop {
            let line = lines.line(place)?;
            let parsed = parse(&line);
            text.extend_from_slice(&line);
            let Some((code, last)) = parsed else {
                return Err(DialogueError::Malformed(place, text));
            };
            if *first.get_or_insert(code) != code {
                return Err(DialogueError::Malformed(place, text));
            }
            if last {
                return Ok(Reply { code, text });
            }
            if text.len() > REPLY_LIMIT {
                return Err(DialogueError::TooLong(place));
            }
        }
    }

    /// 2yz.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.code < 300
    }

    /// 4yz: it may work later.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// The parameters of a capability: a line behind the first that begins with
    /// the whole word (RFC 5321 section 4.1.1.1).
    #[must_use]
    pub fn capability(&self, word: &str) -> Option<&[u8]> {
        self.all(word).next()
    }

    /// The parameters of every line with that capability.
    pub fn all<'a>(&'a self, word: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.text.split(|&byte| byte == b'\n').skip(1);
        lines.filter_map(move |line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line).get(4..)?;
            let (head, rest) = line.split_at_checked(word.len())?;
            let ends = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'='));
            (head.eq_ignore_ascii_case(word.as_bytes()) && ends).then_some(rest.trim_ascii())
        })
    }
}

/// A line's code, and whether it is the reply's last.
fn parse(line: &[u8]) -> Option<(u16, bool)> {
    let code = line.get(..3)?;
    if !code.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&code[0]) {
        return None;
    }
    let code = code
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match line.get(3)? {
        b'-' => Some((code, false)),
        b' ' | b'\r' | b'\n' => Some((code, true)),
        _ => None,
    }
}

/// The dialogue up to the go-ahead; the greeting.
pub(super) fn upgrade<S: Stream>(
    lines: &mut Lines<S>,
    hello: &str,
    name: &str,
) -> Result<Vec<u8>, DialogueError> {
    let greeting = greeting(lines)?;
    lines.command(&format!("{hello} {name}"), "after its greeting")?;
    let capabilities = Reply::read(lines, "after EHLO")?;
    if !capabilities.is_good() {
        return Err(DialogueError::NotOffered("STARTTLS", capabilities.text));
    }
    if capabilities.capability("STARTTLS").is_none() {
        return Err(DialogueError::NotOffered("STARTTLS", capabilities.text));
    }
    start_tls(lines)?;
    Ok(greeting)
}

/// Reads the greeting.
///
/// # Errors
/// It is none, or a refusal.
pub fn greeting<S: Stream>(lines: &mut Lines<S>) -> Result<Vec<u8>, DialogueError> {
    let reply = Reply::read(lines, "before its greeting")?;
    if reply.is_good() {
        Ok(reply.text)
    } else {
        Err(DialogueError::Refused("the connection", reply.text))
    }
}

/// STARTTLS and its answer.
///
/// # Errors
/// The server does not go ahead, or says more than that.
pub fn start_tls<S: Stream>(lines: &mut Lines<S>) -> Result<(), DialogueError> {
    lines.command("STARTTLS", "before STARTTLS")?;
    let answer = Reply::read(lines, "after STARTTLS")?;
    if answer.code != 220 {
        return Err(DialogueError::Refused("STARTTLS", answer.text));
    }
    lines.nothing_waits(&answer.text, "after STARTTLS")
}
