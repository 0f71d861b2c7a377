//! What DNSSEC starts from: the root's keys, the domains that it is not asked
//! about, and whether a resolver of this host is believed.
#![forbid(unsafe_code)]

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::dns::name::DomainName;
use crate::report::{Fail, is_absent};
use crate::text;

/// The root's keys of 2017 and 2024, as IANA publishes them in root-anchors.xml.
const ROOT: [&str; 2] = [
    ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ". IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
];

/// Domains of private networks, which the root does not have: no signature of its
/// can lead to them. From RFC 6761, 6762 and 8375, and ICANN's list of names that
/// will never be delegated.
const PRIVATE: [&str; 9] = [
    "corp",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "lan",
    "local",
    "private",
    "test",
];

/// Whom to believe.
#[derive(Clone, Debug)]
pub struct Trust {
    anchors: Vec<String>,
    own_anchors: bool,
    excepted: Vec<DomainName>,
    required: bool,
    resolver: Option<IpAddr>,
}

/// The text of a control file, or none; and its name before each reason.
fn file(folder: &Path, name: &str) -> Result<Option<String>, Fail> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absent(&path, &error) => Ok(None),
        Err(error) => Err(Fail::from(error).of(name)),
    }
}

/// The lines that say something.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

impl Trust {
    /// Reads `dnssecanchors`, DNSKEY or DS records of the root zone in the place of
    /// the known ones; `dnssecinsecure`, domains a line; `dnssectrust`, the address
    /// of a resolver on this host; and `dnssec`, which may say `require`.
    ///
    /// # Errors
    /// A file cannot be read, or something else stands there.
    pub fn read(folder: &Path) -> Result<Trust, Fail> {
        let own_anchors = file(folder, "dnssecanchors")?;
        let anchors = match &own_anchors {
            Some(text) => anchors(text).map_err(|fail| fail.of("dnssecanchors"))?,
            None => ROOT.map(str::to_owned).to_vec(),
        };
        let own = file(folder, "dnssecinsecure")?.unwrap_or_default();
        let excepted = PRIVATE.into_iter().chain(lines(&own)).map(|line| {
            let shown = || text::excerpt(line.as_bytes(), 255);
            DomainName::parse(line.trim_matches('.').as_bytes())
                .map_err(|_| Fail::temporary(format!("dnssecinsecure: not a domain: {}", shown())))
        });
        let resolver = file(folder, "dnssectrust")?.unwrap_or_default();
        let words = file(folder, "dnssec")?.unwrap_or_default();
        Ok(Trust {
            own_anchors: own_anchors.is_some() && !anchors.is_empty(),
            anchors,
            excepted: excepted.collect::<Result<_, _>>()?,
            required: required(&words)?,
            resolver: believed(&resolver)?,
        })
    }

    /// The root's keys, in the form of zone files. Without any, nothing is checked.
    #[must_use]
    pub fn anchors(&self) -> &[String] {
        &self.anchors
    }

    /// Whether the administrator named the root's keys.
    #[must_use]
    pub fn has_own_anchors(&self) -> bool {
        self.own_anchors
    }

    /// The domains below which nothing is checked.
    #[cfg(validator)]
    #[must_use]
    pub fn excepted(&self) -> &[DomainName] {
        &self.excepted
    }

    /// Whether no signatures are asked for there.
    #[must_use]
    pub fn excepts(&self, name: &DomainName) -> bool {
        self.excepted.iter().any(|domain| name.is_within(domain))
    }

    /// Whether mail waits where nothing can be told.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// The resolver of this host whose word counts.
    #[must_use]
    pub fn resolver(&self) -> Option<IpAddr> {
        self.resolver
    }
}

fn required(words: &str) -> Result<bool, Fail> {
    let mut found = false;
    for line in lines(words) {
        if line != "require" {
            let shown = text::excerpt(line.as_bytes(), 100);
            return Err(Fail::temporary(format!(
                "dnssec: \"{shown}\" is not \"require\""
            )));
        }
        found = true;
    }
    Ok(found)
}

fn believed(words: &str) -> Result<Option<IpAddr>, Fail> {
    let mut lines = lines(words);
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let shown = text::excerpt(line.as_bytes(), 100);
    let ip: IpAddr = line
        .parse()
        .map_err(|_| format!("dnssectrust: \"{shown}\" is not an IP address"))?;
    // Whoever sits on the way to another host could say what he likes.
    if !ip.is_loopback() {
        return Err(Fail::temporary(format!(
            "dnssectrust: {ip} is not on this host: only 127.0.0.1 and the like or ::1 can be trusted"
        )));
    }
    match lines.next() {
        Some(_) => Err(Fail::temporary(
            "dnssectrust: there is more than one address",
        )),
        None => Ok(Some(ip)),
    }
}

/// The records of a piece of zone file, one a line. Only where nothing stands there at
/// all are there none: whoever keeps the keys in the file may have failed to write them,
/// and that must not pass for the wish to do without DNSSEC.
///
/// # Errors
/// Something else stands there.
pub fn anchors(text: &str) -> Result<Vec<String>, Fail> {
    let mut records = Vec::new();
    // A record that may go on, and its parentheses: how often each was seen. Nothing
    // is counted twice, however many lines it has.
    let mut open = String::new();
    let (mut opened, mut closed) = (0, 0);
    for line in text.lines() {
        let line = line.split(';').next().unwrap_or_default();
        open += line;
        open.push(' ');
        opened += line.matches('(').count();
        closed += line.matches(')').count();
        if opened > closed {
            continue;
        }
        (opened, closed) = (0, 0);
        let whole = std::mem::take(&mut open).replace(['(', ')'], " ");
        if !whole.trim().is_empty() {
            records.push(anchor(&whole)?);
        }
    }
    match open.trim() {
        "" if records.is_empty() && !text.trim().is_empty() => Err(Fail::temporary(
            "it has no record: empty it to do without DNSSEC, or remove it for the root's own keys",
        )),
        "" => Ok(records),
        _ => Err(Fail::temporary("a parenthesis is not closed")),
    }
}

fn anchor(line: &str) -> Result<String, Fail> {
    let shown = || text::excerpt(line.trim().as_bytes(), 60);
    let mut words = line.split_ascii_whitespace();
    let owner = words.next().unwrap_or_default();
    let mut rest = words.skip_while(|word| {
        word.eq_ignore_ascii_case("IN") || word.bytes().all(|byte| byte.is_ascii_digit())
    });
    let kind = rest.next().unwrap_or_default().to_ascii_uppercase();
    let words: Vec<&str> = rest.collect();
    let (numbers, data) = words.split_at(words.len().min(3));
    let data = data.concat();
    let good = match (kind.as_str(), numbers) {
        ("DNSKEY", [flags, "3", algorithm]) => {
            fits(flags, 65535) && fits(algorithm, 255) && is_base64(&data)
        }
        ("DS", [tag, algorithm, digest]) => {
            let digits = match *digest {
                "1" => 40,
                "2" => 64,
                "4" => 96,
                _ => 0,
            };
            let hex = data.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits(tag, 65535) && fits(algorithm, 255) && hex && data.len() == digits && digits > 0
        }
        _ => {
            return Err(Fail::temporary(format!(
                "not a DNSKEY or DS record: {}",
                shown()
            )));
        }
    };
    if owner != "." {
        // An island below an unsigned root would need more than a key.
        let owner = text::excerpt(owner.as_bytes(), 255);
        return Err(Fail::temporary(format!("{owner} is not the root zone")));
    }
    if !good {
        return Err(Fail::temporary(format!(
            "an incomplete {kind} record: {}",
            shown()
        )));
    }
    Ok(format!(". IN {kind} {} {data}", numbers.join(" ")))
}

/// RFC 4648, 4. Libcrypto passes by a hyphen at the end, and equals signs within.
fn is_base64(data: &str) -> bool {
    let digits = data.trim_end_matches('=');
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    let padded = data.len() % 4 == 0 && data.len() - digits.len() < 3;
    padded && !digits.is_empty() && digits.bytes().all(known)
}

fn fits(word: &str, most: u64) -> bool {
    text::number(word, 0..=most).is_some()
}

#[cfg(test)]
mod tests {
    use super::{ROOT, Trust, anchors, believed, required};

    #[test]
    fn a_link_to_nowhere_is_not_an_absent_file() {
        let name = format!("dns-trust-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        assert!(Trust::read(&folder).is_ok());
        std::os::unix::fs::symlink("/nonexistent/file", folder.join("dnssec")).expect("a link");
        let read = Trust::read(&folder);
        std::fs::remove_dir_all(&folder).expect("removed");
        let why = read.expect_err("unknown wishes").to_string();
        assert_eq!(why, "dnssec: no such file or directory");
    }

    #[test]
    fn anchors_are_records_of_the_root() {
        let key = ". 172800 IN DNSKEY 257 3 8 AwEAAaz/tAm8yTn4 Mfeh5eyI96WSVexT ;{id = 1}\n";
        let one = ". IN DNSKEY 257 3 8 AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexT";
        assert_eq!(anchors(key), Ok(vec![one.to_owned()]));
        let many = format!(
            "; two\n\n{key}. dnskey 257 3 8 (\n AwEAAaz/tAm8yTn4 ; half\n Mfeh5eyI96WSVexT )\n"
        );
        assert_eq!(anchors(&many), Ok(vec![one.to_owned(); 2]));
        for record in ROOT {
            assert_eq!(anchors(record), Ok(vec![record.to_owned()]));
        }
        for empty in ["", "\n", " \t\r\n\n"] {
            assert_eq!(anchors(empty), Ok(vec![]));
        }
        for wrong in [
            "x\n",
            "; none\n",
            "\n ; autotrust trust anchor file\n;;id: . 1\n",
            "()\n",
            ". IN A 192.0.2.1\n",
            ". IN DS 1 13 2 AB\n",
            ". IN DNSKEY 257 3 13\n",
            ". IN DNSKEY 257 4 13 AAAA\n",
            ". IN DNSKEY 257 3 13 AAAA-\n",
            ". IN DNSKEY 257 3 13 AA==AAAA\n",
            ". IN DNSKEY 257 3 13 A===\n",
            ". IN DNSKEY 257 3 8 (AAAA\n",
            "signed. IN DNSKEY 257 3 13 AAAA\n",
        ] {
            assert!(anchors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_record_of_very_many_lines_is_read_once() {
        let lines = "AwEAAaz/\n".repeat(100_000);
        let found = anchors(&format!(". IN DNSKEY 257 3 8 (\n{lines})\n")).expect("one record");
        assert_eq!(found.len(), 1);
        assert!(anchors(&format!("(\n{}", "\n".repeat(200_000))).is_err());
    }

    #[test]
    fn words_of_trust() {
        assert_eq!(required("# strict\n require \n"), Ok(true));
        assert_eq!(required(""), Ok(false));
        assert!(required("required\n").is_err());
        assert_eq!(believed(" 127.0.0.53\n"), Ok("127.0.0.53".parse().ok()));
        assert_eq!(believed("::1\n"), Ok("::1".parse().ok()));
        assert_eq!(believed("# none\n"), Ok(None));
        for wrong in [
            "192.0.2.1\n",
            "localhost\n",
            "127.0.0.1:53\n",
            "::1\n127.0.0.1\n",
            "0.0.0.0\n",
        ] {
            assert!(believed(wrong).is_err(), "{wrong}");
        }
    }
}
