//! Which of a set of files changed since they were read: one stat(2) each.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::rulesdb::Stamp;

/// What was known of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// `None`: there was nothing, or it could not be looked at.
    stamp: Option<Stamp>,
    /// It changed so shortly before that a later change may look the same.
    fresh: bool,
}

/// Paths, as they were before they were read.
#[derive(Clone, Debug, Default)]
pub struct Watch(BTreeMap<PathBuf, Known>);

impl Watch {
    /// Remembers a path as it is now. Call it before reading the file: a change
    /// in between is then seen later. A path that is watched already keeps what
    /// is known of it.
    pub fn add(&mut self, path: &Path) {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), known(path));
        }
    }

    /// A directory and every file in it.
    pub fn add_directory(&mut self, path: &Path) {
        self.add(path);
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            self.add(&entry.path());
        }
    }

    /// Whether one of the files is not what it was, or may not be.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.0
            .iter()
            .any(|(path, before)| before.fresh || known(path).stamp != before.stamp)
    }

    /// Watches what `other` watches, too. What is known of a path that both
    /// have stays.
    pub fn extend(&mut self, other: Watch) {
        for (path, known) in other.0 {
            self.0.entry(path).or_insert(known);
        }
    }

    /// The paths that are not what they were when `before` knew them, or that
    /// one of the two does not know.
    pub fn changed_since<'a>(&'a self, before: &'a Watch) -> impl Iterator<Item = &'a Path> {
        let stamp = |watch: &'a Watch, path: &PathBuf| watch.0.get(path).map(|known| &known.stamp);
        let paths: BTreeSet<&PathBuf> = self.0.keys().chain(before.0.keys()).collect();
        paths
            .into_iter()
            .filter(move |path| stamp(self, path) != stamp(before, path))
            .map(PathBuf::as_path)
    }

    /// The same paths as they are now.
    #[must_use]
    pub fn anew(&self) -> Watch {
        Watch(
            self.0
                .keys()
                .map(|path| (path.clone(), known(path)))
                .collect(),
        )
    }
}

fn known(path: &Path) -> Known {
    let stamp = Stamp::of(path).ok();
    Known {
        fresh: stamp
            .as_ref()
            .is_some_and(|stamp| stamp.fresh(SystemTime::now())),
        stamp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_and_a_missing_file_is_no_change() {
        let directory = std::env::temp_dir().join(format!("watch-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("a");
        let mut watch = Watch::default();
        watch.add(&directory.join("missing"));
        watch.add(&file);
        assert!(!watch.has_changed());
        std::fs::write(&file, "1").expect("written");
        assert!(watch.has_changed());
        let mut watch = watch.anew();
        // Written this moment: it may change again without a trace.
        assert!(watch.has_changed());
        while watch.0.values().any(|known| known.fresh) {
            std::thread::yield_now();
            watch = watch.anew();
        }
        assert!(!watch.has_changed());
        std::fs::write(&file, "2").expect("written");
        assert!(watch.has_changed(), "same size, same second");
        let before = watch.clone();
        let mut later = Watch::default();
        later.add(&file);
        later.extend(before.clone());
        let changed: Vec<&Path> = later.changed_since(&before).collect();
        assert_eq!(changed, [file.as_path()]);
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
