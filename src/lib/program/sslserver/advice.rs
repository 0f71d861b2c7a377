//! What is known of other people's programs that would be let down by what they
//! find behind descriptor 0: said at start and under `-k`, never enforced.
#![forbid(unsafe_code)]

use std::ffi::OsString;

/// Programs that start a daemon of their own where descriptor 0 is no socket,
/// with the word that must be there for it.
const DAEMONS: &[(&str, Option<&str>)] = &[
    ("ident2", None),
    ("pure-ftpd", None),
    ("rsync", Some("--daemon")),
];

/// The one that does so unless it finds an Internet socket.
const NEVER: &str = "solid-pop3d";

/// What is wrong with running this program, and the cure. `pipes`: under `-f`.
///
/// A local socket has no client's address. A program that asks the kernel for
/// one and finds none may take the client for a user of this machine.
pub(super) fn on(program: &[OsString], pipes: bool) -> Option<String> {
    // A shell's script is looked into like a command line.
    let text: Vec<String> = program
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = text
        .iter()
        .flat_map(|word| word.split([' ', '\t', '\n', ';', '\'', '"']))
        .filter(|word| !word.is_empty())
        .collect();
    let called = |name: &str| {
        let at = words
            .iter()
            .position(|word| word.rsplit('/').next() == Some(name))?;
        Some(&words[at + 1..])
    };
    for name in ["exim4", "exim"] {
        if let Some(arguments) = called(name) {
            if arguments.contains(&"-bs") && !arguments.iter().any(|word| word.starts_with("-oMa"))
            {
                return Some(format!(
                    "{name} -bs takes every client for a user of this machine and relays its mail: \
                 run it as root or as its own user, with -oMa \"$SSLREMOTEIP\""
                ));
            }
        }
    }
    if called("sendmail").is_some_and(|arguments| arguments.contains(&"-bs")) {
        return Some(
            "sendmail -bs takes every client for a user of this machine and relays its mail: \
             run another program"
                .to_owned(),
        );
    }
    if called(NEVER).is_some() {
        return Some(format!(
            "{NEVER} goes into the background and listens in the clear: run another program"
        ));
    }
    let (name, word) = DAEMONS.iter().find(|(name, word)| {
        called(name).is_some_and(|arguments| word.is_none_or(|word| arguments.contains(&word)))
    })?;
    let shown = word.map_or((*name).to_owned(), |word| format!("{name} {word}"));
    pipes.then(|| {
        format!("under -f {shown} goes into the background and listens in the clear: leave out -f")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(words: &[&str], pipes: bool) -> String {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        on(&words, pipes).unwrap_or_default()
    }

    #[test]
    fn programs_that_trust_a_peer_without_an_address_are_known() {
        for words in [
            &["exim4", "-bs"][..],
            &[
                "starttls-handoff",
                "-v",
                "smtp",
                "/usr/sbin/exim4",
                "-odi",
                "-bs",
            ],
            &["sh", "-c", "umask 022; exec exim -bs"],
            &["/usr/sbin/sendmail", "-bs"],
            &["setuidgid", "postfix", "/usr/sbin/sendmail", "-bs"],
        ] {
            for pipes in [false, true] {
                assert!(
                    advice(words, pipes).contains("relays its mail"),
                    "{words:?}"
                );
            }
        }
        for words in [
            &["exim4", "-bs", "-oMa", "192.0.2.7"][..],
            &["sh", "-c", "exec exim4 -bs -oMa \"$SSLREMOTEIP\""],
            &["exim4", "-bd"],
            &["qmail-smtpd", "-bs"],
            &["sendmail", "-t"],
            &["sh", "-c", ""],
            &[],
        ] {
            assert_eq!(advice(words, false), "", "{words:?}");
        }
    }

    #[test]
    fn programs_that_listen_by_themselves_are_known_under_f() {
        for words in [
            &["/usr/bin/rsync", "--daemon"][..],
            &["nice", "ident2", "-i"],
        ] {
            assert!(advice(words, true).contains("leave out -f"), "{words:?}");
            assert_eq!(advice(words, false), "");
        }
        for pipes in [false, true] {
            let text = advice(&["starttls-handoff", "pop3", "solid-pop3d"], pipes);
            assert!(text.contains("run another program"), "{text}");
        }
        assert_eq!(advice(&["rsync", "--server"], true), "");
    }
}
