//! sslreport: from sessions to reports that were sent, each once, whatever comes in
//! between. What it sends is read by Python's email, gzip and a JSON schema, and by
//! parsedmarc where that is there.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{
    Authority, Finished, Leaf, Place, eventually, need, need_root, ours, peer, run, skip,
    skip_part, wanted,
};
use crate::sslremote::dns::Names;
use crate::sslremote::remote::fresh_ip;

/// The date so many days ago, UTC.
fn day(ago: i64) -> String {
    let ago = format!("{ago} days ago");
    let date = Command::new("date")
        .args(["-u", "+%F", "-d", &ago])
        .output();
    String::from_utf8(date.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

/// A session's line.
fn session(domain: &str, result: Option<&str>) -> Value {
    let mut line = json!({
        "time": "2026-01-31T12:00:00Z", "policy-type": "no-policy-found", "policy-domain": domain,
        "sending-mta-ip": "192.0.2.9", "receiving-mx-hostname": format!("mx.{domain}"),
        "receiving-ip": "192.0.2.1",
    });
    if let Some(result) = result {
        line["result-type"] = json!(result);
        line["failure-reason-code"] = json!("a reason");
    }
    line
}

fn lines(sessions: &[Value]) -> String {
    let mut text = String::new();
    for one in sessions {
        let _ = writeln!(text, "{one}");
    }
    text
}

/// A qmail home whose domains publish what they want, and a program that keeps the
/// messages it gets.
struct Home<'a> {
    place: &'a Place,
    names: Names,
    taker: String,
}

/// What a domain publishes.
fn wants(name: &str, rua: &str) -> String {
    format!("_smtp._tls.{name} IN TXT \"v=TLSRPTv1; rua={rua}\"\n")
}

impl Home<'_> {
    fn new<'a>(place: &'a Place, zone: &str) -> Home<'a> {
        fs::create_dir_all(place.path("control")).unwrap();
        fs::create_dir_all(place.path("tlsrpt")).unwrap();
        fs::create_dir_all(place.path("mail")).unwrap();
        place.write("control/me", "mail.me.example\n");
        place.write("control/tlsreportfrom", "reports@me.example\n");
        let names = Names::serve(place, zone);
        let taker = place.script(
            "taker",
            "#!/bin/sh\ncd \"$(dirname \"$0\")\"/mail || exit 1\n\
             cat > new.$$ && mv new.$$ message.$$\n",
        );
        Home {
            place,
            names,
            taker,
        }
    }

    /// The sessions of a day.
    fn kept(&self, ago: i64, text: &str) {
        self.place
            .write(&format!("tlsrpt/{}.sessions", day(ago)), text);
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(ours("sslreport"));
        command
            .args(words)
            .env("QMAILHOME", self.place.path(""))
            .env("DNSCACHEIP", self.names.ip.to_string());
        command
    }

    fn run(&self, words: &[&str]) -> Finished {
        run(&mut self.command(words), b"")
    }

    /// A run in which all is well.
    fn good(&self, words: &[&str]) -> String {
        let ended = self.run(words);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        ended.text()
    }

    /// Hands over what there is; the messages that came.
    fn sends(&self) -> Vec<String> {
        assert_eq!(self.good(&[&self.taker]), "");
        self.messages()
    }

    /// The messages that came since the last time, in the order of their addressees.
    fn messages(&self) -> Vec<String> {
        let folder = fs::read_dir(self.place.path("mail")).unwrap();
        let paths = folder.map(|entry| entry.unwrap().path());
        // One that is not whole yet has another name.
        let whole = |path: &PathBuf| path.to_string_lossy().contains("/message.");
        let paths: Vec<PathBuf> = paths.filter(whole).collect();
        let mut messages: Vec<String> = Vec::new();
        for path in paths {
            messages.push(fs::read_to_string(&path).unwrap());
            fs::remove_file(&path).unwrap();
        }
        messages.sort_by_key(|message| to(message).to_owned());
        messages
    }
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    let (head, _) = message.split_once("\n\n").unwrap();
    let name = format!("{name}: ");
    head.lines()
        .find_map(|line| line.strip_prefix(&name))
        .unwrap()
}

fn to(message: &str) -> &str {
    field(message, "To")
}

/// The report in a message, read by Python's email and gzip; the schema of RFC 8460,
/// 4.4 is checked where Python has jsonschema.
fn report(place: &Place, message: &str) -> Value {
    const READER: &str = r#"
import email, email.policy, gzip, json, sys
message = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.strict)
assert not message.defects, message.defects
assert message.get_content_type() == "multipart/report", message["Content-Type"]
assert message.get_param("report-type") == "tlsrpt"
for name in ("From", "To", "Date", "Message-ID", "Subject", "TLS-Report-Domain", "TLS-Report-Submitter"):
    assert len(message.get_all(name)) == 1, name
assert message["Date"].datetime.utcoffset().total_seconds() == 0
parts = list(message.iter_parts())
assert not any(part.defects for part in parts)
packed = [part for part in parts if part.get_content_type() == "application/tlsrpt+gzip"]
assert [part.get_content_type() for part in parts] == ["text/plain", "application/tlsrpt+gzip"]
assert packed[0].get_filename().endswith(".json.gz"), packed[0].get_filename()
content = packed[0].get_content()
open(sys.argv[1], "wb").write(content)
open(sys.argv[2], "w").write(packed[0].get_filename())
report = json.loads(gzip.decompress(content))
text = {"type": "string", "minLength": 1}
count = {"type": "integer", "minimum": 0}
when = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
def object(required, optional={}):
    return {"type": "object", "required": list(required), "properties": {**required, **optional},
            "additionalProperties": False}
schema = object({
    "organization-name": text,
    "date-range": object({"start-datetime": when, "end-datetime": when}),
    "contact-info": text,
    "report-id": text,
    "policies": {"type": "array", "minItems": 1, "items": object({
        "policy": object(
            {"policy-type": {"enum": ["tlsa", "sts", "no-policy-found"]}, "policy-domain": text},
            {"policy-string": {"type": "array", "items": text, "minItems": 1},
             "mx-host": {"type": "array", "items": text, "minItems": 1}}),
        "summary": object({"total-successful-session-count": count, "total-failure-session-count": count}),
    }, {
        "failure-details": {"type": "array", "items": object({
            "result-type": {"enum": [
                "starttls-not-supported", "certificate-host-mismatch", "certificate-expired",
                "certificate-not-trusted", "validation-failure", "tlsa-invalid", "dnssec-invalid",
                "dane-required", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"]},
            "failed-session-count": {"type": "integer", "minimum": 1},
        }, {
            "sending-mta-ip": text, "receiving-mx-hostname": text, "receiving-mx-helo": text,
            "receiving-ip": text, "additional-information": text, "failure-reason-code": text})},
    })},
})
try:
    import jsonschema
    jsonschema.validate(report, schema)
    print("checked", file=sys.stderr)
except ImportError:
    pass
json.dump(report, sys.stdout)
"#;
    let (packed, name) = (place.text("report.json.gz"), place.text("report.name"));
    let mut python = Command::new("python3");
    let ended = run(
        python.args(["-c", READER, &packed, &name]),
        message.as_bytes(),
    );
    assert_eq!(ended.code, Some(0), "{}\n{message}", ended.stderr);
    if !ended.stderr.contains("checked") {
        skip_part!("Python has no jsonschema");
    }
    let tested = run(Command::new("gzip").args(["-t", &packed]), b"");
    assert_eq!((tested.code, tested.stderr.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&ended.text()).unwrap();
    for policy in report["policies"].as_array().unwrap() {
        let failures = policy["failure-details"].as_array().unwrap();
        let counts = failures
            .iter()
            .map(|one| one["failed-session-count"].as_u64().unwrap());
        assert_eq!(
            policy["summary"]["total-failure-session-count"],
            counts.sum::<u64>()
        );
    }
    report
}

#[test]
fn a_report_says_what_was_kept_of_a_day() {
    need!("nsd");
    let python = need!("python3");
    let place = Place::new("sslreport-form");
    let home = Home::new(&place, &wants("a", "mailto:tls@a.test"));
    let mut dane = session("a.test", Some("validation-failure"));
    dane["policy-type"] = json!("tlsa");
    dane["policy-string"] = json!(["3 1 1 00ff"]);
    let mut sts = session("a.test", None);
    sts["policy-type"] = json!("sts");
    sts["policy-string"] = json!([
        "version: STSv1",
        "mode: testing",
        "mx: *.a.test",
        "max_age: 86400"
    ]);
    sts["mx-host"] = json!(["*.a.test"]);
    let plain = session("a.test", Some("starttls-not-supported"));
    let good = session("a.test", None);
    let mut elsewhere = plain.clone();
    elsewhere["receiving-ip"] = json!("2001:db8::1");
    let mut over = session("a.test", Some("dnssec-invalid"));
    over["policy-type"] = json!("tlsa");
    over.as_object_mut().unwrap().remove("sending-mta-ip");
    let all = [
        good.clone(),
        plain.clone(),
        dane,
        good,
        plain.clone(),
        sts,
        elsewhere,
        plain,
        over,
    ];
    home.kept(1, &lines(&all));
    // Another day's are another report's.
    home.kept(0, &lines(&[session("a.test", Some("validation-failure"))]));
    let sent = home.sends();
    let [message] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(to(message), "tls@a.test");
    assert_eq!(field(message, "From"), "reports@me.example");
    assert_eq!(field(message, "Return-Path"), "<reports@me.example>");
    assert_eq!(field(message, "TLS-Report-Domain"), "a.test");
    assert_eq!(field(message, "TLS-Report-Submitter"), "mail.me.example");
    assert!(message.contains("\nContent-Type: multipart/report; report-type=tlsrpt;\n"));
    assert!(
        message
            .lines()
            .all(|line| line.len() <= 78 && line.is_ascii()),
        "{message}"
    );
    let said = report(&place, message);
    let yesterday = day(1);
    assert_eq!(said["organization-name"], "mail.me.example");
    assert_eq!(said["contact-info"], "reports@me.example");
    assert_eq!(
        said["date-range"]["start-datetime"],
        format!("{yesterday}T00:00:00Z")
    );
    assert_eq!(
        said["date-range"]["end-datetime"],
        format!("{yesterday}T23:59:59Z")
    );
    let id = said["report-id"].as_str().unwrap();
    let subject =
        format!("Report Domain: a.test\n Submitter: mail.me.example\n Report-ID: <{id}>\n");
    assert!(
        message.contains(&format!("\nSubject: {subject}")),
        "{message}"
    );
    let date = |words: &[&str]| {
        let date = Command::new("date")
            .args(["-u", "+%s", "-d"])
            .args(words)
            .output();
        String::from_utf8(date.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    let begin = date(&[&format!("{yesterday} 00:00:00")]);
    let end = date(&[&format!("{yesterday} 23:59:59")]);
    assert_eq!(
        String::from_utf8(place.read("report.name")).unwrap(),
        format!("mail.me.example!a.test!{begin}!{end}.json.gz")
    );
    let failure = |result: &str, ip: &str, count: u64| {
        json!({
            "result-type": result, "sending-mta-ip": "192.0.2.9",
            "receiving-mx-hostname": "mx.a.test", "receiving-ip": ip,
            "failure-reason-code": "a reason", "failed-session-count": count,
        })
    };
    let mut passed_over = failure("dnssec-invalid", "192.0.2.1", 1);
    passed_over
        .as_object_mut()
        .unwrap()
        .remove("sending-mta-ip");
    assert_eq!(
        said["policies"],
        json!([
            {
                "policy": {"policy-type": "tlsa", "policy-domain": "a.test"},
                "summary": {"total-successful-session-count": 0, "total-failure-session-count": 1},
                "failure-details": [passed_over],
            },
            {
                "policy": {"policy-type": "tlsa", "policy-string": ["3 1 1 00ff"],
                    "policy-domain": "a.test"},
                "summary": {"total-successful-session-count": 0, "total-failure-session-count": 1},
                "failure-details": [failure("validation-failure", "192.0.2.1", 1)],
            },
            {
                "policy": {"policy-type": "sts", "policy-string": ["version: STSv1",
                    "mode: testing", "mx: *.a.test", "max_age: 86400"], "policy-domain": "a.test",
                    "mx-host": ["*.a.test"]},
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
                "failure-details": [],
            },
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "a.test"},
                "summary": {"total-successful-session-count": 2, "total-failure-session-count": 4},
                "failure-details": [
                    failure("starttls-not-supported", "192.0.2.1", 3),
                    failure("starttls-not-supported", "2001:db8::1", 1),
                ],
            },
        ])
    );
    drop(python);
    read_by_another(&place, message);
}

/// The same message in the eyes of parsedmarc, which receivers of reports use.
fn read_by_another(place: &Place, message: &str) {
    let Some(parsedmarc) = wanted("parsedmarc") else {
        return;
    };
    let file = place.write("report.eml", message);
    let ended = run(Command::new(parsedmarc).args(["--offline", &file]), b"");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.text())
        .unwrap_or_else(|error| panic!("{error}: {} {}", ended.text(), ended.stderr));
    let reports = found["smtp_tls_reports"].as_array().unwrap();
    assert_eq!(reports.len(), 1, "{found}");
    assert_eq!(reports[0]["organization_name"], "mail.me.example");
    let policies = reports[0]["policies"].as_array().unwrap();
    let counts = policies.iter().map(|one| {
        let count = |key: &str| one[key].as_u64().unwrap();
        (
            count("successful_session_count"),
            count("failed_session_count"),
        )
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(0, 1), (0, 1), (1, 0), (2, 4)]);
}

#[test]
fn who_does_not_ask_in_due_form_gets_nothing() {
    need!("nsd");
    let place = Place::new("sslreport-unasked");
    let zone = [
        wants("two", "mailto:r@two.test"),
        wants("two", "mailto:s@two.test"),
        "_smtp._tls.norua IN TXT \"v=TLSRPTv1;\"\n".to_owned(),
        wants("http", "http://log.test/x"),
        "_smtp._tls.other IN TXT \"v=spf1 -all\"\n".to_owned(),
        "none IN TXT \"v=TLSRPTv1; rua=mailto:r@none.test\"\n".to_owned(),
        wants("evil", "mailto:r%0aBcc:x@evil.test"),
        // One string or many, and another record beside it.
        "_smtp._tls.yes IN TXT \"v=TLSRP\" \"Tv1; rua=mailto:r@yes\" \".test\"\n\
         _smtp._tls.yes IN TXT \"something else\"\n"
            .to_owned(),
        wants("more", "mailto:r@more.test,mailto:s@more.test"),
        "_smtp._tls.alias IN CNAME _smtp._tls.yes\n".to_owned(),
    ]
    .concat();
    let home = Home::new(&place, &zone);
    let names = [
        "two", "norua", "http", "other", "none", "evil", "yes", "more", "alias", "nowhere",
    ];
    let sessions = names.map(|name| session(&format!("{name}.test"), None));
    home.kept(1, &lines(&sessions));
    let sent = home.sends();
    let mut told: Vec<_> = sent
        .iter()
        .map(|one| (to(one), field(one, "TLS-Report-Domain")))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("r@more.test", "more.test"),
            ("r@yes.test", "alias.test"),
            ("r@yes.test", "yes.test"),
            ("s@more.test", "more.test"),
        ]
    );
}

#[test]
fn what_would_be_sent_is_printed_and_still_sent_later_once() {
    need!("nsd");
    let place = Place::new("sslreport-print");
    let zone = [
        wants("a", "mailto:r@a.test"),
        wants("b", "https://log.b.test/v1?x=y"),
    ]
    .concat();
    let home = Home::new(&place, &zone);
    home.kept(
        1,
        &lines(&["a.test", "b.test"].map(|one| session(one, None))),
    );
    let before = fs::read_dir(place.path("tlsrpt")).unwrap().count();
    for words in [&["-n"][..], &["-n", &home.taker]] {
        let shown = home.good(words);
        for part in [
            "To: r@a.test\n",
            "TLS-Report-Domain: a.test\n",
            "POST https://log.b.test/v1?x=y\nContent-Type: application/tlsrpt+gzip\n",
            "\"policy-domain\": \"b.test\"",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(home.messages().is_empty());
        assert_eq!(fs::read_dir(place.path("tlsrpt")).unwrap().count(), before);
    }
    // Without a program nothing is mailed, and nothing counts as sent.
    home.kept(1, &lines(&[session("a.test", None)]));
    home.good(&[]);
    assert!(home.messages().is_empty());
    assert_eq!(home.sends().len(), 1);
    assert!(home.sends().is_empty());
    assert_eq!(home.good(&["-n"]), "");
}

#[test]
fn without_its_own_address_nothing_is_mailed() {
    need!("nsd");
    let place = Place::new("sslreport-nobody");
    let zone = [wants("a", "mailto:r@a.test"), wants("b", "mailto:r@b.test")].concat();
    let home = Home::new(&place, &zone);
    home.kept(
        1,
        &lines(&["a.test", "b.test"].map(|one| session(one, None))),
    );
    fs::remove_file(place.path("control/tlsreportfrom")).unwrap();
    let why = "sslreport: warning: no report is mailed: control/tlsreportfrom";
    for words in [&["-n"][..], &[&home.taker]] {
        let ended = home.run(words);
        ended.failed(0, why);
        assert_eq!(ended.text(), "");
    }
    assert!(home.messages().is_empty());
    for (file, text, why) in [
        (
            "control/tlsreportfrom",
            "no address\n",
            "control/tlsreportfrom is not a mail address",
        ),
        (
            "control/tlsreportfrom",
            "a@b\r\nBcc: x\n",
            "control/tlsreportfrom is not a mail address",
        ),
        ("control/me", "two words\n", "control/me is not a host name"),
    ] {
        place.write("control/tlsreportfrom", "reports@me.example\n");
        place.write(file, text);
        if text.starts_with("a@b") {
            // The CR is a blank at the end.
            assert_eq!(home.sends().len(), 2);
            continue;
        }
        home.run(&[&home.taker]).failed(111, why);
    }
    fs::remove_file(place.path("control/me")).unwrap();
    home.run(&[&home.taker])
        .failed(111, "there is no control/me");
}

#[test]
fn where_nothing_is_kept_a_run_says_so() {
    need!("nsd");
    let place = Place::new("sslreport-off");
    let home = Home::new(&place, "");
    // Kept, and nothing came.
    home.good(&[&home.taker]);
    fs::remove_dir(place.path("tlsrpt")).unwrap();
    home.run(&[&home.taker])
        .failed(111, "fatal: there is no directory tlsrpt in ");
    let mut command = home.command(&[]);
    command.env("QMAILHOME", "/nonexistent");
    run(&mut command, b"").failed(111, "unable to use /nonexistent (QMAILHOME): no such file");
    home.run(&["-x"]).failed(100, "sslreport: usage: ");
}

#[test]
fn what_a_program_does_not_take_is_sent_again_and_nothing_else() {
    need!("nsd");
    let place = Place::new("sslreport-again");
    let zone = ["a", "b", "c"].map(|name| wants(name, &format!("mailto:r@{name}.test")));
    let home = Home::new(&place, &zone.concat());
    let sessions = ["a.test", "b.test", "c.test"].map(|one| session(one, None));
    home.kept(1, &lines(&sessions));
    let picky = place.script(
        "picky",
        &format!(
            "#!/bin/sh\nmessage=$(cat)\ncase $message in *'To: r@b.test'*) exit 51;; esac\n\
             printf '%s\\n' \"$message\" | '{}'\n",
            home.taker
        ),
    );
    for _ in 0..2 {
        let ended = home.run(&[&picky]);
        ended.failed(111, "for b.test to mailto:r@b.test is not sent: ");
        assert!(
            ended.stderr.contains(&format!("{picky} exited 51")),
            "{}",
            ended.stderr
        );
    }
    let sent = home.messages();
    assert_eq!(
        sent.iter().map(|one| to(one)).collect::<Vec<_>>(),
        ["r@a.test", "r@c.test"]
    );
    let killed = place.script("killed", "#!/bin/sh\nkill -9 $$\n");
    home.run(&[&killed]).failed(111, "was ended by signal 9");
    home.run(&["/nonexistent/program"])
        .failed(111, "unable to run /nonexistent/program: no such file");
    // One that reads nothing takes it all the same, if it says so.
    let sent: Vec<String> = home.sends();
    assert_eq!(
        sent.iter().map(|one| to(one)).collect::<Vec<_>>(),
        ["r@b.test"]
    );
    assert!(home.sends().is_empty());
}

#[test]
fn a_program_and_its_files_are_found_from_where_it_was_called() {
    need!("nsd");
    let place = Place::new("sslreport-relative");
    let home = Home::new(&place, &wants("a", "mailto:r@a.test"));
    home.kept(1, &session("a.test", None).to_string());
    let folder = place.path("elsewhere");
    fs::create_dir(&folder).unwrap();
    place.write("elsewhere/where", &home.taker);
    place.script(
        "elsewhere/hand",
        "#!/bin/sh\nread -r taker < \"$1\"\nexec \"$taker\"\n",
    );
    // A home that is itself named from there.
    let mut command = home.command(&["./hand", "where"]);
    command.current_dir(&folder).env("QMAILHOME", "..");
    let ended = run(&mut command, b"");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(home.messages().len(), 1);
}

#[test]
fn what_failed_yesterday_is_tried_once_more_and_what_is_older_is_not() {
    need!("nsd");
    let place = Place::new("sslreport-days");
    let home = Home::new(&place, &wants("a", "mailto:r@a.test"));
    for ago in [-1, 0, 1, 2, 3] {
        home.kept(ago, &lines(&[session("a.test", None)]));
    }
    let mut days: Vec<String> = home
        .sends()
        .iter()
        .map(|one| report(&place, one)["date-range"]["start-datetime"].to_string())
        .collect();
    days.sort();
    assert_eq!(
        days,
        [2, 1].map(|ago| format!("\"{}T00:00:00Z\"", day(ago)))
    );
}

#[test]
fn a_run_that_is_killed_sends_nothing_twice() {
    need!("nsd");
    let place = Place::new("sslreport-killed");
    let zone = ["a", "b", "c"].map(|name| wants(name, &format!("mailto:r@{name}.test")));
    let home = Home::new(&place, &zone.concat());
    let sessions = ["a.test", "b.test", "c.test"].map(|one| session(one, None));
    home.kept(1, &lines(&sessions));
    // The program takes the message, and whoever gave it is gone.
    let killer = place.script(
        "killer",
        &format!("#!/bin/sh\n'{}'\nkill -9 $PPID\n", home.taker),
    );
    let mut sent = Vec::new();
    for round in 0..4 {
        let ended = home.run(&[&killer]);
        sent.extend(home.messages());
        let code = if round < 3 { None } else { Some(0) };
        assert_eq!(ended.code, code, "{round}: {}", ended.stderr);
        let told = ended.stderr.lines().count();
        assert_eq!(told, usize::from(round > 0), "{}", ended.stderr);
        assert!(
            round == 0
                || ended
                    .stderr
                    .contains("was interrupted, and may have been sent"),
            "{}",
            ended.stderr
        );
    }
    assert_eq!(
        sent.iter().map(|one| to(one)).collect::<Vec<_>>(),
        ["r@a.test", "r@b.test", "r@c.test"]
    );
    assert!(home.sends().is_empty());
}

#[test]
fn two_runs_at_once_send_each_report_once() {
    need!("nsd");
    let place = Place::new("sslreport-two");
    let zone: Vec<String> = (0..6)
        .map(|one| wants(&format!("d{one}"), &format!("mailto:r@d{one}.test")))
        .collect();
    let home = Home::new(&place, &zone.concat());
    let sessions: Vec<Value> = (0..6)
        .map(|one| session(&format!("d{one}.test"), None))
        .collect();
    home.kept(1, &lines(&sessions));
    let start = || {
        home.command(&[&home.taker])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let runs = [start(), start(), start()];
    for run in runs {
        let ended = run.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
        assert_eq!(ended.status.code(), Some(0));
    }
    assert_eq!(home.messages().len(), 6);
}

#[test]
fn damaged_lines_are_told_and_the_rest_is_reported() {
    need!("nsd");
    let place = Place::new("sslreport-damaged");
    let home = Home::new(&place, &wants("a", "mailto:r@a.test"));
    let good = session("a.test", None).to_string();
    let half = &good[..30];
    let mut evil = session("a.test", None);
    evil["policy-domain"] = json!("a.test\r\nBcc: x@evil.test");
    home.kept(
        1,
        &format!("{good}\nnothing\n{{}}\n\0\u{1}\n{half}\n{evil}\n\n{good}\n{half}"),
    );
    let ended = home.run(&[&home.taker]);
    ended.failed(0, ": 6 damaged lines are left out");
    let sent = home.messages();
    assert_eq!(sent.len(), 1);
    let said = report(&place, &sent[0]);
    assert_eq!(
        said["policies"][0]["summary"]["total-successful-session-count"],
        2
    );
    // A file of sent reports that was not written whole.
    place.write(
        &format!("tlsrpt/{}.sent", day(1)),
        "{\"domain\":\"a.test\",\"rua\":\"mail",
    );
    home.run(&[&home.taker]).failed(0, "damaged lines");
    assert_eq!(home.messages().len(), 1);
    home.run(&[&home.taker]).failed(0, "damaged lines");
    assert!(home.messages().is_empty());
    // One that is longer than any day of mail makes it.
    let account = place.path(&format!("tlsrpt/{}.sent", day(1)));
    let noted = fs::read(&account).unwrap();
    let file = fs::File::create(&account).unwrap();
    file.set_len(65 << 20).unwrap();
    let end = [b"\n", &noted[..]].concat();
    file.write_all_at(&end, 65 << 20).unwrap();
    home.run(&[&home.taker]).failed(0, "damaged lines");
    assert!(home.messages().is_empty(), "sent twice");
    home.kept(1, &format!("{good}\nnothing\n"));
    home.run(&[&home.taker])
        .failed(0, ": 1 damaged line is left out");
    // What is no file is no sessions.
    let path = place.path(&format!("tlsrpt/{}.sessions", day(1)));
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    home.run(&[&home.taker])
        .failed(111, "unable to read the sessions of ");
}

#[test]
fn where_no_account_can_be_kept_nothing_is_sent() {
    need_root!();
    need!("nsd");
    let place = Place::new("sslreport-readonly");
    let home = Home::new(&place, &wants("a", "mailto:r@a.test"));
    if run(Command::new("unshare").args(["-m", "true"]), b"").code != Some(0) {
        skip!("nobody can mount here");
    }
    let folder = place.text("tlsrpt");
    let name = format!("{}.sessions", day(1));
    let text = lines(&[session("a.test", None)]);
    let source = place.write("sessions", &text);
    for (about, prepare, why) in [
        (
            "read-only",
            "mount -o remount,ro T",
            "unable to keep account of sent reports in tlsrpt",
        ),
        (
            "full",
            "head -c 1000000 /dev/zero > T/fill",
            "no space left on device",
        ),
    ] {
        let script = format!(
            "mount -t tmpfs -o size=64k none T && cp S T/{name} && {{ {prepare}; true; }} 2>/dev/null && exec \"$@\""
        );
        let script = script
            .replace('T', &folder)
            .replace(" S ", &format!(" {source} "));
        let mut command = Command::new("unshare");
        command.args(["-m", "/bin/sh", "-c", &script, "sh"]);
        command.arg(ours("sslreport")).arg(&home.taker);
        command.env("QMAILHOME", place.path(""));
        command.env("DNSCACHEIP", home.names.ip.to_string());
        let ended = run(&mut command, b"");
        ended.failed(111, why);
        assert!(home.messages().is_empty(), "{about}");
    }
    // Whose folder it is not.
    fs::set_permissions(place.path("tlsrpt"), fs::Permissions::from_mode(0o755)).unwrap();
    home.kept(1, &text);
    if crate::harness::overlay::reachable() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(ours("sslreport")).arg(&home.taker);
        command.env("QMAILHOME", place.path(""));
        command.env("DNSCACHEIP", home.names.ip.to_string());
        run(&mut command, b"").failed(
            111,
            "unable to keep account of sent reports in tlsrpt: permission denied",
        );
    } else {
        skip_part!("an ordinary user cannot run the programs here");
    }
    assert!(home.messages().is_empty());
}

#[test]
fn files_are_removed_after_two_weeks() {
    need!("nsd");
    let place = Place::new("sslreport-old");
    let home = Home::new(&place, "");
    let mut stays = vec!["notes".to_owned(), format!("{}.mine", day(400))];
    for ago in [-400, -1, 0, 1, 13, 14] {
        stays.push(format!("{}.sessions", day(ago)));
    }
    let goes = [15, 16, 400, 20000].map(day);
    for name in &stays {
        place.write(&format!("tlsrpt/{name}"), "");
    }
    for day in &goes {
        place.write(&format!("tlsrpt/{day}.sessions"), "");
        place.write(&format!("tlsrpt/{day}.sent"), "");
    }
    let names = || {
        let folder = fs::read_dir(place.path("tlsrpt")).unwrap();
        let mut names: Vec<String> = folder
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| *name != format!("{}.sent", day(1)))
            .collect();
        names.sort();
        names
    };
    let all = names();
    assert_eq!(all.len(), stays.len() + 8);
    home.good(&["-n"]);
    assert_eq!(names(), all);
    home.good(&[&home.taker]);
    stays.sort();
    assert_eq!(names(), stays);
}

#[test]
fn nobody_to_ask_is_no_nobody_who_asks() {
    need!("nsd");
    let place = Place::new("sslreport-dns");
    let home = Home::new(&place, &wants("a", "mailto:r@a.test"));
    // NSD refuses what is none of its zones.
    home.kept(1, &lines(&[session("a.other", None)]));
    home.run(&[&home.taker]).failed(
        111,
        "1 of 1 domains could not be asked whether they want reports: a.other: ",
    );
    home.kept(
        1,
        &lines(&[session("a.other", None), session("a.test", None)]),
    );
    for sent in [1, 0] {
        home.run(&[&home.taker])
            .failed(111, "whether they want reports: a.other: ");
        assert_eq!(home.messages().len(), sent, "the other one, once");
    }
}

/// A web server for some requests, which it answers so; what it got: the head and the
/// body.
fn web(ip: IpAddr, answers: Vec<&'static str>) -> std::thread::JoinHandle<Vec<(String, Vec<u8>)>> {
    let listener = std::net::TcpListener::bind((ip, 443)).unwrap();
    let identity = Leaf::new("log").dns("log.test").issue();
    let context = peer::context(&identity, |_| ());
    std::thread::spawn(move || {
        let one = |answer: &&str| {
            let stream = peer::accept(&listener);
            let ssl = openssl::ssl::Ssl::new(&context).unwrap();
            let mut stream = ssl.accept(stream).unwrap();
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            let (head, body) = loop {
                let end = bytes.windows(4).position(|some| some == b"\r\n\r\n");
                if let Some(end) = end {
                    let head = String::from_utf8(bytes[..end + 2].to_vec()).unwrap();
                    let length = head.to_ascii_lowercase();
                    let (_, length) = length.split_once("content-length: ").unwrap();
                    let length: usize = length.split('\r').next().unwrap().parse().unwrap();
                    if bytes.len() == end + 4 + length {
                        break (head, bytes[end + 4..].to_vec());
                    }
                }
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "{}", String::from_utf8_lossy(&bytes));
                bytes.extend(&piece[..count]);
            };
            stream.write_all(answer.as_bytes()).unwrap();
            let _ = stream.shutdown();
            (head, body)
        };
        answers.iter().map(one).collect()
    })
}

#[test]
fn a_web_server_gets_the_packed_report_until_it_has_taken_it() {
    need_root!();
    need!("nsd");
    let place = Place::new("sslreport-web");
    let ip = fresh_ip();
    let zone = format!(
        "log IN A {ip}\n{}",
        wants("a", "https://log.test/tls/v1?id=7")
    );
    let home = Home::new(&place, &zone);
    home.kept(1, &lines(&[session("a.test", Some("certificate-expired"))]));
    let root = place.write("root.pem", Authority::shared_root().pem());
    let sends = |trusts: bool| {
        let mut command = home.command(&[]);
        if trusts {
            command.env("SSL_CERT_FILE", &root);
        }
        run(&mut command, b"")
    };
    let failed = "for a.test to https://log.test/tls/v1?id=7 is not sent: ";
    let refusing = web(
        ip,
        vec![
            "HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 301 away\r\nLocation: https://log.test/\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        ],
    );
    sends(true).failed(111, &format!("{failed}the server answered 500"));
    sends(true).failed(111, &format!("{failed}the server answered 301"));
    let ended = sends(true);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for (head, body) in refusing.join().unwrap() {
        assert!(head.starts_with("POST /tls/v1?id=7 HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\nhost: log.test\r\n"), "{head}");
        assert!(
            head.contains("\r\ncontent-type: application/tlsrpt+gzip\r\n"),
            "{head}"
        );
        let unpacked = run(Command::new("gzip").arg("-dc"), &body);
        let said: Value = serde_json::from_str(&unpacked.text()).unwrap();
        let failures = &said["policies"][0]["failure-details"];
        assert_eq!(failures[0]["result-type"], "certificate-expired");
        assert_eq!(said["contact-info"], "reports@me.example");
    }
    // It was taken: nobody listens any more, and nobody is called.
    let ended = sends(true);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_report_is_given_to_no_server_that_nobody_vouches_for() {
    need_root!();
    need!("nsd");
    let place = Place::new("sslreport-vouch");
    let ip = fresh_ip();
    let zone = format!("log IN A {ip}\n{}", wants("a", "https://log.test/"));
    let home = Home::new(&place, &zone);
    home.kept(1, &lines(&[session("a.test", None)]));
    let listener = std::net::TcpListener::bind((ip, 443)).unwrap();
    let context = peer::context(&Leaf::new("log").dns("other.test").issue(), |_| ());
    let server = std::thread::spawn(move || {
        let ssl = openssl::ssl::Ssl::new(&context).unwrap();
        let mut byte = [0];
        ssl.accept(peer::accept(&listener))
            .is_ok_and(|mut stream| stream.read(&mut byte).is_ok_and(|count| count > 0))
    });
    let root = place.write("root.pem", Authority::shared_root().pem());
    let mut command = home.command(&[]);
    command.env("SSL_CERT_FILE", &root);
    run(&mut command, b"").failed(111, "is not sent: ");
    assert!(!server.join().unwrap());
}

#[test]
fn a_program_that_outlives_its_run_is_not_given_the_same_again() {
    need!("nsd");
    let place = Place::new("sslreport-outlived");
    let home = Home::new(&place, &wants("a", "mailto:r@a.test"));
    home.kept(1, &lines(&[session("a.test", None)]));
    // It waits for the test's word before it takes the message.
    let slow = place.script(
        "slow",
        &format!(
            "#!/bin/sh\ncd '{}' || exit 1\n: > running\nfor try in $(seq 600); do [ ! -e go ] || break; sleep 0.05; done\n'{}'\n",
            place.text(""),
            home.taker
        ),
    );
    let mut first = home
        .command(&[&slow])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the program runs", || {
        place.path("running").exists().then_some(())
    });
    first.kill().unwrap();
    first.wait().unwrap();
    home.run(&[&home.taker])
        .failed(0, "was interrupted, and may have been sent");
    assert!(home.messages().is_empty());
    place.write("go", "");
    let came = eventually("the message", || {
        let came = home.messages();
        (!came.is_empty()).then_some(came)
    });
    // Whole, although nobody is there any more who wrote it.
    report(&place, &came[0]);
    assert!(home.sends().is_empty());
}
