//! Ordered edits of the environment that a child program gets.
//!
//! Edits are applied to the environment of this process in the order in which
//! they were made; the last edit of a name wins.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Edits, in order.
#[derive(Clone, Debug, Default)]
pub struct Edits(Vec<Edit>);

#[derive(Clone, Debug)]
enum Edit {
    Remove(Vec<u8>),
    RemovePrefix(Vec<u8>),
    Set(Vec<u8>, Vec<u8>),
}

impl Edits {
    /// No edits: the child gets what this process has.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes a variable.
    pub fn remove(&mut self, name: &str) {
        self.0.push(Edit::Remove(name.into()));
    }

    /// Removes every variable whose name begins so.
    pub fn remove_prefix(&mut self, prefix: &str) {
        self.0.push(Edit::RemovePrefix(prefix.into()));
    }

    /// Sets a variable. What stands behind a NUL is dropped: a value cannot
    /// hold one.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let end = value.iter().position(|&byte| byte == 0);
        self.0.push(Edit::Set(
            name.as_ref().to_vec(),
            value[..end.unwrap_or(value.len())].to_vec(),
        ));
    }

    /// Sets a variable where there is a value.
    pub fn set_if(&mut self, name: impl AsRef<[u8]>, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Keeps only those that set a variable whose name is allowed: for edits
    /// that come from a process that is trusted less.
    pub fn restrict(&mut self, allowed: impl Fn(&[u8]) -> bool) {
        self.0
            .retain(|edit| matches!(edit, Edit::Set(name, _) if allowed(name)));
    }

    /// The value that a variable is set to here.
    #[must_use]
    pub fn value(&self, wanted: &str) -> Option<&[u8]> {
        self.0.iter().rev().find_map(|edit| match edit {
            Edit::Set(name, value) if name == wanted.as_bytes() => Some(value.as_slice()),
            _ => None,
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the edits of `later`.
    pub fn extend(&mut self, later: Edits) {
        self.0.extend(later.0);
    }

    /// The environment that results from `base`.
    #[must_use]
    pub fn apply(
        &self,
        base: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> BTreeMap<OsString, OsString> {
        let mut result: BTreeMap<OsString, OsString> = base.into_iter().collect();
        for edit in &self.0 {
            match edit {
                Edit::Remove(name) => {
                    result.remove(OsStr::from_bytes(name));
                }
                Edit::RemovePrefix(prefix) => {
                    result.retain(|name, _| !name.as_bytes().starts_with(prefix));
                }
                Edit::Set(name, value) => {
                    result.insert(
                        OsString::from_vec(name.clone()),
                        OsString::from_vec(value.clone()),
                    );
                }
            }
        }
        result
    }

    /// Every `Set` as `NAME=value` with a NUL behind it, and one more NUL at
    /// the end: the form of UCSPI-TLS. An empty list is two NULs.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        for edit in &self.0 {
            if let Edit::Set(name, value) = edit {
                wire.extend_from_slice(name);
                wire.push(b'=');
                wire.extend_from_slice(value);
                wire.push(0);
            }
        }
        if wire.is_empty() {
            wire.push(0);
        }
        wire.push(0);
        wire
    }

    /// Reads [`Edits::to_wire`]'s form back; `None` if it is incomplete or not
    /// of that form.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Edits> {
        let body = wire.strip_suffix(&[0])?;
        let mut edits = Edits::new();
        if body == [0] {
            return Some(edits);
        }
        for item in body.strip_suffix(&[0])?.split(|&byte| byte == 0) {
            let at = item.iter().position(|&byte| byte == b'=')?;
            edits.set(&item[..at], &item[at + 1..]);
        }
        Some(edits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_edits_win() {
        let mut edits = Edits::new();
        edits.remove_prefix("SSL_");
        edits.set("SSL_A", "1");
        edits.set("B", "x\0y");
        edits.remove("C");
        edits.set_if("D", None::<&str>);
        let base = [("SSL_OLD", "0"), ("C", "c"), ("D", "d")]
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let result = edits.apply(base);
        let text: Vec<String> = result
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        assert_eq!(text, ["B=x", "D=d", "SSL_A=1"]);
    }

    #[test]
    fn a_weaker_process_sets_no_other_variable() {
        let mut edits = Edits::from_wire(b"SSL_A=1\0LD_PRELOAD=x\0SSL_A=2\0\0").expect("complete");
        edits.restrict(|name| name.starts_with(b"SSL_"));
        assert_eq!(edits.value("SSL_A"), Some(&b"2"[..]));
        assert_eq!(edits.value("LD_PRELOAD"), None);
        assert_eq!(edits.apply(Vec::new()).len(), 1);
    }

    #[test]
    fn the_wire_form_comes_back() {
        let mut edits = Edits::new();
        assert_eq!(edits.to_wire(), b"\0\0");
        assert!(Edits::from_wire(b"\0\0").is_some());
        edits.set("A", "1=2");
        edits.set("B", "");
        assert_eq!(edits.to_wire(), b"A=1=2\0B=\0\0");
        let back = Edits::from_wire(&edits.to_wire()).expect("complete");
        assert_eq!(back.to_wire(), edits.to_wire());
        for cut in 0..edits.to_wire().len() {
            assert!(Edits::from_wire(&edits.to_wire()[..cut]).is_none(), "{cut}");
        }
    }
}
