//! A real sslserver on a port of its own, and proof that it left nothing behind.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::authority::{Identity, KeyKind};
use super::process::run_on;
use super::process::{self, PATIENCE, descriptors, eventually, no_panic, pids};
use super::programs::taken_over;
use super::{Finished, Place, ours, run};

/// How many descriptors a server may still open for good between its port line
/// and its first wait. What leaks per connection outgrows it.
const SETTLING: usize = 2;

/// What a server is started with.
pub struct Setup<'a> {
    place: &'a Place,
    before: Vec<OsString>,
    options: Vec<String>,
    host: String,
    port: u16,
    prog: Vec<String>,
    env: Vec<(String, OsString)>,
    stdin: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    program: String,
    patience: Duration,
}

/// A server that runs.
pub struct Server {
    child: Child,
    log: PathBuf,
    first: BTreeSet<i32>,
    first_descriptors: usize,
    /// With which exit code it may have ended.
    code: i32,
    pub port: u16,
    pub at: SocketAddr,
}

impl<'a> Setup<'a> {
    /// `sslserver -1 -RHl localhost 127.0.0.1 0 PROG` with a P-256 certificate.
    pub fn new(place: &'a Place, prog: &[&str]) -> Setup<'a> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let setup = Setup {
            place,
            before: Vec::new(),
            options: vec!["-RHl".into(), "localhost".into()],
            host: "127.0.0.1".into(),
            port: 0,
            prog: prog.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("PATH".into(), path)],
            stdin: None,
            stderr: None,
            program: ours("sslserver"),
            patience: PATIENCE,
        };
        setup.identity(&Identity::localhost(KeyKind::P256))
    }

    /// With `/bin/sh -c SCRIPT` as the program.
    pub fn script(place: &'a Place, script: &str) -> Setup<'a> {
        Setup::new(place, &["/bin/sh", "-c", script])
    }

    /// Words before the server's own: setpriv, strace, a shell.
    pub fn through<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.before.extend(words.into_iter().map(Into::into));
        self
    }

    /// More options, separated by blanks.
    pub fn options(mut self, words: &str) -> Self {
        self.options
            .extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// One option, whatever it holds.
    pub fn option(mut self, word: &str) -> Self {
        self.options.push(word.to_owned());
        self
    }

    /// The address to listen on, in place of 127.0.0.1.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// A port that an earlier server was given, in place of 0.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// It has much to load, and so long until its port line.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// In the hands of an attacker, who does this: see tests/taken_over.
    pub fn taken_over(mut self, deed: &str) -> Self {
        self.program = taken_over();
        self.env("TAKEN_OVER", format!("sslserver:{deed}"))
    }

    /// What it is started with as descriptor 0, in place of the null device.
    pub fn stdin(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(fd.into());
        self
    }

    /// What it is started with as descriptor 2, in place of the file that
    /// [`Server::log`] reads.
    pub fn stderr(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(fd.into());
        self
    }

    /// Sets a variable; the last one of a name wins.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Takes a variable away.
    pub fn unset(mut self, name: &str) -> Self {
        self.env.retain(|(one, _)| one != name);
        self
    }

    /// CERTFILE and KEYFILE.
    pub fn pair(self, certificate: impl Into<OsString>, key: impl Into<OsString>) -> Self {
        self.env("CERTFILE", certificate).env("KEYFILE", key)
    }

    /// `-x`, with this cdb.
    pub fn rules(self, cdb: &str) -> Self {
        self.option("-x").option(cdb)
    }

    /// A certificate with its key, in files of their own.
    pub fn identity(self, identity: &Identity) -> Self {
        let stem = self.place.fresh("server");
        let stem = stem.file_name().unwrap().to_str().unwrap().to_owned();
        let (certificate, key) = self.place.identity(&stem, identity);
        self.pair(certificate, key)
    }

    /// Lets others than their owner read the keys, but for what nobody may read:
    /// what stands before the server may make it another user's.
    fn open_keys(&self) {
        for (_, path) in self
            .env
            .iter()
            .filter(|(name, _)| name.starts_with("KEYFILE"))
        {
            let Ok(about) = fs::metadata(path) else {
                continue;
            };
            let mode = about.permissions().mode();
            if mode & 0o400 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o044)).unwrap();
            }
        }
    }

    fn command(&self) -> Command {
        if !self.before.is_empty() {
            self.open_keys();
        }
        let mut words = self.before.clone();
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("-1")
            .args(&self.options)
            .arg(&self.host)
            .arg(self.port.to_string())
            .args(&self.prog)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it where it is expected to end by itself.
    pub fn refused(&self) -> Finished {
        let mut command = self.command();
        match &self.stdin {
            Some(_) => run_on(command.stdin(self.descriptor_0())),
            None => run(&mut command, b""),
        }
    }

    fn descriptor_0(&self) -> Stdio {
        match &self.stdin {
            Some(fd) => fd.try_clone().unwrap().into(),
            None => Stdio::null(),
        }
    }

    /// Starts it and waits for its port line.
    pub fn start(&self) -> Server {
        let log = self.place.fresh("log");
        let file = fs::File::create(&log).unwrap();
        let stderr = self.stderr.as_ref().map(|fd| fd.try_clone().unwrap());
        let mut child = self
            .command()
            .stdin(self.descriptor_0())
            .stdout(Stdio::piped())
            .stderr(stderr.unwrap_or(file.into()))
            .process_group(0)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(self.patience);
        // A server that cannot start has closed its end: no port, and a log.
        let port = line
            .as_deref()
            .ok()
            .and_then(|text| text.trim_end().parse().ok());
        let Some(port) = port else {
            process::kill_group(child.id());
            let _ = child.wait();
            panic!("{line:?}; log: {}", fs::read_to_string(&log).unwrap());
        };
        let ip = match self.host.as_str() {
            "0" | "" | ":0" | "0.0.0.0" | "localhost" => IpAddr::from([127, 0, 0, 1]),
            "::" => "::1".parse().unwrap(),
            other => other.parse().unwrap(),
        };
        Server {
            first: pids(child.id()),
            first_descriptors: descriptors(child.id()),
            code: 0,
            child,
            log,
            port,
            at: SocketAddr::new(ip, port),
        }
    }
}

impl Server {
    /// The supervisor's pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// All that was logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// The first line that holds `part`, however long it takes to come.
    pub fn line(&self, part: &str) -> String {
        self.lines(part, 1).remove(0)
    }

    /// The first `count` lines that hold `part`.
    pub fn lines(&self, part: &str, count: usize) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            // The last piece may be a line that is still being written.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let found: Vec<_> = whole.lines().filter(|line| line.contains(part)).collect();
            if found.len() >= count {
                return found[..count].iter().map(|&line| line.to_owned()).collect();
            }
            assert!(
                Instant::now() < end,
                "{part:?} not in the log {count} times: {log}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The processes that are there besides those of a server without clients.
    pub fn busy(&self) -> Vec<process::Process> {
        let mut all = process::group(self.pid());
        all.retain(|one| !self.first.contains(&one.pid) && !is_key_process(one.pid));
        all
    }

    /// Waits until every connection's processes are gone, zombies included, and
    /// the supervisor has no more descriptors open than at the beginning.
    pub fn quiet(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (busy, open) = (self.busy(), descriptors(self.pid()));
            if busy.is_empty() && open <= self.first_descriptors + SETTLING {
                return;
            }
            let left: Vec<_> = busy
                .iter()
                .map(|one| format!("{} ({}, child of {})", one.pid, one.state, one.parent))
                .collect();
            assert!(
                Instant::now() < end,
                "{open} descriptors open, {} at first; left: {left:?}; log: {}",
                self.first_descriptors,
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the supervisor with TERM, and lets its connections live on.
    pub fn retire(&self) {
        self.signal(Signal::SIGTERM);
        let pid = self.pid().cast_signed();
        eventually("the supervisor ends", || {
            process::process(pid)
                .is_none_or(|one| one.state == 'Z')
                .then_some(())
        });
    }

    /// Has its waits fail, as where the system lacks memory, until it has ended for that.
    /// `strace` is strace(1).
    pub fn fail(&mut self, strace: &Path) {
        self.code = 111;
        let mut command = Command::new(strace);
        let words = ["-qq", "-o", "/dev/null", "-e", "inject=ppoll:error=ENOMEM"];
        let pid = self.pid().to_string();
        run(command.args(words).args(["-p", &pid]), b"");
        let status = process::wait(&mut self.child, PATIENCE);
        assert_eq!(status.code(), Some(self.code), "{}", self.log());
        let said = "fatal: unable to wait for connections: ";
        assert!(self.log().contains(said), "{}", self.log());
    }

    /// Waits until the connections of a retired server have ended.
    pub fn over(&self) {
        eventually("the last connection ends", || {
            self.busy().is_empty().then_some(())
        });
    }

    /// Ends the supervisor with TERM and fails unless its exit code is 0.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = process::wait(&mut self.child, PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

/// A reload brings a keyholder of its own, which belongs to no connection.
fn is_key_process(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("key"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let died = self.child.try_wait().unwrap();
        process::kill_group(self.pid());
        let _ = self.child.wait();
        if thread::panicking() {
            println!("log of sslserver:\n{}", self.log());
            return;
        }
        if let Some(status) = died {
            assert_eq!(status.code(), Some(self.code), "it died: {}", self.log());
        }
        no_panic(&self.log());
        eventually("the process group is gone", || {
            pids(self.pid()).is_empty().then_some(())
        });
    }
}
