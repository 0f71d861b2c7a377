//! The filter of system calls: every call that a process may make, each with its
//! reason, and the program for the kernel that is made of the list.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::Process;
use crate::report::Fail;

/// arm has only the call that counts in pages.
#[cfg(target_arch = "arm")]
const MMAP: libc::c_long = libc::SYS_mmap2;
#[cfg(not(target_arch = "arm"))]
const MMAP: libc::c_long = libc::SYS_mmap;

/// Sets of processes, as [`CALLS`] needs them.
const ENGINES: &[Process] = &[
    Process::Engine,
    Process::Client,
    Process::Remote,
    Process::Fetcher,
];
const KEYHOLDER: &[Process] = &[Process::Keyholder];
const REMOTE: &[Process] = &[Process::Remote];
const CALLERS: &[Process] = &[Process::Remote, Process::Fetcher];
const ALL: &[Process] = &[
    Process::Engine,
    Process::Client,
    Process::Keyholder,
    Process::Remote,
    Process::Fetcher,
];

/// What an argument of a call must be.
#[derive(Clone, Copy, Debug)]
enum Argument {
    /// Anything goes.
    Any,
    /// Argument `.0` is one of `.1`.
    Among(u8, &'static [u64]),
    /// Each of these arguments is this.
    Exactly(&'static [(u8, u64)]),
    /// Argument `.0` has none of the bits `.1`.
    Without(u8, u64),
}

/// One call that is allowed.
struct Call {
    number: libc::c_long,
    processes: &'static [Process],
    only: Argument,
    /// Why; the documentation is held against it.
    #[allow(dead_code, reason = "for whoever reads or prints the list")]
    reason: &'static str,
}

const fn call(
    number: libc::c_long,
    processes: &'static [Process],
    only: Argument,
    reason: &'static str,
) -> Call {
    Call {
        number,
        processes,
        only,
        reason,
    }
}

/// `PROT_EXEC` as an argument.
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// A request of ioctl(2): libc types them by the C library.
#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
const UNSENT: u64 = libc::TIOCOUTQ as u64;

/// The one list that every filter is made from. Whatever is not in it ends the
/// process. A call may stand in it twice if neither allows any arguments.
#[rustfmt::skip]
const CALLS: &[Call] = &[
    call(libc::SYS_read, ENGINES, Argument::Any, "the program's output; the control socket of delayed TLS"),
    call(libc::SYS_write, ALL, Argument::Any, "the program's input, the verdict, the log"),
    call(libc::SYS_recvfrom, ALL, Argument::Any, "the peer's bytes; requests and answers of the keyholder"),
    call(libc::SYS_sendto, ALL, Argument::Any, "bytes to the peer; requests and answers of the keyholder"),
    call(libc::SYS_recvmsg, KEYHOLDER, Argument::Any, "a new connection's link comes with a descriptor"),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_poll, ALL, Argument::Any, "waiting"),
    call(libc::SYS_ppoll, ALL, Argument::Any, "waiting, where poll is made of it"),
    call(libc::SYS_shutdown, ALL, Argument::Any, "the half-close behind close_notify; a link that has had its signature"),
    call(libc::SYS_close, ALL, Argument::Any, "pipes and links that are done with"),
    call(libc::SYS_socket, CALLERS, Argument::Among(0, &[libc::AF_INET as u64, libc::AF_INET6 as u64]), "the next server"),
    call(libc::SYS_bind, REMOTE, Argument::Any, "the sender's own address"),
    call(libc::SYS_connect, CALLERS, Argument::Any, "the next server"),
    call(libc::SYS_setsockopt, CALLERS, Argument::Among(1, &[libc::SOL_SOCKET as u64, libc::SOL_TCP as u64]), "no waiting for more to send; an address that was just in use"),
    call(libc::SYS_getsockname, REMOTE, Argument::Any, "the address that a server was called from, for TLS reports"),
    call(libc::SYS_lseek, REMOTE, Argument::Any, "the message again, for the next server"),
    call(libc::SYS_ioctl, ENGINES, Argument::Among(1, &[UNSENT]), "whether the peer has got everything"),
    call(libc::SYS_getsockopt, ENGINES, Argument::Exactly(&[(1, libc::SOL_TCP as u64), (2, libc::TCP_INFO as u64)]), "whether the peer has got everything"),
    call(libc::SYS_getsockopt, CALLERS, Argument::Exactly(&[(1, libc::SOL_SOCKET as u64), (2, libc::SO_ERROR as u64)]), "how connecting ended"),
    call(libc::SYS_fcntl, ALL, Argument::Among(1, &[libc::F_GETFL as u64, libc::F_SETFL as u64, libc::F_GETFD as u64]), "pipes that never wait; a debug build looks before it closes"),
    call(libc::SYS_wait4, &[Process::Client], Argument::Any, "the exit code of the program"),
    call(libc::SYS_sigaltstack, &[Process::Client, Process::Remote, Process::Fetcher], Argument::Any, "Rust's run-time takes its signal stack down at the end"),
    call(libc::SYS_getpid, ALL, Argument::Any, "libcrypto asks whether it was forked; the log names the process"),
    call(libc::SYS_getrandom, ALL, Argument::Any, "randomness"),
    call(libc::SYS_brk, ALL, Argument::Any, "memory"),
    call(MMAP, ALL, Argument::Without(2, EXECUTABLE), "memory, never executable"),
    call(libc::SYS_mprotect, ALL, Argument::Without(2, EXECUTABLE), "memory of musl's allocator, never executable"),
    call(libc::SYS_munmap, ALL, Argument::Any, "memory given back"),
    call(libc::SYS_mremap, ALL, Argument::Any, "large buffers that grow"),
    call(libc::SYS_madvise, ALL, Argument::Any, "idle buffers given back"),
    call(libc::SYS_futex, ALL, Argument::Any, "libcrypto's run-once and locks"),
    call(libc::SYS_clock_gettime, ALL, Argument::Any, "time, where the kernel maps no clock"),
    call(libc::SYS_gettimeofday, ALL, Argument::Any, "time, where the kernel maps no clock"),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_time, ALL, Argument::Any, "time, where the kernel maps no clock"),
    call(libc::SYS_rt_sigreturn, ALL, Argument::Any, "the end of a signal's handler"),
    call(libc::SYS_restart_syscall, ALL, Argument::Any, "a wait that a stop interrupted"),
    call(libc::SYS_exit, ALL, Argument::Any, "the end"),
    call(libc::SYS_exit_group, ALL, Argument::Any, "the end"),
];

/// A filter, for the kernel.
pub(super) type Filter = BpfProgram;

/// The filter of a process.
pub(super) fn filter(process: Process) -> Result<Filter, Fail> {
    let mut rules: BTreeMap<u32, Vec<SeccompRule>> = BTreeMap::new();
    for call in CALLS
        .iter()
        .filter(|call| call.processes.contains(&process))
    {
        let number = u32::try_from(call.number)
            .map_err(|_| format!("no call has the number {}", call.number))?;
        let allowed = arguments(&call.only).map_err(|error| error.to_string())?;
        rules.entry(number).or_default().extend(allowed);
    }
    // It begins as every program of seccompiler's: with the architecture. One that allows
    // nothing has its answer behind that.
    let mut program = compile(BTreeMap::new())?;
    program.pop();
    let mut checks: Vec<BpfProgram> = Vec::new();
    let mut calls = Vec::new();
    for (number, rules) in rules {
        if rules.is_empty() {
            calls.push((number, Goal::Allow));
            continue;
        }
        let whole = compile(BTreeMap::from([(number.into(), rules)]))?;
        let check = whole.strip_prefix(&*program);
        calls.push((number, Goal::Check(checks.len())));
        checks.push(check.ok_or("made by another compiler")?.to_vec());
    }
    program.push(statement(LOAD, NUMBER));
    let mut tree = Vec::new();
    search(&mut tree, &calls);
    program.extend(assemble(&tree, &checks)?);
    program.extend([RET_KILL, RET_ALLOW].map(|answer| statement(RET, answer)));
    program.extend(checks.into_iter().flatten());
    Ok(program)
}

/// What the arguments of a call must be, one of these; nothing where anything goes.
fn arguments(only: &Argument) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    // Each of them is an int for the kernel, which does not look at the upper half.
    let condition = |argument, operator, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    match *only {
        Argument::Any => Ok(Vec::new()),
        Argument::Among(argument, values) => {
            let rule = |value: &u64| {
                SeccompRule::new(vec![condition(argument, SeccompCmpOp::Eq, *value)?])
            };
            values.iter().map(rule).collect()
        }
        Argument::Exactly(arguments) => {
            let each = arguments.iter();
            let each = each.map(|(argument, value)| condition(*argument, SeccompCmpOp::Eq, *value));
            Ok(vec![SeccompRule::new(each.collect::<Result<_, _>>()?)?])
        }
        Argument::Without(argument, bits) => {
            let none = condition(argument, SeccompCmpOp::MaskedEq(bits), 0)?;
            Ok(vec![SeccompRule::new(vec![none])?])
        }
    }
}

/// seccompiler's program for some calls.
fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Result<BpfProgram, Fail> {
    let architecture: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|_| format!("not known for {}", std::env::consts::ARCH))?;
    let (other, allowed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    SeccompFilter::new(rules, other, allowed, architecture)
        .and_then(TryInto::try_into)
        .map_err(|error: seccompiler::BackendError| error.to_string().into())
}

/// `struct seccomp_data` begins with the call's number.
const NUMBER: u32 = 0;
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IS_FROM: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RET: u32 = libc::BPF_RET | libc::BPF_K;
const RET_KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const RET_ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Where the search for a call's number goes on.
#[derive(Clone, Copy)]
enum Goal {
    Next,
    /// This step of it.
    Step(usize),
    Kill,
    Allow,
    /// The check of the call's arguments.
    Check(usize),
}

/// A comparison with the call's number: `IS` or `IS_FROM`.
struct Step {
    code: u32,
    number: u32,
    then: Goal,
    otherwise: Goal,
}

/// How many calls are compared one by one.
const CHAIN: usize = 4;

/// A binary search, whose last steps are chains. When a filter is installed, which every
/// engine does, the kernel translates it twice, and runs it for every number there is:
/// that is a part of what a connection costs, and as long as the program and its paths.
fn search(steps: &mut Vec<Step>, calls: &[(u32, Goal)]) {
    let at = steps.len();
    if calls.len() <= CHAIN {
        let chain = calls.iter().map(|&(number, then)| Step {
            code: IS,
            number,
            then,
            otherwise: Goal::Next,
        });
        steps.extend(chain);
        if let Some(last) = steps.last_mut() {
            last.otherwise = Goal::Kill;
        }
        return;
    }
    let (low, high) = calls.split_at(calls.len() / 2);
    steps.push(Step {
        code: IS_FROM,
        number: high[0].0,
        then: Goal::Next,
        otherwise: Goal::Next,
    });
    search(steps, low);
    steps[at].then = Goal::Step(steps.len());
    search(steps, high);
}

/// The search as the kernel reads it; behind it come an end that kills, one that
/// allows, and the checks.
fn assemble(steps: &[Step], checks: &[BpfProgram]) -> Result<BpfProgram, Fail> {
    let kill = steps.len();
    let assemble = |(at, step): (usize, &Step)| {
        let jump = |goal| {
            let goal = match goal {
                Goal::Next => at + 1,
                Goal::Step(step) => step,
                Goal::Kill => kill,
                Goal::Allow => kill + 1,
                Goal::Check(check) => {
                    kill + 2 + checks[..check].iter().map(Vec::len).sum::<usize>()
                }
            };
            u8::try_from(goal - at - 1).map_err(|_| Fail::from("it is too long"))
        };
        Ok(sock_filter {
            jt: jump(step.then)?,
            jf: jump(step.otherwise)?,
            ..statement(step.code, step.number)
        })
    };
    steps.iter().enumerate().map(assemble).collect()
}

/// An instruction of bpf(4).
fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt: 0,
        jf: 0,
        k,
    }
}

/// Whether the kernel knows what our filters answer.
pub(super) fn is_known() -> io::Result<()> {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the kernel reads four bytes through the pointer, which is valid
    // for the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub(super) fn install(filter: &Filter) -> io::Result<()> {
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_a_filter_and_every_call_a_reason() {
        for process in ALL {
            // What every engine installs is short: see `search`.
            let most = if *process == Process::Engine {
                110
            } else {
                150
            };
            let length = filter(*process).map_or(0, |program| program.len());
            assert!((20..most).contains(&length), "{process:?}: {length}");
        }
        for call in CALLS {
            assert!(!call.reason.is_empty() && !call.processes.is_empty());
            for process in call.processes {
                let same = CALLS.iter().filter(|other| {
                    other.number == call.number && other.processes.contains(process)
                });
                let alone = same.count() == 1;
                // One that allows everything would lose that to the other.
                let narrow = !matches!(call.only, Argument::Any);
                assert!(alone || narrow, "{} stands twice", call.number);
            }
        }
    }

    /// What bpf(4) makes of a call, and in how many steps.
    fn run(program: &[sock_filter], data: &libc::seccomp_data) -> (u32, usize) {
        let words: Vec<u32> = [
            vec![data.nr.cast_unsigned(), data.arch],
            vec![0, 0],
            data.args
                .iter()
                .flat_map(|&word| [word & u64::from(u32::MAX), word >> 32])
                .map(|half| u32::try_from(half).unwrap_or_default())
                .collect(),
        ]
        .concat();
        let (mut at, mut steps, mut a) = (0, 0, 0);
        loop {
            let one = &program[at];
            at += 1;
            steps += 1;
            let taken = match u32::from(one.code) {
                LOAD => {
                    a = words[one.k as usize / 4];
                    continue;
                }
                code if code == libc::BPF_JMP | libc::BPF_JA => {
                    at += one.k as usize;
                    continue;
                }
                libc::BPF_RET => return (one.k, steps),
                code if code == libc::BPF_ALU | libc::BPF_AND => {
                    a &= one.k;
                    continue;
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ => a == one.k,
                code if code == libc::BPF_JMP | libc::BPF_JGE => a >= one.k,
                code => panic!("an instruction that is not expected: {code:#x}"),
            };
            at += usize::from(if taken { one.jt } else { one.jf });
        }
    }

    #[test]
    fn the_tree_says_what_the_list_says() {
        let arch = match std::env::consts::ARCH {
            "x86_64" => 0xc000_003e,
            "aarch64" => 0xc000_00b7,
            "riscv64" => 0xc000_00f3,
            other => panic!("what is the AUDIT_ARCH of {other}?"),
        };
        for process in ALL {
            let program = filter(*process).expect("a filter");
            let decide = |nr, arch, args| {
                let (action, steps) = run(
                    &program,
                    &libc::seccomp_data {
                        nr,
                        arch,
                        instruction_pointer: 0,
                        args,
                    },
                );
                (action == libc::SECCOMP_RET_ALLOW, steps)
            };
            let number = |nr: i32| libc::c_long::from(nr);
            let listed = |nr| CALLS.iter().filter(move |call| call.number == number(nr));
            for nr in (-1..600).chain([0x4000_0000, i32::MAX]) {
                for args in [[0; 6], [u64::MAX; 6]] {
                    let wanted = listed(nr).any(|call| {
                        call.processes.contains(process)
                            && match call.only {
                                Argument::Any => true,
                                Argument::Among(at, values) => {
                                    values.contains(&args[usize::from(at)])
                                }
                                Argument::Exactly(all) => all
                                    .iter()
                                    .all(|(at, value)| args[usize::from(*at)] == *value),
                                Argument::Without(at, bits) => args[usize::from(at)] & bits == 0,
                            }
                    });
                    let (allowed, steps) = decide(nr, arch, args);
                    assert_eq!(allowed, wanted, "{process:?} {nr} {args:?}");
                    assert!(steps < 30, "{process:?} {nr}: {steps} steps");
                    assert!(!decide(nr, arch ^ 1, args).0, "{process:?} {nr}");
                }
                // The values that are allowed are, one by one.
                for call in listed(nr).filter(|call| call.processes.contains(process)) {
                    let mut args = [1; 6];
                    match call.only {
                        Argument::Among(at, values) => {
                            for value in values {
                                args[usize::from(at)] = *value;
                                assert!(decide(nr, arch, args).0, "{process:?} {nr} {args:?}");
                            }
                        }
                        Argument::Exactly(all) => {
                            for (at, value) in all {
                                args[usize::from(*at)] = *value;
                            }
                            assert!(decide(nr, arch, args).0, "{process:?} {nr} {args:?}");
                        }
                        Argument::Any | Argument::Without(..) => {}
                    }
                }
            }
        }
    }
}
