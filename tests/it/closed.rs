//! Programs of ours that are started with descriptor 0 or 1 closed: what was never
//! given is no empty text, and what nobody can read was not written.
#![forbid(unsafe_code)]

use std::fs;
use std::process::Command;

use crate::harness::{Finished, Place, compile, need_root, ours, run};

/// A run of a program with a descriptor closed, as a shell does it.
fn without(number: u8, program: &str, words: &[&str]) -> Finished {
    let mut command = Command::new("sh");
    let script = format!("exec \"$@\" {number}>&-");
    command.args(["-c", &script, "sh", &ours(program)]);
    command.args(words);
    run(&mut command, b"")
}

#[test]
fn no_input_is_no_empty_input() {
    let place = Place::new("closed-input");
    let cdb = compile(&place, "rules.cdb", "1.:deny\n");
    let before = fs::read(&cdb).unwrap();
    let temporary = place.text("rules.tmp");
    for (program, words, step) in [
        ("sslrules", &[&*cdb, &*temporary][..], "read input"),
        ("sslrules", &["-t", &cdb, &temporary], "read input"),
        ("sslprobe", &["-"], "read standard input"),
        ("sslsurvey", &[], "read standard input"),
    ] {
        let why = format!("{program}: fatal: unable to {step}: descriptor 0 is closed");
        without(0, program, words).failed(111, &why);
    }
    assert!(fs::read(&cdb).unwrap() == before, "the old rules stay");
    assert!(!fs::exists(&temporary).unwrap());
}

#[test]
fn output_that_nobody_gets_is_a_failure() {
    let place = Place::new("closed-output");
    let cdb = compile(&place, "rules.cdb", "1.:deny\n");
    let why = "sslrulescheck: fatal: unable to write output: descriptor 1 is closed";
    without(1, "sslrulescheck", &[&cdb]).failed(111, why);
    let list = place.write("tlsdestinations", "*:\n");
    let words = ["-W", "-P", &list, "mail.example", "25"];
    let why = "sslclient: fatal: unable to write output: descriptor 1 is closed";
    without(1, "sslclient", &words).failed(111, why);
}

/// A delivery of mail that is not there, or whose report nobody gets, is none.
#[test]
fn a_delivery_needs_its_message_and_its_report() {
    need_root!();
    let place = Place::new("closed-delivery");
    fs::create_dir(place.path("control")).unwrap();
    place.write("control/me", "mail.example\n");
    let words = ["example.invalid", "a@b.example", "c@example.invalid"];
    let home = place.text("");
    let deliver = |number: u8| {
        let mut command = Command::new("env");
        command.arg(format!("QMAILHOME={home}")).arg("sh");
        let script = format!("exec \"$@\" {number}>&-");
        command.args(["-c", &script, "sh", &ours("qmail-sslremote")]);
        run(command.args(words), b"Subject: x\n\nx\n")
    };
    let ended = deliver(0);
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stdout, b"ZUnable to read message. (#4.3.0)\n\0");
    assert_eq!(deliver(1).code, Some(111));
}
