//! Mail to Postfix and Exim over TLS, and through a proxy that takes STARTTLS
//! out of the replies.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::dns::Names;
use super::fake::{Fake, unstuffed};
use super::postfix::Postfix;
use super::remote::{MESSAGE, Remote, fresh_ip};
use crate::harness::daemons::Exim;
use crate::harness::dial::Noise;
use crate::harness::{Identity, Leaf, Place, eventually, need, need_root, peer, skip};

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
    need!("nsd");
    let place = Place::new("remote-postfix");
    let Some(postfix) = Postfix::start(&place, &mx()) else {
        skip!("postfix is neither installed nor unpacked");
    };
    let zone = format!("postfix IN MX 10 mx\nmx IN A {}", postfix.ip);
    let names = Names::serve(&place, &zone);
    let message = hard_message(100_000);
    let words = ["postfix.test", "a@sender.example", "b@postfix.test"];
    for (count, policy, verdict) in [
        (1, "=mx.test:CA\n", "verified mx.test (name from DNS)"),
        (2, "~postfix.test:CA\n", "verified mx.test"),
        (3, "=mx.test:CA||;465\n", "verified mx.test (name from DNS)"),
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
    need!("nsd");
    let message = hard_message(20_000_000);
    let recipients: Vec<String> = (0..100).map(|n| format!("b{n}@far.example")).collect();
    let mut words = vec!["far.example", "a@sender.example"];
    words.extend(recipients.iter().map(String::as_str));
    for (options, sign) in [(&[][..], ""), (&["-tls-on-connect"], "s")] {
        let place = Place::new("remote-exim");
        let Some(exim) = Exim::start(&place, &mx(), options) else {
            skip!("exim4 is not installed");
        };
        let names = Names::serve(&place, "relay IN A 127.0.0.1");
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
    need!("nsd");
    let place = Place::new("remote-stripped");
    let Some(postfix) = Postfix::start(&place, &mx()) else {
        skip!("postfix is neither installed nor unpacked");
    };
    let proxy = fresh_ip();
    stripping_proxy(SocketAddr::new(proxy, 25), SocketAddr::new(postfix.ip, 25));
    let zone = format!("postfix IN MX 10 mx\nmx IN A {proxy}");
    let names = Names::serve(&place, &zone);
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

#[test]
fn exim_that_demands_a_certificate_of_ours() {
    need_root!();
    let place = Place::new("remote-exim-demands");
    let identity = Leaf::new("mx").address("127.0.0.1").issue();
    let Some(exim) = Exim::start(&place, &identity, &[]) else {
        skip!("exim4 is not installed");
    };
    let config = place.path("exim.conf");
    let text = fs::read_to_string(&config).unwrap();
    let demanding = text.replace("tls_try_verify_hosts", "tls_verify_hosts");
    assert_ne!(text, demanding);
    fs::write(&config, demanding).unwrap();
    let own = |name: &str, identity: &Identity| {
        place.write(name, [identity.chain_pem(), identity.key_pem()].concat());
        format!("*:{}\n", place.text(name))
    };
    let known = own("known.pem", &Leaf::new("us").issue());
    let unknown = own("unknown.pem", &Leaf::new("us").self_signed());
    let send = |certificate: &str, policy: &str| {
        let remote = Remote::new(&place)
            .control("smtproutes", &format!(":[127.0.0.1]:{}\n", exim.at.port()))
            .control("domaincerts", certificate)
            .policy(policy);
        remote.send("far.example")
    };
    // Its alert may be read before its end, or be behind a reset.
    for certificate in ["", &unknown] {
        let report = send(certificate, "=[127.0.0.1]:CA\n");
        let said =
            "ZConnected to 127.0.0.1 ([127.0.0.1]) but the handshake failed: received alert ";
        assert!(report.starts_with(said), "{report}");
        let said = "; tlsdestinations line 1 requires TLS. (#4.7.5)\n";
        assert!(report.contains(said), "{report}");
        let report = send(certificate, "*:\n");
        let said = "K127.0.0.1 accepted message (no TLS, which failed: the handshake failed: received alert ";
        assert!(report.starts_with(said), "{report}");
    }
    let report = send(&known, "=[127.0.0.1]:CA\n");
    assert!(
        report.starts_with("K127.0.0.1 accepted message (TLSv1.3"),
        "{report}"
    );
    eventually("the mail is there", || {
        let count = fs::read_dir(place.path("mail")).unwrap().count();
        (count == 3).then_some(())
    });
}

#[test]
fn postfix_that_insists_on_tls_and_cannot_read_its_key_gets_the_mail_later() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-postfix-insists");
    // As in a renewal that has put the certificate there, and not yet the key.
    let lines = "smtpd_tls_security_level = encrypt\nsmtpd_tls_key_file = /nonexistent/key.pem";
    let Some(postfix) = Postfix::with(&place, &mx(), lines, "") else {
        skip!("postfix is neither installed nor unpacked");
    };
    let zone = format!("postfix IN MX 10 mx\nmx IN A {}", postfix.ip);
    let names = Names::serve(&place, &zone);
    let report = remote_with(&place, names.ip, "*:\n").send("postfix.test");
    let ip = postfix.ip;
    let said = format!("ZConnected to {ip} but sender was rejected.\nRemote host said: 530 ");
    assert!(report.starts_with(&said), "{report}");
    let why = "\nReason: TLS failed before: it refused STARTTLS: 454 ";
    assert!(report.contains(why), "{report}");
    // Where TLS is required it does not come to that.
    let report = remote_with(&place, names.ip, "~*:CA\n").send("postfix.test");
    let said = format!(
        "ZConnected to {ip} (mx.test) but it refused STARTTLS; tlsdestinations line 1 requires TLS. (#4.7.5)\n"
    );
    assert!(report.starts_with(&said), "{report}");
}

#[test]
fn eight_bit_headers_arrive_behind_a_postfix_whose_next_hop_has_no_smtputf8() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-postfix-utf8");
    let hop = Fake::plain().offers("250-hop\r\n250 8BITMIME\r\n");
    let hop = hop.listen("127.0.0.1:0".parse().unwrap());
    let lines = format!(
        "relay_domains = hop.test\nrelay_transport = smtp:[127.0.0.1]:{}\nsmtp_dns_support_level = disabled",
        hop.at.port()
    );
    let service = "smtp unix - - n - - smtp";
    let Some(postfix) = Postfix::with(&place, &mx(), &lines, service) else {
        skip!("postfix is neither installed nor unpacked");
    };
    let zone = format!("hop IN MX 10 mx\nmx IN A {}", postfix.ip);
    let names = Names::serve(&place, &zone);
    let remote = remote_with(&place, names.ip, "*:\n");
    let words = ["hop.test", "a@sender.example", "b@hop.test"];
    for header in [
        &b"Subject: caf\xe9\n\nx\n"[..],
        b"Subject: caf\xc3\xa9\n\nx\n",
    ] {
        let before = hop.messages();
        let parts = remote.parts(&words, header);
        assert!(parts[1].starts_with('K'), "{parts:?}");
        eventually("the mail is at the next hop", || {
            let log = postfix.log();
            assert!(!log.contains("status=bounced"), "{log}");
            (hop.messages() > before).then_some(())
        });
    }
    // An address that is not ASCII is Postfix's to refuse: it offers SMTPUTF8.
    let parts = remote.parts(&["hop.test", "", "\u{e4}@hop.test"], MESSAGE.as_bytes());
    assert!(parts[1].starts_with('K'), "{parts:?}");
    eventually("Postfix knows that the next hop lacks it", || {
        postfix.log().contains("SMTPUTF8 is required").then_some(())
    });
}
