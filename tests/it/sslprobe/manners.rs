//! How a probe behaves: as many connections as it says, no more than it may, a
//! pause between them, and a stop where the server wants one.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::server::{Scripted, hello_comes, line, smtp, smtp_inside, tls};
use super::{command, objects, result};
use crate::harness::peer::context;
use crate::harness::{Identity, KeyKind, run};

#[test]
fn the_server_counts_what_the_result_says() {
    let context = Arc::new(context(&Identity::localhost(KeyKind::Rsa2048), |_| {}));
    for (depth, most) in [("-q", 8), ("-4", 24), ("-F", 60)] {
        let context = Arc::clone(&context);
        let server = Scripted::start(move |stream, _, seen| {
            if smtp(stream, &["STARTTLS"], seen) {
                // A NOOP may be injected before it.
                let mut first = [0];
                if matches!(stream.peek(&mut first), Ok(1)) && first[0] == b'N' {
                    seen.lines.extend(line(stream));
                }
                seen.hello = hello_comes(stream);
                if let Some(mut inside) = tls(stream, &context) {
                    smtp_inside(&mut inside, &[], "");
                }
            }
        });
        let (found, _) = result(&[depth, "-y", "smtp", &server.at.to_string()]);
        let number = |key: &str| found[key].as_u64().expect("a number");
        let seen = server.connections(usize::try_from(number("connections")).expect("few"));
        let hellos = crate::harness::eventually("hellos", || {
            let hellos = server.seen().iter().filter(|one| one.hello).count() as u64;
            (hellos >= number("handshakes")).then_some(hellos)
        });
        assert_eq!(seen.len() as u64, number("connections"), "{depth}");
        assert_eq!(hellos, number("handshakes"), "{depth}");
        assert!(
            hellos <= most && number("connections") <= hellos + 2,
            "{depth}: {found:#}"
        );
    }
}

#[test]
fn a_server_that_says_4xx_is_asked_once() {
    for (greeting, ehlo, starttls) in [
        ("421 busy", "", ""),
        ("450 later", "", ""),
        ("220 mx", "421 too many", ""),
        ("220 mx", "250-mx\r\n250 STARTTLS", "421 no more"),
        ("220 mx", "250-mx\r\n250 STARTTLS", "454 not now"),
    ] {
        let server = Scripted::start(move |stream, _, seen| {
            for answer in [greeting, ehlo, starttls] {
                if answer.is_empty() {
                    break;
                }
                let _ = stream.write_all(format!("{answer}\r\n").as_bytes());
                seen.lines.extend(line(stream));
            }
        });
        let (found, code) = result(&["-y", "smtp", &server.at.to_string()]);
        assert_eq!(found["connections"], 1, "{found:#}");
        assert_eq!(
            (&found["starttls"], code),
            (&"refused".into(), 1),
            "{found:#}"
        );
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn a_421_after_three_connections_ends_the_probe_with_what_is_known() {
    let context = Arc::new(context(&Identity::localhost(KeyKind::Rsa2048), |_| {}));
    let server = Scripted::start(move |stream, number, seen| {
        if number >= 3 {
            let _ = stream.write_all(b"421 4.7.0 too many connections\r\n");
        } else if smtp(stream, &["STARTTLS"], seen) {
            if let Some(mut inside) = tls(stream, &context) {
                smtp_inside(&mut inside, &[], "");
            }
        }
    });
    let (found, _) = result(&["-y", "smtp", &server.at.to_string()]);
    assert_eq!(found["connections"], 4, "{found:#}");
    assert_eq!(server.seen().len(), 4);
    assert_eq!(found["versions"]["TLSv1.3"], true);
    assert!(
        found["error"].as_str().expect("why").contains("too many"),
        "{found:#}"
    );
    assert_eq!(found["certificates"].as_array().map(Vec::len), Some(1));
}

#[test]
fn connections_to_one_address_never_overlap_and_keep_their_distance() {
    let times: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
    let servers: Vec<Scripted> = (0..3)
        .map(|_| {
            let times = Arc::clone(&times);
            let context = context(&Identity::localhost(KeyKind::P256), |_| {});
            Scripted::start(move |stream, _, seen| {
                let begin = Instant::now();
                seen.hello = hello_comes(stream);
                drop(tls(stream, &context));
                times.lock().expect("lock").push((begin, Instant::now()));
            })
        })
        .collect();
    let at: Vec<String> = servers.iter().map(|server| server.at.to_string()).collect();
    let words: Vec<&str> = at.iter().map(String::as_str).collect();
    let mut command = command(&[&["-j", "-q", "-c", "3", "-i", "0.05"][..], &words].concat());
    let ended = run(&mut command, b"");
    assert_eq!(objects(&ended).len(), 3, "{ended:?}");
    let mut times = times.lock().expect("lock").clone();
    times.sort();
    for pair in times.windows(2) {
        let apart = pair[1].0.saturating_duration_since(pair[0].0);
        assert!(apart >= Duration::from_millis(45), "{apart:?}");
    }
}

#[test]
fn a_pause_that_is_longer_than_the_host_s_time_ends_its_probe() {
    let context = context(&Identity::localhost(KeyKind::P256), |_| {});
    let server = Scripted::start(move |stream, _, _| drop(tls(stream, &context)));
    let at = server.at.to_string();
    let mut command = command(&["-j", "-i", "600", "-T", "1", &at]);
    let ended = run(&mut command, b"");
    let found = &objects(&ended)[0];
    assert_eq!(found["connections"], 1, "{found:#}");
    assert!(
        found["error"]
            .as_str()
            .expect("why")
            .contains("out of time"),
        "{found:#}"
    );
    assert_eq!(found["versions"]["TLSv1.3"], true);
}

#[test]
fn many_hosts_are_probed_at_once_and_each_has_its_line() {
    let context = context(&Identity::localhost(KeyKind::P256), |_| {});
    let context = Arc::new(context);
    let server = Scripted::start(move |stream, _, seen| {
        seen.hello = hello_comes(stream);
        drop(tls(stream, &context));
    });
    let port = server.at.port();
    // The server listens on 127.0.0.1 alone: the others are closed.
    let input: String = (1..=60).fold(String::new(), |text, last| {
        text + &format!("127.0.0.{last}:{port}\n")
    });
    let mut command = command(&["-j", "-q", "-c", "20", "-"]);
    let ended = run(&mut command, input.as_bytes());
    let all = objects(&ended);
    assert_eq!(all.len(), 60, "{ended:?}");
    let listening: Vec<_> = all.iter().filter(|one| one["listens"] == true).collect();
    assert_eq!(listening.len(), 1);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("60 destinations"), "{}", ended.stderr);
}
