//! qmail's control files.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::routes::{Routes, Table};
use crate::text;

/// What the control files say, but for the policy's.
#[derive(Debug)]
pub struct Control {
    /// What we call ourselves in EHLO.
    pub helo_host: String,
    /// authsenders, qmtproutes, smtproutes.
    pub routes: Routes,
    /// domainips.
    pub domain_ips: Table,
    /// For each address.
    pub connect: Duration,
    /// For each reply and each piece of the message.
    pub remote: Duration,
}

/// A file's bytes; none where there is no file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file's first line without trailing blanks.
fn first_line(path: &Path) -> io::Result<Option<String>> {
    Ok(read(path)?.map(|bytes| {
        let line = bytes.split(|&byte| byte == b'\n').next();
        String::from_utf8_lossy(line.unwrap_or_default().trim_ascii_end()).into_owned()
    }))
}

/// A time in seconds, as qmail reads numbers: junk is an error here.
fn seconds(path: &Path, default: u64) -> io::Result<Duration> {
    let seconds = match first_line(path)? {
        None => default,
        Some(line) => text::number(&line, 0..=0x7fff_ffff)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?,
    };
    Ok(Duration::from_secs(seconds))
}

impl Control {
    /// Reads the files of a control directory.
    ///
    /// # Errors
    /// `me` is missing, or a file cannot be read.
    pub fn read(folder: &Path) -> io::Result<Control> {
        let table = |name| {
            let text = read(&folder.join(name))?.unwrap_or_default();
            Ok::<_, io::Error>(Table::new(name, text))
        };
        let me = first_line(&folder.join("me"))?;
        let me = me.ok_or(io::ErrorKind::NotFound)?;
        Ok(Control {
            helo_host: first_line(&folder.join("helohost"))?.unwrap_or(me),
            routes: Routes {
                senders: table("authsenders")?,
                qmtp: table("qmtproutes")?,
                smtp: table("smtproutes")?,
            },
            domain_ips: table("domainips")?,
            connect: seconds(&folder.join("timeoutconnect"), 60)?,
            remote: seconds(&folder.join("timeoutremote"), 1200)?,
        })
    }
}
