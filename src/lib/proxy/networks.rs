//! Networks as `-L` has them: `127.0.0.0/8,2001:db8::/32`.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use crate::report::Fail;

/// The networks whose senders may say who the client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    /// Bits behind the prefix are of no account.
    base: IpAddr,
    prefix: u32,
}

impl Networks {
    /// `127.0.0.0/8,2001:db8::/32`. An address without a prefix stands for
    /// itself.
    ///
    /// # Errors
    /// What is wrong, with the item.
    pub fn parse(list: &str) -> Result<Networks, Fail> {
        list.split(',')
            .map(|item| {
                let network = Network::parse(item);
                network.ok_or_else(|| format!("\"{item}\" is not a network").into())
            })
            .collect::<Result<_, _>>()
            .map(Networks)
    }

    /// Whether one of them holds every address of a family.
    #[must_use]
    pub fn hold_everybody(&self) -> bool {
        self.0.iter().any(|network| network.prefix == 0)
    }

    /// Whether one of them holds the address; IPv4-mapped ones count as IPv4.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(item: &str) -> Option<Network> {
        let (address, prefix) = match item.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (item, None),
        };
        let base: IpAddr = address.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        // Mapped senders count as IPv4, so their networks do.
        let (base, prefix) = match (base.to_canonical(), prefix) {
            (mapped @ IpAddr::V4(_), 96..=128) if base.is_ipv6() => (mapped, prefix - 96),
            _ => (base, prefix),
        };
        (prefix <= most).then_some(Network { base, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        // A shift by all bits is no shift to Rust: everyone has prefix 0.
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - self.prefix).unwrap_or_default() == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - self.prefix).unwrap_or_default() == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn networks_hold_addresses() {
        let list = "127.0.0.0/8,192.0.2.7,2001:db8::/32,10.1.2.3/31,::ffff:172.16.0.0/108";
        let networks = Networks::parse(list).expect("parses");
        let holds = |text: &str| networks.contain(text.parse().expect("an address"));
        for inside in [
            "127.0.0.1",
            "127.255.255.255",
            "::ffff:127.0.0.1",
            "192.0.2.7",
            "2001:db8:ffff::1",
            "10.1.2.2",
            "10.1.2.3",
            "172.31.0.1",
        ] {
            assert!(holds(inside), "{inside}");
        }
        for outside in [
            "126.255.255.255",
            "128.0.0.0",
            "192.0.2.6",
            "::1",
            "::127.0.0.1",
            "2001:db9::",
            "10.1.2.4",
            "10.1.2.1",
            "172.32.0.1",
        ] {
            assert!(!holds(outside), "{outside}");
        }
        let every = Networks::parse("0.0.0.0/0").expect("parses");
        assert!(every.contain(Ipv4Addr::BROADCAST.into()));
        assert!(!every.contain(Ipv6Addr::LOCALHOST.into()));
        let every = Networks::parse("::/0").expect("parses");
        assert!(every.contain(Ipv6Addr::LOCALHOST.into()));
        assert!(!every.contain(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn lists_with_anything_else_are_refused() {
        for bad in [
            "",
            ",",
            "127.0.0.0/8,",
            "127.0.0.0/8, ::1",
            "127.0.0.0/33",
            "::/129",
            "127.0.0.0/",
            "127.0.0.0/+8",
            "127.0.0.0/8/8",
            "127.0.0.0/99999999999",
            "127/8",
            "0127.0.0.1",
            "localhost",
            "::1%lo",
            "::ffff:1.2.3.4/129",
        ] {
            assert!(Networks::parse(bad).is_err(), "{bad}");
        }
        let wrong = Networks::parse("::1,x/8").expect_err("x is none");
        assert_eq!(wrong.to_string(), "\"x/8\" is not a network");
    }
}
