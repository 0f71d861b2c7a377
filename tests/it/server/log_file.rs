//! The log is a plain file that cannot be written for a while, in the middle of a line:
//! clients are served, and what was said then is written later, or counted.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use super::log_reader::{STEPS, serve, step};
use crate::harness::{Place, Server, Setup, program, root, run, skip_part};

/// A log on a disk that can be filled.
enum Disk {
    /// Files of the server and its processes may not be longer than so much.
    Limit { prlimit: PathBuf, log: PathBuf },
    /// A small file system of the server's own.
    Small { folder: PathBuf },
}

impl Disk {
    fn log(&self) -> PathBuf {
        match self {
            Disk::Limit { log, .. } => log.clone(),
            Disk::Small { folder } => folder.join("log"),
        }
    }

    /// Leaves room for a part of a connection's lines at most; `room` bytes, where that
    /// can be said.
    fn fill(&self, server: &Server, room: u64) {
        match self {
            Disk::Limit { .. } => {
                let size = fs::metadata(self.log()).unwrap().len();
                self.limit(server, &(size + room).to_string());
            }
            Disk::Small { folder } => {
                let mut filler = File::create(folder.join("filler")).unwrap();
                while filler.write_all(&[0; 512]).is_ok() {}
            }
        }
    }

    fn empty(&self, server: &Server) {
        match self {
            Disk::Limit { .. } => self.limit(server, "unlimited"),
            Disk::Small { folder } => fs::remove_file(folder.join("filler")).unwrap(),
        }
    }

    fn limit(&self, server: &Server, most: &str) {
        if let Disk::Limit { prlimit, .. } = self {
            let mut command = Command::new(prlimit);
            let words = [
                "--pid",
                &server.pid().to_string(),
                &format!("--fsize={most}:"),
            ];
            let set = run(command.args(words), b"");
            assert_eq!(set.code, Some(0), "{}", set.stderr);
        }
    }

    /// All lines so far but for what was torn, which is told again as a whole behind it;
    /// and how many those were.
    fn lines(&self) -> (Vec<String>, usize) {
        let text = fs::read_to_string(self.log()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let all = lines.len();
        let next: Vec<String> = lines.iter().skip(1).cloned().collect();
        let mut next = next.into_iter();
        lines.retain(|line| !next.next().is_some_and(|next| next.starts_with(line)));
        // What a busy machine has among them.
        let torn = all - lines.len();
        lines.retain(|line| !line.contains("warning: keyholder "));
        (lines, torn)
    }
}

/// The disks that can be had here, each with a server that has served one client.
fn disks<'a>(place: &'a Place, setup: impl Fn() -> Setup<'a>) -> Vec<(Disk, Server)> {
    let mut disks = Vec::new();
    match program("prlimit") {
        Some(prlimit) => {
            let log = place.fresh("limited-log");
            let file = File::options().append(true).create(true).open(&log);
            let server = setup().stderr(file.unwrap()).start();
            disks.push((Disk::Limit { prlimit, log }, server));
        }
        None => skip_part!("prlimit is not installed"),
    }
    let mounts = run(Command::new("unshare").args(["-m", "true"]), b"");
    if root() && mounts.code == Some(0) {
        let folder = place.fresh("small");
        fs::create_dir(&folder).unwrap();
        let shown = folder.display();
        let script =
            format!("mount -t tmpfs -o size=1m none {shown} && exec \"$@\" 2>>{shown}/log");
        let server = setup()
            .through(["unshare", "-m", "/bin/sh", "-c", &script, "sh"])
            .start();
        let inside = format!("/proc/{}/root{shown}", server.pid());
        let folder = PathBuf::from(inside);
        disks.push((Disk::Small { folder }, server));
    } else {
        skip_part!("nobody can mount here");
    }
    for (_, server) in &disks {
        serve(server);
    }
    disks
}

#[test]
fn a_line_that_a_full_disk_tears_is_written_again_with_all_that_follow() {
    const MANY: usize = 12;
    let place = Place::new("full-log");
    for (disk, server) in disks(&place, || Setup::new(&place, &["cat"]).options("-V")) {
        let mut served = 1;
        // The first line is the supervisor's, the second its launcher's.
        for room in [10, 40] {
            disk.fill(&server, room);
            for _ in 0..MANY {
                serve(&server);
            }
            disk.empty(&server);
            serve(&server);
            served += MANY + 1;
            let (lines, torn) = disk.lines();
            assert!(torn > 0, "{lines:?}");
            for (count, line) in lines.iter().enumerate() {
                // The first one is that of a server without clients.
                let wanted = (count + STEPS.len() - 1) % STEPS.len();
                assert_eq!(step(line).0, wanted, "line {count}: {lines:?}");
            }
            assert_eq!(lines.len(), 1 + served * STEPS.len());
        }
        server.stop();
    }
}

/// What is kept has a bound here, too.
#[test]
fn lines_beyond_what_a_full_disk_lets_be_kept_are_counted() {
    // Each has thirty lines of a kilobyte more than the five of every connection.
    const MANY: usize = 4;
    const LINES: usize = 35;
    let place = Place::new("full-log-lost");
    let setup = || {
        let setup = Setup::new(&place, &["cat"]).options("-v");
        setup.taken_over("say-long")
    };
    for (disk, server) in disks(&place, setup) {
        disk.fill(&server, 10);
        for _ in 0..MANY {
            serve(&server);
        }
        disk.empty(&server);
        serve(&server);
        let (lines, torn) = disk.lines();
        assert_eq!(torn, 1);
        let lost: Vec<usize> = lines.iter().filter_map(|line| lost(line)).collect();
        let [lost] = lost[..] else {
            panic!("{lost:?} of {} lines", lines.len());
        };
        let all = 1 + (1 + MANY + 1) * LINES;
        // A busy machine has lines among them that are not counted here.
        let told = lines.len() - 1 + lost;
        assert!((all..all + MANY).contains(&told), "{told} of {all}");
        server.stop();
    }
}

/// How many lines this one says were lost, and that it says why.
fn lost(line: &str) -> Option<usize> {
    let line = line.strip_prefix("sslserver: warning: ")?;
    let (count, why) = line.split_once(" log lines were lost: ")?;
    let why = why.strip_prefix("unable to write to the log: ");
    assert!(
        matches!(why, Some("file too large" | "no space left on device")),
        "{line}"
    );
    Some(count.parse().unwrap())
}
