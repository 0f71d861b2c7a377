//! A TLS client on the openssl crate: every knob that a test needs, and a
//! deadline on every read and write.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use openssl::ssl::{
    ErrorCode, HandshakeError, Ssl, SslContext, SslContextBuilder, SslMethod, SslStream,
    SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;

use super::authority::{Authority, Identity};
use super::process::PATIENCE;
use super::server::Server;

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With close_notify, as it should.
    CloseNotify,
    /// With an error: the reason that libssl gives, or the system.
    Error(String),
    /// By end of file without close_notify.
    Truncated,
}

/// A connection to be.
pub struct Dial {
    at: SocketAddr,
    from: Option<SocketAddr>,
    receive_buffer: Option<usize>,
    name: Option<String>,
    context: SslContextBuilder,
}

/// A connection with TLS up.
pub struct Tls {
    pub stream: SslStream<Steady>,
}

/// A connection whose reads and writes go on where they were interrupted: a
/// process that is stopped and continued, or traced, has them end so where they
/// have a deadline (signal(7)), and libssl takes that for the connection's end.
pub struct Steady(TcpStream);

impl From<TcpStream> for Steady {
    fn from(stream: TcpStream) -> Steady {
        Steady(stream)
    }
}

/// Has it done again for as long as it was only interrupted.
fn steadily(mut once: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match once() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Read for Steady {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        steadily(|| self.0.read(buffer))
    }
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        steadily(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Deref for Steady {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

/// A plain connection with deadlines on its reads and writes.
pub fn plain(at: SocketAddr) -> TcpStream {
    tcp(at, None, None)
}

pub fn tcp(at: SocketAddr, from: Option<SocketAddr>, receive_buffer: Option<usize>) -> TcpStream {
    try_tcp(at, from, receive_buffer).unwrap()
}

/// [`tcp`], where a failure may be the server's.
pub fn try_tcp(
    at: SocketAddr,
    from: Option<SocketAddr>,
    receive_buffer: Option<usize>,
) -> io::Result<TcpStream> {
    let family = if at.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(size) = receive_buffer {
        setsockopt(&socket, sockopt::RcvBuf, &size)?;
    }
    let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
    if let Some(from) = from {
        bind(raw, &SockaddrStorage::from(from))?;
    }
    connect(raw, &SockaddrStorage::from(at))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes the next close send a reset.
pub fn linger_zero(stream: &TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream.as_fd(), sockopt::Linger, &linger).unwrap();
}

impl Dial {
    /// To `localhost`, verified against the shared root.
    pub fn to(server: &Server) -> Dial {
        Dial::at(server.at)
    }

    pub fn at(at: SocketAddr) -> Dial {
        let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
        context.set_verify(SslVerifyMode::PEER);
        Dial {
            at,
            from: None,
            receive_buffer: None,
            name: Some("localhost".into()),
            context,
        }
        .trusting(Authority::shared_root())
    }

    /// Trusts this root alone.
    pub fn trusting(self, root: &Authority) -> Dial {
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(root.certificate.clone()).unwrap();
        self.with(|context| context.set_cert_store(store.build()))
    }

    /// Verifies nothing.
    pub fn blindly(self) -> Dial {
        self.with(|context| context.set_verify(SslVerifyMode::NONE))
    }

    /// Any other setting.
    pub fn with(mut self, set: impl FnOnce(&mut SslContextBuilder)) -> Dial {
        set(&mut self.context);
        self
    }

    /// This version alone.
    pub fn version(self, version: SslVersion) -> Dial {
        self.with(|context| {
            // What is below 1.2 needs level 0 with OpenSSL 3.
            if version == SslVersion::TLS1 || version == SslVersion::TLS1_1 {
                context.set_cipher_list("DEFAULT:@SECLEVEL=0").unwrap();
            }
            context.set_min_proto_version(Some(version)).unwrap();
            context.set_max_proto_version(Some(version)).unwrap();
        })
    }

    /// Cipher list for TLS 1.2 and below.
    pub fn ciphers(self, list: &str) -> Dial {
        self.with(|context| context.set_cipher_list(list).unwrap())
    }

    /// Signature algorithms.
    pub fn signatures(self, list: &str) -> Dial {
        self.with(|context| context.set_sigalgs_list(list).unwrap())
    }

    /// Key-exchange groups.
    pub fn groups(self, list: &str) -> Dial {
        self.with(|context| context.set_groups_list(list).unwrap())
    }

    /// A client certificate.
    pub fn presenting(self, identity: &Identity) -> Dial {
        self.with(|context| {
            context.set_certificate(&identity.certificate).unwrap();
            context.set_private_key(&identity.key).unwrap();
            for one in &identity.between {
                context.add_extra_chain_cert(one.clone()).unwrap();
            }
        })
    }

    /// The server name, in SNI and in what is verified; none: neither.
    pub fn name(mut self, name: Option<&str>) -> Dial {
        self.name = name.map(str::to_owned);
        self
    }

    /// Connects from this address.
    pub fn from(mut self, from: SocketAddr) -> Dial {
        self.from = Some(from);
        self
    }

    /// A small receive buffer makes a slow reader.
    pub fn receive_buffer(mut self, bytes: usize) -> Dial {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Connects; a failure is the test's.
    pub fn connect(self) -> Tls {
        self.attempt()
            .unwrap_or_else(|why| panic!("handshake: {why}"))
    }

    /// Connects, and says why where that fails.
    pub fn attempt(self) -> Result<Tls, String> {
        let stream = tcp(self.at, self.from, self.receive_buffer);
        self.over(stream)
    }

    /// The session to be, for a handshake over anything.
    pub fn ssl(self) -> Ssl {
        let mut ssl = Ssl::new(&self.context.build()).unwrap();
        if let Some(name) = &self.name {
            ssl.set_hostname(name).unwrap();
            ssl.param_mut().set_host(name).unwrap();
        }
        ssl
    }

    /// The handshake over a connection that is there already.
    pub fn over(self, stream: TcpStream) -> Result<Tls, String> {
        match self.ssl().connect(Steady(stream)) {
            Ok(stream) => Ok(Tls { stream }),
            Err(HandshakeError::Failure(half) | HandshakeError::WouldBlock(half)) => {
                Err(half.error().to_string())
            }
            Err(HandshakeError::SetupFailure(stack)) => Err(stack.to_string()),
        }
    }
}

/// A reproducible stream of bytes that does not compress into a pattern.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }
}

impl Tls {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// A KeyUpdate that asks for one in return; false where the connection is
    /// over.
    pub fn update_keys(&mut self) -> bool {
        ucspi_tls::internals::update_keys(self.stream.ssl()).unwrap();
        self.stream.do_handshake().is_ok()
    }

    /// Tells the server that nothing more will come, by close_notify alone.
    pub fn finish(&mut self) {
        self.stream.shutdown().unwrap();
    }

    /// close_notify, then a half-close of the connection.
    pub fn half_close(&mut self) {
        self.finish();
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Exactly so many bytes.
    pub fn read_exact(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Up to and with the next newline.
    pub fn line(&mut self) -> String {
        let mut bytes = Vec::new();
        while bytes.last() != Some(&b'\n') {
            bytes.extend(self.read_exact(1));
        }
        String::from_utf8(bytes).unwrap()
    }

    /// All that still comes, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 65536];
        loop {
            match self.stream.ssl_read(&mut piece) {
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) => return (bytes, end(&error)),
            }
        }
    }

    /// All that still comes, as text; fails without close_notify.
    pub fn text(&mut self) -> String {
        let (bytes, end) = self.rest();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(end, End::CloseNotify, "after {text:?}");
        text
    }

    /// Sends and receives at once, `total` bytes each way, and gives the SHA-256
    /// of both streams.
    pub fn both_ways(&mut self, total: usize, noise: &mut Noise) -> ([u8; 32], [u8; 32]) {
        let (mut sent_hash, mut got_hash) =
            (openssl::sha::Sha256::new(), openssl::sha::Sha256::new());
        let (mut sent, mut got) = (0, 0);
        let mut out = vec![0; 65536];
        let (mut at, mut filled) = (0, 0);
        let mut piece = vec![0; 65536];
        self.stream.get_ref().set_nonblocking(true).unwrap();
        while sent < total || got < total {
            let mut stuck = true;
            if sent < total {
                if at == filled {
                    filled = out.len().min(total - sent);
                    noise.fill(&mut out[..filled]);
                    at = 0;
                }
                match self.stream.ssl_write(&out[at..filled]) {
                    Ok(count) => {
                        sent_hash.update(&out[at..at + count]);
                        at += count;
                        sent += count;
                        stuck = false;
                    }
                    Err(error) => would_block(&error),
                }
            }
            match self.stream.ssl_read(&mut piece) {
                Ok(count) => {
                    got_hash.update(&piece[..count]);
                    got += count;
                    stuck = false;
                }
                Err(error) => would_block(&error),
            }
            if stuck {
                let mut events = PollFlags::POLLIN;
                if sent < total {
                    events |= PollFlags::POLLOUT;
                }
                let limit = PollTimeout::try_from(PATIENCE).unwrap();
                let socket = self.stream.get_ref().as_fd();
                let ready = poll(&mut [PollFd::new(socket, events)], limit).unwrap();
                assert!(ready > 0, "no byte moved: {sent} sent, {got} received");
            }
        }
        self.stream.get_ref().set_nonblocking(false).unwrap();
        assert_eq!((sent, got), (total, total));
        (sent_hash.finish(), got_hash.finish())
    }

    pub fn version(&self) -> &'static str {
        self.stream.ssl().version_str()
    }

    pub fn cipher(&self) -> &'static str {
        self.stream.ssl().current_cipher().unwrap().name()
    }

    /// The common name of the certificate that the server showed.
    pub fn server_name(&self) -> String {
        let certificate = self.stream.ssl().peer_certificate().unwrap();
        let mut names = certificate
            .subject_name()
            .entries_by_nid(openssl::nid::Nid::COMMONNAME);
        names.next().unwrap().data().to_string().unwrap()
    }

    /// The type of the key that the server showed.
    pub fn server_key(&self) -> openssl::pkey::Id {
        let certificate = self.stream.ssl().peer_certificate().unwrap();
        certificate.public_key().unwrap().id()
    }
}

fn would_block(error: &openssl::ssl::Error) {
    let code = error.code();
    assert!(
        code == ErrorCode::WANT_READ || code == ErrorCode::WANT_WRITE,
        "{error}"
    );
}

fn end(error: &openssl::ssl::Error) -> End {
    let text = error.to_string();
    match error.code() {
        ErrorCode::ZERO_RETURN => End::CloseNotify,
        ErrorCode::SYSCALL if error.io_error().is_none() => End::Truncated,
        _ if text.contains("unexpected eof") => End::Truncated,
        _ => {
            let blocked = error
                .io_error()
                .is_some_and(|cause| cause.kind() == ErrorKind::WouldBlock);
            assert!(
                !blocked && error.code() != ErrorCode::WANT_READ,
                "nothing came"
            );
            End::Error(text)
        }
    }
}
