//! One connection as a client has it: which certificate and which rule served
//! it, and every byte that came back.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use openssl::hash::MessageDigest;
use openssl::ssl::{
    HandshakeError, Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;

use crate::dice::Dice;
use crate::harness::Authority;
use crate::harness::authority::{Identity, hex};
use crate::harness::dial::{self, Steady};
use crate::service::Way;

/// How long a client waits for one byte. So long that a busy machine is no reason.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a client asks for.
pub struct Errand {
    pub at: SocketAddr,
    pub way: Way,
    /// Its own address: the log names the connection by it.
    pub from: Ipv4Addr,
    /// The server name in its hello, which the certificate must bear.
    pub name: &'static str,
    /// Under [`Way::Delayed`]: whether it wants TLS at all.
    pub wants_tls: bool,
}

/// A connection that the program serves.
pub struct Served {
    stream: Stream,
    /// The first line of the program.
    pub mark: String,
}

/// Why it was not served to its end.
#[derive(Debug)]
pub enum Lost {
    /// It ended at a step that it should have got over.
    Ended(&'static str, String),
    /// The client's own patience did.
    Late(&'static str),
    /// Something came that must never come.
    Wrong(String),
}

impl Lost {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> Lost {
        move |why| match why.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Lost::Late(step),
            _ => Lost::Ended(step, why.to_string()),
        }
    }
}

impl Display for Lost {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::Ended(step, why) => write!(out, "{step}: {why}"),
            Lost::Late(step) => write!(out, "{step}: nothing for {PATIENCE:?}"),
            Lost::Wrong(what) => write!(out, "WRONG: {what}"),
        }
    }
}

/// A connection, in plaintext or not.
enum Stream {
    Plain(Steady),
    Tls(SslStream<Steady>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads to a newline, which no line is further than this from.
fn line(stream: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while bytes.len() < 1000 {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        bytes.extend(byte);
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Says a word, and hears a line.
fn ask_line(stream: &mut (impl Read + Write), word: &str) -> Result<String, Lost> {
    let sent = stream.write_all(format!("{word}\n").as_bytes());
    sent.map_err(Lost::at("to send a word"))?;
    line(stream).map_err(Lost::at("a line"))
}

/// A whole SMTP reply; gives its last line.
fn reply(stream: &mut impl Read, code: &str) -> Result<String, Lost> {
    loop {
        let line = line(stream).map_err(Lost::at("a reply"))?;
        if !line.starts_with(code) {
            return Err(Lost::Ended("a reply", line));
        }
        if line.get(3..4) != Some("-") {
            return Ok(line);
        }
    }
}

/// Clients of one kind.
pub struct Client {
    contexts: Vec<SslContext>,
}

impl Client {
    /// Trusts the harness's root, in TLS 1.2 or 1.3, and shows this certificate.
    pub fn new(shows: Option<&Identity>) -> Client {
        let context = |version| {
            let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
            let mut store = X509StoreBuilder::new().unwrap();
            store
                .add_cert(Authority::shared_root().certificate.clone())
                .unwrap();
            context.set_cert_store(store.build());
            context.set_verify(SslVerifyMode::PEER);
            context.set_max_proto_version(Some(version)).unwrap();
            if let Some(identity) = shows {
                context.set_certificate(&identity.certificate).unwrap();
                context.set_private_key(&identity.key).unwrap();
                for one in &identity.between {
                    context.add_extra_chain_cert(one.clone()).unwrap();
                }
            }
            context.build()
        };
        let versions = [SslVersion::TLS1_2, SslVersion::TLS1_3];
        Client {
            contexts: versions.map(context).into(),
        }
    }

    /// Up to the program's first line.
    pub fn begin(&self, errand: &Errand, dice: &mut Dice) -> Result<Served, Lost> {
        let from = SocketAddr::new(IpAddr::V4(errand.from), 0);
        let socket = dial::try_tcp(errand.at, Some(from), None).map_err(Lost::at("to connect"))?;
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&socket, Some(PATIENCE)).map_err(Lost::at("a time limit"))?;
        }
        let mut socket = Steady::from(socket);
        let context = dice.pick(&self.contexts);
        match errand.way {
            Way::AtOnce => {
                let mut stream = handshake(context, errand.name, socket)?;
                let mark = line(&mut stream).map_err(Lost::at("the first line"))?;
                Ok(Served { stream, mark })
            }
            Way::Delayed => {
                if !errand.wants_tls {
                    let mut stream = Stream::Plain(socket);
                    let mark = ask_line(&mut stream, "no")?;
                    return Ok(Served { stream, mark });
                }
                let word = ask_line(&mut socket, "tls")?;
                if word != "go" {
                    return Err(Lost::Ended("the word to go", word));
                }
                let mut stream = handshake(context, errand.name, socket)?;
                let mark = line(&mut stream).map_err(Lost::at("the first line"))?;
                Ok(Served { stream, mark })
            }
            Way::StartTls => {
                reply(&mut socket, "220")?;
                ask(&mut socket, "EHLO soak", "250")?;
                ask(&mut socket, "STARTTLS", "220")?;
                let mut stream = handshake(context, errand.name, socket)?;
                let last = ask(&mut stream, "EHLO soak", "250")?;
                let mark = last.split_once("X-").map(|(_, mark)| mark.to_owned());
                let mark = mark.ok_or(Lost::Ended("the mark", last))?;
                stream
                    .write_all(b"ECHO\r\n")
                    .map_err(Lost::at("to ask for an echo"))?;
                Ok(Served { stream, mark })
            }
        }
    }
}

impl Served {
    /// SHA-256 of the certificate, where there was TLS.
    pub fn certificate(&self) -> Option<String> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => {
                let shown = stream.ssl().peer_certificate()?;
                Some(hex(&shown.digest(MessageDigest::sha256()).ok()?))
            }
        }
    }

    /// On to the last byte.
    pub fn finish(mut self, dice: &mut Dice) -> Result<(), Lost> {
        echo(&mut self.stream, dice)?;
        end(self.stream)
    }
}

fn ask(stream: &mut (impl Read + Write), command: &str, code: &str) -> Result<String, Lost> {
    let line = format!("{command}\r\n");
    stream
        .write_all(line.as_bytes())
        .map_err(Lost::at("to send a command"))?;
    reply(stream, code)
}

fn handshake(context: &SslContext, name: &str, socket: Steady) -> Result<Stream, Lost> {
    let mut ssl = Ssl::new(context).unwrap();
    ssl.set_hostname(name).unwrap();
    ssl.param_mut().set_host(name).unwrap();
    match ssl.connect(socket) {
        Ok(stream) => Ok(Stream::Tls(stream)),
        Err(HandshakeError::WouldBlock(_)) => Err(Lost::Late("the handshake")),
        Err(HandshakeError::Failure(half)) => {
            // A certificate that does not verify is none of ours, or another's.
            let verdict = half.ssl().verify_result();
            if verdict == X509VerifyResult::OK {
                Err(Lost::Ended("the handshake", half.error().to_string()))
            } else {
                Err(Lost::Wrong(format!(
                    "the certificate for {name}: {verdict}"
                )))
            }
        }
        Err(HandshakeError::SetupFailure(stack)) => Err(Lost::Ended("TLS", stack.to_string())),
    }
}

/// Sends pieces, each of which must come back as it is.
fn echo(stream: &mut Stream, dice: &mut Dice) -> Result<(), Lost> {
    // One in forty is long, as an attachment is among mails.
    let pieces = if dice.once_in(40) { 20 } else { 1 };
    for _ in 0..pieces {
        let size = 1 + dice.below(8000);
        let bytes = dice.bytes(size);
        stream.write_all(&bytes).map_err(Lost::at("to send"))?;
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).map_err(Lost::at("the echo"))?;
        if back != bytes {
            return Err(Lost::Wrong("other bytes came back".to_owned()));
        }
    }
    Ok(())
}

/// Says that nothing more comes, and reads to the other's end.
fn end(mut stream: Stream) -> Result<(), Lost> {
    let socket = match &mut stream {
        Stream::Plain(socket) => &*socket,
        Stream::Tls(stream) => {
            let sent = stream.shutdown().map_err(|error| {
                let system = error.into_io_error();
                system.unwrap_or_else(|error| io::Error::other(error.to_string()))
            });
            sent.map_err(Lost::at("to send close_notify"))?;
            stream.get_ref()
        }
    };
    socket
        .shutdown(Shutdown::Write)
        .map_err(Lost::at("to half-close"))?;
    let mut rest = Vec::new();
    // An end without close_notify is an error of libssl's.
    stream
        .read_to_end(&mut rest)
        .map_err(Lost::at("the other's end"))?;
    if rest.is_empty() {
        return Ok(());
    }
    Err(Lost::Wrong(format!("{} bytes after the end", rest.len())))
}
