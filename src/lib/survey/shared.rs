//! Keys and certificates that more than one host shows.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::text;

/// One thing that hosts share.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Its SHA-256, lowercase hex.
    pub sha256: String,
    /// The hosts, in order.
    pub hosts: Vec<String>,
}

/// Who shows what. A host counts once, on however many ports it shows it.
#[derive(Default)]
pub struct Sharing {
    hosts: HashMap<String, u32>,
    shown: BTreeMap<[u8; 32], Vec<u32>>,
}

impl Sharing {
    /// Notes that a host shows what has this SHA-256, in hex. What is none is
    /// ignored.
    pub fn add(&mut self, sha256: &str, host: &str) {
        let Some(digest) = digest(sha256) else { return };
        let next = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let host = match self.hosts.get(host) {
            Some(number) => *number,
            None => *self.hosts.entry(host.to_owned()).or_insert(next),
        };
        let hosts = self.shown.entry(digest).or_default();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }

    /// What is shared, by the most hosts first.
    #[must_use]
    pub fn finish(self) -> Vec<Shared> {
        let mut names = vec![String::new(); self.hosts.len()];
        for (name, number) in self.hosts {
            names[number as usize] = name;
        }
        let shared = self.shown.into_iter().filter(|(_, hosts)| hosts.len() > 1);
        let mut shared: Vec<Shared> = shared
            .map(|(digest, hosts)| {
                let mut hosts: Vec<String> = hosts
                    .iter()
                    .map(|host| names[*host as usize].clone())
                    .collect();
                hosts.sort();
                Shared {
                    sha256: text::hex(&digest),
                    hosts,
                }
            })
            .collect();
        shared.sort_by_key(|one| std::cmp::Reverse(one.hosts.len()));
        shared
    }
}

/// 64 hex digits as bytes.
fn digest(hex: &str) -> Option<[u8; 32]> {
    text::bytes(hex)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_shares_nothing_with_itself() {
        let (one, two) = ("ab".repeat(32), "cd".repeat(32));
        let mut sharing = Sharing::default();
        for (sha256, host) in [
            (&one, "b.example"),
            (&one, "b.example"),
            (&two, "b.example"),
            (&one, "a.example"),
            (&"xy".repeat(32), "a.example"),
        ] {
            sharing.add(sha256, host);
        }
        let shared = sharing.finish();
        assert_eq!(
            shared,
            [Shared {
                sha256: one,
                hosts: vec!["a.example".to_owned(), "b.example".to_owned()],
            }]
        );
    }
}
