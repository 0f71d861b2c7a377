//! sslprobe, from its command line to its JSON: what it finds of servers of many
//! kinds, and how it behaves towards them.
#![forbid(unsafe_code)]

use std::process::Command;

use serde_json::Value;

use crate::harness::{Finished, ours, run};

mod bad;
mod confinement;
mod dialogue;
#[cfg(validator)]
mod domain;
mod line;
mod manners;
mod real;
mod server;
mod terminal;
mod tls;
mod usage;

/// A run of sslprobe without pauses.
pub fn probe(words: &[&str]) -> Finished {
    run(&mut command(words), b"")
}

/// The command of such a run, with time enough for a server on a busy machine.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(ours("sslprobe"));
    command.args(["-i", "0", "-r", "1000", "-l", "probe.example"]);
    command.args(["-t", "60", "-T", "600"]);
    command.args(words).env_remove("DNSCACHEIP");
    command
}

/// The JSON objects of a run.
pub fn objects(ended: &Finished) -> Vec<Value> {
    let text = String::from_utf8(ended.stdout.clone()).expect("UTF-8");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The one object of a run under `-j`, and its exit code.
pub fn result(words: &[&str]) -> (Value, i32) {
    let ended = probe(&[&["-j"], words].concat());
    let mut all = objects(&ended);
    assert_eq!(all.len(), 1, "{ended:?}");
    (all.remove(0), ended.code.expect("no signal"))
}

/// The codes of a result's findings, with their weight.
pub fn findings(result: &Value) -> Vec<(String, String)> {
    let word = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    let all = result["findings"].as_array().expect("a list").iter();
    all.map(|one| (word(one, "code"), word(one, "severity")))
        .collect()
}

/// Whether a result has a finding.
pub fn has(result: &Value, code: &str) -> bool {
    findings(result).iter().any(|(own, _)| own == code)
}

/// The text of a finding.
pub fn text(result: &Value, code: &str) -> String {
    let all = result["findings"].as_array().expect("a list");
    let one = all.iter().find(|one| one["code"] == code);
    let one = one.unwrap_or_else(|| panic!("no {code} in {result:#}"));
    one["text"].as_str().expect("a text").to_owned()
}

/// A list of texts.
pub fn list(value: &Value) -> Vec<&str> {
    let all = value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"));
    all.iter()
        .map(|one| one.as_str().expect("a text"))
        .collect()
}
