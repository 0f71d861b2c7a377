//! A reader who follows a page on a machine of his own: a copy of this one that
//! lasts as long as the test, with a network that reaches nobody else.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::page::{Block, Use, blocks};
use crate::harness::{need, need_root, programs};

/// Where the reader's machine, and what its shell is told, are made.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guides");

/// Follows a page of the checkout from its first block to its last. `needs` are
/// the programs that it takes for installed.
///
/// # Panics
///
/// When a block does not end, or does not print, as the page says.
pub fn follow(page: &str, needs: &[&str]) {
    let blocks = blocks(page);
    for block in &blocks {
        if let Use::NotRun(reason) = &block.used {
            println!("{page}:{}: not run: {reason}\n{}", block.line, block.text);
        }
    }
    need_root!();
    for name in needs {
        need!(name);
    }
    let place = Place::new(page);
    let name = Path::new(page).file_stem().unwrap().to_str().unwrap();
    fs::write(place.0.join("session"), session(&place, name, &blocks)).unwrap();
    let programs = programs::folder();
    let mut machine = Command::new("timeout");
    machine
        .args([
            "--signal=KILL",
            "600",
            "unshare",
            "-m",
            "-n",
            "-p",
            "-u",
            "-i",
        ])
        .args(["-f", "--kill-child", "bash", "-e"])
        .args([Path::new(HERE).join("machine.sh"), place.0.clone()])
        .args([&*programs, Path::new(env!("CARGO_MANIFEST_DIR"))])
        .process_group(0)
        .stdin(Stdio::null());
    let ended = machine.output().expect("unshare");
    judge(page, &place, &blocks);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{page}: the machine: {said}");
    place.remove();
}

/// What is given to the reader's shell: every block in its turn, and where its
/// output and its exit code go. A command that fails ends the session.
fn session(place: &Place, name: &str, blocks: &[Block]) -> String {
    let mut session = String::from(". /test/shell.sh\n");
    if Path::new(HERE).join(format!("before/{name}.sh")).exists() {
        writeln!(session, "before {name}").unwrap();
    }
    for (number, block) in blocks.iter().enumerate() {
        fs::write(place.0.join(number.to_string()), &block.text).unwrap();
        if let Some(name) = &block.before {
            writeln!(session, "before {name}").unwrap();
        }
        match &block.used {
            Use::File(path) => writeln!(session, "written {number} {path}").unwrap(),
            Use::Fresh | Use::NotRun(_) | Use::Output | Use::Text => (),
            Use::Service(port) => writeln!(session, "served {number} {port}").unwrap(),
            Use::Typed(_) if block.retry => {
                writeln!(session, "begin {number}\nretried {number}\nend {number} 0").unwrap();
            }
            Use::Typed(code) => {
                // A last command that is to fail must not end the shell.
                let (lax, strict) = if *code == 0 {
                    ("", "")
                } else {
                    ("set +e\n", "\nset -e")
                };
                let files = format!("/test/{number} >/test/{number}.out 2>&1 </dev/null");
                writeln!(
                    session,
                    "begin {number}\n{lax}. {files}\ncode=$?{strict}\nend {number} \"$code\""
                )
                .unwrap();
            }
        }
        if let Some(port) = &block.listens {
            writeln!(session, "until_true listens {port}").unwrap();
        }
    }
    session.push_str("exit 0\n");
    session
}

fn judge(page: &str, place: &Place, blocks: &[Block]) {
    let read = |name: String| fs::read_to_string(place.0.join(name)).unwrap_or_default();
    let mut printed = String::new();
    for (number, block) in blocks.iter().enumerate() {
        let at = format!("{page}:{}", block.line);
        let code = read(format!("{number}.code"));
        let wanted = match &block.used {
            Use::Fresh | Use::NotRun(_) => {
                printed.clear();
                continue;
            }
            Use::Text => continue,
            Use::Output => {
                assert!(
                    agree(&block.text, &printed),
                    "{at}: the page shows\n{}\nand this came:\n{printed}",
                    block.text
                );
                continue;
            }
            Use::File(_) | Use::Service(_) => "0".to_owned(),
            Use::Typed(code) => code.to_string(),
        };
        printed = read(format!("{number}.out"));
        assert_eq!(
            code.trim(),
            wanted,
            "{at}: the exit code of\n{}\nwhich printed:\n{printed}\n{} has what the test did besides",
            block.text,
            place.0.join("before.out").display(),
        );
    }
}

/// Whether the output is as the page shows it: `...` stands for any text within
/// a line, and as a line of its own for any lines.
fn agree(shown: &str, printed: &str) -> bool {
    let shown: Vec<&str> = shown.lines().collect();
    let printed: Vec<&str> = printed.lines().collect();
    lines_agree(&shown, &printed)
}

fn lines_agree(shown: &[&str], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "..." => {
            (0..=printed.len()).any(|skip| lines_agree(rest, &printed[skip..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, others)| line_agrees(line, first) && lines_agree(rest, others)),
    }
}

fn line_agrees(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut left) = printed.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return left.is_empty();
    };
    for part in parts {
        match left.split_once(part) {
            Some((_, rest)) => left = rest,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[test]
fn what_a_page_shows_is_compared_word_by_word() {
    assert!(agree("a\nb ... d\n", "a\nb c d\n"));
    assert!(agree("...\nz\n", "a\nb\nz\n"));
    assert!(agree("a\n...\n", "a\n"));
    for (shown, printed) in [
        ("a\n", "a\nb\n"),
        ("a\nb\n", "a\n"),
        ("b ... d\n", "b c\n"),
        ("x...x\n", "x\n"),
        ("...\nz\n", "z\na\n"),
    ] {
        assert!(!agree(shown, printed), "{shown:?} {printed:?}");
    }
}

/// What the shell and the test hand each other; kept where the test fails.
struct Place(PathBuf);

impl Place {
    fn new(page: &str) -> Place {
        let name = format!("guide-{}-{}", page.replace('/', "-"), std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn remove(self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
