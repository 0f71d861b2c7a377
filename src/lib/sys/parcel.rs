//! Messages between our own processes: each is whole, and may carry one
//! descriptor (`SOCK_SEQPACKET` and `SCM_RIGHTS` of unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    recv, recvmsg, sendmsg, shutdown, socketpair,
};

use super::poll::{self, Ready};

/// Two connected ends, close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends a message without waiting.
///
/// # Errors
/// As send(2); `WouldBlock` where the other side has too much unread.
pub fn send(to: impl AsFd, message: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match nix::sys::socket::send(to.as_fd().as_raw_fd(), message, flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Sends a message with a copy of a descriptor, without waiting.
///
/// # Errors
/// As sendmsg(2).
pub fn send_with(to: impl AsFd, message: &[u8], passed: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let numbers = [passed.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&numbers)];
    let parts = [IoSlice::new(message)];
    loop {
        match sendmsg::<()>(to.as_fd().as_raw_fd(), &parts, &rights, flags, None) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Ends a pair for both of its ends, whoever has copies of them. What was sent
/// before can still be taken.
pub fn end(socket: impl AsFd) {
    // One that has ended has ended.
    let _ = shutdown(socket.as_fd().as_raw_fd(), Shutdown::Both);
}

/// Whether nobody has the other end any more.
#[must_use]
pub fn has_ended(socket: impl AsFd) -> bool {
    let came = poll::one(socket.as_fd(), Ready::default(), Instant::now());
    came.map_or(true, |came| came.gone)
}

/// Receives a message without waiting; 0 is the other side's end. A message
/// that is longer than the buffer is an error.
///
/// # Errors
/// As recv(2).
pub fn receive(from: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // MSG_TRUNC tells the whole length of a message that was cut.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        match recv(from.as_fd().as_raw_fd(), buffer, flags) {
            Err(Errno::EINTR) => {}
            Ok(length) if length > buffer.len() => return Err(io::ErrorKind::InvalidData.into()),
            other => return Ok(other?),
        }
    }
}

/// As [`receive`], with the descriptor that came along, close-on-exec.
///
/// # Errors
/// As recvmsg(2).
pub fn receive_with(from: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    loop {
        let number = from.as_fd().as_raw_fd();
        let received = match recvmsg::<()>(number, &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut passed = None;
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for number in numbers {
                    // SAFETY: the kernel has just given this process the
                    // descriptor; nobody else owns it.
                    passed = Some(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        }
        if received.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        return Ok((received.bytes, passed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_whole_and_carry_descriptors() {
        let (one, other) = pair().expect("a pair");
        let (inner, outer) = pair().expect("a pair");
        send(&one, b"first").expect("sent");
        send_with(&one, b"second", inner.as_fd()).expect("sent");
        let mut buffer = [0; 16];
        assert_eq!(receive(&other, &mut buffer).expect("it"), 5);
        let (length, passed) = receive_with(&other, &mut buffer).expect("it");
        assert_eq!(&buffer[..length], b"second");
        send(passed.expect("a descriptor"), b"x").expect("sent");
        assert_eq!(receive(&outer, &mut buffer).expect("it"), 1);
        let nothing = receive(&other, &mut buffer).expect_err("no message");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        send(&one, &[0; 17]).expect("sent");
        assert!(receive(&other, &mut buffer).is_err(), "too long");
        send(&one, b"last").expect("sent");
        let copy = one.try_clone().expect("a copy");
        end(&one);
        assert_eq!(receive(&other, &mut buffer).expect("it"), 4);
        assert!(send(&other, b"x").is_err());
        drop(copy);
        assert_eq!(receive(&other, &mut buffer).expect("the end"), 0);
    }
}
