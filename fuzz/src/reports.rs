//! What sslreport and qmail-sslremote read for TLS reports.

use std::collections::BTreeMap;

use serde_json::Value;
use ucspi_tls::internals::tlsrpt::ledger::{self, State, line};
use ucspi_tls::internals::tlsrpt::record::{MOST, Receiver, destinations, host_name};
use ucspi_tls::internals::tlsrpt::{header, journal};

/// Records as domains publish them.
pub fn record_seeds() -> Vec<Vec<u8>> {
    [
        &b"v=TLSRPTv1; rua=mailto:r@a.example"[..],
        b"v=TLSRPTv1;rua=mailto:R%2bx@a.example,https://l.example:8443/v1?a=b#c;ext=1;",
        b"v=TLSRPTv1; rua=http://a.example/\0v=TLSRPTv1; rua=mailto:r@a.example",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// Any bytes as TXT records with a NUL between: what comes out can stand in a header,
/// on a line and in a request, and is read again as the same.
pub fn report_record(bytes: &[u8]) {
    let texts: Vec<Vec<u8>> = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    let found = destinations(&texts);
    assert!(found.len() <= MOST);
    for destination in found {
        let shown = destination.to_string();
        assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{shown}");
        match &destination {
            Receiver::Mail(address) => {
                let (local, host) = address.rsplit_once('@').expect("an address");
                let special = |c: char| "\"(),:;<>@[\\]".contains(c);
                assert!(!local.is_empty() && !local.contains(special), "{address}");
                assert_eq!(host_name(host).as_deref(), Some(host));
            }
            Receiver::Post(url) => {
                let host = url.host.as_str();
                assert_eq!(host_name(host).as_deref(), Some(host));
                assert!(url.port > 0 && url.path.starts_with('/'), "{shown}");
            }
        }
        // A `%` of an address, and what ends a field, are not as they were published.
        if !shown.contains(['%', ';', ',', '?', '#', '!']) {
            let again = format!("v=TLSRPTv1; rua={shown}").into_bytes();
            assert_eq!(destinations(&[again]), [destination]);
        }
    }
}

/// A file with a good line, a half and a good one behind it.
pub fn sessions_seeds() -> Vec<Vec<u8>> {
    let line = br#"{"time":"2026-01-31T12:00:00Z","policy-type":"tlsa","policy-string":["3 1 1 00"],"policy-domain":"a.example","receiving-mx-hostname":"mx.a.example","receiving-ip":"192.0.2.1","result-type":"validation-failure"}"#;
    vec![
        [&line[..], b"\n", &line[..30], line, b"\n\n\xff\n{}"].concat(),
        line.to_vec(),
    ]
}

/// Any bytes as the file of a day: each line is a session, or counts as damaged, or is
/// empty; a line that ends in a whole session behind half of another is both.
pub fn report_sessions(bytes: &[u8]) {
    let mut sessions = 0;
    let damaged = journal::read(bytes, |session| {
        sessions += 1;
        let line = serde_json::to_vec(&session).expect("JSON");
        let mut again = Vec::new();
        let none = journal::read(&*line, |session| again.push(session)).expect("read");
        assert_eq!((none, &again[..]), (0, &[session][..]));
        // A delivery that was stopped in the middle of its line costs that line alone.
        let half = [&line[..bytes.len() % line.len()], &line].concat();
        let mut behind = Vec::new();
        let damaged = journal::read(&*half, |session| behind.push(session)).expect("read");
        assert!(damaged == u64::from(half.len() > line.len()) && behind == again);
    });
    let damaged = damaged.expect("no error of memory's");
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty()).count() as u64;
    assert!(sessions <= lines && damaged <= lines && sessions + damaged >= lines);
}

/// Headers of a report and of other mail.
pub fn header_seeds() -> Vec<Vec<u8>> {
    [
        &b"To: a\r\ncontent-type: multipart/report;\r\n\tboundary=\"a;b\"; report-type=\"TLSRPT\"\r\n\r\nx"[..],
        b"Content-Type: text/plain\n\nContent-Type: multipart/report; report-type=tlsrpt\n\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// Any bytes as a message: what is taken for a report has the words for it, before an
/// empty line.
pub fn report_header(bytes: &[u8]) {
    if header::is_report(bytes) {
        let lower = bytes.to_ascii_lowercase();
        let lines = lower.split(|&byte| byte == b'\n');
        let head = lines.take_while(|line| !line.trim_ascii_end().is_empty());
        let mut head = head.collect::<Vec<_>>().concat();
        // What is quoted may have them anywhere.
        head.retain(|&byte| byte != b'\\');
        let has = |word: &[u8]| head.windows(word.len()).any(|some| some == word);
        assert!(has(b"content-type") && has(b"report") && has(b"tlsrpt"));
        let lines = lower.split(|&byte| byte == b'\n');
        let head = lines.take_while(|line| !line.trim_ascii_end().is_empty());
        let kind = |line: &&[u8]| {
            let rest = line.strip_prefix(b"content-type");
            rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"))
        };
        assert_eq!(head.filter(kind).count(), 1);
    }
    let sound = b"Content-Type: multipart/report; report-type=tlsrpt\n\n";
    assert!(header::is_report(&[&sound[..], bytes].concat()));
}

/// What was noted of a day's reports.
pub fn ledger_seeds() -> Vec<Vec<u8>> {
    let noted = [
        line("a.example", "mailto:r@a.example", State::Begun),
        line("a.example", "mailto:r@a.example", State::Sent),
        line("b.example", "https://b.example/\u{e9}\"", State::Begun),
        line("b.example", "https://b.example/\u{e9}\"", State::Failed),
    ];
    let whole = noted.map(|line| line.expect("JSON")).concat();
    vec![
        whole[..whole.len() - 9].to_vec(),
        [b"\xff\n", &whole[..]].concat(),
        whole,
    ]
}

/// What a line notes, as another reader has it.
fn noted(line: &[u8]) -> Option<((String, String), State)> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let word = |name: &str, at: usize| value.get(name).or_else(|| value.get(at))?.as_str();
    let state = match word("state", 2)? {
        "begun" => State::Begun,
        "sent" => State::Sent,
        "failed" => State::Failed,
        _ => return None,
    };
    Some((
        (word("domain", 0)?.to_owned(), word("rua", 1)?.to_owned()),
        state,
    ))
}

fn states(bytes: &[u8]) -> BTreeMap<(String, String), State> {
    ledger::states(bytes).expect("bytes are read without a failure")
}

/// Any bytes as the account of a day's reports: each state is one that a line notes, the
/// last of those that are whole; one more line changes the state of its report alone;
/// and of one that was cut off nothing is read, or all of it.
pub fn report_ledger(bytes: &[u8]) {
    let found = states(bytes);
    let mut wanted = BTreeMap::new();
    for text in bytes.split(|&byte| byte == b'\n') {
        if let Some((key, state)) = noted(text) {
            let own = line(&key.0, &key.1, state).expect("JSON");
            if own.strip_suffix(b"\n") == Some(text) {
                wanted.insert(key, state);
            } else if found.contains_key(&key) {
                // Fields twice or others besides: a matter of the reader.
                wanted.remove(&key);
            }
        }
    }
    for (key, state) in &wanted {
        assert_eq!(found.get(key), Some(state), "{key:?}");
    }
    let lines = || bytes.split(|&byte| byte == b'\n').filter_map(noted);
    // In what is not asked for serde_json takes what is no value: bytes that are not
    // UTF-8, halves of surrogates, numbers beyond all.
    let odd = |line: &[u8]| {
        let line = line.trim_ascii();
        let closed = line.ends_with(b"}") || line.ends_with(b"]");
        closed && serde_json::from_slice::<Value>(line).is_err()
    };
    if found.len() < 100 && !bytes.split(|&byte| byte == b'\n').any(odd) {
        for (key, state) in &found {
            assert!(lines().any(|(of, noted)| of == *key && noted == *state));
        }
    }
    let end: &[u8] = if bytes.is_empty() || bytes.ends_with(b"\n") {
        b""
    } else {
        b"\n"
    };
    let mut halves = bytes
        .splitn(2, |&byte| byte == b'\n')
        .map(String::from_utf8_lossy);
    let domain = halves.next().unwrap_or_default();
    let rua = halves.next().unwrap_or_default();
    for state in [State::Begun, State::Sent, State::Failed] {
        let one = line(&domain, &rua, state).expect("JSON");
        assert_eq!(
            one.iter().position(|&byte| byte == b'\n'),
            Some(one.len() - 1)
        );
        let mut expected = found.clone();
        expected.insert((domain.to_string(), rua.to_string()), state);
        assert_eq!(states(&[bytes, end, &one].concat()), expected);
        let cut = bytes.len() % one.len();
        let torn = states(&[bytes, end, &one[..cut]].concat());
        // Without its line feed a line is whole too.
        assert_eq!(
            torn,
            if cut + 1 == one.len() {
                expected
            } else {
                found.clone()
            }
        );
    }
}
