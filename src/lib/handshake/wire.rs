//! The socket as libssl sees it: what is written is gathered, what is received is
//! counted, and nothing waits.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};

use crate::sys::socket;

/// How many of the first bytes of a peer are kept to say what came instead of TLS.
pub(super) const OPENING: usize = 64;
/// Where a read brought so many bytes, more are probably on their way.
const STREAM: usize = 4096;
/// How much waits for one send: several full records.
const GATHER: usize = 64 * 1024;

/// When a read asks the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Always,
    /// Until it has less than was wanted.
    UntilDrained,
    /// It had less: it has no more, unless the peer has ended, and is not asked
    /// again before somebody waits.
    Drained,
}

/// The socket as libssl sees it: it never waits, and what is written is
/// gathered until somebody pushes.
pub struct Wire {
    socket: TcpStream,
    waiting: Vec<u8>,
    sent: usize,
    opening: Vec<u8>,
    received: u64,
    /// Bytes that were ever to be sent, and those that were.
    queued: u64,
    transmitted: u64,
    ended: bool,
    asking: Asking,
    /// Our end follows what waits.
    last: bool,
    /// See [`Wire::gather`].
    gathering: bool,
    /// Bytes received since the last that were content.
    overhead: u64,
    /// Most of those; `None` in the handshake, which has its deadline.
    overhead_limit: Option<u64>,
}

impl Wire {
    /// Takes a connected socket over.
    #[must_use]
    pub fn new(socket: TcpStream) -> Wire {
        Wire {
            socket,
            waiting: Vec::new(),
            sent: 0,
            opening: Vec::new(),
            received: 0,
            queued: 0,
            transmitted: 0,
            ended: false,
            asking: Asking::Always,
            last: false,
            gathering: false,
            overhead: 0,
            overhead_limit: None,
        }
    }

    /// Whether what is flushed waits for [`Wire::push`], with what comes behind it.
    pub fn gather(&mut self, on: bool) {
        self.gathering = on;
    }

    /// Whether a read that brought little spares the one behind it: until somebody
    /// waits, reads say that there is no more.
    pub fn spare(&mut self, on: bool) {
        self.asking = if on {
            Asking::UntilDrained
        } else {
            Asking::Always
        };
    }

    /// The socket, for one wait. Nobody can wait for it in another way, so nobody is
    /// told that there is nothing where a wait has found something.
    pub fn pollable(&mut self) -> BorrowedFd<'_> {
        if self.asking == Asking::Drained {
            self.asking = Asking::UntilDrained;
        }
        self.socket.as_fd()
    }

    /// The first bytes that came, a few of them.
    pub(super) fn opening(&self) -> &[u8] {
        &self.opening
    }

    /// How many bytes came.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The socket, for what libssl has no part in any more.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// How many bytes the peer has not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        socket::unacknowledged(&self.socket)
    }

    /// Whether bytes wait to be sent.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.sent < self.waiting.len()
    }

    /// Whether more can be written now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < GATHER
    }

    /// Whether the peer's end of file came.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes that were ever to be sent.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes that the kernel took.
    #[must_use]
    pub fn transmitted(&self) -> u64 {
        self.transmitted
    }

    /// From now on no more than so many bytes are received between two of
    /// content ([`Wire::met_content`]). A peer could otherwise have us answer key
    /// updates, and renegotiations refused, for as long as it likes.
    pub fn bound_overhead(&mut self, limit: u64) {
        self.overhead_limit = Some(limit);
        self.overhead = 0;
    }

    /// What was received held content.
    pub fn met_content(&mut self) {
        self.overhead = 0;
    }

    /// Whether the limit on bytes without content ended the connection.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.overhead_limit
            .is_some_and(|limit| self.overhead > limit)
    }

    /// Sends what waits, as far as the kernel takes it.
    ///
    /// # Errors
    /// As send(2); a full socket is no error.
    pub fn push(&mut self) -> io::Result<()> {
        while self.has_waiting() {
            let transmit = if self.last {
                socket::transmit_with_more
            } else {
                socket::transmit
            };
            match transmit(&self.socket, &self.waiting[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.transmitted += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.waiting.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends what waits and then our end, in one segment where both fit: false if
    /// the kernel did not take all, which keeps the end back.
    ///
    /// # Errors
    /// As [`Wire::push`].
    pub fn push_last(&mut self) -> io::Result<bool> {
        self.last = true;
        self.push()?;
        if !self.has_waiting() {
            self.shut(Shutdown::Write);
        }
        Ok(!self.has_waiting())
    }

    /// Poll told that both directions are over, or that there is an error: what
    /// can still be read is read to its end.
    pub fn met_end(&mut self) {
        self.asking = Asking::Always;
    }

    /// Gives the buffer back while nothing waits.
    pub fn release(&mut self) {
        if !self.has_waiting() {
            self.waiting = Vec::new();
            self.sent = 0;
        }
    }

    /// Ends our direction, or both. A peer that is gone has ended both itself.
    pub fn shut(&self, how: Shutdown) {
        let _ = self.socket.shutdown(how);
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over_limit() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.asking == Asking::Drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = match socket::receive(&self.socket, buffer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.ended = true;
                return Err(error);
            }
            other => other?,
        };
        if count == 0 && !buffer.is_empty() {
            // Told of it, libssl would end both directions: an end of file
            // without close_notify must not keep us from writing.
            self.ended = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.asking == Asking::UntilDrained && count < buffer.len().min(STREAM) {
            self.asking = Asking::Drained;
        }
        self.received += count as u64;
        self.overhead += count as u64;
        let room = OPENING - self.opening.len();
        self.opening.extend_from_slice(&buffer[..count.min(room)]);
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.has_room() {
            self.push()?;
            if !self.has_room() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        self.waiting.extend_from_slice(bytes);
        self.queued += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Libssl flushes at the end of each flight of a handshake, and behind each
    /// ticket.
    fn flush(&mut self) -> io::Result<()> {
        if self.gathering { Ok(()) } else { self.push() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::sys::poll::{self, Ready};

    fn pair() -> (TcpStream, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("its address"));
        let (socket, _) = listener.accept().expect("the peer");
        (peer.expect("a connection"), Wire::new(socket))
    }

    fn arrived(socket: BorrowedFd<'_>) {
        poll::wait(&mut [(socket, Ready::READ)], None).expect("a wait");
    }

    #[test]
    fn what_came_behind_a_spared_read_is_found_after_a_wait() {
        for spares in [false, true] {
            let (mut peer, mut wire) = pair();
            wire.spare(spares);
            let mut buffer = [0; 64];
            peer.write_all(b"one").expect("sent");
            arrived(wire.pollable());
            assert_eq!(wire.read(&mut buffer).expect("bytes"), 3);
            peer.write_all(b"other").expect("sent");
            arrived(wire.socket.as_fd());
            // Nobody waited for it by way of the wire.
            let unasked = wire.read(&mut buffer).map_err(|error| error.kind());
            if spares {
                assert_eq!(unasked, Err(io::ErrorKind::WouldBlock));
                arrived(wire.pollable());
                assert_eq!(wire.read(&mut buffer).expect("bytes"), 5);
            } else {
                assert_eq!(unasked, Ok(5));
            }
        }
    }
}
