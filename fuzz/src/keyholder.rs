//! Requests to the keyholder, which come from engines that may be taken over,
//! and its answers.
#![forbid(unsafe_code)]

use std::cell::RefCell;

use openssl::nid::Nid;
use ucspi_tls::internals::hours::{Hours, LIFE};
use ucspi_tls::internals::judge::{Judge, KeyType};
use ucspi_tls::internals::permit::{Finite, Permit};
use ucspi_tls::internals::protocol::{Answer, NotSigned, Request, Signing};
use ucspi_tls::internals::provider::{Digest, Padding};
use ucspi_tls::internals::tickets::TicketsWanted;

const SERVER: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const KEYS: [KeyType; 6] = [
    KeyType::Rsa,
    KeyType::RsaPss,
    KeyType::Ecdsa(Nid::X9_62_PRIME256V1),
    KeyType::Ed25519,
    KeyType::Ed448,
    KeyType::Other,
];

/// That of the server's group.
const PRIME: [u8; 256] = [0xff; 256];

/// The base point of P-256 (SEC 2).
#[rustfmt::skip]
const P256: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5,
    0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4,
    0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a,
    0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33,
    0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

/// What an old server's random ends with, where it speaks TLS 1.3.
const MARK: &[u8; 8] = b"DOWNGRD\x01";

thread_local! {
    static JUDGE: RefCell<Judge> = RefCell::default();
    static PERMITS: [Permit; 2] = permits();
}

/// A server of both versions, and one of TLS 1.2 alone.
fn permits() -> [Permit; 2] {
    let both = Permit {
        lowest: 0x0303,
        highest: 0x0304,
        marks_downgrades: true,
        groups: vec![29, 23, 30],
        schemes: vec![0x0403, 0x0807, 0x0804, 0x0805, 0x0809, 0x0401],
        finite: Some(Finite {
            prime: PRIME.to_vec(),
            generator: vec![2],
        }),
    };
    let old = Permit {
        highest: 0x0303,
        marks_downgrades: false,
        groups: vec![23],
        finite: None,
        ..both.clone()
    };
    [both, old]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let number = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let messages = [
        [&[0x20; 64], SERVER, &[7; 32]].concat(),
        [&[0x20; 64], SERVER, &[7; 48]].concat(),
        [
            &[0x20; 64],
            &b"TLS 1.3, client CertificateVerify\0"[..],
            &[7; 32],
        ]
        .concat(),
        [&[9; 56][..], MARK, &[3, 0, 29, 32, 9], &[0; 31]].concat(),
        [&[9; 64][..], &[3, 0, 23, 65], &P256].concat(),
        [&[0x30, 0x81, 130][..], &[9; 61], &[3, 0, 23, 65], &P256].concat(),
        [
            &[0x30, 0x81, 130, 4, 59][..],
            &[9; 59],
            &[3, 0, 23, 65],
            &P256,
        ]
        .concat(),
        [
            vec![9; 56],
            MARK.to_vec(),
            number(&PRIME),
            number(&[2]),
            number(&[1; 256]),
        ]
        .concat(),
        b"hello".to_vec(),
    ];
    let mut seeds: Vec<Vec<u8>> = wishes()
        .map(|tickets| Request {
            exchange: 1,
            tickets: Some(tickets),
            signature: None,
        })
        .map(|request| request.to_bytes())
        .collect();
    for message in &messages {
        for (padding, digest) in [
            (Padding::None, Digest::None),
            (Padding::None, Digest::Sha256),
            (Padding::Pkcs1, Digest::Sha256),
            (Padding::Pss, Digest::Sha384),
        ] {
            for tickets in [None, wishes().next()] {
                let request = Request {
                    exchange: 2,
                    tickets,
                    signature: Some(Signing {
                        padding,
                        digest,
                        key: 0,
                        message,
                    }),
                };
                seeds.push(request.to_bytes());
            }
        }
    }
    seeds
}

/// What engines ask for besides signatures.
fn wishes() -> impl Iterator<Item = TicketsWanted> {
    [(None, 2), (Some([7; 16]), 1), (Some([7; 16]), 0)]
        .into_iter()
        .map(|(shown, new)| TicketsWanted {
            binding: [3; 32],
            shown,
            new,
        })
}

/// Any bytes as a request: it is refused, or it means itself, and what is signed
/// has the form of a TLS server's signature, measured in another way.
pub fn keyholder(bytes: &[u8]) {
    let Ok(request) = Request::parse(bytes) else {
        return;
    };
    assert_eq!(request.to_bytes(), bytes);
    assert!(request.exchange != 0);
    assert!(request.tickets.is_none_or(|tickets| tickets.new <= 2));
    let Some(signing) = request.signature else {
        return;
    };
    for key in KEYS {
        PERMITS.with(|permits| {
            for permit in permits {
                let judged = JUDGE.with_borrow_mut(|judge| judge.judge(&signing, key, [permit]));
                match judged {
                    Ok(()) => {
                        assert!(is_of_a_server(signing.message, permit), "{signing:?}");
                        assert!(!passes_for_signed(signing.message), "{signing:?}");
                        assert!(key != KeyType::Other);
                        let rsa = matches!(key, KeyType::Rsa | KeyType::RsaPss);
                        assert_eq!(signing.padding != Padding::None, rsa, "{signing:?}");
                        let own = signing.digest == Digest::None;
                        let edwards = matches!(key, KeyType::Ed25519);
                        assert_eq!(own, edwards, "{signing:?}");
                    }
                    Err(refusal) => assert!(
                        refusal >= NotSigned::Shape && refusal <= NotSigned::Public,
                        "{refusal:?}"
                    ),
                }
            }
        });
    }
}

/// Those that an answer can belong to.
fn requests() -> Vec<Request<'static>> {
    let signing = Signing {
        padding: Padding::None,
        digest: Digest::None,
        key: 0,
        message: b"",
    };
    std::iter::once(None)
        .chain(wishes().map(Some))
        .flat_map(|tickets| {
            [None, Some(signing)].map(|signature| Request {
                exchange: 1,
                tickets,
                signature,
            })
        })
        .collect()
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![b"\x01\x01no".to_vec(), b"\x01\0sig".to_vec()];
    for shown in [&[0][..], &[[1].as_slice(), &[5; 64]].concat()] {
        seeds.push([b"\x01\0", shown, &[6; 80], b"sig"].concat());
    }
    seeds.push([&b"\x01\0"[..], &[6; 160]].concat());
    seeds.push([&[0; 8][..], &[4; 72]].concat());
    seeds.extend(permits().map(|permit| permit.to_bytes()));
    seeds
}

/// Any bytes as an answer to an engine, as a permit, and as the keys of tickets:
/// they are none, or they mean themselves.
pub fn keyholder_messages(bytes: &[u8]) {
    for request in requests() {
        if let Some(Ok(answer)) = Answer::parse(&request, bytes) {
            assert_eq!(*Answer::to_bytes(Ok(&answer), 1), *bytes);
            assert_eq!(answer.signature.is_some(), request.signature.is_some());
            assert_eq!(answer.tickets.is_some(), request.tickets.is_some());
        }
    }
    if let Some(permit) = Permit::parse(bytes) {
        assert_eq!(Permit::parse(&permit.to_bytes()), Some(permit));
    }
    if let Some(hours) = Hours::parse(bytes, LIFE) {
        let again = hours.to_bytes();
        assert_eq!(again.len(), bytes.len());
        assert_eq!(again[8..], bytes[8..]);
        let made = hours.make(&[0; 32]).expect("a ticket");
        assert!(hours.open(&made.name, &[0; 32]).is_ok());
    }
}

/// RFC 8446 section 4.4.3, or lengths that add up as RFC 5246 section 7.4.3 and
/// RFC 8422 section 5.4 have them.
fn is_of_a_server(message: &[u8], permit: &Permit) -> bool {
    if message.starts_with(&[0x20; 64]) && message[64..].starts_with(b"TLS 1.3") {
        return permit.highest == 0x0304
            && message[64..].starts_with(SERVER)
            && [130, 146].contains(&message.len());
    }
    if permit.marks_downgrades && message.get(56..64) != Some(&MARK[..]) {
        return false;
    }
    let at = |index: usize| message.get(index).copied().map_or(0, usize::from);
    if at(64) == 3 && message.len() == 68 + at(67) {
        let length = match at(66) {
            23 => 65,
            29 => 32,
            30 => 56,
            _ => return false,
        };
        return at(65) == 0 && at(67) == length;
    }
    message.len() == 64 + 258 + 3 + 258
        && message[66..].starts_with(&PRIME)
        && message[322..325] == [0, 1, 2]
        && message[325..327] == [1, 0]
}

/// One ASN.1 structure to its end, by the shortest of its encodings (X.690, 10.1), that
/// begins as what somebody signs: with elements in an element, or with a number or a
/// type and one of those or a type behind it.
fn passes_for_signed(message: &[u8]) -> bool {
    let head = match message.get(1) {
        Some(0x81) => 3,
        Some(0x82) => 4,
        _ => 2,
    };
    let is_one = matches!(elements(message).as_deref(), Some([0x30 | 0x31]));
    let inside = message.get(head..).filter(|_| is_one).and_then(elements);
    match inside.as_deref() {
        Some([2 | 6, second, ..]) => second & 0x20 != 0 || *second == 6,
        Some([first, ..]) => first & 0x20 != 0,
        _ => false,
    }
}

/// The tags of the elements that bytes are; `None`: they are none.
fn elements(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut tags = Vec::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        let (length, rest) = match rest {
            _ if tag & 0x1f == 0x1f => return None,
            [length @ ..=0x7f, rest @ ..] => (usize::from(*length), rest),
            [0x81, length, rest @ ..] => (usize::from(*length), rest),
            [0x82, high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]).into(), rest),
            _ => return None,
        };
        let (inside, behind) = rest.split_at_checked(length)?;
        if tag & 0x20 != 0 {
            elements(inside)?;
        }
        bytes = behind;
        tags.push(tag);
    }
    Some(tags)
}
