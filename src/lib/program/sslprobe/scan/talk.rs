//! The dialogue around TLS: greeting, capabilities, the upgrade, and a farewell.
//! No command is sent that logs in or sends mail.
#![forbid(unsafe_code)]

use crate::dialogue::Protocol;
use crate::dialogue::client::lines::{Lines, Stream};
use crate::dialogue::client::smtp::{self, Reply};
use crate::dialogue::client::{DialogueError, imap, pop3, sieve};

/// A server's capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Lines without their ends, in the protocol's own form; SMTP's without
    /// their codes.
    pub(super) lines: Vec<Vec<u8>>,
    /// POP3: the server knows no list.
    pub(super) unknown: bool,
    /// SMTP: the words with which it refused EHLO.
    pub(super) refusal: Option<Vec<u8>>,
}

/// A dialogue with a server.
pub(super) struct Talk<S: Stream> {
    lines: Lines<S>,
    protocol: Protocol,
    name: String,
    tag: u32,
    /// ManageSieve's greeting is its list.
    listed: Option<Capabilities>,
}

impl<S: Stream> Talk<S> {
    /// `name` is what EHLO calls this host.
    pub(super) fn new(stream: S, protocol: Protocol, name: &str) -> Talk<S> {
        Talk {
            lines: Lines::new(stream),
            protocol,
            name: name.to_owned(),
            tag: 0,
            listed: None,
        }
    }

    /// Reads the greeting.
    pub(super) fn greet(&mut self) -> Result<Vec<u8>, DialogueError> {
        match self.protocol {
            Protocol::Lmtp | Protocol::Smtp => smtp::greeting(&mut self.lines),
            Protocol::Imap => imap::greeting(&mut self.lines),
            Protocol::Pop3 => pop3::greeting(&mut self.lines),
            Protocol::Sieve => {
                let (listed, last) = sieve::capabilities(&mut self.lines, "before its greeting")?;
                self.listed = Some(Capabilities::of(&listed));
                Ok(last)
            }
        }
    }

    /// Asks for the capabilities, or takes those that came by themselves.
    pub(super) fn capabilities(&mut self) -> Result<Capabilities, DialogueError> {
        match self.protocol {
            Protocol::Smtp => self.hello("EHLO"),
            Protocol::Lmtp => self.hello("LHLO"),
            Protocol::Imap => {
                let tag = self.next_tag();
                let listed = imap::capabilities(&mut self.lines, &tag)?;
                Ok(Capabilities::of(&listed))
            }
            Protocol::Pop3 => match pop3::capabilities(&mut self.lines) {
                Ok(Some(listed)) => Ok(Capabilities::of(&listed[1..])),
                // Whatever it said to a command that it does not know.
                Ok(None) | Err(DialogueError::Malformed(..)) => Ok(Capabilities {
                    unknown: true,
                    ..Capabilities::default()
                }),
                Err(error) => Err(error),
            },
            Protocol::Sieve => {
                if let Some(list) = self.listed.take() {
                    return Ok(list);
                }
                let (listed, _) = sieve::capabilities(&mut self.lines, "after STARTTLS")?;
                Ok(Capabilities::of(&listed))
            }
        }
    }

    fn next_tag(&mut self) -> String {
        self.tag += 1;
        format!("p{}", self.tag)
    }

    fn hello(&mut self, word: &str) -> Result<Capabilities, DialogueError> {
        let name = &self.name;
        self.lines
            .command(&format!("{word} {name}"), "after its greeting")?;
        let reply = Reply::read(&mut self.lines, "after EHLO")?;
        if reply.is_temporary() {
            return Err(DialogueError::Refused("EHLO", reply.text));
        }
        // A server that knows no EHLO has no capabilities.
        let lines = reply.text.split(|&byte| byte == b'\n').skip(1);
        let lines = lines.map(|line| line.get(4..).unwrap_or_default().trim_ascii_end().to_vec());
        Ok(Capabilities {
            lines: lines
                .filter(|line| reply.is_good() && !line.is_empty())
                .collect(),
            refusal: (!reply.is_good()).then(|| reply.text.clone()),
            ..Capabilities::default()
        })
    }

    /// The upgrade command and its answer; with `injected`, a NOOP behind it in
    /// the same segment.
    pub(super) fn start_tls(&mut self, injected: bool) -> Result<(), DialogueError> {
        let command = self.protocol.upgrade_command();
        let place = "after STARTTLS";
        self.lines.nothing_waits(b"", place)?;
        let (tag, noop) = match self.protocol {
            Protocol::Imap => (self.next_tag() + " ", format!("{INJECTED} NOOP\r\n")),
            _ => (String::new(), "NOOP\r\n".to_owned()),
        };
        let noop = if injected { noop } else { String::new() };
        self.lines
            .send(format!("{tag}{command}\r\n{noop}").as_bytes(), place)?;
        let (good, answer) = match self.protocol {
            Protocol::Lmtp | Protocol::Smtp => {
                let reply = Reply::read(&mut self.lines, place)?;
                (reply.code == 220, reply.text)
            }
            Protocol::Imap => {
                let line = self.lines.line(place)?;
                let ok = format!("{tag}OK");
                (
                    line.to_ascii_uppercase()
                        .starts_with(ok.to_ascii_uppercase().as_bytes()),
                    line,
                )
            }
            Protocol::Pop3 => {
                let line = self.lines.line(place)?;
                (line.starts_with(b"+OK"), line)
            }
            Protocol::Sieve => {
                let line = sieve::logical_line(&mut self.lines, place)?;
                (sieve::is_good(&line, place)?, line)
            }
        };
        if !good {
            return Err(DialogueError::Refused(command, answer));
        }
        self.lines.nothing_waits(&answer, place)
    }

    /// Takes leave; whether the server answers is its business.
    pub(super) fn quit(&mut self) {
        let place = "after QUIT";
        let said = match self.protocol {
            Protocol::Imap => format!("{} LOGOUT\r\n", self.next_tag()),
            Protocol::Sieve => "LOGOUT\r\n".to_owned(),
            _ => "QUIT\r\n".to_owned(),
        };
        if self.lines.send(said.as_bytes(), place).is_ok() {
            let _ = self.lines.line(place);
        }
    }

    /// Takes leave where an error leaves somebody to take leave of: not after 421,
    /// with which a server has ended the connection itself.
    pub(super) fn quit_after(&mut self, error: &DialogueError) {
        let reply = error.reply().unwrap_or_default();
        if !reply.is_empty() && !reply.starts_with(b"421") {
            self.quit();
        }
    }

    /// Whether a NOOP that was injected behind STARTTLS is answered inside TLS:
    /// there is an answer more than there are commands.
    pub(super) fn answers_injected(&mut self) -> bool {
        let place = "inside TLS";
        match self.protocol {
            Protocol::Lmtp | Protocol::Smtp => {
                let word = if self.protocol == Protocol::Lmtp {
                    "LHLO"
                } else {
                    "EHLO"
                };
                let hello = format!("{word} {}\r\n", self.name);
                if self.lines.send(hello.as_bytes(), place).is_err()
                    || Reply::read(&mut self.lines, place).is_err()
                    || self.lines.send(b"QUIT\r\n", place).is_err()
                {
                    return false;
                }
                Reply::read(&mut self.lines, place).is_ok_and(|reply| reply.code != 221)
                    && Reply::read(&mut self.lines, place).is_ok()
            }
            Protocol::Imap => {
                let tag = self.next_tag();
                let _ = self
                    .lines
                    .send(format!("{tag} LOGOUT\r\n").as_bytes(), place);
                let begins =
                    |line: &[u8], word: &str| line.starts_with(format!("{word} ").as_bytes());
                // As many lines as a server may have to say.
                for _ in 0..100 {
                    match self.lines.line(place) {
                        Ok(line) if begins(&line, INJECTED) => return true,
                        Ok(line) if !begins(&line, &tag) => {}
                        _ => return false,
                    }
                }
                false
            }
            Protocol::Pop3 => {
                let _ = self.lines.send(b"QUIT\r\n", place);
                self.lines.line(place).is_ok() && self.lines.line(place).is_ok()
            }
            Protocol::Sieve => {
                let _ = self.lines.send(b"LOGOUT\r\n", place);
                (0..3).all(|_| sieve::capabilities(&mut self.lines, place).is_ok())
            }
        }
    }
}

/// The tag of IMAP's injected command.
const INJECTED: &str = "injected";

impl Capabilities {
    fn of(lines: &[Vec<u8>]) -> Capabilities {
        let lines = lines.iter().map(|line| line.trim_ascii_end().to_vec());
        Capabilities {
            lines: lines.collect(),
            ..Capabilities::default()
        }
    }

    /// Whether the upgrade is listed; who knows no list may know it all the same.
    pub(super) fn offers_upgrade(&self, protocol: Protocol) -> bool {
        self.unknown
            || self
                .words(protocol)
                .any(|word| word == protocol.upgrade_command().as_bytes())
    }

    /// The first word of each capability in capitals; all words of IMAP's.
    fn words(&self, protocol: Protocol) -> impl Iterator<Item = Vec<u8>> {
        let all = protocol == Protocol::Imap;
        self.lines.iter().flat_map(move |line| {
            let words = line.split(|byte| matches!(byte, b' ' | b'"'));
            let words = words.filter(|word| !word.is_empty());
            words
                .take(if all { usize::MAX } else { 1 })
                .map(<[u8]>::to_ascii_uppercase)
        })
    }

    /// The ways to log in that it offers; USER and IMAP's LOGIN count.
    pub(super) fn logins(&self, protocol: Protocol) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut add = |words: &[u8]| {
            let words = words.split(|byte| matches!(byte, b' ' | b'"' | b'='));
            found.extend(
                words
                    .filter(|word| !word.is_empty())
                    .map(crate::text::printable),
            );
        };
        let upper: Vec<Vec<u8>> = self
            .lines
            .iter()
            .map(|line| line.to_ascii_uppercase())
            .collect();
        match protocol {
            Protocol::Lmtp | Protocol::Smtp => {
                for line in &upper {
                    if let Some(rest) = line.strip_prefix(b"AUTH") {
                        if rest.first().is_some_and(|byte| matches!(byte, b' ' | b'=')) {
                            add(rest);
                        }
                    }
                }
            }
            Protocol::Imap => {
                let words: Vec<Vec<u8>> = self.words(protocol).collect();
                words
                    .iter()
                    .filter_map(|word| word.strip_prefix(b"AUTH="))
                    .for_each(&mut add);
                if !words.iter().any(|word| word == b"LOGINDISABLED") {
                    add(b"LOGIN");
                }
            }
            Protocol::Pop3 => {
                if self.unknown || upper.iter().any(|line| line == b"USER") {
                    add(b"USER");
                }
                upper
                    .iter()
                    .filter_map(|line| line.strip_prefix(b"SASL "))
                    .for_each(&mut add);
            }
            Protocol::Sieve => {
                upper
                    .iter()
                    .filter_map(|line| line.strip_prefix(b"\"SASL\""))
                    .for_each(&mut add);
            }
        }
        let mut once = Vec::new();
        found.retain(|one| {
            let new = !once.contains(one);
            once.push(one.clone());
            new
        });
        found
    }

    /// The capability that a middlebox wrote over with Xs, if there is one.
    pub(super) fn overwritten(&self) -> Option<&[u8]> {
        self.lines.iter().map(Vec::as_slice).find(|line| {
            let count = line
                .iter()
                .take_while(|byte| byte.eq_ignore_ascii_case(&b'X'))
                .count();
            count >= 4 && line.len() <= count + 2
        })
    }
}

/// Whether a middlebox has written over a greeting with asterisks.
pub(super) fn is_overwritten(greeting: &[u8]) -> bool {
    let text = greeting.get(4..).unwrap_or_default().trim_ascii();
    let others = text.iter().filter(|&&byte| byte != b'*').count();
    let stars = text.len() - others;
    stars >= 4 && stars > others
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A server whose words are known beforehand.
    struct Script {
        says: Vec<u8>,
        at: usize,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            // A line at a time, as servers do.
            let rest = &self.says[self.at..];
            let end = rest
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(rest.len(), |at| at + 1);
            let count = end.min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.at += count;
            Ok(count)
        }
    }

    impl Stream for Script {
        fn has_spoken(&mut self) -> std::io::Result<bool> {
            // A line is there when it is read, no sooner.
            Ok(false)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.heard.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn script(says: &str) -> Script {
        Script {
            says: says.replace('\n', "\r\n").into_bytes(),
            at: 0,
            heard: Vec::new(),
        }
    }

    #[test]
    fn each_protocol_gets_as_far_as_tls() {
        for (protocol, says, logins) in [
            (
                Protocol::Smtp,
                "220 mx\n250-mx\n250-AUTH PLAIN LOGIN\n250-AUTH=PLAIN\n250 STARTTLS\n220 go\n",
                vec!["PLAIN", "LOGIN"],
            ),
            (
                Protocol::Lmtp,
                "220 mx\n250-mx\n250 STARTTLS\n220 go\n",
                vec![],
            ),
            (
                Protocol::Pop3,
                "+OK hi\n+OK\nSTLS\nUSER\nSASL PLAIN\n.\n+OK go\n",
                vec!["USER", "PLAIN"],
            ),
            (Protocol::Pop3, "+OK hi\n-ERR what\n+OK go\n", vec!["USER"]),
            (
                Protocol::Imap,
                "* OK hi\n* CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN\np1 OK\np2 OK go\n",
                vec!["PLAIN", "LOGIN"],
            ),
            (
                Protocol::Imap,
                "* OK hi\n* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\np1 OK\np2 OK go\n",
                vec![],
            ),
            (
                Protocol::Sieve,
                "\"IMPLEMENTATION\" \"x\"\n\"SASL\" \"PLAIN\"\n\"STARTTLS\"\nOK hi\nOK go\n",
                vec!["PLAIN"],
            ),
        ] {
            let mut talk = Talk::new(script(says), protocol, "me.example");
            talk.greet().expect("greeting");
            let list = talk.capabilities().expect("list");
            assert!(list.offers_upgrade(protocol), "{protocol:?}");
            assert_eq!(list.logins(protocol), logins, "{protocol:?}");
            talk.start_tls(true).expect("upgrade");
            let heard = String::from_utf8_lossy(&talk.lines.stream().heard).to_uppercase();
            assert!(
                heard.ends_with("NOOP\r\n") && heard.contains("TLS\r\n"),
                "{heard}"
            );
            for word in ["AUTH", "LOGIN", "USER", "MAIL"] {
                assert!(!heard.contains(word), "{heard}");
            }
        }
    }

    #[test]
    fn one_answer_too_many_shows_an_injection() {
        for (protocol, refused, answered) in [
            (
                Protocol::Smtp,
                "250 mx\n221 bye\n",
                "250 ok\n250 mx\n221 bye\n",
            ),
            (Protocol::Pop3, "+OK bye\n", "-ERR what\n+OK bye\n"),
            (
                Protocol::Imap,
                "* BYE\np1 OK\n",
                "injected OK\n* BYE\np1 OK\n",
            ),
            (
                Protocol::Sieve,
                "\"SASL\" \"\"\nOK\nOK bye\n",
                "\"SASL\" \"\"\nOK\nOK noop\nOK bye\n",
            ),
        ] {
            let said = |says| Talk::new(script(says), protocol, "me").answers_injected();
            assert!(!said(refused), "{protocol:?}");
            assert!(said(answered), "{protocol:?}");
            assert!(!said(""), "{protocol:?}");
        }
    }

    #[test]
    fn middleboxes_are_known_by_their_traces() {
        let list = |line: &str| Capabilities {
            lines: vec![b"SIZE 10".to_vec(), line.as_bytes().to_vec()],
            ..Capabilities::default()
        };
        for line in ["XXXXXXXX", "XXXXXXXA", "xxxx"] {
            assert!(list(line).overwritten().is_some(), "{line}");
        }
        for line in ["XCLIENT", "XXX", "STARTTLS", "XFORWARD NAME"] {
            assert!(list(line).overwritten().is_none(), "{line}");
        }
        assert!(is_overwritten(b"220 **********************0*****\r\n"));
        assert!(!is_overwritten(b"220 mx.example *** no spam ***\r\n"));
        assert!(!is_overwritten(b"22"));
    }
}
