//! Why there is no session, or none any more: what libssl, the socket and the alerts
//! say, in one sentence.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::time::Duration;

use openssl::ssl::SslRef;

use super::{Session, Side, diagnosis};
use crate::hello::{self, Hello};
use crate::report::{reason, tls_reason};
use crate::store::server;
use crate::text;
use crate::tls_ffi::alerts::{self, Alert};
use crate::trust;

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The time ran out.
    Late(String),
    /// The peer went away.
    Gone(String),
    /// Anything else, in full.
    Refused(String),
    /// The peer's certificate does not verify; the alert, where one was sent.
    Certificate(trust::Refusal, Option<Alert>),
    /// The server name that the client asked for is not served; the alert.
    Name(Vec<u8>, String),
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeFailure::Late(text)
            | HandshakeFailure::Gone(text)
            | HandshakeFailure::Refused(text)
            | HandshakeFailure::Name(_, text) => out.write_str(text),
            HandshakeFailure::Certificate(refusal, _) => {
                write!(out, "certificate did not verify: {refusal}")
            }
        }
    }
}

/// Where a handshake stood when its time was over.
pub(super) fn lateness(stream: &Session, limit: Duration) -> String {
    let wire = stream.get_ref();
    let seconds = text::count(whole_seconds(limit), "second");
    let side = peer(stream.ssl());
    let state = state(stream.ssl());
    if wire.received() == 0 && stream.ssl().is_server() {
        return format!("handshake timed out after {seconds}: {side} sent nothing (state {state})");
    }
    format!(
        "handshake timed out after {seconds}: {side} sent {} (state {state})",
        text::count(wire.received(), "byte")
    )
}

/// Libssl's words for how far a handshake is. It begins most of them with `SSLv3/TLS`,
/// whatever version is spoken, and has two for a server that say something else than what
/// is: nothing came yet, and everything was sent.
fn state(ssl: &SslRef) -> &str {
    match ssl.state_string_long() {
        "before SSL initialization" => "before the ClientHello",
        "TLSv1.3 early data" => "awaits the Finished of the client",
        words => words.strip_prefix("SSLv3/TLS ").unwrap_or(words),
    }
}

/// What somebody gave, of which a moment went before: not a second less.
fn whole_seconds(limit: Duration) -> u64 {
    (limit + Duration::from_millis(500)).as_secs()
}

pub(super) fn peer(ssl: &SslRef) -> &'static str {
    if ssl.is_server() { "client" } else { "server" }
}

/// What failed.
pub(super) fn explain(
    stream: &Session,
    error: &openssl::ssl::Error,
    side: Side<'_>,
) -> HandshakeFailure {
    let ssl = stream.ssl();
    let wire = stream.get_ref();
    let side = Side {
        kinds: server::chosen(ssl).map_or(side.kinds, |chosen| &chosen.kinds),
        versions: server::chosen(ssl)
            .and_then(|chosen| chosen.versions)
            .unwrap_or(side.versions),
    };
    if let Some(refusal) = trust::refusal(ssl) {
        if error.ssl_error().is_some() && !alerts::seen(ssl).iter().any(|alert| !alert.sent) {
            return HandshakeFailure::Certificate(refusal, alerts::seen(ssl).last().copied());
        }
    }
    let alert = alert_text(ssl);
    if let Some(received) = last_alert(ssl) {
        return HandshakeFailure::Refused(received);
    }
    let Some(stack) = error.ssl_error() else {
        return match error.io_error() {
            Some(cause) => lost(stream, cause),
            None => gone(stream),
        };
    };
    if stack
        .errors()
        .iter()
        .any(|error| error.reason_code() == diagnosis::CALLBACK_FAILED)
    {
        if let Some(name) = hello::of(ssl).and_then(Hello::server_name) {
            if let Some(alert) = &alert {
                return HandshakeFailure::Name(name.to_vec(), alert.clone());
            }
        }
    }
    let first = stack.errors().first();
    let code = first.map_or(0, openssl::error::Error::reason_code);
    let own = diagnosis::sentence(ssl, wire, code, side).unwrap_or_else(|| tls_reason(stack));
    HandshakeFailure::Refused(match alert {
        Some(alert) => format!("{own}; {alert}"),
        None => own,
    })
}

/// The connection broke before there was a session.
pub(super) fn lost(stream: &Session, cause: &io::Error) -> HandshakeFailure {
    let (who, why) = (peer(stream.ssl()), reason(cause));
    HandshakeFailure::Gone(format!("{who} was lost during the handshake: {why}"))
}

/// The peer ended the connection before there was a session.
pub(super) fn gone(stream: &Session) -> HandshakeFailure {
    let wire = stream.get_ref();
    let who = peer(stream.ssl());
    if wire.received() == 0 {
        return HandshakeFailure::Gone(format!(
            "{who} closed the connection without sending anything"
        ));
    }
    HandshakeFailure::Gone(diagnosis::not_tls(wire, who).unwrap_or_else(|| {
        let state = state(stream.ssl());
        format!("{who} closed the connection during the handshake (state {state})")
    }))
}

/// The last alert: `sent alert handshake_failure (40)`.
fn alert_text(ssl: &SslRef) -> Option<String> {
    alerts::seen(ssl).last().map(|alert| shown(*alert, ssl))
}

fn shown(alert: Alert, ssl: &SslRef) -> String {
    if alert.sent {
        return alert.to_string();
    }
    let hint = received_hint(alert.number, ssl.is_server());
    format!("{alert}{hint}")
}

/// What an alert of the peer's probably means for an administrator.
fn received_hint(number: u8, by_client: bool) -> &'static str {
    match (number, by_client) {
        (42 | 43 | 46, true) => ": the client does not accept our certificate",
        (44, true) => ": the client considers our certificate revoked",
        (45, true) => ": the client considers our certificate expired",
        (48, true) => ": the client does not trust our certificate's issuer",
        (42 | 43 | 46, false) => ": the server does not accept our certificate",
        (44, false) => ": the server considers our certificate revoked",
        (45, false) => ": the server considers our certificate expired",
        (48, false) => ": the server does not trust our certificate's issuer",
        (112, false) => ": the server does not serve this name",
        (116, false) => ": the server wants a client certificate",
        _ => "",
    }
}

/// The peer's last alert. A server may send one after the handshake: in TLS 1.3 it
/// judges our certificate only then.
#[must_use]
pub fn last_alert(ssl: &SslRef) -> Option<String> {
    let received = alerts::seen(ssl).iter().rfind(|alert| !alert.sent);
    received.map(|alert| shown(*alert, ssl))
}

/// Whether the peer has refused our certificate, or that there was none.
#[cfg(feature = "remote")]
#[must_use]
pub fn refuses_certificate(ssl: &SslRef) -> bool {
    // RFC 8446, 6.2: from bad_certificate to access_denied, but for
    // illegal_parameter; certificate_required.
    let is_one = |number: u8| matches!(number, 42..=46 | 48 | 49 | 116);
    let mut alerts = alerts::seen(ssl).iter();
    alerts.any(|alert| !alert.sent && is_one(alert.number))
}

/// The reason of a failed read or write after the handshake: the alert, if that
/// was it.
#[must_use]
pub fn later_failure(ssl: &SslRef, error: &openssl::ssl::Error) -> String {
    if let Some(alert) = alert_text(ssl) {
        return alert;
    }
    match (error.io_error(), error.ssl_error()) {
        (Some(cause), _) => reason(cause),
        (None, Some(stack)) => tls_reason(stack),
        (None, None) => "connection lost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_went_before_is_no_second_less() {
        for (left, told) in [(26_000, 26), (25_999, 26), (25_500, 26), (1_400, 1)] {
            assert_eq!(
                whole_seconds(Duration::from_millis(left)),
                told,
                "{left} ms"
            );
        }
    }
}
