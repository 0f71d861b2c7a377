//! What a part turns at beneath a running server: its clock, its limits, the
//! reader of its log.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
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
    stuck: Arc<Mutex<Instant>>,
    reads: JoinHandle<String>,
}

impl LogReader {
    pub fn of(mut pipe: fs::File) -> LogReader {
        let stuck = Arc::new(Mutex::new(Instant::now()));
        let until = Arc::clone(&stuck);
        let reads = thread::spawn(move || {
            let mut log = Vec::new();
            let mut piece = [0; 8192];
            loop {
                let rest = until
                    .lock()
                    .unwrap()
                    .saturating_duration_since(Instant::now());
                thread::sleep(rest);
                match pipe.read(&mut piece) {
                    Ok(0) => break,
                    Ok(count) => log.extend(&piece[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => panic!("the log: {error}"),
                }
            }
            String::from_utf8_lossy(&log).into_owned()
        });
        LogReader { stuck, reads }
    }

    /// Has it read nothing for so long.
    pub fn sticks(&self, time: Duration) {
        *self.stuck.lock().unwrap() = Instant::now() + time;
    }

    /// All of it, once no process has the other end.
    pub fn all(self) -> String {
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
