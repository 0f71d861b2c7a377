//! Slow and greedy clients: silent ones, ones that send a byte a second in each
//! phase, ones that read nothing, and one that connects again and again. Whoever
//! comes in the ordinary way is served meanwhile.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslMethod};

use crate::Outcome;
use crate::client::{Client, Errand};
use crate::dice::Dice;
use crate::harness::process::Stop;
use crate::harness::{Dial, Place, Server, dial};
use crate::options::Settings;
use crate::service::{self, Way};

/// How many of a kind.
const MANY: u8 = 40;
/// How long an ordinary client may have to wait, on a machine that does much else.
const LONGEST: Duration = Duration::from_secs(20);
/// How long each kind goes on.
const TIME: Duration = Duration::from_secs(8);

/// What a client does, until it is to end.
type Deed = fn(&Greed<'_>, Ipv4Addr, &AtomicBool);

/// Whom slow and greedy clients come to, and how often they have connected.
struct Greed<'a> {
    server: &'a Server,
    way: Way,
    connected: AtomicU64,
}

pub fn run(_: &Settings, seed: u64) -> Outcome {
    let kinds: [(&str, Way, Deed); 9] = [
        ("40 silent clients", Way::AtOnce, silent),
        ("40 silent clients", Way::StartTls, silent),
        ("40 silent clients", Way::Delayed, silent),
        (
            "a byte a second of a ClientHello",
            Way::AtOnce,
            hello_by_byte,
        ),
        (
            "a byte a second of a ClientHello",
            Way::StartTls,
            hello_by_byte,
        ),
        (
            "a byte a second of commands",
            Way::StartTls,
            commands_by_byte,
        ),
        ("a byte a second of data", Way::AtOnce, data_by_byte),
        ("windows of nothing", Way::AtOnce, unread),
        ("connections without end", Way::AtOnce, greedy),
    ];
    kinds
        .into_iter()
        .map(|(title, way, deed)| crate::caught(|| one_kind(title, way, deed, seed)))
        .collect()
}

/// Forty of a kind from two networks, of which each has twenty places, and one
/// ordinary client after the other.
fn one_kind(title: &str, way: Way, deed: Deed, seed: u64) -> Result<String, String> {
    let place = Place::new("soak-slow");
    let server = service::setup(&place, way, 40)
        .options("-c 60 -C 20 -T 5")
        .start();
    let greed = Greed {
        server: &server,
        way,
        connected: AtomicU64::new(0),
    };
    let over = AtomicBool::new(false);
    let client = Client::new(None);
    let mut waits = Vec::new();
    let mut lost = None;
    thread::scope(|scope| {
        let _stop = Stop(&over);
        for number in 0..MANY {
            let (greed, over) = (&greed, &over);
            let from = Ipv4Addr::new(127, 210, 0, 1 + number % 2);
            scope.spawn(move || deed(greed, from, over));
        }
        let end = Instant::now() + TIME;
        let mut number = 0;
        while Instant::now() < end && lost.is_none() {
            number += 1;
            let came = Instant::now();
            let errand = Errand {
                at: server.at,
                way,
                from: Ipv4Addr::new(127, 220, 0, 1),
                name: "localhost",
                wants_tls: true,
            };
            let mut dice = Dice::new(seed, number);
            let served = client.begin(&errand, &mut dice);
            lost = served.and_then(|served| served.finish(&mut dice)).err();
            waits.push(came.elapsed());
        }
    });
    let connected = greed.connected.into_inner();
    server.quiet();
    server.stop();
    let longest = waits.iter().max().copied().unwrap_or_default();
    let line = format!(
        "{}: {title} ({connected} connections): {} ordinary clients served meanwhile, the slowest in {} ms; \
         no process left",
        way.name(),
        waits.len(),
        longest.as_millis()
    );
    match lost {
        Some(why) => Err(format!("{line}; one was not: {why}")),
        None if longest > LONGEST => Err(format!("too slow: {line}")),
        None => Ok(line),
    }
}

impl Greed<'_> {
    fn connect(&self, from: Ipv4Addr) -> Option<TcpStream> {
        let from = Some(SocketAddr::from((from, 0)));
        let stream = dial::try_tcp(self.server.at, from, None).ok()?;
        self.connected.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }

    /// Up to where TLS begins.
    fn connect_for_tls(&self, from: Ipv4Addr) -> Option<TcpStream> {
        let mut stream = self.connect(from)?;
        if self.way == Way::StartTls {
            stream.write_all(b"STARTTLS\r\n").ok()?;
            // The greeting, and the word to begin.
            let mut lines = 0;
            while lines < 2 {
                let mut byte = [0];
                stream.read_exact(&mut byte).ok()?;
                lines += u8::from(byte == *b"\n");
            }
        }
        Some(stream)
    }
}

/// Until the end, or the server's.
fn wait_on(stream: &TcpStream, over: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let mut stream = stream;
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut [0; 1000]) {
            Ok(0) => break,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
            _ => {}
        }
    }
}

fn silent(greed: &Greed<'_>, from: Ipv4Addr, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if let Some(stream) = greed.connect(from) {
            wait_on(&stream, over);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Each byte in its turn, a second between them.
fn drip(mut write: impl FnMut(u8) -> bool, bytes: impl Iterator<Item = u8>, over: &AtomicBool) {
    for byte in bytes {
        if over.load(Ordering::Relaxed) || !write(byte) {
            break;
        }
        for _ in 0..10 {
            if !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn hello_by_byte(greed: &Greed<'_>, from: Ipv4Addr, over: &AtomicBool) {
    // A handshake record of 500 bytes, a ClientHello in it of 496.
    let head = [22, 3, 1, 1, 244, 1, 0, 1, 240, 3, 3];
    while !over.load(Ordering::Relaxed) {
        if let Some(mut stream) = greed.connect_for_tls(from) {
            let bytes = head.into_iter().chain(std::iter::repeat(7));
            drip(|byte| stream.write_all(&[byte]).is_ok(), bytes, over);
        }
    }
}

fn commands_by_byte(greed: &Greed<'_>, from: Ipv4Addr, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if let Some(mut stream) = greed.connect(from) {
            let bytes = b"EHLO slow\r\nNOOP\r\n".iter().copied().cycle();
            drip(|byte| stream.write_all(&[byte]).is_ok(), bytes, over);
        }
    }
}

fn data_by_byte(greed: &Greed<'_>, from: Ipv4Addr, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let Some(stream) = greed.connect(from) else {
            continue;
        };
        if let Ok(mut tls) = Dial::to(greed.server).over(stream) {
            let bytes = std::iter::repeat(b'x');
            drip(|byte| tls.stream.write_all(&[byte]).is_ok(), bytes, over);
        }
    }
}

/// Sends what comes back, and reads none of it.
fn unread(greed: &Greed<'_>, from: Ipv4Addr, over: &AtomicBool) {
    let context = SslContext::builder(SslMethod::tls_client())
        .unwrap()
        .build();
    while !over.load(Ordering::Relaxed) {
        let at = Some(SocketAddr::from((from, 0)));
        let Ok(stream) = dial::try_tcp(greed.server.at, at, Some(2048)) else {
            continue;
        };
        greed.connected.fetch_add(1, Ordering::Relaxed);
        let Ok(mut tls) = Ssl::new(&context).unwrap().connect(stream) else {
            continue;
        };
        let timeout = Some(Duration::from_millis(200));
        let _ = tls.get_ref().set_write_timeout(timeout);
        while !over.load(Ordering::Relaxed) {
            if tls.write_all(&[0; 10_000]).is_err() {
                // Nothing moves any more: it is held so.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Forty that connect as often as they can from one address: a thousand times a
/// second, if the machine lets them.
fn greedy(greed: &Greed<'_>, _: Ipv4Addr, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        drop(greed.connect(Ipv4Addr::new(127, 210, 0, 1)));
        thread::sleep(Duration::from_millis(40));
    }
}
