//! One connection as its two ends: addresses, names, ident answer, and the
//! variables that tell the program of them (ucspi-tls-environment(7), tcp-environ(5)).
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use crate::environ::Edits;
use crate::options::Family;
use crate::resolve;
use crate::sys::poll::{self, Ready};
use crate::sys::socket;
use crate::text;

/// RFC 1413's port.
const IDENT_PORT: u16 = 113;
/// No ident answer is longer: RFC 1413 section 6 says 1000 characters.
const IDENT_LIMIT: usize = 1000;

/// One end.
#[derive(Clone, Debug)]
pub struct End {
    /// Address (IPv4 where it was IPv4-mapped) and port.
    pub address: SocketAddr,
    /// Host name in lower case, made by whoever owns the address.
    pub name: Option<Vec<u8>>,
}

/// Both ends.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Ours.
    pub local: End,
    /// The peer's.
    pub remote: End,
    /// What the peer's ident server said.
    pub info: Option<Vec<u8>>,
}

/// What to look up about the ends, and how to name them.
#[derive(Clone, Debug)]
pub struct Naming {
    /// Look up the peer's name.
    pub lookup: bool,
    /// Drop the peer's name if it does not resolve back to its address.
    pub paranoid: bool,
    /// The local name; looked up if not given.
    pub local_name: Option<String>,
    /// Seconds to wait for the peer's ident server; `None`: do not ask.
    pub ident_seconds: Option<u32>,
}

impl Connection {
    /// Two addresses, of which nothing more is known.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Connection {
        let end = |address| End {
            address: canonical(address),
            name: None,
        };
        Connection {
            local: end(local),
            remote: end(remote),
            info: None,
        }
    }

    /// Takes the local name that was given, if one was.
    pub fn name_local(&mut self, naming: &Naming) {
        let given = naming.local_name.as_ref();
        self.local.name = given.map(|name| name.to_lowercase().into_bytes());
    }

    /// Looks up what is asked for. Slow: call it where nobody else waits.
    pub fn look_up(&mut self, naming: &Naming) {
        let (local, remote) = (self.local.address, self.remote.address);
        self.name_local(naming);
        if self.local.name.is_none() {
            self.local.name = resolve::name_of(local.ip());
        }
        if naming.lookup {
            self.remote.name = resolve::name_of(remote.ip())
                .filter(|name| !naming.paranoid || resolve::resolves_to(name, remote.ip()));
        }
        if let Some(seconds) = naming.ident_seconds {
            let limit = Duration::from_secs(seconds.into());
            self.info = ident(local, remote, limit).ok().flatten();
        }
    }

    /// The peer's address as log lines show it.
    #[must_use]
    pub fn remote_ip(&self) -> String {
        shown(self.remote.address.ip())
    }

    /// The two fields of an `ok` or `deny` line: `name:ip:port` and
    /// `name:ip:info:port`.
    #[must_use]
    pub fn status_fields(&self) -> String {
        let name = |end: &End| {
            end.name
                .as_deref()
                .map(text::status_field)
                .unwrap_or_default()
        };
        format!(
            "{}:{}:{} {}:{}:{}:{}",
            name(&self.local),
            shown(self.local.address.ip()),
            self.local.address.port(),
            name(&self.remote),
            shown(self.remote.address.ip()),
            self.info
                .as_deref()
                .map(text::status_field)
                .unwrap_or_default(),
            self.remote.address.port(),
        )
    }

    /// The variables of both ends, all others of these names removed.
    #[must_use]
    pub fn variables(&self, family: Family, tcp_names: bool) -> Edits {
        let mut edits = Edits::new();
        for prefix in ["SSL", "TCP", "TCP6"] {
            for end in ["LOCAL", "REMOTE"] {
                for part in ["IP", "PORT", "HOST", "INFO"] {
                    edits.remove(&format!("{prefix}{end}{part}"));
                }
            }
        }
        edits.remove("TCP6INTERFACE");
        let v6_peer = self.remote.address.is_ipv6();
        edits.set(
            "PROTO",
            match (tcp_names, family) {
                (false, Family::Six) => "SSL6",
                (false, _) => "SSL",
                (true, _) if v6_peer => "TCP6",
                (true, _) => "TCP",
            },
        );
        self.set_ends(&mut edits, "SSL", shown);
        if tcp_names {
            self.set_ends(&mut edits, "TCP", shown);
            if v6_peer {
                self.set_ends(&mut edits, "TCP6", shown);
                edits.set_if("TCP6INTERFACE", self.interface());
            }
        }
        edits
    }

    fn set_ends(&self, edits: &mut Edits, prefix: &str, form: impl Fn(IpAddr) -> String) {
        for (side, end) in [("LOCAL", &self.local), ("REMOTE", &self.remote)] {
            edits.set(format!("{prefix}{side}IP"), form(end.address.ip()));
            edits.set(
                format!("{prefix}{side}PORT"),
                end.address.port().to_string(),
            );
            edits.set_if(format!("{prefix}{side}HOST"), end.name.as_deref());
        }
        edits.set_if(format!("{prefix}REMOTEINFO"), self.info.as_deref());
    }

    /// The interface of a link-local peer.
    fn interface(&self) -> Option<String> {
        match self.remote.address {
            SocketAddr::V6(v6) if socket::is_link_local(IpAddr::V6(*v6.ip())) => {
                socket::interface_name(v6.scope_id())
            }
            _ => None,
        }
    }
}

/// A socket address without the IPv4-mapped form.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// An address as people write it, an IPv4-mapped one as IPv4, under `-6` too:
/// block lists, SPF and log scanners know no other form.
#[must_use]
pub fn shown(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// Asks a host's ident server who owns a connection (RFC 1413): the user id of
/// a USERID answer.
fn ident(local: SocketAddr, remote: SocketAddr, limit: Duration) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + limit;
    let mut server = remote;
    server.set_port(IDENT_PORT);
    let mut from = local;
    from.set_port(0);
    let fd = socket::stream_socket(server)?;
    // The answer is about a pair of addresses: ask from the right one.
    socket::bind_local(&fd, from)?;
    let wait = |on: BorrowedFd<'_>, ready| -> io::Result<()> {
        if poll::one(on, ready, deadline)?.is_nothing() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    };
    if !socket::begin_connect(&fd, server)? {
        wait(fd.as_fd(), Ready::WRITE)?;
    }
    let stream: TcpStream = socket::end_connect(fd)?;
    let query = format!("{} , {}\r\n", remote.port(), local.port());
    // A fresh connection has room for so little.
    socket::transmit(&stream, query.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; IDENT_LIMIT];
    while !answer.contains(&b'\n') && answer.len() < IDENT_LIMIT {
        wait(stream.as_fd(), Ready::READ)?;
        match socket::receive(&stream, &mut buffer)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(ident_user(&answer, (remote.port(), local.port())))
}

/// The user id of `port , port : USERID : system : user`, an answer about these
/// ports: RFC 1413 section 4 has the pair of the query in it.
#[must_use]
pub fn ident_user(answer: &[u8], asked: (u16, u16)) -> Option<Vec<u8>> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    let mut fields = line.splitn(4, |&byte| byte == b':');
    let port = |field: &[u8]| -> Option<u16> {
        let digits = std::str::from_utf8(field.trim_ascii()).ok()?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    };
    let ports: Vec<&[u8]> = fields.next()?.split(|&byte| byte == b',').collect();
    let [first, second] = ports[..] else {
        return None;
    };
    if (port(first)?, port(second)?) != asked {
        return None;
    }
    let kind = fields.next()?.trim_ascii();
    if kind != b"USERID" {
        return None;
    }
    let user = fields.nth(1)?.trim_ascii();
    let user: Vec<u8> = user.iter().copied().take_while(|&byte| byte != 0).collect();
    (!user.is_empty()).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(remote: &str) -> Connection {
        Connection {
            local: End {
                address: "192.0.2.1:465".parse().expect("an address"),
                name: Some(b"mail.example.com".to_vec()),
            },
            remote: End {
                address: canonical(remote.parse().expect("an address")),
                name: None,
            },
            info: Some(b"me:\nand".to_vec()),
        }
    }

    fn variable(edits: &Edits, name: &str) -> Option<String> {
        let result = edits.apply(Vec::new());
        result
            .get(std::ffi::OsStr::new(name))
            .map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn status_fields_are_tcpservers() {
        assert_eq!(
            connection("192.0.2.7:50312").status_fields(),
            "mail.example.com:192.0.2.1:465 :192.0.2.7:me??and:50312"
        );
    }

    #[test]
    fn a_mapped_address_is_shown_as_ipv4() {
        let mapped = connection("[::ffff:192.0.2.7]:1");
        let edits = mapped.variables(Family::Any, true);
        assert_eq!(
            variable(&edits, "SSLREMOTEIP").as_deref(),
            Some("192.0.2.7")
        );
        assert_eq!(variable(&edits, "PROTO").as_deref(), Some("TCP"));
        assert_eq!(variable(&edits, "TCP6REMOTEIP"), None);
        let edits = mapped.variables(Family::Six, false);
        assert_eq!(
            variable(&edits, "SSLREMOTEIP").as_deref(),
            Some("192.0.2.7")
        );
        assert_eq!(variable(&edits, "PROTO").as_deref(), Some("SSL6"));
        let edits = mapped.variables(Family::Six, true);
        assert_eq!(variable(&edits, "PROTO").as_deref(), Some("TCP"));
        assert_eq!(
            variable(&edits, "TCPREMOTEIP").as_deref(),
            Some("192.0.2.7")
        );
        assert_eq!(variable(&edits, "TCP6REMOTEIP"), None);
        let edits = connection("[2001:db8::7]:1").variables(Family::Any, true);
        assert_eq!(variable(&edits, "PROTO").as_deref(), Some("TCP6"));
        assert_eq!(
            variable(&edits, "TCP6REMOTEIP").as_deref(),
            Some("2001:db8::7")
        );
        assert_eq!(
            variable(&edits, "TCP6LOCALIP").as_deref(),
            Some("192.0.2.1")
        );
    }

    #[test]
    fn ident_answers() {
        let user = |answer: &[u8]| ident_user(answer, (6193, 23));
        for sound in [
            &b"6193, 23 : USERID : UNIX : st:johns \r\n"[..],
            b"6193,23:USERID:UNIX:st:johns",
            b" 6193 ,\t23 :USERID: OTHER ,US-ASCII :st:johns\n2,2:x",
        ] {
            assert_eq!(user(sound).as_deref(), Some(&b"st:johns"[..]));
        }
        for none in [
            &b"6193, 23 : ERROR : NO-USER\r\n"[..],
            b"garbage",
            b"6193,23:USERID:UNIX:\r\n",
            // Of other connections, or of none.
            b"6193, 24 : USERID : UNIX : root\r\n",
            b"23, 6193 : USERID : UNIX : root\r\n",
            b"1,2:USERID:UNIX:root",
            b"6193:USERID:UNIX:root",
            b"6193,23,1:USERID:UNIX:root",
            b"+6193,23:USERID:UNIX:root",
            b",:USERID:UNIX:root",
            b"71729,23:USERID:UNIX:root",
        ] {
            assert_eq!(user(none), None);
        }
    }
}
