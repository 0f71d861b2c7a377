//! The text of rules, compiled into records: for every text that tcprules
//! accepts the records that it makes, apart from what the page of sslrules(1)
//! lists (a line without a colon, networks, IPv6, `local=`, `sni=`, a second
//! range, a NUL).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use super::address::{self, Scope, Wrong};
use crate::text;

/// How many addresses the ranges of one line may stand for.
const RANGE_LIMIT: u64 = 1 << 20;
/// How many bytes they may have as they are written: enough for as many addresses, with
/// prefix lengths. Junk of 100 KB, a million times, would take all memory.
const RANGE_BYTES: u64 = 64 << 20;
/// The end of every range: tcprules cuts there in silence.
const OCTET: u64 = 255;
/// How much of a line a message shows, in bytes.
const SHOWN: usize = 200;

/// A record of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address.
    pub key: Vec<u8>,
    /// The instructions; the addresses of a range share them.
    pub data: Rc<[u8]>,
}

/// What a text was compiled into.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The records, in the order of the text.
    pub records: Vec<Record>,
    /// Lines that tcprules takes without a word although no client can meet
    /// them: each with its number.
    pub remarks: Vec<String>,
    /// The names of variables, each with the number of its line.
    pub names: Vec<(usize, Vec<u8>)>,
    /// Those of them that stand in a line for a server name.
    pub by_server_name: Vec<(usize, Vec<u8>)>,
}

/// A line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
    shown: String,
}

/// What can be wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not an address.
    Address,
    /// No colon ends the address.
    Colon,
    /// Neither `allow` nor `deny`, or something other than a comma behind it.
    Instruction,
    /// One of them, but for its letters.
    Capitals,
    /// A blank behind it.
    BlankBehind,
    /// A blank before it.
    BlankBefore,
    /// A blank before the address.
    Indented,
    /// A carriage return at the end.
    Return,
    /// A byte order mark at the beginning of the text.
    Mark,
    /// A NUL: in the database it would end a value early.
    Nul,
    /// More bits than the address has.
    Prefix,
    /// A server name that is not as DNS has it.
    Unicode,
    /// Not two numbers, or too many addresses.
    Range,
    /// A value without its closing delimiter.
    Value,
    /// A variable without a value, or no comma before it.
    Variable,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Problem::Address => "bad address",
            Problem::Colon => "no colon",
            Problem::Instruction => "no allow or deny",
            Problem::Capitals => "no allow or deny in small letters",
            Problem::BlankBehind => "a blank behind allow or deny",
            Problem::BlankBefore => "a blank before allow or deny",
            Problem::Indented => "a blank before the address",
            Problem::Return => "a carriage return at its end, as in a DOS file",
            Problem::Mark => "a byte order mark before it: save the text without one",
            Problem::Nul => "it holds a NUL",
            Problem::Prefix => "prefix length too long",
            Problem::Unicode => "bad address (names in DNS are ASCII: write it as xn--...)",
            Problem::Range => "bad range",
            Problem::Value => "unterminated value",
            Problem::Variable => "not a list of variables",
        })
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadLine {
            line,
            problem,
            shown,
        } = self;
        write!(
            out,
            "line {line}: unable to parse this line: {problem}: {shown}"
        )
    }
}

impl From<Wrong> for Problem {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Address => Problem::Address,
            Wrong::Prefix => Problem::Prefix,
            Wrong::Unicode => Problem::Unicode,
        }
    }
}

/// Compiles a text.
///
/// # Errors
/// Every bad line.
pub fn compile(text: &[u8]) -> Result<Compiled, Vec<BadLine>> {
    let mut compiled = Compiled::default();
    let mut bad = Vec::new();
    let mut known = HashMap::new();
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let number = at + 1;
        let end = line
            .iter()
            .rposition(|byte| !matches!(byte, b' ' | b'\t'))
            .map_or(0, |last| last + 1);
        let line = &line[..end];
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let first = compiled.records.len();
        let altered = match compile_line(line, &mut compiled.records) {
            Ok(altered) => altered,
            Err(problem) => {
                bad.push(BadLine {
                    line: number,
                    problem: problem.or_of_the_editor(line, number),
                    shown: text::excerpt(line, SHOWN),
                });
                continue;
            }
        };
        let added = &compiled.records[first..];
        let data = added.first().map_or(&[][..], |record| &record.data);
        let names = super::variables(data).map(|(name, _)| (number, name.to_vec()));
        let before = compiled.names.len();
        compiled.names.extend(names);
        let of_name = |record: &Record| address::scope(&record.key) == Scope::ServerName;
        if added.first().is_some_and(of_name) {
            let names = compiled.names[before..].iter().cloned();
            compiled.by_server_name.extend(names);
        }
        let mut names = compiled.names[before..].iter();
        let nameless = names.any(|(_, name)| name.is_empty());
        let remarks = [
            about_address(added, number, &mut known),
            altered.filter(|_| !added.is_empty()),
            nameless.then(|| "a variable without a name".to_owned()),
        ];
        let shown = text::excerpt(line, SHOWN);
        let remarks = remarks.into_iter().flatten();
        let remarks = remarks.map(|remark| format!("line {number}: {remark}: {shown}"));
        compiled.remarks.extend(remarks);
    }
    if bad.is_empty() {
        Ok(compiled)
    } else {
        Err(bad)
    }
}

/// What is to be said of a line's addresses: nobody meets them.
fn about_address(
    added: &[Record],
    number: usize,
    known: &mut HashMap<Vec<u8>, usize>,
) -> Option<String> {
    let mut unmet = added.iter().map(|record| address::unmet(&record.key));
    match unmet.next() {
        None => Some("this range is empty".to_owned()),
        Some(Some(why)) if unmet.all(|unmet| unmet.is_some()) => {
            Some(format!("no client has this address{why}"))
        }
        Some(_) => repeated(added, number, known).map(|(before, address)| {
            format!("line {before} has the same address ({address}), and it alone is met")
        }),
    }
}

/// What tcprules makes of a range in silence: it cuts at 255, and takes no number for 0.
fn altered_range(parts: &[Part<'_>]) -> Option<String> {
    parts.iter().find_map(|part| {
        let Part::Range { written, low, high } = *part else {
            return None;
        };
        let (before, behind) = std::str::from_utf8(written).ok()?.split_once('-')?;
        let as_written = text::number(before, low..=low).is_some()
            && text::number(behind, high..=high).is_some();
        (!as_written).then(|| format!("this range counts as {low}-{high}"))
    })
}

/// The line that has all of these addresses before this one, with the first of them.
/// A single address before a range that holds it is as it should be.
fn repeated(
    added: &[Record],
    number: usize,
    known: &mut HashMap<Vec<u8>, usize>,
) -> Option<(usize, String)> {
    let first = added.first()?;
    let before = known.get(&first.key).copied();
    let mut fresh = false;
    for record in added {
        known.entry(record.key.clone()).or_insert_with(|| {
            fresh = true;
            number
        });
    }
    let address = || match &*address::describe(&first.key) {
        "" => "every client".to_owned(),
        address => address.to_owned(),
    };
    before.filter(|_| !fresh).map(|before| (before, address()))
}

impl Problem {
    /// What an editor did to the line, if that may be why it cannot be understood.
    fn or_of_the_editor(self, line: &[u8], number: usize) -> Problem {
        match line {
            [0xef, 0xbb, 0xbf, ..] if number == 1 => Problem::Mark,
            [.., b'\r'] => Problem::Return,
            [b' ' | b'\t', ..] => Problem::Indented,
            _ => self,
        }
    }
}

/// Adds a line's records; gives what is to be said of its ranges.
fn compile_line(line: &[u8], records: &mut Vec<Record>) -> Result<Option<String>, Problem> {
    if line.contains(&0) {
        return Err(Problem::Nul);
    }
    let comma = position(line, b',').unwrap_or(line.len());
    // An IPv6 address has colons, a variable's value may have some. An address
    // with a comma is tcprules': it ends at the first colon.
    let colon = line[..comma]
        .iter()
        .rposition(|&byte| byte == b':')
        .or_else(|| position(line, b':'))
        .ok_or(Problem::Colon)?;
    let data: Rc<[u8]> = instructions(&line[colon + 1..])?.into();
    let address = &line[..colon];
    let parts = parts(address)?;
    let addresses = match &parts {
        Some(parts) => expand(parts, address.len())?,
        None => vec![address.to_vec()],
    };
    for address in addresses {
        records.push(Record {
            key: address::key(&address)?,
            data: Rc::clone(&data),
        });
    }
    Ok(parts.as_deref().and_then(altered_range))
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|&byte| byte == wanted)
}

/// The data of a record: `D` for deny, then each variable, with a NUL behind.
fn instructions(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let (mut data, mut rest) = if let Some(rest) = text.strip_prefix(b"deny") {
        (b"D\0".to_vec(), rest)
    } else if let Some(rest) = text.strip_prefix(b"allow") {
        (Vec::new(), rest)
    } else {
        return Err(no_instruction(text));
    };
    match rest.first() {
        None | Some(b',') => {}
        Some(b' ' | b'\t') => return Err(Problem::BlankBehind),
        Some(_) => return Err(Problem::Instruction),
    }
    while !rest.is_empty() {
        let variable = rest.strip_prefix(b",").ok_or(Problem::Variable)?;
        let equals = position(variable, b'=').ok_or(Problem::Variable)?;
        let (&delimiter, value) = variable[equals + 1..].split_first().ok_or(Problem::Value)?;
        let end = position(value, delimiter).ok_or(Problem::Value)?;
        data.push(b'+');
        data.extend_from_slice(&variable[..=equals]);
        data.extend_from_slice(&value[..end]);
        data.push(0);
        rest = &value[end + 1..];
    }
    Ok(data)
}

/// What is wrong with what begins with neither word.
fn no_instruction(text: &[u8]) -> Problem {
    let begins = |text: &[u8]| {
        let word = |word: &str| {
            let begin = text.get(..word.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()))
        };
        word("allow") || word("deny")
    };
    if begins(text) {
        Problem::Capitals
    } else if begins(text.trim_ascii_start()) {
        Problem::BlankBefore
    } else {
        Problem::Instruction
    }
}

/// The parts of an address that has a range, or may have one. Names and ident answers
/// have none, nor have IPv6 addresses.
fn parts(address: &[u8]) -> Result<Option<Vec<Part<'_>>>, Problem> {
    if !address.contains(&b'-')
        || address
            .iter()
            .any(|byte| matches!(byte, b'=' | b'@' | b':'))
    {
        return Ok(None);
    }
    let parts = address.split(|&byte| byte == b'.');
    let parts = parts.map(|part| match position(part, b'-') {
        Some(dash) => {
            let low = number(&part[..dash]).ok_or(Problem::Range)?;
            let high = number(&part[dash + 1..]).ok_or(Problem::Range)?.min(OCTET);
            Ok(Part::Range {
                written: part,
                low,
                high,
            })
        }
        None => Ok(Part::Text(part)),
    });
    parts.collect::<Result<_, _>>().map(Some)
}

/// Every address that an address of so many bytes stands for, by its ranges.
fn expand(parts: &[Part<'_>], length: usize) -> Result<Vec<Vec<u8>>, Problem> {
    let counts = parts.iter().map(|part| match *part {
        Part::Range { low, high, .. } => (high + 1).saturating_sub(low),
        Part::Text(_) => 1,
    });
    let count = counts.fold(1, u64::saturating_mul);
    if count > RANGE_LIMIT || count.saturating_mul(length as u64) > RANGE_BYTES {
        return Err(Problem::Range);
    }
    let mut addresses = vec![Vec::new()];
    if count == 0 {
        addresses.clear();
    }
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            for start in &mut addresses {
                start.push(b'.');
            }
        }
        match *part {
            Part::Text(text) => {
                for start in &mut addresses {
                    start.extend_from_slice(text);
                }
            }
            // A range of one stays where it is: thousands may stand in a line.
            Part::Range { low, high, .. } if low == high => {
                let number = low.to_string();
                for start in &mut addresses {
                    start.extend_from_slice(number.as_bytes());
                }
            }
            Part::Range { low, high, .. } => {
                let with = |start: &Vec<u8>| {
                    let start = start.clone();
                    (low..=high).map(move |number| [&start, number.to_string().as_bytes()].concat())
                };
                addresses = addresses.iter().flat_map(with).collect();
            }
        }
    }
    Ok(addresses)
}

/// What stands between two dots of an address.
#[derive(Clone, Copy)]
enum Part<'a> {
    Text(&'a [u8]),
    /// With its ends as they count.
    Range {
        written: &'a [u8],
        low: u64,
        high: u64,
    },
}

/// A number as tcprules reads it: nothing is 0, and what is too large wraps.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(address: &[u8]) -> Vec<Vec<u8>> {
        let parts = parts(address).expect("numbers").expect("a range");
        expand(&parts, address.len()).expect("not too many")
    }

    fn records(text: &str) -> Vec<(String, String)> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        compile(text.as_bytes())
            .expect(text)
            .records
            .iter()
            .map(|record| (lossy(&record.key), lossy(&record.data)))
            .collect()
    }

    #[test]
    fn a_line_becomes_a_record() {
        assert_eq!(
            records(
                "# x\n\n \t\n1.2.3.4:deny \t\n:allow,A=\"1,2:3\",B=/\"/,C=xx,=qq\n=h:deny,X=''"
            ),
            [
                ("1.2.3.4", "D\0"),
                ("", "+A=1,2:3\0+B=\"\0+C=\0+=\0"),
                ("=h", "D\0+X=\0"),
            ]
            .map(|(key, data)| (key.to_owned(), data.to_owned()))
        );
    }

    #[test]
    fn the_address_ends_at_the_last_colon_before_the_first_comma() {
        let key = |text| records(text).remove(0).0;
        assert_eq!(
            key("2001:db8::1:allow,A=\":x:\""),
            "2001:0db8:0000:0000:0000:0000:0000:0001"
        );
        assert_eq!(key("a,b@1.2.3.4:allow,A=\"x:y\""), "a,b@1.2.3.4");
    }

    #[test]
    fn ranges_expand_and_multiply() {
        let keys = |text| {
            records(text)
                .into_iter()
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            keys("1.2.3.9-11:allow"),
            ["1.2.3.9", "1.2.3.10", "1.2.3.11"]
        );
        assert_eq!(keys("1-2.3.4-5:deny"), ["1.3.4", "1.3.5", "2.3.4", "2.3.5"]);
        assert_eq!(keys("1.254-999.:allow"), ["1.254.", "1.255."]);
        assert_eq!(
            keys("10.1-2.0.0/16:allow"),
            ["_0000e0g00000000p", "_0000e0g0000000o0"]
        );
        assert_eq!(keys("1.9-8.0-255.0-255.0-255:allow").len(), 0);
        assert_eq!(keys("=a-b:allow"), ["=a-b"]);
        // As sslrules(1) says: up to 1048576 addresses a line.
        let all = expanded(b"0-255.0-255.0-15");
        assert_eq!(all.len(), 1_048_576);
        let wide = compile(b"0-255.0-255.0-16:allow").expect_err("more than that");
        assert_eq!(wide[0].problem, Problem::Range);
    }

    #[test]
    fn ranges_of_junk_take_neither_all_memory_nor_hours() {
        let long = format!("0-255.0-255.0-15.{}:allow", "x".repeat(100_000));
        let bad = compile(long.as_bytes()).expect_err("a million times as long");
        assert_eq!(bad[0].problem, Problem::Range);
        let ones = "1-1.".repeat(200_000);
        let all = expanded(ones.as_bytes());
        assert_eq!(all, ["1.".repeat(200_000).into_bytes()]);
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_with_it() {
        for (line, words) in [
            ("10.0.0/8:allow", "bad address"),
            ("1.2.3.4", "no colon"),
            ("1.2.3.4:accept", "no allow or deny"),
            ("10.0.0.0/33:allow", "prefix length too long"),
            ("1.2.3.4-x:allow", "bad range"),
            ("1.2.3.4:allow,A=\"x", "unterminated value"),
            ("1.2.3.4:allow,A", "not a list of variables"),
        ] {
            let bad = compile(line.as_bytes()).expect_err(line);
            let wanted = format!("line 1: unable to parse this line: {words}: {line}");
            assert_eq!(bad[0].to_string(), wanted);
        }
        let bad = compile("sni=b\u{fc}cher.example:allow".as_bytes()).expect_err("not ASCII");
        let cure = ": bad address (names in DNS are ASCII: write it as xn--...): ";
        assert!(bad[0].to_string().contains(cure), "{}", bad[0]);
        let bad = compile(b"1.2.3.4:allow,A=\"\0\"").expect_err("a NUL");
        assert!(bad[0].to_string().contains(": it holds a NUL: "));
    }

    #[test]
    fn each_variable_is_told_with_its_line_and_those_of_server_names_apart() {
        let text =
            b"1.2.3.4-5:allow,A=\"1\"\n\nsni=a.example:allow,CERTFILE=\"x\",B=\"2\"\n:deny\n\
            local=192.0.2.1:allow,CERTFILE=\"y\"\n";
        let compiled = compile(text).expect("parses");
        let named = |names: &[(usize, &str)]| -> Vec<(usize, Vec<u8>)> {
            let names = names.iter();
            names
                .map(|(line, name)| (*line, name.as_bytes().to_vec()))
                .collect()
        };
        let by_name = [(3, "CERTFILE"), (3, "B")];
        let all = [(1, "A"), by_name[0], by_name[1], (5, "CERTFILE")];
        assert_eq!(compiled.names, named(&all));
        assert_eq!(compiled.by_server_name, named(&by_name));
        assert_eq!(compiled.remarks, [] as [&str; 0]);
    }

    #[test]
    fn bad_lines_are_named_with_their_number() {
        for (line, problem) in [
            ("10.0.0/8:allow", Problem::Address),
            ("2001:db8::x:allow", Problem::Address),
            ("2001:db8::1", Problem::Instruction),
            ("1.2.3.4", Problem::Colon),
            ("allow,A=\"1\"", Problem::Colon),
            ("1.2.3.4:", Problem::Instruction),
            ("1.2.3.4:Deny", Problem::Capitals),
            ("1.2.3.4:ALLOW,A=\"x\"", Problem::Capitals),
            ("1.2.3.4: allow", Problem::BlankBefore),
            ("1.2.3.4:allow ,A=\"x\"", Problem::BlankBehind),
            ("1.2.3.4:deny\tA=\"x\"", Problem::BlankBehind),
            (" 10.0.0.0/8:deny", Problem::Indented),
            ("\t# a remark", Problem::Indented),
            ("\r", Problem::Return),
            ("1.2.3.4:allow,A=\"x\"\r", Problem::Return),
            ("1.2.3.4:allowed", Problem::Instruction),
            ("1.2.3.4:allow\r", Problem::Return),
            ("1.2.3.4:allow,A=\"\0\"", Problem::Nul),
            ("10.0.0.0/33:allow", Problem::Prefix),
            ("::/129:allow", Problem::Prefix),
            ("1.2.3.4-x:allow", Problem::Range),
            ("1-2-3:allow", Problem::Range),
            ("a-b:allow", Problem::Range),
            ("1.2-3.x-4:allow", Problem::Range),
            ("1.2.3.4:allow,A=", Problem::Value),
            ("1.2.3.4:allow,A=\"x", Problem::Value),
            ("1.2.3.4:allow,A= x ", Problem::Value),
            ("1.2.3.4:allow,", Problem::Variable),
            ("1.2.3.4:allow,A", Problem::Variable),
            ("1.2.3.4:allow,A=\"x\"B=\"y\"", Problem::Variable),
        ] {
            let bad = compile(format!("#\n\n:deny\n{line}\n:allow\n").as_bytes()).expect_err(line);
            let [bad] = &bad[..] else {
                panic!("{line}: {bad:?}")
            };
            assert_eq!((bad.line, bad.problem), (4, problem), "{line}");
            assert!(
                bad.to_string()
                    .starts_with("line 4: unable to parse this line: ")
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let bad = compile(b"\xef\xbb\xbf# rules\n:allow\n").expect_err("a mark");
        assert_eq!((bad[0].line, bad[0].problem), (1, Problem::Mark));
        // Only there: elsewhere it has come with a text that was put in.
        let bad = compile(b":allow\n\xef\xbb\xbfrules\n").expect_err("no rule");
        assert_eq!(bad[0].line, 2);
        assert_ne!(bad[0].problem, Problem::Mark);
        let compiled = compile(b"\xef\xbb\xbf:deny\n").expect("tcprules takes it");
        assert_eq!(
            compiled.remarks,
            [
                "line 1: no client has this address (a byte order mark before it: save the text without one): \\xEF\\xBB\\xBF:deny"
            ]
        );
    }

    #[test]
    fn lines_that_nobody_meets_are_remarked_on() {
        for (text, remarks) in [
            (
                "1.2.3.4:allow\n1.2.3:deny\n1.2.3.9-4:deny\n",
                &[
                    "line 2: no client has this address: 1.2.3:deny",
                    "line 3: this range is empty: 1.2.3.9-4:deny",
                ][..],
            ),
            (
                "=Host:deny\nroot@=Host:deny\n=*.example.com:deny\n 1.2.3.4:deny\n",
                &[
                    "line 1: no client has this address (names are looked up in small letters): =Host:deny",
                    "line 2: no client has this address (names are looked up in small letters): root@=Host:deny",
                    "line 3: no client has this address (* stands for nothing here: all names below example.com are =.example.com): =*.example.com:deny",
                    "line 4: no client has this address (a blank before it):  1.2.3.4:deny",
                ],
            ),
            (
                "sni=192.0.2.1:deny\nsni=a:deny\n",
                &[
                    "line 1: no client has this address (an IP address is never sent as server name): sni=192.0.2.1:deny",
                ],
            ),
            (
                "1.2.3.4:allow\n10.0.0.0/8:allow\n1.2.3.4:deny\n10.1.2.3/8:deny\n:deny\n:allow\nsni=A:deny\nsni=a:deny\n",
                &[
                    "line 3: line 1 has the same address (1.2.3.4), and it alone is met: 1.2.3.4:deny",
                    "line 4: line 2 has the same address (10.0.0.0/8), and it alone is met: 10.1.2.3/8:deny",
                    "line 6: line 5 has the same address (every client), and it alone is met: :allow",
                    "line 8: line 7 has the same address (sni=a), and it alone is met: sni=a:deny",
                ],
            ),
            // The exception before the range is no slip; the other way round it is.
            ("1.2.3.4:deny\n1.2.3.0-9:allow\n", &[]),
            ("1.2.3.0:deny\n1.2.3.0-9:allow\n", &[]),
            (
                "1.2.3.0-9:allow\n1.2.3.4:deny\n",
                &[
                    "line 2: line 1 has the same address (1.2.3.4), and it alone is met: 1.2.3.4:deny",
                ],
            ),
        ] {
            let compiled = compile(text.as_bytes()).expect(text);
            assert_eq!(compiled.remarks, remarks, "{text}");
        }
    }
}
