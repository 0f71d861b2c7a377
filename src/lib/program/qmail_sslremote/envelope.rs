//! The SMTP dialogue from MAIL to the last dot, and what its answers come to.
#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use super::link::Link;
use super::message::Message;
use super::report_text::{Report, Say};
use crate::dialogue::client::Refusal;
use crate::dialogue::client::lines::Lines;
use crate::dialogue::client::smtp::Reply;

/// How many commands go before their answers are read.
const GROUP: usize = 50;

/// A dialogue with a server, and how long it waits for each answer.
pub struct Talk<'a> {
    lines: Lines<'a, Link>,
    time: Duration,
}

impl<'a> Talk<'a> {
    /// Over a connection on which nothing was read.
    pub fn new(link: &'a mut Link, time: Duration) -> Talk<'a> {
        Talk {
            lines: Lines::new(link),
            time,
        }
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection failed, or what came is no reply.
    pub fn reply(&mut self, place: &'static str) -> Result<Reply, Refusal> {
        self.lines.stream().allow(self.time);
        Reply::read(&mut self.lines, place)
    }

    /// Sends a command.
    ///
    /// # Errors
    /// As [`Talk::reply`].
    pub fn send(&mut self, command: &[u8], place: &'static str) -> Result<(), Refusal> {
        self.lines.stream().allow(self.time);
        self.lines.send(&[command, b"\r\n"].concat(), place)
    }

    /// STARTTLS, up to the go-ahead.
    ///
    /// # Errors
    /// There is none, or more than that came.
    pub fn start_tls(&mut self) -> Result<(), Refusal> {
        self.lines.stream().allow(self.time);
        crate::dialogue::client::smtp::start_tls(&mut self.lines)
    }

    /// Says farewell; waiting for the answer is of no use.
    pub fn quit(&mut self) {
        let _ = self.send(b"QUIT", "at the end");
    }

    /// The connection.
    pub fn link(&mut self) -> &mut Link {
        self.lines.stream()
    }

    /// What comes over it, for a dialogue of another kind that has as much time.
    pub fn lines(&mut self) -> &mut Lines<'a, Link> {
        self.lines.stream().allow(self.time);
        &mut self.lines
    }

    /// Sends bytes of a message.
    ///
    /// # Errors
    /// As [`Talk::reply`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.lines().send(bytes, "in the message")
    }
}

/// What is sent, to whom.
pub struct Envelope<'a> {
    /// From whom.
    pub sender: &'a [u8],
    /// To whom.
    pub recipients: &'a [Vec<u8>],
}

/// The dialogue's end where the connection died: with the warning of qmail-remote
/// once the last dot may have been read.
pub fn dropped(ip: &str, why: &Refusal, critical: bool) -> Say {
    dropped_in("SMTP", ip, why, critical)
}

/// The same for a protocol.
pub fn dropped_in(protocol: &str, ip: &str, why: &Refusal, critical: bool) -> Say {
    let duplicate = if critical { "Possible duplicate! " } else { "" };
    let say = match why {
        Refusal::Malformed(..) | Refusal::TooLong(_) | Refusal::Injection(..) => Say::new(
            'Z',
            format!("Connected to {ip} but it does not talk {protocol}. {duplicate}(#4.5.0)"),
        ),
        _ => Say::new(
            'Z',
            format!("Connected to {ip} but connection died. {duplicate}(#4.4.2)"),
        ),
    };
    say.because(why.to_string())
}

/// Z for 4yz, D for 5yz; what is neither belongs to no plan: Z.
fn letter(reply: &Reply) -> char {
    if reply.code >= 500 { 'D' } else { 'Z' }
}

/// MAIL, RCPT, DATA and the message; the addresses are quoted. `how` is what the report of a success says
/// of TLS.
pub fn transmit(
    talk: &mut Talk<'_>,
    capabilities: &Reply,
    envelope: &Envelope<'_>,
    message: &mut Message,
    (ip, how): (&str, &str),
) -> Report {
    let mut recipients = Vec::new();
    let last = match addresses(talk, capabilities, envelope, message, ip, &mut recipients) {
        Ok(()) => match content(talk, message, ip, how) {
            Ok(say) | Err(say) => say,
        },
        Err(say) => say,
    };
    Report {
        recipients,
        message: last,
    }
}

/// MAIL's line with the parameters that apply.
fn mail(capabilities: &Reply, envelope: &Envelope<'_>, message: &Message) -> Vec<u8> {
    let mut line = [b"MAIL FROM:<", envelope.sender, b">"].concat();
    if capabilities.capability("SIZE").is_some() {
        line.extend_from_slice(format!(" SIZE={}", message.size).as_bytes());
    }
    if message.eight_bit && capabilities.capability("8BITMIME").is_some() {
        line.extend_from_slice(b" BODY=8BITMIME");
    }
    let mut addresses = envelope.recipients.iter().map(Vec::as_slice);
    let international = message.eight_bit_header
        || !envelope.sender.is_ascii()
        || addresses.any(|address| !address.is_ascii());
    if international && capabilities.capability("SMTPUTF8").is_some() {
        line.extend_from_slice(b" SMTPUTF8");
    }
    line
}

fn addresses(
    talk: &mut Talk<'_>,
    capabilities: &Reply,
    envelope: &Envelope<'_>,
    message: &Message,
    ip: &str,
    said: &mut Vec<Say>,
) -> Result<(), Say> {
    let died = |why: Refusal| dropped(ip, &why, false);
    let group = match capabilities.capability("PIPELINING") {
        Some(_) => GROUP,
        None => 1,
    };
    let sender_answered = |reply: Reply, talk: &mut Talk<'_>| {
        if reply.is_good() {
            return Ok(());
        }
        talk.quit();
        let sentence = format!("Connected to {ip} but sender was rejected.");
        Err(Say::new(letter(&reply), sentence).said(Some(&reply.text)))
    };
    talk.send(&mail(capabilities, envelope, message), "at MAIL")
        .map_err(died)?;
    let mut sender_waits = true;
    if group == 1 {
        let reply = talk.reply("after MAIL").map_err(died)?;
        sender_answered(reply, talk)?;
        sender_waits = false;
    }
    let mut last = None;
    for some in envelope.recipients.chunks(group) {
        let lines: Vec<Vec<u8>> = some
            .iter()
            .map(|address| [b"RCPT TO:<", address.as_slice(), b">"].concat())
            .collect();
        talk.send(&lines.join(&b"\r\n"[..]), "at RCPT")
            .map_err(died)?;
        if std::mem::take(&mut sender_waits) {
            let reply = talk.reply("after MAIL").map_err(died)?;
            sender_answered(reply, talk)?;
        }
        for _ in some {
            let reply = talk.reply("after RCPT").map_err(died)?;
            said.push(if reply.is_good() {
                Say::accepted()
            } else {
                let letter = if reply.code >= 500 { 'h' } else { 's' };
                let sentence = format!("{ip} does not like recipient.");
                Say::new(letter, sentence).said(Some(&reply.text))
            });
            last = Some(reply);
        }
    }
    if said.iter().all(|say| say.letter != 'r') {
        talk.quit();
        let say = Say::new('D', format!("Giving up on {ip}."));
        return Err(say.said(last.as_ref().map(|reply| &*reply.text)));
    }
    Ok(())
}

/// Keeps a failure of the connection apart from one of the message's file.
pub fn note(why: Refusal, kept: &mut Option<Refusal>) -> io::Error {
    *kept = Some(why);
    io::ErrorKind::BrokenPipe.into()
}

/// DATA, the message, and the answer to it.
fn content(talk: &mut Talk<'_>, message: &mut Message, ip: &str, how: &str) -> Result<Say, Say> {
    let died = |why: Refusal| dropped(ip, &why, false);
    talk.send(b"DATA", "at DATA").map_err(died)?;
    let reply = talk.reply("after DATA").map_err(died)?;
    if reply.code != 354 {
        talk.quit();
        let say = Say::new(letter(&reply), format!("{ip} failed on DATA command."));
        return Err(say.said(Some(&reply.text)));
    }
    let mut failed = None;
    let sent = message.send(|piece| talk.put(piece).map_err(|why| note(why, &mut failed)));
    if let Some(why) = failed {
        return Err(dropped(ip, &why, false));
    }
    if sent.is_err() {
        // The connection ends without the dot: the server throws it away.
        return Err(Say::new('Z', "Unable to read message. (#4.3.0)"));
    }
    // From here on the server may have it.
    talk.send(b".", "at the dot")
        .map_err(|why| dropped(ip, &why, true))?;
    let reply = talk
        .reply("after the message")
        .map_err(|why| dropped(ip, &why, true))?;
    talk.quit();
    talk.link().part();
    let (letter, sentence) = if reply.is_good() {
        ('K', format!("{ip} accepted message ({how})."))
    } else {
        (
            letter(&reply),
            format!("{ip} failed after I sent the message."),
        )
    };
    Ok(Say::new(letter, sentence).said(Some(&reply.text)))
}
