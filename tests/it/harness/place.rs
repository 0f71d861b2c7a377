//! A directory per test, named after it and a counter; removed when the test
//! succeeds, kept for reading when it fails.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::authority::Identity;

static COUNTER: AtomicUsize = AtomicUsize::new(0);

/// Where tests have their directories: with what was built, unless the users
/// that servers become cannot get there, as in root's home.
fn base() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let open = |folder: &Path| {
        fs::metadata(folder).is_ok_and(|about| about.permissions().mode() & 0o001 != 0)
    };
    if built.ancestors().all(open) {
        built.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// A test's own directory.
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// An empty directory that anybody may read.
    pub fn new(name: &str) -> Place {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = base().join(format!("{name}-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place { path }
    }

    /// The path of a file here, which need not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// [`Place::path`] as text, for a command line.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A name that no file of this directory has.
    pub fn fresh(&self, stem: &str) -> PathBuf {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{stem}-{count}"))
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a program that anybody may run, and gives its path.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Writes NAME.pem (leaf and intermediates) and NAME.key.
    pub fn identity(&self, name: &str, identity: &Identity) -> (String, String) {
        (
            self.write(&format!("{name}.pem"), identity.chain_pem()),
            self.secret(&format!("{name}.key"), identity.key_pem()),
        )
    }

    /// Writes a file that its owner alone may read, and gives its path.
    pub fn secret(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.write(name, bytes);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
