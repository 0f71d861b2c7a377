//! What engines say to the keyholder and what it answers. Requests are hostile
//! by assumption: everything here is a pure function of bytes.
#![forbid(unsafe_code)]

use std::fmt;

use crate::report::Fail;
use crate::secret::Secret;
use crate::text;
use crate::tls_ffi::provider::{Digest, Padding};
use crate::tls_ffi::tickets::{
    self, NewTicket, ShownTicket, TicketKey, TicketsGiven, TicketsWanted,
};

/// The longest request, in bytes. The parameters of finite-field DH are the
/// longest that is ever signed: two numbers of 8192 bits at most.
pub const REQUEST_LIMIT: usize = 4096;
/// The longest signature, in bytes: that of RSA with 16384 bits.
const SIGNATURE_LIMIT: usize = 2048;
/// The longest answer, in bytes: its head, a ticket that was shown, two to be
/// made, a signature.
pub const REPLY_LIMIT: usize =
    2 + 1 + TicketKey::LENGTH + tickets::PER_HANDSHAKE * (16 + TicketKey::LENGTH) + SIGNATURE_LIMIT;

/// What an answer is that says nothing.
pub(super) const MALFORMED: &str = "a malformed answer";

/// Bits of a request's second byte; the lowest two count tickets to be made.
const SHOWN: u8 = 0x80;
const SIGN: u8 = 0x40;

/// `paddings[n]` is `n` on the wire.
const PADDINGS: [Padding; 3] = [Padding::None, Padding::Pkcs1, Padding::Pss];
/// `digests[n]` is `n` on the wire.
const DIGESTS: [Digest; 7] = [
    Digest::None,
    Digest::Md5Sha1,
    Digest::Sha1,
    Digest::Sha224,
    Digest::Sha256,
    Digest::Sha384,
    Digest::Sha512,
];

/// One request. On the wire: its number; what is wanted, in bits; for tickets
/// their binding, and the name of one that was shown; for a signature padding,
/// digest, number of the key (two bytes, high byte first) and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Counts the exchanges of a link from 1 on: a request that is sent again has
    /// the number that it had.
    pub exchange: u8,
    /// Tickets.
    pub tickets: Option<TicketsWanted>,
    /// A signature.
    pub signature: Option<Signing<'a>>,
}

/// What is to be signed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signing<'a> {
    /// How the signature is padded.
    pub padding: Padding,
    /// What is applied to the message.
    pub digest: Digest,
    /// The key's number.
    pub key: u16,
    /// The whole message.
    pub message: &'a [u8],
}

/// The next bytes of a message, as many as the array has.
fn next<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Request<'a>, NotSigned> {
        if bytes.len() > REQUEST_LIMIT {
            return Err(NotSigned::Malformed);
        }
        Request::read(bytes).ok_or(NotSigned::Malformed)
    }

    fn read(mut rest: &'a [u8]) -> Option<Request<'a>> {
        let [exchange, wanted] = next(&mut rest)?;
        let (shown, sign, new) = (wanted & SHOWN, wanted & SIGN, wanted & !(SHOWN | SIGN));
        if exchange == 0 || wanted == 0 || usize::from(new) > tickets::PER_HANDSHAKE {
            return None;
        }
        let tickets = if shown == 0 && new == 0 {
            None
        } else {
            Some(TicketsWanted {
                binding: next(&mut rest)?,
                shown: if shown == 0 {
                    None
                } else {
                    Some(next(&mut rest)?)
                },
                new,
            })
        };
        let signature = if sign == 0 {
            None
        } else {
            let [padding, digest, high, low] = next(&mut rest)?;
            Some(Signing {
                padding: *PADDINGS.get(usize::from(padding))?,
                digest: *DIGESTS.get(usize::from(digest))?,
                key: u16::from_be_bytes([high, low]),
                message: std::mem::take(&mut rest),
            })
        };
        rest.is_empty().then_some(Request {
            exchange,
            tickets,
            signature,
        })
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let number = |at: Option<usize>| at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX);
        let mut bytes = vec![self.exchange, 0];
        if let Some(tickets) = &self.tickets {
            bytes[1] |= tickets.new;
            bytes.extend(tickets.binding);
            if let Some(name) = tickets.shown {
                bytes[1] |= SHOWN;
                bytes.extend(name);
            }
        }
        if let Some(signing) = &self.signature {
            bytes[1] |= SIGN;
            let padding = number(PADDINGS.iter().position(|one| *one == signing.padding));
            let digest = number(DIGESTS.iter().position(|one| *one == signing.digest));
            let [high, low] = signing.key.to_be_bytes();
            bytes.extend([padding, digest, high, low]);
            bytes.extend(signing.message);
        }
        bytes
    }
}

/// Why nothing is signed. Of several reasons the last one here is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotSigned {
    /// The bytes are no request.
    Malformed,
    /// No key has this number.
    NoSuchKey,
    /// Not what a TLS server signs in a handshake.
    Shape,
    /// A message that has a meaning elsewhere, as that of a certificate.
    Elsewhere,
    /// Of a TLS version that the settings do not allow.
    Version,
    /// An algorithm that the settings do not allow, or that does not fit the key
    /// or the version.
    Algorithm,
    /// An old handshake without the mark that it carries where the server
    /// speaks newer ones.
    Downgrade,
    /// A key share of a group that the settings do not allow.
    Group,
    /// A key share that is no point of its group.
    Point,
    /// DHE parameters that are not the settings'.
    Prime,
    /// A public value of DHE that no server makes.
    Public,
    /// More than a connection can need.
    Quota,
    /// Libcrypto could not sign.
    Failed,
}

impl fmt::Display for NotSigned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NotSigned::Malformed => "a malformed request",
            NotSigned::NoSuchKey => "a key that does not exist",
            NotSigned::Shape => "a message that is not of a TLS server's handshake",
            NotSigned::Elsewhere => {
                "a message that could pass for a certificate, or for what another protocol signs"
            }
            NotSigned::Version => "a TLS version that the settings do not allow",
            NotSigned::Algorithm => {
                "a signature algorithm that the settings do not allow or the key does not have"
            }
            NotSigned::Downgrade => "an old TLS version without the mark against downgrades",
            NotSigned::Group => "a key share of a group that the settings do not allow",
            NotSigned::Point => "a key share that is not a point of its group",
            NotSigned::Prime => "Diffie-Hellman parameters that are not the server's",
            NotSigned::Public => "a Diffie-Hellman public value that is out of range",
            NotSigned::Quota => "a second signature, or more tickets than a connection has",
            NotSigned::Failed => "libcrypto failed",
        })
    }
}

/// What a request got.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The tickets that were wanted.
    pub tickets: Option<TicketsGiven>,
    /// The signature that was wanted.
    pub signature: Option<Vec<u8>>,
}

impl Answer {
    /// Reads the answer to a request. `None` for one to an earlier request.
    ///
    /// # Errors
    /// The keyholder's reason; the answer is none.
    #[must_use]
    pub fn parse(request: &Request<'_>, bytes: &[u8]) -> Option<Result<Answer, Fail>> {
        match bytes {
            [exchange, ..] if *exchange != request.exchange => None,
            [_, 0, rest @ ..] => Some(Answer::read(request, rest).ok_or(Fail::from(MALFORMED))),
            [_, 1, why @ ..] => Some(Err(text::excerpt(why, 100).into())),
            _ => Some(Err(MALFORMED.into())),
        }
    }

    fn read(request: &Request<'_>, mut rest: &[u8]) -> Option<Answer> {
        fn key(rest: &mut &[u8]) -> Option<TicketKey> {
            let (key, behind) = rest.split_first_chunk()?;
            *rest = behind;
            Some(TicketKey::new(key))
        }
        let tickets = match &request.tickets {
            None => None,
            Some(wanted) => {
                let mut given = TicketsGiven {
                    shown: None,
                    new: Vec::new(),
                };
                if wanted.shown.is_some() {
                    given.shown = Some(match next(&mut rest)? {
                        [0] => ShownTicket::Unknown,
                        [1] => ShownTicket::Current(key(&mut rest)?),
                        [2] => ShownTicket::Old(key(&mut rest)?),
                        _ => return None,
                    });
                }
                for _ in 0..wanted.new {
                    let name = next(&mut rest)?;
                    let key = key(&mut rest)?;
                    given.new.push(NewTicket { name, key });
                }
                Some(given)
            }
        };
        (request.signature.is_some() != rest.is_empty()).then(|| Answer {
            tickets,
            signature: (!rest.is_empty()).then(|| rest.to_vec()),
        })
    }

    /// Writes an answer to the exchange of this number.
    #[must_use]
    pub fn to_bytes(answered: Result<&Answer, NotSigned>, exchange: u8) -> Secret {
        // Of its final size at once: there are keys in it.
        let mut bytes = Vec::with_capacity(REPLY_LIMIT);
        bytes.push(exchange);
        let answer = match answered {
            Ok(answer) => answer,
            Err(refusal) => {
                bytes.push(1);
                bytes.extend(refusal.to_string().as_bytes());
                return Secret::new(bytes);
            }
        };
        bytes.push(0);
        if let Some(given) = &answer.tickets {
            let (status, key) = match &given.shown {
                None => (None, None),
                Some(ShownTicket::Unknown) => (Some(0), None),
                Some(ShownTicket::Current(key)) => (Some(1), Some(key)),
                Some(ShownTicket::Old(key)) => (Some(2), Some(key)),
            };
            bytes.extend(status);
            bytes.extend(key.into_iter().flat_map(TicketKey::bytes));
            for new in &given.new {
                bytes.extend(new.name);
                bytes.extend(new.key.bytes());
            }
        }
        bytes.extend(answer.signature.iter().flatten());
        Secret::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNING: Signing<'_> = Signing {
        padding: Padding::Pss,
        digest: Digest::Sha256,
        key: 0x0102,
        message: b"message",
    };

    fn requests() -> Vec<Request<'static>> {
        let wanted = |shown, new| TicketsWanted {
            binding: [3; 32],
            shown,
            new,
        };
        let name = Some([7; 16]);
        [
            (None, Some(SIGNING)),
            (Some(wanted(None, 2)), Some(SIGNING)),
            (Some(wanted(name, 1)), None),
            (Some(wanted(name, 0)), Some(SIGNING)),
            (Some(wanted(None, 1)), None),
        ]
        .into_iter()
        .map(|(tickets, signature)| Request {
            exchange: 5,
            tickets,
            signature,
        })
        .collect()
    }

    #[test]
    fn requests_arrive_as_they_were_sent() {
        for request in requests() {
            let bytes = request.to_bytes();
            assert_eq!(Request::parse(&bytes), Ok(request));
            // Cut anywhere in front of its message it is none.
            let whole = bytes.len() - request.signature.map_or(0, |one| one.message.len());
            for length in 0..whole {
                let cut = Request::parse(&bytes[..length]);
                assert_eq!(cut, Err(NotSigned::Malformed), "{length}");
            }
        }
        let mut longer = requests()[2].to_bytes();
        longer.push(0);
        assert!(Request::parse(&longer).is_err());
        for bytes in [
            &b"\x01\0"[..],
            b"\0\x40\0\0\0\0m",
            b"\x01\x40\x03\0\0\0m",
            b"\x01\x40\0\x07\0\0m",
            &[&b"\x01\x03"[..], &[0; 32]].concat(),
        ] {
            assert_eq!(
                Request::parse(bytes),
                Err(NotSigned::Malformed),
                "{bytes:?}"
            );
        }
        let mut most = requests()[0].to_bytes();
        most.resize(REQUEST_LIMIT, 0);
        assert!(Request::parse(&most).is_ok());
        most.push(0);
        assert!(Request::parse(&most).is_err());
    }

    /// There are keys in it: where there was less room, copies of them stayed in memory.
    #[test]
    fn room_is_made_for_the_longest_answer_and_no_more() {
        let key = TicketKey::new(&[9; TicketKey::LENGTH]);
        let new = NewTicket {
            name: [1; 16],
            key: key.clone(),
        };
        let longest = Answer {
            tickets: Some(TicketsGiven {
                shown: Some(ShownTicket::Old(key)),
                new: vec![new; tickets::PER_HANDSHAKE],
            }),
            signature: Some(vec![1; SIGNATURE_LIMIT]),
        };
        assert_eq!(Answer::to_bytes(Ok(&longest), 5).len(), REPLY_LIMIT);
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        let key = TicketKey::new(&[9; TicketKey::LENGTH]);
        for request in requests() {
            for shown in [
                ShownTicket::Unknown,
                ShownTicket::Current(key.clone()),
                ShownTicket::Old(key.clone()),
            ] {
                let tickets = request.tickets.map(|wanted| TicketsGiven {
                    shown: wanted.shown.map(|_| shown.clone()),
                    new: (0..wanted.new)
                        .map(|at| NewTicket {
                            name: [at; 16],
                            key: key.clone(),
                        })
                        .collect(),
                });
                let answer = Answer {
                    tickets,
                    signature: request.signature.map(|_| vec![1; SIGNATURE_LIMIT]),
                };
                let bytes = Answer::to_bytes(Ok(&answer), 5);
                assert!(bytes.len() <= REPLY_LIMIT);
                assert_eq!(Answer::parse(&request, &bytes), Some(Ok(answer)));
                let cut = Answer::parse(&request, &bytes[..2]);
                assert!(cut.expect("its own").is_err());
            }
            let refused = Answer::to_bytes(Err(NotSigned::Shape), 5);
            let said = Answer::parse(&request, &refused).expect("its own");
            let words = "a message that is not of a TLS server's handshake";
            assert_eq!(said, Err(words.to_owned().into()));
            let earlier = Answer::to_bytes(Err(NotSigned::Shape), 4);
            assert_eq!(Answer::parse(&request, &earlier), None);
            for bytes in [&b""[..], b"\x05", b"\x05\x02x"] {
                let said = Answer::parse(&request, bytes).expect("its own");
                assert!(said.is_err(), "{bytes:?}");
            }
        }
    }
}
