//! A control file of `key:value` lines, looked up as qmail does; but a name with
//! letters of any script and its ASCII form (IDNA) are one.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::path::Path;

use crate::host_name::international;
use crate::report::Fail;
use crate::secret::Secret;
use crate::text;
use crate::tlsdestinations::read_optional;

/// A control file's lines of `key:value`.
#[derive(Clone, Debug)]
pub struct Table {
    name: &'static str,
    /// It may hold passwords.
    text: Secret,
}

/// The line of a table that decides.
pub(super) struct FoundLine<'a> {
    /// Among the keys that were looked up.
    pub(super) rank: usize,
    /// `smtproutes line 3`.
    pub(super) place: String,
    pub(super) value: &'a [u8],
}

impl Table {
    /// The lines of the file of that name.
    #[must_use]
    pub fn new(name: &'static str, text: Vec<u8>) -> Table {
        let text = Secret::new(text);
        Table { name, text }
    }

    /// The lines of a file in a control directory; no file is an empty one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(folder: &Path, name: &'static str) -> Result<Table, Fail> {
        Ok(Table::new(name, read_optional(&folder.join(name))?))
    }

    /// The lines that have a colon: number, key, value.
    fn lines(&self) -> impl Iterator<Item = (usize, &[u8], &[u8])> {
        let lines = self.text.split(|&byte| byte == b'\n').enumerate();
        lines.filter_map(|(number, line)| {
            let line = line.trim_ascii_end();
            if line.starts_with(b"#") {
                return None;
            }
            // An IPv6 address in brackets holds colons.
            let from = if line.starts_with(b"[") {
                line.iter().position(|&byte| byte == b']')?
            } else {
                0
            };
            let end = from + line[from..].iter().position(|&byte| byte == b':')?;
            Some((number + 1, &line[..end], &line[end + 1..]))
        })
    }

    /// The line of the first of these keys, all [`spelt`], that is in the table. Of lines with one key the last counts, as with qmail.
    pub(super) fn find(&self, keys: &[Vec<u8>]) -> Option<FoundLine<'_>> {
        let found = self.lines().filter_map(|(number, key, value)| {
            let key = spelt(key);
            let rank = keys.iter().position(|one| *one == *key)?;
            Some((rank, number, value))
        });
        let best = found.min_by_key(|&(rank, number, _)| (rank, usize::MAX - number));
        best.map(|(rank, number, value)| FoundLine {
            rank,
            place: format!("{} line {number}", self.name),
            value,
        })
    }

    /// Lines whose key no domain meets, since qmail takes it as it is written,
    /// with what would be met.
    pub(super) fn strays(&self) -> impl Iterator<Item = String> {
        self.lines().filter_map(|(number, key, _)| {
            let clean = key
                .strip_prefix(b"\xef\xbb\xbf")
                .unwrap_or(key)
                .trim_ascii();
            let clean = clean.strip_suffix(b".").unwrap_or(clean);
            (clean != key).then(|| {
                let shown = |key| text::excerpt(key, 200);
                let (key, clean) = (shown(key), shown(clean));
                let name = self.name;
                format!("{name} line {number} \"{key}\" never applies: write \"{clean}\"")
            })
        })
    }
}

/// The one spelling of a name or an address: in lower case, the name as DNS has it.
fn spelt(key: &[u8]) -> Cow<'_, [u8]> {
    if !key.is_ascii() {
        let at = key.iter().rposition(|&byte| byte == b'@');
        let (local, name) = key.split_at(at.map_or(0, |at| at + 1));
        let labels = name.split(|&byte| byte == b'.').map(|label| {
            international(label).map_or_else(|| label.to_ascii_lowercase(), String::into_bytes)
        });
        let name = labels.collect::<Vec<_>>().join(&b'.');
        return Cow::Owned([local.to_ascii_lowercase(), name].concat());
    }
    if key.iter().any(u8::is_ascii_uppercase) {
        return Cow::Owned(key.to_ascii_lowercase());
    }
    Cow::Borrowed(key)
}

/// A name, what is left of it from each of these bytes on, and nothing.
pub(super) fn walk(name: &[u8], stops: &[u8]) -> Vec<Vec<u8>> {
    let name = spelt(name);
    let mut keys = vec![name.to_vec()];
    let stops = (1..name.len()).filter(|&at| stops.contains(&name[at]));
    keys.extend(stops.map(|at| name[at..].to_vec()));
    if !name.is_empty() {
        keys.push(Vec::new());
    }
    keys
}
