//! POP3: STLS (RFC 2595 section 4).
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use super::DialogueError;
use super::lines::{Lines, REPLY_LIMIT};

/// The dialogue up to the go-ahead; the greeting.
pub(super) fn upgrade<S: Read + Write>(lines: &mut Lines<S>) -> Result<Vec<u8>, DialogueError> {
    let greeting = lines.line("before its greeting")?;
    if !is_good(&greeting, "before its greeting")? {
        return Err(DialogueError::Refused("the connection", greeting));
    }
    lines.command("CAPA", "after its greeting")?;
    let answer = lines.line("after CAPA")?;
    // A server without CAPA (RFC 2449) may know STLS all the same: its answer
    // to STLS tells.
    if is_good(&answer, "after CAPA")? {
        capabilities(lines, answer)?;
    }
    lines.command("STLS", "before STLS")?;
    let answer = lines.line("after STLS")?;
    if !is_good(&answer, "after STLS")? {
        return Err(DialogueError::Refused("STLS", answer));
    }
    lines.nothing_waits(&answer)?;
    Ok(greeting)
}

/// Reads the list; it must hold STLS.
fn capabilities<S: Read + Write>(
    lines: &mut Lines<S>,
    mut all: Vec<u8>,
) -> Result<(), DialogueError> {
    let mut offered = false;
    loop {
        let line = lines.line("after CAPA")?;
        let body = line.trim_ascii_end();
        if body == b"." {
            break;
        }
        let word = body.split(|&byte| byte == b' ').next();
        offered |= word.is_some_and(|word| word.eq_ignore_ascii_case(b"STLS"));
        all.extend_from_slice(&line);
        if all.len() > REPLY_LIMIT {
            return Err(DialogueError::TooLong("after CAPA"));
        }
    }
    if offered {
        Ok(())
    } else {
        Err(DialogueError::NotOffered("STLS", all))
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
