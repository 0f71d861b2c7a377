//! Lines from a server, within limits: no reply grows without bound, and no
//! byte that came too early is taken for an answer.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use super::DialogueError;

/// A connection to a server that may speak out of turn.
pub trait Stream: Read + Write {
    /// Whether bytes of the server's are there now; an end is none. Nothing is taken,
    /// and nothing is waited for.
    ///
    /// # Errors
    /// The connection failed, in a way that reading would not tell any more.
    fn has_spoken(&mut self) -> io::Result<bool>;
}

impl<S: Stream> Stream for &mut S {
    fn has_spoken(&mut self) -> io::Result<bool> {
        (**self).has_spoken()
    }
}

/// The longest line, in bytes with its end. RFC 5321 (4.5.3.1.5) wants 512.
pub const LINE_LIMIT: usize = 4096;
/// The longest reply, in bytes.
pub const REPLY_LIMIT: usize = 64 * 1024;

/// How much is read at once.
const PIECE: usize = 4096;

/// A server's lines, and a way to answer.
pub struct Lines<S> {
    stream: S,
    buffer: Vec<u8>,
    start: usize,
}

impl<S: Stream> Lines<S> {
    /// Nothing was read yet.
    pub fn new(stream: S) -> Lines<S> {
        Lines {
            stream,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// The next line with its line feed. `place` says where in the dialogue.
    ///
    /// # Errors
    /// [`DialogueError::TooLong`], the end, or a failure of the stream.
    pub fn line(&mut self, place: &'static str) -> Result<Vec<u8>, DialogueError> {
        let mut searched = 0;
        loop {
            let rest = self.rest();
            if let Some(at) = rest[searched..].iter().position(|&b| b == b'\n') {
                let length = searched + at + 1;
                if length > LINE_LIMIT {
                    return Err(DialogueError::TooLong(place));
                }
                return Ok(self.take(length));
            }
            if rest.len() >= LINE_LIMIT {
                return Err(DialogueError::TooLong(place));
            }
            searched = rest.len();
            if self.fill(place)? == 0 {
                return Err(DialogueError::Ended(place));
            }
        }
    }

    /// As many bytes.
    ///
    /// # Errors
    /// As [`Lines::line`].
    pub fn bytes(&mut self, count: usize, place: &'static str) -> Result<Vec<u8>, DialogueError> {
        if count > REPLY_LIMIT {
            return Err(DialogueError::TooLong(place));
        }
        while self.waiting() < count {
            if self.fill(place)? == 0 {
                return Err(DialogueError::Ended(place));
            }
        }
        Ok(self.take(count))
    }

    /// Takes so many bytes that were read.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.rest()[..count].to_vec();
        self.start += count;
        bytes
    }

    /// The stream itself, to set its limits.
    #[cfg(feature = "remote")]
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    fn fill(&mut self, place: &'static str) -> Result<usize, DialogueError> {
        // What was taken does not stay: a server may answer for each of many recipients.
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut piece = [0; PIECE];
        let count = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|error| DialogueError::Io(place, error))?,
            }
        };
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    /// What was read and not yet taken.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// How many bytes that is.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rest().len()
    }

    /// What the server has said by now and nobody has taken. Before a question was
    /// sent to its end nothing of it can be the answer. Nothing is waited for.
    ///
    /// # Errors
    /// A failure of the stream.
    pub fn unasked(&mut self, place: &'static str) -> Result<&[u8], DialogueError> {
        if self.waiting() == 0 {
            let spoken = self.stream.has_spoken();
            if spoken.map_err(|error| DialogueError::Io(place, error))? {
                self.fill(place)?;
            }
        }
        Ok(self.rest())
    }

    /// Whether a whole line was read and not yet taken.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.rest().contains(&b'\n')
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// A failure of the stream.
    pub fn send(&mut self, bytes: &[u8], place: &'static str) -> Result<(), DialogueError> {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .map_err(|error| DialogueError::Io(place, error))
    }

    /// Sends a command, to which no answer may be there already.
    ///
    /// # Errors
    /// As [`Lines::send`]; [`DialogueError::Injection`] where the server spoke first.
    pub fn command(&mut self, command: &str, place: &'static str) -> Result<(), DialogueError> {
        self.nothing_waits(b"", place)?;
        self.send(format!("{command}\r\n").as_bytes(), place)
    }

    /// Fails where bytes came behind the reply that was taken last.
    ///
    /// # Errors
    /// [`DialogueError::Injection`], or a failure of the stream.
    pub fn nothing_waits(
        &mut self,
        reply: &[u8],
        place: &'static str,
    ) -> Result<(), DialogueError> {
        match self.unasked(place)?.len() {
            0 => Ok(()),
            count => Err(DialogueError::Injection(count, reply.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that never stops: whatever is read of it is there.
    struct Endless(u8);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(self.0);
            Ok(buffer.len())
        }
    }

    impl Stream for Endless {
        fn has_spoken(&mut self) -> io::Result<bool> {
            Ok(true)
        }
    }

    impl Write for Endless {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_more_is_kept_than_was_not_taken() {
        let mut lines = Lines::new(Endless(b'K'));
        for count in [1, REPLY_LIMIT, 1, 17].into_iter().cycle().take(400) {
            let bytes = lines.bytes(count, "here").expect("bytes");
            assert_eq!(bytes.len(), count);
            let kept = lines.buffer.len();
            assert!(kept <= REPLY_LIMIT + PIECE, "{kept}");
        }
        assert!(matches!(
            lines.line("here"),
            Err(DialogueError::TooLong("here"))
        ));
        let mut lines = Lines::new(Endless(b'\n'));
        for _ in 0..100_000 {
            assert_eq!(lines.line("here").expect("a line"), b"\n");
            assert!(lines.buffer.len() <= PIECE);
        }
    }
}
