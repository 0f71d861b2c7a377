//! The servers that are compared: where each is found, how it is started around
//! a program, and how it is ended with all its processes.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::account::{Accounting, Group};
use crate::credentials::{Credentials, Key};
use crate::harness::ports;
use crate::{Outcome, because};

/// How a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// sslserver -n around a program that never asks for TLS.
    Delayed,
    /// sslserver -n and starttls-handoff, in front of an SMTP program.
    Handoff,
    /// sslserver -n and the SMTP program's own STARTTLS.
    Mailfront,
    S6,
    Socat,
    Sslserver,
    Stunnel,
    Tcpserver,
    UcspiSsl,
}

/// One server in the comparison.
#[derive(Clone, Debug)]
pub struct Contender {
    pub label: String,
    pub kind: Kind,
    /// Nowhere: it is not installed.
    pub binary: Option<PathBuf>,
    /// Which rules it has, if any.
    pub rules: Option<Rules>,
    /// It has other connections open.
    pub crowded: bool,
}

/// Ten thousand rules, each of which sets a store. They share a few files, as
/// customers of one host do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// All are for others than the bench's client.
    ForOthers,
    /// One more is for the client.
    ForUs,
}

impl Rules {
    /// Compiles them into the directory, once, and gives the database. A server that was
    /// started while they are made, or right behind it, would read them again under the
    /// clients that are counted.
    fn compile(self, ground: &Ground, key: Key) -> Outcome<PathBuf> {
        const FILES: u32 = 5;
        /// From this age on a file is not looked at twice.
        const SETTLED: Duration = Duration::from_secs(2);
        let cdb = ground.directory.join(format!("{self:?}.{key:?}.cdb"));
        if cdb.exists() {
            return Ok(cdb);
        }
        let copy = |at: u32, end: &str| {
            let name = format!("store{at}.{self:?}.{key:?}.{end}");
            ground.directory.join(name)
        };
        for at in 0..FILES {
            fs::copy(ground.credentials.certificate(key), copy(at, "pem"))
                .and_then(|_| fs::copy(ground.credentials.key(key), copy(at, "key")))
                .map_err(because("copy a certificate"))?;
        }
        let store = |at: u32| {
            format!(
                "allow,CERTFILE=\"{}\",KEYFILE=\"{}\"",
                copy(at % FILES, "pem").display(),
                copy(at % FILES, "key").display()
            )
        };
        let mut text = String::new();
        for at in 0..10_000 {
            let _ = writeln!(text, "10.1.{}.{}:{}", at / 250, at % 250 + 1, store(at));
        }
        if self == Rules::ForUs {
            let _ = writeln!(text, "127.0.0.1:{}", store(0));
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_sslrules"))
            .arg(&cdb)
            .arg(cdb.with_extension("tmp"))
            .stdin(Stdio::piped())
            .spawn()
            .map_err(because("start sslrules"))?;
        let fed = child
            .stdin
            .take()
            .ok_or("no pipe to sslrules")?
            .write_all(text.as_bytes());
        let ended = child.wait().map_err(because("wait for sslrules"))?;
        fed.map_err(because("write rules"))?;
        if ended.success() {
            thread::sleep(SETTLED);
            Ok(cdb)
        } else {
            Err("sslrules failed".to_owned())
        }
    }
}

impl Contender {
    /// A server that is looked for at `$variable`, then at the places given (a
    /// bare name: through PATH).
    pub fn found(label: &str, kind: Kind, variable: &str, places: &[&str]) -> Self {
        Contender {
            label: label.to_owned(),
            kind,
            binary: look(variable, places),
            rules: None,
            crowded: false,
        }
    }

    /// An sslserver of this project at a given path.
    pub fn sslserver(label: &str, binary: PathBuf) -> Self {
        Contender {
            label: label.to_owned(),
            kind: Kind::Sslserver,
            binary: Some(binary),
            rules: None,
            crowded: false,
        }
    }

    /// The same, and its program stays in the clear.
    pub fn delayed(label: &str, binary: &Path) -> Self {
        Contender {
            kind: Kind::Delayed,
            ..Contender::sslserver(label, binary.to_owned())
        }
    }

    /// The same with other connections open.
    pub fn with_crowd(self) -> Self {
        Contender {
            crowded: true,
            ..self
        }
    }

    /// The same with rules.
    pub fn with_rules(self, rules: Rules) -> Self {
        Contender {
            rules: Some(rules),
            ..self
        }
    }

    /// An sslserver of this project around Debian's mailfront, if it is there.
    pub fn around_mailfront(label: &str, kind: Kind, binary: &Path) -> Self {
        Contender {
            label: label.to_owned(),
            kind,
            binary: mailfront().map(|_| binary.to_owned()),
            rules: None,
            crowded: false,
        }
    }

    /// Whether a client of it asks for TLS in SMTP.
    pub fn upgrades(&self) -> bool {
        matches!(self.kind, Kind::Handoff | Kind::Mailfront)
    }

    /// Whether a client of it speaks TLS.
    pub fn encrypts(&self) -> bool {
        !matches!(self.kind, Kind::Delayed | Kind::Tcpserver)
    }
}

/// A program at `$variable`, else at the first of the places that has one.
pub fn look(variable: &str, places: &[&str]) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    named
        .filter(|path| executable(path))
        .or_else(|| places.iter().find_map(|place| find(place)))
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn find(place: &str) -> Option<PathBuf> {
    if place.contains('/') {
        return Some(PathBuf::from(place)).filter(|path| executable(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(place))
        .find(|path| executable(path))
}

fn mailfront() -> Option<PathBuf> {
    ["mailfront", "/usr/sbin/mailfront"]
        .iter()
        .find_map(|place| find(place))
}

/// The program that a server runs for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// Sends back what it reads.
    Cat,
    /// Says `ok`.
    Echo,
    /// Takes that many bytes, then says `done`.
    Sink(u64),
    /// Serves SMTP.
    Smtp,
    /// Sends that many bytes.
    Source(u64),
}

impl Program {
    /// Words without blanks, since stunnel and socat split at them: the longer
    /// programs become scripts.
    fn words(self, directory: &Path) -> Outcome<Vec<String>> {
        let script = match self {
            Program::Cat => return Ok(vec!["/bin/cat".to_owned()]),
            Program::Smtp => {
                let path = mailfront().ok_or("mailfront is not installed")?;
                let mut words = vec![path.display().to_string()];
                words.extend(["smtp", "echo", "accept"].map(str::to_owned));
                return Ok(words);
            }
            Program::Echo => return Ok(vec!["/bin/echo".to_owned(), "ok".to_owned()]),
            Program::Sink(bytes) => {
                format!(
                    "dd bs=65536 count={bytes} iflag=count_bytes,fullblock of=/dev/null status=none\necho done\n"
                )
            }
            Program::Source(bytes) => {
                format!(
                    "exec dd bs=65536 count={bytes} iflag=count_bytes if=/dev/zero status=none\n"
                )
            }
        };
        let name = if matches!(self, Program::Sink(_)) {
            "sink"
        } else {
            "source"
        };
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}")).map_err(because("write a script"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(because("set permissions"))?;
        Ok(vec![path.display().to_string()])
    }
}

/// Process groups that a signal to the bench must end too.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills every server that still runs.
pub fn kill_all() {
    for &group in RUNNING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
    {
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// What all servers of a run share.
#[derive(Debug)]
pub struct Ground {
    pub accounting: Accounting,
    pub credentials: Credentials,
    pub directory: PathBuf,
}

/// A running server. Dropping it ends it and every process of it.
#[derive(Debug)]
pub struct Server {
    pub port: u16,
    child: Child,
    group: Group,
    log: PathBuf,
    /// Processes it has while no connection is open.
    at_rest: usize,
}

/// How many connections at once each server must take.
const LIMIT: &str = "4000";
/// How long a server may take to start or to settle.
const PATIENCE: Duration = Duration::from_secs(10);

impl Server {
    /// Starts a contender around a program, with a certificate of that key, and
    /// returns once it accepts connections.
    pub fn start(
        contender: &Contender,
        ground: &Ground,
        key: Key,
        program: Program,
    ) -> Outcome<Self> {
        let binary = contender.binary.as_ref().ok_or("not installed")?;
        let words = program.words(&ground.directory)?;
        let says_port = !matches!(contender.kind, Kind::Socat | Kind::Stunnel);
        let rules = match contender.rules {
            Some(rules) => vec![
                "-x".into(),
                rules.compile(ground, key)?.display().to_string(),
            ],
            None => Vec::new(),
        };
        let mut failure = String::new();
        // A port that the bench chooses can be taken before the server takes it.
        for _ in 0..5 {
            let port = if says_port { 0 } else { ports::free() };
            let own = arguments(contender.kind, ground, key, port, &words)?;
            let arguments: Vec<String> = rules.iter().cloned().chain(own).collect();
            match Server::spawn(contender, binary, &arguments, ground, key, port) {
                Ok(server) => return Ok(server),
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }

    fn spawn(
        contender: &Contender,
        binary: &Path,
        arguments: &[String],
        ground: &Ground,
        key: Key,
        port: u16,
    ) -> Outcome<Self> {
        static COUNT: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
            *count += 1;
            *count
        };
        let group = ground
            .accounting
            .group(&number.to_string())
            .map_err(because("make a control group"))?;
        let log = ground.directory.join(format!("log.{number}"));
        let mut command = match group.procs() {
            // The shell enters the group and then becomes the server.
            Some(procs) => {
                let mut shell = Command::new("/bin/sh");
                shell
                    .args(["-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh"])
                    .arg(procs)
                    .arg(binary);
                shell
            }
            None => Command::new(binary),
        };
        let child = command
            .args(arguments)
            .env("CERTFILE", ground.credentials.certificate(key))
            .env("KEYFILE", ground.credentials.key(key))
            .envs(extras(contender.kind, ground))
            .stdin(Stdio::null())
            .stdout(if port == 0 {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stderr(File::create(&log).map_err(because("make a log"))?)
            .process_group(0)
            .spawn()
            .map_err(because(format!("start {}", contender.label)))?;
        RUNNING
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pid(&child));
        let mut server = Server {
            port,
            child,
            group,
            log,
            at_rest: 0,
        };
        let ready = if port == 0 {
            server.read_port()
        } else {
            server.await_port()
        };
        ready.map_err(|why| server.explain(&why))?;
        Ok(server)
    }

    fn read_port(&mut self) -> Outcome<()> {
        let stdout = self.child.stdout.take().ok_or("no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let result = BufReader::new(stdout).read_line(&mut line);
            // The receiver may have given up.
            let _ = sender.send(result.map(|_| line));
        });
        let line = receiver
            .recv_timeout(PATIENCE)
            .map_err(because("wait for a port line"))?;
        let line = line.map_err(because("read a port line"))?;
        self.port = line
            .trim()
            .parse()
            .map_err(because(format!("read {line:?} as a port")))?;
        Ok(())
    }

    fn await_port(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended with {status}"));
            }
            if Instant::now() > deadline {
                return Err("does not listen".to_owned());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A failure with the last thing the server said.
    pub fn explain(&self, why: &str) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        match text.lines().last() {
            Some(line) => format!("{line} ({why})"),
            None => why.to_owned(),
        }
    }

    fn pid(&self) -> Pid {
        pid(&self.child)
    }

    /// Takes the present state, after the first connections, as the one without
    /// any: once the number of processes has not changed for a while.
    pub fn rest(&mut self) {
        let (deadline, mut last, mut same) = (Instant::now() + PATIENCE, 0, 0);
        while same < 20 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            let now = self.group.processes(self.pid()).len();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        self.at_rest = last;
    }

    /// Processor time so far, read once all connections are done with: no more
    /// processes than at rest, and no more time taken.
    pub fn cpu(&self) -> Outcome<Duration> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            let now = self
                .group
                .cpu(self.pid())
                .map_err(because("read the accounting"))?;
            let processes = self.group.processes(self.pid()).len();
            if processes <= self.at_rest && before == Some(now) {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{processes} processes where {} were at rest",
                    self.at_rest
                ));
            }
            before = Some(now);
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Kilobytes of proportional memory of all its processes.
    pub fn memory(&self) -> Outcome<u64> {
        self.group
            .memory(self.pid())
            .map_err(because("read smaps_rollup"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = self.pid();
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(1);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        RUNNING
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|&running| running != group);
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Further variables. ucspi-ssl insists on anchors, and its compiled-in paths
/// need not exist; empty values turn the rest of them off.
fn extras(kind: Kind, ground: &Ground) -> Vec<(&'static str, PathBuf)> {
    if kind == Kind::Mailfront {
        return vec![("UCSPITLS", PathBuf::new())];
    }
    if kind != Kind::UcspiSsl {
        return Vec::new();
    }
    let mut extras = vec![("CAFILE", ground.credentials.ca.clone())];
    extras.extend(["CADIR", "CCAFILE", "DHFILE"].map(|name| (name, PathBuf::new())));
    extras
}

fn arguments(
    kind: Kind,
    ground: &Ground,
    key: Key,
    port: u16,
    program: &[String],
) -> Outcome<Vec<String>> {
    let certificate = ground.credentials.certificate(key).display().to_string();
    let secret = ground.credentials.key(key).display().to_string();
    let tcpserver_way = [
        "-1",
        "-H",
        "-R",
        "-l",
        "localhost",
        "-c",
        LIMIT,
        "-b",
        "100",
        "127.0.0.1",
        "0",
    ];
    let s6_way = ["-1", "-c", LIMIT, "-b", "100", "--", "127.0.0.1", "0"];
    let mut program = program.to_vec();
    let mut before: Vec<String> = match kind {
        Kind::S6 => s6_way.map(str::to_owned).into(),
        Kind::Delayed
        | Kind::Handoff
        | Kind::Mailfront
        | Kind::Sslserver
        | Kind::Tcpserver
        | Kind::UcspiSsl => tcpserver_way.map(str::to_owned).into(),
        Kind::Socat => {
            let listen = format!(
                "OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=100,cert={certificate},key={secret},verify=0"
            );
            return Ok(vec![listen, format!("EXEC:{}", program.join(" "))]);
        }
        Kind::Stunnel => {
            let path = ground.directory.join(format!("stunnel.{port}.conf"));
            // Errors only, as the others are quiet too.
            let text = format!(
                "foreground = yes\npid =\nsyslog = no\ndebug = 3\n[bench]\naccept = 127.0.0.1:{port}\n\
                 cert = {certificate}\nkey = {secret}\nexec = {}\nexecArgs = {}\n",
                program[0],
                program.join(" "),
            );
            fs::write(&path, text).map_err(because("write a configuration"))?;
            return Ok(vec![path.display().to_string()]);
        }
    };
    if kind == Kind::Handoff {
        let handoff = env!("CARGO_BIN_EXE_starttls-handoff");
        program.splice(..0, [handoff, "smtp"].map(str::to_owned));
    } else if kind == Kind::Mailfront {
        program.push("starttls-ucspi".to_owned());
    }
    if matches!(kind, Kind::Delayed | Kind::Handoff | Kind::Mailfront) {
        before.insert(0, "-n".to_owned());
    }
    before.extend(program);
    Ok(before)
}
