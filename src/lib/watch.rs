//! Which of a set of files changed since they were read: one stat(2) each.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How old a change must be before a stamp can tell it from a later one. The
/// kernel's clock for files ticks every 1 to 10 ms.
const TICK: Duration = Duration::from_millis(50);

/// What tells one version of a file from the next without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file at `path`, symbolic links followed.
    ///
    /// # Errors
    /// As stat(2).
    fn of(path: &Path) -> io::Result<Stamp> {
        fs::metadata(path).map(|metadata| Stamp::from(&metadata))
    }

    /// Whether the file changed so shortly before `now` that a further change
    /// could leave the same stamp.
    fn fresh(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanoseconds).unwrap_or_default(),
        );
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // A file server's clock may be ahead of ours: a difference either way.
        now.abs_diff(changed) < TICK
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What was known of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// `None`: there was nothing, or it could not be looked at.
    stamp: Option<Stamp>,
    /// It changed so shortly before that a later change may look the same.
    fresh: bool,
}

/// Whether files are what they were when they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// They are.
    No,
    /// They look the same; one was written so shortly before that it may be
    /// another by now.
    Perhaps,
    /// One is not.
    Surely,
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

    /// Whether one of the files is not what it was.
    #[must_use]
    pub fn changed(&self) -> Changed {
        let mut found = Changed::No;
        for (path, before) in &self.0 {
            if Stamp::of(path).ok() != before.stamp {
                return Changed::Surely;
            }
            if before.fresh {
                found = Changed::Perhaps;
            }
        }
        found
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
        assert_eq!(watch.changed(), Changed::No);
        std::fs::write(&file, "1").expect("written");
        assert_eq!(watch.changed(), Changed::Surely);
        let watch = watch.anew();
        // Written this moment: it may change again without a trace.
        assert_eq!(watch.changed(), Changed::Perhaps);
        let settled = |mut watch: Watch| {
            while watch.changed() != Changed::No {
                std::thread::yield_now();
                watch = watch.anew();
            }
            watch
        };
        let mut watch = settled(watch);
        std::fs::write(&file, "2").expect("written");
        assert_eq!(watch.changed(), Changed::Surely, "same size, same second");
        watch = settled(watch);
        let other = directory.join("b");
        std::fs::write(&other, "2").expect("written");
        std::fs::rename(&other, &file).expect("renamed");
        assert_eq!(watch.changed(), Changed::Surely, "same size, another file");
        watch = settled(watch);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(watch.changed(), Changed::Surely, "removed");
        let before = watch.clone();
        let mut later = Watch::default();
        later.add(&file);
        later.extend(before.clone());
        let changed: Vec<&Path> = later.changed_since(&before).collect();
        assert_eq!(changed, [file.as_path()]);
        std::fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_stamp_is_fresh_for_a_moment_only() {
        let stamp = Stamp {
            device: 0,
            inode: 0,
            size: 0,
            modified: (0, 0),
            changed: (1_000_000, 5),
        };
        let at =
            |milliseconds: u64| UNIX_EPOCH + Duration::from_millis(1_000_000_000 + milliseconds);
        assert!(stamp.fresh(at(0)));
        assert!(stamp.fresh(at(20)));
        assert!(!stamp.fresh(at(2000)));
        // A server whose clock is far ahead does not make it fresh for ever.
        assert!(!stamp.fresh(UNIX_EPOCH));
    }
}
