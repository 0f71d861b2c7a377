//! A message in QMTP: one package, and what the responses come to.
#![forbid(unsafe_code)]

use super::envelope::{self, Envelope, Talk};
use super::message::Message;
use super::report_text::{Report, Say};
use crate::dialogue::client::Refusal;
use crate::dialogue::client::qmtp::{Response, Verdict, head, tail};

/// Sends the package and reads the responses. Its addresses are bare: QMTP quotes
/// nothing. `how` is what the report of a success says of TLS.
pub fn transmit(
    talk: &mut Talk<'_>,
    envelope: &Envelope<'_>,
    message: &mut Message,
    (ip, how): (&str, &str),
) -> Report {
    let mut recipients = Vec::new();
    let said = exchange(talk, envelope, message, (ip, how), &mut recipients);
    Report {
        recipients,
        message: said.unwrap_or_else(|say| say),
    }
}

fn exchange(
    talk: &mut Talk<'_>,
    envelope: &Envelope<'_>,
    message: &mut Message,
    (ip, how): (&str, &str),
    said: &mut Vec<Say>,
) -> Result<Say, Say> {
    let died = |why: Refusal| envelope::dropped_in("QMTP", ip, &why, false);
    talk.put(&head(message.length)).map_err(died)?;
    let mut failed = None;
    let sent = message.send_bare(|piece| {
        talk.put(piece)
            .map_err(|why| envelope::note(why, &mut failed))
    });
    if let Some(why) = failed {
        return Err(died(why));
    }
    if sent.is_err() {
        // The connection ends within the package: the server throws it away.
        return Err(Say::new('Z', "Unable to read message. (#4.3.0)"));
    }
    // With its last byte the server may have it.
    let died = |why: Refusal| envelope::dropped_in("QMTP", ip, &why, true);
    talk.put(&tail(envelope.sender, envelope.recipients))
        .map_err(died)?;
    let mut accepted = None;
    let mut last = None;
    for _ in envelope.recipients {
        let response = Response::read(talk.lines(), "after the message").map_err(died)?;
        let letter = match response.verdict {
            Verdict::Accepted => {
                said.push(Say::accepted());
                accepted.get_or_insert(response.text);
                continue;
            }
            Verdict::Later => 's',
            Verdict::Never => 'h',
        };
        let say = Say::new(letter, format!("{ip} does not like recipient."));
        said.push(say.said(Some(&response.text)));
        last = Some(response.text);
    }
    talk.link().part();
    Ok(match accepted {
        Some(text) => Say::new('K', format!("{ip} accepted message ({how}).")).said(Some(&text)),
        None => Say::new('D', format!("Giving up on {ip}.")).said(last.as_deref()),
    })
}
