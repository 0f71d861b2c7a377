//! The first connection: whether it listens, what it says, what it offers in the
//! clear and inside TLS.
#![forbid(unsafe_code)]

use super::connection::stop;
use super::session::{SessionLimits, inner_protocol};
use super::talk::{Capabilities, Talk, is_overwritten};
use super::{Scan, Stop};
use crate::dialogue::Protocol;
use crate::dialogue::client::DialogueError;
use crate::options::sslprobe::Start;
use crate::probe::result::{StartTls, Version};
use crate::text;
use crate::transport::Transport;

/// How much of a greeting is kept.
const GREETING: usize = 200;

/// The first of all steps.
pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let (mut transport, until) = scan.connect()?;
    let before = match scan.target.start {
        Start::AtOnce => {
            scan.result.starttls = Some(StartTls::NotApplicable);
            None
        }
        Start::Upgrade(protocol) => match in_the_clear(scan, &mut transport, protocol) {
            Ok(before) => Some(before),
            Err(stop) => {
                drop(transport);
                scan.hang_up(false);
                return Err(stop);
            }
        },
    };
    let lost = || Stop::Connection("the connection is gone".to_owned());
    let socket = transport.take_socket().ok_or_else(lost)?;
    let want = SessionLimits {
        versions: (Version::Tls10, Version::Tls13),
        signatures: None,
    };
    let ssl = super::session::state(&want);
    let ssl = ssl.map_err(|error| Stop::Host(crate::report::tls_reason(&error)))?;
    // Where this comes to nothing the older versions are tried.
    let Ok((transport, negotiated)) = scan.handshake(ssl, socket, until) else {
        return Ok(());
    };
    scan.seen.preferred.extend(
        scan.seen
            .suites
            .get(&negotiated.version)
            .and_then(|all| Some((negotiated.version, *all.first()?))),
    );
    inside(scan, transport, before.as_ref())
}

/// The dialogue up to the go-ahead; the capabilities.
fn in_the_clear(
    scan: &mut Scan<'_>,
    transport: &mut Transport,
    protocol: Protocol,
) -> Result<Capabilities, Stop> {
    let mut talk = Talk::new(transport, protocol, &scan.terms.name);
    let greeting = match talk.greet() {
        Ok(greeting) => greeting,
        Err(error) => return Err(refused(scan, &mut talk, &error)),
    };
    let first = greeting
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    scan.result.greeting = Some(text::excerpt(first.trim_ascii_end(), GREETING));
    if is_overwritten(&greeting) {
        scan.facts.stripped = Some(
            "Something on the way rewrote the greeting into asterisks: a firewall's SMTP inspection, \
             which may hide STARTTLS"
                .to_owned(),
        );
    }
    let list = match talk.capabilities() {
        Ok(list) => list,
        Err(error) => return Err(refused(scan, &mut talk, &error)),
    };
    if let Some(words) = list.refusal.as_ref().filter(|words| !is_unknown(words)) {
        let words = words.clone();
        return Err(refused(
            scan,
            &mut talk,
            &DialogueError::Refused("EHLO", words),
        ));
    }
    scan.facts.talks = true;
    scan.result.auth_before_tls = Some(list.logins(protocol));
    if !list.offers_upgrade(protocol) {
        scan.result.starttls = Some(StartTls::Missing);
        if let Some(word) = list.overwritten() {
            scan.facts.stripped = Some(format!(
                "Something on the way wrote {} over a capability: a firewall's SMTP inspection, which \
                 hides STARTTLS",
                text::excerpt(word, 20)
            ));
        }
        talk.quit();
        let command = protocol.upgrade_command();
        let words = list.refusal.as_deref().map(crate::dialogue::client::shown);
        let words = words.map_or_else(String::new, |words| format!(": {words}"));
        return Err(Stop::Host(format!(
            "the server does not offer {command}{words}"
        )));
    }
    if let Err(error) = talk.start_tls(false) {
        return Err(refused(scan, &mut talk, &error));
    }
    scan.result.starttls = Some(StartTls::Offered);
    Ok(list)
}

/// Whether a reply says that the command is not known (RFC 5321, 4.2.4): there are
/// servers that have only HELO.
fn is_unknown(reply: &[u8]) -> bool {
    [&b"500"[..], b"502", b"504"]
        .iter()
        .any(|code| reply.starts_with(code))
}

/// The server does not want to talk: with its words, and a farewell where there is
/// somebody to take leave of.
fn refused(scan: &mut Scan<'_>, talk: &mut Talk<&mut Transport>, error: &DialogueError) -> Stop {
    if let DialogueError::Refused(..) | DialogueError::PreAuthenticated(_) = error {
        scan.result.starttls = Some(StartTls::Refused);
        if let Some(reply) = error.reply() {
            let words = crate::dialogue::client::shown(reply);
            scan.result.greeting.get_or_insert_with(|| words.clone());
            scan.facts.refusal = Some(words);
        }
    }
    talk.quit_after(error);
    match stop(error) {
        Stop::Connection(why) | Stop::Host(why) => Stop::Host(why),
        Stop::Budget => Stop::Budget,
    }
}

/// What the server offers inside TLS; the end of the connection. One that refuses to
/// go on, or is silent, is asked no more: TLS with it is of no use.
fn inside(
    scan: &mut Scan<'_>,
    mut transport: Transport,
    before: Option<&Capabilities>,
) -> Result<(), Stop> {
    let Some(protocol) = inner_protocol(scan.target.start, scan.target.port) else {
        scan.leave(transport);
        return Ok(());
    };
    let mut talk = Talk::new(&mut transport, protocol, &scan.terms.name);
    let greeting = match scan.target.start {
        Start::AtOnce => talk.greet().map(Some),
        Start::Upgrade(_) => Ok(None),
    };
    if let Ok(Some(greeting)) = &greeting {
        let first = greeting
            .split(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        scan.result.greeting = Some(text::excerpt(first.trim_ascii_end(), GREETING));
    }
    let listed = greeting.and_then(|_| talk.capabilities());
    let mut ended = Ok(());
    match &listed {
        Ok(list) => {
            scan.result.auth_after_tls = Some(list.logins(protocol));
            scan.result.capabilities_fresh =
                before.map(|_| list.unknown || !list.offers_upgrade(protocol));
            if let Some(words) = &list.refusal {
                let shown = crate::dialogue::client::shown(words);
                scan.facts.inside = Some(format!("server refused EHLO: {shown}"));
            }
            talk.quit();
        }
        Err(error) => {
            talk.quit_after(error);
            let why = error.to_string();
            scan.facts.inside = Some(why.clone());
            ended = Err(Stop::Host(format!("inside TLS: {why}")));
        }
    }
    scan.keep(&transport);
    transport.close_notify();
    drop(transport);
    scan.hang_up(true);
    ended
}
