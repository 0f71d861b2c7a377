//! The client's socket, or the pipes in its place, without waiting.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::sys::poll::{self, Ready};
use crate::sys::{fd, socket};

/// The client, in the clear or behind the server. The server's processes have
/// the same socket, so its mode is left alone: only single calls do not wait.
pub(super) struct Client {
    pub(super) input: OwnedFd,
    /// `None` once it is told that nothing more comes.
    pub(super) output: Option<OwnedFd>,
    /// As [`Client::watch`].
    watched: bool,
}

impl Client {
    pub(super) fn new(input: OwnedFd, output: OwnedFd) -> Client {
        Client {
            input,
            output: Some(output),
            watched: false,
        }
    }

    /// Has the kernel find out whether the client is still there, for as long as
    /// nobody reads from it. Over TCP the end of what it says looks the same whether
    /// it listens on or has closed its socket.
    pub(super) fn watch(&mut self) {
        if let (false, Some(output)) = (self.watched, &self.output) {
            // A local socket or pipe tells of its end by itself.
            let _ = socket::probe(output);
            self.watched = true;
        }
    }

    /// Tells the client that nothing more comes.
    pub(super) fn end_output(&mut self) {
        if let Some(output) = self.output.take() {
            // A pipe is ended by closing it.
            let _ = socket::end_output(&output);
        }
    }

    /// Reads what is there.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match socket::receive(&self.input, buffer) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
                if !is_readable(self.input.as_fd()) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                fd::read_some(&self.input, buffer)
            }
            other => other,
        }
    }

    /// Writes what there is room for.
    pub(super) fn transmit(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(output) = &self.output else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        match socket::transmit(output, bytes) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
                // A pipe that poll calls writable takes this much at once.
                fd::write_some(output, &bytes[..bytes.len().min(libc::PIPE_BUF)])
            }
            other => other,
        }
    }

    /// Looks at the next byte, which stays there; `None` at the end.
    pub(super) fn look(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let count = socket::peek(&self.input, &mut byte)?;
        Ok((count > 0).then_some(byte[0]))
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll::one(fd, Ready::READ, Instant::now()).is_ok_and(|came| !came.is_nothing())
}
