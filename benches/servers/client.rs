//! The client of every measurement: one connection at a time, what comes back
//! checked, certificates verified. Its own cost is not part of any figure.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use openssl::ssl::{Ssl, SslConnector, SslMethod, SslStream, SslVersion};
use ucspi_tls::internals::resume::Resumable;

use crate::{Outcome, because};

/// The protocol a client insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Version::Tls12 => "TLS 1.2",
            Version::Tls13 => "TLS 1.3",
        }
    }
}

/// How long anything may take before a measurement is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A way to connect: in plain text, or with TLS of one version.
pub struct Client {
    connector: Option<SslConnector>,
    /// It asks for TLS in SMTP.
    upgrades: bool,
}

impl Client {
    /// For a server without TLS.
    pub fn plain() -> Self {
        Client {
            connector: None,
            upgrades: false,
        }
    }

    /// The same, but it greets in the clear and sends STARTTLS.
    pub fn upgrading(self, upgrades: bool) -> Self {
        Client { upgrades, ..self }
    }

    /// Whether the server's greeting was before TLS.
    pub fn is_greeted(&self) -> bool {
        self.upgrades
    }

    /// Offers one version, one group and one cipher per key type, so that every
    /// server does the same cryptography.
    pub fn tls(version: Version, ca: &Path) -> Outcome<Self> {
        let build = || {
            let mut builder = SslConnector::builder(SslMethod::tls_client())?;
            let version = match version {
                Version::Tls12 => SslVersion::TLS1_2,
                Version::Tls13 => SslVersion::TLS1_3,
            };
            builder.set_min_proto_version(Some(version))?;
            builder.set_max_proto_version(Some(version))?;
            // A group that all servers have, and under TLS 1.2 the list also
            // limits the curve of an ECDSA certificate.
            builder.set_groups_list("P-256")?;
            builder.set_cipher_list("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")?;
            builder.set_ciphersuites("TLS_AES_256_GCM_SHA384")?;
            builder.set_ca_file(ca)?;
            Ok(builder.build())
        };
        build()
            .map(|connector| Client {
                connector: Some(connector),
                upgrades: false,
            })
            .map_err(|error: openssl::error::ErrorStack| because("set up a client")(error))
    }

    /// Whether it speaks TLS.
    pub fn encrypts(&self) -> bool {
        self.connector.is_some()
    }

    /// A new connection with a full handshake.
    pub fn connect(&self, port: u16) -> Outcome<Connection> {
        let mut socket = dial(port)?;
        let Some(connector) = &self.connector else {
            return Ok(Connection::Plain(socket));
        };
        let ssl = connector
            .configure()
            .and_then(|configuration| configuration.into_ssl("127.0.0.1"))
            .map_err(because("set up a connection"))?;
        if self.upgrades {
            reply(&mut socket, "220")?;
            for (command, code) in [(&b"EHLO a\r\n"[..], "250"), (b"STARTTLS\r\n", "220")] {
                socket.write_all(command).map_err(because("write"))?;
                reply(&mut socket, code)?;
            }
        }
        handshake(ssl, socket)
    }

    /// A new connection that takes up an earlier one's session.
    pub fn resume(port: u16, earlier: &Resumable) -> Outcome<Connection> {
        handshake(
            earlier.ssl().map_err(because("offer a session"))?,
            dial(port)?,
        )
    }
}

fn dial(port: u16) -> Outcome<TcpStream> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(because("connect"))?;
    let set = || {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)
    };
    set().map_err(because("set socket options"))?;
    Ok(socket)
}

fn handshake(ssl: Ssl, socket: TcpStream) -> Outcome<Connection> {
    let mut stream = SslStream::new(ssl, socket).map_err(because("set up a connection"))?;
    stream.connect().map_err(because("handshake"))?;
    Ok(Connection::Tls(stream))
}

/// Reads an SMTP reply, which must have this code.
fn reply(from: &mut impl Read, code: &str) -> Outcome<()> {
    loop {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            from.read_exact(&mut byte).map_err(because("read"))?;
            line.push(byte[0]);
        }
        if !line.starts_with(code.as_bytes()) {
            let text = String::from_utf8_lossy(&line).into_owned();
            return Err(format!("answered {text:?}"));
        }
        if line.get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

/// An open connection.
pub enum Connection {
    Plain(TcpStream),
    Tls(SslStream<TcpStream>),
}

impl Connection {
    /// Reads to the end, which must come after exactly `wanted`, and closes.
    pub fn expect(&mut self, wanted: &[u8]) -> Outcome<()> {
        let mut got = Vec::new();
        self.read_to_end(&mut got).map_err(because("read"))?;
        if got != wanted {
            return Err(format!(
                "{} bytes came back, not the {} wanted",
                got.len(),
                wanted.len()
            ));
        }
        self.close();
        Ok(())
    }

    /// Reads to the end, which must come after exactly `bytes` bytes, and closes.
    pub fn drain(&mut self, bytes: u64) -> Outcome<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut got = 0;
        loop {
            match self.read(&mut buffer).map_err(because("read"))? {
                0 => break,
                n => got += n as u64,
            }
        }
        if got != bytes {
            return Err(format!("{got} bytes came back, not the {bytes} wanted"));
        }
        self.close();
        Ok(())
    }

    /// A short SMTP session, and closes.
    pub fn mail(&mut self, is_greeted: bool) -> Outcome<()> {
        if !is_greeted {
            reply(self, "220")?;
        }
        for (command, code) in [(&b"EHLO a\r\n"[..], "250"), (b"QUIT\r\n", "221")] {
            self.write_all(command).map_err(because("write"))?;
            reply(self, code)?;
        }
        self.drain(0)
    }

    /// Sends `bytes` bytes.
    pub fn pour(&mut self, bytes: u64) -> Outcome<()> {
        let buffer = vec![0; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.write_all(&buffer[..now]).map_err(because("write"))?;
            left -= now as u64;
        }
        Ok(())
    }

    /// Whether the server took up the session offered.
    pub fn was_resumed(&self) -> bool {
        matches!(self, Connection::Tls(stream) if stream.ssl().session_reused())
    }

    /// What a later connection can take up, once all of this one was read.
    pub fn resumable(&self) -> Option<Resumable> {
        match self {
            Connection::Plain(_) => None,
            Connection::Tls(stream) => Resumable::of(stream.ssl()),
        }
    }

    /// Says that no more comes.
    pub fn close(&mut self) {
        if let Connection::Tls(stream) = self {
            // The other side has already said its last word.
            let _ = stream.shutdown();
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => socket.read(buffer),
            Connection::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => socket.write(buffer),
            Connection::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(socket) => socket.flush(),
            Connection::Tls(stream) => stream.flush(),
        }
    }
}
