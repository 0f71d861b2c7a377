//! What the command line and the descriptors must be, and programs that cannot run.
#![forbid(unsafe_code)]

use crate::harness::process::with_own_descriptors;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::process::Stdio;
use ucspi_tls::internals::fd;

use super::played::{ANOTHERS, GO, OURS};

use crate::harness::ours;

#[test]
fn wrong_usage_is_100_and_no_server_is_111() {
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = Command::new(ours("starttls-handoff"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for arguments in [
        &[][..],
        &["smtp"],
        &["http", "/bin/true"],
        &["-J", "smtp", "/bin/true"],
        &["-t", "0", "smtp", "/bin/true"],
        &["-t", "1x", "smtp", "/bin/true"],
        &["-l"],
    ] {
        let (code, text) = run(arguments, &[]);
        assert_eq!(code, 100, "{arguments:?}");
        assert!(
            text.starts_with("starttls-handoff: usage: ")
                && text.contains("; starttls-handoff [ -qQva ]"),
            "{text}"
        );
    }
    let (code, text) = run(&["smtp", "/bin/true"], &[]);
    assert_eq!(code, 111);
    assert_eq!(
        text,
        "starttls-handoff: fatal: no UCSPI-TLS server above: SSLCTLFD is not set\n"
    );
    let (code, text) = run(&["-q", "smtp", "/bin/true"], &[]);
    assert_eq!((code, text.as_str()), (111, ""));
    // Without TLS no server is needed.
    let (code, _) = run(&["smtp", "/bin/sh", "-c", "exit 9"], &[("UCSPITLS", "-")]);
    assert_eq!(code, 9);
    let (code, text) = run(&["-v", "smtp", "/no/such"], &[("UCSPITLS", "-")]);
    // Why comes before the end.
    let (why, end) = text.split_once('\n').unwrap();
    assert!(end.ends_with(" without TLS, status 111\n"), "{end}");
    assert_eq!(code, 111);
    assert_eq!(
        why,
        "starttls-handoff: fatal: unable to run /no/such: no such file or directory"
    );
}

#[test]
fn a_descriptor_that_is_no_socket_is_refused_with_the_cure() {
    for (number, redirection) in [(0, "</dev/null"), (1, "| cat")] {
        let script = format!("{} smtp /bin/cat {redirection}", ours("starttls-handoff"));
        let (ours, control) = fd::stream_pair().unwrap();
        let output = with_own_descriptors(|| {
            fd::set_close_on_exec(&control, false).unwrap();
            let number = control.as_raw_fd().to_string();
            Command::new("/bin/sh")
                .args(["-c", &script])
                .envs(["SSLCTLFD", "SSLREADFD", "SSLWRITEFD"].map(|name| (name, &number)))
                .stdin(Stdio::from(ours.try_clone().unwrap()))
                .stdout(Stdio::from(ours))
                .output()
                .unwrap()
        });
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            text,
            format!(
                "starttls-handoff: fatal: descriptor {number} is not the client's socket: a \
                 program such as recordio or fixcrio belongs behind starttls-handoff, not \
                 before it\n"
            )
        );
        if number == 0 {
            assert_eq!(output.status.code(), Some(111));
        }
    }
}

#[test]
fn a_program_that_cannot_run_is_111_before_and_after_tls() {
    let mut session = OURS.start(&[], &["-v", "smtp", "/no/such"]);
    session.expect("421 4.3.0 mx.test has no service now\r\n");
    let ended = session.finish();
    assert_eq!(ended.status.code(), Some(111));
    assert!(
        ended
            .log
            .contains("from 192.0.2.7 without TLS, status 111\n"),
        "{}",
        ended.log
    );
    let why = ended
        .log
        .find("fatal: unable to run /no/such: no such file");
    let end = ended.log.find("starttls-handoff: end ");
    assert!(why.is_some() && why < end, "{}", ended.log);
    for server in [OURS, ANOTHERS] {
        let mut session = server.start(&[("UCSPITLS", "!")], &["smtp", "/no/such"]);
        session.expect("220 mx.test ESMTP\r\n");
        session.start_tls("STARTTLS\r\n", GO);
        let ended = session.finish();
        assert_eq!(ended.status.code(), Some(111));
        assert!(
            ended.log.contains("unable to run /no/such: no such file"),
            "{}",
            ended.log
        );
    }
}
