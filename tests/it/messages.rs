//! doc/troubleshooting.md against the sources: every message that a program can
//! write is on the page, and the page has none that no program writes.
//!
//! A message is a string literal of two words or more outside tests, test
//! switches and attributes; in a shell script it is what the script says with its
//! own words for that. What stands in braces there is in angle brackets on
//! the page. The parts between may be spread: a reason is on the page once, by
//! itself or behind what it belongs to.
#![forbid(unsafe_code)]

mod scripts;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Sources whose literals are read by others than an administrator's eyes, unless a
/// program ends with them.
const OTHERS: &[(&str, &str)] = &[
    ("dialogue/imap.rs", "replies to clients"),
    ("dialogue/pop3.rs", "replies to clients"),
    ("dialogue/sieve.rs", "replies to clients"),
    ("dialogue/smtp.rs", "replies to clients"),
    (
        "probe/",
        "what a probe found, not what a program complains of",
    ),
    (
        "program/qmail_sslremote/preview.rs",
        "the report of -P, which explains itself",
    ),
    (
        "program/sslprobe",
        "what a probe found, not what a program complains of",
    ),
    (
        "program/sslserver/check.rs",
        "the report of -k, which explains itself",
    ),
    (
        "program/sslserver_conf/service.rs",
        "the files of a service",
    ),
    ("program/sslreport/report.rs", "the message of a report"),
    ("survey/", "the tables of sslsurvey and what they say"),
    (
        "sys/sandbox/filter.rs",
        "reasons for entries of the list of system calls",
    ),
    (
        "tlsdestinations/explain.rs",
        "the report of -W: tlsdestinations(5)",
    ),
];

/// Scripts that an administrator does not run.
const OTHER_SCRIPTS: &[(&str, &str)] = &[
    ("bench", "for those who change the code"),
    ("bench-chart", "for those who change the code"),
    ("check-targets", "for those who change the code"),
    ("fuzz", "for those who change the code"),
    ("soak", "for those who change the code"),
    ("test-packages", "for those who change the code"),
    ("tlsfuzzer", "for those who change the code"),
];

/// Literals that are no messages, wherever they stand.
const NO_MESSAGES: &[&str] = &[
    // Synopses, versions and help.
    "host port prog [ args ]",
    "rules.cdb rules.tmp",
    "[ results.json ] [ later.json ]",
    "[ prog ] [ args ]",
    "acct logacct dir [ host ] port prog [ args ]",
    "smtp|lmtp|pop3|imap|sieve prog [ args ]",
    "{program} (ucspi-tls) {}, {}\n",
    // Libssl's own words.
    "TLSv1.3 early data",
    "before SSL initialization",
    // Answers of sslrulescheck.
    "default:\nallow connection\n",
    "deny connection\n",
    "set environment variable ",
    "allow connection\n",
    // What is compared or hashed.
    "TLS 1.3, server CertificateVerify\0",
    "TLS 1.3, client CertificateVerify\0",
    "ucspi-tls ticket",
    "failed to lookup address information: ",
    "ca key too small",
    "ca md too weak",
    "ee key too small",
    // What is sent to web servers, and the head of a policy's file.
    "Content-Type: {media_type}\r\nContent-Length: {}\r\n",
    "{verb} {path} HTTP/1.1\r\nHost: {host}{at}\r\nUser-Agent: ucspi-tls/{}\r\nAccept: */*\r\nConnection: close\r\n{given}\r\n",
    "ucspi-tls mta-sts 1",
];

/// What the system and OpenSSL say.
const THEIRS: &[&str] = &[
    "address already in use",
    "cannot assign requested address",
    "connection refused",
    "connection timed out",
    "hostname mismatch",
    "invalid argument",
    "no such file or directory",
    "not a directory",
    "operation not permitted",
    "permission denied",
    "unable to get local issuer certificate",
];

/// With these the page's commands begin.
const COMMANDS: &[&str] = &[
    "apt-get ",
    "delv ",
    "echo ",
    "install ",
    "mkdir ",
    "openssl ",
    "printf ",
    "ss ",
    "sslclient -",
    "sslserver -",
    "starttls-handoff smtp ",
    "usage: qmail-sslremote ",
    "useradd ",
];

/// Stands for what varies.
const GAP: char = '\u{1}';

/// A literal's text, and what is behind it.
fn literal(rest: &str, raw: bool) -> (String, &str) {
    let mut text = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (text, &rest[at + 1..]),
            '\\' if !raw => match characters.next() {
                Some((_, '\n')) => {
                    let here = characters.as_str();
                    let skipped = here.len() - here.trim_start().len();
                    characters = rest.char_indices();
                    let next = rest.len() - here.len() + skipped;
                    characters
                        .by_ref()
                        .take_while(|(at, _)| *at + 1 < next)
                        .count();
                }
                Some((_, 'n')) => text.push('\n'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, 't')) => text.push('\t'),
                Some((_, '0')) => text.push('\0'),
                Some((at, 'x')) => {
                    let number = u8::from_str_radix(&rest[at + 1..at + 3], 16).unwrap();
                    text.push(char::from(number));
                    characters.nth(1);
                }
                Some((_, other)) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    panic!("a literal without end: {rest:.80}")
}

/// Behind the `}` that ends what begins in `text`, or behind a `;` or `,` before
/// it.
fn behind_item(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let behind = &rest[first.len_utf8()..];
        rest = match first {
            '"' => literal(behind, false).1,
            '\'' => behind_character(behind),
            '/' if behind.starts_with('/') => behind.split_once('\n').map_or("", |(_, next)| next),
            '{' | '(' | '[' => {
                depth += 1;
                behind
            }
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && first == '}' {
                    return behind;
                }
                behind
            }
            ';' | ',' if depth == 0 => return behind,
            _ => behind,
        };
    }
    ""
}

/// Behind a character that stands behind its first quote, or behind the quote
/// alone where that begins a lifetime.
fn behind_character(quote: &str) -> &str {
    let characters: Vec<char> = quote.chars().take(12).collect();
    let length = match characters[..] {
        ['\\', ..] => {
            let end = characters.iter().skip(2).position(|&one| one == '\'');
            end.map_or(0, |end| end + 3)
        }
        [_, '\'', ..] => 2,
        _ => 0,
    };
    let bytes: usize = characters[..length].iter().map(|one| one.len_utf8()).sum();
    &quote[bytes..]
}

/// Behind an attribute that begins `text`; and behind what it is for, where that
/// is not part of the programs.
fn behind_attribute(text: &str) -> &str {
    let mut depth = 0_usize;
    let end = text.bytes().position(|byte| {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => return false,
        }
        depth == 0
    });
    let (attribute, rest) = text.split_at(end.unwrap() + 1);
    let others = attribute.contains("cfg(test)")
        || attribute.contains("cfg(all(test,")
        || attribute.contains("\"internals\"");
    if others { behind_item(rest) } else { rest }
}

/// Whether what stands before a literal makes a failure of it: the constructors of
/// `Fail`, or what they are given.
fn makes_a_failure(before: &str) -> bool {
    let before = before.trim_end();
    let before = before.strip_suffix("format!(").unwrap_or(before).trim_end();
    let call = before.strip_suffix('(').unwrap_or("");
    let name = call.trim_end_matches(|one: char| one.is_ascii_lowercase() || one == '_');
    name.ends_with("Fail::")
}

/// The string literals of a source, and whether a program ends with each.
/// `Fail::unable` puts words of its own before its literal.
fn literals(source: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut add = |text: String, rest: &str| {
        let before = &source[..source.len() - rest.len()];
        let unable = before.trim_end().ends_with("Fail::unable(");
        let text = if unable {
            format!("unable to {text}")
        } else {
            text
        };
        found.push((text, makes_a_failure(before)));
    };
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("#[") || rest.starts_with("#![") {
            rest = behind_attribute(rest);
        } else if let Some(raw) = rest.strip_prefix("r\"") {
            let (text, behind) = literal(raw, true);
            add(text, rest);
            rest = behind;
        } else if let Some(plain) = rest.strip_prefix('"') {
            let (text, behind) = literal(plain, false);
            add(text, rest);
            rest = behind;
        } else if let Some(quote) = rest.strip_prefix('\'') {
            rest = behind_character(quote);
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// A literal with [`GAP`] for each of its braces.
fn template(literal: &str) -> String {
    let mut text = String::new();
    let mut rest = literal;
    while let Some((before, behind)) = rest.split_once('{') {
        text.push_str(before);
        let Some((_, behind)) = behind.split_once('}') else {
            return text + &rest[before.len()..];
        };
        text.push(GAP);
        rest = behind;
    }
    (text + rest).replace('\n', " ")
}

/// Whether it reads like a part of a sentence.
fn is_message(template: &str) -> bool {
    let words = template.split([' ', GAP]);
    let words = words.filter(|word| word.chars().filter(char::is_ascii_lowercase).count() > 1);
    !template.starts_with("usage: ") && template.trim().contains(' ') && words.count() > 1
}

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib");
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if path.is_dir() {
            sources(&path, found);
        } else if !name.ends_with("tests.rs") && !name.contains("/tests/") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The text of each shell script that an administrator runs, and its name.
fn all_scripts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["package", "src/sh"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !OTHER_SCRIPTS.iter().any(|(other, _)| *other == name) {
                found.push((
                    format!("{folder}/{name}"),
                    fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    found
}

/// A literal and where it stands.
struct Literal {
    file: String,
    text: String,
    template: String,
    /// Whether a program ends with it.
    fails: bool,
}

fn all_literals() -> Vec<Literal> {
    let mut files = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib");
    sources(&root, &mut files);
    let programs = files.iter().flat_map(|(name, source)| {
        literals(source).into_iter().map(|(text, fails)| Literal {
            file: name.clone(),
            template: template(&text),
            text,
            fails,
        })
    });
    let scripts = all_scripts().into_iter().flat_map(|(name, source)| {
        let messages = scripts::messages(&source).into_iter();
        messages.map(move |template| Literal {
            file: name.clone(),
            text: template.replace(GAP, "<>"),
            template,
            fails: true,
        })
    });
    programs.chain(scripts).collect()
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/troubleshooting.md");
    fs::read_to_string(path).unwrap()
}

/// The code spans of the page, what stands in angle brackets as [`GAP`].
fn spans(page: &str) -> Vec<String> {
    let code = page.split('`').skip(1).step_by(2);
    code.map(|span| {
        let mut text = String::new();
        let mut rest = span;
        while let Some((before, behind)) = rest.split_once('<') {
            let Some((_, behind)) = behind.split_once('>') else {
                break;
            };
            text.push_str(before);
            text.push(GAP);
            rest = behind;
        }
        text + rest
    })
    .collect()
}

/// Without the marks that join it to others.
fn bare(part: &str) -> &str {
    part.trim_matches([' ', ':', ';', ',', '(', ')'])
}

/// Whether the parts of a template are in a text, in their order.
fn holds(text: &str, template: &str) -> bool {
    let mut rest = text;
    template
        .split(GAP)
        .all(|part| match rest.split_once(bare(part)) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
}

#[test]
fn every_message_is_on_the_page() {
    let page = page();
    assert_eq!(page.matches('`').count() % 2, 0, "a code span without end");
    let spans = spans(&page);
    let missing: BTreeSet<String> = all_literals()
        .into_iter()
        .filter(|literal| {
            let other = |(other, _): &(&str, _)| literal.file.starts_with(other);
            is_message(&literal.template)
                && (literal.fails || !OTHERS.iter().any(other))
                && !NO_MESSAGES.contains(&&*literal.text)
                && !spans.iter().any(|span| holds(span, &literal.template))
        })
        .map(|literal| format!("{}: {:?}", literal.file, literal.text))
        .collect();
    let missing: Vec<String> = missing.into_iter().collect();
    assert!(
        missing.is_empty(),
        "not in doc/troubleshooting.md ({}):\n{}",
        missing.len(),
        missing.join("\n")
    );
}

/// Which bytes of a text no part of a message accounts for, as text.
fn unaccounted(text: &str, parts: &BTreeSet<String>) -> String {
    let mut known = vec![false; text.len()];
    let theirs = THEIRS.iter().map(|one| (*one).to_owned());
    for part in parts.iter().cloned().chain(theirs) {
        for (at, _) in text.match_indices(&part) {
            known[at..at + part.len()].fill(true);
        }
    }
    let bytes = text.bytes().zip(known);
    let left: Vec<u8> = bytes
        .map(|(byte, known)| {
            if known || !byte.is_ascii_alphanumeric() {
                b' '
            } else {
                byte
            }
        })
        .collect();
    let left = String::from_utf8(left).unwrap();
    // A number stands for any, and a plural may be a variable.
    let words = left.split_whitespace();
    let words = words.filter(|word| *word != "s" && word.parse::<u32>().is_err());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn no_message_is_on_the_page_alone() {
    let mut parts = BTreeSet::new();
    for literal in all_literals() {
        for part in literal.template.split(GAP) {
            // A word of one letter would account for everything.
            if part.trim().len() > 1 {
                parts.insert(part.to_owned());
                parts.insert(bare(part).to_owned());
            }
        }
    }
    let mut wrong = Vec::new();
    for span in spans(&page()) {
        let command = COMMANDS.iter().any(|begin| span.starts_with(begin));
        if command || span.split_whitespace().count() < 3 {
            continue;
        }
        let left = unaccounted(&span, &parts);
        if !left.is_empty() {
            wrong.push(format!("{}: {left:?}", span.replace(GAP, "<>")));
        }
    }
    assert!(
        wrong.is_empty(),
        "written by no program:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn literals_are_found_where_they_are() {
    let source = r#"
        // "a comment" isn't one
        #[allow(x, reason = "an attribute")]
        fn f<'a>(x: &'a str) -> char { g("one two {x:?}", 'c', '\'', '"'); '\\' }
        const A: &str = "split \
             over lines\n";
        #[cfg(test)]
        mod tests { fn f() { g("in a {test"); '{' } }
        #[cfg(feature = "internals")]
        Kind::Tried => "switch off",
        const B: &str = r"raw \d";
        fn h() { x.map_err(Fail::unable("wait")); Fail::never(format!("bad {x}")) }
    "#;
    let found = |fails| {
        let found = literals(source).into_iter();
        let found = found.filter(move |one| one.1 == fails);
        found.map(|one| one.0).collect::<Vec<_>>()
    };
    assert_eq!(
        found(false),
        ["one two {x:?}", "split over lines\n", "raw \\d"]
    );
    assert_eq!(found(true), ["unable to wait", "bad {x}"]);
    assert_eq!(template("a {b} c{}"), format!("a {GAP} c{GAP}"));
    assert!(holds(
        &format!("x unable to {GAP}: why"),
        &format!("unable to {GAP}: {GAP}")
    ));
    assert!(!holds("b then a", &format!("a{GAP}b")));
}
