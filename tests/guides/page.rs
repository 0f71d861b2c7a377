//! A guide's blocks, and the words behind their fences that say what a reader
//! does with each.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

/// What a reader does with a block.
#[derive(Debug)]
pub enum Use {
    /// `file=PATH`: writes it. The sentence above the block names the file, since a
    /// reader of the rendered page does not see this; a script is made executable by
    /// the page.
    File(String),
    /// `fresh`: types it on a Debian that has nothing else, as package/test-packages
    /// does; the machine of these tests has it done already.
    Fresh,
    /// `not-run: reason`: types it, but no test can.
    NotRun(String),
    /// `output`: compares with what the block before it printed.
    Output,
    /// `service=PORT`: a script that serves on this port until it is stopped.
    Service(String),
    /// `text`: reads it. It is no command and no file.
    Text,
    /// `sh`: types it; the last command's exit code is this one.
    Typed(u8),
}

#[derive(Debug)]
pub struct Block {
    /// The first line of its text in the page, from 1.
    pub line: usize,
    pub used: Use,
    /// `before=NAME`: what the test has happen first, a script of before/.
    pub before: Option<String>,
    /// `listens=PORT`: what the block leaves in the background serves there.
    pub listens: Option<String>,
    /// `retry`: typed again until it ends with 0, as by a reader who waits for
    /// something to happen.
    pub retry: bool,
    pub text: String,
}

/// The blocks of a page, in their order.
///
/// A block without a mark, one whose words are unknown, and code that is only
/// indented fail the test: nothing is left out in silence.
pub fn blocks(page: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut above = String::new();
    let mut blank = true;
    for (number, line) in (1..).zip(text.lines()) {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                let typed = ["$ ", "exec "].iter().any(|sign| line.starts_with(sign));
                assert!(
                    !(typed && matches!(block.used, Use::Text)),
                    "{page}:{number}: a command that no test types: {line}"
                );
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(words)) => {
                let block = begin(words, page, number);
                if let Use::File(path) = &block.used {
                    let named = above.contains(&format!("`{path}`"));
                    assert!(
                        named,
                        "{page}:{number}: nothing above says that this is {path}"
                    );
                }
                above.clear();
                open = Some(block);
            }
            (None, None) => {
                assert!(
                    !(blank && line.starts_with("    ")),
                    "{page}:{number}: code that is indented; put it between fences"
                );
                above.push_str(line);
                above.push('\n');
            }
        }
        blank = line.is_empty();
    }
    assert!(open.is_none(), "{page}: a fence is not closed");
    blocks
}

/// A block with nothing in it yet, from the words of its fence.
fn begin(words: &str, page: &str, number: usize) -> Block {
    let mut block = Block {
        line: number + 1,
        used: Use::Typed(0),
        before: None,
        listens: None,
        retry: false,
        text: String::new(),
    };
    let (words, reason) = match words.split_once(" not-run: ") {
        Some((words, reason)) => (words, Some(reason)),
        None => (words, None),
    };
    let mut words = words.split(' ');
    match words.next() {
        Some("sh") => (),
        Some("output") => block.used = Use::Output,
        Some("conf") => block.used = Use::File(String::new()),
        Some("text") => block.used = Use::Text,
        _ => panic!("{page}:{number}: a block that does not say what it is"),
    }
    for word in words {
        match word.split_once('=') {
            None if word == "fresh" => block.used = Use::Fresh,
            None if word == "retry" => block.retry = true,
            Some(("before", name)) => block.before = Some(name.to_owned()),
            Some(("listens", port)) => block.listens = Some(port.to_owned()),
            Some(("exit", code)) => block.used = Use::Typed(code.parse().unwrap()),
            Some(("file", path)) => block.used = Use::File(path.to_owned()),
            Some(("service", port)) => block.used = Use::Service(port.to_owned()),
            _ => panic!("{page}:{number}: unknown word {word}"),
        }
    }
    if let Some(reason) = reason {
        block.used = Use::NotRun(reason.to_owned());
    }
    let unnamed = matches!(&block.used, Use::File(path) if path.is_empty());
    assert!(!unnamed, "{page}:{number}: a file without a name");
    block
}
