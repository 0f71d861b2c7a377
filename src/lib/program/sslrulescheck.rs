//! sslrulescheck: see sslrulescheck(1).
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::ExitCode;

use crate::options::sslrulescheck::TABLE;
use crate::report::Fail;
use crate::rules::{Action, Client, Rule, Rules};
use crate::sys::standard;
use crate::text;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(|_| {
        let (_, operands) = TABLE.parse(env::args_os().skip(1))?;
        let [cdb] = operands.as_slice() else {
            return Err(TABLE.usage("too many arguments"));
        };
        let step = format!("read {}", text::name(cdb.as_bytes(), 300));
        let rules = Rules::open(Path::new(cdb)).map_err(Fail::unable(step))?;
        let answer = answer(&rules, |name| env::var_os(name));
        standard::write(&answer).map_err(Fail::unable("write output"))?;
        Ok(0)
    })
}

/// What the connection of these variables meets.
fn answer(rules: &Rules, variable: impl Fn(&str) -> Option<OsString>) -> Vec<u8> {
    let bytes = |name| variable(name).map(OsString::into_vec);
    // tcprulescheck's default.
    let ip = bytes("TCPREMOTEIP").unwrap_or_else(|| b"0.0.0.0".to_vec());
    let name = bytes("TCPREMOTEHOST");
    let info = bytes("TCPREMOTEINFO");
    let client = Client::literal(&ip, name.as_deref(), info.as_deref());
    let mut out = Vec::new();
    explain(&mut out, rules.lookup(&client));
    if let Some(ip) = bytes("TCPLOCALIP") {
        out.extend_from_slice(b"local=\n");
        let ip = std::str::from_utf8(&ip).ok().and_then(|ip| ip.parse().ok());
        explain(&mut out, ip.and_then(|ip| rules.lookup_local(ip)));
    }
    if let Some(name) = bytes("SSL_TLS_SNI") {
        out.extend_from_slice(b"sni=\n");
        explain(&mut out, rules.lookup_sni(&name));
    }
    out
}

/// A rule in the words of tcprulescheck.
fn explain(out: &mut Vec<u8>, rule: Option<Rule<'_>>) {
    let Some(rule) = rule else {
        out.extend_from_slice(b"default:\nallow connection\n");
        return;
    };
    // The key's own bytes, as tcprulescheck shows them, but a network's text.
    let key = match rule.key() {
        [b'_' | b'^', ..] => rule.address().into_bytes(),
        key => key.to_vec(),
    };
    out.extend([b"rule ", &*key, b":\n"].concat());
    if rule.action() == Action::Deny {
        out.extend_from_slice(b"deny connection\n");
        return;
    }
    for (name, value) in rule.variables() {
        out.extend([b"set environment variable ", name, b"=", value, b"\n"].concat());
    }
    out.extend_from_slice(b"allow connection\n");
}
