//! A client's way to take up an earlier session: `SSL_set_session`, which the
//! openssl crate leaves unsafe because the session must fit the context. Here
//! both are kept together, so it always does.

use std::ffi::c_int;

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContext, SslRef, SslSession};
use openssl_sys as ffi;

use foreign_types::ForeignTypeRef as _;

/// A session that can be resumed, and the context it was made under.
#[derive(Clone)]
pub struct Resumable {
    context: SslContext,
    session: SslSession,
}

impl Resumable {
    /// What `ssl` can be resumed from: `SSL_SESSION_is_resumable`. Under TLS 1.3
    /// there is nothing until the server's ticket has been read.
    #[must_use]
    pub fn of(ssl: &SslRef) -> Option<Self> {
        unsafe extern "C" {
            fn SSL_SESSION_is_resumable(session: *const ffi::SSL_SESSION) -> c_int;
        }
        let session = ssl.session()?;
        // SAFETY: the borrow keeps the SSL_SESSION valid for the whole call,
        // which only reads it.
        if unsafe { SSL_SESSION_is_resumable(session.as_ptr()) } != 1 {
            return None;
        }
        Some(Resumable {
            context: ssl.ssl_context().to_owned(),
            session: session.to_owned(),
        })
    }

    /// A fresh connection state that offers this session.
    ///
    /// # Errors
    /// Libssl has no memory, or the session's protocol is switched off by now.
    pub fn ssl(&self) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        // SAFETY: `of` took session and context from one SSL, and the new Ssl is
        // of that context. The call takes a reference of its own.
        unsafe { ssl.set_session(&self.session)? };
        Ok(ssl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ssl::SslMethod;

    #[test]
    fn a_state_without_a_handshake_has_nothing_to_resume() {
        let context = SslContext::builder(SslMethod::tls_client())
            .unwrap()
            .build();
        assert!(Resumable::of(&Ssl::new(&context).unwrap()).is_none());
    }
}
