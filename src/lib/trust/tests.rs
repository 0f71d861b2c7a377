//! Judgements of real handshakes, between two ends in one process.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslMethod, SslStream};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509Builder, X509Name};

use super::*;
use crate::host_name::{HostName, Reference};

/// `X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY`.
const ISSUER: i32 = 20;
const HOST: &str = "mx.a.example";

struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

/// A server of this name below an authority, or an authority of this name.
fn identity(name: &str, issuer: Option<&Identity>) -> Identity {
    let key = PKey::generate_ed25519().expect("a key");
    let mut subject = X509Name::builder().expect("a builder");
    subject.append_entry_by_text("CN", name).expect("a name");
    let subject = subject.build();
    let mut builder = X509Builder::new().expect("a builder");
    builder.set_version(2).expect("version 3");
    builder.set_subject_name(&subject).expect("a name");
    builder.set_pubkey(&key).expect("a key");
    let day = |days| Asn1Time::days_from_now(days).expect("a time");
    builder.set_not_before(&day(0)).expect("a time");
    builder.set_not_after(&day(1)).expect("a time");
    let by = issuer.map_or(&*subject, |one| one.certificate.subject_name());
    builder.set_issuer_name(by).expect("a name");
    let extension = match issuer {
        Some(issuer) => SubjectAlternativeName::new()
            .dns(name)
            .build(&builder.x509v3_context(Some(&issuer.certificate), None)),
        None => BasicConstraints::new().critical().ca().build(),
    };
    let extension = extension.expect("an extension");
    builder.append_extension(extension).expect("an extension");
    let signer = issuer.map_or(&key, |one| &one.key);
    builder
        .sign(signer, MessageDigest::null())
        .expect("a signature");
    let certificate = builder.build();
    Identity { certificate, key }
}

/// An authority, and the server [`HOST`] below it.
fn server() -> (Identity, Identity) {
    let authority = identity("an authority", None);
    let server = identity(HOST, Some(&authority));
    (authority, server)
}

/// An end that shows a certificate, or none.
fn showing(method: SslMethod, own: Option<&Identity>) -> Ssl {
    let mut context = SslContext::builder(method).expect("a context");
    if let Some(own) = own {
        context.set_certificate(&own.certificate).expect("its own");
        context.set_private_key(&own.key).expect("its key");
    }
    Ssl::new(&context.build()).expect("a connection")
}

/// A client that judges chains, with this anchor.
fn judging(anchor: &Identity) -> Ssl {
    let mut context = SslContext::builder(SslMethod::tls_client()).expect("a context");
    let mut anchors = X509StoreBuilder::new().expect("a store");
    let anchor = anchor.certificate.clone();
    anchors.add_cert(anchor).expect("an anchor");
    let anchors = anchors.build();
    context.set_verify_cert_store(anchors).expect("a store");
    tls_ffi::dane::allow(&mut context).expect("room");
    judge_in(&mut context, SslVerifyMode::PEER).expect("a context");
    Ssl::new(&context.build()).expect("a connection")
}

type Met = Result<SslStream<UnixStream>, MidHandshakeSslStream<UnixStream>>;

/// A handshake with a server.
fn meet(client: Ssl, server: Ssl) -> Met {
    let (near, far) = UnixStream::pair().expect("a pair");
    let server = thread::spawn(move || server.accept(far).is_ok());
    let met = client.connect(near);
    server.join().expect("the server");
    met.map_err(|error| match error {
        HandshakeError::Failure(stream) => stream,
        other => panic!("{other:?}"),
    })
}

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a name")
}

fn called(name: &str) -> Vec<Name> {
    vec![Name::new(Reference::Host(host(name)))]
}

fn demanding(demand: Demand, tolerated: Tolerated) -> Expectation {
    Expectation {
        demand,
        pins: Vec::new(),
        tolerated,
    }
}

/// The client expects something of the server [`HOST`], changed before the handshake.
fn expecting(
    demand: Demand,
    tolerated: Tolerated,
    name: &str,
    change: impl FnOnce(&mut Ssl),
) -> Met {
    let (authority, server) = server();
    let mut client = judging(&authority);
    let expectation = Arc::new(demanding(demand, tolerated));
    expect(&mut client, expectation, called(name)).expect("room");
    change(&mut client);
    meet(client, showing(SslMethod::tls_server(), Some(&server)))
}

fn refused(met: Met) -> Refusal {
    let stream = met.expect_err("no session");
    let told = refusal(stream.ssl()).expect("it is for the certificate");
    assert_eq!(verdict(stream.ssl()), Err(told.clone()));
    told
}

#[test]
fn who_expects_nothing_accepts_no_certificate() {
    let (authority, server) = server();
    let server = showing(SslMethod::tls_server(), Some(&server));
    let met = meet(judging(&authority), server).expect_err("no session");
    assert_eq!(refusal(met.ssl()), None);
    let judged = verdict(met.ssl()).expect_err("nobody judged it");
    assert_eq!(judged.fault, Fault::Unjudged);
}

#[test]
fn a_server_must_bear_the_name_that_is_expected() {
    let met = expecting(Demand::Name, Tolerated::Nothing, HOST, |_| ()).expect("a session");
    let name = called(HOST).pop();
    assert_eq!(verdict(met.ssl()), Ok(Verdict::Verified(name)));
    assert_eq!(refusal(met.ssl()), None);
    let told = refused(expecting(
        Demand::Name,
        Tolerated::Nothing,
        "mx.b.example",
        |_| (),
    ));
    assert_eq!(told.code(), code::HOSTNAME_MISMATCH);
    assert_eq!(told.subject, format!("/CN={HOST}"));
}

#[test]
fn what_is_wrong_with_a_chain_stays_the_verdict_where_it_is_tolerated() {
    for tolerated in [Tolerated::Nothing, Tolerated::Unverified] {
        let (_, server) = server();
        let mut client = judging(&identity("another authority", None));
        let expectation = Arc::new(demanding(Demand::Chain, tolerated));
        expect(&mut client, expectation, Vec::new()).expect("room");
        let met = meet(client, showing(SslMethod::tls_server(), Some(&server)));
        let told = match tolerated {
            Tolerated::Nothing => refused(met),
            _ => match verdict(met.expect("a session").ssl()) {
                Ok(Verdict::Unverified(told)) => told,
                other => panic!("{other:?}"),
            },
        };
        assert_eq!((told.code(), told.depth), (ISSUER, 0));
        assert_eq!(told.subject, format!("/CN={HOST}"));
        assert_eq!(told.naming, None);
        // No failure of the past is taken for one of the next call's.
        assert!(ErrorStack::get().errors().is_empty() || tolerated == Tolerated::Nothing);
    }
}

#[test]
fn an_expectation_is_replaced_before_the_chain_is_judged_and_never_after() {
    let other = |demand| Arc::new(demanding(demand, Tolerated::Nothing));
    let stricter = |client: &mut Ssl| replace(client, other(Demand::Name)).expect("in time");
    refused(expecting(
        Demand::Certificate,
        Tolerated::Nothing,
        "mx.b.example",
        stricter,
    ));
    let looser = |client: &mut Ssl| replace(client, other(Demand::Chain)).expect("in time");
    let met = expecting(Demand::Name, Tolerated::Nothing, "mx.b.example", looser);
    let met = met.expect("a session");
    assert_eq!(verdict(met.ssl()), Ok(Verdict::Verified(None)));
    let (authority, _) = server();
    replace(&mut judging(&authority), other(Demand::Chain)).expect_err("nothing was expected");
    unjudged(met.ssl(), |_| ()).expect_err("it was judged");
}

#[test]
fn what_is_expected_besides_ends_the_connection_too() {
    for (name, good) in [(HOST, true), ("mx.b.example", false)] {
        let besides = |client: &mut Ssl| {
            let expectation = demanding(Demand::Name, Tolerated::Nothing);
            expect_besides(client, expectation, called(name)).expect("in time");
        };
        let met = expecting(Demand::Chain, Tolerated::Nothing, HOST, besides);
        if good {
            let met = met.expect("a session");
            assert_eq!(verdict(met.ssl()), Ok(Verdict::Verified(None)));
            let bears = Verdict::Verified(called(HOST).pop());
            assert_eq!(verdict_besides(met.ssl()), Ok(Some(bears)));
        } else {
            assert_eq!(refused(met).code(), code::HOSTNAME_MISMATCH);
        }
    }
    // What is tolerated is told apart, and the other refusal counts on its own.
    let tolerant = |client: &mut Ssl| {
        let expectation = demanding(Demand::Name, Tolerated::Unverified);
        expect_besides(client, expectation, called("mx.b.example")).expect("in time");
    };
    let met = expecting(Demand::Chain, Tolerated::Nothing, HOST, tolerant).expect("a session");
    assert_eq!(verdict(met.ssl()), Ok(Verdict::Verified(None)));
    match verdict_besides(met.ssl()) {
        Ok(Some(Verdict::Unverified(told))) => assert_eq!(told.code(), code::HOSTNAME_MISMATCH),
        other => panic!("{other:?}"),
    }
    let nothing = expecting(Demand::Chain, Tolerated::Nothing, HOST, |_| ()).expect("a session");
    assert_eq!(verdict_besides(nothing.ssl()), Ok(None));
}

/// A server that judges its client, which shows nothing.
fn unknown_client(demand: Demand, besides: bool) -> SslStream<UnixStream> {
    let (_, own) = server();
    let mut context = SslContext::builder(SslMethod::tls_server()).expect("a context");
    context.set_certificate(&own.certificate).expect("its own");
    context.set_private_key(&own.key).expect("its key");
    judge_in(&mut context, SslVerifyMode::PEER).expect("a context");
    let mut ssl = Ssl::new(&context.build()).expect("a connection");
    ssl.set_accept_state();
    let expectation = demanding(demand, Tolerated::Nothing);
    expect(&mut ssl, Arc::new(expectation.clone()), Vec::new()).expect("room");
    if besides {
        expect_besides(&mut ssl, expectation, Vec::new()).expect("in time");
    }
    let (near, far) = UnixStream::pair().expect("a pair");
    let client = showing(SslMethod::tls_client(), None);
    let client = thread::spawn(move || client.connect(far).is_ok());
    let met = ssl.accept(near).expect("a session");
    assert!(client.join().expect("the client"));
    met
}

#[test]
fn a_client_without_a_certificate_was_asked_or_not() {
    let met = unknown_client(Demand::Nothing, true);
    assert_eq!(verdict(met.ssl()), Ok(Verdict::Absent));
    assert_eq!(verdict_besides(met.ssl()), Ok(Some(Verdict::Absent)));
    let met = unknown_client(Demand::Unasked, false);
    assert_eq!(verdict(met.ssl()), Ok(Verdict::NotAsked));
}

#[test]
fn the_peer_of_a_resumed_session_was_judged_by_nobody() {
    use crate::tls_ffi::resume::Resumable;

    let (authority, own) = server();
    let mut context = SslContext::builder(SslMethod::tls_server()).expect("a context");
    context.set_certificate(&own.certificate).expect("its own");
    context.set_private_key(&own.key).expect("its key");
    // There the session is whole with the handshake.
    let below_13 = Some(openssl::ssl::SslVersion::TLS1_2);
    context.set_max_proto_version(below_13).expect("a version");
    let context = context.build();
    let again = || Ssl::new(&context).expect("a connection");
    let expected = |client: &mut Ssl, demand| {
        let expectation = Arc::new(demanding(demand, Tolerated::Nothing));
        expect(client, expectation, called(HOST)).expect("room");
    };
    let mut first = judging(&authority);
    expected(&mut first, Demand::Name);
    let first = meet(first, again()).expect("a session");
    assert!(matches!(verdict(first.ssl()), Ok(Verdict::Verified(_))));
    let resumable = Resumable::of(first.ssl()).expect("a session to resume");
    let mut second = resumable.ssl().expect("a connection");
    expected(&mut second, Demand::Name);
    let expectation = demanding(Demand::Name, Tolerated::Nothing);
    expect_besides(&mut second, expectation, called(HOST)).expect("in time");
    let second = meet(second, again()).expect("a session");
    assert!(second.ssl().session_reused());
    for judged in [
        verdict(second.ssl()).map(Some),
        verdict_besides(second.ssl()),
    ] {
        assert_eq!(judged.expect_err("unjudged").fault, Fault::Unjudged);
    }
}

/// A client that has such a record of the server [`HOST`]; other hosts' names count,
/// and it must bear one of these names besides.
fn with_record(numbers: [u8; 3], data: Option<&[u8]>, others: &[&str], names: &[&str]) -> Met {
    let (authority, server) = server();
    let of = if numbers[0] == 2 { &authority } else { &server };
    let digest = dane::key_digest(&of.certificate).expect("a digest");
    let data = data.unwrap_or(&digest);
    let record = dane::Record::parse(&[&numbers[..], data].concat()).expect("a record");
    let mut client = judging(&identity("another authority", None));
    let published = Published {
        host: host(others.first().unwrap_or(&HOST)),
        others: others.iter().skip(1).map(|one| host(one)).collect(),
        records: vec![record],
        names: names.iter().flat_map(|name| called(name)).collect(),
    };
    expect_records(&mut client, published).expect("a record of use");
    let mut context = SslContext::builder(SslMethod::tls_server()).expect("a context");
    context
        .set_certificate(&server.certificate)
        .expect("its own");
    context.set_private_key(&server.key).expect("its key");
    context
        .add_extra_chain_cert(authority.certificate)
        .expect("its issuer");
    meet(client, Ssl::new(&context.build()).expect("a connection"))
}

#[test]
fn a_server_must_match_a_record_that_its_host_publishes() {
    for numbers in [[3, 1, 1], [2, 1, 1]] {
        let [usage, selector, matching] = numbers;
        let dane = Verdict::Dane {
            usage,
            selector,
            matching,
        };
        let met = with_record(numbers, None, &[], &[]).expect("a session");
        assert_eq!(verdict(met.ssl()), Ok(dane.clone()));
        let met = with_record(numbers, None, &[], &["mx.b.example", HOST]).expect("a session");
        assert_eq!(verdict(met.ssl()), Ok(dane));
        // A name that is asked for besides counts whatever the record's kind.
        let told = refused(with_record(numbers, None, &[], &["mx.b.example"]));
        assert_eq!(told.code(), code::HOSTNAME_MISMATCH);
        assert!(told.reason.contains(" is published"), "{}", told.reason);
        let told = refused(with_record(numbers, Some(&[7; 32]), &[], &[]));
        assert_eq!(told.fault, Fault::Records);
        assert!(told.reason.contains("07070707"), "{}", told.reason);
    }
    // RFC 7672, 3.2.2: where an authority's record matches, one of these names counts.
    let others = ["mx.b.example", HOST];
    with_record([2, 1, 1], None, &others, &[]).expect("a session");
    let told = refused(with_record([2, 1, 1], None, &others[..1], &[]));
    assert_eq!(told.code(), code::HOSTNAME_MISMATCH);
    let wanted = told.naming.expect("names").wanted;
    assert_eq!(wanted, called("mx.b.example"));
    assert!(told.reason.contains(" is published"), "{}", told.reason);
    // RFC 7672, 3.1.1: where the server's own does, no name counts.
    with_record([3, 1, 1], None, &others[..1], &[]).expect("a session");
}

#[test]
fn without_a_record_of_use_nothing_can_be_expected() {
    let (authority, _) = server();
    let published = Published {
        host: host(HOST),
        others: Vec::new(),
        records: Vec::new(),
        names: Vec::new(),
    };
    expect_records(&mut judging(&authority), published).expect_err("no record");
}

#[test]
fn a_refused_name_says_of_which_kind_it_is_and_what_a_wildcard_would_do() {
    /// `X509_V_ERR_HOSTNAME_MISMATCH` and `X509_V_ERR_IP_ADDRESS_MISMATCH`.
    const NAMES: i32 = 62;
    const ADDRESSES: i32 = 64;
    let authority = identity("an authority", None);
    let star = identity("*.a.example", Some(&authority)).certificate;
    let name = |text: &&str| Name {
        wildcards: false,
        ..Name::new(Reference::parse(text).expect(text))
    };
    for (wanted, result, wildcard) in [
        (&[][..], NAMES, false),
        (&[HOST], NAMES, true),
        (&["mx.b.example"], NAMES, false),
        (&["192.0.2.1"], ADDRESSES, false),
        (&["192.0.2.1", HOST], NAMES, true),
    ] {
        let names: Vec<Name> = wanted.iter().map(name).collect();
        let refusal = Refusal::name(&star, &names);
        let Fault::Name(found) = refusal.fault else {
            panic!("{refusal}");
        };
        assert_eq!(found.as_raw(), result, "{wanted:?}");
        let naming = refusal.naming.expect("names");
        assert_eq!(naming.wildcard, wildcard, "{wanted:?}");
        assert_eq!(naming.wanted, names);
        assert_eq!(naming.borne, "*.a.example");
    }
}
