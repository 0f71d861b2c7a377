//! SMTP servers with moods: each connection is served well, or ends at a random
//! stage in one of the ways in which servers, networks and machines fail. What
//! they took they keep account of.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::ssl::{Ssl, SslContext};

use crate::dice::Dice;
use crate::harness::dial::linger_zero;
use crate::harness::process::PATIENCE;

/// Where a server may fail.
const STAGES: [&str; 9] = [
    "GREETING",
    "EHLO",
    "STARTTLS",
    "HANDSHAKE",
    "MAIL",
    "RCPT",
    "DATA",
    "CONTENT",
    "DOT",
];

/// How it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Close,
    /// Nothing more comes, and nothing is read.
    Deaf,
    Later,
    Never,
    Reset,
    /// At the end of the message: it is taken, and the connection lost.
    Taken,
}

/// How one connection goes.
struct Mood {
    failure: Option<(&'static str, Failure)>,
    offers_tls: bool,
    /// Its certificate is below a root that nobody trusts.
    is_impostor: bool,
}

impl Mood {
    fn of(dice: &mut Dice) -> Mood {
        let failures = [
            Failure::Close,
            Failure::Close,
            Failure::Later,
            Failure::Later,
            Failure::Never,
            Failure::Reset,
            Failure::Reset,
            Failure::Taken,
        ];
        let mut failure = (!dice.once_in(2)).then(|| {
            // The last stages are those in which mail is lost or doubled.
            let from = if dice.once_in(2) { 6 } else { 0 };
            let stage = *dice.pick(&STAGES[from..]);
            (stage, *dice.pick(&failures))
        });
        if let Some((_, failure)) = &mut failure {
            if dice.once_in(20) {
                *failure = Failure::Deaf;
            }
        }
        Mood {
            failure,
            offers_tls: !dice.once_in(8),
            is_impostor: dice.once_in(8),
        }
    }
}

/// What happened to a mail, by its number.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// How many times it was taken.
    pub taken: usize,
    /// What must not have been.
    pub wrong: Vec<String>,
}

/// What a mail must be and may meet.
pub trait Rules: Send + Sync {
    /// Its whole text as it goes over the wire.
    fn wire(&self, number: u64) -> Vec<u8>;
    /// Why it must not be offered to such a server, if it must not.
    fn objection(&self, number: u64, has_tls: bool, is_impostor: bool) -> Option<String>;
}

/// Servers on some addresses, until the soak ends.
pub struct Servers {
    good: SslContext,
    impostor: SslContext,
    rules: Arc<dyn Rules>,
    accounts: Mutex<BTreeMap<u64, Account>>,
    connections: AtomicU64,
    seed: u64,
}

impl Servers {
    pub fn new(
        good: SslContext,
        impostor: SslContext,
        rules: Arc<dyn Rules>,
        seed: u64,
    ) -> Arc<Servers> {
        Arc::new(Servers {
            good,
            impostor,
            rules,
            accounts: Mutex::default(),
            connections: AtomicU64::new(0),
            seed,
        })
    }

    pub fn listen(self: &Arc<Servers>, at: SocketAddr) {
        let listener = TcpListener::bind(at).unwrap();
        let servers = Arc::clone(self);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let servers = Arc::clone(&servers);
                thread::spawn(move || {
                    // A client that goes is no failure of a server's.
                    let _ = servers.serve(stream);
                });
            }
        });
    }

    pub fn account(&self, number: u64) -> Account {
        let accounts = self.accounts.lock().unwrap();
        accounts.get(&number).cloned().unwrap_or_default()
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        // The clients' dice have the numbers below.
        let mood = Mood::of(&mut Dice::new(self.seed, number | 1 << 40));
        let raw = stream.try_clone()?;
        let mut session = Session {
            servers: self,
            mood,
            raw,
            has_tls: false,
            mail: None,
        };
        let mut stream = stream;
        if !session.passes("GREETING", &mut stream)? {
            return Ok(());
        }
        stream.write_all(b"220 moody ESMTP\r\n")?;
        if !session.talk(&mut stream)? || !session.passes("HANDSHAKE", &mut stream)? {
            return Ok(());
        }
        let context = if session.mood.is_impostor {
            &self.impostor
        } else {
            &self.good
        };
        let Ok(mut tls) = Ssl::new(context).unwrap().accept(stream) else {
            return Ok(());
        };
        session.has_tls = true;
        session.talk(&mut tls)?;
        let _ = tls.shutdown();
        Ok(())
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

struct Session<'a> {
    servers: &'a Servers,
    mood: Mood,
    raw: TcpStream,
    has_tls: bool,
    mail: Option<u64>,
}

impl Session<'_> {
    /// False where the connection ends here.
    fn passes(&self, stage: &str, stream: &mut dyn Stream) -> std::io::Result<bool> {
        let Some((_, failure)) = self.mood.failure.filter(|(place, _)| *place == stage) else {
            return Ok(true);
        };
        match failure {
            Failure::Close | Failure::Taken => {}
            Failure::Deaf => {
                // Until the client has had enough.
                let mut byte = [0];
                while matches!(self.raw.peek(&mut byte), Ok(1..)) {
                    thread::sleep(std::time::Duration::from_millis(50));
                }
            }
            Failure::Later => stream.write_all(b"451 4.3.0 not now\r\n")?,
            Failure::Never => stream.write_all(b"554 5.7.1 never\r\n")?,
            Failure::Reset => linger_zero(&self.raw),
        }
        Ok(false)
    }

    /// True where TLS is to begin.
    fn talk(&mut self, stream: &mut dyn Stream) -> std::io::Result<bool> {
        let mut buffer = Vec::new();
        loop {
            let line = line(stream, &mut buffer)?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = line.split([' ', ':']).next().unwrap_or_default();
            let verb = verb.to_ascii_uppercase();
            if !self.passes(&verb, stream)? {
                return Ok(false);
            }
            let reply = match verb.as_str() {
                "EHLO" if self.has_tls || !self.mood.offers_tls => {
                    "250-moody\r\n250 PIPELINING\r\n"
                }
                "EHLO" => "250-moody\r\n250-STARTTLS\r\n250 PIPELINING\r\n",
                "STARTTLS" => "220 go ahead\r\n",
                "RCPT" => {
                    self.offered(&line);
                    "250 ok\r\n"
                }
                "DATA" => "354 go on\r\n",
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            };
            stream.write_all(reply.as_bytes())?;
            match verb.as_str() {
                "STARTTLS" => return Ok(true),
                "QUIT" => return Ok(false),
                "DATA" if !self.content(stream, &mut buffer)? => return Ok(false),
                _ => {}
            }
        }
    }

    /// `RCPT TO:<NUMBER@DOMAIN>`
    fn offered(&mut self, line: &str) {
        let number = line
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('@'))
            .and_then(|(number, _)| number.parse().ok());
        self.mail = number;
        let (Some(number), rules) = (number, &self.servers.rules) else {
            return;
        };
        if let Some(why) = rules.objection(number, self.has_tls, self.mood.is_impostor) {
            self.note(number, |account| account.wrong.push(why));
        }
    }

    fn note(&self, number: u64, change: impl FnOnce(&mut Account)) {
        change(
            self.servers
                .accounts
                .lock()
                .unwrap()
                .entry(number)
                .or_default(),
        );
    }

    fn content(&self, stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
        let mut message = Vec::new();
        loop {
            let line = line(stream, buffer)?;
            if line == b".\r\n" {
                break;
            }
            message.extend_from_slice(&line);
            if !self.passes("CONTENT", stream)? {
                return Ok(false);
            }
        }
        let failure = self.mood.failure.filter(|(place, _)| *place == "DOT");
        if failure.is_none_or(|(_, failure)| failure == Failure::Taken) {
            self.take(&message);
        }
        if !self.passes("DOT", stream)? {
            return Ok(false);
        }
        stream.write_all(b"250 taken\r\n")?;
        Ok(true)
    }

    fn take(&self, message: &[u8]) {
        let Some(number) = self.mail else {
            return;
        };
        let is_whole = message == self.servers.rules.wire(number);
        self.note(number, |account| {
            account.taken += 1;
            if !is_whole {
                account.wrong.push("other bytes arrived".to_owned());
            }
        });
    }
}

/// The next line, with its CR LF.
fn line(stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let rest = buffer.split_off(at + 2);
            return Ok(std::mem::replace(buffer, rest));
        }
        let mut piece = [0; 8192];
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => buffer.extend_from_slice(&piece[..count]),
        }
    }
}
