//! A report given to whoever takes it: a program, on standard input, or a web server.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use super::report::MEDIA_TYPE;
use crate::dns::Dns;
use crate::dns::name::DomainName;
use crate::https::{Client, LIMITS, Method, Request};
use crate::report::Fail;
use crate::sys::child::Running;
use crate::text;
use crate::tlsrpt::record::Url;

/// Runs a program with a message as its standard input: a file that is whole, so that
/// whatever ends this process leaves nobody with half of it. `path`: the name that the
/// file has until it is open.
///
/// # Errors
/// It cannot be run, or it fails.
pub fn hand_over(program: &[OsString], message: &str, path: &Path) -> Result<(), Fail> {
    let [name, args @ ..] = program else {
        return Err(Fail::temporary("there is no program"));
    };
    let keep = Fail::unable("write a message into tlsrpt");
    let written = || {
        // What an earlier run left there.
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        fs::remove_file(path)?;
        file.write_all(message.as_bytes())?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    let file = written().map_err(|error: std::io::Error| keep(error))?;
    let shown = text::name(name.as_bytes(), 200);
    // In a group of its own: what a terminal sends to this one does not end it.
    let mut command = Command::new(name);
    let mut running = Running::new(command.args(args).stdin(file))
        .map_err(|error| Fail::unable(format!("run {shown}"))(error))?;
    let ended = running
        .wait()
        .map_err(|error| Fail::unable(format!("wait for {shown}"))(error))?;
    match (ended.code(), ended.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Fail::temporary(format!("{shown} exited {code}"))),
        (None, signal) => Err(Fail::temporary(format!(
            "{shown} was ended by signal {}",
            signal.unwrap_or_default()
        ))),
    }
}

/// Gives a packed report to a web server (RFC 8460, 5.4).
///
/// # Errors
/// It is not there, or does not take it.
pub fn post(client: &Client, dns: &Dns, url: &Url, packed: &[u8]) -> Result<(), Fail> {
    let unknown = |_| Fail::temporary("its host is no name");
    let name = DomainName::parse(url.host.as_str().as_bytes()).map_err(unknown)?;
    dns.begin_anew();
    let addresses = dns.addresses(&name);
    let addresses = addresses
        .map_err(|trouble| Fail::temporary(format!("its host has no address: {trouble}")))?;
    let request = Request {
        host: &url.host,
        port: url.port,
        path: &url.path,
        method: Method::Post {
            media_type: MEDIA_TYPE,
            body: packed,
        },
    };
    let answer = client.exchange(&addresses.records, &request, LIMITS);
    let answer = answer.map_err(|failure| Fail::temporary(failure.to_string()))?;
    match answer.status {
        200..=299 => Ok(()),
        status => Err(Fail::temporary(format!("the server answered {status}"))),
    }
}
