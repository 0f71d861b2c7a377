//! Mail to Postfix and Exim over TLS, and through a proxy that takes STARTTLS
//! out of the replies.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::daemons::Exim;
use crate::dns::Names;
use crate::fake::{Fake, unstuffed};
use crate::harness::dial::Noise;
use crate::harness::{Identity, KeyKind, Leaf, Place, eventually, need_root, peer, skip};
use crate::postfix::Postfix;
use crate::remote::{MESSAGE, Remote, fresh_ip};

fn mx() -> Identity {
    Leaf::new("mx").dns("mx.test").dns("relay.test").issue()
}

/// What a mail transport puts before a message is not the message.
fn body(mail: &[u8]) -> &[u8] {
    let at = mail.windows(9).position(|window| window == b"X-Begin: ");
    &mail[at.expect("our header")..]
}

/// Every byte that mail may carry, dots and long lines.
fn hard_message(size: usize) -> Vec<u8> {
    let mut message = b"X-Begin: 1\nFrom: a@sender.example\nTo: b@postfix.test\n\
        Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <1@sender.example>\nSubject: hard\n\n\
        .\n..\n.a\n\n"
        .to_vec();
    message.extend((1..=255_u8).filter(|byte| !b"\r\n".contains(byte)));
    message.extend_from_slice(b"\n");
    message.extend_from_slice(&[b'x'; 990]);
    message.extend_from_slice(b"\n");
    let mut noise = Noise::new(7);
    while message.len() < size {
        let mut line = noise.bytes(70);
        for byte in &mut line {
            *byte = if *byte % 4 == 0 {
                b'.'
            } else {
                *byte | 0x40 & 0x7f
            };
            if matches!(*byte, b'\r' | b'\n' | 0) {
                *byte = b'.';
            }
        }
        message.extend_from_slice(&line);
        message.push(b'\n');
    }
    message.extend_from_slice(b"the end\n");
    message
}

#[test]
fn mail_arrives_at_postfix_over_starttls_and_smtps() {
    need_root!();
    let place = Place::new("remote-postfix");
    let Some(postfix) = Postfix::start(&place, &mx()) else {
        skip!("postfix is not installed");
    };
    let zone = format!("postfix IN MX 10 mx\nmx IN A {}", postfix.ip);
    let Some(names) = Names::serve(&place, &zone) else {
        skip!("nsd is not installed");
    };
    let message = hard_message(100_000);
    let words = ["postfix.test", "a@sender.example", "b@postfix.test"];
    for (count, policy, verdict) in [
        (1, "=mx.test:CA\n", "verified mx.test"),
        (2, "~postfix.test:CA\n", "verified mx.test"),
        (3, "=mx.test:CA||;465\n", "verified mx.test"),
        (4, "-.test:\n", "unverified"),
        (5, "", "unverified"),
    ] {
        let remote = Remote::new(&place).dns(names.ip).policy(policy);
        let parts = remote.parts(&words, &message);
        let begin = format!(
            "K{} accepted message (TLSv1.3 TLS_AES_256_GCM_SHA384 {verdict}).\nRemote host said: 250 2.0.0 Ok: queued as ",
            postfix.ip
        );
        assert_eq!(parts[0], "r", "{parts:?}");
        assert!(parts[1].starts_with(&begin), "{policy}: {parts:?}");
        for mail in postfix.mail(count) {
            let text = String::from_utf8_lossy(&mail);
            assert!(text.contains("using TLSv1.3 with cipher"), "{text}");
            assert!(body(&mail) == message, "the bytes differ");
        }
    }
    let remote = Remote::new(&place)
        .dns(names.ip)
        .policy("=postfix.test:CA\n");
    let said = remote.send("postfix.test");
    assert!(
        said.starts_with("ZConnected to "),
        "the key is not in it: {said}"
    );
    assert!(
        said.contains("names another host") && said.contains("(#4.7.5)"),
        "{said}"
    );
}

#[test]
fn mail_arrives_at_exim_over_starttls_and_smtps() {
    need_root!();
    let message = hard_message(20_000_000);
    let recipients: Vec<String> = (0..100).map(|n| format!("b{n}@far.example")).collect();
    let mut words = vec!["far.example", "a@sender.example"];
    words.extend(recipients.iter().map(String::as_str));
    for (options, sign) in [(&[][..], ""), (&["-tls-on-connect"], "s")] {
        let place = Place::new("remote-exim");
        let Some(exim) = Exim::start(&place, &mx(), options) else {
            skip!("exim4 is not installed");
        };
        let Some(names) = Names::serve(&place, "relay IN A 127.0.0.1") else {
            skip!("nsd is not installed");
        };
        let remote = Remote::new(&place)
            .dns(names.ip)
            .control("smtproutes", ":relay.test\n")
            .policy(&format!("=relay.test:CA||;{sign}{}\n", exim.at.port()));
        let parts = remote.parts(&words, &message);
        assert_eq!(parts.len(), 101, "{:?}", parts.last());
        assert!(parts[..100].iter().all(|part| part == "r"), "{parts:?}");
        let said = "K127.0.0.1 accepted message (TLSv1.3 TLS_AES_256_GCM_SHA384 verified relay.test).\n\
                    Remote host said: 250 OK id=";
        assert!(parts[100].starts_with(said), "{}", parts[100]);
        let mail = place.path("mail");
        let arrived = eventually("the mail is there", || {
            let file = fs::read_dir(&mail).ok()?.flatten().next()?;
            let bytes = fs::read(file.path()).ok()?;
            bytes.ends_with(b"the end\n").then_some(bytes)
        });
        assert!(body(&arrived) == message, "the bytes differ");
        let log = exim.log();
        let line = log.lines().find(|line| line.contains(" <= ")).unwrap();
        assert!(line.contains(" X=TLS1.3:"), "{line}");
    }
}

/// Passes everything on but the line that offers STARTTLS.
fn stripping_proxy(at: SocketAddr, to: SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(to).unwrap();
            let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
            let (mut server, mut client) = (server, client);
            thread::spawn(move || {
                let mut piece = [0; 8192];
                while let Ok(count) = server.read(&mut piece) {
                    if count == 0 {
                        break;
                    }
                    let text = String::from_utf8_lossy(&piece[..count]).into_owned();
                    let text = text.replace("250-STARTTLS\r\n", "");
                    if client.write_all(text.as_bytes()).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
}

#[test]
fn a_stripped_offer_defers_what_requires_tls() {
    need_root!();
    let place = Place::new("remote-stripped");
    let Some(postfix) = Postfix::start(&place, &mx()) else {
        skip!("postfix is not installed");
    };
    let proxy = fresh_ip();
    stripping_proxy(SocketAddr::new(proxy, 25), SocketAddr::new(postfix.ip, 25));
    let zone = format!("postfix IN MX 10 mx\nmx IN A {proxy}");
    let Some(names) = Names::serve(&place, &zone) else {
        skip!("nsd is not installed");
    };
    let remote = Remote::new(&place).dns(names.ip);
    for policy in [
        "=mx.test:CA\n",
        "~postfix.test:CA\n",
        "postfix.test:\n",
        "-*:\n",
        "%mx.test:=0123456789abcdef0123456789abcdef01234567\n",
    ] {
        let said = remote_with(&place, names.ip, policy).send("postfix.test");
        assert!(said.starts_with(&format!("ZConnected to {proxy} (mx.test) but it does not offer STARTTLS; tlsdestinations line 1 requires TLS. (#4.7.5)\nRemote host said: 250-mx.test\n")), "{said}");
    }
    assert!(
        !postfix.log().contains("from=<"),
        "nothing was sent: {}",
        postfix.log()
    );
    // The same way is open to those who do not require it.
    let said = remote.policy("*:\n").send("postfix.test");
    assert!(
        said.starts_with(&format!(
            "K{proxy} accepted message (no TLS: it was not offered).\n"
        )),
        "{said}"
    );
    assert_eq!(postfix.mail(1).len(), 1);
}

fn remote_with<'a>(place: &'a Place, dns: IpAddr, policy: &str) -> Remote<'a> {
    Remote::new(place).dns(dns).policy(policy)
}

#[test]
fn a_message_is_the_same_at_the_other_end() {
    let place = Place::new("remote-bytes");
    let context = peer::context(&mx(), |_| ());
    for fake in [Fake::plain(), Fake::tls(context)] {
        let running = fake.listen("127.0.0.1:0".parse().unwrap());
        let route = format!(":[127.0.0.1]:{}\n", running.at.port());
        let remote = Remote::new(&place).control("smtproutes", &route);
        let mut message = hard_message(300_000);
        message.extend(std::iter::repeat_n(b'.', 100_000));
        message.push(b'\n');
        let parts = remote.parts(&["x.example", "", "b@x.example"], &message);
        assert!(parts[1].starts_with("K127.0.0.1"), "{parts:?}");
        let seen = running.only();
        let text: Vec<u8> = unstuffed(seen.message.as_ref().unwrap());
        let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
        assert!(
            text == String::from_utf8_lossy(&message),
            "the bytes differ"
        );
        let mail = seen
            .commands
            .iter()
            .find(|line| line.contains("MAIL"))
            .unwrap();
        assert!(mail.contains("MAIL FROM:<>"), "{mail}");
        let size = seen.message.as_ref().unwrap().len();
        if !seen.tls {
            assert_eq!(*mail, format!("MAIL FROM:<> SIZE={size} BODY=8BITMIME"));
        }
    }
}
