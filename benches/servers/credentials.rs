//! The bench's own CA and certificates, made afresh for each run.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::authority::{Authority, KeyKind, Leaf};
use crate::{Outcome, because};

/// The key a server certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Ecdsa,
    Rsa,
}

impl Key {
    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Key::Ecdsa => "ECDSA P-256",
            Key::Rsa => "RSA-2048",
        }
    }
}

/// Where the files of a run are.
#[derive(Debug)]
pub struct Credentials {
    pub ca: PathBuf,
    directory: PathBuf,
}

impl Credentials {
    /// Makes one CA and a certificate for 127.0.0.1 per kind of key.
    pub fn make(directory: &Path) -> Outcome<Self> {
        let credentials = Credentials {
            ca: directory.join("ca.pem"),
            directory: directory.to_owned(),
        };
        let root = Authority::root("ucspi-tls bench CA");
        write(&credentials.ca, &root.pem())?;
        for (key, kind) in [(Key::Ecdsa, KeyKind::P256), (Key::Rsa, KeyKind::Rsa2048)] {
            let leaf = Leaf::new("127.0.0.1").address("127.0.0.1").key(kind);
            let leaf = leaf.issue_by(&root);
            write(&credentials.certificate(key), &leaf.chain_pem())?;
            write(&credentials.key(key), &leaf.key_pem())?;
        }
        Ok(credentials)
    }

    /// The PEM file with this key's certificate.
    pub fn certificate(&self, key: Key) -> PathBuf {
        self.directory.join(format!("{key:?}.pem"))
    }

    /// The PEM file with this key.
    pub fn key(&self, key: Key) -> PathBuf {
        self.directory.join(format!("{key:?}.key"))
    }
}

fn write(path: &Path, content: &[u8]) -> Outcome<()> {
    fs::write(path, content).map_err(because(format!("write {}", path.display())))?;
    // stunnel complains about keys that others can read.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(because("set permissions"))
}
