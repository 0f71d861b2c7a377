//! QMTP and QMTPS: to mailfront's server, and to one that breaks the rules; and
//! what tlsdestinations makes of them.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::remote::{MESSAGE, Remote, fresh_ip};
use crate::harness::dial::{Noise, linger_zero};
use crate::harness::process::PATIENCE;
use crate::harness::{Authority, Leaf, Place, Setup, need, need_root};

/// A queue that keeps message and envelope as they come.
fn queue(place: &Place) -> Vec<(&'static str, String)> {
    let script = format!(
        "#!/bin/sh\ncat > {home}/message && cat <&1 > {home}/envelope\n",
        home = place.text("")
    );
    let script = place.write("queue", script);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    vec![
        ("QMAILQUEUE", script),
        ("QMAILHOME", place.text("")),
        ("RELAYCLIENT", String::new()),
    ]
}

/// mailfront's server in plain.
fn plain_server(place: &Place, binary: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let env = queue(place);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let fd = OwnedFd::from(stream);
            let output = fd.try_clone().unwrap();
            let child = Command::new(&binary)
                .envs(env.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::from(fd))
                .stdout(Stdio::from(output))
                .stderr(Stdio::null())
                .spawn();
            thread::spawn(move || child.map(|mut child| child.wait()));
        }
    });
    at
}

/// Bytes of all values in lines of all lengths. mailfront's own line of
/// Received stands before it.
fn hard_message(size: usize) -> Vec<u8> {
    let mut message = b"X-Begin: 1\n\n.\n..\n.a\r\nbare\rcr\n\n".to_vec();
    message.extend(Noise::new(5).bytes(size));
    message.extend_from_slice(b"\nthe end\n");
    message
}

fn arrived(place: &Place) -> (Vec<u8>, Vec<u8>) {
    let message = place.read("message");
    let at = message.windows(9).position(|window| window == b"X-Begin: ");
    let message = message[at.expect("our header")..].to_vec();
    let envelope = place.read("envelope");
    for file in ["message", "envelope"] {
        fs::remove_file(place.path(file)).unwrap();
    }
    (message, envelope)
}

#[test]
fn mail_arrives_at_mailfront_byte_by_byte() {
    let binary = need!("qmtpfront-qmail");
    let place = Place::new("remote-qmtp");
    let identity = Leaf::new("mx").address("127.0.0.1").issue();
    let plain = plain_server(&place, binary.clone());
    let mut setup = Setup::new(&place, &[binary.to_str().unwrap()]).identity(&identity);
    for (name, value) in queue(&place) {
        setup = setup.env(name, value);
    }
    let server = setup.start();
    let message = hard_message(500_000);
    // It answers once a package, whatever the number of recipients: so one.
    let words = ["far.example", "a@sender.example", "b c\"d@far.example"];
    let at_plain = format!(";{}", plain.port());
    for (port, policy, verdict) in [
        (
            at_plain.as_str(),
            String::new(),
            "no TLS: QMTP has none on this port",
        ),
        (&at_plain, "!*:\n".into(), "no TLS"),
        (
            "",
            format!("=[127.0.0.1]:CA||;s{}\n", server.port),
            "TLSv1.3 TLS_AES_256_GCM_SHA384 verified 127.0.0.1",
        ),
    ] {
        let remote = Remote::new(&place)
            .control("qmtproutes", &format!("far.example:[127.0.0.1]{port}\n"))
            .control("smtproutes", ":[127.0.0.1]:1\n")
            .policy(&policy);
        let parts = remote.parts(&words, &message);
        assert_eq!(parts[0], "r", "{policy}: {parts:?}");
        let begin = format!("K127.0.0.1 accepted message ({verdict}).\nRemote host said: 2.6.0 ");
        assert!(parts[1].starts_with(&begin), "{policy}: {parts:?}");
        let (bytes, envelope) = arrived(&place);
        assert!(bytes == message, "{policy}: the bytes differ");
        assert_eq!(
            String::from_utf8(envelope).unwrap(),
            "Fa@sender.example\0Tb c\"d@far.example\0\0"
        );
    }
    let route = format!("far.example:[127.0.0.1]{at_plain}\n");
    let remote = Remote::new(&place).control("qmtproutes", &route).policy("");
    let parts = remote.parts(&["far.example", "", "nobody"], MESSAGE.as_bytes());
    let said = "127.0.0.1 does not like recipient.\nRemote host said: 5.1.2 ";
    assert!(parts[0].starts_with(&format!("h{said}")), "{parts:?}");
    assert!(
        parts[1].starts_with("DGiving up on 127.0.0.1.\n"),
        "{parts:?}"
    );
}

#[test]
fn port_6209_means_qmtps_without_a_route_too() {
    let binary = need!("qmtpfront-qmail");
    let place = Place::new("remote-qmtps");
    let ip = fresh_ip();
    let identity = Leaf::new("mx").address(&ip.to_string()).issue();
    let mut setup = Setup::new(&place, &[binary.to_str().unwrap()])
        .identity(&identity)
        .host(&ip.to_string())
        .port(6209);
    for (name, value) in queue(&place) {
        setup = setup.env(name, value);
    }
    let _server = setup.start();
    let to = format!("[{ip}]");
    let verified = &*format!("(TLSv1.3 TLS_AES_256_GCM_SHA384 verified {ip}).");
    for (routes, policy, said) in [
        // The rule's port, the route's port, and the rule's demand alone.
        ("", format!("={to}:CA||;6209\n"), verified),
        (";6209", format!("={to}:CA\n"), verified),
        (
            ";6209",
            String::new(),
            "(TLSv1.3 TLS_AES_256_GCM_SHA384 unverified).",
        ),
        (":", format!("={to}:CA\n"), verified),
    ] {
        let routes = match routes {
            "" => String::new(),
            port => format!("far.example:{to}{}\n", port.trim_matches(':')),
        };
        let remote = Remote::new(&place)
            .control("qmtproutes", &routes)
            .policy(&policy);
        let host = if routes.is_empty() {
            &*to
        } else {
            "far.example"
        };
        let words = [host, "a@sender.example", "b@far.example"];
        let parts = remote.parts(&words, &hard_message(10));
        assert_eq!(parts[0], "r", "{routes}{policy}: {parts:?}");
        assert!(parts[1].contains(said), "{routes}{policy}: {parts:?}");
        assert!(arrived(&place).0 == hard_message(10));
    }
    // A check that fails: nothing arrives, and nothing bounces.
    for policy in [
        format!("%{to}:=0123456789abcdef0123456789abcdef01234567\n"),
        format!("={to}:/nonexistent\n"),
        format!("={to}:{}\n", place.text("server.pem")),
    ] {
        let other = Authority::root("another").pem();
        place.write("server.pem", other);
        let remote = Remote::new(&place)
            .control("qmtproutes", &format!("far.example:{to}\n"))
            .policy(&policy);
        let report = remote.send("far.example");
        assert!(
            report.starts_with('Z') && report.contains("(#4.7.5)"),
            "{policy}: {report}"
        );
        assert!(!place.path("message").exists(), "{policy}");
    }
}

/// Reads one package of [`MESSAGE`] and answers with these bytes; gives what it
/// read.
fn scripted(answer: &'static [u8]) -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let Some(package) = package(&mut stream) else {
                continue;
            };
            let _ = sender.send(package);
            let _ = stream.write_all(answer);
            if answer.is_empty() || answer.ends_with(b"?") {
                continue;
            }
            // Silence, until the client has had enough.
            let _ = stream.read(&mut [0]);
        }
    });
    (at, receiver)
}

#[test]
fn a_response_before_the_package_is_none() {
    let place = Place::new("remote-qmtp-early");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"9:Ktoo soon,").unwrap();
        let package = package(&mut stream);
        let _ = stream.write_all(b"7:Dreject,");
        package
    });
    // Long enough that its beginning is read before its end is sent.
    let message = [
        b"Subject: x\n\n".to_vec(),
        b"0123456789\n".repeat(2_000_000),
    ]
    .concat();
    let route = format!("far.example:[127.0.0.1];{}\n", at.port());
    let remote = Remote::new(&place).control("qmtproutes", &route).policy("");
    let parts = remote.parts(&["far.example", "a@b", "c@far.example"], &message);
    let said = "ZConnected to 127.0.0.1 but it does not talk QMTP. (#4.5.0)\nReason: server sent a \
                reply that was not asked for: 9:Ktoo soon,\n";
    assert_eq!(parts, [said]);
    assert!(server.join().unwrap().is_none());
}

/// Three netstrings; `None` where there is something else.
fn package(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..3 {
        let mut length = 0;
        let mut byte = [0];
        loop {
            stream.read_exact(&mut byte).ok()?;
            all.push(byte[0]);
            match byte[0] {
                b':' => break,
                digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
                _ => return None,
            }
        }
        let mut bytes = vec![0; length + 1];
        stream.read_exact(&mut bytes).ok()?;
        all.extend(bytes);
    }
    Some(all)
}

#[test]
fn responses_become_a_report() {
    let place = Place::new("remote-qmtp-responses");
    let no = "127.0.0.1 does not like recipient.\nRemote host said:";
    let taken =
        "K127.0.0.1 accepted message (no TLS: QMTP has none on this port).\nRemote host said:";
    let gone =
        "ZConnected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\nReason: ";
    let junk =
        "ZConnected to 127.0.0.1 but it does not talk QMTP. Possible duplicate! (#4.5.0)\nReason: ";
    let r = "r".to_owned();
    for (answer, reports, said) in [
        (
            &b"3:Kok,3:Kno,"[..],
            vec![r.clone(), r.clone()],
            format!("{taken} ok\n"),
        ),
        (
            b"2:Zx,3:K\0y,",
            vec![format!("s{no} x\n"), r.clone()],
            format!("{taken} \\x00y\n"),
        ),
        (
            b"2:Kx,2:Dy,",
            vec![r.clone(), format!("h{no} y\n")],
            format!("{taken} x\n"),
        ),
        (
            b"2:Zx,2:Dy,",
            vec![format!("s{no} x\n"), format!("h{no} y\n")],
            "DGiving up on 127.0.0.1.\nRemote host said: y\n".into(),
        ),
        // What was answered counts, the rest may have been taken.
        (
            b"",
            vec![],
            format!("{gone}server ended the connection after the message\n"),
        ),
        (
            b"2:Kx,1?",
            vec![r.clone()],
            format!("{junk}server's reply after the message is malformed: 1?\n"),
        ),
        (
            b"2:Kx,2:K",
            vec![r.clone()],
            format!("{gone}timed out after the message\n"),
        ),
        (
            b"220 smtp\r\n",
            vec![],
            format!("{junk}server's reply after the message is malformed: 220 \n"),
        ),
        (
            b"02:Kx,",
            vec![],
            format!("{junk}server's reply after the message is malformed: 02\n"),
        ),
        (
            b"2:Kx;",
            vec![],
            format!("{junk}server's reply after the message is malformed: Kx\n"),
        ),
        (
            b"2:Qx,",
            vec![],
            format!("{junk}server's reply after the message is malformed: Qx\n"),
        ),
        (
            b"99999999999",
            vec![],
            format!("{junk}server's reply after the message is too long\n"),
        ),
    ] {
        let (at, packages) = scripted(answer);
        let remote = Remote::new(&place)
            .control("timeoutremote", "3\n")
            .control("qmtproutes", &format!(":[127.0.0.1];{}\n", at.port()));
        let words = ["x.example", "a@b.example", "c d@x.example", "e@x.example"];
        let mut parts = remote.parts(&words, MESSAGE.as_bytes());
        let shown = String::from_utf8_lossy(answer);
        let last = parts.pop().unwrap();
        assert_eq!(parts, reports, "{shown}");
        assert!(last.starts_with(&said), "{shown}: {last}");
        let package = String::from_utf8(packages.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!(
            package,
            "23:\nSubject: test\n\nHello.\n,11:a@b.example,32:13:c d@x.example,11:e@x.example,,"
        );
        assert!(packages.try_recv().is_err(), "{shown}: sent twice");
    }
}

/// A server that sends these bytes again and again, for as long as somebody takes them,
/// once it has the package or at once.
fn endless(piece: &'static [u8], at_once: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if at_once {
                let mut input = stream.try_clone().unwrap();
                thread::spawn(move || io::copy(&mut input, &mut io::sink()));
            } else {
                let _ = package(&mut stream);
            }
            let pieces = piece.repeat(1000);
            while stream.write_all(&pieces).is_ok() {}
        }
    });
    at
}

/// Not one of them is waited for until the end of `timeoutremote`.
#[test]
fn a_server_that_never_stops_is_heard_to_the_end_of_a_response() {
    let place = Place::new("remote-qmtp-endless");
    let junk = "ZConnected to 127.0.0.1 but it does not talk QMTP. Possible duplicate! (#4.5.0)\n\
                Reason: server's reply after the message is";
    let early = "ZConnected to 127.0.0.1 but it does not talk QMTP. (#4.5.0)\nReason: server sent a \
                 reply that was not asked for: ";
    for (piece, at_once, said) in [
        (&b"9"[..], false, format!("{junk} too long\n")),
        (b"0", false, format!("{junk} malformed: 00\n")),
        (b"65536:", false, format!("{junk} malformed: ")),
        (b"2:Kx,", true, early.to_owned()),
    ] {
        let at = endless(piece, at_once);
        let route = format!(":[127.0.0.1];{}\n", at.port());
        let remote = Remote::new(&place).control("qmtproutes", &route).policy("");
        let words = ["x.example", "a@b.example", "c@x.example"];
        // So long that an early word is there before the end.
        let message = hard_message(if at_once { 20_000_000 } else { 10 });
        let parts = remote.parts(&words, &message);
        let shown = String::from_utf8_lossy(piece);
        assert_eq!(parts.len(), 1, "{shown}: {parts:?}");
        assert!(parts[0].starts_with(&said), "{shown}: {parts:?}");
    }
    // Sound responses without an end: one for each recipient counts.
    let at = endless(b"2:Kx,", false);
    let route = format!(":[127.0.0.1];{}\n", at.port());
    let remote = Remote::new(&place).control("qmtproutes", &route).policy("");
    let mut words = vec!["x.example", "a@b.example"];
    words.extend(["c@x.example"; 300]);
    let parts = remote.parts(&words, MESSAGE.as_bytes());
    assert_eq!(parts.len(), 301);
    assert!(parts[..300].iter().all(|part| part == "r"));
}

#[test]
fn a_cut_before_the_last_byte_is_no_duplicate() {
    let place = Place::new("remote-qmtp-cut");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read_exact(&mut [0; 1000]);
        linger_zero(&stream);
    });
    let remote = Remote::new(&place).control("qmtproutes", &format!(":[127.0.0.1];{port}\n"));
    let words = ["x.example", "a@b.example", "c@x.example"];
    let parts = remote.parts(&words, &hard_message(30_000_000));
    assert_eq!(parts.len(), 1, "{parts:?}");
    let said = "ZConnected to 127.0.0.1 but connection died. (#4.4.2)\nReason: connection lost in the message: ";
    assert!(parts[0].starts_with(said), "{parts:?}");
}

#[test]
fn what_requires_tls_is_never_sent_in_plain_qmtp() {
    let place = Place::new("remote-qmtp-policy");
    let (at, packages) = scripted(b"2:Kx,");
    let port = at.port();
    for (routes, policy, said) in [
        (
            format!("far.example:[127.0.0.1];{port}\n"),
            "=[127.0.0.1]:CA\n".to_owned(),
            format!(
                "tlsdestinations line 1 requires TLS, which QMTP on port {port} does not have. (#4.7.5)\n"
            ),
        ),
        (
            format!("far.example:[127.0.0.1];{port}\n"),
            "\n-*:\n".to_owned(),
            format!(
                "tlsdestinations line 2 requires TLS, which QMTP on port {port} does not have. (#4.7.5)\n"
            ),
        ),
        (
            "far.example:[127.0.0.1]\n".to_owned(),
            format!("[127.0.0.1]:;{port}\n"),
            format!(
                "tlsdestinations line 1 requires TLS, which QMTP on port {port} does not have. (#4.7.5)\n"
            ),
        ),
        // TLS at once, to a server that has none: nothing after it.
        (
            format!("far.example:[127.0.0.1];s{port}\n"),
            String::new(),
            "but the handshake failed: ".to_owned(),
        ),
        (
            "far.example:[127.0.0.1];6209\n".to_owned(),
            "![127.0.0.1]:\n".to_owned(),
            "QMTP on port 6209 is in TLS, which tlsdestinations line 1 forbids. (#4.7.5)\n"
                .to_owned(),
        ),
    ] {
        let remote = Remote::new(&place)
            .control("timeoutconnect", "2\n")
            .control("qmtproutes", &routes)
            .policy(&policy);
        let report = remote.send("far.example");
        assert!(report.starts_with('Z'), "{routes}{policy}: {report}");
        assert!(report.contains(&said), "{routes}{policy}: {report}");
        assert!(report.contains("(#4.7.5)\n"), "{routes}{policy}: {report}");
    }
    assert!(packages.try_recv().is_err(), "something was sent");
    let never = Place::new("remote-never-at-once");
    for port in ["465", "s4465"] {
        let remote = Remote::new(&never)
            .control("smtproutes", "far.example:[127.0.0.1]\n")
            .policy(&format!("!far.example:;{port}\n"));
        let report = remote.send("far.example");
        assert!(
            report.contains(
                "is in TLS from the start, which tlsdestinations line 1 forbids. (#4.7.5)"
            ),
            "{port}: {report}"
        );
    }
    let login = Place::new("remote-qmtp-login");
    let remote = Remote::new(&login)
        .control("authsenders", ":[127.0.0.1];6209|tim|tanstaaf\n")
        .policy("");
    assert_eq!(
        remote.send("far.example"),
        "ZRoute and policy contradict each other: authsenders line 1 has a login, but QMTP \
         on port 6209 takes none. (#4.7.5)\n"
    );
}

#[test]
fn the_ports_are_209_and_with_a_demand_6209() {
    need_root!();
    let place = Place::new("remote-qmtp-ports");
    let ip = fresh_ip();
    let listener = TcpListener::bind((ip, 209)).unwrap();
    let remote = Remote::new(&place).control("qmtproutes", &format!("far.example:[{ip}]\n"));
    let report = remote.policy("-*:\n").send("far.example");
    assert_eq!(
        report,
        format!(
            "ZSorry, I wasn't able to establish a QMTP connection. (#4.4.1)\nReason: {ip}:6209: \
             connection refused\n"
        )
    );
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody called port 209");
    listener.set_nonblocking(false).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let package = package(&mut stream).unwrap();
        stream.write_all(b"2:Kx,").unwrap();
        package
    });
    let remote = Remote::new(&place).policy("");
    assert!(remote.send("far.example").starts_with('K'));
    assert!(server.join().unwrap().starts_with(b"23:\nSubject: test\n"));
}
