//! What sslserver is told by variables, its environment's and its rules', and the file
//! of fingerprints that one of them names.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use ucspi_tls::internals::rules::{Client, Rules, compile};
use ucspi_tls::internals::rulesdb::Database;
use ucspi_tls::internals::settings::{
    ClientCertificate, Filter, Judged, NAMES, Settings, Version, called, connections, pins_in,
    unknown_cipher_words,
};

/// Settings, with NULs between.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        &b"TLS_MIN=1.2\0TLS_MAX=1.3\0VERIFYDEPTH=9\0ALPN=imap, pop3\0TICKETS=0\0SSL_SANDBOX=require"[..],
        b"TLS_MAX=1.1\0CCAFILE=-\0CCAVERIFY=1\0PINFILE=/pins\0CERTFILE=d\xe9\0CERTFILE=\0MAXCONIP= 10 \0",
        b"TLS_MIN=1.3\0TLS_MAX=1.2\0VERIFYDEPTH=101\0ALPN=a,,b\0MAXCONIP=1000001\0TICKETS=2",
        b"CIPHERS=ECDHE+AESGCM:!aNUL,-RC4;+HIGH @STRENGTH\0CERT_FILE=x\0 KEYFILE=y\0KEYFLIE=z\0SSL_MIN=1",
        b"VERIFYDEPTH=007\0VERIFYDEPTH=+7\0ALPN=h2 x\0CRLFILE=\"a\"\0SSL_SANDBOX=1\0SSL_UID=7",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// A second opinion on a number: digits alone, at most so many.
fn number(text: &[u8], most: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let significant = text.iter().position(|&byte| byte != b'0');
    let text = significant.map_or(&b"0"[..], |at| &text[at..]);
    let value = text.iter().take(10).fold(0, |sum, digit| {
        sum * 10 + u64::from(digit.wrapping_sub(b'0'))
    });
    (digits && text.len() <= 9 && value <= most).then_some(value)
}

/// What was said of a value, or of a name: a line that can be shown.
fn shown(said: &str) {
    assert!(said.len() < 700 && said.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
}

/// Any bytes as settings: the last value of a name counts, and an empty one is none; a
/// number, a version, a list and a switch are what a second opinion says, and where they
/// are refused the variable is named. A name that looks like a setting's is none. And a
/// rule's variables are those that its text has.
pub fn settings(bytes: &[u8]) {
    let settings = Settings::from_bytes(bytes);
    let mut model: BTreeMap<&str, &[u8]> = BTreeMap::new();
    let mut judged = Judged::default();
    for pair in bytes.split(|&byte| byte == 0) {
        let mut halves = pair.splitn(2, |&byte| byte == b'=');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else {
            continue;
        };
        let known = NAMES.iter().find(|known| known.as_bytes() == name);
        assert_eq!(called(name), known.copied());
        match judged.find(name) {
            Some(found) => {
                assert!(known.is_none());
                shown(&found.to_string());
            }
            None => assert!(!name.eq_ignore_ascii_case(b"keyfile") || known.is_some()),
        }
        match known {
            Some(known) if value.is_empty() => drop(model.remove(known)),
            Some(known) => drop(model.insert(known, value)),
            None => {}
        }
    }
    for name in NAMES {
        let path = settings.path(name).map(|path| path.as_os_str().as_bytes());
        assert_eq!(path, model.get(name).copied(), "{name}");
        assert_eq!(settings.has(name), path.is_some());
    }
    assert_eq!(Settings::from_bytes(&settings.to_bytes()), settings);
    let files = settings.paths().filter(|(name, path)| {
        assert_eq!(model.get(name), Some(&path.as_os_str().as_bytes()));
        true
    });
    let named =
        |name: &&&str| name.ends_with("FILE") || name.ends_with("DIR") || name.ends_with("_ALT");
    let wanted = model
        .iter()
        .filter(|(name, value)| named(name) && **value != b"-");
    assert_eq!(files.count(), wanted.count());
    words(&settings, &model);
    ciphers(&model);
    rules(&model);
}

/// Each refusal names its variable.
fn refused<T, E: ToString>(result: &Result<T, E>, names: &[&str]) {
    if let Err(why) = result {
        let why = why.to_string();
        shown(&why);
        assert!(
            names
                .iter()
                .any(|name| why.starts_with(&format!("unable to use {name}: \""))),
            "{why}"
        );
    }
}

fn words(settings: &Settings, model: &BTreeMap<&str, &[u8]>) {
    let value = |name: &str| model.get(name).copied();
    let version = |name| match value(name) {
        None => Some(None),
        Some(b"1.0") => Some(Some(Version::Tls10)),
        Some(b"1.1") => Some(Some(Version::Tls11)),
        Some(b"1.2") => Some(Some(Version::Tls12)),
        Some(b"1.3") => Some(Some(Version::Tls13)),
        Some(_) => None,
    };
    let versions = settings.versions();
    refused(&versions, &["TLS_MIN", "TLS_MAX"]);
    let wanted = version("TLS_MIN").zip(version("TLS_MAX"));
    let wanted = wanted.map(|(min, max)| match (min, max) {
        (None, Some(max @ (Version::Tls10 | Version::Tls11))) => (max, Some(max)),
        (min, max) => (min.unwrap_or(Version::Tls12), max),
    });
    let wanted = wanted.filter(|(min, max)| max.is_none_or(|max| max.wire() >= min.wire()));
    assert_eq!(versions.ok(), wanted);
    let depth = settings.verify_depth();
    refused(&depth, &["VERIFYDEPTH"]);
    assert_eq!(
        depth.ok().map(u64::from),
        value("VERIFYDEPTH").map_or(Some(9), |text| number(text, 100))
    );
    if let Some(text) = value("MAXCONIP") {
        let most = connections(OsStr::from_bytes(text));
        refused(&most, &["MAXCONIP"]);
        assert_eq!(
            most.ok().map(|most| most as u64),
            number(text.trim_ascii(), 1_000_000)
        );
    }
    let tickets = settings.tickets();
    refused(&tickets, &["TICKETS"]);
    let wanted = match value("TICKETS") {
        None | Some(b"1") => Some(true),
        Some(b"0") => Some(false),
        Some(_) => None,
    };
    assert_eq!(tickets.ok(), wanted);
    let filter = settings.filter();
    refused(&filter, &["SSL_SANDBOX"]);
    let wanted = match value("SSL_SANDBOX") {
        None | Some(b"1") => Some(Filter::Wanted),
        Some(b"0") => Some(Filter::Off),
        Some(b"require") => Some(Filter::Required),
        Some(_) => None,
    };
    assert_eq!(filter.ok(), wanted);
    let wanted = match (value("CCAFILE"), value("CCAVERIFY")) {
        (Some(b"-"), _) => ClientCertificate::Off,
        (_, Some(_)) => ClientCertificate::Required,
        _ => ClientCertificate::AsOptions,
    };
    assert_eq!(settings.client_certificate(), wanted);
    let protocols = settings.protocols();
    refused(&protocols, &["ALPN"]);
    if let Ok(list) = &protocols {
        let mut rest = list.as_deref().unwrap_or_default();
        let mut names = Vec::new();
        while let Some((length, behind)) = rest.split_first() {
            let (name, behind) = behind.split_at(usize::from(*length));
            assert!(!name.is_empty() && !name.contains(&b',') && !name.contains(&b' '));
            names.push(name);
            rest = behind;
        }
        let text = value("ALPN").map(|text| std::str::from_utf8(text).expect("a word"));
        let wanted = text.map(|text| text.split(',').map(str::trim));
        let wanted = wanted.into_iter().flatten().map(str::as_bytes);
        assert!(names.into_iter().eq(wanted));
    }
}

fn ciphers(model: &BTreeMap<&str, &[u8]>) {
    let list = model
        .get("CIPHERS")
        .and_then(|list| std::str::from_utf8(list).ok());
    let Some(list) = list else {
        return;
    };
    assert!(unknown_cipher_words(list, |_| true).is_empty());
    for word in unknown_cipher_words(list, |_| false) {
        assert!(list.contains(&word) && !word.contains([':', ',', ' ', ';']));
        assert!(!word.is_empty() && !word.starts_with('@') && word != "HIGH" && word != "!RC4");
    }
}

/// The variables of a rule of these settings, as a client's connection finds them.
fn rules(model: &BTreeMap<&str, &[u8]>) {
    // What ends a line or a value, or is cut off a line.
    let plain = |value: &[u8]| !value.contains(&b'\n') && !value.contains(&b'"');
    let model: Vec<_> = model.iter().filter(|(_, value)| plain(value)).collect();
    let mut text = b":allow".to_vec();
    for (name, value) in &model {
        text.extend([b",", name.as_bytes(), b"=\"", value, b"\""].concat());
    }
    let compiled = compile(&text).expect("an address and variables");
    assert_eq!(compiled.names.len(), model.len());
    let image = crate::image(&text).expect("it compiles");
    let rules = Database::from_image(image)
        .and_then(Rules::new)
        .expect("sound");
    let rule = rules.lookup(&Client::new([192, 0, 2, 1].into(), None, None));
    let rule = rule.expect("everybody's");
    let found = rule
        .variables()
        .map(|(name, value)| (name.to_vec(), value.to_vec()));
    let wanted = model
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
    assert!(found.eq(wanted));
}

/// Fingerprints as programs print them.
pub fn pin_seeds() -> Vec<Vec<u8>> {
    let hex = "0123456789abcdefABCDEF0123456789".repeat(2);
    let colons: Vec<&str> = (0..32).map(|at| &hex[at * 2..at * 2 + 2]).collect();
    let colons = colons.join(":");
    vec![
        format!("# ours\n{hex} # mine\n\n SHA256:{hex}\r\nsha256 Fingerprint={colons}\n")
            .into_bytes(),
        format!("{colons}\nxyz\n").into_bytes(),
        hex[..62].as_bytes().to_vec(),
        format!("SHA256: {hex}0\n").into_bytes(),
    ]
}

/// Any bytes as a file of fingerprints: each line has one, of 64 digits, or a wrong one
/// is named by its number; none comes of a comment.
pub fn pins(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text
        .split('\n')
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut wanted = Vec::new();
    let mut wrong = None;
    for (at, line) in lines.enumerate() {
        let line = line.trim();
        let digits: String = line
            .to_ascii_lowercase()
            .replace("sha256 fingerprint=", "sha256:");
        let digits = digits
            .strip_prefix("sha256:")
            .unwrap_or(&digits)
            .trim()
            .replace(':', "");
        if line.is_empty() {
            continue;
        }
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            wanted.push(digits);
        } else if wrong.is_none() {
            wrong = Some(at + 1);
        }
    }
    match pins_in(bytes) {
        Ok(pins) => {
            let hex = |pin: &[u8; 32]| {
                pin.iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            };
            assert_eq!(wrong, None);
            assert_eq!(pins.iter().map(hex).collect::<Vec<_>>(), wanted);
        }
        Err(why) => {
            let why = why.to_string();
            shown(&why);
            let line = wrong.expect("a line that is none");
            assert!(why.starts_with(&format!("line {line}: ")), "{why}");
        }
    }
}
