//! Passwords, and what they are made of: overwritten when they are given up, and
//! shown by no message.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::tls_ffi::wipe;

/// Bytes that are overwritten when they are given up.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes them over. What a vector left behind as it grew is not reached: it
    /// should have been of its final size at once.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// Gives up all behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        let length = length.min(self.0.len());
        wipe(&mut self.0[length..]);
        self.0.truncate(length);
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("...")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_and_can_be_cut() {
        let mut secret = Secret::new(b"abcdef".to_vec());
        assert_eq!(format!("{secret:?}"), "...");
        secret.truncate(9);
        assert_eq!(&*secret, b"abcdef");
        secret.truncate(2);
        assert_eq!(&*secret, b"ab");
    }
}
