//! Whether bytes are one structure of ASN.1 over their whole length, in whatever
//! encoding a reader could take (X.690 section 8.1).
#![forbid(unsafe_code)]

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 2;
const OBJECT_IDENTIFIER: u8 = 6;
/// Set in the identifier of an element that is made of others.
const CONSTRUCTED: u8 = 0x20;
/// Elements within elements: more than anything that is signed has. What is deeper
/// counts as one.
const DEPTH: u32 = 16;

/// Whether a message is a SEQUENCE, as what is signed of a certificate, a request
/// for one, a revocation list and an OCSP answer (RFC 5280, 2986, 6960), or a SET,
/// as the signed attributes of CMS (RFC 5652 section 5.4), and begins as one that
/// somebody signs.
///
/// Its head alone does not say so: the 100 bytes that are signed for X25519 begin
/// with that of a structure of their length once in 2^15, are one once in 2^22, and
/// begin as a signed one does once in 2^29.
pub(super) fn is_one(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(SEQUENCE | SET)))
        && match behind_element(message, DEPTH) {
            Ok(rest) => rest.is_empty() && contents(message).is_some_and(begin_as_signed),
            Err(Ended::TooDeep) => true,
            Err(Ended::Malformed) => false,
        }
}

/// What is in an element whose identifier is one byte, with all that follows.
fn contents(element: &[u8]) -> Option<&[u8]> {
    match element {
        [_, 0x80, rest @ ..] => Some(rest),
        [_, length, rest @ ..] => behind_length(*length, rest).map(|(_, rest)| rest),
        _ => None,
    }
}

/// Whether elements begin with one that is made of others, or with an INTEGER or an
/// OBJECT IDENTIFIER that has such a one or an OBJECT IDENTIFIER behind it: a version
/// and an algorithm, a serial number and an issuer, a type and its value. Each of
/// those named above begins so, and those of RFC 2634, 3161, 4210, 4211, 5272, 5755.
/// A tag in further bytes may be any.
fn begin_as_signed(elements: &[u8]) -> bool {
    let leads = |identifier: u8| {
        identifier & CONSTRUCTED != 0 || identifier == OBJECT_IDENTIFIER || is_long(identifier)
    };
    match elements {
        [first, ..] if first & CONSTRUCTED != 0 => true,
        [first, ..] if *first == INTEGER || leads(*first) => behind_element(elements, DEPTH)
            .ok()
            .and_then(|rest| rest.first())
            .is_some_and(|second| leads(*second)),
        _ => false,
    }
}

/// Whether the tag's number is in further bytes.
fn is_long(identifier: u8) -> bool {
    identifier & 0x1f == 0x1f
}

/// Why nothing was read to its end.
enum Ended {
    Malformed,
    TooDeep,
}

/// What follows the element that bytes begin with.
fn behind_element(bytes: &[u8], depth: u32) -> Result<&[u8], Ended> {
    let (identifier, mut rest) = bytes.split_first().ok_or(Ended::Malformed)?;
    let is_constructed = identifier & CONSTRUCTED != 0;
    if is_long(*identifier) {
        let last = rest.iter().position(|byte| byte & 0x80 == 0);
        rest = &rest[last.ok_or(Ended::Malformed)? + 1..];
    }
    let (length, rest) = rest.split_first().ok_or(Ended::Malformed)?;
    let inner = || depth.checked_sub(1).ok_or(Ended::TooDeep);
    if *length == 0x80 && is_constructed {
        return behind_end_mark(rest, inner()?);
    }
    let (length, rest) = behind_length(*length, rest).ok_or(Ended::Malformed)?;
    let (mut contents, rest) = rest.split_at_checked(length).ok_or(Ended::Malformed)?;
    while is_constructed && !contents.is_empty() {
        contents = behind_element(contents, inner()?)?;
    }
    Ok(rest)
}

/// A length in its short or long form (X.690 section 8.1.3), and what follows.
fn behind_length(first: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    match first {
        0x80 => None,
        ..0x80 => Some((first.into(), rest)),
        _ => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits.iter().try_fold(0_usize, |sum, digit| {
                Some(sum.checked_mul(256)? + usize::from(*digit))
            })?;
            Some((length, rest))
        }
    }
}

/// What follows elements and the mark of their end (X.690 section 8.1.5).
fn behind_end_mark(mut bytes: &[u8], depth: u32) -> Result<&[u8], Ended> {
    loop {
        if let [0, 0, rest @ ..] = bytes {
            return Ok(rest);
        }
        bytes = behind_element(bytes, depth)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes of a head, a number and one element behind it.
    fn filled(head: &[u8], total: usize) -> Vec<u8> {
        let mut message = [head, &[INTEGER, 1, 7, OBJECT_IDENTIFIER]].concat();
        message.push(u8::try_from(total - message.len() - 1).unwrap());
        message.resize(total, 7);
        message
    }

    #[test]
    fn structures_are_told_in_every_encoding() {
        for head in [
            &[0x30, 0x81, 117][..],
            &[0x31, 0x81, 117],
            // Longer than it need be, which some read all the same.
            &[0x30, 0x82, 0, 116],
            &[0x30, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 109],
            &[0x30, 0x76, 0x7f, 0x81, 0x23, 0x72],
        ] {
            assert!(is_one(&filled(head, 120)), "{head:?}");
        }
        for head in [
            &[0x30, 0x81, 116][..],
            &[0x30, 0x81, 118],
            &[0x02, 0x81, 117],
            &[0x30, 0x80],
            &[0x30, 0xff],
            &[0x30, 0x76, 0x3f, 0x81, 0x81],
        ] {
            assert!(!is_one(&filled(head, 120)), "{head:?}");
        }
        for whole in [
            &[0x30, 2, 0x30, 0][..],
            &[0x31, 4, 0x30, 2, 5, 0],
            // Of indefinite length, within another and by itself.
            &[0x30, 0x80, 0x30, 0, 0, 0],
            &[0x30, 0x80, 2, 1, 7, 6, 1, 7, 0, 0],
            &[0x30, 6, 0x30, 0x80, 5, 0, 0, 0],
        ] {
            assert!(is_one(whole), "{whole:?}");
            assert!(!is_one(&whole[..whole.len() - 1]), "{whole:?}");
            assert!(!is_one(&[whole, &[0]].concat()), "{whole:?}");
        }
        for broken in [
            &[0x30, 2, 0x30, 1][..],
            &[0x31, 4, 0x30, 2, 5, 1],
            &[0x30, 0x80, 5, 1, 0, 0],
            &[0x30, 4, 4, 0x80, 0, 0],
            b"",
        ] {
            assert!(!is_one(broken), "{broken:?}");
        }
        // However deep it is, no reader of ours runs out of its stack.
        assert!(is_one(
            &[[0x30, 0x80].repeat(5000), vec![0; 10000]].concat()
        ));
    }

    #[test]
    fn what_is_signed_begins_with_a_structure_or_a_number_or_a_type_and_one_behind_it() {
        let ends = [
            (&[0x30, 0][..], true),
            (&[0xa0, 0], true),
            (&[6, 1, 7], true),
            (&[0x1f, 0x10, 0], true),
            (&[4, 0], false),
            (&[2, 1, 7], false),
            (&[], false),
        ];
        for (second, leads) in ends {
            // INTEGER, OBJECT IDENTIFIER, and an INTEGER by a tag in further bytes.
            for (first, alone) in [
                (&[2, 1, 7][..], false),
                (&[6, 1, 7], false),
                (&[0x1f, 2, 1, 7], false),
                (&[0x30, 0], true),
                (&[0xa0, 3, 2, 1, 2], true),
                (&[0xbf, 0, 3, 2, 1, 2], true),
            ] {
                for head in [SEQUENCE, SET] {
                    let length = u8::try_from(first.len() + second.len()).unwrap();
                    let message = [&[head, length], first, second].concat();
                    assert_eq!(is_one(&message), alone || leads, "{message:?}");
                }
            }
            for first in [&[4, 0][..], &[5, 0], &[0x0c, 1, 7], &[0x80, 1, 7]] {
                let length = u8::try_from(first.len() + second.len()).unwrap();
                let message = [&[SEQUENCE, length], first, second].concat();
                assert!(!is_one(&message), "{message:?}");
            }
        }
        assert!(!is_one(&[SEQUENCE, 0]));
    }

    /// Of random messages that begin with the head of a structure of their length, one
    /// in many thousands is signed somewhere.
    #[test]
    fn few_messages_are_structures_by_chance() {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        let mut count = 0;
        for _ in 0..200_000 {
            let mut message: Vec<u8> = (0..100).map(|_| random()).collect();
            message[..2].copy_from_slice(&[SEQUENCE, 98]);
            count += u32::from(is_one(&message));
        }
        assert!(count < 60, "{count} of 200000");
    }
}
