//! A message in QMTP: one package, and what the responses come to.
#![forbid(unsafe_code)]

use std::io;

use super::envelope::Envelope;
use super::failure::{EndedSession, Failure, Mildest};
use super::message::Message;
use super::report_text::{Disposition, Report, Say};
use super::session::Session;
use crate::dialogue::client::DialogueError;
use crate::dialogue::client::qmtp::{Response, head, tail};

/// Sends the package and reads the responses. Its addresses are bare: QMTP quotes
/// nothing.
///
/// # Errors
/// The server takes it for nobody, or is gone.
pub fn transmit(
    session: &mut Session<'_>,
    envelope: &Envelope<'_>,
    message: &mut Message,
) -> Result<Report, EndedSession> {
    // QMTP has no farewell.
    session.talk.end();
    session.forget_key();
    let mut recipients = Vec::new();
    match exchange(session, envelope, message, &mut recipients) {
        Ok(message) => Ok(Report {
            recipients,
            message,
        }),
        Err(failure) if recipients.is_empty() => Err(session.unanswered(failure).into()),
        Err(failure) => Err(EndedSession {
            failure,
            recipients,
        }),
    }
}

fn exchange(
    session: &mut Session<'_>,
    envelope: &Envelope<'_>,
    message: &mut Message,
    said: &mut Vec<Say>,
) -> Result<Say, Failure> {
    let ip = session.server.host.ip;
    let talk = &mut session.talk;
    talk.put(&head(message.length)).map_err(Failure::Lost)?;
    let mut failed = None;
    let sent = message.send_bare(|piece| {
        talk.put(piece).map_err(|why| {
            failed = Some(why);
            io::ErrorKind::BrokenPipe.into()
        })
    });
    if let Some(why) = failed {
        return Err(Failure::Lost(why));
    }
    // The connection ends within the package: the server throws it away.
    sent.map_err(|_| Failure::Unreadable)?;
    talk.put_last(&tail(envelope.sender, envelope.recipients))
        .map_err(|why| match why {
            DialogueError::Unasked(_) => Failure::Lost(why),
            // With the last byte the server may have it.
            _ => Failure::LostAfterDot(why),
        })?;
    let mut accepted = None;
    let mut last = None;
    for _ in envelope.recipients {
        let response = Response::read(talk.lines(), "after the message");
        let response = response.map_err(Failure::LostAfterDot)?;
        if response.disposition == Disposition::Accepted {
            said.push(Say::accepted());
            accepted.get_or_insert(response.text);
            continue;
        }
        let say = Say::new(
            response.disposition,
            format!("{ip} does not like recipient."),
        );
        said.push(say.said(Some(&response.text)));
        last = Some(response.text);
    }
    let Some(text) = accepted else {
        return Err(Failure::Recipients(last, Mildest::Never));
    };
    let how = session.protection();
    let sentence = format!("{ip} accepted message {how}.");
    Ok(Say::new(Disposition::Accepted, sentence).said(Some(&text)))
}
