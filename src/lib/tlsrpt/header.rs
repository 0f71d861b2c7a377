//! Whether a message is a TLS report: RFC 8460, 5.3.
#![forbid(unsafe_code)]

/// How much of a message is looked at: a header that is longer is no report's.
pub const LIMIT: usize = 64 * 1024;

/// Whether a message, or its beginning, has the header of a report: one
/// Content-Type, multipart/report with the report-type tlsrpt. What MIME readers may
/// take in different ways is none.
#[must_use]
pub fn is_report(message: &[u8]) -> bool {
    let mut found = None;
    for (name, value) in fields(message) {
        if name.eq_ignore_ascii_case(b"content-type") && found.replace(value).is_some() {
            return false;
        }
    }
    found.is_some_and(|value| is_tls_report(&value))
}

/// The fields of a header, unfolded; up to the empty line, which must be there.
fn fields(message: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let message = &message[..message.len().min(LIMIT)];
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            return Vec::new();
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line {
            [] => return fields,
            // Some take a line of blanks for the end, and nothing is before the first.
            blank if blank.trim_ascii().is_empty() => return Vec::new(),
            [b' ' | b'\t', ..] => match fields.last_mut() {
                Some((_, value)) => value.extend_from_slice(line),
                None => return Vec::new(),
            },
            _ => {
                let colon = line.iter().position(|&byte| byte == b':');
                let (name, value) = line.split_at(colon.unwrap_or(line.len()));
                let value = value.strip_prefix(b":").unwrap_or(value);
                fields.push((name.trim_ascii_end().to_vec(), value.to_vec()));
            }
        }
    }
    Vec::new()
}

/// A value of Content-Type.
fn is_tls_report(value: &[u8]) -> bool {
    let Some(parts) = parts(value) else {
        return false;
    };
    let mut parts = parts.iter();
    let first = parts.next();
    if !first.is_some_and(|first| first.trim_ascii().eq_ignore_ascii_case(b"multipart/report")) {
        return false;
    }
    let types = parts.filter_map(|part| {
        let equals = part.iter().position(|&byte| byte == b'=')?;
        let (name, value) = part.split_at(equals);
        let named = name.trim_ascii().eq_ignore_ascii_case(b"report-type");
        named.then(|| unquoted(value.get(1..).unwrap_or_default().trim_ascii()))
    });
    let types: Vec<Vec<u8>> = types.collect();
    matches!(&types[..], [one] if one.eq_ignore_ascii_case(b"tlsrpt"))
}

/// What stands between semicolons that are not quoted; `None` for a quote without end.
fn parts(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                parts.push(value.get(begin..at)?);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(value.get(begin..)?);
    (!quoted).then_some(parts)
}

/// A value without the quotes around it.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return value.to_vec();
    };
    let mut bytes = inner.iter();
    let mut out = Vec::with_capacity(inner.len());
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => bytes.next().copied().unwrap_or_default(),
            byte => byte,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_from_other_mail() {
        for header in [
            "Content-Type: multipart/report; report-type=tlsrpt; boundary=x\n\n",
            "To: a\r\ncontent-type : Multipart/Report;\r\n\tboundary=\"a;b\";\r\n report-type=\"TLSRPT\"\r\n\r\nx",
        ] {
            assert!(is_report(header.as_bytes()), "{header}");
        }
        for header in [
            "",
            "Subject: multipart/report; report-type=tlsrpt\n\n",
            "Content-Type: multipart/report; report-type=tlsrpt\n",
            "Content-Type: multipart/report; report-type=tlsrpt",
            "Content-Type: multipart/report; report-type=delivery-status\n\n",
            "Content-Type: multipart/mixed; report-type=tlsrpt\n\n",
            "Content-Type: multipart/report; x=\"; report-type=tlsrpt\"\n\n",
            "Content-Type: multipart/report; report-type=tlsrpt; x=\"\n\n",
            "Content-Type: \"multipart/report\"; report-type=tlsrpt\n\n",
            "Content-Type: multipart/report; \"report-type\"=tlsrpt\n\n",
            "Content-Type: multipart/report; report-type=\"tlsrpt\\\"\n\n",
            "Content-Type: multipart/report; report-type=tlsrpt; report-type=x\n\n",
            "Content-Type: text/plain\nContent-Type: multipart/report; report-type=tlsrpt\n\n",
            " a\nContent-Type: multipart/report; report-type=tlsrpt\n\n",
            "A: b\n \nContent-Type: multipart/report; report-type=tlsrpt\n\n",
            "A: b\n\nContent-Type: multipart/report; report-type=tlsrpt\n\n",
        ] {
            assert!(!is_report(header.as_bytes()), "{header}");
        }
        let long = [
            &vec![b'x'; LIMIT][..],
            b":\nContent-Type: multipart/report; report-type=tlsrpt\n\n",
        ];
        assert!(!is_report(&long.concat()));
    }
}
