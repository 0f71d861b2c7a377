//! What a keyholder may sign with which key, and the orders that tell its workers.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};

use super::process::order;
use crate::store::permit::Permit;

/// What may be signed with which key, by number.
#[derive(Clone, Default)]
pub(super) struct Permits {
    /// Each permit with its number and its keys.
    all: HashMap<Permit, (u16, BTreeSet<u16>)>,
    /// Keys that a server name chooses, in whatever store.
    for_names: BTreeSet<u16>,
    /// The orders that tell a worker all of it, in the order of their numbers.
    orders: Vec<Vec<u8>>,
}

/// How many keys go into one order.
const GRANTED: usize = 1000;

impl Permits {
    /// Lets keys that a server name chooses sign under every permit that is granted
    /// from now on.
    pub fn serve_names(&mut self, keys: BTreeSet<u16>) {
        self.for_names.extend(keys);
    }

    /// Puts keys under a permit.
    pub fn grant(&mut self, permit: &Permit, keys: &BTreeSet<u16>) {
        let next = u16::try_from(self.all.len()).unwrap_or(u16::MAX);
        let (number, granted) = self.all.entry(permit.clone()).or_insert_with(|| {
            let order = [&[order::PERMIT], &permit.to_bytes()[..]].concat();
            self.orders.push(order);
            (next, BTreeSet::new())
        });
        let new: Vec<u16> = keys
            .union(&self.for_names)
            .filter(|key| granted.insert(**key))
            .copied()
            .collect();
        for keys in new.chunks(GRANTED) {
            let numbers = std::iter::once(&*number).chain(keys);
            let numbers = numbers.flat_map(|number| number.to_be_bytes());
            let order = std::iter::once(order::GRANT).chain(numbers).collect();
            self.orders.push(order);
        }
    }

    /// The orders that tell a worker everything. Later ones come behind those that
    /// were there.
    pub fn orders(&self) -> &[Vec<u8>] {
        &self.orders
    }

    /// Whether the same may be signed.
    pub fn are(&self, other: &Permits) -> bool {
        let of = |permits: &Permits, permit| permits.all.get(permit).map(|(_, keys)| keys.clone());
        self.for_names == other.for_names
            && self.all.len() == other.all.len()
            && self
                .all
                .keys()
                .all(|permit| of(self, permit) == of(other, permit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(lowest: u16) -> Permit {
        Permit {
            lowest,
            ..Permit::nothing()
        }
    }

    #[test]
    fn later_orders_come_behind_earlier_ones() {
        let mut permits = Permits::default();
        permits.grant(&permit(1), &BTreeSet::from([3]));
        let first = permits.orders().to_vec();
        assert_eq!(first.len(), 2, "a permit and a grant");
        assert_eq!(first[1], [order::GRANT, 0, 0, 0, 3]);
        permits.grant(&permit(1), &BTreeSet::from([3]));
        assert_eq!(permits.orders(), first, "nothing new");
        permits.serve_names(BTreeSet::from([9]));
        permits.grant(&permit(2), &BTreeSet::from([3]));
        permits.grant(&permit(1), &BTreeSet::from([4]));
        assert_eq!(permits.orders()[..2], first);
        assert_eq!(permits.orders()[3], [order::GRANT, 0, 1, 0, 3, 0, 9]);
        assert_eq!(permits.orders()[4], [order::GRANT, 0, 0, 0, 4, 0, 9]);
    }

    #[test]
    fn what_may_be_signed_is_the_same_in_whatever_order_it_was_granted() {
        let granted = |all: &[(u16, u16)]| {
            let mut permits = Permits::default();
            for (version, key) in all {
                permits.grant(&permit(*version), &BTreeSet::from([*key]));
            }
            permits
        };
        let some = granted(&[(1, 3), (2, 3), (1, 4)]);
        assert!(some.are(&granted(&[(2, 3), (1, 4), (1, 3)])));
        for other in [
            &[(1, 3), (2, 3)][..],
            &[(1, 3), (2, 3), (2, 4)],
            &[(1, 3), (2, 3), (1, 4), (3, 3)],
            &[],
        ] {
            let other = granted(other);
            assert!(!some.are(&other) && !other.are(&some));
        }
    }
}
