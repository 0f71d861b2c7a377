//! The order of the library's modules, held against their sources: a module uses
//! those above its own line in lib.rs. `unsafe` stays where it may be, and the
//! programs' mains hold one call.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules that may hold `unsafe`.
const UNSAFE: [&str; 2] = ["sys", "tls_ffi"];

/// The Rust files below a folder, by their names in it, and what they hold.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    found
}

/// The module of lib.rs that a file belongs to.
fn module_of(file: &Path) -> &str {
    let first = Path::new(file.components().next().unwrap().as_os_str());
    first.file_stem().unwrap().to_str().unwrap()
}

/// The modules in lib.rs, from top to bottom.
fn order(lib: &str) -> Vec<&str> {
    lib.lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|rest| rest.trim_end_matches(';'))
        .collect()
}

/// The modules that a text names behind `crate::`, one or several in braces, in
/// lines that are no comments. What this does not understand is no module's name.
fn used(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim_start);
    let code = lines.filter(|line| !line.starts_with("//"));
    let paths = code.flat_map(|line| line.split("crate::").skip(1));
    let heads = paths.flat_map(|path| {
        let group = path
            .strip_prefix('{')
            .and_then(|group| group.split('}').next());
        let (group, most) = group.map_or((path, 1), |group| (group, usize::MAX));
        group.split(',').take(most)
    });
    heads
        .map(|path| {
            path.trim()
                .split(|c: char| !c.is_alphanumeric() && c != '_')
        })
        .map(|mut words| words.next().unwrap_or_default())
        .collect()
}

#[test]
fn modules_are_found_wherever_they_are_named() {
    let text = "use crate::a;\n// crate::b\n  f(crate::c::d(1), crate::e);\nuse crate::{f, g::h};";
    assert_eq!(used(text), ["a", "c", "e", "f", "g"]);
    assert_eq!(used("use crate::{"), [""]);
    let lib = "//! mod x;\n/// mod y;\nmod a;\n#[cfg(b)]\npub mod b;\n";
    assert_eq!(order(lib), ["a", "b"]);
}

#[test]
fn a_module_uses_only_those_above_it() {
    let sources = sources("src/lib");
    let lib = sources.iter().find(|(file, _)| file == Path::new("lib.rs"));
    let order = order(&lib.unwrap().1);
    assert!(order.len() > 3, "lib.rs lists its modules: {order:?}");
    let place = |module: &str| order.iter().position(|one| *one == module);
    let mut wrong = Vec::new();
    for (file, text) in sources
        .iter()
        .filter(|(file, _)| file != Path::new("lib.rs"))
    {
        let own = place(module_of(file));
        assert!(own.is_some(), "{}: not in lib.rs", file.display());
        // `None`, for what is no module, is less than any place.
        let above = |module: &&str| place(module).is_some() && place(module) <= own;
        let others = used(text).into_iter().filter(|module| !above(module));
        wrong.extend(others.map(|module| format!("{}: crate::{module}", file.display())));
    }
    assert!(wrong.is_empty(), "not above it:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_where_it_is_fenced_in() {
    for (file, text) in sources("src/lib") {
        let fenced = if file == Path::new("lib.rs") {
            !text.contains("unsafe")
        } else {
            text.contains("\n#![forbid(unsafe_code)]\n") || UNSAFE.contains(&module_of(&file))
        };
        assert!(fenced, "{}: no #![forbid(unsafe_code)]", file.display());
    }
}

/// What a process begins with (signals that whoever started it ignores) is no matter
/// for each program.
#[test]
fn every_program_begins_as_all_do() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib/lib.rs"));
    let lib = lib.unwrap();
    let begin = "sys::signal::begin();\n                program::$name::main()\n";
    assert!(lib.contains(begin), "the macro of the programs");
    assert_eq!(lib.matches("::main").count(), 1, "another way to a program");
}

#[test]
fn the_mains_are_thin() {
    let programs = sources("src/bin");
    assert!(programs.len() >= 2, "sslserver and sslclient at least");
    for (file, text) in programs {
        let main = module_of(&file).replace('-', "_");
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(first.starts_with("//! "), "{}", file.display());
        let call = format!("fn main() -> std::process::ExitCode {{\n    ucspi_tls::{main}()\n}}\n");
        assert_eq!(
            rest,
            format!("#![forbid(unsafe_code)]\n\n{call}"),
            "{}",
            file.display()
        );
    }
}
