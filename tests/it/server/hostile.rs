//! Clients that mean no good: none of them leaves a process behind, reaches the
//! program, or keeps the next client from being served.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use openssl::ssl::SslVersion;

use crate::harness::dial::{Noise, linger_zero, plain};
use crate::harness::process::{self, PATIENCE};
use crate::harness::{Dial, Place, Server, Setup, eventually};

/// A server whose program leaves a mark for each run.
fn guarded(place: &Place) -> Server {
    let script = format!("echo run >>{}; cat", place.text("runs"));
    Setup::script(place, &script).options("-v -T 5").start()
}

/// Everything is as it was, and an honest client is served: `runs` programs ran
/// before it.
fn unharmed(place: &Place, server: &Server, runs: usize) {
    server.quiet();
    let seen = fs::read_to_string(place.path("runs")).unwrap_or_default();
    assert_eq!(
        seen.lines().count(),
        runs,
        "programs that ran: {}",
        server.log()
    );
    let mut client = Dial::to(server).connect();
    client.send("honest");
    client.half_close();
    assert_eq!(client.text(), "honest");
    server.quiet();
}

/// A ClientHello as the library makes it.
fn hello(dial: Dial) -> Vec<u8> {
    #[derive(Debug, Default)]
    struct Catch(Vec<u8>);
    impl Read for Catch {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Catch {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    match dial.ssl().connect(Catch::default()) {
        Err(openssl::ssl::HandshakeError::WouldBlock(half)) => half.get_ref().0.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn garbage_is_refused() {
    let place = Place::new("garbage");
    let server = guarded(&place);
    for seed in 0..20 {
        let mut stream = plain(server.at);
        // Some of it looks like the head of a record.
        let mut bytes = Noise::new(seed).bytes(1000);
        if seed % 2 == 0 {
            bytes[..5].copy_from_slice(&[22, 3, u8::try_from(seed).unwrap() / 4, 3, 0xe3]);
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    unharmed(&place, &server, 0);
    for line in server.log().lines() {
        assert!(
            line.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{line:?}"
        );
    }
}

#[test]
fn half_a_client_hello_starts_nothing() {
    let place = Place::new("half-hello");
    let server = guarded(&place);
    let whole = hello(Dial::to(&server));
    for part in [
        0,
        1,
        4,
        5,
        6,
        9,
        43,
        whole.len() / 2,
        whole.len() - 1,
        whole.len(),
    ] {
        for reset in [false, true] {
            let mut stream = plain(server.at);
            stream.write_all(&whole[..part]).unwrap();
            if reset {
                linger_zero(&stream);
                drop(stream);
            } else {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    }
    unharmed(&place, &server, 0);
}

#[test]
fn an_sslv2_hello_is_refused_and_named() {
    let place = Place::new("sslv2");
    let server = guarded(&place);
    let mut stream = plain(server.at);
    // CLIENT-HELLO, version 2.0, three ciphers, no session, 16 bytes of challenge.
    let mut bytes = vec![0x80, 34, 1, 0, 2, 0, 9, 0, 0, 0, 16];
    bytes.extend([1, 0, 128, 7, 0, 192, 3, 0, 128]);
    bytes.extend([0xaa; 16]);
    stream.write_all(&bytes).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    let line = server.line("dropping TLS connection");
    assert!(!line.contains("internal"), "{line}");
    unharmed(&place, &server, 0);
}

/// A stream that passes `left` bytes each way and then resets.
#[derive(Debug)]
struct Cut {
    stream: TcpStream,
    left: usize,
}

impl Cut {
    fn take(&mut self, wanted: usize) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(wanted.min(self.left))
    }
}

impl Read for Cut {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.take(bytes.len())?;
        let got = self.stream.read(&mut bytes[..count])?;
        self.left -= got;
        Ok(got)
    }
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.take(bytes.len())?;
        let sent = self.stream.write(&bytes[..count])?;
        self.left -= sent;
        Ok(sent)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn resets_in_every_phase_leave_nothing() {
    let place = Place::new("resets");
    let server = Setup::new(&place, &["cat"]).options("-v -T 5").start();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (mut complete, mut tries) = (0, 0);
        // With a post-quantum key share a handshake takes 4000 bytes.
        for left in (0..6000).step_by(120) {
            tries += 1;
            let stream = Cut {
                stream: plain(server.at),
                left,
            };
            match Dial::to(&server).version(version).ssl().connect(stream) {
                Ok(mut tls) => {
                    complete += 1;
                    let _ = tls.write_all(&Noise::new(1).bytes(left / 2));
                    let _ = tls.read(&mut [0; 100]);
                    linger_zero(&tls.get_ref().stream);
                }
                Err(openssl::ssl::HandshakeError::Failure(half)) => {
                    linger_zero(&half.get_ref().stream);
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(
            complete > 0 && complete < tries,
            "{version:?}: {complete} of {tries} came through"
        );
    }
    server.quiet();
    let mut client = Dial::to(&server).connect();
    client.send("honest");
    client.half_close();
    assert_eq!(client.text(), "honest");
    server.quiet();
}

#[test]
fn a_large_hello_in_pieces_of_one_byte_is_served() {
    /// Every byte in a segment of its own, as far as the kernel lets us.
    #[derive(Debug)]
    struct Drip(TcpStream);
    impl Read for Drip {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0.read(bytes)
        }
    }
    impl Write for Drip {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            for byte in bytes {
                self.0.write_all(&[*byte])?;
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let place = Place::new("large-hello");
    let server = Setup::new(&place, &["cat"]).start();
    let mut protocols = Vec::new();
    for count in 0..60_u8 {
        protocols.push(255);
        protocols.extend([b'a' + count % 26; 255]);
    }
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let dial = || {
            Dial::to(&server)
                .version(version)
                .with(|c| c.set_alpn_protos(&protocols).unwrap())
        };
        let size = hello(dial()).len();
        assert!((15_000..17_000).contains(&size), "{size}");
        let stream = plain(server.at);
        stream.set_nodelay(true).unwrap();
        let mut tls = dial().ssl().connect(Drip(stream)).unwrap();
        tls.write_all(b"served").unwrap();
        let mut back = [0; 6];
        tls.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"served");
    }
    server.quiet();
}

#[test]
fn plaintext_behind_the_handshake_is_an_error() {
    let place = Place::new("plaintext");
    let server = guarded(&place);
    let mut client = Dial::to(&server).connect();
    client.send("x");
    assert_eq!(client.read_exact(1), b"x");
    client
        .stream
        .get_mut()
        .write_all(b"this is not a record\r\n")
        .unwrap();
    let (bytes, end) = client.rest();
    assert!(bytes.is_empty(), "{end:?}");
    unharmed(&place, &server, 1);
}

#[test]
fn new_keys_may_be_asked_for_at_any_time() {
    crate::harness::need!("openssl");
    let place = Place::new("key-update");
    let server = Setup::new(&place, &["cat"]).options("-v").start();
    let said = place.path("said");
    let file = fs::File::create(&said).unwrap();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &server.at.to_string(), "-tls1_3"])
        .stdin(Stdio::piped())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The commands K and k tell of new keys, with and without a wish for the
    // server's; each is a read of its own.
    for (line, answer, count) in [
        ("one", "one", 1),
        ("K", "KEYUPDATE", 1),
        ("two", "two", 1),
        ("k", "KEYUPDATE", 2),
        ("three", "three", 1),
    ] {
        // In one piece: a command counts only at the beginning of a read.
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
        eventually(line, || {
            let text = fs::read_to_string(&said).unwrap();
            let whole = format!("{answer}\n");
            let found = text.split_inclusive('\n').filter(|line| **line == whole);
            (found.count() >= count).then_some(())
        });
    }
    stdin.write_all(b"Q\n").unwrap();
    process::wait(&mut child, PATIENCE);
    server.line("sslserver: end ");
    server.quiet();
}
