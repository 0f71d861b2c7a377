//! Who may connect when: one host's probe at a time on an address, so long
//! between two connections to it, so many connections a second in all.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A probe's number.
pub(super) type ProbeId = usize;

/// The state of all addresses.
#[derive(Debug)]
pub(super) struct Pacing {
    interval: Duration,
    gap: Duration,
    held: HashMap<IpAddr, ProbeId>,
    closed: HashMap<IpAddr, Instant>,
    next: Option<Instant>,
}

impl Pacing {
    /// `interval` between two connections to an address, `rate` a second in all.
    pub(super) fn new(interval: Duration, rate: u32) -> Pacing {
        Pacing {
            interval,
            gap: Duration::from_secs(1) / rate.max(1),
            held: HashMap::new(),
            closed: HashMap::new(),
            next: None,
        }
    }

    /// Gives a probe an address of its own, where no other has it; what it had
    /// before is free again.
    pub(super) fn begin(&mut self, who: ProbeId, address: IpAddr) -> bool {
        match self.held.get(&address) {
            Some(holder) if *holder != who => false,
            _ => {
                self.end(who);
                self.held.insert(address, who);
                true
            }
        }
    }

    /// A connection to an address that the probe holds.
    ///
    /// # Errors
    /// It is too early: when it may ask again.
    pub(super) fn connect(&mut self, address: IpAddr, now: Instant) -> Result<(), Instant> {
        let closed = self
            .closed
            .get(&address)
            .map(|closed| *closed + self.interval);
        let from = closed.max(self.next);
        if let Some(from) = from.filter(|from| *from > now) {
            return Err(from);
        }
        self.next = Some(now + self.gap);
        Ok(())
    }

    /// A connection to an address is over.
    pub(super) fn closed(&mut self, address: IpAddr, now: Instant) {
        if self.interval > Duration::ZERO {
            self.closed.insert(address, now);
        }
    }

    /// A probe is over, or goes on with another address.
    pub(super) fn end(&mut self, who: ProbeId) {
        self.held.retain(|_, holder| *holder != who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn an_address_belongs_to_one_probe_until_that_ends() {
        let mut pacing = Pacing::new(Duration::ZERO, 1000);
        assert!(pacing.begin(1, at(1)) && pacing.begin(1, at(1)));
        assert!(!pacing.begin(2, at(1)) && pacing.begin(2, at(2)));
        assert!(pacing.begin(1, at(3)), "the next address of the same host");
        assert!(pacing.begin(3, at(1)));
        pacing.end(2);
        assert!(pacing.begin(1, at(2)));
    }

    #[test]
    fn connections_keep_their_distance() {
        let mut pacing = Pacing::new(Duration::from_secs(2), 4);
        let now = Instant::now();
        let later = |millis| now + Duration::from_millis(millis);
        assert_eq!(pacing.connect(at(1), now), Ok(()));
        assert_eq!(
            pacing.connect(at(2), now),
            Err(later(250)),
            "four a second in all"
        );
        assert_eq!(pacing.connect(at(2), later(250)), Ok(()));
        pacing.closed(at(1), later(300));
        assert_eq!(pacing.connect(at(1), later(500)), Err(later(2300)));
        assert_eq!(pacing.connect(at(1), later(2300)), Ok(()));
        let mut quick = Pacing::new(Duration::ZERO, 100_000);
        quick.closed(at(1), now);
        assert_eq!(quick.connect(at(1), now), Ok(()));
    }
}
