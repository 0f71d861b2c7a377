//! Which chains match which TLSA records, and what is said of it.
#![forbid(unsafe_code)]

use std::net::TcpStream;
use std::time::Duration;

use openssl::hash::{MessageDigest, hash};
use openssl::x509::X509;

use ucspi_tls::internals::OwnKey;
use ucspi_tls::internals::anchor_pool::AnchorPool;
use ucspi_tls::internals::client_store::{Setup, Store, Trust};
use ucspi_tls::internals::dane::Record;
use ucspi_tls::internals::handshake::{self, HandshakeFailure, Side};
use ucspi_tls::internals::settings::{Settings, Version};
use ucspi_tls::internals::trust::{self, Expectation, Fault};

use crate::harness::{Authority, Identity, Leaf, peer};

/// The host that the records stand for.
const HOST: &str = "mx.dane.example";

/// A record of a certificate.
fn record(numbers: [u8; 3], certificate: &X509) -> Record {
    let whole = match numbers[1] {
        0 => certificate.to_der().unwrap(),
        _ => certificate
            .public_key()
            .unwrap()
            .public_key_to_der()
            .unwrap(),
    };
    let data = match numbers[2] {
        0 => whole,
        1 => hash(MessageDigest::sha256(), &whole).unwrap().to_vec(),
        _ => hash(MessageDigest::sha512(), &whole).unwrap().to_vec(),
    };
    Record::parse(&[&numbers[..], &data].concat()).unwrap()
}

/// The beginning of a record's data, in hex.
fn digits(record: &Record) -> String {
    let bytes = record.data.iter().take(4);
    bytes
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat()
}

/// What a client with these records makes of a server: the verdict's words, or why
/// there is no session; and whether the server had one. The client's own anchors
/// are the roots that the certificates here are below.
fn meet(identity: &Identity, records: Vec<Record>) -> (Result<String, HandshakeFailure>, bool) {
    let server = peer::Peer::tls(peer::context(identity, |_| ()), |met| {
        // In TLS 1.3 the client's alert comes with the first read.
        met.is_ok_and(|mut stream| {
            let mut byte = [0];
            stream.ssl_read(&mut byte).is_ok_and(|count| count == 1)
        })
    });
    let roots = vec![Authority::shared_root().certificate.clone()];
    let roots = AnchorPool::of(roots).unwrap();
    let setup = Setup {
        trust: Trust::Pool(&roots),
        certificate: None,
        depth: None,
        expectation: Expectation::default(),
        anonymous: false,
        ciphers_from: "ciphers",
        lines: (None, None),
    };
    let keys = OwnKey::NONE;
    let store = Store::load(&Settings::default(), &setup, &keys).unwrap();
    let published = trust::Published {
        host: trust::HostName::parse(HOST).unwrap(),
        others: Vec::new(),
        records,
        names: Vec::new(),
    };
    let ssl = store.connection_by_records(published).unwrap();
    let side = Side {
        kinds: &[],
        versions: (Version::Tls12, None),
    };
    let socket = TcpStream::connect(server.at).unwrap();
    let mut session = handshake::perform(ssl, socket, Duration::from_secs(30), side);
    if let Ok(session) = &mut session {
        session.ssl_write(b"x").unwrap();
        session.get_mut().push().unwrap();
    }
    // Not closed before the server has read it.
    let served = server.join();
    let words = session.map(|session| trust::verdict(session.ssl()).unwrap().to_string());
    (words, served)
}

fn assert_matched(identity: &Identity, records: Vec<Record>, wanted: &str) {
    let shown = format!("{records:?}");
    let (words, served) = meet(identity, records);
    assert_eq!(words.as_deref(), Ok(wanted), "{shown}");
    assert!(served);
}

/// The words for a chain that is refused.
fn refused(identity: &Identity, records: Vec<Record>) -> trust::Refusal {
    let shown = format!("{records:?}");
    match meet(identity, records) {
        (Err(HandshakeFailure::Certificate(refusal, _)), false) => refusal,
        other => panic!("{shown}: {other:?}"),
    }
}

#[test]
fn a_server_s_own_certificate_matches_whatever_it_says() {
    let good = Leaf::new("x").dns(HOST).issue();
    // RFC 7671, 5.1: neither names nor dates, nor who signed it.
    let strange = Leaf::new("strange")
        .dns("other.example")
        .expired()
        .self_signed();
    for identity in [&good, &strange] {
        for numbers in [
            [3, 1, 1],
            [3, 0, 1],
            [3, 1, 2],
            [3, 0, 2],
            [3, 1, 0],
            [3, 0, 0],
        ] {
            let [_, selector, matching] = numbers;
            let wanted = format!("dane 3 {selector} {matching}");
            assert_matched(
                identity,
                vec![record(numbers, &identity.certificate)],
                &wanted,
            );
        }
    }
    // One that matches is enough.
    let records = [[3, 0, 1], [2, 1, 1]].map(|numbers| record(numbers, &strange.certificate));
    let records = [&records[..], &[record([3, 1, 1], &good.certificate)]].concat();
    assert_matched(&good, records, "dane 3 1 1");
}

#[test]
fn an_authority_s_record_asks_for_a_sound_chain_and_the_name() {
    let root = Authority::root("DANE Root");
    let lower = root.below("DANE Lower");
    let mut identity = Leaf::new("x").dns(HOST).issue_by(&lower);
    identity.between = vec![lower.certificate.clone(), root.certificate.clone()];
    for authority in [&lower, &root] {
        for numbers in [[2, 1, 1], [2, 0, 1], [2, 0, 2], [2, 0, 0], [2, 1, 0]] {
            let [_, selector, matching] = numbers;
            let wanted = format!("dane 2 {selector} {matching}");
            assert_matched(
                &identity,
                vec![record(numbers, &authority.certificate)],
                &wanted,
            );
        }
    }
    let of_root = || vec![record([2, 1, 1], &root.certificate)];
    let beside = |mut identity: Identity| {
        identity.between = vec![lower.certificate.clone(), root.certificate.clone()];
        identity
    };
    // A name in the subject alone is none.
    for (about, leaf, why) in [
        (
            "another name",
            Leaf::new("x").dns("other.example"),
            "hostname mismatch",
        ),
        ("no name", Leaf::new(HOST), "hostname mismatch"),
        (
            "too old",
            Leaf::new("x").dns(HOST).expired(),
            "certificate has expired",
        ),
    ] {
        let refusal = refused(&beside(leaf.issue_by(&lower)), of_root());
        let digits = digits(&of_root()[0]);
        let words =
            format!("{why} (2 1 1 {digits} is published, and its last issuer's key is {digits})");
        assert_eq!(refusal.reason, words, "{about}");
    }
    // The digest of an authority that the server does not show.
    let mut alone = identity.clone();
    alone.between = vec![lower.certificate.clone()];
    let refusal = refused(&alone, of_root());
    assert_eq!(refusal.fault, Fault::Records, "{refusal}");
}

#[test]
fn what_matches_nothing_is_refused_in_words_that_can_be_compared() {
    let identity = Leaf::new("x").dns(HOST).issue();
    let other = Leaf::new("other").other_key().dns(HOST).issue();
    let wanted = record([3, 1, 1], &other.certificate);
    let own = record([3, 1, 1], &identity.certificate);
    let refusal = refused(&identity, vec![wanted.clone()]);
    assert_eq!(refusal.fault, Fault::Records);
    let words = format!(
        "depth 0, /CN=x: it matches no TLSA record: 3 1 1 {} is published, and its own key is {}",
        digits(&wanted),
        digits(&own)
    );
    assert_eq!(refusal.to_string(), words);
    // An anchor of the client's own is nobody's record, nor is a record of another
    // usage.
    let root = Authority::shared_root().certificate.clone();
    for numbers in [[3, 1, 1], [3, 0, 1], [3, 0, 0]] {
        refused(&identity, vec![record(numbers, &root)]);
    }
    let refusal = refused(&identity, vec![record([2, 1, 1], &identity.certificate)]);
    assert!(refusal.reason.contains("2 1 1 "), "{refusal}");
    // Many are not listed without end.
    let refusal = refused(&identity, vec![wanted; 9]);
    assert!(refusal.reason.ends_with("; and 5 more"), "{refusal}");
}
