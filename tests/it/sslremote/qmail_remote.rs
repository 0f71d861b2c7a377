//! The reports of notqmail's qmail-remote over scripted servers, which ours has to
//! repeat byte for byte, but for what it adds: the word on TLS, and reasons.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use super::fake::Fake;
use super::remote::Remote;
use crate::harness::Place;
use crate::harness::process::run_within;

/// A paragraph of the file, which says itself what its lines are.
#[derive(Default)]
struct Case {
    name: String,
    says: Vec<(&'static str, String)>,
    words: Vec<Vec<u8>>,
    message: Vec<u8>,
    report: Vec<u8>,
}

fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    let digits = std::str::from_utf8(&digits).unwrap().to_owned();
                    u8::from_str_radix(&digits, 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    out
}

fn cases(text: &'static str) -> Vec<Case> {
    let paragraphs = text.split("\n\n").filter(|one| one.starts_with("case "));
    let read = |paragraph: &'static str| {
        let mut case = Case::default();
        for line in paragraph.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "case" => value.clone_into(&mut case.name),
                "says" => {
                    let (verb, reply) = value.split_once(" => ").unwrap_or((value, ""));
                    let reply = String::from_utf8_lossy(&bytes(reply)).into_owned();
                    case.says.push((verb, reply));
                }
                "words" if value.is_empty() => {}
                "words" => case.words = value.split(" | ").map(bytes).collect(),
                "message" => case.message = bytes(value),
                // Where it is there, the one behind it counts.
                "report" | "ours" => case.report = bytes(value),
                "because" => {}
                other => panic!("{other}"),
            }
        }
        case
    };
    paragraphs.map(read).collect()
}

/// Without what ours adds.
fn bare(report: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(report).into_owned();
    let text = text.replace(" (no TLS: it was not offered)", "");
    let lines = text.split_inclusive('\n');
    let lines: String = lines.filter(|line| !line.starts_with("Reason: ")).collect();
    lines.into_bytes()
}

#[test]
fn reports_are_those_of_qmail_remote() {
    let place = Place::new("remote-qmail-remote");
    let all = cases(include_str!("qmail_remote.txt"));
    assert!(all.len() > 90, "{}", all.len());
    for case in all {
        let mut fake = Fake::plain().offers("250 fake\r\n");
        for (verb, reply) in &case.says {
            match *verb {
                "GREETING" => fake.greeting.clone_from(reply),
                verb => fake = fake.reply(verb, reply),
            }
        }
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        let route = format!(":[127.0.0.1]:{}\n", running.at.port());
        let remote = Remote::new(&place).control("smtproutes", &route);
        let mut command = remote.command(&[]);
        command.args(case.words.iter().map(|word| OsStr::from_bytes(word)));
        let ended = run_within(&mut command, &case.message, Duration::from_secs(60));
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            shown(&bare(&ended.stdout)),
            shown(&case.report),
            "{}",
            case.name
        );
    }
}
