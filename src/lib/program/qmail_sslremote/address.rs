//! Addresses as RFC 5321 wants them between `<` and `>`.
#![forbid(unsafe_code)]

/// Bytes of an atom, RFC 5322 section 3.2.3, and those over 127 (RFC 6531).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte > 127 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// The address with its local part quoted where it must be, as qmail-remote does
/// it. `None` where no quoting helps: a line end or a NUL would end the command.
#[must_use]
pub fn quote(address: &[u8]) -> Option<Vec<u8>> {
    if address.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return None;
    }
    let at = address.iter().rposition(|&byte| byte == b'@');
    let (local, domain) = address.split_at(at.unwrap_or(address.len()));
    if domain.iter().any(|byte| matches!(byte, b'<' | b'>' | b' ')) {
        return None;
    }
    let atoms = local.split(|&byte| byte == b'.');
    let plain = local.is_empty()
        || atoms
            .into_iter()
            .all(|atom| !atom.is_empty() && atom.iter().all(|&byte| is_plain(byte)));
    if plain {
        return Some(address.to_vec());
    }
    let mut quoted = vec![b'"'];
    for &byte in local {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted.extend_from_slice(domain);
    Some(quoted)
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn what_needs_quotes_gets_them() {
        for (address, wanted) in [
            (&b"a.b@x"[..], Some(&b"a.b@x"[..])),
            (b"", Some(b"")),
            (b"#@[]", Some(b"#@[]")),
            (b"a b@x", Some(b"\"a b\"@x")),
            (b"a\"\\@b@x", Some(b"\"a\\\"\\\\@b\"@x")),
            (b".a@x", Some(b"\".a\"@x")),
            (b"a..b@x", Some(b"\"a..b\"@x")),
            (b"a>b@x", Some(b"\"a>b\"@x")),
            (b"\xc3\xa4@x", Some(b"\xc3\xa4@x")),
            (b"a\r\nDATA@x", None),
            (b"a@x> X=<", None),
            (b"a\0@x", None),
        ] {
            assert_eq!(quote(address).as_deref(), wanted, "{address:?}");
        }
    }
}
