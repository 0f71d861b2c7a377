//! One file per program: it joins the steps of the modules above.
#![forbid(unsafe_code)]

use std::io::Read as _;

use crate::keyholder::{PASSWORD_LIMIT, Password};
use crate::report::Fail;
use crate::sys::fd;

pub mod sslclient;
pub mod sslrules;
pub mod sslrulescheck;
pub mod sslserver;
pub mod starttls_handoff;

/// The key's password, up to a NUL or the end, from descriptor 3.
fn read_password(wanted: bool) -> Result<Option<Password>, Fail> {
    if !wanted {
        return Ok(None);
    }
    let descriptor = fd::inherited(3)
        .ok_or_else(|| Fail::temporary("unable to read password: descriptor 3 is not open"))?;
    let mut bytes = Vec::with_capacity(PASSWORD_LIMIT + 1);
    let mut source = std::fs::File::from(descriptor).take(PASSWORD_LIMIT as u64 + 1);
    source
        .read_to_end(&mut bytes)
        .map_err(Fail::unable("read password"))?;
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    } else if bytes.len() > PASSWORD_LIMIT {
        return Err(Fail::temporary("unable to read password: too long"));
    }
    Ok(Some(Password::new(bytes)))
}
