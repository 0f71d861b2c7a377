//! Bernstein's batch algorithm: the product of all numbers is taken modulo the square
//! of each, down a tree of products, so that the cost grows little more than
//! linearly with their count ("How to find smooth parts of integers", 2004, has the
//! trees; Heninger and others, "Mining your Ps and Qs", 2012, this use of them).
#![forbid(unsafe_code)]

use super::Places;
use crate::sys::gmp::Natural;

/// The most numbers with a common factor of which each two are compared, and the most
/// pairs that are told: numbers that are no keys have nearly all of them small primes
/// in common.
const COMPARED: usize = 3000;
const PAIRS: usize = 10_000;

/// The places of each two numbers with a common factor. The numbers are different,
/// above 1, the highest byte first.
pub(super) fn pairs(numbers: &[Vec<u8>]) -> Places {
    let numbers = numbers.iter().map(|bytes| Natural::from_bytes(bytes));
    let numbers: Vec<Natural> = numbers.collect();
    let weak = with_common_factors(&numbers);
    let mut places = Places {
        weak: weak.len(),
        is_whole: weak.len() <= COMPARED,
        pairs: Vec::new(),
    };
    let weak = &weak[..weak.len().min(COMPARED)];
    for (at, one) in weak.iter().enumerate() {
        for other in &weak[at + 1..] {
            let divisor = numbers[*one].common_divisor(&numbers[*other]);
            if !divisor.is_more_than(1) {
                continue;
            }
            if places.pairs.len() == PAIRS {
                places.is_whole = false;
                return places;
            }
            places.pairs.push((*one, *other));
        }
    }
    places
}

/// Which of these numbers, all of them different and above 1, have a factor in
/// common with another.
fn with_common_factors(numbers: &[Natural]) -> Vec<usize> {
    let levels = products(numbers);
    // From the root down: the product of all, modulo the square of each node.
    let mut rests: Vec<Natural> = Vec::new();
    for level in levels.iter().rev() {
        rests = below(level, &rests);
    }
    // The leaves: what is left by the number's own factor is the product of all
    // others, modulo the number.
    let leaves = below(numbers, &rests);
    let found = numbers.iter().zip(&leaves).enumerate();
    let found = found.filter(|(_, (number, rest))| {
        let others = rest.over(number);
        others.is_some_and(|others| number.common_divisor(&others).is_more_than(1))
    });
    found.map(|(at, _)| at).collect()
}

/// The products of each two numbers, of each two of these, and so on to the product
/// of all.
fn products(numbers: &[Natural]) -> Vec<Vec<Natural>> {
    let mut levels: Vec<Vec<Natural>> = Vec::new();
    loop {
        let level = levels.last().map_or(numbers, |level| level);
        if level.len() < 2 {
            return levels;
        }
        let one = Natural::from_bytes(&[1]);
        let next = level.chunks(2);
        let next = next.map(|pair| pair[0].times(pair.get(1).unwrap_or(&one)));
        let next = next.collect();
        levels.push(next);
    }
}

/// The rests above, each modulo the squares of the one or two numbers below it.
/// At the root there is nothing above, and the number itself is less than its
/// square.
fn below(numbers: &[Natural], above: &[Natural]) -> Vec<Natural> {
    let one = Natural::from_bytes(&[1]);
    let rest = |(at, number): (usize, &Natural)| match above.get(at / 2) {
        Some(rest) => rest.modulo(&number.times(number)),
        None => Some(number.times(&one)),
    };
    // No number here is zero.
    numbers.iter().enumerate().filter_map(rest).collect()
}
