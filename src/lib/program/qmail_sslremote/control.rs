//! qmail's control files, and the route that smtproutes gives a destination.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::policy::Port;
use crate::text;

/// What the control files say, but for the policy's.
#[derive(Debug)]
pub struct Control {
    /// What we call ourselves in EHLO.
    pub helo_host: String,
    /// Lines of smtproutes.
    pub routes: Vec<u8>,
    /// For each address.
    pub connect: Duration,
    /// For each reply and each piece of the message.
    pub remote: Duration,
}

/// Where a route leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Host or address in brackets.
    pub relay: String,
    /// Port; `None`: the policy's or 25.
    pub port: Option<Port>,
    /// User and password, to be sent inside TLS only.
    pub login: Option<(String, String)>,
}

/// A file's bytes; none where there is no file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file's first line without trailing blanks.
fn first_line(path: &Path) -> io::Result<Option<String>> {
    Ok(read(path)?.map(|bytes| {
        let line = bytes.split(|&byte| byte == b'\n').next();
        String::from_utf8_lossy(line.unwrap_or_default().trim_ascii_end()).into_owned()
    }))
}

/// A time in seconds, as qmail reads numbers: junk is an error here.
fn seconds(path: &Path, default: u64) -> io::Result<Duration> {
    let seconds = match first_line(path)? {
        None => default,
        Some(line) => text::number(&line, 0..=0x7fff_ffff)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?,
    };
    Ok(Duration::from_secs(seconds))
}

impl Control {
    /// Reads the files of a control directory.
    ///
    /// # Errors
    /// `me` is missing, or a file cannot be read.
    pub fn read(folder: &Path) -> io::Result<Control> {
        let me = first_line(&folder.join("me"))?;
        let me = me.ok_or(io::ErrorKind::NotFound)?;
        Ok(Control {
            helo_host: first_line(&folder.join("helohost"))?.unwrap_or(me),
            routes: read(&folder.join("smtproutes"))?.unwrap_or_default(),
            connect: seconds(&folder.join("timeoutconnect"), 60)?,
            remote: seconds(&folder.join("timeoutremote"), 1200)?,
        })
    }

    /// The route for a destination: its own line, then those of the domains
    /// above it, then that of everybody. `None`: by MX.
    ///
    /// # Errors
    /// The line that decides is wrong.
    pub fn route(&self, host: &str) -> Result<Option<Route>, String> {
        let host = host.to_ascii_lowercase();
        let mut keys = vec![host.clone()];
        let address = host.starts_with('[');
        let dots = host
            .match_indices('.')
            .filter(|(at, _)| *at > 0 && !address);
        keys.extend(dots.map(|(at, _)| host[at..].to_owned()));
        keys.push(String::new());
        let lines = self.routes.split(|&byte| byte == b'\n').enumerate();
        let found = lines
            .filter_map(|(number, line)| {
                let line = line.trim_ascii_end();
                if line.starts_with(b"#") {
                    return None;
                }
                let from = if line.starts_with(b"[") {
                    line.iter().position(|&byte| byte == b']')?
                } else {
                    0
                };
                let end = from + line[from..].iter().position(|&byte| byte == b':')?;
                let key = line[..end].to_ascii_lowercase();
                let rank = keys.iter().position(|one| one.as_bytes() == key)?;
                Some((rank, number + 1, &line[end + 1..]))
            })
            .min_by_key(|(rank, ..)| *rank);
        let Some((_, number, value)) = found else {
            return Ok(None);
        };
        let wrong = || format!("smtproutes line {number} is wrong");
        let value = str::from_utf8(value).map_err(|_| wrong())?;
        parse(value).ok_or_else(wrong)
    }
}

/// `relay`, `relay:port`, `relay;port|user|password`. The inner `None` is the
/// empty relay: by MX.
#[allow(clippy::option_option)] // wrong, by MX, or a route
fn parse(value: &str) -> Option<Option<Route>> {
    let mut fields = value.splitn(3, '|');
    let target = fields.next().unwrap_or_default().trim();
    let login = match (fields.next(), fields.next()) {
        (Some(user), Some(password)) if !user.is_empty() => {
            Some((user.to_owned(), password.to_owned()))
        }
        (None, None) => None,
        _ => return None,
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
        Some(port) => Some(Port::parse(port)?),
    };
    if relay.is_empty() {
        // A port or a login of nobody's would be lost in silence.
        return (port.is_none() && login.is_none()).then_some(None);
    }
    Some(Some(Route {
        relay: relay.to_ascii_lowercase(),
        port,
        login,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(routes: &str) -> Control {
        Control {
            helo_host: "me".into(),
            routes: routes.into(),
            connect: Duration::ZERO,
            remote: Duration::ZERO,
        }
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
                Some(("u", "p:|w")),
            ),
            ("r.example|u|p", "r.example", None, Some(("u", "p"))),
            ("[192.0.2.1]:26", "[192.0.2.1]", Some(26), None),
            ("[2001:db8::1]", "[2001:db8::1]", None, None),
            ("[2001:db8::1]:26", "[2001:db8::1]", Some(26), None),
        ] {
            let route = control(&format!("a.example:{value}\n")).route("a.example");
            let route = route.expect("sound").expect("a relay");
            assert_eq!(route.relay, relay, "{value}");
            assert_eq!(route.port.map(|port| port.number), port, "{value}");
            let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
            assert_eq!(route.login, login, "{value}");
        }
        for bad in ["r:x", "r;0", "r|u", "||", ":26", "r;1|u"] {
            let route = control(&format!("a.example:{bad}\n")).route("a.example");
            assert!(route.expect_err(bad).contains("line 1"), "{bad}");
        }
    }

    #[test]
    fn the_longest_route_counts_and_an_empty_one_means_mx() {
        let control = control("# c\n:all\n.example:e\na.example:\n[192.0.2.1]:x\nMX.a.example:m\n");
        let relay = |host: &str| {
            let route = control.route(host).expect("sound");
            route.map(|route| route.relay)
        };
        assert_eq!(relay("mx.A.example").as_deref(), Some("m"));
        assert_eq!(relay("b.example").as_deref(), Some("e"));
        assert_eq!(relay("a.example"), None);
        assert_eq!(relay("b.test").as_deref(), Some("all"));
        assert_eq!(relay("[192.0.2.1]").as_deref(), Some("x"));
        assert_eq!(relay("[192.0.2.2]").as_deref(), Some("all"));
    }
}
