//! `qmail-sslremote -P`: what a delivery would meet, and that nobody is called.
#![forbid(unsafe_code)]

use super::dns::{Names, Signing, Zones};
use super::fake::Fake;
use super::remote::{Remote, fresh_ip};
use crate::harness::{Place, need, need_root, run, skip};

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What is printed of domains.
fn told(remote: &Remote<'_>, domains: &[&str]) -> String {
    let ended = run(
        &mut remote.command(&[&["-P"], domains].concat()),
        b"no message",
    );
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ended.text()
}

#[test]
fn it_says_what_a_delivery_would_meet_and_calls_nobody() {
    need_root!();
    let place = Place::new("preview");
    let Some(zones) = Zones::new(&place) else {
        skip!("nsd or ldnsutils is not installed");
    };
    let [ip, other] = [fresh_ip(), fresh_ip()];
    let lines = format!(
        "good IN MX 20 mx2.good\ngood IN MX 10 mx1.good\nmx1.good IN A {ip}\nmx2.good IN A {other}\n\
         _25._tcp.mx1.good IN TLSA 3 1 1 {DIGEST}\n_25._tcp.mx1.good IN TLSA 1 1 1 00\n\
         odd IN MX 5 mx.odd\nmx.odd IN A {ip}\n_25._tcp.mx.odd IN TLSA 0 0 1 00\n\
         bare IN A {ip}\n"
    );
    let plain = format!("far IN MX 10 mx.far\nmx.far IN A {ip}\n");
    let names = zones
        .zone("signed", Signing::Nsec, &lines)
        .zone("plain", Signing::None, &plain)
        .serve();
    let servers = [Fake::plain().at(ip), Fake::plain().at(other)];
    let remote = |lines: &str| {
        Remote::new(&place)
            .dns(names.ip)
            .control("dnssecanchors", &names.anchors)
            .control("smtproutes", "routed.example:mx1.good.signed:465\n")
            .policy(lines)
    };
    let none = "no line applies: TLS is used if offered; no certificate is needed";
    let demand = "a delivery now requires TLS and a certificate that matches a TLSA record: the \
                  TLSA records of mx1.good.signed require TLS (DANE)";
    let text = told(
        &remote(""),
        &["Good.signed.", "odd.signed", "bare.signed", "far.plain"],
    );
    let wanted = format!(
        "good.signed: no route\n\
         good.signed: MX signed: 10 mx1.good.signed, 20 mx2.good.signed\n\
         good.signed: mx1.good.signed [{ip}] port 25, STARTTLS, address signed\n\
         good.signed: mx1.good.signed: TLSA 3 1 1 {DIGEST}\n\
         good.signed: mx1.good.signed: a TLSA record is of no use: its usage 1 is neither 2 nor 3\n\
         good.signed: mx1.good.signed: {none}\n\
         good.signed: mx1.good.signed: {demand}\n\
         good.signed: mx2.good.signed [{other}] port 25, STARTTLS, address signed\n\
         good.signed: mx2.good.signed: {none}\n\
         good.signed: mx2.good.signed: a delivery now uses TLS if it is offered, and else goes without\n\
         good.signed: no MTA-STS: there is no directory mta-sts\n\
         odd.signed: no route\n\
         odd.signed: MX signed: 5 mx.odd.signed\n\
         odd.signed: mx.odd.signed [{ip}] port 25, STARTTLS, address signed\n\
         odd.signed: mx.odd.signed: a TLSA record is of no use: its usage 0 is neither 2 nor 3\n\
         odd.signed: mx.odd.signed: {none}\n\
         odd.signed: mx.odd.signed: a delivery now requires TLS: the TLSA records of mx.odd.signed \
         require TLS (DANE)\n\
         odd.signed: no MTA-STS: there is no directory mta-sts\n\
         bare.signed: no route\n\
         bare.signed: no MX: the domain itself is called\n\
         bare.signed: bare.signed [{ip}] port 25, STARTTLS, address signed\n\
         bare.signed: bare.signed: {none}\n\
         bare.signed: bare.signed: a delivery now uses TLS if it is offered, and else goes without\n\
         bare.signed: no MTA-STS: there is no directory mta-sts\n\
         far.plain: no route\n\
         far.plain: MX unsigned: 10 mx.far.plain\n\
         far.plain: mx.far.plain [{ip}] port 25, STARTTLS, address unsigned\n\
         far.plain: mx.far.plain: {none}\n\
         far.plain: mx.far.plain: a delivery now uses TLS if it is offered, and else goes without\n\
         far.plain: no MTA-STS: there is no directory mta-sts\n"
    );
    assert_eq!(text, wanted);
    for (lines, domain, said) in [
        (
            "*:\n=mx1.good.signed:\n",
            "good.signed",
            "good.signed: mx1.good.signed: line 2 \"=mx1.good.signed\" applies: TLS is required; ",
        ),
        (
            "*:\n=mx1.good.signed:\n",
            "good.signed",
            "mx1.good.signed: line 2 stands above DANE: its TLSA records do not count\n",
        ),
        (
            "!good.signed:\n",
            "good.signed",
            "mx2.good.signed: a delivery now goes without TLS\n",
        ),
        (
            "bare.signed:dane\n",
            "bare.signed",
            "bare.signed: bare.signed is not called: tlsdestinations line 1 requires DANE, and it \
             has no signed TLSA records. (#4.7.5)\n",
        ),
        (
            "*:\n",
            "routed.example",
            "routed.example: smtproutes line 1 leads to mx1.good.signed port 465, TLS at once\n",
        ),
        (
            "==x:\n",
            "bare.signed",
            "TLS is not set up: tlsdestinations line 1 \"==x\"",
        ),
        (
            "*:\n",
            "nothing.signed",
            "nothing.signed: Sorry, I couldn't find any host named nothing.signed. (#5.1.2)\n",
        ),
    ] {
        let text = told(&remote(lines), &[domain]);
        assert!(text.contains(said), "{lines}{domain}: {text}");
    }
    assert!(servers.iter().all(|server| server.seen().is_empty()));
}

#[test]
fn it_says_where_nothing_is_validated() {
    need_root!();
    need!("nsd");
    let place = Place::new("preview-plain");
    let ip = fresh_ip();
    let lines = format!("far IN MX 10 mx.far\nmx.far IN A {ip}\n");
    let names = Names::serve(&place, &lines);
    let text = told(&Remote::new(&place).dns(names.ip), &["far.test"]);
    assert!(
        text.contains("far.test: MX unsigned: 10 mx.far.test\n"),
        "{text}"
    );
    let end = format!(
        "far.test: no DNSSEC, and so no DANE: {} returned no signature of the root's keys\n",
        names.ip
    );
    assert!(text.ends_with(&end), "{text}");
}

/// What a delivery refuses is not said to be sent.
#[test]
fn an_address_of_this_host_is_no_destination() {
    let place = Place::new("preview-own");
    for own in ["127.0.0.1", "[127.0.0.1]", "[::1]", "0.0.0.0"] {
        let remote = Remote::new(&place);
        let report = remote.send(own);
        assert!(
            report.starts_with('D') && report.contains("(#5.4.6)"),
            "{report}"
        );
        let text = told(&remote, &[own]);
        assert!(text.contains("(#5.4.6)"), "{text}");
        assert!(!text.contains("a delivery now"), "{text}");
        // On another port somebody else may listen.
        let text = told(&remote.policy("*:;26\n"), &[own]);
        assert!(
            text.contains("a delivery now uses TLS if it is offered"),
            "{text}"
        );
        place.write("control/tlsdestinations", "");
    }
}

#[test]
fn mail_to_a_domain_of_that_name_is_mail() {
    let place = Place::new("preview-mail");
    let running = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    let report = Remote::new(&place).control("smtproutes", &route).send("-P");
    assert!(report.starts_with("K127.0.0.1 accepted"), "{report}");
    assert_eq!(running.messages(), 1);
}
