//! SMTP's login, the client's side (RFC 4954): PLAIN (RFC 4616), LOGIN and
//! CRAM-MD5 (RFC 2195).
//!
//! Nothing here tells a clear connection from a TLS session: who calls says
//! whether a password may go over it as it is. What was made of the secret is
//! overwritten, and no failure repeats any of it, nor a server's words, which
//! could.
#![forbid(unsafe_code)]

use openssl::base64;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::DialogueError;
use super::lines::{Lines, Stream};
use super::smtp::Reply;
use crate::secret::Secret;
use crate::text;

/// RFC 5321, 4.5.3.1.4: a command with its parameters and its CR LF.
const COMMAND_LIMIT: usize = 512;
/// RFC 4954, 4: a line of base64 with its CR LF.
const RESPONSE_LIMIT: usize = 12288;

/// A way to prove who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password stays here; what goes is a digest of it with the challenge.
    CramMd5,
    /// User and password, asked for one after the other.
    Login,
    /// Both at once.
    Plain,
}

impl Mechanism {
    /// Those of PLAIN, LOGIN and CRAM-MD5, in this order, that an EHLO reply lists.
    /// Where the connection is in the clear only the last one counts: it alone does
    /// not send the password.
    #[must_use]
    pub fn offered(capabilities: &Reply, clear: bool) -> Vec<Mechanism> {
        let all = [Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5];
        let listed = |mechanism: &Mechanism| {
            // `AUTH=LOGIN` is the form of the time before RFC 2554.
            capabilities.all("AUTH").any(|list| {
                list.split(|byte| matches!(byte, b' ' | b'='))
                    .any(|word| word.eq_ignore_ascii_case(mechanism.name().as_bytes()))
            })
        };
        all.into_iter()
            .filter(|mechanism| !clear || *mechanism == Mechanism::CramMd5)
            .filter(listed)
            .collect()
    }

    /// As AUTH names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::Login => "LOGIN",
            Mechanism::Plain => "PLAIN",
        }
    }
}

/// Why a login came to nothing.
#[derive(Debug)]
pub enum LoginFailure {
    /// The connection failed, or what came is no reply.
    Lost(DialogueError),
    /// The server said no: its code, with the enhanced one if it gave one.
    Refused(String),
    /// The exchange cannot be gone on with; the server was told so.
    Stopped(&'static str),
}

impl LoginFailure {
    /// Whether it is the mechanism that was refused (RFC 4954, 4), whatever the
    /// capabilities said, so that another one may do.
    #[must_use]
    pub fn is_of_mechanism(&self) -> bool {
        match self {
            LoginFailure::Refused(codes) => codes.starts_with("504") || codes.ends_with(" 5.5.4"),
            LoginFailure::Lost(_) | LoginFailure::Stopped(_) => false,
        }
    }
}

impl From<DialogueError> for LoginFailure {
    fn from(refusal: DialogueError) -> Self {
        LoginFailure::Lost(refusal)
    }
}

/// `535 5.7.8`: of a reply that may repeat what was sent, only its codes.
fn codes(reply: &Reply) -> String {
    let rest = reply.text.get(4..).unwrap_or_default();
    let word = rest.split(u8::is_ascii_whitespace).next();
    let enhanced = word.filter(|word| {
        let mut parts = word.split(|&byte| byte == b'.');
        let number = |part: Option<&[u8]>| {
            part.is_some_and(|part| {
                (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit)
            })
        };
        number(parts.next())
            && number(parts.next())
            && number(parts.next())
            && parts.next().is_none()
    });
    match enhanced {
        Some(word) => format!("{} {}", reply.code, text::printable(word)),
        None => reply.code.to_string(),
    }
}

/// Logs in. The stream's own time limit holds for all of it.
///
/// # Errors
/// The server refuses, asks for what the mechanism does not have, or is gone.
pub fn log_in<S: Stream>(
    lines: &mut Lines<S>,
    mechanism: Mechanism,
    user: &[u8],
    password: &[u8],
) -> Result<(), LoginFailure> {
    if user.contains(&0) || password.contains(&0) {
        return Err(LoginFailure::Stopped("user or password contains a NUL"));
    }
    let last = match mechanism {
        Mechanism::Plain => plain(lines, user, password)?,
        Mechanism::Login => {
            command(lines, b"AUTH LOGIN", &[])?;
            // What the questions say differs from server to server.
            more(lines)?;
            respond(lines, user)?;
            more(lines)?;
            respond(lines, password)?;
            Reply::read(lines, AFTER)?
        }
        Mechanism::CramMd5 => {
            command(lines, b"AUTH CRAM-MD5", &[])?;
            let asked = more(lines)?;
            let Some(challenge) = challenge(&asked) else {
                return stop(lines, "its challenge is not base64");
            };
            let Some(digest) = digest(&challenge, password) else {
                return stop(lines, "this system's libcrypto has no MD5");
            };
            let answer = Secret::new([user, b" ", text::hex(&digest).as_bytes()].concat());
            respond(lines, &answer)?;
            Reply::read(lines, AFTER)?
        }
    };
    match last.code {
        235 => Ok(()),
        334 => stop(lines, "it asks for more steps than the mechanism has"),
        _ => Err(LoginFailure::Refused(codes(&last))),
    }
}

const AFTER: &str = "after AUTH";

/// PLAIN, with its only message in the command itself where it fits.
fn plain<S: Stream>(
    lines: &mut Lines<S>,
    user: &[u8],
    password: &[u8],
) -> Result<Reply, LoginFailure> {
    let message = Secret::new([b"\0", user, b"\0", password].concat());
    let encoded = Secret::new(base64::encode_block(&message).into_bytes());
    let command_line = b"AUTH PLAIN";
    if command_line.len() + 1 + encoded.len() + 2 <= COMMAND_LIMIT {
        command(lines, command_line, &encoded)?;
    } else {
        command(lines, command_line, &[])?;
        more(lines)?;
        respond(lines, &message)?;
    }
    Ok(Reply::read(lines, AFTER)?)
}

/// Sends AUTH with an initial response, if there is one.
fn command<S: Stream>(
    lines: &mut Lines<S>,
    command: &[u8],
    initial: &[u8],
) -> Result<(), LoginFailure> {
    let between: &[u8] = if initial.is_empty() { b"" } else { b" " };
    let line = Secret::new([command, between, initial, b"\r\n"].concat());
    send(lines, &line)
}

/// Sends a line. An answer that is there before it would be taken for its answer.
fn send<S: Stream>(lines: &mut Lines<S>, line: &[u8]) -> Result<(), LoginFailure> {
    if !lines.unasked("at AUTH")?.is_empty() {
        // Without the words: they may repeat what was sent.
        return Err(DialogueError::Unasked(Vec::new()).into());
    }
    Ok(lines.send(line, "at AUTH")?)
}

/// The server's go-ahead.
fn more<S: Stream>(lines: &mut Lines<S>) -> Result<Reply, LoginFailure> {
    let reply = Reply::read(lines, AFTER)?;
    if reply.code == 334 {
        Ok(reply)
    } else {
        Err(LoginFailure::Refused(codes(&reply)))
    }
}

/// Sends bytes in base64.
fn respond<S: Stream>(lines: &mut Lines<S>, bytes: &[u8]) -> Result<(), LoginFailure> {
    let encoded = Secret::new(base64::encode_block(bytes).into_bytes());
    let line = Secret::new([&encoded, &b"\r\n"[..]].concat());
    if line.len() > RESPONSE_LIMIT {
        return stop(lines, "user or password is too long for it");
    }
    send(lines, &line)
}

/// RFC 4954, 4: `*` cancels; the server answers that with 501.
fn stop<S: Stream, T>(lines: &mut Lines<S>, why: &'static str) -> Result<T, LoginFailure> {
    send(lines, b"*\r\n")?;
    Reply::read(lines, AFTER)?;
    Err(LoginFailure::Stopped(why))
}

/// The bytes that a 334 reply carries; `None` where it is no proper base64.
#[must_use]
pub fn challenge(reply: &Reply) -> Option<Vec<u8>> {
    let line = reply.text.strip_prefix(b"334 ")?;
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let padding = line.iter().rev().take_while(|&&byte| byte == b'=').count();
    let (digits, _) = line.split_at(line.len() - padding);
    let sound = digits
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    if !sound || digits.is_empty() || padding > 2 || line.len() % 4 != 0 {
        return None;
    }
    base64::decode_block(std::str::from_utf8(line).ok()?).ok()
}

fn digest(challenge: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let key = PKey::hmac(password).ok()?;
    let mut signer = Signer::new(MessageDigest::md5(), &key).ok()?;
    signer.update(challenge).ok()?;
    signer.sign_to_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::io::{self, Read, Write};

    /// A server that answers each line with the next of its replies.
    struct Script {
        replies: VecDeque<&'static str>,
        ready: Vec<u8>,
        heard: String,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.ready.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.ready[..count]);
            self.ready.drain(..count);
            Ok(count)
        }
    }

    impl Stream for Script {
        fn has_spoken(&mut self) -> io::Result<bool> {
            Ok(!self.ready.is_empty())
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard
                .push_str(std::str::from_utf8(bytes).expect("ASCII"));
            if let Some(reply) = self.replies.pop_front() {
                self.ready.extend_from_slice(reply.as_bytes());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run(
        mechanism: Mechanism,
        (user, password): (&str, &str),
        replies: &[&'static str],
    ) -> (Result<(), LoginFailure>, String) {
        let mut script = Script {
            replies: replies.iter().copied().collect(),
            ready: Vec::new(),
            heard: String::new(),
        };
        let mut lines = Lines::new(&mut script);
        let result = log_in(&mut lines, mechanism, user.as_bytes(), password.as_bytes());
        (result, script.heard)
    }

    #[test]
    fn each_mechanism_says_what_its_rfc_says() {
        let tim = ("tim", "tanstaaftanstaaf");
        // RFC 2195, section 2; RFC 4616, section 4, without another identity.
        for (mechanism, replies, heard) in [
            (
                Mechanism::CramMd5,
                &[
                    "334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n",
                    "235 ok\r\n",
                ][..],
                "AUTH CRAM-MD5\r\ndGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n",
            ),
            (
                Mechanism::Plain,
                &["235 ok\r\n"],
                "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n",
            ),
            (
                Mechanism::Login,
                &["334 VXNlcm5hbWU6\r\n", "334 whatever\r\n", "235 ok\r\n"],
                "AUTH LOGIN\r\ndGlt\r\ndGFuc3RhYWZ0YW5zdGFhZg==\r\n",
            ),
        ] {
            let (result, said) = run(mechanism, tim, replies);
            assert!(result.is_ok(), "{mechanism:?}: {result:?}");
            assert_eq!(said, heard);
        }
    }

    #[test]
    fn long_messages_wait_for_the_go_ahead_and_end_at_the_limit() {
        // "AUTH PLAIN " and CR LF leave 499 bytes, of base64 496: 372 and two NULs.
        let fits = "p".repeat(369);
        let (result, said) = run(Mechanism::Plain, ("u", &fits), &["235 ok\r\n"]);
        assert!(result.is_ok() && said.len() == 509, "{}", said.len());
        let longer = "p".repeat(370);
        let (result, said) = run(
            Mechanism::Plain,
            ("u", &longer),
            &["334 \r\n", "235 ok\r\n"],
        );
        assert!(result.is_ok(), "{result:?}");
        assert!(said.starts_with("AUTH PLAIN\r\nAHUAcHBw"), "{said}");
        let (result, said) = run(
            Mechanism::Plain,
            ("u", &"p".repeat(9216)),
            &["334 \r\n", "501 cancelled\r\n"],
        );
        assert!(
            matches!(result, Err(LoginFailure::Stopped(_))),
            "{result:?}"
        );
        assert_eq!(said, "AUTH PLAIN\r\n*\r\n");
    }

    #[test]
    fn a_refusal_shows_codes_alone() {
        let us = ("user", "secret");
        for (mechanism, replies, code) in [
            (
                Mechanism::Plain,
                &["535 5.7.8 AHVzZXIAc2VjcmV0 is wrong, secret\r\n"][..],
                "535 5.7.8",
            ),
            (Mechanism::Plain, &["454-4.7.0 x\r\n454 y\r\n"], "454 4.7.0"),
            (Mechanism::Login, &["504 secret\r\n"], "504"),
            (Mechanism::Login, &["334 \r\n", "535 5.secret.8\r\n"], "535"),
            (
                Mechanism::CramMd5,
                &["334 eA==\r\n", "535 5.7.8.9 x\r\n"],
                "535",
            ),
            (Mechanism::Plain, &["250 ok\r\n"], "250"),
        ] {
            let (result, _) = run(mechanism, us, replies);
            let Err(LoginFailure::Refused(said)) = result else {
                panic!("{mechanism:?} {replies:?}: {result:?}");
            };
            assert_eq!(said, code);
        }
    }

    #[test]
    fn what_makes_no_sense_is_cancelled() {
        let us = ("user", "secret");
        for (mechanism, replies, end) in [
            (
                Mechanism::CramMd5,
                &["334 not base64!\r\n", "501 x\r\n"][..],
                "AUTH CRAM-MD5\r\n*\r\n",
            ),
            (
                Mechanism::CramMd5,
                &["334 \r\n", "501 x\r\n"],
                "AUTH CRAM-MD5\r\n*\r\n",
            ),
            (Mechanism::Plain, &["334 eA==\r\n", "501 x\r\n"], "*\r\n"),
            (
                Mechanism::Login,
                &["334 x\r\n", "334 x\r\n", "334 x\r\n", "501 x\r\n"],
                "*\r\n",
            ),
        ] {
            let (result, said) = run(mechanism, us, replies);
            assert!(
                matches!(result, Err(LoginFailure::Stopped(_))),
                "{replies:?}: {result:?}"
            );
            assert!(said.ends_with(end), "{said}");
        }
        for (mechanism, replies) in [
            (Mechanism::Plain, &["hello\r\n"][..]),
            (Mechanism::Plain, &[]),
            (Mechanism::Login, &["334 x\r\n334 y\r\n"]),
        ] {
            let (result, _) = run(mechanism, us, replies);
            assert!(
                matches!(result, Err(LoginFailure::Lost(_))),
                "{replies:?}: {result:?}"
            );
        }
        let (result, said) = run(Mechanism::Plain, ("u\0x", "y"), &["235 ok\r\n"]);
        assert!(matches!(result, Err(LoginFailure::Stopped(_))) && said.is_empty());
    }

    #[test]
    fn challenges_are_strict_base64() {
        let decode = |text: &str| {
            challenge(&Reply {
                code: 334,
                text: text.as_bytes().to_vec(),
            })
        };
        assert_eq!(decode("334 eHk=\r\n").as_deref(), Some(&b"xy"[..]));
        assert_eq!(decode("334 eHl6\n").as_deref(), Some(&b"xyz"[..]));
        for bad in [
            "334 \r\n",
            "334 ====\r\n",
            "334 e===\r\n",
            "334 eH=k\r\n",
            "334 eHk\r\n",
            "334  eHk=\r\n",
            "334 eHk= \r\n",
            "334-eHk=\r\n334 eHk=\r\n",
            "334\r\n",
            "334 eHk\u{e4}\r\n",
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_password_goes_only_where_it_may() {
        let offer = |lines: &str| Reply {
            code: 250,
            text: format!("250-x\r\n{lines}250 HELP\r\n").into_bytes(),
        };
        for (lines, inside, clear) in [
            (
                "250-AUTH CRAM-MD5 LOGIN PLAIN\r\n",
                Some(Mechanism::Plain),
                Some(Mechanism::CramMd5),
            ),
            (
                "250-auth cram-md5 login\r\n",
                Some(Mechanism::Login),
                Some(Mechanism::CramMd5),
            ),
            (
                "250-AUTH=LOGIN\r\n250-AUTH NTLM PLAIN\r\n",
                Some(Mechanism::Plain),
                None,
            ),
            ("250-AUTH=LOGIN\r\n", Some(Mechanism::Login), None),
            (
                "250-AUTH CRAM-MD5\r\n",
                Some(Mechanism::CramMd5),
                Some(Mechanism::CramMd5),
            ),
            ("250-AUTH PLAINER GSSAPI XLOGIN\r\n", None, None),
            ("250-XAUTH PLAIN\r\n", None, None),
            ("250-AUTH\r\n", None, None),
            ("", None, None),
        ] {
            let first = |clear| Mechanism::offered(&offer(lines), clear).first().copied();
            assert_eq!(first(false), inside, "{lines}");
            assert_eq!(first(true), clear, "{lines}");
        }
        let all = [Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5];
        let offer = offer("250-AUTH CRAM-MD5 LOGIN PLAIN\r\n");
        assert_eq!(Mechanism::offered(&offer, false), all);
        assert_eq!(Mechanism::offered(&offer, true), all[2..]);
    }

    #[test]
    fn a_refused_mechanism_is_told_from_a_refused_login() {
        for (reply, of_mechanism) in [
            ("504 5.5.4 no such mechanism\r\n", true),
            ("504 what\r\n", true),
            ("501 5.5.4 no\r\n", true),
            ("535 5.7.8 wrong\r\n", false),
            ("534 5.7.9 too weak\r\n", false),
            ("535 5.7.8 504 5.5.4\r\n", false),
            ("504", false),
        ] {
            let (result, _) = run(Mechanism::Plain, ("u", "p"), &[reply]);
            let failure = result.expect_err("refused");
            assert_eq!(failure.is_of_mechanism(), of_mechanism, "{reply}");
        }
    }
}
