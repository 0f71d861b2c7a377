//! What a process that reads a peer's bytes, or that holds keys, gives up: the
//! file system, new privileges, new processes, and every system call but those
//! of [`CALLS`], each of which stands there with its reason.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::unistd::{chdir, chroot};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::process;

/// Whose sandbox it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process between a client's socket and a program's pipes.
    Engine,
    /// The same of a client, which waits for its program besides.
    Client,
    /// The process with the keys.
    Keyholder,
    /// A delivery: it calls one server after the other, and its message and its
    /// report may be files.
    Remote,
}

/// Sets of roles, as [`CALLS`] needs them.
const ENGINES: &[Role] = &[Role::Engine, Role::Client, Role::Remote];
const KEYHOLDER: &[Role] = &[Role::Keyholder];
const REMOTE: &[Role] = &[Role::Remote];
const ALL: &[Role] = &[Role::Engine, Role::Client, Role::Keyholder, Role::Remote];

/// What an argument of a call must be.
#[derive(Clone, Copy, Debug)]
enum Only {
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
    roles: &'static [Role],
    only: Only,
    /// Why; the documentation is held against it.
    #[allow(dead_code, reason = "for whoever reads or prints the list")]
    reason: &'static str,
}

const fn call(
    number: libc::c_long,
    roles: &'static [Role],
    only: Only,
    reason: &'static str,
) -> Call {
    Call {
        number,
        roles,
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
    call(libc::SYS_read, ENGINES, Only::Any, "the program's output; the control socket of delayed TLS"),
    call(libc::SYS_write, ALL, Only::Any, "the program's input, the verdict, the log"),
    call(libc::SYS_recvfrom, ALL, Only::Any, "the peer's bytes; requests and answers of the keyholder"),
    call(libc::SYS_sendto, ALL, Only::Any, "bytes to the peer; requests and answers of the keyholder"),
    call(libc::SYS_recvmsg, KEYHOLDER, Only::Any, "a new connection's link comes with a descriptor"),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_poll, ALL, Only::Any, "waiting"),
    call(libc::SYS_ppoll, ALL, Only::Any, "waiting, where poll is made of it"),
    call(libc::SYS_shutdown, ALL, Only::Any, "the half-close behind close_notify; a link that has had its signature"),
    call(libc::SYS_close, ALL, Only::Any, "pipes and links that are done with"),
    call(libc::SYS_socket, REMOTE, Only::Among(0, &[libc::AF_INET as u64, libc::AF_INET6 as u64]), "the next server"),
    call(libc::SYS_bind, REMOTE, Only::Any, "the sender's own address"),
    call(libc::SYS_connect, REMOTE, Only::Any, "the next server"),
    call(libc::SYS_setsockopt, REMOTE, Only::Among(1, &[libc::SOL_SOCKET as u64, libc::SOL_TCP as u64]), "no waiting for more to send; an address that was just in use"),
    call(libc::SYS_lseek, REMOTE, Only::Any, "the message again, for the next server"),
    call(libc::SYS_ioctl, ENGINES, Only::Among(1, &[UNSENT]), "whether the peer has got everything"),
    call(libc::SYS_getsockopt, ENGINES, Only::Exactly(&[(1, libc::SOL_TCP as u64), (2, libc::TCP_INFO as u64)]), "whether the peer has got everything"),
    call(libc::SYS_getsockopt, REMOTE, Only::Exactly(&[(1, libc::SOL_SOCKET as u64), (2, libc::SO_ERROR as u64)]), "how connecting ended"),
    call(libc::SYS_fcntl, ALL, Only::Among(1, &[libc::F_GETFL as u64, libc::F_SETFL as u64, libc::F_GETFD as u64]), "pipes that never wait; a debug build looks before it closes"),
    call(libc::SYS_wait4, &[Role::Client], Only::Any, "the exit code of the program"),
    call(libc::SYS_sigaltstack, &[Role::Client, Role::Remote], Only::Any, "Rust's run-time takes its signal stack down at the end"),
    call(libc::SYS_getpid, ALL, Only::Any, "libcrypto asks whether it was forked; the log names the process"),
    call(libc::SYS_getrandom, ALL, Only::Any, "randomness"),
    call(libc::SYS_brk, ALL, Only::Any, "memory"),
    call(libc::SYS_mmap, ALL, Only::Without(2, EXECUTABLE), "memory, never executable"),
    call(libc::SYS_mprotect, ALL, Only::Without(2, EXECUTABLE), "memory of musl's allocator, never executable"),
    call(libc::SYS_munmap, ALL, Only::Any, "memory given back"),
    call(libc::SYS_mremap, ALL, Only::Any, "large buffers that grow"),
    call(libc::SYS_madvise, ALL, Only::Any, "idle buffers given back"),
    call(libc::SYS_futex, ALL, Only::Any, "libcrypto's run-once and locks"),
    call(libc::SYS_clock_gettime, ALL, Only::Any, "time, where the kernel maps no clock"),
    call(libc::SYS_gettimeofday, ALL, Only::Any, "time, where the kernel maps no clock"),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_time, ALL, Only::Any, "time, where the kernel maps no clock"),
    call(libc::SYS_rt_sigreturn, ALL, Only::Any, "the end of a signal's handler"),
    call(libc::SYS_restart_syscall, ALL, Only::Any, "a wait that a stop interrupted"),
    call(libc::SYS_exit, ALL, Only::Any, "the end"),
    call(libc::SYS_exit_group, ALL, Only::Any, "the end"),
];

/// What can be had of a sandbox here, made ready once and taken on by every
/// process that is forked afterwards.
pub struct Sandbox {
    filter: Option<BpfProgram>,
    landlock: Option<OwnedFd>,
    grows_a_file: bool,
    missing: Vec<String>,
}

/// How a sandbox is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// With its filter of system calls.
    pub filter: bool,
    /// The highest number of a descriptor that the process has.
    pub highest: i32,
}

impl Sandbox {
    /// Makes it ready. A server tries it in a process that ends at once; a client
    /// asks the kernel, which is quicker and nearly as sure.
    #[must_use]
    pub fn prepare(role: Role) -> Sandbox {
        let mut missing = Vec::new();
        let mut sandbox = Sandbox {
            filter: None,
            landlock: None,
            grows_a_file: grows_a_file(role),
            missing: Vec::new(),
        };
        match landlock::ruleset(role == Role::Remote) {
            Ok(ruleset) => sandbox.landlock = Some(ruleset),
            Err(error) => missing.push(format!("Landlock ({})", crate::report::reason(&error))),
        }
        match filter(role) {
            Ok(program) => {
                sandbox.filter = Some(program);
                let tried = match role {
                    Role::Client | Role::Remote => {
                        is_known().map_err(|error| crate::report::reason(&error))
                    }
                    Role::Engine | Role::Keyholder => sandbox.try_out(),
                };
                if let Err(why) = tried {
                    sandbox.filter = None;
                    missing.push(format!("the filter of system calls ({why})"));
                }
            }
            Err(why) => missing.push(format!("the filter of system calls ({why})")),
        }
        if sandbox.grows_a_file {
            missing.push("the limit on file size (what it writes is a regular file)".to_owned());
        }
        sandbox.missing = missing;
        sandbox
    }

    /// Whether system calls are filtered.
    #[must_use]
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// What cannot be had here, and why, for an administrator.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The descriptor that must stay open until [`Sandbox::take_on`].
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.landlock.as_ref().map(AsFd::as_fd)
    }

    /// Gives up everything, for good. Call it after the last change of user,
    /// which would make the process dumpable again. Landlock's descriptor is
    /// closed; the object must not be used or dropped afterwards, in a process
    /// that ends by exec or `_exit`.
    ///
    /// # Errors
    /// As prctl(2), setrlimit(2), seccomp(2).
    pub fn take_on(&self, confinement: Confinement) -> io::Result<()> {
        confine()?;
        let highest = rlim_t::try_from(confinement.highest).unwrap_or(0) + 1;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(
            Resource::RLIMIT_NOFILE,
            highest.min(hard),
            highest.min(hard),
        )?;
        self.close_in()?;
        if let (true, Some(filter)) = (confinement.filter, &self.filter) {
            install(filter)?;
        }
        Ok(())
    }

    /// As [`Sandbox::take_on`], for the process with the keys, which goes on
    /// taking descriptors.
    ///
    /// # Errors
    /// As there.
    pub fn take_on_with_descriptors(&self) -> io::Result<()> {
        confine()?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        self.close_in()?;
        match &self.filter {
            Some(filter) => install(filter),
            None => Ok(()),
        }
    }

    /// Limits and Landlock.
    fn close_in(&self) -> io::Result<()> {
        if !self.grows_a_file {
            setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
        }
        if let Some(ruleset) = &self.landlock {
            landlock::restrict(ruleset)?;
            super::fd::disown(ruleset);
        }
        Ok(())
    }

    /// Takes it on in a child, which must live to say so.
    fn try_out(&self) -> Result<(), String> {
        let child = process::spawn(|| {
            let confinement = Confinement {
                filter: true,
                highest: 2,
            };
            u8::from(self.take_on(confinement).is_err())
        })
        .map_err(|error| crate::report::reason(&error))?;
        match process::wait_for(child) {
            Some(process::Ended { status: 0, .. }) => Ok(()),
            _ => Err("this system refuses it".to_owned()),
        }
    }
}

/// Whether the log, or the report of a delivery, is a regular file: a limit on
/// file size would end us at the first line.
fn grows_a_file(role: Role) -> bool {
    let regular = |about: FileStat| {
        SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
    };
    fstat(io::stderr()).is_ok_and(regular)
        || role == Role::Remote && fstat(io::stdout()).is_ok_and(regular)
}

/// The filter of a role.
fn filter(role: Role) -> Result<BpfProgram, String> {
    let architecture: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|_| format!("not known for {}", std::env::consts::ARCH))?;
    let failed = |error: seccompiler::BackendError| error.to_string();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in CALLS.iter().filter(|call| call.roles.contains(&role)) {
        let condition = |argument, operator, value| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
                .map_err(failed)
        };
        let rule = |conditions| SeccompRule::new(conditions).map_err(failed);
        let allowed = match call.only {
            Only::Any => Vec::new(),
            Only::Among(argument, values) => values
                .iter()
                .map(|value| rule(vec![condition(argument, SeccompCmpOp::Eq, *value)?]))
                .collect::<Result<_, _>>()?,
            Only::Exactly(arguments) => vec![rule(
                arguments
                    .iter()
                    .map(|(argument, value)| condition(*argument, SeccompCmpOp::Eq, *value))
                    .collect::<Result<_, _>>()?,
            )?],
            Only::Without(argument, bits) => {
                vec![rule(vec![condition(
                    argument,
                    SeccompCmpOp::MaskedEq(bits),
                    0,
                )?])?]
            }
        };
        rules.entry(call.number).or_default().extend(allowed);
    }
    let rules: Vec<_> = rules.into_iter().collect();
    let mut program = vec![statement(LOAD, NUMBER)];
    program.extend(tree(&rules, architecture)?);
    Ok(program)
}

/// `struct seccomp_data` begins with the call's number.
const NUMBER: u32 = 0;
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const JUMP_FROM: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;

/// The most calls of a chain.
const CHAIN: usize = 4;

/// The rules of some calls, with the call's number loaded: chains of
/// seccompiler's as the leaves of a binary search. When a filter is installed,
/// which every engine does, the kernel runs it for every number there is: one
/// chain of all calls took a tenth of a connection's time.
fn tree(rules: &[(i64, Vec<SeccompRule>)], architecture: TargetArch) -> Result<BpfProgram, String> {
    if rules.len() <= CHAIN {
        return SeccompFilter::new(
            rules.iter().cloned().collect(),
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            architecture,
        )
        .and_then(TryInto::try_into)
        .map_err(|error: seccompiler::BackendError| error.to_string());
    }
    let (low, high) = rules.split_at(rules.len() / 2);
    let (first, _) = high[0];
    let below = tree(low, architecture)?;
    let number =
        |value| u32::try_from(value).map_err(|_| format!("no call has the number {value}"));
    let mut program = vec![
        sock_filter {
            jf: 1,
            ..statement(JUMP_FROM, number(first)?)
        },
        // The offsets of a comparison are too short for a tree.
        statement(JUMP, u32::try_from(below.len()).unwrap_or(u32::MAX)),
    ];
    program.extend(below);
    program.extend(tree(high, architecture)?);
    Ok(program)
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
fn is_known() -> io::Result<()> {
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

fn install(filter: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other.to_string()),
    })
}

/// Makes `directory` the root and the working directory. Needs root.
///
/// # Errors
/// As chdir(2) and chroot(2).
pub fn enter(directory: &Path) -> io::Result<()> {
    chdir(directory)?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

/// Makes a directory without a name the root: nothing is in it, and nothing can
/// be made in it. Needs root.
///
/// # Errors
/// No directory can be made, or as chroot(2).
pub fn enter_nowhere() -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for parent in ["/run", "/tmp", "/var/tmp", "/dev/shm"] {
        let template = PathBuf::from(parent).join("ucspi-tls.XXXXXX");
        let made = match nix::unistd::mkdtemp(&template) {
            Ok(made) => made,
            Err(error) => {
                last = error.into();
                continue;
            }
        };
        let entered = chdir(&made);
        let removed = std::fs::remove_dir(&made);
        entered?;
        removed?;
        chroot(".")?;
        // Not "/": the directory has no name any more, and we are in it.
        return Ok(());
    }
    Err(last)
}

/// Gives up new privileges, new processes and core dumps for good, and keeps
/// other processes of the same user out of this one's memory. Call it after the
/// last change of user, which would make the process dumpable again.
///
/// # Errors
/// As prctl(2) and setrlimit(2).
pub fn confine() -> io::Result<()> {
    seal()?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    Ok(())
}

/// As [`confine`], for a process that must still fork.
///
/// # Errors
/// As prctl(2) and setrlimit(2).
pub fn seal() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}

/// Drops every capability from the set that exec could bring back. Needs root.
pub fn drop_bounds() {
    const CAPABILITIES: libc::c_ulong = 64;
    for capability in 0..CAPABILITIES {
        // SAFETY: takes numbers only; one that the kernel does not know is
        // EINVAL.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Gives up all capabilities while the user stays.
///
/// # Errors
/// As capset(2).
pub fn drop_capabilities() -> io::Result<()> {
    /// `__user_cap_header_struct` and `__user_cap_data_struct` of
    /// linux/capability.h, version 3.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let none = [0u32; 6];
    // SAFETY: both pointers are valid for the call, and version 3 reads two
    // entries of three numbers.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Landlock (landlock(7)): a ruleset that allows nothing it can forbid, but what
/// a delivery needs.
mod landlock {
    use super::*;

    /// linux/landlock.h.
    const CREATE_RULESET_VERSION: u32 = 1;

    #[repr(C)]
    struct RulesetAttr {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }

    pub(super) fn ruleset(connects: bool) -> io::Result<OwnedFd> {
        // SAFETY: with this flag the call takes no pointer and returns a number.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<RulesetAttr>(),
                0,
                CREATE_RULESET_VERSION,
            )
        };
        if version < 1 {
            return Err(io::Error::last_os_error());
        }
        // Rights that exist in each version: 13 at first, then refer, truncate,
        // ioctl; binding and connecting; abstract sockets and signals.
        let rights = match version {
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        let attributes = RulesetAttr {
            handled_access_fs: (1 << rights) - 1,
            handled_access_net: if version >= 4 && !connects { 0b11 } else { 0 },
            scoped: if version >= 6 { 0b11 } else { 0 },
        };
        // Older kernels know a shorter structure.
        let length = match version {
            1..=3 => 8,
            4 | 5 => 16,
            _ => size_of::<RulesetAttr>(),
        };
        // SAFETY: the structure is valid for the call, `length` is no more than
        // its size, and the result is a descriptor that nobody else owns.
        unsafe {
            let number = libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                length,
                0,
            );
            let number = i32::try_from(number).unwrap_or(-1);
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(number))
        }
    }

    pub(super) fn restrict(ruleset: &OwnedFd) -> io::Result<()> {
        // SAFETY: takes numbers only.
        if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// What a test has a confined process try.
#[cfg(feature = "test-switches")]
pub fn attempt(what: &str) -> String {
    use std::os::unix::process::CommandExt as _;

    let outcome: io::Result<()> = match what {
        "open" => std::fs::File::open("/dev/null").map(drop),
        "socket" => std::os::unix::net::UnixDatagram::unbound().map(drop),
        "execve" => Err(std::process::Command::new("/bin/true").exec()),
        // SAFETY: takes numbers only; signal 0 is none.
        "kill" => match unsafe { libc::kill(1, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
        // SAFETY: asks to be traced by its parent; no pointer is used.
        "ptrace" => match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
        _ => return format!("{what}: no such attempt"),
    };
    match outcome {
        Ok(()) => format!("{what} succeeded"),
        Err(error) => format!("{what} failed: {}", crate::report::reason(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_a_filter_and_every_call_a_reason() {
        for role in ALL {
            assert!(
                filter(*role).is_ok_and(|program| program.len() > 20),
                "{role:?}"
            );
        }
        for call in CALLS {
            assert!(!call.reason.is_empty() && !call.roles.is_empty());
            for role in call.roles {
                let same = CALLS
                    .iter()
                    .filter(|other| other.number == call.number && other.roles.contains(role));
                let alone = same.count() == 1;
                // One that allows everything would lose that to the other.
                let narrow = !matches!(call.only, Only::Any);
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
                JUMP => {
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
        for role in ALL {
            let program = filter(*role).expect("a filter");
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
                        call.roles.contains(role)
                            && match call.only {
                                Only::Any => true,
                                Only::Among(at, values) => values.contains(&args[usize::from(at)]),
                                Only::Exactly(all) => all
                                    .iter()
                                    .all(|(at, value)| args[usize::from(*at)] == *value),
                                Only::Without(at, bits) => args[usize::from(at)] & bits == 0,
                            }
                    });
                    let (allowed, steps) = decide(nr, arch, args);
                    assert_eq!(allowed, wanted, "{role:?} {nr} {args:?}");
                    assert!(steps < 50, "{role:?} {nr}: {steps} steps");
                    assert!(!decide(nr, arch ^ 1, args).0, "{role:?} {nr}");
                }
                // The values that are allowed are, one by one.
                for call in listed(nr).filter(|call| call.roles.contains(role)) {
                    let mut args = [1; 6];
                    match call.only {
                        Only::Among(at, values) => {
                            for value in values {
                                args[usize::from(at)] = *value;
                                assert!(decide(nr, arch, args).0, "{role:?} {nr} {args:?}");
                            }
                        }
                        Only::Exactly(all) => {
                            for (at, value) in all {
                                args[usize::from(*at)] = *value;
                            }
                            assert!(decide(nr, arch, args).0, "{role:?} {nr} {args:?}");
                        }
                        Only::Any | Only::Without(..) => {}
                    }
                }
            }
        }
    }
}
