//! What a connection carries of ours: `SSL_set_ex_data`.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslRef};

/// One kind of it: its place in every SSL object.
pub struct ExData<T>(OnceLock<Index<Ssl, T>>);

impl<T: Send + Sync + 'static> ExData<T> {
    /// One that has no place yet.
    pub const fn new() -> ExData<T> {
        ExData(OnceLock::new())
    }

    /// Makes sure that there is room for it.
    ///
    /// # Errors
    /// Libcrypto has no room for per-connection data; so do the others.
    pub fn index(&self) -> Result<Index<Ssl, T>, ErrorStack> {
        match self.0.get() {
            Some(index) => Ok(*index),
            None => Ssl::new_ex_index().map(|index| *self.0.get_or_init(|| index)),
        }
    }

    /// What a connection carries.
    pub fn of<'a>(&self, ssl: &'a SslRef) -> Option<&'a T> {
        ssl.ex_data(self.index().ok()?)
    }

    /// Has a connection carry this from now on.
    pub fn set(&self, ssl: &mut SslRef, data: T) -> Result<(), ErrorStack> {
        ssl.set_ex_data(self.index()?, data);
        Ok(())
    }
}
