//! What Linux grants a process beside its user: capabilities, new privileges by
//! exec, and being looked into by others of its user.

use std::io;

use nix::sys::prctl;

/// Gives up new privileges, and keeps other processes of the same user out.
pub(super) fn stay_within() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// Drops every capability from the set that exec could bring back. Needs root.
pub fn drop_bounds() {
    const CAPABILITIES: libc::c_ulong = 64;
    for capability in 0..CAPABILITIES {
        // SAFETY: takes numbers only; one that the kernel does not know is
        // EINVAL.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Gives up all capabilities while the user stays.
///
/// # Errors
/// As capset(2).
pub fn drop_capabilities() -> io::Result<()> {
    /// `__user_cap_header_struct` and `__user_cap_data_struct` of
    /// linux/capability.h, version 3.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let none = [0u32; 6];
    // SAFETY: both pointers are valid for the call, and version 3 reads two
    // entries of three numbers.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
