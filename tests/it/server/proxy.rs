//! `-L`: the PROXY header's addresses, its limits, and real haproxies.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::harness::dial::{self, Noise, plain};
use crate::harness::{Dial, Place, Server, Setup, Tls, compile, eventually, need, ours, process};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What every program here says of its connection.
const ENDS: &str = "echo $SSLREMOTEIP $SSLREMOTEPORT $SSLLOCALIP $SSLLOCALPORT $PROTO; cat";

/// A header of version 2.
fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// The addresses of a header of version 2.
fn addresses(client: SocketAddr, server: SocketAddr) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for ip in [client.ip(), server.ip()] {
        match ip {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(server.port().to_be_bytes());
    (if client.is_ipv4() { 0x11 } else { 0x21 }, bytes)
}

/// Headers of both versions, that of version 2 with `padding` bytes of TLV.
fn headers(client: &str, server: &str, padding: u16) -> [Vec<u8>; 2] {
    let (client, server): (SocketAddr, SocketAddr) =
        (client.parse().unwrap(), server.parse().unwrap());
    let word = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!(
        "PROXY {word} {} {} {} {}\r\n",
        client.ip(),
        server.ip(),
        client.port(),
        server.port()
    );
    let (family, mut rest) = addresses(client, server);
    rest.push(4);
    rest.extend(padding.to_be_bytes());
    rest.extend(vec![0; padding.into()]);
    [line.into_bytes(), block(0x21, family, &rest)]
}

/// A connection that began with these bytes.
fn begun(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = plain(server.at);
    stream.write_all(bytes).unwrap();
    stream
}

/// TLS behind a header.
fn connect(server: &Server, header: &[u8]) -> Tls {
    Dial::to(server)
        .over(begun(server, header))
        .unwrap_or_else(|why| panic!("{why}: {}", server.log()))
}

/// The server ended the connection and wrote nothing to it.
fn nothing(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    // Bytes that it left unread make a reset of the close.
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    assert!(bytes.is_empty(), "{bytes:?}");
}

/// Puts a header before the first bytes that are written, in the same write.
#[derive(Debug)]
struct Preceded {
    header: Vec<u8>,
    stream: TcpStream,
}

impl Write for Preceded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let own = self.header.len();
        if own == 0 {
            return self.stream.write(bytes);
        }
        self.header.extend(bytes);
        self.stream.write_all(&std::mem::take(&mut self.header))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Read for Preceded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.read(bytes)
    }
}

#[test]
fn the_addresses_of_the_header_take_the_sockets_place() {
    let place = Place::new("proxied");
    let server = Setup::script(&place, ENDS)
        .options("-v -L ::1,127.0.0.0/8")
        .start();
    for (client, local, seen) in [
        (
            "192.0.2.7:56324",
            "198.51.100.1:465",
            "192.0.2.7 56324 198.51.100.1 465 SSL\n",
        ),
        (
            "[2001:db8::7]:1",
            "[2001:db8::1]:995",
            "2001:db8::7 1 2001:db8::1 995 SSL\n",
        ),
        // As a proxy sees an IPv4 client on its IPv6 socket.
        (
            "[::ffff:192.0.2.8]:2",
            "[2001:db8::1]:995",
            "192.0.2.8 2 2001:db8::1 995 SSL\n",
        ),
    ] {
        for header in headers(client, local, 0) {
            let mut client = connect(&server, &header);
            assert_eq!(client.line(), seen);
            client.half_close();
            assert_eq!(client.text(), "");
        }
    }
    server.lines("sslserver: end ", 6);
    server.quiet();
    let log = server.log();
    assert_eq!(log.matches(" from 192.0.2.7\n").count(), 2, "{log}");
    assert_eq!(
        log.matches("localhost:198.51.100.1:465 :192.0.2.7::56324\n")
            .count(),
        2,
        "{log}"
    );
    assert!(!log.contains("127.0.0.1"), "{log}");
}

#[test]
fn a_header_without_addresses_keeps_those_of_the_socket() {
    let place = Place::new("unproxied");
    // On a listener for both families the sender's address is a mapped one.
    let server = Setup::script(&place, ENDS)
        .host("0")
        .options("-L 127.0.0.1/32")
        .start();
    let (family, rest) = addresses(
        "192.0.2.7:1".parse().unwrap(),
        "192.0.2.1:2".parse().unwrap(),
    );
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.1 1 2\r\n".to_vec(),
        block(0x20, 0, b""),
        // A health check that carries what is to be ignored.
        block(0x20, family, &rest),
        block(0x20, 0xff, &[b'x'; 3000]),
        block(0x21, 0, b"anything"),
        block(0x21, 0x31, &[b'/'; 216]),
    ] {
        let stream = begun(&server, &header);
        let own = stream.local_addr().unwrap().port();
        let mut client = Dial::to(&server).over(stream).unwrap();
        let seen = format!("127.0.0.1 {own} 127.0.0.1 {} SSL\n", server.port);
        assert_eq!(client.line(), seen, "{header:?}");
    }
    assert_eq!(server.log(), "");
}

#[test]
fn no_byte_behind_the_header_is_taken() {
    let place = Place::new("one-segment");
    let server = Setup::script(&place, ENDS).options("-L 127.0.0.1").start();
    // Longer than one look of the server, and than the buffer of a header that
    // a sender may make; and just as long as that look.
    for padding in [0, 500, 480, 481, 60000] {
        for header in headers("192.0.2.7:1", "192.0.2.1:2", padding) {
            let preceded = Preceded {
                header,
                stream: plain(server.at),
            };
            let mut stream = Dial::to(&server)
                .ssl()
                .connect(preceded)
                .unwrap_or_else(|why| panic!("{padding}: {why}: {}", server.log()));
            let seen = b"192.0.2.7 1 192.0.2.1 2 SSL\n";
            let mut line = vec![0; seen.len()];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(line, seen);
        }
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let place = Place::new("bytewise");
    let server = Setup::script(&place, ENDS)
        .options("-L 127.0.0.0/8")
        .start();
    for header in headers("192.0.2.7:1", "192.0.2.1:2", 5) {
        let mut stream = plain(server.at);
        for byte in header {
            stream.write_all(&[byte]).unwrap();
        }
        let mut client = Dial::to(&server).over(stream).unwrap();
        assert_eq!(client.line(), "192.0.2.7 1 192.0.2.1 2 SSL\n");
    }
}

#[test]
fn a_header_that_stalls_or_drips_is_waited_for_five_seconds_in_all() {
    let place = Place::new("stall");
    let script = format!("echo run >>{}", place.text("runs"));
    let server = Setup::script(&place, &script)
        .options("-v -L 127.0.0.0/8")
        .start();
    let silent = plain(server.at);
    let halves: Vec<_> = headers("192.0.2.7:1", "192.0.2.1:2", 0)
        .iter()
        .map(|header| begun(&server, &header[..header.len() - 1]))
        .collect();
    // A deadline that each byte renews would end in a line that is too long.
    let mut dripping = begun(&server, b"PROXY UNKNOWN ");
    let text = " 5 seconds";
    while server.log().matches(text).count() < 4 {
        if dripping.write_all(b"x").is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    for line in server.lines("dropping", 4) {
        assert!(
            line.starts_with(
                "sslserver: warning: dropping connection, no PROXY header from 127.0.0.1: "
            ) && line.ends_with(text),
            "{line}"
        );
    }
    for line in server.lines("sslserver: end ", 4) {
        assert!(line.ends_with(" status 28416"), "{line}");
    }
    halves.into_iter().chain([silent]).for_each(nothing);
    server.quiet();
    assert!(!place.path("runs").exists());
}

#[test]
fn a_header_that_is_missing_or_malformed_ends_the_connection() {
    let place = Place::new("malformed");
    let script = format!("echo run >>{}; cat", place.text("runs"));
    let server = Setup::script(&place, &script)
        .options("-v -L 127.0.0.0/8")
        .start();
    let line = |text: &str| format!("{text}\r\n").into_bytes();
    let (_, ends) = addresses(
        "192.0.2.7:1".parse().unwrap(),
        "192.0.2.1:2".parse().unwrap(),
    );
    let damaged = [&ends[..], b"\x03\0\x04\xde\xad\xbe\xef"].concat();
    let cases = [
        (b"\x16\x03\x01\x02\0\x01".to_vec(), "the sender began with "),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "the sender began with "),
        (b"\n".to_vec(), "the sender began with "),
        (line("PROXY TCP4 01.2.3.4 1.2.3.4 1 2"), "address"),
        (line("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2"), "port"),
        (line("PROXY TCP4 1.2.3.4 1.2.3.4  1 2"), "two addresses"),
        (line("PROXY UDP4 1.2.3.4 1.2.3.4 1 2"), "family"),
        (b"PROXY UNKNOWN\n".to_vec(), "end in CR LF"),
        (b"PROXY UNKNOWN\rx".to_vec(), "end in CR LF"),
        ([b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat(), "107 bytes"),
        (block(0x31, 0x11, &ends), "version"),
        (block(0x22, 0x11, &ends), "command"),
        (block(0x21, 0x41, &ends), "family"),
        (block(0x21, 0x11, &ends[1..]), "too short"),
        (block(0x21, 0x11, &damaged), "checksum"),
        (block(0x21, 0x11, &damaged[..18]), "cut off"),
    ];
    for (count, (bytes, why)) in cases.iter().enumerate() {
        // Both while more may come and behind it.
        nothing(begun(&server, bytes));
        let lines = server.lines("sslserver: warning: ", count + 1);
        let last = &lines[count];
        assert!(
            last.contains("dropping connection, no PROXY header from 127.0.0.1: ")
                && last.contains(why),
            "{why}: {last}"
        );
    }
    // Not even an end of file makes half a header one.
    let stream = begun(&server, b"PROXY UNKNOWN");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    server.line(": the sender closed the connection after 13 bytes of it");
    nothing(stream);
    for line in server.lines("sslserver: end ", cases.len() + 1) {
        assert!(line.ends_with(" status 28416"), "{line}");
    }
    server.quiet();
    assert!(!place.path("runs").exists());
    let log = server.log();
    assert!(!log.contains("sslserver: pid "), "{log}");
    assert!(
        log.bytes()
            .all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)),
        "{log:?}"
    );
    let mut client = connect(&server, b"PROXY UNKNOWN\r\n");
    client.send("honest");
    client.half_close();
    assert_eq!(client.text(), "honest");
}

#[test]
fn a_sender_elsewhere_is_not_heard() {
    let place = Place::new("stranger");
    let server = Setup::script(&place, ENDS)
        .options("-v -L 127.0.0.2,127.0.1.0/24,::1")
        .start();
    let [line, block] = headers("127.0.0.2:1", "127.0.0.2:2", 0);
    for header in [&line[..], &block, b"", b"\x16\x03\x01"] {
        nothing(begun(&server, header));
    }
    for line in server.lines("dropping", 4) {
        assert_eq!(
            line,
            "sslserver: warning: dropping connection, sender 127.0.0.1 is in no network of -L"
        );
    }
    for line in server.lines("sslserver: end ", 4) {
        assert!(line.ends_with(" status 28416"), "{line}");
    }
    for from in ["127.0.0.2:0", "127.0.1.77:0"] {
        // The header is needed from those who are heard.
        let mut dial = Dial::to(&server).from(from.parse().unwrap());
        dial = dial.blindly();
        assert!(dial.attempt().is_err());
    }
    server.lines("the sender began with \"", 2);
    server.quiet();
    assert!(!server.log().contains("sslserver: ok"), "{}", server.log());
}

#[test]
fn nothing_is_said_before_the_header() {
    let place = Place::new("silence");
    // Under -n the banner is written in plaintext and at once.
    for letters in ["-B hello", "-n -B hello"] {
        let server = Setup::new(&place, &["cat"])
            .options("-v -L 127.0.0.0/8")
            .options(letters)
            .start();
        let mut stream = begun(&server, b"PROXY UNKNOWN\r");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let error = stream.read(&mut [0]).expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        stream.set_read_timeout(Some(process::PATIENCE)).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut bytes = [0; 5];
        if letters.contains("-n") {
            stream.read_exact(&mut bytes).unwrap();
        } else {
            let mut client = Dial::to(&server).over(stream).unwrap();
            bytes.copy_from_slice(&client.read_exact(5));
        }
        assert_eq!(&bytes, b"hello");
    }
}

#[test]
fn rules_see_the_address_of_the_header() {
    let place = Place::new("proxied-rules");
    let text = "192.0.2.9:deny\n192.0.2.:allow,SEEN=\"net\"\n127.:deny\n:allow\n";
    let cdb = compile(&place, "rules.cdb", text);
    let server = Setup::script(&place, "echo $SSLREMOTEIP $SEEN")
        .options("-v -L 127.0.0.0/8")
        .rules(&cdb)
        .start();
    for header in headers("192.0.2.7:1", "192.0.2.1:2", 0) {
        assert_eq!(connect(&server, &header).text(), "192.0.2.7 net\n");
    }
    server.lines("sslserver: end ", 2);
    let [denied, _] = headers("192.0.2.9:1", "192.0.2.1:2", 0);
    // The sender's own address is denied too, where it is what counts.
    for (count, header) in [&denied[..], b"PROXY UNKNOWN\r\n"].iter().enumerate() {
        assert!(Dial::to(&server).over(begun(&server, header)).is_err());
        let ends = server.lines("sslserver: end ", 3 + count);
        assert!(ends[2 + count].ends_with(" status 25600"), "{ends:?}");
    }
    let denials = server.lines("sslserver: deny ", 2);
    assert!(denials[0].ends_with(":192.0.2.9::1"), "{denials:?}");
    assert!(denials[1].contains(":127.0.0.1::"), "{denials:?}");
    server.quiet();
}

#[test]
fn capital_c_counts_clients_not_senders() {
    let place = Place::new("proxied-limit");
    let server = Setup::new(&place, &["cat"])
        .options("-v -C 2 -L 127.0.0.0/8")
        .start();
    let header = |client: &str, version: usize| {
        let six = client.starts_with('[');
        let server = if six { "[::1]:2" } else { "192.0.2.1:2" };
        headers(client, server, 0).into_iter().nth(version).unwrap()
    };
    let mut first = connect(&server, &header("192.0.2.7:1", 0));
    let _second = connect(&server, &header("192.0.2.7:2", 1));
    for count in 1..3 {
        let third = header("192.0.2.7:3", count - 1);
        assert!(Dial::to(&server).over(begun(&server, &third)).is_err());
        let lines = server.lines("warning", count);
        assert_eq!(
            lines[count - 1],
            "sslserver: warning: dropping connection from 192.0.2.7: it is at its limit of 2 (-C)"
        );
        server.lines(" status 28416", count);
    }
    // Others come through the same sender; a network of 64 bits is one.
    let _others: Vec<_> = ["192.0.2.8:1", "[2001:db8::1]:1", "[2001:db8::2]:1"]
        .iter()
        .map(|client| connect(&server, &header(client, 1)))
        .collect();
    let sixth = header("[2001:db8::ffff:0:0:3]:1", 0);
    assert!(Dial::to(&server).over(begun(&server, &sixth)).is_err());
    server.line("from 2001:db8::ffff:0:0:3: it is at its limit of 2");
    // Headers that are still to come count for nobody, and hold nobody up.
    let _waiting: Vec<_> = (0..3).map(|_| begun(&server, b"PROXY ")).collect();
    first.half_close();
    assert_eq!(first.text(), "");
    drop(first);
    server.lines("sslserver: end ", 4);
    // Its place is free when its TLS process has ended, too.
    let header = header("192.0.2.7:4", 0);
    let mut again = eventually("room again", || {
        Dial::to(&server).over(begun(&server, &header)).ok()
    });
    again.send("x");
    assert_eq!(again.read_exact(1), b"x");
}

#[test]
fn a_list_that_is_none_is_wrong_usage() {
    let place = Place::new("bad-list");
    for list in ["", "127.0.0.0/33", "127.0.0.1,", "localhost", "::1, ::2"] {
        let finished = Setup::new(&place, &["cat"])
            .options("-L")
            .option(list)
            .refused();
        finished.failed(100, "usage: -L: ");
    }
}

#[test]
fn connections_that_wait_for_their_header_outlive_term() {
    let place = Place::new("term-header");
    for letters in ["", "-C 1"] {
        let server = Setup::new(&place, &["cat"])
            .options("-v -L 127.0.0.0/8")
            .options(letters)
            .start();
        let [_, header] = headers("192.0.2.7:1", "192.0.2.1:2", 0);
        let (front, back) = header.split_at(20);
        let waiting: Vec<_> = (0..3).map(|_| begun(&server, front)).collect();
        server.line("sslserver: status: 3/40");
        server.retire();
        for mut stream in waiting {
            stream.write_all(back).unwrap();
            let mut client = Dial::to(&server)
                .over(stream)
                .unwrap_or_else(|why| panic!("{letters}: {why}: {}", server.log()));
            client.send("still here");
            client.half_close();
            assert_eq!(client.text(), "still here");
        }
        server.over();
    }
}

#[test]
fn clients_in_the_backlog_are_served_after_term() {
    let place = Place::new("term-backlog");
    let server = Setup::new(&place, &["cat"]).options("-v -c 3").start();
    let first: Vec<_> = (0..3).map(|_| Dial::to(&server).connect()).collect();
    server.line("sslserver: status: 3/3");
    let waiting: Vec<_> = (0..3).map(|_| plain(server.at)).collect();
    // It learns of room for them and of its end at the same time.
    server.signal(Signal::SIGSTOP);
    drop(first);
    eventually("the first connections have ended", || {
        server
            .busy()
            .iter()
            .all(|one| one.state == 'Z')
            .then_some(())
    });
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    server.retire();
    for (seed, stream) in waiting.into_iter().enumerate() {
        let bytes = Noise::new(seed as u64).bytes(1000);
        let mut client = Dial::to(&server)
            .over(stream)
            .unwrap_or_else(|why| panic!("{seed}: {why}: {}", server.log()));
        client.send(&bytes);
        client.half_close();
        assert!(client.rest().0 == bytes);
    }
    assert!(TcpStream::connect(server.at).is_err(), "nobody listens");
    server.over();
}

/// A haproxy whose frontend is a socket of ours.
struct Haproxy {
    child: Child,
    at: SocketAddr,
    log: std::path::PathBuf,
}

impl Haproxy {
    fn start(place: &Place, program: &std::path::Path, frontend: &str, servers: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        // A client is lost only where every server refuses it.
        let mut text = format!(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n \
             timeout check 10s\n retries 10\n option redispatch 1\n balance roundrobin\n\
             frontend own\n bind fd@0\n {frontend}\n default_backend all\nbackend all\n"
        );
        for (number, server) in servers.iter().enumerate() {
            writeln!(text, " server s{number} {server}").unwrap();
        }
        let config = place.fresh("haproxy.cfg");
        std::fs::write(&config, text).unwrap();
        let log = place.fresh("haproxy.log");
        let child = Command::new(program)
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Haproxy { child, at, log }
    }

    fn connect(&self, from: Option<SocketAddr>) -> Tls {
        let mut dial = Dial::at(self.at);
        if let Some(from) = from {
            dial = dial.from(from);
        }
        dial.connect()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let died = self.child.try_wait().unwrap();
        process::kill_group(self.child.id());
        let _ = self.child.wait();
        if died.is_some() || thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            println!("log of haproxy ({died:?}):\n{log}");
        }
    }
}

#[test]
fn behind_haproxy_the_client_is_seen() {
    let haproxy = need!("haproxy");
    let place = Place::new("haproxy");
    let server = Setup::script(&place, ENDS)
        .options("-v -C 1 -L 127.0.0.50/31")
        .start();
    for (number, version) in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
    ]
    .into_iter()
    .enumerate()
    {
        let frontend = "unique-id-format %[uuid()]\n tcp-request inspect-delay 10s\n \
                        tcp-request content accept if { req.ssl_hello_type 1 }";
        let line = format!("{} source 127.0.0.50 {version}", server.at);
        let proxy = Haproxy::start(&place, &haproxy, frontend, &[line]);
        let from = format!("127.0.0.{}:0", 60 + number).parse().unwrap();
        let mut client = proxy.connect(Some(from));
        let own = client.stream.get_ref().local_addr().unwrap();
        let seen = format!(
            "{} {} 127.0.0.1 {} SSL\n",
            own.ip(),
            own.port(),
            proxy.at.port()
        );
        assert_eq!(client.line(), seen, "{version}");
        let bytes = Noise::new(number as u64).bytes(200_000);
        client.send(&bytes);
        assert!(client.read_exact(bytes.len()) == bytes);
        client.half_close();
        assert_eq!(client.text(), "");
        server.line(&format!(" from {}", own.ip()));
    }
    server.lines("sslserver: end ", 3);
    server.quiet();
    let log = server.log();
    assert!(!log.contains("127.0.0.50"), "{log}");
    assert!(!log.contains("warning"), "{log}");
}

#[test]
fn health_checks_of_haproxy_come_from_haproxy() {
    let haproxy = need!("haproxy");
    let place = Place::new("haproxy-checks");
    let server = Setup::new(&place, &["cat"])
        .options("-v -L 127.0.0.50")
        .start();
    // LOCAL, and then the TLS handshake of the check.
    let line = format!(
        "{} source 127.0.0.50 send-proxy-v2 check check-ssl verify none inter 100",
        server.at
    );
    let _proxy = Haproxy::start(&place, &haproxy, "", &[line]);
    for line in server.lines("sslserver: ok ", 2) {
        assert!(line.contains(" :127.0.0.50::"), "{line}");
        assert!(
            line.contains(&format!(":127.0.0.1:{} ", server.port)),
            "{line}"
        );
    }
}

#[test]
fn a_health_check_is_no_warning() {
    let place = Place::new("glance");
    for (options, words) in [("-v", &["cat"][..]), ("-vn", &["cat"])] {
        let server = Setup::new(&place, words)
            .options("-L 127.0.0.50")
            .options(options)
            .start();
        let from: SocketAddr = "127.0.0.50:0".parse().unwrap();
        let checks: [&[u8]; 3] = [b"", &block(0x20, 0, b""), b"PROXY UNKNOWN\r\n"];
        for header in checks {
            for reset in [false, true] {
                let mut stream = dial::tcp(server.at, Some(from), None);
                stream.write_all(header).unwrap();
                if reset {
                    dial::linger_zero(&stream);
                }
            }
        }
        for line in server.lines("sslserver: end ", 6) {
            assert!(line.ends_with(" status 0"), "{line}");
        }
        server.quiet();
        let log = server.log();
        assert!(!log.contains("warning"), "{log}");
        if options == "-v" {
            assert_eq!(log.matches(": a health check").count(), 6, "{log}");
            assert!(!log.contains("sslserver: ok"), "{log}");
        }
    }
    // As a real one does it, with every way to send the header.
    let haproxy = need!("haproxy");
    for (options, how) in [
        ("-v", "send-proxy-v2 check"),
        ("-v", "send-proxy check"),
        ("-vn", "send-proxy-v2 check"),
    ] {
        let handoff = [&*ours("starttls-handoff"), "smtp", "/bin/sh", "-c"];
        let words = [&handoff[..], &["echo 220 mx; cat"]].concat();
        let words = if options == "-vn" {
            &words[..]
        } else {
            &["cat"]
        };
        let server = Setup::new(&place, words)
            .options("-L 127.0.0.50")
            .options(options)
            .start();
        let line = format!("{} source 127.0.0.50 {how} inter 100", server.at);
        let _proxy = Haproxy::start(&place, &haproxy, "", &[line]);
        server.lines("sslserver: end ", 10);
        assert!(!server.log().contains("warning"), "{how}: {}", server.log());
    }
}

/// Waits until nobody listens there, and keeps nobody out by looking.
fn unbound(at: SocketAddr) {
    eventually("the old server's socket is closed", || {
        let probe = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        setsockopt(&probe, sockopt::ReuseAddr, &true).unwrap();
        bind(probe.as_raw_fd(), &SockaddrStorage::from(at)).ok()
    });
}

/// How many connections the kernel has made there that nobody has accepted.
fn backlog(at: SocketAddr) -> usize {
    let IpAddr::V4(ip) = at.ip() else {
        panic!("{at} is not in /proc/net/tcp");
    };
    // Addresses in memory order, state 0A: LISTEN, then the two queues.
    let address = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), at.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields[1] == address && fields[3] == "0A").then(|| fields[4].to_owned())
    });
    let queues = line.unwrap_or_else(|| panic!("nobody listens at {at}"));
    let (_, waiting) = queues.split_once(':').unwrap();
    usize::from_str_radix(waiting, 16).unwrap()
}

#[test]
fn a_server_that_stops_and_starts_behind_haproxy_loses_no_connection() {
    let haproxy = need!("haproxy");
    let place = Place::new("haproxy-restart");
    // Addresses that nobody else binds to: the port must be free again.
    let setup = |host: &str| {
        Setup::new(&place, &["cat"])
            .host(host)
            .options("-v -c 100 -C 50 -b 100 -L 127.0.0.0/8")
    };
    let steady = setup("127.0.0.41").start();
    let mut changing = setup("127.0.0.42").start();
    let lines = [
        format!("{} send-proxy", steady.at),
        format!("{} send-proxy-v2", changing.at),
    ];
    let proxy = Haproxy::start(&place, &haproxy, "", &lines);
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = |seed: usize| {
        let mut noise = Noise::new(seed as u64);
        while !over.load(Ordering::Relaxed) {
            let bytes = noise.bytes(20_000);
            let mut client = proxy.connect(None);
            client.send(&bytes);
            client.half_close();
            let (back, end) = client.rest();
            assert!(
                back == bytes,
                "{} bytes came back, then {end:?}",
                back.len()
            );
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let stop = process::Stop(&over);
        let threads: Vec<_> = (1..5).map(|seed| scope.spawn(move || load(seed))).collect();
        let more = |what: &str, count: usize| {
            let goal = served.load(Ordering::Relaxed) + count;
            eventually(what, || {
                let failed = threads.iter().any(thread::ScopedJoinHandle::is_finished);
                assert!(!failed, "a connection was lost");
                (served.load(Ordering::Relaxed) >= goal).then_some(())
            });
        };
        for round in 0..4 {
            changing.lines("sslserver: ok ", 10);
            more("both serve", 10);
            if round % 2 == 1 {
                // Nothing is more certain to be lost than the backlog.
                changing.signal(Signal::SIGSTOP);
                eventually("clients wait in the backlog", || {
                    (backlog(changing.at) > 1).then_some(())
                });
                changing.signal(Signal::SIGTERM);
                changing.signal(Signal::SIGCONT);
            }
            changing.retire();
            more("one serves", 20);
            unbound(changing.at);
            let next = setup("127.0.0.42").port(changing.port).start();
            changing.over();
            assert!(!changing.log().contains("warning"), "{}", changing.log());
            changing = next;
        }
        changing.lines("sslserver: ok ", 10);
        drop(stop);
        for thread in threads {
            thread.join().expect("no connection was lost");
        }
    });
    for server in [&steady, &changing] {
        server.quiet();
        assert!(!server.log().contains("warning"), "{}", server.log());
    }
}
