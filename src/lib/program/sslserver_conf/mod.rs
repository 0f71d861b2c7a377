//! sslserver-conf: see sslserver-conf(1). What it makes is complete or not there,
//! and nothing that is there is touched.
#![forbid(unsafe_code)]

mod quote;
mod service;

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use self::service::{DIRECTORIES, RULES, Service};
use crate::options::sslserver_conf::{Supervisor, TABLE};
use crate::report::{Fail, Severity};
use crate::sys::user::{self, Identity};
use crate::sys::{process, socket};
use crate::{resolve, rules, rulesdb, text};

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(|_| {
        let (options, operands) = TABLE.parse(std::env::args_os().skip(1))?;
        let service = read(options.supervisor, operands)?;
        account("acct", &service.account)?;
        if service.supervisor == Supervisor::Systemd {
            write_unit(&service)?;
        } else {
            let log = account("logacct", &service.log_account)?;
            write_directory(&service, &log)?;
        }
        Ok(0)
    })
}

/// The service that the operands ask for.
fn read(supervisor: Supervisor, operands: Vec<OsString>) -> Result<Service, Fail> {
    let mut operands = operands.into_iter();
    let account = word("acct", operands.next())?;
    let log_account = word("logacct", operands.next())?;
    let directory = directory(supervisor, &operands.next().unwrap_or_default())?;
    let (host, port, program) = served(operands.collect())?;
    Ok(Service {
        supervisor,
        account,
        log_account,
        directory,
        host,
        port,
        program,
        local_name: socket::host_name()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "0".to_owned()),
        programs: own_folder(),
    })
}

/// Host, port and program of what stands behind `dir`.
fn served(mut rest: Vec<OsString>) -> Result<(String, String, Vec<OsString>), Fail> {
    rest.iter().take(2).try_for_each(no_option)?;
    let first = word("port", rest.first().cloned())?;
    let host = if names_port(&first, rest.get(1)) {
        "0".to_owned()
    } else if rest.len() == 2 {
        // With a host there would be three words.
        return Err(too_few(&first));
    } else {
        rest.remove(0);
        first
    };
    if rest.len() < 2 {
        return Err(too_few(&host));
    }
    let port = word("port", Some(rest.remove(0)))?;
    let number = resolve::port(&port).map_err(|fail| {
        let of_two = host != "0" && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if of_two && fail.severity == Severity::Temporary {
            let (host, port) = (
                text::excerpt(host.as_bytes(), 100),
                text::excerpt(port.as_bytes(), 100),
            );
            Fail::temporary(format!(
                "unable to figure out port number for {host} or {port}"
            ))
        } else {
            fail
        }
    })?;
    if number == 0 {
        return Err(TABLE.usage("port 0 is no port that clients could know"));
    }
    rest.iter().take(1).try_for_each(no_option)?;
    if rest.first().is_some_and(|program| program.is_empty()) {
        return Err(TABLE.usage("prog is empty"));
    }
    Ok((host, port, rest))
}

/// An option would be host, port or program of a service that never starts.
fn no_option(word: &OsString) -> Result<(), Fail> {
    if !word.as_bytes().starts_with(b"-") {
        return Ok(());
    }
    let word = text::excerpt(word.as_bytes(), 100);
    Err(TABLE.usage(format!(
        "\"{word}\" is out of place: -d, -r, -s and -S stand before acct, and options of \
         sslserver belong into what is made"
    )))
}

/// What is wrong where the word behind `dir` was taken for a host, and too little
/// follows: most often it was meant as a port.
fn too_few(host: &str) -> Fail {
    let is_address = text::number(host, 0..=0).is_some() || host.parse::<IpAddr>().is_ok();
    if is_address || text::number(host, 1..=65535).is_some() || resolve::port(host).is_ok() {
        return TABLE.usage("too few arguments: a port and a program are needed");
    }
    let shown = text::excerpt(host.as_bytes(), 100);
    TABLE.usage(format!(
        "\"{shown}\" is no port (a number from 1 to 65535, or a name in /etc/services), and behind a \
         host a port and a program are needed"
    ))
}

/// Whether the word behind `dir` is the port already, and `host` left out: it is a
/// number, or a service's name that no number follows.
fn names_port(first: &str, second: Option<&OsString>) -> bool {
    let number = |word: &str| text::number(word, 1..=65535).is_some();
    let next_is_number = second.and_then(|word| word.to_str()).is_some_and(number);
    let zero = text::number(first, 0..=0).is_some();
    number(first) || !zero && !next_is_number && resolve::port(first).is_ok()
}

/// An operand that has to be text.
fn word(name: &str, operand: Option<OsString>) -> Result<String, Fail> {
    let operand = operand.unwrap_or_default().into_string();
    operand
        .ok()
        .filter(|text| !text.contains(|c: char| c.is_control()))
        .ok_or_else(|| TABLE.usage(format!("{name} is not printable UTF-8")))
}

/// The path of the directory: what supervisors and settings can hold.
fn directory(supervisor: Supervisor, operand: &OsStr) -> Result<PathBuf, Fail> {
    if !operand.as_bytes().starts_with(b"/") {
        return Err(TABLE.usage("dir must begin with a slash"));
    }
    if operand.as_bytes().iter().any(u8::is_ascii_control) {
        return Err(TABLE.usage("dir holds a control character"));
    }
    // Without trailing slashes, and never the root itself.
    let path: PathBuf = Path::new(operand).components().collect();
    // sslserver refuses such a path in SSL_CHROOT.
    if path.components().any(|one| one == Component::ParentDir) {
        return Err(TABLE.usage("dir has \"..\" in it, which SSL_CHROOT cannot have"));
    }
    let Some(name) = path.file_name() else {
        return Err(TABLE.usage("dir does not end in a name"));
    };
    if supervisor == Supervisor::Systemd && name.as_bytes().ends_with(b".service") {
        return Err(TABLE.usage(format!(
            "dir is where the unit goes: give {}, or a directory that is there",
            shown(&path.with_extension(""))
        )));
    }
    Ok(path)
}

/// Where this program and its kin are, if they are in one place.
fn own_folder() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let folder = own.parent()?;
    folder
        .join("sslserver")
        .is_file()
        .then(|| folder.to_owned())
}

/// An account that there is. Its name is needed: supervisors know no numbers.
fn account(operand: &str, name: &str) -> Result<Identity, Fail> {
    if text::number(name, 0..=u64::MAX).is_some() {
        return Err(TABLE.usage(format!("{operand} must be a user's name, not a number")));
    }
    user::identity(Some(name), None)
        .map_err(|unknown| Fail::temporary(format!("unable to use {operand}: {unknown}")))
}

/// A path, for a message.
fn shown(path: &Path) -> String {
    text::printable(path.as_os_str().as_bytes())
}

/// Adds to an error which path it is about.
fn unable(step: &str, path: &Path) -> impl FnOnce(io::Error) -> Fail {
    Fail::unable(format!("{step} {}", shown(path)))
}

fn refuse_existing(path: &Path) -> Result<(), Fail> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Fail::temporary(format!(
            "unable to create {}: it exists, and nothing is overwritten",
            shown(path)
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unable("look at", path)(error)),
    }
}

/// What was begun beside its place, and goes away unless it is moved there.
struct Staged(PathBuf);

impl Staged {
    /// Hidden, so that a scanner of that directory starts no half of a service.
    fn beside(place: &Path) -> Staged {
        let name = format!(".sslserver-conf.{}", process::own_id());
        Staged(place.with_file_name(name))
    }
}

/// The directory in which something is made, named as it was asked for.
fn parent_of(place: &Path) -> Result<(), Fail> {
    let parent = place.parent().unwrap_or(Path::new("/"));
    fs::metadata(parent)
        .and_then(|about| {
            if about.is_dir() {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ENOTDIR))
            }
        })
        .map_err(|why| {
            Fail::from(why)
                .of(shown(parent))
                .of(format!("unable to create {}", shown(place)))
        })
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing more can be done, and what failed is told already.
        let _ = fs::remove_dir_all(&self.0).or_else(|_| fs::remove_file(&self.0));
    }
}

/// A directory or a file with this mode, whatever the umask.
fn set_mode(path: &Path, mode: u32) -> Result<(), Fail> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(unable("set the mode of", path))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Fail> {
    fs::create_dir(path).map_err(unable("create", path))?;
    set_mode(path, mode)
}

fn write_file(path: &Path, mode: u32, text: &[u8]) -> Result<(), Fail> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(unable("create", path))?;
    file.write_all(text)
        .and_then(|()| file.sync_all())
        .map_err(unable("write", path))?;
    set_mode(path, mode)
}

/// The directory of a service, made beside its place and moved there at once.
fn write_directory(service: &Service, log: &Identity) -> Result<(), Fail> {
    let place = &service.directory;
    parent_of(place)?;
    refuse_existing(place)?;
    let begun = Staged::beside(place);
    let folder = begun.0.as_path();
    // Nobody asked for the name that it has until it is complete.
    fs::create_dir(folder).map_err(unable("create", place))?;
    set_mode(folder, 0o700)?;
    for (name, is_log) in DIRECTORIES {
        let path = folder.join(name);
        // Clients' addresses are not everybody's.
        make_directory(&path, if *is_log { 0o750 } else { 0o755 })?;
        let owner = if *is_log { log.user } else { None };
        if owner.is_some_and(|user| user != user::own()) {
            chown(&path, owner, log.group).map_err(unable(
                "give the log's directory away (run this as root):",
                &path,
            ))?;
        }
    }
    for file in service.files() {
        write_file(&folder.join(file.path), file.mode, &file.text)?;
    }
    let compiled = rules::compile(RULES).map_err(|bad| {
        let lines: Vec<String> = bad.iter().map(ToString::to_string).collect();
        Fail::never(lines.join("; "))
    })?;
    let records = compiled.records.iter();
    rulesdb::replace(
        &folder.join("rules.cdb"),
        &folder.join("rules.tmp"),
        records.map(|record| (&*record.key, &*record.data)),
    )?;
    set_mode(&folder.join("rules.cdb"), 0o644)?;
    set_mode(folder, 0o755)?;
    // A directory takes no other's place unless that is empty.
    fs::rename(folder, place).map_err(unable("create", place))
}

/// The unit alone, in a directory that may be there.
fn write_unit(service: &Service) -> Result<(), Fail> {
    let folder = &service.directory;
    parent_of(folder)?;
    let own = folder.file_name().unwrap_or_default().to_string_lossy();
    if !folder.is_dir() {
        refuse_existing(folder)?;
        let name = unit_name(&own)?;
        let begun = Staged::beside(folder);
        fs::create_dir(&begun.0).map_err(unable("create", folder))?;
        set_mode(&begun.0, 0o755)?;
        let unit = begun.0.join(name);
        write_file(&unit, 0o644, &service.unit(&folder.join("cert.pem")))?;
        return fs::rename(&begun.0, folder).map_err(unable("create", folder));
    }
    // This program made that directory for one service: it is no place for more.
    refuse_existing(&folder.join(format!("{own}.service")))?;
    let name = format!("sslserver-{}", service.port);
    let place = folder.join(unit_name(&name)?);
    refuse_existing(&place)?;
    let begun = Staged::beside(&place);
    let certificate = Path::new("/etc/sslserver").join(&name).join("cert.pem");
    write_file(&begun.0, 0o644, &service.unit(&certificate))?;
    // Unlike rename(2), link(2) never takes another file's place.
    fs::hard_link(&begun.0, &place).map_err(unable("create", &place))
}

/// The file of a unit.
fn unit_name(name: &str) -> Result<String, Fail> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.".contains(c);
    if name.chars().all(fits) {
        Ok(format!("{name}.service"))
    } else {
        Err(TABLE.usage(format!(
            "{name} cannot be the name of a unit: only letters, digits and :-_. can be in it"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(String, String, Vec<OsString>), String> {
        let words = format!("a l /d {line}");
        let words = words.split(' ').map(OsString::from).collect();
        read(Supervisor::Daemontools, words)
            .map(|service| (service.host, service.port, service.program))
            .map_err(|fail| fail.to_string())
    }

    #[test]
    fn the_host_may_be_left_out() {
        for (line, host, port, program) in [
            ("995 prog", "0", "995", "prog"),
            ("0 995 prog", "0", "995", "prog"),
            ("pop3s prog", "0", "pop3s", "prog"),
            ("127.0.0.1 pop3s prog", "127.0.0.1", "pop3s", "prog"),
            ("smtp 25 prog", "smtp", "25", "prog"),
            ("995 finger -x", "0", "995", "finger -x"),
            (":: 995 prog 1", "::", "995", "prog 1"),
        ] {
            let program: Vec<OsString> = program.split(' ').map(OsString::from).collect();
            let wanted = (host.to_owned(), port.to_owned(), program);
            assert_eq!(parsed(line), Ok(wanted), "{line}");
        }
        for (line, part) in [
            ("0 995", "too few arguments"),
            ("127.0.0.1 995", "too few arguments"),
            ("70000 prog", "\"70000\" is no port"),
            ("nosuchport prog", "\"nosuchport\" is no port"),
            ("995", "too few arguments"),
            (
                "host prog x",
                "unable to figure out port number for host or prog",
            ),
            (
                "192.0.2.1 prog x",
                "unable to figure out port number for prog",
            ),
            ("POP3S prog", "\"POP3S\" is no port"),
            ("-4 995 prog", "\"-4\" is out of place"),
            ("0 -4 995 prog", "\"-4\" is out of place"),
            ("995 -v prog", "\"-v\" is out of place"),
            ("995 ", "prog is empty"),
            ("0 0 prog", "port 0 is no port"),
            ("0 65536 prog", "not a number from 0 to 65535"),
        ] {
            let why = parsed(line).expect_err(line);
            assert!(why.contains(part), "{line}: {why}");
        }
    }

    #[test]
    fn a_directory_is_an_absolute_path_that_ends_in_a_name() {
        for (path, wanted) in [("/a/b/", "/a/b"), ("/a//b c", "/a/b c"), ("/a/./b", "/a/b")] {
            let path = directory(Supervisor::Systemd, path.as_ref()).expect(path);
            assert_eq!(path, Path::new(wanted));
        }
        for path in ["", "a/b", "/", "/a/..", "/a/../b", "/a/b/..", "/a\nb"] {
            for supervisor in [Supervisor::Daemontools, Supervisor::Systemd] {
                let refused = directory(supervisor, path.as_ref()).expect_err(path);
                assert_eq!(refused.code(), 100);
            }
        }
        for path in ["/a/b.service", "/a/b.service/"] {
            let refused = directory(Supervisor::Systemd, path.as_ref()).expect_err(path);
            assert_eq!(refused.code(), 100);
            directory(Supervisor::Runit, path.as_ref()).expect(path);
        }
    }
}
