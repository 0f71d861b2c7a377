//! QMTP, the client's side (https://cr.yp.to/proto/qmtp.txt): a package out, one
//! response for each recipient back, all in netstrings.
#![forbid(unsafe_code)]

use super::DialogueError;
use super::lines::{Lines, REPLY_LIMIT, Stream};

/// What a server says of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Of the recipient.
    pub disposition: Disposition,
    /// Any bytes.
    pub text: Vec<u8>,
}

/// `K`, `Z` and `D`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The message is the server's now.
    Accepted,
    /// It may work later.
    Later,
    /// It never will.
    Never,
}

impl Response {
    /// Reads a response.
    ///
    /// # Errors
    /// [`DialogueError::TooLong`] over [`REPLY_LIMIT`] bytes, before any of them is
    /// waited for; [`DialogueError::Malformed`] where it is no netstring or begins with
    /// another letter; failures of [`Lines`].
    pub fn read<S: Stream>(
        lines: &mut Lines<S>,
        place: &'static str,
    ) -> Result<Response, DialogueError> {
        let mut length = 0;
        let mut digits = Vec::new();
        loop {
            let byte = lines.bytes(1, place)?[0];
            digits.push(byte);
            match byte {
                b'0'..=b'9' if digits[0] != b'0' || digits.len() == 1 => {
                    length = length * 10 + usize::from(byte - b'0');
                }
                b':' if length > 0 => break,
                // Zeros in front are prohibited, and so is an empty response.
                _ => return Err(DialogueError::Malformed(place, digits)),
            }
            if length > REPLY_LIMIT {
                return Err(DialogueError::TooLong(place));
            }
        }
        let mut text = lines.bytes(length, place)?;
        if lines.bytes(1, place)? != b"," {
            return Err(DialogueError::Malformed(place, text));
        }
        let disposition = match text[0] {
            b'K' => Disposition::Accepted,
            b'Z' => Disposition::Later,
            b'D' => Disposition::Never,
            _ => return Err(DialogueError::Malformed(place, text)),
        };
        text.remove(0);
        Ok(Response { disposition, text })
    }
}

/// A netstring.
#[must_use]
pub fn netstring(bytes: &[u8]) -> Vec<u8> {
    [bytes.len().to_string().as_bytes(), b":", bytes, b","].concat()
}

/// What goes before a message of so many bytes whose lines end with LF.
#[must_use]
pub fn head(length: u64) -> Vec<u8> {
    format!("{}:\n", length.saturating_add(1)).into_bytes()
}

/// What goes behind the message, to the package's end.
#[must_use]
pub fn tail(sender: &[u8], recipients: &[Vec<u8>]) -> Vec<u8> {
    let all: Vec<u8> = recipients.iter().flat_map(|one| netstring(one)).collect();
    [&b","[..], &netstring(sender), &netstring(&all)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Cursor, Read, Write};

    /// Gives one byte at a time.
    struct Drip(Cursor<Vec<u8>>);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let one = buffer.len().min(1);
            self.0.read(&mut buffer[..one])
        }
    }

    impl Stream for Drip {
        fn has_spoken(&mut self) -> io::Result<bool> {
            Ok(false)
        }
    }

    impl Write for Drip {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(bytes: &[u8]) -> Vec<Result<Response, DialogueError>> {
        let mut stream = Drip(Cursor::new(bytes.to_vec()));
        let mut lines = Lines::new(&mut stream);
        let mut all = Vec::new();
        loop {
            all.push(Response::read(&mut lines, "here"));
            if all.last().is_some_and(Result::is_err) {
                return all;
            }
        }
    }

    #[test]
    fn responses_come_one_after_the_other() {
        let all = read(b"21:Kok 838640135 qp 1390,1:Z,4:Da,b,");
        let sound: Vec<(Disposition, &[u8])> = all[..3]
            .iter()
            .map(|one| one.as_ref().expect("sound"))
            .map(|one| (one.disposition, &*one.text))
            .collect();
        assert_eq!(
            sound,
            [
                (Disposition::Accepted, &b"ok 838640135 qp 1390"[..]),
                (Disposition::Later, b""),
                (Disposition::Never, b"a,b"),
            ]
        );
        assert!(matches!(all[3], Err(DialogueError::Ended("here"))));
    }

    #[test]
    fn what_is_no_response_is_refused_before_it_is_read() {
        for bad in [
            &b"0:,"[..],
            b"02:Kx,",
            b":K,",
            b"2Kx,",
            b"-2:Kx,",
            b" 2:Kx,",
            b"2:Kx;",
            b"2:Xx,",
            b"2:kx,",
            b"220 smtp here\r\n",
        ] {
            let all = read(bad);
            assert!(
                matches!(all[..], [Err(DialogueError::Malformed(..))]),
                "{:?}: {all:?}",
                String::from_utf8_lossy(bad)
            );
        }
        for long in [&b"65537:"[..], b"99999", b"9999999999999999999999999999:"] {
            let all = read(long);
            assert!(
                matches!(all[..], [Err(DialogueError::TooLong("here"))]),
                "{all:?}"
            );
        }
        let most = [&b"65536:K"[..], &vec![b'x'; 65535], b","].concat();
        assert_eq!(read(&most)[0].as_ref().expect("sound").text.len(), 65535);
        for cut in [&b"5"[..], b"5:", b"5:Kabc", b"5:Kabcd"] {
            assert!(
                matches!(read(cut)[..], [Err(DialogueError::Ended(_))]),
                "{cut:?}"
            );
        }
    }

    #[test]
    fn a_package_is_what_the_protocol_shows() {
        // The protocol's first example, shortened.
        let sender = b"God-DSN-37@heaven.af.mil";
        let to = vec![b"djb@silverton.berkeley.edu".to_vec()];
        let whole = [head(6), b"a\n\nbc\n".to_vec(), tail(sender, &to)].concat();
        assert_eq!(
            String::from_utf8(whole).expect("ASCII"),
            "7:\na\n\nbc\n,24:God-DSN-37@heaven.af.mil,30:26:djb@silverton.berkeley.edu,,"
        );
        assert_eq!(tail(b"", &[b"a".to_vec(), b"".to_vec()]), b",0:,7:1:a,0:,,");
    }
}
