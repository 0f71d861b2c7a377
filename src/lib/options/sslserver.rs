//! sslserver's command line.
#![forbid(unsafe_code)]

use super::Letter::{Bytes, Flag, Value};
use std::ffi::OsString;
use std::path::PathBuf;

use super::{Common, Family, LONGEST, Table, keep, keep_path, set};
use crate::report::{Fail, Verbosity};

/// Whether a client is asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CertificateRequest {
    /// `-Z`: it is not asked.
    #[default]
    No,
    /// `-Y`: it is asked and need not have one.
    Optional,
    /// `-m`: it must have one that verifies.
    Required,
    /// `-z`: it must have one that verifies and names its host.
    Named,
}

/// The greatest user or group number: the one above stands for none (setresuid(2)).
const GREATEST_ID: u64 = 0xffff_fffe;

/// Which user, or group, the program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// `-u`, `-g`: a number or a name.
    Given(String),
    /// `-U`: `$UID`, `$GID`.
    Variable,
}

impl Account {
    fn give(field: &mut Option<Account>, value: &str) -> Result<(), Fail> {
        if value.is_empty() {
            return Err("neither a name nor a number is given".into());
        }
        let digits = value.trim_start_matches(['+', '-']);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            super::number(value, 0, GREATEST_ID)?;
        }
        *field = Some(Account::Given(value.to_owned()));
        Ok(())
    }
}

/// The options, with their defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// What sslclient has too.
    pub common: Common,
    /// `-1`: print the port on descriptor 1.
    pub port_line: bool,
    /// `-c`: connections at once.
    pub limit: usize,
    /// `-C`: connections at once from one address.
    pub limit_per_address: Option<usize>,
    /// `-b`: listen backlog.
    pub backlog: i32,
    /// `-f`: the program's descriptors are two pipes, not one socket.
    pub pipes: bool,
    /// `-B`: written to the client before the program runs.
    pub banner: OsString,
    /// `-g` or `-U`, whichever came later.
    pub group: Option<Account>,
    /// `-u` or `-U`, whichever came later.
    pub user: Option<Account>,
    /// `-o`: leave IP options alone.
    pub keep_source_route: bool,
    /// `-T`: seconds for the TLS handshake.
    pub handshake_seconds: u32,
    /// `-p`: drop a name that does not resolve back to its address.
    pub paranoid: bool,
    /// `-z -m -Y -Z`.
    pub ask: CertificateRequest,
    /// `-x`: the rules database.
    pub rules: Option<PathBuf>,
    /// `-y`: the rules database that is looked up first, by address alone.
    pub early_rules: Option<PathBuf>,
    /// `-X`: a missing rules database allows everything.
    pub missing_rules_allow: bool,
    /// `-n`: the program starts in plaintext and asks for TLS.
    pub delayed: bool,
    /// `-k`: check, print, and serve nothing.
    pub check: bool,
    /// `-L`: networks whose senders begin with a PROXY header.
    pub senders: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            common: Common::default(),
            port_line: false,
            limit: 40,
            limit_per_address: None,
            backlog: 20,
            pipes: false,
            banner: OsString::new(),
            group: None,
            user: None,
            keep_source_route: false,
            handshake_seconds: 26,
            paranoid: false,
            ask: CertificateRequest::default(),
            rules: None,
            early_rules: None,
            missing_rules_allow: false,
            delayed: false,
            check: false,
            senders: None,
        }
    }
}

/// Letters of sslserver(1).
pub const TABLE: Table<Options> = Table {
    program: "sslserver",
    operands: "host port prog [ args ]",
    least: 3,
    page: "sslserver(1)",
    letters: &[
        ('q', Flag(|o| o.common.verbosity = Verbosity::Silent)),
        ('Q', Flag(|o| o.common.verbosity = Verbosity::Errors)),
        ('v', Flag(|o| o.common.verbosity = Verbosity::Status)),
        ('V', Flag(|o| o.common.verbosity = Verbosity::Tls)),
        ('1', Flag(|o| o.port_line = true)),
        ('3', Flag(|o| o.common.password = true)),
        ('4', Flag(|o| o.common.family = Family::Four)),
        ('6', Flag(|o| o.common.family = Family::Six)),
        ('f', Flag(|o| o.pipes = true)),
        (
            'U',
            Flag(|o| {
                o.user = Some(Account::Variable);
                o.group = Some(Account::Variable);
            }),
        ),
        ('o', Flag(|o| o.keep_source_route = true)),
        ('O', Flag(|o| o.keep_source_route = false)),
        ('d', Flag(|o| o.common.nagle = true)),
        ('D', Flag(|o| o.common.nagle = false)),
        ('h', Flag(|o| o.common.lookup = true)),
        ('H', Flag(|o| o.common.lookup = false)),
        ('p', Flag(|o| o.paranoid = true)),
        ('P', Flag(|o| o.paranoid = false)),
        ('r', Flag(|o| o.common.ident = true)),
        ('R', Flag(|o| o.common.ident = false)),
        ('n', Flag(|o| o.delayed = true)),
        ('N', Flag(|o| o.delayed = false)),
        ('s', Flag(|o| o.common.full = true)),
        ('S', Flag(|o| o.common.full = false)),
        ('e', Flag(|o| o.common.tcp_names = true)),
        ('E', Flag(|o| o.common.tcp_names = false)),
        ('z', Flag(|o| o.ask = CertificateRequest::Named)),
        ('m', Flag(|o| o.ask = CertificateRequest::Required)),
        ('Y', Flag(|o| o.ask = CertificateRequest::Optional)),
        ('Z', Flag(|o| o.ask = CertificateRequest::No)),
        ('X', Flag(|o| o.missing_rules_allow = true)),
        ('k', Flag(|o| o.check = true)),
        ('x', Bytes("cdb", |o, v| keep_path(&mut o.rules, v))),
        ('y', Bytes("cdb", |o, v| keep_path(&mut o.early_rules, v))),
        (
            'c',
            Value("limit", |o, v| set(&mut o.limit, v, 1, 1_000_000)),
        ),
        (
            'C',
            Value("limit", |o, v| {
                let mut limit = 0;
                set(&mut limit, v, 0, 1_000_000)?;
                o.limit_per_address = Some(limit);
                Ok(())
            }),
        ),
        (
            'b',
            Value("backlog", |o, v| set(&mut o.backlog, v, 0, 65535)),
        ),
        (
            'B',
            Bytes("banner", |o, v| {
                v.clone_into(&mut o.banner);
                Ok(())
            }),
        ),
        ('g', Value("gid", |o, v| Account::give(&mut o.group, v))),
        ('u', Value("uid", |o, v| Account::give(&mut o.user, v))),
        (
            'I',
            Value("interface", |o, v| keep(&mut o.common.interface, v)),
        ),
        (
            't',
            Value("seconds", |o, v| {
                set(&mut o.common.ident_seconds, v, 0, LONGEST)
            }),
        ),
        (
            'T',
            Value("seconds", |o, v| {
                set(&mut o.handshake_seconds, v, 1, LONGEST)
            }),
        ),
        (
            'w',
            Value("seconds", |o, v| {
                set(&mut o.common.idle_seconds, v, 0, LONGEST)
            }),
        ),
        ('l', Value("name", |o, v| keep(&mut o.common.local_name, v))),
        ('L', Value("nets", |o, v| keep(&mut o.senders, v))),
    ],
};
