//! A TLS server on the openssl crate that serves one connection, for sslclient.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use openssl::ssl::{HandshakeError, Ssl, SslContext, SslContextBuilder, SslMethod, SslStream};

use super::authority::Identity;
use super::process::{PATIENCE, eventually};

/// A server in a thread of the test.
pub struct Peer<T> {
    pub at: SocketAddr,
    thread: JoinHandle<T>,
}

/// Accepts one connection before the deadline.
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let stream = eventually("a client connects", || {
        listener.accept().ok().map(|(stream, _)| stream)
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A context that shows this certificate.
pub fn context(identity: &Identity, set: impl FnOnce(&mut SslContextBuilder)) -> SslContext {
    let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
    context.set_certificate(&identity.certificate).unwrap();
    context.set_private_key(&identity.key).unwrap();
    for one in &identity.between {
        context.add_extra_chain_cert(one.clone()).unwrap();
    }
    set(&mut context);
    context.build()
}

impl<T: Send + 'static> Peer<T> {
    /// Serves one plain connection on 127.0.0.1.
    pub fn plain(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> Peer<T> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let thread = thread::spawn(move || serve(accept(&listener)));
        Peer { at, thread }
    }

    /// Serves one TLS connection; what `serve` gets is an error text where the
    /// handshake fails.
    pub fn tls(
        context: SslContext,
        serve: impl FnOnce(Result<SslStream<TcpStream>, String>) -> T + Send + 'static,
    ) -> Peer<T> {
        Peer::plain(move |stream| {
            let ssl = Ssl::new(&context).unwrap();
            serve(ssl.accept(stream).map_err(|error| match error {
                HandshakeError::Failure(half) | HandshakeError::WouldBlock(half) => {
                    half.error().to_string()
                }
                HandshakeError::SetupFailure(stack) => stack.to_string(),
            }))
        })
    }

    /// What `serve` returned.
    pub fn join(self) -> T {
        self.thread.join().unwrap()
    }
}
