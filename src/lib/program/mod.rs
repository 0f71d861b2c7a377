//! One file per program: it joins the steps of the modules above.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use crate::report::Fail;
use crate::sys::fd;

#[cfg(feature = "remote")]
pub mod qmail_sslremote;
pub mod sslclient;
#[cfg(feature = "remote")]
pub mod sslprobe;
#[cfg(feature = "remote")]
pub mod sslreport;
pub mod sslrules;
pub mod sslrulescheck;
pub mod sslserver;
pub mod sslserver_conf;
#[cfg(feature = "remote")]
pub mod sslsurvey;
pub mod starttls_handoff;

/// The descriptor that `-3` reads the key's password from.
fn password_descriptor(wanted: bool) -> Result<Option<OwnedFd>, Fail> {
    if !wanted {
        return Ok(None);
    }
    let descriptor = fd::inherited(3)
        .ok_or_else(|| Fail::temporary("unable to read password: descriptor 3 is not open"))?;
    Ok(Some(descriptor))
}
