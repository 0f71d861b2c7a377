//! DNS servers, and questions that are put to them without a check of the answer:
//! by UDP, by TCP where an answer is too long for that; to the next server where
//! one is silent; without EDNS where a server does not know it.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use domain::base::iana::Rcode;
use domain::base::{MessageBuilder, Name, Rtype};

use super::message::{self, Message, is_about};
use crate::dns::name::DomainName;
use crate::report::Fail;
use crate::resolve;
use crate::sys::poll::{self, Ready};
use crate::sys::socket;

const PORT: u16 = 53;
/// As many servers as resolv.conf(5) takes.
const MOST_SERVERS: usize = 3;
/// What a UDP answer may be long, as an answer that passes without fragments:
/// RFC 9715.
const UDP_SIZE: u16 = 1232;
/// The longest message.
const LONGEST: usize = 65535;

/// When a question is sent to a server that does not answer; the next server's
/// turns come [`STAGGER`] later each.
const TURNS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(9),
];
/// The same without EDNS, for a server that has never answered with it: some, and
/// some firewalls before them, drop what they do not know (RFC 6891, 6.2.2).
const PLAIN_TURNS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(6)];
const STAGGER: Duration = Duration::from_millis(400);

/// What is asked, and how.
#[derive(Clone)]
pub struct Question {
    /// Whose records.
    pub name: DomainName,
    /// Of which type.
    pub kind: Rtype,
    /// Signatures are wanted, too (DO).
    pub signatures: bool,
    /// The server is to leave the checking to us (CD).
    pub unchecked: bool,
}

/// An answer, with the server that gave it.
pub struct Reply {
    /// As it came.
    pub message: Message,
    /// Whose it is.
    pub server: SocketAddr,
}

/// What is known of a server's EDNS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edns {
    Unknown,
    Spoken,
    Missing,
}

struct NameServer {
    address: SocketAddr,
    edns: Cell<Edns>,
}

/// The servers, those first that answer.
pub struct Servers {
    list: RefCell<Vec<NameServer>>,
    answered: Cell<bool>,
}

/// A question that was sent.
struct Sent {
    socket: UdpSocket,
    id: u16,
    server: usize,
    edns: bool,
}

/// One question on its way.
struct Exchange<'a> {
    question: &'a Question,
    servers: &'a [NameServer],
    begin: Instant,
    /// What is still to be sent: when, to whom, with EDNS or without.
    turns: Vec<(Duration, usize, bool)>,
    sent: Vec<Sent>,
    /// The servers that have failed, each with what it said.
    failed: Vec<(usize, Result<Message, Fail>)>,
}

impl Servers {
    /// These, else those of resolv.conf, else the one on this host.
    #[must_use]
    pub fn new(servers: &[IpAddr]) -> Servers {
        let mut addresses: Vec<SocketAddr> = servers
            .iter()
            .map(|ip| SocketAddr::new(*ip, PORT))
            .collect();
        if addresses.is_empty() {
            if let Ok(text) = fs::read("/etc/resolv.conf") {
                addresses = listed(&text);
            }
        }
        if addresses.is_empty() {
            addresses.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        let server = |address| NameServer {
            address,
            edns: Cell::new(Edns::Unknown),
        };
        Servers {
            list: RefCell::new(addresses.into_iter().map(server).collect()),
            answered: Cell::new(false),
        }
    }

    /// All but this one.
    #[must_use]
    pub fn besides(&self, one: SocketAddr) -> Vec<SocketAddr> {
        let list = self.list.borrow();
        let addresses = list.iter().map(|server| server.address);
        addresses.filter(|address| *address != one).collect()
    }

    /// Whether there was any answer yet.
    #[must_use]
    pub fn have_answered(&self) -> bool {
        self.answered.get()
    }

    /// The answers of questions that are put at the same time, whatever they say;
    /// where none of the servers can tell, what the last one said.
    ///
    /// # Errors
    /// Nobody answered within the time: words that end a sentence.
    pub fn ask(&self, questions: &[Question], limit: Duration) -> Vec<Result<Reply, Fail>> {
        let list = self.list.borrow();
        let mut exchanges: Vec<Exchange<'_>> = questions
            .iter()
            .map(|question| Exchange::new(question, &list))
            .collect();
        let found = exchange(&mut exchanges, limit);
        let best = found.iter().flatten().map(|(_, place)| *place).next();
        let replies = found.into_iter().map(|found| {
            let (message, place) = found?;
            let server = list[place].address;
            Ok(Reply { message, server })
        });
        let replies = replies.collect();
        drop(exchanges);
        drop(list);
        if let Some(place) = best {
            self.answered.set(true);
            // It is asked first from now on.
            self.list.borrow_mut()[..=place].rotate_right(1);
        }
        replies
    }
}

/// Takes exchanges to their ends, all at the same time.
fn exchange(
    exchanges: &mut [Exchange<'_>],
    limit: Duration,
) -> Vec<Result<(Message, usize), Fail>> {
    let end = Instant::now() + limit;
    let mut found: Vec<Option<Result<(Message, usize), Fail>>> = Vec::new();
    found.resize_with(exchanges.len(), || None);
    loop {
        let mut wanted = Vec::new();
        let mut next = end;
        for (one, found) in exchanges.iter_mut().zip(&mut found) {
            if found.is_some() {
                continue;
            }
            one.send_due();
            if Instant::now() >= end || one.has_failed() {
                *found = Some(one.failure(limit));
            } else if let Some(turn) = one.turns.first() {
                next = next.min(one.begin + turn.0);
            }
        }
        for (number, (one, found)) in exchanges.iter().zip(&found).enumerate() {
            if found.is_none() {
                let sent = one.sent.iter().enumerate();
                wanted.extend(sent.map(|(place, sent)| (number, place, sent.socket.as_fd())));
            }
        }
        if found.iter().all(Option::is_some) {
            return found.into_iter().flatten().collect();
        }
        let mut ready: Vec<_> = wanted.iter().map(|(.., fd)| (*fd, Ready::READ)).collect();
        if let Err(error) = poll::wait(&mut ready, Some(next)) {
            let why = Fail::from(error);
            let open = found.into_iter();
            return open
                .map(|found| found.unwrap_or_else(|| Err(why.clone())))
                .collect();
        }
        // One of each: what it says may end the others of its question.
        let mut came: Vec<(usize, usize)> = wanted
            .iter()
            .zip(&ready)
            .filter(|(_, (_, ready))| *ready != Ready::default())
            .map(|((number, place, _), _)| (*number, *place))
            .collect();
        came.dedup_by_key(|(number, _)| *number);
        for (number, place) in came {
            let one = &mut exchanges[number];
            found[number] = one.receive(place, end).map(Ok);
            let failed = &one.failed;
            one.sent
                .retain(|sent| failed.iter().all(|(server, _)| *server != sent.server));
        }
    }
}

impl<'a> Exchange<'a> {
    fn new(question: &'a Question, servers: &'a [NameServer]) -> Exchange<'a> {
        let mut turns = Vec::new();
        let mut later = Duration::ZERO;
        for (place, server) in servers.iter().enumerate() {
            let edns = server.edns.get();
            let known = edns != Edns::Missing;
            turns.extend(TURNS.iter().map(|&turn| (turn + later, place, known)));
            if edns == Edns::Unknown {
                turns.extend(PLAIN_TURNS.iter().map(|&turn| (turn + later, place, false)));
            }
            later += STAGGER;
        }
        turns.sort_unstable();
        Exchange {
            question,
            servers,
            begin: Instant::now(),
            turns,
            sent: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Whether no server is left that may tell.
    fn has_failed(&self) -> bool {
        self.failed.len() >= self.servers.len()
    }

    /// What the last server said, or why there is no answer.
    fn failure(&mut self, limit: Duration) -> Result<(Message, usize), Fail> {
        match self.failed.pop() {
            Some((server, Ok(message))) => Ok((message, server)),
            Some((server, Err(why))) => Err(why.of(self.servers[server].address.ip())),
            None => Err(Fail::temporary(format!(
                "no answer from {} within {} seconds",
                list_of(self.servers),
                limit.as_secs()
            ))),
        }
    }

    fn send_due(&mut self) {
        while let Some(&(turn, server, edns)) = self.turns.first() {
            if self.begin.elapsed() < turn {
                return;
            }
            self.turns.remove(0);
            match self.send(server, edns) {
                Ok(sent) => self.sent.push(sent),
                Err(error) => self.fail(server, Err(error.into())),
            }
        }
    }

    fn send(&self, server: usize, edns: bool) -> io::Result<Sent> {
        let address = self.servers[server].address;
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // The kernel takes nothing from other addresses, and draws the port.
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        let mut id = [0; 2];
        openssl::rand::rand_bytes(&mut id)?;
        let id = u16::from_be_bytes(id);
        socket.send(&self.message(id, edns)?)?;
        Ok(Sent {
            socket,
            id,
            server,
            edns,
        })
    }

    fn message(&self, id: u16, edns: bool) -> io::Result<Vec<u8>> {
        let long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut message = MessageBuilder::new_vec();
        let header = message.header_mut();
        header.set_id(id);
        header.set_rd(true);
        header.set_cd(self.question.unchecked);
        // RFC 6840, 5.7: what the server thinks of the answer is of interest.
        header.set_ad(!self.question.unchecked);
        let mut message = message.question();
        let name = Name::from_slice(self.question.name.wire())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        message.push((name, self.question.kind)).map_err(long)?;
        let mut message = message.additional();
        if edns {
            message
                .opt(|opt| {
                    opt.set_udp_payload_size(UDP_SIZE);
                    opt.set_dnssec_ok(self.question.signatures);
                    Ok(())
                })
                .map_err(long)?;
        }
        Ok(message.finish())
    }

    /// Takes what came for a question that was sent; the answer, where it is one.
    fn receive(&mut self, place: usize, end: Instant) -> Option<(Message, usize)> {
        let sent = &self.sent[place];
        let (server, edns, id) = (sent.server, sent.edns, sent.id);
        let mut bytes = vec![0; LONGEST];
        let count = match socket::receive(&sent.socket, &mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => {
                self.fail(server, Err(error.into()));
                return None;
            }
        };
        bytes.truncate(count);
        // What is no answer to this question is nobody's business.
        let mut message = self.answer(bytes, id)?;
        if message.header().tc() {
            match self.by_tcp(server, edns, end) {
                Ok(whole) => message = whole,
                Err(error) => {
                    self.fail(server, Err(Fail::from(error).of("by TCP")));
                    return None;
                }
            }
        }
        let known = &self.servers[server].edns;
        match message.header().rcode() {
            Rcode::NOERROR | Rcode::NXDOMAIN => {
                match (edns, message.opt().is_some()) {
                    (true, true) => known.set(Edns::Spoken),
                    (false, _) if known.get() == Edns::Unknown => known.set(Edns::Missing),
                    _ => {}
                }
                return Some((message, server));
            }
            // A server older than EDNS: RFC 6891, 7.
            Rcode::FORMERR | Rcode::NOTIMP if edns && message.opt().is_none() => {
                known.set(Edns::Missing);
                self.turns.retain(|turn| turn.1 != server);
                self.turns
                    .extend(TURNS.map(|turn| (self.begin.elapsed() + turn, server, false)));
                self.turns.sort_unstable();
                self.sent.retain(|sent| sent.server != server || !sent.edns);
            }
            _ => self.fail(server, Ok(message)),
        }
        None
    }

    /// A message, if it answers the question.
    fn answer(&self, bytes: Vec<u8>, id: u16) -> Option<Message> {
        let message = message::taken(bytes)?;
        let header = message.header();
        let same = is_about(&message, &self.question.name, self.question.kind);
        (header.qr() && header.id() == id && same).then_some(message)
    }

    fn by_tcp(&self, server: usize, edns: bool, end: Instant) -> io::Result<Message> {
        let left = || {
            end.saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1))
        };
        let mut stream = TcpStream::connect_timeout(&self.servers[server].address, left())?;
        let mut id = [0; 2];
        openssl::rand::rand_bytes(&mut id)?;
        let id = u16::from_be_bytes(id);
        let question = self.message(id, edns)?;
        let length = u16::try_from(question.len()).unwrap_or_default();
        stream.set_write_timeout(Some(left()))?;
        stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
        let mut length = [0; 2];
        read_within(&mut stream, &mut length, &left)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        read_within(&mut stream, &mut bytes, &left)?;
        self.answer(bytes, id)
            .ok_or_else(|| io::Error::other("the reply does not answer the question"))
    }

    /// A server cannot tell: the next one's turn comes at once.
    fn fail(&mut self, server: usize, said: Result<Message, Fail>) {
        self.turns.retain(|turn| turn.1 != server);
        self.failed.retain(|(other, _)| *other != server);
        self.failed.push((server, said));
        if let Some(next) = self.turns.first_mut() {
            next.0 = Duration::ZERO;
        }
    }
}

/// As `read_exact`; the end counts for all of it, however slowly bytes come.
fn read_within(
    stream: &mut TcpStream,
    mut bytes: &mut [u8],
    left: &impl Fn() -> Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes = &mut bytes[count..],
        }
        if left() <= Duration::from_millis(1) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

fn list_of(servers: &[NameServer]) -> String {
    let names: Vec<String> = servers
        .iter()
        .map(|one| one.address.ip().to_string())
        .collect();
    names.join(", ")
}

/// The servers of `$DNSCACHEIP`: an address; or several of IPv4 with dots between,
/// as djb's dns_rcip.c reads them; or several with blanks between. `None` where it
/// is something else.
#[must_use]
pub fn servers_of(text: &str) -> Option<Vec<IpAddr>> {
    let mut servers = Vec::new();
    for word in text.split_ascii_whitespace() {
        if let Ok(ip) = word.parse() {
            servers.push(ip);
            continue;
        }
        let numbers: Option<Vec<u8>> = word.split('.').map(|part| part.parse().ok()).collect();
        let numbers = numbers?;
        let whole = numbers.chunks_exact(4);
        if !whole.remainder().is_empty() {
            return None;
        }
        servers
            .extend(whole.filter_map(|four| Some(IpAddr::from(<[u8; 4]>::try_from(four).ok()?))));
    }
    servers.truncate(MOST_SERVERS);
    Some(servers)
}

/// The name servers of resolv.conf(5).
#[must_use]
pub fn listed(text: &[u8]) -> Vec<SocketAddr> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    lines.filter_map(address).take(MOST_SERVERS).collect()
}

/// An address, with the interface of one that is link-local.
fn address(word: &str) -> Option<SocketAddr> {
    let Some((bare, zone)) = resolve::zoned(word) else {
        return Some(SocketAddr::new(word.parse().ok()?, PORT));
    };
    let index = socket::interface_index(zone).or_else(|| zone.parse().ok())?;
    Some(SocketAddrV6::new(bare, PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::{listed, servers_of};

    #[test]
    fn the_servers_of_dnscacheip() {
        for (text, wanted) in [
            ("", Some(vec![])),
            ("192.0.2.1", Some(vec!["192.0.2.1"])),
            ("2001:db8::1", Some(vec!["2001:db8::1"])),
            ("192.0.2.1.192.0.2.2", Some(vec!["192.0.2.1", "192.0.2.2"])),
            (
                "192.0.2.1 2001:db8::1",
                Some(vec!["192.0.2.1", "2001:db8::1"]),
            ),
            ("localhost", None),
            ("192.0.2", None),
            ("192.0.2.1.192", None),
            ("192.0.2.256", None),
        ] {
            let found = servers_of(text);
            let shown = found.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
            let wanted = wanted.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(shown, wanted, "{text}");
        }
    }

    #[test]
    fn the_servers_of_resolv_conf() {
        let text =
            b"# x\nsearch a.example\nnameserver 192.0.2.1 # first\n nameserver\t2001:db8::1\n\
                     nameserver junk\nnameserver\nnameservers 192.0.2.9\nnameserver fe80::1%1\n\
                     nameserver 192.0.2.3\n";
        let servers = listed(text).into_iter().map(|one| one.to_string());
        let servers: Vec<String> = servers.collect();
        assert_eq!(
            servers,
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"]
        );
        assert!(listed(b"").is_empty());
    }
}
