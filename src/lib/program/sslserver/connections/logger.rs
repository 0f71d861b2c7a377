//! What stays when the supervisor ends before its connections, or before its log is
//! read: a process that goes on writing what engines have for the log and what nobody
//! has read yet, and can do nothing else.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::Connections;
use crate::log;
use crate::report::{TEMPORARY, reason};
use crate::sys::poll::{self, Ready};
use crate::sys::poll_set::PollSet;
use crate::sys::process;
use crate::sys::user::{Holder, Identity, Powers};
use crate::sys::{sandbox, signal};

/// How long it waits at last for a reader that stands still: multilog tries again every
/// few seconds where its disk is full, and what reads may be about to be started again.
const LAST: Duration = Duration::from_secs(60);

impl Connections<'_> {
    /// Leaves a process behind that goes on writing what engines have for the
    /// log, when their supervisor ends before them, or what waits for a reader. It can do
    /// nothing else.
    pub fn leave_logger(&mut self) {
        let heard = self.all.values().any(|one| one.messages.is_some());
        // In a container all processes end with the first: so that one waits a little.
        if !heard && !log::is_left() {
            return;
        }
        let mut queue = Some(log::hand_on());
        let forked = process::spawn(|forked| {
            self.retired = true;
            log::keep();
            queue.take().into_iter().for_each(log::take_over);
            process::name("logger");
            signal::ignore_others();
            if self.gather().is_err() {
                return TEMPORARY;
            }
            let channels = self.all.values().filter_map(|one| one.messages.as_ref());
            let mut kept: Vec<BorrowedFd<'_>> = channels.map(AsFd::as_fd).collect();
            kept.extend(log::descriptors());
            kept.push(self.poll_set.as_fd());
            forked.close_all_but(&kept);
            let confined = match self.setup.powers {
                Powers::Many => Identity::of_this_process(Holder::Engine).assume(),
                _ => Ok(()),
            };
            if confined.and_then(|()| sandbox::confine()).is_err() {
                return TEMPORARY;
            }
            self.log_on();
            0
        });
        if let Err(error) = forked {
            queue.into_iter().for_each(log::take_over);
            if !heard {
                return log::finish(Duration::ZERO);
            }
            let reason = reason(&error);
            self.setup.report.warning(format_args!(
                "unable to fork: {reason}: nothing more is logged of the connections in progress"
            ));
        }
    }

    /// Makes a set of this process's own.
    fn gather(&mut self) -> io::Result<()> {
        self.poll_set = PollSet::new()?;
        for (id, connection) in &self.all {
            if let Some(messages) = &connection.messages {
                self.poll_set.add(messages, *id)?;
            }
        }
        Ok(())
    }

    fn log_on(&mut self) {
        while self.all.values().any(|one| one.messages.is_some()) {
            let mut wanted = vec![(self.poll_set.as_fd(), Ready::READ)];
            wanted.extend(log::waiting().map(|log| (log, Ready::WRITE)));
            if poll::wait(&mut wanted, None).is_err() {
                break;
            }
            log::write_on();
            self.hear();
            while let Some((id, _)) = self.unmade() {
                self.made(id, false);
            }
        }
        log::finish(LAST);
    }
}
