//! Which reports of a day were sent: a file beside the day's sessions, to which each
//! step is appended and forced to the disk before the next one is taken.
//!
//! What was begun and has no end was stopped in between, and may have been sent: it
//! counts as sent. So nothing is sent twice, whatever is interrupted.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::calendar::Day;
use crate::sys::fd;
use crate::tlsrpt::journal::{self, SENT, how, path, regular};

/// How far a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Whoever takes it is about to get it.
    Begun,
    /// It was taken.
    Sent,
    /// It was not taken.
    Failed,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    domain: String,
    rua: String,
    state: State,
}

/// A domain, and where its report goes.
type Key = (String, String);

/// The file of a day, which nobody else has.
pub struct Ledger {
    file: Option<File>,
    states: BTreeMap<Key, State>,
}

impl Ledger {
    /// Opens the file of a day, and makes it where there is none; waits for another
    /// run that has it.
    ///
    /// # Errors
    /// As open(2), flock(2), read(2).
    pub fn open(folder: &Path, day: Day) -> io::Result<Ledger> {
        let path = path(folder, day, SENT);
        let file = how().read(true).append(true).create(true).open(path)?;
        let mut file = regular(file)?;
        fd::lock(&file)?;
        // That the file is there must outlast a failure of power too.
        File::open(folder)?.sync_all()?;
        let states = states(BufReader::new(&file))?;
        // The end of a line that was not written whole.
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        let file = Some(file);
        Ok(Ledger { file, states })
    }

    /// What the file of a day says, without taking or making it.
    ///
    /// # Errors
    /// As open(2) and read(2).
    pub fn look(folder: &Path, day: Day) -> io::Result<Ledger> {
        let states = match how().read(true).open(path(folder, day, SENT)) {
            Ok(file) => states(BufReader::new(regular(file)?))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Ledger { file: None, states })
    }

    /// How far a report is; `None`: nobody has tried.
    #[must_use]
    pub fn state(&self, domain: &str, rua: &str) -> Option<State> {
        let key = (domain.to_owned(), rua.to_owned());
        self.states.get(&key).copied()
    }

    /// Notes how far a report is, for good.
    ///
    /// # Errors
    /// As write(2) and fsync(2): whatever is about to be done must not be done.
    pub fn note(&mut self, domain: &str, rua: &str, state: State) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&line(domain, rua, state)?)?;
            file.sync_data()?;
        }
        let key = (domain.to_owned(), rua.to_owned());
        self.states.insert(key, state);
        Ok(())
    }
}

/// The line that says so.
///
/// # Errors
/// There is no memory.
pub fn line(domain: &str, rua: &str, state: State) -> io::Result<Vec<u8>> {
    let entry = Entry {
        domain: domain.to_owned(),
        rua: rua.to_owned(),
        state,
    };
    let mut line = serde_json::to_vec(&entry)?;
    line.push(b'\n');
    Ok(line)
}

/// The last state of each report: what a line says that is not read is sent twice. A
/// line that is none was not written whole: what it notes did not begin, or has begun
/// all the same.
///
/// # Errors
/// The input's.
pub fn states(input: impl BufRead) -> io::Result<BTreeMap<Key, State>> {
    let mut states = BTreeMap::new();
    journal::lines(input, |line| {
        if let Some(Ok(entry)) = line.map(serde_json::from_slice::<Entry>) {
            states.insert((entry.domain, entry.rua), entry.state);
        }
    })?;
    Ok(states)
}
