//! Flights of scripted servers, whole, cut at each byte, and with each length
//! wrong.
#![forbid(unsafe_code)]

use super::*;
use crate::probe::suites;
use crate::probe::wire::reader::{Flight, Reader, ServerReply};

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [&[kind, 3, 0], &length[..], body].concat()
}

fn hello(version: u16, suite: u16) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([9; 32]);
    body.extend([2, 0xaa, 0xbb]);
    body.extend(suite.to_be_bytes());
    body.push(0);
    message(2, &body)
}

fn certificate(list: &[&[u8]]) -> Vec<u8> {
    let mut inner: Vec<u8> = Vec::new();
    for one in list {
        inner.extend(&u32::try_from(one.len()).expect("short").to_be_bytes()[1..]);
        inner.extend(*one);
    }
    let mut body = u32::try_from(inner.len()).expect("short").to_be_bytes()[1..].to_vec();
    body.extend(inner);
    message(11, &body)
}

/// A server of the 1990s: SSL 3.0, EXPORT with a prime of 512 bits.
fn flight() -> Vec<u8> {
    let exchange = [
        &[0, 65, 0][..],
        &[0xff; 64],
        &[0, 1, 2],
        &[0, 64],
        &[0x77; 64],
        &[0, 2, 1, 1],
    ]
    .concat();
    [
        hello(0x0300, 0x0014),
        certificate(&[b"first", b"second"]),
        message(12, &exchange),
        message(13, &[1, 1, 0, 0]),
        message(14, &[]),
    ]
    .concat()
}

fn read(bytes: &[u8]) -> Result<Option<ServerReply>, Malformed> {
    Reader::default().take(bytes)
}

#[test]
fn a_flight_is_read_however_it_is_cut() {
    let wanted = Flight {
        hello: ServerHello {
            version: 0x0300,
            suite: 0x0014,
            ..ServerHello::default()
        },
        certificates: vec![b"first".to_vec(), b"second".to_vec()],
        exchange: Some(KeyExchange::FiniteField(vec![0xff; 64])),
        wants_certificate: true,
        fault: None,
    };
    let whole = Some(ServerReply::Flight(Box::new(wanted)));
    let flight = flight();
    for size in [1, 2, 7, 100, flight.len()] {
        let records: Vec<u8> = flight
            .chunks(size)
            .flat_map(|piece| record(22, piece))
            .collect();
        assert_eq!(read(&records), Ok(whole.clone()), "records of {size}");
        let mut reader = Reader::default();
        let mut last = None;
        for byte in &records {
            assert_eq!(last, None);
            last = reader.take(&[*byte]).expect("good bytes");
        }
        assert_eq!(last, whole, "records of {size}, byte by byte");
    }
}

#[test]
fn a_flight_that_is_cut_short_is_not_over() {
    let records = record(22, &flight());
    for end in 0..records.len() {
        assert_eq!(read(&records[..end]), Ok(None), "{end}");
    }
    // In records of one byte the last messages are missing, whatever came.
    let pieces: Vec<u8> = flight()
        .chunks(1)
        .flat_map(|piece| record(22, piece))
        .collect();
    for end in 0..pieces.len() {
        let mut reader = Reader::default();
        assert_eq!(reader.take(&pieces[..end]), Ok(None), "{end}");
        let hello = hello(0x0300, 0x0014).len() * 6;
        assert_eq!(reader.so_far(None).is_some(), end >= hello, "{end}");
    }
}

#[test]
fn each_wrong_length_and_each_wrong_byte_is_survived() {
    let good = flight();
    for at in 0..good.len() {
        for value in [
            0,
            1,
            2,
            0x7f,
            0x80,
            0xff,
            good[at].wrapping_add(1),
            good[at].wrapping_sub(1),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            // Whatever it says, it says something, and does not panic.
            let _ = read(&record(22, &bad));
            let mut framed = record(22, &good);
            framed[at % 5] = value;
            let _ = read(&framed);
        }
    }
    let mut too_long = certificate(&[b"x"]);
    too_long[4..7].copy_from_slice(&[0, 0, 200]);
    let bytes = [hello(0x0303, 0x002f), too_long].concat();
    assert_eq!(
        read(&record(22, &bytes)),
        Err(Malformed::Message("Certificate"))
    );
}

#[test]
fn what_is_no_tls_is_told_by_its_first_bytes() {
    for text in [
        &b"220 mx.example ESMTP\r\n"[..],
        b"HTTP/1.1 400 Bad\r\n",
        b"\0",
        b"\x16\x02\x00",
    ] {
        assert_eq!(
            read(text),
            Ok(Some(ServerReply::Other(text.to_vec()))),
            "{text:?}"
        );
    }
    assert_eq!(
        read(&record(21, &[2, 40])),
        Ok(Some(ServerReply::Alert(40)))
    );
    assert_eq!(read(b""), Ok(None));
    let long = [&[22, 3, 3][..], &[0xff, 0xff]].concat();
    assert!(matches!(read(&long), Err(Malformed::Record(_))));
    let big = [22, 3, 3, 0, 4, 11, 0xff, 0xff, 0xff];
    assert_eq!(
        read(&big),
        Err(Malformed::TooLong("Certificate", 0x00ff_ffff))
    );
    let later = record(22, &message(11, &[0, 0, 0]));
    assert_eq!(read(&later), Err(Malformed::Unexpected(11)));
    assert!(matches!(read(&record(22, &[])), Err(Malformed::Record(_))));
}

#[test]
fn a_warning_about_the_name_is_passed_by() {
    let bytes = [record(21, &[1, 112]), record(22, &flight())].concat();
    assert!(matches!(read(&bytes), Ok(Some(ServerReply::Flight(_)))));
}

#[test]
fn tls_13_ends_with_its_hello_or_asks_for_a_group() {
    let body = |random: &[u8], share: &[u8]| {
        let extensions = [
            &[0, 43, 0, 2, 3, 4, 0, 51][..],
            &[0, u8::try_from(share.len()).expect("short")],
            share,
        ]
        .concat();
        let length = u16::try_from(extensions.len())
            .expect("short")
            .to_be_bytes();
        [&[3, 3], random, &[0, 0x13, 1, 0], &length, &extensions].concat()
    };
    let hello = ServerHello::read(&body(&RETRY, &[0x11, 0xec])).expect("read");
    assert!(hello.retry);
    assert_eq!((hello.version, hello.group), (0x0304, Some(0x11ec)));
    assert_eq!(hello.extensions, [43, 51]);
    let share = [&[0, 0x1d, 0, 32][..], &[5; 32]].concat();
    let bytes = record(22, &message(2, &body(&[1; 32], &share)));
    let Ok(Some(ServerReply::Flight(flight))) = read(&bytes) else {
        panic!("a flight");
    };
    assert!(!flight.hello.retry);
    assert_eq!(flight.hello.group, Some(0x1d));
    // A length too many, a byte too many.
    for end in 0..body(&RETRY, &[0x11, 0xec]).len() {
        let cut = &body(&RETRY, &[0x11, 0xec])[..end];
        let known = ServerHello::read(cut);
        assert!(known.is_err() || end == 38, "{end}");
    }
    let trailing = [&body(&RETRY, &[0x11, 0xec])[..], &[0]].concat();
    assert_eq!(
        ServerHello::read(&trailing),
        Err(Malformed::Message("ServerHello"))
    );
}

#[test]
fn key_exchanges_are_read_by_their_suite() {
    let suite = |name| suites::called(name).expect("known");
    let point = [&[3, 0, 0x17, 65][..], &[4; 65]].concat();
    assert_eq!(
        KeyExchange::read(&point, suite("ECDHE-RSA-AES128-SHA")),
        Ok(KeyExchange::Curve(0x17))
    );
    let rsa = [&[0, 64][..], &[0x80; 64], &[0, 1, 3]].concat();
    assert_eq!(
        KeyExchange::read(&rsa, suite("EXP-RC4-MD5")),
        Ok(KeyExchange::TemporaryRsa(512))
    );
    for (name, body) in [("ECDHE-RSA-AES128-SHA", &point), ("EXP-RC4-MD5", &rsa)] {
        for end in 0..body.len() {
            assert_eq!(
                KeyExchange::read(&body[..end], suite(name)),
                Err(Malformed::Message("ServerKeyExchange")),
                "{name} {end}"
            );
        }
    }
    assert!(
        KeyExchange::read(&[0; 9], suite("DHE-RSA-AES256-SHA")).is_err(),
        "no prime"
    );
    assert_eq!(bits(&[0, 0, 1]), 1);
    assert_eq!(bits(&[0x80, 0]), 16);
    assert_eq!(bits(&[]), 0);
}
