//! Postfix with a configuration of its own, delivering into maildirs: the one that is
//! installed, or the one in cargo's target directory, where package/rts
//! unpacks Debian's package, which cannot be installed beside Exim's.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::remote::fresh_ip;
use crate::harness::{Authority, Identity, Place, eventually, program};

pub struct Postfix {
    pub ip: IpAddr,
    config: String,
    mail: PathBuf,
    log: PathBuf,
    /// Postfix wants short paths and folders of its own user.
    folder: PathBuf,
    programs: Programs,
}

/// Where the programs are, and which users of the system's they get.
struct Programs {
    root: String,
    owner: &'static str,
    group: &'static str,
}

/// Where package/rts has unpacked Debian's package.
fn unpacked() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let unpacked = target.join("postfix");
    unpacked
        .join("usr/sbin/postfix")
        .is_file()
        .then_some(unpacked)
}

/// Postfix's own probe of TLS with mail servers, posttls-finger(1), with these lines of
/// main.cf; words to put before it, and its own to put behind.
pub fn finger(place: &Place, main: &str) -> Option<Vec<String>> {
    let installed = program("posttls-finger");
    // Its daemons are nobody's here; two users that every Debian has will do.
    let users = "mail_owner = uucp\nsetgid_group = news";
    let (binary, libraries) = match (installed, unpacked()) {
        (Some(binary), _) => (binary, String::new()),
        (None, Some(unpacked)) => (
            unpacked.join("usr/sbin/posttls-finger"),
            unpacked.join("usr/lib/postfix").display().to_string(),
        ),
        (None, None) => return None,
    };
    fs::create_dir_all(place.path("finger")).unwrap();
    place.write(
        "finger/main.cf",
        format!("compatibility_level = 3.6\n{users}\n{main}"),
    );
    Some(vec![
        "env".to_owned(),
        format!("LD_LIBRARY_PATH={libraries}"),
        format!("MAIL_CONFIG={}", place.text("finger")),
        binary.display().to_string(),
    ])
}

impl Programs {
    fn find(folder: &Path) -> Option<Programs> {
        let installed = nix::unistd::User::from_name("postfix").ok()?.is_some();
        if installed && Path::new("/usr/sbin/postfix").is_file() {
            return Some(Programs {
                root: String::new(),
                owner: "postfix",
                group: "postdrop",
            });
        }
        let unpacked = unpacked()?;
        // Its processes are nobody's friends: they may not see a home's inside.
        fs::create_dir_all(folder).unwrap();
        let mut copied = Command::new("cp");
        copied.arg("-r").arg(&unpacked).arg(folder.join("x"));
        assert!(copied.status().unwrap().success());
        // Two users that every Debian has, and nobody needs here.
        Some(Programs {
            root: folder.join("x").display().to_string(),
            owner: "uucp",
            group: "news",
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("{}/usr/sbin/postfix", self.root));
        command.env("LD_LIBRARY_PATH", format!("{}/usr/lib/postfix", self.root));
        command
    }
}

impl Postfix {
    /// STARTTLS on port 25 and TLS at once on 465, for `postfix.test`.
    pub fn start(place: &Place, identity: &Identity) -> Option<Postfix> {
        Postfix::with(place, identity, "", "")
    }

    /// The same with more lines of main.cf and master.cf.
    pub fn with(place: &Place, identity: &Identity, main: &str, services: &str) -> Option<Postfix> {
        let ip = fresh_ip();
        let folder = std::env::temp_dir().join(format!("pf-{ip}"));
        let programs = Programs::find(&folder)?;
        let at = |name: &str| folder.join(name).display().to_string();
        for name in ["q", "d", "conf", "mail"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let own = Command::new("chown")
            .args([programs.owner, &at("d"), &at("mail")])
            .status();
        assert!(own.unwrap().success());
        let (certificate, key) = place.identity("postfix", identity);
        let root = place.write("postfix-root.pem", Authority::shared_root().pem());
        let user = nix::unistd::User::from_name(programs.owner);
        let user = user.unwrap().unwrap();
        fs::write(
            at("conf/main.cf"),
            format!(
                "compatibility_level = 3.6\nqueue_directory = {q}\ndata_directory = {d}\n\
                 command_directory = {programs}/usr/sbin\n\
                 daemon_directory = {programs}/usr/lib/postfix/sbin\n\
                 shlib_directory = {programs}/usr/lib/postfix\nmeta_directory = {programs}/etc/postfix\n\
                 sendmail_path = {programs}/usr/sbin/sendmail\n\
                 newaliases_path = {programs}/usr/bin/newaliases\nmailq_path = {programs}/usr/bin/mailq\n\
                 import_environment = LD_LIBRARY_PATH={programs}/usr/lib/postfix MAIL_CONFIG TZ LANG=C\n\
                 mail_owner = {owner}\nsetgid_group = {group}\nmyhostname = mx.test\n\
                 maillog_file = {log}\nmaillog_file_prefixes = /tmp\ninet_interfaces = all\ninet_protocols = ipv4\nmydestination =\nalias_maps =\nalias_database =\n\
                 virtual_mailbox_domains = postfix.test\nvirtual_mailbox_base = {mail}\n\
                 virtual_mailbox_maps = static:box/\nvirtual_uid_maps = static:{uid}\n\
                 virtual_gid_maps = static:{gid}\nvirtual_minimum_uid = 1\n\
                 smtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {key}\n\
                 smtpd_tls_security_level = may\nsmtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {root}\n\
                 smtpd_tls_received_header = yes\nmessage_size_limit = 100000000\n\
                 virtual_mailbox_limit = 0\nsmtpd_recipient_limit = 2000\n\
                 smtpd_relay_restrictions = permit_auth_destination, reject\n{main}\n",
                programs = programs.root,
                owner = programs.owner,
                group = programs.group,
                q = at("q"),
                d = at("d"),
                log = at("log"),
                mail = at("mail"),
                uid = user.uid,
                gid = user.gid,
            ),
        )
        .unwrap();
        fs::write(
            at("conf/master.cf"),
            format!(
                "{ip}:25 inet n - n - - smtpd\n\
                 {ip}:465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n\
                 cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
                 tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\n\
                 bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
                 trace unix - - n - 0 bounce\nvirtual unix - n n - - virtual\n\
                 error unix - - n - - error\nretry unix - - n - - error\n\
                 proxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\n\
                 postlog unix-dgram n - n - 1 postlogd\n{services}\n"
            ),
        )
        .unwrap();
        let config = at("conf");
        let started = programs
            .command()
            .args(["-c", &config, "start"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(started.status.success(), "{started:?}");
        let postfix = Postfix {
            ip,
            config,
            mail: folder.join("mail/box/new"),
            log: folder.join("log"),
            folder,
            programs,
        };
        eventually("Postfix listens", || {
            [25, 465]
                .iter()
                .all(|port| TcpStream::connect((ip, *port)).is_ok())
                .then_some(())
        });
        Some(postfix)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The messages that arrived, when there are so many.
    pub fn mail(&self, count: usize) -> Vec<Vec<u8>> {
        eventually("the mail arrives", || {
            let found: Vec<_> = fs::read_dir(&self.mail).ok()?.flatten().collect();
            (found.len() >= count).then_some(())
        });
        let entries = fs::read_dir(&self.mail).unwrap();
        entries
            .map(|one| fs::read(one.unwrap().path()).unwrap())
            .collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        let _ = self
            .programs
            .command()
            .args(["-c", &self.config, "stop"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
