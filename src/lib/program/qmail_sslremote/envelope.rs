//! The SMTP dialogue from MAIL to the last dot.
#![forbid(unsafe_code)]

use std::io;

use super::failure::{EndedSession, Failure, Mildest};
use super::message::Message;
use super::report_text::{Disposition, Report, Say};
use super::session::{Capabilities, Session};
use super::talk::{Unsent, is_closing};
use crate::dialogue::client::DialogueError;
use crate::dialogue::client::smtp::Reply;

/// How many commands go before their answers are read.
const GROUP: usize = 50;

/// From whom to whom.
pub struct Envelope<'a> {
    /// From whom.
    pub sender: &'a [u8],
    /// To whom.
    pub recipients: &'a [Vec<u8>],
}

impl Envelope<'_> {
    /// Whether it can be sent only where SMTPUTF8 (RFC 6531) is offered. What the
    /// message itself holds is its own business: nobody has promised anything for it.
    fn is_international(&self) -> bool {
        let mut recipients = self.recipients.iter();
        !self.sender.is_ascii() || recipients.any(|address| !address.is_ascii())
    }
}

/// MAIL, RCPT, DATA and the message; the addresses are quoted.
///
/// # Errors
/// The server does not take it, or is gone.
pub fn transmit(
    session: &mut Session<'_>,
    envelope: &Envelope<'_>,
    message: &mut Message,
) -> Result<Report, EndedSession> {
    let mut recipients = Vec::new();
    let sent = addresses(session, envelope, message, &mut recipients)
        .and_then(|()| content(session, message));
    match sent {
        Ok(message) => Ok(Report {
            recipients,
            message,
        }),
        Err(failure) => Err(EndedSession {
            failure,
            recipients,
        }),
    }
}

/// MAIL's line with the parameters that apply.
fn mail(
    capabilities: &Capabilities,
    envelope: &Envelope<'_>,
    message: &Message,
) -> Result<Vec<u8>, Failure> {
    let mut line = [b"MAIL FROM:<", envelope.sender, b">"].concat();
    if capabilities.capability("SIZE").is_some() {
        line.extend_from_slice(format!(" SIZE={}", message.size).as_bytes());
    }
    if message.eight_bit && capabilities.capability("8BITMIME").is_some() {
        line.extend_from_slice(b" BODY=8BITMIME");
    }
    if envelope.is_international() {
        if capabilities.capability("SMTPUTF8").is_none() {
            return Err(Failure::NoSmtpUtf8);
        }
        line.extend_from_slice(b" SMTPUTF8");
    }
    Ok(line)
}

/// MAIL and RCPT, in groups where the server offers PIPELINING.
fn addresses(
    session: &mut Session<'_>,
    envelope: &Envelope<'_>,
    message: &Message,
    said: &mut Vec<Say>,
) -> Result<(), Failure> {
    let group = match session.capabilities.capability("PIPELINING") {
        Some(_) => GROUP,
        None => 1,
    };
    let mail = mail(&session.capabilities, envelope, message)?;
    session.forget_key_at_last();
    // Whose answer is read with the first group's; nothing is sent before that.
    let mut unsent = Some(mail);
    if group == 1 {
        let mail = unsent.take().unwrap_or_default();
        session.talk.send(&mail, "at MAIL").map_err(Failure::Lost)?;
        sender_answered(session)?;
    }
    let mut answers = Answers::default();
    for some in envelope.recipients.chunks(group) {
        let mail = unsent.take();
        let with_mail = mail.is_some();
        let recipients = some
            .iter()
            .map(|address| [b"RCPT TO:<", address.as_slice(), b">"].concat());
        let lines: Vec<Vec<u8>> = mail.into_iter().chain(recipients).collect();
        let lines = lines.join(&b"\r\n"[..]);
        session
            .talk
            .send(&lines, "at RCPT")
            .map_err(Failure::Lost)?;
        if with_mail {
            sender_answered(session)?;
        }
        for _ in some {
            let reply = session.talk.reply("after RCPT").map_err(Failure::Lost)?;
            if let Some(closing) = answers.take(session, reply, said) {
                // Those that were not asked for have the same answer.
                let same = said.last().cloned();
                said.resize_with(envelope.recipients.len(), || {
                    same.clone().unwrap_or_else(Say::accepted)
                });
                return Err(Failure::RecipientsClosing(closing));
            }
        }
    }
    if answers.accepted {
        return Ok(());
    }
    Err(Failure::Recipients(answers.last_refusal, answers.mildest))
}

fn sender_answered(session: &mut Session<'_>) -> Result<(), Failure> {
    let reply = session.talk.reply("after MAIL").map_err(Failure::Lost)?;
    if reply.is_good() {
        return Ok(());
    }
    Err(Failure::Sender(reply))
}

/// What came of RCPT so far.
struct Answers {
    accepted: bool,
    last_refusal: Option<Vec<u8>>,
    mildest: Mildest,
}

impl Default for Answers {
    fn default() -> Self {
        Answers {
            accepted: false,
            last_refusal: None,
            mildest: Mildest::Never,
        }
    }
}

impl Answers {
    /// A recipient's answer; the reply again where the server closes with it.
    fn take(&mut self, session: &Session<'_>, reply: Reply, said: &mut Vec<Say>) -> Option<Reply> {
        if reply.is_good() {
            self.accepted = true;
            said.push(Say::accepted());
            return None;
        }
        let at = session.circumstances();
        let sentence = format!("{} does not like recipient.", session.server.host.ip);
        said.push(at.refused(Say::new(at.disposition(&reply), sentence), &reply));
        self.mildest = self.mildest.max(match at.disposition(&reply) {
            _ if at.wants_tls(&reply) => Mildest::WantsTls,
            Disposition::Never => Mildest::Never,
            _ => Mildest::Later,
        });
        if is_closing(&reply) {
            return Some(reply);
        }
        self.last_refusal = Some(reply.text);
        None
    }
}

/// DATA, the message, and the answer to it.
fn content(session: &mut Session<'_>, message: &mut Message) -> Result<Say, Failure> {
    let talk = &mut session.talk;
    let reply = talk.ask(b"DATA", "after DATA").map_err(Failure::Lost)?;
    if reply.code != 354 {
        return Err(Failure::Data(reply));
    }
    // From here on no other server is called.
    session.forget_key();
    let talk = &mut session.talk;
    let mut unsent = None;
    let mut put = |piece: &[u8]| {
        talk.put_content(piece).map_err(|why| {
            unsent = Some(why);
            io::Error::from(io::ErrorKind::BrokenPipe)
        })
    };
    // The last one finds out what the server has said up to here.
    let sent = message.send(&mut put).and_then(|()| put(b""));
    if sent.is_err() {
        // Without the dot the server throws away what it has; QUIT would be a line
        // of the message.
        talk.end();
    }
    match unsent {
        Some(Unsent::Lost(why)) => return Err(Failure::Lost(why)),
        Some(Unsent::Refused(reply)) => return Err(Failure::Content(reply)),
        None => sent.map_err(|_| Failure::Unreadable)?,
    }
    let end = talk.put_content(b".\r\n");
    if end.is_err() {
        talk.end();
    }
    match end {
        // With the last byte the server may have it.
        Ok(()) => {}
        Err(Unsent::Lost(why @ DialogueError::Unasked(_))) => return Err(Failure::Lost(why)),
        Err(Unsent::Lost(why)) => return Err(Failure::LostAfterDot(why)),
        Err(Unsent::Refused(reply)) => return Err(Failure::Content(reply)),
    }
    let reply = talk.reply("after the message");
    let reply = reply.map_err(Failure::LostAfterDot)?;
    if !reply.is_good() {
        return Err(Failure::Message(reply));
    }
    let how = session.protection();
    let sentence = format!("{} accepted message {how}.", session.server.host.ip);
    Ok(Say::new(Disposition::Accepted, sentence).said(Some(&reply.text)))
}
