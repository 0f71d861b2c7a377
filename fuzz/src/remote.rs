//! What qmail-sslremote reads from relays and from QMTP servers.

use ucspi_tls::internals::client::lines::{LINE_LIMIT, Lines, REPLY_LIMIT};
use ucspi_tls::internals::client::qmtp::{Disposition, Response, netstring};
use ucspi_tls::internals::client::sasl::{LoginFailure, Mechanism, log_in};
use ucspi_tls::internals::client::smtp::Reply;
use ucspi_tls::internals::ident::ident_user;
use ucspi_tls::internals::routes::{Origin, Routes, Table};

use crate::Server;

fn server(bytes: &[u8], piece: usize) -> Server<'_> {
    Server {
        bytes,
        piece,
        heard: Vec::new(),
        given: 0,
    }
}

/// Everything that is read of bytes that come in such pieces, and why no more is.
fn read_all<T, E: ToString>(
    bytes: &[u8],
    piece: usize,
    one: impl Fn(&mut Lines<&mut Server<'_>>) -> Result<T, E>,
) -> (Vec<T>, String) {
    let mut server = server(bytes, piece);
    let mut lines = Lines::new(&mut server);
    let mut found = Vec::new();
    loop {
        match one(&mut lines) {
            Ok(whole) => found.push(whole),
            Err(refusal) => return (found, refusal.to_string()),
        }
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

/// What SMTP servers say.
pub fn smtp_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x20220 mx ESMTP\r\n250-mx\r\n250-SIZE 100\r\n250-AUTH=PLAIN\r\n250 STARTTLS\r\n"[..],
        b"\x01250-a\n250\r\n354 go\r\n250 2.0.0 ok\r\n",
        b"\x03550-5.1.1 no\r\n550 5.1.1 no\r\n421 closing\r\n251-a\r\n250 b\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as SMTP replies: they are what came, one behind the other, however it was
/// cut; each line has the reply's code; a capability stands on a line of its own behind
/// the first.
pub fn smtp_replies(bytes: &[u8]) {
    let [piece, bytes @ ..] = bytes else {
        return;
    };
    let read = |piece| read_all(bytes, piece, |lines| Reply::read(lines, "here"));
    let (found, end) = read(usize::from(*piece).max(1));
    let mut rest = bytes;
    for reply in &found {
        assert!((200..600).contains(&reply.code) && reply.text.len() <= REPLY_LIMIT + LINE_LIMIT);
        rest = rest.strip_prefix(&*reply.text).expect("what came");
        let text = reply.text.strip_suffix(b"\n").expect("whole lines");
        let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        let (last, before) = lines.split_last().expect("a line");
        let code = reply.code.to_string();
        assert!(lines.iter().all(|line| line.starts_with(code.as_bytes())));
        assert!(before.iter().all(|line| line.get(3) == Some(&b'-')));
        assert!(last.get(3) != Some(&b'-'));
        if let Some(parameters) = reply.capability("SIZE") {
            let has = |line: &&[u8]| line.len() >= 8 && line[4..8].eq_ignore_ascii_case(b"SIZE");
            assert!(lines[1..].iter().any(has) && parameters.trim_ascii() == parameters);
        }
    }
    assert!(end.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    assert_eq!(read(4096), (found, end));
}

/// Answers of an ident server about the ports 50000 and 25.
pub fn ident_seeds() -> Vec<Vec<u8>> {
    [
        &b"50000 , 25 : USERID : UNIX : me\r\n"[..],
        b"50000,25:USERID:OTHER,US-ASCII: a:b \0c\n",
        b"50000,25:ERROR:NO-USER\r\n",
        b"50000,25,1:USERID:x:y",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Any bytes as an ident server's answer: a name is a piece of its first line, which is
/// about the ports that were asked for.
pub fn ident(bytes: &[u8]) {
    let Some(name) = ident_user(bytes, (50000, 25)) else {
        return;
    };
    assert!(!name.is_empty() && !name.contains(&b'\n') && !name.contains(&0));
    let line = bytes.split(|&byte| byte == b'\n').next().expect("a line");
    assert!(line.windows(name.len()).any(|some| some == name));
    assert!(
        line.trim_ascii_start().starts_with(b"0") || line.windows(5).any(|some| some == b"50000")
    );
    assert_eq!(ident_user(bytes, (50000, 26)), None);
    assert_eq!(ident_user(line, (50000, 25)), Some(name));
}

/// Files of routes, each with a byte before it that says which one it is.
pub fn route_seeds() -> Vec<Vec<u8>> {
    let text: &[u8] = b"a.example:relay.example:25\n.example:[::1]:s465|user|secret\n:\n!@:x\n\
        [192.0.2.1]:!r;587|u|p\n# c\nb\xc3\xbc.example:\n* :192.0.2.1\nme@a.example:r|u|p\n";
    (0..4).map(|kind| [&[kind], text].concat()).collect()
}

/// Any bytes as a file that says which way mail goes: the line that does exists, its
/// relay can be called, and what is told of it is one line without the password.
pub fn routes(bytes: &[u8]) {
    let Some((&kind, text)) = bytes.split_first() else {
        return;
    };
    let lines = text.split(|&byte| byte == b'\n').count();
    let table = |name, own| Table::new(name, if own { text.to_vec() } else { Vec::new() });
    let is_line = |place: &str| {
        let number = place
            .rsplit(' ')
            .next()
            .and_then(|number| number.parse().ok());
        number.is_some_and(|number| (1..=lines).contains(&number))
    };
    let shown = |said: &str| said.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if kind & 3 == 3 {
        match Origin::look_up(&table("domainips", true), Some("a.example")) {
            Ok(origin) => {
                assert!(origin.addresses.len() <= 2);
                assert!(origin.place.is_empty() || is_line(&origin.place));
            }
            Err(why) => assert!(shown(&why.to_string())),
        }
        return;
    }
    let routes = Routes {
        senders: table("authsenders", kind & 3 == 0),
        qmtp: table("qmtproutes", kind & 3 == 1),
        smtp: table("smtproutes", kind & 3 == 2),
    };
    for host in ["a.example", "mx.b\u{fc}.example", "[192.0.2.1]"] {
        for sender in [&b"me@a.example"[..], b""] {
            match routes.look_up(host, sender) {
                Ok(route) => {
                    assert!(
                        route.place.is_empty() || is_line(&route.place),
                        "{}",
                        route.place
                    );
                    let relay = route.relay.as_deref().unwrap_or("x");
                    assert!(
                        !relay.is_empty() && shown(relay) && !relay.contains(' '),
                        "{relay}"
                    );
                    assert!(route.login.is_none() || route.relay.is_some());
                    assert!(route.leads().is_none_or(|said| shown(&said)));
                }
                Err(why) => assert!(shown(&why.to_string()), "{why}"),
            }
        }
    }
    assert!(routes.strays().iter().all(|said| shown(said)));
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
    let read = |piece| read_all(bytes, piece, |lines| Response::read(lines, "here"));
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
