//! Who the client is: its two addresses, under `-L` from the PROXY header, which
//! is read to its last byte and not one further.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::Stop;
use crate::program::sslserver::Setup;
use crate::proxy::{Header, Malformed, Reader};
use crate::report::Fail;
use crate::sys::poll::{self, Ready};
use crate::sys::{process, socket};
use crate::{connection, text};

/// For the whole header: more than the three seconds of a lost segment.
const PATIENCE: Duration = Duration::from_secs(5);
/// A header of version 1 or 2 with the usual TLVs comes in one look.
const GLANCE: usize = 512;

/// How long a health check may take to go on with TLS, or to leave. A client that
/// needs longer has its time for the handshake.
const FIRST_BYTE: Duration = Duration::from_secs(20);

/// The connection's two addresses, local and remote: those of the header, or those
/// of the socket where it tells none, and without `-L`.
pub(super) fn addresses(
    setup: &Setup,
    client: &TcpStream,
    remote: SocketAddr,
) -> Result<(SocketAddr, SocketAddr), Stop> {
    let local = client
        .local_addr()
        .map_err(Fail::unable("get local address"))?;
    let own = (local, remote);
    let Some(senders) = &setup.senders else {
        return Ok(own);
    };
    let sender = remote.ip();
    let shown = connection::shown(sender);
    if !senders.contain(sender) {
        let why = format!("sender {shown} is in no network of -L");
        return Err(Fail::from(why).into());
    }
    let ends = match header(client) {
        Ok(Some(Header::Proxied { client, server })) => (server, client),
        Ok(Some(Header::Socket)) => own,
        Ok(None) => return Err(tell_health_check(setup, sender, "without a PROXY header")),
        Err(why) => return Err(why.of(format_args!("no PROXY header from {shown}")).into()),
    };
    // A health check comes every few seconds, with LOCAL, UNKNOWN or the proxy's
    // own address.
    if ends.1 == own.1 && has_left(client, first_byte(setup)) {
        return Err(tell_health_check(setup, sender, "behind the PROXY header"));
    }
    Ok(ends)
}

/// Says that the sender only looked whether somebody is here.
fn tell_health_check(setup: &Setup, sender: IpAddr, closed: &str) -> Stop {
    let (id, shown) = (process::own_id(), connection::shown(sender));
    setup.report.status(format_args!(
        "pid {id} from {shown}: closed {closed}: a health check"
    ));
    Stop::Told(0)
}

/// How long a sender that speaks for itself may take for its first byte before it
/// is taken at its word; in TLS it is the client that speaks first.
fn first_byte(setup: &Setup) -> Duration {
    let options = &setup.options;
    if options.delayed {
        return Duration::ZERO;
    }
    FIRST_BYTE.min(Duration::from_secs(options.handshake_seconds.into()))
}

/// Whether the client ends the connection, in whatever way, instead of a first
/// byte.
fn has_left(client: &TcpStream, first: Duration) -> bool {
    if poll::one(client.as_fd(), Ready::READ, Instant::now() + first).is_err() {
        return false;
    }
    match socket::peek(client, &mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// `None`: the sender closed the connection without a byte.
fn header(client: &TcpStream) -> Result<Option<Header>, Fail> {
    let deadline = Instant::now() + PATIENCE;
    let mut reader = Reader::new();
    let mut glance = [0; GLANCE];
    loop {
        let came = poll::one(client.as_fd(), Ready::READ, deadline)?;
        // Bytes that keep coming must not hold the deadline off, and a header
        // that came whole is not late where only we are.
        let taken = reader.taken();
        if (taken > 0 && Instant::now() >= deadline) || came.is_nothing() {
            return Err(late(taken));
        }
        let count = match socket::peek(client, &mut glance) {
            Ok(0) if taken == 0 => return Ok(None),
            Ok(0) => {
                let bytes = text::count(taken, "byte");
                return Err(format!("the sender closed the connection after {bytes} of it").into());
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && taken == 0 => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let (taken, header) = reader.push(&glance[..count]).map_err(|wrong| {
            let sent = text::quoted(&glance[..count], 100);
            match wrong {
                Malformed::NoHeader => format!("the sender began with {sent}"),
                wrong => format!("{wrong}: {sent}"),
            }
        })?;
        // They are there: a stream gives what it has shown.
        match socket::receive(client, &mut glance[..taken]) {
            Ok(got) if got == taken => {}
            Ok(_) => return Err("bytes of it were lost".into()),
            Err(error) => return Err(error.into()),
        }
        if header.is_some() {
            return Ok(header);
        }
    }
}

/// The time was over when so many bytes were there.
fn late(taken: usize) -> Fail {
    let seconds = PATIENCE.as_secs();
    if taken == 0 {
        return format!("the sender was silent for {seconds} seconds").into();
    }
    let bytes = text::count(taken, "byte");
    format!("only {bytes} of it came within {seconds} seconds").into()
}
