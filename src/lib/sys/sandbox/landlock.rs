//! Landlock (landlock(7)): a ruleset that allows nothing it can forbid, but what
//! a process that calls servers needs.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::Connects;

/// linux/landlock.h.
const CREATE_RULESET_VERSION: u32 = 1;

const RULE_NET_PORT: u32 = 2;
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 2;

#[repr(C)]
struct NetPortAttr {
    allowed_access: u64,
    port: u64,
}

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

pub(super) fn ruleset(connects: Connects) -> io::Result<OwnedFd> {
    // SAFETY: with this flag the call takes no pointer and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttr>(),
            0,
            CREATE_RULESET_VERSION,
        )
    };
    if version < 1 {
        return Err(io::Error::last_os_error());
    }
    // Rights that exist in each version: 13 at first, then refer, truncate,
    // ioctl; binding and connecting; abstract sockets and signals.
    let rights = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    let attributes = RulesetAttr {
        handled_access_fs: (1 << rights) - 1,
        handled_access_net: if version >= 4 && connects != Connects::Anywhere {
            BIND_TCP | CONNECT_TCP
        } else {
            0
        },
        scoped: if version >= 6 { 0b11 } else { 0 },
    };
    // Older kernels know a shorter structure.
    let length = match version {
        1..=3 => 8,
        4 | 5 => 16,
        _ => size_of::<RulesetAttr>(),
    };
    // SAFETY: the structure is valid for the call, and `length` is no more than
    // its size.
    let number = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            length,
            0,
        )
    };
    let number = i32::try_from(number).unwrap_or(-1);
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened it, and nobody else owns it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(number) };
    match connects {
        Connects::Port(port) if version >= 4 => allow_port(&ruleset, port)?,
        _ => {}
    }
    Ok(ruleset)
}

/// Lets connections to a port be made.
fn allow_port(ruleset: &OwnedFd, port: u16) -> io::Result<()> {
    let rule = NetPortAttr {
        allowed_access: CONNECT_TCP,
        port: port.into(),
    };
    // SAFETY: the descriptor is open, and the structure is valid for the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_NET_PORT,
            &raw const rule,
            0,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub(super) fn restrict(ruleset: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes numbers only.
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
