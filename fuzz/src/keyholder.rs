//! Requests to the keyholder, which come from engines that may be taken over,
//! and its answers.
#![forbid(unsafe_code)]

use ucspi_tls::keyholder::protocol::{Refusal, Request, answer, judge, reply};
use ucspi_tls::store::KeyKind;
use ucspi_tls::tls_ffi::provider::{Digest, Padding};

const SERVER: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const KINDS: [KeyKind; 4] = [
    KeyKind::Rsa(2048),
    KeyKind::Ecdsa(256),
    KeyKind::Eddsa,
    KeyKind::Other,
];

/// That of the server's group.
const PRIME: [u8; 256] = [0xff; 256];

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
        [&[9; 64][..], &[3, 0, 29, 32], &[5; 32]].concat(),
        [&[9; 64][..], &[3, 0, 23, 65, 4], &[5; 64]].concat(),
        [
            vec![9; 64],
            number(&PRIME),
            number(&[2]),
            number(&[1; 256]),
        ]
        .concat(),
        b"hello".to_vec(),
    ];
    let mut seeds = vec![b"\0sig".to_vec(), b"\x01no".to_vec()];
    for message in &messages {
        for (padding, digest) in [
            (Padding::None, Digest::None),
            (Padding::None, Digest::Sha256),
            (Padding::Pkcs1, Digest::Sha256),
            (Padding::Pss, Digest::Sha384),
        ] {
            let request = Request {
                padding,
                digest,
                key: 0,
                message,
            };
            seeds.push(request.to_bytes());
        }
    }
    seeds
}

/// Any bytes as a request: it is refused, or it means itself, and what is signed
/// has the form of a TLS server's signature, measured in another way. And as an
/// answer.
pub fn keyholder(bytes: &[u8]) {
    if let Ok(signature) = answer(bytes) {
        assert_eq!(reply(Ok(signature)), bytes);
    }
    let Ok(request) = Request::parse(bytes) else {
        return;
    };
    assert_eq!(request.to_bytes(), bytes);
    let primes = [PRIME.to_vec()];
    for kind in KINDS {
        match judge(&request, kind, &primes) {
            Ok(()) => {
                assert!(is_of_a_server(request.message), "{request:?}");
                assert!(kind != KeyKind::Other);
                let rsa = matches!(kind, KeyKind::Rsa(_));
                assert_eq!(request.padding != Padding::None, rsa, "{request:?}");
                let own = request.digest == Digest::None;
                assert_eq!(own, kind == KeyKind::Eddsa, "{request:?}");
            }
            Err(refusal) => assert!(matches!(refusal, Refusal::Shape | Refusal::Algorithm)),
        }
    }
}

/// RFC 8446 section 4.4.3, or lengths that add up as RFC 5246 section 7.4.3 and
/// RFC 8422 section 5.4 have them.
fn is_of_a_server(message: &[u8]) -> bool {
    if message.starts_with(&[0x20; 64]) && message[64..].starts_with(b"TLS 1.3") {
        return message[64..].starts_with(SERVER) && [130, 146].contains(&message.len());
    }
    let at = |index: usize| message.get(index).copied().map_or(0, usize::from);
    if at(64) == 3 && message.len() == 68 + at(67) {
        return message.len() > 68 + 31;
    }
    let mut end = 64;
    for _ in 0..3 {
        end += 2 + at(end) * 256 + at(end + 1);
    }
    end == message.len() && message[66..].starts_with(&PRIME)
}
