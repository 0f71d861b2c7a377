//! What a server cost: the kernel's accounting of all its processes, from a
//! control group where one can be made, and their proportional memory.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// How processor time is accounted for.
#[derive(Clone, Debug)]
pub enum Accounting {
    /// Groups below this directory of a version 1 `cpuacct` hierarchy.
    Cpuacct(PathBuf),
    /// Groups below this directory of the unified (version 2) hierarchy.
    Unified(PathBuf),
    /// No group can be made: the times of a server's live processes, and those
    /// that the kernel added to each when it waited for a child.
    Waited,
}

impl Accounting {
    /// Takes the first kind that works, after trying it on a process; only one
    /// named `only`, if that is given.
    pub fn detect(only: Option<&str>) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, point, kind, options, ..] = fields[..] else {
                continue;
            };
            let made: fn(PathBuf) -> Accounting = match kind {
                "cgroup" if options.split(',').any(|word| word == "cpuacct") => Accounting::Cpuacct,
                "cgroup2" => Accounting::Unified,
                _ => continue,
            };
            // In a container the path of our own group may not exist below
            // the mount point, which then is that group itself.
            let path = own_group(&own, kind == "cgroup2").unwrap_or_default();
            let candidates = [
                Path::new(point).join(path.trim_start_matches('/')),
                PathBuf::from(point),
            ];
            for directory in candidates {
                let accounting = made(directory);
                if only.is_none_or(|only| only == accounting.name()) && accounting.works() {
                    return Some(accounting);
                }
            }
        }
        Some(Accounting::Waited).filter(|waited| only.is_none_or(|only| only == waited.name()))
    }

    fn name(&self) -> &'static str {
        match self {
            Accounting::Cpuacct(_) => "cpuacct",
            Accounting::Unified(_) => "unified",
            Accounting::Waited => "waited",
        }
    }

    fn works(&self) -> bool {
        let Ok(group) = self.group("probe") else {
            return false;
        };
        let Some(procs) = group.procs() else {
            return false;
        };
        let entered = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$1\"", "sh"])
            .arg(procs)
            .stderr(Stdio::null())
            .status();
        entered.is_ok_and(|status| status.success()) && group.cpu(Pid::this()).is_ok()
    }

    /// One line for the report.
    pub fn describe(&self) -> String {
        match self {
            Accounting::Cpuacct(at) => {
                format!("a cpuacct group per server, below {}", at.display())
            }
            Accounting::Unified(at) => {
                format!("a unified group per server, below {}", at.display())
            }
            Accounting::Waited => {
                "without control groups: live processes and waited-for children, in ticks of 10 ms"
                    .to_owned()
            }
        }
    }

    /// Makes a group for one server.
    pub fn group(&self, name: &str) -> io::Result<Group> {
        let (below, usage) = match self {
            Accounting::Cpuacct(below) => (below, Usage::Nanoseconds),
            Accounting::Unified(below) => (below, Usage::Statistics),
            Accounting::Waited => {
                return Ok(Group {
                    directory: None,
                    usage: Usage::Ticks,
                });
            }
        };
        let directory = below.join(format!("{}{name}", prefix()));
        fs::create_dir(&directory)?;
        Ok(Group {
            directory: Some(directory),
            usage,
        })
    }

    /// Ends every group of this process, for when its values cannot be dropped.
    pub fn sweep(&self) {
        let (Accounting::Cpuacct(below) | Accounting::Unified(below)) = self else {
            return;
        };
        for entry in fs::read_dir(below).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix()) {
                drop(Group {
                    directory: Some(entry.path()),
                    usage: Usage::Ticks,
                });
            }
        }
    }
}

/// How the names of this process's groups begin.
fn prefix() -> String {
    format!("ucspi-tls-bench.{}.", std::process::id())
}

/// The path of our own group, as /proc/self/cgroup has it.
fn own_group(list: &str, unified: bool) -> Option<String> {
    list.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let wanted = if unified {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|word| word == "cpuacct")
        };
        wanted.then(|| path.to_owned())
    })
}

#[derive(Clone, Copy, Debug)]
enum Usage {
    Nanoseconds,
    Statistics,
    Ticks,
}

/// The processes of one server. Dropping it kills what is left of them.
#[derive(Debug)]
pub struct Group {
    directory: Option<PathBuf>,
    usage: Usage,
}

impl Group {
    /// The file a process writes its number to in order to enter.
    pub fn procs(&self) -> Option<PathBuf> {
        self.directory
            .as_ref()
            .map(|directory| directory.join("cgroup.procs"))
    }

    /// Processor time so far of every process that was ever in the group, or,
    /// without a group, of `root` and its descendants.
    pub fn cpu(&self, root: Pid) -> io::Result<Duration> {
        let read = |name: &str| match &self.directory {
            Some(directory) => fs::read_to_string(directory.join(name)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match self.usage {
            Usage::Nanoseconds => number(read("cpuacct.usage")?.trim()).map(Duration::from_nanos),
            Usage::Statistics => {
                let text = read("cpu.stat")?;
                let usage = text
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec "));
                number(usage.unwrap_or_default()).map(Duration::from_micros)
            }
            Usage::Ticks => {
                let per_second = sysconf(SysconfVar::CLK_TCK)?
                    .and_then(|n| u64::try_from(n).ok())
                    .unwrap_or(100);
                let ticks: u64 = tree(root).iter().map(|process| process.ticks).sum();
                Ok(Duration::from_micros(ticks * 1_000_000 / per_second))
            }
        }
    }

    /// The processes that live now.
    pub fn processes(&self, root: Pid) -> Vec<Pid> {
        match self.procs() {
            Some(procs) => {
                let text = fs::read_to_string(procs).unwrap_or_default();
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .map(Pid::from_raw)
                    .collect()
            }
            None => tree(root).iter().map(|process| process.pid).collect(),
        }
    }

    /// Kilobytes of proportional memory (shared pages divided by their users)
    /// of all processes that live now.
    pub fn memory(&self, root: Pid) -> io::Result<u64> {
        let mut sum = 0;
        for pid in self.processes(root) {
            let text = match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
                Ok(text) => text,
                // It ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            sum += number(pss.unwrap_or_default().trim().trim_end_matches(" kB"))?;
        }
        Ok(sum)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(directory) = &self.directory else {
            return;
        };
        // A group can be removed once its last process is gone, which takes
        // the kernel a moment.
        for _ in 0..200 {
            for pid in self.processes(Pid::from_raw(0)) {
                let _ = kill(pid, Signal::SIGKILL);
            }
            if fs::remove_dir(directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not a number: {text:?}"),
        )
    })
}

struct Process {
    pid: Pid,
    parent: Pid,
    ticks: u64,
}

/// `root` and all its descendants.
fn tree(root: Pid) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut all: Vec<Process> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter_map(process)
        .collect();
    let mut found: Vec<Process> = Vec::new();
    let mut wave = vec![root];
    while !wave.is_empty() {
        let (here, rest) = all
            .into_iter()
            .partition(|p| wave.contains(&p.pid) || wave.contains(&p.parent));
        all = rest;
        wave = here.iter().map(|p: &Process| p.pid).collect();
        found.extend(here);
    }
    found
}

/// Reads /proc/PID/stat; the name in it may hold anything, so count from its end.
fn process(pid: Pid) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // proc(5) numbers these 4 and 14 to 17; the first one left here is 3.
    let parent = Pid::from_raw(fields.get(1)?.parse().ok()?);
    let ticks = fields
        .get(11..15)?
        .iter()
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    Some(Process { pid, parent, ticks })
}
