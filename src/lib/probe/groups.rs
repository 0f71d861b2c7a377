//! The groups of key exchange that a server is asked for, by number.
#![forbid(unsafe_code)]

use crate::hello::group_name;

/// The best first.
pub const GROUPS: &[u16] = &[
    0x001d, 0x0017, 0x0018, 0x0019, 0x001e, 0x0100, 0x0101, 0x0102, 0x0103, 0x0104, 0x001f, 0x0020,
    0x0021,
];

/// Elliptic curves with a key of ML-KEM's beside them (RFC 9936's drafts).
pub const HYBRIDS: &[u16] = &[0x11ec, 0x11eb, 0x11ed, 0x6399];

/// Curves of TLS 1.2 and below alone.
const OLD_CURVES: &[u16] = &[
    0x001a, 0x001b, 0x001c, 0x0016, 0x0015, 0x0013, 0x000e, 0x000d, 0x000c, 0x000b, 0x000a, 0x0009,
];

/// Whether a quantum computer does not help who recorded it.
#[must_use]
pub fn is_hybrid(name: &str) -> bool {
    HYBRIDS.iter().any(|number| group_name(*number) == name)
}

/// The elliptic curves that TLS 1.2 and below may use, the best first.
#[must_use]
pub fn curves() -> Vec<u16> {
    let modern = GROUPS.iter().filter(|number| **number < 0x001f);
    modern.chain(OLD_CURVES).copied().collect()
}

/// Libssl's name for a session's group, as TLS has it.
#[must_use]
pub fn from_openssl(name: &str) -> String {
    match name {
        "secp256r1" | "prime256v1" => "P-256".to_owned(),
        "secp384r1" => "P-384".to_owned(),
        "secp521r1" => "P-521".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_that_is_asked_for_has_a_name() {
        for number in [GROUPS, HYBRIDS, OLD_CURVES].concat() {
            assert!(!group_name(number).starts_with("0x"), "{number:#x}");
        }
        assert!(is_hybrid("X25519MLKEM768") && !is_hybrid("X25519"));
        assert_eq!(from_openssl("secp384r1"), "P-384");
        assert!(curves().contains(&0x17) && !curves().contains(&0x100));
    }
}
