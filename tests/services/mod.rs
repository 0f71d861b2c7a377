//! Services under the supervisors that people run: real daemontools, runit, s6 and
//! what can be had of systemd, on a machine that lasts as long as the test and
//! whose network reaches nobody else. Each test is a script of this directory.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{need, need_root, programs};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs scripts of this directory one after the other, in one shell that ends at
/// the first command that fails.
///
/// # Panics
///
/// When a command fails, with all that was said.
fn perform(name: &str, needs: &[&str], scripts: &[&str], words: &[&str]) {
    need_root!();
    for name in needs {
        need!(name);
    }
    let place = place(name);
    let here = Path::new(ROOT).join("tests/services");
    let mut session = format!(". /test/shell.sh\nset -- {}\n", words.join(" "));
    for script in ["lib.sh"].iter().chain(scripts) {
        fs::copy(here.join(script), place.join(script)).unwrap();
        session.extend([". /test/", script, "\n"]);
    }
    fs::write(place.join("session"), session).unwrap();
    let programs = programs::folder();
    let mut machine = Command::new("timeout");
    machine
        .args(["--signal=KILL", "300", "unshare"])
        .args(["-m", "-n", "-p", "-u", "-i", "-f", "--kill-child"])
        .args(["bash", "-e"])
        .arg(Path::new(ROOT).join("tests/guides/machine.sh"))
        .args([place.as_path(), &programs, Path::new(ROOT)])
        .process_group(0)
        .stdin(Stdio::null());
    let ended = machine.output().expect("unshare");
    let said = [ended.stdout, ended.stderr].concat();
    assert!(
        ended.status.success(),
        "{name}: {}\n{}",
        ended.status,
        String::from_utf8_lossy(&said)
    );
    let _ = fs::remove_dir_all(&place);
}

/// What the machine's shell is told, and keeps where a test fails.
fn place(name: &str) -> PathBuf {
    let name = format!("service-{name}-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn daemontools_runs_what_sslserver_conf_makes() {
    let needs = ["svscan", "multilog", "make", "openssl"];
    perform(
        "daemontools",
        &needs,
        &["daemontools.sh", "conf.sh"],
        &["-d"],
    );
}

#[test]
fn runit_runs_what_sslserver_conf_makes() {
    let needs = ["runsvdir", "svlogd", "make", "openssl"];
    perform("runit", &needs, &["runit.sh", "conf.sh"], &["-r"]);
}

#[test]
fn s6_runs_what_sslserver_conf_makes() {
    let needs = ["s6-svscan", "s6-log", "make", "openssl"];
    perform("s6", &needs, &["s6.sh", "conf.sh"], &["-s"]);
}

#[test]
fn systemd_finds_no_fault_with_units_and_hands_its_socket_over() {
    let needs = [
        "systemd-analyze",
        "systemd-socket-activate",
        "openssl",
        "popa3d",
    ];
    perform("systemd", &needs, &["systemd.sh"], &[]);
}

/// A test for each directory of examples/: its port, and the programs that it needs.
macro_rules! examples {
    ($($name:ident $directory:literal $port:literal $needs:expr;)*) => {
        $(#[test]
        fn $name() {
            let mut needs = vec!["svscan", "openssl", "nc", "smtpfront-qmail"];
            needs.extend::<&[&str]>(&$needs);
            perform($directory, &needs, &["examples.sh", "example.sh"], &[$directory, $port]);
        })*

        #[test]
        fn every_example_is_tested() {
            let tested = [$($directory,)* "haproxy", "systemd", "README.md"];
            for entry in fs::read_dir(Path::new(ROOT).join("examples")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(tested.contains(&&*name), "{name} is not tested");
            }
        }
    };
}

examples! {
    the_example_of_pop3s_with_popa3d "pop3s-popa3d" "995" ["popa3d"];
    the_example_of_pop3_with_popa3d "pop3-popa3d" "110" ["popa3d"];
    the_example_of_pop3s_with_checkpassword "pop3s-checkpassword" "995" [];
    the_example_of_pop3_with_checkpassword "pop3-checkpassword" "110" [];
    the_example_of_smtp_with_qmail "smtp-qmail" "25" [];
    the_example_of_smtp_with_mailfront "smtp-mailfront" "25" [];
    the_example_of_submission "submission" "587" [];
    the_example_of_smtps "smtps" "465" [];
    the_example_of_imap "imap" "143" ["imap4d"];
    the_example_of_https "https" "443" ["busybox"];
    the_example_of_dns_over_tls "dns" "853" ["axfrdns", "tinydns-data", "dig"];
}

#[test]
fn a_server_behind_haproxy_is_restarted_without_a_lost_connection() {
    let needs = ["svscan", "haproxy", "popa3d", "smtpfront-qmail", "openssl"];
    perform("haproxy", &needs, &["examples.sh", "haproxy.sh"], &[]);
}
