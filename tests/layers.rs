//! The order of the library's modules, held against their sources: a module uses
//! those above its own line in lib.rs, `unsafe` stays where it may be, and the
//! programs' mains stay thin.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that may hold `unsafe`.
const UNSAFE: [&str; 2] = ["sys", "tls_ffi"];

/// One source file of the library.
struct Source {
    path: PathBuf,
    /// The module of lib.rs that it belongs to.
    module: String,
    /// Its text without comments and string literals.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The module names in lib.rs, from top to bottom.
fn order(lib: &str) -> Vec<String> {
    code_of(lib)
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            let rest = line
                .strip_prefix("pub(crate) mod ")
                .or_else(|| line.strip_prefix("pub mod "))
                .or_else(|| line.strip_prefix("mod "))?;
            Some(rest.trim_end_matches(';').to_owned())
        })
        .collect()
}

/// The text without comments and without what stands in quotes. Enough of
/// Rust's grammar for this crate's own sources: raw strings and nested block
/// comments included.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, out.chars().last()) {
            length
        } else if rest.starts_with('"') {
            quoted(rest)
        } else {
            character(rest).unwrap_or_default()
        };
        if skipped == 0 {
            let next = rest.chars().next().unwrap();
            out.push(next);
            at += next.len_utf8();
        } else {
            at += skipped;
        }
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let inner = rest.strip_prefix('r')?;
    let hashes = inner.len() - inner.trim_start_matches('#').len();
    if inner.as_bytes().get(hashes) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let from = 1 + hashes + 1;
    Some(
        rest[from..]
            .find(&close)
            .map_or(rest.len(), |end| from + end + close.len()),
    )
}

/// A character literal, which a lifetime is not.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if inner.starts_with('\\') {
        return Some(1 + 2 + inner[2..].find('\'')? + 1);
    }
    let first = inner.chars().next()?;
    let end = first.len_utf8();
    inner[end..].starts_with('\'').then_some(end + 2)
}

fn sources() -> Vec<Source> {
    let folder = root().join("src/lib");
    let mut files = Vec::new();
    rust_files(&folder, &mut files);
    files.sort();
    files
        .into_iter()
        .filter(|path| path.file_name().unwrap() != "lib.rs")
        .map(|path| {
            let inside = path.strip_prefix(&folder).unwrap();
            let first = inside.components().next().unwrap();
            let module = Path::new(first.as_os_str()).file_stem().unwrap();
            Source {
                module: module.to_str().unwrap().to_owned(),
                code: code_of(&fs::read_to_string(&path).unwrap()),
                path,
            }
        })
        .collect()
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The modules that a text names behind `crate::`, groups in braces included.
fn used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(word) {
            continue;
        }
        let rest = &code[at + path.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(heads(group));
        } else {
            found.insert(rest.chars().take_while(|&c| word(c)).collect());
        }
    }
    found.remove("");
    found
}

/// The first words of the members of a use group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut members = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            '{' => depth += 1,
            ',' if depth == 0 => members.push(String::new()),
            c => members.last_mut().unwrap().push(c),
        }
    }
    members
        .iter()
        .map(|member| member.trim().chars().take_while(|&c| word(c)).collect())
        .collect()
}

/// Whether the word stands in the code by itself.
fn holds_word(code: &str, wanted: &str) -> bool {
    code.match_indices(wanted)
        .any(|(at, _)| !code[..at].ends_with(word) && !code[at + wanted.len()..].starts_with(word))
}

/// A file that only lists modules.
fn list_only(code: &str) -> bool {
    code.lines().map(str::trim).all(|line| {
        line.is_empty()
            || (line.ends_with(';') && (line.starts_with("pub mod ") || line.starts_with("mod ")))
    })
}

#[test]
fn the_reader_of_sources_sees_code_alone() {
    let text = "use crate::a; // crate::b\nlet s = \"crate::c \\\" unsafe\"; /* crate::d /* */ */ r#\"crate::e\"#; '\"'; 'x; '\\''; crate::{f::{g, h}, i}";
    let code = code_of(text);
    let expected: BTreeSet<_> = ["a", "f", "i"].map(str::to_owned).into();
    assert_eq!(used(&code), expected, "{code}");
    assert!(!holds_word(&code, "unsafe"));
    assert!(holds_word("x = unsafe { y }", "unsafe"));
    assert!(!holds_word("forbid(unsafe_code)", "unsafe"));
    assert!(list_only("\npub mod a;\nmod b;\n") && !list_only("pub mod a;\nfn b() {}"));
    assert_eq!(order("//! mod x;\npub mod a;\n\npub mod b;\n"), ["a", "b"]);
}

#[test]
fn a_module_uses_only_those_above_it() {
    let order = order(&fs::read_to_string(root().join("src/lib/lib.rs")).unwrap());
    assert!(order.len() > 3, "lib.rs lists its modules: {order:?}");
    let place = |module: &str| order.iter().position(|one| one == module);
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = place(&source.module) else {
            wrong.push(format!("{}: not in lib.rs", source.path.display()));
            continue;
        };
        for module in used(&source.code) {
            match place(&module) {
                None => wrong.push(format!(
                    "{}: crate::{module} is no module",
                    source.path.display()
                )),
                Some(other) if other > own => {
                    wrong.push(format!(
                        "{}: {module} stands below it",
                        source.path.display()
                    ));
                }
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_where_it_is_fenced_in() {
    let mut wrong = Vec::new();
    for source in sources() {
        if UNSAFE.contains(&source.module.as_str()) {
            continue;
        }
        let shown = source.path.display();
        if holds_word(&source.code, "unsafe") {
            wrong.push(format!("{shown}: unsafe"));
        }
        if !source.code.contains("#![forbid(unsafe_code)]") && !list_only(&source.code) {
            wrong.push(format!("{shown}: no #![forbid(unsafe_code)]"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_mains_are_thin() {
    let mut files = Vec::new();
    rust_files(&root().join("src/bin"), &mut files);
    assert!(files.len() >= 2, "sslserver and sslclient at least");
    for path in files {
        let code = code_of(&fs::read_to_string(&path).unwrap());
        for forbidden in ["openssl", "nix", "libc", "unsafe"] {
            assert!(
                !holds_word(&code, forbidden),
                "{}: {forbidden}",
                path.display()
            );
        }
        assert!(
            code.contains("#![forbid(unsafe_code)]"),
            "{}",
            path.display()
        );
    }
}
