//! qmail's control files.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use crate::qmail_home::{first_line, own_name, tls_reporter};
use crate::report::Fail;
use crate::routes::{Routes, Table};
use crate::text;

/// What the control files say, but for the policy's.
#[derive(Debug)]
pub struct ControlFiles {
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
    /// tlsreportfrom: the sender of TLS reports.
    tls_reporter: Option<String>,
}

/// A time in seconds, as qmail reads numbers: junk is an error here.
fn seconds(folder: &Path, name: &str, default: u64) -> Result<Duration, Fail> {
    let seconds = match first_line(folder, name)? {
        None => default,
        Some(line) => text::number(&line, 0..=0x7fff_ffff).ok_or_else(|| {
            let line = text::excerpt(line.as_bytes(), 100);
            Fail::temporary(format!("control/{name}: \"{line}\" is not a number"))
        })?,
    };
    Ok(Duration::from_secs(seconds))
}

impl ControlFiles {
    /// Reads the files of a control directory.
    ///
    /// # Errors
    /// `me` is missing, or a file cannot be read; the file is named.
    pub fn read(folder: &Path) -> Result<ControlFiles, Fail> {
        let me = own_name(folder)?;
        Ok(ControlFiles {
            helo_host: first_line(folder, "helohost")?.unwrap_or(me),
            routes: Routes::read(folder)?,
            domain_ips: Table::read(folder, "domainips")?,
            connect: seconds(folder, "timeoutconnect", 60)?,
            remote: seconds(folder, "timeoutremote", 1200)?,
            tls_reporter: tls_reporter(folder)?,
        })
    }

    /// Whether this envelope sender is the one of TLS reports. The empty one, that of
    /// bounces, never is.
    pub fn is_tls_reporter(&self, sender: &[u8]) -> bool {
        let reporter = self.tls_reporter.as_ref();
        reporter.is_some_and(|reporter| reporter.as_bytes().eq_ignore_ascii_case(sender))
    }
}
