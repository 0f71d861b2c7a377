//! sslsurvey, from lines of results to tables, JSON, chart and comparison.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use openssl::bn::BigNum;
use serde_json::{Value, json};

use crate::harness::process::run_within;
use crate::harness::{Finished, Place, Setup, compile, ours, run};

/// A run with this on standard input.
fn survey(words: &[&str], input: &str) -> Finished {
    run(
        Command::new(ours("sslsurvey")).args(words),
        input.as_bytes(),
    )
}

/// What it prints, where all is well.
fn printed(words: &[&str], input: &str) -> String {
    let ended = survey(words, input);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    String::from_utf8(ended.stdout).expect("UTF-8")
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A certificate of a result; `print` is the first two digits of its digests.
fn certificate(print: &str, modulus: &str) -> Value {
    json!({
        "key": "rsa", "modulus": modulus, "bits": 2048, "subject": "/CN=x", "issuer": "/CN=CA",
        "names": ["x"], "signature": "sha256WithRSAEncryption",
        "not_before": "2026-01-01T00:00:00Z", "not_after": "2027-01-01T00:00:00Z",
        "sha256": print.repeat(32), "spki": print.repeat(32), "chain": "complete",
        "verify": "ok", "name_ok": true
    })
}

/// A result of a mail server that speaks TLS 1.2 and 1.3, as sslprobe writes it.
fn result(host: &str, print: &str) -> Value {
    json!({
        "host": host, "port": 25, "address": "192.0.2.1", "protocol": "smtp", "mx_of": null,
        "listens": true, "greeting": "220 x", "starttls": "offered", "error": null,
        "versions": {"SSLv3": false, "TLSv1.0": false, "TLSv1.1": false, "TLSv1.2": true,
            "TLSv1.3": true},
        "suites": {
            "TLSv1.2": ["ECDHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384"],
            "TLSv1.3": ["TLS_AES_256_GCM_SHA384"]
        },
        "preferred": {
            "TLSv1.2": "ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.3": "TLS_AES_256_GCM_SHA384"
        },
        "server_order": true, "weak": [], "groups": ["X25519", "P-256"], "dh_bits": 2048,
        "dh_prime": "ffdhe2048", "certificates": [certificate(print, "c5")],
        "auth_before_tls": [], "auth_after_tls": ["PLAIN"], "findings": [],
        "connections": 3, "handshakes": 3, "seconds": 0.5
    })
}

fn lines(results: &[Value]) -> String {
    let lines: Vec<String> = results.iter().map(Value::to_string).collect();
    lines.join("\n") + "\n"
}

/// Three servers: one good, one old that offers passwords in the clear, one without
/// STARTTLS.
fn three() -> Vec<Value> {
    let mut old = result("old.example", "bb");
    old["versions"]["TLSv1.0"] = true.into();
    old["versions"]["TLSv1.3"] = false.into();
    old["preferred"] = json!({"TLSv1.2": "AES128-SHA"});
    old["suites"] = json!({"TLSv1.2": ["AES128-SHA"]});
    old["weak"] = json!(["AES128-SHA"]);
    old["auth_before_tls"] = json!(["LOGIN"]);
    old["certificates"][0]["verify"] = "certificate has expired".into();
    old["findings"] = json!([
        {"severity": "high", "code": "expired", "text": "Expired."},
        {"severity": "note", "code": "no-dane", "text": "None."}
    ]);
    let mut clear = result("clear.example", "cc");
    clear["starttls"] = "missing".into();
    clear["versions"] = Value::Null;
    clear["suites"] = Value::Null;
    clear["preferred"] = Value::Null;
    clear["certificates"] = json!([]);
    clear["dh_bits"] = Value::Null;
    clear["dh_prime"] = Value::Null;
    clear["groups"] = Value::Null;
    clear["auth_before_tls"] = json!(["PLAIN", "LOGIN"]);
    vec![result("good.example", "aa"), old, clear]
}

#[test]
fn hosts_are_counted_by_port() {
    let answer = parsed(&printed(&["-j"], &lines(&three())));
    assert_eq!(answer["results"], 3);
    let port = &answer["ports"]["25"];
    for (key, expected) in [
        ("hosts", json!(3)),
        ("listening", json!(3)),
        ("tls", json!(2)),
        ("starttls", json!({"offered": 2, "missing": 1})),
        (
            "versions",
            json!({"TLSv1.0": 1, "TLSv1.2": 2, "TLSv1.3": 1}),
        ),
        (
            "preferred",
            json!({
                "TLSv1.2": {"AES128-SHA": 1, "ECDHE-RSA-AES256-GCM-SHA384": 1},
                "TLSv1.3": {"TLS_AES_256_GCM_SHA384": 1}
            }),
        ),
        ("key_exchange", json!({"DHE": 1, "ECDHE": 1, "RSA": 1})),
        ("dh_bits", json!({"2048": 2})),
        ("dh_primes", json!({"ffdhe2048": 2})),
        ("groups", json!({"X25519": 2, "P-256": 2})),
        ("weak", json!(1)),
        ("keys", json!({"rsa 2048": 2})),
        (
            "auth_before_tls",
            json!({"with_starttls": 1, "without_starttls": 1}),
        ),
        ("findings", json!({"expired": 1})),
    ] {
        assert_eq!(port[key], expected, "{key}");
    }
    let certificates = &port["certificates"];
    assert_eq!(certificates["hosts"], 2);
    assert_eq!(certificates["verified"], 1);
    assert_eq!(certificates["expired"], 1);
    assert_eq!(answer["shared_keys"], json!([]));
    assert_eq!(answer["common_factors"], Value::Null);
}

#[test]
fn tables_say_the_same_in_plain_text_and_markdown() {
    let plain = printed(&[], &lines(&three()));
    assert!(plain.starts_with("Hosts: 3\n"), "{plain}");
    assert!(plain.contains("Port 25: versions\n"), "{plain}");
    let row = plain.lines().find(|line| line.contains("TLSv1.0"));
    let words: Vec<&str> = row.expect("a row").split_whitespace().collect();
    assert_eq!(words, ["TLSv1.0", "1", "(50", "%)"]);
    let markdown = printed(&["-m"], &lines(&three()));
    assert!(markdown.contains("\n## Port 25: versions\n\n| version | hosts |\n| --- | --- |\n"));
    assert!(markdown.contains("| TLSv1.0 | 1 (50 %) |\n"), "{markdown}");
}

#[test]
fn shared_keys_and_certificates_name_their_hosts() {
    let mut other_port = result("a.example", "aa");
    other_port["port"] = 465.into();
    let mut renewed = result("c.example", "aa");
    renewed["certificates"][0]["sha256"] = "dd".repeat(32).into();
    let all = [
        result("a.example", "aa"),
        other_port,
        result("b.example", "aa"),
        renewed,
        result("alone.example", "ee"),
    ];
    let answer = parsed(&printed(&["-j"], &lines(&all)));
    assert_eq!(
        answer["shared_keys"],
        json!([{"sha256": "aa".repeat(32), "hosts": ["a.example", "b.example", "c.example"]}])
    );
    assert_eq!(
        answer["shared_certificates"],
        json!([{"sha256": "aa".repeat(32), "hosts": ["a.example", "b.example"]}])
    );
    let plain = printed(&[], &lines(&all));
    assert!(plain.contains("a.example b.example c.example"), "{plain}");
}

#[test]
fn a_row_names_the_first_of_many_hosts() {
    let hosts = |count| {
        let all: Vec<Value> = (0..count)
            .map(|number| result(&format!("h{number:02}.example"), "aa"))
            .collect();
        lines(&all)
    };
    let plain = printed(&[], &hosts(20));
    assert!(plain.contains(" h18.example h19.example\n"), "{plain}");
    let many = hosts(31);
    let cut = " h18.example h19.example and 11 others";
    for words in [&[][..], &["-m"]] {
        let table = printed(words, &many);
        assert_eq!(table.matches(cut).count(), 2, "{table}");
        assert!(!table.contains("h20.example"), "{table}");
    }
    let answer = parsed(&printed(&["-j"], &many));
    let named = answer["shared_keys"][0]["hosts"].as_array();
    assert_eq!(named.map(Vec::len), Some(31), "JSON names all");
}

#[test]
fn a_port_that_nobody_says_is_unknown() {
    let place = Place::new("sslsurvey-portless");
    let portless = "{\"host\":\"h.example\",\"listens\":true}\n";
    let answer = parsed(&printed(&["-j"], portless));
    assert_eq!(answer["ports"]["unknown"]["listening"], 1, "{answer}");
    let table = printed(&[], portless);
    assert!(table.contains("\n  unknown  1 "), "{table}");
    let chart = place.text("chart.svg");
    printed(&["-o", &chart], portless);
    let drawn = std::fs::read_to_string(&chart).expect("drawn");
    assert!(drawn.contains("Port unknown: 1 host,"), "{drawn}");
    let old = place.write("old", lines(&[result("a.example", "aa")]));
    let new = place.write("new", portless);
    let compared = printed(&[&old, &new], "");
    assert!(compared.contains("\n  h.example\n"), "{compared}");
}

/// Two different primes of 512 bits and one that both moduli share.
fn moduli_with_a_common_factor() -> (BigNum, [String; 3]) {
    let prime = || {
        let mut prime = BigNum::new().expect("a number");
        prime
            .generate_prime(512, false, None, None)
            .expect("a prime");
        prime
    };
    let common = prime();
    let times = |one: &BigNum, other: &BigNum| {
        let hex = (one * other).to_hex_str().expect("hex");
        hex.to_string().to_ascii_lowercase()
    };
    let moduli = [
        times(&common, &prime()),
        times(&common, &prime()),
        times(&prime(), &prime()),
    ];
    (common, moduli)
}

#[test]
fn keys_with_a_common_factor_are_named_and_the_factor_never() {
    let (common, moduli) = moduli_with_a_common_factor();
    let with = |host: &str, print: &str, modulus: &str| {
        let mut one = result(host, print);
        one["certificates"][0] = certificate(print, modulus);
        one
    };
    let all = lines(&[
        with("one.example", "aa", &moduli[0]),
        with("two.example", "bb", &moduli[1]),
        with("sound.example", "cc", &moduli[2]),
        with("again.example", "cc", &moduli[2]),
    ]);
    let plain = printed(&["-k"], &all);
    let at = plain.find("RSA keys with a common factor: 1\n");
    let section = &plain[at.unwrap_or_else(|| panic!("{plain}"))..];
    for word in [
        "one.example (aaaaaaaaaaaaaaaa)",
        "two.example (bbbbbbbbbbbbbbbb)",
    ] {
        assert!(section.contains(word), "{section}");
    }
    assert!(
        !section.contains("sound") && !section.contains("again"),
        "{section}"
    );
    let json = printed(&["-jk"], &all);
    let factor = common.to_hex_str().expect("hex").to_ascii_lowercase();
    for told in [&plain, &json] {
        assert!(!told.to_ascii_lowercase().contains(&factor));
        assert!(!told.contains(&common.to_dec_str().expect("decimal").to_string()));
    }
    let pairs = parsed(&json)["common_factors"].clone();
    assert_eq!(pairs.as_array().expect("a list").len(), 1, "{pairs}");
    // Without -k nobody looked.
    assert!(!printed(&[], &all).contains("common factor"));
}

#[test]
fn numbers_that_are_no_keys_do_not_take_for_ever() {
    // Odd multiples of three: each two have a common factor, 8 million pairs.
    let all: Vec<Value> = (0..4000_u32)
        .map(|at| {
            let mut one = result(&format!("h{at}.example"), &format!("{at:04x}"));
            one["certificates"] = json!([certificate(
                &format!("{at:04x}"),
                &format!("{:x}", u64::from(at) * 6 + 3 * 1_000_001)
            )]);
            one
        })
        .collect();
    let ended = survey(&["-kj"], &lines(&all));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let pairs = parsed(&String::from_utf8(ended.stdout).expect("UTF-8"));
    assert_eq!(
        pairs["common_factors"].as_array().map(Vec::len),
        Some(10_000)
    );
    let told = "sslsurvey: warning: -k: 4000 keys have a prime in common with others, too many to \
                compare each two of them: 10000 pairs are named\n";
    assert_eq!(ended.stderr, told);
}

#[test]
fn two_runs_are_compared() {
    let place = Place::new("sslsurvey-compared");
    let mut mended = result("old.example", "bb");
    mended["findings"] = json!([]);
    let mut worse = result("good.example", "aa");
    worse["versions"]["TLSv1.3"] = false.into();
    let old = place.write(
        "old.json",
        lines(
            &[
                three(),
                vec![result("same.example", "11"), result("gone.example", "22")],
            ]
            .concat(),
        ),
    );
    let new = place.write(
        "new.json",
        lines(&[
            mended,
            worse,
            three().remove(2),
            result("same.example", "99"),
            result("new.example", "33"),
        ]),
    );
    let plain = printed(&[&old, &new], "");
    let mut rest = &*plain;
    for (head, host, words) in [
        ("Better: 1\n", "old.example:25", "expired (high) is gone"),
        ("Worse: 1\n", "good.example:25", "no longer speaks TLSv1.3"),
        ("New: 1\n", "new.example:25", ""),
        ("Gone: 1\n", "gone.example:25", ""),
        ("Unchanged: 2\n", "", ""),
    ] {
        let at = rest.find(head);
        rest = &rest[at.unwrap_or_else(|| panic!("{head:?} in {plain}"))..];
        let section = rest.split("\n\n").next().expect("one at least");
        assert!(section.contains(host) && section.contains(words), "{plain}");
    }
    assert!(!plain.contains("same.example") && !plain.contains("clear.example"));
    let answer = parsed(&printed(&["-j", &old, &new], ""));
    assert_eq!(answer["unchanged"], 2);
    assert_eq!(
        answer["worse"],
        json!([{"host": "good.example", "port": 25, "what": ["no longer speaks TLSv1.3"]}])
    );
    assert_eq!(answer["new"][0]["host"], "new.example");
    assert!(printed(&["-m", &old, &new], "").contains("## Better: 1\n"));
}

#[test]
fn the_chart_is_svg_with_every_number_in_words() {
    let place = Place::new("sslsurvey-chart");
    let path = place.text("chart.svg");
    let mut odd = result("odd.example", "aa");
    odd["preferred"] = json!({"TLSv1.2": "<a&b>"});
    printed(&["-o", &path], &lines(&[three(), vec![odd]].concat()));
    let svg = String::from_utf8(place.read("chart.svg")).expect("UTF-8");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(
        svg.contains(">TLSv1.0</text>") && svg.contains(">1 (33 %)</text>"),
        "{svg}"
    );
    assert!(svg.contains("&lt;a&amp;b&gt;") && !svg.contains("<a&b>"));
    let ended = survey(&["-o", "/nowhere/chart.svg"], &lines(&three()));
    ended.failed(111, "unable to write /nowhere/chart.svg");
    assert!(ended.stdout.is_empty(), "{ended:?}");
}

#[test]
fn bad_lines_are_told_and_bad_files_end_it() {
    let place = Place::new("sslsurvey-bad");
    let input = format!(
        "{}\nno JSON\n[]\n\n{}",
        result("a", "aa"),
        result("b", "bb")
    );
    let ended = survey(&["-j"], &input);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in ["line 2 is skipped", "line 3 is skipped"] {
        assert!(ended.stderr.contains(line), "{ended:?}");
    }
    assert_eq!(ended.stderr.lines().count(), 2, "{ended:?}");
    let answer = parsed(&String::from_utf8(ended.stdout).expect("UTF-8"));
    assert_eq!(answer["results"], 2);
    survey(&[], "").failed(111, "standard input: no result of sslprobe -j in it");
    survey(&["/nowhere/x"], "").failed(111, "unable to open /nowhere/x");
    let empty = place.write("empty.json", "");
    survey(&[&empty, &empty], "").failed(111, "no result of sslprobe -j in it");
    survey(&["a", "b", "c"], "").failed(100, "too many arguments");
    survey(&["-x"], "").failed(100, "unknown option -x");
}

/// A result of which a value is null, or left out.
fn without(whole: &Value, path: &str, key: &str, is_null: bool) -> Value {
    let mut one = whole.clone();
    let place = one.pointer_mut(path).and_then(Value::as_object_mut);
    let place = place.expect("an object");
    place.remove(key).expect("it is there");
    if is_null {
        place.insert(key.to_owned(), Value::Null);
    }
    one
}

#[test]
fn what_is_null_or_left_out_is_not_known_and_counts_as_such() {
    let whole = result("a", "aa");
    let keys = |path: &'static str| {
        let place = whole.pointer(path).and_then(Value::as_object);
        let keys = place
            .expect("an object")
            .keys()
            .filter(|key| *key != "host");
        keys.map(move |key| (path, key.clone())).collect::<Vec<_>>()
    };
    let places = [
        keys(""),
        keys("/certificates/0"),
        keys("/versions"),
        keys("/suites"),
    ]
    .concat();
    let all: Vec<Value> = places
        .iter()
        .flat_map(|(path, key)| [true, false].map(|is_null| without(&whole, path, key, is_null)))
        .collect();
    let ended = survey(&["-j", "-k"], &lines(&all));
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    let count = |change: Value, path: &str| {
        let mut one = result("a", "aa");
        *one.pointer_mut(path).expect("it is there") = change;
        parsed(&printed(&["-j"], &lines(&[one])))["ports"]["25"].clone()
    };
    let port = count(Value::Null, "/versions/TLSv1.3");
    assert_eq!(port["versions"], json!({"TLSv1.2": 1}));
    assert_eq!(port["versions_unknown"], json!({"TLSv1.3": 1}));
    let port = count(Value::Null, "/certificates/0/verify");
    assert_eq!(port["certificates"]["verified"], 0);
    assert_eq!(port["certificates"]["unverified"], 0);
    let port = count(Value::Null, "/certificates/0/name_ok");
    assert_eq!(port["certificates"]["misnamed"], 0);
    let port = count(Value::Null, "/certificates/0/bits");
    assert_eq!(port["keys"], json!({"rsa of unknown size": 1}));
    let mut unknown = result("a", "aa");
    unknown["versions"]["TLSv1.0"] = Value::Null;
    let told = printed(&[], &lines(&[unknown]));
    assert!(told.contains("versions, not known"), "{told}");
}

#[test]
fn nothing_of_a_result_reaches_a_terminal_raw() {
    let mut hostile = result("evil\u{1b}[31m\n.example", "aa");
    hostile["preferred"] = json!({"TLSv1.2": "\u{9b}31mx|y\r"});
    hostile["dh_prime"] = "\u{7}".into();
    hostile["certificates"][0]["signature"] = "\u{1b}]0;x".into();
    hostile["findings"] = json!([{"severity": "high", "code": "\u{8}", "text": "\u{1b}"}]);
    let other = result("evil\u{1b}[31m\n.example", "aa");
    let input = lines(&[hostile.clone(), other, result("b", "aa")]);
    for words in [&["-j"][..], &[], &["-m"]] {
        let told = printed(words, &input);
        let raw = told.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(raw, None, "{told:?}");
    }
    let markdown = printed(&["-m"], &input);
    assert!(markdown.contains("x\\|y"), "a cell stays one: {markdown}");
}

/// A hoster once looked at 366 hosts of one provider by hand, to find the one that
/// was different.
#[test]
fn one_host_of_366_stands_out_in_one_table() {
    let place = Place::new("sslsurvey-366");
    let odd = "127.9.1.17";
    let rules = compile(
        &place,
        "rules.cdb",
        &format!("local={odd}:allow,TLS_MAX=\"1.2\"\n"),
    );
    let server = Setup::script(&place, "exit 0")
        .host("0.0.0.0")
        .options(&format!("-c 60 -x {rules}"))
        .start();
    let addresses = (0..366).map(|number| format!("127.9.{}.{}", number / 250, number % 250 + 1));
    let list: String = addresses
        .flat_map(|address| [address, "\n".to_owned()])
        .collect();
    let mut probe = Command::new(ours("sslprobe"));
    probe.args(["-jq", "-c", "20", "-i", "0", "-r", "100000", "-y", "tls"]);
    // 20 at once on a busy machine.
    probe.args(["-t", "60", "-T", "600"]);
    probe.args(["-p", &server.port.to_string(), "-"]);
    let probed = run_within(&mut probe, list.as_bytes(), Duration::from_secs(300));
    let results = String::from_utf8(probed.stdout).expect("UTF-8");
    assert_eq!(results.lines().count(), 366, "{}", probed.stderr);
    let table = printed(&[], &results);
    let row = |name: &str| {
        let mut rows = table.lines().map(str::trim);
        let row = rows.find(|line| line.starts_with(name));
        row.unwrap_or_else(|| panic!("{table}")).to_owned()
    };
    assert!(row("TLSv1.2 ").ends_with(" 366 (100 %)"), "{table}");
    assert!(row("TLSv1.3 ").ends_with(" 365 (99 %)"), "{table}");
    assert!(table.contains("Keys shared between hosts: 1\n"), "{table}");
    server.stop();
}
