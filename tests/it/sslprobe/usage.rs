//! Command lines, exit codes, and one line a destination whatever comes of it.
#![forbid(unsafe_code)]

use super::{command, has, list, objects, probe, result};
use crate::harness::ports::Closed;
use crate::harness::run;

#[test]
fn junk_on_the_command_line_is_refused() {
    for words in [
        &[][..],
        &["-c", "0", "a"],
        &["-c", "x", "a"],
        &["-r", "0", "a"],
        &["-i", "-1", "a"],
        &["-t", "-1", "a"],
        &["-T", "x", "a"],
        &["-y", "gopher", "a"],
        &["-p", "0", "a"],
        &["-X", "a"],
        &["a:99999"],
        &["[::1"],
        &[""],
        &["-"],
    ] {
        let ended = probe(words);
        assert_eq!(ended.code, Some(100), "{words:?}: {ended:?}");
        assert!(
            ended.stdout.is_empty() && ended.stderr.contains("usage"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_missing_file_is_an_error_before_anything_is_probed() {
    for (letter, file) in [
        ("-P", "/nowhere/tlsdestinations"),
        ("-a", "/nowhere/ca.pem"),
    ] {
        let ended = probe(&[letter, file, "127.0.0.1:9"]);
        assert_eq!(ended.code, Some(111), "{ended:?}");
        assert!(
            ended.stderr.contains("/nowhere/") && ended.stdout.is_empty(),
            "{ended:?}"
        );
    }
}

#[test]
fn a_dns_server_that_is_none_is_told_once() {
    let run_with = |destinations: &[&str]| {
        let mut command = command(&["-j"]);
        command.args(destinations).env("DNSCACHEIP", "junk");
        run(&mut command, b"")
    };
    let ended = run_with(&["a.example", "b.example", "127.0.0.1:9"]);
    assert_eq!(ended.code, Some(111), "{ended:?}");
    let said = "sslprobe: fatal: DNSCACHEIP is not an IP address\n";
    assert_eq!((&*ended.stderr, &*ended.stdout), (said, &b""[..]));
    // Where nothing is looked up it is no matter.
    let closed = Closed::new();
    let ended = run_with(&[&closed.at.to_string()]);
    assert_eq!(objects(&ended).len(), 1, "{ended:?}");
}

#[test]
fn a_closed_port_and_an_unknown_name_are_one_line_each() {
    let closed = Closed::new();
    let at = closed.at.to_string();
    let (found, code) = result(&[&at]);
    assert_eq!(code, 111);
    assert_eq!(found["listens"], false);
    assert!(
        found["error"].as_str().expect("why").contains("refused"),
        "{found}"
    );
    assert_eq!(found["versions"], serde_json::Value::Null);
    assert!(has(&found, "unreachable"));
    let mut command = command(&["-j", "no-such-host.invalid:4433", &at]);
    let ended = run(&mut command, b"");
    let all = objects(&ended);
    assert_eq!((all.len(), ended.code), (2, Some(111)), "{ended:?}");
    let unknown = all.iter().find(|one| one["host"] == "no-such-host.invalid");
    let unknown = unknown.expect("listed");
    assert_eq!(unknown["listens"], false);
    assert!(!unknown["error"].as_str().expect("why").is_empty());
    assert_eq!(unknown["connections"], 0);
}

#[test]
fn blank_lines_of_standard_input_do_not_count() {
    let closed = Closed::new();
    let port = closed.at.port();
    let input = format!("\n127.0.0.1:{port}\n  \n\t[::1]:{port}\r\n");
    let ended = run(&mut command(&["-j", "-"]), input.as_bytes());
    let hosts = objects(&ended);
    let mut hosts: Vec<_> = hosts
        .iter()
        .map(|one| one["host"].as_str().expect("host"))
        .collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["127.0.0.1", "::1"], "{ended:?}");
    let ended = run(&mut command(&["-j", "-"]), b"fine:25\nuser@example:25\n");
    assert_eq!(ended.code, Some(100));
    assert!(ended.stderr.contains("line 2"), "{}", ended.stderr);
}

#[test]
fn families_are_a_line_each_where_both_are_wanted() {
    let closed = Closed::new();
    let at = closed.at.to_string();
    let ended = probe(&["-j", "-4", "-6", &at]);
    let all = objects(&ended);
    assert_eq!(all.len(), 2, "{ended:?}");
    let (found, _) = result(&["-6", &at]);
    assert!(
        found["error"]
            .as_str()
            .expect("why")
            .contains("no IP address"),
        "{found}"
    );
    assert!(list(&found["certificates"]).is_empty());
}
