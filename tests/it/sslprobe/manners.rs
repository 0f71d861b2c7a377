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
    let (found, code) = result(&["-y", "smtp", &server.at.to_string()]);
    assert_eq!(found["connections"], 4, "{found:#}");
    // Half a probe is not all well, and nothing is claimed that was not asked.
    assert_eq!(code, 1);
    assert!(
        super::text(&found, "incomplete").contains("too many"),
        "{found:#}"
    );
    assert!(!super::has(&found, "no-hybrid"), "{found:#}");
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

/// What is said before a run over closed ports, and the run's end.
fn announced(count: u8, words: &[&str]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let input: String = (2..count + 2).fold(String::new(), |text, last| {
        text + &format!("127.0.0.{last}:{port}\n")
    });
    let ended = run(
        &mut command(&[&["-j"], words, &["-"]].concat()),
        input.as_bytes(),
    );
    assert_eq!(objects(&ended).len(), usize::from(count), "{ended:?}");
    assert_eq!(ended.code, Some(111), "{ended:?}");
    ended.stderr
}

#[test]
fn a_large_run_is_announced_with_the_time_that_it_may_take() {
    for (count, words, said) in [
        // 96 connections at five a second.
        (
            12,
            &["-q", "-r", "5", "-c", "20"][..],
            "8 handshakes each, 20 at once: this takes up to 20 s",
        ),
        // 24 pauses of three seconds, one after the other.
        (
            12,
            &["-q", "-i", "3", "-c", "4"],
            "8 handshakes each, 4 at once: this takes up to 1 min 12 s",
        ),
        (
            10,
            &["-i", "2"],
            "24 handshakes each, 1 at once: this takes up to 8 min 0 s",
        ),
        (
            10,
            &["-F", "-c", "10", "-i", "90"],
            "60 handshakes each, 10 at once: this takes up to 1 h 30 min",
        ),
    ] {
        let expected = format!(
            "sslprobe: {count} destinations, at most {said}, longer where servers are slow\n"
        );
        assert_eq!(announced(count, words), expected);
    }
    assert_eq!(announced(9, &["-q", "-i", "1"]), "", "few need no warning");
}

/// A provider whose four addresses count their connections together and complain
/// of more than `MOST` within a time.
struct Counting {
    servers: Vec<Scripted>,
    times: Arc<Mutex<Vec<Instant>>>,
}

/// As many connections within its time as it bears.
const MOST: usize = 16;

impl Counting {
    fn start(within: Duration) -> Counting {
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let context = Arc::new(context(&Identity::localhost(KeyKind::P256), |_| {}));
        let serve = |last| {
            let (times, context) = (Arc::clone(&times), Arc::clone(&context));
            Scripted::start_at([127, 0, 0, last], move |stream, _, seen| {
                let now = Instant::now();
                let lately = {
                    let mut times = times.lock().expect("lock");
                    times.push(now);
                    times.iter().filter(|one| now - **one < within).count()
                };
                if lately > MOST {
                    let _ = stream.write_all(b"421 4.7.0 you connect too often\r\n");
                } else if smtp(stream, &["STARTTLS"], seen) {
                    if let Some(mut inside) = tls(stream, &context) {
                        smtp_inside(&mut inside, &[], "");
                    }
                }
            })
        };
        let servers = (1..=4).map(serve).collect();
        Counting { servers, times }
    }

    fn probed(&self, rate: &str) -> Vec<serde_json::Value> {
        self.probed_with(&["-r", rate])
    }

    fn probed_with(&self, more: &[&str]) -> Vec<serde_json::Value> {
        let at = self.servers.iter().map(|one| one.at.to_string());
        let at: Vec<String> = at.collect();
        let words: Vec<&str> = at.iter().map(String::as_str).collect();
        // The last -r holds.
        let options = ["-j", "-q", "-y", "smtp", "-c", "4"];
        objects(&run(
            &mut command(&[&options[..], more, &words].concat()),
            b"",
        ))
    }
}

#[test]
fn a_provider_that_counts_connections_a_second_has_nothing_to_complain_of() {
    let provider = Counting::start(Duration::from_secs(1));
    for one in provider.probed("4") {
        assert_eq!(one["error"], serde_json::Value::Null, "{one:#}");
        assert_eq!(one["versions"]["TLSv1.3"], true, "{one:#}");
    }
    let times = provider.times.lock().expect("lock").clone();
    assert!(times.len() > MOST, "{}", times.len());
    let first_to_last = times[times.len() - 1] - times[0];
    let least = Duration::from_secs(times.len() as u64 - 1) / 4;
    // The first one may have been slow to arrive.
    assert!(first_to_last > least * 2 / 3, "{first_to_last:?} {least:?}");
}

#[test]
fn a_provider_that_complains_is_left_alone_at_each_of_its_addresses() {
    let provider = Counting::start(Duration::from_secs(3600));
    let found = provider.probed("1000");
    let complained = found.iter().filter(|one| {
        let why = one["error"].as_str();
        why.is_some_and(|why| why.contains("you connect too often"))
    });
    let complained = complained.count();
    assert!(complained > 1, "{found:#?}");
    let connections = provider.times.lock().expect("lock").len();
    assert_eq!(connections, MOST + complained, "one each: {found:#?}");
}

#[test]
fn waiting_for_other_hosts_is_not_a_host_s_own_time() {
    let provider = Counting::start(Duration::ZERO);
    let begin = Instant::now();
    // The last -T holds: all four take longer than that, none by itself.
    let found = provider.probed_with(&["-r", "3", "-T", "6"]);
    assert!(
        begin.elapsed() > Duration::from_secs(6),
        "too quick to tell"
    );
    for one in found {
        assert_eq!(one["error"], serde_json::Value::Null, "{one:#}");
        assert!(one["seconds"].as_f64() < Some(6.0), "{one:#}");
    }
}

#[test]
fn a_server_without_extended_master_secret_is_told_of_partners_in_fips_mode() {
    // SSL_OP_NO_EXTENDED_MASTER_SECRET of ssl.h.
    let without = openssl::ssl::SslOptions::from_bits_retain(1);
    for (highest, severity) in [
        (openssl::ssl::SslVersion::TLS1_2, Some("medium")),
        (openssl::ssl::SslVersion::TLS1_3, Some("note")),
    ] {
        for off in [true, false] {
            let context = context(&Identity::localhost(KeyKind::P256), |builder| {
                builder.set_max_proto_version(Some(highest)).expect("set");
                if off {
                    builder.set_options(without);
                }
            });
            let server = Scripted::start(move |stream, _, seen| {
                seen.hello = hello_comes(stream);
                drop(tls(stream, &context));
            });
            let (found, _) = result(&[&server.at.to_string()]);
            let all = super::findings(&found);
            let told = all
                .iter()
                .find(|(code, _)| code == "no-extended-master-secret");
            let told = told.map(|(_, severity)| severity.as_str());
            assert_eq!(told, severity.filter(|_| off), "{found:#}");
        }
    }
}
