//! The man pages say what the programs do: mandoc finds no fault with them, and
//! each program's page, usage line and option table name the same letters,
//! values and exit codes.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::authority::name;
use crate::harness::{Client, Identity, Leaf, Place, Setup, need, ours};
use openssl::nid::Nid;
use ucspi_tls::internals::manager;
use ucspi_tls::internals::options::{self, Letter, Table};
use ucspi_tls::internals::report::{NEVER, TEMPORARY};
use ucspi_tls::internals::settings;

/// What is compared of one program.
struct Program {
    name: &'static str,
    binary: String,
    /// Its page's file.
    file: String,
    /// Letters, in the usage line's order, with their values' names.
    letters: Vec<(char, Option<&'static str>)>,
    operands: &'static str,
    /// What its exit status can be beside 100 and 111.
    more_codes: &'static [&'static str],
}

/// Every program that has an option table: a new one is one line here.
fn programs() -> Vec<Program> {
    vec![
        Program::new(&options::sslserver::TABLE, &["0"]),
        Program::new(&options::sslserver_conf::TABLE, &["0"]),
        Program::new(&options::sslclient::TABLE, &["128+n"]),
        Program::new(&options::sslrules::TABLE, &["0"]),
        Program::new(&options::sslrulescheck::TABLE, &["0"]),
        Program::new(&options::starttls_handoff::TABLE, &["0", "128+n"]),
        #[cfg(feature = "remote")]
        Program::new(&options::sslprobe::TABLE, &["0", "1"]),
        #[cfg(feature = "remote")]
        Program::new(&options::sslreport::TABLE, &["0"]),
        #[cfg(feature = "remote")]
        Program::new(&options::sslsurvey::TABLE, &["0"]),
    ]
}

impl Program {
    fn new<T>(table: &Table<T>, more_codes: &'static [&'static str]) -> Program {
        let letters = table
            .letters
            .iter()
            .map(|(letter, kind)| match kind {
                Letter::Flag(_) => (*letter, None),
                Letter::Value(value, _) | Letter::Bytes(value, _) => (*letter, Some(*value)),
            })
            .collect();
        Program {
            name: table.program,
            binary: ours(table.program),
            // `sslserver(1)` is `sslserver.1`.
            file: table.page.replace('(', ".").replace(')', ""),
            letters,
            operands: table.operands,
            more_codes,
        }
    }

    fn page(&self) -> String {
        read(&doc().join(&self.file))
    }

    /// The letters that take no value, as one word.
    fn cluster(&self) -> String {
        self.letters
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(letter, _)| *letter)
            .collect()
    }

    /// A letter and its value as a page's macro writes them: `Fl c Ar limit`.
    fn macros(letter: char, value: Option<&str>) -> String {
        match value {
            None => format!("Fl {letter}"),
            Some(value) => format!("Fl {letter} Ar {value}"),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn doc() -> PathBuf {
    root().join("doc")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    found.sort();
    found
}

/// The man pages: files that end in a section's number.
fn pages() -> Vec<PathBuf> {
    let mut found = files(&doc());
    found.retain(|path| {
        path.extension()
            .and_then(|end| end.to_str())
            .is_some_and(|end| end.len() == 1 && end.starts_with(|c: char| c.is_ascii_digit()))
    });
    assert!(!found.is_empty(), "no man page in {}", doc().display());
    found
}

/// The lines of one section, between its heading and the next.
fn section<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let heading = format!(".Sh {heading}");
    let lines: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh "))
        .collect();
    assert!(!lines.is_empty(), "no section {heading}");
    lines
}

/// The heads of the list items that begin so, without the macro.
fn items<'a>(lines: &[&'a str], begin: &str) -> Vec<&'a str> {
    let begin = format!(".It {begin}");
    lines
        .iter()
        .filter(|line| line.starts_with(&begin))
        .map(|line| &line[".It ".len()..])
        .collect()
}

/// The variables whose items these are.
fn variables(lines: &[&str]) -> BTreeSet<String> {
    items(lines, "Ev ")
        .iter()
        .flat_map(|item| item["Ev ".len()..].split(" , "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn mandoc_finds_no_fault_with_any_page() {
    need!("mandoc");
    for page in pages() {
        let lint = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&page)
            .output()
            .expect("mandoc runs");
        assert!(
            lint.status.success() && lint.stdout.is_empty() && lint.stderr.is_empty(),
            "{}{}",
            String::from_utf8_lossy(&lint.stdout),
            String::from_utf8_lossy(&lint.stderr)
        );
    }
}

#[test]
fn every_program_and_shell_tool_has_a_page_of_its_name() {
    let tools = files(&root().join("src/sh"));
    assert!(!tools.is_empty());
    let tools = tools.iter().map(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .expect("a name in ASCII")
            .to_owned()
    });
    let tools = tools.map(|name| {
        let page = read(&doc().join(format!("{name}.1")));
        (name, page)
    });
    let programs = programs();
    let programs = programs
        .iter()
        .map(|program| (program.name.to_owned(), program.page()));
    for (name, page) in tools.chain(programs) {
        assert!(page.contains(&format!("\n.Nm {name}\n")), "{name}");
    }
}

#[test]
fn a_page_describes_every_letter_once_and_no_other() {
    for program in programs() {
        let page = program.page();
        let lines: Vec<&str> = page.lines().collect();
        let described = items(&lines, "Fl ");
        let once: BTreeSet<&str> = described.iter().copied().collect();
        assert_eq!(described.len(), once.len(), "{}: twice", program.name);
        let wanted: BTreeSet<String> = program
            .letters
            .iter()
            .map(|(letter, value)| Program::macros(*letter, *value))
            .collect();
        let once: BTreeSet<String> = once.into_iter().map(str::to_owned).collect();
        assert_eq!(once, wanted, "{}", program.name);
    }
}

#[test]
fn a_synopsis_is_the_option_table() {
    for program in programs() {
        let page = program.page();
        let mut wanted = vec![".Nm".to_owned()];
        if !program.cluster().is_empty() {
            wanted.push(format!(".Op Fl {}", program.cluster()));
        }
        for (letter, value) in &program.letters {
            if value.is_some() {
                wanted.push(format!(".Op {}", Program::macros(*letter, *value)));
            }
        }
        let lines = section(&page, "SYNOPSIS");
        assert_eq!(lines[..wanted.len()], wanted, "{}", program.name);
        // `host port prog [ args ]`, word by word
        let operands: Vec<&str> = lines[wanted.len()..]
            .iter()
            .flat_map(|line| line.split(' '))
            .filter(|word| *word == "..." || !word.starts_with('.') && *word != "Ar")
            .collect();
        let listed: Vec<&str> = program
            .operands
            .split(' ')
            .filter(|word| !["[", "]"].contains(word))
            .collect();
        assert_eq!(operands, listed, "{}", program.name);
    }
}

#[test]
fn a_wrong_option_shows_every_letter_and_ends_with_100() {
    for program in programs() {
        let stranger = ('A'..='z')
            .find(|c| c.is_ascii_alphabetic() && program.letters.iter().all(|(l, _)| l != c))
            .expect("a letter without a meaning");
        let output = Command::new(&program.binary)
            .arg(format!("-{stranger}"))
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        assert_eq!(
            output.status.code(),
            Some(i32::from(NEVER)),
            "{}",
            program.name
        );
        assert!(output.stdout.is_empty(), "{}", program.name);
        let line = String::from_utf8(output.stderr).expect("ASCII");
        assert_eq!(line.matches('\n').count(), 1, "one line: {line}");
        let flags = match program.cluster().as_str() {
            "" => String::new(),
            cluster => format!("[ -{cluster} ] "),
        };
        let begin = format!(
            "{0}: usage: unknown option -{stranger}; {0} {flags}",
            program.name
        );
        assert!(line.starts_with(&begin), "{line}");
        for (letter, value) in &program.letters {
            if let Some(value) = value {
                let option = format!(" [ -{letter} {value} ] ");
                assert!(line.contains(&option), "no{option}in {line}");
            }
        }
        assert!(
            line.ends_with(&format!(" {}\n", program.operands)),
            "{line}"
        );
    }
}

#[test]
fn a_page_lists_the_exit_codes() {
    for program in programs() {
        let page = program.page();
        let listed: BTreeSet<String> = items(&section(&page, "EXIT STATUS"), "")
            .into_iter()
            .map(str::to_owned)
            .collect();
        let wanted: BTreeSet<String> = [NEVER, TEMPORARY]
            .iter()
            .map(u8::to_string)
            .chain(program.more_codes.iter().map(|code| (*code).to_owned()))
            .collect();
        assert_eq!(listed, wanted, "{}", program.name);
    }
}

#[test]
fn the_servers_page_describes_every_setting_and_no_other() {
    let page = read(&doc().join("sslserver.1"));
    let described = variables(&section(&page, "ENVIRONMENT"));
    let wanted: BTreeSet<String> = settings::NAMES
        .iter()
        // -U reads them; they are no settings, and stay in the environment.
        .chain(&["UID", "GID"])
        // Nor are these, which no program sees.
        .chain(manager::VARIABLES)
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(described, wanted);
}

/// A variable's name as the page writes it: `n` for a number that counts, `c`
/// for the part of a name.
fn as_on_the_page(name: &str) -> String {
    for end in ["_SAN_DNS_", "_SAN_Email_", "_SAN_IP_", "_CERT_CHAIN_"] {
        if let Some((begin, number)) = name.split_once(end) {
            if number.bytes().all(|byte| byte.is_ascii_digit()) {
                return format!("{begin}{end}n");
            }
        }
    }
    match name.rsplit_once("_DN_") {
        Some((begin, part)) if part != "RFC4514" => format!("{begin}_DN_c"),
        _ => name.to_owned(),
    }
}

/// Given only where IPv6, ident, a name or ALPN come into it.
const NOT_HERE: &[&str] = &[
    "SSLREMOTEHOST",
    "SSLREMOTEINFO",
    "SSL_ALPN",
    "SSL_TLS_SNI",
    "TCP6INTERFACE",
    "TCP6LOCALHOST",
    "TCP6LOCALIP",
    "TCP6LOCALPORT",
    "TCP6REMOTEHOST",
    "TCP6REMOTEINFO",
    "TCP6REMOTEIP",
    "TCP6REMOTEPORT",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
];

/// A certificate of its own that fills every variable that can be filled.
fn all_filled(common: &str) -> Identity {
    let parts = [
        (Nid::COUNTRYNAME, "US"),
        (Nid::ORGANIZATIONNAME, "Example"),
        (Nid::COMMONNAME, common),
    ];
    Leaf::named(name(&parts))
        .dns("test.example.com")
        .email("test@example.com")
        .address("127.0.0.1")
        .self_signed()
}

#[test]
fn the_environments_page_describes_what_both_programs_give() {
    let place = Place::new("pages-environment");
    let (server, client) = (all_filled("server"), all_filled("client"));
    // A certificate behind the first is a chain, whatever it is of.
    let chain = |own: &Identity, other: &Identity| {
        let (certificate, key) = place.identity("one", own);
        let parts = [
            place.read("one.pem"),
            other.chain_pem(),
            place.read("one.key"),
        ];
        fs::remove_file(certificate)
            .and(fs::remove_file(key))
            .expect("removed");
        place.write(&place.fresh("chain").display().to_string(), parts.concat())
    };
    let anchor = place.write("anchor.pem", server.chain_pem());
    let theirs = chain(&client, &server);
    let running = Setup::script(&place, "exec env -0")
        .options("-esY")
        .env("CERTFILE", chain(&server, &client))
        .unset("KEYFILE")
        .start();
    let ended = Client::bare()
        .options("-esa")
        .option(&anchor)
        .options("-c")
        .option(&theirs)
        .script("127.0.0.1", running.port, "env -0; exec cat <&6");
    let text = ended.text();
    assert_eq!(ended.code, Some(0), "{}{text}", ended.stderr);
    let given: BTreeSet<String> = text
        .split('\0')
        .filter_map(|pair| pair.split_once('=').map(|(name, _)| name))
        .filter(|name| {
            ["SSL", "TCP", "PROTO"]
                .iter()
                .any(|begin| name.starts_with(begin))
        })
        .map(as_on_the_page)
        .collect();
    assert!(
        text.contains("\0SSL_SERVER_VERIFY=SUCCESS\0"),
        "no client: {text}"
    );
    assert!(
        text.contains("\0SSL_CLIENT_VERIFY=FAILED:"),
        "no server: {text}"
    );
    let page = read(&doc().join("ucspi-tls-environment.7"));
    let described = variables(&section(&page, "DESCRIPTION"));
    let unknown: Vec<&String> = given.difference(&described).collect();
    assert!(unknown.is_empty(), "not described: {unknown:?}");
    let missing: Vec<&String> = described
        .difference(&given)
        .filter(|name| !NOT_HERE.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "described, and not given: {missing:?}");
}

#[test]
fn the_clients_page_describes_settings_only() {
    let page = read(&doc().join("sslclient.1"));
    for name in variables(&section(&page, "ENVIRONMENT")) {
        assert!(settings::is_setting(&name), "{name}");
    }
}

/// The first word in quotes behind a place.
fn quoted(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('"')?;
    let (word, _) = rest.split_once('"')?;
    let is_code = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (!word.is_empty() && word.bytes().all(is_code)).then_some(word)
}

#[test]
fn every_finding_is_on_the_page_and_in_a_test() {
    let folder = root().join("src/lib/probe/findings");
    let mut codes = BTreeSet::new();
    let mut texts = Vec::new();
    let mut tests = String::new();
    for file in sources(&folder) {
        let text = read(&file);
        match file.file_name().and_then(|name| name.to_str()) {
            Some("tests.rs") => tests += &text,
            _ => texts.push(text),
        }
    }
    for file in sources(&root().join("tests/it/sslprobe")) {
        tests += &read(&file);
    }
    for text in &texts {
        for call in ["add", "high", "medium", "low", "note"] {
            let call = format!("found.{call}(");
            codes.extend(text.split(&call).skip(1).filter_map(quoted));
        }
    }
    assert!(codes.len() > 40, "{codes:?}");
    let page = read(&doc().join("sslprobe.1"));
    let (_, page) = page.split_once(".Sh FINDINGS").unwrap();
    let (page, _) = page.split_once("\n.Sh ").unwrap();
    for code in codes {
        let there = [" ", "\n"].map(|end| page.contains(&format!("Ql {code}{end}")));
        assert!(there.contains(&true), "{code} is not on the page");
        assert!(tests.contains(&format!("\"{code}\"")), "no test has {code}");
    }
}

/// Rust files of a folder and of those in it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let (folders, files): (Vec<_>, Vec<_>) =
        files(folder).into_iter().partition(|path| path.is_dir());
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .chain(folders.iter().flat_map(|folder| sources(folder)))
        .collect()
}

#[test]
fn every_test_that_security_md_names_exists() {
    let text = read(&doc().join("security.md"));
    let tables = text
        .split_once("## What shows it")
        .expect("the tables of tests")
        .1;
    // The last cell of a row, without its backquotes.
    let named: Vec<&str> = tables
        .lines()
        .filter_map(|line| line.trim_end_matches(" |").rsplit_once("| "))
        .flat_map(|(_, cell)| cell.split(", "))
        .filter_map(|name| name.strip_prefix('`')?.strip_suffix('`'))
        .collect();
    assert!(!named.is_empty());
    let sources: String = ["tests", "src/lib"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
        .map(|path| read(&path))
        .collect();
    for name in named {
        let head = format!("#[test]\nfn {name}() {{");
        assert!(sources.contains(&head), "no test {name}");
    }
}
