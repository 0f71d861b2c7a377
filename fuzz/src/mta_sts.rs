//! What qmail-sslremote reads for MTA-STS: the record, the policy, and the reply of a
//! web server.

use ucspi_tls::internals::https::{End, NoReply, read};
use ucspi_tls::internals::mta_sts::{Mode, Policy, id, parsed, written};

use crate::Server;

/// Policies.
pub fn policy_seeds() -> Vec<Vec<u8>> {
    [
        &b"version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n"[..],
        b"version: STSv1\r\nmode: testing\r\nmax_age: 1\r\nmx: a.b\r\nfuture.x: y\r\n",
        b"version: STSv1\nmode: none\nmax_age: 0\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as a policy: one that is read can be told by its lines, holds nothing that
/// cannot be shown, and reads the same again; a wildcard stands for one label.
pub fn policy(bytes: &[u8]) {
    let policy = match Policy::parse(bytes) {
        Ok(policy) => policy,
        Err(why) => {
            assert!(
                why.to_string()
                    .bytes()
                    .all(|byte| (0x20..0x7f).contains(&byte))
            );
            return;
        }
    };
    assert!(policy.max_age <= 31_557_600);
    assert!(policy.mode == Mode::None || !policy.patterns.is_empty());
    assert!(
        policy
            .lines
            .iter()
            .all(|line| !line.chars().any(|one| one.is_control() && one != '\t'))
    );
    let again = Policy::parse(policy.lines.join("\n").as_bytes());
    assert_eq!(again.as_ref(), Ok(&policy));
    // Of a field the first counts, of `mx` each.
    let said = |name: &'static str| {
        let values = policy
            .lines
            .iter()
            .filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'));
        values.map(|value| value.trim_matches([' ', '\t']))
    };
    assert_eq!(said("mode").next(), Some(&*policy.mode.to_string()));
    let age = said("max_age")
        .next()
        .and_then(|age| age.parse::<u64>().ok());
    assert_eq!(age.map(|age| age.min(31_557_600)), Some(policy.max_age));
    assert!(said("mx").eq(policy.patterns.iter()));
    for pattern in &policy.patterns {
        let host = pattern.replacen('*', "x", 1);
        if policy.matches(&host) && policy.patterns.len() == 1 && pattern.contains('*') {
            assert!(
                pattern.starts_with("*.") && !pattern[1..].contains('*'),
                "{pattern}"
            );
            assert!(!policy.matches(&format!("y.{host}")), "{pattern}");
        }
    }
    assert!(!policy.matches("") && !policy.matches("."));
}

/// Files, with a byte before them that says whether the head is still to be made.
pub fn cache_seeds() -> Vec<Vec<u8>> {
    let policy = b"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 100\n";
    vec![
        [&[0], &*written("1", 1_700_000_000, policy)].concat(),
        [&[1][..], policy].concat(),
        [&[0][..], policy].concat(),
    ]
}

/// Any bytes as a remembered policy, and any bytes that are remembered: what is read
/// from a file is what was written into it, to the byte, and one byte more or another
/// one is nothing.
pub fn cache(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else {
        return;
    };
    if mode == 0 {
        if let Some(found) = parsed(rest) {
            let text = found.policy.lines.join("\n");
            assert_eq!(Policy::parse(text.as_bytes()).as_ref(), Ok(&found.policy));
            let at = rest
                .windows(2)
                .position(|pair| pair == b"\n\n")
                .expect("a head");
            assert_eq!(written(&found.id, found.fetched, &rest[at + 2..]), rest);
        }
        return;
    }
    let mut file = written("a1", u64::from(mode), rest);
    match (parsed(&file), Policy::parse(rest)) {
        (Some(found), Ok(policy)) => {
            assert_eq!((&*found.id, found.fetched), ("a1", u64::from(mode)));
            assert_eq!(found.policy, policy);
        }
        (found, policy) => assert!(found.is_none() && policy.is_err()),
    }
    let at = usize::from(mode) * 7 % file.len();
    file[at] ^= 1;
    assert_eq!(parsed(&file), None);
}

/// Records.
pub fn record_seeds() -> Vec<Vec<u8>> {
    [
        &b"v=STSv1; id=20160831085700Z;"[..],
        b"v=STSv1;id=a; x=y; id=b",
        b"v=STSv1; id=a\0v=STSv1; id=b",
        b"v=spf1 -all\0v=STSv1; id=1;;",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as TXT records, with NULs between: at most one id, of 1 to 32 letters and
/// digits, from one record.
pub fn record(bytes: &[u8]) {
    let records: Vec<Vec<u8>> = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    // RFC 8461, 3.1: blanks may stand before the semicolon.
    let is_ours = |one: &&Vec<u8>| {
        let rest = one.strip_prefix(b"v=STSv1");
        rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b";"))
    };
    let ours = records.iter().filter(is_ours).count();
    match id(&records) {
        Ok(Some(id)) => {
            assert!(
                (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
            );
            assert_eq!(ours, 1);
            let record = records.iter().find(is_ours).expect("it is there");
            let mut fields = record.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let first = fields.find_map(|field| field.strip_prefix(b"id="));
            assert_eq!(first, Some(id.as_bytes()));
        }
        Ok(None) => assert_eq!(ours, 0),
        Err(why) => {
            assert!(
                ours > 0
                    && why
                        .to_string()
                        .bytes()
                        .all(|byte| (0x20..0x7f).contains(&byte))
            );
        }
    }
}

/// Replies.
pub fn reply_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x20HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"[..],
        b"\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n",
        b"\xffHTTP/1.0 301 Moved\r\nLocation: /x\r\n\r\nhello",
        b"\x07HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as a reply: it ends within its limits, says the same however the bytes are
/// cut, and its words can be shown.
pub fn reply(bytes: &[u8]) {
    const LIMIT: usize = 64;
    let [piece, bytes @ ..] = bytes else {
        return;
    };
    let read = |piece: usize| {
        let mut server = Server {
            bytes,
            piece,
            heard: Vec::new(),
            given: 0,
        };
        read(&mut server, LIMIT)
    };
    let whole = read(4096);
    match &whole {
        Ok(response) => {
            assert!(response.body.len() <= LIMIT && (200..1000).contains(&response.status));
            assert!(response.end != End::Torn);
        }
        Err(NoReply::Bad(why)) => assert!(why.is_ascii()),
        Err(NoReply::Late) => panic!("nothing is late"),
    }
    let cut = read(usize::from(*piece).max(1));
    assert_eq!(cut.ok(), whole.ok());
}
