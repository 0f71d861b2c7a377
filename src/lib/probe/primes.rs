//! Primes of finite-field Diffie-Hellman that many servers share, by the SHA-256
//! of their bytes: RFC 2409, 3526, 5114 and 7919, and the defaults that programs
//! were built with, from their sources (Postfix's tls_dh.c, Sendmail's tls.c,
//! Exim's std-crypto.c, mod_ssl, nginx, HAProxy, OpenSSL's s_server, Java's
//! sun.security.provider) and the list of weakdh.org.
#![forbid(unsafe_code)]

use openssl::sha::sha256;

use crate::text;

/// The name of a prime, high byte first and without zeros in front; `unknown`
/// where it is none of these.
#[must_use]
pub fn name(prime: &[u8]) -> &'static str {
    let print = text::hex(&sha256(prime));
    let known = PRIMES.iter().find(|(own, _)| *own == print);
    known.map_or("unknown", |(_, name)| name)
}

/// Fingerprints and names, by size.
#[rustfmt::skip]
const PRIMES: &[(&str, &str)] = &[
    ("3cdb020b9ef298b2f3f6cf5a872af527337bf7b9f654b2e70c49da16a4d24137", "apache-512"),
    ("db01e702899166da28c9bc7896af62bcdf0c96d0fb341950ba80e68bd51a57ef", "apache-512"),
    ("73b391ec8da33ee197aed17d7cfce1321b94e04c5b55b3c02c1c7198eb88715b", "java-512"),
    ("449ab49c277d21a601e806df3064d6e4b3040045110efe26b85d12e88ae9355a", "postfix-512"),
    ("6c863838510bab3e2093066fc14976f0265b0da72c465eb306018587b5df6b6a", "postfix-512"),
    ("e2b343fa226b71092716a0cefea064b00c0a6855e25e199bf91452b88d81d03e", "postfix-512"),
    ("bc66927384785251c604a3836e40475664b425ef690d8fc9b770ba80095488d0", "postfix-512"),
    ("b85e2291d140459398cf0cd25689409c3d2eb44c590634464b7b3ae613ec4712", "postfix-512"),
    ("f26e2403f3f07946654404909f0ff81d9354de17250411b4c04b89af73178425", "sendmail-512"),
    ("ee5483fe4b96caa10cb5b863ec409aab2762e6bf43af4a8a0a42817fef4dd7f3", "java-768"),
    ("7dafc874c19963c0dd38e642bf1f3ad92d0fafd9a8db4651e5ff44903aef69c3", "postfix-768"),
    ("ad225f9367840e76af41a00757b85eada4ac49190ea6ec4e90a7114c1eb9d1de", "postfix-768"),
    ("b36ac84e5fa8bd7a6363e1fb989456e430ac24bec3899ebd876c327f00a78609", "postfix-768"),
    ("b52ba6a3026520a6c49d37e4587601801bee500123b3259b6bf03e7cecc3e63d", "rfc2409-768"),
    ("f79d1db3c955a28fdeca462670a0712efee4b588c7858e4943883f903bd1354b", "apache-1024"),
    ("bf910d9df4e0b2e76cda7443f592aa118e33ba2c224ebc27fb8978d873c8c2e3", "apache-1024"),
    ("486e235226a927b22b9389bf43377084cb9be4c303f08fd490613ab4d9dfbd31", "haproxy-1024"),
    ("bfa876fe4671a9c696c8e256c13d7fadaa05c8991660e0924604ff7b239c6d1a", "ironport-1024"),
    ("cc21a33dd1a3edf40bf636b5496e4aede198a437a8548e0cc1a621424e42419b", "java-1024"),
    ("8ae47dca3d24e9b64640062686da234dcabada26b0da6f090c5449c1338d9a11", "nginx-1024"),
    ("66d0bf38b0bdfacf2fdae33f35102ab6079fd5ff0feff8e436a4063745c72739", "openssl-1024"),
    ("ef627d8cc44144f36a075d8dd8511bbd278cb5cf438f1052bdbdabe715232c1e", "postfix-1024"),
    ("d2ae65bfc24596c0333a3ad57a67565d1494da51059f327d8cd7d6c36ea53dc1", "postfix-1024"),
    ("3b37d357836b4c0b81ae99d4bb204f5fb3b3cc53a79a4660db1499062a7c8d47", "postfix-1024"),
    ("20ce5e9531472e234e1ef76788a6f5f5da9d3ee746de9901fb962b6a1bf76f6f", "postfix-1024"),
    ("7c370bfda6cad714bb4e119c1cfe15f6af5059d1f8f7887c1ad4334ffa458f38", "postfix-1024"),
    ("3f35a3f5f6c4376a744acad409bb22f8d897f949d2311d885adaa890981b67a0", "rfc2409-1024"),
    ("44c55cfee5c075927cf682da5b681bdecbd5c3eb0784c14f5dce7610f0ef133d", "rfc5114-1024"),
    ("6215d41bb617b390082b066d6856f8b361d6c77f316a84301f7c9717a8681485", "skip-1024"),
    ("bd646809c4e2d255e7082482b9917c2dfa213b6685d7100765fbfca6d585af1c", "postfix-1536"),
    ("f5b0f0db19c1ffb9edd48c27d552e0c6304a86c911924f8d4f9bbc9adf00f5de", "postfix-1536"),
    ("245ccb3bb7e5f8e431c3786ce8c84360463a9991a535ab23b6b1e91a3ac9ccb9", "postfix-1536"),
    ("64fcc83ec403930bf18393dbc883ccaa1fbb08ac876f77f7aa99748ca945019b", "rfc3526-1536"),
    ("4597b6c988bdc12aad6aa71840f7206907346f1f5d95edb661e8282281f5577e", "exim-2048"),
    ("b091c26ef6f88b88ed2c5f4da0cfe3291633f370a225d080f7bd5b8be83177eb", "exim-2048"),
    ("358856fb52a59bf901826fedcadd2b2d3aa0a82a16338229a109ed20f855f948", "exim-2048"),
    ("9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966", "ffdhe2048"),
    ("7b6551ea6ff09bd78c24bede10980a155f70b6c81e48b4dd8bec822ab3bf0e94", "haproxy-2048"),
    ("3166ce19180005327a6059a2e7a4ed22775ad2f0eadaee59a7481ab391fe592f", "openssl-2048"),
    ("9e348a9471b7d123aa97071e38288379fc12a9992e8e75db2113c1ded5463ac3", "openssl-2048"),
    ("4e1f16b0a537becf0398e0d6049ed82850ef799626db1771a9aa4901e84385c3", "postfix-2048"),
    ("ee302f149664decf1b364551326625cfc7ff3edb739a3a444a7435a5d50c543b", "postfix-2048"),
    ("b22223eba55eff07fda0073c0bb7f65c588f7c03ebd471f89ebb602f8af725ef", "postfix-2048"),
    ("d66436f79bbd6b2e38c0ffbd079be904d2641415e2e67140e09448be9a60890e", "rfc3526-2048"),
    ("bfe545862ca102ad1eeddb5fbfa5bf855ac4995c56a8b408ce3fe099dce93a9d", "rfc5114-2048-224"),
    ("0b7835722cb619827610c2549fdda5587421686c4409a13865e76225522ddcc9", "rfc5114-2048-256"),
    ("6786642ab608b22f9cce2d1758b48a5fcf354b6170ea547f906a9e375cbbd3a0", "sendmail-2048"),
    ("725541d91fe79bcf52e6d96581d83ab8eb68a6c2460d933f68792a369b003b1c", "skip-2048"),
    ("0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17", "ffdhe3072"),
    ("48cf8b092fbce4359d9871abf74f98e25b6163379eaa15cd9087e800c6d1c55c", "rfc3526-3072"),
    ("4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e", "ffdhe4096"),
    ("a67f41cb161353e098a815bf4070d3268927a50cf3b9be233377f81e0ac77c1e", "haproxy-4096"),
    ("ce7728db3aed1119a82b9f17b17df9f8e370ddd7639946df09a119f924aa42e8", "openssl-4096"),
    ("4ee95187682bcb230ad26a95205f6920e84708f6251b3894329b09ec23919e33", "rfc3526-4096"),
    ("227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7", "ffdhe6144"),
    ("d1bfe6d0925ce7e4da262b62861514a7755e35831e429f343e7b864848657efd", "rfc3526-6144"),
    ("770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833", "ffdhe8192"),
    ("39ab4feab950a3128fb71accb9fc3965d857012e081998a85996e3ea8b3c3bcf", "rfc3526-8192"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::bn::BigNum;

    #[test]
    fn primes_are_known_by_their_bytes() {
        let rfc = BigNum::get_rfc3526_prime_2048().expect("libcrypto has it");
        assert_eq!(name(&rfc.to_vec()), "rfc3526-2048");
        let oakley = BigNum::get_rfc2409_prime_1024().expect("libcrypto has it");
        assert_eq!(name(&oakley.to_vec()), "rfc2409-1024");
        // Postfix 2.x, tls_dh.c.
        let postfix = BigNum::from_hex_str(
            "883F00AFFC0C8AB835CDE5C20F55DF063F1607BFCE1335E41C1E03F3AB17F663\
             5063673E10D73EB4EB468C4050E691A56E0145DEC9B11F6454FAD9AB4F70BA5B",
        );
        assert_eq!(name(&postfix.expect("hex").to_vec()), "postfix-512");
        assert_eq!(name(b"\x17"), "unknown");
    }

    #[test]
    fn each_prime_stands_once() {
        for (at, (print, name)) in PRIMES.iter().enumerate() {
            assert_eq!(print.len(), 64, "{name}");
            assert!(
                PRIMES[at + 1..].iter().all(|(other, _)| other != print),
                "{name}"
            );
        }
    }
}
