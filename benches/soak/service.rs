//! The servers under load: the three ways to TLS, each around a program that
//! says which rule it was started under and then sends every byte back.
#![forbid(unsafe_code)]

use crate::harness::{Place, Setup, ours};

/// How a client comes to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// TLS from the first byte.
    AtOnce,
    /// `sslserver -n`: half of the clients have the program ask for TLS, the
    /// others never do.
    Delayed,
    /// starttls-handoff, SMTP.
    StartTls,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::AtOnce, Way::StartTls, Way::Delayed];

    /// As the command line has it.
    pub fn word(self) -> &'static str {
        match self {
            Way::AtOnce => "tls",
            Way::Delayed => "delayed",
            Way::StartTls => "starttls",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Way::AtOnce => "TLS at once",
            Way::Delayed => "-n",
            Way::StartTls => "STARTTLS",
        }
    }
}

/// The first line is the rule's mark, of which the client knows which it may be.
const AT_ONCE: &str = r#"printf '%s\n' "$MARK"; exec cat"#;

/// For bash: dash cannot name a descriptor of two digits. Where its descriptor 0 is
/// a socket bash reads the startup file of rshd's users, unless told not to.
const DELAYED: &str = r#"read -r word
case $word in tls) echo go; printf y >&$SSLCTLFD; exec <&$SSLREADFD >&$SSLWRITEFD;; esac
printf '%s\n' "$MARK"; exec cat"#;

const STARTTLS: &str = r#"printf '220 soak ESMTP\r\n'
while read -r line; do case $line in
EHLO*) printf '250-soak\r\n250 X-%s\r\n' "$MARK";;
ECHO*) exec cat;;
*) printf '502 no\r\n';;
esac; done"#;

/// A server to be, for so many clients at once.
pub fn setup(place: &Place, way: Way, at_once: usize) -> Setup<'_> {
    let handoff = ours("starttls-handoff");
    let shell = ["/bin/sh", "-c"];
    let (words, letters): (Vec<&str>, _) = match way {
        Way::AtOnce => ([&shell[..], &[AT_ONCE]].concat(), ""),
        Way::Delayed => (vec!["bash", "--norc", "-c", DELAYED], "-n"),
        Way::StartTls => (
            [&[&*handoff, "smtp"], &shell[..], &[STARTTLS]].concat(),
            "-n",
        ),
    };
    // One more than there are clients: what is closing still counts.
    let most = 2 * at_once;
    Setup::new(place, &words)
        .options(&format!("{letters} -c {most} -b {most}"))
        .env("MARK", "none")
}
