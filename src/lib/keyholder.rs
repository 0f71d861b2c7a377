//! Where private keys live. Nobody else reads a key file or learns whether a
//! [`Signer`] holds the key itself: for now each does, and engines inherit it.
#![forbid(unsafe_code)]

use std::path::Path;

use openssl::pkey::{PKey, PKeyRef, Private, Public};

use crate::report::Fail;
use crate::store::{self, KeyPlace, Signer, SignerSource};
use crate::tls_ffi::wipe;

/// The longest password of a key, libcrypto's `PEM_BUFSIZE`.
pub const PASSWORD_LIMIT: usize = 1024;

/// A secret text, overwritten when it is given up.
pub struct Password(Vec<u8>);

impl Password {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Password {
        Password(bytes)
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Signers that hold their key.
#[derive(Default)]
pub struct LocalKeys {
    /// The password of `-3`.
    pub password: Option<Password>,
}

impl SignerSource for LocalKeys {
    fn signer(&self, place: &KeyPlace, public: &PKeyRef<Public>) -> Result<Signer, Fail> {
        let key = self
            .read(place)
            .map_err(|why| Fail::temporary(format!("unable to load key: {place}: {why}")))?;
        if !store::server::fits(&key, public) {
            return Err(Fail::temporary(format!(
                "key does not match certificate: {place}"
            )));
        }
        Ok(key)
    }
}

impl LocalKeys {
    /// Reads a PEM key. The file's bytes do not stay in memory.
    fn read(&self, place: &KeyPlace) -> Result<PKey<Private>, String> {
        let mut bytes = store::read_file(Path::new(&place.path))?;
        let mut wanted_password = false;
        let key = PKey::private_key_from_pem_callback(&bytes, |buffer| {
            wanted_password = true;
            let password = self
                .password
                .as_ref()
                .map_or(&[][..], |password| &password.0);
            let length = password.len().min(buffer.len());
            buffer[..length].copy_from_slice(&password[..length]);
            Ok(length)
        });
        let empty = bytes.is_empty();
        wipe(&mut bytes);
        key.map_err(|error| {
            let reason = store::queue(&error);
            match (empty, wanted_password, self.password.is_some()) {
                (true, ..) => "it is empty".to_owned(),
                (_, true, false) => "it is encrypted, and no password was given with -3".to_owned(),
                (_, true, true) => format!("the password of -3 does not open it ({reason})"),
                (_, false, _) => match reason.as_str() {
                    "no start line" | "unsupported" => "no PEM private key in it".to_owned(),
                    _ => reason,
                },
            }
        })
    }
}
