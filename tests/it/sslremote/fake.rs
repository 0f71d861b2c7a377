//! An SMTP server that does what a test says, in plain, after STARTTLS or in TLS
//! from the start, and remembers what it heard.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::nid::Nid;
use openssl::ssl::{NameType, Ssl, SslContext};

use crate::harness::process::{PATIENCE, eventually};

/// One connection.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Commands, each with `S: ` before it if it came inside TLS.
    pub commands: Vec<String>,
    /// The message as it came, dots still stuffed.
    pub message: Option<Vec<u8>>,
    pub tls: bool,
    /// TLS was tried and failed.
    pub broken: bool,
    /// The connection has ended: nothing more will be seen of it.
    pub over: bool,
    /// The name that the client asked for in its hello.
    pub wanted: Option<String>,
    /// The common name of the client's certificate, where one was shown.
    pub shown: Option<String>,
}

/// What a server does in place of a reply, for ever.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It neither reads nor writes, and keeps the connection.
    Silence,
    /// It sends these bytes again and again.
    Endless(&'static [u8]),
    /// The same, a byte each tenth of a second.
    Drip(&'static [u8]),
    /// It sends this once and ends the connection, whatever is still unread.
    Refusal(&'static [u8]),
    /// It sends this once, and then as [`Fault::Silence`].
    Deaf(&'static [u8]),
    /// It sends this once, and reads on; in the message alone.
    Early(&'static [u8]),
}

/// How a server behaves.
#[derive(Clone)]
pub struct Fake {
    pub greeting: String,
    pub capabilities: String,
    /// Replies other than the usual, by verb or whole line; `DOT` is the end of
    /// the message. An empty one ends the connection. A verb with `S: ` before it
    /// counts inside TLS only; `S: GREETING` is the greeting there.
    pub replies: HashMap<&'static str, String>,
    pub context: Option<SslContext>,
    pub at_once: bool,
    /// Replies go byte by byte, each in a packet of its own.
    pub bytewise: bool,
    /// In place of the reply to a verb; `GREETING`, `HANDSHAKE`, `CONTENT` (after
    /// a first part of the message was read) and `DOT` are verbs too. One that
    /// begins with `S: ` counts inside TLS only.
    pub fault: Option<(&'static str, Fault)>,
}

impl Fake {
    /// Without TLS.
    pub fn plain() -> Fake {
        Fake {
            greeting: "220 fake ESMTP\r\n".into(),
            capabilities: "250-fake\r\n250-8BITMIME\r\n250 SIZE 1000\r\n".into(),
            replies: HashMap::new(),
            context: None,
            at_once: false,
            bytewise: false,
            fault: None,
        }
    }

    /// With STARTTLS.
    pub fn tls(context: SslContext) -> Fake {
        Fake {
            capabilities: "250-fake\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 HELP\r\n".into(),
            context: Some(context),
            ..Fake::plain()
        }
    }

    pub fn at_once(mut self) -> Fake {
        self.at_once = true;
        self
    }

    pub fn greeting(mut self, text: &str) -> Fake {
        text.clone_into(&mut self.greeting);
        self
    }

    pub fn offers(mut self, text: &str) -> Fake {
        text.clone_into(&mut self.capabilities);
        self
    }

    pub fn reply(mut self, verb: &'static str, text: &str) -> Fake {
        self.replies.insert(verb, text.to_owned());
        self
    }

    pub fn bytewise(mut self) -> Fake {
        self.bytewise = true;
        self
    }

    pub fn fault(mut self, verb: &'static str, fault: Fault) -> Fake {
        self.fault = Some((verb, fault));
        self
    }

    /// Serves on port 25 of an address.
    pub fn at(self, ip: IpAddr) -> Running {
        self.listen(SocketAddr::new(ip, 25))
    }

    pub fn listen(self, at: SocketAddr) -> Running {
        let listener = TcpListener::bind(at).unwrap();
        let at = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let number = {
                    let mut all = shared.lock().unwrap();
                    all.push(Seen::default());
                    all.len() - 1
                };
                let one = Connection {
                    fake: self.clone(),
                    number,
                    seen: Arc::clone(&shared),
                };
                thread::spawn(move || {
                    one.serve(stream);
                    one.note(|seen| seen.over = true);
                });
            }
        });
        Running { at, seen }
    }
}

/// A server that runs until the tests end.
pub struct Running {
    pub at: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Running {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The only connection.
    pub fn only(&self) -> Seen {
        let mut all = self.seen();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// The only connection, once it has ended. Nobody waits for the answer to QUIT, so
    /// the client may be gone before the server has read it.
    pub fn ended(&self) -> Seen {
        eventually("the connection's end", || {
            Some(self.only()).filter(|seen| seen.over)
        })
    }

    pub fn messages(&self) -> usize {
        self.seen()
            .iter()
            .filter(|one| one.message.is_some())
            .count()
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

struct Connection {
    fake: Fake,
    number: usize,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Connection {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap()[self.number]);
    }

    /// Sends a reply; false where the connection is over.
    fn say(&self, stream: &mut dyn Stream, text: &[u8]) -> bool {
        if self.fake.bytewise {
            // Nagle's algorithm is off, so each goes alone.
            return text
                .iter()
                .all(|byte| stream.write_all(&[*byte]).is_ok() && stream.flush().is_ok());
        }
        stream.write_all(text).is_ok() && stream.flush().is_ok()
    }

    /// Ends in a fault if this is its place; true where it is over.
    fn fails(&self, stream: &mut dyn Stream, verb: &str) -> bool {
        let Some((place, fault)) = self.fake.fault else {
            return false;
        };
        if place != verb {
            return false;
        }
        match fault {
            // The client must end it; this thread ends with the tests.
            Fault::Silence => loop {
                thread::park();
            },
            Fault::Deaf(bytes) => {
                let _ = stream.write_all(bytes).and_then(|()| stream.flush());
                loop {
                    thread::park();
                }
            }
            Fault::Early(bytes) => {
                let _ = stream.write_all(bytes).and_then(|()| stream.flush());
                return false;
            }
            Fault::Refusal(bytes) => {
                let _ = stream.write_all(bytes).and_then(|()| stream.flush());
            }
            Fault::Endless(bytes) => {
                let many = bytes.repeat(4096 / bytes.len());
                while stream.write_all(&many).is_ok() {}
            }
            Fault::Drip(bytes) => {
                for byte in bytes.iter().cycle() {
                    if stream.write_all(&[*byte]).is_err() || stream.flush().is_err() {
                        break;
                    }
                    thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        }
        true
    }

    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        if self.fake.at_once {
            self.serve_tls(stream, true);
            return;
        }
        let mut stream = stream;
        if self.fails(&mut stream, "GREETING")
            || !self.say(&mut stream, self.fake.greeting.as_bytes())
        {
            return;
        }
        if self.talk(&mut stream, "") {
            self.serve_tls(stream, false);
        }
    }

    fn serve_tls(&self, mut stream: TcpStream, greet: bool) {
        if self.fails(&mut stream, "HANDSHAKE") {
            return;
        }
        let Some(context) = &self.fake.context else {
            return;
        };
        let Ok(mut tls) = Ssl::new(context).unwrap().accept(stream) else {
            self.note(|seen| seen.broken = true);
            return;
        };
        let ssl = tls.ssl();
        let wanted = ssl.servername(NameType::HOST_NAME).map(str::to_owned);
        let shown = ssl.peer_certificate().map(|certificate| {
            let mut names = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
            names.next().unwrap().data().to_string().unwrap()
        });
        self.note(|seen| {
            seen.tls = true;
            seen.wanted = wanted;
            seen.shown = shown;
        });
        if greet {
            let greeting = self.reply_to("S: GREETING", "", "");
            let greeting = greeting.unwrap_or_else(|| self.fake.greeting.clone());
            let over = greeting.is_empty() || self.fails(&mut tls, "S: GREETING");
            if over || !self.say(&mut tls, greeting.as_bytes()) {
                return;
            }
        }
        self.talk(&mut tls, "S: ");
        let _ = tls.shutdown();
    }

    /// True where TLS is to begin.
    fn talk(&self, stream: &mut dyn Stream, mark: &str) -> bool {
        let mut buffer = Vec::new();
        loop {
            let Some(line) = line(stream, &mut buffer) else {
                return false;
            };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.note(|seen| seen.commands.push(format!("{mark}{line}")));
            let verb = line.split(' ').next().unwrap_or_default().to_uppercase();
            if self.fails(stream, &verb) || self.fails(stream, &format!("{mark}{verb}")) {
                return false;
            }
            let usual = match verb.as_str() {
                "EHLO" if mark.is_empty() => self.fake.capabilities.clone(),
                "EHLO" => self.fake.capabilities.replace("250-STARTTLS\r\n", ""),
                "STARTTLS" => "220 go ahead\r\n".into(),
                "DATA" => "354 go on\r\n".into(),
                "QUIT" => "221 bye\r\n".into(),
                _ => "250 ok\r\n".to_owned(),
            };
            let reply = self.reply_to(&line, &verb, mark).unwrap_or(usual);
            if reply.is_empty() || !self.say(stream, reply.as_bytes()) {
                return false;
            }
            match verb.as_str() {
                "STARTTLS" if reply.starts_with("220") => return true,
                "QUIT" => return false,
                "DATA" if reply.starts_with("354") && !self.content(stream, &mut buffer) => {
                    return false;
                }
                _ => {}
            }
        }
    }

    /// What a test set for this line or its verb.
    fn reply_to(&self, line: &str, verb: &str, mark: &str) -> Option<String> {
        let replies = &self.fake.replies;
        let inside = format!("{mark}{verb}");
        let found = replies.get(line).or_else(|| replies.get(&*inside));
        found.or_else(|| replies.get(verb)).cloned()
    }

    fn content(&self, stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> bool {
        let mut message = Vec::new();
        loop {
            let Some(line) = line(stream, buffer) else {
                return false;
            };
            if line == b".\r\n" {
                break;
            }
            let once = matches!(self.fake.fault, Some((_, Fault::Early(_))));
            let first = message.is_empty();
            message.extend_from_slice(&line);
            if (first || !once) && self.fails(stream, "CONTENT") {
                return false;
            }
        }
        self.note(|seen| seen.message = Some(message));
        if self.fails(stream, "DOT") {
            return false;
        }
        let reply = self
            .fake
            .replies
            .get("DOT")
            .map_or("250 ok\r\n", String::as_str);
        !reply.is_empty() && self.say(stream, reply.as_bytes())
    }
}

/// The next line, up to its CR LF alone.
fn line(stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut searched: usize = 0;
    loop {
        if let Some(at) = buffer[searched..].windows(2).position(|two| two == b"\r\n") {
            let rest = buffer.split_off(searched + at + 2);
            return Some(std::mem::replace(buffer, rest));
        }
        searched = buffer.len().saturating_sub(1);
        let mut piece = [0; 8192];
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => buffer.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}

/// A message's bytes from its form on the wire.
pub fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in wire.split_inclusive(|&byte| byte == b'\n') {
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    out
}
