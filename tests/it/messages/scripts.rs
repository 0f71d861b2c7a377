//! The messages of shell scripts: what stands behind `barf` and `shout`, and every
//! quoted text that says of itself that it is a message.
#![forbid(unsafe_code)]

use super::GAP;

/// Words that a script's own functions put before a message.
const SPEAKERS: [&str; 2] = ["barf ", "shout "];

/// What marks a text as a message, and is no part of what the page has.
const KINDS: [&str; 3] = ["fatal: ", "warning: ", "usage: "];

/// The messages of a script, with [`GAP`] for what varies, and without the words
/// for their kind.
pub fn messages(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    // A number sign begins a comment where a word may begin.
    let mut begins_word = true;
    while let Some(first) = rest.chars().next() {
        let spoken = SPEAKERS.iter().any(|word| said_before(source, rest, word));
        match first {
            '#' if begins_word => rest = rest.split_once('\n').map_or("", |(_, next)| next),
            '\'' | '"' => {
                let (text, behind) = quoted(&rest[1..], first);
                let kind = KINDS.iter().find_map(|kind| text.split_once(kind));
                match kind {
                    // It may be a text within a text.
                    Some((_, message)) => {
                        let end = message.find(['"', '\n']).unwrap_or(message.len());
                        found.push(message[..end].to_owned());
                    }
                    None if spoken => found.push(text),
                    None => (),
                }
                rest = behind;
            }
            _ => rest = &rest[first.len_utf8()..],
        }
        begins_word = first.is_whitespace() || first == '#' && begins_word;
    }
    found
}

/// Whether a word stands right before `rest`, which is the end of `source`.
fn said_before(source: &str, rest: &str, word: &str) -> bool {
    source[..source.len() - rest.len()].ends_with(word)
}

/// A text up to its quote, with [`GAP`] for what the shell or printf puts in, and
/// what is behind it.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut message = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let behind = &rest[first.len_utf8()..];
        rest = match first {
            _ if first == quote => return (message, behind),
            '$' if quote == '"' => {
                message.push(GAP);
                behind_expansion(behind)
            }
            '%' if behind.starts_with('s') => {
                message.push(GAP);
                &behind[1..]
            }
            '\\' if behind.starts_with('n') => {
                message.push('\n');
                &behind[1..]
            }
            '\\' => &behind[behind.chars().next().map_or(0, char::len_utf8)..],
            _ => {
                message.push(first);
                behind
            }
        };
    }
    (message, "")
}

/// Behind what follows a dollar sign: a name, a digit, or what is in brackets.
fn behind_expansion(text: &str) -> &str {
    let (open, close) = match text.chars().next() {
        Some('(') => ('(', ')'),
        Some('{') => ('{', '}'),
        Some(first) if first.is_ascii_alphabetic() || first == '_' => {
            let end = text.find(|one: char| !one.is_ascii_alphanumeric() && one != '_');
            return &text[end.unwrap_or(text.len())..];
        }
        _ => return text.get(1..).unwrap_or(""),
    };
    let mut depth = 0_usize;
    for (at, one) in text.char_indices() {
        if one == open {
            depth += 1;
        } else if one == close {
            depth -= 1;
            if depth == 0 {
                return &text[at + 1..];
            }
        }
    }
    ""
}

#[test]
fn messages_of_scripts_are_found_where_they_are() {
    let script = r#"
# barf "a comment's"
# and its next line's
  --help) printf 'usage: %s\nSee tool(1).\n' "$usage" ;;
  [ -d "$1" ] || barf "cannot find $1: $(tail -n 1 "$work/said") or ${why##*: }"
  shout 'warning: so it is'; printf 'tool: usage: unknown option %s; %s\n' "$1" "$usage" >&2
  printf "%s\n" "tool: fatal: it ended" >&2
  say 'nothing of the kind'
"#;
    assert_eq!(
        messages(script),
        [
            GAP.to_string(),
            format!("cannot find {GAP}: {GAP} or {GAP}"),
            "so it is".to_owned(),
            format!("unknown option {GAP}; {GAP}"),
            "it ended".to_owned(),
        ]
    );
}
