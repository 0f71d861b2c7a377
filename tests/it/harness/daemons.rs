//! Servers of others: Exim behind a listener of ours, Dovecot on ports of its
//! own. Each ends with its value.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::harness::process::{self, PATIENCE};
use crate::harness::{Authority, Identity, Place, eventually, ports, program};

/// Exim on a port of 127.0.0.1, one process a connection.
pub struct Exim {
    pub at: SocketAddr,
    pub spool: PathBuf,
}

impl Exim {
    /// With STARTTLS, or with `-tls-on-connect` TLS at once; it asks for a certificate below the
    /// tests' root. Every message is written to a file in `mail`. `None` where Exim cannot run.
    pub fn start(place: &Place, identity: &Identity, words: &[&str]) -> Option<Exim> {
        let binary = program("exim4")?;
        let (certificate, key) = place.identity("exim", identity);
        let root = place.write("exim-root.pem", Authority::shared_root().pem());
        let spool = place.path("exim-spool");
        for folder in ["exim-spool", "mail"] {
            fs::create_dir_all(place.path(folder)).unwrap();
            let open = fs::Permissions::from_mode(0o777);
            fs::set_permissions(place.path(folder), open).unwrap();
        }
        let config = place.write(
            "exim.conf",
            format!(
                "primary_hostname = mx.test\nspool_directory = {spool}\nlog_file_path = {spool}/%slog\n\
                 tls_advertise_hosts = *\ntls_certificate = {certificate}\ntls_privatekey = {key}\n\
                 tls_try_verify_hosts = *\ntls_verify_certificates = {root}\n\
                 log_selector = +tls_peerdn +tls_certificate_verified\n\
                 acl_smtp_rcpt = accept_all\nacl_smtp_data = accept_all\ndaemon_smtp_ports = 0\n\
                 message_size_limit = 100M\nsmtp_accept_max = 0\nrecipients_max = 0\nprdr_enable = false\n\
                 begin acl\naccept_all:\n  accept\n\
                 begin routers\nall:\n  driver = accept\n  transport = file\n\
                 begin transports\nfile:\n  driver = appendfile\n  directory = {mail}\n  \
                 delivery_date_add = false\n  envelope_to_add = false\n  return_path_add = false\n  \
                 user = {user}\n  batch_max = 1000\n  create_directory = false\n",
                spool = spool.display(),
                mail = place.text("mail"),
                user = "Debian-exim",
            ),
        );
        // Exim refuses a configuration that others may write.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let check = Command::new(&binary)
            .args(["-C", &config, "-bV"])
            .output()
            .unwrap();
        assert!(check.status.success(), "{check:?}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let fd = OwnedFd::from(stream);
                let output = fd.try_clone().unwrap();
                let child = Command::new(&binary)
                    .args(["-C", &config, "-odi", "-bs"])
                    .args(&words)
                    .stdin(Stdio::from(fd))
                    .stdout(Stdio::from(output))
                    .stderr(Stdio::null())
                    .spawn();
                thread::spawn(move || child.map(|mut child| child.wait()));
            }
        });
        Some(Exim { at, spool })
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.spool.join("mainlog")).unwrap_or_default()
    }
}

/// Dovecot's services on ports of 127.0.0.1.
pub struct Dovecot {
    child: Child,
    pub imap: u16,
    /// 0 where it is not installed: Debian has one POP3 server at a time.
    pub pop3: u16,
    pub sieve: u16,
    pub lmtp: u16,
    log: PathBuf,
}

impl Dovecot {
    pub fn start(place: &Place, identity: &Identity) -> Option<Dovecot> {
        let binary = program("dovecot")?;
        let (certificate, key) = place.identity("dovecot", identity);
        let (imap, sieve, lmtp) = (ports::free(), ports::free(), ports::free());
        let has_pop3 = Path::new("/usr/lib/dovecot/pop3-login").exists();
        let pop3 = if has_pop3 { ports::free() } else { 0 };
        let protocols = if has_pop3 {
            "imap pop3 sieve lmtp"
        } else {
            "imap sieve lmtp"
        };
        let log = place.path("dovecot.log");
        let mut config = format!(
            "base_dir = {base}\nlog_path = {log}\nprotocols = {protocols}\nssl = yes\n\
             ssl_cert = <{certificate}\nssl_key = <{key}\ndefault_login_user = nobody\n\
             default_internal_user = nobody\ndefault_internal_group = nogroup\nlisten = 127.0.0.1\n\
             mail_location = maildir:{base}/mail/%u\nservice anvil {{\n chroot =\n}}\n\
             disable_plaintext_auth = no\nlogin_greeting = the greeting\n\
             passdb {{\n driver = static\n args = password=secret\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={base}/home\n}}\n",
            base = place.text("dovecot"),
            log = log.display(),
        );
        for (service, name, port) in [
            ("imap-login", "imap", imap),
            ("pop3-login", "pop3", pop3),
            ("managesieve-login", "sieve", sieve),
            ("lmtp", "lmtp", lmtp),
        ] {
            if port == 0 {
                continue;
            }
            let _ = write!(
                config,
                "service {service} {{\n chroot =\n inet_listener {name} {{\n  port = {port}\n }}\n"
            );
            if service != "lmtp" {
                let _ = write!(config, " inet_listener {name}s {{\n  port = 0\n }}\n");
            }
            config.push_str("}\n");
        }
        let config = place.write("dovecot.conf", config);
        let child = Command::new(binary)
            .args(["-F", "-c", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(place.path("dovecot.stderr")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let dovecot = Dovecot {
            child,
            imap,
            pop3,
            sieve,
            lmtp,
            log,
        };
        eventually("dovecot listens", || {
            [imap, pop3, sieve, lmtp]
                .iter()
                .filter(|port| **port != 0)
                .all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok())
                .then_some(())
        });
        Some(dovecot)
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        process::wait(&mut self.child, PATIENCE);
    }
}
