//! Servers for a probe: `openssl s_server`, scripts on sockets, and one that
//! counts.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslStream};

use crate::harness::process::PATIENCE;
use crate::harness::{Identity, Place, eventually};

/// `openssl s_server` until its value is dropped.
pub struct OpenSsl {
    child: Child,
    /// `127.0.0.1:port`.
    pub at: String,
}

impl OpenSsl {
    /// With the certificates of these identities, RSA first, and these words.
    pub fn start(place: &Place, identities: &[&Identity], words: &[&str]) -> OpenSsl {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1000"]);
        for (at, one) in identities.iter().enumerate() {
            let (certificate, key) = place.identity(&format!("s{at}"), one);
            let prefix = if at == 0 { "-" } else { "-d" };
            command.args([format!("{prefix}cert"), certificate]);
            command.args([format!("{prefix}key"), key]);
            let chain = one
                .between
                .iter()
                .flat_map(|one| one.to_pem().expect("PEM"));
            let chain = place.write(&format!("s{at}.chain"), chain.collect::<Vec<u8>>());
            if !one.between.is_empty() {
                command.args([format!("{prefix}cert_chain"), chain]);
            }
        }
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let output = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(output);
        let mut at = String::new();
        // Its line is `ACCEPT 127.0.0.1:4433`.
        while !at.starts_with("ACCEPT") {
            at.clear();
            assert!(
                lines.read_line(&mut at).expect("output") > 0,
                "s_server ended"
            );
        }
        // What it says later must not fill the pipe.
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let at = at.trim_start_matches("ACCEPT").trim().to_owned();
        OpenSsl { child, at }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server saw of one connection.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Lines in the clear.
    pub lines: Vec<String>,
    /// A ClientHello came.
    pub hello: bool,
}

/// A server whose connections are served one after the other, as
/// many as come; with what it saw of each.
pub struct Scripted {
    /// Where it listens.
    pub at: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Scripted {
    /// `serve` gets each connection and its number from 0.
    pub fn start(
        serve: impl Fn(&mut TcpStream, usize, &mut Seen) + Send + Sync + 'static,
    ) -> Scripted {
        Scripted::start_at([127, 0, 0, 1], serve)
    }

    /// The same on another address.
    pub fn start_at(
        ip: [u8; 4],
        serve: impl Fn(&mut TcpStream, usize, &mut Seen) + Send + Sync + 'static,
    ) -> Scripted {
        let listener = TcpListener::bind((Ipv4Addr::from(ip), 0)).expect("bind");
        let at = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = Arc::clone(&seen);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                stream.set_read_timeout(Some(PATIENCE)).expect("set");
                let number = {
                    let mut all = all.lock().expect("lock");
                    all.push(Seen::default());
                    all.len() - 1
                };
                let (all, serve) = (Arc::clone(&all), Arc::clone(&serve));
                thread::spawn(move || {
                    let mut one = Seen::default();
                    serve(&mut stream, number, &mut one);
                    all.lock().expect("lock")[number] = one;
                });
            }
        });
        Scripted { at, seen }
    }

    /// What it saw, once all connections are over.
    pub fn seen(&self) -> Vec<Seen> {
        // The last connection may just be ending.
        thread::sleep(Duration::from_millis(20));
        self.seen.lock().expect("lock").clone()
    }

    /// The same, once a number of connections came.
    pub fn connections(&self, least: usize) -> Vec<Seen> {
        eventually("connections", || {
            let seen = self.seen.lock().expect("lock").clone();
            (seen.len() >= least).then_some(seen)
        })
    }
}

/// One line in the clear, or none at the end.
pub fn line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        match stream.read(&mut byte) {
            Ok(1) => line.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The answer to EHLO.
fn listed(capabilities: &[&str]) -> String {
    let lines = capabilities
        .iter()
        .map(|one| ["250-", one, "\r\n"].concat());
    let lines: Vec<String> = lines.collect();
    ["250-mx.example\r\n", &lines.concat(), "250 SIZE 1000\r\n"].concat()
}

/// SMTP up to STARTTLS's 220; false where the client left before.
pub fn smtp(stream: &mut TcpStream, capabilities: &[&str], seen: &mut Seen) -> bool {
    let _ = stream.write_all(b"220 mx.example ESMTP\r\n");
    while let Some(line) = line(stream) {
        seen.lines.push(line.clone());
        let answer = if line.starts_with("EHLO") {
            listed(capabilities)
        } else if line == "STARTTLS" {
            let _ = stream.write_all(b"220 go\r\n");
            return true;
        } else if line == "QUIT" {
            let _ = stream.write_all(b"221 bye\r\n");
            return false;
        } else {
            String::from("502 what\r\n")
        };
        let _ = stream.write_all(answer.as_bytes());
    }
    false
}

/// Peeks whether a ClientHello comes next.
pub fn hello_comes(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first), Ok(1)) && first[0] == 22
}

/// A TLS session on a connection.
pub fn tls(stream: &TcpStream, context: &SslContext) -> Option<SslStream<TcpStream>> {
    let copy = stream.try_clone().ok()?;
    Ssl::new(context).ok()?.accept(copy).ok()
}

/// SMTP inside TLS up to QUIT. Commands that wait already are answered.
pub fn smtp_inside(stream: &mut SslStream<TcpStream>, capabilities: &[&str], waiting: &str) {
    let mut out = String::from(waiting);
    let mut line = Vec::new();
    loop {
        if !out.is_empty() && stream.write_all(out.as_bytes()).is_err() {
            return;
        }
        out.clear();
        line.clear();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            match stream.read(&mut byte) {
                Ok(1) => line.push(byte[0]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if text.starts_with("EHLO") {
            out = listed(capabilities);
        } else if text.starts_with("QUIT") {
            let _ = stream.write_all(b"221 bye\r\n");
            let _ = stream.shutdown();
            return;
        } else {
            out = String::from("250 ok\r\n");
        }
    }
}
