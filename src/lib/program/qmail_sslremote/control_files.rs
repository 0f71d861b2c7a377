//! qmail's control files.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use crate::qmail_home::{first_line, name, own_name, tls_reporter};
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
    /// What is not as it is written: sentences.
    pub remarks: Vec<String>,
}

/// A time in seconds, as qmail's control_readint has it: the digits at the start
/// of the line, and where there are none the default. What differs from what is
/// written is a remark.
fn seconds(
    folder: &Path,
    name: &str,
    default: u64,
    remarks: &mut Vec<String>,
) -> Result<Duration, Fail> {
    /// The most that an int holds.
    const MOST: u64 = 0x7fff_ffff;
    let Some(line) = first_line(folder, name)? else {
        return Ok(Duration::from_secs(default));
    };
    let end = line.find(|c: char| !c.is_ascii_digit());
    let digits = &line[..end.unwrap_or(line.len())];
    let seconds = match digits {
        "" => default,
        digits => text::number(digits, 0..=MOST).unwrap_or(MOST),
    };
    if text::number(&line, 0..=MOST).is_none() {
        let line = text::excerpt(line.as_bytes(), 100);
        remarks.push(format!(
            "control/{name}: \"{line}\" is not a number; {seconds} seconds count"
        ));
    }
    Ok(Duration::from_secs(seconds))
}

impl ControlFiles {
    /// Reads the files of a control directory.
    ///
    /// # Errors
    /// `me` and `helohost` are missing, the one that counts is empty, or a file cannot
    /// be read; the file is named.
    pub fn read(folder: &Path) -> Result<ControlFiles, Fail> {
        let mut remarks = Vec::new();
        Ok(ControlFiles {
            helo_host: match name(folder, "helohost")? {
                Some(name) => name,
                None => own_name(folder)?,
            },
            routes: Routes::read(folder)?,
            domain_ips: Table::read(folder, "domainips")?,
            connect: seconds(folder, "timeoutconnect", 60, &mut remarks)?,
            remote: seconds(folder, "timeoutremote", 1200, &mut remarks)?,
            tls_reporter: tls_reporter(folder)?,
            remarks,
        })
    }

    /// Whether this envelope sender is the one of TLS reports. The empty one, that of
    /// bounces, never is.
    pub fn is_tls_reporter(&self, sender: &[u8]) -> bool {
        let reporter = self.tls_reporter.as_ref();
        reporter.is_some_and(|reporter| reporter.as_bytes().eq_ignore_ascii_case(sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_qmail_reads_them() {
        let name = format!("control-files-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        for (text, wanted, said) in [
            ("60\n", 60, None),
            ("60 \t\r\nx\n", 60, None),
            ("0", 0, None),
            (
                "60 seconds\n",
                60,
                Some("\"60 seconds\" is not a number; 60 "),
            ),
            ("7x", 7, Some("\"7x\" is not a number; 7 seconds count")),
            ("abc\n", 9, Some("is not a number; 9 seconds count")),
            ("\n60\n", 9, Some("\"\" is not a number; 9 ")),
            ("", 9, Some("\"\" is not a number; 9 ")),
            (" 5\n", 9, Some("\" 5\" is not a number; 9 ")),
            ("-1", 9, Some("\"-1\" is not a number; 9 ")),
            ("+5", 9, Some("\"+5\" is not a number; 9 ")),
            (
                "99999999999999999999999",
                0x7fff_ffff,
                Some("is not a number"),
            ),
        ] {
            std::fs::write(folder.join("timeoutremote"), text).expect("written");
            let mut remarks = Vec::new();
            let read = seconds(&folder, "timeoutremote", 9, &mut remarks).expect("read");
            assert_eq!(read, Duration::from_secs(wanted), "{text:?}");
            match (said, &*remarks) {
                (None, []) => {}
                (Some(said), [remark]) => {
                    assert!(remark.starts_with("control/timeoutremote: \""), "{remark}");
                    assert!(remark.contains(said), "{remark}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
