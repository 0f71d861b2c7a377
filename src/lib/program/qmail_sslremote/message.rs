//! The message on descriptor 0: what has to be known of it before it is sent,
//! and its form on the wire.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use crate::tlsrpt::header;

/// How much of the message is worked on at once.
const PIECE: usize = 32 * 1024;

/// A message that can be read twice.
pub struct Message {
    source: Source,
    /// Bytes as they came.
    pub length: u64,
    /// Bytes on the wire, dots included.
    pub size: u64,
    /// A byte over 127 is in it.
    pub eight_bit: bool,
    /// Its last line has no newline.
    pub partial: bool,
}

enum Source {
    File(File, u64),
    Memory(Vec<u8>),
}

impl Message {
    /// Looks at the whole message. What cannot be read twice is kept in memory.
    ///
    /// # Errors
    /// As read(2).
    pub fn examine(mut file: File) -> io::Result<Message> {
        let regular = file.metadata()?.is_file();
        let start = if regular { file.stream_position()? } else { 0 };
        let source = if regular {
            Source::File(file, start)
        } else {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Source::Memory(bytes)
        };
        let mut message = Message {
            source,
            length: 0,
            size: 0,
            eight_bit: false,
            partial: false,
        };
        let (mut length, mut size) = (0, 0);
        let mut eight_bit = false;
        let mut stuffing = Stuffing::default();
        message.each_piece(|piece| {
            eight_bit |= !piece.is_ascii();
            let mut out = Vec::new();
            stuffing.apply(piece, &mut out);
            length += piece.len() as u64;
            size += out.len() as u64;
            Ok(())
        })?;
        message.length = length;
        message.size = size;
        message.eight_bit = eight_bit;
        message.partial = !stuffing.is_whole();
        Ok(message)
    }

    /// Whether it is a TLS report. What cannot be read is none.
    pub fn is_tls_report(&mut self) -> bool {
        let mut beginning = Vec::new();
        let _ = self.each_piece(|piece| {
            let room = header::LIMIT.saturating_sub(beginning.len());
            beginning.extend_from_slice(&piece[..piece.len().min(room)]);
            if beginning.len() < header::LIMIT {
                Ok(())
            } else {
                Err(io::ErrorKind::Other.into())
            }
        });
        header::is_report(&beginning)
    }

    fn each_piece(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match &mut self.source {
            Source::Memory(bytes) => bytes.chunks(PIECE).try_for_each(take),
            Source::File(file, start) => {
                file.seek(SeekFrom::Start(*start))?;
                let mut piece = vec![0; PIECE];
                loop {
                    match file.read(&mut piece) {
                        Ok(0) => return Ok(()),
                        Ok(count) => take(&piece[..count])?,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Gives the message as it came, piece by piece, and as many bytes as
    /// [`Message::length`] says.
    ///
    /// # Errors
    /// Reading fails, there are more or fewer by now, or whatever `send` says.
    pub fn send_bare(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let changed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut left = self.length;
        self.each_piece(|piece| {
            left = left.checked_sub(piece.len() as u64).ok_or_else(changed)?;
            send(piece)
        })?;
        if left > 0 { Err(changed()) } else { Ok(()) }
    }

    /// Gives the message's form on the wire piece by piece, without the last dot.
    ///
    /// # Errors
    /// Reading fails, or whatever `send` says.
    pub fn send(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut stuffing = Stuffing::default();
        let mut out = Vec::with_capacity(PIECE + PIECE / 8);
        self.each_piece(|piece| {
            out.clear();
            stuffing.apply(piece, &mut out);
            send(&out)
        })
    }
}

/// RFC 5321, 4.5.2: a dot before each line that begins with one. A bare line feed
/// becomes CR LF, and so does a bare CR, as with notqmail: some servers take it for
/// the end of a line, and what is behind it for commands.
struct Stuffing {
    at_line_start: bool,
    /// A CR came, and what it is depends on the byte behind it.
    after_cr: bool,
}

impl Default for Stuffing {
    fn default() -> Self {
        Stuffing {
            at_line_start: true,
            after_cr: false,
        }
    }
}

impl Stuffing {
    fn apply(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for &byte in piece {
            if std::mem::take(&mut self.after_cr) {
                self.end_line(out);
                if byte == b'\n' {
                    continue;
                }
            }
            match byte {
                b'\r' => self.after_cr = true,
                b'\n' => self.end_line(out),
                _ => {
                    if byte == b'.' && self.at_line_start {
                        out.push(b'.');
                    }
                    out.push(byte);
                    self.at_line_start = false;
                }
            }
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.at_line_start = true;
    }

    /// Whether the last line has its end, a CR alone being none.
    fn is_whole(&self) -> bool {
        self.at_line_start && !self.after_cr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> (Message, Vec<u8>) {
        let mut file = tempfile(bytes);
        file.seek(SeekFrom::Start(0)).expect("seek");
        let mut message = Message::examine(file).expect("readable");
        let mut sent = Vec::new();
        let collect = |piece: &[u8]| {
            sent.extend_from_slice(piece);
            Ok(())
        };
        message.send(collect).expect("sent");
        (message, sent)
    }

    fn tempfile(bytes: &[u8]) -> File {
        let name = format!(
            "message-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("written");
        let file = File::open(&path).expect("opened");
        std::fs::remove_file(&path).expect("removed");
        file
    }

    #[test]
    fn dots_are_stuffed_and_line_ends_made_whole() {
        for (bytes, wire) in [
            (&b""[..], &b""[..]),
            (b".\n", b"..\r\n"),
            (b"..a\n.\n", b"...a\r\n..\r\n"),
            (b"a\r\nb\n", b"a\r\nb\r\n"),
            (b"a\r\n.\r\nMAIL\n", b"a\r\n..\r\nMAIL\r\n"),
            (b"a\r.\nb\rc\n", b"a\r\n..\r\nb\r\nc\r\n"),
            (b"a\n.\rb\n", b"a\r\n..\r\nb\r\n"),
            (b"a\r\r\n.\n", b"a\r\n\r\n..\r\n"),
            (b"\r.\r\n", b"\r\n..\r\n"),
            (b"a\r.\rQUIT\r\n", b"a\r\n..\r\nQUIT\r\n"),
        ] {
            let (message, sent) = message(bytes);
            assert_eq!(sent, wire, "{bytes:?}");
            assert_eq!(message.size, wire.len() as u64);
            assert_eq!(message.length, bytes.len() as u64);
            assert!(!message.partial);
        }
        // A CR at the end of a piece.
        let long = [vec![b'x'; PIECE - 1], b"\r.\n".to_vec()].concat();
        let (_, sent) = self::message(&long);
        assert!(sent.ends_with(b"x\r\n..\r\n"));
        let mut long = vec![b'.'; 100_000];
        long.push(b'\n');
        let (_, sent) = self::message(&long);
        assert_eq!(sent.len(), 100_003);
    }

    #[test]
    fn what_the_server_must_know_is_found_out() {
        let (plain, _) = message(b"a: b\n\nc\n");
        assert!(!plain.eight_bit && !plain.partial);
        for bytes in [&b"a: b\n\n\xff\n"[..], b"a: \xc3\xa4\n\nc\n"] {
            assert!(message(bytes).0.eight_bit);
        }
        for bytes in [&b"a\nb"[..], b"a\n\r", b"a\r", b"\r"] {
            assert!(message(bytes).0.partial, "{bytes:?}");
        }
    }
}
