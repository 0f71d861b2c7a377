//! POP3: STLS (RFC 2595 section 4).
#![forbid(unsafe_code)]

use super::DialogueError;
use super::lines::{Lines, REPLY_LIMIT, Stream};

/// The dialogue up to the go-ahead; the greeting.
pub(super) fn upgrade<S: Stream>(lines: &mut Lines<S>) -> Result<Vec<u8>, DialogueError> {
    let greeting = greeting(lines)?;
    // A server without CAPA (RFC 2449) may know STLS all the same: its answer
    // to STLS tells.
    if let Some(listed) = capabilities(lines)? {
        let stls = |line: &Vec<u8>| {
            let word = line.trim_ascii_end().split(|&byte| byte == b' ').next();
            word.is_some_and(|word| word.eq_ignore_ascii_case(b"STLS"))
        };
        if !listed.iter().skip(1).any(stls) {
            return Err(DialogueError::NotOffered("STLS", listed.concat()));
        }
    }
    lines.command("STLS", "before STLS")?;
    let answer = lines.line("after STLS")?;
    if !is_good(&answer, "after STLS")? {
        return Err(DialogueError::Refused("STLS", answer));
    }
    lines.nothing_waits(&answer, "after STLS")?;
    Ok(greeting)
}

/// Reads the greeting.
///
/// # Errors
/// It is none, or a refusal.
pub fn greeting<S: Stream>(lines: &mut Lines<S>) -> Result<Vec<u8>, DialogueError> {
    let line = lines.line("before its greeting")?;
    if is_good(&line, "before its greeting")? {
        Ok(line)
    } else {
        Err(DialogueError::Refused("the connection", line))
    }
}

/// The answer to CAPA: its first line, and those of the list. `None` where the
/// server knows no such command.
///
/// # Errors
/// The answer is none, or too long; a failure of the stream.
pub fn capabilities<S: Stream>(
    lines: &mut Lines<S>,
) -> Result<Option<Vec<Vec<u8>>>, DialogueError> {
    let place = "after CAPA";
    lines.command("CAPA", place)?;
    let mut all = vec![lines.line(place)?];
    if !is_good(&all[0], place)? {
        return Ok(None);
    }
    let mut size = 0;
    loop {
        let line = lines.line(place)?;
        if line.trim_ascii_end() == b"." {
            return Ok(Some(all));
        }
        size += line.len();
        if size > REPLY_LIMIT {
            return Err(DialogueError::TooLong(place));
        }
        all.push(line);
    }
}

fn is_good(line: &[u8], place: &'static str) -> Result<bool, DialogueError> {
    let word = line.trim_ascii_end().split(|&byte| byte == b' ').next();
    match word {
        Some(b"+OK") => Ok(true),
        Some(b"-ERR") => Ok(false),
        _ => Err(DialogueError::Malformed(place, line.to_vec())),
    }
}
