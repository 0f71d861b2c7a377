//! Plaintext between us and a program: its descriptors 0 and 1 (or 6 and 7) as
//! one stream socket, or as two pipes.
//!
//! Our side never waits; the program's does. Either direction ends by itself.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::{fd, socket};

/// What a program finds behind its two descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// Two pipes, as ucspi-ssl gives.
    Pipes,
    /// One socket, as tcpserver, inetd and stunnel give: many a daemon takes a
    /// descriptor 0 that is none for the wish to listen by itself.
    Socket,
}

/// The program's side.
#[derive(Debug)]
pub struct ProgramSide {
    /// What it reads from.
    pub reads: OwnedFd,
    /// What it writes to. A copy of `reads` in the form of a socket.
    pub writes: OwnedFd,
}

/// What became of a read or write that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes moved, at least one.
    Bytes(usize),
    /// The direction is over, and closed: the program writes no more, or nobody
    /// reads what it is given.
    Ended,
    /// Nothing now.
    Later,
}

/// Our side.
#[derive(Debug)]
pub struct Channel {
    /// The program's output; `None` after its end.
    output: Option<OwnedFd>,
    /// The program's input; `None` once either side ended it.
    input: Option<OwnedFd>,
}

impl Channel {
    /// Both sides, close-on-exec.
    ///
    /// # Errors
    /// As socketpair(2), pipe(2) and fcntl(2).
    pub fn new(descriptors: Descriptors) -> io::Result<(Channel, ProgramSide)> {
        let (output, input, side) = match descriptors {
            Descriptors::Pipes => {
                let (reads, input) = fd::pipe()?;
                let (output, writes) = fd::pipe()?;
                (output, input, ProgramSide { reads, writes })
            }
            Descriptors::Socket => {
                let (ours, theirs) = fd::stream_pair()?;
                let side = ProgramSide {
                    writes: theirs.try_clone()?,
                    reads: theirs,
                };
                (ours.try_clone()?, ours, side)
            }
        };
        fd::set_nonblocking(&output, true)?;
        fd::set_nonblocking(&input, true)?;
        let channel = Channel {
            output: Some(output),
            input: Some(input),
        };
        Ok((channel, side))
    }

    /// To wait for what the program writes; `None` after its end.
    #[must_use]
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(OwnedFd::as_fd)
    }

    /// To wait for room in the program's input; `None` after its end.
    #[must_use]
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(OwnedFd::as_fd)
    }

    /// Every descriptor of our side.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.output().into_iter().chain(self.input())
    }

    /// Reads what the program wrote. Its end comes behind all of that, even
    /// where it left input unread and the kernel calls that a reset.
    pub fn read(&mut self, buffer: &mut [u8]) -> Moved {
        let Some(output) = &self.output else {
            return Moved::Ended;
        };
        match fd::read_some(output, buffer) {
            Ok(count) if count > 0 => Moved::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Moved::Later,
            _ => {
                self.output = None;
                Moved::Ended
            }
        }
    }

    /// Writes as much as there is room for.
    pub fn write(&mut self, bytes: &[u8]) -> Moved {
        let Some(input) = &self.input else {
            return Moved::Ended;
        };
        match fd::write_some(input, bytes) {
            Ok(0) => Moved::Later,
            Ok(count) => Moved::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Moved::Later,
            Err(_) => {
                self.input = None;
                Moved::Ended
            }
        }
    }

    /// Ends the program's input: it reads what it was given, and then an end of
    /// file.
    pub fn end_input(&mut self) {
        if let Some(input) = self.input.take() {
            // A pipe is ended by closing it.
            let _ = socket::end_output(&input);
        }
    }

    /// Ends both directions: the program reads an end of file, and its writes
    /// fail as into a pipe that nobody reads.
    pub fn close(&mut self) {
        self.end_input();
        self.refuse_output();
    }

    /// Ends the program's output: its writes fail as into a pipe that nobody reads.
    pub fn refuse_output(&mut self) {
        let Some(output) = &self.output else {
            return;
        };
        if socket::refuse(output).is_ok() {
            // Left unread, this would make the end of file a reset.
            let mut scrap = [0; 16384];
            while matches!(self.read(&mut scrap), Moved::Bytes(_)) {}
        }
        self.output = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Descriptors; 2] = [Descriptors::Pipes, Descriptors::Socket];

    fn all(channel: &mut Channel) -> Vec<u8> {
        let mut got = Vec::new();
        let mut buffer = [0; 1000];
        while let Moved::Bytes(count) = channel.read(&mut buffer) {
            got.extend_from_slice(&buffer[..count]);
        }
        got
    }

    #[test]
    fn what_a_program_wrote_comes_whole_though_it_left_input_unread() {
        for descriptors in BOTH {
            let (mut channel, side) = Channel::new(descriptors).expect("descriptors");
            assert_eq!(channel.write(b"never read"), Moved::Bytes(10));
            let text = vec![7; 30_000];
            fd::write_all(&side.writes, &text).expect("room");
            drop(side);
            // A write fails first, and must not swallow what can still be read.
            assert_eq!(channel.write(b"x"), Moved::Ended, "{descriptors:?}");
            assert!(channel.input().is_none());
            assert!(all(&mut channel) == text, "{descriptors:?}");
            assert!(channel.output().is_none());
            assert_eq!(channel.read(&mut [0; 9]), Moved::Ended);
        }
    }

    #[test]
    fn a_program_reads_the_end_of_its_input_and_may_write_on() {
        for descriptors in BOTH {
            let (mut channel, side) = Channel::new(descriptors).expect("descriptors");
            assert_eq!(channel.write(b"last"), Moved::Bytes(4));
            channel.end_input();
            let mut got = [0; 9];
            assert_eq!(fd::read_some(&side.reads, &mut got).expect("reads"), 4);
            assert_eq!(fd::read_some(&side.reads, &mut got).expect("reads"), 0);
            fd::write_all(&side.writes, b"bye").expect("room");
            assert_eq!(channel.read(&mut got), Moved::Bytes(3), "{descriptors:?}");
            assert_eq!(channel.read(&mut got), Moved::Later);
            drop(side);
            assert_eq!(channel.read(&mut got), Moved::Ended);
        }
    }

    #[test]
    fn a_program_may_end_its_output_and_read_on() {
        let (mut channel, side) = Channel::new(Descriptors::Socket).expect("descriptors");
        fd::write_all(&side.writes, b"all").expect("room");
        socket::end_output(&side.writes).expect("a socket");
        assert_eq!(all(&mut channel), b"all");
        assert!(channel.output().is_none());
        assert_eq!(channel.write(b"more"), Moved::Bytes(4));
        let mut got = [0; 9];
        assert_eq!(fd::read_some(&side.reads, &mut got).expect("reads"), 4);
    }

    #[test]
    fn a_closed_channel_is_an_end_of_file_and_no_reset() {
        for descriptors in BOTH {
            let (mut channel, side) = Channel::new(descriptors).expect("descriptors");
            fd::write_all(&side.writes, &vec![7; 50_000]).expect("room");
            assert_eq!(channel.write(b"last"), Moved::Bytes(4));
            channel.close();
            let mut got = [0; 9];
            assert_eq!(fd::read_some(&side.reads, &mut got).expect("reads"), 4);
            assert_eq!(fd::read_some(&side.reads, &mut got).expect("reads"), 0);
            // Tests ignore PIPE, as the runtime has it.
            let error = fd::write_some(&side.writes, b"x").expect_err("closed");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{descriptors:?}");
        }
    }

    #[test]
    fn the_program_s_side_waits_and_ours_does_not() {
        for descriptors in BOTH {
            let (mut channel, side) = Channel::new(descriptors).expect("descriptors");
            assert_eq!(channel.read(&mut [0; 9]), Moved::Later);
            while let Moved::Bytes(_) = channel.write(&vec![0; 65536]) {}
            assert_eq!(channel.write(b"x"), Moved::Later, "{descriptors:?}");
            assert!(!fd::is_nonblocking(&side.reads).expect("flags"));
            assert!(!fd::is_nonblocking(&side.writes).expect("flags"));
        }
    }
}
