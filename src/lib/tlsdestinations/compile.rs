//! tlsdestinations as records of a cdb: for each key the lines that have it, in
//! order, each as `NUMBER:VALUE` with a line feed.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;

use super::Value;
use super::line::{self, Wrong};
use crate::text;

/// A line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub wrong: Wrong,
    shown: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadLine { line, wrong, shown } = self;
        write!(out, "line {line} \"{shown}\": {wrong}")
    }
}

/// A record's key and data.
pub type Record = (Vec<u8>, Vec<u8>);

/// The records of a text, in the order of their keys' first lines.
///
/// # Errors
/// Every line that is wrong.
pub fn compile(text: &[u8]) -> Result<Vec<Record>, Vec<BadLine>> {
    let mut records: Vec<Record> = Vec::new();
    let mut places = HashMap::new();
    let mut wrong = Vec::new();
    for line in line::lines(text) {
        let sound = line.key().and_then(|key| {
            let value = line.value?;
            Value::parse(value, key.form)?;
            Ok((key.to_string().into_bytes(), value))
        });
        let (key, value) = match sound {
            Ok(sound) => sound,
            Err(why) => {
                wrong.push(BadLine {
                    line: line.number,
                    wrong: why,
                    shown: text::excerpt(line.written, 200),
                });
                continue;
            }
        };
        let entry = format!("{}:{value}\n", line.number);
        let place = *places.entry(key.clone()).or_insert(records.len());
        if place == records.len() {
            records.push((key, Vec::new()));
        }
        records[place].1.extend_from_slice(entry.as_bytes());
    }
    if wrong.is_empty() {
        Ok(records)
    } else {
        Err(wrong)
    }
}

/// The lines of a record. Where it is not of this form, that is an error for
/// whom it decides.
pub(super) fn entries(data: &[u8]) -> impl Iterator<Item = (usize, Result<&str, Wrong>)> {
    let body = data.strip_suffix(b"\n").unwrap_or(data);
    body.split(|&byte| byte == b'\n').map(|entry| {
        let parsed = std::str::from_utf8(entry).ok().and_then(|entry| {
            let (number, value) = entry.split_once(':')?;
            Some((number.parse().ok()?, value))
        });
        match parsed {
            Some((number, value)) => (number, Ok(value)),
            None => (0, Err(Wrong::Damaged)),
        }
    })
}
