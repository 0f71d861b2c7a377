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
            [b' ' | b'\t', ..] => {
                if let Some((_, value)) = fields.last_mut() {
                    value.extend_from_slice(line);
                }
            }
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
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let named = name.trim_ascii().eq_ignore_ascii_case(b"report-type");
        named.then(|| value.to_ascii_lowercase())
    });
    let types: Vec<Vec<u8>> = types.collect();
    matches!(&types[..], [one] if one == b"tlsrpt")
}

/// What stands between semicolons, without quotes; `None` for a quote without end.
fn parts(value: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts = vec![Vec::new()];
    let mut quoted = false;
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b';' if !quoted => parts.push(Vec::new()),
            byte => {
                let byte = if quoted && byte == b'\\' {
                    *bytes.next()?
                } else {
                    byte
                };
                parts.last_mut()?.push(byte);
            }
        }
    }
    (!quoted).then_some(parts)
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
            "Content-Type: multipart/report; report-type=tlsrpt; report-type=x\n\n",
            "Content-Type: text/plain\nContent-Type: multipart/report; report-type=tlsrpt\n\n",
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
