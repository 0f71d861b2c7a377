//! A qmail home with control files, and runs of qmail-sslremote in it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::process::run_within;
use crate::harness::programs::taken_over;
use crate::harness::{Authority, Place, ours};

/// A message, short and plain.
pub const MESSAGE: &str = "Subject: test\n\nHello.\n";

/// A home.
pub struct Remote<'a> {
    place: &'a Place,
    dns: Option<IpAddr>,
    env: Vec<(String, String)>,
    before: Vec<String>,
    program: String,
}

/// An address of 127.0.0.0/8 that no other test has, and whose ports are free.
pub fn fresh_ip() -> IpAddr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let number = std::process::id().wrapping_mul(61).wrapping_add(count);
        let [_, a, b, c] = number.to_be_bytes();
        // Clamped, two neighbours would be one.
        if c == 0 || c == 255 {
            continue;
        }
        let ip = IpAddr::from([127, 64 + (a & 63), b, c]);
        let free = |port| std::net::TcpListener::bind((ip, port)).is_ok();
        if free(25) && free(53) && free(443) && free(465) {
            return ip;
        }
    }
}

impl<'a> Remote<'a> {
    /// `me` is `me.example`; time limits are short.
    pub fn new(place: &'a Place) -> Remote<'a> {
        fs::create_dir_all(place.path("control")).unwrap();
        let remote = Remote {
            place,
            dns: None,
            env: Vec::new(),
            before: Vec::new(),
            program: ours("qmail-sslremote"),
        };
        place.write("root.pem", Authority::shared_root().pem());
        remote
            .control("me", "me.example\n")
            .control("timeoutconnect", "5\n")
            .control("timeoutremote", "10\n")
    }

    pub fn control(self, name: &str, text: &str) -> Self {
        self.place.write(&format!("control/{name}"), text);
        self
    }

    /// tlsdestinations, `CA` standing for the test root's file.
    pub fn policy(self, text: &str) -> Self {
        let text = text.replace("CA", &self.place.text("root.pem"));
        self.control("tlsdestinations", &text)
    }

    pub fn dns(mut self, server: IpAddr) -> Self {
        self.dns = Some(server);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In the hands of an attacker, who does this: see tests/taken_over.
    pub fn taken_over(mut self, deed: &str) -> Self {
        self.program = taken_over();
        self.env("TAKEN_OVER", &format!("qmail-sslremote:{deed}"))
    }

    /// Words before the program's own.
    pub fn through<'w>(mut self, words: impl IntoIterator<Item = &'w str>) -> Self {
        self.before.extend(words.into_iter().map(str::to_owned));
        self
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut all = self.before.iter().chain([&self.program]);
        let mut command = Command::new(all.next().unwrap());
        command.args(all).args(words).env_clear();
        command.env("QMAILHOME", self.place.path(""));
        if let Some(ip) = self.dns {
            command.env("DNSCACHEIP", ip.to_string());
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The raw report.
    pub fn report(&self, words: &[&str], message: &[u8]) -> Vec<u8> {
        let ended = run_within(&mut self.command(words), message, Duration::from_secs(120));
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        ended.stdout
    }

    /// The report's parts, without their NULs.
    pub fn parts(&self, words: &[&str], message: &[u8]) -> Vec<String> {
        let report = self.report(words, message);
        assert_eq!(
            report.last(),
            Some(&0),
            "{:?}",
            String::from_utf8_lossy(&report)
        );
        let text = String::from_utf8(report[..report.len() - 1].to_vec()).unwrap();
        text.split('\0').map(str::to_owned).collect()
    }

    /// The same for a domain of any bytes, in a report that is ASCII.
    pub fn send_to(&self, host: &[u8]) -> String {
        let mut command = self.command(&[]);
        command.arg(OsStr::from_bytes(host)).arg("a@sender.example");
        command.arg("b@x.example");
        let ended = run_within(&mut command, MESSAGE.as_bytes(), Duration::from_secs(120));
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let text = String::from_utf8(ended.stdout).unwrap();
        let text = text.strip_suffix('\0').unwrap();
        text.rsplit('\0').next().unwrap().to_owned()
    }

    /// The last part of a delivery of [`MESSAGE`] to one recipient there.
    pub fn send(&self, host: &str) -> String {
        let to = format!("b@{host}");
        let parts = self.parts(&[host, "a@sender.example", &to], MESSAGE.as_bytes());
        parts.last().unwrap().clone()
    }
}
