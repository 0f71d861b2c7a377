//! The log of a run, read when it is over: which process served whom, and what
//! was said of each client.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A whole log.
pub struct Journal {
    /// By process number, in the order of the log: numbers come again.
    clients: BTreeMap<i32, Vec<Ipv4Addr>>,
    /// Processes that the log tells no good end of.
    ended_badly: BTreeSet<i32>,
    /// Whom a line says something bad of.
    explained: BTreeMap<Ipv4Addr, String>,
}

impl Journal {
    pub fn read(log: &str) -> Journal {
        let mut journal = Journal {
            clients: BTreeMap::new(),
            ended_badly: BTreeSet::new(),
            explained: BTreeMap::new(),
        };
        for line in log.lines() {
            journal.take(line);
        }
        journal
    }

    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["sslserver:", "pid", pid, "from", address] => {
                if let (Ok(pid), Ok(address)) = (pid.parse(), address.parse()) {
                    self.clients.entry(pid).or_default().push(address);
                }
            }
            ["sslserver:", "end", pid, "status", status] => {
                if let (Ok(pid), true) = (pid.parse(), status != "0") {
                    self.ended_badly.insert(pid);
                    if let Some(address) = self.clients_of(pid).last().copied() {
                        self.explain(address, line);
                    }
                }
            }
            ["sslserver:", "status:" | "ok" | "deny" | "tls", ..] => {}
            _ => {
                if let Some(address) = address_in(&words).or_else(|| self.client_in(&words)) {
                    self.explain(address, line);
                }
            }
        }
    }

    /// Whether a process of this number ended in another way than it should.
    pub fn ended_badly(&self, pid: i32) -> bool {
        self.ended_badly.contains(&pid)
    }

    /// Whom processes of this number served.
    pub fn clients_of(&self, pid: i32) -> &[Ipv4Addr] {
        self.clients.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// Whether any connection of a client's began.
    pub fn knows(&self, client: Ipv4Addr) -> bool {
        self.clients.values().flatten().any(|one| *one == client)
    }

    /// The client of the process that a line names.
    fn client_in(&self, words: &[&str]) -> Option<Ipv4Addr> {
        let at = words.iter().position(|&word| word == "pid")?;
        let pid = words.get(at + 1)?.trim_end_matches(':').parse().ok()?;
        self.clients_of(pid).last().copied()
    }

    fn explain(&mut self, client: Ipv4Addr, line: &str) {
        let all = self.explained.entry(client).or_default();
        all.push_str(line);
        all.push('\n');
    }

    /// The lines that say something bad of a client.
    pub fn explanation(&self, client: Ipv4Addr) -> Option<&str> {
        self.explained.get(&client).map(String::as_str)
    }
}

/// The address of a client that a line names.
fn address_in(words: &[&str]) -> Option<Ipv4Addr> {
    let mut all = words.iter().filter_map(|word| {
        let word = word.trim_end_matches([':', ',', ';', ')']);
        word.parse().ok()
    });
    all.next()
}
