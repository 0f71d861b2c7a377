//! sslclient around a program: descriptors, variables, limits, ends and what it
//! says.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use openssl::ssl::{SslVerifyMode, SslVersion};

use crate::harness::dial::Noise;
use crate::harness::ports::{self, Closed};
use crate::harness::process::default_signals;
use crate::harness::{
    Authority, Client, Identity, KeyKind, Leaf, Peer, Place, Setup, eventually, need, peer, run,
    skip,
};

fn localhost() -> Identity {
    Identity::localhost(KeyKind::P256)
}

#[test]
fn the_program_reads_6_and_writes_7() {
    let place = Place::new("descriptors");
    let server = Setup::new(&place, &["cat"]).start();
    let mut command = Client::new(&place).command(
        "localhost",
        server.port,
        &[
            "/bin/sh",
            "-c",
            "cat >&7; exec 7>&-; cat <&6; echo said >&2",
        ],
    );
    let ended = run(&mut command, b"from descriptor 0");
    assert_eq!(ended.text(), "from descriptor 0");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "said\n"));
    server.quiet();
}

#[test]
fn it_ends_with_the_program_though_the_server_never_stops() {
    let place = Place::new("endless-server");
    let identity = localhost();
    let server = Peer::tls(peer::context(&identity, |_| ()), |stream| {
        let mut stream = stream.unwrap();
        let block = Noise::new(8).bytes(16384);
        while stream.write_all(&block).is_ok() {}
    });
    let script = "head -c 100000 <&6 >/dev/null; exit 7";
    let ended = Client::new(&place).script("localhost", server.at.port(), script);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(7), ""));
    server.join();
}

#[test]
fn the_program_has_these_descriptors_and_no_other() {
    let place = Place::new("fd-table");
    let server = Setup::new(&place, &["true"]).start();
    let ended = Client::new(&place).run("localhost", server.port, &["/bin/ls", "/proc/self/fd"]);
    // What the tests' own parents left open reaches every child of theirs, and
    // ls itself opens one more, the first that is free.
    let base = run(Command::new("/bin/ls").arg("/proc/self/fd"), b"").text();
    let mut wanted: Vec<_> = base.lines().chain(["6", "7"]).collect();
    let text = ended.text();
    let mut seen: Vec<_> = text.lines().collect();
    wanted.sort_unstable();
    wanted.dedup();
    seen.sort_unstable();
    assert_eq!(seen, wanted, "{}", ended.stderr);
}

#[test]
fn the_program_starts_with_default_signals() {
    let place = Place::new("client-signals");
    let server = Setup::new(&place, &["true"]).start();
    let ended =
        Client::new(&place).run("localhost", server.port, &["/bin/cat", "/proc/self/status"]);
    default_signals(&ended.text());
}

#[test]
fn the_exit_code_is_the_program_s() {
    let place = Place::new("exit-codes");
    let server = Setup::new(&place, &["cat"]).start();
    let client = Client::new(&place);
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 111", 111),
        ("kill -15 $$", 143),
        ("kill -9 $$", 137),
    ] {
        let ended = client.script("localhost", server.port, script);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(code), ""),
            "{script}"
        );
    }
    let ended = client.run("localhost", server.port, &["/nosuchprogram"]);
    ended.failed(111, "/nosuchprogram");
    server.quiet();
}

#[test]
fn the_short_and_the_full_set_of_variables() {
    let place = Place::new("client-variables");
    let own = localhost();
    let server = Setup::new(&place, &["true"]).identity(&own).start();
    let mut junk = Client::new(&place);
    for name in [
        "SSL_SERVER_VERIFY",
        "SSL_CLIENT_VERIFY",
        "SSLREMOTEINFO",
        "TCPREMOTEIP",
        "SSL_SERVER_S_DN",
        "SSL_CLIENT_S_DN_CN",
        "SSL_ALPN",
        "PROTO",
    ] {
        junk = junk.env(name, "forged");
    }
    let variables = |client: &Client, host: &str| {
        let ended = client.run(host, server.port, &["env", "-0"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
            .text()
            .split_terminator('\0')
            .map(|pair| {
                pair.split_once('=')
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .unwrap()
            })
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let found = variables(&junk.env("KEPT", "yes").env("TLS_MAX", "1.3"), "localhost");
    assert!(found.values().all(|value| value != "forged"), "{found:?}");
    let port = server.port.to_string();
    let hash = format!("SHA256:{}", own.fingerprint());
    for (name, value) in [
        ("PROTO", "SSL"),
        ("SSLREMOTEIP", "127.0.0.1"),
        ("SSLREMOTEPORT", port.as_str()),
        ("SSLLOCALIP", "127.0.0.1"),
        ("SSLLOCALHOST", "localhost"),
        ("SSL_PROTOCOL", "TLSv1.3"),
        ("SSL_SERVER_VERIFY", "SUCCESS"),
        ("SSL_SESSION_RESUMED", "Initial"),
        ("SSL_PEER_S_DN", "CN=localhost"),
        ("SSL_PEER_CERT_HASH", &hash),
        ("KEPT", "yes"),
    ] {
        assert_eq!(
            found.get(name).map(String::as_str),
            Some(value),
            "{name}: {found:?}"
        );
    }
    for name in [
        "TCPREMOTEIP",
        "SSL_CLIENT_VERIFY",
        "SSL_SERVER_S_DN",
        "TLS_MAX",
        "SSLREMOTEINFO",
    ] {
        assert!(!found.contains_key(name), "{name}: {found:?}");
    }
    let found = variables(&Client::new(&place).options("-es"), "localhost");
    for (name, value) in [
        ("PROTO", "TCP"),
        ("TCPREMOTEIP", "127.0.0.1"),
        ("TCPREMOTEPORT", port.as_str()),
        ("SSL_SERVER_S_DN", "/CN=localhost"),
        ("SSL_SERVER_I_DN", "/CN=Test Intermediate"),
        ("SSL_SERVER_SAN_DNS_0", "localhost"),
    ] {
        assert_eq!(
            found.get(name).map(String::as_str),
            Some(value),
            "{name}: {found:?}"
        );
    }
    // A failed check that was not asked for is told.
    let stranger = Setup::new(&place, &["true"])
        .identity(&Leaf::localhost().self_signed())
        .start();
    let ended = Client::new(&place).options("-X").script(
        "localhost",
        stranger.port,
        "echo $SSL_SERVER_VERIFY",
    );
    assert!(ended.text().starts_with("FAILED:"), "{}", ended.text());
    // -h looks the name up.
    let ended =
        Client::new(&place)
            .options("-h")
            .script("127.0.0.1", server.port, "echo $SSLREMOTEHOST");
    assert_eq!(ended.text(), "localhost\n");
}

#[test]
fn an_address_is_never_sent_as_a_server_name() {
    let place = Place::new("sni");
    let server = Setup::script(&place, "echo \"${SSL_TLS_SNI-unset}\"").start();
    let ask = |client: Client, host: &str| client.script(host, server.port, "cat <&6").text();
    assert_eq!(ask(Client::new(&place), "localhost"), "localhost\n");
    assert_eq!(ask(Client::new(&place), "127.0.0.1"), "unset\n");
    assert_eq!(
        ask(Client::new(&place).options("-m localhost"), "127.0.0.1"),
        "localhost\n"
    );
    assert_eq!(
        ask(
            Client::new(&place).options("-N -m other.example.com"),
            "localhost"
        ),
        "other.example.com\n"
    );
    assert_eq!(
        ask(Client::new(&place).options("-m 127.0.0.1"), "localhost"),
        "unset\n"
    );
    // Libssl sends it as it is written.
    assert_eq!(
        ask(
            Client::new(&place).options("-N -m Other.EXAMPLE.com"),
            "localhost"
        ),
        "other.example.com\n"
    );
}

#[test]
fn a_client_certificate_is_shown() {
    let place = Place::new("client-certificate");
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let server = Setup::script(&place, "echo \"$SSL_CLIENT_VERIFY $SSL_PEER_S_DN\"")
        .options("-m")
        .env("CAFILE", root)
        .start();
    let known = Leaf::new("known").issue();
    let (certificate, key) = place.identity("known", &known);
    let both = place.write("both.pem", [known.chain_pem(), known.key_pem()].concat());
    let locked = place.write("locked.key", known.locked_key_pem("open sesame"));
    let password = place.write("password", "open sesame");
    let opening = [
        "/bin/sh".to_owned(),
        "-c".into(),
        format!("exec 3<{password}; exec \"$@\""),
        "sh".into(),
    ];
    for client in [
        Client::new(&place)
            .options("-c")
            .option(&certificate)
            .options("-k")
            .option(&key),
        Client::new(&place)
            .options("-C")
            .option(&certificate)
            .options("-k")
            .option(&key),
        Client::new(&place).options("-c").option(&both),
        Client::new(&place)
            .options("-3 -c")
            .option(&certificate)
            .options("-k")
            .option(&locked)
            .through(opening),
    ] {
        let ended = client.read(&server);
        assert_eq!(ended.text(), "SUCCESS CN=known\n", "{}", ended.stderr);
    }
    // Without one the server's alert is named.
    let ended = Client::new(&place).env("TLS_MAX", "1.2").read(&server);
    ended.failed(111, "received alert handshake_failure (40)");
    server.quiet();
}

#[test]
fn alerts_and_strange_answers_are_told() {
    let place = Place::new("client-failures");
    let client = Client::new(&place);
    // Nobody listens.
    let closed = Closed::new();
    let ended = client.run("127.0.0.1", closed.at.port(), &["true"]);
    ended.failed(111, "connection refused");
    assert!(ended.stderr.contains("127.0.0.1"), "{}", ended.stderr);
    // A server without TLS: there is no fall to plaintext.
    let marker = place.text("ran");
    let plain = Peer::plain(|mut stream| {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let ended = client.script("localhost", plain.at.port(), &format!(": >{marker}"));
    ended.failed(111, "sslclient: fatal: ");
    assert!(!std::fs::exists(&marker).unwrap());
    plain.join();
    // A server that hangs up.
    let short = Peer::plain(drop);
    let ended = client.script("localhost", short.at.port(), &format!(": >{marker}"));
    ended.failed(111, "sslclient: fatal: ");
    assert!(!std::fs::exists(&marker).unwrap());
    short.join();
    // No version in common.
    let old = Peer::tls(
        peer::context(&localhost(), |c| {
            c.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        }),
        std::result::Result::err,
    );
    let ended =
        Client::new(&place)
            .env("TLS_MIN", "1.3")
            .run("localhost", old.at.port(), &["true"]);
    ended.failed(111, "protocol_version (70)");
    assert!(old.join().is_some());
    // No cipher in common.
    let other = Peer::tls(
        peer::context(&localhost(), |c| {
            c.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        }),
        std::result::Result::err,
    );
    let ended = Client::new(&place)
        .options("-z ECDHE-RSA-AES256-GCM-SHA384")
        .run("localhost", other.at.port(), &["true"]);
    ended.failed(111, "received alert handshake_failure (40)");
    assert!(other.join().is_some());
}

#[test]
fn silence_is_silence() {
    let place = Place::new("client-silence");
    let closed = Closed::new();
    let ended = Client::new(&place)
        .options("-q")
        .run("127.0.0.1", closed.at.port(), &["true"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(111), ""));
}

#[test]
fn the_handshake_has_x_plus_y_seconds() {
    let place = Place::new("client-timeout");
    let mute = Peer::plain(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let ended = Client::new(&place)
        .options("-T 1+1")
        .run("localhost", mute.at.port(), &["true"]);
    ended.failed(111, "timed out");
    mute.join();
}

#[test]
fn a_server_that_takes_no_connection_is_given_up() {
    let place = Place::new("connect-timeout");
    // With its queue full the kernel drops what else comes.
    let listener = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&listener);
    nix::sys::socket::bind(raw, &nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(listener);
    let at = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_millis(300))
    {
        held.push(stream);
        assert!(held.len() < 100, "the queue fills");
    }
    let ended = Client::new(&place)
        .options("-T 1+1")
        .run("127.0.0.1", at.port(), &["true"]);
    ended.failed(111, "timed out");
    assert!(ended.stderr.contains("connect"), "{}", ended.stderr);
}

#[test]
fn the_local_end_can_be_chosen() {
    let place = Place::new("local-end");
    let server = Setup::script(&place, "echo $SSLREMOTEIP $SSLREMOTEPORT").start();
    let ended = Client::new(&place).options("-i 127.0.0.9").read(&server);
    assert!(
        ended.text().starts_with("127.0.0.9 "),
        "{}{}",
        ended.text(),
        ended.stderr
    );
    let port = ports::free();
    let ended = Client::new(&place)
        .options("-i 127.0.0.1 -p")
        .option(&port.to_string())
        .read(&server);
    assert_eq!(
        ended.text(),
        format!("127.0.0.1 {port}\n"),
        "{}",
        ended.stderr
    );
    // An address that is not ours.
    let ended = Client::new(&place).options("-i 192.0.2.1").read(&server);
    ended.failed(111, "cannot assign requested address");
    let ended = Client::new(&place).options("-i ::1").read(&server);
    ended.failed(111, "has no address of the family of -i ::1");
}

#[test]
fn protocols_and_suites_are_chosen() {
    let place = Place::new("client-choice");
    let server = Setup::script(&place, "echo $SSL_PROTOCOL $SSL_CIPHER $SSL_GROUP").start();
    let ask = |client: Client| client.read(&server).text();
    assert!(ask(Client::new(&place)).starts_with("TLSv1.3 "));
    let twelve = ask(Client::new(&place)
        .env("TLS_MAX", "1.2")
        .options("-z ECDHE-ECDSA-CHACHA20-POLY1305"));
    assert!(
        twelve.starts_with("TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305 "),
        "{twelve}"
    );
    let suite = ask(Client::new(&place)
        .env("CIPHERSUITES", "TLS_AES_128_GCM_SHA256")
        .env("TLS_GROUPS", "X25519"));
    assert_eq!(suite, "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519\n");
}

#[test]
fn v_prints_the_tls_line() {
    let place = Place::new("client-line");
    let server = Setup::new(&place, &["true"]).start();
    let ended = Client::new(&place)
        .options("-v")
        .env("CIPHERSUITES", "TLS_AES_256_GCM_SHA384")
        .env("TLS_GROUPS", "X25519")
        .run("localhost", server.port, &["true"]);
    let line = ended
        .stderr
        .lines()
        .find(|line| line.starts_with("sslclient: tls "))
        .unwrap_or_else(|| panic!("{}", ended.stderr));
    for part in [
        "version=TLSv1.3",
        "cipher=TLS_AES_256_GCM_SHA384",
        "bits=256/256",
        "group=X25519",
        "cert=ecdsa",
        "sni=localhost",
        "resumed=no",
        "verify=OK",
        "peer=",
    ] {
        assert!(
            line.split(' ').any(|word| word.starts_with(part)),
            "{part} not in {line}"
        );
    }
    assert_eq!(
        Client::new(&place)
            .options("-vQ")
            .run("localhost", server.port, &["true"])
            .stderr,
        ""
    );
}

#[test]
fn much_flows_both_ways_through_both_programs() {
    let place = Place::new("client-bulk");
    let data = Noise::new(11).bytes(8 << 20);
    let source = place.write("source", &data);
    let sink = place.text("sink");
    let server = Setup::new(&place, &["cat"]).start();
    let script = format!("(exec 6<&-; cat {source} >&7) & exec 7>&-; cat <&6 >{sink}; wait");
    let ended = Client::new(&place).script("localhost", server.port, &script);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(place.read("sink") == data, "every byte comes back");
    server.quiet();
}

#[test]
fn what_the_program_wrote_before_it_ended_arrives() {
    let place = Place::new("client-last-words");
    let sink = place.text("sink");
    let server = Setup::script(&place, &format!("cat >{sink}.part; mv {sink}.part {sink}"))
        .options("-v")
        .start();
    let ended = Client::new(&place).script(
        "localhost",
        server.port,
        "head -c 3000000 /dev/zero >&7; exit 7",
    );
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    eventually("the server's program read it all", || {
        std::fs::metadata(&sink).ok()
    });
    assert_eq!(place.read("sink").len(), 3_000_000);
    server.quiet();
    assert!(
        !server.log().contains("trunc"),
        "close_notify was sent: {}",
        server.log()
    );
}

#[test]
fn an_idle_connection_is_ended() {
    let place = Place::new("client-idle");
    let server = Setup::new(&place, &["cat"]).start();
    let ended =
        Client::new(&place)
            .options("-w 1")
            .script("localhost", server.port, "cat <&6; echo over");
    assert_eq!(
        (ended.code, ended.text().as_str()),
        (Some(0), "over\n"),
        "{}",
        ended.stderr
    );
    server.quiet();
}

#[test]
fn a_truncated_answer_is_told() {
    let place = Place::new("client-truncation");
    let peer = Peer::tls(peer::context(&localhost(), |_| ()), |tls| {
        let mut tls = tls.unwrap();
        tls.write_all(b"half a sen").unwrap();
        // Dropped without close_notify.
    });
    let ended = Client::new(&place)
        .options("-v")
        .script("localhost", peer.at.port(), "cat <&6");
    peer.join();
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "half a sen"));
    assert!(ended.stderr.contains("trunc"), "{}", ended.stderr);
}

#[test]
fn a_server_that_wants_a_certificate_gets_none_by_default() {
    let place = Place::new("no-client-certificate");
    let context = peer::context(&localhost(), |c| {
        c.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    });
    let peer = Peer::tls(context, |tls| {
        let mut tls = tls.unwrap();
        let shown = tls.ssl().peer_certificate().is_some();
        let _ = tls.shutdown();
        shown
    });
    let ended = Client::new(&place).script("localhost", peer.at.port(), "cat <&6");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!peer.join());
}

#[test]
fn each_protocol_can_be_asked_for() {
    let place = Place::new("client-family");
    let script = "echo $SSLREMOTEIP";
    let server = Setup::script(&place, script).host("::1").start();
    let own = ["/bin/sh", "-c", "echo $PROTO $SSLREMOTEIP; cat <&6"];
    for (letters, proto) in [("", "SSL"), ("-6", "SSL6"), ("-e", "TCP6")] {
        let ended = Client::new(&place)
            .options(letters)
            .run("::1", server.port, &own);
        assert_eq!(
            ended.text(),
            format!("{proto} ::1\n::1\n"),
            "{letters} {}",
            ended.stderr
        );
    }
    let ended = Client::new(&place)
        .options("-4")
        .run("::1", server.port, &own);
    ended.failed(111, "::1");
    // A link-local address needs its interface.
    let ended = Client::new(&place)
        .options("-I nosuchinterface")
        .run("fe80::1", server.port, &own);
    ended.failed(111, "nosuchinterface");
}

#[test]
fn the_server_s_ident_answer_is_passed_on() {
    let Ok(listener) = TcpListener::bind("127.0.0.76:113") else {
        skip!("port 113 cannot be had");
    };
    let place = Place::new("client-ident");
    let server = Setup::new(&place, &["true"]).host("127.0.0.76").start();
    let asked = std::thread::spawn(move || {
        let stream = peer::accept(&listener);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut line).unwrap();
        let ports = line.trim_end().to_owned();
        write!(&stream, "{ports} : USERID : UNIX : daemon\r\n").unwrap();
        // The next answer is about another connection.
        let stream = peer::accept(&listener);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut line).unwrap();
        let (first, second) = line.trim_end().split_once(',').unwrap();
        write!(&stream, "{second},{first} : USERID : UNIX : root\r\n").unwrap();
        ports
    });
    let ended = Client::new(&place).options("-N -r -t 20").script(
        "127.0.0.76",
        server.port,
        "echo $SSLREMOTEINFO",
    );
    assert_eq!(ended.text(), "daemon\n", "{}", ended.stderr);
    let ended = Client::new(&place).options("-N -r -t 20").script(
        "127.0.0.76",
        server.port,
        "echo $SSLREMOTEINFO",
    );
    assert_eq!(ended.text(), "\n", "{}", ended.stderr);
    let ports = asked.join().unwrap();
    let first = ports.split(',').next().unwrap().trim();
    assert_eq!(first, server.port.to_string(), "the server's port first");
}

#[test]
fn nagle_follows_its_letter() {
    let place = Place::new("client-nagle");
    let Some(strace) = crate::server::sockets::strace() else {
        skip!("strace is not installed or may not trace");
    };
    let server = Setup::new(&place, &["true"]).start();
    for (letters, wanted) in [("", true), ("-d", false), ("-dD", true)] {
        let file = place.fresh("trace").to_str().unwrap().to_owned();
        let words = ["-f", "-e", "trace=setsockopt", "-o", &file].map(str::to_owned);
        let ended = Client::new(&place)
            .options(letters)
            .through(
                [strace.to_str().unwrap().to_owned()]
                    .into_iter()
                    .chain(words),
            )
            .run("localhost", server.port, &["true"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let calls = std::fs::read_to_string(&file).unwrap();
        assert_eq!(calls.contains("TCP_NODELAY, [1]"), wanted, "{calls}");
    }
}

/// A foreign server that prints nothing we could wait for.
fn foreign(command: &mut Command, port_option: &str) -> (std::process::Child, u16) {
    use std::os::unix::process::CommandExt as _;
    let port = ports::free();
    let child = command
        .args([port_option, &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    (child, port)
}

#[test]
fn s_server_and_gnutls_serv_are_reached() {
    need!("openssl");
    let place = Place::new("foreign-servers");
    let (certificate, key) = place.identity("own", &localhost());
    let page = |client: &Client, port: u16| {
        // It takes a moment until such a server listens.
        let ended = eventually("an answer", || {
            let ended = client.script(
                "localhost",
                port,
                "printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&7; cat <&6",
            );
            (!ended.stderr.contains("refused")).then_some(ended)
        });
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.text()
    };
    let mut command = Command::new("openssl");
    command.args([
        "s_server",
        "-cert",
        &certificate,
        "-cert_chain",
        &certificate,
        "-key",
        &key,
        "-www",
    ]);
    let (mut child, port) = foreign(&mut command, "-accept");
    for version in ["1.2", "1.3"] {
        let text = page(&Client::new(&place).env("TLS_MAX", version), port);
        assert!(
            text.contains("HTTP/1.0 200") && text.contains(&format!("TLSv{version}")),
            "{text}"
        );
    }
    crate::harness::process::kill_group(child.id());
    child.wait().unwrap();
    let gnutls = need!("gnutls-serv");
    let mut command = Command::new(gnutls);
    command.args([
        "--http",
        "--quiet",
        "--x509certfile",
        &certificate,
        "--x509keyfile",
        &key,
    ]);
    let (mut child, port) = foreign(&mut command, "--port");
    let text = page(&Client::new(&place), port);
    crate::harness::process::kill_group(child.id());
    child.wait().unwrap();
    assert!(
        text.contains("HTTP/1.0 200") && text.contains("</BODY></HTML>"),
        "{text}"
    );
}
