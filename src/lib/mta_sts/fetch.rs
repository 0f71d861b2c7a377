//! The process that fetches a policy (RFC 8461, 3.3): this program once more, so
//! that nothing of a message, of a route's password or of a key is in its memory.
//! It reads what it is to fetch, gives up all rights, asks the web server, and
//! answers into a pipe; it has no file. What it answers is looked at as if it came
//! from the web server itself.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::{Policy, PolicyDomain, PolicyFailure, PolicyFailureKind};
use crate::confine;
use crate::host_name::HostName;
use crate::https::{self, Client, End, FailureKind, Limits, Method, Request};
use crate::report;
use crate::sys::child::Running;
use crate::sys::fd;
use crate::sys::memory::shortage;
use crate::sys::poll::{self, Ready};
use crate::sys::sandbox::Process;
use crate::sys::standard;
use crate::sys::user::{self, Identity};
#[cfg(feature = "internals")]
use crate::taken_over::{self, Moment};
use crate::text;

/// The one word by which a program is told that it is this process. Qmail-rspawn
/// gives three or more.
pub const WORD: &str = "--fetch-policy";

/// Where a policy is (RFC 8461, 3.3).
const PATH: &str = "/.well-known/mta-sts.txt";
/// How long the process may take beyond the time of its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of an answer: the policy, or words; and its letter.
const ANSWER_LIMIT: usize = https::LIMITS.body + 1;
/// The most addresses that are tried.
const MOST_ADDRESSES: usize = 8;

/// The letters of an answer.
const POLICY: u8 = b'P';
const FETCH: u8 = b'F';
const CERTIFICATE: u8 = b'C';
const INVALID: u8 = b'I';

/// A policy that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What it says.
    pub policy: Policy,
    /// As it came.
    pub text: Vec<u8>,
}

/// A process that fetches.
pub struct Fetching {
    child: Running,
    answer: File,
    deadline: Instant,
}

fn failed(why: impl Into<String>) -> PolicyFailure {
    PolicyFailure::new(PolicyFailureKind::Fetch, why)
}

impl Fetching {
    /// Starts one for the policy of a domain, whose web server has these addresses;
    /// its request may take this long.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn begin(
        domain: &PolicyDomain,
        addresses: &[IpAddr],
        time: Duration,
    ) -> Result<Fetching, PolicyFailure> {
        let host = domain.policy_host();
        let unable = |error: io::Error| {
            let why = report::reason(&error);
            failed(format!("the process that fetches cannot be started: {why}"))
        };
        let mut request = vec![host, time.as_secs().max(1).to_string()];
        let addresses = addresses.iter().take(MOST_ADDRESSES);
        request.extend(addresses.map(IpAddr::to_string));
        let request = request.join("\n");
        let start = || -> io::Result<Fetching> {
            let (input, told) = fd::pipe()?;
            // It is much less than a pipe holds.
            File::from(told).write_all(request.as_bytes())?;
            let (answer, output) = fd::pipe()?;
            let mut command = Command::new(own_program()?);
            command.arg(WORD).stdin(input).stdout(output);
            let child = Running::new(command.stderr(Stdio::null()))?;
            Ok(Fetching {
                child,
                answer: File::from(answer),
                deadline: Instant::now() + time + PATIENCE,
            })
        };
        start().map_err(unable)
    }

    /// Waits for what it has.
    ///
    /// # Errors
    /// There is no policy.
    pub fn end(mut self) -> Result<Fetched, PolicyFailure> {
        let read = read_to_end(&mut self.answer, self.deadline);
        let ended = self.child.end_by(self.deadline);
        let died = |why: &str| failed(format!("the process that fetches {why}"));
        let answer = read.map_err(|error| died(&format!("failed: {}", report::reason(&error))))?;
        // What came from one that did not end well may be a part.
        match ended {
            Ok(status) if status.success() => {}
            // A domain that has a policy would be taken for one that has none.
            Ok(status) if status.code() == Some(report::NO_MEMORY.into()) => shortage::end(),
            Ok(status) => return Err(died(&format!("ended: {status}"))),
            Err(error) => return Err(died(&format!("failed: {}", report::reason(&error)))),
        }
        let words = |rest: &[u8]| text::excerpt(rest, 400);
        match answer.split_first() {
            Some((&POLICY, text)) => match Policy::parse(text) {
                Ok(policy) => Ok(Fetched {
                    policy,
                    text: text.to_vec(),
                }),
                Err(why) => Err(PolicyFailure::new(
                    PolicyFailureKind::Invalid,
                    why.to_string(),
                )),
            },
            Some((&FETCH, rest)) => Err(failed(words(rest))),
            Some((&CERTIFICATE, rest)) => Err(PolicyFailure::new(
                PolicyFailureKind::Certificate,
                words(rest),
            )),
            Some((&INVALID, rest)) => {
                Err(PolicyFailure::new(PolicyFailureKind::Invalid, words(rest)))
            }
            _ => Err(died("gave no answer")),
        }
    }
}

/// The program that runs, even if another one has taken its place since.
fn own_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe()
}

fn read_to_end(from: &mut File, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if poll::one(from.as_fd(), Ready::READ, deadline)?.is_nothing() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match from.read(&mut piece)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&piece[..count]),
        }
        if bytes.len() > ANSWER_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// The whole process.
#[must_use]
pub fn main() -> ExitCode {
    report::prepare_last_code(report::NO_MEMORY);
    // What asked DNS in the program that runs this may have left something open.
    fd::close_inherited();
    let (letter, words) = match answer() {
        Ok(text) => (POLICY, text),
        Err(trouble) => {
            let letter = match trouble.kind {
                PolicyFailureKind::Fetch => FETCH,
                PolicyFailureKind::Invalid => INVALID,
                PolicyFailureKind::Certificate => CERTIFICATE,
            };
            (letter, trouble.why.into_bytes())
        }
    };
    match standard::write(&[&[letter], &*words].concat()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(report::TEMPORARY),
    }
}

/// What is to be fetched.
struct FetchOrder {
    host: HostName,
    time: Duration,
    addresses: Vec<IpAddr>,
}

impl FetchOrder {
    fn read(text: &str) -> Option<FetchOrder> {
        let mut lines = text.lines();
        let host = HostName::parse(lines.next()?).ok()?;
        let time = Duration::from_secs(lines.next()?.parse().ok()?);
        let addresses = lines.map(|line| line.parse().ok()).collect::<Option<_>>()?;
        Some(FetchOrder {
            host,
            time,
            addresses,
        })
    }
}

fn answer() -> Result<Vec<u8>, PolicyFailure> {
    let input: Option<OwnedFd> = fd::inherited(0);
    let mut told = String::new();
    let read = input.map(File::from).map(|input| {
        let mut input = input.take(64 * 1024);
        input.read_to_string(&mut told)
    });
    if !matches!(read, Some(Ok(_))) {
        return Err(failed("nobody said what is to be fetched"));
    }
    let wanted =
        FetchOrder::read(&told).ok_or_else(|| failed("nobody said what is to be fetched"))?;
    let client = Client::new().map_err(|fail| failed(fail.to_string()))?;
    if user::is_root() {
        // Where root cannot become anybody else it stays what it is, in its sandbox.
        let _ = Identity::nobody().assume();
    }
    confine::take_on(Process::Fetcher, false, standard::three().1)
        .map_err(|fail| failed(fail.to_string()))?;
    #[cfg(feature = "internals")]
    taken_over::act(Moment::Fetching);
    let request = Request {
        host: &wanted.host,
        port: 443,
        path: PATH,
        method: Method::Get,
    };
    let limits = Limits {
        time: wanted.time,
        ..https::LIMITS
    };
    let response = client.exchange(&wanted.addresses, &request, limits);
    let response = response.map_err(|failure| {
        let kind = match failure.kind {
            FailureKind::Certificate => PolicyFailureKind::Certificate,
            FailureKind::Unreachable
            | FailureKind::Handshake
            | FailureKind::Late
            | FailureKind::Reply => PolicyFailureKind::Fetch,
        };
        PolicyFailure::new(kind, failure.why)
    })?;
    text_of(response)
}

/// The policy's text in a response. It is only where the server says that all is
/// well: a redirect is none (RFC 8461, 3.3).
fn text_of(response: https::Response) -> Result<Vec<u8>, PolicyFailure> {
    if response.status != 200 {
        return Err(failed(format!("its status is {}", response.status)));
    }
    // Who may put other files on a web server need not be who speaks for the
    // domain: RFC 8461, 3.2.
    if let Some(media_type) = &response.media_type {
        let bare = media_type.split(';').next().unwrap_or_default().trim();
        if !bare.eq_ignore_ascii_case("text/plain") {
            let why = format!("its type is not text/plain: {media_type}");
            return Err(PolicyFailure::new(PolicyFailureKind::Invalid, why));
        }
    }
    // Cut behind a line, a policy can only ask for more: each of its fields is a
    // whole one, and hosts alone can be missing.
    if response.end == End::Torn && !response.body.ends_with(b"\n") {
        return Err(failed("the connection ended before the policy"));
    }
    Ok(response.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_text_with_status_200_is_a_policy_s() {
        let response = |status, media_type: Option<&str>, body: &str, end| https::Response {
            status,
            media_type: media_type.map(str::to_owned),
            body: body.as_bytes().to_vec(),
            end,
        };
        for (status, media_type, body, end, good) in [
            (200, None, "x", End::Told, true),
            (200, Some("text/plain"), "x", End::Told, true),
            (
                200,
                Some("Text/Plain ; charset=utf-8"),
                "x",
                End::Closed,
                true,
            ),
            (200, Some("text/html"), "x", End::Told, false),
            (200, Some("text/plainer"), "x", End::Told, false),
            (200, None, "x\n", End::Torn, true),
            (200, None, "x", End::Torn, false),
            (200, None, "", End::Torn, false),
            (204, None, "", End::Told, false),
            (203, None, "x", End::Told, false),
            (301, None, "x", End::Told, false),
            (404, None, "x", End::Told, false),
        ] {
            let found = text_of(response(status, media_type, body, end));
            assert_eq!(found.is_ok(), good, "{status} {media_type:?} {end:?}");
        }
    }

    #[test]
    fn what_is_wanted_is_read_whole_or_not_at_all() {
        let wanted = FetchOrder::read("mta-sts.a.test\n30\n127.0.0.1\n::1\n").expect("it is whole");
        assert_eq!(wanted.host.as_str(), "mta-sts.a.test");
        assert_eq!(wanted.time, Duration::from_secs(30));
        assert_eq!(wanted.addresses.len(), 2);
        for text in ["", "a", "a\nx\n", "a\n1\nx\n"] {
            assert!(FetchOrder::read(text).is_none(), "{text}");
        }
    }
}
