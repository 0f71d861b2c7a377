//! Whether bytes are one structure of ASN.1 over their whole length, in whatever
//! encoding a reader could take (X.690 section 8.1).
#![forbid(unsafe_code)]

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Elements within elements: more than anything that is signed has. What is deeper
/// counts as one.
const DEPTH: u32 = 16;

/// Whether a message is a SEQUENCE, as what is signed of a certificate, a request
/// for one, a revocation list and an OCSP answer (RFC 5280, 2986, 6960), or a SET,
/// as the signed attributes of CMS (RFC 5652 section 5.4).
///
/// Its head alone does not say so: the 100 bytes that are signed for X25519 begin
/// with that of a structure of their length once in 2^15.
pub(super) fn is_one(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(SEQUENCE | SET)))
        && match behind_element(message, DEPTH) {
            Ok(rest) => rest.is_empty(),
            Err(Ended::TooDeep) => true,
            Err(Ended::Malformed) => false,
        }
}

/// Why nothing was read to its end.
enum Ended {
    Malformed,
    TooDeep,
}

/// What follows the element that bytes begin with.
fn behind_element(bytes: &[u8], depth: u32) -> Result<&[u8], Ended> {
    let (identifier, mut rest) = bytes.split_first().ok_or(Ended::Malformed)?;
    let is_constructed = identifier & 0x20 != 0;
    if identifier & 0x1f == 0x1f {
        // The tag's number is in further bytes.
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

    /// So many bytes of a head and one element behind it.
    fn filled(head: &[u8], total: usize) -> Vec<u8> {
        let mut message = vec![7; total];
        message[..head.len()].copy_from_slice(head);
        let rest = total - head.len();
        message[head.len()..head.len() + 2].copy_from_slice(&[4, u8::try_from(rest - 2).unwrap()]);
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
            &[0x30, 0][..],
            &[0x30, 2, 5, 0],
            &[0x31, 4, 0x30, 2, 5, 0],
            // Of indefinite length, within another and by itself.
            &[0x30, 0x80, 5, 0, 0, 0],
            &[0x30, 6, 0x30, 0x80, 5, 0, 0, 0],
        ] {
            assert!(is_one(whole), "{whole:?}");
            assert!(!is_one(&whole[..whole.len() - 1]), "{whole:?}");
            assert!(!is_one(&[whole, &[0]].concat()), "{whole:?}");
        }
        for broken in [
            &[0x30, 2, 5, 1][..],
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

    /// Of random messages that begin so, a few in a hundred are structures.
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
        for _ in 0..20_000 {
            let mut message: Vec<u8> = (0..100).map(|_| random()).collect();
            message[..2].copy_from_slice(&[SEQUENCE, 98]);
            count += u32::from(is_one(&message));
        }
        assert!(count < 400, "{count} of 20000");
    }
}
