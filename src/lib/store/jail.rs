//! Where an engine lives: whom it runs as, and what it sees of the file system.
//! What is asked for is checked when it is read, and tried before it is needed.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::report::{Fail, reason};
use crate::settings::Settings;
use crate::sys::user::{self, Holder, Identity, Powers};
use crate::sys::{process, sandbox};
use crate::text;

/// Whom an engine runs as where root started the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum User {
    /// A user of its own, in a group of its own or in that of `SSL_GID`: no two
    /// engines are the same user.
    Own(Option<u32>),
    /// The user of `SSL_UID` or `SSL_USER`, in its group or that of `SSL_GID` or
    /// `SSL_GROUP`.
    Named(Identity),
}

/// Whom an engine runs as, and what it sees of the file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jail {
    /// Whom it runs as.
    pub user: User,
    /// Root and working directory.
    pub root: Option<PathBuf>,
}

impl Jail {
    /// Reads `SSL_CHROOT`, `SSL_UID`, `SSL_GID` (or `SSL_USER`, `SSL_GROUP`).
    ///
    /// # Errors
    /// An unknown user or group, user or group 0, a root that is no root for a
    /// process that must reach nothing.
    pub fn from_settings(settings: &Settings) -> Result<Jail, Fail> {
        let root = settings.path("SSL_CHROOT").map(root).transpose()?;
        let asked = |names: &[&'static str]| match settings.first_of(names) {
            Some(name) => Ok(settings.word(name)?.map(|word| (name, word))),
            None => Ok::<_, Fail>(None),
        };
        let user = asked(&["SSL_UID", "SSL_USER"])?;
        let group = asked(&["SSL_GID", "SSL_GROUP"])?;
        let identity = user::identity(user.map(|(_, name)| name), group.map(|(_, name)| name));
        let identity = identity.map_err(|unknown| {
            let asked = match unknown {
                user::Unknown::User(_) => user,
                user::Unknown::Group(_) => group,
            };
            let variable = asked.map_or("SSL_UID", |(variable, _)| variable);
            Fail::temporary(format!("unable to use {variable}: {unknown}"))
        })?;
        let never = |asked: Option<(&str, &str)>, what: &str| {
            let (variable, name) = asked.unwrap_or_default();
            let name = text::excerpt(name.as_bytes(), 100);
            Fail::temporary(format!(
                "unable to use {variable}: \"{name}\": a TLS process never runs {what}"
            ))
        };
        if identity.user == Some(0) {
            return Err(never(
                user,
                "as root; name another user, or unset it for a user of each process's own",
            ));
        }
        if identity.group == Some(0) {
            return Err(never(group.or(user), "in group 0; name another in SSL_GID"));
        }
        let user = match identity.user {
            None => User::Own(identity.group),
            // Where the system knows no group of the user's, root's must not
            // stay; and an engine gives up its other groups with its user.
            Some(number) => User::Named(Identity {
                group: identity.group.or(Some(number)),
                groups: Vec::new(),
                ..identity
            }),
        };
        Ok(Jail { user, root })
    }

    /// Whether any of it was asked for by name.
    #[must_use]
    pub fn was_asked_for(settings: &Settings) -> bool {
        ["SSL_CHROOT", "SSL_UID", "SSL_USER", "SSL_GID", "SSL_GROUP"]
            .iter()
            .any(|name| settings.has(name))
    }

    /// The user that its engines share, if they have none of their own.
    #[must_use]
    pub fn shared_user(&self, powers: Powers) -> Option<u32> {
        match (&self.user, powers) {
            (_, Powers::None) | (User::Own(_), Powers::Many) => None,
            (User::Named(identity), _) => identity.user,
            (User::Own(_), Powers::Few) => Identity::nobody().user,
            (User::Own(_), Powers::One) => Some(0),
        }
    }

    /// Moves in, for good.
    ///
    /// # Errors
    /// A step that the system refuses.
    pub fn enter(&self, powers: Powers) -> Result<(), Fail> {
        if powers == Powers::None {
            return Ok(());
        }
        if let Some(root) = &self.root {
            sandbox::enter(root).map_err(Fail::unable("chroot"))?;
        }
        self.change_user(powers)
            .map_err(Fail::unable("change user"))
    }

    fn change_user(&self, powers: Powers) -> io::Result<()> {
        let own = match powers {
            Powers::None => return Ok(()),
            Powers::Few => Identity::nobody(),
            // There is no other user here: root keeps nothing but its number.
            Powers::One if matches!(self.user, User::Own(None)) => {
                sandbox::drop_bounds();
                return sandbox::drop_capabilities();
            }
            Powers::One | Powers::Many => Identity::of_this_process(Holder::Engine),
        };
        match &self.user {
            User::Named(identity) => identity.assume(),
            User::Own(group) => Identity {
                group: group.or(own.group),
                ..own
            }
            .assume(),
        }
    }

    /// Moves in with a process that ends at once.
    ///
    /// # Errors
    /// Engines could not move in either: why, and what would help.
    pub fn try_out(&self, powers: Powers) -> Result<(), Fail> {
        let fail = |step: &str| {
            let step = step.to_owned();
            move |error: io::Error| {
                let cure = user::cure(&error);
                Fail::temporary(format!("unable to {step}: {}: {cure}", reason(&error)))
            }
        };
        if powers == Powers::None {
            return Ok(());
        }
        if let Some(root) = &self.root {
            process::try_in_child(|| sandbox::enter(root)).map_err(fail("use SSL_CHROOT"))?;
        }
        process::try_in_child(|| self.change_user(powers)).map_err(fail("change user"))
    }
}

/// The directory of `SSL_CHROOT`.
fn root(path: &Path) -> Result<PathBuf, Fail> {
    let unable = |why: &str| {
        let path = super::shown(path);
        Fail::temporary(format!("unable to use SSL_CHROOT: {path}: {why}"))
    };
    if !path.is_absolute() {
        return Err(unable("not an absolute path"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(unable("a path with \"..\" in it"));
    }
    // Without a slash at its end, which would have a link followed.
    let path: PathBuf = path.components().collect();
    let about = fs::symlink_metadata(&path).map_err(|error| unable(&reason(&error)))?;
    if about.is_symlink() {
        return Err(unable("a symbolic link; name the directory itself"));
    }
    if !about.is_dir() {
        return Err(unable("not a directory"));
    }
    let same = |one: &fs::Metadata, other: &fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    if fs::metadata("/").is_ok_and(|whole| same(&whole, &about)) {
        return Err(unable(
            "the whole file system, which keeps nothing away; name an empty directory",
        ));
    }
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(unable(&format!(
            "others than its owner may write to it (mode {mode:04o}); chmod go-w it"
        )));
    }
    Ok(path)
}
