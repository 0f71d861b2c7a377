//! The directory of policies: a file for each domain, put in its place whole, and
//! taken for nothing if it is not.
//!
//! A file holds the policy as it was fetched behind a head: when, under which id,
//! and a digest over all of it. A policy counts for its max_age. One that was
//! fetched in the future, as a clock says that was set back since, counts until a
//! new one is there.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::hash::{MessageDigest, hash};

use super::{Policy, PolicyDomain};
use crate::report::{self, Fail};
use crate::sys::{fd, user};
use crate::text;

/// The directory of policies, in qmail's home.
pub const FOLDER: &str = "mta-sts";

/// The longest file: the longest policy that is fetched, and the head.
const FILE_LIMIT: u64 = 65 * 1024;
/// What a file begins with.
const BEGIN: &str = "ucspi-tls mta-sts 1";

/// How often a file is begun that others put into its place before us.
const TRIES: u32 = 10;

/// The directory, where policies are remembered.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Whose directory it is.
    owner: u32,
    /// Why no policy can be put into it, if that is so.
    pub unwritable: Option<String>,
}

/// A policy as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What it says.
    pub policy: Policy,
    /// The id of the record that it was fetched for.
    pub id: String,
    /// When, in seconds since 1970.
    pub fetched: u64,
}

/// Whether a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does; it is so many seconds old.
    Current(u64),
    /// It was fetched in the future.
    OfTheFuture,
    /// It did.
    Expired,
}

/// What a file is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheEntry {
    /// There is none.
    Nothing,
    /// A policy.
    Policy(Remembered),
    /// It is damaged, or nobody knows whose it is: words that end a sentence.
    Damaged(String),
}

/// This second.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Remembered {
    /// Whether it counts at a time.
    #[must_use]
    pub fn standing(&self, now: u64) -> Standing {
        match now.checked_sub(self.fetched) {
            None => Standing::OfTheFuture,
            Some(age) if age < self.policy.max_age => Standing::Current(age),
            Some(_) => Standing::Expired,
        }
    }
}

impl Cache {
    /// The directory of this name. `None`: there is none, and MTA-STS is off.
    #[must_use]
    pub fn open(folder: &Path) -> Option<Cache> {
        let about = match fs::metadata(folder) {
            Ok(about) => about,
            Err(error) if report::is_absent(folder, &error) => return None,
            Err(error) => {
                return Some(Cache {
                    folder: folder.to_owned(),
                    owner: 0,
                    unwritable: Some(report::reason(&error)),
                });
            }
        };
        let unwritable = if about.is_dir() {
            let error = user::may_write(folder).err();
            error.map(|error| report::reason(&error))
        } else {
            Some("it is not a directory".to_owned())
        };
        Some(Cache {
            folder: folder.to_owned(),
            owner: about.uid(),
            unwritable,
        })
    }

    fn path(&self, domain: &PolicyDomain) -> PathBuf {
        self.folder.join(domain.name())
    }

    /// What is remembered of a domain.
    #[must_use]
    pub fn read(&self, domain: &PolicyDomain) -> CacheEntry {
        // Links and devices are nobody's policy, and a pipe would be waited for.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path(domain));
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return CacheEntry::Nothing,
            Err(error) => return CacheEntry::Damaged(report::reason(&error)),
        };
        match self.contents(file) {
            Ok(bytes) => parsed(&bytes).map_or_else(
                || CacheEntry::Damaged("it is not what was written".to_owned()),
                CacheEntry::Policy,
            ),
            Err(why) => CacheEntry::Damaged(why.to_string()),
        }
    }

    fn contents(&self, file: File) -> Result<Vec<u8>, Fail> {
        let about = file.metadata()?;
        if !about.is_file() {
            return Err("it is not a file".into());
        }
        if ![0, self.owner, user::own()].contains(&about.uid()) {
            return Err(format!("it belongs to user {}", about.uid()).into());
        }
        let mut bytes = Vec::new();
        file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_LIMIT {
            return Err("it is too long".into());
        }
        Ok(bytes)
    }

    /// Remembers a policy's text, in the place of what was remembered.
    ///
    /// # Errors
    /// The directory cannot be written, or is full. What was remembered stays.
    pub fn write(
        &self,
        domain: &PolicyDomain,
        id: &str,
        fetched: u64,
        text: &[u8],
    ) -> io::Result<()> {
        // No domain begins with a dot.
        let new = self.folder.join(format!(".{domain}"));
        let Some(mut file) = begin(&new)? else {
            // Another delivery writes the same.
            return Ok(());
        };
        let written = file
            .write_all(&written(id, fetched, text))
            // For whoever delivers, whatever the umask is.
            .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, self.path(domain)));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

/// An empty file to be written, which nobody else writes while this one is open: its
/// lock ends with whoever holds it. `None`: somebody writes it just now, or has done.
fn begin(new: &Path) -> io::Result<Option<File>> {
    for _ in 0..TRIES {
        let file = match open(new) {
            // A link, a pipe, or a file of another user's who ended in the middle of it.
            Err(error) if is_in_the_way(&error) => {
                fs::remove_file(new).map_err(|_| error)?;
                continue;
            }
            other => other?,
        };
        let own = file.metadata()?;
        if !own.is_file() {
            fs::remove_file(new)?;
            continue;
        }
        if !fd::try_lock(&file)? {
            return Ok(None);
        }
        // Who held it before may have put it into its place meanwhile.
        let is_own = |there: fs::Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
        if fs::symlink_metadata(new).is_ok_and(is_own) {
            file.set_len(0)?;
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Opens it, and makes it where it is not. Who is not its user cannot lock it.
fn open(new: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(new)
}

/// Whether what is there is no file that this user can write (FreeBSD has `EMLINK` for
/// a link).
fn is_in_the_way(error: &io::Error) -> bool {
    let code = error.raw_os_error().unwrap_or_default();
    [
        libc::EACCES,
        libc::EPERM,
        libc::ELOOP,
        libc::EMLINK,
        libc::ENXIO,
    ]
    .contains(&code)
}

/// A file's bytes.
#[must_use]
pub fn written(id: &str, fetched: u64, text: &[u8]) -> Vec<u8> {
    let head = format!("id: {id}\nfetched: {fetched}\n\n");
    let rest = [head.as_bytes(), text].concat();
    let begin = format!("{BEGIN} {}\n", digest(&rest).unwrap_or_default());
    [begin.into_bytes(), rest].concat()
}

fn digest(bytes: &[u8]) -> Option<String> {
    let digest = hash(MessageDigest::sha256(), bytes).ok()?;
    Some(text::hex(&digest))
}

/// What a file says, if it is whole.
#[must_use]
pub fn parsed(bytes: &[u8]) -> Option<Remembered> {
    let rest = bytes.strip_prefix(BEGIN.as_bytes())?.strip_prefix(b" ")?;
    let at = rest.iter().position(|&byte| byte == b'\n')?;
    let (told, rest) = (&rest[..at], &rest[at + 1..]);
    if told != digest(rest)?.as_bytes() {
        return None;
    }
    let mut parts = rest.splitn(4, |&byte| byte == b'\n');
    let mut field = |name: &str| -> Option<String> {
        let line = std::str::from_utf8(parts.next()?).ok()?;
        line.strip_prefix(name).map(str::to_owned)
    };
    let id = field("id: ")?;
    let fetched = text::number(&field("fetched: ")?, 0..=u64::MAX)?;
    field("").filter(String::is_empty)?;
    Some(Remembered {
        policy: Policy::parse(parts.next()?).ok()?,
        id,
        fetched,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &[u8] = b"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 100\n";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("ucspi-tls-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a directory");
            Folder(path)
        }

        fn cache(&self) -> Cache {
            Cache::open(&self.0).expect("it is there")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("a directory");
            let name = |entry: io::Result<fs::DirEntry>| {
                let name = entry.expect("an entry").file_name();
                name.into_string().expect("ASCII")
            };
            entries.map(name).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn domain() -> PolicyDomain {
        PolicyDomain::new("a.test").expect("a domain")
    }

    #[test]
    fn what_is_written_is_found_and_nothing_else_stays() {
        let folder = Folder::new("cache");
        let cache = folder.cache();
        assert_eq!(
            (cache.read(&domain()), &cache.unwritable),
            (CacheEntry::Nothing, &None)
        );
        for (id, fetched) in [("1", 1000), ("a2", 2000)] {
            cache.write(&domain(), id, fetched, POLICY).expect("writes");
            let CacheEntry::Policy(found) = cache.read(&domain()) else {
                panic!("{:?}", cache.read(&domain()));
            };
            assert_eq!((&*found.id, found.fetched), (id, fetched));
            assert_eq!(Ok(found.policy), Policy::parse(POLICY));
            assert_eq!(folder.names(), ["a.test"]);
        }
        assert!(Cache::open(&folder.0.join("none")).is_none());
    }

    #[test]
    fn a_policy_counts_for_its_age_and_while_its_clock_is_wrong() {
        let found = parsed(&written("1", 1000, POLICY)).expect("a policy");
        for (now, standing) in [
            (1000, Standing::Current(0)),
            (1099, Standing::Current(99)),
            (1100, Standing::Expired),
            (u64::MAX, Standing::Expired),
            (999, Standing::OfTheFuture),
            (0, Standing::OfTheFuture),
        ] {
            assert_eq!(found.standing(now), standing, "{now}");
        }
    }

    #[test]
    fn a_file_that_was_changed_anywhere_is_no_policy() {
        let whole = written("1", 1000, POLICY);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(parsed(&changed), None, "{at}");
            assert_eq!(parsed(&whole[..at]), None, "{at}");
        }
        assert_eq!(parsed(&[&whole[..], b"mx: b.test\n"].concat()), None);
        assert_eq!(parsed(&written("1", 1000, b"no policy")), None);
    }

    #[test]
    fn what_is_no_file_of_ours_is_damaged() {
        let folder = Folder::new("cache-strange");
        let cache = folder.cache();
        let path = folder.0.join("a.test");
        let damaged = |what: &str| match cache.read(&domain()) {
            CacheEntry::Damaged(why) => assert!(why.contains(what), "{why}"),
            other => panic!("{other:?}"),
        };
        fs::write(&path, "").expect("writes");
        damaged("not what was written");
        fs::write(&path, vec![b'x'; 70_000]).expect("writes");
        damaged("too long");
        fs::remove_file(&path).expect("removes");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("links");
        damaged("symbolic link");
        fs::remove_file(&path).expect("removes");
        fs::create_dir(&path).expect("makes");
        damaged("not a file");
        fs::remove_dir(&path).expect("removes");
        cache.write(&domain(), "1", 1, POLICY).expect("writes");
        if user::own() == 0 {
            std::os::unix::fs::chown(&path, Some(4711), None).expect("changes");
            damaged("belongs to user 4711");
        }
        cache.write(&domain(), "2", 2, POLICY).expect("writes");
        assert!(matches!(cache.read(&domain()), CacheEntry::Policy(_)));
    }

    #[test]
    fn one_that_writes_is_left_alone_and_what_one_left_behind_is_no_matter() {
        let folder = Folder::new("cache-leftover");
        let cache = folder.cache();
        let new = folder.0.join(".a.test");
        let writing = begin(&new).expect("makes").expect("nobody writes");
        cache.write(&domain(), "1", 1, POLICY).expect("no error");
        assert_eq!(cache.read(&domain()), CacheEntry::Nothing);
        drop(writing);
        let leave: [fn(&Path); 4] = [
            |_| (),
            |new| fs::write(new, vec![b'x'; 9000]).expect("writes"),
            |new| std::os::unix::fs::symlink("/nonexistent", new).expect("links"),
            |new| {
                let mut command = std::process::Command::new("mkfifo");
                assert!(command.arg(new).status().expect("runs").success());
            },
        ];
        for (number, leave) in leave.into_iter().enumerate() {
            leave(&new);
            let id = number.to_string();
            cache.write(&domain(), &id, 2, POLICY).expect("writes");
            assert_eq!(folder.names(), ["a.test"], "{id}");
            let found = cache.read(&domain());
            assert!(
                matches!(found, CacheEntry::Policy(one) if one.id == id),
                "{id}"
            );
            let mode = fs::metadata(folder.0.join("a.test")).expect("it is there");
            assert_eq!(mode.permissions().mode() & 0o7777, 0o644);
        }
        // What cannot be removed is told.
        fs::create_dir(&new).expect("makes");
        assert!(cache.write(&domain(), "9", 2, POLICY).is_err());
    }

    /// Whoever ends first, what is there is whole, and nothing else stays.
    #[test]
    fn many_that_write_at_once_leave_one_policy() {
        let folder = Folder::new("cache-many");
        let cache = folder.cache();
        std::thread::scope(|scope| {
            for id in 0..8 {
                let cache = &cache;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let id = id.to_string();
                        cache.write(&domain(), &id, 1, POLICY).expect("writes");
                        assert!(!matches!(cache.read(&domain()), CacheEntry::Damaged(_)));
                    }
                });
            }
        });
        assert!(matches!(cache.read(&domain()), CacheEntry::Policy(_)));
        assert_eq!(folder.names(), ["a.test"]);
    }

    #[test]
    fn a_directory_that_cannot_be_written_says_why() {
        let folder = Folder::new("cache-unwritable");
        let file = folder.0.join("file");
        fs::write(&file, "").expect("writes");
        let why = Cache::open(&file).and_then(|cache| cache.unwritable);
        assert_eq!(why.as_deref(), Some("it is not a directory"));
        // Somebody switched MTA-STS on: it must not be off without a word.
        let link = folder.0.join("link");
        std::os::unix::fs::symlink("nowhere", &link).expect("links");
        let why = Cache::open(&link).and_then(|cache| cache.unwritable);
        assert_eq!(why.as_deref(), Some("no such file or directory"));
        if user::own() != 0 {
            fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o500)).expect("sets");
            assert!(folder.cache().unwritable.is_some());
            assert!(folder.cache().write(&domain(), "1", 1, POLICY).is_err());
            fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).expect("sets");
        }
    }
}
