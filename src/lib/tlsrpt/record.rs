//! What a domain publishes of where its reports go: the TXT record of RFC 8460, 3.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;

use crate::dns::name::DomainName;
use crate::host_name::HostName;

/// The record of a domain is below it.
pub const LABELS: &str = "_smtp._tls";
/// What each record begins with.
const VERSION: &[u8] = b"v=TLSRPTv1";
/// The most destinations of a domain that are served.
pub const MOST: usize = 8;
/// The longest URI, in bytes.
const LONGEST: usize = 1000;

/// Where reports go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// By mail: the address.
    Mail(String),
    /// By POST.
    Post(Url),
}

/// A URL with the scheme https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// In lower case, without a dot at its end.
    pub host: HostName,
    /// 443 where none is given.
    pub port: u16,
    /// With the query; begins with `/`.
    pub path: String,
}

/// As it is published, in the one form that it has here.
impl fmt::Display for Receiver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Receiver::Mail(address) => write!(out, "mailto:{address}"),
            Receiver::Post(Url { host, port, path }) => {
                write!(out, "https://{host}")?;
                if *port != 443 {
                    write!(out, ":{port}")?;
                }
                out.write_str(path)
            }
        }
    }
}

/// Where a domain wants its reports, from the texts of its TXT records: nowhere
/// unless exactly one of them is a record of this kind. Of its URIs those count that
/// reports can be sent to.
#[must_use]
pub fn destinations(texts: &[Vec<u8>]) -> Vec<Receiver> {
    let mut records = texts.iter().filter_map(|text| fields_of(text));
    let (Some(fields), None) = (records.next(), records.next()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let uris = uris(fields).unwrap_or_default();
    for uri in uris {
        if let Some(destination) = destination(uri) {
            if !found.contains(&destination) && found.len() < MOST {
                found.push(destination);
            }
        }
    }
    found
}

/// What stands behind the version, if it is a record.
fn fields_of(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(VERSION)?;
    rest.trim_ascii_start().strip_prefix(b";")
}

/// The URIs of `rua`; `None` where it is missing or doubled, or where something is no
/// field.
fn uris(fields: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rua = None;
    let mut fields = fields.split(|&byte| byte == b';').peekable();
    while let Some(field) = fields.next() {
        let field = field.trim_ascii();
        // One semicolon may stand at the end.
        if field.is_empty() && fields.peek().is_none() {
            break;
        }
        let equals = field.iter().position(|&byte| byte == b'=')?;
        let (name, value) = field.split_at(equals);
        let value = &value[1..];
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
        if value.is_empty() || name.is_empty() || name.len() > 32 || !name.iter().all(known) {
            return None;
        }
        if name == b"rua" && rua.replace(value).is_some() {
            return None;
        }
    }
    Some(
        rua?.split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
            .collect(),
    )
}

/// A destination that can be used. No other scheme than mailto and https is one.
fn destination(uri: &[u8]) -> Option<Receiver> {
    let graphic = uri.iter().all(u8::is_ascii_graphic);
    let uri = std::str::from_utf8(uri)
        .ok()
        .filter(|_| graphic && uri.len() <= LONGEST)?;
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("mailto") {
        return Some(Receiver::Mail(address(rest)?));
    }
    if scheme.eq_ignore_ascii_case("https") {
        return Some(Receiver::Post(url(rest)?));
    }
    None
}

/// The address of a mailto URI (RFC 6068), without what it asks for besides.
fn address(rest: &str) -> Option<String> {
    let address = rest.split(['?', '#']).next()?;
    mail_address(std::str::from_utf8(&decoded(address)?).ok()?)
}

/// A mail address that needs no quotes in a header.
#[must_use]
pub fn mail_address(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    if local.is_empty() || local.len() > 64 || dots || !local.bytes().all(atom) {
        return None;
    }
    Some(format!("{local}@{}", host_name(domain)?))
}

/// Bytes for percent signs with two digits.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    Some(out)
}

/// A host's name as mail and the web use it: letters, digits, hyphens, underscores;
/// in lower case, without a dot at its end.
#[must_use]
pub fn host_name(name: &str) -> Option<String> {
    let name = DomainName::parse(name.as_bytes()).ok()?.to_string();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let top = name.rsplit('.').next()?;
    let is_name = name.bytes().all(known) && !top.bytes().all(|byte| byte.is_ascii_digit());
    is_name.then_some(name)
}

/// What stands behind `https:`. An address in the host's place has no certificate
/// that anybody can check.
fn url(rest: &str) -> Option<Url> {
    let rest = rest.strip_prefix("//")?;
    let rest = rest.split('#').next()?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (name, port) = match authority.split_once(':') {
        Some((name, "")) => (name, 443),
        Some((name, port)) => (name, crate::text::number(port, 1..=65535)?),
        None => (authority, 443),
    };
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    let path = match path {
        path if path.starts_with('/') => path.to_owned(),
        query => format!("/{query}"),
    };
    Some(Url {
        host: HostName::parse(&host_name(name)?).ok()?,
        port: u16::try_from(port).ok()?,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(records: &[&str]) -> Vec<String> {
        let texts: Vec<Vec<u8>> = records.iter().map(|one| one.as_bytes().to_vec()).collect();
        destinations(&texts)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_record_says_where_reports_go() {
        for (record, wanted) in [
            (
                "v=TLSRPTv1;rua=mailto:r@a.example",
                &["mailto:r@a.example"][..],
            ),
            (
                "v=TLSRPTv1 ; rua=mailto:R%2bx@A.Example. , https://Log.Example/v1/tls?a=b ;",
                &["mailto:R+x@a.example", "https://log.example/v1/tls?a=b"],
            ),
            (
                "v=TLSRPTv1; ext=1; rua=HTTPS://log.example:8443; n.e-w_=x",
                &["https://log.example:8443/"],
            ),
            // What cannot be used does not keep the others from their report.
            (
                "v=TLSRPTv1; rua=http://a.example/x,mailto:r@a.example,ftp:x",
                &["mailto:r@a.example"],
            ),
            (
                "v=TLSRPTv1; rua=mailto:r@a.example,mailto:r@a.example",
                &["mailto:r@a.example"],
            ),
            (
                "v=TLSRPTv1; rua=mailto:r@a.example?subject=x",
                &["mailto:r@a.example"],
            ),
        ] {
            assert_eq!(told(&[record]), wanted, "{record}");
            assert_eq!(told(&["v=spf1 -all", record]), wanted, "{record}");
            assert!(told(&[record, record]).is_empty(), "{record}");
        }
        let many: Vec<String> = (0..20)
            .map(|one| format!("mailto:r{one}@a.example"))
            .collect();
        let many = format!("v=TLSRPTv1;rua={}", many.join(","));
        assert_eq!(told(&[&many]).len(), MOST);
    }

    #[test]
    fn what_is_no_record_leads_nowhere() {
        for record in [
            "",
            "v=TLSRPTv1",
            "v=TLSRPTv1;",
            "v=TLSRPTv1; rua=",
            "v=TLSRPTv1; rua",
            "V=TLSRPTv1; rua=mailto:r@a.example",
            "v=tlsrptv1; rua=mailto:r@a.example",
            "v=TLSRPTv10; rua=mailto:r@a.example",
            " v=TLSRPTv1; rua=mailto:r@a.example",
            "v=TLSRPTv1 rua=mailto:r@a.example",
            "v=TLSRPTv1;; rua=mailto:r@a.example",
            "v=TLSRPTv1; RUA=mailto:r@a.example",
            "v=TLSRPTv1; rua=mailto:r@a.example; rua=mailto:s@a.example",
            "v=TLSRPTv1; rua=http://a.example/",
            "v=TLSRPTv1; rua=mailto:",
            "v=TLSRPTv1; rua=mailto:a.example",
            "v=TLSRPTv1; rua=mailto:@a.example",
            "v=TLSRPTv1; rua=mailto:a@",
            "v=TLSRPTv1; rua=mailto:a%0d%0aBcc:x@a.example",
            "v=TLSRPTv1; rua=mailto:a b@a.example",
            "v=TLSRPTv1; rua=mailto:%00@a.example",
            "v=TLSRPTv1; rua=mailto:a%40b@a.example",
            "v=TLSRPTv1; rua=mailto:a%2cb@a.example",
            "v=TLSRPTv1; rua=mailto:-f%20x@a.example",
            "v=TLSRPTv1; rua=mailto:r@[192.0.2.1]",
            "v=TLSRPTv1; rua=mailto:r@192.0.2.1",
            "v=TLSRPTv1; rua=https:",
            "v=TLSRPTv1; rua=https:///x",
            "v=TLSRPTv1; rua=https://192.0.2.1/",
            "v=TLSRPTv1; rua=https://[::1]/",
            "v=TLSRPTv1; rua=https://a.example:0/",
            "v=TLSRPTv1; rua=https://a.example:99999/",
            "v=TLSRPTv1; rua=https://u:p@a.example/",
            "v=TLSRPTv1; rua=https://a.example/\u{e9}",
            "v=TLSRPTv1; rua=https://a.example/\r\nX: y",
        ] {
            assert!(told(&[record]).is_empty(), "{record}");
        }
    }
}
