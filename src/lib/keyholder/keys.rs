//! The private keys of a worker: what may be signed with each, and the signatures.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use openssl::pkey::{PKey, Private};

use super::judge::{Judge, KeyType};
use super::local;
use super::process::order;
use super::protocol::{NotSigned, Signing};
use crate::store::permit::Permit;
use crate::tls_ffi::provider::{Digest, Padding};

/// A key, and what it can sign.
struct Key {
    secret: PKey<Private>,
    kind: KeyType,
    /// Numbers of the permits that it signs under.
    permits: Vec<u16>,
}

/// The keys, and what is signed with them.
#[derive(Default)]
pub(super) struct Keys {
    by_number: HashMap<u16, Key>,
    permits: Vec<Permit>,
    judge: Judge,
}

impl Keys {
    /// Has a key under a number.
    pub fn insert(&mut self, number: u16, secret: PKey<Private>) {
        let key = Key {
            kind: KeyType::of(&secret),
            secret,
            permits: Vec::new(),
        };
        self.by_number.insert(number, key);
    }

    /// Signs for nobody, before the doors close.
    pub fn warm_up(&self) {
        for key in self.by_number.values() {
            key.warm_up();
        }
    }

    /// Takes a permit or a grant; anything else is nothing.
    pub fn learn(&mut self, order: &[u8]) {
        match order {
            // One that cannot be read must not shift the numbers of the others.
            [order::PERMIT, permit @ ..] => self
                .permits
                .push(Permit::parse(permit).unwrap_or_else(Permit::nothing)),
            [order::GRANT, high, low, keys @ ..] => {
                let permit = u16::from_be_bytes([*high, *low]);
                for key in keys.chunks_exact(2) {
                    let number = u16::from_be_bytes([key[0], key[1]]);
                    if let Some(key) = self.by_number.get_mut(&number) {
                        key.permits.push(permit);
                    }
                }
            }
            _ => {}
        }
    }

    /// One signature.
    pub fn sign(&mut self, signing: &Signing<'_>) -> Result<Vec<u8>, NotSigned> {
        let key = self
            .by_number
            .get(&signing.key)
            .ok_or(NotSigned::NoSuchKey)?;
        let permits = key
            .permits
            .iter()
            .filter_map(|permit| self.permits.get(usize::from(*permit)));
        self.judge.judge(signing, key.kind, permits)?;
        local::sign(
            &key.secret,
            signing.padding,
            signing.digest,
            signing.message,
        )
        .map_err(|_| NotSigned::Failed)
    }
}

impl Key {
    /// Signs for nobody: what libcrypto makes at the first use of a key and of
    /// an algorithm is made before the doors close.
    fn warm_up(&self) {
        let tries: &[(Padding, Digest)] = match self.kind {
            KeyType::Rsa | KeyType::RsaPss => &[
                (Padding::Pss, Digest::Sha256),
                (Padding::Pss, Digest::Sha384),
                (Padding::Pss, Digest::Sha512),
                (Padding::Pkcs1, Digest::Sha256),
                (Padding::Pkcs1, Digest::Sha1),
            ],
            KeyType::Ecdsa(_) => &[
                (Padding::None, Digest::Sha256),
                (Padding::None, Digest::Sha384),
                (Padding::None, Digest::Sha512),
            ],
            KeyType::Ed25519 | KeyType::Ed448 | KeyType::Other => &[(Padding::None, Digest::None)],
        };
        for (padding, digest) in tries {
            // A key may not do all of them (RSASSA-PSS keys name theirs).
            let _ = local::sign(&self.secret, *padding, *digest, b"");
        }
    }
}
