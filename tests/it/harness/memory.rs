//! The memory of a process, searched for what must not be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;

use openssl::pkey::{Id, PKey, Private};

use super::eventually;
use super::process::process;

/// Byte strings to look for, each with its name.
#[derive(Default)]
pub struct Needles {
    all: Vec<(String, Vec<u8>)>,
    /// By the first two bytes.
    by_start: BTreeMap<[u8; 2], Vec<usize>>,
}

impl Needles {
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        self.by_start
            .entry([bytes[0], bytes[1]])
            .or_default()
            .push(self.all.len());
        self.all.push((name.to_owned(), bytes.to_vec()));
    }

    /// A number in both byte orders: whole, and three windows of each.
    pub fn number(&mut self, name: &str, bytes: &[u8]) {
        let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
        for (order, bytes) in [("big", bytes), ("little", &*reversed)] {
            self.add(&format!("{name}, {order} end first"), bytes);
            for at in [0, (bytes.len() - 16) / 2, bytes.len() - 16] {
                let part = &bytes[at..at + 16];
                self.add(&format!("{name}, {order} end first, from {at}"), part);
            }
        }
    }

    /// All that is secret of a key.
    pub fn secrets(key: &PKey<Private>) -> Needles {
        let mut needles = Needles::default();
        match key.id() {
            Id::RSA => {
                let rsa = key.rsa().unwrap();
                for (name, number) in [
                    ("d", Some(rsa.d())),
                    ("p", rsa.p()),
                    ("q", rsa.q()),
                    ("dp", rsa.dmp1()),
                    ("dq", rsa.dmq1()),
                    ("qinv", rsa.iqmp()),
                ] {
                    needles.number(name, &number.unwrap().to_vec());
                }
            }
            Id::EC => {
                let key = key.ec_key().unwrap();
                needles.number("the scalar", &key.private_key().to_vec());
            }
            _ => needles.number("the seed", &key.raw_private_key().unwrap()),
        }
        let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        for line in pem.lines().filter(|line| !line.starts_with('-')) {
            // The start of the first line is the algorithm's name, which every
            // key of the kind has.
            let end = &line[line.len() / 2..];
            if end.len() >= 12 {
                needles.add("a line of PEM", end.as_bytes());
            }
        }
        needles
    }

    /// The names of those that a process has in its memory.
    pub fn found_in(&self, pid: i32) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let longest = self.all.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
        let mut known = vec![false; 1 << 16];
        for [one, two] in self.by_start.keys() {
            known[usize::from(*one) << 8 | usize::from(*two)] = true;
        }
        each_chunk(pid, longest, "r", |bytes| {
            // A plain loop: without optimisation an iterator takes ten times as
            // long, and this is where these tests spend their time.
            let mut offset = 0;
            while offset + 1 < bytes.len() {
                let (one, two) = (bytes[offset], bytes[offset + 1]);
                if known[(one as usize) << 8 | two as usize] {
                    for &at in &self.by_start[&[one, two]] {
                        let (name, wanted) = &self.all[at];
                        if bytes[offset..].starts_with(wanted) {
                            found.insert(name.clone());
                        }
                    }
                }
                offset += 1;
            }
        });
        found
    }
}

/// The byte strings of this length that stand behind `mark` in what a process can
/// write.
pub fn behind(pid: i32, mark: &[u8], length: usize) -> BTreeSet<Vec<u8>> {
    let whole = mark.len() + length;
    let mut found = BTreeSet::new();
    each_chunk(pid, whole, "rw", |bytes| {
        // A plain loop, as above.
        let mut at = 0;
        while at + whole <= bytes.len() {
            if bytes[at] == mark[0] && bytes[at..].starts_with(mark) {
                found.insert(bytes[at + mark.len()..at + whole].to_vec());
            }
            at += 1;
        }
    });
    found
}

/// Reads the memory of a process that has these permissions, in pieces that begin
/// with the last `overlap` bytes of the one before.
fn each_chunk(pid: i32, overlap: usize, permissions: &str, mut look: impl FnMut(&[u8])) {
    const CHUNK: usize = 1 << 20;
    // A process that is just ending has no memory; any other must let us in.
    let ends = || {
        eventually(&format!("{pid} can be read, or ends"), || {
            process(pid)
                .is_none_or(|one| one.state == 'Z')
                .then_some(())
        });
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else {
        return ends();
    };
    let mut read = 0;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        if !rest.starts_with(permissions) || line.ends_with("[vvar]") || line.contains("[vvar_") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (
            u64::from_str_radix(start, 16).unwrap(),
            u64::from_str_radix(end, 16).unwrap(),
        );
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap().min(CHUNK + overlap);
            let mut bytes = vec![0; length];
            if memory.read_exact_at(&mut bytes, at).is_err() {
                break;
            }
            read += length;
            look(&bytes);
            at += CHUNK as u64;
        }
    }
    if read <= 1 << 17 {
        ends();
    }
}
