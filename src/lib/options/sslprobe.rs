//! sslprobe's command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use super::Letter::{Bytes, Flag, Value};
use super::{Table, keep, keep_path, set};
use crate::dialogue::Protocol;
use crate::report::Fail;
use crate::text;

/// How TLS is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It begins at once.
    AtOnce,
    /// By the upgrade command of a protocol.
    Upgrade(Protocol),
}

impl Start {
    /// What a port stands for.
    #[must_use]
    pub fn of_port(port: u16) -> Start {
        match port {
            24 => Start::Upgrade(Protocol::Lmtp),
            25 | 587 | 2525 => Start::Upgrade(Protocol::Smtp),
            110 => Start::Upgrade(Protocol::Pop3),
            143 => Start::Upgrade(Protocol::Imap),
            4190 => Start::Upgrade(Protocol::Sieve),
            _ => Start::AtOnce,
        }
    }

    /// Its word in results and behind `-y`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Start::AtOnce => "tls",
            Start::Upgrade(Protocol::Imap) => "imap",
            Start::Upgrade(Protocol::Lmtp) => "lmtp",
            Start::Upgrade(Protocol::Pop3) => "pop3",
            Start::Upgrade(Protocol::Sieve) => "sieve",
            Start::Upgrade(Protocol::Smtp) => "smtp",
        }
    }

    fn from_name(name: &str) -> Option<Start> {
        match name {
            "tls" => Some(Start::AtOnce),
            other => Protocol::from_name(other).map(Start::Upgrade),
        }
    }
}

/// How much is asked of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// `-q`: at most 8 handshakes.
    Quick,
    /// At most 24.
    #[default]
    Usual,
    /// `-F`: at most 60.
    Full,
}

impl Depth {
    /// The most handshakes for one host and port.
    #[must_use]
    pub fn handshakes(self) -> u32 {
        match self {
            Depth::Quick => 8,
            Depth::Usual => 24,
            Depth::Full => 60,
        }
    }
}

/// The options, with their defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// `-y`: how TLS is reached; by the port.
    pub start: Option<Start>,
    /// `-M`: destinations are mail domains.
    pub domains: bool,
    /// `-4`: over IPv4.
    pub four: bool,
    /// `-6`: over IPv6.
    pub six: bool,
    /// `-p`: port of destinations that name none.
    pub port: u16,
    /// `-q -F`.
    pub depth: Depth,
    /// `-c`: hosts at once.
    pub limit: usize,
    /// `-i`: between two connections to one address.
    pub interval: Duration,
    /// `-r`: connections a second in all.
    pub rate: u32,
    /// `-l`: what EHLO calls this host.
    pub name: Option<String>,
    /// `-a`: file of trust anchors.
    pub anchor_file: Option<PathBuf>,
    /// `-j`: JSON.
    pub json: bool,
    /// `-t`: seconds for one connection.
    pub connection_seconds: u32,
    /// `-T`: seconds for one host.
    pub host_seconds: u32,
    /// `-P`: tlsdestinations to compare with.
    pub destinations: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            start: None,
            domains: false,
            four: false,
            six: false,
            port: 25,
            depth: Depth::default(),
            limit: 1,
            interval: Duration::from_secs(1),
            rate: 10,
            name: None,
            anchor_file: None,
            json: false,
            connection_seconds: 20,
            host_seconds: 300,
            destinations: None,
        }
    }
}

/// A day, in seconds: as long as anybody waits.
const DAY: u64 = 86400;

/// Seconds with or without a fraction: `0`, `1`, `0.25`.
fn interval(field: &mut Duration, value: &str) -> Result<(), Fail> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let sound = !whole.is_empty() && !fraction.is_empty() && digits(whole) && digits(fraction);
    let seconds = value.parse::<f64>().ok().filter(|_| sound);
    let seconds = seconds.filter(|seconds| *seconds <= 86400.0);
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    *field =
        seconds.ok_or_else(|| format!("\"{value}\" is not a number of seconds from 0 to {DAY}"))?;
    Ok(())
}

fn start(field: &mut Option<Start>, value: &str) -> Result<(), Fail> {
    let known = Start::from_name(value).ok_or_else(|| {
        format!("\"{value}\" is not one of smtp, lmtp, pop3, imap, sieve and tls")
    })?;
    *field = Some(known);
    Ok(())
}

/// A name for EHLO: what could end the command is none.
fn name(field: &mut Option<String>, value: &str) -> Result<(), Fail> {
    let sound = !value.is_empty()
        && value.len() <= 255
        && value.bytes().all(|byte| byte.is_ascii_graphic());
    if !sound {
        return Err(format!("\"{value}\" is no host name").into());
    }
    keep(field, value)
}

fn port(field: &mut u16, value: &str) -> Result<(), Fail> {
    let number = text::number(value, 1..=65535);
    let number = number.ok_or_else(|| format!("\"{value}\" is not a port from 1 to 65535"))?;
    *field = u16::try_from(number).map_err(|_| "too large")?;
    Ok(())
}

/// Letters and operands of sslprobe(1).
pub const TABLE: Table<Options> = Table {
    program: "sslprobe",
    operands: "destination ...",
    least: 1,
    page: "sslprobe(1)",
    letters: &[
        ('4', Flag(|o| o.four = true)),
        ('6', Flag(|o| o.six = true)),
        ('F', Flag(|o| o.depth = Depth::Full)),
        ('M', Flag(|o| o.domains = true)),
        ('j', Flag(|o| o.json = true)),
        ('q', Flag(|o| o.depth = Depth::Quick)),
        ('P', Bytes("file", |o, v| keep_path(&mut o.destinations, v))),
        (
            'T',
            Value("seconds", |o, v| set(&mut o.host_seconds, v, 1, DAY)),
        ),
        (
            'a',
            Bytes("cafile", |o, v| keep_path(&mut o.anchor_file, v)),
        ),
        ('c', Value("hosts", |o, v| set(&mut o.limit, v, 1, 1000))),
        ('i', Value("seconds", |o, v| interval(&mut o.interval, v))),
        ('l', Value("name", |o, v| name(&mut o.name, v))),
        ('p', Value("port", |o, v| port(&mut o.port, v))),
        ('r', Value("number", |o, v| set(&mut o.rate, v, 1, 100_000))),
        (
            't',
            Value("seconds", |o, v| set(&mut o.connection_seconds, v, 1, DAY)),
        ),
        ('y', Value("protocol", |o, v| start(&mut o.start, v))),
    ],
};

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words = line.split(' ').map(OsString::from);
        let (options, _) = TABLE.parse(words).map_err(|fail| {
            assert_eq!(fail.code(), 100, "{line}");
            fail.to_string()
        })?;
        Ok(options)
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!(parse("-i 0 x").map(|o| o.interval), Ok(Duration::ZERO));
        assert_eq!(
            parse("-i 0.25 x").map(|o| o.interval),
            Ok(Duration::from_millis(250))
        );
        for bad in [
            "-i -1 x",
            "-i x x",
            "-i 1e3 x",
            "-i . x",
            "-i 1. x",
            "-i inf x",
            "-i NaN x",
            "-c 0 x",
            "-c x x",
            "-r 0 x",
            "-r -1 x",
            "-t 0 x",
            "-t -5 x",
            "-T x x",
            "-T -1 x",
            "-p 0 x",
            "-p 65536 x",
            "-y gopher x",
            "-l a\nb x",
            "-x",
            "",
        ] {
            let bad = bad.trim_end();
            assert!(parse(bad).is_err() || bad.is_empty(), "{bad:?}");
        }
        assert!(
            TABLE.parse(Vec::<OsString>::new()).is_err(),
            "no destination"
        );
    }

    #[test]
    fn the_protocol_follows_from_the_port() {
        for (port, name) in [
            (24, "lmtp"),
            (25, "smtp"),
            (587, "smtp"),
            (2525, "smtp"),
            (110, "pop3"),
            (143, "imap"),
            (4190, "sieve"),
            (465, "tls"),
            (993, "tls"),
            (4433, "tls"),
        ] {
            assert_eq!(Start::of_port(port).name(), name);
            assert_eq!(Start::from_name(name).map(Start::name), Some(name));
        }
    }
}
