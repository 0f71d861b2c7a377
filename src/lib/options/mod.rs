//! Command lines: one table per program, read by the parser, the usage line and
//! the test of the man pages.
//!
//! Letters cluster, a value may be attached or be the next word, options end at
//! the first operand or at `--`, and of two opposite letters the later one wins.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::report::{self, Fail, Report, Verbosity};
use crate::sys::standard;
use crate::text;

pub mod sslclient;
#[cfg(feature = "remote")]
pub mod sslprobe;
#[cfg(feature = "remote")]
pub mod sslreport;
pub mod sslrules;
pub mod sslrulescheck;
pub mod sslserver;
pub mod sslserver_conf;
#[cfg(feature = "remote")]
pub mod sslsurvey;
pub mod starttls_handoff;

/// What a letter does to the options `T` of its program.
pub enum Letter<T> {
    /// It stands alone.
    Flag(fn(&mut T)),
    /// It takes a value: the name in the usage line, and a setter that says
    /// what is wrong with a value that it refuses.
    Value(&'static str, fn(&mut T, &str) -> Result<(), Fail>),
    /// The same where any bytes are a value: the name of a file, or what a client is sent.
    Bytes(&'static str, fn(&mut T, &OsStr) -> Result<(), Fail>),
}

/// One program's command line.
pub struct Table<T: 'static> {
    /// The program's name.
    pub program: &'static str,
    /// Its letters, in the order of the usage line.
    pub letters: &'static [(char, Letter<T>)],
    /// What follows the options in the usage line.
    pub operands: &'static str,
    /// How many operands it needs at least.
    pub least: usize,
    /// Its page of the manual, with the section.
    pub page: &'static str,
}

/// `sslserver (ucspi-tls) 0.1.0, OpenSSL 3.0.15 3 Sep 2024`, and a newline.
#[must_use]
pub fn version(program: &str) -> String {
    format!(
        "{program} (ucspi-tls) {}, {}\n",
        env!("CARGO_PKG_VERSION"),
        openssl::version::version()
    )
}

/// The options of a command line, each with its value if it has one, and the operands.
type Split<T> = (Vec<(char, &'static Letter<T>, OsString)>, Vec<OsString>);

/// Which Internet protocol is used, and how it is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both, named as they are.
    #[default]
    Any,
    /// `-4`: IPv4 only.
    Four,
    /// `-6`: IPv6 naming.
    Six,
}

impl<T: Default> Table<T> {
    /// The options and the operands of a command line without its first word.
    ///
    /// # Errors
    /// [`Fail::usage`], with the reason.
    pub fn parse(
        &self,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<(T, Vec<OsString>), Fail> {
        let (given, operands) = self.split(args).map_err(|wrong| self.usage(wrong))?;
        let mut options = T::default();
        for (letter, kind, value) in given {
            let taken = match kind {
                Letter::Flag(set) => {
                    set(&mut options);
                    Ok(())
                }
                Letter::Value(_, set) => {
                    let text = value.to_str();
                    let text = text.ok_or_else(|| {
                        self.usage(format!("the value of -{letter} is not UTF-8"))
                    })?;
                    set(&mut options, text)
                }
                Letter::Bytes(_, set) => set(&mut options, &value),
            };
            taken.map_err(|wrong| self.usage(wrong.of(format_args!("-{letter}"))))?;
        }
        if operands.len() < self.least {
            return Err(self.usage("too few arguments"));
        }
        Ok((options, operands))
    }
}

impl<T> Table<T> {
    /// `sslserver [ -qQ... ] [ -c limit ] ... host port prog`
    #[must_use]
    pub fn synopsis(&self) -> String {
        let mut flags = String::new();
        let mut values = String::new();
        for (letter, kind) in self.letters {
            match kind {
                Letter::Flag(_) => flags.push(*letter),
                Letter::Value(value, _) | Letter::Bytes(value, _) => {
                    values.extend([" [ -", &letter.to_string(), " ", value, " ]"]);
                }
            }
        }
        if !flags.is_empty() {
            flags = format!(" [ -{flags} ]");
        }
        format!("{}{flags}{values} {}", self.program, self.operands)
    }

    /// The operands of a program that takes `host port prog`; the first two must be
    /// UTF-8.
    ///
    /// # Errors
    /// [`Fail::Usage`].
    pub fn host_port_program(
        &self,
        operands: Vec<OsString>,
    ) -> Result<(String, String, Vec<OsString>), Fail> {
        let mut operands = operands.into_iter();
        let mut word = |name: &str| {
            let word = operands.next().unwrap_or_default();
            word.into_string()
                .map_err(|_| self.usage(format!("{name} is not UTF-8")))
        };
        let (host, port) = (word("host")?, word("port")?);
        Ok((host, port, operands.collect()))
    }

    /// The whole program: its body, unless somebody asks for its version or how
    /// it is used.
    pub fn run(&self, body: impl FnOnce(&mut Report) -> Result<u8, Fail>) -> ExitCode {
        let first = std::env::args_os().nth(1);
        let answer = match first.as_deref().and_then(OsStr::to_str) {
            Some("--help") => format!("usage: {}\nSee {}.\n", self.synopsis(), self.page),
            Some("--version") => version(self.program),
            _ => return report::run(self.program, body),
        };
        // If descriptor 1 is gone there is nobody left to tell.
        let _ = standard::write(answer.as_bytes());
        ExitCode::SUCCESS
    }

    /// The failure of a command line that cannot be understood.
    #[must_use]
    pub fn usage(&self, reason: impl fmt::Display) -> Fail {
        let reason = text::excerpt(reason.to_string().as_bytes(), 200);
        Fail::usage(reason, self.synopsis())
    }

    /// The same of an operand that another module reads, where it can never work.
    #[must_use]
    pub fn misused(&self, wrong: Fail) -> Fail {
        if wrong.code() == report::NEVER {
            self.usage(wrong)
        } else {
            wrong
        }
    }

    /// The options in the order of the command line, and the operands.
    ///
    /// By hand, since the crate getopts gives all letters of a cluster one position,
    /// so that `-qQ` and `-Qq` are the same, and refuses a word that is not UTF-8
    /// wherever it stands: operands are a program's to run.
    fn split(&self, args: impl IntoIterator<Item = OsString>) -> Result<Split<T>, Fail> {
        let mut given = Vec::new();
        let mut args = args.into_iter();
        while let Some(word) = args.next() {
            if word == "--" {
                break;
            }
            if word.as_bytes().first() != Some(&b'-') || word.len() == 1 {
                return Ok((given, std::iter::once(word).chain(args).collect()));
            }
            let mut rest = &word.as_bytes()[1..];
            while let [byte, after @ ..] = rest {
                let letter = char::from(*byte);
                let known = self.letters.iter().find(|(name, _)| *name == letter);
                let (_, kind) = known.ok_or_else(|| unknown(rest))?;
                rest = after;
                let value = match kind {
                    Letter::Flag(_) => OsString::new(),
                    Letter::Value(..) | Letter::Bytes(..) => match std::mem::take(&mut rest) {
                        b"" => args
                            .next()
                            .ok_or_else(|| format!("-{letter} needs a value"))?,
                        attached => OsStr::from_bytes(attached).to_owned(),
                    },
                };
                given.push((letter, kind, value));
            }
        }
        Ok((given, args.collect()))
    }
}

/// What is said of a letter that no table has; `rest` begins with it.
fn unknown(rest: &[u8]) -> String {
    let text = std::str::from_utf8(rest).ok();
    match text.and_then(|text| text.chars().next()) {
        Some(letter) => format!("unknown option -{letter}"),
        None => "an option is not UTF-8".to_owned(),
    }
}

/// A number within limits, for a setter.
///
/// # Errors
/// What is wrong with it.
pub fn number(value: &str, low: u64, high: u64) -> Result<u64, Fail> {
    text::number(value, low..=high)
        .ok_or_else(|| format!("\"{value}\" is not a number from {low} to {high}").into())
}

/// [`number`] for a table row: the type is the field's.
fn set<N: TryFrom<u64>>(field: &mut N, value: &str, low: u64, high: u64) -> Result<(), Fail> {
    *field = N::try_from(number(value, low, high)?).map_err(|_| "too large")?;
    Ok(())
}

/// A text, or a file, for a table row: any will do, the empty one too.
#[allow(clippy::unnecessary_wraps)] // the form of a table row
fn keep<V: ?Sized, F: for<'a> From<&'a V>>(field: &mut Option<F>, value: &V) -> Result<(), Fail> {
    *field = Some(F::from(value));
    Ok(())
}

/// A file for a table row, where there must be one. The empty name is what a script's unset variable leaves:
/// it must not pass for a file that is missing, and less for none that was asked for.
fn keep_path(field: &mut Option<PathBuf>, value: &OsStr) -> Result<(), Fail> {
    if value.is_empty() {
        return Err("no file is named: is a variable of the script not set?".into());
    }
    keep(field, value)
}

/// The longest time that a time option takes, in seconds: 68 years, a signed
/// 32-bit number.
pub const LONGEST: u64 = 0x7fff_ffff;

/// The options that sslserver and sslclient share.
#[derive(Clone, Debug)]
pub struct Common {
    /// `-q -Q -v` (and `-V` of sslserver).
    pub verbosity: Verbosity,
    /// `-3`: the key's password is on descriptor 3.
    pub password: bool,
    /// `-4 -6`.
    pub family: Family,
    /// `-d`: leave Nagle's algorithm on.
    pub nagle: bool,
    /// `-I`: interface of an IPv6 link-local address.
    pub interface: Option<String>,
    /// `-h`: look up the peer's name.
    pub lookup: bool,
    /// `-r`: ask the peer's ident server.
    pub ident: bool,
    /// `-l`: the local host name.
    pub local_name: Option<String>,
    /// `-t`: seconds for the ident query.
    pub ident_seconds: u32,
    /// `-w`: seconds without a byte either way; 0 for ever.
    pub idle_seconds: u32,
    /// `-s`: the full certificate environment.
    pub full: bool,
    /// `-e`: the `TCP*` variables too.
    pub tcp_names: bool,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            verbosity: Verbosity::default(),
            password: false,
            family: Family::default(),
            nagle: false,
            interface: None,
            lookup: true,
            ident: false,
            local_name: None,
            ident_seconds: 26,
            idle_seconds: 3600,
            full: false,
            tcp_names: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_last_letter_of_a_toggle_wins() {
        for (line, expected) in [
            ("-qQ 0 0 p", Verbosity::Errors),
            ("-Qq 0 0 p", Verbosity::Silent),
            ("-q -v -Q 0 0 p", Verbosity::Errors),
            ("-vc5Q 0 0 p", Verbosity::Status),
        ] {
            let parsed = sslserver::TABLE.parse(words(line));
            if line.contains("c5Q") {
                assert!(parsed.is_err(), "5Q is no number");
            } else {
                assert_eq!(
                    parsed.expect("parses").0.common.verbosity,
                    expected,
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn clusters_values_and_the_end_of_options() {
        let (options, operands) = sslserver::TABLE
            .parse(words("-vRHl0 -c 5 -b7 -- 0 995 -prog -x"))
            .expect("parses");
        assert_eq!(options.common.local_name.as_deref(), Some("0"));
        assert!(!options.common.lookup);
        assert_eq!((options.limit, options.backlog), (5, 7));
        assert_eq!(operands, words("0 995 -prog -x"));
        let (options, _) = sslserver::TABLE
            .parse(
                [OsString::from("-B"), OsString::new()]
                    .into_iter()
                    .chain(words("-l -x 0 0 p")),
            )
            .expect("parses");
        assert!(options.banner.is_empty());
        assert_eq!(options.common.local_name.as_deref(), Some("-x"));
    }

    /// A file's name is bytes; a number, a name or a letter is text.
    #[test]
    fn a_file_may_have_any_name() {
        let odd = OsStr::from_bytes(b"/tmp/caf\xe9.pem");
        for attached in [false, true] {
            let of = |letter: &str| {
                if !attached {
                    return vec![OsString::from(letter), odd.to_owned()];
                }
                let word = [letter.as_bytes(), odd.as_bytes()].concat();
                vec![OsStr::from_bytes(&word).to_owned()]
            };
            let parse = |letter: &str| {
                let words = of(letter).into_iter().chain(words("h 1 p"));
                sslclient::TABLE.parse(words).map(|(options, _)| options)
            };
            let file = Some(PathBuf::from(odd));
            assert_eq!(parse("-a").expect("a file").anchor_file, file);
            assert_eq!(parse("-A").expect("a file").anchor_dir, file);
            assert_eq!(parse("-c").expect("a file").certificate, file);
            assert_eq!(parse("-C").expect("a file").certificate, file);
            assert_eq!(parse("-k").expect("a file").key, file);
            assert_eq!(parse("-K").expect("a file").password_file, file);
            assert_eq!(parse("-P").expect("a file").destinations, file);
            assert_eq!(parse("-G").expect("a file").own_certificates, file);
            for letter in ["-m", "-l", "-I", "-f", "-z", "-i", "-p", "-T", "-y", "-V"] {
                let fail = parse(letter).expect_err(letter);
                let why = format!("the value of {letter} is not UTF-8; ");
                assert!(fail.to_string().starts_with(&why), "{fail}");
                assert_eq!(fail.code(), 100);
            }
            let words = |letter: &str| of(letter).into_iter().chain(words("0 1 p"));
            let (options, _) = sslserver::TABLE.parse(words("-x")).expect("a file");
            assert_eq!(options.rules, file);
            let (options, _) = sslserver::TABLE.parse(words("-B")).expect("bytes");
            assert_eq!(options.banner, odd);
        }
        let fail = sslserver::TABLE.parse([OsStr::from_bytes(b"-\xe9").to_owned()]);
        let fail = fail.expect_err("no letter").to_string();
        assert!(fail.starts_with("an option is not UTF-8; "), "{fail}");
        let fail = sslserver::TABLE.parse(words("-v\u{e9} 0 1 p"));
        let fail = fail.expect_err("no letter").to_string();
        assert!(fail.starts_with("unknown option -"), "{fail}");
    }

    #[test]
    fn junk_is_refused_and_named() {
        for (line, reason) in [
            ("-c x 0 0 p", "-c: \"x\" is not a number"),
            ("-c 0 0 0 p", "-c: \"0\""),
            ("-c -1 0 0 p", "-c: \"-1\""),
            ("-T 5s 0 0 p", "-T: \"5s\""),
            ("-J 0 0 p", "unknown option -J"),
            ("-c", "-c needs a value"),
            ("0 0", "too few"),
        ] {
            let fail = sslserver::TABLE.parse(words(line)).expect_err(line);
            assert_eq!(fail.code(), 100);
            assert!(fail.to_string().starts_with(reason), "{fail}");
        }
    }
}
