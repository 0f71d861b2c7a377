//! domainips: the address and the name under which a sender's mail leaves.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::{IpAddr, TcpListener};
use std::thread;

use super::dns::Names;
use super::fake::Fake;
use super::remote::{MESSAGE, Remote, fresh_ip};
use crate::harness::{Place, need, need_root};

/// Greets one client with a refusal, and says from where it came.
fn caller(listener: TcpListener) -> thread::JoinHandle<IpAddr> {
    thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        let _ = stream.write_all(b"554 no\r\n");
        from.ip()
    })
}

#[test]
fn mail_leaves_from_the_address_of_its_senders_domain() {
    let place = Place::new("remote-origin");
    for (lines, wanted) in [
        ("sender.example:127.0.0.9\n*:127.0.0.8\n", "127.0.0.9"),
        (".example:127.0.0.9%lo\n*:127.0.0.8\n", "127.0.0.9"),
        ("other.example:127.0.0.9\n*:::1,127.0.0.8\n", "127.0.0.8"),
        ("other.example:127.0.0.9\n", "127.0.0.1"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = format!(":[127.0.0.1]:{}\n", listener.local_addr().unwrap().port());
        let from = caller(listener);
        let remote = Remote::new(&place)
            .control("smtproutes", &route)
            .control("domainips", lines);
        let report = remote.send("far.example");
        assert!(report.starts_with("ZConnected to 127.0.0.1"), "{report}");
        assert_eq!(from.join().unwrap().to_string(), wanted, "{lines}");
    }
}

#[test]
fn the_name_for_ehlo_may_come_with_it() {
    let place = Place::new("remote-origin-name");
    let running = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    let remote = Remote::new(&place).control("smtproutes", &route).control(
        "domainips",
        "sender.example:127.0.0.9|mail.sender.example\n",
    );
    assert!(remote.send("far.example").starts_with('K'));
    let words = ["far.example", "a@other.example", "b@far.example"];
    let parts = remote.parts(&words, MESSAGE.as_bytes());
    assert!(parts[1].starts_with('K'), "{parts:?}");
    let names: Vec<String> = running
        .seen()
        .iter()
        .map(|seen| seen.commands[0].clone())
        .collect();
    assert_eq!(names, ["EHLO mail.sender.example", "EHLO me.example"]);
}

#[test]
fn an_address_that_cannot_be_used_defers() {
    let place = Place::new("remote-origin-bad");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!(":[127.0.0.1]:{}\n", listener.local_addr().unwrap().port());
    for (line, report) in [
        (
            "*:::1\n",
            "ZUnable to read control files. (#4.3.0)\nReason: no server has an address of the \
             family that domainips line 1 gives\n",
        ),
        (
            "\nsender.example:192.0.2.400\n",
            "ZUnable to read control files. (#4.3.0)\nReason: domainips line 2 is wrong: it names \
             no IP address\n",
        ),
        (
            "sender.example:192.0.2.1\n",
            "ZCan't bind to local ip address: 192.0.2.1. (#4.3.0)\nReason: domainips line 1 asks \
             for it\n",
        ),
    ] {
        let remote = Remote::new(&place)
            .control("smtproutes", &route)
            .control("domainips", line);
        assert_eq!(remote.send("far.example"), report);
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody called");
}

#[test]
fn servers_of_the_other_family_are_passed_over() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-origin-family");
    let ip = fresh_ip();
    let zone = format!("relay IN AAAA ::1\nrelay IN A {ip}");
    let names = Names::serve(&place, &zone);
    let running = Fake::plain().at(ip);
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("smtproutes", ":relay.test\n")
        .control("domainips", "*:127.0.0.9\n");
    let report = remote.send("far.example");
    assert!(report.starts_with(&format!("K{ip} accepted")), "{report}");
    assert_eq!(running.messages(), 1);
}
