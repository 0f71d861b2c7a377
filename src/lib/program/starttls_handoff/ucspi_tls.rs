//! The program's end of UCSPI-TLS: finding the three descriptors, asking for
//! TLS, and reading the variables that come back.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use crate::environ::Edits;
use crate::report::Fail;
use crate::sys::fd;
use crate::sys::poll::{self, Ready};

/// Variables that tell a program of the control socket. No program of ours
/// passes them on: the descriptors are gone.
pub(super) const NAMES: [&str; 4] = ["SSLCTLFD", "SSLREADFD", "SSLWRITEFD", "SSLCTLEXT"];

/// The largest set of variables that is taken, in bytes. Ours end at 64 KiB.
const ANSWER_LIMIT: usize = 1 << 20;

/// The three descriptors.
#[derive(Debug)]
pub(super) struct Control {
    socket: OwnedFd,
    /// Plaintext from the client, once TLS is up.
    pub(super) read: OwnedFd,
    /// Plaintext to the client, once TLS is up.
    pub(super) write: OwnedFd,
    /// The server drops greetings (`reply` in `SSLCTLEXT`).
    pub(super) drops_replies: bool,
    /// Plaintext comes behind the answer, on the same socket.
    shared: bool,
}

/// How a handshake ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// TLS is up; these describe it.
    Up(Edits),
    /// It failed, and the server said no more.
    Failed,
    /// The deadline passed first.
    Late,
}

impl Control {
    /// Takes over what the server left, so that nothing of it reaches another
    /// program.
    pub(super) fn inherit(variable: impl Fn(&str) -> Option<OsString>) -> Result<Control, Fail> {
        let number = |name: &str| -> Result<RawFd, Fail> {
            let value = variable(name).unwrap_or_default();
            let number = value.to_str().and_then(|text| text.parse().ok());
            number.filter(|&number| number > 2).ok_or_else(|| {
                Fail::temporary(format!("no UCSPI-TLS server above: {name} is not set"))
            })
        };
        let (control, read, write) = (
            number("SSLCTLFD")?,
            number("SSLREADFD")?,
            number("SSLWRITEFD")?,
        );
        let take = |name: &str, number| -> Result<OwnedFd, Fail> {
            fd::inherited(number).ok_or_else(|| {
                Fail::temporary(format!(
                    "no UCSPI-TLS server above: {name} {number} is not open"
                ))
            })
        };
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(Fail::unable("set up descriptors"));
        // Some servers give one socket for two or all of the three.
        let socket = take("SSLCTLFD", control)?;
        let taken = if read == control {
            copy(&socket)?
        } else {
            take("SSLREADFD", read)?
        };
        let write = if write == control {
            copy(&socket)?
        } else if write == read {
            copy(&taken)?
        } else {
            take("SSLWRITEFD", write)?
        };
        let extensions = variable("SSLCTLEXT").unwrap_or_default();
        Ok(Control {
            socket,
            read: taken,
            write,
            drops_replies: extensions
                .as_bytes()
                .split(|&byte| byte == b' ')
                .any(|word| word == b"reply"),
            shared: read == control,
        })
    }

    /// The control socket, to watch for the server's end.
    pub(super) fn as_borrowed(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    #[cfg(test)]
    pub(super) fn of(socket: OwnedFd, read: OwnedFd, write: OwnedFd) -> Control {
        Control {
            socket,
            read,
            write,
            drops_replies: true,
            shared: false,
        }
    }

    /// Whether the server could still start TLS: it says nothing before it is
    /// asked, so anything to read is its end.
    pub(super) fn is_alive(&self) -> bool {
        poll::one(self.socket.as_fd(), Ready::READ, Instant::now()).is_ok_and(Ready::is_nothing)
    }

    /// Asks for TLS. Where the server can, it drops so many replies of the
    /// program's that is started next.
    pub(super) fn start(&self, replies: usize) -> Result<(), Fail> {
        let mut command = Vec::new();
        if self.drops_replies && replies > 0 {
            let digits = replies.to_string();
            command.extend_from_slice(format!("R{}:{digits},", digits.len()).as_bytes());
        }
        command.push(b'Y');
        fd::write_all(&self.socket, &command).map_err(Fail::unable("ask for TLS"))
    }

    /// Waits for the end of the handshake.
    pub(super) fn answer(&self, deadline: Instant) -> Result<Answer, Fail> {
        let mut answer = Variables::default();
        let mut piece = [0; 8192];
        let most = if self.shared { 1 } else { piece.len() };
        loop {
            let came = poll::one(self.socket.as_fd(), Ready::READ, deadline);
            if came.map_err(Fail::unable("wait for TLS"))?.is_nothing() {
                return Ok(Answer::Late);
            }
            match fd::read_some(&self.socket, &mut piece[..most]) {
                Ok(0) | Err(_) => return Ok(Answer::Failed),
                Ok(count) => {
                    if let Some(edits) = answer.take(&piece[..count])? {
                        return Ok(Answer::Up(edits));
                    }
                }
            }
        }
    }
}

/// A server's variables as far as they have come.
#[derive(Debug, Default)]
pub struct Variables(Vec<u8>);

impl Variables {
    /// Takes the next bytes, of which none is looked at again. Gives the variables
    /// when their list is complete.
    ///
    /// # Errors
    /// They are too many.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Edits>, Fail> {
        // The first half of its end may be there already.
        let from = self.0.len().saturating_sub(1);
        self.0.extend_from_slice(bytes);
        let end = self.0[from..].windows(2).position(|pair| pair == [0, 0]);
        if let Some(end) = end {
            return Ok(Some(edits(&self.0[..from + end])));
        }
        if self.0.len() > ANSWER_LIMIT {
            return Err(Fail::temporary(
                "the UCSPI-TLS server sent more than 1 MiB of variables",
            ));
        }
        Ok(None)
    }
}

/// The variables of a complete answer. Those whose names do not speak of TLS
/// are dropped: the process that sends them reads the client's bytes, and must
/// not choose, say, the program's `PATH`.
fn edits(answer: &[u8]) -> Edits {
    let mut edits = Edits::new();
    for item in answer.split(|&byte| byte == 0) {
        let (name, value) = match item.iter().position(|&byte| byte == b'=') {
            Some(at) => (&item[..at], &item[at + 1..]),
            None => continue,
        };
        let spoken = name.starts_with(b"SSL_") || name.starts_with(b"TLS_");
        if spoken && !is_one_of_libssl(name) {
            edits.set(name, value);
        }
    }
    edits
}

/// Variables that tell a program's own libssl whom to trust.
fn is_one_of_libssl(name: &[u8]) -> bool {
    name == b"SSL_CERT_FILE" || name == b"SSL_CERT_DIR"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn applied(edits: &Edits) -> Vec<String> {
        edits
            .apply([])
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect()
    }

    fn variables(wire: &[u8]) -> Option<Edits> {
        Variables::default().take(wire).expect("not too many")
    }

    /// Where the socket is the plaintext's, too, each byte comes by itself: what is
    /// looked at again with each would take hours.
    #[test]
    fn a_long_list_is_read_byte_by_byte() {
        let long = [
            &b"SSL_CLIENT_CERT="[..],
            &vec![b'x'; ANSWER_LIMIT - 20],
            b"\0\0",
        ]
        .concat();
        let mut answer = Variables::default();
        let (last, all) = long.split_last().expect("bytes");
        for byte in all {
            assert!(answer.take(&[*byte]).expect("not too many").is_none());
        }
        let edits = answer.take(&[*last]).expect("not too many");
        assert_eq!(applied(&edits.expect("complete"))[0].len(), long.len() - 2);
        let mut answer = Variables::default();
        assert!(answer.take(&vec![b'x'; ANSWER_LIMIT]).is_ok());
        assert!(answer.take(b"x").is_err());
    }

    #[test]
    fn variables_are_read_when_their_list_is_complete() {
        let wire = b"SSL_PROTOCOL=TLSv1.3\0SSL_ALPN=\0PATH=/tmp\0SSLCTLFD=9\0SSL_CERT_FILE=x\0junk\0TLS_X=a=b\0\0";
        for cut in 0..wire.len() {
            assert!(variables(&wire[..cut]).is_none(), "{cut}");
        }
        let edits = variables(wire).expect("complete");
        assert_eq!(
            applied(&edits),
            ["SSL_ALPN=", "SSL_PROTOCOL=TLSv1.3", "TLS_X=a=b"]
        );
        assert!(applied(&variables(b"\0\0").expect("complete")).is_empty());
        assert!(variables(b"\0").is_none() && variables(b"").is_none());
    }

    #[test]
    fn the_command_names_the_replies_where_the_server_knows_how() {
        for (extensions, replies, expected) in [
            (Some("reply"), 1, &b"R1:1,Y"[..]),
            (Some("other reply"), 12, b"R2:12,Y"),
            (Some("reply"), 0, b"Y"),
            (Some("replying"), 1, b"Y"),
            (None, 1, b"Y"),
        ] {
            let (ours, theirs) = fd::stream_pair().expect("sockets");
            let (other, _) = fd::stream_pair().expect("sockets");
            for end in [&ours, &other] {
                fd::set_close_on_exec(end, false).expect("as if from a server");
            }
            let numbers = (ours.as_raw_fd(), other.as_raw_fd());
            let control = Control::inherit(|name| {
                let value = match name {
                    "SSLCTLFD" => numbers.0.to_string(),
                    "SSLCTLEXT" => extensions?.to_owned(),
                    _ => numbers.1.to_string(),
                };
                Some(value.into())
            });
            // Taken over by number.
            std::mem::forget((ours, other));
            let control = control.expect("descriptors");
            assert!(control.is_alive());
            control.start(replies).expect("writes");
            let mut got = [0; 20];
            let count = fd::read_some(&theirs, &mut got).expect("reads");
            assert_eq!(&got[..count], expected);
            drop(theirs);
            assert!(!control.is_alive());
            let answer = control.answer(Instant::now()).expect("reads");
            assert!(matches!(answer, Answer::Failed), "{answer:?}");
        }
    }

    #[test]
    fn without_a_server_it_says_so() {
        for (value, reason) in [
            (None, "SSLCTLFD is not set"),
            (Some("x"), "SSLCTLFD is not set"),
            (Some("1"), "SSLCTLFD is not set"),
            (Some("999"), "SSLCTLFD 999 is not open"),
        ] {
            let fail = Control::inherit(|_| value.map(OsString::from)).expect_err("no server");
            assert!(fail.to_string().contains(reason), "{fail}");
            assert_eq!(fail.code(), 111);
        }
    }
}
