//! sslclient's command line.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use super::Letter::{Bytes, Flag, Value};
use super::{Common, Family, LONGEST, Table, keep, keep_path, number, set};
use crate::dialogue::Protocol;
use crate::report::{Fail, Verbosity};

/// The options, with their defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// What sslserver has too.
    pub common: Common,
    /// `-T x+y`: seconds for the first and the second try of each address; the
    /// handshake has their sum.
    pub connect_seconds: (u32, u32),
    /// `-i`: local address.
    pub local_address: Option<IpAddr>,
    /// `-p`: local port.
    pub local_port: u16,
    /// `-a`: file of trust anchors; the empty name: none.
    pub anchor_file: Option<PathBuf>,
    /// `-A`: directory of trust anchors; the empty name: none.
    pub anchor_dir: Option<PathBuf>,
    /// `-c` or `-C`: client certificate with its intermediates; the empty name: none.
    pub certificate: Option<PathBuf>,
    /// `-k`: the client certificate's key; the empty name: it is in the certificate's file.
    pub key: Option<PathBuf>,
    /// `-z`: cipher list.
    pub ciphers: Option<String>,
    /// `-V`: how long the server's chain may be.
    pub depth: Option<u32>,
    /// `-x`: verify the server's certificate.
    pub verify: bool,
    /// `-n`: the name must match.
    pub match_name: bool,
    /// `-m`: match this name, and send it, in place of the host.
    pub name: Option<String>,
    /// `-y`: the protocol in which the server is asked for TLS.
    pub upgrade: Option<Protocol>,
    /// `-P`: file of the policy for each partner.
    pub destinations: Option<PathBuf>,
    /// `-f`: the envelope sender of the mail that is to be sent.
    pub sender: Option<String>,
    /// `-G`: file of certificates by sender.
    pub own_certificates: Option<PathBuf>,
    /// `-K`: file whose first line is the key's password.
    pub password_file: Option<PathBuf>,
    /// `-F`: 111 where the server's text may have been cut off.
    pub whole: bool,
    /// `-W`: say which rule applies and what is wrong with the file, and connect
    /// to nothing.
    pub explain: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            common: Common::default(),
            connect_seconds: (2, 58),
            local_address: None,
            local_port: 0,
            anchor_file: None,
            anchor_dir: None,
            certificate: None,
            key: None,
            ciphers: None,
            depth: None,
            verify: true,
            match_name: true,
            name: None,
            upgrade: None,
            destinations: None,
            sender: None,
            own_certificates: None,
            password_file: None,
            explain: false,
            whole: false,
        }
    }
}

/// A name that a certificate is to bear, and never a pattern: libcrypto takes a
/// dot in front for all that lies below it (`X509_check_host(3)`).
fn host_name(name: &str) -> Result<&str, Fail> {
    if name.is_empty() || name.starts_with('.') || name.contains('*') {
        return Err(format!("\"{name}\" is not a host name").into());
    }
    Ok(name)
}

/// `x+y`, or `x` alone, which leaves y as it is.
fn connect_seconds(field: &mut (u32, u32), value: &str) -> Result<(), Fail> {
    let (first, second) = match value.split_once('+') {
        Some((first, second)) => (first, Some(second)),
        None => (value, None),
    };
    set(&mut field.0, first, 1, LONGEST)?;
    if let Some(second) = second {
        set(&mut field.1, second, 0, LONGEST)?;
    }
    Ok(())
}

/// Letters of sslclient(1).
pub const TABLE: Table<Options> = Table {
    program: "sslclient",
    operands: "host port prog [ args ]",
    // Under -W there is nothing to run; else the program counts them.
    least: 1,
    page: "sslclient(1)",
    letters: &[
        ('q', Flag(|o| o.common.verbosity = Verbosity::Silent)),
        ('Q', Flag(|o| o.common.verbosity = Verbosity::Errors)),
        ('v', Flag(|o| o.common.verbosity = Verbosity::Tls)),
        ('3', Flag(|o| o.common.password = true)),
        ('4', Flag(|o| o.common.family = Family::Four)),
        ('6', Flag(|o| o.common.family = Family::Six)),
        ('d', Flag(|o| o.common.nagle = true)),
        ('D', Flag(|o| o.common.nagle = false)),
        ('h', Flag(|o| o.common.lookup = true)),
        ('H', Flag(|o| o.common.lookup = false)),
        ('r', Flag(|o| o.common.ident = true)),
        ('R', Flag(|o| o.common.ident = false)),
        ('s', Flag(|o| o.common.full = true)),
        ('S', Flag(|o| o.common.full = false)),
        ('e', Flag(|o| o.common.tcp_names = true)),
        ('E', Flag(|o| o.common.tcp_names = false)),
        ('x', Flag(|o| o.verify = true)),
        ('X', Flag(|o| o.verify = false)),
        ('n', Flag(|o| o.match_name = true)),
        ('N', Flag(|o| o.match_name = false)),
        // One of ucspi-ssl 0.13's, taken so that its command lines work.
        ('M', Flag(|_| {})),
        ('W', Flag(|o| o.explain = true)),
        ('F', Flag(|o| o.whole = true)),
        (
            'i',
            Value("ip", |o, v| {
                let address = v
                    .parse()
                    .map_err(|_| format!("\"{v}\" is not an IP address"))?;
                o.local_address = Some(address);
                Ok(())
            }),
        ),
        (
            'p',
            Value("port", |o, v| {
                o.local_port = u16::try_from(number(v, 0, 65535)?).unwrap_or_default();
                Ok(())
            }),
        ),
        (
            'T',
            Value("x+y", |o, v| connect_seconds(&mut o.connect_seconds, v)),
        ),
        (
            't',
            Value("seconds", |o, v| {
                set(&mut o.common.ident_seconds, v, 0, LONGEST)
            }),
        ),
        (
            'w',
            Value("seconds", |o, v| {
                set(&mut o.common.idle_seconds, v, 0, LONGEST)
            }),
        ),
        ('l', Value("name", |o, v| keep(&mut o.common.local_name, v))),
        (
            'I',
            Value("interface", |o, v| keep(&mut o.common.interface, v)),
        ),
        ('a', Bytes("cafile", |o, v| keep(&mut o.anchor_file, v))),
        ('A', Bytes("cadir", |o, v| keep(&mut o.anchor_dir, v))),
        ('c', Bytes("certfile", |o, v| keep(&mut o.certificate, v))),
        (
            'C',
            Bytes("certchainfile", |o, v| keep(&mut o.certificate, v)),
        ),
        ('k', Bytes("keyfile", |o, v| keep(&mut o.key, v))),
        (
            'K',
            Bytes("keypassfile", |o, v| keep_path(&mut o.password_file, v)),
        ),
        ('z', Value("ciphers", |o, v| keep(&mut o.ciphers, v))),
        (
            'V',
            Value("depth", |o, v| {
                o.depth = Some(u32::try_from(number(v, 0, 100)?).unwrap_or_default());
                Ok(())
            }),
        ),
        ('m', Value("name", |o, v| keep(&mut o.name, host_name(v)?))),
        (
            'y',
            Value("protocol", |o, v| {
                let protocol = Protocol::from_name(v);
                o.upgrade = Some(protocol.ok_or_else(|| {
                    format!("\"{v}\" is not one of smtp, lmtp, pop3, imap, sieve")
                })?);
                Ok(())
            }),
        ),
        (
            'P',
            Bytes("tlsdestinations", |o, v| keep_path(&mut o.destinations, v)),
        ),
        ('f', Value("sender", |o, v| keep(&mut o.sender, v))),
        (
            'G',
            Bytes("domaincerts", |o, v| keep_path(&mut o.own_certificates, v)),
        ),
    ],
};
