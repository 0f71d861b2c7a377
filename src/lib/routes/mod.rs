//! Which way a message goes: authsenders, qmtproutes and smtproutes, and from
//! which address: domainips. All in s/qmail's forms.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;

use crate::host_name::Reference;
use crate::report::Fail;
use crate::secret::Secret;
use crate::text;
use crate::tlsdestinations::Port;

#[cfg(feature = "remote")]
mod origin;
mod table;

#[cfg(feature = "remote")]
pub use origin::Origin;
pub use table::Table;

use table::{FoundLine, walk};

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The Quick Mail Transfer Protocol.
    Qmtp,
    /// SMTP.
    #[default]
    Smtp,
}

/// Who we are to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Neither is ever shown.
    pub user: Secret,
    /// Not empty.
    pub password: Secret,
    /// The route says that it need not be inside TLS.
    pub in_clear: bool,
}

/// Where a message goes; the default is by MX, in SMTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The line that says so; empty: none does.
    pub place: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Host, as DNS has it, or address in brackets; `None`: by MX.
    pub relay: Option<String>,
    /// Port; `None`: the policy's or the protocol's.
    pub port: Option<Port>,
    /// What a relay asks for.
    pub login: Option<Login>,
}

impl Route {
    /// Where it leads, if it is not by MX: a sentence.
    #[must_use]
    pub fn leads(&self) -> Option<String> {
        let relay = text::excerpt(self.relay.as_ref()?.as_bytes(), 255);
        let mut said = format!("{} leads to {relay}", self.place);
        if let Some(port) = self.port {
            let _ = write!(said, " port {port}");
        }
        if self.protocol == Protocol::Qmtp {
            said.push_str(", by QMTP");
        }
        if self.login.is_some() {
            said.push_str(", with a login");
        }
        Some(said)
    }
}

/// The three files that route.
#[derive(Clone, Debug)]
pub struct Routes {
    /// By sender.
    pub senders: Table,
    /// By destination, for QMTP.
    pub qmtp: Table,
    /// By destination.
    pub smtp: Table,
}

impl Routes {
    /// Reads the three files of a control directory.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn read(folder: &Path) -> Result<Routes, Fail> {
        Ok(Routes {
            senders: Table::read(folder, "authsenders")?,
            qmtp: Table::read(folder, "qmtproutes")?,
            smtp: Table::read(folder, "smtproutes")?,
        })
    }

    /// Lines that lead nobody, with the cure.
    #[must_use]
    pub fn strays(&self) -> Vec<String> {
        let tables = [&self.senders, &self.qmtp, &self.smtp];
        tables.into_iter().flat_map(Table::strays).collect()
    }

    /// The way for a destination and a sender. authsenders comes first: the
    /// sender's line, that of its domain, of the domains above, of everybody. A
    /// line without a value there leaves the sender to the other two, in which
    /// the destination's line comes first, then those of the domains above it,
    /// then that of everybody, and for each of these qmtproutes before
    /// smtproutes; `!@` in them is for mail without a sender.
    ///
    /// # Errors
    /// The line that decides is wrong.
    pub fn look_up(&self, host: &str, sender: &[u8]) -> Result<Route, Fail> {
        if let Some(found) = self.senders.find(&walk(sender, b"@.")) {
            if !found.value.is_empty() {
                return parse(&found, Protocol::Smtp);
            }
        }
        if sender.is_empty() {
            let bounces = [b"!@".to_vec()];
            if let Some((found, protocol)) = self.destination(&bounces) {
                if !found.value.is_empty() {
                    return parse(&found, protocol);
                }
            }
        }
        let stops: &[u8] = if host.starts_with('[') { b"" } else { b"." };
        match self.destination(&walk(host.as_bytes(), stops)) {
            Some((found, protocol)) => parse(&found, protocol),
            None => Ok(Route::default()),
        }
    }

    fn destination(&self, keys: &[Vec<u8>]) -> Option<(FoundLine<'_>, Protocol)> {
        let qmtp = self.qmtp.find(keys);
        let smtp = self.smtp.find(keys);
        match (qmtp, smtp) {
            (Some(qmtp), Some(smtp)) if smtp.rank < qmtp.rank => Some((smtp, Protocol::Smtp)),
            (Some(qmtp), _) => Some((qmtp, Protocol::Qmtp)),
            (None, smtp) => smtp.map(|found| (found, Protocol::Smtp)),
        }
    }
}

/// `relay`, `relay:port`, `relay;port|user|password`, each with `!` before it
/// where the login may go in the clear. An empty relay: by MX.
fn parse(found: &FoundLine<'_>, protocol: Protocol) -> Result<Route, Fail> {
    let mut route =
        parts(found.value, protocol).map_err(|why| format!("{} is wrong: {why}", found.place))?;
    route.place.clone_from(&found.place);
    Ok(route)
}

fn parts(value: &[u8], protocol: Protocol) -> Result<Route, Fail> {
    let mut fields = value.splitn(3, |&byte| byte == b'|');
    let target = std::str::from_utf8(fields.next().unwrap_or_default());
    let target = target.map_err(|_| "the relay is not UTF-8")?;
    let (target, in_clear) = match target.trim().strip_prefix('!') {
        Some(target) => (target.trim_start(), true),
        None => (target.trim(), false),
    };
    let login = match (fields.next(), fields.next()) {
        (Some(user), Some(password)) if !user.is_empty() && !password.is_empty() => Some(Login {
            user: Secret::new(user.to_vec()),
            password: Secret::new(password.to_vec()),
            in_clear,
        }),
        (None, None) => None,
        _ => return Err("a login needs a user and a password".into()),
    };
    let name_end = target.find(']').unwrap_or(0);
    let (relay, port) = match target[name_end..].find([':', ';']) {
        Some(at) => {
            let (relay, port) = target.split_at(name_end + at);
            (relay, Some(port[1..].trim()))
        }
        None => (target, None),
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(Port::parse(port).ok_or(
            "the port is not a number from 1 to 65535, with s before it or not \
             (an IPv6 address needs brackets)",
        )?),
    };
    // What has no place would be lost in silence: a port or a login of nobody's,
    // leave to log in without a login, a login where there is no AUTH.
    if relay.is_empty() && port.is_some() {
        return Err("there is a port but no relay".into());
    }
    if relay.is_empty() && login.is_some() {
        return Err("there is a login but no relay".into());
    }
    if in_clear && login.is_none() {
        return Err("! allows a login in the clear, but there is no login".into());
    }
    if protocol == Protocol::Qmtp && login.is_some() {
        return Err("QMTP has no login".into());
    }
    let relay = match Reference::parse(relay) {
        _ if relay.is_empty() => None,
        Ok(Reference::Host(name)) => Some(name.to_string()),
        Ok(_) => Some(relay.to_ascii_lowercase()),
        Err(why) => return Err(format!("the relay is no host name: {why}").into()),
    };
    Ok(Route {
        place: String::new(),
        protocol,
        relay,
        port,
        login,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(auth_senders: &str, qmtp_routes: &str, smtp_routes: &str) -> Routes {
        Routes {
            senders: Table::new("authsenders", auth_senders.into()),
            qmtp: Table::new("qmtproutes", qmtp_routes.into()),
            smtp: Table::new("smtproutes", smtp_routes.into()),
        }
    }

    fn smtp(lines: &str, host: &str) -> Result<Route, Fail> {
        routes("", "", lines).look_up(host, b"a@b")
    }

    /// Else mail would pass the relay by, in one of the two spellings.
    #[cfg(feature = "remote")]
    #[test]
    fn a_name_and_its_ascii_form_are_one() {
        let (name, ascii) = ("m\u{fc}nchen.example", "xn--mnchen-3ya.example");
        let upper = "M\u{dc}NCHEN.Example";
        for (key, host) in [
            (name, ascii),
            (ascii, name),
            (upper, ascii),
            ("XN--Mnchen-3YA.example", upper),
            (".m\u{fc}nchen.example", "mx.xn--mnchen-3ya.example"),
            (".xn--mnchen-3ya.example", "mx.m\u{fc}nchen.example"),
        ] {
            let line = format!("{key}:relay\n");
            let relay = Some("relay".to_owned());
            assert_eq!(smtp(&line, host).expect("sound").relay, relay, "{key}");
            let by_qmtp = routes("", &line, "").look_up(host, b"a@b");
            assert_eq!(by_qmtp.expect("sound").relay, relay, "{key}");
            let sender = format!("me@{host}");
            let by_sender = routes(&line.replace(key, &format!("ME@{key}")), "", "");
            if !key.starts_with('.') {
                let found = by_sender.look_up("x", sender.as_bytes()).expect("sound");
                assert_eq!(found.relay, relay, "{key}");
            }
            let own = Table::new("domainips", format!("{key}:192.0.2.1\n").into());
            let domain = crate::tlsdestinations::sender_domain(&sender);
            let origin = Origin::look_up(&own, domain.as_deref()).expect("sound");
            assert_eq!(origin.addresses.len(), 1, "{key}");
            let certs = format!("{key}:own.pem\n");
            let own = crate::domaincerts::look_up(certs.as_bytes(), domain.as_deref());
            assert!(own.expect("sound").is_some(), "{key}");
        }
        // The part before the sign is no name of DNS.
        let line = "m\u{fc}nchen@a.example:relay\n";
        let other = routes(line, "", "").look_up("x", b"xn--mnchen-3ya@a.example");
        assert_eq!(other.expect("sound").relay, None);
    }

    #[test]
    fn routes_have_three_forms() {
        for (value, relay, port, login) in [
            ("r.example", "r.example", None, None),
            ("R.example:26", "r.example", Some(26), None),
            (
                "r.example;587|u|p:|w",
                "r.example",
                Some(587),
                Some(("u", "p:|w", false)),
            ),
            ("!r.example|u|p", "r.example", None, Some(("u", "p", true))),
            ("[192.0.2.1]:26", "[192.0.2.1]", Some(26), None),
            ("[2001:db8::1]", "[2001:db8::1]", None, None),
            ("[2001:db8::1]:26", "[2001:db8::1]", Some(26), None),
        ] {
            let route = smtp(&format!("a.example:{value}\n"), "a.example").expect("sound");
            assert_eq!(route.relay.as_deref(), Some(relay), "{value}");
            assert_eq!(route.port.map(|port| port.number), port, "{value}");
            let login = login.map(|(user, password, in_clear)| Login {
                user: Secret::new(user.into()),
                password: Secret::new(password.into()),
                in_clear,
            });
            assert_eq!(route.login, login, "{value}");
        }
        for bad in [
            "r:x", "r;0", "r|u", "||", ":26", "r;1|u", "r||p", "r|u|", "|u|p", "!r", "!|u|p",
        ] {
            let wrong = smtp(&format!("# c\na.example:{bad}\n"), "a.example");
            let wrong = wrong.expect_err(bad).to_string();
            assert!(wrong.starts_with("smtproutes line 2 is wrong: "), "{wrong}");
        }
        let wrong = routes("", "a.example:r|u|p\n", "").look_up("a.example", b"a@b");
        let said = "qmtproutes line 1 is wrong: QMTP has no login";
        assert_eq!(wrong, Err(said.into()));
    }

    #[test]
    fn the_longest_route_counts_and_an_empty_one_means_mx() {
        let lines =
            "# c\n:all\n.example:x\na.example:\n[192.0.2.1]:x\nMX.a.example:m\n.example:e\n";
        let relay = |host: &str| smtp(lines, host).expect("sound").relay;
        assert_eq!(relay("mx.A.example").as_deref(), Some("m"));
        assert_eq!(relay("b.example").as_deref(), Some("e"), "the last of two");
        assert_eq!(relay("a.example"), None);
        assert_eq!(relay("b.test").as_deref(), Some("all"));
        assert_eq!(relay("[192.0.2.1]").as_deref(), Some("x"));
        assert_eq!(relay("[192.0.2.2]").as_deref(), Some("all"));
    }

    #[test]
    fn senders_come_before_destinations_and_qmtp_before_smtp() {
        let routes = routes(
            "me@a.example:one;587|u|p\n@a.example:two\nno@a.example:\n.example:three\n",
            "q.test:q1\n.test:q2;6209\n!@:q3\nmx.test:\n",
            "q.test:s1\nm.q.test:s2\n:s3\n",
        );
        let to = |host: &str, sender: &str| {
            let route = routes.look_up(host, sender.as_bytes()).expect("sound");
            (
                route.relay.unwrap_or_default(),
                route.protocol == Protocol::Qmtp,
                route.place,
            )
        };
        for (host, sender, relay, qmtp, place) in [
            ("q.test", "ME@a.example", "one", false, "authsenders line 1"),
            ("q.test", "x@a.example", "two", false, "authsenders line 2"),
            (
                "q.test",
                "x@m.example",
                "three",
                false,
                "authsenders line 4",
            ),
            ("q.test", "no@a.example", "q1", true, "qmtproutes line 1"),
            ("q.test", "x@b.org", "q1", true, "qmtproutes line 1"),
            ("m.q.test", "x@b.org", "s2", false, "smtproutes line 2"),
            ("x.test", "x@b.org", "q2", true, "qmtproutes line 2"),
            ("mx.test", "x@b.org", "", true, "qmtproutes line 4"),
            ("x.org", "x@b.org", "s3", false, "smtproutes line 3"),
            ("x.org", "", "q3", true, "qmtproutes line 3"),
        ] {
            let wanted = (relay.to_owned(), qmtp, place.to_owned());
            assert_eq!(to(host, sender), wanted, "{host} {sender}");
        }
        let everybody = self::routes(":all|u|p\n", "q.test:q1\n", "");
        for sender in [&b"x@b.org"[..], b""] {
            let route = everybody.look_up("q.test", sender).expect("sound");
            assert_eq!(route.relay.as_deref(), Some("all"));
        }
    }

    #[test]
    fn passwords_are_not_for_debugging() {
        let routes = routes("", "", ":relay|tim|tanstaaf\n");
        let route = routes.look_up("x", b"y@z").expect("sound");
        let shown = format!("{routes:?} {route:?}");
        assert!(
            !shown.contains("tim") && !shown.contains("tanstaaf"),
            "{shown}"
        );
    }
}
