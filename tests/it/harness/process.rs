//! Child processes with a deadline, and what /proc tells about them.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// How long anything may take that is not a matter of seconds by its nature:
/// generous, since only a failure waits for its end.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is something to see.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// However a test ends, its load does: a thread of a scope that goes on until this
/// is true would else keep a failure from being told.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `start` where descriptors are a copy of this process's: one that a child
/// is to inherit loses its close-on-exec there, and the children of other tests,
/// started at the same moment, do not get it.
pub fn with_own_descriptors<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    let own = || {
        unshare(CloneFlags::CLONE_FILES).unwrap();
        start()
    };
    thread::scope(|scope| scope.spawn(own).join()).unwrap()
}

/// Runs `start` where the kernel refuses every filter of system calls, as some
/// containers and kernels do: a filter of this thread's own, which what it
/// starts inherits, answers for it.
pub fn without_filters<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    const MODE_FILTER: u64 = 2;
    let refused = SeccompRule::new(vec![
        SeccompCondition::new(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            libc::PR_SET_SECCOMP.cast_unsigned().into(),
        )
        .unwrap(),
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, MODE_FILTER).unwrap(),
    ])
    .unwrap();
    let calls = BTreeMap::from([
        (libc::SYS_seccomp, Vec::new()),
        (libc::SYS_prctl, vec![refused]),
    ]);
    let filter: BpfProgram = SeccompFilter::new(
        calls,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap()
    .try_into()
    .unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            start()
        });
        thread.join().unwrap()
    })
}

/// How a child ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless it ended with `code` and said one line that holds `part`.
    pub fn failed(&self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(
            self.stderr.contains(part),
            "{part:?} not in {}",
            self.stderr
        );
    }
}

/// Waits for a child, at most [`PATIENCE`] by default; kills its group then.
pub fn wait(child: &mut Child, patience: Duration) -> ExitStatus {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            kill_group(child.id());
            panic!("still running after {patience:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command in a process group of its own, feeds it `input`, and waits for
/// its end. A panic of the child fails the test.
pub fn run(command: &mut Command, input: &[u8]) -> Finished {
    run_within(command, input, PATIENCE)
}

/// [`run`] with another deadline.
pub fn run_within(command: &mut Command, input: &[u8], patience: Duration) -> Finished {
    let mut child = heard(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = thread::spawn(move || {
        // A child that does not read its input is no failure of the test.
        let _ = stdin.write_all(&input);
    });
    let finished = finish(child, patience);
    feeder.join().unwrap();
    finished
}

/// [`run`] with a descriptor 0 that the command has already.
pub fn run_on(command: &mut Command) -> Finished {
    finish(heard(command), PATIENCE)
}

/// Starts a command whose output somebody reads.
fn heard(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn finish(mut child: Child, patience: Duration) -> Finished {
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child, patience);
    let finished = Finished {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
    };
    kill_group(child.id());
    no_panic(&finished.stderr);
    assert!(!panicked(status), "a panic: {}", finished.stderr);
    finished
}

fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// How a panic ends a program: with SIGABRT as it is installed, with code 101 as
/// cargo builds it for tests.
pub fn panicked(status: ExitStatus) -> bool {
    status.code() == Some(101) || status.signal() == Some(libc::SIGABRT)
}

/// Fails where a program of ours has panicked.
pub fn no_panic(log: &str) {
    assert!(!log.contains("panicked"), "a panic: {log}");
    for line in log.lines() {
        let status = line
            .rsplit_once(" status ")
            .and_then(|(_, status)| status.parse().ok());
        let panicked = status.is_some_and(|status| panicked(ExitStatus::from_raw(status)));
        assert!(!panicked, "a panic: {log}");
    }
}

/// Ends a process group; that it is gone already is no error.
pub fn kill_group(leader: u32) {
    let _ = killpg(Pid::from_raw(leader.cast_signed()), Signal::SIGKILL);
}

/// One line of /proc/PID/stat.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub state: char,
}

/// Every process that belongs to the group, zombies too, but for those that init
/// has to reap: when it does is its own matter, and may take seconds.
pub fn group(leader: u32) -> Vec<Process> {
    let leader = leader.cast_signed();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if let Some(process) = process(pid) {
            if process.group == leader && !(process.state == 'Z' && process.parent == 1) {
                found.push(process);
            }
        }
    }
    found
}

/// What /proc says about a process, if there is one.
pub fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some(Process {
        pid,
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

/// The pids of [`group`].
pub fn pids(leader: u32) -> BTreeSet<i32> {
    group(leader).iter().map(|one| one.pid).collect()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A field of /proc/PID/status, or of a text of that form.
pub fn status_field(status: &str, name: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")))
        .unwrap_or_else(|| panic!("no {name} in {status}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Fails unless /proc/self/status shows default handling and an empty mask.
pub fn default_signals(status: &str) {
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        let bits = u64::from_str_radix(&status_field(status, field), 16).unwrap();
        // glibc's posix_spawn(3), which starts the tests' children, leaves its own
        // signals 32 and 33 ignored, and no program can change that.
        assert_eq!(bits & !0x1_8000_0000, 0, "{field}: {status}");
    }
}

/// Words that run the rest as a user that nothing else runs as: no other test of this
/// run, nor what a killed run of the tests has left behind.
pub fn as_user_of_its_own() -> Vec<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    const USERS: u32 = 64;
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    assert!(number < USERS, "more users than there is room for");
    let user = 100_000 + std::process::id() % 20_000 * USERS + number;
    vec![
        "setpriv".to_owned(),
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--clear-groups".to_owned(),
    ]
}
