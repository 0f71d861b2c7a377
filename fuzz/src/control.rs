//! The two sockets between a session's processes: what a program writes on its
//! control socket, and the variables that a launcher takes from an engine.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use ucspi_tls::internals::control::{TlsCommand, command_in};
use ucspi_tls::internals::environ::Edits;
use ucspi_tls::internals::handoff::Variables;
use ucspi_tls::internals::session;

/// Inputs that reach far.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        &b"y"[..],
        b"Y",
        b"R1:1,Y",
        b"R2:12,R4:1000,y",
        b"R1:1",
        b"R5:10000,y",
        b"SSL_CIPHER=x\0SSL_CLIENT_S_DN_CN=y\0\0",
        b"LD_PRELOAD=/x\0SSL_PROTOCOL=TLSv1.3\0\0",
        b"\0\0",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as a program's commands: what comes of them is what the grammar
/// says, and nothing behind the command is read. Any bytes as an engine's
/// variables: no name but a session's gets through, and what is taken says the
/// same when it is said again.
pub fn control(bytes: &[u8]) {
    let mut left = bytes.iter();
    let found = command_in(|| Ok(left.next().copied())).map_err(drop);
    let (expected, rest) = read(bytes);
    assert_eq!(found, expected);
    if let Ok(Some(_)) = expected {
        assert_eq!(left.as_slice(), rest);
    }
    let Some(mut edits) = Edits::from_wire(bytes) else {
        return;
    };
    edits.restrict(session::is_variable);
    let environment = edits.apply([(OsString::from("PATH"), OsString::from("/bin"))]);
    for name in environment.keys() {
        let name = name.to_string_lossy();
        assert!(name == "PATH" || name.starts_with("SSL_"), "{name}");
        assert!(!name.contains('='));
    }
    let again = Edits::from_wire(&edits.to_wire()).expect("our own form");
    assert_eq!(again.to_wire(), edits.to_wire());
}

/// What servers answer a program.
pub fn handoff_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x01SSL_CIPHER=x\0TLS_SNI=y\0PATH=/x\0\0behind"[..],
        b"\x05SSL_CERT_FILE=/x\0SSL_\0=x\0SSL_=\0\0",
        b"\x02\0\0",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as the answer to a program that asked for TLS: it ends with the same
/// byte, and says the same, however it is cut; no name gets through that does not
/// speak of TLS.
pub fn handoff(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else {
        return;
    };
    let read = |size: usize| {
        let mut answer = Variables::default();
        for (number, piece) in bytes.chunks(size).enumerate() {
            if let Some(edits) = answer.take(piece).expect("not too many") {
                return Some((number, edits.apply([])));
            }
        }
        None
    };
    let end = bytes.windows(2).position(|pair| pair == [0, 0]);
    let bytewise = read(1);
    assert_eq!(bytewise.as_ref().map(|(number, _)| number - 1), end);
    let size = usize::from(size).max(1);
    for other in [read(size), read(bytes.len().max(1))] {
        assert_eq!(
            other.map(|(_, all)| all),
            bytewise.as_ref().map(|(_, all)| all.clone())
        );
    }
    for (name, value) in bytewise.into_iter().flat_map(|(_, all)| all) {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        assert!(
            name.starts_with("SSL_") || name.starts_with("TLS_"),
            "{name}"
        );
        assert!(name != "SSL_CERT_FILE" && name != "SSL_CERT_DIR");
        assert!(!name.contains(['=', '\0']) && !value.contains('\0'));
    }
}

/// A second opinion on ucspi-tls(7)'s grammar: any number of `R` with a netstring
/// of one to four digits that are at most 1000, then `y` or `Y`.
fn read(mut bytes: &[u8]) -> (Result<Option<TlsCommand>, ()>, &[u8]) {
    let wrong = Err(());
    let mut drop_replies = 0;
    loop {
        match bytes {
            [] => return (Ok(None), bytes),
            [command @ (b'y' | b'Y'), rest @ ..] => {
                let answer = *command == b'Y';
                let start = TlsCommand {
                    answer,
                    drop_replies,
                };
                return (Ok(Some(start)), rest);
            }
            [b'R', rest @ ..] => {
                let (size, rest) = match rest {
                    [] => return (Ok(None), rest),
                    [size @ b'1'..=b'4', rest @ ..] => (usize::from(size - b'0'), rest),
                    _ => return (wrong, rest),
                };
                let rest = match rest {
                    [] => return (Ok(None), rest),
                    [b':', rest @ ..] => rest,
                    _ => return (wrong, rest),
                };
                let digits = &rest[..rest.len().min(size)];
                if !digits.iter().all(u8::is_ascii_digit) {
                    return (wrong, rest);
                }
                let rest = &rest[digits.len()..];
                if digits.len() < size || rest.is_empty() {
                    return (Ok(None), rest);
                }
                let number = digits
                    .iter()
                    .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
                if number > 1000 || rest[0] != b',' {
                    return (wrong, rest);
                }
                drop_replies = number;
                bytes = &rest[1..];
            }
            _ => return (wrong, bytes),
        }
    }
}
