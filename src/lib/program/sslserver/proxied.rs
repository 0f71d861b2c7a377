//! `-L`: the launcher reads the PROXY header, to its last byte and not one
//! further.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::proxy::{Header, Networks, Reader};
use crate::report::reason;
use crate::sys::poll::{self, Ready};
use crate::sys::socket;
use crate::{connection, text};

/// For the whole header: more than the three seconds of a lost segment.
const PATIENCE: Duration = Duration::from_secs(5);
/// A header of version 1 or 2 with the usual TLVs comes in one look.
const GLANCE: usize = 512;

/// The connection's two addresses, local and remote: those of the header, or
/// those of the socket where it tells none.
///
/// # Errors
/// Why the connection is dropped, with the sender's address.
pub(super) fn ends(
    senders: &Networks,
    client: &TcpStream,
    own: (SocketAddr, SocketAddr),
) -> Result<(SocketAddr, SocketAddr), String> {
    let sender = own.1.ip();
    let shown = connection::shown(sender);
    if !senders.contain(sender) {
        return Err(format!("sender {shown} is in no network of -L"));
    }
    match header(client) {
        Ok(Header::Proxied { client, server }) => Ok((server, client)),
        Ok(Header::Socket) => Ok(own),
        Err(why) => Err(format!("no PROXY header from {shown}: {why}")),
    }
}

fn header(client: &TcpStream) -> Result<Header, String> {
    let deadline = Instant::now() + PATIENCE;
    let mut reader = Reader::new();
    let mut glance = [0; GLANCE];
    loop {
        let mut wanted = [(client.as_fd(), Ready::READ)];
        poll::wait(&mut wanted, Some(deadline)).map_err(|error| reason(&error))?;
        // Bytes that keep coming must not hold the deadline off, and a header
        // that came whole is not late where only we are.
        let late = reader.taken() > 0 && Instant::now() >= deadline;
        if late || wanted[0].1 == Ready::default() {
            return Err(format!(
                "{} bytes of one within {} seconds",
                reader.taken(),
                PATIENCE.as_secs()
            ));
        }
        let count = match socket::peek(client, &mut glance) {
            Ok(0) => return Err(format!("end of file after {} bytes", reader.taken())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(reason(&error)),
        };
        let (taken, header) = reader.push(&glance[..count]).map_err(|wrong| {
            format!(
                "{wrong}, after {} bytes: {}",
                reader.taken(),
                text::quoted(&glance[..count], 100)
            )
        })?;
        // They are there: a stream gives what it has shown.
        match socket::receive(client, &mut glance[..taken]) {
            Ok(got) if got == taken => {}
            Ok(_) => return Err("the stream lost bytes".to_owned()),
            Err(error) => return Err(reason(&error)),
        }
        if let Some(header) = header {
            return Ok(header);
        }
    }
}
