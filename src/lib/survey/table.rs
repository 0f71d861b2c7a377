//! A survey or a comparison as tables, for a terminal or in Markdown.
#![forbid(unsafe_code)]

use std::fmt::Display;

use super::Survey;
use super::changes::{Change, Changes};
use super::factors::{Holder, Pair};
use super::shared::Shared;
use super::tally::{Certificates, Counts, Port, Tally, most_first, port_name};
use crate::text;

/// How many hosts a row names: a certificate may be on thousands. JSON has them all.
const NAMED: usize = 20;

/// How tables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Markdown, as GitHub and pandoc read it.
    Markdown,
    /// Aligned columns.
    Plain,
}

/// Rows of texts under a title.
struct Table {
    title: String,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// The tables of a survey.
#[must_use]
pub fn survey(survey: &Survey, layout: Layout) -> String {
    let mut tables = vec![reached(&survey.tally)];
    for (number, port) in &survey.tally.ports {
        tables.extend(of_port(&port_name(*number), port));
    }
    tables.push(shared(
        "Keys shared between hosts",
        "key (SHA-256)",
        &survey.shared_keys,
    ));
    tables.push(shared(
        "Certificates shared between hosts",
        "certificate (SHA-256)",
        &survey.shared_certificates,
    ));
    if let Some(pairs) = &survey.common_factors {
        tables.push(common(pairs));
    }
    write(&tables, layout)
}

/// The sections of a comparison, and the pairs that `-k` found.
#[must_use]
pub fn changes(changes: &Changes, pairs: Option<&[Pair]>, layout: Layout) -> String {
    let list = |title: &str, all: &[Change]| {
        let rows = all.iter().flat_map(|change| {
            let family = change.family.map(|family| format!(" ({family})"));
            let port = match change.port {
                0 => String::new(),
                number => format!(":{number}"),
            };
            let name = format!("{}{port}{}", change.host, family.unwrap_or_default());
            match &*change.what {
                [] => vec![vec![name]],
                what => {
                    let rows = what.iter();
                    rows.map(|what| vec![name.clone(), what.clone()]).collect()
                }
            }
        });
        let has_words = all.iter().any(|change| !change.what.is_empty());
        Table {
            title: format!("{title}: {}", all.len()),
            head: if has_words {
                vec!["host", "what"]
            } else {
                vec!["host"]
            },
            rows: rows.collect(),
        }
    };
    let unchanged = Table {
        title: format!("Unchanged: {}", changes.unchanged),
        head: Vec::new(),
        rows: Vec::new(),
    };
    let mut tables = vec![
        list("Better", &changes.better),
        list("Worse", &changes.worse),
        list("New", &changes.new),
        list("Gone", &changes.gone),
        unchanged,
    ];
    tables.extend(pairs.map(common));
    write(&tables, layout)
}

/// How many answer, and how TLS is reached.
fn reached(tally: &Tally) -> Table {
    let rows = tally.ports.iter().map(|(number, port)| {
        let word = |word: &str| port.starttls.get(word).copied().unwrap_or_default();
        vec![
            port_name(*number),
            port.hosts.to_string(),
            share(port.listening, port.hosts),
            share(port.tls, port.hosts),
            word("offered").to_string(),
            word("missing").to_string(),
            word("refused").to_string(),
            port.auth_before_tls.with_starttls.to_string(),
            port.auth_before_tls.without_starttls.to_string(),
        ]
    });
    Table {
        title: format!("Hosts: {}", tally.results),
        head: vec![
            "port",
            "hosts",
            "listen",
            "TLS",
            "STARTTLS",
            "missing",
            "refused",
            "AUTH before TLS",
            "AUTH without TLS",
        ],
        rows: rows.collect(),
    }
}

fn of_port(name: &str, port: &Port) -> Vec<Table> {
    let title = |what: &str| format!("Port {name}: {what}");
    let counts = |what, head, rows| Table {
        title: title(what),
        head: vec![head, "hosts"],
        rows,
    };
    let all_keys = port.keys.values().sum();
    let tables = vec![
        counts("versions", "version", in_order(&port.versions, port.tls)),
        counts(
            "versions, not known",
            "version",
            in_order(&port.versions_unknown, port.tls),
        ),
        Table {
            title: title("preferred suites"),
            head: vec!["version", "suite", "hosts"],
            rows: preferred(port),
        },
        counts(
            "key exchange below TLS 1.3",
            "exchange",
            by_count(&port.key_exchange, port.tls),
        ),
        // Not all that they accept, where they were not probed with -F.
        counts("groups seen", "group", by_count(&port.groups, port.tls)),
        counts(
            "smallest DH prime",
            "bits",
            in_order(&port.dh_bits, port.tls),
        ),
        counts("DH primes", "prime", by_count(&port.dh_primes, port.tls)),
        counts(
            "certificates",
            "certificate",
            certificates(&port.certificates),
        ),
        Table {
            head: vec!["key", "certificates"],
            ..counts("keys", "key", by_count(&port.keys, all_keys))
        },
        Table {
            head: vec!["signature", "certificates"],
            ..counts("signatures", "", by_count(&port.signatures, all_keys))
        },
        counts("findings", "finding", by_count(&port.findings, port.hosts)),
    ];
    // What nobody has needs no table.
    tables
        .into_iter()
        .filter(|table| !table.rows.is_empty())
        .collect()
}

/// Which suites servers choose of all, by version.
fn preferred(port: &Port) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (version, suites) in &port.preferred {
        for row in by_count(suites, suites.values().sum()) {
            rows.push([vec![version.to_string()], row].concat());
        }
    }
    rows
}

fn certificates(sums: &Certificates) -> Vec<Vec<String>> {
    if sums.hosts == 0 {
        return Vec::new();
    }
    [
        ("all verify and name the host", sums.verified),
        ("does not verify", sums.unverified),
        ("self-signed", sums.self_signed),
        ("expired", sums.expired),
        ("does not name the host", sums.misnamed),
        ("without its intermediate", sums.incomplete),
    ]
    .map(|(what, count)| vec![what.to_owned(), share(count, sums.hosts)])
    .to_vec()
}

fn shared(title: &str, head: &'static str, all: &[Shared]) -> Table {
    let rows = all.iter();
    let rows = rows.map(|one| vec![one.sha256.clone(), some(&one.hosts)]);
    Table {
        title: format!("{title}: {}", all.len()),
        head: vec![head, "hosts"],
        rows: rows.collect(),
    }
}

/// Names with blanks between; of many the first, and how many others there are.
fn some(names: &[String]) -> String {
    match names.split_at_checked(NAMED) {
        Some((first, others)) if !others.is_empty() => {
            let others = text::count(others.len(), "other");
            format!("{} and {others}", first.join(" "))
        }
        _ => names.join(" "),
    }
}

fn common(pairs: &[Pair]) -> Table {
    let side = |holders: &[Holder]| {
        let names = holders.iter();
        let names: Vec<String> = names
            .map(|one| format!("{} ({})", one.host, one.certificate))
            .collect();
        some(&names)
    };
    let rows = pairs.iter();
    Table {
        title: format!("RSA keys with a common factor: {}", pairs.len()),
        head: vec!["host (certificate)", "and"],
        rows: rows
            .map(|pair| vec![side(&pair.one), side(&pair.other)])
            .collect(),
    }
}

/// `353 (88 %)`.
fn share(count: u64, of: u64) -> String {
    // Rounded down, so that 100 % are all.
    match (count * 100).checked_div(of) {
        Some(percent) => format!("{count} ({percent} %)"),
        None => count.to_string(),
    }
}

fn in_order<T: Display>(counts: &Counts<T>, of: u64) -> Vec<Vec<String>> {
    let rows = counts.iter();
    rows.map(|(thing, count)| vec![thing.to_string(), share(*count, of)])
        .collect()
}

/// The most frequent first.
fn by_count<T: Display + Ord>(counts: &Counts<T>, of: u64) -> Vec<Vec<String>> {
    let rows = most_first(counts).into_iter();
    rows.map(|(thing, count)| vec![thing.to_string(), share(count, of)])
        .collect()
}

fn write(tables: &[Table], layout: Layout) -> String {
    let mut out = String::new();
    for table in tables {
        if !out.is_empty() {
            out.push('\n');
        }
        match layout {
            Layout::Markdown => markdown(&mut out, table),
            Layout::Plain => plain(&mut out, table),
        }
    }
    out
}

fn markdown(out: &mut String, table: &Table) {
    out.extend(["## ", &cell(&table.title), "\n"]);
    if table.rows.is_empty() {
        return;
    }
    out.push('\n');
    let mut row = |cells: &mut dyn Iterator<Item = String>| {
        for text in cells {
            out.extend(["| ", &text, " "]);
        }
        out.push_str("|\n");
    };
    row(&mut table.head.iter().map(|head| (*head).to_owned()));
    row(&mut table.head.iter().map(|_| "---".to_owned()));
    for cells in &table.rows {
        row(&mut cells.iter().map(|text| cell(text)));
    }
}

fn cell(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('|', "\\|")
}

fn plain(out: &mut String, table: &Table) {
    out.extend([&*table.title, "\n"]);
    if table.rows.is_empty() {
        return;
    }
    let columns = table.head.len();
    let width = |column: usize| {
        let cells = table.rows.iter().filter_map(|row| row.get(column));
        let lengths = cells.map(|text| text.chars().count());
        lengths
            .chain([table.head[column].len()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let heads: Vec<String> = table.head.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(&heads).chain(&table.rows) {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            line.push_str("  ");
            line.push_str(text);
            line.extend(std::iter::repeat_n(' ', width - text.chars().count()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
