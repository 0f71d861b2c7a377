//! Where qmail lives, and the control files of one line in it.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::report::{Fail, is_absent};

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
    let path = control.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if is_absent(&path, &error) => return Ok(None),
        Err(error) => return Err(Fail::unable(format!("read control/{name}"))(error)),
    };
    let line = bytes.split(|&byte| byte == b'\n').next();
    let line = line.unwrap_or_default().trim_ascii_end();
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

/// The name in a control file; `None` where there is no file.
///
/// # Errors
/// The file cannot be read, or its first line is empty: qmail-remote says EHLO and
/// HELO without a name then, and servers refuse that in words that do not help.
pub fn name(control: &Path, file: &str) -> Result<Option<String>, Fail> {
    match first_line(control, file)? {
        Some(name) if name.is_empty() => Err(Fail::temporary(format!("control/{file} is empty"))),
        name => Ok(name),
    }
}

/// This host's name, by the file `me`.
///
/// # Errors
/// It is missing or empty, or cannot be read.
pub fn own_name(control: &Path) -> Result<String, Fail> {
    name(control, "me")?.ok_or_else(|| Fail::temporary("there is no control/me"))
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
