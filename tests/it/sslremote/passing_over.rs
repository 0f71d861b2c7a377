//! Two exchangers, of which the better one fails: when the other is tried, and
//! when the first is tried once more without TLS.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use openssl::ssl::SslContext;

use super::dns::Names;
use super::fake::{Fake, Fault, Running};
use super::remote::{Remote, fresh_ip};
use crate::harness::{Identity, Leaf, Place, need, need_root, peer};

fn context(identity: &Identity) -> SslContext {
    peer::context(identity, |_| ())
}

/// Servers that fail in TLS, with the reason that a report gives.
fn failures() -> Vec<(Fake, &'static str)> {
    let good = || Fake::tls(context(&Leaf::new("x").dns("one.test").issue()));
    let no_tls = Fake {
        context: None,
        ..good()
    };
    vec![
        (Fake::plain(), "it does not offer STARTTLS"),
        (good().reply("STARTTLS", "454 x\r\n"), "it refused STARTTLS"),
        (good().reply("STARTTLS", "554 x\r\n"), "it refused STARTTLS"),
        (good().reply("STARTTLS", "250 x\r\n"), "it refused STARTTLS"),
        (
            good().reply("STARTTLS", "220 x\r\n250 y\r\n"),
            "in the clear that were not asked for",
        ),
        (
            good().reply("STARTTLS", "x\r\n"),
            "STARTTLS failed: server's reply",
        ),
        (
            good().reply("STARTTLS", ""),
            "STARTTLS failed: server ended",
        ),
        (
            good().fault("STARTTLS", Fault::Silence),
            "STARTTLS failed: timed out",
        ),
        (no_tls, "the handshake failed"),
        (
            good().fault("HANDSHAKE", Fault::Silence),
            "the handshake failed",
        ),
        (
            Fake::tls(context(&Leaf::new("x").dns("x.example").issue())),
            "its certificate names another host",
        ),
        (
            Fake::tls(context(&Leaf::new("x").dns("one.test").self_signed())),
            "its certificate did not verify",
        ),
    ]
}

/// Servers under test, each the best exchanger of two domains: `dN.test` has
/// `two.test` besides, `eN.test` has it alone.
struct Pairs<'a, T> {
    /// Number, server, what it is tested for, address.
    all: Vec<(usize, Running, T, IpAddr)>,
    /// Asks for these names.
    remote: Remote<'a>,
    _names: Names,
}

impl<'a, T> Pairs<'a, T> {
    fn serve(place: &'a Place, two: IpAddr, servers: Vec<(Fake, T)>) -> Pairs<'a, T> {
        let mut zone = vec![format!("two IN A {two}\n")];
        let mut all = Vec::new();
        for (number, (fake, what)) in servers.into_iter().enumerate() {
            let ip = fresh_ip();
            zone.push(format!(
                "d{number} IN MX 10 one{number}\nd{number} IN MX 20 two\n\
                 e{number} IN MX 10 one{number}\none{number} IN A {ip}\n"
            ));
            all.push((number, fake.at(ip), what, ip));
        }
        let names = Names::serve(place, &zone.concat());
        let remote = Remote::new(place)
            .dns(names.ip)
            .control("timeoutremote", "2\n")
            .control("timeoutconnect", "2\n");
        Pairs {
            all,
            remote,
            _names: names,
        }
    }
}

#[test]
fn where_tls_is_required_and_fails_the_next_server_is_tried() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-next");
    let (best, good) = (fresh_ip(), Leaf::new("x").dns("two.test").issue());
    let two = Fake::tls(context(&good)).at(best);
    let Pairs {
        all,
        remote,
        _names,
    } = Pairs::serve(&place, best, failures());
    let remote = remote.policy("~*:CA\n");
    for (number, one, why, ip) in &all {
        let before = two.messages();
        let report = remote.send(&format!("d{number}.test"));
        let said = format!(
            "K{best} accepted message (TLSv1.3 TLS_AES_256_GCM_SHA384 \
             verified two.test (name from DNS)).\n"
        );
        assert!(report.starts_with(&said), "{why}: {report}");
        assert_eq!((one.seen().len(), two.messages()), (1, before + 1), "{why}");
        let report = remote.send(&format!("e{number}.test"));
        let said = format!("ZConnected to {ip} (one{number}.test) but ");
        assert!(report.starts_with(&said), "{report}");
        assert!(
            report.contains(why) && report.contains("requires TLS. (#4.7.5)\n"),
            "{why}: {report}"
        );
        for seen in one.seen() {
            assert!(
                !seen.commands.iter().any(|line| line.contains("MAIL")),
                "{why}"
            );
        }
    }
}

#[test]
fn where_tls_is_only_offered_its_failure_costs_no_mail_and_doubles_none() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-again");
    let (two_ip, good) = (fresh_ip(), Leaf::new("x").dns("two.test").issue());
    let two = Fake::tls(context(&good)).at(two_ip);
    let Pairs {
        all,
        remote,
        _names,
    } = Pairs::serve(&place, two_ip, failures());
    let remote = remote.policy("*:\n");
    for (number, one, why, ip) in &all {
        // Without an offer or with a refusal the session goes on; what fails
        // later ends it, and the next server is the better choice. A check of
        // the certificate is none here.
        let stays = matches!(*number, 0..=2);
        let unchecked = why.starts_with("its certificate");
        let alone = remote.send(&format!("e{number}.test"));
        let first = format!("K{ip} accepted message (");
        assert!(alone.starts_with(&first), "{why}: {alone}");
        let tls = alone.contains("TLSv1.3");
        assert_eq!(tls, unchecked, "{why}: {alone}");
        assert_eq!(
            alone.contains("which failed"),
            !stays && !unchecked,
            "{why}: {alone}"
        );
        let connections = if stays || unchecked { 1 } else { 2 };
        assert_eq!(
            (one.seen().len(), one.messages()),
            (connections, 1),
            "{why}"
        );
        let before = two.messages();
        let both = remote.send(&format!("d{number}.test"));
        let wanted = if stays || unchecked { ip } else { &two_ip };
        assert!(
            both.starts_with(&format!("K{wanted} accepted")),
            "{why}: {both}"
        );
        let at_two = usize::from(wanted == &two_ip);
        assert_eq!(two.messages(), before + at_two, "{why}");
        assert_eq!(one.messages(), 2 - at_two, "{why}");
    }
}

#[test]
fn greetings_and_silence_decide_whether_the_next_server_is_tried() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-greetings");
    let two_ip = fresh_ip();
    let two = Fake::plain().at(two_ip);
    let cases = vec![
        (Fake::plain().greeting("421 x\r\n"), true),
        (Fake::plain().greeting("450 x\r\n"), true),
        (Fake::plain().greeting("554 x\r\n"), false),
        (Fake::plain().greeting(""), true),
        (Fake::plain().fault("GREETING", Fault::Silence), true),
        (Fake::plain().reply("MAIL", "451 x\r\n"), false),
        (Fake::plain().reply("DOT", ""), false),
    ];
    let Pairs {
        all,
        remote,
        _names,
    } = Pairs::serve(&place, two_ip, cases);
    for (number, one, next, _) in &all {
        let before = two.messages();
        let report = remote.send(&format!("d{number}.test"));
        assert_eq!(
            report.starts_with(&format!("K{two_ip} ")),
            *next,
            "{number}: {report}"
        );
        assert_eq!(report.starts_with('Z'), !next, "{number}: {report}");
        assert_eq!(two.messages(), before + usize::from(*next), "{number}");
        assert_eq!(one.seen().len(), 1, "{number}");
    }
}
