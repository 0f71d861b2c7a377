//! INSTALL: plain text without fences. Its commands are the lines that are indented
//! by seven blanks. package/test-packages types them in a fresh Debian, but for those
//! that tests/packages/INSTALL.not-typed names, each with its reason.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_command_of_install_is_typed_or_has_its_reason() {
    let page = read("INSTALL");
    let indented = page.lines().filter(|line| line.starts_with("    "));
    let commands: Vec<&str> = indented
        .map(|line| {
            let command = line.strip_prefix("       ").unwrap_or(" ");
            assert!(
                !command.starts_with(' '),
                "INSTALL: neither text nor a command: {line}"
            );
            command
        })
        .collect();
    let table = read("tests/packages/INSTALL.not-typed");
    let mut typed = commands.clone();
    for line in table.lines() {
        let (command, reason) = line.split_once('\t').expect("a tab before the reason");
        assert!(
            typed.contains(&command),
            "INSTALL has no such command: {command}"
        );
        typed.retain(|other| *other != command);
        println!("INSTALL: not run: {reason}\n{command}");
    }
    // Whoever follows the page gets programs, and gets rid of them.
    for wanted in ["package/compile", "package/install", "package/uninstall"] {
        assert!(typed.contains(&wanted), "nobody types {wanted}");
    }
    assert!(
        read("tests/packages/walk.sh").contains("typed_of_install"),
        "nobody types what INSTALL has"
    );
}
