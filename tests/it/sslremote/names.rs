//! Where mail goes: MX, addresses, routes, ourselves.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;

use super::dane_delivery::shows;
use super::dns::Names;
use super::fake::Fake;
use super::remote::{Remote, fresh_ip};
use super::reporting::lines;
use crate::harness::{Authority, Leaf, Place, need, need_root};

#[test]
fn exchangers_are_tried_in_their_order() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-mx");
    let (first, second, third) = (fresh_ip(), fresh_ip(), fresh_ip());
    let zone = format!(
        "d IN MX 30 three\nd IN MX 10 one\nd IN MX 20 two\none IN A {first}\ntwo IN A {second}\n\
         three IN A {third}\nbare IN A {third}\n\
         us IN MX 10 one\nus IN MX 20 here\nus IN MX 30 three\nhere IN A 127.0.0.1\n\
         best IN MX 10 here\nbest IN MX 20 three\n\
         null IN MX 0 .\nempty IN TXT x\nlost IN MX 10 nowhere\nlost2 IN MX 10 empty\n\
         far IN MX 10 mx.elsewhere.\n\
         half IN MX 10 mx.elsewhere.\nhalf IN MX 20 three\nalias IN CNAME d\n\
         six IN MX 10 v6\nv6 IN AAAA ::1\n"
    );
    let names = Names::serve(&place, &zone);
    let remote = Remote::new(&place).dns(names.ip);
    let three = Fake::plain().at(third);
    let sent = format!(
        "K{third} accepted message (no TLS: it was not offered).\nRemote host said: 250 ok\n"
    );
    assert_eq!(remote.send("d.test"), sent, "the others are down");
    assert_eq!(remote.send("bare.test"), sent, "no MX: the host itself");
    assert_eq!(remote.send("D.Test."), sent);
    assert_eq!(remote.send("half.test"), sent, "one name cannot be told");
    assert_eq!(remote.send("alias.test"), sent);
    let two = Fake::plain().greeting("421 later\r\n").at(second);
    assert_eq!(remote.send("d.test"), sent, "4xx: the next");
    assert_eq!(two.seen().len(), 1);
    assert!(
        !two.seen()[0]
            .commands
            .iter()
            .any(|line| line.contains("MAIL"))
    );
    let before = three.seen().len();
    let one = Fake::plain().at(first);
    assert!(remote.send("d.test").starts_with(&format!("K{first} ")));
    assert!(remote.send("us.test").starts_with(&format!("K{first} ")));
    assert_eq!((one.seen().len(), three.seen().len()), (2, before));
    for (host, said) in [
        (
            "best.test",
            "DSorry. Although I'm listed as a best-preference MX or A for that host,\nit isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n",
        ),
        (
            "nx.test",
            "DSorry, I couldn't find any host named nx.test. (#5.1.2)\n",
        ),
        (
            "empty.test",
            "DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n",
        ),
        (
            "lost.test",
            "DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n",
        ),
        (
            "lost2.test",
            "DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n",
        ),
        (
            "null.test",
            "DSorry, null.test accepts no mail: its MX is null. (#5.1.10)\n",
        ),
    ] {
        assert_eq!(remote.send(host), said);
    }
    for host in ["x.elsewhere", "far.test"] {
        let said = remote.send(host);
        assert!(said.starts_with("ZDNS lookup of "), "{said}");
        assert!(said.contains(" failed temporarily. (#4.4.3)\n"), "{said}");
    }
}

#[test]
fn equal_preferences_come_in_random_order() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-equal");
    let (first, second) = (fresh_ip(), fresh_ip());
    let zone = format!("d IN MX 10 one\nd IN MX 10 two\none IN A {first}\ntwo IN A {second}\n");
    let names = Names::serve(&place, &zone);
    let remote = Remote::new(&place).dns(names.ip);
    let (one, two) = (Fake::plain().at(first), Fake::plain().at(second));
    // 40 coins that all fall alike are one in 2^39.
    for _ in 0..40 {
        remote.send("d.test");
        if !one.seen().is_empty() && !two.seen().is_empty() {
            return;
        }
    }
    panic!("{} and {}", one.seen().len(), two.seen().len());
}

#[test]
fn no_name_server_is_a_temporary_failure() {
    let place = Place::new("remote-no-dns");
    let remote = Remote::new(&place).dns("127.0.0.1".parse().unwrap());
    let said = remote.send("d.test");
    assert!(
        said.starts_with("ZDNS lookup of d.test failed temporarily. (#4.4.3)\n"),
        "{said}"
    );
}

#[test]
fn addresses_in_brackets_and_routes_need_no_name_server() {
    let place = Place::new("remote-routes");
    let server = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let port = server.at.port();
    let six = Fake::plain().listen("[::1]:0".parse().unwrap());
    let remote = Remote::new(&place).control(
        "smtproutes",
        &format!(
            "a.example:[127.0.0.1]:{port}\n.b.example:[127.0.0.1];{port}\nsix.example:[::1]:{}\n\
             login.example:[127.0.0.1];{port}|user|password\nbad.example:[127.0.0.1]:x\n",
            six.at.port()
        ),
    );
    assert!(remote.send("a.example").starts_with("K127.0.0.1 "));
    assert!(remote.send("x.b.example").starts_with("K127.0.0.1 "));
    assert!(remote.send("six.example").starts_with("K::1 "));
    assert_eq!(server.messages(), 2);
    assert!(remote.send("bad.example").starts_with(
        "ZUnable to read control files. (#4.3.0)\nReason: smtproutes line 5 is wrong"
    ));
    let said = remote.send("login.example");
    let wanted = "; the login of smtproutes line 4 requires TLS. (#4.7.5)";
    assert!(said.starts_with('Z') && said.contains(wanted), "{said}");
    assert_eq!(server.messages(), 2);
}

#[test]
fn the_ports_of_routes_count_before_those_of_rules() {
    let place = Place::new("remote-ports");
    let server = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let port = server.at.port();
    for (route, rule) in [
        (format!(":[127.0.0.1]:{port}\n"), "*:||;1\n".to_owned()),
        (":[127.0.0.1]\n".to_owned(), format!("*:||;{port}\n")),
        (":[127.0.0.1]\n".to_owned(), format!("*:||:{port}\n")),
    ] {
        let remote = Remote::new(&place)
            .control("smtproutes", &route)
            .policy(&rule);
        assert!(remote.send("a.example").starts_with("K127.0.0.1 "));
    }
}

#[test]
fn names_are_bytes_for_dns() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-bytes-names");
    let ip = fresh_ip();
    let odd = [
        "dom_ain",
        "mail+x",
        "-lead",
        "trail-",
        "xn--a",
        "xn--bcher-kva",
        "a!b",
        "--",
        "sub_a.b",
    ];
    let mut zone: String = odd.map(|name| [name, " IN MX 10 mx\n"].concat()).concat();
    for host in ["mx", "a_b", "re_lay", "*.wild"] {
        let _ = writeln!(zone, "{host} IN A {ip}");
    }
    zone += "d IN MX 10 a_b\nlat\\233 IN MX 10 mx\n";
    let names = Names::serve(&place, &zone);
    let server = Fake::plain().at(ip);
    let remote = Remote::new(&place).dns(names.ip);
    for name in odd.iter().chain(&["d", "DOM_AIN", "b\u{fc}cher"]) {
        let report = remote.send_to(format!("{name}.test").as_bytes());
        assert!(report.starts_with(&format!("K{ip} ")), "{name}: {report}");
    }
    // What IDNA has nothing for goes as it is.
    let report = remote.send_to(b"lat\xe9.test");
    assert!(report.starts_with(&format!("K{ip} ")), "{report}");
    let long = format!("{}.wild", "x".repeat(63));
    let report = remote.send(&format!("{long}.test"));
    assert!(report.starts_with(&format!("K{ip} ")), "{report}");
    let before = server.messages();
    let relayed = remote.control("smtproutes", ":re_lay.test\n");
    let report = relayed.send("anything.example");
    assert!(report.starts_with(&format!("K{ip} ")), "{report}");
    assert_eq!(server.messages(), before + 1);
}

#[test]
fn names_that_cannot_exist_bounce_at_once() {
    let place = Place::new("remote-no-names");
    // Nobody is asked: there is no name server there.
    let remote = Remote::new(&place).dns("127.0.0.1".parse().unwrap());
    let (long, whole) = ("x".repeat(64), "ab.".repeat(90));
    for host in [
        "t..test",
        ".test",
        "test..",
        "",
        ".",
        &format!("{long}.test"),
        &format!("{whole}test"),
    ] {
        let shown = host.strip_suffix('.').unwrap_or(host);
        let said = match shown.len() {
            0..=255 => shown.to_owned(),
            _ => format!("{}...", &shown[..255]),
        };
        let said = format!("DSorry, I couldn't find any host named {said}. (#5.1.2)\n");
        assert_eq!(remote.send(host), said, "{host}");
    }
    // A relay that cannot exist is the postmaster's to mend.
    let remote = remote.control("smtproutes", ":re..lay\n");
    let report = remote.send("a.example");
    let said = "ZUnable to read control files. (#4.3.0)\nReason: smtproutes line 1 is wrong: the relay is no host name: a label is empty or too long\n";
    assert_eq!(report, said);
}

/// Nobody but the postmaster sees a name as it is written.
#[test]
fn a_relay_in_any_script_leaves_in_ascii() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-relay-idna");
    fs::create_dir_all(place.path("tlsrpt")).unwrap();
    let (ip, ascii) = (fresh_ip(), "xn--mnchen-3ya.test");
    let names = Names::serve(&place, &format!("xn--mnchen-3ya IN A {ip}\n"));
    let server = shows(&Leaf::new("x").dns(ascii).issue()).at(ip);
    let authority = place.write("ca.pem", Authority::shared_root().pem());
    for (route, policy) in [
        (
            ":m\u{fc}nchen.test",
            format!("~m\u{fc}nchen.test:{authority}\n"),
        ),
        (":M\u{dc}NCHEN.Test.", format!("={ascii}:{authority}\n")),
        (":m\u{fc}nchen.test", format!("~*:{authority}\n")),
        (
            ":m\u{fc}nchen.test",
            format!("~{ascii}:{authority}|||| m\u{fc}nchen.test\n"),
        ),
    ] {
        let sent = Remote::new(&place)
            .dns(names.ip)
            .control("smtproutes", &format!("{route}\n"))
            .policy(&policy)
            .send("a.example");
        let verified = format!("verified {ascii}");
        assert!(
            sent.starts_with('K') && sent.contains(&verified),
            "{policy}: {sent}"
        );
        let seen = server.seen().pop().unwrap();
        assert_eq!(seen.wanted.as_deref(), Some(ascii), "{route}");
    }
    for line in lines(&place) {
        for key in ["policy-domain", "receiving-mx-hostname"] {
            assert_eq!(line[key].as_str(), Some(ascii), "{line}");
        }
    }
}

#[test]
fn an_exchanger_that_is_an_address_is_called() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-mx-address");
    let ip = fresh_ip();
    let zone = format!(
        "d IN MX 10 {ip}.\ne IN MX 10 nowhere\ne IN MX 20 {ip}.\n\
         us IN MX 10 127.0.0.1.\nus IN MX 20 {ip}.\n"
    );
    let names = Names::serve(&place, &zone);
    let remote = Remote::new(&place).dns(names.ip);
    let server = Fake::plain().at(ip);
    for host in ["d.test", "e.test", &ip.to_string(), &format!("[{ip}]")] {
        let report = remote.send(host);
        assert!(report.starts_with(&format!("K{ip} ")), "{host}: {report}");
    }
    assert_eq!(server.messages(), 4);
    assert_eq!(remote.send("us.test"), OURSELVES);
}

const OURSELVES: &str = "DSorry. Although I'm listed as a best-preference MX or A for that host,\nit isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n";

#[test]
fn mail_for_our_own_addresses_comes_back_at_once() {
    let place = Place::new("remote-ourselves");
    let remote = Remote::new(&place).dns("127.0.0.1".parse().unwrap());
    let mut hosts: Vec<String> = [
        "[127.0.0.1]",
        "127.0.0.1",
        "[0.0.0.0]",
        "[::1]",
        "[IPv6:::1]",
        "[ipv6:::]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "LocalHost.",
        "mx.localhost",
    ]
    .map(str::to_owned)
    .to_vec();
    let own = ucspi_tls::internals::socket::own_addresses().unwrap();
    hosts.extend(own.iter().map(|ip| format!("[{ip}]")));
    for host in hosts {
        assert_eq!(remote.send(&host), OURSELVES, "{host}");
    }
}
