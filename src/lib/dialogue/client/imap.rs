//! IMAP: STARTTLS (RFC 9051 section 6.2.1, RFC 3501 the same).
#![forbid(unsafe_code)]

use super::DialogueError;
use super::lines::{Lines, REPLY_LIMIT, Stream};
use crate::dialogue::line::literal;

/// The dialogue up to the go-ahead; the greeting without its capabilities.
pub(super) fn upgrade<S: Stream>(lines: &mut Lines<S>) -> Result<Vec<u8>, DialogueError> {
    let greeting = greeting(lines)?;
    let listed = capabilities(lines, "a1")?;
    let offered = listed
        .iter()
        .flat_map(|line| line.trim_ascii_end().split(|&byte| byte == b' '))
        .any(|word| word.eq_ignore_ascii_case(b"STARTTLS"));
    if !offered {
        return Err(DialogueError::NotOffered("STARTTLS", listed.concat()));
    }
    let answer = command(lines, "a2", "STARTTLS", "after STARTTLS")?;
    lines.nothing_waits(&answer.tagged, "after STARTTLS")?;
    Ok(without_capabilities(&greeting))
}

/// Reads the greeting.
///
/// # Errors
/// It is none, or one that leaves no room for an upgrade.
pub fn greeting<S: Stream>(lines: &mut Lines<S>) -> Result<Vec<u8>, DialogueError> {
    let place = "before its greeting";
    let line = lines.line(place)?;
    match words(&line) {
        (b"*", status) if status.eq_ignore_ascii_case(b"OK") => Ok(line),
        (b"*", status) if status.eq_ignore_ascii_case(b"PREAUTH") => {
            Err(DialogueError::PreAuthenticated(line))
        }
        (b"*", status) if status.eq_ignore_ascii_case(b"BYE") => {
            Err(DialogueError::Refused("the connection", line))
        }
        _ => Err(DialogueError::Malformed(place, line)),
    }
}

/// Asks for the lines with the capabilities.
///
/// # Errors
/// As [`command`].
pub fn capabilities<S: Stream>(
    lines: &mut Lines<S>,
    tag: &str,
) -> Result<Vec<Vec<u8>>, DialogueError> {
    let mut listed = command(lines, tag, "CAPABILITY", "after CAPABILITY")?.untagged;
    listed.retain(|line| {
        let (star, word) = words(line);
        star == b"*" && word.eq_ignore_ascii_case(b"CAPABILITY")
    });
    Ok(listed)
}

/// What a command was answered with.
struct Answer {
    /// The untagged lines.
    untagged: Vec<Vec<u8>>,
    /// The OK with the command's tag.
    tagged: Vec<u8>,
}

/// Sends a command and reads up to its tagged OK.
///
/// # Errors
/// NO, BAD or BYE, an answer that came too early, or a failure of the stream.
fn command<S: Stream>(
    lines: &mut Lines<S>,
    tag: &str,
    command: &'static str,
    place: &'static str,
) -> Result<Answer, DialogueError> {
    // Untagged data may come at any time; an answer before its command may not.
    lines.unasked(place)?;
    let mut untagged = Vec::new();
    while lines.has_line() {
        let line = lines.line(place)?;
        if !line.starts_with(b"* ") {
            return Err(DialogueError::Injection(line.len() + lines.waiting(), line));
        }
        untagged.push(line);
    }
    untagged.clear();
    lines.command(&format!("{tag} {command}"), place)?;
    let mut size = 0;
    loop {
        let line = lines.line(place)?;
        size += line.len();
        if size > REPLY_LIMIT {
            return Err(DialogueError::TooLong(place));
        }
        if literal(&line).is_some() {
            // A literal: nothing that a server has need of before TLS.
            return Err(DialogueError::Malformed(place, line));
        }
        match words(&line) {
            (b"*", status) if status.eq_ignore_ascii_case(b"BYE") => {
                return Err(DialogueError::Refused(command, line));
            }
            (b"*", _) => untagged.push(line),
            (found, status) if found == tag.as_bytes() => {
                if status.eq_ignore_ascii_case(b"OK") {
                    return Ok(Answer {
                        untagged,
                        tagged: line,
                    });
                }
                return Err(DialogueError::Refused(command, line));
            }
            _ => return Err(DialogueError::Malformed(place, line)),
        }
    }
}

/// The first two words of a line.
fn words(line: &[u8]) -> (&[u8], &[u8]) {
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
    (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    )
}

/// `* OK [CAPABILITY ...] ready` as `* OK ready`: what was learnt in the clear
/// must not be used inside TLS (RFC 9051 section 6.2.1).
fn without_capabilities(greeting: &[u8]) -> Vec<u8> {
    const CODE: &[u8] = b"[CAPABILITY";
    let mut text = greeting[greeting.len().min(4)..].trim_ascii();
    let mut found = false;
    let begins = |text: &[u8]| {
        let code = text.get(..CODE.len());
        code.is_some_and(|code| code.eq_ignore_ascii_case(CODE))
    };
    while begins(text) {
        found = true;
        let end = text.iter().position(|&byte| byte == b']');
        text = end.map_or(&b""[..], |end| text[end + 1..].trim_ascii());
    }
    if !found {
        return greeting.to_vec();
    }
    let text = if text.is_empty() { b"ready" } else { text };
    [b"* OK ", text, b"\r\n"].concat()
}
