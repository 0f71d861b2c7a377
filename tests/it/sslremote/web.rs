//! A web server on port 443 of an address of its own that does what a test says, by
//! the host that is asked for, and remembers who asked.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use openssl::ssl::{AlpnError, Ssl, SslContext, SslStream};

use crate::harness::process::PATIENCE;
use crate::harness::{Identity, Leaf, peer};

/// What a server does when it has read a request's head.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes, then the end of the session.
    Raw(Vec<u8>),
    /// These bytes, then the end of the connection alone.
    Torn(Vec<u8>),
    /// These bytes, then another one each tenth of a second, for ever.
    Drip(Vec<u8>),
    /// These bytes, then as many others as are taken.
    Endless(Vec<u8>),
    /// Nothing, for ever.
    Silence,
}

impl Reply {
    /// A policy, as most servers send it.
    pub fn policy(text: &str) -> Reply {
        Reply::whole("200 OK", "Content-Type: text/plain\r\n", text)
    }

    /// A status, fields and a body with its length.
    pub fn whole(status: &str, fields: &str, body: &str) -> Reply {
        let length = body.len();
        Reply::Raw(
            format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into(),
        )
    }
}

/// A policy's text: its mode, its age, the hosts that it lists.
pub fn policy(mode: &str, age: u32, hosts: &[&str]) -> String {
    let mut text = format!("version: STSv1\nmode: {mode}\nmax_age: {age}\n");
    for host in hosts {
        let _ = writeln!(text, "mx: {host}");
    }
    text
}

/// Runs until the tests end.
pub struct Web {
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Web {
    /// With a certificate for `mta-sts` of each of these domains.
    pub fn start(ip: IpAddr, domains: &[&str]) -> Web {
        let mut leaf = Leaf::new("web");
        for domain in domains {
            leaf = leaf.dns(&format!("mta-sts.{domain}"));
        }
        Web::with(ip, &leaf.issue())
    }

    /// With this certificate.
    pub fn with(ip: IpAddr, identity: &Identity) -> Web {
        Web::on(ip, peer::context(identity, |_| ()))
    }

    /// One that speaks HTTP/2 alone.
    pub fn http2(ip: IpAddr, identity: &Identity) -> Web {
        Web::on(
            ip,
            peer::context(identity, |context| {
                context.set_alpn_select_callback(|_, offered| {
                    if offered.windows(3).any(|word| word == b"\x02h2") {
                        Ok(b"h2")
                    } else {
                        Err(AlpnError::ALERT_FATAL)
                    }
                });
            }),
        )
    }

    pub fn on(ip: IpAddr, context: SslContext) -> Web {
        let listener = TcpListener::bind((ip, 443)).unwrap();
        let web = Web {
            replies: Arc::default(),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (replies, asked) = (Arc::clone(&web.replies), Arc::clone(&web.asked));
        let connections = Arc::clone(&web.connections);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                *connections.lock().unwrap() += 1;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let (replies, asked) = (Arc::clone(&replies), Arc::clone(&asked));
                let context = context.clone();
                thread::spawn(move || {
                    let Ok(tls) = Ssl::new(&context).unwrap().accept(stream) else {
                        return;
                    };
                    serve(tls, &replies, &asked);
                });
            }
        });
        web
    }

    /// What it does for a domain's policy, from now on.
    pub fn reply(&self, domain: &str, reply: Reply) {
        let host = format!("mta-sts.{domain}");
        self.replies.lock().unwrap().insert(host, reply);
    }

    /// Has it give a policy of this mode, age and hosts, from now on.
    pub fn policy(&self, domain: &str, mode: &str, age: u32, hosts: &[&str]) {
        self.reply(domain, Reply::policy(&policy(mode, age, hosts)));
    }

    /// The first lines and hosts of the requests since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The connections that there ever were.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

fn serve(
    mut tls: SslStream<TcpStream>,
    replies: &Mutex<HashMap<String, Reply>>,
    asked: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match tls.read(&mut piece) {
            Ok(count) if count > 0 => head.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let host = head.lines().find_map(|line| line.strip_prefix("Host: "));
    let host = host.unwrap_or_default().to_owned();
    let first = head.lines().next().unwrap();
    asked.lock().unwrap().push(format!("{first} {host}"));
    let none = || Reply::whole("404 Not Found", "", "");
    let reply = replies.lock().unwrap().get(&host).cloned();
    match reply.unwrap_or_else(none) {
        Reply::Raw(bytes) => {
            let _ = tls.write_all(&bytes).and_then(|()| tls.flush());
            let _ = tls.shutdown();
        }
        Reply::Torn(bytes) => {
            let _ = tls.write_all(&bytes).and_then(|()| tls.flush());
        }
        Reply::Drip(bytes) => {
            let _ = tls.write_all(&bytes);
            while tls.write_all(b"x").and_then(|()| tls.flush()).is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        }
        Reply::Endless(bytes) => {
            let _ = tls.write_all(&bytes);
            while tls.write_all(&[b'x'; 4096]).is_ok() {}
        }
        Reply::Silence => loop {
            thread::park();
        },
    }
}
