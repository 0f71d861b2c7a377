//! What a part turns at beneath a running server: its clock, its limits, the
//! reader of its log.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;

use crate::harness::{Place, Server, Setup, program};

/// The words before a server that has a shell do something first.
pub fn shell(script: &str) -> [String; 4] {
    let script = format!("{script}; exec \"$@\"");
    ["/bin/sh", "-c", &script, "sh"].map(str::to_owned)
}

/// Sets a limit of a process that runs, as prlimit(1) has it, for whatever it
/// forks from now on, too.
pub fn limit(server: &Server, what: &str) {
    let prlimit = program("prlimit").expect("prlimit is not installed");
    let pid = server.pid().to_string();
    let set = Command::new(prlimit).args(["--pid", &pid, what]).status();
    assert!(set.unwrap().success(), "prlimit {what}");
}

/// Starts a server whose log goes into a pipe; gives the end to read it from.
pub fn piped(place: &Place, setup: Setup<'_>) -> (Server, fs::File) {
    let pipe = place.text("pipe");
    nix::unistd::mkfifo(Path::new(&pipe), Mode::from_bits_truncate(0o600)).unwrap();
    // Both ends, so that neither waits for the other.
    let reader = fs::File::options().read(true).write(true).open(&pipe);
    let server = setup.through(shell(&format!("exec 2>{pipe}"))).start();
    // From here on the server's processes alone write.
    let only = fs::File::open(&pipe);
    drop(reader);
    (server, only.unwrap())
}

/// One that reads a log to its end, but for the times in which it is stuck.
pub struct LogReader {
    stuck: Arc<Mutex<Vec<Stuck>>>,
    reads: JoinHandle<Log>,
}

/// A time in which nobody read a log.
#[derive(Clone, Copy)]
struct Stuck {
    from: Instant,
    until: Instant,
}

/// What was read of a log.
pub struct Log {
    pub text: String,
    /// Up to which byte there was what, at which time.
    read: Vec<(usize, Instant)>,
    stuck: Vec<Stuck>,
}

/// Lines that a log has not, as it says itself.
pub struct Missing {
    /// When they would have been written.
    from: Instant,
    until: Instant,
    pub lines: usize,
}

impl Missing {
    /// Whether a line of that time may be among them.
    pub fn meets(&self, at: Instant) -> bool {
        self.from <= at && at <= self.until
    }
}

impl Log {
    /// What the log says that it lost while it was not read. What it lost at another
    /// time is nothing that a reader is to blame for.
    pub fn missing(&self) -> Vec<Missing> {
        /// Until a server whose log is read again has written what it kept.
        const REST: Duration = Duration::from_secs(1);
        let mut missing = Vec::new();
        let mut end = 0;
        for line in self.text.split_inclusive('\n') {
            end += line.len();
            let Some(lines) = lines_lost(line) else {
                continue;
            };
            let Some((_, read)) = self.read.iter().find(|(upto, _)| end <= *upto) else {
                continue;
            };
            if let Some(stuck) = self.stuck.iter().rev().find(|stuck| stuck.from < *read) {
                missing.push(Missing {
                    from: stuck.from,
                    until: stuck.until + REST,
                    lines,
                });
            }
        }
        missing
    }
}

/// How many lines a line says were lost because nobody read the log.
fn lines_lost(line: &str) -> Option<usize> {
    let said = line.strip_prefix("sslserver: warning: ")?;
    let (count, rest) = said.split_once(" log line")?;
    let is_it = rest.ends_with(" lost: the log's reader was too slow\n");
    is_it.then_some(count.parse().ok()?)
}

impl LogReader {
    pub fn of(mut pipe: fs::File) -> LogReader {
        let stuck = Arc::new(Mutex::new(Vec::<Stuck>::new()));
        let all = Arc::clone(&stuck);
        let reads = thread::spawn(move || {
            let (mut log, mut read) = (Vec::new(), Vec::new());
            let mut piece = [0; 8192];
            loop {
                let until = all.lock().unwrap().last().map(|stuck| stuck.until);
                let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
                thread::sleep(rest.unwrap_or_default());
                match pipe.read(&mut piece) {
                    Ok(0) => break,
                    Ok(count) => log.extend(&piece[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => panic!("the log: {error}"),
                }
                read.push((log.len(), Instant::now()));
            }
            // The programs write bytes of ASCII, as our own do: places stay.
            Log {
                text: String::from_utf8_lossy(&log).into_owned(),
                read,
                stuck: all.lock().unwrap().clone(),
            }
        });
        LogReader { stuck, reads }
    }

    /// Has it read nothing for so long.
    pub fn sticks(&self, time: Duration) {
        let from = Instant::now();
        let until = from + time;
        let mut all = self.stuck.lock().unwrap();
        match all.last_mut() {
            // It still does.
            Some(last) if last.until >= from => last.until = until.max(last.until),
            _ => all.push(Stuck { from, until }),
        }
    }

    /// All of it, once no process has the other end.
    pub fn all(self) -> Log {
        self.reads.join().unwrap()
    }
}

/// The clock of the day that a server and its processes go by. The monotonic one
/// stays: nothing sets that.
pub struct Clock(fs::File);

impl Clock {
    /// Has a server go by a clock of its own, which shows the machine's time for
    /// now.
    ///
    /// # Panics
    /// Where there is no C compiler.
    pub fn under<'a>(place: &'a Place, setup: Setup<'a>) -> (Clock, Setup<'a>) {
        let (library, file) = (place.text("clock.so"), place.text("clock"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/soak/clock.c");
        let made = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o", &library, source, "-ldl"])
            .status();
        assert!(made.unwrap().success(), "cc {source}");
        let clock = Clock(fs::File::create(&file).unwrap());
        clock.set(0);
        let setup = setup.env("LD_PRELOAD", library).env("SOAK_CLOCK", file);
        (clock, setup)
    }

    /// So many seconds ahead of the machine's, or behind.
    pub fn set(&self, seconds: i64) {
        use std::os::unix::fs::FileExt as _;
        self.0.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

/// Processes that may have so much memory together: a control group, of either
/// version.
pub struct MemoryGroup {
    folder: PathBuf,
    limit: &'static str,
    used: &'static str,
}

impl MemoryGroup {
    /// An empty one without a limit; none where this system or user has no such
    /// thing.
    pub fn new() -> Option<MemoryGroup> {
        let versions = [
            ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            ("", "memory.max", "memory.current"),
        ];
        let all = Path::new("/sys/fs/cgroup");
        versions.into_iter().find_map(|(place, limit, used)| {
            let folder = all.join(place).join(format!("soak-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let group = MemoryGroup {
                folder,
                limit,
                used,
            };
            group.folder.join(limit).exists().then_some(group)
        })
    }

    /// What a shell does to be in it, and all of its children.
    pub fn join(&self) -> String {
        format!("echo $$ >{}/cgroup.procs", self.folder.display())
    }

    /// Bytes that its processes have.
    pub fn used(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.used)).unwrap();
        text.trim_end().parse().unwrap()
    }

    /// So many bytes at most.
    pub fn limit(&self, bytes: u64) {
        fs::write(self.folder.join(self.limit), bytes.to_string()).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its last processes may be ending.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
