//! How many connections one address may have at once (`-C`, `MAXCONIP`), both
//! ends: the supervisor counts and decides, and a launcher asks it where the
//! address or the limit was not known when the client was accepted.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use super::Setup;
use super::messages::{Message, Sender};
use crate::connection::shown;
use crate::settings;

/// The supervisor's end: the connections in progress, by address.
pub(super) struct Admission<'a> {
    setup: &'a Setup,
    by_client: HashMap<IpAddr, usize>,
}

impl<'a> Admission<'a> {
    pub fn new(setup: &'a Setup) -> Self {
        Admission {
            setup,
            by_client: HashMap::new(),
        }
    }

    /// How many connections an address has.
    fn count(&self, address: IpAddr) -> usize {
        self.by_client.get(&client(address)).copied().unwrap_or(0)
    }

    /// Whether an address has as many as it may. A limit of 0 is none.
    pub fn is_full(&self, address: IpAddr, limit: usize) -> bool {
        limit > 0 && self.count(address) >= limit
    }

    /// Whether there is room for one more of that address; says so where there
    /// is none.
    pub fn has_room(&self, address: IpAddr, limit: usize) -> bool {
        if !self.is_full(address, limit) {
            return true;
        }
        let word = if self.setup.options.limit_per_address == Some(limit) {
            "-C"
        } else {
            settings::CONNECTIONS
        };
        let address = shown(address);
        self.setup.report.warning(format_args!(
            "dropping connection from {address}: it is at its limit of {limit} ({word})"
        ));
        false
    }

    /// One more.
    pub fn enter(&mut self, address: IpAddr) {
        *self.by_client.entry(client(address)).or_default() += 1;
    }

    /// One less.
    pub fn leave(&mut self, address: IpAddr) {
        let key = client(address);
        if let Some(count) = self.by_client.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&key);
            }
        }
    }

    /// The address that has most connections, and how many.
    pub fn fullest(&self) -> Option<(String, usize)> {
        let (address, count) = self.by_client.iter().max_by_key(|(_, count)| **count)?;
        Some((shown(*address), *count))
    }
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The launcher's end: asks whether the client may come in. A supervisor that has
/// ended counts no more.
///
/// # Errors
/// As send(2) and recv(2).
pub(super) fn ask(supervisor: &Sender, address: IpAddr, limit: usize) -> io::Result<bool> {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let question = Message::Admission(address, limit);
    if limit == 0 {
        // It is only counted.
        supervisor.tell(&question);
        return Ok(true);
    }
    Ok(supervisor.ask(&question)?.unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_counts_as_one_client() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let one = client(address("2001:db8::1"));
        assert_eq!(client(address("2001:db8::ffff:0:0:1")), one);
        assert_ne!(client(address("2001:db8:0:1::1")), one);
        assert_eq!(
            client(address("::ffff:192.0.2.1")),
            client(address("192.0.2.1"))
        );
        assert_ne!(client(address("192.0.2.2")), client(address("192.0.2.1")));
    }
}
