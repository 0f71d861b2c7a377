//! Users and groups: looked up once, taken on for good.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, faccessat, getgrouplist, setgroups, setresgid, setresuid,
};

/// Whom a process runs as. Looked up at start: nothing is asked of the system's
/// databases when it is taken on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// User number; `None` leaves it as it is.
    pub user: Option<u32>,
    /// Group number; `None` leaves it as it is.
    pub group: Option<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What is wrong with a user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No such user.
    User(String),
    /// No such group.
    Group(String),
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unknown::User(name) => write!(out, "unknown user {name}"),
            Unknown::Group(name) => write!(out, "unknown group {name}"),
        }
    }
}

/// The first of the user numbers that keyholders take; their process number,
/// which is below 2^22, is added. The users of systems, of people and of
/// containers all end below (systemd's "Users, Groups, UIDs and GIDs" lists them).
const KEYHOLDERS: u32 = 0x7000_0000;
/// The first of those that engines take.
const ENGINES: u32 = 0x7080_0000;

/// Whose user number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process with the keys.
    Keyholder,
    /// A process between a client and a program.
    Engine,
}

impl Identity {
    /// A user and a group that no other process has: nobody else can signal
    /// this one, nor it anybody.
    #[must_use]
    pub fn of_this_process(holder: Holder) -> Identity {
        let first = match holder {
            Holder::Keyholder => KEYHOLDERS,
            Holder::Engine => ENGINES,
        };
        let number = first + std::process::id();
        Identity {
            user: Some(number),
            group: Some(number),
            groups: Vec::new(),
        }
    }

    /// The user that owns nothing, as the system calls it.
    #[must_use]
    pub fn nobody() -> Identity {
        /// The kernel's overflow user.
        const NOBODY: u32 = 65534;
        let known = identity(Some("nobody"), None).ok();
        Identity {
            user: known.as_ref().and_then(|one| one.user).or(Some(NOBODY)),
            group: known.and_then(|one| one.group).or(Some(NOBODY)),
            groups: Vec::new(),
        }
    }
}

/// What an administrator can do where a root may not do what root does.
#[must_use]
pub fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "this container maps no such user or group",
        Some(libc::EPERM) => {
            "root lacks a capability here; allow CAP_SETUID, CAP_SETGID and CAP_SYS_CHROOT, \
             or start sslserver as an ordinary user"
        }
        _ => "a TLS process needs this",
    }
}

/// Whom this process may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Powers {
    /// Nobody else: it is an ordinary user's.
    None,
    /// Root, and there is no other user here (user_namespaces(7)).
    One,
    /// Root, and `nobody` is a user here, but high numbers are none.
    Few,
    /// Root, and every number is a user.
    Many,
}

impl Powers {
    /// What this process has, tried in one that ends at once.
    ///
    /// # Errors
    /// It is root, and root may not change users here.
    pub fn of_this_process() -> io::Result<Powers> {
        if !is_root() {
            return Ok(Powers::None);
        }
        let becomes = |identity: fn() -> Identity| {
            super::process::try_in_child(|| {
                let user = Uid::from_raw(identity().user.unwrap_or_default());
                setresuid(user, user, user).map_err(io::Error::from)
            })
        };
        for (identity, powers) in [
            (
                (|| Identity::of_this_process(Holder::Engine)) as fn() -> Identity,
                Powers::Many,
            ),
            (Identity::nobody, Powers::Few),
        ] {
            match becomes(identity) {
                Ok(()) => return Ok(powers),
                // Numbers that are nobody's come before rights.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Powers::One)
    }
}

/// A user and a group, each a number or a name. A name brings its own group,
/// where none is given, and its supplementary groups; a bare number brings none,
/// and its own group if the system knows it.
///
/// # Errors
/// A name that the system does not know.
pub fn identity(user: Option<&str>, group: Option<&str>) -> Result<Identity, Unknown> {
    let group = group.map(group_number).transpose()?;
    let Some(user) = user else {
        return Ok(Identity {
            user: None,
            group,
            groups: Vec::new(),
        });
    };
    if let Some(number) = id_number(user) {
        let own = User::from_uid(Uid::from_raw(number)).ok().flatten();
        return Ok(Identity {
            user: Some(number),
            group: group.or(own.map(|own| own.gid.as_raw())),
            groups: Vec::new(),
        });
    }
    let entry = User::from_name(user)
        .ok()
        .flatten()
        .ok_or_else(|| Unknown::User(user.to_owned()))?;
    let group = group.unwrap_or(entry.gid.as_raw());
    let groups = CString::new(user)
        .ok()
        .and_then(|name| getgrouplist(&name, Gid::from_raw(group)).ok())
        .unwrap_or_default();
    Ok(Identity {
        user: Some(entry.uid.as_raw()),
        group: Some(group),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}

fn group_number(group: &str) -> Result<u32, Unknown> {
    if let Some(number) = id_number(group) {
        return Ok(number);
    }
    Group::from_name(group)
        .ok()
        .flatten()
        .map(|entry| entry.gid.as_raw())
        .ok_or_else(|| Unknown::Group(group.to_owned()))
}

/// A decimal number below the one that means "no change".
fn id_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|&number| digits && number != u32::MAX)
}

/// Whether this process has root's powers.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// This process's real user.
#[must_use]
pub fn own() -> u32 {
    Uid::current().as_raw()
}

/// This process's real group.
#[must_use]
pub fn own_group() -> u32 {
    Gid::current().as_raw()
}

/// Whether this process may make files in a directory.
///
/// # Errors
/// It may not, as faccessat(2).
#[cfg(feature = "remote")]
pub fn may_write(folder: &Path) -> io::Result<()> {
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    Ok(faccessat(AT_FDCWD, folder, wanted, AtFlags::AT_EACCESS)?)
}

/// Whether this process may execute a file.
///
/// # Errors
/// It may not, as faccessat(2).
pub fn may_execute(file: &Path) -> io::Result<()> {
    Ok(faccessat(
        AT_FDCWD,
        file,
        AccessFlags::X_OK,
        AtFlags::AT_EACCESS,
    )?)
}

/// Whether another may, tried in a process that takes it on: what the directories on
/// the way and their access lists say is the kernel's to find out.
///
/// # Errors
/// It may not, as faccessat(2), or cannot be taken on.
pub fn may_execute_as(identity: &Identity, file: &Path) -> io::Result<()> {
    super::process::try_in_child(|| {
        identity.assume()?;
        may_execute(file)
    })
}

impl Identity {
    /// Takes it on: supplementary groups, group, user, in this order, and makes
    /// sure that root cannot come back. Needs root; does nothing where neither
    /// user nor group is given.
    ///
    /// # Errors
    /// As setgroups(2), setresgid(2), setresuid(2).
    pub fn assume(&self) -> io::Result<()> {
        if self.user.is_none() && self.group.is_none() {
            return Ok(());
        }
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        if let Some(group) = self.group {
            let group = Gid::from_raw(group);
            setresgid(group, group, group)?;
        }
        if let Some(user) = self.user {
            let id = Uid::from_raw(user);
            setresuid(id, id, id)?;
            let root = Uid::from_raw(0);
            if user != 0 && setresuid(root, root, root).is_ok() {
                return Err(io::Error::other("the way back to root is open"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let root = identity(Some("root"), None).expect("there is a root");
        assert_eq!((root.user, root.group), (Some(0), Some(0)));
        let bare = identity(Some("4000000"), Some("7")).expect("numbers need no entry");
        assert_eq!(
            (bare.user, bare.group, bare.groups),
            (Some(4_000_000), Some(7), vec![])
        );
        assert_eq!(
            identity(Some("no such user"), None),
            Err(Unknown::User("no such user".into()))
        );
        assert_eq!(
            identity(None, Some("no such group")),
            Err(Unknown::Group("no such group".into()))
        );
        assert!(
            identity(Some("4294967295"), None).is_err(),
            "means no change"
        );
    }
}
