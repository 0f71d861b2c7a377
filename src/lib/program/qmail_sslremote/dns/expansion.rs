//! Whether a wildcard may stand for a name: there is nothing nearer to it.
#![forbid(unsafe_code)]

use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, NSEC, NSEC3, RRSIG};
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RData};

use super::MOST_ROUNDS;

/// Of an answer for `name` whose records are all well signed: whether each was
/// signed for its own name, or for a wildcard, and then the answer shows that
/// nothing nearer exists (RFC 4035, 5.3.4; RFC 5155, 8.8).
pub fn holds(message: &Message, name: &Name) -> bool {
    let mut used = message.answers.iter().filter_map(|record| {
        match &record.data {
            // Of the signatures the one that was good has a proof.
            RData::DNSSEC(DNSSECRData::RRSIG(one)) if record.proof == Proof::Secure => Some(one),
            _ => None,
        }
    });
    used.all(|one| {
        one.input().num_labels >= name.num_labels() || nothing_nearer(message, name, one)
    })
}

fn nothing_nearer(message: &Message, name: &Name, signature: &RRSIG) -> bool {
    let zone = &signature.input().signer_name;
    let labels = usize::from(signature.input().num_labels);
    let nearer = name.trim_to(labels + 1);
    message.authorities.iter().any(|record| {
        if record.proof != Proof::Secure || !zone.zone_of(&record.name) {
            return false;
        }
        match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC(one)) => covers(&record.name, one, &nearer),
            RData::DNSSEC(DNSSECRData::NSEC3(one)) => {
                record.name.base_name() == *zone
                    && covers_hash(&record.name, one, &nearer).unwrap_or_default()
            }
            _ => false,
        }
    })
}

fn covers(owner: &Name, nsec: &NSEC, name: &Name) -> bool {
    let next = nsec.next_domain_name();
    // What a zone above says of a cut says nothing of what is below it: RFC 6840,
    // 4.1. A name that `next` is below of exists.
    if nsec.is_ancestor_delegation() && owner.zone_of(name) || name.zone_of(next) {
        return false;
    }
    owner < name && (name < next || next <= owner)
}

fn covers_hash(owner: &Name, nsec3: &NSEC3, name: &Name) -> Option<bool> {
    if nsec3.iterations() > MOST_ROUNDS {
        return None;
    }
    let hash = nsec3
        .hash_algorithm()
        .hash(nsec3.salt(), name, nsec3.iterations())
        .ok()?;
    let hash = base32(hash.as_ref());
    let owner = owner.iter().next()?.to_ascii_lowercase();
    let next = base32(nsec3.next_hashed_owner_name());
    Some(if owner < next {
        owner < hash && hash < next
    } else {
        owner < hash || hash < next
    })
}

/// Base 32 with the alphabet that keeps the order (RFC 4648, 7), in lower case.
fn base32(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let bit = |number: usize| {
        bytes
            .get(number / 8)
            .map_or(0, |byte| byte >> (7 - number % 8) & 1)
    };
    let digits = (bytes.len() * 8).div_ceil(5);
    (0..digits)
        .map(|digit| {
            let value = (0..5).fold(0, |value, place| value << 1 | bit(digit * 5 + place));
            ALPHABET[usize::from(value)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::dnssec::Nsec3HashAlgorithm;
    use hickory_resolver::proto::rr::RecordType;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn nsec_covers_what_lies_between() {
        let covers = |owner: &str, next: &str, kinds: &[RecordType], tried: &str| {
            let nsec = NSEC::new(name(next), kinds.iter().copied());
            super::covers(&name(owner), &nsec, &name(tried))
        };
        let host = [RecordType::A];
        assert!(covers("a.z.", "c.z.", &host, "b.z."));
        assert!(covers("a.z.", "c.z.", &host, "x.a.z."));
        assert!(!covers("a.z.", "c.z.", &host, "a.z."), "its owner");
        assert!(!covers("a.z.", "c.z.", &host, "c.z."), "the next");
        assert!(!covers("a.z.", "c.z.", &host, "d.z."));
        assert!(!covers("a.z.", "x.b.z.", &host, "b.z."), "above the next");
        assert!(covers("y.z.", "z.", &host, "yy.z."), "the last one");
        assert!(!covers("y.z.", "z.", &host, "x.z."));
        let cut = [RecordType::NS];
        assert!(!covers("a.z.", "c.z.", &cut, "x.a.z."), "below a cut");
        assert!(covers("a.z.", "c.z.", &cut, "b.z."));
    }

    #[test]
    fn nsec3_covers_hashes() {
        // RFC 5155, Appendix A: H(example) and H(a.example).
        let hash = |text: &str| {
            let salt = [0xaa, 0xbb, 0xcc, 0xdd];
            let digest = Nsec3HashAlgorithm::SHA1.hash(&salt, &name(text), 12);
            digest.unwrap().as_ref().to_vec()
        };
        assert_eq!(
            base32(&hash("example.")),
            b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"
        );
        assert_eq!(
            base32(&hash("a.example.")),
            b"35mthgpgcu1qg68fab165klnsnk3dpvl"
        );
        // Hashes are in the order of example, a.example (35), ai.example (gj).
        let covers = |owner: &str, next: &str, rounds: u16, tried: &str| {
            let salt = vec![0xaa, 0xbb, 0xcc, 0xdd];
            let kinds = [RecordType::A];
            let one = NSEC3::new(
                Nsec3HashAlgorithm::SHA1,
                false,
                rounds,
                salt,
                hash(next),
                kinds,
            );
            let label = String::from_utf8(base32(&hash(owner))).unwrap();
            covers_hash(&name(&format!("{label}.example.")), &one, &name(tried))
        };
        let all = |rounds| covers("example.", "ai.example.", rounds, "a.example.");
        assert_eq!(all(12), Some(true));
        assert_eq!(all(501), None, "too many rounds");
        let not = |tried: &str| covers("a.example.", "ai.example.", 12, tried);
        assert_eq!(not("a.example."), Some(false), "its owner");
        assert_eq!(not("ai.example."), Some(false), "the next");
        assert_eq!(not("example."), Some(false));
        let last = covers("ai.example.", "a.example.", 12, "example.");
        assert_eq!(last, Some(true));
    }
}
