//! The PROXY protocol, versions 1 and 2: the header that a proxy puts before a
//! connection's first byte, and the networks whose proxies are heard
//! (`networks.rs`).
//!
//! Section numbers are those of haproxy's proxy-protocol.txt (2020/03/05). Pure:
//! bytes in, addresses out. Nothing here waits or panics, and a reader takes no
//! byte that does not belong to the header.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod networks;

pub use networks::Networks;

/// The longest line of version 1, CR and LF included (2.1).
const LINE_LIMIT: usize = 107;
/// What a line of version 1 begins with (2.1).
const WORD: &[u8] = b"PROXY ";
/// What a block of version 2 begins with (2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length (2.2).
const FIXED: usize = 16;
/// The TLV with the checksum (2.2.3).
const CHECKSUM: u8 = 0x03;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The one between these ends, as the proxy saw it.
    Proxied {
        /// Who connected to the proxy.
        client: SocketAddr,
        /// The address that the client connected to.
        server: SocketAddr,
    },
    /// The sender's own (LOCAL), or one whose addresses it can't tell (UNKNOWN,
    /// UNSPEC, not over TCP): the socket's addresses hold.
    Socket,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// An address of version 1 that is none of its family.
    Address,
    /// The block's checksum is that of another block.
    Checksum,
    /// A command of version 2 that is not assigned.
    Command,
    /// A family or protocol that is not assigned.
    Family,
    /// A line of version 1 with another number of words.
    Fields,
    /// CR without LF, or LF without CR.
    LineEnd,
    /// A line of version 1 that is too long.
    LineLength,
    /// These bytes begin no header at all.
    NoHeader,
    /// A port that is no number from 0 to 65535, without heading zeroes.
    Port,
    /// A block that is too short for the addresses of its family.
    Short,
    /// Something behind the addresses that is not type, length and value.
    Tlv,
    /// A version other than 2 behind the signature of version 2.
    Version,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Malformed::Address => "it holds an address that is not valid for its family",
            Malformed::Checksum => "its checksum is wrong",
            Malformed::Command => "its command is unknown",
            Malformed::Family => "its address family or protocol is unknown",
            Malformed::Fields => "it does not have two addresses and two ports",
            Malformed::LineEnd => "its line does not end in CR LF",
            Malformed::LineLength => "its line is longer than 107 bytes",
            Malformed::NoHeader => "what came is no PROXY header",
            Malformed::Port => "it holds a port that is not a number from 0 to 65535",
            Malformed::Short => "it is too short for its addresses",
            Malformed::Tlv => "its extensions are cut off or repeated",
            Malformed::Version => "its version is unknown",
        })
    }
}

/// A header on its way in.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    seen: Vec<u8>,
}

impl Reader {
    /// A reader of a connection's first byte.
    #[must_use]
    pub fn new() -> Reader {
        Reader::default()
    }

    /// How many bytes were taken so far.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.seen.len()
    }

    /// Takes from the front of `bytes`, which follow those taken before, what
    /// belongs to the header, and says how many these are. All of them, where
    /// there is no header yet. A reader that has given its header is done.
    ///
    /// # Errors
    /// Once no more bytes could make a header of it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, Option<Header>), Malformed> {
        for (at, &byte) in bytes.iter().enumerate() {
            self.seen.push(byte);
            if self.is_whole()? {
                return Ok((at + 1, Some(self.header()?)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// Whether the last byte is the header's last. Looks at that byte only: the
    /// others were looked at when they came.
    fn is_whole(&self) -> Result<bool, Malformed> {
        match self.seen.first() {
            Some(b'P') => self.is_whole_line(),
            Some(b'\r') => self.is_whole_block(),
            _ => Err(Malformed::NoHeader),
        }
    }

    fn is_whole_line(&self) -> Result<bool, Malformed> {
        if self.seen.len() <= WORD.len() {
            return begins(WORD, &self.seen);
        }
        match self.seen.as_slice() {
            [.., b'\r', b'\n'] => Ok(true),
            [.., b'\r', _] | [.., b'\n'] => Err(Malformed::LineEnd),
            line if line.len() == LINE_LIMIT => Err(Malformed::LineLength),
            _ => Ok(false),
        }
    }

    fn is_whole_block(&self) -> Result<bool, Malformed> {
        if self.seen.len() <= SIGNATURE.len() {
            return begins(SIGNATURE, &self.seen);
        }
        let block = Block(&self.seen);
        match self.seen.len() {
            13 if block.byte(12) >> 4 != 2 => Err(Malformed::Version),
            13 if block.byte(12) & 15 > 1 => Err(Malformed::Command),
            // The family of LOCAL is ignored (2.2).
            14 if block.is_proxied() && block.addresses().is_none() => Err(Malformed::Family),
            FIXED if block.is_proxied() && block.addresses() > Some(block.length()) => {
                Err(Malformed::Short)
            }
            count => Ok(count >= FIXED && count == FIXED + block.length()),
        }
    }

    /// What the whole header says.
    fn header(&self) -> Result<Header, Malformed> {
        match self.seen.strip_prefix(WORD) {
            Some(line) => line_header(line.strip_suffix(b"\r\n").unwrap_or(line)),
            None => Block(&self.seen).header(),
        }
    }
}

/// Whether the bytes begin what a header must begin with; never a whole header.
fn begins(fixed: &[u8], seen: &[u8]) -> Result<bool, Malformed> {
    if fixed.starts_with(seen) {
        Ok(false)
    } else {
        Err(Malformed::NoHeader)
    }
}

/// What follows `PROXY ` in a line of version 1, without its CR and LF.
fn line_header(line: &[u8]) -> Result<Header, Malformed> {
    // Whatever follows UNKNOWN is ignored (2.1).
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Header::Socket);
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Fields)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [family, client, server, client_port, server_port] = words[..] else {
        return Err(Malformed::Fields);
    };
    let address = |text: &str| {
        match family {
            // The standard library takes no heading zeroes in IPv4 either.
            "TCP4" => text.parse().map(IpAddr::V4),
            "TCP6" => text.parse().map(IpAddr::V6),
            _ => return Err(Malformed::Family),
        }
        .map_err(|_| Malformed::Address)
    };
    Ok(Header::Proxied {
        client: SocketAddr::new(address(client)?, port(client_port)?),
        server: SocketAddr::new(address(server)?, port(server_port)?),
    })
}

fn port(text: &str) -> Result<u16, Malformed> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.starts_with('0') && text != "0") {
        return Err(Malformed::Port);
    }
    text.parse().map_err(|_| Malformed::Port)
}

/// A block of version 2, as far as it has come. What has not come counts as 0.
struct Block<'a>(&'a [u8]);

impl Block<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|offset| self.byte(at + offset))
    }

    /// The command is PROXY, not LOCAL.
    fn is_proxied(&self) -> bool {
        self.byte(12) & 15 == 1
    }

    /// The bytes that follow the first 16.
    fn length(&self) -> usize {
        usize::from(u16::from_be_bytes(self.array(14)))
    }

    /// How many bytes of addresses the family has; `None` for one that is not
    /// assigned. Of UNSPEC nothing is known.
    fn addresses(&self) -> Option<usize> {
        match (self.byte(13) >> 4, self.byte(13) & 15) {
            (0..=3, 0) | (0, 0..=2) => Some(0),
            (1, 1 | 2) => Some(12),
            (2, 1 | 2) => Some(36),
            (3, 1 | 2) => Some(216),
            _ => None,
        }
    }

    fn header(&self) -> Result<Header, Malformed> {
        let own = match self.addresses() {
            Some(count @ 1..) if self.is_proxied() => count,
            // Where addresses end, or whether there are any, is unknown: the
            // whole of it is skipped.
            _ => return Ok(Header::Socket),
        };
        self.check_tlvs(FIXED + own)?;
        let end = |ip: IpAddr, port| SocketAddr::new(ip, u16::from_be_bytes(self.array(port)));
        let v4 = |at| Ipv4Addr::from(self.array::<4>(at)).into();
        let v6 = |at| Ipv6Addr::from(self.array::<16>(at)).into();
        Ok(match self.byte(13) {
            0x11 => Header::Proxied {
                client: end(v4(16), 24),
                server: end(v4(20), 26),
            },
            0x21 => Header::Proxied {
                client: end(v6(16), 48),
                server: end(v6(32), 50),
            },
            _ => Header::Socket,
        })
    }

    /// Type, length, value, to the end; all but the checksum are skipped.
    fn check_tlvs(&self, mut at: usize) -> Result<(), Malformed> {
        let mut checked = false;
        while at < self.0.len() {
            let length = usize::from(u16::from_be_bytes(self.array(at + 1)));
            let end = at + 3 + length;
            if end > self.0.len() {
                return Err(Malformed::Tlv);
            }
            if self.byte(at) == CHECKSUM {
                // One is enough: each costs a walk over all bytes.
                if length != 4 || checked {
                    return Err(Malformed::Tlv);
                }
                checked = true;
                if self.checksum(at + 3) != u32::from_be_bytes(self.array(at + 3)) {
                    return Err(Malformed::Checksum);
                }
            }
            at = end;
        }
        Ok(())
    }

    /// CRC32c (RFC 4960, appendix B) over the block with its own four bytes at
    /// `place` taken as 0 (2.2.3).
    fn checksum(&self, place: usize) -> u32 {
        let blanked = self.0.iter().enumerate().map(|(at, &byte)| {
            if (place..place + 4).contains(&at) {
                0
            } else {
                byte
            }
        });
        crc32c(blanked)
    }
}

/// CRC32c: Castagnoli's polynomial, reflected.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of `bytes`, fed at once with more behind it and byte by byte:
    /// both must agree, and neither may take what is not the header's.
    fn read(bytes: &[u8]) -> Result<Header, Malformed> {
        let mut at_once = Reader::new();
        let behind = [bytes, &b"\x16\x03\x01\r\n"[..]].concat();
        let whole = at_once.push(&behind).map(|(taken, header)| {
            assert_eq!(taken, bytes.len(), "{bytes:?}");
            header.expect("a header")
        });
        let mut slowly = Reader::new();
        let mut last = None;
        for (at, byte) in bytes.iter().enumerate() {
            match slowly.push(&[*byte]) {
                Ok((1, None)) => assert!(at + 1 < bytes.len(), "no end: {bytes:?}"),
                Ok((1, Some(header))) => {
                    assert_eq!(at + 1, bytes.len(), "too early: {bytes:?}");
                    last = Some(Ok(header));
                }
                Ok(odd) => panic!("{odd:?}"),
                Err(wrong) => {
                    last = Some(Err(wrong));
                    break;
                }
            }
        }
        assert_eq!(Some(whole), last, "{bytes:?}");
        whole
    }

    fn line(text: &str) -> Result<Header, Malformed> {
        read(format!("{text}\r\n").as_bytes())
    }

    fn proxied(client: &str, server: &str) -> Header {
        let end = |text: &str| text.parse().expect("an address and a port");
        Header::Proxied {
            client: end(client),
            server: end(server),
        }
    }

    /// A block of version 2.
    fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

    fn v4(tlvs: &[u8]) -> Vec<u8> {
        block(0x21, 0x11, &[&V4[..], tlvs].concat())
    }

    fn v4_ends() -> Header {
        proxied("192.0.2.7:56324", "198.51.100.1:443")
    }

    #[test]
    fn lines_of_version_1() {
        for (text, client, server) in [
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443",
                "192.168.0.1:56324",
                "192.168.0.11:443",
            ),
            (
                "PROXY TCP4 255.255.255.255 0.0.0.0 65535 0",
                "255.255.255.255:65535",
                "0.0.0.0:0",
            ),
            (
                "PROXY TCP6 2001:db8::7 ::1 1 465",
                "[2001:db8::7]:1",
                "[::1]:465",
            ),
            (
                "PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 ::FFFF:1.2.3.4 65535 65535",
                "[2001:db8::7]:65535",
                "[::ffff:1.2.3.4]:65535",
            ),
        ] {
            assert_eq!(line(text), Ok(proxied(client, server)), "{text}");
        }
        let longest = ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"; 2].join(" ");
        assert!(line(&format!("PROXY TCP6 {longest} 65535 65535")).is_ok());
    }

    #[test]
    fn an_unknown_line_keeps_the_sockets_addresses() {
        let full = format!(
            "PROXY UNKNOWN {} 65535 65535",
            ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"; 2].join(" ")
        );
        assert_eq!(full.len() + 2, LINE_LIMIT);
        for text in [
            "PROXY UNKNOWN",
            "PROXY UNKNOWN ",
            "PROXY UNKNOWN 1.2.3.4 anything  at all",
            &full,
        ] {
            assert_eq!(line(text), Ok(Header::Socket), "{text}");
        }
        assert_eq!(read(b"PROXY UNKNOWN \xff\0\r\n"), Ok(Header::Socket));
    }

    #[test]
    fn lines_that_do_not_match_exactly_are_refused() {
        use Malformed::{Address, Family, Fields, LineEnd, LineLength, NoHeader, Port};
        for (bytes, wrong) in [
            ("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.00 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP4 0x1.2.3.4 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Address),
            ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP6 ::1 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", Address),
            ("PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", Address),
            ("PROXY TCP6 1::2::3 ::1 1 2\r\n", Address),
            ("PROXY TCP6 00001::2 ::1 1 2\r\n", Address),
            ("PROXY TCP6 ::ffff:01.2.3.4 ::1 1 2\r\n", Address),
            ("PROXY TCP6 fe80::1%lo ::1 1 2\r\n", Address),
            ("PROXY TCP6 [::1] ::1 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2x\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\t\r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", Port),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Fields),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Fields),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Fields),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Fields),
            ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Fields),
            ("PROXY TCP4 1.2.3.4  1.2.3.4 1\r\n", Port),
            ("PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n", Fields),
            ("PROXY \r\n", Fields),
            ("PROXY TCP4\r\n", Fields),
            ("PROXY UNKNOWNX\r\n", Fields),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \u{665}\r\n", Port),
            ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Family),
            ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Family),
            ("PROXY unknown 1.2.3.4 1.2.3.4 1 2\r\n", Family),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", LineEnd),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx", LineEnd),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", LineEnd),
            ("PROXY UNKNOWN\n\r\n", LineEnd),
            ("PROXY UNKNOWN a\rb\r\n", LineEnd),
            ("PROXY\r\n", NoHeader),
            ("proxy UNKNOWN\r\n", NoHeader),
            ("PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n", NoHeader),
            ("PING", NoHeader),
            (" PROXY UNKNOWN\r\n", NoHeader),
            ("EHLO a\r\n", NoHeader),
            ("\x16\x03\x01\x02", NoHeader),
            ("\n", NoHeader),
        ] {
            assert_eq!(read(bytes.as_bytes()), Err(wrong), "{bytes:?}");
        }
        assert_eq!(read(b"PROXY TCP4 \xff 1.2.3.4 1 2\r\n"), Err(Fields));
        let long = |count: usize| format!("PROXY UNKNOWN {}", "x".repeat(count - 16));
        assert_eq!(line(&long(106)), Ok(Header::Socket));
        assert_eq!(line(&long(107)), Ok(Header::Socket));
        // The 107th byte is no LF: no wait for more.
        assert_eq!(line(&long(108)), Err(LineLength));
        assert_eq!(read("PROXY ".repeat(50).as_bytes()), Err(LineLength));
    }

    #[test]
    fn blocks_of_version_2() {
        assert_eq!(read(&v4(b"")), Ok(v4_ends()));
        let mut v6 = Ipv6Addr::from_bits(0x2001_0db8 << 96 | 7).octets().to_vec();
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend([0, 1, 1, 0xd1]);
        assert_eq!(
            read(&block(0x21, 0x21, &v6)),
            Ok(proxied("[2001:db8::7]:1", "[::1]:465"))
        );
    }

    #[test]
    fn blocks_that_tell_no_tcp_address_keep_the_sockets() {
        for (command, family, length) in [
            (0x20, 0x00, 0),
            // LOCAL: family and length are as they like.
            (0x20, 0x11, 12),
            (0x20, 0x11, 5),
            (0x20, 0xff, 300),
            (0x20, 0x00, 65535),
            (0x21, 0x00, 0),
            (0x21, 0x00, 7),
            (0x21, 0x01, 1),
            (0x21, 0x10, 0),
            (0x21, 0x12, 12),
            (0x21, 0x22, 36),
            (0x21, 0x31, 216),
            (0x21, 0x32, 216),
            (0x21, 0x30, 0),
        ] {
            assert_eq!(
                read(&block(command, family, &vec![b'x'; length])),
                Ok(Header::Socket),
                "{command:x} {family:x} {length}"
            );
        }
    }

    #[test]
    fn blocks_that_break_the_rules_are_refused() {
        use Malformed::{Command, Family, NoHeader, Short, Tlv, Version};
        for (command, family, length, wrong) in [
            (0x01, 0x11, 12, Version),
            (0x11, 0x11, 12, Version),
            (0x31, 0x11, 12, Version),
            (0x22, 0x11, 12, Command),
            (0x2f, 0x00, 0, Command),
            (0x21, 0x41, 216, Family),
            (0x21, 0xf0, 0, Family),
            (0x21, 0x13, 12, Family),
            (0x21, 0x03, 0, Family),
            (0x21, 0x11, 0, Short),
            (0x21, 0x11, 11, Short),
            (0x21, 0x12, 11, Short),
            (0x21, 0x21, 12, Short),
            (0x21, 0x21, 35, Short),
            (0x21, 0x31, 215, Short),
            (0x21, 0x11, 13, Tlv),
            (0x21, 0x11, 14, Tlv),
            (0x21, 0x21, 38, Tlv),
            (0x21, 0x31, 218, Tlv),
        ] {
            assert_eq!(
                read(&block(command, family, &vec![0; length])),
                Err(wrong),
                "{command:x} {family:x} {length}"
            );
        }
        for at in 0..SIGNATURE.len() {
            let mut damaged = v4(b"");
            damaged[at] ^= 0x20;
            assert_eq!(read(&damaged), Err(NoHeader), "byte {at}");
        }
    }

    #[test]
    fn tlvs_are_skipped_and_must_be_whole() {
        let ssl = b"\x20\x00\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3";
        let some = [
            &b"\x01\0\x02h2\x02\0\x03a.b\x04\0\0\x05\0\x01u\xee\0\x01?"[..],
            &ssl[..],
        ]
        .concat();
        assert_eq!(read(&v4(&some)), Ok(v4_ends()));
        let long = [&[0x04, 0xf0, 0x00][..], &vec![0; 0xf000]].concat();
        assert_eq!(read(&v4(&long)), Ok(v4_ends()));
        for cut in 1..some.len() {
            // A cut between two of them leaves a sound header.
            let sound = [5, 11, 14, 18, 22].contains(&cut);
            let expected = if sound {
                Ok(v4_ends())
            } else {
                Err(Malformed::Tlv)
            };
            assert_eq!(read(&v4(&some[..cut])), expected, "{cut}");
        }
    }

    #[test]
    fn a_checksum_that_is_there_must_be_right() {
        // RFC 3720, B.4, and the check value of the CRC catalogues.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        let mut sound = v4(b"\x04\0\x01x\x03\0\x04\0\0\0\0\x04\0\x01y");
        let sum = crc32c(sound.iter().copied()).to_be_bytes();
        sound[35..39].copy_from_slice(&sum);
        assert_eq!(read(&sound), Ok(v4_ends()));
        for at in (16..28).chain([31, 35, 38, 42]) {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            assert_eq!(read(&damaged), Err(Malformed::Checksum), "byte {at}");
        }
        for odd in [
            &b"\x03\0\x03\0\0\0"[..],
            b"\x03\0\x05\0\0\0\0\0",
            b"\x03\0\0",
        ] {
            assert_eq!(read(&v4(odd)), Err(Malformed::Tlv), "{odd:?}");
        }
        let mut twice = v4(b"\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0");
        let sum = crc32c(twice.iter().copied()).to_be_bytes();
        twice[31..35].copy_from_slice(&sum);
        assert_eq!(read(&twice), Err(Malformed::Tlv));
    }

    #[test]
    fn half_a_header_is_no_header_yet() {
        let line = b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n";
        for whole in [&line[..], &v4(b"\x04\0\x01x"), &block(0x20, 0, b"")] {
            for cut in 0..whole.len() {
                let mut reader = Reader::new();
                assert_eq!(reader.push(&whole[..cut]), Ok((cut, None)), "{cut}");
                assert_eq!(reader.taken(), cut);
                let (taken, header) = reader.push(&whole[cut..]).expect("the rest");
                assert_eq!(taken, whole.len() - cut);
                assert!(header.is_some());
            }
        }
    }
}
