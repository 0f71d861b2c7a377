//! `sslclient -y`: what the program sees, and every way in which a server can
//! misbehave before TLS.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use openssl::ssl::Ssl;

use crate::harness::daemons::{Dovecot, Exim};
use crate::harness::{
    Client, Finished, Identity, KeyKind, Leaf, Peer, Place, need_root, peer, skip, skip_part,
};

/// Says `greeting`, then answers each line that comes with the next part. With
/// `tls`, the last answer is followed by a handshake, and then `inside` is sent.
fn server(greeting: &str, answers: &[&str], inside: Option<&str>) -> Peer<Result<String, String>> {
    let greeting = greeting.to_owned();
    let answers: Vec<String> = answers.iter().map(|&text| text.to_owned()).collect();
    let inside = inside.map(str::to_owned);
    let context = peer::context(&Identity::localhost(KeyKind::P256), |_| ());
    Peer::plain(move |stream| {
        let mut heard = String::new();
        (&stream).write_all(greeting.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        for answer in answers {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                return Err(heard);
            }
            heard.push_str(&line);
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
        assert!(lines.buffer().is_empty(), "nothing behind the command");
        let Some(inside) = inside else {
            // All that still comes: a client that goes on would be seen.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = lines.read_to_string(&mut heard);
            return Err(heard);
        };
        let mut tls = Ssl::new(&context)
            .unwrap()
            .accept(stream)
            .map_err(|error| format!("{heard}{error}"))?;
        tls.write_all(inside.as_bytes()).unwrap();
        let mut rest = String::new();
        let _ = tls.read_to_string(&mut rest);
        let _ = tls.shutdown();
        Ok(heard + &rest)
    })
}

const SCRIPT: &str = "echo inside >&7; exec 7>&-; cat <&6";

/// Runs `sslclient -y protocol` against it.
fn ask(place: &Place, protocol: &str, port: u16) -> Finished {
    Client::new(place)
        .options("-y")
        .option(protocol)
        .script("localhost", port, SCRIPT)
}

#[test]
fn the_program_sees_the_greeting_and_then_what_is_inside() {
    let place = Place::new("upgrade");
    for (protocol, greeting, answers, inside, seen) in [
        (
            "smtp",
            "220-mx\r\n220 ready\r\n",
            &["250-mx\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", "220 go\r\n"][..],
            "250 x\r\n",
            "220-mx\r\n220 ready\r\n250 x\r\n",
        ),
        (
            "lmtp",
            "220 l\r\n",
            &["250-l\r\n250 STARTTLS\r\n", "220 go\r\n"],
            "250 y\r\n",
            "220 l\r\n250 y\r\n",
        ),
        (
            "pop3",
            "+OK hi\r\n",
            &["+OK\r\nSTLS\r\n.\r\n", "+OK go\r\n"],
            "+OK z\r\n",
            "+OK hi\r\n+OK z\r\n",
        ),
        (
            "imap",
            "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hi\r\n",
            &["* CAPABILITY STARTTLS\r\na1 OK x\r\n", "a2 OK go\r\n"],
            "b OK z\r\n",
            "* OK hi\r\nb OK z\r\n",
        ),
        (
            "sieve",
            "\"SASL\" \"\"\r\n\"STARTTLS\"\r\nOK\r\n",
            &["OK go\r\n"],
            "\"SASL\" \"PLAIN\"\r\nOK\r\n",
            "\"SASL\" \"PLAIN\"\r\nOK\r\n",
        ),
    ] {
        let peer = server(greeting, answers, Some(inside));
        let ended = ask(&place, protocol, peer.at.port());
        assert_eq!(ended.text(), seen, "{protocol}: {}", ended.stderr);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let heard = peer.join().unwrap();
        assert!(heard.ends_with("inside\n"), "{heard}");
        assert_eq!(heard.matches("inside").count(), 1, "only inside TLS");
    }
}

#[test]
fn ehlo_has_the_local_name_or_the_address() {
    let place = Place::new("hello-name");
    let heard = |name: &str| {
        let peer = server(
            "220 x\r\n",
            &["250-x\r\n250 STARTTLS\r\n", "220\r\n"],
            Some(""),
        );
        let ended = Client::new(&place)
            .options("-y smtp -l")
            .option(name)
            .script("localhost", peer.at.port(), SCRIPT);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        peer.join().unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(heard("me.example"), "EHLO me.example");
    assert_eq!(heard("0"), "EHLO [127.0.0.1]");
    assert_eq!(heard("a b\r\nc"), "EHLO [127.0.0.1]", "no second command");
}

#[test]
fn no_program_runs_where_there_is_no_upgrade() {
    let place = Place::new("no-upgrade");
    for (protocol, greeting, answers, said) in [
        ("smtp", "554 go away\r\n", &[][..], "554 go away"),
        ("smtp", "421 busy\r\n", &[], "421 busy"),
        (
            "smtp",
            "220 x\r\n",
            &["502 no\r\n"],
            "does not offer STARTTLS: 502 no",
        ),
        (
            "smtp",
            "220 x\r\n",
            &["250-STARTTLS\r\n250 HELP\r\n"],
            "does not offer STARTTLS",
        ),
        (
            "smtp",
            "220 x\r\n",
            &["250-x\r\n250 XXXXXXXA\r\n"],
            "250 XXXXXXXA",
        ),
        (
            "smtp",
            "220 x\r\n",
            &["250-x\r\n250 STARTTLS\r\n", "454 4.7.0 no\x1b[2J\r\n"],
            "server refused STARTTLS: 454 4.7.0 no\\x1B[2J",
        ),
        (
            "smtp",
            "220 x\r\n",
            &["250-x\r\n250 STARTTLS\r\n", "500 what\r\n"],
            "server refused STARTTLS: 500 what",
        ),
        (
            "smtp",
            "220 x\r\n",
            &["250-x\r\n250 STARTTLS\r\n", "220 go\r\n250 injected\r\n"],
            "in the clear that were not asked for: 220 go",
        ),
        (
            "lmtp",
            "220 x\r\n",
            &["250 x\r\n"],
            "does not offer STARTTLS",
        ),
        ("pop3", "-ERR busy\r\n", &[], "-ERR busy"),
        (
            "pop3",
            "+OK\r\n",
            &["+OK\r\nUIDL\r\n.\r\n"],
            "does not offer STLS",
        ),
        (
            "pop3",
            "+OK\r\n",
            &["+OK\r\nSTLS\r\n.\r\n", "-ERR no\r\n"],
            "refused STLS: -ERR no",
        ),
        (
            "pop3",
            "+OK\r\n",
            &["+OK\r\nSTLS\r\n.\r\n", "+OK go\r\n+OK injected\r\n"],
            "not asked for: +OK go",
        ),
        ("imap", "* PREAUTH hi\r\n", &[], "PREAUTH"),
        (
            "imap",
            "* OK\r\n",
            &["* CAPABILITY IMAP4\r\na1 OK\r\n"],
            "does not offer STARTTLS",
        ),
        (
            "imap",
            "* OK\r\n",
            &[
                "* CAPABILITY STARTTLS\r\na1 OK\r\n",
                "a2 OK\r\n* CAPABILITY AUTH=PLAIN\r\n",
            ],
            "not asked for: a2 OK",
        ),
        (
            "imap",
            "* OK\r\na1 OK early\r\n",
            &[],
            "not asked for: a1 OK early",
        ),
        (
            "sieve",
            "\"SIEVE\"\r\nOK\r\n",
            &[],
            "does not offer STARTTLS",
        ),
        (
            "sieve",
            "\"STARTTLS\"\r\nOK\r\n",
            &["NO \"x\"\r\n"],
            "refused STARTTLS: NO \"x\"",
        ),
        ("smtp", "", &[], "ended the connection before its greeting"),
        ("smtp", "\0\0\0\r\n", &[], "malformed: \\x00\\x00\\x00"),
    ] {
        let peer = server(greeting, answers, None);
        let ended = ask(&place, protocol, peer.at.port());
        ended.failed(111, said);
        assert!(
            ended
                .stderr
                .starts_with("sslclient: fatal: unable to start TLS with ST")
        );
        assert!(ended.stdout.is_empty());
        let heard = peer.join().unwrap_err();
        assert!(!heard.contains("inside"), "{heard}");
    }
}

/// Speaks SMTP until the client may start TLS.
fn up_to_go_ahead(mut stream: &TcpStream) -> BufReader<TcpStream> {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    stream.write_all(b"220 x\r\n").unwrap();
    lines.read_line(&mut line).unwrap();
    stream.write_all(b"250-x\r\n250 STARTTLS\r\n").unwrap();
    lines.read_line(&mut line).unwrap();
    stream.write_all(b"220 go\r\n").unwrap();
    lines
}

#[test]
fn bytes_that_come_late_are_no_handshake() {
    let place = Place::new("late-bytes");
    let peer: Peer<bool> = Peer::plain(|stream| {
        let mut lines = up_to_go_ahead(&stream);
        // The client's hello has begun: what comes now is behind the go-ahead.
        let mut hello = [0; 1];
        lines.read_exact(&mut hello).unwrap();
        (&stream).write_all(b"250-x\r\n250 AUTH PLAIN\r\n").unwrap();
        let mut rest = Vec::new();
        let _ = lines.read_to_end(&mut rest);
        hello[0] == 22
    });
    let ended = ask(&place, "smtp", peer.at.port());
    ended.failed(111, "not TLS: server sent \"250-x");
    assert!(ended.stdout.is_empty());
    assert!(peer.join());
}

#[test]
fn a_server_of_another_name_gets_nothing_after_its_go_ahead() {
    let place = Place::new("upgrade-name");
    let context = peer::context(&Leaf::new("x").dns("other.example").issue(), |_| ());
    let peer: Peer<String> = Peer::plain(move |stream| {
        up_to_go_ahead(&stream);
        let handshake = Ssl::new(&context).unwrap().accept(stream);
        match handshake {
            // TLS 1.3: the server may be done before it is refused.
            Ok(mut tls) => {
                let mut rest = String::new();
                let _ = tls.read_to_string(&mut rest);
                rest
            }
            Err(_) => String::new(),
        }
    });
    let ended = ask(&place, "smtp", peer.at.port());
    ended.failed(111, "server name does not match certificate");
    assert_eq!(peer.join(), "");
}

#[test]
fn silence_and_drips_end_with_the_deadline() {
    let place = Place::new("upgrade-silence");
    let run = |serve: fn(TcpStream) -> ()| {
        let peer = Peer::plain(serve);
        let ended = Client::new(&place).options("-T 1+1 -y smtp").script(
            "localhost",
            peer.at.port(),
            SCRIPT,
        );
        peer.join();
        ended
    };
    let wait = |mut stream: TcpStream| {
        let _ = stream.read_to_end(&mut Vec::new());
    };
    run(wait).failed(111, "timed out before its greeting");
    let ended = run(|mut stream| {
        stream.write_all(b"220 x\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    ended.failed(111, "timed out after EHLO");
    let ended = run(|mut stream| {
        stream.write_all(b"220 x\r\n").unwrap();
        // One byte at a time, for ever: only the client can end this.
        while stream.write_all(b"2").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    assert_eq!(ended.code, Some(111), "{}", ended.stderr);
    let ended = run(|mut stream| {
        stream.write_all(b"220 x\r\n").unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(ended.code, Some(111), "{}", ended.stderr);
    let ended = run(|mut stream| {
        stream.write_all(b"220 x\r\n").unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        while stream.write_all(b"250-x\r\n").is_ok() {}
    });
    ended.failed(111, "server's reply after EHLO is too long");
}

#[test]
fn an_unknown_protocol_is_wrong_usage() {
    let place = Place::new("upgrade-usage");
    ask(&place, "nntp", 1).failed(100, "\"nntp\" is not one of smtp, lmtp, pop3, imap, sieve");
}

#[test]
fn exim_upgrades() {
    need_root!();
    let place = Place::new("upgrade-exim");
    let Some(exim) = Exim::start(&place, &Identity::localhost(KeyKind::P256), &[]) else {
        skip!("exim4 is not installed");
    };
    let script = "read greeting <&6; printf '%s\\n' \"$greeting\"; printf 'EHLO me\\r\\n' >&7; \
                  while read line <&6; do echo \"$line\"; case $line in 250\\ *) break;; esac; done; \
                  printf 'QUIT\\r\\n' >&7; cat <&6";
    let ended = Client::new(&place)
        .options("-y smtp")
        .script("localhost", exim.at.port(), script);
    let text = ended.text();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(text.starts_with("220 mx.test ESMTP Exim"), "{text}");
    assert!(
        text.contains("250-SIZE") && text.contains("\n221 "),
        "{text}"
    );
    assert!(!text.contains("STARTTLS"), "inside TLS: {text}");
}

#[test]
fn dovecot_upgrades_in_four_protocols() {
    need_root!();
    let place = Place::new("upgrade-dovecot");
    let Some(dovecot) = Dovecot::start(&place, &Identity::localhost(KeyKind::P256)) else {
        skip!("dovecot is not installed");
    };
    for (protocol, port, command, begins, holds) in [
        (
            "imap",
            dovecot.imap,
            "a CAPABILITY\\r\\nb LOGOUT",
            "* OK the greeting",
            "AUTH=PLAIN",
        ),
        (
            "pop3",
            dovecot.pop3,
            "CAPA\\r\\nQUIT",
            "+OK the greeting",
            "USER",
        ),
        (
            "sieve",
            dovecot.sieve,
            "LOGOUT",
            "\"IMPLEMENTATION\"",
            "\"SASL\" \"PLAIN\"",
        ),
        (
            "lmtp",
            dovecot.lmtp,
            "LHLO me\\r\\nQUIT",
            "220 ",
            "PIPELINING",
        ),
    ] {
        if port == 0 {
            skip_part!("dovecot has no {protocol} here");
            continue;
        }
        let script = format!("printf '{command}\\r\\n' >&7; cat <&6");
        let ended =
            Client::new(&place)
                .options("-y")
                .option(protocol)
                .script("localhost", port, &script);
        let text = ended.text();
        assert_eq!(ended.code, Some(0), "{protocol}: {}", ended.stderr);
        assert!(text.starts_with(begins), "{protocol}: {text}");
        assert!(text.contains(holds), "{protocol}: {text}");
        assert!(
            !text.to_uppercase().contains("STARTTLS") && !text.contains("STLS"),
            "{protocol}: {text}"
        );
    }
}
