//! Rules from text to verdict: sslrules and sslrulescheck beside Debian's
//! tcprules and tcprulescheck, and databases that are damaged in every way.
#![forbid(unsafe_code)]
// The texts are short.
#![allow(clippy::format_collect)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ucspi_tls::internals::rules::{Action, Client, Rules, Scope, compile};
use ucspi_tls::internals::rulesdb::{self, Database};

use crate::harness::process::run_on;
use crate::harness::{Finished, Place, need, ours, run, skip, skip_part, wanted};

/// Whose program it is: ours, or one of ucspi-tcp.
fn path_of(program: &str) -> String {
    if program.starts_with("ssl") {
        ours(program)
    } else {
        program.to_owned()
    }
}

/// `PROGRAM rules.cdb rules.tmp < text` in a directory.
fn rules(program: &str, dir: &Place, text: impl AsRef<[u8]>) -> Finished {
    let mut command = Command::new(path_of(program));
    command.args(["rules.cdb", "rules.tmp"]).current_dir(dir);
    run(&mut command, text.as_ref())
}

/// Exit code and words of sslrulescheck or tcprulescheck.
fn check(program: &str, cdb: &Path, environment: &[(&str, &[u8])]) -> (Option<i32>, Vec<u8>) {
    let mut command = Command::new(path_of(program));
    // tcprulescheck is looked for in our own PATH.
    command.arg(cdb).env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    for (name, value) in environment {
        command.env(name, OsStr::from_bytes(value));
    }
    let ended = run(&mut command, b"");
    (ended.code, ended.stdout)
}

fn answer(cdb: &Path, environment: &[(&str, &str)]) -> String {
    let environment: Vec<(&str, &[u8])> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    let (code, out) = check("sslrulescheck", cdb, &environment);
    assert_eq!(code, Some(0), "{environment:?}");
    String::from_utf8(out).expect("ASCII")
}

/// The bytes of the database that sslrules makes of a text.
fn image(name: &str, text: &str) -> Vec<u8> {
    let dir = Place::new(&format!("rules-{name}"));
    let output = rules("sslrules", &dir, text);
    assert_eq!(output.code, Some(0), "{output:?}");
    fs::read(dir.path("rules.cdb")).expect("made")
}

fn client(ip: &str, name: Option<&str>, info: Option<&str>) -> Client {
    Client::new(
        ip.parse().expect("an address"),
        name.map(str::as_bytes),
        info.map(str::as_bytes),
    )
}

/// Numbers that are the same in every run (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn octet(&mut self) -> &'static str {
        self.pick(&["1", "2", "3", "10", "255"])
    }

    fn address(&mut self) -> String {
        let host = [
            "=", "=a", "=a.b", "=.b", "=.a.b", "=c.a.b", "=A.b", "=c-d.b", "=",
        ];
        match self.below(12) {
            0 => String::new(),
            1 | 2 => [(); 4].map(|()| self.octet()).join("."),
            3 => format!("{}.", self.octet()),
            4 => format!("{}.{}.{}.", self.octet(), self.octet(), self.octet()),
            5 => self.pick(&host).to_owned(),
            6 => {
                let info = self.pick(&["", "j", "j@k", "j-k"]);
                format!("{info}@1.{}.3.1", self.octet())
            }
            7 => format!("j@{}", self.pick(&host)),
            8 => {
                let ends = [
                    "",
                    "0",
                    "1",
                    "3",
                    "03",
                    "9",
                    "254",
                    "300",
                    "18446744073709551617",
                    "x",
                ];
                let (low, high) = (self.pick(&ends), self.pick(&ends));
                format!("1.2.{low}-{high}{}", self.pick(&["", ".", ".3"]))
            }
            9 => {
                let odd = [
                    "foo", " 1.2.3.1", "1.2.3", "_bc", "^`0", "a,b", "x=y", "-", "\u{e9}",
                ];
                self.pick(&odd).to_owned()
            }
            10 => "2001".to_owned(),
            _ => format!("1.2.{}.", self.octet()),
        }
    }

    fn line(&mut self) -> String {
        let mut line = self.address();
        let instructions = [
            ":allow", ":deny", ":allow", ":deny", ":allow", ":deny", ":allow", ":deny", ":allow",
            ":deny", ":allow", ":deny", ":allow", ":deny", ":allow", ":deny", ":allow", ":deny",
            ":allowed", ":", "",
        ];
        line.push_str(self.pick(&instructions));
        for _ in 0..self.below(3) {
            line.push_str(self.pick(&[
                ",A=\"1\"",
                ",A=\"1\"",
                ",A=\"2\"",
                ",A=x2x",
                ",B=''",
                ",RELAYCLIENT=\"\"",
                ",CERTFILE=/a:b/",
                ",=x x",
                ",A,B=\"=,\"",
                ",C=\"\u{1}\u{7f}\u{e9}\"",
                ",D",
                ",E=",
            ]));
        }
        line.push_str(self.pick(&["", "", "", "", "", "", "", " ", "\t \t", "\r"]));
        if self.below(10) == 0 && !line.is_empty() {
            // Some noise, of the characters that mean something.
            let noise = self.pick(&[":", ",", "=", "@", "-", ".", "#", "\"", " ", "\n", "1", "a"]);
            let mut at = self.below(line.len());
            while !line.is_char_boundary(at) {
                at -= 1;
            }
            line.insert_str(at, noise);
        }
        line
    }

    /// A few lines: more, and a bad one would hide the rest too often.
    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(4) {
            text.push_str(&self.line());
            text.push('\n');
        }
        if self.below(8) == 0 {
            text.pop();
        }
        text
    }

    /// What the environment of tcprulescheck can hold.
    fn environment(&mut self) -> Vec<(&'static str, String)> {
        let odd = ["", "x", "1.2.3.", "1.2.3.4.5", "foo", "1.2.3", "2001"];
        let ip = if self.below(8) == 0 {
            self.pick(&odd).to_owned()
        } else {
            let first = self.pick(&["1", "1", "2", "10"]);
            let third = self.pick(&["1", "3"]);
            let last = self.pick(&["1", "2", "3", "255"]);
            format!("{first}.2.{third}.{last}")
        };
        let host = self.pick(&[
            "", "a", "a.b", "c.a.b", "c-d.b", "A.b", ".b", "..", "\u{e9}.b",
        ]);
        let info = self.pick(&["", "j", "j@k", "j-k", "=", "x"]);
        [
            ("TCPREMOTEIP", ip),
            ("TCPREMOTEHOST", host.to_owned()),
            ("TCPREMOTEINFO", info.to_owned()),
        ]
        .into_iter()
        .filter(|_| self.below(4) > 0)
        .collect()
    }
}

/// How the contract sets a text apart from tcprules.
enum Difference {
    None,
    /// A colon inside an address: refused by tcprules, perhaps not here.
    Colon,
    /// Accepted by tcprules, refused or compiled differently here: a line
    /// without a colon, or a second range.
    Contract,
}

fn difference(text: &str) -> Difference {
    let mut found = Difference::None;
    for line in text.split('\n') {
        let line = line.trim_end_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((address, _)) = line.split_once(':') else {
            return Difference::Contract;
        };
        let ranges = address.split('.').filter(|part| part.contains('-'));
        if ranges.count() > 1 && !address.contains(['=', '@']) {
            return Difference::Contract;
        }
        let head = line.split(',').next().unwrap_or_default();
        if head.matches(':').count() > 1 {
            found = Difference::Colon;
        }
    }
    found
}

#[test]
fn records_are_those_of_tcprules() {
    need!("tcprules");
    let dir = Place::new("rules-corpus");
    let mut dice = Dice(0x5eed_0001);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..5000 {
        let text = dice.text();
        let output = rules("tcprules", &dir, &text);
        let ours = compile(text.as_bytes());
        match (output.code, difference(&text)) {
            (_, Difference::Contract) | (Some(100), Difference::Colon) => {}
            (Some(0), _) => {
                accepted += 1;
                let ours = ours
                    .unwrap_or_else(|bad| panic!("{bad:?}: {text:?}"))
                    .records;
                let theirs = Database::open(&dir.path("rules.cdb")).expect("sound");
                let ours: Vec<_> = ours.iter().map(|one| (&*one.key, &*one.data)).collect();
                let theirs: Vec<_> = theirs.records().collect();
                assert_eq!(ours, theirs, "{text:?}");
            }
            (Some(100), _) => {
                refused += 1;
                assert!(ours.is_err(), "{text:?}");
            }
            (code, _) => panic!("tcprules: {code:?}"),
        }
    }
    println!("{accepted} texts accepted by both, {refused} refused by both");
    assert!(accepted > 1500 && refused > 500, "{accepted} {refused}");
}

#[test]
fn files_are_those_of_tcprules() {
    need!("tcprules");
    let (ours, theirs) = (
        Place::new("rules-files-ours"),
        Place::new("rules-files-theirs"),
    );
    let many: String = (0..3000)
        .map(|number| {
            let (a, b, c) = (number % 200, number % 7, number / 200);
            format!("{a}.{b}.{c}.7:allow,A=\"{number}\"\n")
        })
        .collect();
    for text in [
        "",
        "\n#\n",
        ":deny\n",
        "1.2.3.0-255:allow,A=\"x\"\n:deny",
        "1.2.3.4:allow\n1.2.3.4:deny\n1.2.3.4:allow,A='b'\n",
        &many,
    ] {
        for (program, dir) in [("sslrules", &ours), ("tcprules", &theirs)] {
            let output = rules(program, dir, text);
            assert_eq!(output.code, Some(0), "{output:?}");
            assert!(!dir.path("rules.tmp").exists());
        }
        let read = |dir: &Place| fs::read(dir.path("rules.cdb")).expect("made");
        assert!(read(&ours) == read(&theirs), "{text:.40}");
        let mode = |dir: &Place| fs::metadata(dir.path("rules.cdb")).expect("made").mode();
        assert_eq!(mode(&ours), mode(&theirs));
    }
}

#[test]
fn files_of_any_bytes_are_those_of_cdbmake() {
    need!("cdbmake");
    let dir = Place::new("rules-cdbmake");
    let mut dice = Dice(0x5eed_0004);
    // None, one, many of one key (a crowded table), and keys and data of any
    // bytes and lengths.
    let mut lists = vec![vec![], vec![(vec![], vec![])]];
    lists.push(vec![(b"key".to_vec(), b"data".to_vec()); 700]);
    for count in [1, 2, 3, 50, 2000] {
        let mut bytes = |most| -> Vec<u8> {
            let length = dice.below(most);
            let byte = |_| u8::try_from(dice.below(256)).expect("a byte");
            (0..length).map(byte).collect()
        };
        lists.push((0..count).map(|_| (bytes(20), bytes(300))).collect());
    }
    for records in lists {
        let mut text = Vec::new();
        for (key, data) in &records {
            text.extend(format!("+{},{}:", key.len(), data.len()).into_bytes());
            text.extend([key, &b"->"[..], data, b"\n"].concat());
        }
        text.push(b'\n');
        let mut command = Command::new("cdbmake");
        command.args(["theirs.cdb", "theirs.tmp"]).current_dir(&dir);
        let ended = run(&mut command, &text);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let ours = dir.path("ours.cdb");
        let given = records.iter().map(|(key, data)| (&key[..], &data[..]));
        rulesdb::replace(&ours, &dir.path("ours.tmp"), given).expect("written");
        let (ours, theirs) = (fs::read(ours), fs::read(dir.path("theirs.cdb")));
        assert!(ours.expect("made") == theirs.expect("made"), "{records:?}");
    }
}

#[test]
fn answers_are_those_of_tcprulescheck() {
    need!("tcprules");
    need!("tcprulescheck");
    let dir = Place::new("rules-answers");
    let cdb = dir.path("rules.cdb");
    let mut dice = Dice(0x5eed_0002);
    let mut met = BTreeSet::new();
    let mut asked = 0;
    while asked < 2000 {
        let mut text = String::new();
        for _ in 0..20 {
            let line = dice.line();
            if compile(line.as_bytes()).is_ok() {
                text.push_str(&line);
                text.push('\n');
            }
        }
        // Networks are ours alone.
        if text.contains(['_', '^']) || rules("tcprules", &dir, &text).code != Some(0) {
            continue;
        }
        for _ in 0..5 {
            let environment = dice.environment();
            let environment: Vec<_> = environment
                .iter()
                .map(|(name, value)| (*name, value.as_bytes()))
                .collect();
            let theirs = check("tcprulescheck", &cdb, &environment);
            let ours = check("sslrulescheck", &cdb, &environment);
            assert_eq!(ours, theirs, "{text:?} {environment:?}");
            let rule = theirs.1.split(|&byte| byte == b'\n').next();
            met.insert(rule.map(<[u8]>::to_vec));
            asked += 1;
        }
    }
    println!("{asked} answers, {} different rules", met.len());
    assert!(met.len() > 25, "only {} rules were met", met.len());
}

#[test]
fn bad_lines_end_with_100_and_leave_the_old_database() {
    let dir = Place::new("rules-bad-lines");
    assert_eq!(rules("sslrules", &dir, ":deny\n").code, Some(0));
    let before = fs::read(dir.path("rules.cdb")).expect("made");
    for (line, reason) in [
        ("10.0.0/8:allow", "bad address"),
        ("2001:db8::zz:deny", "bad address"),
        ("2001:db8::1::2:deny", "bad address"),
        ("local=host:allow", "bad address"),
        ("sni=a b:allow", "bad address"),
        ("1.2.3.x-9:allow", "bad range"),
        ("1-2-3.4.5.6:allow", "bad range"),
        ("0-255.0-255.0-255.0-255:allow", "bad range"),
        ("1.2.3.4:", "no allow or deny"),
        ("1.2.3.4:ALLOW", "no allow or deny in small letters"),
        ("1.2.3.4:allow ,A=\"x\"", "a blank behind allow or deny"),
        ("1.2.3.4:allow,A=\"x", "unterminated value"),
        ("1.2.3.4:deny,A=\"", "unterminated value"),
        ("10.0.0.0/33:deny", "prefix length too long"),
        ("2001:db8::/129:deny", "prefix length too long"),
        ("1.2.3.4", "no colon"),
        ("1.2.3.4;deny", "no colon"),
    ] {
        let text = format!("# first\n\n1.2.3.4:allow\n{line} \t\n:deny\n");
        let output = rules("sslrules", &dir, text);
        assert_eq!(output.code, Some(100), "{line}");
        let says = format!("line 4: unable to parse this line: {reason}: {line}");
        assert_eq!(output.stderr, format!("sslrules: fatal: {says}\n"));
        assert!(!dir.path("rules.tmp").exists());
        assert_eq!(fs::read(dir.path("rules.cdb")).expect("there"), before);
    }
    let output = rules("sslrules", &dir, "1.2.3.4\n:deny\n::\nx\n");
    assert_eq!(output.code, Some(100));
    let named: Vec<String> = ["line 1: ", "line 3: ", "line 4: "]
        .iter()
        .map(|line| format!("sslrules: fatal: {line}unable to parse this line"))
        .collect();
    let said = output.stderr;
    assert_eq!(said.lines().count(), named.len(), "{said}");
    for (line, begin) in said.lines().zip(&named) {
        assert!(line.starts_with(begin.as_str()), "{said}");
    }
    // tcprules takes these without a word; so do we, but with one.
    let output = rules("sslrules", &dir, ":deny\n1.2.3:deny\n1.2.3.9-4:deny\n");
    assert_eq!(output.code, Some(0));
    assert_eq!(
        output.stderr,
        "sslrules: warning: line 2: no client has this address: 1.2.3:deny\n\
         sslrules: warning: line 3: this range is empty: 1.2.3.9-4:deny\n"
    );
    for arguments in [&[][..], &["a.cdb"], &["a.cdb", "a.tmp", "text"]] {
        let output = run(Command::new(ours("sslrules")).args(arguments), b"");
        assert_eq!(output.code, Some(100));
        let usage = " arguments; sslrules [ -t ] rules.cdb rules.tmp\n";
        assert!(
            output.stderr.starts_with("sslrules: usage: too "),
            "{output:?}"
        );
        assert!(output.stderr.ends_with(usage), "{output:?}");
    }
}

/// What sslserver would not read is not made, nor read by sslrulescheck.
#[test]
fn rules_over_16_mb_are_refused_and_leave_the_old_database() {
    let dir = Place::new("too-large");
    let cdb = dir.path("rules.cdb");
    assert!(rules("sslrules", &dir, ":allow,OLD=\"1\"\n").code == Some(0));
    let old = fs::read(&cdb).unwrap();
    let value = "x".repeat(1 << 20);
    let lines = (0..17).map(|last| format!("192.0.2.{last}:allow,V=\"{value}\"\n"));
    let text: String = lines.collect();
    let ended = rules("sslrules", &dir, &text);
    assert_eq!(ended.code, Some(100));
    assert!(
        ended
            .stderr
            .ends_with("cdb would be larger than 16 MB, and sslserver reads no such rules\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read(&cdb).unwrap(), old);
    // Just below it both read what is there.
    let (most, _) = text.rsplit_once("192.0.2.15").unwrap();
    assert!(rules("sslrules", &dir, most).code == Some(0));
    let (code, _) = check("sslrulescheck", &cdb, &[]);
    assert_eq!(code, Some(0));
    let file = fs::OpenOptions::new().write(true).open(&cdb).unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    let (code, _) = check("sslrulescheck", &cdb, &[]);
    assert_eq!(code, Some(111));
}

/// tcprules takes them without a word, and its records are these; what was meant may
/// be another thing.
#[test]
fn ranges_and_variables_that_are_not_what_they_look_like_are_remarked_on() {
    let dir = Place::new("rules-looks");
    let no_name = "a variable without a name";
    for (line, remarks) in [
        ("1.2.3.250-300:allow", &["this range counts as 250-255"][..]),
        ("1.250-256.:deny", &["this range counts as 250-255"]),
        (
            "1.2.3.0-18446744073709551618:deny",
            &["this range counts as 0-2"],
        ),
        (
            "1.2.3.18446744073709551617-2:deny",
            &["this range counts as 1-2"],
        ),
        ("1.2.3.-5:allow", &["this range counts as 0-5"]),
        ("-5.:deny", &["this range counts as 0-5"]),
        ("1.2.3.-:allow", &["this range counts as 0-0"]),
        ("1.2-3.3.-5:allow", &["this range counts as 0-5"]),
        (":allow,=\"a\"", &[no_name]),
        ("=host:deny,A=\"1\",=\"a\"", &[no_name]),
        (
            "1.2.3.-5:allow,=\"a\"",
            &["this range counts as 0-5", no_name],
        ),
        ("1.2.3.5-:allow", &["this range is empty"]),
        ("1.2.3.256-300:allow", &["this range is empty"]),
        ("1.2.3.004-5:allow", &[]),
        ("1.2.3.250-255:allow", &[]),
    ] {
        let ended = rules("sslrules", &dir, format!("\n{line}\n"));
        assert_eq!(ended.code, Some(0), "{line}: {}", ended.stderr);
        let said: Vec<&str> = ended.stderr.lines().collect();
        let wanted = |why: &&str| format!("sslrules: warning: line 2: {why}: {line}");
        let wanted: Vec<String> = remarks.iter().map(wanted).collect();
        assert_eq!(said, wanted);
    }
}

#[test]
fn misspelt_settings_are_remarked_on_with_the_name_that_was_meant() {
    let dir = Place::new("rules-misspelt");
    let text = "# settings\n\
                :allow, CERTFILE=\"/x\"\n\
                1.2.3.4-6:allow,CERT_FILE=\"/x\",RELAYCLIENT=\"\",TLSMIN=\"1.3\"\n\
                1.2.3.7:allow,CERTFILE=\"/x\",RBLSMTPD=\"\"\n";
    let done = rules("sslrules", &dir, text);
    assert_eq!(done.code, Some(0), "it is tcprules' text all the same");
    assert_eq!(
        done.stderr,
        "sslrules: warning: line 2: variable \" CERTFILE\" is not a setting: is CERTFILE meant, without a blank?\n\
         sslrules: warning: line 3: variable \"CERT_FILE\" is not a setting: is CERTFILE meant?\n\
         sslrules: warning: line 3: variable \"TLSMIN\" is not a setting: is TLS_MIN meant?\n"
    );
}

#[test]
fn a_failed_replacement_leaves_the_old_database() {
    let dir = Place::new("rules-failures");
    assert_eq!(rules("sslrules", &dir, "1.2.3.4:deny\n").code, Some(0));
    let old = fs::read(dir.path("rules.cdb")).expect("made");
    fs::create_dir_all(dir.path("directory/x")).expect("made");
    for (cdb, temporary, says) in [
        (
            "rules.cdb",
            "/dev/full",
            "write to /dev/full: no space left on device",
        ),
        (
            "rules.cdb",
            "/dev/null",
            "write to /dev/null: damaged or not a cdb",
        ),
        (
            "rules.cdb",
            "none/rules.tmp",
            "create none/rules.tmp: no such file or directory",
        ),
        ("rules.cdb", "directory", "create directory: is a directory"),
        (
            "directory",
            "rules.tmp",
            "move rules.tmp to directory: is a directory",
        ),
        (
            "none/a",
            "rules.tmp",
            "move rules.tmp to none/a: no such file or directory",
        ),
    ] {
        let mut command = Command::new(ours("sslrules"));
        command.args([cdb, temporary]).current_dir(&dir);
        let output = run(&mut command, b":allow\n");
        assert_eq!(output.code, Some(111), "{says}");
        let line = format!("sslrules: fatal: unable to {says}\n");
        assert_eq!(output.stderr, line);
        assert!(!dir.path("rules.tmp").exists(), "{says}");
        assert_eq!(fs::read(dir.path("rules.cdb")).expect("there"), old);
    }
    assert!(!fs::metadata("/dev/full").expect("there").is_file());

    // Opening it would empty the database.
    fs::hard_link(dir.path("rules.cdb"), dir.path("same")).expect("linked");
    let mut command = Command::new(ours("sslrules"));
    command.args(["rules.cdb", "same"]).current_dir(&dir);
    let output = run(&mut command, b":allow\n");
    assert_eq!(output.code, Some(100));
    assert_eq!(fs::read(dir.path("rules.cdb")).expect("there"), old);

    // Its input cannot be read.
    let mut command = Command::new(ours("sslrules"));
    command.args(["rules.cdb", "rules.tmp"]).current_dir(&dir);
    let output = run_on(command.stdin(File::open(&dir).expect("a directory")));
    assert_eq!(output.code, Some(111));
    assert_eq!(
        output.stderr,
        "sslrules: fatal: unable to read input: is a directory\n"
    );
    assert_eq!(fs::read(dir.path("rules.cdb")).expect("there"), old);
}

#[test]
fn a_directory_that_cannot_be_written_leaves_the_old_database() {
    let dir = Place::new("rules-read-only");
    assert_eq!(rules("sslrules", &dir, "1.2.3.4:deny\n").code, Some(0));
    let old = fs::read(dir.path("rules.cdb")).expect("made");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).expect("mine");
    let mut command = Command::new(ours("sslrules"));
    command.args(["rules.cdb", "rules.tmp"]).current_dir(&dir);
    // Root could write all the same.
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if root {
        command.uid(65534).gid(65534);
    }
    let started = command.stdin(Stdio::null()).output();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("mine");
    let output = match started {
        Err(error) if root && error.kind() == ErrorKind::PermissionDenied => {
            skip!("another user cannot reach the program: {error}");
        }
        started => started.expect("starts"),
    };
    assert_eq!(output.status.code(), Some(111));
    assert_eq!(
        String::from_utf8(output.stderr).expect("ASCII"),
        "sslrules: fatal: unable to create rules.tmp: permission denied\n"
    );
    assert_eq!(fs::read(dir.path("rules.cdb")).expect("there"), old);
}

#[test]
fn writers_of_one_temporary_file_never_show_half_a_database() {
    let dir = Place::new("rules-writers");
    let cdb = dir.path("rules.cdb");
    let text = |writer: usize| -> String {
        (0..200 * (1 + writer))
            .map(|one| format!("10.{writer}.{}.{}:deny\n", one / 250, one % 250))
            .collect()
    };
    assert_eq!(rules("sslrules", &dir, text(0)).code, Some(0));
    let done = AtomicBool::new(false);
    let read = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !done.load(Ordering::Relaxed) || read == 0 {
                let rules = Rules::open(&cdb).expect("whole, always");
                let first = rules.iter().next().expect("a rule").address();
                let writer: usize = first
                    .split('.')
                    .nth(1)
                    .and_then(|octet| octet.parse().ok())
                    .expect("a number");
                assert_eq!(rules.iter().count(), 200 * (1 + writer));
                read += 1;
            }
            read
        });
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let dir = &dir;
                scope.spawn(move || {
                    for _ in 0..10 {
                        let output = rules("sslrules", dir, text(writer));
                        assert_eq!(output.code, Some(0), "{output:?}");
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        reader.join().expect("no failure")
    });
    println!("read {read} times");
    assert!(!dir.path("rules.tmp").exists());
}

/// Denies some, each by another kind of rule, and allows everyone else: who
/// loses a rule gets in.
const MIXED: &str = "1.2.3.4:deny,A=\"1\"\n1.2.3.5:allow,A=\"1\",CERTFILE=\"/etc/x\"\n\
    10.0.0.0/8:deny\n=a.b:deny\nj@1.2.3.5:deny\n2001:db8::1:deny\n1.2.4.:deny\n=.c:deny\n\
    local=127.0.0.1:deny\nsni=a.b:deny\nsni=*.c:deny\n:allow\n";

/// Opens an image if it is sound, and asks for all that [`MIXED`] denies.
fn never_allows(image: Vec<u8>) -> bool {
    let Ok(rules) = Database::from_image(image).and_then(Rules::new) else {
        return false;
    };
    for (ip, name, info) in [
        ("1.2.3.4", None, None),
        ("10.9.8.7", None, None),
        ("1.2.3.6", Some("a.b"), None),
        ("1.2.3.5", None, Some("j")),
        ("2001:db8::1", None, None),
        ("1.2.4.1", None, None),
        ("1.2.3.6", Some("b.c"), None),
    ] {
        let rule = rules.lookup(&client(ip, name, info));
        let rule = rule.expect("the last one, at least");
        assert_eq!(rule.action(), Action::Deny, "{ip} {name:?} {info:?}");
    }
    let local = rules.lookup_local("127.0.0.1".parse().expect("an address"));
    assert_eq!(local.map(|rule| rule.action()), Some(Action::Deny));
    for name in [b"a.b", b"x.c"] {
        let sni = rules.lookup_sni(name);
        assert_eq!(sni.map(|rule| rule.action()), Some(Action::Deny));
    }
    true
}

#[test]
fn a_database_cut_at_any_length_is_refused() {
    let dir = Place::new("rules-cuts");
    for text in [MIXED, ":deny\n", "", "1.2.3.4:deny\n:deny\n"] {
        let whole = image("cuts-image", text);
        for length in 0..whole.len() {
            let cut = Database::from_image(whole[..length].to_vec());
            assert!(cut.is_err(), "{length} bytes of {text:?}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(Database::from_image(longer).is_err(), "{text:?}");
        assert!(Database::from_image(whole).is_ok(), "{text:?}");
    }
    let whole = image("cuts-image", MIXED);
    let cut = dir.path("cut.cdb");
    let end = whole.len();
    for length in [0, 1, 2047, 2048, 2056, end / 2, end - 8, end - 1] {
        fs::write(&cut, &whole[..length]).expect("written");
        let error = Rules::open(&cut).expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(check("sslrulescheck", &cut, &[]), (Some(111), Vec::new()));
    }
}

#[test]
fn a_flipped_bit_never_allows() {
    let whole = image("bits", MIXED);
    assert!(never_allows(whole.clone()));
    let mut unnoticed = 0;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            unnoticed += usize::from(never_allows(flipped));
        }
    }
    // What no check can see: the texts of names and values, and where an empty
    // table would be.
    let all = whole.len() * 8;
    println!("{unnoticed} of {all} flips go unnoticed, and allow nobody");
    let empty_tables = 8 * 4 * 256;
    assert!(unnoticed < empty_tables + 8 * MIXED.len(), "{unnoticed}");
}

#[test]
fn pointers_out_of_range_never_allow_crash_or_loop() {
    let whole = image("pointers", MIXED);
    let length = u32::try_from(whole.len()).expect("small");
    let values = [
        0,
        1,
        7,
        8,
        2047,
        2048,
        2049,
        2056,
        length - 8,
        length - 1,
        length,
        length + 1,
        0x1fff_ffff,
        0x2000_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_f800,
        u32::MAX - 8,
        u32::MAX,
    ];
    // Every word of the header is a position or a number of slots; behind it
    // positions, lengths and hashes begin at any byte.
    for at in (0..whole.len() - 4).filter(|at| *at >= 2048 || at % 4 == 0) {
        for value in values {
            let mut bent = whole.clone();
            bent[at..at + 4].copy_from_slice(&value.to_le_bytes());
            never_allows(bent);
        }
    }
    let mut dice = Dice(0x5eed_0003);
    for _ in 0..2000 {
        let size = dice.below(6000);
        let mut garbage: Vec<u8> = (0..size)
            .map(|_| u8::try_from(dice.below(256)).expect("a byte"))
            .collect();
        never_allows(garbage.clone());
        // Behind a sound header it gets further.
        garbage.truncate(whole.len() - 2048);
        never_allows([&whole[..2048], &garbage].concat());
    }
}

#[test]
fn what_happens_to_the_file_does_not_reach_an_open_database() {
    let dir = Place::new("rules-in-place");
    let cdb = dir.path("rules.cdb");
    assert_eq!(rules("sslrules", &dir, MIXED).code, Some(0));
    let open = Rules::open(&cdb).expect("sound");
    OpenOptions::new()
        .write(true)
        .open(&cdb)
        .and_then(|file| file.set_len(100))
        .expect("cut");
    let rule = open.lookup(&client("1.2.3.4", None, None));
    assert_eq!(rule.map(|rule| rule.action()), Some(Action::Deny));
}

#[test]
fn what_is_no_file_has_no_rules_or_is_refused() {
    let dir = Place::new("rules-no-file");
    let cdb = dir.path("rules.cdb");
    let none = Rules::open_or_none(&cdb).expect("allowed to be missing");
    let missing = Rules::open(&cdb).expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(none.iter().count(), 0);
    assert_eq!(none.lookup(&client("1.2.3.4", None, None)), None);
    // A fifo would keep the reader waiting.
    let status = Command::new("mkfifo").arg(&cdb).status().expect("starts");
    assert!(status.success());
    let fifo = Rules::open(&cdb).expect_err("no file");
    assert_eq!(fifo.kind(), ErrorKind::InvalidData);
}

#[test]
fn the_first_rule_in_order_wins() {
    let dir = Place::new("rules-order");
    let cdb = dir.path("rules.cdb");
    // From first to last; the text has them the other way round.
    let order = [
        "joe@10.1.2.3",
        "joe@=a.example.org",
        "10.1.2.3",
        "=a.example.org",
        "10.1.2.",
        "10.",
        "10.1.0.0/16",
        "0.0.0.0/1",
        "=.example.org",
        "=.org",
        "=",
        "",
    ];
    let who = [
        ("TCPREMOTEIP", "10.1.2.3"),
        ("TCPREMOTEHOST", "a.example.org"),
        ("TCPREMOTEINFO", "joe"),
    ];
    let theirs = wanted("tcprulescheck").is_some();
    for dropped in 0..=order.len() {
        let text: String = order[dropped..]
            .iter()
            .rev()
            .map(|address| format!("{address}:allow,R=\"{address}\"\n"))
            .collect();
        assert_eq!(rules("sslrules", &dir, text).code, Some(0));
        let first = order.get(dropped);
        let expected = match first {
            Some(address) => {
                format!("rule {address}:\nset environment variable R={address}\nallow connection\n")
            }
            None => "default:\nallow connection\n".to_owned(),
        };
        assert_eq!(answer(&cdb, &who), expected);
        if theirs && first.is_none_or(|address| !address.contains('/')) {
            let who = who.map(|(name, value)| (name, value.as_bytes()));
            let theirs = check("tcprulescheck", &cdb, &who).1;
            assert_eq!(String::from_utf8_lossy(&theirs), expected);
        }
    }
}

#[test]
fn networks_and_ipv6_addresses_match_however_they_are_written() {
    let dir = Place::new("rules-networks");
    let cdb = dir.path("rules.cdb");
    let text = "2001:DB8::0:1:deny\n2001:db8::/32:allow,N=\"32\"\n2001:db8:1::/48:allow\n\
        10.128.0.0/9:deny\n10.0.0.0/8:allow,N=\"8\"\n::ffff:192.0.2.1:deny\nj@2001:db8::2:deny\n";
    let output = rules("sslrules", &dir, text);
    assert_eq!(output.code, Some(0));
    assert_eq!(output.stderr, "");
    let full = "rule 2001:0db8:0000:0000:0000:0000:0000:0001:";
    for (ip, first, last) in [
        ("2001:db8::1", full, "deny"),
        ("2001:0DB8:0:0:0:0:0:0001", full, "deny"),
        ("2001:db8::2", "rule 2001:db8::/32:", "allow"),
        ("2001:db8:1:ffff::", "rule 2001:db8:1::/48:", "allow"),
        ("2001:db9::", "default:", "allow"),
        ("10.127.255.255", "rule 10.0.0.0/8:", "allow"),
        ("10.128.0.0", "rule 10.128.0.0/9:", "deny"),
        ("::ffff:10.128.0.1", "rule 10.128.0.0/9:", "deny"),
        ("11.0.0.0", "default:", "allow"),
        ("192.0.2.1", "rule 192.0.2.1:", "deny"),
    ] {
        let answer = answer(&cdb, &[("TCPREMOTEIP", ip)]);
        let last = format!("{last} connection");
        assert_eq!(answer.lines().next(), Some(first), "{ip}");
        assert_eq!(answer.lines().last(), Some(&*last), "{ip}");
    }
    let joe = [("TCPREMOTEIP", "2001:db8::2"), ("TCPREMOTEINFO", "j")];
    assert!(answer(&cdb, &joe).ends_with("deny connection\n"));
}

#[test]
fn a_database_of_ucspi_tcp6_works_as_it_is() {
    let dir = Place::new("rules-tcp6");
    let cdb = dir.path("rules.cdb");
    // Its tcprules writes IPv6 addresses with capital digits.
    let records: [(&[u8], &[u8]); 3] = [
        (b"2001:0DB8:0000:0000:0000:0000:0000:00AB", b"D\0"),
        (b"^00`000000000000a0000bc0de0fgh000", b"+N=1\0"),
        (b"joe@2001:0DB8:0000:0000:0000:0000:0000:0001", b"D\0"),
    ];
    rulesdb::replace(&cdb, &dir.path("rules.tmp"), records).expect("written");
    let rules = Rules::open(&cdb).expect("sound");
    let ask = |ip: &str, info: Option<&str>| {
        let rule = rules.lookup(&client(ip, None, info));
        rule.map(|rule| (rule.address(), rule.action()))
    };
    let digits = "2001:0DB8:0000:0000:0000:0000:0000:00AB".to_owned();
    assert_eq!(ask("2001:db8::ab", None), Some((digits, Action::Deny)));
    let joe = ask("2001:db8::1", Some("joe")).map(|(_, action)| action);
    assert_eq!(joe, Some(Action::Deny));
    let network = "2001:db8::/32".to_owned();
    assert_eq!(ask("2001:db8::1", None), Some((network, Action::Allow)));
    assert_eq!(ask("2001:db9::1", None), None);
}

#[test]
fn the_spelling_of_a_name_evades_no_rule() {
    let image = image("spelling", "=bad.example.org:deny\n=.evil.org:deny\n");
    let rules = Database::from_image(image)
        .and_then(Rules::new)
        .expect("sound");
    for name in ["BAD.example.ORG", "bad.example.org.", "a.Evil.org"] {
        let rule = rules.lookup(&client("1.2.3.4", Some(name), None));
        assert_eq!(rule.map(|rule| rule.action()), Some(Action::Deny), "{name}");
    }
    for name in [None, Some(""), Some(".")] {
        assert_eq!(rules.lookup(&client("1.2.3.4", name, None)), None);
    }
}

#[test]
fn stores_are_found_by_local_address_and_server_name() {
    let dir = Place::new("rules-stores");
    let cdb = dir.path("rules.cdb");
    let text = "local=192.0.2.10:allow,CERTFILE=\"/l\"\nlocal=2001:DB8::1:deny\n\
        sni=Mail.Example.com:allow,CERTFILE=\"/m\"\nsni=*.example.com:allow,CERTFILE=\"/w\"\n\
        sni=bad.example.com:deny\n1.2.3.4:deny\nlocal=j@1.2.3.4:deny\n";
    assert_eq!(rules("sslrules", &dir, text).code, Some(0));
    let rules = Rules::open(&cdb).expect("sound");
    let value = |name: &[u8]| {
        let rule = rules.lookup_sni(name)?;
        assert_eq!(rule.scope(), Scope::ServerName);
        let first = rule.variables().next();
        let file = first.map_or(&b"deny"[..], |(_, value)| value);
        Some(String::from_utf8_lossy(file).into_owned())
    };
    for (name, expected) in [
        ("mail.example.com", Some("/m")),
        ("MAIL.example.COM.", Some("/m")),
        ("www.example.com", Some("/w")),
        ("bad.example.com", Some("deny")),
        ("example.com", None),
        ("a.www.example.com", None),
        ("*.example.com", None),
        (".example.com", None),
        ("../x.example.com", None),
        ("x/../../etc/passwd", None),
        ("", None),
        (".", None),
        ("1.2.3.4", None),
        ("www.example.com\0", None),
        ("j@1.2.3.4", None),
    ] {
        assert_eq!(value(name.as_bytes()).as_deref(), expected, "{name:?}");
    }
    let local = |ip: &str| {
        let rule = rules.lookup_local(ip.parse().expect("an address"));
        rule.map(|rule| rule.action())
    };
    assert_eq!(local("192.0.2.10"), Some(Action::Allow));
    assert_eq!(local("::ffff:192.0.2.10"), Some(Action::Allow));
    assert_eq!(local("2001:db8:0::1"), Some(Action::Deny));
    assert_eq!(local("1.2.3.4"), None);
    let scopes: Vec<_> = rules.iter().map(|rule| rule.scope()).collect();
    assert_eq!(
        scopes,
        [
            Scope::Local,
            Scope::Local,
            Scope::ServerName,
            Scope::ServerName,
            Scope::ServerName,
            Scope::Client,
            Scope::Client
        ]
    );

    let environment = [
        ("TCPREMOTEIP", "1.2.3.4"),
        ("TCPLOCALIP", "192.0.2.10"),
        ("SSL_TLS_SNI", "a.Example.com"),
    ];
    assert_eq!(
        answer(&cdb, &environment),
        "rule 1.2.3.4:\ndeny connection\n\
         local=\nrule local=192.0.2.10:\nset environment variable CERTFILE=/l\nallow connection\n\
         sni=\nrule sni=*.example.com:\nset environment variable CERTFILE=/w\nallow connection\n"
    );
    // What clients choose themselves never meets a store's rule.
    for evil in [
        "local=192.0.2.10",
        "sni=mail.example.com",
        "local=",
        "sni=*",
    ] {
        let names = ["TCPREMOTEIP", "TCPREMOTEHOST", "TCPREMOTEINFO"];
        let environment = names.map(|name| (name, evil));
        let expected = "default:\nallow connection\n";
        assert_eq!(answer(&cdb, &environment), expected);
    }
    if wanted("tcprulescheck").is_some() {
        let environment: [(&str, &[u8]); 2] = [
            ("TCPREMOTEIP", b"1.2.3.4"),
            ("TCPREMOTEHOST", b"mail.example.com"),
        ];
        let theirs = check("tcprulescheck", &cdb, &environment).1;
        assert_eq!(theirs, b"rule 1.2.3.4:\ndeny connection\n");
    }
}

#[test]
fn sslrulescheck_refuses_what_it_cannot_read() {
    let dir = Place::new("rules-unreadable");
    let ask = |cdb: &Path| run(Command::new(ours("sslrulescheck")).arg(cdb), b"");
    let missing = dir.path("none");
    let output = ask(&missing);
    assert_eq!(output.code, Some(111));
    let step = format!("unable to read {}", missing.display());
    assert_eq!(
        output.stderr,
        format!("sslrulescheck: fatal: {step}: no such file or directory\n")
    );
    // A sound database whose data are nobody's rules.
    let cdb = dir.path("other.cdb");
    let records: [(&[u8], &[u8]); 1] = [(b"10.0.0.", b"X\0")];
    rulesdb::replace(&cdb, &dir.path("tmp"), records).expect("written");
    let output = ask(&cdb);
    assert_eq!(output.code, Some(111));
    assert!(output.stderr.ends_with(": not a rule: 10.0.0.\n"));
    for arguments in [&[][..], &["a", "b"]] {
        let output = run(Command::new(ours("sslrulescheck")).args(arguments), b"");
        assert_eq!(output.code, Some(100));
        let usage = " arguments; sslrulescheck rules.cdb\n";
        assert!(
            output.stderr.starts_with("sslrulescheck: usage: too "),
            "{output:?}"
        );
        assert!(output.stderr.ends_with(usage), "{output:?}");
    }
    // Output that cannot be written is a failure.
    assert_eq!(rules("sslrules", &dir, "").code, Some(0));
    let full = OpenOptions::new().write(true).open("/dev/full");
    let status = Command::new(ours("sslrulescheck"))
        .arg(dir.path("rules.cdb"))
        .stdout(full.expect("there"))
        .stderr(Stdio::null())
        .status();
    assert_eq!(status.expect("starts").code(), Some(111));
}

#[test]
fn the_pages_name_usage_exit_codes_and_variables() {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc");
    let codes = ["It 0", "It 100", "It 111"];
    for (page, words) in [
        (
            "sslrules.1",
            &["Ar rules.cdb rules.tmp", "local=", "sni=", "tcprules"][..],
        ),
        (
            "sslrulescheck.1",
            &[
                "Ar rules.cdb",
                "TCPREMOTEIP",
                "TCPREMOTEHOST",
                "TCPREMOTEINFO",
                "TCPLOCALIP",
                "SSL_TLS_SNI",
            ],
        ),
    ] {
        let path = doc.join(page);
        let text = fs::read_to_string(&path).expect(page);
        for word in words.iter().chain(&codes) {
            assert!(text.contains(word), "{page} lacks {word}");
        }
        let mut lint = Command::new("mandoc");
        match lint
            .args(["-T", "lint", "-W", "warning"])
            .arg(&path)
            .output()
        {
            Err(error) => skip_part!("mandoc: {error}"),
            Ok(output) => {
                let found = String::from_utf8_lossy(&output.stdout);
                assert!(found.is_empty(), "{found}");
            }
        }
    }
}
