//! The keys of tlsdestinations: how they are cleaned, which forms there are, and
//! the one spelling in which keys and destinations are compared.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::Ipv6Addr;

use super::line::Wrong;
use crate::host_name::{HostName, NoHostName, international};
use crate::resolve;

/// What a line says of TLS and of the certificate, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleForm {
    /// `!`: TLS is never tried.
    Never,
    /// `%`: the certificate must have a fingerprint.
    Pinned,
    /// `=`: it must verify and name the host exactly.
    Exact,
    /// `~`: it must verify and name the host, wildcards allowed.
    Named,
    /// No sign, or `+*`: it must verify where a CA is given.
    Trusted,
    /// `-`: none is needed.
    Unverified,
    /// `*`: used if offered, and verified where a CA is given.
    Opportunistic,
    /// `-` alone: used if offered.
    OpportunisticUnverified,
}

/// Whom a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One host or domain, as [`canonical`] spells it.
    Host(String),
    /// Every name below a domain; begins with the dot.
    Below(String),
    /// Everybody.
    All,
}

/// A key that some destination can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleKey {
    /// By its sign.
    pub form: RuleForm,
    /// By what is behind the sign.
    pub scope: Scope,
}

/// In its one spelling, which is also the key of a record of the compiled form.
impl fmt::Display for RuleKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.scope == Scope::All;
        out.write_str(match self.form {
            RuleForm::Never => "!",
            RuleForm::Pinned => "%",
            RuleForm::Exact => "=",
            RuleForm::Named => "~",
            RuleForm::Trusted if all => "+",
            RuleForm::Trusted | RuleForm::Opportunistic => "",
            RuleForm::Unverified => "-",
            RuleForm::OpportunisticUnverified => return out.write_str("-"),
        })?;
        match &self.scope {
            Scope::Host(name) | Scope::Below(name) => out.write_str(name),
            Scope::All => out.write_str("*"),
        }
    }
}

impl RuleKey {
    /// Reads a key as it stands in a file: blanks around it, case and one dot at
    /// the end do not count.
    ///
    /// # Errors
    /// It is none of the forms, or there is no host behind its sign.
    pub fn parse(written: &[u8]) -> Result<RuleKey, Wrong> {
        let text = std::str::from_utf8(written)
            .map_err(|_| Wrong::NotText)?
            .trim();
        let (form, rest) = match text.as_bytes().first().ok_or(Wrong::EmptyKey)? {
            b'!' => (RuleForm::Never, &text[1..]),
            b'%' => (RuleForm::Pinned, &text[1..]),
            b'=' => (RuleForm::Exact, &text[1..]),
            b'~' => (RuleForm::Named, &text[1..]),
            b'-' if text == "-" => (RuleForm::OpportunisticUnverified, "*"),
            b'-' => (RuleForm::Unverified, &text[1..]),
            b'*' if text == "*" => (RuleForm::Opportunistic, "*"),
            b'+' if text == "+*" => (RuleForm::Trusted, "*"),
            b'+' => return Err(Wrong::Key("+ is allowed only before *")),
            _ => (RuleForm::Trusted, text),
        };
        let one = matches!(form, RuleForm::Exact | RuleForm::Pinned);
        let scope = match rest.strip_prefix('.') {
            _ if rest == "*" && form == RuleForm::Pinned => {
                return Err(Wrong::Key("% needs one host, not *"));
            }
            _ if rest == "*" => Scope::All,
            Some(_) if one => {
                return Err(Wrong::Key(
                    "= and % need one host; ~.domain matches the names below a domain",
                ));
            }
            Some(name) => Scope::Below(format!(".{}", host_name(name)?)),
            None => Scope::Host(host(rest)?),
        };
        Ok(RuleKey { form, scope })
    }
}

/// A destination in the spelling of keys: lower case, as DNS has it, no dot at the
/// end, an address in brackets and in its shortest form.
#[must_use]
pub fn canonical(destination: &str) -> String {
    if let Some(ip) = resolve::address_literal(destination) {
        return format!("[{ip}]");
    }
    let name = destination.strip_suffix('.').unwrap_or(destination);
    let labels = name
        .split('.')
        .map(|label| international(label.as_bytes()).unwrap_or_else(|| label.to_ascii_lowercase()));
    labels.collect::<Vec<_>>().join(".")
}

/// A host name or an address in the spelling of keys.
///
/// # Errors
/// It is neither.
pub(crate) fn host(written: &str) -> Result<String, Wrong> {
    let undotted = written.strip_suffix('.').unwrap_or(written);
    if resolve::address_literal(undotted).is_some() {
        return Ok(canonical(undotted));
    }
    if written.starts_with('[') {
        return Err(Wrong::Key("only an address may be in brackets"));
    }
    host_name(written)
}

/// A host name, one dot at its end or none, in the spelling of keys.
///
/// # Errors
/// No name server would know it.
pub(crate) fn host_name(written: &str) -> Result<String, Wrong> {
    check_characters(written.strip_suffix('.').unwrap_or(written))?;
    let host = HostName::parse(written).map_err(|why| {
        Wrong::Key(match why {
            NoHostName::Length => "a label is empty or too long for a host name",
            NoHostName::NoAscii => "IDNA has no form of the name",
            NoHostName::Character => "no host name has such a character",
        })
    })?;
    let name = host.as_str();
    // IDNA makes signs of their wide forms.
    check_characters(name)?;
    // No top-level domain is a number: RFC 1123 section 2.1.
    let last = name.rsplit('.').next();
    if last.is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Wrong::Key("it is neither a host name nor an address"));
    }
    Ok(name.to_owned())
}

fn check_characters(name: &str) -> Result<(), Wrong> {
    let bad = |why| Err(Wrong::Key(why));
    match name.as_bytes().first() {
        None => return bad("there is no host"),
        Some(b'!' | b'%' | b'=' | b'~' | b'-' | b'+') => {
            return bad("there are two signs before the host");
        }
        Some(b'*') => return bad("the names below a domain are written .domain, not *.domain"),
        _ => {}
    }
    if name.contains(char::is_whitespace) {
        return bad("there is a blank in it");
    }
    if name.contains('@') {
        return bad("write the name without @");
    }
    if !name.chars().all(is_of_names) {
        return bad("no host name has such a character");
    }
    Ok(())
}

/// Letters of all scripts, and what names in DNS have besides. An invisible
/// character would make a key that nobody meets and nobody sees the fault of.
fn is_of_names(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.');
    }
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}')
}

/// Why a key is an address of IPv6 or a URL that a colon cuts short, if it is
/// one: `=2001:db8::1:...`, `tls://mx.example`, `smtp:mx.example`.
pub(crate) fn cut_short(key: &[u8], rest: &[u8]) -> Option<Wrong> {
    const SCHEMES: [&[u8]; 10] = [
        b"tls",
        b"ssl",
        b"smtp",
        b"smtps",
        b"smtp+tls",
        b"smtps+tls",
        b"starttls",
        b"lmtp",
        b"qmtp",
        b"qmtps",
    ];
    let bare = key
        .strip_prefix(b"!")
        .or_else(|| key.strip_prefix(b"%"))
        .or_else(|| key.strip_prefix(b"="))
        .or_else(|| key.strip_prefix(b"~"))
        .or_else(|| key.strip_prefix(b"-"))
        .unwrap_or(key);
    let word = rest
        .split(|byte| matches!(byte, b'|' | b';'))
        .next()
        .unwrap_or_default()
        .trim_ascii();
    let is_scheme = SCHEMES.iter().any(|one| one.eq_ignore_ascii_case(bare));
    let is_file = word.contains(&b'/');
    let is_print = word.starts_with(b"=") || word.to_ascii_lowercase().starts_with(b"spki:");
    let is_host = !(word.is_empty() || word.starts_with(b":") || is_file || is_print);
    let is_word = bare.iter().all(u8::is_ascii_alphanumeric);
    if is_word && rest.starts_with(b"//") || is_scheme && is_host {
        return Some(Wrong::Key(
            "write the host alone, without tls:// or smtp: before it",
        ));
    }
    let whole = [bare, b":", rest].concat();
    let run = whole
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        .count();
    let ends = (0..=run).filter(|&end| end == whole.len() || whole[end] == b':' || end == run);
    let mut heads = ends.filter_map(|end| std::str::from_utf8(&whole[..end]).ok());
    let six = heads.any(|head| head.parse::<Ipv6Addr>().is_ok());
    six.then_some(Wrong::Key("an IPv6 address needs brackets"))
}
