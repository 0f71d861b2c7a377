//! Where qmail lives, and the control files of one line in it.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::report::Fail;

/// Where qmail lives unless `QMAILHOME` says otherwise.
const HOME: &str = "/var/qmail";
/// The folder of control files in it.
pub const CONTROL: &str = "control";

/// qmail's home.
#[must_use]
pub fn folder() -> PathBuf {
    let home = env::var_os("QMAILHOME").filter(|home| !home.is_empty());
    home.map_or_else(|| PathBuf::from(HOME), PathBuf::from)
}

/// A control file's first line without trailing blanks; `None` where there is no
/// file.
///
/// # Errors
/// The file cannot be read.
pub fn first_line(control: &Path, name: &str) -> Result<Option<String>, Fail> {
    let bytes = match fs::read(control.join(name)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fail::unable(format!("read control/{name}"))(error)),
    };
    let line = bytes.split(|&byte| byte == b'\n').next();
    let line = line.unwrap_or_default().trim_ascii_end();
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

/// This host's name, by the file `me`.
///
/// # Errors
/// It is missing, or cannot be read.
pub fn own_name(control: &Path) -> Result<String, Fail> {
    let me = first_line(control, "me")?;
    me.ok_or_else(|| Fail::temporary("there is no control/me"))
}

/// The address that TLS reports come from, by the file `tlsreportfrom`; without it
/// none are mailed.
///
/// # Errors
/// The file cannot be read.
pub fn tls_reporter(control: &Path) -> Result<Option<String>, Fail> {
    let line = first_line(control, "tlsreportfrom")?;
    Ok(line.filter(|line| !line.is_empty()))
}
