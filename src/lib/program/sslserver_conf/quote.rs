//! One word, as it has to stand in a shell script, a makefile or a unit of systemd
//! to be that word again.
#![forbid(unsafe_code)]

/// What means nothing but itself to any of them.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_./:@+,-".contains(&byte)
}

/// For sh: within single quotes everything but the single quote is itself.
pub(super) fn shell(word: &[u8]) -> Vec<u8> {
    if !word.is_empty() && word.iter().copied().all(is_plain) {
        return word.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in word {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// For a line that make(1) gives to sh.
pub(super) fn recipe(word: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::new();
    for byte in shell(word) {
        if byte == b'$' {
            quoted.push(byte);
        }
        quoted.push(byte);
    }
    quoted
}

/// For a command line in a unit, as systemd.service(5) says.
pub(super) fn unit(word: &[u8]) -> Vec<u8> {
    in_unit(word, b"%$")
}

/// For an assignment in a unit, which knows no variables (systemd.exec(5)).
pub(super) fn assignment(word: &[u8]) -> Vec<u8> {
    in_unit(word, b"%")
}

/// What is no UTF-8 cannot stand in a unit as it is; what is `special` stands there
/// twice.
fn in_unit(word: &[u8], special: &[u8]) -> Vec<u8> {
    if !word.is_empty() && word.iter().copied().all(is_plain) {
        return word.to_vec();
    }
    let is_text = std::str::from_utf8(word).is_ok();
    let mut quoted = vec![b'"'];
    for &byte in word {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', byte]),
            byte if special.contains(&byte) => quoted.extend([byte, byte]),
            byte if byte < b' ' || byte == 0x7f || !is_text && !byte.is_ascii() => {
                quoted.extend(format!("\\x{byte:02x}").into_bytes());
            }
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_it_must_be() {
        type Quoted = [&'static str; 3];
        let table: [(&[u8], Quoted); 8] = [
            (b"/usr/sbin/popa3d", ["/usr/sbin/popa3d"; 3]),
            (b"", ["''", "''", "\"\""]),
            (b"a b", ["'a b'", "'a b'", "\"a b\""]),
            (b"it's", ["'it'\\''s'", "'it'\\''s'", "\"it's\""]),
            (b"$H%n", ["'$H%n'", "'$$H%n'", "\"$$H%%n\""]),
            (b"a\"\\", ["'a\"\\'", "'a\"\\'", "\"a\\\"\\\\\""]),
            (b"a\nb", ["'a\nb'", "'a\nb'", "\"a\\x0ab\""]),
            ("\u{e9}".as_bytes(), ["'\u{e9}'", "'\u{e9}'", "\"\u{e9}\""]),
        ];
        for (word, [in_shell, in_recipe, in_unit]) in table {
            assert_eq!(shell(word), in_shell.as_bytes(), "{word:?}");
            assert_eq!(recipe(word), in_recipe.as_bytes(), "{word:?}");
            assert_eq!(unit(word), in_unit.as_bytes(), "{word:?}");
        }
        assert_eq!(unit(b"\xe9 "), b"\"\\xe9 \"");
        assert_eq!(assignment(b"A=$b%n"), b"\"A=$b%%n\"");
    }
}
