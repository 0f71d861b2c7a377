//! What a person sees: colours on a terminal alone, and progress.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

use super::command;
use super::server::OpenSsl;
use crate::harness::{Identity, KeyKind, Place, need, run};

/// Runs sslprobe on a terminal of script's with words of the shell behind its own,
/// and gives what the terminal shows.
fn on_terminal(script: &Path, words: &[&str], behind: &str, plain: Option<&str>) -> String {
    let probe = command(words);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("UTF-8"));
    let mut line = quoted(probe.get_program());
    for word in probe.get_args() {
        line += " ";
        line += &quoted(word);
    }
    let mut terminal = Command::new(script);
    terminal.args(["-qec", &format!("{line} {behind}"), "/dev/null"]);
    terminal.env_remove("NO_COLOR").env("SHELL", "/bin/sh");
    terminal.envs(plain.map(|word| ("NO_COLOR", word)));
    let ended = run(&mut terminal, b"");
    // The server is self-signed.
    assert_eq!(ended.code, Some(1), "{ended:?}");
    String::from_utf8(ended.stdout).expect("UTF-8")
}

/// Its report, whose seconds differ, without ends of lines of a terminal's.
fn report(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim_end().to_owned());
    lines
        .filter(|line| !line.contains(" handshakes, "))
        .collect()
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once('m').expect("the end of a colour").1;
    }
    plain
}

#[test]
fn colours_appear_on_a_terminal_alone_and_the_word_is_there_in_any_case() {
    let script = need!("script");
    let place = Place::new("probe-colours");
    let server = OpenSsl::start(&place, &[&Identity::localhost(KeyKind::Rsa2048)], &[]);
    let words = ["-q", server.at.as_str()];
    let silent = place.text("silent");
    let behind = format!("2>{silent}");
    let colourful = on_terminal(&script, &words, &behind, None);
    assert!(colourful.contains("\x1b[33mmedium "), "{colourful:?}");
    // An empty one says nothing: no-color.org.
    let empty = on_terminal(&script, &words, &behind, Some(""));
    assert!(empty.contains("\x1b[33mmedium "), "{empty:?}");
    let plain = on_terminal(&script, &words, &behind, Some("1"));
    assert!(!plain.contains('\x1b'), "{plain:?}");
    assert!(plain.contains("  medium "), "{plain:?}");
    assert_eq!(report(&without_colours(&colourful)), report(&plain));
    // JSON is for programs, wherever it goes.
    let json = on_terminal(&script, &[&["-j"], &words[..]].concat(), &behind, None);
    assert!(!json.contains('\x1b'), "{json:?}");
    // A file is no terminal, though descriptor 2 is one.
    let kept = place.text("kept");
    on_terminal(&script, &words, &format!(">{kept}"), None);
    let kept = fs::read_to_string(kept).expect("kept");
    assert_eq!(report(&kept), report(&plain));
}

#[test]
fn progress_is_shown_on_descriptor_2_where_that_is_a_terminal() {
    let script = need!("script");
    let place = Place::new("probe-progress");
    let server = OpenSsl::start(&place, &[&Identity::localhost(KeyKind::Rsa2048)], &[]);
    // Two hosts, not one: ports of one host are done together.
    let named = server.at.replace("127.0.0.1", "localhost");
    let words = ["-q", "-4", server.at.as_str(), named.as_str()];
    let kept = place.text("kept");
    let shown = on_terminal(&script, &words, &format!(">{kept}"), None);
    assert!(shown.contains("0/2 done, 0 with findings\r"), "{shown:?}");
    assert!(shown.contains("1/2 done, 1 with findings, "), "{shown:?}");
    assert!(shown.contains(" s left\r"), "{shown:?}");
    assert!(
        shown.ends_with("\r\x1b[K"),
        "nothing is left behind: {shown:?}"
    );
    let reports = fs::read_to_string(kept).expect("kept");
    assert!(!reports.contains("1/2 done"), "{reports}");
    assert!(reports.contains("  medium "), "{reports}");
    // With one destination, and in a file, there is none.
    let silent = place.text("silent");
    on_terminal(&script, &words, &format!("2>{silent}"), None);
    assert_eq!(fs::read_to_string(silent).expect("kept"), "");
    let kept = place.text("one");
    let shown = on_terminal(&script, &words[..3], &format!(">{kept}"), None);
    assert_eq!(shown, "");
}
