//! What is mapped into this process, as far as the system tells; and giving back what
//! can be read again.

use std::fs;
use std::ops::Range;

/// A mapping of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub range: Range<usize>,
    /// `r-xp`.
    pub rights: String,
    /// The file, or what else the kernel calls it.
    pub name: String,
}

/// All of them; none where there is no proc(5).
pub(super) fn all() -> Vec<Mapping> {
    parse(&fs::read_to_string("/proc/self/maps").unwrap_or_default())
}

pub(super) fn parse(maps: &str) -> Vec<Mapping> {
    let lines = maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let rights = words.next()?.to_owned();
        Some(Mapping {
            range: usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?,
            rights,
            name: words.nth(3).unwrap_or_default().to_owned(),
        })
    });
    lines.collect()
}

/// Takes no more part in the pages of files whose text this process has run, until it
/// runs it again: what it did once counts as its memory for ever, otherwise.
pub fn give_back_text() {
    let is_text = |one: &&Mapping| one.rights == "r-xp" && one.name.starts_with('/');
    for text in all().iter().filter(is_text) {
        let start = text.range.start as *mut libc::c_void;
        // SAFETY: text of a file that nobody may write to: the next use of a page finds
        // the same bytes in the file.
        unsafe { libc::madvise(start, text.range.len(), libc::MADV_DONTNEED) };
    }
}
