//! What stands in the files of a service: a directory for supervise, runsv or
//! s6-supervise, or a unit of systemd.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::quote;
use crate::options::sslserver_conf::Supervisor;
use crate::options::starttls_handoff;

/// The service that is asked for.
#[derive(Debug)]
pub(super) struct Service {
    /// Whose it is.
    pub supervisor: Supervisor,
    /// Whom the program runs as.
    pub account: String,
    /// Whom the log's writer runs as.
    pub log_account: String,
    /// Its directory, an absolute path.
    pub directory: PathBuf,
    /// sslserver's `host` and `port`.
    pub host: String,
    pub port: String,
    /// The program and its arguments.
    pub program: Vec<OsString>,
    /// This host's name, for `-l`.
    pub local_name: String,
    /// Where our own programs are; `None`: wherever `PATH` finds them.
    pub programs: Option<PathBuf>,
}

/// A file that is going to be there.
pub(super) struct File {
    pub path: &'static str,
    pub mode: u32,
    pub text: Vec<u8>,
}

/// What every service's rules begin with.
pub(super) const RULES: &[u8] = b":allow\n";

/// Where everybody's programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directories of a service, with whether they are the log's.
pub(super) const DIRECTORIES: &[(&str, bool)] = &[
    ("empty", false),
    ("env", false),
    ("log", false),
    ("log/main", true),
];

impl Service {
    /// The files of a directory for a supervisor, `rules.cdb` aside.
    pub fn files(&self) -> Vec<File> {
        let file = |path, mode, text| File { path, mode, text };
        let setting = |name: &str| {
            let mut line = self.inside(name);
            line.push(b'\n');
            line
        };
        let mut path = self.path();
        path.push(b'\n');
        let mut files = vec![
            file("run", 0o755, self.run()),
            file("log/run", 0o755, self.log_run()),
            file("env/CERTFILE", 0o644, setting("cert.pem")),
            // Empty: the key stands in CERTFILE too, until somebody names a file.
            file("env/KEYFILE", 0o644, Vec::new()),
            file("env/PATH", 0o644, path),
            file("env/SSL_CHROOT", 0o644, setting("empty")),
            file("rules", 0o644, RULES.to_vec()),
            file("Makefile", 0o644, self.makefile()),
        ];
        if self.supervisor == Supervisor::S6 {
            files.push(file("notification-fd", 0o644, b"3\n".to_vec()));
            files.push(file("log/notification-fd", 0o644, b"3\n".to_vec()));
        }
        files
    }

    /// The words of sslserver's command line, from its own name on.
    fn command(&self, more: &[&str]) -> Vec<Vec<u8>> {
        let mut words = vec![self.tool("sslserver")];
        let mut word = |text: &str| words.push(text.as_bytes().to_vec());
        word("-vVeRHl");
        word(&self.local_name);
        for fixed in ["-C", "20"] {
            word(fixed);
        }
        // starttls-handoff begins in plaintext and asks for TLS itself.
        if starttls_handoff::is_run_by(&self.program) {
            word("-n");
        }
        for text in more {
            word(text);
        }
        for text in ["-u", &self.account, &self.host, &self.port] {
            word(text);
        }
        let program = self.program.iter().map(|word| word.as_bytes().to_vec());
        words.extend(program);
        words
    }

    /// The path of a program of ours.
    fn tool(&self, name: &str) -> Vec<u8> {
        match &self.programs {
            Some(folder) => folder.join(name).as_os_str().as_bytes().to_vec(),
            None => name.as_bytes().to_vec(),
        }
    }

    fn inside(&self, name: &str) -> Vec<u8> {
        self.directory.join(name).as_os_str().as_bytes().to_vec()
    }

    /// Ours first, so that `prog` may be starttls-handoff wherever that is.
    fn path(&self) -> Vec<u8> {
        let own = self.programs.iter().map(|own| own.as_os_str().as_bytes());
        let own = own.filter(|own| {
            !PATH
                .as_bytes()
                .split(|byte| *byte == b':')
                .any(|one| one == *own)
        });
        let mut path: Vec<u8> = own.flat_map(|own| [own, b":"].concat()).collect();
        path.extend(PATH.as_bytes());
        path
    }

    fn run(&self) -> Vec<u8> {
        let (reads_settings, more, end): (_, &[&str], &[u8]) = match self.supervisor {
            Supervisor::Daemontools => ("envdir ./env", &["-x", "rules.cdb"], b""),
            Supervisor::Runit => ("chpst -e ./env", &["-x", "rules.cdb"], b""),
            // The line of -1 goes where notification-fd says, and the messages,
            // which s6-log reads, do not.
            _ => ("s6-envdir ./env", &["-1", "-x", "rules.cdb"], b" >&3 3>&-"),
        };
        let mut text = format!("#!/bin/sh\nexec 2>&1\nexec {reads_settings} \\\n  ").into_bytes();
        text.extend(joined(&self.command(more), quote::shell));
        text.extend(end);
        text.push(b'\n');
        text
    }

    fn log_run(&self) -> Vec<u8> {
        let account = self.log_account.as_bytes();
        let (begin, end) = match self.supervisor {
            Supervisor::Daemontools => ("exec setuidgid ", " multilog t s1000000 n20 ./main\n"),
            Supervisor::Runit => ("exec chpst -u ", " svlogd -tt ./main\n"),
            _ => (
                "exec s6-setuidgid ",
                " s6-log -b -d3 n20 s1000000 t ./main\n",
            ),
        };
        let mut text = b"#!/bin/sh\n".to_vec();
        text.extend(begin.as_bytes());
        text.extend(quote::shell(account));
        text.extend(end.as_bytes());
        text
    }

    fn makefile(&self) -> Vec<u8> {
        let mut text = b"rules.cdb: rules\n\t".to_vec();
        text.extend(quote::recipe(&self.tool("sslrules")));
        text.extend(b" rules.cdb rules.tmp < rules\n");
        text
    }

    /// A unit of systemd. Its restrictions are those that a program may be expected
    /// to bear: it has to become other users, to run setuid programs and to write
    /// mail, and it is not known here.
    pub fn unit(&self, certificate: &Path) -> Vec<u8> {
        let mut environment = vec![
            [b"CERTFILE=", certificate.as_os_str().as_bytes()].concat(),
            b"KEYFILE=".to_vec(),
        ];
        let path = self.path();
        if path != PATH.as_bytes() {
            environment.push([b"PATH=".to_vec(), path].concat());
        }
        let mut text = format!(
            "[Unit]\n\
             Description=TLS on port {} (sslserver)\n\
             Documentation=man:sslserver(1)\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             # As a supervisor of services: what is missing may come at any time.\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n\
             Type=notify\n\
             # Settings of sslserver(1). An empty KEYFILE: the key is in CERTFILE too.\n",
            self.port
        )
        .into_bytes();
        for assignment in environment {
            text.extend(b"Environment=");
            text.extend(quote::assignment(&assignment));
            text.push(b'\n');
        }
        text.extend(b"Environment=SSL_CHROOT=%t/%N\nRuntimeDirectory=%N\nExecStart=");
        text.extend(joined(&self.command(&[]), quote::unit));
        text.extend(UNIT_END.as_bytes());
        text
    }
}

/// What every unit ends with.
const UNIT_END: &str = "
ExecReload=/bin/kill -HUP $MAINPID
# Connections outlive a stop and a restart, and one that runs out of memory ends
# alone.
KillMode=process
OOMPolicy=continue
Restart=always
RestartSec=1
LockPersonality=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=full
RestrictNamespaces=yes
RestrictRealtime=yes

[Install]
WantedBy=multi-user.target
";

/// The words of a command line, each quoted as the file wants it.
fn joined(words: &[Vec<u8>], quote: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let quoted: Vec<Vec<u8>> = words.iter().map(|word| quote(word)).collect();
    quoted.join(&b' ')
}
