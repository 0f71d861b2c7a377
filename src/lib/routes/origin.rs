//! domainips: from which address, and under which name, a sender's mail is sent.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::table::{Table, walk};
use crate::report::Fail;

/// What domainips says of a sender's domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The line that says so; empty: none does.
    pub place: String,
    /// The addresses to send from, one of each family at most; none: any.
    pub addresses: Vec<IpAddr>,
    /// The name for EHLO.
    pub helo_host: Option<String>,
}

/// A sender's domain has no address of a server's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherFamily;

impl Origin {
    /// Looks a sender's domain up: its own line, those of the domains above it,
    /// that of everybody.
    ///
    /// # Errors
    /// The line that decides is wrong.
    pub fn look_up(domain_ips: &Table, domain: Option<&str>) -> Result<Origin, Fail> {
        let mut keys = walk(domain.unwrap_or_default().as_bytes(), b".");
        keys.push(b"*".to_vec());
        let Some(found) = domain_ips.find(&keys) else {
            return Ok(Origin::default());
        };
        let origin =
            origin(found.value).map_err(|why| format!("{} is wrong: {why}", found.place))?;
        let place = found.place;
        Ok(Origin { place, ..origin })
    }

    /// The address to call a server from. `Err`: there is none of its family.
    ///
    /// # Errors
    /// The domain has addresses, all of the other family.
    pub fn address_for(&self, server: IpAddr) -> Result<Option<IpAddr>, OtherFamily> {
        let mut own = self.addresses.iter().copied();
        match own.find(|ip| ip.is_ipv4() == server.is_ipv4()) {
            None if !self.addresses.is_empty() => Err(OtherFamily),
            found => Ok(found),
        }
    }
}

/// `ip%interface|helohost`; also `ip,ip`, one of each family.
fn origin(value: &[u8]) -> Result<Origin, &'static str> {
    let value = std::str::from_utf8(value)
        .map_err(|_| "it is not UTF-8")?
        .trim();
    let (addresses, name) = match value.split_once('|') {
        Some((_, "")) => return Err("the name for EHLO is empty"),
        Some((addresses, name)) => (addresses, Some(name.to_owned())),
        None => (value, None),
    };
    let mut origin = Origin {
        helo_host: name,
        ..Origin::default()
    };
    for word in addresses.split(',') {
        // Of an interface only a link's own addresses have need, and no mail
        // server is called from one of those.
        let word = word.split('%').next().unwrap_or_default().trim();
        let ip: IpAddr = word.parse().map_err(|_| "it names no IP address")?;
        if let IpAddr::V6(six) = ip {
            if six.is_unicast_link_local() {
                return Err("no mail server is called from a link-local address");
            }
        }
        if origin.address_for(ip).is_ok_and(|own| own.is_some()) {
            return Err("there is more than one address of a family");
        }
        origin.addresses.push(ip);
    }
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_domain_has_an_address_of_its_own() {
        let table = Table::new(
            "domainips",
            b"a.example:192.0.2.1\n.example:192.0.2.2%eth0|mail.example\n\
              both.test:192.0.2.3,2001:db8::3|both\n*:2001:db8::4\n"
                .to_vec(),
        );
        let four: IpAddr = "198.51.100.1".parse().expect("an address");
        let six: IpAddr = "2001:db8::25".parse().expect("an address");
        let none = Err(OtherFamily);
        for (domain, for_four, for_six, name) in [
            (Some("A.example"), Ok("192.0.2.1"), none, None),
            (
                Some("b.example"),
                Ok("192.0.2.2"),
                none,
                Some("mail.example"),
            ),
            (
                Some("both.test"),
                Ok("192.0.2.3"),
                Ok("2001:db8::3"),
                Some("both"),
            ),
            (Some("org"), none, Ok("2001:db8::4"), None),
            (None, none, Ok("2001:db8::4"), None),
        ] {
            let origin = Origin::look_up(&table, domain).expect("sound");
            let ip = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
            assert_eq!(origin.address_for(four), for_four.map(ip), "{domain:?}");
            assert_eq!(origin.address_for(six), for_six.map(ip), "{domain:?}");
            assert_eq!(origin.helo_host.as_deref(), name);
        }
        let nobody = Origin::look_up(&Table::new("domainips", Vec::new()), Some("x"));
        assert_eq!(nobody.expect("sound").address_for(six), Ok(None));
        for bad in [
            "",
            "|name",
            "192.0.2.1|",
            "x",
            "192.0.2.256",
            "192.0.2.1,192.0.2.2",
            "fe80::1%eth0",
            "192.0.2.1,",
            "[192.0.2.1]",
        ] {
            let table = Table::new("domainips", format!("\nx:{bad}\n").into());
            let wrong = Origin::look_up(&table, Some("x"));
            let wrong = wrong.expect_err(bad).to_string();
            assert!(wrong.starts_with("domainips line 2 is wrong: "), "{wrong}");
        }
    }
}
