//! What qmail-rspawn is told: one letter and a text for each recipient, then for
//! the message, each ended by a NUL, in the words of qmail-remote.
#![forbid(unsafe_code)]

pub use crate::dialogue::client::qmtp::Disposition;
use crate::text;

/// How much of a server's reply is reported, in bytes, as qmail-remote's
/// `HUGESMTPTEXT`.
const REPLY_LIMIT: usize = 5000;

/// What was decided of a recipient or of the message, and why. Its letter is that
/// of its place in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// What was decided.
    pub disposition: Disposition,
    /// Lines, each with its newline; may be empty.
    pub text: String,
}

/// Letters for accepted, later and never.
type Letters = [u8; 3];
const RECIPIENT: Letters = *b"rsh";
const MESSAGE: Letters = *b"KZD";

impl Say {
    /// A sentence; the newline is added.
    pub fn new(disposition: Disposition, sentence: impl AsRef<str>) -> Say {
        let text = format!("{}\n", text::printable(sentence.as_ref().as_bytes()));
        Say { disposition, text }
    }

    /// It may work later.
    pub fn later(sentence: impl AsRef<str>) -> Say {
        Say::new(Disposition::Later, sentence)
    }

    /// It never will.
    pub fn never(sentence: impl AsRef<str>) -> Say {
        Say::new(Disposition::Never, sentence)
    }

    /// A recipient that was accepted.
    #[must_use]
    pub fn accepted() -> Say {
        Say {
            disposition: Disposition::Accepted,
            text: String::new(),
        }
    }

    /// With the server's reply behind it.
    #[must_use]
    pub fn said(mut self, reply: Option<&[u8]>) -> Say {
        let Some(reply) = reply.filter(|reply| !reply.is_empty()) else {
            return self;
        };
        let reply = &reply[..reply.len().min(REPLY_LIMIT)];
        self.text.push_str("Remote host said: ");
        for line in reply.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                self.text.push_str(&text::printable(line));
                self.text.push('\n');
            }
        }
        self
    }

    /// With one more line of ours.
    #[must_use]
    pub fn because(mut self, reason: impl AsRef<str>) -> Say {
        self.text.push_str("Reason: ");
        self.text
            .push_str(&text::printable(reason.as_ref().as_bytes()));
        self.text.push('\n');
        self
    }

    fn write(&self, letters: Letters, out: &mut Vec<u8>) {
        out.push(match self.disposition {
            Disposition::Accepted => letters[0],
            Disposition::Later => letters[1],
            Disposition::Never => letters[2],
        });
        out.extend_from_slice(self.text.as_bytes());
        out.push(0);
    }
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One for each recipient that the server answered.
    pub recipients: Vec<Say>,
    /// The message.
    pub message: Say,
}

impl From<Say> for Report {
    fn from(message: Say) -> Self {
        Report {
            recipients: Vec::new(),
            message,
        }
    }
}

impl Report {
    /// As qmail-rspawn reads it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for recipient in &self.recipients {
            recipient.write(RECIPIENT, &mut out);
        }
        self.message.write(MESSAGE, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_ends_with_a_nul_and_holds_none() {
        let report = Report {
            recipients: vec![
                Say::accepted(),
                Say::never("1.2.3.4 does not like recipient.").said(Some(b"550 \0\x1b\r\n")),
            ],
            message: Say::new(Disposition::Accepted, "1.2.3.4 accepted message.")
                .said(Some(b"250-a\r\n250 b\r\n")),
        };
        assert_eq!(
            report.bytes(),
            b"r\0h1.2.3.4 does not like recipient.\nRemote host said: 550 \\x00\\x1B\n\0\
              K1.2.3.4 accepted message.\nRemote host said: 250-a\n250 b\n\0"
        );
    }
}
