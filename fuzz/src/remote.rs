//! What qmail-sslremote reads from relays and from QMTP servers.

use ucspi_tls::internals::client::lines::{LINE_LIMIT, Lines, REPLY_LIMIT};
use ucspi_tls::internals::client::qmtp::{Disposition, Response, netstring};
use ucspi_tls::internals::client::sasl::{LoginFailure, Mechanism, log_in};

use crate::Server;

fn server(bytes: &[u8], piece: usize) -> Server<'_> {
    Server {
        bytes,
        piece,
        heard: Vec::new(),
        given: 0,
    }
}

/// Dialogues that come to their end.
pub fn login_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x00\x20235 2.7.0 ok\r\n"[..],
        b"\x00\x01334 \r\n501 cancelled\r\n",
        b"\x01\x20334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n535-5.7.8 no\r\n535 5.7.8 no\r\n",
        b"\x02\x20334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n235 ok\r\n",
        b"\x02\x03334 eA=\r\n501 5.5.4 cancelled\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as a relay's side of a login: it ends, within its limits; nothing
/// but codes is repeated; a challenge never gets the password itself.
pub fn logins(bytes: &[u8]) {
    let [mechanism, piece, bytes @ ..] = bytes else {
        return;
    };
    let all = [Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5];
    let mechanism = all[usize::from(*mechanism) % all.len()];
    let mut server = server(bytes, usize::from(*piece).max(1));
    let result = log_in(&mut Lines::new(&mut server), mechanism, b"tim", b"tanstaaf");
    let heard = String::from_utf8(server.heard).expect("ASCII");
    assert!(heard.starts_with(&format!("AUTH {}", mechanism.name())));
    assert!(heard.ends_with("\r\n") && heard.lines().count() <= 4);
    let cancelled = heard.ends_with("\r\n*\r\n");
    match result {
        Ok(()) => assert!(!cancelled),
        Err(LoginFailure::Stopped(_)) => assert!(cancelled),
        Err(LoginFailure::Refused(codes)) => {
            assert!(codes.len() <= 15 && codes.bytes().all(|byte| b"0123456789. ".contains(&byte)));
        }
        Err(LoginFailure::Lost(_)) => {}
    }
    if mechanism == Mechanism::CramMd5 {
        assert!(!heard.contains("dGFuc3RhYWY") && heard.lines().count() <= 3);
    }
    assert!(server.given <= 5 * (REPLY_LIMIT + 2 * LINE_LIMIT));
}

/// Answers to a package.
pub fn response_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x2021:Kok 838640135 qp 1390,1:Z,4:Da,b,"[..],
        b"\x0102:Kx,",
        b"\x0365536:Kx",
        b"\xff0:,99999999999999999999:",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as QMTP's responses: what is read is what its netstring says, in
/// its only form, however the bytes are cut; nothing is waited for that is too
/// long.
pub fn responses(bytes: &[u8]) {
    let [piece, bytes @ ..] = bytes else {
        return;
    };
    let read = |piece: usize| {
        let mut server = server(bytes, piece);
        let mut lines = Lines::new(&mut server);
        let mut found = Vec::new();
        let end = loop {
            match Response::read(&mut lines, "here") {
                Ok(response) => found.push(response),
                Err(refusal) => break refusal.to_string(),
            }
        };
        (found, end)
    };
    let (found, end) = read(usize::from(*piece).max(1));
    let mut rest = bytes;
    for response in &found {
        let letter = match response.disposition {
            Disposition::Accepted => b'K',
            Disposition::Later => b'Z',
            Disposition::Never => b'D',
        };
        let whole = netstring(&[&[letter], &*response.text].concat());
        assert!(response.text.len() < REPLY_LIMIT);
        rest = rest.strip_prefix(&*whole).expect("its only form");
    }
    assert!(end.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    assert_eq!(read(4096), (found, end));
}
