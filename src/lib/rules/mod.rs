//! Rules: who may connect, and with which variables. Text becomes records as
//! with tcprules; a connection meets the first rule in tcprules' order.
//!
//! [`first`] is a pure function over strings. [`Rules`] puts a database behind
//! it, every record of which was understood when it was opened: a look-up has
//! no way to fail, so no failure can let a client in.
#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::report::is_absent;
use crate::rulesdb::Database;

mod address;
mod source;

pub use address::{Scope, Unmet};
pub use source::compile;

/// Who connects, as the look-up sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    ip: Vec<u8>,
    name: Option<Vec<u8>>,
    info: Option<Vec<u8>>,
}

impl Client {
    /// A connection's client. The name is taken in lower case and without the
    /// root's dot, so that no spelling of it evades a rule; an empty one is
    /// none. `info` is the ident answer.
    #[must_use]
    pub fn new(ip: IpAddr, name: Option<&[u8]>, info: Option<&[u8]>) -> Client {
        let name = name
            .map(|name| name.strip_suffix(b".").unwrap_or(name))
            .filter(|name| !name.is_empty());
        Client {
            ip: address::single(ip),
            name: name.map(<[u8]>::to_ascii_lowercase),
            info: info.map(<[u8]>::to_vec),
        }
    }

    /// What sslrulescheck is asked for: every text as it stands, as
    /// tcprulescheck takes it.
    #[must_use]
    pub fn literal(ip: &[u8], name: Option<&[u8]>, info: Option<&[u8]>) -> Client {
        Client {
            ip: ip.to_vec(),
            name: name.map(<[u8]>::to_vec),
            info: info.map(<[u8]>::to_vec),
        }
    }
}

/// Offers the keys that a client could meet to `probe`, in order, until one is
/// found: `info@ip`, `info@=host`, ip, `=host`, class prefixes from long to
/// short, networks from long to short, `=.suffix` from long to short, `=`, and
/// the empty key.
pub fn first<T>(client: &Client, mut probe: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    let parsed = address::parse(&client.ip);
    let ips = &singles(client, parsed);
    let name = client.name.as_deref();

    let with_info = client.info.iter().flat_map(|info| {
        let at_ip = ips.iter().map(move |ip| [info, &b"@"[..], ip].concat());
        at_ip.chain(name.map(|name| [info, &b"@="[..], name].concat()))
    });
    let named = name.map(|name| [b"=", name].concat());
    let alone = ips.iter().cloned().chain(named);
    // An IPv6 address holds no dot.
    let classes = ips.iter().flat_map(|ip| {
        let ends = (1..=ip.len()).rev().filter(|&end| ip[end - 1] == b'.');
        ends.map(|end| ip[..end].to_vec())
    });
    let networks = parsed.into_iter().flat_map(|ip| {
        let bits = address::bits(ip);
        let ends = (1..=bits.len()).rev();
        ends.map(move |end| bits[..end].to_vec())
    });
    let suffixes = name.into_iter().flat_map(|name| {
        let dots = (0..name.len()).filter(|&at| name[at] == b'.');
        let suffixes = dots.map(|at| [b"=", &name[at..]].concat());
        suffixes.chain([b"=".to_vec()])
    });

    with_info
        .chain(alone)
        .chain(classes)
        .chain(networks)
        .chain(suffixes)
        .chain([Vec::new()])
        .find_map(|key| match address::scope(&key) {
            Scope::Client => probe(&key),
            // Only a text that is no address gets here: see Client::literal.
            Scope::Local | Scope::ServerName => None,
        })
}

/// The keys of the client's own address. ucspi-tcp6 writes the digits of an
/// IPv6 address in upper case, sslrules in lower case: its database counts too.
fn singles(client: &Client, parsed: Option<IpAddr>) -> Vec<Vec<u8>> {
    match parsed {
        None => vec![client.ip.clone()],
        Some(ip) => {
            let key = address::single(ip);
            let upper = key.to_ascii_uppercase();
            if upper == key {
                vec![key]
            } else {
                vec![key, upper]
            }
        }
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The connection may come in.
    Allow,
    /// It may not.
    Deny,
}

/// A rule of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    key: &'a [u8],
    data: &'a [u8],
}

impl<'a> Rule<'a> {
    /// The key of its record.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Its address as the text has it, printable. Empty for the rule that every
    /// client meets.
    #[must_use]
    pub fn address(&self) -> String {
        address::describe(self.key)
    }

    /// Which connections it speaks of.
    #[must_use]
    pub fn scope(&self) -> Scope {
        address::scope(self.key)
    }

    /// Why nobody ever meets it, whatever the options, if so.
    #[must_use]
    pub fn unmet(&self) -> Option<Unmet> {
        address::unmet(self.key)
    }

    /// Allow or deny.
    #[must_use]
    pub fn action(&self) -> Action {
        if self.data.first() == Some(&b'D') {
            Action::Deny
        } else {
            Action::Allow
        }
    }

    /// Its variables in order, name and value. A name may occur twice: the
    /// later one wins. A name may be empty.
    pub fn variables(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        variables(self.data)
    }

    /// The rule of a record; `None` if the data are not a rule's.
    fn read(key: &'a [u8], data: &'a [u8]) -> Option<Rule<'a>> {
        let whole = data.is_empty() || data.ends_with(&[0]);
        let known = items(data)
            .enumerate()
            .all(|(at, item)| (at == 0 && item == b"D") || variable(item).is_some());
        (whole && known).then_some(Rule { key, data })
    }
}

/// The variables of a record's data.
fn variables(data: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    items(data).filter_map(variable)
}

/// The parts of a record's data, without the NUL behind each.
fn items(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split_inclusive(|&byte| byte == 0)
        .map(|item| item.strip_suffix(&[0]).unwrap_or(item))
}

/// Name and value of a part.
fn variable(item: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = item.strip_prefix(b"+")?;
    let equals = text.iter().position(|&byte| byte == b'=')?;
    Some((&text[..equals], &text[equals + 1..]))
}

/// A database of rules.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `None`: the file is missing, and that is allowed.
    database: Option<Database>,
}

impl Rules {
    /// Opens a database, whoever made it: sslrules, or tcprules of ucspi-tcp or
    /// of ucspi-tcp6.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none;
    /// [`io::ErrorKind::InvalidData`] if it is not whole or a record of it is
    /// not a rule; else as open(2) and read(2).
    pub fn open(path: &Path) -> io::Result<Rules> {
        Database::open(path).and_then(Rules::new)
    }

    /// [`Rules::open`], but a missing file has no rules, so every client is
    /// allowed. A link that leads nowhere is no missing file.
    ///
    /// # Errors
    /// As [`Rules::open`], but for a missing file.
    pub fn open_or_none(path: &Path) -> io::Result<Rules> {
        match Rules::open(path) {
            Err(error) if is_absent(path, &error) => Ok(Rules { database: None }),
            result => result,
        }
    }

    /// The rules of a database.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if a record is not a rule; its address is
    /// named.
    pub fn new(database: Database) -> io::Result<Rules> {
        for (key, data) in database.records() {
            if Rule::read(key, data).is_none() {
                let text = format!("not a rule: {}", address::describe(key));
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(Rules {
            database: Some(database),
        })
    }

    /// The same rules for a process that forks: see [`Database::unforked`].
    #[must_use]
    pub fn unforked(self) -> Rules {
        Rules {
            database: self.database.map(Database::unforked),
        }
    }

    /// The rule that a client meets. Without one it is allowed, as with
    /// tcpserver: the text can end with `:deny`.
    #[must_use]
    pub fn lookup(&self, client: &Client) -> Option<Rule<'_>> {
        first(client, |key| self.find(key))
    }

    /// The `local=` rule of the address that a connection came in on.
    #[must_use]
    pub fn lookup_local(&self, ip: IpAddr) -> Option<Rule<'_>> {
        let key = address::local_key(ip);
        self.find(&key)
    }

    /// The `sni=` rule of a server name as the client sent it: that of the name
    /// itself, else the one with `*` in place of its first label. A name that is
    /// no host name meets none.
    #[must_use]
    pub fn lookup_sni(&self, name: &[u8]) -> Option<Rule<'_>> {
        let name = address::server_name(name)?;
        let wildcard = || {
            let dot = name.iter().position(|&byte| byte == b'.')?;
            self.find(&[address::SERVER_NAME, b"*", &name[dot..]].concat())
        };
        self.find(&[address::SERVER_NAME, &name].concat())
            .or_else(wildcard)
    }

    /// Every rule, in the order of the text. Where two have one key, the second
    /// is never met.
    pub fn iter(&self) -> impl Iterator<Item = Rule<'_>> {
        self.database
            .iter()
            .flat_map(Database::records)
            .filter_map(|(key, data)| Rule::read(key, data))
    }

    fn find(&self, key: &[u8]) -> Option<Rule<'_>> {
        let (key, data) = self.database.as_ref()?.find(key)?;
        Rule::read(key, data)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn keys(client: &Client) -> Vec<String> {
        let mut seen = Vec::new();
        first(client, |key| {
            seen.push(address::describe(key));
            None::<()>
        });
        seen
    }

    /// Rules of a text, through a file in a folder that is gone again.
    fn rules(text: &str) -> io::Result<Rules> {
        let records = compile(text.as_bytes()).expect(text).records;
        opened(records.iter().map(|record| (&*record.key, &*record.data)))
    }

    fn opened<'a>(
        records: impl IntoIterator<Item = (&'a [u8], &'a [u8]), IntoIter: Clone>,
    ) -> io::Result<Rules> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rules-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        let (cdb, temporary) = (folder.join("cdb"), folder.join("tmp"));
        crate::rulesdb::replace(&cdb, &temporary, records).expect("written");
        let rules = Rules::open_or_none(&cdb);
        fs::remove_dir_all(&folder).expect("removed");
        rules
    }

    fn address_of(rule: Option<Rule<'_>>) -> Option<String> {
        rule.map(|rule| rule.address())
    }

    #[test]
    fn a_client_an_address_and_a_server_name_meet_their_own_rules() {
        let rules = rules(
            "1.2.3.4:deny\nlocal=192.0.2.10:deny\nsni=mail.example.com:allow\n\
             sni=*.example.com:deny\n=host.example:deny\n",
        )
        .expect("sound");
        let client = |ip: &str, name| Client::new(ip.parse().expect("an address"), name, None);
        for (ip, name, wanted) in [
            ("1.2.3.4", None, Some("1.2.3.4")),
            ("1.2.3.5", None, None),
            (
                "1.2.3.5",
                Some(&b"HOST.example."[..]),
                Some("=host.example"),
            ),
            ("1.2.3.5", Some(b"."), None),
            ("192.0.2.10", None, None),
        ] {
            let found = address_of(rules.lookup(&client(ip, name)));
            assert_eq!(found.as_deref(), wanted, "{ip}");
        }
        for (ip, wanted) in [
            ("192.0.2.10", Some("local=192.0.2.10")),
            ("::ffff:192.0.2.10", Some("local=192.0.2.10")),
            ("192.0.2.11", None),
            ("1.2.3.4", None),
        ] {
            let found = address_of(rules.lookup_local(ip.parse().expect("an address")));
            assert_eq!(found.as_deref(), wanted, "{ip}");
        }
        for (name, wanted) in [
            ("mail.example.com", Some("sni=mail.example.com")),
            ("MAIL.example.COM.", Some("sni=mail.example.com")),
            ("www.example.com", Some("sni=*.example.com")),
            ("a.mail.example.com", None),
            ("example.com", None),
            ("com", None),
            ("*.example.com", None),
            ("", None),
        ] {
            let found = address_of(rules.lookup_sni(name.as_bytes()));
            assert_eq!(found.as_deref(), wanted, "{name}");
        }
        let keys: Vec<_> = rules.iter().map(|rule| rule.address()).collect();
        assert_eq!(
            keys,
            [
                "1.2.3.4",
                "local=192.0.2.10",
                "sni=mail.example.com",
                "sni=*.example.com",
                "=host.example"
            ]
        );
    }

    #[test]
    fn without_a_file_there_are_no_rules_and_a_bad_one_is_an_error() {
        let client = Client::literal(b"1.2.3.4", None, None);
        let missing = std::env::temp_dir().join(format!("no-rules-{}", std::process::id()));
        let none = Rules::open_or_none(&missing).expect("allowed");
        assert_eq!(none.lookup(&client), None);
        assert_eq!(none.iter().count(), 0);
        let fail = Rules::open(&missing).expect_err("missing");
        assert_eq!(fail.kind(), io::ErrorKind::NotFound);

        // One record that is no rule's refuses the whole, whoever would meet it.
        let records = [("1.2.3.4", "D\0"), ("5.6.7.8", "E\0")];
        let records = records.map(|(key, data)| (key.as_bytes(), data.as_bytes()));
        let fail = opened(records).expect_err("no rule");
        assert_eq!(fail.kind(), io::ErrorKind::InvalidData);
        assert_eq!(fail.to_string(), "not a rule: 5.6.7.8");
    }

    #[test]
    fn keys_are_offered_in_the_order_of_tcprules() {
        let client = Client::new(
            "1.2.3.4".parse().expect("an address"),
            Some(b"Host.Example.ORG."),
            Some(b"joe"),
        );
        let mut expected = vec![
            "joe@1.2.3.4".to_owned(),
            "joe@=host.example.org".to_owned(),
            "1.2.3.4".to_owned(),
            "=host.example.org".to_owned(),
            "1.2.3.".to_owned(),
            "1.2.".to_owned(),
            "1.".to_owned(),
        ];
        let ip = u32::from_be_bytes([1, 2, 3, 4]);
        for prefix in (0..=32_u32).rev() {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            let network = std::net::Ipv4Addr::from(ip & mask);
            expected.push(format!("{network}/{prefix}"));
        }
        expected.extend(["=.example.org", "=.org", "=", ""].map(str::to_owned));
        assert_eq!(keys(&client), expected);
    }

    #[test]
    fn a_rule_says_what_its_record_has() {
        let key = address::key(b"10.0.0.0/8").expect("a network");
        let denies = Rule {
            key: &key,
            data: b"D\0",
        };
        assert_eq!(denies.key(), key);
        assert_eq!(denies.address(), "10.0.0.0/8");
        assert_eq!(denies.scope(), Scope::Client);
        assert_eq!(denies.action(), Action::Deny);
        assert_eq!(denies.unmet(), None);
        let capitals = Rule {
            key: b"=Host",
            data: b"D\0",
        };
        assert!(capitals.unmet().is_some());
        let allows = Rule {
            key: b"sni=a",
            data: b"+A=b\0",
        };
        assert_eq!(allows.scope(), address::scope(b"sni=a"));
        assert_ne!(allows.scope(), Scope::Client);
        assert_eq!(allows.action(), Action::Allow);
        let variables: Vec<_> = allows.variables().collect();
        assert_eq!(variables, [(&b"A"[..], &b"b"[..])]);
    }

    #[test]
    fn ipv6_is_looked_up_in_both_cases_and_mapped_addresses_as_ipv4() {
        let client = Client::new("2001:db8::1".parse().expect("an address"), None, None);
        let seen = keys(&client);
        assert_eq!(
            seen[..3],
            [
                "2001:0db8:0000:0000:0000:0000:0000:0001",
                "2001:0DB8:0000:0000:0000:0000:0000:0001",
                "2001:db8::1/128"
            ]
        );
        assert_eq!(seen.len(), 2 + 129 + 1);
        let mapped = Client::new("::ffff:1.2.3.4".parse().expect("an address"), None, None);
        assert_eq!(
            keys(&mapped),
            keys(&Client::literal(b"1.2.3.4", None, None))
        );
        assert_eq!(
            keys(&Client::literal(b"::ffff:1.2.3.4", None, None)),
            keys(&mapped)
        );
    }

    #[test]
    fn no_client_reaches_a_store_rule() {
        let evil: [&[u8]; 4] = [b"local=1.2.3.4", b"sni=a", b"local=", b"local=1.2.3.4@"];
        for text in evil {
            for client in [
                Client::literal(text, None, None),
                Client::literal(b"1.2.3.4", Some(text), Some(text)),
                Client::literal(b"", Some(text), Some(text)),
            ] {
                first(&client, |key| {
                    assert_eq!(address::scope(key), Scope::Client, "{key:?}");
                    None::<()>
                });
            }
        }
    }

    #[test]
    fn data_that_are_no_rule_are_refused() {
        for good in ["", "D\0", "+A=\0", "D\0+A=1\0+B=2=3\0", "+=x\0"] {
            assert!(Rule::read(b"", good.as_bytes()).is_some(), "{good:?}");
        }
        for bad in [
            "D",
            "E\0",
            "\0",
            "D\0\0",
            "+A\0",
            "+A=1",
            "+A=1\0D\0",
            "D\0D\0",
            "DD\0",
            "d\0",
        ] {
            assert!(Rule::read(b"", bad.as_bytes()).is_none(), "{bad:?}");
        }
    }
}
