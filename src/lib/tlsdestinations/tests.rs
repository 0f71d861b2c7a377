//! The table of tlsdestinations(5), row against row, and its fields.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::*;

fn rule(text: &str, host: &str, sender: Option<&str>) -> Result<Rule, Unusable> {
    Destinations::from_text(text).look_up(&Destination::itself(host), sender)
}

/// The line that decides for a host.
fn line(text: &str, host: &str) -> Option<usize> {
    rule(text, host, None).expect("sound").line
}

/// Every key that `mx.a.example` meets, in the order of the table.
const ORDER: [&str; 21] = [
    "!mx.a.example",
    "!.a.example",
    "!.example",
    "!*",
    "%mx.a.example",
    "=mx.a.example",
    "~mx.a.example",
    "~.a.example",
    "~.example",
    "mx.a.example",
    ".a.example",
    ".example",
    "-mx.a.example",
    "-.a.example",
    "-.example",
    "=*",
    "~*",
    "+*",
    "-*",
    "*",
    "-",
];

fn with_value(key: &str) -> String {
    let value = if key.starts_with('%') {
        "=0123456789abcdef0123456789abcdef01234567"
    } else {
        ""
    };
    format!("{key}:{value}\n")
}

#[test]
fn of_two_keys_the_earlier_row_decides_wherever_it_stands() {
    for (rank, first) in ORDER.iter().enumerate() {
        for second in &ORDER[rank + 1..] {
            let (first, second) = (with_value(first), with_value(second));
            for (text, wanted) in [
                (format!("{first}{second}"), 1),
                (format!("{second}{first}"), 2),
            ] {
                for host in ["mx.a.example", "MX.A.Example."] {
                    assert_eq!(line(&text, host), Some(wanted), "{text}");
                }
                let compiled = compiled(&text);
                let found = compiled
                    .look_up(&Destination::itself("mx.a.example"), None)
                    .expect("sound");
                assert_eq!(found.line, Some(wanted), "compiled {text}");
            }
        }
    }
}

/// A new folder, to be removed.
fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("tlsdestinations-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir(&folder).expect("a folder");
    folder
}

/// A database of these records, through a file that is gone again.
fn database<'a>(
    records: impl IntoIterator<Item = (&'a [u8], &'a [u8]), IntoIter: Clone>,
) -> Destinations {
    let folder = folder();
    let (cdb, temporary) = (folder.join("cdb"), folder.join("tmp"));
    crate::rulesdb::replace(&cdb, &temporary, records).expect("written");
    let database = Database::open(&cdb).expect("sound");
    fs::remove_dir_all(&folder).expect("removed");
    Destinations::from_database(database)
}

/// The compiled form.
fn compiled(text: &str) -> Destinations {
    let records = compile(text.as_bytes()).expect("compiles");
    database(records.iter().map(|(key, data)| (&**key, &**data)))
}

#[test]
fn a_damaged_record_is_an_error_for_those_whom_it_decides() {
    let records = [("=a.example", "no number"), ("*", "2:\n")];
    let rules = database(records.map(|(key, data)| (key.as_bytes(), data.as_bytes())));
    let fail = rules
        .look_up(&Destination::itself("a.example"), None)
        .expect_err("damaged");
    let said = "tlsdestinations.cdb \"=a.example\": the file is damaged";
    assert_eq!(fail.to_string(), said);
    let other = rules
        .look_up(&Destination::itself("b.example"), None)
        .expect("sound");
    assert_eq!(other.line, Some(2));
}

#[test]
fn a_row_says_what_is_asked() {
    let required = Tls::Required;
    for (key, tls, check) in [
        ("!mx.a.example", Tls::Never, Check::Nothing),
        ("!*", Tls::Never, Check::Nothing),
        ("%mx.a.example", required, Check::Pin),
        ("=mx.a.example", required, Check::ExactName),
        ("~mx.a.example", required, Check::Name),
        ("~.example", required, Check::Name),
        ("mx.a.example", required, Check::Certificate),
        (".example", required, Check::Certificate),
        ("-mx.a.example", required, Check::Nothing),
        ("=*", required, Check::ExactName),
        ("~*", required, Check::Name),
        ("+*", required, Check::Certificate),
        ("-*", required, Check::Nothing),
        ("*", Tls::Offered, Check::Nothing),
        ("-", Tls::Offered, Check::Nothing),
    ] {
        let found = rule(&with_value(key), "mx.a.example", None).expect("sound");
        assert_eq!(found.line, Some(1), "{key}");
        assert_eq!((found.tls(), found.check()), (tls, check), "{key}");
        assert_eq!(found.allows_anonymous(), key.starts_with('-'), "{key}");
    }
    for key in ["mx.a.example", "+*", "*"] {
        let found = rule(&format!("{key}:/ca.pem"), "mx.a.example", None).expect("sound");
        assert_eq!(found.check(), Check::Chain, "{key}");
    }
    let none = rule("", "mx.a.example", None).expect("sound");
    assert_eq!(none, Rule::none());
    assert_eq!((none.tls(), none.check()), (Tls::Offered, Check::Nothing));
}

#[test]
fn a_key_stands_for_its_own_and_no_other() {
    assert_eq!(line("-:\n=*:\n", ""), Some(2), "no host's key");
    for (key, host, meets) in [
        ("a.example", "mx.a.example", false),
        (".a.example", "a.example", false),
        (".a.example", "b.mx.a.example", true),
        (".a.example", "mx.ba.example", false),
        ("=a.example", "mx.a.example", false),
        ("~a.example", "mx.a.example", false),
        ("~.a.example", "mx.a.example", true),
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "[192.0.2.1]", true),
        ("[192.0.2.1]", "192.0.2.1", true),
        ("=[2001:db8::1]", "[IPv6:2001:db8::1]", true),
        ("=[IPv6:2001:DB8::1]", "[IPv6:2001:db8::1]", true),
        ("~[IPv6:2001:db8::1]", "[2001:db8::1]", true),
        ("[2001:db8::1]", "2001:db8::1", true),
        ("=[2001:DB8:0:0::1]", "[2001:db8::1]", true),
        ("dom_ain.example", "dom_ain.example", true),
        ("=b\u{fc}cher.example", "B\u{dc}CHER.example", true),
        ("=b\u{fc}cher.example", "xn--bcher-kva.example", true),
        ("~.xn--BCHER-kva.example.", "mx.b\u{fc}cher.example", true),
    ] {
        let found = line(&with_value(key), host);
        assert_eq!(found.is_some(), meets, "{key} {host}");
    }
}

fn exchanger<'a>(domain: &'a str, host: &'a str, signed: bool) -> Destination<'a> {
    let way = Way::Exchanger { host, signed };
    Destination { domain, way }
}

fn relay<'a>(domain: &'a str, host: &'a str, login: bool) -> Destination<'a> {
    let way = Way::Relay { host, login };
    Destination { domain, way }
}

#[test]
fn rows_for_a_host_go_by_relay_domain_and_exchanger_in_turn() {
    let domain = "a.example";
    for (text, to, wanted, by) in [
        // The domain's last row comes before the exchanger's first.
        (
            "=mx.b.example:\n-a.example:\n",
            exchanger(domain, "mx.b.example", false),
            2,
            FoundBy::Domain,
        ),
        (
            "!mx.b.example:\n.example:\n",
            exchanger(domain, "mx.b.example", false),
            2,
            FoundBy::Domain,
        ),
        (
            "=*:\n-.b.test:\n",
            exchanger(domain, "mx.b.test", false),
            2,
            FoundBy::Exchanger,
        ),
        (
            "*:\n=*:\n",
            exchanger(domain, "mx.b.test", false),
            2,
            FoundBy::Everybody,
        ),
        (
            "=a.example:\n-r.test:\n",
            relay(domain, "r.test", false),
            2,
            FoundBy::Relay,
        ),
        (
            "!a.example:\n=*:\n",
            relay(domain, "[192.0.2.1]", true),
            1,
            FoundBy::Domain,
        ),
        (
            "%a.example:=0123456789abcdef0123456789abcdef01234567\n*:\n",
            relay(domain, "r.test", false),
            1,
            FoundBy::Domain,
        ),
        (
            "=[192.0.2.1]:\n!a.example:\n",
            relay(domain, "192.0.2.1", false),
            1,
            FoundBy::Relay,
        ),
        // Everybody's row 1 is met with the first name.
        (
            "=a.example:\n!*:\n",
            relay(domain, "r.test", false),
            2,
            FoundBy::Relay,
        ),
        (
            "=mx.b.test:\n!*:\n",
            exchanger(domain, "mx.b.test", false),
            2,
            FoundBy::Domain,
        ),
    ] {
        for rules in [Destinations::from_text(text), compiled(text)] {
            let found = rules.look_up(&to, None).expect("sound");
            assert_eq!((found.line, found.by), (Some(wanted), by), "{text}{to:?}");
        }
    }
}

#[test]
fn the_names_that_count_are_the_row_s() {
    let (domain, host) = ("a.example", "mx.b.test");
    let own = "mx1.A.example";
    let forged = "evila.example";
    // `!`: the name comes from DNS.
    for (text, to, wanted) in [
        ("=a.example:", exchanger(domain, host, false), "a.example"),
        ("=a.example:", relay(domain, "r.test", false), "a.example"),
        ("=mx.b.test:", exchanger(domain, host, false), "!mx.b.test"),
        ("=mx.b.test:", exchanger(domain, host, true), "mx.b.test"),
        ("~a.example:", exchanger(domain, host, false), "a.example"),
        ("~.example:", exchanger(domain, host, false), "a.example"),
        ("~a.example:", exchanger(domain, forged, false), "a.example"),
        (
            "~a.example:",
            exchanger(domain, host, true),
            "mx.b.test a.example",
        ),
        (
            "~a.example:/ca",
            exchanger(domain, host, false),
            "mx.b.test a.example",
        ),
        (
            "~a.example:",
            exchanger(domain, own, false),
            "mx1.a.example a.example",
        ),
        (
            "~a.example:",
            exchanger(domain, domain, false),
            "a.example a.example",
        ),
        (
            "~mx.b.test:",
            exchanger(domain, host, false),
            "!mx.b.test a.example",
        ),
        (
            "~*:",
            exchanger(domain, host, false),
            "!mx.b.test a.example",
        ),
        (
            "~*:",
            exchanger(domain, own, false),
            "!mx1.a.example a.example",
        ),
        ("~*:", exchanger(domain, host, true), "mx.b.test a.example"),
        (
            "=*:",
            exchanger(domain, host, false),
            "!mx.b.test a.example",
        ),
        (
            "~a.example:",
            relay(domain, "r.test", false),
            "r.test a.example",
        ),
        ("~a.example:", relay(domain, "r.test", true), "r.test"),
        ("~r.test:", relay(domain, "r.test", false), "r.test"),
        ("~*:", relay(domain, "r.test", false), "r.test"),
        ("~a.example:", Destination::itself(domain), "a.example"),
        (
            "~a.example:||||X.example, *.y.example,.z.example.",
            exchanger(domain, host, false),
            "x.example .y.example .z.example",
        ),
        (
            "=a.example:||||x.example",
            relay(domain, "r.test", true),
            "x.example",
        ),
        (
            "a.example:/ca||||x.example",
            exchanger(domain, host, false),
            "x.example",
        ),
    ] {
        let found = Destinations::from_text(text)
            .look_up(&to, None)
            .expect("sound");
        let names: Vec<String> = found
            .names(&to)
            .iter()
            .map(|one| format!("{}{}", if one.from_dns { "!" } else { "" }, one.name))
            .collect();
        assert_eq!(names.join(" "), wanted, "{text} {to:?}");
        let exact = found.names(&to).iter().all(|one| !one.wildcards);
        assert_eq!(exact, text.starts_with('='), "{text}");
        let uncounted = wanted == "a.example" && text.starts_with('~');
        let uncounted = uncounted && to.way != Way::Itself;
        assert_eq!(found.uncounted(&to).is_some(), uncounted, "{text} {to:?}");
    }
    let found = rule("a.example:/ca||||x.example", domain, None).expect("sound");
    assert_eq!(found.check(), Check::Name, "names are never for nothing");
}

#[test]
fn fields_may_be_empty_or_left_out() {
    type Fields<'a> = (&'a str, &'a str, Option<u32>, Option<(u16, TlsMode)>);
    for (value, (anchors, ciphers, depth, port)) in [
        ("", ("", "", None, None)),
        ("/ca.pem", ("/ca.pem", "", None, None)),
        ("/ca/", ("/ca/", "", None, None)),
        (
            "/ca.pem|HIGH:!MD5|3;26|",
            (
                "/ca.pem",
                "HIGH:!MD5",
                Some(3),
                Some((26, TlsMode::StartTls)),
            ),
        ),
        ("|HIGH", ("", "HIGH", None, None)),
        ("||2", ("", "", Some(2), None)),
        ("||;465", ("", "", None, Some((465, TlsMode::Implicit)))),
        (";465", ("", "", None, Some((465, TlsMode::Implicit)))),
        (";s4465", ("", "", None, Some((4465, TlsMode::Implicit)))),
        (";6209", ("", "", None, Some((6209, TlsMode::Qmtps)))),
        (
            "/ca.pem;25",
            ("/ca.pem", "", None, Some((25, TlsMode::StartTls))),
        ),
        ("||:35", ("", "", None, Some((35, TlsMode::StartTls)))),
        (":35", ("", "", None, Some((35, TlsMode::StartTls)))),
        (
            "/etc/ssl/ca||:26|my.example",
            ("/etc/ssl/ca", "", None, Some((26, TlsMode::StartTls))),
        ),
        (
            "/etc/ssl/dir/||3:465",
            ("/etc/ssl/dir/", "", Some(3), Some((465, TlsMode::Implicit))),
        ),
        ("||:s4465", ("", "", None, Some((4465, TlsMode::Implicit)))),
        (
            ";s4465|HIGH",
            ("", "HIGH", None, Some((4465, TlsMode::Implicit))),
        ),
        (
            "/ca.pem|HIGH:!MD5|2|my.example|x.example",
            ("/ca.pem", "HIGH:!MD5", Some(2), None),
        ),
        (
            " /ca.pem | | 4 ; 25 ",
            ("/ca.pem", "", Some(4), Some((25, TlsMode::StartTls))),
        ),
        // With other fields the port stands behind the depth.
        ("/ca;25|HIGH", ("/ca;25", "HIGH", None, None)),
    ] as [(&str, Fields<'_>); 20]
    {
        let parsed = Value::parse(value, RuleForm::Exact).expect(value);
        let written = match &parsed.anchors {
            Some(Anchors::File(path)) => path.clone(),
            Some(Anchors::Directory(path)) => format!("{path}/"),
            None => String::new(),
        };
        assert_eq!(written, anchors, "{value}");
        assert_eq!(parsed.ciphers.unwrap_or_default(), ciphers, "{value}");
        assert_eq!(parsed.depth, depth, "{value}");
        assert_eq!(
            parsed.port.map(|port| (port.number, port.mode)),
            port,
            "{value}"
        );
    }
}

#[test]
fn fingerprints_have_their_length() {
    let hex = |bytes: usize| "aB".repeat(bytes);
    for (bytes, good) in [
        (20, true),
        (28, true),
        (32, true),
        (64, true),
        (16, false),
        (48, false),
        (0, false),
    ] {
        let value = format!("={}", hex(bytes));
        let parsed = Value::parse(&value, RuleForm::Pinned);
        assert_eq!(parsed.is_ok(), good, "{bytes}");
    }
    let several = format!("=AB:{}, ={},spki:{}", hex(19), hex(32), hex(32));
    let parsed = Value::parse(&several, RuleForm::Pinned).expect("three");
    assert_eq!(
        parsed.pins,
        [
            Pin::Certificate(vec![0xab; 20]),
            Pin::Certificate(vec![0xab; 32]),
            Pin::Key([0xab; 32])
        ]
    );
    for (value, wrong) in [
        ("/ca.pem", Wrong::NoFingerprint),
        ("", Wrong::NoFingerprint),
        ("=xyz", Wrong::Fingerprint),
        ("=abc", Wrong::Fingerprint),
        ("spki:aabb", Wrong::Fingerprint),
    ] {
        assert_eq!(Value::parse(value, RuleForm::Pinned), Err(wrong), "{value}");
    }
    // s/qmail takes them under other keys too.
    let text = format!("mx.example:={}", hex(20));
    assert_eq!(
        rule(&text, "mx.example", None).expect("sound").check(),
        Check::Pin
    );
}

#[test]
fn a_rule_for_a_sender_passes_others_by() {
    let text = "=mx.example:/a.pem|||one.example\n=mx.example:/b.pem|||Two.Example\n~.example:\n";
    for (sender, wanted) in [
        (Some("one.example"), 1),
        (Some("two.example"), 2),
        (Some("x.one.example"), 3),
        (None, 3),
    ] {
        for rules in [Destinations::from_text(text), compiled(text)] {
            let found = rules
                .look_up(&Destination::itself("mx.example"), sender)
                .expect("sound");
            assert_eq!(found.line, Some(wanted), "{sender:?}");
        }
    }
    assert_eq!(
        sender_domain("a@b@One.Example").as_deref(),
        Some("one.example")
    );
    assert_eq!(sender_domain(""), None);
    assert_eq!(sender_domain("#@[]").as_deref(), Some("[]"));
}

#[test]
fn dane_stands_in_the_ca_s_place_where_tls_is_required() {
    for key in [
        "=a.example",
        "~a.example",
        "~.example",
        "a.example",
        "-a.example",
        "=*",
        "~*",
        "+*",
        "-*",
    ] {
        let found = rule(&format!("{key}:Dane||2\n"), "a.example", None).expect(key);
        assert!(found.value.dane && found.weighs_records(), "{key}");
        assert_eq!(found.check(), Check::Records, "{key}");
        assert_eq!(found.tls(), Tls::Required, "{key}");
        assert!(!found.allows_anonymous(), "{key}");
    }
    // Rows 1 to 6 stand above what is published, the others below.
    for (key, weighs) in [
        ("!*", false),
        ("!a.example", false),
        ("a.example", false),
        ("-.example", false),
        ("=*", true),
        ("-*", true),
        ("*", true),
        ("-", true),
    ] {
        let found = rule(&format!("{key}:\n"), "a.example", None).expect(key);
        assert_eq!(found.weighs_records(), weighs, "{key}");
    }
    assert!(Rule::none().weighs_records());
}

#[test]
fn a_wrong_line_is_an_error_for_those_whom_it_decides() {
    for (text, host, wrong) in [
        ("=a.example:|||me@b.example", "a.example", Wrong::Sender),
        ("=a.example:|||*.b.example", "a.example", Wrong::Sender),
        ("=a.example:||x", "a.example", Wrong::Depth),
        ("=a.example:||101", "a.example", Wrong::Depth),
        ("=a.example:;0", "a.example", Wrong::Port),
        ("=a.example:;s", "a.example", Wrong::Port),
        ("=a.example:a|b||||f", "a.example", Wrong::Fields),
        ("=a.example:||||x y", "a.example", Wrong::Names),
        ("=a.example:||||x,,y", "a.example", Wrong::Names),
        ("=a.example:||||*x.example", "a.example", Wrong::Names),
        ("=a.example:||||\u{fe0f}", "a.example", Wrong::Names),
        (
            "a.example:||||x.example",
            "a.example",
            Wrong::NamesForNothing,
        ),
        (
            "-a.example:/ca||||x.example",
            "a.example",
            Wrong::NamesForNothing,
        ),
        ("=a.example:;1||;2", "a.example", Wrong::Port),
        ("!a.example:dane", "a.example", Wrong::Dane),
        ("*:DANE||2", "a.example", Wrong::Dane),
        ("-:dane", "a.example", Wrong::Dane),
        ("%a.example:dane", "a.example", Wrong::NoFingerprint),
        ("%a.example:=abcd", "a.example", Wrong::Fingerprint),
        ("# c\n\n=a.example\n*:", "a.example", Wrong::NoColon),
        ("*:\n:x\n", "a.example", Wrong::EmptyKey),
        ("-a.example:\n:x\n", "a.example", Wrong::EmptyKey),
        (":*", "a.example", Wrong::EmptyKey),
    ] {
        let fail = rule(text, host, None).expect_err(text);
        assert_eq!(fail.wrong, wrong, "{text}");
        assert!(
            fail.to_string().starts_with("tlsdestinations line "),
            "{fail}"
        );
        assert!(compile(text.as_bytes()).is_err(), "{text}");
    }
    let bytes = Destinations::from_text(b"=a.example:\xff\n");
    let fail = bytes
        .look_up(&Destination::itself("a.example"), None)
        .expect_err("no text");
    assert_eq!(fail.wrong, Wrong::NotText);
    // Those whom it does not decide go on.
    let text = "=a.example:||x\nb.example:\n=b.example:||x|other.example\n:\n";
    assert_eq!(line(text, "b.example"), Some(2));
    let bad = compile(b"a.example:\n=b.example:||x\n*:\n@x:\n").expect_err("refused");
    let said: Vec<String> = bad.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "every wrong line: {said:?}");
    assert!(said[0].starts_with("line 2 \"=b.example\": "), "{said:?}");
    assert!(said[1].starts_with("line 4 \"@x\": "), "{said:?}");
}

/// Keys that are none of the forms.
const NO_KEYS: [&str; 33] = [
    "=[IPv6:192.0.2.1]",
    "*.x.example",
    "==a.example",
    "~=a.example",
    "--a.example",
    "=-a.example",
    "@a.example",
    "b@a.example",
    "[a.example]",
    "[2001:db8::x]",
    "a.example b.example",
    "= a.example",
    "a\u{feff}.example",
    "a\u{200b}.example",
    "a..example",
    "a.example..",
    "..example",
    "=",
    "~.",
    "=.a.example",
    "%.a.example",
    "%*",
    "+a.example",
    "a.*",
    "192.0.2.300",
    ".0.2.1",
    "a/b.example",
    // What IDNA makes of these is none either.
    "=\u{fe0f}",
    "=a.\u{fe0f}.example",
    "=\u{ff0d}a.example",
    "~\u{ff05}a.example",
    "=\u{ff0a}.example",
    "=\u{3002}a.example",
];

#[test]
fn a_key_that_is_none_defers_those_whom_no_line_before_it_decides() {
    for key in NO_KEYS {
        let value = if key.starts_with('%') {
            "=0123456789abcdef0123456789abcdef01234567"
        } else {
            ""
        };
        let text = format!("=b.example:\n-c.example:\n{key}:{value}\n=d.example:\n*:\n");
        // Nobody's line, and those that stand behind it, whatever their row.
        for host in ["a.example", "mx.b.example", "192.0.2.1", "", "d.example"] {
            let fail = rule(&text, host, None).expect_err(key);
            assert_eq!(fail.line, 3, "{key}");
        }
        for (host, wanted) in [("b.example", 1), ("c.example", 2)] {
            assert_eq!(line(&text, host), Some(wanted), "{key}");
        }
        let found = Destinations::from_text(text.clone());
        let found = found.look_up(&exchanger("a.example", "b.example", true), None);
        assert_eq!(found.expect("the exchanger's").line, Some(1), "{key}");
        let bad = compile(text.as_bytes()).expect_err(key);
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3]);
        let said = remarks(text.as_bytes());
        assert!(said.iter().any(|one| one.wrong && one.line == 3), "{key}");
    }
    // A line for everybody that stands before it decides, where no line behind
    // it comes first in the table.
    for everybody in ["!*", "=*", "~*", "+*", "-*", "*", "-"] {
        let text = format!("{everybody}:\n@x:\n");
        assert_eq!(line(&text, "a.example"), Some(1), "{text}");
        let text = format!("@x:\n{everybody}:\n");
        assert_eq!(rule(&text, "a.example", None).expect_err(&text).line, 1);
        let text = format!("{everybody}:\n@x:\n!a.example:\n");
        assert_eq!(rule(&text, "a.example", None).expect_err(&text).line, 2);
        assert_eq!(line(&text, "b.example"), Some(1), "{text}");
    }
    // Of two the first is named, also where the deciding line is wrong itself.
    let text = "@x:\n@y:\n=a.example:||x\n";
    for host in ["a.example", "b.example"] {
        assert_eq!(rule(text, host, None).expect_err(host).line, 1);
    }
    let text = "=a.example:||x\n@x:\n";
    let fail = rule(text, "a.example", None).expect_err("its own line");
    assert_eq!((fail.line, fail.wrong), (1, Wrong::Depth));
    // A long name, and one with a long label.
    for name in ["a.".repeat(130), "a".repeat(64)] {
        assert!(rule(&format!("={name}:\n"), "b.example", None).is_err());
    }
    // For another sender's mail it is no matter.
    let text = "==a.example:|||one.example\n*:\n";
    assert_eq!(line(text, "a.example"), Some(2));
    assert!(rule(text, "a.example", Some("one.example")).is_err());
}

#[test]
fn what_a_colon_cuts_short_is_no_key() {
    for text in [
        "tls://mx.a.example:",
        "https://a.example:",
        "smtp:mx.a.example:",
        "smtp:[mx.a.example]:25",
        "SMTPS:a.example|HIGH",
        "tls:a.example;465",
        "=2001:db8::1:/ca.pem",
        "2001:db8::1:",
        "~fe80::1",
    ] {
        let fail = rule(text, "a.example", None).expect_err(text);
        assert!(matches!(fail.wrong, Wrong::Key(_)), "{text}: {fail}");
    }
    // A sign that is only another's is named as such.
    for (text, why) in [
        ("+a.example:", "+ is allowed only before *"),
        ("+.a.example:", "+ is allowed only before *"),
        ("%*:", "% needs one host, not *"),
    ] {
        let fail = rule(text, "a.example", None).expect_err(text);
        assert_eq!(fail.wrong, Wrong::Key(why), "{text}");
    }
    // Its first word alone would pass for a host's name.
    for text in ["cafe:db8::1", "=cafe:db8::1:/ca.pem", "~cafe:db8::1|HIGH"] {
        let fail = rule(text, "cafe", None).expect_err(text);
        assert_eq!(fail.wrong, Wrong::Key("an IPv6 address needs brackets"));
    }
    for (text, host) in [
        ("cafe:a::b.pem", "cafe"),
        ("%smtp:=0123456789abcdef0123456789abcdef01234567", "smtp"),
        (
            "%smtp:SPKI:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "smtp",
        ),
        ("smtp:/ca.pem", "smtp"),
        ("smtp:;465", "smtp"),
        ("=smtp.a.example:/ca.pem", "smtp.a.example"),
        ("smtp:", "smtp"),
        ("cafe:/ca.pem", "cafe"),
        ("=mx.a.example://etc/ca.pem", "mx.a.example"),
    ] {
        assert_eq!(line(text, host), Some(1), "{text}");
    }
}

#[test]
fn keys_are_cleaned() {
    for (text, host) in [
        ("\u{feff}=a.example:", "a.example"),
        ("\u{feff}# c\n=a.example:", "a.example"),
        ("=A.Example.:", "a.example"),
        (" \t=a.example \t:", "a.example."),
        ("=a.example:\r\n", "a.example"),
        ("~.A.example.:", "mx.a.example"),
        ("[192.0.2.1].:", "192.0.2.1"),
        ("\t# c\n =a.example:", "a.example"),
    ] {
        for rules in [Destinations::from_text(text), compiled(text)] {
            let found = rules.look_up(&Destination::itself(host), None).expect(text);
            assert!(found.line.is_some(), "{text:?}");
        }
        let said = remarks(text.as_bytes());
        assert_eq!(said, [], "{text:?}");
    }
    let text = "=a.example:|||One.Example.\n";
    assert_eq!(
        rule(text, "a.example", Some("one.example"))
            .expect("sound")
            .line,
        Some(1)
    );
    // Not what it would be with a name before the dot.
    assert!(rule("-.:\n", "a.example", None).is_err());
    assert!(rule("*.:\n", "a.example", None).is_err());
}

#[test]
fn a_line_that_never_applies_is_named() {
    let dead = |text: &str| -> Vec<usize> {
        let lines = remarks(text.as_bytes()).into_iter();
        lines.filter(|one| !one.wrong).map(|one| one.line).collect()
    };
    assert_eq!(
        dead("=a.example:\n~a.example:\n.example:\n*:\n-:\n"),
        [2, 5]
    );
    assert_eq!(dead("a.example:\nA.EXAMPLE.:\n"), [2]);
    assert_eq!(
        dead("~.example:\na.example:\n.a.example:\n=a.example:\n"),
        [2, 3]
    );
    assert_eq!(dead("!*:\n=a.example:\n!a.example:\n*:\n"), [2, 4]);
    assert_eq!(dead("-:\n*:\n-*:\n+*:\n~*:\n=*:\n"), [1, 2, 3, 4, 5]);
    assert_eq!(
        dead("=a.example:|||one.example\n=a.example:|||ONE.example\n=a.example:\n"),
        [2]
    );
    assert_eq!(
        dead("=a.example:|||one.example\n~a.example:\n"),
        [] as [usize; 0]
    );
}

#[test]
fn wrong_lines_are_named_in_their_order() {
    let said = remarks(b"a.example:\n\n=b.example:||x\nno-colon\n*.x:\na.example:\n");
    let lines: Vec<(usize, bool)> = said.iter().map(|one| (one.line, one.wrong)).collect();
    assert_eq!(lines, [(3, true), (4, true), (5, true), (6, false)]);
    assert_eq!(
        said[0].text,
        "line 3 \"=b.example\" is wrong: the depth is not a number from 0 to 100"
    );
    assert_eq!(
        said[2].text,
        "line 5 \"*.x\" is wrong: the key is not valid: the names below a domain are written .domain, \
         not *.domain; all mail that no line before it decides is deferred"
    );
    assert_eq!(
        said[3].text,
        "line 6 \"a.example\" never applies: line 1 comes before it"
    );
}

/// The empty key ends the walk over a host's names: only what comes before it keeps
/// mail from waiting.
#[test]
fn whose_mail_waits_for_a_wrong_key_is_said() {
    let all = "; all mail that no line for a host without - decides is deferred";
    for (before, waits) in [
        ("*:", all),
        ("=*:", all),
        ("!a.example:", all),
        ("!*:|||one.example", all),
        (
            "!*:",
            "; it defers no mail, since line 1 \"!*\" decides before it",
        ),
        (
            "!*:|||one.example\n!*:",
            "; it defers no mail, since line 2 \"!*\" decides before it",
        ),
    ] {
        let said = remarks(format!("{before}\n:x\n").as_bytes());
        let said = said.iter().find(|one| one.wrong).expect(before);
        let number = said.line;
        assert_eq!(
            said.text,
            format!("line {number} \"\" is wrong: the key is empty{waits}")
        );
    }
    let said = remarks(b"=:\n");
    assert_eq!(
        said[0].text,
        "line 1 \"=\" is wrong: the key is not valid: there is no host; all mail that no line \
         before it decides is deferred"
    );
}

#[test]
fn a_dead_line_decides_for_nobody() {
    // Every line that is called dead can be taken out, for every host.
    let hosts = [
        "a.example",
        "mx.a.example",
        "b.mx.a.example",
        "example",
        "other.test",
    ];
    for first in ORDER {
        for second in ORDER {
            let text = format!("{}{}", with_value(first), with_value(second));
            let dead: Vec<usize> = remarks(text.as_bytes())
                .into_iter()
                .map(|remark| remark.line)
                .collect();
            for number in 1..=2 {
                let decides = hosts.iter().any(|host| line(&text, host) == Some(number));
                assert_eq!(decides, !dead.contains(&number), "{text}line {number}");
            }
        }
    }
}

#[test]
fn a_rule_can_be_read() {
    let host = "mx.example";
    let itself = Destination::itself(host);
    for (text, to, wanted) in [
        (
            "=mx.example:/ca.pem|HIGH|2;465|one.example",
            itself,
            "line 1 \"=mx.example\" applies: TLS is required; the certificate must verify with \
             the CAs in /ca.pem and name mx.example exactly; ciphers HIGH; depth 2; port 465, \
             TLS at once; for mail of one.example",
        ),
        (
            "!.example:",
            itself,
            "line 1 \"!.example\" applies: TLS is never tried",
        ),
        (
            "*:/ca/",
            itself,
            "line 1 \"*\" applies: TLS is used if offered; the certificate must verify with the \
             CAs in /ca/ (a failure is logged only)",
        ),
        (
            "~*:",
            itself,
            "line 1 \"~*\" applies: TLS is required; the certificate must verify with the \
             system's CAs and name mx.example or its MX host, wildcards allowed",
        ),
        (
            "~mx.example:",
            itself,
            "line 1 \"~mx.example\" applies: TLS is required; the certificate must verify with \
             the system's CAs and name mx.example or its MX host (where DNSSEC signs the MX, or \
             the host lies below mx.example), wildcards allowed",
        ),
        (
            "~mx.example:||||.a.example,b.example",
            itself,
            "line 1 \"~mx.example\" applies: TLS is required; the certificate must verify with \
             the system's CAs and name .a.example or b.example, wildcards allowed",
        ),
        (
            "~mx.example:",
            relay(host, "r.test", false),
            "line 1 \"~mx.example\" applies: TLS is required; the certificate must verify with \
             the system's CAs and name r.test or mx.example, wildcards allowed",
        ),
        (
            "",
            itself,
            "no line applies: TLS is used if offered; no certificate is needed",
        ),
    ] {
        let found = Destinations::from_text(text).look_up(&to, Some("one.example"));
        assert_eq!(found.expect("sound").in_words(&to), wanted);
    }
}

/// What a rule says of the certificate, for the host itself.
#[test]
fn what_is_asked_of_a_certificate_can_be_read() {
    const PRINT: &str = "0123456789abcdef0123456789abcdef01234567";
    let itself = Destination::itself("mx.example");
    let key = "ab".repeat(32);
    for (line, wanted) in [
        (
            format!("%mx.example:={PRINT}"),
            format!("the certificate must have the fingerprint {PRINT}"),
        ),
        (
            format!("mx.example:={PRINT},spki:{key}"),
            format!("the certificate must have the fingerprint {PRINT} or spki:{key}"),
        ),
        (
            format!("=mx.example:={PRINT}"),
            format!(
                "the certificate must have the fingerprint {PRINT} and name mx.example exactly"
            ),
        ),
        ("mx.example:".into(), "any certificate will do".into()),
        ("-mx.example:".into(), "no certificate is needed".into()),
        (
            "~mx.example:/ca".into(),
            "the certificate must verify with the CAs in /ca and name mx.example or its MX host, \
             wildcards allowed"
                .into(),
        ),
        (
            "=*:;6209".into(),
            "the certificate must verify with the system's CAs and name mx.example or its MX \
             host exactly; port 6209, QMTPS"
                .into(),
        ),
        (
            "-mx.example:;26".into(),
            "no certificate is needed; port 26, STARTTLS".into(),
        ),
        (
            "+*:dane".into(),
            "the certificate must match a signed TLSA record of its host (DANE)".into(),
        ),
        (
            "=mx.example:dane".into(),
            "the certificate must match a signed TLSA record of its host (DANE) and name \
             mx.example exactly"
                .into(),
        ),
        (
            "~mx.example:dane||||x.example".into(),
            "the certificate must match a signed TLSA record of its host (DANE) and name \
             x.example, wildcards allowed"
                .into(),
        ),
    ] {
        let found = rule(&line, "mx.example", None).expect(&line);
        let words = found.in_words(&itself);
        let (_, asked) = words.split_once("; ").expect("what TLS is");
        assert_eq!(asked, wanted, "{line}");
    }
}

#[test]
fn a_host_that_dns_chose_is_named_with_the_cure() {
    let (domain, host) = ("a.example", "mx.b.test");
    let unsigned = exchanger(domain, host, false);
    let looked_up = |text: &str, to: &Destination<'_>| {
        Destinations::from_text(text)
            .look_up(to, None)
            .expect("sound")
    };
    let text = "# c\n~a.example:\n";
    let cure = looked_up(text, &unsigned).cure(&unsigned).expect("a cure");
    assert!(cure.starts_with("mx.b.test does not count"), "{cure}");
    assert!(
        cure.ends_with("(names) of tlsdestinations line 2"),
        "{cure}"
    );
    let signed = exchanger(domain, host, true);
    assert_eq!(looked_up(text, &signed).cure(&signed), None);
    // Whose records count: those of a host that the domain itself names.
    let below = exchanger(domain, "mx.a.example", false);
    for (text, to, unproved) in [
        ("a.example:dane", unsigned, Some(host)),
        ("~.example:dane", unsigned, Some(host)),
        ("a.example:dane", signed, None),
        ("a.example:dane", below, None),
        ("+*:dane", unsigned, None),
        ("mx.b.test:dane", unsigned, None),
        ("a.example:", unsigned, None),
    ] {
        assert_eq!(looked_up(text, &to).unproved(&to), unproved, "{text}");
    }
}

#[test]
fn a_compiled_form_is_of_its_text_or_another() {
    let text = "=a.example:/ca\n*:\n=a.example:/cb|||b.example\n";
    let of = compiled(text);
    assert!(!of.is_compiled_from_other(text.as_bytes()));
    for other in [
        "=a.example:/cb\n*:\n",
        "=a.example:/ca\n*:\n",
        "# c\n=a.example:/ca\n*:\n=a.example:/cb|||b.example\n",
        "=a.example:/ca\n*:\n=a.example:/cb|||b.example\n-:\n",
        // A line is gone, and the others have their numbers still.
        "=a.example:/ca\n\n=a.example:/cb|||b.example\n",
    ] {
        assert!(of.is_compiled_from_other(other.as_bytes()), "{other}");
    }
    // A wrong text is told elsewhere; a text is of no other.
    assert!(!of.is_compiled_from_other(b"@x:\n"));
    assert!(!Destinations::from_text(text).is_compiled_from_other(b"*:\n"));
}

#[test]
fn rows_for_everybody_weigh_policies_and_some_rows_ask_for_a_name() {
    for (line, verifies, policy, name) in [
        ("!*:", false, false, false),
        ("=a.example:", true, false, true),
        ("~a.example:", true, false, true),
        ("a.example:", false, false, false),
        ("a.example:/ca", true, false, false),
        ("a.example:/ca||||x.example", true, false, false),
        ("-a.example:", false, false, false),
        ("=*:", true, true, true),
        ("~*:", true, true, true),
        ("+*:", false, true, false),
        ("-*:", false, true, false),
        ("*:", false, true, false),
        ("*:/ca", true, true, false),
        ("-:", false, true, false),
    ] {
        let found = rule(line, "a.example", None).expect(line);
        assert_eq!(found.verifies(), verifies, "{line}");
        assert_eq!(found.weighs_policy(), policy, "{line}");
        assert_eq!(found.asks_for_name(), name, "{line}");
    }
    let pinned = rule(&with_value("%a.example"), "a.example", None).expect("sound");
    assert!(pinned.is_pinned() && !pinned.verifies());
}

#[test]
fn a_file_that_is_not_there_has_no_lines_and_one_that_cannot_be_read_is_an_error() {
    let folder = std::env::temp_dir();
    let missing = folder.join(format!("no-tlsdestinations-{}", std::process::id()));
    assert_eq!(read_optional(&missing).expect("none"), b"");
    assert!(read_optional(&folder).is_err());
}

/// The compiled form counts unless it is older than the text, or alone.
#[test]
fn of_a_text_and_its_compiled_form_the_newer_counts() {
    let folder = folder();
    let text = folder.join("tlsdestinations");
    let (cdb, temporary) = (folder.join("tlsdestinations.cdb"), folder.join("tmp"));
    let key = || {
        let rules = Destinations::open(&text).expect("sound");
        let found = rules.look_up(&Destination::itself("a.example"), None);
        (found.expect("sound").key, rules.is_missing())
    };
    assert_eq!(key(), ("*".to_owned(), true));
    fs::write(&text, "=a.example:\n").expect("written");
    let of_text = ("=a.example".to_owned(), false);
    assert_eq!(key(), of_text);

    let records = compile(b"~a.example:\n").expect("compiles");
    let records = records.iter().map(|(key, data)| (&**key, &**data));
    crate::rulesdb::replace(&cdb, &temporary, records).expect("written");
    let of_database = ("~a.example".to_owned(), false);
    let at = |path: &Path, seconds: u64| {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
        let file = File::options()
            .append(true)
            .open(path)
            .expect("it is there");
        file.set_modified(moment).expect("set");
    };
    for (text_at, database_at, wanted) in
        [(1, 2, &of_database), (2, 2, &of_database), (3, 2, &of_text)]
    {
        at(&text, text_at);
        at(&cdb, database_at);
        assert_eq!(key(), *wanted, "{text_at} {database_at}");
    }
    fs::remove_file(&text).expect("removed");
    assert_eq!(key(), of_database);
    fs::remove_dir_all(&folder).expect("removed");
}

/// Nobody may take a file that cannot be reached for one that is not there.
#[test]
fn a_file_that_cannot_be_reached_is_an_error() {
    let folder = folder();
    let file = folder.join("file");
    fs::write(&file, "").expect("written");
    let fail = Destinations::open(&file.join("tlsdestinations")).err();
    let said = fail.expect("a file is no folder").to_string();
    assert!(said.starts_with("unable to read "), "{said}");
    assert!(
        Destinations::open(&folder).is_err(),
        "nor is a folder a file"
    );
    fs::remove_dir_all(&folder).expect("removed");
}
