//! The guides of doc/, README.md and INSTALL, command by command: each block is
//! run as it stands, by a reader who is root of a machine of his own, and what
//! the page shows of its output must come. What can't be run says so in the page
//! itself, with its reason, and the test prints it.
#![forbid(unsafe_code)]

mod chart;
mod index;
mod install;
mod page;
mod reader;

use reader::follow;

/// A test for each page, with the programs that it takes for installed; and the
/// list of them all.
macro_rules! pages {
    ($($name:ident $page:literal $needs:expr;)*) => {
        $(#[test]
        fn $name() {
            follow($page, &$needs);
        })*

        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    architecture "doc/architecture.md" [];
    certificates "doc/certificates.md" ["busybox", "certbot", "curl", "dehydrated", "haproxy", "lego", "multilog", "pebble", "popa3d"];
    dane "doc/dane.md" ["dig", "ldns-signzone", "nsd", "smtpfront-echo"];
    examples "examples/README.md" ["multilog", "popa3d", "svscan"];
    first_service "doc/first-service.md" ["certbot", "curl", "haproxy", "make", "multilog", "pebble", "popa3d", "runsvdir", "s6-svscan", "smtpfront-echo", "systemd-analyze"];
    limits "doc/limits.md" ["make", "multilog", "popa3d", "softlimit"];
    log_lines "doc/log-lines.md" ["multilog", "nc", "popa3d"];
    moving "doc/moving.md" ["execlineb", "haproxy", "hitch", "mconnect", "popa3d", "s6-svscan", "smtpfront-echo", "socat", "softlimit", "stunnel", "tcprules", "tcpserver"];
    outbound "doc/outbound.md" ["ldns-signzone", "nsd", "tcpserver", "smtpfront-echo"];
    partners "doc/partners.md" ["smtpfront-echo"];
    performance "doc/performance.md" [];
    readme "README.md" ["make", "multilog", "popa3d", "smtpfront-echo"];
    scaling "doc/scaling.md" ["haproxy", "make", "multilog", "popa3d", "socat"];
    security "doc/security.md" [];
    tls_guidelines "doc/tls-guidelines.md" ["sslyze", "testssl"];
    troubleshooting "doc/troubleshooting.md" [];
}
