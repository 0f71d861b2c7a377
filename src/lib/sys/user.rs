//! Users and groups: looked up once, taken on for good.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgroups, setresgid, setresuid};

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
    if let Some(number) = crate_number(user) {
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
    if let Some(number) = crate_number(group) {
        return Ok(number);
    }
    Group::from_name(group)
        .ok()
        .flatten()
        .map(|entry| entry.gid.as_raw())
        .ok_or_else(|| Unknown::Group(group.to_owned()))
}

/// A decimal number below the one that means "no change".
fn crate_number(text: &str) -> Option<u32> {
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
                return Err(io::Error::other("root came back"));
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
