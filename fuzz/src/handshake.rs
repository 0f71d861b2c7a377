//! A client's first flight, as an engine has it: libssl reads it, and what is told of
//! its failure is drawn from it.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVersion};
use ucspi_tls::internals::handshake::{Side, perform};
use ucspi_tls::internals::hello::{FiniteField, FiniteGroup, KeyKind, Terms, record};
use ucspi_tls::internals::settings::Version;

/// A socket holds so much without a reader.
const MOST: usize = 32 * 1024;

/// As long as nobody waits for it.
const LIMIT: Duration = Duration::from_secs(30);

thread_local! {
    static SERVERS: [(SslContext, Side<'static>); 2] = [
        (server(None), side(Version::Tls12, None)),
        (server(Some(SslVersion::TLS1_2)), side(Version::Tls12, Some(Version::Tls12))),
    ];
}

fn side(lowest: Version, highest: Option<Version>) -> Side<'static> {
    Side {
        kinds: &[KeyKind::Ecdsa(256)],
        versions: (lowest, highest),
    }
}

fn server(highest: Option<SslVersion>) -> SslContext {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = EcKey::generate(&group).and_then(PKey::from_ec_key);
    let key = key.expect("a key");
    let certificate = crate::probe::certificate_of(&key, openssl::hash::MessageDigest::sha256(), 2);
    let mut context = SslContext::builder(SslMethod::tls_server()).expect("a context");
    context
        .set_max_proto_version(highest)
        .expect("a known version");
    context.set_private_key(&key).expect("a key");
    context.set_certificate(&certificate).expect("its own");
    let terms = Terms {
        finite_field: FiniteField::Group(FiniteGroup::of_strength(2048)),
        groups: vec![23, 29],
        ..Terms::any()
    };
    record(&mut context, Arc::new(terms)).expect("room");
    context.build()
}

/// What a client writes before it has heard anything.
struct Deaf(Vec<u8>);

impl Read for Deaf {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Deaf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client(ciphers: &str, groups: &str, highest: Option<SslVersion>) -> Vec<u8> {
    let mut context = SslContext::builder(SslMethod::tls_client()).expect("a context");
    context.set_cipher_list(ciphers).expect("known ones");
    context.set_groups_list(groups).expect("known ones");
    context.set_max_proto_version(highest).expect("a known one");
    let mut ssl = Ssl::new(&context.build()).expect("a session");
    ssl.set_hostname("mx.example").expect("a name");
    let mut stream = SslStream::new(ssl, Deaf(Vec::new())).expect("a stream");
    assert!(stream.connect().is_err());
    std::mem::take(&mut stream.get_mut().0)
}

/// Flights of clients, and of what is none; then extensions of a flight.
pub fn seeds() -> Vec<Vec<u8>> {
    let old = [
        &b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10"[..],
        b"\x01\0\x80\x07\0\xc0\0\0\x39\0\0\x35\0\0\x16\0\0\x13\0\0\x0a",
        &[7; 16],
    ]
    .concat();
    let flights = [
        client("ALL", "P-256:X25519", None),
        client("ALL", "P-384", None),
        client(
            "ECDHE-RSA-AES128-GCM-SHA256",
            "P-256",
            Some(SslVersion::TLS1_2),
        ),
        client("AES128-SHA", "P-256", Some(SslVersion::TLS1_2)),
        old,
        b"EHLO mx.example\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x15\x03\x01\0\x02\x02\x28".to_vec(),
        Vec::new(),
    ];
    let extensions = [
        &b"\x02\xc0\x2b\x13\x01\0\x2b\0\x03\x02\x03\x04\0\x0a\0\x04\0\x02\0\x17\0\x0d\0\x04\0\x02\x04\x03"[..],
        b"\x01\xc0\x2f\0\x0d\0\x06\0\x04\x04\x01\x02\x03\0\0\0\x06\0\x04\0\0\x01a",
        b"\x02\0\x05\xc0\x11\0\x0a\0\x06\0\x04\x01\0\x0a\x0a",
    ];
    let whole = flights
        .iter()
        .flat_map(|flight| [[&[0], &flight[..]].concat(), [&[1], &flight[..]].concat()]);
    let built = extensions.iter().flat_map(|rest| {
        [
            [&[2], &rest[..]].concat(),
            [&[3], &rest[..]].concat(),
            [&[6], &rest[..]].concat(),
        ]
    });
    whole.chain(built).collect()
}

/// A ClientHello (RFC 8446, 4.1.2) with so many suites and these extensions.
fn hello(old: bool, bytes: &[u8]) -> Vec<u8> {
    let Some((&suites, rest)) = bytes.split_first() else {
        return Vec::new();
    };
    let (suites, extensions) = rest.split_at((usize::from(suites) * 2).min(rest.len() & !1));
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let body = [
        &[3, if old { 1 } else { 3 }][..],
        &[7; 32],
        &[0],
        &sized(suites),
        &[1, 0],
        &sized(&extensions[..extensions.len().min(8192)]),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// Any bytes as a client's whole flight, or as the suites and extensions of one that is
/// sound otherwise: no session comes of it, and the reason is one line that can be
/// shown. Bits of the first byte: a server of TLS 1.2 alone; suites and extensions; an
/// old client's.
pub fn client_hello(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else {
        return;
    };
    let flight = if mode & 2 == 0 {
        rest[..rest.len().min(MOST)].to_vec()
    } else {
        hello(mode & 4 != 0, rest)
    };
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    ours.set_nonblocking(true).expect("set");
    theirs.write_all(&flight).expect("it fits");
    theirs.shutdown(Shutdown::Write).expect("it is open");
    let failure = SERVERS.with(|servers| {
        let (context, side) = &servers[usize::from(mode & 1)];
        let mut ssl = Ssl::new(context).expect("a session");
        ssl.set_accept_state();
        perform(ssl, TcpStream::from(OwnedFd::from(ours)), LIMIT, *side).err()
    });
    let said = failure.expect("nobody answers the server").to_string();
    assert!(
        !said.is_empty() && said.len() < 4096,
        "{} bytes",
        said.len()
    );
    assert!(
        said.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "{said:?}"
    );
}
