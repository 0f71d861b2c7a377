//! The log of a server: descriptor 2, whose reader others must not wait for. Lines that
//! find no room, or cannot be written, are kept, up to a bound; those beyond it are
//! counted, and the log is told how many they were, in their place.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use crate::report::{self, Sink};
use crate::sys::outlet::outlet;
use crate::sys::poll::{self, Ready};

/// How many bytes of lines are kept.
const BOUND: usize = 64 * 1024;
/// How long a process waits for room that does not come back to what it kept.
pub const PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    static LOG: RefCell<Log> = const { RefCell::new(Log::new()) };
}

/// What was said, and not yet written.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Line(Vec<u8>),
    /// So many lines in a row that there was no place for, and why nothing could be
    /// written then, if it was not for want of room.
    Lost(u64, Option<String>),
}

impl Entry {
    /// How many lines it stands for.
    fn count(&self) -> u64 {
        match self {
            Entry::Line(_) => 1,
            Entry::Lost(count, _) => *count,
        }
    }

    /// What is written of it.
    fn text(&self, program: &str) -> Cow<'_, [u8]> {
        match self {
            Entry::Line(line) => line.into(),
            Entry::Lost(count, why) => lost(program, *count, why.as_deref()).into_bytes().into(),
        }
    }
}

/// Lines in their order. Whoever has one keeps its order by offering nothing but what
/// is in it.
#[derive(Debug)]
pub struct Queue {
    program: &'static str,
    entries: VecDeque<Entry>,
    /// Bytes of all lines.
    bytes: usize,
    /// How much of the first is written.
    written: usize,
    /// The bound was met: nothing is kept until half of it is free, so that lines in
    /// a row are lost, and not every other.
    losing: bool,
    /// Why the last write failed, other than for want of room. Nothing tells when it
    /// could be done: it is tried again with each line.
    failure: Option<String>,
    /// The log ends with a part of a line, which is to be ended before anything else is
    /// written.
    torn: bool,
}

impl Queue {
    const fn new(program: &'static str) -> Queue {
        Queue {
            program,
            entries: VecDeque::new(),
            bytes: 0,
            written: 0,
            losing: false,
            failure: None,
            torn: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is something to be written as soon as there is room.
    fn awaits_room(&self) -> bool {
        !self.is_empty() && self.failure.is_none()
    }

    fn push(&mut self, line: &[u8]) {
        self.losing &= self.bytes > BOUND / 2;
        self.losing |= self.bytes + line.len() > BOUND;
        // A count that is partly written stands.
        let begun = self.written > 0 && self.entries.len() == 1;
        if !self.losing {
            self.bytes += line.len();
            self.entries.push_back(Entry::Line(line.to_vec()));
        } else if let (Some(Entry::Lost(count, _)), false) = (self.entries.back_mut(), begun) {
            *count += 1;
        } else {
            let why = self.failure.clone();
            self.entries.push_back(Entry::Lost(1, why));
        }
    }

    /// Writes what there is room for.
    fn drain(&mut self, mut offer: impl FnMut(&[u8]) -> io::Result<usize>) {
        while let Some(first) = self.entries.front() {
            let text = self.ending(first.text(self.program));
            let length = text.len();
            let error = match offer(&text[self.written..]) {
                Ok(count @ 1..) => {
                    self.failure = None;
                    self.written += count;
                    if self.written >= length {
                        self.pop();
                    }
                    continue;
                }
                Ok(_) => io::ErrorKind::WriteZero.into(),
                Err(error) => error,
            };
            self.failure = None;
            if error.kind() != io::ErrorKind::WouldBlock {
                self.failure = Some(report::reason(&error));
                self.begin_again();
            }
            return;
        }
    }

    /// A text, and before it the end of a line that was torn.
    fn ending<'a>(&self, text: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        if self.torn {
            [b"\n", &*text].concat().into()
        } else {
            text
        }
    }

    /// The first line is to be written as a whole, whatever was written of it: others may
    /// write before we can go on.
    fn begin_again(&mut self) {
        if self.written > 0 {
            // Perhaps it was the end of an earlier one alone.
            self.torn = self.written > usize::from(self.torn);
            self.written = 0;
        }
    }

    /// The first line, if nothing of it is written.
    fn untouched(&self) -> Option<Vec<u8>> {
        match self.entries.front() {
            Some(Entry::Line(line)) if self.written == 0 => {
                Some(self.ending(line.into()).into_owned())
            }
            _ => None,
        }
    }

    fn pop(&mut self) {
        if let Some(Entry::Line(line)) = self.entries.pop_front() {
            self.bytes -= line.len();
        }
        self.written = 0;
        self.torn = false;
    }

    /// Nobody will come back: of all that is left, its number.
    fn count_rest(&mut self) {
        self.begin_again();
        let rest = self.entries.drain(..).map(|entry| entry.count()).sum();
        self.bytes = 0;
        if rest > 0 {
            let why = self.failure.clone();
            self.entries.push_back(Entry::Lost(rest, why));
        }
    }
}

fn lost(program: &str, count: u64, why: Option<&str>) -> String {
    let lost = match (count, why) {
        (1, None) => "1 log line was lost: the log's reader was too slow".to_owned(),
        (_, None) => format!("{count} log lines were lost: the log's reader was too slow"),
        (1, Some(why)) => format!("1 log line was lost: unable to write to the log: {why}"),
        (_, Some(why)) => format!("{count} log lines were lost: unable to write to the log: {why}"),
    };
    report::compose(program, &format!("warning: {lost}"))
}

/// Takes a line; false where nobody is there any more.
type Taker = dyn Fn(&[u8]) -> bool;

/// What becomes of a line that there is no room for.
enum NoRoom {
    /// It is kept: this process comes back for it when there is.
    Keep,
    /// Another process has the queue: it is given to that one, and so is each that
    /// follows.
    Give(Box<Taker>),
    /// It is waited for, until that was in vain once.
    Wait,
}

/// See the file's head.
struct Log {
    queue: Queue,
    no_room: NoRoom,
    /// Whoever has the queue has lines of before.
    behind: bool,
}

impl Log {
    const fn new() -> Log {
        Log {
            queue: Queue::new(""),
            no_room: NoRoom::Wait,
            behind: false,
        }
    }

    fn line(&mut self, line: &[u8]) {
        if self.behind && self.is_taken(line) {
            return;
        }
        let waits = !self.queue.is_empty();
        self.queue.push(line);
        match &self.no_room {
            NoRoom::Keep if waits && self.queue.failure.is_none() => {}
            NoRoom::Keep => self.drain(),
            NoRoom::Give(_) => {
                self.drain();
                self.give_away();
            }
            NoRoom::Wait if waits => self.drain(),
            NoRoom::Wait => self.drain_within(PATIENCE),
        }
    }

    /// Whether somebody else takes a line.
    fn is_taken(&self, line: &[u8]) -> bool {
        matches!(&self.no_room, NoRoom::Give(give) if give(line))
    }

    fn give_away(&mut self) {
        if let Some(line) = self.queue.untouched() {
            if self.is_taken(&line) {
                self.behind = true;
                self.queue.pop();
            } else {
                self.no_room = NoRoom::Wait;
                self.drain_within(PATIENCE);
            }
        }
    }

    fn drain(&mut self) {
        self.queue.drain(|line| outlet().offer(line));
    }

    /// Waits for room, as long as it may come.
    fn drain_within(&mut self, patience: Duration) {
        self.drain();
        let end = Instant::now() + patience;
        while self.queue.awaits_room() && Instant::now() < end {
            let mut wanted = [(outlet().as_fd(), Ready::WRITE)];
            if poll::wait(&mut wanted, Some(end)).is_err() {
                return;
            }
            self.drain();
        }
    }

    /// The end of all that is said, and a last try: where a line finds no room, its
    /// number may.
    fn finish(&mut self, patience: Duration) {
        self.no_room = NoRoom::Wait;
        self.drain_within(patience);
        self.queue.count_rest();
        self.drain();
        self.queue = Queue::new(self.queue.program);
    }
}

fn with<T>(step: impl FnOnce(&mut Log) -> T) -> T {
    LOG.with_borrow_mut(step)
}

/// Takes all lines of this process and of those that it forks. Until
/// [`keep`](Started::keep), and in those others, a line that finds no room is waited for,
/// for two seconds once.
#[must_use]
pub fn begin(program: &'static str) -> Started {
    // Before there is a process that lacks what that takes.
    let _ = outlet();
    with(|log| log.queue = Queue::new(program));
    report::write_to(Sink {
        line: |line| with(|log| log.line(line)),
        forked: || {
            with(|log| {
                log.behind = !log.queue.is_empty();
                log.queue = Queue::new(log.queue.program);
                log.no_room = NoRoom::Wait;
            });
        },
    });
    Started(())
}

/// A log that was begun. At its end what is kept is written as far as there is room
/// within two seconds.
#[derive(Debug)]
pub struct Started(());

impl Drop for Started {
    fn drop(&mut self) {
        finish(PATIENCE);
    }
}

/// Writes what is kept, as far as there is room within that time, and then at least how
/// much more it was. It is forgotten.
pub fn finish(patience: Duration) {
    with(|log| log.finish(patience));
}

/// Writes what is kept, as far as there is room within two seconds. Whether more of it
/// could be written later.
#[must_use]
pub fn is_left() -> bool {
    with(|log| {
        log.drain_within(PATIENCE);
        log.queue.awaits_room()
    })
}

/// From now on nothing is waited for: this process calls [`write_on`] when
/// [`waiting`] has room.
pub fn keep() {
    with(|log| log.no_room = NoRoom::Keep);
}

/// From now on a line that finds no room is given away. False says that nobody takes
/// it.
pub fn give(to: impl Fn(&[u8]) -> bool + 'static) {
    with(|log| log.no_room = NoRoom::Give(Box::new(to)));
}

/// From now on a line that finds no room is waited for.
pub fn wait() {
    with(|log| log.no_room = NoRoom::Wait);
}

/// Where room is waited for, if anything is kept that it would help.
#[must_use]
pub fn waiting() -> Option<BorrowedFd<'static>> {
    with(|log| log.queue.awaits_room()).then(|| outlet().as_fd())
}

/// Writes what is kept, as far as there is room.
pub fn write_on() {
    with(Log::drain);
}

/// What is kept, for the process that goes on writing.
#[must_use]
pub fn hand_on() -> Queue {
    with(|log| {
        let next = Queue::new(log.queue.program);
        std::mem::replace(&mut log.queue, next)
    })
}

/// Goes on where another process left off.
pub fn take_over(queue: Queue) {
    with(|log| log.queue = queue);
}

/// The descriptors of the log, which a process must keep that has lines for it.
pub fn descriptors<'a>() -> impl Iterator<Item = BorrowedFd<'a>> {
    [Some(outlet().standard()), outlet().own()]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader with room for so many bytes, or what the error is when it has none.
    struct Reader {
        room: usize,
        full: Option<i32>,
        got: String,
    }

    impl Reader {
        fn new() -> Reader {
            Reader {
                room: 0,
                full: None,
                got: String::new(),
            }
        }

        fn takes(&mut self, room: usize, queue: &mut Queue) {
            self.room = room;
            queue.drain(|bytes| {
                let count = self.room.min(bytes.len());
                if count == 0 {
                    let full = self.full.map(io::Error::from_raw_os_error);
                    return Err(full.unwrap_or_else(|| io::ErrorKind::WouldBlock.into()));
                }
                self.room -= count;
                self.got.push_str(&String::from_utf8_lossy(&bytes[..count]));
                Ok(count)
            });
        }
    }

    /// A line of 1000 bytes.
    fn long(number: usize) -> Vec<u8> {
        format!("{number:<999}\n").into_bytes()
    }

    #[test]
    fn lines_come_whole_and_in_order_however_little_room_there_is() {
        let mut queue = Queue::new("p");
        let mut reader = Reader::new();
        queue.push(b"one\n");
        queue.push(b"two\n");
        for _ in 0..5 {
            reader.takes(1, &mut queue);
        }
        assert_eq!(reader.got, "one\nt");
        queue.push(b"three\n");
        reader.takes(100, &mut queue);
        assert_eq!(reader.got, "one\ntwo\nthree\n");
        assert!(queue.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn what_is_lost_is_counted_in_its_place() {
        let mut queue = Queue::new("p");
        let mut reader = Reader::new();
        let most = BOUND / 1000;
        for number in 0..most + 3 {
            queue.push(&long(number));
        }
        assert!(queue.bytes <= BOUND);
        // Room for a few does not have every other line lost.
        reader.takes(5000, &mut queue);
        queue.push(&long(0));
        // Half of it does.
        reader.takes(BOUND / 2, &mut queue);
        queue.push(b"late\n");
        reader.takes(2 * BOUND, &mut queue);
        let mut lines = reader.got.lines().map(str::trim_end);
        for number in 0..most {
            assert_eq!(lines.next(), Some(&*number.to_string()));
        }
        let told = "p: warning: 4 log lines were lost: the log's reader was too slow";
        assert_eq!(lines.next(), Some(told));
        assert_eq!(lines.next(), Some("late"));
        assert_eq!(lines.next(), None);
        assert!(queue.is_empty() && queue.bytes == 0);
        assert!(lost("p", 1, None).starts_with("p: warning: 1 log line was lost: "));
    }

    /// A disk with room for so many bytes more, which fills in the middle of a line.
    #[test]
    fn what_could_not_be_written_is_written_when_it_can() {
        let mut disk = Reader::new();
        disk.full = Some(libc::ENOSPC);
        let mut queue = Queue::new("p");
        queue.push(b"one\n");
        disk.takes(2, &mut queue);
        assert_eq!(disk.got, "on");
        assert!(!queue.awaits_room(), "nothing tells when");
        queue.push(b"two\n");
        // Room for the end of the torn line alone, and torn again.
        disk.takes(1, &mut queue);
        disk.takes(2, &mut queue);
        disk.takes(2, &mut queue);
        assert_eq!(disk.got, "on\non\no");
        disk.takes(100, &mut queue);
        assert_eq!(disk.got, "on\non\no\none\ntwo\n");
        assert!(queue.is_empty() && queue.bytes == 0 && !queue.torn);
    }

    #[test]
    fn what_can_never_be_written_is_counted() {
        let mut disk = Reader::new();
        disk.full = Some(libc::EIO);
        let mut queue = Queue::new("p");
        for number in 0..100 {
            queue.push(&long(number));
            disk.takes(0, &mut queue);
        }
        assert!(queue.bytes <= BOUND);
        disk.takes(1_000_000, &mut queue);
        let lines = BOUND / 1000;
        let told = format!(
            "p: warning: {} log lines were lost: unable to write to the log: i/o error",
            100 - lines
        );
        assert_eq!(disk.got.lines().nth(lines), Some(&*told));
        assert_eq!(disk.got.lines().count(), lines + 1);
        assert!(queue.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn of_what_is_left_at_the_end_the_number_is_written() {
        let mut reader = Reader::new();
        let mut queue = Queue::new("p");
        for number in 0..100 {
            queue.push(&long(number));
        }
        reader.takes(1100, &mut queue);
        queue.count_rest();
        // The second line was begun.
        reader.takes(100, &mut queue);
        let told = "p: warning: 99 log lines were lost: the log's reader was too slow";
        assert_eq!(reader.got.lines().nth(2), Some(told));
        assert_eq!(reader.got.lines().count(), 3);
        assert!(queue.is_empty() && queue.bytes == 0);
    }
}
