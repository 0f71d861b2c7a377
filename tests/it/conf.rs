//! What sslserver-conf refuses, and that nothing of it is left: what it makes is
//! served in `services`.
#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, Output};

use crate::harness::{Place, need_root, ours};

fn conf(words: &[&str]) -> Output {
    Command::new(ours("sslserver-conf"))
        .args(words)
        .output()
        .unwrap()
}

/// Fails unless these words end with this code and one line with this part.
fn refused(words: &[&str], code: i32, part: &str) {
    let ended = conf(words);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(code), "{words:?}: {said}");
    assert!(
        said.contains(part) && said.lines().count() == 1,
        "{words:?}: {said}"
    );
}

fn listed(path: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_unit_is_written_once() {
    let place = Place::new("conf-unit");
    let unit = place.text("pop3s");
    let words = ["-S", "root", "root", &unit, "995", "popa3d"];
    assert!(conf(&words).status.success());
    let exists = "pop3s.service: it exists, and nothing is overwritten";
    for port in ["995", "993"] {
        refused(&["-S", "root", "root", &unit, port, "popa3d"], 111, exists);
    }
    assert_eq!(listed(&unit), ["pop3s.service"]);
    // In a directory of units.
    let units = place.text("");
    assert!(
        conf(&["-S", "root", "root", &units, "995", "popa3d"])
            .status
            .success()
    );
    refused(
        &["-S", "root", "root", &units, "995", "popa3d"],
        111,
        "sslserver-995.service: it exists, and nothing is overwritten",
    );
    place.write("file", "");
    let file = place.text("file");
    refused(
        &["-S", "root", "root", &file, "995", "popa3d"],
        111,
        "file: it exists",
    );
    assert_eq!(listed(&units), ["file", "pop3s", "sslserver-995.service"]);
}

#[test]
fn a_directory_that_could_not_serve_is_refused() {
    need_root!();
    let place = Place::new("conf-refused");
    for letter in ["-d", "-r", "-s", "-S"] {
        let refused = |dir: &str, code, part: &str| {
            refused(&[letter, "root", "root", dir, "995", "popa3d"], code, part);
        };
        refused(
            &place.text("../conf-refused/a"),
            100,
            "dir has \"..\" in it, which",
        );
        let lost = place.text("lost");
        let why = format!("unable to create {lost}/a: {lost}: no such file or directory");
        refused(&format!("{lost}/a"), 111, &why);
        let file = place.write("file", "");
        let why = format!("unable to create {file}/a: {file}: not a directory");
        refused(&format!("{file}/a"), 111, &why);
        fs::remove_file(file).unwrap();
    }
    let unit = place.text("pop3s.service");
    refused(
        &["-S", "root", "root", &unit, "995", "popa3d"],
        100,
        "is where the unit goes: give ",
    );
    let dir = place.text("a");
    refused(&["root", "root", &dir, "995", ""], 100, "prog is empty");
    refused(
        &["root", "root", &dir, "-4", "995", "x"],
        100,
        "\"-4\" is out of place",
    );
    refused(
        &["root", "root", &dir, "70000", "x"],
        100,
        "\"70000\" is no port",
    );
    assert!(listed(&place.text("")).is_empty());
}
