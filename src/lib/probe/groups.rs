//! The groups of key exchange by number and name: IANA's "TLS Supported Groups".
#![forbid(unsafe_code)]

/// Those that a server is asked for, the best first, with the names that TLS has
/// for them.
pub const GROUPS: &[(u16, &str)] = &[
    (0x001d, "X25519"),
    (0x0017, "P-256"),
    (0x0018, "P-384"),
    (0x0019, "P-521"),
    (0x001e, "X448"),
    (0x0100, "ffdhe2048"),
    (0x0101, "ffdhe3072"),
    (0x0102, "ffdhe4096"),
    (0x0103, "ffdhe6144"),
    (0x0104, "ffdhe8192"),
    (0x001f, "brainpoolP256r1tls13"),
    (0x0020, "brainpoolP384r1tls13"),
    (0x0021, "brainpoolP512r1tls13"),
];

/// Elliptic curves with a key of ML-KEM's beside them (RFC 9936's drafts).
pub const HYBRIDS: &[(u16, &str)] = &[
    (0x11ec, "X25519MLKEM768"),
    (0x11eb, "SecP256r1MLKEM768"),
    (0x11ed, "SecP384r1MLKEM1024"),
    (0x6399, "X25519Kyber768Draft00"),
];

/// Curves of TLS 1.2 and below alone.
pub const OLD_CURVES: &[(u16, &str)] = &[
    (0x001a, "brainpoolP256r1"),
    (0x001b, "brainpoolP384r1"),
    (0x001c, "brainpoolP512r1"),
    (0x0016, "secp256k1"),
    (0x0015, "P-224"),
    (0x0013, "P-192"),
    (0x000e, "sect571r1"),
    (0x000d, "sect571k1"),
    (0x000c, "sect409r1"),
    (0x000b, "sect409k1"),
    (0x000a, "sect283r1"),
    (0x0009, "sect283k1"),
];

/// The name of a group, or its number where there is none.
#[must_use]
pub fn name(number: u16) -> String {
    let all = GROUPS.iter().chain(HYBRIDS).chain(OLD_CURVES);
    let known = all.clone().find(|(own, _)| *own == number);
    known.map_or_else(|| format!("0x{number:04X}"), |(_, name)| (*name).to_owned())
}

/// Whether a quantum computer does not help who recorded it.
#[must_use]
pub fn is_hybrid(name: &str) -> bool {
    HYBRIDS.iter().any(|(_, own)| *own == name)
}

/// The numbers of a list.
pub fn numbers(list: &[(u16, &str)]) -> impl Iterator<Item = u16> {
    list.iter().map(|(number, _)| *number)
}

/// The elliptic curves that TLS 1.2 and below may use, the best first.
#[must_use]
pub fn curves() -> Vec<u16> {
    let modern = numbers(GROUPS).filter(|number| *number < 0x001f);
    modern.chain(numbers(OLD_CURVES)).collect()
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
    fn groups_have_the_names_that_tls_has_for_them() {
        assert_eq!(name(0x0017), "P-256");
        assert_eq!(name(0x11ec), "X25519MLKEM768");
        assert_eq!(name(0x4242), "0x4242");
        assert!(is_hybrid("X25519MLKEM768") && !is_hybrid("X25519"));
        assert_eq!(from_openssl("secp384r1"), "P-384");
        assert!(curves().contains(&0x17) && !curves().contains(&0x100));
    }
}
