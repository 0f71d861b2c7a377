//! The lines in which sessions are kept: a file a day in qmail's home, appended to by
//! deliveries, read by sslreport.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Session;
use crate::calendar::Day;

/// Where the files are, in qmail's home; without it nothing is kept.
pub const FOLDER: &str = "tlsrpt";
/// What follows the day in the name of the file with its sessions.
const SESSIONS: &str = "sessions";
/// The same of the one that says which reports of the day were sent.
pub const SENT: &str = "sent";
/// The same of a message on its way.
pub const MESSAGE: &str = "message";
/// The longest line, in bytes: a policy of 64 KiB with each byte escaped.
const LINE_LIMIT: usize = 512 << 10;
/// How each line begins.
const OPENING: &[u8] = b"{\"time\":";

/// A file of a day's.
#[must_use]
pub fn path(folder: &Path, day: Day, what: &str) -> PathBuf {
    folder.join(format!("{day}.{what}"))
}

/// The day that a file in the folder belongs to, if it is one of ours.
#[must_use]
pub fn day_of(name: &str) -> Option<Day> {
    let (day, what) = name.split_once('.')?;
    Day::parse(day).filter(|_| [SESSIONS, SENT, MESSAGE].contains(&what))
}

/// How a file in the folder is opened: whatever stands in its place must not make
/// anybody wait.
#[must_use]
pub fn how() -> OpenOptions {
    let mut how = OpenOptions::new();
    how.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .mode(0o640);
    how
}

/// A regular file, and no other.
///
/// # Errors
/// It is another, or as fstat(2).
pub fn regular(file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(file)
}

/// The file of a day, to be appended to.
pub struct Journal(File);

impl Journal {
    /// Opens the file of a day, and makes it where there is none.
    ///
    /// # Errors
    /// As open(2): [`io::ErrorKind::NotFound`] where sessions are not kept.
    pub fn open(folder: &Path, day: Day) -> io::Result<Journal> {
        let path = path(folder, day, SESSIONS);
        let file = how().append(true).create(true).open(path)?;
        Ok(Journal(regular(file)?))
    }

    /// Appends a session's line, in one write.
    ///
    /// # Errors
    /// As write(2), or where the line is too long.
    pub fn append(&self, session: &Session) -> io::Result<()> {
        let mut line = serde_json::to_vec(session)?;
        line.push(b'\n');
        if line.len() > LINE_LIMIT {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match (&self.0).write(&line)? {
            count if count == line.len() => Ok(()),
            // The disk is full. The next line may find room, behind this half.
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// The file of a day, to be read.
///
/// # Errors
/// As open(2): [`io::ErrorKind::NotFound`] where there were no sessions.
pub fn of_day(folder: &Path, day: Day) -> io::Result<BufReader<File>> {
    let file = how().read(true).open(path(folder, day, SESSIONS))?;
    Ok(BufReader::new(regular(file)?))
}

/// Calls `take` with each line of a file of ours, however long the file is; with `None`
/// for a line that is too long to be ours.
///
/// # Errors
/// The input's.
pub fn lines(mut input: impl BufRead, mut take: impl FnMut(Option<&[u8]>)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_LIMIT as u64 * 2;
        let length = input.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && length as u64 == limit {
            input.skip_until(b'\n')?;
            take(None);
        } else if !line.trim_ascii().is_empty() {
            take(Some(&line));
        }
    }
}

/// Calls `take` with each session of a file; gives how many lines are none. A line
/// that stands behind the half of another is found.
///
/// # Errors
/// The input's.
pub fn read(input: impl BufRead, mut take: impl FnMut(Session)) -> io::Result<u64> {
    let mut damaged = 0;
    lines(input, |line| {
        if let Some(session) = line.and_then(|line| serde_json::from_slice(line).ok()) {
            take(session);
            return;
        }
        damaged += 1;
        let behind = line.and_then(|line| {
            let mut openings = line.windows(OPENING.len());
            let at = openings.rposition(|some| some == OPENING)?;
            line.get(at..).filter(|_| at > 0)
        });
        if let Some(session) = behind.and_then(|line| serde_json::from_slice(line).ok()) {
            take(session);
        }
    })?;
    Ok(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlsrpt::{AppliedPolicy, Place, PolicyType};

    fn session(domain: &str) -> Session {
        Session {
            time: "2026-01-31T12:00:00Z".to_owned(),
            policy: AppliedPolicy {
                kind: PolicyType::NoPolicyFound,
                text: Vec::new(),
                domain: domain.to_owned(),
                hosts: Vec::new(),
            },
            place: Place {
                sending_mta_ip: None,
                receiving_mx_hostname: "mx".to_owned(),
                receiving_ip: "192.0.2.1".to_owned(),
                failure_reason_code: None,
            },
            result_type: None,
        }
    }

    #[test]
    fn what_is_damaged_is_counted_and_the_rest_is_read() {
        let line = |domain| serde_json::to_vec(&session(domain)).expect("JSON");
        let tricky = line("{\"time\":");
        let half = &line("lost.example")[..40];
        let input = [
            &line("a.example")[..],
            b"\n\n",
            &tricky,
            b"\nnothing\n{}\n\xff\n",
            half,
            &line("b.example"),
            b"\n",
            &vec![b' '; LINE_LIMIT * 2 + 5],
            b"\n",
            &line("c.example"),
            b"\n",
            half,
        ]
        .concat();
        let mut domains = Vec::new();
        let damaged = read(&*input, |one| domains.push(one.policy.domain)).expect("read");
        assert_eq!(
            domains,
            ["a.example", "{\"time\":", "b.example", "c.example"]
        );
        assert_eq!(damaged, 6);
    }

    #[test]
    fn a_session_s_line_begins_as_it_is_looked_for() {
        let line = serde_json::to_vec(&session("a")).expect("JSON");
        assert!(line.starts_with(OPENING));
    }

    #[test]
    fn the_day_of_a_file_is_in_its_name() {
        let day = Day::parse("2026-01-31").expect("a day");
        assert_eq!(day_of("2026-01-31.sessions"), Some(day));
        for name in [
            "",
            "x",
            "2026-02-30.sessions",
            ".2026-01-31",
            "2026-01-31",
            "2026-01-31.notes",
            "2026-01-31.sent.old",
        ] {
            assert_eq!(day_of(name), None, "{name}");
        }
        let path = path(Path::new("x"), day, SESSIONS);
        assert_eq!(path, Path::new("x/2026-01-31.sessions"));
    }
}
