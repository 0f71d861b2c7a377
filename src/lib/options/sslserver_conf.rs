//! sslserver-conf's command line.
#![forbid(unsafe_code)]

use super::Letter::Flag;
use super::Table;

/// Whose service it is going to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Supervisor {
    /// `-d`: supervise, with multilog for its log.
    #[default]
    Daemontools,
    /// `-r`: runsv, with svlogd.
    Runit,
    /// `-s`: s6-supervise, with s6-log.
    S6,
    /// `-S`: systemd, whose journal keeps the log.
    Systemd,
}

/// The options, with their defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `-d -r -s -S`.
    pub supervisor: Supervisor,
}

/// Letters and operands of sslserver-conf(1).
pub const TABLE: Table<Options> = Table {
    program: "sslserver-conf",
    operands: "acct logacct dir [ host ] port prog [ args ]",
    least: 5,
    page: "sslserver-conf(1)",
    letters: &[
        ('d', Flag(|o| o.supervisor = Supervisor::Daemontools)),
        ('r', Flag(|o| o.supervisor = Supervisor::Runit)),
        ('s', Flag(|o| o.supervisor = Supervisor::S6)),
        ('S', Flag(|o| o.supervisor = Supervisor::Systemd)),
    ],
};
