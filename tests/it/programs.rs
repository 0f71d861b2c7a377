//! Real programs of other people's behind sslserver: what they ask of their
//! descriptors, and whom they believe.
#![forbid(unsafe_code)]

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use crate::harness::{Place, Setup, need, run};

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn rsync_serves_its_client_and_listens_nowhere() {
    let (rsync, openssl) = (need!("rsync"), need!("openssl"));
    let place = Place::new("rsync");
    place.write("letter", "the letter");
    // With a pipe for descriptor 0 it would put itself into the background and
    // listen here, in the clear.
    let port = free_port();
    let config = place.write(
        "rsyncd.conf",
        format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\n\
             pid file = {0}\nlog file = {1}\n[files]\npath = {2}\n",
            place.text("pid"),
            place.text("rsync.log"),
            place.path(".").display()
        ),
    );
    let daemon = [rsync.to_str().unwrap(), "--daemon", "--config", &config];
    let server = Setup::new(&place, &daemon).options("-v").start();
    let reach = format!(
        "{} s_client -quiet -verify_quiet -connect {}",
        openssl.display(),
        server.at
    );
    let done = run(
        Command::new(&rsync)
            .args(["rsync://localhost/files/letter", &place.text("copy")])
            .env("RSYNC_CONNECT_PROG", reach),
        b"",
    );
    assert_eq!(done.code, Some(0), "{}{}", done.stderr, server.log());
    assert_eq!(place.read("copy"), b"the letter");
    assert!(
        server.line("end ").ends_with("status 0"),
        "{}",
        server.log()
    );
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!place.path("pid").exists(), "no daemon of its own");
    server.quiet();
}
