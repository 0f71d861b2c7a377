//! How connections end, from both sides, and what the program inherits.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use openssl::ssl::{ErrorCode, SslVersion};

use crate::harness::dial::{Noise, linger_zero, plain};
use crate::harness::process::{default_signals, group, process};
use crate::harness::{Dial, End, Place, Setup, eventually, need, need_root, overlay, run, skip};

const BOTH: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

#[test]
fn a_client_that_half_closes_gets_the_whole_answer() {
    let place = Place::new("half-close");
    let script = "n=$(wc -c); head -c 1000000 /dev/zero; echo $n";
    let server = Setup::script(&place, script).start();
    for version in BOTH {
        for whole in [true, false] {
            let mut client = Dial::to(&server).version(version).connect();
            client.send(Noise::new(1).bytes(300_000));
            if whole {
                client.half_close();
            } else {
                client.finish();
            }
            let (bytes, end) = client.rest();
            assert_eq!(end, End::CloseNotify, "{version:?} {whole}");
            assert_eq!(bytes.len(), 1_000_007);
            assert_eq!(&bytes[1_000_000..], b"300000\n");
        }
    }
    server.quiet();
}

#[test]
fn a_slow_client_with_unread_bytes_gets_all_that_was_written() {
    let place = Place::new("slow-client");
    let server = Setup::script(&place, "head -c 5000000 /dev/zero; echo end")
        .options("-v")
        .start();
    for version in BOTH {
        let mut client = Dial::to(&server)
            .version(version)
            .receive_buffer(4096)
            .connect();
        // As much as fits, which nobody will ever read: were it to lie in the
        // socket when that is closed, the client would get a reset.
        client.stream.get_ref().set_nonblocking(true).unwrap();
        let junk = Noise::new(2).bytes(16384);
        for _ in 0..64 {
            if let Err(error) = client.stream.ssl_write(&junk) {
                assert!(
                    matches!(error.code(), ErrorCode::WANT_WRITE | ErrorCode::WANT_READ),
                    "{error}"
                );
                break;
            }
        }
        client.stream.get_ref().set_nonblocking(false).unwrap();
        let (bytes, end) = client.rest();
        assert_eq!(
            (bytes.len(), end),
            (5_000_004, End::CloseNotify),
            "{version:?}"
        );
        assert_eq!(&bytes[5_000_000..], b"end\n");
    }
    server.quiet();
}

#[test]
fn what_comes_after_the_end_of_the_program_is_read_and_thrown_away() {
    let place = Place::new("late-bytes");
    let server = Setup::script(&place, "echo bye").options("-v").start();
    let mut client = Dial::to(&server).connect();
    server.line("end ");
    // The program is gone, its line unread: bytes on the way must not destroy it.
    client.send(Noise::new(3).bytes(200_000));
    assert_eq!(client.text(), "bye\n");
    drop(client);
    server.quiet();
}

#[test]
fn close_notify_is_sent_however_the_program_ends() {
    let place = Place::new("close-notify");
    for (script, status) in [
        ("exit 0", "0"),
        ("exit 3", "768"),
        ("echo word; exit 1", "256"),
        ("echo word; kill -9 $$", "9"),
        ("kill -15 $$", "15"),
    ] {
        let server = Setup::script(&place, script).options("-v").start();
        for (count, version) in BOTH.into_iter().enumerate() {
            let mut client = Dial::to(&server).version(version).connect();
            let (bytes, end) = client.rest();
            assert_eq!(end, End::CloseNotify, "{script}");
            assert_eq!(bytes.is_empty(), !script.contains("word"), "{script}");
            let line = &server.lines("end ", count + 1)[count];
            assert!(line.ends_with(&format!(" status {status}")), "{line}");
        }
    }
}

#[test]
fn an_end_of_file_without_close_notify_is_logged_as_truncation() {
    let place = Place::new("truncation");
    let server = Setup::script(&place, "cat; echo done")
        .options("-v")
        .start();
    for version in BOTH {
        let mut client = Dial::to(&server).version(version).connect();
        client.send("half a sen");
        client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.text(), "half a sendone\n", "{version:?}");
    }
    let lines = server.lines("trunc", 2);
    let pid = lines[0]
        .split("pid ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let pid = pid.trim_end_matches([',', ':']).to_owned();
    server.line(&format!("end {pid} status 0"));
    // With close_notify there is nothing to say.
    let quiet = Setup::script(&place, "cat").options("-v").start();
    let mut client = Dial::to(&quiet).connect();
    client.send("whole");
    client.half_close();
    assert_eq!(client.text(), "whole");
    quiet.line("end ");
    quiet.quiet();
    assert!(!quiet.log().contains("trunc"), "{}", quiet.log());
}

#[test]
fn a_program_may_close_its_output_and_go_on_reading() {
    let place = Place::new("closed-output");
    let file = place.text("got");
    let server = Setup::script(
        &place,
        &format!("echo bye; exec >&- 2>&-; cat >{file}; : >{file}.done"),
    )
    .start();
    for version in BOTH {
        let mut client = Dial::to(&server).version(version).connect();
        assert_eq!(client.read_exact(4), b"bye\n");
        let bytes = Noise::new(4).bytes(500_000);
        client.send(&bytes);
        client.half_close();
        eventually("the program has read to the end", || {
            fs::metadata(format!("{file}.done")).ok()
        });
        assert!(place.read("got") == bytes, "{version:?}: all bytes arrive");
        fs::remove_file(format!("{file}.done")).unwrap();
    }
    server.quiet();
}

#[test]
fn a_program_may_close_its_input_and_go_on_writing() {
    let place = Place::new("closed-input");
    let server = Setup::script(&place, "exec <&-; head -c 1000000 /dev/zero")
        .options("-v")
        .start();
    let mut client = Dial::to(&server).connect();
    client.send(Noise::new(5).bytes(100_000));
    let (bytes, end) = client.rest();
    assert_eq!((bytes.len(), end), (1_000_000, End::CloseNotify));
    assert!(server.line("end ").ends_with("status 0"));
}

/// Says what its descriptors 0 and 1 are.
const KINDS: &str = "readlink /proc/self/fd/0 /proc/self/fd/1";

#[test]
fn the_program_has_one_socket_or_with_f_two_pipes() {
    let place = Place::new("one-socket");
    let server = Setup::script(&place, KINDS).start();
    let text = Dial::to(&server).connect().text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("socket:["), "{text}");
    assert_eq!(lines[0], lines[1], "one and the same");
    let server = Setup::script(&place, KINDS).options("-f").start();
    let text = Dial::to(&server).connect().text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines.iter().all(|one| one.starts_with("pipe:[")), "{text}");
    assert_ne!(lines[0], lines[1]);
    // What a program is to use once it has asked for TLS.
    let asked = "readlink /proc/self/fd/$SSLREADFD /proc/self/fd/$SSLWRITEFD /proc/self/fd/0";
    for (options, kind, same) in [("-n", "socket:[", true), ("-nf", "pipe:[", false)] {
        let server = Setup::script(&place, asked).options(options).start();
        let mut text = String::new();
        plain(server.at).read_to_string(&mut text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[..2].iter().all(|one| one.starts_with(kind)), "{text}");
        assert_eq!(lines[0] == lines[1], same, "{text}");
        assert!(
            lines[2].starts_with("socket:[") && lines[2] != lines[0],
            "{text}"
        );
    }
    // Scripts that open /dev/stdin can do so with a pipe alone.
    let reading = "cat /dev/stdin 2>&1";
    for (options, heard) in [("-f", "word"), ("-q", "/dev/stdin: No such device")] {
        let server = Setup::script(&place, reading).options(options).start();
        let mut client = Dial::to(&server).connect();
        client.send("word");
        client.half_close();
        let text = client.text();
        assert!(text.contains(heard), "{options}: {text}");
    }
}

#[test]
fn a_program_may_shut_its_output_and_go_on_reading() {
    let python = need!("python3");
    let place = Place::new("shut-output");
    let file = place.write(
        "shut.py",
        "import os, socket, sys\n\
         s = socket.socket(fileno=os.dup(0))\n\
         s.sendall(b'bye\\n')\n\
         s.shutdown(socket.SHUT_WR)\n\
         n = 0\n\
         while True:\n    b = s.recv(65536)\n    n += len(b)\n    if not b: break\n\
         print(n, file=sys.stderr)\n",
    );
    let server = Setup::new(&place, &[python.to_str().unwrap(), &file])
        .options("-v")
        .start();
    for version in BOTH {
        let mut client = Dial::to(&server).version(version).connect();
        // Its end of file comes while the program still reads.
        assert_eq!(client.text(), "bye\n", "{version:?}");
        client.send(Noise::new(9).bytes(400_000));
        client.half_close();
    }
    assert_eq!(server.lines("400000", 2), ["400000", "400000"]);
    server.quiet();
}

#[test]
fn a_program_that_leaves_input_unread_loses_none_of_its_output() {
    let place = Place::new("unread");
    for options in ["-v", "-vf"] {
        // It waits until there is something to leave.
        let script = "read x; head -c 3000000 /dev/zero; echo end";
        let server = Setup::script(&place, script).options(options).start();
        for version in BOTH {
            let mut client = Dial::to(&server).version(version).connect();
            client.send("go\n");
            client.send(Noise::new(6).bytes(100_000));
            let (bytes, end) = client.rest();
            assert_eq!(
                (bytes.len(), end),
                (3_000_004, End::CloseNotify),
                "{options}"
            );
        }
        server.quiet();
    }
}

#[test]
fn a_grandchild_may_write_on_after_the_program_has_ended() {
    let place = Place::new("grandchild");
    let fifo = place.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let script = format!("(read x <{}; echo late) & echo early", fifo.display());
    let server = Setup::script(&place, &script).options("-v").start();
    let mut client = Dial::to(&server).connect();
    assert_eq!(client.line(), "early\n");
    server.line("end ");
    fs::write(&fifo, "go\n").unwrap();
    assert_eq!(client.text(), "late\n");
    server.quiet();
}

#[test]
fn the_handshake_is_bounded_however_slowly_bytes_drip() {
    let place = Place::new("drip");
    let marker = place.text("ran");
    let server = Setup::script(&place, &format!(": >{marker}"))
        .options("-v -T 2")
        .start();
    let mut stream = plain(server.at);
    // The start of a record that announces 16 KiB, and then a byte now and then:
    // for as long as the server would have to wait were it patient.
    stream
        .write_all(&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc])
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut ended = false;
    for _ in 0..150 {
        let _ = stream.write_all(&[0]);
        match stream.read(&mut [0; 64]) {
            Ok(0) => ended = true,
            Ok(_) => {}
            Err(error) => ended = error.kind() != std::io::ErrorKind::WouldBlock,
        }
        if ended {
            break;
        }
    }
    assert!(ended, "the server gave up within 30 s");
    let line = server.line("dropping TLS connection");
    assert!(line.contains("timed out"), "{line}");
    server.quiet();
    assert!(!fs::exists(&marker).unwrap(), "the program never ran");
}

#[test]
fn a_connection_without_a_byte_is_ended() {
    let place = Place::new("idle");
    let marker = place.text("eof");
    let server = Setup::script(&place, &format!("cat; : >{marker}"))
        .options("-v -w 1")
        .start();
    let mut client = Dial::to(&server).connect();
    client.send("word");
    assert_eq!(client.read_exact(4), b"word");
    let (bytes, end) = client.rest();
    assert_eq!((bytes.as_slice(), end), (&b""[..], End::CloseNotify));
    eventually("the program saw the end", || {
        fs::exists(&marker).unwrap().then_some(())
    });
    server.quiet();
}

#[test]
fn key_updates_keep_no_connection_alive() {
    let place = Place::new("idle-updates");
    let server = Setup::new(&place, &["cat"]).options("-w 2").start();
    let mut client = Dial::to(&server).version(SslVersion::TLS1_3).connect();
    client.send("word");
    assert_eq!(client.read_exact(4), b"word");
    // The pace of the client, which would go on for ever.
    let mut updates = 0;
    while client.update_keys() {
        std::thread::sleep(Duration::from_millis(200));
        updates += 1;
        assert!(updates < 250, "still alive: {}", server.log());
    }
    let line = server.line("dropping TLS connection");
    assert!(
        line.ends_with("no data in either direction for 2 seconds"),
        "{line}"
    );
    server.quiet();
}

#[test]
fn a_flood_of_key_updates_is_not_answered() {
    let place = Place::new("flood-updates");
    let server = Setup::new(&place, &["cat"]).start();
    let mut client = Dial::to(&server).version(SslVersion::TLS1_3).connect();
    client.send("word");
    assert_eq!(client.read_exact(4), b"word");
    // Somebody takes the answers, or the server would stop by itself.
    let mut socket = client.stream.get_ref().try_clone().unwrap();
    let answers = std::thread::spawn(move || {
        let mut piece = vec![0; 65536];
        let mut total = 0;
        while let Ok(count) = socket.read(&mut piece)
            && count > 0
        {
            total += count;
        }
        total
    });
    let mut updates = 0;
    while client.update_keys() && updates < 300_000 {
        updates += 1;
    }
    assert!(updates < 300_000, "it took them all");
    drop(client);
    let answered = answers.join().unwrap();
    assert!(answered < 1_000_000, "{answered} bytes of answers");
    let line = server.line("dropping TLS connection");
    assert!(
        line.ends_with("client sent 64 KiB of key updates and the like without any data"),
        "{line}"
    );
    server.quiet();
}

#[test]
fn data_between_key_updates_keeps_a_connection_alive() {
    let place = Place::new("honest-updates");
    let server = Setup::new(&place, &["cat"]).start();
    let mut client = Dial::to(&server).version(SslVersion::TLS1_3).connect();
    for _ in 0..3000 {
        assert!(client.update_keys());
        client.send("x");
        assert_eq!(client.read_exact(1), b"x");
    }
    client.half_close();
    assert_eq!(client.text(), "");
    server.quiet();
}

#[test]
fn a_client_that_never_stops_sending_is_left_when_the_program_has_ended() {
    let place = Place::new("endless-client");
    for options in ["-v", "-vf"] {
        let server = Setup::script(&place, "read x; echo bye")
            .options(options)
            .start();
        let mut client = Dial::to(&server).connect();
        client.send("go\n");
        let block = Noise::new(8).bytes(16384);
        let started = std::time::Instant::now();
        while client.stream.write_all(&block).is_ok() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{}",
                server.log()
            );
        }
        server.line("end ");
        server.quiet();
    }
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let place = Place::new("dead-client");
    let server = Setup::script(&place, "exec yes").options("-v -w 1").start();
    let mut client = Dial::to(&server).receive_buffer(4096).connect();
    assert_eq!(client.line(), "y\n");
    // It never reads again. The program's write is told, where one waits in the
    // kernel without the signal; its next one would be told with it.
    let end = server.line("end ");
    let told = server.log().contains("standard output: Broken pipe");
    let ended = if told { "status 256" } else { "status 13" };
    assert!(end.ends_with(ended), "{}", server.log());
    server.quiet();
    let server = Setup::script(&place, "exec yes")
        .options("-vf -w 1")
        .start();
    let mut client = Dial::to(&server).receive_buffer(4096).connect();
    assert_eq!(client.line(), "y\n");
    assert!(server.line("end ").ends_with("status 13"));
    server.quiet();
}

#[test]
fn bytes_keep_a_connection_alive() {
    let place = Place::new("alive");
    let server = Setup::new(&place, &["cat"]).options("-w 3").start();
    let mut client = Dial::to(&server).connect();
    for _ in 0..8 {
        // Not to wait for anything: this is the pace of the client.
        std::thread::sleep(Duration::from_millis(500));
        client.send("x");
        assert_eq!(client.read_exact(1), b"x");
    }
    client.half_close();
    assert_eq!(client.text(), "");
}

#[test]
fn a_reset_ends_both_sides() {
    let place = Place::new("reset");
    let server = Setup::new(&place, &["cat"]).options("-v").start();
    let mut client = Dial::to(&server).connect();
    client.send("word");
    assert_eq!(client.read_exact(4), b"word");
    linger_zero(client.stream.get_ref());
    drop(client);
    server.line("end ");
    server.quiet();
}

#[test]
fn the_program_starts_with_default_signals() {
    let place = Place::new("signals");
    // As nohup and many a run script do: signals ignored from the outside.
    let ignoring = [
        "/bin/sh",
        "-c",
        "trap '' INT PIPE USR1 USR2 QUIT; exec \"$@\"",
        "sh",
    ];
    for before in [&[][..], &ignoring] {
        let server = Setup::new(&place, &["/bin/cat", "/proc/self/status"])
            .through(before)
            .start();
        let status = Dial::to(&server).connect().text();
        default_signals(&status);
    }
}

/// The descriptors that `ls -l /proc/self/fd` lists, but for its own.
fn listed(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.contains("->") && !line.contains("/fd"))
        .map(|line| {
            let (name, _) = line.rsplit_once(" -> ").unwrap();
            name.rsplit(' ').next().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn the_program_has_three_descriptors_and_what_the_server_was_started_with() {
    let place = Place::new("descriptors");
    // What the tests' own parents left open reaches every child of theirs.
    let plain = run(
        std::process::Command::new("/bin/ls").args(["-l", "/proc/self/fd"]),
        b"",
    );
    let base = listed(&plain.text());
    assert!(base.len() >= 3, "{base:?}");
    let server = Setup::new(&place, &["/bin/ls", "-l", "/proc/self/fd"]).start();
    let text = Dial::to(&server).connect().text();
    assert_eq!(listed(&text), base, "{text}");
    let file = place.write("extra", "inherited");
    let opening = [
        "/bin/sh".to_owned(),
        "-c".into(),
        format!("exec 8<{file}; exec \"$@\""),
        "sh".into(),
    ];
    let server = Setup::new(&place, &["/bin/ls", "-l", "/proc/self/fd"])
        .through(opening)
        .start();
    let text = Dial::to(&server).connect().text();
    assert!(
        text.lines()
            .any(|line| line.contains(&format!("8 -> {file}"))),
        "{text}"
    );
    assert_eq!(listed(&text).len(), base.len() + 1, "{text}");
}

#[test]
fn the_program_is_the_supervisor_s_child_and_has_none_of_ours() {
    let place = Place::new("family");
    let server = Setup::script(&place, "echo $$; read line; echo $line")
        .options("-v")
        .start();
    let mut client = Dial::to(&server).connect();
    let pid: i32 = client.line().trim_end().parse().unwrap();
    assert_eq!(process(pid).unwrap().parent, server.pid().cast_signed());
    let ours = group(server.pid());
    assert!(ours.iter().all(|one| one.parent != pid), "{ours:?}");
    server.line(&format!("sslserver: pid {pid} from 127.0.0.1"));
    server.line(&format!("sslserver: ok {pid} "));
    client.send("thanks\n");
    assert_eq!(client.text(), "thanks\n");
    server.line(&format!("sslserver: end {pid} status 0"));
    server.quiet();
}

#[test]
fn an_engine_that_dies_takes_its_connection_alone() {
    let place = Place::new("dead-engine");
    let marker = place.text("eof");
    let server = Setup::script(&place, &format!("echo up; cat; : >{marker}"))
        .options("-v")
        .start();
    let mut other = Dial::to(&server).connect();
    assert_eq!(other.line(), "up\n");
    let others: Vec<_> = server.busy().iter().map(|one| one.pid).collect();
    let mut client = Dial::to(&server).connect();
    assert_eq!(client.line(), "up\n");
    let ok = &server.lines("sslserver: ok ", 2)[1];
    let program: i32 = ok.split(' ').nth(2).unwrap().parse().unwrap();
    // The programs' own children come and go meanwhile.
    let supervisor = server.pid().cast_signed();
    let engine = server
        .busy()
        .into_iter()
        .filter(|one| one.parent == supervisor)
        .find(|one| one.pid != program && !others.contains(&one.pid))
        .expect("an engine");
    let engine = nix::unistd::Pid::from_raw(engine.pid);
    nix::sys::signal::kill(engine, nix::sys::signal::Signal::SIGKILL).unwrap();
    let (bytes, end) = client.rest();
    assert!(bytes.is_empty() && end != End::CloseNotify, "{end:?}");
    eventually("the program saw the end", || {
        fs::exists(&marker).unwrap().then_some(())
    });
    server.line(&format!("sslserver: end {program} status 0"));
    other.send("still here");
    assert_eq!(other.read_exact(10), b"still here");
    other.half_close();
    assert_eq!(other.text(), "");
    server.quiet();
}

#[test]
fn a_server_without_standard_descriptors_serves_all_the_same() {
    let place = Place::new("closed-standard");
    let closing = ["/bin/sh", "-c", "exec \"$@\" <&-", "sh"];
    let server = Setup::new(&place, &["cat"]).through(closing).start();
    for count in 0..3 {
        let bytes = Noise::new(count).bytes(50_000);
        let mut client = Dial::to(&server).connect();
        client.send(&bytes);
        client.half_close();
        let (got, end) = client.rest();
        assert_eq!(end, End::CloseNotify, "{count}: {} bytes", got.len());
        assert!(got == bytes, "{count}: {} bytes", got.len());
    }
    server.quiet();
    server.stop();
}

#[test]
fn a_server_serves_where_there_is_no_null_device() {
    need_root!();
    need!("unshare");
    let place = Place::new("no-null");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    let hiding = [
        "unshare",
        "--mount",
        "/bin/sh",
        "-c",
        "mount -t tmpfs none /dev && exec \"$@\"",
        "sh",
    ];
    let script = "test -e /dev/null || echo none; cat";
    let server = Setup::script(&place, script).through(hiding).start();
    let mut client = Dial::to(&server).connect();
    client.send("here");
    client.half_close();
    assert_eq!(client.text(), "none\nhere");
    server.quiet();
    server.stop();
}

#[test]
fn connections_live_on_when_the_supervisor_is_told_to_end() {
    let place = Place::new("term");
    let server = Setup::new(&place, &["cat"]).start();
    let (at, pid) = (server.at, server.pid());
    let mut client = Dial::to(&server).connect();
    client.send("before");
    assert_eq!(client.read_exact(6), b"before");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    eventually("nobody listens", || {
        std::net::TcpStream::connect(at).is_err().then_some(())
    });
    client.send("after");
    assert_eq!(client.read_exact(5), b"after");
    client.half_close();
    assert_eq!(client.text(), "");
    drop(server);
}

#[test]
fn the_banner_comes_first() {
    let place = Place::new("banner");
    let server = Setup::new(&place, &["cat"])
        .options("-B")
        .option("hello from outside\r\n")
        .start();
    let mut client = Dial::to(&server).connect();
    assert_eq!(client.line(), "hello from outside\r\n");
    client.send("x");
    client.half_close();
    assert_eq!(client.text(), "x");
}
