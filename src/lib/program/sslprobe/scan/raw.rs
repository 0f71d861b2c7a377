//! A ClientHello of our own making, and what the server says to it. Nothing is
//! completed: the connection ends there.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use openssl::rand::rand_bytes;

use super::{Scan, Stop};
use crate::dialer::DeadlineSocket;
use crate::probe::result::Version;
use crate::probe::wire::farewell;
use crate::probe::wire::hello::{ALL_SIGNATURES, ClientHello};
use crate::probe::wire::reader::{Flight, Reader, ServerReply};
use crate::report;
use crate::sys::poll;
use crate::text;
use crate::tls_ffi::alerts;

/// Which server name a hello has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Naming {
    /// None.
    None,
    /// The host's, where it has one.
    #[default]
    Own,
    /// One that no server has heard of (RFC 6761).
    Wrong,
}

/// What a hello is to offer.
#[derive(Clone, Debug)]
pub(super) struct HelloOffer {
    pub(super) version: Version,
    pub(super) older: &'static [Version],
    pub(super) suites: Vec<u16>,
    pub(super) groups: Vec<u16>,
    pub(super) signatures: Vec<u16>,
    pub(super) naming: Naming,
    pub(super) share: bool,
    pub(super) grease: bool,
    pub(super) large: bool,
}

impl HelloOffer {
    /// A hello with these suites and groups.
    pub(super) fn new(version: Version, suites: Vec<u16>, groups: Vec<u16>) -> HelloOffer {
        HelloOffer {
            version,
            older: &[],
            suites,
            groups,
            signatures: ALL_SIGNATURES.to_vec(),
            naming: Naming::Own,
            share: true,
            grease: false,
            large: false,
        }
    }
}

/// What came of a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HelloAnswer {
    /// The server's first flight, or as much of it as came.
    Flight(Box<Flight>),
    /// It refused: words that end a sentence.
    Refused(String),
}

/// The words for a refusal by an alert.
pub(super) fn alert(number: u8) -> String {
    format!("alert {} ({number})", alerts::name(number))
}

impl HelloAnswer {
    /// The flight, where there is one.
    pub(super) fn flight(self) -> Option<Flight> {
        match self {
            HelloAnswer::Flight(flight) => Some(*flight),
            HelloAnswer::Refused(_) => None,
        }
    }
}

/// A large hello: more than one segment of Ethernet's.
const LARGE: usize = 2100;
/// Where it is cut in two.
const CUT: usize = 1400;
/// How long after the first the second segment is sent.
const APART: Duration = Duration::from_millis(30);

impl Scan<'_> {
    /// Sends a hello and reads the answer. What the server showed is kept.
    pub(super) fn ask(&mut self, ask: &HelloOffer) -> Result<HelloAnswer, Stop> {
        let (socket, until) = self.ready(false)?;
        let mut random = [0; 64];
        rand_bytes(&mut random).map_err(|error| Stop::Host(error.to_string()))?;
        let mut share = [0; 32];
        share.copy_from_slice(&random[16..48]);
        let mut hello = ClientHello::new(ask.version, &ask.suites, &ask.groups, random);
        hello.older = ask.older;
        hello.signatures = &ask.signatures;
        hello.grease = ask.grease;
        hello.share = (ask.share && ask.groups.contains(&0x001d)).then_some(share);
        hello.server_name = match ask.naming {
            Naming::None => None,
            Naming::Own => self.target.server_name(),
            Naming::Wrong => Some("unheard-of.invalid"),
        };
        hello.least_length = if ask.large { LARGE } else { 0 };
        self.result.handshakes += 1;
        let answer = exchange(&socket, until, &hello.record(), ask.large);
        drop(socket);
        self.hang_up(answer.is_ok());
        let answer = match answer? {
            HelloAnswer::Flight(flight) if !ask.suites.contains(&flight.hello.suite) => {
                let name = crate::probe::suites::name(flight.hello.suite);
                HelloAnswer::Refused(format!("it chose {name}, which was not offered"))
            }
            other => other,
        };
        if let HelloAnswer::Flight(flight) = &answer {
            // Who is called by another name may show another certificate.
            let by_name = ask.naming == Naming::Own && ask.version > Version::Ssl3;
            self.note(flight, by_name);
        }
        Ok(answer)
    }
}

/// Sends a hello and reads what comes.
///
/// # Errors
/// Nothing came within the time, or bytes that are none of TLS's.
fn exchange(
    socket: &TcpStream,
    until: Instant,
    hello: &[u8],
    in_two: bool,
) -> Result<HelloAnswer, Stop> {
    let mut clear = DeadlineSocket {
        socket,
        deadline: until,
    };
    // A server that has answered may have gone, and its answer is still there.
    let unsent = send(&mut clear, hello, in_two).err();
    let mut reader = Reader::default();
    let mut buffer = [0; 16384];
    loop {
        let count = match clear.read(&mut buffer) {
            Ok(0) => return Ok(ended(reader, unsent.as_ref())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let why = if reader.is_untouched() {
                    "timed out: the server said nothing to a ClientHello"
                } else {
                    "timed out in the middle of the server's handshake"
                };
                return Err(Stop::Connection(why.to_owned()));
            }
            Err(error) => return Ok(ended(reader, Some(&error))),
        };
        let said = reader.take(&buffer[..count]);
        let answer = match said {
            Ok(None) => continue,
            Ok(Some(ServerReply::Flight(flight))) => HelloAnswer::Flight(flight),
            Ok(Some(ServerReply::Alert(number))) => HelloAnswer::Refused(alert(number)),
            Ok(Some(ServerReply::Other(bytes))) => {
                let shown = text::excerpt(&bytes, 60);
                return Err(Stop::Connection(format!(
                    "the server does not answer in TLS, but with \"{shown}\""
                )));
            }
            Err(malformed) => {
                let words = malformed.to_string();
                let flight = reader.so_far(Some(malformed)).map(Box::new);
                HelloAnswer::Flight(flight.ok_or(Stop::Connection(words))?)
            }
        };
        say_farewell(&mut clear, &answer);
        return Ok(answer);
    }
}

/// Sends a hello whole, or in two segments.
fn send(clear: &mut DeadlineSocket<'_>, hello: &[u8], in_two: bool) -> io::Result<()> {
    if !in_two {
        return clear.write_all(hello);
    }
    let (first, second) = hello.split_at(CUT.min(hello.len()));
    clear.write_all(first)?;
    poll::wait(&mut [], Some(Instant::now() + APART))?;
    clear.write_all(second)
}

/// What a connection that ended leaves behind.
fn ended(reader: Reader, error: Option<&io::Error>) -> HelloAnswer {
    if let Some(flight) = reader.so_far(None) {
        return HelloAnswer::Flight(Box::new(flight));
    }
    HelloAnswer::Refused(match error {
        Some(error) => format!("the connection was lost: {}", report::reason(error)),
        None => "the server closed the connection".to_owned(),
    })
}

/// Says farewell, so that the server need not wait for the rest.
fn say_farewell(clear: &mut DeadlineSocket<'_>, answer: &HelloAnswer) {
    if let HelloAnswer::Flight(flight) = answer {
        let version = flight.hello.version.min(Version::Tls12.number());
        let _ = clear.write_all(&farewell(version));
    }
    let _ = clear.socket.shutdown(Shutdown::Write);
}
