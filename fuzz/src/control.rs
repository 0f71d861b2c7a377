//! The two sockets between a session's processes: what a program writes on its
//! control socket, and the variables that a launcher takes from an engine.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use ucspi_tls::internals::control::{TlsCommand, wait_for_start};
use ucspi_tls::internals::environ::Edits;
use ucspi_tls::internals::fd;
use ucspi_tls::internals::session;

/// More than this is not written at once: a pipe holds it.
const PIPE: usize = 4096;

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
    let (reader, writer) = fd::pipe().expect("a pipe");
    let told = &bytes[..bytes.len().min(PIPE)];
    fd::write_all(&writer, told).expect("it fits");
    drop(writer);
    let (expected, rest) = read(told);
    let found = wait_for_start(&reader).map_err(drop);
    assert_eq!(found, expected);
    if let Ok(Some(_)) = expected {
        let mut left = [0; PIPE];
        let mut count = 0;
        while let Ok(more @ 1..) = fd::read_some(&reader, &mut left[count..]) {
            count += more;
        }
        assert_eq!(&left[..count], rest);
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
