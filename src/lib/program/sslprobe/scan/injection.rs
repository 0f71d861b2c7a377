//! Bytes injected behind STARTTLS: a NOOP in the same segment must not be answered
//! inside TLS (CVE-2011-0411).
#![forbid(unsafe_code)]

use super::session::SessionLimits;
use super::talk::Talk;
use super::{Scan, Stop};
use crate::options::sslprobe::Start;
use crate::probe::result::{Injection, Version};

pub(super) fn run(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let Start::Upgrade(protocol) = scan.target.start else {
        return Ok(());
    };
    let want = SessionLimits {
        versions: (Version::Tls10, Version::Tls13),
        signatures: None,
    };
    let ssl = super::session::state(&want)?;
    let answered = match scan.ready(true) {
        Ok((socket, until)) => match scan.handshake(ssl, socket, until) {
            Ok((mut transport, _)) => {
                let answered =
                    Talk::new(&mut transport, protocol, &scan.terms.name).answers_injected();
                transport.close_notify();
                drop(transport);
                scan.hang_up(true);
                answered
            }
            Err(_) => false,
        },
        Err(Stop::Budget) => return Err(Stop::Budget),
        // Too many connections: not an answer to what was injected.
        Err(Stop::Host(why)) if why.contains(": 421") || why.contains("unable to connect") => {
            return Err(Stop::Host(why));
        }
        Err(_) => false,
    };
    scan.result.injection = Some(if answered {
        Injection::Answered
    } else {
        Injection::Refused
    });
    Ok(())
}
