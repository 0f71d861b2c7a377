//! What the supervisor takes, by the kernel's account of it.
#![forbid(unsafe_code)]

use std::fs;

use crate::harness::Server;
use crate::harness::process::descriptors;

/// One look at a supervisor.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// What is its own, in KiB: what it shares depends on who else is there.
    pub memory: u64,
    pub descriptors: usize,
    /// Processor time so far, in nanoseconds.
    pub time: u64,
}

impl Gauge {
    pub fn of(server: &Server) -> Gauge {
        let pid = server.pid();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let memory = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        // The first number is the time on a processor: Documentation/scheduler/
        // sched-stats.rst of the kernel.
        let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        let time = stat.split_whitespace().next().and_then(|n| n.parse().ok());
        Gauge {
            memory: memory.expect("a size"),
            descriptors: descriptors(pid),
            time: time.expect("a time"),
        }
    }
}
