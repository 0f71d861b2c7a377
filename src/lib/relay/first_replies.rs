//! What a program says before the client may hear it: the replies to commands that
//! were spoken in plaintext for it.
#![forbid(unsafe_code)]

/// Drops the first replies of a program: a reply is a line whose fourth byte is
/// not `-`, with the lines before it.
#[derive(Debug, Default)]
pub(super) struct FirstReplies {
    replies: u32,
    column: usize,
    continued: bool,
}

impl FirstReplies {
    /// The next so many.
    pub fn new(replies: u32) -> FirstReplies {
        FirstReplies {
            replies,
            ..FirstReplies::default()
        }
    }

    /// How much of the bytes belongs to what is dropped.
    pub fn length(&mut self, bytes: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.replies == 0 {
                return at;
            }
            if byte == b'\n' {
                self.replies -= u32::from(!self.continued);
                self.column = 0;
                self.continued = false;
            } else {
                self.column += 1;
                self.continued |= self.column == 4 && byte == b'-';
            }
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_dropped_whole_however_they_are_cut() {
        let text = b"220-hello\r\n220 there\r\n250 next\r\nab\n";
        for cut in 0..text.len() {
            let mut first_replies = FirstReplies::new(1);
            let (one, other) = text.split_at(cut);
            let kept: Vec<u8> = [one, other]
                .iter()
                .flat_map(|part| part[first_replies.length(part)..].to_vec())
                .collect();
            assert_eq!(kept, b"250 next\r\nab\n", "cut at {cut}");
        }
        let mut first_replies = FirstReplies::new(3);
        assert_eq!(first_replies.length(text), text.len());
        assert_eq!(FirstReplies::default().length(text), 0);
    }
}
