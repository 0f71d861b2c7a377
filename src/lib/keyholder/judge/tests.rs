//! What the keyholder signs and what it refuses, certificates that were hidden in
//! key exchanges among it.
#![forbid(unsafe_code)]

use openssl::asn1::Asn1Time;
use openssl::bn::MsbOption;
use openssl::ec::EcKey;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Name, X509StoreContext};

use super::*;
use crate::store::permit::Finite;

const P256: KeyType = KeyType::Ecdsa(Nid::X9_62_PRIME256V1);
const P384: KeyType = KeyType::Ecdsa(Nid::SECP384R1);
const SERVER: &[u8] = b"TLS 1.3, server CertificateVerify\0";

/// A server's randoms below TLS 1.3, where it speaks 1.3.
const RANDOMS: [u8; 64] = {
    let mut randoms = [9; 64];
    let mark = *b"DOWNGRD\x01";
    let mut at = 0;
    while at < 8 {
        randoms[56 + at] = mark[at];
        at += 1;
    }
    randoms
};

/// That of both versions with the default lists.
fn permit() -> Permit {
    Permit {
        lowest: TLS_1_2,
        highest: TLS_1_3,
        marks_downgrades: true,
        groups: vec![29, 23, 24, 30],
        schemes: vec![
            0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0809, 0x080a, 0x0804, 0x0805, 0x0806, 0x0401,
            0x0501, 0x0601,
        ],
        finite: Some(Finite {
            prime: vec![0xff; 256],
            generator: vec![2],
        }),
    }
}

fn only_12() -> Permit {
    Permit {
        highest: TLS_1_2,
        marks_downgrades: false,
        ..permit()
    }
}

fn ask_of(
    permits: &[Permit],
    message: &[u8],
    padding: Padding,
    digest: Digest,
    key: KeyType,
) -> Result<(), NotSigned> {
    let signing = Signing {
        padding,
        digest,
        key: 3,
        message,
    };
    Judge::default().judge(&signing, key, permits)
}

fn ask(message: &[u8], padding: Padding, digest: Digest, key: KeyType) -> Result<(), NotSigned> {
    ask_of(&[permit()], message, padding, digest, key)
}

fn verify(context: &[u8], hash: usize) -> Vec<u8> {
    [&[0x20; 64], context, &vec![7; hash]].concat()
}

fn elliptic(group: u16, point: &[u8]) -> Vec<u8> {
    let length = u8::try_from(point.len()).expect("short");
    [&RANDOMS, &[3][..], &group.to_be_bytes(), &[length], point].concat()
}

fn finite(prime: &[u8], generator: &[u8], public: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
        [&length[..], bytes].concat()
    };
    [
        RANDOMS.to_vec(),
        number(prime),
        number(generator),
        number(public),
    ]
    .concat()
}

/// A key share as libcrypto makes it.
fn share(group: u16) -> Vec<u8> {
    let raw = |key: PKey<Private>| key.raw_public_key().expect("bytes");
    let curve = match group {
        29 => return raw(PKey::generate_x25519().expect("a key")),
        30 => return raw(PKey::generate_x448().expect("a key")),
        23 => Nid::X9_62_PRIME256V1,
        24 => Nid::SECP384R1,
        _ => Nid::SECP521R1,
    };
    let group = EcGroup::from_curve_name(curve).expect("a group");
    let key = EcKey::generate(&group).expect("a key");
    let mut context = BigNumContext::new().expect("memory");
    let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
    key.public_key()
        .to_bytes(&group, form, &mut context)
        .expect("bytes")
}

#[test]
fn a_server_s_handshake_is_signed() {
    for hash in [32, 48] {
        let message = verify(SERVER, hash);
        assert_eq!(ask(&message, Padding::None, Digest::Sha256, P256), Ok(()));
        assert_eq!(ask(&message, Padding::None, Digest::Sha384, P384), Ok(()));
        assert_eq!(
            ask(&message, Padding::Pss, Digest::Sha384, KeyType::Rsa),
            Ok(())
        );
        assert_eq!(
            ask(&message, Padding::Pss, Digest::Sha256, KeyType::RsaPss),
            Ok(())
        );
        for key in [KeyType::Ed25519, KeyType::Ed448] {
            assert_eq!(ask(&message, Padding::None, Digest::None, key), Ok(()));
        }
    }
    // Often, since one share in some has a shorter number or a high bit.
    for _ in 0..40 {
        for group in [29, 30, 23, 24] {
            let message = elliptic(group, &share(group));
            assert_eq!(ask(&message, Padding::None, Digest::Sha256, P256), Ok(()));
            assert_eq!(
                ask(&message, Padding::Pkcs1, Digest::Sha512, KeyType::Rsa),
                Ok(())
            );
            assert_eq!(
                ask(&message, Padding::Pss, Digest::Sha256, KeyType::Rsa),
                Ok(())
            );
        }
    }
    let message = finite(&[0xff; 256], &[2], &[1; 256]);
    assert_eq!(
        ask(&message, Padding::Pkcs1, Digest::Sha256, KeyType::Rsa),
        Ok(())
    );
}

fn refused(message: &[u8], why: NotSigned) {
    assert_eq!(
        ask(message, Padding::Pss, Digest::Sha256, KeyType::Rsa),
        Err(why),
        "{message:?}"
    );
}

#[test]
fn what_is_of_no_handshake_is_refused() {
    refused(b"", NotSigned::Shape);
    refused(b"hello", NotSigned::Shape);
    refused(&[0x20; 64], NotSigned::Shape);
    refused(
        &verify(b"TLS 1.3, client CertificateVerify\0", 32),
        NotSigned::Shape,
    );
    for hash in [0, 31, 33, 64] {
        refused(&verify(SERVER, hash), NotSigned::Shape);
    }
    let share = share(29);
    let mut longer = elliptic(29, &share);
    longer.push(0);
    refused(&longer, NotSigned::Shape);
    // Explicit parameters (RFC 4492), which nobody uses.
    let mut explicit = elliptic(29, &share);
    explicit[64] = 1;
    refused(&explicit, NotSigned::Shape);
    let mut longer = finite(&[0xff; 256], &[2], &[1; 256]);
    longer.push(0);
    refused(&longer, NotSigned::Shape);
}

#[test]
fn a_share_is_a_point_of_a_group_that_the_settings_allow() {
    for group in [23, 24, 29, 30] {
        let point = share(group);
        for cut in [&point[1..], &point[..point.len() - 1], &[]] {
            refused(&elliptic(group, cut), NotSigned::Point);
        }
        refused(
            &elliptic(group, &[&point[..], &[0]].concat()),
            NotSigned::Point,
        );
        // Half of all numbers are no point of the curve.
        let mut wrong = point.clone();
        let mut count = 0;
        for _ in 0..32 {
            let last = wrong.len() / 2;
            wrong[last] = wrong[last].wrapping_add(1);
            let message = elliptic(group, &wrong);
            match ask(&message, Padding::Pss, Digest::Sha256, KeyType::Rsa) {
                Err(NotSigned::Point) => count += 1,
                other => assert_eq!(other, Ok(())),
            }
        }
        assert!(count >= 4, "group {group}: {count} of 32 refused");
    }
    for zeros in [32, 56] {
        refused(
            &elliptic(if zeros == 32 { 29 } else { 30 }, &vec![0; zeros]),
            NotSigned::Point,
        );
    }
    // Not reduced: 2^255 - 19 + 9 is the base point under another name.
    let mut unreduced = [0xff; 32];
    unreduced[0] = 0xf6;
    unreduced[31] = 0x7f;
    refused(&elliptic(29, &unreduced), NotSigned::Point);
    let mut base = [0; 32];
    base[0] = 9;
    let message = elliptic(29, &base);
    assert_eq!(
        ask(&message, Padding::Pss, Digest::Sha256, KeyType::Rsa),
        Ok(())
    );
    // The length of one group under the number of another, a compressed point,
    // and numbers that are no such group.
    refused(&elliptic(24, &share(23)), NotSigned::Point);
    let compressed = [&[2], &share(23)[1..33]].concat();
    refused(&elliptic(23, &compressed), NotSigned::Point);
    for group in [25, 0, 0x0100, 0xffff] {
        refused(&elliptic(group, &share(25)), NotSigned::Group);
    }
    let everything = Permit {
        groups: vec![0x0100, 0x11ec, 0xffff],
        ..permit()
    };
    for group in [0x0100, 0x11ec, 0xffff] {
        let message = elliptic(group, &share(25));
        let all = std::slice::from_ref(&everything);
        let said = ask_of(all, &message, Padding::Pss, Digest::Sha256, KeyType::Rsa);
        assert_eq!(said, Err(NotSigned::Point));
    }
}

#[test]
fn dhe_is_the_server_s_own() {
    let prime = [0xff; 256];
    refused(&finite(&[0xfd; 256], &[2], &[1; 256]), NotSigned::Prime);
    refused(&finite(&[0xff; 128], &[2], &[1; 128]), NotSigned::Prime);
    refused(&finite(&[], &[], &[]), NotSigned::Prime);
    for generator in [&[][..], &[1], &[0, 2], &[3], &[1; 256]] {
        refused(&finite(&prime, generator, &[1; 256]), NotSigned::Prime);
    }
    let ending = |last: u8| {
        let mut number = [0; 256];
        number[255] = last;
        number
    };
    let from_the_top = |less: u8| {
        let mut number = prime;
        number[255] -= less;
        number
    };
    for public in [ending(0), ending(1), prime, from_the_top(1)] {
        refused(&finite(&prime, &[2], &public), NotSigned::Public);
    }
    for public in [&[7][..], &[1; 255], &[1; 257]] {
        refused(&finite(&prime, &[2], public), NotSigned::Public);
    }
    for public in [ending(2), from_the_top(2)] {
        let message = finite(&prime, &[2], &public);
        let said = ask(&message, Padding::Pkcs1, Digest::Sha256, KeyType::Rsa);
        assert_eq!(said, Ok(()));
    }
    let none = Permit {
        finite: None,
        ..permit()
    };
    let message = finite(&prime, &[2], &[1; 256]);
    let said = ask_of(
        &[none],
        &message,
        Padding::Pss,
        Digest::Sha256,
        KeyType::Rsa,
    );
    assert_eq!(said, Err(NotSigned::Prime));
}

#[test]
fn the_version_is_one_that_the_settings_allow() {
    let only_13 = Permit {
        lowest: TLS_1_3,
        ..permit()
    };
    let up_to_11 = Permit {
        lowest: 0x0301,
        highest: TLS_1_1,
        marks_downgrades: false,
        ..permit()
    };
    let from_10 = Permit {
        lowest: 0x0301,
        ..permit()
    };
    let thirteen = verify(SERVER, 32);
    let marked = elliptic(29, &share(29));
    let with_end = |end: &[u8; 8]| {
        let mut message = marked.clone();
        message[56..64].copy_from_slice(end);
        message
    };
    let (unmarked, old) = (with_end(&[9; 8]), with_end(b"DOWNGRD\0"));
    let check = |permits: &[Permit], message: &[u8], digest, said: Result<(), NotSigned>| {
        let padding = match digest {
            Digest::Sha384 => Padding::Pss,
            _ => Padding::Pkcs1,
        };
        let judged = ask_of(permits, message, padding, digest, KeyType::Rsa);
        assert_eq!(judged, said, "{permits:?} {digest:?}");
    };
    let (sha2, pss, sha1) = (Digest::Sha256, Digest::Sha384, Digest::Md5Sha1);
    let version = Err(NotSigned::Version);
    let downgrade = Err(NotSigned::Downgrade);
    let one = std::slice::from_ref::<Permit>;
    check(one(&only_13), &thirteen, pss, Ok(()));
    check(one(&only_13), &marked, sha2, version);
    check(one(&only_13), &unmarked, sha1, version);
    check(one(&only_12()), &thirteen, pss, version);
    check(one(&only_12()), &unmarked, sha2, Ok(()));
    check(one(&only_12()), &old, sha1, version);
    check(one(&permit()), &unmarked, sha2, downgrade);
    check(one(&permit()), &old, sha2, downgrade);
    check(one(&permit()), &marked, sha2, Ok(()));
    check(one(&up_to_11), &unmarked, sha1, Ok(()));
    check(one(&up_to_11), &unmarked, sha2, Err(NotSigned::Algorithm));
    check(one(&from_10), &old, sha1, Ok(()));
    check(one(&from_10), &marked, sha1, downgrade);
    check(one(&from_10), &marked, sha2, Ok(()));
    // Each of a key's stores has its own say, and none borrows of another's.
    let both = [only_13, only_12()];
    check(&both, &thirteen, pss, Ok(()));
    check(&both, &unmarked, sha2, Ok(()));
    check(&both, &unmarked, sha1, version);
    check(&[], &thirteen, pss, version);
    check(&[Permit::nothing()], &marked, sha2, version);
}

#[test]
fn a_key_is_of_its_own_type() {
    let rsa = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let mut context = PkeyCtx::new_id(Id::RSA_PSS).expect("a context");
    context.keygen_init().expect("a context");
    let pss = context.keygen().expect("a key");
    let curve = |nid| {
        let group = EcGroup::from_curve_name(nid).expect("a group");
        PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
    };
    let made = |key: Result<PKey<Private>, ErrorStack>| key.expect("a key");
    for (key, kind) in [
        (rsa, KeyType::Rsa),
        (pss, KeyType::RsaPss),
        (curve(Nid::X9_62_PRIME256V1), P256),
        (curve(Nid::SECP384R1), P384),
        (made(PKey::generate_ed25519()), KeyType::Ed25519),
        (made(PKey::generate_ed448()), KeyType::Ed448),
        (made(PKey::generate_x25519()), KeyType::Other),
    ] {
        assert_eq!(KeyType::of(&key), kind);
    }
}

#[test]
fn no_other_scheme_than_those_of_the_standards() {
    use Digest as D;
    use KeyType as K;
    use Padding as P;
    let digests = [
        D::None,
        D::Md5Sha1,
        D::Sha1,
        D::Sha224,
        D::Sha256,
        D::Sha384,
        D::Sha512,
    ];
    let known = |key, padding| -> &[u16] {
        // In the order of the digests; 0 is none.
        match (key, padding) {
            (K::Rsa, P::Pkcs1) => &[0, 1, 0x0201, 0x0301, 0x0401, 0x0501, 0x0601],
            (K::Rsa, P::Pss) => &[0, 0, 0, 0, 0x0804, 0x0805, 0x0806],
            (K::RsaPss, P::Pss) => &[0, 0, 0, 0, 0x0809, 0x080a, 0x080b],
            (K::Ecdsa(_), P::None) => &[0, 0, 0x0203, 0x0303, 0x0403, 0x0503, 0x0603],
            (K::Ed25519, P::None) => &[0x0807, 0, 0, 0, 0, 0, 0],
            (K::Ed448, P::None) => &[0x0808, 0, 0, 0, 0, 0, 0],
            _ => &[0; 7],
        }
    };
    for key in [K::Rsa, K::RsaPss, P256, K::Ed25519, K::Ed448, K::Other] {
        for padding in [P::None, P::Pkcs1, P::Pss] {
            for (digest, number) in digests.into_iter().zip(known(key, padding)) {
                let wanted = match (digest, *number) {
                    (_, 0) => None,
                    (D::Md5Sha1, _) => Some(Scheme::Md5Sha1),
                    (_, number) => Some(Scheme::Number(number)),
                };
                let found = scheme(key, padding, digest);
                assert!(found == wanted, "{key:?} {padding:?} {digest:?}");
            }
        }
    }
}

#[test]
fn a_server_of_tls_1_2_marks_what_it_signs_for_1_1() {
    let up_to_12 = Permit {
        lowest: 0x0301,
        highest: TLS_1_2,
        marks_downgrades: false,
        ..permit()
    };
    let mut message = elliptic(29, &share(29));
    let ask = |message: &[u8]| {
        let one = std::slice::from_ref(&up_to_12);
        ask_of(one, message, Padding::Pkcs1, Digest::Md5Sha1, KeyType::Rsa)
    };
    message[56..64].copy_from_slice(&[9; 8]);
    assert_eq!(ask(&message), Err(NotSigned::Downgrade));
    message[56..64].copy_from_slice(b"DOWNGRD\0");
    assert_eq!(ask(&message), Ok(()));
}

#[test]
fn a_point_has_no_hybrid_form() {
    for group in [23, 24] {
        let mut point = share(group);
        let odd = point.last().expect("a byte") & 1;
        point[0] = 6 | odd;
        refused(&elliptic(group, &point), NotSigned::Point);
    }
}

#[test]
fn a_random_that_is_half_of_another_protocol_s_is_signed() {
    let mut message = elliptic(29, &share(29));
    message[17..19].copy_from_slice(&[0x20, 34]);
    let said = ask(&message, Padding::Pss, Digest::Sha256, KeyType::Rsa);
    assert_eq!(said, Ok(()));
    message[17..19].copy_from_slice(&[9; 2]);
    message[20..24].copy_from_slice(&[0; 4]);
    let said = ask(&message, Padding::Pss, Digest::Sha256, KeyType::Rsa);
    assert_eq!(said, Ok(()));
}

#[test]
fn sha1_of_tls_1_1_is_not_sha1_of_tls_1_2() {
    let from_10 = Permit {
        lowest: 0x0301,
        ..permit()
    };
    let marked = elliptic(29, &share(29));
    let mut old = marked.clone();
    old[56..64].copy_from_slice(b"DOWNGRD\0");
    let ec = |permit: &Permit, message: &[u8]| {
        ask_of(
            std::slice::from_ref(permit),
            message,
            Padding::None,
            Digest::Sha1,
            P256,
        )
    };
    assert_eq!(ec(&from_10, &old), Ok(()));
    assert_eq!(ec(&from_10, &marked), Err(NotSigned::Algorithm));
    assert_eq!(ec(&permit(), &marked), Err(NotSigned::Algorithm));
}

#[test]
fn the_algorithm_fits_key_version_and_settings() {
    let thirteen = verify(SERVER, 32);
    let twelve = elliptic(29, &share(29));
    let finite = finite(&[0xff; 256], &[2], &[1; 256]);
    for (message, padding, digest, key) in [
        (&thirteen, Padding::Pkcs1, Digest::Sha256, KeyType::Rsa),
        (&thirteen, Padding::Pss, Digest::Sha1, KeyType::Rsa),
        (&thirteen, Padding::None, Digest::Sha256, KeyType::Rsa),
        (&thirteen, Padding::Pkcs1, Digest::Md5Sha1, KeyType::Rsa),
        (&thirteen, Padding::Pkcs1, Digest::Sha256, KeyType::RsaPss),
        (&thirteen, Padding::None, Digest::Sha1, P256),
        (&thirteen, Padding::None, Digest::None, P256),
        // The hash is the curve's.
        (&thirteen, Padding::None, Digest::Sha384, P256),
        (&thirteen, Padding::None, Digest::Sha256, P384),
        (&thirteen, Padding::None, Digest::Sha256, KeyType::Ed25519),
        (&thirteen, Padding::None, Digest::None, KeyType::Other),
        (&twelve, Padding::Pkcs1, Digest::None, KeyType::Rsa),
        (&twelve, Padding::Pkcs1, Digest::Sha1, KeyType::Rsa),
        (&twelve, Padding::Pkcs1, Digest::Sha224, KeyType::Rsa),
        (&twelve, Padding::Pkcs1, Digest::Sha256, KeyType::RsaPss),
        (&twelve, Padding::None, Digest::Md5Sha1, P256),
        (&twelve, Padding::None, Digest::Sha224, P256),
        // Not in the list of these settings.
        (&twelve, Padding::Pss, Digest::Sha512, KeyType::RsaPss),
        (&finite, Padding::None, Digest::Sha256, P256),
        (&finite, Padding::None, Digest::None, KeyType::Ed25519),
    ] {
        assert_eq!(
            ask(message, padding, digest, key),
            Err(NotSigned::Algorithm),
            "{padding:?} {digest:?} {key:?}"
        );
    }
    let with_sha1 = Permit {
        schemes: vec![0x0201, 0x0301],
        ..permit()
    };
    for digest in [Digest::Sha1, Digest::Sha224] {
        let one = std::slice::from_ref(&with_sha1);
        let said = ask_of(one, &twelve, Padding::Pkcs1, digest, KeyType::Rsa);
        assert_eq!(said, Ok(()));
    }
    // RFC 8734.
    let brainpool = Permit {
        schemes: vec![0x081a],
        ..permit()
    };
    let key = KeyType::Ecdsa(Nid::BRAINPOOL_P256R1);
    let one = std::slice::from_ref(&brainpool);
    let said = ask_of(one, &thirteen, Padding::None, Digest::Sha256, key);
    assert_eq!(said, Ok(()));
}

/// Bytes that begin like a structure and are none are a handshake's: the client's
/// random number may begin with anything.
#[test]
fn structures_are_refused_and_what_only_begins_like_one_is_not() {
    for group in [23, 29] {
        let good = elliptic(group, &share(group));
        let head = match good.len() - 2 {
            short @ ..0x80 => vec![0x30, u8::try_from(short).expect("short")],
            long => vec![0x30, 0x81, u8::try_from(long - 1).expect("short")],
        };
        // An element that ends with the message, and one that does not.
        for (short, said) in [(6, Err(NotSigned::Elsewhere)), (7, Ok(()))] {
            let mut message = good.clone();
            let rest = u8::try_from(good.len() - head.len() - short).expect("short");
            message[..head.len()].copy_from_slice(&head);
            message[head.len()..head.len() + 6].copy_from_slice(&[2, 1, 7, 6, 0x81, rest]);
            let asked = ask(&message, Padding::Pss, Digest::Sha256, KeyType::Rsa);
            assert_eq!(asked, said, "group {group}");
        }
    }
}

#[test]
fn what_other_protocols_sign_is_refused() {
    let good = elliptic(23, &share(23));
    let mut ike = [9; 28];
    ike[16..28].copy_from_slice(&[0x21, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 96]);
    for head in [
        &b"SSHSIG\0\0\0\x03git"[..],
        b"\x01\0\0\x7c\x03\x03",
        b"\x01\0\x02\0\x03\x01",
        b"\x84\x6aSignature1",
        b"\x85\x69Signature",
        &ike,
    ] {
        let mut message = good.clone();
        message[..head.len()].copy_from_slice(head);
        refused(&message, NotSigned::Elsewhere);
    }
    // Contexts of TLS itself that are not a handshake's: delegated credentials,
    // exported authenticators, and signed exchanges of HTTP (RFC 9345, 9261).
    for context in [
        &b"TLS, server delegated credentials\0"[..],
        b"Exported Authenticator\0",
        b"HTTP Exchange 1\0",
    ] {
        for hash in [32, 48, 64] {
            refused(&verify(context, hash), NotSigned::Shape);
        }
    }
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = contents.len();
    let head = match length {
        0..0x80 => vec![tag, u8::try_from(length).expect("short")],
        0x80..0x100 => vec![tag, 0x81, u8::try_from(length).expect("short")],
        _ => {
            let [high, low] = u16::try_from(length).expect("short").to_be_bytes();
            vec![tag, 0x82, high, low]
        }
    };
    [head, contents].concat()
}

/// `openssl req -x509` makes a server's certificate like that: one that may sign.
fn self_signed(key: &PKey<Private>, name: &X509Name) -> X509 {
    let mut made = X509::builder().expect("a builder");
    made.set_version(2).expect("a version");
    made.set_subject_name(name).expect("a name");
    made.set_issuer_name(name).expect("a name");
    made.set_pubkey(key).expect("a key");
    let day = |days| Asn1Time::days_from_now(days).expect("a time");
    made.set_not_before(&day(0)).expect("a time");
    made.set_not_after(&day(30)).expect("a time");
    let mut serial = BigNum::new().expect("memory");
    serial.rand(64, MsbOption::ONE, false).expect("a number");
    let serial = serial.to_asn1_integer().expect("a number");
    made.set_serial_number(&serial).expect("a number");
    let authority = BasicConstraints::new().critical().ca().build();
    made.append_extension(authority.expect("an extension"))
        .expect("room");
    made.sign(key, MessageDigest::sha256())
        .expect("a signature");
    made.build()
}

const VALIDITY: &[u8] = b"\x30\x1e\x17\x0d260101000000Z\x17\x0d491231235959Z";

/// Whether whoever trusts `server` takes what was signed for a certificate of
/// the attacker's key.
fn is_believed(server: &X509, tbs: &[u8], algorithm: &[u8], signature: &[u8]) -> bool {
    let bits = der(0x03, &[&[0], signature]);
    let forged = der(0x30, &[tbs, algorithm, &bits]);
    let forged = X509::from_der(&forged).expect("a certificate");
    let mut store = X509StoreBuilder::new().expect("a store");
    store.add_cert(server.clone()).expect("an anchor");
    let (store, chain) = (store.build(), Stack::new().expect("a stack"));
    let mut context = X509StoreContext::new().expect("a context");
    context
        .init(&store, &forged, &chain, |context| {
            let good = context.verify_cert()?;
            assert!(good, "{}", context.error());
            Ok(good)
        })
        .expect("verified")
}

/// A certificate hidden in DHE parameters: the serial number swallows the
/// randoms, the prime and the generator, and the public value holds the rest.
#[test]
fn no_certificate_is_signed_as_dhe_parameters() {
    let server_key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let mut name = X509Name::builder().expect("a name");
    name.append_entry_by_text("CN", "mail.example.org")
        .expect("a name");
    let name = name.build();
    let server = self_signed(&server_key, &name);
    let prime = BigNum::get_rfc3526_prime_2048().expect("a prime").to_vec();
    let attacker = PKey::generate_ed25519().expect("a key");

    let algorithm = der(
        0x30,
        &[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"],
    );
    let name = name.to_der().expect("a name");
    let subject = b"\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x0c\x04bank";
    let key = attacker.public_key_to_der().expect("a key");
    let tail = [&algorithm[..], &name, VALIDITY, subject, &key].concat();
    let params = finite(&prime, &[2], &[0x11; 256]);
    let total = params.len();
    let head = [
        &[0x30, 0x82][..],
        &u16::to_be_bytes(u16::try_from(total - 4).expect("short")),
    ];
    let serial = total - tail.len() - 8;
    let serial = [
        &[0x02, 0x82][..],
        &u16::to_be_bytes(u16::try_from(serial).expect("short")),
    ];
    let head = [head.concat(), serial.concat(), vec![0x11]].concat();
    let mut message = params;
    message[..head.len()].copy_from_slice(&head);
    message[total - tail.len()..].copy_from_slice(&tail);

    let settings = Permit {
        finite: Some(Finite {
            prime,
            generator: vec![2],
        }),
        ..permit()
    };
    let signing = Signing {
        padding: Padding::Pkcs1,
        digest: Digest::Sha256,
        key: 0,
        message: &message,
    };
    let mut judge = Judge::default();
    let permits = [settings];
    let said = judge.judge(&signing, KeyType::Rsa, &permits);
    assert_eq!(said, Err(NotSigned::Elsewhere));
    // That alone stands between an engine and a certificate.
    let otherwise = judge.judge_handshake(&signing, KeyType::Rsa, &permits);
    assert_eq!(otherwise, Ok(()));
    let signature = super::super::local::sign(
        &server_key,
        signing.padding,
        signing.digest,
        signing.message,
    );
    let signature = signature.expect("a signature");
    assert!(is_believed(&server, &message, &algorithm, &signature));
}

/// The same in ECDHE parameters, where a point leaves less room: an issuer
/// without a name, a subject of one odd attribute, the attacker's key in one
/// coordinate, and the other for a number that nobody reads.
#[test]
fn no_certificate_is_signed_as_ecdhe_parameters() {
    let group = EcGroup::from_curve_name(Nid::SECP384R1).expect("a group");
    let server_key = EcKey::generate(&group).expect("a key");
    let server_key = PKey::from_ec_key(server_key).expect("a key");
    let nobody = X509Name::builder().expect("a name").build();
    let server = self_signed(&server_key, &nobody);
    let algorithm = der(0x30, &[b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"]);
    let mut message = Vec::new();
    let mut context = BigNumContext::new().expect("memory");
    // Half of the attacker's keys give a point of the curve.
    while message.is_empty() {
        let attacker = PKey::generate_ed25519().expect("a key");
        let key = attacker.public_key_to_der().expect("a key");
        // The parameters' head and one more byte are the attribute's value.
        let value = [&[b'x', 3, 0, 24, 97, 4][..], b"y"].concat();
        let value = der(0x0c, &[&value]);
        let attribute = der(0x30, &[b"\x06\x01\x2a", &value]);
        let subject = der(0x30, &[&der(0x31, &[&attribute])]);
        let head = [
            &b"\x02\x01\x11"[..],
            &algorithm,
            b"\x30\x00",
            VALIDITY,
            &subject,
            &key,
        ]
        .concat();
        let x = [&b"y"[..], &key, b"\x81\x31\x00"].concat();
        let compressed = [&[2], &x[..]].concat();
        let Ok(point) = EcPoint::from_bytes(&group, &compressed, &mut context) else {
            continue;
        };
        let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
        let point = point.to_bytes(&group, form, &mut context).expect("bytes");
        let number = der(0x81, &[&[0], &point[49..]]);
        message = der(0x30, &[&head, &number]);
        assert_eq!(message[68..], point[..], "the point is where it should be");
    }
    let signing = Signing {
        padding: Padding::None,
        digest: Digest::Sha256,
        key: 0,
        message: &message,
    };
    let mut judge = Judge::default();
    let permits = [only_12()];
    let said = judge.judge(&signing, P384, &permits);
    assert_eq!(said, Err(NotSigned::Elsewhere));
    let otherwise = judge.judge_handshake(&signing, P384, &permits);
    assert_eq!(otherwise, Ok(()));
    let signature = super::super::local::sign(
        &server_key,
        signing.padding,
        signing.digest,
        signing.message,
    );
    let signature = signature.expect("a signature");
    assert!(is_believed(&server, &message, &algorithm, &signature));
    // A server that speaks TLS 1.3 does not sign it for another reason too.
    let marked = judge.judge_handshake(&signing, P384, &[permit()]);
    assert_eq!(marked, Err(NotSigned::Downgrade));
}
