//! ManageSieve: STARTTLS (RFC 5804 section 2.2).
#![forbid(unsafe_code)]

use super::DialogueError;
use super::lines::{Lines, REPLY_LIMIT, Stream};
use crate::dialogue::line::{Literal, literal};

/// The dialogue up to the go-ahead. The greeting is a list of capabilities, and
/// the server sends it again inside TLS: nothing of this one is handed on.
pub(super) fn upgrade<S: Stream>(lines: &mut Lines<S>) -> Result<Vec<u8>, DialogueError> {
    let (listed, last) = capabilities(lines, "before its greeting")?;
    let starttls =
        |line: &Vec<u8>| name(line).is_some_and(|name| name.eq_ignore_ascii_case(b"STARTTLS"));
    if !listed.iter().any(starttls) {
        return Err(DialogueError::NotOffered(
            "STARTTLS",
            [listed.concat(), last].concat(),
        ));
    }
    lines.command("STARTTLS", "before STARTTLS")?;
    let answer = logical_line(lines, "after STARTTLS")?;
    if !is_good(&answer, "after STARTTLS")? {
        return Err(DialogueError::Refused("STARTTLS", answer));
    }
    lines.nothing_waits(&answer, "after STARTTLS")?;
    Ok(Vec::new())
}

/// The lines of capabilities, and the OK that ends them.
///
/// # Errors
/// The server refuses, sends something else, or too much.
pub fn capabilities<S: Stream>(
    lines: &mut Lines<S>,
    place: &'static str,
) -> Result<(Vec<Vec<u8>>, Vec<u8>), DialogueError> {
    let mut listed = Vec::new();
    let mut size = 0;
    loop {
        let line = logical_line(lines, place)?;
        size += line.len();
        if size > REPLY_LIMIT {
            return Err(DialogueError::TooLong(place));
        }
        if line.starts_with(b"\"") || line.starts_with(b"{") {
            listed.push(line);
        } else if is_good(&line, place)? {
            return Ok((listed, line));
        } else {
            return Err(DialogueError::Refused("the connection", line));
        }
    }
}

/// A line with the literals in it: `{n}` or `{n+}` at an end stands for n bytes
/// that follow it.
///
/// # Errors
/// As [`Lines::line`].
pub fn logical_line<S: Stream>(
    lines: &mut Lines<S>,
    place: &'static str,
) -> Result<Vec<u8>, DialogueError> {
    let mut all = lines.line(place)?;
    while let Some(literal) = literal(&all) {
        let (Literal::Waits(count) | Literal::Follows(count)) = literal else {
            return Err(DialogueError::Malformed(place, all));
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let bytes = lines.bytes(count, place)?;
        all.extend_from_slice(&bytes);
        let rest = lines.line(place)?;
        all.extend_from_slice(&rest);
        if all.len() > REPLY_LIMIT {
            return Err(DialogueError::TooLong(place));
        }
    }
    Ok(all)
}

/// The quoted name that a capability line begins with.
fn name(line: &[u8]) -> Option<&[u8]> {
    let inner = line.strip_prefix(b"\"")?;
    let end = inner.iter().position(|&byte| byte == b'"')?;
    Some(&inner[..end])
}

/// Whether an answer is OK; NO and BYE are not.
///
/// # Errors
/// It is none of the three.
pub fn is_good(line: &[u8], place: &'static str) -> Result<bool, DialogueError> {
    let word = line
        .trim_ascii_end()
        .split(|byte| matches!(byte, b' ' | b'('))
        .next()
        .unwrap_or_default();
    if word.eq_ignore_ascii_case(b"OK") {
        Ok(true)
    } else if word.eq_ignore_ascii_case(b"NO") || word.eq_ignore_ascii_case(b"BYE") {
        Ok(false)
    } else {
        Err(DialogueError::Malformed(place, line.to_vec()))
    }
}
