//! What there is of a sandbox on FreeBSD, in the words of the modules for Linux: no
//! filter of system calls, no Landlock, and what procctl(2) has of process rights.

/// There is none: `SSL_SANDBOX=require` refuses.
pub(super) mod filter {
    use std::io;

    use super::super::Process;
    use crate::report::Fail;

    /// No value has this type.
    pub enum Filter {}

    pub fn filter(_: Process) -> Result<Filter, Fail> {
        Err(format!("not known for {}", std::env::consts::OS).into())
    }

    pub fn is_known() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn install(filter: &Filter) -> io::Result<()> {
        match *filter {}
    }
}

pub(super) mod landlock {
    use std::io;
    use std::os::fd::OwnedFd;

    use super::super::Connects;

    pub fn ruleset(_: Connects) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn restrict(_: &OwnedFd) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(super) mod rights {
    use std::io;

    /// Gives up new privileges, and keeps other processes of the same user out.
    pub fn stay_within() -> io::Result<()> {
        control(libc::PROC_NO_NEW_PRIVS_CTL, libc::PROC_NO_NEW_PRIVS_ENABLE)?;
        control(libc::PROC_TRACE_CTL, libc::PROC_TRACE_CTL_DISABLE)
    }

    fn control(command: libc::c_int, mut how: libc::c_int) -> io::Result<()> {
        // SAFETY: both commands read one int through the pointer, which is valid for
        // the call; process 0 is this one.
        let done = unsafe { libc::procctl(libc::P_PID, 0, command, (&raw mut how).cast()) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// There are no capabilities here that exec could bring back.
    pub fn drop_bounds() {}

    /// Gives up root's powers while the user stays.
    ///
    /// # Errors
    /// Always: here root's powers go with the user.
    pub fn drop_capabilities() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
